"""Checkpoint formats: what their codes write comes back, and nothing in a file is ever run."""

import argparse
import collections
import contextlib
import io
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import hostile
import numpy as np
import nvlabs_files
import pytest
import recorded
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as save_safetensors
from torch_files import saved
from toys import stylegan2_weights

from magnet_cli import models
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.errors import GeneratorError
from magnet_cli.files import checkpoints
from magnet_cli.files.checkpoints import pickles

TENSORFLOW = {"num_channels": 3, "resolution": 32, "label_size": 0, "latent_size": 32, "dlatent_size": 32}
TENSORFLOW |= {"fmap_base": 256, "fmap_max": 32, "mapping_layers": 8}  # config-f; e differs by fmap_base alone


def loaded(data, tmp_path, name="network.pkl", **asked):
    (tmp_path / name).write_bytes(data)
    return models.load(Checkpoint.find(str(tmp_path / name)), dtype=torch.float64, **asked)


def same(found, state):
    assert list(found) == list(state)
    assert all(torch.equal(found[name], state[name]) and found[name].dtype == state[name].dtype for name in state)


def in_order(state):
    """A state dict in torch's order: of each module its parameters, its buffers, then those of the modules in it."""
    return {name: state[name] for name in nvlabs_files.module(state, {}).state_dict() if name in state}


# --- NVlabs' pickles of PyTorch -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", ["stylegan2", "stylegan2_cond", "stylegan2_resnet_clamp2"])
def test_snapshots_come_back(name, protocol, tmp_path):
    record = recorded.read(name)
    state, made = record.groups["state"], record.facts["constructor_kwargs"]
    clamp = made["synthesis_kwargs"].get("conv_clamp")
    data = nvlabs_files.pytorch(state, made, protocol, conv_clamp=clamp)
    found = checkpoints.read(data, "snapshot")
    same(found.state, in_order(state))
    assert (found.format, found.arguments) == ("nvlabs-pytorch", made)
    assert found.attributes["synthesis.b4.conv1"]["conv_clamp"] == clamp
    plain = {"training": False, "weight_gain": 1 / np.sqrt(32), "in_size": [36, 36], "padding": [4, 3, 4, 3]}
    assert found.attributes["mapping"].items() >= plain.items()
    generator = loaded(data, tmp_path)
    assert generator.settings == {"conv_clamp": clamp}
    z, labels = (record.groups["in"].get(key) for key in "zc")
    known = record.groups["out64"]["image_psi1_noise_const"]
    images = generator(z.double(), labels=None if labels is None else labels.double())
    assert (images - known).abs().max() <= 1e-9 * known.abs().max()


def test_the_clamp_is_what_ran(tmp_path):
    """The layers have it; the constructor's arguments need not, where its default was taken."""
    record = recorded.read("stylegan2_clamp256")
    made = record.facts["constructor_kwargs"]
    flat = {
        key: value for key, value in made.items() if key != "synthesis_kwargs"
    }  # as stylegan3's repository has them
    flat |= {"channel_base": 256, "channel_max": 16, "fused_modconv_default": "inference_only"}
    generator = loaded(nvlabs_files.pytorch(record.groups["state"], flat, 4, conv_clamp=256), tmp_path)
    known = record.groups["out64"]["image_psi1_noise_const"]
    assert generator.settings == {"conv_clamp": 256}
    assert (generator(record.groups["in"]["z"].double()) - known).abs().max() <= 1e-9 * known.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stylegan3_t", "stylegan3_r", "stylegan3_t_cond64"])
def test_snapshots_of_stylegan3_give_the_recorded_images(name, tmp_path):
    record = recorded.read(name)
    state, made = record.groups["state"], record.facts["constructor_kwargs"]
    generator = loaded(nvlabs_files.pytorch(state, made | {"magnitude_ema_beta": 0.9988}), tmp_path)
    assert (generator.family, generator.format, generator.settings) == ("stylegan3", "nvlabs-pytorch", {})
    z, labels = (record.groups["in"].get(key) for key in "zc")
    key = next(key for key in record.groups["out64"] if key.startswith("image_psi1"))
    known = record.groups["out64"][key]
    rows = len(known)
    images = generator(z[:rows].double(), labels=None if labels is None else labels[:rows].double())
    assert (images - known).abs().max() <= 1e-9 * known.abs().max()
    told = {"conv_clamp": None, "output_scale": 0.5, "mapping_kwargs": {"num_layers": 2, "lr_multiplier": 0.02}}
    other = loaded(nvlabs_files.pytorch(state, made | told), tmp_path)
    assert other.settings == {"conv_clamp": None, "output_scale": 0.5, "lr_multiplier": 0.02}
    assert not torch.allclose(other(z[:1].double(), labels=None if labels is None else labels[:1].double()), images[:1])
    for wrong, said in (({"colour": 3}, "made with 'colour'"), ({"output_scale": -1.0}, "output_scale -1.0")):
        with pytest.raises(GeneratorError, match=said):
            loaded(nvlabs_files.pytorch(state, made | wrong), tmp_path)


