"""One island of the tempered sampler: latents that move together from the prior to a polarity.

A function of seed, island and what was measured before; it knows no files.
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
_WALKED = 0.3  # share of accepted moves that b is tuned to
_TUNING = 2.0  # change of log b for each unit of that share
_LEARNED = 128, 768  # rows a surrogate is fitted to: twice its features, between these
_FADING = 0.7  # weight of a measurement, one temperature later
_BISECTIONS = 40
_LAST_ROUNDS = 20  # of ever shorter walks, until no two latents are equal


class Island:
    """An island and its temperatures, those that were stored before as `steps`."""

    def __init__(self, number: int, schedule: Schedule, measure: Measure, steps: list[Step]) -> None:
        self.steps = list(steps)
        self._number = number
        self._schedule = schedule
        self._measured = Measurements(measure)
        for age, step in enumerate(steps):
            for rows in _slices(step.measured):
                labels = None if step.labels is None else step.labels[rows]
                self._measured.add(age, step.latents[rows], labels, step.log_volume[rows])

    @property
    def done(self) -> bool:
        """Whether the island is at its end."""
        return self._schedule.is_over([step.rho for step in self.steps])

    def advance(self) -> Iterator[Step]:
        """Yield each temperature that is still to come, once all of it is measured."""
        while not self.done:
            rng = np.random.default_rng([_STREAM, self._schedule.seed, self._number, len(self.steps)])
            self.steps.append(self._next(rng) if self.steps else self._first(rng))
            yield self.steps[-1]

    def _first(self, rng: np.random.Generator) -> Step:
        count = self._schedule.particles
        latents, labels = self._measured.measure.prior(rng, count, self._number * count)
        places = self._measured.add(0, latents, labels)
        numbers = {"width": _FIRST_WIDTH, "walked": _WALKED, "accepted": 1.0}
        return Step(0.0, latents, self._measured.log_volume, labels, places, (count,), **numbers)

    def _next(self, rng: np.random.Generator) -> Step:
        last, measured, before = self.steps[-1], self._measured, len(self._measured.latents)
        log_volume = measured.log_volume[last.particles]
        if not np.isfinite(log_volume).any():
            raise SampleError(
                f"all {len(log_volume)} latents of island {self._number} have leading singular values below the rank "
                "floor",
                "pass a smaller `top_k`, or more `particles`",
            )
        rho, share = next_rho(log_volume, last.rho, self._schedule)
        places = last.particles
        if rho != last.rho:
            places = places[moves.systematic(rng, moves.scores(rho - last.rho, log_volume))]
        width = float(np.clip(last.width * np.exp(_TUNING * (last.walked - _WALKED)), *_WIDTHS))
        particles = Particles(measured, places, rho, len(self.steps))
        if self._schedule.is_over([step.rho for step in self.steps] + [rho]):
            for _ in range(self._schedule.sweeps):
                particles.sweep(rng, width, self._schedule.moves)
            particles.separate(rng, width, self._schedule.moves)
            places = particles.places
        else:
            places = self._chains(particles, rng, width)
        return Step(
            rho=rho,
            latents=measured.latents[before:],
            log_volume=measured.log_volume[before:],
            labels=None if measured.labels is None else measured.labels[before:],
            particles=places,
            measured=tuple(particles.measured),
            effective_share=share,
            width=width,
            walked=float(np.mean(particles.walked)),
            accepted=float(np.mean(particles.accepted)),
            error=max(each.error for each in particles.surrogates),
            explained=min(each.explained for each in particles.surrogates),
        )

    def _chains(self, particles: "Particles", rng: np.random.Generator, width: float) -> np.ndarray:
        """Return P places that long chains of walks from a few particles passed through, in the last sweep.

        Waste-free sequential Monte Carlo (Dau and Chopin 2022): where moves mix slowly, few long chains of which every
        state is kept are worth more than many short ones of which the last state is.
        """
        measured, places, count = self._measured, particles.places, len(particles.places)
        starts = -(-count // self._schedule.walks)
        labels = np.zeros(count) if measured.labels is None else measured.labels[places]
        order = np.lexsort((measured.log_volume[places], labels))  # so that few represent all, class by class
        which = order[((np.arange(starts) + rng.random()) * (count / starts)).astype(int)]
        passed: list[np.ndarray] = []
        for _ in range(self._schedule.sweeps):
            passed = [particles.sweep(rng, width, self._schedule.moves, which) for _ in range(self._schedule.walks)]
        return np.concatenate(passed)[:count]


class Measurements:
    """All N latents that an island has measured, in order, with features [N, F]; `ages` [N] are temperatures."""

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self.latents = np.empty((0, measure.spec.latent_dim), np.float32)
        self.log_volume = np.empty(0)
        self.labels = np.empty(0, np.int64) if measure.spec.num_classes else None
        self.features = np.empty((0, 0), np.float32)
        self.ages = np.empty(0, np.int64)

    def add(
        self, age: int, latents: np.ndarray, labels: np.ndarray | None, log_volume: np.ndarray | None = None
    ) -> np.ndarray:
        """Add latents [r, D], their log-volumes computed unless they are passed; return their places [r] int64."""
        places = len(self.latents) + np.arange(len(latents))
        if not len(latents):
            return places
        values = self.measure.log_volume(latents, labels) if log_volume is None else log_volume
        features = self.measure.features(latents, labels)
        self.features = np.concatenate([self.features, features]) if len(self.features) else features
        self.latents = np.concatenate([self.latents, latents])
        self.log_volume = np.concatenate([self.log_volume, values])
        if labels is not None and self.labels is not None:
            self.labels = np.concatenate([self.labels, labels])
        self.ages = np.concatenate([self.ages, np.full(len(latents), age)])
        return places


class Particles:
    """The particles of an island at one temperature; surrogates and proposals do not change meanwhile.

    A particle is moved by what was learned without it and without its copies: measurements fall into two folds, and
    what moves the particles of a fold is fitted to everything but the places where they are. A surrogate that had seen
    those would make no error there, and let particles leave more easily than it lets others come.

    `places` [P] int64 are those of the particles among the measurements; `measured` is the number of latents that each
    walk led to; `walked` and `accepted` are the shares of accepted moves and of accepted ends of each sweep.
    """

    def __init__(self, measurements: Measurements, places: np.ndarray, rho: float, age: int) -> None:
        self.places = places.copy()
        self.measured: list[int] = []
        self.walked: list[float] = []
        self.accepted: list[float] = []
        self._measurements = measurements
        self._rho = rho
        self._age = age
        self._folds = places % 2
        self.surrogates = [self._fit(fold) for fold in range(2)]
        normal = measurements.measure.generator.prior.kind.endswith("normal")
        others = [measurements.latents[places[self._folds != fold]] for fold in range(2)]
        self._means = np.stack([moves.shrunk_mean(latents) * normal for latents in others])[self._folds]

    def _fit(self, fold: int) -> Surrogate:
        measured = self._measurements
        usable = np.isfinite(measured.log_volume)
        usable[self.places[self._folds == fold]] = False
        rows = np.flatnonzero(usable)[-int(np.clip(2 * measured.features.shape[1], *_LEARNED)) :]
        if len(rows) < 2:
            return surrogate.zero(measured.features.shape[1])
        fading = _FADING ** (self._age - 1 - measured.ages[rows])
        return surrogate.fit(measured.features[rows], measured.measure.groups, measured.log_volume[rows], fading)

    def sweep(self, rng: np.random.Generator, width: float, steps: int, which: np.ndarray | None = None) -> np.ndarray:
        """Walk every particle once, or those at `which`; return their places then."""
        which = np.arange(len(self.places)) if which is None else which
        walked, accepted = self._walk(rng, which, width, steps)
        self.walked.append(walked)
        self.accepted.append(accepted)
        return self.places[which]

    def separate(self, rng: np.random.Generator, width: float, steps: int) -> None:
        """Walk the particles that are where another is, in ever shorter walks, until no two are equal."""
        for turn in range(_LAST_ROUNDS):
            _, first = np.unique(self.places, return_index=True)
            same = np.setdiff1d(np.arange(len(self.places)), first)
            if not len(same):
                return
            shorter = steps * 2.0**-turn
            self._walk(rng, same, width * min(1.0, shorter), max(1, int(shorter)))
        raise SampleError(
            f"{len(same)} latents stay where others are, after {_LAST_ROUNDS} rounds of ever shorter moves",
            "pass another `seed`, or a smaller `rho`",
        )

    def _walk(self, rng: np.random.Generator, which: np.ndarray, width: float, steps: int) -> tuple[float, float]:
        """Walk some of the particles; return the shares of accepted moves and of accepted ends."""
        measured, here = self._measurements, self.places[which]
        labels = None if measured.labels is None else measured.labels[here]
        folds = self._folds[which]

        def guess(features: np.ndarray) -> np.ndarray:
            values = np.empty(len(features))
            for fold, each in enumerate(self.surrogates):
                values[folds == fold] = each(features[folds == fold])
            return values

        def target(z: np.ndarray) -> np.ndarray:
            return self._rho * guess(measured.measure.features(z, labels))

        prior, label = measured.measure.generator.prior, measured.measure.label
        kernel = Kernel(prior, width, self._means[which], label)
        end = moves.walk(rng, measured.latents[here], kernel, target, steps)
        new = np.flatnonzero(end.moved)
        self.measured.append(len(new))
        places = np.zeros(len(here), np.int64)
        named = labels
        if prior.mixture is not None:  # its labels say where a latent came from, and do not go with it
            named = prior.mixture.draw_components(rng, end.latents, label)
        places[new] = measured.add(self._age, end.latents[new], None if named is None else named[new])
        before = moves.scores(self._rho, measured.log_volume[here]) - self._rho * guess(measured.features[here])
        after = moves.scores(self._rho, measured.log_volume[places]) - self._rho * guess(measured.features[places])
        with np.errstate(divide="ignore", invalid="ignore"):
            taken = end.moved & (np.log(rng.random(len(here))) < after - before)
        self.places[which] = np.where(taken, places, here)
        return end.accepted, float(taken.mean())


def _slices(sizes: tuple[int, ...]) -> Iterator[slice]:
    ends = np.cumsum(sizes).tolist()
    return (slice(end - size, end) for size, end in zip(sizes, ends, strict=True))


def next_rho(log_volume: np.ndarray, rho: float, schedule: Schedule) -> tuple[float, float]:
    """Return the next polarity, and the effective size over P of the weights of log-volumes [P] that lead to it.

    That of the schedule, where those weights have the target size; otherwise the polarity whose weights have just that
    size, by bisection; at least a millionth of the way.
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
