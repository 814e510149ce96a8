"""EfficientNet-Lite0 (Tan & Le 2019; the Lite variant of the TensorFlow team, 2020), a classifier of ImageNet.

Tensors are named as in lukemelas' EfficientNet-PyTorch.
"""

from torch import Tensor, nn
from torch.nn import functional

from magnet_cli.models.image_models import classifier

_STAGES = (  # blocks, kernel, stride of the first, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD, _CLASSES = 32, 1280, 1000
_EPS = 1e-3


class _Convolution(nn.Conv2d):
    """A convolution padded as TensorFlow's "same": an odd padding is larger at the right and the bottom."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(n_in, n_out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        (height, width), kernel, stride = x.shape[2:], self.kernel_size[0], self.stride[0]
        down, across = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in (height, width))
        return super().forward(functional.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2)))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_EPS)


class _Block(nn.Module):
    """Expand, convolve each channel, project; added to the input where shapes allow."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = n_in * expansion
        if expansion > 1:
            self._expand_conv = _Convolution(n_in, wide, 1)
            self._bn0 = _norm(wide)
        self._depthwise_conv = _Convolution(wide, wide, kernel, stride, groups=wide)
        self._bn1 = _norm(wide)
        self._project_conv = _Convolution(wide, n_out, 1)
        self._bn2 = _norm(n_out)
        self.adds = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu6(self._bn0(self._expand_conv(x))) if hasattr(self, "_expand_conv") else x
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """Mobile inverted bottlenecks without squeeze-and-excitation, ReLU6 throughout."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _Convolution(3, _STEM, 3, 2)
        self._bn0 = _norm(_STEM)
        blocks, n_in = [], _STEM
        for count, kernel, stride, expansion, n_out in _STAGES:
            for i in range(count):
                blocks.append(_Block(n_in, n_out, kernel, stride if i == 0 else 1, expansion))
                n_in = n_out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _Convolution(n_in, _HEAD, 1)
        self._bn1 = _norm(_HEAD)
        self._fc = nn.Linear(_HEAD, _CLASSES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [B, 1000] and features [B, 1280] of prepared images [B, 3, H, W], 224x224 in training."""
        x = functional.relu6(self._bn0(self._conv_stem(images)))
        for block in self._blocks:
            x = block(x)
        features = functional.relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))
        return self._fc(features), features


def recognises(state: dict[str, Tensor]) -> bool:
    """Return whether a state dict is that of this network, the only one without squeeze-and-excitation."""
    return {"_conv_stem.weight", "_fc.weight"} <= state.keys() and not any("_se_" in name for name in state)


build = classifier.builder(EfficientNetLite0)
outputs = classifier.outputs
