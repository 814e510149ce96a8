"""StyleGAN2 and StyleGAN2-ADA (Karras et al. 2020a, 2020b), at any resolution and width, conditional or not.

Sizes are read from a state dict in the naming of NVlabs' PyTorch code; `stylegan2_names` translates other namings.
"""

import math
import re
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from magnet_cli.errors import GeneratorError
from magnet_cli.files.checkpoints import Shapes
from magnet_cli.models.generators import stylegan2_names
from magnet_cli.models.generators.state_dict import check_positive
from magnet_cli.models.generators.style_network import Mapping, StyleNetwork, StyleState, ToRGB, clamped

TRANSLATIONS = {
    "nvlabs-pytorch": stylegan2_names.from_pytorch,
    "nvlabs-tensorflow": stylegan2_names.from_tensorflow,
}
_EPSILON = 1e-8  # in the normalisation of a convolution's modulated weights
_LEAK = 0.2
_FIR = (1.0, 3.0, 3.0, 1.0)  # the filter of all up-sampling, if a file does not have it
_BLOCK = re.compile(r"synthesis\.b(\d{1,5})\.conv1\.weight")


class ModulatedConv(nn.Module):
    """A convolution [O, I, k, k] whose weights a style scales for each image (Karras et al. 2020a, section 2.2).

    All images share the weight: their styles scale the channels of the input and of the output, which is the same
    function (equations 1 and 3), and lets many tangents share one convolution. `epsilon` is inside the root of the
    demodulation, None for none; `fir` [4, 4] is the filter after a convolution that doubles the side, None if the side
    stays.
    """

    power: Tensor | None
    fir: Tensor | None

    def __init__(
        self, weight: Tensor, epsilon: float | None = _EPSILON, gain: float = 1.0, fir: Tensor | None = None
    ) -> None:
        super().__init__()
        self.epsilon, self.gain = epsilon, gain
        self.weight = nn.Parameter(weight if fir is None else weight.transpose(0, 1).contiguous())
        self.register_buffer("power", None if epsilon is None else weight.square().sum(dim=(2, 3)))
        # torch correlates, hence the flip
        self.register_buffer("fir", None if fir is None else 4 * fir.flip(0, 1)[None, None])

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Map features [B, I, H, W] and their style [B, I] to features [B, O, H, W], or [B, O, 2H, 2W]."""
        x = x * style[:, :, None, None]
        if self.fir is None:
            x = functional.conv2d(x, self.weight, padding=self.weight.shape[-1] // 2)
        else:
            x = functional.conv_transpose2d(x, self.weight, stride=2)
            x = functional.conv2d(x, self.fir.expand(x.shape[1], -1, -1, -1), padding=1, groups=x.shape[1])
        if self.power is None or self.epsilon is None:
            return x
        scale = self.gain * torch.rsqrt(functional.linear(style.square(), self.power) + self.epsilon)
        return x * scale[:, :, None, None]


class Layer(nn.Module):
    """A modulated convolution with the gain of the whole layer, noise (constant [H, W], strength), and leaky ReLU."""

    noise: Tensor | None

    def __init__(
        self, conv: ModulatedConv, bias: Tensor, noise: tuple[Tensor, Tensor] | None, clamp: float | None
    ) -> None:
        super().__init__()
        self.conv, self.clamp = conv, clamp
        self.bias = nn.Parameter(conv.gain * bias[:, None, None])
        self.register_buffer("noise", None if noise is None else noise[0][None])
        self.noise_strength = None if noise is None else nn.Parameter(conv.gain * noise[1])

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Map features [B, I, H, W] and their style [B, I] to features [B, O, H, W], or [B, O, 2H, 2W]."""
        x = self.conv(x, style) + self.bias
        if self.noise is not None and self.noise_strength is not None:
            x = x + self.noise * self.noise_strength
        return clamped(functional.leaky_relu(x, _LEAK), self.clamp)


