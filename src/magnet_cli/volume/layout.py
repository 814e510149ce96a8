"""The arrays in the bytes of an HDF5 file: found where the file says they are, and taken as they lie there.

Owns what the HDF5 library is trusted with: the names, types, shapes and places of contiguous arrays, and a few small
attributes. Whatever else a file can hold (filters, chunks, links to other files, virtual or external data) is refused
before a byte of it is read, so that a small file cannot ask for much memory. Knows nothing of volumes.
"""

import io
import math
from collections.abc import Iterable, Mapping

import h5py
import numpy as np
from h5py import h5a, h5d, h5f, h5fd, h5l, h5p

_SIZE = -1  # stands for a length that the file may choose
# What h5py raises on bytes that are not what it expects (found by changing bytes of files).
_DAMAGED = (OSError, KeyError, RuntimeError, ValueError, TypeError, OverflowError, MemoryError)

Form = tuple[str, tuple[int, ...]]


def form(dtype: str, *shape: int | None) -> Form:
    """What an array has to be: its dtype, as "<f4", and its shape, None for a length the file may choose."""
    return dtype, tuple(_SIZE if length is None else length for length in shape)


def read(
    data: bytes, forms: Mapping[str, Form], optional: Iterable[str] = (), attributes: Iterable[str] = ()
) -> tuple[dict[str, np.ndarray], dict[str, str | int]]:
    """The arrays and attributes of a file, no byte copied: the arrays are read-only views of `data`.

    Args:
        data: the whole file.
        forms: the arrays it has to hold, and what they have to be.
        optional: those of them that may be absent.
        attributes: names of the root's attributes: single strings or integers.

    Returns:
        The arrays by name, and the attributes by name.

    Raises:
        ValueError: it is no such file; the reason in words.
    """
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fileobj_driver(h5fd.fileobj_driver, io.BytesIO(data))
    try:
        # the library's own calls: what h5py builds on top of them takes longer than hashing a megabyte
        file = h5f.open(b"bytes in memory", h5f.ACC_RDONLY, access)
        try:
            scalars = {name: _attribute(file, name) for name in attributes}
            absent = {name for name in optional if not file.links.exists(name.encode())}
            return {name: _array(file, name, forms[name], data) for name in forms.keys() - absent}, scalars
        finally:
            file.close()
    except _DAMAGED as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error


def _attribute(file: h5f.FileID, name: str) -> str | int:
    found = h5a.open(file, name.encode())
    text = h5py.check_string_dtype(found.dtype)
    if found.shape != () or not (text or found.dtype.kind in "iu"):
        message = f"its attribute {name} is not a single string or integer"
        raise ValueError(message)
    value = np.empty((), found.dtype)
    found.read(value)
    return bytes(value[()]).decode() if text else int(value)


def _array(file: h5f.FileID, name: str, what: Form, data: bytes) -> np.ndarray:
    if not file.links.exists(name.encode()) or file.links.get_info(name.encode()).type != h5l.TYPE_HARD:
        message = f"its {name} is missing, or is kept elsewhere"
        raise ValueError(message)
    found = h5d.open(file, name.encode())
    dtype, shape = what
    lengths = found.shape
    fits = len(lengths) == len(shape) and all(a in {_SIZE, b} for a, b in zip(shape, lengths, strict=True))
    if found.dtype.str != dtype or not fits:
        message = f"its {name} is {_words(found.dtype.str, lengths)}, not {_words(dtype, shape)}"
        raise ValueError(message)
    creation, start = found.get_create_plist(), found.get_offset()
    numbers = math.prod(lengths)
    plain = creation.get_layout() == h5d.CONTIGUOUS and not creation.get_external_count() and start is not None
    if not plain or start + numbers * found.dtype.itemsize > len(data):
        message = f"its {name} does not lie in one piece inside the file"
        raise ValueError(message)
    return np.frombuffer(data, dtype, numbers, start).reshape(lengths)


def _words(dtype: str, shape: tuple[int, ...]) -> str:
    return f"{dtype} {'×'.join('any' if length == _SIZE else str(length) for length in shape) or 'single'}"
