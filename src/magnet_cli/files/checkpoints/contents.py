"""Tell the formats of checkpoints apart, and read them; each format is a file here.

Nothing in the bytes is run. No unpickler is used, neither Python's nor torch's: `pickles` reads pickles as data.
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
    """The contents of a checkpoint: its format, tensors on the CPU by name, and what goes with them.

    `settings` are keywords for the family's `build` (safetensors only). `arguments` are of the code that wrote the
    file, under that code's names: of the network's constructor (nvlabs), of the training's command line (torch).
    `attributes` are plain attributes of each module, by the module's name (nvlabs-pytorch only).
    """

    format: str
    state: dict[str, Tensor]
    settings: dict = field(default_factory=dict)
    arguments: dict = field(default_factory=dict)
    attributes: dict[str, dict] = field(default_factory=dict)


def read(data: bytes, name: str) -> Contents:
    """Return the weights in a checkpoint, and what goes with them.

    Args:
        data: contents of the file: safetensors, a file of torch.save, or a network pickle of NVlabs' StyleGAN codes.
        name: of the file, for errors.

    Raises:
        GeneratorError: the file is of another format, damaged, or holds more than weights.
    """
    is_torch = torch_file.recognises(data)
    if safetensors_file.recognises(data) or not (is_torch or data.startswith(_PICKLES)):
        return _safetensors(data, name)
    try:
        if is_torch:
            state, arguments = torch_file.read(data, name)
            return Contents("torch", state, arguments=arguments)
        network = nvlabs.read(data)
    except (UnpicklingError, ValueError, LookupError) as error:
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        message = f"{name} cannot be read as weights alone: {first_line[:200]}"
        hint = "it is damaged, or holds pickled code, which magnet never runs; save its state dict instead"
        raise GeneratorError(message, hint) from error
    return Contents(network.format, network.state, {}, network.arguments, network.attributes)


def _safetensors(data: bytes, name: str) -> Contents:
    try:
        state, settings = safetensors_file.read(data, name)
    except SafetensorError as error:
        message = f"{name} is neither safetensors nor a torch checkpoint ({len(data):,} bytes): {error}"
        hint = "pass a .safetensors file or one made by torch.save(module.state_dict(), …)"
        raise GeneratorError(message, hint) from error
    return Contents("safetensors", state, settings)
