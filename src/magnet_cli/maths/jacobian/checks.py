"""Checks that a function has a Jacobian at each latent, and that torch computes it."""

import torch
from torch import Tensor

from magnet_cli.errors import GeneratorError
from magnet_cli.maths.jacobian.products import Function, forward, reverse

_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.3}
_STEPS = (3e-2, 1e-2, 1e-3, 1e-4)  # of finite differences: kinks spoil long steps, rounding spoils short ones
_SUSPECTS = "look for detach, no_grad, rounding or straight-through estimators in the module"
_LENGTH = 0.02  # relative; roots with a small number added are far below it
_SLOPE_ERROR = 0.05  # relative; the best step is far below it if the derivative is right


def check(function: Function, latents: Tensor) -> None:
    """Check that a function gives the same values twice, and for each latent alone and in a batch.

    Args:
        function: maps [B, D] to [B, ...].
        latents: [B, D], B ≥ 2.

    Raises:
        GeneratorError: the output is no floating tensor of B rows or not finite, or values change from call to call
            (noise) or with the other rows of the batch (batch statistics).
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
            raise GeneratorError(message, 'check the weights, or pass `precision="float64"`')
        limit = _ROUNDING[first.dtype] * first.abs().max().clamp_min(1e-30)
        if (function(latents) - first).abs().max() > limit:
            message = "the function gives different values for the same latents: it draws noise or drops units"
            raise GeneratorError(message, "fix its noise, and put the module into eval mode")
        try:
            alone = torch.cat([function(z[None]) for z in latents])
        except (RuntimeError, ValueError) as error:  # ValueError: BatchNorm without statistics
            message = f"the function fails on a latent alone: {' '.join(str(error).split())}"
            raise GeneratorError(
                message, "put the module into eval mode, or write it so that rows do not meet"
            ) from error
        if (alone - first).abs().max() > limit:
            message = "the function gives other values for a latent alone than in a batch: it uses batch statistics"
            raise GeneratorError(message, "put the module into eval mode, or write it so that rows do not meet")


def check_length(function: Function, latents: Tensor) -> None:
    """Check that a function normalises its latents.

    Args:
        function: maps [B, D] to [B, ...]; it has passed `check`.
        latents: [B, D], B ≥ 2, all different.

    Raises:
        GeneratorError: it gives other values at latents twice as long.
    """
    with torch.no_grad():
        once, twice = function(latents).flatten(1), function(2 * latents).flatten(1)
        change = float((twice - once).norm() / (once - once.roll(1, 0)).norm().clamp_min(1e-30))
    if not change < _LENGTH:
        message = (
            f"its values at z and at 2z differ by {change:.0%} of those at other z, and a sphere is for generators "
        )
        message += "that normalise z"
        hint = "normalise z in forward: z / z.norm(dim=1, keepdim=True); or, if z is to have the length √D that it is "
        raise GeneratorError(message, hint + 'drawn with, pass `prior="fixed-length"`')


def check_slope(function: Function, latents: Tensor, *, by_reverse: bool = False) -> None:
    """Compare a product with central finite differences, which differ after a `detach` in the function.

    Args:
        function: maps [B, D] to [B, ...]; it has passed `check`.
        latents: [B, D], float32 or float64; in coarser arithmetic the differences are rounding.
        by_reverse: take reverse products, for a function without forward mode: the slope along the differences.

    Raises:
        GeneratorError: the derivative is wrong, or the function cannot be differentiated.
    """
    direction = _direction(latents)
    slope = direction[:, :0] if by_reverse else forward(function, latents, direction[None])[:, 0]
    errors, lengths = [], []
    with torch.no_grad():
        for step in _STEPS:
            ahead, behind = (function(latents + s * direction).flatten(1) for s in (step, -step))
            difference = (ahead - behind) / (2 * step)
            if by_reverse:
                along = torch.nn.functional.normalize(difference, dim=1)
                pulled = reverse(function, latents, along[None])[:, 0]
                slope = along * (pulled * direction).sum(dim=1, keepdim=True)
            rounding = torch.finfo(ahead.dtype).eps * ahead.norm(dim=1) / step
            lengths.append((difference.norm(dim=1) - rounding).clamp_min(0))
            errors.append((difference - slope).norm(dim=1) - rounding)
    scale = torch.stack([*lengths, slope.norm(dim=1)]).amax(dim=0)
    if not scale.any():
        return  # constant along this direction, within rounding
    error = float((torch.stack(errors).amin(dim=0) / scale.clamp_min(1e-30)).median())
    if error > _SLOPE_ERROR or not slope.any():
        message = f"the derivative torch computes is not that of the function: {error:.0%} off finite differences"
        message = message if slope.any() else "the derivative torch computes is zero, and that of the function is not"
        raise GeneratorError(message, _SUSPECTS)


def check_modes(function: Function, latents: Tensor) -> None:
    """Compare a reverse product with a forward product, which differ after a `no_grad` in the function.

    Args:
        function: maps [B, D] to [B, ...]; it has passed `check_slope`.
        latents: [B, D], float32 or float64.

    Raises:
        GeneratorError: the derivatives differ or are not finite, or the function has no reverse mode.
    """
    direction = _direction(latents)
    pushed = forward(function, latents, direction[None])[:, 0]  # [B, M]
    if not pushed.isfinite().all():
        message = "the function has finite values, and a derivative that is not finite"
        raise GeneratorError(message, "look for roots and norms of zero, and divisions by them, in the module")
    pulled = reverse(function, latents, pushed[None])[:, 0]  # [B, D]; tᵀ Jᵀ J t is |J t|²
    squares = pushed.square().sum(dim=1)
    if (((pulled * direction).sum(dim=1) - squares).abs() > 10 * _ROUNDING[pushed.dtype] * squares).any():
        message = "forward and reverse mode give other derivatives of the function: a part of it is out of sight of one"
        raise GeneratorError(message, _SUSPECTS)


def _direction(latents: Tensor) -> Tensor:
    """A unit vector [D] for each latent [B, D]; not along z, where a function that normalises z is constant."""
    direction = torch.ones_like(latents) / latents.shape[1] ** 0.5
    direction[:, ::2] *= -1
    return direction
