"""render: files are the images of the latents given, however they are made, and stopping loses nothing."""

import contextlib
import io
import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from toys import stylegan2_weights

from magnet_cli import models
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.cli.describe import KINDS
from magnet_cli.errors import MagnetError, SpecError
from magnet_cli.files import atomic, documents
from magnet_cli.files import npy as given_
from magnet_cli.models import batches
from magnet_cli.sampling.render import render


def latents(n=40, size=5, seed=0):
    """Latents saved to z.npy."""
    z = np.random.default_rng(seed).standard_normal((n, size)).astype(np.float32)
    np.save("z.npy", z)
    return z


def contents(folder):
    """The bytes of a rendering's files, but for the document, which holds times."""
    found = (p for p in Path(folder).rglob("*") if p.is_file() and p.name not in {"rendering.json", "sample.json"})
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


def made(magnet, *args, code=0):
    done = magnet("render", *args)
    assert done.code == code, done.err
    if code:
        assert done.out == ""
    return done


# --- what is written ------------------------------------------------------------------------------------------------


def test_images_are_those_of_the_latents(magnet, toy, toy_generator):
    z = latents(300)  # more than a batch of 256
    done = made(magnet, toy, "--latents", "z.npy", "--json")
    assert {"out", "n", "seconds"} <= done.json.keys()
    assert done.json["n"] == 300
    out = Path(done.json["out"])
    assert re.fullmatch(r"renders/toy-z-[0-9a-f]{8}", str(out))
    with torch.no_grad():
        known = (toy_generator(torch.from_numpy(z)).numpy()[:, 0] + 1) * 127.5
    for i in (0, 255, 256, 299):
        shown = np.asarray(Image.open(out / f"images/{i:06d}.png"), float)
        assert np.abs(shown - known[i]).max() <= 0.51
    assert len(list((out / "images").iterdir())) == 300
    document = json.loads((out / "rendering.json").read_text())
    assert document["spec"]["latents"] == documents.sha256_file(Path("z.npy"))
    assert document["spec"]["sha256"] == toy_generator.sha256
    assert document["command"][0] == "magnet"
    assert {"magnet", "torch", "numpy", "pillow"} <= document["versions"].keys()
    told = magnet("info", out, "--check", "--json").json
    assert (told["kind"], told["ok"], told["spec"]["n"]) == ("rendering", True, 300)


@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_other_formats(magnet, toy, ending):
    latents(6)
    made(magnet, toy, "--latents", "z.npy", "--out", "png")
    made(magnet, toy, "--latents", "z.npy", "--out", "other", "--format", ending)
    for i in range(6):
        with Image.open(f"other/images/{i:06d}.{ending}") as image:
            assert image.format == {"jpg": "JPEG", "webp": "WEBP"}[ending]
            difference = np.asarray(image.convert("L"), float) - np.asarray(Image.open(f"png/images/{i:06d}.png"))
        assert np.abs(difference).max() <= {"jpg": 10, "webp": 0}[ending]


def test_one_array(magnet, toy, toy_generator):
    z = latents(300)
    made(magnet, toy, "--latents", "z.npy", "--out", "raw", "--format", "npy", "--truncation", 0.7)
    found = np.load("raw/images.npy")
    assert (found.dtype, found.shape) == (np.float32, (300, 1, 8, 8))
    with torch.no_grad():
        np.testing.assert_allclose(found, toy_generator(torch.from_numpy(z), 0.7).numpy(), atol=1e-6)
    assert np.load("raw/images.npy", mmap_mode="r").flags.c_contiguous
    assert {p.name for p in Path("raw").iterdir()} == {"images.npy", "checksums.txt", "rendering.json"}
    assert magnet("info", "raw", "--check").code == 0


def test_the_first_images_of_a_longer_file_are_the_same(magnet, toy):
    z = latents(40)
    made(magnet, toy, "--latents", "z.npy", "--out", "long", "--batch-size", 16)
    np.save("z.npy", z[:11])
    made(magnet, toy, "--latents", "z.npy", "--out", "short", "--batch-size", 16)
    long, short = contents("long"), contents("short")
    names = [f"images/{i:06d}.png" for i in range(11)]
    assert [short[name] for name in names] == [long[name] for name in names]


