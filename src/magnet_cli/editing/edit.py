"""Rows of images along a direction: each latent moved step by step, rendered, and scored where a model is given.

Joins a direction, a generator and image models. The caller owns progress and stopping: `fill` yields after each batch
of images, and the same call later goes on where it stopped.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from magnet_cli.editing import direction
from magnet_cli.editing.kinds import EDIT
from magnet_cli.errors import SpecError
from magnet_cli.files import atomic, contact_sheet, pictures, scores
from magnet_cli.files.image_folder import ImageSet
from magnet_cli.files.results import ResultFolder
from magnet_cli.models import Generator, kept_outputs
from magnet_cli.models.image_models import ImageScorer
from magnet_cli.models.kept_outputs import PROBABILITIES
from magnet_cli.sampling import render

SHEET_ROWS = 16  # of the contact sheet


@dataclass(frozen=True)
class EditSpec:
    """Exactly what decides which images an edit holds.

    Attributes:
        generator: its name.
        sha256: of the generator's checkpoint.
        direction: sha256 of its file.
        n: latents, a row each.
        from_: how far they are moved at the first step, in units of the space.
        to: and at the last.
        steps: images a row.
        latents: sha256 of the file they are in; empty where they are drawn.
        labels: sha256 of theirs; empty where there are none.
        seed: of latents that are drawn.
        space: z or w, that of the direction.
        truncation: ψ.
        label: of drawn latents of a conditional generator, the labels they take in turn; empty for all.
        models: keys of the models that score the images.
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


def default_out(spec: EditSpec, name: str, latents: Path | None) -> Path:
    """./edits/<generator>-<direction's name>-seed<seed>, or with the name of the file of latents."""
    return Path("edits") / f"{spec.generator}-{name}-{latents.stem if latents else f'seed{spec.seed}'}"


def offsets(spec: EditSpec) -> np.ndarray:
    """How far a latent is moved at each step, [steps] float64: even from one end to the other."""
    return np.linspace(spec.from_, spec.to, spec.steps)


def drawn(generator: Generator, spec: EditSpec) -> tuple[np.ndarray, np.ndarray | None]:
    """Draw latents [n, D] float32 and their labels [n] int64 or None: those of shard 0 of a volume of that seed."""
    return generator.prior.draw_shard(spec.seed, 0, spec.n, spec.label)


def check(generator: Generator, spec: EditSpec, learned: direction.Direction) -> None:
    """Whether a direction is one of a generator's space.

    Raises:
        SpecError: it has no such space, gives no images, or the direction is of another space or size.
    """
    generator.check_parts(spec.space, "pixel")
    takes = generator.latent_dim if spec.space == "z" else generator.style_dim
    found = learned.vector.shape[1]
    if found != takes:
        message = (
            f"{spec.space} of {generator.name} ({generator.family}) has {takes} numbers, and the direction {found}"
        )
        raise SpecError(message, "pass a direction that was learned on this generator, and its --space")
    known = learned.fields.get("spec", {}).get("space", spec.space)
    if known != spec.space:
        message = f"the direction was learned in {known}, and --space {spec.space} is asked for"
        raise SpecError(message, f"leave --space out, or pass --space {known}")
    if not generator.gives_images:
        shape = "×".join(map(str, generator.image_shape))
        message = f"{generator.name} gives {shape} numbers, which are no images"
        raise SpecError(message, "pass a generator of images of one or three channels")


def check_latents(generator: Generator, spec: EditSpec, latents: np.ndarray, *, labelled: bool) -> None:
    """Whether given latents are of the space, with labels where it takes them.

    Raises:
        SpecError: they are not, as `render.check`.
    """
    as_rendered = render.RenderSpec(
        spec.generator, spec.sha256, spec.latents, spec.labels, spec.n, spec.space, spec.truncation
    )
    render.check(generator, as_rendered, latents, labelled=labelled)


def moved(
    generator: Generator, spec: EditSpec, vector: np.ndarray, latents: np.ndarray, labels: np.ndarray | None
) -> np.ndarray:
    """All latents [n · steps, D] float32 in the space of the direction, row by row.

    Args:
        generator: on its device.
        spec: what is asked.
        vector: [1, D] float32.
        latents: [n, D] floating; of z where they are drawn, else of the space.
        labels: [n] int64 or None.
    """
    base = np.asarray(latents[: spec.n], np.float32)
    if not spec.latents:
        base = direction.to_space(generator, base, labels, spec.space, render.batch_size(generator))
    steps = offsets(spec).astype(np.float32)[None, :, None]
    return (base[:, None] + steps * vector[None]).reshape(-1, base.shape[1])


