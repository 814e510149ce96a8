"""models.load from Python: what it takes, on which device and in which precision; what it refuses."""

from pathlib import Path

import pytest
import torch

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
