"""Draw a sample: from a request to a volume and its index, to rows or tempered latents, to a folder of images.

Needs torch only where images are rendered or latents are tempered.
"""

import time
from collections.abc import Generator as Steps
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from magnet_cli import index
from magnet_cli.catalog import references
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.errors import SpecError
from magnet_cli.files.progress import SILENT, Messages, Progress
from magnet_cli.files.results import ResultFolder
from magnet_cli.index import Draw, Index
from magnet_cli.sampling import sample_folder, select
from magnet_cli.sampling.kinds import GRID, LARGEST_RHO, SAMPLE
from magnet_cli.sampling.sample_folder import Sample, SampleSpec
from magnet_cli.sampling.select import VolumeRequest
from magnet_cli.volume import Volume

if TYPE_CHECKING:
    from torch import nn

    from magnet_cli.sampling.select import Source
    from magnet_cli.sampling.tempered.plan import TemperedPlan


@dataclass(frozen=True, kw_only=True)
class SampleRequest(VolumeRequest):
    """Flags of `magnet sample` (docs/reference/cli.md); fields that are None have the defaults named there."""

    n: int = 64
    rho: float = 1.0
    seed: int = 0
    replace: bool = False
    pool: int | None = None
    classes: str = "natural"
    mix: float = 1.0
    correct_prior: bool = False
    prior_mass: float | None = None
    format: str | None = None
    no_images: bool = False
    montage: tuple[float, ...] = ()
    method: str = "reweight"
    particles: int | None = None
    out: Path | None = None
    device: str | None = None
    batch_size: int | None = None
    dry_run: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        ranges = {
            "n": self.n >= 1,
            "rho": abs(self.rho) <= LARGEST_RHO,
            "seed": self.seed >= 0,
            "mix": 0 <= self.mix <= 1,
        }
        ranges |= {"truncation": 0 < self.truncation <= 1, "classes": self.classes in {"natural", "equal"}}
        ranges["method"] = self.method in {"reweight", "tempered"}
        for name in (name for name, right in ranges.items() if not right):
            raise SpecError(f"`{name}={getattr(self, name)!r}` is outside its range", f"pass another `{name}`")
        of_rows = {"replace": self.replace, "pool": self.pool is not None, "classes": self.classes == "equal"}
        of_rows |= {"mix": self.mix < 1, "correct_prior": self.correct_prior}
        for name in (name for name, value in of_rows.items() if value and self.method == "tempered"):
            raise SpecError(
                f"`{name}` says which rows of a volume are drawn, and `method='tempered'` draws none",
                f"leave `{name}` out",
            )

    @property
    def needs_generator(self) -> bool:
        """Whether the generator has to be on this machine."""
        return self.method == "tempered" or not self.no_images


@dataclass(frozen=True)
class SamplePlan:
    """A sample that can be made: volume, index and rows are chosen.

    `report` is what the command prints, "seconds" last; `done` is that of the same sample, finished before, or None;
    `draw` are the rows, None for new latents; `tempered` makes new latents, None for rows.
    """

    request: SampleRequest
    source: "Source"
    volume: Volume
    spec: SampleSpec
    folder: Path
    report: dict[str, Any]
    done: dict[str, Any] | None
    draw: Draw | None
    tempered: "TemperedPlan | None"
    start: float = field(default_factory=time.monotonic)