def fill(
    out: Path, spec: EditSpec, generator: Generator, places: np.ndarray, labels: np.ndarray | None, batch: int | None
) -> Iterator[int]:
    """Render rows of images into a folder. edit.json is still to come: `score`, then `finish`.

    Args:
        out: the folder; new, or begun by the same call before.
        spec: what it is.
        generator: on its device.
        places: [n · steps, D] float32, as `moved` gives them.
        labels: [n] int64 or None.
        batch: images at a time.

    Yields:
        Number of images written since the last time (those of an earlier call included).

    Raises:
        MagnetError: no space, no permission; what was written stays, and the same call goes on from there.
    """
    ResultFolder(out, EDIT).begin(spec)
    repeated = None if labels is None or spec.space == "w" else np.repeat(labels, spec.steps)
    names = [f"images/{i:06d}.png" for i in range(len(places))]
    steps = render.write_images(out, names, generator, places, spec.truncation, repeated, spec.space, batch)
    for hashes in steps:
        yield len(hashes)


def look(out: Path, judge: ImageScorer) -> Iterator[kept_outputs.ModelOutputs]:
    """What a model says of the images of an edit, piece by piece, kept as `kept_outputs.score_images` keeps it."""
    return kept_outputs.score_images(ImageSet.open(out / "images"), judge, PROBABILITIES)


def finish(
    out: Path,
    spec: EditSpec,
    places: np.ndarray,
    labels: np.ndarray | None,
    said: dict[str, tuple[tuple[str, ...], np.ndarray]],
    words: str,
    command: list[str],
    report: dict,
) -> None:
    """Write everything besides the images, and edit.json: from now on the edit is whole.

    Args:
        out: the folder that `fill` filled.
        spec: what it is.
        places: [n · steps, D] float32.
        labels: [n] int64 or None.
        said: of each model its classes and probabilities [n · steps, C].
        words: of the direction, for the contact sheet.
        command: the command line.
        report: what the command prints, to be printed again when it is repeated.

    Raises:
        MagnetError: no space, no permission.
    """
    atomic.publish(out / "latents.npy", pictures.npy(places))
    if labels is not None:
        atomic.publish(out / "labels.npy", pictures.npy(np.repeat(labels, spec.steps)))
    if said:
        atomic.publish(out / "scores.npz", scores.pack(said))
    atomic.publish(out / "metadata.jsonl", _metadata(spec, said))
    atomic.publish(out / "grid.png", _sheet(out, spec, words))
    folder = ResultFolder(out, EDIT)
    folder.list_files({})
    fields = {"command": command, "spec": asdict(spec), "versions": render.versions(), "report": report}
    folder.finish(fields)


def along(spec: EditSpec, said: dict[str, tuple[tuple[str, ...], np.ndarray]]) -> dict[str, dict[str, list[float]]]:
    """The mean probability of each class at each step, by model and class."""
    found = {}
    for name, (classes, probabilities) in said.items():
        means = probabilities.reshape(spec.n, spec.steps, -1).mean(axis=0, dtype=np.float64)
        found[name] = {each: means[:, i].tolist() for i, each in enumerate(classes)}
    return found


def _metadata(spec: EditSpec, said: dict[str, tuple[tuple[str, ...], np.ndarray]]) -> bytes:
    lines = []
    for i in range(spec.n * spec.steps):
        row, step = divmod(i, spec.steps)
        record = {"file_name": f"images/{i:06d}.png", "row": row, "step": step, "moved": float(offsets(spec)[step])}
        for name, (classes, probabilities) in said.items():
            best = int(probabilities[i].argmax())
            record |= {name: classes[best], f"{name}_probability": round(float(probabilities[i, best]), 6)}
        lines.append(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
    return "".join(lines).encode()


def _sheet(out: Path, spec: EditSpec, words: str) -> bytes:
    """The contact sheet: a line a latent, from the first step to the last."""
    shown = ImageSet.open(out / "images")
    count = min(spec.n, SHEET_ROWS) * spec.steps
    images = [image for block in shown.batches(0, count) for image in block]
    rows = [images[start : start + spec.steps] for start in range(0, count, spec.steps)]
    caption = f"{spec.generator}, {words}: {spec.from_:g} to {spec.to:g} in {spec.space}"
    return contact_sheet.contact_sheet([(caption, *rows)], columns=spec.steps)
