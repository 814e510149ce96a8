"""Folders of images that a command makes: whole once their document is there, resumable until then, checkable after.

Owns the document, its hashes of the other files, and what may be replaced. Knows nothing of what the files show.
"""

import dataclasses
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from magnet_cli import __version__
from magnet_cli.errors import SampleError
from magnet_cli.files import atomic

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CHECKSUMS = "checksums.txt"


@dataclass(frozen=True)
class Kind:
    """What sets one kind of folder apart.

    Attributes:
        noun: what it is called.
        format: number of its layout.
        names: of the files and folders it may hold, besides its document and checksums.
        apart: those of these folders that its checksums leave out, for what is in them has its own.
    """

    noun: str
    format: int
    names: frozenset[str]
    apart: frozenset[str] = frozenset()

    @property
    def document(self) -> str:
        """Name of the file that makes it whole."""
        return f"{self.noun}.json"

    @property
    def started(self) -> str:
        """Name of the file that says what it is going to be, while it is not yet."""
        return f".{self.noun}-started.json"


_SAMPLE = {"images", "arrays", "latents.npy", "labels.npy", "metadata.jsonl", "grid.png", "montage.png"}
SAMPLE = Kind("sample", 1, frozenset(_SAMPLE))
RENDERING = Kind("rendering", 1, frozenset({"images", "images.npy", ".images.npy.growing"}))
SWEEP = Kind("sweep", 1, frozenset({"samples", "reference", "plots", ".points", ".images"}), frozenset({"samples"}))
_EDIT = {"images", "latents.npy", "labels.npy", "scores.npz", "metadata.jsonl", "grid.png"}
EDIT = Kind("edit", 1, frozenset(_EDIT))
KINDS = (SAMPLE, RENDERING, SWEEP, EDIT)


def finished(out: Path, kind: Kind, spec: "DataclassInstance") -> dict | None:
    """The report of the finished work in a folder, if it is that of `spec`; None where there is none.

    Raises:
        SampleError: the folder holds another one (all differing fields are named) or other files.
        MagnetError: its document is damaged.
    """
    with atomic.explained("read", out):
        if not out.exists():
            return None
        if not out.is_dir():
            message = f"{out} is asked for as a {kind.noun} folder, and is a file"
            raise SampleError(message, "pass another folder with --out")
        names = atomic.names(out)
    done = kind.document in names
    if not done and kind.started not in names:
        if names:
            listed = ", ".join(sorted(names)[:3])
            message = f"{out} is asked for as a {kind.noun} folder, and holds other files: {listed}"
            raise SampleError(message, "pass another folder with --out")
        return None
    fields = read(out, kind) if done else atomic.read_document(out / kind.started)
    asked, found = plain(dataclasses.asdict(spec)), _defaults(spec) | fields["spec"]
    differing = [k for k in asked if asked[k] != found.get(k)]
    if differing:
        listed = ", ".join(f"{k} {found.get(k)} (asked {asked[k]})" for k in differing)
        message = f"{out} holds another {kind.noun}: {listed}"
        raise SampleError(message, "pass another folder with --out, or --force to replace it")
    return fields["report"] if done else None


def read(out: Path, kind: Kind) -> dict:
    """What a folder's document says.

    Raises:
        SampleError: it is of another format.
        MagnetError: it is damaged.
    """
    atomic.settle(out)
    fields = atomic.read_document(out / kind.document)
    parts = {"spec": dict, "report": dict, "checksums_sha256": str}
    whole = all(isinstance(fields.get(name), of) for name, of in parts.items())
    if fields.get("format") != kind.format or not whole:
        message = f"{out} is a {kind.noun} of format {fields.get('format')}; "
        message += f"this magnet ({__version__}) reads {kind.format}"
        raise SampleError(message, "use the magnet that made it, or make it again with --force")
    return fields


