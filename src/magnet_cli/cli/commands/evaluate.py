"""magnet evaluate."""

from pathlib import Path
from typing import Annotated

import typer

from magnet_cli.cli import options

Samples = Annotated[
    list[Path],
    typer.Argument(metavar="SAMPLE...", help="Samples or folders of images; several are independent pools."),
]
Reference = Annotated[Path, typer.Option(metavar="PATH", help="Folder or sample to compare with.")]
Features = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Image model whose features are compared: a name, file.py:factory, or a path of ONNX or TorchScript.",
        show_default="digits for 32x32 grey images, else efficientnet-lite0",
    ),
]
NearestK = Annotated[int, typer.Option(min=1, max=100, help="Number of nearest neighbours that a ball reaches to.")]
ByClass = Annotated[
    bool,
    typer.Option(
        "--by-class",
        help="Add ICFID: FID of each label of the sample against the nearest class of the reference.",
    ),
]


@options.flatten
def run(
    samples: Samples,
    reference: Reference,
    output: options.OutputFlags,
    features: Features = None,
    nearest_k: NearestK = 5,
    by_class: ByClass = False,
    device: options.Device = None,
    trust: options.Trust = False,
) -> None:
    """Measure quality and diversity of a sample, with intervals.

    FID and KID (lower is closer), precision and density (do its images look like the reference's), recall and coverage
    (does it reach all of the reference), diversity (mean distance between two of its images), duplicates. A metric has
    the name of its features. With one sample the 95 % interval is within this draw, by the jackknife; with several of
    one length, from volumes of different seeds, it is Student's over them, each against its own part of the reference.
    --by-class adds ICFID, the mean FID of labels against classes: a sample's labels, or the folders that images are in.
    KID below 1 is shown times 1,000 (--json has it as it is). A sample keeps the result, and `magnet report` shows it.

    \b
    Examples:
      magnet evaluate typical --reference prior
      magnet evaluate typical --reference prior --features digits --nearest-k 3 --json
    """
    from magnet_cli.evaluating import evaluation, units

    console = output.console
    values = {"samples": samples, "reference": reference, "features": features, "nearest_k": nearest_k}
    values |= {"by_class": by_class, "device": device, "trust": trust}
    request = options.request(evaluation.EvaluateRequest, **values)
    report = evaluation.run(request, console.progress, console)
    rows = []
    for name, each in report["metrics"].items():
        label, times = units.of(name, each.values())
        rows.append([label, *(f"{value * times:.4g}" for value in each.values())])
    console.table(report, ["metric", "value", "low", "high"], rows)
