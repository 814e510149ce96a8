"""The tempered sampler: against targets that are known, and what it keeps, refuses and says."""

import dataclasses
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from toys import some_mixture

from magnet_cli import computing, index, models
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.computing.memory import BatchPlan
from magnet_cli.errors import DamageError, SampleError, SpecError, VolumeError
from magnet_cli.maths.priors import Prior
from magnet_cli.models import Generator
from magnet_cli.sampling import select, tempered
from magnet_cli.sampling.tempered import moves, surrogate
from magnet_cli.sampling.tempered.island import Island
from magnet_cli.sampling.tempered.run import Schedule, TemperedRun, TemperedSpec
from magnet_cli.volume import Volume


class Map(torch.nn.Module):
    num_classes = 0

    def __init__(self, function, latent_dim, prior):
        super().__init__()
        self.like = torch.nn.Parameter(torch.empty(0), requires_grad=False)
        self.function, self.latent_dim, self.prior = function, latent_dim, prior
        self.image_shape = tuple(function(torch.zeros(1, latent_dim)).shape[1:])

    def forward(self, z, labels=None, truncation=1.0):
        return self.function(z)


def measure_of(function, latent_dim, prior, tmp_path, exaggerated=1.0, label=()):
    """The measure of a map z [B, D] to [B, M]; `exaggerated` falsifies its log-volumes, for tests that must fail."""
    prior = Prior(prior, latent_dim) if isinstance(prior, str) else Prior.of_mixture(prior)
    network = Map(function, latent_dim, prior.kind).eval()
    network.num_classes = prior.num_classes
    generator = Generator("map", "own", "0" * 64, network.image_shape, prior, network)
    volume = Volume(tmp_path / "planned", computing.volume_spec(generator, solver="exact"))
    measure = tempered.Measure(volume, generator, volume.spec.top_k, BatchPlan(4096), label=label)
    if exaggerated != 1:
        honest = measure.log_volume
        measure.log_volume = lambda latents, labels: exaggerated * honest(latents, labels)
    return measure


def end_of(measure, number=0, labelled=False, **schedule):
    """Latents and log-volumes, and labels if `labelled`, of one island at its end."""
    asked = {"rho": 1.0, "particles": 200, "seed": 0, "sweeps": 1, "rounds": 3, "moves": 8} | schedule
    island = Island(number, Schedule(**asked), measure, [])
    steps = list(island.advance())
    names = ("latents", "log_volume", "labels") if labelled else ("latents", "log_volume")
    return tuple(np.concatenate([getattr(step, name) for step in steps])[steps[-1].particles] for name in names)


def linear(slopes):
    """G_i = exp(a_i z_i) / a_i: log-volume is Σ a_i z_i, and with a Gaussian prior rho asks for N(rho a, 1)."""
    a = torch.tensor(slopes)
    return lambda z: torch.exp(a.to(z) * z) / a.to(z)


def quadratic(curvatures):
    """G_i = ∫ exp(−c t²/2) dt: log-volume is −Σ c_i z_i²/2, and rho asks for variances 1 / (1 + rho c_i)."""
    c = torch.tensor(curvatures).sqrt()
    return lambda z: torch.erf(c.to(z) * z / math.sqrt(2)) / c.to(z)


def half_sphere(z):
    latitude, longitude = (z[:, 0] + 1) * (math.pi / 4), z[:, 1] * math.pi
    across = latitude.cos()
    return torch.stack([across * longitude.cos(), across * longitude.sin(), latitude.sin()], dim=1)


def two_modes(z):
    """∫ of (10/11 N(−1.5, ½²) + 1/11 N(1.5, ½²)) / N(0, 1) along z₁, z₂ as it is: rho 1 asks for that mixture."""
    parts = []
    for share, centre in ((10 / 11, -1.5), (1 / 11, 1.5)):
        # exp(−(t−m)²/2s² + t²/2) / s is a Gaussian in t once more
        s2 = 0.25
        middle, width2 = centre / (1 - s2), s2 / (1 - s2)
        height = math.exp(centre**2 / (2 * (1 - s2))) * share / math.sqrt(s2)
        parts.append(height * math.sqrt(math.pi * width2 / 2) * torch.erf((z[:, 0] - middle) / math.sqrt(2 * width2)))
    return torch.stack([sum(parts), z[:, 1]], dim=1)


