"""Products of the Jacobian of a function with many vectors at a batch of inputs, by torch.func."""

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from magnet_cli.errors import GeneratorError

Function = Callable[[Tensor], Tensor]
_RECURRENT = {torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu}
# What torch says where it does not differentiate, what that means, and what helps.
_CAUSES = (
    (r"forward AD with (?:aten::)?(\S+)", "torch has no forward mode for {}", 'pass `solver="projection"`'),
    (r"random operation", "it draws random numbers", "keep the noise in a buffer of the module"),
    (
        r"mutate a captured Tensor|not part of the graph",
        "it changes a buffer of the module",
        "change counters and averages `if self.training` only",
    ),
    (r"saved tensor hooks|heckpoint", "it uses torch.utils.checkpoint", "call the block itself where no training is"),
    (
        r"autograd\.Function",
        "it uses a torch.autograd.Function without forward mode, or torch.utils.checkpoint",
        "write it in torch operations, or give it setup_context and jvp",
    ),
    (
        r"modified by an inplace operation",
        "it changes a tensor in place that its derivative needs",
        "write x = x * 2 in the place of x.mul_(2)",
    ),
    (
        r"requires_grad_\(\)|does not require grad|not have been used in the graph",
        "a part of it is cut off from z, by detach, no_grad or requires_grad_",
        "leave these out",
    ),
)


class _Mathematical(TorchFunctionMode):
    """Runs recurrent layers in torch's own arithmetic: those of oneDNN and cuDNN have no forward mode."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _RECURRENT:
            return func(*args, **(kwargs or {}))
        with warnings.catch_warnings(), torch.backends.cudnn.flags(enabled=False):
            warnings.simplefilter("ignore")  # of oneDNN about Intel GPUs, when its flags are put back
            with torch.backends.mkldnn.flags(enabled=False):
                return func(*args, **(kwargs or {}))


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
        pushed = torch.func.vmap(push, chunk_size=chunk_size, randomness="same")(tangents)  # [T, B, ...]
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
        try:
            value, pull = torch.func.vjp(function, latents)[:2]
        except RuntimeError:  # parts that torch.func does not take: checkpoints, functions of the user's own
            return _by_autograd(function, latents, cotangents)

        def back(cotangent: Tensor) -> Tensor:
            return pull(cotangent.expand(len(latents), -1).reshape(value.shape))[0]

        pulled = torch.func.vmap(back, chunk_size=chunk_size)(cotangents)  # [T, B, D]
    return pulled.transpose(0, 1)


def no_forward_mode(function: Function, latents: Tensor) -> GeneratorError | None:
    """Return why a function has no forward mode at latents [B, D]; None where it has one."""
    try:
        forward(function, latents, torch.ones_like(latents)[None])
    except GeneratorError as error:
        return error
    return None


def _by_autograd(function: Function, latents: Tensor, cotangents: Tensor) -> Tensor:
    """Return what `reverse` does, by torch.autograd, one cotangent after the other."""
    with torch.enable_grad():
        z = latents.detach().requires_grad_()
        value = function(z).flatten(1)
        pulled = [torch.autograd.grad(value, z, c.expand_as(value), retain_graph=True)[0] for c in cotangents]
    return torch.stack(pulled, dim=1)


@contextlib.contextmanager
def _differentiable(mode: str) -> Iterator[None]:
    """Take the forms of layers that can be differentiated; turn torch's refusal into a GeneratorError.

    A lack of memory stays what it is.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), _Mathematical(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop")  # of vmap
            yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        if "can't allocate memory" in str(error):  # the CPU's allocator raises a plain RuntimeError
            raise
        raise _refusal(mode, str(error)) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _refusal(mode: str, said: str) -> GeneratorError:
    cause, hint = said, "write the module in differentiable torch operations, without detach"
    for pattern, meaning, help_ in _CAUSES:
        if match := re.search(pattern, said):
            cause, hint = meaning.format(*match.groups()), help_
            break
    return GeneratorError(f"the function cannot be differentiated in {mode} mode: {cause}", hint)
