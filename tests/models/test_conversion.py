"""magnet convert: the same network from a file that holds no code."""

import json
from pathlib import Path

import nvlabs_files
import pytest
import recorded
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from toys import stylegan2_weights, toy_weights

from magnet_cli import models
from magnet_cli.catalog.checkpoint import Checkpoint


def images(path):
    found = models.load(Checkpoint.find(str(path)))
    return found(torch.randn(3, found.latent_dim, generator=torch.Generator().manual_seed(0)))


@pytest.fixture
def clamped(tmp_path):
    """Path of a snapshot whose weights do not tell all: its clamp binds."""
    record = recorded.read("stylegan2_clamp256")
    made = record.facts["constructor_kwargs"]
    path = tmp_path / "snapshot.pkl"
    path.write_bytes(nvlabs_files.pytorch(record.groups["state"], made, conv_clamp=256))
    return path


def test_settings_go_with_the_weights(magnet, clamped):
    done = magnet("convert", clamped, "new/clean.safetensors", "--json")
    assert (done.code, done.err) == (0, "next: magnet compute new/clean.safetensors\n")
    clean = Path(done.json["out"])
    assert done.json == {
        "out": "new/clean.safetensors",
        "family": "stylegan2",
        "tensors": 75,
        "size": clean.stat().st_size,
    }
    with safe_open(clean, "pt") as file:
        assert json.loads(file.metadata()["magnet"]) == {"conv_clamp": 256}
    known = recorded.read("stylegan2_clamp256").groups["state"]
    assert all(torch.equal(value, known[name]) for name, value in load_file(clean).items())
    assert torch.equal(images(clean), images(clamped))
    assert magnet("convert", clean, "again.safetensors").out == "again.safetensors\n"
    assert Path("again.safetensors").read_bytes() == clean.read_bytes()


def test_nothing_is_overwritten_unasked(magnet, clamped, toy):
    assert magnet("convert", clamped, "out.safetensors").code == 0
    first = Path("out.safetensors").read_bytes()
    assert magnet("convert", clamped, "out.safetensors", "--quiet").err == ""  # done already
    done = magnet("convert", toy, "out.safetensors")
    assert (done.code, done.out) == (1, "")
    assert "where another file is" in done.err
    assert "--force" in done.err
    assert Path("out.safetensors").read_bytes() == first
    assert magnet("convert", toy, "out.safetensors", "--force").code == 0
    assert torch.equal(images("out.safetensors"), images(toy))
    assert [path.name for path in Path().iterdir()] == ["out.safetensors"]


def test_tied_tensors_and_parts_are_written_whole(magnet):
    state = toy_weights()
    shared = torch.zeros(40)
    tied = {
        name: shared[: value.numel()].reshape(value.shape) if value.ndim == 1 else value
        for name, value in state.items()
    }
    torch.save({"netG_state_dict": tied, "epoch": 3}, "tied.pt")
    assert magnet("convert", "tied.pt", "tied.safetensors").code == 0
    found = load_file("tied.safetensors")
    assert found.keys() == tied.keys()
    assert all(torch.equal(value, tied[name]) for name, value in found.items())


def test_what_gives_no_network_is_not_written(magnet):
    assert magnet("convert", "mnist", "out.pt").code == 2
    state = stylegan2_weights()
    del state["synthesis.b8.conv0.bias"]
    torch.save(state, "half.pt")
    done = magnet("convert", "half.pt", "half.safetensors")
    assert (done.code, done.out) == (1, "")
    assert "synthesis.b8.conv0.bias is missing" in done.err
    Path("folder.safetensors").mkdir()
    assert magnet("convert", "mnist", "folder.safetensors").code == 1
    assert not Path("half.safetensors").exists()


def test_info_says_what_it_found(magnet, clamped):
    shown = magnet("info", clamped, "--json").json
    assert (shown["format"], shown["family"], shown["settings"]) == ("nvlabs-pytorch", "stylegan2", {"conv_clamp": 256})
    assert "conv_clamp 256" in magnet("info", clamped).out
    assert magnet("info", "mnist", "--json").json["settings"] == {}
