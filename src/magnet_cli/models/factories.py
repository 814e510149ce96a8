"""Call a user's own factory, "file.py:factory(64)" or "module:factory", and say whose error it is where that fails.

A factory's code is run: only the command line and an explicit argument of `models.load` may name one, never something
read from a file.
"""

import contextlib
import copy
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import cast

import torch
from torch import Tensor, nn

from magnet_cli.catalog import references
from magnet_cli.catalog.references import Factory
from magnet_cli.errors import ArtifactError, GeneratorError

_HINT = "pass file.py:factory or module:factory, a function that returns a torch.nn.Module"
_LONGEST = 400  # characters of an error of the user's code


def call_factory(reference: str) -> nn.Module:
    """Return the module that a factory makes, as made; the factory's folder is on the import path meanwhile.

    Its code is run as a script is that gets no arguments; what it prints goes to stderr.

    Raises:
        ArtifactError: there is no such factory, its code fails, or it makes no module.
        GeneratorError: the module has no weights yet, or weights without derivatives.
    """
    named = references.factory(reference)
    with _as_script(named):
        try:
            place = _import(named.place)
        except (Exception, SystemExit) as error:
            raise _not_imported(named, error) from error
        function = _function(place, named)
        _check_arguments(function, named)
        try:
            made = function(*named.args, **dict(named.kwargs))
        except (Exception, SystemExit) as error:
            message = f"the code of {reference} fails: {told(error)}"
            raise ArtifactError(message, _remedy(error)) from error
    if not isinstance(made, nn.Module):
        raise ArtifactError(f"{reference} returns a {type(made).__name__}, and a torch.nn.Module is asked for", _HINT)
    check_weights(reference, made)
    return made


def check_weights(title: str, module: nn.Module) -> None:
    """Check that the weights of a module are there, and can be differentiated.

    Raises:
        GeneratorError: they are on the device "meta", lazy, or quantized.
    """
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if nn.parameter.is_lazy(value):
            message = f"{title} has lazy weights, whose shapes are not known yet: {name}"
            raise GeneratorError(message, "call the module once in the factory, or give the layer its sizes")
        if value.is_meta:
            message = f"{title} has weights on the device meta, which hold no numbers: {name}"
            raise GeneratorError(message, "load them in the factory: load_state_dict(…, assign=True)")
    quantized = [name for name, each in module.named_modules() if type(each).__module__.startswith("torch.ao.nn")]
    quantized += [name for name, value in _tensors(module) if value.is_quantized]
    if quantized:
        message = f"{title} is quantized, and rounded weights give no derivatives: {quantized[0]}"
        raise GeneratorError(message, "return the module as it was before it was quantized")


def code_sha256(reference: str) -> str:
    """Return the hex sha256 of an imported factory's reference and file: it tells modules without weights apart."""
    named = references.factory(reference)
    path = named.place if named.is_file else getattr(sys.modules.get(named.place), "__file__", None)
    digest = hashlib.sha256(reference.encode())
    if path is not None:
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


def state_sha256(module: nn.Module) -> str:
    """Return the hex sha256 of the tensors in a state dict: names, types, shapes and bytes, sorted by name."""
    digest = hashlib.sha256()
    for name, value in sorted(_tensors(module), key=lambda pair: pair[0]):
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a state dict; what a module keeps beside them, as a count of steps, is passed over."""
    waiting: list[tuple[str, object]] = list(module.state_dict().items())
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, dict | tuple | list):
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [(f"{name}.{key}", each) for key, each in pairs]


@contextlib.contextmanager
def _as_script(named: Factory) -> Iterator[None]:
    folder = str(Path(named.place).resolve().parent if named.is_file else Path.cwd())
    argv, sys.argv = sys.argv, [named.place]
    sys.path.insert(0, folder)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.path.remove(folder)
        sys.argv = argv


class _SourceLoader(SourceFileLoader):
    """Compiles the source at each load: bytecode is told apart by whole seconds, and an edit may come within one."""

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


def _import(place: str) -> ModuleType:
    if not place.endswith(".py"):
        return importlib.import_module(place)
    name = f"magnet_own_{Path(place).stem}"
    spec = cast(ModuleSpec, importlib.util.spec_from_file_location(name, place, loader=_SourceLoader(name, place)))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there for their own module
    cast(Loader, spec.loader).exec_module(module)
    return module


def _not_imported(named: Factory, error: BaseException) -> ArtifactError:
    missing = isinstance(error, ModuleNotFoundError) and f"{named.place}.".startswith(f"{error.name}.")
    if missing or (isinstance(error, OSError) and error.filename == named.place):
        return ArtifactError(f"{named.place}:{named.function} cannot be had: {error}", _HINT)
    message = f"{named.place} fails when it is imported: {told(error)}"
    return ArtifactError(message, _remedy(error))


def _function(place: ModuleType, named: Factory) -> Callable[..., object]:
    function = getattr(place, named.function, None)
    if isinstance(function, nn.Module):
        return lambda: copy.deepcopy(function)
    if callable(function):
        return cast("Callable[..., object]", function)
    own = [name for name, value in vars(place).items() if getattr(value, "__module__", "") == place.__name__]
    near = difflib.get_close_matches(named.function, vars(place), n=3)
    what = f"has no function {named.function!r}" if function is None else f"has no function there: {function!r:.40}"
    message = f"{named.place}:{named.function} cannot be had: {named.place} {what}; it has {', '.join(own) or 'none'}"
    raise ArtifactError(message, f"did you mean {' or '.join(near)}?" if near else _HINT)


def _check_arguments(function: Callable[..., object], named: Factory) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions written in C
        return
    try:
        signature.bind(*named.args, **dict(named.kwargs))
    except TypeError as error:
        names = [name for name, each in signature.parameters.items() if each.default is each.empty]
        example = ", ".join(f"{name}=…" for name in names)
        message = f"{named.place}:{named.function} takes {signature}: {error}"
        raise ArtifactError(message, f"pass its arguments: '{named.place}:{named.function}({example})'") from error


def told(error: BaseException) -> str:
    """Return what an error of the user's code says, and the last line of that code before."""
    text = " ".join(str(error).split())
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    if isinstance(error, SyntaxError):  # its text has the line
        return text
    text = f"it ends the program ({text})" if isinstance(error, SystemExit) else f"{type(error).__name__}: {text}"
    frames = [each for each in traceback.extract_tb(error.__traceback__) if not _is_other(each.filename)]
    lines = [each.lineno for each in frames if each.filename == frames[0].filename]
    return f"{text} ({os.path.relpath(frames[0].filename)}, line {lines[-1]})" if lines else text


def _is_other(path: str) -> bool:
    ours = (str(Path(__file__).parents[1]), str(Path(torch.__file__).parent), "<frozen")
    return path.startswith(ours) or path == importlib.__file__


def _remedy(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return 'does it parse a command line? Put that below: if __name__ == "__main__":'
    if "weights_only" in str(error):
        return "load a state dict there; or pass weights_only=False to torch.load, if you trust the file"
    return "correct that code; with MAGNET_DEBUG=1 magnet shows where it fails"
