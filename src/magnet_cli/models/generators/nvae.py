"""NVAE (Vahdat and Kautz 2020) as it samples: noise of all groups in, the mean of the image's distribution out.

Sizes are read from a state dict in the naming of NVlabs' code; tensors of the encoder are skipped.
"""

import math
import re

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from magnet_cli.errors import GeneratorError
from magnet_cli.files.checkpoints import Shapes
from magnet_cli.models.generators.state_dict import Affine, State, conv

LATENTS = ("top", "all")
_BATCH_NORM_EPSILON = 1e-5
_WEIGHT_NORM_EPSILON = 1e-5
_BRANCH = 0.1  # weight of a cell's branch beside its skip path
_BOUND = 5.0  # on means and log standard deviations of all distributions, by tanh
_LEAST_SIGMA = 0.01
_NOISE_SEED = 0  # of the fixed noise; part of a volume's spec
_MIXTURE = 10  # channels of the last layer for each logistic of a mixture: a weight, then 3 of each colour
_SKIPPED = ("stem.", "pre_process.", "enc_tower.", "enc0.", "enc_sampler.", "nf_cells.")  # parts of the encoder
_UNUSED = (".num_batches_tracked", ".weight_normalized")  # counters of training, and copies of weights
_NAMES = {"prior_ftr0", "dec_tower.0.conv.weight", "image_conditional.1.weight"}
_NUMBER = re.compile(r"(dec_tower|post_process)\.(\d+)\..+")


class InvertedResidual(nn.Module):
    """1x1 convolutions to many channels and back around a depthwise one; all batch norms are in the weights.

    The side is doubled before the depthwise convolution: the layers before act on each pixel alone, and give the same
    on fewer pixels.
    """

    def __init__(self, widen: Affine, depthwise: Affine, narrow: Affine, *, doubles: bool) -> None:
        super().__init__()
        self.widen, self.narrow = conv(*widen), conv(*narrow)
        self.depthwise = conv(*depthwise, groups=len(depthwise[0]))
        self.doubles = doubles

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, I, H, W] to [B, O, H, W] or [B, O, 2H, 2W]."""
        x = functional.silu(self.widen(x))
        x = functional.silu(self.depthwise(_doubled(x) if self.doubles else x))
        return self.narrow(x)


class SwishConvolutions(nn.Module):
    """Convolutions, each after a batch norm and a swish; all norms except the first are in the weights."""

    def __init__(self, norm: Affine, weights: list[Affine], *, doubles: bool) -> None:
        super().__init__()
        self.factor, self.offset = (nn.Parameter(part[:, None, None]) for part in norm)
        self.layers = nn.ModuleList(conv(*pair) for pair in weights)
        self.doubles = doubles

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, I, H, W] to [B, O, H, W] or [B, O, 2H, 2W]."""
        x = x * self.factor + self.offset
        for number, layer in enumerate(self.layers):
            x = functional.silu(x)
            x = layer(_doubled(x) if self.doubles and number == 0 else x)
        return x


class Excitation(nn.Module):
    """Scales each channel by a function of the means of all channels (squeeze and excitation, Hu et al. 2018)."""

    def __init__(self, squeeze: Affine, excite: Affine) -> None:
        super().__init__()
        self.squeeze, self.excite = (conv(weight[:, :, None, None], bias) for weight, bias in (squeeze, excite))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C, H, W]."""
        means = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.excite(functional.relu(self.squeeze(means))))


class Cell(nn.Module):
    """A residual cell; with a convolution [O, I, 1, 1] on its skip path, `past`, it doubles the side."""

    def __init__(self, branch: nn.Module, excitation: Excitation | None, past: Tensor | None) -> None:
        super().__init__()
        self.branch, self.excitation = branch, excitation
        self.past = None if past is None else conv(past, None)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, I, H, W] to [B, O, H, W] or [B, O, 2H, 2W]."""
        own = self.branch(x)
        if self.excitation is not None:
            own = self.excitation(own)
        if self.past is not None:  # a 1x1 convolution gives the same before the interpolation
            x = functional.interpolate(self.past(x), scale_factor=2, mode="bilinear", align_corners=True)
        return x + _BRANCH * own


