"""Render latents of a file into a folder: one image each, or all of them in one array."""

import time
from collections.abc import Generator as Steps
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from magnet_cli.errors import SpecError
from magnet_cli.files import documents, npy
from magnet_cli.files.results import ResultFolder
from magnet_cli.models import Generator, is_image_shape
from magnet_cli.models.batches import arrays_of
from magnet_cli.models.batches import batch_size as default_batch_size
from magnet_cli.sampling import image_writer, select
from magnet_cli.sampling.kinds import RENDERING

if TYPE_CHECKING:
    from magnet_cli.sampling.select import Source


def render(
    generator: Generator,
    latents: np.ndarray,
    *,
    labels: np.ndarray | None = None,
    batch_size: int | None = None,
) -> np.ndarray:
    """Render latents.

    Args:
        generator: as `load` returns it.
        latents: [n, D] floating, n ≥ 1.
        labels: [n] int64, for a generator that takes labels.
        batch_size: images at a time; default by the size of the generator.

    Returns:
        [n, C, H, W] float32 in about [-1, 1].

    Raises:
        SpecError: latents of another size; labels are missing, or passed to a generator that takes none.

    >>> from magnet_cli.models import load
    >>> generator = load("mnist")
    >>> latents, labels = generator.prior.draw(4, seed=0)
    >>> render(generator, latents).shape
    (4, 1, 32, 32)
    """
    latents = np.asarray(latents)
    check_latents(generator, latents, "z", labelled=labels is not None)
    size = batch_size or default_batch_size(generator)
    rows = arrays_of(generator, latents, 1.0, size, labels)
    return np.concatenate([rows(slice(start, start + size)) for start in range(0, len(latents), size)])


@dataclass(frozen=True)
class RenderSpec:
    """What decides which images a rendering holds.

    `sha256` is that of the checkpoint, `latents` and `labels` those of the files, "" where there is none;
    `bn_truncation` is 0 where it is `truncation`; `image_range` is that of code of the user's own.
    """

    generator: str
    sha256: str
    latents: str
    labels: str
    n: int
    space: str
    truncation: float
    bn_truncation: float = 0.0
    nvae_latents: str = "top"
    image_range: tuple[float, ...] = ()
    format: str = "png"


@dataclass(frozen=True, kw_only=True)
class RenderRequest:
    """Flags of `magnet render` (docs/reference/cli.md); fields that are None have the defaults named there."""

    latents: Path
    labels: Path | None = None
    space: str = "z"
    truncation: float = 1.0
    bn_truncation: float | None = None
    nvae_latents: str | None = None
    format: str | None = None
    out: Path | None = None
    device: str | None = None
    batch_size: int | None = None
    dry_run: bool = False
    force: bool = False


@dataclass(frozen=True)
class RenderPlan:
    """A rendering that can be made: everything is looked up, read and checked.

    `report` is what the command prints, "seconds" last; `done` is that of the same rendering, finished before, or None;
    `generator` is None where there is nothing to do; `latents` [n, D] are read from their file where they are used.
    """

    spec: RenderSpec
    folder: Path
    request: RenderRequest
    report: dict[str, Any]
    done: dict[str, Any] | None
    latents: np.ndarray
    generator: Generator | None = None
    labels: np.ndarray | None = None
    start: float = field(default_factory=time.monotonic)


def plan(source: "Source", request: RenderRequest) -> RenderPlan:
    """Read the latents, load the generator, and check that they fit; where the rendering is done, do neither."""
    latents = npy.latents(request.latents)
    shape = getattr(source, "image_shape", None)  # of code of the user's own, on which the default format depends
    spec = RenderSpec(
        source.name,
        source.sha256,
        documents.sha256_file(request.latents),
        documents.sha256_file(request.labels) if request.labels else "",
        n=len(latents),
        space=request.space,
        truncation=request.truncation,
        bn_truncation=select.statistics(request.bn_truncation, request.truncation),
        nvae_latents=request.nvae_latents or "top",
        image_range=getattr(source, "image_range", ()),
        format=request.format or ("png" if shape is None or is_image_shape(shape) else "npy"),
    )
    fields = {
        name: value for name, value in asdict(spec).items() if name not in {"generator", "sha256", "latents", "n"}
    }
    usual = {"labels": "", "space": "z", "truncation": 1.0, "bn_truncation": 0.0, "nvae_latents": "top"}
    other = any(fields[name] != value for name, value in usual.items()) or request.format not in {None, "png"}
    settings = f"-{documents.sha256_bytes(documents.canonical(fields))[:8]}" * other
    folder = request.out or Path("renders") / f"{spec.generator}-{request.latents.stem}-{spec.latents[:8]}{settings}"
    report = {"out": str(folder), "n": spec.n, "generator": spec.generator, "format": spec.format, "seconds": None}
    done = None if request.force else ResultFolder(folder, RENDERING).finished(spec)
    if done and not request.dry_run:
        return RenderPlan(spec, folder, request, report, done, latents)
    generator = select.load(source, request.device, **select.settings(request.bn_truncation, request.nvae_latents))
    check_latents(generator, latents, spec.space, labelled=request.labels is not None)
    check_format(generator, spec.format)
    labels = npy.labels(request.labels, spec.n, generator.num_classes) if request.labels else None
    return RenderPlan(spec, folder, request, report, None, latents, generator, labels)


