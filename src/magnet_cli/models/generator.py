"""Generators: latents in, images out, whatever the architecture.

Owns the Generator contract and `load`, the one door to it. Knows nothing of caches, volumes or Jacobians.

Each family is a file here with two functions: `recognises(state)`, whether a state dict is its own, and
`build(state, **settings)`, the network (float64, in eval mode, without gradients of its weights). Every network has
latent_dim, image_shape, prior and num_classes as attributes, and forward(z, labels, truncation); its class says in
`truncates` what truncation acts on, and by the annotation of `labels` whether it takes them. One with an
intermediate latent w has style_dim, and, w as in W [B, Dw]:

    mapping(z, labels) -> w, untruncated       truncated(w, truncation) -> w
    synthesis(w, truncation) -> images         affine(w, truncation) -> [B, S], all layers' styles in their order

`prior` there is the kind of a maths.priors.Prior; where it is "mixture", the network has the mixture as `mixture`: its
labels are the components, and may be left out. A module of the user's own becomes such a network in `custom`.

Labels are [B] int64, or [B, num_classes] floating. Truncation ψ in (0, 1] is applied inside, as the family has it.

A family whose official code writes files of its own has TRANSLATIONS: by the format (readers.Contents), a function of
the arguments and attributes found there that gives the keywords for `build`, and refuses what it does not know.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType

import torch
from torch import Tensor, nn

from magnet_cli.catalog.cache import Checkpoint
from magnet_cli.errors import GeneratorError, SpecError
from magnet_cli.files import checkpoints
from magnet_cli.maths.priors import Prior
from magnet_cli.models import custom
from magnet_cli.models.custom import CustomModule
from magnet_cli.models.generators import biggan_deep, dcgan, nvae, progan, slogan, stylegan2, stylegan3

FAMILIES = {
    "biggan-deep": biggan_deep,
    "dcgan": dcgan,
    "nvae": nvae,
    "progan": progan,
    "slogan": slogan,
    "stylegan2": stylegan2,
    "stylegan3": stylegan3,
}
PLAIN_FORMATS = ("safetensors", "torch")  # of state dicts, whatever the family
OUTPUTS = ("pixel", "style", "affine")  # what a Jacobian can be taken of that is no image model


@dataclass(frozen=True)
class Generator:
    """A pretrained generator: latent [B, D] to image [B, C, H, W] in [-1, 1]; the user's own, to [B, ...].

    Attributes:
        name: what the user calls it.
        family: the architecture, a key of FAMILIES, or "own".
        sha256: of the checkpoint's bytes; of the state dict where it is the user's own.
        image_shape: (C, H, W); of the user's own, any shape.
        prior: the distribution of its latents and labels.
        module: the network, in eval mode, without gradients of its weights.
        format: of the file it comes from; empty where there is none.
        settings: what `build` was told that weights do not tell.
    """

    name: str
    family: str
    sha256: str
    image_shape: tuple[int, ...]
    prior: Prior
    module: nn.Module
    format: str = ""
    settings: dict[str, object] = field(default_factory=dict)

    @property
    def latent_dim(self) -> int:
        """D, numbers of a latent."""
        return self.prior.latent_dim

    @property
    def num_classes(self) -> int:
        """Number of labels; 0 where it takes none."""
        return self.prior.num_classes

    @property
    def style_dim(self) -> int:
        """Dw, numbers of the intermediate latent; 0 where there is none."""
        return getattr(self.module, "style_dim", 0)

    @property
    def noise(self) -> str:
        """Of a network with noise inputs: "const", as stored, "none", or "seed-N", as drawn; empty for the others."""
        return getattr(self.module, "noise", "")

    @property
    def num_parameters(self) -> int:
        """Of the network as published, where folding changed their number; else as it is."""
        there = sum(p.numel() for p in self.module.parameters())
        return getattr(self.module, "num_parameters", there)

    @property
    def bn_truncation(self) -> float:
        """ψ of batch-norm statistics that depend on it, where it is not to be that of z; else 0."""
        return getattr(self.module, "bn_truncation", 0.0)

    @property
    def nvae_latents(self) -> str:
        """Of an NVAE: "top" or "all", the groups whose noise is the latent; empty for the others."""
        return getattr(self.module, "nvae_latents", "")

    @property
    def image_range(self) -> tuple[float, ...]:
        """Of the user's own: (lowest, highest) intensity before it is brought to [-1, 1]; empty where it is that."""
        return getattr(self.module, "image_range", ())

    @property
    def is_custom(self) -> bool:
        """Whether it is a module of the user's own, whose weights alone do not tell its function."""
        return self.family == custom.FAMILY

    @property
    def gives_images(self) -> bool:
        """Whether what it gives can be shown: [C, H, W] of one colour or three."""
        return is_image_shape(self.image_shape)

    @property
    def spaces(self) -> tuple[str, ...]:
        """Where the input of its Jacobian can live."""
        return ("z", "w") if self.style_dim else ("z",)

    @property
    def outputs(self) -> tuple[str, ...]:
        """What of its own its Jacobian can be taken of; image models can follow the images of any."""
        return OUTPUTS if self.style_dim else OUTPUTS[:1]

    def __call__(self, z: Tensor, truncation: float = 1.0, labels: Tensor | None = None) -> Tensor:
        """Images [B, C, H, W], differentiable.

        Args:
            z: [B, D].
            truncation: ψ in (0, 1]; 1 is none.
            labels: [B] int64 or [B, num_classes] floating, where it takes labels.

        Raises:
            GeneratorError: it takes labels and got none, or the reverse; the components of a mixture may be left out.
        """
        self._check_labels(labels)
        return self.module(z, labels, truncation)

    def function(
        self, space: str = "z", output: str = "pixel", truncation: float = 1.0, labels: Tensor | None = None
    ) -> Callable[[Tensor], Tensor]:
        """What a Jacobian can be taken of: a function of z or w, differentiable, truncation part of it.

        Args:
            space: "z", or "w" where there is one; of w [B, Dw] as the mapping network gives it, untruncated.
            output: "pixel", the images; "style", the truncated w; "affine", all layers' styles [B, S].
            truncation: ψ in (0, 1].
            labels: as for the images; of one row, they serve any batch.

        Raises:
            SpecError: it has no such space or output, or the output is the input itself.
            GeneratorError: it takes labels and got none, or the reverse.
        """
        self._check_labels(labels)
        self.check_parts(space, output)
        network = self.module

        def of(z: Tensor) -> Tensor | None:
            return labels if labels is None or len(labels) == len(z) else labels.expand(len(z), *labels.shape[1:])

        functions = {
            ("z", "pixel"): lambda z: network(z, of(z), truncation),
            ("z", "style"): lambda z: network.truncated(network.mapping(z, of(z)), truncation),
            ("z", "affine"): lambda z: network.affine(network.mapping(z, of(z)), truncation),
            ("w", "pixel"): lambda w: network.synthesis(w, truncation),
            ("w", "affine"): lambda w: network.affine(w, truncation),
        }
        return functions[space, output]

    def _check_labels(self, labels: Tensor | None) -> None:
        if (labels is None) == (self.num_classes == 0) or (labels is None and self.prior.mixture is not None):
            return
        has = f"takes labels 0..{self.num_classes - 1}" if self.num_classes else "takes no labels"
        message = f"{self.name} ({self.family}) {has}, and {'none are' if labels is None else 'some are'} given"
        raise GeneratorError(message, "pass labels to conditional generators, and to these only")

    def check_parts(self, space: str, output: str) -> None:
        """Whether a Jacobian can be taken of that output with respect to that space.

        Raises:
            SpecError: it has no such space or output, or the output is the input itself.
        """
        whose = f"{self.name} ({self.family})"
        if space not in self.spaces:
            message = f"{whose} has no space {space!r}: found {', '.join(self.spaces)}"
            raise SpecError(message, f"pass --space {self.spaces[0]}")
        if output not in self.outputs:
            message = f"{whose} has no output {output!r}: found {', '.join(self.outputs)}, and image models"
            raise SpecError(message, f"pass --output {self.outputs[0]}")
        if (space, output) == ("w", "style"):
            message = "the Jacobian of style with respect to w is asked for, and style is w itself"
            raise SpecError(message, "pass --space z, or another --output: pixel, affine, or an image model")


