"""Load what a volume is computed with: a generator, and the image model that follows, if any."""

from collections.abc import Callable

from magnet_cli import models
from magnet_cli.catalog.checkpoint import Checkpoint
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
    """Load a generator and the image model that follows.

    Args:
        source: of the generator.
        output: name of an image model, or one of the generator's own outputs, which no image model follows.
        device: as for `models.load`.
        precision: a key of PRECISIONS.
        settings: of the generator, (name, value) pairs.

    Raises:
        MagnetError: as `models.load` and `image_models.load`.
    """
    generator = models.load(source, device=device, dtype=PRECISIONS[precision], **dict(settings))
    if output in models.OUTPUTS:
        return generator, None
    return generator, image_models.load(output, models.check_device(device), PRECISIONS[precision])
