"""SLOGAN: losses and training, what is on disk, and a generator like any other."""

import dataclasses
import itertools
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
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy import stats
from torch_files import encrypted
from toys import slogan_weights, some_mixture

from magnet_cli import computing, index, models
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.computing.memory import BatchPlan
from magnet_cli.errors import GeneratorError, MagnetError, SampleError, SpecError, VolumeError
from magnet_cli.files import documents
from magnet_cli.maths.metrics import clusters
from magnet_cli.maths.mixture import Mixture
from magnet_cli.training.slogan import data, losses, networks, progress
from magnet_cli.training.slogan import run as run_
from magnet_cli.training.slogan.trainer import Recipe, Trainer
from magnet_cli.volume import Volume

SMALL = Recipe(components=3, latent_dim=4, steps=24, batch=16)


def two_blobs(path="blobs.npz", rows=2000, seed=0):
    """Points of two classes, 3:1, far apart."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(rows) % 4 == 0).astype(np.int64)
    points = (rng.normal(size=(rows, 2)) * 0.1 + np.where(labels, 0.7, -0.7)[:, None]).astype(np.float32)
    np.savez(path, points=points, labels=labels)
    return Path(path)


def stripes(path="stripes.npz", rows=60, side=12, channels=1):
    """Images of two classes: bright above, or below."""
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % 2
    images = rng.integers(0, 60, (rows, side, side, channels), dtype=np.uint8)
    images[labels == 0, : side // 2] += 190
    images[labels == 1, side // 2 :] += 190
    np.savez(path, images=images, labels=labels)
    return Path(path)


# --- losses ------------------------------------------------------------------------------------------------------


def test_the_contrastive_loss_is_the_formula():
    rng = np.random.default_rng(0)
    e, t = rng.normal(size=(2, 5, 3))
    found = losses.contrastive(torch.tensor(e), torch.tensor(t), 0.0, 2.0).numpy()
    cosine = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in t] for a in e])
    expected = [-math.log(np.exp(2 * cosine[i, i]) / np.exp(2 * cosine[i]).mean()) for i in range(5)]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_the_margin_is_added_to_the_own_angle():
    rng = np.random.default_rng(1)
    e, t = rng.normal(size=(2, 6, 3))
    cosine = (e / np.linalg.norm(e, axis=1, keepdims=True)) @ (t / np.linalg.norm(t, axis=1, keepdims=True)).T
    angle = np.arccos(np.diagonal(cosine))
    assert (angle < math.pi - 0.5).any()
    moved = np.where(angle < math.pi - 0.5, np.cos(angle + 0.5), np.cos(angle) - 0.5 * math.sin(0.5))
    logits = 2 * (cosine - np.diag(np.diagonal(cosine)) + np.diag(moved))
    expected = np.log(np.exp(logits).mean(axis=1)) - np.diagonal(logits)
    found = losses.contrastive(torch.tensor(e), torch.tensor(t), 0.5, 2.0).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    assert (found > losses.contrastive(torch.tensor(e), torch.tensor(t), 0.0, 2.0).numpy()).all()


def test_the_contrastive_loss_is_finite_where_angles_are_0_or_pi():
    e = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    losses.contrastive(e, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), 0.5, 4.0).sum().backward()
    assert torch.isfinite(e.grad).all()


def test_the_weight_of_the_contrastive_loss_falls():
    assert losses.annealed(4.0, 0.0) == 4.0
    falling = [losses.annealed(4.0, done) for done in np.linspace(0, 1, 5)]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] == 2.0


def test_the_penalty_is_half_the_squared_slope():
    slope = torch.tensor([3.0, -4.0])
    scores, found = losses.slope_penalty(lambda x: (x @ slope)[:, None], torch.randn(7, 2, generator=_rng()))
    assert scores.shape == (7, 1)
    assert found.item() == pytest.approx(12.5)


def test_adversarial_losses_are_the_logistic_ones():
    real, fake = torch.tensor([[2.0]]), torch.tensor([[-1.0]])
    expected = math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))
    assert losses.critic_loss(real, fake).item() == pytest.approx(expected)
    assert losses.adversarial(fake).tolist() == [1.0]


def test_the_probe_loss_is_cross_entropy_of_cosines():
    means = torch.eye(3)
    assert losses.probe(means, torch.arange(3), means, 100.0).item() == pytest.approx(0, abs=1e-6)
    assert losses.probe(means, torch.tensor([1, 2, 0]), means, 10.0).item() == pytest.approx(10, abs=1e-3)


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


# --- training ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"explicit": True}, {"no_contrastive": True}])
def test_one_seed_gives_one_set_of_weights_and_leaves_global_random_state_alone(changes):
    loaded = data.load(str(two_blobs()))
    recipe = Recipe(components=2, latent_dim=4, steps=6, batch=16, **changes)
    states, before = [], torch.get_rng_state()
    for _ in range(2):
        trainer = Trainer(recipe, loaded)
        first = {name: value.clone() for name, value in run_.generator_state(trainer).items()}
        for _ in range(6):
            trainer.advance()
        states.append(run_.generator_state(trainer))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    for name in ("body.0.weight", "mixture.weights", "mixture.means", "mixture.factors"):
        assert not torch.equal(first[name], states[0][name])


def test_without_the_contrastive_loss_neither_generator_nor_prior_feel_it():
    """Whatever its weight, the arm trains the same generator; with it, another."""
    loaded = data.load(str(two_blobs()))

    def trained(contrast, no_contrastive):
        recipe = Recipe(components=2, latent_dim=4, steps=3, batch=16, contrast=contrast, no_contrastive=no_contrastive)
        trainer = Trainer(recipe, loaded)
        for _ in range(3):
            trainer.advance()
        return run_.generator_state(trainer)

    one, other, third = trained(1.0, True), trained(8.0, True), trained(8.0, False)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(other["body.0.weight"], third["body.0.weight"])
    assert not torch.equal(other["mixture.means"], third["mixture.means"])


def test_the_logits_feel_the_adversarial_loss_alone():
    """A step's change of the logits is the same whatever the weight of the contrastive loss."""
    loaded = data.load(str(two_blobs()))
    found = []
    for contrast in (0.5, 50.0):
        trainer = Trainer(Recipe(components=2, latent_dim=4, steps=1, batch=16, contrast=contrast), loaded)
        trainer.advance()
        found.append(trainer.prior.logits)
    assert torch.equal(*found)
    assert found[0].abs().max() > 0


