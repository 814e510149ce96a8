"""What is kept: sizes, last use, verification, removal, a shared home below the user's own; fuzzed lists."""

import json
import os
import shutil
import time
import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from servers import COMMIT, DATA, entry, everything, serving, whole, write_list

from magnet_cli.catalog import cache, download, entries, housekeeping
from magnet_cli.catalog.lockfile import Lockfile
from magnet_cli.errors import ArtifactError

LONG_AGO = 1_600_000_000


@pytest.fixture
def kept(home, tmp_path, monkeypatch):
    """Three artifacts from a server; of one nothing was pinned, and one is no longer in any list."""
    data = {"one": DATA, "two": b"\x02\0\0\0\0\0\0\0{}", "three": b"3" * 1000}
    with serving({f"/{name}.safetensors": whole(d) for name, d in data.items()}) as server:
        made = {n: entry(f"{server.url}/{n}.safetensors", d, name=n) for n, d in data.items()}
        for artifact in made.values():
            download.fetch(artifact)
    del made["three"]
    made["two"] = entry("https://magnet.invalid/two.safetensors", sha256="", size=0, name="two")
    path = cache.path_of(made["two"])
    path.parent.mkdir(parents=True)
    path.write_bytes(data["two"])
    monkeypatch.setenv("MAGNET_ARTIFACTS", str(write_list(tmp_path / "mine.toml", *made.values())))
    download.fetch(made["two"])
    return made


def old(path):
    os.utime(cache.timekeeper(path), (LONG_AGO, LONG_AGO))


@pytest.mark.slow
def test_what_is_kept_is_listed_with_size_and_last_use(magnet, kept, toy_volume, home, monkeypatch):
    magnet("fetch", "one", "two")
    shutil.copytree(toy_volume.path, home / "volumes" / "toy-abc")
    (cache.folder_of(kept["one"]) / ".one.safetensors.partial").write_bytes(b"12345")
    old(cache.path_of(kept["one"]))
    listed = magnet("cache", "list", "--json").json
    rows = {row["name"]: row for row in listed["kept"]}
    unlisted = [name for name, row in rows.items() if row["kind"] == "unlisted"]
    assert len(unlisted) == 2  # "three", and what "two" was before its entry lost the hash
    assert rows["one"]["size"] == len(DATA)
    assert rows["one"]["used"].startswith("2020-09-13")
    assert rows["two"]["used"][:10] == time.strftime("%Y-%m-%d", time.gmtime())
    assert rows["toy-abc"]["kind"] == "computed volume"
    assert rows["one.one.safetensors.partial"]["kind"] == "partial"
    assert listed["size"] == sum(row["size"] for row in rows.values())
    assert "one" in magnet("cache", "list").out
    cache.read(kept["one"])
    again = {row["name"]: row for row in magnet("cache", "list", "--json").json["kept"]}
    assert again["one"]["used"] > rows["one"]["used"]


@pytest.mark.slow
def test_verifying_reads_every_byte_and_is_no_use(magnet, kept):
    path = cache.path_of(kept["one"])
    old(path)
    done = magnet("cache", "verify", "--json")
    assert (done.code, done.json["ok"], [v["name"] for v in done.json["verified"]]) == (0, True, ["one", "two"])
    assert path.stat().st_atime == LONG_AGO
    for artifact in kept.values():
        damaged = cache.path_of(artifact)
        data = damaged.read_bytes()
        damaged.write_bytes(data[:-1] + b" ")
        done = magnet("cache", "verify", "--json")
        assert (done.code, done.json["ok"], len(done.json["problems"])) == (1, False, 1)
        assert artifact.name in done.json["problems"][0]
        damaged.write_bytes(data)
    assert magnet("cache", "verify").code == 0


