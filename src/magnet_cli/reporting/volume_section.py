"""The report of a volume: its spectrum, log-volumes, effective sizes, and images by log-volume."""

from collections.abc import Generator as Steps
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

SHOWN = 32  # images of low, of middle and of high log-volume
_BINS = 60
_FAR = 100  # the rank floor is drawn where a value is below so many times of it
_MOST_RANKS = 60  # bars in a histogram of ranks


def subject(volume: Volume, index: Index, name: str, images: str) -> Subject:
    """Return the subject of a report; `images` is the generator's sha256, or why there are no images."""
    inputs = {"fingerprint": volume.fingerprint, "generator": volume.spec.generator, "top_k": index.top_k}
    inputs |= {"shards": [[part.shard, part.rows, part.sha256] for part in index.parts]}
    inputs |= {"images": images}
    return Subject("volume", name, volume.fingerprint, inputs)


def lead(spec: VolumeSpec, index: Index) -> str:
    """Describe the volume in one sentence."""
    what = f"{index.num_rows:,} latents of {spec.generator}, each with {spec.top_k} singular values of the Jacobian of "
    what += "the image" if spec.output == "pixel" else spec.output
    return (
        what + f" with respect to {spec.space}" + f" at truncation {spec.truncation:g}" * (spec.truncation != 1) + "."
    )


def sections(
    volume: Volume, index: Index, generator: "Generator | str", batch: int | None = None
) -> Steps[int, None, list[str]]:
    """Build the sections of the page, yielding numbers of rows read; a text as `generator` says why there are none.

    Raises:
        VolumeError, MagnetError: the volume is damaged, or cannot be read.
    """
    values = yield from spectrum.read(volume, index)
    real = index.log_volume[index.above_floor]
    real.sort()
    grid = index_.effective_sizes(volume, index, index_.some_top_ks(volume.spec.top_k, index.top_k), index_.SOME_RHOS)
    return [
        _glance(volume.spec, index, values, real),
        _spectrum(volume.spec, values),
        _log_volumes(index, real),
        _effective(index, grid),
        _images(volume, index, real, generator, batch),
        _made(volume),
    ]


def _glance(spec: VolumeSpec, index: Index, values: Spectrum, real: np.ndarray) -> str:
    ranks = values.ranks
    rank, ratio = f"{np.median(ranks):g} of {spec.top_k}", np.nanmedian(values.participation)
    numbers = [(integer(index.num_rows), "rows")]
    numbers += [(rank, "numerical rank, median" + ", of the stored values" * (spec.top_k < spec.rank))]
    numbers += [(number(ratio, 3), "participation ratio, median")]
    numbers += [(number(real.std(), 3), f"sd of log-volume in nats, k {index.top_k}")]
    numbers += [
        (integer(index_.effective_size(index, rho)), f"effective size at ρ {number(rho)}, rows") for rho in (-1, 1)
    ]
    return page.section("At a glance", page.tiles(numbers))


def _rows_read(values: Spectrum) -> str:
    if values.rows == values.num_rows:
        return f"All {values.num_rows:,} rows."
    return f"{values.rows:,} of {values.num_rows:,} rows, evenly chosen."


def _spectrum(spec: VolumeSpec, values: Spectrum) -> str:
    kept = np.arange(1, spec.top_k + 1)
    low, quarter, middle, three, high = values.quantiles
    bands = [(low, high), (quarter, three)]
    floor = spec.rank_floor * float(middle[0])
    near = bool((low <= _FAR * floor).any())
    inner, outer = (f"{QUANTILES[-1 - i] - QUANTILES[i]:.0%}".replace("%", " %") for i in (1, 0))
    shown = plots.lines(
        [plots.Line("median over rows", kept, middle, bands=bands)],
        title=f"Quantiles of the {spec.top_k} singular values over rows",
        x_label="i",
        y_label="σᵢ, intensity per unit of latent",
        log_y=True,
        levels={"rank floor": floor} if near and floor else None,
        band_names=(f"middle {outer} of rows", f"middle {inner}"),
    )
    caption = f"Each singular value over rows: median, and the middle {inner} and {outer}. {_rows_read(values)} "
    caption += f"Rank floor: {number(spec.rank_floor)} of a row's first value"
    caption += f", drawn for the median of these, {number(floor)}." if near else "; no value comes near it."
    return page.section("Spectrum", page.figure(shown, caption), *_ranks(spec, values), _participation(spec, values))


