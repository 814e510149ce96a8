"""The index: the log-volumes of a volume's rows for one k, the weights they give, and draws from them.

Owns weights, draws and their diagnostics, in log space until the very end. Knows nothing of generators or images;
needs neither torch nor a GPU. Nine bytes a row are kept; what is worked on beside them does not grow with the rows.
"""

import dataclasses
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from magnet_cli import __version__, files
from magnet_cli.errors import MagnetError, SpecError, VolumeError
from magnet_cli.volume import Shard, Volume, layout
from magnet_cli.volume.spec import VolumeSpec

FORMAT = 2  # 1 kept eight bytes more a row, and which shards it was made of in another way

DISPLACED_WARNING = 0.05  # METHOD: above this share a draw is not where the weights ask
DISPLACED_SELECTION = 0.5  # and above this it is a selection by volume
RESCALED = "the generator normalises z and the imported latents are not: k log(|z|/√D) is added to their log-volumes"
_FLOOR_SHARE = 1e-3  # METHOD: largest share of rows that may fall below the rank floor
_STREAM = 0x6D61676E  # keeps the draws' random stream apart from the latents'
_BLOCK = 1 << 16  # rows worked on at a time
_FACTORS = 4  # float32 values whose product no float64 over- or underflows
_BINS = 1 << 18  # groups of near log-volumes, for diagnostics of more rows than this
_WIDEST = 2e-3  # nats a group may span: at |rho| 8, weights are right to 3e-5


