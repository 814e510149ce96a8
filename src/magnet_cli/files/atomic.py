"""Files that appear whole or not at all: temporary names, fsync, publication by rename or link, disk failures."""

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from magnet_cli.errors import MagnetError

_PART = ".part"  # suffix of temporaries: they are never read, and swept when old
_STALE_SECONDS = 3600
REPLACING, _DECIDED = ".replacing", "decided"  # a `replace_together` under way
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)  # some network and FAT mounts
_REASONS = {
    errno.ENOSPC: ("no space is left on the device", "free some space there, or choose another place"),
    errno.EDQUOT: ("the disk quota is used up", "free some space there, or choose another place"),
    errno.EFBIG: ("the file would pass the size limit set for it", "raise the limit, or choose another place"),
    errno.EACCES: ("permission is denied", "choose a place you may write to"),
    errno.EPERM: ("permission is denied", "choose a place you may write to"),
    errno.EROFS: ("the file system is read-only", "choose a place you may write to"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "choose another place"),
    errno.EEXIST: ("a file of that name is in the way", "move it away, or choose another place"),
    errno.EISDIR: ("a folder of that name is in the way", "move it away, or choose another place"),
    errno.EIO: ("the disk reports an input/output error", "check the disk or the network mount"),
    errno.ENXIO: ("the device is gone", "check the disk or the network mount"),
    errno.ENODEV: ("the device is gone", "check the disk or the network mount"),
    errno.ESTALE: ("the network mount was replaced under it", "check the network mount"),
    errno.ENOTCONN: ("the network mount is not connected", "check the network mount"),
    errno.ETIMEDOUT: ("the network mount does not answer", "check the network mount"),
    errno.EHOSTDOWN: ("the network mount does not answer", "check the network mount"),
    errno.ENOENT: ("it, or a folder on the way, is not there", "check that it was not moved, and the disk's mount"),
    errno.ELOOP: ("links on the way lead in a circle", "pass the path of what they should lead to"),
    errno.ENAMETOOLONG: ("the name is too long for the file system", "choose a shorter name"),
}


@contextlib.contextmanager
def explained(action: str, path: Path, size: int | None = None) -> Iterator[None]:
    """Turn an OSError of the block into a MagnetError: what was tried, why it failed, what to do.

    Args:
        action: an infinitive: "write", "read".
        path: the file or folder.
        size: bytes to be written; on a full disk the message has the number of free bytes.

    Raises:
        MagnetError: a failure that a user can act on; any other OSError passes through.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REASONS:
            raise
        reason, remedy = _REASONS[error.errno]
        message = f"cannot {action} {path}: {reason}"
        if size is not None and error.errno in _FULL:
            message += f" ({size:,} bytes are needed, {_free(path.parent)} are free)"
        hint = f"{remedy} (MAGNET_HOME moves the files that magnet keeps of its own accord)"
        raise MagnetError(message, hint) from error


def _free(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free:,}"
    except OSError:
        return "an unknown number"


def make_folder(path: Path) -> None:
    """Create a folder and its parents, unless they exist.

    Raises:
        MagnetError: it cannot be made.
    """
    with explained("create", path):
        path.mkdir(parents=True, exist_ok=True)


def temporary(path: Path) -> Path:
    """Return a unique hidden name in the folder of `path`, for a file that will be renamed to it."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{_PART}")


def names(folder: Path) -> set[str]:
    """Return the names in a folder, without temporaries.

    Raises:
        MagnetError: it cannot be read.
    """
    with explained("read", folder):
        return {p.name for p in folder.iterdir() if not (p.name.startswith(".") and p.name.endswith(_PART))}


def sweep(folder: Path) -> None:
    """Remove temporaries that are over an hour old, left by a killed process."""
    limit = time.time() - _STALE_SECONDS
    for stray in folder.glob(f".*{_PART}"):
        with contextlib.suppress(OSError):  # another process may sweep the same file, or own it
            if stray.stat().st_mtime < limit:
                shutil.rmtree(stray) if stray.is_dir() else stray.unlink()


def publish(path: Path, data: bytes, *, replace: bool = True, durable: bool = True) -> bool:
    """Write a file that appears whole: bytes and fsync first, then its name, then fsync of the folder.

    A new file has no name until it is linked (O_TMPFILE); a replacement is a temporary that is renamed.

    Args:
        path: the file's final name; its folder exists.
        data: its bytes.
        replace: replace an existing file; otherwise keep it and return False.
        durable: fsync; off for images, which are cheap to render again.

    Returns:
        False when a file was there and `replace` is off.

    Raises:
        MagnetError: no space, no permission; nothing is left behind.
    """
    with explained("write", path, len(data)):
        published = None if replace and path.exists() else _linked(path, data, durable=durable)
        if published is None or (replace and not published):
            part = temporary(path)
            try:
                with part.open("xb") as file:
                    file.write(data)
                    if durable:
                        file.flush()
                        os.fsync(file.fileno())
                published = _appear(part, path, replace=replace)
            finally:
                part.unlink(missing_ok=True)
        if durable:
            sync_folder(path.parent)
    return published


