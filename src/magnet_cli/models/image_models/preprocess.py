"""From images to what a network takes: crop, resize, range, mean, std, order of channels.

Owns that map, differentiable, as an entry of artifacts.toml words it. Knows nothing of networks.
"""

import torch
from torch import Tensor
from torch.nn import functional

from magnet_cli.catalog.image_model_entry import Preprocess
from magnet_cli.errors import GeneratorError

_COLOURS = 3


def prepared(images: Tensor, how: Preprocess, name: str) -> Tensor:
    """The input of a network.

    Args:
        images: [B, C, H, W] in [-1, 1], C 1 or 3 (RGB).
        how: its entry's words.
        name: the model's, for errors.

    Returns:
        [B, 1 or 3, size, size], in the range, mean and std of `how`.

    Raises:
        GeneratorError: images of that shape do not fit.
    """
    x = _channels(images, how, name)
    x = _sized(_cropped(x, how.crop), how, name, images)
    low, high = how.range
    if (low, high) != (-1, 1):
        x = low + (x + 1) * ((high - low) / 2)
    if any(how.mean) or set(how.std) != {1}:
        mean, std = (torch.tensor(v, dtype=x.dtype, device=x.device)[:, None, None] for v in (how.mean, how.std))
        x = (x - mean) / std
    return x


def _channels(images: Tensor, how: Preprocess, name: str) -> Tensor:
    found, wanted = images.shape[1], len(how.channels)
    if found not in {1, wanted}:
        shape = "×".join(map(str, images.shape[1:]))
        message = f"{name} takes images of {wanted} channels ({how.channels}), and these are {shape}"
        raise GeneratorError(message, "pass a model that takes them; `magnet list` shows the image models")
    if how.channels == "BGR" and found == _COLOURS:
        return images.flip(1)
    return images.expand(-1, wanted, -1, -1)


def _cropped(images: Tensor, share: float) -> Tensor:
    """The central part of each image, the share rounded to whole pixels, at least one."""
    height, width = images.shape[2:]
    high, wide = (max(1, round(n * share)) for n in (height, width))
    top, left = (height - high) // 2, (width - wide) // 2
    return images[:, :, top : top + high, left : left + wide]


def _sized(x: Tensor, how: Preprocess, name: str, images: Tensor) -> Tensor:
    target = (how.size, how.size)
    if not how.size or x.shape[2:] == target:
        return x
    if how.resize == "none":
        shape = "×".join(map(str, images.shape[1:]))
        message = f"{name} takes images of {how.size}×{how.size} pixels as they are, and these are {shape}"
        raise GeneratorError(message, "pass images of that size, or a model that resizes; `magnet list` shows them")
    smoothed = how.antialias and min(x.shape[2:]) > how.size
    return functional.interpolate(x, target, mode=how.resize, align_corners=False, antialias=smoothed)
