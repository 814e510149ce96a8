"""Directions in latent space along which an attribute changes, learned from scored latents.

By the difference of class centroids of balanced data (Doubinsky et al. 2022), or by a linear SVM as in InterFaceGAN
(Shen et al. 2020). Owns learning them, and the file of one with its document. How well they do is asked in `rescoring`.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from magnet_cli.editing.kinds import DIRECTION
from magnet_cli.editing.scored import Attribute, Scored, class_number
from magnet_cli.errors import SampleError, SpecError, require
from magnet_cli.files import atomic, documents, pictures, results

if TYPE_CHECKING:
    from magnet_cli.models import Generator


@dataclass(frozen=True)
class Way:
    """What a direction leads to: one class of an attribute, away from its others.

    Attributes:
        attribute: of which.
        positive: the number of the class.
    """

    attribute: Attribute
    positive: int

    @property
    def name(self) -> str:
        """The attribute, and the class where that has more than two."""
        own = f"{self.attribute.name}={self.attribute.classes[self.positive]}"
        return own if len(self.attribute.classes) > 2 or self.positive != 1 else self.attribute.name

    def is_there(self, rows: np.ndarray) -> np.ndarray:
        """Whether the images of some rows are of the class, [n] bool."""
        return self.attribute.labels[rows] == self.positive

    @property
    def words(self) -> str:
        """From what to what."""
        classes = self.attribute.classes
        rest = classes[1 - self.positive] if len(classes) == 2 else "the rest"
        return f"{self.attribute.name}: from {rest} to {classes[self.positive]}"


@dataclass(frozen=True)
class DirectionSpec:
    """Exactly what decides a direction, and what is said of it.

    Attributes:
        generator: its name; empty where nobody says.
        sha256: of the generator's checkpoint.
        source: hex sha256 of the latents and scores it is learned from.
        attribute: that changes along it, with its class where it has more than two.
        attributes: that are balanced.
        cut: "attribute=class" of those that were cut into two.
        confidence: every attribute of a latent is surer than this.
        target: "attribute:class=share" of all classes.
        n: latents.
        seed: of the draw.
        even: whether combinations take turns.
        balanced: whether combinations are drawn in the target's shares, or as they come.
        method: "centroid" or "svm".
        space: z or w.
        rescored: latents that were moved along each direction; 0 where none were.
        from_: how far each was moved at one end.
        to: and at the other.
        models: keys of the models that scored them.
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
    """A direction that was read.

    Attributes:
        vector: [1, D] float32, of length 1.
        sha256: of its file.
        fields: of the document beside it, its spec and report; empty where there is none.
    """

    vector: np.ndarray
    sha256: str
    fields: dict = field(default_factory=dict)


def ways(attributes: tuple[Attribute, ...]) -> list[Way]:
    """What directions can be learned: of two classes to the second, of more to each."""
    found = []
    for each in attributes:
        count = len(each.classes)
        found += [Way(each, i) for i in (range(count) if count > 2 else [1])]
    return found


def way(attributes: tuple[Attribute, ...], asked: str) -> Way:
    """What "gender", "gender=female" or "age=60-69" means.

    Raises:
        SpecError: there is no such attribute or class, or more than two and none is named.
    """
    known = {each.name: each for each in attributes}
    name, _, value = (asked, "", "") if asked in known else asked.partition("=")
    if name not in known:
        message = f"a direction of {name!r} is asked for, and the attributes are {', '.join(known)}"
        raise SpecError(message, "pass --attribute with one of them")
    classes = known[name].classes
    if value:
        return Way(known[name], class_number(name, classes, value))
    if len(classes) > 2:
        message = f"a direction of {name} is asked for, which has {len(classes)} classes: {', '.join(classes)}"
        raise SpecError(message, f"name one, as --attribute '{name}={classes[-1]}', or --cut it into two")
    return Way(known[name], 1)


def learn(latents: np.ndarray, positive: np.ndarray, method: str) -> np.ndarray:
    """The unit vector from one class to the other.

    Args:
        latents: [n, D] float32.
        positive: [n] bool, which of them are of the class it leads to.
        method: "centroid", the difference of the two means; "svm", the normal of a linear SVM with C = 1.

    Returns:
        [1, D] float32.

    Raises:
        SampleError: one class is empty, or the means are equal.
        MagnetError: scikit-learn is not installed.
    """
    if positive.all() or not positive.any():
        message = f"a direction between two classes is asked for, and all {len(latents):,} latents are of one"
        raise SampleError(message, "choose more latents (--n), or another --attribute")
    if method == "svm":
        machine = require("sklearn.svm", "evaluate").SVC(kernel="linear")
        found = machine.fit(latents, positive).coef_[0].astype(np.float64)
    else:
        wide = latents.astype(np.float64)
        found = wide[positive].mean(axis=0) - wide[~positive].mean(axis=0)
    length = np.linalg.norm(found)
    if not np.isfinite(length) or length == 0:
        message = "a direction between two classes is asked for, and nothing tells their latents apart"
        raise SampleError(message, "check that the scores belong to these latents")
    return (found / length).astype(np.float32)[None]


def cosines(vectors: dict[str, np.ndarray], of: np.ndarray) -> dict[str, float]:
    """The cosine of a direction [1, D] to each of others, by their names."""
    return {name: float(np.dot(vector[0].astype(np.float64), of[0])) for name, vector in vectors.items()}


