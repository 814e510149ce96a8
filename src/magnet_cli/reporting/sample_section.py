"""The report of a sample: its draw, contact sheets, log-volumes, metrics and attributes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from magnet_cli.errors import SampleError
from magnet_cli.evaluating.kinds import ATTRIBUTES
from magnet_cli.files import documents, opening, pictures, plots
from magnet_cli.files.results import ResultFolder
from magnet_cli.files.text import quoted
from magnet_cli.index.diagnostics import DISPLACED_WARNING
from magnet_cli.reporting import findings, metrics, page
from magnet_cli.reporting.findings import Attributes, Evaluation, Shares
from magnet_cli.reporting.format import integer, number
from magnet_cli.reporting.report import Subject
from magnet_cli.sampling.kinds import GRID, MONTAGE, SAMPLE, sheet

_BINS = 40
_SHEETS = {
    GRID: "Draws from the prior, or what was balanced, above; these draws below.",
    MONTAGE: "A pair of rows for each ψ.",
}
_BALANCED = {"rho": 0.0, "top_k": 0, "method": "balance", "replace": False}  # chosen by attributes, not by volume
_HINT = "restore it from a copy, or make it again with the magnet at hand"


@dataclass(frozen=True)
class SampleSummary:
    """The parts of a sample that a report shows.

    `numbers` are the diagnostics of the draw; `log_volume` [m] float64 is of the m images that have one; `models` holds
    class shares by image model.
    """

    path: Path
    spec: dict
    target: str
    numbers: dict[str, float]
    log_volume: np.ndarray
    models: dict[str, Shares]
    evaluations: list[Evaluation]
    facts: list[tuple[str, str]]
    sha256: str

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.resolve().name


@dataclass(frozen=True)
class Comparison:
    """Another set of images that a sample is compared with; `log_volume` is empty where it has none."""

    name: str
    log_volume: np.ndarray
    models: dict[str, Shares]
    evaluations: list[Evaluation]
    sha256: str


def read(path: Path) -> SampleSummary:
    """Read a finished sample.

    Raises:
        SampleError: the sample has another format, or its documents are invalid.
        MagnetError: the sample is damaged, or cannot be read.
    """
    fields = ResultFolder(path, SAMPLE).read()
    try:
        stored = fields["spec"] | (_BALANCED if "balance" in fields else {})
        spec = {name: stored[name] for name in ("generator", "sha256", "fingerprint", "n", "rho", "top_k")}
        spec |= {"seed": 0, "truncation": 1.0, "replace": False, "method": "reweight"} | stored
        kinds = {"generator": str, "n": int, "rho": int | float, "top_k": int, "seed": int, "truncation": int | float}
        if wrong := [name for name, kind in kinds.items() if not isinstance(spec[name], kind)]:
            raise ValueError(f"{wrong[0]} {spec[wrong[0]]!r}")
        names = ("effective_size", "displaced_share", "largest_useful_rho", "top_share", "unique_rows")
        numbers = {name: float(fields[name]) for name in names if fields.get(name) is not None}
        report = fields["report"]
        numbers |= {"displaced_share": float(fields["balance"]["displaced_share"])} if "balance" in fields else {}
        numbers |= {name: float(report[name]) for name in ("pool", "r_hat") if report.get(name) is not None}
        return SampleSummary(
            path,
            spec,
            str(report.get("target", "")),
            numbers,
            _log_volumes(path / "metadata.jsonl"),
            findings.models(fields.get("attributes", {})),
            findings.evaluations(fields.get("evaluations", [])),
            _facts(fields, spec),
            documents.sha256_file(path / "sample.json"),
        )
    except findings.WRONG as error:
        message = f"the documents of the sample {path} are not as magnet writes them: {error}"
        raise SampleError(message, _HINT) from error


def comparison(path: Path) -> Comparison:
    """Read a set of images to compare with: a sample, or a folder of `magnet attributes GENERATOR`.

    Raises:
        SampleError: the folder is neither.
        MagnetError: the folder is damaged, or cannot be read.
    """
    if (path / "attributes.json").is_file():
        report = ResultFolder(path, ATTRIBUTES).read()["report"]
        try:
            models = findings.models(report["models"])
        except findings.WRONG as error:
            message = f"the attributes in {path} are not as magnet writes them: {error}"
            raise SampleError(message, _HINT) from error
        return Comparison(path.resolve().name, np.empty(0), models, [], documents.sha256_file(path / "attributes.json"))
    if not (path / SAMPLE.document).is_file():
        content = "a folder of other files" if path.is_dir() else "a file" if path.exists() else "not there"
        message = f"{path} cannot be compared with: a sample is needed, and it is {content}"
        raise SampleError(message, "pass a folder that `magnet sample`, or `magnet attributes GENERATOR`, printed")
    other = read(path)
    return Comparison(other.name, other.log_volume, other.models, other.evaluations, other.sha256)


def subject(drawn: SampleSummary, other: Comparison | None, included: dict[str, str]) -> Subject:
    """Return the subject of a report; `included` maps the included files to their sha256."""
    inputs = {"sample": drawn.sha256, "compare": other and other.sha256, "include": included}
    return Subject("sample", drawn.name, documents.sha256_bytes(documents.canonical(drawn.spec)), inputs)


def lead(drawn: SampleSummary) -> str:
    """Describe the sample in one sentence."""
    spec = drawn.spec
    how = f"ρ {number(spec['rho'])}, k {spec['top_k']}" + f", ψ {spec['truncation']:g}" * (spec["truncation"] != 1)
    what = "latents" if spec.get("no_images") else "images"
    if spec["method"] == "balance":
        return f"{spec['n']:,} {what} of {spec['generator']}, balanced by {', '.join(map(str, spec['attributes']))}."
    return f"{spec['n']:,} {what} of {spec['generator']} at {how}" + f": {drawn.target}." * bool(drawn.target)


def sections(drawn: SampleSummary, other: Comparison | None, included: Sequence[Evaluation | Attributes]) -> list[str]:
    """Return the sections of the page, evaluations and attributes in the order of `included`."""
    return [
        _glance(drawn),
        _pictures(drawn),
        _volumes(drawn, other),
        _metrics(drawn, other, [each for each in included if isinstance(each, Evaluation)]),
        _attributes(drawn, other, [each for each in included if isinstance(each, Attributes)]),
        page.section("How it was made", page.facts(drawn.facts)),
    ]


def _glance(drawn: SampleSummary) -> str:
    spec, has = drawn.spec, drawn.numbers

    def short(value: float) -> str:
        return number(value, 2)

    labels = {
        "effective_size": (integer, f"effective size, of {has.get('pool', 0):,.0f} rows"),
        "displaced_share": (short, "displaced share"),
        "unique_rows": (integer, "different latents"),
        "largest_useful_rho": (short, "largest useful ρ at this n"),
        "top_share": (short, "share of the weight on the heaviest 1 %"),
        "r_hat": (number, "R-hat across islands"),
    }
    numbers = [(form(has[name]), label) for name, (form, label) in labels.items() if name in has]
    displaced = has.get("displaced_share", 0)
    asks = "the target" if spec["method"] == "balance" else f"ρ {number(spec['rho'])}"
    warning = f"{displaced:.2f} of this draw is not where {asks} asks: the rows that it prefers ran out."
    note = page.missing(warning) if displaced > DISPLACED_WARNING else ""
    return page.section("At a glance", page.tiles(numbers), note)


def _pictures(drawn: SampleSummary) -> str:
    shown, hashes = [], ResultFolder(drawn.path, SAMPLE).verify()
    for usual, caption in _SHEETS.items():
        path = sheet(drawn.path, usual)
        name = path.relative_to(drawn.path).as_posix()
        if name in hashes:
            data = opening.read(path, drawn.path)
            if documents.sha256_bytes(data) != hashes[name] or not pictures.is_whole(data):
                message = f"{path} is no image, or was changed after it was written: it is not shown"
                raise SampleError(message, _HINT)
            text = f"Contact sheet of {drawn.name}: {caption}"
            shown.append(page.picture(data, text, f"{path.name}. {caption}"))
    if not shown:
        why = "latents only, no images" if drawn.spec.get("no_images") else "arrays that cannot be shown as images"
        shown = [page.missing(f"This sample holds {why}.")]
    return page.section("Images", *shown)


def _volumes(drawn: SampleSummary, other: Comparison | None) -> str:
    sets = {drawn.name: drawn.log_volume} | ({_other_name(drawn, other): other.log_volume} if other else {})
    sets = {name: values for name, values in sets.items() if len(values)}
    if drawn.name not in sets:
        return page.section(
            "Log-volume", page.missing("No image of this sample has a log-volume: its latents are new draws.")
        )
    both = np.concatenate(list(sets.values()))
    edges = np.histogram_bin_edges(both, _BINS if both.max() > both.min() else 1)
    counts = {name * (len(sets) > 1): np.histogram(values, edges)[0] / len(values) for name, values in sets.items()}
    shown = plots.histogram(
        edges,
        counts,
        title="Histograms of log-volume",
        x_label="log-volume in nats" + f", k {drawn.spec['top_k']}" * bool(drawn.spec["top_k"]),
        y_label="share of the images",
    )
    moments = "; ".join(f"{name}: mean {number(v.mean())}, sd {number(v.std())} nats" for name, v in sets.items())
    return page.section("Log-volume", page.figure(shown, f"Log-volumes of the images. {moments}."))


def _metrics(drawn: SampleSummary, other: Comparison | None, included: list[Evaluation]) -> str:
    """Show the evaluations that are kept with the sample and with the other one, and those that are included."""
    kept = drawn.evaluations + (other.evaluations if other else [])
    shown = included + [each for each in kept if not any(each.is_same_as(one) for one in included)]
    if not shown:
        text = f"This sample has no evaluation. magnet evaluate {drawn.path} --reference PATH writes one into it."
        return page.section("Metrics", page.missing(text))
    return page.section("Metrics", *metrics.metrics(shown))


def _attributes(drawn: SampleSummary, other: Comparison | None, included: list[Attributes]) -> str:
    groups = {drawn.name: drawn.models} | ({_other_name(drawn, other): other.models} if other else {})
    parts = metrics.attributes(groups)
    if not parts and not included:
        text = (
            f"This sample has no attributes. magnet attributes {quoted(drawn.path)} --model NAME writes them into it."
        )
        parts = [page.missing(text)]
    if included:
        parts.append(metrics.changes(included))
    return page.section("Attributes", *parts)


def _other_name(drawn: SampleSummary, other: Comparison) -> str:
    return other.name if other.name != drawn.name else f"{other.name} (compared)"


def _log_volumes(path: Path) -> np.ndarray:
    values = []
    for line in opening.read(path, path.parent).splitlines():
        value = json.loads(line)["log_volume"]
        values += [] if value is None else [float(value)]
    return np.array(values)[np.isfinite(values)]


def _facts(fields: dict, spec: dict) -> list[tuple[str, str]]:
    volume = fields.get("volume") or {}
    terms = [("command", " ".join(map(str, fields.get("command", []))))]
    terms += [("generator", f"{spec['generator']}, sha256 {spec['sha256'] or 'unknown'}")]
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
