"""Image models: networks that look at images and give features or class scores.

Owns the built-in digit classifier, and `load`, the one door to image models with a torch form. Knows nothing of
generators, samples or files of results.
"""

from dataclasses import dataclass

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn
from torch.nn import functional

from magnet_cli import factories
from magnet_cli.artifacts import cache, registry
from magnet_cli.artifacts.registry import Artifact
from magnet_cli.errors import GeneratorError


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
        """Logits [B, 10] and features [B, 64] of images [B, 1, 32, 32] in [-1, 1]."""
        x = functional.max_pool2d(functional.relu(self.conv1(images)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv3(x)), 2)
        features = functional.relu(self.hidden(x.flatten(1)))
        return self.head(features), features


class DigitFeatures(DigitClassifier):
    """The features of the digit classifier alone: images [B, 1, 32, 32] to [B, 64]."""

    def forward(self, images: Tensor) -> Tensor:
        """Features [B, 64] of images [B, 1, 32, 32] in [-1, 1]."""
        return super().forward(images)[1]


@dataclass(frozen=True)
class ImageModel:
    """A network with a torch form, to be composed with a generator.

    Attributes:
        name: what the user calls it.
        sha256: of its weights: of the file where it is an artifact, of the state dict where it is the user's own.
        module: images [B, C, H, W] in [-1, 1] to one floating tensor [B, ...]; in eval mode, without gradients of its
            weights.
    """

    name: str
    sha256: str
    module: nn.Module


def load(reference: str, device: torch.device, dtype: torch.dtype) -> ImageModel:
    """An image model by the name of an artifact, or a user's own by "file.py:factory" or "module:factory".

    A factory is honoured where the user types it, on the command line: its code is run.

    Args:
        reference: the name.
        device: where its weights go.
        dtype: of its weights.

    Raises:
        ArtifactError: no such artifact or factory, not in the cache, or not what was pinned.
        GeneratorError: it has no torch form.
    """
    if ":" in reference:
        module = factories.call(reference)
        sha256 = factories.state_sha256(module)
    else:
        artifact = registry.find(reference)
        if not _has_torch_form(artifact):
            what = f"exists as {artifact.family} only" if artifact.kind == "image-model" else f"is a {artifact.kind}"
            message = f"{reference} {what}, and an image model with a torch form is asked for"
            those = ", ".join(a.name for a in registry.registry().values() if _has_torch_form(a))
            raise GeneratorError(message, f"those with one: {those}; or your own, file.py:factory")
        data = cache.read(artifact)
        module, sha256 = DigitFeatures(), artifact.sha256
        module.load_state_dict(load_safetensors(data))
    return ImageModel(reference, sha256, module.eval().requires_grad_(False).to(device=device, dtype=dtype))


def _has_torch_form(artifact: Artifact) -> bool:
    return artifact.kind == "image-model" and artifact.family == "safetensors"
