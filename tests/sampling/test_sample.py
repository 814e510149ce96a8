"""sample: what is written is what was drawn, and stopping loses nothing."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from magnet_cli import index
from magnet_cli.errors import SampleError, SpecError
from magnet_cli.files import documents, pictures
from magnet_cli.files.image_folder import ImageSet
from magnet_cli.files.results import ResultFolder
from magnet_cli.models import batches
from magnet_cli.sampling import sample_folder
from magnet_cli.sampling.kinds import SAMPLE
from magnet_cli.sampling.sample import SampleRequest, sample, sample_steps
from magnet_cli.sampling.sample_folder import Sample
from magnet_cli.volume import Volume


def prepare(volume, generator, **changes):
    built = index.build(volume, 5)
    fields = {"n": 40, "rho": 0.3, "seed": 0, "replace": False, "truncation": 1.0} | changes
    spec = sample_folder.SampleSpec(
        generator=generator.name,
        sha256=generator.sha256,
        fingerprint=volume.fingerprint,
        pool=built.num_rows,
        top_k=5,
        **fields,
    )
    return spec, index.draw(built, spec.n, spec.rho, spec.seed, replace=spec.replace)


def make(out, volume, generator, batch=16, **changes):
    spec, drawn = prepare(volume, generator, **changes)
    contents = sample_folder.rows_of(spec, drawn, volume)
    list(sample_folder.write(out, spec, contents, volume, generator, batch))
    sample_folder.finish(out, spec, contents, volume, ["magnet", "sample"], {"sample": str(out)})
    return spec, drawn


def test_files_agree_with_each_other(toy_volume, toy_generator, tmp_path):
    out = tmp_path / "s"
    _, drawn = make(out, toy_volume, toy_generator)
    latents = np.load(out / "latents.npy")
    assert latents.dtype == np.float32
    np.testing.assert_array_equal(latents, toy_volume.latents(drawn.rows))
    records = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    assert len(records) == 40
    logs = index.build(toy_volume, 5).log_volume
    images = list(batches.each_image(toy_generator, latents, 1.0, 16))
    for i, record in enumerate(records):
        assert record["file_name"] == f"images/{i:06d}.png"
        assert record["source"] == "polarity"
        assert record["label"] is None
        assert record["log_volume"] == logs[record["row"]]
        np.testing.assert_array_equal(toy_volume.latents(np.array([record["row"]]))[0], latents[i])
        with Image.open(out / record["file_name"]) as picture:
            np.testing.assert_array_equal(np.asarray(picture), images[i][:, :, 0])
    provenance = json.loads((out / "sample.json").read_text())
    assert provenance["volume"]["fingerprint"] == toy_volume.fingerprint
    assert provenance["spec"]["sha256"] == toy_generator.sha256
    assert provenance["effective_size"] == drawn.effective_size
    assert {"magnet", "torch", "numpy", "python"} <= provenance["versions"].keys()
    with Image.open(out / "__sheets__/grid.png") as sheet:
        assert sheet.width > 16 * 64
    assert ResultFolder(out, SAMPLE).check() == []


def test_a_smaller_sample_is_the_beginning_of_a_larger_one(toy_volume, toy_generator, tmp_path):
    make(tmp_path / "small", toy_volume, toy_generator, n=11)
    make(tmp_path / "large", toy_volume, toy_generator, n=37)
    np.testing.assert_array_equal(np.load(tmp_path / "small/latents.npy"), np.load(tmp_path / "large/latents.npy")[:11])
    for i in range(11):
        name = f"images/{i:06d}.png"
        assert (tmp_path / "small" / name).read_bytes() == (tmp_path / "large" / name).read_bytes()


def test_stopping_and_going_on_changes_no_file(toy_volume, toy_generator, tmp_path):
    make(tmp_path / "whole", toy_volume, toy_generator, 8)
    spec, drawn = prepare(toy_volume, toy_generator)
    out = tmp_path / "s"
    contents = sample_folder.rows_of(spec, drawn, toy_volume)
    list(itertools.islice(sample_folder.write(out, spec, contents, toy_volume, toy_generator, 8), 1))
    assert 8 <= len(list((out / "images").iterdir())) < 40  # batches under way are there in part
    assert ResultFolder(out, SAMPLE).finished(spec) is None
    make(out, toy_volume, toy_generator, 8)
    for path in sorted(p for p in (tmp_path / "whole").rglob("*") if p.is_file() and p.name != "sample.json"):
        assert (out / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()


def test_a_finished_sample_is_known_again(toy_volume, toy_generator, tmp_path):
    spec, _ = make(tmp_path / "s", toy_volume, toy_generator)
    assert ResultFolder(tmp_path / "s", SAMPLE).finished(spec) == {"sample": str(tmp_path / "s")}
    other, _ = prepare(toy_volume, toy_generator, rho=-1.0, n=12)
    with pytest.raises(SampleError, match=r"n 40 \(asked 12\), rho 0.3 \(asked -1.0\)"):
        ResultFolder(tmp_path / "s", SAMPLE).finished(other)


def test_folders_of_others_are_left_alone(toy_volume, toy_generator, tmp_path):
    spec, _ = prepare(toy_volume, toy_generator)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("mine", "file"):
        with pytest.raises(SampleError, match="the sample cannot be written to"):
            ResultFolder(tmp_path / name, SAMPLE).finished(spec)
        with pytest.raises(SampleError, match="holds files that no sample has"):
            ResultFolder(tmp_path / name, SAMPLE).discard()
    make(tmp_path / "s", toy_volume, toy_generator)
    (tmp_path / "s" / "notes.txt").write_text("mine")
    with pytest.raises(SampleError, match=r"notes\.txt"):
        ResultFolder(tmp_path / "s", SAMPLE).discard()
    (tmp_path / "s" / "notes.txt").unlink()
    ResultFolder(tmp_path / "s", SAMPLE).discard()
    assert not list((tmp_path / "s").iterdir())


FILES = ("images/000003.png", "latents.npy", "metadata.jsonl", "__sheets__/grid.png", "checksums.txt", "sample.json")


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_in_any_file_is_found(toy_volume, toy_generator, tmp_path, magnet, name):
    make(tmp_path / "s", toy_volume, toy_generator)
    path = tmp_path / "s" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    done = magnet("info", tmp_path / "s", "--check")
    assert done.code == 1
    assert name.rpartition("/")[2] in done.out + done.err
    assert bool(done.out) == (name != "sample.json")


def test_with_replacement_rows_repeat(toy_volume, toy_generator, tmp_path):
    _, drawn = make(tmp_path / "s", toy_volume, toy_generator, replace=True, rho=3.0, n=60)
    assert drawn.unique_rows < 60
    assert len(np.load(tmp_path / "s" / "latents.npy")) == 60


@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_other_formats(toy_volume, toy_generator, tmp_path, ending):
    _, drawn = make(tmp_path / "s", toy_volume, toy_generator, format=ending)
    images = list(batches.each_image(toy_generator, toy_volume.latents(drawn.rows), 1.0, 16))
    records = [json.loads(line) for line in (tmp_path / "s/metadata.jsonl").read_text().splitlines()]
    for i, record in enumerate(records):
        assert record["file_name"] == f"images/{i:06d}.{ending}"
        assert (tmp_path / "s" / record["file_name"]).read_bytes() == pictures.encoded(images[i], ending)
    assert ResultFolder(tmp_path / "s", SAMPLE).check() == []


def test_a_sample_of_an_earlier_magnet_is_known_again(toy_volume, toy_generator, tmp_path):
    """One whose document lacks the fields that came later: they had the values that are now the defaults."""
    spec, _ = make(tmp_path / "s", toy_volume, toy_generator)
    path = tmp_path / "s" / "sample.json"
    fields = documents.read(path)
    for name in ("label", "bn_truncation", "format", "no_images", "montage"):
        del fields["spec"][name]
    path.write_bytes(documents.encode(fields))
    assert ResultFolder(tmp_path / "s", SAMPLE).finished(spec) == {"sample": str(tmp_path / "s")}
    for changes in ({"format": "webp"}, {"no_images": True}, {"montage": (1.0, 0.5)}):
        other, _ = prepare(toy_volume, toy_generator, **changes)
        name, value = next(iter(changes.items()))
        asked = list(value) if isinstance(value, tuple) else value
        with pytest.raises(SampleError, match=re.escape(f"(asked {asked})")) as refused:
            ResultFolder(tmp_path / "s", SAMPLE).finished(other)
        assert f"sample: {name} " in refused.value.message


# --- latents alone --------------------------------------------------------------------------------------------------

WITHOUT = (
    "import sys\n"
    "from magnet_cli.cli.app import app\n"
    "try: app(sys.argv[1:], prog_name='magnet')\n"
    "except SystemExit as end: assert end.code == 0, end.code\n"
    "assert 'torch' not in sys.modules\n"
)


@pytest.mark.slow
def test_latents_alone_need_no_torch_and_no_generator(magnet, toy, tmp_path):
    """The generator's file is gone: its entry in a list says whose volume it is."""
    gone = tmp_path / "gone.safetensors"
    sha256, size = documents.sha256_file(toy), toy.stat().st_size
    entry = f'[toy]\nkind = "generator"\nfamily = "dcgan"\nsource = "file:{gone}"\nlicense = "MIT"\ndescription = "x"\n'
    (tmp_path / "mine.toml").write_text(f'{entry}size = {size}\nsha256 = "{sha256}"\n')
    magnet("compute", toy, "--n", 60)
    drawn = magnet("sample", toy, "--n", 20, "--rho", 0.2, "--out", "images").code
    assert drawn == 0
    command = [sys.executable, "-c", WITHOUT, "sample", "toy", "--n", "20", "--rho", "0.2", "--no-images", "--json"]
    environment = os.environ | {"MAGNET_ARTIFACTS": str(tmp_path / "mine.toml")}
    done = subprocess.run([*command, "--out", "s"], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["n"], report["images"]) == (20, 0)
    assert "next: magnet render toy --latents s/latents.npy" in done.stderr
    found = {p.name for p in Path("s").iterdir()}
    assert found == {"latents.npy", "metadata.jsonl", "checksums.txt", "sample.json"}
    assert Path("s/latents.npy").read_bytes() == Path("images/latents.npy").read_bytes()
    records = [json.loads(line) for line in Path("s/metadata.jsonl").read_text().splitlines()]
    others = [json.loads(line) for line in Path("images/metadata.jsonl").read_text().splitlines()]
    assert records == [{k: v for k, v in other.items() if k != "file_name"} for other in others]
    provenance = documents.read(Path("s/sample.json"))
    assert provenance["spec"]["no_images"] is True
    assert "torch" not in provenance["versions"]
    assert magnet("info", "s", "--check").code == 0
    again = subprocess.run([*command, "--out", "s"], capture_output=True, text=True, check=False, env=environment)
    assert again.stdout == done.stdout
    assert magnet("render", toy, "--latents", "s/latents.npy", "--out", "r").code == 0
    for path in Path("images/images").iterdir():
        assert (Path("r/images") / path.name).read_bytes() == path.read_bytes()


