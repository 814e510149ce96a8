"""DCGAN (Radford et al. 2016), the generator of the PyTorch tutorial, at any width and size."""

import itertools
import re
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from magnet_cli.errors import GeneratorError
from magnet_cli.files.checkpoints import Shapes
from magnet_cli.models.generators.state_dict import check_positive

_CONV = re.compile(r"main\.(\d+)\.weight")
_KERNEL = 4  # of the tutorial's convolutions
_DIMENSIONS = 4  # of the weight of a convolution


class HalfTanh(nn.Module):
    """A sigmoid, brought from [0, 1] to [-1, 1]: 2 / (1 + exp(-x)) - 1 = tanh(x / 2)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [...] to [...]."""
        return torch.tanh(x / 2)


FINALS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "sigmoid": HalfTanh, "none": nn.Identity}


class DCGAN(nn.Module):
    """Transposed convolutions with batch norm and ReLU between them, and a tanh at the end.

    As the tutorial has them the first maps [D, 1, 1] to [widths[0], 4, 4], and each later one doubles the side: L
    widths give images of side 2^(L+2). In eval mode everything before the tanh is continuous and piecewise affine in z.

    `kernels`, `strides` and `paddings` are those of the convolutions, `slope` is that of a leaky ReLU, `final` what
    follows the last convolution. Weights tell the kernels alone; `told` has the others.
    """

    prior = "normal"
    num_classes = 0
    truncates = "z"

    def __init__(
        self,
        latent_dim: int,
        widths: tuple[int, ...],
        channels: int,
        *,
        kernels: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        paddings: Sequence[int] | None = None,
        slope: float = 0.0,
        final: str = "tanh",
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        later = len(widths)
        kernels = [_KERNEL] * (later + 1) if kernels is None else kernels
        strides = [1] + [2] * later if strides is None else strides
        paddings = [0] + [1] * later if paddings is None else paddings
        layers: list[nn.Module] = []
        sizes = (latent_dim, *widths, channels)
        side = 1
        for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
            layers.append(nn.ConvTranspose2d(n_in, n_out, kernels[i], strides[i], paddings[i], bias=False))
            side = (side - 1) * strides[i] - 2 * paddings[i] + kernels[i]
            if side < 1:
                message = f"strides {list(strides)} and paddings {list(paddings)} leave no pixel after convolution {i}"
                raise GeneratorError(message, "pass those it was trained with")
            if i < later:
                layers += [nn.BatchNorm2d(n_out, eps), nn.LeakyReLU(slope) if slope else nn.ReLU()]
        self.main = nn.Sequential(*layers, FINALS[final]())
        self.latent_dim = latent_dim
        self.image_shape = (channels, side, side)
        self.told = {"strides": list(strides), "paddings": list(paddings)}

    def forward(self, z: Tensor, labels: None = None, truncation: float = 1.0) -> Tensor:
        """Map latents [B, D], scaled by the truncation first, to images [B, C, H, W] in [-1, 1]."""
        return self.main((z * truncation)[:, :, None, None])


def recognises(shapes: Shapes) -> bool:
    """Return whether names and shapes are those of this family: a chain of convolutions named main.N.weight."""
    convolutions = _convolutions(shapes)
    chained = all(one[1] == next_one[0] for one, next_one in itertools.pairwise(convolutions))
    return len(convolutions) > 1 and chained and all(shape[2] == shape[3] for shape in convolutions)


def build(
    state: dict[str, Tensor],
    *,
    strides: Sequence[int] | None = None,
    paddings: Sequence[int] | None = None,
    slope: float = 0.0,
    final: str = "tanh",
    eps: float = 1e-5,
) -> DCGAN:
    """Return the network of a state dict, its sizes read from the weights, batch norms folded; float64, eval mode."""
    return _folded(as_trained(state, strides=strides, paddings=paddings, slope=slope, final=final, eps=eps))


def as_trained(
    state: dict[str, Tensor],
    *,
    strides: Sequence[int] | None = None,
    paddings: Sequence[int] | None = None,
    slope: float = 0.0,
    final: str = "tanh",
    eps: float = 1e-5,
) -> DCGAN:
    """Return the network of a state dict with its batch norms as layers; float64, eval mode."""
    check_positive(eps=eps)
    if final not in FINALS:
        message = f"final {final!r} is asked for, and a DCGAN has {', '.join(FINALS)}"
        raise GeneratorError(message, "pass what follows its last convolution")
    convolutions = _convolutions({name: tuple(value.shape) for name, value in state.items()})
    kernels = [shape[2] for shape in convolutions]
    if set(kernels) != {_KERNEL} and (strides is None or paddings is None):
        message = f"the convolutions of this DCGAN have kernels of {', '.join(map(str, kernels))}, "
        message += f"and weights tell their strides and paddings only where all are {_KERNEL}"
        raise GeneratorError(message, "pass `strides` and `paddings`, a list each, as it was trained with")
    for name, numbers, least in (("strides", strides, 1), ("paddings", paddings, 0)):
        if numbers is not None and not (
            len(numbers) == len(kernels) and all(least <= n <= max(kernels) for n in numbers)
        ):
            message = f"{name} {list(numbers)!r} is asked for, and there are {len(kernels)} convolutions"
            raise GeneratorError(message, f"pass a whole number from {least} to {max(kernels)} for each of them")
    widths = tuple(shape[1] for shape in convolutions[:-1])
    made = {"kernels": kernels, "strides": strides, "paddings": paddings, "slope": slope, "final": final, "eps": eps}
    network = DCGAN(convolutions[0][0], widths, convolutions[-1][1], **made).to(torch.float64)  # type: ignore[arg-type]
    # batch counters of training have no effect; every other tensor has to fit
    weights = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    counters = {k: v for k, v in network.state_dict().items() if k.endswith("num_batches_tracked")}
    try:
        network.load_state_dict(weights | counters)
    except RuntimeError as error:
        message = "the weights look like a DCGAN but do not fit one: " + " ".join(str(error).split())
        raise GeneratorError(message, "check that the file holds the whole generator and nothing else") from error
    return network.eval().requires_grad_(False)


def _folded(network: DCGAN) -> DCGAN:
    # fewer layers for tangents to pass
    layers: list[nn.Module] = []
    for layer in network.main:
        if isinstance(layer, nn.BatchNorm2d):
            layers[-1] = fuse_conv_bn_eval(cast(nn.ConvTranspose2d, layers[-1]), layer, transpose=True)
        else:
            layers.append(layer)
    network.main = nn.Sequential(*layers)
    return network


def _convolutions(shapes: Shapes) -> list[tuple[int, ...]]:
    numbered = ((int(m[1]), v) for k, v in shapes.items() if (m := _CONV.fullmatch(k)) and len(v) == _DIMENSIONS)
    return [v for _, v in sorted(numbered, key=lambda pair: pair[0])]
