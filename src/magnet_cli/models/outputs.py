"""What a user's own module returns: the one tensor that is meant, and the range of its intensities.

Modules return a tensor; or an object, a dict or a tuple that holds one.
"""

from collections.abc import Mapping

from torch import Tensor

from magnet_cli.errors import GeneratorError

_USUAL = ("sample", "images", "last_hidden_state")  # where diffusers and transformers keep it, and people
_SLACK = 0.05  # of the range, by which intensities may pass its ends
_FEW = 0.001  # of the intensities
_DARK = 0.01  # of the range: images whose intensities keep to this part at its low end are one shade
_KNOWN_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))


def is_image_shape(shape: tuple[int, ...]) -> bool:
    """Return whether a shape is that of an image with one colour or three, (C, H, W)."""
    return len(shape) == 3 and shape[0] in {1, 3}


def tensor(output: object, key: str = "") -> Tensor | None:
    """Return the tensor in an output that a key names, without one that of `key_of`; None if there is none."""
    if isinstance(output, Tensor):
        return output
    tensors = _tensors(output)
    return tensors.get(key or key_of(output) or "")


def key_of(output: object) -> str | None:
    """Return the key of the tensor that is meant: the only one, one of a usual name, or the only image; else None."""
    tensors = _tensors(output)
    images = [name for name, value in tensors.items() if value.ndim == 4 and is_image_shape(tuple(value.shape[1:]))]
    usual = [name for name in _USUAL if name in tensors]
    return next((names[0] for names in (list(tensors), usual[:1], images) if len(names) == 1), None)


def described(output: object) -> str:
    """Return type and contents of an output that is no tensor, as text."""
    keys = ", ".join(f"{name} {list(value.shape)}" for name, value in _tensors(output).items())
    return f"{type(output).__name__} " + (f"with the keys {keys}" if keys else "without floating tensors")


def _tensors(output: object) -> dict[str, Tensor]:
    """Floating tensors of an object by attribute, of a dict by key, of a tuple by name or number."""
    parts: dict[object, object] = dict(getattr(output, "__dict__", {}))
    if isinstance(output, Mapping):
        parts |= dict(output)
    elif isinstance(output, tuple | list):
        parts |= dict(zip(getattr(output, "_fields", range(len(output))), output, strict=True))
    return {str(k): v for k, v in parts.items() if isinstance(v, Tensor) and v.is_floating_point() and v.ndim > 1}


def check_range(title: str, images: Tensor, image_range: tuple[float, float], *, stated: bool) -> None:
    """Check that images [B, C, H, W] can be of a range of intensities.

    A range that is only assumed has to be used on both sides of its middle; one that is stated need not be.

    Raises:
        GeneratorError: the range is another; the message says which is seen, the hint which it may be.
    """
    low, high = image_range
    least, most = images.min().item(), images.max().item()
    if least == most:
        return
    slack = _SLACK * (high - low)
    outside = _share((images < low - slack) | (images > high + slack))
    dark = most <= low + _DARK * (high - low)
    bright = _share(images < (low + high) / 2 - 2 * _SLACK * (most - least)) < _FEW
    if outside <= 1 / 2 and not (dark if stated else bright):
        return
    message = f"{title} gives images of intensities {least:.3g} to {most:.3g}, and {low:g} to {high:g} is "
    message += "stated" if stated else "assumed: they would be shown washed out"
    likely = f"`image_range=({_likely(least, most)})`"
    keep = "" if stated or outside > 1 / 2 else f", or `image_range=({low:g},{high:g})` if that is right all the same"
    raise GeneratorError(message, f"pass {likely}{keep}; or set module.image_range")


def _share(where: Tensor) -> float:
    return where.double().mean().item()


def _likely(least: float, most: float) -> str:
    """Return the usual range that fits best, else what is seen, as LO,HI."""
    slack = 2 * _SLACK * (most - least)
    for low, high in _KNOWN_RANGES:
        if low - slack <= least and most <= high + slack and most > high / 10:
            return f"{low:g},{high:g}"
    return f"{least:.3g},{most:.3g}"


def is_floating_rows(value: Tensor, rows: int) -> bool:
    """Return whether a tensor is [rows, ...], floating, with numbers in each row."""
    return value.is_floating_point() and value.ndim > 1 and len(value) == rows and value[0].numel() > 0