def test_moves_leave_the_prior_as_it_is():
    """A long chain of each prior's moves under no target, with and without a mean, ends as it began: in the prior."""
    rng = np.random.default_rng(0)
    for kind in ("normal", "sphere", "uniform", "truncated-normal"):
        prior = Prior(kind, 3)
        z, _ = prior.draw(4000, rng)
        mean = np.full((4000, 3), 0.7 if kind == "normal" else 0.0)
        kernel = moves.Kernel(prior, 0.9, mean)
        end = moves.walk(rng, z, kernel, lambda at: np.zeros(len(at)), 12)
        fresh, _ = prior.draw(4000, rng)
        for i in range(3):
            assert stats.ks_2samp(end.latents[:, i], fresh[:, i]).pvalue > 1e-4
        assert np.abs(np.corrcoef(z[:, 0], end.latents[:, 0])[0, 1]) < 0.5
        if kind == "sphere":
            assert np.allclose(np.linalg.norm(end.latents, axis=1), math.sqrt(3), atol=1e-5)


@pytest.mark.parametrize("label", [(), (2, 0)])
def test_moves_leave_a_mixture_as_it_is(label):
    mixture, rng = some_mixture(latent_dim=3), np.random.default_rng(0)
    z, _ = mixture.draw(rng, 4000, label)
    kernel = moves.Kernel(Prior.of_mixture(mixture), 0.9, np.zeros((4000, 3)), label)
    end = moves.walk(rng, z, kernel, lambda at: np.zeros(len(at)), 12)
    fresh, components = mixture.draw(rng, 4000, label)
    for direction in (*np.eye(3), np.ones(3)):
        assert stats.ks_2samp(end.latents @ direction, fresh @ direction).pvalue > 1e-4
    drawn = mixture.draw_components(rng, end.latents, label)
    counts = [np.bincount(each, minlength=3) for each in (drawn, components)]
    assert stats.chi2_contingency(np.array(counts)[:, np.array(counts).any(axis=0)]).pvalue > 1e-4


def test_components_are_drawn_given_the_latent():
    mixture, rng = some_mixture(latent_dim=3), np.random.default_rng(0)
    z = mixture.draw(rng, 1)[0]
    shares = np.exp(mixture.log_densities(z)[0] - mixture.log_density(z))
    drawn = mixture.draw_components(rng, np.repeat(z, 4000, axis=0))
    assert stats.chisquare(np.bincount(drawn, minlength=3), 4000 * shares).pvalue > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("label", "rho"), [((), 1.0), ((), -0.7), ((2, 0), 1.0)])
def test_known_mixture(label, rho, tmp_path):
    """Where log-volume is a·z, weights exp(rho a·z) turn each N(μ, Σ) of weight π into N(μ + rho Σ a, Σ) of weight
    π exp(rho a·μ + rho² aᵀΣa / 2).
    """
    mixture, a = some_mixture(latent_dim=3), np.array([0.8, -0.6, 0.4])
    measure = measure_of(linear(a.tolist()), 3, mixture, tmp_path, label=label)
    kept = mixture.of(label)
    tilts = rho * np.array([factor @ (factor.T @ a) for factor in kept.factors])
    weights = kept.weights * np.exp(rho * kept.means @ a + rho * tilts @ a / 2)
    weights /= weights.sum()
    runs = [end_of(measure, number, rho=rho, labelled=True) for number in range(16)]
    means = np.array([z.astype(np.float64).mean(axis=0) for z, _, _ in runs])
    names = list(label) or [0, 1, 2]
    shares = np.array([[np.mean(labels == name) for name in names] for _, _, labels in runs])
    for values, truth in ((means, weights @ (kept.means + tilts)), (shares, weights)):
        error = values.std(axis=0, ddof=1) / 4
        assert (np.abs(values.mean(axis=0) - truth) < 4.5 * error + 2 / 200).all()
        assert error.max() < 0.06


