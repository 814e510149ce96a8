"""Image models: networks that look at images and give features or class scores.

Owns the two doors: `load`, for what a generator is composed with, and `load_scorer`, for what
judges images that are there. Knows nothing of generators, samples or files of results.
"""

import dataclasses
import hashlib
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from magnet_cli.catalog import cache, entries, image_model_entry
from magnet_cli.catalog.entries import Artifact
from magnet_cli.catalog.image_model_entry import Outputs, Preprocess
from magnet_cli.errors import ArtifactError, GeneratorError
from magnet_cli.files import atomic, checkpoints
from magnet_cli.models import custom
from magnet_cli.models.image_models import celeba_resnet50, digits, efficientnet_lite, fid_inception, onnx_file, vgg16
from magnet_cli.models.image_models.preprocess import prepared

ARCHITECTURES = (celeba_resnet50, digits, efficientnet_lite, fid_inception, vgg16)
Run = Callable[[Tensor], dict[str, Tensor]]
_WITH_TORCH_FORM = ("safetensors", "torch")  # families: a state dict, by the format of its file
_AS_IT_IS = Preprocess()  # of models that no entry speaks of


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


@dataclass(frozen=True)
class ImageScorer:
    """A network that judges images as files hold them.

    Attributes:
        name: what the user calls it.
        sha256: of its weights.
        preprocess: how images are prepared for it.
        outputs: what it gives.
        run: images [B, C, H, W] in [-1, 1] to its outputs by name.
        code: of the user's own, hex sha256 of what its weights do not tell.
    """

    name: str
    sha256: str
    preprocess: Preprocess
    outputs: Outputs
    run: Run
    code: str = ""

    @property
    def key(self) -> str:
        """Hex sha256 of all that its numbers depend on, besides the images."""
        tables = {"preprocess": dataclasses.asdict(self.preprocess), "outputs": dataclasses.asdict(self.outputs)}
        tables |= {"code": self.code} if self.code else {}
        return atomic.sha256_bytes(atomic.canonical({"format": 1, "sha256": self.sha256} | tables))

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """Features [B, F] float32 of images [B, H, W, C] uint8.

        Raises:
            GeneratorError: it gives none, images of that shape do not fit, or they are not finite.
        """
        if not self.outputs.features:
            message = f"{self.name} gives no features: found scores of {', '.join(self.outputs.classes)}"
            raise GeneratorError(message, "pass --features NAME, a model that does, as digits or efficientnet-lite0")
        return self._of(pixels, self.outputs.features)

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities [B, classes] float32 of images [B, H, W, C] uint8.

        Raises:
            GeneratorError: it gives none, images of that shape do not fit, or they are not finite.
        """
        if not self.outputs.scores:
            message = f"{self.name} gives features, and no scores of classes"
            raise GeneratorError(message, "pass --model NAME, a model that does, as gender, age or digits")
        found = self._of(pixels, self.outputs.scores)
        if self.outputs.softmax:
            found = torch.from_numpy(found).softmax(dim=1).numpy()
        if self.outputs.starts:
            found = np.add.reduceat(found, self.outputs.starts, axis=1)
        if self.outputs.classes and found.shape[1] != len(self.outputs.classes):
            message = (
                f"{self.name} gives {found.shape[1]} scores, and its entry names {len(self.outputs.classes)} classes"
            )
            raise GeneratorError(message, f"correct [{self.name}.outputs] in the list of artifacts")
        return found

    def classes(self, count: int) -> tuple[str, ...]:
        """The names of its classes; their numbers where they have none."""
        return self.outputs.classes or tuple(str(i) for i in range(count))

    def _of(self, pixels: np.ndarray, output: str) -> np.ndarray:
        images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1
        shape = "×".join(map(str, images.shape[1:]))
        try:
            with torch.inference_mode():
                given = self.run(images)
        except (RuntimeError, ValueError) as error:
            message = f"{self.name} does not take {shape} images: {next(iter(str(error).splitlines()), '')[:200]}"
            raise GeneratorError(message, "pass another model, or images of the shape it takes") from error
        if output not in given:
            message = f"{self.name} has no output {output!r}: found {', '.join(given)}"
            raise GeneratorError(message, f"correct [{self.name}.outputs] in the list of artifacts")
        found = given[output].to(device="cpu", dtype=torch.float32)
        if len(found) != len(pixels) or not torch.isfinite(found).all():
            message = f"{self.name} gives {'×'.join(map(str, found.shape))} numbers for {len(pixels)} {shape} images"
            message += "" if torch.isfinite(found).all() else ", some of them not finite"
            raise GeneratorError(message, "pass a model that gives finite numbers for each image")
        return found.flatten(1).numpy()


class _Features(nn.Module):
    """The features of an artifact's network, as a function of images in [-1, 1]."""

    def __init__(self, artifact: Artifact, network: nn.Module, architecture: ModuleType) -> None:
        super().__init__()
        self.network, self.architecture, self.model = network, architecture, artifact.name
        self.preprocess = image_model_entry.preprocess(artifact.preprocess)
        self.output = image_model_entry.outputs(artifact.outputs).features

    def forward(self, images: Tensor) -> Tensor:
        return self.architecture.outputs(self.network, prepared(images, self.preprocess, self.model))[self.output]