def discard(out: Path, kind: Kind) -> None:
    """Remove such a folder, finished or not (--force); other folders are left alone.

    Raises:
        SampleError: the folder holds files that none of its kind has.
        MagnetError: it cannot be removed.
    """
    ours = kind.names | {kind.document, kind.started, CHECKSUMS}
    if not out.exists():
        return
    with atomic.explained("remove", out):
        names = atomic.names(out) if out.is_dir() else {out.name}
        if names and (names - ours or not names & {kind.document, kind.started}):
            listed = ", ".join(sorted(names - ours)[:3]) or "images alone"
            message = f"{out} holds files that no {kind.noun} has: {listed}"
            raise SampleError(message, f"pass another folder with --out; --force replaces {kind.noun}s only")
        shutil.rmtree(out)


def start(out: Path, kind: Kind, spec: "DataclassInstance") -> None:
    """Make a folder, and say in it what it is going to be.

    Raises:
        MagnetError: no space, no permission.
    """
    atomic.make_folder(out)
    atomic.publish(out / kind.started, atomic.document({"spec": dataclasses.asdict(spec)}))


def list_files(out: Path, kind: Kind, known: dict[str, str]) -> None:
    """Write the checksums of all files, as `sha256sum` does.

    Args:
        out: the folder.
        kind: its kind.
        known: the hashes of files that were written just now, by their names in it; the others are read.

    Raises:
        MagnetError: no space, no permission.
    """
    names = sorted(known | dict.fromkeys(_names(out, kind)))
    sums = "".join(f"{known.get(name) or atomic.sha256_file(out / name)}  {name}\n" for name in names)
    atomic.publish(out / CHECKSUMS, sums.encode())


def finish(out: Path, kind: Kind, fields: dict) -> None:
    """Write the document of a folder whose files are listed: from now on it is whole, and survives a power cut.

    Args:
        out: the folder.
        kind: its kind.
        fields: what the document says besides format, hash and time: "spec" and "report" among them.

    Raises:
        MagnetError: no space, no permission.
    """
    atomic.sync_all(out, [*_names(out, kind), CHECKSUMS])
    fields = {"format": kind.format} | fields | {"checksums_sha256": atomic.sha256_file(out / CHECKSUMS)}
    fields["created"] = datetime.now(UTC).isoformat(timespec="seconds")
    atomic.publish(out / kind.document, atomic.document(fields))
    (out / kind.started).unlink(missing_ok=True)


def check(out: Path, kind: Kind) -> list[str]:
    """Re-read every byte of a finished folder; what is wrong, in words, one line a problem.

    Raises:
        MagnetError: its document is damaged.
    """
    document = read(out, kind)
    sums = out / CHECKSUMS
    if not sums.is_file() or atomic.sha256_file(sums) != document["checksums_sha256"]:
        return [f"{sums} is missing or changed: the other files cannot be checked"]
    lines = (line.partition("  ") for line in sums.read_text(encoding="utf-8", errors="replace").splitlines())
    listed = {name: digest for digest, _, name in lines}
    problems = [f"{out / name} is missing" for name in listed if not (out / name).is_file()]
    for name, digest in listed.items():
        if (out / name).is_file() and atomic.sha256_file(out / name) != digest:
            problems.append(f"{out / name} was changed after it was written")
    return problems


def versions() -> dict[str, str]:
    """What the numbers in a folder depend on besides the files."""
    return {
        "magnet": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": f"{sys.platform}-{platform.machine()}",
    }


def _names(out: Path, kind: Kind) -> list[str]:
    """Of the files in a folder that its checksums list."""
    found = []
    for folder, inner, names in os.walk(out):
        apart = kind.apart if Path(folder) == out else ()
        inner[:] = [name for name in inner if name not in apart and not name.startswith(".")]
        below = Path(folder).relative_to(out).as_posix()
        found += [name if below == "." else f"{below}/{name}" for name in names if not name.startswith(".")]
    return sorted(set(found) - {CHECKSUMS, kind.document})


def plain(fields: dict) -> dict:
    """Fields of a spec as JSON gives them back."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _defaults(spec: "DataclassInstance") -> dict:
    """Of the fields that documents written by an earlier magnet may lack."""
    known = {f.name: f.default for f in dataclasses.fields(spec) if f.default is not dataclasses.MISSING}
    return plain(known)
