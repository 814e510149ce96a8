"""magnet export."""

from pathlib import Path
from typing import Annotated

import typer

from magnet_cli.cli import completion, options
from magnet_cli.cli.console import Console
from magnet_cli.files.text import quoted

Reference = Annotated[
    str,
    typer.Argument(
        metavar="VOLUME",
        help="A volume's folder, or the name of a published one.",
        autocompletion=completion.volumes,
    ),
]
File = Annotated[Path, typer.Argument(metavar="FILE.npz", help="The file to write.")]


def run(
    volume: Reference,
    file: File,
    force: options.Force = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Write a volume as published arrays, one .npz file.

    An npz file with svds [N, K], latents [N, D] and, where there are classes, labels [N, C], one-hot; all float32. It
    appears whole or not at all; `magnet import` makes the same rows of it. Prints the file's path.

    \b
    Examples:
      magnet export mnist-volume digits.npz
      magnet export mnist-volume digits.npz --force --json
    """
    from magnet_cli.sampling.select import named_volume
    from magnet_cli.sharing import exporting

    console = Console(as_json=json, quiet=quiet)
    source = named_volume(volume)
    rows = source.num_rows
    if not force and exporting.is_export(source, file):
        console.note(f"{file} already holds these {rows:,} rows")
    else:
        steps = exporting.num_steps(source)
        with console.progress(f"exporting {source.spec.generator}", steps, "rows of arrays") as advance:
            for written in exporting.export(source, file):
                advance(written)
    console.result({"file": str(file), "rows": rows, "volume": str(source.path)}, str(file))
    again = quoted(f"{file.stem}-again.vol")
    console.hint(f"magnet import {quoted(file)} {quoted(source.spec.generator)} --volume {again}")
