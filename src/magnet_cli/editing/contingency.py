"""The contingency table of scored latents: the number of latents for each combination of classes, and the target."""

import functools
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from magnet_cli.catalog import references
from magnet_cli.editing.scored import Attribute, ScoredLatents, class_index, open_scored
from magnet_cli.errors import SampleError, SpecError
from magnet_cli.files import opening
from magnet_cli.files.progress import aligned

DEFAULT_CONFIDENCE = 0.9
_MAX_CELLS = 1 << 16
_MAX_LINES = 32  # of a table as text
_BLOCK = 1 << 18  # rows at a time

Target = dict[str, np.ndarray]  # attribute → shares [C] float64 of its classes; they sum to 1


@dataclass(frozen=True)
class Table:
    """The contingency table: one cell for each combination of classes; the last attribute changes fastest.

    `cells` [N] int32 is the cell of each latent, -1 where an attribute does not have a probability above `confidence`;
    `counts` [M] int64 is the number of latents in each cell, `target` [M] float64 its requested share. Cells take turns
    if `even`, in proportion to the target; else each is drawn at random, as published.
    """

    attributes: tuple[Attribute, ...]
    cells: np.ndarray
    counts: np.ndarray
    target: np.ndarray
    shares: Target
    confidence: float
    even: bool = False

    @property
    def num_kept(self) -> int:
        """Number of latents that are in a cell."""
        return int(self.counts.sum())

    @property
    def missing(self) -> np.ndarray:
        """[...] int64, cells with a positive target and no latents."""
        return np.flatnonzero((self.target > 0) & (self.counts == 0))

    def classes(self, cell: int) -> dict[str, str]:
        """Return the class of each attribute in a cell."""
        indices = np.unravel_index(cell, _shape(self.attributes))
        return {each.name: each.classes[i] for each, i in zip(self.attributes, indices, strict=True)}

    def describe(self, cell: int) -> str:
        """Return the classes of a cell as text."""
        return " ".join(f"{name}={value}" for name, value in self.classes(cell).items())

    def summary(self, drawn: np.ndarray | None = None) -> str:
        """Return the table as text, its 32 rarest cells at most; `drawn` [M] adds the number drawn from each cell."""
        cells = np.sort(np.argsort(self.counts, kind="stable")[:_MAX_LINES])
        header = [each.name for each in self.attributes] + ["latents", "target"] + ["drawn"] * (drawn is not None)
        rows = []
        for cell in cells.tolist():
            rows.append([*self.classes(cell).values(), f"{self.counts[cell]:,}", f"{self.target[cell]:.4f}"])
            rows[-1] += [] if drawn is None else [f"{drawn[cell]:,}"]
        kept = f"{self.num_kept:,} of {len(self.cells):,} latents"
        text = f"{kept} have a probability above {self.confidence:g} for every attribute\n{aligned(header, rows)}"
        if len(self.counts) > len(rows):
            text += f"\nthese are the {len(rows)} rarest of {len(self.counts):,} combinations"
        return text

    @functools.cached_property
    def rows_by_cell(self) -> np.ndarray:
        """[num_kept] int64, rows that are in a cell, sorted by cell."""
        rows = np.flatnonzero(self.cells >= 0)
        return rows[np.argsort(self.cells[rows], kind="stable")]


def _shape(attributes: tuple[Attribute, ...]) -> tuple[int, ...]:
    return tuple(len(each.classes) for each in attributes)


def equal_target(attributes: tuple[Attribute, ...]) -> Target:
    """Return the same share for all classes of an attribute, as in the published algorithm."""
    return {each.name: np.full(len(each.classes), 1 / len(each.classes)) for each in attributes}


