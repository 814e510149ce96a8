"""magnet compute."""

import time
from typing import Annotated

import typer

from magnet_cli import console as console_
from magnet_cli.commands import options

Rows = Annotated[
    int | None,
    typer.Option("--n", min=1, help="Rows the volume is to have.", show_default="20000 for mnist, else 10000"),
]
TopK = Annotated[
    int | None, typer.Option(min=1, help="Singular values kept a row.", show_default="all D where D <= 128, else 30")
]
ShardRows = Annotated[int | None, typer.Option(min=1, help="Rows of a shard.", show_default="by generator size")]


def run(
    generator: options.Generator = "mnist",
    n: Rows = None,
    top_k: TopK = None,
    truncation: options.Truncation = 1.0,
    precision: options.Precision = options.Precision.float32,
    seed: options.Seed = 0,
    volume: options.VolumePath = None,
    shard_rows: ShardRows = None,
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Compute and store singular values.

    Those of the generator's Jacobian at many latents: all D of them, exactly, from forward-mode products. The volume
    is a folder of shards that appear whole: stop at any time, and the same command goes on from there; a larger --n
    makes the volume longer. Without --volume it is kept under MAGNET_HOME/volumes, where `magnet index` and `magnet
    sample` find it. Prints the volume's path.

    \b
    Examples:
      magnet compute mnist --n 500
      magnet compute dcgan-digiface --n 512 --volume faces.vol --json
    """
    from magnet_cli import compute, generators
    from magnet_cli.artifacts import cache
    from magnet_cli.commands import lookup
    from magnet_cli.jacobian import PRECISIONS
    from magnet_cli.volume import Volume

    start = time.monotonic()
    console = console_.Console(as_json=json, quiet=quiet)
    checkpoint = cache.checkpoint(generator)
    found = generators.load(checkpoint, device or generators.default_device(), PRECISIONS[precision])
    spec = compute.spec(
        found, top_k=top_k, truncation=truncation, precision=precision.value, seed=seed, rows_per_shard=shard_rows
    )
    path = volume or lookup.volume_path(found.name, spec.fingerprint)
    num_rows = n or compute.default_rows(found.name)
    filled = Volume.planned(path, spec) if dry_run else Volume.create(path, spec)
    missing = filled.missing(num_rows)
    before = filled.num_rows
    rows_start = time.monotonic()
    if not dry_run:
        new = sum(rows for _, rows in missing) - sum(filled.marks()[s].rows for s, _ in missing if s in filled.marks())
        try:
            with console.progress(f"computing {found.name}", new, "rows") as advance:
                for _, rows in compute.fill(filled, found, num_rows, batch_size):
                    advance(rows)
        except KeyboardInterrupt:
            safe = f"{filled.num_rows:,} of {num_rows:,} rows are safe in {path}"
            console_.show_stopped(f"stopped: {safe}; the same command goes on from there")
            raise
    seconds = time.monotonic() - rows_start
    new_rows = filled.num_rows - before
    fields = {"volume": str(path), "generator": found.name, "fingerprint": spec.fingerprint, "rows": filled.num_rows}
    fields |= {"new_rows": new_rows, "shards": len(filled.shards()), "top_k": spec.top_k, "solver": spec.solver}
    fields |= {"precision": spec.precision, "seconds": round(time.monotonic() - start, 3), "tuning_seconds": 0.0}
    fields |= {"rows_per_second": round(new_rows / seconds, 3) if new_rows else None}
    if dry_run:
        fields |= {"missing_shards": len(missing), "shard_rows": spec.shard_rows}
        console.note(f"{len(missing)} shards of {spec.shard_rows:,} rows are missing in {path}; nothing was done")
    elif not new_rows:
        console.note(f"{path} already holds {filled.num_rows:,} rows")
    console.result(fields, str(path))
    console.hint(f"magnet sample {generator} --n 64" + (f" --volume {volume}" if volume else ""))