class Group(nn.Module):
    """A group of latents [c, H, W]: their prior given the features so far, and how a latent enters the features.

    `moments` maps features to mean and log standard deviation, and is None for the first group, whose prior is fixed.
    """

    def __init__(self, combine: Affine, moments: Affine | None, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.combine = conv(*combine)
        self.moments = None if moments is None else conv(*moments)
        self.shape = shape

    def distribution(self, x: Tensor, temperature: float) -> tuple[Tensor | float, Tensor | float]:
        """Return mean and standard deviation [B, c, H, W] of the latent, given features [B, C, H, W]."""
        if self.moments is None:
            return 0.0, (1 + _LEAST_SIGMA) * temperature
        mean, log_sigma = (_bounded(part) for part in self.moments(functional.elu(x)).chunk(2, dim=1))
        return mean, (log_sigma.exp() + _LEAST_SIGMA) * temperature

    def forward(self, x: Tensor, noise: Tensor, temperature: float) -> Tensor:
        """Map features [B, C, H, W] and standard normal noise [B, c, H, W] to features."""
        mean, sigma = self.distribution(x, temperature)
        return self.combine(torch.cat([x, mean + sigma * noise], dim=1))


class NVAE(nn.Module):
    """Maps the noise of all groups to an image: the mean of the distribution that the decoder gives.

    A draw from that distribution would be no differentiable function of the latent (the choice of a mixture's part, a
    coin for each pixel), or add noise that is no part of the latent. Truncation is NVAE's temperature: it scales the
    standard deviation of every group, groups with fixed noise included.

    `start` [C, h, w] is the decoder's first input; the channels of `head`, the last convolution, are the parameters of
    the distribution (`mean_of`).
    """

    prior = "normal"
    num_classes = 0
    truncates = "the noise of every group"

    def __init__(self, start: Tensor, tower: list[nn.Module], post: list[Cell], head: Affine, latents: str) -> None:
        super().__init__()
        self.start = nn.Parameter(start[None])
        self.tower, self.post, self.head = nn.ModuleList(tower), nn.ModuleList(post), conv(*head)
        self.nvae_latents = latents
        shapes = [layer.shape for layer in tower if isinstance(layer, Group)]
        drawn = shapes[:1] if latents == "top" else shapes
        self.latent_dim = sum(math.prod(shape) for shape in drawn)
        self.shapes = shapes
        self.num_fixed = len(shapes) - len(drawn)
        self.noise = f"seed-{_NOISE_SEED}" if self.num_fixed else ""
        for number in range(len(drawn), len(shapes)):  # each group has its own stream
            fixed = np.random.default_rng([_NOISE_SEED, number]).standard_normal(shapes[number])
            self.register_buffer(f"noise_{number}", torch.from_numpy(fixed)[None])
        doubled = sum(layer.past is not None for layer in (*tower, *post) if isinstance(layer, Cell))
        side = start.shape[-1] << doubled
        self.image_shape = (_colours(len(head[0])), start.shape[-2] << doubled, side)

    def forward(self, z: Tensor, labels: None = None, truncation: float = 1.0) -> Tensor:
        """Map latents [B, D] to images [B, C, H, W] in [-1, 1]."""
        return mean_of(self.logits(self.noises(z), truncation))

    def noises(self, z: Tensor) -> list[Tensor]:
        """Return the noise [B, c, H, W] of every group: parts of the latents [B, D], then the fixed noise."""
        count = len(self.shapes) - self.num_fixed
        parts = z.split([math.prod(shape) for shape in self.shapes[:count]], dim=1)
        drawn = [part.reshape(len(z), *shape) for part, shape in zip(parts, self.shapes[:count], strict=True)]
        fixed = [getattr(self, f"noise_{number}") for number in range(count, len(self.shapes))]
        return drawn + [noise.expand(len(z), -1, -1, -1) for noise in fixed]

    def logits(self, noises: list[Tensor], temperature: float = 1.0) -> Tensor:
        """Return the parameters [B, P, H, W] of the image's distribution, given the noise of every group."""
        x, left = self.start.expand(len(noises[0]), -1, -1, -1), iter(noises)
        for layer in self.tower:
            x = layer(x, next(left), temperature) if isinstance(layer, Group) else layer(x)
        for cell in self.post:
            x = cell(x)
        return self.head(functional.elu(x))


def mean_of(logits: Tensor) -> Tensor:
    """Return the mean image [B, C, H, W] in [-1, 1] of the distribution with the parameters [B, P, H, W].

    One channel: Bernoulli. Two or six: normal, means before log standard deviations, of one or three colours. A
    multiple of ten: a mixture of logistics (Salimans et al. 2017, section 2.2), in which the mean of each colour is
    linear in the colours before.
    """
    if logits.shape[1] == 1:
        return torch.tanh(logits / 2)
    if logits.shape[1] % _MIXTURE:
        return _bounded(logits.chunk(2, dim=1)[0]).clamp(-1, 1)
    parts = logits.shape[1] // _MIXTURE
    weights = functional.softmax(logits[:, :parts], dim=1)[:, None]  # [B, 1, parts, H, W]
    of_colours = logits[:, parts:].unflatten(1, (3, 3 * parts))
    means = (of_colours[:, :, :parts] * weights).sum(dim=2)
    slopes = (torch.tanh(of_colours[:, :, 2 * parts :]) * weights).sum(dim=2)
    red = means[:, 0].clamp(-1, 1)
    green = (means[:, 1] + slopes[:, 0] * red).clamp(-1, 1)
    blue = (means[:, 2] + slopes[:, 1] * red + slopes[:, 2] * green).clamp(-1, 1)
    return torch.stack([red, green, blue], dim=1)


def recognises(shapes: Shapes) -> bool:
    """Return whether names and shapes of tensors are those of this family."""
    return shapes.keys() >= _NAMES


def build(state: dict[str, Tensor], *, nvae_latents: str = "top") -> NVAE:
    """Return the decoder of a state dict, its sizes and distribution read from names and shapes; float64, eval mode."""
    if nvae_latents not in LATENTS:
        message = f"nvae_latents {nvae_latents!r} is asked for, and NVAE has {' and '.join(LATENTS)}"
        raise GeneratorError(message, 'pass nvae_latents="top" or nvae_latents="all"')
    decoder = {k: v for k, v in state.items() if not k.startswith(_SKIPPED) and not k.endswith(_UNUSED)}
    reader = _Reader(decoder, "an NVAE", "; magnet knows the cells mbconv and bnswish")
    start = reader.take("prior_ftr0", None, None, None)
    tower, width = reader.tower(len(start), (start.shape[-2], start.shape[-1]))
    post = []
    for number in range(reader.num_layers("post_process")):
        cell, width = reader.cell(f"post_process.{number}", width)
        post.append(cell)
    head = reader.conv("image_conditional.1", width, kernel=None)
    reader.finish()
    if not _colours(len(head[0])):
        message = f"the last layer has {len(head[0])} channels, and no distribution magnet knows has so many"
        raise GeneratorError(message, "known: 1 (Bernoulli), 2 or 6 (normal), multiples of 10 (mixture of logistics)")
    network = NVAE(start, tower, post, head, nvae_latents)
    return network.to(torch.float64).eval().requires_grad_(False)


class _Reader(State):
    """Reads the layers of a decoder."""

    def num_layers(self, part: str) -> int:
        """Return the number of layers in a part of the network; `take` finds gaps in their numbers."""
        numbers = [int(m[2]) for name in self.tensors if (m := _NUMBER.fullmatch(name)) and m[1] == part]
        return max(numbers, default=-1) + 1

    def tower(self, width: int, sides: tuple[int, int]) -> tuple[list[nn.Module], int]:
        """Return groups and cells, and the channels of the last features, given channels and sides of the first."""
        layers: list[nn.Module] = []
        groups = 0
        for number in range(self.num_layers("dec_tower")):
            name = f"dec_tower.{number}"
            if f"{name}.conv.weight" in self.tensors:
                layers.append(self._group(name, groups, width, sides))
                groups += 1
                continue
            cell, width = self.cell(name, width)
            if cell.past is not None:
                sides = (2 * sides[0], 2 * sides[1])
            layers.append(cell)
        return layers, width

    def _group(self, name: str, number: int, width: int, sides: tuple[int, int]) -> Group:
        combine = self.conv(f"{name}.conv", None)
        size = combine[0].shape[1] - width
        moments = self.conv(f"dec_sampler.{number - 1}.1", width) if number else None
        if size < 1 or len(combine[0]) != width or (moments and len(moments[0]) != 2 * size):
            text = f", its moments {len(moments[0])}" if moments else ""
            message = f"{name}.conv maps {combine[0].shape[1]} channels to {len(combine[0])}{text}, and {width} arrive"
            raise GeneratorError(message, "check that the file holds one whole decoder")
        return Group(combine, moments, (size, *sides))

    def cell(self, name: str, width: int) -> tuple[Cell, int]:
        """Return the cell of a name, and the channels of its output."""
        past = None
        if f"{name}.skip.1.weight" in self.tensors:
            past, _ = self.conv(f"{name}.skip.1", width, bias=False)
        doubles = past is not None
        inside = f"{name}._ops.0.bn_act.weight" in self.tensors
        branch, out = (self._swish if inside else self._inverted)(f"{name}._ops", width, doubles=doubles)
        if out != (width if past is None else len(past)):
            message = f"{name} gives {out} channels, and its skip path {width if past is None else len(past)}"
            raise GeneratorError(message, "check that the file holds one whole decoder")
        excitation = None
        if f"{name}.se.se.0.weight" in self.tensors:
            squeeze = self.layer(f"{name}.se.se.0", None, out)
            excitation = Excitation(squeeze, self.layer(f"{name}.se.se.2", out, len(squeeze[0])))
        return Cell(branch, excitation, past), out

    def _inverted(self, name: str, width: int, *, doubles: bool) -> tuple[InvertedResidual, int]:
        place = int(doubles)  # doubling the side is a layer of its own
        first = self._norm(f"{name}.0.conv.{place}.bn", width)
        widen = self._normed(f"{name}.0.conv.{place + 1}", width)
        inner = len(widen[0])
        depthwise = self._normed(f"{name}.0.conv.{place + 2}", 1, inner, kernel=None)
        narrow = self.conv(f"{name}.0.conv.{place + 3}", inner, bias=False)
        out = len(narrow[0])
        last = self._norm(f"{name}.0.conv.{place + 4}.bn", out)
        parts = (_before(first, *widen), depthwise, _after(last, *narrow))
        return InvertedResidual(*parts, doubles=doubles), out

    def _normed(self, name: str, width: int, out: int | None = None, *, kernel: int | None = 1) -> Affine:
        weight, bias = self.conv(f"{name}.conv.0", width, out, kernel=kernel, bias=False)
        return _after(self._norm(f"{name}.conv.1", len(weight)), weight, bias)

    def _swish(self, name: str, width: int, *, doubles: bool) -> tuple[SwishConvolutions, int]:
        first = self._norm(f"{name}.0.bn_act", width)
        weights = [self.conv(f"{name}.0.conv_0", width, kernel=None)]
        while f"{name}.{len(weights)}.bn_act.weight" in self.tensors:
            number, width = len(weights), len(weights[-1][0])
            weights[-1] = _after(self._norm(f"{name}.{number}.bn_act", width), *weights[-1])
            weights.append(self.conv(f"{name}.{number}.conv_0", width, kernel=None))
        return SwishConvolutions(first, weights, doubles=doubles), len(weights[-1][0])

    def conv(
        self, name: str, width: int | None, out: int | None = None, *, kernel: int | None = 1, bias: bool = True
    ) -> Affine:
        """Return weight and bias of a convolution, its weight norm multiplied in; None stands for any size."""
        weight = self.take(f"{name}.weight", out, width, kernel, kernel)
        if weight.shape[2] != weight.shape[3] or weight.shape[2] % 2 == 0:
            message = f"the kernel of {name} is {weight.shape[2]}×{weight.shape[3]}, and an odd square is asked for"
            raise GeneratorError(message, "check that the file holds one whole decoder")
        if f"{name}.log_weight_norm" in self.tensors:
            scale = self.take(f"{name}.log_weight_norm", len(weight), 1, 1, 1).exp()
            weight = weight * scale / (weight.flatten(1).norm(dim=1)[:, None, None, None] + _WEIGHT_NORM_EPSILON)
        return weight, self.take(f"{name}.bias", len(weight)) if bias else weight.new_zeros(len(weight))

    def _norm(self, name: str, width: int) -> Affine:
        parts = ("weight", "bias", "running_mean", "running_var")
        gain, offset, mean, variance = (self.take(f"{name}.{part}", width) for part in parts)
        factor = gain * torch.rsqrt(variance + _BATCH_NORM_EPSILON)
        return factor, offset - mean * factor


def _after(norm: Affine, weight: Tensor, bias: Tensor) -> Affine:
    # a convolution, then a batch norm x · factor + offset, as one convolution
    factor, offset = norm
    return weight * factor[:, None, None, None], bias * factor + offset


def _before(norm: Affine, weight: Tensor, bias: Tensor) -> Affine:
    # a batch norm, then a 1x1 convolution, as one; exact because nothing is padded
    factor, offset = norm
    return weight * factor[:, None, None], bias + weight[:, :, 0, 0] @ offset


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="nearest")


def _bounded(x: Tensor) -> Tensor:
    return _BOUND * torch.tanh(x / _BOUND)


def _colours(channels: int) -> int:
    # of an image whose distribution has that many parameters; 0 if no distribution has
    return {1: 1, 2: 1, 6: 3}.get(channels, 0 if channels % _MIXTURE or not channels else 3)
