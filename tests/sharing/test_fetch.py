"""`magnet fetch` of what is more than a file: volumes that were published as arrays, from Google Drive too."""

import contextlib
import http.server
import io
import os
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from safetensors.torch import save_file
from servers import believed, entry, everything, hidden, serving, tls_context, whole, write_list
from toys import toy_weights

from magnet_cli.catalog import cache, https
from magnet_cli.catalog.lockfile import Lockfile
from magnet_cli.volume import Volume


def arrays(rows=40, latent_dim=5, *, seed=0, **more):
    rng = np.random.default_rng(seed)
    values = -np.sort(-rng.random((rows, 4)), axis=1).astype("f4") + 0.1
    values[3] = 0  # never filled
    buffer = io.BytesIO()
    latents = rng.standard_normal((rows, latent_dim))
    np.savez(buffer, svds=values.reshape(2, -1, 4), latents=latents.reshape(2, -1, latent_dim), **more)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def _believing(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", believed())
    monkeypatch.setattr(https, "_PAUSES", (0, 0))


@pytest.fixture
def lists(tmp_path, monkeypatch):
    def write(*artifacts):
        monkeypatch.setenv("MAGNET_ARTIFACTS", str(write_list(tmp_path / "mine.toml", *artifacts)))

    return write


def volume_entry(source, data, **changes):
    return entry(source, data, name="toy-volume", kind="volume", generator="toy", family="", **changes)


@pytest.mark.slow
def test_published_arrays_become_a_volume_that_sample_finds(magnet, toy, home, lists):
    data = arrays()
    with serving({"/toy.npz": whole(data)}) as server:
        artifact = volume_entry(f"{server.url}/toy.npz", data)
        lists(artifact, entry(f"file:{toy}", toy.read_bytes(), name="toy"))
        done = magnet("fetch", "toy-volume", "--json")
        assert done.code == 0, done.err
        (fetched,) = done.json["artifacts"]
        path = Path(fetched["path"])
        assert path.name == "volume"
        assert (fetched["downloaded"], fetched["sha256"]) == (True, artifact.sha256)
        assert fetched["size"] == sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
        assert "magnet index toy" in done.err
        assert not (path.parent / "toy.npz").exists()  # the volume has all of it
        assert hidden(home) == []
        again = magnet("fetch", "toy-volume", "--json").json["artifacts"][0]
        assert again == fetched | {"downloaded": False}
        assert server.asked == [("GET", "/toy.npz")]
    volume = Volume.open(path)
    assert (volume.num_rows, volume.spec.generator, volume.spec.output) == (39, "toy", "pixel")
    assert volume.spec.imported_sha256 == artifact.sha256
    drawn = magnet("sample", "toy", "--n", 6, "--json")
    assert drawn.code == 0, drawn.err
    assert drawn.json["pool"] == 39
    assert str(path) in drawn.err
    assert magnet("info", "toy-volume", "--check").code == 0
    assert magnet("compute", "toy", "--n", 20).code == 0  # the user's own goes first
    assert magnet("sample", "toy", "--n", 6, "--seed", 1, "--json").json["pool"] == 20


def test_a_volume_of_weights_that_nobody_pinned_goes_by_their_name(magnet, home, lists, tmp_path):
    """As those of StyleGAN2 config-e do: the generator may be fetched before or after."""
    weights = tmp_path / "elsewhere" / "toy.safetensors"
    weights.parent.mkdir()
    save_file(toy_weights(), weights)
    with serving({"/toy.npz": whole(arrays())}, tls=True) as server:
        lists(
            volume_entry(f"{server.url}/toy.npz", b"", sha256="", size=0),
            entry(f"file:{weights}", b"", sha256="", size=0, name="toy"),
        )
        done = magnet("fetch", "toy-volume")
        assert done.code == 0, done.err
        assert "toy-volume had no pinned hash; recorded sha256" in done.err
    assert Volume.open(Path(done.out.strip())).spec.sha256 == ""
    assert magnet("sample", "toy", "--n", 4).code == 1
    assert magnet("fetch", "toy").code == 0
    assert magnet("sample", "toy", "--n", 4, "--json").json["pool"] == 39
    assert magnet("fetch", "toy-volume").out == done.out
    listed = {row["name"]: row for row in magnet("list", "--json").json["artifacts"]}
    assert (listed["toy-volume"]["cached"], listed["toy-volume"]["pinned"]) == (True, False)


def test_the_output_of_a_published_volume_is_that_of_its_entry(magnet, home, lists):
    data = arrays()
    with serving({"/toy.npz": whole(data)}) as server:
        lists(volume_entry(f"{server.url}/toy.npz", data, output="style"))
        path = Path(magnet("fetch", "toy-volume").out.strip())
    assert Volume.open(path).spec.output == "style"


@pytest.mark.parametrize("data", [b"no zip file", arrays()[:-100], arrays(labels=np.array(["a"], object))])
def test_arrays_that_are_none_leave_no_volume(magnet, home, lists, data):
    with serving({"/toy.npz": whole(data)}) as server:
        artifact = volume_entry(f"{server.url}/toy.npz", data)
        lists(artifact)
        done = magnet("fetch", "toy-volume")
        assert (done.code, done.out) == (1, "")
        assert not cache.is_cached(artifact)
    assert not [p for p in home.rglob("volume*") if p.is_dir()]


@pytest.mark.slow
def test_two_processes_import_the_same_volume_at_once(home, lists):
    data = arrays(rows=3000)
    with serving({"/toy.npz": whole(data)}) as server:
        lists(volume_entry(f"{server.url}/toy.npz", data))
        command = [sys.executable, "-m", "magnet_cli", "fetch", "toy-volume", "--quiet"]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]
        said = [child.communicate(timeout=120) for child in running]
        assert {child.returncode for child in running} == {0}, said
        assert len({out for out, _ in said}) == 1
        assert server.asked == [("GET", "/toy.npz")]
    assert Volume.open(Path(said[0][0].decode().strip())).num_rows == 2999


