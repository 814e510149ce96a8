"""Settings of every family: of the right type they give a network, of another an error; never anything else."""

import contextlib
import json

import pytest
import recorded
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from toys import nvae_weights, slogan_weights, stylegan2_weights, stylegan3_weights, toy_weights

from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.errors import MagnetError
from magnet_cli.models import FAMILIES, families, loading

ODD = [None, True, False, 0, 1, -1, 2, 1 << 40, 10**400, 0.5, -0.5, 1e308, -1e308, 5e-324, float("nan"), float("inf")]
ODD += [
    "",
    "x",
    "const",
    "top",
    "tanh",
    "0",
    [],
    [1],
    [True] * 3,
    ["a"],
    [[0]],
    [None],
    [1e9, -1],
    {},
    {"a": 1},
    [-1, 99],
]
PAIRS = [(family, setting) for family in FAMILIES for setting in families.defaults(family)]


def states():
    made = {"dcgan": toy_weights(), "nvae": nvae_weights(), "progan": recorded.read("progan").groups["state"]}
    made |= {"biggan-deep": recorded.read("biggan_deep").groups["state"], "slogan": slogan_weights()}
    return made | {"stylegan2": stylegan2_weights(), "stylegan3": stylegan3_weights()}


@pytest.fixture(scope="module")
def weights():
    return {family: {k: v.contiguous() for k, v in state.items()} for family, state in states().items()}


def attempt(tmp_path, state, told):
    """Load a file with these settings; whether it came to a network."""
    path = tmp_path / "some.safetensors"
    path.write_bytes(save(state, {"magnet": json.dumps(told)}))
    with contextlib.suppress(MagnetError):
        network = loading.build(loading.read(Checkpoint.find(str(path))))
        assert isinstance(network, torch.nn.Module)
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize(("family", "setting"), PAIRS)
def test_every_setting_of_every_type_is_refused_or_taken(family, setting, weights, tmp_path):
    taken = [value for value in ODD if attempt(tmp_path, weights[family], {setting: value})]
    assert len(taken) < len(ODD)
    if families.defaults(family)[setting] is not None:
        assert None not in taken or setting == "conv_clamp"
    assert not [value for value in taken if isinstance(value, dict)]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_settings_are_refused_or_taken(data, weights, tmp_path_factory):
    family = data.draw(st.sampled_from([name for name in FAMILIES if name != "biggan-deep"]))
    names = st.sampled_from([*families.defaults(family), "other"])
    attempt(tmp_path_factory.mktemp("fuzz"), weights[family], data.draw(st.dictionaries(names, VALUES, max_size=3)))


@pytest.mark.parametrize("text", ["", "[]", "1", '"a"', "{", "null", "[" * 9000, '{"a": 1, "a": 2}', '{"": {}}'])
def test_metadata_of_any_kind_is_refused(text, tmp_path):
    path = tmp_path / "some.safetensors"
    path.write_bytes(save(toy_weights(), {"magnet": text}))
    with pytest.raises(MagnetError):
        loading.build(loading.read(Checkpoint.find(str(path))))


def test_an_error_of_a_setting_says_what_is_asked_for(tmp_path):
    path = tmp_path / "some.safetensors"
    path.write_bytes(save(stylegan2_weights(), {"magnet": json.dumps({"conv_clamp": "x"})}))
    with pytest.raises(MagnetError, match="some is given conv_clamp = x, and a number or null is asked for"):
        loading.build(loading.read(Checkpoint.find(str(path))))
