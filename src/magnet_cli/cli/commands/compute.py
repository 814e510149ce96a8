"""magnet compute."""

import dataclasses
import functools
import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_cli.cli import console as console_
from magnet_cli.cli import options, parsers

if TYPE_CHECKING:
    from magnet_cli.computing import solver_choice
    from magnet_cli.computing.processes import Job
    from magnet_cli.volume import Volume
    from magnet_cli.volume.spec import VolumeSpec

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
    float, typer.Option(callback=parsers.positive, help="Error of log-volume the solver may make, rms in nats.")
]
Memory = Annotated[
    int | None,
    typer.Option(
        parser=parsers.size,
        metavar="BYTES",
        help="Working set on a device, of all its workers, as 512MiB or 2GB.",
        show_default="half of what is free",
    ),
]
ShardRows = Annotated[int | None, typer.Option(min=1, help="Rows of a shard.", show_default="by generator size")]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Processes; on CPUs they share the cores.", show_default="one a device"),
]
Part = Annotated[
    tuple | None,
    typer.Option(
        parser=parsers.part,
        metavar="I/N",
        help="Only every N-th shard, from the I-th: for job arrays.",
        show_default="1/1",
    ),
]
Engine = Annotated[options.Engine, typer.Option(help="What runs the work: this machine, or a Ray cluster.")]
Address = Annotated[
    str | None,
    typer.Option(help="Of the Ray cluster, or auto.", show_default="RAY_ADDRESS, else a Ray of this machine alone"),
]
Repair = Annotated[bool, typer.Option("--repair", help="Make damaged shards again.")]


