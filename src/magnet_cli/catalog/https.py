"""Download a file from an https address into a partial file, which a later process can go on with.

The size is compared with what was announced; hashes are verified by the caller.
"""

import contextlib
import http.client
import json
import os
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from magnet_cli.catalog.entries import leaves_in_the_clear
from magnet_cli.errors import ArtifactError

_TIMEOUT = 20  # seconds without a byte before a connection counts as dead
_PIECE = 1 << 16  # bytes written at a time, hence lost when this process is killed
_PAUSES = (0.5, 1.0, 2.0, 4.0)  # seconds before each new try; counted anew whenever a piece arrived
_LONGEST_PAUSE = 60  # seconds, whatever the server asks for
_LARGEST = 1 << 40  # bytes taken where neither entry nor server says how many
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # statuses that may pass


class _BrokenOffError(Exception):
    """The transfer broke off, and may go on."""

    def __init__(self, reason: str, wait: float = 0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class _Origin:
    """The origin of a partial file, kept beside it.

    Attributes:
        url: where it comes from.
        validator: the server's name for this version of the file, for If-Range; empty where it has none.
        total: its size in bytes; 0 where the server did not say.
    """

    url: str
    validator: str
    total: int


def download(url: str, part: Path, size: int, *, pinned: bool, advance: Callable[[int], None]) -> None:
    """Write the file at an address to `part`; the same call goes on where an earlier one, or its process, ended.

    What was there is kept only if the server says that it is of the same file, or if the hash is known beforehand.

    Args:
        url: https; http on this machine alone.
        part: the partial file; beside it a note of its origin. Both stay when the connection breaks for good.
        size: bytes; 0 where unknown.
        pinned: whether its hash is known, and will be compared.
        advance: called with the number of bytes that arrived, those of earlier calls too.

    Raises:
        ArtifactError: not reachable, no such file, of another size, or a web page; what broke off stays for later, all
            else is removed.
    """
    if leaves_in_the_clear(url):
        message = f"the source is {url}: plain http is only for this machine"
        raise ArtifactError(message, "write https:// in its entry")
    tries, most = 0, _size(part)
    advance(most)
    while True:
        try:
            _attempt(url, part, size, pinned, advance)
        except _BrokenOffError as broken:
            tries = 1 if _size(part) >= most + _PIECE else tries + 1
            most = max(most, _size(part))
            if tries > len(_PAUSES):
                if not _size(part):
                    discard(part)
                kept = f"; {_size(part):,} bytes are kept, and the same command goes on from there" * (_size(part) > 0)
                message = f"the transfer from {url} broke off {tries} times: {broken}{kept}"
                raise ArtifactError(message, "check the network, and try again") from broken
            time.sleep(min(max(_PAUSES[tries - 1], broken.wait), _LONGEST_PAUSE))
        except (ArtifactError, OSError):
            discard(part)
            raise
        else:
            return


def discard(part: Path) -> None:
    """Remove a partial file, and the note of its origin."""
    for path in (part, _note(part)):
        path.unlink(missing_ok=True)


def _attempt(url: str, part: Path, size: int, pinned: bool, advance: Callable[[int], None]) -> None:
    have, origin = _size(part), _origin(part)
    if origin is None or origin.url != url or not (pinned or origin.validator) or (size and have > size):
        advance(-have)
        discard(part)
        have, origin = 0, None
    if have and origin and have == (size or origin.total):
        return
    with _answer(url, part, have, origin) as answer:
        total = _announced(answer, have)
        resumed = answer.status == http.client.PARTIAL_CONTENT
        _check(url, answer, total, size or (origin.total if origin and resumed else 0))
        if not resumed:
            advance(-have)
            have = 0
            named = answer.headers.get("ETag", "")
            validator = named if named.startswith('"') else answer.headers.get("Last-Modified", "")
            _note(part).write_text(json.dumps(asdict(_Origin(url, validator, total or 0))), encoding="utf-8")
        with part.open("ab" if resumed else "wb", buffering=0) as file:
            have += _copy(answer, file, (size or total or _LARGEST) + 1 - have, advance)
            os.fsync(file.fileno())
    if have < (size or total or 0):
        message = f"the connection broke after {have:,} of {size or total:,} bytes"
        raise _BrokenOffError(message)
    if size and have > size:
        message = f"{url} is longer than the {size:,} bytes that were asked for"
        raise ArtifactError(message, "its publisher has changed the file")


def _copy(answer: http.client.HTTPResponse, file: IO[bytes], most: int, advance: Callable[[int], None]) -> int:
    """Write what arrives, as it arrives, at most so many bytes; their number."""
    done = 0
    try:
        while done < most and (piece := answer.read1(min(_PIECE, most - done))):
            file.write(piece)
            done += len(piece)
            advance(len(piece))
    except (http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        raise _BrokenOffError(_reason(error)) from error
    return done


def _answer(url: str, part: Path, have: int, origin: _Origin | None) -> http.client.HTTPResponse:
    headers = {"User-Agent": "magnet", "Accept-Encoding": "identity"}
    if have and origin:
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": origin.validator} if origin.validator else {})
    request = urllib.request.Request(url, headers=headers)  # noqa: S310
    try:
        return urllib.request.build_opener(_SameScheme).open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:  # it holds the connection
            if have and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                discard(part)
                message = f"the file there is shorter than the {have:,} bytes that were here"
                raise _BrokenOffError(message) from error
            raise _meaning(url, error) from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, str | ssl.SSLCertVerificationError):  # a redirect that is not followed; not who it claims
            message = f"{url} cannot be fetched: {_reason(error)}"
            raise ArtifactError(message, "correct its entry, or the certificates of this machine") from error
        raise _BrokenOffError(_reason(error)) from error


def _meaning(url: str, error: urllib.error.HTTPError) -> Exception:
    text = f"the server answers {error.code} {error.reason}"
    if error.code in _PASSING:
        wait = error.headers.get("Retry-After", "")
        return _BrokenOffError(text, float(wait) if re.fullmatch(r"\d{1,6}", wait) else 0)
    message = f"{url} cannot be fetched: {text}"
    return ArtifactError(message, "check the address in its entry: its publisher may have moved it")


def _announced(answer: http.client.HTTPResponse, have: int) -> int | None:
    """The size of the whole file by its headers; None where they do not tell."""
    if answer.status == http.client.PARTIAL_CONTENT:
        match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", answer.headers.get("Content-Range", ""))
        if not match or int(match[1]) != have:
            message = "the server answers with another part than was asked for"
            raise _BrokenOffError(message)
        return int(match[2]) if match[2].isdigit() else None
    length = answer.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(r"\d{1,18}", length) else None


def _check(url: str, answer: http.client.HTTPResponse, total: int | None, size: int) -> None:
    """Size first, before a byte is taken; and no web page in the place of a file."""
    page = answer.headers.get_content_type() == "text/html"
    if page and (not size or total != size):
        message = f"{url} answers with a web page instead of the file"
        raise ArtifactError(message, "open the address in a browser and see what it says")
    if size and total not in {None, size}:
        message = f"{url} is {total:,} bytes, and {size:,} are asked for"
        raise ArtifactError(message, "its publisher has changed the file")


def _reason(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, TimeoutError):
        return f"no answer for {_TIMEOUT} s"
    return str(reason) or type(reason).__name__


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.origin")


def _origin(part: Path) -> _Origin | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        origin = _Origin(**json.loads(_note(part).read_text(encoding="utf-8")))
        if (
            [type(v) for v in asdict(origin).values()] == [str, str, int]
            and origin.validator.isascii()
            and origin.validator.isprintable()
        ):
            return origin
    return None


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never to another scheme, nor over plain http to another machine."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # noqa: ANN001, ANN202
        if urllib.parse.urlsplit(newurl).scheme != urllib.parse.urlsplit(req.full_url).scheme:
            reason = f"it redirects to another scheme: {newurl}"
            fp.close()
            raise urllib.error.URLError(reason)
        if leaves_in_the_clear(newurl):
            reason = f"it redirects to {newurl}, and plain http is only for this machine"
            fp.close()
            raise urllib.error.URLError(reason)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
