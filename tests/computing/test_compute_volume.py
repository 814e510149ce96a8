"""compute from Python: the same volume as the command line makes, and progress that counts rows that are safe."""

import itertools
from pathlib import Path

import numpy as np
import torch

from magnet_cli import models
from magnet_cli.computing import compute, compute_steps
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
