"""Modules of the user's own, by "file.py:factory" or "module:factory".

Owns running a factory, and the hash of what it makes. Its code is run, so a reference is honoured where the user types
it, on the command line; whoever calls this sees to that.
"""

import contextlib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from magnet_cli.errors import ArtifactError


def call(reference: str) -> nn.Module:
    """The module a user's factory makes, as made: not in eval mode, its weights where they are.

    Args:
        reference: "file.py:factory" or "module:factory"; the file's folder, or the working folder, is on the import
            path meanwhile.

    Raises:
        ArtifactError: no such file, module or factory, code that does not parse, or it makes no torch.nn.Module.
    """
    place, _, factory = reference.rpartition(":")
    hint = "pass file.py:factory or module:factory, a function without arguments that returns a torch.nn.Module"
    try:
        with _import_path(Path(place).resolve().parent if place.endswith(".py") else Path.cwd()):
            made = getattr(_import(place), factory)()
    except (ImportError, OSError, AttributeError, SyntaxError) as error:
        message = f"{reference} cannot be had: {error}"
        raise ArtifactError(message, hint) from error
    if not isinstance(made, nn.Module):
        message = f"{reference} returns a {type(made).__name__}, and a torch.nn.Module is asked for"
        raise ArtifactError(message, hint)
    return made


@contextlib.contextmanager
def _import_path(folder: Path) -> Iterator[None]:
    """A folder first on the import path: what lies beside a user's code is found, as python itself would find it."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _import(place: str) -> ModuleType:
    if not place.endswith(".py"):
        return importlib.import_module(place)
    name = f"magnet_own_{Path(place).stem}"
    spec = importlib.util.spec_from_file_location(name, place)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there for their own module
    spec.loader.exec_module(module)
    return module


def code_sha256(reference: str) -> str:
    """Hex sha256 of a factory's reference and of the file that it is in: modules without weights differ in that alone.

    Args:
        reference: as for `call`, which has imported it.
    """
    place = reference.rpartition(":")[0]
    path = place if place.endswith(".py") else getattr(sys.modules.get(place), "__file__", None)
    digest = hashlib.sha256(reference.encode())
    if path is not None:
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


def state_sha256(module: nn.Module) -> str:
    """Hex sha256 of a state dict: names, types, shapes and bytes, sorted by name."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