@dataclass(frozen=True)
class Weights:
    """A checkpoint that was read, of which no network is built yet.

    Attributes:
        name: the checkpoint's.
        format: of the file, as in readers.Contents.
        family: the architecture, a key of FAMILIES.
        state: its tensors, by their names in the file.
        settings: keywords for the family's `build` that come with it.
    """

    name: str
    format: str
    family: str
    state: dict[str, Tensor]
    settings: dict[str, object]


def read(checkpoint: Checkpoint) -> Weights:
    """The weights in a checkpoint, their family, and the settings that come with them.

    Raises:
        ArtifactError: the bytes are not those that were pinned.
        GeneratorError: they are no weights, or no family fits them.
    """
    if checkpoint.family and checkpoint.family not in FAMILIES:
        message = f"{checkpoint.name} is of the family {checkpoint.family}, which this magnet cannot build"
        raise GeneratorError(message, f"families it can: {', '.join(FAMILIES)}; `magnet list` shows whose are whose")
    found = checkpoints.read(checkpoint.read(), checkpoint.name)
    family = next((name for name, module in FAMILIES.items() if module.recognises(found.state)), None)
    if family is None:
        names = ", ".join(list(found.state)[:3])
        message = f"the weights of {checkpoint.name} fit no family magnet can build; their first tensors: {names}"
        raise GeneratorError(message, f"families: {', '.join(FAMILIES)}")
    translations = getattr(FAMILIES[family], "TRANSLATIONS", {})
    if found.format not in {*PLAIN_FORMATS, *translations}:
        message = f"{checkpoint.name} has the weights of a {family} in a file of the format {found.format}"
        raise GeneratorError(message, f"pass the state dict of a {family}, as safetensors or a torch file")
    translate = translations.get(found.format, lambda _arguments, _attributes: {})
    settings = found.settings | translate(found.arguments, found.attributes)
    return Weights(checkpoint.name, found.format, family, found.state, settings)