# --- the montage ----------------------------------------------------------------------------------------------------


def test_the_montage_shows_prior_and_draws_at_each_truncation(magnet, toy, toy_generator):
    volume = magnet("compute", toy, "--n", 60, "--json").json["volume"]
    line = ("sample", toy, "--n", 20, "--rho", 0.2, "--out", "s")
    assert magnet(*line, "--montage", "--truncation", "1,.5").code == 0
    provenance = documents.read(Path("s/sample.json"))
    assert (provenance["spec"]["truncation"], provenance["spec"]["montage"]) == (1.0, [1.0, 0.5])
    sheet = np.asarray(Image.open("s/__sheets__/montage.png").convert("L"))
    side = 64  # 8x8 images, each pixel 8x8
    prior, ours = Volume.open(Path(volume)).read(0).latents[:16], np.load("s/latents.npy")[:16]
    top = 8 + 28
    for psi in (1.0, 0.5):
        for latents in (prior, ours):
            known = np.stack(list(batches.each_image(toy_generator, latents, psi, 16)))[:, :, :, 0]
            row = sheet[top : top + side, 8 : 8 + 16 * (side + 2)]
            shown = row.reshape(side, 16, side + 2).transpose(1, 0, 2)[:, 4::8, 4:side:8]
            np.testing.assert_array_equal(shown, known)
            top += side + 8
        top += 28
    assert sheet.shape == (top - 28, 16 * (side + 2) - 2 + 16)
    assert magnet("info", "s", "--check").code == 0
    assert magnet(*line).code == 1  # without one it is another sample
    assert "look at s/__sheets__/montage.png" in magnet(*line, "--montage", "--truncation", "1", "--force").err


