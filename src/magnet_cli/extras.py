"""Libraries that an extra of magnet installs, and the words where one is missing.

Owns no more than that. Knows nothing of what the libraries do.
"""

import importlib
from types import ModuleType

from magnet_cli.errors import MagnetError


def needed(module: str, extra: str) -> ModuleType:
    """A module of an optional dependency.

    Args:
        module: its name, as import has it.
        extra: of magnet, that installs it.

    Raises:
        MagnetError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise
        message = f"{module.partition('.')[0]} is needed for this, and is not installed"
        raise MagnetError(message, f"pip install 'magnet-cli[{extra}]'") from error
