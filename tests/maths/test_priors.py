"""priors: a latent is a function of its seed and place alone."""

import numpy as np

from magnet_cli.maths import priors


def test_latents_of_a_shard_depend_on_seed_and_shard_alone():
    drawn = priors.draw_latents(7, 3, 5, 100)
    np.testing.assert_array_equal(priors.draw_latents(7, 3, 5, 40), drawn[:40])
    assert not np.array_equal(priors.draw_latents(7, 3, 6, 100), drawn)
    assert not np.array_equal(priors.draw_latents(7, 4, 5, 100), drawn)
    assert abs(drawn.mean()) < 0.15
    assert abs(drawn.std() - 1) < 0.1
