"""direction: the published formulas, leakage where correlation is planted, and what stands in a file of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy import special
from toys import stylegan2_weights

from magnet_cli import models as models_
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.editing import balance, contingency, direction, rescore
from magnet_cli.editing.scored import Attribute, open_scored
from magnet_cli.errors import SampleError, SpecError
from magnet_cli.files import npy

# Two attributes of a latent, each a logistic score of its projection on a line; the lines have the cosine 0.6.
PLANTED = """
import math

import torch

CORRELATION, STEEP = 0.6, 4.0


class Faces(torch.nn.Module):
    latent_dim = 16
    image_range = (0, 1)

    def __init__(self):
        super().__init__()
        lines = torch.zeros(2, 16)
        lines[0, 3] = 1
        lines[1, 3], lines[1, 8] = CORRELATION, math.sqrt(1 - CORRELATION**2)
        self.lines = torch.nn.Parameter(STEEP * lines)

    def forward(self, z):
        return torch.sigmoid(z @ self.lines.T.to(z))[:, None, :, None].expand(-1, 1, 2, 2)


class Reader(torch.nn.Module):
    def __init__(self, row):
        super().__init__()
        self.row, self.classes = row, ("without", "with")

    def forward(self, images):
        score = ((images[:, 0, self.row, 0] + 1) / 2).clamp(1e-6, 1 - 1e-6)
        return torch.stack([torch.zeros_like(score), torch.logit(score)], dim=1)


def smile():
    return Reader(0)


def glasses():
    return Reader(1)
"""
LINES = np.zeros((2, 16))
LINES[0, 3], LINES[1, 3], LINES[1, 8] = 1, 0.6, 0.8
SMILE, GLASSES = "planted.py:smile", "planted.py:glasses"


@pytest.fixture
def planted(magnet):
    Path("planted.py").write_text(PLANTED)
    line = ["attributes", "planted.py:Faces", "--n", 20_000, "--model", SMILE, "--model", GLASSES, "--out", "scored"]
    done = magnet(*line)
    assert done.code == 0, done.err
    return Path("scored")


# --- learning -------------------------------------------------------------------------------------------------------


def test_the_centroid_direction_is_the_published_one_for_the_same_selection():
    """The formula as published, in float32: the mean of one class less that of the other, divided by its length."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((3000, 512)).astype(np.float32)
    labels = (z[:, 0] + 0.5 * rng.standard_normal(3000) > 0).astype(int)
    boundary = np.mean(z[np.where(labels == 1)[0]], axis=0) - np.mean(z[np.where(labels == 0)[0]], axis=0)
    boundary = boundary.reshape(1, 512).astype(np.float32)
    boundary /= np.linalg.norm(boundary)
    found = direction.learn(z, labels == 1, "centroid")
    assert (found.shape, found.dtype) == ((1, 512), np.float32)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)
    assert float(found[0] @ boundary[0]) >= 1 - 1e-6
    np.testing.assert_allclose(direction.learn(z, labels == 0, "centroid"), -found, atol=1e-7)


def test_the_svm_direction_is_the_normal_that_separates():
    rng = np.random.default_rng(1)
    normal = rng.standard_normal(8)
    normal /= np.linalg.norm(normal)
    z = rng.standard_normal((400, 8)).astype(np.float32)
    z = z[np.abs(z @ normal) > 0.3]
    found = direction.learn(z, z @ normal > 0, "svm")
    assert (found.shape, found.dtype) == ((1, 8), np.float32)
    assert float(found[0] @ normal) > 0.98
    centroid = direction.learn(z, z @ normal > 0, "centroid")
    assert float(centroid[0] @ normal) > 0.9


