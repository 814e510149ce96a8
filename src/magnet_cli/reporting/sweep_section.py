"""The report of a sweep: the chosen point, the sweep's plots, images over rho, and a table of all points."""

import html
import re
from dataclasses import dataclass, replace
from pathlib import Path

from magnet_cli.errors import SampleError
from magnet_cli.evaluating import units
from magnet_cli.evaluating.kinds import SWEEP
from magnet_cli.files import contact_sheet, documents, opening
from magnet_cli.files.results import ResultFolder
from magnet_cli.maths.metrics.intervals import Estimate
from magnet_cli.reporting import findings, page
from magnet_cli.reporting import metrics as metrics_
from magnet_cli.reporting.findings import Shares
from magnet_cli.reporting.format import estimate, integer, number
from magnet_cli.reporting.page import Cell
from magnet_cli.reporting.report import Subject

SHOWN = 16  # images per point
_SIDE = 64  # their largest side, in pixels
_OF_REFERENCE = "reference_diversity"
_SAMPLE = re.compile(r"samples/[^/\x00]+")


@dataclass(frozen=True)
class Point:
    """A point of a sweep: metrics by name, class shares by image model, its sample's folder in the sweep's."""

    rho: float
    truncation: float
    sample: str
    n: int
    pool: int
    effective_size: float
    displaced_share: float
    metrics: dict[str, Estimate]
    models: dict[str, Shares]

    def where(self, sweep: "Sweep") -> str:
        """Return its rho, and its truncation where there are several."""
        return f"ρ {number(self.rho)}" + f", ψ {self.truncation:g}" * (len(sweep.truncations) > 1)


@dataclass(frozen=True)
class Sweep:
    """The parts of a sweep that a report shows.

    `fields` is the content of sweep.json; points are by truncation, then by rho; `chosen` holds the chosen point and
    the one at rho 0, on the other half, or nothing; `is_drift` says that the reference is draws from the prior.
    """

    path: Path
    fields: dict
    points: tuple[Point, ...]
    chosen: tuple[Point, ...]
    by: str
    is_drift: bool
    reference_n: int
    sha256: str

    @property
    def truncations(self) -> list[float]:
        """Truncations of the points, in their order."""
        return list(dict.fromkeys(point.truncation for point in self.points))

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.resolve().name


def read(path: Path) -> Sweep:
    """Read a finished sweep.

    Raises:
        SampleError: the sweep has another format, or sweep.json is invalid.
        MagnetError: the sweep is damaged, or cannot be read.
    """
    fields = ResultFolder(path, SWEEP).read()
    try:
        choice = fields["choice"] or {}
        points = [_point(each) for each in fields["points"]]
        chosen = [_point(choice[name]) for name in ("chosen", "baseline") if choice]
        if not points:
            raise ValueError("it has no points")
        reference = fields["reference"]
        about = str(choice.get("by", "")), reference["kind"] == "prior", int(reference["n"])
    except findings.WRONG as error:
        message = f"sweep.json of {path} is not as magnet writes it: {error}"
        raise SampleError(message, "restore it from a copy, or run magnet sweep again with `force=True`") from error
    shown = units.readable([each.metrics for each in points + chosen])
    every = [replace(each, metrics=metrics) for each, metrics in zip(points + chosen, shown, strict=True)]
    points, chosen = every[: len(points)], every[len(points) :]
    return Sweep(path, fields, tuple(points), tuple(chosen), *about, documents.sha256_file(path / SWEEP.document))


def subject(sweep: Sweep) -> Subject:
    """Return the subject of a report of a sweep."""
    identity = documents.sha256_bytes(documents.canonical(sweep.fields["spec"]))
    return Subject("sweep", sweep.name, identity, {"sweep": sweep.sha256})


def lead(sweep: Sweep) -> str:
    """Describe the sweep in one sentence."""
    rhos = list(dict.fromkeys(point.rho for point in sweep.points))
    what = f"{sweep.fields['spec'].get('generator', 'a generator')} at {len(rhos)} ρ from {number(min(rhos))} to "
    what += number(max(rhos)) + f", each at ψ {', '.join(f'{t:g}' for t in sweep.truncations)}"
    against = "new draws from the prior, so metrics are drifts from it" if sweep.is_drift else "images of the reference"
    return f"{what}; {sweep.points[0].n:,} images per point, compared with {sweep.reference_n:,} {against}."


def sections(sweep: Sweep) -> list[str]:
    """Return the sections of the page.

    Raises:
        MagnetError: an image of the sweep is missing, or cannot be read.
    """
    return [
        *_choice(sweep),
        _plots(sweep),
        *_images(sweep),
        page.section("Every point", _table(sweep)),
        page.section("How it was made", page.facts(_facts(sweep))),
    ]


