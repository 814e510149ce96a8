"""magnet import."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_cli.cli import console as console_
from magnet_cli.cli import options, parsers

if TYPE_CHECKING:
    from magnet_cli.catalog.checkpoint import Checkpoint

File = Annotated[Path, typer.Argument(metavar="FILE.npz", help="Arrays svds, latents and, with classes, labels.")]
Name = Annotated[str, typer.Argument(metavar="GENERATOR", help="Whose latents they are: a name, or a checkpoint.")]
Output = Annotated[str, typer.Option(metavar="NAME", help="Of what the Jacobian was taken: pixel, style, …")]
Class = Annotated[
    parsers.ClassLabel | None,
    typer.Option(
        "--label", parser=parsers.class_label, metavar="CLASS", help="Of all rows, where the file has no labels."
    ),
]
Family = Annotated[
    str | None, typer.Option(help="Of a checkpoint that this magnet cannot build.", show_default="by the file")
]


def run(
    file: File,
    generator: Name,
    output: Output = "pixel",
    space: options.Space = options.SpaceName.z,
    truncation: options.Truncation = 1.0,
    label: Class = None,
    family: Family = None,
    volume: options.VolumePath = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Make a volume of published arrays.

    An npz file, as the authors of MaGNET published them: svds and latents, one row a latent (leading axes are taken as
    rows), labels one-hot. Rows of zeros, which were never filled, are left out and counted; values are sorted; values
    that are negative or not finite are refused. The volume is indexed and drawn from like any other, and takes no rows
    of another solver. GENERATOR need not be in the cache: its name says which it is. Prints the volume's path.

    \b
    Examples:
      magnet import digits.npz mnist
      magnet import digits.npz mnist --volume digits-again.vol --json
    """
    from magnet_cli.catalog import cache
    from magnet_cli.catalog.checkpoint import Checkpoint
    from magnet_cli.sharing import npz
    from magnet_cli.volume import Volume

    console = console_.Console(as_json=json, quiet=quiet)
    checkpoint = Checkpoint.find(generator, here=False)
    archive = npz.open_archive(file)
    kind, prior = _family_and_prior(checkpoint, family, archive.latents.width)
    about = {"space": space.value, "output": output, "truncation": truncation, "family": kind, "prior": prior}
    if label:
        about |= {"label": (label.number,), "num_classes": _num_classes(checkpoint)}
    spec = npz.spec(archive, generator=checkpoint.name, sha256=checkpoint.sha256, **about)
    path = volume or cache.volume_path(checkpoint.name, spec.fingerprint)
    filled = Volume.planned(path, spec)
    if not filled.exists:
        tally = npz.inspect(archive)
        counts = {"rows": tally.rows, "dropped_rows": tally.dropped_rows, "sorted_rows": tally.sorted_rows}
        filled = Volume.create(path, spec, measured={"imported": counts | {"file": file.name}})
    counts = filled.measured["imported"]
    rows, new = counts["rows"], counts["rows"] - filled.num_rows
    try:
        with console.progress(f"importing {file.name}", new, "rows") as advance:
            for _, more in npz.fill(filled, archive, rows):
                advance(more)
    except KeyboardInterrupt:
        safe = f"{filled.num_rows:,} of {rows:,} rows are safe in {path}"
        console_.show_stopped(f"stopped: {safe}; the same command goes on from there")
        raise
    if not new:
        console.note(f"{path} already holds these {rows:,} rows")
    if counts["dropped_rows"]:
        console.note(f"{counts['dropped_rows']:,} rows of zeros were left out: they were never filled")
    if counts["sorted_rows"]:
        console.note(f"in {counts['sorted_rows']:,} rows the singular values were put into descending order")
    if spec.top_k < archive.svds.width:
        console.note(f"the last singular value is left out: {kind} normalises z, along which no image changes")
    fields = {"volume": str(path), "generator": checkpoint.name, "fingerprint": spec.fingerprint, "rows": rows}
    fields |= {name: counts[name] for name in ("dropped_rows", "sorted_rows")} | {"top_k": spec.top_k}
    console.result(fields, str(path))
    console.hint(f"magnet index {generator}" + (f" --volume {volume}" if volume else ""))


def _num_classes(checkpoint: "Checkpoint") -> int:
    """Of the generator, where its weights are here; else those of ImageNet."""
    from magnet_cli import models
    from magnet_cli.catalog import imagenet

    return models.load(checkpoint, device="cpu").num_classes if checkpoint.path.exists() else imagenet.COUNT


def _family_and_prior(checkpoint: "Checkpoint", family: str | None, latent_dim: int) -> tuple[str, str]:
    """What is known of the generator: from its weights where they are here and can be built, else from its name."""
    from magnet_cli.catalog import entries
    from magnet_cli.errors import VolumeError

    known = family or checkpoint.family
    if family or not checkpoint.path.exists():
        return known, entries.prior_of(known)
    from magnet_cli import models

    if known and known not in models.FAMILIES:
        return known, entries.prior_of(known)
    loaded = models.load(checkpoint, device="cpu")
    if loaded.latent_dim != latent_dim:
        message = f"the latents in the file have {latent_dim} numbers, those of {checkpoint.name} {loaded.latent_dim}"
        raise VolumeError(message, "pass the generator that they belong to")
    return loaded.family, loaded.prior.kind
