"""Sweep rho and truncation: samples over a grid, each evaluated, and one rho picked: `magnet sweep`.

The rho is picked on one half of a volume's rows and of the reference, and reported on the other halves, so that its
figures are not biased by the choice. A finished folder holds sweep.json (docs/reference/files.md#sweep), plots/,
samples/, and reference/ if no reference was passed. A stopped sweep goes on after its last finished point.
"""

import shutil
import time
from collections.abc import Generator as Steps
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from magnet_cli import index
from magnet_cli.errors import VolumeError, require
from magnet_cli.evaluating import evaluation, shares
from magnet_cli.evaluating.kinds import SWEEP
from magnet_cli.evaluating.sweep import choice, figures
from magnet_cli.evaluating.sweep import reference as reference_
from magnet_cli.evaluating.sweep.measure import IMAGES, POINTS, PointMeasurer, count_classes
from magnet_cli.evaluating.sweep.spec import Point, Pool, Scorers, SweepSpec, draws, halves, points, rows
from magnet_cli.files import atomic
from magnet_cli.files.image_folder import ImageSet
from magnet_cli.files.progress import SILENT, Messages, Stages, no_stages
from magnet_cli.files.results import ResultFolder
from magnet_cli.files.text import quoted
from magnet_cli.maths.metrics import class_shares
from magnet_cli.models import Generator, default_device, image_models
from magnet_cli.sampling import image_writer, render, select
from magnet_cli.sampling.kinds import SAMPLE
from magnet_cli.sampling.select import VolumeRequest

if TYPE_CHECKING:
    from magnet_cli.sampling.select import Source


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """Arguments of `magnet sweep`; the fields are its arguments and flags, described in docs/reference/cli.md."""

    rho: tuple[float, ...]
    n: int = 1000
    truncation: tuple[float, ...] = (1.0,)
    reference: Path | None = None
    features: str | None = None
    nearest_k: int = 5
    model: tuple[str, ...] | None = None
    pick: str | None = None
    seed: int = 0
    out: Path | None = None
    device: str | None = None
    batch_size: int | None = None
    trust: bool = False
    dry_run: bool = False
    force: bool = False
    volume: Path | None = None
    top_k: int | None = None
    space: str = "z"
    output: str = "pixel"
    bn_truncation: float | None = None
    label: tuple[int | str, ...] | None = None
    nvae_latents: str | None = None
    solver: str | None = None
    precision: str | None = None

    def volume_request(self, truncation: float, top_k: int | None) -> VolumeRequest:
        """Return the request for the volume of one truncation."""
        names = ("volume", "space", "output", "bn_truncation", "nvae_latents", "solver", "precision")
        fields = {name: getattr(self, name) for name in names}
        return VolumeRequest(**fields, truncation=truncation, top_k=top_k, label=self.label or ())


@dataclass(frozen=True)
class SweepPlan:
    """A sweep before it is run; a `reference` of None stands for new draws from the prior; pools are by truncation."""

    request: SweepRequest
    out: Path
    spec: SweepSpec
    pools: list[Pool]
    generator: Generator
    scorers: Scorers
    reference: ImageSet | None
    report: dict
    done: dict | None
    start: float


def plan(source: "Source", request: SweepRequest, messages: Messages = SILENT) -> SweepPlan:
    """Choose volumes, load generator and models, and count the work; nothing is written.

    Raises:
        VolumeError: no volume fits, or it has too few rows.
        SampleError: the reference holds no images, `pick` is undefined, or the folder holds another sweep.
        GeneratorError: the generator gives no images, or a model does not take them.
        MagnetError: scikit-learn or matplotlib is not installed.
    """
    start = time.monotonic()
    require("sklearn.neighbors", "evaluate")
    require("matplotlib", "report")
    device = request.device or default_device()
    reference = ImageSet.open(request.reference) if request.reference else None
    pools = _pools(source, request, messages)
    first = pools[0].volume.spec
    labels = request.volume_request(1.0, None)
    labels.check_names(source.name, first.num_classes)
    generator = select.load(source, device, **select.settings(request.bn_truncation, first.nvae_latents or None))
    render.check_format(generator, "png")
    shape = generator.image_shape[1:] + generator.image_shape[:1]
    features = image_models.load_scorer(
        request.features or evaluation.default_features(shape), device, trust=request.trust
    )
    classes = image_models.load_scorers(request.model or (), device, trust=request.trust)
    scorers = Scorers(features, tuple(classes))
    pick = request.pick and request.pick.replace("-", "_")
    compared = len(reference) // (1 if pick == "none" else 2) if reference else request.n
    has_fid = min(request.n, compared) >= _fewest_for_fid(scorers, shape)
    spec = SweepSpec(
        generator=source.name,
        sha256=source.sha256,
        fingerprints=tuple(pool.volume.fingerprint for pool in pools),
        pools=tuple(pool.index.num_rows for pool in pools),
        n=request.n,
        rho=request.rho,
        truncation=tuple(pool.truncation for pool in pools),
        top_k=pools[0].index.top_k,
        seed=request.seed,
        label=labels.labels,
        bn_truncation=request.bn_truncation or 0.0,
        reference=reference_.sha256(reference),
        features=features.name,
        features_key=features.key,
        nearest_k=request.nearest_k,
        models=tuple(scorer.name for scorer in classes),
        keys=tuple(scorer.key for scorer in classes),
        pick=choice.picked_by(pick, scorers, has_reference=reference is not None, has_fid=has_fid),
    )
    _check_rows(spec, pools)
    out = request.out or Path("sweeps") / f"{spec.generator}-n{spec.n}-seed{spec.seed}"
    folder = ResultFolder(out, SWEEP)
    done = None if request.force else folder.finished(spec)
    done = done and _with_points(done, folder.read())
    work = _work(spec, pools)
    report = {"sweep": str(out), "n": spec.n, "pick": spec.pick or None, "work": work}
    if done and not request.dry_run:
        messages.note(f"{out} already holds this sweep")
    else:
        _announce(messages, spec, work, out, reference)
    if request.dry_run:
        messages.note("nothing was done")
    return SweepPlan(request, out, spec, pools, generator, scorers, reference, report, done, start)


