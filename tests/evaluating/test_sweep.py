"""sweep: points are what their samples say, picking does not flatter what is reported, and no work is lost."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from toys import save_images
from typer.testing import CliRunner

from magnet_cli import index, models
from magnet_cli.catalog import cache
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.cli.app import app
from magnet_cli.evaluating import evaluation, sweep
from magnet_cli.evaluating.sweep import choice, figures, reference
from magnet_cli.files import documents
from magnet_cli.files.image_folder import ImageSet
from magnet_cli.files.results import ResultFolder
from magnet_cli.index.index import Index, Part
from magnet_cli.maths.priors import Prior
from magnet_cli.models import batches, image_models
from magnet_cli.sampling.kinds import SAMPLE
from magnet_cli.volume import Volume

pytestmark = pytest.mark.slow  # whole evaluations: `make test` runs them

RUN = ("sweep", "mnist", "--rho", "-.2,.2", "--n", 60, "--model", "digits", "--pick", "recall")


def rows_of(point, out):
    lines = (out / point["sample"] / "metadata.jsonl").read_text().splitlines()
    return [json.loads(line)["row"] for line in lines]


# --- halves ---------------------------------------------------------------------------------------------------------


def rows(count, first_row=0):
    values = np.random.default_rng(0).standard_normal(count)
    return Index("f", 1, (Part(0, first_row, count, ""),), values, np.ones(count, bool))


def test_halves_are_a_function_of_the_row_and_hold_each_once():
    for turns in (1, 10):
        one, two = (index.half(rows(1000), number, turns).competing for number in (1, 2))
        assert not (one & two).any()
        assert (one | two).all()
        assert abs(one.sum() - two.sum()) <= turns
        longer = index.half(rows(3000), 1, turns).competing
        np.testing.assert_array_equal(longer[:1000], one)
        shifted = index.half(rows(500, 300), 1, turns).competing  # the first shard is missing
        np.testing.assert_array_equal(shifted, longer[300:800])


def test_both_halves_have_every_class():
    labels = np.arange(1000) % 10
    for number in (1, 2):
        competing = index.half(rows(1000), number, 10).competing
        assert (np.bincount(labels[competing]) == 50).all()


def test_a_half_of_what_competes_already():
    asked = dataclasses.replace(rows(100), competing=np.arange(100) < 20)
    assert index.half(asked, 1).pool(1.0) == 10
    drawn = [set(index.draw(index.half(rows(100), number), 40, 0.5, 0).rows.tolist()) for number in (1, 2)]
    assert not drawn[0] & drawn[1]


def test_halves_of_the_reference_have_no_image_in_common():
    shown = ImageSet(Path(), tuple(Path(f"{i}.png") for i in range(101)), (32, 32, 1))
    one, two = (reference.part(shown, half).files for half in (1, 2))
    assert (len(one), len(two)) == (50, 50)
    assert not set(one) & set(two)
    assert reference.part(shown, 0) is shown


# --- the choice -----------------------------------------------------------------------------------------------------


def spec(**fields):
    plain = {"generator": "g", "sha256": "0", "fingerprints": ("f",), "pools": (100,), "n": 40, "rho": (0.0, 1.0)}
    plain |= {"truncation": (1.0,), "top_k": 1, "seed": 0, "label": (), "bn_truncation": 0.0, "reference": ""}
    plain |= {
        "features": "digits",
        "features_key": "0",
        "nearest_k": 5,
        "models": (),
        "keys": (),
        "pick": "fid[digits]",
    }
    return sweep.SweepSpec(**plain | fields)


def measured(rho, half, name, number):
    model, _, measure = name.rpartition(".")
    estimate = {"value": number, "low": number - 1, "high": number + 1}
    point = {"rho": rho, "truncation": 1.0, "half": half, "metrics": {}, "undefined": {}, "attributes": {}}
    return point | ({"attributes": {model: {measure: estimate}}} if model else {"metrics": {name: estimate}})


@pytest.mark.parametrize(("name", "best"), [("fid[digits]", 0.2), ("recall[digits]", -0.2), ("gender.gap", 0.2)])
def test_each_metric_points_the_right_way(name, best):
    found = [measured(rho, 1, name, number) for rho, number in ((-0.2, 9.0), (0.0, 7.0), (0.2, 5.0))]
    assert choice.best(spec(pick=name), found)["rho"] == best


def test_what_is_reported_is_not_flattered_by_the_picking():
    """Ten rho that do not differ at all, FID 50 ± 5: the best of half 1 looks good, and is 50 on half 2."""
    rng = np.random.default_rng(0)
    rhos = np.linspace(-1, 1, 11)
    picked_on, reported = [], []
    for _ in range(400):
        found = [measured(rho, 1, "fid[digits]", value) for rho, value in zip(rhos, rng.normal(50, 5, 11), strict=True)]
        best = choice.best(spec(), found)
        other = [measured(rho, 2, "fid[digits]", value) for rho, value in zip(rhos, rng.normal(50, 5, 11), strict=True)]
        told = choice.choose(spec(), found + other)
        picked_on.append(best["metrics"]["fid[digits]"]["value"])
        reported.append(told["chosen"]["metrics"]["fid[digits]"]["value"])
        assert (told["rho"], told["chosen"]["half"], told["baseline"]["rho"]) == (best["rho"], 2, 0.0)
    assert np.mean(picked_on) < 50 - 5
    assert abs(np.mean(reported) - 50) < 3 * 5 / np.sqrt(400)


# --- a sweep --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished sweep in a folder s, and what it printed."""
    place = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAGNET_HOME", str(place / "home"))
        patch.chdir(place)
        done = CliRunner().invoke(app, [str(each) for each in (*RUN, "--out", "s", "--json")], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return place / "s", json.loads(done.stdout)


@pytest.fixture
def swept(made):
    """A copy of it, and what it printed."""
    shutil.copytree(made[0], "s")
    return made[1]


@pytest.mark.slow
def test_points_are_what_their_samples_say(magnet, swept):
    out = Path("s")
    fields = documents.read(out / "sweep.json")
    assert sorted(p.name for p in out.iterdir()) == ["checksums.txt", "plots", "reference", "samples", "sweep.json"]
    assert [(p["rho"], p["half"]) for p in fields["points"]] == [(-0.2, 1), (0.0, 1), (0.2, 1)]
    told = fields["choice"]
    best = max(fields["points"], key=lambda p: (p["metrics"]["recall[digits]"]["value"], -abs(p["rho"])))
    assert told["rho"] == best["rho"]
    assert (told["by"], told["direction"]) == ("recall[digits]", "highest")
    assert told["baseline"]["rho"] == 0
    picked_on = {row for point in fields["points"] for row in rows_of(point, out)}
    reported = {row for name in ("chosen", "baseline") for row in rows_of(told[name], out)}
    assert not picked_on & reported
    built = index.build(Volume.open(cache.BUILT_IN / "mnist-volume"), 16)
    shown = ImageSet.open(out / "reference")
    assert fields["reference"] | {"attributes": None} == {
        "path": "reference",
        "kind": "prior",
        "n": 120,
        "attributes": None,
    }
    judge = image_models.load_scorer("digits")
    for point in (*fields["points"], told["chosen"]):
        drawn = index.draw(index.half(built, point["half"]), 60, point["rho"], 0)
        assert rows_of(point, out) == drawn.rows.tolist()
        assert point["effective_size"] == pytest.approx(drawn.effective_size)
        assert point["displaced_share"] == pytest.approx(drawn.displaced_share)
        assert ResultFolder(out / point["sample"], SAMPLE).check() == []
        against = reference.part(shown, point["half"])
        found = evaluation.compare([ImageSet.open(out / point["sample"])], against, judge)
        for name, each in found.metrics.items():
            assert point["metrics"][name] == pytest.approx(dataclasses.asdict(each), rel=1e-4, abs=1e-4), name
        counted = magnet("attributes", out / point["sample"], "--model", "digits", "--json").json["models"]["digits"]
        assert point["attributes"]["digits"] == counted
    assert magnet("info", "s", "--check").code == 0  # also after attributes wrote into the samples again
    assert swept["points"] == fields["points"]


@pytest.mark.slow
def test_the_reference_is_fresh_draws_that_no_row_of_the_volume_is(swept):
    volume = Volume.open(cache.BUILT_IN / "mnist-volume")
    rng = np.random.default_rng([reference._STREAM, 0])
    latents = Prior("normal", 16).draw(120, rng)[0]
    stored = {row.tobytes() for row in volume.latents(np.arange(20_000))}
    assert not stored & {row.tobytes() for row in latents}
    assert documents.read(Path("s/reference/rendering.json"))["spec"]["n"] == 120
    assert swept["work"][0]["images"] == 180


@pytest.mark.slow
def test_repeated_it_does_nothing_and_anything_else_is_refused(magnet, swept):
    before = {p: p.stat().st_mtime_ns for p in Path("s").rglob("*")}
    again = magnet(*RUN, "--out", "s", "--json")
    assert (again.code, again.json) == (0, swept)
    assert {p: p.stat().st_mtime_ns for p in Path("s").rglob("*")} == before
    other = magnet(*RUN, "--out", "s", "--seed", 1)
    assert (other.code, other.out) == (1, "")
    assert "seed 0 (asked 1)" in other.err
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("x")
    for flags in ((), ("--force",)):
        taken = magnet(*RUN, "--out", "mine", *flags)
        assert taken.code == 1
        assert "thesis.tex" in taken.err


def test_a_flipped_byte_and_a_missing_sample_are_found(magnet, swept):
    told = swept["points"][0]["sample"]
    for path in (Path("s/plots/fid.svg"), Path("s") / told / "latents.npy", Path("s/reference/images/000003.png")):
        if not path.exists():
            assert path.name == "fid.svg"  # undefined at 60 images
            continue
        data = path.read_bytes()
        path.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
        done = magnet("info", "s", "--check")
        assert done.code == 1
        assert path.name in done.out
        path.write_bytes(data)
    assert magnet("info", "s", "--check").code == 0
    (Path("s") / told / "sample.json").unlink()
    assert f"{told} is missing" in magnet("info", "s", "--check").out


def test_an_image_is_rendered_once_and_seen_once(magnet, tmp_path):
    """However many points a row is in: its file is one and the same, and each model looked at it a single time."""
    seen, pixels = Counter(), Counter()
    judge = image_models.load_scorer("digits")

    def run(shown):
        seen.update(bytes(image.numpy().tobytes()) for image in shown)
        return judge.run(shown)

    counting = dataclasses.replace(judge, run=run)
    generator, volume = models.load(Checkpoint.find("mnist")), Volume.open(cache.BUILT_IN / "mnist-volume")
    module = generator.module

    class Watched:
        def __getattr__(self, name):
            return getattr(module, name)

        def __call__(self, z, *more):
            pixels.update(row.numpy().tobytes() for row in {row.numpy().tobytes(): row for row in z}.values())
            return module(z, *more)

    watched = dataclasses.replace(generator, module=Watched())
    built = index.build(volume, 16)
    about = spec(rho=(-0.1, 0.0, 0.1), pick="", sha256=generator.sha256, top_k=16, n=60)
    pools = [sweep.Pool(1.0, volume, built)]
    shown = ImageSet.open(
        save_images(tmp_path / "r", np.random.default_rng(0).integers(0, 255, (50, 32, 32, 1), dtype=np.uint8))
    )
    request = sweep.SweepRequest(rho=about.rho)
    scorers = sweep.Scorers(counting)
    plan = sweep.SweepPlan(request, tmp_path / "s", about, pools, watched, scorers, shown, {}, None, 0.0)
    found = list(sweep.run(plan, ["magnet", "sweep"]))
    drawn = [rows_of(point, tmp_path / "s") for point in found]
    union = {row for each in drawn for row in each}
    assert len(union) < 130  # of 180
    assert set(seen.values()) == {1}
    assert len(seen) == len(union) + 50
    by_row = {}
    for point, each in zip(found, drawn, strict=True):
        for i, row in enumerate(each):
            by_row.setdefault(row, set()).add((tmp_path / "s" / point["sample"] / f"images/{i:06d}.png").stat().st_ino)
    assert {len(inodes) for inodes in by_row.values()} == {1}
    expected = batches.images(generator, volume.latents(np.array(drawn[0][:1])), 1.0, 256)[0]
    first = next(ImageSet.open(tmp_path / "s" / found[0]["sample"]).batches(0, 1))[0]
    np.testing.assert_array_equal(first, expected)


def test_what_a_kill_left_of_a_temporary_is_in_nobodys_way(magnet):
    """A process killed while it wrote the first file of a folder leaves that alone, under another name."""
    Path("p").mkdir()
    Path("p/..sample-started.json.1-abc.part").write_bytes(b"half")
    Path("p/images").mkdir()
    assert magnet("sample", "--n", 4, "--out", "p").code == 1  # images are somebody's
    Path("p/images").rmdir()
    assert magnet("sample", "--n", 4, "--out", "p").code == 0
    assert magnet("sample", "--n", 5, "--out", "p", "--force").code == 0


@pytest.mark.torture
def test_killed_it_goes_on_to_the_same_numbers(magnet, made):
    """A real process, killed after its first point: that point is taken over, and the end is the same."""
    command = [str(each) for each in (*RUN, "--out", "a", "--quiet")]
    process = subprocess.Popen([sys.executable, "-m", "magnet_cli", *command])
    points, until = Path("a/.points"), time.monotonic() + 120
    while not list(points.glob("*.json")) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not Path("a/sweep.json").exists()
    assert magnet("info", "a").code == 1
    kept = json.loads(sorted(points.glob("*.json"))[0].read_text())
    stamp = (Path("a") / kept["sample"] / "sample.json").stat().st_mtime_ns
    done = magnet(*command, "--json")
    assert done.code == 0, done.err
    assert not points.exists()
    assert (Path("a") / kept["sample"] / "sample.json").stat().st_mtime_ns == stamp
    for point, other in zip(done.json["points"], made[1]["points"], strict=True):
        for name, each in point.pop("metrics").items():  # features of another batch differ in their last bits
            assert each == pytest.approx(other["metrics"][name], rel=1e-4, abs=1e-4), name
        assert point == {name: each for name, each in other.items() if name != "metrics"}
    assert done.json["choice"]["rho"] == made[1]["choice"]["rho"]


@pytest.mark.slow
def test_truncation_and_a_reference_that_was_given(magnet, tmp_path):
    assert magnet("sample", "--n", 150, "--rho", 0, "--seed", 5, "--out", "r").code == 0
    asked = ("sweep", "--rho", ".2", "--n", 40, "--truncation", "1,.7", "--reference", "r", "--out", "s")
    dry = magnet(*asked, "--dry-run")
    assert dry.code == 0, dry.err
    assert "4 points of 40 images" in dry.err
    assert "80 more report it" in dry.err
    assert "kid[digits]" in dry.err  # 40 images are too few for FID
    assert not Path("s").exists()
    done = magnet(*asked, "--json")
    assert done.code == 0, done.err
    points = done.json["points"]
    assert [(p["truncation"], p["rho"]) for p in points] == [(1, 0), (1, 0.2), (0.7, 0), (0.7, 0.2)]
    assert {p["reference_n"] for p in points} == {75}
    assert "images are rendered at 0.7" in done.err
    fields = documents.read(Path("s/sweep.json"))
    assert (fields["reference"]["kind"], fields["reference"]["path"]) == ("images", "r")
    assert fields["choice"]["by"] == "kid[digits]"
    rendered = documents.read(Path("s") / points[3]["sample"] / "sample.json")
    assert (rendered["spec"]["truncation"], rendered["volume_truncation"]) == (0.7, 1)


@pytest.mark.slow
def test_every_plot_is_drawn_from_sweep_json_alone(magnet):
    done = magnet("sweep", "--rho", "-.2", "--n", 80, "--truncation", "1,.8", "--model", "digits", "--out", "s")
    assert done.code == 0, done.err
    fields = json.loads(Path("s/sweep.json").read_text())
    drawn = figures.draw(fields)
    names = ["precision-recall", "fid", "kid", "effective-size", "displaced-share"]
    names += ["shares-digits-truncation1", "shares-digits-truncation0.8", "imbalance-digits"]
    assert list(drawn) == names == list(fields["plots"])
    for name, svg in drawn.items():
        assert (Path("s") / fields["plots"][name]).read_text() == svg
        marks = [each for each in ElementTree.fromstring(svg).iter() if each.get("class") == "mark"]
        assert len(marks) >= 2, name
    front = drawn["precision-recall"]
    assert "along truncation, rho 0" in front
    assert "drift from the prior" in front


def test_bad_input_is_said_in_words(magnet, toy):
    for wrong in (("--rho", "x"), ("--rho", "nan"), ("--n", 10), ("--truncation", "2"), ("--pick", "beauty")):
        assert magnet("sweep", *wrong).code == 2
    for wrong, said in (
        (("--n", 15_000, "--pick", "recall"), "10,000 rows compete in each half of"),
        (("--n", 60, "--pick", "gap"), "no model with classes is passed"),
        (("--n", 60, "--pick", "fid"), "undefined for so few images"),
        (("--n", 60, "--reference", "nowhere"), "not there"),
        (("--n", 60, "--model", "digts"), "did you mean digits"),
        (("--n", 60, "--model", "gender"), "magnet fetch gender"),
    ):
        done = magnet("sweep", *wrong, "--out", "s")
        assert (done.code, done.out) == (1, ""), wrong
        assert said in done.err, done.err
        assert "do: " in done.err
        assert not Path("s").exists()
    assert magnet("compute", toy, "--n", 100).code == 0
    done = magnet("sweep", toy, "--n", 40, "--features", "digits")  # 8x8 images
    assert (done.code, done.out) == (1, "")
    assert "these are 1×8×8" in done.err
