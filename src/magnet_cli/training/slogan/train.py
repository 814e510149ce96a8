"""Train, keep, judge: the verb behind `magnet train slogan`.

Joins training, checkpoints and judging. The caller owns progress and stopping: `train` yields once what was done since
the last time is safe on disk, and the same call later goes on from there to the same weights.
"""

import time
from collections.abc import Iterator

import torch

from magnet_cli.training.slogan import progress
from magnet_cli.training.slogan.data import DataSet
from magnet_cli.training.slogan.run import Run, RunSpec
from magnet_cli.training.slogan.trainer import Trainer

_REPORTS = 40  # of a run, at most
_FEWEST = 20  # steps between two of them: a report takes as long as some steps
_GRIDS_EVERY = 4  # reports


def every(steps: int) -> int:
    """Steps between two reports, after each of which all is kept."""
    return max(-(-steps // _REPORTS), _FEWEST)


def train(
    run: Run,
    spec: RunSpec,
    data: DataSet,
    probe: DataSet | None = None,
    device: str = "cpu",
    threads: int = 1,
) -> Iterator[dict]:
    """Take a run to its end, from where it is.

    Args:
        run: its folder.
        spec: what it is.
        data: what is learned.
        probe: a few labelled samples, if there are any.
        device: of the networks.
        threads: of the CPU, from now on; rounding depends on them, and small networks are slower with more.

    Yields:
        The last line of the log: step, seconds of all steps so far, losses, and what `progress.judged` says. All that
        was done until then is safe on disk. Of a run that was begun before, its last line comes first.

    Raises:
        GeneratorError: training has come apart.
        DamageError: what was kept is damaged.
        MagnetError: no space, no permission; or scikit-learn is missing, and classes are known.
    """
    torch.set_num_threads(threads)
    trainer = Trainer(spec.recipe, data, probe, device)
    if not run.begun(spec):
        progress.judged(trainer, data)  # what it needs is missed before the work, not after
        run.start(spec)
    log = run.restore(trainer) or []
    yield from log[-1:]
    before, start = (log[-1]["seconds"] if log else 0.0), time.monotonic()
    interval = every(spec.recipe.steps)
    while trainer.step < spec.recipe.steps:
        trainer.advance()
        if trainer.step % interval and trainer.step != spec.recipe.steps:
            continue
        losses = {name: round(value, 6) for name, value in trainer.losses().items()}
        line = {"step": trainer.step, "seconds": round(before + time.monotonic() - start, 3), **losses}
        log.append(line | progress.judged(trainer, data))
        if (trainer.step // interval) % _GRIDS_EVERY == 0 or trainer.step == spec.recipe.steps:
            picture = progress.grid(trainer, data)
            if picture:
                run.publish_grid(trainer.step, picture)
        run.save(trainer, log)
        yield log[-1]


def report(run: Run, spec: RunSpec, last: dict) -> dict:
    """What a finished run says of itself, for run.json and for stdout."""
    kept = {name: value for name, value in last.items() if name not in {"critic", "adversarial", "contrastive"}}
    more = {"components": spec.recipe.components, "steps": kept.pop("step"), "seed": spec.recipe.seed}
    return {"run": str(run.path), "generator": str(run.generator), "data": spec.data} | more | kept
