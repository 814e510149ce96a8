"""magnet sample."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_cli import console as console_
from magnet_cli.commands import options, tempering
from magnet_cli.commands.index import Output, Precision, Solver, TopK

if TYPE_CHECKING:
    from magnet_cli.index import Draw
    from magnet_cli.sample import SampleSpec

Images = Annotated[int, typer.Option("--n", min=1, help="Images.")]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH", help="The sample's folder.", show_default="samples/<generator>-rho<rho>-n<n>-seed<seed>"
    ),
]
Replace = Annotated[bool, typer.Option("--replace", help="Draw with replacement: heavy rows come up more than once.")]
Method = Annotated[
    options.Method,
    typer.Option(help="Choose rows of the volume by weight, or temper: compute fresh latents, for a rho beyond those."),
]
Particles = Annotated[
    int | None, typer.Option(min=8, help="Latents of an island of --method tempered.", show_default="128")
]
Force = Annotated[bool, typer.Option("--force", help="Replace another sample in that folder.")]


def run(
    generator: options.Generator = "mnist",
    n: Images = 64,
    rho: options.Rho = 1.0,
    top_k: TopK = None,
    truncation: options.Truncation = 1.0,
    bn_truncation: options.BnTruncation = None,
    space: options.Space = options.SpaceName.z,
    output: Output = "pixel",
    label: options.Label = None,
    nvae_latents: options.Nvae = None,
    latent_dim: options.LatentDim = None,
    prior: options.Prior = None,
    image_range: options.ImageRange = None,
    solver: Solver = None,
    precision: Precision = None,
    seed: options.Seed = 0,
    replace: Replace = False,
    method: Method = options.Method.reweight,
    particles: Particles = None,
    volume: options.VolumePath = None,
    out: Out = None,
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    dry_run: options.DryRun = False,
    force: Force = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Draw latents by volume, and render them.

    Each row of the volume has weight exp(rho * log-volume). rho 0 is the generator as it is, rho < 0 goes to its modes,
    rho > 0 to its anti-modes; rho 1 is MaGNET: with a uniform prior the draws are uniform on the manifold, with a
    Gaussian prior, as here, their density on it follows that prior, and with --space w that of w. Effective size and
    displaced share say how far the draw is what the weights ask for. Prints the folder: images, latents.npy,
    metadata.jsonl, sample.json, grid.png.

    --method tempered takes islands of fresh latents from the prior to rho step by step, and computes their Jacobians
    with the volume's solver: where the weights of a volume rest on a few rows. What that costs is said first
    (--dry-run); it is kept, and goes on where it was stopped.

    \b
    Examples:
      magnet sample --n 64 --rho 0.5
      magnet sample mnist --n 200 --rho -1 --seed 3 --out modes --json
      magnet sample --n 32 --rho 0.3 --method tempered --particles 16
    """
    from magnet_cli import generators, index, sample
    from magnet_cli.commands import lookup

    start, size = time.monotonic(), _particles(method, particles, replace=replace)
    console = console_.Console(as_json=json, quiet=quiet)
    checkpoint = lookup.source(generator, latent_dim=latent_dim, prior=options.plain(prior), image_range=image_range)
    chosen = options.chosen(solver), options.chosen(precision)
    more = {"label": options.numbers(label), "bn_truncation": options.statistics(bn_truncation, truncation)}
    more |= {"nvae_latents": options.plain(nvae_latents) or "top"}
    wanted = lookup.Wanted(top_k, space.value, output, truncation, *chosen, **more)
    found = lookup.volume_for_rendering(checkpoint, console, volume, wanted)
    options.check_names(label, checkpoint.name, found.spec.num_classes)
    built, _ = lookup.index_of(found, top_k, console)
    built = index.of_labels(built, found, wanted.label)
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
        truncation=truncation,
        label=wanted.label,
        bn_truncation=wanted.bn_truncation,
        method=method.value,
        particles=size,
    )
    folder = out or sample.default_out(spec)
    settings = options.settings(bn_truncation, found.spec.nvae_latents or None)
    if size:
        asked = tempering.Asked(checkpoint, found, built, spec, folder, output, device, settings, batch_size)
        tempering.run(asked, console, start, dry_run=dry_run, force=force)
        return
    drawn = index.draw(built, n, rho, seed, replace=replace)
    report = _report(spec, drawn, folder)
    report |= {"target": index.target(built, rho, found.spec)}
    report |= {"rescaled": index.rescales(found.spec), "seconds": None}
    _tell(console, report, index.warnings(drawn, n, rho, replace=replace))
    done = None if force else sample.finished(folder, spec)
    if dry_run:
        console.note(f"{n:,} images would be written to {folder}; nothing was done")
        console.result(report, str(folder))
        return
    if done:
        console.note(f"{folder} already holds this sample")
        console.result(done, str(folder))
        return
    loaded = generators.load(checkpoint, device or generators.default_device(), **dict(settings))
    if force:
        sample.discard(folder)
    written = 0
    try:
        with console.progress("rendering", n, "images") as advance:
            for images in sample.write(folder, spec, drawn, found, loaded, batch_size):
                advance(images)
                written += images
    except KeyboardInterrupt:
        safe = f"{written:,} of {n:,} images are in {folder}"
        console_.show_stopped(f"stopped: {safe}; the same command goes on from there")
        raise
    report["seconds"] = round(time.monotonic() - start, 3)
    sample.finish(folder, spec, drawn, found, ["magnet", *sys.argv[1:]], report)
    console.result(report, str(folder))
    if loaded.gives_images:
        console.note(f"look at {folder / 'grid.png'}")
    console.hint(f"magnet info {folder} --check")


def _particles(method: options.Method, particles: int | None, *, replace: bool) -> int:
    """Latents of an island of the tempered sampler; 0 where rows are drawn."""
    tempered = method == "tempered"
    if (particles and not tempered) or (replace and tempered):
        message = "--particles is for --method tempered, and --replace for the other."
        raise typer.BadParameter(message)
    return (particles or 128) if tempered else 0


def _report(spec: "SampleSpec", drawn: "Draw", folder: Path) -> dict:
    """What the command prints of a sample, but for what is known only later."""
    report = {"sample": str(folder), "n": spec.n, "images": spec.n, "rho": spec.rho, "top_k": spec.top_k}
    report |= {"replace": spec.replace}
    numbers = ("pool", "unique_rows", "effective_size", "displaced_share", "largest_useful_rho")
    return report | {name: getattr(drawn, name) for name in numbers}


def _tell(console: console_.Console, report: dict, warnings: list[str]) -> None:
    """What the report says of the draw, in words."""
    from magnet_cli import index

    console.note(
        "rho {rho:g}, top_k {top_k}: effective size {effective_size:,.1f} of {pool:,} rows, "
        "displaced share {displaced_share:.3f}, {unique_rows:,} different rows in {n:,}".format(**report)
    )
    console.note(f"target: {report['target']}")
    if report["rescaled"]:
        console.note(index.RESCALED)
    for warning in warnings:
        console.warning(warning)