@pytest.mark.slow
def test_labels_by_number_and_one_hot(magnet):
    Path("classes.py").write_text(
        "import torch\n"
        "class Classes(torch.nn.Module):\n"
        "    latent_dim, num_classes = 3, 4\n"
        "    def forward(self, z, labels):\n"
        "        return ((labels[:, None, None, None] + 0.1 * z[:, :1, None, None]) / 4 - 0.5).expand(-1, 3, 4, 4)\n"
    )
    z = latents(6, 3)
    classes = np.array([3, 0, 1, 2, 3, 3], np.uint8)
    np.save("y.npy", classes)
    made(magnet, "classes.py:Classes", "--latents", "z.npy", "--labels", "y.npy", "--out", "a", "--format", "npy")
    known = (classes + 0.1 * z[:, 0]) / 4 - 0.5
    np.testing.assert_allclose(np.load("a/images.npy")[:, 1, 2, 3], known, atol=1e-6)
    for dtype in (np.float32, bool, np.int64):
        np.save("y.npy", np.eye(4, dtype=dtype)[classes])
        made(magnet, "classes.py:Classes", "--latents", "z.npy", "--labels", "y.npy", "--out", "b", "--force")
        expected = np.rint((known + 1) * 127.5)
        shown = [np.asarray(Image.open(f"b/images/{i:06d}.png"))[0, 0, 0] for i in range(6)]
        np.testing.assert_array_equal(shown, expected)
    for wrong, said in (
        (np.array([0, 1, 2]), "of shape [3]"),
        (np.array([0, 1, 2, 3, 4, 0]), "4 in row 4"),
        (np.array([0, -1, 2, 3, 0, 0]), "-1 in row 1"),
        (np.zeros(6), "float64 of shape [6]"),
        (np.eye(5)[:, :4].repeat(2, axis=0)[:6] * 0.5, "[0.5, 0.0, 0.0, 0.0] in row 0"),
        (np.eye(5)[np.zeros(6, int)], "of shape [6, 5]"),
        (np.int64(3), "of shape []"),
    ):
        np.save("y.npy", wrong)
        done = made(magnet, "classes.py:Classes", "--latents", "z.npy", "--labels", "y.npy", "--out", "c", code=1)
        assert said in done.err
        assert "0..3" in done.err
    done = made(magnet, "classes.py:Classes", "--latents", "z.npy", "--out", "c", code=1)
    assert "takes labels 0..3, and no labels are passed" in done.err
    assert "--labels FILE.npy" in done.err
    assert not Path("c").exists()


def test_latents_in_w(magnet, tmp_path):
    state = stylegan2_weights()
    path = tmp_path / "small.safetensors"
    save_file(state, path)
    z = latents(5, 8)
    network = models.load(Checkpoint.find(str(path))).module
    with torch.no_grad():
        np.save("w.npy", network.mapping(torch.from_numpy(z)).numpy())
    flags = ("--format", "npy", "--truncation", 0.6)
    made(magnet, path, "--latents", "z.npy", "--out", "z", *flags)
    made(magnet, path, "--latents", "w.npy", "--out", "w", "--space", "w", *flags)
    np.testing.assert_allclose(np.load("w/images.npy"), np.load("z/images.npy"), atol=1e-5)
    assert magnet("render", path, "--latents", "w.npy", "--space", "w", "--labels", "z.npy").code == 2
    done = made(magnet, "mnist", "--latents", "w.npy", "--space", "w", code=1)
    assert "mnist (dcgan) has no space 'w': found z" in done.err


def test_arrays_of_ones_own(magnet):
    Path("line.py").write_text(
        "import torch\n"
        "class Line(torch.nn.Module):\n"
        "    latent_dim = 2\n"
        "    def forward(self, z):\n"
        "        return z @ torch.arange(14, dtype=z.dtype).reshape(2, 7)\n"
    )
    z = latents(9, 2)
    done = made(magnet, "line.py:Line", "--latents", "z.npy", "--json")
    assert done.json["format"] == "npy"
    expected = z @ np.arange(14, dtype=np.float32).reshape(2, 7)
    np.testing.assert_allclose(np.load(Path(done.json["out"]) / "images.npy"), expected, rtol=1e-5)
    done = made(magnet, "line.py:Line", "--latents", "z.npy", "--format", "jpg", "--out", "j", code=1)
    assert "gives arrays [7]" in done.err
    assert not Path("j").exists()


# --- again ----------------------------------------------------------------------------------------------------------


def test_a_finished_rendering_is_left_as_it_is(magnet, toy):
    z = latents(9)
    line = (toy, "--latents", "z.npy", "--out", "r", "--json")
    first = made(magnet, *line)
    before = {p: p.stat().st_mtime_ns for p in Path("r").rglob("*")}
    again = made(magnet, *line)
    assert again.out == first.out
    assert "already holds this rendering" in again.err
    assert {p: p.stat().st_mtime_ns for p in Path("r").rglob("*")} == before
    np.save("z.npy", z[:8])
    done = made(magnet, *line, "--truncation", 0.5, code=1)
    assert "r holds another rendering: latents " in done.err
    assert "n 9 (asked 8)" in done.err
    assert "truncation 1.0 (asked 0.5)" in done.err
    assert made(magnet, *line, "--truncation", 0.5, "--force").json["n"] == 8
    assert len(list(Path("r/images").iterdir())) == 8
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("x")
    for more in ((), ("--force",)):
        assert "thesis.tex" in made(magnet, toy, "--latents", "z.npy", "--out", "mine", *more, code=1).err
    assert Path("mine/thesis.tex").read_text() == "x"


