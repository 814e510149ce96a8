"""ProGAN (Karras et al. 2018), at any resolution and width, conditional or not.

The naming is that of genforce (and of the TensorFlow original and huggan's files) or of pytorch_GAN_zoo.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from magnet_cli.errors import GeneratorError
from magnet_cli.files.checkpoints import Shapes
from magnet_cli.models.generators.state_dict import Affine, State, conv, doubling, linear, one_hot

_EPSILON = 1e-8  # in the normalisation of pixels
_LEAK = 0.2
_ZOO = {"formatLayer.module.weight", "toRGBLayers.0.module.weight"}
_ZOO_BEFORE = {"formatLayer.weight", "toRGBLayers.0.weight"}  # as older versions of its code named them
_ZOO_FINALS = {"WGANGP": False, "Logistic": False, "MSE": True, "DCGAN": True}  # by loss: whether a tanh is last
_ZOO_ONLY = {"leakyReluLeak": 0.2, "perChannelNormalization": True, "equalizedlR": True}


class ProGAN(nn.Module):
    """Convolutions, each with a leaky ReLU and a pixel normalisation, from 4x4 up; a last one makes the image.

    `stages` are one convolution at 4x4, then two by resolution, of which the first doubles the side. `shown` are 1x1
    convolutions from the last stage and the stage before (or None) to the image, multiplied by their shares. `again`: z
    is normalised a second time, with its label. `squashed`: a tanh follows the image, whose pixels are repeated by
    `scale`.
    """

    prior = "sphere"  # z is scaled to |z| = √D before anything else
    truncates = ""
    num_parameters: int
    told: dict[str, object]

    def __init__(
        self,
        first: nn.Linear,
        stages: list[list[nn.Module]],
        shown: tuple[nn.Conv2d, nn.Conv2d | None],
        *,
        label_size: int,
        again: bool,
        squashed: bool,
        scale: int,
    ) -> None:
        super().__init__()
        self.first = first
        self.stages = nn.ModuleList(nn.ModuleList(stage) for stage in stages)
        self.to_image, self.to_image_before = shown
        self.again, self.squashed, self.scale = again, squashed, scale
        self.latent_dim = first.in_features - label_size
        self.num_classes = label_size
        side = (4 << (len(stages) - 1)) * scale
        self.image_shape = (self.to_image.out_channels, side, side)

    def forward(self, z: Tensor, labels: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """Map latents [B, D] to images, roughly in [-1, 1]; truncation has no effect, because z is normalised."""
        x = _normalised(z)
        if self.num_classes:
            x = torch.cat([x, one_hot(labels, self.num_classes, z)], dim=1)
        x = self.first(_normalised(x) if self.again else x)
        x = before = _activated(x.unflatten(1, (-1, 4, 4)))
        for stage in self.stages:
            before = x
            for layer in cast(nn.ModuleList, stage):
                x = _activated(layer(x))
        image = self.to_image(x)
        if self.to_image_before is not None:
            image = image + _enlarged(self.to_image_before(before), 2)
        return _enlarged(image.tanh() if self.squashed else image, self.scale)


def recognises(shapes: Shapes) -> bool:
    """Return whether names and shapes of tensors are those of this family, in either naming."""
    return any(shapes.keys() >= names for names in ({"layer0.weight", "output0.weight"}, _ZOO, _ZOO_BEFORE))


def build(
    state: dict[str, Tensor],
    *,
    label_size: int = 0,
    lod: float | None = None,
    final_tanh: bool = False,
    fused_scale: bool | None = None,
) -> ProGAN:
    """Return the network of a state dict, its sizes read from names and shapes; float64, eval mode."""
    if state.keys() >= _ZOO_BEFORE:
        state = {".module.".join(name.rsplit(".", 1)): value for name, value in state.items()}
    reader = _Reader(State(state, "a ProGAN"))
    stored = reader.state.take("lod").item() if "lod" in state else 0.0
    network = reader.network(label_size, stored if lod is None else lod, fused_scale, squashed=final_tanh)
    network.told = {"lod": stored if lod is None else lod, "fused_scale": reader.fused}
    network.num_parameters = reader.state.num_parameters("lod")
    reader.state.finish()
    return network.to(torch.float64).eval().requires_grad_(False)


def _from_torch(arguments: dict, _: dict[str, dict]) -> dict:
    """Return settings of `build` for the config in a file of pytorch_GAN_zoo; its alpha is a level of detail."""
    if "alpha" not in arguments or "lossCriterion" not in arguments:
        return {}  # of other code
    for name, value in _ZOO_ONLY.items():
        if arguments.get(name, value) != value:
            message = f"the network was made with {name} = {arguments[name]!r}, and magnet has {value!r} alone"
            raise GeneratorError(message, "pass a generator with the layers of the paper")
    loss = arguments["lossCriterion"]
    return {"lod": arguments["alpha"]} | ({"final_tanh": _ZOO_FINALS[loss]} if loss in _ZOO_FINALS else {})


TRANSLATIONS = {"torch": _from_torch}


class _Reader:
    """Reads the layers of either naming, the scale of equalised learning rates multiplied in."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.zoo = state.tensors.keys() >= _ZOO
        self.fused = False  # as found
        self.num_stages = state.count(self._image_name(0).replace("0", "{}") + ".weight")

    def network(self, label_size: int, lod: float, fused: bool | None, *, squashed: bool) -> ProGAN:
        if not 0 <= lod <= self.num_stages - 1:
            message = f"lod {lod:g} is asked for, and the network has 0..{self.num_stages - 1}"
            raise GeneratorError(message, "pass a lod in that range; 0 is full resolution")
        first = self._first()
        if not 0 <= label_size < first.in_features or (label_size and self.zoo):
            message = f"label_size {label_size} is asked for, and the first layer takes {first.in_features} numbers"
            message += " in pytorch_GAN_zoo's naming, of which labels are not known" * self.zoo
            raise GeneratorError(message, "pass the label_size it was trained with; published networks have 0")
        fused = self.fused = self._is_fused(first.out_features // 16) if fused is None else fused
        stages: list[list[nn.Module]] = []
        images = []
        width = first.out_features // 16
        for stage in range(self.num_stages):
            layers: list[nn.Module] = []
            for number in (0, 1) if stage else (1,):
                layer = self._layer(stage, number, width, fused=fused and number == 0)
                layers.append(layer)
                width = layer.out_channels
            stages.append(layers)
            images.append(self._image(stage, width))
        last, share = self.num_stages - 1 - math.floor(lod), lod % 1
        shown = self._part(images[last], 1 - share), self._part(images[last - 1], share) if share else None
        scale = 1 << math.floor(lod)
        return ProGAN(
            first, stages[: last + 1], shown, label_size=label_size, again=not self.zoo, squashed=squashed, scale=scale
        )

    def _first(self) -> nn.Linear:
        if self.zoo:
            weight, bias = self.state.layer("formatLayer.module", None, None)
            gain = math.sqrt(2 / weight.shape[1])
            return linear(weight * gain, bias * gain)
        weight = self.state.take("layer0.weight", None, None, 4, 4)
        # a 4x4 convolution of one pixel with a border of 3: each output has one weight, in reverse order
        flat = weight.flip(2, 3).permute(0, 2, 3, 1).flatten(0, 2) * math.sqrt(2 / weight[0].numel())
        return linear(flat, self.state.take("layer0.bias", len(weight)).repeat_interleave(16))

    def _is_fused(self, width: int) -> bool:
        # the first convolution that doubles the side and changes the width tells; no if there is none
        for stage in range(self.num_stages):
            for number in (0, 1) if stage else (1,):
                weight = self.state.tensors.get(self._layer_name(stage, number) + ".weight")
                if weight is None or weight.ndim != 4:
                    return False
                if number == 0 and weight.shape[0] != weight.shape[1]:
                    return weight.shape[0] == width
                width = weight.shape[0]
        return False

    def _layer_name(self, stage: int, number: int) -> str:
        if self.zoo:
            return f"scaleLayers.{stage - 1}.{number}.module" if stage else "groupScale0.0.module"
        return f"layer{2 * stage + number}"

    def _image_name(self, stage: int | str) -> str:
        return f"toRGBLayers.{stage}.module" if self.zoo else f"output{stage}"

    def _layer(self, stage: int, number: int, width: int, *, fused: bool) -> nn.Conv2d | nn.ConvTranspose2d:
        name = self._layer_name(stage, number)
        weight = self.state.take(f"{name}.weight", *((width, None) if fused else (None, width)), 3, 3)
        if fused:  # of a transposed convolution, [I, O, 3, 3] and mirrored
            weight = weight.transpose(0, 1).flip(2, 3)
        gain = math.sqrt(2 / (9 * width))
        bias = self.state.take(f"{name}.bias", len(weight)) * (gain if self.zoo else 1)
        return conv(weight * gain, bias) if number else doubling(weight * gain, bias)

    def _image(self, stage: int, width: int) -> Affine:
        weight, bias = self.state.layer(self._image_name(stage), None, width, 1, 1)
        gain = math.sqrt((2 if self.zoo else 1) / width)
        return weight * gain, bias * (gain if self.zoo else 1)

    @staticmethod
    def _part(image: Affine, share: float) -> nn.Conv2d:
        return conv(image[0] * share, image[1] * share)


def _normalised(x: Tensor) -> Tensor:
    # to a mean square of 1 over the channels
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + _EPSILON)


def _activated(x: Tensor) -> Tensor:
    return _normalised(functional.leaky_relu(x, _LEAK))


def _enlarged(image: Tensor, scale: int) -> Tensor:
    return image if scale == 1 else functional.interpolate(image, scale_factor=scale, mode="nearest")