def _point(fields: dict) -> Point:
    if not _SAMPLE.fullmatch(fields["sample"]) or ".." in fields["sample"].split("/"):
        raise ValueError(f"{fields['sample']!r} is not one of its samples")
    return Point(
        rho=float(fields["rho"]),
        truncation=float(fields["truncation"]),
        sample=fields["sample"],
        n=int(fields["n"]),
        pool=int(fields["pool"]),
        effective_size=float(fields["effective_size"]),
        displaced_share=float(fields["displaced_share"]),
        metrics=findings.estimates(fields["metrics"]),
        models=findings.models(fields["attributes"]),
    )


def _choice(sweep: Sweep) -> list[str]:
    if not sweep.chosen:
        return []
    best, plain = sweep.chosen
    numbers = [(best.where(sweep), f"picked, by {sweep.by}"), (integer(best.n), "images per point")]
    numbers += [
        (integer(best.pool), "competing rows, half of all"),
        (integer(best.effective_size), "effective size"),
    ]
    measured = {f"picked, {best.where(sweep)}": best}
    measured |= {f"as it is, {plain.where(sweep)}": plain} if best.sample != plain.sample else {}
    names = metrics_.ordered([name for each in measured.values() for name in each.metrics])
    rows: list[list[Cell]] = []
    for name in names:
        rows.append([name, *(_cell(each.metrics.get(name)) for each in measured.values())])
    for model in best.models:
        for label, of in (("gap", "gap"), ("total variation", "total_variation")):
            shares = [each.models.get(model) for each in measured.values()]
            rows.append([f"{label} of {model}", *(_cell(getattr(each, of) if each else None) for each in shares)])
    caption = "Chosen on one half of the rows and of the reference, measured here on the other halves: the choice does "
    caption += "not bias these numbers. 95 % intervals, within these draws."
    caption += " The best point is the generator as it is." if len(measured) == 1 else ""
    table = page.table(["", *measured], rows, caption)
    return [page.section("What was picked", page.tiles(numbers), table)]


def _plots(sweep: Sweep) -> str:
    from magnet_cli.evaluating.sweep import figures

    shown = []
    for svg in figures.draw(sweep.fields).values():
        title = html.unescape(svg.partition("<title>")[2].partition("</title>")[0])
        shown.append(page.figure(svg, title[:1].upper() + title[1:] + "."))
    return page.section("Over ρ", *shown)


def _images(sweep: Sweep) -> list[str]:
    from magnet_cli.files.image_folder import ImageSet

    made = []
    for truncation in sweep.truncations:
        strips = []
        for point in (each for each in sweep.points if each.truncation == truncation):
            opening.refuse_links(sweep.path / point.sample, sweep.path)
            images = ImageSet.open(sweep.path / point.sample)
            pixels = [image for batch in images.batches(0, min(SHOWN, len(images))) for image in batch]
            shown = [
                (contact_sheet.small(each, _SIDE), f"ρ {number(point.rho)}, image {i}") for i, each in enumerate(pixels)
            ]
            strips.append(page.strip(shown, f"ρ {number(point.rho)}"))
        title = "Images over ρ" + f", ψ {truncation:g}" * (len(sweep.truncations) > 1)
        made.append(page.section(title, page.paragraph(f"The first {SHOWN} images of each point."), *strips))
    return made


def _table(sweep: Sweep) -> str:
    every = metrics_.ordered([name for each in sweep.points for name in each.metrics])
    names = [name for name in every if not name.startswith(_OF_REFERENCE)]
    models = list(dict.fromkeys(model for each in sweep.points for model in each.models))
    rows: list[list[Cell]] = []
    for point in sweep.points:
        cells: list[Cell] = [(point.where(sweep), f"effective size {integer(point.effective_size)}")]
        cells += [number(point.displaced_share, 2), *(_cell(point.metrics.get(name)) for name in names)]
        totals = [point.models.get(model) for model in models]
        rows.append(cells + [_cell(each.total_variation if each else None) for each in totals])
    header = ["", "displaced share", *names, *(f"total variation of {model}" for model in models)]
    caption = "With 95 % intervals, within each draw. "
    caption += "On the half of the rows and of the reference on which the point was chosen. " if sweep.chosen else ""
    for name in every:
        if name.startswith(_OF_REFERENCE) and name in sweep.points[0].metrics:  # the same for all
            caption += "{}: {}, {}.".format(name, *estimate(sweep.points[0].metrics[name]))
    return page.table(header, rows, caption)


def _cell(value: Estimate | None) -> Cell:
    return estimate(value) if value else "–"


def _facts(sweep: Sweep) -> list[tuple[str, str]]:
    fields, spec = sweep.fields, sweep.fields["spec"]
    terms = [("command", " ".join(map(str, fields.get("command", []))))]
    terms += [(name, str(spec[name])) for name in ("generator", "sha256", "top_k", "seed", "features") if name in spec]
    terms += [("volume", str(each)) for each in spec.get("fingerprints", [])]
    made = fields.get("versions") or {}
    terms += [("created", str(fields.get("created", "")))]
    return [*terms, ("versions", ", ".join(f"{name} {each}" for name, each in made.items()))]
