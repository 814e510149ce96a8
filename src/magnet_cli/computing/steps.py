"""The steps of a computation: plan (looks everything up), begin (creates the volume), run (fills it)."""

import dataclasses
import functools
import itertools
import os
import time
from collections.abc import Generator as Steps
from collections.abc import Iterator
from dataclasses import dataclass, field

from magnet_cli import models
from magnet_cli.catalog import cache
from magnet_cli.computing import processes, ray_engine, solver_choice
from magnet_cli.computing.filling import fill
from magnet_cli.computing.loading import Load, Source, again, load, load_again
from magnet_cli.computing.memory import BatchPlan, plan_batches
from magnet_cli.computing.request import ComputeRequest, default_rows
from magnet_cli.computing.same_function import check_unchanged, probe
from magnet_cli.files.progress import Messages
from magnet_cli.models import Generator
from magnet_cli.models.image_models import ImageModel
from magnet_cli.volume import Volume
from magnet_cli.volume.repair import repair
from magnet_cli.volume.spec import VolumeSpec


@dataclass(frozen=True)
class ComputePlan:
    """A computation that is ready to begin; nothing has been written.

    `load` loads generator and image model in a precision, each once; solver and precision of `spec` may still be
    "auto"; `volume` has no rows if it does not exist.
    """

    source: Source | Generator
    request: ComputeRequest
    load: Load = field(repr=False)
    devices: list[str]
    spec: VolumeSpec
    volume: Volume
    num_rows: int
    started: float
    tuning_seconds: float = 0.0

    @property
    def part(self) -> tuple[int, int]:
        """(I, N): only the shards s ≡ I-1 mod N are computed."""
        return self.request.part or (1, 1)

    @property
    def workers(self) -> int:
        """Number of processes on this machine."""
        return self.request.workers or len(self.devices)

    @property
    def lacking(self) -> dict[int, int]:
        """Number of rows that each missing shard lacks."""
        stored = {shard: self.volume.mark(shard).rows for shard in self.volume.shards()}
        missing = self.volume.missing(self.num_rows, self.part)
        return {shard: rows - stored.get(shard, 0) for shard, rows in missing}

    def report(self, new_rows: int = 0, filling_seconds: float = 0.0) -> dict[str, object]:
        """Return what the volume holds now, and how long the work took."""
        spec = self.volume.spec
        return {
            "volume": str(self.volume.path),
            "generator": spec.generator,
            "fingerprint": spec.fingerprint,
            "rows": self.volume.num_rows,
            "new_rows": new_rows,
            "shards": len(self.volume.shards()),
            "missing_shards": len(self.volume.missing(self.num_rows)),
            "top_k": spec.top_k,
            "solver": spec.solver,
            "precision": spec.precision,
            "seconds": round(time.monotonic() - self.started, 3),
            "tuning_seconds": round(self.tuning_seconds, 3),
            "rows_per_second": round(new_rows / filling_seconds, 3) if new_rows else None,
        }


def plan(source: Source | Generator, request: ComputeRequest) -> ComputePlan:
    """Load the generator, and look up the volume; a loaded generator keeps its device.

    Raises:
        GeneratorError: the generator cannot be loaded, a device does not exist, or the function of the volume changed.
        SpecError: a value of the request is outside its range.
        VolumeError: the folder holds a volume with other settings, or other files.
    """
    started = time.monotonic()
    if isinstance(source, Generator):
        devices = [str(next(source.module.parameters()).device)]
        loader = functools.partial(load_again, source, request.output)
    else:
        devices = models.parse_devices(request.device)
        loader = functools.partial(load, source, request.output, devices[0], settings=request.settings)
    cached = functools.cache(loader)
    generator, output = cached("float32")
    spec = request.spec(generator, output)
    volume = Volume.planned(request.volume or cache.volume_path(spec.generator, spec.fingerprint), spec)
    check_unchanged(volume, generator, output)
    num_rows = request.n or default_rows(generator.name)
    return ComputePlan(source, request, cached, devices, spec, volume, num_rows, started)


def begin(plan: ComputePlan, messages: Messages) -> ComputePlan:
    """Remove damaged shards if the request says so, and create the volume with its solver chosen, if there is none.

    Raises:
        GeneratorError: no solver or precision is within the tolerance; or the function of the volume changed.
        MagnetError: the volume cannot be read or written.
    """
    volume = plan.volume
    if plan.request.repair:
        for removed in repair(volume, plan.num_rows):
            messages.warning(removed)
    start = time.monotonic()
    if not volume.exists:
        volume = _created(plan, messages)
        check_unchanged(volume, *plan.load("float32"))  # another process may have created it first
    plan = dataclasses.replace(plan, volume=volume, tuning_seconds=time.monotonic() - start)
    needed, free = volume.room(sum(plan.lacking.values()))
    if needed > free:
        messages.warning(f"the missing rows take about {needed:,} bytes, and {free:,} are free at {volume.path}")
    return plan


def _created(plan: ComputePlan, messages: Messages) -> Volume:
    resolution = solver_choice.resolve(plan.load, plan.spec, plan.request.memory)
    generator, output = plan.load("float32")
    volume = Volume.create(
        plan.volume.path,
        resolution.spec,
        asked=plan.spec,
        measured=resolution.measured,
        pilot=resolution.basis,
        probe=probe(generator, output),
        mixture=generator.prior.mixture,
    )
    messages.note(f"solver: {resolution.measured['chosen']}; {resolution.measured['reason']}")
    return volume


def run(plan: ComputePlan, messages: Messages) -> Steps[tuple[int, int], None, dict[str, object]]:
    """Fill the volume of a plan that has begun, and return its report.

    Yields:
        (shard, number of new rows), once they are safe on disk; 0 new rows if another process stored them.
    """
    start, new_rows = time.monotonic(), 0
    generator, output = plan.load(plan.volume.spec.precision)
    batches = plan_batches(generator, plan.volume.spec.vectors, plan.request.memory, _sharers(plan))
    if plan.request.batch_size:
        batches = dataclasses.replace(batches, batch=plan.request.batch_size)
    for shard, new in _filled(plan, generator, output, batches, messages):
        new_rows += new
        yield shard, new
    return plan.report(new_rows, time.monotonic() - start)


def _filled(
    plan: ComputePlan, generator: Generator, output: ImageModel | None, batches: BatchPlan, messages: Messages
) -> Iterator[tuple[int, int]]:
    request, volume = plan.request, plan.volume
    shards = (plan.num_rows, plan.part)
    if (request.engine, plan.workers) == ("local", 1):
        return fill(volume, generator, plan.num_rows, batches, output, plan.part)
    path, device = volume.path.resolve(), plan.devices[0]
    source, settings = plan.source, request.settings
    if isinstance(source, Generator):
        source, settings = again(source)
    job = processes.Job(path, source, request.output, device, 1, batches, settings)
    if request.engine == "ray":
        return ray_engine.fill(volume, job, *shards, request.address)
    devices = itertools.islice(itertools.cycle(plan.devices), plan.workers)
    threads = processes.shared_threads(plan.workers)
    jobs = [dataclasses.replace(job, device=device, threads=threads) for device in devices]
    return processes.fill(volume, jobs, *shards, messages.warning)


def _sharers(plan: ComputePlan) -> int:
    """Number of processes that share the memory of a device."""
    if plan.request.engine == "ray":
        return 1 if plan.devices[0].startswith("cuda") else os.cpu_count() or 1
    return -(-plan.workers // len(plan.devices))
