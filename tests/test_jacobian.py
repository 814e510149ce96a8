"""jacobian: against maps whose singular values are known, and dense float64 Jacobians."""

import itertools

import numpy as np
import pytest
import torch

from magnet_cli import jacobian
from magnet_cli.errors import GeneratorError, SpecError

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

        @staticmethod
        def backward(ctx, grad):
            return grad

    with pytest.raises(GeneratorError, match="cannot be differentiated"):
        jacobian.exact(Opaque.apply, torch.randn(1, 3), 3)
