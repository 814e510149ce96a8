"""Scored latents: a folder of `magnet attributes GENERATOR`, a sample with attributes, or latents and scores in files.

Nothing in a file is run as code. Files of scores from elsewhere are read in `tables`.
"""

import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from magnet_cli.catalog import references
from magnet_cli.editing.scored import tables
from magnet_cli.editing.scored.attribute import Attribute, check_scores, from_labels, from_probabilities, select_names
from magnet_cli.errors import MagnetError, SampleError, SpecError
from magnet_cli.files import atomic, documents, npy, npz, opening, results
from magnet_cli.files.scores import member_name
from magnet_cli.files.text import quoted
from magnet_cli.sampling.kinds import SAMPLE

_BLOCK = 1 << 20  # probabilities read at a time
_IMAGE = re.compile(r"(images|arrays)/\w[\w.-]*\.\w+")  # files of a sample, as metadata.jsonl names them
_SPEC_FIELDS = {"models": list, "keys": list, "n": int, "generator": str, "sha256": str, "truncation": float}
_INVALID = (KeyError, TypeError, ValueError, AttributeError, RecursionError)  # what an invalid document may raise
_SOURCES = "pass the folder of `magnet attributes`, a sample that it was run on, or latents.npy with `scores`"
_RESTORE = "restore it from a copy, or make it again"


