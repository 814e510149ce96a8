"""magnet sweep."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from magnet_cli.cli import options, parsers
from magnet_cli.cli.commands.evaluate import Features, NearestK
from magnet_cli.cli.console import command_line
from magnet_cli.cli.help import OUTPUT
from magnet_cli.files.text import quoted

Rhos = Annotated[
    tuple,
    typer.Option(
        "--rho",
        parser=parsers.rhos,
        metavar="RHO,...",
        help="Polarities, as -1,-.3,.3,1; 0, the generator as it is, is always added.",
    ),
]
Truncations = Annotated[
    tuple,
    typer.Option(
        "--truncation",
        parser=parsers.truncations,
        metavar="PSI,...",
        help="ψ in (0, 1], several as 1,.7,.5: every rho at each.",
    ),
]
Images = Annotated[int, typer.Option("--n", "-n", min=40, help="Number of images a point.")]
Reference = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="Folder or sample to compare with.",
        show_default="new draws from the generator's prior: metrics are then drifts from it",
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Image model whose classes are counted; repeatable.",
        show_default=False,
    ),
]
Pick = Annotated[
    options.Pick | None,
    typer.Option(
        help="Figure that picks the best point; gap and total-variation use the first --model.",
        show_default="fid with --reference, else total-variation with --model, else none",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="Folder of the sweep.",
        show_default="sweeps/<generator>-n<n>-seed<seed>",
        rich_help_panel=OUTPUT,
    ),
]


@dataclass(frozen=True, kw_only=True)
class GridFlags:
    """Which points, and how they are measured."""

    PANEL: ClassVar = "Options"
    rho: Rhos = "-1,-.5,-.2,-.1,.1,.2,.5,1"  # type: ignore[assignment]  # Typer parses it
    n: Images = 1000
    reference: Reference = None
    model: Models = None
    pick: Pick = None
    features: Features = None
    nearest_k: NearestK = 5
    seed: options.Seed = 0


@dataclass(frozen=True, kw_only=True)
class VolumeFlags(options.VolumeFlags):
    """Which volumes."""

    truncation: Truncations = "1"  # type: ignore[assignment]  # Typer parses it


@dataclass(frozen=True, kw_only=True)
class OutputFlags(options.OutputFlags):
    """Where the sweep goes."""

    out: Out = None
    dry_run: options.DryRun = False
    force: options.Force = False


@options.flatten
def run(
    generator: options.GeneratorFlags,
    grid: GridFlags,
    volume: VolumeFlags,
    work: options.WorkFlags,
    output: OutputFlags,
    trust: options.Trust = False,
) -> None:
    """Measure samples at many rho and choose one.

    At every rho (and every ψ of --truncation) a sample is drawn from the volume and compared with the reference, its
    classes are counted, and all figures are plotted. The best point is picked on one half of the volume's rows and of
    the reference, and reported with rho 0 on the other halves, so that the choice does not bias its figures. Images and
    features of a row are computed once, however many points have it. Stop at any time: the same command goes on from
    there. Prints the folder: sweep.json, plots/, samples/.

    \b
    Examples:
      magnet sweep --rho -.2,.2 --n 100 --model digits
      magnet sweep mnist --rho .3 --n 100 --truncation 1,.8 --pick recall --out front --json
    """
    from magnet_cli.cli import references
    from magnet_cli.evaluating import sweep

    console = output.console
    request = options.request(sweep.SweepRequest, grid, volume, work, output, trust=trust)
    plan = sweep.plan(references.source(generator), request, console)
    if plan.done or output.dry_run:
        console.result(plan.report | {"seconds": None} if output.dry_run else plan.done or {}, str(plan.out))
        return
    points = len(plan.spec.rho) * len(plan.spec.truncation)
    report = console.follow(
        sweep.run(plan, command_line(), console.progress, console),
        0,  # the stages of a point have bars of their own
        label="points",
        unit="points",
        safe=lambda done: f"{done} of {points} points are whole in {plan.out}",
        count=lambda _point: 1,
    )
    console.result(report, str(plan.out))
    console.hint(f"magnet info {quoted(plan.out)} --check")
