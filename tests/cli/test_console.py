"""The console: what follows a verb, and arguments in messages that are shown as flags."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
import typer
from typer.testing import CliRunner

from magnet_cli.cli import options
from magnet_cli.cli.console import Console, show_as, show_error
from magnet_cli.cli.flags import FlagNames
from magnet_cli.cli.help import Command, Root
from magnet_cli.cli.parsers import ClassLabel
from magnet_cli.errors import MagnetError


def flag_names(command="sample"):
    from typer.main import get_command

    from magnet_cli.cli.app import app

    return FlagNames(get_command(app).commands[command].params)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("pass `top_k=20`", "pass --top-k 20"),
        ("draw with `replace=True`", "draw with --replace"),
        ("pass `replace=False`", "pass no --replace"),
        ("`volume` names a folder", "--volume names a folder"),
        ("pass `volume=PATH`", "pass --volume PATH"),
        ("pass `output='style'`, or `seed=3`", "pass --output style, or --seed 3"),
        ("pass `label=(3, 4)`", "pass --label 3 --label 4"),
        ("pass `image_range=(0, 1)`", "pass --image-range 0,1"),
        ("pass `generator='toy'`", "pass 'toy'"),
        ("which `generator`?", "which GENERATOR?"),
        ("pass `format='npy'`", "pass --format npy"),
        ("run `magnet list`", "run `magnet list`"),
        ("pass `address='auto'`", "pass `address='auto'`"),  # no flag of this command
    ],
)
def test_arguments_are_shown_as_flags(message, shown):
    assert flag_names().shown(message) == shown


def test_messages_of_every_kind_show_flags(capsys):
    show_as(flag_names())
    console = Console()
    console.note("see `top_k`")
    console.warning("see `top_k=3`")
    console.hint("see `replace=True`")
    show_as(FlagNames())
    console.note("see `top_k`")
    assert capsys.readouterr().err.splitlines() == [
        "see --top-k",
        "warning: see --top-k 3",
        "next: see --replace",
        "see `top_k`",
    ]


def test_errors_of_a_command_name_its_flags_and_exit_1():
    app = typer.Typer(cls=Root)

    @app.command(cls=Command)
    def first(top_k: int = 3):
        raise MagnetError(f"`top_k={top_k}` is too much", "pass `top_k`, or `other=1`")

    app.callback()(lambda: None)
    done = CliRunner().invoke(app, ["first"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "error: --top-k 3 is too much\n  do: pass --top-k, or `other=1`\n"


BAD = "MIT\x1b[31m\x07\u202e\x9b2J"


def test_nothing_that_a_terminal_obeys_is_printed(capsys):
    console = Console()
    console.note(BAD)
    console.warning(BAD)
    console.hint(BAD)
    console.result({"text": BAD}, BAD)
    Console(as_json=True).result({"text": BAD}, "")
    console.table({}, ["name"], [[f"{BAD}\nerror: forged"]])
    show_error(MagnetError(f"{BAD}\nnext: rm", BAD))
    out, err = capsys.readouterr()
    assert all(line.isprintable() for line in (out + err).split("\n"))
    text, encoded, *table = out.splitlines()
    assert text == r"MIT\u001b[31m\u0007\u202e\u009b2J"
    assert json.loads(encoded) == {"text": BAD}
    assert len(table) == 2
    assert "  next: rm" in err.splitlines()  # the lines of a message are told from those of the program


# --- follow -------------------------------------------------------------------------------------------------------


def follow(steps, **more):
    return Console(quiet=True).follow(
        steps, 10, label="working", unit="things", safe=lambda done: f"{done} of 10 things are in PLACE", **more
    )


def test_follow_gives_what_the_verb_returns():
    def verb():
        yield 4
        yield 6
        return {"done": True}

    assert follow(verb()) == {"done": True}
    shown = []
    assert follow((each for each in "abc"), count=lambda each: shown.append(each) or 1) is None
    assert shown == ["a", "b", "c"]


def test_a_stop_says_what_is_safe_and_closes_the_verb(capsys):
    closed = []

    def verb():
        try:
            yield 3
            yield 4
            raise KeyboardInterrupt
        finally:
            closed.append(True)

    with pytest.raises(KeyboardInterrupt):
        follow(verb())
    assert closed == [True]
    assert capsys.readouterr().err == "stopped: 7 of 10 things are in PLACE; the same command goes on from there\n"


def test_an_error_of_the_verb_passes(capsys):
    def verb():
        yield 1
        raise MagnetError("no space")

    with pytest.raises(MagnetError, match="no space"):
        follow(verb())
    assert capsys.readouterr().err == ""


# --- groups of flags ----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    PANEL: ClassVar = "Shape"
    width: Annotated[int, typer.Option(help="Of it.")]
    label: options.Label = None
    space: options.Space = options.SpaceName.z


@dataclasses.dataclass(frozen=True)
class Request:
    width: int
    label: tuple = ()
    space: str = "z"
    path: Path | None = None


def grouped(*args):
    kept = []
    app = typer.Typer(rich_markup_mode=None)

    @app.command(cls=Command)
    @options.flatten
    def draw(shape: Shape, output: options.OutputFlags, n: int = 3) -> None:
        """Draw."""
        kept.append((shape, output, n))

    done = CliRunner().invoke(app, args, catch_exceptions=False)
    return done, kept


def test_a_command_gets_its_groups():
    done, kept = grouped("--width", "3", "--space", "w", "--label", "tabby", "--label", "4", "--json")
    assert done.exit_code == 0, done.stderr
    [(shape, output, n)] = kept
    assert (shape.width, shape.space, n) == (3, options.SpaceName.w, 3)
    assert shape.label == [ClassLabel(281, "tabby"), ClassLabel(4)]
    assert output.json
    assert output.console.as_json
    request = options.request(Request, shape, output, path=Path("x"))
    assert request == Request(3, ("tabby", 4), "w", Path("x"))
    assert options.request(Request, shape, width=5).width == 5
    assert type(request.space) is str


def test_a_field_without_default_is_required():
    done, kept = grouped()
    assert (done.exit_code, kept) == (2, [])
    assert "--width" in done.stderr


def test_a_value_that_the_request_does_not_have_is_a_bug():
    with pytest.raises(TypeError, match="colour"):
        options.request(Request, width=3, colour="red")


def test_help_shows_groups_under_their_headings():
    shown = grouped("--help")[0].stdout
    assert shown.index("Options:") < shown.index("--n ") < shown.index("Shape:") < shown.index("--width")
    assert shown.index("--space") < shown.index("Output:") < shown.index("--json") < shown.index("--help")


def test_a_reader_who_has_enough_ends_nothing():
    """`magnet list | head -1`: the pipe closes while the table is written."""
    line = f"{sys.executable} -m magnet_cli list --quiet | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_tables_keep_to_columns(magnet, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    wide = magnet("list").out
    monkeypatch.setenv("COLUMNS", "130")
    table = magnet("list")
    assert max(map(len, table.out.splitlines())) <= 130 < max(map(len, wide.splitlines()))
    assert len(table.out.splitlines()) > len(wide.splitlines())
    assert "handwritten" in table.out  # what the generators are
    assert "next: magnet fetch dcgan-digiface" in table.err  # a generator first
