"""models.load from Python: what it takes, on which device and in which precision; what it refuses."""

import argparse
import collections
import datetime
import enum
import pathlib
import random
from pathlib import Path

import numpy as np
import nvlabs_files
import pytest
import recorded
import torch
from safetensors.torch import save_file
from torch_files import saved
from toys import stylegan2_weights, toy_weights

from magnet_cli import models
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.errors import ArtifactError, GeneratorError
from magnet_cli.models import factories, loading
from magnet_cli.models.generators import dcgan

MODULE = """
import torch

class Map(torch.nn.Module):
    latent_dim = 3
    num_classes = {classes}

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(3, 48, generator=torch.Generator().manual_seed(0)) / 3)

    def forward(self, z, labels=None):
        return torch.tanh(z @ self.weight).reshape(-1, 3, 4, 4)

def make():
    return Map()
"""

LABEL = torch.zeros(1, dtype=torch.int64)


def write(classes=0):
    """A file with a factory in the working folder; its reference."""
    Path("own.py").write_text(MODULE.format(classes=classes))
    return "own.py:make"


def test_load_takes_a_name_a_path_a_factory_and_a_module(toy):
    z = torch.ones(2, 3)
    by_factory = models.load(write())
    assert (by_factory.name, by_factory.family, by_factory.prior.kind) == ("own-make", "own", "normal")
    module = factories.call_factory("own.py:make")
    by_module = models.load(module)
    assert (by_module.name, by_module.sha256) == ("Map", by_factory.sha256)
    torch.testing.assert_close(by_module(z), by_factory(z), rtol=0, atol=0)
    other = models.load("own.py:make", latent_dim=3, prior="sphere", image_range=(0, 1), dtype=torch.float64)
    assert (other.prior.kind, other.image_range, other(z.double()).dtype) == ("sphere", (0, 1), torch.float64)
    torch.testing.assert_close(other(z.double()), 2 * by_module(z).double() - 1)
    with torch.no_grad():
        module.weight.zero_()  # the user's module and the generator are apart
    assert by_module(z).abs().max() > 0
    assert module.training
    assert module.weight.requires_grad
    assert by_module.module.inner is not module
    assert models.load("mnist").sha256 == models.load(Checkpoint.find("mnist")).sha256
    assert models.load(toy).sha256 == models.load(str(toy)).sha256 == Checkpoint.find(str(toy)).sha256
    with pytest.raises(GeneratorError, match="setting 'latent_dim', which the family dcgan does not have"):
        models.load("mnist", latent_dim=3)
    with pytest.raises(GeneratorError, match="setting 'truncation', which the family own does not have"):
        models.load(module, truncation=3)
    with pytest.raises(GeneratorError, match="Linear does not say how many numbers a latent has"):
        models.load(torch.nn.Linear(3, 8))
    with pytest.raises(GeneratorError, match="Linear cannot be copied"):
        models.load(weight_of_another(torch.nn.Linear(3, 8)), latent_dim=3)
    with pytest.raises(ArtifactError, match="there is no checkpoint"):
        models.load("no/such/file.pt")


def weight_of_another(module):
    module.halved = module.weight / 2
    return module


def test_a_generator_shows_what_it_is():
    text = "Generator('own-make', family='own', latent_dim=3, image_shape=(3, 4, 4), prior='normal', num_classes=4)"
    assert repr(models.load(write(classes=4))) == text
    assert repr(models.load("mnist")).startswith("Generator('mnist', family='dcgan', latent_dim=16")


def test_the_default_device_is_torchs():
    reference = write(classes=4)
    for source in ("mnist", reference, factories.call_factory(reference)):
        assert {p.device.type for p in models.load(source).module.parameters()} == {"cpu"}
        with torch.device("meta"):
            loaded = models.load(source, device="cpu")
            with pytest.raises(GeneratorError, match="there is no device 'meta' here"):
                models.load(source)
        assert loaded(torch.zeros(1, loaded.latent_dim), labels=None if source == "mnist" else LABEL).isfinite().all()
    with pytest.raises(GeneratorError, match="there is no device 'cuda:99' here") as error:
        models.load("mnist", device="cuda:99")
    assert '`device="cpu"`' in error.value.hint


def test_a_name_alone_never_imports(toy):
    """Only what names a factory is one: a file of such a name is a checkpoint, a name without a colon an artifact."""
    Path("a:make").write_bytes(toy.read_bytes())
    assert models.load("a:make").family == "dcgan"
    Path("evil.py").write_text("open('ran', 'w').close()")
    for name in ("evil.py", "evil", "./evil.py"):
        with pytest.raises((ArtifactError, GeneratorError)):
            models.load(name)
    assert not Path("ran").exists()


