"""magnet report."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_cli.cli import completion, options
from magnet_cli.cli.console import Console
from magnet_cli.errors import MagnetError

if TYPE_CHECKING:
    from magnet_cli.cli import lookup
    from magnet_cli.models import Generator
    from magnet_cli.reporting import Subject
    from magnet_cli.volume import Volume

Target = Annotated[
    str,
    typer.Argument(
        metavar="PATH|NAME",
        help="A volume, a sample or a sweep; or the name of a volume or generator.",
        autocompletion=completion.targets,
    ),
]
Compare = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH", help="Of a sample: what it is shown beside, a sample or what `magnet attributes` kept."
    ),
]
Include = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        help="Of a sample: a row each, what `magnet evaluate --json` or `attributes --json` printed; repeatable.",
    ),
]
Of = Annotated[
    str | None,
    typer.Option("--generator", metavar="GENERATOR", help="Of a volume: its generator, where its name does not tell."),
]
TopK = Annotated[
    int | None,
    typer.Option(min=1, help="Of a volume: k of its log-volumes.", show_default="min(K, 30), all where D <= 32"),
]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="The page.", show_default="reports/<name>.html")]


def run(
    target: Target,
    compare: Compare = None,
    include: Include = None,
    generator: Of = None,
    top_k: TopK = None,
    out: Out = None,
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Show a volume, a sample or a sweep on one HTML page.

    Of a volume: its spectrum, log-volumes, effective size over rho and k, and images of low, middle and high volume,
    where its generator is here. Of a sample: its contact sheets, log-volumes, metrics with intervals (each file of
    --include is a row of the table), and shares of classes beside those of --compare. Of a sweep: what was picked, its
    plots, images and every point. The page loads nothing and runs nothing. Prints its path.

    \b
    Examples:
      magnet report mnist-volume
      magnet report typical --compare prior
      magnet report typical --compare prior --include found.json --out typical.html --json
    """
    from magnet_cli import reporting
    from magnet_cli.errors import require

    require("matplotlib", "report")
    start = time.monotonic()
    console = Console(as_json=json, quiet=quiet)
    path = Path(target).expanduser()
    kind = _kind(path)
    of_sample = {"--compare": compare, "--include": include}
    _refuse(kind, target, volume={"--generator": generator, "--top-k": top_k}, sample=of_sample)
    if kind == "sample":
        subject, lead, sections = _of_sample(path, compare, include or [])
    elif kind == "sweep":
        subject, lead, sections = _of_sweep(path)
    else:
        subject, lead, sections = _of_volume(console, target, generator, top_k, device, batch_size)
    page = out or reporting.default_out(subject)
    fields = {"report": str(page), "kind": subject.kind, "name": subject.name}
    if not force and reporting.finished(page, subject):
        console.note(f"{page} already is this report")
    else:
        reporting.write(page, subject, lead, sections())
    fields |= {"size": page.stat().st_size, "seconds": round(time.monotonic() - start, 3)}
    console.result(fields, str(page))


def _kind(path: Path) -> str:
    """What is at a path: a volume, sample or sweep; where nothing is, a name stands for a volume.

    Raises:
        SampleError: it is something else, or not finished.
    """
    from magnet_cli.cli.describe import KINDS
    from magnet_cli.errors import SampleError
    from magnet_cli.files import results

    if not path.exists() or (path / "volume.json").is_file():
        return "volume"
    found = next((kind.name for kind in KINDS if (path / kind.document).is_file()), "")
    hint = "pass the folder that `magnet compute`, `sample` or `sweep` printed"
    if found in {"sample", "sweep"}:
        return found
    if not found and (begun := results.unfinished(path)):
        found, hint = f"{begun} that is not finished", "run the command again that began it"
    elif not found:
        found, hint = "folder of other files" if path.is_dir() else "file", "pass the folder that a command printed"
    message = f"{path} is asked for as a volume, a sample or a sweep, and is a {found}"
    raise SampleError(message, hint)


