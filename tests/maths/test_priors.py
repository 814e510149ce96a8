"""priors: latents and labels are functions of their stream alone, of the distribution that the kind names."""

import math

import numpy as np
import pytest
from scipy import stats
from toys import some_mixture

from magnet_cli.errors import SpecError
from magnet_cli.maths.priors import KINDS, SPHERES, Prior, labels_in_turn, on_sphere

PLAIN = [kind for kind in KINDS if kind != "mixture"]


def prior_of(kind, latent_dim=7, num_classes=0):
    return Prior.of_mixture(some_mixture(3, latent_dim)) if kind == "mixture" else Prior(kind, latent_dim, num_classes)


# --- streams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_latents_of_a_shard_depend_on_seed_and_shard_alone(kind):
    prior = prior_of(kind)
    drawn, labels = prior.draw_shard(3, 5, 100)
    fewer, few_labels = prior.draw_shard(3, 5, 40)
    assert (drawn.shape, drawn.dtype) == ((100, 7), np.float32)
    np.testing.assert_array_equal(fewer, drawn[:40])
    assert (labels is None) == (few_labels is None) == (kind != "mixture")
    if labels is not None:
        np.testing.assert_array_equal(few_labels, labels[:40])
        assert (labels.shape, labels.dtype) == ((100,), np.int64)
    assert not np.array_equal(prior.draw_shard(3, 6, 100)[0], drawn)
    assert not np.array_equal(prior.draw_shard(4, 5, 100)[0], drawn)
    np.testing.assert_array_equal(prior.draw(100, np.random.default_rng([3, 5]))[0], drawn)


def test_streams_are_those_of_every_volume_so_far():
    """What stands in volumes of earlier versions: numpy's streams, written out."""
    normal = np.random.default_rng([3, 5]).standard_normal((60, 4), dtype=np.float32)
    length = np.linalg.norm(normal.astype(np.float64), axis=1, keepdims=True)
    uniform = 2 * np.random.default_rng([3, 5]).random((60, 4), dtype=np.float32) - 1
    within = normal.ravel()[np.abs(normal.ravel()) <= 2]
    np.testing.assert_array_equal(Prior("normal", 4).draw_shard(3, 5, 60)[0], normal)
    np.testing.assert_array_equal(Prior("uniform", 4).draw_shard(3, 5, 60)[0], uniform)
    np.testing.assert_array_equal(
        Prior("sphere", 4).draw_shard(3, 5, 60)[0], (normal * (2 / length)).astype(np.float32)
    )
    truncated = Prior("truncated-normal", 4).draw_shard(3, 5, 60)[0].ravel()
    np.testing.assert_array_equal(truncated[: len(within)], within)
    latents, components = Prior.of_mixture(some_mixture()).draw_shard(3, 5, 60)
    known = some_mixture().draw(np.random.default_rng([3, 5]), 60)
    np.testing.assert_array_equal(latents, known[0])
    np.testing.assert_array_equal(components, known[1])


# --- labels ---------------------------------------------------------------------------------------------------------


def test_labels_take_turns():
    assert labels_in_turn((5, 2, 9), 7, 4).tolist() == [2, 9, 5, 2, 9, 5, 2]
    assert labels_in_turn((1, 1, 0), 4).tolist() == [1, 1, 0, 1]  # as often as they are named
    assert labels_in_turn((4,), 3, 10**12).dtype == np.int64


@pytest.mark.parametrize("kind", PLAIN)
def test_labels_of_conditional_generators_take_turns_and_leave_the_latents_as_they_are(kind):
    plain, _ = prior_of(kind).draw_shard(0, 0, 10)
    latents, labels = prior_of(kind, num_classes=4).draw_shard(0, 0, 10)
    assert labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    np.testing.assert_array_equal(latents, plain)
    assert prior_of(kind, num_classes=4).draw_shard(0, 0, 5, (3, 1), 7)[1].tolist() == [1, 3, 1, 3, 1]
    assert prior_of(kind).draw_shard(0, 0, 5)[1] is None


