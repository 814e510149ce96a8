"""Find the weights that are meant where a file holds several: raw ones beside their average, networks under prefixes.

Whoever reads a file says by `fits` which names and shapes are those of a network that it can build.
"""

import itertools
import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import TypeVar

from magnet_cli.errors import GeneratorError

Shapes = Mapping[str, tuple[int, ...]]
Fits = Callable[[Shapes], bool]
_DEPTH = 6  # names of modules in a prefix
_SHOWN = 6  # places in an error
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_AVERAGES = {"ema", "avg", "average", "averaged", "shadow", "swa", "running", "smooth", "smoothed", "polyak"}
_USUAL = ("g_ema", "netG_state_dict", "state_dict")  # keys of the weights, where nothing else tells them
TOP = "the top of the file"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Place:
    """Where weights lie: in the mapping under the key `group`, there under names that begin with `prefix`."""

    group: str = ""
    prefix: str = ""

    def __str__(self) -> str:
        return ".".join(part for part in (self.group, self.prefix.removesuffix(".")) if part) or TOP

    @property
    def is_average(self) -> bool:
        """Whether its name says that these weights are an average over training."""
        return not _AVERAGES.isdisjoint(word.lower() for word in _WORD.findall(str(self)))

    def taken(self, items: Mapping[str, _T], whole: Container[str] = ()) -> dict[str, _T]:
        """Return the items under the prefix, without it, and those whose names are in `whole` as they are."""
        return {
            name if name in whole else name.removeprefix(self.prefix): value
            for name, value in items.items()
            if name in whole or name.startswith(self.prefix)
        }


def choose(groups: Mapping[str, Shapes], fits: Fits, name: str, asked: str = "") -> tuple[Place, tuple[Place, ...]]:
    """Return the place of the weights that fit, and the other places whose weights fit too.

    An average goes before raw weights. Where several places remain, `asked` is the one that is meant.

    Raises:
        GeneratorError: nothing fits, or it is not clear which is meant.
    """
    fitting = [Place(group, prefix) for group, shapes in groups.items() for prefix in _prefixes(shapes, fits)]
    if not fitting:
        message = f"the weights of {name} fit no family magnet can build; it holds {contents(groups)}"
        hint = "pass the state dict of such a generator; `magnet list --families` shows them; others: file.py:factory"
        raise GeneratorError(message, hint)
    averages = [place for place in fitting if place.is_average]
    best = [place for place in fitting if str(place) == asked] if asked else averages or fitting
    if len(best) != 1:
        message = f"{name} holds {len(fitting)} networks that fit: {', '.join(map(str, fitting))}; "
        message += f"and {asked} is asked for" if asked else "which of them is meant is not clear"
        raise GeneratorError(message, f"write the one that is meant alone: `magnet convert … --weights {fitting[0]}`")
    return best[0], tuple(place for place in fitting if place != best[0])


def single(groups: Mapping[str, Shapes], name: str) -> tuple[Place, tuple[Place, ...]]:
    """Return the place of the only mapping in a file, or of the one under a usual key, and no others.

    Raises:
        GeneratorError: there is no mapping, or several.
    """
    key = next((usual for usual in _USUAL if usual in groups), next(iter(groups), None))
    if key is None or not (len(groups) == 1 or key in _USUAL):
        message = f"{name} is a torch file, but holds no single mapping from names to tensors: {contents(groups)}"
        raise GeneratorError(message, "save the state dict alone: torch.save(module.state_dict(), …)")
    return Place(key), ()


def contents(groups: Mapping[str, Shapes]) -> str:
    """Return what a file holds, in words: its mappings with tensors, and the first tensor of each."""
    told = []
    for group, shapes in groups.items():
        first, several = next(iter(shapes)), len(shapes) > 1
        count = f"{len(shapes):,} tensor{'s' * several}"
        told.append(f"{count} in {group or TOP} ({first}{', …' * several})")
    rest = f", and {len(told) - _SHOWN} mappings more" if len(told) > _SHOWN else ""
    return (", ".join(told[:_SHOWN]) + rest) or "no tensors by name"


def _prefixes(shapes: Shapes, fits: Fits) -> list[str]:
    """Return the prefixes under which names fit, "" for the names as they are."""
    under: dict[str, dict[str, tuple[int, ...]]] = {"": dict(shapes)}
    for name, shape in shapes.items():
        for match in itertools.islice(re.finditer(r"\.", name), _DEPTH):
            under.setdefault(name[: match.end()], {})[name[match.end() :]] = shape
    return [prefix for prefix, named in under.items() if fits(named)]
