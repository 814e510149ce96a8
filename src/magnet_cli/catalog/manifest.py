"""manifest.json: name, size and sha256 of the files of a published volume; names that lead outside are refused."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from magnet_cli.catalog.entries import MANIFEST
from magnet_cli.errors import ArtifactError
from magnet_cli.files import documents

_FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][\w-]*(\.[\w-]+)*(/[A-Za-z0-9][\w-]*(\.[\w-]+)*)*", re.ASCII)


@dataclass(frozen=True)
class Entry:
    """One file.

    Attributes:
        name: path below the folder, with forward slashes.
        size: bytes.
        sha256: hash of the bytes.
    """

    name: str
    size: int
    sha256: str


def of_folder(folder: Path, names: list[str]) -> bytes:
    """Return the manifest of some files of a folder.

    Raises:
        MagnetError: one cannot be read.
    """
    entries = [
        Entry(name, (folder / name).stat().st_size, documents.sha256_file(folder / name)) for name in sorted(names)
    ]
    return documents.encode({"format": _FORMAT, "kind": "volume", "files": [asdict(entry) for entry in entries]})


def read(path: Path) -> list[Entry]:
    """Return the files that a manifest lists.

    Raises:
        ArtifactError: it is none, damaged, of another format, or names files outside its folder.
        MagnetError: it cannot be read.
    """
    fields = documents.read(path)
    if fields.get("format") != _FORMAT or fields.get("kind") != "volume" or not isinstance(fields.get("files"), list):
        message = f"{path} is not the manifest of a volume in format {_FORMAT}"
        raise ArtifactError(message, "use the magnet that wrote it, or ask its publisher")
    try:
        entries = [Entry(**entry) for entry in fields["files"]]
        right = all(
            [type(e.name), type(e.size), type(e.sha256)] == [str, int, str]
            and _NAME.fullmatch(e.name)
            and e.name != MANIFEST
            and e.size >= 0
            and re.fullmatch(r"[0-9a-f]{64}", e.sha256)
            for e in entries
        )
    except TypeError:
        right = False
    if not right or len({entry.name.lower() for entry in entries}) < len(entries):
        message = f"{path} lists files in a way that no manifest of magnet does: a name, size or sha256 is wrong"
        raise ArtifactError(message, "do not use what it belongs to, and tell its publisher")
    return entries


def problem(folder: Path, entry: Entry, *, hashed: bool) -> str:
    """Return what is wrong with a file, "" if nothing: that it is missing, its size and, if `hashed`, its sha256.

    Raises:
        MagnetError: it cannot be read.
    """
    path = folder / entry.name
    if not path.is_file():
        return f"{entry.name} is not there"
    if path.stat().st_size != entry.size:
        return f"{entry.name} has {path.stat().st_size:,} bytes instead of {entry.size:,}"
    return f"the bytes of {entry.name} are others" if hashed and documents.sha256_file(path) != entry.sha256 else ""
