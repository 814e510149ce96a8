"""references: what is typed for a generator is a checkpoint, or code of the user's own that is called once."""

from pathlib import Path

import pytest
import typer

from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.cli import references
from magnet_cli.cli.options import GeneratorFlags, PriorName
from magnet_cli.errors import ArtifactError

CODE = """
import torch

class Line(torch.nn.Module):
    latent_dim = 2
    def forward(self, z):
        return torch.tanh(z @ torch.eye(2, 3, dtype=z.dtype))

def factory():
    with open("calls", "a") as file:
        file.write("x")
    return Line()
"""


def test_a_path_and_a_name_are_checkpoints(toy):
    assert references.source(GeneratorFlags(generator=str(toy))) == Checkpoint.find(str(toy))
    assert references.source(GeneratorFlags()).name == "mnist"
    with pytest.raises(ArtifactError, match="not in the cache"):
        references.source(GeneratorFlags(generator="dcgan-digiface"))
    assert references.source(GeneratorFlags(generator="dcgan-digiface"), here=False).name == "dcgan-digiface"


def test_a_factory_is_called_once_and_its_flags_are_shown_in_commands():
    Path("line.py").write_text(CODE)
    flags = GeneratorFlags(generator="line.py:factory", prior=PriorName.uniform, image_range=(0.0, 1.0))
    source = references.source(flags)
    assert Path("calls").read_text() == "x"
    assert (source.prior, source.image_range) == ("uniform", (0.0, 1.0))
    assert source.reference == "line.py:factory --prior uniform --image-range 0.0,1.0"


@pytest.mark.parametrize("verb", ["compute", "index", "sample"])
def test_a_command_calls_a_factory_once(magnet, verb):
    Path("line.py").write_text(CODE)
    magnet("compute", "line.py:factory", "--n", 12, "--solver", "exact")
    Path("calls").unlink()
    more = ("--rho", 0.1) if verb == "sample" else ()
    assert magnet(verb, "line.py:factory", *(() if verb == "index" else ("--n", 5)), *more).code == 0
    assert Path("calls").read_text() == "x"


def test_flags_of_ones_own_code_are_refused_for_others(toy):
    with pytest.raises(typer.BadParameter, match="tells it itself") as error:
        references.source(GeneratorFlags(generator=str(toy), latent_dim=3))
    assert error.value.param_hint == "--latent-dim"
