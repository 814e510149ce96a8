"""Re-scoring: how much each attribute's score changes when latents are moved along each direction.

The matrix by which the literature judges directions (InterFaceGAN, Shen et al. 2020), with intervals.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from magnet_cli.editing.direction import AttributeTarget, to_space
from magnet_cli.editing.scored import cut_sides
from magnet_cli.errors import SpecError
from magnet_cli.files import pictures
from magnet_cli.maths.metrics import intervals
from magnet_cli.models import Generator, batches
from magnet_cli.models.image_models import ImageScorer

_STREAM = 0x6D6F7665  # random stream of the moved latents
_MAX_BATCH = 32  # latents at a time, each moved along every direction


def draw_latents(
    generator: Generator, n: int, seed: int, label: tuple[int, ...] = ()
) -> tuple[np.ndarray, np.ndarray | None]:
    """Draw latents [n, D] float32 and their labels [n] int64 or None, as `Prior.draw`, in a stream of their own."""
    return generator.prior.draw(n, np.random.default_rng([_STREAM, seed]), label)


@dataclass(frozen=True)
class AttributeScore:
    """The score of a target: the sum of the probabilities of some classes (columns) of an image model."""

    scorer: ImageScorer
    columns: tuple[int, ...]

    @classmethod
    def of(
        cls, target: AttributeTarget, scorer: ImageScorer, cut: str | None, classes: tuple[str, ...], *, by_name: bool
    ) -> "AttributeScore":
        """Return the score of a target, by the model that scored its attribute, perhaps cut into two classes at `cut`.

        The attribute's classes have to have the names of the model's if `by_name`, else only their number.
        """
        attribute = target.attribute
        first, names = cut_sides(attribute.name, classes, cut) if cut else (0, classes)
        if (names != attribute.classes) if by_name else (len(names) != len(attribute.classes)):
            problem = f"{scorer.name} has the classes {', '.join(names)}, and {attribute.name} has "
            raise SpecError(
                problem + ", ".join(attribute.classes), "pass `model` with the model that scored the attribute"
            )
        if not cut:
            return cls(scorer, (target.index,))
        return cls(scorer, tuple(range(first, len(classes)) if target.index else range(first)))


def attribute_scores(
    generator: Generator,
    targets: list[AttributeTarget],
    scorers: dict[str, ImageScorer],
    cuts: dict[str, str],
    truncation: float,
    *,
    by_name: bool,
) -> list[AttributeScore]:
    """Return scores of targets, models and cuts by attribute; one image is scored, as models may name no classes."""
    latents, labels = draw_latents(generator, 1, 0)
    image = batches.images(generator, latents, truncation, batches.batch_size(generator), labels)
    classes = {name: scorer.classes(scorer.probabilities(image).shape[1]) for name, scorer in scorers.items()}
    scores = []
    for target in targets:
        name = target.attribute.name
        cut = cuts.get(name) or _cut_in_names(target, classes[name])
        scores.append(AttributeScore.of(target, scorers[name], cut, classes[name], by_name=by_name))
    return scores


def rescore(
    generator: Generator,
    scores: list[AttributeScore],
    vectors: list[np.ndarray],
    latents: np.ndarray,
    labels: np.ndarray | None,
    ends: tuple[float, float],
    space: str,
    truncation: float,
    batch: int | None = None,
) -> Iterator[np.ndarray]:
    """Yield the change of each of S scores between the two ends of a move along each of K directions [1, D].

    Each part is [b, K, S] float64, score at the second end less score at the first, for the next b latents.
    """
    size = batch or min(batches.batch_size(generator), _MAX_BATCH)
    for start in range(0, len(latents), size):
        part = slice(start, start + size)
        classes = None if labels is None else labels[part]
        base = to_space(generator, latents[part], classes, space, size)
        changes = np.empty((len(base), len(vectors), len(scores)))
        for k, vector in enumerate(vectors):
            values = []
            for end in ends:
                moved = base + np.float32(end) * vector
                arrays = batches.arrays(generator, moved, truncation, size, classes if space == "z" else None, space)
                values.append(measure(scores, pictures.pixels(arrays)))
            changes[:, k] = values[1] - values[0]
        yield changes


def measure(scores: list[AttributeScore], pixels: np.ndarray) -> np.ndarray:
    """Return the scores [b, S] float64 of images [b, H, W, C] uint8; a model runs once, however many scores it has."""
    scorers = {score.scorer.key: score.scorer for score in scores}
    probabilities = {key: scorer.probabilities(pixels).astype(np.float64) for key, scorer in scorers.items()}
    return np.stack([probabilities[each.scorer.key][:, list(each.columns)].sum(axis=1) for each in scores], axis=1)


def summarize(changes: np.ndarray, names: list[str], targets: list[AttributeTarget]) -> dict[str, dict[str, dict]]:
    """Return the mean of changes [M, K, S] with Student's 95 % interval over M latents, by direction and score."""
    return {
        name: {
            target.name: dataclasses.asdict(intervals.over_repeats(changes[:, k, s]))
            for s, target in enumerate(targets)
        }
        for k, name in enumerate(names)
    }


def _cut_in_names(target: AttributeTarget, classes: tuple[str, ...]) -> str | None:
    """Return the class at which classes were cut when a sample was written, from the names of the two sides."""
    side = target.attribute.classes[-1].removesuffix("-up")
    return side if side in classes and target.attribute.classes == cut_sides("", classes, side)[1] else None
