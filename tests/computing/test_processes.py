"""processes: threads and memory are shared, and every process has the generator that was asked for."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from toys import biggan_weights, nvae_weights, toy_weights

from magnet_cli import computing, models
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.computing import processes as processes_
from magnet_cli.computing.memory import BatchPlan, plan_batches
from magnet_cli.errors import MagnetError
from magnet_cli.models import custom
from magnet_cli.volume import Volume


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A checkpoint whose rows take some milliseconds each."""
    path = tmp_path_factory.mktemp("weights") / "slow.safetensors"
    save_file(toy_weights(latent_dim=24, widths=(48, 48, 24)), path)
    return path


@pytest.mark.slow
def test_a_cluster_that_is_not_there(magnet, weights):
    for address in ("127.0.0.1:1", "127.0.0.1:99999", "no address"):
        done = magnet("compute", weights, "--n", 8, "--volume", "v", "--engine", "ray", "--address", address)
        assert (done.code, done.out) == (1, "")
        assert f"there is no Ray at {address}" in done.err
        assert "docs/howto/many-workers.md" in done.err


@pytest.mark.slow
def test_without_ray_the_extra_is_named(magnet, weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it is not installed: importing it fails
    done = magnet("compute", weights, "--n", 8, "--engine", "ray")
    assert (done.code, done.out) == (1, "")
    assert "pip install 'magnet-cli[ray]'" in done.err


def test_threads_are_shared():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    assert [processes_.shared_threads(w) for w in (1, 2, 3, 4, 9)] == [4, 2, 1, 1, 1]
    torch.set_num_threads(before)


def test_memory_is_shared(weights):
    generator = models.load(Checkpoint.find(str(weights)))
    whole, half = (plan_batches(generator, memory=4_000_000, processes=processes) for processes in (1, 2))
    assert half == plan_batches(generator, memory=2_000_000)
    assert half != whole


def test_a_job_without_its_volume(tmp_path, weights):
    job = processes_.Job(tmp_path / "none", Checkpoint.find(str(weights)), "pixel", "cpu", 1, BatchPlan(8))
    with pytest.raises(MagnetError, match="is not a volume"):
        job.filler()


OWN = """
import torch

class Waves(torch.nn.Module):
    latent_dim = 3
    prior = "truncated-normal"

    def forward(self, z):
        return torch.sin(z).repeat(1, 4).cumsum(dim=1)
"""


TINY = {"widths": ((2, 2), (2, 1)), "attention": 1, "channels": 8, "latent_dim": 6, "num_classes": 4, "rows": 5}


def sources(folder):
    """Generators that are told more than their weights, with what they are told."""
    save_file(biggan_weights(**TINY), folder / "biggan.safetensors")
    save_file(nvae_weights(), folder / "nvae.safetensors")
    return {
        "biggan": (Checkpoint.find(str(folder / "biggan.safetensors")), (("bn_truncation", 0.25),)),
        "nvae": (Checkpoint.find(str(folder / "nvae.safetensors")), (("nvae_latents", "all"),)),
    }


@pytest.mark.parametrize("name", ["biggan", "nvae"])
def test_settings_reach_every_process(name, tmp_path):
    source, settings = sources(tmp_path)[name]
    told, untold = models.load(source, **dict(settings)), models.load(source)
    volume = Volume.create(tmp_path / "v", computing.volume_spec(told, top_k=2, rows_per_shard=4))
    job = processes_.Job(volume.path, source, "pixel", "cpu", torch.get_num_threads(), BatchPlan(4), settings)
    sent = pickle.loads(pickle.dumps(job))
    assert hash(sent) == hash(job)  # Ray's tasks keep what they loaded by it
    assert sent.filler()(0, 4) == 4
    rows = volume.read(0)
    known = computing.values_at(told, rows.latents, volume.spec, BatchPlan(4))
    np.testing.assert_allclose(rows.singular_values, known, rtol=1e-5)
    if untold.latent_dim == told.latent_dim:
        other = computing.values_at(untold, rows.latents, volume.spec, BatchPlan(4))
        assert np.abs(np.log(other / known)).max() > 1e-3


@pytest.mark.slow
def test_a_generator_of_the_users_own_is_found_by_every_process(magnet):
    Path("waves.py").write_text(OWN)
    flags = ("compute", "waves.py:Waves", "--n", 12, "--shard-rows", 4, "--solver", "exact", "--json")
    two = magnet(*flags, "--volume", "two", "--workers", 2)
    assert (two.code, two.json["new_rows"]) == (0, 12), two.err
    assert magnet(*flags, "--volume", "one").code == 0
    one, two = Volume.open(Path("one")), Volume.open(Path("two"))
    for shard in range(3):
        rows, same = one.read(shard), two.read(shard)
        np.testing.assert_array_equal(rows.latents, same.latents)
        np.testing.assert_allclose(rows.singular_values, same.singular_values, rtol=1e-5)
        assert np.abs(rows.latents).max() <= 2
    found = custom.from_factory("waves.py:Waves")
    assert hash(pickle.loads(pickle.dumps(found))) == hash(found)
