"""artifacts: their lists, fetching them (from real servers here, the real pip, the real hub client), reading them."""

import ast
import collections
import contextlib
import hashlib
import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
import recorded
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as save_safetensors
from servers import COMMIT, DATA, entry, everything, hidden, refused, serving, whole, write_list
from torch import nn
from torch_files import RunsWhenRead, saved
from toys import nvae_weights, slogan_weights, stylegan2_weights, stylegan3_weights, toy_weights

import magnet_cli
from magnet_cli import models
from magnet_cli.catalog import cache, download, entries, https
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.errors import ArtifactError, GeneratorError, MagnetError
from magnet_cli.files import checkpoints
from magnet_cli.models.generators import dcgan


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(https, "_PAUSES", (0, 0, 0, 0))


# the lists


def test_our_list_is_right_and_what_it_says_is_built_in_is():
    known = entries.registry()
    assert {"dcgan-digiface", "mnist"} <= set(known)
    for artifact in known.values():
        assert artifact.family or artifact.kind == "volume"
        assert bool(artifact.generator) == (artifact.kind == "volume")
        assert artifact.commercial_use or "only" in artifact.license
        assert artifact.generator in {"", *known} or artifact.family in models.FAMILIES
        assert artifact.kind != "generator" or artifact.family in models.FAMILIES
        assert artifact.description
        assert artifact.scheme != "http"
    built_in = [a for a in known.values() if a.scheme == "builtin"]
    for artifact in built_in:
        assert cache.is_cached(artifact)
        assert download.fetch(artifact) is False
    assert {p.name for p in cache.BUILT_IN.glob("*.safetensors")} <= {a.file_name for a in built_in}


NAMES = """stylegan2-ffhq stylegan2-ffhq-config-f stylegan2-ffhq-config-e stylegan2-car stylegan2-cifar10
stylegan2-metfaces stylegan3-t-afhqv2 stylegan3-t-ffhq stylegan3-r-ffhq biggan-deep-128 biggan-deep-256 biggan-deep-512
progan-celebahq-256 magnet-stylegan2-ffhq-config-f magnet-stylegan3-t-afhqv2 inception vgg16 fairface"""
PINNED = {  # of the generators: those for which two public pins agree, or one by the file's own address
    "stylegan2-ffhq": ("a205a346", 381_624_121),
    "stylegan2-cifar10": ("f8952c74", 0),
    "stylegan2-ffhq-config-f": ("adf127ea", 381_673_535),
    "stylegan2-car": ("e1618eee", 364_027_523),
    "stylegan2-cat": ("08940fd6", 357_418_027),
    "stylegan2-church": ("4090c5f8", 357_418_027),
    "stylegan2-horse": ("cbc73372", 357_418_027),
    "stylegan2-celebahq-256x256": ("8b385aa5", 0),
    "stylegan3-t-ffhq": ("efd9fa1f", 294_775_112),
    "biggan-deep-256": ("5900ef40", 234_411_737),
}


def test_official_files_have_the_names_people_try_and_no_hash_is_made_up():
    known = entries.registry()
    assert set(NAMES.split()) <= known.keys()
    official = {n: a for n, a in known.items() if a.kind == "generator" and a.scheme == "https"}
    assert {n: (a.sha256[:8], a.size) for n, a in official.items() if a.sha256} == PINNED
    volumes = [a for a in known.values() if a.scheme == "drive" and a.kind == "volume"]
    assert len(volumes) == 23
    assert not any(a.sha256 for a in volumes)
    heads = [a for a in known.values() if a.name.startswith("celeba-")]
    assert (len(heads), len({a.source for a in heads})) == (4, 1)  # one file, an entry a head
    assert len({a.source for a in known.values()}) == len(known) - 3
    for artifact in official.values():
        if artifact.source.endswith(".pkl"):
            assert not artifact.commercial_use


LIGHT = """
import sys
from magnet_cli.cli.app import app
try: app(["list"])
except SystemExit: pass
print({"torch", "h5py", "huggingface_hub"} & set(sys.modules), file=sys.stderr)
"""


def test_a_list_is_shown_without_torch():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "set()"
    assert max(map(len, done.stdout.splitlines())) < 130


