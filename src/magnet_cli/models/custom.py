"""Generators of the user's own: any torch.nn.Module that maps latents to images, or to arrays of any one shape.

Checks the module that a factory makes, or that is passed from Python, and wraps it so that it looks like the networks
of the families.
"""

import copy
import dataclasses
import math
import operator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from magnet_cli.catalog import references
from magnet_cli.errors import GeneratorError
from magnet_cli.files import documents
from magnet_cli.maths.priors import KINDS, Prior
from magnet_cli.models import outputs
from magnet_cli.models.factories import call_factory, check_weights, state_sha256, told

FAMILY = "own"
PRIORS = tuple(kind for kind in KINDS if kind != "mixture")
_Range = tuple[float, float]  # lowest and highest intensity
_DEFAULT_RANGE = (-1.0, 1.0)
_ROWS = 2  # latents in the calls that tell the shape of an output
_NUMBERS = 1 << 12  # in the images whose intensities are looked at


@dataclass(frozen=True)
class CustomModule:
    """A user's own generator, checked and ready to be loaded; takes the place of a checkpoint.

    Pickled (for another process), it leaves the module of a factory behind: `build` calls the factory there.

    Attributes:
        name: file or module, and factory; the class of a module without a factory. Folders are named by it.
        factory: "file.py:factory" or "module:factory"; empty for a module that was passed from Python.
        reference: what the user typed, flags included, quoted for the shell: for commands to copy.
        sha256: of the module's state dict as it was made, and of the key, if there is one.
        image_range: (lowest, highest) intensity of the outputs.
        image_shape: shape of one output: (C, H, W), or any other.
        classes: names of the labels; empty if they have none.
        key: where the tensor is in what the module returns; empty if that is a tensor.
        intensities: lowest and highest that were seen in a few outputs.
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
    image_shape: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    key: str = ""
    intensities: tuple[float, ...] = ()
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
        self.image_shape, self.classes, self.key = source.image_shape, source.classes, source.key
        self.image_range = () if source.image_range == _DEFAULT_RANGE else source.image_range

    def forward(self, z: Tensor, labels: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """Map latents [B, D], scaled by the truncation first, to outputs [B, ...], scaled to [-1, 1]."""
        output = self.inner(z * truncation) if labels is None else self.inner(z * truncation, labels)
        x = cast(Tensor, outputs.tensor(output, self.key))
        if not self.image_range:
            return x
        low, high = self.image_range
        return (x - low) * (2 / (high - low)) - 1


def from_factory(factory: str, *, reference: str = "", **settings: Any) -> CustomModule:
    """Call a factory, whose code is run, and check what it makes; settings go before the module's attributes.

    Args:
        factory: "file.py:factory", "module:factory", or with arguments, "file.py:factory(64)".
        reference: what the user typed, flags included.
        **settings: `latent_dim`, `prior`, `image_range`, `key`.

    Raises:
        ArtifactError: there is no such factory, its code fails, or it makes no module.
        GeneratorError: the module has no latent_dim, or does not map [B, D] to finite floating numbers [B, ...] of one
            shape; an attribute is outside its range; images are of other intensities than is assumed.
    """
    module = call_factory(factory)
    name = references.factory(factory).name
    source = _described(module, name, factory, reference or factory, **settings)
    stated = _states_range(module, settings)
    try:
        return _seen(source, stated=stated)
    except GeneratorError:  # a copy can fail where the module does not: a patched forward still calls the original
        return _seen(dataclasses.replace(source, module=None), stated=stated)


def from_module(module: nn.Module, **settings: Any) -> CustomModule:
    """Check a copy of a module that is passed from Python; settings and errors as for `from_factory`."""
    name = type(module).__name__
    check_weights(name, module)
    return _seen(_described(module, name, "", name, **settings), stated=_states_range(module, settings))


def build(source: CustomModule) -> CustomNetwork:
    """Return the network of a user's own module, in eval mode; a factory that is called again has to make the same."""
    network = CustomNetwork(_fresh(source), source).eval()
    for weight in network.parameters():  # one by one: TorchScript has no requires_grad_
        weight.requires_grad_(False)
    return network


