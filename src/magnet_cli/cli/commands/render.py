"""magnet render."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from magnet_cli.cli import options
from magnet_cli.cli.console import command_line
from magnet_cli.files.text import quoted

Latents = Annotated[
    Path, typer.Option("--latents", metavar="FILE.npy", help="Latents, [n, D] floating numbers; as many images.")
]
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="FILE.npy",
        help="Labels for a conditional generator: [n] whole numbers, or one-hot [n, classes].",
        show_default=False,
    ),
]
Space = Annotated[
    options.SpaceName, typer.Option(help="Space of the latents: z, or w as the mapping network gives it.")
]
Format = Annotated[
    options.RenderFormat | None,
    typer.Option(
        "--format",
        help="png, jpg (quality 95), webp (lossless), or npy: one float32 array [n, C, H, W], images.npy.",
        show_default="png; npy where there are no images",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="The folder.", show_default="renders/<generator>-<latents' name and sha256>"),
]


@dataclass(frozen=True, kw_only=True)
class SettingFlags:
    """How the generator is used."""

    PANEL: ClassVar = "Generator"
    truncation: options.Truncation = 1.0
    bn_truncation: options.BnTruncation = None
    nvae_latents: options.Nvae = None


@options.flatten
def run(
    generator: options.GeneratorFlags,
    latents: Latents,
    settings: SettingFlags,
    work: options.WorkFlags,
    output: options.OutputFlags,
    labels: Labels = None,
    space: Space = options.SpaceName.z,
    format_: Format = None,
    out: Out = None,
    dry_run: options.DryRun = False,
    force: options.Force = False,
) -> None:
    """Render the images of latents in a file.

    The images are in the order of the latents, one file each, or with --format npy one float32 array of intensities in
    about [-1, 1]. A sample's latents are in its latents.npy, its labels in labels.npy. With --space w the latents are
    intermediate latents, for editing. Stop at any time: the same command goes on from there. Prints the folder;
    rendering.json in it says what the images were made of.

    \b
    Examples:
      magnet sample --n 16 --no-images --out picks
      magnet render --latents picks/latents.npy
      magnet render mnist --latents picks/latents.npy --format npy --truncation 0.7 --out raw --json
    """
    if space == "w" and labels:
        raise typer.BadParameter("labels are for z; --space w has them in the latents.", param_hint="--labels")
    from magnet_cli.cli import references
    from magnet_cli.sampling import render

    console, source = output.console, references.source(generator)
    files = {"latents": latents, "labels": labels, "space": space, "format": format_}
    request = options.request(render.RenderRequest, settings, work, **files, out=out, dry_run=dry_run, force=force)
    plan = render.plan(source, request)
    if plan.done or dry_run:
        would = f"{plan.spec.n:,} images would be written to {plan.folder}; nothing was done"
        console.note(would if dry_run else f"{plan.folder} already holds this rendering")
        console.result(plan.done or plan.report, str(plan.folder))
        return
    report = console.follow_images(render.run(plan, command_line()), plan.spec.n, plan.folder)
    console.result(report, str(plan.folder))
    console.hint(f"magnet info {quoted(plan.folder)} --check")
