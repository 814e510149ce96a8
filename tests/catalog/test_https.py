"""Transfers over https: what a bad network does to them, with real servers that count bytes and hold back."""

import contextlib
import hashlib
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from servers import DATA, believed, entry, everything, hidden, refused, serving, whole, write_list

from magnet_cli.catalog import cache, download, https
from magnet_cli.errors import ArtifactError, MagnetError

PIECE = 1 << 16


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(https, "_PAUSES", (0, 0, 0))


class File:
    """A file on a server: counts the bytes it sends, and cuts the connection once it has sent `cuts[i]` in answer i."""

    def __init__(self, data, *, cuts=(), ranges=True, etag='"one"', **headers):
        self.data, self.cuts, self.ranges, self.etag, self.headers = data, list(cuts), ranges, etag, headers
        self.sent, self.started, self.lock = 0, [], threading.Lock()

    def __call__(self, request):
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        same = request.headers.get("If-Range") in {None, self.etag}
        first = int(asked[1]) if asked and self.ranges and same else 0
        if first >= len(self.data) > 0:
            return request.start(416, Content_Length=0, Content_Range=f"bytes */{len(self.data)}")
        headers = {"Content_Length": len(self.data) - first, **self.headers}
        headers |= {"ETag": self.etag} if self.etag else {}
        if first:
            headers["Content_Range"] = f"bytes {first}-{len(self.data) - 1}/{len(self.data)}"
        with self.lock:
            self.started.append(first)
            end = min(len(self.data), first + self.cuts.pop(0)) if self.cuts else len(self.data)
        request.start(206 if first else 200, **headers)
        view = memoryview(self.data)
        for start in range(first, end, PIECE):
            piece = view[start : min(start + PIECE, end)]
            request.wfile.write(piece)
            with self.lock:
                self.sent += len(piece)
        return None


BIG = random.Random(0).randbytes(50_000_000)


def test_twenty_cuts_of_a_big_file_cost_no_byte_twice(home):
    """Connections that end after a random number of bytes, each more than the last; one command, one file."""
    cuts = random.Random(1).sample(range(1 << 16, 2_400_000), 20)
    file, arrived = File(BIG, cuts=cuts), []
    with serving({"/big.bin": file}) as server:
        artifact = entry(server.url + "/big.bin", BIG)
        assert download.fetch(artifact, advance=arrived.append) is True
    assert len(file.started) == 21
    assert file.started == [sum(cuts[:i]) for i in range(21)]  # it goes on at the very byte
    assert file.sent == len(BIG)
    assert sum(arrived) == len(BIG)
    assert hashlib.sha256(cache.path_of(artifact).read_bytes()).hexdigest() == artifact.sha256
    assert hidden(home) == []


@pytest.mark.torture
def test_the_same_command_goes_on_where_a_killed_one_was(home, tmp_path, monkeypatch):
    """Five kills at random points; what is sent twice is at most a piece for each."""
    data = BIG[:20_000_000]
    file, pace = File(data), threading.Event()

    def slowly(request):
        pace.clear()
        with contextlib.suppress(ConnectionError):
            file(request)

    rng = random.Random(2)
    with serving({"/big.bin": slowly}) as server:
        artifact = entry(server.url + "/big.bin", data)
        monkeypatch.setenv("MAGNET_ARTIFACTS", str(write_list(tmp_path / "mine.toml", artifact)))
        part = cache.folder_of(artifact) / ".big.bin.partial"
        command = [sys.executable, "-m", "magnet_cli", "fetch", "thing", "--quiet"]
        kept = []
        for _ in range(3):
            target = (kept[-1] if kept else 0) + rng.randrange(200_000, 5_000_000)
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            limit = time.monotonic() + 60
            while child.poll() is None and not (part.exists() and part.stat().st_size >= target):
                assert time.monotonic() < limit
                time.sleep(0.001)
            child.send_signal(signal.SIGKILL)
            child.communicate()
            if cache.is_cached(artifact):  # it was faster than this test
                break
            kept.append(part.stat().st_size)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert cache.path_of(artifact).read_bytes() == data
    assert file.started[1:] == kept  # each goes on at the byte after the last that the disk had


