"""What an image model says of images on disk, kept by what they hold: the same images are never looked at twice.

Joins images and image models. Kept in pieces under MAGNET_HOME/features, so that a stopped run goes on where it was,
and a longer sample takes over the full pieces of a shorter one.
"""

import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from magnet_cli.catalog import cache
from magnet_cli.errors import SampleError
from magnet_cli.files import atomic, documents, image_folder
from magnet_cli.files.image_folder import ImageSet
from magnet_cli.models.image_models import ImageScorer

_PIECE = 500  # images
FEATURES, PROBABILITIES = "features", "probabilities"


@dataclass(frozen=True)
class ModelOutputs:
    """What was said of some images.

    Attributes:
        values: [b, F] float32 features, or [b, classes] probabilities.
        digests: [b, 16] uint8, of the pixels: equal where two images are.
    """

    values: np.ndarray
    digests: np.ndarray


def score_images(shown: ImageSet, judge: ImageScorer, what: str = FEATURES) -> Iterator[ModelOutputs]:
    """What a model says of each image, piece by piece, in order; each piece is kept before it is given.

    Args:
        shown: the images.
        judge: the model.
        what: FEATURES or PROBABILITIES.

    Yields:
        The next images' values and digests.

    Raises:
        SampleError: a file is no image, or of another shape than the first.
        GeneratorError: the model gives no such thing, or does not take these images.
        MagnetError: no space, no permission.
    """
    for start in range(0, len(shown), _PIECE):
        stop = min(start + _PIECE, len(shown))
        names = {"model": judge.key, "what": what, "files": shown.hashes(start, stop)}
        key = documents.sha256_bytes(documents.canonical(names))
        path = cache.home() / "features" / judge.key[:12] / f"{key}.npz"
        found = _kept(path)
        if found is None:
            found = _seen(shown, judge, what, start, stop)
            buffer = io.BytesIO()
            np.savez(buffer, values=found.values, digests=found.digests)
            atomic.make_folder(path.parent)
            atomic.publish(path, buffer.getvalue(), durable=False)
        yield found


def concatenated(pieces: Iterator[ModelOutputs], advance: Callable[[int], None] = lambda _: None) -> ModelOutputs:
    """All pieces as one; `advance` is called with the number of images in each."""
    values, digests = [], []
    for piece in pieces:
        values.append(piece.values)
        digests.append(piece.digests)
        advance(len(piece.values))
    return ModelOutputs(np.concatenate(values), np.concatenate(digests))


def check_lengths(samples: list[ImageSet]) -> None:
    """Whether samples are as long as each other.

    Raises:
        SampleError: they are not, and so no repeats.
    """
    if len({len(shown) for shown in samples}) > 1:
        lengths = ", ".join(f"{shown.path} {len(shown):,}" for shown in samples)
        message = f"samples of different lengths are no repeats of each other: {lengths}"
        raise SampleError(message, "draw them with the same --n")


def check_repeats(samples: list[ImageSet], seen: list[ModelOutputs]) -> None:
    """Whether samples have no image in common.

    Raises:
        SampleError: two have, and so are no independent repeats.
    """
    for i, one in enumerate(seen):
        for j in range(i):
            if common := num_shared(one, seen[j]):
                message = f"{common:,} images of {samples[i].path} are in {samples[j].path} too: they are no repeats"
                raise SampleError(
                    message, "draw each sample from a volume of its own: magnet compute --seed S --volume V"
                )


def num_shared(one: ModelOutputs, other: ModelOutputs) -> int:
    """How many different images two sets have in common."""
    return len({row.tobytes() for row in one.digests} & {row.tobytes() for row in other.digests})


def warnings(samples: list[ImageSet]) -> list[str]:
    """Reasons to doubt that samples are independent repeats, in words."""
    known = [shown.fingerprint for shown in samples if shown.fingerprint]
    if len(set(known)) < len(known):
        return ["samples of one volume are no independent pools: their interval leaves the pool's share out"]
    return []


def _seen(shown: ImageSet, judge: ImageScorer, what: str, start: int, stop: int) -> ModelOutputs:
    values, digests = [], []
    for pixels in shown.batches(start, stop):
        values.append(judge.features(pixels) if what == FEATURES else judge.probabilities(pixels))
        digests += [image_folder.digest(one) for one in pixels]
    return ModelOutputs(np.concatenate(values), np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16))


def _kept(path: Path) -> ModelOutputs | None:
    """A piece that was kept; None where there is none, or it is damaged: it is then made again."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return ModelOutputs(arrays["values"], arrays["digests"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
