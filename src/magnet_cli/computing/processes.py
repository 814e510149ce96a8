"""Fill the missing shards of a volume in several processes of this machine.

A process gets one shard at a time. A process that dies is replaced once, and all processes stop with their parent.
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
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import cast

import torch

from magnet_cli.computing.filling import ShardFiller, missing_shards
from magnet_cli.computing.loading import Settings, Source, load
from magnet_cli.computing.memory import BatchPlan
from magnet_cli.errors import MagnetError
from magnet_cli.volume import Volume

_STOPPED = 2  # workers that die at one shard before the run ends


@dataclass(frozen=True)
class Job:
    """All that a process needs to fill any shard of a volume; `settings` are those of the generator."""

    volume: Path
    source: Source
    output: str
    device: str
    threads: int
    batches: BatchPlan
    settings: Settings = ()

    def filler(self) -> ShardFiller:
        """Load the generator, and return the filler of the volume's shards.

        Raises:
            MagnetError: as `load` and `ShardFiller`.
        """
        torch.set_num_threads(self.threads)
        volume = Volume.open(self.volume)
        generator, model = load(self.source, self.output, self.device, volume.spec.precision, self.settings)
        return ShardFiller(volume, generator, self.batches, model)


def shared_threads(workers: int) -> int:
    """Return the number of CPU threads of each of several workers: those of one process, shared, at least one."""
    return max(1, torch.get_num_threads() // workers)


def fill(
    volume: Volume, jobs: list[Job], num_rows: int, part: tuple[int, int], warn: Callable[[str], None]
) -> Iterator[tuple[int, int]]:
    """Compute what is missing of rows 0..num_rows-1, with one process for each job; yield as `filling.fill`.

    Args:
        volume: the volume of the jobs.
        jobs: one for each process; they differ in the device alone.
        num_rows: N, number of rows that the volume is to have at least.
        part: (I, N): only the shards s ≡ I-1 mod N.
        warn: called with a message when a worker has died.

    Raises:
        MagnetError: as `filling.fill`; or two workers died at the same shard.
    """
    tasks = deque(_Task(shard, rows) for shard, rows in missing_shards(volume, num_rows, part))
    crew = [_Worker(job, tasks.popleft()) for job in jobs[: len(tasks)]]
    try:
        while crew:
            for worker in _Worker.ready(crew):
                task, answer = worker.task, worker.answer()
                if isinstance(answer, MagnetError):
                    raise answer
                if worker.died:
                    crew.remove(worker)
                    crew.append(_Worker(worker.job, _again(task, worker, volume, warn)))
                    continue
                if answer is None:
                    tasks.append(dataclasses.replace(task, insist=True))  # after all others
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
    """A shard, the rows it is to have, whether to insist (ShardFiller), and the number of workers that died at it."""

    shard: int
    rows: int
    insist: bool = False
    deaths: int = 0


def _again(task: _Task, worker: "_Worker", volume: Volume, warn: Callable[[str], None]) -> _Task:
    """The task of a dead worker, for another one; MagnetError if this shard has already crashed one worker."""
    first = task.shard * volume.spec.shard_rows
    what = f"a worker on {worker.job.device} ended {worker.end} at shard {task.shard} (rows from {first})"
    if task.deaths + 1 == _STOPPED:
        message = f"{what}, as one did before it; finished shards are safe"
        raise MagnetError(
            message, "look for its trace above, or for a lack of memory: pass `memory`, or fewer `workers`"
        )
    warn(f"{what}; another one tries it again")
    return dataclasses.replace(task, deaths=task.deaths + 1)


class _Worker:
    """A process that fills one shard after another."""

    def __init__(self, job: Job, task: _Task) -> None:
        self.job = job
        self.died = False
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_work, args=(theirs, job), daemon=True)
        with _ignoring_interrupts():
            self._process.start()
        theirs.close()
        self.give(task)

    @staticmethod
    def ready(workers: list["_Worker"]) -> list["_Worker"]:
        """Wait until some of the workers have an answer, and return these."""
        pipes = connection.wait([worker._pipe for worker in workers])
        return [worker for worker in workers if worker._pipe in pipes]

    def give(self, task: _Task) -> None:
        """Send a task to the process."""
        self.task = task
        with contextlib.suppress(OSError):  # the process has just died: `answer` will find out
            self._pipe.send((task.shard, task.rows, task.insist))

    def answer(self) -> int | MagnetError | None:
        """Return the result of the task, as ShardFiller, or its error; None with `died` set if the process died."""
        try:
            return self._pipe.recv()
        except (EOFError, OSError):
            self.died = True
            self.stop()
            return None

    @property
    def end(self) -> str:
        """How the process ended, for a message."""
        code = cast(int, self._process.exitcode)
        return f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"

    def stop(self) -> None:
        """Kill the process; the shard in work is either stored whole or not at all."""
        self._pipe.close()
        if not self.died:
            self._process.kill()
        self._process.join()


@contextlib.contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Processes started in this block ignore a terminal's Ctrl-C; their parent gets it and stops them."""
    resource_tracker.ensure_running()  # if multiprocessing starts it on its own, it lifts the mask below
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: connection.Connection, job: Job) -> None:
    """Load, then fill one shard after another until the parent closes the pipe. A bug ends the process with a trace."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        filler = job.filler()
        while True:
            shard, rows, insist = pipe.recv()
            pipe.send(filler(shard, rows, insist=insist))
    except MagnetError as error:
        pipe.send(error)
    except (EOFError, BrokenPipeError):
        return


def _end_with_parent() -> None:
    cast(BaseProcess, multiprocessing.parent_process()).join()
    os._exit(1)
