"""Rows of images along a direction: latents are moved step by step, rendered, and scored by image models."""

import time
from collections.abc import Generator as Steps
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from magnet_cli.editing import direction
from magnet_cli.editing.direction import Direction
from magnet_cli.editing.kinds import EDIT
from magnet_cli.errors import SpecError
from magnet_cli.files import atomic, contact_sheet, documents, npy, pictures, scores
from magnet_cli.files.image_folder import ImageSet
from magnet_cli.files.progress import SILENT, Messages
from magnet_cli.files.results import ResultFolder
from magnet_cli.files.scores import Scores
from magnet_cli.models import Generator, batches, default_device, image_models, kept_outputs
from magnet_cli.models.image_models import ImageScorer
from magnet_cli.models.kept_outputs import PROBABILITIES
from magnet_cli.sampling import image_writer, render, select
from magnet_cli.sampling.kinds import GRID, SHEETS

if TYPE_CHECKING:
    from magnet_cli.sampling.select import Source

_SHEET_ROWS = 16


@dataclass(frozen=True, kw_only=True)
class EditRequest:
    """Arguments of `magnet edit`; the fields are its arguments and flags, described in docs/reference/cli.md."""

    direction: Path
    latents: Path | None = None
    labels: Path | None = None
    n: int = 8
    seed: int | None = None
    from_: float = -3.0
    to: float = 3.0
    steps: int = 7
    space: str | None = None
    model: tuple[str, ...] | None = None
    truncation: float = 1.0
    label: tuple[int | str, ...] | None = None
    out: Path | None = None
    device: str | None = None
    batch_size: int | None = None
    trust: bool = False
    force: bool = False


@dataclass(frozen=True)
class EditSpec:
    """Exactly what decides which images an edit holds.

    `direction`, `latents` and `labels` are the sha256 of files, "" where latents are drawn; `models` are keys of the
    image models that score the images.
    """

    generator: str
    sha256: str
    direction: str
    n: int
    from_: float
    to: float
    steps: int
    latents: str = ""
    labels: str = ""
    seed: int = 0
    space: str = "z"
    truncation: float = 1.0
    label: tuple[int, ...] = ()
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class EditPlan:
    """An edit before it is rendered; `moved` [n * steps, D] float32 are the latents at all steps, row by row."""

    request: EditRequest
    out: Path
    spec: EditSpec
    direction: Direction
    scorers: list[ImageScorer]
    done: dict | None
    generator: Generator | None
    moved: np.ndarray
    labels: np.ndarray | None
    start: float

    @property
    def num_images(self) -> int:
        """Number of images."""
        return self.spec.n * self.spec.steps

    @property
    def work(self) -> int:
        """Number of images rendered and scored."""
        return self.num_images * (1 + len(self.scorers))


def plan(source: "Source", request: EditRequest, messages: Messages = SILENT) -> EditPlan:
    """Read the direction, load generator and models, and move the latents; nothing is written.

    Raises:
        SpecError: latents, labels, direction or space do not fit the generator.
        SampleError: the folder holds another edit, or other files.
        MagnetError: a file cannot be read.
    """
    start = time.monotonic()
    path = request.direction.expanduser()
    learned = direction.read(path)
    latents = npy.latents(request.latents) if request.latents else None
    device = request.device or default_device()
    scorers = image_models.load_scorers(request.model or (), device, trust=request.trust)
    labels = select.VolumeRequest(label=request.label or ())
    origin = learned.fields.get("spec", {})
    spec = EditSpec(
        generator=source.name,
        sha256=source.sha256,
        direction=learned.sha256,
        n=request.n if latents is None else min(request.n, len(latents)),
        from_=request.from_,
        to=request.to,
        steps=request.steps,
        latents=documents.sha256_file(request.latents) if request.latents else "",
        labels=documents.sha256_file(request.labels) if request.labels else "",
        seed=request.seed or 0,
        space=request.space or origin.get("space", "z"),
        truncation=request.truncation,
        label=labels.labels,
        models=tuple(scorer.key for scorer in scorers),
    )
    if origin.get("sha256") and origin["sha256"] != spec.sha256:
        messages.warning(
            f"{request.direction} was learned on {origin['generator']}, and moves latents of {spec.generator} here"
        )
    name = request.latents.stem if request.latents else f"seed{spec.seed}"
    out = request.out or Path("edits") / f"{spec.generator}-{request.direction.stem}-{name}"
    if not request.force and (done := ResultFolder(out, EDIT).finished(spec)):
        messages.note(f"{out} already holds this edit")
        return EditPlan(request, out, spec, learned, scorers, done, None, np.empty((0, 0)), None, start)
    generator = select.load(source, device)
    labels.check_names(generator.name, generator.num_classes)
    check(generator, spec, learned)
    if not request.space and "space" not in origin and generator.style_dim == generator.latent_dim:
        messages.warning(
            f"nothing beside {request.direction} says whether it moves z or w, which are equally long: z is taken; "
            "pass `space='w'` if it is of w"
        )
    if latents is None:
        base, classes = generator.prior.draw_shard(spec.seed, 0, spec.n, spec.label)
    else:
        render.check_latents(generator, latents, spec.space, labelled=request.labels is not None)
        base = latents[: spec.n]
        classes = npy.labels(request.labels, len(latents), generator.num_classes)[: spec.n] if request.labels else None
    moved = move(generator, spec, learned.vector, base, classes)
    return EditPlan(request, out, spec, learned, scorers, None, generator, moved, classes, start)


def run(plan: EditPlan, command: list[str]) -> Steps[int, None, dict]:
    """Render and score an edit, or the rest of it, yielding numbers of images rendered, then scored; return the report.

    Raises:
        MagnetError: no space, no permission.
    """
    folder = ResultFolder(plan.out, EDIT)
    return (yield from folder.write(plan.spec, _write(plan, folder, command), force=plan.request.force))


