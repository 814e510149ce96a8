"""magnet balance."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_cli.cli import options, scored_options
from magnet_cli.cli.console import Console
from magnet_cli.errors import SampleError

if TYPE_CHECKING:
    from magnet_cli.editing.balance import Selection, Table

N = Annotated[int, typer.Option("--n", min=1, help="Latents to choose.")]
AllowUnbalanced = Annotated[
    bool, typer.Option("--allow-unbalanced", help="Choose on where a combination has run out, and say by how much.")
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="The sample's folder.", show_default="samples/<SAMPLE>-balanced-n<n>-seed<seed>"),
]


def run(
    sample: scored_options.Source,
    n: N,
    attributes: scored_options.Attributes = None,
    confidence: scored_options.Confidence = None,
    cut: scored_options.Cut = None,
    target: scored_options.Shares = None,
    even: scored_options.Even = False,
    scores: scored_options.Scores = None,
    seed: options.Seed = 0,
    allow_unbalanced: AllowUnbalanced = False,
    generator: scored_options.OfGenerator = None,
    no_images: options.NoImages = False,
    out: Out = None,
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    dry_run: options.DryRun = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Choose latents with balanced combinations of attributes.

    Of the latents whose every attribute is sure (--confidence), draws a random combination of classes, then one of its
    latents, none twice: Multi-Attribute Balanced Sampling. At a small n the numbers drawn vary; with --even
    combinations take turns instead. Says how many there are of each combination, and how far n can go before one runs
    out; beyond that it stops, or with --allow-unbalanced says which share of the draw is not where the target asks. Of
    a polarity sample it balances what polarity drew. The first m of n are those of --n m. Prints the folder, a sample
    like any other.

    \b
    Examples:
      magnet attributes mnist --n 2000 --model digits --out scored
      magnet balance scored --attributes digits --n 100 --out even
      magnet balance scored --n 50 --target digits:1=0.5 --no-images --out ones --json
    """
    from magnet_cli.editing import balance, balanced_sample
    from magnet_cli.editing.scored import open_scored
    from magnet_cli.files.results import ResultFolder
    from magnet_cli.sampling.kinds import SAMPLE

    start = time.monotonic()
    console = Console(as_json=json, quiet=quiet)
    found = open_scored(sample.expanduser(), scores, attributes or (), dict(cut or ()))
    chosen_from = tuple(found.attributes.values())
    asked = scored_options.target(chosen_from, target)
    t = scored_options.CONFIDENCE if confidence is None else confidence
    table = balance.tabulate(chosen_from, t, asked, even=even)
    spec = balanced_sample.BalanceSpec(
        generator=found.generator,
        sha256=found.sha256,
        fingerprint=found.fingerprint,
        source=found.source,
        attributes=tuple(found.attributes),
        cut=scored_options.cut_words(cut),
        confidence=t,
        target=scored_options.words(asked, chosen_from),
        n=n,
        seed=seed,
        even=even,
        truncation=found.truncation,
        no_images=no_images,
    )
    folder = out or balanced_sample.default_out(found, spec)
    done = None if force else ResultFolder(folder, SAMPLE).finished(spec)
    if done and not dry_run:
        console.note(f"{folder} already holds this sample")
        console.result(done, str(folder))
        return
    try:
        selected = balance.draw(table, n, seed, allow_unbalanced=allow_unbalanced)
    except SampleError:
        scored_options.tell(console, table, len(found))
        raise
    report = _report(folder, spec.generator, n, table, selected, seed)
    report |= {"images": 0 if no_images else n, "seconds": None}
    _tell(console, report, table, len(found))
    if dry_run:
        what = "latents" if no_images else "images"
        console.note(f"{n:,} {what} would be written to {folder}; nothing was done")
        console.result(report, str(folder))
        return
    needed = balanced_sample.check_source(found, no_images=no_images, generator=generator)
    loaded = scored_options.load_generator(found, generator, device) if needed else None
    if force:
        ResultFolder(folder, SAMPLE).discard()
    steps = balanced_sample.write(folder, spec, found, selected, loaded, batch_size)
    console.follow_images(steps, report["images"], folder)
    report["seconds"] = round(time.monotonic() - start, 3)
    balanced_sample.finish(folder, spec, found, table, selected, ["magnet", *sys.argv[1:]], report)
    console.result(report, str(folder))
    if (folder / "grid.png").exists():
        console.note(f"look at {folder / 'grid.png'}")
    console.hint(f"magnet direction {folder} --attribute {spec.attributes[0]}")


def _report(folder: Path, generator: str, n: int, table: "Table", chosen: "Selection", seed: int) -> dict:
    """What the command prints."""
    import numpy as np

    from magnet_cli.editing import balance, balanced_sample

    drawn = np.bincount(chosen.cells, minlength=len(table.counts))
    cells = [
        {"classes": table.classes(cell), "latents": int(table.counts[cell])}
        | {"target": float(table.target[cell]), "drawn": int(drawn[cell]), "share": float(drawn[cell] / n)}
        for cell in range(len(table.counts))
    ]
    report = {"sample": str(folder), "n": n, "generator": generator, "attributes": [a.name for a in table.attributes]}
    report |= {
        "confidence": table.confidence,
        "seed": seed,
        "even": table.even,
        "pool": len(table.cells),
        "kept": table.kept,
    }
    report |= {"largest_balanced_n": balance.largest(table, seed), "displaced_share": chosen.displaced_share}
    shares = {each.name: fields["shares"] for each, fields in balanced_sample.tallies(table, chosen)}
    report["shares"] = {name: {c: s["value"] for c, s in each.items()} for name, each in shares.items()}
    return report | {"cells": cells}


def _tell(console: Console, report: dict, table: "Table", num_rows: int) -> None:
    """The report in words."""
    scored_options.tell(console, table, num_rows, [cell["drawn"] for cell in report["cells"]])
    for name, shares in report["shares"].items():
        console.note(f"{name}: " + ", ".join(f"{each} {share:.4f}" for each, share in shares.items()))
    n, most, displaced = (report[key] for key in ("n", "largest_balanced_n", "displaced_share"))
    console.note(f"balanced up to n {most:,}")
    if n > most:
        missing = len(table.missing)
        why = f"{missing:,} combinations never occur" if missing else "the rarest combinations ran out"
        console.warning(
            f"{why}: {displaced:.1%} of the {n:,} draws are not where the target asks (displaced share {displaced:.4f})"
        )