# Google Drive: the real gdown, by way of a proxy that is the only "drive.google.com" it can see


class Drive(http.server.BaseHTTPRequestHandler):
    """What gdown asks of Google Drive: a file by its id, behind a page that warns of its size; through CONNECT."""

    protocol_version = "HTTP/1.1"

    def do_CONNECT(self):
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError), tls_context().wrap_socket(self.connection, server_side=True) as inside:
            self.rfile, self.wfile = inside.makefile("rb"), inside.makefile("wb")
            self.close_connection = False
            while not self.close_connection:
                self.handle_one_request()

    def do_GET(self):
        asked = parse_qs(urlsplit(self.path).query)
        (file_id,) = asked["id"]
        self.server.asked.append(self.path)
        found = self.server.answers.get(file_id)
        if found is None:
            return self._give(b'<html><p class="uc-error-subcaption">Too many users have viewed it.</p></html>')
        name, data = found
        if "confirm" not in asked:
            form = f'<form id="download-form" action="https://drive.usercontent.google.com/download?id={file_id}">'
            return self._give(f'<html>{form}<input type="hidden" name="confirm" value="t"></form></html>'.encode())
        return self._give(data, name)

    def _give(self, data, name=None):
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/octet-stream" if name else "text/html; charset=utf-8")
        if name:
            self.send_header("Content-Disposition", f'attachment; filename="{name}"')
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def drive(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    with serving({}, Drive) as server:
        server.daemon_threads = True
        for name in ("https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, server.url)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", believed())
        yield server


ID = "1SSn-Vs59U0XoUcK8hCoK7bwFMFGtwI7q"


@pytest.mark.slow
def test_a_volume_on_google_drive(magnet, home, lists, drive, tmp_path):
    drive.answers[ID] = ("stylegan2_configf.npz", arrays())
    artifact = volume_entry(f"drive:{ID}", b"", sha256="", size=0)
    lists(artifact)
    done = magnet("fetch", "toy-volume")
    assert done.code == 0, done.err
    assert Volume.open(Path(done.out.strip())).num_rows == 39
    assert Lockfile(home).seen(artifact.source)["name"] == "stylegan2_configf.npz"
    assert hidden(home) == []
    assert not (tmp_path / "user").exists()  # no cookies are kept
    count = len(drive.asked)
    assert magnet("fetch", "toy-volume").out == done.out
    assert len(drive.asked) == count


@pytest.mark.slow
def test_a_volume_of_one_class_learns_it_from_its_name(magnet, home, lists, drive, tmp_path):
    drive.answers[ID] = ("207_golden retriever.npz", arrays())
    big = entry("https://magnet.invalid/biggan.bin", name="big", family="biggan-deep")
    artifact = volume_entry(f"drive:{ID}", b"", sha256="", size=0)
    lists(big, artifact.__class__(**{**vars(artifact), "generator": "big"}))
    done = magnet("fetch", "toy-volume")
    assert done.code == 0, done.err
    volume = Volume.open(Path(done.out.strip()))
    assert (volume.spec.label, volume.spec.num_classes, volume.spec.prior) == ((207,), 1000, "truncated-normal")
    assert set(volume.labels(np.arange(39)).tolist()) == {207}
    Path("some.npz").write_bytes(arrays(seed=1))
    by_hand = magnet("import", "some.npz", "big", "--label", "pug")
    assert by_hand.code == 0, by_hand.err
    assert Volume.open(Path(by_hand.out.strip())).spec.label == (254,)

    assert magnet("cache", "rm", "toy-volume", "--forget").code == 0
    drive.answers[ID] = ("tench.npz", arrays())
    done = magnet("fetch", "toy-volume")
    assert done.code == 1
    assert "does not say which" in done.err
    assert "magnet import" in done.err
    assert "--label CLASS" in done.err


def test_what_google_drive_says_is_said(magnet, home, lists, drive):
    lists(volume_entry(f"drive:{ID}", b"", sha256="", size=0))
    done = magnet("fetch", "toy-volume")
    assert (done.code, done.out) == (1, "")
    assert "Too many users have viewed it" in done.err
    assert "with a browser and place it at" in done.err
    drive.answers[ID] = ("x.npz", arrays())
    lists(volume_entry(f"drive:{ID}", b"", sha256="", size=17))
    done = magnet("fetch", "toy-volume")
    assert "bytes on Google Drive, and 17 are asked for" in done.err
    assert everything(home) == []


@pytest.mark.slow
def test_without_gdown_the_extra_is_named(home, lists, tmp_path):
    lists(volume_entry(f"drive:{ID}", b"", sha256="", size=0))
    (tmp_path / "without").mkdir()
    code = "import sys; sys.modules['gdown'] = None\nfrom magnet_cli.cli.app import app; app()"
    command = [sys.executable, "-c", code, "fetch", "toy-volume"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'magnet-cli[drive]'" in done.stderr


# what is opened, and what is written

WATCHED = """
import json, os, sys

def say(line):  # in one write: threads that render speak too
    os.write(2, f"\\n{line}\\n".encode())

def hook(event, args):
    if event.startswith("socket.") or (event == "subprocess.Popen" and "pip" in args[1]):
        say(f"used {event} {args}")
    flags = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    if event == "open" and isinstance(args[0], (str, bytes)) and (args[2] or 0) & flags:
        say(f"wrote {os.path.abspath(os.fsdecode(args[0]))}")
    if event in ("os.mkdir", "os.rename", "os.link", "os.symlink", "os.utime", "os.remove") and args[-1] == -1:
        for path in args[:2]:
            if isinstance(path, (str, bytes)):
                say(f"wrote {os.path.abspath(os.fsdecode(path))}")

sys.addaudithook(hook)
from magnet_cli.cli.app import app
for line in sys.argv[1:]:
    try: app(line.split(), prog_name="magnet")
    except SystemExit as stop: say(f"ended {stop.code} {line}")
"""


def watched(*lines, **env):
    """Run command lines in a process that says what it opens: exit codes, files written, sockets opened, stderr."""
    command = [sys.executable, "-c", WATCHED, *lines]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | env)
    said = done.stderr.splitlines()
    codes = [int(line.split()[1]) for line in said if line.startswith("ended ")]
    wrote = {Path(line.removeprefix("wrote ")) for line in said if line.startswith("wrote ")}
    return codes, wrote, [line for line in said if line.startswith("used ")], done.stderr


@pytest.mark.slow
def test_nothing_is_written_elsewhere(home, lists, toy, tmp_path):
    data, user = arrays(), tmp_path / "user"
    fetch = ["fetch toy-volume", "list", "cache verify", "sample toy --n 3", "export toy-volume out.npz"]
    lines = [*fetch, "push toy-volume a/b --dry-run", "cache rm toy-volume", "cache prune"]
    with serving({"/toy.npz": whole(data)}) as server:
        lists(volume_entry(f"{server.url}/toy.npz", data), entry(f"file:{toy}", toy.read_bytes(), name="toy"))
        codes, wrote, used, err = watched(*lines, PYTHONDONTWRITEBYTECODE="1", HOME=str(user))
    assert codes == [0] * len(lines), err
    assert used  # the server was asked
    hub, here = user / ".cache" / "huggingface", Path.cwd()
    inside = [home, home.parent / ".home", hub, here / "samples", here / "out.npz", Path("/dev"), Path("/proc")]
    outside = {p for p in wrote if not any(p.is_relative_to(place) for place in inside)}
    assert {p for p in outside if p not in {here, user, hub.parent} and not p.name.startswith(".out.npz.")} == set()
    assert any(p.is_relative_to(home) for p in wrote)


@pytest.mark.slow
def test_offline_no_socket_is_opened_and_what_is_cached_works(home, lists, toy):
    data = arrays()
    with serving({"/toy.npz": whole(data)}) as server:
        lists(
            volume_entry(f"{server.url}/toy.npz", data),
            entry(f"file:{toy}", toy.read_bytes(), name="toy"),
            entry(f"hub:a/b@{'0' * 40}/x", name="by-hub"),
            entry(f"drive:{ID}", name="by-drive"),
        )
        assert watched("fetch toy-volume")[0] == [0]
    works = ["fetch toy-volume", "sample toy --n 3", "list", "cache verify"]
    fails = ["fetch by-hub", "fetch by-drive", "push toy-volume a/b"]
    codes, _, used, err = watched(*works, *fails, MAGNET_OFFLINE="1")
    assert (codes, used) == ([0] * len(works) + [1] * len(fails), []), err
    assert err.count("MAGNET_OFFLINE=1 forbids") == len(fails)


def test_the_watch_sees_what_it_watches_for():
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = WATCHED.partition("from magnet_cli")[0]
        code += f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]})); open('x', 'w')"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "used socket.connect" in done.stderr
    assert f"wrote {Path('x').absolute()}" in done.stderr