def plan(source: "Source", request: SampleRequest, messages: Messages = SILENT) -> SamplePlan:
    """Choose volume, index and rows, and tell how far the draw is what the weights ask for."""
    start = time.monotonic()
    resolved = select.resolve(source, request, messages, rendered=True)
    volume, built = resolved.volume, resolved.index
    equal = request.classes == "equal"
    if request.correct_prior:
        which = (request.prior_mass, request.truncation, request.labels)
        built = select.corrected(built, volume, messages, *which, equal=equal)
    built = index.of_labels(index.first(built, request.pool), volume, request.labels, equal=equal)
    spec = _spec(source, request, volume, built)
    names = ("volume", "solver", "precision", "nvae_latents")
    chosen = any(getattr(request, name) for name in names) or (request.space, request.output) != ("z", "pixel")
    default = sample_folder.default_out(spec, pool=request.pool, top_k=request.top_k, chosen=chosen)
    folder = request.out or default
    done = None if request.force else ResultFolder(folder, SAMPLE).finished(spec)
    report, draw, tempered = sample_folder.described(spec, folder), None, None
    if spec.particles:
        from magnet_cli.sampling.tempered import plan as tempered_plan

        settings = select.settings(request.bn_truncation, volume.spec.nvae_latents or None)
        parts = (source, volume, built, spec, request.output, request.device, settings, messages)
        tempered = tempered_plan.plan(*parts, needed=request.dry_run or not done)
        report |= tempered.report | {"target": index.target(built, spec.rho, volume.spec, None, spec.truncation)}
    else:
        draw = index.draw(built, spec.n, spec.rho, spec.seed, replace=spec.replace, mix=spec.mix)
        target = index.target(built, spec.rho, volume.spec, draw, spec.truncation)
        report |= sample_folder.numbers(spec, draw) | {"target": target, "rescaled": index.rescales(volume.spec)}
        _tell(messages, report, index.warnings(draw, spec.rho, replace=spec.replace))
    return SamplePlan(request, source, volume, spec, folder, report | {"seconds": None}, done, draw, tempered, start)


def _spec(source: "Source", request: SampleRequest, volume: Volume, built: Index) -> SampleSpec:
    tempered = request.method == "tempered"
    same = ("n", "rho", "seed", "replace", "truncation", "classes", "mix", "correct_prior", "no_images", "montage")
    return SampleSpec(
        generator=source.name,
        sha256=source.sha256,
        fingerprint=volume.fingerprint,
        pool=0 if tempered else built.num_rows,
        top_k=built.top_k,
        label=request.labels,
        bn_truncation=request.statistics,
        prior_mass=built.ball.prior_mass if built.ball else 0.0,
        format=request.format or "png",
        method=request.method,
        particles=(request.particles or sample_folder.PARTICLES) if tempered else 0,
        **{name: getattr(request, name) for name in same},
    )


def _tell(messages: Messages, report: dict[str, Any], warnings: list[str]) -> None:
    messages.note(
        "rho {rho:g}, top_k {top_k}: effective size {effective_size:,.1f} of {pool:,} rows, "
        "displaced share {displaced_share:.3f}, {unique_rows:,} different rows in {n:,}; "
        "the heaviest 1 % carry {top_share:.1%} of the weight; ".format(**report)
        + f"largest useful rho {report['largest_useful_rho']:.2g}"
    )
    messages.note(f"target: {report['target']}")
    if report["rescaled"]:
        messages.note(index.RESCALED)
    for warning in warnings:
        messages.warning(warning)


def run(plan: SamplePlan, command: list[str], messages: Messages = SILENT) -> Steps[int, None, dict[str, Any]]:
    """Make a planned sample that is not done; yield as `sample_folder.write`, and return the report.

    Tempered latents have to be at their end (`plan.tempered.steps`).
    """
    with ResultFolder(plan.folder, SAMPLE).writing(plan.spec, force=plan.request.force) as done:
        return done or (yield from _write(plan, command, messages))


def _write(plan: SamplePlan, command: list[str], messages: Messages) -> Steps[int, None, dict[str, Any]]:
    request, spec, volume, report = plan.request, plan.spec, plan.volume, dict(plan.report)
    if plan.tempered is not None:
        from magnet_cli.sampling.tempered import plan as tempered_plan

        contents, fields = tempered_plan.contents(plan.tempered, messages)
        report |= fields
        if not fields["converged"]:
            report["target"] = f"not converged to: {report['target']}"
    generator = None
    if not spec.no_images:
        from magnet_cli.sampling import render

        settings = select.settings(request.bn_truncation, volume.spec.nvae_latents or None)
        generator = select.load(plan.source, request.device, **settings)
        render.check_format(generator, "montage.png" if request.montage else request.format or "npy")
    if plan.draw is not None:
        contents = sample_folder.rows_of(spec, plan.draw, volume)
    if request.force:
        ResultFolder(plan.folder, SAMPLE).discard()
    yield from sample_folder.write(plan.folder, spec, contents, volume, generator, request.batch_size)
    if (grid := plan.folder / GRID).exists():
        report["grid"] = str(grid)
    report["seconds"] = round(time.monotonic() - plan.start, 3)
    sample_folder.finish(plan.folder, spec, contents, volume, command, report)
    return report