def _write(plan: EditPlan, folder: ResultFolder, command: list[str]) -> Steps[int, None, dict]:
    out, spec, labels = plan.out, plan.spec, plan.labels
    generator = cast("Generator", plan.generator)
    repeated = None if labels is None else np.repeat(labels, spec.steps)
    classes = None if spec.space == "w" else repeated
    names = [f"images/{i:06d}.png" for i in range(plan.num_images)]
    hashes: dict[str, str] = {}
    for written in image_writer.write_images(
        out, names, generator, plan.moved, spec.truncation, classes, spec.space, plan.request.batch_size
    ):
        hashes |= written
        yield len(written)
    images = ImageSet.open(out, names)
    scored: Scores = {}
    for scorer in plan.scorers:
        blocks = []
        for part in kept_outputs.score_images(images, scorer, PROBABILITIES):
            blocks.append(part.values)
            yield len(part.values)
        probabilities = np.concatenate(blocks)
        scored[scorer.name] = scorer.classes(probabilities.shape[1]), probabilities
    report = {
        "edit": str(out),
        "n": spec.n,
        "steps": spec.steps,
        "images": plan.num_images,
        "grid": str(out / GRID),
        "generator": spec.generator,
        "direction": str(plan.request.direction),
        "space": spec.space,
        "moved": offsets(spec).tolist(),
        "scores": mean_scores(spec, scored),
        "seconds": round(time.monotonic() - plan.start, 3),
    }
    atomic.publish(out / "latents.npy", pictures.npy(plan.moved))
    if repeated is not None:
        atomic.publish(out / "labels.npy", pictures.npy(repeated))
    if scored:
        atomic.publish(out / "scores.npz", scores.pack(scored))
    atomic.publish(out / "metadata.jsonl", documents.encode_lines(_records(spec, scored)))
    atomic.make_folder(out / SHEETS)
    atomic.publish(out / GRID, _sheet(plan, images))
    folder.list_files(hashes)
    folder.finish({"command": command, "spec": asdict(spec), "versions": image_writer.versions(), "report": report})
    return report


def offsets(spec: EditSpec) -> np.ndarray:
    """Return the distance of each step [steps] float64, evenly spaced."""
    return np.linspace(spec.from_, spec.to, spec.steps)


def check(generator: Generator, spec: EditSpec, learned: Direction) -> None:
    """Check that a direction belongs to a generator's space."""
    generator.check_parts(spec.space, "pixel")
    size = generator.latent_dim if spec.space == "z" else generator.style_dim
    if learned.vector.shape[1] != size:
        raise SpecError(
            f"{spec.space} of {generator.name} ({generator.family}) has {size} numbers, and the direction "
            f"{learned.vector.shape[1]}",
            "pass a `direction` that was learned on this generator, and its `space`",
        )
    space = learned.fields.get("spec", {}).get("space", spec.space)
    if space != spec.space:
        raise SpecError(
            f"the direction was learned in {space}, and `space='{spec.space}'` is passed",
            f"leave `space` out, or pass `space='{space}'`",
        )
    if not generator.gives_images:
        raise SpecError(
            f"{generator.name} gives arrays of shape {'×'.join(map(str, generator.image_shape))}, which are no images",
            "pass a generator of images with one or three channels",
        )


def move(
    generator: Generator, spec: EditSpec, vector: np.ndarray, latents: np.ndarray, labels: np.ndarray | None
) -> np.ndarray:
    """Return latents at all steps [n * steps, D] float32, row by row; drawn ones are mapped from z to the space."""
    base = np.asarray(latents, np.float32)
    if not spec.latents:
        base = direction.to_space(generator, base, labels, spec.space, batches.batch_size(generator))
    steps = offsets(spec).astype(np.float32)[None, :, None]
    return (base[:, None] + steps * vector[None]).reshape(-1, base.shape[1])


def mean_scores(spec: EditSpec, scored: Scores) -> dict[str, dict[str, list[float]]]:
    """Return the mean probability of each class at each step, by model and class."""
    means = {}
    for name, (classes, probabilities) in scored.items():
        by_step = probabilities.reshape(spec.n, spec.steps, -1).mean(axis=0, dtype=np.float64)
        means[name] = {each: by_step[:, i].tolist() for i, each in enumerate(classes)}
    return means


def _records(spec: EditSpec, scored: Scores) -> Iterator[dict[str, object]]:
    for i in range(spec.n * spec.steps):
        row, step = divmod(i, spec.steps)
        record: dict[str, object] = {
            "file_name": f"images/{i:06d}.png",
            "row": row,
            "step": step,
            "moved": float(offsets(spec)[step]),
        }
        for name, (classes, probabilities) in scored.items():
            best = int(probabilities[i].argmax())
            record |= {name: classes[best], f"{name}_probability": round(float(probabilities[i, best]), 6)}
        yield record


def _sheet(plan: EditPlan, images: ImageSet) -> bytes:
    """Return the contact sheet: one line for each latent, from the first step to the last."""
    spec = plan.spec
    count = min(spec.n, _SHEET_ROWS) * spec.steps
    shown = [image for block in images.batches(0, count) for image in block]
    rows = [shown[start : start + spec.steps] for start in range(0, count, spec.steps)]
    name = plan.direction.fields.get("report", {}).get("words") or plan.request.direction.stem
    caption = f"{spec.generator}, {name}: {spec.from_:g} to {spec.to:g} in {spec.space}"
    return contact_sheet.contact_sheet([(caption, *rows)], columns=spec.steps)
