"""score_generator: scores of the images of a generator, which survive any stop."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from magnet_cli import models
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.evaluating import score_generator
from magnet_cli.models import batches, image_models

TEN = tuple("0123456789")


@pytest.mark.slow
def test_scores_are_those_of_the_images_and_nothing_else_is_kept(magnet, monkeypatch):
    monkeypatch.setattr(score_generator, "_SHARD_WORK", 32 * 32 * 100)
    done = magnet(
        "attributes", "mnist", "--n", 250, "--model", "digits", "--model", "digits-onnx", "--out", "a", "--json"
    )
    assert done.code == 0, done.err
    assert sorted(p.name for p in Path("a").iterdir()) == ["attributes.json", "latents.npy", "scores.npz"]
    latents = np.load("a/latents.npy")
    assert latents.shape == (250, 16)
    assert len(np.unique(latents, axis=0)) == 250
    scores = np.load("a/scores.npz")
    assert set(scores.files) == {"digits", "digits_classes", "digits-onnx", "digits-onnx_classes"}
    assert tuple(scores["digits_classes"]) == TEN
    generator, judge = models.load(Checkpoint.find("mnist")), image_models.load_scorer("digits")
    pixels = np.stack(list(batches.each_image(generator, latents, 1.0, 250)))
    np.testing.assert_allclose(scores["digits"], judge.probabilities(pixels), atol=2e-3)
    np.testing.assert_allclose(scores["digits-onnx"], scores["digits"], atol=1e-4)
    counted = np.bincount(scores["digits"].argmax(axis=1), minlength=10) / 250
    said = done.json["models"]["digits"]["shares"]
    np.testing.assert_allclose([said[name]["value"] for name in TEN], counted)
    assert magnet("info", "a", "--check").code == 0


def test_a_finished_folder_is_known_again_and_others_are_left_alone(magnet, tmp_path):
    first = magnet("attributes", "mnist", "--n", 40, "--model", "digits", "--out", "a", "--json")
    again = magnet("attributes", "mnist", "--n", 40, "--model", "digits", "--out", "a", "--json")
    assert (again.code, again.json) == (0, first.json)
    other = magnet("attributes", "mnist", "--n", 41, "--model", "digits", "--out", "a")
    assert (other.code, other.out) == (1, "")
    assert "n 40 (asked 41)" in other.err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    taken = magnet("attributes", "mnist", "--n", 40, "--model", "digits", "--out", tmp_path / "mine")
    assert taken.code == 1
    assert "thesis.tex" in taken.err


@pytest.mark.parametrize("name", ["latents.npy", "scores.npz", "attributes.json"])
def test_a_flipped_byte_is_found(magnet, tmp_path, name):
    magnet("attributes", "mnist", "--n", 40, "--model", "digits", "--out", "a")
    data = bytearray((Path("a") / name).read_bytes())
    data[len(data) // 2] ^= 4
    (Path("a") / name).write_bytes(data)
    done = magnet("info", "a", "--check")
    assert done.code == 1
    assert name in done.out + done.err


@pytest.mark.parametrize(
    ("label", "known"), [((), [0, 1, 2, 0, 1, 2, 0]), ((2, 0), [2, 0, 2, 0, 2, 0, 2]), (None, None)]
)
def test_labels_of_a_conditional_generator_take_turns_across_shards(label, known):
    generator, judge = models.load(Checkpoint.find("mnist")), image_models.load_scorer("digits")
    classes = 0 if label is None else 3
    generator = dataclasses.replace(generator, prior=dataclasses.replace(generator.prior, num_classes=classes))
    spec = score_generator.AttributesSpec("mnist", "0", 7, 0, 1.0, label or (), ("digits",), ("k",), 4)
    assert list(score_generator.write(Path("a"), spec, generator, [judge])) == [4, 3]
    made, _ = score_generator.join(Path("a"), spec, [judge])
    named = [np.load(path).tolist() for path in made if path.name == "labels.npy"]
    assert named == ([] if known is None else [known])
