"""Outputs of image models for images on disk, kept under MAGNET_HOME/features by the contents of the files.

No model runs twice on the same images. Outputs are kept in pieces, so that a stopped run goes on where it was, and a
longer sample takes over the full pieces of a shorter one.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from magnet_cli.catalog import cache
from magnet_cli.errors import SampleError
from magnet_cli.files import atomic, documents, image_folder, npz
from magnet_cli.files.image_folder import ImageSet
from magnet_cli.models.image_models import ImageScorer

_PIECE = 500  # images
FEATURES, PROBABILITIES = "features", "probabilities"


@dataclass(frozen=True)
class ModelOutputs:
    """Features or probabilities [n, F] float32 of n images; equal images have equal digests, [n, 16] uint8."""

    values: np.ndarray
    digests: np.ndarray


def score_images(images: ImageSet, scorer: ImageScorer, output: str = FEATURES) -> Iterator[ModelOutputs]:
    """Yield FEATURES or PROBABILITIES of images, piece by piece, in order; a piece is kept before it is yielded.

    Raises:
        SampleError: a file is no image, or of another shape than the first.
        GeneratorError: the model has no such output, or does not take these images.
        MagnetError: no space, no permission.
    """
    for start in range(0, len(images), _PIECE):
        stop = min(start + _PIECE, len(images))
        names = {"model": scorer.key, "what": output, "files": images.hashes(start, stop)}
        key = documents.sha256_bytes(documents.canonical(names))
        path = cache.home() / "features" / scorer.key[:12] / f"{key}.npz"
        piece = _read(path)
        if piece is None:
            piece = _computed(images, scorer, output, start, stop)
            buffer = io.BytesIO()
            np.savez(buffer, values=piece.values, digests=piece.digests)
            atomic.make_folder(path.parent)
            atomic.publish(path, buffer.getvalue(), durable=False)
        yield piece


def concatenated(pieces: Iterator[ModelOutputs], advance: Callable[[int], None] = lambda _: None) -> ModelOutputs:
    """Return all pieces as one; `advance` is called with the number of images in each."""
    values, digests = [], []
    for piece in pieces:
        values.append(piece.values)
        digests.append(piece.digests)
        advance(len(piece.values))
    return ModelOutputs(np.concatenate(values), np.concatenate(digests))


def check_lengths(samples: list[ImageSet]) -> None:
    """Raise SampleError unless samples have the same length, as repeats of each other do."""
    if len({len(sample) for sample in samples}) > 1:
        lengths = ", ".join(f"{sample.path} {len(sample):,}" for sample in samples)
        message = f"samples of different lengths are no repeats of each other: {lengths}"
        raise SampleError(message, "draw them with the same `n`")


def check_repeats(samples: list[ImageSet], outputs: list[ModelOutputs]) -> None:
    """Raise SampleError if two samples have an image in common, which independent repeats do not."""
    for i, one in enumerate(outputs):
        for j in range(i):
            if common := num_shared(one, outputs[j]):
                message = f"{common:,} images of {samples[i].path} are in {samples[j].path} too: they are no repeats"
                hint = "draw each sample from a volume of its own: magnet compute --seed S --volume V"
                raise SampleError(message, hint)


def num_shared(one: ModelOutputs, other: ModelOutputs) -> int:
    """Return the number of different images that two sets have in common."""
    return len({row.tobytes() for row in one.digests} & {row.tobytes() for row in other.digests})


def warnings(samples: list[ImageSet]) -> list[str]:
    """Return reasons to doubt that samples are independent repeats."""
    fingerprints = [sample.fingerprint for sample in samples if sample.fingerprint]
    if len(set(fingerprints)) < len(fingerprints):
        return ["samples of one volume are no independent pools: their interval leaves the pool's share out"]
    return []


def _computed(images: ImageSet, scorer: ImageScorer, output: str, start: int, stop: int) -> ModelOutputs:
    values, digests = [], []
    for pixels in images.batches(start, stop):
        values.append(scorer.features(pixels) if output == FEATURES else scorer.probabilities(pixels))
        digests += [image_folder.digest(image) for image in pixels]
    return ModelOutputs(np.concatenate(values), np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16))


def _read(path: Path) -> ModelOutputs | None:
    """Return a kept piece; None if there is none or it is damaged, and has to be computed."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return ModelOutputs(arrays["values"], arrays["digests"])
    except (OSError, KeyError, *npz.DAMAGED):
        return None
