"""Read latents, labels and directions from a user's NPY files; every number is checked, no Python object is loaded."""

import math
import os
import tokenize
from pathlib import Path
from typing import Literal

import numpy as np

from magnet_cli.errors import SpecError
from magnet_cli.files import npz, opening

MOST_CLASSES = 1 << 20  # of a generator
_BLOCK = 1 << 22  # numbers looked at at a time
DAMAGED = (
    ValueError,
    TypeError,
    OverflowError,
    EOFError,
    SyntaxError,
    tokenize.TokenError,
)  # what numpy says of files


def latents(path: Path) -> np.ndarray:
    """Return the latents in a file, [n, D] floating, n ≥ 1, finite as float32; memory-mapped.

    Raises:
        SpecError: the file holds anything else.
        MagnetError: the file cannot be read.
    """
    array = _array(path, "save them as one array [n, D]: numpy.save(path, z.astype('float32'))")
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind != "f":
        message = f"latents [n, D] of floating numbers are asked for, and {path} holds {_form(array)}"
        raise SpecError(message, "save them as one array [n, D]: numpy.save(path, z.astype('float32'))")
    rows = max(1, _BLOCK // array.shape[1])
    for start in range(0, len(array), rows):
        with np.errstate(over="ignore"):
            finite = np.isfinite(array[start : start + rows].astype(np.float32)).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            message = f"latents that are finite numbers of float32 are asked for, and row {row} of {path} is not"
            raise SpecError(message, "rows count from 0; remove that row, and all others like it")
    return array


def vector(path: Path) -> np.ndarray:
    """Return the direction in a file, [1, D] float32 of length 1.

    Raises:
        SpecError: it is no array [1, D] or [D] of finite numbers, or all of them are 0.
        MagnetError: the file cannot be read.
    """
    hint = "pass a direction of `magnet direction`, or a boundary as InterFaceGAN writes it"
    array = _array(path, hint)
    line = array.ndim == 1 or (array.ndim == 2 and array.shape[0] == 1)
    wide = np.asarray(array, np.float64).reshape(1, -1) if line and array.dtype.kind == "f" else np.empty((1, 0))
    length = np.linalg.norm(wide)
    if not np.isfinite(length) or length == 0:
        what = "zeros, or numbers that are not finite" if wide.size else _form(array)
        message = f"a direction [1, D] of finite numbers, not all 0, is asked for, and {path} holds {what}"
        raise SpecError(message, hint)
    return (wide / length).astype(np.float32)


def labels(path: Path, num_rows: int, num_classes: int, below: Path | None = None) -> np.ndarray:
    """Return the labels in a file: [n] whole numbers, or [n, num_classes] one-hot.

    Args:
        path: the file.
        num_rows: n.
        num_classes: classes of the generator.
        below: as for `opening.opened`.

    Returns:
        [n] int64 in 0..num_classes - 1.

    Raises:
        SpecError: the file holds anything else.
        MagnetError: the file cannot be read.
    """
    hint = f"pass labels 0..{num_classes - 1}, one a latent: [n] whole numbers, or one-hot [n, {num_classes}]"
    array = _array(path, hint, below)
    message = f"labels of {num_rows:,} latents in {num_classes:,} classes are asked for, and {path} holds "
    whole = array.ndim == 1 and array.dtype.kind in "iu"
    one_hot = array.ndim == 2 and array.shape[1] == num_classes and array.dtype.kind in "iufb"
    if len(array.shape) == 0 or len(array) != num_rows or not (whole or one_hot):
        raise SpecError(message + _form(array), hint)
    if one_hot:
        right = (array.max(axis=1) == 1) & (np.count_nonzero(array, axis=1) == 1)
    else:
        right = (array >= 0) & (array < num_classes)
    if not right.all():
        row = int(np.argmin(right))
        message += f"{array[row].tolist()} in row {row}"
        raise SpecError(message, hint)
    return array.argmax(axis=1).astype(np.int64) if one_hot else array.astype(np.int64)


def opened(path: Path, below: Path | None = None) -> np.ndarray:
    """Return the array in a file, memory-mapped; its bytes are there before anything is set aside for them.

    Raises:
        DAMAGED: it is no NPY file of numbers or texts that is as long as its header says.
        MagnetError: the file cannot be read, `below` as for `opening.opened`.
    """
    with opening.opened(path, below) as file:
        header = npz.read_header(file)
        size = math.prod(header.shape) * header.dtype.itemsize
        there = os.fstat(file.fileno()).st_size - file.tell()
        if header.dtype.hasobject:
            raise ValueError("it holds Python objects, which are not read")
        if not size or size > there:
            raise ValueError(f"{header.dtype} of shape {list(header.shape)} in {there:,} bytes")
        order: Literal["F", "C"] = "F" if header.fortran else "C"
        return np.memmap(file, header.dtype, "r", file.tell(), header.shape, order)


def _array(path: Path, hint: str, below: Path | None = None) -> np.ndarray:
    try:
        return opened(path, below)
    except DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        message = f"an NPY file is asked for, and {path} is none that can be read: {reason}"
        raise SpecError(message, hint) from error


def _form(array: np.ndarray) -> str:
    return f"{array.dtype} of shape [{', '.join(map(str, array.shape))}]"
