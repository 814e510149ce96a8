"""pictures: intensity to pixels, pixels to files and back, and which files are whole."""

import io

import numpy as np
import pytest
from PIL import Image

from magnet_cli.files import pictures


def test_intensity_is_rounded_and_clipped_to_pixels():
    intensity = np.array([-2, -1, -0.5, 0, 1 / 127.5, 1, 3], np.float32).reshape(1, 1, 1, 7)
    assert pictures.pixels(intensity)[0, 0, :, 0].tolist() == [0, 0, 64, 128, 128, 255, 255]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ending", ["png", "webp", "jpg"])
def test_files_give_the_pixels_back(ending, channels):
    image = np.random.default_rng(0).integers(0, 256, (16, 12, channels), np.uint8)
    data = pictures.encoded(image, ending)
    assert data == pictures.encoded(image, ending)
    assert pictures.is_whole(data)
    assert not pictures.is_whole(data[: len(data) // 2])
    with Image.open(io.BytesIO(data)) as opened:
        read = np.asarray(opened.convert("L" if channels == 1 else "RGB")).reshape(image.shape)
    assert np.abs(read.astype(int) - image).max() <= (0 if ending != "jpg" else 40)


def test_an_array_is_whole_or_not():
    data = pictures.npy(np.arange(6.0))
    assert pictures.is_whole(data)
    assert not pictures.is_whole(data[:-1])
    assert not pictures.is_whole(b"")
