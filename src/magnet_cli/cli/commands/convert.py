"""magnet convert."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from magnet_cli.cli import completion, options
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


def run(
    checkpoint: Reference,
    out: Out,
    force: options.Force = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Write a checkpoint as safetensors, a format without code.

    Reads what `magnet compute` reads: safetensors, files of torch.save, network pickles of StyleGAN codes; nothing in
    them is run. Tensors keep their names and values; what names and shapes do not tell (as a clamp) is written beside
    them. Prints the path.

    \b
    Examples:
      magnet convert mnist digits.safetensors
      magnet convert mnist digits.safetensors --force --json
    """
    from magnet_cli import models
    from magnet_cli.catalog.checkpoint import Checkpoint

    console = Console(as_json=json, quiet=quiet)
    if out.suffix != ".safetensors":
        message = f"{str(out)!r} is not the name of a safetensors file; let it end in .safetensors."
        raise typer.BadParameter(message)
    written = models.convert(Checkpoint.find(checkpoint), out, force=force)
    console.result(dataclasses.asdict(written), written.out)
    console.hint(f"magnet compute {quoted(written.out)}")
