"""An index from a volume: log-volumes, summed shard by shard, and what of an older index still holds.

Knows nothing of draws. Never more than a few shards are in memory.
"""

import dataclasses

import numpy as np

from magnet_cli.errors import SpecError, VolumeError
from magnet_cli.index.index import BLOCK, Index, Part
from magnet_cli.volume import Shard, Volume
from magnet_cli.volume.spec import VolumeSpec

FLOOR_SHARE = 1e-3  # METHOD: largest share of rows that may fall below the rank floor
_FACTORS = 4  # float32 values whose product no float64 over- or underflows


def default_top_k(kept: int, latent_dim: int) -> int:
    """The k used where none is asked: min(K, 30); all of them where D ≤ 32."""
    return kept if latent_dim <= 32 else min(kept, 30)


def log_volume(singular_values: np.ndarray, top_k: int) -> np.ndarray:
    """Log of the volume the generator spreads around each latent, along its k strongest directions.

    The log of the volume scalar of Humayun et al. 2022 (MaGNET; Polarity Sampling, Theorem 1). The power rho is applied
    when drawing, so one volume serves every polarity.

    Args:
        singular_values: [N, K] float32, ≥ 0, descending; image intensity per unit of latent.
        top_k: number of leading values summed, 1 ≤ top_k ≤ K.

    Returns:
        [N] float64, natural log; -inf where one of the values is 0. Differences between rows carry meaning; the zero
        does not.

    Raises:
        SpecError: top_k outside 1..K.

    Example:
        >>> log_volume(np.array([[2.0, 0.5]], dtype=np.float32), top_k=1).round(4)
        array([0.6931])
    """
    kept = singular_values.shape[1]
    if not 1 <= top_k <= kept:
        message = f"top_k {top_k} is outside 1..{kept}: {kept} singular values are stored a row"
        raise SpecError(message, f"pass --top-k between 1 and {kept}")
    found = np.zeros(len(singular_values))
    for start in range(0, len(found), BLOCK // 8):
        block = singular_values[start : start + BLOCK // 8, :top_k].T.astype(np.float64, order="C")
        with np.errstate(divide="ignore", invalid="ignore"):  # a logarithm for several values: it is what takes time
            logs = (np.log(block[i : i + _FACTORS].prod(axis=0)) for i in range(0, top_k, _FACTORS))
            found[start : start + BLOCK // 8] = sum(logs)
    return found


def build(volume: Volume, top_k: int, known: Index | None = None) -> Index:
    """The index of all committed rows of a volume, shard by shard.

    Args:
        volume: whose rows; never more than a few shards of them are in memory.
        top_k: k.
        known: an index of the same volume and k, made when it was shorter; shards that are still what they were then
            are not read again.

    Raises:
        SpecError: top_k outside 1..K.
        VolumeError: the volume is empty or damaged, or its values at top_k are rounding in more than 0.1 % of the rows.
    """
    marks = volume.marks()
    if not marks:
        message = f"{volume.path} holds no rows yet"
        raise VolumeError(message, f"fill it: magnet compute {volume.spec.generator} --volume {volume.path}")
    parts = tuple(Part(s, mark.first_row, mark.rows, mark.sha256) for s, mark in marks.items())
    num_rows = sum(part.rows for part in parts)
    volumes, real = np.empty(num_rows), np.empty(num_rows, bool)
    ours, theirs = places_of(parts), places_of(known.parts if known else ())
    for part in ours.keys() & theirs.keys():
        volumes[ours[part]], real[ours[part]] = known.log_volume[theirs[part]], known.above_floor[theirs[part]]
    new = [part for part in parts if part not in theirs]
    for part, shard in ((part, volume.read(part.shard)) for part in new):
        found = log_volumes(shard, volume.spec, top_k)[: part.rows]  # it may have grown since its mark was read
        if np.isnan(found).any() or np.isposinf(found).any():
            message = f"{volume.shard_path(part.shard)} holds singular values that are not finite"
            raise VolumeError(message, "remove that shard and its mark, and compute it again")
        volumes[ours[part]] = found
        real[ours[part]] = above_floor(shard, volume.spec, top_k)[: part.rows] & np.isfinite(found)
    below = 1 - np.count_nonzero(real) / num_rows
    if below > FLOOR_SHARE:
        floor = volume.spec.rank_floor
        message = (
            f"top_k {top_k} reaches below the rank floor ({floor:g} of a row's first value) in "
            f"{below:.1%} of the rows: there the singular values are rounding"
        )
        largest = _largest_top_k(volume, num_rows)
        raise VolumeError(message, f"pass --top-k {largest}, the largest that does not, or less")
    return Index(volume.fingerprint, top_k, parts, volumes, real)


def first(index: Index, pool: int | None) -> Index:
    """The index of the first rows of a volume alone, arrays being views; the index itself where no number is given.

    Raises:
        VolumeError: there are not so many.
    """
    if pool is None:
        return index
    if pool > index.num_rows:
        message = f"a pool of {pool:,} rows is asked for, and the volume has {index.num_rows:,}"
        hint = f"pass --pool {index.num_rows} or less, or make the volume longer: magnet compute GENERATOR --n {pool}"
        raise VolumeError(message, hint)
    parts, left = [], pool
    for part in index.parts:
        if left > 0:
            parts.append(dataclasses.replace(part, rows=min(part.rows, left)))
        left -= part.rows
    arrays = {f.name: getattr(index, f.name) for f in dataclasses.fields(index)}
    cut = {name: array[:pool] for name, array in arrays.items() if isinstance(array, np.ndarray)}
    return dataclasses.replace(index, parts=tuple(parts), **cut)


def half(index: Index, number: int, turns: int = 1) -> Index:
    """The index in which only one half of the rows competes.

    The halves take rows in turn, and so each keeps its rows when the volume grows.

    Args:
        index: the rows.
        number: 1 or 2.
        turns: rows that a half takes at a time: as many as classes take turns in, so that both have all of them.
    """
    rows = index.rows(np.arange(index.num_rows))
    inside = rows // turns % 2 == number - 1
    return dataclasses.replace(index, competing=inside if index.competing is None else index.competing & inside)


def of_labels(index: Index, volume: Volume, label: tuple[int, ...] = (), *, equal: bool = False) -> Index:
    """The index in which only rows of the given labels compete; the index itself where nothing is asked.

    Args:
        index: the rows.
        volume: that they are of.
        label: the labels; empty for all.
        equal: classes have equal shares of a draw and take turns, in the order in which the volume has them, and
            weights are normalised within each.

    Raises:
        SpecError: equal shares of a generator that takes no labels.
        VolumeError: the volume has no rows of such a label, or none of a class that is to have its share.
        MagnetError: it cannot be read.
    """
    spec = volume.spec
    if equal and not spec.num_classes:
        message = f"equal shares of the classes are asked for, and {spec.generator} takes no labels"
        raise SpecError(message, "leave --classes out: it is for conditional generators")
    if not (label or equal):
        return index
    labels = _labels(index, volume)
    wanted = [each for each in dict.fromkeys(spec.classes) if each in (label or spec.classes)]
    rows_of = np.bincount(labels, minlength=spec.num_classes)
    if not rows_of[wanted].any():
        classes = np.flatnonzero(rows_of).tolist()
        has = f"labels {', '.join(map(str, classes[:10]))}{'…' * (len(classes) > 10)}" if classes else "no labels"
        message = f"rows of label {', '.join(map(str, label))} are asked for, and those of {volume.path} have {has}"
        raise VolumeError(message, f"pass one of those, or compute: magnet compute GENERATOR --label {label[0]}")
    competing = None if rows_of[wanted].sum() == len(labels) else np.isin(labels, wanted)
    if not equal:
        return dataclasses.replace(index, competing=competing)
    if spec.solver == "imported":  # a file may hold a few of the generator's classes
        wanted = [each for each in wanted if rows_of[each]]
    if absent := [each for each in wanted if not rows_of[each]]:
        message = f"equal shares of {len(wanted)} classes are asked for, and none of the {index.num_rows:,} rows is of "
        message += f"class {absent[0]}"
        raise VolumeError(
            message, "make the volume longer (magnet compute GENERATOR --n N), or name classes with --label"
        )
    place_of = np.zeros(spec.num_classes, labels.dtype)
    place_of[wanted] = np.arange(len(wanted))
    return dataclasses.replace(index, competing=competing, classes=tuple(wanted), class_of=place_of[labels])


def _labels(index: Index, volume: Volume) -> np.ndarray:
    """The label of each row of an index, [N] of the smallest unsigned type; empty where the generator takes none."""
    num_classes = volume.spec.num_classes
    found = np.empty(index.num_rows if num_classes else 0, np.min_scalar_type(num_classes))
    parts = places_of(index.parts) if num_classes else {}
    for part, here in parts.items():
        found[here] = volume.read(part.shard).labels[: part.rows]
    return found


def places_of(parts: tuple[Part, ...]) -> dict[Part, slice]:
    """Where in an index the rows of each part are."""
    ends = np.cumsum([part.rows for part in parts]).tolist()
    return {part: slice(end - part.rows, end) for part, end in zip(parts, ends, strict=True)}


def above_floor(shard: Shard, spec: VolumeSpec, top_k: int) -> np.ndarray:
    """Whether the first k singular values of rows are more than rounding beside the first of all: [r] bool."""
    return _above(shard.singular_values[:, top_k - 1], shard.singular_values[:, 0], spec.rank_floor)


def _above(values: np.ndarray, first: np.ndarray, floor: float) -> np.ndarray:
    return (values > 0) & (values >= floor * first)


def _largest_top_k(volume: Volume, num_rows: int) -> int:
    """The largest k that is above the rank floor in all but 0.1 % of the rows."""
    above = np.zeros(volume.spec.top_k)
    for _, shard in volume.rows():
        values = shard.singular_values
        above += np.logical_and.accumulate(_above(values, values[:, :1], volume.spec.rank_floor), axis=1).sum(axis=0)
    return int(np.count_nonzero(1 - above / num_rows <= FLOOR_SHARE))


def rescales(spec: VolumeSpec) -> bool:
    """Whether log-volumes are corrected for the length of z: where the generator normalises z and the volume does not.

    There the image does not change along z and J ∝ 1/|z|, so k log(|z|/√D) is added: the log-volume at |z| = √D.
    """
    return spec.prior == "sphere" and spec.solver == "imported"


def log_volumes(shard: Shard, spec: VolumeSpec, top_k: int) -> np.ndarray:
    """The log-volumes of a shard's rows [r] float64, for the length of z corrected where `rescales` says so."""
    found = log_volume(shard.singular_values, top_k)
    if rescales(spec):
        squares = np.einsum("ij,ij->i", shard.latents, shard.latents, dtype=np.float64)
        with np.errstate(divide="ignore"):
            found += 0.5 * top_k * np.log(squares / spec.latent_dim)
    return found
