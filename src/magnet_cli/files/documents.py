"""SHA-256 of bytes, files and folders; JSON documents that hold their own checksum; JSON lines."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from magnet_cli.errors import MagnetError
from magnet_cli.files import opening

_HINT = "restore it from a copy, or remove what it belongs to and make that again"


def sha256_bytes(data: bytes | memoryview) -> str:
    """Return the sha256 of bytes, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path, below: Path | None = None) -> str:
    """Return the sha256 of a file, 64 hex digits; the file is read in pieces, `below` as for `opening.opened`.

    Raises:
        MagnetError: the file cannot be read.
    """
    with opening.opened(path, below) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_folder(folder: Path) -> tuple[str, int]:
    """Return the sha256 of a folder's listing, and the number of bytes of its files.

    The listing is the output of `find . -type f | LC_ALL=C sort | xargs sha256sum`: that line piped into `sha256sum`
    gives the same value.

    Raises:
        MagnetError: a file cannot be read.
    """
    files = sorted(
        "./" + p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and not p.is_symlink()
    )
    listing = "".join(f"{sha256_file(folder / name)}  {name}\n" for name in files)
    return sha256_bytes(listing.encode()), sum((folder / name).stat().st_size for name in files)


def canonical(fields: dict) -> bytes:
    """Return the one byte string that a JSON object is hashed as: sorted keys, no spaces, UTF-8."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def encode(fields: dict) -> bytes:
    """Return a JSON object as readable text, with the sha256 of its canonical form under "checksum"."""
    with_checksum = {**fields, "checksum": sha256_bytes(canonical(fields))}
    return (json.dumps(with_checksum, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def encode_lines(records: Iterable[Mapping]) -> bytes:
    """Return JSON lines: an object a line, UTF-8."""
    return "".join(json.dumps(each, ensure_ascii=False, allow_nan=False) + "\n" for each in records).encode()


def read(path: Path) -> dict:
    """Return the fields of a document; every byte is verified. A link in its place is not followed.

    Raises:
        MagnetError: the file cannot be read, is not a document, or was changed since it was written.
    """
    return parse(opening.read(path, path.parent), path)


def parse(data: bytes, path: Path) -> dict:
    """Return the fields in the bytes of a document; every byte is verified.

    Args:
        data: the bytes.
        path: where they were read, for messages.

    Raises:
        MagnetError: the bytes are not a document, or were changed since they were written.
    """
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MagnetError(f"{path} is not JSON: it is damaged, or was not written by magnet", _HINT) from error
    checksum = fields.pop("checksum", None) if isinstance(fields, dict) else None
    if checksum is None:
        raise MagnetError(f"{path} holds JSON without a checksum: it was not written by magnet", _HINT)
    try:
        unchanged = encode(fields) == data  # its checksum included
    except (ValueError, RecursionError):  # values that no document can hold: infinities, lone surrogates
        unchanged = False
    if not unchanged:
        raise MagnetError(f"{path} was changed after it was written: its checksum does not fit its contents", _HINT)
    return fields
