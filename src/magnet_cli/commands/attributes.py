"""magnet attributes."""

import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_cli import console as console_
from magnet_cli.commands import options
from magnet_cli.console import Console

if TYPE_CHECKING:
    import numpy as np

    from magnet_cli.image_models import Judge
    from magnet_cli.images import ImageSet
    from magnet_cli.metrics.shares import Tally

Target = Annotated[
    str, typer.Argument(metavar="GENERATOR|SAMPLE", help="A generator to draw from, or a sample or folder of images.")
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
    Path | None, typer.Option(metavar="PATH", help="Of a sample: another, and the change in bias from it to this one.")
]


def run(
    target: Target,
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
    """Say which share of images is of which class, and how far that is from equal.

    Of a generator: draws from its prior are rendered, scored and forgotten; latents.npy and scores.npz are kept, and
    the same command resumes. Of a sample: each image's class is written into its metadata.jsonl, too. Imbalance is
    given as the gap (largest share less smallest, the papers' sense) and as total variation (the part of the images
    that would have to change class). Intervals are of 95 %, within this draw.

    \b
    Examples:
      magnet attributes typical --model digits --compare prior
      magnet attributes mnist --n 2000 --model digits --out scored --json
    """
    from magnet_cli import generators, image_models

    start = time.monotonic()
    console = Console(as_json=json, quiet=quiet)
    here = device or generators.default_device()
    of_images = Path(target).expanduser().is_dir()
    wrong = {"--compare": compare is not None and not of_images, "--n": n is not None and of_images}
    wrong |= {"--out": out is not None and of_images}
    if flag := next((name for name, is_wrong in wrong.items() if is_wrong), None):
        message = f"that is for a {'generator' if of_images else 'sample'}, and {target} is a "
        raise typer.BadParameter(message + ("folder of images." if of_images else "generator."), param_hint=flag)
    judges = [image_models.judge(name, here, trust=trust) for name in dict.fromkeys(model)]
    if of_images:
        _of_images(console, Path(target).expanduser(), judges, compare, start)
        return
    from magnet_cli import attributes
    from magnet_cli.commands import lookup

    own = {"latent_dim": latent_dim, "prior": options.plain(prior), "image_range": image_range}
    loaded = generators.load(lookup.source(target, **own), here)
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
        report["models"][judge.name] = tally.fields()
        _tell(console, judge.name, tally)
    report["seconds"] = round(time.monotonic() - start, 3)
    attributes.conclude(folder, spec, made, ["magnet", *sys.argv[1:]], report)
    console.result(report, str(folder))


def _of_images(console: Console, path: Path, judges: "list[Judge]", compare: Path | None, start: float) -> None:
    from magnet_cli import attributes
    from magnet_cli.images import ImageSet
    from magnet_cli.metrics import shares

    shown, other = ImageSet.open(path), None if compare is None else ImageSet.open(compare)
    fields = {"sample": str(path), "n": len(shown), "models": {}}
    rows = []
    for judge in judges:
        tally, probabilities = _tally(console, shown, judge)
        said = fields["models"][judge.name] = tally.fields()
        rows += [[judge.name, f"share of {name}", *_numbers(share)] for name, share in tally.shares().items()]
        rows += [[judge.name, "gap", *_numbers(tally.gap())]]
        rows += [[judge.name, "total variation", *_numbers(tally.total_variation())]]
        _warn_of_absent(console, judge.name, tally)
        if other is not None:
            against, _ = _tally(console, other, judge)
            parts = {name: (getattr(each, name)() for each in (tally, against)) for name in ("gap", "total_variation")}
            changes = {name: shares.change(*pair) for name, pair in parts.items()}
            p = shares.p_value(tally, against)
            said["change"] = {"from": str(compare), "from_n": against.n, "p_value": p}
            said["change"] |= {name: dataclasses.asdict(each) for name, each in changes.items()}
            rows += [
                [judge.name, f"change in {name.replace('_', ' ')}", *_numbers(each)] for name, each in changes.items()
            ]
            rows += [[judge.name, "p of no change", f"{p:.4g}", "", ""]]
        if shown.is_sample:
            attributes.annotate(shown, judge, probabilities, {k: v for k, v in said.items() if k != "change"})
    if shown.is_sample:
        console.note(f"written into {path / 'metadata.jsonl'}")
    fields["seconds"] = round(time.monotonic() - start, 3)
    console.table(fields, ["model", "what", "value", "low", "high"], rows)


def _tally(console: Console, shown: "ImageSet", judge: "Judge") -> tuple["Tally", "np.ndarray"]:
    """How many images fell into each class, and the probabilities [n, C]."""
    from magnet_cli import attributes, features

    with console.progress(f"{judge.name} of {shown.path.name}", len(shown), "images") as advance:
        probabilities = features.gathered(attributes.look(shown, judge), advance).values
    return attributes.tally(judge, probabilities), probabilities


def _tell(console: Console, name: str, tally: "Tally") -> None:
    for each, share in tally.shares().items():
        console.note(f"{name}: {each} {share.value:.4f} ({share.low:.4f} to {share.high:.4f})")
    gap, variation = tally.gap(), tally.total_variation()
    console.note(
        f"{name}: gap {gap.value:.4f} ({gap.low:.4f} to {gap.high:.4f}), total variation {variation.value:.4f}"
    )
    _warn_of_absent(console, name, tally)


def _warn_of_absent(console: Console, name: str, tally: "Tally") -> None:
    absent = [each for each, count in zip(tally.classes, tally.counts, strict=True) if count == 0]
    if absent:
        console.warning(f"{name}: never seen among {tally.n:,} images: {', '.join(absent)}")


def _numbers(estimate: object) -> list[str]:
    return [f"{value:.4f}" for value in dataclasses.astuple(estimate)]
