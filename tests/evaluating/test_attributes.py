"""attributes: shares and their intervals against the truth; scores that survive any stop; samples that stay whole."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from magnet_cli import models
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.errors import SampleError
from magnet_cli.evaluating import attributes
from magnet_cli.files.image_folder import ImageSet
from magnet_cli.maths.metrics import class_shares
from magnet_cli.maths.metrics.class_shares import Tally
from magnet_cli.maths.priors import Prior
from magnet_cli.models import image_models
from magnet_cli.sampling import render, sample_folder

TEN = tuple("0123456789")


def tally(*counts):
    return Tally(tuple(str(i) for i in range(len(counts))), np.array(counts))


# --- the mathematics ------------------------------------------------------------------------------------------------


def test_shares_gap_and_total_variation_by_hand():
    found = tally(60, 30, 10)
    assert [share.value for share in found.shares().values()] == [0.6, 0.3, 0.1]
    assert found.gap().value == pytest.approx(0.5)
    assert found.total_variation().value == pytest.approx(0.6 - 1 / 3)
    two = tally(73, 27)
    assert two.gap().value == pytest.approx(0.46)
    assert two.gap().value == pytest.approx(2 * two.total_variation().value)
    assert two.gap().low == pytest.approx(2 * two.total_variation().low)
    level = tally(50, 50)
    assert (level.gap().value, level.total_variation().value) == (0, 0)
    assert level.total_variation().high > 0


@pytest.mark.parametrize("truth", [(0.5, 0.5), (0.52, 0.48), (0.8, 0.2), (0.4, 0.3, 0.2, 0.1), (0.1,) * 10])
def test_intervals_of_imbalance_cover_the_truth(truth):
    """The estimand is the imbalance at this n: the mean over draws, which near equal shares lies above their own."""
    draws = np.random.default_rng(1).multinomial(400, truth, 1500)
    for measure in ("gap", "total_variation"):
        made = [getattr(tally(*counts), measure)() for counts in draws]
        at_n = np.mean([one.value for one in made])
        assert np.mean([one.low <= at_n <= one.high for one in made]) >= 0.9, measure


def test_the_interval_of_a_change_covers_it():
    rng = np.random.default_rng(2)
    one, other = (0.7, 0.3), (0.6, 0.4)
    made = [
        class_shares.joined(tally(*rng.multinomial(300, one)).gap(), tally(*rng.multinomial(500, other)).gap())
        for _ in range(1500)
    ]
    assert np.mean([each.low <= 0.2 <= each.high for each in made]) >= 0.93


def test_the_p_value_is_level_without_a_change_and_small_with_one():
    rng = np.random.default_rng(3)
    null = [
        class_shares.p_value(tally(*rng.multinomial(150, (0.7, 0.3))), tally(*rng.multinomial(150, (0.7, 0.3))))
        for _ in range(80)
    ]
    assert 0.0 <= np.mean(np.array(null) < 0.05) <= 0.13
    assert class_shares.p_value(tally(700, 300), tally(550, 450)) == pytest.approx(1e-4)
    assert class_shares.p_value(tally(70, 30), tally(30, 70)) == 1  # the bias is the same, towards another class


def pools(rng, truth, count, n, spread=60.0):
    """Tallies of samples from pools that differ: each pool's own shares are drawn around the truth."""
    return [tally(*rng.multinomial(n, rng.dirichlet(spread * np.array(truth)))) for _ in range(count)]


