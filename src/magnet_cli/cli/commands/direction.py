"""magnet direction."""

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_cli.cli import options, scored_options
from magnet_cli.cli.console import Console
from magnet_cli.errors import ArtifactError, SampleError, SpecError

if TYPE_CHECKING:
    import numpy as np

    from magnet_cli.editing.balance import Table
    from magnet_cli.editing.direction import DirectionSpec, Way
    from magnet_cli.editing.scored import Scored
    from magnet_cli.models import Generator
    from magnet_cli.models.image_models import ImageScorer


class Method(StrEnum):
    """How a direction is learned."""

    centroid = "centroid"
    svm = "svm"


Attribute = Annotated[
    str, typer.Option("--attribute", metavar="NAME", help="That is to change; NAME=CLASS, towards that class.")
]
N = Annotated[int | None, typer.Option("--n", min=2, help="Latents to learn from.", show_default="all that balance")]
Unbalanced = Annotated[bool, typer.Option("--unbalanced", help="Learn from latents as they come, for comparison.")]
AllowUnbalanced = Annotated[
    bool, typer.Option("--allow-unbalanced", help="Choose on where a combination has run out, as `magnet balance`.")
]
HowLearned = Annotated[Method, typer.Option("--method", help="Difference of class means, or a linear SVM.")]
Space = Annotated[
    options.SpaceName,
    typer.Option(help="Of the direction; in w, latents of a folder are mapped, those of a file taken."),
]
Rescore = Annotated[
    bool, typer.Option("--rescore", help="Move fresh latents along every direction, and say how each score changes.")
]
Moved = Annotated[int, typer.Option(min=2, help="With --rescore: latents.")]
From = Annotated[float, typer.Option("--from", help="With --rescore: how far they are moved at one end.")]
To = Annotated[float, typer.Option("--to", help="And at the other; in units of the space.")]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="With --rescore: the image model of an attribute, where it is not that of its name; or ATTRIBUTE=NAME.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="FILE.npy", help="The file.", show_default="directions/<SAMPLE>-<attribute>.npy"),
]


