"""sample: what is written is what was drawn, and stopping loses nothing."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image

from magnet_cli import index, render, sample
from magnet_cli.errors import SampleError


def prepare(volume, generator, **changes):
    built = index.build(volume, 5)
    fields = {"n": 40, "rho": 0.3, "seed": 0, "replace": False, "truncation": 1.0} | changes
    spec = sample.SampleSpec(
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
    list(sample.write(out, spec, drawn, volume, generator, batch))
    sample.finish(out, spec, drawn, volume, ["magnet", "sample"], {"sample": str(out)})
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
    images = list(render.batches(toy_generator, latents, 1.0, 16))
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
    with Image.open(out / "grid.png") as sheet:
        assert sheet.width > 16 * 64
    assert sample.check(out) == []


def test_a_smaller_sample_is_the_beginning_of_a_larger_one(toy_volume, toy_generator, tmp_path):
    make(tmp_path / "small", toy_volume, toy_generator, n=11)
    make(tmp_path / "large", toy_volume, toy_generator, n=37)
    np.testing.assert_array_equal(np.load(tmp_path / "small/latents.npy"), np.load(tmp_path / "large/latents.npy")[:11])
    for i in range(11):
        name = f"images/{i:06d}.png"
        assert (tmp_path / "small" / name).read_bytes() == (tmp_path / "large" / name).read_bytes()


def test_stopping_and_going_on_changes_no_file(toy_volume, toy_generator, tmp_path):
    make(tmp_path / "whole", toy_volume, toy_generator)
    spec, drawn = prepare(toy_volume, toy_generator)
    out = tmp_path / "s"
    list(itertools.islice(sample.write(out, spec, drawn, toy_volume, toy_generator, 16), 1))
    assert 16 <= len(list((out / "images").iterdir())) < 40  # the batch that was under way is there in part
    assert sample.finished(out, spec) is None
    make(out, toy_volume, toy_generator)
    for path in sorted(p for p in (tmp_path / "whole").rglob("*") if p.is_file() and p.name != "sample.json"):
        assert (out / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()


def test_a_finished_sample_is_known_again(toy_volume, toy_generator, tmp_path):
    spec, _ = make(tmp_path / "s", toy_volume, toy_generator)
    assert sample.finished(tmp_path / "s", spec) == {"sample": str(tmp_path / "s")}
    other, _ = prepare(toy_volume, toy_generator, rho=-1.0, n=12)
    with pytest.raises(SampleError, match=r"n 40 \(asked 12\), rho 0.3 \(asked -1.0\)"):
        sample.finished(tmp_path / "s", other)


def test_folders_of_others_are_left_alone(toy_volume, toy_generator, tmp_path):
    spec, _ = prepare(toy_volume, toy_generator)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("mine", "file"):
        with pytest.raises(SampleError, match="asked for as a sample folder"):
            sample.finished(tmp_path / name, spec)
        with pytest.raises(SampleError, match="holds files that no sample has"):
            sample.discard(tmp_path / name)
    make(tmp_path / "s", toy_volume, toy_generator)
    (tmp_path / "s" / "notes.txt").write_text("mine")
    with pytest.raises(SampleError, match=r"notes\.txt"):
        sample.discard(tmp_path / "s")
    (tmp_path / "s" / "notes.txt").unlink()
    sample.discard(tmp_path / "s")
    assert not (tmp_path / "s").exists()


FILES = ("images/000003.png", "latents.npy", "metadata.jsonl", "grid.png", "checksums.txt", "sample.json")


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


def test_image_range_is_rounded_and_clipped(toy_generator):
    images = render.images(toy_generator, np.zeros((2, 5), np.float32), 1.0, 4)
    assert images.shape == (2, 8, 8, 1)
    assert images.dtype == np.uint8
    import torch

    with torch.no_grad():
        known = toy_generator(torch.zeros(1, 5))[0].permute(1, 2, 0).numpy()
    assert np.abs(images[0] - (known + 1) * 127.5).max() <= 0.51
