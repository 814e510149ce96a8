"""class_shares: shares, imbalance and their intervals against the truth."""

import numpy as np
import pytest

from magnet_cli.maths.metrics import class_shares
from magnet_cli.maths.metrics.class_shares import Tally


def tally(*counts):
    return Tally(tuple(str(i) for i in range(len(counts))), np.array(counts))


def test_shares_gap_and_total_variation_by_hand():
    found = tally(60, 30, 10)
    assert [share.value for share in found.shares().values()] == [0.6, 0.3, 0.1]
    assert found.gap().value == pytest.approx(0.5)
    assert found.total_variation().value == pytest.approx(0.6 - 1 / 3)
    two = tally(73, 27)
    assert two.gap().value == pytest.approx(0.46)
    assert two.gap().value == pytest.approx(2 * two.total_variation().value)
    assert two.gap().low == pytest.approx(2 * two.total_variation().low)
    level = tally(50, 50)
    assert (level.gap().value, level.total_variation().value) == (0, 0)
    assert level.total_variation().high > 0


@pytest.mark.parametrize("truth", [(0.5, 0.5), (0.52, 0.48), (0.8, 0.2), (0.4, 0.3, 0.2, 0.1), (0.1,) * 10])
def test_intervals_of_imbalance_cover_that_at_this_n(truth):
    """The mean over draws of this size, which near equal shares lies above their own imbalance."""
    draws = np.random.default_rng(1).multinomial(400, truth, 300)
    for measure in ("gap", "total_variation"):
        made = [getattr(tally(*counts), measure)() for counts in draws]
        at_n = np.mean([one.value for one in made])
        assert np.mean([one.low <= at_n <= one.high for one in made]) >= 0.9, measure


def _equal(num):
    return lambda _: np.full(num, 1 / num)


def _near(num):
    """One class a third above, another a third below."""
    weights = np.ones(num)
    weights[[0, -1]] = 1.3, 0.7
    return lambda _: weights / weights.sum()


def _dirichlet(num, each):
    return lambda rng: rng.dirichlet(np.full(num, each))


def coverage(shares, n, times, seed=6):
    """How often the intervals hold the gap and the total variation of the shares that counts are drawn from."""
    rng, covered = np.random.default_rng(seed), []
    for _ in range(times):
        truth = shares(rng)
        counts = tally(*rng.multinomial(n, truth))
        pairs = (counts.gap(), np.ptp(truth)), (counts.total_variation(), np.abs(truth - 1 / len(truth)).sum() / 2)
        covered.append([made.low <= value + 1e-12 and value - 1e-12 <= made.high for made, value in pairs])
    return np.mean(covered, axis=0)


@pytest.mark.parametrize(
    ("shares", "n"),
    [(_equal(2), 64), (_equal(10), 5000), (_near(10), 500), (_equal(1000), 500), (_dirichlet(40, 5), 500)],
)
def test_intervals_cover_the_imbalance_of_the_shares(shares, n):
    """Equal classes are what balance and `--classes equal` make; the classes in the sum are picked by the same data."""
    assert (coverage(shares, n, 100) >= 0.9).all()


@pytest.mark.slow
@pytest.mark.parametrize("n", [64, 500, 5000, 20000])
@pytest.mark.parametrize("num", [2, 3, 10, 40, 1000])
def test_intervals_cover_the_imbalance_of_shares_of_every_kind(num, n):
    for shares in (_equal(num), _near(num), *(_dirichlet(num, each) for each in (0.3, 1, 5, 50, 500))):
        assert (coverage(shares, n, 300 if num < 1000 else 100) >= 0.9).all()


def test_intervals_of_imbalance_tell_what_the_images_tell():
    """Covering is not enough: 5,000 images of ten classes tell unequal shares from equal ones."""
    equal, unequal = tally(*[500] * 10), tally(900, 100, *[500] * 8)
    assert equal.total_variation().low == 0 < equal.total_variation().high < 0.02
    assert 0.05 < unequal.total_variation().low < 0.08 < unequal.total_variation().high < 0.1
    assert 0.14 < unequal.gap().low < 0.16 < unequal.gap().high < 0.18


