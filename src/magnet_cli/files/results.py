"""Folders of results, of every kind: begun, resumed, finished, checked, replaced.

While the work goes on, a folder holds `.NAME-started.json` with the spec of what it is going to be. `NAME.json`, the
document, is written last: a folder with a document is whole, and its document vouches for the other files by sha256.
Some kinds write the document first and fill in its report at the end. A folder has one writer at a time, who holds its
lock; others are told. What the files show is not this module's concern.
"""

import contextlib
import dataclasses
import functools
import os
import platform
import shutil
import sys
import time
from collections.abc import Generator as Steps
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from magnet_cli import __version__
from magnet_cli.errors import SampleError
from magnet_cli.files import atomic, documents, opening
from magnet_cli.files.locks import FileLock

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CHECKSUMS = "checksums.txt"
_STARTED = "-started.json"
_LOCK, _REMOVING = ".lock", ".removing"
_PAUSE = 0.05  # seconds between two looks at a lock
_WITH_CHECKSUMS = {"report": dict, "checksums_sha256": str}


@dataclass(frozen=True)
class Kind:
    """What distinguishes one kind of folder from another.

    Attributes:
        name: stem of the document's file name, "sample" for sample.json.
        format: number of the layout.
        names: files and folders that such a folder may hold besides the document and checksums.txt; None for any.
        apart: those of these folders that are not listed in checksums.txt, since they have checksums of their own.
        noun: what messages call it; `name` unless another is passed.
        fields: types of the fields of a document besides "format" and "spec". With "checksums_sha256" the folder has
            a checksums.txt; with "files" the document itself holds the sha256 of each file.
        early: the document is written when the work begins, and its report is null until the work is finished.
        remedy: what to do where results of another spec are in the folder.
    """

    name: str
    format: int
    names: frozenset[str] | None = None
    apart: frozenset[str] = frozenset()
    noun: str = ""
    fields: Mapping[str, type | tuple[type, ...]] = field(default_factory=lambda: _WITH_CHECKSUMS, hash=False)
    early: bool = False
    remedy: str = "pass another folder as `out`, or `force=True` to replace it"

    def __post_init__(self) -> None:
        """Take the name for the noun where no noun is passed."""
        object.__setattr__(self, "noun", self.noun or self.name)

    @property
    def document(self) -> str:
        """Name of the file that makes a folder whole."""
        return f"{self.name}.json"

    @property
    def started(self) -> str:
        """Name of the file that says what a folder is going to be."""
        return self.document if self.early else f".{self.name}{_STARTED}"


