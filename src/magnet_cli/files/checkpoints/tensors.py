"""Make tensors, arrays and numbers from the trees of pickles; a tensor never reaches outside its storage."""

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from magnet_cli.files.checkpoints.pickles import MAX_BYTES, MAX_DEPTH, Budget, Node, Object, need, parse

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_DIMENSIONS = 8
_SMALL = 64  # elements of an array that is a setting
_STORAGES = {
    **{"torch DoubleStorage": torch.float64, "torch FloatStorage": torch.float32, "torch HalfStorage": torch.float16},
    **{"torch BFloat16Storage": torch.bfloat16, "torch LongStorage": torch.int64, "torch IntStorage": torch.int32},
    **{"torch ShortStorage": torch.int16, "torch CharStorage": torch.int8, "torch ByteStorage": torch.uint8},
    "torch BoolStorage": torch.bool,
    **{"torch ComplexFloatStorage": torch.complex64, "torch ComplexDoubleStorage": torch.complex128},
}
_DTYPES = {
    **{"f8": torch.float64, "f4": torch.float32, "f2": torch.float16, "b1": torch.bool},
    **{"i8": torch.int64, "i4": torch.int32, "i2": torch.int16, "i1": torch.int8, "u1": torch.uint8},
}
_PARAMETERS = {"torch._utils _rebuild_parameter", "torch._utils _rebuild_parameter_with_state"}
_TENSOR = "torch._utils _rebuild_tensor_v2"
_BLOB = "torch.storage _load_from_bytes"
_DTYPE, _ENCODED = "numpy dtype", "_codecs encode"
# numpy 1 and numpy 2 name these differently
_SCALARS = {f"numpy.{core}.multiarray scalar" for core in ("core", "_core")}
ARRAY_MAKERS = {f"numpy.{core}.multiarray _reconstruct" for core in ("core", "_core")}
_BUFFERS = {f"numpy.{core}.numeric _frombuffer" for core in ("core", "_core")}
_MAPPINGS = {"collections OrderedDict", "dnnlib.util EasyDict"}

# Globals that these functions understand, and the opcodes that may act on each, as `pickles.parse` takes them.
ARRAYS: dict[str, set[str]] = {
    _DTYPE: {"REDUCE", "BUILD"},
    _ENCODED: {"REDUCE"},
    "numpy ndarray": set(),
    **{name: {"REDUCE", "BUILD"} for name in ARRAY_MAKERS},
    **{name: {"REDUCE"} for name in _SCALARS | _BUFFERS},
}
STORAGES: dict[str, set[str]] = {name: set() for name in _STORAGES}
TENSORS: dict[str, set[str]] = {
    **{name: {"REDUCE"} for name in _PARAMETERS},
    _TENSOR: {"REDUCE"},
    "collections OrderedDict": {"REDUCE", "SETITEMS", "BUILD"},  # state dicts have their versions as state
}
BLOBS: dict[str, set[str]] = {_BLOB: {"REDUCE"}}


@dataclass(frozen=True)
class Storage:
    """A run of numbers that lies outside a pickle, under a key."""

    dtype: torch.dtype
    key: str
    count: int


def storage(identity: Node) -> Storage:
    """Return the storage that a persistent id of torch means: ("storage", type, key, device, number of elements)."""
    need(isinstance(identity, tuple) and len(identity) in {5, 6}, "it names something outside that is no storage")
    word, kind, key, _, count, *view = identity
    name = getattr(kind, "name", "")
    need(word == "storage" and name in _STORAGES and view in ([], [None]), "it has a storage of an unknown kind")
    need(isinstance(key, str) and type(count) is int, "it has a storage of an unknown kind")
    need(0 <= count <= MAX_BYTES, "it has a storage of an impossible size")
    return Storage(_STORAGES[name], key, count)


def legacy(
    data: bytes, allowed: Mapping[str, set[str]], budget: Budget, *, lenient: bool = False
) -> tuple[Node, dict[str, bytes]]:
    """Return the tree of a file of torch.save from before its zip files, and the bytes of the Storages in it by key."""
    file = io.BytesIO(data)
    need(parse(file, {}, budget) == LEGACY_MAGIC, "it does not begin as torch's files do")
    need(parse(file, {}, budget) == _LEGACY_PROTOCOL, "it is of an unknown version of torch's format")
    system = parse(file, {}, budget)
    need(isinstance(system, dict) and system.get("little_endian") is True, "its numbers are not little-endian")
    named: dict[str, Storage] = {}

    def outside(identity: Node) -> Node:
        if lenient and isinstance(identity, tuple) and identity[:1] == ("module",) and len(identity) > 1:
            return identity[1]  # the class of a whole module, with its source code
        new = storage(identity)
        named.setdefault(new.key, new)
        return new

    tree, keys = parse(file, allowed, budget, outside, lenient=lenient), parse(file, {}, budget)
    need(isinstance(keys, list) and len(keys) == len(named), "it does not hold the storages it names")
    parts = {}
    for key in keys:
        need(isinstance(key, str), "it has a storage by what is no name")
        count = int.from_bytes(file.read(8), "little")
        need(count == named[key].count, "it holds a storage of another size than it says")
        parts[key] = file.read(count * named[key].dtype.itemsize)
    need(not file.read(1), "more bytes follow than it has storages")
    return tree, parts


