"""Shares of classes in samples: measured, compared with other samples, and written into the samples."""

import json
import time
from collections.abc import Generator as Steps
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from magnet_cli.errors import ArtifactError, SampleError
from magnet_cli.evaluating import shares
from magnet_cli.evaluating.evaluation import interval_name
from magnet_cli.files import atomic, documents, image_folder
from magnet_cli.files.image_folder import ImageSet
from magnet_cli.files.progress import SILENT, Messages
from magnet_cli.files.results import ResultFolder
from magnet_cli.maths.metrics import class_shares
from magnet_cli.models import default_device, image_models, kept_outputs
from magnet_cli.models.image_models import ImageScorer
from magnet_cli.models.kept_outputs import ModelOutputs
from magnet_cli.sampling.kinds import SAMPLE

_RESERVED = {"file_name", "row", "log_volume", "label", "source"}  # fields of metadata.jsonl in every sample


@dataclass(frozen=True, kw_only=True)
class AnnotateRequest:
    """Arguments of `magnet attributes SAMPLE...`; the fields are its flags, described in docs/reference/cli.md."""

    samples: tuple[Path, ...]
    model: tuple[str, ...]
    compare: tuple[Path, ...] | None = None
    device: str | None = None
    trust: bool = False


@dataclass(frozen=True)
class AnnotatePlan:
    """Samples before they are scored; `paired` says that samples and others are pairs from the same volumes."""

    request: AnnotateRequest
    samples: list[ImageSet]
    others: list[ImageSet]
    scorers: list[ImageScorer]
    paired: bool
    start: float

    @property
    def work(self) -> int:
        """Number of images scored, counted once for each model."""
        return sum(map(len, self.samples + self.others)) * len(self.scorers)


def plan(request: AnnotateRequest) -> AnnotatePlan:
    """Open the samples and load the models; nothing is written.

    Raises:
        SampleError: no images, samples of different lengths, or comparisons that do not fit.
        ArtifactError: no such model.
    """
    start = time.monotonic()
    device = request.device or default_device()
    scorers = image_models.load_scorers(request.model, device, trust=request.trust)
    samples, others = ([ImageSet.open(path) for path in side] for side in (request.samples, request.compare or ()))
    return AnnotatePlan(request, samples, others, scorers, are_pairs(samples, others), start)


def run(plan: AnnotatePlan, messages: Messages = SILENT) -> Steps[int, None, dict]:
    """Write the class of each image into the samples, yielding numbers of images scored; return the shares of classes.

    Raises:
        SampleError: two samples share images, a model has one class, or a sample was changed.
        MagnetError: no space, no permission.
    """
    samples, others = plan.samples, plan.others
    models: dict[str, dict] = {}
    ours, theirs = (yield from _score(samples, plan.scorers)), (yield from _score(others, plan.scorers))
    for scorer, outputs, compared in zip(plan.scorers, ours, theirs, strict=True):
        tallies = [shares.tally(scorer, each.values) for each in outputs]
        models[scorer.name] = asdict(class_shares.summary(tallies))
        shares.warn_of_empty_classes(messages, scorer.name, tallies)
        if others:
            other_tallies = [shares.tally(scorer, each.values) for each in compared]
            change = class_shares.change(tallies, other_tallies, paired=plan.paired)
            paths = [str(path) for path in plan.request.compare or ()]
            about = {"from": paths, "from_n": len(others[0]), "paired": plan.paired}
            models[scorer.name]["change"] = about | asdict(change)
        for images, tally, each in zip(samples, tallies, outputs, strict=True):
            if images.is_sample:
                annotate(images, scorer, each.values, asdict(class_shares.summary([tally])))
    for warning in (
        *kept_outputs.warnings(samples),
        *kept_outputs.warnings(others),
        *image_folder.left_out(samples + others),
    ):
        messages.warning(warning)
    for images in samples:
        if images.is_sample:
            messages.note(f"written into {images.path / 'metadata.jsonl'}")
    return {
        "sample": [str(path) for path in plan.request.samples],
        "n": len(samples[0]),
        "interval": interval_name(len(samples)),
        "models": models,
        "seconds": round(time.monotonic() - plan.start, 3),
    }


