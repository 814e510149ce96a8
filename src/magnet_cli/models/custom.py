"""Generators of the user's own: any torch.nn.Module that maps latents to images, or to arrays of any one shape.

Calls factories ("file.py:factory", "module:factory"), checks what they make, and wraps the module so that it looks like
the networks of the families. A factory's code is run: only the command line and an explicit argument of `models.load`
may name one, never something read from a file.
"""

import contextlib
import copy
import dataclasses
import hashlib
import importlib
import importlib.util
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import cast

import torch
from torch import Tensor, nn

from magnet_cli.errors import ArtifactError, GeneratorError
from magnet_cli.maths.priors import KINDS, Prior

FAMILY = "own"
PRIORS = tuple(kind for kind in KINDS if kind != "mixture")
_Range = tuple[float, float]  # lowest and highest intensity
_DEFAULT_RANGE = (-1.0, 1.0)
_ROWS = 2  # latents in the calls that tell the shape of an output
_CALL_FAILS = (RuntimeError, ValueError, TypeError, IndexError)  # what torch raises where shapes or types do not fit


@dataclass(frozen=True)
class CustomModule:
    """A user's own generator, checked and ready to be loaded; takes the place of a checkpoint.

    Pickled (for another process), it leaves the module of a factory behind: `build` calls the factory there.

    Attributes:
        name: file or module, and factory; the class of a module without a factory. Folders are named by it.
        factory: "file.py:factory" or "module:factory"; empty for a module that was passed from Python.
        reference: what the user typed, flags included, for commands to copy.
        sha256: of the module's state dict as it was made.
        image_range: (lowest, highest) intensity of the outputs.
        image_shape: shape of one output: (C, H, W), or any other.
        module: the module as made, never moved, cast or called; None if its copies do not work, or in another process.
    """

    name: str
    factory: str
    reference: str
    sha256: str
    latent_dim: int
    prior: str
    image_range: _Range
    num_classes: int
    image_shape: tuple[int, ...]
    module: nn.Module | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, object]:
        return vars(self) | ({"module": None} if self.factory else {})