def test_weights_are_read_before_a_network_is_built(toy):
    weights = loading.read(Checkpoint.find(str(toy)))
    assert (weights.family, weights.format, weights.settings) == ("dcgan", "safetensors", {})
    network = loading.build(weights)
    assert isinstance(network, dcgan.DCGAN)
    assert next(network.parameters()).dtype == torch.float64
    assert not network.training
    with pytest.raises(GeneratorError, match="setting 'noise', which the family dcgan does not have"):
        loading.build(weights, noise="none")


# --- which weights of a file are meant ------------------------------------------------------------------------------


def read(content, **flags):
    """What comes of a file of torch.save, or of safetensors where it is flat."""
    path = Path("some.pt")
    path.write_bytes(saved(content, **flags))
    return models.load(path, dtype=torch.float64)


def images(generator):
    z = torch.randn(2, generator.latent_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return generator(z)


def is_of(generator, state):
    """Whether a generator is the network of a state dict."""
    save_file(state, "plain.safetensors")
    return torch.equal(images(generator), images(models.load("plain.safetensors", dtype=torch.float64)))


def test_averaged_weights_go_before_raw_ones_and_both_are_named(magnet):
    raw, average = toy_weights(1), toy_weights(2)
    for content, place in (
        ({"state_dict": raw, "state_dict_ema": average}, "state_dict_ema"),
        ({"g": raw, "d": {"x": torch.ones(1)}, "g_ema": average}, "g_ema"),
        ({"gen": {"raw": raw}, "shadow": {"inner": average}}, "shadow.inner"),
    ):
        generator = read(content)
        assert is_of(generator, average)
        assert generator.place == place
        assert len(generator.others) == 1
    shown = magnet("info", "some.pt", "--json").json
    assert (shown["weights"], shown["beside"]) == ("shadow.inner", ["gen.raw"])
    computed = magnet("compute", "some.pt", "--n", 4, "--solver", "exact", "--precision", "float64")
    assert "weights: shadow.inner; beside them, not taken: gen.raw" in computed.err
    save_file({f"g.{k}": v for k, v in raw.items()} | {f"g_ema.{k}": v for k, v in average.items()}, "flat.safetensors")
    assert is_of(models.load("flat.safetensors", dtype=torch.float64), average)


def test_of_two_networks_that_fit_one_is_asked_for(magnet):
    content = {"netG_A": toy_weights(1), "netG_B": toy_weights(2)}
    with pytest.raises(GeneratorError, match="netG_A, netG_B; which of them is meant is not clear"):
        read(content)
    assert magnet("convert", "some.pt", "b.safetensors", "--weights", "netG_B").code == 0
    assert is_of(models.load("b.safetensors", dtype=torch.float64), content["netG_B"])
    mixed = {f"one.{k}": v for k, v in toy_weights().items()} | {f"two.{k}": v for k, v in stylegan2_weights().items()}
    with pytest.raises(GeneratorError, match=r"state_dict\.one, state_dict\.two; which of them"):
        read({"state_dict": mixed})
    families = [magnet("info", "some.pt", "--family", name, "--json").json["family"] for name in ("dcgan", "stylegan2")]
    assert families == ["dcgan", "stylegan2"]
    computed = magnet(
        "compute", "some.pt", "--family", "dcgan", "--n", 4, "--solver", "exact", "--precision", "float64"
    )
    assert "magnet index some.pt --family dcgan" in computed.err
    assert magnet("sample", "some.pt", "--family", "dcgan", "--n", 2, "--rho", 0).code == 0
    wrong = magnet("info", "some.pt", "--family", "progan")
    assert wrong.code == 1
    assert "fit no family" in wrong.err


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "generator.", "module.netG."])
@pytest.mark.parametrize("key", [None, "state_dict"])
def test_prefixes_are_taken_off(prefix, key):
    state = toy_weights()
    named = {prefix + name: value for name, value in state.items()} | {
        "discriminator.main.0.weight": torch.ones(4, 1, 4, 4)
    }
    generator = read(named if key is None else {key: named, "epoch": 3, "pytorch-lightning_version": "2.2.0"})
    assert is_of(generator, state)
    assert generator.place == ".".join(part for part in (key, prefix.removesuffix(".")) if part)


class Colour(enum.Enum):
    RED = 1


class Config(dict):
    """As easydict's."""


class Plain:
    def __init__(self):
        self.alpha, self.sizes = 1, [2, 3]


