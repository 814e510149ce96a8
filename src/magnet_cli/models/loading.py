"""Load generators: from checkpoints, artifacts, factories and modules of the user's own."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from magnet_cli.catalog import references
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.errors import GeneratorError
from magnet_cli.files import checkpoints
from magnet_cli.maths.priors import Prior
from magnet_cli.models import custom
from magnet_cli.models.custom import CustomModule
from magnet_cli.models.devices import check_device
from magnet_cli.models.families import FAMILIES, PLAIN_FORMATS
from magnet_cli.models.generator import Generator, Network

_CUSTOM_SETTINGS = ("latent_dim", "prior", "image_range", "key")


@dataclass(frozen=True)
class Weights:
    """The contents of a checkpoint; `settings` are keywords for the family's `build` that come with the file."""

    name: str
    format: str
    family: str
    state: dict[str, Tensor]
    settings: dict[str, object]


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
    place = check_device(torch.get_default_device() if device is None else device)
    with torch.device("cpu"):  # networks are built there, whatever the default device is
        if not isinstance(source, Checkpoint | CustomModule):
            source, settings = _resolved(source, settings)
        if isinstance(source, CustomModule):
            _check_settings(source.name, custom.FAMILY, custom.build, settings)
            network: nn.Module = custom.build(source)
            family, form = custom.FAMILY, ""
        else:
            weights = read(source)
            network = build(weights, **settings)
            family, form, settings = weights.family, weights.format, weights.settings | settings
    network = network.to(device=place, dtype=dtype)
    if family != custom.FAMILY:  # convolutions run up to twice as fast in this format on CPUs and GPUs
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    there = cast(Network, network)
    prior = Prior(there.prior, there.latent_dim, there.num_classes, getattr(there, "mixture", None))
    return Generator(source.name, family, source.sha256, there.image_shape, prior, network, form, settings, source)


def read(checkpoint: Checkpoint) -> Weights:
    """Return the weights in a checkpoint, their family, and the settings that come with them."""
    if checkpoint.family and checkpoint.family not in FAMILIES:
        message = f"{checkpoint.name} is of the family {checkpoint.family}, which this magnet cannot build"
        raise GeneratorError(message, f"families it can: {', '.join(FAMILIES)}; `magnet list` shows whose are whose")
    contents = checkpoints.read(checkpoint.read(), checkpoint.name)
    family = next((name for name, module in FAMILIES.items() if module.recognises(contents.state)), None)
    if family is None:
        names = ", ".join(list(contents.state)[:3])
        message = f"the weights of {checkpoint.name} fit no family magnet can build; their first tensors: {names}"
        raise GeneratorError(message, f"families: {', '.join(FAMILIES)}")
    translations = getattr(FAMILIES[family], "TRANSLATIONS", {})
    if contents.format not in {*PLAIN_FORMATS, *translations}:
        message = f"{checkpoint.name} has the weights of a {family} in a file of the format {contents.format}"
        raise GeneratorError(message, f"pass the state dict of a {family}, as safetensors or a torch file")
    translate = translations.get(contents.format, lambda _arguments, _attributes: {})
    settings = contents.settings | translate(contents.arguments, contents.attributes)
    return Weights(checkpoint.name, contents.format, family, contents.state, settings)


def build(weights: Weights, **settings: object) -> nn.Module:
    """Return the network of a checkpoint, float64 and in eval mode; `settings` replace those beside the weights."""
    architecture = FAMILIES[weights.family]
    merged = weights.settings | settings
    _check_settings(weights.name, weights.family, architecture.build, merged)
    network: nn.Module = architecture.build(weights.state, **merged)
    return network


def _resolved(
    source: str | Path | nn.Module, settings: dict[str, object]
) -> tuple[Checkpoint | CustomModule, dict[str, object]]:
    """Return what a source means, and the settings that are left for `build`."""
    if not isinstance(source, nn.Module) and not references.is_factory(str(source)):
        return Checkpoint.find(str(source)), settings
    own = {name: settings[name] for name in _CUSTOM_SETTINGS if name in settings}
    rest = {name: value for name, value in settings.items() if name not in own}
    make: Callable[..., CustomModule] = custom.from_module if isinstance(source, nn.Module) else custom.from_factory
    return make(source, **own), rest


def _check_settings(name: str, family: str, make: Callable[..., nn.Module], settings: dict[str, object]) -> None:
    _, *names = inspect.signature(make).parameters
    if unknown := [setting for setting in settings if setting not in names]:
        message = f"{name} is given the setting {unknown[0]!r}, which the family {family} does not have"
        raise GeneratorError(message, f"settings of {family}: {', '.join(names) or 'none'}")
