"""Folders that hold latents and scores, and latents in a file of their own.

Owns telling them apart and what each says of where it comes from. The files of scores are in `tables`.
"""

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from magnet_cli.editing.scored import tables
from magnet_cli.editing.scored.scored import (
    Attribute,
    Scored,
    check_scores,
    chosen,
    member,
    of_labels,
    of_probabilities,
)
from magnet_cli.errors import MagnetError, SampleError, SpecError
from magnet_cli.files import atomic, documents, npy, results
from magnet_cli.sampling.kinds import SAMPLE

_BLOCK = 1 << 20  # probabilities looked at at a time
_IMAGE = re.compile(r"(images|arrays)/\w[\w.-]*\.\w+")  # files of a sample, as metadata.jsonl names them
_OF_DRAWS = {"models": list, "keys": list, "n": int, "generator": str, "sha256": str, "truncation": float}
_UNFIT = (KeyError, TypeError, ValueError, AttributeError, RecursionError)  # what documents of a stranger may lead to
_TAKES = "pass the folder of `magnet attributes`, a sample it was run on, or latents.npy with --scores FILE"


def open_path(path: Path, scores: Path | None, names: tuple[str, ...], cuts: dict[str, str]) -> Scored:
    """As `scored.open_scored`."""
    if path.is_file():
        return _latents(path, scores, names, cuts)
    if scores is not None:
        message = f"--scores are for latents in a file, and {path} is {'a folder' if path.exists() else 'not there'}"
        raise SampleError(message, f"leave it out, or pass the file: {path / 'latents.npy'}")
    atomic.settle(path)
    if (path / "attributes.json").is_file():
        return _scored_draws(path, names, cuts)
    if (path / "sample.json").is_file():
        return _sample(path, names, cuts)
    begun = results.unfinished(path) in {"attributes", "sample"}
    found = "is not finished" if begun else "holds neither" if path.is_dir() else "is not there"
    message = f"scored latents are asked for, attributes.json or sample.json in a folder, and {path} {found}"
    raise SampleError(message, "run the command again that began it" if begun else _TAKES)


def _scored_draws(path: Path, names: tuple[str, ...], cuts: dict[str, str]) -> Scored:
    """The folder of `magnet attributes GENERATOR`."""
    fields = documents.read(path / "attributes.json")
    spec, sums = fields.get("spec"), fields.get("files")
    known = isinstance(spec, dict) and isinstance(sums, dict) and spec.keys() >= _OF_DRAWS.keys()
    if not known or not all(isinstance(spec[name], kind) for name, kind in _OF_DRAWS.items()):
        message = f"{path} holds attributes of format {fields.get('format')}, which this magnet does not read"
        raise SampleError(message, "use the magnet that made it, or score again into another folder with --out")
    latents = _open(path / "latents.npy", spec["n"])
    labels = np.asarray(_open(path / "labels.npy", spec["n"])) if "labels.npy" in sums else None
    attributes = {}
    with _archive(path / "scores.npz") as archive:
        for name in chosen(names, spec["models"], path):
            attributes[name] = _of_archive(archive, name, spec["n"], cuts.get(name), str(path / "scores.npz"))
    models = {name: {"key": key} for name, key in zip(spec["models"], spec["keys"], strict=False)}
    source = documents.sha256_bytes(documents.canonical({"files": sums}))
    where = (spec["generator"], spec["sha256"], spec["truncation"])
    return Scored(path, latents, attributes, source, labels, "attributes", *where, models=models)


def _sample(path: Path, names: tuple[str, ...], cuts: dict[str, str]) -> Scored:
    """A sample whose metadata.jsonl has attributes."""
    fields = results.ResultFolder(path, SAMPLE).read()
    known = fields.get("attributes", {})
    if not known:
        message = f"{path} is a sample without attributes"
        raise SampleError(message, f"score it first: magnet attributes {path} --model NAME")
    with atomic.explained("read", path):
        data = (path / "metadata.jsonl").read_bytes()
    asked = chosen(names, list(known), path)
    try:
        records = tuple(json.loads(line) for line in data.splitlines())
        held = [str(record.get("file_name", "images/0.png")) for record in records]
        if strange := next((name for name in held if not _IMAGE.fullmatch(name)), None):
            raise ValueError(strange)  # copies are named after it
        attributes = {name: _of_records(name, tuple(known[name]["shares"]), records, cuts.get(name)) for name in asked}
        spec = fields["spec"]
        where = (str(spec.get("generator", "")), str(spec.get("sha256", "")), float(spec.get("truncation", 1.0)))
        fingerprint, models = str(spec.get("fingerprint", "")), {n: _model(known[n]) for n in known}
    except _UNFIT as error:
        message = f"{path / 'metadata.jsonl'} is not as magnet writes it: {' '.join(str(error).split())[:200]}"
        raise SampleError(message, f"look at it with `magnet info {path} --check`, and draw it again") from error
    latents = _open(path / "latents.npy", len(records))
    labels = np.asarray(_open(path / "labels.npy", len(records))) if (path / "labels.npy").is_file() else None
    source = documents.sha256_bytes(data + fields["checksums_sha256"].encode())
    balanced = "balance" in fields
    return Scored(
        path, latents, attributes, source, labels, "sample", *where, fingerprint, records, balanced, models=models
    )


