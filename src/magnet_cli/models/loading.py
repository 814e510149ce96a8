"""Load generators: from checkpoints, artifacts, factories and modules of the user's own."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from magnet_cli.catalog import references
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.errors import GeneratorError
from magnet_cli.files import checkpoints, documents
from magnet_cli.maths.priors import Prior
from magnet_cli.models import custom, families
from magnet_cli.models.custom import CustomModule
from magnet_cli.models.devices import check_device
from magnet_cli.models.families import FAMILIES, PLAIN_FORMATS
from magnet_cli.models.generator import Generator, Network

_FLAGS = ("bn_truncation", "nvae_latents")  # settings that are chosen, and change nothing that was trained
_IN_SPECS = (*_FLAGS, "noise")  # settings that volumes record themselves
# Arguments of the codes that wrote a file, and what the tensors in it have to say of the same.
_FACTS: dict[str, Callable[[Network], int]] = {
    **dict.fromkeys(("z_dim", "latent_size"), lambda network: network.latent_dim),
    **dict.fromkeys(("c_dim", "label_size"), lambda network: network.num_classes),
    **dict.fromkeys(("w_dim", "dlatent_size"), lambda network: getattr(network, "style_dim", 0)),
    **dict.fromkeys(("img_resolution", "resolution"), lambda network: network.image_shape[-1]),
    **dict.fromkeys(("img_channels", "num_channels"), lambda network: network.image_shape[0]),
}


@dataclass(frozen=True)
class Weights:
    """The contents of a checkpoint; `settings` are keywords for the family's `build` that come with the file.

    `place` is where in the file the weights are, `others` where further ones are that fit. `arguments` are of the code
    that wrote the file.
    """

    name: str
    format: str
    family: str
    state: dict[str, Tensor]
    settings: dict[str, object]
    place: str = ""
    others: tuple[str, ...] = ()
    arguments: dict[str, object] = field(default_factory=dict)


def load(
    source: str | Path | nn.Module | Checkpoint | CustomModule,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    **settings: object,
) -> Generator:
    """Return a generator, its family and sizes read from the weights.

    Args:
        source: the name of an artifact in the cache; the path of a checkpoint; "file.py:factory" or "module:factory", a
            function that returns a torch.nn.Module (its code is run); or such a module. A module maps z [B, D], and
            labels [B] if it has `num_classes`, to [B, ...]; it is copied, and stays as it is.
        device: "cpu", "cuda", "cuda:1", "mps"; None for torch's default device, where torch puts new tensors.
        dtype: of the weights, hence of all computations.
        **settings: keywords of the family's `build`, instead of those that come with the file. For a factory or a
            module: `latent_dim`, `prior` ("normal", "sphere", "fixed-length", "truncated-normal", "uniform"),
            `image_range` (lowest, highest), instead of the module's attributes of the same names.

    Raises:
        ArtifactError: there is no such artifact, file or factory; or its bytes are not those that were pinned.
        GeneratorError: no family fits the weights, the family has no such setting, the module is unsuitable, or the
            device does not exist.

    Examples:
        >>> import torch
        >>> load("mnist").image_shape
        (1, 32, 32)
        >>> load(torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh()), latent_dim=3)
        Generator('Sequential', family='own', latent_dim=3, image_shape=(8,), prior='normal')
    """
    target = check_device(torch.get_default_device() if device is None else device)
    with torch.device("cpu"):  # networks are built there, whatever the default device is
        if not isinstance(source, Checkpoint | CustomModule):
            source, settings = _resolved(source, settings)
        if isinstance(source, CustomModule):
            families.check_settings(source.name, custom.FAMILY, custom.build, settings)
            network: nn.Module = custom.build(source)
            weights = Weights(source.name, "", custom.FAMILY, {}, {})
            sha256 = source.sha256
        else:
            settings = {k: v.item() if isinstance(v, np.generic) else v for k, v in settings.items()}
            weights = read(source)
            network = build(weights, **settings)
            sha256 = _sha256(source, weights, settings)
    network = network.to(device=target, dtype=dtype)
    if weights.family != custom.FAMILY:  # convolutions run up to twice as fast in this format on CPUs and GPUs
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    there = cast(Network, network)
    return Generator(
        name=source.name,
        family=weights.family,
        sha256=sha256,
        image_shape=there.image_shape,
        prior=Prior(there.prior, there.latent_dim, there.num_classes, getattr(there, "mixture", None)),
        module=network,
        format=weights.format,
        settings=weights.settings | settings,
        source=source,
        place=weights.place,
        others=weights.others,
        assumed=_assumed(weights, settings, network),
    )


def read(checkpoint: Checkpoint, place: str = "") -> Weights:
    """Return the weights in a checkpoint, their family, and the settings that come with them.

    Args:
        checkpoint: the file; a family that it names is the only one that counts.
        place: where in the file the weights are that are meant, if it has several that fit.
    """
    if checkpoint.family and checkpoint.family not in FAMILIES:
        message = f"{checkpoint.name} is of the family {checkpoint.family}, which this magnet cannot build"
        raise GeneratorError(message, f"families it can: {', '.join(FAMILIES)}; `magnet list` shows whose are whose")
    candidates = [checkpoint.family] if checkpoint.family else list(FAMILIES)

    def family_of(shapes: checkpoints.Shapes) -> str:
        return next((name for name in candidates if FAMILIES[name].recognises(shapes)), "")

    contents = checkpoints.read(checkpoint.read(), checkpoint.name, lambda shapes: bool(family_of(shapes)), place)
    family = family_of({name: tuple(value.shape) for name, value in contents.state.items()})
    if not family:  # of formats that hold one network
        message = f"the weights of {checkpoint.name} fit none of {', '.join(candidates)}; "
        message += f"their first tensors: {', '.join(list(contents.state)[:3])}"
        raise GeneratorError(message, f"families: {', '.join(FAMILIES)}")
    translations = getattr(FAMILIES[family], "TRANSLATIONS", {})
    if contents.format not in {*PLAIN_FORMATS, *translations}:
        message = f"{checkpoint.name} has the weights of a {family} in a file of the format {contents.format}"
        raise GeneratorError(message, f"pass the state dict of a {family}, as safetensors or a torch file")
    translate = translations.get(contents.format, lambda _arguments, _attributes: {})
    return Weights(
        name=checkpoint.name,
        format=contents.format,
        family=family,
        state=contents.state,
        settings=contents.settings | translate(contents.arguments, contents.attributes),
        place=str(contents.place),
        others=tuple(map(str, contents.others)),
        arguments=contents.arguments if contents.format not in PLAIN_FORMATS else {},
    )


def build(weights: Weights, **settings: object) -> nn.Module:
    """Return the network of a checkpoint, float64 and in eval mode; `settings` replace those beside the weights."""
    architecture = FAMILIES[weights.family]
    merged = weights.settings | settings
    families.check_settings(weights.name, weights.family, architecture.build, merged)
    network: nn.Module = architecture.build(weights.state, **merged)
    for name, number in _FACTS.items():
        stored, built = weights.arguments.get(name), number(cast(Network, network))
        if name in weights.arguments and stored != built:
            message = f"{weights.name} was made with {name} = {str(stored)[:40]}, and its tensors give {built}"
            raise GeneratorError(message, "check that the file holds the whole generator, as its code wrote it")
    return network


def _assumed(weights: Weights, settings: dict[str, object], network: nn.Module) -> dict[str, object]:
    if weights.family == custom.FAMILY:
        return {}
    usual = families.defaults(weights.family) | getattr(network, "told", {})
    known = (*weights.settings, *settings, *_FLAGS)
    return {name: value for name, value in usual.items() if name not in known}


def _sha256(source: Checkpoint, weights: Weights, settings: dict[str, object]) -> str:
    """Return what tells the function apart: the hash of the file, with the settings that change what it says."""
    usual = families.defaults(weights.family) | weights.settings
    changed = {k: v for k, v in settings.items() if k not in _IN_SPECS and v != usual[k]}
    if not changed or not source.sha256:
        return source.sha256
    return documents.sha256_bytes(documents.canonical({"sha256": source.sha256, "settings": changed}))


def _resolved(
    source: str | Path | nn.Module, settings: dict[str, object]
) -> tuple[Checkpoint | CustomModule, dict[str, object]]:
    """Return what a source means, and the settings that are left for `build`."""
    if not isinstance(source, nn.Module) and not references.is_factory(str(source)):
        return Checkpoint.find(str(source)), settings
    own = {name: settings[name] for name in references.OWN_SETTINGS if name in settings}
    rest = {name: value for name, value in settings.items() if name not in own}
    make: Callable[..., CustomModule] = custom.from_module if isinstance(source, nn.Module) else custom.from_factory
    return make(source, **own), rest
