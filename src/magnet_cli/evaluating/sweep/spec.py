"""What a sweep is: its spec, the points it has, what they are drawn from, and who judges them.

Owns these nouns, and which rows compete for a point. Knows nothing of files of results.
"""

from dataclasses import dataclass

import numpy as np

from magnet_cli import index
from magnet_cli.index import Draw, Index
from magnet_cli.models import image_models
from magnet_cli.models.image_models import ImageScorer
from magnet_cli.volume import Volume


@dataclass(frozen=True)
class SweepSpec:
    """Exactly what decides the numbers of a sweep.

    Attributes:
        generator: its name.
        sha256: of the generator's checkpoint.
        fingerprints: of the volume drawn from at each truncation.
        pools: rows of each.
        n: images a point.
        rho: the polarities, ascending, 0 among them.
        truncation: each ψ the images are rendered at, descending.
        top_k: k.
        seed: of the draws.
        label: the labels drawn from; empty for those of the volumes.
        bn_truncation: ψ of batch-norm statistics; 0 where that is the truncation.
        reference: sha256 of the hashes of its images; empty for fresh draws from the prior.
        features: name of the image model whose features are compared.
        features_key: sha256 of all that these depend on.
        nearest_k: of precision, recall, density and coverage.
        models: names of the image models whose classes are counted.
        keys: of each, as features_key.
        pick: what chooses the point: the name of a metric, or MODEL.gap, MODEL.total_variation; empty for no choice.
    """

    generator: str
    sha256: str
    fingerprints: tuple[str, ...]
    pools: tuple[int, ...]
    n: int
    rho: tuple[float, ...]
    truncation: tuple[float, ...]
    top_k: int
    seed: int
    label: tuple[int, ...]
    bn_truncation: float
    reference: str
    features: str
    features_key: str
    nearest_k: int
    models: tuple[str, ...]
    keys: tuple[str, ...]
    pick: str


@dataclass(frozen=True)
class Pool:
    """What is drawn from at one truncation.

    Attributes:
        truncation: ψ the images are rendered at.
        volume: the volume.
        index: its rows, those of other labels left out.
    """

    truncation: float
    volume: Volume
    index: Index


@dataclass(frozen=True)
class Point:
    """One place of a sweep.

    Attributes:
        rho: the polarity.
        truncation: ψ.
        half: of the rows, 1 or 2; 0 for all.
    """

    rho: float
    truncation: float
    half: int

    @property
    def name(self) -> str:
        """Of its sample's folder."""
        rho, truncation = (np.format_float_positional(value, trim="-") for value in (self.rho, self.truncation))
        return f"rho{rho}-truncation{truncation}" + "-half2" * (self.half == 2)


@dataclass(frozen=True)
class Judges:
    """Who judges the images.

    Attributes:
        features: the model whose features are compared.
        models: those whose classes are counted.
    """

    features: ImageScorer
    models: tuple[ImageScorer, ...] = ()

    def remembering(self) -> "Judges":
        """The same, who look at each image once."""
        return Judges(image_models.with_memory(self.features), tuple(map(image_models.with_memory, self.models)))


def halves(spec: SweepSpec) -> tuple[int, ...]:
    """Those that points are drawn from: 1 and 2; 0, all rows, where nothing is picked."""
    return (1, 2) if spec.pick else (0,)


def points(spec: SweepSpec, truncation: float) -> list[Point]:
    """Those at one truncation, from which one is picked."""
    return [Point(rho, truncation, 1 if spec.pick else 0) for rho in spec.rho]


def rows(pool: Pool, half: int) -> Index:
    """The rows that compete for points of a half."""
    return index.half(pool.index, half, len(pool.volume.spec.classes) or 1) if half else pool.index


def draws(spec: SweepSpec, pool: Pool, group: list[Point]) -> dict[Point, Draw]:
    """The rows of points of one truncation and half."""
    competing = rows(pool, group[0].half)
    return {point: index.draw(competing, spec.n, point.rho, spec.seed) for point in group}
