"""compute: the values are right, and no interruption changes a byte."""

import dataclasses
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from toys import toy_weights

from magnet_cli import computing, models
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.computing.memory import BatchPlan, plan_batches
from magnet_cli.errors import GeneratorError
from magnet_cli.maths.priors import Prior
from magnet_cli.models.generators.dcgan import DCGAN
from magnet_cli.volume import Volume


def shard_bytes(volume):
    return [volume.shard_path(s).read_bytes() for s in volume.shards()]


def test_values_equal_the_dense_jacobian(toy_volume, dense):
    """Of the network with its batch norms unfolded, in float64."""
    network = DCGAN(5, (8,), 1)
    network.load_state_dict(toy_weights(), strict=False)
    network = network.to(torch.float64).eval().requires_grad_(False)
    rows = toy_volume.read(1)
    truth = dense(network, rows.latents[:20])
    assert np.abs(np.log(rows.singular_values[:20]) - np.log(truth)).max() < 1e-4


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_truncation_is_part_of_the_function(toy, tmp_path, dense, precision):
    dtype = {"float32": torch.float32, "float64": torch.float64}[precision]
    generator = models.load(Checkpoint.find(str(toy)), dtype=dtype)
    spec = computing.volume_spec(generator, truncation=0.5, precision=precision)
    volume = Volume.create(tmp_path / "v", spec)
    list(computing.fill(volume, generator, 8))
    exact = models.load(Checkpoint.find(str(toy)), dtype=torch.float64)
    truth = dense(lambda z: exact.module(0.5 * z), volume.read(0).latents)
    error = np.abs(np.log(volume.read(0).singular_values) - np.log(truth)).max()
    assert error < (1e-4 if precision == "float32" else 1e-6)  # stored as float32


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_differentiated_in_the_precision_asked(tmp_path, dense, half):
    state = {name: value.to(half) for name, value in toy_weights().items()}
    save_file(state, tmp_path / "half.safetensors")
    generator = models.load(Checkpoint.find(str(tmp_path / "half.safetensors")))
    volume = Volume.create(tmp_path / "v", computing.volume_spec(generator))
    list(computing.fill(volume, generator, 10))
    network = DCGAN(5, (8,), 1)
    network.load_state_dict({name: value.to(torch.float32) for name, value in state.items()}, strict=False)
    truth = dense(network.to(torch.float64).eval().requires_grad_(False), volume.read(0).latents)
    assert np.abs(np.log(volume.read(0).singular_values) - np.log(truth)).max() < 1e-4


def test_a_module_that_detaches_is_refused_and_nothing_is_written(tmp_path, toy_generator):
    """Forward mode would give zeros, or half the truth, without a word."""
    detached = dataclasses.replace(toy_generator, module=Detached(toy_generator.module))
    volume = Volume.create(tmp_path / "v", computing.volume_spec(detached))
    with pytest.raises(GeneratorError, match="the derivative torch computes"):
        list(computing.fill(volume, detached, 10))
    assert volume.shards() == []


class Detached(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, z, labels=None, truncation=1.0):
        return self.module(z) + self.module(0.5 * z.detach())


def test_stopping_and_going_on_changes_no_byte(toy_generator, toy_volume, tmp_path):
    volume = Volume.create(tmp_path / "v", toy_volume.spec)
    assert list(itertools.islice(computing.fill(volume, toy_generator, 200, BatchPlan(32)), 2)) == [(0, 64), (1, 64)]
    assert list(computing.fill(volume, toy_generator, 200, BatchPlan(32))) == [(2, 64), (3, 8)]
    assert shard_bytes(volume) == shard_bytes(toy_volume)
    assert list(computing.fill(volume, toy_generator, 200, BatchPlan(32))) == []


def test_extending_copies_stored_rows_bit_for_bit(toy_generator, toy_volume, tmp_path):
    volume = Volume.create(tmp_path / "v", toy_volume.spec)
    for rows in (3, 70, 150, 200):
        before = {s: volume.read(s) for s in volume.shards()}
        list(computing.fill(volume, toy_generator, rows, BatchPlan(32)))
        for shard, old in before.items():
            new = volume.read(shard)
            np.testing.assert_array_equal(new.singular_values[: len(old.latents)], old.singular_values)
            np.testing.assert_array_equal(new.latents[: len(old.latents)], old.latents)
    assert volume.num_rows == 200
    for shard in volume.shards():
        np.testing.assert_allclose(
            volume.read(shard).singular_values, toy_volume.read(shard).singular_values, rtol=1e-5
        )


def test_batch_size_changes_nothing_but_rounding(toy_generator, toy_volume, tmp_path):
    volume = Volume.create(tmp_path / "v", toy_volume.spec)
    list(computing.fill(volume, toy_generator, 64, BatchPlan(7)))
    found, known = volume.read(0), toy_volume.read(0)
    np.testing.assert_array_equal(found.latents, known.latents)
    np.testing.assert_allclose(found.singular_values, known.singular_values, rtol=1e-5)


