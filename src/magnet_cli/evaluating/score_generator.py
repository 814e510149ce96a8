"""Score the images of a generator: draws of the prior are rendered and scored, and only latents and scores are kept.

Shards of latents and scores are written one by one, so that a stopped run goes on where it stopped; at the end they are
joined to latents.npy, labels.npy and scores.npz.
"""

import io
import shutil
import time
import zipfile
from collections.abc import Generator as Steps
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from magnet_cli.errors import SampleError
from magnet_cli.evaluating import shares
from magnet_cli.evaluating.kinds import ATTRIBUTES
from magnet_cli.files import atomic, documents, npz, scores
from magnet_cli.files.progress import SILENT, Messages
from magnet_cli.files.results import ResultFolder
from magnet_cli.maths.metrics import class_shares
from magnet_cli.maths.metrics.class_shares import Tally
from magnet_cli.models import Generator, batches, default_device, image_models
from magnet_cli.models.image_models import ImageScorer
from magnet_cli.sampling import image_writer, select

if TYPE_CHECKING:
    from magnet_cli.sampling.select import Source

_SHARDS = ".shards"
_SHARD_WORK = 1 << 24  # numbers in a shard's images: from seconds to minutes of work


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """Arguments of `magnet attributes GENERATOR`; the fields are its flags, described in docs/reference/cli.md."""

    model: tuple[str, ...]
    n: int | None = None
    seed: int = 0
    truncation: float = 1.0
    label: tuple[int | str, ...] | None = None
    out: Path | None = None
    device: str | None = None
    batch_size: int | None = None
    trust: bool = False


@dataclass(frozen=True)
class AttributesSpec:
    """Exactly what decides the scores in a folder; latents are a function of seed and shard, so that its rows count."""

    generator: str
    sha256: str
    n: int
    seed: int
    truncation: float
    label: tuple[int, ...]
    models: tuple[str, ...]
    keys: tuple[str, ...]
    shard_rows: int


@dataclass(frozen=True)
class ScorePlan:
    """Scores before they are computed; `done` is the report, if the folder already holds these scores."""

    out: Path
    spec: AttributesSpec
    generator: Generator
    scorers: list[ImageScorer]
    batch: int | None
    done: dict | None
    start: float


