"""singular_values of any torch function, against the dense float64 Jacobian by reverse mode and a full SVD."""

import numpy as np
import pytest
import torch

from magnet_cli.errors import GeneratorError, SpecError
from magnet_cli.maths.jacobian import singular_values

D = 12


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers = (torch.nn.Linear(D, 40), torch.nn.GELU(), torch.nn.Linear(40, 60), torch.nn.Tanh())
    return torch.nn.Sequential(*layers).eval()  # its weights take gradients, as those of a user's do


@pytest.fixture
def z():
    return torch.randn(7, D, generator=torch.Generator().manual_seed(1))


def truth(network, dense, z):
    return dense(network.to(torch.float64), z.numpy())


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_exact_values_are_those_of_the_dense_jacobian(network, z, dense, dtype, error):
    values = singular_values(network.to(dtype), z.to(dtype), top_k=5)
    assert (values.shape, values.dtype, values.requires_grad) == ((7, 5), torch.float64, False)
    np.testing.assert_allclose(values, truth(network, dense, z)[:, :5], rtol=error)


@pytest.mark.parametrize("sizes", [{"batch_size": 1}, {"batch_size": 3}, {"chunk_size": 4}])
@pytest.mark.parametrize("solver", ["exact", "sketch"])
def test_batches_change_nothing_but_rounding(network, z, solver, sizes):
    """The test matrix of a row is a function of its number, not of the batch that it is in."""
    whole = singular_values(network, z, 3, solver=solver, size=4 if solver == "sketch" else None)
    cut = singular_values(network, z, 3, solver=solver, size=4 if solver == "sketch" else None, **sizes)
    np.testing.assert_allclose(cut, whole, rtol=1e-4)


def test_a_sketch_of_all_directions_is_exact_and_a_small_one_close(network, z, dense):
    exact = truth(network, dense, z)
    z = z.to(torch.float64)
    np.testing.assert_allclose(singular_values(network, z, D, solver="sketch"), exact, rtol=1e-7)
    small = singular_values(network, z, 2, solver="sketch", size=6, power=3)
    np.testing.assert_allclose(small, exact[:, :2], rtol=0.02)
    assert (small <= torch.from_numpy(exact[:, :2]) * (1 + 1e-9)).all()
    assert not torch.equal(small, singular_values(network, z, 2, solver="sketch", size=6, power=3, seed=1))


def test_the_projection_of_few_outputs_is_a_rotation(network, z, dense):
    """With at most 128 outputs W is square and orthonormal: W J has the singular values of J."""
    values = singular_values(network.to(torch.float64), z.to(torch.float64), 4, solver="projection")
    np.testing.assert_allclose(values, truth(network, dense, z)[:, :4], rtol=1e-5)


def test_a_function_of_one_latent(network, z, dense):
    values = singular_values(lambda one: network(one).reshape(3, 20), z[2], top_k=4)
    np.testing.assert_allclose(values, truth(network, dense, z)[2, :4], rtol=1e-4)


def test_what_has_no_jacobian_is_refused(network, z):
    with pytest.raises(GeneratorError, match="batch statistics"):
        singular_values(lambda x: x - x.mean(dim=0), z, 2)
    with pytest.raises(GeneratorError, match="noise"):
        singular_values(lambda x: x + torch.randn(len(x), D), z, 2)
    with pytest.raises(SpecError, match=r"outside 1\.\.12"):
        singular_values(network, z, 13)
    with pytest.raises(SpecError, match="no solver"):
        singular_values(network, z, 2, solver="magic")
    with pytest.raises(SpecError, match=r"size 1 is outside 2\.\.12"):
        singular_values(network, z, 2, solver="sketch", size=1)
    for wrong in (z[None], z.to(torch.int64), z[:0]):
        with pytest.raises(SpecError, match="latents are"):
            singular_values(network, wrong, 2)
