"""Files of scores that somebody else made: NPY dictionaries as published, CSV, JSON lines.

Owns what such files may hold: a column of numbers is a score in [0, 1], a column of text names classes. A dictionary in
an NPY file is pickled; it is read as data, by `readers.pickles`, and nothing in it is run.
"""

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError

import numpy as np

from magnet_cli.editing.scored.scored import Attribute, check_length, check_scores, chosen, of_labels, of_probabilities
from magnet_cli.errors import SpecError
from magnet_cli.files import atomic, npy

_FORMS = "a NPY dictionary of arrays [N], as published; CSV with a header; or JSON lines, an object a latent"
_MOST_CLASSES = 1000  # of a column of text: more are names of rows


def read(path: Path, names: tuple[str, ...], num_rows: int, cuts: dict[str, str]) -> dict[str, Attribute]:
    """The attributes in a file of scores.

    Args:
        path: the file; its suffix says what it is.
        names: of the attributes; none for all of a dictionary.
        num_rows: N.
        cuts: as in `scored.open_scored`.

    Raises:
        SpecError: it is no such file, has no such column, scores not in [0, 1], or not one for each latent.
        MagnetError: it cannot be read.
    """
    if path.suffix == ".npy":
        return _of_dictionary(path, names, num_rows, cuts)
    if path.suffix not in {".csv", ".jsonl"}:
        message = f"scores are asked for, and {path} ends in {path.suffix or 'nothing'!r}"
        raise SpecError(message, f"pass {_FORMS}")
    if not names:
        message = f"{path} may hold more than attributes, and none are named"
        raise SpecError(message, "name the columns: --attributes a,b")
    wanted = {name for each in names for name in (each, f"{each}_probability")}
    columns, count = _columns(path, names, wanted)
    for name in names:
        check_length(count, num_rows, name, str(path))
    return {name: _of_column(name, columns, path, cuts.get(name)) for name in names}


def _columns(path: Path, names: tuple[str, ...], wanted: set[str]) -> tuple[dict[str, list], int]:
    """The cells of the columns that are there, and how many rows there are."""
    columns: dict[str, list] = defaultdict(list)
    count, known = 0, []
    for record in _records(path):
        count += 1
        known = known or list(record)
        for name in {*names, *(wanted & record.keys())}:
            columns[name].append(record.get(name))
    chosen(names, known, path)
    return columns, count


def _records(path: Path) -> Iterator[dict]:
    with atomic.explained("read", path), path.open(encoding="utf-8-sig", newline="") as file:
        try:
            if path.suffix == ".csv":
                yield from _csv_records(file, path)
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    record = json.loads(line)
                    if not isinstance(record, dict):
                        message = f"line {number} of {path} is no JSON object"
                        raise SpecError(message, f"pass {_FORMS}")
                    yield record
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, csv.Error) as error:
            message = f"{path} cannot be read: {' '.join(str(error).split())}"
            raise SpecError(message, f"pass {_FORMS}") from error


def _csv_records(file: Iterator[str], path: Path) -> Iterator[dict]:
    """The rows of a CSV; cells that are numbers as numbers."""
    reader = csv.reader(file)
    header = [name.strip() for name in next(reader, [])]
    for cells in reader:
        if len(cells) != len(header):
            message = f"line {reader.line_num} of {path} has {len(cells)} cells, and its header {len(header)}"
            raise SpecError(message, f"pass {_FORMS}")
        yield {name: _number(cell) for name, cell in zip(header, cells, strict=True)}


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell.strip()


