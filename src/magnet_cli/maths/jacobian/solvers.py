"""Solvers: the leading singular values of the Jacobian of a function, exact or from fewer products.

One function for each algorithm. How a solver is chosen: docs/method.md#tolerance.
"""

import contextlib
from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from magnet_cli.errors import GeneratorError, SpecError
from magnet_cli.maths.jacobian.products import Function, forward, reverse

PROJECTION_ROWS = 128  # P in the released code of Humayun et al. 2022
_TESTS = 0x746573  # separates the random stream of the test matrices from that of the latents
_SLICE = 1 << 16  # outputs that are copied to float64 at a time
_DEPENDENT = 1e-12  # smaller squared lengths, relative to the largest, are rounding


def exact(
    function: Function,
    latents: Tensor,
    top_k: int,
    chunk_size: int | None = None,
    *,
    factored: bool | None = None,
    slices: int = 1,
) -> Tensor:
    """Return the top_k singular values of the Jacobian at each latent, from all D forward or all M reverse products.

    Each column J eᵢ is one forward-mode product; where an output has fewer numbers than a latent, or the function has
    no forward mode, each row is one reverse-mode product instead. The values are those of J itself, by a QR
    factorisation in float64, or roots of eigenvalues of JᵀJ (or JJᵀ), which see nothing below 1e-8 of the largest:
    enough for the rounding of float32 products (docs/method.md#rank-floor).

    Args:
        function: maps [B, D] to [B, ...]; the output for a row is a function of that row alone.
        latents: [B, D]; products are made in this dtype.
        top_k: K, 1 ≤ K ≤ D.
        chunk_size: number of vectors at a time, to bound memory; default all.
        factored: factorise J; default only where the latents are float64.
        slices: number of parts of the output whose columns are in memory one after the other; each takes all D
            products.

    Returns:
        [B, K] float64, descending, ≥ 0, nan where J is not finite; units of the output per unit of latent. Cost: D
        forward products for each latent and slice, or M reverse products.

    Raises:
        SpecError: top_k outside 1..D.
        GeneratorError: the function cannot be differentiated.
    """
    dim, outputs = latents.shape[1], num_outputs(function, latents)
    _check_top_k(top_k, dim)
    factored = latents.dtype == torch.float64 if factored is None else factored
    width = -(-outputs // slices)
    parts = (function if slices == 1 else _part(function, start, width) for start in range(0, outputs, width))
    with contextlib.suppress(GeneratorError):  # no forward mode: reverse products say so if there is no other
        if outputs >= dim:
            return _leading((forward(part, latents, _basis(latents), chunk_size) for part in parts), top_k, factored)
    rows = torch.eye(outputs, dtype=latents.dtype, device=latents.device)
    pulled = reverse(function, latents, rows, min(chunk_size or dim, dim))  # [B, M, D]
    values = _leading([pulled if outputs < dim else pulled.mT], min(top_k, outputs), factored)
    return torch.cat([values, 0 * values[:, :1].expand(-1, top_k - values.shape[1])], dim=1)


def num_outputs(function: Function, latents: Tensor) -> int:
    """Return M, how many numbers the output for a latent has."""
    with torch.no_grad():
        return function(latents)[0].numel()


def gram(function: Function, latents: Tensor, chunk_size: int | None = None) -> Tensor:
    """Return JᵀJ at each latent, from D forward products; J is in memory as a whole.

    Args:
        function: maps [B, D] to [B, ...]; the output for a row is a function of that row alone.
        latents: [B, D].
        chunk_size: number of tangents at a time.

    Returns:
        [B, D, D] float64.

    Raises:
        GeneratorError: the function cannot be differentiated in forward mode.
    """
    return _inner(forward(function, latents, _basis(latents), chunk_size))


def gram_by_columns(function: Function, latents: Tensor, chunk_size: int = 1) -> Tensor:
    """Return JᵀJ at each latent if J does not fit into memory: columns Jᵀ(J eᵢ) (docs/method.md#jᵀj-without-j).

    Args:
        function: maps [B, D] to [B, ...]; the output for a row is a function of that row alone.
        latents: [B, D].
        chunk_size: number of columns at a time; only these and D × D numbers are in memory.

    Returns:
        [B, D, D] float64. Cost: one forward and one reverse product for each column, 2D for each latent.

    Raises:
        GeneratorError: the function cannot be differentiated in both modes.
    """
    columns = []
    for tangents in _basis(latents).split(chunk_size):
        pushed = forward(function, latents, tangents)  # [B, c, M]
        columns.append(reverse(function, latents, pushed.transpose(0, 1)).to(torch.float64))
    rows = torch.cat(columns, dim=1)  # [B, D, D], symmetric up to rounding
    return (rows + rows.mT) / 2


def pilot(
    function: Function,
    latents: Tensor,
    top_k: int,
    basis: Tensor,
    *,
    sweep: bool,
    chunk_size: int | None = None,
    factored: bool | None = None,
) -> Tensor:
    """Approximate leading singular values from products along the strongest directions of other latents.

    The leading eigenvectors of the mean JᵀJ over pilot latents span much of the strongest directions of every latent.
    Without the reverse sweep the values are those of J restricted to their span, and never too large. With the sweep
    they are those of J projected on the range of J on that span (Halko, Martinsson and Tropp 2011, algorithms 4.1 and
    5.1, with a fixed test matrix).

    Args:
        function: maps [B, D] to [B, ...]; the output for a row is a function of that row alone.
        latents: [B, D].
        top_k: K, 1 ≤ K ≤ m.
        basis: [D, m], orthonormal columns.
        sweep: follow the forward products with as many reverse products.
        chunk_size: number of vectors at a time.
        factored: as for `exact`, of the products.

    Returns:
        [B, K] float64, descending. Cost: m forward products for each latent, and m reverse products with `sweep`.

    Raises:
        SpecError: top_k outside 1..m.
        GeneratorError: the function cannot be differentiated.
    """
    _check_top_k(top_k, basis.shape[1])
    pushed = forward(function, latents, basis.T.to(latents), chunk_size)
    factored = latents.dtype == torch.float64 if factored is None else factored
    if not sweep:
        return _leading([pushed], top_k, factored)
    return _swept(function, latents, top_k, pushed, chunk_size, factored)


def sketch(
    function: Function,
    latents: Tensor,
    top_k: int,
    tests: Tensor,
    *,
    power: int = 0,
    chunk_size: int | None = None,
    factored: bool | None = None,
) -> Tensor:
    """Approximate leading singular values by randomised subspace iteration (Halko et al. 2011, algorithms 4.4, 5.1).

    Args:
        function: maps [B, D] to [B, ...]; the output for a row is a function of that row alone.
        latents: [B, D].
        top_k: K, 1 ≤ K ≤ m.
        tests: [B, D, m], test matrices, functions of the numbers of the rows (`test_matrices`).
        power: q, number of further passes of J and Jᵀ: the range of J (JᵀJ)^q is taken, more accurate with each pass.
        chunk_size: number of vectors at a time.
        factored: as for `exact`, of the products.

    Returns:
        [B, K] float64, descending. Cost: (1 + power)·m forward and as many reverse products for each latent.

    Raises:
        SpecError: top_k outside 1..m.
        GeneratorError: the function cannot be differentiated.
    """
    _check_top_k(top_k, tests.shape[2])
    factored = latents.dtype == torch.float64 if factored is None else factored
    tangents = tests.to(latents).permute(2, 0, 1)  # [m, B, D]
    for _ in range(power):
        pushed = _orthonormal(forward(function, latents, tangents, chunk_size), factored)
        pulled = reverse(function, latents, pushed.transpose(0, 1), chunk_size)
        tangents = _orthonormal(pulled, factored).transpose(0, 1)
    return _swept(function, latents, top_k, forward(function, latents, tangents, chunk_size), chunk_size, factored)


def projection(function: Function, latents: Tensor, top_k: int, rows: Tensor, chunk_size: int | None = None) -> Tensor:
    """Return singular values of W J, with W a fixed semi-orthonormal map of the output to P numbers.

    The published algorithm (Humayun et al. 2022, Polarity Sampling, section on approximation; P = 128 in their code).
    The values are those of W J, not of J, and at most P of them are not zero. The authors state no error.

    Args:
        function: maps [B, D] to [B, ...]; the output for a row is a function of that row alone.
        latents: [B, D].
        top_k: K, 1 ≤ K ≤ min(P, D).
        rows: [P, M], the rows of W (`projection_rows`).
        chunk_size: number of rows at a time.

    Returns:
        [B, K] float64, descending. Cost: P reverse products for each latent.

    Raises:
        SpecError: top_k outside 1..min(P, D).
        GeneratorError: the function cannot be differentiated in reverse mode.
    """
    _check_top_k(top_k, min(len(rows), latents.shape[1]))
    pulled = reverse(function, latents, rows.to(latents), chunk_size)  # [B, P, D]
    return _values(pulled, top_k)


def projection_rows(outputs: int, seed: int = 0) -> Tensor:
    """Return the map W of `projection`: [P, M] float32 with W Wᵀ = 1, P = min(128, M), a function of (M, seed).

    The published code draws another W, with TensorFlow's random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(outputs, min(PROJECTION_ROWS, outputs), generator=generator)
    return torch.linalg.qr(drawn)[0].T.contiguous()


def test_matrices(latent_dim: int, size: int, seed: int, rows: Sequence[int]) -> Tensor:
    """Return Gaussian test matrices of a sketch: [B, D, m] float64 on the CPU.

    The matrix of a row is a function of (seed, row) alone, and so is log-volume (docs/method.md#tolerance); with fewer
    columns the matrix is the first columns of the larger one.

    Args:
        latent_dim: D.
        size: m, number of columns.
        seed: of the volume.
        rows: [B] numbers of the rows.
    """
    drawn = [np.random.default_rng([_TESTS, seed, row]).standard_normal((size, latent_dim)) for row in rows]
    return torch.from_numpy(np.stack(drawn)).mT


def _check_top_k(top_k: int, largest: int) -> None:
    if not 1 <= top_k <= largest:
        message = f"top_k {top_k} is outside 1..{largest}, what the Jacobian or the solver's size allow"
        raise SpecError(message, f"pass `top_k` between 1 and {largest}")


def _basis(latents: Tensor) -> Tensor:
    return torch.eye(latents.shape[1], dtype=latents.dtype, device=latents.device)


def _inner(vectors: Tensor) -> Tensor:
    """Inner products [B, T, T] of vectors [B, T, M], in float64."""
    slices = (part.to(torch.float64) for part in vectors.split(_SLICE, dim=2))
    return cast(Tensor, sum(part @ part.mT for part in slices))


def roots(squares: Tensor, top_k: int) -> Tensor:
    """Return roots of the top_k eigenvalues of symmetric [B, n, n] float64: [B, K] descending, nan if not finite."""
    finite = squares.isfinite().all(dim=2).all(dim=1)
    usable = torch.where(finite[:, None, None], squares, 0)  # LAPACK fails or hangs on values that are not finite
    values = torch.linalg.eigvalsh(usable).clamp_min(0).sqrt().flip(-1)[:, :top_k]
    return torch.where(finite[:, None], values, torch.nan)


def _leading(slices: Iterable[Tensor], top_k: int, factored: bool) -> Tensor:
    """Leading singular values of vectors in slices [B, T, m] of their numbers: their own, or by inner products."""
    if not factored:
        return roots(cast(Tensor, sum(_inner(vectors) for vectors in slices)), top_k)
    triangle = None  # R [B, T, T] with RᵀR the inner products of what was seen
    for part in (part for vectors in slices for part in vectors.split(_SLICE, dim=2)):
        columns = part.mT.to(torch.float64)
        triangle = torch.linalg.qr(columns if triangle is None else torch.cat([triangle, columns], 1), mode="r")[1]
    return _values(cast(Tensor, triangle), top_k)


def _part(function: Function, start: int, width: int) -> Function:
    """Some numbers of a function's output, copied: a view would keep all of them."""
    return lambda latents: function(latents).flatten(1)[:, start : start + width].clone()


def _orthonormal(vectors: Tensor, factored: bool) -> Tensor:
    """Orthonormal rows with the span of rows [B, T, M]; unless factored, zeros for missing directions."""
    if factored:
        return torch.linalg.qr(vectors.mT)[0].mT
    values, rotation = torch.linalg.eigh(_inner(vectors).nan_to_num(0, 0, 0))  # not finite rows stay so below
    kept = values > _DEPENDENT * values[:, -1:]
    scale = torch.where(kept, values, 1).rsqrt() * kept
    return ((rotation * scale[:, None, :]).mT @ vectors.to(torch.float64)).to(vectors)


def _swept(
    function: Function, latents: Tensor, top_k: int, pushed: Tensor, chunk_size: int | None, factored: bool
) -> Tensor:
    """Singular values of QᵀJ, with Q an orthonormal basis of the range [B, m, M] of the forward products."""
    pulled = reverse(function, latents, _orthonormal(pushed, factored).transpose(0, 1), chunk_size)
    return _values(pulled, top_k)


def _values(matrices: Tensor, top_k: int) -> Tensor:
    """Leading singular values of matrices [B, m, D], float64; nan where a matrix is not finite."""
    finite = matrices.isfinite().all(dim=2).all(dim=1)
    usable = torch.where(finite[:, None, None], matrices.to(torch.float64), 0)
    return torch.where(finite[:, None], torch.linalg.svdvals(usable)[:, :top_k], torch.nan)
