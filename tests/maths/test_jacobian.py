"""jacobian: against maps whose singular values are known, and dense float64 Jacobians."""

import itertools

import numpy as np
import pytest
import torch

from magnet_cli.errors import GeneratorError, SpecError
from magnet_cli.maths import jacobian
from magnet_cli.maths.jacobian import calibration, products, solvers
from magnet_cli.maths.jacobian.calibration import Candidate

torch.set_grad_enabled(True)


def affine(values, outputs, seed=0):
    """x = U diag(values) Vᵀ z + b, with random orthonormal U [outputs, D] and V [D, D]."""
    rng = np.random.default_rng(seed)
    dim = len(values)
    u = np.linalg.qr(rng.standard_normal((outputs, dim)))[0]
    v = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    matrix = torch.from_numpy(u @ np.diag(values) @ v.T)
    bias = torch.from_numpy(rng.standard_normal(outputs))
    return lambda z: z @ matrix.T.to(z) + bias.to(z)


SPECTRUM = 10.0 ** -np.arange(15)
BY = {  # every way to the singular values of a function at latents z, with the whole space of 15
    "exact": lambda f, z: solvers.exact(f, z, 15),
    "exact in slices": lambda f, z: solvers.exact(f, z, 15, chunk_size=4, slices=7),
    "pilot": lambda f, z: solvers.pilot(f, z, 15, torch.linalg.qr(random_tests(1, 15, 15)[0])[0], sweep=False),
    "pilot + sweep": lambda f, z: solvers.pilot(f, z, 15, torch.linalg.qr(random_tests(1, 15, 15)[0])[0], sweep=True),
    "sketch": lambda f, z: solvers.sketch(f, z, 15, random_tests(len(z), 15, 15)),
    "sketch, power 1": lambda f, z: solvers.sketch(f, z, 15, random_tests(len(z), 15, 15), power=1),
    "projection": lambda f, z: solvers.projection(f, z, 15, solvers.projection_rows(100)),
}


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("solver", BY)
def test_values_above_the_rank_floor_are_right_and_no_others_reach_it(solver, precision):
    latents = torch.randn(4, 15, dtype=jacobian.PRECISIONS[precision], generator=torch.Generator().manual_seed(1))
    values = BY[solver](affine(SPECTRUM, 100), latents).numpy()
    floor = jacobian.RANK_FLOOR[precision]
    above = floor * 0.99 < SPECTRUM
    np.testing.assert_allclose(values[:, above], np.tile(SPECTRUM[above], (4, 1)), rtol=0.02)
    assert (values[:, ~above] < floor * values[:, :1]).all()


