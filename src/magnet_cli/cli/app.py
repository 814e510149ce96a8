"""The Typer app: registers the commands, and turns a MagnetError into text once.

Owns nothing else. Imports no heavy library, so that --help and usage errors answer at once.
"""

import signal
from types import FrameType
from typing import Annotated

import typer
from typer.core import TyperGroup

from magnet_cli import __version__
from magnet_cli.cli import console
from magnet_cli.cli.commands import (
    attributes,
    balance,
    cache,
    compute,
    convert,
    direction,
    edit,
    evaluate,
    export,
    fetch,
    import_,
    index,
    info,
    push,
    render,
    report,
    sample,
    sweep,
    train,
)
from magnet_cli.cli.commands import list as list_
from magnet_cli.errors import MagnetError


class Terminated(KeyboardInterrupt):
    """SIGTERM: stops as Ctrl-C does, with another exit code."""


class _Group(TyperGroup):
    """Where errors become text. A bug is no MagnetError and keeps its traceback."""

    def invoke(self, ctx: typer.Context) -> object:
        try:
            return super().invoke(ctx)
        except MagnetError as error:
            console.show_error(error)
            raise typer.Exit(1) from error
        except Terminated as stop:
            raise typer.Exit(143) from stop
        except KeyboardInterrupt as stop:
            raise typer.Exit(130) from stop


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def _version(asked: bool) -> None:
    if asked:
        console.Console().result({}, f"magnet {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Sample the manifold of a pretrained generator: uniformly, towards its modes, or away from them.

    A tour, on the generator that comes with magnet:

    \b
      magnet list                            what there is
      magnet sample --n 64 --rho 0.5         64 images drawn by volume, and a contact sheet
      magnet compute --n 20000               the singular values they are drawn by, once
      magnet index                           how far rho can go
      magnet fetch dcgan-digiface            a face generator that somebody else trained
    """
    signal.signal(signal.SIGTERM, _terminate)


_COMMANDS = {"list": list_, "fetch": fetch, "compute": compute, "index": index, "sample": sample, "render": render}
_COMMANDS |= {"evaluate": evaluate, "attributes": attributes, "sweep": sweep, "report": report, "info": info}
_COMMANDS |= {"balance": balance, "direction": direction, "edit": edit}
_COMMANDS |= {"import": import_, "export": export, "convert": convert, "push": push}
for name, module in _COMMANDS.items():
    app.command(name)(module.run)
app.add_typer(cache.app, name="cache")
app.add_typer(train.app, name="train")
