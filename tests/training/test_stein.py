"""The gradients of a mixture prior by Stein's lemma against closed forms and differences; steps that stay definite."""

import numpy as np
import pytest
import torch
from scipy import stats

from magnet_cli.maths.mixture import Mixture
from magnet_cli.training.slogan import stein
from magnet_cli.training.slogan.stein import Explicit, LearnedMixture, Rates

K, D = 3, 4


def random_prior(seed=0, components=K, latent_dim=D):
    """A mixture whose components overlap, of different shapes and weights."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, dtype=torch.float64, generator=rng)

    factors = torch.tril(0.3 * normal(components, latent_dim, latent_dim), -1)
    factors += torch.diag_embed(0.5 + normal(components, latent_dim).abs())
    return LearnedMixture(0.5 * normal(components), normal(components, latent_dim), factors)


class Quadratic:
    """ℓ(z) = ½ zᵀAz + bᵀz + c: under N(μ, Σ) its mean is ½ tr AΣ + ½ μᵀAμ + bᵀμ + c."""

    def __init__(self, seed=1):
        rng = torch.Generator().manual_seed(seed)
        a = torch.randn(D, D, dtype=torch.float64, generator=rng)
        self.a, self.b = (a + a.T) / 2, torch.randn(D, dtype=torch.float64, generator=rng)

    def value(self, z):
        return 0.5 * torch.einsum("ni,ij,nj->n", z, self.a, z) + z @ self.b + 7

    def slope(self, z):
        return z @ self.a + self.b

    def means(self, means, covariances):
        traces = torch.einsum("ij,kji->k", self.a, covariances)
        return 0.5 * traces + 0.5 * torch.einsum("ki,ij,kj->k", means, self.a, means) + means @ self.b + 7


class Wave:
    """ℓ(z) = cos(wᵀz + 0.4): under N(μ, Σ) its mean is exp(−½ wᵀΣw) cos(wᵀμ + 0.4)."""

    w = torch.tensor([0.7, -0.4, 0.9, 0.3], dtype=torch.float64)

    def value(self, z):
        return torch.cos(z @ self.w + 0.4)

    def slope(self, z):
        return -torch.sin(z @ self.w + 0.4)[:, None] * self.w

    def means(self, means, covariances):
        damped = torch.exp(-0.5 * torch.einsum("i,kij,j->k", self.w, covariances, self.w))
        return damped * torch.cos(means @ self.w + 0.4)


def expectation(loss, logits, means, covariances):
    return logits.softmax(0) @ loss.means(means, covariances)


def differences(loss, prior, step=1e-5):
    """Gradients of the exact expectation by central differences; of Σ along symmetric changes, each entry its own."""
    parts = [prior.logits, prior.means, prior.covariances]
    found = []
    for which, part in enumerate(parts):
        gradient = torch.zeros_like(part)
        for place in np.ndindex(*part.shape):
            change = torch.zeros_like(part)
            change[place] += 0.5
            change[(*place[:-2], *place[:-3:-1]) if which == 2 else place] += 0.5
            ends = []
            for sign in (1, -1):
                moved = list(parts)
                moved[which] = part + sign * step * change
                ends.append(expectation(loss, *moved))
            gradient[place] = (ends[0] - ends[1]) / (2 * step)
        found.append(gradient)
    return found


def estimates(prior, loss, seed, count):
    rng = torch.Generator().manual_seed(seed)
    z, _ = prior.draw(count, rng)
    found = stein.gradients(prior, z, loss.slope(z), loss.value(z))
    return [found.logits, found.means, found.covariances]


def test_differences_of_the_expectation_are_the_closed_form_of_a_quadratic():
    """The reference itself, held against what can be written down."""
    prior, loss = random_prior(), Quadratic()
    pi, per = prior.weights, loss.means(prior.means, prior.covariances)
    exact = [pi * (per - pi @ per), pi[:, None] * (prior.means @ loss.a + loss.b), pi[:, None, None] * loss.a / 2]
    for one, other in zip(differences(loss, prior), exact, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("loss", [Quadratic(), Wave()], ids=["quadratic", "wave"])
def test_gradients_are_unbiased(loss):
    """Over 200 seeds each entry is within Monte Carlo error of the exact gradient, in small batches and large ones."""
    prior = random_prior()
    exact = differences(loss, prior)
    for count in (8, 400):
        drawn = [estimates(prior, loss, seed, count) for seed in range(200)]
        for part, truth in zip(zip(*drawn, strict=True), exact, strict=True):
            values = torch.stack(part)
            error = (values.mean(0) - truth) / (values.std(0) / len(values) ** 0.5)
            assert error.abs().max() < 4.2
            assert error.square().mean() < 2.5  # and together they are no further than chance has them


@pytest.mark.slow
def test_gradients_are_near_the_truth_with_many_draws():
    prior, loss = random_prior(), Wave()
    for one, truth in zip(estimates(prior, loss, 0, 400_000), differences(loss, prior), strict=True):
        assert (one - truth).norm() < 0.1 * truth.norm()


def test_the_test_would_see_a_wrong_estimator():
    """Without the half in the gradient of Σ the errors are far outside."""
    prior, loss = random_prior(), Quadratic()
    exact = differences(loss, prior)[2]
    values = torch.stack([2 * estimates(prior, loss, seed, 400)[2] for seed in range(50)])
    error = (values.mean(0) - exact) / (values.std(0) / 50**0.5)
    assert error.abs().max() > 10


def test_a_constant_loss_moves_nothing():
    prior = random_prior()
    z, _ = prior.draw(50, torch.Generator().manual_seed(0))
    found = stein.gradients(prior, z, torch.zeros_like(z), torch.full((50,), 1e6, dtype=torch.float64))
    assert found.means.abs().max() == found.covariances.abs().max() == 0
    assert found.logits.abs().max() < 1e-9


@pytest.mark.slow
def test_covariances_stay_positive_definite_over_10_000_random_steps():
    rng = torch.Generator().manual_seed(0)
    factors, lengths = random_prior(2).factors, torch.Generator().manual_seed(1)
    for _ in range(10_000):
        gradient = torch.randn(K, D, D, dtype=torch.float64, generator=rng)
        rate = float(10 ** (4 * torch.rand(1, generator=lengths) - 3.5))  # 0.0003 to 3: from tiny to absurd
        factors = stein.covariance_step(factors, (gradient + gradient.mT) / 2, rate)
        covariances = factors @ factors.mT
        covariances = covariances / covariances.diagonal(dim1=1, dim2=2).amax(1)[:, None, None]
        factors = torch.linalg.cholesky(covariances)  # raises where it is not
        assert torch.isfinite(factors).all()
    assert (torch.linalg.eigvalsh(factors @ factors.mT) > 0).all()


def test_steps_of_a_trainings_length_stay_definite_without_rescaling():
    rng = torch.Generator().manual_seed(3)
    factors = random_prior(4, 4, 8).factors
    for _ in range(2_000):
        gradient = torch.randn(4, 8, 8, dtype=torch.float64, generator=rng)
        factors = stein.covariance_step(factors, (gradient + gradient.mT) / 2, 0.01)
    assert torch.isfinite(factors).all()
    assert (factors.diagonal(dim1=1, dim2=2) > 0).all()
    assert torch.equal(factors, factors.tril())


def test_a_first_order_step_would_leave_them():
    """So that the two tests above can fail: the same steps without the second-order term."""
    rng, covariance = torch.Generator().manual_seed(3), torch.eye(D, dtype=torch.float64)
    smallest = []
    for _ in range(1000):
        gradient = torch.randn(D, D, dtype=torch.float64, generator=rng)
        covariance = covariance - 0.1 * (gradient + gradient.T) / 2
        smallest.append(float(torch.linalg.eigvalsh(covariance)[0]))
    assert min(smallest) < 0


def test_the_step_is_the_papers():
    prior = random_prior(5)
    rng = torch.Generator().manual_seed(0)
    gradient = torch.randn(K, D, D, dtype=torch.float64, generator=rng)
    gradient, rate = (gradient + gradient.mT) / 2, 0.3
    down = -gradient
    second = down + rate / 2 * down @ torch.linalg.inv(prior.covariances) @ down
    found = stein.covariance_step(prior.factors, gradient, rate)
    torch.testing.assert_close(found @ found.mT, prior.covariances + rate * second)


def test_draws_are_of_the_mixture():
    prior = random_prior()
    z, components = prior.draw(100_000, torch.Generator().manual_seed(0))
    assert stats.chisquare(np.bincount(components), 100_000 * prior.weights.numpy()).pvalue > 1e-3
    for c in range(K):
        white = prior.whitened(z[components == c])[c].numpy()
        assert stats.kstest(white.ravel(), "norm").pvalue > 1e-3
        assert stats.kstest(np.square(white).sum(0), "chi2", (D,)).pvalue > 1e-3


def test_densities_are_those_of_scipy_in_torch_and_in_numpy():
    prior = random_prior()
    z = 2 * torch.randn(50, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    each = [stats.multivariate_normal(prior.means[c], prior.covariances[c]).logpdf(z) for c in range(K)]
    truth = np.stack(each, axis=1) + prior.weights.log().numpy()
    ours = prior.log_densities(z).numpy()
    assert np.ptp(truth - ours) < 1e-10  # up to one constant
    mixture = Mixture(prior.weights.numpy(), prior.means.numpy(), prior.factors.numpy())
    np.testing.assert_allclose(mixture.log_densities(z.numpy()), truth, atol=1e-10)
    np.testing.assert_allclose(mixture.log_density(z.numpy()), np.log(np.exp(truth).sum(1)), atol=1e-10)


def test_assignments_follow_the_responsibilities():
    prior = random_prior()
    z = prior.draw(1, torch.Generator().manual_seed(0))[0].expand(20_000, -1)
    chosen = stein.assigned(prior, z, 0.01, torch.Generator().manual_seed(1))
    torch.testing.assert_close(chosen.sum(1), torch.ones(20_000, dtype=torch.float64))
    assert (chosen.amax(1) > 0.99).double().mean() > 0.9
    expected = prior.log_densities(z[:1]).softmax(1)[0] * 20_000
    assert stats.chisquare(torch.bincount(chosen.argmax(1), minlength=K).numpy(), expected.numpy()).pvalue > 1e-3


def test_the_explicit_ablation_has_the_same_means_gradient_and_stays_definite():
    """Reparameterised gradients of μ are unbiased too; the logits' are those of the straight-through estimator."""
    prior, loss, rates = random_prior(), Quadratic(), Rates(1.0, 1.0, 0.1)
    moved = []
    for seed in range(300):
        explicit = Explicit(prior, 64, 0.1, torch.Generator().manual_seed(seed))
        z = explicit.z.detach()
        after = explicit.step(loss.slope(z), loss.slope(z), rates)
        assert (after.factors.diagonal(dim1=1, dim2=2) > 0).all()
        assert torch.isfinite(after.logits).all()
        moved.append(prior.means - after.means)
    values = torch.stack(moved)
    error = (values.mean(0) - differences(loss, prior)[1]) / (values.std(0) / 300**0.5)
    assert error.abs().max() < 4.2


def test_no_global_random_state_is_used():
    before = torch.get_rng_state()
    prior = LearnedMixture.first(K, D, 1.0, torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(1)
    z, _ = prior.draw(10, rng)
    stein.assigned(prior, z, 0.1, rng)
    Explicit(prior, 10, 0.1, rng)
    assert torch.equal(before, torch.get_rng_state())
