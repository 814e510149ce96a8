"""How the work is divided into batches that fit into memory, and the arithmetic of a device.

Batch sizes are functions of generator, solver size, kind of device and memory, never of a timing, so that two runs on
one device give the same bytes (docs/method.md#chosen-once).
"""

import dataclasses
import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from magnet_cli.errors import GeneratorError
from magnet_cli.models import Generator

_RECYCLED = 1 << 25  # bytes of the largest block that glibc reuses: a larger block costs a page fault each 4 KiB
_LIVE = 4  # copies of a layer's input and output that are alive: values, tangents, and copies in the library
_CHUNK_LEAST = 16  # with fewer vectors the overhead of a call counts
_BATCH_WORK = 1 << 22  # numbers in a batch of Jacobians: tens of MB, and large enough to be fast


@dataclass(frozen=True)
class BatchPlan:
    """How the work is divided.

    Attributes:
        batch: B, number of latents at a time.
        chunk: number of vectors at a time, for each of these latents; None for all.
        whole: whether a whole Jacobian fits (docs/method.md#jᵀj-without-j).
        slices: of the output that are differentiated one after the other if it does not.
    """

    batch: int
    chunk: int | None = None
    whole: bool = True
    slices: int = 16

    def halved(self) -> "BatchPlan":
        """Return the plan with half the batch, or half the chunk, after memory ran out.

        Raises:
            GeneratorError: the plan is one latent and one vector at a time.
        """
        if self.batch > 1:
            return dataclasses.replace(self, batch=self.batch // 2)
        if self.chunk is None or self.chunk > 1:
            return dataclasses.replace(self, chunk=(self.chunk or 64) // 2)
        if self.whole:
            return BatchPlan(1, 1, whole=False)
        message = "memory runs out with one latent and one vector at a time"
        raise GeneratorError(message, "free memory, or use a device with more of it")


def plan_batches(
    generator: Generator, vectors: int | None = None, memory: int | None = None, processes: int = 1
) -> BatchPlan:
    """Divide the work of products with a number of vectors at each latent.

    Args:
        generator: on its device.
        vectors: m, of one pass of the solver; default D, as for all columns of J.
        memory: bytes that the work may take; default: half of what is free on the device.
        processes: number of processes that share the memory.

    Raises:
        GeneratorError: one vector at one latent does not fit.
    """
    vectors = vectors or generator.latent_dim
    weight = next(generator.module.parameters())
    item = weight.element_size()
    limit = (memory or _free_memory(weight.device) // 2) // processes
    numbers = vectors * int(np.prod(generator.image_shape))
    pushed_bytes = numbers * item
    vector_bytes = _LIVE * _largest_activation(generator) * item
    if pushed_bytes + vector_bytes > limit:
        chunk = (limit // vector_bytes - 1) // 2  # both the forward and the reverse pass of a column are alive
        if chunk < 1:
            message = f"one vector at one latent of {generator.name} takes {3 * vector_bytes:,} bytes of {limit:,}"
            raise GeneratorError(message, f"pass `memory={3 * vector_bytes}` or more")
        return BatchPlan(1, min(chunk, vectors), whole=False, slices=-(-2 * pushed_bytes // limit))
    latent_bytes = pushed_bytes + vectors * vector_bytes
    if latent_bytes > limit:
        return BatchPlan(1, (limit - pushed_bytes) // vector_bytes)
    batch = min(int(np.clip(_BATCH_WORK // numbers, 1, 64)), limit // latent_bytes)
    chunk = vectors
    if weight.device.type == "cpu":
        chunk = max(_CHUNK_LEAST, 2 * _LIVE * _RECYCLED // vector_bytes)  # so that a layer's output is recycled
        batch = max(1, min(batch, chunk // vectors))
    return BatchPlan(batch, None if chunk >= vectors else chunk)


def set_arithmetic(device: torch.device, precision: str) -> None:
    """Make products on a CUDA device tf32 if that is the precision, and only then; torch's default differs."""
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"


def _largest_activation(generator: Generator) -> int:
    """Largest number of values in input and output of a layer, for one latent."""
    sizes = [int(np.prod(generator.image_shape))]

    def watch(_module: nn.Module, inputs: tuple, output: object) -> None:
        tensors = [t for t in (*inputs, output) if isinstance(t, Tensor)]
        sizes.append(sum(t.numel() for t in tensors))

    hooks = [m.register_forward_hook(watch) for m in generator.module.modules() if not list(m.children())]
    try:
        with torch.no_grad():
            weight = next(generator.module.parameters())
            labels = weight.new_zeros(1, dtype=torch.int64) if generator.num_classes else None
            generator(torch.zeros(1, generator.latent_dim).to(weight), labels=labels)
    finally:
        for hook in hooks:
            hook.remove()
    return max(sizes)


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
