"""SLOGAN (Hwang et al. 2022) as `magnet train slogan` makes it: a generator, and a mixture as the prior of its latents.

The networks are fully connected for points and residual for images; their sizes are read from a state dict. No layer
mixes the rows of a batch: an image is a function of its latent alone.

A label is the component that a latent was drawn from. The image does not depend on the label, which may be left out.
"""

import itertools
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from magnet_cli.errors import GeneratorError, SpecError
from magnet_cli.files.checkpoints import Shapes
from magnet_cli.maths.mixture import Mixture
from magnet_cli.models.generators.state_dict import State

_PARTS = ("weights", "means", "factors")  # of the mixture; in a state dict their names begin with "mixture."
_LARGEST_SEED = 7  # the largest side of the image that the residual network begins with


class Slogan(nn.Module):
    """A network, `body`, from z [B, D] to points [B, F] or images [B, C, H, W], behind a mixture prior."""

    prior = "mixture"
    truncates = "z, towards the mean of its component"
    _weights: Tensor
    _means: Tensor
    _factors: Tensor

    def __init__(self, mixture: Mixture, body: nn.Module, image_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.mixture = mixture
        self.body = body
        self.latent_dim = mixture.latent_dim
        self.num_classes = mixture.num_components
        self.image_shape = image_shape
        for name in _PARTS:
            value = torch.from_numpy(np.array(getattr(mixture, name)))
            self.register_buffer(f"_{name}", value, persistent=False)

    def forward(self, z: Tensor, labels: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """Map latents [B, D] to images; truncation draws each to the mean of its most probable component."""
        if truncation != 1:
            means = self._means[self._log_densities(z).argmax(1)]
            z = means + truncation * (z - means)
        return self.body(z)

    def _log_densities(self, z: Tensor) -> Tensor:
        # [B, K], up to a constant
        away = (z.detach()[None] - self._means[:, None]).mT
        white = torch.linalg.solve_triangular(self._factors, away, upper=False)
        constants = self._weights.log() - self._factors.diagonal(dim1=1, dim2=2).log().sum(1)
        return constants[None] - 0.5 * white.square().sum(1).mT


def points(latent_dim: int, width: int, depth: int, features: int) -> nn.Sequential:
    """Return a map from latents [B, D] to points [B, F]: `depth` hidden layers of `width`, ReLU; piecewise affine."""
    sizes = (latent_dim, *[width] * depth)
    hidden = (layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU()))
    return nn.Sequential(*hidden, nn.Linear(sizes[-1], features))


class Residual(nn.Module):
    """Maps latents [B, D] to images [B, C, S, S] in [-1, 1], through blocks that double the side, as the end does."""

    def __init__(self, latent_dim: int, widths: tuple[int, ...], first: int, channels: int) -> None:
        super().__init__()
        self.first = (widths[0], first, first)
        self.start = nn.Linear(latent_dim, math.prod(self.first))
        self.blocks = nn.ModuleList(UpBlock(a, b) for a, b in itertools.pairwise(widths))
        self.end = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Images."""
        x = self.start(z).unflatten(1, self.first)
        for block in self.blocks:
            x = block(x)
        return torch.tanh(self.end(_doubled(functional.leaky_relu(x, 0.2))))


class UpBlock(nn.Module):
    """Doubles the side: two convolutions beside a plain way for what is already there."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(n_in, n_out, 3, padding=1)  # at the smaller side: there it costs a quarter
        self.two = nn.Conv2d(n_out, n_out, 3, padding=1)
        self.skip = nn.Conv2d(n_in, n_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, n_in, S, S] to [B, n_out, 2S, 2S]."""
        inside = _doubled(functional.leaky_relu(self.one(functional.leaky_relu(x, 0.2)), 0.2))
        return self.two(inside) + _doubled(self.skip(x))


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="nearest")


def first_side(side: int) -> int:
    """Return the side of a residual network's first image: the last one's, halved down to 7 or less; else SpecError."""
    first = side
    while first > _LARGEST_SEED and first % 2 == 0:
        first //= 2
    if first > _LARGEST_SEED or first == side:
        message = f"images of side {side} are asked for, and that is not 2, 4, … times a number up to {_LARGEST_SEED}"
        raise SpecError(message, "pad or scale the images first, say to 32 or 64")
    return first


def recognises(shapes: Shapes) -> bool:
    """Return whether names and shapes of tensors are those of this family: it has a mixture."""
    return all(f"mixture.{name}" in shapes for name in _PARTS)


def build(state: dict[str, Tensor]) -> Slogan:
    """Return the network of a state dict, its sizes read from the weights; float64, eval mode."""
    reader = State(state, "a SLOGAN")
    weights = reader.take("mixture.weights", None)
    means = reader.take("mixture.means", len(weights), None)
    d = means.shape[1]
    factors = reader.take("mixture.factors", len(weights), d, d)
    try:
        mixture = Mixture(*(tensor.numpy() for tensor in (weights, means, factors)))
    except SpecError as error:
        raise GeneratorError(error.message, error.hint) from error
    if "body.start.weight" in reader.tensors:
        body, shape = _residual(reader, d)
    else:
        body, shape = _points(reader, d)
    taken = {name.removeprefix("body."): reader.tensors[name] for name in reader.taken if name.startswith("body.")}
    body.load_state_dict(taken, assign=True)
    reader.finish()
    return Slogan(mixture, body, shape).eval().requires_grad_(False)


def _points(reader: State, d: int) -> tuple[nn.Module, tuple[int, ...]]:
    depth = max(sum(name.startswith("body.") and name.endswith(".weight") for name in reader.tensors) - 1, 1)
    width = d
    for number in range(depth + 1):
        width = len(reader.layer(f"body.{2 * number}", None if number in {0, depth} else width, width)[0])
    hidden = len(reader.tensors["body.0.weight"])
    with torch.device("meta"):
        return points(d, hidden, depth, width), (width,)


def _residual(reader: State, d: int) -> tuple[nn.Module, tuple[int, ...]]:
    deep = "body.blocks.0.one.weight" in reader.tensors
    widths = [reader.take("body.blocks.0.one.weight" if deep else "body.end.weight", None, None, 3, 3).shape[1]]
    for number in range(reader.count("body.blocks.{}.one.weight")):
        name = f"body.blocks.{number}"
        out = len(reader.layer(f"{name}.one", None, widths[-1], 3, 3)[0])
        reader.layer(f"{name}.two", out, out, 3, 3)
        reader.layer(f"{name}.skip", out, widths[-1], 1, 1)
        widths.append(out)
    channels = len(reader.layer("body.end", None, widths[-1], 3, 3)[0])
    start, _ = reader.layer("body.start", None, d)
    first = math.isqrt(len(start) // widths[0])
    if first * first * widths[0] != len(start):
        message = f"body.start.weight gives {len(start)} numbers, which are no square of {widths[0]} channels"
        raise GeneratorError(message, "check that the file holds one whole generator")
    side = first << len(widths)
    with torch.device("meta"):
        return Residual(d, tuple(widths), first, channels), (channels, side, side)
