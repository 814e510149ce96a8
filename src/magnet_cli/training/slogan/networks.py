"""Networks of SLOGAN: generator, critic and encoder for points and for images, with their initial weights."""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from magnet_cli.models.generators import slogan

_POINT_WIDTH, _POINT_DEPTH = 128, 2
_WIDEST = 8  # times the width at half of the side


class Encoder(nn.Module):
    """Maps images [B, C, S, S] to features [B, F]; the first layer and each residual block halve the side to `last`."""

    def __init__(self, channels: int, widths: tuple[int, ...], last: int, features: int) -> None:
        super().__init__()
        self.start = nn.Conv2d(channels, widths[0], 4, stride=2, padding=1)
        self.blocks = nn.ModuleList(DownBlock(a, b) for a, b in itertools.pairwise(widths))
        self.hidden = nn.Linear(widths[-1] * last * last, 128)
        self.end = nn.Linear(128, features)

    def forward(self, x: Tensor) -> Tensor:
        """Return features [B, F]."""
        x = self.start(x)
        for block in self.blocks:
            x = block(x)
        x = functional.leaky_relu(self.hidden(functional.leaky_relu(x, 0.2).flatten(1)), 0.2)
        return self.end(x)


class DownBlock(nn.Module):
    """Halves the side: a convolution with stride 2 plus a 1×1 convolution of the 2×2 mean."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(n_in, n_out, 4, stride=2, padding=1)
        self.skip = nn.Conv2d(n_in, n_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, n_out, S/2, S/2] for [B, n_in, S, S]."""
        return self.one(functional.leaky_relu(x, 0.2)) + self.skip(functional.avg_pool2d(x, 2))


def generator(latent_dim: int, shape: tuple[int, ...], width: int, rng: torch.Generator) -> nn.Module:
    """Return a generator of points (F,) or images (C, S, S), float32; `width` channels at half of an image's side.

    Raises:
        SpecError: no network has images of that side.
    """
    with torch.device("meta"):
        if len(shape) == 1:
            body: nn.Module = slogan.points(latent_dim, _POINT_WIDTH, _POINT_DEPTH, shape[0])
        else:
            first = slogan.first_side(shape[1])
            body = slogan.Residual(latent_dim, _widths(shape[1], first, width)[::-1], first, shape[0])
    return _initialised(body, rng)


def encoder(shape: tuple[int, ...], features: int, width: int, rng: torch.Generator) -> nn.Module:
    """Return a network from points or images to [B, features]; a critic is one with a single feature."""
    with torch.device("meta"):
        if len(shape) == 1:
            body: nn.Module = slogan.points(shape[0], _POINT_WIDTH, _POINT_DEPTH, features)
        else:
            last = slogan.first_side(shape[1])
            body = Encoder(shape[0], _widths(shape[1], last, width), last, features)
    return _initialised(body, rng)


def _widths(side: int, smallest: int, width: int) -> tuple[int, ...]:
    return tuple(width * min(2**i, _WIDEST) for i in range(round(math.log2(side / smallest))))


def _initialised(body: nn.Module, rng: torch.Generator) -> nn.Module:
    """Set He's initial weights and zero biases; the second convolution of a residual block starts small."""
    body = body.to_empty(device="cpu")
    for name, layer in body.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer.bias is not None:
            nn.init.kaiming_normal_(layer.weight, a=0.2, generator=rng)
            if name.endswith(".two"):
                layer.weight.data.mul_(0.3)
            nn.init.zeros_(layer.bias)
    return body
