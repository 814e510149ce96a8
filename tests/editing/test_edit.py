"""edit: rows are where they are asked for, equal to what render gives; folders resume, repeat and check like others."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from toys import stylegan2_weights

from magnet_cli import models
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.editing import edit
from magnet_cli.editing.kinds import EDIT
from magnet_cli.files import documents
from magnet_cli.files.results import ResultFolder
from magnet_cli.maths.priors import Prior
from magnet_cli.models import batches, image_models


@pytest.fixture
def line16():
    """A boundary as others publish it, for mnist."""
    vector = np.random.default_rng(3).standard_normal((1, 16)).astype(np.float32)
    np.save("line.npy", vector / np.linalg.norm(vector))
    return np.load("line.npy")


def images(folder):
    return np.stack([np.asarray(Image.open(path)) for path in sorted(Path(folder, "images").iterdir())])


def test_each_image_is_that_of_the_moved_latent(magnet, line16):
    line = [
        "edit",
        "mnist",
        "--direction",
        "line.npy",
        "--seed",
        5,
        "--n",
        3,
        "--model",
        "digits",
        "--out",
        "e",
        "--json",
    ]
    done = magnet(*line)
    assert done.code == 0, done.err
    report = done.json
    assert (report["n"], report["steps"], report["images"], report["space"]) == (3, 7, 21, "z")
    assert report["moved"] == [-3, -2, -1, 0, 1, 2, 3]
    base = Prior("normal", 16).draw_shard(5, 0, 3)[0]
    places = np.concatenate([z + np.arange(-3, 4, dtype=np.float32)[:, None] * line16 for z in base])
    np.testing.assert_allclose(np.load("e/latents.npy"), places, atol=1e-6)
    np.testing.assert_array_equal(np.load("e/latents.npy")[3::7], base)  # the middle is the latent itself
    assert magnet("render", "mnist", "--latents", "e/latents.npy", "--out", "r", "-q").code == 0
    np.testing.assert_array_equal(images("e"), images("r"))
    scores = np.load("e/scores.npz")
    known = image_models.load_scorer("digits").probabilities(images("e")[..., None])
    np.testing.assert_allclose(scores["digits"], known, atol=1e-4)
    for i, name in enumerate(scores["digits_classes"]):
        np.testing.assert_allclose(
            report["scores"]["digits"][name], known.reshape(3, 7, 10).mean(axis=0)[:, i], atol=1e-4
        )
    records = [json.loads(text) for text in Path("e/metadata.jsonl").read_text().splitlines()]
    assert [(r["row"], r["step"], r["moved"]) for r in records[:8]] == [(0, i, i - 3) for i in range(7)] + [(1, 0, -3)]
    assert [int(r["digits"]) for r in records] == known.argmax(axis=1).tolist()
    assert "mean probability" in done.err
    assert {p.name for p in Path("e").iterdir()} == {
        "images", "latents.npy", "scores.npz", "metadata.jsonl", "__sheets__", "edit.json", "checksums.txt",
    }  # fmt: skip
    assert magnet("info", "e", "--check").code == 0


@pytest.mark.slow
def test_repeated_it_does_nothing_and_fewer_rows_are_its_beginning(magnet, line16):
    line = ["edit", "mnist", "--direction", "line.npy", "--steps", 3]
    first = magnet(*line, "--n", 4, "--json")
    assert first.json["edit"] == "edits/mnist-line-seed0"
    before = {p: p.stat().st_mtime_ns for p in Path("edits").rglob("*")}
    again = magnet(*line, "--n", 4, "--json")
    assert (again.code, again.json) == (0, first.json)
    assert {p: p.stat().st_mtime_ns for p in Path("edits").rglob("*")} == before
    other = magnet(*line, "--n", 4, "--to", 2)
    assert (other.code, other.out) == (1, "")
    assert "to 3.0 (asked 2.0)" in other.err
    assert magnet(*line, "--n", 2, "--out", "few").code == 0
    np.testing.assert_array_equal(images("few"), images("edits/mnist-line-seed0")[:6])
    assert magnet(*line, "--n", 2, "--to", 2, "--force").code == 0
    assert len(list(Path("edits/mnist-line-seed0/images").iterdir())) == 6
    data = bytearray(Path("few/latents.npy").read_bytes())
    data[-1] ^= 1
    Path("few/latents.npy").write_bytes(data)
    checked = magnet("info", "few", "--check")
    assert checked.code == 1
    assert "latents.npy was changed" in checked.out


def test_stopped_at_any_time_it_goes_on_to_the_same_files(magnet, line16):
    line = ["edit", "mnist", "--direction", "line.npy", "--n", 4, "--steps", 5, "--batch-size", 4, "--model", "digits"]
    assert magnet(*line, "--out", "whole", "-q").code == 0
    request = edit.EditRequest(
        direction=Path("line.npy"), n=4, steps=5, batch_size=4, model=("digits",), out=Path("part")
    )
    plan = edit.plan(Checkpoint.find("mnist"), request)
    steps = edit.run(plan, [])
    assert list(itertools.islice(steps, 2)) == [4, 4]
    steps.close()
    assert ResultFolder(Path("part"), EDIT).finished(plan.spec) is None
    assert magnet(*line, "--out", "part", "-q").code == 0
    assert documents.sha256_file(Path("part/checksums.txt")) == documents.sha256_file(Path("whole/checksums.txt"))


@pytest.mark.slow
def test_given_latents_are_moved_in_their_order(magnet, line16):
    z = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)
    np.save("z.npy", z)
    done = magnet("edit", "mnist", "--direction", "line.npy", "--latents", "z.npy", "--n", 2, "--steps", 3, "--json")
    assert done.code == 0, done.err
    assert done.json["edit"] == "edits/mnist-line-z"
    np.testing.assert_array_equal(np.load("edits/mnist-line-z/latents.npy")[1::3], z[:2])
    np.save("wide.npy", np.ones((2, 17), np.float32))
    for args, code, said in (
        (["--latents", "wide.npy"], 1, "the latents have the shape [2, 17]"),
        (["--latents", "nothing.npy"], 1, "nothing.npy"),
        (["--latents", "z.npy", "--seed", 1], 2, "--seed"),
        (["--labels", "z.npy"], 2, "--labels"),
        (["--steps", 1], 2, "--steps"),
        (["--from", "nan"], 2, "--from"),
        (["--from", 3], 2, "--to"),
        (["--space", "w"], 1, "no space 'w'"),
        (["--model", "digts"], 1, "did you mean digits"),
    ):
        wrong = magnet("edit", "mnist", "--direction", "line.npy", *args, "--out", "wrong")
        assert (wrong.code, wrong.out) == (code, ""), (args, wrong.err)
        assert said in wrong.err
        assert not Path("wrong").exists()
    np.save("short.npy", np.ones((1, 5), np.float32))
    wrong = magnet("edit", "mnist", "--direction", "short.npy")
    assert (wrong.code, wrong.out) == (1, "")
    assert "z of mnist (dcgan) has 16 numbers, and the direction 5" in wrong.err


def test_a_direction_of_another_generator_is_warned_of(magnet, toy):
    np.save("z.npy", np.random.default_rng(0).standard_normal((40, 16)).astype(np.float32))
    np.save("s.npy", {"big": np.arange(40) % 2})
    assert magnet("attributes", "mnist", "--n", 60, "--model", "digits", "--out", "scored", "-q").code == 0
    line = ["direction", "scored", "--attribute", "digits", "--cut", "digits=5", "--out", "d.npy", "-q"]
    assert magnet(*line).code == 0
    quiet = magnet("edit", "mnist", "--direction", "d.npy", "--n", 1, "--steps", 2, "-q")
    assert (quiet.code, quiet.err) == (0, "")
    fields = json.loads(Path("d.json").read_text())
    fields.pop("checksum")
    fields["spec"] |= {"sha256": "0" * 64, "generator": "another"}
    Path("d.json").write_bytes(documents.encode(fields))
    warned = magnet("edit", "mnist", "--direction", "d.npy", "--n", 1, "--steps", 2, "--out", "o", "-q")
    assert (warned.code, "warning: d.npy was learned on another" in warned.err) == (0, True)
    wrong = magnet("edit", "mnist", "--direction", "d.npy", "--space", "w", "--out", "w")
    assert (wrong.code, wrong.out) == (1, "")
    assert "no space 'w'" in wrong.err


def test_in_w_drawn_latents_are_mapped_and_given_ones_taken(magnet, tmp_path):
    save_file(stylegan2_weights(), tmp_path / "small.safetensors")
    path = tmp_path / "small.safetensors"
    vector = np.zeros((1, 8), np.float32)
    vector[0, 2] = 1
    np.save("d.npy", vector)
    line = ["edit", path, "--direction", "d.npy", "--space", "w", "--n", 2, "--steps", 3, "--from", 0, "--to", 4]
    assert magnet(*line, "--out", "e", "-q").code == 0
    network = models.load(Checkpoint.find(str(path)))
    z = network.prior.draw_shard(0, 0, 2)[0]
    with torch.no_grad():
        w = network.module.mapping(torch.from_numpy(z), None).numpy()
    np.testing.assert_allclose(np.load("e/latents.npy")[::3], w, atol=1e-6)
    np.testing.assert_allclose(np.load("e/latents.npy")[2] - w[0], 4 * vector[0], atol=1e-6)
    again = magnet("render", path, "--latents", "e/latents.npy", "--space", "w", "--out", "r", "-q")
    assert again.code == 0, again.err
    np.testing.assert_array_equal(images("e"), images("r"))
    np.testing.assert_array_equal(images("e")[0], next(iter(batches.each_image(network, z[:1], 1.0, 2))))
    told = magnet("edit", path, "--direction", "d.npy", "--n", 2, "--out", "z")
    assert (told.code, "whether it moves z or w" in told.err) == (0, True)
    assert "whether it moves" not in magnet(*line, "--dry-run", "--out", "dry").err
    np.save("w.npy", w)
    assert magnet(*line, "--latents", "w.npy", "--out", "taken", "-q").code == 0
    np.testing.assert_array_equal(images("taken"), images("e"))


CONDITIONAL = """
import torch


