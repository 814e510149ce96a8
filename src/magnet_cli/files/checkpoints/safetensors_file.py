"""Read and write safetensors files, with a family's settings as a JSON object under "magnet" in the metadata."""

import json

from safetensors.torch import load, save
from torch import Tensor, contiguous_format

from magnet_cli.errors import GeneratorError

_SETTINGS = "magnet"


def recognises(data: bytes) -> bool:
    """Return whether bytes begin like a safetensors file, whose length can look like the first bytes of a pickle."""
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") < len(data)


def read(data: bytes, name: str) -> tuple[dict[str, Tensor], dict]:
    """Return the tensors of a file, and the keywords for a family's `build` in its metadata."""
    state = load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    text = (header.get("__metadata__") or {}).get(_SETTINGS, "{}")
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        message = f'the metadata of {name} has {text[:40]!r} under "magnet", and a JSON object is asked for'
        raise GeneratorError(message, "write the file again, with json.dumps of its settings there, or without them")
    return state, settings


def write(state: dict[str, Tensor], settings: dict) -> bytes:
    """Return the bytes of a file; the same tensors and settings give the same bytes."""
    # copies, because tensors in this format do not share memory
    copies = {name: value.detach().clone(memory_format=contiguous_format) for name, value in state.items()}
    return save(copies, {_SETTINGS: json.dumps(settings, sort_keys=True)})
