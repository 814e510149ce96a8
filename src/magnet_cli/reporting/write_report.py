"""The verb behind `magnet report`: find out what a path or name is, collect its report, write the page."""

import os
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from magnet_cli import index
from magnet_cli.catalog import entries
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.editing.kinds import EDIT
from magnet_cli.errors import MagnetError, SampleError, require
from magnet_cli.evaluating.kinds import ATTRIBUTES, SWEEP
from magnet_cli.files import documents, results
from magnet_cli.files.progress import Messages
from magnet_cli.reporting import findings, report, sample_section, sweep_section, volume_section
from magnet_cli.reporting.report import Subject
from magnet_cli.sampling import select
from magnet_cli.sampling.kinds import RENDERING, SAMPLE
from magnet_cli.sampling.select import VolumeRequest
from magnet_cli.volume import Volume

if TYPE_CHECKING:
    from magnet_cli.models import Generator as GeneratorModel
    from magnet_cli.sampling.select import Source

_HINT = "pass the folder that `magnet compute`, `sample` or `sweep` printed"


@dataclass(frozen=True, kw_only=True)
class ReportRequest:
    """What `magnet report` is asked for; the fields are its arguments and flags, described in docs/reference/cli.md."""

    target: str
    compare: Path | None = None
    include: tuple[Path, ...] = ()
    top_k: int | None = None
    out: Path | None = None
    device: str | None = None
    batch_size: int | None = None
    force: bool = False


@dataclass(frozen=True)
class ReportPlan:
    """A report to be written: `lead` is the sentence below its heading, `sections` yields numbers of rows read.

    `num_rows` counts the rows of a volume that will be read; it is 0 for a sample or a sweep.
    """

    subject: Subject
    path: Path
    is_done: bool
    num_rows: int
    lead: str
    sections: Callable[[], Generator[int, None, list[str]]]
    start: float
    force: bool = False


def kind_of(target: str) -> str:
    """Return "volume", "sample" or "sweep"; a name that is not a path is that of a volume.

    Raises:
        SampleError: the path is something else, or not finished.
    """
    path = Path(target).expanduser()
    if not path.exists() or (path / "volume.json").is_file():
        return "volume"
    kinds = (SAMPLE, SWEEP, RENDERING, EDIT, ATTRIBUTES)
    kind, hint = next((kind.name for kind in kinds if (path / kind.document).is_file()), ""), _HINT
    if kind in {SAMPLE.name, SWEEP.name}:
        return kind
    if not kind and (begun := results.unfinished(path)):
        kind, hint = f"{begun} that is not finished", "run the command that began it again"
    elif not kind:
        kind = "folder of other files" if path.is_dir() else "file"
    raise SampleError(f"a report shows a volume, a sample or a sweep, and {path} is a {kind}", hint)


def plan(request: ReportRequest, source: "Source | None", messages: Messages) -> ReportPlan:
    """Read what the report shows; the page is not written yet.

    Args:
        request: what is asked for.
        source: for a volume: its generator, where its name does not tell.
        messages: told which volume was chosen.

    Raises:
        SampleError: the target is something else, or the page would replace another file.
        VolumeError: there is no such volume.
        MagnetError: a file is damaged or cannot be read; matplotlib is not installed.
    """
    start = time.monotonic()
    require("matplotlib", "report")
    kind, path, num_rows = kind_of(request.target), Path(request.target).expanduser(), 0
    if kind == SAMPLE.name:
        drawn = sample_section.read(path)
        other = None if request.compare is None else sample_section.comparison(request.compare)
        included = [findings.read(each) for each in request.include]
        hashes = {str(each): documents.sha256_file(each) for each in request.include}
        subject, lead = sample_section.subject(drawn, other, hashes), sample_section.lead(drawn)
        sections = _at_once(lambda: sample_section.sections(drawn, other, included))
    elif kind == SWEEP.name:
        sweep = sweep_section.read(path)
        subject, lead = sweep_section.subject(sweep), sweep_section.lead(sweep)
        sections = _at_once(lambda: sweep_section.sections(sweep))
    else:
        volume, name = _volume(request, messages)
        built, _ = select.index_of(volume, request.top_k, messages)
        generator = source or _generator_of(volume)
        if source:
            select.find_volume(source, VolumeRequest(volume=volume.path), messages)
        subject = volume_section.subject(volume, built, name, getattr(generator, "sha256", str(generator)))
        lead, num_rows = volume_section.lead(volume.spec, built), built.num_rows
        sections = _of_volume(request, volume, built, generator, is_required=source is not None)
    page = request.out or report.default_out(subject)
    done = not request.force and report.finished(page, subject)
    return ReportPlan(subject, page, done, num_rows, lead, sections, start, request.force)


