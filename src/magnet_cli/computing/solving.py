"""Singular values at latents of a volume, by the solver of its spec."""

import functools
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from magnet_cli.computing import functions
from magnet_cli.computing.memory import BatchPlan, set_arithmetic
from magnet_cli.maths.jacobian import solvers
from magnet_cli.maths.jacobian.products import Function
from magnet_cli.models import Generator
from magnet_cli.models.image_models import ImageModel
from magnet_cli.volume.spec import VolumeSpec


def values_at(
    generator: Generator,
    latents: np.ndarray,
    spec: VolumeSpec,
    batches: BatchPlan,
    *,
    basis: np.ndarray | None = None,
    first_row: int = 0,
    output: ImageModel | None = None,
) -> np.ndarray:
    """Return singular values at latents; the last batch is padded, so that every call has the same shape.

    Args:
        generator: on its device, its weights in the spec's precision.
        latents: [r, D] float32.
        spec: its function, top_k, and solver with sizes are used.
        batches: number of latents and of vectors at a time.
        basis: [D, D] float64, the pilot basis, for the solver that needs it.
        first_row: number of the first row; labels, and the random test matrices of a sketch, are functions of the row.
        output: the image model that follows.

    Returns:
        [r, K] float32, descending; image intensity per unit of latent.
    """
    weight = next(generator.module.parameters())
    set_arithmetic(weight.device, spec.precision)
    parts = []
    for start in range(0, len(latents), batches.batch):
        batch = latents[start : start + batches.batch]
        padded = np.concatenate([batch, np.repeat(batch[-1:], batches.batch - len(batch), axis=0)])
        z = torch.from_numpy(padded).to(weight)
        function, at = functions.at_rows(generator, spec, output, z, first_row + start)
        rows = range(first_row + start, first_row + start + len(z))
        values = solve(function, at, spec, batches, basis, rows)
        parts.append(values[: len(batch)].to(device="cpu", dtype=torch.float32).numpy())
    return np.concatenate(parts)


def solve(
    function: Function, z: Tensor, spec: VolumeSpec, batches: BatchPlan, basis: np.ndarray | None, rows: Sequence[int]
) -> Tensor:
    """Return the singular values [B, K] float64 of a batch z [B, D], by the spec's solver; arguments as `values_at`."""
    chunk, factored = batches.chunk, spec.factored
    if spec.solver == "exact":
        slices = 1 if batches.whole else batches.slices
        return solvers.exact(function, z, spec.top_k, chunk, factored=factored, slices=slices)
    if spec.solver == "pilot":
        strongest = torch.from_numpy(cast(np.ndarray, basis)[:, : spec.solver_size]).to(z.device)
        return solvers.pilot(
            function, z, spec.top_k, strongest, sweep=spec.solver_sweep, chunk_size=chunk, factored=factored
        )
    if spec.solver == "sketch":
        tests = solvers.test_matrices(z.shape[1], spec.solver_size, spec.seed, rows).to(z.device)
        return solvers.sketch(
            function, z, spec.top_k, tests, power=spec.solver_power, chunk_size=chunk, factored=factored
        )
    return solvers.projection(function, z, spec.top_k, _projection_rows(solvers.num_outputs(function, z)), chunk)


@functools.cache
def _projection_rows(outputs: int) -> Tensor:
    return solvers.projection_rows(outputs)
