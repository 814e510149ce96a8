"""image_models, and Jacobians taken of what they say."""

import dataclasses
import json
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from magnet_cli import computing, models
from magnet_cli.catalog import cache, entries, image_model_entry
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.catalog.image_model_entry import Outputs, Preprocess
from magnet_cli.computing.memory import BatchPlan
from magnet_cli.errors import ArtifactError, GeneratorError, SpecError
from magnet_cli.files import documents
from magnet_cli.maths.priors import Prior, on_sphere
from magnet_cli.models import factories, image_models
from magnet_cli.models.image_models import efficientnet_lite, fid_inception, image_model, vgg16
from magnet_cli.models.image_models.digits import DigitClassifier
from magnet_cli.models.image_models.preprocess import preprocessed
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
    classifier.load_state_dict(load_file(cache.path_of(entries.find("digits"))))
    images = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = image_models.load("digits", CPU, torch.float32)
    assert torch.equal(found.module(images), classifier(images)[1])
    assert found.sha256 == entries.find("digits").sha256


@pytest.mark.slow
def test_jacobian_of_features_equals_the_dense_one(dense):
    generator = models.load(Checkpoint.find("mnist"))
    features = image_models.load("digits", CPU, torch.float32)
    spec = computing.volume_spec(generator, output=features, top_k=8)
    assert (spec.output, spec.output_sha256) == ("digits", features.sha256)
    assert spec.fingerprint != computing.volume_spec(generator, top_k=8).fingerprint
    latents = Prior("normal", 16).draw_shard(0, 0, 6)[0]
    found = computing.values_at(generator, latents, spec, BatchPlan(3), output=features)
    exact = models.load(Checkpoint.find("mnist"), dtype=torch.float64)
    model = image_models.load("digits", CPU, torch.float64).module
    truth = dense(lambda z: model(exact(z)), latents)[:, :8]
    error = np.abs(np.log(found) - np.log(np.maximum(truth, 1e-30)))
    assert error[truth >= 1e-3 * truth[:, :1]].max() <= 1e-3


@pytest.mark.slow
def test_a_volume_of_features_is_made_and_found(magnet):
    done = magnet("compute", "mnist", "--n", 30, "--output", "digits", "--top-k", 5, "--solver", "exact", "--json")
    assert done.code == 0, done.err
    spec = json.loads((cache.home() / "volumes").glob("*/volume.json").__next__().read_text())["spec"]
    assert spec["output"] == "digits"
    assert magnet("sample", "--n", 5, "--output", "digits", "--json").json["pool"] == 30
    assert magnet("sample", "--n", 5, "--out", "pixels", "--json").json["pool"] == 20_000


@pytest.mark.slow
def test_a_users_own_module(magnet, toy, tmp_path):
    (tmp_path / "own.py").write_text(FACTORY)
    reference = f"{tmp_path / 'own.py'}:mean"
    done = magnet("compute", toy, "--n", 10, "--output", reference, "--top-k", 1, "--volume", "v")
    assert done.code == 0, done.err
    rows = Volume.open(cache.Path("v")).read(0)
    generator = models.load(Checkpoint.find(str(toy)))
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


# --- preparing images -----------------------------------------------------------------------------------------------


def test_preparing_equals_pillow_and_the_words_of_the_entry():
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
    how = Preprocess(size=8, crop=0.75, range=(0.0, 255.0), mean=(1.0, 2.0, 3.0), std=(2.0,), channels="RGB")
    for resize, filtered in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
        cropped = Image.fromarray(pixels[3:21, 3:21]).resize((8, 8), filtered)
        known = (np.asarray(cropped, np.float64) - [1, 2, 3]) / 2
        found = preprocessed(images, dataclasses.replace(how, resize=resize), "m")[0].permute(1, 2, 0)
        assert np.abs(found.numpy() - known).max() <= 0.6  # Pillow rounds to bytes twice, before mean and std
    swapped = preprocessed(images, Preprocess(channels="BGR"), "m")
    assert torch.equal(swapped, images.flip(1))
    grey = preprocessed(images[:, :1], Preprocess(channels="RGB"), "m")
    assert torch.equal(grey, images[:, :1].expand(-1, 3, -1, -1))
    with pytest.raises(GeneratorError, match="1 channels"):
        preprocessed(images, Preprocess(channels="L"), "m")
    with pytest.raises(GeneratorError, match="16×16 pixels as they are, and these are 3×24×24"):
        preprocessed(images, Preprocess(size=16, resize="none"), "m")


