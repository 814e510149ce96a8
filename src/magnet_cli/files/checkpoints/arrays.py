"""Dictionaries of arrays as numpy.save pickles them into NPY files: the form of published scores.

Owns that layout. Nothing in the bytes is run.
"""

import io

import numpy as np

from magnet_cli.files.checkpoints import tensors
from magnet_cli.files.checkpoints.pickles import Budget, Object, need, parse

_DEFAULT = "collections defaultdict"
_KNOWN = {
    **tensors.ARRAYS,
    _DEFAULT: {"REDUCE", "SETITEMS"},
    **{name: set() for name in ("builtins list", "__builtin__ list")},  # what a defaultdict makes where nothing is
}


def dictionary(data: bytes) -> dict[str, np.ndarray]:
    """The arrays by name in an NPY file that holds one dictionary.

    Args:
        data: the whole file.

    Returns:
        Arrays of numbers, of any shape.

    Raises:
        UnpicklingError, ValueError, LookupError: it is no such file, damaged, or holds something else.
    """
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    need(version in {(1, 0), (2, 0)}, "its header is of an unknown version")
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(file)
    need(dtype.hasobject and shape == (), f"it is an array {list(shape)} of {dtype}, without names")
    budget = Budget(len(data))
    node = parse(file, _KNOWN, budget)
    whole = isinstance(node, Object) and node.of in tensors.ARRAY_MAKERS and isinstance(node.state, tuple)
    need(whole and isinstance(node.state[-1], list) and len(node.state[-1]) == 1, "it is no single object")
    held = node.state[-1][0]
    held = held.items or {} if isinstance(held, Object) and held.of == _DEFAULT else held
    need(isinstance(held, dict) and bool(held), "it holds no dictionary")
    need(all(isinstance(name, str) for name in held), "its names are no texts")
    return {name: tensors.array(value, budget).numpy() for name, value in held.items()}
