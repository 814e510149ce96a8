"""annotate: shares of classes in samples, which stay whole when classes are written into them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from magnet_cli import models
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.errors import SampleError
from magnet_cli.evaluating.annotate import annotate
from magnet_cli.files.image_folder import ImageSet
from magnet_cli.files.results import ResultFolder
from magnet_cli.maths.priors import Prior
from magnet_cli.models import batches, image_models
from magnet_cli.sampling.kinds import SAMPLE

TEN = tuple("0123456789")


@pytest.fixture
def drawn(magnet):
    assert magnet("sample", "--n", 80, "--rho", 0, "--out", "drawn").code == 0
    return Path("drawn")


@pytest.mark.slow
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
    assert ResultFolder(drawn, SAMPLE).check() == []
    assert magnet("info", drawn, "--check").code == 0
    summary = ResultFolder(drawn, SAMPLE).read()["attributes"]["digits"]
    assert summary["shares"] == done.json["models"]["digits"]["shares"]
    assert sum(share["value"] for share in summary["shares"].values()) == pytest.approx(1)
    assert magnet("attributes", drawn, "--model", "digits-onnx").code == 0
    assert {"digits", "digits-onnx"} <= ResultFolder(drawn, SAMPLE).read()["attributes"].keys()
    assert {"digits", "digits-onnx", "row"} <= json.loads((drawn / "metadata.jsonl").read_text().splitlines()[0]).keys()
    again = magnet("sample", "--n", 80, "--rho", 0, "--out", "drawn")  # still that sample
    assert (again.code, "already holds" in again.err) == (0, True)


def test_stopped_while_files_are_replaced_all_are_old_or_all_new(drawn):
    old, staged = {p: (drawn / p).read_bytes() for p in ("metadata.jsonl", "checksums.txt")}, drawn / ".replacing"
    shown, judge = ImageSet.open(drawn), image_models.load_scorer("digits")
    whole = drawn.with_name("whole")
    shutil.copytree(drawn, whole)
    annotate(ImageSet.open(whole), judge, np.eye(10, dtype=np.float32)[np.arange(80) % 10], {"n": 80})
    names = ("metadata.jsonl", "checksums.txt", "sample.json")
    staged.mkdir()  # stopped before it was decided: as if nothing had been
    (staged / "metadata.jsonl").write_bytes(b"half")
    assert ResultFolder(drawn, SAMPLE).check() == []
    assert {p: (drawn / p).read_bytes() for p in old} == old
    shutil.rmtree(staged)
    for done in range(4):  # stopped after the decision, with some files in their place already
        target = drawn.with_name(f"at{done}")
        shutil.copytree(drawn, target)
        (target / ".replacing").mkdir()
        (target / ".replacing" / "decided").write_bytes(b"")
        for i, name in enumerate(names):
            shutil.copy(whole / name, target / name if i < done else target / ".replacing" / name)
        assert ResultFolder(target, SAMPLE).check() == []
        assert not (target / ".replacing").exists()
        for name in names:
            assert (target / name).read_bytes() == (whole / name).read_bytes()
    assert shown.is_sample


def test_a_sample_that_was_changed_is_left_alone(drawn):
    (drawn / "metadata.jsonl").write_bytes((drawn / "metadata.jsonl").read_bytes().replace(b"polarity", b"somebody", 1))
    changed = (drawn / "metadata.jsonl").read_bytes()
    with pytest.raises(SampleError, match="not as it was written"):
        annotate(ImageSet.open(drawn), image_models.load_scorer("digits"), np.eye(80, 10), {})
    assert (drawn / "metadata.jsonl").read_bytes() == changed


@pytest.mark.slow
def test_two_prior_samples_do_not_differ_and_one_digit_does(magnet, tmp_path):
    generator, judge = models.load(Checkpoint.find("mnist")), image_models.load_scorer("digits")

    def save(name, pixels):
        (tmp_path / name).mkdir()
        for i, one in enumerate(pixels):
            Image.fromarray(one[:, :, 0]).save(tmp_path / name / f"{i:04d}.png")
        return tmp_path / name

    def draw(seed):
        return np.stack(list(batches.each_image(generator, Prior("normal", 16).draw_shard(seed, 0, 400)[0], 1.0, 200)))

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


@pytest.mark.slow
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
    each = [ResultFolder(Path(name), SAMPLE).read()["attributes"]["digits"]["shares"]["1"]["value"] for name in wide]
    assert said["shares"]["1"]["value"] == pytest.approx(np.mean(each))
    assert (said["change"]["from"], said["change"]["paired"]) == (prior, True)
    others = [ResultFolder(Path(name), SAMPLE).read() for name in prior]
    assert all("attributes" not in fields for fields in others)  # only those that were asked about are written into
    before = magnet("attributes", *prior, "--model", "digits", "--json").json["models"]["digits"]
    change = said["shares"]["1"]["value"] - before["shares"]["1"]["value"]
    assert said["change"]["shares"]["1"]["value"] == pytest.approx(change)
    assert said["change"]["gap"]["low"] < said["change"]["gap"]["value"] < said["change"]["gap"]["high"]
    table = magnet("attributes", *wide, "--model", "digits", *against)
    assert "change in share of 1" in table.out
    assert "over 3 samples" in table.err
    for wrong, message in (
        (("w1", "w2", "--compare", "p1"), "one says nothing of the spread over samples"),
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