def test_preparing_has_a_derivative():
    how = Preprocess(size=5, crop=0.8, resize="bicubic", range=(0.0, 1.0), mean=(0.5,), std=(0.2,))
    assert torch.autograd.gradcheck(
        lambda x: preprocessed(x, how, "m"), torch.rand(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    )


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("[m.preprocess]\nsize = -1", "preprocess.size"),
        ("[m.preprocess]\ncrop = 0", "preprocess.crop"),
        ("[m.preprocess]\ncolour = 3", "preprocess.colour: unknown field"),
        ("[m.preprocess]\nmean = [1, 2]", "preprocess.mean"),
        ("[m.preprocess]\nstd = [0]", "preprocess.std"),
        ("[m.preprocess]\nrange = [1, 0]", "preprocess.range"),
        ("[m.preprocess]\nmean = ['a']", "is not a list of float"),
        ('[m.outputs]\nscores = "p"', "scores and classes go together"),
        ('[m.outputs]\nscores = "p"\nclasses = ["a", "a"]', "names a class twice"),
        ('[m.outputs]\nscores = "p"\nclasses = ["a", "b"]\nstarts = [0, 0]', "outputs.starts"),
    ],
)
def test_mistakes_in_the_entry_of_an_image_model_are_named(tmp_path, table, said):
    entry = '[m]\nkind = "image-model"\nfamily = "onnx"\nsource = "file:/m.onnx"\nsha256 = "%s"\nsize = 1\n' % (
        "0" * 64
    )
    (tmp_path / "list.toml").write_text(f'{entry}license = "MIT"\ndescription = "d"\n{table}\n')
    with pytest.raises(ArtifactError, match="has 1 mistake") as error:
        entries.read_list(tmp_path / "list.toml")
    assert said in error.value.message


# --- networks -------------------------------------------------------------------------------------------------------


def listed(tmp_path, monkeypatch, name, network):
    """An entry for random weights of a network, with the words of the entry that ships with magnet."""
    path = tmp_path / f"{name}.pth"
    torch.save(network.state_dict(), path)
    shipped = entries.shipped_list().read_text(encoding="utf-8")
    table = tomllib.loads(shipped)[name]
    lines = [
        f"[{name}]",
        f'source = "file:{path}"',
        f'sha256 = "{documents.sha256_file(path)}"',
        f"size = {path.stat().st_size}",
    ]
    lines += [f'{key} = "{table[key]}"' for key in ("kind", "family", "license", "description")]
    for part in ("preprocess", "outputs"):
        lines += [f"[{name}.{part}]", *(f"{key} = {json.dumps(value)}" for key, value in table[part].items())]
    (tmp_path / "list.toml").write_text("\n".join(lines))
    monkeypatch.setenv("MAGNET_ARTIFACTS", str(tmp_path / "list.toml"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "network", "count", "size"),
    [
        ("efficientnet-lite0", efficientnet_lite.EfficientNetLite0, 1280, 18_826_032),
        ("inception", fid_inception.FidInception, 2048, 95_628_359),
    ],
)
def test_networks_have_the_weights_of_their_files_and_give_features(tmp_path, monkeypatch, name, network, count, size):
    torch.manual_seed(0)
    made = network()
    numbers = sum(v.numel() * v.element_size() for v in made.state_dict().values())
    assert 0 < size - numbers < 400 * len(made.state_dict())  # what torch.save adds; no tensor more or less
    listed(tmp_path, monkeypatch, name, made)
    judge = image_models.load_scorer(name)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    found = judge.features(pixels)
    assert found.shape == (2, count)
    assert not np.allclose(found[0], found[1], rtol=1e-3, atol=0)  # random weights: the numbers are small
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    composed = image_models.load(name, CPU, torch.float32).module(images)
    np.testing.assert_allclose(composed.numpy(), found, rtol=1e-4, atol=1e-6)
    with pytest.raises(GeneratorError, match="no scores of classes"):
        judge.probabilities(pixels)


