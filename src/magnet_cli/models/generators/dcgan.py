"""DCGAN (Radford et al. 2016), the generator of the PyTorch tutorial, at any width and size."""

import itertools
import re
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from magnet_cli.errors import GeneratorError

_CONV = re.compile(r"main\.(\d+)\.weight")


class DCGAN(nn.Module):
    """Transposed convolutions with batch norm and ReLU between them, and a tanh at the end.

    The first maps [D, 1, 1] to [widths[0], 4, 4]; each later one doubles the side: L widths give images of side
    2^(L+2). In eval mode everything before the tanh is continuous and piecewise affine in z.
    """

    prior = "normal"
    num_classes = 0
    truncates = "z"

    def __init__(self, latent_dim: int, widths: tuple[int, ...], channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        sizes = (latent_dim, *widths, channels)
        for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
            stride, padding = (1, 0) if i == 0 else (2, 1)
            layers.append(nn.ConvTranspose2d(n_in, n_out, 4, stride, padding, bias=False))
            if i < len(widths):
                layers += [nn.BatchNorm2d(n_out), nn.ReLU()]
        self.main = nn.Sequential(*layers, nn.Tanh())
        self.latent_dim = latent_dim
        self.image_shape = (channels, 2 ** (len(widths) + 2), 2 ** (len(widths) + 2))

    def forward(self, z: Tensor, labels: None = None, truncation: float = 1.0) -> Tensor:
        """Map latents [B, D], scaled by the truncation first, to images [B, C, H, W] in [-1, 1]."""
        return self.main((z * truncation)[:, :, None, None])


def recognises(state: dict[str, Tensor]) -> bool:
    """Return whether a state dict belongs to this family: 4x4 convolutions named main.N.weight."""
    convolutions = _convolutions(state)
    return len(convolutions) > 1 and all(w.shape[2:] == (4, 4) for w in convolutions)


def build(state: dict[str, Tensor]) -> DCGAN:
    """Return the network of a state dict, its sizes read from the weights, batch norms folded; float64, eval mode."""
    return _folded(as_trained(state))


def as_trained(state: dict[str, Tensor]) -> DCGAN:
    """Return the network of a state dict with its batch norms as layers; float64, eval mode."""
    convolutions = _convolutions(state)
    widths = tuple(w.shape[1] for w in convolutions[:-1])
    network = DCGAN(convolutions[0].shape[0], widths, convolutions[-1].shape[1]).to(torch.float64)
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


def _convolutions(state: dict[str, Tensor]) -> list[Tensor]:
    numbered = ((int(m[1]), v) for k, v in state.items() if (m := _CONV.fullmatch(k)) and v.ndim == 4)
    return [v for _, v in sorted(numbered, key=lambda pair: pair[0])]
