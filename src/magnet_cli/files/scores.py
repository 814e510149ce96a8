"""scores.npz: the class probabilities of image models, with the names of the classes.

For a model NAME the archive holds NAME.npy, probabilities [n, C] float32, and NAME_classes.npy, [C] text. Members are
stored without compression and with a fixed time, so that the same numbers make the same bytes.
"""

import io
import re
import zipfile
from collections.abc import Iterable

import numpy as np

from magnet_cli.files import npz

Scores = dict[str, tuple[tuple[str, ...], np.ndarray]]  # model → (names of its C classes, probabilities [n, C])


def member_name(model: str) -> str:
    """Return a model's name as a name of arrays: what is no letter, digit, point or dash becomes an underscore."""
    return re.sub(r"[^\w.-]", "_", model)


def pack(scores: Scores) -> bytes:
    """Return the bytes of a scores.npz."""
    buffer = io.BytesIO()
    with npz.new_archive(buffer) as archive:
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
    with npz.new_member(archive, name) as member:
        npz.write_blocks(member, shape, blocks)
    with npz.new_member(archive, f"{name}_classes", large=False) as member:
        np.lib.format.write_array(member, np.array(classes), allow_pickle=False)
