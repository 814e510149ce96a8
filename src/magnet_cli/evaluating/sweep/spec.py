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

    `fingerprints` and `pools` (numbers of rows) are of the volume for each truncation; `rho` ascends and holds 0,
    `truncation` descends. `bn_truncation` is 0 for the truncation itself. `reference` is the sha256 of the hashes of
    its images, "" for new draws from the prior. `pick` is a metric, MODEL.gap or MODEL.total_variation; "" for no
    choice.
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
    """The rows that are drawn from at one truncation; the index is without rows of other labels."""

    truncation: float
    volume: Volume
    index: Index


@dataclass(frozen=True)
class Point:
    """One place of a sweep; `half` is the half of the rows, 1 or 2; 0 for all."""

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
    """The image models of a sweep: one whose features are compared, others whose classes are counted."""

    features: ImageScorer
    classes: tuple[ImageScorer, ...] = ()

    def with_memory(self) -> "Scorers":
        """Return scorers that run once on each image."""
        features, *classes = image_models.with_memory([self.features, *self.classes])
        return Scorers(features, tuple(classes))


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