def _linked(path: Path, data: bytes, *, durable: bool) -> bool | None:
    """Write a file without a name, then link it; return whether the name was free, None where there is no O_TMPFILE."""
    if not hasattr(os, "O_TMPFILE"):
        return None
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    descriptor = None
    try:
        try:
            descriptor = os.open(".", os.O_WRONLY | os.O_TMPFILE, 0o666, dir_fd=folder)
        except OSError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}:  # of file systems, of old kernels
                raise
            return None
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
        if durable:
            os.fsync(descriptor)
        try:
            os.link(f"/proc/self/fd/{descriptor}", path.name, dst_dir_fd=folder, follow_symlinks=True)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in {*_NO_LINKS, errno.ENOENT, errno.EXDEV}:  # the last two where /proc is not mounted
                raise
            return None
        return True
    finally:
        if descriptor is not None:
            os.close(descriptor)
        os.close(folder)


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to write in pieces; it appears when the block ends, and not at all when the block fails.

    Args:
        path: the file's final name; its folder exists. An existing file is replaced.

    Raises:
        MagnetError: no space, no permission; nothing is left behind.
    """
    part = temporary(path)
    with explained("write", path):
        try:
            with part.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(path.parent)


def replace_together(folder: Path, contents: dict[str, bytes]) -> None:
    """Replace several files of a folder together: after a crash, `settle` leaves all old or all new.

    New files and then a mark are written to a hidden folder; with the mark, `settle` moves the files into place.

    Args:
        folder: the folder.
        contents: bytes by file name.

    Raises:
        MagnetError: no space, no permission; all files are as before.
    """
    settle(folder)
    staged = folder / REPLACING
    with explained("write", staged):
        shutil.rmtree(staged, ignore_errors=True)  # of a run that was stopped before it decided
        staged.mkdir()
        try:
            for name, data in contents.items():
                publish(staged / name, data)
            publish(staged / _DECIDED, b"")
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
    settle(folder)


def settle(folder: Path) -> None:
    """Finish a `replace_together` that was stopped after its mark; called before the files are read.

    Raises:
        MagnetError: the folder cannot be written.
    """
    staged = folder / REPLACING
    if staged.is_symlink() or not (staged / _DECIDED).exists():
        return
    with explained("write", folder):
        for path in sorted(p for p in staged.iterdir() if p.name != _DECIDED):
            with contextlib.suppress(FileNotFoundError):  # another process settles too
                path.replace(folder / path.name)
        sync_folder(folder)
        shutil.rmtree(staged, ignore_errors=True)


def link(path: Path, target: Path) -> None:
    """Give a file another name, unless that exists; copy the file where there are no hard links.

    Raises:
        MagnetError: no space, no permission.
    """
    with explained("write", target):
        try:
            target.hardlink_to(path)
        except FileExistsError:
            return
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            publish(target, path.read_bytes(), durable=False)


def _appear(part: Path, path: Path, *, replace: bool) -> bool:
    if replace:
        part.replace(path)
        return True
    try:
        path.hardlink_to(part)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():  # no links here (some network and FAT mounts): rename is the best there is
            return False
        part.replace(path)
    return True


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, where the system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems have no fsync for folders
            raise
    finally:
        os.close(descriptor)


def sync_all(folder: Path, names: list[str]) -> None:
    """Write files of a folder, and their names, to the disk.

    On Linux one syncfs for thousands of small files, where an fsync for each would take longer than writing them.

    Args:
        folder: the folder.
        names: names of the files below it.

    Raises:
        MagnetError: they could not be written.
    """
    with explained("write", folder):
        if _sync_file_system(folder):
            return
        paths = [folder / name for name in names]
        for path in paths:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        for each in {path.parent for path in paths}:
            sync_folder(each)


def _sync_file_system(folder: Path) -> bool:
    """Call syncfs for the file system of a folder; return False where the system has none."""
    sync = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if sync is None:
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if sync(descriptor) == 0:
            return True
        number = ctypes.get_errno()
    finally:
        os.close(descriptor)
    if number in {errno.ENOSYS, errno.EINVAL, errno.EPERM}:
        return False
    raise OSError(number, os.strerror(number))
