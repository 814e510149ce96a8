"""Whether a function is one whose Jacobian at a latent means anything.

Owns the checks made before a run. Knows nothing of what the function is.
"""

import torch
from torch import Tensor

from magnet_cli.errors import GeneratorError
from magnet_cli.jacobian.products import Function

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