def default_top_k(kept: int, latent_dim: int) -> int:
    """The k used where none is asked: min(K, 30); all of them where D ≤ 32."""
    return kept if latent_dim <= 32 else min(kept, 30)  # noqa: PLR2004


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
    for start in range(0, len(found), _BLOCK // 8):
        block = singular_values[start : start + _BLOCK // 8, :top_k].T.astype(np.float64, order="C")
        with np.errstate(divide="ignore", invalid="ignore"):  # a logarithm for several values: it is what takes time
            logs = (np.log(block[i : i + _FACTORS].prod(axis=0)) for i in range(0, top_k, _FACTORS))
            found[start : start + _BLOCK // 8] = sum(logs)
    return found


@dataclass(frozen=True)
class Part:
    """The rows of an index that come from one shard.

    Attributes:
        shard: its number.
        first_row: number of its first row in the volume.
        rows: how many there are.
        sha256: of the shard's bytes.
    """

    shard: int
    first_row: int
    rows: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """The log-volumes of a volume's rows for one k.

    Attributes:
        fingerprint: of the volume.
        top_k: k.
        parts: where the rows come from, ascending: rows are contiguous but for shards that are missing.
        log_volume: [N] float64, natural log.
        above_floor: [N] bool, False where one of the k values is rounding (METHOD: rank floor); such rows do not
            compete for rho ≠ 0.
        competing: [N] bool, the rows that were asked for; None for all.
    """

    fingerprint: str
    top_k: int
    parts: tuple[Part, ...]
    log_volume: np.ndarray
    above_floor: np.ndarray
    competing: np.ndarray | None = None

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.log_volume)

    def pool(self, rho: float) -> int:
        """Rows that compete."""
        return sum(int(np.count_nonzero(self._in_pool(rho, start))) for start in range(0, self.num_rows, _BLOCK))

    def _in_pool(self, rho: float, start: int) -> np.ndarray:
        """Which rows of the block from `start` compete: [b] bool."""
        block = slice(start, start + _BLOCK)
        real = self.above_floor[block] if rho else np.ones(len(self.above_floor[block]), bool)
        return real if self.competing is None else real & self.competing[block]

    def rows(self, places: np.ndarray) -> np.ndarray:
        """The numbers in the volume, int64, of the rows at given places of the index."""
        ends = np.cumsum([part.rows for part in self.parts])
        shifts = np.array([part.first_row for part in self.parts]) - ends + [part.rows for part in self.parts]
        return places + shifts[np.searchsorted(ends, places, side="right")]

    def scores(self, rho: float) -> Iterator[np.ndarray]:
        """The log of each row's weight, up to a constant, in blocks [b] float64; -inf for rows that do not compete."""
        for start in range(0, self.num_rows, _BLOCK):
            block = self.log_volume[start : start + _BLOCK]
            block = rho * block if rho else np.zeros(len(block))  # 0 times an infinity would be no number
            block[~self._in_pool(rho, start)] = -np.inf
            yield block

    @cached_property
    def spread(self) -> tuple[np.ndarray, np.ndarray]:
        """The log-volumes of the rows that compete, near ones together: values [M] float64 and how many rows each.

        What every diagnostic is computed from. Up to 262,144 rows it is exact. Beyond, rows that lie within 1/262,144
        of the range stand at their mean, unless that is more than 0.002 nats: then it is every row again.
        """

        def competing() -> Iterator[np.ndarray]:
            for start in range(0, self.num_rows, _BLOCK):
                yield self.log_volume[start : start + _BLOCK][self._in_pool(1.0, start)]

        ends = [(block.min(), block.max()) for block in competing() if len(block)]
        low, high = (np.min(ends), np.max(ends)) if ends else (0.0, 0.0)
        width = (high - low) / _BINS
        if self.num_rows <= _BINS or not 0 < width <= _WIDEST:
            values = np.concatenate(list(competing()))
            return values, np.ones(len(values))
        counts, sums = np.zeros(_BINS + 1), np.zeros(_BINS + 1)
        for block in competing():
            bins = ((block - low) / width).astype(np.int64)
            counts += np.bincount(bins, minlength=_BINS + 1)
            sums += np.bincount(bins, block - low, minlength=_BINS + 1)
        there = counts > 0
        return low + sums[there] / counts[there], counts[there]

    def log_weights(self, rho: float) -> tuple[np.ndarray, np.ndarray]:
        """The log of a row's weight, weights summing to 1, for the groups of `spread`, and how many rows each.

        Args:
            rho: the polarity; 0 the generator as it is, negative towards modes, positive away from them.

        Returns:
            [M] float64, ≤ 0, and [M] float64 rows; rows that do not compete are left out.
        """
        if rho == 0:
            pool = self.pool(0.0)
            return np.array([-np.log(pool)]), np.array([float(pool)])
        values, counts = self.spread
        scores = rho * values
        return scores - _log_sum(scores, counts), counts


@dataclass(frozen=True)
class Draw:
    """n rows drawn from an index.

    Attributes:
        rows: [n] int64, numbers of rows in the volume, in the order drawn; the first m are the draw for n = m.
        log_volume: [n] float64, natural log.
        pool: rows that competed.
        effective_size: (Σw)² / Σw² over them, in rows.
        displaced_share: share of the draw that is not where the weights ask, in [0, 1); 0 with replacement.
        largest_useful_rho: of the same sign as rho, the largest in size whose displaced share at this n is at most
            0.05.
    """

    rows: np.ndarray
    log_volume: np.ndarray
    pool: int
    effective_size: float
    displaced_share: float
    largest_useful_rho: float

    @property
    def unique_rows(self) -> int:
        """How many different rows were drawn."""
        return len(np.unique(self.rows))


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
    ours, theirs = _places(parts), _places(known.parts if known else ())
    for part in ours.keys() & theirs.keys():
        volumes[ours[part]], real[ours[part]] = known.log_volume[theirs[part]], known.above_floor[theirs[part]]
    new = [part for part in parts if part not in theirs]
    for part, shard in ((part, volume.read(part.shard)) for part in new):
        found = _log_volumes(shard, volume.spec, top_k)[: part.rows]  # it may have grown since its mark was read
        if np.isnan(found).any() or np.isposinf(found).any():
            message = f"{volume.shard_path(part.shard)} holds singular values that are not finite"
            raise VolumeError(message, "remove that shard and its mark, and compute it again")
        values = shard.singular_values[: part.rows]
        volumes[ours[part]] = found
        real[ours[part]] = _above(values[:, top_k - 1], values[:, 0], volume.spec.rank_floor) & np.isfinite(found)
    below = 1 - np.count_nonzero(real) / num_rows
    if below > _FLOOR_SHARE:
        floor = volume.spec.rank_floor
        message = (
            f"top_k {top_k} reaches below the rank floor ({floor:g} of a row's first value) in "
            f"{below:.1%} of the rows: there the singular values are rounding"
        )
        largest = _largest_top_k(volume, num_rows)
        raise VolumeError(message, f"pass --top-k {largest}, the largest that does not, or less")
    return Index(volume.fingerprint, top_k, parts, volumes, real)


def of_labels(index: Index, volume: Volume, label: tuple[int, ...]) -> Index:
    """The index in which only rows of the given labels compete; the index itself where none are given.

    Raises:
        VolumeError: the volume has no rows of such a label.
        MagnetError: it cannot be read.
    """
    if not label:
        return index
    found = volume.labels(index.rows(np.arange(index.num_rows)))
    competing = np.isin(found, label) if found is not None else np.zeros(index.num_rows, bool)
    if not competing.any():
        classes = sorted(set(found.tolist())) if found is not None else []
        has = f"labels {', '.join(map(str, classes[:10]))}{'…' * (len(classes) > 10)}" if classes else "no labels"  # noqa: PLR2004
        message = f"rows of label {', '.join(map(str, label))} are asked for, and those of {volume.path} have {has}"
        raise VolumeError(message, f"pass one of those, or compute: magnet compute GENERATOR --label {label[0]}")
    return dataclasses.replace(index, competing=competing)


def _places(parts: tuple[Part, ...]) -> dict[Part, slice]:
    """Where in an index the rows of each part are."""
    ends = np.cumsum([part.rows for part in parts]).tolist()
    return {part: slice(end - part.rows, end) for part, end in zip(parts, ends, strict=True)}


def _above(values: np.ndarray, first: np.ndarray, floor: float) -> np.ndarray:
    """Whether singular values are more than rounding beside the first of their row."""
    return (values > 0) & (values >= floor * first)


def _largest_top_k(volume: Volume, num_rows: int) -> int:
    """The largest k that is above the rank floor in all but 0.1 % of the rows."""
    above = np.zeros(volume.spec.top_k)
    for _, shard in volume.rows():
        values = shard.singular_values
        above += np.logical_and.accumulate(_above(values, values[:, :1], volume.spec.rank_floor), axis=1).sum(axis=0)
    return int(np.count_nonzero(1 - above / num_rows <= _FLOOR_SHARE))


def rescales(spec: VolumeSpec) -> bool:
    """Whether log-volumes are corrected for the length of z: where the generator normalises z and the volume does not.

    There the image does not change along z and J ∝ 1/|z|, so k log(|z|/√D) is added: the log-volume at |z| = √D.
    """
    return spec.prior == "sphere" and spec.solver == "imported"


def _log_volumes(shard: Shard, spec: VolumeSpec, top_k: int) -> np.ndarray:
    found = log_volume(shard.singular_values, top_k)
    if rescales(spec):
        squares = np.einsum("ij,ij->i", shard.latents, shard.latents, dtype=np.float64)
        with np.errstate(divide="ignore"):
            found += 0.5 * top_k * np.log(squares / spec.latent_dim)
    return found


def path_of(folder: Path, volume: Volume, top_k: int) -> Path:
    """Where a volume's index for one k is kept, below a folder for indices."""
    return folder / f"{volume.spec.generator}-{volume.fingerprint[:12]}-k{top_k}.h5"


def stored(path: Path, volume: Volume, top_k: int) -> Index | None:
    """The index at `path`, if it is whole and of this volume and k; else None.

    It is up to date if `current` says so; else `build` takes from it what still holds.
    """
    try:
        mark, data = files.read_document(path.with_suffix(".json")), path.read_bytes()
    except (MagnetError, OSError):
        return None  # an index is made of the volume again; nothing is lost with it
    if mark.get("sha256") != files.sha256_bytes(data) or mark.get("format") != FORMAT:
        return None
    if (mark.get("fingerprint"), mark.get("top_k")) != (volume.fingerprint, top_k):
        return None
    try:
        return read(data, mark)
    except ValueError:
        return None


def current(index: Index, volume: Volume) -> bool:
    """Whether an index is made of just the rows that the volume holds now.

    Raises:
        MagnetError: a mark in the volume is damaged.
    """
    return {part.shard: part.sha256 for part in index.parts} == {s: m.sha256 for s, m in volume.marks().items()}


def read(data: bytes, mark: dict) -> Index:
    """The index in the verified bytes of its file.

    Raises:
        ValueError: it is none, or not the one that the mark is of.
    """
    try:
        parts = tuple(Part(*part) for part in mark["parts"])
        if {tuple(map(type, dataclasses.astuple(part))) for part in parts} != {(int, int, int, str)}:
            message = "its parts are not shards"
            raise ValueError(message)
        num_rows = sum(part.rows for part in parts)
        forms = {"log_volume": layout.form("<f8", num_rows), "above_floor": layout.form("|u1", -(-num_rows // 8))}
        arrays, found = layout.read(data, forms, attributes=("fingerprint", "top_k"))
        if (found["fingerprint"], found["top_k"]) != (mark["fingerprint"], mark["top_k"]):
            message = "it is of another volume or k"
            raise ValueError(message)
    except (KeyError, TypeError) as error:
        message = f"its mark is not that of an index: {error}"
        raise ValueError(message) from error
    real = np.unpackbits(arrays["above_floor"], count=num_rows).view(bool)
    return Index(mark["fingerprint"], mark["top_k"], parts, arrays["log_volume"], real)


def store(index: Index, volume: Volume, path: Path) -> None:
    """Publish an index and its mark.

    Raises:
        MagnetError: it cannot be written.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="earliest") as file:
        file["log_volume"], file["above_floor"] = index.log_volume, np.packbits(index.above_floor)
        about = {"format": FORMAT, "fingerprint": index.fingerprint, "top_k": index.top_k, "magnet": __version__}
        file.attrs.update(about)
    data = buffer.getvalue()
    files.make_folder(path.parent)
    files.sweep(path.parent)
    files.publish(path, data)
    mark = {"format": FORMAT, "kind": "index", "sha256": files.sha256_bytes(data), "size": len(data)}
    mark |= {"rows": index.num_rows, "top_k": index.top_k, "fingerprint": index.fingerprint}
    mark |= {"volume": str(volume.path), "parts": [list(dataclasses.astuple(part)) for part in index.parts]}
    files.publish(path.with_suffix(".json"), files.document(mark))


def draw(index: Index, n: int, rho: float, seed: int, *, replace: bool = False) -> Draw:
    """Draw n rows, each with weight ∝ exp(rho · log-volume), and say how far the draw is what the weights ask for.

    Args:
        index: the rows that compete.
        n: how many are drawn, ≥ 1.
        rho: the polarity, any finite number.
        seed: of the draw, ≥ 0.
        replace: draw with replacement.

    Raises:
        VolumeError: more rows are asked for than compete, without replacement.
    """
    pool = index.pool(rho)
    if n > pool and not replace:
        message = f"{n:,} samples are asked for without replacement, and {pool:,} rows of the volume compete"
        raise VolumeError(
            message, f"make it longer (magnet compute GENERATOR --n {n}), ask for at most {pool}, or pass --replace"
        )
    places = choose(index, rho, n, seed, replace=replace)
    return Draw(
        rows=index.rows(places),
        log_volume=index.log_volume[places],
        pool=pool,
        effective_size=effective_size(index, rho),
        displaced_share=0.0 if replace else displaced_share(index, rho, n),
        largest_useful_rho=rho if replace else largest_useful_rho(index, n, rho),
    )


def choose(index: Index, rho: float, n: int, seed: int, *, replace: bool = False) -> np.ndarray:
    """N places, by weight. The first m of n are those of n = m; rows appended to the pool change no other row's key.

    Without replacement by Gumbel top-n, which is exact sequential sampling (Efraimidis and Spirakis 2006; Kool et al.
    2019, section 2.3). With replacement by inversion of the weights' cumulative sum. Rows pass by in blocks.

    Args:
        index: the rows.
        rho: the polarity.
        n: at most the rows that compete, without replacement.
        seed: of the draw, ≥ 0.
        replace: draw with replacement.

    Returns:
        [n] int64, in the order drawn.
    """
    rng = np.random.default_rng([_STREAM, seed])
    return _with_replacement(index, rho, n, rng) if replace else _top(index, rho, n, rng)


def _top(index: Index, rho: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """The places of the n largest keys, score − log(−log(1 − u)), largest first.

    −log(1 − u) ≥ u, so a key above t has u ≤ exp(score − t): once n keys are known, few rows need the logarithms.
    """
    keys, places = np.empty(0), np.empty(0, np.int64)
    least = -np.finfo(np.float64).max
    start = 0
    for scores in index.scores(rho):
        u = rng.random(len(scores))
        with np.errstate(over="ignore"):
            able = np.flatnonzero(u <= np.exp(scores - least))
        if scores.min() == -np.inf:
            able = able[np.isfinite(scores[able])]
        tested = np.maximum(u[able], 2.0**-54)  # a u of 0 would be an infinite key
        keys = np.concatenate([keys, scores[able] - np.log(-np.log1p(-tested))])
        places = np.concatenate([places, start + able])
        start += len(scores)
        if len(keys) > 2 * n + _BLOCK:
            best = np.sort(np.argpartition(-keys, n - 1)[:n])
            keys, places = keys[best], places[best]
            least = keys.min()
    return places[np.argsort(-keys, kind="stable")[:n]]


def _with_replacement(index: Index, rho: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """The places where the weights' cumulative sum passes n uniform numbers."""
    top = max(scores.max() for scores in index.scores(rho))
    total = sum(float(np.exp(scores - top).sum()) for scores in index.scores(rho))
    asked = rng.random(n) * total
    order = np.argsort(asked)
    ascending = asked[order]
    places = np.empty(n, np.int64)
    start, done, last, sum_before = 0, 0, 0, 0.0
    for scores in index.scores(rho):
        ends = sum_before + np.cumsum(np.exp(scores - top))
        here = int(np.searchsorted(ascending, ends[-1], side="left"))
        places[order[done:here]] = start + np.searchsorted(ends, ascending[done:here], side="right")
        if np.isfinite(scores).any():
            last = start + int(np.flatnonzero(np.isfinite(scores))[-1])
        start, done, sum_before = start + len(scores), max(done, here), ends[-1]
    places[order[done:]] = last  # rounding: the blocks' sums may end short of the total
    return places


def effective_size(index: Index, rho: float) -> float:
    """(Σw)² / Σw², in rows: how many equal rows would carry as much."""
    log_w, counts = index.log_weights(rho)
    return float(np.exp(-_log_sum(2 * log_w, counts)))


def displaced_share(index: Index, rho: float, n: int) -> float:
    """Share of a draw of n without replacement that is not where the weights ask (METHOD: displaced share).

    ½ Σ|π_i − n w_i| / n with normalised weights w and inclusion probabilities π_i = 1 − exp(−t w_i), t from Σπ_i = n.

    Args:
        index: the rows.
        rho: the polarity.
        n: rows drawn, at most those that compete.

    Returns:
        In [0, 1).
    """
    log_w, counts = index.log_weights(rho)
    wanted = n * np.exp(log_w)
    if n >= counts.sum():
        return float(0.5 * (counts * np.abs(1 - wanted)).sum() / n)
    # Σπ ≤ n at the first, every π = 1 at the last
    low, log_t, high = np.log(n), np.log(n), np.log(n) - log_w.min() + 50
    for _ in range(200):  # Newton on log Σπ as a function of log t, kept inside the bracket
        expected = np.exp(np.minimum(log_w + log_t, 700))  # t w_i; exp(700) is finite, and π is 1 long before
        inclusion = -np.expm1(-expected)
        total = (counts * inclusion).sum()
        excess = np.log(total / n)
        if abs(excess) < 1e-10:  # noqa: PLR2004  (relative error of Σπ)
            break
        low, high = (low, log_t) if excess > 0 else (log_t, high)
        slope = (counts * expected * np.exp(-expected)).sum() / total
        step = log_t - excess / max(slope, 1e-9)  # where it is flat, the step leaves the bracket, which is then halved
        log_t = step if low < step < high else (low + high) / 2
    return float(0.5 * (counts * np.abs(inclusion - wanted)).sum() / n)


def largest_useful_rho(index: Index, n: int, rho: float) -> float:
    """The largest |rho|, with the sign of rho, whose displaced share for n rows is at most 0.05.

    Returns:
        To two digits or better, at most 8 in size; 0 where nearly equal weights displace more (n close to the pool).
    """
    sign = -1.0 if rho < 0 else 1.0
    high = 8.0

    def useful(size: float) -> bool:
        return displaced_share(index, sign * size, n) <= DISPLACED_WARNING

    if useful(high):
        return sign * high
    low = high / 2
    while not useful(low):
        low, high = low / 2, low
        if low < 1e-4:  # noqa: PLR2004  (below this no weight differs visibly)
            return 0.0
    for _ in range(7):
        middle = (low + high) / 2
        low, high = (middle, high) if useful(middle) else (low, middle)
    return sign * low


def target(index: Index, rho: float, spec: VolumeSpec) -> str:
    """What the weights ask for, in words (METHOD: what ρ=1 means); "uniform" only where it holds."""
    if rho == 0:
        return "the generator's own distribution"
    if rho != 1:
        return f"tilted towards the {'modes' if rho < 0 else 'anti-modes'} of the generator"
    density = density_words(spec)
    if index.top_k == spec.rank:
        return density
    return f"roughly {density} (top_k {index.top_k} is below the rank {spec.rank}: an approximation)"


def density_words(spec: VolumeSpec) -> str:
    """The density on the manifold that rho 1 asks for at full rank, in words (METHOD: what ρ=1 means; `--space`)."""
    if spec.space == "w":
        return "density on the manifold in proportion to p_w, that of w = M(z) under the prior of z: not uniform"
    return f"density on the manifold in proportion to the {spec.prior} prior's" + ": not uniform" * (
        spec.prior.endswith("normal")
    )


def warnings(drawn: Draw, n: int, rho: float, *, replace: bool) -> list[str]:
    """Reasons to doubt a draw, in words, each with what helps."""
    useful = f"the largest useful |rho| for {n:,} of {drawn.pool:,} rows is {abs(drawn.largest_useful_rho):.2g}"
    if replace:
        if drawn.unique_rows < n / 2:
            return [f"only {drawn.unique_rows:,} different rows in {n:,} draws: most images are copies"]
        return []
    if drawn.displaced_share > DISPLACED_SELECTION:
        share = f"displaced share {drawn.displaced_share:.2f}"
        return [
            f"{share}: this is a selection of the rows of {'least' if rho < 0 else 'most'} volume, not a draw; {useful}"
        ]
    if drawn.displaced_share > DISPLACED_WARNING:
        return [f"displaced share {drawn.displaced_share:.2f}: that part of the draw is not where rho asks; {useful}"]
    return []


def _log_sum(scores: np.ndarray, counts: np.ndarray) -> float:
    """Log Σ counts · exp(scores), without overflow."""
    top = scores.max()
    return float(top + np.log((counts * np.exp(scores - top)).sum()))
