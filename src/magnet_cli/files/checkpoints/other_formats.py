"""Name files that are no weights magnet reads: what people pass by mistake, and what to do about each."""

import io
import json
import tarfile
import zipfile

from magnet_cli.errors import GeneratorError

_OWN = "load it in a module of your own: file.py:factory"
_EXPORTED = f"the code that it was exported from has a state dict: pass that, or {_OWN}"
_FETCH = "fetch the file itself: where its page is opened in a browser, large files ask once more"
_SAVE = "where it was made: torch.save(module.state_dict(), 'weights.pt'), and pass that"
_UNPACK = "unpack it, and pass the file inside that has the weights"
_BEGINNINGS: list[tuple[bytes, str, str]] = [
    (b"version https://git-lfs", "a pointer of Git LFS, which stands for the weights", "fetch them: `git lfs pull`"),
    (
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file, as Keras writes, or a shard or an index without its mark",
        f"of Keras: {_OWN}",
    ),
    (b"GGUF", "a GGUF file", _OWN),
    (b"\x1f\x8b", "an archive of gzip", _UNPACK),
    (b"BZh", "an archive of bzip2", _UNPACK),
    (b"\xfd7zXZ", "an archive of xz", _UNPACK),
    (b"7z\xbc\xaf", "an archive of 7-Zip", _UNPACK),
    (b"Rar!", "an archive of RAR", _UNPACK),
    (b"\x93NUMPY", "an array of NumPy", _SAVE),
    (b"\x89PNG", "an image", "pass the checkpoint of a generator"),
    (b"\xff\xd8\xff", "an image", "pass the checkpoint of a generator"),
    (b"%PDF", "a PDF document", _FETCH),
]
_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<body")
_TAR, _HEAD, _MEMBERS = 257, 4096, 5
_ONNX = (b"\x12", b"\x1a", b"\x22", b"\x28", b"\x32", b"\x3a", b"\x42")  # protobuf: the fields after ir_version


def check(data: bytes, name: str) -> None:
    """Refuse bytes that are a known format of another kind.

    Raises:
        GeneratorError: they are; the message says which, the hint what to do.
    """
    what, hint = _of_bytes(data)
    if what:
        raise GeneratorError(f"{name} is {what}, and a checkpoint is asked for", hint)


def check_no_module(modules: list[str], name: str) -> None:
    """Refuse a file that has a whole pickled module in the place of its weights."""
    if modules:
        message = f"{name} is a whole pickled module, {modules[0]}, whose code would have to run"
        raise GeneratorError(message, _SAVE)


def _of_bytes(data: bytes) -> tuple[str, str]:
    head = data[:_HEAD].lstrip()
    if not head:
        return f"empty ({len(data):,} bytes)", "fetch or write it again"
    if head.lower().startswith(_PAGES):
        return "a web page", _FETCH
    for beginning, what, hint in _BEGINNINGS:
        if data.startswith(beginning):
            return what, hint
    if data[_TAR : _TAR + 5] == b"ustar":
        return f"a tar archive{_holding(_tarred(data))}", _UNPACK
    if data.startswith(b"\x08") and data[2:3] in _ONNX:
        return "an ONNX file", _EXPORTED
    return _of_zip(data) if data.startswith(b"PK\x03\x04") else _of_text(head)


def _of_zip(data: bytes) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OverflowError, ValueError):
        return "cut off: it begins as a file of torch.save, and its end is missing", "fetch or write it again"
    if any(name.endswith("/constants.pkl") for name in names):
        return "a TorchScript file, whose code would have to run", _EXPORTED
    if any(name.endswith("/data.pkl") for name in names):
        return "", ""
    if names and all(name.endswith(".npy") for name in names):
        return f"an archive of NumPy arrays{_holding(names)}", _SAVE
    return f"a zip archive{_holding(names)}", _UNPACK


def _of_text(head: bytes) -> tuple[str, str]:
    try:
        text = head[: _HEAD // 2].decode("ascii")
    except UnicodeDecodeError:
        return "", ""
    if not text.isprintable() and not text.replace("\n", "").replace("\r", "").replace("\t", "").isprintable():
        return "", ""
    return f"text that begins with {json.dumps(text[:30])}", _FETCH


def _tarred(data: bytes) -> list[str]:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            return [member.name for _, member in zip(range(_MEMBERS), archive, strict=False)]
    except (tarfile.TarError, ValueError, EOFError):
        return []


def _holding(names: list[str]) -> str:
    shown = ", ".join(names[:_MEMBERS])
    return f" that holds {shown}{', …' * (len(names) > _MEMBERS)}" if names else ""
