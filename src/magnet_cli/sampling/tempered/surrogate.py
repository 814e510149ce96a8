"""A cheap guess of log-volume: kernel ridge regression on the activations of a generator in one forward pass."""

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
    """Return features [B, F] float32 of latents [B, D], two for each channel of each layer, and sizes of their groups.

    The share of its units above 0, and their mean square. A ReLU passes a derivative where its input is above 0, so
    the share is the gain of the channel; of the image, which saturates at ±1, the mean of log(1 − x²) is. A function
    with fewer than two layers has the latents and their squares as features. Costs one evaluation.
    """
    parts: list[Tensor] = []

    def watch(_module: nn.Module, _inputs: tuple, output: object) -> None:
        if isinstance(output, Tensor) and output.is_floating_point() and output.ndim > 1 and len(output) == len(z):
            channels = _channels(output)
            parts.extend(((channels > 0).to(channels).mean(dim=2), channels.square().mean(dim=2)))

    layers = [m for m in generator.module.modules() if not list(m.children()) and list(m.parameters(recurse=False))]
    hooks = [layer.register_forward_hook(watch) for layer in layers if layer is not generator.module]
    try:
        with torch.no_grad():
            channels = _channels(generator(z, truncation, labels))
    finally:
        for hook in hooks:
            hook.remove()
    if len(parts) < 4:
        parts.extend((z, z.square()))
    squares = channels.square()
    parts.append(squares.mean(dim=2))
    if generator.gives_images:
        parts.append(torch.log(_UNSATURATED - squares.clamp_max(1)).mean(dim=2))
    narrow = [_narrow(part).to(torch.float32) for part in parts]
    return torch.cat(narrow, dim=1).cpu().numpy(), [part.shape[1] for part in narrow]


def _channels(output: Tensor) -> Tensor:
    """Return a layer's output as [B, C, units]."""
    return output.flatten(2) if output.ndim > 2 else output[:, :, None]


def _narrow(part: Tensor) -> Tensor:
    if part.shape[1] <= _WIDEST:
        return part
    return torch.stack([group.mean(dim=1) for group in part.tensor_split(_WIDEST, dim=1)], dim=1)


@dataclass(frozen=True)
class Surrogate:
    """A fitted function of features: a kernel with coefficients `slope` [n] at the scaled features `fitted` [n, F].

    `error` is the rms error on rows left out one by one, in nats; `explained` the share of the variance that it leaves
    explained, 0 at least; `centre` the value far from the rows of the fit.
    """

    error: float
    explained: float
    centre: float
    mean: np.ndarray
    scale: np.ndarray
    fitted: np.ndarray
    slope: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return the value [r] float64 at features [r, F] float32."""
        if not len(self.fitted):
            return np.full(len(features), self.centre)
        return _kernel((features - self.mean) * self.scale, self.fitted) @ self.slope + self.centre


def zero(size: int) -> Surrogate:
    """Return the surrogate that is 0 for all features [r, size]."""
    return Surrogate(0.0, 0.0, 0.0, np.zeros(size), np.zeros(size), np.empty((0, size)), np.empty(0))


def fit(features: np.ndarray, sizes: list[int], values: np.ndarray, weights: np.ndarray) -> Surrogate:
    """Fit values [n] of features [n, F], n ≥ 2, by kernel ridge regression, the penalty of least leave-one-out error.

    Features are standardised, and each group of features has the same weight; weights [n] of the rows are in (0, 1].
    """
    share = weights / weights.sum()
    mean, centre = (share @ features).astype(np.float32), float(share @ values)
    spread = np.sqrt(share @ np.square(features - mean))
    counts = np.repeat(np.array(sizes, float), sizes)
    varies = spread > _FLAT * max(float(spread.max()), float(np.finfo(np.float32).tiny))
    scale = np.where(varies, 1 / np.sqrt(counts) / np.where(varies, spread, 1), 0) / np.sqrt(len(sizes))
    scale = scale.astype(np.float32)
    fitted = (features - mean) * scale
    unit = float(np.sqrt(share @ (values - centre) ** 2)) or 1.0
    root = np.sqrt(weights)
    squares, left = np.linalg.eigh(root[:, None] * _kernel(fitted, fitted) * root)
    along = left.T @ (root * (values - centre) / unit)
    least, best = np.inf, np.zeros(len(values))
    for penalty in _PENALTIES:
        kept = 1 / (np.maximum(squares, 0) + penalty)
        slope = left @ (kept * along)
        missed = slope / (left**2 @ kept)  # error where each row is left out, times the root of its weight
        error = float(np.sqrt(missed @ missed / weights.sum()))
        if error < least:
            least, best = error, slope
    return Surrogate(least * unit, max(0.0, 1 - least**2), centre, mean, scale, fitted, root * best * unit)


def _kernel(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the kernel of each pair of scaled features, [r, n] float64; its slope near a row is 1."""
    squares = [np.einsum("ij,ij->i", each, each) for each in (some, others)]
    distance = some @ others.T
    distance *= -2
    distance += squares[0][:, None]
    distance += squares[1]
    np.maximum(distance, 0, out=distance)
    distance /= -2 * _LENGTH**2
    return _LENGTH**2 * np.exp(distance, out=distance).astype(np.float64)