def run(
    plan: SweepPlan, command: list[str], stages: Stages = no_stages, messages: Messages = SILENT
) -> Steps[dict, None, dict]:
    """Draw, render and measure all points, pick one, and do the same with the other half of rows and reference.

    Yields each point as sweep.json has it, once it is safe; those of half 2, the picked and rho 0, last. Returns the
    report.

    Raises:
        SampleError: as `evaluate`.
        MagnetError: no space, no permission.
    """
    folder, force = ResultFolder(plan.out, SWEEP), plan.request.force
    with folder.writing(plan.spec, force=force) as done:
        if done:
            return _with_points(done, folder.read())
        if force:
            folder.discard()
        folder.begin(plan.spec)
        return (yield from _write(plan, folder, command, stages, messages))


def _write(
    plan: SweepPlan, folder: ResultFolder, command: list[str], stages: Stages, messages: Messages
) -> Steps[dict, None, dict]:
    out, spec = plan.out, plan.spec
    reference = plan.reference or reference_.prior(out, spec, plan.generator, command, plan.request.batch_size, stages)
    measured = []
    for point in _measure(plan, reference, command, stages):
        measured.append(point)
        _describe(messages, spec, point)
        yield point
    fields = _fields(plan, reference, measured)
    report = plan.report | {"seconds": round(time.monotonic() - plan.start, 3)}
    document = {"command": command, "spec": asdict(spec)} | fields
    plots = figures.draw(document)
    atomic.make_folder(out / "plots")
    for name, svg in plots.items():
        atomic.publish(out / "plots" / f"{name}.svg", svg.encode())
    folder.list_files({})
    paths = {name: f"plots/{name}.svg" for name in plots}
    folder.finish(document | {"plots": paths, "versions": image_writer.versions(), "report": report})
    for name in (POINTS, IMAGES):
        shutil.rmtree(out / name, ignore_errors=True)
    if fields["choice"]:
        _describe_choice(messages, spec, fields["choice"])
    return _with_points(report, fields)


def check(out: Path) -> list[str]:
    """Read every byte of a finished sweep, its samples included; return a sentence on each problem."""
    folder = ResultFolder(out, SWEEP)
    problems, fields = folder.check(), folder.read()
    chosen = [fields["choice"][name] for name in ("chosen", "baseline")] if fields["choice"] else []
    for name in dict.fromkeys(point["sample"] for point in fields["points"] + chosen):
        exists = (out / name / SAMPLE.document).exists()
        problems += ResultFolder(out / name, SAMPLE).check() if exists else [f"{out / name} is missing"]
    return problems


def _pools(source: "Source", request: SweepRequest, messages: Messages) -> list[Pool]:
    """Return the rows to draw from for each truncation, descending; k is that of the first volume."""
    pools, top_k = [], request.top_k
    for truncation in sorted(set(request.truncation), reverse=True):
        wanted = request.volume_request(truncation, top_k)
        volume = select.find_rendered_volume(source, wanted, messages)
        built, _ = select.index_of(volume, top_k, messages)
        top_k = built.top_k
        pools.append(Pool(truncation, volume, index.of_labels(built, volume, wanted.labels)))
    return pools


def _fewest_for_fid(scorers: Scorers, shape: tuple[int, ...]) -> int:
    """Return the fewest images for which FID is defined; the models are run on one image (H, W, C)."""
    blank = np.zeros((1, *shape), np.uint8)
    for scorer in scorers.classes:
        shares.tally(scorer, scorer.probabilities(blank))
    return evaluation.fewest_for_fid(scorers.features.features(blank).shape[1])


