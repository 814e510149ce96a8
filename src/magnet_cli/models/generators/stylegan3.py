"""StyleGAN3-T and -R (Karras et al. 2021), at any resolution and width, conditional or not.

Sizes and sampling rates are read from a state dict in the naming of NVlabs' PyTorch code.
"""

import math
import re

import torch
from torch import Tensor, nn
from torch.nn import functional

from magnet_cli.errors import GeneratorError
from magnet_cli.files.checkpoints import Shapes
from magnet_cli.models.generators import nvlabs_settings
from magnet_cli.models.generators.state_dict import check_positive
from magnet_cli.models.generators.style_network import Mapping, StyleNetwork, StyleState, ToRGB, clamped

_EPSILON = 1e-8  # in the normalisation of a convolution's modulated weights
_LEAK = 0.2
_ROUNDING = 1e-14  # singular values of a filter below this share of the largest are 0
_LAYER = re.compile(r"synthesis\.(?P<name>L(?P<number>\d{1,5})_(?P<size>\d{1,5})_(?P<width>\d{1,5}))\.weight")

# Keywords of NVlabs' networks. Names, shapes and filters tell the first; the second change rounding or training alone.
_IN_TENSORS = {
    *("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "channel_base", "channel_max", "num_layers"),
    *("num_critical", "first_stopband", "last_stopband_rel", "margin_size", "conv_kernel", "use_radial_filters"),
}
_WITHOUT_EFFECT = {"num_fp16_res", "w_avg_beta", "magnitude_ema_beta"}
_SETTINGS = {
    name: name
    for name in ("conv_clamp", "output_scale", "first_cutoff", "lrelu_upsampling", "filter_size", "lr_multiplier")
}


class FourierInput(nn.Module):
    """The input of the first layer: waves, moved and turned as the style says (section 3.2, config H).

    The C waves have freqs [C, 2] in cycles per unit (an image's side) and phases [C] in cycles; transform [3, 3] is the
    user's map from image to input coordinates. The features have `size` samples a side, margins included, and `rate`
    samples per unit. Frequencies above the bandwidth fade, to nothing at half the rate.
    """

    freqs: Tensor
    phases: Tensor
    transform: Tensor
    places: Tensor

    def __init__(
        self, weight: Tensor, freqs: Tensor, phases: Tensor, transform: Tensor, size: int, rate: int, bandwidth: float
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.rate, self.bandwidth = rate, bandwidth
        self.register_buffer("freqs", freqs)
        self.register_buffer("phases", phases)
        self.register_buffer("transform", transform)
        self.register_buffer("places", (torch.arange(size, dtype=torch.float64) + 0.5 - size / 2) / rate)

    def forward(self, style: Tensor) -> Tensor:
        """Map the style [B, 4], a direction (cos, sin) and a translation (x, y) in its length, to [B, C, H, W]."""
        cos, sin, *along = (style / style[:, :2].square().sum(dim=1, keepdim=True).sqrt()).unbind(dim=1)
        moved = self.transform[:2] - torch.stack(along, dim=1)[:, :, None] * self.transform[2]
        turn = torch.stack([cos, -sin, sin, cos], dim=1).reshape(-1, 2, 2)
        turned = self.freqs @ turn @ moved  # [B, C, 3]
        freqs, phases = turned[:, :, :2], self.phases + turned[:, :, 2]
        size = freqs.square().sum(dim=2).sqrt()
        amplitudes = (1 - (size - self.bandwidth) / (self.rate / 2 - self.bandwidth)).clamp(0, 1)
        across = self.places[:, None] * freqs[:, None, :, 0] + phases[:, None]  # [B, W, C]
        down = self.places[:, None] * freqs[:, None, :, 1]  # [B, H, C]
        waves = torch.sin(2 * math.pi * (across[:, None] + down[:, :, None])) * amplitudes[:, None, None]
        return functional.linear(waves, self.weight).permute(0, 3, 1, 2)


class ModulatedConv(nn.Module):
    """A convolution [O, I, k, k] whose weights a style scales for each image; sides of the output are k - 1 longer.

    All images share the weight, as in StyleGAN2. The official network also divides all styles by their root mean square
    over the batch. Dividing by the root mean square of each image gives the same to 1e-10, and makes an image a
    function of its latent alone. The demodulation cancels that division except in the epsilon, so only the epsilon is
    scaled here.
    """

    gain: Tensor
    power: Tensor | None

    def __init__(self, weight: Tensor, gain: Tensor, *, demodulate: bool) -> None:
        super().__init__()
        if demodulate:
            weight = weight * torch.rsqrt(weight.square().mean(dim=(1, 2, 3), keepdim=True))
        self.weight = nn.Parameter(weight)
        self.register_buffer("gain", gain)
        power = weight.square().sum(dim=(2, 3)) + _EPSILON / weight.shape[1]
        self.register_buffer("power", power if demodulate else None)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Map features [B, I, H, W] and their style [B, I] to features [B, O, H + k - 1, W + k - 1]."""
        x = functional.conv2d(x * style[:, :, None, None], self.weight, padding=self.weight.shape[-1] - 1)
        if self.power is None:
            return x * self.gain
        return x * (self.gain * torch.rsqrt(functional.linear(style.square(), self.power)))[:, :, None, None]


class Resample(nn.Module):
    """Raises or lowers the sampling rate with a low-pass filter, the same for every channel; up or down is 1.

    With a filter f along an axis, sample o of the result is Σ_i f[down·o - up·i + shift] x[i]. `fir` is [t], along
    either axis, or [t, t]; `cut` samples are cut off each side of the result if the rate rises.
    """

    first: Tensor
    second: Tensor | None
    columns: Tensor
    rows: Tensor

    def __init__(self, fir: Tensor, up: int = 1, down: int = 1, cut: int = 0) -> None:
        super().__init__()
        self.up, self.down, self.cut = up, down, cut
        self.separable = fir.ndim == 1
        plane = up**2 * (torch.outer(fir, fir) if self.separable else fir)
        # A convolution of torch is a correlation, a transposed one is not.
        oriented = up * fir if up > 1 else fir.flip(0) if self.separable else fir.flip(0, 1)
        kernels = (oriented[None], oriented[:, None]) if self.separable else (up * oriented, None)
        for name, kernel in zip(("first", "second"), kernels, strict=True):
            self.register_buffer(name, None if kernel is None else kernel[None, None])
        columns, sizes, rows = torch.linalg.svd(plane)
        rank = int((sizes > _ROUNDING * sizes[0]).sum())
        self.register_buffer("columns", (columns[:, :rank] * sizes[:rank]).T.contiguous())  # [r, t]
        self.register_buffer("rows", rows[:rank].contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C, H', W']."""
        if x.dtype == torch.float64 and x.device.type == "cpu":  # where convolutions channel by channel are slow
            return self.multiplied(x)
        return self.convolved(x)

    def convolved(self, x: Tensor) -> Tensor:
        """Return the result by convolutions: one of the plane, or one along each axis."""
        for kernel in (self.first, self.second):
            if kernel is None:
                continue
            everywhere = kernel.expand(x.shape[1], -1, -1, -1)
            up, down, cut = (
                tuple(value if taps > 1 else none for taps in kernel.shape[2:])
                for value, none in ((self.up, 1), (self.down, 1), (self.cut, 0))
            )
            if self.up > 1:
                x = functional.conv_transpose2d(x, everywhere, stride=up, padding=cut, groups=x.shape[1])
            else:
                x = functional.conv2d(x, everywhere, stride=down, groups=x.shape[1])
        return x

    def multiplied(self, x: Tensor) -> Tensor:
        """Return the result by products with matrices from both sides, summed over the rank of the filter."""
        left, right = self._matrices(self.columns, x.shape[2]), self._matrices(self.rows, x.shape[3])
        x = (x @ right.flatten(0, 1).T).unflatten(3, right.shape[:2])  # [B, C, H, r, W']
        return left.transpose(0, 1).flatten(1) @ x.transpose(2, 3).flatten(2, 3)

    def _matrices(self, filters: Tensor, size: int) -> Tensor:
        # filters [r, t] to matrices [r, size', size]
        taps = filters.shape[1]
        after = (size - 1) * self.up + taps - 2 * self.cut if self.up > 1 else (size - taps) // self.down + 1
        shift = self.cut if self.up > 1 else taps - 1
        outputs = torch.arange(after, device=filters.device)[:, None]
        places = self.down * outputs - self.up * torch.arange(size, device=filters.device) + shift
        return torch.where((places >= 0) & (places < taps), filters[:, places.clamp(0, taps - 1)], 0)


class Layer(nn.Module):
    """A modulated convolution, and a leaky ReLU at a higher sampling rate (section 3.2, config F), clamped."""

    def __init__(self, conv: ModulatedConv, bias: Tensor, up: Resample, down: Resample, clamp: float | None) -> None:
        super().__init__()
        self.conv, self.up, self.down, self.clamp = conv, up, down, clamp
        self.bias = nn.Parameter(bias[:, None, None])

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Map features [B, I, H, W] and their style [B, I] to features [B, O, H', W']."""
        x = self.up(self.conv(x, style) + self.bias)
        # In place: tensors at the higher rate take the most memory, and a reverse product keeps all of them.
        return self.down(clamped(functional.leaky_relu(x, _LEAK, inplace=True), self.clamp))


class StyleGAN3(StyleNetwork):
    """Adds the input, whose style is the first, and layers; the last one makes the image."""

    def __init__(
        self, reader: "_Reader", mapping: Mapping, cutoff: int | None, start: FourierInput, layers: list[Layer | ToRGB]
    ) -> None:
        super().__init__(reader, mapping, cutoff)
        self.start, self.layers = start, nn.ModuleList(layers)
        self.image_shape = (len(layers[-1].bias), reader.sizes[-1], reader.sizes[-1])
        self.style_widths = [4, *(layer.conv.weight.shape[1] for layer in layers)]

    def images(self, styles: Tensor) -> Tensor:
        """Return images [B, C, H, W] of the styles [B, S] of all layers."""
        first, *parts = styles.split(self.style_widths, dim=1)
        x = self.start(first)
        for layer, style in zip(self.layers, parts, strict=True):
            x = layer(x, style)
        return x


def recognises(shapes: Shapes) -> bool:
    """Return whether names and shapes of tensors are those of this family."""
    return shapes.keys() >= {"mapping.fc0.weight", "synthesis.input.freqs"}


def build(
    state: dict[str, Tensor],
    *,
    truncation_cutoff: int | None = None,
    conv_clamp: float | None = 256,
    output_scale: float = 0.25,
    first_cutoff: float = 2,
    lrelu_upsampling: int = 2,
    filter_size: int = 6,
    lr_multiplier: float = 0.01,
) -> StyleGAN3:
    """Return the network of a state dict, which tells its sizes, sampling rates, and T or R; float64, eval mode."""
    check_positive(conv_clamp=conv_clamp, output_scale=output_scale, first_cutoff=first_cutoff)
    check_positive(lrelu_upsampling=lrelu_upsampling, filter_size=filter_size, lr_multiplier=lr_multiplier)
    reader = _Reader(state, conv_clamp, lrelu_upsampling, filter_size)
    mapping = reader.mapping(lr_multiplier)
    start = reader.start(mapping.style_dim, first_cutoff)
    layers = reader.layers(len(start.weight), mapping.style_dim, output_scale)
    network = StyleGAN3(reader, mapping, truncation_cutoff, start, layers)
    reader.finish()
    return network.to(torch.float64).eval().requires_grad_(False)


def _from_pytorch(arguments: dict, _: dict[str, dict]) -> dict:
    keywords = nvlabs_settings.flattened(arguments)
    return nvlabs_settings.translated("StyleGAN3", keywords, _IN_TENSORS | _WITHOUT_EFFECT, {}, _SETTINGS)


TRANSLATIONS = {"nvlabs-pytorch": _from_pytorch}


class _Reader(StyleState):
    """Reads the layers of a StyleGAN3; their names tell widths, sizes and sampling rates."""

    def __init__(self, state: dict[str, Tensor], clamp: float | None, oversampling: int, filter_size: int) -> None:
        super().__init__(state, "a StyleGAN3")
        self.clamp, self.oversampling, self.filter_size = clamp, oversampling, filter_size
        matches = sorted((m for n in state if (m := _LAYER.fullmatch(n))), key=lambda match: int(match["number"]))
        self.names = [f"synthesis.{m['name']}" for m in matches]
        self.widths = [int(m["width"]) for m in matches]
        self.sizes = [int(m["size"]) for m in matches]
        # Every layer has the same margin beyond the image, except the last two, which have none.
        margins = max(self.sizes) - self.sizes[-1] if matches else 0
        self.rates = [size - margins for size in self.sizes[:-2]] + self.sizes[-2:]
        numbered = [int(m["number"]) for m in matches] == list(range(len(matches)))
        ends = len(set(self.sizes[-2:])) == 1 < len(matches)
        powers = all(rate > 0 and rate.bit_count() == 1 for rate in self.rates)
        if not (numbered and ends and powers and self.rates == sorted(self.rates)):
            layers = ", ".join(m["name"] for m in matches) or "none"
            message = f"the weights look like a StyleGAN3, and its layers, {layers}, do not tell their sampling rates"
            raise GeneratorError(message, "check that the file holds the whole generator")

    def start(self, style_dim: int, bandwidth: float) -> FourierInput:
        name = "synthesis.input"
        self.style(name, 4, style_dim, 0)
        width = len(self.take(f"{name}.weight", None, None))
        weight = self.take(f"{name}.weight", width, width) / math.sqrt(width)
        freqs, phases = self.take(f"{name}.freqs", width, 2), self.take(f"{name}.phases", width)
        transform = self.take(f"{name}.transform", 3, 3)
        return FourierInput(weight, freqs, phases, transform, self.sizes[0], self.rates[0], bandwidth)

    def layers(self, width: int, style_dim: int, scale: float) -> list[Layer | ToRGB]:
        """Return the layers, given the channels of the input, and gather the affine maps of their styles."""
        layers: list[Layer | ToRGB] = []
        last = len(self.names) - 1
        for number, name in enumerate(self.names):
            self.style(name, width, style_dim, number + 1)
            layers.append(self._layer(number, name, width) if number < last else self._to_rgb(name, width, scale))
            width = self.widths[number]
        return layers

    def _layer(self, number: int, name: str, width: int) -> Layer:
        kernel = self.take(f"{name}.weight", self.widths[number], width, None, None).shape[-1]
        weight, bias = self.layer(name, self.widths[number], width, kernel, kernel)
        gain = math.sqrt(2) * torch.rsqrt(self.take(f"{name}.magnitude_ema", ...))
        up, down = self._resampling(number, name, kernel)
        return Layer(ModulatedConv(weight, gain, demodulate=True), math.sqrt(2) * bias, up, down, self.clamp)

    def _to_rgb(self, name: str, width: int, scale: float) -> ToRGB:
        weight, bias = self.layer(name, self.widths[-1], width, 1, 1)
        gain = torch.rsqrt(self.take(f"{name}.magnitude_ema", ...))
        return ToRGB(ModulatedConv(weight / math.sqrt(width), gain, demodulate=False), bias, self.clamp, scale)

    def _resampling(self, number: int, name: str, kernel: int) -> tuple[Resample, Resample]:
        # Down-sampling needs `needed` samples of the higher rate. They are the middle ones of the samples that
        # up-sampling gives, so that the centre of the image stays in place.
        before = max(number - 1, 0)
        rate = self.oversampling * max(self.rates[before], self.rates[number])
        factor, divisor = rate // self.rates[before], rate // self.rates[number]
        rise, fall = self._fir(f"{name}.up_filter"), self._fir(f"{name}.down_filter")
        available = (self.sizes[before] + kernel - 2) * factor + len(rise)
        needed = (self.sizes[number] - 1) * divisor + len(fall)
        cut, odd = divmod(available - needed, 2)
        taps = (self.filter_size * factor, self.filter_size * divisor)
        if (len(rise), len(fall)) != taps or odd or cut < 0:
            present = f"{len(rise)} and {len(fall)} taps"
            message = f"the filters of {name} have {present}, and {taps[0]} and {taps[1]} are asked for"
            raise GeneratorError(message, "pass lrelu_upsampling and filter_size as the network was trained with")
        return Resample(rise, up=factor, cut=cut), Resample(fall, down=divisor)

    def _fir(self, name: str) -> Tensor:
        # [t], the same in both directions, or [t, t]
        fir = self.take(name, ...)
        if not fir.isfinite().all():
            message = f"{name} holds {fir.flatten()[~fir.isfinite().flatten()][0]:g}, and a filter's numbers are finite"
            raise GeneratorError(message, "check the file: it is damaged")
        return self.take(name, *fir.shape[:1] * 2) if fir.ndim > 1 else self.take(name, None)
