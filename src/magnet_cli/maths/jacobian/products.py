"""Products of the Jacobian of a function with many vectors at a batch of inputs, by torch.func."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from magnet_cli.errors import GeneratorError

Function = Callable[[Tensor], Tensor]


def forward(function: Function, latents: Tensor, tangents: Tensor, chunk_size: int | None = None) -> Tensor:
    """Return J t for each tangent t, by forward mode.

    Args:
        function: maps [B, D] to [B, ...]; the output for a row is a function of that row alone.
        latents: [B, D].
        tangents: [T, D], the same for all latents, or [T, B, D].
        chunk_size: number of tangents at a time, to bound memory; default all.

    Returns:
        [B, T, M], M the size of one output. Cost: T forward products for each latent.

    Raises:
        GeneratorError: the function cannot be differentiated in forward mode.
    """
    batch = len(latents)

    def push(tangent: Tensor) -> Tensor:
        return torch.func.jvp(function, (latents,), (tangent.expand(latents.shape),))[1]

    with _differentiable("forward"):
        pushed = torch.func.vmap(push, chunk_size=chunk_size)(tangents)  # [T, B, ...]
    return pushed.reshape(len(tangents), batch, -1).transpose(0, 1)


def reverse(function: Function, latents: Tensor, cotangents: Tensor, chunk_size: int | None = None) -> Tensor:
    """Return Jᵀ c for each cotangent c, by reverse mode.

    Args:
        function: maps [B, D] to [B, ...]; the output for a row is a function of that row alone.
        latents: [B, D].
        cotangents: [T, M], the same for all latents, or [T, B, M]; M the size of one output.
        chunk_size: number of cotangents at a time, to bound memory; default all.

    Returns:
        [B, T, D]. Cost: one evaluation and T reverse products for each latent.

    Raises:
        GeneratorError: the function cannot be differentiated in reverse mode.
    """
    with _differentiable("reverse"):
        value, pull = torch.func.vjp(function, latents)[:2]

        def back(cotangent: Tensor) -> Tensor:
            return pull(cotangent.expand(len(latents), -1).reshape(value.shape))[0]

        pulled = torch.func.vmap(back, chunk_size=chunk_size)(cotangents)  # [T, B, D]
    return pulled.transpose(0, 1)


@contextlib.contextmanager
def _differentiable(mode: str) -> Iterator[None]:
    """Turn torch's refusal to differentiate into a GeneratorError, but not a lack of memory."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        if "can't allocate memory" in str(error):  # the CPU's allocator raises a plain RuntimeError
            raise
        message = f"the function cannot be differentiated in {mode} mode: {error}"
        hint = "write the module in differentiable torch operations, without detach"
        raise GeneratorError(message, hint) from error
