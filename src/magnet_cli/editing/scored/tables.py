"""Files of scores made elsewhere: NPY dictionaries as published, CSV, JSON lines.

A column of numbers is a score in [0, 1], a column of text names classes. A dictionary in an NPY file is pickled: it is
read as data, and nothing in it is run.
"""

import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from pickle import UnpicklingError

import numpy as np

from magnet_cli.editing.scored.attribute import (
    Attribute,
    check_length,
    check_scores,
    from_labels,
    from_probabilities,
    select_names,
)
from magnet_cli.errors import SpecError
from magnet_cli.files import npy, opening

_FORMATS = "pass a NPY dictionary of arrays [N], as published; CSV with a header; or JSON lines, an object a latent"
_MAX_CLASSES = 1000  # of a column of text: more are names of rows


def read(path: Path, names: tuple[str, ...], num_rows: int, cuts: dict[str, str]) -> dict[str, Attribute]:
    """Read the attributes in a file of scores, .npy, .csv or .jsonl; names may be () for all of a dictionary."""
    if path.suffix == ".npy":
        return _read_dictionary(path, names, num_rows, cuts)
    if path.suffix not in {".csv", ".jsonl"}:
        raise SpecError(f"a file of scores is needed, and {path} ends in {path.suffix or 'nothing'!r}", _FORMATS)
    if not names:
        raise SpecError(
            f"{path} may hold columns that are no attributes, and none are named", "name the columns in `attributes`"
        )
    columns, count = _columns(path, names)
    for name in names:
        check_length(count, num_rows, name, str(path))
    return {name: _from_column(name, columns, path, cuts.get(name)) for name in names}


def _columns(path: Path, names: tuple[str, ...]) -> tuple[dict[str, list], int]:
    """Return the cells of the columns, those of probabilities included, and the number of rows."""
    optional = {f"{name}_probability" for name in names}
    columns: dict[str, list] = defaultdict(list)
    count, header = 0, list[str]()
    for record in _records(path):
        count += 1
        header = header or list(record)
        for name in {*names, *(optional & record.keys())}:
            columns[name].append(record.get(name))
    select_names(names, header, path)
    return columns, count


def _records(path: Path) -> Iterator[dict]:
    with opening.opened(path) as binary, io.TextIOWrapper(binary, "utf-8-sig", newline="") as file:
        try:
            if path.suffix == ".csv":
                yield from _csv_records(file, path)
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    record = json.loads(line)
                    if not isinstance(record, dict):
                        raise SpecError(f"line {number} of {path} is no JSON object", _FORMATS)
                    yield record
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, csv.Error) as error:
            raise SpecError(f"{path} cannot be read: {' '.join(str(error).split())}", _FORMATS) from error


def _csv_records(file: Iterable[str], path: Path) -> Iterator[dict]:
    reader = csv.reader(file)
    header = [name.strip() for name in next(reader, [])]
    for cells in reader:
        if len(cells) != len(header):
            raise SpecError(
                f"line {reader.line_num} of {path} has {len(cells)} cells, and its header {len(header)}", _FORMATS
            )
        yield {name: _number(cell) for name, cell in zip(header, cells, strict=True)}


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell.strip()


def _from_column(name: str, columns: dict[str, list], path: Path, cut: str | None) -> Attribute:
    cells = columns[name]
    types = {type(cell) for cell in cells}
    if types <= {float, int, bool}:
        scores = np.array([math.nan if abs(cell) > 1e300 else cell for cell in cells], np.float64)
        return _from_scores(name, scores, cut, str(path))
    if types != {str} or "" in cells:
        kinds = ["text" if isinstance(cell, str) and cell else isinstance(cell, float | int) for cell in cells]
        row = next(i for i, kind in enumerate(kinds) if not kind or kind != kinds[0])
        raise SpecError(
            f"{name} has to be classes or scores, and row {row} of {path} has {cells[row]!r}",
            "rows count from 0; give a number in [0, 1] in every row, or text in every row",
        )
    classes = tuple(sorted(set(cells)))
    if not 2 <= len(classes) <= _MAX_CLASSES:
        raise SpecError(
            f"{name} has to have classes, and {path} has {len(classes):,} different texts there",
            f"pass a column of 2 to {_MAX_CLASSES:,} classes",
        )
    index = {each: i for i, each in enumerate(classes)}
    probability = None
    if (values := columns.get(f"{name}_probability")) is not None:
        check_length(len(values), len(cells), f"{name}_probability", str(path))
        if not all(isinstance(each, float | int) for each in values):
            raise SpecError(
                f"{name}_probability has to hold numbers in [0, 1], and {path} holds others",
                "give the probability of the class in every row, or leave that column out",
            )
        probability = np.array(values, np.float64)
        check_scores(probability, f"{name}_probability", 0, str(path))
    return from_labels(name, classes, np.array([index[cell] for cell in cells], np.int32), probability, cut)


def _from_scores(name: str, scores: np.ndarray, cut: str | None, source: str) -> Attribute:
    check_scores(scores, name, 0, source)
    both = np.stack([1 - scores, scores], axis=1)
    return from_probabilities(name, (f"not {name}", name), [both], len(scores), cut, source)


def _read_dictionary(path: Path, names: tuple[str, ...], num_rows: int, cuts: dict[str, str]) -> dict[str, Attribute]:
    """Read scores [N] or [N, 1], probabilities [N, C], or whole numbers [N], by name."""
    arrays = _dictionary(path)
    attributes = {}
    for name in select_names(names, list(arrays), path):
        array = arrays[name][:, 0] if arrays[name].ndim == 2 and arrays[name].shape[1] == 1 else arrays[name]
        check_length(len(array) if array.ndim else 1, num_rows, name, str(path))
        attributes[name] = _from_array(name, array, cuts.get(name), path)
    return attributes


def _from_array(name: str, array: np.ndarray, cut: str | None, path: Path) -> Attribute:
    if array.ndim == 1 and array.dtype.kind == "f":
        return _from_scores(name, array.astype(np.float64), cut, str(path))
    if array.ndim == 1 and array.dtype.kind in "iub":
        numbers = np.unique(array)
        if not 2 <= len(numbers) <= _MAX_CLASSES:
            raise SpecError(
                f"{name} has to have classes, and {path} has {len(numbers):,} different numbers there",
                f"pass 2 to {_MAX_CLASSES:,} classes",
            )
        return from_labels(name, tuple(map(str, numbers.tolist())), np.searchsorted(numbers, array), None, cut)
    if array.ndim == 2 and array.dtype.kind == "f":
        classes = tuple(map(str, range(array.shape[1])))
        return from_probabilities(name, classes, [array], len(array), cut, str(path))
    raise SpecError(f"{name} has to be scores [N], and {path} has {array.dtype} of shape {list(array.shape)}", _FORMATS)


def _dictionary(path: Path) -> dict[str, np.ndarray]:
    from magnet_cli.files.checkpoints import arrays

    data = opening.read(path)
    try:
        return arrays.dictionary(data)
    except (UnpicklingError, LookupError, *npy.DAMAGED) as error:
        text = " ".join(str(error).split())[:200]
        raise SpecError(
            f"{path} cannot be read as a dictionary of arrays: {text}", f"nothing pickled is run; {_FORMATS}"
        ) from error