def build(weights: Weights, **settings: object) -> nn.Module:
    """The network of a checkpoint: float64, in eval mode, without gradients of its weights.

    Args:
        weights: of the checkpoint.
        **settings: of the family's `build`; over those that come with the weights.

    Raises:
        GeneratorError: the weights are not whole, or the family has no such setting.
    """
    told = weights.settings | settings
    return _built(weights.name, weights.family, FAMILIES[weights.family], weights.state, told)


def _built(name: str, family: str, architecture: ModuleType, source: object, settings: dict) -> nn.Module:
    """The network that an architecture builds of a source, once it is known to have these settings."""
    known = inspect.signature(architecture.build).parameters
    if strange := [setting for setting in settings if setting not in known]:
        message = f"{name} is given the setting {strange[0]!r}, which the family {family} does not have"
        raise GeneratorError(message, f"settings of {family}: {', '.join(list(known)[1:]) or 'none'}")
    return architecture.build(source, **settings)


def load(
    checkpoint: Checkpoint | CustomModule, device: str = "cpu", dtype: torch.dtype = torch.float32, **settings: object
) -> Generator:
    """The generator in a checkpoint, family and sizes read from the weights; or one of the user's own.

    Args:
        checkpoint: where the file is; its bytes are verified against its sha256 before they are read. Or what
            `custom.from_factory` found.
        device: "cpu", "cuda", "cuda:1", "mps".
        dtype: of the weights, hence of every product.
        **settings: of the family's `build`, what weights do not tell; over those that come with the file.

    Raises:
        ArtifactError: the bytes are not those that were pinned, or the user's factory is gone.
        GeneratorError: no family fits the weights, it has no such setting, or the device does not exist.
    """
    found = None if isinstance(checkpoint, CustomModule) else read(checkpoint)
    network = (
        build(found, **settings) if found else _built(checkpoint.name, custom.FAMILY, custom, checkpoint, settings)
    )
    network = network.to(device=check_device(device), dtype=dtype)
    if found:  # channels_last: convolutions run up to twice as fast on CPUs and GPUs alike
        network = network.to(memory_format=torch.channels_last)
    return Generator(
        name=checkpoint.name,
        family=found.family if found else custom.FAMILY,
        sha256=checkpoint.sha256,
        image_shape=network.image_shape,
        prior=Prior(network.prior, network.latent_dim, network.num_classes, getattr(network, "mixture", None)),
        module=network,
        format=found.format if found else "",
        settings=(found.settings if found else {}) | settings,
    )


def is_image_shape(shape: tuple[int, ...]) -> bool:
    """Whether what a generator gives is an image of one colour or three, (C, H, W)."""
    return len(shape) == 3 and shape[0] in {1, 3}


def check_device(device: str) -> torch.device:
    """The torch device of that name.

    Raises:
        GeneratorError: this machine has no such device.
    """
    kind, _, number = device.partition(":")
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if int(number or 0) < counts[kind]:
        return torch.device(device)
    found = ", ".join(f"{k} ({n})" for k, n in counts.items() if n)
    message = f"there is no device {device!r} here; found: {found}"
    raise GeneratorError(message, "pass --device cpu, or one of those found (MAGNET_DEVICE sets the default)")


def parse_devices(asked: str | None) -> list[str]:
    """The devices that a user means: one, several with commas between, "all" CUDA devices, or None for the default.

    Raises:
        GeneratorError: this machine has no such device.
    """
    names = (asked or default_device()).split(",")
    if names == ["all"]:
        names = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        if not names:
            message = "all CUDA devices are asked for, and there is none here"
            raise GeneratorError(message, "pass --device cpu, with --workers W for W processes")
    for name in names:
        check_device(name)
    return names


def default_device() -> str:
    """The device used where none is asked: "cuda" where there is one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"