def test_the_weights_wait_as_long_as_they_are_told_to():
    trainer = Trainer(Recipe(components=2, latent_dim=4, steps=10, batch=16, wait=0.3), data.load(str(two_blobs())))
    moved = []
    for _ in range(5):
        before = trainer.prior
        trainer.advance()
        moved.append(
            (not torch.equal(before.logits, trainer.prior.logits), not torch.equal(before.means, trainer.prior.means))
        )
    assert moved == [(False, True)] * 3 + [(True, True)] * 2


@pytest.mark.slow
def test_two_classes_are_told_apart_and_counted(magnet):
    """About ten seconds of training: from 1:1 to 3:1, each component one class."""
    two_blobs()
    done = magnet(
        "train", "slogan", "--data", "blobs.npz", "--components", 2, "--steps", 1000, "--out", "run", "--json"
    )
    assert done.code == 0
    assert done.json["nmi"] > 0.9
    assert done.json["modes"] == 2
    assert done.json["weight_error"]["worst"] < 0.1
    assert sorted(done.json["weights"])[1] == pytest.approx(0.75, abs=0.1)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_learned_from_too(channels):
    loaded = data.load(str(stripes(channels=channels)))
    trainer = Trainer(Recipe(components=2, latent_dim=4, steps=2, batch=4, penalty_every=2), loaded)
    for _ in range(2):
        trainer.advance()
    images = trainer.render(trainer.mixture().draw(np.random.default_rng(0), 3)[0])
    assert images.shape == (3, channels, 12, 12)
    assert np.abs(images).max() <= 1
    found = progress.metrics_of(trainer, loaded)
    assert {"nmi", "ari", "purity", "weight_error", "weights"} <= found.keys()
    with Image.open(_written(progress.grid(trainer, loaded))) as picture:
        assert picture.width > 500


