"""The verb behind `magnet train slogan`: plan a training, run it, keep it.

`run` yields once what was done is safe on disk; a stopped training goes on from there to the same weights.
"""

import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import torch

from magnet_cli import models
from magnet_cli.errors import SampleError
from magnet_cli.training.slogan import data as data_
from magnet_cli.training.slogan import progress
from magnet_cli.training.slogan.data import DataSet
from magnet_cli.training.slogan.run import Run, RunSpec
from magnet_cli.training.slogan.trainer import Recipe, Trainer

_REPORTS = 40  # of a run, at most
_FEWEST = 20  # steps between two reports, which take as long as a few steps
_GRIDS_EVERY = 4  # reports


@dataclass(frozen=True)
class TrainRequest:
    """What `magnet train slogan` is asked for; the fields are its flags, described in docs/reference/cli.md."""

    data: str
    components: int
    steps: int | None = None
    probe: Path | None = None
    latent_dim: int = 16
    batch: int | None = None
    seed: int = 0
    width: int = 16
    rate: float | None = None
    prior_rate: float | None = None
    contrast: float = 4.0
    penalty: float | None = None
    explicit: bool = False
    no_contrastive: bool = False
    out: Path | None = None
    device: str | None = None
    threads: int = 1
    resume: bool = False
    force: bool = False

    def recipe(self, *, points: bool) -> Recipe:
        """Return the hyperparameters, defaults being those for points or for images."""
        return Recipe(
            components=self.components,
            latent_dim=self.latent_dim,
            steps=self.steps or (4_000 if points else 2_000),
            batch=self.batch or (128 if points else 32),
            seed=self.seed,
            width=self.width,
            rate=self.rate or (2e-3 if points else 1e-3),
            prior_rate=self.prior_rate or (0.02 if points else 0.03),
            wait=0.0 if points else 0.1,
            contrast=self.contrast,
            penalty=self.penalty or (0.02 if points else 1.0),
            penalty_every=2 if points else 4,
            explicit=self.explicit,
            no_contrastive=self.no_contrastive,
        )


@dataclass(frozen=True)
class TrainPlan:
    """A training with its data loaded; `report` is that of the finished run, or None."""

    folder: Run
    spec: RunSpec
    data: DataSet
    probe: DataSet | None
    device: str
    threads: int
    force: bool
    begun: bool
    report: dict | None


def plan(request: TrainRequest) -> TrainPlan:
    """Load the data and look into the run's folder; nothing is written.

    Raises:
        MagnetError: the data do not fit, the folder is another's, there is no run to resume, or no such device.
    """
    device = request.device or models.default_device()
    models.check_device(device)
    data = data_.load(request.data)
    probe = None if request.probe is None else data_.load_probe(request.probe, data, request.components)
    spec = RunSpec.of(data, probe, request.recipe(points=data.values.ndim == 2))
    name = f"slogan-{Path(request.data).stem}-k{request.components}-seed{request.seed}"
    folder = Run(request.out or Path("runs") / name)
    begun = not request.force and folder.begun(spec)
    if request.resume and not begun:
        raise SampleError(f"there is no run in {folder.path} to resume", "leave `resume` out to begin one")
    report = folder.report() if begun else None
    return TrainPlan(folder, spec, data, probe, device, request.threads, request.force, begun, report)


def interval(steps: int) -> int:
    """Return the number of steps between two reports, after each of which everything is kept."""
    return max(-(-steps // _REPORTS), _FEWEST)


def run(plan: TrainPlan) -> Generator[int, None, dict]:
    """Train to the end, from where the run stands, and finish its folder.

    Yields:
        Number of steps that became safe on disk.

    Returns:
        The report.

    Raises:
        GeneratorError: training diverged.
        DamageError: what was kept is damaged.
        MagnetError: no space, no permission; or scikit-learn is missing, and classes are known.
    """
    with plan.folder.writing(plan.spec, force=plan.force) as done:
        return done or (yield from _train(plan))


def _train(plan: TrainPlan) -> Generator[int, None, dict]:
    torch.set_num_threads(plan.threads)
    folder, spec = plan.folder, plan.spec
    trainer = Trainer(spec.recipe, plan.data, plan.probe, plan.device)
    if plan.force or not folder.begun(spec):
        progress.metrics_of(trainer, plan.data)  # fail now if scikit-learn is missing, not after training
        folder.start(spec, force=plan.force)
    log = folder.restore(trainer) or []
    done = log[-1]["step"] if log else 0
    yield done
    before, start = (log[-1]["seconds"] if log else 0.0), time.monotonic()
    every = interval(spec.recipe.steps)
    while trainer.step < spec.recipe.steps:
        trainer.advance()
        if trainer.step % every and trainer.step != spec.recipe.steps:
            continue
        losses = {name: round(value, 6) for name, value in trainer.losses().items()}
        line = {"step": trainer.step, "seconds": round(before + time.monotonic() - start, 3), **losses}
        log.append(line | progress.metrics_of(trainer, plan.data))
        if (trainer.step // every) % _GRIDS_EVERY == 0 or trainer.step == spec.recipe.steps:
            picture = progress.grid(trainer, plan.data)
            if picture:
                folder.publish_grid(trainer.step, picture)
        folder.save(trainer, log)
        yield trainer.step - done
        done = trainer.step
    report = _report(plan, log[-1])
    folder.finish(spec, report)
    return report


def _report(plan: TrainPlan, last: dict) -> dict:
    metrics = {name: value for name, value in last.items() if name not in {"critic", "adversarial", "contrastive"}}
    recipe, folder = plan.spec.recipe, plan.folder
    fields: dict[str, object] = {"run": str(folder.path), "generator": str(folder.generator), "data": plan.spec.data}
    fields |= {"components": recipe.components, "steps": metrics.pop("step"), "seed": recipe.seed}
    return fields | metrics


def summary(report: dict) -> list[str]:
    """Describe a report in one or two lines: the weights, and how they agree with known classes."""
    lines = ["weights: " + " ".join(f"{weight:.3f}" for weight in report["weights"])]
    if "nmi" in report:
        error = report["weight_error"]
        agreement = f"nmi {report['nmi']:.3f}, ari {report['ari']:.3f}, purity {report['purity']:.3f}"
        lines.append(f"{agreement}; mean error of the weights {error['mean']:.3f}, largest {error['worst']:.3f}")
    return lines