@pytest.mark.parametrize(
    "args",
    [
        ["--truncation", "1,.7"],
        ["--truncation", "1,0", "--montage"],
        ["--truncation", "1,1.2", "--montage"],
        ["--truncation", "1,,.5", "--montage"],
        ["--truncation", "1,nan", "--montage"],
        ["--truncation", "half"],
        ["--format", "gif"],
        ["--format", "npy"],
        ["--no-images", "--format", "png"],
        ["--no-images", "--montage"],
    ],
)
def test_usage_errors_of_what_is_written(magnet, home, args):
    done = magnet("sample", *args)
    assert (done.code, done.out) == (2, "")
    assert args[0] in done.err
    assert not home.exists()


def test_what_cannot_be_shown_has_no_format_and_no_montage(magnet):
    Path("line.py").write_text(
        "import torch\n"
        "class Line(torch.nn.Module):\n"
        "    latent_dim = 2\n"
        "    def forward(self, z):\n"
        "        return torch.sin(z @ torch.arange(14, dtype=z.dtype).reshape(2, 7))\n"
    )
    assert magnet("compute", "line.py:Line", "--n", 9, "--solver", "exact").code == 0
    for more in (["--format", "png"], ["--montage"]):
        done = magnet("sample", "line.py:Line", "--n", 3, "--rho", 0.1, *more, "--out", "s")
        assert (done.code, done.out) == (1, "")
        assert "gives arrays [7]" in done.err
        assert not Path("s").exists()


