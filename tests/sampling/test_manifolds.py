"""Draws on manifolds that are known, through the whole pipeline: latents, Jacobians, volume, index, draw.

At rho 1 draws are uniform, at other rho their density follows area^(rho-1). The check can fail: it does for weights of
exp(0.9 log-volume), and for the generator as it is.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from manifolds import MANIFOLDS, Manifold
from scipy import stats

from magnet_cli import computing, index, models
from magnet_cli.computing.memory import BatchPlan
from magnet_cli.index import Index
from magnet_cli.models import custom
from magnet_cli.volume import Volume

ROWS = 400_000
DRAWN = {"plane": 1000}  # its weights differ most: so many are not displaced
SEEDS = 50


@dataclass(frozen=True)
class Known:
    """A volume of a manifold, ready to be drawn from."""

    of: Manifold
    volume: Volume
    index: Index
    cells: np.ndarray

    @property
    def drawn(self) -> int:
        return DRAWN.get(self.of.factory, 10_000)

    def p_values(self, rho, against, seeds=SEEDS, n=None, replace=False):
        """Of draws at rho, χ² against the masses at another; cells that fewer than 5 rows belong into are one."""
        n = n or self.drawn
        expected = self.of.masses(against) * n
        order = np.argsort(-expected)
        few = expected[order] < 5
        starts = np.flatnonzero(np.r_[True, ~few[1:] | ~few[:-1]])
        found = []
        for seed in range(seeds):
            places = index.choose(self.index, rho, n, seed, replace=replace)
            counts = np.bincount(self.cells[places], minlength=len(expected))
            pairs = (np.add.reduceat(each[order], starts) for each in (counts, expected))
            found.append(stats.chisquare(*pairs).pvalue)
        return np.array(found)


@pytest.fixture(scope="module", params=MANIFOLDS, ids=lambda each: each.factory)
def known(request, tmp_path_factory):
    of = request.param
    generator = models.load(custom.from_factory(of.reference))
    spec = computing.volume_spec(generator, rows_per_shard=50_000)
    volume = Volume.create(tmp_path_factory.mktemp("volumes") / of.factory, spec)
    list(computing.fill(volume, generator, ROWS, BatchPlan(10_000)))
    built = index.build(volume, spec.rank)
    if of.correct:
        built = index.corrected(built, index.log_prior(volume, built.parts), index.ball(spec, 0.99))
    return Known(of, volume, built, of.cells(np.concatenate([shard.latents for _, shard in volume.rows()])))


def is_uniform(p_values):
    return stats.kstest(p_values, "uniform").pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("rho", [1.0, 0.5, -0.3])
def test_draws_have_the_density_that_is_asked_for(known, rho):
    assert index.displaced_share(known.index, rho, known.drawn) <= 0.01
    assert is_uniform(known.p_values(rho, rho))


@pytest.mark.slow
def test_other_weights_are_told_apart(known):
    """exp(0.9 log-volume), and none."""
    assert not is_uniform(known.p_values(0.9, 1.0))
    assert known.p_values(0.0, 1.0, seeds=5).max() < 1e-10


@pytest.mark.slow
def test_what_is_said_of_them(known):
    """The word uniform stands where it holds, and nowhere else."""
    spec = known.volume.spec
    drawn = index.draw(known.index, known.drawn, 1.0, 0)
    assert index.target(known.index, 1.0, spec, drawn).startswith("uniform on the manifold")
    assert (drawn.ball is not None) == known.of.correct
    many = index.draw(known.index, known.index.pool(1.0) - 1, 1.0, 0)
    assert "uniform" not in index.target(known.index, 1.0, spec, many)
    assert "uniform" not in index.target(known.index, 0.5, spec, drawn)


@pytest.mark.slow
def test_with_replacement(known):
    assert is_uniform(known.p_values(1.0, 1.0, n=1000, replace=True))