def test_half_precision_and_strides_come_back():
    state = in_order(recorded.read("stylegan2").groups["state"])
    half = {
        name: value.half().to(memory_format=torch.channels_last) if value.ndim == 4 else value
        for name, value in state.items()
    }
    assert not half["synthesis.b8.conv0.weight"].is_contiguous()
    same(checkpoints.read(nvlabs_files.pytorch(half, {}, 4), "half").state, half)


def test_what_older_torch_and_numpy_wrote_comes_back():
    state = in_order(stylegan2_weights())
    data = nvlabs_files.pytorch(state, {}, 3, kind=collections.OrderedDict)
    older = data.replace(b"cnumpy._core.", b"cnumpy.core.")
    assert older != data
    same(checkpoints.read(older, "older").state, state)


@pytest.mark.parametrize(
    ("made", "clamp", "said"),
    [
        ({"colour": 3}, None, "made with 'colour'"),
        ({"synthesis_kwargs": {"magnitude": 3}}, None, "made with 'magnitude'"),
        ({"mapping_kwargs": {"activation": "swish"}}, None, "activation = 'swish'"),
        ({"synthesis_kwargs": None}, None, "made with 'synthesis_kwargs'"),
        ({"mapping_kwargs": {"lr_multiplier": float("nan")}}, None, "lr_multiplier = nan"),
        ({}, -1.0, "conv_clamp -1.0"),
    ],
)
def test_keywords_that_could_change_images_are_never_skipped(made, clamp, said, tmp_path):
    with pytest.raises(GeneratorError, match=said):
        loaded(nvlabs_files.pytorch(stylegan2_weights(), made, conv_clamp=clamp), tmp_path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"G_ema": None}, "no G_ema"),
        ({"G_ema": {"a": 1}}, "a module that is none"),
        ({"G": nvlabs_files.EasyDict(a=b"")}, None),
    ],
)
def test_only_the_average_is_looked_at(changed, said):
    tree = {"G": None, "G_ema": nvlabs_files.module({"w_avg": torch.ones(2)}, {})} | changed
    data = nvlabs_files.dumped(tree, 4)
    if said is None:
        same(checkpoints.read(data, "some").state, {"w_avg": torch.ones(2)})
    else:
        with pytest.raises(GeneratorError, match=said):
            checkpoints.read(data, "some")