def _written(png):
    Path("grid.png").write_bytes(png)
    return "grid.png"


@pytest.mark.slow
def test_labelled_samples_teach_the_encoder_alone_what_component_they_are_of():
    loaded = data.load(str(two_blobs()))
    rng = np.random.default_rng(3)
    labels = np.array([1, 0] * 5)  # class 0 is component 1's
    points = (rng.normal(size=(10, 2)) * 0.1 + np.where(labels == 0, 0.7, -0.7)[:, None]).astype(np.float32)
    np.savez("probe.npz", points=points, labels=labels)
    probe = data.load_probe(Path("probe.npz"), loaded, 2)
    trainer = Trainer(Recipe(components=2, latent_dim=4, steps=150, batch=16), loaded, probe)
    for _ in range(150):
        trainer.advance()
    assert clusters.agreement(labels, trainer.clusters(points))["purity"] == 1
    assert (trainer.clusters(points) == labels).all()


# --- on disk -----------------------------------------------------------------------------------------------------


def advanced(trainer, steps):
    for _ in range(steps):
        trainer.advance()
    return trainer


@pytest.mark.parametrize("changes", [{}, {"explicit": True}])
def test_restored_training_goes_on_as_if_it_had_not_stopped(changes, tmp_path):
    loaded = data.load(str(two_blobs()))
    recipe = Recipe(components=3, latent_dim=4, steps=20, batch=16, **changes)
    run = run_.Run(tmp_path / "run")
    run.start(run_.RunSpec.of(loaded, None, recipe))
    run.save(advanced(Trainer(recipe, loaded), 9), [{"step": 9}])
    again = Trainer(recipe, loaded)
    assert run.restore(again) == [{"step": 9}]
    assert again.step == 9
    whole = advanced(Trainer(recipe, loaded), 20)
    advanced(again, 11)
    for name, value in run_._state(whole).items():
        assert torch.equal(value, run_._state(again)[name]), name


