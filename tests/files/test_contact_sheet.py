"""contact_sheet: images, gaps, captions and labels are where they should be."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from magnet_cli.files.contact_sheet import contact_sheet, small

WHITE = 255


def sheet(*blocks, **how):
    with Image.open(io.BytesIO(contact_sheet(list(blocks), **how))) as image:
        return np.asarray(image)


def flat(values, side=64, channels=1):
    return [np.full((side, side, channels), value, np.uint8) for value in values]


def runs(line):
    """The values along a line, each with how often it comes in a row."""
    ends = [0, *(np.flatnonzero(np.diff(line.astype(int))) + 1).tolist(), len(line)]
    return [(int(line[a]), b - a) for a, b in itertools.pairwise(ends)]


def test_images_stand_apart_in_rows_and_groups():
    page = sheet(("two groups", flat([10, 20, 30]), flat([40])), columns=2)[:, :, 0]
    left = page[:, 8 + 5]
    assert runs(page[8 + 28 + 5, :])[:4] == [(WHITE, 8), (10, 64), (WHITE, 2), (20, 64)]
    assert runs(left[8 + 28 :]) == [(10, 64), (WHITE, 2), (30, 64), (WHITE, 8), (40, 64), (WHITE, 8)]


def test_small_images_are_enlarged_by_whole_numbers_and_large_ones_reduced():
    enlarged = sheet(("x", [np.arange(28 * 28, dtype=np.uint8).reshape(28, 28, 1)]))[36:120, 8:92, 0]
    np.testing.assert_array_equal(enlarged[::3, ::3], np.arange(28 * 28, dtype=np.uint8).reshape(28, 28))
    reduced = sheet(("x", flat([77], side=512, channels=3)))[:, :, 0]
    assert runs(reduced[40])[:2] == [(WHITE, 8), (77, 128)]


def test_labels_stand_below_their_images_and_are_cut_to_them():
    labelled = sheet(("x", [(image, "a name that is much too long") for image in flat([200, 100])]), columns=2)
    bare = sheet(("x", flat([200, 100])), columns=2)
    assert labelled.shape[0] == bare.shape[0] + 14
    below = labelled[36 + 64 : 36 + 78, :, 0]
    assert (below[:, 8:72] < WHITE).any()
    assert (below[:, 72:74] == WHITE).all()
    assert (below[:, 74:138] < WHITE).any()


def test_captions_widen_a_sheet():
    narrow, wide = (sheet((text, flat([1])), columns=1).shape[1] for text in ("x", "x" * 100))
    assert narrow < wide


@pytest.mark.parametrize("channels", [1, 3])
def test_a_small_copy_keeps_its_shape(channels):
    with Image.open(io.BytesIO(small(np.zeros((256, 128, channels), np.uint8), 64))) as image:
        assert image.size == (32, 64)
        assert image.mode == {1: "L", 3: "RGB"}[channels]
    same = np.random.default_rng(0).integers(0, 256, (8, 8, channels), np.uint8)
    with Image.open(io.BytesIO(small(same))) as image:
        np.testing.assert_array_equal(np.asarray(image).reshape(same.shape), same)