def test_the_svm_has_c_1():
    """Latents ±a e1 and ±b e2: w = (min(2Ca, 1/a), min(2Cb, 1/b)), the minimum of ½|w|² + C Σ max(0, 1 - y w·z)."""
    z = np.array([[0.5, 0], [-0.5, 0], [0, 2], [0, -2]], np.float32)
    learned = direction.learn(z, np.array([True, False, True, False]), "svm")
    np.testing.assert_allclose(learned[0], np.array([1, 0.5]) / np.hypot(1, 0.5), atol=1e-3)


def test_what_cannot_be_told_apart():
    z = np.ones((6, 3), np.float32)
    with pytest.raises(SampleError, match="all 6 latents are of one"):
        direction.learn(z, np.ones(6, bool), "centroid")
    with pytest.raises(SampleError, match="the two classes do not differ"):
        direction.learn(z, np.arange(6) < 3, "centroid")


def test_targets_are_classes():
    two = Attribute("smile", ("no", "yes"), np.array([0, 1, 1]), np.ones(3))
    three = Attribute("age", ("young", "grown", "old"), np.array([0, 1, 2]), np.ones(3))
    assert [each.name for each in direction.all_targets((two, three))] == ["smile", "age=young", "age=grown", "age=old"]
    assert direction.find_target((two, three), "smile").description == "smile: from no to yes"
    back = direction.find_target((two, three), "smile=no")
    assert (back.name, back.contains(np.arange(3)).tolist()) == ("smile=no", [True, False, False])
    assert direction.find_target((two, three), "age=old").description == "age: from the rest to old"
    for asked, said in (
        ("age", "which has 3 classes"),
        ("hat", "the attributes are smile, age"),
        ("age=x", "'x' of age"),
    ):
        with pytest.raises(SpecError, match=said):
            direction.find_target((two, three), asked)


# --- planted correlation --------------------------------------------------------------------------------------------


def test_a_balanced_direction_leaks_three_times_less(magnet, planted):
    """Through the whole command; changes are held against the closed form of these scores, too."""
    line = f"direction scored --attribute {SMILE} --n 1500 --rescore --moved 400 --from -1 --to 1 --out smile.npy"
    models = ["--model", SMILE, "--model", GLASSES, "--generator", "planted.py:Faces"]
    done = magnet(*line.split(), *models, "--json")
    assert done.code == 0, done.err
    report = done.json["rescore"]
    leakage = {}
    for kind in ("balanced", "unbalanced"):
        for own, other in ((SMILE, GLASSES), (GLASSES, SMILE)):
            cells = report[kind][own]
            assert cells[own]["low"] > 0.3
            leakage[kind, own] = abs(cells[other]["value"] / cells[own]["value"])
    for own in (SMILE, GLASSES):
        assert leakage["unbalanced", own] > 3 * leakage["balanced", own]
        assert leakage["unbalanced", own] > 0.5
    found = open_scored(planted, None, (), {})
    attributes = tuple(found.attributes.values())
    table = contingency.tabulate(attributes, 0.9, contingency.equal_target(attributes))
    rows = balance.draw(table, 1500, 0).rows
    z, labels = np.load(planted / "latents.npy")[rows], found.attributes[SMILE].labels[rows]
    vector = z[labels == 1].mean(axis=0) - z[labels == 0].mean(axis=0)
    vector /= np.linalg.norm(vector)
    assert float(np.load("smile.npy")[0] @ vector) >= 1 - 1e-6
    faces = models_.load(cache_own("planted.py:Faces"))
    fresh, _ = rescore.draw_latents(faces, 400, 0)
    known = special.expit(4 * (fresh + vector) @ LINES.T) - special.expit(4 * (fresh - vector) @ LINES.T)
    for name, changes in zip((SMILE, GLASSES), known.T, strict=True):
        cell = report["balanced"][SMILE][name]
        assert cell["value"] == pytest.approx(changes.mean(), abs=2e-3)  # pixels are whole numbers
        reach = 1.966 * changes.std(ddof=1) / 20
        assert cell["high"] - cell["value"] == pytest.approx(reach, rel=0.05)


