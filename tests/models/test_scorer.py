"""scorer: what a score depends on, and heads that share a network."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from magnet_cli.files.image_folder import ImageSet
from magnet_cli.models import image_models, kept_outputs
from magnet_cli.models.image_models.digits import DigitClassifier


def weights(seed):
    torch.manual_seed(seed)
    return DigitClassifier().state_dict()


@pytest.fixture
def unpinned(tmp_path, monkeypatch, magnet):
    """Two image models in files of their own, and a second head of the first; nobody has pinned a hash."""
    lines = []
    for name, file in {"first": "a", "second": "b", "third": "a"}.items():
        lines += [f"[{name}]", 'kind = "image-model"', 'family = "safetensors"', 'license = "MIT"', 'description = "x"']
        lines += [f'source = "file:{tmp_path / file}.safetensors"', 'preprocess = { size = 32, channels = "L" }']
        classes = ['"0"', '"1 to 9"'] if name == "third" else [f'"{i}"' for i in range(10)]
        lines += [f"[{name}.outputs]", 'features = "features"', 'scores = "logits"', "softmax = true"]
        lines += [f"classes = [{', '.join(classes)}]", *(["starts = [0, 1]"] if name == "third" else [])]
    (tmp_path / "mine.toml").write_text("\n".join(lines))
    monkeypatch.setenv("MAGNET_ARTIFACTS", str(tmp_path / "mine.toml"))
    for seed, file in enumerate("ab"):
        save_file(weights(seed), tmp_path / f"{file}.safetensors")
    assert magnet("fetch", "first", "second").code == 0
    return tmp_path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for i, image in enumerate(np.random.default_rng(0).integers(0, 256, (50, 32, 32), np.uint8)):
        Image.fromarray(image).save(tmp_path / "images" / f"{i}.png")
    return tmp_path / "images"


def test_answers_of_an_unpinned_model_are_never_those_of_another(magnet, unpinned, folder):
    def shares(name):
        done = magnet("attributes", folder, "--model", name, "--json")
        assert done.code == 0, done.err
        return done.json["models"][name]["shares"]

    first = shares("first")
    assert shares("second") != first
    save_file(weights(7), unpinned / "a.safetensors")
    assert magnet("cache", "rm", "first", "--forget").code == 0
    assert magnet("fetch", "first").code == 0
    replaced = shares("first")
    assert replaced not in (first, shares("second"))
    known = image_models.load_scorer("first").probabilities(next(ImageSet.open(folder).batches(0, 50)))
    assert replaced["3"]["value"] == np.mean(known.argmax(axis=1) == 3)


def test_a_volume_of_an_unpinned_models_features_is_of_these_weights(unpinned):
    one, other = (image_models.load(name, torch.device("cpu"), torch.float32).sha256 for name in ("first", "second"))
    assert one != other
    assert one == image_models.load_scorer("first").sha256 != ""


def test_heads_of_one_network_run_it_once_for_an_image(magnet, unpinned, folder):
    seen = []

    def count(module, arguments, _output):
        if isinstance(module, DigitClassifier):
            seen.append(len(arguments[0]))

    hook = torch.nn.modules.module.register_module_forward_hook(count)
    try:
        done = magnet("attributes", folder, "--model", "first", "--model", "third", "--json")
        assert done.code == 0, done.err
        models = done.json["models"]
        assert sum(seen) == 50
        assert models["third"]["shares"]["0"]["value"] >= models["first"]["shares"]["0"]["value"]
    finally:
        hook.remove()
    pixels = next(ImageSet.open(folder).batches(0, 50))
    for each in image_models.load_scorers(["first", "second", "third"]):
        alone = image_models.load_scorer(each.name)
        assert each.key == alone.key
        np.testing.assert_array_equal(each.probabilities(pixels), alone.probabilities(pixels))
        np.testing.assert_array_equal(each.features(pixels), alone.features(pixels))


def test_a_short_memory_forgets_and_says_the_same(unpinned):
    pixels = np.random.default_rng(1).integers(0, 256, (6, 32, 32, 1), np.uint8)
    alone = image_models.load_scorer("first")
    (short,) = image_models.with_memory([alone], 2)
    for part in (slice(0, 4), slice(2, 6), slice(0, 6)):
        np.testing.assert_allclose(short.probabilities(pixels[part]), alone.probabilities(pixels[part]), rtol=1e-5)


def test_pieces_are_kept_by_model_and_images(unpinned, folder, home):
    images = ImageSet.open(folder)
    for name in ("first", "second", "first"):
        list(kept_outputs.score_images(images, image_models.load_scorer(name)))
    assert len(list((home / "features").rglob("*.npz"))) == 2