def _ranks(spec: VolumeSpec, values: Spectrum) -> list[str]:
    ranks = values.ranks
    least, most = int(ranks.min()), int(ranks.max())
    rest = f"; only the first {spec.top_k} of {spec.rank} are stored, so the rank may be higher"
    rest *= spec.top_k < spec.rank
    title = page.heading("Numerical rank")
    if least == most:
        all_ = "all" if least == spec.top_k else "the first"
        return [title, page.paragraph(f"In every row {all_} {least} singular values are above the rank floor{rest}.")]
    step = -(-(most - least + 1) // _MOST_RANKS)
    edges = np.arange(least, most + step + 1, step) - 0.5
    counts = np.histogram(ranks, edges)[0]
    shown = plots.histogram(
        edges, {"": counts}, title="Histogram of numerical ranks", x_label="numerical rank", y_label="rows", height=2.3
    )
    caption = f"Singular values above the rank floor per row: {least} to {most}, median {np.median(ranks):g}{rest}. "
    return [title, page.figure(shown, caption + _rows_read(values))]


def _participation(spec: VolumeSpec, values: Spectrum) -> str:
    ratios = values.participation
    finite = ratios[np.isfinite(ratios)]
    if not len(finite):
        return page.missing("Every singular value is 0: there is no participation ratio.")
    edges, counts = _binned(finite)
    low, middle, high = np.quantile(finite, (QUANTILES[0], 0.5, QUANTILES[-1]))
    shown = plots.histogram(
        edges,
        {"": counts},
        title="Histogram of participation ratios",
        x_label="participation ratio",
        y_label="rows",
        levels={f"median {number(middle)}": float(middle)},
        height=2.3,
    )
    caption = f"(Σσ²)² / Σσ⁴ of each row: {spec.top_k} where all values are equal, 1 where only one is not 0. "
    caption += f"Median {number(middle)}, middle 90 % {number(low)} to {number(high)}. {_rows_read(values)}"
    caption += f" {len(ratios) - len(finite):,} rows of zeros are left out." * (len(finite) < len(ratios))
    return page.heading("Participation ratio") + page.figure(shown, caption)


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
    caption = f"Σ log σᵢ over the first {index.top_k} values, natural log; only differences are meaningful. "
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
        "(Σw)² / Σw² with weights exp(ρ · log-volume), in rows: the number of rows that carry a draw. A larger draw "
    )
    caption += f"repeats rows, or takes rows of little weight. ▸ the k of this page. All {index.num_rows:,} rows."
    if not all(grid.values()):
        caption += " –: the k-th value is rounding in more than 0.1 % of the rows."
    return page.section("Effective size over ρ and k", page.figure(shown, caption))


def extremes(index: Index, real: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Return positions [count] int64 of the rows of lowest, middle and highest log-volume, ascending in log-volume.

    `real` holds the sorted log-volumes of the rows above the rank floor. Ties at an end are broken arbitrarily.
    """
    first = (len(real) - count) // 2
    positions = {}
    for name, start in (("Lowest", 0), ("Middle", first), ("Highest", len(real) - count)):
        low, high = real[start], real[start + count - 1]
        places = np.flatnonzero(index.above_floor & (index.log_volume >= low) & (index.log_volume <= high))
        places = places[np.argsort(index.log_volume[places], kind="stable")]
        positions[name] = places[-count:] if name == "Highest" else places[:count]
    return positions


def _images(volume: Volume, index: Index, real: np.ndarray, generator: "Generator | str", batch: int | None) -> str:
    title = "Images of low, middle and high volume"
    if isinstance(generator, str):
        return page.section(title, page.missing(generator))
    from magnet_cli.models import batches

    count = min(SHOWN, max(len(real) // 3, 1))
    parts = [page.paragraph(_order(index, count))]
    size = batch or batches.batch_size(generator)
    for name, chosen in extremes(index, real, count).items():
        rows, values = index.rows(chosen), index.log_volume[chosen]
        pixels = batches.each_image(generator, volume.latents(rows), volume.spec.truncation, size, volume.labels(rows))
        shown = [
            (contact_sheet.small(image), f"row {row}, log-volume {number(value)}")
            for image, row, value in zip(pixels, rows.tolist(), values, strict=True)
        ]
        parts.append(page.heading(f"{name} log-volume, {number(values[0])} to {number(values[-1])}"))
        parts.append(page.strip(shown))
    return page.section(title, *parts)


def _order(index: Index, count: int) -> str:
    text = f"{count} rows each, by log-volume at k {index.top_k} from left to right. Draws at ρ < 0 prefer the first, "
    return text + "draws at ρ > 0 the last."


def _made(volume: Volume) -> str:
    spec = volume.spec
    how = f"{spec.solver}, {spec.precision}"
    how += f", {spec.solver_size} vectors" if spec.solver_size else ""
    terms = [("generator", spec.generator), ("sha256", spec.sha256 or "unknown"), ("family", spec.family)]
    terms += [("latents", f"{spec.latent_dim} numbers, prior {spec.prior}")]
    terms += [("space, output", f"{spec.space}, {spec.output}")]
    terms += [("truncation", f"{spec.truncation:g}"), ("solver, precision", how), ("seed", str(spec.seed))]
    terms += [("density at ρ 1, full rank", index_.density_words(spec)), ("fingerprint", volume.fingerprint)]
    if index_.rescales(spec):
        terms.append(("log-volumes", index_.RESCALED))
    return page.section("How it was made", page.facts(terms))


def _binned(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return edges [b + 1] and counts [b] of a histogram; one bin where all values are equal."""
    counts, edges = np.histogram(values, _BINS if values.max() > values.min() else 1)
    return edges, counts
