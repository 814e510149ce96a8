"""The parts that StyleGAN2 and StyleGAN3 share: the mapping network, truncation, and the styles of all layers."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from magnet_cli.errors import GeneratorError
from magnet_cli.models.generators.state_dict import Affine, State, linear, one_hot

_EPSILON = 1e-8  # in the normalisation of z
_LEAK = 0.2
_MEAN_ROWS = 4096  # latents that the mean of w is estimated from, if a file does not have it


class Mapping(nn.Module):
    """Maps latent and label to w; all gains are multiplied into the weights [n, m] and biases [n] of the layers."""

    def __init__(self, weights: list[Affine], embedding: Affine | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(linear(*pair) for pair in weights)
        self.embedding = None if embedding is None else linear(*embedding)
        self.num_classes = 0 if embedding is None else embedding[0].shape[1]
        self.latent_dim = weights[0][0].shape[1] - (0 if embedding is None else len(embedding[0]))
        self.style_dim = len(weights[-1][0])

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the untruncated w [B, Dw] of latents [B, D] and labels, [B] int64 or [B, num_classes] floating."""
        x = _normalised(z)
        if self.embedding is not None:
            x = torch.cat([x, _normalised(self.embedding(one_hot(labels, self.num_classes, z)))], dim=1)
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), _LEAK)
        return x


class StyleNetwork(nn.Module):
    """Maps z to w, w to the styles of all layers, and the styles to an image by `images`, which each family has.

    Truncation draws w to its mean, in the styles that come from the first `cutoff` w (None for all).
    """

    prior = "sphere"  # z is scaled to |z| = √D before anything else
    truncates = "w, towards its mean"
    mean: Tensor
    cut: Tensor | None
    images: Callable[[Tensor], Tensor]  # styles [B, S] to images [B, C, H, W], in the class of each family

    def __init__(self, state: "StyleState", mapping: Mapping, cutoff: int | None) -> None:
        super().__init__()
        self.mapping = mapping
        weights, biases = zip(*state.affines, strict=True)
        self.affines = linear(torch.cat(weights), torch.cat(biases))
        self.register_buffer("mean", state.mean(mapping))
        self.register_buffer("cut", None if cutoff is None else torch.tensor(state.places) < cutoff)
        self.latent_dim, self.style_dim, self.num_classes = mapping.latent_dim, mapping.style_dim, mapping.num_classes

    def forward(self, z: Tensor, labels: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """Map latents [B, D] and labels, [B] or [B, num_classes], to images [B, C, H, W], roughly in [-1, 1]."""
        return self.synthesis(self.mapping(z, labels), truncation)

    def truncated(self, w: Tensor, truncation: float) -> Tensor:
        """Return w [B, Dw] drawn to the mean of w: 1 leaves w as it is, 0 would give the mean."""
        return w if truncation == 1 else self.mean + truncation * (w - self.mean)

    def affine(self, w: Tensor, truncation: float = 1.0) -> Tensor:
        """Return the styles [B, S] of all layers, in their order, of w [B, Dw]; truncated up to the cut-off."""
        styles = self.affines(self.truncated(w, truncation))
        if self.cut is None or truncation == 1:
            return styles
        return torch.where(self.cut, styles, self.affines(w))

    def synthesis(self, w: Tensor, truncation: float = 1.0) -> Tensor:
        """Return images [B, C, H, W] of w [B, Dw], the same for all layers."""
        return self.images(self.affine(w, truncation))


class StyleState(State):
    """A state dict in NVlabs' naming; gathers the affine maps of the styles on the way."""

    def __init__(self, tensors: dict[str, Tensor], family: str) -> None:
        super().__init__(tensors, family)
        self.affines: list[Affine] = []  # of the layers so far
        self.places: list[int] = []  # of each of their styles, the number of the w that it comes from

    def mapping(self, multiplier: float) -> Mapping:
        """Return the mapping network, the gain √2 and the learning-rate multiplier in its weights."""
        embedding, embedded = None, 0
        if "mapping.embed.weight" in self.tensors:
            weight, bias = self.layer("mapping.embed", None, None)
            embedding, embedded = (weight / math.sqrt(weight.shape[1]), bias), len(weight)
        weights: list[Affine] = []
        size = None
        while (name := f"mapping.fc{len(weights)}") + ".weight" in self.tensors:
            weight, bias = self.layer(name, None, size)
            size, gain = len(weight), math.sqrt(2) * multiplier
            weights.append((weight * gain / math.sqrt(weight.shape[1]), bias * gain))
        if embedded >= weights[0][0].shape[1]:
            message = f"mapping.fc0 takes {weights[0][0].shape[1]} numbers, and the label alone gives {embedded}"
            raise GeneratorError(message, "magnet needs a generator that takes latents")
        return Mapping(weights, embedding)

    def mean(self, mapping: Mapping) -> Tensor:
        """Return the mean of w: the stored one, else that of 4,096 fixed latents with labels in turn."""
        if "mapping.w_avg" in self.tensors:
            return self.take("mapping.w_avg", mapping.style_dim)
        z = torch.randn(_MEAN_ROWS, mapping.latent_dim, generator=torch.Generator().manual_seed(0)).to(torch.float64)
        labels = torch.arange(_MEAN_ROWS) % mapping.num_classes if mapping.num_classes else None
        with torch.no_grad():
            return mapping(z, labels).mean(dim=0)

    def style(self, name: str, width: int, style_dim: int, place: int) -> None:
        """Add the affine map of a layer's style, of `width` numbers, which takes the w number `place`."""
        weight, bias = self.layer(f"{name}.affine", width, style_dim)
        self.affines.append((weight / math.sqrt(style_dim), bias))
        self.places += [place] * width


def clamped(x: Tensor, limit: float | None) -> Tensor:
    """Return x clamped to ±limit; None for no limit."""
    return x if limit is None else x.clamp(-limit, limit)


class ToRGB(nn.Module):
    """Maps features to an image: a 1x1 modulated convolution, a bias, a clamp, and the image's scale."""

    conv: Any  # the modulated convolution of the family

    def __init__(self, conv: nn.Module, bias: Tensor, clamp: float | None, scale: float = 1) -> None:
        super().__init__()
        self.conv, self.clamp, self.scale = conv, clamp, scale
        self.bias = nn.Parameter(bias[:, None, None])

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Map features [B, I, H, W] and their style [B, I] to [B, C, H, W]."""
        image = clamped(self.conv(x, style) + self.bias, self.clamp)
        return image if self.scale == 1 else self.scale * image


def _normalised(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + _EPSILON)