def _refuse(kind: str, target: str, **flags: dict[str, object]) -> None:
    """A usage error where a flag was typed that says nothing of this kind."""
    for other, typed in flags.items():
        for flag in (flag for flag, value in typed.items() if value and other != kind):
            message = f"it is for a {other}, and {target} is a {kind}."
            raise typer.BadParameter(message, param_hint=flag)


Parts = tuple["Subject", str, Callable[[], list[str]]]  # what it is of, its lead, and what makes its sections


def _of_sample(path: Path, compare: Path | None, include: list[Path]) -> Parts:
    from magnet_cli.files import documents
    from magnet_cli.reporting import findings, sample_section

    drawn, other = sample_section.read(path), None if compare is None else sample_section.comparison(compare)
    found = [findings.read(each) for each in include]
    subject = sample_section.subject(drawn, other, {str(each): documents.sha256_file(each) for each in include})
    return subject, sample_section.lead(drawn), lambda: sample_section.sections(drawn, other, found)


def _of_sweep(path: Path) -> Parts:
    from magnet_cli.reporting import sweep_section

    found = sweep_section.read(path)
    return sweep_section.subject(found), sweep_section.lead(found), lambda: sweep_section.sections(found)


def _of_volume(
    console: Console, target: str, typed: str | None, top_k: int | None, device: str | None, batch: int | None
) -> Parts:
    from magnet_cli.catalog import entries
    from magnet_cli.cli import lookup
    from magnet_cli.reporting import volume_section

    named = None
    if not Path(target).expanduser().exists() and os.sep not in target:
        named = entries.find(target)
    if named and named.kind == "generator":
        wanted = lookup.Wanted(top_k, "z", "pixel", 1.0, None, None)
        found = lookup.volume(lookup.source(target, here=False), console, None, wanted)
    else:
        found = lookup.named_volume(target)
    built, _ = lookup.index_of(found, top_k, console)
    source = _source(console, found, typed)
    name = target if named and named.kind == "volume" else found.path.resolve().name
    subject = volume_section.subject(found, built, name, source if isinstance(source, str) else source.sha256)

    def sections() -> list[str]:
        shown = source if isinstance(source, str) else _loaded(source, found, device, typed=typed is not None)
        with console.progress("reading", built.num_rows, "rows") as advance:
            return volume_section.sections(found, built, shown, advance, batch)

    return subject, volume_section.lead(found.spec, built), sections


def _source(console: Console, volume: "Volume", typed: str | None) -> "lookup.Source | str":
    """The generator of a volume: the one that was typed, or that of its name in the list; or why there is none.

    Raises:
        MagnetError: the one that was typed is not that of the volume.
    """
    from magnet_cli.catalog import cache, entries
    from magnet_cli.cli import lookup

    spec = volume.spec
    if typed:
        source = lookup.source(typed)
        lookup.volume(source, console, volume.path, lookup.Wanted(None, spec.space, spec.output, 1.0, None, None))
        return source
    unknown = f"The generator {spec.generator} is not in the list of artifacts"
    artifact = entries.registry().get(spec.generator)
    if artifact is None or artifact.kind != "generator":
        return f"{unknown}, so there are no images here: magnet report … --generator PATH shows them."
    try:
        source = cache.checkpoint(artifact.name)
    except MagnetError as error:
        return f"There are no images here: {error.message}; {error.hint}."
    if spec.sha256 and source.sha256 != spec.sha256:
        return (
            f"{unknown} with these weights, so there are no images here: magnet report … --generator PATH shows them."
        )
    return source


def _loaded(source: "lookup.Source", volume: "Volume", device: str | None, *, typed: bool) -> "Generator | str":
    """The generator on its device; or, where it was not typed, why it cannot show anything.

    Raises:
        MagnetError: it was typed, and cannot be loaded.
    """
    from magnet_cli import models

    spec = volume.spec
    given = dict(options.settings(spec.bn_truncation or None, spec.nvae_latents or None))
    try:
        found = models.load(source, device=device or models.default_device(), **given)
    except MagnetError as error:
        if typed or device:
            raise
        return f"There are no images here: {error.message}."
    if found.gives_images:
        return found
    shape = "×".join(map(str, found.image_shape))
    return f"{found.name} gives arrays of {shape} numbers, which are no images of one colour or three."