class Lamps(torch.nn.Module):
    latent_dim, num_classes, image_range = 4, 2, (0, 1)

    def __init__(self):
        super().__init__()
        self.line = torch.nn.Parameter(torch.tensor([1.0, 0, 0, 0]))

    def forward(self, z, labels):
        bright = torch.sigmoid(z @ self.line.to(z) + labels.to(z) - 0.5)
        return bright[:, None, None, None].expand(-1, 1, 4, 4)


class Lit(torch.nn.Module):
    classes = ("dark", "lit")

    def forward(self, images):
        mean = 6 * images.mean(dim=(1, 2, 3))
        return torch.stack([-mean, mean], dim=1)
"""


@pytest.mark.slow
def test_labels_go_with_latents_all_the_way(magnet):
    """Of a conditional generator: scored, balanced, learned from and edited with the label of each latent."""
    Path("lamps.py").write_text(CONDITIONAL)
    own, lit = "lamps.py:Lamps", "lamps.py:Lit"
    assert magnet("attributes", own, "--n", 400, "--model", lit, "--out", "scored", "-q").code == 0
    done = magnet("balance", "scored", "--n", 40, "--confidence", 0.6, "--generator", own, "--out", "even")
    assert done.code == 0, done.err
    rows = [json.loads(text)["row"] for text in Path("even/metadata.jsonl").read_text().splitlines()]
    np.testing.assert_array_equal(np.load("even/labels.npy"), np.load("scored/labels.npy")[rows])
    line = ["direction", "scored", "--attribute", lit, "--confidence", 0.6, "--n", 40, "--rescore", "--moved", 6]
    done = magnet(*line, "--model", lit, "--generator", own, "--out", "lit.npy", "--json")
    assert done.code == 0, done.err
    assert done.json["rescore"]["balanced"][lit][lit]["value"] > 0.5
    assert np.load("lit.npy")[0, 0] > 0.8
    for label in (0, 1):
        line = ["edit", own, "--direction", "lit.npy", "--label", label, "--n", 2, "--steps", 3, "--out", f"e{label}"]
        assert magnet(*line).code == 0
        assert set(np.load(f"e{label}/labels.npy")) == {label}
    assert (images("e1").mean(axis=(1, 2)) > images("e0").mean(axis=(1, 2))).all()
    np.save("z.npy", np.load("even/latents.npy"))
    line = ["edit", own, "--direction", "lit.npy", "--latents", "z.npy", "--steps", 3, "--out", "given"]
    missing = magnet(*line)
    assert (missing.code, missing.out) == (1, "")
    assert "pass them: --labels FILE.npy" in missing.err
    assert magnet(*line, "--labels", "even/labels.npy").code == 0
    np.testing.assert_array_equal(images("given")[1], images("even")[0])
