"""What a file is, by its bytes: the formats that cannot carry code, told without reading what is in them.

Owns the list of formats that are trusted on first use. Loads nothing: pickles are looked through as data, opcode by
opcode, for the names they would import.
"""

import io
import json
import pickletools
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

from magnet_cli.files import atomic

SAFE = ("safetensors", "npz", "HDF5", "ONNX", "weights-only torch files")
_SUFFIXES = {".safetensors", ".npz", ".h5", ".hdf5", ".onnx", ".pt", ".pth", ".bin", ".ckpt", ".tar", ".json", ""}
_MOST = 1 << 26  # bytes of a header or a pickle that are looked at
_TORCH_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how torch.save began before its files were zip files
_WEIGHTS_ALONE = re.compile(
    r"collections OrderedDict|torch \w+Storage|torch\.storage (Typed|Untyped)Storage|torch Size"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|parameter)"
)
_REFUSED = {"STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEWOBJ_EX"}  # names that are not plain text


def may_be_safe(file_name: str) -> bool:
    """Return whether a file of that name can be of a format that cannot carry code; its bytes are checked later."""
    return Path(file_name).suffix.lower() in _SUFFIXES


def of_file(path: Path, file_name: str) -> str:
    """The format of a file that cannot carry code, "volume" for a folder of one; empty for everything else.

    Args:
        path: the file.
        file_name: what it will be called.

    Raises:
        MagnetError: it cannot be read.
    """
    with atomic.explained("read", path):
        if path.is_dir():
            return "volume" if (path / "volume.json").is_file() else ""
        with path.open("rb") as file:
            start = file.read(16)
            file.seek(0)
            if start.startswith(b"\x89HDF\r\n\x1a\n"):
                return "hdf5"
            if start.startswith(b"PK"):
                return _of_zip(file)
            if start.startswith(_TORCH_MAGIC[:16]):
                return "torch" if _names_only_weights(file, 5) else ""
            if start.startswith(b"\x08") and file_name.endswith(".onnx"):  # protobuf: the field ir_version
                return "onnx"
            return _of_json(file, file_name)


def _of_json(file: IO[bytes], file_name: str) -> str:
    """Safetensors begin with the length of a JSON object and that object; a manifest is one."""
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else _MOST
    try:
        if length < _MOST and isinstance(json.loads(file.read(length)), dict):
            return "safetensors"
        if file_name.endswith(".json"):
            file.seek(0)
            return "json" if isinstance(json.loads(file.read(_MOST)), dict) else ""
    except (ValueError, RecursionError):
        pass
    return ""


def _of_zip(file: IO[bytes]) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if names and all(name.endswith(".npy") for name in names):
                return "npz"
            pickles = [i for i in archive.infolist() if i.filename.endswith(".pkl")]
            code = any("/code/" in name or name.endswith((".py", ".so")) for name in names)
            if len(pickles) != 1 or code or pickles[0].file_size > _MOST:
                return ""
            with archive.open(pickles[0]) as member:
                return "torch" if _names_only_weights(member, 1) else ""
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, zlib.error):
        return ""


def _names_only_weights(file: IO[bytes], count: int) -> bool:
    """Whether pickles back to back would import nothing but what tensors are made of; nothing is unpickled."""
    data = io.BytesIO(file.read(_MOST))
    try:
        for _ in range(count):
            for opcode, argument, _ in pickletools.genops(data):
                if opcode.name in _REFUSED:
                    return False
                if opcode.name == "GLOBAL" and not _WEIGHTS_ALONE.fullmatch(str(argument)):
                    return False
    except (ValueError, OverflowError, MemoryError, UnicodeDecodeError):
        return False
    return True
