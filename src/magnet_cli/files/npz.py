"""Headers of NPY files, and NPZ archives written so that the same arrays make the same bytes."""

import lzma
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

# What zipfile and numpy raise where an archive is damaged, encrypted, or compressed in a way that is not known here.
DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the time of every member
_LARGEST_HEADER = 10_000  # bytes


@dataclass(frozen=True)
class Header:
    """What the header of an NPY file says.

    Attributes:
        shape: shape of the array.
        fortran: whether columns are stored one after the other instead of rows.
        dtype: type of the numbers.
    """

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype


def read_header(file: IO[bytes]) -> Header:
    """Read the header of an NPY file; afterwards the file is at the first number.

    Raises:
        ValueError: the file is no NPY file, of an unknown version, or its header is damaged or long.
    """
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return Header(*np.lib.format.read_array_header_1_0(file, max_header_size=_LARGEST_HEADER))
    if version == (2, 0):
        return Header(*np.lib.format.read_array_header_2_0(file, max_header_size=_LARGEST_HEADER))
    raise ValueError(f"its header is of the unknown version {version}")


def read_blocks(file: IO[bytes], num_rows: int, width: int, dtype: np.dtype, block_rows: int) -> Iterator[np.ndarray]:
    """Yield the rows that follow a header, in blocks [b, width]; at the end the CRC of a zip member is compared.

    Args:
        file: after `read_header`.
        num_rows: rows of the array.
        width: numbers in a row.
        dtype: type of the numbers.
        block_rows: rows of a block; the last may have fewer.

    Raises:
        ValueError: the file ends early.
    """
    for start in range(0, num_rows, block_rows):
        count = min(block_rows, num_rows - start)
        data = file.read(count * width * dtype.itemsize)
        if len(data) != count * width * dtype.itemsize:
            raise ValueError("it ends early")
        yield np.frombuffer(data, dtype).reshape(count, width)
    file.read(1)


def write_header(file: IO[bytes], shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> None:
    """Write the header of an NPY file whose rows follow."""
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})


def write_blocks(file: IO[bytes], shape: tuple[int, ...], blocks: Iterable[np.ndarray]) -> None:
    """Write an NPY file of a given shape from blocks of rows, all of one dtype."""
    for i, block in enumerate(blocks):
        if not i:
            write_header(file, shape, block.dtype)
        file.write(np.ascontiguousarray(block).tobytes())


def new_archive(file: IO[bytes]) -> zipfile.ZipFile:
    """Return an archive without compression, open for writing."""
    return zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)


def new_member(archive: zipfile.ZipFile, name: str, *, large: bool = True) -> IO[bytes]:
    """Return NAME.npy in an archive, open for writing; `large` where it may be over 2 GiB."""
    return archive.open(zipfile.ZipInfo(f"{name}.npy", _EPOCH), "w", force_zip64=large)
