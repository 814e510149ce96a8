"""The function whose Jacobian a volume holds: its inputs, its values, and whether it can be differentiated."""

from typing import Any, cast

import torch
from torch import Tensor

from magnet_cli.errors import GeneratorError
from magnet_cli.maths.jacobian import checks
from magnet_cli.maths.jacobian.products import Function, no_forward_mode
from magnet_cli.maths.jacobian.solvers import num_outputs
from magnet_cli.models import Generator
from magnet_cli.models.image_models import ImageModel
from magnet_cli.volume.spec import VolumeSpec


def inputs(generator: Generator, spec: VolumeSpec, z: Tensor, labels: Tensor | None = None) -> Tensor:
    """Return the inputs at which the Jacobian is taken: z [B, D] itself, or w = M(z) [B, Dw], without gradients.

    Definition: docs/method.md#space-and-output.
    """
    if spec.space == "z":
        return z
    with torch.no_grad():
        return cast(Any, generator.module).mapping(z, labels)


def function(
    generator: Generator, spec: VolumeSpec, output: ImageModel | None = None, labels: Tensor | None = None
) -> Function:
    """Return the function of `inputs` whose Jacobian a volume holds; of a prior "fixed-length", by way of √D z/|z|.

    Args:
        generator: on its device.
        spec: its space, output and truncation are used.
        output: the image model that is applied to the images, if any.
        labels: [B] int64, or [1] for any batch, if the generator takes labels.
    """
    own = generator.function(spec.space, "pixel" if output else spec.output, spec.truncation, labels)
    if generator.prior.kind == "fixed-length" and spec.space == "z":  # so its Jacobian is that along the sphere
        return _seen_by(output, lambda z: own(z * (z.shape[1] ** 0.5 / z.norm(dim=1, keepdim=True))))
    return _seen_by(output, own)


def _seen_by(output: ImageModel | None, own: Function) -> Function:
    return own if output is None else lambda latents: output.module(own(latents))


def at_rows(
    generator: Generator, spec: VolumeSpec, output: ImageModel | None, z: Tensor, first_row: int
) -> tuple[Function, Tensor]:
    """Return the function and its inputs at the latents z [B, D] of a volume's rows from first_row on.

    The label of a row is a function of the number of the row.
    """
    classes = spec.labels(first_row, len(z))
    labels = None if classes is None else torch.tensor(classes, device=z.device)
    return function(generator, spec, output, labels), inputs(generator, spec, z, labels)


def check(generator: Generator, spec: VolumeSpec, output: ImageModel | None = None) -> tuple[int, str]:
    """Check, at a few latents, that the function has a Jacobian and that torch computes it.

    The image model has to accept the images. The output for a latent must not depend on the other latents of the batch.
    The derivative has to agree with finite differences, and if the code may be the user's own, forward and reverse mode
    have to agree. A function without forward mode is one for solvers that do without: "exact" and "projection".

    Returns:
        M, how many numbers an output has; and why the function has no forward mode, "" where it has one.

    Raises:
        GeneratorError: one of these does not hold, or a module of the prior "sphere" does not normalise its latents.
    """
    z = torch.from_numpy(generator.prior.draw_shard(spec.seed, 0, 3)[0]).to(next(generator.module.parameters()))
    classes = spec.labels(0, 1)
    label = None if classes is None else torch.tensor(classes, device=z.device)  # [1]: latents are passed alone, too
    at = inputs(generator, spec, z, None if label is None else label.expand(len(z)))
    checked = function(generator, spec, output, label)
    if output is not None:
        try:
            checked(at)
        except (RuntimeError, ValueError) as error:
            shape = "×".join(map(str, generator.image_shape))
            message = f"{output.name} does not take the {shape} images of {generator.name}: {error}"
            hint = 'pass `output="pixel"`, or a model that takes images of that shape'
            raise GeneratorError(message, hint) from error
    checks.check(checked, at)
    if generator.is_custom and spec.prior == "sphere":
        checks.check_length(checked, at)
    refusal = no_forward_mode(checked, at)
    if refusal and spec.solver in {"pilot", "sketch"}:
        raise refusal
    if at.dtype in {torch.float32, torch.float64}:
        checks.check_slope(checked, at, by_reverse=refusal is not None)
        if not refusal and (generator.is_custom or output is not None):
            checks.check_modes(checked, at)
    return num_outputs(checked, at), refusal.message if refusal else ""