def _fresh(source: CustomModule) -> nn.Module:
    """Return a module as the factory made it, for the caller to cast and move."""
    if source.module is None:
        module = call_factory(source.factory)
        if _sha256(state_sha256(module), source.key) != source.sha256:
            message = f"{source.factory} makes other weights at each call, so that no volume could belong to it"
            hint = "load the weights from a file in it, or set a seed first: torch.manual_seed(0)"
            raise GeneratorError(message, hint)
        return module
    try:
        with torch.no_grad():  # copies of TorchScript's weights would have a history
            return copy.deepcopy(source.module)
    except Exception as error:  # whatever the user's classes raise
        message = f"{source.name} cannot be copied: {' '.join(str(error).split())[:200]}"
        raise GeneratorError(message, "pass a factory, file.py:factory, which is called for each copy") from error


def _sha256(state: str, key: str) -> str:
    return documents.sha256_bytes(f"{state} {key}".encode()) if key else state


def _described(
    module: nn.Module,
    name: str,
    factory: str,
    reference: str,
    latent_dim: object = None,
    prior: str | None = None,
    image_range: _Range | None = None,
    key: str = "",
) -> CustomModule:
    title = factory or name
    own = _unwrapped(module)
    num_classes = _num_classes(title, getattr(own, "num_classes", 0))
    return CustomModule(
        name=name,
        factory=factory,
        reference=reference,
        sha256=_sha256(state_sha256(module), key),
        latent_dim=_latent_dim(title, getattr(own, "latent_dim", None) if latent_dim is None else latent_dim),
        prior=_prior(title, prior or getattr(own, "prior", PRIORS[0])),
        image_range=_range(title, image_range or getattr(own, "image_range", _DEFAULT_RANGE)),
        num_classes=num_classes,
        classes=_classes(title, getattr(own, "classes", ()), num_classes),
        key=key,
        module=module,
    )


def _unwrapped(module: nn.Module) -> nn.Module:
    """Return the module that has the user's attributes, also where it was made parallel."""
    return cast(nn.Module, module.module) if isinstance(module, nn.DataParallel) else module


def _states_range(module: nn.Module, settings: dict[str, Any]) -> bool:
    return bool(settings.get("image_range") or hasattr(_unwrapped(module), "image_range"))


def _whole(value: object) -> int | None:
    """Return a whole number, also one of numpy's; None for anything else."""
    try:
        return None if isinstance(value, bool) else operator.index(cast(Any, value))
    except TypeError:
        return None


def _latent_dim(title: str, value: object) -> int:
    hint = "set module.latent_dim = D, or pass `latent_dim=D`"
    if value is None:
        raise GeneratorError(f"{title} does not say how many numbers a latent has: its module has no latent_dim", hint)
    if (size := _whole(value)) is None or size < 1:
        raise GeneratorError(f"latent_dim of {title} is {value!r}, and a whole number above 0 is asked for", hint)
    return size


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
    if (count := _whole(value)) is None or count < 0:
        message = f"num_classes of {title} is {value!r}, and a whole number is asked for"
        raise GeneratorError(message, "set module.num_classes to the number of labels, or 0 where it takes none")
    return count


def _classes(title: str, value: object, num_classes: int) -> tuple[str, ...]:
    if not num_classes or not isinstance(value, list | tuple) or not value:
        return ()
    names = tuple(map(str, value))
    if len(set(names)) != num_classes or len(names) != num_classes:
        message = f"classes of {title} has {len(set(names))} different names, and num_classes is {num_classes}"
        raise GeneratorError(message, "set module.classes to a name for each label, in their order")
    return names