def run(plan: ReportPlan) -> Generator[int, None, dict[str, object]]:
    """Write the page, unless it is there, and return what the command prints of it.

    Yields:
        Number of rows of a volume that were read.

    Raises:
        MagnetError: no space, no permission; an older page is unchanged.
    """
    if not plan.is_done:
        sections = yield from plan.sections()
        seconds = time.monotonic() - plan.start
        report.write(plan.path, plan.subject, plan.lead, sections, seconds, force=plan.force)
    return report.fields(plan.path, plan.subject)


def _at_once(sections: Callable[[], list[str]]) -> Callable[[], Generator[int, None, list[str]]]:
    def steps() -> Generator[int, None, list[str]]:
        yield 0
        return sections()

    return steps


def _of_volume(
    request: ReportRequest, volume: Volume, built: index.Index, generator: "Source | str", *, is_required: bool
) -> Callable[[], Generator[int, None, list[str]]]:
    def steps() -> Generator[int, None, list[str]]:
        loaded: GeneratorModel | Source | str = generator
        if not isinstance(loaded, str):
            loaded = _loaded(loaded, volume, request.device, is_required=is_required)
        return (yield from volume_section.sections(volume, built, loaded, request.batch_size))

    return steps


def _volume(request: ReportRequest, messages: Messages) -> tuple[Volume, str]:
    """Return the volume of a request and its name."""
    target, entry = request.target, None
    if not Path(target).expanduser().exists() and os.sep not in target:
        entry = entries.find(target)
    if entry and entry.kind == "generator":
        wanted = VolumeRequest(top_k=request.top_k)
        volume = select.find_volume(Checkpoint.find(target, here=False), wanted, messages)
    else:
        volume = select.named_volume(target)
    return volume, target if entry and entry.kind == "volume" else volume.path.resolve().name


def _generator_of(volume: Volume) -> "Source | str":
    """Return the generator of a volume by its name, or the reason why there is none."""
    spec, hint = volume.spec, "so there are no images here: magnet report … --generator PATH shows them."
    artifact = entries.registry().get(spec.generator)
    if artifact is None or artifact.kind != "generator":
        return f"The generator {spec.generator} is not in the list of artifacts, {hint}"
    try:
        source = Checkpoint.find(artifact.name)
    except MagnetError as error:
        return f"There are no images here: {error.message}; {error.hint}."
    if spec.sha256 and source.sha256 != spec.sha256:
        return f"The generator {spec.generator} with these weights is not in the list of artifacts, {hint}"
    return source


def _loaded(source: "Source", volume: Volume, device: str | None, *, is_required: bool) -> "GeneratorModel | str":
    """Return the generator on its device, or the reason why it shows no images unless it is required."""
    spec = volume.spec
    try:
        generator = select.load(
            source, device, **select.settings(spec.bn_truncation or None, spec.nvae_latents or None)
        )
    except MagnetError as error:
        if is_required or device:
            raise
        return f"There are no images here: {error.message}."
    if generator.gives_images:
        return generator
    shape = "×".join(map(str, generator.image_shape))
    return f"{generator.name} gives arrays of {shape} numbers, which are no images of one colour or three."
