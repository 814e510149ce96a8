"""What rho and truncation do to a generator's images: samples over a grid, each evaluated, and a rho chosen by them.

Joins the verbs sample, evaluate and attributes. The rho is picked on one half of a volume's rows and of the reference,
and reported on the other halves, so that its figures are not flattered by their having picked it. The caller owns
progress and stopping: `write` yields each point once it is safe on disk, and the same call later goes on from there.

A finished folder holds sweep.json, plots/*.svg, samples/NAME (whole samples, as `magnet sample` writes them) and, where
none was given, reference/ (a rendering of fresh draws from the prior). sweep.json:

    {"format": 1, "command": [...], "spec": {the fields of SweepSpec}, "created": ..., "versions": {...},
     "volumes": [{"truncation", "path", "fingerprint", "rows", "spec"}],      one for each truncation, in their order
     "reference": {"path", "kind": "images" | "prior", "n",        "prior": metrics are drifts from the generator itself
                   "attributes": {MODEL: SHARES}},
     "features": {"name", "sha256"},
     "models": {NAME: {"sha256", "classes": [...]}},
     "points": [POINT, ...],                                          by truncation, descending, then by rho, ascending
     "choice": null | {"by", "direction": "lowest" | "highest", "rho", "truncation",
                       "chosen": POINT, "baseline": POINT},
     "plots": {NAME: "plots/NAME.svg"},
     "report": {what the command prints besides}}

    POINT = {"rho", "truncation", "half", "sample": "samples/NAME", "n", "pool", "effective_size", "displaced_share",
             "unique_rows", "top_share", "target", "warnings": [...], "reference_n", "interval": "within this draw",
             "metrics": {"fid[digits]": ESTIMATE, ...},                            names as `magnet evaluate` gives them
             "undefined": {"fid[digits]": why},
             "attributes": {MODEL: SHARES}}

    SHARES = {"n", "shares": {CLASS: ESTIMATE}, "gap": ESTIMATE, "total_variation": ESTIMATE}

    ESTIMATE = {"value", "low", "high"}

`half` is 1 in "points" and 2 in "choice": "chosen" is the point that was picked, "baseline" rho 0 at its truncation,
both with other rows and other images of the reference than those that picked. Without a choice there is no half: it
is 0.
"by" is the name of a metric ("fid[digits]") or MODEL.gap, MODEL.total_variation. Paths are relative to the folder, but
for those of volumes and of a reference that was given.
"""

import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from magnet_cli.errors import VolumeError, require
from magnet_cli.evaluating import attributes, evaluate
from magnet_cli.evaluating.evaluate import Progress, no_progress
from magnet_cli.evaluating.kinds import SWEEP
from magnet_cli.evaluating.sweep import choice, figures
from magnet_cli.evaluating.sweep import reference as reference_
from magnet_cli.evaluating.sweep.measure import IMAGES, POINTS, Work, tally
from magnet_cli.evaluating.sweep.spec import Judges, Point, Pool, SweepSpec, draws, halves, points, rows
from magnet_cli.files import atomic
from magnet_cli.files.image_folder import ImageSet
from magnet_cli.files.results import ResultFolder
from magnet_cli.maths.metrics import class_shares
from magnet_cli.models import Generator
from magnet_cli.sampling import render, sample_folder
from magnet_cli.sampling.kinds import SAMPLE


def default_out(spec: SweepSpec) -> Path:
    """./sweeps/<generator>-n<n>-seed<seed>."""
    return Path("sweeps") / f"{spec.generator}-n{spec.n}-seed{spec.seed}"


def finished(out: Path, spec: SweepSpec) -> dict | None:
    """As `ResultFolder.finished`: the report of the finished sweep in a folder, if it is that of `spec`."""
    report = ResultFolder(out, SWEEP).finished(spec)
    return report and told(report, read(out))


def told(report: dict, fields: dict) -> dict:
    """What the command prints: its report, and the points and the choice that sweep.json has anyway."""
    return report | {name: fields[name] for name in ("points", "choice")}


def read(out: Path) -> dict:
    """What sweep.json says, as `ResultFolder.read`."""
    return ResultFolder(out, SWEEP).read()


def discard(out: Path) -> None:
    """Remove the sweep in a folder, finished or not, as `ResultFolder.discard`."""
    ResultFolder(out, SWEEP).discard()


def check(out: Path) -> list[str]:
    """Re-read every byte of a finished sweep, its samples included, as `ResultFolder.check`."""
    problems = ResultFolder(out, SWEEP).check()
    fields = read(out)
    every = fields["points"] + [fields["choice"][name] for name in ("chosen", "baseline") if fields["choice"]]
    for name in dict.fromkeys(point["sample"] for point in every):
        there = (out / name / SAMPLE.document).exists()
        problems += sample_folder.check(out / name) if there else [f"{out / name} is missing"]
    return problems


def fewest_for_fid(judges: Judges, shape: tuple[int, int, int]) -> int:
    """The fewest images for which FID is defined; the models are shown an image (H, W, C) on the way.

    Raises:
        SampleError: a model does not know two classes.
        GeneratorError: a model does not take such images, or does not give what is asked of it.
    """
    blank = np.zeros((1, *shape), np.uint8)
    for judge in judges.models:
        attributes.tally(judge, judge.probabilities(blank))
    return evaluate.fewest_for_fid(judges.features.features(blank).shape[1])