def _score(samples: list[ImageSet], scorers: list[ImageScorer]) -> Steps[int, None, list[list[ModelOutputs]]]:
    """Return probabilities by scorer and sample; all scorers see a piece before the next, for heads of one network."""
    outputs: list[list[ModelOutputs]] = [[] for _ in scorers]
    for images in samples:
        pieces = []
        for together in zip(*(shares.score(images, scorer) for scorer in scorers), strict=True):
            pieces.append(together)
            yield sum(len(piece.values) for piece in together)
        for scored, of_one in zip(outputs, zip(*pieces, strict=True), strict=True):
            scored.append(kept_outputs.concatenated(iter(of_one)))
    for scored in outputs[:1]:
        kept_outputs.check_repeats(samples, scored)
    return outputs


def are_pairs(samples: list[ImageSet], others: list[ImageSet]) -> bool:
    """Return True if each sample and its comparison come from one volume, False if all are independent."""
    kept_outputs.check_lengths(samples)
    if not others:
        return False
    kept_outputs.check_lengths(others)
    if len(samples) == len(others) == 1:
        return False
    if 1 in {len(samples), len(others)}:
        raise SampleError(
            f"{len(samples)} and {len(others)} samples are compared: one says nothing of the spread over samples",
            "pass as many in `compare` as there are samples, or one sample of each",
        )
    ours, theirs = ([images.fingerprint for images in side] for side in (samples, others))
    if not set(ours) & set(theirs) - {""}:
        return False
    if ours != theirs or "" in ours:
        raise SampleError(
            "some samples come from the volumes of those they are compared with, others do not",
            "pass `compare` in the order of the samples, each from the same volume",
        )
    return len(set(ours)) == len(ours)


def annotate(images: ImageSet, scorer: ImageScorer, probabilities: np.ndarray, summary: dict) -> None:
    """Write class and probability of each image into a sample: metadata.jsonl, checksums and sample.json as one.

    The probabilities are [n, C]; `summary` goes into sample.json, under "attributes" and the model's name.
    """
    if scorer.name in _RESERVED:
        raise ArtifactError(
            f"a model has the name {scorer.name!r}, which is a field of metadata.jsonl",
            "give it another name in the list of artifacts",
        )
    folder = ResultFolder(images.path, SAMPLE)
    with folder.changing() as fields:
        if problems := folder.check():
            raise SampleError(
                f"{images.path} is not as it was written: {problems[0]}",
                "draw it again with `magnet sample … --force`, or restore it from a copy",
            )
        if ImageSet.open(images.path).contents != images.contents:
            raise SampleError(
                f"{images.path} was replaced while its images were scored", "repeat the command: it scores the new ones"
            )
        atomic.replace_together(images.path, _annotated(images, scorer, probabilities, summary, fields))


def _annotated(
    images: ImageSet, scorer: ImageScorer, probabilities: np.ndarray, summary: dict, fields: dict
) -> dict[str, bytes]:
    """Return the files of a sample that change, by name; `fields` are those of sample.json until now."""
    index = {f"images/{path.name}": i for i, path in enumerate(images.files)}
    classes, best = scorer.classes(probabilities.shape[1]), probabilities.argmax(axis=1)
    records = []
    for line in (images.path / "metadata.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        i = index[record["file_name"]]
        probability = round(float(probabilities[i, best[i]]), 6)
        records.append(record | {scorer.name: classes[best[i]], f"{scorer.name}_probability": probability})
    metadata = documents.encode_lines(records)
    sums = []
    for line in (images.path / "checksums.txt").read_text(encoding="utf-8").splitlines():
        sha256, _, name = line.partition("  ")
        sums.append(f"{documents.sha256_bytes(metadata) if name == 'metadata.jsonl' else sha256}  {name}\n")
    checksums = "".join(sums).encode()
    fields = fields | {"checksums_sha256": documents.sha256_bytes(checksums)}
    fields["attributes"] = fields.get("attributes", {}) | {scorer.name: {"sha256": scorer.sha256} | summary}
    return {"metadata.jsonl": metadata, "checksums.txt": checksums, "sample.json": documents.encode(fields)}