def _seen(source: CustomModule, *, stated: bool) -> CustomModule:
    """Return a source with what is seen in its outputs, by calls with fixed latents in both precisions.

    Every volume's solver is compared with float64. `stated` tells whether the user says the range of intensities.
    """
    source, images = _outputs(source, torch.float64, _ROWS)
    rows = max(_ROWS, min(_NUMBERS // images[0].numel(), 64))
    source, images = _outputs(source, torch.float32, rows)
    if outputs.is_image_shape(source.image_shape):
        outputs.check_range(source.factory or source.name, images, source.image_range, stated=stated)
    return dataclasses.replace(source, intensities=(images.min().item(), images.max().item()))


def _outputs(source: CustomModule, precision: torch.dtype, rows: int) -> tuple[CustomModule, Tensor]:
    """Return a source with the shape and the key of its outputs, and the outputs [rows, ...]."""
    title = source.factory or source.name
    latents, _ = Prior(source.prior, source.latent_dim).draw(rows, seed=0)
    z = torch.from_numpy(latents).to(precision)
    labels = [torch.arange(rows, device="cpu") % source.num_classes] if source.num_classes else []
    inputs = f"[{rows}, {source.latent_dim}] {str(precision).removeprefix('torch.')}"
    inputs += f" and labels [{rows}] int64" * bool(labels)
    module = _fresh(source).to("cpu", precision).eval()
    _check_settled(title, module)
    try:
        with torch.no_grad():
            output = module(z, *labels)
    except Exception as error:  # whatever the user's code raises
        raise GeneratorError(f"{title} fails on latents {inputs}: {told(error)}", _remedy(module, z, labels)) from error
    if not isinstance(output, Tensor):
        source, output = _picked(source, output, f"{title} maps latents {inputs} to a")
    hint = "return the images alone, one floating tensor [B, C, H, W] (or [B, ...]), before they are rounded"
    if not outputs.is_floating_rows(output, rows):
        raise GeneratorError(f"{title} maps latents {inputs} to {output.dtype} of shape {list(output.shape)}", hint)
    if not output.isfinite().all():
        message = f"{title} maps latents {inputs} to values that are not finite"
        raise GeneratorError(message, "check its weights, and that they are loaded")
    return dataclasses.replace(source, image_shape=tuple(output.shape[1:])), output


def _check_settled(title: str, module: nn.Module) -> None:
    """Refuse a module in eval mode whose layers still use the batch."""
    for name, layer in module.named_modules():
        if not isinstance(layer, nn.modules.batchnorm._BatchNorm):  # their one base class
            continue
        why = "has no running statistics" if layer.running_mean is None else "stays in training mode after eval()"
        if layer.running_mean is None or layer.training:
            message = f"{title} gives other images for a latent in another batch: its layer {name} "
            message += f"({type(layer).__name__}) {why}"
            raise GeneratorError(message, "train it with track_running_stats=True, and let eval() reach it")


def _remedy(module: nn.Module, z: Tensor, labels: list[Tensor]) -> str:
    """Return what to do about a call that fails; networks of convolutions often take latents [B, D, 1, 1]."""
    try:
        with torch.no_grad():
            module(z[:, :, None, None], *labels)
    except Exception:  # whatever the user's code raises
        hint = "is latent_dim right? Constants follow z with dtype=z.dtype; with num_classes > 0, it is called "
        return hint + "forward(z, labels), labels [B] int64"
    return f"it takes latents [B, {z.shape[1]}, 1, 1]: begin its forward with z = z[:, :, None, None]"


def _picked(source: CustomModule, output: object, maps: str) -> tuple[CustomModule, Tensor]:
    """Return a source with the key of the tensor in an output, and the tensor."""
    key = source.key or outputs.key_of(output)
    tensor = outputs.tensor(output, key) if key else None
    if tensor is None or not key:
        asked = f", without the key {source.key!r}" if source.key else ""
        message = f"{maps} {outputs.described(output)}{asked}, and one tensor is asked for"
        raise GeneratorError(message, "pass `key` with the one that holds the images, or return these alone")
    sha256 = source.sha256 if source.key else _sha256(source.sha256, key)
    return dataclasses.replace(source, key=key, sha256=sha256), tensor