def plan(source: "Source", request: ScoreRequest, messages: Messages = SILENT) -> ScorePlan:
    """Load generator and models; nothing is written.

    Raises:
        SampleError: the generator gives no images, or the folder holds other scores or files.
        ArtifactError, GeneratorError: no such model, or it cannot be loaded.
    """
    start = time.monotonic()
    device = request.device or default_device()
    scorers = image_models.load_scorers(request.model, device, trust=request.trust)
    generator = select.load(source, device)
    labels = select.VolumeRequest(label=request.label or ())
    labels.check_names(generator.name, generator.num_classes)
    if not generator.gives_images:
        raise SampleError(
            f"{generator.name} gives arrays of shape {'×'.join(map(str, generator.image_shape))}, which are no images "
            "that a model could score",
            "pass a generator of images with one or three channels",
        )
    spec = AttributesSpec(
        generator=generator.name,
        sha256=generator.sha256,
        n=request.n or 10_000,
        seed=request.seed,
        truncation=request.truncation,
        label=labels.labels,
        models=tuple(scorer.name for scorer in scorers),
        keys=tuple(scorer.key for scorer in scorers),
        shard_rows=int(np.clip(_SHARD_WORK // int(np.prod(generator.image_shape)), 64, 4096)),
    )
    out = request.out or Path("attributes") / f"{spec.generator}-n{spec.n}-seed{spec.seed}"
    done = ResultFolder(out, ATTRIBUTES).finished(spec)
    if done:
        messages.note(f"{out} already holds these scores")
    return ScorePlan(out, spec, generator, scorers, request.batch_size, done, start)


def run(plan: ScorePlan, command: list[str], messages: Messages = SILENT) -> Steps[int, None, dict]:
    """Score images, or the rest of them, yielding numbers of latents whose scores are safe; return the report.

    Raises:
        GeneratorError: a model does not take the images.
        MagnetError: no space, no permission.
    """
    with ResultFolder(plan.out, ATTRIBUTES).writing(plan.spec) as done:
        return done or (yield from _score_all(plan, command, messages))


def _score_all(plan: ScorePlan, command: list[str], messages: Messages) -> Steps[int, None, dict]:
    out, spec = plan.out, plan.spec
    yield from write(out, spec, plan.generator, plan.scorers, plan.batch)
    files, tallies = join(out, spec, plan.scorers)
    summaries = {}
    for scorer, tally in zip(plan.scorers, tallies, strict=True):
        summaries[scorer.name] = asdict(class_shares.summary([tally]))
        _describe(messages, scorer.name, tally)
    report = {"attributes": str(out), "n": spec.n, "generator": spec.generator, "models": summaries}
    report["seconds"] = round(time.monotonic() - plan.start, 3)
    hashes = {path.name: documents.sha256_file(path) for path in files}
    fields = {"command": command, "spec": asdict(spec), "files": hashes, "versions": image_writer.versions()}
    ResultFolder(out, ATTRIBUTES).finish(fields | {"report": report})
    shutil.rmtree(out / _SHARDS, ignore_errors=True)
    return report


def write(
    out: Path, spec: AttributesSpec, generator: Generator, scorers: list[ImageScorer], batch: int | None = None
) -> Iterator[int]:
    """Write the shards that are missing or damaged; yield the number of rows of each shard once it is safe."""
    ResultFolder(out, ATTRIBUTES).begin(spec)
    atomic.make_folder(out / _SHARDS)
    atomic.sweep(out / _SHARDS)
    size = batch or batches.batch_size(generator)
    for shard, rows in _shards(spec):
        path = _shard_path(out, shard)
        if not _is_intact(path):
            first = shard * spec.shard_rows
            latents, labels = generator.prior.draw_shard(spec.seed, shard, rows, spec.label, first)
            arrays: dict[str, Any] = {"latents": latents} | ({} if labels is None else {"labels": labels})
            arrays |= _score(generator, scorers, latents, labels, spec.truncation, size)
            buffer = io.BytesIO()
            np.savez(buffer, **arrays)
            atomic.publish(path, buffer.getvalue())
        yield rows


def join(out: Path, spec: AttributesSpec, scorers: list[ImageScorer]) -> tuple[list[Path], list[Tally]]:
    """Join the shards with one in memory at a time; return the files, and the images in each class by each model."""
    first = _read_shard(out, 0)
    files = [out / f"{name}.npy" for name in ("latents", "labels") if name in first]
    for path in files:
        with atomic.appearing(path) as file:
            npz.write_blocks(file, (spec.n, *first[path.stem].shape[1:]), _rows(out, spec, path.stem))
    path, tallies = out / "scores.npz", []
    with atomic.appearing(path) as file, npz.new_archive(file) as archive:
        for i, scorer in enumerate(scorers):
            num_classes = first[f"model{i}"].shape[1]
            classes, counts = scorer.classes(num_classes), np.zeros(num_classes, np.int64)
            blocks = _counted(_rows(out, spec, f"model{i}"), counts)
            scores.add(archive, scorer.name, classes, (spec.n, num_classes), blocks)
            tallies.append(Tally(classes, counts))
    return [*files, path], tallies


def _describe(messages: Messages, name: str, tally: Tally) -> None:
    for each, share in tally.shares().items():
        messages.note(f"{name}: {each} {share.value:.4f} ({share.low:.4f} to {share.high:.4f})")
    gap, variation = tally.gap(), tally.total_variation()
    equal = class_shares.at_equal_shares(tally.n, len(tally.classes))
    for what, one, level in (("gap", gap, equal["gap"]), ("total variation", variation, equal["total_variation"])):
        text = f"{one.value:.4f} ({one.low:.4f} to {one.high:.4f}); equal shares would give {level:.4f}"
        messages.note(f"{name}: {what} {text} at this n")
    shares.warn_of_empty_classes(messages, name, [tally])


def _shards(spec: AttributesSpec) -> Iterator[tuple[int, int]]:
    """Yield number and rows of each shard; the last one may be short."""
    for shard, start in enumerate(range(0, spec.n, spec.shard_rows)):
        yield shard, min(spec.shard_rows, spec.n - start)


def _shard_path(out: Path, shard: int) -> Path:
    return out / _SHARDS / f"{shard:06d}.npz"


def _is_intact(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, *npz.DAMAGED):
        return False


def _read_shard(out: Path, shard: int) -> dict[str, np.ndarray]:
    path = _shard_path(out, shard)
    with atomic.explained("read", path), np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _rows(out: Path, spec: AttributesSpec, name: str) -> Iterator[np.ndarray]:
    for shard, _ in _shards(spec):
        yield _read_shard(out, shard)[name]


def _counted(blocks: Iterator[np.ndarray], counts: np.ndarray) -> Iterator[np.ndarray]:
    """Pass on probabilities [b, C], and add the most probable class of each row to counts [C]."""
    for block in blocks:
        counts += np.bincount(block.argmax(axis=1), minlength=len(counts))
        yield block


def _score(
    generator: Generator,
    scorers: list[ImageScorer],
    latents: np.ndarray,
    labels: np.ndarray | None,
    truncation: float,
    size: int,
) -> dict[str, np.ndarray]:
    """Return probabilities [rows, C] float32 of each model, "model0" and on, for the pixels a sample would hold."""
    blocks: list[list[np.ndarray]] = [[] for _ in scorers]
    for start in range(0, len(latents), size):
        part = slice(start, start + size)
        pixels = batches.images(generator, latents[part], truncation, size, None if labels is None else labels[part])
        for scored, scorer in zip(blocks, scorers, strict=True):
            scored.append(scorer.probabilities(pixels))
    return {f"model{i}": np.concatenate(scored) for i, scored in enumerate(blocks)}
