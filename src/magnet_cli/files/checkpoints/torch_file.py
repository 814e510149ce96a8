"""Read files of torch.save, zipped or older: a state dict, alone or beside what training left there."""

import io
import struct
import zipfile

from torch import Tensor

from magnet_cli.errors import GeneratorError
from magnet_cli.files.checkpoints import tensors
from magnet_cli.files.checkpoints.pickles import Budget, Node, Object, need, parse
from magnet_cli.files.checkpoints.tensors import Tensors, mapping

_ZIP = b"PK\x03\x04"  # as torch.save has written since 1.6
_LEGACY = b"\x8a\x0a" + tensors.LEGACY_MAGIC.to_bytes(10, "little") + b"."  # the first pickle in a file before that
_NAMESPACE = "argparse Namespace"
_GENERATORS = ("g_ema", "netG_state_dict", "state_dict")  # keys of the generator, the first that exists
_HEAD = 32  # bytes that hold the first pickle
_ENCRYPTED = 1
_DAMAGED = (zipfile.BadZipFile, NotImplementedError, EOFError, OverflowError, struct.error)
_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool")
_ALLOWED = {
    **tensors.TENSORS,
    **tensors.STORAGES,
    **tensors.ARRAYS,
    _NAMESPACE: {"NEWOBJ", "BUILD"},
    # beside weights; they are ignored
    **{name: {"REDUCE"} for name in ("torch Size", "torch device", "collections Counter")},
    **{name: {"REDUCE"} for name in ("builtins set", "__builtin__ set")},
    **{f"torch {name}": set() for name in _DTYPES},
}


def recognises(data: bytes) -> bool:
    """Return whether bytes begin like a file of torch.save."""
    return data.startswith(_ZIP) or _LEGACY in data[:_HEAD]


def read(data: bytes, name: str) -> tuple[dict[str, Tensor], dict]:
    """Return the state dict in a file of torch.save, and the plain values of an argparse.Namespace under "args".

    The state dict is the only mapping in the file, or that under "g_ema", "netG_state_dict" or "state_dict", with the
    tensors beside that.
    """
    budget = Budget(len(data))
    tree, maker = _zipped(data, budget) if data.startswith(_ZIP) else _legacy(data, budget)
    content = mapping(tree) or {}
    nested = {key: inner for key, value in content.items() if (inner := mapping(value)) is not None}
    own = next(([nested[key]] for key in _GENERATORS if key in nested), list(nested.values()))
    beside = {key: value for key, value in content.items() if _is_tensor(value)} if len(own) == 1 else {}
    state = beside | own[0] if len(own) == 1 else content
    if not state or not all(isinstance(key, str) and _is_tensor(value) for key, value in state.items()):
        message = f"{name} is a torch file, but holds no single mapping from names to tensors"
        raise GeneratorError(message, "save the generator's state dict alone: torch.save(module.state_dict(), …)")
    return {key: maker.tensor(value) for key, value in state.items()}, _arguments(content.get("args"))


def _is_tensor(node: Node) -> bool:
    return isinstance(node, Object) and node.origin in tensors.TENSORS and mapping(node) is None


def _arguments(node: Node) -> dict:
    if not (isinstance(node, Object) and node.origin == _NAMESPACE and isinstance(node.state, dict)):
        return {}
    return {k: v for k, v in node.state.items() if v is None or isinstance(v, bool | int | float | str)}


def _legacy(data: bytes, budget: Budget) -> tuple[Node, Tensors]:
    tree, parts = tensors.legacy(data, _ALLOWED, budget)
    return tree, Tensors(budget, parts.__getitem__)


def _zipped(data: bytes, budget: Budget) -> tuple[Node, Tensors]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except _DAMAGED as error:
        raise ValueError(*error.args) from error
    members = {member.filename: member for member in archive.infolist()}

    def part(name: str) -> bytes:
        member = members[name]
        stored = member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & _ENCRYPTED
        need(stored and member.file_size == member.compress_size, "it is compressed, which torch's files never are")
        try:
            return archive.read(member)
        except _DAMAGED as error:
            raise ValueError(*error.args) from error

    pickled = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    need(len(pickled) == 1, "it is a zip file, but none of torch's")
    folder = pickled[0].removesuffix("data.pkl")
    order = part(f"{folder}byteorder") if f"{folder}byteorder" in members else b"little"
    need(order == b"little", "its numbers are not little-endian")
    tree = parse(io.BytesIO(part(pickled[0])), _ALLOWED, budget, tensors.storage)
    return tree, Tensors(budget, lambda key: part(f"{folder}data/{key}"))
