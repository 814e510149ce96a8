"""Latents, and of which class their images are: what balancing and directions start from.

Owns the doors to them: the folder of `magnet attributes GENERATOR`, a sample with attributes, or latents and a file of
scores. Knows nothing of balance or of generators. No file can make it run code.
"""

import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from magnet_cli.errors import SpecError

EPOCH = (1980, 1, 1, 0, 0, 0)  # of members of scores.npz: the same numbers, the same bytes
_ROUNDING = 1e-5  # by which a sum of float32 probabilities may pass 0 or 1


@dataclass(frozen=True)
class Attribute:
    """Of which class each latent's image is.

    Attributes:
        name: what it is called: an image model's name, or a column's.
        classes: their names, two or more. Of a plain score in [0, 1]: not NAME, NAME.
        labels: [N] int32, the most probable class, the first of several.
        sure: [N] float32, its probability; 1 where only the class is known.
    """

    name: str
    classes: tuple[str, ...]
    labels: np.ndarray
    sure: np.ndarray

    def number(self, name: str) -> int:
        """The number of a class by its name.

        Raises:
            SpecError: it has no such class.
        """
        return class_number(self.name, self.classes, name)


@dataclass(frozen=True)
class Scored:
    """Latents with their attributes, and where they come from.

    Attributes:
        path: what was asked for.
        latents: [N, D] floating, not yet read.
        attributes: by their names.
        source: hex sha256 that tells these latents and scores from all others.
        labels: [N] int64 of a conditional generator; None for others.
        kind: "attributes", "sample" or "latents".
        generator: its name; empty where nobody says.
        sha256: of its checkpoint.
        truncation: ψ its images are rendered at.
        fingerprint: of the volume that a sample was drawn from.
        records: of a sample, the lines of its metadata.jsonl.
        balanced: whether it is a sample that `magnet balance` wrote.
        models: what the source says of each attribute's model.
    """

    path: Path
    latents: np.ndarray
    attributes: dict[str, Attribute]
    source: str
    labels: np.ndarray | None = None
    kind: str = "latents"
    generator: str = ""
    sha256: str = ""
    truncation: float = 1.0
    fingerprint: str = ""
    records: tuple[dict, ...] = ()
    balanced: bool = False
    models: dict[str, dict] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.latents)

    def rows(self, places: np.ndarray) -> np.ndarray:
        """The latents [n, D] float32 at some places [n].

        Raises:
            SpecError: one is not finite.
        """
        found = np.asarray(self.latents[places], dtype=np.float32)
        finite = np.isfinite(found).all(axis=1)
        if not finite.all():
            message = f"latents that are finite are asked for, and row {places[np.argmin(finite)]} of {self.path} "
            raise SpecError(message + "is not", "rows count from 0; make the folder again, or remove that row")
        return found


def open_scored(path: Path, scores: Path | None, names: tuple[str, ...], cuts: dict[str, str]) -> Scored:
    """Latents with their attributes.

    Args:
        path: a folder of `magnet attributes GENERATOR`, a sample with attributes, or an NPY file of latents [N, D].
        scores: of such a file, the file of its scores: NPY (a dictionary, as published), NPZ, CSV or JSON lines.
        names: of the attributes; none for all there are.
        cuts: of attributes that are to have two classes, those before this one, and from it on.

    Raises:
        SampleError: it is none of these, not finished, or without attributes.
        SpecError: there is no such attribute or class; scores that are no numbers in [0, 1]; lengths that differ.
        MagnetError: a file cannot be read, or is damaged.
    """
    from magnet_cli.editing.scored import folders

    if strange := [name for name in cuts if names and name not in names]:
        message = f"{strange[0]} is to be cut, and the attributes asked for are {', '.join(names)}"
        raise SpecError(message, f"add it to --attributes, or leave --cut {strange[0]}=… out")
    return folders.open_path(path, scores, names, cuts)


def chosen(asked: tuple[str, ...], known: list[str], where: Path) -> tuple[str, ...]:
    """The attributes that were asked for, all where none were.

    Raises:
        SpecError: one of them is not there.
    """
    for name in asked:
        if name not in known:
            message = f"the attribute {name!r} is asked for, and {where} has {', '.join(known) or 'none'}"
            raise SpecError(message, "pass --attributes with names from these, commas between")
    return asked or tuple(known)


