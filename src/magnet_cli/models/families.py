"""The families of generators, and what each supports, read from its code: the signatures of `build` and `forward`."""

import inspect
from dataclasses import dataclass
from types import ModuleType

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
        formats=(*PLAIN_FORMATS, *getattr(module, "TRANSLATIONS", {})),
        settings=tuple(build.parameters)[1:],
    )
