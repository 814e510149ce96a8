"""Flags shared by commands, alone and in groups: one meaning and one help text each."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from magnet_cli.cli import completion, parsers
from magnet_cli.cli.console import Console
from magnet_cli.cli.flags import flatten, plain, request  # noqa: F401  # commands take them from here
from magnet_cli.cli.help import CUSTOM, OUTPUT, WORK
from magnet_cli.cli.parsers import ClassLabel

ImageFormat = StrEnum("ImageFormat", "png jpg webp")
RenderFormat = StrEnum("RenderFormat", "png jpg webp npy")
Precision = StrEnum("Precision", "auto float64 float32 tf32 bfloat16")
Solver = StrEnum("Solver", "auto exact sketch pilot projection")
SpaceName = StrEnum("SpaceName", "z w")
Engine = StrEnum("Engine", "local ray")
NvaeLatents = StrEnum("NvaeLatents", "top all")
Shares = StrEnum("Shares", "natural equal")
Method = StrEnum("Method", "reweight tempered")


class PriorName(StrEnum):
    """Distribution of the latents of a user's own generator."""

    normal = "normal"
    sphere = "sphere"
    fixed_length = "fixed-length"
    truncated_normal = "truncated-normal"
    uniform = "uniform"


class Pick(StrEnum):
    """Figure that chooses the best point of a sweep."""

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


GENERATOR_HELP = "Name of a generator (`magnet list`), path of a checkpoint, or your own code: file.py:factory."

Generator = Annotated[
    str,
    typer.Argument(metavar="GENERATOR", help=GENERATOR_HELP, show_default=True, autocompletion=completion.generators),
]
Family = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Family of a checkpoint that holds networks of several (`magnet list --families`).",
        show_default="as the weights tell",
    ),
]
TopK = Annotated[
    int | None,
    typer.Option(min=1, help="Number of leading singular values used.", show_default="min(K, 30); all if D <= 32"),
]
Truncation = Annotated[
    float,
    typer.Option(
        callback=parsers.truncation,
        help="ψ in (0, 1]; 1 is no truncation. StyleGANs move w towards its mean, DCGANs and BigGANs scale z.",
    ),
]
BnTruncation = Annotated[
    float | None,
    typer.Option(
        callback=parsers.truncation,
        help="BigGAN: ψ of the batch-norm statistics; MaGNET used 1.",
        show_default="as --truncation",
    ),
]
Space = Annotated[
    SpaceName,
    typer.Option(help="Input of the Jacobian: z, or w = M(z); w weights draws of z and is never uniform."),
]
Nvae = Annotated[
    NvaeLatents | None,
    typer.Option("--nvae-latents", help="NVAE: z is the noise of the top group, or of all.", show_default="top"),
]
LatentDim = Annotated[int | None, typer.Option(min=1, help="Length of a latent.", show_default="as the module says")]
Prior = Annotated[
    PriorName | None,
    typer.Option(
        help="N(0, I); N(0, I) within 2 of 0; the sphere, if z is normalised; |z| = √D, if it is not; or U[-1, 1].",
        show_default="as the module says",
    ),
]
ImageRange = Annotated[
    tuple | None,
    typer.Option(
        parser=parsers.bounds,
        metavar="LO,HI",
        help="Lowest and highest intensity of its images.",
        show_default="as the module says",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Which part of what it returns are the images, where that is a dict, a tuple or an object.",
        show_default="the only one, or sample",
    ),
]
Label = Annotated[
    list[ClassLabel] | None,
    typer.Option(
        "--label",
        parser=parsers.class_label,
        metavar="CLASS",
        help="Class of a conditional generator: its number or ImageNet name; repeatable.",
        show_default="all in turn",
    ),
]
Output = Annotated[
    str,
    typer.Option(metavar="NAME", help="Output of the Jacobian: pixel, style, affine, or an image model."),
]
AnySolver = Annotated[Solver | None, typer.Option("--solver", help="Only a volume of this solver.", show_default="any")]
AnyPrecision = Annotated[
    Precision | None, typer.Option("--precision", help="Only a volume of this precision.", show_default="any")
]
Rho = Annotated[
    float,
    typer.Option(callback=parsers.rho, help="Polarity: <0 modes, 0 the generator, 1 MaGNET, >0 anti-modes."),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the random numbers.")]
VolumePath = Annotated[
    Path | None,
    typer.Option(
        "--volume",
        metavar="PATH",
        help="The volume's folder.",
        show_default=False,
        autocompletion=completion.volume_paths,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        envvar="MAGNET_DEVICE", callback=parsers.device, help="cpu, cuda, cuda:N or mps.", show_default="cuda if any"
    ),
]
Devices = Annotated[
    str | None,
    typer.Option(
        "--device",
        envvar="MAGNET_DEVICE",
        callback=parsers.devices,
        help="cpu, cuda, cuda:N or mps; cuda:0,cuda:1 or all: one worker each.",
        show_default="cuda if any",
    ),
]
BatchSize = Annotated[
    int | None, typer.Option(min=1, help="Number of latents at a time.", show_default="by generator size")
]
NoImages = Annotated[
    bool, typer.Option("--no-images", help="Write only the latents; needs neither the generator nor torch.")
]
Trust = Annotated[bool, typer.Option("--trust", help="Run the code in a TorchScript file that you name.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is already there.", rich_help_panel=OUTPUT)]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.", rich_help_panel=OUTPUT)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, notes or hints.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


@dataclass(frozen=True, kw_only=True)
class CustomFlags:
    """What a generator of the user's own code may not say itself."""

    PANEL: ClassVar = CUSTOM
    latent_dim: LatentDim = None
    prior: Prior = None
    image_range: ImageRange = None
    key: Key = None


@dataclass(frozen=True, kw_only=True)
class GeneratorFlags(CustomFlags):
    """Which generator."""

    generator: Generator = "mnist"
    family: Family = None


@dataclass(frozen=True, kw_only=True)
class FunctionFlags:
    """Which function of the latent: its input, the generator's settings, the classes."""

    PANEL: ClassVar = "Function of the latent"
    truncation: Truncation = 1.0
    bn_truncation: BnTruncation = None
    space: Space = SpaceName.z
    output: Output = "pixel"
    label: Label = None
    nvae_latents: Nvae = None


@dataclass(frozen=True, kw_only=True)
class VolumeFlags(FunctionFlags):
    """Which volume and index: the volume of a function, of any solver and precision or of one."""

    PANEL: ClassVar = "Which volume"
    volume: VolumePath = None
    top_k: TopK = None
    solver: AnySolver = None
    precision: AnyPrecision = None


@dataclass(frozen=True, kw_only=True)
class WorkFlags:
    """How the work is done, which changes no result."""

    PANEL: ClassVar = WORK
    device: Device = None
    batch_size: BatchSize = None


@dataclass(frozen=True, kw_only=True)
class OutputFlags:
    """What is printed."""

    PANEL: ClassVar = OUTPUT
    quiet: Quiet = False
    json: Json = False

    @property
    def console(self) -> Console:
        """The console of a command that was called with these flags."""
        return Console(as_json=self.json, quiet=self.quiet)
