"""The built-in classifier of handwritten digits."""

from torch import Tensor, nn
from torch.nn import functional

from magnet_cli.models.image_models import classifier


class DigitClassifier(nn.Module):
    """The built-in classifier of MNIST digits, 32x32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.conv3 = nn.Conv2d(64, 64, 3, padding=1)
        self.hidden = nn.Linear(64 * 4 * 4, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [B, 10] and features [B, 64] of images [B, 1, 32, 32] in [-1, 1]."""
        x = functional.max_pool2d(functional.relu(self.conv1(images)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv3(x)), 2)
        features = functional.relu(self.hidden(x.flatten(1)))
        return self.head(features), features


def recognises(state: dict[str, Tensor]) -> bool:
    """Return whether a state dict is that of this network."""
    return {"conv1.weight", "conv3.bias", "hidden.weight", "head.bias"} <= state.keys()


build = classifier.builder(DigitClassifier)
outputs = classifier.outputs