def cache_own(reference):
    from magnet_cli.models import custom

    return custom.from_factory(reference)


@pytest.mark.slow
def test_the_document_says_what_it_was_learned_from(magnet, planted):
    done = magnet("direction", planted, "--attribute", SMILE, "--n", 600, "--json")
    assert done.code == 0, done.err
    report = done.json
    assert report["direction"] == "directions/scored-planted.py:smile.npy"
    vector = np.load(report["direction"])
    assert (vector.shape, vector.dtype) == ((1, 16), np.float32)
    assert report["classes"]["towards"] + report["classes"]["away"] == 600
    assert abs(report["classes"]["towards"] - 300) < 60
    other = magnet("direction", planted, "--attribute", GLASSES, "--n", 600, "--json").json
    known = float(vector[0].astype(np.float64) @ np.load(other["direction"])[0])
    assert report["cosines"] == {GLASSES: pytest.approx(known, abs=1e-6)}
    assert other["cosines"] == {SMILE: pytest.approx(known, abs=1e-6)}
    shown = magnet("info", report["direction"], "--json").json
    assert (shown["kind"], shown["numbers"], shown["ok"]) == ("direction", 16, True)
    assert shown["spec"]["generator"] == "planted-Faces"
    assert shown["spec"]["n"] == 600
    plain = magnet("direction", planted, "--attribute", SMILE, "--n", 600, "--unbalanced", "--json").json
    assert not plain["balanced"]
    assert plain["direction"].endswith("-unbalanced.npy")
    assert abs(plain["cosines"][GLASSES]) > abs(report["cosines"][GLASSES]) + 0.2
    svm = magnet("direction", planted, "--attribute", SMILE, "--n", 300, "--method", "svm", "--json").json
    assert svm["direction"].endswith("-svm.npy")
    assert float(np.load(svm["direction"])[0] @ vector[0]) > 0.8


# --- the command ----------------------------------------------------------------------------------------------------


def test_by_default_all_that_balance_are_learned_from(magnet, here):
    done = magnet("direction", "scored", "--attribute", "digits=3", "--out", "three.npy", "--json")
    assert done.code == 0, done.err
    assert done.json["n"] == done.json["largest_balanced_n"]
    most = magnet("balance", "scored", "--n", 1, "--random", "--dry-run", "--json").json["largest_balanced_n"]
    assert done.json["n"] == most
    before = Path("three.npy").stat().st_mtime_ns
    again = magnet("direction", "scored", "--attribute", "digits=3", "--out", "three.npy", "--json")
    assert (again.code, again.json) == (0, done.json)
    assert Path("three.npy").stat().st_mtime_ns == before
    too_many = magnet("direction", "scored", "--attribute", "digits=3", "--n", most + 1, "--out", "more.npy")
    assert (too_many.code, too_many.out) == (1, "")
    assert f"--n {most}" in too_many.err
    assert not Path("more.npy").exists()
    more = magnet(
        "direction", "scored", "--attribute", "digits=3", "--n", most + 1, "--out", "more.npy", "--allow-unbalanced"
    )
    assert more.code == 0


def test_a_balanced_sample_is_taken_as_it_is(magnet, here):
    assert magnet("balance", "scored", "--n", 100, "--no-images", "--out", "even", "-q").code == 0
    done = magnet("direction", "even", "--attribute", "digits=1", "--out", "one.npy", "--json")
    assert done.code == 0, done.err
    z = np.load("even/latents.npy")
    ones = np.array(
        [json.loads(line)["digits"] == "1" for line in Path("even/metadata.jsonl").read_text().splitlines()]
    )
    known = z[ones].mean(axis=0) - z[~ones].mean(axis=0)
    assert float(np.load("one.npy")[0] @ (known / np.linalg.norm(known))) >= 1 - 1e-6
    assert done.json["classes"] == {"towards": int(ones.sum()), "away": int((~ones).sum())}
    for flag in (["--confidence", 0.5], ["--unbalanced"], ["--target", "digits:1=0.5"]):
        refused = magnet("direction", "even", "--attribute", "digits=1", *flag, "--out", "two.npy")
        assert (refused.code, refused.out) == (1, "")
        assert f"balanced already, and is taken as it is; {flag[0]}" in refused.err