def test_a_list_of_the_users_own_goes_over_ours(tmp_path, monkeypatch):
    ours = entries.registry()
    mine = entry("file:/x", name="dcgan-digiface"), entry("file:/y", name="mine")
    monkeypatch.setenv("MAGNET_ARTIFACTS", str(write_list(tmp_path / "mine.toml", *mine)))
    assert entries.registry() == ours | {a.name: a for a in mine}
    assert entries.find("mine") == mine[1]


def test_all_mistakes_of_a_list_are_named_at_once(tmp_path, monkeypatch):
    table = 'license = "MIT"\ndescription = "d"\n'
    path = tmp_path / "mine.toml"
    path.write_text(
        f'[a]\nkind = "generater"\nsource = "ftp://x"\nsha256 = "ABC"\nsize = 0\n{table}'
        f'[b]\nkind = "volume"\nsize = "big"\ncolour = "red"\n{table}'
        f'[c]\nkind = "model"\nsource = "file:x"\nsize = true\n{table}',
        encoding="utf-8",
    )
    monkeypatch.setenv("MAGNET_ARTIFACTS", str(path))
    with pytest.raises(ArtifactError) as caught:
        entries.registry()
    mistakes = re.findall(r"mine\.toml:(\d+) \[(\w)\] (\w+):", caught.value.message)
    assert {" ".join(mistake) for mistake in mistakes} == {
        *("2 a kind", "3 a source", "4 a sha256", "5 a size"),
        *("8 b source", "10 b size", "11 b colour", "8 b generator"),
        *("17 c size", "15 c kind"),
    }
    assert f"{path} has 10 mistakes" in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [(b"[a\n", "is not TOML"), (b'a = "\xff"', "is not TOML"), (b"a = 1", "is not a table"), (None, "does not exist")],
)
def test_a_list_that_cannot_be_read_says_why(tmp_path, monkeypatch, text, said):
    path = tmp_path / "mine.toml"
    if text is not None:
        path.write_bytes(text)
    monkeypatch.setenv("MAGNET_ARTIFACTS", str(path))
    with pytest.raises(ArtifactError, match=said) as caught:
        entries.registry()
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(ArtifactError, match="no artifact is called 'dcgan-digifase'") as caught:
        entries.find("dcgan-digifase")
    assert "did you mean dcgan-digiface" in caught.value.hint
    with pytest.raises(ArtifactError) as caught:
        entries.find("%%%%")
    assert "did you mean" not in caught.value.hint
    assert "magnet list" in caught.value.hint


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("no/such/file.pt", "there is no checkpoint at no/such/file.pt"),
        ("dcgan-digifase", "no artifact is called"),
        ("dcgan-digiface", r"is not in the cache \(14,322,251 bytes, MIT\)"),
        ("a-volume", "is a volume, and a generator is asked for"),
    ],
)
def test_generators_that_are_not_here(tmp_path, monkeypatch, home, reference, said):
    own = write_list(tmp_path / "mine.toml", entry("file:/x", name="a-volume", kind="volume", generator="mnist"))
    monkeypatch.setenv("MAGNET_ARTIFACTS", str(own))
    with pytest.raises(ArtifactError, match=said) as caught:
        Checkpoint.find(reference)
    assert caught.value.hint
    assert not home.exists()


# addresses


def test_a_fetched_file_is_whole_and_a_cached_one_is_verified_without_a_word_on_the_network(home):
    arrived = []
    with serving({"/weights.bin": whole(DATA)}) as server:
        artifact = entry(server.url + "/weights.bin")
        assert not cache.is_cached(artifact)
        assert not home.exists()
        assert download.fetch(artifact, advance=arrived.append) is True
        folder = f"artifacts/{artifact.sha256[:12]}"
        assert everything(home) == ["artifacts", folder, f"{folder}/weights.bin"]
        assert cache.path_of(artifact).read_bytes() == DATA
        assert sum(arrived) == len(DATA)
        assert cache.is_cached(artifact)
        assert download.fetch(artifact) is False
        assert server.asked == [("GET", "/weights.bin")]
    assert download.fetch(artifact) is False


