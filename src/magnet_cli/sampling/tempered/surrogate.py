"""A cheap guess of log-volume: kernel ridge regression on what a generator's layers say in one forward pass.

Owns the features and the regression. Knows nothing of Jacobians, or of what the guess is used for: it may be wrong.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from magnet_cli.models import Generator

_WIDEST = 1024  # channels of a layer that count one by one; of wider ones, groups of neighbours do
_UNSATURATED = 1.0001  # above which no intensity of an image is
_LENGTH = 4.0  # of the kernel, in standard deviations: nearly linear
_PENALTIES = (1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 3.0)
_FLAT = 1e-6  # a feature that varies less than this, beside the largest, is constant


def features(
    generator: Generator, z: Tensor, labels: Tensor | None = None, truncation: float = 1.0
) -> tuple[np.ndarray, list[int]]:
    """What the layers say of latents: for each channel of each layer with weights, two numbers.

    The share of its units above 0, and their mean square. A ReLU passes a derivative where its input is above 0, so
    the former is the gain that the channel hands on; of the image, where it saturates at ±1, the mean of log(1 − x²)
    is. Latents and their squares stand in for layers where a function has fewer than two.

    Args:
        generator: on its device.
        z: [B, D].
        labels: [B] int64, where it takes labels.
        truncation: ψ.

    Returns:
        [B, F] float32, and the sizes of the groups that the F are in. Cost: one evaluation.
    """
    found: list[Tensor] = []

    def watch(_module: nn.Module, _inputs: tuple, output: object) -> None:
        if isinstance(output, Tensor) and output.is_floating_point() and output.ndim > 1 and len(output) == len(z):
            channels = _channels(output)
            found.extend(((channels > 0).to(channels).mean(dim=2), channels.square().mean(dim=2)))

    layers = [m for m in generator.module.modules() if not list(m.children()) and list(m.parameters(recurse=False))]
    hooks = [layer.register_forward_hook(watch) for layer in layers if layer is not generator.module]
    try:
        with torch.no_grad():
            channels = _channels(generator(z, truncation, labels))
    finally:
        for hook in hooks:
            hook.remove()
    if len(found) < 4:
        found.extend((z, z.square()))
    squares = channels.square()
    found.append(squares.mean(dim=2))
    if generator.gives_images:
        found.append(torch.log(_UNSATURATED - squares.clamp_max(1)).mean(dim=2))
    narrow = [_narrow(part).to(torch.float32) for part in found]
    return torch.cat(narrow, dim=1).cpu().numpy(), [part.shape[1] for part in narrow]


def _channels(output: Tensor) -> Tensor:
    """A layer's output as [B, C, units]."""
    return output.flatten(2) if output.ndim > 2 else output[:, :, None]


def _narrow(part: Tensor) -> Tensor:
    if part.shape[1] <= _WIDEST:
        return part
    return torch.stack([group.mean(dim=1) for group in part.tensor_split(_WIDEST, dim=1)], dim=1)


@dataclass(frozen=True)
class Surrogate:
    """A function of features, as `fit` found it.

    Attributes:
        error: rms of what it misses on rows left out one by one, in nats.
        explained: share of the variance that this leaves explained; 0 where it is none.
        centre: its value far from what it knows.
        mean: [F] of the features.
        scale: [F] that they are multiplied with.
        known: [n, F] features it learned from, so scaled.
        slope: [n] what the kernel of each is multiplied with.
    """

    error: float
    explained: float
    centre: float
    mean: np.ndarray
    scale: np.ndarray
    known: np.ndarray
    slope: np.ndarray

    def __call__(self, found: np.ndarray) -> np.ndarray:
        """Its value [r] float64 at features [r, F] float32."""
        if not len(self.known):
            return np.full(len(found), self.centre)
        return _kernel((found - self.mean) * self.scale, self.known) @ self.slope + self.centre


def nothing(size: int) -> Surrogate:
    """The surrogate of [F] features that knows nothing, and says 0."""
    return Surrogate(0.0, 0.0, 0.0, np.zeros(size), np.zeros(size), np.empty((0, size)), np.empty(0))


def fit(found: np.ndarray, sizes: list[int], values: np.ndarray, weights: np.ndarray) -> Surrogate:
    """Kernel ridge regression (a Gaussian kernel), the penalty that leaves the least error on rows left out.

    Features are standardised, and each group of them counts alike.

    Args:
        found: [n, F] float32, n ≥ 2.
        sizes: of the groups of features.
        values: [n] float64, finite.
        weights: [n], in (0, 1].
    """
    share = weights / weights.sum()
    mean, centre = (share @ found).astype(np.float32), float(share @ values)
    spread = np.sqrt(share @ np.square(found - mean))
    counts = np.repeat(np.array(sizes, float), sizes)
    varies = spread > _FLAT * max(float(spread.max()), float(np.finfo(np.float32).tiny))
    scale = np.where(varies, 1 / np.sqrt(counts) / np.where(varies, spread, 1), 0) / np.sqrt(len(sizes))
    scale = scale.astype(np.float32)
    known = (found - mean) * scale
    unit = float(np.sqrt(share @ (values - centre) ** 2)) or 1.0
    root = np.sqrt(weights)
    squares, left = np.linalg.eigh(root[:, None] * _kernel(known, known) * root)
    along = left.T @ (root * (values - centre) / unit)
    best = None
    for penalty in _PENALTIES:
        kept = 1 / (np.maximum(squares, 0) + penalty)
        slope = left @ (kept * along)
        missed = slope / (left**2 @ kept)  # what leaving each row out would miss, times the root of its weight
        error = float(np.sqrt(missed @ missed / weights.sum()))
        if best is None or error < best[0]:
            best = error, slope
    error, slope = best
    return Surrogate(error * unit, max(0.0, 1 - error**2), centre, mean, scale, known, root * slope * unit)


def _kernel(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of each pair of scaled features, [r, n] float64; its slope beside a row is 1 a unit of length."""
    squares = [np.einsum("ij,ij->i", each, each) for each in (some, others)]
    distance = some @ others.T
    distance *= -2
    distance += squares[0][:, None]
    distance += squares[1]
    np.maximum(distance, 0, out=distance)
    distance /= -2 * _LENGTH**2
    return _LENGTH**2 * np.exp(distance, out=distance).astype(np.float64)
