"""Open files that somebody else may have made: plain files alone, and none that a link below their folder leads to."""

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from magnet_cli.errors import MagnetError
from magnet_cli.files import atomic

_LINK = "a link inside a folder that magnet wrote leads elsewhere, and is not followed"


@contextlib.contextmanager
def opened(path: Path, below: Path | None = None) -> Iterator[io.BufferedReader]:
    """Open a plain file to read; pipes, devices and folders are refused without waiting for them.

    Args:
        path: the file.
        below: the folder that holds it, which somebody else may have made: no link from there on is followed. Paths
            that users name themselves have none, and their links are followed.

    Raises:
        MagnetError: it is no plain file, a link, or cannot be read.
    """
    with atomic.explained("read", path):
        if below is not None:
            refuse_links(path, below)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # closes it in any case  # noqa: PTH123
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                message = f"cannot read {path}: it is a pipe or a device, and a plain file is asked for"
                raise MagnetError(message, "write its contents to a file, and pass that")
            yield file


def read(path: Path, below: Path | None = None) -> bytes:
    """Return the bytes of a plain file, as `opened`.

    Raises:
        MagnetError: it is no plain file, a link, or cannot be read.
    """
    with opened(path, below) as file:
        return file.read()


def refuse_links_in(folder: Path) -> None:
    """Check that nothing that lies in a folder is a link to another one.

    Raises:
        MagnetError: something is, or the folder cannot be read.
    """
    with atomic.explained("read", folder):
        links = [path for path in folder.iterdir() if path.is_symlink()] if folder.is_dir() else []
    for path in links:
        refuse_links(path, folder)


def refuse_links(path: Path, below: Path) -> None:
    """Check that no part of a path below a folder is a link.

    In the Hugging Face Hub's own cache the files of a snapshot are links to plain files in `blobs` beside the
    snapshots, and those are followed.

    Raises:
        MagnetError: one is.
    """
    parts = path.relative_to(below).parts
    if ".." in parts:
        raise MagnetError(f"{path} leads out of {below}", "do not use that folder, and tell whoever made it")
    links = [step for i in range(len(parts)) if (step := below.joinpath(*parts[: i + 1])).is_symlink()]
    if links and not (links == [path] and _is_snapshot(path, below)):
        hint = "copy what it leads to into its place, if you know where the folder comes from"
        raise MagnetError(f"cannot read {links[0]}: {_LINK}", hint)


def _is_snapshot(path: Path, below: Path) -> bool:
    blobs = next((p.parent.parent / "blobs" for p in (below, *below.parents) if p.parent.name == "snapshots"), None)
    target = Path(os.path.normpath(path.parent / path.readlink()))
    return blobs is not None and target.parent == blobs and not target.is_symlink()