def test_systematic_resampling_is_right_to_within_one():
    rng = np.random.default_rng(1)
    log_weights = rng.normal(size=50) * 2
    log_weights[7] = -np.inf
    wanted = 50 * np.exp(log_weights) / np.exp(log_weights).sum()
    counts = np.mean([np.bincount(moves.systematic(rng, log_weights), minlength=50) for _ in range(2000)], axis=0)
    assert np.abs(counts - wanted).max() < 0.05
    once = np.bincount(moves.systematic(rng, log_weights), minlength=50)
    assert np.abs(once - wanted).max() < 1
    assert once[7] == 0


def test_the_surrogate_finds_what_features_say():
    rng = np.random.default_rng(2)
    found = rng.normal(size=(300, 20)).astype(np.float32)
    values = 50 + 3 * found[:, 0] - found[:, 1] + 0.1 * rng.normal(size=300)
    fitted = surrogate.fit(found[:200], [10, 10], values[:200], np.ones(200))
    missed = fitted(found[200:]) - values[200:]
    assert fitted.explained > 0.9
    assert 0.5 < fitted.error / np.sqrt(np.mean(missed**2)) < 2
    assert surrogate.zero(20)(found[:3]).tolist() == [0, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "dim", "rho", "mean", "variance"),
    [
        (linear([0.8, -0.6, 0.4, 0.2]), 4, 1.0, [0.8, -0.6, 0.4, 0.2], [1] * 4),
        (linear([0.8, -0.6, 0.4, 0.2]), 4, -0.7, [-0.56, 0.42, -0.28, -0.14], [1] * 4),
        (quadratic([3.0, 1.0, 0.3]), 3, 1.0, [0, 0, 0], [1 / 4, 1 / 2, 1 / 1.3]),
        (quadratic([0.5, 0.3, 0.2]), 3, -0.8, [0, 0, 0], [1 / 0.6, 1 / 0.76, 1 / 0.84]),
    ],
)
def test_known_gaussians(function, dim, rho, mean, variance, tmp_path):
    """Where log-volume is linear or quadratic in z, means and variances are those of the truth, at rho 1 and others."""
    measure = measure_of(function, dim, "normal", tmp_path)
    ends = [end_of(measure, number, rho=rho)[0].astype(np.float64) for number in range(16)]
    means, squares = np.array([z.mean(axis=0) for z in ends]), np.array([(z**2).mean(axis=0) for z in ends])
    for found, wanted in ((means, np.array(mean)), (squares, np.array(variance) + np.array(mean) ** 2)):
        error = found.std(axis=0, ddof=1) / 4
        assert (np.abs(found.mean(axis=0) - wanted) < 4.5 * error + 2 / 200).all()  # particles are biased by 1 / P
        assert error.max() < 0.06


@pytest.mark.slow
def test_a_mode_of_a_tenth(tmp_path):
    """A 2-D target with a 10:1 mode: a proposal that adapts to the greater mode must not take the lesser one away."""
    measure = measure_of(two_modes, 2, "normal", tmp_path)
    ends = [end_of(measure, number)[0] for number in range(12)]
    shares = np.array([(z[:, 0] > 0).mean() for z in ends])
    error = shares.std(ddof=1) / math.sqrt(12)
    assert error < 0.02
    assert abs(shares.mean() - 1 / 11) < 3.5 * error
    great = np.concatenate([z[z[:, 0] < 0, 0] for z in ends])
    assert abs(great.mean() + 1.5) < 0.05
    assert abs(great.std() - 0.5) < 0.05