@pytest.mark.torture
def test_killed_at_random_and_resumed_gives_the_weights_of_an_unbroken_run(magnet):
    """Real processes, SIGKILL: the last one starts where the one before was stopped, not at 0."""
    two_blobs(rows=400)
    command = ["train", "slogan", "--data", "blobs.npz", "--components", "3", "--steps", "200", "--latent-dim", "4"]
    assert magnet(*command, "--out", "whole").code == 0
    rng, log, seen = np.random.default_rng(time.time_ns()), Path("killed/log.jsonl"), []
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-m", "magnet_cli", *command, "--out", "killed", "--quiet"], env=os.environ
        )
        known = log.stat().st_mtime_ns if log.exists() else 0
        while process.poll() is None and not (log.exists() and log.stat().st_mtime_ns > known):
            time.sleep(0.005)
        time.sleep(rng.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        process.wait()
        state = Path("killed/state.safetensors")
        seen.append(int(load_file(state)["step"]) if state.exists() else 0)
    assert seen[-1] > 0
    done = magnet(*command, "--out", "killed", "--resume", "--json")
    assert done.code == 0
    whole, killed = (load_file(f"{name}/{name}.safetensors") for name in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    lines = [
        [json.loads(line) for line in Path(f"{n}/log.jsonl").read_text().splitlines()] for n in ("whole", "killed")
    ]
    assert len(lines[0]) == 10
    assert [{**line, "seconds": 0} for line in lines[0]] == [{**line, "seconds": 0} for line in lines[1]]


@pytest.mark.slow
def test_a_finished_run_is_left_alone_and_another_is_refused(magnet):
    two_blobs(rows=100)
    command = ["train", "slogan", "--data", "blobs.npz", "--components", 2, "--steps", 3, "--out", "run"]
    done = magnet(*command, "--json")
    kept = {p: p.stat().st_mtime_ns for p in Path("run").rglob("*")}
    assert magnet(*command, "--json").out == done.out
    assert magnet(*command, "--resume", "--json").out == done.out
    assert magnet(*command, "--dry-run").code == 0
    assert {p: p.stat().st_mtime_ns for p in Path("run").rglob("*")} == kept
    other = magnet(*command[:-4], "--steps", 4, "--out", "run")
    assert other.code == 1
    assert "steps 3 (asked 4)" in other.err
    assert "--force" in other.err
    assert magnet(*command[:-4], "--steps", 4, "--out", "run", "--force").code == 0
    Path("run").rename("renamed")
    assert magnet("info", "renamed/run.safetensors", "--json").json["family"] == "slogan"
    assert magnet(*command[:-4], "--steps", 4, "--out", "renamed", "--json").code == 0
    changed = Path("renamed/run.safetensors")
    changed.write_bytes(changed.read_bytes()[:-1] + b"\1")
    assert "was changed" in magnet(*command[:-4], "--steps", 4, "--out", "renamed").err


def test_a_run_of_an_earlier_magnet_lacks_settings_that_were_then_as_they_are_by_default(tmp_path):
    spec = run_.RunSpec.of(data.load(str(two_blobs())), None, SMALL)
    run = run_.Run(tmp_path / "run")
    run.start(spec)
    fields = documents.read(run.path / "run.json")
    del fields["spec"]["recipe"]["wait"]
    (run.path / "run.json").write_bytes(documents.encode(fields))
    assert run.begun(spec)
    with pytest.raises(SampleError, match=r"wait 0\.0 \(asked 0\.5\)"):
        run.begun(dataclasses.replace(spec, recipe=dataclasses.replace(SMALL, wait=0.5)))


def test_what_is_asked_wrongly_is_said_in_words(magnet):
    two_blobs(rows=100)
    command = ["train", "slogan", "--components", 2, "--steps", 2]
    assert magnet(*command).code == 2
    assert "there is no such file" in magnet(*command, "--data", "nothing").err
    fresh = magnet(*command, "--data", "blobs.npz", "--out", "new", "--resume")
    assert (fresh.code, Path("new").exists()) == (1, False)
    Path("taken").mkdir()
    Path("taken/file").touch()
    assert "other files" in magnet(*command, "--data", "blobs.npz", "--out", "taken").err
    assert (
        "holds files that no training run has"
        in magnet(*command, "--data", "blobs.npz", "--out", "taken", "--force").err
    )
    assert Path("taken/file").exists()
    state = Path("run/state.safetensors")
    assert magnet("train", "slogan", "--components", 2, "--steps", 2, "--data", "blobs.npz", "--out", "run").code == 0
    run = json.loads(Path("run/run.json").read_text())
    Path("run/run.json").write_bytes(
        documents.encode({k: v for k, v in run.items() if k != "checksum"} | {"report": None})
    )
    state.write_bytes(state.read_bytes()[:100])
    assert "is damaged" in magnet(*command, "--data", "blobs.npz", "--out", "run").err


def test_the_synthetic_set_is_the_papers():
    found = data.synthetic()
    assert found.values.shape == (80_000, 2)
    np.testing.assert_allclose(found.shares, np.resize([1 / 16, 3 / 16], 8))
    np.testing.assert_allclose([found.values.min(axis=0), found.values.max(axis=0)], [[-1, -1], [1, 1]], atol=1e-6)
    centres = np.stack([found.values[found.labels == c].mean(axis=0) for c in range(8)])
    spread = found.values[found.labels == 1].std(axis=0)
    np.testing.assert_allclose(np.linalg.norm(centres[0] - centres[4]) / spread[0], 40, rtol=0.02)  # 4 over 0.1
    assert data.synthetic().sha256 == found.sha256


def test_data_of_every_form_are_read(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    for form in (pixels, pixels.transpose(0, 3, 1, 2)):
        np.savez(tmp_path / "a.npz", images=form)
        found = data.load(str(tmp_path / "a.npz"))
        np.testing.assert_array_equal(found.values, pixels.transpose(0, 3, 1, 2))
        assert found.labels is None
    for i, name in enumerate(["cat", "cat", "dog", "dog", "dog", "cat"]):
        (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[i]).save(tmp_path / "set" / name / f"{i}.png")
    found = data.load(str(tmp_path / "set"))
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.shape == (3, 8, 8)
    np.testing.assert_allclose(found.intensities(np.array([0]))[0], pixels[0].transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"other": np.zeros(3)}, "neither points nor images"),
        ({"images": np.zeros((3, 4, 5), np.uint8)}, "of the wrong form"),
        ({"images": np.zeros((3, 4, 4), np.float32)}, "of the wrong form"),
        ({"points": np.array([[np.nan, 1.0], [0.0, 0.0]])}, "of the wrong form"),
        ({"points": np.zeros((4, 2)), "labels": np.zeros(3, int)}, "labels"),
        ({"points": np.zeros((1, 2))}, "1 samples"),
        ({"points": np.array([[{}]], dtype=object)}, "cannot be read as an npz file"),
    ],
)
def test_data_that_are_none_are_refused(arrays, words, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(MagnetError, match=words):
        data.load(str(tmp_path / "a.npz"))


def test_an_encrypted_archive_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", points=np.zeros((4, 2)))
    (tmp_path / "a.npz").write_bytes(encrypted((tmp_path / "a.npz").read_bytes()))
    with pytest.raises(MagnetError, match=r"cannot be read as an npz file: .*encrypted"):
        data.load(str(tmp_path / "a.npz"))


def test_probes_have_to_fit():
    loaded = data.load(str(two_blobs()))
    with pytest.raises(SpecError, match="label 1"):
        data.load_probe(two_blobs("p.npz"), loaded, 1)
    np.savez("q.npz", points=np.zeros((4, 3)), labels=np.zeros(4, int))
    with pytest.raises(SpecError, match=r"shape \[3\]"):
        data.load_probe(Path("q.npz"), loaded, 2)
    np.savez("r.npz", points=np.zeros((4, 2)))
    with pytest.raises(SpecError, match="no labels"):
        data.load_probe(Path("r.npz"), loaded, 2)


# --- a generator like any other ----------------------------------------------------------------------------------


def checkpoint(path="toy-slogan.safetensors", shape=(1, 12, 12)):
    mixture = some_mixture()
    body = networks.generator(4, shape, 4, _rng())
    save_file(slogan_weights(shape, mixture), path)
    return Path(path), body, mixture


@pytest.mark.parametrize("shape", [(2,), (5,), (1, 12, 12), (3, 28, 28), (1, 32, 32), (3, 64, 64)])
def test_the_family_builds_what_was_trained(shape):
    path, body, mixture = checkpoint(shape=shape)
    found = models.load(Checkpoint.find(str(path)))
    assert (found.family, found.prior.kind, found.latent_dim, found.num_classes) == ("slogan", "mixture", 4, 3)
    assert found.image_shape == shape
    z = torch.randn(5, 4, generator=_rng(1))
    with torch.no_grad():
        expected = body(z)
    torch.testing.assert_close(found(z), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found(z, labels=torch.zeros(5, dtype=torch.int64)), found(z))
    np.testing.assert_array_equal(found.prior.mixture.weights, mixture.weights)


def test_truncation_draws_to_the_mean_of_the_nearest_component():
    path, _, mixture = checkpoint()
    found = models.load(Checkpoint.find(str(path)), dtype=torch.float64)
    z, _ = mixture.draw(np.random.default_rng(0), 20)
    means = mixture.means[mixture.log_densities(z).argmax(axis=1)]
    z = torch.from_numpy(z).double()
    means = torch.from_numpy(means)
    torch.testing.assert_close(found(z, 0.3), found(means + 0.3 * (z - means)))
    assert not torch.allclose(found(z, 0.3), found(z))


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("body.end.bias"),
        lambda state: state.update({"extra": torch.zeros(1)}),
        lambda state: state.update({"mixture.weights": torch.tensor([0.5, 0.6, 0.1])}),
        lambda state: state.update({"mixture.means": torch.zeros(3, 5)}),
        lambda state: state.update({"mixture.factors": -torch.eye(4).repeat(3, 1, 1)}),
        lambda state: state.update({"body.blocks.0.two.weight": torch.zeros(8, 8, 3, 3)}),
    ],
)
def test_weights_that_are_not_whole_are_refused(change):
    path, *_ = checkpoint()
    state = load_file(path)
    change(state)
    save_file(state, "wrong.safetensors")
    with pytest.raises(GeneratorError):
        models.load(Checkpoint.find("wrong.safetensors"))


