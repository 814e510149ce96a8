"""The parts that StyleGAN2 and StyleGAN3 share: the mapping network, truncation, and the styles of all layers."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from magnet_cli.errors import GeneratorError
from magnet_cli.models.generators.state_dict import State, linear, one_hot

_EPSILON = 1e-8  # in the normalisation of z
_LEAK = 0.2
_MEAN_ROWS = 4096  # latents that the mean of w is estimated from, if a file does not have it


class Mapping(nn.Module):
    """The mapping network: maps latent and label to w.

    Args:
        weights: [(W [n, m], b [n]), …] of the layers, all gains multiplied in.
        embedding: (W [n, num_classes], b [n]) of the label's layer, all gains multiplied in; None if unconditional.
    """

    def __init__(self, weights: list[tuple[Tensor, Tensor]], embedding: tuple[Tensor, Tensor] | None) -> None:
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

    Args:
        mapping: the mapping network.
        mean: [Dw], the mean of w, which truncation draws to.
        affine: (W [S, Dw], b [S]) of all layers' styles one after the other, all gains multiplied in.
        cut: [S] bool, the styles that truncation applies to; None for all.
    """

    prior = "sphere"  # z is scaled to |z| = √D before anything else
    truncates = "w, towards its mean"
    mean: Tensor
    cut: Tensor | None
    images: Callable[[Tensor], Tensor]  # styles [B, S] to images [B, C, H, W], in the class of each family

    def __init__(self, mapping: Mapping, mean: Tensor, affine: tuple[Tensor, Tensor], cut: Tensor | None) -> None:
        super().__init__()
        self.mapping = mapping
        self.affines = linear(*affine)
        self.register_buffer("mean", mean)
        self.register_buffer("cut", cut)
        self.latent_dim = mapping.latent_dim
        self.style_dim = len(mean)
        self.num_classes = mapping.num_classes

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
        self.affines: list[tuple[Tensor, Tensor]] = []  # of the layers so far
        self.places: list[int] = []  # of each of their styles, the number of the w that it comes from

    def mapping(self, multiplier: float) -> Mapping:
        """Return the mapping network, the gain √2 and the learning-rate multiplier in its weights."""
        embedding, embedded = None, 0
        if "mapping.embed.weight" in self.tensors:
            weight = self.take("mapping.embed.weight", None, None)
            embedded = len(weight)
            embedding = (weight / math.sqrt(weight.shape[1]), self.take("mapping.embed.bias", embedded))
        weights: list[tuple[Tensor, Tensor]] = []
        size = None
        while (name := f"mapping.fc{len(weights)}") + ".weight" in self.tensors:
            weight = self.take(f"{name}.weight", None, size)
            size = len(weight)
            gain = math.sqrt(2) * multiplier
            weights.append((weight * gain / math.sqrt(weight.shape[1]), self.take(f"{name}.bias", size) * gain))
        if embedded >= weights[0][0].shape[1]:
            message = f"mapping.fc0 takes {weights[0][0].shape[1]} numbers, and the label alone gives {embedded}"
            raise GeneratorError(message, "magnet needs a generator that takes latents")
        return Mapping(weights, embedding)

    def mean(self, mapping: Mapping) -> Tensor:
        """Return the mean of w: the stored one, else that of fixed latents with labels in turn."""
        if "mapping.w_avg" in self.tensors:
            return self.take("mapping.w_avg", mapping.style_dim)
        z = torch.randn(_MEAN_ROWS, mapping.latent_dim, generator=torch.Generator().manual_seed(0)).to(torch.float64)
        labels = torch.arange(_MEAN_ROWS) % mapping.num_classes if mapping.num_classes else None
        with torch.no_grad():
            return mapping(z, labels).mean(dim=0)

    def style(self, name: str, width: int, style_dim: int, place: int) -> None:
        """Add the affine map of a layer's style, of `width` numbers, which takes the w number `place`."""
        weight = self.take(f"{name}.affine.weight", width, style_dim)
        self.affines.append((weight / math.sqrt(style_dim), self.take(f"{name}.affine.bias", width)))
        self.places += [place] * width

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return (W [S, Dw], b [S]) of all the styles so far."""
        weights, biases = zip(*self.affines, strict=True)
        return torch.cat(weights), torch.cat(biases)

    def cut(self, cutoff: int | None) -> Tensor | None:
        """Return which styles [S] bool come from the first `cutoff` w; None for all."""
        return None if cutoff is None else torch.tensor(self.places) < cutoff


def check_positive(**values: object) -> None:
    """Check that settings are positive numbers; `conv_clamp` may be None.

    Raises:
        GeneratorError: a setting is not positive.
    """
    for name, value in values.items():
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else 0
        if not (math.isfinite(number) and number > 0) and not (name == "conv_clamp" and value is None):
            message = f"{name} {value!r} is asked for, and a positive number is needed"
            raise GeneratorError(message, f"check the setting {name} that comes with the file")


def clamped(x: Tensor, limit: float | None) -> Tensor:
    """Return x clamped to ±limit; None for no limit."""
    return x if limit is None else x.clamp(-limit, limit)


def _normalised(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + _EPSILON)
