"""functions: what is differentiated on a sphere, and functions that have no forward mode or overflow."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from magnet_cli import models
from magnet_cli.computing import compute, function, inputs, volume_spec
from magnet_cli.errors import GeneratorError
from magnet_cli.index import log_volume
from magnet_cli.maths.priors import Prior


class Ellipsoid(nn.Module):
    """z times 1, 2, 3; the sphere becomes an ellipsoid."""

    latent_dim, prior = 3, "sphere"

    def __init__(self):
        super().__init__()
        self.axes = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))

    def forward(self, z):
        return z * self.axes


class Normalised(Ellipsoid):
    def forward(self, z):
        return 3**0.5 * z / (z.norm(dim=1, keepdim=True) + 1e-6) * self.axes


def area(latents):
    """Log of the factor by which areas of the sphere grow: det A · |A⁻ᵀ n|, n the normal."""
    normal = latents.astype(np.float64) / np.linalg.norm(latents, axis=1, keepdims=True)
    return np.log(6 * np.linalg.norm(normal / [1, 2, 3], axis=1))


@pytest.mark.parametrize(("module", "prior"), [(Ellipsoid, "fixed-length"), (Normalised, "sphere")])
@pytest.mark.parametrize("solver", ["exact", "sketch"])
def test_volumes_on_a_sphere_are_areas(module, prior, solver, tmp_path):
    generator = models.load(module(), prior=prior)
    volume = compute(generator, 400, path=tmp_path / "v", solver=solver, top_k=2 if solver == "exact" else 1)
    rows = volume.read(0)
    np.testing.assert_allclose(np.linalg.norm(rows.latents, axis=1), 3**0.5, rtol=1e-6)
    if solver == "sketch":
        return  # of one value: the call is the test
    logs = log_volume(rows.singular_values, 2)
    np.testing.assert_allclose(logs, area(rows.latents), atol=1e-4)
    assert logs.std() == pytest.approx(0.28, abs=0.02)
    assert volume.spec.rank == 2


def test_a_sphere_that_a_module_does_not_know_of_is_refused(tmp_path):
    with pytest.raises(GeneratorError, match="at z and at 2z differ by") as error:
        compute(models.load(Ellipsoid()), 8, path=tmp_path / "v")
    assert "fixed-length" in error.value.hint
    assert not (tmp_path / "v").exists()


def test_the_sphere_of_a_fixed_length_has_no_radial_derivative():
    generator = models.load(Ellipsoid(), prior="fixed-length")
    z = torch.from_numpy(generator.prior.draw(5)[0])
    spec = volume_spec(generator)
    along = torch.func.jvp(function(generator, spec), (inputs(generator, spec, z),), (z,))[1]
    assert along.abs().max() < 1e-6


class Clipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad


class ReverseOnly(nn.Module):
    latent_dim = 6

    def __init__(self, outputs):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, outputs)

    def forward(self, z):
        return torch.tanh(self.layer(Clipped.apply(z)))


@pytest.mark.slow
@pytest.mark.parametrize(("outputs", "solver"), [(40, "exact"), (2000, "projection")])
def test_a_function_without_forward_mode_has_a_solver_that_needs_none(outputs, solver, tmp_path, dense):
    module = ReverseOnly(outputs)
    volume = compute(models.load(module), 4, path=tmp_path / "v")
    assert volume.spec.solver == solver
    reason = json.loads((tmp_path / "v" / "volume.json").read_text())["measured"]["reason"]
    assert "no forward mode" in reason or "without forward mode" in reason
    assert ("projection of the output" in reason) == (solver == "projection")
    rows = volume.read(0)
    if solver == "exact":
        plain = nn.Sequential(module.layer, nn.Tanh()).to(torch.float64)
        np.testing.assert_allclose(rows.singular_values, dense(plain, rows.latents), rtol=1e-4)
    with pytest.raises(GeneratorError, match=r"torch\.autograd\.Function"):
        compute(models.load(module), 4, path=tmp_path / "w", solver="pilot", top_k=2)


class Overflows(nn.Module):
    """Infinite at a latent of the probe."""

    latent_dim = 2

    def __init__(self):
        super().__init__()
        self.where = nn.Parameter(torch.from_numpy(Prior("normal", 2).draw_shard(0x746573, 0, 4)[0][1]))

    def forward(self, z):
        there = (z - self.where).abs().sum(dim=1, keepdim=True) < 1e-6
        return torch.where(there, torch.inf, 3 * z)


def test_an_overflow_at_a_latent_of_the_probe_is_no_error(tmp_path):
    settings = {"path": tmp_path / "v", "solver": "exact", "shard_rows": 1, "top_k": 2}
    generator = models.load(Overflows())
    compute(generator, 1, **settings)
    assert compute(generator, 2, **settings).num_rows == 2
