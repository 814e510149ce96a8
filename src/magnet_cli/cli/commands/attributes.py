"""magnet attributes."""

import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_cli.cli import console as console_
from magnet_cli.cli import options
from magnet_cli.cli.console import Console

if TYPE_CHECKING:
    import numpy as np

    from magnet_cli.files.image_folder import ImageSet
    from magnet_cli.maths.metrics.class_shares import Tally
    from magnet_cli.models.image_models import ImageScorer

Targets = Annotated[
    list[str],
    typer.Argument(
        metavar="GENERATOR|SAMPLE...",
        help="A generator to draw from; or a sample or folder of images, several: independent pools.",
    ),
]
Models = Annotated[
    list[str],
    typer.Option(
        "--model",
        metavar="NAME",
        help="Image model that knows classes: a name, file.py:factory, or a path of ONNX or TorchScript; repeatable.",
    ),
]
N = Annotated[int | None, typer.Option("--n", min=1, help="Of a generator: images.", show_default="10,000")]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH", help="Of a generator: the folder.", show_default="attributes/<generator>-n<n>-seed<seed>"
    ),
]
Compare = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="PATH",
        help="Of a sample: another, and the change in bias from it to this one; as many as there are samples.",
        show_default=False,
    ),
]


def run(
    targets: Targets,
    model: Models,
    n: N = None,
    out: Out = None,
    compare: Compare = None,
    seed: options.Seed = 0,
    truncation: options.Truncation = 1.0,
    label: options.Label = None,
    latent_dim: options.LatentDim = None,
    prior: options.Prior = None,
    image_range: options.ImageRange = None,
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    trust: options.Trust = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Measure the share of images in each class, and its imbalance.

    Of a generator: draws from its prior are rendered, scored and forgotten; latents.npy and scores.npz are kept, and
    the same command resumes. Of a sample: each image's class is written into its metadata.jsonl, too. Imbalance is
    given as the gap (largest share less smallest, the papers' sense) and as total variation (the part of the images
    that would have to change class). Intervals are of 95 %: of one sample those within this draw, of several of one
    length, from volumes of different seeds, Student's over them. --compare gives the change, too: by pairs where each
    comes from the volume of one of the samples.

    \b
    Examples:
      magnet attributes typical --model digits --compare prior
      magnet attributes mnist --n 2000 --model digits --out scored --json
    """
    from magnet_cli import models
    from magnet_cli.models import image_models

    start = time.monotonic()
    console = Console(as_json=json, quiet=quiet)
    here = device or models.default_device()
    paths = [Path(target).expanduser() for target in targets]
    of_images = any(path.is_dir() for path in paths)
    _check_flags(targets, paths, of_images, compare=bool(compare), n=n is not None, out=out is not None)
    judges = [image_models.load_scorer(name, here, trust=trust) for name in dict.fromkeys(model)]
    if of_images:
        _of_images(console, paths, judges, compare or [], start)
        return
    from magnet_cli.cli import lookup
    from magnet_cli.evaluating import attributes
    from magnet_cli.maths.metrics import class_shares

    own = {"latent_dim": latent_dim, "prior": options.plain(prior), "image_range": image_range}
    loaded = models.load(lookup.source(targets[0], **own), device=here)
    options.check_names(label, loaded.name, loaded.num_classes)
    spec = attributes.AttributesSpec(
        generator=loaded.name,
        sha256=loaded.sha256,
        n=n or 10_000,
        seed=seed,
        truncation=truncation,
        label=options.numbers(label),
        models=tuple(judge.name for judge in judges),
        keys=tuple(judge.key for judge in judges),
        shard_rows=attributes.shard_rows(loaded),
    )
    folder = out or attributes.default_out(spec)
    if done := attributes.finished(folder, spec):
        console.note(f"{folder} already holds these scores")
        console.result(done, str(folder))
        return
    scored = 0
    try:
        with console.progress("scoring", spec.n, "images") as advance:
            for rows in attributes.write(folder, spec, loaded, judges, batch_size):
                advance(rows)
                scored += rows
    except KeyboardInterrupt:
        safe = f"{scored:,} of {spec.n:,} scores are in {folder}"
        console_.show_stopped(f"stopped: {safe}; the same command goes on from there")
        raise
    made, tallies = attributes.join(folder, spec, judges)
    report = {"attributes": str(folder), "n": spec.n, "generator": loaded.name, "models": {}}
    for judge, tally in zip(judges, tallies, strict=True):
        report["models"][judge.name] = dataclasses.asdict(class_shares.summary([tally]))
        _tell(console, judge.name, tally)
    report["seconds"] = round(time.monotonic() - start, 3)
    attributes.conclude(folder, spec, made, ["magnet", *sys.argv[1:]], report)
    console.result(report, str(folder))


def _check_flags(targets: list[str], paths: list[Path], of_images: bool, **given: bool) -> None:
    """Refuse flags, and several names, that do not go with what is judged."""
    wrong = ["--compare"] if given["compare"] and not of_images else []
    wrong += [f"--{name}" for name in ("n", "out") if given[name] and of_images]
    if wrong:
        message = f"that is for a {'generator' if of_images else 'sample'}, and {targets[0]} is a "
        raise typer.BadParameter(message + ("folder of images." if of_images else "generator."), param_hint=wrong[0])
    no_folders = [target for target, path in zip(targets, paths, strict=True) if not path.is_dir()]
    if no_folders and len(targets) > 1:
        message = f"{no_folders[0]} is no folder of images: of several samples each has to be one."
        raise typer.BadParameter(message, param_hint="GENERATOR|SAMPLE...")


def _of_images(
    console: Console, paths: list[Path], judges: "list[ImageScorer]", compare: list[Path], start: float
) -> None:
    from magnet_cli.evaluating import attributes
    from magnet_cli.files.image_folder import ImageSet
    from magnet_cli.maths.metrics import class_shares
    from magnet_cli.models import kept_outputs

    shown, others = ([ImageSet.open(path) for path in side] for side in (paths, compare))
    paired = attributes.are_pairs(shown, others)
    interval = "within this draw" if len(shown) == 1 else f"over {len(shown)} samples"
    fields = {"sample": [str(path) for path in paths], "n": len(shown[0]), "interval": interval, "models": {}}
    rows = []
    for judge in judges:
        tallies, probabilities = _tallies(console, shown, judge)
        found = class_shares.summary(tallies)
        said = fields["models"][judge.name] = dataclasses.asdict(found)
        rows += [[judge.name, f"share of {name}", *_numbers(share)] for name, share in found.shares.items()]
        rows += [[judge.name, "gap", *_numbers(found.gap)]]
        rows += [[judge.name, "total variation", *_numbers(found.total_variation)]]
        _warn_of_absent(console, judge.name, tallies)
        if others:
            change = class_shares.change(tallies, _tallies(console, others, judge)[0], paired=paired)
            said["change"] = {"from": [str(path) for path in compare], "from_n": len(others[0]), "paired": paired}
            said["change"] |= dataclasses.asdict(change)
            rows += [
                [judge.name, f"change in share of {name}", *_numbers(each)] for name, each in change.shares.items()
            ]
            rows += [[judge.name, "change in gap", *_numbers(change.gap)]]
            rows += [[judge.name, "change in total variation", *_numbers(change.total_variation)]]
            rows += [[judge.name, "p of no change", f"{change.p_value:.4g}", "", ""]]
        for one, tally, values in zip(shown, tallies, probabilities, strict=True):
            if one.is_sample:
                attributes.annotate(one, judge, values, dataclasses.asdict(class_shares.summary([tally])))
    for warning in kept_outputs.warnings(shown) + kept_outputs.warnings(others):
        console.warning(warning)
    for one in shown:
        if one.is_sample:
            console.note(f"written into {one.path / 'metadata.jsonl'}")
    fields["seconds"] = round(time.monotonic() - start, 3)
    console.note(f"n {len(shown[0]):,}; 95 % intervals {interval}")
    console.table(fields, ["model", "what", "value", "low", "high"], rows)


def _tallies(
    console: Console, samples: "list[ImageSet]", judge: "ImageScorer"
) -> tuple[list["Tally"], list["np.ndarray"]]:
    """How many images of each sample fell into each class, and the probabilities [n, C]."""
    from magnet_cli.evaluating import attributes
    from magnet_cli.models import kept_outputs

    seen = []
    for shown in samples:
        with console.progress(f"{judge.name} of {shown.path.name}", len(shown), "images") as advance:
            seen.append(kept_outputs.concatenated(attributes.look(shown, judge), advance))
    kept_outputs.check_repeats(samples, seen)
    return [attributes.tally(judge, each.values) for each in seen], [each.values for each in seen]


def _tell(console: Console, name: str, tally: "Tally") -> None:
    for each, share in tally.shares().items():
        console.note(f"{name}: {each} {share.value:.4f} ({share.low:.4f} to {share.high:.4f})")
    gap, variation = tally.gap(), tally.total_variation()
    console.note(
        f"{name}: gap {gap.value:.4f} ({gap.low:.4f} to {gap.high:.4f}), total variation {variation.value:.4f}"
    )
    _warn_of_absent(console, name, [tally])


def _warn_of_absent(console: Console, name: str, tallies: list["Tally"]) -> None:
    counts = sum(tally.counts for tally in tallies)
    absent = [each for each, count in zip(tallies[0].classes, counts, strict=True) if count == 0]
    if absent:
        console.warning(f"{name}: never seen among {counts.sum():,} images: {', '.join(absent)}")


def _numbers(estimate: object) -> list[str]:
    return [f"{value:.4f}" for value in dataclasses.astuple(estimate)]
