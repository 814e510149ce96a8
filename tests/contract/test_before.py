"""What magnet made before its modules moved is opened, recognised and drawn from alike (tests/fixtures/before)."""

import hashlib
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

BEFORE = Path(__file__).parents[1] / "fixtures" / "before"
COMMANDS = json.loads((BEFORE / "commands.json").read_text())
DRAWS = json.loads((BEFORE / "draws.json").read_text())
PRINTED = {entry["command"]: entry["json"] for entry in COMMANDS}
MEASURED = {"seconds", "tuning_seconds", "rows_per_second"}  # of the machine, not of the request
TOLD_TOO_SMALL = {"displaced_share", "largest_useful_rho"}
STRIPES = "compute stripes.py:stripes --n 160 --shard-rows 64 --volume stripes.vol"
MNIST = "compute mnist --n 96 --top-k 8 --shard-rows 48 --solver pilot --volume mnist.vol"


X = np.linspace(0.01, 20, 10_001)
ARITHMETIC = hashlib.sha256(np.log(X).tobytes() + np.exp(-X).tobytes()).hexdigest()
# Logarithms of another processor may differ in their last bit; rows, latents and files may not.
REL = 0 if (BEFORE / "arithmetic.txt").read_text().strip() == ARITHMETIC else 1e-12


def same_numbers(now, then):
    """Whether two JSON values are the same to the bit; on another processor, numbers to rounding."""
    if isinstance(then, float) and isinstance(now, float):
        return now == then or abs(now - then) <= REL * abs(then) + REL
    if isinstance(then, dict) and isinstance(now, dict):
        return now.keys() == then.keys() and all(same_numbers(now[key], then[key]) for key in then)
    if isinstance(then, list) and isinstance(now, list):
        return len(now) == len(then) and all(map(same_numbers, now, then))
    return now == then and type(now) is type(then)


def command_of(start):
    """Return the recorded command that starts so."""
    (line,) = [line for line in PRINTED if line.startswith(start)]
    return line


def unmeasured(report):
    return {name: value for name, value in report.items() if name not in MEASURED}


def bytes_of(folder):
    """Return the bytes of every file in a folder, by its path; lock files are not results."""
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file() and path.name != ".locks"}


def shard(path):
    with h5py.File(path) as file:
        return {name: file[name][:] for name in file}


@pytest.fixture(autouse=True)
def work(home, monkeypatch):
    """The recorded folders in the working folder, with the home that they were made with."""
    shutil.copytree(BEFORE / "work", ".", dirs_exist_ok=True)
    monkeypatch.setenv("MAGNET_HOME", "home")


@pytest.mark.slow
@pytest.mark.parametrize("line", PRINTED)
def test_a_repeated_command_finds_its_result_finished(magnet, line):
    before = bytes_of(".")
    done = magnet(*line.split(), "--quiet", "--json")
    assert done.code == 0
    if line.startswith("compute"):
        assert unmeasured(done.json) == unmeasured(PRINTED[line]) | {"new_rows": 0}
    else:
        assert done.json == PRINTED[line]
    assert bytes_of(".") == before


@pytest.mark.parametrize("folder", ["stripes.vol", "mnist.vol", "drawn", "tempered", "rendered", "edited", "even"])
def test_every_byte_is_checked(magnet, folder):
    report = magnet("info", folder, "--check", "--json").json
    assert (report["ok"], report["problems"]) == (True, [])


@pytest.mark.slow
@pytest.mark.parametrize(("line", "n"), [(STRIPES, 64), (MNIST, 48)])
def test_the_same_request_makes_the_same_volume(magnet, line, n):
    recorded = PRINTED[line]["volume"]
    words = line.replace(f"--volume {recorded}", "--volume new.vol").split()
    words[words.index("--n") + 1] = n
    made = magnet(*words, "--quiet", "--json").json
    assert made["fingerprint"] == PRINTED[line]["fingerprint"]
    then, now = (shard(f"{volume}/shards/shard-000000.h5") for volume in (recorded, "new.vol"))
    assert then.keys() == now.keys()
    values = then.pop("singular_values"), now.pop("singular_values")
    np.testing.assert_allclose(values[1], values[0], rtol=1e-4)
    assert all(then[name].tobytes() == now[name].tobytes() and then[name].dtype == now[name].dtype for name in then)


