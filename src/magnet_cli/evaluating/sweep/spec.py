"""What a sweep is: its spec, its points, the rows that they are drawn from, and the models that score the images."""

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
        generator: name of the generator.
        sha256: hex sha256 of its checkpoint.
        fingerprints: of the volume for each truncation.
        pools: number of rows of each volume.
        n: images a point.
        rho: polarities, ascending, 0 included.
        truncation: ψ of the images, descending.
        top_k: k.
        seed: seed of the draws.
        label: labels drawn from; () for those of the volumes.
        bn_truncation: ψ of batch-norm statistics; 0 for the truncation.
        reference: hex sha256 of the hashes of its images; "" for new draws from the prior.
        features: name of the image model whose features are compared.
        features_key: its key.
        nearest_k: k of precision, recall, density and coverage.
        models: names of the image models whose classes are counted.
        keys: their keys.
        pick: what picks the point: name of a metric, or MODEL.gap, MODEL.total_variation; "" for no choice.
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
    """The rows that are drawn from at one truncation.

    Attributes:
        truncation: ψ of the images.
        volume: the volume.
        index: index of its rows, without those of other labels.
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
        half: half of the rows, 1 or 2; 0 for all.
    """

    rho: float
    truncation: float
    half: int

    @property
    def name(self) -> str:
        """Name of the sample's folder."""
        rho, truncation = (np.format_float_positional(value, trim="-") for value in (self.rho, self.truncation))
        return f"rho{rho}-truncation{truncation}" + "-half2" * (self.half == 2)


@dataclass(frozen=True)
class Scorers:
    """The image models of a sweep.

    Attributes:
        features: the model whose features are compared.
        classes: the models whose classes are counted.
    """

    features: ImageScorer
    classes: tuple[ImageScorer, ...] = ()

    def with_memory(self) -> "Scorers":
        """Return scorers that run once on each image."""
        return Scorers(image_models.with_memory(self.features), tuple(map(image_models.with_memory, self.classes)))


def halves(spec: SweepSpec) -> tuple[int, ...]:
    """Return the halves that points are drawn from: 1 and 2; 0, all rows, where nothing is picked."""
    return (1, 2) if spec.pick else (0,)


def points(spec: SweepSpec, truncation: float) -> list[Point]:
    """Return the points at one truncation that one is picked from."""
    return [Point(rho, truncation, 1 if spec.pick else 0) for rho in spec.rho]


def rows(pool: Pool, half: int) -> Index:
    """Return the index of the rows that compete for points of a half."""
    return index.half(pool.index, half, len(pool.volume.spec.classes) or 1) if half else pool.index


def draws(spec: SweepSpec, pool: Pool, group: list[Point]) -> dict[Point, Draw]:
    """Return the draw of each point, for points of one truncation and half."""
    competing = rows(pool, group[0].half)
    return {point: index.draw(competing, spec.n, point.rho, spec.seed) for point in group}
