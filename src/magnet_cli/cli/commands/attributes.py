"""magnet attributes."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from magnet_cli.cli import options
from magnet_cli.cli.console import Console, command_line

Targets = Annotated[
    list[str],
    typer.Argument(
        metavar="GENERATOR|SAMPLE...",
        help="Generator to draw from; or samples or folders of images: several are independent pools.",
    ),
]
Models = Annotated[
    list[str],
    typer.Option(
        "--model",
        metavar="NAME",
        help="Image model with classes: a name, file.py:factory, or a path of ONNX or TorchScript; repeatable.",
    ),
]
N = Annotated[int | None, typer.Option("--n", "-n", min=1, help="Number of images.", show_default="10,000")]
Out = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="The folder.", show_default="attributes/<generator>-n<n>-seed<seed>"),
]
Compare = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="PATH",
        help="For samples: print the change in bias from PATH; as many as there are samples.",
        show_default=False,
    ),
]


@dataclass(frozen=True, kw_only=True)
class DrawFlags:
    """Which images of a generator."""

    PANEL: ClassVar = "Images of a generator"
    n: N = None
    seed: options.Seed = 0
    truncation: options.Truncation = 1.0
    label: options.Label = None
    out: Out = None


@options.flatten
def run(
    targets: Targets,
    model: Models,
    draw: DrawFlags,
    custom: options.CustomFlags,
    work: options.WorkFlags,
    output: options.OutputFlags,
    compare: Compare = None,
    trust: options.Trust = False,
) -> None:
    """Measure the share of images in each class, and its imbalance.

    For a generator, draws from its prior are rendered and scored, and their images are not kept; latents.npy and
    scores.npz are, and the same command goes on after a stop. For a sample, the class of each image is also written
    into metadata.jsonl. Imbalance is given as gap (largest less smallest share) and as total variation (share of images
    that would have to change class). Intervals are of 95 %: for one sample within this draw, for several of one length,
    from volumes of different seeds, Student's over them. --compare adds the change, by pairs where each comes from the
    volume of one of the samples.

    \b
    Examples:
      magnet attributes typical --model digits --compare prior
      magnet attributes mnist --n 2000 --model digits --out scored --json
    """
    paths = [Path(target).expanduser() for target in targets]
    if _are_samples(targets, paths, draw, compare):
        _annotate(output.console, paths, {"model": model, "compare": compare, "device": work.device, "trust": trust})
        return
    from magnet_cli.cli import references
    from magnet_cli.evaluating import score_generator

    console = output.console
    source = references.source(options.GeneratorFlags(generator=targets[0], **asdict(custom)))
    request = options.request(score_generator.ScoreRequest, draw, work, model=model, trust=trust)
    plan = score_generator.plan(source, request, console)
    safe = f"{{:,}} of {plan.spec.n:,} scores are in {plan.out}"
    steps = score_generator.run(plan, command_line(), console)
    report = plan.done or console.follow(steps, plan.spec.n, label="scoring", unit="images", safe=safe.format)
    console.result(report, str(plan.out))


def _are_samples(targets: list[str], paths: list[Path], draw: DrawFlags, compare: list[Path] | None) -> bool:
    """Return True for samples, False for a generator; refuse flags and names that do not go with them."""
    samples = any(path.is_dir() for path in paths)
    wrong = ["--compare"] if compare and not samples else []
    wrong += [f"--{name}" for name in ("n", "out") if getattr(draw, name) is not None and samples]
    if wrong:
        text = f"that is for a {'generator' if samples else 'sample'}, and {targets[0]} is a "
        raise typer.BadParameter(text + ("folder of images." if samples else "generator."), param_hint=wrong[0])
    others = [target for target, path in zip(targets, paths, strict=True) if not path.is_dir()]
    if others and len(targets) > 1:
        text = f"{others[0]} is no folder of images: of several samples each has to be one."
        raise typer.BadParameter(text, param_hint="GENERATOR|SAMPLE...")
    return samples


def _annotate(console: Console, paths: list[Path], values: dict) -> None:
    from magnet_cli.evaluating import annotate

    plan = annotate.plan(options.request(annotate.AnnotateRequest, samples=paths, **values))
    safe = "the scores of {:,} images are kept"
    report = console.follow(annotate.run(plan, console), plan.work, label="scoring", unit="images", safe=safe.format)
    console.note(f"n {report['n']:,}; 95 % intervals {report['interval']}")
    rows = []
    for name, summary in report["models"].items():
        rows += _rows(name, summary, "")
        equal = summary["at_equal_shares"].items()
        rows += [[name, f"{what.replace('_', ' ')} of equal shares", f"{value:.4f}", "", ""] for what, value in equal]
        if change := summary.get("change"):
            rows += [*_rows(name, change, "change in "), [name, "p of no change", f"{change['p_value']:.4g}", "", ""]]
    console.table(report, ["model", "what", "value", "low", "high"], rows)


def _rows(name: str, summary: dict, prefix: str) -> list[list[str]]:
    estimates = {f"share of {each}": share for each, share in summary["shares"].items()}
    estimates |= {"gap": summary["gap"], "total variation": summary["total_variation"]}
    return [
        [name, prefix + what, *(f"{each[end]:.4f}" for end in ("value", "low", "high"))]
        for what, each in estimates.items()
    ]