def test_what_broke_off_for_good_is_kept_hidden_and_said(home):
    file = File(DATA, cuts=[100_000, 0, 0, 0])
    with serving({"/weights.bin": file}) as server:
        artifact = entry(server.url + "/weights.bin")
        error = refused(artifact, home, kept=True)
        assert "broke off 4 times" in error.message
        assert "100,000 bytes are kept, and the same command goes on from there" in error.message
        assert not cache.is_cached(artifact)
        assert download.fetch(artifact) is True
    assert file.started == [0, 100_000, 100_000, 100_000, 100_000]
    assert hidden(home) == []


def test_a_server_without_ranges_sends_the_file_anew(home):
    file, arrived = File(DATA, cuts=[70_000, 150_000], ranges=False), []
    with serving({"/weights.bin": file}) as server:
        artifact = entry(server.url + "/weights.bin")
        assert download.fetch(artifact, advance=arrived.append) is True
    assert file.started == [0, 0, 0]
    assert sum(arrived) == len(DATA)
    assert cache.read(artifact) == DATA


def test_a_file_that_changed_between_is_never_put_together_of_two(home):
    other = bytes(reversed(DATA))
    old, new = File(DATA, cuts=[100_000, 0, 0, 0]), File(other, etag='"two"')
    with serving({"/weights.bin": old}) as server:
        artifact = entry(server.url + "/weights.bin", other)
        refused(artifact, home, kept=True)
        server.answers["/weights.bin"] = new
        assert download.fetch(artifact) is True
    assert new.started == [0]
    assert cache.read(artifact) == other


@pytest.mark.parametrize("etag", ['"one"', "", 'W/"weak"'])
def test_without_a_hash_only_what_the_server_vouches_for_is_gone_on_with(home, monkeypatch, etag):
    monkeypatch.setenv("SSL_CERT_FILE", believed())
    file = File(b"\x02\0\0\0\0\0\0\0{}" + DATA, cuts=[100_000], etag=etag)
    with serving({"/x.safetensors": file}, tls=True) as server:
        artifact = entry(server.url + "/x.safetensors", sha256="", size=0)
        assert download.fetch(artifact) is True
    assert file.started == [0, 100_000 if etag == '"one"' else 0]
    assert cache.read(artifact) == file.data


def test_a_file_that_grows_or_shrinks_is_said_to_have_changed(home):
    file = File(DATA, cuts=[100_000], etag="")
    grown = File(DATA + b"more", etag="")

    def then(request):
        return (grown if file.started else file)(request)

    with serving({"/weights.bin": then}) as server:
        error = refused(entry(server.url + "/weights.bin"), home)
    assert "is 256,004 bytes, and 256,000 are asked for" in error.message
    short = File(DATA[:90_000], etag="")
    file = File(DATA, cuts=[100_000], etag="")

    def first_then(request):
        return (short if file.started else file)(request)

    with serving({"/weights.bin": first_then}) as server:
        error = refused(entry(server.url + "/weights.bin"), home)
    assert "is 90,000 bytes, and 256,000 are asked for" in error.message


def endless(request):
    request.start(Connection="close")
    with contextlib.suppress(ConnectionError):
        for _ in range(64):
            request.wfile.write(DATA)


def test_a_server_that_never_stops_is_left(home):
    arrived = []
    with serving({"/weights.bin": endless}) as server:
        error = refused(entry(server.url + "/weights.bin"), home, advance=arrived.append)
    assert "is longer than the 256,000 bytes that were asked for" in error.message
    assert sum(arrived) <= len(DATA) + 1


@pytest.mark.parametrize("page", [b"<html>please log in</html>", b"<html>" + b"x" * 300_000])
def test_a_web_page_is_no_file(home, page):
    with serving({"/weights.bin": File(page, Content_Type="text/html; charset=utf-8")}) as server:
        error = refused(entry(server.url + "/weights.bin"), home)
        assert "answers with a web page instead of the file" in error.message
        refused(entry(server.url + "/weights.bin", size=0), home)


