"""Write balanced latents as a sample like any other; images of a sample are copied, others are rendered."""

import time
from collections.abc import Generator as Steps
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np

from magnet_cli.editing.balance import Selection, draw, largest_balanced_n
from magnet_cli.editing.contingency import ScoredRequest, Table
from magnet_cli.editing.scored import Attribute, ScoredLatents, load_generator
from magnet_cli.errors import SampleError
from magnet_cli.files import atomic, contact_sheet, documents, opening, results
from magnet_cli.files.image_folder import ImageSet
from magnet_cli.files.progress import SILENT, Messages
from magnet_cli.files.results import ResultFolder
from magnet_cli.maths.metrics import class_shares
from magnet_cli.maths.metrics.class_shares import Tally
from magnet_cli.sampling import sample_folder
from magnet_cli.sampling.kinds import GRID, SAMPLE

if TYPE_CHECKING:
    from magnet_cli.models import Generator

_SHEET_IMAGES = 64  # of each of the two parts of the contact sheet
_COPIES = 64  # files at a time


@dataclass(frozen=True, kw_only=True)
class BalanceRequest(ScoredRequest):
    """Arguments of `magnet balance`; the fields are its arguments and flags, described in docs/reference/cli.md."""

    n: int
    EVEN: ClassVar[bool] = True
    allow_unbalanced: bool = False
    no_images: bool = False
    out: Path | None = None
    device: str | None = None
    batch_size: int | None = None
    dry_run: bool = False
    force: bool = False


@dataclass(frozen=True)
class BalanceSpec:
    """Exactly what decides which images a balanced sample holds.

    `source` is the sha256 of the scored latents; generator, its sha256 and the fingerprint of the volume that they were
    drawn from are "" where unknown. `cut` is as "attribute=class", `target` as "attribute:class=share" of all classes.
    """

    generator: str
    sha256: str
    fingerprint: str
    source: str
    attributes: tuple[str, ...]
    cut: tuple[str, ...]
    confidence: float
    target: tuple[str, ...]
    n: int
    seed: int
    even: bool = False
    truncation: float = 1.0
    no_images: bool = False


@dataclass(frozen=True)
class BalancePlan:
    """A balanced sample before it is written; `selection` is None if the sample is already there."""

    request: BalanceRequest
    out: Path
    spec: BalanceSpec
    latents: ScoredLatents
    table: Table
    selection: Selection | None
    report: dict
    generator: "Generator | None"
    start: float

    @property
    def is_done(self) -> bool:
        """True if the folder already holds this sample."""
        return self.selection is None


def plan(request: BalanceRequest, messages: Messages = SILENT) -> BalancePlan:
    """Open the latents and draw from them; nothing is written.

    Raises:
        SampleError: no scored latents, too few for a balanced sample, or other files in the folder.
        SpecError: no such attribute or class, or shares that do not sum to 1.
        ArtifactError, GeneratorError: images are needed, and the generator is unknown or another one.
    """
    start = time.monotonic()
    latents = request.open()
    table = request.tabulate(latents)
    spec = BalanceSpec(
        **request.spec_fields(latents, table),
        fingerprint=latents.fingerprint,
        n=request.n,
        truncation=latents.truncation,
        no_images=request.no_images,
    )
    out = request.out or Path("samples") / f"{latents.name}-balanced-n{spec.n}-seed{spec.seed}"
    if request.even is None and not request.force and _is_random(ResultFolder(out, SAMPLE), spec):
        spec, table = replace(spec, even=False), replace(table, even=False)
    done = None if request.force else ResultFolder(out, SAMPLE).finished(spec)
    if done and not request.dry_run:
        messages.note(f"{out} already holds this sample")
        return BalancePlan(request, out, spec, latents, table, None, done, None, start)
    generator = None
    if not (request.dry_run or spec.no_images or _source_images(latents)):
        if not (request.generator or latents.generator):
            raise SampleError(
                f"images of {latents.path} are requested, and no generator is known",
                "pass `generator`, or `no_images=True` for the latents alone",
            )
        generator = load_generator(latents, request.generator, request.device, request.own)
    try:
        selection = draw(table, spec.n, spec.seed, allow_unbalanced=request.allow_unbalanced)
    except SampleError:
        messages.note(table.summary())
        raise
    report = _report(out, spec, table, selection)
    _describe(messages, report, table, selection)
    if request.dry_run:
        what = "latents" if spec.no_images else "images"
        messages.note(f"{spec.n:,} {what} would be written to {out}; nothing was done")
    return BalancePlan(request, out, spec, latents, table, selection, report, generator, start)


