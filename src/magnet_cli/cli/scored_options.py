"""Flags of the commands that start from scored latents, and what they say together.

Owns their types and the way from them to `scored` and `balance`. Knows nothing of samples or directions.
"""

import json
import math
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_cli.cli.console import Console
from magnet_cli.errors import ArtifactError, GeneratorError, SpecError

if TYPE_CHECKING:
    from magnet_cli.editing.balance import Table, Target
    from magnet_cli.editing.scored import Attribute, Scored
    from magnet_cli.models import Generator

CONFIDENCE = 0.9
_MOST_LINES = 32  # of a table on stderr


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if "" in names:
        message = f"{text!r} is not a list of names, as gender,age."
        raise typer.BadParameter(message)
    return names


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name or not value:
        message = f"{text!r} is not ATTRIBUTE=CLASS, as age=40-49."
        raise typer.BadParameter(message)
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
        message = f"{text!r} is neither ATTRIBUTE=SHARE, as gender=0.3, nor a .toml or .json file."
        raise typer.BadParameter(message)
    return name, share


def _confidence(value: float | None) -> float | None:
    if value is not None and not 0 <= value < 1:
        message = f"{value} is not in the range 0<=x<1."
        raise typer.BadParameter(message)
    return value


Source = Annotated[
    Path,
    typer.Argument(
        metavar="SAMPLE",
        help="Folder of `magnet attributes GENERATOR`, a sample it was run on, or latents.npy with --scores.",
    ),
]
Scores = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Of latents in a file: their scores, .npy (a dictionary, as published), .npz, .csv or .jsonl.",
    ),
]
Attributes = Annotated[
    tuple | None,
    typer.Option(parser=_names, metavar="NAMES", help="To balance, commas between.", show_default="all there are"),
]
Confidence = Annotated[
    float | None,
    typer.Option(
        callback=_confidence,
        help="Latents are kept whose every attribute is surer; a score p where p > t or p < 1 - t. 0 keeps all.",
        show_default=str(CONFIDENCE),
    ),
]
Cut = Annotated[
    list[tuple] | None,
    typer.Option(
        parser=_pair,
        metavar="NAME=CLASS",
        help="Two classes of many: those before this one, and from it on; repeatable.",
    ),
]
Shares = Annotated[
    list[tuple] | None,
    typer.Option(
        "--target",
        parser=_share_or_file,
        metavar="NAME=SHARE",
        help="Share of the second class (NAME:CLASS=SHARE of any), or a .toml or .json table of them; repeatable.",
        show_default="equal",
    ),
]
Even = Annotated[
    bool,
    typer.Option("--even", help="Combinations take turns, their shares right to a few latents; else each is drawn."),
]
OfGenerator = Annotated[
    str | None,
    typer.Option("--generator", metavar="GENERATOR", help="That the latents are of.", show_default="as SAMPLE says"),
]


def target(attributes: "tuple[Attribute, ...]", given: list[tuple[str, float] | Path] | None) -> "Target":
    """The shares that --target asks for.

    Raises:
        SpecError: as `balance.target`, or a file holds something else than shares.
        MagnetError: a file cannot be read.
    """
    from magnet_cli.editing import balance

    asked: dict[str, float | dict[str, float]] = {}
    known = {each.name for each in attributes}
    for each in given or ():
        if isinstance(each, Path):
            asked |= _table(each)
            continue
        name, share = each
        whose, _, value = name.rpartition(":")
        if name in known or not whose:
            asked[name] = share
        else:
            held = asked.setdefault(whose, {})
            asked[whose] = (held if isinstance(held, dict) else {}) | {value: share}
    return balance.target(attributes, asked)


def _table(path: Path) -> dict[str, float | dict[str, float]]:
    from magnet_cli.files import atomic

    hint = 'a share an attribute, as gender = 0.3, or a table of classes, as age = {"0-9" = 0.1}'
    with atomic.explained("read", path):
        data = path.read_bytes()
    try:
        found = tomllib.loads(data.decode()) if path.suffix == ".toml" else json.loads(data)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"{path} cannot be read: {' '.join(str(error).split())}"
        raise SpecError(message, hint) from error
    flat = found.values() if isinstance(found, dict) else [None]
    for value in flat:
        inner = value.values() if isinstance(value, dict) else [value]
        if not all(type(share) in {int, float} for share in inner):
            message = f"{path} holds {value!r}, and shares are asked for"
            raise SpecError(message, hint)
    return found


def words(asked: "Target", attributes: "tuple[Attribute, ...]") -> tuple[str, ...]:
    """A target as a spec has it."""
    pairs = ((each, zip(each.classes, asked[each.name].tolist(), strict=True)) for each in attributes)
    return tuple(f"{each.name}:{name}={share:.12g}" for each, shares in pairs for name, share in shares)


def cut_words(cut: list[tuple[str, str]] | None) -> tuple[str, ...]:
    """Cuts as a spec has them."""
    return tuple(f"{name}={value}" for name, value in sorted(cut or ()))


def load_generator(found: "Scored", typed: str | None, device: str | None) -> "Generator":
    """The generator that scored latents are of: the one that was typed, else the one their source names.

    Raises:
        ArtifactError: there is none of that name, or not here.
        GeneratorError: it is another one, or takes other latents.
    """
    from magnet_cli import models
    from magnet_cli.catalog.checkpoint import Checkpoint
    from magnet_cli.cli import lookup

    try:
        checkpoint = lookup.source(typed) if typed else Checkpoint.find(found.generator)
    except ArtifactError as error:
        if typed or (error.hint and "magnet fetch" in error.hint):
            raise
        message = f"{found.path} is of the generator {found.generator}, and {error.message}"
        raise ArtifactError(message, "pass it: --generator PATH, or file.py:factory") from error
    if found.sha256 and checkpoint.sha256 != found.sha256:
        message = f"{found.path} is of {found.generator} (sha256 {found.sha256[:12]}…), and "
        message += f"{checkpoint.name} ({checkpoint.sha256[:12]}…) is given"
        raise GeneratorError(message, "pass the generator it was made with: --generator")
    loaded = models.load(checkpoint, device=device or models.default_device())
    if found.latents.shape[1] != loaded.latent_dim:
        message = f"{found.path} has latents of {found.latents.shape[1]} numbers, and {loaded.name} takes others: "
        message += f"{loaded.latent_dim}"
        raise GeneratorError(message, "pass the generator they are of: --generator")
    if loaded.num_classes and found.labels is None:
        message = f"{loaded.name} takes labels, and {found.path} has none"
        raise GeneratorError(message, "pass a folder of `magnet attributes`, which has; or --no-images")
    return loaded


def tell(console: Console, table: "Table", num_rows: int, drawn: "list[int] | None" = None) -> None:
    """The contingency table, in words."""
    import numpy as np

    console.note(f"{table.kept:,} of {num_rows:,} latents are surer than {table.confidence:g} of every attribute")
    cells = np.argsort(table.counts, kind="stable")[:_MOST_LINES]
    header = [each.name for each in table.attributes] + ["latents", "target"] + ["drawn"] * bool(drawn)
    rows = []
    for cell in sorted(cells.tolist()):
        numbers = [f"{table.counts[cell]:,}", f"{table.target[cell]:.4f}"]
        rows.append([*table.classes(cell).values(), *numbers, *([f"{drawn[cell]:,}"] if drawn else [])])
    console.note_table(header, rows)
    if len(table.counts) > len(rows):
        console.note(f"these are the {len(rows)} rarest of {len(table.counts):,} combinations")
