"""compute from Python: the same volume as the command line makes, and progress that counts rows that are safe."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from magnet_cli import models
from magnet_cli.computing import compute, compute_steps, volume_spec
from magnet_cli.models.generator import Generator
from magnet_cli.volume import Volume


def shards(volume):
    return [volume.shard_path(shard).read_bytes() for shard in volume.shards()]


def test_python_and_the_command_line_make_the_same_bytes(magnet, toy):
    settings = {"solver": "exact", "top_k": 3, "truncation": 0.7, "seed": 4, "shard_rows": 8}
    done = magnet(
        "compute", toy, "--n", 20, *itertools.chain(*((f"--{k.replace('_', '-')}", v) for k, v in settings.items()))
    )
    assert done.code == 0, done.err
    seen = []
    volume = compute(models.load(toy), 20, path="v", progress=lambda *step: seen.append(step), **settings)
    there = Volume.open(Path(done.out.strip()))
    assert seen == [(8, 20), (16, 20), (20, 20)]
    assert shards(volume) == shards(there)


def test_without_a_path_it_is_where_the_command_line_finds_it(magnet, toy):
    volume = compute(models.load(toy), 5, solver="exact")
    done = magnet("compute", toy, "--n", 5, "--solver", "exact")
    assert done.out.strip() == str(volume.path)
    assert "already holds 5 rows" in done.err


def test_steps_stop_and_go_on(toy, tmp_path):
    generator = models.load(toy)
    steps = compute_steps(generator, 12, path=tmp_path / "v", solver="exact", shard_rows=4)
    assert next(steps) == (0, 4)
    steps.close()
    seen = []
    volume = compute(
        generator, 12, path=tmp_path / "v", solver="exact", shard_rows=4, progress=lambda *s: seen.append(s)
    )
    assert seen == [(8, 12), (12, 12)]
    assert shards(volume) == shards(compute(generator, 12, path=tmp_path / "w", solver="exact", shard_rows=4))


def test_a_live_module(dense, tmp_path):
    """Its weights are copied into float64 for the comparison that chooses the precision."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 9)).eval()
    volume = compute(models.load(module, latent_dim=4), 6, path=tmp_path / "v", precision="auto", tolerance=0.5)
    rows = volume.read(0)
    truth = dense(module.to(torch.float64), rows.latents)
    assert np.abs(np.log(rows.singular_values) - np.log(truth)).max() < (
        0.5 if volume.spec.precision == "bfloat16" else 1e-4
    )
    assert isinstance(models.load(module, latent_dim=4), Generator)


class Steep(torch.nn.Module):
    """Singular values 1, 1e-3, 1e-6, 1e-9: the last is out of sight of JᵀJ in float64."""

    latent_dim = 4

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(10.0 ** -torch.arange(0, 12, 3, dtype=torch.float64))
        self.turn, self.mix = (
            torch.nn.Parameter(torch.linalg.qr(torch.eye(n, 4, dtype=torch.float64) + 0.3)[0]) for n in (4, 6)
        )

    def forward(self, z):
        return ((z @ self.turn) * self.scale) @ self.mix.T


@pytest.mark.parametrize("solver", ["exact", "sketch", "auto"])
def test_float64_sees_what_its_rank_floor_says(solver, tmp_path):
    kept = {"exact": 4, "sketch": 3, "auto": 3}[solver]
    volume = compute(
        models.load(Steep()), 8, path=tmp_path / "v", top_k=kept, solver=solver, precision="float64", tolerance=0.5
    )
    assert volume.spec.factored
    np.testing.assert_allclose(volume.read(0).singular_values[:, 0], 1, rtol=1e-5)
    if volume.spec.solver == "exact":
        np.testing.assert_allclose(
            volume.read(0).singular_values, np.tile(10.0 ** -np.arange(0, 12, 3), (8, 1))[:, :kept], rtol=1e-5
        )


def test_a_float64_volume_goes_on_as_it_was_begun(tmp_path):
    """Those that are not factorised keep their fingerprint, and rows of two kinds are never in one volume."""
    generator = models.load(Steep())
    settings = {"path": tmp_path / "v", "solver": "exact", "precision": "float64", "shard_rows": 4}
    asked = volume_spec(generator, solver="exact", precision="float64", rows_per_shard=4)
    begun = Volume.create(tmp_path / "v", asked)
    fresh = compute(generator, 8, **settings | {"path": tmp_path / "w"})
    assert (begun.spec.factored, fresh.spec.factored) == (False, True)
    assert begun.fingerprint == asked.fingerprint != fresh.fingerprint
    volume = compute(generator, 8, **settings)
    assert volume.fingerprint == begun.fingerprint
    last = [v.read(1).singular_values[:, 3] for v in (volume, fresh)]
    np.testing.assert_allclose(last[1], 1e-9, rtol=1e-5)
    assert (abs(last[0] / 1e-9 - 1) > 0.1).any()
