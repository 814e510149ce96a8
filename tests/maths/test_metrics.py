"""metrics: equal to the packages that people use, and intervals that cover the truth."""

import warnings

import numpy as np
import pytest
import torch
from scipy import stats

from magnet_cli.maths.metrics import frechet, intervals, kid, neighbours


def draws(seed, n, m, features=6, shift=0.3, scale=1.2):
    rng = np.random.default_rng(seed)
    return rng.normal(shift, scale, (n, features)), rng.normal(size=(m, features))


def dealt(n, m):
    return intervals.groups(n, 0), intervals.groups(m, 1)


class Same(torch.nn.Module):
    num_features = 6

    def forward(self, features):
        return features


@pytest.mark.slow
def test_fid_equals_torchmetrics_on_the_same_features():
    with warnings.catch_warnings(action="ignore"):  # torchmetrics' own, on import
        from torchmetrics.image.fid import FrechetInceptionDistance
    points, reference = draws(0, 500, 400)
    known = FrechetInceptionDistance(feature=Same(), normalize=True).set_dtype(torch.float64)
    known.update(torch.from_numpy(reference), real=True)
    known.update(torch.from_numpy(points), real=False)
    assert frechet.fid(points, reference, None)[0] == pytest.approx(float(known.compute()), rel=1e-6)


def test_fid_equals_the_closed_form_of_commuting_gaussians():
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.normal(size=(30, 30)))[0]
    one, other = rng.uniform(0.1, 4, 30), rng.uniform(0.1, 4, 30)
    means = rng.normal(size=(2, 30))
    known = np.sum((means[0] - means[1]) ** 2) + np.sum((np.sqrt(one) - np.sqrt(other)) ** 2)
    found = frechet.distance(*((mean, (basis * v) @ basis.T) for mean, v in zip(means, (one, other), strict=True)))
    assert found == pytest.approx(known, rel=1e-9)


@pytest.mark.slow
def test_kid_equals_torchmetrics_with_one_subset_of_everything():
    with warnings.catch_warnings(action="ignore"):  # torchmetrics' own, on import
        from torchmetrics.image.kid import KernelInceptionDistance
    points, reference = draws(2, 300, 300)
    with warnings.catch_warnings(action="ignore"):  # it keeps all features, and says so
        known = KernelInceptionDistance(feature=Same(), subsets=1, subset_size=300, normalize=True)
    known.update(torch.from_numpy(reference), real=True)
    known.update(torch.from_numpy(points), real=False)
    found = kid.kid_and_diversity(points, reference, dealt(300, 300))
    assert found["kid"][-1] == pytest.approx(float(known.compute()[0]), rel=1e-6)


def test_diversity_is_the_mean_distance_of_two_points(monkeypatch):
    points, reference = draws(3, 90, 70)
    monkeypatch.setattr(kid, "_BLOCK", 7)
    found = kid.kid_and_diversity(points, reference, dealt(90, 70))
    for name, side in (("diversity", points), ("reference_diversity", reference)):
        distances = np.linalg.norm(side[:, None] - side[None], axis=2)
        assert found[name][-1] == pytest.approx(distances[np.triu_indices(len(side), 1)].mean(), rel=1e-10)


@pytest.mark.parametrize(("k", "features", "shift"), [(3, 6, 0.3), (5, 40, 0.0), (5, 2, 4.0)])
def test_prdc_equals_the_prdc_package(capsys, k, features, shift):
    import prdc

    points, reference = draws(4, 330, 410, features, shift)
    known = prdc.compute_prdc(reference, points, k)
    found = neighbours.prdc(points, reference, k, dealt(330, 410))
    for name in neighbours.METRICS:
        assert found[name][-1] == pytest.approx(known[name], abs=1e-6)
    capsys.readouterr()


def test_prdc_of_repeated_points_equals_the_prdc_package(capsys):
    import prdc

    points, reference = draws(5, 60, 80)
    points = np.concatenate([points, np.repeat(points[:2], 40, axis=0)])
    known = prdc.compute_prdc(reference, points, 5)
    found = neighbours.prdc(points, reference, 5, dealt(len(points), 80))
    for name in neighbours.METRICS:
        assert found[name][-1] == pytest.approx(known[name], abs=1e-6)