@pytest.mark.slow
def test_compute_works_on_a_snapshot_in_a_fresh_process(tmp_path, magnet):
    state = stylegan2_weights()
    (tmp_path / "snapshot.pkl").write_bytes(nvlabs_files.pytorch(state, {"z_dim": 8}))
    command = [sys.executable, "-m", "magnet_cli", "compute", str(tmp_path / "snapshot.pkl"), "--n", "8"]
    flags = ["--memory", "16MB", "--solver", "exact", "--json"]
    done = subprocess.run(command + flags, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 8
    shown = magnet("info", tmp_path / "snapshot.pkl", "--json").json
    assert (shown["format"], shown["family"]) == ("nvlabs-pytorch", "stylegan2")
    assert shown["settings"] == {"conv_clamp": None}
    clean = magnet("convert", tmp_path / "snapshot.pkl", "clean.safetensors", "--json").json
    assert clean == {"out": "clean.safetensors", "family": "stylegan2", "tensors": len(state), "size": clean["size"]}
    z = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    one, two = (models.load(Checkpoint.find(str(path))) for path in (tmp_path / "snapshot.pkl", "clean.safetensors"))
    assert torch.equal(one(z), two(z))


# --- NVlabs' pickles of TensorFlow ----------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("name", ["stylegan2", "stylegan2_resnet", "stylegan2_cond"])
def test_pickles_of_tensorflow_give_the_recorded_images(name, protocol, tmp_path):
    record = recorded.read(name)
    facts = record.facts["constructor_kwargs"]
    made = TENSORFLOW | {"label_size": facts["c_dim"], "latent_size": facts["z_dim"], "dlatent_size": facts["w_dim"]}
    data = nvlabs_files.tensorflow(record.groups["state"], made, protocol)
    assert checkpoints.read(data, "gs").format == "nvlabs-tensorflow"
    generator = loaded(data, tmp_path)
    z, labels = (record.groups["in"].get(key) for key in "zc")
    known = record.groups["out64"]["image_psi1_noise_const"]
    images = generator(z.double(), labels=None if labels is None else labels.double())
    # mod_bias is stored less one, in float32
    assert (images - known).abs().max() <= 2e-6 * known.abs().max()


def test_settings_of_tensorflow(tmp_path):
    state = stylegan2_weights()
    data = nvlabs_files.tensorflow(state, {"conv_clamp": 256, "mapping_lrmul": 0.02, "fmap_base": 8 << 10})
    assert loaded(data, tmp_path).settings == {"conv_clamp": 256, "lr_multiplier": 0.02}
    for arguments, more, said in (
        ({"colour": 1}, {}, "made with 'colour'"),
        ({"resample_kernel": [1, 2, 1]}, {}, "resample_kernel"),
        ({}, {"lod": np.float32(0.5)}, "have no place in one: lod"),
        ({}, {"synthesis/4x4/Conv1/weight": np.zeros((3, 3, 8, 8), np.float32)}, "4x4/Conv"),
    ):
        with pytest.raises(GeneratorError, match=said):
            loaded(nvlabs_files.tensorflow(state, arguments, **more), tmp_path)


def test_forks_of_tensorflow_have_further_variables_and_keywords(tmp_path):
    state = stylegan2_weights()
    plain = loaded(nvlabs_files.tensorflow(state, {"resolution": 16}), tmp_path)
    z = torch.ones(1, 8, dtype=torch.float64)
    for arguments, more in (
        ({"resolution": 16, "resolution_w": 16, "resolution_h": 16, "impl": "cuda"}, {}),
        ({}, {"epochs": np.float32(3), "lod": np.float32(0)}),
    ):
        assert torch.equal(loaded(nvlabs_files.tensorflow(state, arguments, **more), tmp_path)(z), plain(z))
    with pytest.raises(GeneratorError, match="makes images of 32×16"):
        loaded(nvlabs_files.tensorflow(state, {"resolution": 16, "resolution_w": 32, "resolution_h": 16}), tmp_path)
    with pytest.raises(GeneratorError, match="was made with resolution = 32, and its tensors give 16"):
        loaded(nvlabs_files.tensorflow(state, {"resolution": 32}), tmp_path)


# --- files of torch -------------------------------------------------------------------------------------------------


DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")


@pytest.mark.slow
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_files_of_torch_come_back(zipped, protocol):
    numbers = torch.rand(3, 4, generator=torch.Generator().manual_seed(0)) * 9
    state = {name: numbers.to(getattr(torch, name)).t() for name in DTYPES}
    state |= {
        "part": state["float32"][1:, 1:],
        "scalar": torch.tensor(3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    beside = {"optimizer": torch.optim.Adam([torch.nn.Parameter(torch.ones(1))]).state_dict(), "epoch": 3}
    beside |= {"args": argparse.Namespace(groups=10, rate=0.1, name="x", none=None, nested=[1]), "arch": {"a": [1]}}
    beside |= {"size": torch.Size([3]), "dtype": torch.float16}
    flags = {"_use_new_zipfile_serialization": zipped, "pickle_protocol": protocol}
    for content in (state, {"state_dict": state} | beside, {"g_ema": state, "g": {"x": torch.ones(1)}} | beside):
        found = checkpoints.read(saved(content, **flags), "weights")
        same(found.state, state)
        assert found.format == "torch"
        assert found.arguments == ({} if content is state else {"groups": 10, "rate": 0.1, "name": "x", "none": None})


def test_state_dicts_of_modules_come_back():
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    module[0].weight = torch.nn.Parameter(module[0].weight[:2])  # a part of its storage
    same(
        checkpoints.read(saved(module.state_dict()), "module").state,
        {k: v.detach() for k, v in module.state_dict().items()},
    )


def test_a_safetensors_file_that_begins_like_a_pickle_is_one():
    for padding in range(400, 800):
        data = save_safetensors({"a": torch.ones(1)}, {"x": "y" * padding})
        if data.startswith(b"\x80\x02"):
            same(checkpoints.read(data, "some").state, {"a": torch.ones(1)})
            return
    pytest.fail("no header of that length was made")


# --- hostile files --------------------------------------------------------------------------------------------------


def in_its_own_process(folder, *arguments):
    """What tests/hostile.py prints, run where a payload would leave a file."""
    folder.mkdir()
    source = Path(hostile.__file__)
    paths = os.pathsep.join((str(source.parent), str(Path(models.__file__).parents[2])))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(source), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    assert not list(folder.iterdir())
    return json.loads(done.stdout)


@pytest.mark.slow
def test_hostile_files_are_refused_and_nothing_runs(tmp_path):
    found = in_its_own_process(tmp_path / "empty")
    assert found.pop("unpickled").startswith("!ended with")
    assert len(found) >= 25
    for name, (_, said) in hostile.CASES.items():
        assert found[name].startswith("hostile "), (name, found[name])
        assert re.search(said, found[name]), (name, found[name])


@pytest.mark.slow
def test_every_guard_of_the_readers_is_needed(tmp_path):
    found = in_its_own_process(tmp_path / "empty", "mutations")
    assert len(found) >= 60
    assert not [guard for guard, noticed in found.items() if not noticed]


def test_the_traps_are_real():
    for name in ("os.system by GLOBAL", "os.system by STACK_GLOBAL, deep inside", "eval", "exec"):
        pickle.loads(hostile.CASES[name][0])
        Path("canary").unlink()
    torch.load(io.BytesIO(hostile.PICKLED), weights_only=False)
    Path("canary").unlink()
    torch.storage._load_from_bytes(hostile.stored((), identity=hostile.RUNS[:-1], keys=[]))  # a storage that is code
    Path("canary").unlink()


# --- what is no file of weights -------------------------------------------------------------------------------------


def tiny():
    state = {"mapping.fc0.weight": torch.arange(6.0).reshape(2, 3), "w_avg": torch.ones(2, dtype=torch.float16)}
    tree = {"G": None, "G_ema": nvlabs_files.module(state, {"z_dim": 3})}
    return state, nvlabs_files.dumped(tree, 4), saved(state), saved(state, _use_new_zipfile_serialization=False)


FILES = tiny()


@pytest.mark.slow
@settings(deadline=None, max_examples=250)
@given(st.integers(1, 3), st.data())
def test_changed_bytes_give_an_expected_error_or_tensors_of_that_size(which, data):
    changed = bytearray(FILES[which])
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(changed) - 1))
        changed[position] = data.draw(
            st.sampled_from([0, 0x28, 0x2E, 0x52, 0x62, 0x71, 0x81, 0x93, 0xFF]) | st.integers(0, 255)
        )
    check_whatever(bytes(changed))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3), st.floats(0, 1))