def test_image_range_is_rounded_and_clipped(toy_generator):
    images = batches.images(toy_generator, np.zeros((2, 5), np.float32), 1.0, 4)
    assert images.shape == (2, 8, 8, 1)
    assert images.dtype == np.uint8
    import torch

    with torch.no_grad():
        known = toy_generator(torch.zeros(1, 5))[0].permute(1, 2, 0).numpy()
    assert np.abs(images[0] - (known + 1) * 127.5).max() <= 0.51


# --- from Python ----------------------------------------------------------------------------------------------------


def test_sample_from_python_is_that_of_the_command(magnet, toy, toy_generator):
    magnet("compute", toy, "--n", 60)
    assert magnet("sample", toy, "--n", 20, "--rho", 0.2, "--seed", 3, "--out", "typed").code == 0
    seen = []
    for source, out in ((toy_generator, "live"), (str(toy), "path")):
        drawn = sample(source, 20, 0.2, seed=3, out=out, progress=lambda *done: seen.append(done), batch_size=8)
        typed = Sample.open("typed")
        assert (len(drawn), drawn.path, drawn.spec) == (20, Path(out), typed.spec)
        np.testing.assert_array_equal(drawn.latents, typed.latents)
        np.testing.assert_array_equal(drawn.images, typed.images)
        assert drawn.images.shape == (20, 8, 8, 1)
        assert drawn.labels is None
        assert ResultFolder(Path(out), SAMPLE).check() == []
        assert {k: v for k, v in drawn.report.items() if k not in {"sample", "grid", "seconds"}} == {
            k: v for k, v in typed.report.items() if k not in {"sample", "grid", "seconds"}
        }
    assert seen == [(8, 20), (16, 20), (20, 20)] * 2


def test_a_sample_that_is_there_is_found_again_and_steps_resume(toy_volume, toy_generator):
    first = sample_steps(toy_generator, 20, 0.2, volume=toy_volume, batch_size=4)
    assert next(first) == 4
    first.close()
    made = list(sample_steps(toy_generator, 20, 0.2, volume=toy_volume, batch_size=4))
    assert sum(made) == 20
    drawn = sample(toy_generator, 20, 0.2, volume=toy_volume.path)
    assert drawn.path == Path(f"samples/toy-rho0.2-n20-seed0-{toy_volume.fingerprint[:8]}")
    assert list(sample_steps(toy_generator, 20, 0.2, volume=toy_volume)) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 0}, "`n=0` is outside its range"),
        ({"mix": 1.5}, "`mix=1.5`"),
        ({"truncation": 0.0}, "`truncation=0.0`"),
        ({"method": "magic"}, "`method='magic'`"),
        ({"classes": "some"}, "`classes='some'`"),
        ({"seed": -1}, "`seed=-1`"),
        ({"rho": float("nan")}, "`rho=nan`"),
        ({"method": "tempered", "pool": 5}, "`pool` says which rows"),
    ],
)
def test_arguments_outside_their_range_are_refused(changes, message):
    with pytest.raises(SpecError, match=re.escape(message)):
        SampleRequest(**changes)