def run(
    generator: options.Generator = "mnist",
    n: Rows = None,
    top_k: TopK = None,
    space: options.Space = options.SpaceName.z,
    output: Output = "pixel",
    truncation: options.Truncation = 1.0,
    bn_truncation: options.BnTruncation = None,
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
    device: options.Devices = None,
    batch_size: options.BatchSize = None,
    memory: Memory = None,
    workers: Workers = None,
    part: Part = None,
    engine: Engine = options.Engine.local,
    address: Address = None,
    repair: Repair = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Compute singular values and store them in a volume.

    Those of the generator's Jacobian at many latents: all D of them exactly, or the leading --top-k from fewer
    products, by the solver that --solver auto finds cheapest within the tolerance. The volume is a folder of shards
    that appear whole: stop at any time, and the same command goes on from there; a larger --n makes the volume longer.
    Without --volume it is kept under MAGNET_HOME/volumes, where `magnet index` and `magnet sample` find it. Prints the
    volume's path.

    Several processes may fill one volume: --workers on this machine, --part in job arrays, --engine ray in a cluster;
    the rows are the same. --repair makes rows again that a disk has damaged, after naming them.

    \b
    Examples:
      magnet compute mnist --n 500
      magnet compute mnist --n 500 --workers 2
      magnet compute dcgan-digiface --n 512 --volume faces.vol --json
    """
    _check_flags(engine, address, workers, device, (space.value, output))
    from magnet_cli import computing, models
    from magnet_cli.cli import lookup
    from magnet_cli.computing import processes as workers_
    from magnet_cli.computing.memory import cut_for
    from magnet_cli.volume import Volume
    from magnet_cli.volume import repair as repair_

    start = time.monotonic()
    console = console_.Console(as_json=json, quiet=quiet)
    checkpoint = lookup.source(generator, latent_dim=latent_dim, prior=options.plain(prior), image_range=image_range)
    places = models.parse_devices(device)
    settings = options.settings(bn_truncation, options.plain(nvae_latents))
    load = functools.cache(functools.partial(workers_.load, checkpoint, output, places[0], settings=settings))
    found, model = load("float32")
    asked = computing.asked(
        found,
        top_k=top_k,
        space=space.value,
        output=model or output,
        truncation=truncation,
        label=options.numbers(label),
        solver=solver.value,
        precision=precision.value,
        tolerance=tolerance,
        seed=seed,
        rows_per_shard=shard_rows,
    )
    options.check_names(label, found.name, found.num_classes)
    path = volume or lookup.volume_path(found.name, asked.fingerprint)
    num_rows = n or computing.default_rows(found.name)
    filled = Volume.planned(path, asked)
    if repair and not dry_run:
        for removed in repair_.repair(filled, num_rows):
            console.warning(removed)
    tuning_start = time.monotonic()
    if not (filled.exists or dry_run):
        filled = _created(path, asked, load, memory, console)
    computing.check_unchanged(filled, found, model)
    rows_start, new_rows = time.monotonic(), 0
    if not dry_run:
        chosen, model = load(filled.spec.precision)
        shared = _Shared(places, workers or len(places), engine, address)
        cut = cut_for(chosen, filled.spec.vectors, memory, shared.sharers)
        cut = dataclasses.replace(cut, batch=batch_size) if batch_size else cut
        job = workers_.Job(path.resolve(), checkpoint, output, places[0], 1, cut, settings)
        todo = (filled, num_rows, part or (1, 1))
        if (engine, shared.workers) == ("local", 1):
            steps = computing.fill(filled, chosen, num_rows, cut, model, part or (1, 1))
        else:
            steps = shared.steps(job, *todo, console.warning)
        new_rows = _follow(steps, *todo, console)
    times = (start, tuning_start, rows_start, time.monotonic())
    _report(console, filled, num_rows, new_rows, times, dry_run=dry_run)
    spec = filled.spec
    own = {"label": spec.label, "bn_truncation": spec.bn_truncation, "nvae_latents": spec.nvae_latents or "top"}
    same = lookup.Wanted(None, space.value, output, truncation, None, None, **own).flags
    console.hint(f"magnet sample {checkpoint.reference} --n 64" + (f" --volume {volume}" if volume else same))


def _created(
    path: Path, asked: "VolumeSpec", load: "solver_choice.Load", memory: int | None, console: console_.Console
) -> "Volume":
    """The new volume of a spec, its solver and precision chosen."""
    from magnet_cli import computing
    from magnet_cli.computing import solver_choice
    from magnet_cli.volume import Volume

    resolution = solver_choice.resolve(load, asked, memory)
    generator, model = load("float32")
    filled = Volume.create(
        path,
        resolution.spec,
        asked=asked,
        measured=resolution.measured,
        pilot=resolution.basis,
        probe=computing.probe(generator, model),
        mixture=generator.prior.mixture,
    )
    console.note(f"solver: {resolution.measured['chosen']}; {resolution.measured['reason']}")
    return filled


def _report(
    console: console_.Console,
    filled: "Volume",
    num_rows: int,
    new_rows: int,
    times: tuple[float, float, float, float],
    *,
    dry_run: bool,
) -> None:
    """Say what the volume holds now; `times` are those of the start, of tuning's, of the rows', and of the end."""
    start, tuning_start, rows_start, end = times
    missing, spec, path = len(filled.missing(num_rows)), filled.spec, filled.path
    fields = {
        "volume": str(path),
        "generator": spec.generator,
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
    elif not new_rows and not missing:
        console.note(f"{path} already holds {filled.num_rows:,} rows")
    console.result(fields, str(path))


def _check_flags(
    engine: options.Engine, address: str | None, workers: int | None, device: str | None, of: tuple[str, str]
) -> None:
    """Refuse flags that contradict each other."""
    if of == ("w", "style"):
        message = "style is w itself: pass --space z, or another --output."
        raise typer.BadParameter(message, param_hint="--output")
    if engine == "ray" and workers:
        message = "--workers is for --engine local; Ray runs as many tasks as its cluster has room for."
        raise typer.BadParameter(message)
    if engine != "ray" and address:
        message = "--address is for --engine ray."
        raise typer.BadParameter(message)
    if workers and device and workers < len(device.split(",")):
        message = f"--workers {workers} leaves a device of {device} without one."
        raise typer.BadParameter(message)


@dataclasses.dataclass(frozen=True)
class _Shared:
    """How the work is shared out.

    Attributes:
        places: devices of this machine.
        workers: processes on them.
        engine: what runs them.
        address: of a Ray cluster.
    """

    places: list[str]
    workers: int
    engine: options.Engine
    address: str | None

    @property
    def sharers(self) -> int:
        """Processes that share a device's memory."""
        if self.engine == "ray":
            return 1 if self.places[0].startswith("cuda") else os.cpu_count() or 1
        return -(-self.workers // len(self.places))

    def steps(
        self, job: "Job", filled: "Volume", num_rows: int, part: tuple[int, int], warn: Callable[[str], None]
    ) -> Iterator[tuple[int, int]]:
        """Those of the verb, by the engine."""
        if self.engine == "ray":
            from magnet_cli.computing import ray_engine

            return ray_engine.fill(filled, job, num_rows, part, self.address)
        from magnet_cli.computing import processes

        threads = processes.shared_threads(self.workers)
        devices = itertools.islice(itertools.cycle(self.places), self.workers)
        jobs = [dataclasses.replace(job, device=device, threads=threads) for device in devices]
        return processes.fill(filled, jobs, num_rows, part, warn)


def _follow(
    steps: Iterator[tuple[int, int]],
    filled: "Volume",
    num_rows: int,
    part: tuple[int, int],
    console: console_.Console,
) -> int:
    """Run the verb's steps with progress; after Ctrl-C say what is safe. Returns the new rows."""
    stored = {shard: filled.mark(shard).rows for shard in filled.shards()}
    lacking = {shard: rows - stored.get(shard, 0) for shard, rows in filled.missing(num_rows, part)}
    needed, free = filled.room(sum(lacking.values()))
    if needed > free:
        console.warning(f"the missing rows take about {needed:,} bytes, and {free:,} are free at {filled.path}")
    new_rows = 0
    try:
        with console.progress(f"computing {filled.spec.generator}", sum(lacking.values()), "rows") as advance:
            for shard, new in steps:
                new_rows += new
                advance(lacking.get(shard, 0))  # whoever made them
    except KeyboardInterrupt:
        safe = f"{filled.num_rows:,} of {num_rows:,} rows are safe in {filled.path}"
        console_.show_stopped(f"stopped: {safe}; the same command goes on from there")
        raise
    return new_rows
