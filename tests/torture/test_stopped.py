"""Processes that are stopped or killed at any time: whole files stay, and the same command goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file
from toys import toy_weights

from magnet_cli import computing, models
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.computing.memory import BatchPlan
from magnet_cli.evaluating import score_generator
from magnet_cli.files import documents, pictures
from magnet_cli.models import image_models
from magnet_cli.volume import Volume


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
    generator = models.load(Checkpoint.find(command[4]))
    list(computing.fill(volume, generator, safe + 8, BatchPlan(8)))
    assert volume.num_rows == safe + 8
    assert volume.shard_path(0).read_bytes() == first


def process(*args, **changes):
    command = [sys.executable, "-m", "magnet_cli", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | changes)


def test_ctrl_c_while_rendering_is_resumed(toy, tmp_path):
    process("compute", toy, "--n", "4000", "--shard-rows", "4000")
    command = [sys.executable, "-m", "magnet_cli", "sample", str(toy), "--n", "3900", "--batch-size", "2", "--out", "s"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not Path("s/images/000099.png").exists():
        assert running.poll() is None, "it ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (130, "")
    assert "images are in s; the same command goes on from there" in err
    assert not Path("s/sample.json").exists()
    early = Path("s/images/000000.png").stat().st_mtime_ns
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert len(list(Path("s/images").iterdir())) == 3900
    assert Path("s/images/000000.png").stat().st_mtime_ns == early
    assert process("info", "s", "--check").returncode == 0


def latents(n=40, size=5, seed=0):
    """Latents saved to z.npy."""
    z = np.random.default_rng(seed).standard_normal((n, size)).astype(np.float32)
    np.save("z.npy", z)
    return z


def contents(folder):
    """The bytes of a rendering's files, but for the document, which holds times."""
    found = (p for p in Path(folder).rglob("*") if p.is_file() and p.name not in {"rendering.json", "sample.json"})
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


@pytest.mark.parametrize("ending", ["png", "npy"])
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_stopped_processes_go_on(magnet, toy, ending, stop):
    latents(1200)
    line = ["render", str(toy), "--latents", "z.npy", "--format", ending, "--batch-size", "2"]
    command = [sys.executable, "-m", "magnet_cli", *line, "--out", "s"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    early = Path("s/images/000099.png") if ending == "png" else Path("s/.images.npy.growing")
    deadline = time.monotonic() + 60
    while not (early.exists() and early.stat().st_size):
        assert running.poll() is None, "it ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    running.send_signal(stop)
    out, err = running.communicate(timeout=60)
    assert out == ""
    assert running.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[stop]
    if stop != signal.SIGKILL:
        assert "images are in s; the same command goes on from there" in err
        assert not list(Path("s").rglob("*.part"))
    assert not Path("s/rendering.json").exists()
    assert not Path("s/images.npy").exists()
    for path in Path("s").glob("images/*.png"):
        assert pictures.is_whole(path.read_bytes())
    stamp = early.stat().st_mtime_ns
    assert magnet(*line, "--out", "s").code == 0
    if ending == "png":
        assert early.stat().st_mtime_ns == stamp
    assert magnet(*line, "--out", "whole").code == 0
    if stop == signal.SIGKILL:  # a file that was being written is swept after an hour
        for stray in Path("s").rglob(".*.part"):
            stray.unlink()
    assert contents("s") == contents("whole")
    assert magnet("info", "s", "--check").code == 0


def test_killed_at_any_time_it_goes_on_to_the_same_bytes(magnet):
    """A real process, killed; a shard it left is taken over, a torn one made again, and the end is the same."""
    command = [sys.executable, "-m", "magnet_cli", "attributes", "mnist", "--n", "4200", "--model", "digits"]
    process = subprocess.Popen([*command, "--out", "a", "--quiet"])
    shards, until = Path("a/.shards"), time.monotonic() + 120
    while not (shards / "000000.npz").exists() and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not Path("a/attributes.json").exists()
    made = (shards / "000000.npz").stat().st_mtime_ns
    (shards / "000001.npz").write_bytes(b"torn")
    generator, judge = models.load(Checkpoint.find("mnist")), image_models.load_scorer("digits")
    spec = score_generator.AttributesSpec(**json.loads(Path("a/.attributes-started.json").read_text())["spec"])
    assert list(score_generator.write(Path("a"), spec, generator, [judge])) == [4096, 104]
    assert (shards / "000000.npz").stat().st_mtime_ns == made
    for folder in ("a", "b"):
        assert magnet(*command[3:], "--out", folder).code == 0
    for name in ("latents.npy", "scores.npz"):
        assert documents.sha256_file(Path("a") / name) == documents.sha256_file(Path("b") / name)
