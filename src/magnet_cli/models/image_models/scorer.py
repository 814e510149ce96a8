"""Image scorers: networks of any format that give features or class probabilities of images as files hold them."""

import dataclasses
import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from magnet_cli.catalog import cache, entries, image_model_entry, references
from magnet_cli.catalog.image_model_entry import Outputs, Preprocess
from magnet_cli.errors import ArtifactError, GeneratorError
from magnet_cli.files import documents, opening
from magnet_cli.models import factories
from magnet_cli.models.image_models import image_model, onnx_file
from magnet_cli.models.image_models.preprocess import preprocessed

Run = Callable[[Tensor], dict[str, Tensor]]  # images [B, C, H, W] to outputs by name
_RECENT = 2048  # images whose outputs heads of one network share
_NO_PREPROCESSING = Preprocess()  # for models without an entry
_FEATURES_AND_LOGITS = Outputs(features="output", scores="output", softmax=True)  # of models without an entry


@dataclass(frozen=True)
class ImageScorer:
    """A network that gives features or class probabilities of images.

    `run` maps images [B, C, H, W] in [-1, 1] to outputs by name; `sha256` is that of the bytes the network was built
    from, or of a module's weights; `code` is the hex sha256 of what the weights of a user's own module do not tell, and
    empty for others.
    """

    name: str
    sha256: str
    preprocess: Preprocess
    outputs: Outputs
    run: Run
    code: str = ""

    @property
    def key(self) -> str:
        """Hex sha256 of everything but the images that the numbers depend on."""
        tables = {"preprocess": dataclasses.asdict(self.preprocess), "outputs": dataclasses.asdict(self.outputs)}
        code = {"code": self.code} if self.code else {}
        return documents.sha256_bytes(documents.canonical({"format": 1, "sha256": self.sha256} | tables | code))

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """Return features [B, F] float32 of images [B, H, W, C] uint8.

        Raises:
            GeneratorError: the network gives no features, images of that shape do not fit, or a feature is not finite.
        """
        if not self.outputs.features:
            message = f"{self.name} gives no features: found scores of {', '.join(self.outputs.classes)}"
            hint = "pass `features`, the name of a model that does, as digits or efficientnet-lite0"
            raise GeneratorError(message, hint)
        return self._output(pixels, self.outputs.features)

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Return class probabilities [B, classes] float32 of images [B, H, W, C] uint8.

        Raises:
            GeneratorError: the network gives no scores, images of that shape do not fit, or a score is not finite.
        """
        if not self.outputs.scores:
            message = f"{self.name} gives features, and no scores of classes"
            raise GeneratorError(message, "pass `model`, the name of one that does, as gender, age or digits")
        scores = self._output(pixels, self.outputs.scores)
        if self.outputs.softmax:
            scores = torch.from_numpy(scores).softmax(dim=1).numpy()
        if self.outputs.starts:
            scores = np.add.reduceat(scores, self.outputs.starts, axis=1)
        num_classes = len(self.outputs.classes)
        if num_classes and scores.shape[1] != num_classes:
            message = f"{self.name} gives {scores.shape[1]} scores, and its entry names {num_classes} classes"
            raise GeneratorError(message, f"correct [{self.name}.outputs] in the list of artifacts")
        return scores

    def classes(self, count: int) -> tuple[str, ...]:
        """Return the names of the classes; their numbers if they have no names."""
        return self.outputs.classes or tuple(str(i) for i in range(count))

    def _output(self, pixels: np.ndarray, name: str) -> np.ndarray:
        images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1
        shape = "×".join(map(str, images.shape[1:]))
        try:
            with torch.inference_mode():
                outputs = self.run(images)
        except (RuntimeError, ValueError) as error:
            message = f"{self.name} does not take {shape} images: {next(iter(str(error).splitlines()), '')[:200]}"
            raise GeneratorError(message, "pass another model, or images of the shape it takes") from error
        if name not in outputs:
            message = f"{self.name} has no output {name!r}: found {', '.join(outputs)}"
            raise GeneratorError(message, f"correct [{self.name}.outputs] in the list of artifacts")
        values = outputs[name].to(device="cpu", dtype=torch.float32)
        finite = bool(torch.isfinite(values).all())
        if values.ndim == 0 or len(values) != len(pixels) or not finite:
            numbers = f"{'×'.join(map(str, values.shape)) or 'single'} numbers"
            message = f"{self.name} gives {numbers} for {len(pixels)} {shape} images"
            message += "" if finite else ", some of them not finite"
            raise GeneratorError(message, "pass a model that gives finite numbers for each image")
        return values.reshape(len(values), -1).numpy()


def load_scorer(reference: str, device: str = "cpu", *, trust: bool = False) -> ImageScorer:
    """Return the scorer of an artifact, a user's own factory, or an ONNX or TorchScript file.

    Args:
        reference: an artifact's name, "file.py:factory", or a path. Factories and TorchScript files hold code that is
            run: only what the user typed or passed may name one.
        device: where torch networks run; ONNX runs on the CPU.
        trust: whether the user allows TorchScript to run.

    Raises:
        ArtifactError: no such artifact, file or factory, not in the cache, not what was pinned, or not trusted.
        GeneratorError: the artifact is no image model, or of a format that magnet cannot run.
        MagnetError: onnxruntime is not installed.
    """
    path = Path(reference).expanduser()
    if references.is_factory(reference):
        return _of_factory(reference, device)
    if path.is_file() and reference not in entries.registry():
        return _of_file(path, device, trust=trust)
    artifact = entries.find(reference)
    if artifact.kind != "image-model":
        message = f"{reference} is a {artifact.kind}, and an image model is asked for"
        names = ", ".join(a.name for a in entries.registry().values() if a.kind == "image-model")
        raise GeneratorError(message, f"pass one of {names}; or your own, file.py:factory")
    preprocess = image_model_entry.preprocess(artifact.preprocess)
    outputs = image_model_entry.outputs(artifact.outputs)
    if artifact.family == "onnx":
        output_names = tuple(name for name in (outputs.features, outputs.scores) if name)
        data = cache.read(artifact)
        run, sha256 = onnx_file.runner(data, artifact.name, output_names), documents.sha256_bytes(data)
    elif image_model.has_torch_form(artifact):
        network, architecture, sha256 = image_model.build(artifact)
        network = network.eval().requires_grad_(False).to(device)

        def run(images: Tensor) -> dict[str, Tensor]:
            return architecture.outputs(network, images.to(device))

    else:
        message = f"{reference} is of the format {artifact.family or 'none'}, which magnet does not run from a list"
        hint = "image models are onnx, safetensors or torch; TorchScript by its path, with `trust=True`"
        raise GeneratorError(message, hint)

    def run_prepared(images: Tensor) -> dict[str, Tensor]:
        return run(preprocessed(images, preprocess, artifact.name))

    return ImageScorer(artifact.name, sha256, preprocess, outputs, run_prepared)


def load_scorers(references: Iterable[str], device: str = "cpu", *, trust: bool = False) -> list[ImageScorer]:
    """Return scorers, as `load_scorer`, each reference once.

    Heads of one network, artifacts that name the same file and preparation, share it: it is built once, and runs once
    for each image that was not among the last ones.
    """
    scorers: list[ImageScorer] = []
    for reference in dict.fromkeys(references):
        scorers.append(_other_head(reference, scorers) or load_scorer(reference, device, trust=trust))
    return with_memory(scorers, _RECENT) if len({each.run for each in scorers}) < len(scorers) else scorers


def with_memory(scorers: Sequence[ImageScorer], most: int | None = None) -> list[ImageScorer]:
    """Return the same scorers with a memory of `most` images, or of all: a network runs once for each different image.

    Scorers that share a network share its memory, of the outputs that they use.
    """
    names: dict[Run, set[str]] = {}
    for each in scorers:
        names.setdefault(each.run, set()).update({each.outputs.features, each.outputs.scores} - {""})
    remembering = {run: _remembering(run, used, most) for run, used in names.items()}
    return [dataclasses.replace(each, run=remembering[each.run]) for each in scorers]


def _remembering(run: Run, names: set[str], most: int | None) -> Run:
    memory: dict[bytes, dict[str, Tensor]] = {}

    def remembered(images: Tensor) -> dict[str, Tensor]:
        digests = [_digest(image) for image in images]
        new = {digest: i for i, digest in enumerate(digests) if digest not in memory}
        if new:
            outputs = run(images[list(new.values())])
            wrong = any(values.ndim == 0 or len(values) != len(new) for values in outputs.values())
            if wrong or not names <= outputs.keys():
                return outputs  # which the scorer refuses
            for i, digest in enumerate(new):
                memory[digest] = {name: outputs[name][i].cpu() for name in names}
        outputs = {name: torch.stack([memory[digest][name] for digest in digests]) for name in names}
        for oldest in list(memory)[: max(len(memory) - most, 0)] if most else ():
            del memory[oldest]
        return outputs

    return remembered


def _other_head(reference: str, scorers: list[ImageScorer]) -> ImageScorer | None:
    """Return the scorer of an artifact whose network one of the scorers has; None if none has."""
    artifact = entries.registry().get(reference)
    if artifact is None or not image_model.has_torch_form(artifact):
        return None
    sha256, preprocess = cache.pinned(artifact).sha256, image_model_entry.preprocess(artifact.preprocess)
    for scorer in scorers:
        if (scorer.sha256, scorer.preprocess) == (sha256, preprocess):
            return dataclasses.replace(scorer, name=artifact.name, outputs=image_model_entry.outputs(artifact.outputs))
    return None


def _digest(image: Tensor) -> bytes:
    array = np.ascontiguousarray(image.numpy())
    return hashlib.blake2b(repr(array.shape).encode() + array.tobytes(), digest_size=16).digest()


def _of_factory(reference: str, device: str) -> ImageScorer:
    """Return the scorer of a user's own module: images in [-1, 1] to features, or to logits of its `classes`."""
    module = factories.call_factory(reference).eval().requires_grad_(False).to(device)
    classes = tuple(str(each) for each in getattr(module, "classes", ()))
    outputs = dataclasses.replace(_FEATURES_AND_LOGITS, classes=classes)
    sha256, code = factories.state_sha256(module), factories.code_sha256(reference)
    return ImageScorer(reference, sha256, _NO_PREPROCESSING, outputs, _torch_runner(module, device), code)