@pytest.mark.slow
def test_vgg16_has_the_weights_of_its_file_and_gives_features():
    """Without the file: half a gigabyte."""
    torch.manual_seed(0)
    network = vgg16.build(vgg16.VGG16().state_dict()).eval()
    state = network.state_dict()
    numbers = sum(v.numel() * v.element_size() for v in state.values())
    assert numbers == 4 * 138_357_544  # as published
    with torch.no_grad():
        found = vgg16.outputs(network, torch.rand(1, 3, 64, 64))
        logits = network.classifier[6](found["features"])
    assert {name: tuple(v.shape) for name, v in found.items()} == {"logits": (1, 1000), "features": (1, 4096)}
    assert found["features"].min() >= 0
    assert torch.equal(logits, found["logits"])
    assert vgg16.recognises(state)
    assert not vgg16.recognises(state | {"features.1.weight": torch.zeros(64)})  # that with batch norm


def test_what_sets_the_network_of_fid_apart():
    """Averages leave the padding out, and the last block takes a maximum: torchvision's network does neither."""
    x = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    averaged = fid_inception._average(x)
    assert torch.allclose(averaged[0, :, 0, 0], x[0, :, :2, :2].mean(dim=(1, 2)))
    assert torch.allclose(averaged[0, :, 1, 2], x[0, :, :3, 1:].mean(dim=(1, 2)))
    block = fid_inception._E(8, last=True).eval()
    y = torch.rand(1, 8, 5, 5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        known = block.branch_pool(torch.nn.functional.max_pool2d(y, 3, 1, 1))
        assert torch.equal(block(y)[:, -192:], known)
    assert not fid_inception.recognises({"Mixed_7c.branch_pool.conv.weight": y, "fc.weight": torch.zeros(1000, 2048)})


def test_same_padding_is_that_of_tensorflow():
    """An even side, stride 2, kernel 3: one pixel at the right and the bottom, none at the left and the top."""
    layer = efficientnet_lite._Convolution(1, 1, 3, 2)
    layer.weight.data.fill_(1)
    found = layer(torch.ones(1, 1, 4, 4))[0, 0]
    assert found.tolist() == [[9, 6], [6, 4]]


def test_weights_that_fit_no_network_are_named(tmp_path, monkeypatch):
    network = torch.nn.Linear(2, 2)
    listed(tmp_path, monkeypatch, "vgg16", network)
    with pytest.raises(GeneratorError, match="fit no image model magnet can build; their first tensors: weight, bias"):
        image_models.load_scorer("vgg16")
    broken = efficientnet_lite.EfficientNetLite0()
    broken._fc = torch.nn.Linear(1280, 3)
    listed(tmp_path, monkeypatch, "efficientnet-lite0", broken)
    with pytest.raises(GeneratorError, match="do not fit its network"):
        image_models.load_scorer("efficientnet-lite0")


# --- judges ---------------------------------------------------------------------------------------------------------

OWN = """
import torch

class Own(torch.nn.Module):
    classes = ("dark", "bright")

    def forward(self, images):
        level = images.mean(dim=(1, 2, 3))
        return torch.stack([-level, level], dim=1)
"""


def test_judges_of_all_forms_agree(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    own = image_models.load_scorer(f"{tmp_path / 'own.py'}:Own")
    assert own.classes(2) == ("dark", "bright")
    level = (pixels.reshape(5, -1) / 127.5 - 1).mean(axis=1)
    known = 1 / (1 + np.exp(-2 * level))
    np.testing.assert_allclose(own.probabilities(pixels)[:, 1], known, rtol=1e-5)
    np.testing.assert_allclose(own.features(pixels)[:, 1], level, rtol=1e-4, atol=1e-6)
    script = tmp_path / "script.pt"
    with warnings.catch_warnings(action="ignore"):  # that torch.jit is on its way out
        torch.jit.trace(factories.call_factory(f"{tmp_path / 'own.py'}:Own"), torch.zeros(5, 3, 8, 8)).save(script)
        with pytest.raises(ArtifactError, match="it holds code") as error:
            image_models.load_scorer(str(script))
        trusted = image_models.load_scorer(str(script), trust=True)
        np.testing.assert_allclose(trusted.probabilities(pixels)[:, 1], known, rtol=1e-5)
    assert "`trust=True`" in error.value.hint
    assert trusted.classes(2) == ("0", "1")
    onnx = image_models.load_scorer(str(cache.path_of(entries.find("digits-onnx"))))
    grey = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 1), dtype=np.uint8)
    listed_model = image_models.load_scorer("digits-onnx")
    np.testing.assert_allclose(onnx.probabilities(grey), listed_model.probabilities(grey), rtol=1e-5)
    np.testing.assert_allclose(
        listed_model.features(grey), image_models.load_scorer("digits").features(grey), atol=1e-4
    )
    with pytest.raises(GeneratorError, match="does not take 3×8×8 images"):
        onnx.probabilities(pixels)


