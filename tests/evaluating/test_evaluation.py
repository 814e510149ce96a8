"""evaluate: what a sample is worth against a reference, on the built-in generator; and bad input, in words."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toys import save_images

from magnet_cli import models
from magnet_cli.catalog import cache
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.catalog.image_model_entry import Outputs, Preprocess
from magnet_cli.errors import GeneratorError, SampleError
from magnet_cli.evaluating import evaluation
from magnet_cli.files import image_folder
from magnet_cli.files.image_folder import ImageSet
from magnet_cli.maths.metrics import intervals
from magnet_cli.maths.priors import Prior
from magnet_cli.models import batches, image_models, kept_outputs

pytestmark = pytest.mark.slow  # whole evaluations: `make test` runs them

N = 400


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Folders of draws from the prior of the built-in generator, by seed; "ones" are all of one digit."""
    place = tmp_path_factory.mktemp("digits")
    generator = models.load(Checkpoint.find("mnist"))

    def drawn(seed, n):
        return np.stack(list(batches.each_image(generator, Prior("normal", 16).draw_shard(seed, 0, n)[0], 1.0, 256)))

    folders = {seed: save_images(place / str(seed), drawn(seed, N)) for seed in range(4)}
    judge = image_models.load_scorer("digits")
    many = drawn(9, 4000)
    digit = np.concatenate([judge.probabilities(part).argmax(axis=1) for part in np.split(many, 8)])
    return folders | {"threes": save_images(place / "threes", many[digit == 3][:300])}


def of(sample, reference, scorer=None, **how):
    sets = [ImageSet.open(path) for path in (sample if isinstance(sample, list) else [sample])]
    return evaluation.compare(sets, ImageSet.open(reference), scorer or image_models.load_scorer("digits"), **how)


@pytest.mark.slow
def test_a_prior_sample_against_another_is_at_the_floor(digits):
    """FID of two draws of one generator is its finite-sample floor: other pairs of draws lie within the interval."""
    found = of(digits[0], digits[1])
    metrics = found.metrics
    assert (found.n, found.reference_n, found.interval) == (N, N, "within this draw")
    floor = of(digits[2], digits[3]).metrics["fid[digits]"].value
    fid = metrics["fid[digits]"]
    assert fid.low <= floor <= fid.high
    kid = metrics["kid[digits]"]
    assert kid.low <= 0 <= kid.high
    assert metrics["precision[digits]"].value > 0.9
    assert metrics["recall[digits]"].value > 0.9
    assert metrics["density[digits]"].value == pytest.approx(1, abs=0.15)
    assert metrics["duplicates"].value == 0
    assert metrics["duplicates"].high == pytest.approx(3.84 / (N + 3.84), rel=1e-3)


@pytest.mark.slow
def test_one_digit_against_all_loses_recall(digits):
    metrics = of(digits["threes"], digits[1]).metrics
    fair = of(digits[0], digits[1]).metrics
    assert metrics["recall[digits]"].high < fair["recall[digits]"].low / 2
    assert metrics["coverage[digits]"].high < fair["coverage[digits]"].low / 2
    assert metrics["precision[digits]"].value > 0.9
    assert metrics["fid[digits]"].low > 3 * fair["fid[digits]"].high
    assert metrics["diversity[digits]"].high < metrics["reference_diversity[digits]"].low