class CustomNetwork(nn.Module):
    """A user's module, `inner`, with the attributes and the call of the families' networks."""

    def __init__(self, inner: nn.Module, source: CustomModule) -> None:
        super().__init__()
        self.like = nn.Parameter(torch.empty(0))  # has the device and dtype, also of a module without weights
        self.inner = inner
        self.latent_dim, self.prior, self.num_classes = source.latent_dim, source.prior, source.num_classes
        self.image_shape = source.image_shape
        self.image_range = () if source.image_range == _DEFAULT_RANGE else source.image_range

    def forward(self, z: Tensor, labels: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """Map latents [B, D], scaled by the truncation first, to outputs [B, ...], scaled to [-1, 1]."""
        x = self.inner(z * truncation) if labels is None else self.inner(z * truncation, labels)
        if not self.image_range:
            return x
        low, high = self.image_range
        return (x - low) * (2 / (high - low)) - 1


def from_factory(
    factory: str,
    *,
    latent_dim: int | None = None,
    prior: str | None = None,
    image_range: _Range | None = None,
    reference: str = "",
) -> CustomModule:
    """Call a factory, whose code is run, and check what it makes; arguments go before the module's attributes.

    Raises:
        ArtifactError: there is no such factory, or it makes no module.
        GeneratorError: the module has no latent_dim, or does not map [B, D] to finite floating numbers [B, ...] of one
            shape; an attribute is outside its range.
    """
    module = call_factory(factory)
    place, _, function = factory.rpartition(":")
    name = f"{Path(place).stem if place.endswith('.py') else place.rpartition('.')[2]}-{function}"
    source = _described(module, name, factory, reference or factory, latent_dim, prior, image_range)
    try:
        return dataclasses.replace(source, image_shape=_output_shape(source))
    except GeneratorError:  # a copy can fail where the module does not: a patched forward still calls the original
        source = dataclasses.replace(source, module=None)
        return dataclasses.replace(source, image_shape=_output_shape(source))


def from_module(
    module: nn.Module, *, latent_dim: int | None = None, prior: str | None = None, image_range: _Range | None = None
) -> CustomModule:
    """Check a copy of a module that is passed from Python; arguments and errors as for `from_factory`."""
    name = type(module).__name__
    source = _described(module, name, "", name, latent_dim, prior, image_range)
    return dataclasses.replace(source, image_shape=_output_shape(source))


def build(source: CustomModule) -> CustomNetwork:
    """Return the network of a user's own module, in eval mode; a factory that is called again has to make the same."""
    return CustomNetwork(_fresh(source), source).eval().requires_grad_(False)


def call_factory(reference: str) -> nn.Module:
    """Return the module that a factory makes, as made; the factory's folder is on the import path meanwhile."""
    place, _, factory = reference.rpartition(":")
    hint = "pass file.py:factory or module:factory, a function without arguments that returns a torch.nn.Module"
    try:
        with _import_path(Path(place).resolve().parent if place.endswith(".py") else Path.cwd()):
            made = getattr(_import(place), factory)()
    except (ImportError, OSError, AttributeError, SyntaxError) as error:
        raise ArtifactError(f"{reference} cannot be had: {error}", hint) from error
    if not isinstance(made, nn.Module):
        raise ArtifactError(f"{reference} returns a {type(made).__name__}, and a torch.nn.Module is asked for", hint)
    return made


def code_sha256(reference: str) -> str:
    """Return the hex sha256 of an imported factory's reference and file: it tells modules without weights apart."""
    place = reference.rpartition(":")[0]
    path = place if place.endswith(".py") else getattr(sys.modules.get(place), "__file__", None)
    digest = hashlib.sha256(reference.encode())
    if path is not None:
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


def state_sha256(module: nn.Module) -> str:
    """Return the hex sha256 of a state dict: names, types, shapes and bytes, sorted by name."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _fresh(source: CustomModule) -> nn.Module:
    """Return a module as the factory made it, for the caller to cast and move."""
    if source.module is None:
        module = call_factory(source.factory)
        if state_sha256(module) != source.sha256:
            message = f"{source.factory} makes other weights at each call, so that no volume could belong to it"
            hint = "load the weights from a file in it, or set a seed first: torch.manual_seed(0)"
            raise GeneratorError(message, hint)
        return module
    try:
        return copy.deepcopy(source.module)
    except Exception as error:  # whatever the user's classes raise
        message = f"{source.name} cannot be copied: {' '.join(str(error).split())[:200]}"
        raise GeneratorError(message, "pass a factory, file.py:factory, which is called for each copy") from error


@contextlib.contextmanager
def _import_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


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


def _described(
    module: nn.Module,
    name: str,
    factory: str,
    reference: str,
    latent_dim: int | None,
    prior: str | None,
    image_range: _Range | None,
) -> CustomModule:
    title = factory or name
    return CustomModule(
        name=name,
        factory=factory,
        reference=reference,
        sha256=state_sha256(module),
        latent_dim=_latent_dim(title, getattr(module, "latent_dim", None) if latent_dim is None else latent_dim),
        prior=_prior(title, prior or getattr(module, "prior", PRIORS[0])),
        image_range=_range(title, image_range or getattr(module, "image_range", _DEFAULT_RANGE)),
        num_classes=_num_classes(title, getattr(module, "num_classes", 0)),
        image_shape=(),
        module=module,
    )


def _latent_dim(title: str, value: object) -> int:
    hint = "set module.latent_dim = D, or pass `latent_dim=D`"
    if value is None:
        raise GeneratorError(f"{title} does not say how many numbers a latent has: its module has no latent_dim", hint)
    if not isinstance(value, int) or value < 1:
        raise GeneratorError(f"latent_dim of {title} is {value!r}, and a whole number above 0 is asked for", hint)
    return value


def _prior(title: str, value: object) -> str:
    if value not in PRIORS:
        message = f"prior of {title} is {value!r}, and magnet has {', '.join(PRIORS)}"
        hint = 'set module.prior = "normal" for N(0, I), "uniform" for U[-1, 1], or "sphere" if z is normalised first'
        raise GeneratorError(message, f"{hint}; or pass `prior`")
    return str(value)


def _range(title: str, value: object) -> _Range:
    try:
        low, high = map(float, value)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not -math.inf < low < high < math.inf:
        message = f"image_range of {title} is {value!r}, and a lower and a higher number are asked for"
        raise GeneratorError(message, "set module.image_range = (0, 1), or pass `image_range=(0, 1)`")
    return low, high


def _num_classes(title: str, value: object) -> int:
    if not isinstance(value, int) or value < 0:
        message = f"num_classes of {title} is {value!r}, and a whole number is asked for"
        raise GeneratorError(message, "set module.num_classes to the number of labels, or 0 where it takes none")
    return value


def _output_shape(source: CustomModule) -> tuple[int, ...]:
    """Return the shape of one output, from calls with fixed latents in both precisions."""
    shape: tuple[int, ...] = ()
    for precision in (torch.float64, torch.float32):  # every volume's solver is compared with float64
        shape = _output_shape_in(source, precision)
    return shape


def _output_shape_in(source: CustomModule, precision: torch.dtype) -> tuple[int, ...]:
    title = source.factory or source.name
    latents, _ = Prior(source.prior, source.latent_dim).draw(_ROWS, seed=0)
    z = torch.from_numpy(latents).to(precision)
    labels = [torch.zeros(_ROWS, dtype=torch.int64, device="cpu")] if source.num_classes else []
    inputs = f"[{_ROWS}, {source.latent_dim}] {str(precision).removeprefix('torch.')}" + " and labels" * bool(labels)
    module = _fresh(source).to("cpu", precision).eval()
    try:
        with torch.no_grad():
            output = module(z, *labels)
    except _CALL_FAILS as error:
        message = f"{title} fails on latents {inputs}: {' '.join(str(error).split())}"
        hint = "is latent_dim right? Constants follow z with dtype=z.dtype; with num_classes > 0, forward takes labels"
        raise GeneratorError(message, hint) from error
    hint = "return the images alone, one floating tensor [B, C, H, W] (or [B, ...]), before they are rounded"
    if not isinstance(output, Tensor):
        message = f"{title} maps latents {inputs} to a {type(output).__name__}, and a tensor is asked for"
        raise GeneratorError(message, hint)
    if not output.is_floating_point() or output.ndim < 2 or len(output) != _ROWS or not output[0].numel():
        raise GeneratorError(f"{title} maps latents {inputs} to {output.dtype} of shape {list(output.shape)}", hint)
    if not output.isfinite().all():
        message = f"{title} maps latents {inputs} to values that are not finite"
        raise GeneratorError(message, "check its weights, and that they are loaded")
    return tuple(output.shape[1:])