def test_a_sample_shows_in_a_notebook(toy_volume, toy_generator):
    drawn = sample(toy_generator, 9, 0.2, volume=toy_volume)
    assert repr(drawn) == f"Sample('{drawn.path}': 9 images of toy at rho 0.2)"
    page = drawn._repr_html_()
    assert "<th>effective_size</th>" in page
    assert "data:image/png;base64," in page
    assert drawn._repr_png_() == (drawn.path / "__sheets__/grid.png").read_bytes()
    alone = sample(toy_generator, 9, 0.2, volume=toy_volume, no_images=True, out="alone")
    assert repr(alone) == "Sample('alone': 9 latents of toy at rho 0.2)"
    assert alone._repr_png_() is None
    assert "data:image" not in alone._repr_html_()
    with pytest.raises(SampleError, match="holds only latents"):
        alone.images  # noqa: B018


def test_warnings_of_a_draw_are_python_warnings(toy_volume, toy_generator):
    with pytest.warns(UserWarning, match="displaced share"):
        sample(toy_generator, 150, 2.0, volume=toy_volume, no_images=True)


@pytest.mark.slow
def test_tempered_latents_from_python_are_those_of_the_command(magnet, toy, toy_generator):
    magnet("compute", toy, "--n", 60)
    line = ("sample", toy, "--n", 9, "--rho", 0.1, "--method", "tempered", "--particles", 8)
    assert magnet(*line, "--out", "typed").code == 0
    shutil.rmtree(Path(Sample.open("typed").report["tempered"]))  # else the islands are only read
    with warnings.catch_warnings(action="ignore"):  # so few particles may not converge
        drawn = sample(toy_generator, 9, 0.1, method="tempered", particles=8, out="live")
    np.testing.assert_array_equal(drawn.latents, Sample.open("typed").latents)
    assert drawn.report["jacobians"] == Sample.open("typed").report["jacobians"]
    assert drawn.spec["pool"] == 0


def test_default_names_tell_jobs_apart(toy, toy_volume, magnet):
    """Each flag that changes the images changes the folder; without any it is the plain name."""
    line = ["sample", toy, "--volume", toy_volume.path, "--n", 6, "--rho", 0.2, "--dry-run", "--json"]
    flags = ["", "--mix 0.5", "--mix 0.25", "--pool 100", "--pool 90", "--replace", "--top-k 3", "--truncation 0.7"]
    flags += ["--correct-prior", "--correct-prior --prior-mass 0.9", "--format jpg", "--no-images", "--seed 1"]
    flags += ["--montage --truncation 1,0.7", "--method tempered --particles 16", "--method tempered --particles 32"]
    names = [magnet(*line, *each.split()).json["sample"] for each in flags]
    assert len(set(names)) == len(flags)
    volume = toy_volume.fingerprint[:8]
    assert names[:3] == [f"samples/toy-rho0.2-n6-seed0{each}-{volume}" for each in ("", "-mix0.5", "-mix0.25")]
    (Path(os.environ["MAGNET_HOME"]) / "volumes").mkdir(parents=True)
    shutil.copytree(toy_volume.path, Path(os.environ["MAGNET_HOME"]) / "volumes" / "toy")
    assert magnet(*line[:2], *line[4:]).json["sample"] == "samples/toy-rho0.2-n6-seed0"


def test_images_that_others_put_there_are_reported_and_left_out(toy, toy_volume, magnet):
    """A copied image is in no measurement, and `--check` says so; nothing but images is below the images' folder."""
    drawn = magnet("sample", toy, "--volume", toy_volume.path, "--n", 12, "--rho", 0.2, "--out", "s", "--json").json
    assert drawn["grid"] == "s/__sheets__/grid.png"
    assert documents.read(Path("s/sample.json"))["grid"] == "__sheets__/grid.png"
    shutil.copy("s/images/000003.png", "s/images/000003-copy.png")
    done = magnet("info", "s", "--check")
    assert done.code == 1
    assert "000003-copy.png is not of the sample" in done.out
    images = ImageSet.open(Path("s"))
    assert [path.name for path in images.files] == [f"{i:06d}.png" for i in range(12)]
    assert [path.name for path in images.strays] == ["000003-copy.png"]


def test_an_image_folder_loader_finds_images_that_metadata_names_and_no_others(toy, toy_volume, magnet):
    """The rule of Hugging Face datasets: below the folder, hidden files and folders whose names start with __ apart."""
    magnet("sample", toy, "--volume", toy_volume.path, "--n", 12, "--rho", 0.2, "--montage", "--out", "s")
    found = [path.relative_to("s") for path in Path("s").rglob("*.png")]
    seen = {path.as_posix() for path in found if not any(part.startswith(("__", ".")) for part in path.parts)}
    assert seen == {json.loads(line)["file_name"] for line in Path("s/metadata.jsonl").read_text().splitlines()}