def test_images_of_odd_sides_are_refused():
    with pytest.raises(SpecError, match="side 37"):
        networks.generator(4, (1, 37, 37), 4, _rng())
    with pytest.raises(SpecError, match="side 5"):
        networks.generator(4, (1, 5, 5), 4, _rng())


def test_draws_are_a_prefix_of_more_and_labels_follow_the_weights():
    mixture = some_mixture()
    z, labels = mixture.draw(np.random.default_rng([1, 2]), 30_000)
    fewer, few_labels = mixture.draw(np.random.default_rng([1, 2]), 77)
    np.testing.assert_array_equal(fewer, z[:77])
    np.testing.assert_array_equal(few_labels, labels[:77])
    assert stats.chisquare(np.bincount(labels), 30_000 * mixture.weights).pvalue > 1e-3
    for c in range(3):
        white = np.linalg.solve(mixture.factors[c], (z[labels == c] - mixture.means[c]).T)
        assert stats.kstest(white.ravel(), "norm").pvalue > 1e-3
    _, some = mixture.draw(np.random.default_rng(0), 30_000, (2, 0))
    assert stats.chisquare(np.bincount(some)[[0, 2]], 30_000 * np.array([1, 3]) / 4).pvalue > 1e-3


def volume_of(path, rows=900, label=(), seed=0):
    found = models.load(Checkpoint.find(str(path)))
    spec = computing.volume_spec(found, rows_per_shard=300, label=label, seed=seed)
    volume = Volume.create(Path(f"v{seed}-{label}.vol"), spec, mixture=found.prior.mixture)
    list(computing.fill(volume, found, rows, BatchPlan(100)))
    return found, volume


