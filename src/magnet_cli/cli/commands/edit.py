"""magnet edit."""

import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_cli.cli import console as console_
from magnet_cli.cli import options
from magnet_cli.cli.commands.render import Labels

if TYPE_CHECKING:
    import numpy as np

    from magnet_cli.editing.direction import Direction
    from magnet_cli.models.image_models import ImageScorer

DirectionFile = Annotated[
    Path,
    typer.Option(
        "--direction", metavar="FILE.npy", help="Of `magnet direction`, or a boundary as InterFaceGAN has it."
    ),
]
Latents = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.npy", help="[n, D] floating numbers of the space; its first --n.", show_default="drawn by --seed"
    ),
]
N = Annotated[int, typer.Option("--n", min=1, help="Latents, a row of images each.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Of drawn latents.", show_default="0")]
From = Annotated[
    float, typer.Option("--from", help="How far a latent is moved at the first step, in units of the space.")
]
To = Annotated[float, typer.Option("--to", help="And at the last.")]
Steps = Annotated[int, typer.Option(min=2, max=1000, help="Images a row.")]
Space = Annotated[
    options.SpaceName | None, typer.Option(help="Of the direction: z, or w.", show_default="as the direction says; z")
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="NAME", help="Image model that scores each image, as for attributes; repeatable."),
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="The folder.", show_default="edits/<generator>-<direction>-seed<seed>"),
]


def run(
    generator: options.Generator = "mnist",
    direction: DirectionFile = ...,
    latents: Latents = None,
    labels: Labels = None,
    n: N = 8,
    seed: Seed = None,
    from_: From = -3.0,
    to: To = 3.0,
    steps: Steps = 7,
    space: Space = None,
    model: Models = None,
    truncation: options.Truncation = 1.0,
    label: options.Label = None,
    latent_dim: options.LatentDim = None,
    prior: options.Prior = None,
    image_range: options.ImageRange = None,
    out: Out = None,
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    trust: options.Trust = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Move latents along a direction and render each step.

    A row of images a latent: z + a · direction for a from --from to --to, even steps; 0 is the latent itself. With
    --space w latents that are drawn are mapped to w first, and moved there. With --model the mean probability of each
    class is said at each step; those of each image are in scores.npz and metadata.jsonl. Stop at any time: the same
    command goes on from there. Prints the folder: images, latents.npy, metadata.jsonl, edit.json, and grid.png, a line
    a latent.

    \b
    Examples:
      magnet edit mnist --direction one.npy
      magnet edit mnist --direction one.npy --seed 3 --n 4 --from 0 --to 6 --steps 9 --model digits --out ones --json
    """
    _check_flags(latents, labels, seed, label, from_, to)
    from magnet_cli import models
    from magnet_cli.cli import lookup
    from magnet_cli.editing import direction as direction_
    from magnet_cli.editing import edit
    from magnet_cli.editing.kinds import EDIT
    from magnet_cli.files import documents, npy
    from magnet_cli.files.results import ResultFolder
    from magnet_cli.models import image_models

    start = time.monotonic()
    console = console_.Console(as_json=json, quiet=quiet)
    learned = direction_.read(direction.expanduser())
    rows = npy.latents(latents) if latents else None
    here = device or models.default_device()
    judges = [image_models.load_scorer(name, here, trust=trust) for name in dict.fromkeys(model or ())]
    checkpoint = lookup.source(generator, latent_dim=latent_dim, prior=options.plain(prior), image_range=image_range)
    known = learned.fields.get("spec", {})
    spec = edit.EditSpec(
        generator=checkpoint.name,
        sha256=checkpoint.sha256,
        direction=learned.sha256,
        n=n if rows is None else min(n, len(rows)),
        from_=from_,
        to=to,
        steps=steps,
        latents=documents.sha256_file(latents) if latents else "",
        labels=documents.sha256_file(labels) if labels else "",
        seed=seed or 0,
        space=options.plain(space) or known.get("space", "z"),
        truncation=truncation,
        label=options.numbers(label),
        models=tuple(judge.key for judge in judges),
    )
    if known.get("sha256") and known["sha256"] != spec.sha256:
        console.warning(f"{direction} was learned on {known['generator']}, and moves latents of {spec.generator} here")
    folder = out or edit.default_out(spec, direction.stem, latents)
    if not force and (done := ResultFolder(folder, EDIT).finished(spec)):
        console.note(f"{folder} already holds this edit")
        console.result(done, str(folder))
        return
    loaded = models.load(checkpoint, device=here)
    options.check_names(label, loaded.name, loaded.num_classes)
    edit.check(loaded, spec, learned)
    if rows is None:
        rows, classes = edit.drawn(loaded, spec)
    else:
        edit.check_latents(loaded, spec, rows, labelled=labels is not None)
        classes = npy.labels(labels, len(rows), loaded.num_classes)[: spec.n] if labels else None
    if force:
        ResultFolder(folder, EDIT).discard()
    places = edit.moved(loaded, spec, learned.vector, rows, classes)
    console.follow_images(edit.fill(folder, spec, loaded, places, classes, batch_size), len(places), folder)
    said = {judge.name: _scores(console, folder, judge, len(places)) for judge in judges}
    report = {"edit": str(folder), "n": spec.n, "steps": steps, "images": len(places), "generator": spec.generator}
    report |= {"direction": str(direction), "space": spec.space, "moved": edit.offsets(spec).tolist()}
    report |= {"scores": edit.along(spec, said), "seconds": round(time.monotonic() - start, 3)}
    edit.finish(folder, spec, places, classes, said, _words(learned, direction), ["magnet", *sys.argv[1:]], report)
    _tell(console, report)
    console.result(report, str(folder))
    console.note(f"look at {folder / 'grid.png'}")


def _check_flags(
    latents: Path | None, labels: Path | None, seed: int | None, label: list | None, from_: float, to: float
) -> None:
    """Refuse flags that contradict each other."""
    wrong = {
        "--seed": (latents and seed is not None, "it is of latents that are drawn, and --latents are given."),
        "--label": (latents and label, "it is of latents that are drawn, and --latents are given; pass --labels FILE."),
        "--labels": (labels and not latents, "they are of --latents; for latents that are drawn pass --label."),
        "--from": (not math.isfinite(from_), "it is not a finite number."),
        "--to": (not math.isfinite(to) or from_ == to, "it is not a finite number other than --from."),
    }
    for flag, (is_wrong, message) in wrong.items():
        if is_wrong:
            raise typer.BadParameter(message, param_hint=flag)


def _words(learned: "Direction", path: Path) -> str:
    return learned.fields.get("report", {}).get("words") or path.stem


def _scores(
    console: console_.Console, folder: Path, judge: "ImageScorer", count: int
) -> "tuple[tuple[str, ...], np.ndarray]":
    """A model's classes, and the probabilities [count, C] of the images."""
    from magnet_cli.editing import edit
    from magnet_cli.models import kept_outputs

    with console.progress(judge.name, count, "images") as advance:
        found = kept_outputs.concatenated(edit.look(folder, judge), advance).values
    return judge.classes(found.shape[1]), found


def _tell(console: console_.Console, report: dict) -> None:
    """Mean scores along the rows."""
    header = ["mean probability", "of", *(f"{moved:+g}" for moved in report["moved"])]
    rows = [
        [model, name, *(f"{value:.3f}" for value in means)]
        for model, classes in report["scores"].items()
        for name, means in classes.items()
    ]
    if rows:
        console.note_table(header, rows)
