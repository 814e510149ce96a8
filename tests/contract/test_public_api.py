"""The public API: its names, their signatures, and that importing the package costs nothing."""

import inspect
import subprocess
import sys

import pytest

import magnet_cli

NAMES = [
    "fetch",
    "load",
    "Generator",
    "singular_values",
    "log_volume",
    "compute",
    "compute_steps",
    "Volume",
    "Index",
    "render",
    "sample",
    "sample_steps",
    "Sample",
    "evaluate",
    "MagnetError",
]
# First parameters and keywords that scripts may rely on; a name that goes breaks them.
SIGNATURES = {
    "fetch": ["name"],
    "load": ["source", "device", "dtype"],
    "singular_values": ["function", "z", "top_k", "solver"],
    "log_volume": ["singular_values", "top_k"],
    "compute": ["generator", "n", "path", "top_k", "solver", "seed"],
    "compute_steps": ["generator", "n", "path"],
    "sample_steps": ["generator", "n", "rho"],
    "render": ["generator", "latents", "labels", "batch_size"],
    "sample": ["generator", "n", "rho", "out", "volume", "top_k", "seed"],
    "evaluate": ["sample", "reference", "features"],
    "Index.of": ["volume", "top_k"],
    "Index.weights": ["self", "rho"],
    "Index.effective_size": ["self", "rho"],
    "Index.draw": ["self", "n", "rho", "seed"],
    "Sample.open": ["path"],
    "Volume.open": ["path"],
}


def public(name):
    value = magnet_cli
    for part in name.split("."):
        value = getattr(value, part)
    return value


def test_the_names_are_these():
    assert magnet_cli.__all__ == NAMES
    assert set(NAMES) <= set(dir(magnet_cli))
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        magnet_cli.colour  # noqa: B018


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_these(name):
    parameters = [*inspect.signature(public(name)).parameters]
    assert [p for p in parameters if p in SIGNATURES[name]] == SIGNATURES[name]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_a_docstring_with_an_example(name):
    text = inspect.getdoc(public(name))
    assert text
    if name != "MagnetError":
        assert ">>>" in text, f"{name} has no example"


@pytest.mark.parametrize(
    "name", ["fetch", "load", "singular_values", "log_volume", "compute", "render", "sample", "evaluate"]
)
def test_every_parameter_is_typed_and_described(name):
    function = public(name)
    text = inspect.getdoc(function)
    for parameter in inspect.signature(function).parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty
        assert parameter.name.lstrip("*") in text, f"{name}: {parameter.name} is not described"


def test_importing_the_package_imports_nothing_else():
    code = "import sys; before = set(sys.modules); import magnet_cli; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["magnet_cli"]


def test_nothing_is_printed(capfd):
    values = magnet_cli.singular_values(
        lambda z: z * z.new_tensor([1.0, 2.0]), magnet_cli.load("mnist").prior.draw(3, seed=0)[0][:, :2], 2
    )
    assert values.shape == (3, 2)
    assert capfd.readouterr() == ("", "")