def class_number(attribute: str, classes: tuple[str, ...], name: str) -> int:
    """The number of a class by its name.

    Raises:
        SpecError: there is no such class.
    """
    if name not in classes:
        message = f"the class {name!r} of {attribute} is asked for, and its classes are {', '.join(classes)}"
        raise SpecError(message, f"pass one of them, as {attribute}={classes[-1]}")
    return classes.index(name)


def sides(attribute: str, classes: tuple[str, ...], cut: str) -> tuple[int, tuple[str, str]]:
    """Where an attribute is cut: the number of the first class of the second side, and the names of both.

    Raises:
        SpecError: there is no such class, or none before it.
    """
    first = class_number(attribute, classes, cut)
    if not first:
        message = f"{attribute} is to be cut before {cut}, its first class"
        raise SpecError(message, f"pass a later one: {', '.join(classes[1:])}")
    return first, (f"below-{cut}", f"{cut}-up")


def of_probabilities(
    name: str, classes: tuple[str, ...], blocks: Iterator[np.ndarray], num_rows: int, cut: str | None, where: str
) -> Attribute:
    """An attribute of probabilities that pass by in blocks [b, C] floating.

    Args:
        name: its name.
        classes: [C] names; those of the two sides where it is cut, whose probabilities are sums.
        blocks: all rows, in order.
        num_rows: N.
        cut: the first class of the second side; None for all classes as they are.
        where: what to call the file in errors.

    Raises:
        SpecError: a probability is not in [0, 1], or there are not N rows.
    """
    first, named = sides(name, classes, cut) if cut else (0, classes)
    labels, sure, start = np.empty(num_rows, np.int32), np.empty(num_rows, np.float32), 0
    for block in blocks:
        check_scores(block, name, start, where)
        if cut:
            block = np.stack([block[:, :first].sum(axis=1), block[:, first:].sum(axis=1)], axis=1)  # noqa: PLW2901
        here = slice(start, start + len(block))
        start += len(block)
        if start <= num_rows:
            labels[here] = block.argmax(axis=1)
            sure[here] = block.max(axis=1)
    check_length(start, num_rows, name, where)
    return Attribute(name, named, labels, sure)


def of_labels(
    name: str, classes: tuple[str, ...], labels: np.ndarray, sure: np.ndarray | None, cut: str | None
) -> Attribute:
    """An attribute of which the class [N] alone is known, and maybe its probability [N].

    Cut, a side is that of the class, and its probability at least that of the class.

    Raises:
        SpecError: there is no such class to cut at.
    """
    sure = np.ones(len(labels), np.float32) if sure is None else sure.astype(np.float32)
    if cut:
        first, classes = sides(name, classes, cut)
        labels = labels >= first
    return Attribute(name, classes, labels.astype(np.int32), sure)


def check_scores(scores: np.ndarray, name: str, start: int, where: str) -> None:
    """Whether scores [b] or [b, C], of rows from `start` on, are in [0, 1].

    Raises:
        SpecError: one is not, or is no number.
    """
    right = (scores >= -_ROUNDING) & (scores <= 1 + _ROUNDING)
    if not right.all():
        row, *rest = np.unravel_index(np.argmin(right), right.shape)
        value = scores[(row, *rest)]
        message = f"scores of {name} in [0, 1] are asked for, and row {start + row} of {where} has {value:g}"
        hint = "rows count from 0; give probabilities, or classes as text; leave rows that have no score out"
        raise SpecError(message, hint)


def check_length(found: int, num_rows: int, name: str, where: str) -> None:
    """Whether there is a score for each latent.

    Raises:
        SpecError: there are more or fewer.
    """
    if found != num_rows:
        message = f"a score of {name} for each of {num_rows:,} latents is asked for, and {where} has {found:,}"
        raise SpecError(message, "pass the latents and the scores of the same run")


def archive(said: dict[str, tuple[tuple[str, ...], np.ndarray]]) -> bytes:
    """The bytes of a scores.npz: of each model its classes and probabilities [n, C], a function of these alone."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        for name, (classes, probabilities) in said.items():
            for end, array in (("", probabilities), ("_classes", np.array(classes))):
                with file.open(zipfile.ZipInfo(f"{member(name)}{end}.npy", EPOCH), "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
    return buffer.getvalue()


def member(name: str) -> str:
    """The name of a model's array in scores.npz: what is no letter, digit, point or dash becomes an underscore."""
    return re.sub(r"[^\w.-]", "_", name)
