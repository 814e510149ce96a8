"""scores.npz: the class probabilities of image models, with the names of the classes.

For a model NAME the archive holds NAME.npy, probabilities [n, C] float32, and NAME_classes.npy, [C] text. Members are
stored without compression and with a fixed time, so that the same numbers make the same bytes.
"""

import io
import re
import zipfile
from collections.abc import Iterable

import numpy as np

Scores = dict[str, tuple[tuple[str, ...], np.ndarray]]  # model → (names of its C classes, probabilities [n, C])

_EPOCH = (1980, 1, 1, 0, 0, 0)


def member_name(model: str) -> str:
    """Return a model's name as a name of arrays: what is no letter, digit, point or dash becomes an underscore."""
    return re.sub(r"[^\w.-]", "_", model)


def pack(scores: Scores) -> bytes:
    """Return the bytes of a scores.npz."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for model, (classes, probabilities) in scores.items():
            add(archive, model, classes, probabilities.shape, [probabilities])
    return buffer.getvalue()


def add(
    archive: zipfile.ZipFile, model: str, classes: tuple[str, ...], shape: tuple[int, ...], blocks: Iterable[np.ndarray]
) -> None:
    """Add a model to an open archive, block by block.

    Args:
        archive: open for writing.
        model: name of the model.
        classes: names of its C classes.
        shape: (n, C), of all blocks together.
        blocks: probabilities [b, C], all of one dtype.
    """
    name = member_name(model)
    with archive.open(zipfile.ZipInfo(f"{name}.npy", _EPOCH), "w", force_zip64=True) as member:
        write_blocks(member, shape, blocks)
    with archive.open(zipfile.ZipInfo(f"{name}_classes.npy", _EPOCH), "w") as member:
        np.lib.format.write_array(member, np.array(classes), allow_pickle=False)


def write_blocks(file: io.BufferedIOBase, shape: tuple[int, ...], blocks: Iterable[np.ndarray]) -> None:
    """Write an NPY file of a given shape, its rows in blocks of one dtype."""
    for i, block in enumerate(blocks):
        if not i:
            header = {"descr": np.lib.format.dtype_to_descr(block.dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
        file.write(np.ascontiguousarray(block).tobytes())