def sphere_p_value(measure, seed):
    """χ² of 8,000 latents on 100 cells of the half sphere, all of the same area."""
    z, _ = end_of(measure, seed=seed, particles=8000, rounds=3, moves=4)
    height, turn = np.sin((z[:, 0] + 1) * (math.pi / 4)), (z[:, 1] + 1) / 2
    counts = np.histogram2d(height, turn, bins=10, range=[(0, 1), (0, 1)])[0]
    return stats.chisquare(counts.ravel()).pvalue


@pytest.mark.slow
def test_half_sphere(tmp_path, monkeypatch):
    """Uniform on the half sphere, over 50 seeds (docs/method.md#known-manifolds); not with weights exp(0.9 L)."""
    monkeypatch.setattr("magnet_cli.sampling.tempered.measure.batch_size", lambda _: 4096)  # three numbers are no image
    honest = measure_of(half_sphere, 2, "uniform", tmp_path)
    p_values = [sphere_p_value(honest, seed) for seed in range(50)]
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3
    false = measure_of(half_sphere, 2, "uniform", tmp_path, exaggerated=0.9)
    assert stats.kstest([sphere_p_value(false, seed) for seed in range(50)], "uniform").pvalue < 1e-3


@pytest.mark.slow
def test_small_rho_agrees_with_reweighting(tmp_path):
    """On the built-in digits, where the 20,000 rows have an effective size above 1,000: mean and spread."""
    measure, volume = digits()
    values = index.build(volume, 16).log_volume
    rho = 0.4  # what is right here was right at every smaller rho on the way; negative ones: test_known_gaussians
    weights = np.exp(rho * (values - values.mean()))
    weights /= weights.sum()
    size = 1 / (weights @ weights)
    assert size > 1000
    mean = weights @ values
    spread = math.sqrt(weights @ (values - mean) ** 2)
    asked = {"rho": rho, "particles": 64, "rounds": 2, "moves": 6}
    ends = np.array([end_of(measure, number, **asked)[1] for number in range(6)])
    error = math.hypot(ends.mean(axis=1).std(ddof=1) / math.sqrt(6), spread / math.sqrt(size))
    assert abs(ends.mean() - mean) < 4.5 * error
    assert abs(ends.std() - spread) < 4.5 * error
    assert error < 0.5  # nats, of 3 to 4


def digits():
    volume = select.named_volume("mnist-volume")
    return tempered.Measure(volume, models.load(Checkpoint.find("mnist")), 16), volume


def test_effective_draws_of_plain_prior_draws_are_below_one():
    """A sampler that does nothing is worth less than one draw (docs/method.md#effective-draws)."""
    benchmark = benchmark_module()
    rng = np.random.default_rng(0)
    means = [rng.normal(size=500).mean() for _ in range(8)]  # log-volume N(0, 1) under the prior: N(1, 1) at rho 1
    assert benchmark.effective(np.array(means), 1.0, 1.0).draws < 1.01
    wide = [5 * rng.normal(size=500).mean() for _ in range(8)]  # N(0, 5²): N(25, 5²)
    assert benchmark.effective(np.array(wide), 25.0, 25.0).draws < 0.1
    honest = [1 + rng.normal(size=500).mean() for _ in range(64)]
    assert 250 < benchmark.effective(np.array(honest), 1.0, 1.0).draws < 1000
    values = 5 * rng.normal(size=500)
    assert benchmark.reweighted(values, 1.0) < 20


@pytest.mark.slow
def test_the_interval_of_the_advantage_covers():
    """At least 90 % for a nominal 95 %, of ratios that are known, for samplers that lag and for such that only vary."""
    benchmark = benchmark_module()
    rng = np.random.default_rng(0)
    for ours, theirs in (((0, 1), (-3, 1)), ((-2, 2), (-15, 3)), ((0, 1), (0, 2))):  # bias and deviation of each
        truth = (theirs[0] ** 2 + theirs[1] ** 2) / (ours[0] ** 2 + ours[1] ** 2)
        inside = 0
        for _ in range(1000):
            found = benchmark.advantage(rng.normal(*ours, size=8), rng.normal(*theirs, size=8), 0.0)
            assert found[1] < found[0] < found[2]
            inside += found[1] <= truth <= found[2]
        assert inside >= 900