class ResultFolder:
    """One folder of results, there or not.

    Attributes:
        path: the folder.
        kind: its kind.
        document: path of the document.
        started: path of the file that says what the folder is going to be.
        checksums: path of checksums.txt, for the kinds that have one.
    """

    def __init__(self, path: Path, kind: Kind) -> None:
        self.path, self.kind = path, kind
        self.document, self.started = path / kind.document, path / kind.started
        self.checksums = path / CHECKSUMS

    def finished(self, spec: "DataclassInstance") -> dict | None:
        """Return the report of the finished work, or None where the work is not finished or not begun.

        Raises:
            SampleError: the folder holds the results of another spec (every differing field is named), or other files.
            MagnetError: the document is damaged.
        """
        return (self._stored(spec) or {}).get("report")

    def begun(self, spec: "DataclassInstance") -> bool:
        """Return whether the folder holds the work of `spec`, finished or not.

        Raises:
            SampleError, MagnetError: as `finished`.
        """
        return self._stored(spec) is not None

    def _stored(self, spec: "DataclassInstance") -> dict | None:
        """Return the fields of the document, or of the started file; None where the folder is empty or missing."""
        noun = self.kind.noun
        with atomic.explained("read", self.path):
            if not self.path.exists():
                return None
            if not self.path.is_dir():
                message = f"the {noun} cannot be written to {self.path}: it is a file"
                raise SampleError(message, "pass another folder as `out`")
            names = atomic.names(self.path) - {_LOCK}
        if not names or _REMOVING in names:
            return None
        if not names & {self.kind.document, self.kind.started}:
            message = f"the {noun} cannot be written to {self.path}: it holds other files: {_first(names)}"
            raise SampleError(message, "pass another folder as `out`")
        opening.refuse_links_in(self.path)
        fields = self.read() if self.kind.document in names else documents.read(self.started)
        refuse_other(self.path, noun, spec, fields["spec"], self.kind.remedy)
        return fields

    def read(self) -> dict:
        """Return the fields of the document.

        Raises:
            SampleError: the document is of another format.
            MagnetError: it is missing or damaged.
        """
        opening.refuse_links_in(self.path)
        atomic.settle(self.path)
        fields = documents.read(self.document)
        check_format(self.path, self.kind, fields)
        return fields

    @contextlib.contextmanager
    def writing(self, spec: "DataclassInstance", *, force: bool = False) -> Iterator[dict | None]:
        """Hold the folder for the block as its only writer; yield the report where the work was finished meanwhile.

        What was there stays until the block calls `discard` or `begin`; where it does not, nothing is left behind.

        Raises:
            SampleError: another process is at work on the folder; or as `finished`, unless it is to be replaced.
            MagnetError: no space, no permission.
        """
        made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        lock = FileLock(self.path / _LOCK)
        if not lock.take():
            raise self._busy()
        try:
            yield None if force else self.finished(spec)
        finally:
            lock.free()
            with contextlib.suppress(OSError):  # not empty
                for path in made:
                    path.rmdir()

    def write(
        self, spec: "DataclassInstance", steps: Steps[int, None, dict], *, force: bool = False
    ) -> Steps[int, None, dict]:
        """Hold the folder, begin it, anew with `force`, and take the steps that write it; return the report.

        Raises:
            SampleError, MagnetError: as `writing` and `begin`.
        """
        with self.writing(spec, force=force) as done:
            if done:
                return done
            if force:
                self.discard()
            self.begin(spec)
            return (yield from steps)

    @contextlib.contextmanager
    def changing(self) -> Iterator[dict]:
        """Hold a finished folder for the block; yield its document. Others who change it are waited for.

        Raises:
            SampleError: another process is writing the folder anew.
            MagnetError: the document is missing or damaged.
        """
        lock = FileLock(self.path / _LOCK)
        while not lock.take():
            if not self.document.exists():
                raise self._busy()
            time.sleep(_PAUSE)
        try:
            yield self.read()
        finally:
            lock.free()

    def _busy(self) -> SampleError:
        message = f"another process is writing the {self.kind.noun} {self.path}"
        return SampleError(message, "wait for it, then repeat the command; or pass another folder as `out`")

    def begin(self, spec: "DataclassInstance") -> None:
        """Make the folder, and write into it what it is going to be, unless that is begun.

        Raises:
            SampleError: as `finished`, or as `discard`.
            MagnetError: no space, no permission.
        """
        if not self.begun(spec):
            self.discard()
        atomic.make_folder(self.path)
        atomic.publish(self.started, documents.encode({"spec": dataclasses.asdict(spec)}))

    def list_files(self, known: dict[str, str]) -> None:
        """Write checksums.txt, in the format of `sha256sum`.

        Args:
            known: sha256 of files that were written just now, by their names below the folder; others are read, except
                in the folders of these: what else is there was put there by others.

        Raises:
            MagnetError: no space, no permission.
        """
        ours = {name.rpartition("/")[0] for name in known}
        names = sorted([*known, *(name for name in self._listed() if name.rpartition("/")[0] not in ours)])
        sums = "".join(f"{known.get(name) or documents.sha256_file(self.path / name)}  {name}\n" for name in names)
        atomic.publish(self.checksums, sums.encode())

    def finish(self, fields: dict) -> None:
        """Write the document: from now on the folder is whole, and survives a power cut.

        Args:
            fields: the document's fields, "spec" and "report" among them, besides format, hash of checksums and time.

        Raises:
            MagnetError: no space, no permission.
        """
        if "checksums_sha256" in self.kind.fields:
            atomic.sync_all(self.path, [*self._listed(), CHECKSUMS])
            fields = fields | {"checksums_sha256": documents.sha256_file(self.checksums)}
        self.publish(fields | {"created": now()})
        if not self.kind.early:
            self.started.unlink(missing_ok=True)

    def publish(self, fields: dict, *, replace: bool = True) -> None:
        """Write the document as it is to be; `replace` as for `atomic.publish`.

        Raises:
            MagnetError: no space, no permission.
        """
        atomic.publish(self.document, documents.encode({"format": self.kind.format} | fields), replace=replace)

    def check(self) -> list[str]:
        """Read every byte of a finished folder; return a sentence on each problem.

        Raises:
            MagnetError: the document is damaged.
        """
        document = self.read()
        try:
            hashes = self._hashes(document)
        except SampleError as error:
            return [error.message]
        return [problem for name in hashes if (problem := self._problem(name, hashes))] + self._strays(hashes)

    def verify(self, *names: str) -> dict[str, str]:
        """Check that files are as they were written, those that are listed; return the sha256 of all by name.

        Raises:
            SampleError: one is missing or changed.
            MagnetError: the document is damaged, or a file cannot be read.
        """
        hashes = self._hashes(self.read())
        for name in names:
            if name in hashes and (problem := self._problem(name, hashes)):
                message = f"{problem}: {self.path} is not as it was made"
                raise SampleError(message, f"restore it from a copy, or make it again; or {self.kind.remedy}")
        return hashes

    def _hashes(self, document: dict) -> dict[str, str]:
        """Return the sha256 of the files by name."""
        if "files" in self.kind.fields:
            return document["files"]
        data = opening.read(self.checksums, self.path) if self.checksums.is_file() else b""
        if documents.sha256_bytes(data) != document["checksums_sha256"]:
            message = f"{self.checksums} is missing or changed: the other files cannot be checked"
            raise SampleError(message, "restore it from a copy, or make it again")
        lines = data.decode(errors="replace").splitlines()
        return {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}

    def _problem(self, name: str, hashes: dict[str, str]) -> str:
        if not (self.path / name).is_file():
            return f"{self.path / name} is missing"
        changed = documents.sha256_file(self.path / name, self.path) != hashes[name]
        return f"{self.path / name} was changed after it was written" * changed

    def _strays(self, hashes: dict[str, str]) -> list[str]:
        """Return a sentence on each file in the folders of this kind that was put there by others."""
        ours = {name.partition("/")[0] for name in hashes if "/" in name}
        strays = [name for name in self._listed() if name not in hashes and name.partition("/")[0] in ours]
        return [f"{self.path / name} is not of the {self.kind.noun}: it was put there later" for name in strays]

    def discard(self) -> None:
        """Empty the folder, finished or not; a folder of anything else is left alone.

        Raises:
            SampleError: the folder holds files that none of its kind has.
            MagnetError: it cannot be removed.
        """
        if not self.path.exists():
            return
        marks = {self.kind.document, self.kind.started, _REMOVING}
        known = marks | {CHECKSUMS, atomic.REPLACING}
        with atomic.explained("remove", self.path):
            names = (atomic.names(self.path) if self.path.is_dir() else {self.path.name}) - {_LOCK}
            strange = set() if self.kind.names is None else names - self.kind.names - known
            if names and (strange or not names & marks):
                message = f"{self.path} holds files that no {self.kind.noun} has: {_first(strange or names)}"
                raise SampleError(
                    message, f"pass another folder as `out`; `force=True` replaces {self.kind.noun}s only"
                )
            if not names:
                return
            atomic.publish(self.path / _REMOVING, b"")  # a removal that is stopped goes on, whatever is left
            for path in sorted(self.path.iterdir(), key=lambda path: path != self.document):
                if path.name not in {_LOCK, _REMOVING}:
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            (self.path / _REMOVING).unlink()

    def _listed(self) -> list[str]:
        """Return the names of the files that checksums.txt lists."""
        listed = []
        for folder, inner, names in os.walk(self.path):
            apart = self.kind.apart if Path(folder) == self.path else ()
            inner[:] = [name for name in inner if name not in apart and not name.startswith(".")]
            below = Path(folder).relative_to(self.path).as_posix()
            listed += [name if below == "." else f"{below}/{name}" for name in names if not name.startswith(".")]
        return sorted(set(listed) - {CHECKSUMS, self.kind.document})


