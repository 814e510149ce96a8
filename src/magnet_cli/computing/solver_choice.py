"""Choose the solver and the precision of a volume, once, by measuring them on its own generator and device.

Joins generators, jacobian and compute (METHOD: tolerance, chosen once). What is chosen becomes part of the spec; what
was measured is kept beside it and never measured again.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from magnet_cli.computing import functions, solving
from magnet_cli.computing.loading import Load
from magnet_cli.computing.memory import plan_batches, set_arithmetic
from magnet_cli.errors import GeneratorError
from magnet_cli.maths import jacobian
from magnet_cli.maths.jacobian import calibration, solvers
from magnet_cli.maths.jacobian.calibration import Candidate
from magnet_cli.volume.spec import VolumeSpec

ROWS = 32  # latents of the pilot basis, of the choice, and of its verification: 32 each, disjoint
_PRECISION_ROWS = 8  # latents a precision is held against float64 at
_TIMED = 3  # runs of each candidate
_MARGIN = 0.9  # the choice aims below the tolerance, since 32 latents know the error to about a tenth
_GROWTH = 4  # times a candidate that misses the tolerance on its verification may grow by a tenth
_LATENTS = 0x70696C6F74  # keeps the tuning's latents apart from the volume's
_PILOT, _CHOICE, _VERIFICATION, _PRECISION = range(4)  # parts of that stream


@dataclass(frozen=True)
class Resolution:
    """What was chosen and why.

    Attributes:
        spec: the spec, resolved.
        measured: what is kept in volume.json: "chosen" and "reason" in words, and the tables.
        basis: [D, D] float64, the pilot basis, or None where the solver needs none.
    """

    spec: VolumeSpec
    measured: dict
    basis: np.ndarray | None


def resolve(load: Load, asked: VolumeSpec, memory: int | None = None) -> Resolution:
    """Resolve the solver, its sizes and the precision that are asked for.

    Args:
        load: the generator, and the image model that follows it if any, in a given precision, on the device of the run.
        asked: the spec as asked.
        memory: bytes the working set may take.

    Raises:
        GeneratorError: a precision or a solver that was asked for misses the tolerance.
    """
    trial = _Trial(load, asked, memory)
    generator, output = load("float32")
    functions.check(generator, asked, output)
    precisions = _precisions(trial)
    cheapest = min(precisions, key=lambda row: row["seconds_per_latent"])["precision"]
    if asked.solver == "exact" or (asked.solver == "auto" and asked.top_k >= asked.rank):
        reason = "asked for" if asked.solver == "exact" else "all D values are asked for"
        return _resolution(asked, Candidate("exact", asked.input_dim), cheapest, {"reason": reason}, precisions)
    if asked.solver == "projection":
        chosen = Candidate("projection", solvers.PROJECTION_ROWS)
        return _resolution(asked, chosen, cheapest, {"reason": "asked for"}, precisions)
    return _calibrated(trial, precisions)


@dataclass(frozen=True)
class _Trial:
    """The generator under test, and what is asked of it."""

    load: Load
    asked: VolumeSpec
    memory: int | None

    def latents(self, part: int, rows: int) -> np.ndarray:
        rng = np.random.default_rng([_LATENTS, self.asked.seed, part])
        return self.load("float32")[0].prior.draw(rng, rows, self.asked.label)[0]

    def grams(self, part: int, precision: str) -> Tensor:
        """JᵀJ at the latents of a part: [32, D, D] float64."""
        generator, output = self.load(precision)
        cut = plan_batches(generator, self.asked.input_dim, self.memory)
        weight = next(generator.module.parameters())
        set_arithmetic(weight.device, precision)
        latents = torch.from_numpy(self.latents(part, ROWS)).to(weight)
        make = solvers.gram if cut.whole else solvers.gram_by_columns
        grams = []
        for start in range(0, ROWS, cut.batch):
            z = latents[start : start + cut.batch]
            grams.append(make(*functions.at_rows(generator, self.asked, output, z, part * ROWS + start), cut.chunk))
        return torch.cat(grams).cpu()

    def tests(self, part: int) -> Tensor:
        """Test matrices of the latents of a part, as many columns as there can be: [32, D, D]."""
        rows = range(part * ROWS, (part + 1) * ROWS)
        return solvers.test_matrices(self.asked.input_dim, self.asked.input_dim, self.asked.seed, rows)

    def log_volumes(self, chosen: Candidate, precision: str, part: int, rows: int, basis: Tensor | None) -> Tensor:
        """Log-volumes [r] float64 as the solver gives them; what is not positive counts as the least number."""
        generator, output = self.load(precision)
        values = solving.values_at(
            generator,
            self.latents(part, rows),
            _with(self.asked, chosen, precision),
            plan_batches(generator, chosen.size, self.memory),
            basis=None if basis is None else basis.numpy(),
            first_row=part * ROWS,
            output=output,
        )
        positive = np.maximum(values.astype(np.float64), np.finfo(np.float32).tiny)
        return torch.from_numpy(np.log(positive).sum(axis=1))

    def seconds(self, candidates: list[tuple[Candidate, str]], basis: Tensor | None) -> list[float]:
        """Seconds a latent of each candidate in its precision: the least of some full batches, taken in turns.

        In turns and the least, so that what else the machine does at the time sways no choice.
        """
        least = [math.inf] * len(candidates)
        for turn in range(1 + _TIMED):
            for i, (chosen, precision) in enumerate(candidates):
                batch = plan_batches(self.load(precision)[0], chosen.size, self.memory).batch
                start = time.perf_counter()
                self.log_volumes(chosen, precision, _PRECISION, batch, basis)
                if turn:  # the first does not count
                    least[i] = min(least[i], (time.perf_counter() - start) / batch)
        return least


def _precisions(trial: _Trial) -> list[dict]:
    """The precisions that may be used, each held against float64 at a few latents by the exact solver.

    Raises:
        GeneratorError: none is within the tolerance.
    """
    asked = trial.asked
    on_cuda = next(trial.load("float32")[0].module.parameters()).device.type == "cuda"
    names = ["float32", "bfloat16", *["tf32"] * on_cuda] if asked.precision == "auto" else [asked.precision]
    if asked.precision == "tf32" and not on_cuda:
        message = "tf32 is arithmetic of CUDA devices, and the work is asked for on another"
        raise GeneratorError(message, "pass --precision float32, or --device cuda")
    exact = Candidate("exact", asked.input_dim)
    truth = trial.log_volumes(exact, "float64", _PRECISION, _PRECISION_ROWS, None)
    table = []
    for name in names:
        found = trial.log_volumes(exact, name, _PRECISION, _PRECISION_ROWS, None)
        rms, largest = calibration.errors(found, truth)
        table.append({"precision": name, "rms_error": rms, "max_error": largest})
    for row, seconds in zip(table, trial.seconds([(exact, name) for name in names], None), strict=True):
        row["seconds_per_latent"] = seconds
    usable = [row for row in table if row["rms_error"] <= asked.tolerance]
    if not usable:
        errors = ", ".join(f"{row['precision']} {row['rms_error']:.2g}" for row in table)
        message = f"the error of log-volume against float64 passes the tolerance of {asked.tolerance:g} nats: {errors}"
        raise GeneratorError(message, "pass --precision float64, a smaller --top-k or a larger --tolerance")
    return usable


def _calibrated(trial: _Trial, precisions: list[dict]) -> Resolution:
    """The cheapest solver within the tolerance: chosen on 32 latents, verified on 32 others.

    Raises:
        GeneratorError: none is, and the exact one was not asked for.
    """
    asked = trial.asked
    best = "float64" if asked.precision == "float64" else "float32"
    basis = calibration.pilot_basis(trial.grams(_PILOT, best))
    exact = Candidate("exact", asked.input_dim)
    known = _Known(trial.grams(_CHOICE, best), basis, trial.tests(_CHOICE), asked.top_k)
    target = _MARGIN * asked.tolerance
    found = [calibration.smallest(k, asked.top_k, asked.input_dim, target, known.rms) for k in _kinds(asked.solver)]
    candidates = [c for c in found if c] + [exact] * (asked.solver == "auto")
    pairs = [(c, row["precision"]) for c in candidates for row in precisions]
    timed = [
        {"solver": c, "precision": name, "seconds_per_latent": seconds}
        for (c, name), seconds in zip(pairs, trial.seconds(pairs, basis), strict=True)
    ]
    timed.sort(key=lambda row: row["seconds_per_latent"])
    truth = calibration.predicted(exact, trial.grams(_VERIFICATION, best), asked.top_k, basis, basis)
    measured = {
        "reason": f"the cheapest within {asked.tolerance:g} nats, on {ROWS} latents of their own",
        "chosen_on": [
            _row(c) | dict(zip(("rms_error", "max_error"), known.errors(c), strict=True)) for c in candidates
        ],
        "timed": [row | _row(row["solver"]) for row in timed],
        "verified_on": [],
    }
    for row in timed:
        for grown in _growing(row["solver"], asked.input_dim):
            values = trial.log_volumes(grown, row["precision"], _VERIFICATION, ROWS, basis)
            rms, largest = calibration.errors(values, truth)
            tried = _row(grown) | {"precision": row["precision"], "rms_error": rms, "max_error": largest}
            measured["verified_on"].append(tried)
            if rms <= asked.tolerance:
                kept = basis.numpy() if grown.solver == "pilot" else None
                return _resolution(asked, grown, row["precision"], measured, precisions, kept)
    errors = ", ".join(f"{row['solver']} {row['rms_error']:.2g}" for row in measured["verified_on"])
    message = (
        f"no {asked.solver} of fewer than {asked.input_dim} directions meets the tolerance of {asked.tolerance:g} "
    )
    message += f"nats ({errors or 'none on the latents it is chosen on'})"
    raise GeneratorError(message, "pass --solver exact, or a larger --tolerance")


@dataclass(frozen=True)
class _Known:
    """Errors of candidates at latents whose JᵀJ is known."""

    grams: Tensor
    basis: Tensor
    tests: Tensor
    top_k: int

    @functools.cached_property
    def truth(self) -> Tensor:
        return self._predicted(Candidate("exact", self.grams.shape[1]))

    def _predicted(self, candidate: Candidate) -> Tensor:
        return calibration.predicted(candidate, self.grams, self.top_k, self.basis, self.tests)

    def errors(self, candidate: Candidate) -> tuple[float, float]:
        return calibration.errors(self._predicted(candidate), self.truth)

    def rms(self, candidate: Candidate) -> float:
        return self.errors(candidate)[0]


def _kinds(solver: str) -> list[Callable[[int], Candidate]]:
    """The kinds of solver that may be chosen, each a function of its size."""
    pilots = [lambda m: Candidate("pilot", m), lambda m: Candidate("pilot", m, sweep=True)]
    sketches = [lambda m: Candidate("sketch", m), lambda m: Candidate("sketch", m, power=1)]
    return {"pilot": pilots, "sketch": sketches, "auto": pilots + sketches}[solver]


def _growing(candidate: Candidate, latent_dim: int) -> Iterator[Candidate]:
    """The candidate, then larger ones by a tenth each, while they are smaller than the whole space."""
    yield candidate
    for _ in range(_GROWTH * (candidate.solver != "exact")):
        candidate = dataclasses.replace(candidate, size=candidate.size + max(1, candidate.size // 10))
        if candidate.size >= latent_dim:
            return
        yield candidate


def _row(candidate: Candidate) -> dict:
    return {"solver": str(candidate), "products_per_latent": candidate.products}


def _with(asked: VolumeSpec, chosen: Candidate, precision: str) -> VolumeSpec:
    return dataclasses.replace(
        asked,
        solver=chosen.solver,
        solver_size=0 if chosen.solver == "exact" else chosen.size,
        solver_power=chosen.power,
        solver_sweep=chosen.sweep,
        precision=precision,
        rank_floor=jacobian.RANK_FLOOR[precision],
    )


def _resolution(
    asked: VolumeSpec,
    chosen: Candidate,
    precision: str,
    measured: dict,
    precisions: list[dict],
    basis: np.ndarray | None = None,
) -> Resolution:
    measured = {"chosen": f"{chosen} in {precision}"} | measured | {"precisions": precisions}
    return Resolution(_with(asked, chosen, precision), measured, basis)
