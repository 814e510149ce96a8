"""magnet import."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_cli.cli import options, parsers
from magnet_cli.cli.console import Console
from magnet_cli.files.text import quoted

if TYPE_CHECKING:
    from magnet_cli.sharing.importing import ImportPlan

File = Annotated[Path, typer.Argument(metavar="FILE.npz", help="Arrays svds, latents and, with classes, labels.")]
Name = Annotated[str, typer.Argument(metavar="GENERATOR", help="Whose latents they are: a name, or a checkpoint.")]
Output = Annotated[str, typer.Option(metavar="NAME", help="Of what the Jacobian was taken: pixel, style, …")]
Class = Annotated[
    parsers.ClassLabel | None,
    typer.Option(
        "--label", parser=parsers.class_label, metavar="CLASS", help="Of all rows, where the file has no labels."
    ),
]
Family = Annotated[
    str | None, typer.Option(help="Of a checkpoint that this magnet cannot build.", show_default="by the file")
]


def run(
    file: File,
    generator: Name,
    output: Output = "pixel",
    space: options.Space = options.SpaceName.z,
    truncation: options.Truncation = 1.0,
    label: Class = None,
    family: Family = None,
    volume: options.VolumePath = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Make a volume of published arrays.

    An npz file, as the authors of MaGNET published them: svds and latents, one row a latent (leading axes are taken as
    rows), labels one-hot. Rows of zeros, which were never filled, are left out and counted; values are sorted; values
    that are negative or not finite are refused. The volume is indexed and drawn from like any other, and takes no rows
    of another solver. GENERATOR need not be in the cache: its name says which it is. Prints the volume's path.

    \b
    Examples:
      magnet import digits.npz mnist
      magnet import digits.npz mnist --volume digits-again.vol --json
    """
    from magnet_cli.sharing import importing

    console = Console(as_json=json, quiet=quiet)
    request = importing.ImportRequest(
        file=file,
        generator=generator,
        output=output,
        space=space.value,
        truncation=truncation,
        label=label.number if label else None,
        family=family,
        volume=volume,
    )
    plan = importing.plan(request)
    path, rows, before = plan.volume.path, plan.counts["rows"], plan.volume.num_rows
    report = console.follow(
        importing.run(plan),
        plan.num_missing,
        label=f"importing {file.name}",
        unit="rows",
        safe=lambda done: f"{before + done:,} of {rows:,} rows are safe in {path}",
    )
    console.result(report, str(path))
    _describe(plan, generator, console)


def _describe(plan: "ImportPlan", generator: str, console: Console) -> None:
    from magnet_cli.sampling import select

    counts = plan.counts
    if not plan.num_missing:
        console.note(f"{plan.volume.path} already holds these {counts['rows']:,} rows")
    if counts["dropped_rows"]:
        console.note(f"{counts['dropped_rows']:,} rows of zeros were left out: they were never filled")
    if counts["sorted_rows"]:
        console.note(f"in {counts['sorted_rows']:,} rows the singular values were put into descending order")
    if plan.spec.top_k < plan.archive.svds.width:
        family = plan.spec.family
        console.note(f"the last singular value is left out: {family} normalises z, along which no image changes")
    console.hint(f"magnet index {quoted(generator)}{select.flags_of(plan.volume)}")