Pair = collections.namedtuple("Pair", "a b")
STEPPED = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))])
STEPPED.param_groups[0]["params"][0].grad = torch.ones(2)
STEPPED.step()
BESIDE = {
    "an optimiser": STEPPED.state_dict(),
    "a loss": torch.tensor(0.5),
    "random states": {
        "torch": torch.get_rng_state(),
        "numpy": np.random.RandomState(0).get_state(),
        "py": random.getstate(),
    },
    "a generator of numpy": np.random.default_rng(0),
    "a random state": torch.get_rng_state(),
    "a date": datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
    "a duration": datetime.timedelta(3),
    "a path": pathlib.PurePosixPath("a/b"),
    "a defaultdict": collections.defaultdict(list, {"a": [1]}),
    "a counter": collections.Counter("ab"),
    "a deque": collections.deque([1, 2]),
    "a named tuple": Pair(1, torch.ones(1)),
    "complex numbers": torch.ones(3, dtype=torch.complex64),
    "no numbers": torch.ones(0, 3),
    "a dict of another kind": Config(a=1),
    "an object": Plain(),
    "an enum": Colour.RED,
    "a Namespace": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("a")),
    "sets": [{1, 2}, frozenset({"a"}), {"b"}],
    "odd keys": {(1, 2): 3, None: 4, 0.5: 5, True: 6},
    "a type": torch.float16,
    "a class": Plain,
    "a number of numpy": np.float64(3),
    "an array of texts": np.array(["a", "b"]),
    "a slice": slice(1, 2),
}


@pytest.mark.parametrize("name", BESIDE)
def test_what_training_leaves_beside_weights_is_inert(name):
    state = toy_weights()
    for zipped in (True, False):
        for protocol in (2, 4):
            flags = {"_use_new_zipfile_serialization": zipped, "pickle_protocol": protocol}
            assert is_of(read({"model_state_dict": state, "epoch": 3, "beside": BESIDE[name]}, **flags), state)


def test_what_weights_must_be_is_not_inert():
    state = toy_weights()
    with pytest.raises(GeneratorError, match="complex numbers among its weights"):
        read({"state_dict": state | {"main.0.weight": state["main.0.weight"].to(torch.complex64)}})
    with pytest.raises(GeneratorError, match="do not fit one"):
        read({"state_dict": state | {"rng_state": torch.get_rng_state()}})
    with pytest.raises(GeneratorError, match=r"tensor in optimizer\.state\.0|tensors in optimizer\.state\.0"):
        read({"optimizer": STEPPED.state_dict()})


# --- settings that weights do not tell ------------------------------------------------------------------------------


def test_settings_that_change_what_a_file_says_change_the_hash():
    """Or rows of two functions would come together in one volume."""
    save_file(stylegan2_weights(), "some.safetensors")
    plain, clamped = models.load("some.safetensors"), models.load("some.safetensors", conv_clamp=0.5)
    assert plain.sha256 == Checkpoint.find("some.safetensors").sha256
    assert clamped.sha256 != plain.sha256 != models.load("some.safetensors", conv_clamp=2).sha256 != clamped.sha256
    assert models.load("some.safetensors", conv_clamp=np.float64(0.5)).sha256 == clamped.sha256
    for same in ({"conv_clamp": None}, {"lr_multiplier": 0.01}, {"noise": "none"}):  # volumes record the noise
        assert models.load("some.safetensors", **same).sha256 == plain.sha256


def test_info_says_what_is_assumed_and_convert_says_otherwise(magnet):
    state = toy_weights(widths=(8, 4, 2))
    save_file(state, "some.safetensors")
    shown = magnet("info", "some.safetensors", "--json")
    assumed = {"strides": [1, 2, 2, 2], "paddings": [0, 1, 1, 1], "slope": 0.0, "final": "tanh", "eps": 1e-05}
    assert shown.json["assumed"] == assumed
    assert (
        "magnet convert some.safetensors OUT.safetensors --setting NAME=VALUE" in magnet("info", "some.safetensors").err
    )
    told = ("--setting", "paddings=[0,1,1,3]", "--setting", "final=sigmoid", "--setting", "slope=0.2")
    assert magnet("convert", "some.safetensors", "small.safetensors", *told).code == 0
    small = magnet("info", "small.safetensors", "--json").json
    assert small["image_shape"] == [1, 28, 28]
    assert small["settings"] == {"paddings": [0, 1, 1, 3], "final": "sigmoid", "slope": 0.2}
    assert small["assumed"] == {"strides": [1, 2, 2, 2], "eps": 1e-05}
    refused = magnet("convert", "some.safetensors", "no.safetensors", "--setting", "paddings=[0]")
    assert refused.code == 1
    assert "there are 4 convolutions" in refused.err
    assert not Path("no.safetensors").exists()
    assert magnet("convert", "some.safetensors", "no.safetensors", "--setting", "paddings").code == 2


def test_what_a_file_says_of_itself_is_what_its_tensors_give():
    """A conditional network whose embedding was left out would be read as one with a longer latent."""
    record = recorded.read("stylegan2_cond")
    made = record.facts["constructor_kwargs"]
    whole = {k: v for k, v in record.groups["state"].items() if "embed" not in k}
    Path("cut.pkl").write_bytes(nvlabs_files.pytorch(whole, made))
    with pytest.raises(GeneratorError, match=r"was made with (z_dim|c_dim) = \d+, and its tensors give"):
        models.load("cut.pkl")
