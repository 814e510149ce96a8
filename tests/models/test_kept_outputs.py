"""kept_outputs: pieces are kept, found again, made again where they are damaged; repeats are told from copies."""

import numpy as np
import pytest
import torch
from toys import save_images

from magnet_cli.catalog.image_model_entry import Outputs, Preprocess
from magnet_cli.errors import SampleError
from magnet_cli.files.image_folder import ImageSet
from magnet_cli.models import kept_outputs
from magnet_cli.models.image_models import ImageScorer


def images(tmp_path, name, seed, n=6):
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 1), np.uint8)
    return ImageSet.open(save_images(tmp_path / name, pixels))


def counting(seen):
    def run(x):
        seen.append(len(x))
        return {"output": torch.flatten(x, 1)}

    return ImageScorer("own", "0", Preprocess(), Outputs(features="output"), run)


def test_pieces_are_kept_and_a_longer_set_takes_over_the_full_ones(tmp_path, home, monkeypatch):
    monkeypatch.setattr(kept_outputs, "_PIECE", 4)
    seen, moved = [], []
    short, long = images(tmp_path, "short", 0, 6), images(tmp_path, "long", 0, 10)
    kept_outputs.concatenated(kept_outputs.score_images(short, counting(seen)), moved.append)
    assert (seen, moved) == ([4, 2], [4, 2])
    seen.clear()
    values = kept_outputs.concatenated(kept_outputs.score_images(long, counting(seen))).values
    assert seen == [4, 2]  # the first four are those of the shorter set
    assert values.shape == (10, 16)
    (*_, damaged) = sorted((home / "features").rglob("*.npz"))
    damaged.write_bytes(damaged.read_bytes()[:50])
    np.testing.assert_array_equal(
        kept_outputs.concatenated(kept_outputs.score_images(long, counting([]))).values, values
    )


def test_copies_and_samples_of_other_lengths_are_no_repeats(tmp_path):
    sets = [images(tmp_path, "one", 0), images(tmp_path, "other", 1), images(tmp_path, "copy", 0)]
    outputs = [kept_outputs.concatenated(kept_outputs.score_images(each, counting([]))) for each in sets]
    kept_outputs.check_repeats(sets[:2], outputs[:2])
    assert kept_outputs.num_shared(outputs[0], outputs[2]) == 6
    with pytest.raises(SampleError, match=r"6 images of .*copy are in .*one too"):
        kept_outputs.check_repeats(sets, outputs)
    with pytest.raises(SampleError, match="different lengths"):
        kept_outputs.check_lengths([sets[0], images(tmp_path, "long", 2, 7)])
