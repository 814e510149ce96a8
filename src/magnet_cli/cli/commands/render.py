"""magnet render."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from magnet_cli.cli import console as console_
from magnet_cli.cli import options

Latents = Annotated[
    Path, typer.Option("--latents", metavar="FILE.npy", help="[n, D] floating numbers; as many images.")
]
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="FILE.npy",
        help="Conditional generators: [n] whole numbers, or one-hot [n, classes].",
        show_default=False,
    ),
]
Space = Annotated[
    options.SpaceName, typer.Option(help="What the latents are: z, or w as the mapping network gives it.")
]
Format = Annotated[
    options.RenderFormat | None,
    typer.Option(
        "--format",
        help="png, jpg (quality 95), webp (without loss), or npy: all in one float32 array [n, C, H, W], images.npy.",
        show_default="png; npy where there are no images",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="The folder.", show_default="renders/<generator>-<latents' name and sha256>"),
]


def run(
    generator: options.Generator = "mnist",
    latents: Latents = ...,
    labels: Labels = None,
    space: Space = options.SpaceName.z,
    truncation: options.Truncation = 1.0,
    bn_truncation: options.BnTruncation = None,
    nvae_latents: options.Nvae = None,
    latent_dim: options.LatentDim = None,
    prior: options.Prior = None,
    image_range: options.ImageRange = None,
    image_format: Format = None,
    out: Out = None,
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    dry_run: options.DryRun = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Render the images of latents in a file.

    In their order, as a file each, or with --format npy as one float32 array of the intensities in about [-1, 1],
    written piece by piece. Latents of a sample are in its latents.npy, labels in its labels.npy. With --space w they
    are taken as intermediate latents, for editing. Stop at any time: the same command goes on from there. Prints the
    folder; rendering.json in it says what the images were made of.

    \b
    Examples:
      magnet sample --n 16 --no-images --out picks
      magnet render --latents picks/latents.npy
      magnet render mnist --latents picks/latents.npy --format npy --truncation 0.7 --out raw --json
    """
    if space == "w" and labels:
        message = "labels are for z; --space w has them in the latents."
        raise typer.BadParameter(message, param_hint="--labels")
    from magnet_cli import models
    from magnet_cli.cli import lookup
    from magnet_cli.files import documents, npy
    from magnet_cli.sampling import render

    start = time.monotonic()
    console = console_.Console(as_json=json, quiet=quiet)
    rows = npy.latents(latents)
    hashes = [documents.sha256_file(path) if path else "" for path in (latents, labels)]
    checkpoint = lookup.source(generator, latent_dim=latent_dim, prior=options.plain(prior), image_range=image_range)
    shape = getattr(checkpoint, "image_shape", None)  # of a user's own, where the default depends on it
    spec = render.RenderSpec(
        checkpoint.name,
        checkpoint.sha256,
        *hashes,
        n=len(rows),
        space=space.value,
        truncation=truncation,
        bn_truncation=options.statistics(bn_truncation, truncation),
        nvae_latents=options.plain(nvae_latents) or "top",
        image_range=getattr(checkpoint, "image_range", ()),
        format=options.plain(image_format) or ("png" if shape is None or models.is_image_shape(shape) else "npy"),
    )
    folder = out or Path("renders") / f"{spec.generator}-{latents.stem}-{spec.latents[:8]}"
    report = {"out": str(folder), "n": spec.n, "generator": spec.generator, "format": spec.format, "seconds": None}
    done = None if force else render.finished(folder, spec)
    if done and not dry_run:
        console.note(f"{folder} already holds this rendering")
        console.result(done, str(folder))
        return
    settings = dict(options.settings(bn_truncation, options.plain(nvae_latents)))
    loaded = models.load(checkpoint, device=device or models.default_device(), **settings)
    render.check(loaded, spec, rows, labelled=labels is not None)
    classes = npy.labels(labels, spec.n, loaded.num_classes) if labels else None
    if dry_run:
        console.note(f"{spec.n:,} images would be written to {folder}; nothing was done")
        console.result(report, str(folder))
        return
    if force:
        render.discard(folder)
    follow(render.fill(folder, spec, loaded, rows, classes, batch_size), spec.n, folder, console)
    report["seconds"] = round(time.monotonic() - start, 3)
    render.finish(folder, spec, ["magnet", *sys.argv[1:]], report)
    console.result(report, str(folder))
    console.hint(f"magnet info {folder} --check")


def follow(steps: Iterator[int], n: int, folder: Path, console: console_.Console) -> None:
    """Run the steps of a verb that writes n images into a folder, with progress; after Ctrl-C say what is safe."""
    written = 0
    try:
        with contextlib.closing(steps), console.progress("rendering", n, "images") as advance:
            for images in steps:
                advance(images)
                written += images
    except KeyboardInterrupt:
        safe = f"{written:,} or more of {n:,} images are in {folder}"
        console_.show_stopped(f"stopped: {safe}; the same command goes on from there")
        raise
