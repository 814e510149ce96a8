"""The Typer app: registers the commands. Imports no heavy library, so that --help and usage errors answer at once."""

import signal
from types import FrameType
from typing import Annotated

import typer

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
from magnet_cli.cli.help import Command, Root, Terminated

app = typer.Typer(
    cls=Root,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def _version(value: bool) -> None:
    if value:
        console.Console().result({}, f"magnet {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Sample the manifold of a pretrained generator: uniformly, towards its modes, or away from them.

    A tour, on the generator that comes with magnet:

    \b
      magnet list                            what can be fetched, and what is here
      magnet sample --n 64 --rho 0.5         64 images drawn by volume, and a contact sheet
      magnet compute --n 20000               the singular values that images are drawn by
      magnet index                           how far rho can go
      magnet fetch dcgan-digiface            download a generator of faces
    """
    signal.signal(signal.SIGTERM, _terminate)


PANELS = {
    "Get a generator": {"list": list_, "fetch": fetch, "convert": convert, "info": info},
    "Volumes": {"compute": compute, "index": index, "import": import_, "export": export, "push": push},
    "Sampling": {"sample": sample, "render": render},
    "Judging": {"evaluate": evaluate, "sweep": sweep, "report": report},
    "Attributes": {"attributes": attributes, "balance": balance, "direction": direction, "edit": edit},
}
for panel, commands in PANELS.items():
    for name, module in commands.items():
        app.command(name, cls=Command, rich_help_panel=panel)(module.run)
app.add_typer(train.app, name="train", rich_help_panel="Training")
app.add_typer(cache.app, name="cache", rich_help_panel="Cache")
