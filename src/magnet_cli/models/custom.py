"""A generator of the user's own: any torch.nn.Module that maps latents to images, or to arrays of any one shape.

Owns what is asked of such a module, and how it becomes a network like those of the families. Knows nothing of how the
function is written.
"""

import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from magnet_cli.errors import ArtifactError, GeneratorError
from magnet_cli.maths.priors import KINDS, Prior

FAMILY = "own"
PRIORS = tuple(kind for kind in KINDS if kind != "mixture")
_USUAL_RANGE = (-1.0, 1.0)
_ROWS = 2  # of the latents whose outputs tell the shape
_CALL_FAILS = (RuntimeError, ValueError, TypeError, IndexError)  # what torch raises where shapes or types do not fit


@dataclass(frozen=True)
class CustomModule:
    """A user's own generator, found by calling its factory once; in the place of a checkpoint.

    Attributes:
        name: file or module, and factory: what folders are named by.
        factory: "file.py:factory" or "module:factory".
        reference: what the user typed, flags included, to be shown in commands to copy.
        sha256: of its state dict, as the factory made it.
        latent_dim: D.
        prior: the distribution of its latents.
        image_range: (lowest, highest) intensity of what it gives.
        num_classes: 0 where it takes no labels.
        image_shape: of one output: (C, H, W), or any other shape.
    """

    name: str
    factory: str
    reference: str
    sha256: str
    latent_dim: int
    prior: str
    image_range: tuple[float, float]
    num_classes: int
    image_shape: tuple[int, ...]


class CustomNetwork(nn.Module):
    """A user's module behind the face that families have.

    Args:
        inner: maps z [B, D], and labels [B] int64 where it takes labels, to [B, ...].
        source: what it is.
    """

    def __init__(self, inner: nn.Module, source: CustomModule) -> None:
        super().__init__()
        self.like = nn.Parameter(torch.empty(0))  # tells device and precision, where a module without weights does not
        self.inner = inner
        self.latent_dim, self.prior, self.num_classes = source.latent_dim, source.prior, source.num_classes
        self.image_shape = source.image_shape
        self.image_range = () if source.image_range == _USUAL_RANGE else source.image_range

    def forward(self, z: Tensor, labels: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """Latents [B, D], scaled by the truncation first, to outputs [B, ...], their range brought to [-1, 1]."""
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
    image_range: tuple[float, float] | None = None,
    reference: str = "",
) -> CustomModule:
    """Call a factory, and find out what it makes; values given go before the module's attributes of the same names.

    Args:
        factory: "file.py:factory" or "module:factory"; its code is run.
        latent_dim: D.
        prior: one of PRIORS; where neither says, "normal".
        image_range: where neither says, (-1, 1).
        reference: what the user typed; default `factory`.

    Raises:
        ArtifactError: there is no such factory, or it makes no module.
        GeneratorError: the module does not say its latent_dim, or does not map [B, D] to finite floating numbers
            [B, ...] of one shape; an attribute outside its range.
    """
    made = call_factory(factory)
    sha256 = state_sha256(made)
    place, _, function = factory.rpartition(":")
    found = CustomModule(
        name=f"{Path(place).stem if place.endswith('.py') else place.rpartition('.')[2]}-{function}",
        factory=factory,
        reference=reference or factory,
        sha256=sha256,
        latent_dim=_latent_dim(factory, getattr(made, "latent_dim", None) if latent_dim is None else latent_dim),
        prior=_prior(factory, prior or getattr(made, "prior", PRIORS[0])),
        image_range=_range(factory, image_range or getattr(made, "image_range", _USUAL_RANGE)),
        num_classes=_num_classes(factory, getattr(made, "num_classes", 0)),
        image_shape=(),
    )
    for precision in (torch.float64, torch.float32):  # a volume's solver is always held against float64
        shape = _output_shape(found, made.to(precision).eval(), precision)
    return dataclasses.replace(found, image_shape=shape)


