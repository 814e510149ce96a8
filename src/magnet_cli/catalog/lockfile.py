"""artifacts.lock: hashes of first downloads and accepted licences, shared by any number of processes."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from magnet_cli.errors import ArtifactError, MagnetError
from magnet_cli.files import atomic, documents
from magnet_cli.files.locks import Locks

_FORMAT = 1
_LOCKS = ".artifacts.locks"  # a file of its own: closing a file frees every lock that this process has on it


class Lockfile:
    """The file artifacts.lock in a folder, written or not.

    Args:
        folder: MAGNET_HOME, or a shared one.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "artifacts.lock"

    def seen(self, source: str) -> dict | None:
        """Return the record of the first download from a source (sha256, size, format, name, date), or None.

        Raises:
            ArtifactError: the file is damaged.
        """
        return self._read()["artifacts"].get(source)

    def record(self, source: str, fields: dict) -> dict:
        """Record the first download from a source, unless another process was first; return the record in force.

        Raises:
            ArtifactError: the file is damaged.
            MagnetError: it cannot be written.
        """
        with self._changing() as document:
            return document["artifacts"].setdefault(source, fields | {"date": _today()})

    def forget(self, source: str) -> bool:
        """Remove the record of a source, so that the next download is trusted; return False where there was none.

        Raises:
            ArtifactError: the file is damaged.
            MagnetError: it cannot be written.
        """
        if self.seen(source) is None:
            return False
        with self._changing() as fields:
            return fields["artifacts"].pop(source, None) is not None

    def accepts(self, text: str) -> bool:
        """Return whether the user has accepted a licence.

        Raises:
            ArtifactError: the file is damaged.
        """
        return text in self._read()["licenses"]

    def accept(self, text: str) -> None:
        """Remember that the user accepts a licence.

        Raises:
            ArtifactError: the file is damaged.
            MagnetError: it cannot be written.
        """
        if not self.accepts(text):
            with self._changing() as fields:
                fields["licenses"].setdefault(text, _today())

    def _read(self) -> dict:
        if not self.path.exists():
            return {"format": _FORMAT, "artifacts": {}, "licenses": {}}
        hint = f"restore {self.path} from a copy, or remove it: what nobody pinned is then trusted anew at its next use"
        try:
            fields = documents.read(self.path)
        except MagnetError as error:
            raise ArtifactError(error.message, hint) from error
        if fields.get("format") != _FORMAT or not all(
            isinstance(fields.get(k), dict) for k in ("artifacts", "licenses")
        ):
            message = f"{self.path} is of format {fields.get('format')}; this magnet reads {_FORMAT}"
            raise ArtifactError(message, hint)
        return fields

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict]:
        """Yield the fields, to be changed in the block; no other process changes them meanwhile."""
        atomic.make_folder(self.path.parent)
        with Locks(self.path.parent / _LOCKS).held(0):
            fields = self._read()
            yield fields
            atomic.publish(self.path, documents.encode(fields))


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
