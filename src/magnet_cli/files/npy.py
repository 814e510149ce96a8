"""Latents, labels and directions that a user gives as NPY files: read as numbers, every one of them checked.

Owns what such a file may hold. Knows nothing of generators but the sizes it is told, and loads no Python objects.
"""

import tokenize
from pathlib import Path

import numpy as np

from magnet_cli.errors import SpecError
from magnet_cli.files import atomic

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
    """The latents in a file, which are read where they are used: [n, D] floating, n ≥ 1, finite as float32.

    Raises:
        SpecError: they are not that.
        MagnetError: the file cannot be read.
    """
    found = _array(path, "save them as one array [n, D]: numpy.save(path, z.astype('float32'))")
    if found.ndim != 2 or 0 in found.shape or found.dtype.kind != "f":
        message = f"latents [n, D] of floating numbers are asked for, and {path} holds {_form(found)}"
        raise SpecError(message, "save them as one array [n, D]: numpy.save(path, z.astype('float32'))")
    rows = max(1, _BLOCK // found.shape[1])
    for start in range(0, len(found), rows):
        with np.errstate(over="ignore"):
            finite = np.isfinite(found[start : start + rows].astype(np.float32)).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            message = f"latents that are finite numbers of float32 are asked for, and row {row} of {path} is not"
            raise SpecError(message, "rows count from 0; remove that row, and all others like it")
    return found


def vector(path: Path) -> np.ndarray:
    """The one direction in a file, [1, D] float32 of length 1.

    Raises:
        SpecError: it is no array [1, D] or [D] of finite numbers, or all of them are 0.
        MagnetError: the file cannot be read.
    """
    hint = "pass a direction of `magnet direction`, or a boundary as InterFaceGAN writes it"
    found = _array(path, hint)
    line = found.ndim == 1 or (found.ndim == 2 and found.shape[0] == 1)
    wide = np.asarray(found, np.float64).reshape(1, -1) if line and found.dtype.kind == "f" else np.empty((1, 0))
    length = np.linalg.norm(wide)
    if not np.isfinite(length) or length == 0:
        what = "zeros, or numbers that are not finite" if wide.size else _form(found)
        message = f"a direction [1, D] of finite numbers, not all 0, is asked for, and {path} holds {what}"
        raise SpecError(message, hint)
    return (wide / length).astype(np.float32)


def labels(path: Path, num_rows: int, num_classes: int) -> np.ndarray:
    """The labels in a file: [n] whole numbers, or [n, num_classes] one-hot.

    Args:
        path: the file.
        num_rows: n.
        num_classes: of the generator they are for.

    Returns:
        [n] int64 in 0..num_classes - 1.

    Raises:
        SpecError: they are not that.
        MagnetError: the file cannot be read.
    """
    hint = f"pass labels 0..{num_classes - 1}, one a latent: [n] whole numbers, or one-hot [n, {num_classes}]"
    found = _array(path, hint)
    message = f"labels of {num_rows:,} latents in {num_classes} classes are asked for, and {path} holds "
    whole = found.ndim == 1 and found.dtype.kind in "iu"
    one_hot = found.ndim == 2 and found.shape[1] == num_classes and found.dtype.kind in "iufb"
    if len(found.shape) == 0 or len(found) != num_rows or not (whole or one_hot):
        raise SpecError(message + _form(found), hint)
    if one_hot:
        right = (found.max(axis=1) == 1) & (np.count_nonzero(found, axis=1) == 1)
    else:
        right = (found >= 0) & (found < num_classes)
    if not right.all():
        row = int(np.argmin(right))
        message += f"{found[row].tolist()} in row {row}"
        raise SpecError(message, hint)
    return found.argmax(axis=1).astype(np.int64) if one_hot else found.astype(np.int64)


def _array(path: Path, hint: str) -> np.ndarray:
    """The array of a file, not yet read."""
    try:
        with atomic.explained("read", path):
            return np.lib.format.open_memmap(path, mode="r")
    except DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        message = f"an NPY file is asked for, and {path} is none that can be read: {reason}"
        raise SpecError(message, hint) from error


def _form(found: np.ndarray) -> str:
    return f"{found.dtype} of shape [{', '.join(map(str, found.shape))}]"