def test_a_longer_compute_extends_the_volume(magnet):
    before = bytes_of("stripes.vol")
    made = magnet(*STRIPES.replace("--n 160", "--n 250").split(), "--json").json
    assert (made["rows"], made["new_rows"], made["shards"]) == (250, 90, 4)
    assert made["fingerprint"] == PRINTED[STRIPES]["fingerprint"]
    after = bytes_of("stripes.vol")
    short = "shard-000002"  # of 32 rows, now 64
    assert all(after[path] == data for path, data in before.items() if path.stem != short)
    longer = shard(f"stripes.vol/shards/{short}.h5")
    for name, then in shard(BEFORE / f"work/stripes.vol/shards/{short}.h5").items():
        np.testing.assert_allclose(longer[name][:32], then, rtol=1e-4 if name == "singular_values" else 0)
    assert magnet("info", "stripes.vol", "--check", "--json").json["ok"]


@pytest.mark.slow
@pytest.mark.parametrize("index", ["kept", "made again"])
@pytest.mark.parametrize("recorded", DRAWS, ids=[entry["command"].partition("vol ")[2] for entry in DRAWS])
def test_draws_are_the_same_to_the_bit(magnet, recorded, index):
    if index == "made again":
        shutil.rmtree("home/indices")
    done = magnet(*recorded["command"].split(), "--json")
    reports = [unmeasured(each) for each in (done.json, recorded["json"])]
    if "--mix" in recorded["command"]:  # these left out then what prior draws take
        reports = [{k: v for k, v in each.items() if k not in TOLD_TOO_SMALL} for each in reports]
    assert same_numbers(*reports)
    rows = [json.loads(line) for line in Path("draw/metadata.jsonl").read_text().splitlines()]
    assert same_numbers({name: [row.get(name) for row in rows] for name in recorded["rows"]}, recorded["rows"])
    assert hashlib.sha256(Path("draw/latents.npy").read_bytes()).hexdigest() == recorded["latents_sha256"]


def test_the_index_is_the_same_to_the_bit(magnet):
    line = command_of("index")
    path = Path(PRINTED[line]["index"])
    then = shard(path)
    shutil.rmtree(path.parent)
    assert magnet(*line.split(), "--json").json == PRINTED[line]
    now = shard(path)
    assert now.keys() == then.keys()
    for name, values in then.items():
        assert now[name].dtype == values.dtype
        np.testing.assert_allclose(now[name], values, rtol=REL)


@pytest.mark.parametrize("folder", ["drawn", "rendered", "edited", "even"])
def test_results_made_again_are_the_same(magnet, folder):
    (line,) = [line for line in PRINTED if line.endswith(f"--out {folder}")]
    random = ["--random"] * line.startswith("balance")  # was the default
    done = magnet(*line.split()[:-1], "again", *random, "--json")
    assert done.code == 0
    files = sorted(path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file())
    for sheet in Path("again/__sheets__").glob("*"):  # stood beside the documents
        sheet.rename(Path("again") / sheet.name)
    assert sorted(path.relative_to("again") for path in Path("again").rglob("*") if path.is_file()) == files
    for file in files:
        then, now = Path(folder) / file, Path("again") / file
        if file.parent.name == "images":
            pixels = [np.asarray(Image.open(path), int) for path in (then, now)]
            np.testing.assert_allclose(pixels[1], pixels[0], atol=1)
        elif file.suffix == ".npy":
            assert now.read_bytes() == then.read_bytes()
        elif file.name == "metadata.jsonl":
            rows = [[json.loads(row) for row in path.read_text().splitlines()] for path in (then, now)]
            sure = [[row.pop("digits_probability", 0) for row in side] for side in rows]
            assert same_numbers(rows[1], rows[0])
            assert sure[1] == pytest.approx(sure[0], rel=1e-4)


def test_a_direction_is_learned_alike(magnet):
    line = command_of("direction")
    report = magnet(*line.replace("high.npy", "again.npy").split(), "--json").json
    assert unmeasured(report) | {"direction": "high.npy"} == unmeasured(PRINTED[line])
    np.testing.assert_allclose(np.load("again.npy"), np.load("high.npy"), atol=1e-6)


def test_a_tempered_run_goes_on_from_its_kept_steps(magnet):
    line = command_of("sample stripes.py:stripes --volume stripes.vol --n 8")
    kept = bytes_of("home/tempered")
    assert len(kept) == 5  # its document, and two steps of the first island with their marks
    report = magnet(*line.split()[:-1], "again", "--json").json
    assert bytes_of("home/tempered").items() >= kept.items()
    assert report.keys() == PRINTED[line].keys()
    assert report["r_hat"] == pytest.approx(PRINTED[line]["r_hat"], rel=0.1)
    assert report["tempered"] == PRINTED[line]["tempered"]