def load(reference: str, device: torch.device, dtype: torch.dtype) -> ImageModel:
    """An image model by the name of an artifact, or a user's own by "file.py:factory" or "module:factory".

    A factory is honoured where the user types it, on the command line: its code is run.

    Args:
        reference: the name.
        device: where its weights go.
        dtype: of its weights.

    Raises:
        ArtifactError: no such artifact or factory, not in the cache, or not what was pinned.
        GeneratorError: it has no torch form, or weights that fit no architecture.
    """
    if ":" in reference:
        module = custom.call_factory(reference)
        sha256 = custom.state_sha256(module)
    else:
        artifact = entries.find(reference)
        if not _has_torch_form(artifact):
            what = f"exists as {artifact.family} only" if artifact.kind == "image-model" else f"is a {artifact.kind}"
            message = f"{reference} {what}, and an image model with a torch form is asked for"
            those = ", ".join(a.name for a in entries.registry().values() if _has_torch_form(a))
            raise GeneratorError(message, f"those with one: {those}; or your own, file.py:factory")
        module, sha256 = _Features(artifact, *_network(artifact)), artifact.sha256
    return ImageModel(reference, sha256, module.eval().requires_grad_(False).to(device=device, dtype=dtype))


def load_scorer(reference: str, device: str = "cpu", *, trust: bool = False) -> ImageScorer:
    """What judges images: an artifact, a user's own factory, or the path of an ONNX or TorchScript file.

    Factories and TorchScript files hold code that is run: they are honoured where the user types them alone.

    Args:
        reference: a name, "file.py:factory", or a path.
        device: where a network of torch runs; ONNX runs on the CPU.
        trust: whether the user lets TorchScript run.

    Raises:
        ArtifactError: no such artifact, file or factory, not in the cache, not what was pinned, or not trusted.
        GeneratorError: it is no image model, or of a format that magnet cannot run.
        MagnetError: onnxruntime is not installed.
    """
    if Path(reference).expanduser().is_file() and reference not in entries.registry():
        return _of_file(Path(reference).expanduser(), device, trust=trust)
    if ":" in reference:
        return _of_module(reference, custom.call_factory(reference), device)
    artifact = entries.find(reference)
    if artifact.kind != "image-model":
        message = f"{reference} is a {artifact.kind}, and an image model is asked for"
        those = ", ".join(a.name for a in entries.registry().values() if a.kind == "image-model")
        raise GeneratorError(message, f"pass one of {those}; or your own, file.py:factory")
    how, gives = image_model_entry.preprocess(artifact.preprocess), image_model_entry.outputs(artifact.outputs)
    if artifact.family == "onnx":
        named = tuple(name for name in (gives.features, gives.scores) if name)
        run = _prepared(onnx_file.runner(cache.read(artifact), artifact.name, named), how, artifact.name)
    elif _has_torch_form(artifact):
        network, architecture = _network(artifact)
        network = network.eval().requires_grad_(False).to(device)
        run = _prepared(lambda images: architecture.outputs(network, images.to(device)), how, artifact.name)
    else:
        message = f"{reference} is of the format {artifact.family or 'none'}, which magnet does not run from a list"
        raise GeneratorError(
            message, "image models are onnx, safetensors or torch; TorchScript by its path, with --trust"
        )
    return ImageScorer(artifact.name, artifact.sha256, how, gives, run)


