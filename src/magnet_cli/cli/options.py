"""Flags shared by commands: one meaning and one help text each.

Owns their types and the checks that need nothing but the value. Knows nothing of what commands do with them.
"""

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from magnet_cli.errors import SpecError


class ImageFormat(StrEnum):
    """Of a file that holds one image."""

    png = "png"
    jpg = "jpg"
    webp = "webp"


class RenderFormat(StrEnum):
    """Of files of images, or of one array."""

    png = "png"
    jpg = "jpg"
    webp = "webp"
    npy = "npy"


class Precision(StrEnum):
    """Arithmetic of the network's products."""

    auto = "auto"
    float64 = "float64"
    float32 = "float32"
    tf32 = "tf32"
    bfloat16 = "bfloat16"


class SpaceName(StrEnum):
    """Where the Jacobian's input lives."""

    z = "z"
    w = "w"


class Engine(StrEnum):
    """What runs the work on shards."""

    local = "local"
    ray = "ray"


class NvaeLatents(StrEnum):
    """The groups of an NVAE whose noise is the latent."""

    top = "top"
    all = "all"


class PriorName(StrEnum):
    """The distribution of the latents of a user's own generator."""

    normal = "normal"
    sphere = "sphere"
    truncated_normal = "truncated-normal"
    uniform = "uniform"


class Shares(StrEnum):
    """How many draws each class of a conditional generator has."""

    natural = "natural"
    equal = "equal"


class Pick(StrEnum):
    """What chooses the best point of a sweep."""

    fid = "fid"
    kid = "kid"
    precision = "precision"
    recall = "recall"
    density = "density"
    coverage = "coverage"
    diversity = "diversity"
    gap = "gap"
    total_variation = "total-variation"
    none = "none"


class Method(StrEnum):
    """How latents are drawn."""

    reweight = "reweight"
    tempered = "tempered"


class Solver(StrEnum):
    """How singular values are computed."""

    auto = "auto"
    exact = "exact"
    sketch = "sketch"
    pilot = "pilot"
    projection = "projection"


@dataclass(frozen=True)
class ClassLabel:
    """A class as the command line names it.

    Attributes:
        number: of the class.
        name: its ImageNet name, where that was given.
    """

    number: int
    name: str = ""


def class_label(text: str) -> ClassLabel:
    """A class, from its number or its ImageNet name; or a usage error."""
    from magnet_cli.catalog import imagenet

    if re.fullmatch(r"-?\d+", text):
        if int(text) < 0:
            message = f"{text} is not the number of a class."
            raise typer.BadParameter(message)
        return ClassLabel(int(text))
    try:
        return ClassLabel(imagenet.number(text), text)
    except SpecError as error:
        message = f"{error.message}; {error.hint}"
        raise typer.BadParameter(message) from error


def numbers(label: list[ClassLabel] | None) -> tuple[int, ...]:
    """The classes' numbers, in their order."""
    return tuple(each.number for each in label or ())


def check_names(label: list[ClassLabel] | None, generator: str, num_classes: int) -> None:
    """Whether names are those of the generator's classes.

    Raises:
        SpecError: a class is named, and the generator's are not those of ImageNet.
    """
    from magnet_cli.catalog import imagenet

    named = [each.name for each in label or () if each.name]
    if named and num_classes not in {0, imagenet.COUNT}:
        message = f"{named[0]!r} is a class of ImageNet, and {generator} has {num_classes} classes of its own"
        raise SpecError(message, f"pass --label with a number, 0 to {num_classes - 1}")


def statistics(bn_truncation: float | None, truncation: float) -> float:
    """ψ of batch-norm statistics as a spec has it: 0 where it is that of z."""
    return 0.0 if bn_truncation in {None, truncation} else bn_truncation


def settings(bn_truncation: float | None, nvae_latents: str | None) -> tuple[tuple[str, object], ...]:
    """Settings of the generator that flags give: name and value."""
    given = {"bn_truncation": bn_truncation, "nvae_latents": nvae_latents}
    return tuple((name, value) for name, value in given.items() if value is not None)


def _device(value: str | None) -> str | None:
    kind, _, number = (value or "cpu").partition(":")
    if kind not in {"cpu", "cuda", "mps"} or (":" in (value or "") and not (kind == "cuda" and number.isdigit())):
        message = f"{value!r} is not a device; pass cpu, cuda, cuda:N or mps."
        raise typer.BadParameter(message)
    return value


def _devices(value: str | None) -> str | None:
    names = (value or "cpu").split(",")
    if len(names) == 1:
        return value if value == "all" else _device(value)
    if len(set(names)) < len(names) or not all(re.fullmatch(r"cuda:\d+", name) for name in names):
        message = f"{value!r} is not a list of different devices; pass all, or some as cuda:0,cuda:1."
        raise typer.BadParameter(message)
    return value


def part(text: str) -> tuple[int, int]:
    """(I, N) from "I/N", 1 ≤ I ≤ N; or a usage error."""
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        message = f"{text!r} is not a part I/N with 1 <= I <= N, as 3/8."
        raise typer.BadParameter(message)
    return int(found[1]), int(found[2])


def _truncation(value: float | None) -> float | None:
    if value is not None and not 0 < value <= 1:
        message = f"{value} is not in the range 0<x<=1; 1 is no truncation."
        raise typer.BadParameter(message)
    return value