@pytest.mark.parametrize(("truth", "count"), [((0.5, 0.5), 5), ((0.8, 0.2), 3), ((0.4, 0.3, 0.2, 0.1), 8)])
def test_intervals_over_pools_cover_the_truth(truth, count):
    """The estimand is the measure at this n, over all pools there could be; Wilson's of all images misses it."""
    rng = np.random.default_rng(4)
    many = pools(rng, truth, 4000, 200)
    at_n = {name: np.mean([getattr(each, name)().value for each in many]) for name in ("gap", "total_variation")}
    made = [class_shares.summary(pools(rng, truth, count, 200)) for _ in range(400)]
    for name, value in at_n.items():
        assert np.mean([getattr(each, name).low <= value <= getattr(each, name).high for each in made]) >= 0.9, name
    for i, value in enumerate(truth):
        covered = [each.shares[str(i)].low <= value <= each.shares[str(i)].high for each in made]
        assert np.mean(covered) >= 0.9
    wilson = [class_shares._pooled(pools(rng, truth, count, 200)).shares()["0"] for _ in range(400)]
    assert np.mean([each.low <= truth[0] <= each.high for each in wilson]) < 0.8


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False])
def test_the_change_over_pools_covers_it_and_pairs_are_narrower(paired):
    """Pools share what moves both of their samples: by pairs that cancels out; Welch's interval is wide, and safe."""
    rng = np.random.default_rng(5)
    covered, false, width = [], [], []
    for _ in range(300):
        own = rng.normal(0, 0.05, 6)
        sides = [[tally(*rng.multinomial(2000, (share + o, 1 - share - o))) for o in own] for share in (0.75, 0.7)]
        found = class_shares.change(*sides, paired=paired)
        covered.append(found.shares["0"].low <= 0.05 <= found.shares["0"].high)
        width.append(found.shares["0"].high - found.shares["0"].low)
        same = [tally(*rng.multinomial(2000, (0.7 + o, 0.3 - o))) for o in own]
        false.append(class_shares.change(sides[1], same, paired=paired).p_value < 0.05)
    assert np.mean(covered) >= 0.9
    assert np.mean(false) <= 0.1
    assert (np.mean(width) < 0.06) == paired


def test_pools_that_all_agree_are_not_known_for_certain():
    agreed = [tally(100, 0), tally(100, 0), tally(100, 0)]
    found = class_shares.summary(agreed)
    assert (found.shares["0"].value, found.shares["0"].high) == (1, 1)
    assert found.shares["0"].low < 0.995
    assert found.gap.low < 0.99
    change = class_shares.change(agreed, agreed, paired=True)
    assert change.gap.low < 0 <= change.gap.high
    assert change.p_value == 1


# --- a generator ----------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_images_and_nothing_else_is_kept(magnet, monkeypatch):
    monkeypatch.setattr(attributes, "_SHARD_WORK", 32 * 32 * 100)
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
    pixels = np.stack(list(render.batches(generator, latents, 1.0, 250)))
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
    spec = attributes.AttributesSpec("mnist", "0", 7, 0, 1.0, label or (), ("digits",), ("k",), 4)
    assert list(attributes.write(Path("a"), spec, generator, [judge])) == [4, 3]
    made, _ = attributes.join(Path("a"), spec, [judge])
    named = [np.load(path).tolist() for path in made if path.name == "labels.npy"]
    assert named == ([] if known is None else [known])


# --- a sample -------------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(magnet):
    assert magnet("sample", "--n", 80, "--rho", 0, "--out", "drawn").code == 0
    return Path("drawn")


def test_classes_are_written_into_the_sample_and_it_stays_whole(magnet, drawn):
    before = [json.loads(line) for line in (drawn / "metadata.jsonl").read_text().splitlines()]
    done = magnet("attributes", drawn, "--model", "digits", "--json")
    assert done.code == 0, done.err
    records = [json.loads(line) for line in (drawn / "metadata.jsonl").read_text().splitlines()]
    judge, shown = image_models.load_scorer("digits"), ImageSet.open(drawn)
    known = judge.probabilities(np.concatenate(list(shown.batches(0, 80))))
    for i, (old, new) in enumerate(zip(before, records, strict=True)):
        assert {name: new[name] for name in old} == old
        assert new["digits"] == TEN[known[i].argmax()]
        assert new["digits_probability"] == pytest.approx(known[i].max(), abs=1e-4)
    assert sample_folder.check(drawn) == []
    assert magnet("info", drawn, "--check").code == 0
    summary = sample_folder.read(drawn)["attributes"]["digits"]
    assert summary["shares"] == done.json["models"]["digits"]["shares"]
    assert sum(share["value"] for share in summary["shares"].values()) == pytest.approx(1)
    assert magnet("attributes", drawn, "--model", "digits-onnx").code == 0
    assert {"digits", "digits-onnx"} <= sample_folder.read(drawn)["attributes"].keys()
    assert {"digits", "digits-onnx", "row"} <= json.loads((drawn / "metadata.jsonl").read_text().splitlines()[0]).keys()
    again = magnet("sample", "--n", 80, "--rho", 0, "--out", "drawn")  # still that sample
    assert (again.code, "already holds" in again.err) == (0, True)


