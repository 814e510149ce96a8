"""The classes of ImageNet by their names, in the order in which networks number them.

Owns the list (that of the 2012 challenge; its names are WordNet's). Knows nothing of generators.
"""

import difflib
import functools
from pathlib import Path

from magnet_cli.errors import SpecError

COUNT = 1000
_FILE = Path(__file__).parents[1] / "assets" / "imagenet-classes.txt"  # a line a class, its names separated by commas


def number(name: str) -> int:
    """The class of that name, whatever its case.

    Raises:
        SpecError: there is none (the nearest names are given), or more than one.
    """
    found = _classes().get(name.casefold(), [])
    if len(found) == 1:
        return found[0]
    if found:
        message = f"{name!r} is the name of several classes: {', '.join(map(str, found))}"
        raise SpecError(message, "pass the number")
    near = difflib.get_close_matches(name.casefold(), _classes(), n=3)
    message = f"no class of ImageNet is called {name!r}"
    raise SpecError(message, f"did you mean {' or '.join(near)}?" if near else "pass its number")


@functools.cache
def _classes() -> dict[str, list[int]]:
    """The numbers of the classes that each name belongs to."""
    known: dict[str, list[int]] = {}
    for index, line in enumerate(_FILE.read_text(encoding="utf-8").splitlines()):
        for name in {name.casefold() for name in line.split(", ")}:
            known.setdefault(name, []).append(index)
    return known
