"""magnet balance."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from magnet_cli.cli import options, scored_options
from magnet_cli.cli.console import command_line
from magnet_cli.cli.help import OUTPUT
from magnet_cli.files.text import quoted

N = Annotated[int, typer.Option("--n", "-n", min=1, help="Number of latents to choose.")]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="Folder of the sample.",
        show_default="samples/<SAMPLE>-balanced-n<n>-seed<seed>",
        rich_help_panel=OUTPUT,
    ),
]


@dataclass(frozen=True, kw_only=True)
class OutputFlags(options.OutputFlags):
    """Where the sample goes."""

    no_images: options.NoImages = False
    out: Out = None
    dry_run: options.DryRun = False
    force: options.Force = False


@options.flatten
def run(
    sample: scored_options.Source,
    n: N,
    scored: scored_options.ScoredFlags,
    work: options.WorkFlags,
    output: OutputFlags,
    attributes: scored_options.Attributes = None,
) -> None:
    """Choose latents with balanced combinations of attributes.

    All combinations become equally frequent. Keeps the latents that are confident about every attribute (--confidence);
    combinations of classes take turns, each with one of its latents, none twice. With --random the combination is drawn
    at random, as in Multi-Attribute Balanced Sampling: for a small n its shares vary. Prints how even the result is,
    how many latents each combination has, and the largest n before one runs out; a larger n is an error, or with
    --allow-unbalanced is drawn with a displaced share: the fraction of draws that are not where the target asks. A
    polarity sample is balanced within what polarity drew. The first m of n latents are those of --n m. Prints the
    folder, a sample like any other.

    \b
    Examples:
      magnet attributes mnist --n 2000 --model digits --out scored
      magnet balance scored --attributes digits --n 100 --out even
      magnet balance scored --n 50 --target digits:1=0.5 --no-images --out ones --json
    """
    from magnet_cli.editing import balanced_sample

    console = output.console
    request = options.request(
        balanced_sample.BalanceRequest, scored, work, output, sample=sample, n=n, attributes=attributes
    )
    plan = balanced_sample.plan(request, console)
    if plan.is_done or output.dry_run:
        console.result(plan.report, str(plan.out))
        return
    steps = balanced_sample.run(plan, command_line())
    report = console.follow_images(steps, plan.report["images"], plan.out)
    console.result(report, str(plan.out))
    if report["grid"]:
        console.note(f"look at {report['grid']}")
    console.hint(f"magnet direction {quoted(plan.out)} --attribute {quoted(plan.spec.attributes[0])}")
