"""Network pickles as NVlabs' StyleGAN codes write them, from a state dict: with stand-ins of the same names.

The layouts are recorded facts; the stand-ins are importable only while a file is written.
"""

import contextlib
import io
import math
import pickle
import sys
import types

import numpy as np
import torch
from torch import nn

SOURCE = "raise SystemExit('the source code in a network pickle was run')\n" * 20
BUFFERS = {"noise_const", "resample_filter", "w_avg", "magnitude_ema", "up_filter", "down_filter"}
BUFFERS |= {"freqs", "phases", "transform"}


def _reconstruct_persistent_obj(meta):
    raise AssertionError(meta["class_name"])


class EasyDict(dict):
    pass


class Network:
    """Of TensorFlow: its state is all it has."""


class Module(nn.Module):
    """Of PyTorch, pickled as the persistence hook does it."""

    def __reduce__(self):
        meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": "Generator", "state": self.__dict__}
        return _reconstruct_persistent_obj, (meta,)


STAND_INS = {
    "torch_utils.persistence": (_reconstruct_persistent_obj,),
    "dnnlib.util": (EasyDict,),
    "dnnlib.tflib.network": (Network,),
}


@contextlib.contextmanager
def importable():
    """The stand-ins under their official names, for as long as something is pickled."""
    own, added = {}, []
    for name, things in STAND_INS.items():
        for thing in things:
            own[thing] = thing.__module__
            thing.__module__ = name
            parts = name.split(".")
            added += [".".join(parts[:i]) for i in range(1, len(parts) + 1)]
            for module in added:
                sys.modules.setdefault(module, types.ModuleType(module))
            setattr(sys.modules[name], thing.__name__, thing)
    try:
        yield
    finally:
        for name in set(added):
            del sys.modules[name]
        for thing, name in own.items():
            thing.__module__ = name


def dumped(tree, protocol):
    buffer = io.BytesIO()
    with importable():
        pickle.dump(tree, buffer, protocol)
    return buffer.getvalue()


def module(state, arguments, *, conv_clamp=None, kind=dict):
    """A tree of modules with these tensors; every module has attributes as the official ones have them.

    kind: of its mappings; before torch 2 they were OrderedDicts.
    """
    root = Module()
    for name, value in state.items():
        *path, leaf = name.split(".")
        at = root
        for part in path:
            if part not in at._modules:
                at.add_module(part, Module())
            at = at._modules[part]
        if leaf in BUFFERS:
            at.register_buffer(leaf, value)
        else:
            at.register_parameter(leaf, nn.Parameter(value, requires_grad=value.is_floating_point()))
    for name, child in root.named_modules():
        child._init_args, child._init_kwargs = (32, 32), EasyDict(activation="lrelu")
        child.weight_gain = np.float64(1 / math.sqrt(32))
        if "embed" not in child._modules:
            child.embed = None
        child.in_size, child.padding = np.array([36, 36]), [4, 3, 4, 3]
        if name.endswith(("conv0", "conv1", "torgb")):
            child.conv_clamp, child.use_noise, child.activation = conv_clamp, True, "lrelu"
        if "up_filter" not in child._buffers:
            child.register_buffer("up_filter", None)
        child.register_buffer("scratch", torch.zeros(3), persistent=False)
        for group in ("_parameters", "_buffers", "_modules"):
            child.__dict__[group] = kind(child.__dict__[group])
    root._init_args, root._init_kwargs = (), EasyDict(arguments)
    return root.eval().requires_grad_(False)


def nested(arguments):
    """Constructor arguments with the inner mappings as the training loop has them."""
    return {key: EasyDict(value) if isinstance(value, dict) else value for key, value in arguments.items()}


def pytorch(state, arguments, protocol=3, *, conv_clamp=None, kind=dict):
    """A snapshot as stylegan2-ada-pytorch's training loop writes it."""
    averaged = module(state, nested(arguments), conv_clamp=conv_clamp, kind=kind)
    other = module({name: value * 0 for name, value in state.items()}, nested(arguments), conv_clamp=conv_clamp)
    options = {"path": "data.zip", "use_labels": False, "max_size": None, "resolution": 32}
    tree = {"training_set_kwargs": options, "G": other, "D": None, "G_ema": averaged, "augment_pipe": None}
    return dumped(tree, protocol)


def _variables(state):
    """TensorFlow's names and layouts of NVlabs' tensors, by part of the network."""
    parts = {"": {}, "mapping": {}, "synthesis": {}}
    for name, value in state.items():
        if name.endswith("resample_filter"):
            continue
        part, _, rest = name.partition(".")
        array = value.numpy()
        if name == "mapping.w_avg":
            parts[""]["dlatent_avg"] = array
        elif part == "mapping":
            layer, leaf = rest.replace("fc", "Dense").replace("embed", "LabelEmbed").split(".")
            parts[part][f"{layer}/{leaf}"] = array.T if leaf == "weight" else array
        else:
            block, layer, leaf = f"{rest}.".split(".", 2)
            side, leaf = int(block[1:]), leaf.removesuffix(".")
            where = f"{side}x{side}/" + {
                "conv0": "Conv0_up",
                "conv1": "Conv" if side == 4 else "Conv1",
                "torgb": "ToRGB",
                "skip": "Skip",
                "const": "Const",
            }.get(layer, layer)
            if layer == "const":
                parts[part][f"{where}/const"] = array[None]
            elif leaf == "noise_const":
                number = 2 * int(math.log2(side)) - (5 if layer == "conv0" else 4)
                parts[part][f"noise{number}"] = array[None, None]
            elif leaf == "affine.weight":
                parts[part][f"{where}/mod_weight"] = array.T
            elif leaf == "affine.bias":
                parts[part][f"{where}/mod_bias"] = array - np.float32(1)
            elif leaf == "weight":
                kernel = array[:, :, ::-1, ::-1] if layer == "conv0" else array
                parts[part][f"{where}/weight"] = np.ascontiguousarray(kernel.transpose(2, 3, 1, 0))
            else:
                parts[part][f"{where}/{leaf}"] = array[()] if array.ndim == 0 else array
    return parts


def _network(variables, arguments, components):
    network = Network()
    network.__dict__ |= {
        "version": 5,
        "name": "Gs",
        "static_kwargs": arguments,
        "components": components,
        "build_module_src": SOURCE,
        "build_func_name": "G_main",
        "variables": list(variables.items()),
    }
    return network


def tensorflow(state, arguments, protocol=4, **more):
    """A pickle (G, D, Gs) of NVlabs' TensorFlow code; more: variables beside those of the state dict."""
    parts = _variables(state)
    components = {name: _network(parts[name], dict(arguments), {}) for name in ("synthesis", "mapping")}
    averaged = _network(parts[""] | more, arguments, components)
    return dumped((_network({}, {}, {}), _network({}, {}, {}), averaged), protocol)
