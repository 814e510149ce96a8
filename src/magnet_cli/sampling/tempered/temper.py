"""Temper: move latents from the prior to a polarity that re-weighting cannot reach, by sequential Monte Carlo.

`advance` yields once a temperature is safe on disk; the same call later goes on from there, to the same bytes.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from magnet_cli.errors import SampleError
from magnet_cli.sampling.tempered import moves
from magnet_cli.sampling.tempered.island import Island
from magnet_cli.sampling.tempered.measure import Measure
from magnet_cli.sampling.tempered.run import Schedule, Step, TemperedRun
from magnet_cli.volume import Volume

CONVERGED = 1.05  # the largest R̂ of a converged run (docs/method.md)
_MOVES = 24  # moves of a walk, for every _VECTORS vectors of the solver
_VECTORS = 16
_MOST_MOVES = 96


def num_islands(n: int, particles: int) -> int:
    """Return the number of islands for n latents: at least two, since one alone cannot show convergence."""
    return max(2, -(-n // particles))


def num_moves(volume: Volume) -> int:
    """Return the number of moves of a walk: 24 for every 16 vectors of the solver, at most 96.

    A short walk leads to a latent so close that its Jacobian, one forward product for each vector, says little new.
    """
    return min(_MOST_MOVES, _MOVES * -(-volume.spec.vectors // _VECTORS))


@dataclass(frozen=True)
class Cost:
    """Estimated cost of islands in Jacobians, evaluations of the generator, and seconds on this device."""

    jacobians: int
    evaluations: int
    seconds: float


def cost(schedule: Schedule, islands: int, spread: float, measure: Measure) -> Cost:
    """Estimate the cost of islands that are not at their end, from a few latents that are measured twice.

    A temperature lowers the effective size to its target: for Gaussian log-volumes of standard deviation s, `spread`
    in nats, the next temperature is √(−log target) / s away.
    """
    temperatures = math.ceil(abs(schedule.rho) * spread / math.sqrt(-math.log(schedule.target)))
    sweeps = (schedule.sweeps * (temperatures - 1 + schedule.rounds) + 1) * (temperatures > 0)
    jacobians = islands * schedule.particles * (1 + sweeps)
    evaluations = jacobians + islands * schedule.particles * sweeps * schedule.moves
    latents, labels = measure.prior(np.random.default_rng(schedule.seed), max(measure.cut.batch, 8), 0)
    for _ in range(2):  # the first does not count
        start = time.perf_counter()
        measure.log_volume(latents, labels)
        middle = time.perf_counter()
        measure.features(latents, labels)
        end = time.perf_counter()
    seconds = (jacobians * (middle - start) + evaluations * (end - middle)) / len(latents)
    return Cost(jacobians, evaluations, seconds)


def left(run: TemperedRun, islands: int) -> list[int]:
    """Return the numbers of the islands that are not at their end."""
    return [number for number in range(islands) if not _done(run, run.steps(number))]


def _done(run: TemperedRun, steps: list[Step]) -> bool:
    return run.spec.schedule.is_over([step.rho for step in steps])


def advance(run: TemperedRun, measure: Measure, islands: int) -> Iterator[tuple[int, Step]]:
    """Move islands to the polarity of the run, one after the other, from the temperatures that are stored.

    Yields the number of an island and a temperature of it that is safe on disk.
    """
    run.create()
    run.claim()
    for number in left(run, islands):
        island = Island(number, run.spec.schedule, measure, run.steps(number))
        for step in island.advance():
            run.write(number, len(island.steps) - 1, step)
            yield number, step


@dataclass(frozen=True)
class Outcome:
    """Result of a finished tempered run: n latents, pairwise different, and the polarities of each island.

    `accepted` is the share of accepted ends of walks at each polarity, 1 at the first; `r_hat` holds (rho, R̂ of
    log-volume across islands) at the polarities of the first island but 0; `converged_rho` is the last of them with R̂
    of at most 1.05, or 0; `mean` is of log-volume over islands, `error` its standard error between islands.
    """

    latents: np.ndarray
    log_volume: np.ndarray
    labels: np.ndarray | None
    schedule: list[list[float]]
    accepted: list[list[float]]
    r_hat: list[tuple[float, float]]
    converged_rho: float
    mean: float
    error: float
    jacobians: int

    @property
    def converged(self) -> bool:
        """Whether R̂ is at most 1.05 at the last polarity."""
        return not self.r_hat or self.r_hat[-1][0] == self.converged_rho


def outcome(run: TemperedRun, islands: int, n: int) -> Outcome:
    """Return the first n latents of islands at their end, in order, and how far the islands agree."""
    every = [run.steps(number) for number in range(islands)]
    if not all(_done(run, steps) for steps in every):
        raise SampleError(
            f"{run.path} does not hold {islands} islands at rho {run.spec.schedule.rho:g} yet",
            "repeat the command: it goes on from where they are",
        )
    last = [_particles(steps, steps[-1]) for steps in every]
    rhos = sorted({step.rho for step in every[0][1:]}, key=abs)
    ratios = [(rho, r_hat(*_at(every, rho))) for rho in rhos]
    converged = [rho for rho, ratio in ratios if ratio <= CONVERGED]
    means = np.array([values.mean() for _, values, _ in last])
    named = [labels for _, _, labels in last if labels is not None]
    return Outcome(
        latents=np.concatenate([latents for latents, _, _ in last])[:n],
        log_volume=np.concatenate([values for _, values, _ in last])[:n],
        labels=np.concatenate(named)[:n] if named else None,
        schedule=[[step.rho for step in steps] for steps in every],
        accepted=[[step.accepted for step in steps] for steps in every],
        r_hat=ratios,
        converged_rho=converged[-1] if converged else 0.0,
        mean=float(means.mean()),
        error=float(means.std(ddof=1) / math.sqrt(islands)) if islands > 1 else math.inf,
        jacobians=sum(len(step.latents) for steps in every for step in steps),
    )


def _particles(steps: list[Step], at: Step) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return latents, log-volumes and labels of an island's particles at the end of a temperature."""

    def rows(name: str) -> np.ndarray:
        return np.concatenate([getattr(step, name) for step in steps])[at.particles]

    return rows("latents"), rows("log_volume"), None if at.labels is None else rows("labels")


def _at(every: list[list[Step]], rho: float) -> tuple[np.ndarray, np.ndarray]:
    """Return log-volumes and weights [I, P] of all islands at a polarity, from the last temperature before it."""
    values, weights = [], []
    for steps in every:
        at = [step for step in steps if abs(step.rho) <= abs(rho)][-1]
        log_volume = _particles(steps, at)[1]
        scores = moves.scores(rho - at.rho, log_volume)
        values.append(np.where(np.isfinite(log_volume), log_volume, 0.0))
        weights.append(np.exp(scores - scores.max()))
    return np.stack(values), np.stack(weights)


def r_hat(values: np.ndarray, weights: np.ndarray) -> float:
    """Return R̂, the potential scale reduction of independent islands (Gelman and Rubin 1992): 1 where they agree.

    Values and weights are [I, P].
    """
    shares = weights / weights.sum(axis=1, keepdims=True)
    means = (shares * values).sum(axis=1)
    within = float((shares * (values - means[:, None]) ** 2).sum(axis=1).mean())
    if len(values) < 2 or within == 0:
        return 1.0
    size = values.shape[1]
    return math.sqrt((size - 1) / size + float(means.var(ddof=1)) / within)
