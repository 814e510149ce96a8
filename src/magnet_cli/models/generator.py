"""The contract of a generator: latents in, images out, whatever the architecture.

Every family is a file in `generators/` with two functions: `recognises(shapes)` tells whether names and shapes are of
the family, and `build(state, **settings)` returns the network (float64, in eval mode, its weights without gradients),
or raises GeneratorError. docs/reference/families.md describes the settings.
Every network has the attributes latent_dim, image_shape, prior and num_classes, and forward(z, labels, truncation). Its
class attribute `truncates` says what truncation acts on; the annotation of `labels` tells whether the family takes
labels. A network with an intermediate latent w also has style_dim and, with w [B, Dw]:

    mapping(z, labels) -> w, untruncated       truncated(w, truncation) -> w
    synthesis(w, truncation) -> images         affine(w, truncation) -> [B, S], all layers' styles in their order

`prior` of a network is the kind of a maths.priors.Prior. A network of the kind "mixture" has the attribute `mixture`:
its labels are the components, and may be left out. A user's own module becomes such a network in `custom`.

Labels are [B] int64, or [B, num_classes] floating. Truncation ψ in (0, 1] is applied inside the network.

A family whose official code has file formats of its own has TRANSLATIONS: a dict from the format (checkpoints.Contents)
to a function of the arguments and attributes in the file. The function returns the keywords for `build`, and refuses
what it does not know.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.errors import GeneratorError, SpecError
from magnet_cli.maths.priors import Prior
from magnet_cli.models import custom
from magnet_cli.models.outputs import is_image_shape

OUTPUTS = ("pixel", "style", "affine")  # a generator's own outputs that a Jacobian can be taken of


class Network(Protocol):
    """The attributes that every network has; see the top of the module for those that only some have."""

    latent_dim: int
    image_shape: tuple[int, ...]
    prior: str
    num_classes: int


@dataclass(frozen=True, repr=False)
class Generator:
    """A pretrained generator: maps latents [B, D] to images [B, C, H, W] in [-1, 1], a user's own to [B, ...].

    Attributes:
        name: what the user calls it.
        family: the architecture, a key of FAMILIES, or "own".
        sha256: of the checkpoint's bytes, with the settings that change what the file says; of the state dict of a
            user's own module.
        image_shape: (C, H, W); any shape for a user's own module.
        prior: the distribution of the latents and labels: `prior.draw(n, seed)`.
        module: the network, in eval mode, its weights without gradients.
        format: file format of the checkpoint; empty for a user's own module.
        settings: keywords of `build` that the weights alone do not tell.
        place: where in the file the weights are; empty for a user's own module.
        others: where in the file further weights are that fit; averaged ones go before raw ones.
        assumed: settings that nothing tells, neither weights nor file nor user, with the values that are taken.
        source: the checkpoint or module that the generator was loaded from, to load it again in another precision.

    Examples:
        >>> import torch
        >>> from magnet_cli.models import load
        >>> generator = load("mnist")
        >>> generator
        Generator('mnist', family='dcgan', latent_dim=16, image_shape=(1, 32, 32), prior='normal')
        >>> generator(torch.zeros(2, 16)).shape
        torch.Size([2, 1, 32, 32])
    """

    name: str
    family: str
    sha256: str
    image_shape: tuple[int, ...]
    prior: Prior
    module: nn.Module
    format: str = ""
    settings: dict[str, object] = field(default_factory=dict)
    source: Checkpoint | custom.CustomModule | None = field(default=None, compare=False)
    place: str = ""
    others: tuple[str, ...] = ()
    assumed: dict[str, object] = field(default_factory=dict)

    @property
    def latent_dim(self) -> int:
        """D, the size of a latent."""
        return self.prior.latent_dim

    @property
    def num_classes(self) -> int:
        """Number of labels; 0 if the generator takes none."""
        return self.prior.num_classes

    @property
    def style_dim(self) -> int:
        """Dw, the size of the intermediate latent; 0 if there is none."""
        return getattr(self.module, "style_dim", 0)

    @property
    def noise(self) -> str:
        """Noise inputs: "const" as stored, "none", or "seed-N" as drawn; empty for networks without noise inputs."""
        return getattr(self.module, "noise", "")

    @property
    def num_parameters(self) -> int:
        """Number of parameters as published, before any are folded together."""
        there = sum(p.numel() for p in self.module.parameters())
        return getattr(self.module, "num_parameters", there)

    @property
    def bn_truncation(self) -> float:
        """Truncation ψ of the batch-norm statistics where it differs from that of z; else 0."""
        return getattr(self.module, "bn_truncation", 0.0)

    @property
    def nvae_latents(self) -> str:
        """Which groups of an NVAE are the latent, "top" or "all"; empty for other families."""
        return getattr(self.module, "nvae_latents", "")

    @property
    def image_range(self) -> tuple[float, ...]:
        """(lowest, highest) intensity of a user's own module before scaling to [-1, 1]; empty if it is (-1, 1)."""
        return getattr(self.module, "image_range", ())

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels, where a user's own module has them."""
        return getattr(self.module, "classes", ())

    @property
    def is_custom(self) -> bool:
        """Whether the module is the user's own, whose weights alone do not tell its function."""
        return self.family == custom.FAMILY

    @property
    def gives_images(self) -> bool:
        """Whether the outputs can be shown: [C, H, W] with one colour or three."""
        return is_image_shape(self.image_shape)

    @property
    def spaces(self) -> tuple[str, ...]:
        """The spaces that the Jacobian's input can live in."""
        return ("z", "w") if self.style_dim else ("z",)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The generator's own outputs that a Jacobian can be taken of; image models can follow any generator."""
        return OUTPUTS if self.style_dim else OUTPUTS[:1]

    def __repr__(self) -> str:
        names = ("family", "latent_dim", "image_shape")
        fields = "".join(f", {name}={getattr(self, name)!r}" for name in names) + f", prior={self.prior.kind!r}"
        classes = f", num_classes={self.num_classes}" if self.num_classes else ""
        return f"Generator({self.name!r}{fields}{classes})"

    def __call__(self, z: Tensor, truncation: float = 1.0, labels: Tensor | None = None) -> Tensor:
        """Return images [B, C, H, W], differentiable with respect to z.

        Args:
            z: [B, D], of the dtype and on the device that the generator was loaded with.
            truncation: ψ in (0, 1]; 1 is no truncation.
            labels: [B] int64 or [B, num_classes] floating, for generators that take labels.

        Raises:
            GeneratorError: labels are missing, or the generator takes none; a mixture's may be left out.
        """
        self._check_labels(labels)
        images: Tensor = self.module(z, labels, truncation)
        return images

    def function(
        self, space: str = "z", output: str = "pixel", truncation: float = 1.0, labels: Tensor | None = None
    ) -> Callable[[Tensor], Tensor]:
        """Return a differentiable function of z or w to take the Jacobian of; truncation is part of it.

        Args:
            space: "z" [B, D]; or "w" [B, Dw] where there is one, as the mapping network gives it, untruncated.
            output: "pixel", the images; "style", the truncated w; "affine", all layers' styles [B, S].
            truncation: ψ in (0, 1].
            labels: as for images; a single row serves any batch.

        Raises:
            SpecError: there is no such space or output, or the output is the input itself.
            GeneratorError: labels are missing, or the generator takes none.
        """
        self._check_labels(labels)
        self.check_parts(space, output)
        network: Any = self.module  # has more parts than every nn.Module

        def labels_for(z: Tensor) -> Tensor | None:
            return labels if labels is None or len(labels) == len(z) else labels.expand(len(z), *labels.shape[1:])

        functions = {
            ("z", "pixel"): lambda z: network(z, labels_for(z), truncation),
            ("z", "style"): lambda z: network.truncated(network.mapping(z, labels_for(z)), truncation),
            ("z", "affine"): lambda z: network.affine(network.mapping(z, labels_for(z)), truncation),
            ("w", "pixel"): lambda w: network.synthesis(w, truncation),
            ("w", "affine"): lambda w: network.affine(w, truncation),
        }
        return functions[space, output]

    def _check_labels(self, labels: Tensor | None) -> None:
        if (labels is None) == (self.num_classes == 0) or (labels is None and self.prior.mixture is not None):
            return
        takes = f"takes labels 0..{self.num_classes - 1}" if self.num_classes else "takes no labels"
        message = f"{self.name} ({self.family}) {takes}, and {'none are' if labels is None else 'some are'} given"
        raise GeneratorError(message, "pass labels to conditional generators, and to these only")

    def check_parts(self, space: str, output: str) -> None:
        """Check that a Jacobian of that output with respect to that space exists.

        Raises:
            SpecError: there is no such space or output, or the output is the input itself.
        """
        title = f"{self.name} ({self.family})"
        if space not in self.spaces:
            message = f"{title} has no space {space!r}: found {', '.join(self.spaces)}"
            raise SpecError(message, f'pass `space="{self.spaces[0]}"`')
        if output not in self.outputs:
            message = f"{title} has no output {output!r}: found {', '.join(self.outputs)}, and image models"
            raise SpecError(message, f'pass `output="{self.outputs[0]}"`')
        if (space, output) == ("w", "style"):
            message = "the Jacobian of style with respect to w is asked for, and style is w itself"
            raise SpecError(message, 'pass `space="z"`, or another `output`: pixel, affine, or an image model')