def test_a_volume_holds_draws_of_the_mixture_and_the_mixture():
    path, _, mixture = checkpoint(shape=(3,))
    _, volume = volume_of(path)
    rows = np.arange(900)
    latents, labels = volume.latents(rows), volume.labels(rows)
    expected = [mixture.draw(np.random.default_rng([0, shard]), 300) for shard in range(3)]
    np.testing.assert_array_equal(latents, np.concatenate([z for z, _ in expected]))
    np.testing.assert_array_equal(labels, np.concatenate([c for _, c in expected]))
    np.testing.assert_array_equal(volume.mixture().factors, mixture.factors)
    assert volume.check() == []
    built = index.build(volume, 3)
    found = index.log_prior(volume, built.parts).values
    each = [stats.multivariate_normal(mixture.means[c], s).pdf(latents) for c, s in enumerate(_covariances(mixture))]
    np.testing.assert_allclose(found, np.log(mixture.weights @ np.array(each)), rtol=1e-5)
    inside = index.ball(volume.spec, 0.9, volume.mixture())
    many, _ = mixture.draw(np.random.default_rng(5), 50_000)
    assert (mixture.log_density(many) >= inside.edge).mean() == pytest.approx(0.9, abs=0.006)
    corrected = index.corrected(built, index.log_prior(volume, built.parts), inside)
    assert corrected.pool(1.0) == np.count_nonzero(found >= inside.edge)
    kept = volume.path / "mixture.h5"
    kept.write_bytes(kept.read_bytes()[:-1] + b"\1")
    with pytest.raises(VolumeError, match="damaged or gone"):
        volume.mixture()
    assert any("mixture.h5" in problem for problem in volume.check())


def _covariances(mixture):
    return [factor @ factor.T for factor in mixture.factors]


def test_the_region_of_one_standard_component_is_the_ball():
    one = Mixture(np.ones(1), np.zeros((1, 6)), np.eye(6)[None])
    edge = -0.5 * stats.chi2.ppf(0.99, 6) - 3 * math.log(2 * math.pi)
    assert one.lowest(0.99) == pytest.approx(edge, abs=0.15)