def run(plan: RenderPlan, command: list[str]) -> Steps[int, None, dict[str, Any]]:
    """Make a planned rendering that is not done; yield as `fill`, and return the report."""
    assert plan.generator is not None, "a rendering that is done has no generator"  # noqa: S101
    steps = _write(plan, plan.generator, command)
    return (yield from ResultFolder(plan.folder, RENDERING).write(plan.spec, steps, force=plan.request.force))


def _write(plan: RenderPlan, generator: Generator, command: list[str]) -> Steps[int, None, dict[str, Any]]:
    yield from fill(plan.folder, plan.spec, generator, plan.latents, plan.labels, plan.request.batch_size)
    report = plan.report | {"seconds": round(time.monotonic() - plan.start, 3)}
    finish(plan.folder, plan.spec, command, report)
    return report


def check_latents(generator: Generator, latents: np.ndarray, space: str, *, labelled: bool) -> None:
    """Check that latents [n, D] are of a space of a generator, and come with labels where it takes labels.

    Raises:
        SpecError: there is no such space, the latents have another size, or labels are missing or too much.
    """
    generator.check_parts(space, "pixel")
    name = f"{generator.name} ({generator.family})"
    size = generator.latent_dim if space == "z" else generator.style_dim
    if latents.ndim != 2 or latents.shape[1] != size:
        other = "".join(f", or `space='{each}'`" for each in generator.spaces if each != space)
        raise SpecError(
            f"the latents have the shape {list(latents.shape)}, and {space} of {name} has {size} numbers",
            f"pass latents [n, {size}]{other}",
        )
    optional = generator.prior.mixture is not None  # the component says nothing that the latent does not
    if space == "z" and labelled != (generator.num_classes > 0) and not (optional and not labelled):
        takes = f"takes labels 0..{generator.num_classes - 1}" if generator.num_classes else "takes no labels"
        raise SpecError(
            f"{name} {takes}, and {'labels' if labelled else 'no labels'} are passed",
            "leave `labels` out" if labelled else "pass them: `labels=FILE.npy`",
        )


def check_format(generator: Generator, suffix: str) -> None:
    """Check that the output of a generator can be written in a format: in one of images, if it is an image."""
    if suffix != "npy" and not generator.gives_images:
        shape = ", ".join(map(str, generator.image_shape))
        raise SpecError(
            f"{suffix} is asked for, and {generator.name} ({generator.family}) gives arrays [{shape}], "
            "not images of one channel or three",
            "leave `format` and `montage` out, or render to an array: magnet render --format npy",
        )


def fill(
    out: Path,
    spec: RenderSpec,
    generator: Generator,
    latents: np.ndarray,
    labels: np.ndarray | None = None,
    batch: int | None = None,
) -> Steps[int, None, None]:
    """Render latents [n, D] into a folder, all but rendering.json, which `finish` writes.

    The folder is new, or begun by the same call before. Yields numbers of images written since the last time, those of
    an earlier call included; what was written stays, and the same call goes on from there.
    """
    folder = ResultFolder(out, RENDERING)
    folder.begin(spec)
    size = batch or default_batch_size(generator)
    hashes: dict[str, str] = {}
    if spec.format == "npy":
        rows = arrays_of(generator, latents, spec.truncation, size, labels, spec.space)
        yield from image_writer.write_array(out / "images.npy", (spec.n, *generator.image_shape), size, rows)
    else:
        names = [f"images/{i:06d}.{spec.format}" for i in range(spec.n)]
        rendered = (generator, latents, spec.truncation, labels, spec.space, size)
        for written in image_writer.write_images(out, names, *rendered):
            hashes |= written
            yield len(written)
    folder.list_files(hashes)


def finish(out: Path, spec: RenderSpec, command: list[str], report: dict[str, Any]) -> None:
    """Write rendering.json: from now on the rendering is whole; `report` is printed again by the same command."""
    fields = {"command": command, "spec": asdict(spec), "versions": image_writer.versions(), "report": report}
    ResultFolder(out, RENDERING).finish(fields)