def test_values_that_are_not_finite_name_shard_and_row(tmp_path):
    state = toy_weights()
    state["main.0.weight"] = state["main.0.weight"] * 2.5e38  # overflows float32 at a latent here and there
    state["main.3.weight"] = state["main.3.weight"] * 1e-38
    save_file(state, tmp_path / "broken.safetensors")
    generator = models.load(Checkpoint.find(str(tmp_path / "broken.safetensors")))
    volume = Volume.create(tmp_path / "v", computing.volume_spec(generator))
    with pytest.raises(GeneratorError, match=r"not finite at shard 0, row \d+") as error:
        list(computing.fill(volume, generator, 100))
    assert volume.shards() == []
    row = int(error.value.message.rsplit(" ", 1)[1])
    latents = torch.from_numpy(Prior("normal", 5).draw_shard(0, 0, row + 1)[0])
    jacobians = torch.func.vmap(torch.func.jacrev(lambda z: generator(z[None])))(latents)
    assert jacobians.isfinite().flatten(1).all(dim=1).tolist() == [True] * row + [False]


def test_a_function_that_is_not_finite_is_refused_at_once(tmp_path):
    state = toy_weights()
    state["main.1.bias"][0] = float("inf")
    save_file(state, tmp_path / "broken.safetensors")
    generator = models.load(Checkpoint.find(str(tmp_path / "broken.safetensors")))
    volume = Volume.create(tmp_path / "v", computing.volume_spec(generator))
    with pytest.raises(GeneratorError, match="values that are not finite"):
        list(computing.fill(volume, generator, 10))
    assert volume.shards() == []


# --- plans and memory ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_less_memory_cuts_the_work_and_changes_nothing_but_rounding(tmp_path):
    save_file(toy_weights(latent_dim=60), tmp_path / "many.safetensors")  # its Jacobian takes more than a vector's way
    generator = models.load(Checkpoint.find(str(tmp_path / "many.safetensors")))
    spec = computing.volume_spec(generator)
    latents = Prior("normal", 60).draw_shard(0, 0, 5)[0]
    truth = computing.values_at(generator, latents, spec, BatchPlan(5))
    plans = [plan_batches(generator, memory=memory) for memory in (1 << 30, 800_000, 100_000, 30_000, 15_000)]
    assert len(set(plans)) == len(plans)
    assert plans[0].chunk is None
    assert [cut.whole for cut in plans] == [True, True, True, True, False]
    for cut in plans:
        found = computing.values_at(generator, latents, spec, cut)
        np.testing.assert_allclose(found[:, :30], truth[:, :30], rtol=1e-4)
    with pytest.raises(GeneratorError, match="one vector at one latent"):
        plan_batches(generator, memory=1000)


def test_halving_ends():
    cut, smallest = BatchPlan(8), BatchPlan(1, 1, whole=False)
    for _ in range(30):
        if cut == smallest:
            break
        cut = cut.halved()
    with pytest.raises(GeneratorError, match="memory runs out"):
        smallest.halved()
    assert cut == smallest


@pytest.mark.torture
def test_when_memory_runs_out_the_run_goes_on_and_says_so(tmp_path):
    """A real limit on a real process's address space."""
    path = tmp_path / "wide.safetensors"
    save_file(toy_weights(latent_dim=64, widths=(64, 64, 32, 16)), path)
    code = (
        "import resource, sys, torch\n"
        "from magnet_cli import computing as compute, models as generators\n"
        "from magnet_cli.catalog.checkpoint import Checkpoint\n"
        "from magnet_cli.computing.memory import BatchPlan\n"
        "from magnet_cli.volume.store import Volume\n"
        "torch.set_num_threads(1)\n"
        "generator = generators.load(Checkpoint.find(sys.argv[1]))\n"
        "spec = compute.volume_spec(generator, rows_per_shard=64)\n"
        "volume = Volume.create(__import__('pathlib').Path(sys.argv[2]), spec)\n"
        "list(compute.fill(volume, generator, 1, BatchPlan(1)))\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000, used + 300_000_000))\n"
        "list(compute.fill(volume, generator, 64, BatchPlan(64)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path, tmp_path / "v"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    volume = Volume.open(tmp_path / "v")
    assert volume.num_rows == 64
    notes = json.loads((tmp_path / "v" / "volume.json").read_text())["notes"]
    assert notes
    assert "memory ran out at shard 0" in notes[0]
    generator = models.load(Checkpoint.find(str(path)))
    plain = computing.values_at(generator, volume.read(0).latents[:4], volume.spec, BatchPlan(2))
    np.testing.assert_allclose(volume.read(0).singular_values[:4], plain, rtol=1e-4)


def test_sizes_are_fixed_by_the_generator(toy_generator):
    assert computing.shard_rows(toy_generator) == 2000
    assert plan_batches(toy_generator).batch == 64
    assert computing.default_top_k(128) == 128
    assert computing.default_top_k(512) == 30
