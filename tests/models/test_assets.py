"""What ships inside the package: whole, small, and what it says it is."""

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from magnet_cli import computing, index, models
from magnet_cli.catalog import cache, entries
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.maths.priors import Prior
from magnet_cli.models.generators.dcgan import DCGAN
from magnet_cli.models.image_models.digits import DigitClassifier
from magnet_cli.volume import Volume

LIMITS = {"mnist": 1_000_000, "digits": 1_000_000, "digits-onnx": 1_000_000, "mnist-volume": 5_000_000}


@pytest.mark.parametrize("name", LIMITS)
def test_bytes_are_those_of_the_list(name):
    artifact = entries.find(name)
    assert artifact.scheme == "builtin"
    assert artifact.size <= LIMITS[name]
    cache.verify(artifact, cache.path_of(artifact))


def test_generator_makes_digits_sized_images():
    generator = models.load(Checkpoint.find("mnist"))
    assert (generator.family, generator.latent_dim, generator.image_shape) == ("dcgan", 16, (1, 32, 32))
    images = generator(torch.randn(50, 16, generator=torch.Generator().manual_seed(0)))
    assert images.abs().max() <= 1
    assert (images < -0.9).float().mean() > 0.4  # strokes on black


@pytest.mark.slow
def test_most_draws_are_digits_to_the_classifier():
    """A light guard; tools/check_mnist.py measures against the real digits."""
    generator = models.load(Checkpoint.find("mnist"))
    classifier = DigitClassifier()
    classifier.load_state_dict(load_file(cache.path_of(entries.find("digits"))))
    with torch.no_grad():
        logits, features = classifier.eval()(
            generator(torch.randn(2000, 16, generator=torch.Generator().manual_seed(1)))
        )
    assert features.shape == (2000, 64)
    sure, digit = logits.softmax(dim=1).max(dim=1)
    assert (sure > 0.9).float().mean() >= 0.78
    assert torch.bincount(digit, minlength=10).min() >= 0.04 * 2000


def test_onnx_equals_torch():
    classifier = DigitClassifier()
    classifier.load_state_dict(load_file(cache.path_of(entries.find("digits"))))
    generator = models.load(Checkpoint.find("mnist"))
    with torch.no_grad():
        images = generator(torch.randn(64, 16, generator=torch.Generator().manual_seed(2))).contiguous()
        logits, features = classifier.eval()(images)
    session = onnxruntime.InferenceSession(cache.path_of(entries.find("digits-onnx")))
    found = dict(
        zip([o.name for o in session.get_outputs()], session.run(None, {"images": images.numpy()}), strict=True)
    )
    probabilities = torch.from_numpy(found["logits"]).softmax(dim=1)
    np.testing.assert_allclose(probabilities, logits.softmax(dim=1), atol=1e-5)
    np.testing.assert_allclose(found["logits"], logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["features"], features, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_volume_is_what_compute_would_make(dense):
    """20,000 rows under the spec of a plain `magnet compute`; rows equal the dense float64 SVD of the same Jacobian."""
    volume = Volume.open(cache.path_of(entries.find("mnist-volume")))
    generator = models.load(Checkpoint.find("mnist"))
    assert volume.spec == computing.volume_spec(generator)
    assert (volume.num_rows, volume.spec.top_k) == (20_000, 16)
    assert volume.check() == []
    network = DCGAN(16, (128, 64, 32), 1)
    network.load_state_dict(load_file(cache.path_of(entries.find("mnist"))), strict=False)
    network = network.to(torch.float64).eval().requires_grad_(False)
    for shard in (0, 9):
        rows = volume.read(shard)
        np.testing.assert_array_equal(rows.latents, Prior("normal", 16).draw_shard(0, shard, 2000)[0])
        truth = dense(network, rows.latents[:10], reverse=False)
        np.testing.assert_allclose(truth[:2], dense(network, rows.latents[:2]), rtol=1e-9)  # the two ways agree
        error = np.abs(np.log(rows.singular_values[:10]) - np.log(truth))
        assert error[truth >= 1e-3 * truth[:, :1]].max() <= 1e-3
    index.build(volume, 16)  # no rounding among the values


def test_sampling_works_straight_after_install(magnet):
    done = magnet("sample", "--n", 5000, "--dry-run", "--json")
    assert done.json["pool"] == 20_000
    drawn = magnet("sample", "--n", 50, "--json").json
    assert drawn["images"] == 50
