"""What the report of a sweep shows: what was picked, the plots, images over rho, and every point in a table.

Owns reading a sweep for that. Its plots are those that the sweep itself holds, drawn again from its numbers.
"""

import html
import re
from dataclasses import dataclass
from pathlib import Path

from magnet_cli.errors import SampleError
from magnet_cli.evaluating.kinds import SWEEP
from magnet_cli.files import atomic, contact_sheet
from magnet_cli.files.results import ResultFolder
from magnet_cli.maths.metrics.intervals import Estimate
from magnet_cli.reporting import findings, page
from magnet_cli.reporting import metrics as metrics_
from magnet_cli.reporting.findings import Shares
from magnet_cli.reporting.format import estimate, integer, number
from magnet_cli.reporting.page import Cell
from magnet_cli.reporting.report import Subject

SHOWN = 16  # images of a point
_SIDE = 64  # their largest side, in pixels
_OF_REFERENCE = "reference_diversity"
_SAMPLE = re.compile(r"samples/[^/\x00]+")


@dataclass(frozen=True)
class Point:
    """A point of a sweep, as far as a report shows it.

    Attributes:
        rho: the polarity.
        truncation: ψ.
        sample: its folder in that of the sweep.
        n: images.
        pool: rows that competed.
        effective_size: in rows.
        displaced_share: of its draw.
        metrics: by name.
        models: what image models say of it.
    """

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
        """Its place, in words."""
        return f"ρ {number(self.rho)}" + f", ψ {self.truncation:g}" * (len(sweep.truncations) > 1)


