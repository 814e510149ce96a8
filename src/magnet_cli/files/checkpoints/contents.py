"""Checkpoint formats: bytes in, a state dict out, and nothing in the bytes is ever run.

Owns telling the formats apart and what is said of files that hold no weights; each format is a file here. Knows nothing
of architectures. No unpickler is used, neither Python's nor torch's: `pickles` reads pickles as data.
"""

from dataclasses import dataclass, field
from pickle import UnpicklingError

from safetensors import SafetensorError
from torch import Tensor

from magnet_cli.errors import GeneratorError
from magnet_cli.files.checkpoints import nvlabs, safetensors_file, torch_file

_PICKLES = tuple(b"\x80" + bytes([protocol]) for protocol in (2, 3, 4, 5))


@dataclass(frozen=True)
class Contents:
    """What is in a checkpoint.

    Attributes:
        format: "safetensors", "torch", "nvlabs-pytorch" or "nvlabs-tensorflow".
        state: tensors on the CPU, by their names in the file.
        settings: keywords for the family's `build`; safetensors only.
        arguments: what the code that wrote it was called with, in that code's words: constructor of the network
            (nvlabs), command line of the training (torch).
        attributes: by the name of each module, its plain attributes; nvlabs-pytorch only.
    """

    format: str
    state: dict[str, Tensor]
    settings: dict = field(default_factory=dict)
    arguments: dict = field(default_factory=dict)
    attributes: dict[str, dict] = field(default_factory=dict)


def read(data: bytes, name: str) -> Contents:
    """The weights in a checkpoint's bytes, and what goes with them.

    Args:
        data: the whole file: safetensors, what torch.save writes, or a network pickle of NVlabs' StyleGAN codes.
        name: what to call the file in errors.

    Raises:
        GeneratorError: none of these, damaged, or not weights alone.
    """
    of_torch = torch_file.recognises(data)
    if safetensors_file.recognises(data) or not (of_torch or data.startswith(_PICKLES)):
        return _safetensors(data, name)
    try:
        if of_torch:
            state, arguments = torch_file.read(data, name)
            return Contents("torch", state, arguments=arguments)
        found = nvlabs.read(data)
    except (UnpicklingError, ValueError, LookupError) as error:
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        message = f"{name} cannot be read as weights alone: {first_line[:200]}"
        hint = "it is damaged, or holds pickled code, which magnet never runs; save its state dict instead"
        raise GeneratorError(message, hint) from error
    return Contents(found.format, found.state, {}, found.arguments, found.attributes)


def _safetensors(data: bytes, name: str) -> Contents:
    try:
        state, settings = safetensors_file.read(data, name)
    except SafetensorError as error:
        message = f"{name} is neither safetensors nor a torch checkpoint ({len(data):,} bytes): {error}"
        hint = "pass a .safetensors file or one made by torch.save(module.state_dict(), …)"
        raise GeneratorError(message, hint) from error
    return Contents("safetensors", state, settings)
