"""magnet sample."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_cli.cli import console as console_
from magnet_cli.cli import options, parsers, tempering
from magnet_cli.cli.commands.render import follow

if TYPE_CHECKING:
    from magnet_cli.cli import lookup
    from magnet_cli.models import Generator
    from magnet_cli.volume import Volume

Images = Annotated[int, typer.Option("--n", min=1, help="Images.")]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH", help="The sample's folder.", show_default="samples/<generator>-rho<rho>-n<n>-seed<seed>"
    ),
]
Replace = Annotated[bool, typer.Option("--replace", help="Draw with replacement: heavy rows come up more than once.")]
Pool = Annotated[
    int | None,
    typer.Option(min=1, help="Only so many rows of the volume, its first, compete.", show_default="all rows"),
]
Classes = Annotated[
    options.Shares,
    typer.Option(help="Of a conditional generator: classes as their weights say, or the same number of each."),
]
Mix = Annotated[float, typer.Option(min=0, max=1, help="Share of draws by weight; the rest are the generator's own.")]
CorrectPrior = Annotated[
    bool, typer.Option("--correct-prior", help="Divide weights by the density of the prior, where that is not uniform.")
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
        help="ψ in (0, 1], as for compute; 1 is none. With --montage several, as 1,.7,.5.",
    ),
]
Montage = Annotated[
    bool, typer.Option("--montage", help="montage.png too: for each ψ of --truncation draws from the prior, and these.")
]
Format = Annotated[
    options.ImageFormat | None,
    typer.Option("--format", help="Of the images; jpg at quality 95, webp without loss.", show_default="png"),
]
Method = Annotated[
    options.Method,
    typer.Option(help="Choose rows of the volume by weight, or temper: compute fresh latents, for a rho beyond those."),
]
Particles = Annotated[
    int | None, typer.Option(min=8, help="Latents of an island of --method tempered.", show_default="128")
]


def run(
    generator: options.Generator = "mnist",
    n: Images = 64,
    rho: options.Rho = 1.0,
    top_k: options.TopK = None,
    truncation: Truncations = "1",
    bn_truncation: options.BnTruncation = None,
    space: options.Space = options.SpaceName.z,
    output: options.Output = "pixel",
    label: options.Label = None,
    nvae_latents: options.Nvae = None,
    latent_dim: options.LatentDim = None,
    prior: options.Prior = None,
    image_range: options.ImageRange = None,
    solver: options.AnySolver = None,
    precision: options.AnyPrecision = None,
    seed: options.Seed = 0,
    replace: Replace = False,
    pool: Pool = None,
    classes: Classes = options.Shares.natural,
    mix: Mix = 1.0,
    correct_prior: CorrectPrior = False,
    prior_mass: PriorMass = None,
    image_format: Format = None,
    no_images: options.NoImages = False,
    montage: Montage = False,
    method: Method = options.Method.reweight,
    particles: Particles = None,
    volume: options.VolumePath = None,
    out: Out = None,
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    dry_run: options.DryRun = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Draw latents by volume and render them.

    Each row of the volume has weight exp(rho * log-volume). rho 0 is the generator as it is, rho < 0 goes to its modes,
    rho > 0 to its anti-modes; rho 1 is MaGNET: with a uniform prior the draws are uniform on the manifold, with a
    Gaussian prior, as here, their density on it follows that prior (unless --correct-prior is given), and with --space
    w that of w. Effective size and displaced share say how far the draw is what the weights ask for. The first m of n
    images are those of --n m. Prints the folder: images, latents.npy, metadata.jsonl, sample.json, grid.png. Stop at
    any time: the same command goes on from there. --montage adds the figure of the papers: for each ψ of --truncation a
    row of draws from the prior above a row of these.

    --method tempered takes islands of fresh latents from the prior to rho step by step, and computes their Jacobians
    with the volume's solver: where the weights of a volume rest on a few rows. What that costs is said first
    (--dry-run); it is kept, and goes on where it was stopped.

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
    _check_flags(truncation, image_format, no_images=no_images, montage=montage)
    _check_mass(prior_mass, correct_prior=correct_prior)
    of_rows = {"replace": replace, "pool": pool is not None, "classes": classes == "equal", "mix": mix < 1}
    size = _particles(method, particles, **of_rows, correct_prior=correct_prior)
    from magnet_cli import index
    from magnet_cli.cli import lookup
    from magnet_cli.sampling import sample

    start = time.monotonic()
    console = console_.Console(as_json=json, quiet=quiet)
    flags = {"latent_dim": latent_dim, "prior": options.plain(prior), "image_range": image_range}
    checkpoint = lookup.source(generator, here=size > 0 or not no_images, **flags)
    psi, *_ = truncation
    wanted = lookup.Wanted(
        top_k,
        space.value,
        output,
        psi,
        options.chosen(solver),
        options.chosen(precision),
        label=options.numbers(label),
        bn_truncation=options.statistics(bn_truncation, psi),
        nvae_latents=options.plain(nvae_latents) or "top",
    )
    found = lookup.volume_for_rendering(checkpoint, console, volume, wanted)
    options.check_names(label, checkpoint.name, found.spec.num_classes)
    built, _ = lookup.index_of(found, top_k, console)
    built = lookup.corrected(built, found, console, prior_mass, psi) if correct_prior else built
    built = index.of_labels(index.first(built, pool), found, wanted.label, equal=classes == "equal")
    spec = sample.SampleSpec(
        generator=checkpoint.name,
        sha256=checkpoint.sha256,
        fingerprint=found.fingerprint,
        pool=0 if size else built.num_rows,
        n=n,
        rho=rho,
        top_k=built.top_k,
        seed=seed,
        replace=replace,
        truncation=psi,
        label=wanted.label,
        bn_truncation=wanted.bn_truncation,
        classes=classes.value,
        mix=mix,
        correct_prior=correct_prior,
        prior_mass=built.ball.prior_mass if built.ball else 0.0,
        format=options.plain(image_format) or "png",
        no_images=no_images,
        montage=truncation if montage else (),
        method=method.value,
        particles=size,
    )
    folder = out or sample.default_out(spec)
    settings = options.settings(bn_truncation, found.spec.nvae_latents or None)
    done = None if force else sample.finished(folder, spec)
    if size:
        fresh = tempering.Tempering(checkpoint, found, built, spec, output, device, settings)
        report = sample.described(spec, folder) | fresh.planned(console, announce=dry_run or not done)
    else:
        drawn = index.draw(built, n, rho, seed, replace=replace, mix=mix)
        report = sample.described(spec, folder) | sample.numbers(spec, drawn)
        report |= {"target": index.target(built, rho, found.spec, drawn, psi), "rescaled": index.rescales(found.spec)}
        _tell(console, report, index.warnings(drawn, rho, replace=replace))
    report |= {"seconds": None}
    if dry_run or done:
        what = "latents" if no_images else "images"
        would = f"{n:,} {what} would be written to {folder}; nothing was done"
        console.note(would if dry_run else f"{folder} already holds this sample")
        console.result(report if dry_run else done, str(folder))
        return
    if size:
        drawn = fresh.draw(console, report)
    shown = "montage.png" if montage else image_format or "npy"
    loaded = None if no_images else _loaded(checkpoint, device, shown, dict(settings))
    if force:
        sample.discard(folder)
    follow(sample.write(folder, spec, drawn, found, loaded, batch_size), report["images"], folder, console)
    report["seconds"] = round(time.monotonic() - start, 3)
    sample.finish(folder, spec, drawn, found, ["magnet", *sys.argv[1:]], report)
    console.result(report, str(folder))
    if loaded and loaded.gives_images:
        console.note(f"look at {folder / ('montage.png' if montage else 'grid.png')}")
    console.hint(_rendering(checkpoint.reference, folder, found) if no_images else f"magnet info {folder} --check")


def _rendering(reference: str, folder: Path, volume: "Volume") -> str:
    """The command that makes the images of a sample without."""
    labels = f" --labels {folder / 'labels.npy'}" * bool(volume.spec.num_classes)
    return f"magnet render {reference} --latents {folder / 'latents.npy'}{labels}"


def _loaded(checkpoint: "lookup.Source", device: str | None, shown: str, settings: dict) -> "Generator":
    """The generator that makes the images, which are to be shown in a format.

    Raises:
        ArtifactError, GeneratorError: as `models.load`.
        SpecError: it gives none, and a format of images is asked for.
    """
    from magnet_cli import models
    from magnet_cli.sampling import render

    loaded = models.load(checkpoint, device=device or models.default_device(), **settings)
    render.check_format(loaded, shown)
    return loaded


def _check_flags(
    truncation: tuple[float, ...], image_format: options.ImageFormat | None, *, no_images: bool, montage: bool
) -> None:
    """Refuse flags that contradict each other."""
    if len(truncation) > 1 and not montage:
        message = "several are for the rows of --montage; without it pass one."
        raise typer.BadParameter(message, param_hint="--truncation")
    for flag in (["--format"] * bool(image_format) + ["--montage"] * montage) * no_images:
        message = "it is of images, and --no-images writes none."
        raise typer.BadParameter(message, param_hint=flag)


def _check_mass(prior_mass: float | None, *, correct_prior: bool) -> None:
    if prior_mass is not None and not correct_prior:
        message = "it is the mass of the ball of --correct-prior; pass that too."
        raise typer.BadParameter(message, param_hint="--prior-mass")


def _particles(method: options.Method, particles: int | None, **of_rows: bool) -> int:
    """Latents of an island of the tempered sampler; 0 where rows are drawn.

    Args:
        method: as typed.
        particles: as typed.
        **of_rows: whether flags that say which rows are drawn were typed.
    """
    if method != "tempered":
        if particles:
            message = "it is for --method tempered; rows of a volume are drawn here."
            raise typer.BadParameter(message, param_hint="--particles")
        return 0
    for name in (name for name, given in of_rows.items() if given):
        message = "it says which rows of a volume are drawn, and --method tempered draws none."
        raise typer.BadParameter(message, param_hint=f"--{name.replace('_', '-')}")
    return particles or 128


def _tell(console: console_.Console, report: dict, warnings: list[str]) -> None:
    """What the report says of the draw, in words."""
    from magnet_cli import index

    console.note(
        "rho {rho:g}, top_k {top_k}: effective size {effective_size:,.1f} of {pool:,} rows, "
        "displaced share {displaced_share:.3f}, {unique_rows:,} different rows in {n:,}; "
        "the heaviest 1 % carry {top_share:.1%} of the weight; ".format(**report)
        + f"largest useful |rho| {abs(report['largest_useful_rho']):.2g}"
    )
    console.note(f"target: {report['target']}")
    if report["rescaled"]:
        console.note(index.RESCALED)
    for warning in warnings:
        console.warning(warning)
