"""Real servers on this machine, entries of lists that lead to them, and how a fetch fails."""

import atexit
import contextlib
import dataclasses
import functools
import hashlib
import http.server
import json
import shutil
import ssl
import tempfile
import threading
from pathlib import Path

import pytest
import trustme

from magnet_cli.artifacts import cache
from magnet_cli.artifacts.registry import Artifact
from magnet_cli.errors import ArtifactError

DATA = bytes(range(256)) * 1000
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Answer(http.server.BaseHTTPRequestHandler):
    """Answers each path with the function of that name in the server's `answers`, and notes who asked."""

    def do_GET(self):
        self.server.asked.append((self.command, self.path))
        with contextlib.suppress(ConnectionError):
            self.server.answers[self.path](self)

    def do_HEAD(self):
        self.do_GET()

    def log_message(self, *_):
        pass

    def start(self, status=200, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()


NAMES = ("localhost", "127.0.0.1", "drive.google.com", "drive.usercontent.google.com")


@functools.cache
def authority():
    """Who signs for this machine, in this test run only."""
    return trustme.CA()


@functools.cache
def believed():
    """The file that makes a client believe it, as SSL_CERT_FILE."""
    path = Path(tempfile.mkdtemp(prefix="magnet-tests-")) / "ca.pem"
    authority().cert_pem.write_to_path(path)
    atexit.register(shutil.rmtree, path.parent)
    return str(path)


@contextlib.contextmanager
def serving(answers, handler=Answer, *, tls=False):
    """A real server on this machine: `url`, `asked`."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = False  # server_close waits for the handlers
    server.answers, server.asked = answers, []
    if tls:
        server.socket = tls_context().wrap_socket(server.socket, server_side=True)
    with running(server, "https" if tls else "http"):
        yield server


@contextlib.contextmanager
def running(server, scheme="http"):
    """A server while it answers; it is told its `url`."""
    server.url = f"{scheme}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def tls_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(*NAMES).configure_cert(context)
    return context


def whole(data):
    def answer(request):
        request.start(Content_Length=len(data))
        if request.command == "GET":
            request.wfile.write(data)

    return answer


def entry(source, data=DATA, **changes):
    right = {"name": "thing", "kind": "generator", "family": "dcgan", "license": "MIT", "description": "a test's"}
    right |= {"source": source, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    return Artifact(**right | changes)


def write_list(path, *artifacts):
    """A list of artifacts, for MAGNET_ARTIFACTS."""
    lines = []
    for artifact in artifacts:
        usual = {f.name: f.default for f in dataclasses.fields(artifact)}
        fields = {key: value for key, value in dataclasses.asdict(artifact).items() if value != usual[key]}
        lines.append(f"[{fields.pop('name')}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in fields.items()]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def everything(folder):
    """What is visible in a folder; locks and partial files are not."""
    found = (p.relative_to(folder) for p in folder.rglob("*"))
    return sorted(p.as_posix() for p in found if not any(part.startswith(".") for part in p.parts))


def hidden(folder):
    """The hidden files in a folder that are no locks."""
    return [p for p in folder.rglob(".*") if p.is_file() and not p.name.endswith("locks")]


def refused(artifact, home, *, kept=False, **kwargs):
    """The error of a fetch that fails and leaves nothing behind, but, if `kept`, a hidden partial file."""
    with pytest.raises(ArtifactError) as caught:
        cache.fetch(artifact, **kwargs)
    assert everything(home) == ["artifacts", f"artifacts/{cache.folder_of(artifact).name}"] * kept
    assert bool(hidden(home)) == kept
    assert artifact.name in caught.value.message or artifact.source.split("#")[0].split(":")[1] in caught.value.message
    assert caught.value.hint
    return caught.value