def test_what_is_no_judge_is_said(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"no onnx")
    with pytest.raises(GeneratorError, match="cannot be read as ONNX"):
        image_models.load_scorer(str(tmp_path / "m.onnx"))
    torch.save({"weight": torch.zeros(2)}, tmp_path / "state.pt")
    with pytest.raises(ArtifactError, match="neither ONNX nor TorchScript"):
        image_models.load_scorer(str(tmp_path / "state.pt"))
    with pytest.raises(GeneratorError, match="mnist is a generator"):
        image_models.load_scorer("mnist")


def test_a_file_called_like_a_listed_model_does_not_stand_for_it():
    cache.Path("digits").write_bytes(b"no model")
    assert image_models.load_scorer("digits").sha256 == entries.find("digits").sha256


def test_groups_of_classes_are_summed():
    gives = Outputs(scores="p", classes=("young", "old"), starts=(0, 3))
    judge = image_models.ImageScorer(
        "m", "0", Preprocess(), gives, lambda x: {"p": torch.tensor([[0.1, 0.2, 0.3, 0.4]])}
    )
    np.testing.assert_allclose(judge.probabilities(np.zeros((1, 4, 4, 3), np.uint8)), [[0.6, 0.4]])


@pytest.mark.network
def test_the_models_that_others_published(magnet):
    """The real files: surely a palace and a daisy; faces of dcgan-digiface are of both genders and many ages."""
    from sklearn.datasets import load_sample_image

    from magnet_cli.models import batches

    names = ("dcgan-digiface", "gender", "age", "efficientnet-lite0")
    assert magnet("fetch", *names).code == 0
    network, *_ = image_model.build(entries.find("efficientnet-lite0"))
    how = image_model_entry.preprocess(entries.find("efficientnet-lite0").preprocess)
    for picture, number in (("china.jpg", 698), ("flower.jpg", 985)):
        image = (
            torch.from_numpy(load_sample_image(picture)[:, 106:533].copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        )
        with torch.no_grad():
            assert network.eval()(preprocessed(image, how, "e"))[0].argmax() == number
    generator = models.load(Checkpoint.find("dcgan-digiface"))
    pixels = np.stack(list(batches.each_image(generator, Prior("normal", 100).draw_shard(0, 0, 200)[0], 1.0, 50)))
    gender, age = (image_models.load_scorer(name).probabilities(pixels) for name in ("gender", "age"))
    assert 0.35 < (gender[:, 0] > 0.5).mean() < 0.65
    assert gender.max(axis=1).mean() > 0.8
    np.testing.assert_allclose(age.sum(axis=1), 1, atol=1e-4)
    assert len(np.unique(age.argmax(axis=1))) >= 4


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

    return dataclasses.replace(toy_generator, prior=Prior("sphere", 5), module=Normalised(toy_generator.module))


def test_latents_of_the_spherical_prior_have_length_root_d():
    z = Prior("sphere", 5).draw_shard(0, 0, 40)[0]
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), np.sqrt(5), rtol=1e-6)
    plain = Prior("normal", 5).draw_shard(0, 0, 40)[0]
    directions = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in (z, plain)]
    np.testing.assert_allclose(*directions, rtol=1e-5)


def test_the_direction_of_z_is_null_and_left_out(spherical):
    with pytest.raises(SpecError, match=r"outside 1\.\.4.*on a sphere"):
        computing.volume_spec(spherical, top_k=5)
    spec = computing.volume_spec(spherical)
    assert spec.top_k == 4
    z = Prior("sphere", 5).draw_shard(0, 0, 12)[0]
    from magnet_cli.maths.jacobian import solvers

    all_five = solvers.exact(spherical, torch.from_numpy(z), 5)
    assert (all_five[:, 4] < 1e-5 * all_five[:, 0]).all()


