"""magnet report."""

from pathlib import Path
from typing import Annotated

import typer

from magnet_cli.cli import completion, options

Target = Annotated[
    str,
    typer.Argument(
        metavar="PATH|NAME",
        help="Folder of a volume, a sample or a sweep; or name of a volume or generator.",
        autocompletion=completion.targets,
    ),
]
Compare = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="For a sample: compare it with this sample, or with a generator's attributes."),
]
Include = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE", help="For a sample: JSON output of `magnet evaluate` or `magnet attributes`; repeatable."
    ),
]
Of = Annotated[
    str | None,
    typer.Option("--generator", metavar="GENERATOR", help="For a volume: its generator, if not found by name."),
]
TopK = Annotated[
    int | None,
    typer.Option(min=1, help="For a volume: k of its log-volumes.", show_default="min(K, 30); all if D <= 32"),
]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="The page.", show_default="reports/<name>.html")]


@options.flatten
def run(
    target: Target,
    work: options.WorkFlags,
    output: options.OutputFlags,
    compare: Compare = None,
    include: Include = None,
    generator: Of = None,
    top_k: TopK = None,
    out: Out = None,
    force: options.Force = False,
) -> None:
    """Show a volume, a sample or a sweep on one HTML page.

    For a volume: spectrum, log-volumes, effective size over rho and k, and images of low, middle and high log-volume if
    its generator is on this machine. For a sample: contact sheets, log-volumes, metrics with intervals (each file of
    --include is a row of the table), and class shares, beside those of --compare. For a sweep: the chosen point, plots,
    images and all points. The page loads nothing and runs nothing. Prints its path.

    \b
    Examples:
      magnet report mnist-volume
      magnet report typical --compare prior
      magnet report typical --compare prior --include found.json --out typical.html --json
    """
    from magnet_cli.cli import references
    from magnet_cli.reporting import ReportRequest, kind_of, plan, run

    console, kind = output.console, kind_of(target)
    _refuse(kind, target, volume={"--generator": generator, "--top-k": top_k})
    _refuse(kind, target, sample={"--compare": compare, "--include": include})
    values = {
        "target": target,
        "compare": compare,
        "include": include or (),
        "top_k": top_k,
        "out": out,
        "force": force,
    }
    source = references.source(options.GeneratorFlags(generator=generator)) if generator else None
    page = plan(options.request(ReportRequest, work, **values), source, console)
    if page.is_done:
        console.note(f"{page.path} already is this report")
    safe = f"{page.path} is as it was"
    fields = console.follow(run(page), page.num_rows, label="reading", unit="rows", safe=lambda _: safe)
    console.result(fields, str(page.path))


def _refuse(kind: str, target: str, **flags: dict[str, object]) -> None:
    for other, typed in flags.items():
        for flag in (flag for flag, value in typed.items() if value and other != kind):
            raise typer.BadParameter(f"it is for a {other}, and {target} is a {kind}.", param_hint=flag)
