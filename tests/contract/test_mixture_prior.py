"""Every verb that draws latents draws a mixture's from the mixture, and its labels are their components."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.torch import save_file
from scipy import stats
from toys import slogan_weights, some_mixture

from magnet_cli import computing, index, models
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.computing import solver_choice
from magnet_cli.editing import rescore
from magnet_cli.evaluating.sweep import reference
from magnet_cli.files import documents, pictures
from magnet_cli.files.progress import SILENT
from magnet_cli.index import Index
from magnet_cli.models import batches, image_models
from magnet_cli.sampling import select, tempered
from magnet_cli.volume import Volume

JUDGE = """
import torch


class Bright(torch.nn.Module):
    classes = ("dark", "bright")

    def forward(self, images):
        score = STEEP * (images.mean(dim=(1, 2, 3)) - MIDDLE)
        return torch.stack([torch.zeros_like(score), score], dim=1)
"""


@pytest.fixture
def mixture():
    return some_mixture()


@pytest.fixture
def slogan():
    """Path of a small generator with that mixture: D = 4, 1x32x32 images."""
    save_file(slogan_weights((1, 32, 32)), "toy-slogan.safetensors")
    return "toy-slogan.safetensors"


@pytest.fixture
def generator(slogan):
    return models.load(Checkpoint.find(slogan))


@pytest.mark.slow
def test_compute(magnet, slogan, mixture):
    line = ["compute", slogan, "--n", 60, "--shard-rows", 40, "--seed", 3, "--label", 2, "--label", 0, "--volume", "v"]
    assert magnet(*line, "--solver", "exact").code == 0
    for shard, rows in ((0, 40), (1, 20)):
        latents, components = mixture.draw(np.random.default_rng([3, shard]), rows, (2, 0))
        with h5py.File(f"v/shards/shard-{shard:06d}.h5") as file:
            np.testing.assert_array_equal(file["latents"][:], latents)
            np.testing.assert_array_equal(file["labels"][:], components)


def test_the_choice_of_a_solver(generator, mixture):
    asked = computing.volume_spec(generator, label=(1,))
    trial = solver_choice._Trial(lambda _precision: (generator, None), asked, None)
    latents = trial.latents(0, 50)
    likely = mixture.log_densities(latents).argmax(axis=1)
    assert np.mean(likely == 1) > 0.6
    near = np.linalg.solve(mixture.factors[1], (latents - mixture.means[1]).T)
    assert abs(near.std() - 1) < 0.15


def test_edit(magnet, slogan, mixture):
    np.save("line.npy", np.eye(4, dtype=np.float32)[:1])
    line = ["edit", slogan, "--direction", "line.npy", "--n", 40, "--seed", 5, "--steps", 3]
    done = magnet(*line, "--out", "all", "--json")
    assert done.code == 0, done.err
    latents, components = mixture.draw(np.random.default_rng([5, 0]), 40)
    np.testing.assert_array_equal(np.load("all/latents.npy")[1::3], latents)  # the middle is the latent itself
    np.testing.assert_array_equal(np.load("all/labels.npy")[::3], components)
    assert magnet(*line, "--label", 2, "--out", "twos").code == 0
    latents, components = mixture.draw(np.random.default_rng([5, 0]), 40, (2,))
    np.testing.assert_array_equal(np.load("twos/latents.npy")[1::3], latents)
    assert set(np.load("twos/labels.npy")) == set(components) == {2}


@pytest.mark.slow
def test_the_reference_of_a_sweep(magnet, slogan, mixture):
    assert magnet("compute", slogan, "--n", 200, "--solver", "exact", "--volume", "v").code == 0
    line = ["sweep", slogan, "--volume", "v", "--rho", "0,.1", "--n", 40, "--features", "digits", "--out", "s"]
    done = magnet(*line)
    assert done.code == 0, done.err
    spec = documents.read(Path("s/reference/rendering.json"))["spec"]
    latents, components = mixture.draw(np.random.default_rng([reference._STREAM, 0]), 40)
    assert spec["latents"] == documents.sha256_bytes(pictures.npy(latents))
    assert spec["labels"] == documents.sha256_bytes(pictures.npy(components))


@pytest.mark.slow
def test_a_sample_of_some_labels_divides_by_the_density_of_what_competes(magnet, slogan, mixture):
    """Of one label that of its component; where classes take turns, of each its own."""
    line = ["--solver", "exact", "--volume"]
    assert magnet("compute", slogan, "--n", 200, *line, "v").code == 0
    assert magnet("compute", slogan, "--n", 50, "--label", 2, "--label", 1, *line, "two").code == 0
    volume = Volume.open("v")
    rows = next(shard for _, shard in volume.rows())
    normals = [stats.multivariate_normal(m, f @ f.T) for m, f in zip(mixture.means, mixture.factors, strict=True)]
    logs = np.stack([each.logpdf(rows.latents) for each in normals], axis=1) + np.log(mixture.weights)
    plain = Index.of(volume)
    for label, equal in (((1,), False), ((0, 2), False), ((), True), ((2, 0), True)):
        built = select.corrected(plain, volume, SILENT, None, 1.0, label, equal=equal)
        weights = index.of_labels(built, volume, label, equal=equal).weights(1.0)
        for c in label or (0, 1, 2):
            ours = rows.labels == c
            density = logs[:, c] if equal else np.logaddexp.reduce(logs[:, label], axis=1)
            drawn = ours & (weights > 0)
            assert drawn.sum() > 0.9 * ours.sum()
            assert np.ptp(np.log(weights[drawn]) - plain.log_volume[drawn] + density[drawn]) < 1e-4, (label, equal)
            away = np.linalg.solve(mixture.factors[c], (rows.latents - mixture.means[c]).T)
            inside = (away**2).sum(axis=0) <= stats.chi2.ppf(0.99, 4)
            if equal or len(label) == 1:  # the region of the component; drawn, to a few in a hundred
                assert np.mean((weights > 0)[ours] == inside[ours]) > 0.98
    alone = magnet("sample", slogan, "--volume", "two", "--label", 1, "--n", 9, "--correct-prior", "--no-images")
    assert alone.code == 0, alone.err
    wrong = magnet(
        "sample", slogan, "--volume", "two", "--label", 0, "--n", 9, "--correct-prior", "--no-images", "--force"
    )
    assert wrong.code == 1
    assert "rows of label 0" in wrong.err


def test_attributes(magnet, slogan, mixture):
    line = ["attributes", slogan, "--n", 50, "--seed", 2, "--label", 1, "--label", 2, "--model", "digits", "--out", "a"]
    assert magnet(*line).code == 0
    latents, components = mixture.draw(np.random.default_rng([2, 0]), 50, (1, 2))
    np.testing.assert_array_equal(np.load("a/latents.npy"), latents)
    np.testing.assert_array_equal(np.load("a/labels.npy"), components)


@pytest.mark.slow
def test_the_rescoring_of_directions(magnet, slogan, generator, mixture):
    """What the command reports is what moves of the mixture's own draws give; draws of N(0, I) give something else."""
    pool, _ = mixture.draw(np.random.default_rng(9), 2000)
    brightness = np.array([image.mean() for image in batches.images(generator, pool, 1.0, 2000)]) / 127.5 - 1
    numbers = {"STEEP": 4 / brightness.std(), "MIDDLE": np.median(brightness)}
    Path("judge.py").write_text(JUDGE + "".join(f"\n{name} = {value}" for name, value in numbers.items()))
    line = ["attributes", slogan, "--n", 400, "--label", 0, "--label", 2, "--model", "judge.py:Bright", "--out", "a"]
    assert magnet(*line).code == 0
    line = ["direction", "a", "--attribute", "judge.py:Bright", "--n", 200, "--rescore", "--moved", 200]
    done = magnet(*line, "--generator", slogan, "--model", "judge.py:Bright", "--out", "bright.npy", "--json")
    assert done.code == 0, done.err
    told = done.json["rescore"]["balanced"]["judge.py:Bright"]["judge.py:Bright"]
    fresh, components = rescore.draw_latents(generator, 200, 0, (0, 2))
    known = mixture.draw(np.random.default_rng([rescore._STREAM, 0]), 200, (0, 2))
    np.testing.assert_array_equal(fresh, known[0])
    np.testing.assert_array_equal(components, known[1])
    other = np.random.default_rng(0).standard_normal((200, 4)).astype(np.float32)
    judge, vector = image_models.load_scorer("judge.py:Bright"), np.load("bright.npy")

    def change(latents):
        scores = [
            judge.probabilities(batches.images(generator, latents + end * vector, 1.0, 200))[:, 1].astype(np.float64)
            for end in (done.json["rescore"]["from"], done.json["rescore"]["to"])
        ]
        return float((scores[1] - scores[0]).mean())

    assert told["value"] == pytest.approx(change(known[0]), abs=1e-4)
    assert abs(told["value"] - change(other)) > 0.01


