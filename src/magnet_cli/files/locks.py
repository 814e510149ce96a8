"""Locks among processes that share a folder, freed by the system however their owner ends.

Owns no more than that. Knows nothing of what is locked, nor relies on the file system having locks.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from magnet_cli.files import atomic

_PAUSE = 0.05  # seconds between two attempts


class Locks:
    """Numbered locks on one file, shared by processes; the system frees them when a process ends or is killed.

    They avoid double work and two replacements of a file at once. Where the file system has no locks, or the file
    cannot be made, every lock is granted: callers must be correct without them.

    Args:
        path: the file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = None
        with contextlib.suppress(OSError):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)

    def take(self, number: int, *, wait: bool = False) -> bool:
        """Take a lock; return False when another process holds it and `wait` is off."""
        if self._descriptor is None:
            return True
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, number)
        except OSError as error:
            return error.errno not in {errno.EACCES, errno.EAGAIN}
        return True

    def free(self, number: int) -> None:
        """Free a lock that this process holds."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # no locks here
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, number)

    @contextlib.contextmanager
    def held(self, number: int) -> Iterator[None]:
        """Hold a lock for the block, once no other process does."""
        self.take(number, wait=True)
        try:
            yield
        finally:
            self.free(number)

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


class FileLock:
    """A lock on a file of its own, for one holder at a time, threads of a process included.

    The file is made with its folder when the lock is taken, and removed when it is freed; the system frees the lock
    when a process ends or is killed. Where the file system has no locks, or the file cannot be made, it is granted.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Take the lock; return False where another holds it.

        Raises:
            MagnetError: the folder cannot be made.
        """
        while True:
            atomic.make_folder(self.path.parent)
            try:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            except FileNotFoundError:  # another process has just removed the empty folder
                continue
            except OSError:
                return True
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_of(descriptor):
                    self._descriptor = descriptor
                    return True
            except OSError as error:
                os.close(descriptor)
                return error.errno not in {errno.EACCES, errno.EAGAIN}
            os.close(descriptor)  # its holder has just freed and removed it

    def free(self) -> None:
        """Free the lock, and remove its file."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                self.path.unlink()
            os.close(self._descriptor)
            self._descriptor = None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock for the block, once no other does."""
        while not self.take():
            time.sleep(_PAUSE)
        try:
            yield
        finally:
            self.free()

    def _is_of(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False
