"""magnet sample."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from magnet_cli.cli import options, parsers
from magnet_cli.cli.console import Console, command_line
from magnet_cli.files.text import quoted

if TYPE_CHECKING:
    from magnet_cli.sampling.sample import SamplePlan

Images = Annotated[int, typer.Option("--n", "-n", min=1, help="Number of images.")]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH", help="The sample's folder.", show_default="samples/<generator>-rho<rho>-n<n>-seed<seed>"
    ),
]
Replace = Annotated[
    bool, typer.Option("--replace", help="Draw with replacement: rows of large weight come up more than once.")
]
Pool = Annotated[
    int | None,
    typer.Option(min=1, help="Only the first so many rows of the volume compete.", show_default="all rows"),
]
Classes = Annotated[
    options.Shares,
    typer.Option(help="Of a conditional generator: classes as their weights say, or the same number of each."),
]
Mix = Annotated[
    float, typer.Option(min=0, max=1, help="Share of draws by weight; the rest are draws of the generator as it is.")
]
CorrectPrior = Annotated[
    bool, typer.Option("--correct-prior", help="Divide weights by the density of the prior, where it is not uniform.")
]
PriorMass = Annotated[
    float | None,
    typer.Option(
        callback=parsers.share,
        help="With --correct-prior: rows compete in the ball that holds this share of a normal prior.",
        show_default="0.99",
    ),
]
Truncations = Annotated[
    tuple,
    typer.Option(
        "--truncation",
        parser=parsers.truncations,
        metavar="PSI",
        help="ψ in (0, 1], as for compute; 1 is no truncation. With --montage several, as 1,.7,.5.",
    ),
]
Montage = Annotated[
    bool,
    typer.Option("--montage", help="Write montage.png: for each ψ of --truncation a row of the prior, and of these."),
]
Format = Annotated[
    options.ImageFormat | None,
    typer.Option("--format", help="Format of the images; jpg at quality 95, webp lossless.", show_default="png"),
]
Method = Annotated[
    options.Method,
    typer.Option(help="Choose rows of the volume by weight, or temper: compute new latents, for a larger rho."),
]
Particles = Annotated[
    int | None,
    typer.Option(min=8, help="With --method tempered: number of latents of an island.", show_default="128"),
]


@dataclass(frozen=True, kw_only=True)
class DrawFlags:
    """How latents are drawn."""

    PANEL: ClassVar = "Draw"
    replace: Replace = False
    mix: Mix = 1.0
    pool: Pool = None
    classes: Classes = options.Shares.natural
    correct_prior: CorrectPrior = False
    prior_mass: PriorMass = None
    method: Method = options.Method.reweight
    particles: Particles = None


@dataclass(frozen=True, kw_only=True)
class VolumeFlags(options.VolumeFlags):
    """Which volume; several truncations for the montage."""

    truncation: Truncations = "1"  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True)
class FileFlags:
    """What is written."""

    PANEL: ClassVar = "Files"
    format: Format = None
    no_images: options.NoImages = False
    montage: Montage = False


@options.flatten
def run(
    generator: options.GeneratorFlags,
    volume: VolumeFlags,
    draw: DrawFlags,
    files: FileFlags,
    work: options.WorkFlags,
    output: options.OutputFlags,
    n: Images = 64,
    rho: options.Rho = 1.0,
    seed: options.Seed = 0,
    out: Out = None,
    dry_run: options.DryRun = False,
    force: options.Force = False,
) -> None:
    """Draw latents by volume and render them.

    Each row of the volume has weight exp(rho * log-volume). rho 0 is the generator as it is, rho < 0 goes to its modes,
    rho > 0 to its anti-modes; rho 1 is MaGNET: with a uniform prior the draws are uniform on the manifold, with a
    Gaussian prior, as here, their density on it follows that prior (unless with --correct-prior), and with --space
    w that of w. Effective size and displaced share say how far the draw is what the weights ask for. The first m of n
    images are those of --n m. Prints the folder: images, latents.npy, metadata.jsonl, sample.json, grid.png. Stop at
    any time: the same command goes on from there. --montage adds the figure of the papers: for each ψ of --truncation a
    row of draws from the prior above a row of these draws.

    --method tempered moves islands of new latents from the prior to rho step by step, and computes their Jacobians with
    the volume's solver: for a rho at which the weights rest on a few rows of the volume. The cost is printed first
    (--dry-run); what was computed is kept, and a stopped run goes on.

    \b
    Examples:
      magnet sample --n 64 --rho 0.5
      magnet sample mnist --n 200 --rho -1 --seed 3 --out modes --json
      magnet sample mnist --n 100 --rho 0.5 --mix 0.25 --pool 10000 --out mixed
      magnet sample mnist --n 100 --rho 0.3 --correct-prior --out corrected
      magnet sample --rho 0.5 --montage --truncation 1,.9,.7,.5 --format webp --out figure
      magnet sample --n 5000 --rho 0.2 --no-images
      magnet sample --n 32 --rho 0.3 --method tempered --particles 16
    """
    _check(volume, draw, files)
    from magnet_cli.cli import references
    from magnet_cli.sampling import kinds, sample

    truncation, montage = volume.truncation[0], volume.truncation if files.montage else ()
    values = {"n": n, "rho": rho, "seed": seed, "out": out, "dry_run": dry_run, "force": force}
    groups = (volume, draw, files, work)
    request = options.request(sample.SampleRequest, *groups, **values, truncation=truncation, montage=montage)
    console, source = output.console, references.source(generator, here=request.needs_generator)
    plan = sample.plan(source, request, console)
    if plan.done or dry_run:
        what = f"{n:,} {'latents' if files.no_images else 'images'}"
        would = f"{what} would be written to {plan.folder}; nothing was done"
        console.note(would if dry_run else f"{plan.folder} already holds this sample")
        console.result(plan.report if dry_run else plan.done or {}, str(plan.folder))
        return
    _temper(plan, console)
    report = console.follow_images(sample.run(plan, command_line(), console), plan.report["images"], plan.folder)
    console.result(report, str(plan.folder))
    if report.get("grid"):
        console.note(f"look at {plan.folder / (kinds.MONTAGE if montage else kinds.GRID)}")
    console.hint(_next(plan))


def _check(volume: VolumeFlags, draw: DrawFlags, files: FileFlags) -> None:
    """Refuse flags that contradict each other."""
    if len(volume.truncation) > 1 and not files.montage:
        raise _misuse("--truncation", "several are for the rows of --montage; without it pass one.")
    for flag in (["--format"] * bool(files.format) + ["--montage"] * files.montage) * files.no_images:
        raise _misuse(flag, "it is of images, and --no-images writes none.")
    if draw.prior_mass is not None and not draw.correct_prior:
        raise _misuse("--prior-mass", "it is the mass of the ball of --correct-prior; pass that too.")
    if draw.method != "tempered":
        if draw.particles:
            raise _misuse("--particles", "it is for --method tempered; rows of a volume are drawn here.")
        return
    of_rows = {"--replace": draw.replace, "--pool": draw.pool is not None, "--classes": draw.classes == "equal"}
    of_rows |= {"--mix": draw.mix < 1, "--correct-prior": draw.correct_prior}
    for flag in (flag for flag, is_set in of_rows.items() if is_set):
        raise _misuse(flag, "it says which rows of a volume are drawn, and --method tempered draws none.")


def _misuse(flag: str, message: str) -> typer.BadParameter:
    return typer.BadParameter(message, param_hint=flag)


def _temper(plan: "SamplePlan", console: Console) -> None:
    if plan.tempered and plan.tempered.measure:
        safe = f"what was computed is in {plan.tempered.run.path}"
        console.follow(
            plan.tempered.steps(), plan.tempered.cost, label="tempering", unit="Jacobians", safe=lambda _: safe
        )


def _next(plan: "SamplePlan") -> str:
    """The command that makes the images of a sample without, or checks the sample."""
    if not plan.spec.no_images:
        return f"magnet info {quoted(plan.folder)} --check"
    from magnet_cli.sampling import select

    labels = f" --labels {quoted(plan.folder / 'labels.npy')}" * bool(plan.volume.spec.num_classes)
    return f"magnet render {select.reference(plan.source)} --latents {quoted(plan.folder / 'latents.npy')}{labels}"
