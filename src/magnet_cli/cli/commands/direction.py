"""magnet direction."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from magnet_cli.cli import completion, options, scored_options
from magnet_cli.cli.console import Console, command_line
from magnet_cli.cli.help import OUTPUT
from magnet_cli.files.text import quoted


class Method(StrEnum):
    """How a direction is learned."""

    centroid = "centroid"
    svm = "svm"


def _npy(value: Path | None) -> Path | None:
    if value is not None and value.suffix != ".npy":
        raise typer.BadParameter(f"{str(value)!r} is not the name of an NPY file; let it end in .npy.")
    return value


Attribute = Annotated[
    str,
    typer.Option(
        "--attribute", metavar="NAME", help="Attribute that changes along the direction; NAME=CLASS, towards a class."
    ),
]
N = Annotated[
    int | None,
    typer.Option("--n", "-n", min=2, help="Number of latents to learn from.", show_default="all that balance"),
]
HowLearned = Annotated[Method, typer.Option("--method", help="Difference of class means, or a linear SVM.")]
Space = Annotated[
    options.SpaceName,
    typer.Option(help="Space of the direction; for w, latents of a folder are mapped, those in a file are in w."),
]
Unbalanced = Annotated[bool, typer.Option("--unbalanced", help="Learn from latents as they come, for comparison.")]
Rescore = Annotated[
    bool, typer.Option("--rescore", help="Move new latents along all directions, and report how each score changes.")
]
Moved = Annotated[int, typer.Option(min=2, help="Number of latents moved.")]
From = Annotated[float, typer.Option("--from", help="Distance of the first end, in units of the space.")]
To = Annotated[float, typer.Option("--to", help="Distance of the second end.")]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        autocompletion=completion.image_models,
        metavar="NAME",
        help="Image model of an attribute, as NAME or ATTRIBUTE=NAME; repeatable.",
        show_default="the one of the attribute's name",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        callback=_npy,
        metavar="FILE.npy",
        help="File of the direction.",
        show_default="directions/<SAMPLE>-<attribute>.npy",
        rich_help_panel=OUTPUT,
    ),
]


@dataclass(frozen=True, kw_only=True)
class LearnFlags:
    """How the direction is learned."""

    PANEL: ClassVar = "Options"
    attribute: Attribute
    n: N = None
    attributes: scored_options.Attributes = None
    method: HowLearned = Method.centroid
    space: Space = options.SpaceName.z
    unbalanced: Unbalanced = False


@dataclass(frozen=True, kw_only=True)
class RescoreFlags:
    """How the direction is measured."""

    PANEL: ClassVar = "Re-scoring"
    rescore: Rescore = False
    moved: Moved = 256
    from_: From = -3.0
    to: To = 3.0
    model: Models = None
    trust: options.Trust = False


@dataclass(frozen=True, kw_only=True)
class OutputFlags(options.OutputFlags):
    """Where the direction goes."""

    out: Out = None
    force: options.Force = False


@options.flatten
def run(
    sample: scored_options.Source,
    learn: LearnFlags,
    scored: scored_options.ScoredFlags,
    rescoring: RescoreFlags,
    work: options.WorkFlags,
    output: OutputFlags,
) -> None:
    """Learn the latent direction along which an attribute changes.

    Learns from latents chosen as by `magnet balance`, so that the other attributes are equally frequent on both sides.
    A sample that `magnet balance` wrote is taken as it is. Writes a unit vector [1, D], as the tools of InterFaceGAN
    read it, and a JSON document with what it was learned from and its cosines to the directions of the other
    attributes. Prints the path.

    --rescore moves new latents from --from to --to along the direction of every attribute, balanced and not, and
    prints how much each score changes, with a 95 % interval over the latents.

    \b
    Examples:
      magnet direction scored --attribute digits=1 --out one.npy
      magnet direction scored --attribute digits=1 --unbalanced --json
      magnet direction scored --attribute digits --cut digits=5 --rescore --moved 16 --out high.npy
    """
    from magnet_cli.editing import learn_direction

    console = output.console
    request = options.request(learn_direction.DirectionRequest, learn, scored, rescoring, work, output, sample=sample)
    plan = learn_direction.plan(request, console)
    report = plan.done or console.follow(
        learn_direction.run(plan, command_line()),
        plan.spec.rescored,
        label="re-scoring",
        unit="latents",
        safe=lambda done: f"{done:,} of {plan.spec.rescored:,} latents are re-scored, and nothing is written",
    )
    if not plan.done:
        _describe(console, report)
    _show(console, report, plan.out)
    latents = plan.latents
    generator = quoted(request.generator) if request.generator else latents.reference or quoted(latents.generator)
    if generator and not plan.done:
        console.hint(f"magnet edit {generator} --direction {quoted(plan.out)}")


def _describe(console: Console, report: dict) -> None:
    kind, classes = "balanced" if report["balanced"] else "unbalanced", report["classes"]
    console.note(
        f"{report['words']}; {report['n']:,} latents, {kind}: {classes['towards']:,} of the class, "
        f"{classes['away']:,} of others; balanced up to n {report['largest_balanced_n']:,}"
    )
    for name, cosine in report["cosines"].items():
        console.note(f"cosine to the direction of {name}: {cosine:.4f}")


def _show(console: Console, report: dict, path: Path) -> None:
    """Print the path, or the table of re-scoring."""
    rescored = report["rescore"]
    if not rescored:
        console.result(report, str(path))
        return
    kinds = [kind for kind in ("balanced", "unbalanced") if rescored[kind]]
    scores = list(next(iter(rescored[kinds[0]].values())))
    rows = []
    for name in rescored[kinds[0]]:
        for kind in kinds:
            changes = (rescored[kind].get(name, {}).get(score) for score in scores)
            cells = ["{value:+.4f} ({low:+.4f} to {high:+.4f})".format(**each) if each else "" for each in changes]
            rows.append([name, kind, *cells])
    console.note(f"written to {path}; score at --to less score at --from, mean over {rescored['latents']:,} latents")
    console.table(report, ["direction", "learned from", *(f"change in {score}" for score in scores)], rows)
