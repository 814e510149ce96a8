"""Image models with a torch form: networks that a Jacobian is taken through, after a generator."""

from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor, nn

from magnet_cli.catalog import cache, entries, image_model_entry, references
from magnet_cli.catalog.entries import Artifact
from magnet_cli.errors import GeneratorError
from magnet_cli.files import checkpoints, documents
from magnet_cli.models import factories, outputs
from magnet_cli.models.image_models import celeba_resnet50, digits, efficientnet_lite, fid_inception, vgg16
from magnet_cli.models.image_models.preprocess import preprocessed

ARCHITECTURES = (celeba_resnet50, digits, efficientnet_lite, fid_inception, vgg16)
_TORCH_FORMATS = ("safetensors", "torch")  # families of artifacts whose file is a state dict


@dataclass(frozen=True)
class ImageModel:
    """A network with a torch form; `module` maps images [B, C, H, W] in [-1, 1] to one floating tensor [B, ...]."""

    name: str
    sha256: str
    module: nn.Module


def load(reference: str, device: torch.device, dtype: torch.dtype) -> ImageModel:
    """Return an image model by the name of an artifact, or a user's own by "file.py:factory" or "module:factory".

    Args:
        reference: the name. A factory's code is run: only what the user typed or passed may name one.
        device: where the weights go.
        dtype: of the weights.

    Raises:
        ArtifactError: no such artifact or factory, not in the cache, or not what was pinned.
        GeneratorError: the artifact has no torch form, or its weights fit no architecture.
    """
    module: nn.Module
    if references.is_factory(reference):
        made = factories.call_factory(reference)
        module, sha256 = _OneTensor(reference, made), factories.state_sha256(made)
    else:
        artifact = entries.find(reference)
        if not has_torch_form(artifact):
            what = f"exists as {artifact.family} only" if artifact.kind == "image-model" else f"is a {artifact.kind}"
            message = f"{reference} {what}, and an image model with a torch form is asked for"
            names = ", ".join(a.name for a in entries.registry().values() if has_torch_form(a))
            raise GeneratorError(message, f"those with one: {names}; or your own, file.py:factory")
        network, architecture, sha256 = build(artifact)
        module = _Features(artifact, network, architecture)
    return ImageModel(reference, sha256, module.eval().requires_grad_(False).to(device=device, dtype=dtype))


def build(artifact: Artifact) -> tuple[nn.Module, ModuleType, str]:
    """Return the network of an artifact with a torch form, the module of its architecture, and the file's sha256."""
    data = cache.read(artifact)
    state = checkpoints.read(data, artifact.name).state
    architecture = next((each for each in ARCHITECTURES if each.recognises(state)), None)
    if architecture is None:
        tensors = ", ".join(list(state)[:3])
        message = f"the weights of {artifact.name} fit no image model magnet can build; their first tensors: {tensors}"
        names = ", ".join(each.__name__.rpartition(".")[2] for each in ARCHITECTURES)
        raise GeneratorError(message, f"those it can: {names}; others as ONNX, or your own, file.py:factory")
    try:
        return architecture.build(state), architecture, documents.sha256_bytes(data)
    except RuntimeError as error:
        message = f"the weights of {artifact.name} do not fit its network: {' '.join(str(error).split())[:300]}"
        raise GeneratorError(message, "check that the file holds the whole network and nothing else") from error


def has_torch_form(artifact: Artifact) -> bool:
    """Return whether an artifact is an image model that comes as a state dict."""
    return artifact.kind == "image-model" and artifact.family in _TORCH_FORMATS


class _OneTensor(nn.Module):
    """A user's own module, of whose output the one tensor that is meant is taken."""

    def __init__(self, reference: str, inner: nn.Module) -> None:
        super().__init__()
        self.reference, self.inner = reference, inner

    def forward(self, images: Tensor) -> Tensor:
        output = self.inner(images)
        values = outputs.tensor(output)
        if values is None:
            message = f"{self.reference} maps images to a {outputs.described(output)}, and one tensor is asked for"
            raise GeneratorError(message, "return the features alone")
        return values


class _Features(nn.Module):
    """Maps images in [-1, 1] to the features of an artifact's network."""

    def __init__(self, artifact: Artifact, network: nn.Module, architecture: ModuleType) -> None:
        super().__init__()
        self.network, self.architecture, self.model = network, architecture, artifact.name
        self.preprocess = image_model_entry.preprocess(artifact.preprocess)
        self.output = image_model_entry.outputs(artifact.outputs).features

    def forward(self, images: Tensor) -> Tensor:
        inputs = preprocessed(images, self.preprocess, self.model)
        return self.architecture.outputs(self.network, inputs)[self.output]
