"""The index: the log-volumes of a volume's rows for one k, the weights they give, and draws from them.

Owns weights, draws and their diagnostics, in log space until the very end. Knows nothing of generators or images;
needs neither torch nor a GPU.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from magnet_cli import __version__, files
from magnet_cli.errors import MagnetError, SpecError, VolumeError
from magnet_cli.volume import Volume
from magnet_cli.volume.spec import VolumeSpec

DISPLACED_WARNING = 0.05  # METHOD: above this share a draw is not where the weights ask
DISPLACED_SELECTION = 0.5  # and above this it is a selection by volume
_FLOOR_SHARE = 1e-3  # METHOD: largest share of rows that may fall below the rank floor
_STREAM = 0x6D61676E  # keeps the draws' random stream apart from the latents'


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
    with np.errstate(divide="ignore"):
        return np.log(singular_values[:, :top_k].astype(np.float64)).sum(axis=1)


@dataclass(frozen=True)
class Index:
    """The log-volumes of a volume's rows for one k.

    Attributes:
        fingerprint: of the volume.
        top_k: k.
        rows: [N] int64, the rows' numbers in the volume, ascending.
        log_volume: [N] float64, natural log.
        above_floor: [N] bool, False where one of the k values is rounding (METHOD: rank floor); such rows do not
            compete for rho ≠ 0.
    """

    fingerprint: str
    top_k: int
    rows: np.ndarray
    log_volume: np.ndarray
    above_floor: np.ndarray

    def log_weights(self, rho: float) -> np.ndarray:
        """The log of each row's weight, weights summing to 1; -inf for rows that do not compete.

        Args:
            rho: the polarity; 0 the generator as it is, negative towards modes, positive away from them.

        Returns:
            [N] float64, ≤ 0.
        """
        if rho == 0:
            return np.full(len(self.rows), -np.log(len(self.rows)))
        scores = np.full(len(self.rows), -np.inf)
        scores[self.above_floor] = rho * self.log_volume[self.above_floor]
        return scores - _log_sum(scores)


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


def build(volume: Volume, top_k: int) -> Index:
    """The index of all committed rows of a volume.

    Raises:
        SpecError: top_k outside 1..K.
        VolumeError: the volume is empty or damaged, or its values at top_k are rounding in more than 0.1 % of the rows.
    """
    floor = volume.spec.rank_floor
    parts = []
    for first_row, shard in volume.rows():
        values = shard.singular_values
        numbers = first_row + np.arange(len(values))
        real = (values > 0) & (values >= floor * values[:, :1])
        parts.append((numbers, log_volume(values, top_k), real))
    if not parts:
        message = f"{volume.path} holds no rows yet"
        raise VolumeError(message, f"fill it: magnet compute {volume.spec.generator} --volume {volume.path}")
    numbers, volumes, real = (np.concatenate(part) for part in zip(*parts, strict=True))
    _check_rank(real, top_k, floor)
    return Index(volume.fingerprint, top_k, numbers, volumes, real[:, :top_k].all(axis=1))


def of_labels(index: Index, volume: Volume, label: tuple[int, ...]) -> Index:
    """The rows of an index whose label is one of those given; the index itself where none are.

    Raises:
        VolumeError: the volume has no rows of such a label.
        MagnetError: it cannot be read.
    """
    if not label:
        return index
    found = volume.labels(index.rows)
    kept = np.isin(found, label) if found is not None else np.zeros(len(index.rows), bool)
    if not kept.any():
        classes = sorted(set(found.tolist())) if found is not None else []
        has = f"labels {', '.join(map(str, classes[:10]))}{'…' * (len(classes) > 10)}" if classes else "no labels"  # noqa: PLR2004
        message = f"rows of label {', '.join(map(str, label))} are asked for, and those of {volume.path} have {has}"
        raise VolumeError(message, f"pass one of those, or compute: magnet compute GENERATOR --label {label[0]}")
    arrays = (index.rows[kept], index.log_volume[kept], index.above_floor[kept])
    return Index(index.fingerprint, index.top_k, *arrays)


def _check_rank(real: np.ndarray, top_k: int, floor: float) -> None:
    """Refuse a k at which too many rows hold only rounding (METHOD: rank floor)."""
    shares = 1 - np.logical_and.accumulate(real, axis=1).mean(axis=0)  # [K] share of rows below the floor at each k
    if shares[top_k - 1] > _FLOOR_SHARE:
        largest = int(np.count_nonzero(shares <= _FLOOR_SHARE))
        message = (
            f"top_k {top_k} reaches below the rank floor ({floor:g} of a row's first value) in "
            f"{shares[top_k - 1]:.1%} of the rows: there the singular values are rounding"
        )
        raise VolumeError(message, f"pass --top-k {largest}, the largest that does not, or less")


def path_of(folder: Path, volume: Volume, top_k: int) -> Path:
    """Where a volume's index for one k is kept, below a folder for indices."""
    return folder / f"{volume.spec.generator}-{volume.fingerprint[:12]}-k{top_k}.h5"


