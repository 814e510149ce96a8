"""Translate names of StyleGAN2's tensors and settings into those of NVlabs' PyTorch code.

The other namings are rosinality's and that of NVlabs' TensorFlow code.
"""

import re
from collections.abc import Callable

import torch
from torch import Tensor

from magnet_cli.errors import GeneratorError
from magnet_cli.files.checkpoints import Shapes
from magnet_cli.models.generators import nvlabs_settings

_ROSINALITY = {"input.input", "style.1.weight", "conv1.conv.modulation.weight"}
_TENSORFLOW = {"mapping/Dense0/weight", "synthesis/4x4/Const/const"}
_BOOKKEEPING = {"epochs", "lod"}
_Shaped = Callable[[Tensor], Tensor]
_Name = tuple[str, Callable[[int], str]]  # pattern of a name, and NVlabs' layer by the number n in it, or 0


def _conv(number: int) -> str:
    # two by side, conv0 and conv1, except at 4x4
    return f"synthesis.b{4 << (number + 1) // 2}.conv{1 - number % 2}"


# rosinality's names of layers, and of the tensors in a layer with a function that gives them NVlabs' shapes
_LAYERS: list[_Name] = [
    (r"style\.(?P<n>\d{1,2})\.(?P<rest>weight|bias)", lambda n: f"mapping.fc{n - 1}"),
    (r"(?P<rest>latent_avg)", lambda _: "mapping"),
    (r"input\.(?P<rest>input)", lambda _: "synthesis.b4"),
    (r"conv1\.(?P<rest>.+)", _conv),
    (r"to_rgb1\.(?P<rest>.+)", lambda _: "synthesis.b4.torgb"),
    (r"convs\.(?P<n>\d{1,2})\.(?P<rest>.+)", lambda n: _conv(n + 1)),
    (r"to_rgbs\.(?P<n>\d{1,2})\.(?P<rest>.+)", lambda n: f"synthesis.b{8 << n}.torgb"),
    (r"noises\.(?P<rest>noise_)(?P<n>\d{1,2})", _conv),
]
_INSIDE = {
    "latent_avg": ("w_avg", torch.flatten),
    "input": ("const", lambda tensor: tensor[0]),
    "conv.weight": ("weight", lambda tensor: tensor[0]),
    "conv.modulation.weight": ("affine.weight", torch.clone),
    "conv.modulation.bias": ("affine.bias", torch.clone),
    "activate.bias": ("bias", torch.clone),
    "noise.weight": ("noise_strength", lambda tensor: tensor.reshape(())),
    "bias": ("bias", torch.flatten),
    "noise_": ("noise_const", lambda tensor: tensor[0, 0]),
    "conv.blur.kernel": ("resample_filter", lambda tensor: tensor / tensor.sum()),  # with a gain of 4
    "upsample.kernel": ("resample_filter", lambda tensor: tensor / tensor.sum()),
}

# TensorFlow's names; a convolution is stored [k, k, I, O], mirrored if it doubles the side
_VARIABLES: list[_Name] = [
    (r"(?P<rest>dlatent_avg)", lambda _: "mapping"),
    (r"mapping/Dense(?P<n>\d{1,2})/(?P<rest>weight|bias)", lambda n: f"mapping.fc{n}"),
    (r"mapping/LabelEmbed/(?P<rest>weight|bias)", lambda _: "mapping.embed"),
    (r"synthesis/4x4/Const/(?P<rest>const)", lambda _: "synthesis.b4"),
    (r"synthesis/(?P<rest>noise)(?P<n>\d{1,2})", _conv),
    (r"synthesis/4x4/(?P<rest>Conv/.+)", _conv),
    (r"synthesis/(?P<n>\d{1,5})x(?P=n)/(?P<rest>Conv0_up/.+)", lambda n: f"synthesis.b{n}.conv0"),
    (r"synthesis/(?P<n>\d{1,5})x(?P=n)/(?P<rest>Conv1/.+)", lambda n: f"synthesis.b{n}.conv1"),
    (r"synthesis/(?P<n>\d{1,5})x(?P=n)/(?P<rest>ToRGB/.+)", lambda n: f"synthesis.b{n}.torgb"),
    (r"synthesis/(?P<n>\d{1,5})x(?P=n)/(?P<rest>Skip/.+)", lambda n: f"synthesis.b{n}.skip"),
]
_OF_VARIABLES = {
    "dlatent_avg": ("w_avg", torch.clone),
    "const": ("const", lambda tensor: tensor[0]),
    "noise": ("noise_const", lambda tensor: tensor[0, 0]),
    "Conv0_up/weight": ("weight", lambda tensor: tensor.flip(0, 1).permute(3, 2, 0, 1)),
    "Conv/weight": ("weight", lambda tensor: tensor.permute(3, 2, 0, 1)),
    "mod_weight": ("affine.weight", torch.t),
    "mod_bias": ("affine.bias", lambda tensor: tensor + 1),
    "weight": ("weight", torch.t),
    "bias": ("bias", torch.clone),
    "noise_strength": ("noise_strength", torch.clone),
}

