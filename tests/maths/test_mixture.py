"""The Gaussian mixture against scipy's densities, its own parameters, and the chi-square distribution."""

import numpy as np
import pytest
from scipy import stats

from magnet_cli.errors import SpecError
from magnet_cli.maths.mixture import Mixture


@pytest.fixture
def mixture():
    rng = np.random.default_rng(0)
    factors = np.tril(rng.normal(size=(3, 4, 4)) * 0.3) + np.eye(4)
    factors[:, range(4), range(4)] = np.abs(factors[:, range(4), range(4)])
    return Mixture(np.array([0.2, 0.5, 0.3]), rng.normal(size=(3, 4)) * 3, factors)


def test_densities_are_those_of_scipy(mixture):
    z = np.random.default_rng(1).normal(size=(50, 4)) * 2
    normals = [stats.multivariate_normal(m, f @ f.T) for m, f in zip(mixture.means, mixture.factors, strict=True)]
    each = np.stack([np.log(w) + n.logpdf(z) for w, n in zip(mixture.weights, normals, strict=True)], axis=1)
    np.testing.assert_allclose(mixture.log_densities(z), each, rtol=1e-10)
    np.testing.assert_allclose(mixture.log_density(z), np.log(np.exp(each).sum(axis=1)), rtol=1e-10)


def test_draws_have_the_weights_means_and_covariances(mixture):
    z, labels = mixture.draw(np.random.default_rng(2), 60_000)
    assert (z.dtype, labels.dtype) == (np.float32, np.int64)
    np.testing.assert_allclose(np.bincount(labels) / len(labels), mixture.weights, atol=0.008)
    for c in range(3):
        np.testing.assert_allclose(z[labels == c].mean(axis=0), mixture.means[c], atol=0.05)
        covariance = mixture.factors[c] @ mixture.factors[c].T
        np.testing.assert_allclose(np.cov(z[labels == c].T), covariance, atol=0.08)


def test_fewer_rows_are_a_prefix_and_labels_choose_components(mixture):
    long, short = (mixture.draw(np.random.default_rng(3), n, (2, 0)) for n in (500, 70))
    np.testing.assert_array_equal(long[0][:70], short[0])
    np.testing.assert_array_equal(long[1][:70], short[1])
    assert set(long[1]) == {0, 2}
    assert abs((long[1] == 2).mean() - 0.6) < 0.08
    some = mixture.of((2, 0))
    np.testing.assert_allclose(some.weights, [0.6, 0.4])
    assert mixture.of(()) is mixture


def test_the_region_of_one_component_is_the_chi_square_ellipsoid():
    one = Mixture(np.ones(1), np.zeros((1, 5)), np.eye(5)[None])
    edge = stats.multivariate_normal(np.zeros(5)).logpdf(np.zeros(5)) - stats.chi2(5).ppf(0.9) / 2
    assert one.lowest(0.9) == pytest.approx(edge, abs=0.05)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weights", np.array([0.5, 0.6])),
        ("weights", np.array([1.0, 0.0])),
        ("means", np.zeros((2, 4))),
        ("means", np.full((2, 3), np.nan)),
        ("factors", np.ones((2, 3, 3))),
        ("factors", -np.eye(3)[None].repeat(2, axis=0)),
    ],
)
def test_what_is_no_mixture_is_refused(name, value):
    fields = {"weights": np.array([0.5, 0.5]), "means": np.zeros((2, 3)), "factors": np.eye(3)[None].repeat(2, axis=0)}
    Mixture(**fields)
    with pytest.raises(SpecError, match="no Gaussian mixture"):
        Mixture(**fields | {name: value})