def test_a_dry_run_writes_nothing(magnet, toy, home):
    latents(9)
    done = made(magnet, toy, "--latents", "z.npy", "--dry-run", "--json")
    assert (done.json["n"], done.json["seconds"]) == (9, None)
    assert "nothing was done" in done.err
    assert {p.name for p in Path().iterdir()} == {"z.npy"}
    assert not home.exists()


@pytest.mark.parametrize("name", ["images/000003.png", "checksums.txt", "rendering.json"])
def test_a_flipped_byte_is_found(magnet, toy, name):
    latents(9)
    made(magnet, toy, "--latents", "z.npy", "--out", "r")
    path = Path("r") / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    done = magnet("info", "r", "--check")
    assert done.code == 1
    assert Path(name).name in done.out + done.err


def test_a_flipped_byte_in_the_array_is_found(magnet, toy):
    latents(9)
    made(magnet, toy, "--latents", "z.npy", "--out", "r", "--format", "npy")
    data = bytearray(Path("r/images.npy").read_bytes())
    data[-1] ^= 1
    Path("r/images.npy").write_bytes(data)
    done = magnet("info", "r", "--check", "--json")
    assert (done.code, done.json["problems"]) == (1, ["r/images.npy was changed after it was written"])


# --- where a file cannot be written (stopped processes: torture/test_stopped.py) --------------------------------------


@pytest.mark.torture
@pytest.mark.parametrize("ending", ["png", "npy"])
def test_a_limit_on_the_size_of_files(magnet, toy, ending):
    """As a full disk: exit 1, nothing half-written is seen, and the same command goes on once there is room."""
    latents(300)
    line = ["render", str(toy), "--latents", "z.npy", "--format", ending, "--out", "s", "--batch-size", "20"]
    limit = 3_000 if ending == "png" else 30_000  # the array does not fit; images do, the list of their checksums not

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        [sys.executable, "-m", "magnet_cli", *line], capture_output=True, text=True, check=False, preexec_fn=limited
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "the file would pass the size limit set for it" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("s/rendering.json").exists()
    assert not Path("s/images.npy").exists()
    assert not list(Path("s").rglob("*.part"))
    assert magnet(*line).code == 0
    assert magnet(*line[:-4], "--out", "whole", "--batch-size", "20").code == 0
    assert contents("s") == contents("whole")


# --- every file that is wrong ---------------------------------------------------------------------------------------


def npy(array, **changes):
    buffer = io.BytesIO()
    np.save(buffer, array, **changes)
    return buffer.getvalue()


ROW = np.zeros((3, 5), np.float32)
OBJECTS = np.array([["a", None]] * 3, dtype=object)
WRONG = {
    "not there": (None, "is not there"),
    "empty": (b"", "is none that can be read"),
    "text": (b"0.1 0.2 0.3\n", "is none that can be read"),
    "an archive": (b"PK\x03\x04" + bytes(60), "is none that can be read"),
    "cut": (npy(ROW)[:-7], "is none that can be read"),
    "cut in its header": (npy(ROW)[:30], "is none that can be read"),
    "objects": (npy(OBJECTS, allow_pickle=True), "Python objects"),
    "whole numbers": (npy(np.zeros((3, 5), int)), "int64 of shape [3, 5]"),
    "complex": (npy(np.zeros((3, 5), complex)), "complex128"),
    "text numbers": (npy(np.array([["1"] * 5])), "<U1"),
    "a single latent": (npy(ROW[0]), "of shape [5]"),
    "three axes": (npy(ROW[None]), "of shape [1, 3, 5]"),
    "a number": (npy(np.float32(1)), "of shape []"),
    "no rows": (npy(ROW[:0]), ""),
    "not a number": (npy(np.where(np.arange(15).reshape(3, 5) == 12, np.nan, ROW)), "row 2 of"),
    "infinite": (npy(np.where(np.arange(15).reshape(3, 5) == 6, -np.inf, ROW)), "row 1 of"),
    "too large for float32": (npy(np.full((1, 5), 1e300)), "row 0 of"),
    "another size": (npy(np.zeros((3, 6))), "have the shape [3, 6], and z of toy (dcgan) has 5"),
}