def test_a_volume_of_one_component_has_that_components_density():
    path, _, mixture = checkpoint(shape=(3,))
    _, volume = volume_of(path, label=(1,))
    assert set(volume.labels(np.arange(900)).tolist()) == {1}
    z = volume.latents(np.arange(50))
    expected = stats.multivariate_normal(mixture.means[1], _covariances(mixture)[1]).logpdf(z)
    np.testing.assert_allclose(volume.mixture().log_density(z), expected, rtol=1e-9)


def test_uniform_on_the_manifold_whatever_the_mixture():
    """Corrected draws at rho 1 of the identity on the plane are uniform where rows compete: counts of equal cells."""
    mixture = Mixture(
        np.array([0.7, 0.3]),
        np.array([[-1.0, 0.0], [1.0, 0.5]]),
        np.array([[[1.0, 0.0], [0.2, 0.8]], [[0.7, 0.0], [-0.2, 1.0]]]),
    )
    path = Path("identity.safetensors")
    state = {"body.0.weight": torch.eye(2), "body.0.bias": torch.full((2,), 50.0)}  # ReLU that never bends
    state |= {"body.2.weight": torch.eye(2), "body.2.bias": torch.zeros(2)}
    state |= {f"mixture.{name}": torch.from_numpy(getattr(mixture, name)) for name in ("weights", "means", "factors")}
    save_file(state, path)
    pvalues = []
    for seed, rows in itertools.product(range(2), [60_000]):
        found = models.load(Checkpoint.find(str(path)))
        spec = computing.volume_spec(found, rows_per_shard=rows, seed=seed)
        volume = Volume.create(Path(f"{seed}.vol"), spec, mixture=found.prior.mixture)
        list(computing.fill(volume, found, rows, BatchPlan(20_000)))
        built = index.build(volume, 2)
        inside = index.ball(volume.spec, 0.9, volume.mixture())
        built = index.corrected(built, index.log_prior(volume, built.parts), inside)
        drawn = index.draw(built, 400, 1.0, 0)
        assert drawn.displaced_share < 0.05
        points = volume.latents(drawn.rows)
        cells = np.stack(np.meshgrid(*[np.arange(-4, 4, 0.02) + 0.01] * 2), axis=-1).reshape(-1, 2)
        cells = cells[mixture.log_density(cells) >= inside.edge]
        expected, *edges = np.histogram2d(*cells.T, bins=5, range=[[-3, 3], [-3, 3]])
        counts = np.histogram2d(*points.T, bins=edges)[0]
        kept = expected > 0.02 * expected.sum()
        observed, wanted = counts[kept], expected[kept]
        pvalues.append(stats.chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue)
    assert min(pvalues) > 1e-3


@pytest.mark.slow
def test_every_command_takes_it(magnet):
    path, _, mixture = checkpoint(shape=(1, 32, 32))
    computed = magnet("compute", path, "--n", 240, "--solver", "exact", "--json")
    assert computed.code == 0
    drawn = magnet("sample", path, "--n", 30, "--rho", 0, "--label", 2, "--out", "twos", "--json")
    assert drawn.code == 0
    assert set(np.load("twos/labels.npy").tolist()) == {2}
    assert magnet("sample", path, "--n", 30, "--rho", 0, "--classes", "equal", "--out", "equal").code == 0
    assert np.bincount(np.load("equal/labels.npy")).tolist() == [10, 10, 10]
    assert magnet("sample", path, "--n", 200, "--rho", 0, "--out", "natural").code == 0
    counts = np.bincount(np.load("natural/labels.npy"))
    assert stats.chisquare(counts, 200 * mixture.weights).pvalue > 1e-3
    fixed = magnet("sample", path, "--n", 20, "--rho", 0.05, "--correct-prior", "--out", "corrected", "--json")
    assert fixed.json["ball"]["radius"] is None
    assert "region of highest density that holds 0.99" in fixed.json["target"]
    for labels in ([], ["--labels", "twos/labels.npy"]):
        out = f"rendered{len(labels)}"
        assert magnet("render", path, "--latents", "twos/latents.npy", *labels, "--out", out).code == 0
    same = [sorted(Path(f"{name}/images").iterdir()) for name in ("rendered0", "rendered2", "twos")]
    assert len({tuple(p.read_bytes() for p in images) for images in same}) == 1
    assert magnet("sample", path, "--n", 8, "--method", "tempered", "--particles", 8, "--out", "moved").code == 0
    assert magnet("attributes", path, "--n", 50, "--model", "digits", "--out", "scores").code == 0
    latents, labels = mixture.draw(np.random.default_rng([0, 0]), 50)
    np.testing.assert_array_equal(np.load("scores/latents.npy"), latents)
    np.testing.assert_array_equal(np.load("scores/labels.npy"), labels)
    assert magnet("convert", path, "again.safetensors").code == 0
    assert magnet("info", path, "--json").json["weights"] == pytest.approx(mixture.weights.tolist())
    volume = computed.json["volume"]
    sent = magnet("push", volume, "me/volume", "--dry-run", "--json").json
    assert sent["files"] == 2 + 2 * computed.json["shards"] + 1  # volume.json, the mixture, shards and marks, manifest
    longer = magnet("compute", path, "--n", 300, "--solver", "exact", "--json").json
    assert (longer["rows"], longer["volume"]) == (300, volume)


