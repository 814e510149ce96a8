"""The only module that prints: results on stdout, everything else on stderr.

Streams, JSON, tables, progress, what a stop leaves behind, and how errors look. Messages name arguments in backticks,
as `top_k=20`; they are shown as flags of the running command.
"""

import contextlib
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TextIO, TypeVar

from magnet_cli.cli.flags import FlagNames
from magnet_cli.errors import MagnetError
from magnet_cli.files.progress import aligned
from magnet_cli.files.text import visible

_LOG_SECONDS = 30  # without a terminal, at most one line of progress in this time
_flags = FlagNames()
R = TypeVar("R")
T = TypeVar("T")


def show_as(flags: FlagNames) -> None:
    """Show arguments that messages name as these flags, those of the running command."""
    global _flags  # noqa: PLW0603  # one process runs one command
    _flags = flags


class Console:
    """One command's output.

    Args:
        as_json: the result is one JSON object.
        quiet: no progress, notes or hints; warnings and errors stay.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet

    def result(self, fields: dict, text: str) -> None:
        """Print the result on stdout: with --json the fields, else the text."""
        # JSON in one line has control characters in its texts alone, where it spells them as `visible` does
        _print(json.dumps(fields, ensure_ascii=False, allow_nan=False) if self.as_json else text, sys.stdout)

    def table(self, fields: dict, header: list[str], rows: list[list[str]]) -> None:
        """Print the result as a table, with --json the fields; nothing is cut.

        On a terminal, or where COLUMNS is set, it keeps to that width as far as it can.
        """
        self.result(fields, aligned(header, rows, shutil.get_terminal_size((0, 0)).columns))

    def note(self, text: str) -> None:
        """Print a remark about the result on stderr."""
        if not self.quiet:
            _print(_flags.shown(text), sys.stderr)

    def note_table(self, header: list[str], rows: list[list[str]]) -> None:
        """Print a table about the result on stderr."""
        for line in aligned(header, rows).split("\n"):
            self.note(line)

    def hint(self, command: str) -> None:
        """Print the next command, to copy, on stderr."""
        self.note(f"next: {command}")

    def warning(self, text: str) -> None:
        """Print a reason to doubt the result on stderr; --quiet keeps it."""
        _print(f"warning: {_flags.shown(text)}", sys.stderr)

    @contextlib.contextmanager
    def progress(self, label: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """Show progress on stderr: a bar on a terminal, else at most a line every 30 s.

        Yields a function to call with the number of units done since the last call.
        """
        if self.quiet or total == 0:
            yield lambda _: None
        elif sys.stderr.isatty():
            with _bar(label, total, unit) as advance:
                yield advance
        else:
            yield _lines(label, total, unit)

    def follow(
        self,
        steps: Generator[T, None, R],
        total: int,
        *,
        label: str,
        unit: str,
        safe: Callable[[int], str],
        count: Callable[[T], int] | None = None,
    ) -> R:
        """Run the steps of a verb to their end, with progress, and return what they return; close them in any case.

        After Ctrl-C print `safe` of the number of units done, "3 of 9 images are in PATH", and that the same command
        goes on. `count` makes units of what was yielded; without it the steps yield numbers of units.
        """
        done = 0
        try:
            with contextlib.closing(steps), self.progress(label, total, unit) as advance:
                while True:
                    try:
                        units: Any = next(steps)
                    except StopIteration as end:
                        return end.value
                    units = units if count is None else count(units)
                    advance(units)
                    done += units
        except KeyboardInterrupt:
            _print(f"stopped: {safe(done)}; the same command goes on from there", sys.stderr)
            raise

    def follow_images(self, steps: Generator[int, None, R], n: int, folder: Path) -> R:
        """Run the steps of a verb that writes n images into a folder, as `follow`."""
        safe = f"or more of {n:,} images are in {folder}"
        return self.follow(steps, n, label="rendering", unit="images", safe=lambda done: f"{done:,} {safe}")


def command_line() -> list[str]:
    """Return the running command, for the documents that say how something was made."""
    return ["magnet", *sys.argv[1:]]


@contextlib.contextmanager
def _bar(label: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    from rich import console, progress

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn(unit, markup=False),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console.Console(stderr=True), transient=True) as bar:
        task = bar.add_task(visible(label), total=total)
        yield lambda done: bar.advance(task, done)


def _lines(label: str, total: int, unit: str) -> Callable[[int], None]:
    start = shown = time.monotonic()
    done = 0

    def advance(more: int) -> None:
        nonlocal done, shown
        done += more
        now = time.monotonic()
        if now - shown >= _LOG_SECONDS:
            shown = now
            rate = done / (now - start)
            _print(f"{label}: {done:,} of {total:,} {unit}, {(total - done) / rate:,.0f} s left", sys.stderr)

    return advance


def show_error(error: MagnetError) -> None:
    """Print an expected failure on stderr: what is wrong, then what to do; the traceback with MAGNET_DEBUG=1."""
    if os.environ.get("MAGNET_DEBUG") == "1":
        _print("".join(traceback.format_exception(error)), sys.stderr)
    _print(f"error: {_flags.shown(error.message)}", sys.stderr)
    if error.hint:
        _print(f"  do: {_flags.shown(error.hint)}", sys.stderr)


def _print(text: str, stream: TextIO) -> None:
    """Print text with control characters shown as such; on stderr, lines after the first begin with spaces.

    So a name that somebody else chose is no line of its own that looks as if it came from here.
    """
    text = visible(text, keep="\n")
    try:
        print(text if stream is sys.stdout else text.replace("\n", "\n  "), file=stream, flush=True)
    except BrokenPipeError:
        if stream is not sys.stdout:
            raise
        with Path(os.devnull).open("wb") as nothing:  # the reader has what it wanted, as `head` does
            os.dup2(nothing.fileno(), stream.fileno())