def sample_steps(
    generator: "Source | nn.Module | Path | str",
    n: int = 64,
    rho: float = 1.0,
    *,
    messages: Messages = SILENT,
    **options: Any,
) -> Steps[int, None, Sample]:
    """Draw a sample as `sample` does, step by step.

    Yields:
        Number of images that were written since the last time.

    Returns:
        The sample.

    >>> list(sample_steps("mnist", 6, 0.2, out="six", batch_size=4))
    [4, 2]
    """
    if isinstance(volume := options.get("volume"), Volume):
        options["volume"] = volume.path
    paths = {name: Path(options[name]) for name in ("volume", "out") if options.get(name) is not None}
    planned = plan(_source(generator), SampleRequest(n=n, rho=rho, **options | paths), messages)
    if not planned.done:
        for _ in planned.tempered.steps() if planned.tempered else ():
            yield 0
        yield from run(planned, [], messages)
    return Sample.open(planned.folder)


def sample(
    generator: "Source | nn.Module | Path | str",
    n: int = 64,
    rho: float = 1.0,
    *,
    out: str | Path | None = None,
    volume: Volume | str | Path | None = None,
    top_k: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> Sample:
    """Draw n latents with weight exp(rho · log-volume), render them, and write them into a folder.

    The same call finds its sample again, and goes on where an earlier one was stopped.

    Args:
        generator: as `load` returns it; or what `load` takes.
        n: number of images; the first m of n are those of n = m.
        rho: the polarity: 0 the generator as it is, < 0 its modes, > 0 its anti-modes, 1 MaGNET sampling.
        out: the folder; default samples/<generator>-rho<rho>-n<n>-seed<seed>.
        volume: the volume to draw from, or its folder; default the longest here that fits the generator.
        top_k: k, leading singular values in the log-volume; default min(K, 30), all K where the latent has at most 32
            numbers.
        seed: seed of the draw.
        progress: called with (images written, n).
        **options: other fields of SampleRequest, with its defaults: `truncation`, `label`, `replace`, `mix`, `pool`,
            `classes`, `correct_prior`, `method`, `particles`, `format`, `no_images`, `device`, `batch_size`, `force`, …

    Returns:
        The finished sample.

    Raises:
        VolumeError: there is no volume of this generator, or it has fewer than n rows.
        SpecError: an argument is outside its range, or does not fit the volume.
        SampleError: the folder holds something else.
        MagnetError: no space, no permission; what was written stays.

    Weights: polarity sampling, Humayun, Balestriero and Baraniuk 2022 (CVPR); rho 1: MaGNET, 2022 (ICLR).

    >>> drawn = sample("mnist", 4, 0.5, out="four")
    >>> drawn
    Sample('four': 4 images of mnist at rho 0.5)
    >>> drawn.images.shape, drawn.latents.shape
    ((4, 32, 32, 1), (4, 16))
    >>> drawn.report["displaced_share"] < 0.05
    True
    """
    named: dict[str, Any] = {"out": out, "volume": volume, "top_k": top_k, "seed": seed}
    drawing, written = sample_steps(generator, n, rho, **named, **options), 0
    while True:
        try:
            written += next(drawing)
        except StopIteration as end:
            return cast(Sample, end.value)
        if progress:
            progress(written, n)


def _source(generator: "Source | nn.Module | Path | str") -> "Source":
    """Return what a caller from Python means; a name or a path is not loaded before images are made."""
    if hasattr(generator, "sha256"):
        return cast("Source", generator)
    if isinstance(generator, str | Path) and not references.is_factory(str(generator)):
        return Checkpoint.find(str(generator))
    from magnet_cli import models

    return models.load(cast("Any", generator), device=models.default_device())