def _of_records(name: str, classes: tuple[str, ...], records: tuple[dict, ...], cut: str | None) -> Attribute:
    numbers = {each: i for i, each in enumerate(classes)}
    found = np.array([numbers[record[name]] for record in records], np.int32)
    sure = np.array([record[f"{name}_probability"] for record in records], np.float64)
    check_scores(sure, name, 0, "metadata.jsonl")
    return of_labels(name, classes, found, sure, cut)


def _model(known: dict) -> dict:
    return {field: known[field] for field in ("sha256", "key") if field in known}


def _latents(path: Path, scores: Path | None, names: tuple[str, ...], cuts: dict[str, str]) -> Scored:
    """Latents in a file, their scores in another."""
    if scores is None:
        message = f"{path} holds latents alone, and scores are asked for"
        raise SampleError(message, "pass their file: --scores scores_dict.npy, or .npz, .csv, .jsonl")
    latents = npy.latents(path)
    if scores.suffix == ".npz":
        attributes = _all_of_archive(scores, names, len(latents), cuts)
    else:
        attributes = tables.read(scores, names, len(latents), cuts)
    source = documents.sha256_bytes(f"{documents.sha256_file(path)}{documents.sha256_file(scores)}".encode())
    return Scored(path, latents, attributes, source)


def _all_of_archive(path: Path, names: tuple[str, ...], num_rows: int, cuts: dict[str, str]) -> dict[str, Attribute]:
    with _archive(path) as archive:
        held = {name.removesuffix(".npy") for name in archive.namelist()}
        known = sorted(name for name in held if f"{name}_classes" in held)
        if not known:
            message = f"{path} holds {', '.join(sorted(held)[:5]) or 'nothing'}, and no NAME with NAME_classes"
            raise SpecError(message, "pass the scores.npz of `magnet attributes`, or a .npy, .csv or .jsonl")
        return {
            name: _of_archive(archive, name, num_rows, cuts.get(name), str(path)) for name in chosen(names, known, path)
        }


def _archive(path: Path) -> zipfile.ZipFile:
    with atomic.explained("read", path):
        try:
            return zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            message = f"{path} is damaged: {error}"
            raise MagnetError(message, "restore it from a copy, or make it again") from error


def _of_archive(archive: zipfile.ZipFile, name: str, num_rows: int, cut: str | None, where: str) -> Attribute:
    """An attribute of scores.npz, its probabilities read block by block."""
    try:
        with archive.open(f"{member(name)}_classes.npy") as file:
            classes = tuple(str(each) for each in np.lib.format.read_array(file, allow_pickle=False))
        with archive.open(f"{member(name)}.npy") as file:
            blocks = _blocks(file, len(classes))
            return of_probabilities(name, classes, blocks, num_rows, cut, where)
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        message = f"{where} is damaged: {name} cannot be read ({' '.join(str(error).split())})"
        raise MagnetError(message, "restore it from a copy, or make it again") from error


def _blocks(file: zipfile.ZipExtFile, num_classes: int) -> Iterator[np.ndarray]:
    """The rows of an array [N, C] of floating numbers in an archive, whose CRC is checked on the way."""
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = header(file)
    if dtype.kind != "f" or fortran or len(shape) != 2 or shape[1] != num_classes:
        message = f"{dtype} of shape {list(shape)}, and a probability for each of {num_classes} classes is asked for"
        raise ValueError(message)
    rows = max(1, _BLOCK // num_classes)
    for start in range(0, shape[0], rows):
        here = min(rows, shape[0] - start)
        data = file.read(here * num_classes * dtype.itemsize)
        yield np.frombuffer(data, dtype).reshape(here, num_classes)
    file.read()  # to the end, so that the CRC is looked at


def _open(path: Path, num_rows: int) -> np.ndarray:
    """An array of a folder of ours, not yet read, of so many rows."""
    hint = "restore it from a copy, or make the folder again"
    try:
        with atomic.explained("read", path):
            found = np.lib.format.open_memmap(path, mode="r")
    except npy.DAMAGED as error:
        message = f"{path} is damaged: {' '.join(str(error).split()) or type(error).__name__}"
        raise MagnetError(message, hint) from error
    if found.ndim == 0 or len(found) != num_rows:
        message = f"{num_rows:,} rows are asked for, and {path} holds {found.shape[0] if found.ndim else 'one number'}"
        raise MagnetError(message, hint)
    return found
