"""What each family supports, read from its code: its network's class, the signatures of `build` and `forward`.

Owns that table. Builds no network and reads no file.
"""

import inspect
from dataclasses import dataclass
from types import ModuleType

from magnet_cli.models.generator import FAMILIES, OUTPUTS, PLAIN_FORMATS


@dataclass(frozen=True)
class About:
    """What a family of generators supports.

    Attributes:
        family: its name.
        spaces: where the input of the Jacobian can live.
        outputs: what of its own the Jacobian can be taken of; image models can follow any family's images.
        conditional: whether its generators take labels: "yes", "no", or "some".
        truncation: what ψ acts on; empty where it has no effect.
        prior: the distribution of the latents.
        formats: of checkpoints.
        settings: what a file may have to say beside its weights.
    """

    family: str
    spaces: tuple[str, ...]
    outputs: tuple[str, ...]
    conditional: str
    truncation: str
    prior: str
    formats: tuple[str, ...]
    settings: tuple[str, ...]


def families() -> list[About]:
    """All that `load` can build, by name."""
    return [_about(name, module) for name, module in FAMILIES.items()]


def _about(name: str, module: ModuleType) -> About:
    build = inspect.signature(module.build)
    network = build.return_annotation
    has_w = hasattr(network, "synthesis")
    label = inspect.signature(network.forward).parameters["labels"]
    takes = "no" if label.annotation is None else "some" if label.default is None else "yes"
    return About(
        family=name,
        spaces=("z", "w") if has_w else ("z",),
        outputs=OUTPUTS if has_w else OUTPUTS[:1],
        conditional=takes,
        truncation=network.truncates,
        prior=network.prior,
        formats=(*PLAIN_FORMATS, *getattr(module, "TRANSLATIONS", {})),
        settings=tuple(build.parameters)[1:],
    )
