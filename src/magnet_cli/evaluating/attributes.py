"""What image models say of a generator's images, a million of them and none kept; and of a sample's, written into it.

Joins generators, image models and features. The caller owns progress and stopping: `write` yields once a shard of
latents and scores is safe on disk, and the same call later goes on where it stopped.
"""

import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from magnet_cli.errors import ArtifactError, SampleError
from magnet_cli.evaluating.kinds import ATTRIBUTES
from magnet_cli.files import atomic, documents, npz, scores
from magnet_cli.files.image_folder import ImageSet
from magnet_cli.files.results import ResultFolder
from magnet_cli.maths.metrics.class_shares import Tally
from magnet_cli.models import Generator, kept_outputs
from magnet_cli.models.image_models import ImageScorer
from magnet_cli.models.kept_outputs import PROBABILITIES
from magnet_cli.sampling import render, sample_folder

_SHARDS = ".shards"
_SHARD_WORK = 1 << 24  # numbers in a shard's images: from seconds to minutes of work
_OWN = {"file_name", "row", "log_volume", "label", "source"}  # fields of metadata.jsonl that no model may be called


@dataclass(frozen=True)
class AttributesSpec:
    """Exactly what decides the scores in a folder.

    Attributes:
        generator: its name.
        sha256: of its checkpoint.
        n: latents.
        seed: of them.
        truncation: ψ they are rendered at.
        label: the labels they take in turn; empty for all, or where there are none.
        models: names of the image models.
        keys: of each, the sha256 of all that its numbers depend on.
        shard_rows: rows a shard; latents are a function of seed and shard.
    """

    generator: str
    sha256: str
    n: int
    seed: int
    truncation: float
    label: tuple[int, ...]
    models: tuple[str, ...]
    keys: tuple[str, ...]
    shard_rows: int


def default_out(spec: AttributesSpec) -> Path:
    """./attributes/<generator>-n<n>-seed<seed>."""
    return Path("attributes") / f"{spec.generator}-n{spec.n}-seed{spec.seed}"