def _of_column(name: str, columns: dict[str, list], path: Path, cut: str | None) -> Attribute:
    cells = columns[name]
    kinds = {type(cell) for cell in cells}
    if kinds <= {float, int, bool}:
        scores = np.array([math.nan if abs(cell) > 1e300 else cell for cell in cells], np.float64)
        return _of_scores(name, scores, cut, str(path))
    if kinds != {str} or "" in cells:
        row = _odd_row(cells)
        message = f"classes or scores of {name} are asked for, and row {row} of {path} has {cells[row]!r}"
        raise SpecError(message, "rows count from 0; give a number in [0, 1] in every row, or text in every row")
    classes = tuple(sorted(set(cells)))
    if not 2 <= len(classes) <= _MOST_CLASSES:
        message = f"classes of {name} are asked for, and {path} has {len(classes):,} different texts there"
        raise SpecError(message, f"pass a column of 2 to {_MOST_CLASSES:,} classes")
    numbers = {each: i for i, each in enumerate(classes)}
    sure = columns.get(f"{name}_probability")
    if sure is not None:
        check_length(len(sure), len(cells), f"{name}_probability", str(path))
        if not all(isinstance(each, float | int) for each in sure):
            message = f"numbers in [0, 1] are asked for, and {name}_probability of {path} holds others"
            raise SpecError(message, "give the probability of the class in every row, or leave that column out")
        sure = np.array(sure, np.float64)
        check_scores(sure, f"{name}_probability", 0, str(path))
    return of_labels(name, classes, np.array([numbers[cell] for cell in cells], np.int32), sure, cut)


def _odd_row(cells: list) -> int:
    """The first row that is neither number nor text, or not what the first was."""
    kinds = ["text" if isinstance(cell, str) and cell else isinstance(cell, float | int) for cell in cells]
    return next(i for i, kind in enumerate(kinds) if not kind or kind != kinds[0])


def _of_scores(name: str, scores: np.ndarray, cut: str | None, where: str) -> Attribute:
    """An attribute of a score [N] in [0, 1], the probability that it is so."""
    check_scores(scores, name, 0, where)
    both = np.stack([1 - scores, scores], axis=1)
    return of_probabilities(name, (f"not {name}", name), iter([both]), len(scores), cut, where)


def _of_dictionary(path: Path, names: tuple[str, ...], num_rows: int, cuts: dict[str, str]) -> dict[str, Attribute]:
    """The attributes of a dictionary by name: scores [N] or [N, 1], probabilities [N, C], or whole numbers [N]."""
    held = _dictionary(path)
    found = {}
    for name in chosen(names, list(held), path):
        array = held[name][:, 0] if held[name].ndim == 2 and held[name].shape[1] == 1 else held[name]
        check_length(len(array) if array.ndim else 1, num_rows, name, str(path))
        if array.ndim == 1 and array.dtype.kind == "f":
            found[name] = _of_scores(name, array.astype(np.float64), cuts.get(name), str(path))
        elif array.ndim == 1 and array.dtype.kind in "iub":
            texts = np.unique(array)
            if not 2 <= len(texts) <= _MOST_CLASSES:
                message = f"classes of {name} are asked for, and {path} has {len(texts):,} different numbers there"
                raise SpecError(message, f"pass 2 to {_MOST_CLASSES:,} classes")
            labels = np.searchsorted(texts, array)
            found[name] = of_labels(name, tuple(map(str, texts.tolist())), labels, None, cuts.get(name))
        elif array.ndim == 2 and array.dtype.kind == "f":
            classes = tuple(map(str, range(array.shape[1])))
            found[name] = of_probabilities(name, classes, iter([array]), num_rows, cuts.get(name), str(path))
        else:
            message = f"scores [N] of {name} are asked for, and {path} has {array.dtype} of shape {list(array.shape)}"
            raise SpecError(message, f"pass {_FORMS}")
    return found


def _dictionary(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a dictionary that numpy.save wrote, pickled: read as data."""
    from magnet_cli.files.checkpoints import arrays

    with atomic.explained("read", path):
        data = path.read_bytes()
    try:
        return arrays.dictionary(data)
    except (UnpicklingError, LookupError, *npy.DAMAGED) as error:
        message = f"{path} cannot be read as a dictionary of arrays: {' '.join(str(error).split())[:200]}"
        raise SpecError(message, f"nothing pickled is run; pass {_FORMS}") from error
