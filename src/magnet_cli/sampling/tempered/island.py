"""One island of the tempered sampler: latents that go together from the prior to the polarity asked for.

Owns the algorithm: a function of seed, island and what was measured before. Knows nothing of files.
"""

from collections.abc import Iterator

import numpy as np

from magnet_cli.errors import SampleError
from magnet_cli.sampling.tempered import moves, surrogate
from magnet_cli.sampling.tempered.measure import Measure
from magnet_cli.sampling.tempered.moves import Kernel
from magnet_cli.sampling.tempered.run import Schedule, Step
from magnet_cli.sampling.tempered.surrogate import Surrogate

_STREAM = 0x74656D70  # keeps these random numbers apart from those of volumes and draws
_FIRST_WIDTH = 0.5  # b of the first walks
_WIDTHS = 0.02, 1.0
_WALKED = 0.3  # share of a walk's moves that b is tuned to
_TUNING = 2.0  # log of b a unit of that share
_LEARNED = 128, 768  # latents a surrogate is fitted to, at most: twice its features, between these
_FADING = 0.7  # weight of what was measured, a temperature later
_BISECTIONS = 40
_LAST_ROUNDS = 20  # of ever shorter walks, until no two latents are the same


class Island:
    """An island on its way.

    Args:
        number: which, from 0.
        schedule: what it is asked to do.
        measure: of the generator.
        steps: the temperatures that it has behind it, as stored.
    """

    def __init__(self, number: int, schedule: Schedule, measure: Measure, steps: list[Step]) -> None:
        self.steps = list(steps)
        self._number = number
        self._schedule = schedule
        self._known = Known(measure)
        for age, step in enumerate(steps):
            for rows in _slices(step.measured):
                labels = None if step.labels is None else step.labels[rows]
                self._known.add(age, step.latents[rows], labels, step.log_volume[rows])

    @property
    def done(self) -> bool:
        """Whether it is at the end."""
        return self._schedule.is_over([step.rho for step in self.steps])

    def advance(self) -> Iterator[Step]:
        """Each temperature to come, once all of it is measured.

        Raises:
            GeneratorError: a Jacobian is not finite.
            SampleError: latents that are the same do not come apart, or none competes.
        """
        while not self.done:
            rng = np.random.default_rng([_STREAM, self._schedule.seed, self._number, len(self.steps)])
            self.steps.append(self._next(rng) if self.steps else self._first(rng))
            yield self.steps[-1]

    def _first(self, rng: np.random.Generator) -> Step:
        count = self._schedule.particles
        latents, labels = self._known.measure.prior(rng, count, self._number * count)
        places = self._known.add(0, latents, labels)
        numbers = {"width": _FIRST_WIDTH, "walked": _WALKED, "accepted": 1.0}
        return Step(0.0, latents, self._known.log_volume, labels, places, (count,), **numbers)

    def _next(self, rng: np.random.Generator) -> Step:
        last, known, before = self.steps[-1], self._known, len(self._known.latents)
        here = known.log_volume[last.particles]
        if not np.isfinite(here).any():
            message = (
                f"all {len(here)} latents of island {self._number} have leading singular values below the rank floor"
            )
            raise SampleError(message, "pass a smaller --top-k, or more --particles")
        rho, share = next_rho(here, last.rho, self._schedule)
        particles = last.particles
        if rho != last.rho:
            particles = particles[moves.systematic(rng, moves.scores(rho - last.rho, here))]
        width = float(np.clip(last.width * np.exp(_TUNING * (last.walked - _WALKED)), *_WIDTHS))
        crowd = Crowd(known, particles, rho, len(self.steps))
        if self._schedule.is_over([step.rho for step in self.steps] + [rho]):
            for _ in range(self._schedule.sweeps):
                crowd.sweep(rng, width, self._schedule.moves)
            crowd.part(rng, width, self._schedule.moves)
            particles = crowd.particles
        else:
            particles = self._chains(crowd, rng, width)
        return Step(
            rho=rho,
            latents=known.latents[before:],
            log_volume=known.log_volume[before:],
            labels=None if known.labels is None else known.labels[before:],
            particles=particles,
            measured=tuple(crowd.measured),
            effective_share=share,
            width=width,
            walked=float(np.mean(crowd.walked)),
            accepted=float(np.mean(crowd.accepted)),
            error=max(each.error for each in crowd.surrogates),
            explained=min(each.explained for each in crowd.surrogates),
        )

    def _chains(self, crowd: "Crowd", rng: np.random.Generator, width: float) -> np.ndarray:
        """Places [P] where long chains of walks from a few of the particles came by, of the last sweep's worth of them.

        Waste-free sequential Monte Carlo (Dau and Chopin 2022): where moves mix slowly, few long chains of which every
        state is kept are worth more than many short ones of which the last is.
        """
        known, places, count = self._known, crowd.particles, len(crowd.particles)
        starts = -(-count // self._schedule.walks)
        labels = np.zeros(count) if known.labels is None else known.labels[places]
        order = np.lexsort((known.log_volume[places], labels))  # so that few stand for all, class by class
        which = order[((np.arange(starts) + rng.random()) * (count / starts)).astype(int)]
        for _ in range(self._schedule.sweeps):
            places = [crowd.sweep(rng, width, self._schedule.moves, which) for _ in range(self._schedule.walks)]
        return np.concatenate(places)[:count]


class Known:
    """All that an island has measured, in the order in which it was.

    Attributes:
        measure: of the generator.
        latents: [N, D] float32.
        log_volume: [N] float64.
        labels: [N] int64, or None.
        features: [N, F] float32.
        ages: [N], the temperature at which each was measured.
    """

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self.latents = np.empty((0, measure.spec.latent_dim), np.float32)
        self.log_volume = np.empty(0)
        self.labels = np.empty(0, np.int64) if measure.spec.num_classes else None
        self.features = None
        self.ages = np.empty(0, np.int64)

    def add(
        self, age: int, latents: np.ndarray, labels: np.ndarray | None, log_volume: np.ndarray | None = None
    ) -> np.ndarray:
        """Measure latents, unless that is known; their places."""
        places = len(self.latents) + np.arange(len(latents))
        if not len(latents):
            return places
        values = self.measure.log_volume(latents, labels) if log_volume is None else log_volume
        found = self.measure.features(latents, labels)
        self.features = found if self.features is None else np.concatenate([self.features, found])
        self.latents = np.concatenate([self.latents, latents])
        self.log_volume = np.concatenate([self.log_volume, values])
        self.labels = None if labels is None else np.concatenate([self.labels, labels])
        self.ages = np.concatenate([self.ages, np.full(len(latents), age)])
        return places


class Crowd:
    """Particles at one temperature, whose surrogates and proposals are frozen.

    Each particle is moved by what was learned without it and without any copy of it: the places of what is known fall
    into two folds, and what moves the particles of a fold is fitted to everything but where they stand. A surrogate
    that had seen them would miss nothing there, and let them go more easily than it lets others come.

    Attributes:
        particles: [P] int64, where they are: places in `known`.
        surrogates: of the two folds.
        measured: latents that each walk led to.
        walked: share of accepted moves of each sweep.
        accepted: share of accepted ends of each sweep.
    """

    def __init__(self, known: Known, particles: np.ndarray, rho: float, age: int) -> None:
        self.particles = particles.copy()
        self.measured: list[int] = []
        self.walked: list[float] = []
        self.accepted: list[float] = []
        self._known = known
        self._rho = rho
        self._age = age
        self._folds = particles % 2
        self.surrogates = [self._fit(fold) for fold in range(2)]
        normal = known.measure.generator.prior.kind.endswith("normal")
        centres = [moves.shrunk_mean(known.latents[particles[self._folds != fold]]) * normal for fold in range(2)]
        self._means = np.stack(centres)[self._folds]

    def _fit(self, fold: int) -> Surrogate:
        known = self._known
        usable = np.isfinite(known.log_volume)
        usable[self.particles[self._folds == fold]] = False
        rows = np.flatnonzero(usable)[-int(np.clip(2 * known.features.shape[1], *_LEARNED)) :]
        if len(rows) < 2:
            return surrogate.nothing(known.features.shape[1])
        fading = _FADING ** (self._age - 1 - known.ages[rows])
        return surrogate.fit(known.features[rows], known.measure.groups, known.log_volume[rows], fading)

    def sweep(self, rng: np.random.Generator, width: float, steps: int, which: np.ndarray | None = None) -> np.ndarray:
        """A walk of every particle, or of some; the places where these are then."""
        which = np.arange(len(self.particles)) if which is None else which
        walked, accepted = self._walk(rng, which, width, steps)
        self.walked.append(walked)
        self.accepted.append(accepted)
        return self.particles[which]

    def part(self, rng: np.random.Generator, width: float, steps: int) -> None:
        """Walks of those particles that stand where another does, ever shorter ones, until none does.

        Raises:
            SampleError: they do not come apart.
        """
        for turn in range(_LAST_ROUNDS):
            _, first = np.unique(self.particles, return_index=True)
            same = np.setdiff1d(np.arange(len(self.particles)), first)
            if not len(same):
                return
            shorter = steps * 2.0**-turn
            self._walk(rng, same, width * min(1.0, shorter), max(1, int(shorter)))
        message = f"{len(same)} latents stay where others are, after {_LAST_ROUNDS} rounds of ever shorter moves"
        raise SampleError(message, "pass another --seed, or a smaller --rho")

    def _walk(self, rng: np.random.Generator, which: np.ndarray, width: float, steps: int) -> tuple[float, float]:
        """A walk of some of the particles; shares of its moves, and of its ends, that were accepted."""
        known, here = self._known, self.particles[which]
        labels = None if known.labels is None else known.labels[here]
        folds = self._folds[which]

        def guessed(found: np.ndarray) -> np.ndarray:
            values = np.empty(len(found))
            for fold, each in enumerate(self.surrogates):
                values[folds == fold] = each(found[folds == fold])
            return values

        def target(z: np.ndarray) -> np.ndarray:
            return self._rho * guessed(known.measure.features(z, labels))

        kernel = Kernel(known.measure.generator.prior, width, self._means[which])
        end = moves.walk(rng, known.latents[here], kernel, target, steps)
        new = np.flatnonzero(end.moved)
        self.measured.append(len(new))
        places = np.zeros(len(here), np.int64)
        places[new] = known.add(self._age, end.latents[new], None if labels is None else labels[new])
        before = moves.scores(self._rho, known.log_volume[here]) - self._rho * guessed(known.features[here])
        after = moves.scores(self._rho, known.log_volume[places]) - self._rho * guessed(known.features[places])
        with np.errstate(divide="ignore", invalid="ignore"):
            taken = end.moved & (np.log(rng.random(len(here))) < after - before)
        self.particles[which] = np.where(taken, places, here)
        return end.accepted, float(taken.mean())


def _slices(sizes: tuple[int, ...]) -> Iterator[slice]:
    """Slices of these sizes, one behind the other."""
    ends = np.cumsum(sizes).tolist()
    return (slice(end - size, end) for size, end in zip(sizes, ends, strict=True))


def next_rho(log_volume: np.ndarray, rho: float, schedule: Schedule) -> tuple[float, float]:
    """The next polarity: the one asked for, if the weights that lead there have the effective size that is wanted.

    Else the one whose weights have just that, found by bisection; at least a millionth of the way is gone.

    Args:
        log_volume: [P], of the particles.
        rho: where they are.
        schedule: where they are going.

    Returns:
        The polarity, and the effective size of the weights over P.
    """
    whole = schedule.rho - rho

    def share(part: float) -> float:
        return moves.effective_share(moves.scores(part * whole, log_volume))

    if share(1.0) >= schedule.target:
        return schedule.rho, share(1.0)
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if share(middle) >= schedule.target else (low, middle)
    return rho + high * whole, share(high)