def build(source: CustomModule) -> CustomNetwork:
    """The network of a user's own module, in eval mode, as its factory makes it once more.

    Raises:
        GeneratorError: the factory makes other weights than when it was called first.
        ArtifactError: the factory is gone.
    """
    made = call_factory(source.factory)
    if state_sha256(made) != source.sha256:
        message = f"{source.factory} makes other weights at each call, so that no volume could belong to it"
        raise GeneratorError(message, "load the weights from a file in it, or set a seed first: torch.manual_seed(0)")
    return CustomNetwork(made, source).eval().requires_grad_(False)


def _latent_dim(factory: str, value: object) -> int:
    if value is None:
        message = f"{factory} does not say how many numbers a latent has: its module has no latent_dim"
        raise GeneratorError(message, "set module.latent_dim = D in the factory, or pass --latent-dim D")
    if not isinstance(value, int) or value < 1:
        message = f"latent_dim of {factory} is {value!r}, and a whole number above 0 is asked for"
        raise GeneratorError(message, "set module.latent_dim = D in the factory, or pass --latent-dim D")
    return value


def _prior(factory: str, value: object) -> str:
    if value not in PRIORS:
        message = f"prior of {factory} is {value!r}, and magnet has {', '.join(PRIORS)}"
        hint = (
            'set module.prior = "normal" for N(0, I), "uniform" for U[-1, 1], or "sphere" where z is normalised first; '
        )
        hint += "or pass --prior"
        raise GeneratorError(message, hint)
    return value


def _range(factory: str, value: object) -> tuple[float, float]:
    try:
        low, high = map(float, value)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not -math.inf < low < high < math.inf:
        message = f"image_range of {factory} is {value!r}, and a lower and a higher number are asked for"
        raise GeneratorError(message, "set module.image_range = (0, 1) in the factory, or pass --image-range 0,1")
    return low, high


def _num_classes(factory: str, value: object) -> int:
    if not isinstance(value, int) or value < 0:
        message = f"num_classes of {factory} is {value!r}, and a whole number is asked for"
        raise GeneratorError(message, "set module.num_classes to the number of labels, or 0 where it takes none")
    return value


def _output_shape(source: CustomModule, module: nn.Module, precision: torch.dtype) -> tuple[int, ...]:
    """The shape of one output, found by a call with a few fixed latents in that precision.

    Raises:
        GeneratorError: the call fails, or gives something else than finite floating numbers [B, ...].
    """
    drawn, _ = Prior(source.prior, source.latent_dim).draw(np.random.default_rng(0), _ROWS)
    z = torch.from_numpy(drawn).to(precision)
    labels = [torch.zeros(_ROWS, dtype=torch.int64)] if source.num_classes else []
    asked = f"[{_ROWS}, {source.latent_dim}] {str(precision).removeprefix('torch.')}" + " and labels" * bool(labels)
    try:
        with torch.no_grad():
            found = module(z, *labels)
    except _CALL_FAILS as error:
        message = f"{source.factory} fails on latents {asked}: {' '.join(str(error).split())}"
        hint = "is latent_dim right? Constants follow z with dtype=z.dtype; with num_classes > 0, forward takes labels"
        raise GeneratorError(message, hint) from error
    hint = "return the images alone, one floating tensor [B, C, H, W] (or [B, ...]), before they are rounded"
    if not isinstance(found, Tensor):
        message = f"{source.factory} maps latents {asked} to a {type(found).__name__}, and a tensor is asked for"
        raise GeneratorError(message, hint)
    if not found.is_floating_point() or found.ndim < 2 or len(found) != _ROWS or not found[0].numel():
        message = f"{source.factory} maps latents {asked} to {found.dtype} of shape {list(found.shape)}"
        raise GeneratorError(message, hint)
    if not found.isfinite().all():
        message = f"{source.factory} maps latents {asked} to values that are not finite"
        raise GeneratorError(message, "check its weights, and that they are loaded")
    return tuple(found.shape[1:])


def call_factory(reference: str) -> nn.Module:
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
        reference: as for `call_factory`, which has imported it.
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
