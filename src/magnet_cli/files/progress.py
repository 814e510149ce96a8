"""What a long task reports while it runs: messages to the user, tables as text, and progress."""

import contextlib
import itertools
import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from magnet_cli.files.text import visible

_NARROWEST = 12  # characters of a column that gives way to others
Progress = Callable[[int, int], None]  # called with (done, total)
# called with label, total and unit of a stage; the context gives a function to call with the units done since the last
Stages = Callable[[str, int, str], AbstractContextManager[Callable[[int], None]]]


@contextlib.contextmanager
def no_stages(_label: str, _total: int, _unit: str) -> Iterator[Callable[[int], None]]:
    """Show no progress."""
    yield lambda _: None


class Messages(Protocol):
    """Receives the notes and warnings of a verb; the console of the command line is one."""

    def note(self, text: str) -> None:
        """Receive a remark about the result."""

    def warning(self, text: str) -> None:
        """Receive a reason to doubt the result."""


class _Silent:
    def note(self, text: str) -> None:
        pass

    def warning(self, text: str) -> None:
        warnings.warn(text, stacklevel=3)


SILENT: Messages = _Silent()  # drops notes, turns warnings into Python warnings


def aligned(header: list[str], rows: list[list[str]], width: int = 0) -> str:
    """Return a table as text: columns as wide as they need, two spaces between them; a cell is one line.

    Within a `width`, the widest columns but the first give way: their cells go on in further lines, and none is cut.
    """
    header, *rows = ([visible(cell) for cell in row] for row in (header, *rows))
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    while width and sum(widths) + 2 * (len(widths) - 1) > width and max(widths[1:], default=0) > _NARROWEST:
        widths[1 + widths[1:].index(max(widths[1:]))] -= 1
    lines = []
    for row in (header, *rows):
        parts = [
            [cell] if len(cell) <= w else textwrap.wrap(cell, w, break_on_hyphens=False)
            for cell, w in zip(row, widths, strict=True)
        ]
        for cells in itertools.zip_longest(*parts, fillvalue=""):
            lines.append("  ".join(cell.ljust(w) for cell, w in zip(cells, widths, strict=True)).rstrip())
    return "\n".join(lines)