def make_target(attributes: tuple[Attribute, ...], shares: dict[str, float | dict[str, float]]) -> Target:
    """Return the shares of all classes; attributes without requested shares have equal ones.

    Requested are attribute → {class: share}, where the other classes share the rest equally, or attribute → share of
    the second of two classes.
    """
    by_name, target = {each.name: each for each in attributes}, equal_target(attributes)
    for name, requested in shares.items():
        if name not in by_name:
            raise SpecError(
                f"a share of {name} is requested, and the attributes are {', '.join(by_name)}",
                "pass `target` with their names",
            )
        classes = by_name[name].classes
        if not isinstance(requested, dict) and len(classes) != 2:
            raise SpecError(
                f"one share of {name} is requested, and it has {len(classes)} classes: {', '.join(classes)}",
                f"name the class, as `target='{name}:{classes[-1]}=0.3'`",
            )
        target[name] = _shares(by_name[name], requested if isinstance(requested, dict) else {classes[1]: requested})
    return target


def _shares(attribute: Attribute, requested: dict[str, float]) -> np.ndarray:
    shares = np.full(len(attribute.classes), np.nan)
    for name, share in requested.items():
        if not 0 <= share <= 1:
            raise SpecError(
                f"a share has to lie in [0, 1], and {share:g} is requested for {attribute.name} {name}",
                "pass shares, as 0.3 for 30 %",
            )
        shares[class_index(attribute.name, attribute.classes, name)] = share
    rest, others = 1 - np.nansum(shares), np.isnan(shares)
    if rest < -1e-9 or (not others.any() and abs(rest) > 1e-9):
        raise SpecError(
            f"shares of {attribute.name} have to sum to 1, and these sum to {1 - rest:g}",
            "classes that are not named share the rest equally",
        )
    shares[others] = max(rest, 0) / max(others.sum(), 1)
    return shares / shares.sum()


def tabulate(attributes: tuple[Attribute, ...], confidence: float, target: Target, *, even: bool = False) -> Table:
    """Return the contingency table of attributes of the same N latents.

    Latents are kept whose probability exceeds the confidence in [0, 1) for every attribute (for a score p of two
    classes: p > t or p < 1 - t); 0 keeps all. The share of a combination is the product of the shares of its classes.
    """
    shape, num_rows = _shape(attributes), len(attributes[0].labels)
    if np.prod(shape, dtype=float) > _MAX_CELLS:
        raise SpecError(
            f"there are {np.prod(shape, dtype=float):,.0f} combinations of classes, and a table has at most "
            f"{_MAX_CELLS:,}",
            "pass fewer `attributes`, or `cut` those with many classes into two",
        )
    cells = np.empty(num_rows, np.int32)
    for start in range(0, num_rows, _BLOCK):
        part = slice(start, start + _BLOCK)
        numbers = np.ravel_multi_index([each.labels[part] for each in attributes], shape).astype(np.int32)
        kept = np.logical_and.reduce([each.probability[part] > confidence for each in attributes])
        cells[part] = np.where(kept, numbers, -1)
    counts = np.bincount(cells[cells >= 0], minlength=int(np.prod(shape)))
    product = functools.reduce(np.multiply.outer, [target[each.name] for each in attributes]).ravel()
    table = Table(attributes, cells, counts, product / product.sum(), target, confidence, even)
    _check_classes(table)
    return table


def _check_classes(table: Table) -> None:
    counts = table.counts.reshape(_shape(table.attributes))
    for axis, each in enumerate(table.attributes):
        by_class = counts.sum(axis=tuple(i for i in range(counts.ndim) if i != axis))
        absent = [each.classes[i] for i in np.flatnonzero((by_class == 0) & (table.shares[each.name] > 0))]
        if absent:
            total = np.bincount(each.labels, minlength=len(each.classes))
            raise SampleError(
                f"{each.name} is to be balanced, and no latent is of {', '.join(absent)}: {table.num_kept:,} of "
                f"{len(each.labels):,} latents have a probability above {table.confidence:g} for every attribute; "
                "without that limit: " + ", ".join(f"{c} {n:,}" for c, n in zip(each.classes, total, strict=True)),
                "score more latents, lower `confidence`, `cut` the attribute, or request none of that class "
                f"(`target='{each.name}:{absent[0]}=0'`)",
            )


