"""ResNet-50 (He et al. 2016) with four heads: smile, age, gender and eyeglasses of a face.

The predictor of Multi-Attribute Balanced Sampling (Doubinsky et al. 2022), trained on CelebA. Tensors
are named as in the file of its authors.
"""

from torch import Tensor, nn
from torch.nn import functional

HEADS = ("smile", "age", "gender", "eyeglasses")
_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, stride of the first
_EXPANSION, _CLASSES = 4, 2
_WRAPPED = "module."  # what training on several devices puts before every name


class _Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1; added to the input, which is projected if shapes differ."""

    def __init__(self, n_in: int, width: int, stride: int) -> None:
        super().__init__()
        n_out = width * _EXPANSION
        self.conv1, self.bn1 = nn.Conv2d(n_in, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, n_out, 1, bias=False), nn.BatchNorm2d(n_out)
        self.downsample = None
        if stride > 1 or n_in != n_out:
            self.downsample = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(functional.relu(self.bn2(self.conv2(y)))))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class CelebaResNet50(nn.Module):
    """The trunk without its classifier, and a linear layer of two classes for each attribute."""

    def __init__(self) -> None:
        super().__init__()
        stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        n_in = 64
        for width, count, stride in _STAGES:
            blocks = []
            for i in range(count):
                blocks.append(_Bottleneck(n_in, width, stride if i == 0 else 1))
                n_in = width * _EXPANSION
            stem.append(nn.Sequential(*blocks))
        self.features = nn.Sequential(*stem, nn.AdaptiveAvgPool2d(1))
        for name in HEADS:
            setattr(self, f"fc_{name}", nn.Linear(n_in, _CLASSES))

    def forward(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return logits [B, 2] by head, and features [B, 2048], of prepared images [B, 3, 224, 224]."""
        features = self.features(images).flatten(1)
        return {name: getattr(self, f"fc_{name}")(features) for name in HEADS}, features


def recognises(state: dict[str, Tensor]) -> bool:
    """Return whether a state dict is that of this network."""
    return {f"fc_{name}.weight" for name in HEADS} <= _unwrapped(state).keys()


def build(state: dict[str, Tensor]) -> nn.Module:
    """Return the network of a state dict; torch raises RuntimeError if tensors do not fit."""
    network = CelebaResNet50()
    network.load_state_dict(_unwrapped(state))
    return network


def outputs(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return logits [B, 2] of each head and features [B, 2048] by their names."""
    logits, features = network(images)
    return logits | {"features": features}


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(_WRAPPED): value for name, value in state.items()}
