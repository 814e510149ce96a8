"""The families of generators, and what each supports, read from its code: the signatures of `build` and `forward`."""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType, NoneType
from typing import cast, get_args, get_origin, get_type_hints

from magnet_cli.errors import GeneratorError
from magnet_cli.models.generator import OUTPUTS
from magnet_cli.models.generators import biggan_deep, dcgan, nvae, progan, slogan, stylegan2, stylegan3

FAMILIES: dict[str, ModuleType] = {
    "biggan-deep": biggan_deep,
    "dcgan": dcgan,
    "nvae": nvae,
    "progan": progan,
    "slogan": slogan,
    "stylegan2": stylegan2,
    "stylegan3": stylegan3,
}
_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", NoneType: "null"}
_MOST = 1 << 31  # of a whole number
PLAIN_FORMATS = ("safetensors", "torch")  # files of state dicts, which every family can come in


@dataclass(frozen=True)
class Family:
    """What a family of generators supports.

    `conditional` is "yes", "no" or "some"; `truncation` tells what ψ acts on, and is empty if it has no effect;
    `settings` are what a file may have to say beside its weights.
    """

    family: str
    spaces: tuple[str, ...]
    outputs: tuple[str, ...]
    conditional: str
    truncation: str
    prior: str
    formats: tuple[str, ...]
    settings: tuple[str, ...]


def describe_families() -> list[Family]:
    """Return every family that `load` can build, by name."""
    return [_described(name, module) for name, module in FAMILIES.items()]


def _described(name: str, module: ModuleType) -> Family:
    build = inspect.signature(module.build)
    network = build.return_annotation
    has_w = hasattr(network, "synthesis")
    label = inspect.signature(network.forward).parameters["labels"]
    conditional = "no" if label.annotation is None else "some" if label.default is None else "yes"
    return Family(
        family=name,
        spaces=("z", "w") if has_w else ("z",),
        outputs=OUTPUTS if has_w else OUTPUTS[:1],
        conditional=conditional,
        truncation=network.truncates,
        prior=network.prior,
        formats=tuple(dict.fromkeys((*PLAIN_FORMATS, *getattr(module, "TRANSLATIONS", {})))),
        settings=tuple(build.parameters)[1:],
    )


def defaults(family: str) -> dict[str, object]:
    """Return the settings of a family that its weights do not tell, with the values taken where nothing does."""
    _, *parameters = inspect.signature(FAMILIES[family].build).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters}


def check_settings(name: str, family: str, make: Callable[..., object], settings: dict[str, object]) -> None:
    """Check names and types of settings, as the signature of a family's `build` has them.

    Raises:
        GeneratorError: a setting is unknown, or of another type.
    """
    _, *names = inspect.signature(make).parameters
    types = get_type_hints(make)
    for setting, value in settings.items():
        if setting not in names:
            message = f"{name} is given the setting {setting!r}, which the family {family} does not have"
            raise GeneratorError(message, f"settings of {family}: {', '.join(names) or 'none'}")
        if not _is_of(types[setting], value):
            message = f"{name} is given {setting} = {str(value)[:60]}, and {_words(types[setting])} is asked for"
            raise GeneratorError(message, f"check the setting {setting}, which comes with the file or the call")


def _is_of(hint: object, value: object) -> bool:
    if get_origin(hint) is Sequence:
        return isinstance(value, list | tuple) and all(_is_of(get_args(hint)[0], each) for each in value)
    if get_args(hint):
        return any(_is_of(each, value) for each in get_args(hint))
    if hint is float:
        return type(value) in {int, float} and _is_finite(cast("float", value))
    if hint is int:
        return type(value) is int and abs(value) < _MOST
    return type(value) is hint


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # of a whole number
        return False


def _words(hint: object) -> str:
    if get_origin(hint) is Sequence:
        return f"a list, each {_words(get_args(hint)[0])},"
    return " or ".join(_words(each) for each in get_args(hint)) or _WORDS.get(hint, str(hint))  # type: ignore[call-overload]
