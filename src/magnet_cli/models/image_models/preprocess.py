"""Prepare images for a network as its entry in artifacts.toml says: crop, resize, range, mean, std, channel order."""

import torch
from torch import Tensor
from torch.nn import functional

from magnet_cli.catalog.image_model_entry import Preprocess
from magnet_cli.errors import GeneratorError

_COLOURS = 3


def preprocessed(images: Tensor, preprocess: Preprocess, name: str) -> Tensor:
    """Return images [B, C, H, W] in [-1, 1] as a network takes them, [B, 1 or 3, size, size]; differentiable."""
    x = _channels(images, preprocess, name)
    x = _sized(_cropped(x, preprocess.crop), preprocess, name, images)
    low, high = preprocess.range
    if (low, high) != (-1, 1):
        x = low + (x + 1) * ((high - low) / 2)
    if any(preprocess.mean) or set(preprocess.std) != {1}:
        x = (x - _by_channel(preprocess.mean, x)) / _by_channel(preprocess.std, x)
    return x


def _by_channel(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None]


def _channels(images: Tensor, preprocess: Preprocess, name: str) -> Tensor:
    channels, expected = images.shape[1], len(preprocess.channels)
    if channels not in {1, expected}:
        shape = "×".join(map(str, images.shape[1:]))
        message = f"{name} takes images of {expected} channels ({preprocess.channels}), and these are {shape}"
        raise GeneratorError(message, "pass a model that takes them; `magnet list` shows the image models")
    if preprocess.channels == "BGR" and channels == _COLOURS:
        return images.flip(1)
    return images.expand(-1, expected, -1, -1)


def _cropped(images: Tensor, share: float) -> Tensor:
    # the share is rounded to whole pixels, at least one
    height, width = images.shape[2:]
    high, wide = (max(1, round(n * share)) for n in (height, width))
    top, left = (height - high) // 2, (width - wide) // 2
    return images[:, :, top : top + high, left : left + wide]


def _sized(x: Tensor, preprocess: Preprocess, name: str, images: Tensor) -> Tensor:
    target = (preprocess.size, preprocess.size)
    if not preprocess.size or x.shape[2:] == target:
        return x
    if preprocess.resize == "none":
        shape = "×".join(map(str, images.shape[1:]))
        size = "×".join(map(str, target))
        message = f"{name} takes images of {size} pixels as they are, and these are {shape}"
        raise GeneratorError(message, "pass images of that size, or a model that resizes; `magnet list` shows them")
    smoothed = preprocess.antialias and min(x.shape[2:]) > preprocess.size
    return functional.interpolate(x, target, mode=preprocess.resize, align_corners=False, antialias=smoothed)
