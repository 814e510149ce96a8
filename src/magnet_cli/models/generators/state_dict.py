"""Taking a state dict apart: every tensor is checked against the shape it has to have, and none is passed over.

Owns those checks and their errors, and the layers made of the tensors. Knows nothing of architectures.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from magnet_cli.errors import GeneratorError


class State:
    """The tensors of a state dict, in float64, taken one by one.

    Args:
        tensors: by their names.
        family: what the weights look like, as "a ProGAN".
    """

    def __init__(self, tensors: dict[str, Tensor], family: str) -> None:
        self.tensors = {name: value.to(torch.float64) for name, value in tensors.items()}
        self.family = family
        self.taken: set[str] = set()

    def take(self, name: str, *shape: int | None) -> Tensor:
        """The tensor of that name; a None in its shape is any size.

        Raises:
            GeneratorError: there is none, or it has another shape.
        """
        found = self.tensors.get(name)
        if found is None:
            message = f"the weights look like {self.family}, and {name} is missing"
            raise GeneratorError(message, "check that the file holds the whole generator")
        if found.ndim != len(shape) or any(b not in {None, a} for a, b in zip(found.shape, shape, strict=True)):
            asked = ", ".join("any" if size is None else str(size) for size in shape)
            message = f"{name} is [{', '.join(map(str, found.shape))}], and the tensors before it ask for [{asked}]"
            raise GeneratorError(message, "check that the file holds one whole generator")
        self.taken.add(name)
        return found

    def count(self, pattern: str) -> int:
        """How many tensors there are named by a pattern with the numbers 0, 1, … in it, up to the first gap."""
        number = 0
        while pattern.format(number) in self.tensors:
            number += 1
        return number

    def num_parameters(self, *ends: str) -> int:
        """Numbers in all tensors but those whose names end so: as published, before anything is folded."""
        return sum(value.numel() for name, value in self.tensors.items() if not name.endswith(ends))

    def finish(self) -> None:
        """Refuse what is left over: it would change the images, and is not understood.

        Raises:
            GeneratorError: something is.
        """
        if left := [name for name in self.tensors if name not in self.taken]:
            message = f"the weights look like {self.family}, and {len(left)} of them have no place in one: {left[0]}, …"
            raise GeneratorError(message, "check that the file holds the generator alone")


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """The layer of a weight [O, I] and a bias [O]."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    return _with(layer, weight, bias)


def conv(weight: Tensor, bias: Tensor | None = None) -> nn.Conv2d:
    """The layer of a weight [O, I, k, k], k odd, and a bias [O]; it keeps the side."""
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], padding="same", bias=False, device="meta")
    return _with(layer, weight, bias)


def doubling(weight: Tensor, bias: Tensor) -> nn.ConvTranspose2d:
    """The 3x3 convolution, weight [O, I, 3, 3], of an image whose side was doubled by repeating its pixels.

    As one transposed convolution: of the nine products each output takes, those of the same pixel are added up before,
    and four are left; the larger image is never made.
    """
    layer = nn.ConvTranspose2d(weight.shape[1], weight.shape[0], 4, 2, 1, bias=False, device="meta")
    wide = functional.pad(weight.transpose(0, 1).flip(2, 3), (1, 1, 1, 1))
    folded = wide[..., 1:, 1:] + wide[..., :-1, 1:] + wide[..., 1:, :-1] + wide[..., :-1, :-1]
    return _with(layer, folded, bias)


def _with(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    layer.weight = nn.Parameter(weight.contiguous())
    if bias is not None:
        layer.bias = nn.Parameter(bias)
    return layer