@pytest.mark.slow
def test_rescoring_is_printed_as_a_table_and_kept(magnet, here):
    line = ["direction", "scored", "--attribute", "digits", "--cut", "digits=5", "--rescore", "--moved", 8]
    done = magnet(*line, "--out", "high.npy")
    assert done.code == 0, done.err
    header, *rows = done.out.splitlines()
    assert header.split() == ["direction", "learned", "from", "change", "in", "digits"]
    assert [row.split()[:2] for row in rows] == [["digits", "balanced"], ["digits", "unbalanced"]]
    again = magnet(*line, "--out", "high.npy")
    assert (again.code, again.out) == (0, done.out)
    assert "already holds this direction" in again.err
    other = magnet(*line, "--out", "high.npy", "--seed", 1)
    assert (other.code, other.out) == (1, "")
    assert "seed 0 (asked 1)" in other.err
    assert magnet(*line, "--out", "high.npy", "--seed", 1, "--force").code == 0
    cut = json.loads(Path("high.json").read_text())["report"]["rescore"]["balanced"]["digits"]["digits"]
    assert cut["low"] <= cut["value"] <= cut["high"]


@pytest.mark.slow
def test_models_come_from_the_catalogue_or_the_command_line(magnet, planted):
    done = magnet("direction", planted, "--attribute", SMILE, "--rescore", "--n", 100, "--moved", 4, "--out", "a.npy")
    assert (done.code, done.out) == (1, "")  # its name stands in a file: it is looked up, never followed
    assert f"re-scoring needs a model of {SMILE}, and none of that name is in the catalogue" in done.err
    line = ["direction", planted, "--attribute", SMILE, "--rescore", "--n", 100, "--moved", 4, "--out", "a.npy"]
    wrong = magnet(*line, "--model", "digits")
    assert (wrong.code, wrong.out) == (1, "")
    assert "name the attribute" in wrong.err
    line += ["--generator", "planted.py:Faces"]
    renamed = magnet(*line, "--model", f"{SMILE}={SMILE}", "--model", f"{GLASSES}={GLASSES}", "--attributes", SMILE)
    assert (renamed.code, "name the attribute" in renamed.err) == (1, True)
    assert magnet(*line, "--model", f"{SMILE}={SMILE}", "--attributes", SMILE).code == 0


def test_other_files_are_left_alone(magnet, here):
    np.save("mine.npy", np.arange(5.0))
    before = Path("mine.npy").read_bytes()
    for flags in ([], ["--force"]):
        done = magnet("direction", "scored", "--attribute", "digits=1", "--out", "mine.npy", *flags)
        assert (done.code, done.out) == (1, "")
        assert "is something else" in done.err
    assert Path("mine.npy").read_bytes() == before
    Path("notes.json").write_text('{"a": 1}')
    done = magnet("direction", "scored", "--attribute", "digits=1", "--out", "notes.npy", "--force")
    assert (done.code, done.out) == (1, "")
    assert Path("notes.json").read_text() == '{"a": 1}'
    assert magnet("direction", "scored", "--attribute", "digits=1", "--out", "one.txt").code == 2
    assert magnet("direction", "scored", "--attribute", "digits=1", "--out", "one.npy", "-q").out == "one.npy\n"
    data = bytearray(Path("one.npy").read_bytes())
    data[-3] ^= 8
    Path("one.npy").write_bytes(data)
    shown = magnet("info", "one.npy", "--check")
    assert shown.code == 1
    assert "changed after it was written" in shown.out
    done = magnet("direction", "scored", "--attribute", "digits=1", "--out", "one.npy")
    assert (done.code, done.out) == (1, "")
    assert magnet("direction", "scored", "--attribute", "digits=1", "--out", "one.npy", "--force").code == 0
    assert magnet("info", "one.npy").code == 0


