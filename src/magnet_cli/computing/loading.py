"""Load what a volume is computed with: a generator, and the image model that follows, if any."""

from collections.abc import Callable

from magnet_cli import models
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.errors import GeneratorError
from magnet_cli.maths.jacobian import PRECISIONS
from magnet_cli.models import Generator, image_models
from magnet_cli.models.custom import CustomModule
from magnet_cli.models.image_models import ImageModel

Source = Checkpoint | CustomModule
Settings = tuple[tuple[str, object], ...]
Load = Callable[[str], tuple[Generator, ImageModel | None]]  # of a precision, on the device of the run


def load(
    source: Source, output: str, device: str, precision: str, settings: Settings = ()
) -> tuple[Generator, ImageModel | None]:
    """Load a generator, and the image model unless `output` is one of the generator's own outputs."""
    generator = models.load(source, device=device, dtype=PRECISIONS[precision], **dict(settings))
    if output in models.OUTPUTS:
        return generator, None
    return generator, image_models.load(output, models.check_device(device), PRECISIONS[precision])


def again(generator: Generator) -> tuple[Source, Settings]:
    """Return the source and the settings that a generator was loaded from.

    Raises:
        GeneratorError: the generator was not made by `models.load`.
    """
    if generator.source is None:
        message = f"{generator.name} was not loaded by `load`, so that it cannot be loaded in another precision"
        raise GeneratorError(message, "pass what `load` returns, for a name, a path or a module")
    return generator.source, tuple(generator.settings.items())


def load_again(generator: Generator, output: str, precision: str) -> tuple[Generator, ImageModel | None]:
    """Load a generator in another precision, on its device, as `load`; in its own precision the generator itself."""
    weight = next(generator.module.parameters())
    dtype = PRECISIONS[precision]
    if weight.dtype != dtype:
        source, settings = again(generator)
        generator = models.load(source, device=weight.device, dtype=dtype, **dict(settings))
    return generator, None if output in models.OUTPUTS else image_models.load(output, weight.device, dtype)
