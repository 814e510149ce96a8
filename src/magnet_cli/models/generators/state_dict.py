"""Take a state dict apart: check the shape of every tensor, leave none over, and make layers of them."""

import math
from types import EllipsisType
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from magnet_cli.errors import GeneratorError

Affine = tuple[Tensor, Tensor]  # weight and bias of a linear layer or a convolution
_Layer = TypeVar("_Layer", nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


class State:
    """The tensors of a state dict in float64, to be taken one by one; family and hint are for errors, as "a ProGAN"."""

    def __init__(self, tensors: dict[str, Tensor], family: str, hint: str = "") -> None:
        self.tensors = {name: value.to(torch.float64) for name, value in tensors.items()}
        self.family, self.hint = family, hint
        self.taken: set[str] = set()

    def take(self, name: str, *shape: int | EllipsisType | None) -> Tensor:
        """Return the tensor of that name; a None in its shape is any size, an ellipsis alone any shape."""
        tensor = self.tensors.get(name)
        if tensor is None:
            message = f"the weights look like {self.family}, and {name} is missing"
            raise GeneratorError(message, f"check that the file holds the whole generator{self.hint}")
        sizes = tuple(tensor.shape)
        fits = len(sizes) == len(shape) and all(b in {None, a} for a, b in zip(sizes, shape, strict=True))
        if not fits and shape != (...,):
            expected = ", ".join("any" if size is None else str(size) for size in shape)
            message = f"{name} is [{', '.join(map(str, sizes))}], and the tensors before it ask for [{expected}]"
            raise GeneratorError(message, "check that the file holds one whole generator")
        self.taken.add(name)
        return tensor

    def layer(self, name: str, *shape: int | None) -> Affine:
        """Return weight and bias of a layer, given the shape of its weight."""
        weight = self.take(f"{name}.weight", *shape)
        return weight, self.take(f"{name}.bias", len(weight))

    def count(self, pattern: str) -> int:
        """Return how many tensors are named by a pattern with the numbers 0, 1, … in it, up to the first gap."""
        number = 0
        while pattern.format(number) in self.tensors:
            number += 1
        return number

    def num_parameters(self, *ends: str) -> int:
        """Return the numbers in all tensors but those whose names end so: as published, before anything is folded."""
        return sum(value.numel() for name, value in self.tensors.items() if not name.endswith(ends))

    def finish(self, spare: tuple[str, ...] = ()) -> None:
        """Refuse tensors that were not taken, except those whose names end in `spare`: they could change images."""
        if left := [name for name in self.tensors if name not in self.taken and not name.endswith(spare)]:
            message = f"the weights look like {self.family}, and {len(left)} of them have no place in one: {left[0]}, …"
            raise GeneratorError(message, f"check that the file holds the generator alone{self.hint}")


def check_positive(**values: object) -> None:
    """Check that settings are positive numbers; `conv_clamp` may be None."""
    for name, value in values.items():
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else 0
        if not (math.isfinite(number) and number > 0) and not (name == "conv_clamp" and value is None):
            message = f"{name} {value!r} is asked for, and a positive number is needed"
            raise GeneratorError(message, f"check the setting {name} that comes with the file")


def one_hot(labels: Tensor | None, num_classes: int, like: Tensor) -> Tensor:
    """Return labels, [B] int64 or already [B, num_classes] floating, as [B, num_classes] of another tensor's dtype."""
    labels = cast(Tensor, labels)  # Generator lets no call of a conditional network pass without
    soft = labels if labels.is_floating_point() else functional.one_hot(labels, num_classes)
    return soft.to(like)


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """Return the layer of a weight [O, I] and a bias [O]."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    return _with(layer, weight, bias)


def conv(weight: Tensor, bias: Tensor | None = None, *, groups: int = 1) -> nn.Conv2d:
    """Return the layer of a weight [O, I / groups, k, k], k odd, and a bias [O]; it keeps the side."""
    out, inner, kernel, _ = weight.shape
    layer = nn.Conv2d(inner * groups, out, kernel, padding="same", groups=groups, bias=False, device="meta")
    return _with(layer, weight.contiguous(), bias)


def doubling(weight: Tensor, bias: Tensor) -> nn.ConvTranspose2d:
    """Return the 3x3 convolution, weight [O, I, 3, 3], of an image whose side was doubled by repeating its pixels.

    It is one transposed convolution: of the nine products that make an output, those of the same pixel are added up in
    advance, and four are left; the larger image is never made.
    """
    layer = nn.ConvTranspose2d(weight.shape[1], weight.shape[0], 4, 2, 1, bias=False, device="meta")
    wide = functional.pad(weight.transpose(0, 1).flip(2, 3), (1, 1, 1, 1))
    folded = wide[..., 1:, 1:] + wide[..., :-1, 1:] + wide[..., 1:, :-1] + wide[..., :-1, :-1]
    return _with(layer, folded.contiguous(), bias)


def _with(layer: _Layer, weight: Tensor, bias: Tensor | None) -> _Layer:
    layer.weight = nn.Parameter(weight)
    if bias is not None:
        layer.bias = nn.Parameter(bias)
    return layer