def test_a_flipped_byte_in_the_cache_is_refused_wherever_it_is_read(tmp_path, monkeypatch):
    with serving({"/weights.bin": whole(DATA)}) as server:
        artifact = entry(server.url + "/weights.bin")
        monkeypatch.setenv("MAGNET_ARTIFACTS", str(write_list(tmp_path / "mine.toml", artifact)))
        download.fetch(artifact)
        checkpoint = Checkpoint.find("thing")
        assert checkpoint.read() == DATA
        path = cache.path_of(artifact)
        path.write_bytes(DATA[:500] + bytes([DATA[500] ^ 1]) + DATA[501:])
        with pytest.raises(ArtifactError, match="is not what was pinned"):
            checkpoint.read()
        with pytest.raises(ArtifactError, match="thing is not what was pinned") as caught:
            download.fetch(artifact)
        assert str(path.resolve()) in caught.value.message + caught.value.hint  # what has to be removed
        path.write_bytes(DATA[:-1])  # a size that is wrong is no cached file: it is had again
        assert download.fetch(artifact) is True
        assert path.read_bytes() == DATA


def no_http(request):
    request.wfile.write(b"220 this is a mail server\r\n")


def elsewhere(target):
    return lambda request: request.start(302, Location=target, Content_Length=0)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param(whole(DATA[:-1] + b"?"), "is not what was pinned.*found 256,000 bytes", id="wrong hash"),
        pytest.param(whole(DATA[:-1]), "is 255,999 bytes, and 256,000 are asked for", id="too short"),
        pytest.param(whole(DATA * 9), "is 2,304,000 bytes, and 256,000 are asked for", id="too long"),
        pytest.param(whole(b""), "is 0 bytes, and 256,000 are asked for", id="empty"),
        pytest.param(
            lambda r: r.send_error(404), "could not be fetched: .* the server answers 404 Not Found", id="404"
        ),
        pytest.param(lambda _: None, "broke off 5 times: Remote end closed connection", id="no answer"),
        pytest.param(no_http, "broke off 5 times: 220 this is a mail server", id="no http"),
        pytest.param(elsewhere("https://127.0.0.1:9/x"), "redirects to another scheme: https:", id="to https"),
        pytest.param(elsewhere("file:///etc/hostname"), "(another|not allowed|scheme)", id="to a file"),
        pytest.param(elsewhere("ftp://127.0.0.1:9/x"), "redirects to another scheme: ftp:", id="to ftp"),
        pytest.param(elsewhere("http://magnet.invalid/x"), "plain http", id="to another machine"),
        pytest.param(elsewhere("/weights.bin"), "infinite loop", id="in circles"),
    ],
)
def test_what_goes_wrong_on_the_way_is_said_and_nothing_is_left_behind(home, answer, said):
    arrived = []
    with serving({"/weights.bin": answer}) as server:
        error = refused(entry(server.url + "/weights.bin"), home, advance=arrived.append)
    assert re.search(said, error.message)
    assert sum(arrived) <= len(DATA) + 1


def test_redirects_on_the_same_machine_are_followed(home):
    with serving({"/old": elsewhere("/new"), "/new": whole(DATA)}) as server:
        artifact = entry(server.url + "/old")
        assert download.fetch(artifact) is True
    assert cache.path_of(artifact).read_bytes() == DATA


def test_a_server_that_is_not_there(home):
    with serving({}) as server:
        pass
    artifact = entry(server.url + "/weights.bin")
    assert str(cache.path_of(artifact)) in refused(artifact, home).hint


def test_plain_http_to_another_machine_is_refused(home):
    assert "plain http is only for this machine" in refused(entry("http://magnet.invalid/x"), home).message


def test_what_was_there_before_a_failure_stays(home):
    with serving({"/weights.bin": whole(b"wrong")}) as server:
        artifact = entry(server.url + "/weights.bin")
        beside = cache.path_of(artifact).parent / "beside"
        beside.parent.mkdir(parents=True)
        beside.write_bytes(b"kept")
        with pytest.raises(ArtifactError):
            download.fetch(artifact)
    assert [p for p in home.rglob("*") if p.is_file() and p.name != ".locks"] == [beside]


def test_a_place_that_cannot_be_written_is_named(home):
    home.write_bytes(b"a file is in the way")
    with serving({"/weights.bin": whole(DATA)}) as server, pytest.raises(MagnetError, match="cannot create") as caught:
        download.fetch(entry(server.url + "/weights.bin"))
    assert "MAGNET_HOME" in caught.value.hint
    assert server.asked == []


