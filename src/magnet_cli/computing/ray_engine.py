"""Fill the missing shards of a volume as tasks of Ray, on all machines of a cluster.

All machines see the volume, the checkpoint and MAGNET_HOME at the same paths.
"""

import contextlib
import dataclasses
import functools
import importlib
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from types import ModuleType

from magnet_cli.computing.filling import ShardFiller, missing_shards
from magnet_cli.computing.processes import Job
from magnet_cli.errors import MagnetError
from magnet_cli.volume import Volume

_RETRIES = 3  # of a task, when its process or its machine is lost


def fill(
    volume: Volume, job: Job, num_rows: int, part: tuple[int, int], address: str | None = None
) -> Iterator[tuple[int, int]]:
    """Compute what is missing of rows 0..num_rows-1: one task for each shard; yield as `filling.fill`.

    A task takes a GPU if the job's device is one. `address` is the cluster's, "auto" for that of this machine; default
    RAY_ADDRESS, else a local Ray.

    Raises:
        MagnetError: as `filling.fill`; Ray is not installed or not reached, or lost the process of a task too often.
    """
    missing = missing_shards(volume, num_rows, part)
    if not missing:
        return
    with contextlib.redirect_stdout(sys.stderr):  # Ray reports lost processes there, and stdout is for the result
        yield from _run(_connected(address), job, missing)


def _run(ray: ModuleType, job: Job, missing: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    gpus = int(job.device.startswith("cuda"))
    job = dataclasses.replace(job, device="cuda" if gpus else job.device)  # Ray shows a task its own GPU alone
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=_RETRIES)(_fill)
    try:
        running = {task.remote(job, shard, rows): (shard, rows) for shard, rows in missing}
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            shard, rows = running.pop(done)
            answer = ray.get(done)
            if isinstance(answer, MagnetError):
                raise answer
            if answer is None:
                running[task.remote(job, shard, rows, insist=True)] = (shard, rows)  # after all others
            else:
                yield shard, answer
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError) as error:
        message = f"a process of Ray ended {_RETRIES + 1} times at shard {shard}"
        raise MagnetError(message, "look into Ray's logs, or for a lack of memory; finished shards are safe") from error
    finally:
        ray.shutdown()


def _fill(job: Job, shard: int, rows: int, *, insist: bool = False) -> int | MagnetError | None:
    """One task: the result of ShardFiller, or its error."""
    try:
        return _filler(job)(shard, rows, insist=insist)
    except MagnetError as error:
        return error


@functools.lru_cache(1)
def _filler(job: Job) -> ShardFiller:
    """Loaded once in a process, which gets many tasks."""
    return job.filler()


def _connected(address: str | None) -> ModuleType:
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        message = '`engine="ray"` is asked for, and Ray is not installed'
        raise MagnetError(message, "install it: pip install 'magnet-cli[ray]'") from error
    address = address or os.environ.get("RAY_ADDRESS")
    own = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}  # out of reach of the network
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        if match := re.fullmatch(r"([\w.-]+):(\d{1,5})", address or ""):
            socket.create_connection((match[1], int(match[2])), timeout=10).close()  # Ray itself tries for minutes
        ray.init(address, log_to_driver=False, logging_level="error", **({} if address else own))
    except (OSError, OverflowError, ValueError) as error:
        message = f"there is no Ray at {address}: {error}"
        raise MagnetError(message, "start one, as docs/howto/many-workers.md says, or leave `address` out") from error
    signal.signal(signal.SIGTERM, terminate)  # Ray's own handler exits with another code
    return ray