@dataclass(frozen=True)
class Sweep:
    """A sweep, as far as a report shows it.

    Attributes:
        path: the folder.
        fields: of sweep.json.
        points: by truncation, then by rho.
        chosen: the point that was picked and the one at rho 0, on the other half; none where nothing was picked.
        by: what it was picked by.
        is_drift: whether the reference are draws from the prior.
        reference_n: its images.
        sha256: of sweep.json.
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
        """Those of the points, in their order."""
        return list(dict.fromkeys(point.truncation for point in self.points))

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.path.resolve().name


def read(path: Path) -> Sweep:
    """A finished sweep.

    Raises:
        SampleError: it is of another format, or sweep.json holds what no sweep has.
        MagnetError: damaged, or cannot be read.
    """
    fields = ResultFolder(path, SWEEP).read()
    try:
        choice = fields["choice"] or {}
        points = tuple(_point(each) for each in fields["points"])
        chosen = tuple(_point(choice[name]) for name in ("chosen", "baseline") if choice)
        if not points:
            message = "it has no points"
            raise ValueError(message)
        reference = fields["reference"]
        about = str(choice.get("by", "")), reference["kind"] == "prior", int(reference["n"])
    except findings.WRONG as error:
        message = f"{path} holds a sweep whose document is not as magnet writes it: {error}"
        raise SampleError(message, "restore it from a copy, or make it again with --force") from error
    return Sweep(path, fields, points, chosen, *about, atomic.sha256_file(path / SWEEP.document))


def subject(found: Sweep) -> Subject:
    """What a report of a sweep depends on."""
    identity = atomic.sha256_bytes(atomic.canonical(found.fields["spec"]))
    return Subject("sweep", found.name, identity, {"sweep": found.sha256})


def lead(found: Sweep) -> str:
    """What the sweep is, in a sentence."""
    rhos = list(dict.fromkeys(point.rho for point in found.points))
    what = f"{found.fields['spec'].get('generator', 'a generator')} at {len(rhos)} ρ from {number(min(rhos))} to "
    what += number(max(rhos)) + f", each at ψ {', '.join(f'{t:g}' for t in found.truncations)}"
    against = "fresh draws from the prior: metrics are drifts from it" if found.is_drift else "images that were given"
    return f"{what}; {found.points[0].n:,} images a point, held against {found.reference_n:,} {against}."


def sections(found: Sweep) -> list[str]:
    """The sections of the page.

    Raises:
        MagnetError: an image of the sweep is missing, or cannot be read.
    """
    return [
        *_choice(found),
        _plots(found),
        *_images(found),
        page.section("Every point", _table(found)),
        page.section("How it was made", page.facts(_facts(found))),
    ]


def _point(fields: dict) -> Point:
    if not _SAMPLE.fullmatch(fields["sample"]) or ".." in fields["sample"].split("/"):
        message = f"{fields['sample']!r} is no sample in it"
        raise ValueError(message)
    return Point(
        *(float(fields[name]) for name in ("rho", "truncation")),
        fields["sample"],
        *(int(fields[name]) for name in ("n", "pool")),
        *(float(fields[name]) for name in ("effective_size", "displaced_share")),
        findings.estimates(fields["metrics"]),
        findings.models(fields["attributes"]),
    )


def _choice(found: Sweep) -> list[str]:
    if not found.chosen:
        return []
    best, plain = found.chosen
    numbers = [(best.where(found), f"picked, by {found.by}"), (integer(best.n), "images a point")]
    numbers += [
        (integer(best.pool), "rows that compete, half of them"),
        (integer(best.effective_size), "effective size"),
    ]
    measured = {f"picked, {best.where(found)}": best}
    measured |= {f"as it is, {plain.where(found)}": plain} if best.sample != plain.sample else {}
    names = metrics_.ordered([name for each in measured.values() for name in each.metrics])
    rows: list[list[Cell]] = []
    for name in names:
        rows.append([name, *(_cell(each.metrics.get(name)) for each in measured.values())])
    for model in best.models:
        for label, of in (("gap", "gap"), ("total variation", "total_variation")):
            said = [each.models.get(model) for each in measured.values()]
            rows.append([f"{label} of {model}", *(_cell(each and getattr(each, of)) for each in said)])
    caption = (
        "Picked on one half of the rows and of the reference, measured here on the other halves: these numbers owe "
    )
    caption += "nothing to having been picked. 95 % intervals, within these draws."
    caption += " The best point is the generator as it is." if len(measured) == 1 else ""
    table = page.table(["", *measured], rows, caption)
    return [page.section("What was picked", page.tiles(numbers), table)]


def _plots(found: Sweep) -> str:
    from magnet_cli.evaluating.sweep import figures

    shown = []
    for svg in figures.drawn(found.fields).values():
        title = html.unescape(re.search(r"<title>(.*?)</title>", svg)[1])
        shown.append(page.figure(svg, title[:1].upper() + title[1:] + "."))
    return page.section("Over ρ", *shown)


def _images(found: Sweep) -> list[str]:
    from magnet_cli.files.image_folder import ImageSet

    made = []
    for truncation in found.truncations:
        strips = []
        for point in (each for each in found.points if each.truncation == truncation):
            images = ImageSet.open(found.path / point.sample)
            pixels = [image for batch in images.batches(0, min(SHOWN, len(images))) for image in batch]
            shown = [
                (contact_sheet.small(each, _SIDE), f"ρ {number(point.rho)}, image {i}") for i, each in enumerate(pixels)
            ]
            strips.append(page.strip(shown, f"ρ {number(point.rho)}"))
        title = "Images over ρ" + f", ψ {truncation:g}" * (len(found.truncations) > 1)
        made.append(page.section(title, page.paragraph(f"The first {SHOWN} images of each point."), *strips))
    return made


def _table(found: Sweep) -> str:
    every = metrics_.ordered([name for each in found.points for name in each.metrics])
    names = [name for name in every if not name.startswith(_OF_REFERENCE)]
    models = list(dict.fromkeys(model for each in found.points for model in each.models))
    rows: list[list[Cell]] = []
    for point in found.points:
        cells: list[Cell] = [(point.where(found), f"effective size {integer(point.effective_size)}")]
        cells += [number(point.displaced_share, 2), *(_cell(point.metrics.get(name)) for name in names)]
        said = (point.models.get(model) for model in models)
        rows.append(cells + [_cell(each and each.total_variation) for each in said])
    header = ["", "displaced share", *names, *(f"total variation of {model}" for model in models)]
    caption = "With 95 % intervals, within each draw. "
    caption += "The half of the rows and of the reference on which the point was picked. " if found.chosen else ""
    for name in every:
        if name.startswith(_OF_REFERENCE) and name in found.points[0].metrics:  # the same for all
            caption += "{}: {}, {}.".format(name, *estimate(found.points[0].metrics[name]))
    return page.table(header, rows, caption)


def _cell(found: Estimate | None) -> Cell:
    return estimate(found) if found else "–"


def _facts(found: Sweep) -> list[tuple[str, str]]:
    fields, spec = found.fields, found.fields["spec"]
    terms = [("command", " ".join(map(str, fields.get("command", []))))]
    terms += [(name, str(spec[name])) for name in ("generator", "sha256", "top_k", "seed", "features") if name in spec]
    terms += [("volume", str(each)) for each in spec.get("fingerprints", [])]
    made = fields.get("versions") or {}
    terms += [("created", str(fields.get("created", "")))]
    return [*terms, ("versions", ", ".join(f"{name} {each}" for name, each in made.items()))]