@pytest.mark.slow
def test_removal_takes_what_was_named_and_nothing_else(magnet, kept, home):
    before = everything(home)
    dry = magnet("cache", "rm", "one", "--dry-run", "--json").json
    assert [row["name"] for row in dry["would_remove"]] == ["one"]
    assert everything(home) == before
    done = magnet("cache", "rm", "one")
    assert done.out == f"{dry['would_remove'][0]['path']}\n"
    assert len(before) - len(everything(home)) == 2
    assert not cache.is_cached(kept["one"])
    done = magnet("cache", "rm", "two", "nothing")
    assert (done.code, done.out) == (1, "")
    assert cache.is_cached(kept["two"])  # all or none
    assert magnet("cache", "rm", "two").code == 0
    assert Lockfile(home).seen(kept["two"].source)  # it has to be the same when it comes again
    assert magnet("cache", "rm", "two").code == 1
    assert magnet("cache", "rm", "two", "--forget", "--dry-run").code == 0
    assert Lockfile(home).seen(kept["two"].source)
    assert magnet("cache", "rm", "two", "--forget").code == 0
    assert Lockfile(home).seen(kept["two"].source) is None


@pytest.mark.slow
def test_what_was_computed_is_never_removed(magnet, toy, home):
    magnet("compute", toy, "--n", 20)
    magnet("index", toy)
    rows = {row["kind"]: row for row in magnet("cache", "list", "--json").json["kept"]}
    volume, index = rows["computed volume"], rows["index"]
    done = magnet("cache", "rm", volume["name"])
    assert done.code == 1
    assert f"rm -r {volume['path']}" in done.err
    for path in home.rglob("*"):
        os.utime(path, (LONG_AGO, LONG_AGO))
    gone = magnet("cache", "prune", "--days", 30, "--json").json["removed"]
    assert {row["kind"] for row in gone} == {"index"}
    assert not Path(index["path"]).exists()
    assert Path(volume["path"]).is_dir()
    assert magnet("sample", toy, "--n", 3).code == 0


@pytest.mark.slow
def test_pruning(magnet, kept, home):
    partial = cache.folder_of(kept["one"]) / ".one.safetensors.partial"
    partial.write_bytes(b"12345")
    dry = magnet("cache", "prune", "--dry-run", "--json").json
    assert dry["would_remove"] == []
    os.utime(partial, (LONG_AGO, LONG_AGO))
    dry = magnet("cache", "prune", "--dry-run", "--json").json
    assert [row["kind"] for row in dry["would_remove"]] == ["partial"]
    assert partial.exists()
    assert len(magnet("cache", "prune", "--json").json["removed"]) == 1
    assert not partial.exists()
    assert all(cache.is_cached(artifact) for artifact in kept.values())
    old(cache.path_of(kept["one"]))
    assert [row["name"] for row in magnet("cache", "prune", "--days", 30, "--json").json["removed"]] == ["one"]
    assert cache.is_cached(kept["two"])
    assert magnet("cache", "prune").out == "\n"


@pytest.mark.slow
def test_what_came_by_a_list_that_is_not_named_now_is_kept_until_it_is_old(magnet, kept, monkeypatch):
    paths = [cache.path_of(artifact) for artifact in kept.values()]
    monkeypatch.delenv("MAGNET_ARTIFACTS")
    assert magnet("cache", "prune", "--json").json["removed"] == []
    old(paths[0])
    gone = magnet("cache", "prune", "--days", 30, "--json").json["removed"]
    assert [row["kind"] for row in gone] == ["unlisted"]
    assert [path.exists() for path in paths] == [False, True]
    assert magnet("cache", "rm", paths[1].parent.name).code == 0
    assert not paths[1].exists()


@pytest.mark.parametrize(("hours", "removed"), [(2, False), (23, False), (25, True)])
def test_a_partial_file_is_pruned_when_it_is_a_day_old(magnet, kept, hours, removed):
    partial = cache.folder_of(kept["one"]) / ".one.safetensors.partial"
    partial.write_bytes(b"12345")
    then = time.time() - 3600 * hours
    os.utime(partial, (then, then))
    magnet("cache", "prune")
    assert partial.exists() != removed


