"""Read files of torch.save, zipped or older: mappings of tensors, and what training left beside them.

What lies beside the weights may be an object of any class. It is a node of the tree, never made, and nobody looks at
it. Only the code of Python's standard library is refused by name, because no training has a use for it there.
"""

import io
import struct
import sys
import zipfile
from dataclasses import dataclass, field

from magnet_cli.files.checkpoints import tensors
from magnet_cli.files.checkpoints.pickles import Budget, Node, Object, need, parse
from magnet_cli.files.checkpoints.tensors import Tensors, mapping

_ZIP = b"PK\x03\x04"  # as torch.save has written since 1.6
_LEGACY = b"\x8a\x0a" + tensors.LEGACY_MAGIC.to_bytes(10, "little") + b"."  # the first pickle in a file before that
_SETTINGS = ("args", "config")  # keys of what training was told
_LEVELS = 4  # of mappings in mappings
_HEAD = 32  # bytes that hold the first pickle
_ENCRYPTED = 1
_DAMAGED = (zipfile.BadZipFile, NotImplementedError, EOFError, OverflowError, struct.error)
_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool")
_FROM_CLASSES = {"REDUCE", "NEWOBJ", "BUILD", "SETITEMS", "APPENDS"}
_CODE = sys.stdlib_module_names | {"__builtin__", "commands", "copy_reg"}  # with the names of Python 2
_DATA = {  # of the standard library
    "builtins": "set frozenset complex slice range bytearray dict list tuple int float str bool object getattr",
    "collections": "OrderedDict defaultdict Counter deque",
    "datetime": "date time datetime timedelta timezone",
    "pathlib": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
    "pathlib._local": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
    "argparse": "Namespace",
    "types": "SimpleNamespace",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "uuid": "UUID",
    "array": "array _array_reconstructor",
    "copyreg": "_reconstructor",
    "functools": "partial",
    "random": "Random",
}
_RENAMED = {"builtins": "__builtin__", "copyreg": "copy_reg"}  # protocol 2 has the names of Python 2


class _Allowed(dict[str, set[str]]):
    """The globals of these files: all but those of the standard library, except its data."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or str(name).partition(" ")[0].partition(".")[0] not in _CODE

    def __missing__(self, _: str) -> set[str]:
        return _FROM_CLASSES


_ALLOWED = _Allowed(
    {f"{module} {name}": _FROM_CLASSES for module, names in _DATA.items() for name in names.split()}
    | {f"{old} {name}": _FROM_CLASSES for new, old in _RENAMED.items() for name in _DATA[new].split()}
    | tensors.TENSORS
    | tensors.STORAGES
    | tensors.ARRAYS
    | {f"torch {name}": set() for name in _DTYPES}
)


@dataclass(frozen=True)
class TorchFile:
    """The mappings with tensors in a file, by their dotted keys, and what training was told.

    `groups` map names to the trees of tensors, of which `maker` makes tensors; `modules` are the classes of whole
    modules that were pickled in the place of their weights.
    """

    maker: Tensors
    groups: dict[str, dict[str, Node]] = field(default_factory=dict)
    arguments: dict = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)


def recognises(data: bytes) -> bool:
    """Return whether bytes begin like a file of torch.save."""
    return data.startswith(_ZIP) or _LEGACY in data[:_HEAD]


def read(data: bytes) -> TorchFile:
    """Return what is in a file of torch.save; `arguments` are the plain values under "args" or "config"."""
    budget = Budget(len(data))
    tree, maker = _zipped(data, budget) if data.startswith(_ZIP) else _legacy(data, budget)
    file = TorchFile(maker)
    _collect(tree, "", file, budget)
    top = mapping(tree) or {}
    for key in _SETTINGS:
        file.arguments.update(_arguments(top.get(key)))
    return file


def _collect(node: Node, key: str, file: TorchFile, budget: Budget) -> None:
    """Add the mappings with tensors in a tree, and the whole modules, to `file`."""
    budget.step()
    if isinstance(node, Object) and "_modules" in (mapping(node.state) or {}):
        file.modules.append(node.origin.replace(" ", "."))
    items = mapping(node) or {}
    named = {name: value for name, value in items.items() if tensors.shape(value) is not None}
    if named := {name: value for name, value in named.items() if 0 not in (tensors.shape(value) or ())}:
        file.groups[key] = named  # of no numbers, a tensor says nothing
    if key.count(".") < _LEVELS:
        for name, value in items.items():
            if isinstance(value, Object | dict) and name not in named:
                _collect(value, f"{key}.{name}" if key else name, file, budget)


def _arguments(node: Node) -> dict:
    state = node.state if isinstance(node, Object) and mapping(node.state) is not None else node
    items = mapping(state) or {}
    return {k: v for k, v in items.items() if v is None or isinstance(v, bool | int | float | str)}


def _legacy(data: bytes, budget: Budget) -> tuple[Node, Tensors]:
    tree, parts = tensors.legacy(data, _ALLOWED, budget, lenient=True)
    return tree, Tensors(budget, parts.__getitem__)


def _zipped(data: bytes, budget: Budget) -> tuple[Node, Tensors]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except _DAMAGED as error:
        raise ValueError(*error.args) from error
    members = {member.filename: member for member in archive.infolist()}

    def part(name: str) -> bytes:
        member = members[name]
        need(not member.flag_bits & _ENCRYPTED, "it is encrypted, which torch's files never are")
        stored = member.compress_type == zipfile.ZIP_STORED and member.file_size == member.compress_size
        need(stored, "it is compressed, which torch's files never are")
        try:
            return archive.read(member)
        except _DAMAGED as error:
            raise ValueError(*error.args) from error

    pickled = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    need(len(pickled) == 1, "it is a zip file, but none of torch's")
    folder = pickled[0].removesuffix("data.pkl")
    order = part(f"{folder}byteorder") if f"{folder}byteorder" in members else b"little"
    need(order == b"little", "its numbers are not little-endian")
    tree = parse(io.BytesIO(part(pickled[0])), _ALLOWED, budget, tensors.storage, lenient=True)
    return tree, Tensors(budget, lambda key: part(f"{folder}data/{key}"))
