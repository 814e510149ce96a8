"""VGG16 (Simonyan & Zisserman 2015), a classifier of ImageNet: the features of improved precision and recall.

Tensors are named as in torchvision.
"""

from torch import Tensor, nn

from magnet_cli.models.image_models import classifier

_WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # a pooling after each
_HIDDEN, _CLASSES, _SIDE = 4096, 1000, 7


class VGG16(nn.Module):
    """Thirteen convolutions and three linear layers, without batch norm."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        n_in = 3
        for widths in _WIDTHS:
            for n_out in widths:
                layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU()]
                n_in = n_out
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(_SIDE)
        hidden = [nn.Linear(n_in * _SIDE**2, _HIDDEN), nn.ReLU(), nn.Dropout(), nn.Linear(_HIDDEN, _HIDDEN), nn.ReLU()]
        self.classifier = nn.Sequential(*hidden, nn.Dropout(), nn.Linear(_HIDDEN, _CLASSES))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [B, 1000], and [B, 4096] after the second hidden layer, of prepared images [B, 3, 224, 224]."""
        features = self.classifier[:5](self.avgpool(self.features(images)).flatten(1))
        return self.classifier[5:](features), features


def recognises(state: dict[str, Tensor]) -> bool:
    """Return whether a state dict is that of this network: convolutions at these places, and no batch norm."""
    return {"features.28.weight", "classifier.6.weight"} <= state.keys() and "features.1.weight" not in state


build = classifier.builder(VGG16)
outputs = classifier.outputs
