"""magnet sample."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_cli import console as console_
from magnet_cli.commands import options
from magnet_cli.commands.index import Output, Precision, Solver, TopK
from magnet_cli.commands.render import follow

if TYPE_CHECKING:
    from magnet_cli.commands import lookup
    from magnet_cli.generators import Generator

Images = Annotated[int, typer.Option("--n", min=1, help="Images.")]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH", help="The sample's folder.", show_default="samples/<generator>-rho<rho>-n<n>-seed<seed>"
    ),
]
Replace = Annotated[bool, typer.Option("--replace", help="Draw with replacement: heavy rows come up more than once.")]
Truncations = Annotated[
    tuple,
    typer.Option(
        "--truncation",
        parser=options.truncations,
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
NoImages = Annotated[bool, typer.Option("--no-images", help="Latents alone; needs no generator, and no torch.")]
Force = Annotated[bool, typer.Option("--force", help="Replace another sample in that folder.")]


def run(
    generator: options.Generator = "mnist",
    n: Images = 64,
    rho: options.Rho = 1.0,
    top_k: TopK = None,
    truncation: Truncations = "1",
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
    image_format: Format = None,
    no_images: NoImages = False,
    montage: Montage = False,
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
    metadata.jsonl, sample.json, grid.png. Stop at any time: the same command goes on from there. --montage adds the
    figure of the papers: for each ψ of --truncation a row of draws from the prior above a row of these.

    \b
    Examples:
      magnet sample --n 64 --rho 0.5
      magnet sample mnist --n 200 --rho -1 --seed 3 --out modes --json
      magnet sample --rho 0.5 --montage --truncation 1,.9,.7,.5 --format webp --out figure
      magnet sample --n 5000 --rho 0.2 --no-images
    """
    _check_flags(truncation, image_format, no_images=no_images, montage=montage)
    from magnet_cli import index, sample
    from magnet_cli.commands import lookup

    start = time.monotonic()
    console = console_.Console(as_json=json, quiet=quiet)
    flags = {"latent_dim": latent_dim, "prior": options.plain(prior), "image_range": image_range}
    checkpoint = lookup.source(generator, here=not no_images, **flags)
    psi, *_ = truncation
    chosen = options.chosen(solver), options.chosen(precision)
    more = {"label": options.numbers(label), "bn_truncation": options.statistics(bn_truncation, psi)}
    more |= {"nvae_latents": options.plain(nvae_latents) or "top"}
    wanted = lookup.Wanted(top_k, space.value, output, psi, *chosen, **more)
    found = lookup.volume_for_rendering(checkpoint, console, volume, wanted)
    options.check_names(label, checkpoint.name, found.spec.num_classes)
    built, _ = lookup.index_of(found, top_k, console)
    built = index.of_labels(built, found, wanted.label)
    spec = sample.SampleSpec(
        generator=checkpoint.name,
        sha256=checkpoint.sha256,
        fingerprint=found.fingerprint,
        pool=built.num_rows,
        n=n,
        rho=rho,
        top_k=built.top_k,
        seed=seed,
        replace=replace,
        truncation=psi,
        label=wanted.label,
        bn_truncation=wanted.bn_truncation,
        format=options.plain(image_format) or "png",
        no_images=no_images,
        montage=truncation if montage else (),
    )
    folder = out or sample.default_out(spec)
    drawn = index.draw(built, n, rho, seed, replace=replace)
    report = {
        "sample": str(folder),
        "n": n,
        "images": 0 if no_images else n,
        "rho": rho,
        "top_k": built.top_k,
        "replace": replace,
    }
    report |= {"pool": drawn.pool, "unique_rows": drawn.unique_rows, "effective_size": drawn.effective_size}
    report |= {"displaced_share": drawn.displaced_share, "largest_useful_rho": drawn.largest_useful_rho}
    report |= {"target": index.target(built, rho, found.spec), "rescaled": index.rescales(found.spec)}
    report |= {"seconds": None}
    _tell(console, report, index.warnings(drawn, n, rho, replace=replace))
    done = None if force else sample.finished(folder, spec)
    if dry_run:
        console.note(f"{n:,} {'latents' if no_images else 'images'} would be written to {folder}; nothing was done")
        console.result(report, str(folder))
        return
    if done:
        console.note(f"{folder} already holds this sample")
        console.result(done, str(folder))
        return
    settings = dict(options.settings(bn_truncation, found.spec.nvae_latents or None))
    shown = "montage.png" if montage else image_format or "npy"
    loaded = None if no_images else _loaded(checkpoint, device, shown, settings)
    if force:
        sample.discard(folder)
    follow(sample.write(folder, spec, drawn, found, loaded, batch_size), report["images"], folder, console)
    report["seconds"] = round(time.monotonic() - start, 3)
    sample.finish(folder, spec, drawn, found, ["magnet", *sys.argv[1:]], report)
    console.result(report, str(folder))
    if loaded and loaded.gives_images:
        console.note(f"look at {folder / ('montage.png' if montage else 'grid.png')}")
    labels = f" --labels {folder / 'labels.npy'}" * bool(found.spec.num_classes)
    rendered = f"magnet render {checkpoint.reference} --latents {folder / 'latents.npy'}{labels}"
    console.hint(rendered if no_images else f"magnet info {folder} --check")


def _loaded(checkpoint: "lookup.Source", device: str | None, shown: str, settings: dict) -> "Generator":
    """The generator that makes the images, which are to be shown in a format.

    Raises:
        ArtifactError, GeneratorError: as `generators.load`.
        SpecError: it gives none, and a format of images is asked for.
    """
    from magnet_cli import generators, render

    loaded = generators.load(checkpoint, device or generators.default_device(), **settings)
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
