"""Read network pickles of NVlabs' StyleGAN codes: of PyTorch (StyleGAN2-ADA, StyleGAN3) and TensorFlow (StyleGAN2).

Source code in these files is never looked at.
"""

import io
import re
from dataclasses import dataclass, field
from typing import cast

from torch import Tensor

from magnet_cli.files.checkpoints import tensors
from magnet_cli.files.checkpoints.pickles import MAX_DEPTH, Budget, Node, Object, need, parse
from magnet_cli.files.checkpoints.tensors import Tensors, mapping, plain

_MODULE, _NETWORK = "torch_utils.persistence _reconstruct_persistent_obj", "dnnlib.tflib.network Network"
_META = {"type", "version", "module_src", "class_name", "state"}
_NO_PARTS: dict[str, bytes] = {}  # all storages are inside the pickle
_VERSION = 6  # of the layout of modules
_TENSORFLOW_VERSION = 4  # and later
_NETWORKS = 3  # of TensorFlow: generator, discriminator, averaged generator
_NAME = re.compile(r"[A-Za-z0-9_/]+", re.ASCII)
_ALLOWED = {
    **tensors.TENSORS,
    **tensors.BLOBS,
    **tensors.ARRAYS,
    _MODULE: {"REDUCE"},
    _NETWORK: {"NEWOBJ", "BUILD"},
    "dnnlib.util EasyDict": {"NEWOBJ", "SETITEMS"},
    "builtins set": {"REDUCE"},
    "__builtin__ set": {"REDUCE"},
}


@dataclass(frozen=True)
class Network:
    """The averaged generator of a network pickle, by its code's name; the fields are those of `contents.Contents`."""

    format: str
    name: str
    state: dict[str, Tensor] = field(default_factory=dict)
    arguments: dict = field(default_factory=dict)
    attributes: dict[str, dict] = field(default_factory=dict)


def read(data: bytes) -> Network:
    """Return what is under "G_ema" in a pickle of the PyTorch codes, or the third of three networks in TensorFlow's."""
    budget = Budget(len(data))
    file = io.BytesIO(data)
    tree = parse(file, _ALLOWED, budget)
    need(not file.read(1), "more bytes follow the pickle")
    if isinstance(tree, tuple) and len(tree) == _NETWORKS:
        network = Network("nvlabs-tensorflow", "Gs")
        _collect_variables(tree[2], "", network, budget)
        network.arguments.update(_mapping(plain(_mapping(tree[2].state).get("static_kwargs"), budget)))
        return network
    networks = _mapping(tree)
    need(networks.get("G_ema") is not None, "it has no G_ema, as the training of StyleGAN2-ADA and StyleGAN3 writes")
    network = Network("nvlabs-pytorch", "G_ema")
    _collect_module(networks["G_ema"], "", network, Tensors(budget, _NO_PARTS.__getitem__))
    state = _mapping(networks["G_ema"].arguments[0]["state"])
    need(not state.get("_init_args"), "its generator was made with arguments that have no names")
    network.arguments.update(_mapping(plain(state.get("_init_kwargs"), budget)))
    return network


def _collect_module(node: Node, name: str, network: Network, maker: Tensors) -> None:
    """Add the tensors and attributes of a module and its submodules, in torch's order, to `network`."""
    maker.budget.step()
    need(name.count(".") < MAX_DEPTH, "it has modules nested without end")
    need(isinstance(node, Object) and node.origin == _MODULE, "it has a module that is none")
    (meta,) = node.arguments
    need(isinstance(meta, dict) and meta.keys() == _META, "it has a module in an unknown layout")
    need(meta["type"] == "class" and meta["version"] == _VERSION, "it has a module in an unknown layout")
    state = _mapping(meta["state"])
    unsaved = _names(state.get("_non_persistent_buffers_set"))
    buffers = [(key, value) for key, value in _named(state.get("_buffers")) if key not in unsaved]
    for key, value in _named(state.get("_parameters")) + buffers:
        if value is not None:  # an optional layer that is absent
            network.state[name + key] = maker.tensor(value)
    own = {key: value for key, value in state.items() if not str(key).startswith("_")}
    network.attributes[name.removesuffix(".")] = _mapping(plain(own, maker.budget))
    for key, value in _named(state.get("_modules")):
        if value is not None:
            _collect_module(value, f"{name}{key}.", network, maker)


def _collect_variables(node: Node, name: str, network: Network, budget: Budget) -> None:
    """Add the variables of a network and the networks inside to `network`."""
    budget.step()
    need(name.count("/") < MAX_DEPTH, "it has networks nested without end")
    need(isinstance(node, Object) and node.origin == _NETWORK, "it has a network that is none")
    state = _mapping(node.state)
    version = state.get("version")
    need(isinstance(version, int) and version >= _TENSORFLOW_VERSION, "it has a network in a layout too old")
    variables = state.get("variables")
    named = isinstance(variables, list) and all(isinstance(p, tuple) and isinstance(p[0], str) for p in variables)
    need(named, "it has a network without variables")
    for key, value in _named(dict(cast(list, variables))):
        network.state[name + key] = tensors.array(value, budget).contiguous()
    for key, value in _named(state.get("components")):
        _collect_variables(value, f"{name}{key}/", network, budget)


def _mapping(node: Node) -> dict:
    items = mapping(node)
    need(items is not None, "it has something else where a mapping should be")
    return cast(dict, items)


def _names(node: Node) -> set[str]:
    # protocols 2 and 3 write a set as a call of `set` with a list
    if isinstance(node, Object):
        (items,) = node.arguments
        need(isinstance(items, list) and all(isinstance(item, str) for item in items), "it has a set of no names")
        return set(items)
    need(isinstance(node, set), "it has something else where a set of names should be")
    return node


def _named(node: Node) -> list[tuple[str, Node]]:
    items = _mapping(node)
    need(all(isinstance(key, str) and _NAME.fullmatch(key) for key in items), "it has a tensor by what is no name")
    return list(items.items())
