"""Whether a volume is extended with the function that it was begun with (docs/method.md#fingerprint-of-a-module).

Weights alone do not identify the function of a user's own module: its code may have changed. So a volume keeps a few
numbers that the function gives at fixed inputs, the probe.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from magnet_cli.computing import functions
from magnet_cli.errors import GeneratorError
from magnet_cli.models import Generator
from magnet_cli.models.image_models import ImageModel
from magnet_cli.volume import Volume

_PROBES = 4  # fixed inputs
_PROBE_NUMBERS = 8  # random combinations of each output: no change of the function leaves all of them as they were
_PROBE_ROUNDING = 1e-4  # of the largest: float32 on another device, far less than the change of any other function
_SEED = 0x746573


def probe(generator: Generator, output: ImageModel | None) -> dict[str, list[list[float]]]:
    """Return 8 fixed random combinations of the values of the user's own functions at 4 fixed inputs.

    Returns:
        "generator": [4, 8], if the generator is the user's own; "output": [4, 8], if an image model follows.
    """
    weight = next(generator.module.parameters())
    values = {}
    if generator.is_custom:
        z = torch.from_numpy(generator.prior.draw_shard(_SEED, 0, _PROBES)[0]).to(weight)
        classes = torch.arange(_PROBES, device=weight.device) % (generator.num_classes or 1)
        values["generator"] = _combinations(lambda: generator(z, labels=classes if generator.num_classes else None))
    if output is not None:
        pixels = np.random.default_rng(_SEED).uniform(-1, 1, (_PROBES, *generator.image_shape))
        images = torch.from_numpy(pixels).to(weight)
        values["output"] = _combinations(lambda: output.module(images))
    return values


def _combinations(function: Callable[[], Tensor]) -> list[list[float]]:
    """[B, 8] sums of the values [B, ...] of a function, with fixed random signs."""
    with torch.no_grad():
        values = function().flatten(1).to(device="cpu", dtype=torch.float64).numpy()
    values = np.where(np.isfinite(values), values, 0)  # JSON has no infinity
    rng = np.random.default_rng(_SEED)
    size = values.shape[1]
    signs = (2 * rng.integers(0, 2, size, dtype=np.int8) - 1 for _ in range(_PROBE_NUMBERS))
    return np.stack([values @ line / np.sqrt(size) for line in signs], axis=1).tolist()


def check_settings(volume: Volume, generator: Generator) -> None:
    """Check that a volume was made with the settings of a generator that has the same weights.

    Raises:
        GeneratorError: a setting differs.
    """
    for name in ("latent_dim", "prior", "image_range", "num_classes"):
        stored = getattr(volume.spec, name)
        current = generator.prior.kind if name == "prior" else getattr(generator, name)
        if stored != current:
            message = f"{volume.path} was made with {name} {stored or 'unset'}, and {current or 'unset'} is asked for"
            raise GeneratorError(message, "pass the settings it was made with, or compute a new volume")


def check_unchanged(volume: Volume, generator: Generator, output: ImageModel | None) -> None:
    """Check that generator and image model (float32) are still the functions that a volume was made with.

    A volume without a probe passes.

    Raises:
        GeneratorError: the function changed, or cannot be differentiated.
    """
    if not volume.probe:
        return
    functions.check(generator, volume.spec, output)
    names = {"generator": generator.name, "output": output.name if output else ""}
    for role, numbers in probe(generator, output).items():
        before, now = np.array(volume.probe.get(role, [])), np.array(numbers)
        if before.shape == now.shape and np.abs(before - now).max() <= _PROBE_ROUNDING * np.abs(before).max():
            continue
        message = f"the function of {names[role]} changed: at fixed inputs it gives other values than when "
        message += f"{volume.path} was made, though its weights are the same"
        raise GeneratorError(message, "restore its code, or compute a new volume: pass `volume` with another folder")