def _check_rows(spec: SweepSpec, pools: list[Pool]) -> None:
    for pool in pools:
        fewest = min(rows(pool, half).pool(1.0) for half in halves(spec))
        if fewest < spec.n:
            half = "each half of " if spec.pick else ""
            longer = f"magnet compute {quoted(spec.generator)} --n {spec.n * len(halves(spec))} or more"
            raise VolumeError(
                f"{spec.n:,} images a point are requested, and {fewest:,} rows compete in {half}{pool.volume.path}",
                f"pass `n={fewest}` or less, or make the volume longer: {longer}",
            )


def _work(spec: SweepSpec, pools: list[Pool]) -> list[dict]:
    """Return, for each truncation, the number of images of its points, and of different images to render."""
    work = []
    for pool in pools:
        drawn = np.concatenate([each.rows for each in draws(spec, pool, points(spec, pool.truncation)).values()])
        work.append({"truncation": pool.truncation, "images": len(drawn), "rendered": len(np.unique(drawn))})
    return work


def _measure(plan: SweepPlan, reference: ImageSet, command: list[str], stages: Stages) -> Iterator[dict]:
    spec, batch = plan.spec, plan.request.batch_size
    measurer = PointMeasurer(plan.out, spec, plan.generator, plan.scorers, reference, command, batch, stages)
    measured = []
    for pool in plan.pools:
        for point in measurer.measure(pool, points(spec, pool.truncation)):
            measured.append(point)
            yield point
    if spec.pick:
        chosen = choice.best(spec, measured)
        pool = next(each for each in plan.pools if each.truncation == chosen["truncation"])
        rhos = dict.fromkeys((chosen["rho"], 0.0))
        yield from measurer.measure(pool, [Point(rho, pool.truncation, 2) for rho in rhos])


def _fields(plan: SweepPlan, reference: ImageSet, measured: list[dict]) -> dict:
    """Return the fields of sweep.json besides command, spec, plots and report."""
    features, classes = plan.scorers.features, plan.scorers.classes
    summaries = {
        scorer.name: asdict(class_shares.summary([count_classes(reference, scorer, no_stages)[0]]))
        for scorer in classes
    }
    volumes = [(pool.truncation, pool.volume) for pool in plan.pools]
    return {
        "volumes": [
            {"truncation": psi, "path": str(volume.path), "fingerprint": volume.fingerprint}
            | {"rows": volume.num_rows, "spec": asdict(volume.spec)}
            for psi, volume in volumes
        ],
        "reference": {
            "path": str(reference.path) if plan.reference else reference_.FOLDER,
            "kind": "images" if plan.reference else "prior",
            "n": len(reference),
            "attributes": summaries,
        },
        "features": {"name": features.name, "sha256": features.sha256},
        "models": {
            scorer.name: {"sha256": scorer.sha256, "classes": list(summaries[scorer.name]["shares"])}
            for scorer in classes
        },
        "points": [point for point in measured if point["half"] != 2],
        "choice": choice.choose(plan.spec, measured),
    }


def _with_points(report: dict, fields: dict) -> dict:
    return report | {name: fields[name] for name in ("points", "choice")}


def _announce(messages: Messages, spec: SweepSpec, work: list[dict], out: Path, reference: ImageSet | None) -> None:
    messages.note(f"{len(spec.rho) * len(work)} points of {spec.n:,} images, into {out}:")
    for part in work:
        messages.note(
            f"  at truncation {part['truncation']:g}: {part['rendered']:,} different images of {part['images']:,} are "
            "rendered"
        )
    if spec.pick:
        messages.note(f"  the best {spec.pick} is picked on half of the rows; up to {2 * spec.n:,} more report it")
    prior = f"{spec.n * len(halves(spec)):,} new draws from the prior (metrics are drifts from it)"
    against = prior if reference is None else f"{len(reference):,} images"
    messages.note(f"  compared with {against}, by {spec.features}")


def _place(spec: SweepSpec, point: dict) -> str:
    return f"rho {point['rho']:g}" + f", truncation {point['truncation']:g}" * (len(spec.truncation) > 1)


def _describe(messages: Messages, spec: SweepSpec, point: dict) -> None:
    place = _place(spec, point) + ", the other half" * (point["half"] == 2)
    texts = [f"effective size {point['effective_size']:,.0f}", f"displaced {point['displaced_share']:.3f}"]
    metrics = {name: each for name, each in point["metrics"].items() if name.startswith(("fid", "precision", "recall"))}
    texts += [f"{name} {each['value']:.4g}" for name, each in metrics.items()]
    texts += [f"{name} gap {each['gap']['value']:.3f}" for name, each in point["attributes"].items()]
    messages.note(f"{place}: {', '.join(texts)}")
    for warning in point["warnings"]:
        messages.warning(f"{place}: {warning}")


def _describe_choice(messages: Messages, spec: SweepSpec, chosen: dict) -> None:
    picked, baseline = (
        "{value:.4g} ({low:.4g} to {high:.4g})".format(**choice.estimate(chosen[name], spec.pick))
        for name in ("chosen", "baseline")
    )
    messages.note(f"picked: {_place(spec, chosen)}; on the other half {spec.pick} is {picked}, at rho 0 {baseline}")
