"""Class probabilities of images, and the number of images in each class."""

from collections.abc import Iterator

import numpy as np

from magnet_cli.errors import SampleError
from magnet_cli.files.image_folder import ImageSet
from magnet_cli.files.progress import Messages
from magnet_cli.maths.metrics.class_shares import Tally
from magnet_cli.models import kept_outputs
from magnet_cli.models.image_models import ImageScorer
from magnet_cli.models.kept_outputs import PROBABILITIES, ModelOutputs


def score(images: ImageSet, scorer: ImageScorer) -> Iterator[ModelOutputs]:
    """Yield the class probabilities of images in pieces, as `kept_outputs.score_images`."""
    return kept_outputs.score_images(images, scorer, PROBABILITIES)


def tally(scorer: ImageScorer, probabilities: np.ndarray) -> Tally:
    """Return the number of images in each class, from probabilities [n, C]."""
    if probabilities.shape[1] < 2:
        raise SampleError(
            f"{scorer.name} has one class, and shares need two or more",
            "pass a model that gives a score for each of two or more classes",
        )
    return Tally.of(scorer.classes(probabilities.shape[1]), probabilities)


def warn_of_empty_classes(messages: Messages, name: str, tallies: list[Tally]) -> None:
    """Warn of classes that no image is in."""
    counts = np.sum([each.counts for each in tallies], axis=0)
    empty = [each for each, count in zip(tallies[0].classes, counts, strict=True) if count == 0]
    if empty:
        messages.warning(f"{name}: never seen among {counts.sum():,} images: {', '.join(empty)}")