@pytest.mark.torture
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["kill", "term", "int"]
)
def test_a_stopped_download_shows_no_file_and_the_next_fetch_works(tmp_path, monkeypatch, home, number, code):
    begun, go_on = threading.Event(), threading.Event()

    def slow_at_first(request):
        if begun.is_set():
            return whole(DATA)(request)
        request.start(Content_Length=len(DATA))
        request.wfile.write(DATA[:200_000])
        begun.set()
        go_on.wait(60)
        return None

    with serving({"/weights.bin": slow_at_first}) as server:
        artifact = entry(server.url + "/weights.bin")
        monkeypatch.setenv("MAGNET_ARTIFACTS", str(write_list(tmp_path / "mine.toml", artifact)))
        start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        command = [sys.executable, "-c", start + "from magnet_cli.cli.app import app; app()", "fetch", "thing"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            folder, limit = cache.path_of(artifact).parent, time.monotonic() + 60
            while not any(p.stat().st_size >= 1 << 16 for p in folder.glob(".*.partial")):
                assert time.monotonic() < limit
                assert child.poll() is None
                time.sleep(0.01)
            child.send_signal(number)
            out, err = child.communicate(timeout=30)
        finally:
            go_on.set()
            child.kill()
            child.communicate()
        assert child.returncode == code
        assert out == b""
        assert b"Traceback" not in err
        assert not cache.is_cached(artifact)
        assert sum(p.stat().st_size for p in folder.glob(".*.partial")) >= 200_000 - (1 << 16)
        assert download.fetch(artifact) is True
    assert hidden(home) == []
    assert everything(home)[-1] == f"artifacts/{artifact.sha256[:12]}/weights.bin"
    assert cache.path_of(artifact).read_bytes() == DATA


# licence and offline


def test_a_licence_that_forbids_commercial_use_has_to_be_accepted(home, monkeypatch, tmp_path):
    with serving({"/weights.bin": whole(DATA)}) as server:
        artifact = entry(server.url + "/weights.bin", commercial_use=False, license="Research Only 1.0")
        error = refused(artifact, home)
        assert "Research Only 1.0" in error.message
        assert "magnet fetch thing --accept-license" in error.hint
        assert server.asked == []
        assert download.fetch(artifact, accept_license=True) is True
    assert download.fetch(artifact) is False


OFFLINE = """
import sys
from magnet_cli.catalog import cache, download, entries
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.errors import ArtifactError

def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen"):
        print("used", event, args)

sys.addaudithook(hook)
for name in ("by-https", "by-wheel", "by-hub"):
    try:
        download.fetch(entries.find(name))
    except ArtifactError as error:
        print(error.message)
        print(error.hint)
"""


@pytest.mark.slow
def test_offline_nothing_is_asked_of_any_network(tmp_path, monkeypatch, home):
    sources = {"https": "https://magnet.invalid/x", "wheel": "wheel:magnet-tiny==1.0#x", "hub": f"hub:a/b@{COMMIT}/x"}
    artifacts = [entry(source, name=f"by-{scheme}") for scheme, source in sources.items()]
    monkeypatch.setenv("MAGNET_ARTIFACTS", str(write_list(tmp_path / "mine.toml", *artifacts)))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("MAGNET_OFFLINE", "1")
    done = subprocess.run([sys.executable, "-c", OFFLINE], capture_output=True, text=True, check=True)
    expected = []
    for artifact in artifacts:
        expected.append(f"{artifact.name} is not in the cache, and MAGNET_OFFLINE=1 forbids to fetch it")
        expected.append(f"unset MAGNET_OFFLINE, or place the file at {cache.path_of(artifact)}")
    assert done.stdout.splitlines() == expected
    assert not home.exists()


# wheels


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """A package index of one tiny wheel, magnet-tiny 1.0 with magnet_tiny/weights.bin, and nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    info = "magnet_tiny-1.0.dist-info"
    members = {
        "magnet_tiny/weights.bin": DATA,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: magnet-tiny\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    members[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*members, f"{info}/RECORD"]).encode()
    with zipfile.ZipFile(folder / "magnet_tiny-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in members.items():
            wheel.writestr(name, data)
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


@pytest.mark.slow
def test_a_file_comes_out_of_a_wheel_whatever_lies_in_the_working_folder(wheels, home):
    Path("pip.py").write_text("raise SystemExit('the wrong pip')", encoding="utf-8")
    artifact = entry("wheel:magnet-tiny==1.0#magnet_tiny/weights.bin")
    arrived = []
    assert download.fetch(artifact, advance=arrived.append) is True
    folder = f"artifacts/{artifact.sha256[:12]}"
    assert everything(home) == ["artifacts", folder, f"{folder}/weights.bin"]
    assert cache.path_of(artifact).read_bytes() == DATA
    assert sum(arrived) == len(DATA)
    (wheels / "magnet_tiny-1.0-py3-none-any.whl").unlink()
    assert download.fetch(artifact) is False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "data", "said"),
    [
        ("wheel:magnet-tiny==1.0#magnet_tiny/other.bin", DATA, "holds no readable magnet_tiny/other.bin"),
        ("wheel:magnet-tiny==2.0#magnet_tiny/weights.bin", DATA, "pip could not download magnet-tiny==2.0: ERROR"),
        ("wheel:magnet-tiny==1.0#magnet_tiny/weights.bin", b"other", "is not what was pinned"),
    ],
)
def test_wheels_without_what_was_pinned(wheels, home, source, data, said):
    artifact = entry(source, data)
    error = refused(artifact, home)
    assert said in error.message
    assert str(cache.path_of(artifact)) in error.hint or "pinned" in said


@pytest.mark.slow
def test_a_member_that_is_a_link_is_refused(wheels, home):
    with zipfile.ZipFile(wheels / "magnet_tiny-1.0-py3-none-any.whl", "a") as wheel:
        link = zipfile.ZipInfo("magnet_tiny/link.npz")
        link.external_attr = 0o120777 << 16
        wheel.writestr(link, "/etc/passwd")
    artifact = entry("wheel:magnet-tiny==1.0#magnet_tiny/link.npz", sha256="", size=0)
    assert "holds no readable magnet_tiny/link.npz" in refused(artifact, home).message


NO_PIP = """
import importlib.util
from magnet_cli.catalog import cache, download, entries
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.errors import ArtifactError

assert importlib.util.find_spec("pip") is None
try:
    print(download.fetch(entries.find("thing")))
except ArtifactError as error:
    print(error.message)
    print(error.hint)
"""


def test_without_pip_the_file_can_be_placed_by_hand(tmp_path, monkeypatch, wheels, home):
    artifact = entry("wheel:magnet-tiny==1.0#magnet_tiny/weights.bin")
    monkeypatch.setenv("MAGNET_ARTIFACTS", str(write_list(tmp_path / "mine.toml", artifact)))
    monkeypatch.setenv("PYTHONPATH", str(Path(magnet_cli.__file__).parents[1]))
    command = [sys.executable, "-S", "-c", NO_PIP]  # -S: a Python without its site-packages, hence without pip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    message, hint = done.stdout.splitlines()
    assert message == "thing comes in the wheel magnet-tiny==1.0, and this Python has no pip to download it"
    assert "install pip here" in hint
    assert everything(home) == []
    named = Path(hint.rpartition(" at ")[2])
    named.parent.mkdir(parents=True)
    named.write_bytes(DATA)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert cache.is_cached(artifact)


# the hub

HUB = """
import json, sys
from magnet_cli.catalog import cache, download, entries
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.errors import MagnetError

for name in sys.argv[1:]:
    artifact = entries.find(name)
    try:
        print(["fetched", download.fetch(artifact), cache.is_cached(artifact), str(cache.path_of(artifact))])
    except MagnetError as error:
        print(["refused", error.message, error.hint])
"""


def hub_answer(data, commit=COMMIT, announced=None):
    def answer(request):
        etag = hashlib.sha256(data).hexdigest()
        size = len(data) if announced is None or request.command == "GET" else announced
        request.start(ETag=f'"{etag}"', X_Repo_Commit=commit, Content_Length=size)
        if request.command == "GET":
            request.wfile.write(data)

    return answer


@pytest.mark.slow
def test_files_of_the_hub_are_pinned_and_kept_where_the_hub_keeps_them(tmp_path, monkeypatch, home):
    hub = tmp_path / "hub"
    sources = {name: f"hub:owner/model@{COMMIT}/{name}.bin" for name in ("good", "wrong", "missing", "short")}
    artifacts = [entry(source, name=name) for name, source in sources.items()]
    monkeypatch.setenv("MAGNET_ARTIFACTS", str(write_list(tmp_path / "mine.toml", *artifacts)))
    for name in [n for n in os.environ if n.startswith(("HF_", "HUGGING"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_CACHE", str(hub))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")

    def fetch(*names):
        command = [sys.executable, "-c", HUB, *names]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return [ast.literal_eval(line) for line in done.stdout.splitlines()]

    base = f"/owner/model/resolve/{COMMIT}"
    answers = {
        f"{base}/good.bin": hub_answer(DATA),
        f"{base}/wrong.bin": hub_answer(DATA[::-1]),
        f"{base}/missing.bin": lambda r: r.start(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT),
        f"{base}/short.bin": hub_answer(DATA[:-9], announced=len(DATA)),
    }
    with serving(answers) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        good, wrong, missing, short = fetch("good", "wrong", "missing", "short")
    assert good[:3] == ["fetched", True, True]
    path = Path(good[3])
    assert path.is_relative_to(hub)
    assert path.read_bytes() == DATA
    assert wrong[0] == "refused"
    assert "wrong is not what was pinned" in wrong[1]
    for name, error in (("missing", missing), ("short", short)):
        assert error[0] == "refused"
        assert f"{name} could not be fetched from the Hugging Face Hub ({sources[name]})" in error[1]
        assert error[2]
    kept = [p for p in hub.rglob("*") if p.is_file() and p.stat().st_size >= len(DATA) - 9]
    assert {p.resolve() for p in kept} == {path.resolve()}
    assert not any(p.name == "wrong.bin" for p in hub.rglob("*"))

    # The server is gone now.
    assert fetch("good") == [["fetched", False, True, str(path)]]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    good, wrong = fetch("good", "wrong")
    assert good == ["fetched", False, True, str(path)]
    assert wrong[0] == "refused"
    assert "wrong could not be fetched from the Hugging Face Hub" in wrong[1]
    path.resolve().write_bytes(DATA[:-1] + b"?")
    assert "good is not what was pinned" in fetch("good")[0][1]
    assert not home.exists()


# the real thing


@pytest.mark.network
def test_the_real_face_generator(home):
    command = [sys.executable, "-m", "magnet_cli", "fetch", "dcgan-digiface", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    artifact = entries.find("dcgan-digiface")
    path = cache.path_of(artifact)
    (fetched,) = json.loads(done.stdout)["artifacts"]
    assert fetched == {
        "name": "dcgan-digiface",
        "path": str(path),
        "sha256": artifact.sha256,
        "size": artifact.size,
        "downloaded": True,
        "pinned": True,
    }
    assert [p for p in home.rglob("*") if p.is_file() and p.name != ".locks"] == [path]
    assert path.stat().st_size == 14_322_251
    assert hashlib.sha256(path.read_bytes()).hexdigest() == artifact.sha256
    generator = models.load(Checkpoint.find("dcgan-digiface"))
    with torch.no_grad():
        image = generator(torch.randn(1, generator.latent_dim, generator=torch.Generator().manual_seed(0)))
    assert image.shape == (1, *generator.image_shape) == (1, 3, 64, 64)
    assert torch.isfinite(image).all()
    assert image.abs().max() <= 1
    assert image.std() > 0.1  # a picture, not a plain area


# reading checkpoints, and the DCGAN family


def unfolded(latent_dim=6, widths=(8, 4), channels=3):
    """The generator as the PyTorch tutorial writes it, in eval mode, with batch norms that do something."""
    rng = torch.Generator().manual_seed(0)
    sizes, layers = (latent_dim, *widths, channels), []
    for i, (before, after) in enumerate(itertools.pairwise(sizes)):
        layers.append(nn.ConvTranspose2d(before, after, 4, 2 if i else 1, 1 if i else 0, bias=False))
        if i < len(widths):
            layers += [nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    network = nn.Sequential(collections.OrderedDict(main=nn.Sequential(*layers, nn.Tanh()))).double().eval()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                drawn = torch.randn(value.shape, generator=rng, dtype=torch.float64) / 2
                value.copy_(drawn.abs() + 0.1 if name.endswith("running_var") else drawn)
    return network


def test_pickled_code_is_refused_and_not_run():
    data = saved({"main.0.weight": torch.zeros(2), "trap": RunsWhenRead()})
    with pytest.raises(GeneratorError, match=r"trap\.pt cannot be read as weights alone") as caught:
        checkpoints.read(data, "trap.pt")
    assert "never runs" in caught.value.hint
    legacy = saved({"trap": RunsWhenRead()}, _use_new_zipfile_serialization=False)
    with pytest.raises(GeneratorError, match=r"trap\.pt cannot be read as weights alone"):
        checkpoints.read(legacy, "trap.pt")
    assert not Path("ran").exists()
    torch.load(io.BytesIO(data), weights_only=False)  # the trap is a real one
    assert Path("ran").exists()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"garbage" * 100, "is text that begins"),
        (b"\xfe" * 100, "neither safetensors nor"),
        (save_safetensors({"a": torch.ones(9)})[:-1], "safetensors file that is damaged or cut off"),
        (saved({"a": torch.ones(9)})[:-30], "is cut off"),
        (saved([torch.ones(9)]), "holds no single mapping"),
        (saved({"a": {"x": torch.ones(1)}, "b": {"y": torch.ones(1)}}), "holds no single mapping"),
        (saved({"a": 1}), "holds no single mapping"),
        (saved({}), "holds no single mapping"),
    ],
)
def test_what_holds_no_weights_is_said_to_hold_none(data, said):
    with pytest.raises(GeneratorError, match=said) as caught:
        checkpoints.read(data, "some.pt")
    assert caught.value.message.startswith("some.pt ")
    assert caught.value.hint


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 1828), st.integers(1, 255))
@example(0, 1)  # no zip file any more
@example(109, 1)
@example(158, 1)
@example(169, 1)
@example(1791, 1)
def test_a_changed_byte_in_a_torch_file_gives_tensors_or_an_expected_error(position, mask):
    data = bytearray(saved({"a": torch.arange(9.0), "b": torch.ones(2, 2)}))
    data[position % len(data)] ^= mask
    with contextlib.suppress(GeneratorError):
        assert all(isinstance(v, torch.Tensor) for v in checkpoints.read(bytes(data), "some.pt").state.values())


def test_tensors_come_back_from_every_format():
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1, dtype=torch.float64)}
    formats = [
        save_safetensors(state),
        saved(state),
        saved({"netG_state_dict": state}),
        saved({"netG_state_dict": state, "epoch": 3}),
    ]
    for data in formats:
        read = checkpoints.read(data, "some").state
        assert read.keys() == state.keys()
        assert all(torch.equal(read[key], state[key]) and read[key].dtype == state[key].dtype for key in state)


@pytest.mark.parametrize("sizes", [(6, (8, 4), 3), (3, (2,), 1), (100, (16, 8, 4, 2), 3)])
def test_sizes_are_read_from_the_weights_and_folding_changes_nothing(sizes):
    latent_dim, widths, channels = sizes
    truth = unfolded(*sizes)
    network = dcgan.build(truth.state_dict())
    side = 2 ** (len(widths) + 2)
    assert (network.latent_dim, network.image_shape) == (latent_dim, (channels, side, side))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    assert not any(p.requires_grad for p in network.parameters())
    z = torch.randn(7, latent_dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    images = network(z)
    assert images.shape == (7, channels, side, side)
    assert images.std() > 0.01
    torch.testing.assert_close(images, truth(z[:, :, None, None]), rtol=0, atol=1e-10)
    torch.testing.assert_close(network(z[2:3]), images[2:3], rtol=0, atol=1e-10)  # eval mode: no batch, no statistics


def test_tensors_missing_left_over_or_of_another_shape_are_refused():
    state = unfolded().state_dict()
    assert dcgan.recognises({name: tuple(value.shape) for name, value in state.items()})
    without_counters = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    dcgan.build(without_counters)
    wrong = [{**state, "main.99.bias": torch.zeros(4)}, {**state, "other": torch.zeros(4)}]
    for name, value in without_counters.items():
        wrong.append({k: v for k, v in state.items() if k != name})
        if value.ndim == 1:
            wrong.append({**state, name: torch.zeros(len(value) + 1)})
    wrong.append({**state, "main.3.weight": torch.zeros(5, 4, 4, 4)})
    for changed in wrong:
        with pytest.raises(GeneratorError, match="do not fit one") as caught:
            dcgan.build(changed)
        assert caught.value.hint


def test_weights_of_no_family_are_refused_by_name(tmp_path):
    path = tmp_path / "other.safetensors"
    path.write_bytes(save_safetensors({"layer.weight": torch.zeros(3, 3)}))
    with pytest.raises(
        GeneratorError, match=r"the weights of other fit no family .* 1 tensor in the top of the file \(layer\.weight\)"
    ):
        models.load(Checkpoint.find(str(path)))


@pytest.mark.parametrize(
    "source",
    [
        "wheel:--version==1#x",
        "wheel:name#member",
        "wheel:name==1#../member",
        "https://host/",
        "https://host/a/..",
        "hub:owner/name@main/file",
        "builtin:../secret",
        "file:",
        "ftp://host/file",
        "nothing",
    ],
)
def test_a_source_that_names_no_file_is_a_mistake(tmp_path, source):
    fields = f'kind = "generator"\nsha256 = "{"0" * 64}"\nsize = 1\nlicense = "MIT"\ndescription = "x"\n'
    (tmp_path / "mine.toml").write_text(f'[x]\nsource = "{source}"\n{fields}')
    with pytest.raises(ArtifactError, match=r"\[x\] source: "):
        entries.read_list(tmp_path / "mine.toml")


# --- families, known by name and by weights -------------------------------------------------------------------------


def test_what_is_known_of_families_by_name_is_so_of_their_networks(magnet):
    """Priors, and all that `list --families` says; and weights are of one family only."""
    said = {row["family"]: row for row in magnet("list", "--families", "--json").json["families"]}
    assert said.keys() == models.FAMILIES.keys()
    states = {"dcgan": toy_weights(), "nvae": nvae_weights(), "progan": recorded.read("progan").groups["state"]}
    states |= {"biggan-deep": recorded.read("biggan_deep").groups["state"]}
    states |= {"stylegan2": stylegan2_weights(), "stylegan3": stylegan3_weights(), "slogan": slogan_weights()}
    assert states.keys() == models.FAMILIES.keys()
    upsample = [layer[0] for layer in recorded.read("biggan_deep").facts["config"]["layers"]]
    for family, state in states.items():
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        assert [name for name, module in models.FAMILIES.items() if module.recognises(shapes)] == [family]
        told = {"upsample": upsample} if family == "biggan-deep" else {}
        network = models.FAMILIES[family].build(state, **told)
        about = said[family]
        assert entries.prior_of(family) == network.prior == about["prior"]
        assert bool(getattr(network, "style_dim", 0)) == (about["spaces"] == ["z", "w"]) == (len(about["outputs"]) == 3)
        assert about["conditional"] in ({"yes", "some"} if network.num_classes else {"no", "some"})
        with torch.no_grad():
            z = torch.randn(2, network.latent_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
            labels = torch.zeros(2, dtype=torch.int64) if network.num_classes else None
            changed = not torch.equal(network(z, labels, 1.0), network(z, labels, 0.5))
        assert changed == bool(about["truncation"]), family
        assert {"safetensors", "torch"} <= set(about["formats"])
        assert set(told) <= set(about["settings"])
    assert entries.prior_of("a family of later days") == "normal"


def test_a_list_that_a_terminal_would_obey(magnet, monkeypatch):
    escapes = 'license = "MIT\\u001b[31m"\ndescription = "hello\\u001b]0;OWNED\\u0007\\u202e"'
    Path("own.toml").write_text(f'[evil]\nkind = "generator"\nsource = "file:nothing.pt"\n{escapes}\n')
    monkeypatch.setenv("MAGNET_ARTIFACTS", "own.toml")
    monkeypatch.setenv("COLUMNS", "300")
    done = magnet("list")
    assert r"MIT\u001b[31m" in done.out
    for text in (done.out, done.err, magnet("list", "--json").out, magnet("info", "evil").err):
        assert all(line.isprintable() for line in text.split("\n"))
