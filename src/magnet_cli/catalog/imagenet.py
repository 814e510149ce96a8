"""The classes of ImageNet by their names, in the order in which networks number them.

Owns the list (that of the 2012 challenge; its names are WordNet's). Knows nothing of generators.
"""

import difflib
import functools
from collections.abc import Sequence
from pathlib import Path

from magnet_cli.errors import SpecError

COUNT = 1000
_FILE = Path(__file__).parents[1] / "assets" / "imagenet-classes.txt"  # a line a class, its names separated by commas


def number(name: str) -> int:
    """The class of that name, whatever its case.

    Raises:
        SpecError: there is none (the nearest names are given), or more than one.
    """
    numbers = _classes().get(name.casefold(), [])
    if len(numbers) == 1:
        return numbers[0]
    if numbers:
        message = f"{name!r} is the name of several classes: {', '.join(map(str, numbers))}"
        raise SpecError(message, "pass the number")
    near = difflib.get_close_matches(name.casefold(), _classes(), n=3)
    message = f"no class of ImageNet is called {name!r}"
    raise SpecError(message, f"did you mean {' or '.join(near)}?" if near else "pass its number")


def class_numbers(label: Sequence[int | str], generator: str, num_classes: int) -> tuple[int, ...]:
    """Return the numbers of classes of a generator that are given by number or by ImageNet name.

    Raises:
        SpecError: no class of ImageNet has that name, or the generator has other classes than ImageNet.
    """
    named = [each for each in label if isinstance(each, str)]
    if named and num_classes not in {0, COUNT}:
        message = f"{named[0]!r} is a class of ImageNet, and {generator} has {num_classes} classes of its own"
        raise SpecError(message, f"pass `label` with a number, 0 to {num_classes - 1}")
    return tuple(number(each) if isinstance(each, str) else each for each in label)


@functools.cache
def _classes() -> dict[str, list[int]]:
    """The numbers of the classes that each name belongs to."""
    numbers: dict[str, list[int]] = {}
    for index, line in enumerate(_FILE.read_text(encoding="utf-8").splitlines()):
        for name in {name.casefold() for name in line.split(", ")}:
            numbers.setdefault(name, []).append(index)
    return numbers
