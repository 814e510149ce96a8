"""compute: the values are right, and no interruption changes a byte."""

import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from magnet_cli import compute, generators
from magnet_cli.artifacts import cache
from magnet_cli.errors import GeneratorError
from magnet_cli.generators.dcgan import DCGAN
from magnet_cli.volume import Volume
from toys import toy_weights


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
    generator = generators.load(cache.checkpoint(str(toy)), dtype=dtype)
    spec = compute.spec(generator, truncation=0.5, precision=precision)
    volume = Volume.create(tmp_path / "v", spec)
    list(compute.fill(volume, generator, 8))
    exact = generators.load(cache.checkpoint(str(toy)), dtype=torch.float64)
    truth = dense(lambda z: exact.module(0.5 * z), volume.read(0).latents)
    error = np.abs(np.log(volume.read(0).singular_values) - np.log(truth)).max()
    assert error < (1e-4 if precision == "float32" else 1e-6)  # stored as float32


def test_stopping_and_going_on_changes_no_byte(toy_generator, toy_volume, tmp_path):
    volume = Volume.create(tmp_path / "v", toy_volume.spec)
    assert list(itertools.islice(compute.fill(volume, toy_generator, 200, batch=32), 2)) == [(0, 64), (1, 64)]
    assert list(compute.fill(volume, toy_generator, 200, batch=32)) == [(2, 64), (3, 8)]
    assert shard_bytes(volume) == shard_bytes(toy_volume)
    assert list(compute.fill(volume, toy_generator, 200, batch=32)) == []


def test_extending_copies_stored_rows_bit_for_bit(toy_generator, toy_volume, tmp_path):
    volume = Volume.create(tmp_path / "v", toy_volume.spec)
    for rows in (3, 70, 150, 200):
        before = {s: volume.read(s) for s in volume.shards()}
        list(compute.fill(volume, toy_generator, rows, batch=32))
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
    list(compute.fill(volume, toy_generator, 64, batch=7))
    found, known = volume.read(0), toy_volume.read(0)
    np.testing.assert_array_equal(found.latents, known.latents)
    np.testing.assert_allclose(found.singular_values, known.singular_values, rtol=1e-5)


def test_values_that_are_not_finite_name_shard_and_row(tmp_path):
    state = toy_weights()
    state["main.1.bias"][0] = float("inf")
    save_file(state, tmp_path / "broken.safetensors")
    generator = generators.load(cache.checkpoint(str(tmp_path / "broken.safetensors")))
    volume = Volume.create(tmp_path / "v", compute.spec(generator))
    with pytest.raises(GeneratorError, match="not finite at shard 0, row 0"):
        list(compute.fill(volume, generator, 10))
    assert volume.shards() == []


def test_sizes_are_fixed_by_the_generator(toy_generator):
    assert compute.shard_rows(toy_generator) == 2000
    assert compute.batch_size(toy_generator) == 64
    assert compute.default_top_k(128) == 128
    assert compute.default_top_k(512) == 30


def slow(tmp_path):
    """A generator whose 400 rows take some seconds, and the command that computes them."""
    path = tmp_path / "slow.safetensors"
    save_file(toy_weights(latent_dim=24, widths=(48, 48, 24)), path)
    command = [sys.executable, "-m", "magnet_cli", "compute", str(path), "--n", "400", "--shard-rows", "8"]
    return [*command, "--batch-size", "8", "--volume", str(tmp_path / "v")]


def wait_for(process, volume, shards):
    deadline = time.monotonic() + 60
    while len(list(volume.glob("shards/shard-*.json"))) < shards:
        assert process.poll() is None, "it ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_process_stopped_at_any_time_leaves_whole_shards(tmp_path, number, code):
    command = slow(tmp_path)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    wait_for(process, tmp_path / "v", 2)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    volume = Volume.open(tmp_path / "v")
    safe = volume.num_rows
    assert 16 <= safe < 400
    assert not [p for p in volume.check() if "no commit mark" not in p]
    if number != signal.SIGKILL:
        assert f"{safe:,} of 400 rows are safe" in err
        assert "the same command goes on" in err
    first = volume.shard_path(0).read_bytes()
    generator = generators.load(cache.checkpoint(command[4]))
    list(compute.fill(volume, generator, safe + 8, batch=8))
    assert volume.num_rows == safe + 8
    assert volume.shard_path(0).read_bytes() == first