def _is_random(folder: ResultFolder, spec: BalanceSpec) -> bool:
    """Whether a folder holds this sample with cells drawn at random, once the default."""
    try:
        return folder.begun(replace(spec, even=False))
    except SampleError:
        return False


def run(plan: BalancePlan, command: list[str]) -> Steps[int, None, dict]:
    """Write a balanced sample, or the rest of it, yielding numbers of images written; return the report.

    Raises:
        SpecError: a latent is not finite.
        MagnetError: no space, no permission.
    """
    folder = ResultFolder(plan.out, SAMPLE)
    return (yield from folder.write(plan.spec, _write(plan, folder, command), force=plan.request.force))


def _write(plan: BalancePlan, folder: ResultFolder, command: list[str]) -> Steps[int, None, dict]:
    spec, latents, selection = plan.spec, plan.latents, cast("Selection", plan.selection)
    yield from _fill(plan, selection)
    grid = str(plan.out / GRID) if (plan.out / GRID).exists() else None
    report = plan.report | {"grid": grid, "seconds": round(time.monotonic() - plan.start, 3)}
    attributes = {
        each.name: latents.models.get(each.name, {}) | asdict(summary)
        for each, summary in _summaries(plan.table, selection)
    }
    versions = results.versions
    if plan.generator:
        from magnet_cli.sampling.image_writer import versions
    provenance = {
        "command": command,
        "spec": asdict(spec),
        "balance": {"source": str(latents.path), "kind": latents.kind, "displaced_share": selection.displaced_share},
        "attributes": attributes,
        "grid": grid and GRID,
        "versions": versions(),
        "report": report,
    }
    folder.finish(provenance)
    return report


def _report(out: Path, spec: BalanceSpec, table: Table, selection: Selection) -> dict:
    drawn = np.bincount(selection.cells, minlength=len(table.counts))
    summaries = {each.name: summary for each, summary in _summaries(table, selection)}
    return {
        "sample": str(out),
        "n": spec.n,
        "generator": spec.generator,
        "attributes": list(spec.attributes),
        "confidence": table.confidence,
        "seed": spec.seed,
        "even": table.even,
        "pool": len(table.cells),
        "kept": table.num_kept,
        "largest_balanced_n": largest_balanced_n(table, spec.seed),
        "displaced_share": selection.displaced_share,
        "total_variation": selection.total_variation(table),
        "shares": {name: {c: s.value for c, s in each.shares.items()} for name, each in summaries.items()},
        "cells": [
            {
                "classes": table.classes(cell),
                "latents": int(table.counts[cell]),
                "target": float(table.target[cell]),
                "drawn": int(drawn[cell]),
                "share": float(drawn[cell] / spec.n),
            }
            for cell in range(len(table.counts))
        ],
        "images": 0 if spec.no_images else spec.n,
        "seconds": None,
    }


def _describe(messages: Messages, report: dict, table: Table, selection: Selection) -> None:
    messages.note(table.summary(np.bincount(selection.cells, minlength=len(table.counts))))
    for name, shares in report["shares"].items():
        messages.note(f"{name}: " + ", ".join(f"{each} {share:.4f}" for each, share in shares.items()))
    n, balanced, displaced = report["n"], report["largest_balanced_n"], report["displaced_share"]
    moved = round(report["total_variation"] * n)
    how = "take turns" if table.even else "are drawn at random (`even=False`)"
    messages.note(
        f"combinations {how}: {moved:,} of {n:,} latents would have to be of another one to meet the target exactly "
        f"(total variation {report['total_variation']:.4f}); balanced up to n {balanced:,}"
    )
    if n > balanced:
        missing = len(table.missing)
        reason = f"{missing:,} combinations never occur" if missing else "the rarest combinations ran out"
        messages.warning(
            f"{reason}: {displaced:.1%} of the {n:,} draws are not where the target asks (displaced share "
            f"{displaced:.4f})"
        )


def _summaries(table: Table, selection: Selection) -> Iterator[tuple[Attribute, class_shares.Summary]]:
    for each in table.attributes:
        counts = np.bincount(each.labels[selection.rows], minlength=len(each.classes))
        yield each, class_shares.summary([Tally(each.classes, counts)])