def test_log_volumes_of_z_and_2z_agree(spherical, tmp_path):
    """After both are brought to |z| = √D; without that they differ by k·log 2."""
    spec = computing.volume_spec(spherical)
    z = Prior("normal", 5).draw_shard(0, 0, 12)[0]
    one, two = (
        np.log(computing.values_at(spherical, on_sphere(s * z), spec, BatchPlan(12))).sum(axis=1) for s in (1, 2)
    )
    np.testing.assert_allclose(one, two, atol=1e-5)
    raw = [np.log(computing.values_at(spherical, s * z, spec, BatchPlan(12))).sum(axis=1) for s in (1, 2)]
    np.testing.assert_allclose(raw[0] - raw[1], 4 * np.log(2), atol=1e-3)
    volume = Volume.create(tmp_path / "v", spec)
    list(computing.fill(volume, spherical, 30))
    np.testing.assert_allclose(np.linalg.norm(volume.read(0).latents, axis=1), np.sqrt(5), rtol=1e-6)


# --- the predictor of balanced sampling -----------------------------------------------------------------------------


def celeba_shapes():
    """Names and shapes of a ResNet-50 without its classifier, as a torchvision network in a Sequential has them, and of
    four heads: 326 tensors."""
    shapes = {}

    def norm(name, width):
        shapes.update({f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{name}.num_batches_tracked"] = ()

    shapes["features.0.weight"] = (64, 3, 7, 7)
    norm("features.1", 64)
    n_in = 64
    for stage, (width, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 4):
        for block in range(count):
            name, n_out = f"features.{stage}.{block}", 4 * width
            for i, shape in enumerate(((width, n_in, 1, 1), (width, width, 3, 3), (n_out, width, 1, 1)), 1):
                shapes[f"{name}.conv{i}.weight"] = shape
                norm(f"{name}.bn{i}", shape[0])
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = (n_out, n_in, 1, 1)
                norm(f"{name}.downsample.1", n_out)
            n_in = n_out
    for head in ("smile", "age", "gender", "eyeglasses"):
        shapes[f"fc_{head}.weight"], shapes[f"fc_{head}.bias"] = (2, 2048), (2,)
    return shapes


def plain_resnet(state, x):
    """Features [B, 2048] of prepared images, by the paper's equations: stride in the 3x3 of a bottleneck."""
    functional = torch.nn.functional

    def unit(x, conv, norm, stride=1):
        kernel = state[f"{conv}.weight"]
        y = functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        mean, var, scale, shift = (
            state[f"{norm}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (y - mean) / (var + 1e-5).sqrt() * scale + shift

    x = functional.max_pool2d(unit(x, "features.0", "features.1", 2).clamp(min=0), 3, 2, 1)
    for stage, count in enumerate((3, 4, 6, 3), 4):
        for block in range(count):
            name, stride = f"features.{stage}.{block}", 2 if stage > 4 and block == 0 else 1
            y = unit(x, f"{name}.conv1", f"{name}.bn1").clamp(min=0)
            y = unit(y, f"{name}.conv2", f"{name}.bn2", stride).clamp(min=0)
            y = unit(y, f"{name}.conv3", f"{name}.bn3")
            x = unit(x, f"{name}.downsample.0", f"{name}.downsample.1", stride) if block == 0 else x
            x = (x + y).clamp(min=0)
    return x.mean(dim=(2, 3))


@pytest.mark.slow
def test_the_celeba_predictor_is_built_from_the_authors_layout(tmp_path, monkeypatch):
    """A file of the layout that is known, with random weights; the authors' own was not at hand."""
    torch_rng = torch.Generator().manual_seed(0)
    shapes, state = celeba_shapes(), {}
    assert len(shapes) == 326
    for name, shape in shapes.items():
        drawn = torch.randn(shape, generator=torch_rng)
        spread = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        state[name] = torch.tensor(7) if not shape else drawn * spread
        if name.endswith(("running_var", "weight")) and len(shape) == 1:
            state[name] = drawn.abs() * 0.2 + 0.4
    path = tmp_path / "celeba.pth.tar"
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    own, sha256 = [], documents.sha256_file(path)
    for head in ("smile", "age", "gender", "eyeglasses"):
        entry = entries.find(f"celeba-{head}")
        assert (entry.family, entry.source) == ("torch", "drive:12ZpxZIuoTZYIMkhZQFKrDo6waEG8ejNq")
        lines = [
            f"[my-{head}]",
            'kind = "image-model"',
            'family = "torch"',
            f'source = "file:{path}"',
            'license = "MIT"',
        ]
        lines += ['description = "x"', f'sha256 = "{sha256}"', f"size = {path.stat().st_size}"]
        for table in ("preprocess", "outputs"):
            values = getattr(entry, table).items()
            lines += [f"[my-{head}.{table}]", *(f"{name} = {json.dumps(value)}" for name, value in values)]
        own += lines
    (tmp_path / "mine.toml").write_text("\n".join(own))
    monkeypatch.setenv("MAGNET_ARTIFACTS", str(tmp_path / "mine.toml"))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    judge = image_models.load_scorer("my-smile")
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255.0
    cropped = torch.nn.functional.interpolate(
        images[:, :, 4:60, 4:60], (224, 224), mode="bilinear", align_corners=False
    )
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.inference_mode():
        features = plain_resnet(state, (cropped - mean) / std)
    np.testing.assert_allclose(judge.features(pixels), features, rtol=1e-3, atol=1e-4)
    known = (features @ state["fc_smile.weight"].T + state["fc_smile.bias"]).softmax(dim=1)
    np.testing.assert_allclose(judge.probabilities(pixels), known, atol=1e-4)
    known = features @ state["fc_gender.weight"].T + state["fc_gender.bias"]
    logits = image_models.load_scorer("my-gender").run(images * 2 - 1)["gender"]
    np.testing.assert_allclose(logits, known, rtol=1e-3, atol=1e-3)
    assert judge.classes(2) == ("not smiling", "smiling")


def test_own_models_without_weights_are_told_apart(magnet, tmp_path):
    """Features and probabilities are kept by a model's key: two functions of equal weights must not share one."""
    own = tmp_path / "own.py"
    body = "import torch\n\n\nclass Mean(torch.nn.Module):\n"
    body += "    def forward(self, x):\n        return x.flatten(1)[:, :2]\n"
    own.write_text(
        body + "\n\nclass Last(torch.nn.Module):\n    def forward(self, x):\n        return x.flatten(1)[:, -2:]\n"
    )
    mean, last = (image_models.load_scorer(f"{own}:{name}") for name in ("Mean", "Last"))
    assert mean.sha256 == last.sha256
    assert mean.key != last.key
    assert image_models.load_scorer(f"{own}:Mean").key == mean.key
    own.write_text(body.replace("[:, :2]", "[:, 2:4]"))
    assert image_models.load_scorer(f"{own}:Mean").key != mean.key


@pytest.mark.parametrize("name", ["own.onnx", "listed"])
def test_onnx_with_weights_in_other_files_is_refused(tmp_path, monkeypatch, name):
    """onnxruntime would read them from the working folder, whatever the pinned hash says."""
    import onnx

    whole = onnx.load(cache.path_of(entries.find("digits-onnx")))
    onnx.save(whole, "own.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    data = Path("own.onnx").read_bytes()
    sha256, size = documents.sha256_bytes(data), len(data)
    entry = f'[listed]\nkind = "image-model"\nfamily = "onnx"\nsource = "file:{Path("own.onnx").resolve()}"\n'
    entry += f'sha256 = "{sha256}"\nsize = {size}\nlicense = "MIT"\ndescription = "d"\n'
    Path("own.toml").write_text(entry)
    monkeypatch.setenv("MAGNET_ARTIFACTS", "own.toml")
    with pytest.raises(GeneratorError, match="weights in other files, which its sha256 does not cover"):
        image_models.load_scorer(name)


@pytest.mark.parametrize("axes", [(1, 2, 3), (0, 1, 2, 3)])
def test_a_number_an_image_or_one_number_for_all(axes):
    from onnx import TensorProto, helper, numpy_helper

    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])
    nodes = [helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0)]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"] if len(axes) == 3 else [])
    graph = helper.make_graph(nodes, "g", [given], [result], [numpy_helper.from_array(np.array(axes), "axes")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    Path("m.onnx").write_bytes(made.SerializeToString())
    (scorer,) = image_models.with_memory([image_models.load_scorer("m.onnx")])
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    if len(axes) == 3:
        np.testing.assert_allclose(scorer.features(pixels)[:, 0], (pixels / 127.5 - 1).mean((1, 2, 3)), rtol=1e-3)
        return
    with pytest.raises(GeneratorError, match="gives single numbers for 5 3×8×8 images"):
        scorer.features(pixels)