def test_boundaries_of_others_are_read(tmp_path):
    line = np.random.default_rng(0).standard_normal(512).astype(np.float32)
    unit = line / np.linalg.norm(line)
    for name, content in {"boundary": unit[None], "flat": unit, "long": 3 * line[None].astype(np.float64)}.items():
        np.save(tmp_path / f"{name}.npy", content)
        found = direction.read(tmp_path / f"{name}.npy")
        assert (found.vector.shape, found.vector.dtype, found.fields) == ((1, 512), np.float32, {})
        np.testing.assert_allclose(found.vector[0], unit, atol=1e-6)


@pytest.mark.parametrize(
    "content",
    [np.zeros((1, 4)), np.full((1, 4), np.nan), np.ones((2, 4)), np.ones((1, 4), int), np.float32(1), np.ones((1, 0)),
     np.array([{"a": 1}], dtype=object)],
)  # fmt: skip
def test_what_is_no_direction_is_refused(tmp_path, content):
    np.save(tmp_path / "d.npy", content, allow_pickle=True)
    with pytest.raises(SpecError):
        npy.vector(tmp_path / "d.npy")


def test_a_direction_in_w_is_that_of_mapped_latents(magnet, tmp_path):
    save_file(stylegan2_weights(), tmp_path / "small.safetensors")
    z = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
    Path("judge.py").write_text(
        "import torch\n\n\nclass Red(torch.nn.Module):\n    classes = ('pale', 'red')\n\n"
        "    def forward(self, x):\n        r = x[:, 0].mean(dim=(1, 2)) - x[:, 1].mean(dim=(1, 2))\n"
        "        return torch.stack([-r, r], dim=1)\n"
    )
    path = tmp_path / "small.safetensors"
    assert magnet("attributes", path, "--n", 60, "--model", "judge.py:Red", "--out", "scored", "-q").code == 0
    line = ["direction", "scored", "--attribute", "judge.py:Red", "--confidence", 0, "--n", 20, "--allow-unbalanced"]
    done = magnet(*line, "--space", "w", "--generator", path, "--out", "red.npy", "--json")
    assert done.code == 0, done.err
    assert done.json["space"] == "w"
    network = models_.load(Checkpoint.find(str(path)))
    found = open_scored(Path("scored"), None, (), {})
    attributes = tuple(found.attributes.values())
    table = contingency.tabulate(attributes, 0.0, contingency.equal_target(attributes))
    rows = balance.draw(table, 20, 0, allow_unbalanced=True).rows
    with torch.no_grad():
        w = network.module.mapping(torch.from_numpy(np.load("scored/latents.npy")[rows]), None).numpy()
    red = attributes[0].labels[rows] == 1
    known = w[red].mean(axis=0) - w[~red].mean(axis=0)
    assert float(np.load("red.npy")[0] @ (known / np.linalg.norm(known))) >= 1 - 1e-6
    np.save("w.npy", z)
    np.save("s.npy", {"red": z[:, 0] > 0})
    taken = magnet("direction", "w.npy", "--scores", "s.npy", "--attribute", "red", "--confidence", 0, "--n", 20,
                   "--allow-unbalanced", "--space", "w", "--out", "taken.npy", "--json")  # fmt: skip
    assert taken.code == 0, taken.err
    assert taken.json["space"] == "w"
    edited = magnet("edit", path, "--direction", "taken.npy", "--n", 1, "--steps", 3, "--out", "edited")
    assert edited.code == 0, edited.err
    assert json.loads(Path("edited/edit.json").read_text())["spec"]["space"] == "w"