@pytest.mark.slow
def test_a_tempered_sample(magnet, slogan, mixture):
    """Its latents are the mixture's where log-volumes weigh nothing, its labels the components that were named."""
    assert magnet("compute", slogan, "--n", 60, "--volume", "v").code == 0
    line = ["sample", slogan, "--volume", "v", "--method", "tempered", "--n", 64, "--rho", 0.01, "--label", 2]
    done = magnet(*line, "--label", 0, "--particles", 32, "--out", "s")
    assert done.code == 0, done.err
    latents, labels = np.load("s/latents.npy"), np.load("s/labels.npy")
    assert set(labels) == {0, 2}
    away = [np.linalg.solve(mixture.factors[c], (latents[labels == c] - mixture.means[c]).T) for c in (0, 2)]
    assert abs(np.concatenate(away, axis=1).std() - 1) < 0.2
    assert magnet("info", "s", "--check").code == 0


def test_the_start_of_a_tempered_run(tmp_path, generator, mixture):
    volume = Volume(tmp_path / "planned", computing.volume_spec(generator, solver="exact"))
    latents, labels = tempered.Measure(volume, generator, 4).prior(np.random.default_rng(1), 30, 0)
    known = mixture.draw(np.random.default_rng(1), 30)
    np.testing.assert_array_equal(latents, known[0])
    np.testing.assert_array_equal(labels, known[1])