def test_labels_of_a_mixture_are_the_components_of_the_latents():
    mixture = some_mixture()
    latents, labels = Prior.of_mixture(mixture).draw(40_000, seed=0)
    assert stats.chisquare(np.bincount(labels), 40_000 * mixture.weights).pvalue > 1e-3
    for c in range(3):
        white = np.linalg.solve(mixture.factors[c], (latents[labels == c] - mixture.means[c]).T)
        assert stats.kstest(white.ravel(), "norm").pvalue > 1e-3
    _, some = Prior.of_mixture(mixture).draw(40_000, 0, (2, 0), first=5)
    assert stats.chisquare(np.bincount(some)[[0, 2]], 40_000 * np.array([1, 3]) / 4).pvalue > 1e-3


# --- distributions --------------------------------------------------------------------------------------------------


MARGINALS = {
    "normal": stats.norm(),
    "truncated-normal": stats.truncnorm(-2, 2),
    "uniform": stats.uniform(-1, 2),
    "sphere": stats.beta(
        3, 3, loc=-math.sqrt(7), scale=2 * math.sqrt(7)
    ),  # of a coordinate on |z| = √7 in 7 dimensions
}
MARGINALS["fixed-length"] = MARGINALS["sphere"]


@pytest.mark.parametrize("kind", PLAIN)
def test_latents_are_of_the_distribution(kind):
    z = prior_of(kind).draw(30_000, seed=1)[0].astype(np.float64)
    for i in range(7):
        assert stats.kstest(z[:, i], MARGINALS[kind].cdf).pvalue > 1e-4
    error = 5 / math.sqrt(30_000)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=error)
    np.testing.assert_allclose(np.cov(z.T), MARGINALS[kind].var() * np.eye(7), atol=2 * error)


def test_bounds():
    z, _ = Prior("sphere", 7).draw(1000, seed=2)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), math.sqrt(7), rtol=1e-6)
    np.testing.assert_allclose(on_sphere(3 * z), z, rtol=1e-6)
    assert 1.9 < np.abs(Prior("truncated-normal", 7).draw(1000, seed=2)[0]).max() <= 2
    assert 0.99 < np.abs(Prior("uniform", 7).draw(1000, seed=2)[0]).max() <= 1


# --- densities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_log_densities_are_the_closed_forms_up_to_a_constant(kind):
    prior = prior_of(kind)
    z, _ = prior.draw(500, seed=3)
    found = prior.log_density(z)
    assert (found.shape, found.dtype) == ((500,), np.float64)
    wide = z.astype(np.float64)
    if kind == "mixture":
        mixture = prior.mixture
        each = [
            weight * stats.multivariate_normal(mean, factor @ factor.T).pdf(wide)
            for weight, mean, factor in zip(mixture.weights, mixture.means, mixture.factors, strict=True)
        ]
        np.testing.assert_allclose(found, np.log(np.sum(each, axis=0)), rtol=1e-9)  # with its constant
        return
    # On the sphere a uniform distribution is von Mises–Fisher's without a direction: the same density everywhere.
    known = np.zeros(500) if kind in SPHERES else MARGINALS[kind].logpdf(wide).sum(axis=1)
    np.testing.assert_allclose(found - found[0], known - known[0], atol=1e-9)
    assert prior.is_even == (np.ptp(found) == 0) == (kind in {*SPHERES, "uniform"})


def test_a_normal_density_is_its_exponent_alone():
    z = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    constant = 1.5 * math.log(2 * math.pi)
    found = Prior("normal", 3).log_density(z)
    np.testing.assert_allclose(found - constant, stats.multivariate_normal(np.zeros(3)).logpdf(z), rtol=1e-9)


# --- what it refuses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (("cauchy", 3), "none of normal"),
        (("mixture", 4, 3), "given no mixture"),
        (("normal", 4, 3, some_mixture()), "given a mixture"),
        (("mixture", 4, 2, some_mixture()), "3 components in 4 dimensions"),
        (("mixture", 5, 3, some_mixture()), "3 components in 4 dimensions"),
    ],
)
def test_fields_that_do_not_fit(fields, said):
    with pytest.raises(SpecError, match=said):
        Prior(*fields)
