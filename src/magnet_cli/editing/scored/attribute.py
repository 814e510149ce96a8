"""An attribute of N images: the most probable class of each image, and its probability."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from magnet_cli.errors import SpecError

_ROUNDING = 1e-5  # by which a sum of float32 probabilities may pass 0 or 1


@dataclass(frozen=True)
class Attribute:
    """The classes of N images; a plain score in [0, 1] has the classes "not NAME" and "NAME".

    `labels` [N] int32 is the most probable class, the first of several; `probability` [N] float32 is its probability, 1
    where the class alone is known.
    """

    name: str
    classes: tuple[str, ...]
    labels: np.ndarray
    probability: np.ndarray


def select_names(requested: tuple[str, ...], available: list[str], source: Path) -> tuple[str, ...]:
    """Return the attributes requested, or all where none are."""
    for name in requested:
        if name not in available:
            raise SpecError(
                f"the attribute {name!r} is requested, and {source} has {', '.join(available) or 'none'}",
                "pass `attributes` with names from these",
            )
    return requested or tuple(available)


def class_index(attribute: str, classes: tuple[str, ...], name: str) -> int:
    """Return the index of a class."""
    if name not in classes:
        raise SpecError(
            f"the class {name!r} of {attribute} is requested, and its classes are {', '.join(classes)}",
            f"pass one of them, as {attribute}={classes[-1]}",
        )
    return classes.index(name)


def cut_sides(attribute: str, classes: tuple[str, ...], cut: str) -> tuple[int, tuple[str, str]]:
    """Return the index of the first class of the second side of a cut, and the names of both sides."""
    first = class_index(attribute, classes, cut)
    if not first:
        raise SpecError(
            f"{attribute} is to be cut before {cut}, its first class", f"pass a later one: {', '.join(classes[1:])}"
        )
    return first, (f"below-{cut}", f"{cut}-up")


def from_probabilities(
    name: str, classes: tuple[str, ...], blocks: Iterable[np.ndarray], num_rows: int, cut: str | None, source: str
) -> Attribute:
    """Return an attribute from probabilities [b, C] of its classes, all rows in order.

    From the class `cut` on, classes are the second of two sides, and probabilities are summed over each side.
    """
    first, names = cut_sides(name, classes, cut) if cut else (0, classes)
    labels, probability, start = np.empty(num_rows, np.int32), np.empty(num_rows, np.float32), 0
    for block in blocks:
        check_scores(block, name, start, source)
        sides = np.stack([block[:, :first].sum(axis=1), block[:, first:].sum(axis=1)], axis=1) if cut else block
        part = slice(start, start + len(block))
        start += len(block)
        if start <= num_rows:
            labels[part] = sides.argmax(axis=1)
            probability[part] = sides.max(axis=1)
    check_length(start, num_rows, name, source)
    return Attribute(name, names, labels, probability)


def from_labels(
    name: str, classes: tuple[str, ...], labels: np.ndarray, probability: np.ndarray | None, cut: str | None
) -> Attribute:
    """Return an attribute from class indices [N] and, optionally, the probability [N] of that class.

    Where the attribute is cut, the probability of a side is taken as that of the class: a lower bound.
    """
    if cut:
        first, classes = cut_sides(name, classes, cut)
        labels = labels >= first
    confidence = np.ones(len(labels), np.float32) if probability is None else probability.astype(np.float32)
    return Attribute(name, classes, labels.astype(np.int32), confidence)


def check_scores(scores: np.ndarray, name: str, start: int, source: str) -> None:
    """Check that scores [b] or [b, C], of rows from `start` on, lie in [0, 1]."""
    valid = (scores >= -_ROUNDING) & (scores <= 1 + _ROUNDING)
    if not valid.all():
        row, *rest = np.unravel_index(np.argmin(valid), valid.shape)
        raise SpecError(
            f"scores of {name} have to lie in [0, 1], and row {start + row} of {source} has {scores[(row, *rest)]:g}",
            "rows count from 0; pass probabilities, or classes as text; remove rows without a score",
        )


def check_length(count: int, num_rows: int, name: str, source: str) -> None:
    """Check that there is one score for each latent."""
    if count != num_rows:
        raise SpecError(
            f"{num_rows:,} latents need as many scores of {name}, and {source} has {count:,}",
            "pass the latents and the scores of the same run",
        )
