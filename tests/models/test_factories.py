"""Factories as people write them: called with arguments, and told whose error it is where they fail."""

import sys
from pathlib import Path

import pytest
import torch

from magnet_cli import models
from magnet_cli.catalog import references
from magnet_cli.errors import ArtifactError, MagnetError
from magnet_cli.models import factories

OWN = """
import io
import sys

import torch
from torch import nn


class G(nn.Module):
    latent_dim = 6

    def __init__(self, nz=6, ngf=32, name=""):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.name = nn.Linear(nz, ngf), nn.Linear(ngf, 192), name

    def forward(self, z):
        return torch.tanh(self.b(torch.tanh(self.a(z)))).view(-1, 3, 8, 8)


class NeedsArguments(G):
    def __init__(self, ngpu):
        super().__init__()


def no_such_weights():
    return torch.load("netG_epoch_24.pth")


def no_such_attribute():
    return G().generator_ema


def key_error():
    return {"g_ema": {}}["g"]


def mismatch():
    g = G()
    g.load_state_dict(G(ngf=16).state_dict())


def weights_only():
    buffer = io.BytesIO()
    torch.save(G(), buffer)
    buffer.seek(0)
    return torch.load(buffer)


def meta():
    with torch.device("meta"):
        return G()


def lazy():
    g = G()
    g.b = nn.LazyLinear(192)
    return g


class Extra(G):
    def get_extra_state(self):
        return {"step": 3, "sums": torch.ones(2)}

    def set_extra_state(self, state):
        pass


def quantized():
    return torch.ao.quantization.quantize_dynamic(G(), {nn.Linear})


class Batch(G):
    def __init__(self):
        super().__init__()
        self.n = nn.BatchNorm1d(32, track_running_stats=False)


class Training(G):
    def __init__(self):
        super().__init__()
        self.n = nn.BatchNorm1d(32)

    def train(self, mode=True):
        return super().train(True)


class Convolution(G):
    def __init__(self):
        super().__init__()
        self.a = nn.ConvTranspose2d(6, 3, 8)

    def forward(self, z):
        return torch.tanh(self.a(z))


def states():
    return G().state_dict()


def ends():
    sys.exit("no weights")


def prints():
    print("loading")
    return G()


def scripted():
    made = torch.jit.trace(G(), torch.randn(2, 6))
    made.latent_dim = 6
    return made


def parallel():
    return nn.DataParallel(G())


number = 3
made = G()
"""
PARSES = """
import argparse

import own

parser = argparse.ArgumentParser()
parser.add_argument("--n_epochs", type=int, default=25)
parser.add_argument("--dataset", required={required})
opt = parser.parse_args()


def factory():
    return own.G()
"""


pytestmark = pytest.mark.filterwarnings("ignore")  # torch's, about what it will leave out


@pytest.fixture(autouse=True)
def code():
    Path("own.py").write_text(OWN)


FAILS = {
    "NeedsArguments": "takes (ngpu): missing a required argument: 'ngpu' do: pass its arguments: 'own.py:NeedsArgum",
    "G(nz=6, depth=3)": "takes (nz=6, ngf=32, name=''): got an unexpected keyword argument 'depth'",
    "G(__import__('os'))": "are not literals of Python",
    "G(**{})": "are not literals of Python",
    "G(1)(2)": "are not literals of Python",
    "no_such_weights": "FileNotFoundError: [Errno 2] No such file or directory: 'netG_epoch_24.pth' (own.py, line 27)",
    "no_such_attribute": "AttributeError: 'G' object has no attribute 'generator_ema' (own.py, line 31)",
    "key_error": "fails: KeyError: 'g' (own.py, line 35)",
    "mismatch": "RuntimeError: Error(s) in loading state_dict for G: size mismatch for a.weight",
    "weights_only": "do: load a state dict there; or pass weights_only=False to torch.load, if you trust the file",
    "meta": "has weights on the device meta, which hold no numbers: a.weight",
    "lazy": "has lazy weights, whose shapes are not known yet: b.weight",
    "quantized": "is quantized, and rounded weights give no derivatives: a do: return the module as it was",
    "Batch": "its layer n (BatchNorm1d) has no running statistics",
    "Training": "its layer n (BatchNorm1d) stays in training mode after eval()",
    "Convolution": "(own.py, line 94) do: it takes latents [B, 6, 1, 1]: begin its forward with z = z[:, :, None,",
    "states": "returns a OrderedDict, and a torch.nn.Module is asked for",
    "ends": "fails: it ends the program (no weights) (own.py, line 102)",
    "number": "own.py has no function there: 3; it has G, NeedsArguments",
    "lasy": "own.py has no function 'lasy'; it has G, NeedsArguments",
}


@pytest.mark.parametrize("name", FAILS)
def test_whose_error_it_is(magnet, home, name):
    done = magnet("info", f"own.py:{name}")
    assert (done.code, done.out) == (1, "")
    assert FAILS[name] in " ".join(done.err.split())
    assert not home.exists()


