"""Flags of the commands that start from scored latents."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from magnet_cli.cli import completion, options


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if "" in names:
        raise typer.BadParameter(f"{text!r} is not a list of names, as gender,age.")
    return names


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name or not value:
        raise typer.BadParameter(f"{text!r} is not ATTRIBUTE=CLASS, as age=40-49.")
    return name, value


def _share_or_file(text: str) -> tuple[str, float] | Path:
    if text.endswith((".toml", ".json")):
        return Path(text).expanduser()
    name, _, value = text.rpartition("=")
    try:
        share = float(value)
    except ValueError:
        share = math.nan
    if not name or not 0 <= share <= 1:
        raise typer.BadParameter(f"{text!r} is neither ATTRIBUTE=SHARE, as gender=0.3, nor a .toml or .json file.")
    return name, share


def _confidence(value: float | None) -> float | None:
    if value is not None and not 0 <= value < 1:
        raise typer.BadParameter(f"{value} is not in the range 0<=x<1.")
    return value


Source = Annotated[
    Path,
    typer.Argument(
        metavar="SAMPLE",
        help="Folder of `magnet attributes GENERATOR`, a sample that it was run on, or latents.npy with --scores.",
    ),
]
Scores = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Scores of latents in a file: .npy (a dictionary, as published), .npz, .csv or .jsonl.",
        show_default=False,
    ),
]
Attributes = Annotated[
    tuple | None,
    typer.Option(
        parser=_names, metavar="NAMES", help="Attributes to balance, separated by commas.", show_default="all"
    ),
]
Confidence = Annotated[
    float | None,
    typer.Option(
        callback=_confidence,
        help="Keep latents whose every attribute has a probability above t: p > t or p < 1 - t. 0 keeps all.",
        show_default="0.9",
    ),
]
Cut = Annotated[
    list[tuple] | None,
    typer.Option(
        parser=_pair,
        metavar="NAME=CLASS",
        help="Cut an attribute into two classes: before CLASS, and from it on; repeatable.",
        show_default=False,
    ),
]
Shares = Annotated[
    list[tuple] | None,
    typer.Option(
        "--target",
        parser=_share_or_file,
        metavar="NAME=SHARE",
        help="Share of the second class, NAME:CLASS=SHARE of any class, or a .toml or .json file; repeatable.",
        show_default="equal",
    ),
]
Even = Annotated[
    bool | None,
    typer.Option(
        "--even/--random",
        help="Combinations take turns, so that shares are even at any n; or each is drawn at random, as published.",
        show_default="balance: even, direction: random",
    ),
]
AllowUnbalanced = Annotated[
    bool,
    typer.Option("--allow-unbalanced", help="Continue where a combination has run out, and report how far."),
]
OfGenerator = Annotated[
    str | None,
    typer.Option(
        "--generator",
        metavar="GENERATOR",
        help="Generator of the latents.",
        show_default="as SAMPLE says",
        autocompletion=completion.generators,
    ),
]


@dataclass(frozen=True, kw_only=True)
class ScoredFlags(options.CustomFlags):
    """Which scored latents, and how they are balanced."""

    PANEL: ClassVar = "Which latents"
    confidence: Confidence = None
    cut: Cut = None
    target: Shares = None
    even: Even = None
    allow_unbalanced: AllowUnbalanced = False
    scores: Scores = None
    seed: options.Seed = 0
    generator: OfGenerator = None
