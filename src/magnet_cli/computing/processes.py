"""Fill a volume's missing shards in several processes of this machine.

Owns the job that a process is given, and the processes: started, handed a shard at a time, replaced once when they
die, stopped with their parent. Knows nothing of how a shard is filled (compute) or of other machines (ray_engine).
"""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from pathlib import Path

import torch

from magnet_cli import models
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.computing import filler as filler_
from magnet_cli.computing.filler import Filler
from magnet_cli.computing.memory import Plan
from magnet_cli.errors import MagnetError
from magnet_cli.maths.jacobian import PRECISIONS
from magnet_cli.models import Generator, image_models
from magnet_cli.models.custom import CustomModule
from magnet_cli.models.image_models import ImageModel
from magnet_cli.volume import Volume

_STOPPED = 2  # processes that a shard may take along before the run ends


@dataclass(frozen=True)
class Job:
    """What a process is told, so that it can fill any shard of a volume; small, and the same for all of its shards.

    Attributes:
        volume: the volume's folder.
        checkpoint: of the generator, or the user's own module.
        output: what the Jacobian is taken of: an image model's name, or one of the generator's own outputs.
        device: where it computes.
        threads: it may use on a CPU.
        cut: how its work is cut.
        settings: of the generator, name and value, as generators.load takes them.
    """

    volume: Path
    checkpoint: Checkpoint | CustomModule
    output: str
    device: str
    threads: int
    cut: Plan
    settings: tuple[tuple[str, object], ...] = ()

    def filler(self) -> Filler:
        """Load what is needed to fill shards.

        Raises:
            MagnetError: as `load` and `filler_.Filler`.
        """
        torch.set_num_threads(self.threads)
        volume = Volume.open(self.volume)
        generator, model = load(self.checkpoint, self.output, self.device, volume.spec.precision, self.settings)
        return Filler(volume, generator, self.cut, model)


def load(
    checkpoint: Checkpoint | CustomModule,
    output: str,
    device: str,
    precision: str,
    settings: tuple[tuple[str, object], ...] = (),
) -> tuple[Generator, ImageModel | None]:
    """A generator with its settings, and the image model that follows it if any.

    Raises:
        MagnetError: as generators.load and image_models.load.
    """
    generator = models.load(checkpoint, device=device, dtype=PRECISIONS[precision], **dict(settings))
    if output in models.OUTPUTS:
        return generator, None
    return generator, image_models.load(output, models.check_device(device), PRECISIONS[precision])


def shared_threads(workers: int) -> int:
    """CPU threads of each of several workers: those of one process, shared, at least one."""
    return max(1, torch.get_num_threads() // workers)


def fill(
    volume: Volume, jobs: list[Job], num_rows: int, part: tuple[int, int], warn: Callable[[str], None]
) -> Iterator[tuple[int, int]]:
    """Compute what is missing of rows 0..num_rows-1, in a process a job.

    Args:
        volume: that of the jobs.
        jobs: one a worker; they differ in their device alone.
        num_rows: N, how many rows the volume is to have at least.
        part: (I, N): only the shards s ≡ I-1 mod N.
        warn: told when a worker died.

    Yields:
        (shard, new rows in it), once they are safe on disk; 0 new rows where another process made them.

    Raises:
        MagnetError: as compute.fill; a shard stopped two workers.
    """
    tasks = deque(_Task(shard, rows) for shard, rows in filler_.todo(volume, num_rows, part))
    crew = [_Worker(job, tasks.popleft()) for job in jobs[: len(tasks)]]
    try:
        while crew:
            for worker in connection.wait(crew):
                task, answer = worker.task, worker.answer()
                if isinstance(answer, MagnetError):
                    raise answer
                if worker.died:
                    crew.remove(worker)
                    crew.append(_Worker(worker.job, _again(task, worker, volume, warn)))
                    continue
                if answer is None:
                    tasks.append(dataclasses.replace(task, insist=True))  # when all else is done
                if tasks:
                    worker.give(tasks.popleft())
                else:
                    worker.stop()
                    crew.remove(worker)
                if answer is not None:
                    yield task.shard, answer
    finally:
        for worker in crew:
            worker.stop()


@dataclass(frozen=True)
class _Task:
    """A shard, the rows it is to have, whether to insist (compute.Filler), and how many workers died of it."""

    shard: int
    rows: int
    insist: bool = False
    deaths: int = 0


def _again(task: _Task, worker: "_Worker", volume: Volume, warn: Callable[[str], None]) -> _Task:
    """The task of a worker that died, for another one.

    Raises:
        MagnetError: it was not the first that died of it.
    """
    first = task.shard * volume.spec.shard_rows
    what = f"a worker on {worker.job.device} ended {worker.end} at shard {task.shard} (rows from {first})"
    if task.deaths + 1 == _STOPPED:
        message = f"{what}, as one did before it; finished shards are safe"
        raise MagnetError(message, "look for its trace above, or for a lack of memory (--memory, fewer --workers)")
    warn(f"{what}; another one tries it again")
    return dataclasses.replace(task, deaths=task.deaths + 1)


class _Worker:
    """A process that fills one shard after another, as it is told."""

    def __init__(self, job: Job, task: _Task) -> None:
        self.job = job
        self.died = False
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_work, args=(theirs, job), daemon=True)
        with _deaf_to_interrupts():
            self._process.start()
        theirs.close()
        self.give(task)

    def fileno(self) -> int:
        """What connection.wait waits for."""
        return self._pipe.fileno()

    def give(self, task: _Task) -> None:
        """Hand it a task."""
        self.task = task
        with contextlib.suppress(OSError):  # it died just now: its answer will tell
            self._pipe.send((task.shard, task.rows, task.insist))

    def answer(self) -> int | MagnetError | None:
        """What its task came to: as compute.Filler, or the failure; None with `died` set if it died."""
        try:
            return self._pipe.recv()
        except (EOFError, OSError):
            self.died = True
            self.stop()
            return None

    @property
    def end(self) -> str:
        """How its process ended, in words."""
        code = self._process.exitcode
        return f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"

    def stop(self) -> None:
        """End it now; a shard it is at is not there yet, or whole."""
        self._pipe.close()
        if not self.died:
            self._process.kill()
        self._process.join()


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes started in the block never see a terminal's Ctrl-C: their parent does, and stops them."""
    resource_tracker.ensure_running()  # when multiprocessing starts it by itself, it lifts the mask below
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: connection.Connection, job: Job) -> None:
    """A worker's life: load, then fill what it is told to until its parent has no more. A bug ends it with a trace."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        fill_one = job.filler()
        while True:
            shard, rows, insist = pipe.recv()
            pipe.send(fill_one(shard, rows, insist=insist))
    except MagnetError as error:
        pipe.send(error)
    except (EOFError, BrokenPipeError):
        return


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
