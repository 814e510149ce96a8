"""What the report of a volume shows: its spectrum, its log-volumes, effective sizes, and images by volume.

Joins volume, index and, where it is here, the generator. Numbers come from `spectrum` and `index`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from magnet_cli import index as index_
from magnet_cli.files import contact_sheet, plots
from magnet_cli.index import Index
from magnet_cli.reporting import page, spectrum
from magnet_cli.reporting.format import integer, number
from magnet_cli.reporting.report import Subject
from magnet_cli.reporting.spectrum import QUANTILES, Spectrum
from magnet_cli.volume import Volume
from magnet_cli.volume.spec import VolumeSpec

if TYPE_CHECKING:
    from magnet_cli.models import Generator

SHOWN = 32  # images of each kind
_BINS = 60
_FAR = 100  # the rank floor is drawn where values come so near to it
_MOST_RANKS = 60  # bars of a histogram of ranks


def subject(volume: Volume, index: Index, name: str, images: str) -> Subject:
    """What a report of a volume depends on.

    Args:
        volume: the volume.
        index: of it.
        name: what it is called.
        images: sha256 of the generator that makes them; or why they are not shown.
    """
    inputs = {"fingerprint": volume.fingerprint, "generator": volume.spec.generator, "top_k": index.top_k}
    inputs |= {"shards": [[part.shard, part.rows, part.sha256] for part in index.parts]}
    inputs |= {"images": images}
    return Subject("volume", name, volume.fingerprint, inputs)


def lead(spec: VolumeSpec, index: Index) -> str:
    """What the volume is, in a sentence."""
    what = f"{index.num_rows:,} latents of {spec.generator}, each with {spec.top_k} singular values of the Jacobian of "
    what += "the image" if spec.output == "pixel" else spec.output
    return (
        what + f" with respect to {spec.space}" + f" at truncation {spec.truncation:g}" * (spec.truncation != 1) + "."
    )


def sections(
    volume: Volume, index: Index, generator: "Generator | str", advance: Callable[[int], None], batch: int | None = None
) -> list[str]:
    """The sections of the page.

    Args:
        volume: the volume.
        index: of it, for the k that log-volumes are of.
        generator: that made it, on its device; or why its images are not shown.
        advance: called with the number of rows read.
        batch: images at a time.

    Raises:
        VolumeError, MagnetError: the volume is damaged, or cannot be read.
    """
    found = spectrum.read(volume, index, advance)
    real = index.log_volume[index.above_floor]
    real.sort()
    grid = index_.effective_sizes(volume, index, index_.some_top_ks(volume.spec.top_k, index.top_k), index_.SOME_RHOS)
    return [
        _glance(volume.spec, index, found, real),
        _spectrum(volume.spec, found),
        _log_volumes(index, real),
        _effective(index, grid),
        _images(volume, index, real, generator, batch),
        _made(volume),
    ]


def _glance(spec: VolumeSpec, index: Index, found: Spectrum, real: np.ndarray) -> str:
    ranks = found.ranks
    rank, ratio = f"{np.median(ranks):g} of {spec.top_k}", np.nanmedian(found.participation)
    numbers = [(integer(index.num_rows), "rows")]
    numbers += [(rank, "numerical rank, median" + ", of the values kept" * (spec.top_k < spec.rank))]
    numbers += [(number(ratio, 3), "participation ratio, median")]
    numbers += [(number(real.std(), 3), f"sd of log-volume in nats, k {index.top_k}")]
    numbers += [
        (integer(index_.effective_size(index, rho)), f"effective size at ρ {number(rho)}, rows") for rho in (-1, 1)
    ]
    return page.section("At a glance", page.tiles(numbers))


def _rows_read(found: Spectrum) -> str:
    if found.rows == found.num_rows:
        return f"All {found.num_rows:,} rows."
    return f"{found.rows:,} of {found.num_rows:,} rows, evenly chosen."


def _spectrum(spec: VolumeSpec, found: Spectrum) -> str:
    kept = np.arange(1, spec.top_k + 1)
    low, quarter, middle, three, high = found.quantiles
    bands = [(low, high), (quarter, three)]
    floor = spec.rank_floor * float(middle[0])
    near = bool((low <= _FAR * floor).any())
    shown = plots.lines(
        [plots.Line("median over rows", kept, middle, bands=bands)],
        title=f"Quantiles of the {spec.top_k} singular values over rows",
        x_label="i",
        y_label="σᵢ, intensity per unit of latent",
        log_y=True,
        levels={"rank floor": floor} if near and floor else None,
    )
    inner, outer = (f"{QUANTILES[-1 - i] - QUANTILES[i]:.0%}".replace("%", " %") for i in (1, 0))
    caption = f"Each singular value over rows: median, and the middle {inner} and {outer}. {_rows_read(found)} "
    caption += f"Rank floor: {number(spec.rank_floor)} of a row's first value"
    caption += f", drawn for the median of these, {number(floor)}." if near else "; no value comes near it."
    return page.section("Spectrum", page.figure(shown, caption), *_ranks(spec, found), _participation(spec, found))


def _ranks(spec: VolumeSpec, found: Spectrum) -> list[str]:
    ranks = found.ranks
    least, most = int(ranks.min()), int(ranks.max())
    enough = f"; only the first {spec.top_k} of {spec.rank} are kept, so the rank may be higher"
    rest = enough if spec.top_k < spec.rank else ""
    title = page.heading("Numerical rank")
    if least == most:
        all_ = "all" if least == spec.top_k else "the first"
        said = f"In every row {all_} {least} singular values are above the rank floor{rest}."
        return [title, page.paragraph(said)]
    step = -(-(most - least + 1) // _MOST_RANKS)
    edges = np.arange(least, most + step + 1, step) - 0.5
    counts = np.histogram(ranks, edges)[0]
    shown = plots.histogram(
        edges, {"": counts}, title="Histogram of numerical ranks", x_label="numerical rank", y_label="rows", height=2.3
    )
    said = f"Singular values of a row above the rank floor: from {least} to {most}, median {np.median(ranks):g}{rest}. "
    return [title, page.figure(shown, said + _rows_read(found))]


def _participation(spec: VolumeSpec, found: Spectrum) -> str:
    ratios = found.participation
    known = ratios[np.isfinite(ratios)]
    if not len(known):
        return page.missing("Every singular value is 0: there is no participation ratio.")
    edges, counts = _binned(known)
    low, middle, high = np.quantile(known, (QUANTILES[0], 0.5, QUANTILES[-1]))
    shown = plots.histogram(
        edges,
        {"": counts},
        title="Histogram of participation ratios",
        x_label="participation ratio",
        y_label="rows",
        levels={f"median {number(middle)}": float(middle)},
        height=2.3,
    )
    said = "(Σσ²)² / Σσ⁴ of each row: how many directions share the stretch, "
    said += f"{spec.top_k} where all are equal, 1 where one has it all. "
    said += f"Median {number(middle)}, middle 90 % {number(low)} to {number(high)}. {_rows_read(found)}"
    said += f" {len(ratios) - len(known):,} rows of zeros are left out." * (len(known) < len(ratios))
    return page.heading("Participation ratio") + page.figure(shown, said)


def _log_volumes(index: Index, real: np.ndarray) -> str:
    edges, counts = _binned(real)
    shown = plots.histogram(
        edges,
        {"": counts},
        title="Histogram of log-volume",
        x_label=f"log-volume in nats, k {index.top_k}",
        y_label="rows",
        levels={f"mean {number(real.mean())}": float(real.mean())},
    )
    caption = (
        f"Σ log σᵢ over the first {index.top_k} values, natural log; differences carry meaning, the zero does not. "
    )
    caption += f"sd {number(real.std())} nats, {number(real.min())} to {number(real.max())}. "
    below = index.num_rows - len(real)
    caption += f"All {index.num_rows:,} rows" + (f" but {below:,} below the rank floor." if below else ".")
    return page.section("Log-volume", page.figure(shown, caption))


def _effective(index: Index, grid: dict[int, dict[float, float] | None]) -> str:
    rhos = index_.SOME_RHOS
    warmth = np.full((len(grid), len(rhos)), np.nan)
    texts = [["–"] * len(rhos) for _ in grid]
    for i, by_rho in enumerate(grid.values()):
        for j, size in enumerate(by_rho.values() if by_rho else ()):
            warmth[i, j] = np.log(max(size, 1)) / np.log(max(index.num_rows, 2))
            texts[i][j] = integer(size)
    shown = plots.heat(
        [f"{k}{'  ▸' * (k == index.top_k)}" for k in grid],
        [f"{rho:g}".replace("-", "−") for rho in rhos],
        warmth,
        texts,
        title="Effective size over rho and k",
        x_label="ρ",
        y_label="k",
    )
    caption = (
        "(Σw)² / Σw² with weights exp(ρ · log-volume), in rows: how many rows carry a draw. A draw of more repeats "
    )
    caption += f"rows, or takes such as the weights did not ask for. ▸ the k of this page. All {index.num_rows:,} rows."
    if not all(grid.values()):
        caption += " – where the k-th value is rounding in more than 0.1 % of the rows."
    return page.section("Effective size over ρ and k", page.figure(shown, caption))


def extremes(index: Index, real: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Where in an index the rows of lowest, middle and highest log-volume are, each ascending in it.

    Args:
        index: the rows.
        real: log-volumes of those above the rank floor, sorted.
        count: rows of each kind.

    Returns:
        [count] int64 for each name. Among equal log-volumes at an end, any rows.
    """
    first = (len(real) - count) // 2
    found = {}
    for name, start in (("Lowest", 0), ("Middle", first), ("Highest", len(real) - count)):
        low, high = real[start], real[start + count - 1]
        places = np.flatnonzero(index.above_floor & (index.log_volume >= low) & (index.log_volume <= high))
        places = places[np.argsort(index.log_volume[places], kind="stable")]
        found[name] = places[-count:] if name == "Highest" else places[:count]
    return found


