"""Learn the direction of an attribute from balanced latents, and measure what it does: `magnet direction`."""

import time
from collections.abc import Generator as Steps
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from magnet_cli.editing import balance, direction
from magnet_cli.editing.contingency import ScoredRequest, Table
from magnet_cli.editing.direction import AttributeTarget, DirectionSpec
from magnet_cli.editing.scored import ScoredLatents, load_generator
from magnet_cli.errors import ArtifactError, SampleError, SpecError
from magnet_cli.files.progress import SILENT, Messages

if TYPE_CHECKING:
    from magnet_cli.models import Generator
    from magnet_cli.models.image_models import ImageScorer


@dataclass(frozen=True, kw_only=True)
class DirectionRequest(ScoredRequest):
    """Arguments of `magnet direction`; the fields are its arguments and flags, described in docs/reference/cli.md."""

    attribute: str
    n: int | None = None
    unbalanced: bool = False
    allow_unbalanced: bool = False
    method: str = "centroid"
    space: str = "z"
    rescore: bool = False
    moved: int = 256
    from_: float = -3.0
    to: float = 3.0
    model: tuple[str, ...] | None = None
    out: Path | None = None
    device: str | None = None
    batch_size: int | None = None
    trust: bool = False
    force: bool = False


@dataclass(frozen=True)
class DirectionPlan:
    """A direction before it is learned; `rows` [n] to learn from are by balanced (True) or as they come (False)."""

    request: DirectionRequest
    out: Path
    spec: DirectionSpec
    latents: ScoredLatents
    target: AttributeTarget
    rows: dict[bool, np.ndarray]
    scorers: "dict[str, ImageScorer]"
    generator: "Generator | None"
    largest_balanced_n: int
    done: dict | None
    start: float


def plan(request: DirectionRequest, messages: Messages = SILENT) -> DirectionPlan:
    """Open the latents, choose those to learn from, load models; nothing is written.

    Raises:
        SampleError: no scored latents, too few of them, or another file at the place.
        SpecError: no such attribute or class.
        ArtifactError, GeneratorError: a model or the generator is unknown or another one.
    """
    start = time.monotonic()
    latents = request.open()
    if latents.balanced:
        _check_balanced(latents, request)
    attributes = tuple(latents.attributes.values())
    target = direction.find_target(attributes, request.attribute)
    table = request.tabulate(latents, 0.0 if latents.balanced else None)
    largest = len(latents) if latents.balanced else balance.largest_balanced_n(table, request.seed)
    scorers = _load_scorers(request, tuple(latents.attributes)) if request.rescore else {}
    spec = DirectionSpec(
        **request.spec_fields(latents, table),
        attribute=target.name,
        n=request.n or largest or (table.num_kept if request.unbalanced else 1),
        balanced=not request.unbalanced,
        method=request.method,
        space=request.space,
        rescored=request.moved if request.rescore else 0,
        from_=request.from_ if request.rescore else 0.0,
        to=request.to if request.rescore else 0.0,
        models=tuple(scorer.key for scorer in scorers.values()),
    )
    out = request.out or direction.default_out(latents, spec)
    done = None
    if request.force:
        direction.check_place(out)
    elif done := direction.finished(out, spec):
        messages.note(f"{out} already holds this direction")
    rows, generator = {}, None
    if not done:
        try:
            rows = _choose_rows(latents, table, spec, request)
        except SampleError:
            messages.note(table.summary())
            raise
        if request.rescore or (request.space == "w" and latents.kind != "latents"):
            generator = load_generator(latents, request.generator, request.device, request.own)
    return DirectionPlan(request, out, spec, latents, target, rows, scorers, generator, largest, done, start)


def run(plan: DirectionPlan, command: list[str]) -> Steps[int, None, dict]:
    """Learn a direction, measure it, and write it; yields numbers of latents re-scored, and returns the report.

    Raises:
        SampleError: all rows, or none, are of the class that the direction leads to.
        MagnetError: no space, no permission.
    """
    spec, latents, target = plan.spec, plan.latents, plan.target
    targets = {each.name: each for each in (*direction.all_targets(tuple(latents.attributes.values())), target)}
    learned = {
        balanced: direction.learn_all(latents, [*targets.values()], rows, spec, plan.generator)
        for balanced, rows in plan.rows.items()
    }
    rows, vectors = plan.rows[spec.balanced], learned[spec.balanced]
    positive = target.contains(rows)
    if target.name not in vectors:
        raise SampleError(
            f"a direction towards {target.name} is requested, and {'all' if positive.any() else 'none'} of the "
            f"{len(rows):,} latents chosen are of that class",
            "choose more latents (`n`), or another `attribute`",
        )
    others = {name: each for name, each in vectors.items() if name.partition("=")[0] != target.attribute.name}
    report = {
        "direction": str(plan.out),
        "attribute": target.name,
        "words": target.description,
        "n": len(rows),
        "balanced": spec.balanced,
        "method": spec.method,
        "space": spec.space,
        "confidence": spec.confidence,
        "classes": {"towards": int(positive.sum()), "away": int((~positive).sum())},
        "cosines": {
            name: float(np.dot(each[0].astype(np.float64), vectors[target.name][0])) for name, each in others.items()
        },
        "largest_balanced_n": plan.largest_balanced_n,
        "rescore": (yield from _rescore(plan, learned)) if plan.request.rescore else None,
        "seconds": round(time.monotonic() - plan.start, 3),
    }
    return direction.write(plan.out, spec, vectors[target.name], command, report, force=plan.request.force)


