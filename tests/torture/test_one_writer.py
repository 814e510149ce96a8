"""Commands that write into one folder at the same time: the first writes, the others are told, nothing is mixed."""

import itertools
import json
import multiprocessing
import os
import random
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file
from toys import toy_weights
from typer.testing import CliRunner

from magnet_cli import models
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.cli.app import app
from magnet_cli.files import pictures
from magnet_cli.models import batches
from magnet_cli.sampling.render import render

N = 150
MODULES = [
    "magnet_cli.cli.app",
    "magnet_cli.sampling.sample",
    "magnet_cli.sampling.render",
    "magnet_cli.evaluating.annotate",
]
OFFSETS = (0.0, 0.0, 0.02, 0.1, 0.3, random.Random(18).uniform(0.03, 0.6))  # seconds between two starts


def command(folder, environment, start, args, out):
    """Run one command line in a process of its own, at a time; write down how it ended."""
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["magnet", *args]
    time.sleep(max(0.0, start - time.monotonic()))
    done = CliRunner().invoke(app, args, prog_name="magnet")
    trace = "" if isinstance(done.exception, SystemExit | None) else repr(done.exception)
    Path(out).write_text(json.dumps({"code": done.exit_code, "out": done.stdout, "err": done.stderr + trace}))


def together(*lines, offset=0.0):
    """Start commands as real processes with everything imported, `offset` seconds apart; return how each ended."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(MODULES)
    context.Process(target=abs, args=(0,)).start()  # the server is there
    start, outs = time.monotonic() + 0.5, [Path(f"ended-{i}.json").absolute() for i in range(len(lines))]
    processes = [
        context.Process(
            target=command, args=(Path.cwd(), dict(os.environ), start + i * offset, list(map(str, line)), outs[i])
        )
        for i, line in enumerate(lines)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
        assert process.exitcode == 0
    return [json.loads(out.read_text()) for out in outs]


@pytest.fixture(autouse=True)
def toy(tmp_path_factory, monkeypatch):
    """A generator and its volume in the working folder."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    save_file(toy_weights(), "toy.safetensors")
    assert CliRunner().invoke(app, ["compute", "toy.safetensors", "--n", "400", "-q"]).exit_code == 0
    return models.load(Checkpoint.find("toy.safetensors"))


def told(ended):
    """The one that wrote, and what the other was told; neither ended in a traceback."""
    codes = sorted(each["code"] for each in ended)
    assert codes in ([0, 0], [0, 1]), ended
    for each in ended:
        assert "Traceback" not in each["err"]
        assert "Error(" not in each["err"]
        assert each["code"] == 0 or "another process is writing" in each["err"] or "holds another" in each["err"]
    return codes


