"""image_models, and Jacobians taken of what they say."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from magnet_cli import compute, generators, image_models
from magnet_cli.artifacts import cache, registry
from magnet_cli.errors import ArtifactError, GeneratorError, SpecError
from magnet_cli.image_models.digits import DigitClassifier
from magnet_cli.plan import Plan
from magnet_cli.volume import Volume

CPU = torch.device("cpu")

FACTORY = """
import torch

class Mean(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, images):
        return self.scale * images.square().mean(dim=(2, 3))

def mean():
    return Mean()

def nothing():
    return None
"""


def test_digit_features_are_the_classifiers():
    classifier = DigitClassifier().eval()
    classifier.load_state_dict(load_file(cache.path_of(registry.find("digits"))))
    images = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = image_models.load("digits", CPU, torch.float32)
    assert torch.equal(found.module(images), classifier(images)[1])
    assert found.sha256 == registry.find("digits").sha256


def test_jacobian_of_features_equals_the_dense_one(dense):
    generator = generators.load(cache.checkpoint("mnist"))
    features = image_models.load("digits", CPU, torch.float32)
    spec = compute.asked(generator, output=features, top_k=8)
    assert (spec.output, spec.output_sha256) == ("digits", features.sha256)
    assert spec.fingerprint != compute.asked(generator, top_k=8).fingerprint
    latents = compute.draw_latents(16, 0, 0, 6)
    found = compute.singular_values(generator, latents, spec, Plan(3), output=features)
    exact = generators.load(cache.checkpoint("mnist"), dtype=torch.float64)
    model = image_models.load("digits", CPU, torch.float64).module
    truth = dense(lambda z: model(exact(z)), latents)[:, :8]
    error = np.abs(np.log(found) - np.log(np.maximum(truth, 1e-30)))
    assert error[truth >= 1e-3 * truth[:, :1]].max() <= 1e-3


def test_a_volume_of_features_is_made_and_found(magnet):
    done = magnet("compute", "mnist", "--n", 30, "--output", "digits", "--top-k", 5, "--solver", "exact", "--json")
    assert done.code == 0, done.err
    spec = json.loads((cache.home() / "volumes").glob("*/volume.json").__next__().read_text())["spec"]
    assert spec["output"] == "digits"
    assert magnet("sample", "--n", 5, "--output", "digits", "--json").json["pool"] == 30
    assert magnet("sample", "--n", 5, "--out", "pixels", "--json").json["pool"] == 20_000


def test_a_users_own_module(magnet, toy, tmp_path):
    (tmp_path / "own.py").write_text(FACTORY)
    reference = f"{tmp_path / 'own.py'}:mean"
    done = magnet("compute", toy, "--n", 10, "--output", reference, "--top-k", 1, "--volume", "v")
    assert done.code == 0, done.err
    rows = Volume.open(cache.Path("v")).read(0)
    generator = generators.load(cache.checkpoint(str(toy)))
    known = torch.func.vmap(torch.func.jacrev(lambda z: 2 * generator(z[None]).square().mean()))(
        torch.from_numpy(rows.latents)
    )
    np.testing.assert_allclose(rows.singular_values[:, 0], known.norm(dim=1), rtol=1e-4)
    (tmp_path / "own.py").write_text(FACTORY.replace("2.0", "3.0"))  # the same name, another function
    again = magnet("compute", toy, "--n", 20, "--output", reference, "--top-k", 1, "--volume", "v")
    assert again.code == 1
    assert "output_sha256" in again.err
    (tmp_path / "own.py").write_text(FACTORY.replace(".square()", ".abs()"))  # the same weights, another function
    again = magnet("compute", toy, "--n", 20, "--output", reference, "--top-k", 1, "--volume", "v")
    assert (again.code, again.out) == (1, "")
    assert "the function of" in again.err
    assert "changed" in again.err
    assert Volume.open(cache.Path("v")).num_rows == 10
    (tmp_path / "own.py").write_text(
        FACTORY.replace("images.square()", "(images * images)")
    )  # other code, same function
    assert magnet("compute", toy, "--n", 20, "--output", reference, "--top-k", 1, "--volume", "v").code == 0


def test_models_that_cannot_follow(magnet, toy, tmp_path):
    with pytest.raises(GeneratorError, match="digits-onnx exists as onnx only") as error:
        image_models.load("digits-onnx", CPU, torch.float32)
    assert "those with one: digits, " in error.value.hint
    with pytest.raises(GeneratorError, match="mnist is a generator"):
        image_models.load("mnist", CPU, torch.float32)
    (tmp_path / "own.py").write_text(FACTORY)
    for factory, said in (("nothing", "returns a NoneType"), ("absent", "cannot be had")):
        with pytest.raises(ArtifactError, match=said):
            image_models.load(f"{tmp_path / 'own.py'}:{factory}", CPU, torch.float32)
    with pytest.raises(ArtifactError, match="cannot be had"):
        image_models.load("no/such/file.py:factory", CPU, torch.float32)
    done = magnet("compute", toy, "--n", 5, "--output", "digits")  # 8x8 images do not fit the classifier
    assert (done.code, done.out) == (1, "")
    assert "1×8×8" in done.err


def test_a_space_that_is_not_there_lists_those_that_are(magnet, toy):
    done = magnet("compute", toy, "--space", "w")
    assert (done.code, done.out) == (1, "")
    assert "has no space 'w': found z" in done.err
    done = magnet("compute", toy, "--output", "style")
    assert (done.code, done.out) == (1, "")
    assert "has no output 'style': found pixel" in done.err
    assert magnet("compute", toy, "--output", "style", "--space", "w").code == 2
    done = magnet("compute", toy, "--label", 1)
    assert (done.code, done.out) == (1, "")
    assert "takes no labels" in done.err


# --- the spherical prior --------------------------------------------------------------------------------------------


@pytest.fixture
def spherical(toy_generator):
    """The toy behind a normalisation of z, as StyleGAN and ProGAN have it."""

    class Normalised(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, z, labels, truncation):
            return self.inner(z * (z.shape[1] ** 0.5) / z.norm(dim=1, keepdim=True), labels, truncation)

    return dataclasses.replace(toy_generator, prior="sphere", module=Normalised(toy_generator.module))


def test_latents_of_the_spherical_prior_have_length_root_d():
    z = compute.draw_latents(5, 0, 0, 40, "sphere")
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), np.sqrt(5), rtol=1e-6)
    plain = compute.draw_latents(5, 0, 0, 40)
    directions = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in (z, plain)]
    np.testing.assert_allclose(*directions, rtol=1e-5)


def test_the_direction_of_z_is_null_and_left_out(spherical):
    with pytest.raises(SpecError, match=r"outside 1\.\.4.*normalises"):
        compute.asked(spherical, top_k=5)
    spec = compute.asked(spherical)
    assert spec.top_k == 4
    z = compute.draw_latents(5, 0, 0, 12, "sphere")
    from magnet_cli.jacobian import solvers

    all_five = solvers.exact(spherical, torch.from_numpy(z), 5)
    assert (all_five[:, 4] < 1e-5 * all_five[:, 0]).all()


def test_log_volumes_of_z_and_2z_agree(spherical, tmp_path):
    """After both are brought to |z| = √D; without that they differ by k·log 2."""
    spec = compute.asked(spherical)
    z = compute.draw_latents(5, 0, 0, 12)
    one, two = (
        np.log(compute.singular_values(spherical, compute.on_sphere(s * z), spec, Plan(12))).sum(axis=1) for s in (1, 2)
    )
    np.testing.assert_allclose(one, two, atol=1e-5)
    raw = [np.log(compute.singular_values(spherical, s * z, spec, Plan(12))).sum(axis=1) for s in (1, 2)]
    np.testing.assert_allclose(raw[0] - raw[1], 4 * np.log(2), atol=1e-3)
    volume = Volume.create(tmp_path / "v", spec)
    list(compute.fill(volume, spherical, 30))
    np.testing.assert_allclose(np.linalg.norm(volume.read(0).latents, axis=1), np.sqrt(5), rtol=1e-6)
