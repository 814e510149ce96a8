"""The expected failures: what was asked, what was found, what to do.

Owns MagnetError and its kinds. Knows nothing of how they are shown (console) or where they come from. Anything that
is not a MagnetError is a bug and keeps its traceback.
"""

import importlib
from types import ModuleType


class MagnetError(Exception):
    """An expected failure that a user can act on.

    Args:
        message: what was asked and what was found, one or two sentences.
        hint: what to do about it, ideally a command to copy.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class SpecError(MagnetError):
    """A value outside the range that a file or generator gives it. What the command line alone shows, Typer refuses."""


class ArtifactError(MagnetError):
    """An artifact that is unknown, cannot be had, or is not what its entry says."""


class GeneratorError(MagnetError):
    """Weights that fit no family, a function that cannot be differentiated, values that are not finite."""


class VolumeError(MagnetError):
    """A volume that is missing, damaged, made with other settings, or too small for what was asked."""


class DamageError(VolumeError):
    """Rows whose bytes are not those that were committed; `magnet compute … --repair` makes them again."""


class SampleError(MagnetError):
    """A sample folder that is taken, or cannot be written."""


def require(module: str, extra: str) -> ModuleType:
    """Import a module of an optional dependency.

    Args:
        module: the module's name, as in an import statement.
        extra: the extra of magnet that installs the dependency.

    Raises:
        MagnetError: the dependency is not installed; the hint is the `pip install` command.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if (error.name or "").partition(".")[0] != package:
            raise
        raise MagnetError(
            f"{package} is needed for this, and is not installed", f"pip install 'magnet-cli[{extra}]'"
        ) from error