@pytest.mark.parametrize("solver", ["exact", "pilot", "sketch"])
def test_without_a_factorisation_nothing_is_seen_below_1e_7(solver):
    """Volumes that were begun so go on so: their rows are of one kind."""
    latents = torch.randn(4, 15, dtype=torch.float64)
    values = {
        "exact": lambda f: solvers.exact(f, latents, 15, factored=False),
        "pilot": lambda f: solvers.pilot(
            f, latents, 15, torch.eye(15, dtype=torch.float64), sweep=False, factored=False
        ),
        "sketch": lambda f: solvers.sketch(f, latents, 15, random_tests(4, 15, 15), factored=False),
    }[solver](affine(SPECTRUM, 100)).numpy()
    np.testing.assert_allclose(values[:, :6], np.tile(SPECTRUM[:6], (4, 1)), rtol=0.01)
    assert (abs(values[:, 9:] / SPECTRUM[9:] - 1) > 0.2).any(axis=1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_few_outputs_take_their_rows_alone(dtype, monkeypatch):
    """M reverse products in the place of D forward ones, and nothing of D × D numbers."""
    monkeypatch.setattr(solvers, "forward", None)
    function = affine(np.array([5.0, 2.0, 1e-3]), 40)
    matrix = function(torch.eye(3, dtype=torch.float64)).T - function(torch.zeros(1, 3, dtype=torch.float64)).T
    latents = torch.randn(2, 40, dtype=dtype)
    values = jacobian.exact(lambda z: torch.tanh(0 * z @ matrix.to(z)) + z @ matrix.to(z), latents, 5)
    np.testing.assert_allclose(values, [[5, 2, 1e-3, 0, 0]] * 2, rtol=1e-3 if dtype == torch.float32 else 1e-9)
    wide = torch.zeros(1, 20_000, dtype=dtype)  # D × D numbers would take 3 GB
    assert jacobian.exact(lambda z: z[:, :2] * 3, wide, 1).tolist() == [[3.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_affine_map_gives_its_singular_values(dtype):
    known = np.array([9.0, 4.0, 1.0, 0.1, 0.01])
    latents = torch.randn(7, 5, dtype=dtype, generator=torch.Generator().manual_seed(1))
    found = jacobian.exact(affine(known, 50), latents, 5)
    assert found.dtype == torch.float64
    assert found.shape == (7, 5)
    # float32 products are right to about 1e-7 of the largest value
    np.testing.assert_allclose(found, np.tile(known, (7, 1)), rtol=1e-4 if dtype == torch.float32 else 1e-10)


def relu_network(widths, seed=0):
    torch.manual_seed(seed)
    layers = []
    for n_in, n_out in itertools.pairwise(widths):
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1]).to(torch.float64).requires_grad_(False)


@pytest.mark.parametrize("chunk_size", [None, 1, 4])
def test_relu_network_equals_dense_float64(dense, chunk_size):
    network = relu_network((6, 32, 32, 20))
    latents = torch.randn(9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = jacobian.exact(network, latents, 6, chunk_size)
    np.testing.assert_allclose(found, dense(network, latents), rtol=1e-7)


def test_each_row_is_its_own(dense):
    """A latent's values do not depend on which others are in the batch."""
    network = relu_network((4, 16, 12))
    latents = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    alone = torch.cat([jacobian.exact(network, z[None], 4) for z in latents])
    torch.testing.assert_close(jacobian.exact(network, latents, 4), alone, rtol=1e-12, atol=0)


def test_image_shaped_output_and_leading_values(toy_generator, dense):
    latents = torch.randn(3, 5, generator=torch.Generator().manual_seed(4))
    full = jacobian.exact(toy_generator, latents, 5)
    assert torch.equal(jacobian.exact(toy_generator, latents, 2), full[:, :2])
    assert (full.diff(dim=1) <= 0).all()


def test_rank_deficient_map_has_zeros_below_the_floor():
    known = np.array([3.0, 2.0, 0.0, 0.0])
    latents = torch.randn(2, 4, dtype=torch.float32)
    found = jacobian.exact(affine(known, 30), latents, 4)
    assert (found[:, 2:] < jacobian.RANK_FLOOR["float32"] * found[:, :1]).all()


def test_one_latent_and_one_pixel(dense):
    latents = torch.tensor([[0.3], [-1.2]], dtype=torch.float64)
    np.testing.assert_allclose(jacobian.exact(lambda z: z**3, latents, 1), 3 * latents**2)
    wide = torch.randn(2, 3, dtype=torch.float64)
    one_pixel = jacobian.exact(lambda z: z.sum(dim=1), wide, 3)
    np.testing.assert_allclose(one_pixel[:, 0], np.sqrt(3))
    assert (one_pixel[:, 1:] < 1e-7).all()


@pytest.mark.parametrize("top_k", [0, 6, -1])
def test_top_k_out_of_range(toy_generator, top_k):
    with pytest.raises(SpecError, match=r"outside 1\.\.5"):
        jacobian.exact(toy_generator, torch.randn(1, 5), top_k)


def test_a_function_that_cannot_be_differentiated():
    class Opaque(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            return z.clone()

    with pytest.raises(GeneratorError, match="cannot be differentiated"):
        jacobian.exact(Opaque.apply, torch.randn(1, 3), 3)


def test_a_function_without_forward_mode():
    class OneWay(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            return 2 * z

        @staticmethod
        def backward(ctx, grad):
            return 2 * grad

    assert jacobian.exact(OneWay.apply, torch.randn(1, 3), 3).tolist() == [[2, 2, 2]]


# --- products ------------------------------------------------------------------------------------------------------


def test_products_equal_the_dense_jacobian():
    network = relu_network((5, 16, 7))
    latents = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    dense_jacobians = torch.func.vmap(torch.func.jacrev(network))(latents)
    tangents = torch.randn(3, 5, dtype=torch.float64)
    torch.testing.assert_close(products.forward(network, latents, tangents), tangents @ dense_jacobians.mT)
    own = torch.randn(3, 4, 5, dtype=torch.float64)
    expected = torch.einsum("tbd,bmd->btm", own, dense_jacobians)
    torch.testing.assert_close(products.forward(network, latents, own, chunk_size=2), expected)
    cotangents = torch.randn(3, 7, dtype=torch.float64)
    torch.testing.assert_close(products.reverse(network, latents, cotangents), cotangents @ dense_jacobians)


# --- solvers -------------------------------------------------------------------------------------------------------


def wide_network():
    """24 latents of fast falling strength to 200 numbers, by way of ReLUs."""
    network = relu_network((24, 64, 200), seed=3)
    network[0].weight.mul_(torch.logspace(0, -2, 24, dtype=torch.float64))
    return network


@pytest.fixture(scope="module")
def wide():
    network = wide_network()
    latents = torch.randn(72, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    return network, latents, solvers.gram(network, latents)


def random_tests(count, size, dim=24):
    return torch.randn(count, dim, size, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


def test_gram_by_columns_is_the_gram_in_2d_products(wide, monkeypatch):
    network, latents, grams = wide
    counts = {"forward": 0, "reverse": 0}

    def counted(kind, real):
        def call(function, z, vectors, chunk_size=None):
            counts[kind] += len(vectors)
            return real(function, z, vectors, chunk_size)

        return call

    monkeypatch.setattr(solvers, "forward", counted("forward", products.forward))
    monkeypatch.setattr(solvers, "reverse", counted("reverse", products.reverse))
    found = solvers.gram_by_columns(network, latents[:3], chunk_size=5)
    assert counts == {"forward": 24, "reverse": 24}
    torch.testing.assert_close(found, grams[:3], rtol=1e-5, atol=1e-12)


def test_solvers_with_the_whole_space_are_exact(wide):
    network, latents, _ = wide
    truth = solvers.exact(network, latents[:5], 24)
    whole = torch.linalg.qr(torch.randn(24, 24, dtype=torch.float64))[0]
    for found in (
        solvers.pilot(network, latents[:5], 24, whole, sweep=False),
        solvers.pilot(network, latents[:5], 24, whole, sweep=True),
        solvers.sketch(network, latents[:5], 24, random_tests(5, 24)),
        solvers.projection(network, latents[:5], 24, torch.linalg.qr(torch.randn(200, 200, dtype=torch.float64))[0]),
    ):
        torch.testing.assert_close(found, truth, rtol=1e-6, atol=1e-9)


def test_a_range_of_the_right_rank_is_enough():
    """A map of rank 3 is caught whole by any three test vectors, and the rest is zero, not noise."""
    function = affine(np.array([5.0, 2.0, 1.0, 0.0, 0.0, 0.0]), 40)
    latents = torch.randn(2, 6, dtype=torch.float64)
    found = solvers.sketch(function, latents, 4, random_tests(2, 4, dim=6))
    np.testing.assert_allclose(found[:, :3], [[5, 2, 1]] * 2, rtol=1e-8)
    assert (found[:, 3] < 1e-6).all()


def test_more_products_come_closer(wide):
    network, latents, _ = wide
    truth = solvers.exact(network, latents[:20], 6).log().sum(dim=1)
    basis = calibration.pilot_basis(solvers.gram(network, latents[40:]))

    def rms(values):
        return calibration.errors(values.log().sum(dim=1), truth)[0]

    forward = [rms(solvers.pilot(network, latents[:20], 6, basis[:, :m], sweep=False)) for m in (6, 10, 16)]
    swept = [rms(solvers.pilot(network, latents[:20], 6, basis[:, :m], sweep=True)) for m in (6, 10, 16)]
    drawn = [rms(solvers.sketch(network, latents[:20], 6, random_tests(20, m))) for m in (6, 10, 16)]
    powered = [rms(solvers.sketch(network, latents[:20], 6, random_tests(20, m), power=1)) for m in (6, 10, 16)]
    for errors in (forward, swept, drawn, powered):
        assert errors[0] > errors[1] > errors[2]
    assert all(s < f for s, f in zip(swept, forward, strict=True))
    assert all(p < d for p, d in zip(powered, drawn, strict=True))


def test_projection_is_the_published_algorithm(wide):
    network, latents, _ = wide
    rows = solvers.projection_rows(200, seed=0)
    torch.testing.assert_close(rows @ rows.T, torch.eye(128), rtol=0, atol=1e-5)
    assert torch.equal(rows, solvers.projection_rows(200, seed=0))
    found = solvers.projection(network, latents[:2], 5, rows)
    dense_jacobians = torch.func.vmap(torch.func.jacrev(network))(latents[:2])
    known = torch.linalg.svdvals(rows.to(torch.float64) @ dense_jacobians)[:, :5]
    torch.testing.assert_close(found, known)


# --- calibration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "candidate",
    [
        Candidate("exact", 24),
        Candidate("pilot", 9),
        Candidate("pilot", 9, sweep=True),
        Candidate("sketch", 9),
        Candidate("sketch", 9, power=1),
    ],
    ids=str,
)
def test_predictions_equal_the_solvers(wide, candidate):
    """What a solver will give is known from JᵀJ, without a product."""
    network, latents, grams = wide
    basis = calibration.pilot_basis(grams[40:])
    drawn = random_tests(6, 24)
    found = calibration.predicted(candidate, grams[:6], 6, basis, drawn)
    m = candidate.size
    real = {
        "exact": lambda: solvers.exact(network, latents[:6], 6),
        "pilot": lambda: solvers.pilot(network, latents[:6], 6, basis[:, :m], sweep=candidate.sweep),
        "sketch": lambda: solvers.sketch(network, latents[:6], 6, drawn[:, :, :m], power=candidate.power),
    }[candidate.solver]()
    torch.testing.assert_close(found, real.log().sum(dim=1), rtol=1e-6, atol=1e-6)


def test_errors_have_no_offset():
    truth = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    assert calibration.errors(truth + 5, truth) == pytest.approx((0, 0))
    assert calibration.errors(truth + torch.tensor([0.0, 0.0, 3.0]), truth) == pytest.approx((2**0.5, 2))


def test_smallest_is_the_smallest():
    rms = lambda c: 1 / c.size  # noqa: E731
    kind = lambda m: Candidate("pilot", m)  # noqa: E731
    assert calibration.smallest(kind, 3, 100, 0.05, rms) == Candidate("pilot", 20)
    assert calibration.smallest(kind, 30, 100, 0.05, rms) == Candidate("pilot", 30)
    assert calibration.smallest(kind, 3, 20, 0.05, rms) is None
    assert calibration.smallest(kind, 20, 20, 0.5, rms) is None


def test_products_are_counted():
    counts = {Candidate("exact", 24): 24, Candidate("pilot", 9): 9, Candidate("pilot", 9, sweep=True): 18}
    counts |= {Candidate("sketch", 9): 18, Candidate("sketch", 9, power=1): 36, Candidate("projection", 128): 128}
    for candidate, count in counts.items():
        assert candidate.products == count