class Tensors:
    """Makes the tensors that trees describe; `part` returns the bytes of a storage, each of which is read once."""

    def __init__(self, budget: Budget, part: Callable[[str], bytes]) -> None:
        self.budget, self.part = budget, part
        self._read: dict[object, tuple[Tensor, Node]] = {}

    def tensor(self, node: Node) -> Tensor:
        """Return the tensor that a tree describes, contiguous, on the CPU, and never from outside its storage."""
        node = _inner(node)
        need(node is not None, "it has a tensor that is none")
        where, offset, size, stride, *_ = node.arguments
        flat = self._storage(where)
        need(not flat.is_complex(), "it has complex numbers among its weights")
        need(isinstance(size, tuple) and isinstance(stride, tuple), "it has a tensor without a size")
        need(len(size) == len(stride) <= _DIMENSIONS, "it has a tensor of an impossible size")
        numbers = (offset, *size, *stride)
        need(all(type(n) is int and 0 <= n <= len(flat) for n in numbers), "it has a tensor of an impossible size")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        need(0 < math.prod(size) <= len(flat) > last, "it has a tensor that reaches outside its storage")
        self.budget.take(math.prod(size) * flat.element_size())
        return flat.as_strided(size, stride, offset).clone(memory_format=torch.contiguous_format)

    def _storage(self, node: Node) -> Tensor:
        # the node is kept, so that no other node gets its id
        key = node.key if isinstance(node, Storage) else id(node)
        if key not in self._read:
            self._read[key] = self._flat(node), node
        flat, first = self._read[key]
        same = not isinstance(node, Storage) or node == first
        need(same, "it has one storage as numbers of two types or sizes")
        return flat

    def _flat(self, node: Node) -> Tensor:
        if isinstance(node, Object) and node.origin == _BLOB:
            # torch itself would unpickle these bytes, with any code in them.
            (blob,) = node.arguments
            node, parts = legacy(raw(blob), STORAGES, self.budget)
            need(isinstance(node, Storage), "it has a storage that is none")
            data = parts[node.key]
        else:
            need(isinstance(node, Storage), "it has a tensor without a storage")
            data = self.part(node.key)
        return flat(data, node.dtype, node.count, self.budget)


def shape(node: Node) -> tuple[int, ...] | None:
    """Return the shape of the tensor that a tree describes, before it is made; None for anything else."""
    node = _inner(node)
    size = node.arguments[2] if node is not None and len(node.arguments) > 3 else None
    return size if isinstance(size, tuple) and all(type(n) is int for n in size) else None


def _inner(node: Node) -> Object | None:
    # a tensor, which may be in a parameter
    if isinstance(node, Object) and node.origin in _PARAMETERS and node.arguments:
        node = node.arguments[0]
    return node if isinstance(node, Object) and node.origin == _TENSOR else None


def flat(data: bytes, dtype: torch.dtype, count: int, budget: Budget) -> Tensor:
    """Return bytes as `count` numbers."""
    need(len(data) == count * dtype.itemsize > 0, "it holds another number of bytes than it says")
    budget.take(len(data))
    return torch.frombuffer(bytearray(data), dtype=dtype)


def raw(node: Node) -> bytes:
    """Return the bytes that a tree describes; protocol 2 writes them as text."""
    if isinstance(node, Object) and node.origin == _ENCODED:
        text, coding = node.arguments
        need(isinstance(text, str) and coding == "latin1", "it has text in an unknown coding")
        return text.encode("latin1")
    need(isinstance(node, bytes | bytearray), "it has bytes that are none")
    return bytes(node)


def mapping(node: Node) -> dict | None:
    """Return the items of a dict, or of what pickles write in place of a dict; None for anything else."""
    if isinstance(node, Object) and (node.origin in _MAPPINGS or node.items is not None):
        return node.items or {}
    return node if isinstance(node, dict) else None


def array(node: Node, budget: Budget) -> Tensor:
    """Return the tensor of a numpy array or scalar."""
    need(isinstance(node, Object), "it has an array that is none")
    fortran, shape = False, cast(Node, ())
    if node.origin in _SCALARS:
        dtype, data = node.arguments
    elif node.origin in _BUFFERS:
        data, dtype, shape, order = node.arguments
        fortran = order == "F"
    else:
        need(node.origin in ARRAY_MAKERS and isinstance(node.state, tuple), "it has an array that is none")
        _, shape, dtype, fortran, data = node.state
    need(isinstance(shape, tuple) and len(shape) <= _DIMENSIONS, "it has an array of an impossible shape")
    need(all(type(n) is int and n > 0 for n in shape), "it has an array of an impossible shape")
    values = flat(raw(data), _number_type(dtype), math.prod(shape), budget)
    return values.reshape(shape[::-1]).permute(tuple(range(len(shape)))[::-1]) if fortran else values.reshape(shape)


def _number_type(node: Node) -> torch.dtype:
    need(isinstance(node, Object) and node.origin == _DTYPE, "it has an array of what is no type")
    code, order = node.arguments[0], node.state[1] if isinstance(node.state, tuple) else "|"
    need(isinstance(code, str) and code in _DTYPES, "it has an array of other things than numbers")
    need(order in ("<", "|", "="), "its numbers are not little-endian")
    return _DTYPES[code]


def plain(node: Node, budget: Budget, depth: int = 0) -> Node:
    """Return a tree of settings as JSON has them: numpy's numbers as numbers, tuples as lists."""
    budget.step()
    need(depth < MAX_DEPTH, "it has settings nested without end")
    if node is None or isinstance(node, bool | int | float | str):
        return node
    if (items := mapping(node)) is not None:
        return {key: plain(value, budget, depth + 1) for key, value in items.items()}
    if isinstance(node, tuple | list):
        return [plain(value, budget, depth + 1) for value in node]
    values = array(node, budget)
    need(values.numel() <= _SMALL, "it has settings of great size")
    return values.tolist()