def _of_file(path: Path, device: str, *, trust: bool) -> ImageScorer:
    """Return the scorer of a file without an entry: images in [-1, 1] to its first output."""
    data = opening.read(path)
    name, sha256 = path.name, documents.sha256_bytes(data)
    if path.suffix == ".onnx":
        run_all = onnx_file.runner(data, name, ())

        def run(images: Tensor) -> dict[str, Tensor]:
            return {"output": next(iter(run_all(images).values()))}

        return ImageScorer(name, sha256, _NO_PREPROCESSING, _FEATURES_AND_LOGITS, run)
    if not _is_torchscript(data):
        message = f"{path} is neither ONNX nor TorchScript"
        raise ArtifactError(message, "state dicts need an entry in MAGNET_ARTIFACTS that says how images are prepared")
    if not trust:
        message = f"{path} is TorchScript: it holds code, which would be run"
        raise ArtifactError(message, "pass `trust=True` if you know where it comes from, or take an ONNX model")
    module = torch.jit.load(io.BytesIO(data), map_location=device)
    return ImageScorer(name, sha256, _NO_PREPROCESSING, _FEATURES_AND_LOGITS, _torch_runner(module, device))


def _torch_runner(module: nn.Module, device: str) -> Run:
    return lambda images: {"output": _first_tensor(module(images.to(device)))}


def _first_tensor(value: object) -> Tensor:
    while isinstance(value, dict | tuple | list) and value:
        value = next(iter(value.values())) if isinstance(value, dict) else value[0]
    if not isinstance(value, Tensor):
        raise ValueError(f"it gives a {type(value).__name__}, and a tensor is asked for")
    return value


def _is_torchscript(data: bytes) -> bool:
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return False
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return any("/code/" in name for name in archive.namelist())
