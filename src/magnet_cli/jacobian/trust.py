"""Whether a function is one whose Jacobian at a latent means anything.

Owns the checks made before a run. Knows nothing of what the function is.
"""

import numpy as np
import torch
from torch import Tensor

from magnet_cli.errors import GeneratorError
from magnet_cli.jacobian import products
from magnet_cli.jacobian.products import Function

_STEPS = (1.0, 1e-1, 1e-2, 1e-3)  # of differences, times a standard normal direction: large ones show what is rounded
_VISIBLE = 100  # units of rounding that a difference has to have
_ALIKE = 0.5  # relative error at which a derivative has next to nothing of the difference
_DIFFERENTIABLE = "write the module in differentiable torch operations, without detach or no_grad"
_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.3}


def check(function: Function, latents: Tensor) -> None:
    """Call the function twice on the same latents, and alone and in a batch; all have to agree but for rounding.

    Args:
        function: maps [B, D] to [B, ...].
        latents: [B, D], B ≥ 2.

    Raises:
        GeneratorError: it returns no floating tensor of B rows, values that are not finite, or values that differ from
            call to call (noise) or with the others in the batch (batch statistics).
    """
    with torch.no_grad():
        first = function(latents)
        if not isinstance(first, Tensor):
            message = f"the function returns a {type(first).__name__}, and a tensor is asked for"
            raise GeneratorError(message, "return the images alone: wrap the module so that it gives one tensor")
        if not first.is_floating_point():
            message = f"the function returns {first.dtype}, which cannot be differentiated"
            raise GeneratorError(message, "return the images before they are rounded to integers")
        if first.ndim < 1 or len(first) != len(latents):
            message = f"the function maps {len(latents)} latents to a tensor of shape {list(first.shape)}"
            raise GeneratorError(message, "return one image a latent: [B, ...]")
        if not first.isfinite().all():
            rows = (~first.isfinite().flatten(1).all(dim=1)).nonzero().flatten().tolist()
            message = f"the function returns values that are not finite, at {len(rows)} of {len(latents)} latents"
            raise GeneratorError(message, "check the weights, or pass --precision float64")
        limit = _ROUNDING[first.dtype] * first.abs().max().clamp_min(1e-30)
        if (function(latents) - first).abs().max() > limit:
            message = "the function gives different values for the same latents: it draws noise or drops units"
            raise GeneratorError(message, "fix its noise, and put the module into eval mode")
        if (torch.cat([function(z[None]) for z in latents]) - first).abs().max() > limit:
            message = "the function gives other values for a latent alone than in a batch: it uses batch statistics"
            raise GeneratorError(message, "put the module into eval mode, or write it so that rows do not meet")


def check_derivative(function: Function, latents: Tensor) -> None:
    """Hold the derivative in a random direction against a difference of values: a part may be detached or rounded.

    Only what has next to nothing in common, at every latent and every step that changes the values, is refused:
    differences are rough, and functions may have kinks.

    Args:
        function: maps [B, D] to [B, ...].
        latents: [B, D].

    Raises:
        GeneratorError: the derivative is not finite, is another, or cannot be had in forward or in reverse mode.
    """
    tangent = torch.from_numpy(np.random.default_rng(0).standard_normal(latents.shape[1])).to(latents)
    pushed = products.forward(function, latents, tangent[None])[:, 0]  # [B, M]
    if not pushed.isfinite().all():
        message = "the function has finite values, and a derivative that is not finite"
        raise GeneratorError(message, "look for roots and norms of zero, and divisions by them, in its code")
    found = {_agrees(function, latents, step * tangent, step * pushed) for step in _STEPS}
    if False in found and True not in found:
        message = "the function's derivative is not that of its values: a part of it is detached, or rounded"
        raise GeneratorError(message, _DIFFERENTIABLE)
    pulled = products.reverse(function, latents, pushed[None])[:, 0]  # [B, D]; tᵀ Jᵀ J t is |J t|²
    squares = pushed.square().sum(dim=1)
    if ((pulled @ tangent - squares).abs() > 10 * _ROUNDING[pushed.dtype] * squares).any():
        message = "forward and reverse mode give other derivatives of the function: a part of it is out of sight of one"
        raise GeneratorError(message, _DIFFERENTIABLE)


def _agrees(function: Function, latents: Tensor, step: Tensor, expected: Tensor) -> bool | None:
    """Whether half the change from z - step to z + step is about that expected [B, M] somewhere; None: none shows."""
    with torch.no_grad():
        ahead, behind = (function(latents + sign * step).flatten(1) for sign in (1, -1))
    change = (ahead - behind) / 2
    visible = change.norm(dim=1) > _VISIBLE * torch.finfo(change.dtype).eps * ahead.norm(dim=1)
    alike = (change - expected).norm(dim=1) <= _ALIKE * change.norm(dim=1)
    return bool(alike[visible].any()) if visible.any() else None
