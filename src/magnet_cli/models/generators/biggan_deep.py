"""BigGAN-deep (Brock et al. 2019), at any resolution, width and number of classes.

Sizes are read from a state dict in the naming of huggingface's pytorch-pretrained-BigGAN.
"""

import math
import re
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from magnet_cli.errors import GeneratorError
from magnet_cli.files.checkpoints import Shapes
from magnet_cli.models.generators.state_dict import State, check_positive, conv, doubling, linear, one_hot

Norm = tuple[Tensor, Tensor]  # gain and offset, [B, C, 1, 1] each
_LAYER = re.compile(r"generator\.layers\.(\d+)\.")
_MARKS = {"embeddings.weight", "generator.gen_z.weight_orig"}
_CHANNELS = 3  # of the last convolution, those of the image
_NORMS = range(4)  # in a block


class Block(nn.Module):
    """Convolutions 1x1, 3x3, 3x3, 1x1, each after a normalisation and a ReLU; the second may double the side."""

    def __init__(self, layers: list[nn.Conv2d | nn.ConvTranspose2d], *, doubles: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.widths, self.width = [layer.in_channels for layer in layers], layers[-1].out_channels
        self.doubles = doubles
        self.num_norms = len(layers)

    def forward(self, x: Tensor, norms: list[Norm]) -> Tensor:
        """Map [B, I, H, W] to [B, O, H, W] or [B, O, 2H, 2W]; the skip path keeps the first O of the I channels."""
        past = x[:, : self.width]
        for layer, norm in zip(self.layers, norms, strict=True):
            x = layer(_normalised(x, norm))
        return x + (functional.interpolate(past, scale_factor=2, mode="nearest") if self.doubles else past)


class Attention(nn.Module):
    """Self-attention of every pixel to all 2x2 fields (Zhang et al. 2019, with the keys pooled as in BigGAN)."""

    num_norms = 0

    def __init__(self, query: Tensor, key: Tensor, value: Tensor, out: Tensor) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = conv(query), conv(key), conv(value), conv(out)

    def forward(self, x: Tensor, norms: list[Norm]) -> Tensor:
        """Map [B, I, H, W] to [B, I, H, W]."""
        query = self.query(x).flatten(2)
        key = functional.max_pool2d(self.key(x), 2).flatten(2)
        value = functional.max_pool2d(self.value(x), 2).flatten(2)
        weights = (query.mT @ key).softmax(dim=-1)
        return x + self.out((value @ weights.mT).unflatten(2, x.shape[2:]))


class BigGANDeep(nn.Module):
    """Maps z and class to a condition [2D], which gives the first features, and all gains and offsets of norms.

    `norms` are (gains [S, 2D], offsets [S, 2D]) of the normalisations in all blocks, one after the other; `last` is
    (gain [F], offset [F]) of the one before the image, which has no condition. `statistics` are (means [T, S + F],
    variances [T, S + F]) of all normalisations, at T truncations from 0 to 1; `bn_truncation` is their ψ, 0 for the ψ
    of z.
    """

    prior = "truncated-normal"
    truncates = "z, and the batch-norm statistics"
    num_parameters: int
    means: Tensor
    variances: Tensor

    def __init__(
        self,
        embedding: Tensor,
        first: nn.Linear,
        layers: list[Block | Attention],
        norms: tuple[Tensor, Tensor],
        last: tuple[Tensor, Tensor],
        statistics: tuple[Tensor, Tensor],
        to_image: nn.Conv2d,
        *,
        epsilon: float,
        bn_truncation: float,
    ) -> None:
        super().__init__()
        self.embedding = linear(embedding)
        self.first, self.to_image = first, to_image
        self.layers = nn.ModuleList(layers)
        self.gains, self.offsets = (linear(weight) for weight in norms)
        self.last_gain, self.last_offset = (nn.Parameter(vector) for vector in last)
        self.register_buffer("means", statistics[0])
        self.register_buffer("variances", statistics[1])
        self.epsilon, self.bn_truncation = epsilon, bn_truncation
        self.latent_dim, self.num_classes = embedding.shape
        blocks = [layer for layer in layers if isinstance(layer, Block)]
        self.told = {"upsample": [block.doubles for block in blocks]}
        self.widths = [width for block in blocks for width in block.widths]
        side = 4 << sum(block.doubles for block in blocks)
        self.image_shape = (to_image.out_channels, side, side)

    def forward(self, z: Tensor, labels: Tensor, truncation: float = 1.0) -> Tensor:
        """Map latents [B, D] to images in [-1, 1]; truncation also chooses statistics unless `bn_truncation` does."""
        condition = torch.cat([z * truncation, self.embedding(one_hot(labels, self.num_classes, z))], dim=1)
        mean, scale = self.statistics(self.bn_truncation or truncation)
        inner, size = slice(len(self.offsets.weight)), len(self.last_gain)
        gain = (1 + self.gains(condition)) * scale[inner]
        offset = self.offsets(condition) - mean[inner] * gain
        parts = zip(gain.split(self.widths, dim=1), offset.split(self.widths, dim=1), strict=True)
        norms = [(a[:, :, None, None], b[:, :, None, None]) for a, b in parts]
        x = self.first(condition).unflatten(1, (-1, 4, 4))
        for layer in self.layers:
            count = cast(Block | Attention, layer).num_norms
            x = layer(x, norms[:count])
            norms = norms[count:]
        last = self.last_gain * scale[-size:]
        x = _normalised(x, (last[:, None, None], (self.last_offset - mean[-size:] * last)[:, None, None]))
        return self.to_image(x).tanh()

    def statistics(self, truncation: float) -> tuple[Tensor, Tensor]:
        """Return means and inverse standard deviations [S + F] at a truncation.

        As published: between two rows of the tables the nearer row has the smaller share, and a row's own truncation is
        between two rows if it is rounded.
        """
        share, row = math.modf(truncation / (1 / (len(self.means) - 1)))
        row = int(row)
        mean, variance = self.means[row], self.variances[row]
        if share:
            mean = mean * share + self.means[row + 1] * (1 - share)
            variance = variance * share + self.variances[row + 1] * (1 - share)
        return mean, torch.rsqrt(variance + self.epsilon)


def recognises(shapes: Shapes) -> bool:
    """Return whether names and shapes of tensors are those of this family."""
    return shapes.keys() >= _MARKS


def build(
    state: dict[str, Tensor],
    *,
    bn_truncation: float | None = None,
    upsample: Sequence[bool] | None = None,
    eps: float = 1e-4,
) -> BigGANDeep:
    """Return the network of a state dict, its sizes read from names and shapes, spectral norms folded; float64."""
    if bn_truncation is not None and not 0 < bn_truncation <= 1:
        message = f"bn_truncation {bn_truncation:g} is asked for, and is in (0, 1]"
        raise GeneratorError(message, "pass it in that range, or leave it out to have the truncation of z")
    check_positive(eps=eps)
    reader = _Reader(State(state, "a BigGAN-deep"))
    network = reader.network(upsample, eps, bn_truncation or 0.0)
    network.num_parameters = reader.state.num_parameters("_u", "_v", "running_means", "running_vars")
    reader.state.finish()
    return network.to(torch.float64).eval().requires_grad_(False)


class _Reader:
    """Reads the layers, and gathers the tensors of all normalisations in the blocks."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.norms: list[tuple[Tensor, Tensor]] = []
        self.statistics: list[tuple[Tensor, Tensor]] = []
        embedding = state.take("embeddings.weight", None, None)
        self.embedding, self.condition = embedding, 2 * len(embedding)

    def network(self, upsample: Sequence[bool] | None, epsilon: float, bn_truncation: float) -> BigGANDeep:
        weight = self._weight("generator.gen_z", None, self.condition)
        width = len(weight) // 16
        # from outputs by pixel to outputs by channel
        order = torch.arange(16 * width).unflatten(0, (16, width)).T.flatten()
        first = linear(weight[order], self.state.take("generator.gen_z.bias", 16 * width)[order])
        layers, width = self._layers(width, upsample)
        self._statistics("generator.bn", width)
        last = self.state.take("generator.bn.weight", width), self.state.take("generator.bn.bias", width)
        weight = self._weight("generator.conv_to_rgb", None, width, 3, 3)
        bias = self.state.take("generator.conv_to_rgb.bias", len(weight))
        to_image = conv(weight[:_CHANNELS], bias[:_CHANNELS])
        norms, statistics = _joined(self.norms, dim=0), _joined(self.statistics, dim=1)
        parts = (self.embedding, first, layers, norms, last, statistics, to_image)
        return BigGANDeep(*parts, epsilon=epsilon, bn_truncation=bn_truncation)

    def _layers(self, width: int, upsample: Sequence[bool] | None) -> tuple[list[Block | Attention], int]:
        names = {int(match[1]) for name in self.state.tensors if (match := _LAYER.match(name))}
        attention = {i for i in names if f"generator.layers.{i}.gamma" in self.state.tensors}
        blocks = sorted(names - attention)
        doubles = [i % 2 == 1 for i in range(len(blocks))] if upsample is None else upsample
        if len(doubles) != len(blocks) or not blocks:
            message = (
                f"upsample says of {len(doubles)} blocks whether they double the side, and there are {len(blocks)}"
            )
            raise GeneratorError(message, "pass it for each block, attention not counted")
        if names != set(range(len(names))):
            message = f"the weights look like a BigGAN-deep, and have the layers {', '.join(map(str, sorted(names)))}"
            raise GeneratorError(message, "check that the file holds the whole generator")
        double = dict(zip(blocks, doubles, strict=True))
        layers: list[Block | Attention] = []
        for i in range(len(names)):
            name = f"generator.layers.{i}"
            if i in attention:
                layers.append(self._attention(name, width))
            else:
                block = self._block(name, width, doubles=bool(double[i]))
                layers.append(block)
                width = block.width
        return layers, width

    def _block(self, name: str, width: int, *, doubles: bool) -> Block:
        layers: list[nn.Conv2d | nn.ConvTranspose2d] = []
        at = width
        for i in _NORMS:
            gain, offset = (self._weight(f"{name}.bn_{i}.{part}", at, self.condition) for part in ("scale", "offset"))
            self.norms.append((gain, offset))
            self._statistics(f"{name}.bn_{i}", at)
            size = 3 if i in {1, 2} else 1
            weight = self._weight(f"{name}.conv_{i}", None, at, size, size)
            at = len(weight)
            bias = self.state.take(f"{name}.conv_{i}.bias", at)
            layers.append(doubling(weight, bias) if doubles and i == 1 else conv(weight, bias))
        if at not in {width, width // 2}:
            message = f"{name} turns {width} channels into {at}, and a block of BigGAN-deep keeps or halves them"
            raise GeneratorError(message, "check that the file holds one whole generator")
        return Block(layers, doubles=doubles)

    def _attention(self, name: str, width: int) -> Attention:
        query, key = (self._weight(f"{name}.snconv1x1_{part}", width // 8, width, 1, 1) for part in ("theta", "phi"))
        value = self._weight(f"{name}.snconv1x1_g", width // 2, width, 1, 1)
        out = self._weight(f"{name}.snconv1x1_o_conv", width, width // 2, 1, 1)
        return Attention(query, key, value, out * self.state.take(f"{name}.gamma", 1))

    def _statistics(self, name: str, width: int) -> None:
        rows = len(self.statistics[0][0]) if self.statistics else None
        mean = self.state.take(f"{name}.running_means", rows, width)
        if len(mean) < 2:
            message = f"{name}.running_means has {len(mean)} rows, and BigGAN-deep has one at truncation 0 and one at 1"
            raise GeneratorError(message, "check that the file holds one whole generator")
        self.statistics.append((mean, self.state.take(f"{name}.running_vars", len(mean), width)))

    def _weight(self, name: str, *shape: int | None) -> Tensor:
        # divided by the largest singular value, as the stored vectors estimate it
        weight = self.state.take(f"{name}.weight_orig", *shape)
        matrix = weight.flatten(1)
        left = self.state.take(f"{name}.weight_u", matrix.shape[0])
        right = self.state.take(f"{name}.weight_v", matrix.shape[1])
        return weight / (left @ matrix @ right)


def _joined(pairs: list[tuple[Tensor, Tensor]], dim: int) -> tuple[Tensor, Tensor]:
    return torch.cat([one for one, _ in pairs], dim), torch.cat([other for _, other in pairs], dim)


def _normalised(x: Tensor, norm: Norm) -> Tensor:
    return functional.relu(x * norm[0] + norm[1])
