"""The hub: the real client against a server that speaks its protocol; volumes pushed, and fetched back."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import serving_hub
from servers import COMMIT, DATA, entry, everything, serving, write_list

from magnet_cli.catalog import download, entries, manifest
from magnet_cli.errors import ArtifactError, MagnetError
from magnet_cli.files import documents

# One process, many steps: the client reads its settings when it is imported, and the command line may be called again.
STEPS = """
import ast, json, os, sys, time
from typer.testing import CliRunner

wait = time.sleep
time.sleep = lambda seconds: wait(min(seconds, 0.01))  # the client waits half a minute for a hub in trouble
for line in sys.stdin:
    step = ast.literal_eval(line)
    os.environ.update(step.get("env", {}))
    from magnet_cli.cli.app import app
    done = CliRunner().invoke(app, step["args"], prog_name="magnet", catch_exceptions=False)
    print([done.exit_code, done.stdout, done.stderr], flush=True)
"""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    for name in [n for n in os.environ if n.startswith(("HF_", "HUGGING"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    with serving_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


@pytest.fixture
def steps(hub):
    """Run command lines, one after another, in one process in which the client is imported once."""
    children = []

    def run(*args, **env):
        if not children:
            command = [sys.executable, "-c", STEPS]
            pipe = subprocess.PIPE
            children.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
        child = children[0]
        child.stdin.write(repr({"args": [str(a) for a in args], "env": env}) + "\n")
        child.stdin.flush()
        line = child.stdout.readline()
        assert line, child.stderr.read()
        return ast.literal_eval(line)

    yield run
    for child in children:
        child.stdin.close()
        child.wait(30)
        child.stdout.close()
        child.stderr.close()


def listed(tmp_path, monkeypatch, *artifacts):
    monkeypatch.setenv("MAGNET_ARTIFACTS", str(write_list(tmp_path / "mine.toml", *artifacts)))


@pytest.mark.slow
def test_a_pinned_file_is_fetched_once_and_then_without_a_request(hub, steps, tmp_path, monkeypatch, home):
    first = hub.commit("model", "owner/model", {"folder/weights.bin": DATA})
    hub.commit("model", "owner/model", {"folder/weights.bin": DATA[::-1]})
    artifact = entry(f"hub:owner/model@{first}/folder/weights.bin")
    listed(tmp_path, monkeypatch, artifact)
    code, out, err = steps("fetch", "thing")
    assert code == 0, err
    path = Path(out.strip())
    assert path.is_relative_to(tmp_path / "hf")
    assert path.read_bytes() == DATA
    assert {p for _, p, *_ in hub.asked} == {f"/owner/model/resolve/{first}/folder/weights.bin"}
    hub.asked.clear()
    for _ in range(2):
        assert steps("fetch", "thing", "--json")[1].count('"downloaded": false') == 1
    assert steps("fetch", "thing", MAGNET_OFFLINE="1")[0] == 0
    assert hub.asked == []
    assert everything(home) == []


@pytest.mark.slow
def test_the_token_goes_to_the_hub_and_nowhere_else(hub, steps, tmp_path, monkeypatch):
    """The files lie on another host, as the hub's do; https sources never see it."""
    commit = hub.commit("model", "owner/model", {"weights.bin": DATA})
    hub.token = "hf_secret"
    listed(tmp_path, monkeypatch, entry(f"hub:owner/model@{commit}/weights.bin"))
    code, _, err = steps("fetch", "thing")
    assert code == 1
    assert "401" in err
    assert "HF_TOKEN" in err
    assert "hf_secret" not in err
    with serving_hub() as other:
        other.lfs = hub.lfs
        hub.elsewhere = other.url.replace("127.0.0.1", "localhost")
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        hub.asked.clear()
        command = [sys.executable, "-m", "magnet_cli", "fetch", "thing"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert Path(done.stdout.strip()).read_bytes() == DATA
        assert {token for _, _, token, _ in hub.asked} == {"hf_secret"}
        assert other.asked
        assert {token for _, _, token, _ in other.asked} == {""}


def drop(request):
    request.connection.close()
    request.close_connection = True
    return True


TROUBLE = {
    "no such file": (None, "missing.bin", "404", "check owner, name, commit and file"),
    "no such commit": (None, "weights.bin", "404", "check owner, name, commit and file"),
    "no access": (403, "weights.bin", "403", "the token has no access"),
    "no login": (401, "weights.bin", "401", "HF_TOKEN"),
    "too many": (429, "weights.bin", "429", "slow down"),
    "out of order": (500, "weights.bin", "500", "try again later"),
    "dropped": (drop, "weights.bin", "could not be fetched", "check the network"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", TROUBLE)
def test_trouble_is_told_apart(hub, steps, tmp_path, monkeypatch, what, home):
    status, file, said, hint = TROUBLE[what]
    commit = hub.commit("model", "owner/model", {"weights.bin": DATA})
    commit = COMMIT if what == "no such commit" else commit
    if status:
        answer = status if callable(status) else lambda request: request.give(status, {"error": "no"}) or True
        hub.trouble = answer
    listed(tmp_path, monkeypatch, entry(f"hub:owner/model@{commit}/{file}"))
    code, out, err = steps("fetch", "thing", HF_HUB_DOWNLOAD_TIMEOUT="2")
    assert (code, out) == (1, "")
    assert "error: thing could not be fetched from the Hugging Face Hub" in err
    assert said in err
    assert hint in err.partition("  do: ")[2]
    assert "Traceback" not in err
    assert everything(home) == []
    hub.trouble = lambda _: False
    if file == "weights.bin" and what != "no such commit":
        assert steps("fetch", "thing")[0] == 0


@pytest.mark.slow
def test_an_unpinned_file_is_held_against_its_first_use(hub, steps, tmp_path, monkeypatch, home):
    data = b"\x02\0\0\0\0\0\0\0{}"
    commit = hub.commit("model", "owner/model", {"x.safetensors": data})
    listed(tmp_path, monkeypatch, entry(f"hub:owner/model@{commit}/x.safetensors", sha256="", size=0))
    code, out, err = steps("fetch", "thing")
    assert code == 0, err
    assert "had no pinned hash; recorded sha256" in err
    blob = Path(out.strip()).resolve()
    blob.chmod(0o644)
    blob.write_bytes(data[:-1] + b" ")
    code, _, err = steps("fetch", "thing")
    assert code == 1
    assert "is not what was pinned" in err


def same(a, b):
    names = {p.relative_to(a).as_posix() for p in a.rglob("*") if p.is_file() and not p.name.startswith(".")}
    return all((a / name).read_bytes() == (b / name).read_bytes() for name in names) and names


@pytest.mark.slow
def test_a_volume_is_pushed_and_comes_back_byte_for_byte(hub, steps, toy_volume, tmp_path, monkeypatch, home):
    hub.token = "hf_mine"
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    args = ("push", toy_volume.path, "me/toy-volume", "--license", "CC0-1.0", "--json")
    code, out, err = steps(*args, "--dry-run")
    assert code == 0, err
    assert "nothing was done" in err
    assert hub.asked == []
    code, out, err = steps(*args)
    assert code == 0, err
    sent = json.loads(out)
    assert sent["source"] == f"hub:datasets/me/toy-volume@{sent['commit']}/manifest.json"
    assert {token for _, path, token, _ in hub.asked if not path.startswith("/lfs/")} == {"hf_mine"}
    commits = hub.commits["dataset", "me/toy-volume"]
    assert [c for c, _ in commits][1] == sent["commit"]
    final = commits[-1][1]
    card = final["README.md"].decode()
    assert sent["source"] in card
    assert "| 1 | " in card
    assert "top_k | 5" in card
    assert final["artifacts.toml"].decode() == sent["entry"]
    assert any(path.startswith("/lfs/") and method == "PUT" for method, path, *_ in hub.asked)

    count = len(commits)  # the same again: nothing new
    code, out, err = steps(*args)
    assert code == 0, err
    assert len(commits) == count
    assert json.loads(out)["source"].split("@")[0] == sent["source"].split("@")[0]

    code, out, err = steps("fetch", sent["source"])
    assert code == 0, err
    back = Path(out.strip())
    assert back.is_relative_to(tmp_path / "hf")
    assert len(same(toy_volume.path, back)) == 9
    assert steps("info", back, "--check")[0] == 0
    hub.asked.clear()
    assert steps("fetch", sent["source"], MAGNET_OFFLINE="1")[0] == 0
    assert hub.asked == []

    # By the entry, its generator named as the toy is: `sample` finds it, and --check knows every byte of it.
    (tmp_path / "mine.toml").write_text(sent["entry"], encoding="utf-8")
    monkeypatch.setenv("MAGNET_ARTIFACTS", str(tmp_path / "mine.toml"))
    (artifact,) = entries.read_list(tmp_path / "mine.toml").values()
    assert (artifact.name, artifact.form, artifact.generator) == ("toy-volume", "manifest", "toy")
    lists = {"MAGNET_ARTIFACTS": str(tmp_path / "mine.toml")}
    code, out, err = steps("fetch", "toy-volume", **lists)
    assert (code, Path(out.strip())) == (0, back)
    code, out, err = steps("sample", tmp_path / "toy.safetensors", "--n", 4, "--out", tmp_path / "drawn")
    assert code == 0, err
    assert str(back) in err
    shard = (back / "shards" / "shard-000001.h5").resolve()
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(data)
    for args in (("fetch", "toy-volume"), ("cache", "verify"), ("info", "toy-volume", "--check")):
        code, out, err = steps(*args)
        assert code == 1, args
        assert "shard-000001.h5" in out + err


def test_what_cannot_be_pushed_is_said(magnet, toy_volume, tmp_path, monkeypatch):
    done = magnet("push", toy_volume.path, "no-owner", "--dry-run")
    assert (done.code, done.out) == (1, "")
    assert "OWNER/NAME" in done.err
    monkeypatch.setenv("MAGNET_OFFLINE", "1")
    assert "MAGNET_OFFLINE=1 forbids it" in magnet("push", toy_volume.path, "me/toy").err
    shard = toy_volume.shard_path(1)
    shard.write_bytes(shard.read_bytes()[:-1])
    assert "is damaged" in magnet("push", toy_volume.path, "me/toy", "--dry-run").err
    shutil.rmtree(toy_volume.path / "shards")
    assert "holds no rows yet" in magnet("push", toy_volume.path, "me/toy", "--dry-run").err


@pytest.mark.slow
def test_a_push_that_is_refused_is_said(hub, steps, toy_volume):
    hub.token = "hf_other"
    code, out, err = steps("push", toy_volume.path, "me/toy", HF_TOKEN="hf_mine")
    assert (code, out) == (1, "")
    assert "could not be published as me/toy" in err
    assert "Traceback" not in err
    hub.token = ""
    hub.trouble = lambda r: r.command == "PUT" and (r.give(500) or True)
    code, out, err = steps("push", toy_volume.path, "me/toy")
    assert (code, out) == (1, "")
    assert "could not be published" in err
    hub.trouble = lambda _: False
    assert steps("push", toy_volume.path, "me/toy")[0] == 0


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../outside"},
        {"name": "/etc/passwd"},
        {"name": "a/../../outside"},
        {"name": "shards\\x"},
        {"name": ".hidden"},
        {"name": "manifest.json"},
        {"name": "VOLUME.json"},
        {"name": 3},
        {"size": -1},
        {"size": "1"},
        {"sha256": "00"},
        {"link": "x"},
    ],
)
def test_a_manifest_that_leads_outside_is_refused(tmp_path, change):
    right = {"name": "x.h5", "size": 1, "sha256": "0" * 64}
    fields = {"format": 1, "kind": "volume", "files": [right | {"name": "volume.json"}, right]}
    path = tmp_path / "manifest.json"
    path.write_bytes(documents.encode(fields))
    assert [e.name for e in manifest.read(path)] == ["volume.json", "x.h5"]
    fields["files"][1] = right | change
    path.write_bytes(documents.encode(fields))
    with pytest.raises(ArtifactError, match="lists files in a way that no manifest of magnet does"):
        manifest.read(path)
    path.write_bytes(documents.encode(fields | {"format": 2}))
    with pytest.raises(ArtifactError, match="format 1"):
        manifest.read(path)
    path.write_bytes(b"{}")
    with pytest.raises(MagnetError, match="checksum"):
        manifest.read(path)


@pytest.mark.parametrize("source", ["hub:x", "hub:datasets/a/b@main/manifest.json", f"hub:a/b@{COMMIT}/weights.bin"])
def test_only_published_volumes_are_fetched_by_source(source):
    with pytest.raises(ArtifactError, match="is not where a volume is published"):
        entries.find(source)


def test_plain_servers_see_no_token(home, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    seen = []

    def answer(request):
        seen.append(dict(request.headers))
        request.start(Content_Length=len(DATA))
        request.wfile.write(DATA)

    with serving({"/x.bin": answer}) as server:
        download.fetch(entry(server.url + "/x.bin"))
    assert "hf_secret" not in str(seen)