@pytest.mark.parametrize("case", WRONG)
def test_latents_that_are_wrong(magnet, toy, case):
    data, said = WRONG[case]
    if data is not None:
        Path("z.npy").write_bytes(data)
    done = made(magnet, toy, "--latents", "z.npy", code=1)
    assert said in done.err
    lines = done.err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("  do: ")
    assert {p.name for p in Path().iterdir()} <= {"z.npy"}


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_latents_of_other_types_and_orders(tmp_path, toy_generator, dtype, order):
    z = np.random.default_rng(0).standard_normal((7, 5)).astype(dtype)
    np.save(tmp_path / "z.npy", np.asarray(z, order=order))
    found = batches.arrays(toy_generator, given_.latents(tmp_path / "z.npy"), 1.0, 8)
    np.testing.assert_array_equal(found, batches.arrays(toy_generator, z.astype(np.float32), 1.0, 8))


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 127), byte=st.integers(0, 255), cut=st.integers(0, 400))
def test_a_damaged_header_is_a_clear_error(tmp_path, place, byte, cut):
    data = bytearray(npy(np.ones((5, 4), np.float32)))
    data[place] = byte
    path = tmp_path / "z.npy"
    path.write_bytes(data[: len(data) - cut] if cut < 200 else data)
    with contextlib.suppress(SpecError):  # the one way to fail
        assert given_.latents(path).ndim == 2


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--latents"],
        ["--latents", "z.npy", "--format", "gif"],
        ["--latents", "z.npy", "--truncation", "0"],
        ["--latents", "z.npy", "--truncation", "1,.5"],
        ["--latents", "z.npy", "--batch-size", "0"],
        ["--latents", "z.npy", "--space", "v"],
        ["--latents", "z.npy", "--space", "w", "--labels", "y.npy"],
        ["--latents", "z.npy", "--latent-dim", "4"],
    ],
)
def test_usage_errors_exit_2(magnet, home, args):
    latents(3)
    made(magnet, *args, code=2)
    assert not home.exists()


def test_a_device_that_is_not_there(magnet, toy):
    latents(3)
    assert "no device 'cuda:77'" in made(magnet, toy, "--latents", "z.npy", "--device", "cuda:77", code=1).err
    assert not Path("renders").exists()


def test_documents_of_another_format_are_named(magnet, toy):
    latents(3)
    made(magnet, toy, "--latents", "z.npy", "--out", "r")
    path = Path("r/rendering.json")
    fields = documents.read(path) | {"format": 99}
    path.write_bytes(documents.encode(fields))
    assert "rendering of format 99" in magnet("info", "r").err
    assert "rendering of format 99" in made(magnet, toy, "--latents", "z.npy", "--out", "r", code=1).err


def test_what_is_synced_together_has_to_be_there(tmp_path):
    (tmp_path / "a").write_text("x")
    atomic.sync_all(tmp_path, ["a"])
    with pytest.raises(MagnetError, match="cannot write"):
        atomic.sync_all(tmp_path / "none", ["b"])


def test_kinds_of_folders_keep_apart(magnet, toy):
    """A sample is no rendering: neither takes the other's folder, --force or not."""
    latents(3)
    made(magnet, toy, "--latents", "z.npy", "--out", "r")
    magnet("compute", toy, "--n", 20)
    for more in ((), ("--force",)):
        assert magnet("sample", toy, "--n", 3, "--out", "r", *more).code == 1
    assert magnet("info", "r", "--check").code == 0
    assert len({kind.document for kind in KINDS}) == len(KINDS) == 5


# --- from Python ----------------------------------------------------------------------------------------------------


def test_render_from_python_is_that_of_the_command(magnet, toy, toy_generator):
    z = latents(10)
    made(magnet, toy, "--latents", "z.npy", "--format", "npy", "--out", "typed")
    np.testing.assert_array_equal(render(toy_generator, z), np.load("typed/images.npy"))
    np.testing.assert_allclose(render(toy_generator, z, batch_size=3), np.load("typed/images.npy"), atol=1e-6)


def test_latents_and_labels_that_do_not_fit_are_refused(toy_generator):
    with pytest.raises(SpecError, match=re.escape("the latents have the shape [3, 4], and z of toy (dcgan) has 5")):
        render(toy_generator, np.zeros((3, 4), np.float32))
    with pytest.raises(SpecError, match=r"shape \[5\]"):
        render(toy_generator, np.zeros(5, np.float32))
    with pytest.raises(SpecError, match="takes no labels, and labels are passed"):
        render(toy_generator, np.zeros((3, 5), np.float32), labels=np.zeros(3, np.int64))