def truncations(text: str) -> tuple[float, ...]:
    """Each ψ in (0, 1] of a list as "1,.7,.5"; or a usage error."""
    try:
        return tuple(_truncation(float(part)) for part in text.split(","))
    except ValueError as error:
        message = f"{text!r} is not a number, or several as 1,.7,.5."
        raise typer.BadParameter(message) from error


def rhos(text: str) -> tuple[float, ...]:
    """Each rho of a list as "-1,-.3,.3,1", and 0, ascending; or a usage error."""
    try:
        return tuple(sorted({0.0} | {_finite(float(part)) for part in text.split(",")}))
    except ValueError as error:
        message = f"{text!r} is not a number, or several as -1,-.3,.3,1."
        raise typer.BadParameter(message) from error


def _finite(value: float) -> float:
    if not math.isfinite(value):
        message = f"{value} is not a finite number."
        raise typer.BadParameter(message)
    return value


def chosen(value: Solver | Precision | None) -> str | None:
    """The name, or None where any will do."""
    return None if value == "auto" else plain(value)


def plain(value: StrEnum | None) -> str | None:
    """The name of a choice; None where there was none."""
    return None if value is None else value.value


def share(value: float | None) -> float | None:
    """A number between 0 and 1, neither of them, or a usage error."""
    if value is not None and not 0 < value < 1:
        message = f"{value} is not in the range 0<x<1."
        raise typer.BadParameter(message)
    return value


def positive(value: float) -> float:
    """A finite number above 0, or a usage error."""
    if not (math.isfinite(value) and value > 0):
        message = f"{value} is not a positive number."
        raise typer.BadParameter(message)
    return value


def size(text: str) -> int:
    """Bytes, from "512MiB", "2GB" or a plain number; or a usage error."""
    units = {"": 1, "b": 1} | {f"{u}b": 1000**i for i, u in enumerate("kmgt", 1)}
    units |= {f"{u}ib": 1024**i for i, u in enumerate("kmgt", 1)}
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if not found or found[2] not in units or float(found[1]) <= 0:
        message = f"{text!r} is not a number of bytes, as 512MiB or 2GB."
        raise typer.BadParameter(message)
    return int(float(found[1]) * units[found[2]])


def bounds(text: str) -> tuple[float, float]:
    """Two finite numbers, the lower first, from "LO,HI"; or a usage error."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        message = f"{text!r} is not a lower and a higher number, as 0,1."
        raise typer.BadParameter(message)
    return low, high


GENERATOR_HELP = "Name of a generator (`magnet list`), path of a checkpoint, or your own: file.py:factory."

Generator = Annotated[str, typer.Argument(metavar="GENERATOR", help=GENERATOR_HELP, show_default=True)]
TopK = Annotated[
    int | None, typer.Option(min=1, help="Leading singular values. Default: see above.", show_default=False)
]
Truncation = Annotated[
    float,
    typer.Option(
        callback=_truncation,
        help="ψ in (0, 1]; StyleGANs draw w to its mean by it, DCGANs and BigGANs scale z. 1 is none.",
    ),
]
BnTruncation = Annotated[
    float | None,
    typer.Option(
        callback=_truncation,
        help="BigGAN: ψ of the batch-norm statistics; 1 is what MaGNET did.",
        show_default="that of --truncation",
    ),
]
Space = Annotated[
    SpaceName, typer.Option(help="The Jacobian's input: z, or w at w = M(z); w weights draws of z, never uniformly.")
]
Nvae = Annotated[
    NvaeLatents | None,
    typer.Option("--nvae-latents", help="NVAE: z is the noise of the top group, or of all.", show_default="top"),
]
LatentDim = Annotated[
    int | None, typer.Option(min=1, help="Your own generator: numbers of a latent.", show_default="as its module says")
]
Prior = Annotated[
    PriorName | None,
    typer.Option(
        help="Your own generator: N(0, I), that within 2 of 0, the sphere where it normalises z, or U[-1, 1].",
        show_default="its module's",
    ),
]
ImageRange = Annotated[
    tuple | None,
    typer.Option(
        parser=bounds, metavar="LO,HI", help="Your own generator: intensities it gives.", show_default="its module's"
    ),
]
Label = Annotated[
    list[ClassLabel] | None,
    typer.Option(
        "--label",
        parser=class_label,
        metavar="CLASS",
        help="Class of a conditional generator, its number or an ImageNet name; repeatable.",
        show_default="all in turn",
    ),
]
Rho = Annotated[
    float, typer.Option(callback=_finite, help="Polarity: <0 modes, 0 the generator, 1 MaGNET, >0 anti-modes.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the random numbers.")]
VolumePath = Annotated[
    Path | None, typer.Option("--volume", metavar="PATH", help="The volume's folder.", show_default=False)
]
Device = Annotated[
    str | None,
    typer.Option(
        envvar="MAGNET_DEVICE", callback=_device, help="cpu, cuda, cuda:N or mps.", show_default="cuda if any"
    ),
]
Devices = Annotated[
    str | None,
    typer.Option(
        "--device",
        envvar="MAGNET_DEVICE",
        callback=_devices,
        help="cpu, cuda, cuda:N or mps; cuda:0,cuda:1 or all: a worker each.",
        show_default="cuda if any",
    ),
]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Latents at a time.", show_default="by generator size")]
Trust = Annotated[bool, typer.Option("--trust", help="Run the code in a TorchScript file that you name.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, notes or hints.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