def test_truncated_files_are_refused(which, share):
    cut = FILES[which][: int(share * (len(FILES[which]) - 1))]
    with pytest.raises(GeneratorError):
        checkpoints.read(cut, "cut")


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60), st.sampled_from([b"\x80\x02", b"\x80\x04", b"PK\x03\x04", b""]))
@example(b"N.", b"\x80\x02")
def test_arbitrary_bytes_are_refused(data, start):
    with pytest.raises(GeneratorError):
        checkpoints.read(start + data, "arbitrary")


def check_whatever(data):
    with contextlib.suppress(GeneratorError):
        found = checkpoints.read(data, "changed")
        assert all(type(value) is torch.Tensor for value in found.state.values())
        assert sum(value.numel() * value.element_size() for value in found.state.values()) <= 4 * len(data)


@pytest.mark.slow
def test_every_fifth_byte_changed():
    for data in FILES[1:]:
        for position in range(len(data) % 5, len(data), 5):
            changed = bytearray(data)
            changed[position] ^= 0xFF
            check_whatever(bytes(changed))


def test_a_damaged_string_of_a_pickle_is_refused_without_a_warning():
    """Python's own reader warns of escapes that it does not know."""
    damaged = b"S'\\o'\n."
    with pytest.raises(pickle.UnpicklingError, match="opcode STRING"):
        pickles.parse(io.BytesIO(damaged), {}, pickles.Budget(len(damaged)))