def stored(path: Path, volume: Volume, top_k: int) -> Index | None:
    """The index at `path`, if it is whole and made of just the rows the volume holds now; else None.

    Raises:
        MagnetError: a mark in the volume is damaged.
    """
    mark_path = path.with_suffix(".json")
    if not mark_path.is_file():
        return None
    try:
        mark, data = files.read_document(mark_path), path.read_bytes()
    except (MagnetError, OSError):
        return None  # an index is made of the volume again in a second; nothing is lost with it
    if mark["sha256"] != files.sha256_bytes(data) or mark["shards"] != _shard_hashes(volume):
        return None
    index = read(data)
    return index if (index.fingerprint, index.top_k) == (volume.fingerprint, top_k) else None


def read(data: bytes) -> Index:
    """The index in the verified bytes of its file."""
    with h5py.File(io.BytesIO(data), "r") as file:
        arrays = (file["rows"][:], file["log_volume"][:], file["above_floor"][:])
        return Index(str(file.attrs["fingerprint"]), int(file.attrs["top_k"]), *arrays)


def store(index: Index, volume: Volume, path: Path) -> None:
    """Publish an index and its mark.

    Raises:
        MagnetError: it cannot be written.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["rows"], file["log_volume"], file["above_floor"] = index.rows, index.log_volume, index.above_floor
        file.attrs.update({"format": 1, "fingerprint": index.fingerprint, "top_k": index.top_k, "magnet": __version__})
    data = buffer.getvalue()
    files.make_folder(path.parent)
    files.publish(path, data)
    mark = {"kind": "index", "sha256": files.sha256_bytes(data), "size": len(data), "rows": len(index.rows)}
    mark |= {"top_k": index.top_k, "fingerprint": index.fingerprint, "volume": str(volume.path)}
    files.publish(path.with_suffix(".json"), files.document(mark | {"shards": _shard_hashes(volume)}))


def _shard_hashes(volume: Volume) -> dict[str, str]:
    return {str(shard): mark.sha256 for shard, mark in volume.marks().items()}


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
    log_weights = index.log_weights(rho)
    pool = int(np.isfinite(log_weights).sum())
    if n > pool and not replace:
        message = f"{n:,} samples are asked for without replacement, and {pool:,} rows of the volume compete"
        raise VolumeError(
            message, f"make it longer (magnet compute GENERATOR --n {n}), ask for at most {pool}, or pass --replace"
        )
    places = choose(log_weights, n, seed, replace=replace)
    return Draw(
        rows=index.rows[places],
        log_volume=index.log_volume[places],
        pool=pool,
        effective_size=effective_size(log_weights),
        displaced_share=0.0 if replace else displaced_share(log_weights, n),
        largest_useful_rho=rho if replace else largest_useful_rho(index, n, rho),
    )


def choose(log_weights: np.ndarray, n: int, seed: int, *, replace: bool = False) -> np.ndarray:
    """N places, by weight. The first m of n are those of n = m; rows appended to the pool change no other row's key.

    Without replacement by Gumbel top-n, which is exact sequential sampling (Efraimidis and Spirakis 2006; Kool et al.
    2019, section 2.3). With replacement by inversion of the weights' cumulative sum.

    Args:
        log_weights: [N] float64, up to a constant; -inf for rows that do not compete.
        n: at most the rows that compete, without replacement.
        seed: of the draw, ≥ 0.
        replace: draw with replacement.

    Returns:
        [n] int64, in the order drawn.
    """
    rng = np.random.default_rng([_STREAM, seed])
    if replace:
        ends = np.cumsum(np.exp(log_weights - _log_sum(log_weights)))
        return np.searchsorted(ends, rng.random(n) * ends[-1], side="right")
    keys = log_weights + rng.gumbel(size=len(log_weights))
    return np.argsort(-keys, kind="stable")[:n]


def effective_size(log_weights: np.ndarray) -> float:
    """(Σw)² / Σw², in rows: how many equal rows would carry as much.

    Args:
        log_weights: [N] float64, up to a constant; -inf for rows that do not compete.
    """
    return float(np.exp(2 * _log_sum(log_weights) - _log_sum(2 * log_weights)))


def displaced_share(log_weights: np.ndarray, n: int) -> float:
    """Share of a draw of n without replacement that is not where the weights ask (METHOD: displaced share).

    ½ Σ|π_i − n w_i| / n with normalised weights w and inclusion probabilities π_i = 1 − exp(−t w_i), t from Σπ_i = n.

    Args:
        log_weights: [N] float64, up to a constant; -inf for rows that do not compete.
        n: rows drawn, at most those that compete.

    Returns:
        In [0, 1).
    """
    log_w = log_weights[np.isfinite(log_weights)]
    log_w = log_w - _log_sum(log_w)
    if n >= len(log_w):
        return float(0.5 * np.abs(1 - n * np.exp(log_w)).sum() / n)
    low, log_t, high = (
        np.log(n),
        np.log(n),
        np.log(n) - log_w.min() + 50,
    )  # Σπ ≤ n at the first, every π = 1 at the last
    for _ in range(200):  # Newton on log Σπ as a function of log t, kept inside the bracket
        expected = np.exp(np.minimum(log_w + log_t, 700))  # t w_i; exp(700) is finite, and π is 1 long before
        inclusion = -np.expm1(-expected)
        excess = np.log(inclusion.sum() / n)
        if abs(excess) < 1e-10:  # noqa: PLR2004  (relative error of Σπ)
            break
        low, high = (low, log_t) if excess > 0 else (log_t, high)
        slope = (expected * np.exp(-expected)).sum() / inclusion.sum()
        step = log_t - excess / max(slope, 1e-9)  # where it is flat, the step leaves the bracket, which is then halved
        log_t = step if low < step < high else (low + high) / 2
    return float(0.5 * np.abs(inclusion - n * np.exp(log_w)).sum() / n)


def largest_useful_rho(index: Index, n: int, rho: float) -> float:
    """The largest |rho|, with the sign of rho, whose displaced share for n rows is at most 0.05.

    Returns:
        To two digits or better, at most 8 in size; 0 where nearly equal weights displace more (n close to the pool).
    """
    sign = -1.0 if rho < 0 else 1.0
    high = 8.0

    def useful(size: float) -> bool:
        return displaced_share(index.log_weights(sign * size), n) <= DISPLACED_WARNING

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


def _log_sum(scores: np.ndarray) -> float:
    """Log Σ exp(scores), without overflow."""
    top = scores.max()
    return float(top + np.log(np.exp(scores - top).sum()))
