"""The singular values of a torch function's Jacobian at a batch of inputs.

Owns the mathematics. Knows nothing of generators, files or latents' distribution; works on any function that
torch.func can push tangents through.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from magnet_cli.errors import GeneratorError, SpecError

# A singular value below this share of its row's largest is rounding of the products, not signal (METHOD: rank floor).
RANK_FLOOR = {"float32": 1e-5, "float64": 1e-12}
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


def exact(function: Callable[[Tensor], Tensor], latents: Tensor, top_k: int, chunk_size: int | None = None) -> Tensor:
    """The top_k singular values of the Jacobian of `function` at each latent, from all D forward products.

    Each column J e_i is one forward-mode product; JᵀJ is formed in float64 and its eigenvalues are the squares of the
    singular values. Forming JᵀJ squares the condition number, which float64 has room for: values down to 1e-7 of the
    largest keep three digits, far below the rounding of float32 products.

    Args:
        function: maps [B, D] to [B, ...], differentiable, row b of the result a function of row b alone.
        latents: [B, D], the dtype the products are made in.
        top_k: K, 1 ≤ K ≤ D.
        chunk_size: tangents pushed at a time; bounds memory. Default: all D.

    Returns:
        [B, K] float64, descending, ≥ 0, nan where J is not finite; units of the output per unit of latent. Cost: D
        forward products a latent.

    Raises:
        SpecError: top_k outside 1..D.
        GeneratorError: the function cannot be differentiated in forward mode.
    """
    batch, dim = latents.shape
    if not 1 <= top_k <= dim:
        message = f"top_k {top_k} is outside 1..{dim}: the Jacobian has {dim} columns"
        raise SpecError(message, f"pass --top-k between 1 and {dim}")

    def push(tangent: Tensor) -> Tensor:
        return torch.func.jvp(function, (latents,), (tangent.expand(batch, dim),))[1]

    basis = torch.eye(dim, dtype=latents.dtype, device=latents.device)
    try:
        columns = torch.func.vmap(push, chunk_size=chunk_size)(basis)  # [D, B, ...]
    except (RuntimeError, NotImplementedError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        message = f"the function cannot be differentiated in forward mode: {error}"
        raise GeneratorError(message, "write the module in differentiable torch operations, without detach") from error
    transposed = columns.reshape(dim, batch, -1).transpose(0, 1).to(torch.float64)  # [B, D, M], a row a column of J
    return _roots(transposed @ transposed.mT, top_k)


def _roots(squares: Tensor, top_k: int) -> Tensor:
    """Square roots of the top_k eigenvalues of [B, n, n], descending; nan where a matrix is not finite."""
    finite = squares.isfinite().all(dim=2).all(dim=1)
    usable = torch.where(finite[:, None, None], squares, 0)  # the library raises, or does not end, on the others
    values = torch.linalg.eigvalsh(usable).clamp_min(0).sqrt().flip(-1)[:, :top_k]
    return torch.where(finite[:, None], values, torch.nan)