def shard_rows(generator: Generator) -> int:
    """R: a fixed number per image size, 64 to 4,096."""
    return int(np.clip(_SHARD_WORK // int(np.prod(generator.image_shape)), 64, 4096))


def finished(out: Path, spec: AttributesSpec) -> dict | None:
    """As `ResultFolder.finished`."""
    return ResultFolder(out, ATTRIBUTES).finished(spec)


def write(
    out: Path, spec: AttributesSpec, generator: Generator, judges: list[ImageScorer], batch: int | None = None
) -> Iterator[int]:
    """Render latents of the prior, score the images, forget them: shards of latents and scores appear whole.

    Args:
        out: the folder; new, or begun by the same call before.
        spec: what it is.
        generator: on its device.
        judges: the models, in the order of the spec.
        batch: images at a time.

    Yields:
        Number of latents whose scores are safe since the last time.

    Raises:
        SampleError: what the generator gives are no images.
        GeneratorError: a model does not take them.
        MagnetError: no space, no permission; what was written stays, and the same call goes on from there.
    """
    if not generator.gives_images:
        shape = "×".join(map(str, generator.image_shape))
        message = f"{generator.name} gives {shape} numbers, which are no images that a model could judge"
        raise SampleError(message, "pass a generator of images of one or three channels")
    atomic.make_folder(out / _SHARDS)
    atomic.sweep(out / _SHARDS)
    ResultFolder(out, ATTRIBUTES).begin(spec)
    size = batch or render.batch_size(generator)
    for shard, rows in _shards(spec):
        path = _shard_path(out, shard)
        if not _is_whole(path):
            first = shard * spec.shard_rows
            latents, labels = generator.prior.draw_shard(spec.seed, shard, rows, spec.label, first)
            scores = _scores(generator, judges, latents, labels, spec.truncation, size)
            buffer = io.BytesIO()
            np.savez(buffer, latents=latents, **({} if labels is None else {"labels": labels}), **scores)
            atomic.publish(path, buffer.getvalue())
        yield rows


def join(out: Path, spec: AttributesSpec, judges: list[ImageScorer]) -> tuple[list[Path], list[Tally]]:
    """Join the shards to latents.npy (labels.npy) and scores.npz, one shard in memory at a time.

    scores.npz holds, for each model, its probabilities [n, C] float32 and the names of its classes. `conclude` is to
    follow: until then the shards stay, and the folder counts as begun.

    Returns:
        The files, and how many images fell into each class, for each model.

    Raises:
        MagnetError: no space, no permission.
    """
    first = _read_shard(out, 0)
    made = [out / f"{name}.npy" for name in ("latents", "labels") if name in first]
    for path in made:
        with atomic.appearing(path) as file:
            npz.write_blocks(file, (spec.n, *first[path.stem].shape[1:]), _rows(out, spec, path.stem))
    path, tallies = out / "scores.npz", []
    with atomic.appearing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for i, judge in enumerate(judges):
            num_classes = first[f"model{i}"].shape[1]
            classes, counts = judge.classes(num_classes), np.zeros(num_classes, np.int64)
            blocks = _counted(_rows(out, spec, f"model{i}"), counts)
            scores.add(archive, judge.name, classes, (spec.n, num_classes), blocks)
            tallies.append(Tally(classes, counts))
    return [*made, path], tallies


def conclude(out: Path, spec: AttributesSpec, made: list[Path], command: list[str], report: dict) -> None:
    """Write attributes.json: from now on the folder is whole, and the shards go.

    Raises:
        MagnetError: no space, no permission.
    """
    hashes = {path.name: documents.sha256_file(path) for path in made}
    fields = {"command": command, "spec": asdict(spec), "files": hashes, "versions": render.versions()}
    ResultFolder(out, ATTRIBUTES).finish(fields | {"report": report})
    shutil.rmtree(out / _SHARDS, ignore_errors=True)


def look(shown: ImageSet, judge: ImageScorer) -> Iterator[kept_outputs.ModelOutputs]:
    """The probabilities of a sample's images, piece by piece, as features.look."""
    return kept_outputs.score_images(shown, judge, PROBABILITIES)


def are_pairs(samples: list[ImageSet], others: list[ImageSet]) -> bool:
    """Whether each of others comes from the volume of the sample in its place; False where all are independent.

    Raises:
        SampleError: samples of different lengths, one against several, or pools on both sides that are no pairs.
    """
    kept_outputs.check_lengths(samples)
    if not others:
        return False
    kept_outputs.check_lengths(others)
    if len(samples) == len(others) == 1:
        return False
    if 1 in {len(samples), len(others)}:
        message = f"{len(samples)} and {len(others)} samples are compared: one alone says nothing of its spread"
        raise SampleError(message, "pass --compare as often as there are samples, or one sample of each")
    ours, theirs = ([shown.fingerprint for shown in side] for side in (samples, others))
    if not set(ours) & set(theirs) - {""}:
        return False
    if ours != theirs or "" in ours:
        message = "some samples come from volumes of those they are compared with, others do not"
        raise SampleError(message, "pass --compare in the order of the samples, each from the same volume")
    return len(set(ours)) == len(ours)


def tally(judge: ImageScorer, probabilities: np.ndarray) -> Tally:
    """How many images fell into each class, of probabilities [n, C].

    Raises:
        SampleError: there are not two classes.
    """
    if probabilities.shape[1] < 2:
        message = f"{judge.name} knows one class, and shares are of two or more"
        raise SampleError(message, "pass a model that gives a score for each of two or more classes")
    return Tally.of(judge.classes(probabilities.shape[1]), probabilities)


def annotate(shown: ImageSet, judge: ImageScorer, probabilities: np.ndarray, summary: dict) -> None:
    """Write each image's class and its probability into a sample: metadata.jsonl, and what vouches for it, as one.

    Args:
        shown: the images of a finished sample.
        judge: the model; its name becomes a field, NAME_probability another.
        probabilities: [n, C].
        summary: goes into sample.json, under attributes and the model's name.

    Raises:
        ArtifactError: the model is called like a field of every sample.
        SampleError: the sample was changed since it was written.
        MagnetError: no space, no permission; the sample is then as it was.
    """
    if judge.name in _OWN:
        message = f"a model is called {judge.name!r}, and so is a field of metadata.jsonl"
        raise ArtifactError(message, "give it another name in the list of artifacts")
    if problems := sample_folder.check(shown.path):
        message = f"{shown.path} is not as it was written: {problems[0]}"
        raise SampleError(message, "draw it again with --force, or restore it from a copy")
    fields = sample_folder.read(shown.path)
    named = {f"images/{path.name}": i for i, path in enumerate(shown.files)}
    classes, best = judge.classes(probabilities.shape[1]), probabilities.argmax(axis=1)
    lines = []
    for line in (shown.path / "metadata.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        i = named[record["file_name"]]
        said = {judge.name: classes[best[i]], f"{judge.name}_probability": round(float(probabilities[i, best[i]]), 6)}
        lines.append(json.dumps(record | said, ensure_ascii=False, allow_nan=False) + "\n")
    metadata = "".join(lines).encode()
    sums = []
    for line in (shown.path / "checksums.txt").read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        sums.append(f"{documents.sha256_bytes(metadata) if name == 'metadata.jsonl' else digest}  {name}\n")
    checksums = "".join(sums).encode()
    fields["checksums_sha256"] = documents.sha256_bytes(checksums)
    fields["attributes"] = fields.get("attributes", {}) | {judge.name: {"sha256": judge.sha256} | summary}
    replaced = {"metadata.jsonl": metadata, "checksums.txt": checksums, "sample.json": documents.encode(fields)}
    atomic.replace_together(shown.path, replaced)


def _shards(spec: AttributesSpec) -> Iterator[tuple[int, int]]:
    """Each shard's number and rows; the last may be short."""
    for shard, start in enumerate(range(0, spec.n, spec.shard_rows)):
        yield shard, min(spec.shard_rows, spec.n - start)


def _shard_path(out: Path, shard: int) -> Path:
    return out / _SHARDS / f"{shard:06d}.npz"


def _is_whole(path: Path) -> bool:
    """Whether a shard is there, every byte as its checksums say."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def _read_shard(out: Path, shard: int) -> dict[str, np.ndarray]:
    path = _shard_path(out, shard)
    with atomic.explained("read", path), np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _scores(
    generator: Generator,
    judges: list[ImageScorer],
    latents: np.ndarray,
    labels: np.ndarray | None,
    truncation: float,
    size: int,
) -> dict[str, np.ndarray]:
    """Probabilities [rows, C] float32 of each model, "model0" and on: of the pixels that a sample would hold."""
    found: list[list[np.ndarray]] = [[] for _ in judges]
    for start in range(0, len(latents), size):
        here = slice(start, start + size)
        given = None if labels is None else labels[here]
        pixels = render.images(generator, latents[here], truncation, size, given)
        for blocks, judge in zip(found, judges, strict=True):
            blocks.append(judge.probabilities(pixels))
    return {f"model{i}": np.concatenate(blocks) for i, blocks in enumerate(found)}


def _rows(out: Path, spec: AttributesSpec, name: str) -> Iterator[np.ndarray]:
    """Yield an array of all shards, shard by shard."""
    for shard, _ in _shards(spec):
        yield _read_shard(out, shard)[name]


def _counted(blocks: Iterator[np.ndarray], counts: np.ndarray) -> Iterator[np.ndarray]:
    """Pass on probabilities [b, C], and add the most probable class of each row to counts [C]."""
    for block in blocks:
        counts += np.bincount(block.argmax(axis=1), minlength=len(counts))
        yield block
