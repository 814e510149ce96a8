"""Leading singular values of the Jacobian of any torch function: the one call for users of Python."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from magnet_cli.errors import SpecError
from magnet_cli.maths.jacobian import checks, solvers
from magnet_cli.maths.jacobian.products import Function

SOLVERS = ("exact", "sketch", "projection")
_OVERSAMPLING = 10  # vectors of a sketch beyond K (Halko et al. 2011, section 1.3)
_BATCH_WORK = 1 << 24  # numbers in the Jacobians of a batch
_LARGEST_BATCH = 64


def singular_values(
    function: Function,
    z: Tensor | np.ndarray,
    top_k: int,
    *,
    solver: str = "exact",
    size: int | None = None,
    power: int = 1,
    seed: int = 0,
    batch_size: int | None = None,
    chunk_size: int | None = None,
) -> Tensor:
    """Return the leading singular values of the Jacobian of a torch function at each of some latents.

    "exact" takes all D forward products, and forms JᵀJ in float64. "sketch" is randomised subspace iteration (Halko,
    Martinsson and Tropp 2011, algorithms 4.4 and 5.1): (1 + power)·m forward and as many reverse products, which pays
    if m is much less than D. "projection" is the published algorithm of Polarity Sampling (Humayun et al. 2022): the
    singular values of W J, with W a fixed random projection to 128 numbers; they are not those of J.

    Args:
        function: maps [B, D] to [B, ...], the output for a row a function of that row alone; for a single latent, maps
            [D] to [...]. It has to be differentiable by torch.func. A module has to be in eval mode.
        z: [N, D], or [D] for a single latent; floating. Products are made in its dtype and on its device; an array is
            taken to the CPU.
        top_k: K, 1 ≤ K ≤ D.
        solver: "exact", "sketch" or "projection".
        size: m, number of vectors of a sketch; default min(K + 10, D).
        power: number of further passes of a sketch; each makes it more accurate.
        seed: of the random test matrices of a sketch; the matrix of row i is a function of (seed, i).
        batch_size: number of latents at a time; default by the size of J, at most 64.
        chunk_size: number of vectors at a time, to bound memory; default all.

    Returns:
        [N, K] float64 on the device of z, or [K]; descending, ≥ 0, nan where J is not finite; units of the output per
        unit of latent.

    Raises:
        SpecError: z is not [N, D] or [D] floating, there is no such solver, or top_k or size are outside their range.
        GeneratorError: the function cannot be differentiated, draws noise, or its rows depend on each other.

    Examples:
        >>> a = torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]])
        >>> z = torch.zeros(5, 2)
        >>> singular_values(lambda z: z @ a.T, z, top_k=2)[0]
        tensor([4., 3.], dtype=torch.float64)
        >>> singular_values(lambda z: (a @ z).exp(), z[0], top_k=1)
        tensor([4.], dtype=torch.float64)
    """
    z = torch.as_tensor(z)
    if z.ndim not in {1, 2} or not z.is_floating_point() or not z.numel():
        raise SpecError(f"latents are {z.dtype} {list(z.shape)}", "pass `z` as [N, D], or [D], of floating numbers")
    if z.ndim == 1:
        sizes: dict[str, Any] = {"size": size, "power": power, "seed": seed, "chunk_size": chunk_size}
        return singular_values(torch.func.vmap(function), z[None], top_k, solver=solver, **sizes)[0]
    checks.check(function, z[:3].detach())
    outputs = function(z[:1].detach()).numel()
    solve = _solver(solver, z.shape[1], outputs, top_k, size, power, seed, chunk_size)
    batch = batch_size or max(1, min(_LARGEST_BATCH, _BATCH_WORK // (z.shape[1] * outputs)))
    starts = range(0, len(z), batch)
    return torch.cat([solve(function, z[start : start + batch].detach(), start).detach() for start in starts])


def _solver(
    name: str, dim: int, outputs: int, top_k: int, size: int | None, power: int, seed: int, chunk_size: int | None
) -> Callable[[Function, Tensor, int], Tensor]:
    """The solver as a function of (function, latents, number of the first row)."""
    if name == "exact":
        return lambda function, z, _: solvers.exact(function, z, top_k, chunk_size)
    if name == "projection":
        rows = solvers.projection_rows(outputs)
        return lambda function, z, _: solvers.projection(function, z, top_k, rows, chunk_size)
    if name != "sketch":
        raise SpecError(f"there is no solver {name!r}", f"pass `solver` as one of {', '.join(SOLVERS)}")
    m = min(top_k + _OVERSAMPLING, dim) if size is None else size
    if not top_k <= m <= dim:
        raise SpecError(f"size {m} is outside {top_k}..{dim}", "pass `size` between `top_k` and the length of a latent")

    def sketch(function: Function, z: Tensor, first_row: int) -> Tensor:
        tests = solvers.test_matrices(dim, m, seed, range(first_row, first_row + len(z)))
        return solvers.sketch(function, z, top_k, tests.to(z.device), power=power, chunk_size=chunk_size)

    return sketch