def test_a_link_out_of_the_cache_is_not_followed(magnet, home, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_bytes(b"mine")
    (home / "artifacts").mkdir(parents=True)
    (home / "artifacts" / "0123456789ab").symlink_to(outside)
    assert magnet("cache", "rm", "0123456789ab").code == 0
    assert not (home / "artifacts" / "0123456789ab").is_symlink()
    assert (outside / "mine").read_bytes() == b"mine"


@pytest.mark.slow
def test_a_shared_home_is_read_and_never_written_to(magnet, kept, home, tmp_path, monkeypatch, toy):
    """As an administrator leaves it: files, records, licences and volumes, read-only."""
    Lockfile(home).accept("Research Only 1.0")
    magnet("compute", toy, "--n", 20)
    shared = tmp_path / "shared"
    home.rename(shared)
    before = {p: p.lstat().st_mtime_ns for p in shared.rglob("*")}
    monkeypatch.setenv("MAGNET_SHARED_HOME", str(shared))
    for artifact in kept.values():
        assert cache.is_cached(artifact)
        assert cache.path_of(artifact).is_relative_to(shared)
        assert download.fetch(artifact) is False
    assert magnet("sample", toy, "--n", 3, "--json").json["pool"] == 20
    rows = {row["name"]: row for row in magnet("cache", "list", "--json").json["kept"]}
    assert rows["one"]["place"] == "shared"
    assert "MAGNET_SHARED_HOME" in magnet("cache", "rm", "one").err
    assert magnet("cache", "prune", "--days", 0).code == 0
    with serving({"/four": whole(b"4"), "/one": whole(b"1")}) as server:
        new = entry(f"{server.url}/four", b"4", commercial_use=False, license="Research Only 1.0")
        assert download.fetch(new) is True
        assert cache.path_of(new).is_relative_to(home)
        own = entry(f"{server.url}/one", b"1", name="one")  # another file of that name
        assert download.fetch(own) is True
    assert {p: p.lstat().st_mtime_ns for p in shared.rglob("*")} == before


def test_paths(magnet, home, kept):
    assert magnet("cache", "path").out == f"{home}\n"
    assert magnet("cache", "path", "one").out == f"{cache.path_of(kept['one'])}\n"
    assert magnet("cache", "path", "mnist", "--json").json["exists"] is True
    assert magnet("cache", "path", "unknown").code == 1
    assert len(list(housekeeping.verify())) == 2


# lists, fuzzed

NAMES = [
    "kind",
    "source",
    "sha256",
    "size",
    "license",
    "description",
    "family",
    "generator",
    "output",
    "commercial_use",
]
SOURCES = [
    f"hub:a/b@{COMMIT}/c",
    f"hub:datasets/a/b@{COMMIT}/manifest.json",
    f"hub:a/b@{COMMIT}/../c",
    f"hub:../b@{COMMIT}/c",
    f"hub:a/b@{COMMIT}//c",
    "wheel:a==1#b/../../c",
    "wheel:a==1#/etc/passwd",
    "builtin:../secret",
    "builtin:a/b",
    "https://host/../x",
    "https://[::1/x",
    "https://host:99999999/x",
    "https://user@host/x\n",
    "http://127.0.0.1/x",
    "http://example.com/x",
    "drive:../../../etc",
    "drive:1SSn-Vs59U0XoUcK8hCoK7bwFMFGtwI7q",
    "file:/etc/..",
    "file:x",
    "",
    ":",
]
VALUES = st.one_of(
    st.sampled_from([*SOURCES, "generator", "volume", "0" * 64, "0" * 63, "../x", "\0", "\x1b[31m"]).map(repr),
    st.integers(-(1 << 70), 1 << 70).map(str),
    st.sampled_from(
        ["0x" + "f" * 6000, "1" * 5000, "inf", "nan", "true", "1979-05-27", "[1]", "{a=1}", "'''\n[x]\n'''"]
    ),
    st.text(max_size=8).map(lambda text: '"' + text.replace("\\", "").replace('"', "") + '"'),
)
KEYS = st.one_of(st.sampled_from(NAMES), st.text(max_size=4).map(lambda t: "'" + t.replace("'", "") + "'"))
HEADERS = st.sampled_from(["x", "x.y", "'../x'", "'/x'", "'a b'", '"\\u0000"', "x-1", "'.'", "é", "-x", "[x]"])


def read(path):
    """What is in a list, and the error where it is refused: one that names it and says what to do."""
    try:
        return entries.read_list(path), None
    except ArtifactError as refusal:
        error = refusal
    assert str(path) in error.message
    assert error.hint
    return {}, error


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(HEADERS, st.lists(st.tuples(KEYS, VALUES), max_size=6)), max_size=3))
@example([("x", [("kind", "[" * 5000)])])
@example([("x", [("size", "0x" + "f" * 6000)])])
@example([("x", [("kind", "0x" + "f" * 6000)])])
def test_any_list_is_read_or_refused_with_the_lines_of_its_mistakes(tmp_path_factory, tables):
    text = "\n".join(f"[{h}]\n" + "\n".join(f"{k} = {v}" for k, v in fields) for h, fields in tables)
    path = tmp_path_factory.mktemp("list") / "mine.toml"
    path.write_text(text, encoding="utf-8", errors="replace")
    found, error = read(path)
    for line in error.message.splitlines()[1:] if error else ():
        number = int(line.strip().removeprefix(f"{path}:").split(" ")[0])
        assert 1 <= number <= text.count("\n") + 1
    for artifact in found.values():
        home = cache.home()
        for place in (cache.path_of(artifact), cache.folder_of(artifact)) if artifact.scheme != "file" else ():
            assert not {"..", "."} & set(place.parts)
            assert place.is_relative_to(home) or place.parent == cache.BUILT_IN


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_list_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("list") / "mine.toml"
    path.write_bytes(data)
    read(path)