def _fill(plan: BalancePlan, selection: Selection) -> Steps[int, None, None]:
    out, spec, latents, generator = plan.out, plan.spec, plan.latents, plan.generator
    rows = latents.rows(selection.rows)
    labels = latents.labels_of(selection.rows)
    source_images = _source_images(latents)
    names: list[str] = []
    images: Iterable[dict[str, str]] = ()
    if source_images and not spec.no_images:
        selected = [source_images[row] for row in selection.rows.tolist()]
        names = [f"{Path(name).parent.as_posix()}/{i:06d}{Path(name).suffix}" for i, name in enumerate(selected)]
        images = _copy(out, names, latents.path, selected)
    elif generator:
        from magnet_cli.sampling import image_writer

        names, batch = sample_folder.file_names(spec.n, generator), plan.request.batch_size
        images = image_writer.write_images(out, names, generator, rows, spec.truncation, labels, batch=batch)

    def sheets() -> dict[str, bytes]:
        shown = names and names[0].startswith("images/")
        return {GRID: _sheet(ImageSet.open(out, names), spec, latents, selection, generator)} if shown else {}

    records = _records(latents, spec, selection, names, labels)
    yield from sample_folder.fill(out, {"latents": rows, "labels": labels}, images, records, sheets)


def _source_images(latents: ScoredLatents) -> list[str]:
    """Return the image (or array) files of a source, one for each row; [] if it has none."""
    return [record["file_name"] for record in latents.records if "file_name" in record]


def _copy(out: Path, names: list[str], source: Path, selected: list[str]) -> Iterator[dict[str, str]]:
    """Copy files; yield the sha256 of some new files, by name."""
    for folder in {name.partition("/")[0] for name in names}:
        atomic.make_folder(out / folder)
        atomic.sweep(out / folder)
    for start in range(0, len(names), _COPIES):
        hashes = {}
        for name, original in zip(names[start : start + _COPIES], selected[start : start + _COPIES], strict=True):
            data = opening.read(source / original, source)
            atomic.publish(out / name, data, durable=False)
            hashes[name] = documents.sha256_bytes(data)
        yield hashes


def _records(
    latents: ScoredLatents, spec: BalanceSpec, selection: Selection, names: list[str], labels: np.ndarray | None
) -> Iterator[dict[str, object]]:
    """Yield one line for each image: the record of the source, then class and probability of each attribute."""
    for i, row in enumerate(selection.rows.tolist()):
        record: dict[str, object] = {"file_name": names[i]} if names else {}
        if latents.records:
            record |= {name: value for name, value in latents.records[row].items() if name != "file_name"}
        else:
            source = "prior" if latents.kind == "attributes" else "given"
            label = None if labels is None else int(labels[i])
            record |= {"row": row, "log_volume": None, "label": label, "source": source}
        for name in spec.attributes:
            each = latents.attributes[name]
            probability = round(float(each.probability[row]), 6)
            record |= {name: each.classes[each.labels[row]], f"{name}_probability": probability}
        yield record


def _sheet(
    images: ImageSet, spec: BalanceSpec, latents: ScoredLatents, selection: Selection, generator: "Generator | None"
) -> bytes:
    """Return the contact sheet: the first images of the source above the first of the balanced sample, with classes."""

    def labelled(shown: list[np.ndarray], rows: np.ndarray) -> list[contact_sheet.Tile]:
        each = [latents.attributes[name] for name in spec.attributes]
        texts = (", ".join(one.classes[one.labels[row]] for one in each) for row in rows[: len(shown)].tolist())
        return list(zip(shown, texts, strict=True))

    if generator is None:
        before = _first_images(ImageSet.open(latents.path))
    else:
        from magnet_cli.models import batches

        first = np.arange(min(_SHEET_IMAGES, len(latents)))
        size, labels = batches.batch_size(generator), latents.labels_of(first)
        before = list(batches.each_image(generator, latents.rows(first), spec.truncation, size, labels))
    after = _first_images(images)
    above = f"{latents.path.name}: the first {len(before)} of {len(latents):,}, as they come"
    below = f"the first {len(after)} of {spec.n:,}, balanced by {', '.join(spec.attributes)}"
    blocks = [(above, labelled(before, np.arange(len(before)))), (below, labelled(after, selection.rows))]
    return contact_sheet.contact_sheet(blocks)


def _first_images(images: ImageSet) -> list[np.ndarray]:
    """Return the first images [H, W, C] uint8 of a sample."""
    return [image for block in images.batches(0, min(_SHEET_IMAGES, len(images))) for image in block]
