"""Choose the solver and the precision of a volume, once, by measurements on its own generator and device.

Definitions: docs/method.md#tolerance and docs/method.md#chosen-once. The choice becomes part of the spec; the
measurements are stored beside it in volume.json.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

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

ROWS = 32  # latents for each of the pilot basis, the choice and its verification, all different
_PRECISION_ROWS = 8  # latents at which a precision is compared with float64
_TIMED = 3  # runs of each candidate
_MARGIN = 0.9  # the choice aims below the tolerance, because 32 latents give the error to about a tenth
_GROWTH = 4  # number of times a candidate that misses the tolerance on its verification may grow by a tenth
_FEW_ROWS = 1024  # numbers of an output whose rows are taken one by one where there is no forward mode
_LATENTS = 0x70696C6F74  # separates the stream of these latents from that of the volume
_PILOT, _CHOICE, _VERIFICATION, _PRECISION = range(4)  # parts of that stream


@dataclass(frozen=True)
class Resolution:
    """The choice, and its reasons.

    Attributes:
        spec: the resolved spec.
        measured: for volume.json: "chosen" and "reason" as text, and the tables of measurements.
        basis: [D, D] float64, the pilot basis; None if the solver needs none.
    """

    spec: VolumeSpec
    measured: dict
    basis: np.ndarray | None


def resolve(load: Load, requested: VolumeSpec, memory: int | None = None) -> Resolution:
    """Choose the solver, its sizes and the precision of a requested spec.

    Args:
        load: loads generator and image model in a precision, on the device of the run.
        requested: the spec, with a solver or precision that may be "auto".
        memory: bytes that the work may take.

    Raises:
        GeneratorError: no solver or precision that the spec allows is within the tolerance.
    """
    trial = _Trial(load, requested, memory)
    generator, output = load("float32")
    outputs, no_forward_mode = functions.check(generator, requested, output)
    exact, projection = Candidate("exact", requested.input_dim), Candidate("projection", solvers.PROJECTION_ROWS)
    by_rows = outputs <= _FEW_ROWS or requested.solver == "exact"
    precisions = _precisions(trial, exact if by_rows or not no_forward_mode else projection)
    cheapest = min(precisions, key=lambda row: row["seconds_per_latent"])["precision"]
    if requested.solver in {"exact", "projection"}:
        chosen, reason = exact if requested.solver == "exact" else projection, "asked for"
    elif requested.solver == "auto" and outputs < requested.input_dim:
        chosen, reason = exact, f"an output has {outputs} numbers, fewer than a latent"
    elif requested.solver == "auto" and no_forward_mode:
        own = "" if by_rows else "; these values are those of a projection of the output, and their error is not known"
        chosen, reason = exact if by_rows else projection, no_forward_mode + own
    elif requested.solver == "auto" and requested.top_k >= requested.rank:
        chosen, reason = exact, "all D values are asked for"
    else:
        return _calibrated(trial, precisions)
    return _resolution(requested, chosen, cheapest, {"reason": reason}, precisions)


@dataclass(frozen=True)
class _Trial:
    """Measurements of a generator for a requested spec."""

    load: Load
    requested: VolumeSpec
    memory: int | None

    def latents(self, part: int, rows: int) -> np.ndarray:
        rng = np.random.default_rng([_LATENTS, self.requested.seed, part])
        return self.load("float32")[0].prior.draw(rows, rng, self.requested.label)[0]

    def grams(self, part: int, precision: str) -> Tensor:
        """JᵀJ at the latents of a part: [32, D, D] float64."""
        generator, output = self.load(precision)
        batches = plan_batches(generator, self.requested.input_dim, self.memory)
        weight = next(generator.module.parameters())
        set_arithmetic(weight.device, precision)
        latents = torch.from_numpy(self.latents(part, ROWS)).to(weight)
        grams = []
        for start in range(0, ROWS, batches.batch):
            z = latents[start : start + batches.batch]
            function, at = functions.at_rows(generator, self.requested, output, z, part * ROWS + start)
            if batches.whole:
                grams.append(solvers.gram(function, at, batches.chunk))
            else:
                grams.append(solvers.gram_by_columns(function, at, batches.chunk or 1))
        return torch.cat(grams).cpu()

    def tests(self, part: int) -> Tensor:
        """Test matrices of the latents of a part, with all columns: [32, D, D]."""
        rows = range(part * ROWS, (part + 1) * ROWS)
        return solvers.test_matrices(self.requested.input_dim, self.requested.input_dim, self.requested.seed, rows)

    def log_volumes(self, chosen: Candidate, precision: str, part: int, rows: int, basis: Tensor | None) -> Tensor:
        """Log-volumes [r] float64 by a solver; values that are not positive count as the smallest float32."""
        generator, output = self.load(precision)
        values = solving.values_at(
            generator,
            self.latents(part, rows),
            _with(self.requested, chosen, precision),
            plan_batches(generator, chosen.size, self.memory),
            basis=None if basis is None else basis.numpy(),
            first_row=part * ROWS,
            output=output,
        )
        positive = np.maximum(values.astype(np.float64), np.finfo(np.float32).tiny)
        return torch.from_numpy(np.log(positive).sum(axis=1))

    def seconds(self, candidates: list[tuple[Candidate, str]], basis: Tensor | None) -> list[float]:
        """Seconds for a latent with each candidate: minimum over 3 interleaved runs, robust against other load."""
        least = [math.inf] * len(candidates)
        for turn in range(1 + _TIMED):
            for i, (chosen, precision) in enumerate(candidates):
                batch = plan_batches(self.load(precision)[0], chosen.size, self.memory).batch
                start = time.perf_counter()
                self.log_volumes(chosen, precision, _PRECISION, batch, basis)
                if turn:  # the first run is a warm-up
                    least[i] = min(least[i], (time.perf_counter() - start) / batch)
        return least


def _precisions(trial: _Trial, solver: Candidate) -> list[dict]:
    """The precisions whose error against float64, with a solver that every one of them can take, is tolerable."""
    requested = trial.requested
    on_cuda = next(trial.load("float32")[0].module.parameters()).device.type == "cuda"
    names = ["float32", "bfloat16", *["tf32"] * on_cuda] if requested.precision == "auto" else [requested.precision]
    if requested.precision == "tf32" and not on_cuda:
        message = "tf32 is arithmetic of CUDA devices, and the device is another"
        raise GeneratorError(message, 'pass `precision="float32"`, or `device="cuda"`')
    truth = trial.log_volumes(solver, "float64", _PRECISION, _PRECISION_ROWS, None)
    table: list[dict[str, Any]] = []
    for name in names:
        values = trial.log_volumes(solver, name, _PRECISION, _PRECISION_ROWS, None)
        rms, largest = calibration.errors(values, truth)
        table.append({"precision": name} | _error_row(rms, largest))
    for row, seconds in zip(table, trial.seconds([(solver, name) for name in names], None), strict=True):
        row["seconds_per_latent"] = seconds
    usable = [row for row in table if row["rms_error"] <= requested.tolerance]
    if not usable:
        errors = ", ".join(f"{row['precision']} {row['rms_error']:.2g}" for row in table)
        message = (
            f"the error of log-volume against float64 passes the tolerance of {requested.tolerance:g} nats: {errors}"
        )
        raise GeneratorError(message, 'pass `precision="float64"`, a smaller `top_k` or a larger `tolerance`')
    return usable


def _calibrated(trial: _Trial, precisions: list[dict]) -> Resolution:
    """The cheapest solver within the tolerance, chosen on 32 latents and verified on 32 others."""
    requested = trial.requested
    best = "float64" if requested.precision == "float64" else "float32"
    basis = calibration.pilot_basis(trial.grams(_PILOT, best))
    exact = Candidate("exact", requested.input_dim)
    predictions = _Predictions(trial.grams(_CHOICE, best), basis, trial.tests(_CHOICE), requested.top_k)
    target = _MARGIN * requested.tolerance
    kinds = _kinds(requested.solver)
    smallest = [calibration.smallest(k, requested.top_k, requested.input_dim, target, predictions.rms) for k in kinds]
    candidates = [c for c in smallest if c] + [exact] * (requested.solver == "auto")
    pairs = [(c, row["precision"]) for c in candidates for row in precisions]
    timed = [
        {"solver": c, "precision": name, "seconds_per_latent": seconds}
        for (c, name), seconds in zip(pairs, trial.seconds(pairs, basis), strict=True)
    ]
    timed.sort(key=lambda row: row["seconds_per_latent"])
    truth = trial.log_volumes(exact, best, _VERIFICATION, ROWS, None)
    verified: list[dict[str, Any]] = []
    measured = {
        "reason": f"the cheapest within {requested.tolerance:g} nats, on {ROWS} latents of their own",
        "chosen_on": [_row(c) | _error_row(*predictions.errors(c)) for c in candidates],
        "timed": [row | _row(row["solver"]) for row in timed],
        "verified_on": verified,
    }
    for row in timed:
        for grown in _growing(row["solver"], requested.input_dim):
            values = trial.log_volumes(grown, row["precision"], _VERIFICATION, ROWS, basis)
            rms, largest = calibration.errors(values, truth)
            verified.append(_row(grown) | {"precision": row["precision"]} | _error_row(rms, largest))
            if rms <= requested.tolerance:
                kept = basis.numpy() if grown.solver == "pilot" else None
                return _resolution(requested, grown, row["precision"], measured, precisions, kept)
    errors = ", ".join(f"{row['solver']} {row['rms_error']:.2g}" for row in verified)
    message = f"no {requested.solver} of fewer than {requested.input_dim} directions meets the tolerance of "
    message += f"{requested.tolerance:g} nats ({errors or 'none on the latents it is chosen on'})"
    raise GeneratorError(message, 'pass `solver="exact"`, or a larger `tolerance`')


@dataclass(frozen=True)
class _Predictions:
    """Errors of candidates, predicted at latents whose JᵀJ is known."""

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
    """The kinds of solver to choose from, as functions of the size."""
    pilots = [lambda m: Candidate("pilot", m), lambda m: Candidate("pilot", m, sweep=True)]
    sketches = [lambda m: Candidate("sketch", m), lambda m: Candidate("sketch", m, power=1)]
    return {"pilot": pilots, "sketch": sketches, "auto": pilots + sketches}[solver]


def _growing(candidate: Candidate, latent_dim: int) -> Iterator[Candidate]:
    """The candidate, then candidates that are larger by a tenth each, as long as they are smaller than D."""
    yield candidate
    for _ in range(_GROWTH * (candidate.solver != "exact")):
        candidate = dataclasses.replace(candidate, size=candidate.size + max(1, candidate.size // 10))
        if candidate.size >= latent_dim:
            return
        yield candidate


def _row(candidate: Candidate) -> dict:
    return {"solver": str(candidate), "products_per_latent": candidate.products}


def _error_row(rms: float, largest: float) -> dict:
    return {"rms_error": rms, "max_error": largest}


def _with(requested: VolumeSpec, chosen: Candidate, precision: str) -> VolumeSpec:
    return dataclasses.replace(
        requested,
        solver=chosen.solver,
        solver_size=0 if chosen.solver == "exact" else chosen.size,
        solver_power=chosen.power,
        solver_sweep=chosen.sweep,
        precision=precision,
        rank_floor=jacobian.RANK_FLOOR[precision],
        factored=precision == "float64" and chosen.solver != "projection",
    )


def _resolution(
    requested: VolumeSpec,
    chosen: Candidate,
    precision: str,
    measured: dict,
    precisions: list[dict],
    basis: np.ndarray | None = None,
) -> Resolution:
    measured = {"chosen": f"{chosen} in {precision}"} | measured | {"precisions": precisions}
    return Resolution(_with(requested, chosen, precision), measured, basis)
