"""magnet compute."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from magnet_cli.cli import options, parsers
from magnet_cli.cli.console import Console

if TYPE_CHECKING:
    from magnet_cli.computing import ComputePlan

Rows = Annotated[
    int | None,
    typer.Option("--n", "-n", min=1, help="Number of rows of the volume.", show_default="20000 for mnist, else 10000"),
]
TopK = Annotated[
    int | None,
    typer.Option(min=1, help="Number of singular values stored.", show_default="all D if D <= 128, else 30"),
]
Repair = Annotated[bool, typer.Option("--repair", help="Compute damaged shards again.")]
Tolerance = Annotated[
    float, typer.Option(callback=parsers.positive, help="Error of log-volume that auto may make, rms in nats.")
]
ShardRows = Annotated[int | None, typer.Option(min=1, help="Rows of a shard.", show_default="by generator size")]
Memory = Annotated[
    int | None,
    typer.Option(
        parser=parsers.size,
        metavar="BYTES",
        help="Memory for the work on a device, all workers together, as 512MiB or 2GB.",
        show_default="half of what is free",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Number of processes; on CPUs they share the cores.", show_default="one a device"),
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
    typer.Option(help="Address of the Ray cluster, or auto.", show_default="RAY_ADDRESS, else a local Ray"),
]


@dataclass(frozen=True, kw_only=True)
class SolverFlags:
    """How singular values are computed, which is part of the volume."""

    PANEL: ClassVar = "Solver"
    solver: Annotated[options.Solver, typer.Option(help="Algorithm; auto takes the cheapest.")] = options.Solver.auto
    precision: Annotated[
        options.Precision, typer.Option(help="Arithmetic of the products; auto takes the fastest.")
    ] = options.Precision.float32
    tolerance: Tolerance = 0.1
    shard_rows: ShardRows = None


@dataclass(frozen=True, kw_only=True)
class ShareFlags:
    """How the work is shared out, which changes no number."""

    PANEL: ClassVar = "Computation"
    device: options.Devices = None
    batch_size: options.BatchSize = None
    memory: Memory = None
    workers: Workers = None
    part: Part = None
    engine: Engine = options.Engine.local
    address: Address = None

    def check(self) -> None:
        """Refuse flags that contradict each other."""
        if self.engine == "ray" and self.workers:
            message = "--workers is for --engine local; Ray runs as many tasks as its cluster has room for."
            raise typer.BadParameter(message)
        if self.engine != "ray" and self.address:
            raise typer.BadParameter("--address is for --engine ray.")
        if self.workers and self.device and self.workers < len(self.device.split(",")):
            raise typer.BadParameter(f"--workers {self.workers} leaves a device of {self.device} without one.")


@options.flatten
def run(
    generator: options.GeneratorFlags,
    function: options.FunctionFlags,
    solver: SolverFlags,
    share: ShareFlags,
    output: options.OutputFlags,
    n: Rows = None,
    top_k: TopK = None,
    seed: options.Seed = 0,
    volume: options.VolumePath = None,
    repair: Repair = False,
    dry_run: options.DryRun = False,
) -> None:
    """Compute singular values and store them in a volume.

    The singular values are those of the generator's Jacobian at many latents: all D of them exactly, or the leading
    --top-k from fewer products, by the solver that --solver auto finds cheapest within the tolerance. The volume is a
    folder of shards that appear whole: stop at any time, and the same command continues; a larger --n extends the
    volume. Without --volume it is stored under MAGNET_HOME/volumes, where `magnet index` and `magnet sample` find it.
    Prints the volume's path.

    Several processes may fill one volume: --workers on this machine, --part in job arrays, --engine ray in a cluster;
    the rows are the same. --repair computes rows again that a disk has damaged, and names them first.

    \b
    Examples:
      magnet compute mnist --n 500
      magnet compute mnist --n 500 --workers 2
      magnet compute dcgan-digiface --n 512 --volume faces.vol --json
    """
    share.check()
    if (function.space, function.output) == ("w", "style"):
        raise typer.BadParameter("style is w itself: pass --space z, or another --output.", param_hint="--output")
    from magnet_cli import computing
    from magnet_cli.cli import references
    from magnet_cli.sampling import select

    console, source = output.console, references.source(generator)
    typed = {"n": n, "top_k": top_k, "seed": seed, "volume": volume, "repair": repair}
    plan = computing.plan(source, options.request(computing.ComputeRequest, function, solver, share, **typed))
    report = plan.report() if dry_run else _computed(plan, console)
    folder = plan.volume.path
    if dry_run:
        missing = f"{report['missing_shards']} shards of {plan.volume.spec.shard_rows:,} rows are missing"
        console.note(f"{missing} in {folder}; nothing was done")
    elif not report["new_rows"] and not report["missing_shards"]:
        console.note(f"{folder} already holds {report['rows']:,} rows")
    console.result(report, str(folder))
    if not dry_run:
        console.hint(f"magnet index {select.reference(source)}{select.flags_of(plan.volume)}")


def _computed(plan: "ComputePlan", console: Console) -> dict:
    """Fill the volume, with progress, and return the report."""
    from magnet_cli import computing

    generator, _ = plan.load("float32")
    if generator.others:
        console.note(f"weights: {generator.place}; beside them, not taken: {', '.join(generator.others)}")
    plan = computing.begin(plan, console)
    volume, lacking = plan.volume, plan.lacking
    return console.follow(
        computing.run(plan, console),
        sum(lacking.values()),
        label=f"computing {plan.spec.generator}",
        unit="rows",
        safe=lambda _: f"{volume.num_rows:,} of {plan.num_rows:,} rows are safe in {volume.path}",
        count=lambda step: lacking.get(step[0], 0),  # rows of another process count, too
    )