@dataclass(frozen=True, kw_only=True)
class ScoredRequest:
    """Which scored latents are balanced, by which attributes; the flags are described in docs/reference/cli.md."""

    sample: Path
    scores: Path | None = None
    attributes: tuple[str, ...] | None = None
    confidence: float | None = None
    cut: tuple[tuple[str, str], ...] | None = None
    target: tuple[tuple[str, float] | Path, ...] | None = None
    even: bool | None = None
    seed: int = 0
    generator: str | None = None
    latent_dim: int | None = None
    prior: str | None = None
    image_range: tuple[float, float] | None = None
    key: str | None = None
    EVEN: ClassVar[bool] = False  # by default

    @property
    def is_even(self) -> bool:
        """Whether cells take turns."""
        return self.EVEN if self.even is None else self.even

    @property
    def own(self) -> dict[str, Any]:
        """What a generator of the user's own may not say itself, of that which was passed."""
        values = {name: getattr(self, name) for name in references.OWN_SETTINGS}
        return {name: value for name, value in values.items() if value is not None}

    def open(self) -> ScoredLatents:
        """Open the latents, as `open_scored`."""
        return open_scored(self.sample.expanduser(), self.scores, self.attributes or (), dict(self.cut or ()))

    def tabulate(self, latents: ScoredLatents, confidence: float | None = None) -> Table:
        """Return the contingency table of the latents; `confidence` replaces that of the request."""
        if confidence is None:
            confidence = DEFAULT_CONFIDENCE if self.confidence is None else self.confidence
        attributes = tuple(latents.attributes.values())
        target = make_target(attributes, _requested_shares(attributes, self.target or ()))
        return tabulate(attributes, confidence, target, even=self.is_even)

    def spec_fields(self, latents: ScoredLatents, table: Table) -> dict:
        """Return the fields of a spec that say what was balanced."""
        return {
            "generator": latents.generator,
            "sha256": latents.sha256,
            "source": latents.source,
            "attributes": tuple(latents.attributes),
            "cut": tuple(f"{name}={value}" for name, value in sorted(self.cut or ())),
            "confidence": table.confidence,
            "target": tuple(
                f"{each.name}:{name}={share:.12g}"
                for each in table.attributes
                for name, share in zip(each.classes, table.shares[each.name].tolist(), strict=True)
            ),
            "seed": self.seed,
            "even": self.is_even,
        }


def _requested_shares(
    attributes: tuple[Attribute, ...], target: tuple[tuple[str, float] | Path, ...]
) -> dict[str, float | dict[str, float]]:
    names = {each.name for each in attributes}
    shares: dict[str, float | dict[str, float]] = {}
    for each in target:
        if isinstance(each, Path):
            shares |= _read_shares(each)
            continue
        text, share = each
        name, _, value = text.rpartition(":")
        if text in names or not name:
            shares[text] = share
        else:
            by_class = shares.get(name)
            shares[name] = (by_class if isinstance(by_class, dict) else {}) | {value: share}
    return shares


def _read_shares(path: Path) -> dict[str, float | dict[str, float]]:
    hint = 'a share an attribute, as gender = 0.3, or a table of classes, as age = {"0-9" = 0.1}'
    data = opening.read(path)
    try:
        shares = tomllib.loads(data.decode()) if path.suffix == ".toml" else json.loads(data)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SpecError(f"{path} cannot be read: {' '.join(str(error).split())}", hint) from error
    for value in shares.values() if isinstance(shares, dict) else [None]:
        numbers = value.values() if isinstance(value, dict) else [value]
        if not all(type(share) in {int, float} for share in numbers):
            raise SpecError(f"{path} has to hold shares, and holds {value!r}", hint)
    return shares