GOOD = {"kind": "volume", "generator": "g", "source": "file:x", "license": "MIT", "description": "d"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": s}, "source: ")
        for s in (
            *SOURCES[2:11],
            "https://user@host/x\n",
            *SOURCES[14:16],
            "file:/etc/..",
            "",
            ":",
            "file:/a/manifest.json",
        )
    ]
    + [
        ({"source": "http://127.0.0.1/x"}, "sha256: missing: what comes over plain http has to be pinned"),
        ({"generator": ""}, "generator: missing"),
        ({"size": 1 << 60}, "size: a huge number"),
    ],
)
def test_mistakes_are_told_by_file_line_and_field(tmp_path, changes, said):
    path = tmp_path / "mine.toml"
    fields = [f"{key} = {json.dumps(value)}" for key, value in (GOOD | changes).items()]
    path.write_text(
        "\n".join(["# a comment", "[first]", *(f"{k} = {json.dumps(v)}" for k, v in GOOD.items()), "[x]", *fields])
    )
    assert len(tomllib.loads(path.read_text())) == 2
    with pytest.raises(ArtifactError) as caught:
        entries.read_list(path)
    (line,) = caught.value.message.splitlines()[1:]
    assert line.strip().startswith(f"{path}:")
    assert f"[x] {said}" in line
    number = int(line.strip().removeprefix(f"{path}:").split()[0])
    field = said.partition(":")[0]
    at = path.read_text().splitlines()[number - 1]
    assert at.startswith(field) or at == "[x]"
    assert number >= 8


@pytest.mark.parametrize("name", ["../x", "/x", "a b", ".x", "x/y", "x..y", "-x", ""])
def test_names_that_are_paths_are_refused(tmp_path, name):
    path = tmp_path / "mine.toml"
    fields = "\n".join(f"{key} = {json.dumps(value)}" for key, value in GOOD.items())
    path.write_text(f"[{json.dumps(name)}]\n{fields}")
    with pytest.raises(ArtifactError, match="name: is not letters, digits"):
        entries.read_list(path)
