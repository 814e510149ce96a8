"""What the report of a sample shows: its draw, its contact sheets, log-volumes, metrics and attributes.

Owns reading a sample for that. Numbers are those that stand in the sample and in the findings that were given.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from magnet_cli.errors import SampleError
from magnet_cli.evaluating.kinds import ATTRIBUTES
from magnet_cli.files import atomic, plots
from magnet_cli.files.results import ResultFolder
from magnet_cli.index.diagnostics import DISPLACED_WARNING
from magnet_cli.reporting import findings, metrics, page
from magnet_cli.reporting.findings import Attributes, Evaluation, Shares
from magnet_cli.reporting.format import integer, number
from magnet_cli.reporting.report import Subject
from magnet_cli.sampling import sample
from magnet_cli.sampling.kinds import SAMPLE

_BINS = 40
_SHEETS = {"grid.png": "Draws from the prior above, these draws below.", "montage.png": "A pair of rows for each ψ."}
_HINT = "restore it from a copy, or make it again with the magnet at hand"


@dataclass(frozen=True)
class Drawn:
    """A sample, as far as a report shows it.

    Attributes:
        path: the folder.
        spec: what decides its images; fields as in SampleSpec.
        target: what it is a draw of, in words.
        numbers: of the draw, those that it has.
        log_volume: [m] float64, of the m images that have one.
        models: what image models say of it.
        facts: how it was made.
        sha256: of sample.json.
    """

    path: Path
    spec: dict
    target: str
    numbers: dict[str, float]
    log_volume: np.ndarray
    models: dict[str, Shares]
    facts: list[tuple[str, str]]
    sha256: str

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.path.resolve().name


@dataclass(frozen=True)
class Beside:
    """Another set of images that a sample is shown beside.

    Attributes:
        name: of its folder.
        log_volume: [m] float64; empty where it has none.
        models: what image models say of it.
        sha256: of its document.
    """

    name: str
    log_volume: np.ndarray
    models: dict[str, Shares]
    sha256: str


def read(path: Path) -> Drawn:
    """A finished sample.

    Raises:
        SampleError: it is of another format, or its documents hold what no sample has.
        MagnetError: damaged, or cannot be read.
    """
    fields = sample.read(path)
    try:
        spec = {name: fields["spec"][name] for name in ("generator", "sha256", "fingerprint", "n", "rho", "top_k")}
        spec |= {"seed": 0, "truncation": 1.0, "replace": False, "method": "reweight"} | fields["spec"]
        kinds = {"generator": str, "n": int, "rho": int | float, "top_k": int, "seed": int, "truncation": int | float}
        if wrong := [name for name, kind in kinds.items() if not isinstance(spec[name], kind)]:
            message = f"{wrong[0]} {spec[wrong[0]]!r}"
            raise ValueError(message)
        names = ("effective_size", "displaced_share", "largest_useful_rho", "top_share", "unique_rows")
        numbers = {name: float(fields[name]) for name in names if fields.get(name) is not None}
        report = fields["report"]
        numbers |= {name: float(report[name]) for name in ("pool", "r_hat") if report.get(name) is not None}
        return Drawn(
            path,
            spec,
            str(report.get("target", "")),
            numbers,
            _log_volumes(path / "metadata.jsonl"),
            findings.models(fields.get("attributes", {})),
            _facts(fields, spec),
            atomic.sha256_file(path / "sample.json"),
        )
    except findings.WRONG as error:
        message = f"{path} holds a sample whose documents are not those magnet writes: {error}"
        raise SampleError(message, _HINT) from error


def beside(path: Path) -> Beside:
    """A set of images to show a sample beside: a sample, or what `magnet attributes GENERATOR` kept.

    Raises:
        SampleError: it is neither.
        MagnetError: damaged, or cannot be read.
    """
    if (path / "attributes.json").is_file():
        report = ResultFolder(path, ATTRIBUTES).read()["report"]
        try:
            said = findings.models(report["models"])
        except findings.WRONG as error:
            message = f"{path} holds attributes that are not as magnet writes them: {error}"
            raise SampleError(message, _HINT) from error
        return Beside(path.resolve().name, np.empty(0), said, atomic.sha256_file(path / "attributes.json"))
    if not (path / SAMPLE.document).is_file():
        found = "a folder of other files" if path.is_dir() else "a file" if path.exists() else "not there"
        message = f"{path} is asked for as a sample to compare with, and is {found}"
        raise SampleError(message, "pass a folder that `magnet sample`, or `magnet attributes GENERATOR`, printed")
    found = read(path)
    return Beside(found.name, found.log_volume, found.models, found.sha256)


def subject(drawn: Drawn, other: Beside | None, included: dict[str, str]) -> Subject:
    """What a report of a sample depends on.

    Args:
        drawn: the sample.
        other: what it is shown beside.
        included: the sha256 of each file of findings, by its name.
    """
    inputs = {"sample": drawn.sha256, "compare": other and other.sha256, "include": included}
    return Subject("sample", drawn.name, atomic.sha256_bytes(atomic.canonical(drawn.spec)), inputs)


def lead(drawn: Drawn) -> str:
    """What the sample is, in a sentence."""
    spec = drawn.spec
    how = f"ρ {number(spec['rho'])}, k {spec['top_k']}" + f", ψ {spec['truncation']:g}" * (spec["truncation"] != 1)
    what = "latents" if spec.get("no_images") else "images"
    return f"{spec['n']:,} {what} of {spec['generator']} at {how}" + f": {drawn.target}." * bool(drawn.target)


def sections(drawn: Drawn, other: Beside | None, included: Sequence[Evaluation | Attributes]) -> list[str]:
    """The sections of the page.

    Args:
        drawn: the sample.
        other: what it is shown beside; None for nothing.
        included: findings, in the order they are shown in.

    Raises:
        MagnetError: a contact sheet cannot be read.
    """
    return [
        _glance(drawn),
        _pictures(drawn),
        _volumes(drawn, other),
        _metrics(drawn, [each for each in included if isinstance(each, Evaluation)]),
        _attributes(drawn, other, [each for each in included if isinstance(each, Attributes)]),
        page.section("How it was made", page.facts(drawn.facts)),
    ]


def _glance(drawn: Drawn) -> str:
    spec, has = drawn.spec, drawn.numbers

    def short(value: float) -> str:
        return number(value, 2)

    known = {
        "effective_size": (integer, f"effective size, of {has.get('pool', 0):,.0f} rows"),
        "displaced_share": (short, "displaced share"),
        "unique_rows": (integer, "different latents"),
        "largest_useful_rho": (lambda value: short(abs(value)), "largest useful |ρ| for so many"),
        "top_share": (short, "share of the weight on the heaviest 1 %"),
        "r_hat": (number, "R-hat across islands"),
    }
    numbers = [(form(has[name]), label) for name, (form, label) in known.items() if name in has]
    displaced = has.get("displaced_share", 0)
    said = f"{displaced:.2f} of this draw is not where ρ {number(spec['rho'])} asks: the heavy rows ran out."
    return page.section("At a glance", page.tiles(numbers), page.missing(said) if displaced > DISPLACED_WARNING else "")


def _pictures(drawn: Drawn) -> str:
    shown = []
    for name, caption in _SHEETS.items():
        path = drawn.path / name
        if path.is_file():
            with atomic.explained("read", path):
                text = f"Contact sheet of {drawn.name}: {caption}"
                shown.append(page.picture(path.read_bytes(), text, f"{name}. {caption}"))
    if not shown:
        why = "latents alone, without images" if drawn.spec.get("no_images") else "nothing that can be shown as images"
        shown = [page.missing(f"This sample holds {why}.")]
    return page.section("Images", *shown)


def _volumes(drawn: Drawn, other: Beside | None) -> str:
    sets = {drawn.name: drawn.log_volume} | ({_other_name(drawn, other): other.log_volume} if other else {})
    sets = {name: values for name, values in sets.items() if len(values)}
    if drawn.name not in sets:
        return page.section("Log-volume", page.missing("No image of this sample has a log-volume: fresh draws."))
    both = np.concatenate(list(sets.values()))
    edges = np.histogram_bin_edges(both, _BINS if both.max() > both.min() else 1)
    counts = {name * (len(sets) > 1): np.histogram(values, edges)[0] / len(values) for name, values in sets.items()}
    shown = plots.histogram(
        edges,
        counts,
        title="Histograms of log-volume",
        x_label=f"log-volume in nats, k {drawn.spec['top_k']}",
        y_label="share of the images",
    )
    said = "; ".join(f"{name}: mean {number(v.mean())}, sd {number(v.std())} nats" for name, v in sets.items())
    return page.section("Log-volume", page.figure(shown, f"Log-volumes of the images. {said}."))


def _metrics(drawn: Drawn, evaluations: list[Evaluation]) -> str:
    if not evaluations:
        example = f"magnet evaluate {drawn.path} --reference PATH --json > found.json"
        said = f"None were given. {example}, then magnet report {drawn.path} --include found.json"
        return page.section("Metrics", page.missing(said))
    return page.section("Metrics", *metrics.metrics(evaluations))


def _attributes(drawn: Drawn, other: Beside | None, included: list[Attributes]) -> str:
    groups = {drawn.name: drawn.models} | ({_other_name(drawn, other): other.models} if other else {})
    parts = metrics.attributes(groups)
    if not parts and not included:
        said = f"None were written. magnet attributes {drawn.path} --model NAME writes them into the sample."
        parts = [page.missing(said)]
    if included:
        parts.append(metrics.changes(included))
    return page.section("Attributes", *parts)


def _other_name(drawn: Drawn, other: Beside) -> str:
    return other.name if other.name != drawn.name else f"{other.name} (compared)"


def _log_volumes(path: Path) -> np.ndarray:
    """Those in a sample's metadata, [m] float64."""
    found = []
    with atomic.explained("read", path), path.open(encoding="utf-8") as lines:
        for line in lines:
            value = json.loads(line)["log_volume"]
            found += [] if value is None else [float(value)]
    return np.array(found)[np.isfinite(found)]


def _facts(fields: dict, spec: dict) -> list[tuple[str, str]]:
    volume = fields.get("volume") or {}
    terms = [("command", " ".join(map(str, fields.get("command", []))))]
    terms += [("generator", f"{spec['generator']}, sha256 {spec['sha256'] or 'not known'}")]
    terms += [("volume", str(volume.get("fingerprint", spec["fingerprint"])))]
    how = [
        "with replacement" if spec["replace"] else "without replacement",
        f"seed {spec['seed']}",
        str(spec["method"]),
    ]
    how += [f"half {spec['half']} of the rows"] if spec.get("half") else []
    terms += [("draw", ", ".join(how)), ("created", str(fields.get("created", "")))]
    made = fields.get("versions") or {}
    return [*terms, ("versions", ", ".join(f"{name} {each}" for name, each in made.items()))]
