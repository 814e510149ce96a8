"""Temper: latents that go from the prior to a polarity that re-weighting cannot reach, by sequential Monte Carlo.

Joins island, measure and stored, and says how far the result is to be trusted. The caller owns progress and stopping:
`advance` yields once a temperature is safe on disk, and the same call later goes on from there to the same bytes.
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

CONVERGED = 1.05  # METHOD: above this R̂ it has not
_MOVES = 24  # of a walk, for every so many vectors of the solver
_VECTORS = 16
_MOST_MOVES = 96


def num_islands(n: int, particles: int) -> int:
    """Islands for n latents: at least two, for one alone says nothing of its convergence."""
    return max(2, -(-n // particles))


def num_moves(volume: Volume) -> int:
    """Moves of a walk: 24 for every 16 vectors of the solver, 96 at most, so that it is not short beside its Jacobian.

    A short walk leads to a latent so close that the Jacobian, which costs a forward product a vector, says little new.
    """
    return min(_MOST_MOVES, _MOVES * -(-volume.spec.vectors // _VECTORS))


@dataclass(frozen=True)
class Cost:
    """What islands are going to take, about: how many temperatures there are is found on the way.

    Attributes:
        jacobians: latents whose Jacobian is taken.
        evaluations: latents that the generator is evaluated at.
        seconds: of both, on this device.
    """

    jacobians: int
    evaluations: int
    seconds: float


def cost(schedule: Schedule, islands: int, spread: float, measure: Measure) -> Cost:
    """What so many islands are going to take; a few latents are measured for it, twice.

    A temperature lowers the effective size to its target: for log-volumes of standard deviation s, those of a Gaussian,
    it is √(−log target) / s away.

    Args:
        schedule: of the islands.
        islands: those that are not done.
        spread: standard deviation of log-volume under the prior, in nats.
        measure: of the generator.
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
    """The numbers of those islands that are not at the end.

    Raises:
        DamageError, MagnetError: as `TemperedRun.steps`.
    """
    return [number for number in range(islands) if not _done(run, run.steps(number))]


def _done(run: TemperedRun, steps: list[Step]) -> bool:
    return run.spec.schedule.is_over([step.rho for step in steps])


def advance(run: TemperedRun, measure: Measure, islands: int) -> Iterator[tuple[int, Step]]:
    """Take islands to the polarity asked for, one after the other, from where they are.

    Args:
        run: where they are kept; it is created.
        measure: of the generator, with the volume of the run's spec.
        islands: how many are to be at the end.

    Yields:
        The island, and a temperature of it that is safe on disk.

    Raises:
        GeneratorError: a Jacobian is not finite.
        SampleError: another process is at work, or latents that are the same do not come apart.
        DamageError: what was stored is damaged.
        MagnetError: it cannot be written.
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
    """What islands at the end have to give.

    Attributes:
        latents: [n, D] float32, pairwise different.
        log_volume: [n] float64, natural log.
        labels: [n] int64, or None.
        schedule: of each island, its polarities.
        accepted: of each island, the share of the walks' ends that were accepted at each of them; 1 at the first.
        r_hat: (rho, R̂ of log-volume across islands) at the polarities of the first island, 0 left out.
        converged_rho: the last of these at which R̂ is at most 1.05; 0 where it is at none.
        mean: of log-volume, over islands.
        error: standard error of that mean, between islands.
        jacobians: that were spent, by all islands.
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
        """Whether R̂ is at most 1.05 at the end."""
        return not self.r_hat or self.r_hat[-1][0] == self.converged_rho


def outcome(run: TemperedRun, islands: int, n: int) -> Outcome:
    """The first n latents of islands that are at the end, in their order, and what they say of each other.

    Raises:
        SampleError: they are not at the end.
        DamageError, MagnetError: as `TemperedRun.steps`.
    """
    every = [run.steps(number) for number in range(islands)]
    if not all(_done(run, steps) for steps in every):
        message = f"{run.path} does not hold {islands} islands at rho {run.spec.schedule.rho:g} yet"
        raise SampleError(message, "repeat the command: it goes on from where they are")
    last = [_standing(steps, steps[-1]) for steps in every]
    rhos = sorted({step.rho for step in every[0][1:]}, key=abs)
    ratios = [(rho, r_hat(*_at(every, rho))) for rho in rhos]
    fine = [rho for rho, ratio in ratios if ratio <= CONVERGED]
    means = np.array([values.mean() for _, values, _ in last])
    labels = None if last[0][2] is None else np.concatenate([named for _, _, named in last])[:n]
    return Outcome(
        latents=np.concatenate([latents for latents, _, _ in last])[:n],
        log_volume=np.concatenate([values for _, values, _ in last])[:n],
        labels=labels,
        schedule=[[step.rho for step in steps] for steps in every],
        accepted=[[step.accepted for step in steps] for steps in every],
        r_hat=ratios,
        converged_rho=fine[-1] if fine else 0.0,
        mean=float(means.mean()),
        error=float(means.std(ddof=1) / math.sqrt(islands)) if islands > 1 else math.inf,
        jacobians=sum(len(step.latents) for steps in every for step in steps),
    )


def _standing(steps: list[Step], at: Step) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Latents, log-volumes and labels of an island's particles at the end of a temperature."""
    names = ("latents", "log_volume", *["labels"] * (at.labels is not None))
    found = [np.concatenate([getattr(step, name) for step in steps])[at.particles] for name in names]
    return found[0], found[1], found[2] if len(found) > 2 else None


def _at(every: list[list[Step]], rho: float) -> tuple[np.ndarray, np.ndarray]:
    """Log-volumes [I, P] of all islands, and their weights, for one polarity: from the last temperature before it."""
    values, weights = [], []
    for steps in every:
        at = [step for step in steps if abs(step.rho) <= abs(rho)][-1]
        found = _standing(steps, at)[1]
        scores = moves.scores(rho - at.rho, found)
        values.append(np.where(np.isfinite(found), found, 0.0))
        weights.append(np.exp(scores - scores.max()))
    return np.stack(values), np.stack(weights)


def r_hat(values: np.ndarray, weights: np.ndarray) -> float:
    """The potential scale reduction of independent islands (Gelman and Rubin 1992): 1 where they agree.

    Args:
        values: [I, P], I ≥ 2.
        weights: [I, P].
    """
    shares = weights / weights.sum(axis=1, keepdims=True)
    means = (shares * values).sum(axis=1)
    within = float((shares * (values - means[:, None]) ** 2).sum(axis=1).mean())
    if len(values) < 2 or within == 0:
        return 1.0
    size = values.shape[1]
    return math.sqrt((size - 1) / size + float(means.var(ddof=1)) / within)