def benchmark_module():
    path = Path(__file__).parents[2] / "benchmarks" / "tempered.py"
    spec = importlib.util.spec_from_file_location("benchmarks_tempered", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def asked_of(toy, toy_volume, n, *more, rho=0.4):
    flags = ("--method", "tempered", "--particles", 16, "--rho", rho, "--volume", toy_volume.path)
    return ("sample", toy, "--n", n, *flags, *more)


def run_of(home):
    (path,) = (home / "tempered").iterdir()
    return path


@pytest.mark.slow
def test_a_sample_of_fresh_latents(magnet, toy, toy_volume, home):
    done = magnet(*asked_of(toy, toy_volume, 40, "--json", "--out", "s"))
    assert done.code == 0, done.err
    report = done.json
    assert {
        "sample",
        "n",
        "images",
        "rho",
        "top_k",
        "replace",
        "pool",
        "unique_rows",
        "effective_size",
    } <= report.keys()
    assert report["islands"] == 3
    z = np.load("s/latents.npy")
    assert z.shape == (40, 5)
    assert len(np.unique(z, axis=0)) == 40
    assert not (z[:, None] == toy_volume.latents(np.arange(200))[None]).all(axis=2).any()
    records = [json.loads(line) for line in Path("s/metadata.jsonl").read_text().splitlines()]
    assert {(record["row"], record["source"]) for record in records} == {(None, "polarity")}
    told = json.loads(Path("s/sample.json").read_text())["tempered"]
    assert told["spec"]["schedule"]["particles"] == 16
    assert told["jacobians"] == report["jacobians"] > 48
    assert len(told["schedule"]) == len(told["accepted"]) == 3
    assert told["r_hat"][-1][0] == 0.4
    assert "about" in done.err
    assert "Jacobians" in done.err
    measure = tempered.Measure(toy_volume, models.load(Checkpoint.find(str(toy))), 5)
    assert np.allclose([record["log_volume"] for record in records], measure.log_volume(z), atol=1e-5)
    again = magnet(*asked_of(toy, toy_volume, 40, "--json", "--out", "s"))
    assert again.json == report
    assert magnet("info", "s", "--check").code == 0


@pytest.mark.slow
def test_fewer_are_a_prefix_and_nothing_is_computed_twice(magnet, toy, toy_volume, home):
    assert magnet(*asked_of(toy, toy_volume, 40, "--out", "more")).code == 0
    before = {path.name: path.stat().st_mtime_ns for path in (run_of(home) / "islands").iterdir()}
    fewer = magnet(*asked_of(toy, toy_volume, 20, "--out", "fewer"))
    assert fewer.code == 0
    assert "Jacobians and" not in fewer.err
    assert {path.name: path.stat().st_mtime_ns for path in (run_of(home) / "islands").iterdir()} == before
    assert (np.load("fewer/latents.npy") == np.load("more/latents.npy")[:20]).all()
    for i in range(20):
        name = f"images/{i:06d}.png"
        assert Path("fewer", name).read_bytes() == Path("more", name).read_bytes()


def test_dry_run_says_what_it_costs_and_does_nothing(magnet, toy, toy_volume, home):
    done = magnet(*asked_of(toy, toy_volume, 20, "--dry-run", "--json"))
    assert done.code == 0
    assert done.json["expected_jacobians"] >= 32
    assert done.json["expected_seconds"] >= 0
    assert "nothing was done" in done.err
    assert not (home / "tempered").exists()
    assert not Path("samples").exists()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("island-*")}


