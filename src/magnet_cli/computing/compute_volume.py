"""Compute a volume from Python: `compute` waits for all rows, `compute_steps` yields after each shard."""

from collections.abc import Generator as Steps
from pathlib import Path
from typing import Any

from torch import nn

from magnet_cli import models
from magnet_cli.computing import steps
from magnet_cli.computing.request import DEFAULT_TOLERANCE, ComputeRequest
from magnet_cli.files.progress import SILENT, Messages, Progress
from magnet_cli.models import Generator
from magnet_cli.volume import Volume


def compute(
    generator: Generator | nn.Module | Path | str,
    n: int,
    *,
    path: str | Path | None = None,
    top_k: int | None = None,
    space: str = "z",
    output: str = "pixel",
    truncation: float = 1.0,
    label: tuple[int | str, ...] = (),
    solver: str = "auto",
    precision: str = "float32",
    tolerance: float = DEFAULT_TOLERANCE,
    seed: int = 0,
    shard_rows: int | None = None,
    batch_size: int | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Volume:
    """Compute singular values of a generator's Jacobian at n latents of its prior, and return them in a volume.

    The same as `magnet compute`: if the volume exists, only missing rows are computed, and a run that was stopped
    continues. Solver: docs/method.md#tolerance. `compute_steps` yields after each shard.

    Args:
        generator: as `load` returns it, and its device is used; or what `load` takes.
        n: N, number of rows that the volume is to have at least.
        path: the folder; default a folder under MAGNET_HOME/volumes, where `magnet sample` finds it.
        top_k: K, number of singular values stored for a row; default D if D ≤ 128, else 30.
        space: input of the Jacobian: "z", or "w" = M(z) for generators with a mapping network.
        output: output of the Jacobian: "pixel", "style", "affine", or the name of an image model.
        truncation: ψ in (0, 1]; 1 is no truncation.
        label: classes of a conditional generator that take turns, by number or ImageNet name; empty for all.
        solver: "auto", "exact", "pilot", "sketch" or "projection".
        precision: "auto", "float64", "float32", "tf32" or "bfloat16".
        tolerance: error of log-volume that "auto" may make, rms in nats (docs/method.md#tolerance).
        seed: of the latents.
        shard_rows: R, rows of a shard; default by generator size.
        batch_size: B, number of latents at a time; default by generator size and memory.
        memory: bytes that the work may take; default half of what is free on the device.
        progress: called with (rows that are safe on disk, n) after each shard.

    Returns:
        The volume: latents [N, D] float32 and singular values [N, K] float32, image intensity per unit of latent.

    Raises:
        SpecError: a value is outside its range.
        GeneratorError: the function has no Jacobian, singular values are not finite, or no solver meets the tolerance.
        VolumeError: the folder holds a volume with other settings, or other files.
        MagnetError: the volume cannot be written.

    Examples:
        >>> volume = compute("mnist", 4, path="mnist.vol", solver="exact")
        >>> volume.num_rows, volume.spec.top_k
        (4, 16)
    """
    request = ComputeRequest(
        n=n,
        volume=_folder(path),
        top_k=top_k,
        space=space,
        output=output,
        truncation=truncation,
        label=label,
        solver=solver,
        precision=precision,
        tolerance=tolerance,
        seed=seed,
        shard_rows=shard_rows,
        batch_size=batch_size,
        memory=memory,
    )
    plan = steps.begin(steps.plan(_loaded(generator), request), SILENT)
    lacking = plan.lacking
    safe = max(n - sum(lacking.values()), 0)
    for shard, _ in steps.run(plan, SILENT):
        safe += lacking.get(shard, 0)  # rows of another process count, too
        if progress:
            progress(safe, n)
    return plan.volume


def compute_steps(
    generator: Generator | nn.Module | Path | str,
    n: int,
    *,
    path: str | Path | None = None,
    messages: Messages = SILENT,
    **settings: Any,
) -> Steps[tuple[int, int], None, Volume]:
    """Compute a volume as `compute`, and yield after each shard; to stop is to drop the generator.

    Args:
        generator: as for `compute`.
        n: N, number of rows that the volume is to have at least.
        path: the folder.
        messages: receives the reason for the choice of the solver; by default it is dropped.
        **settings: the other arguments of `compute`, except `progress`.

    Yields:
        (shard, number of new rows), once they are safe on disk.

    Returns:
        The volume.

    Raises:
        MagnetError: as `compute`.

    Examples:
        >>> list(compute_steps("mnist", 6, path="six.vol", solver="exact", shard_rows=4))
        [(0, 4), (1, 2)]
    """
    request = ComputeRequest(n=n, volume=_folder(path), **settings)
    plan = steps.begin(steps.plan(_loaded(generator), request), messages)
    yield from steps.run(plan, messages)
    return plan.volume


def _folder(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path).expanduser()


def _loaded(generator: Generator | nn.Module | Path | str) -> Generator:
    return generator if isinstance(generator, Generator) else models.load(generator, device=models.default_device())
