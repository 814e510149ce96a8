"""magnet compute."""

import dataclasses
import functools
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_cli import console as console_
from magnet_cli.commands import options

if TYPE_CHECKING:
    from magnet_cli.generators import Generator
    from magnet_cli.image_models import ImageModel
    from magnet_cli.volume import Volume

Rows = Annotated[
    int | None,
    typer.Option("--n", min=1, help="Rows the volume is to have.", show_default="20000 for mnist, else 10000"),
]
TopK = Annotated[
    int | None, typer.Option(min=1, help="Singular values kept a row.", show_default="all D where D <= 128, else 30")
]
Output = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="Of what: pixel, style (w), affine, or an image model's name or file.py:factory."
    ),
]
Tolerance = Annotated[
    float, typer.Option(callback=options.positive, help="Error of log-volume the solver may make, rms in nats.")
]
Memory = Annotated[
    int | None,
    typer.Option(
        parser=options.size, metavar="BYTES", help="Working set, as 512MiB or 2GB.", show_default="half of what is free"
    ),
]
ShardRows = Annotated[int | None, typer.Option(min=1, help="Rows of a shard.", show_default="by generator size")]


def run(
    generator: options.Generator = "mnist",
    n: Rows = None,
    top_k: TopK = None,
    space: options.Space = options.SpaceName.z,
    output: Output = "pixel",
    truncation: options.Truncation = 1.0,
    label: options.Label = None,
    nvae_latents: options.Nvae = None,
    latent_dim: options.LatentDim = None,
    prior: options.Prior = None,
    image_range: options.ImageRange = None,
    solver: options.Solver = options.Solver.auto,
    precision: options.Precision = options.Precision.float32,
    tolerance: Tolerance = 0.1,
    seed: options.Seed = 0,
    volume: options.VolumePath = None,
    shard_rows: ShardRows = None,
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    memory: Memory = None,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Compute and store singular values.

    Those of the generator's Jacobian at many latents: all D of them exactly, or the leading --top-k from fewer
    products, by the solver that --solver auto finds cheapest within the tolerance. The volume is a folder of shards
    that appear whole: stop at any time, and the same command goes on from there; a larger --n makes the volume longer.
    Without --volume it is kept under MAGNET_HOME/volumes, where `magnet index` and `magnet sample` find it. Prints the
    volume's path.

    \b
    Examples:
      magnet compute mnist --n 500
      magnet compute dcgan-digiface --n 512 --volume faces.vol --json
    """
    from magnet_cli import compute, generators, image_models, tune
    from magnet_cli.commands import lookup
    from magnet_cli.jacobian import PRECISIONS
    from magnet_cli.volume import Volume

    if (space.value, output) == ("w", "style"):
        message = "style is w itself: pass --space z, or another --output."
        raise typer.BadParameter(message, param_hint="--output")
    start = time.monotonic()
    console = console_.Console(as_json=json, quiet=quiet)
    checkpoint = lookup.source(generator, latent_dim=latent_dim, prior=options.plain(prior), image_range=image_range)
    place = device or generators.default_device()

    @functools.cache
    def load(precision: str) -> "tuple[Generator, ImageModel | None]":
        settings = {"nvae_latents": options.plain(nvae_latents)}
        loaded = generators.load(checkpoint, place, PRECISIONS[precision], **settings)
        follows = output not in generators.OUTPUTS
        model = image_models.load(output, generators.check_device(place), PRECISIONS[precision]) if follows else None
        return loaded, model

    found, model = load("float32")
    asked = compute.asked(
        found,
        top_k=top_k,
        space=space.value,
        output=model or output,
        truncation=truncation,
        label=tuple(label or ()),
        solver=solver.value,
        precision=precision.value,
        tolerance=tolerance,
        seed=seed,
        rows_per_shard=shard_rows,
    )
    path = volume or lookup.volume_path(found.name, asked.fingerprint)
    num_rows = n or compute.default_rows(found.name)
    filled = Volume.planned(path, asked)
    compute.check_unchanged(filled, found, model)
    before = filled.num_rows
    tuning_start = time.monotonic()
    if not (filled.exists or dry_run):
        resolution = tune.resolve(load, asked, memory)
        kept = {"measured": resolution.measured, "pilot": resolution.basis}
        kept["probe"] = compute.probe(found, model)
        filled = Volume.create(path, resolution.spec, asked=asked, **kept)
        console.note(f"solver: {resolution.measured['chosen']}; {resolution.measured['reason']}")
    rows_start = time.monotonic()
    if not dry_run:
        chosen, model = load(filled.spec.precision)
        cut = compute.plan(chosen, memory)
        cut = dataclasses.replace(cut, batch=batch_size) if batch_size else cut
        _follow(compute.fill(filled, chosen, num_rows, cut, model), filled, num_rows, console)
    end = time.monotonic()
    missing = len(filled.missing(num_rows))
    spec, new_rows = filled.spec, filled.num_rows - before
    fields = {
        "volume": str(path),
        "generator": found.name,
        "fingerprint": spec.fingerprint,
        "rows": filled.num_rows,
        "new_rows": new_rows,
        "shards": len(filled.shards()),
        "missing_shards": missing,
        "top_k": spec.top_k,
        "solver": spec.solver,
        "precision": spec.precision,
        "seconds": round(end - start, 3),
        "tuning_seconds": round(rows_start - tuning_start, 3),
        "rows_per_second": round(new_rows / (end - rows_start), 3) if new_rows else None,
    }
    if dry_run:
        console.note(f"{missing} shards of {spec.shard_rows:,} rows are missing in {path}; nothing was done")
    elif not new_rows:
        console.note(f"{path} already holds {filled.num_rows:,} rows")
    console.result(fields, str(path))
    console.hint(f"magnet sample {checkpoint.reference} --n 64" + (f" --volume {volume}" if volume else ""))


def _follow(steps: Iterator[tuple[int, int]], filled: "Volume", num_rows: int, console: console_.Console) -> None:
    """Run the verb's steps with progress; after Ctrl-C say what is safe."""
    marks = filled.marks()
    new = sum(rows - (marks[s].rows if s in marks else 0) for s, rows in filled.missing(num_rows))
    try:
        with console.progress(f"computing {filled.spec.generator}", new, "rows") as advance:
            for _, rows in steps:
                advance(rows)
    except KeyboardInterrupt:
        safe = f"{filled.num_rows:,} of {num_rows:,} rows are safe in {filled.path}"
        console_.show_stopped(f"stopped: {safe}; the same command goes on from there")
        raise