# --- metrics -----------------------------------------------------------------------------------------------------


def test_clusters_are_held_against_classes():
    labels = np.array([0, 0, 0, 1, 1, 2])
    perfect = clusters.agreement(labels, np.array([2, 2, 2, 0, 0, 1]))
    assert perfect == {"purity": 1.0, "ari": 1.0, "nmi": 1.0}
    assert clusters.agreement(labels, np.zeros(6, int))["purity"] == 0.5
    table = clusters.counts(labels, np.array([2, 2, 1, 0, 0, 1]), (3, 4))
    assert table.tolist() == [[0, 1, 2, 0], [2, 0, 0, 0], [0, 1, 0, 0]]
    class_of = clusters.matched(table)
    assert class_of.tolist() == [1, 2, 0, -1]
    errors = clusters.weight_errors(np.array([0.4, 0.1, 0.45, 0.05]), np.array([0.5, 1 / 3, 1 / 6]), class_of)
    assert errors["worst"] == pytest.approx(0.4 - 1 / 3)
    assert errors["mean"] == pytest.approx((0.05 + 0.4 - 1 / 3 + 1 / 6 - 0.1) / 3)


class Exact(Trainer):
    """A generator that gives its latents, which are the data's modes at a scale."""

    scale = 1.0

    def mixture(self):
        loaded = data.synthetic()
        groups = [loaded.values[loaded.labels == c] for c in range(8)]
        factors = np.stack([np.diag(self.scale * group.std(axis=0)) for group in groups]).astype(float)
        return Mixture(loaded.shares, np.stack([group.mean(axis=0) for group in groups]).astype(float), factors)

    def render(self, z):
        return z


@pytest.mark.parametrize(("scale", "truth"), [(1.0, 1.0), (0.5, 0.5 / math.sqrt(1 - 4.5 / (math.exp(4.5) - 1)))])
def test_the_spread_of_draws_within_modes(scale, truth):
    """Distances beyond 3 are left out: E[r² | r < 3] of two dimensions is 2 (1 − 4.5 / (exp(4.5) − 1))."""
    trainer = Exact(SMALL, data.synthetic())
    trainer.scale = scale
    spread = progress.metrics_of(trainer, data.synthetic())["spread"]
    assert spread["mean"] == pytest.approx(truth, rel=0.02)
    assert spread["mean"] * 0.9 < spread["narrowest"] <= spread["mean"]


def test_a_run_that_came_apart_is_said_so():
    trainer = Trainer(SMALL, data.load(str(two_blobs())))
    trainer.advance()
    trainer.last_losses["critic"] = torch.tensor(float("nan"))
    with pytest.raises(GeneratorError, match="training diverged"):
        trainer.losses()


def test_runs_of_other_kinds_are_refused(tmp_path):
    run = run_.Run(tmp_path)
    (tmp_path / "other").touch()
    loaded = data.load(str(two_blobs()))
    with pytest.raises(SampleError, match="other files"):
        run.begun(run_.RunSpec.of(loaded, None, SMALL))
