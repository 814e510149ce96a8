"""magnet evaluate."""

import dataclasses
import time
from pathlib import Path
from typing import Annotated

import typer

from magnet_cli.cli import options
from magnet_cli.cli.console import Console

Samples = Annotated[
    list[Path], typer.Argument(metavar="SAMPLE...", help="A sample or folder of images; several: independent pools.")
]
Reference = Annotated[Path, typer.Option(metavar="PATH", help="The folder or sample it is held against.")]
Features = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Image model whose features are compared: a name, file.py:factory, or a path of ONNX or TorchScript.",
        show_default="digits for 32x32 grey images, else efficientnet-lite0",
    ),
]
NearestK = Annotated[int, typer.Option(min=1, max=100, help="Balls reach to the k-th nearest neighbour.")]


ByClass = Annotated[
    bool,
    typer.Option(
        "--by-class",
        help="ICFID too: FID of each label of the sample against the class of the reference it is nearest.",
    ),
]


def run(
    samples: Samples,
    reference: Reference,
    features: Features = None,
    nearest_k: NearestK = 5,
    by_class: ByClass = False,
    device: options.Device = None,
    trust: options.Trust = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Measure quality and diversity of a sample, with intervals.

    FID and KID (lower is closer), precision and density (are its images like the reference's), recall and coverage
    (does it reach all of the reference), diversity (mean distance of two of its images), duplicates. Names carry the
    features they are of. With one sample the 95 % interval is that within this draw, by the jackknife; with several of
    one length, from volumes of different seeds, Student's over them, each against its own part of the reference.
    --by-class adds ICFID, the mean FID of labels against classes: a sample's labels, or the folders images are in.

    \b
    Examples:
      magnet evaluate typical --reference prior
      magnet evaluate typical --reference prior --features digits --nearest-k 3 --json
    """
    from magnet_cli import models
    from magnet_cli.evaluating import evaluate
    from magnet_cli.files.image_folder import ImageSet
    from magnet_cli.models import image_models

    start = time.monotonic()
    console = Console(as_json=json, quiet=quiet)
    shown, against = [ImageSet.open(path) for path in samples], ImageSet.open(reference)
    name = features or evaluate.default_features(shown[0].shape)
    judge = image_models.load_scorer(name, device or models.default_device(), trust=trust)
    found = evaluate.evaluate(shown, against, judge, nearest_k, console.progress, by_class=by_class)
    for warning in found.pop("warnings"):
        console.warning(warning)
    for metric, why in found["undefined"].items():
        console.warning(f"{metric}: {why}")
    metrics = found.pop("metrics")
    fields = {"sample": [str(path) for path in samples], "reference": str(reference), "features": judge.name}
    fields |= {"features_sha256": judge.sha256, "nearest_k": nearest_k} | found
    fields |= {"metrics": {metric: dataclasses.asdict(each) for metric, each in metrics.items()}}
    fields |= {"seconds": round(time.monotonic() - start, 3)}
    rows = [[metric, *(f"{v:.6g}" for v in dataclasses.astuple(each))] for metric, each in metrics.items()]
    n, m, interval = (fields[key] for key in ("n", "reference_n", "interval"))
    console.note(f"n {n:,}, reference {m:,}, k {nearest_k}; 95 % intervals {interval}")
    console.table(fields, ["metric", "value", "low", "high"], rows)