def test_replicas_are_the_values_without_each_group(monkeypatch):
    points, reference = draws(6, 130, 150)
    points[:30] = points[0] + 1e-3 * points[:30]  # a clump: its neighbours of one group may not suffice at once
    groups = dealt(130, 150)
    groups[0][:30] = 7
    monkeypatch.setattr(neighbours, "_BLOCK", 1000)
    monkeypatch.setattr(neighbours, "_ROWS", 17)
    monkeypatch.setattr(neighbours, "_PAIRS", 100)
    found = neighbours.prdc(points, reference, 4, groups)
    found |= kid.kid_and_diversity(points, reference, groups)
    value, replicas = frechet.fid(points, reference, groups)
    found["fid"] = np.append(replicas, value)
    nobody = (np.full(130, 99), np.full(150, 99))
    for group in (0, 7, 19):
        left = [side[of != group] for side, of in zip((points, reference), groups, strict=True)]
        alone = neighbours.prdc(*left, 4, tuple(of[: len(side)] for of, side in zip(nobody, left, strict=True)))
        for name in neighbours.METRICS:
            assert found[name][group] == pytest.approx(alone[name][-1], abs=1e-12), name
        alone = kid.kid_and_diversity(*left, dealt(*(len(side) for side in left)))
        for name in ("kid", "diversity", "reference_diversity"):
            assert found[name][group] == pytest.approx(alone[name][-1], rel=1e-9), name
        assert found["fid"][group] == pytest.approx(frechet.fid(*left, None)[0], rel=1e-9)


def measured(seed, n, m, features, shift, scale):
    points, reference = draws(seed, n, m, features, shift, scale)
    found = neighbours.prdc(points, reference, 5, dealt(n, m))
    found |= kid.kid_and_diversity(points, reference, dealt(n, m))
    value, replicas = frechet.fid(points, reference, dealt(n, m))
    return found | {"fid": np.append(replicas, value)}


def test_the_jackknife_of_a_mean_is_students_interval_of_the_group_means():
    """Its closed form: the mean without group j is (g m - m_j) / (g - 1), and the variance that of m_j over g."""
    means = np.random.default_rng(10).normal(3.0, 2.0, 20)
    made = intervals.jackknife(means.mean(), (means.sum() - means) / 19)
    low, high = stats.t.interval(0.95, 19, means.mean(), stats.sem(means))
    assert (made.value, made.low, made.high) == pytest.approx((means.mean(), low, high), rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.4, 0.7)])
def test_intervals_of_the_jackknife_cover_the_truth(shift, scale):
    """The estimand is the metric at this n: its mean over many independent draws."""
    trials = [measured(seed, 240, 240, 4, shift, scale) for seed in range(120)]
    for name in ("fid", "kid", "diversity", "precision", "recall", "density", "coverage"):
        truth = np.mean([trial[name][-1] for trial in trials])
        made = [intervals.jackknife(trial[name][-1], trial[name][:-1]) for trial in trials]
        assert np.mean([one.low <= truth <= one.high for one in made]) >= 0.9, name


def test_intervals_over_repeats_cover_the_truth():
    rng = np.random.default_rng(7)
    made = [intervals.over_repeats(rng.normal(3.0, 2.0, 4)) for _ in range(2000)]
    assert np.mean([one.low <= 3 <= one.high for one in made]) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_wilson_covers_the_truth(share):
    counts = np.random.default_rng(8).binomial(200, share, 2000)
    made = [intervals.wilson(count, 200) for count in counts]
    assert np.mean([one.low <= share <= one.high for one in made]) >= 0.93


def test_a_bootstrap_would_not_do():
    """Why docs/method.md#intervals forbids it: the naive bootstrap of FID covers nothing."""
    rng = np.random.default_rng(9)
    truth = np.mean([frechet.fid(*draws(100 + i, 200, 200, 20, 0, 1), None)[0] for i in range(30)])
    covered = 0
    for seed in range(10):
        points, reference = draws(seed, 200, 200, 20, 0, 1)
        again = [
            frechet.fid(points[rng.integers(200, size=200)], reference[rng.integers(200, size=200)], None)[0]
            for _ in range(40)
        ]
        low, high = np.quantile(again, [0.025, 0.975])
        covered += low <= truth <= high
    assert covered == 0