def whole(folder, generator):
    """The folder is as one command writes it: each image is that of its row of latents.npy, every byte is known."""
    assert CliRunner().invoke(app, ["info", folder, "--check"]).exit_code == 0
    latents = np.load(Path(folder, "latents.npy"))
    records = [json.loads(line) for line in Path(folder, "metadata.jsonl").read_text().splitlines()]
    assert len(records) == len(latents) == len(list(Path(folder, "images").iterdir()))
    for record, image in zip(records, batches.each_image(generator, latents, 1.0, 64), strict=True):
        assert Path(folder, record["file_name"]).read_bytes() == pictures.encoded(image, "png")
    assert not [path.name for path in Path(folder).iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_two_samples_into_one_folder(toy, force):
    """All pairs of seeds and starts, and two that replace what is there."""
    line = ["sample", "toy.safetensors", "--n", N, "--rho", 0.2, "--batch-size", 8, "--out", "s", "--json"]
    both = 0
    pairs = list(
        itertools.product(OFFSETS[1::2] if force else OFFSETS, [(1, 2)] if force else [(1, 2), (2, 1), (3, 3)])
    )
    for offset, (one, other) in pairs:
        if not force:
            shutil.rmtree("s", ignore_errors=True)
        ended = together([*line, "--seed", one, *force], [*line, "--seed", other, *force], offset=offset)
        both += told(ended) == [0, 0]
        seed = json.loads(Path("s/sample.json").read_text())["spec"]["seed"]
        assert seed in {s for s, each in zip((one, other), ended, strict=True) if each["code"] == 0}
        whole("s", toy)
    assert both < len(pairs)


@pytest.mark.parametrize("form", ["png", "npy"])
def test_two_renderings_into_one_folder(toy, form):
    for seed in (1, 2):
        np.save(f"z{seed}.npy", np.random.default_rng(seed).standard_normal((N, 5)).astype(np.float32))
    line = ["render", "toy.safetensors", "--format", form, "--batch-size", 4, "--out", "r"]
    for offset in OFFSETS:
        shutil.rmtree("r", ignore_errors=True)
        ended = together([*line, "--latents", "z1.npy"], [*line, "--latents", "z2.npy"], offset=offset)
        assert told(ended) == [0, 1]
        latents = np.load(f"z{[each['code'] for each in ended].index(0) + 1}.npy")
        assert CliRunner().invoke(app, ["info", "r", "--check"]).exit_code == 0
        if form == "npy":
            np.testing.assert_allclose(np.load("r/images.npy"), render(toy, latents), atol=1e-5)
        else:
            for i, image in enumerate(batches.each_image(toy, latents, 1.0, 64)):
                assert Path(f"r/images/{i:06d}.png").read_bytes() == pictures.encoded(image, "png")


def test_two_models_into_one_sample():
    """Both are written: the second waits for the first."""
    assert CliRunner().invoke(app, ["sample", "mnist", "--n", "60", "--out", "d", "-q"]).exit_code == 0
    for offset in (0.0, 0.02, 0.1):
        shutil.rmtree("s", ignore_errors=True)
        shutil.copytree("d", "s")
        ended = together(*(["attributes", "s", "--model", name] for name in ("digits", "digits-onnx")), offset=offset)
        assert [each["code"] for each in ended] == [0, 0], ended
        assert CliRunner().invoke(app, ["info", "s", "--check"]).exit_code == 0
        for line in Path("s/metadata.jsonl").read_text().splitlines():
            assert json.loads(line)["digits"] == json.loads(line)["digits-onnx"]


@pytest.mark.parametrize(
    ("verb", "ours", "theirs"),
    [
        ("attributes mnist --n 200 --model digits --out", "--seed 1", "--seed 2"),
        ("balance scored --n 50 --attributes digits --no-images --out", "--seed 1", "--seed 2"),
        ("edit mnist --direction towards.npy --n 4 --steps 3 --out", "--seed 1", "--seed 2"),
        ("sweep mnist --rho -.2,.1 --n 60 --out", "--seed 1", "--seed 2"),
        ("train slogan --data synthetic --components 8 --steps 20 --out", "--seed 1", "--seed 2"),
        (
            "direction scored --attribute digits=3 --n 60 --confidence 0 --allow-unbalanced --out",
            "--seed 1",
            "--seed 2",
        ),
        ("report", "one --out", "other --out"),
    ],
)
def test_two_of_every_verb_at_one_place(verb, ours, theirs, scored_digits):
    """The first finishes; the second is told; the folder passes its check."""
    shutil.copytree(scored_digits / "scored", "scored")
    name = verb.split()[0]
    prepare = {
        "edit": ["direction scored --attribute digits=3 --n 60 --confidence 0 --allow-unbalanced --out towards.npy"]
    }
    prepare["report"] = [f"sample --n 12 --seed {seed} --out {out}" for seed, out in ((1, "one"), (2, "other"))]
    for line in prepare.get(name, []):
        done = CliRunner().invoke(app, line.split())
        assert done.exit_code == 0, done.stderr
    out = {"direction": "x.npy", "report": "x.html"}.get(name, "x")
    lines = [f"{verb} {part} {out}" if part.endswith("--out") else f"{verb} {out} {part}" for part in (ours, theirs)]
    for offset in (0.0, 0.2):
        shutil.rmtree("x", ignore_errors=True)
        for path in Path().glob("x.*"):
            path.unlink()
        ended = together(*(line.split() for line in lines), offset=offset)
        codes = [each["code"] for each in ended]
        assert sorted(codes) == [0, 1], ended
        loser = ended[codes.index(1)]
        assert "Traceback" not in loser["err"]
        said = ("another process is writing", "holds another", "is a report of another", "which is a report")
        assert any(text in loser["err"] for text in said), loser["err"]
        if name not in {"report", "train"}:
            done = CliRunner().invoke(app, ["info", out, "--check"])
            assert done.exit_code == 0, done.stdout
        assert not [path.name for path in Path().iterdir() if path.name.startswith(".")]
