"""Read dictionaries of arrays that numpy.save pickled into NPY files, the form of published scores, and run nothing."""

import io

import numpy as np

from magnet_cli.files.checkpoints import tensors
from magnet_cli.files.checkpoints.pickles import Budget, Object, need, parse
from magnet_cli.files.npz import read_header

_DEFAULT = "collections defaultdict"
_ALLOWED = {
    **tensors.ARRAYS,
    _DEFAULT: {"REDUCE", "SETITEMS"},
    **{name: set() for name in ("builtins list", "__builtin__ list")},  # the default of a defaultdict
}


def dictionary(data: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of numbers, by name, of an NPY file that holds one dictionary.

    Raises:
        UnpicklingError, ValueError, LookupError: the file is of another kind, damaged, or holds something else.
    """
    file = io.BytesIO(data)
    header = read_header(file)
    single = header.dtype.hasobject and header.shape == ()
    need(single, f"it is an array {list(header.shape)} of {header.dtype}, without names")
    budget = Budget(len(data))
    node = parse(file, _ALLOWED, budget)
    whole = isinstance(node, Object) and node.origin in tensors.ARRAY_MAKERS and isinstance(node.state, tuple)
    need(whole and isinstance(node.state[-1], list) and len(node.state[-1]) == 1, "it is no single object")
    held = node.state[-1][0]
    held = held.items or {} if isinstance(held, Object) and held.origin == _DEFAULT else held
    need(isinstance(held, dict) and bool(held), "it holds no dictionary")
    need(all(isinstance(name, str) for name in held), "its names are no texts")
    return {name: tensors.array(value, budget).numpy() for name, value in held.items()}
