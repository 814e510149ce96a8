"""Build an index from a volume, shard by shard, and restrict it to some rows. Few shards are in memory at a time."""

import dataclasses
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from magnet_cli.errors import SpecError, VolumeError
from magnet_cli.files.text import quoted
from magnet_cli.index.index import BLOCK, Index, Part
from magnet_cli.volume import Shard, Volume
from magnet_cli.volume.spec import VolumeSpec

if TYPE_CHECKING:
    from torch import Tensor

FLOOR_SHARE = 1e-3  # of the rows may have values below the rank floor (docs/method.md#rank-floor)
_FACTORS = 4  # a product of so many float32 values does not over- or underflow in float64


def default_top_k(kept: int, latent_dim: int) -> int:
    """Return the default k: min(K, 30), or K if D ≤ 32."""
    return kept if latent_dim <= 32 else min(kept, 30)


def log_volume(singular_values: "np.ndarray | Tensor", top_k: int) -> np.ndarray:
    """Return Σ_{i≤k} log σᵢ: the log of the volume scalar √det JᵀJ along the k strongest directions of each row.

    Humayun et al. 2022 (MaGNET; Polarity Sampling, Theorem 1). The power rho is applied when drawing, so one volume
    serves every polarity.

    Args:
        singular_values: [N, K] floating, ≥ 0, descending, numpy or torch; image intensity per unit of latent.
        top_k: k, number of leading values, 1 ≤ k ≤ K.

    Returns:
        [N] float64, natural log (nats); -inf if one of the values is 0. Only differences between rows carry meaning.

    Raises:
        SpecError: top_k is outside 1..K.

    Examples:
        >>> log_volume(np.array([[2.0, 0.5]], dtype=np.float32), top_k=1).round(4)
        array([0.6931])
    """
    if hasattr(singular_values, "detach"):  # a tensor; torch itself is not needed
        singular_values = singular_values.detach().cpu().numpy()
    kept = singular_values.shape[1]
    factors = _FACTORS if singular_values.dtype == np.float32 else 1
    if not 1 <= top_k <= kept:
        message = f"top_k {top_k} is outside 1..{kept}: {kept} singular values are stored a row"
        raise SpecError(message, f"pass `top_k` between 1 and {kept}")
    logs = np.zeros(len(singular_values))
    for start in range(0, len(logs), BLOCK // 8):
        block = singular_values[start : start + BLOCK // 8, :top_k].T.astype(np.float64, order="C")
        with np.errstate(divide="ignore", invalid="ignore"):  # one logarithm for several values saves time
            terms = (np.log(block[i : i + factors].prod(axis=0)) for i in range(0, top_k, factors))
            logs[start : start + BLOCK // 8] = sum(terms)
    return logs


def build(volume: Volume, top_k: int, earlier: Index | None = None) -> Index:
    """Return the index of all committed rows of a volume.

    Args:
        volume: the volume; a few shards are in memory at a time.
        top_k: k.
        earlier: an index of the same volume and k when it was shorter; unchanged shards are not read again.

    Raises:
        SpecError: top_k outside 1..K.
        VolumeError: the volume is empty or damaged, or its values at top_k are rounding in more than 0.1 % of the rows.
    """
    marks = volume.marks()
    if not marks:
        message = f"{volume.path} holds no rows yet"
        raise VolumeError(
            message, f"fill it: magnet compute {quoted(volume.spec.generator)} --volume {quoted(volume.path)}"
        )
    parts = tuple(Part(s, mark.first_row, mark.rows, mark.sha256) for s, mark in marks.items())
    num_rows = sum(part.rows for part in parts)
    volumes, real = np.empty(num_rows), np.empty(num_rows, bool)
    ours, old = places_of(parts), places_of(earlier.parts if earlier else ())
    if earlier:
        for part in ours.keys() & old.keys():
            volumes[ours[part]], real[ours[part]] = earlier.log_volume[old[part]], earlier.above_floor[old[part]]
    for part in (part for part in parts if part not in old):
        shard = volume.read(part.shard)
        logs = log_volumes(shard, volume.spec, top_k)[: part.rows]  # the shard may be longer than its mark was
        if np.isnan(logs).any() or np.isposinf(logs).any():
            message = f"{volume.shard_path(part.shard)} holds singular values that are not finite"
            raise VolumeError(message, "remove that shard and its mark, and compute it again")
        volumes[ours[part]] = logs
        real[ours[part]] = above_floor(shard, volume.spec, top_k)[: part.rows] & np.isfinite(logs)
    below = 1 - np.count_nonzero(real) / num_rows
    if below > FLOOR_SHARE:
        floor = volume.spec.rank_floor
        message = (
            f"top_k {top_k} reaches below the rank floor ({floor:g} of a row's first value) in "
            f"{below:.1%} of the rows: there the singular values are rounding"
        )
        largest = _largest_top_k(volume, num_rows)
        hint = f"pass `top_k={largest}`, the largest that does not, or less"
        raise VolumeError(message, hint if largest else "compute it again with `precision=float64`: no k does not")
    return Index(volume.fingerprint, top_k, parts, volumes, real)


def first(index: Index, pool: int | None) -> Index:
    """Return the index of the first `pool` rows, its arrays views of those of `index`; None for all rows.

    Raises:
        VolumeError: the index has fewer rows.
    """
    if pool is None:
        return index
    if pool > index.num_rows:
        message = f"a pool of {pool:,} rows is asked for, and the volume has {index.num_rows:,}"
        hint = f"pass `pool={index.num_rows}` or less, or extend the volume: magnet compute GENERATOR --n {pool}"
        raise VolumeError(message, hint)
    parts, left = [], pool
    for part in index.parts:
        if left > 0:
            parts.append(dataclasses.replace(part, rows=min(part.rows, left)))
        left -= part.rows
    arrays = {f.name: getattr(index, f.name) for f in dataclasses.fields(index)}
    cut: dict[str, Any] = {name: array[:pool] for name, array in arrays.items() if isinstance(array, np.ndarray)}
    return dataclasses.replace(index, parts=tuple(parts), **cut)


def half(index: Index, number: int, turns: int = 1) -> Index:
    """Return the index in which only one half of the rows competes.

    The halves take rows in turns, so that each keeps its rows when the volume grows.

    Args:
        index: all rows.
        number: 1 or 2.
        turns: number of rows that a half takes at a time: the number of classes, so that both halves have all classes.
    """
    rows = index.rows(np.arange(index.num_rows))
    inside = rows // turns % 2 == number - 1
    return dataclasses.replace(index, competing=inside if index.competing is None else index.competing & inside)


def of_labels(index: Index, volume: Volume, label: tuple[int, ...] = (), *, equal: bool = False) -> Index:
    """Return the index in which only rows of some labels compete, or in which classes have equal shares of a draw.

    Args:
        index: all rows.
        volume: of the index.
        label: the labels; empty for all.
        equal: classes take turns, in the order of the volume, and weights are normalised within each class.

    Raises:
        SpecError: equal shares for a generator without labels.
        VolumeError: the volume has no rows of a label, or of a class that is to have its share.
        MagnetError: the volume cannot be read.
    """
    spec = volume.spec
    if equal and not spec.num_classes:
        message = f"equal shares of the classes are asked for, and {spec.generator} takes no labels"
        raise SpecError(message, "leave `classes` out: it is for conditional generators")
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
        raise VolumeError(message, "extend the volume (magnet compute GENERATOR --n N), or name classes with `label`")
    place_of = np.zeros(spec.num_classes, labels.dtype)
    place_of[wanted] = np.arange(len(wanted))
    return dataclasses.replace(index, competing=competing, classes=tuple(wanted), class_of=place_of[labels])


def _labels(index: Index, volume: Volume) -> np.ndarray:
    """[N] of the smallest unsigned type; empty if the generator takes no labels."""
    num_classes = volume.spec.num_classes
    labels = np.empty(index.num_rows if num_classes else 0, np.min_scalar_type(num_classes))
    parts = places_of(index.parts) if num_classes else {}
    for part, here in parts.items():
        labels[here] = cast(np.ndarray, volume.read(part.shard).labels)[: part.rows]
    return labels


def places_of(parts: tuple[Part, ...]) -> dict[Part, slice]:
    """Return the slice of an index's arrays that holds each part."""
    ends = np.cumsum([part.rows for part in parts]).tolist()
    return {part: slice(end - part.rows, end) for part, end in zip(parts, ends, strict=True)}


def above_floor(shard: Shard, spec: VolumeSpec, top_k: int) -> np.ndarray:
    """Return whether the k-th singular value is above the rank floor: [r] bool (docs/method.md#rank-floor)."""
    return _above(shard.singular_values[:, top_k - 1], shard.singular_values[:, 0], spec.rank_floor)


def _above(values: np.ndarray, first: np.ndarray, floor: float) -> np.ndarray:
    return (values > 0) & (values >= floor * first)


def _largest_top_k(volume: Volume, num_rows: int) -> int:
    """The largest k whose value is above the rank floor in all but 0.1 % of the rows."""
    above = np.zeros(volume.spec.top_k)
    for _, shard in volume.rows():
        values = shard.singular_values
        above += np.logical_and.accumulate(_above(values, values[:, :1], volume.spec.rank_floor), axis=1).sum(axis=0)
    return int(np.count_nonzero(1 - above / num_rows <= FLOOR_SHARE))


def rescales(spec: VolumeSpec) -> bool:
    """Return whether log-volumes are corrected for |z|: the generator normalises z and the imported latents are not.

    docs/method.md#generators-that-normalise-z.
    """
    return spec.prior == "sphere" and spec.solver == "imported"


def log_volumes(shard: Shard, spec: VolumeSpec, top_k: int) -> np.ndarray:
    """Return the log-volumes of a shard's rows [r] float64; plus k log(|z|/√D) if the volume `rescales`."""
    logs = log_volume(shard.singular_values, top_k)
    if rescales(spec):
        squares = np.einsum("ij,ij->i", shard.latents, shard.latents, dtype=np.float64)
        with np.errstate(divide="ignore"):
            logs += 0.5 * top_k * np.log(squares / spec.latent_dim)
    return logs