@pytest.mark.slow
def test_a_server_that_never_answers(home, monkeypatch):
    monkeypatch.setattr(https, "_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        error = refused(entry(f"http://127.0.0.1:{silent.getsockname()[1]}/weights.bin"), home)
    assert "no answer for 0.2 s" in error.message
    assert time.monotonic() - start < 10


@pytest.mark.slow
def test_a_server_that_falls_silent(home, monkeypatch):
    monkeypatch.setattr(https, "_TIMEOUT", 0.2)
    over = threading.Event()

    def silent(request):
        request.start(Content_Length=len(DATA))
        request.wfile.write(DATA[:1000])
        over.wait(30)

    with serving({"/weights.bin": silent}) as server:
        try:
            error = refused(entry(server.url + "/weights.bin"), home, kept=True)
        finally:
            over.set()
    assert "no answer for 0.2 s" in error.message


def test_trouble_that_passes_is_waited_for_as_long_as_the_server_asks(home, monkeypatch):
    waited = []
    monkeypatch.setattr(https.time, "sleep", waited.append)
    monkeypatch.setattr(https, "_PAUSES", (0.5, 1, 2))
    answers = [(503, {}), (429, {"Retry_After": "7"}), (500, {"Retry_After": "86400"})]

    def busy(request):
        if answers:
            status, headers = answers.pop(0)
            return request.start(status, Content_Length=0, **headers)
        return whole(DATA)(request)

    with serving({"/weights.bin": busy}) as server:
        assert download.fetch(entry(server.url + "/weights.bin")) is True
    assert waited == [0.5, 7, 60]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_does_not_pass_is_asked_once(home, status):
    with serving({"/weights.bin": lambda r: r.send_error(status)}) as server:
        error = refused(entry(server.url + "/weights.bin"), home)
        assert f"the server answers {status}" in error.message
        assert len(server.asked) == 1


def test_a_certificate_that_nobody_signed_is_refused_at_once(home, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with serving({"/weights.bin": whole(DATA)}, tls=True) as server:
        error = refused(entry(server.url + "/weights.bin"), home)
        assert "certificate" in error.message.lower()
        assert server.asked == []


def test_https_does_not_fall_back_to_http(home, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", believed())
    with serving({"/weights.bin": whole(DATA)}) as plain:
        answers = {"/weights.bin": lambda r: r.start(302, Location=plain.url + "/weights.bin", Content_Length=0)}
        with serving(answers, tls=True) as server:
            error = refused(entry(server.url + "/weights.bin"), home)
        assert "redirects to another scheme: http:" in error.message
        assert plain.asked == []


def test_a_full_disk_keeps_nothing(home, monkeypatch):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with serving({"/weights.bin": whole(DATA)}) as server:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            with pytest.raises(MagnetError, match="cannot write"):
                download.fetch(entry(server.url + "/weights.bin"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, previous)
    assert hidden(home) == []
    assert everything(home) == []


@pytest.mark.slow
def test_eight_processes_ask_for_the_same_file_at_once(home, tmp_path, monkeypatch):
    data = random.Random(3).randbytes(64 << 20)
    file = File(data)
    with serving({"/big.bin": file}) as server:
        artifact = entry(server.url + "/big.bin", data)
        monkeypatch.setenv("MAGNET_ARTIFACTS", str(write_list(tmp_path / "mine.toml", artifact)))
        command = [sys.executable, "-m", "magnet_cli", "fetch", "thing", "--quiet"]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(8)]
        said = [child.communicate(timeout=120) for child in running]
    assert [(child.returncode, err) for child, (_, err) in zip(running, said, strict=True)] == [(0, b"")] * 8
    assert {out for out, _ in said} == {f"{cache.path_of(artifact)}\n".encode()}
    assert cache.path_of(artifact).read_bytes() == data
    assert file.sent == len(data)  # one download
    assert hidden(home) == []


def test_a_damaged_note_of_the_origin_means_from_the_start(home):
    file = File(DATA, cuts=[100_000, 0, 0, 0])
    with serving({"/weights.bin": file}) as server:
        artifact = entry(server.url + "/weights.bin")
        refused(artifact, home, kept=True)
        note = cache.folder_of(artifact) / ".weights.bin.partial.origin"
        for text in ("", "[]", '{"url": 1}', note.read_text().replace("one", r"o\r\nX: y")):
            note.write_text(text)
            file.cuts = [100_000, 0, 0, 0]
            with contextlib.suppress(ArtifactError):
                download.fetch(artifact)
            assert file.started[-4] == 0
        assert download.fetch(artifact) is True
    assert [p.name for p in cache.folder_of(artifact).iterdir()] == ["weights.bin"]