@pytest.mark.slow
def test_several_samples_give_intervals_over_them(digits):
    found = of([digits[0], digits[1], digits[2]], digits[3])
    assert (found.n, found.reference_n, found.interval) == (N, N // 3, "over 3 samples")
    parts = np.random.default_rng(evaluation._PARTS).permutation(N)[: N // 3 * 3].reshape(3, -1)
    assert len(np.unique(parts)) == N // 3 * 3  # each against images of its own
    recall = found.metrics["recall[digits]"]
    assert recall.low < recall.value < recall.high


def test_samples_that_agree_exactly_have_intervals_with_a_width(tmp_path):
    """Features that are equal for all images leave no ball a size: precision is 0 three times, and not certain."""
    rng = np.random.default_rng(0)
    folders = [save_images(tmp_path / str(i), rng.integers(0, 256, (60, 8, 8, 1), np.uint8)) for i in range(3)]
    reference = save_images(tmp_path / "reference", rng.integers(0, 256, (180, 8, 8, 1), np.uint8))
    outputs = Outputs(features="output")
    flat = image_models.ImageScorer("flat", "0", Preprocess(), outputs, lambda x: {"output": torch.zeros(len(x), 2)})
    metrics = of(folders, reference, flat).metrics
    for name in ("precision[flat]", "recall[flat]", "coverage[flat]"):
        assert (metrics[name].value, metrics[name].low, metrics[name].high) == (0, 0, intervals.wilson(0, 180).high)
    (same,) = {evaluation._estimate("fid", [np.append(np.arange(20.0), 9.5)] * each, 60, 60) for each in (2, 3)}
    assert same.low < same.value == 9.5 < same.high


def test_samples_that_are_no_repeats_are_refused(digits, tmp_path):
    pixels = np.concatenate(list(ImageSet.open(digits[0]).batches(0, N)))
    shorter = save_images(tmp_path / "shorter", pixels[:200])
    with pytest.raises(SampleError, match="different lengths"):
        of([digits[0], shorter], digits[3])
    with pytest.raises(SampleError, match=r"400 images of .* are in .* too"):
        of([digits[0], digits[0]], digits[3])


def test_images_in_both_sets_are_counted(digits):
    assert "400 images" in of(digits[0], digits[0]).warnings[0]
    assert of(digits[0], digits[1]).warnings == []


def test_copies_within_a_sample_are_counted(digits, tmp_path):
    pixels = np.concatenate(list(ImageSet.open(digits[0]).batches(0, N)))
    copied = save_images(tmp_path / "copied", np.concatenate([pixels[:300], pixels[:100]]))
    found = of(copied, digits[1]).metrics["duplicates"]
    assert found.value == 0.25
    assert found.low < 0.25 < found.high


def test_features_are_those_of_the_model_and_are_kept_by_content(digits, tmp_path):
    judge = image_models.load_scorer("digits")
    shown = ImageSet.open(digits[0])
    found = kept_outputs.concatenated(kept_outputs.score_images(shown, judge))
    pixels = np.concatenate(list(shown.batches(0, N)))
    np.testing.assert_allclose(found.values, judge.features(pixels), rtol=1e-4, atol=1e-4)
    assert found.values.dtype == np.float32
    moved = save_images(tmp_path / "moved", pixels)

    def never(_images):
        raise AssertionError

    blind = image_models.ImageScorer(judge.name, judge.sha256, judge.preprocess, judge.outputs, never)
    again = kept_outputs.concatenated(
        kept_outputs.score_images(ImageSet.open(moved), blind)
    )  # other names, the same bytes
    np.testing.assert_array_equal(again.values, found.values)
    (kept,) = (cache.home() / "features").rglob("*.npz")
    kept.write_bytes(kept.read_bytes()[:-100])  # a damaged piece is made again
    np.testing.assert_array_equal(
        kept_outputs.concatenated(kept_outputs.score_images(shown, judge)).values, found.values
    )


def test_two_preparations_of_one_model_are_kept_apart(digits):
    judge = image_models.load_scorer("digits")
    other = image_models.ImageScorer(judge.name, judge.sha256, Preprocess(size=32, crop=0.5), judge.outputs, judge.run)
    assert judge.key != other.key


def test_the_command_prints_a_table_or_one_object(magnet):
    assert magnet("sample", "--n", 100, "--rho", 0, "--out", "prior").code == 0
    assert magnet("sample", "--n", 100, "--rho", 0.3, "--seed", 1, "--out", "wide").code == 0
    done = magnet("evaluate", "wide", "--reference", "prior", "--json")
    assert done.code == 0, done.err
    found = done.json
    assert (found["n"], found["reference_n"], found["features"], found["nearest_k"]) == (100, 100, "digits", 5)
    assert set(found["metrics"]["fid[digits]"]) == {"value", "low", "high"}
    assert "fid" not in found["metrics"]
    (kept,) = json.loads(Path("wide/sample.json").read_text())["evaluations"]
    assert kept == found
    assert magnet("info", "wide", "--check").code == 0
    table = magnet("evaluate", "wide", "--reference", "prior")
    assert "fid[digits]" in table.out
    assert "within this draw" in table.err
    again = magnet("evaluate", "wide", "prior", "--reference", "prior", "--json")
    assert again.json["interval"] == "over 2 samples"
    assert len(json.loads(Path("wide/sample.json").read_text())["evaluations"]) == 2  # the same one is replaced
    assert "images of prior are in the reference too" in again.err
    said = [line.removeprefix("warning: ") for line in again.err.splitlines() if line.startswith("warning: ")]
    assert again.json["warnings"] == said[:2]
    assert "no independent pools" in again.err  # both are of the volume that ships with magnet


def test_fid_without_enough_images_is_undefined_and_the_rest_stands(magnet, digits, tmp_path):
    pixels = np.concatenate(list(ImageSet.open(digits[1]).batches(0, 60)))
    few = save_images(tmp_path / "few", pixels)
    done = magnet("evaluate", digits[0], "--reference", few, "--json")
    assert done.code == 0
    assert "fid[digits]" not in done.json["metrics"]
    assert "60 images for 64 features" in done.json["undefined"]["fid[digits]"]
    assert "warning: fid[digits]: 60 images" in done.err
    assert "recall[digits]" in done.json["metrics"]
    done = magnet("evaluate", digits[0], "--reference", save_images(tmp_path / "ten", pixels[:10]))
    assert (done.code, done.out) == (1, "")
    assert "holds 10 images" in done.err
    assert "FID is undefined" in done.err


def bad_folders(tmp_path):
    grey = np.zeros((50, 32, 32, 1), np.uint8)
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    (save_images(tmp_path / "torn", grey) / "0007.png").write_bytes(b"\x89PNG no image")
    Image.fromarray(np.zeros((16, 32), np.uint8)).save(save_images(tmp_path / "mixed", grey) / "0030.png")
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(save_images(tmp_path / "deep", grey) / "0000.png")
    save_images(tmp_path / "faces", np.zeros((50, 64, 64, 3), np.uint8))
    save_images(tmp_path / "large", np.zeros((50, 28, 28, 1), np.uint8))
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / ".sample-started.json").write_text("{}")
    return {
        "absent": "is not there",
        "empty": "holds no images",
        "texts": "holds 1 files, none of them images",
        "torn": r"0007.png is no image that can be read",
        "mixed": "0000.png is 32×32, grey, 0030.png is 32×16, grey",
        "deep": "more than 8 bits",
        "faces": "takes images of 1 channels",
        "large": "takes images of 32×32 pixels as they are, and these are 1×28×28",
        "begun": "not finished",
    }


@pytest.mark.slow
def test_bad_input_is_said_in_words(magnet, digits, tmp_path):
    for name, said in bad_folders(tmp_path).items():
        done = magnet("evaluate", tmp_path / name, "--reference", digits[0], "--features", "digits")
        assert (done.code, done.out) == (1, ""), name
        assert said in done.err, done.err
        assert "do: " in done.err
    done = magnet("evaluate", digits[0], "--reference", digits[1], "--features", "digit")
    assert "did you mean digits" in done.err
    done = magnet("evaluate", digits[0], "--reference", digits[1], "--features", "gender")
    assert done.code == 1
    assert "magnet fetch gender" in done.err
    assert magnet("evaluate", digits[0]).code == 2


def test_grey_jpegs_and_palettes_are_read(tmp_path):
    folder = save_images(tmp_path / "jpg", np.full((3, 8, 8, 1), 90, np.uint8), "jpg")
    shown = ImageSet.open(folder)
    assert shown.shape == (8, 8, 1)
    assert np.concatenate(list(shown.batches(0, 3))).mean() == pytest.approx(90, abs=1)
    coloured = save_images(tmp_path / "p", np.full((2, 8, 8, 3), 90, np.uint8))
    Image.open(coloured / "0000.png").quantize(4).save(coloured / "0001.png")
    assert np.concatenate(list(ImageSet.open(coloured).batches(0, 2))).shape == (2, 8, 8, 3)


def test_digests_tell_images_apart():
    one = np.zeros((4, 4, 1), np.uint8)
    other = one.copy()
    other[3, 3] = 1
    assert image_folder.digest(one) == image_folder.digest(one.copy())
    assert len({image_folder.digest(one), image_folder.digest(other), image_folder.digest(one.reshape(2, 8, 1))}) == 3


def test_numbers_that_are_not_finite_are_refused():
    from magnet_cli.catalog.image_model_entry import Outputs, Preprocess

    gives = Outputs(features="output")
    judge = image_models.ImageScorer("broken", "0" * 64, Preprocess(), gives, lambda x: {"output": x.flatten(1) / 0})
    with pytest.raises(GeneratorError, match="not finite"):
        judge.features(np.zeros((2, 4, 4, 1), np.uint8))