def learn_all(
    found: Scored, asked: list[Way], rows: np.ndarray, spec: DirectionSpec, generator: "Generator | None"
) -> dict[str, np.ndarray]:
    """Directions [1, D] float32 by the names of their ways; those of classes that all rows have, or none, are left out.

    Args:
        found: scored latents.
        asked: the ways.
        rows: [n] of them, to learn from.
        spec: method and space are used.
        generator: where latents of z have to be mapped to w.

    Raises:
        SpecError: the generator has no such space, or a latent is not finite.
        SampleError: as `learn`.
    """
    latents = found.rows(rows)
    if spec.space != "z" and found.kind != "latents":  # those of a file are taken as they are
        from magnet_cli.sampling import render

        generator.check_parts(spec.space, "pixel")
        labels = None if found.labels is None else found.labels[rows]
        latents = in_space(generator, latents, labels, spec.space, render.batch_size(generator))
    there = {each.name: each.is_there(rows) for each in asked}
    return {name: learn(latents, of, spec.method) for name, of in there.items() if 0 < of.sum() < len(of)}


def in_space(
    generator: "Generator", latents: np.ndarray, labels: np.ndarray | None, space: str, size: int
) -> np.ndarray:
    """Latents [b, D] float32 of z as they are, or in w, as the mapping network gives it, [b, Dw] float32."""
    if space == "z":
        return latents
    import torch

    weight = next(generator.module.parameters())
    made = []
    for start in range(0, len(latents), size):
        z = torch.from_numpy(latents[start : start + size]).to(weight)
        given = None if labels is None else torch.from_numpy(labels[start : start + size]).to(weight.device)
        with torch.inference_mode():
            made.append(generator.module.mapping(z, given).to(device="cpu", dtype=torch.float32).numpy())
    return np.concatenate(made)


def default_out(found: Scored, spec: DirectionSpec) -> Path:
    """./directions/<source>-<attribute>[-unbalanced][-svm][-w].npy."""
    name = found.path.resolve()
    parts = [name.stem if name.is_file() else name.name, spec.attribute.replace("/", "_")]
    parts += ["unbalanced"] * (not spec.balanced) + ["svm"] * (spec.method == "svm") + ["w"] * (spec.space == "w")
    return Path("directions") / ("-".join(parts) + ".npy")


def finished(out: Path, spec: DirectionSpec) -> dict | None:
    """The report of the direction at a path, if it is that of `spec`; None where there is none.

    Raises:
        SampleError: it is another one (all differing fields are named), or a file of something else.
        MagnetError: its document is damaged, or the file was changed.
    """
    if not _is_ours(out):
        return None
    fields = read(out).fields
    results.refuse_other(out, DIRECTION.noun, spec, fields["spec"], DIRECTION.remedy)
    return fields["report"]


def _is_ours(out: Path) -> bool:
    """Whether there is a direction at a path; False where there is nothing, or it was begun.

    Raises:
        SampleError: there is something else, or something else in the place of its document.
        MagnetError: its document is damaged.
    """
    document = document_of(out)
    known = document.exists() and {"format", "spec", "sha256", "report"} <= documents.read(document).keys()
    if known:
        return out.exists()
    if found := next((path for path in (out, document) if path.exists()), None):
        message = f"{out} is asked for as a direction, and {found} is something else"
        raise SampleError(message, "pass another file with --out; --force replaces directions only")
    return False


def check_place(out: Path) -> None:
    """Whether a direction may be written to a path: nothing is there, or a direction (--force).

    Raises:
        SampleError, MagnetError: something else is.
    """
    _is_ours(out)


def write(out: Path, spec: DirectionSpec, vector: np.ndarray, command: list[str], report: dict) -> None:
    """Write a direction: what it is as JSON, then beside it `[1, D]` float32 as NPY, which makes it whole.

    Raises:
        MagnetError: no space, no permission.
    """
    atomic.make_folder(out.parent)
    data = pictures.npy(vector)
    fields = {
        "format": DIRECTION.format,
        "command": command,
        "spec": asdict(spec),
        "sha256": documents.sha256_bytes(data),
    }
    fields |= {"versions": results.versions(), "created": results.now()}
    atomic.publish(document_of(out), documents.encode(fields | {"report": report}))
    atomic.publish(out, data)


def document_of(out: Path) -> Path:
    """Where what a direction is stands, beside it."""
    return out.with_suffix(".json")


def read(path: Path) -> Direction:
    """A direction in an NPY file: ours, or a boundary as InterFaceGAN and others publish it.

    Raises:
        SpecError: it is no array [1, D] or [D] of finite numbers, or all are 0.
        SampleError: its document is of another format, or not that of this file.
        MagnetError: it cannot be read, or its document is damaged.
    """
    from magnet_cli.files import npy

    found = npy.vector(path)
    sha256 = documents.sha256_file(path)
    if not document_of(path).is_file():
        return Direction(found, sha256)
    fields = documents.read(document_of(path))
    results.check_format(path, DIRECTION, fields)
    if fields.get("sha256") != sha256:
        message = f"{path} was changed after it was written: {document_of(path).name} is of another"
        raise SampleError(message, "learn it again with --force, or restore it from a copy")
    return Direction(found, sha256, fields)
