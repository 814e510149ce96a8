"""Tell the formats of checkpoints apart, and read them; each format is a file here.

Nothing in the bytes is run. No unpickler is used, neither Python's nor torch's: `pickles` reads pickles as data.
"""

from dataclasses import dataclass, field
from pickle import UnpicklingError

from safetensors import SafetensorError
from torch import Tensor

from magnet_cli.errors import GeneratorError
from magnet_cli.files.checkpoints import nvlabs, other_formats, places, safetensors_file, tensors, torch_file
from magnet_cli.files.checkpoints.places import Fits, Place

_PICKLES = tuple(b"\x80" + bytes([protocol]) for protocol in (2, 3, 4, 5))
_BESIDE = "latent_avg"  # rosinality's files have the mean of w beside the networks


@dataclass(frozen=True)
class Contents:
    """The contents of a checkpoint: its format, tensors on the CPU by name, and what goes with them.

    `settings` are keywords for the family's `build` (safetensors only). `arguments` are of the code that wrote the
    file, under that code's names: of the network's constructor (nvlabs), of the training's command line (torch).
    `attributes` are plain attributes of each module, by the module's name (nvlabs-pytorch only). `place` is where in
    the file the weights are, `others` where further ones that fit are.
    """

    format: str
    state: dict[str, Tensor]
    settings: dict = field(default_factory=dict)
    arguments: dict = field(default_factory=dict)
    attributes: dict[str, dict] = field(default_factory=dict)
    place: Place = field(default_factory=Place)
    others: tuple[Place, ...] = ()


def read(data: bytes, name: str, fits: Fits | None = None, weights: str = "") -> Contents:
    """Return the weights in a checkpoint, and what goes with them.

    Args:
        data: contents of the file: safetensors, a file of torch.save, or a network pickle of NVlabs' StyleGAN codes.
        name: of the file, for errors.
        fits: whether names and shapes are those of a network that can be built; where a file holds several mappings,
            or names have a prefix, it tells the weights. Without it the file has to hold a single mapping.
        weights: the place of the weights that are meant, where several fit.

    Raises:
        GeneratorError: the file is of another format, damaged, holds no weights that fit, or several.
    """
    if safetensors_file.recognises(data):
        return _safetensors(data, name, fits, weights)
    other_formats.check(data, name)
    if not (torch_file.recognises(data) or data.startswith(_PICKLES)):
        return _safetensors(data, name, fits, weights)
    try:
        if torch_file.recognises(data):
            return _torch(data, name, fits, weights)
        network = nvlabs.read(data)
    except (UnpicklingError, ValueError, LookupError) as error:
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        message = f"{name} cannot be read as weights alone: {first_line[:200]}"
        hint = "it is damaged or cut off, or holds pickled code, which magnet never runs; save its state dict instead"
        raise GeneratorError(message, hint) from error
    place = Place(network.name)
    return Contents(network.format, network.state, {}, network.arguments, network.attributes, place)


def _torch(data: bytes, name: str, fits: Fits | None, weights: str) -> Contents:
    file = torch_file.read(data)
    if not file.groups:
        other_formats.check_no_module(file.modules, name)
    shapes = {key: {k: tensors.shape(node) or () for k, node in group.items()} for key, group in file.groups.items()}
    if fits is None:
        place, others = places.single(shapes, name)
    else:
        place, others = places.choose(shapes, fits, name, weights)
    nodes = file.groups[place.group]
    beside = {k: node for k, node in file.groups.get("", {}).items() if k == _BESIDE}
    state = {k: file.maker.tensor(node) for k, node in (beside | nodes).items()}
    return Contents("torch", place.taken(state, beside), {}, file.arguments, place=place, others=others)


def _safetensors(data: bytes, name: str, fits: Fits | None, weights: str) -> Contents:
    try:
        state, settings = safetensors_file.read(data, name)
    except SafetensorError as error:
        message = f"{name} is neither safetensors nor a torch checkpoint ({len(data):,} bytes): {error}"
        hint = "pass a .safetensors file or one made by torch.save(module.state_dict(), …)"
        if safetensors_file.recognises(data):
            message = f"{name} is a safetensors file that is damaged or cut off ({len(data):,} bytes): {error}"
            hint = "fetch or write it again"
        raise GeneratorError(message, hint) from error
    if fits is None:
        return Contents("safetensors", state, settings)
    place, others = places.choose({"": {k: tuple(v.shape) for k, v in state.items()}}, fits, name, weights)
    return Contents("safetensors", place.taken(state), settings, place=place, others=others)
