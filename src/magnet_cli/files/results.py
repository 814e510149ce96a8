"""Folders of results, of every kind: begun, resumed, finished, checked, replaced.

While the work goes on, a folder holds `.NAME-started.json` with the spec of what it is going to be. `NAME.json`, the
document, is written last: a folder with a document is whole, and its document vouches for the other files by sha256.
Some kinds write the document first and fill in its report at the end. What the files show is not this module's concern.
"""

import dataclasses
import functools
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from magnet_cli import __version__
from magnet_cli.errors import SampleError
from magnet_cli.files import atomic, documents

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CHECKSUMS = "checksums.txt"
_STARTED = "-started.json"
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
            names = atomic.names(self.path)
        if not names:
            return None
        if not names & {self.kind.document, self.kind.started}:
            message = f"the {noun} cannot be written to {self.path}: it holds other files: {_first(names)}"
            raise SampleError(message, "pass another folder as `out`")
        fields = self.read() if self.kind.document in names else documents.read(self.started)
        refuse_other(self.path, noun, spec, fields["spec"], self.kind.remedy)
        return fields

    def read(self) -> dict:
        """Return the fields of the document.

        Raises:
            SampleError: the document is of another format.
            MagnetError: it is missing or damaged.
        """
        atomic.settle(self.path)
        fields = documents.read(self.document)
        check_format(self.path, self.kind, fields)
        return fields

    def begin(self, spec: "DataclassInstance") -> None:
        """Make the folder, and write into it what it is going to be.

        Raises:
            MagnetError: no space, no permission.
        """
        atomic.make_folder(self.path)
        atomic.publish(self.started, documents.encode({"spec": dataclasses.asdict(spec)}))

    def list_files(self, known: dict[str, str]) -> None:
        """Write checksums.txt, in the format of `sha256sum`.

        Args:
            known: sha256 of files that were written just now, by their names below the folder; others are read.

        Raises:
            MagnetError: no space, no permission.
        """
        names = sorted(known | dict.fromkeys(self._listed()))
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
        if "files" in self.kind.fields:
            hashes = document["files"]
        else:
            if not self.checksums.is_file() or documents.sha256_file(self.checksums) != document["checksums_sha256"]:
                return [f"{self.checksums} is missing or changed: the other files cannot be checked"]
            lines = self.checksums.read_text(encoding="utf-8", errors="replace").splitlines()
            hashes = {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}
        missing = [name for name in hashes if not (self.path / name).is_file()]
        problems = [f"{self.path / name} is missing" for name in missing]
        for name, sha256 in hashes.items():
            if name not in missing and documents.sha256_file(self.path / name) != sha256:
                problems.append(f"{self.path / name} was changed after it was written")
        return problems

    def discard(self) -> None:
        """Remove the folder, finished or not; a folder of anything else is left alone.

        Raises:
            SampleError: the folder holds files that none of its kind has.
            MagnetError: it cannot be removed.
        """
        if not self.path.exists():
            return
        marks = {self.kind.document, self.kind.started}
        with atomic.explained("remove", self.path):
            names = atomic.names(self.path) if self.path.is_dir() else {self.path.name}
            strange = set() if self.kind.names is None else names - self.kind.names - marks - {CHECKSUMS}
            if names and (strange or not names & marks):
                message = f"{self.path} holds files that no {self.kind.noun} has: {_first(strange or names)}"
                raise SampleError(
                    message, f"pass another folder as `out`; `force=True` replaces {self.kind.noun}s only"
                )
            shutil.rmtree(self.path)

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