def check_extras() -> None:
    """Whether the optional packages are here that judge and plot.

    Raises:
        MagnetError: one is not.
    """
    require("sklearn.neighbors", "evaluate")
    require("matplotlib", "report")


def check_rows(spec: SweepSpec, pools: list[Pool]) -> None:
    """Whether there are rows enough.

    Raises:
        VolumeError: for the points of a half fewer compete than a point has images.
    """
    for pool in pools:
        fewest = min(rows(pool, half).pool(1.0) for half in halves(spec))
        if fewest < spec.n:
            of = "each half of " if spec.pick else ""
            message = f"{spec.n:,} images a point are asked for, and {fewest:,} rows compete in {of}{pool.volume.path}"
            longer = f"magnet compute {spec.generator} --n {spec.n * len(halves(spec))} or more"
            raise VolumeError(message, f"ask for --n {fewest} or less, or make the volume longer: {longer}")


def planned(spec: SweepSpec, pools: list[Pool]) -> list[dict]:
    """The work: of each truncation how many images its points have, and how many different ones are rendered."""
    found = []
    for pool in pools:
        drawn = np.concatenate([each.rows for each in draws(spec, pool, points(spec, pool.truncation)).values()])
        found.append({"truncation": pool.truncation, "images": len(drawn), "rendered": len(np.unique(drawn))})
    return found


def write(
    out: Path,
    spec: SweepSpec,
    pools: list[Pool],
    generator: Generator,
    judges: Judges,
    reference: ImageSet | None,
    command: list[str],
    batch: int | None = None,
    progress: Progress = no_progress,
) -> Iterator[dict]:
    """Draw, render and measure every point, then pick one and do the same with the other half of rows and reference.

    sweep.json is still to come: `finish`.

    Args:
        out: the folder; new, or begun by the same call before.
        spec: what the sweep is.
        pools: of each truncation, in the order of the spec.
        generator: on its device.
        judges: those of the spec.
        reference: what images are held against; None for fresh draws from the prior.
        command: the command line, for the samples.
        batch: images at a time.
        progress: makes a bar of label, total and unit.

    Yields:
        Each point as sweep.json has it, once it is safe on disk; those of half 2 last: what was picked, and rho 0.

    Raises:
        SampleError: as `evaluate.evaluate`.
        MagnetError: no space, no permission; what was written stays, and the same call goes on from there.
    """
    ResultFolder(out, SWEEP).begin(spec)
    against = reference or reference_.prior(out, spec, generator, command, batch, progress)
    found = []
    work = Work(out, spec, generator, judges, against, command, batch, progress)
    for pool in pools:
        for point in work.measured(pool, points(spec, pool.truncation)):
            found.append(point)
            yield point
    if spec.pick:
        chosen = choice.best(spec, found)
        pool = next(each for each in pools if each.truncation == chosen["truncation"])
        rhos = dict.fromkeys((chosen["rho"], 0.0))
        yield from work.measured(pool, [Point(rho, pool.truncation, 2) for rho in rhos])


def concluded(
    spec: SweepSpec, pools: list[Pool], judges: Judges, out: Path, reference: ImageSet | None, found: list[dict]
) -> dict:
    """What sweep.json says of the points that `write` gave: all but its plots, command and report."""
    shown = reference or ImageSet.open(out / reference_.FOLDER)
    of_classes = {
        judge.name: asdict(class_shares.summary([tally(shown, judge, no_progress)[0]])) for judge in judges.models
    }
    volumes = [
        {
            "truncation": pool.truncation,
            "path": str(pool.volume.path),
            "fingerprint": pool.volume.fingerprint,
            "rows": pool.volume.num_rows,
            "spec": asdict(pool.volume.spec),
        }
        for pool in pools
    ]
    return {
        "volumes": volumes,
        "reference": {
            "path": str(reference.path) if reference else reference_.FOLDER,
            "kind": "images" if reference else "prior",
            "n": len(shown),
            "attributes": of_classes,
        },
        "features": {"name": judges.features.name, "sha256": judges.features.sha256},
        "models": {
            judge.name: {"sha256": judge.sha256, "classes": list(of_classes[judge.name]["shares"])}
            for judge in judges.models
        },
        "points": [point for point in found if point["half"] != 2],
        "choice": choice.concluded(spec, found),
    }


def finish(out: Path, spec: SweepSpec, fields: dict, command: list[str], report: dict) -> None:
    """Write plots and sweep.json: from now on the sweep is whole.

    Args:
        out: the folder that `write` filled.
        spec: what the sweep is.
        fields: as `concluded`.
        command: the command line.
        report: what the command prints besides points and choice.

    Raises:
        MagnetError: no space, no permission.
    """
    about = {"command": command, "spec": asdict(spec)} | fields
    drawn = figures.drawn(about)
    atomic.make_folder(out / "plots")
    for name, svg in drawn.items():
        atomic.publish(out / "plots" / f"{name}.svg", svg.encode())
    ResultFolder(out, SWEEP).list_files({})
    about |= {"plots": {name: f"plots/{name}.svg" for name in drawn}, "versions": render.versions(), "report": report}
    ResultFolder(out, SWEEP).finish(about)
    for name in (POINTS, IMAGES):
        shutil.rmtree(out / name, ignore_errors=True)
