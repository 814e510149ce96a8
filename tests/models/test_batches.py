"""batches: what a generator gives for a latent does not depend on the batch, and pixels are intensities rounded."""

import numpy as np
import pytest
import torch

from magnet_cli.models import batches


@pytest.fixture
def latents():
    return np.random.default_rng(0).standard_normal((11, 5)).astype(np.float32)


def test_a_row_is_the_same_in_any_batch(toy_generator, latents):
    whole = batches.arrays(toy_generator, latents, 0.7, 16)
    assert (whole.shape, whole.dtype) == ((11, 1, 8, 8), np.float32)
    for rows in (slice(0, 1), slice(3, 8), slice(10, 11)):
        np.testing.assert_array_equal(batches.arrays(toy_generator, latents[rows], 0.7, 16), whole[rows])
        np.testing.assert_array_equal(batches.arrays_of(toy_generator, latents, 0.7, 16)(rows), whole[rows])
    with torch.no_grad():
        direct = toy_generator(torch.from_numpy(latents), 0.7).numpy()
    np.testing.assert_allclose(whole, direct, atol=1e-6)


def test_images_are_those_of_the_arrays(toy_generator, latents):
    expected = np.clip(np.rint((batches.arrays(toy_generator, latents, 1.0, 4 * 4) + 1) * 127.5), 0, 255)
    images = list(batches.each_image(toy_generator, latents, 1.0, 16))
    assert len(images) == 11
    assert images[0].dtype == np.uint8
    np.testing.assert_array_equal(np.stack(images), expected.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(batches.images(toy_generator, latents, 1.0, 16), np.stack(images))


def test_large_images_come_in_small_batches(toy_generator):
    assert batches.batch_size(toy_generator) == 64
    toy_generator.__dict__["image_shape"] = (3, 1024, 1024)
    assert batches.batch_size(toy_generator) == 1