@dataclass(frozen=True)
class ScoredLatents:
    """Latents [N, D] floating, mapped from the file, with their attributes, and where they come from.

    `source` is the sha256 of latents and scores, `kind` "attributes" (a folder of scores), "sample" or "latents"
    (files). Generator, its sha256 and the fingerprint of a sample's volume are "" where unknown. `records` are the
    lines of a sample's metadata.jsonl; `balanced` says that `magnet balance` wrote it. `models` holds what the source
    records about the model of each attribute; `reference` is how the command had a generator of the user's own, for a
    command to copy.
    """

    path: Path
    latents: np.ndarray
    attributes: dict[str, Attribute]
    source: str
    labels: np.ndarray | None = None
    kind: str = "latents"
    generator: str = ""
    sha256: str = ""
    truncation: float = 1.0
    fingerprint: str = ""
    records: tuple[dict, ...] = ()
    balanced: bool = False
    models: dict[str, dict] = field(default_factory=dict)
    reference: str = ""

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def name(self) -> str:
        """Name of the folder, or of the file without its ending."""
        path = self.path.resolve()
        return path.stem if path.is_file() else path.name

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Return the latents [n, D] float32 at row indices [n]."""
        latents = np.asarray(self.latents[indices], dtype=np.float32)
        finite = np.isfinite(latents).all(axis=1)
        if not finite.all():
            raise SpecError(
                f"latents have to be finite, and row {indices[np.argmin(finite)]} of {self.path} is not",
                "rows count from 0; make the folder again, or remove that row",
            )
        return latents

    def labels_of(self, indices: np.ndarray) -> np.ndarray | None:
        """Return the labels [n] at row indices [n], or None."""
        return None if self.labels is None else self.labels[indices]


def open_scored(
    path: Path, scores: Path | None = None, attributes: tuple[str, ...] = (), cuts: dict[str, str] | None = None
) -> ScoredLatents:
    """Open latents with their attributes, or those that are named.

    The path is a folder of `magnet attributes GENERATOR`, a sample with attributes, or an NPY file of latents [N, D],
    for which `scores` is NPY (a dictionary, as published), NPZ, CSV or JSON lines. `cuts` reduces attributes to two
    classes: those before the class that is named, and those from it on.
    """
    cuts = cuts or {}
    if unused := [name for name in cuts if attributes and name not in attributes]:
        raise SpecError(
            f"{unused[0]} is to be cut, and the attributes requested are {', '.join(attributes)}",
            f"add it to `attributes`, or leave {unused[0]} out of `cut`",
        )
    if path.is_file():
        return _open_files(path, scores, attributes, cuts)
    if scores is not None:
        raise SampleError(
            f"`scores` belong to latents in a file, and {path} is {'a folder' if path.exists() else 'not there'}",
            f"leave `scores` out, or pass the file: {path / 'latents.npy'}",
        )
    atomic.settle(path)
    if (path / "attributes.json").is_file():
        return _open_attributes(path, attributes, cuts)
    if (path / "sample.json").is_file():
        return _open_sample(path, attributes, cuts)
    begun = results.unfinished(path) in {"attributes", "sample"}
    problem = "is not finished" if begun else "holds neither" if path.is_dir() else "is not there"
    raise SampleError(
        f"scored latents are a folder with attributes.json or sample.json, and {path} {problem}",
        "repeat the command that began it" if begun else _SOURCES,
    )


def _open_attributes(path: Path, names: tuple[str, ...], cuts: dict[str, str]) -> ScoredLatents:
    fields = documents.read(path / "attributes.json")
    spec, sums = fields.get("spec"), fields.get("files")
    if (
        not isinstance(spec, dict)
        or not isinstance(sums, dict)
        or not all(isinstance(spec.get(name), kind) for name, kind in _SPEC_FIELDS.items())
    ):
        raise SampleError(
            f"{path} holds attributes of format {fields.get('format')}, which this magnet does not read",
            "use the magnet that made it, or score again into another folder: pass `out`",
        )
    for name in ("latents.npy", "labels.npy", "scores.npz"):
        if name in sums and documents.sha256_file(path / name) != sums[name]:
            raise MagnetError(f"{path / name} was changed after it was written", _RESTORE)
    latents = _open_array(path / "latents.npy", spec["n"])
    labels = np.asarray(_open_array(path / "labels.npy", spec["n"])) if "labels.npy" in sums else None
    file = path / "scores.npz"
    with _open_archive(file, path) as archive:
        attributes = {
            name: _from_archive(archive, name, spec["n"], cuts.get(name), str(file))
            for name in select_names(names, spec["models"], path)
        }
    source = documents.sha256_bytes(documents.canonical({"files": sums}))
    origin = {name: spec[name] for name in ("generator", "sha256", "truncation")}
    models = {name: {"key": key} for name, key in zip(spec["models"], spec["keys"], strict=False)}
    return ScoredLatents(
        path,
        latents,
        attributes,
        source,
        labels,
        "attributes",
        **origin,
        models=models,
        reference=_typed(fields, origin),
    )


def _open_sample(path: Path, names: tuple[str, ...], cuts: dict[str, str]) -> ScoredLatents:
    fields = results.ResultFolder(path, SAMPLE).read()
    scored = fields.get("attributes", {})
    if not scored:
        raise SampleError(
            f"{path} is a sample without attributes", f"score it first: magnet attributes {quoted(path)} --model NAME"
        )
    data = opening.read(path / "metadata.jsonl", path)
    selected = select_names(names, list(scored), path)
    try:
        records = tuple(json.loads(line) for line in data.splitlines())
        images = [str(record.get("file_name", "images/0.png")) for record in records]
        if invalid := next((name for name in images if not _IMAGE.fullmatch(name)), None):
            raise ValueError(invalid)  # copies get these names
        attributes = {n: _from_records(n, tuple(scored[n]["shares"]), records, cuts.get(n)) for n in selected}
        spec = fields["spec"]
        origin: dict[str, Any] = {name: str(spec.get(name, "")) for name in ("generator", "sha256", "fingerprint")}
        origin |= {"truncation": float(spec.get("truncation", 1.0)), "balanced": "balance" in fields}
        models = {n: {key: about[key] for key in ("sha256", "key") if key in about} for n, about in scored.items()}
    except _INVALID as error:
        raise SampleError(
            f"{path / 'metadata.jsonl'} is not as magnet writes it: {' '.join(str(error).split())[:200]}",
            f"check it with `magnet info {quoted(path)} --check`, and draw it again",
        ) from error
    results.ResultFolder(path, SAMPLE).verify("latents.npy", "labels.npy", "metadata.jsonl")
    latents = _open_array(path / "latents.npy", len(records))
    labels = np.asarray(_open_array(path / "labels.npy", len(records))) if (path / "labels.npy").is_file() else None
    source = documents.sha256_bytes(data + fields["checksums_sha256"].encode())
    return ScoredLatents(
        path,
        latents,
        attributes,
        source,
        labels,
        "sample",
        **origin,
        records=records,
        models=models,
        reference=_typed(fields, origin),
    )


def _typed(fields: dict, origin: dict) -> str:
    command = fields.get("command")
    words = [word for word in command if isinstance(word, str)] if isinstance(command, list) else []
    return references.typed(words, origin["generator"])


def _from_records(name: str, classes: tuple[str, ...], records: tuple[dict, ...], cut: str | None) -> Attribute:
    index = {each: i for i, each in enumerate(classes)}
    labels = np.array([index[record[name]] for record in records], np.int32)
    probability = np.array([record[f"{name}_probability"] for record in records], np.float64)
    check_scores(probability, name, 0, "metadata.jsonl")
    return from_labels(name, classes, labels, probability, cut)


def _open_files(path: Path, scores: Path | None, names: tuple[str, ...], cuts: dict[str, str]) -> ScoredLatents:
    if scores is None:
        raise SampleError(
            f"{path} holds latents without scores",
            "pass the file of scores: `scores='scores_dict.npy'`, or .npz, .csv, .jsonl",
        )
    latents = npy.latents(path)
    read = _read_archive if scores.suffix == ".npz" else tables.read
    attributes = read(scores, names, len(latents), cuts)
    source = documents.sha256_bytes(f"{documents.sha256_file(path)}{documents.sha256_file(scores)}".encode())
    return ScoredLatents(path, latents, attributes, source)


def _read_archive(path: Path, names: tuple[str, ...], num_rows: int, cuts: dict[str, str]) -> dict[str, Attribute]:
    with _open_archive(path) as archive:
        members = {name.removesuffix(".npy") for name in archive.namelist()}
        scored = sorted(name for name in members if f"{name}_classes" in members)
        if not scored:
            raise SpecError(
                f"{path} holds {', '.join(sorted(members)[:5]) or 'nothing'}, and no NAME with NAME_classes",
                "pass the scores.npz of `magnet attributes`, or a .npy, .csv or .jsonl",
            )
        return {
            name: _from_archive(archive, name, num_rows, cuts.get(name), str(path))
            for name in select_names(names, scored, path)
        }


def _open_archive(path: Path, below: Path | None = None) -> zipfile.ZipFile:
    with opening.opened(path, below):
        try:
            return zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise MagnetError(f"{path} is damaged: {error}", _RESTORE) from error


def _from_archive(archive: zipfile.ZipFile, name: str, num_rows: int, cut: str | None, source: str) -> Attribute:
    try:
        with archive.open(f"{member_name(name)}_classes.npy") as file:
            classes = tuple(str(each) for each in np.lib.format.read_array(file, allow_pickle=False))
        with archive.open(f"{member_name(name)}.npy") as file:
            return from_probabilities(name, classes, _blocks(file, len(classes)), num_rows, cut, source)
    except (KeyError, *npz.DAMAGED) as error:
        text = " ".join(str(error).split())
        raise MagnetError(f"{source} is damaged: {name} cannot be read ({text})", _RESTORE) from error


def _blocks(file: IO[bytes], num_classes: int) -> Iterator[np.ndarray]:
    """Yield the rows of an array [N, C] in blocks; reading to the end checks the CRC."""
    header = npz.read_header(file)
    shape, dtype = header.shape, header.dtype
    if dtype.kind != "f" or header.fortran or len(shape) != 2 or shape[1] != num_classes:
        raise ValueError(f"{dtype} of shape {list(shape)} in the place of probabilities of {num_classes} classes")
    yield from npz.read_blocks(file, shape[0], num_classes, dtype, max(1, _BLOCK // num_classes))


def _open_array(path: Path, num_rows: int) -> np.ndarray:
    try:
        array = npy.opened(path, path.parent)
    except npy.DAMAGED as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise MagnetError(f"{path} is damaged: {text}", _RESTORE) from error
    if array.ndim == 0 or len(array) != num_rows:
        raise MagnetError(
            f"{path} has to hold {num_rows:,} rows, and holds {array.shape[0] if array.ndim else 'one number'}",
            _RESTORE,
        )
    return array