@pytest.mark.slow
def test_stopped_anywhere_it_goes_on_to_the_same_bytes(toy_volume, toy_generator, tmp_path):
    measure = tempered.Measure(toy_volume, toy_generator, 5)
    spec = TemperedSpec.of(toy_volume, 5, Schedule(1.0, 16, 3, moves=4))
    whole = TemperedRun(tmp_path / "whole", spec)
    steps = len(list(tempered.advance(whole, measure, 2)))
    assert steps >= 4
    for stop in range(1, steps):
        part = TemperedRun(tmp_path / f"part-{stop}", spec)
        for count, _ in enumerate(tempered.advance(part, measure, 2), 1):
            if count == stop:
                break
        part = TemperedRun(part.path, spec)
        (part.path / "islands" / ".island-000001-step-001.h5.1-2.part").write_bytes(b"left by a killed process")
        assert len(list(tempered.advance(part, tempered.Measure(toy_volume, toy_generator, 5), 2))) == steps - stop
        assert contents(part.path / "islands") == contents(whole.path / "islands")


@pytest.mark.torture
def test_killed_it_goes_on_to_the_same_bytes(magnet, toy, toy_volume, home, tmp_path):
    line = [str(each) for each in asked_of(toy, toy_volume, 64, "--out", "killed", rho=1.0)]
    command = [sys.executable, "-m", "magnet_cli", *line]
    other = tmp_path / "other"
    process = subprocess.Popen(command, env=os.environ | {"MAGNET_HOME": str(other)}, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if len(list(other.glob("tempered/*/islands/island-*.json"))) > 3:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    done = subprocess.run(command, env=os.environ | {"MAGNET_HOME": str(other)}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert magnet(*asked_of(toy, toy_volume, 64, "--out", "straight", rho=1.0)).code == 0
    assert contents(run_of(other) / "islands").keys() == contents(run_of(home) / "islands").keys()
    assert np.load("killed/latents.npy").tobytes() == np.load("straight/latents.npy").tobytes()


@pytest.mark.torture
def test_every_flipped_byte_is_seen(magnet, toy, toy_volume, home):
    assert magnet(*asked_of(toy, toy_volume, 20, "--out", "s")).code == 0
    folder = run_of(home)
    whole = magnet("info", folder, "--check", "--json")
    assert (whole.code, whole.json["kind"], whole.json["islands"]) == (0, "tempered", 2)
    rng = np.random.default_rng(0)
    for path in [*sorted((folder / "islands").glob("island-*"))[:6], folder / "tempered.json"]:
        data = path.read_bytes()
        for _ in range(5):
            changed = bytearray(data)
            changed[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
            path.write_bytes(changed)
            found = magnet("info", folder, "--check")
            assert found.code == 1
            assert path.stem in found.out + found.err
        path.write_bytes(data)


@pytest.mark.slow
def test_damage_is_named_and_can_be_made_again(toy_volume, toy_generator, tmp_path):
    measure = tempered.Measure(toy_volume, toy_generator, 5)
    run = TemperedRun(tmp_path / "run", TemperedSpec.of(toy_volume, 5, Schedule(0.5, 16, 0, moves=4)))
    list(tempered.advance(run, measure, 1))
    before = contents(run.path / "islands")
    path = run.file(0, 1)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(DamageError, match="damaged"):
        list(tempered.advance(TemperedRun(run.path, run.spec), measure, 1))
    path.unlink()
    path.with_suffix(".json").unlink()
    list(tempered.advance(TemperedRun(run.path, run.spec), measure, 1))
    assert contents(run.path / "islands") == before


def test_labels_go_with_latents(tmp_path):
    """A conditional map whose classes have volumes of their own: the classes' shares are those of their volumes."""

    class Two(torch.nn.Module):
        latent_dim, prior, num_classes, image_shape = 2, "normal", 2, (2,)

        def __init__(self):
            super().__init__()
            self.like = torch.nn.Parameter(torch.empty(0), requires_grad=False)

        def forward(self, z, labels, truncation=1.0):
            return z * torch.tensor([1.0, 3.0])[labels, None].to(z).sqrt()

    generator = Generator("two", "own", "0" * 64, (2,), Prior("normal", 2, 2), Two().eval())
    volume = Volume(tmp_path / "planned", computing.volume_spec(generator, solver="exact"))
    island = Island(0, Schedule(1.0, 400, 0, moves=4), tempered.Measure(volume, generator, 2), [])
    steps = list(island.advance())
    labels = np.concatenate([step.labels for step in steps])[steps[-1].particles]
    assert abs(np.bincount(labels) / 400 - [0.25, 0.75]).max() < 0.03  # areas 1 and 3
    values = np.concatenate([step.log_volume for step in steps])[steps[-1].particles]
    assert np.allclose(values, np.log([1.0, 3.0])[labels], atol=1e-5)
    only = tempered.Measure(volume, generator, 2, label=(1,))
    assert set(end_of(only, particles=8)[1].round(4)) == {round(math.log(3), 4)}


@pytest.mark.parametrize(("latent_dim", "size", "moves"), [(5, 0, 24), (16, 0, 24), (100, 46, 72), (512, 0, 96)])
def test_walks_are_as_long_as_the_solver_asks(tmp_path, latent_dim, size, moves):
    """So that a walk is not short beside the Jacobian at its end, whatever the solver."""
    network = Map(lambda z: z, latent_dim, "normal")
    generator = Generator("map", "own", "0" * 64, network.image_shape, Prior("normal", latent_dim), network)
    spec = computing.volume_spec(generator, solver="pilot" if size else "exact")
    volume = Volume(tmp_path / "planned", dataclasses.replace(spec, solver_size=size))
    assert tempered.num_moves(volume) == moves


def test_r_hat_tells_islands_apart():
    rng = np.random.default_rng(0)
    same, weights = rng.normal(size=(4, 128)), np.ones((4, 128))
    assert tempered.r_hat(same, weights) < 1.05
    assert tempered.r_hat(same + np.arange(4)[:, None], weights) > 1.3
    assert tempered.r_hat(np.ones((4, 128)), weights) == 1


@pytest.mark.slow
def test_what_is_not_converged_is_said(magnet, toy, toy_volume, monkeypatch):
    monkeypatch.setattr(
        "magnet_cli.sampling.tempered.temper.r_hat", lambda values, _weights: 1.2 if len(values) else 1.0
    )
    done = magnet(*asked_of(toy, toy_volume, 20, "--quiet", "--json", "--out", "s"))
    assert done.code == 0
    assert "not converged at rho=0.4" in done.err
    assert done.json["converged"] is False
    assert done.json["converged_rho"] == 0


@pytest.mark.slow
def test_what_it_refuses(magnet, toy, toy_volume, tmp_path):
    assert magnet("sample", toy, "--particles", 16).code == 2
    assert magnet(*asked_of(toy, toy_volume, 20, "--replace")).code == 2
    imported = dataclasses.replace(toy_volume.spec, solver="imported", precision="unknown", imported_sha256="1" * 64)
    with pytest.raises(VolumeError, match="imported"):
        TemperedSpec.of(Volume(tmp_path / "imported", imported), 5, Schedule(1.0, 16, 0))
    with pytest.raises(SpecError, match="particles"):
        Schedule(1.0, 4, 0)
    run = TemperedRun(tmp_path / "run", TemperedSpec.of(toy_volume, 5, Schedule(0.5, 16, 0)))
    run.create()
    with pytest.raises(SampleError, match="does not hold"):
        tempered.outcome(run, 2, 20)
    with pytest.raises(SampleError, match="another tempered run"):
        TemperedRun(run.path, TemperedSpec.of(toy_volume, 4, Schedule(0.5, 16, 0))).create()
    code = "import sys, pathlib; from magnet_cli.sampling import tempered; "
    code += "tempered.TemperedRun.open(pathlib.Path(sys.argv[1])).claim()"
    run.claim()
    other = subprocess.run([sys.executable, "-c", code, str(run.path)], capture_output=True, text=True, check=False)
    assert "another process is at work" in other.stderr
