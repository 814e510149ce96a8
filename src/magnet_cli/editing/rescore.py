"""Re-scoring: how much each attribute's score changes when latents are moved along each direction.

The matrix by which that literature judges directions (InterFaceGAN, Shen et al. 2020), with intervals. Owns what a
score is, and the moves. The caller owns progress: `rescore` yields after each batch of latents.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from magnet_cli.editing.direction import Way, in_space
from magnet_cli.editing.scored import sides
from magnet_cli.errors import SpecError
from magnet_cli.files import pictures
from magnet_cli.maths.metrics import intervals
from magnet_cli.models import Generator
from magnet_cli.models.image_models import ImageScorer
from magnet_cli.sampling import render

_STREAM = 0x6D6F7665  # keeps the latents that are moved apart from those that directions are learned from
_MOST = 32  # latents between two words on progress: each is moved along every direction


def fresh_latents(
    generator: Generator, n: int, seed: int, label: tuple[int, ...] = ()
) -> tuple[np.ndarray, np.ndarray | None]:
    """Draw latents [n, D] float32 and their labels [n] int64 or None, as `Prior.draw`, of a stream of their own."""
    return generator.prior.draw(np.random.default_rng([_STREAM, seed]), n, label)


@dataclass(frozen=True)
class Meter:
    """A way's score: the probability that an image is of its class.

    Attributes:
        judge: the model.
        columns: which of its classes count for it.
    """

    judge: ImageScorer
    columns: tuple[int, ...]

    @classmethod
    def of(cls, way: Way, judge: ImageScorer, cut: str | None, classes: tuple[str, ...], *, by_name: bool) -> "Meter":
        """Of a way, by the model that scored its attribute.

        Args:
            way: the way.
            judge: the model.
            cut: where its classes were cut into two; None where they were not.
            classes: of the model.
            by_name: whether the attribute's classes have to be called like the model's; else they are as many.

        Raises:
            SpecError: they are not.
        """
        first, named = sides(way.attribute.name, classes, cut) if cut else (0, classes)
        fits = named == way.attribute.classes if by_name else len(named) == len(way.attribute.classes)
        if not fits:
            message = f"{judge.name} tells {', '.join(named)} apart, and {way.attribute.name} has the classes "
            raise SpecError(message + ", ".join(way.attribute.classes), "pass --model with the model that scored it")
        groups = (range(first), range(first, len(classes))) if cut else tuple([i] for i in range(len(classes)))
        return cls(judge, tuple(groups[way.positive]))


def rescore(
    generator: Generator,
    meters: list[Meter],
    vectors: list[np.ndarray],
    latents: np.ndarray,
    labels: np.ndarray | None,
    ends: tuple[float, float],
    space: str,
    truncation: float,
    batch: int | None = None,
) -> Iterator[np.ndarray]:
    """How much each score changes between the two ends of a move along each direction.

    Args:
        generator: on its device.
        meters: of the scores, S of them.
        vectors: K directions [1, D].
        latents: [M, D] float32.
        labels: [M] int64 where the generator takes them.
        ends: how far each latent is moved at either end, in units of the space.
        space: z or w, that of the directions.
        truncation: ψ.
        batch: images at a time.

    Yields:
        [b, K, S] float64, the score at the second end less that at the first, of the next latents.
    """
    size = batch or min(render.batch_size(generator), _MOST)
    for start in range(0, len(latents), size):
        here = slice(start, start + size)
        given = None if labels is None else labels[here]
        base = in_space(generator, latents[here], given, space, size)
        found = np.empty((len(base), len(vectors), len(meters)))
        for k, vector in enumerate(vectors):
            scores = []
            for end in ends:
                moved = base + np.float32(end) * vector
                made = render.arrays(generator, moved, truncation, size, given if space == "z" else None, space)
                scores.append(measured(meters, pictures.pixels(made)))
            found[:, k] = scores[1] - scores[0]
        yield found


def measured(meters: list[Meter], pixels: np.ndarray) -> np.ndarray:
    """The scores [b, S] float64 of images [b, H, W, C] uint8; each model looks once."""
    seen = {meter.judge.key: meter.judge for meter in meters}
    said = {key: judge.probabilities(pixels).astype(np.float64) for key, judge in seen.items()}
    return np.stack([said[meter.judge.key][:, list(meter.columns)].sum(axis=1) for meter in meters], axis=1)


def matrix(changes: np.ndarray) -> list[list[intervals.Estimate]]:
    """The mean change [K][S] of changes [M, K, S], with Student's interval over the latents."""
    return [
        [intervals.over_repeats(changes[:, k, s]) for s in range(changes.shape[2])] for k in range(changes.shape[1])
    ]


def meters(
    generator: Generator,
    ways: list[Way],
    judges: dict[str, ImageScorer],
    cuts: dict[str, str],
    truncation: float,
    *,
    by_name: bool,
) -> list[Meter]:
    """The scores of ways, by the model of each attribute.

    Args:
        generator: on its device; a model that does not name its classes is shown one image.
        ways: the ways.
        judges: by attribute.
        cuts: of attributes that were cut, where.
        truncation: ψ.
        by_name: as in `Meter.of`.

    Raises:
        SpecError: a model's classes are not those of its attribute.
        GeneratorError: a model does not take the images.
    """
    latents, labels = fresh_latents(generator, 1, 0)
    one = render.images(generator, latents, truncation, render.batch_size(generator), labels)
    known = {name: judge.classes(judge.probabilities(one).shape[1]) for name, judge in judges.items()}
    found = []
    for way in ways:
        name = way.attribute.name
        cut = cuts.get(name) or _cut_before(way, known[name])
        found.append(Meter.of(way, judges[name], cut, known[name], by_name=by_name))
    return found


def _cut_before(way: Way, classes: tuple[str, ...]) -> str | None:
    """Where a model's classes were cut when the sample was written, as the names of the attribute's two sides say."""
    side = way.attribute.classes[-1].removesuffix("-up")
    return side if side in classes and way.attribute.classes == sides("", classes, side)[1] else None


def report(changes: np.ndarray, names: list[str], ways: list[Way]) -> dict[str, dict[str, dict]]:
    """Mean changes with their intervals, by direction and score, of changes [M, K, S]."""
    table = matrix(changes)
    return {
        name: {way.name: dataclasses.asdict(each) for way, each in zip(ways, line, strict=True)}
        for name, line in zip(names, table, strict=True)
    }
