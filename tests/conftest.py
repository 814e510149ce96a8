"""What every test stands on: a home of its own, tiny real generators, and the command line in this process."""

import dataclasses
import functools
import json
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from strangers import HOSTILE
from toys import toy_weights
from typer.testing import CliRunner

from magnet_cli import computing, models
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.cli.app import app
from magnet_cli.computing.memory import BatchPlan
from magnet_cli.volume import Volume

TORTURE = Path(__file__).parent / "torture"

# A shell that runs the tests in the background has them ignore Ctrl-C, and so would every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--network", action="store_true", help="run the tests that need the package index")


def pytest_configure(config):
    """Share the cores among the processes of pytest-xdist, and those that tests start: threads that fight are slow."""
    if processes := config.getoption("numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))


def pytest_collection_modifyitems(config, items):
    for item in items:
        if TORTURE in item.path.parents:
            item.add_marker(pytest.mark.torture)
    if config.getoption("--network") or os.environ.get("CI"):
        return
    for item in items:
        if "network" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs the package index: --network, or CI=true"))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A fresh MAGNET_HOME, nothing of the user's, and a working folder to write into."""
    for name in [n for n in os.environ if n.startswith("MAGNET_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MAGNET_HOME", str(tmp_path / "home"))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, ",".join(filter(None, ["127.0.0.1,localhost", os.environ.get(name)])))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


@pytest.fixture
def toy(tmp_path):
    """Path of a small real checkpoint: D = 5, 1x8x8 images."""
    path = tmp_path / "toy.safetensors"
    save_file(toy_weights(), path)
    return path


@pytest.fixture
def toy_generator(toy):
    return models.load(Checkpoint.find(str(toy)))


@pytest.fixture
def toy_volume(toy_generator, tmp_path):
    """200 rows of the toy in shards of 64, the last of them short."""
    volume = Volume.create(tmp_path / "toy.vol", computing.volume_spec(toy_generator, rows_per_shard=64))
    list(computing.fill(volume, toy_generator, 200, BatchPlan(32)))
    return volume


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def magnet():
    """Run a command line in this process; a bug keeps its traceback."""

    def run(*args):
        result = CliRunner().invoke(app, [str(a) for a in args], prog_name="magnet", catch_exceptions=False)
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="session")
def scored_digits(tmp_path_factory):
    """A folder with scored/, of 600 digits, and drawn/, a polarity sample of 80 with attributes; made once."""
    place = tmp_path_factory.mktemp("digits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAGNET_HOME", str(place / "home"))
        patch.chdir(place)
        for line in (
            "attributes mnist --n 600 --model digits --out scored",
            "sample --n 80 --rho 0.2 --out drawn",
            "attributes drawn --model digits",
        ):
            done = CliRunner().invoke(app, [*line.split(), "-q"], catch_exceptions=False)
            assert done.exit_code == 0, done.stderr
    return place


@pytest.fixture
def here(scored_digits):
    """Copies of scored/ and drawn/ in the working folder."""
    for name in ("scored", "drawn"):
        shutil.copytree(scored_digits / name, name)


@pytest.fixture
def dense():
    """Singular values of the dense float64 Jacobian by a full SVD: by reverse mode, an independent way, or, where the
    outputs are too many for that, by torch's own jacfwd."""

    def values(function, latents, *, reverse=True):
        differentiate = functools.partial(torch.func.jacrev, chunk_size=256) if reverse else torch.func.jacfwd
        rows = []
        for z in torch.as_tensor(np.asarray(latents), dtype=torch.float64):
            jacobian = differentiate(lambda x: function(x[None]).flatten())(z)
            rows.append(torch.linalg.svdvals(jacobian).detach().numpy())
        return np.stack(rows)

    return values


@pytest.fixture(scope="session")
def judged_samples(tmp_path_factory):
    """Folder of three samples of the built-in generator, their classes in them, and what was found of them as JSON."""
    place = tmp_path_factory.mktemp("samples")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAGNET_HOME", str(place / "home"))
        patch.chdir(place)
        for name, args in {"typical": ["--rho", "-0.3"], "prior": ["--rho", "0"], "other": ["--rho", "0"]}.items():
            seed = 1 if name == "other" else 0
            ran("sample", "--n", 60, *args, "--seed", seed, "--out", name)
        found = {
            "typical-against-prior": ran("evaluate", "typical", "--reference", "prior", "--json"),
            "prior-against-prior": ran("evaluate", "other", "--reference", "prior", "--json"),
            "bias-of-typical": ran("attributes", "typical", "--model", "digits", "--compare", "prior", "--json"),
            "bias-of-prior": ran("attributes", "prior", "--model", "digits", "--compare", "other", "--json"),
        }
    for name, text in found.items():
        (place / f"{name}.json").write_text(text)
    return place


def ran(*args):
    done = CliRunner().invoke(app, [str(a) for a in args], prog_name="magnet", catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


@pytest.fixture
def samples(judged_samples):
    """The same, in the working folder."""
    for path in judged_samples.iterdir():
        if path.name not in {"home", "which"}:
            (shutil.copytree if path.is_dir() else shutil.copy)(path, path.name)


@pytest.fixture(scope="session")
def swept(judged_samples):
    """Folder of a sweep of the built-in generator: three rho, of which one is picked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAGNET_HOME", str(judged_samples / "home"))
        patch.chdir(judged_samples)
        ran("sweep", "mnist", "--rho", "-.4,.2", "--n", 60, "--model", "digits", "--pick", "coverage", "--out", "which")
    return judged_samples / "which"


@pytest.fixture
def hostile_volume(toy_volume, tmp_path):
    """A volume by a stranger, whose generator is called like a piece of a page."""
    spec = dataclasses.replace(toy_volume.spec, generator=HOSTILE.replace("/", ""))
    volume = Volume.create(tmp_path / "<img src=x onerror=alert(2)>", spec)
    for shard in toy_volume.shards():
        volume.write(shard, toy_volume.read(shard))
    return volume