def _check_balanced(latents: ScoredLatents, request: DirectionRequest) -> None:
    values = {
        "`confidence`": request.confidence is not None,
        "`target`": request.target,
        "`unbalanced=True`": request.unbalanced,
        f"`even={request.even}`": request.even is not None,
    }
    if argument := next((name for name, value in values.items() if value), None):
        raise SpecError(
            f"{latents.path} is balanced already, and is taken as it is; {argument} is for the latents that it was "
            "chosen from",
            "pass those: the folder of `magnet attributes`, or the sample",
        )


def _choose_rows(
    latents: ScoredLatents, table: Table, spec: DirectionSpec, request: DirectionRequest
) -> dict[bool, np.ndarray]:
    """Return the rows to learn from: balanced under True, as they come under False."""
    if latents.balanced:
        return {True: np.arange(min(spec.n, len(latents)))}
    rows = {}
    if spec.balanced:
        rows[True] = balance.draw(table, spec.n, spec.seed, allow_unbalanced=request.allow_unbalanced).rows
    if request.rescore or not spec.balanced:
        rows[False] = balance.draw_unbalanced(table, spec.n, spec.seed)
    return rows


def _load_scorers(request: DirectionRequest, attributes: tuple[str, ...]) -> "dict[str, ImageScorer]":
    """Return the image model of each attribute: the one passed for it, else the one of its name in the catalogue."""
    from magnet_cli import models
    from magnet_cli.catalog import entries
    from magnet_cli.models import image_models

    device = request.device or models.default_device()
    scorers = {}
    for text in request.model or ():
        attribute, _, reference = text.rpartition("=")
        scorer = image_models.load_scorer(reference, device, trust=request.trust)
        name = attribute or scorer.name
        if name not in attributes:
            raise ArtifactError(
                f"a model of {name} is passed, and the attributes are {', '.join(attributes)}",
                f"name the attribute: `model='{attributes[0]}={reference}'`",
            )
        scorers[name] = scorer
    others = [name for name in attributes if name not in scorers]
    for name in others:
        if name not in entries.registry():  # a name from a file is looked up, never followed
            raise ArtifactError(
                f"re-scoring needs a model of {name}, and none of that name is in the catalogue",
                f"pass it: `model='{name}=MODEL'`",
            )
    scorers |= zip(others, image_models.load_scorers(others, device), strict=True)
    return {name: scorers[name] for name in attributes}


def _rescore(plan: DirectionPlan, learned: dict[bool, dict[str, np.ndarray]]) -> Steps[int, None, dict]:
    """Re-score new latents; return mean changes by balance, direction and score."""
    from magnet_cli.editing import rescore

    spec, latents, generator = plan.spec, plan.latents, cast("Generator", plan.generator)
    classes = () if latents.labels is None else tuple(np.unique(latents.labels).tolist())
    moved, labels = rescore.draw_latents(generator, spec.rescored, spec.seed, classes)
    targets = direction.all_targets(tuple(latents.attributes.values()))
    cuts = dict(plan.request.cut or ())
    by_name = latents.kind != "latents"
    scores = rescore.attribute_scores(generator, targets, plan.scorers, cuts, latents.truncation, by_name=by_name)
    names = {kind: [each.name for each in targets if each.name in vectors] for kind, vectors in learned.items()}
    vectors = [learned[kind][name] for kind in learned for name in names[kind]]
    ends, batch = (spec.from_, spec.to), plan.request.batch_size
    changes = []
    for part in rescore.rescore(generator, scores, vectors, moved, labels, ends, spec.space, latents.truncation, batch):
        changes.append(part)
        yield len(part)
    report = {"latents": len(moved), "from": spec.from_, "to": spec.to, "balanced": {}, "unbalanced": {}}
    parts = np.split(np.concatenate(changes), np.cumsum([len(names[kind]) for kind in learned])[:-1], axis=1)
    for kind, part in zip(learned, parts, strict=True):
        report["balanced" if kind else "unbalanced"] = rescore.summarize(part, names[kind], targets)
    return report
