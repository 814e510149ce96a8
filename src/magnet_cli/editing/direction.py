"""Directions in latent space along which an attribute changes, and the files that hold them.

A direction is the difference of class means of balanced latents (Doubinsky et al. 2022), or the normal of a linear SVM
as in InterFaceGAN (Shen et al. 2020). `rescore` measures what a direction does, `learn_direction` is the verb.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from magnet_cli.editing.kinds import DIRECTION
from magnet_cli.editing.scored import Attribute, ScoredLatents, class_index
from magnet_cli.errors import SampleError, SpecError, require
from magnet_cli.files import atomic, documents, pictures, results
from magnet_cli.files.locks import FileLock

if TYPE_CHECKING:
    from magnet_cli.models import Generator


@dataclass(frozen=True)
class AttributeTarget:
    """The class of an attribute that a direction leads to."""

    attribute: Attribute
    index: int

    @property
    def name(self) -> str:
        """Name of the attribute; "NAME=CLASS" unless it is the second of two classes."""
        classes = self.attribute.classes
        if len(classes) == 2 and self.index == 1:
            return self.attribute.name
        return f"{self.attribute.name}={classes[self.index]}"

    @property
    def description(self) -> str:
        """The classes that the direction leads from and to, as text."""
        classes = self.attribute.classes
        other = classes[1 - self.index] if len(classes) == 2 else "the rest"
        return f"{self.attribute.name}: from {other} to {classes[self.index]}"

    def contains(self, rows: np.ndarray) -> np.ndarray:
        """Return [n] bool: True for rows [n] of the class."""
        return self.attribute.labels[rows] == self.index


@dataclass(frozen=True)
class DirectionSpec:
    """Exactly what decides a direction and its report.

    Fields are as in BalanceSpec; `attribute` is the name of the target, `rescored` the number of latents moved along
    each direction, from distance `from_` to `to`; `models` are the keys of the image models that score them.
    """

    generator: str
    sha256: str
    source: str
    attribute: str
    attributes: tuple[str, ...]
    cut: tuple[str, ...]
    confidence: float
    target: tuple[str, ...]
    n: int
    seed: int
    even: bool = False
    balanced: bool = True
    method: str = "centroid"
    space: str = "z"
    rescored: int = 0
    from_: float = 0.0
    to: float = 0.0
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class Direction:
    """A direction [1, D] float32 of length 1, from a file; `fields` is the document beside it, {} if there is none."""

    vector: np.ndarray
    sha256: str
    fields: dict = field(default_factory=dict)


def all_targets(attributes: tuple[Attribute, ...]) -> list[AttributeTarget]:
    """Return the targets of all directions: the second of two classes, or each of more."""
    several = {each.name: range(len(each.classes)) if len(each.classes) > 2 else [1] for each in attributes}
    return [AttributeTarget(each, i) for each in attributes for i in several[each.name]]


def find_target(attributes: tuple[Attribute, ...], text: str) -> AttributeTarget:
    """Return the target of "gender", "gender=female" or "age=60-69"."""
    by_name = {each.name: each for each in attributes}
    name, _, value = (text, "", "") if text in by_name else text.partition("=")
    if name not in by_name:
        raise SpecError(
            f"a direction of {name!r} is requested, and the attributes are {', '.join(by_name)}",
            "pass `attribute` with one of them",
        )
    classes = by_name[name].classes
    if value:
        return AttributeTarget(by_name[name], class_index(name, classes, value))
    if len(classes) > 2:
        raise SpecError(
            f"a direction of {name} is requested, which has {len(classes)} classes: {', '.join(classes)}",
            f"name a class, as `attribute='{name}={classes[-1]}'`, or `cut` the attribute into two",
        )
    return AttributeTarget(by_name[name], 1)


def learn(latents: np.ndarray, positive: np.ndarray, method: str) -> np.ndarray:
    """Return the unit vector [1, D] float32 from one class of latents [n, D] to the other, the `positive` [n].

    The method "centroid" is the difference of the two means; "svm" is the normal of a linear SVM with C = 1.
    """
    if positive.all() or not positive.any():
        raise SampleError(
            f"a direction needs latents of two classes, and all {len(latents):,} latents are of one",
            "choose more latents (`n`), or another `attribute`",
        )
    if method == "svm":
        svm = require("sklearn.svm", "evaluate").SVC(kernel="linear")
        vector = svm.fit(latents, positive).coef_[0].astype(np.float64)
    else:
        wide = latents.astype(np.float64)
        vector = wide[positive].mean(axis=0) - wide[~positive].mean(axis=0)
    length = np.linalg.norm(vector)
    if not np.isfinite(length) or length == 0:
        raise SampleError(
            "the latents of the two classes do not differ, so that there is no direction between them",
            "check that the scores belong to these latents",
        )
    return (vector / length).astype(np.float32)[None]


def learn_all(
    scored: ScoredLatents,
    targets: list[AttributeTarget],
    rows: np.ndarray,
    spec: DirectionSpec,
    generator: "Generator | None",
) -> dict[str, np.ndarray]:
    """Return [1, D] float32 by target, where rows [n] are of both classes; a generator maps latents of folders to w."""
    latents = scored.rows(rows)
    if spec.space != "z" and scored.kind != "latents":  # latents in a file are taken as they are
        from magnet_cli.models import batches

        generator = cast("Generator", generator)
        generator.check_parts(spec.space, "pixel")
        latents = to_space(generator, latents, scored.labels_of(rows), spec.space, batches.batch_size(generator))
    positive = {each.name: each.contains(rows) for each in targets}
    return {name: learn(latents, mask, spec.method) for name, mask in positive.items() if 0 < mask.sum() < len(mask)}


def to_space(
    generator: "Generator", latents: np.ndarray, labels: np.ndarray | None, space: str, batch: int
) -> np.ndarray:
    """Return latents [b, D] float32 unchanged for z, or mapped to w, [b, Dw] float32."""
    if space == "z":
        return latents
    import torch

    weight = next(generator.module.parameters())
    network: Any = generator.module
    mapped = []
    for start in range(0, len(latents), batch):
        part = slice(start, start + batch)
        z = torch.from_numpy(latents[part]).to(weight)
        classes = None if labels is None else torch.from_numpy(labels[part]).to(weight.device)
        with torch.inference_mode():
            mapped.append(network.mapping(z, classes).to(device="cpu", dtype=torch.float32).numpy())
    return np.concatenate(mapped)


def default_out(scored: ScoredLatents, spec: DirectionSpec) -> Path:
    """Return directions/<source>-<attribute>[-unbalanced][-svm][-w].npy."""
    parts = [scored.name, spec.attribute.replace("/", "_")]
    parts += ["unbalanced"] * (not spec.balanced) + ["svm"] * (spec.method == "svm") + ["w"] * (spec.space == "w")
    return Path("directions") / ("-".join(parts) + ".npy")


def finished(out: Path, spec: DirectionSpec) -> dict | None:
    """Return the report of the direction in a file, or None if there is none; refuse another direction or file."""
    if not check_place(out):
        return None
    fields = read(out).fields
    results.refuse_other(out, DIRECTION.noun, spec, fields["spec"], DIRECTION.remedy)
    return fields["report"]


def check_place(out: Path) -> bool:
    """Return True if the file is a direction, False if there is none or its writing was interrupted; refuse others."""
    document = document_of(out)
    if document.exists() and {"format", "spec", "sha256", "report"} <= documents.read(document).keys():
        return out.exists()
    if other := next((path for path in (out, document) if path.exists()), None):
        raise SampleError(
            f"a direction is to be written to {out}, and {other} is something else",
            "pass another file with `out`; `force=True` replaces directions only",
        )
    return False


def write(
    out: Path, spec: DirectionSpec, vector: np.ndarray, command: list[str], report: dict, *, force: bool = False
) -> dict:
    """Write a direction: its document, then the vector [1, D] float32 as NPY, which makes it complete.

    Returns its report; that of the file where another process has written this direction meanwhile.

    Raises:
        SampleError: another process has written another direction into the file, which is not to be replaced.
    """
    data = pictures.npy(vector)
    fields = {"format": DIRECTION.format, "command": command, "spec": asdict(spec)}
    fields |= {"sha256": documents.sha256_bytes(data), "versions": results.versions(), "created": results.now()}
    with FileLock(out.with_name(f".{out.name}.lock")).held():
        if not force and (done := finished(out, spec)):
            return done
        atomic.publish(document_of(out), documents.encode(fields | {"report": report}))
        atomic.publish(out, data)
    return report


def document_of(out: Path) -> Path:
    """Return the path of a direction's document."""
    return out.with_suffix(".json")


def read(path: Path) -> Direction:
    """Read a direction from an NPY file: of `magnet direction`, or a boundary as InterFaceGAN publishes it.

    Raises:
        SpecError: no array [1, D] or [D] of finite numbers, or all are 0.
        SampleError: the document has another format, or belongs to another file.
        MagnetError: the file cannot be read, or its document is damaged.
    """
    from magnet_cli.files import npy

    vector = npy.vector(path)
    sha256 = documents.sha256_file(path)
    if not document_of(path).is_file():
        return Direction(vector, sha256)
    fields = documents.read(document_of(path))
    results.check_format(path, DIRECTION, fields)
    if fields.get("sha256") != sha256:
        raise SampleError(
            f"{path} was changed after it was written: {document_of(path).name} is of another file",
            "learn it again with `force=True`, or restore it from a copy",
        )
    return Direction(vector, sha256, fields)