def with_memory(scorer: ImageScorer) -> ImageScorer:
    """The same judge, who looks at each image once: what was said of it is remembered, by its pixels."""
    known: dict[bytes, dict[str, Tensor]] = {}

    def run(images: Tensor) -> dict[str, Tensor]:
        digests = [_digest(image) for image in images]
        new = {digest: i for i, digest in enumerate(digests) if digest not in known}
        if new:
            given = scorer.run(images[list(new.values())])
            if any(len(each) != len(new) for each in given.values()):
                return given  # which the judge refuses
            for i, digest in enumerate(new):
                known[digest] = {name: each[i].cpu() for name, each in given.items()}
        return {name: torch.stack([known[digest][name] for digest in digests]) for name in known[digests[0]]}

    return dataclasses.replace(scorer, run=run)


def _digest(image: Tensor) -> bytes:
    """16 bytes that tell an image [C, H, W] from every other."""
    array = np.ascontiguousarray(image.numpy())
    return hashlib.blake2b(repr(array.shape).encode() + array.tobytes(), digest_size=16).digest()


def _prepared(run: Run, how: Preprocess, name: str) -> Run:
    return lambda images: run(prepared(images, how, name))


def _of_module(name: str, module: nn.Module, device: str) -> ImageScorer:
    """A user's own module: images in [-1, 1] to features, or to logits; their names where it has `classes`."""
    module = module.eval().requires_grad_(False).to(device)
    classes = tuple(str(each) for each in getattr(module, "classes", ()))
    gives = Outputs(features="output", scores="output", softmax=True, classes=classes)
    sha256, code = custom.state_sha256(module), custom.code_sha256(name)
    return ImageScorer(name, sha256, _AS_IT_IS, gives, lambda x: {"output": _first(module(x.to(device)))}, code)


def _of_file(path: Path, device: str, *, trust: bool) -> ImageScorer:
    """A file whose path was typed: images in [-1, 1] as they are, to its first output."""
    with atomic.explained("read", path):
        data = path.read_bytes()
    name, sha256 = path.name, atomic.sha256_bytes(data)
    if path.suffix == ".onnx":
        gives = Outputs(features="output", scores="output", softmax=True)
        run = onnx_file.runner(data, name, ())
        return ImageScorer(name, sha256, _AS_IT_IS, gives, lambda x: {"output": next(iter(run(x).values()))})
    if not _is_torchscript(data):
        message = f"{path} is neither ONNX nor TorchScript"
        raise ArtifactError(message, "state dicts need an entry in MAGNET_ARTIFACTS that says how images are prepared")
    if not trust:
        message = f"{path} is TorchScript: it holds code, which would be run"
        raise ArtifactError(message, "pass --trust if you know where it comes from, or take an ONNX model")
    module = torch.jit.load(io.BytesIO(data), map_location=device)
    gives = Outputs(features="output", scores="output", softmax=True)
    return ImageScorer(name, sha256, _AS_IT_IS, gives, lambda x: {"output": _first(module(x.to(device)))})


def _first(given: object) -> Tensor:
    while isinstance(given, dict | tuple | list) and given:
        given = next(iter(given.values())) if isinstance(given, dict) else given[0]
    if not isinstance(given, Tensor):
        message = f"it gives a {type(given).__name__}, and a tensor is asked for"
        raise ValueError(message)
    return given


def _is_torchscript(data: bytes) -> bool:
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return False
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return any("/code/" in name for name in archive.namelist())


def _network(artifact: Artifact) -> tuple[nn.Module, ModuleType]:
    """The network of an artifact with a torch form, and its architecture."""
    state = checkpoints.read(cache.read(artifact), artifact.name).state
    architecture = next((each for each in ARCHITECTURES if each.recognises(state)), None)
    if architecture is None:
        names = ", ".join(list(state)[:3])
        message = f"the weights of {artifact.name} fit no image model magnet can build; their first tensors: {names}"
        known = ", ".join(each.__name__.rpartition(".")[2] for each in ARCHITECTURES)
        raise GeneratorError(message, f"those it can: {known}; others as ONNX, or your own, file.py:factory")
    try:
        return architecture.build(state), architecture
    except RuntimeError as error:
        message = f"the weights of {artifact.name} do not fit its network: {' '.join(str(error).split())[:300]}"
        raise GeneratorError(message, "check that the file holds the whole network and nothing else") from error


def _has_torch_form(artifact: Artifact) -> bool:
    return artifact.kind == "image-model" and artifact.family in _WITH_TORCH_FORM