def test_stopped_while_files_are_replaced_all_are_old_or_all_new(drawn):
    old, staged = {p: (drawn / p).read_bytes() for p in ("metadata.jsonl", "checksums.txt")}, drawn / ".replacing"
    shown, judge = ImageSet.open(drawn), image_models.load_scorer("digits")
    whole = drawn.with_name("whole")
    shutil.copytree(drawn, whole)
    attributes.annotate(ImageSet.open(whole), judge, np.eye(10, dtype=np.float32)[np.arange(80) % 10], {"n": 80})
    names = ("metadata.jsonl", "checksums.txt", "sample.json")
    staged.mkdir()  # stopped before it was decided: as if nothing had been
    (staged / "metadata.jsonl").write_bytes(b"half")
    assert sample_folder.check(drawn) == []
    assert {p: (drawn / p).read_bytes() for p in old} == old
    shutil.rmtree(staged)
    for done in range(4):  # stopped after the decision, with some files in their place already
        target = drawn.with_name(f"at{done}")
        shutil.copytree(drawn, target)
        (target / ".replacing").mkdir()
        (target / ".replacing" / "decided").write_bytes(b"")
        for i, name in enumerate(names):
            shutil.copy(whole / name, target / name if i < done else target / ".replacing" / name)
        assert sample_folder.check(target) == []
        assert not (target / ".replacing").exists()
        for name in names:
            assert (target / name).read_bytes() == (whole / name).read_bytes()
    assert shown.is_sample


def test_a_sample_that_was_changed_is_left_alone(drawn):
    (drawn / "metadata.jsonl").write_bytes((drawn / "metadata.jsonl").read_bytes().replace(b"polarity", b"somebody", 1))
    changed = (drawn / "metadata.jsonl").read_bytes()
    with pytest.raises(SampleError, match="not as it was written"):
        attributes.annotate(ImageSet.open(drawn), image_models.load_scorer("digits"), np.eye(80, 10), {})
    assert (drawn / "metadata.jsonl").read_bytes() == changed


def test_two_prior_samples_do_not_differ_and_one_digit_does(magnet, tmp_path):
    generator, judge = models.load(Checkpoint.find("mnist")), image_models.load_scorer("digits")

    def save(name, pixels):
        (tmp_path / name).mkdir()
        for i, one in enumerate(pixels):
            Image.fromarray(one[:, :, 0]).save(tmp_path / name / f"{i:04d}.png")
        return tmp_path / name

    def draw(seed):
        return np.stack(list(render.batches(generator, Prior("normal", 16).draw_shard(seed, 0, 400)[0], 1.0, 200)))

    pixels = draw(0)
    one, other = save("one", pixels), save("other", draw(1))
    threes = save("threes", pixels[judge.probabilities(pixels).argmax(axis=1) == 3])
    change = magnet("attributes", one, "--model", "digits", "--compare", other, "--json").json["models"]["digits"][
        "change"
    ]
    assert change["p_value"] > 0.05
    assert change["gap"]["low"] < 0 < change["gap"]["high"]
    done = magnet("attributes", threes, "--model", "digits", "--compare", other, "--json")
    change = done.json["models"]["digits"]["change"]
    assert change["p_value"] < 0.001
    assert change["gap"]["low"] > 0.5
    assert "never seen" in done.err
    assert "0, 1, 2, 4" in done.err
    assert all(p.suffix == ".png" for p in threes.iterdir())  # no sample: nothing is written into it