def unfinished(path: Path) -> str | None:
    """Return the name of the kind of results that were begun in a folder and not finished; None where none were."""
    names = sorted(p.name[1 : -len(_STARTED)] for p in path.glob(f".*{_STARTED}"))
    return next((name for name in names if not (path / f"{name}.json").exists()), None)


def check_format(path: Path, kind: Kind, fields: dict) -> None:
    """Check that a document is one this magnet reads.

    Raises:
        SampleError: the format is another one, or a field is missing or of another type.
    """
    types = {"spec": dict, **kind.fields}
    if fields.get("format") == kind.format and all(isinstance(fields.get(name), t) for name, t in types.items()):
        return
    message = f"{path} is a {kind.noun} of format {fields.get('format')}; "
    message += f"this magnet ({__version__}) reads {kind.format}"
    raise SampleError(message, f"use the magnet that made it, or {kind.remedy}")


def refuse_other(path: Path, noun: str, spec: "DataclassInstance", stored: dict, hint: str) -> None:
    """Check that results are those of a spec.

    Fields that `stored` lacks, since an earlier magnet wrote it, have their defaults. Fields with `compare=False`
    are not compared; the fields of a spec within a spec are.

    Args:
        path: where the results are.
        noun: what they are called.
        spec: the spec of the results that are asked for.
        stored: the fields of the spec of those that are there.
        hint: what to do where they differ.

    Raises:
        SampleError: they differ; every differing field is named.
    """
    asked = _flat(spec)
    inner = (fields for fields in stored.values() if isinstance(fields, dict))
    stored = functools.reduce(dict.__or__, inner, _defaults(spec) | stored)
    if differing := [name for name in asked if asked[name] != stored.get(name)]:
        listed = ", ".join(f"{name} {stored.get(name)} (asked {asked[name]})" for name in differing)
        raise SampleError(f"{path} holds another {noun}: {listed}", hint)


def versions() -> dict[str, str]:
    """Return the versions of the programs that the numbers in a folder depend on."""
    return {
        "magnet": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": f"{sys.platform}-{platform.machine()}",
    }


def now() -> str:
    """Return the time as documents hold it: ISO 8601, UTC, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _flat(spec: "DataclassInstance") -> dict:
    """Return the compared fields as JSON gives them back, those of a spec within the spec beside the others."""
    fields: dict = {}
    for each in dataclasses.fields(spec):
        value = getattr(spec, each.name)
        if dataclasses.is_dataclass(value):
            fields |= _flat(cast("DataclassInstance", value))
        elif each.compare:
            fields[each.name] = list(value) if isinstance(value, tuple) else value
    return fields


def _defaults(spec: "DataclassInstance") -> dict:
    defaults: dict = {}
    for each in dataclasses.fields(spec):
        value = getattr(spec, each.name)
        if dataclasses.is_dataclass(value):
            defaults |= _defaults(cast("DataclassInstance", value))
        elif each.default is not dataclasses.MISSING:
            defaults[each.name] = list(each.default) if isinstance(each.default, tuple) else each.default
    return defaults


def _first(names: set[str]) -> str:
    return ", ".join(sorted(names)[:3])