class Block(nn.Module):
    """The layers of one resolution: one at 4x4; else two, and the first one doubles the side.

    The image so far is doubled with the filter `fir` [4, 4]. `to_rgb`, and the convolution `skip` [O, I, 1, 1] of the
    "resnet" architecture, are None where the architecture has none.
    """

    fir: Tensor

    def __init__(self, layers: list[Layer], to_rgb: ToRGB | None, fir: Tensor, skip: Tensor | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.to_rgb = to_rgb
        self.register_buffer("fir", 4 * fir[None, None])
        self.skip = None if skip is None else nn.Parameter(skip)
        self.num_styles = len(layers) + (to_rgb is not None)
        self.width = len(layers[-1].bias)  # channels of the features

    def forward(self, x: Tensor, image: Tensor | None, styles: tuple[Tensor, ...]) -> tuple[Tensor, Tensor | None]:
        """Map features and image so far, [B, I, H, W] and [B, C, H, W] or None, to those after the block."""
        past = None if self.skip is None else self._doubled(functional.conv2d(x, self.skip))
        for layer, style in zip(self.layers, styles[: len(self.layers)], strict=True):
            x = layer(x, style)
        if past is not None:
            x = x + past
        if self.to_rgb is not None:
            own = self.to_rgb(x, styles[-1])
            image = own if image is None else own + self._doubled(image)
        return x, image

    def _doubled(self, image: Tensor) -> Tensor:
        # zeros between the pixels, then the filter
        kernel = self.fir.expand(image.shape[1], -1, -1, -1)
        return functional.conv_transpose2d(image, kernel, stride=2, padding=1, groups=image.shape[1])


class StyleGAN2(StyleNetwork):
    """Adds the input const [I, 4, 4] of the first block, and blocks from 4x4 to the image's resolution."""

    def __init__(
        self, reader: "_Reader", mapping: Mapping, cutoff: int | None, const: Tensor, blocks: list[Block]
    ) -> None:
        super().__init__(reader, mapping, cutoff)
        self.const = nn.Parameter(const[None])
        self.blocks = nn.ModuleList(blocks)
        self.noise = reader.noise if reader.has_noise else ""
        self.told = {"noise": reader.noise}
        side = 4 << (len(blocks) - 1)
        self.image_shape = (len(cast(ToRGB, blocks[-1].to_rgb).bias), side, side)  # the last block has one
        convs = [part.conv for block in blocks for part in (*block.layers, block.to_rgb) if part is not None]
        self.style_widths = [conv.weight.shape[0 if conv.fir is not None else 1] for conv in convs]

    def images(self, styles: Tensor) -> Tensor:
        """Return images [B, C, H, W] of the styles [B, S] of all layers."""
        parts = styles.split(self.style_widths, dim=1)
        x: Tensor = self.const.expand(len(styles), -1, -1, -1)
        image: Tensor | None = None
        for block in self.blocks:
            x, image = block(x, image, parts[: block.num_styles])
            parts = parts[block.num_styles :]
        return cast(Tensor, image)


def recognises(shapes: Shapes) -> bool:
    """Return whether names and shapes of tensors are those of this family, in any naming."""
    return stylegan2_names.matches(shapes)


def build(
    state: dict[str, Tensor],
    *,
    noise: str | None = None,
    truncation_cutoff: int | None = None,
    conv_clamp: float | None = None,
    lr_multiplier: float = 0.01,
) -> StyleGAN2:
    """Return the network of a state dict, its sizes and architecture read from names and shapes; float64, eval mode."""
    if noise not in {None, "const", "none"}:
        message = f"noise {noise!r} is asked for, and StyleGAN2 has const and none"
        raise GeneratorError(message, 'pass noise="const" or noise="none"')
    check_positive(conv_clamp=conv_clamp, lr_multiplier=lr_multiplier)
    scaled_epsilon = stylegan2_names.is_rosinality(state)
    named = stylegan2_names.renamed(state)
    # some published files are without the noise inputs
    stored = any(name.endswith(".noise_const") for name in named)
    reader = _Reader(named, noise or ("const" if stored else "none"), conv_clamp, scaled_epsilon=scaled_epsilon)
    mapping = reader.mapping(lr_multiplier)
    if scaled_epsilon and mapping.latent_dim != mapping.style_dim:
        message = f"z has {mapping.latent_dim} numbers and w {mapping.style_dim}, and rosinality's code has them equal"
        raise GeneratorError(message, "check that the file holds the whole generator, its embedding of labels included")
    const = reader.take("synthesis.b4.const", None, 4, 4)
    blocks = reader.blocks(len(const), mapping.style_dim)
    network = StyleGAN2(reader, mapping, truncation_cutoff, const, blocks)
    if reader.has_noise and reader.silent:
        message = f"{reader.silent[0]} has no noise input, and other layers have one"
        raise GeneratorError(message, "check that the file holds the whole generator")
    reader.finish(spare=(".resample_filter",))
    return network.to(torch.float64).eval().requires_grad_(False)


class _Reader(StyleState):
    """Reads the layers of a StyleGAN2 in NVlabs' naming; `scaled_epsilon` is for rosinality's."""

    def __init__(self, state: dict[str, Tensor], noise: str, clamp: float | None, *, scaled_epsilon: bool) -> None:
        super().__init__(state, "a StyleGAN2")
        self.noise, self.clamp, self.scaled_epsilon = noise, clamp, scaled_epsilon
        self.has_noise = False
        self.silent: list[str] = []  # layers without noise inputs

    def blocks(self, width: int, style_dim: int) -> list[Block]:
        """Return the blocks, given the channels of the constant, and gather the affine maps of their styles."""
        sides = sorted(int(m[1]) for name in self.tensors if (m := _BLOCK.fullmatch(name)))
        if not sides or sides != [4 << i for i in range(len(sides))]:
            message = f"the weights look like a StyleGAN2, and have blocks of {', '.join(map(str, sides))} pixels"
            raise GeneratorError(message, "check that the file holds the whole generator")
        # "skip" has an image at every resolution, "orig" and "resnet" at the last; "resnet" has skip paths.
        shown = sides if "synthesis.b4.torgb.weight" in self.tensors else sides[-1:]
        past = sides[1:] if any(n.endswith(".skip.weight") for n in self.tensors) else []
        blocks: list[Block] = []
        for side in sides:
            blocks.append(self._block(side, width, style_dim, shown=side in shown, past=side in past))
            width = blocks[-1].width
        return blocks

    def _block(self, side: int, width: int, style_dim: int, *, shown: bool, past: bool) -> Block:
        name = f"synthesis.b{side}"
        skip = self.take(f"{name}.skip.weight", None, width, 1, 1) * math.sqrt(0.5 / width) if past else None
        place = 2 * (side.bit_length() - 3)  # of conv1; the w of an image is that of the next block's conv0
        layers: list[Layer] = []
        for number in (0, 1) if self.places else (1,):
            layer, gain = f"{name}.conv{number}", math.sqrt(0.5) if past and number else 1.0
            self.style(layer, width, style_dim, place - 1 + number)
            layers.append(self._layer(layer, width, side, gain, doubles=number == 0))
            width = len(layers[-1].bias)
        to_rgb = None
        if shown:
            self.style(f"{name}.torgb", width, style_dim, place + 1)
            weight, bias = self.layer(f"{name}.torgb", None, width, 1, 1)
            to_rgb = ToRGB(ModulatedConv(weight / math.sqrt(width), epsilon=None), bias, self.clamp)
        return Block(layers, to_rgb, self._fir(f"{name}.resample_filter"), skip)

    def _fir(self, name: str) -> Tensor:
        line = torch.tensor(_FIR, dtype=torch.float64)
        usual = torch.outer(line, line) / line.sum() ** 2
        return self.take(name, 4, 4) if name in self.tensors else usual

    def _layer(self, name: str, width: int, side: int, gain: float, *, doubles: bool) -> Layer:
        weight, bias = self.layer(name, None, width, 3, 3)
        # rosinality scales weights by 1/√fan-in before their demodulation
        epsilon = _EPSILON * (weight[0].numel() if self.scaled_epsilon else 1)
        fir = self._fir(f"{name}.resample_filter") if doubles else None
        conv = ModulatedConv(weight, epsilon, math.sqrt(2) * gain, fir)
        clamp = None if self.clamp is None else self.clamp * gain
        return Layer(conv, bias, self._noise(name, side), clamp)

    def _noise(self, name: str, side: int) -> tuple[Tensor, Tensor] | None:
        if f"{name}.noise_strength" not in self.tensors and f"{name}.noise_const" not in self.tensors:
            self.silent.append(name)  # all are, in a network without noise inputs
            return None
        self.has_noise = True
        if self.noise == "none":
            self.taken |= {f"{name}.noise_strength", f"{name}.noise_const"}
            return None
        return self.take(f"{name}.noise_const", side, side), self.take(f"{name}.noise_strength", ...)