def test_what_does_not_go_together_is_said(magnet, drawn, toy):
    assert magnet("attributes", drawn, "--model", "digits", "--n", 5).code == 2
    assert magnet("attributes", "mnist", "--model", "digits", "--compare", drawn).code == 2
    assert magnet("attributes", drawn).code == 2
    for model, said in (
        ("digts", "did you mean digits"),
        ("mnist", "mnist is a generator"),
        ("gender", "magnet fetch gender"),
    ):
        done = magnet("attributes", drawn, "--model", model)
        assert (done.code, done.out) == (1, ""), model
        assert said in done.err
    done = magnet("attributes", toy, "--n", 5, "--model", "digits")  # 8x8 images
    assert (done.code, done.out) == (1, "")
    assert "these are 1×8×8" in done.err


@pytest.mark.slow
def test_several_samples_of_independent_pools(magnet):
    """As evaluate does it: intervals over them, a change by pairs where they come from the same volumes."""
    for seed in (1, 2, 3):
        assert magnet("compute", "mnist", "--n", 120, "--seed", seed, "--volume", f"v{seed}").code == 0
        for name, rho in (("p", 0), ("w", 0.5)):
            drawn = magnet("sample", "--n", 50, "--rho", rho, "--volume", f"v{seed}", "--out", f"{name}{seed}")
            assert drawn.code == 0, drawn.err
    wide, prior = [f"w{seed}" for seed in (1, 2, 3)], [f"p{seed}" for seed in (1, 2, 3)]
    against = [word for name in prior for word in ("--compare", name)]
    done = magnet("attributes", *wide, "--model", "digits", *against, "--json")
    assert done.code == 0, done.err
    assert done.err.count("warning") == done.err.count("never seen")
    found = done.json
    assert (found["sample"], found["n"], found["interval"]) == (wide, 50, "over 3 samples")
    said = found["models"]["digits"]
    each = [sample_folder.read(Path(name))["attributes"]["digits"]["shares"]["1"]["value"] for name in wide]
    assert said["shares"]["1"]["value"] == pytest.approx(np.mean(each))
    assert (said["change"]["from"], said["change"]["paired"]) == (prior, True)
    others = [sample_folder.read(Path(name)) for name in prior]
    assert all("attributes" not in fields for fields in others)  # only those that were asked about are written into
    before = magnet("attributes", *prior, "--model", "digits", "--json").json["models"]["digits"]
    change = said["shares"]["1"]["value"] - before["shares"]["1"]["value"]
    assert said["change"]["shares"]["1"]["value"] == pytest.approx(change)
    assert said["change"]["gap"]["low"] < said["change"]["gap"]["value"] < said["change"]["gap"]["high"]
    table = magnet("attributes", *wide, "--model", "digits", *against)
    assert "change in share of 1" in table.out
    assert "over 3 samples" in table.err
    for wrong, message in (
        (("w1", "w2", "--compare", "p1"), "one alone says nothing of its spread"),
        (("w1", "w2", "--compare", "p2", "--compare", "p1"), "in the order of the samples"),
        (("w1", "w1"), "they are no repeats"),
    ):
        refused = magnet("attributes", *wrong, "--model", "digits")
        assert (refused.code, refused.out) == (1, ""), wrong
        assert message in refused.err
    apart = magnet("attributes", "w1", "w2", "--compare", "p3", "--compare", "p3", "--model", "digits")
    assert "no repeats" in apart.err
    assert magnet("attributes", "w1", "mnist", "--model", "digits").code == 2
    assert magnet("sample", "--n", 60, "--rho", 0, "--out", "longer").code == 0
    assert "different lengths" in magnet("attributes", "w1", "longer", "--model", "digits").err
