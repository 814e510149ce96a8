"""Checkpoint formats: bytes in, a state dict out, and nothing in the bytes is ever run.

Owns safetensors and weights-only torch files. Knows nothing of architectures.
"""

import io
import json
import pickle

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from magnet_cli.errors import GeneratorError

# What torch's weights-only unpickler raises on changed bytes (found by flipping each byte of a file).
_DAMAGED = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, LookupError),
    *(ValueError, TypeError, AttributeError, AssertionError),
)


def read_state_dict(data: bytes, name: str) -> dict[str, Tensor]:
    """The tensors in a checkpoint's bytes, on the CPU, keyed as in the file.

    Args:
        data: the whole file: safetensors, or what torch.save writes (read with weights_only=True).
        name: what to call the file in errors.

    Returns:
        Flat mapping of names to tensors. A torch file that holds one mapping of tensors under some key (as
        {"netG_state_dict": {...}}), or one under "g_ema", gives that mapping, and the tensors beside it.

    Raises:
        GeneratorError: neither format, damaged, or more than tensors in it.
    """
    if data.startswith(b"PK\x03\x04"):  # a zip file, as torch.save has written since 1.6
        return _read_torch(data, name)
    try:
        return load_safetensors(data)
    except SafetensorError as error:
        message = f"{name} is neither safetensors nor a torch checkpoint ({len(data):,} bytes): {error}"
        hint = "pass a .safetensors file or one made by torch.save(module.state_dict(), …)"
        raise GeneratorError(message, hint) from error


def read_settings(data: bytes) -> dict:
    """What a safetensors file says of its network that names and shapes do not: the JSON object under "magnet".

    Args:
        data: the whole file, one that `read_state_dict` reads.

    Returns:
        Keywords for the family's `build`; none for other files.

    Raises:
        GeneratorError: what is under "magnet" is no JSON object.
    """
    if data.startswith(b"PK\x03\x04"):
        return {}
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    text = header.get("__metadata__", {}).get("magnet", "{}")
    try:
        settings = json.loads(text)
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        message = f'the metadata of the file has {text[:40]!r} under "magnet", and a JSON object is asked for'
        raise GeneratorError(message, "write the file again, with json.dumps of its settings there, or without them")
    return settings


def _read_torch(data: bytes, name: str) -> dict[str, Tensor]:
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except _DAMAGED as error:
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        message = f"{name} cannot be read as weights alone: {first_line}"
        hint = "it is damaged, or holds pickled code, which magnet never runs; save its state dict instead"
        raise GeneratorError(message, hint) from error
    nested = {k: v for k, v in content.items() if isinstance(v, dict)} if isinstance(content, dict) else {}
    averaged = [nested["g_ema"]] if "g_ema" in nested else list(nested.values())
    beside = {k: v for k, v in content.items() if isinstance(v, Tensor)} if len(averaged) == 1 else {}
    state = beside | averaged[0] if len(averaged) == 1 else content
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        message = f"{name} is a torch file, but holds no single mapping from names to tensors"
        raise GeneratorError(message, "save the generator's state dict alone: torch.save(module.state_dict(), …)")
    return state