def test_arguments_are_literals_of_python(magnet):
    told = magnet("info", "own.py:G(6, ngf=8, name='a:b(c')", "--json").json
    assert told["parameters"] == 6 * 8 + 8 + 8 * 192 + 192
    assert (told["generator"], told["path"]) == ("own-G-6-ngf-8-name-a-b-c", "own.py:G(6, ngf=8, name='a:b(c')")
    assert references.factory("a.b:c([1, None], d={'e': (2.5, True)})").args == ([1, None],)
    assert not references.is_factory("own.py:G(")


@pytest.mark.slow
def test_a_command_to_copy_has_the_arguments(magnet):
    done = magnet("compute", "own.py:G(ngf=8)", "--n", 2, "--solver", "exact")
    assert done.code == 0, done.err
    assert "next: magnet index 'own.py:G(ngf=8)' --volume " in done.err
    done = magnet("sample", "own.py:G")
    assert (done.code, "there is no volume of own-G" in done.err) == (1, True)
    assert magnet("sample", "own.py:G(ngf=8)", "--n", 1, "--rho", 0).code == 0


def test_a_file_without_a_function_lists_them(magnet):
    for line in (("compute", "own.py"), ("info", "own.py"), ("attributes", "mnist", "--model", "own.py")):
        done = magnet(*line)
        assert (done.code, done.out) == (1, "")
        assert "do: pass own.py:NAME; it has G, NeedsArguments, no_such_weights" in done.err
    with pytest.raises(ArtifactError, match="the name of a function in it is missing"):
        references.is_factory("own.py")
    Path("lambdas.py").write_text("import own\nmake = lambda: own.G()\nsize = 3\n")
    assert references.names_in("lambdas.py") == "it has make"


def test_code_that_parses_the_command_line(magnet):
    """Is run as a script without arguments: defaults pass, and what is required is asked for by its own parser."""
    Path("parses.py").write_text(PARSES.format(required=False))
    assert magnet("info", "parses.py:factory", "--json").json["latent_dim"] == 6
    Path("parses.py").write_text(PARSES.format(required=True))
    done = magnet("info", "parses.py:factory")
    assert done.code == 1
    assert "parses.py: error: the following arguments are required: --dataset" in done.err
    assert "parses.py fails when it is imported: it ends the program (2) (parses.py, line 9)" in done.err
    assert 'Put that below: if __name__ == "__main__":' in done.err


def test_what_a_factory_prints_is_no_result(magnet):
    done = magnet("info", "own.py:prints", "--json")
    assert done.json["latent_dim"] == 6
    assert done.err.startswith("loading\n")


def test_what_is_beside_the_weights_is_no_part_of_them():
    plain, extra = (factories.call_factory(f"own.py:{name}") for name in ("G", "Extra"))
    assert factories.state_sha256(plain) != factories.state_sha256(extra)  # its sums are a tensor
    extra.get_extra_state = lambda: {"step": 4}
    assert factories.state_sha256(plain) == factories.state_sha256(extra)


@pytest.mark.parametrize("name", ["scripted", "parallel", "made", "Extra"])
def test_modules_of_other_kinds(name):
    loaded = models.load(f"own.py:{name}", dtype=torch.float64)
    z = torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    known = models.load("own.py:G", dtype=torch.float64)
    _, slope = torch.func.jvp(loaded, (z,), (z,))
    torch.testing.assert_close((loaded(z), slope), torch.func.jvp(known, (z,), (z,)))


def test_every_way_to_write_a_reference_is_answered():
    for reference in ("", ":", "a:", ":b", "own.py:G)", "own.py:G()()", "own.py:G(" + "[" * 4000 + ")", "own.py:9"):
        with pytest.raises(MagnetError):
            factories.call_factory(reference)


@pytest.mark.slow
def test_balance_asks_for_the_generator_first(magnet, monkeypatch):
    """With the line to paste, which works; scores of a module of one's own name it and never run it."""
    code = "\nclass Bare(nn.Module):\n    def forward(self, z):\n"
    code += "        return torch.sin(z @ torch.ones(6, 192).to(z)).view(-1, 3, 8, 8)\n"
    code += "\nclass Score(nn.Module):\n    classes = ('dark', 'light')\n    def forward(self, x):\n"
    code += "        return torch.stack([-x.mean((1, 2, 3)), x.mean((1, 2, 3))], 1) * 9\n"
    Path("own.py").write_text(OWN + code)
    flags = ("--latent-dim", "6", "--prior", "uniform")
    score = ("attributes", "own.py:Bare", *flags, "--model", "own.py:Score", "--n", "64", "--out", "scored")
    monkeypatch.setattr(sys, "argv", ["magnet", *score])
    done = magnet(*score)
    assert done.code == 0, done.err
    line = ("balance", "scored", "--n", 8, "--out", "even")
    done = magnet(*line)
    assert (done.code, done.out) == (1, "")
    paste = "--generator own.py:Bare --latent-dim 6 --prior uniform"
    assert f"repeat the command with {paste}" in done.err
    assert "balanced up to" not in done.err
    done = magnet(*line, *paste.split())
    assert done.code == 0, done.err
    assert len(list(Path("even/images").iterdir())) == 8