def test_what_equal_shares_give_is_that_of_draws_with_equal_shares():
    draws = np.random.default_rng(7).multinomial(300, [0.2] * 5, 2000) / 300
    level = class_shares.at_equal_shares(300, 5)
    assert level["gap"] == pytest.approx(np.ptp(draws, axis=1).mean(), rel=0.05)
    assert level["total_variation"] == pytest.approx(np.abs(draws - 0.2).sum(axis=1).mean() / 2, rel=0.05)
    assert class_shares.summary([tally(60, 60, 60, 60, 60)]).at_equal_shares == level


def test_the_interval_of_a_change_covers_it():
    rng = np.random.default_rng(2)
    one, other = (0.7, 0.3), (0.6, 0.4)
    made = [
        class_shares.joined(tally(*rng.multinomial(300, one)).gap(), tally(*rng.multinomial(500, other)).gap())
        for _ in range(400)
    ]
    assert np.mean([each.low <= 0.2 <= each.high for each in made]) >= 0.93


def test_the_p_value_is_level_without_a_change_and_small_with_one():
    rng = np.random.default_rng(3)
    null = [
        class_shares.p_value(tally(*rng.multinomial(150, (0.7, 0.3))), tally(*rng.multinomial(150, (0.7, 0.3))))
        for _ in range(80)
    ]
    assert 0.0 <= np.mean(np.array(null) < 0.05) <= 0.13
    assert class_shares.p_value(tally(700, 300), tally(550, 450)) == pytest.approx(1e-4)
    assert class_shares.p_value(tally(70, 30), tally(30, 70)) == 1  # the bias is the same, towards another class


def pools(rng, truth, count, n, spread=60.0):
    """Tallies of samples from pools that differ: each pool's own shares are drawn around the truth."""
    return [tally(*rng.multinomial(n, rng.dirichlet(spread * np.array(truth)))) for _ in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize(("truth", "count"), [((0.5, 0.5), 5), ((0.8, 0.2), 3), ((0.4, 0.3, 0.2, 0.1), 8)])
def test_intervals_over_pools_cover_the_truth(truth, count):
    """The estimand is the measure at this n, over all pools there could be; Wilson's of all images misses it."""
    rng = np.random.default_rng(4)
    many = pools(rng, truth, 4000, 200)
    at_n = {name: np.mean([getattr(each, name)().value for each in many]) for name in ("gap", "total_variation")}
    made = [class_shares.summary(pools(rng, truth, count, 200)) for _ in range(400)]
    for name, value in at_n.items():
        assert np.mean([getattr(each, name).low <= value <= getattr(each, name).high for each in made]) >= 0.9, name
    for i, value in enumerate(truth):
        covered = [each.shares[str(i)].low <= value <= each.shares[str(i)].high for each in made]
        assert np.mean(covered) >= 0.9
    wilson = [class_shares._pooled(pools(rng, truth, count, 200)).shares()["0"] for _ in range(400)]
    assert np.mean([each.low <= truth[0] <= each.high for each in wilson]) < 0.8


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False])
def test_the_change_over_pools_covers_it_and_pairs_are_narrower(paired):
    """Pools share what moves both of their samples: by pairs that cancels out; Welch's interval is wide, and safe."""
    rng = np.random.default_rng(5)
    covered, false, width = [], [], []
    for _ in range(300):
        own = rng.normal(0, 0.05, 6)
        sides = [[tally(*rng.multinomial(2000, (share + o, 1 - share - o))) for o in own] for share in (0.75, 0.7)]
        found = class_shares.change(*sides, paired=paired)
        covered.append(found.shares["0"].low <= 0.05 <= found.shares["0"].high)
        width.append(found.shares["0"].high - found.shares["0"].low)
        same = [tally(*rng.multinomial(2000, (0.7 + o, 0.3 - o))) for o in own]
        false.append(class_shares.change(sides[1], same, paired=paired).p_value < 0.05)
    assert np.mean(covered) >= 0.9
    assert np.mean(false) <= 0.1
    assert (np.mean(width) < 0.06) == paired


def test_pools_that_all_agree_are_not_known_for_certain():
    agreed = [tally(100, 0), tally(100, 0), tally(100, 0)]
    found = class_shares.summary(agreed)
    assert (found.shares["0"].value, found.shares["0"].high) == (1, 1)
    assert found.shares["0"].low < 0.995
    assert found.gap.low < 0.99
    change = class_shares.change(agreed, agreed, paired=True)
    assert change.gap.low < 0 <= change.gap.high
    assert change.p_value == 1
