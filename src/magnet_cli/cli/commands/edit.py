"""magnet edit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from magnet_cli.cli import completion, options
from magnet_cli.cli.commands.render import Labels
from magnet_cli.cli.console import Console, command_line
from magnet_cli.cli.help import OUTPUT

DirectionFile = Annotated[
    Path,
    typer.Option(
        "--direction", metavar="FILE.npy", help="Direction of `magnet direction`, or a boundary of InterFaceGAN."
    ),
]
Latents = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.npy",
        help="Latents in the space, [n, D] floating numbers; the first --n are used.",
        show_default="drawn by --seed",
    ),
]
N = Annotated[int, typer.Option("--n", "-n", min=1, help="Number of latents, one row of images each.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of drawn latents.", show_default="0")]
From = Annotated[float, typer.Option("--from", help="Distance of the first step, in units of the space.")]
To = Annotated[float, typer.Option("--to", help="Distance of the last step.")]
Steps = Annotated[int, typer.Option(min=2, max=1000, help="Images a row.")]
Space = Annotated[
    options.SpaceName | None,
    typer.Option(help="Space of the direction: z, or w.", show_default="as the direction says; z"),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        autocompletion=completion.image_models,
        metavar="NAME",
        help="Image model that scores each image, as for attributes; repeatable.",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="Folder of the edit.",
        show_default="edits/<generator>-<direction>-seed<seed>",
        rich_help_panel=OUTPUT,
    ),
]

_FARTHEST = 10**6  # units of the space


@dataclass(frozen=True, kw_only=True)
class MoveFlags:
    """Which latents, and how they are moved."""

    PANEL: ClassVar = "Options"
    direction: DirectionFile
    n: N = 8
    from_: From = -3.0
    to: To = 3.0
    steps: Steps = 7
    model: Models = None
    latents: Latents = None
    labels: Labels = None
    seed: Seed = None
    label: options.Label = None
    space: Space = None
    truncation: options.Truncation = 1.0


@dataclass(frozen=True, kw_only=True)
class OutputFlags(options.OutputFlags):
    """Where the edit goes."""

    out: Out = None
    force: options.Force = False


@options.flatten
def run(
    generator: options.GeneratorFlags,
    move: MoveFlags,
    work: options.WorkFlags,
    output: OutputFlags,
    trust: options.Trust = False,
) -> None:
    """Move latents along a direction and render each step.

    Each latent gives a row of images: z + a · direction, for evenly spaced a from --from to --to; 0 is the latent
    itself. With --space w drawn latents are mapped to w and moved there. With --model the mean probability of each
    class is printed for each step; those of each image are in scores.npz and metadata.jsonl. Stop at any time: the same
    command goes on from there. Prints the folder: images, latents.npy, metadata.jsonl, edit.json, and grid.png with one
    line for each latent.

    \b
    Examples:
      magnet edit mnist --direction one.npy
      magnet edit mnist --direction one.npy --seed 3 --n 4 --from 0 --to 6 --steps 9 --model digits --out ones --json
    """
    _check_flags(move)
    from magnet_cli.cli import references
    from magnet_cli.editing import edit

    console = output.console
    request = options.request(edit.EditRequest, move, work, output, trust=trust)
    plan = edit.plan(references.source(generator), request, console)
    if plan.done:
        console.result(plan.done, str(plan.out))
        return
    images = plan.num_images
    report = console.follow(
        edit.run(plan, command_line()),
        plan.work,
        label="editing",
        unit="images",
        safe=lambda done: f"{min(done, images):,} or more of {images:,} images are in {plan.out}",
    )
    _show_scores(console, report)
    console.result(report, str(plan.out))
    console.note(f"look at {report['grid']}")


def _check_flags(move: MoveFlags) -> None:
    """Refuse flags that contradict each other."""
    wrong = {
        "--seed": (move.latents and move.seed is not None, "it is for drawn latents, and --latents are given."),
        "--label": (move.latents and move.label, "it is for drawn latents, and --latents are given; pass --labels."),
        "--labels": (move.labels and not move.latents, "they belong to --latents; for drawn latents pass --label."),
        "--from": (not abs(move.from_) <= _FARTHEST, f"it is not a number of at most {_FARTHEST:,} in size."),
        "--to": (
            not abs(move.to) <= _FARTHEST or move.from_ == move.to,
            f"it is not a number of at most {_FARTHEST:,} in size, other than --from.",
        ),
    }
    for flag, (is_wrong, message) in wrong.items():
        if is_wrong:
            raise typer.BadParameter(message, param_hint=flag)


def _show_scores(console: Console, report: dict) -> None:
    header = ["mean probability", "of", *(f"{moved:+g}" for moved in report["moved"])]
    rows = [
        [model, name, *(f"{value:.3f}" for value in means)]
        for model, classes in report["scores"].items()
        for name, means in classes.items()
    ]
    if rows:
        console.note_table(header, rows)