# Keywords of the networks. Names and shapes tell the first; the second change rounding or training alone; the third
# can have one value only; the last are settings of `build`.
_IN_TENSORS = {
    *("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "channel_base", "channel_max", "num_layers"),
    *("embed_features", "layer_features", "architecture", "resample_filter", "use_noise"),
}
_WITHOUT_EFFECT = {"num_fp16_res", "use_fp16", "fp16_channels_last", "fused_modconv_default", "w_avg_beta"}
_ONLY: dict[str, object] = {"activation": "lrelu"}
_SETTINGS = {"conv_clamp": "conv_clamp", "lr_multiplier": "lr_multiplier"}

_IN_TENSORS_TENSORFLOW = {
    *("latent_size", "label_size", "dlatent_size", "resolution", "num_channels", "fmap_base", "fmap_decay", "fmap_min"),
    *("fmap_max", "mapping_layers", "mapping_fmaps", "label_fmaps", "architecture", "use_noise"),
}
_WITHOUT_EFFECT_TENSORFLOW = {
    *("num_fp16_res", "dtype", "fused_modconv", "dlatent_avg_beta", "w_avg_beta", "style_mixing_prob"),
    "impl",  # of the filters
    *("truncation_psi", "truncation_cutoff", "randomize_noise"),  # defaults of calls; magnet takes them from the user
}
_ONLY_TENSORFLOW: dict[str, object] = {
    **{"mapping_nonlinearity": "lrelu", "nonlinearity": "lrelu", "normalize_latents": True},
    **{"resample_kernel": [1, 3, 3, 1], "mapping_func": "G_mapping", "synthesis_func": "G_synthesis_stylegan2"},
}
_SETTINGS_TENSORFLOW = {"conv_clamp": "conv_clamp", "mapping_lrmul": "lr_multiplier"}


def matches(shapes: Shapes) -> bool:
    """Return whether names are those of one of the namings."""
    own = {"mapping.fc0.weight", "synthesis.b4.const"}
    return any(shapes.keys() >= names for names in (own, _ROSINALITY, _TENSORFLOW))


def is_rosinality(state: dict[str, Tensor]) -> bool:
    """Return whether a state dict is in the naming of rosinality's code."""
    return state.keys() >= _ROSINALITY


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict under the names and shapes of NVlabs' PyTorch code; unknown tensors keep their names."""
    if is_rosinality(state):
        return _renamed(state, _place_of_rosinality)
    return _renamed(state, _place_of_tensorflow) if state.keys() >= _TENSORFLOW else state


def _renamed(state: dict[str, Tensor], place: Callable[[str], tuple[str, _Shaped]]) -> dict[str, Tensor]:
    result: dict[str, Tensor] = {}
    for name, value in state.items():
        if name in _BOOKKEEPING and value.numel() == 1 and (name != "lod" or value.item() == 0):
            continue  # a variable of forks; a level of detail of 0 is the whole network
        to, shaped = place(name)
        to = name if to in result else to  # of two tensors with one place, the second is left over and refused
        try:
            result[to] = shaped(value)
        except (RuntimeError, IndexError) as error:
            message = f"{name} is [{', '.join(map(str, value.shape))}], which no StyleGAN2 has"
            raise GeneratorError(message, "check that the file holds one whole generator") from error
    return result


def _place_of_rosinality(name: str) -> tuple[str, _Shaped]:
    layer, rest = _layer(_LAYERS, name)
    to, shaped = _INSIDE.get(rest, (rest, lambda tensor: tensor))
    if rest == "upsample.kernel":  # the image's, which NVlabs has in the block
        layer = layer.removesuffix(".torgb")
    return (f"{layer}.{to}" if rest else layer), shaped


def _place_of_tensorflow(name: str) -> tuple[str, _Shaped]:
    layer, rest = _layer(_VARIABLES, name)
    if rest.endswith("/weight") and not rest.startswith("Conv0_up"):
        rest = "Conv/weight"
    to, shaped = _OF_VARIABLES.get(rest) or _OF_VARIABLES.get(rest.partition("/")[2], ("", torch.clone))
    return (f"{layer}.{to}" if to else name), shaped


def _layer(names: list[_Name], name: str) -> tuple[str, str]:
    # NVlabs' name of the layer, and the other code's name of the tensor in it
    for pattern, layer in names:
        if match := re.fullmatch(pattern, name):
            return layer(int(match.groupdict().get("n", 0))), match["rest"]
    return name, ""


def from_pytorch(arguments: dict, attributes: dict[str, dict]) -> dict:
    """Return settings of `build` for NVlabs' PyTorch code; attributes tell the clamp, whose default has changed."""
    keywords = nvlabs_settings.flattened(arguments)
    layer = attributes.get("synthesis.b4.conv1", {})
    keywords += [(key, layer[key]) for key in ("conv_clamp", "activation") if key in layer]
    return nvlabs_settings.translated("StyleGAN2", keywords, _IN_TENSORS | _WITHOUT_EFFECT, _ONLY, _SETTINGS)


def from_tensorflow(arguments: dict, _: dict[str, dict]) -> dict:
    """Return settings of `build` for a network of NVlabs' TensorFlow code."""
    sides = {"resolution_w", "resolution_h"} & arguments.keys()  # of forks that also have other shapes than squares
    if any(arguments[side] != arguments.get("resolution") for side in sides):
        shape = f"{arguments.get('resolution_w')}×{arguments.get('resolution_h')}"
        raise GeneratorError(f"the network makes images of {shape}", "magnet has squares alone")
    keywords = [(key, value) for key, value in arguments.items() if key not in sides]
    without = _IN_TENSORS_TENSORFLOW | _WITHOUT_EFFECT_TENSORFLOW
    return nvlabs_settings.translated("StyleGAN2", keywords, without, _ONLY_TENSORFLOW, _SETTINGS_TENSORFLOW)
