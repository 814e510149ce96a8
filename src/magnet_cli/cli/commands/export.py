"""magnet export."""

from pathlib import Path
from typing import Annotated

import typer

from magnet_cli.cli import completion, options
from magnet_cli.cli.console import Console

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
    from magnet_cli.sharing import npz

    console = Console(as_json=json, quiet=quiet)
    found = named_volume(volume)
    rows = found.num_rows
    if not force and npz.exported(found, file):
        console.note(f"{file} already holds these {rows:,} rows")
    else:
        first = next((shard for _, shard in found.rows()), None)
        arrays = 2 + bool(first and first.labels is not None)
        with console.progress(f"exporting {found.spec.generator}", arrays * rows, "rows of arrays") as advance:
            for written in npz.export(found, file):
                advance(written)
    console.result({"file": str(file), "rows": rows, "volume": str(found.path)}, str(file))
    console.hint(f"magnet import {file} {found.spec.generator}")
