"""magnet convert."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from magnet_cli.cli import completion, options, parsers
from magnet_cli.cli.console import Console
from magnet_cli.files.text import quoted

Reference = Annotated[
    str,
    typer.Argument(
        metavar="CHECKPOINT",
        help="Path of a checkpoint, or name of a generator.",
        autocompletion=completion.generators,
    ),
]
Out = Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="The file to write.")]

Settings = Annotated[
    list[tuple] | None,
    typer.Option(
        "--setting",
        parser=parsers.setting,
        metavar="NAME=VALUE",
        help="What weights do not tell, as final=sigmoid or paddings=[0,1,1,3]; repeatable.",
        show_default="as the file says",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(metavar="KEY", help="Which weights, if the file holds several.", show_default="the averaged ones"),
]


def run(
    checkpoint: Reference,
    out: Out,
    family: options.Family = None,
    weights: Weights = None,
    setting: Settings = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Write a checkpoint as safetensors, a format without code.

    Reads what `magnet compute` reads: safetensors, files of torch.save, network pickles of StyleGAN codes; nothing in
    them is run. Tensors keep their values, and their names but for a prefix; what names and shapes do not tell (as a
    clamp) is written beside them: `magnet info` shows what is assumed, --setting says otherwise. Prints the path.

    \b
    Examples:
      magnet convert mnist digits.safetensors
      magnet convert mnist digits.safetensors --setting final=sigmoid --force --json
    """
    from magnet_cli import models
    from magnet_cli.catalog.checkpoint import Checkpoint

    console = Console(as_json=json, quiet=quiet)
    if out.suffix != ".safetensors":
        message = f"{str(out)!r} is not the name of a safetensors file; let it end in .safetensors."
        raise typer.BadParameter(message)
    source, settings = Checkpoint.find(checkpoint, family=family or ""), dict(setting or ())
    written = models.convert(source, out, weights=weights or "", settings=settings, force=force)
    console.result(dataclasses.asdict(written), written.out)
    console.hint(f"magnet compute {quoted(written.out)}")
