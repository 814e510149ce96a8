"""image_folder: which files are images, what their pixels are, and which are refused."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from magnet_cli.errors import SampleError
from magnet_cli.files import image_folder
from magnet_cli.files.image_folder import ImageSet

FIXTURES = Path(__file__).parents[1] / "fixtures" / "images"


def every(folder):
    images = ImageSet.open(folder)
    return np.concatenate(list(images.batches(0, len(images))))


@pytest.mark.parametrize("name", ["corrupt-exif.jpg", "palette-transparent.png"])
def test_what_pillow_only_warns_of_is_read(tmp_path, name):
    shutil.copy(FIXTURES / name, tmp_path)
    with warnings.catch_warnings(action="error"):
        pixels = every(tmp_path)
    with warnings.catch_warnings(action="ignore"), Image.open(FIXTURES / name) as image:
        np.testing.assert_array_equal(pixels[0], np.asarray(image.convert("RGB")))


def test_half_a_file_is_refused(tmp_path):
    shutil.copy(FIXTURES / "truncated.jpg", tmp_path)
    with pytest.raises(SampleError, match=r"truncated\.jpg is no image that can be read: [Tt]runcated"):
        every(tmp_path)


def test_more_pixels_than_memory_may_hold_are_refused(tmp_path, monkeypatch):
    Image.new("L", (40, 40)).save(tmp_path / "bomb.png")
    for most in (1000, 500):  # Pillow warns above its limit, and refuses above twice that
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        with pytest.raises(SampleError, match="1600 pixels"):
            every(tmp_path)


@pytest.mark.parametrize(
    ("mode", "ending", "channels"),
    [
        ("1", "png", 1),
        ("L", "png", 1),
        ("LA", "png", 1),
        ("P", "png", 3),
        ("RGB", "bmp", 3),
        ("RGB", "ppm", 3),
        ("RGBA", "png", 3),
        ("CMYK", "tif", 3),
        ("RGB", "PNG", 3),
    ],
)
def test_modes_become_one_channel_or_three(tmp_path, mode, ending, channels):
    grey = Image.fromarray(np.full((4, 6), 204, np.uint8))
    grey.convert("RGB").convert(mode).save(tmp_path / f"a.{ending}")
    pixels = every(tmp_path)
    assert pixels.shape == (1, 4, 6, channels)
    assert set(np.unique(pixels)) <= ({0, 255} if mode == "1" else {204})


def test_a_grey_image_among_those_in_colour_has_three_equal_channels(tmp_path):
    Image.new("RGB", (4, 4), (9, 8, 7)).save(tmp_path / "a.png")
    Image.new("L", (4, 4), 5).save(tmp_path / "b.png")
    np.testing.assert_array_equal(every(tmp_path)[:, 0, 0], [[9, 8, 7], [5, 5, 5]])
    (tmp_path / "a.png").rename(tmp_path / "c.png")  # colour among grey ones: which is meant?
    with pytest.raises(SampleError, match=r"b\.png is 4×4, grey, c\.png is 4×4, RGB"):
        every(tmp_path)


def test_files_of_other_endings_and_hidden_ones_are_no_images(tmp_path):
    image = Image.new("L", (4, 4))
    for name in ("a.png", "b/c.png", ".d.png", "notes.txt", "e.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image.save(tmp_path / name, format="PNG")
    assert [path.name for path in ImageSet.open(tmp_path).files] == ["a.png", "c.png"]


def test_folders_are_classes_and_hashes_are_those_of_the_files(tmp_path):
    for name in ("dog/1.png", "cat/1.png", "cat/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / name)
    images = ImageSet.open(tmp_path)
    classes, names = images.classes()
    assert (classes.tolist(), names) == ([0, 0, 1], ("cat", "dog"))
    assert len(set(images.hashes(0, 3))) == 1
    Image.new("L", (4, 4)).save(tmp_path / "loose.png")
    with pytest.raises(SampleError, match="holds no classes"):
        ImageSet.open(tmp_path).classes()


@pytest.mark.skipif(not features.check("webp"), reason="this Pillow has no WebP")
def test_batches_are_bounded_and_in_order(tmp_path, monkeypatch):
    for i in range(5):
        Image.new("L", (4, 4), i).save(tmp_path / f"{i}.webp", lossless=True)
    monkeypatch.setattr(image_folder, "_MOST", 2)
    parts = [part[:, 0, 0, 0].tolist() for part in ImageSet.open(tmp_path).batches(1, 5)]
    assert parts == [[1, 2], [3, 4]]