def run(
    sample: scored_options.Source,
    attribute: Attribute,
    attributes: scored_options.Attributes = None,
    n: N = None,
    confidence: scored_options.Confidence = None,
    cut: scored_options.Cut = None,
    target: scored_options.Shares = None,
    even: scored_options.Even = False,
    scores: scored_options.Scores = None,
    unbalanced: Unbalanced = False,
    allow_unbalanced: AllowUnbalanced = False,
    method: HowLearned = Method.centroid,
    space: Space = options.SpaceName.z,
    rescore: Rescore = False,
    moved: Moved = 256,
    from_: From = -3.0,
    to: To = 3.0,
    model: Models = None,
    seed: options.Seed = 0,
    generator: scored_options.OfGenerator = None,
    out: Out = None,
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    trust: options.Trust = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Learn the latent direction along which an attribute changes.

    From latents chosen as by `magnet balance`, all attributes alike: the others are then as frequent on one side as on
    the other. A sample that `magnet balance` wrote is taken as it is. Writes a unit vector [1, D] as the tools of
    InterFaceGAN read it, and beside it as JSON what it was learned from, and its cosines to the directions of the other
    attributes. Prints the path.

    --rescore moves fresh latents from --from to --to along the direction of every attribute, balanced and not, and
    prints how much each score changes, with a 95 % interval over the latents.

    \b
    Examples:
      magnet direction scored --attribute digits=1 --out one.npy
      magnet direction scored --attribute digits=1 --unbalanced --json
      magnet direction scored --attribute digits --cut digits=5 --rescore --moved 16 --out high.npy
    """
    from magnet_cli.editing import balance
    from magnet_cli.editing import direction as direction_
    from magnet_cli.editing.scored import open_scored

    start = time.monotonic()
    console = Console(as_json=json, quiet=quiet)
    found = open_scored(sample.expanduser(), scores, attributes or (), dict(cut or ()))
    _check_balanced(
        found, {"--confidence": confidence is not None, "--target": target, "--unbalanced": unbalanced, "--even": even}
    )
    every = tuple(found.attributes.values())
    way, asked = direction_.way(every, attribute), scored_options.target(every, target)
    t = 0.0 if found.balanced else scored_options.CONFIDENCE if confidence is None else confidence
    table = balance.tabulate(every, t, asked, even=even)
    most = len(found) if found.balanced else balance.largest(table, seed)
    judges = _judges(model, every, device, trust=trust) if rescore else {}
    spec = direction_.DirectionSpec(
        generator=found.generator,
        sha256=found.sha256,
        source=found.source,
        attribute=way.name,
        attributes=tuple(found.attributes),
        cut=scored_options.cut_words(cut),
        confidence=t,
        target=scored_options.words(asked, every),
        n=n or most or (table.kept if unbalanced else 1),
        seed=seed,
        even=even,
        balanced=not unbalanced,
        method=method.value,
        space=space.value,
        rescored=moved if rescore else 0,
        from_=from_ if rescore else 0.0,
        to=to if rescore else 0.0,
        models=tuple(judge.key for judge in judges.values()),
    )
    path = _place(out or direction_.default_out(found, spec))
    if force:
        direction_.check_place(path)
    elif done := direction_.finished(path, spec):
        console.note(f"{path} already holds this direction")
        _show(console, done, path)
        return
    try:
        rows = _rows(found, table, spec, also_unbalanced=rescore, allow=allow_unbalanced)
    except SampleError:
        scored_options.tell(console, table, len(found))
        raise
    needed = rescore or (space == "w" and found.kind != "latents")
    loaded = scored_options.load_generator(found, generator, device) if needed else None
    learned = _learned(found, way, rows, spec, loaded)
    report = _report(path, way, rows[spec.balanced], learned[spec.balanced], spec) | {"largest_balanced_n": most}
    report |= {"rescore": None, "seconds": None}
    if rescore:
        ways = direction_.ways(every)
        report["rescore"] = _rescored(console, found, loaded, ways, judges, learned, spec, cut, batch_size)
    report["seconds"] = round(time.monotonic() - start, 3)
    direction_.write(path, spec, learned[spec.balanced][way.name], ["magnet", *sys.argv[1:]], report)
    _tell(console, report)
    _show(console, report, path)
    if generator or found.generator:
        console.hint(f"magnet edit {generator or found.generator} --direction {path}")


def _place(path: Path) -> Path:
    """The file to write, or a usage error."""
    if path.suffix != ".npy":
        message = f"{str(path)!r} is not the name of an NPY file; let it end in .npy."
        raise typer.BadParameter(message, param_hint="--out")
    return path


def _check_balanced(found: "Scored", given: dict[str, object]) -> None:
    """A sample that is balanced is taken as it is."""
    if found.balanced and (flag := next((name for name, value in given.items() if value), None)):
        message = f"{found.path} is balanced already, and is taken as it is; {flag} is for what it was chosen from"
        raise SpecError(message, "pass that: the folder of `magnet attributes`, or the sample")


def _rows(
    found: "Scored", table: "Table", spec: "DirectionSpec", *, also_unbalanced: bool, allow: bool
) -> "dict[bool, np.ndarray]":
    """The rows to learn from: under True balanced ones, under False as they come; the second to compare with."""
    import numpy as np

    from magnet_cli.editing import balance

    if found.balanced:
        return {True: np.arange(min(spec.n, len(found)))}
    rows = {}
    if spec.balanced:
        rows[True] = balance.draw(table, spec.n, spec.seed, allow_unbalanced=allow).rows
    if also_unbalanced or not spec.balanced:
        rows[False] = balance.evenly(table, spec.n, spec.seed)
    return rows


def _learned(
    found: "Scored", way: "Way", rows: "dict[bool, np.ndarray]", spec: "DirectionSpec", loaded: "Generator | None"
) -> "dict[bool, dict[str, np.ndarray]]":
    """The directions of all attributes, and that which was asked for, by their names, from each kind of rows.

    Raises:
        SampleError: all rows, or none, are of the class that it leads to.
    """
    from magnet_cli.editing import direction

    ways = {each.name: each for each in (*direction.ways(tuple(found.attributes.values())), way)}
    made = {kind: direction.learn_all(found, [*ways.values()], of, spec, loaded) for kind, of in rows.items()}
    if way.name not in made[spec.balanced]:
        of = rows[spec.balanced]
        which = "all" if way.is_there(of).any() else "none"
        message = (
            f"a direction towards {way.name} is asked for, and {which} of the {len(of):,} latents chosen are there"
        )
        raise SampleError(message, "choose more latents (--n), or another --attribute")
    return made


def _report(
    path: Path, way: "Way", rows: "np.ndarray", vectors: "dict[str, np.ndarray]", spec: "DirectionSpec"
) -> dict:
    """What is said of a direction."""
    from magnet_cli.editing import direction

    is_there = way.is_there(rows)
    others = {name: each for name, each in vectors.items() if name.partition("=")[0] != way.attribute.name}
    report = {"direction": str(path), "attribute": way.name, "words": way.words, "n": len(rows)}
    report |= {name: getattr(spec, name) for name in ("balanced", "method", "space", "confidence")}
    report |= {"classes": {"towards": int(is_there.sum()), "away": int((~is_there).sum())}}
    return report | {"cosines": direction.cosines(others, vectors[way.name])}


def _judges(models: list[str] | None, every: tuple, device: str | None, *, trust: bool) -> "dict[str, ImageScorer]":
    """The model of each attribute: the one that was typed for it, else the one of its name in the catalogue.

    Raises:
        ArtifactError: there is none.
        MagnetError: as `image_models.load_scorer`.
    """
    from magnet_cli import models as models_
    from magnet_cli.catalog import entries
    from magnet_cli.models import image_models

    here = device or models_.default_device()
    names, found = [each.name for each in every], {}
    for text in models or ():
        whose, _, reference = text.rpartition("=")
        judge = image_models.load_scorer(reference, here, trust=trust)
        name = whose or judge.name
        if name not in names:
            message = f"the model of {name} is given, and the attributes are {', '.join(names)}"
            raise ArtifactError(message, f"say whose it is: --model '{names[0]}={reference}'")
        found[name] = judge
    for name in names:
        if name not in found and name not in entries.registry():  # a name from a file is looked up, never followed
            message = f"a model that scores {name} is asked for, and none of that name is in the catalogue"
            raise ArtifactError(message, f"pass it: --model '{name}=MODEL'")
    return {name: found.get(name) or image_models.load_scorer(name, here) for name in names}


def _rescored(
    console: Console,
    found: "Scored",
    loaded: "Generator",
    ways: "list[Way]",
    judges: "dict[str, ImageScorer]",
    learned: "dict[bool, dict[str, np.ndarray]]",
    spec: "DirectionSpec",
    cut: list[tuple[str, str]] | None,
    batch_size: int | None,
) -> dict:
    """How each score changes along each direction: by balance, direction and score, value, low and high."""
    import numpy as np

    from magnet_cli.editing import rescore as rescore_

    classes = () if found.labels is None else tuple(np.unique(found.labels).tolist())
    fresh, labels = rescore_.fresh_latents(loaded, spec.rescored, spec.seed, classes)
    meters = rescore_.meters(loaded, ways, judges, dict(cut or ()), found.truncation, by_name=found.kind != "latents")
    names = {kind: [way.name for way in ways if way.name in vectors] for kind, vectors in learned.items()}
    vectors = [learned[kind][name] for kind in learned for name in names[kind]]
    ends, made = (spec.from_, spec.to), []
    with console.progress("re-scoring", len(fresh), "latents") as advance:
        steps = rescore_.rescore(loaded, meters, vectors, fresh, labels, ends, spec.space, found.truncation, batch_size)
        for changes in steps:
            made.append(changes)
            advance(len(changes))
    report = {"latents": len(fresh), "from": spec.from_, "to": spec.to, "balanced": {}, "unbalanced": {}}
    parts = np.split(np.concatenate(made), np.cumsum([len(names[kind]) for kind in learned])[:-1], axis=1)
    for kind, part in zip(learned, parts, strict=True):
        report["balanced" if kind else "unbalanced"] = rescore_.report(part, names[kind], ways)
    return report


def _tell(console: Console, report: dict) -> None:
    """The report in words."""
    kind, classes = "balanced" if report["balanced"] else "unbalanced", report["classes"]
    console.note(
        f"{report['words']}; {report['n']:,} latents, {kind}: {classes['towards']:,} there, {classes['away']:,} not; "
        f"balanced up to n {report['largest_balanced_n']:,}"
    )
    for name, cosine in report["cosines"].items():
        console.note(f"cosine to the direction of {name}: {cosine:.4f}")


def _show(console: Console, report: dict, path: Path) -> None:
    """The path, or the table of re-scoring."""
    if not report["rescore"]:
        console.result(report, str(path))
        return
    kinds = [kind for kind in ("balanced", "unbalanced") if report["rescore"][kind]]
    scores = list(next(iter(report["rescore"][kinds[0]].values())))
    rows = []
    for name in report["rescore"][kinds[0]]:
        for kind in kinds:
            cells = report["rescore"][kind].get(name, {})
            changes = (cells.get(score) for score in scores)
            texts = ["{value:+.4f} ({low:+.4f} to {high:+.4f})".format(**each) if each else "" for each in changes]
            rows.append([name, kind, *texts])
    console.note(
        f"written to {path}; scores at --to less those at --from, over {report['rescore']['latents']:,} latents"
    )
    console.table(report, ["direction", "learned from", *(f"change in {score}" for score in scores)], rows)
