"""Draws: which slot is what, that a smaller draw begins a larger one, frequencies against numpy and closed forms."""

import dataclasses
import itertools
import json
import math
import textwrap
import tracemalloc
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from magnet_cli import computing, index
from magnet_cli.errors import SpecError, VolumeError
from magnet_cli.files import documents
from magnet_cli.index import Ball, Index, Part, slots
from magnet_cli.index.index import BLOCK
from magnet_cli.volume import Shard, Volume
from magnet_cli.volume.spec import VolumeSpec

settings.register_profile("magnet", deadline=None)  # machines are shared: time says nothing here
settings.load_profile("magnet")


def of(values, **more):
    values = np.asarray(values, dtype=np.float64)
    return Index("f" * 64, 1, (Part(0, 0, len(values), ""),), values, np.ones(len(values), bool), **more)


def of_classes(values, numbers, **more):
    return of(values, classes=tuple(range(10, 11 + max(numbers))), class_of=np.asarray(numbers), **more)


@st.composite
def indices(draw):
    """Small ones: some rows below the floor, some not asked for, corrected or not, of one to three classes."""
    size = draw(st.integers(8, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    known = of(rng.normal(size=size) * draw(st.sampled_from([0.1, 2.0, 1e4])))
    more = {"above_floor": rng.random(size) > 0.1, "competing": rng.random(size) > draw(st.sampled_from([-1, 0.2]))}
    if draw(st.booleans()):
        lengths = rng.chisquare(3, size)
        more |= {"log_prior": (-lengths / 2).astype(np.float32), "ball": Ball(2.8, 0.95)}
    classes = draw(st.integers(0, 3))
    if classes:
        more |= {"classes": tuple(range(classes)), "class_of": rng.integers(0, classes, size).astype(np.uint8)}
    return Index(known.fingerprint, 1, known.parts, known.log_volume, **({"above_floor": known.above_floor} | more))


def most(known, rho):
    """The largest n that can be drawn without replacement."""
    pools = known.pools(rho)
    return min(int(pool) * known.num_classes + number for number, pool in enumerate(pools))


shares = st.one_of(st.sampled_from([0.0, 1.0, 0.5, 0.041]), st.floats(0, 1))


@given(st.integers(1, 400), shares, st.integers(1, 7))
def test_slots_are_those_of_the_definition(n, mix, classes):
    share = Fraction(repr(mix)).limit_denominator(10**9)
    found = slots.are_polarity(n, mix, classes)
    for j in range(n):
        i = j // classes
        assert found[j] == (math.floor((i + 1) * share) > math.floor(i * share))
    assert slots.num_polarity(n, mix) == slots.are_polarity(n, mix).sum() == math.floor(n * share)
    assert slots.of_classes(n, classes).tolist() == [sum(j % classes == c for j in range(n)) for c in range(classes)]


def test_a_share_is_what_was_typed():
    """0.29 · 100 is 28.999999999999996 in floats."""
    assert slots.num_polarity(100, 0.29) == 29
    assert slots.are_polarity(100, 0.29)[99]


@pytest.mark.slow
@given(indices(), st.floats(-3, 3), st.integers(0, 2**31), st.booleans(), shares, st.data())
def test_the_first_m_of_n_slots_are_the_draw_of_m(known, rho, seed, replace, mix, data):
    rows = most(known, rho)
    if rows < 1 or (replace and not known.pools(rho).all()):
        return
    n = data.draw(st.integers(1, rows))
    m = data.draw(st.integers(1, n))
    long = index.draw(known, n, rho, seed, replace=replace, mix=mix)
    short = index.draw(known, m, rho, seed, replace=replace, mix=mix)
    assert long.rows[:m].tolist() == short.rows.tolist()
    assert long.prior[:m].tolist() == short.prior.tolist()
    assert long.rows.tolist() == index.draw(known, n, rho, seed, replace=replace, mix=mix).rows.tolist()
    assert replace or long.unique_rows == n
    assert known.competing[long.rows].all()
    by_weight = long.rows[~long.prior]
    if rho:
        assert known.above_floor[by_weight].all()
        assert known.ball is None or (known.log_prior[by_weight] >= -0.5 * known.ball.radius**2).all()
    if known.classes:
        assert known.class_of[long.rows].tolist() == [j % known.num_classes for j in range(n)]
    numbers = (long.effective_size, long.top_share, long.displaced_share, long.largest_useful_rho)
    assert np.isfinite(numbers).all()
    assert 0 <= long.displaced_share < 1
    assert 0 < long.top_share <= 1 + 1e-9


@given(indices(), st.floats(-3, 3), st.integers(0, 2**31), shares)
def test_a_pool_is_its_first_rows(known, rho, seed, mix):
    """What lies beyond them has no part in the draw."""
    pool = known.num_rows // 2
    cut = index.first(known, pool)
    rows = most(cut, rho)
    if rows < 1:
        return
    found = index.draw(cut, rows, rho, seed, mix=mix)
    assert found.rows.max() < pool
    assert cut.num_rows == sum(part.rows for part in cut.parts) == pool


def test_a_pool_of_several_shards():
    known = of(np.arange(10.0))
    parts = (Part(0, 0, 4, "a"), Part(2, 8, 4, "b"), Part(3, 12, 2, "c"))
    known = Index(known.fingerprint, 1, parts, known.log_volume, known.above_floor)
    cut = index.first(known, 6)
    assert cut.parts == (Part(0, 0, 4, "a"), Part(2, 8, 2, "b"))
    assert cut.rows(np.arange(6)).tolist() == [0, 1, 2, 3, 8, 9]
    assert index.first(known, None) is known
    with pytest.raises(VolumeError, match="a pool of 11 rows is asked for, and the volume has 10"):
        index.first(known, 11)


def agree(ours, theirs):
    """Whether two samples of outcomes may be of one distribution: χ² of the table, p > 1e-4."""
    counts = [Counter(ours), Counter(theirs)]
    return stats.chi2_contingency([[c[key] for key in counts[0] | counts[1]] for c in counts]).pvalue > 1e-4


@pytest.mark.slow
def test_inclusion_agrees_with_numpy():
    """Which 3 of 6 rows, 10,000 times, beside numpy.random.choice without replacement; not so for other weights."""
    weights = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
    rng = np.random.RandomState(0)
    theirs = [frozenset(rng.choice(6, 3, replace=False, p=weights).tolist()) for _ in range(10_000)]

    def ours(rho):
        known = of(np.log(weights))
        return [frozenset(index.choose(known, rho, 3, seed).tolist()) for seed in range(10_000)]

    assert agree(ours(1.0), theirs)
    assert not agree(ours(0.9), theirs)


def test_with_replacement_probabilities_are_exact():
    """200,000 in one draw, over three blocks of rows; heavy rows at their ends."""
    values = np.full(2 * BLOCK + 50, -20.0)
    heavy = {0: 0.0, BLOCK - 1: 0.5, BLOCK: 1.0, 2 * BLOCK + 49: 2.0}
    for place, value in heavy.items():
        values[place] = value
    found = Counter(index.choose(of(values), 1.0, 200_000, 0, replace=True).tolist())
    weights = np.exp(list(heavy.values()))
    rest = 200_000 - sum(found[place] for place in heavy)
    total = weights.sum() + np.exp(-20) * (len(values) - 4)
    expected = [*(200_000 * weights / total), 200_000 * np.exp(-20) * (len(values) - 4) / total]
    assert stats.chisquare([*(found[place] for place in heavy), rest], expected).pvalue > 1e-4


@pytest.mark.slow
def test_mixed_draws_are_sequential_sampling():
    """Two slots of three rows: one chosen evenly, then one by weight of what is left; and the other way round."""
    weights = np.array([0.6, 0.3, 0.1])
    known = of(np.log(weights))
    draws = Counter(tuple(index.choose(known, 1.0, 3, seed, mix=0.5).tolist()) for seed in range(6000))
    expected = {}
    for i, j, k in itertools.permutations(range(3)):  # prior, polarity, prior
        expected[i, j, k] = 6000 / 3 * weights[j] / (1 - weights[i])
    assert stats.chisquare([draws[key] for key in expected], list(expected.values())).pvalue > 1e-4


def test_a_heavy_row_comes_once_by_either_order():
    known = of([50.0, *[0.0] * 9])
    for seed in range(50):
        found = index.draw(known, 10, 1.0, seed, mix=0.3)
        assert sorted(found.rows.tolist()) == list(range(10))
        assert found.prior.tolist() == [True, True, True, False, True, True, False, True, True, False]


@pytest.mark.parametrize(("n", "mix", "below"), [(400, 0.5, 0), (200, 0.25, 0), (300, 0.75, 40)])
def test_the_displaced_share_of_a_mix_is_that_of_its_draws(n, mix, below):
    """Prior draws take rows of large weight, too: what polarity draws take in 800, against what is said."""
    volumes = np.random.default_rng(0).normal(size=400)
    known = dataclasses.replace(of(volumes), above_floor=np.arange(400) >= below)
    polarity, taken = slots.are_polarity(n, mix), np.zeros(400)
    for seed in range(800):
        taken[index.choose(known, 1.0, n, seed, mix=mix)[polarity]] += 1
    shares = taken / taken.sum()
    simulated = np.abs(shares - known.weights(1.0)).sum() / 2
    said = index.displaced_share(known, 1.0, n, mix)
    assert said == pytest.approx(simulated, abs=0.012)  # what 800 draws leave
    assert said > 1.05 * index.displaced_share(known, 1.0, slots.num_polarity(n, mix))  # without prior draws


def test_a_mix_of_none_is_the_generator():
    known = of(np.random.default_rng(0).normal(size=200) * 5)
    found = index.draw(known, 100, 1.0, 0, mix=0.0)
    assert found.prior.all()
    assert found.displaced_share == 0
    assert index.warnings(found, 1.0, replace=False) == []
    assert (
        index.draw(known, 100, 1.0, 0, mix=0.0).rows.tolist() == index.draw(known, 100, -2.0, 0, mix=0.0).rows.tolist()
    )


@pytest.mark.slow
@pytest.mark.parametrize("replace", [False, True])
def test_equal_shares_are_weighted_within_the_class(replace):
    """The first of each class by its weight in the class, whatever the weight of the class."""
    known = of_classes([0.0, 1.0, 100.0, 101.0, 102.0], [0, 0, 1, 1, 1])
    if replace:
        drawn = index.choose(known, 1.0, 10_000, 0, replace=True)
    else:
        drawn = np.ravel([index.choose(known, 1.0, 2, seed) for seed in range(5000)])
    counts = np.bincount(drawn, minlength=5)
    within = [np.exp([0, 1]), np.exp([0, 1, 2])]
    expected = np.concatenate([5000 * weights / weights.sum() for weights in within])
    assert stats.chisquare(counts[:2], expected[:2]).pvalue > 1e-4
    assert stats.chisquare(counts[2:], expected[2:]).pvalue > 1e-4


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("mix", [1.0, 0.4])
def test_equal_shares_over_blocks(replace, mix):
    """150,000 rows of 70 classes give what each class's rows give alone, whichever block they are in."""
    rng = np.random.default_rng(0)
    values, numbers = rng.normal(size=150_000) * 3, rng.integers(0, 70, 150_000)
    found = index.choose(of_classes(values, numbers), 0.5, 7000, 3, replace=replace, mix=mix)
    assert (numbers[found] == np.arange(7000) % 70).all()
    assert replace or len(set(found.tolist())) == 7000
    if mix == 1 and not replace:
        keys = 0.5 * values - np.log(-np.log1p(-np.random.default_rng([index.draws._STREAM, 3]).random(150_000)))
        for number in (0, 33, 69):
            of_class = np.flatnonzero(numbers == number)
            best = of_class[np.argsort(-keys[of_class], kind="stable")[:100]]
            assert found[number::70].tolist() == best.tolist()


def test_diagnostics_of_classes_are_those_of_each():
    """Two classes as different as can be: one of equal rows, one of a single heavy row."""
    known = of_classes([0.0] * 100 + [50.0] + [0.0] * 99, [0] * 100 + [1] * 100)
    assert index.effective_size(known, 1.0) == pytest.approx(1 / (0.25 * (1 / 100 + 1)), rel=1e-6)
    assert index.top_share(known, 1.0) == pytest.approx(0.5 + 0.5 / 100)  # of 200 rows the heaviest two
    alone = index.displaced_share(of([50.0] + [0.0] * 99), 1.0, 10)
    assert index.displaced_share(known, 1.0, 20) == pytest.approx(alone / 2, abs=1e-6)
    assert index.displaced_share(known, 1.0, 20, mix=0.0) == 0


def test_top_share_by_hand():
    weights = np.r_[np.full(198, 0.5 / 198), 0.3, 0.2]
    assert index.top_share(of(np.log(weights)), 1.0) == pytest.approx(0.5)  # 2 of 200
    assert index.top_share(of(np.log(weights)), 0.0) == pytest.approx(0.01)
    assert index.top_share(of([0.0, 1.0]), 1.0) == pytest.approx(np.e / (1 + np.e))  # one row at least


def test_top_share_of_grouped_rows():
    values = np.random.default_rng(0).normal(size=400_000)
    known = of(values)
    assert len(known.spread[0][0]) < 400_000
    weights = np.sort(np.exp(values))[::-1]
    assert index.top_share(known, 1.0) == pytest.approx(weights[:4000].sum() / weights.sum(), rel=1e-3)


def test_more_of_a_class_than_there_is():
    known = of_classes(np.zeros(7), [0, 0, 0, 0, 0, 1, 1])
    assert len(index.draw(known, 5, 0.5, 0).rows) == 5
    with pytest.raises(
        VolumeError, match="6 samples of 2 classes in equal shares are 3 of class 11, and 2 rows"
    ) as error:
        index.draw(known, 6, 0.5, 0)
    assert "at most 5" in error.value.hint
    assert len(index.draw(known, 50, 0.5, 0, replace=True).rows) == 50


def test_where_no_row_competes():
    known = of([0.0, 1.0], competing=np.zeros(2, bool))
    for replace in (False, True):
        with pytest.raises(VolumeError, match="0 rows of the volume compete"):
            index.draw(known, 1, 1.0, 0, replace=replace)


def test_correction_leaves_memory_bounded():
    rng = np.random.default_rng(0)
    known = of(rng.normal(size=2_000_000), log_prior=-rng.chisquare(5, 2_000_000).astype(np.float32) / 2)
    tracemalloc.start()
    index.choose(known, 0.3, 500, 0, mix=0.5)
    assert tracemalloc.get_traced_memory()[1] < 8e6
    tracemalloc.stop()


@pytest.mark.parametrize("replace", [False, True])
def test_extreme_weights_stay_finite_and_ordered(replace):
    """log-volumes of ±1e5 at rho ±50, in classes and mixed too: no number that is none, the heaviest first."""
    values = np.linspace(-1e5, 1e5, 1000)
    for known in (of(values), of_classes(values, [0, 1] * 500)):
        for rho, first in ((50.0, values.max()), (-50.0, values.min())):
            found = index.draw(known, 6, rho, 0, replace=replace)
            near = np.abs(found.log_volume - first)
            assert near.max() <= (1 if replace else 6) * np.ptp(values) / 999 + 1e-6
            assert np.isfinite(dataclasses.astuple(found)[4:8]).all()
            mixed = index.draw(known, 6, rho, 0, replace=replace, mix=0.5)
            assert np.abs(mixed.log_volume[~mixed.prior] - first).max() <= near.max() + 1e-6


@pytest.mark.parametrize("latent_dim", [1, 2, 16, 512])
def test_the_ball_holds_its_share(latent_dim):
    spec = spec_of(latent_dim)
    found = index.ball(spec, 0.99)
    assert found.radius**2 == pytest.approx(stats.chi2.ppf(0.99, latent_dim), rel=1e-9)
    z = np.random.default_rng(0).normal(size=(20_000, latent_dim))
    assert (np.linalg.norm(z, axis=1) <= found.radius).mean() == pytest.approx(0.99, abs=0.004)


def spec_of(latent_dim, prior="normal", **more):
    fields = {
        "generator": "g", "sha256": "0" * 64, "family": "own", "prior": prior, "latent_dim": latent_dim, "space": "z",
        "output": "pixel", "truncation": 1.0, "top_k": 1, "solver": "exact", "precision": "float32",
        "rank_floor": 1e-5, "seed": 0, "shard_rows": 100,
    }  # fmt: skip
    return VolumeSpec(**fields | more)


def volume_of(path, latents, values, labels=None, **more):
    """A volume of given rows, 100 a shard."""
    spec = spec_of(latents.shape[1], top_k=values.shape[1], **more)
    volume = Volume.create(path, spec)
    for shard in range(-(-len(latents) // 100)):
        here = slice(100 * shard, 100 * shard + 100)
        volume.write(shard, Shard(latents[here], values[here], None if labels is None else labels[here]))
    return volume


def some_rows(rows=250, latent_dim=4, seed=0):
    rng = np.random.default_rng(seed)
    values = -np.sort(-np.exp(rng.normal(size=(rows, latent_dim))), axis=1)
    return rng.standard_normal((rows, latent_dim), dtype=np.float32), values.astype(np.float32)


def test_log_priors_are_kept_and_made_longer(toy_volume, toy_generator, tmp_path):
    built = index.build(toy_volume, 5)
    path = index.prior_path(tmp_path / "indices", toy_volume)
    assert index.stored_prior(path, toy_volume) is None
    found = index.log_prior(toy_volume, built.parts)
    latents = toy_volume.latents(np.arange(200)).astype(np.float64)
    np.testing.assert_allclose(found.values, -(latents**2).sum(axis=1) / 2, rtol=1e-6)
    index.store_prior(found, toy_volume, path)
    again = index.stored_prior(path, toy_volume)
    np.testing.assert_array_equal(again.values, found.values)
    assert (again.parts, again.fingerprint, again.values.dtype) == (found.parts, found.fingerprint, np.float32)
    list(computing.fill(toy_volume, toy_generator, 300))
    longer = index.build(toy_volume, 5)
    whole = index.log_prior(toy_volume, longer.parts)
    for shard in range(3):
        toy_volume.shard_path(shard).unlink()  # what is known is not read again
    np.testing.assert_array_equal(index.log_prior(toy_volume, longer.parts, again).values, whole.values)
    mark = documents.read(path.with_suffix(".json"))
    for change in (
        {"format": 2},
        {"kind": "index"},
        {"fingerprint": "0" * 64},
        {"parts": [[0, 0, "many", ""]]},
        {"parts": 3},
    ):
        path.with_suffix(".json").write_bytes(documents.encode(mark | change))
        assert index.stored_prior(path, toy_volume) is None
    path.with_suffix(".json").write_bytes(documents.encode(mark))
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert index.stored_prior(path, toy_volume) is None


def test_corrected_weights_are_those_of_the_definition(tmp_path):
    latents, values = some_rows()
    volume = volume_of(tmp_path / "v", latents, values)
    plain = index.build(volume, 3)
    built = index.corrected(plain, index.log_prior(volume, plain.parts), index.ball(volume.spec, 0.9))
    inside = np.linalg.norm(latents, axis=1) <= built.ball.radius
    assert 200 < inside.sum() < 250
    log_p = stats.multivariate_normal(np.zeros(4)).logpdf(latents)
    for rho in (1.0, -0.7):
        expected = np.exp(rho * (plain.log_volume - log_p))[inside]
        scores = np.concatenate(list(built.scores(rho)))
        assert np.isneginf(scores[~inside]).all()
        np.testing.assert_allclose(np.exp(scores[inside] - scores[inside][0]), expected / expected[0], rtol=1e-4)
        weights = expected / expected.sum()
        assert index.effective_size(built, rho) == pytest.approx(1 / (weights**2).sum(), rel=1e-4)
    assert built.pool(0.0) == 250  # at rho 0 it is the generator as ever
    assert index.draw(built, 250, 0.0, 0).ball is None


def test_what_cannot_be_corrected(tmp_path):
    with pytest.raises(SpecError, match="density is not known"):
        index.check_correction(spec_of(4, space="w", style_dim=4), 1.0)
    with pytest.raises(SpecError, match=r"at truncation 1 is asked .* rendered at 0\.5"):
        index.check_correction(spec_of(4), 0.5)
    index.check_correction(spec_of(4, truncation=0.5), 0.5)
    index.check_correction(spec_of(4, "sphere"), 0.5)  # nothing is to be corrected
    assert index.is_even(spec_of(4, "sphere"))
    assert index.is_even(spec_of(4, "uniform"))
    assert not index.is_even(spec_of(4, "truncated-normal"))
    assert index.ball(spec_of(4, "truncated-normal"), 0.99) is None
    latents, values = some_rows(20)
    latents[3, 1] = np.nan
    volume = volume_of(tmp_path / "v", latents, values)
    with pytest.raises(VolumeError, match="latents that are not finite"):
        index.log_prior(volume, index.build(volume, 2).parts)


def test_uniform_is_said_of_what_the_jacobian_was_taken_of():
    said = index.density_words(spec_of(4, "sphere", output="style"))
    assert said == "uniform on the manifold of style outputs, not of images"
    assert index.density_words(spec_of(4, "uniform")) == "uniform on the manifold"
    assert index.density_words(spec_of(4), corrected=True) == "uniform on the manifold"
    for spec in (spec_of(4), spec_of(4, "truncated-normal"), spec_of(4, "sphere", space="w", style_dim=4)):
        assert index.density_words(spec).endswith("not uniform")


def test_effective_sizes_over_k_are_those_of_each_index(tmp_path):
    latents, values = some_rows(350, 6)
    values[7, 5] = 1e-9 * values[7, 0]  # below the floor in less than 0.1 % of 350 rows is in none of them
    volume = volume_of(tmp_path / "v", latents, values)
    rhos = (-30.0, -1.0, 0.0, 0.3, 40.0)
    grid = index.effective_sizes(volume, index.build(volume, 3), index.some_top_ks(6, 3), rhos)
    assert list(grid) == [1, 2, 3, 5, 6]
    assert grid[6] is None
    for k in (1, 2, 3, 5):
        built = index.build(volume, k)
        for rho in rhos:
            assert grid[k][rho] == pytest.approx(index.effective_size(built, rho), rel=1e-9)


def test_labels_choose_rows_and_classes_take_turns(tmp_path):
    latents, values = some_rows(250)
    labels = np.arange(250) % 3
    computed = volume_of(tmp_path / "c", latents, values, labels, num_classes=3)
    built = index.build(computed, 2)
    assert index.of_labels(built, computed) is built
    assert index.of_labels(built, computed, (0, 1, 2)).competing is None
    two = index.of_labels(built, computed, (2, 0), equal=True)
    assert two.classes == (0, 2)  # the volume's order
    assert labels[index.draw(two, 50, 1.0, 0).rows].tolist() == [0, 2] * 25
    cut = index.of_labels(index.first(built, 101), computed, (1,))
    assert cut.pool(0.0) == 34
    with pytest.raises(VolumeError, match=r"none of the 2 rows is of class 2"):
        index.of_labels(index.first(built, 2), computed, equal=True)
    imported = volume_of(
        tmp_path / "i",
        latents,
        values,
        labels,
        num_classes=9,
        solver="imported",
        precision="unknown",
        imported_sha256="a",
    )
    assert index.of_labels(index.build(imported, 2), imported, equal=True).classes == (0, 1, 2)
    with pytest.raises(VolumeError, match=r"rows of label 7 are asked for, and those of .* have labels 0, 1, 2"):
        index.of_labels(index.build(imported, 2), imported, (7,))
    plain = volume_of(tmp_path / "p", latents, values)
    with pytest.raises(SpecError, match="takes no labels"):
        index.of_labels(index.build(plain, 2), plain, equal=True)


# --- the command line ---------------------------------------------------------------------------------------------

MODULE = """
import torch

class Wave(torch.nn.Module):
    latent_dim, prior, num_classes = 3, {prior!r}, {classes}

    def forward(self, z, labels=None):
        x = torch.cat([z, z.square() / 2, torch.sin(2 * z)], dim=1)
        return x if labels is None else x * (1 + labels[:, None])

def make():
    return Wave()
"""


def write_module(prior="uniform", classes=0):
    Path("own.py").write_text(textwrap.dedent(MODULE).format(prior=prior, classes=classes))
    return "own.py:make"


def records(out):
    return [json.loads(line) for line in (Path(out) / "metadata.jsonl").read_text().splitlines()]


def check_failure(done, code, *parts):
    assert (done.code, done.out) == (code, ""), done.err
    for part in parts:
        assert part in done.err


@pytest.mark.slow
def test_pool_and_mix_on_the_command_line(magnet):
    line = ("sample", "mnist", "--pool", 500, "--mix", 0.25, "--rho", 0.5, "--json")
    done = magnet(*line, "--n", 40, "--out", "s")
    fields = json.loads(Path("s/sample.json").read_text())
    assert (done.json["pool"], done.json["mix"], fields["spec"]["pool"], fields["spec"]["mix"]) == (
        500,
        0.25,
        500,
        0.25,
    )
    found = records("s")
    assert [each["source"] for each in found] == (["prior"] * 3 + ["polarity"]) * 10
    assert max(each["row"] for each in found) < 500
    assert all(isinstance(each["log_volume"], float) for each in found)
    assert len({each["row"] for each in found}) == 40
    magnet(*line, "--n", 10, "--out", "short")
    assert records("short") == found[:10]
    numbers = ("effective_size", "displaced_share", "largest_useful_rho", "top_share", "unique_rows")
    assert {name: fields[name] for name in numbers} == {name: done.json[name] for name in numbers}
    for word in ("effective size", "displaced share", "largest useful rho", "heaviest 1 %", "different rows"):
        assert word in done.err
    check_failure(magnet(*line, "--n", 40, "--pool", 400, "--out", "s"), 1, "pool 500 (asked 400)")
    check_failure(
        magnet("sample", "--pool", 20_001), 1, "a pool of 20,001 rows", "the volume has 20,000", "--pool 20000"
    )
    check_failure(magnet(*line, "--n", 501), 1, "501 samples", "500 rows")


def test_a_sample_from_before_these_flags_is_known_again(magnet):
    first = magnet("sample", "--n", 4, "--out", "s", "--json")
    path = Path("s/sample.json")
    fields = documents.read(path)
    for name in ("classes", "mix", "correct_prior", "prior_mass"):
        del fields["spec"][name]
    path.write_bytes(documents.encode(fields))
    assert magnet("sample", "--n", 4, "--out", "s", "--json").out == first.out


def test_with_replacement_everything_is_reported(magnet):
    done = magnet("sample", "--n", 300, "--rho", 1, "--replace", "--dry-run", "--json").json
    assert done["displaced_share"] == 0
    assert done["unique_rows"] < 300
    assert 0 < done["largest_useful_rho"] < 1
    assert 0.5 < done["top_share"] <= 1
    assert done["target"].startswith("roughly") or "not uniform" in done["target"]


def test_classes_on_the_command_line(magnet):
    own = write_module(classes=4)
    magnet("compute", own, "--n", 203)
    done = magnet("sample", own, "--n", 20, "--classes", "equal", "--rho", 0.5, "--out", "s", "--json")
    assert done.json["classes"] == "equal"
    assert [each["label"] for each in records("s")] == [0, 1, 2, 3] * 5
    assert "the same number of each class" in done.json["target"]
    magnet("sample", own, "--n", 8, "--classes", "equal", "--label", 3, "--label", 1, "--mix", 0.5, "--out", "t")
    assert [each["label"] for each in records("t")] == [1, 3] * 4
    assert [each["source"] for each in records("t")] == ["prior", "prior", "polarity", "polarity"] * 2
    check_failure(
        magnet("sample", own, "--n", 204, "--classes", "equal"),
        1,
        "51 of class 3",
        "50 rows",
        "at most 203",
        "--replace",
    )
    check_failure(magnet("sample", "mnist", "--classes", "equal"), 1, "mnist takes no labels", "leave --classes out")


@pytest.mark.slow
def test_correction_on_the_command_line(magnet, home):
    line = ("sample", "mnist", "--n", 50, "--correct-prior", "--json")
    done = magnet(*line, "--rho", 0.1, "--out", "s")
    assert (done.json["correct_prior"], done.json["prior_mass"]) == (True, 0.99)
    ball = json.loads(Path("s/sample.json").read_text())["ball"]
    assert (
        ball == done.json["ball"] == {"radius": pytest.approx(math.sqrt(stats.chi2.ppf(0.99, 16))), "prior_mass": 0.99}
    )
    assert np.linalg.norm(np.load("s/latents.npy"), axis=1).max() <= ball["radius"]
    assert done.json["pool"] < 20_000
    (kept,) = (home / "indices").glob("*-prior.h5")
    assert magnet("info", kept, "--check", "--json").json["kind"] == "log-prior"
    assert "the ball |z| <= " in done.json["target"]
    check_failure(magnet(*line, "--rho", 0.1, "--prior-mass", 0.5, "--out", "s"), 1, "prior_mass 0.99 (asked 0.5)")
    check_failure(magnet(*line, "--truncation", 0.5), 1, "rendered at 0.5", "leave --correct-prior out")
    assert magnet(*line, "--rho", 0, "--dry-run").json["target"] == "the generator's own distribution"


def test_nothing_to_correct(magnet):
    own = write_module()
    magnet("compute", own, "--n", 300)
    plain = magnet("sample", own, "--n", 9, "--rho", 1, "--out", "a", "--json")
    done = magnet("sample", own, "--n", 9, "--rho", 1, "--correct-prior", "--out", "b", "--json")
    assert "--correct-prior changes nothing" in done.err
    assert np.load("a/latents.npy").tolist() == np.load("b/latents.npy").tolist()
    assert (done.json["ball"], done.json["prior_mass"]) == (None, 0.0)
    assert plain.json["target"] == done.json["target"] == "uniform on the manifold"


@pytest.mark.parametrize(
    "args",
    [
        ["--pool", "0"],
        ["--pool", "-2"],
        ["--mix", "1.01"],
        ["--mix", "-0.1"],
        ["--mix", "nan"],
        ["--classes", "some"],
        ["--prior-mass", "0.9"],
        ["--correct-prior", "--prior-mass", "1"],
        ["--correct-prior", "--prior-mass", "0"],
    ],
)
def test_usage_errors(magnet, home, args):
    check_failure(magnet("sample", *args), 2)
    assert not home.exists()


def test_index_prints_a_table_over_rho_and_k(magnet):
    done = magnet("index", "mnist", "--json")
    by_top_k = done.json["effective_size_by_top_k"]
    assert list(by_top_k) == ["1", "2", "3", "5", "10", "16"]
    assert by_top_k["16"] == done.json["effective_size"]
    assert by_top_k["5"] == magnet("index", "mnist", "--top-k", 5, "--json").json["effective_size"]
    assert "top_k 16" in done.err