def _images(volume: Volume, index: Index, real: np.ndarray, generator: "Generator | str", batch: int | None) -> str:
    title = "Images of low, middle and high volume"
    if isinstance(generator, str):
        return page.section(title, page.missing(generator))
    from magnet_cli.sampling import render

    count = min(SHOWN, max(len(real) // 3, 1))
    parts = [page.paragraph(_order(index, count))]
    size = batch or render.batch_size(generator)
    for name, chosen in extremes(index, real, count).items():
        rows, values = index.rows(chosen), index.log_volume[chosen]
        pixels = render.batches(generator, volume.latents(rows), volume.spec.truncation, size, volume.labels(rows))
        shown = [
            (contact_sheet.small(image), f"row {row}, log-volume {number(value)}")
            for image, row, value in zip(pixels, rows.tolist(), values, strict=True)
        ]
        parts.append(page.heading(f"{name} log-volume, {number(values[0])} to {number(values[-1])}"))
        parts.append(page.strip(shown))
    return page.section(title, *parts)


def _order(index: Index, count: int) -> str:
    said = f"{count} rows each, by log-volume at k {index.top_k} from left to right. Draws at ρ < 0 go to the first, "
    return said + "draws at ρ > 0 to the last."


def _made(volume: Volume) -> str:
    spec = volume.spec
    how = f"{spec.solver}, {spec.precision}"
    how += f", {spec.solver_size} vectors" if spec.solver_size else ""
    terms = [("generator", spec.generator), ("sha256", spec.sha256 or "not known"), ("family", spec.family)]
    terms += [("latents", f"{spec.latent_dim} numbers, prior {spec.prior}")]
    terms += [("space, output", f"{spec.space}, {spec.output}")]
    terms += [("truncation", f"{spec.truncation:g}"), ("solver, precision", how), ("seed", str(spec.seed))]
    terms += [("density at ρ 1, full rank", index_.density_words(spec)), ("fingerprint", volume.fingerprint)]
    if index_.rescales(spec):
        terms.append(("log-volumes", index_.RESCALED))
    return page.section("How it was made", page.facts(terms))


def _binned(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges [b + 1] and counts [b] of a histogram; one bin where all are equal."""
    counts, edges = np.histogram(values, _BINS if values.max() > values.min() else 1)
    return edges, counts
