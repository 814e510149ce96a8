"""The Inception network of FID (Heusel et al. 2017): TensorFlow's of 2015-12-05, as ported to PyTorch in "6726825d".

It differs from torchvision's: averages leave the padding out, the last block takes a maximum, and there are 1,008
classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from magnet_cli.models.image_models import classifier

_CLASSES, _FEATURES = 1008, 2048


class _Unit(nn.Module):
    """Convolution, batch norm, ReLU; keeps the side, except with a stride or `shrink`."""

    def __init__(
        self, n_in: int, n_out: int, kernel: int | tuple[int, int], stride: int = 1, *, shrink: bool = False
    ) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (0, 0) if shrink or stride > 1 else (sides[0] // 2, sides[1] // 2)
        self.conv = nn.Conv2d(n_in, n_out, sides, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(n_out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


def _average(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class _A(nn.Module):
    def __init__(self, n_in: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = _Unit(n_in, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = _Unit(n_in, 48, 1), _Unit(48, 64, 5)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Unit(n_in, 64, 1), _Unit(64, 96, 3)
        self.branch3x3dbl_3, self.branch_pool = _Unit(96, 96, 3), _Unit(n_in, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, three, self.branch_pool(_average(x))], 1)


class _B(nn.Module):
    def __init__(self, n_in: int) -> None:
        super().__init__()
        self.branch3x3 = _Unit(n_in, 384, 3, 2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Unit(n_in, 64, 1), _Unit(64, 96, 3)
        self.branch3x3dbl_3 = _Unit(96, 96, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, functional.max_pool2d(x, 3, 2)], 1)


class _C(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.branch1x1, self.branch7x7_1 = _Unit(768, 192, 1), _Unit(768, n, 1)
        self.branch7x7_2, self.branch7x7_3 = _Unit(n, n, (1, 7)), _Unit(n, 192, (7, 1))
        self.branch7x7dbl_1, self.branch7x7dbl_2 = _Unit(768, n, 1), _Unit(n, n, (7, 1))
        self.branch7x7dbl_3, self.branch7x7dbl_4 = _Unit(n, n, (1, 7)), _Unit(n, n, (7, 1))
        self.branch7x7dbl_5, self.branch_pool = _Unit(n, 192, (1, 7)), _Unit(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(_average(x))], 1)


class _D(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = _Unit(768, 192, 1), _Unit(192, 320, 3, 2)
        self.branch7x7x3_1, self.branch7x7x3_2 = _Unit(768, 192, 1), _Unit(192, 192, (1, 7))
        self.branch7x7x3_3, self.branch7x7x3_4 = _Unit(192, 192, (7, 1)), _Unit(192, 192, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_2(self.branch7x7x3_1(x))
        seven = self.branch7x7x3_4(self.branch7x7x3_3(seven))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, functional.max_pool2d(x, 3, 2)], 1)


class _E(nn.Module):
    """The last two blocks; in the very last the pooled branch takes the maximum."""

    def __init__(self, n_in: int, *, last: bool) -> None:
        super().__init__()
        self.branch1x1, self.branch3x3_1 = _Unit(n_in, 320, 1), _Unit(n_in, 384, 1)
        self.branch3x3_2a, self.branch3x3_2b = _Unit(384, 384, (1, 3)), _Unit(384, 384, (3, 1))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = _Unit(n_in, 448, 1), _Unit(448, 384, 3)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = _Unit(384, 384, (1, 3)), _Unit(384, 384, (3, 1))
        self.branch_pool = _Unit(n_in, 192, 1)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = functional.max_pool2d(x, 3, 1, 1) if self.last else _average(x)
        parts = [self.branch1x1(x), self.branch3x3_2a(three), self.branch3x3_2b(three)]
        parts += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), self.branch_pool(pooled)]
        return torch.cat(parts, 1)


class FidInception(nn.Module):
    """Inception v3 as TensorFlow had it in 2015."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3, self.Conv2d_2a_3x3 = _Unit(3, 32, 3, 2), _Unit(32, 32, 3, shrink=True)
        self.Conv2d_2b_3x3, self.Conv2d_3b_1x1 = _Unit(32, 64, 3), _Unit(64, 80, 1)
        self.Conv2d_4a_3x3 = _Unit(80, 192, 3, shrink=True)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _A(192, 32), _A(256, 64), _A(288, 64)
        self.Mixed_6a = _B(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = _C(128), _C(160), _C(160), _C(192)
        self.Mixed_7a = _D()
        self.Mixed_7b, self.Mixed_7c = _E(1280, last=False), _E(2048, last=True)
        self.fc = nn.Linear(_FEATURES, _CLASSES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [B, 1008] and features [B, 2048], pool3, of prepared images [B, 3, 299, 299] in [-1, 1]."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(images)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(functional.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(functional.max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        features = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean(dim=(2, 3))
        return self.fc(features), features


def recognises(state: dict[str, Tensor]) -> bool:
    """Return whether a state dict is that of this network, the only Inception with 1,008 classes."""
    head = state.get("fc.weight")
    return "Mixed_7c.branch_pool.conv.weight" in state and head is not None and len(head) == _CLASSES


def build(state: dict[str, Tensor]) -> nn.Module:
    """Return the network of a state dict, with batch-norm counters or without; RuntimeError if tensors do not fit."""
    network = FidInception()
    counters = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    network.load_state_dict(counters | state)
    return network


outputs = classifier.outputs
