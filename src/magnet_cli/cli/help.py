"""How --help looks: commands and options under headings, as plain text and without loading rich.

And where errors become text: a MagnetError is shown and exits with 1; a bug is no MagnetError and keeps its traceback.
"""

from collections.abc import Iterable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from magnet_cli.cli import console
from magnet_cli.cli.flags import FlagNames
from magnet_cli.errors import MagnetError

CUSTOM, WORK, OUTPUT = "Your own generator (file.py:factory)", "Computation", "Output"  # the last headings
_MOST = 10**9  # of a flag that counts
_LARGEST = {"seed": 2**63 - 1, "memory": 2**63 - 1}  # of others
_COLUMN = 28  # characters of the longest name beside its text


class Terminated(KeyboardInterrupt):
    """SIGTERM: stops as Ctrl-C does, with another exit code."""


class Command(TyperCommand):
    """A command whose options are shown under their headings, the ones without a heading first."""

    def invoke(self, ctx: Any) -> object:
        """Run the command, once its numbers are bounded; its messages name its flags."""
        for name, value in ctx.params.items():
            if isinstance(value, int) and value > (most := _LARGEST.get(name, _MOST)):
                raise typer.BadParameter(
                    f"{value} is more than {most:,}.", ctx, param_hint=f"--{name.replace('_', '-')}"
                )
        console.show_as(FlagNames(self.params))
        return super().invoke(ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, as the base class does, under headings."""
        parameters = self.get_params(ctx)
        _sections(formatter, ((_heading(p), p.get_help_record(ctx)) for p in parameters))


class Group(TyperGroup):
    """Commands under their headings."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, as the base class does, under headings."""
        commands: list[tuple[str, Any]] = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        limit = formatter.width - 6 - max(len(name) for name, _ in commands)
        rows = ((c.rich_help_panel, (name, c.get_short_help_str(limit))) for name, c in commands if c)
        _sections(formatter, ((panel or "Commands", row) for panel, row in rows))


class Root(Group):
    """The command `magnet`: shows the errors of its commands, and gives their exit codes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line; `magnet help COMMAND` is `magnet COMMAND --help`."""
        return super().parse_args(ctx, [*args[1:], "--help"] if args[:1] == ["help"] else args)

    def invoke(self, ctx: Any) -> object:
        """Run a command, and exit with 1 after an expected failure, 130 after Ctrl-C, 143 after SIGTERM."""
        try:
            return super().invoke(ctx)
        except MagnetError as error:
            console.show_error(error)
            raise typer.Exit(1) from error
        except Terminated as stop:
            raise typer.Exit(143) from stop
        except KeyboardInterrupt as stop:
            raise typer.Exit(130) from stop


def _heading(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return "Arguments"
    return OUTPUT if parameter.name == "help" else parameter.rich_help_panel or "Options"


def _sections(formatter: Any, rows: Iterable[tuple[str, tuple[str, str] | None]]) -> None:
    """Write rows under headings: arguments, options without a heading, others as they come up, then the last ones."""
    sections: dict[str, list] = {"Arguments": [], "Options": []}
    for heading, row in rows:
        if row:
            sections.setdefault(heading, []).append((row[0].replace(" range>", ">"), row[1]))
    for last in (CUSTOM, WORK, OUTPUT):
        sections[last] = sections.pop(last, [])
    width = min(_COLUMN, max(len(name) for shown in sections.values() for name, _ in shown))
    for heading, shown in sections.items():
        if shown:
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), text) for name, text in shown], col_max=_COLUMN)
