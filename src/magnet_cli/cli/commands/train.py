"""magnet train."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from magnet_cli.cli import options, parsers
from magnet_cli.cli.help import Command, Group
from magnet_cli.files.text import quoted

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Train a generator with a mixture as its prior (SLOGAN).",
)

Data = Annotated[
    str, typer.Option(metavar="DATA", help="A folder of images, an npz file of images or points, or synthetic.")
]
Components = Annotated[int, typer.Option(min=2, help="Number of mixture components, K.")]
Steps = Annotated[
    int | None, typer.Option(min=1, help="Number of training steps.", show_default="4000 for points, 2000 for images")
]
Probe = Annotated[
    Path | None, typer.Option(metavar="FILE", help="An npz file with a few labelled samples of each component.")
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Folder of the run.", show_default="runs/slogan-<data>-k<K>-seed<seed>"),
]
Resume = Annotated[bool, typer.Option("--resume", help="Only continue a run that exists.")]
Batch = Annotated[
    int | None, typer.Option(min=2, help="Draws and data per step.", show_default="128 for points, 32 for images")
]
Rate = Annotated[
    float | None,
    typer.Option(
        callback=parsers.positive,
        help="Adam's learning rate of generator and encoder; the critic's is twice that.",
        show_default="0.002 for points, 0.001 for images",
    ),
]
PriorRate = Annotated[
    float | None,
    typer.Option(
        callback=parsers.positive,
        help="Learning rate of weights and covariances; that of the means is ten times that.",
        show_default="0.02 for points, 0.03 for images",
    ),
]
Penalty = Annotated[
    float | None,
    typer.Option(
        callback=parsers.positive,
        help="Weight of the gradient penalty (R1).",
        show_default="0.02 for points, 1 for images",
    ),
]


@dataclass(frozen=True, kw_only=True)
class RecipeFlags:
    """Hyperparameters."""

    PANEL: ClassVar = "Hyperparameters"
    latent_dim: Annotated[int, typer.Option(min=2, help="Length of a latent, D.")] = 16
    batch: Batch = None
    width: Annotated[int, typer.Option(min=1, help="Channels of image networks at half of the side.")] = 16
    rate: Rate = None
    prior_rate: PriorRate = None
    contrast: Annotated[
        float, typer.Option(callback=parsers.positive, help="Initial weight of the contrastive loss.")
    ] = 4.0
    penalty: Penalty = None
    explicit: Annotated[
        bool, typer.Option("--explicit", help="Ablation: explicit reparameterisation instead of Stein's lemma.")
    ] = False
    no_contrastive: Annotated[
        bool, typer.Option("--no-contrastive", help="Ablation: generator and prior without the contrastive loss.")
    ] = False
    device: options.Device = None
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; rounding depends on them.")] = 1


@app.callback()
def main() -> None:
    """Train a generator with a mixture as its prior (SLOGAN)."""


@app.command("slogan", cls=Command)
@options.flatten
def slogan(
    data: Data,
    components: Components,
    recipe: RecipeFlags,
    output: options.OutputFlags,
    steps: Steps = None,
    seed: options.Seed = 0,
    out: Out = None,
    probe: Probe = None,
    resume: Resume = False,
    dry_run: options.DryRun = False,
    force: options.Force = False,
) -> None:
    """Train a GAN whose prior is a learned Gaussian mixture.

    SLOGAN (Hwang et al., ICLR 2022) learns the means, covariances and weights of K components together with the
    networks, by Stein's lemma: each component becomes one attribute, its weight that attribute's share of the data.
    Training uses no labels; where they are known (one folder per class, labels in the npz file), the metrics use them.
    The folder holds a generator like any other, with the components as labels, in a safetensors file of the folder's
    name, log.jsonl and grids/. Stop or kill it at any time: the same command continues, and ends at the same weights.
    Prints the folder.

    \b
    Examples:
      magnet train slogan --data synthetic --components 8 --steps 40 --out rings
      magnet train slogan --data synthetic --components 8 --steps 40 --out plain --no-contrastive --json
    """
    from magnet_cli.training.slogan import train

    console = output.console
    typed = {"data": data, "components": components, "steps": steps, "seed": seed, "out": out, "probe": probe}
    request = options.request(train.TrainRequest, recipe, **typed, resume=resume, force=force)
    plan = train.plan(request)
    path, total = plan.folder.path, plan.spec.recipe.steps
    if plan.report:
        console.note(f"{path} already holds this run, finished")
        console.result(plan.report, str(path))
        return
    if dry_run:
        console.note(f"{total:,} steps would be trained in {path}; nothing was done")
        console.result({"run": str(path), "steps": total, "begun": plan.begun}, str(path))
        return
    safe = f"of {total:,} steps are safe in {path}"
    report = console.follow(
        train.run(plan), total, label="training slogan", unit="steps", safe=lambda done: f"{done:,} {safe}"
    )
    for line in train.summary(report):
        console.note(line)
    console.result(report, str(path))
    console.hint(f"magnet compute {quoted(report['generator'])} --n 2000")
