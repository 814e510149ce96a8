"""Plots as SVG: lines with bands, histograms, bars and points with intervals, heat tables.

Every mark that stands for numbers is of the class "mark".
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from magnet_cli.errors import require
from magnet_cli.files.themed_svg import COLOURS, INCHES, LONGEST, POINTS, draw_svg, label_text, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

Numbers = Sequence[float] | np.ndarray
Interval = tuple[float, float, float]  # value, low, high

_SERIES = ("1", "2", "3", "4", "5", "6", "7", "8", "9", "10")
_DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 2)),
    (0, (1, 1.5)),
    (0, (6, 2, 1, 2)),
)  # beside colour
_COLUMNS, _SHADE = 5, 0.25  # of small multiples
_FEW = 4  # lines whose bands can be told apart
_LEVEL: Any = (0, (2, 2))
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Line:
    """Points that a line joins, in their order.

    Attributes:
        name: in the legend; empty for none.
        x: [P].
        y: [P]; what is not finite leaves a gap.
        bands: pairs (low, high) of [P] each, in y, drawn around the line, the widest first.
        reach: a pair (low, high) of [P] in x: then points have crosses, of this and of the first band.
        notes: a text beside each point; empty for none.
        joined: whether there is a line between the points.
        dotted: whether the points are marked.
    """

    name: str
    x: Numbers
    y: Numbers
    bands: Sequence[tuple[Numbers, Numbers]] = ()
    reach: tuple[Numbers, Numbers] | None = None
    notes: Sequence[str] = ()
    joined: bool = True
    dotted: bool = False


def lines(
    drawn: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    levels: dict[str, float] | None = None,
    height: float = 3.2,
    band_names: Sequence[str] = (),
) -> str:
    """Lines, each with bands or crosses around it.

    Args:
        drawn: the lines, one at least.
        title: what the plot shows, for readers that do not see it.
        x_label: of the x axis.
        y_label: of the y axis.
        log_x: x on a logarithmic axis; what is not positive is left out.
        log_y: y likewise.
        levels: names and values of y, drawn across.
        height: in inches, of 7.2 in width.
        band_names: what the bands of all lines are, the widest first, or their crosses; for the legend.

    Returns:
        The SVG. A line is a mark, and each of its bands, and each stroke of its crosses.
    """
    shade = 0.18 if len(drawn) <= _FEW else 0.07

    def draw(axes: "Axes") -> None:
        for i, line in enumerate(drawn):
            _draw_line(axes, line, i, shade=shade, log_y=log_y)
        for value in (levels or {}).values():
            axes.axhline(value, color=COLOURS["soft"], linewidth=1, linestyle=_LEVEL)
        _scale(axes.xaxis, log=log_x)
        _scale(axes.yaxis, log=log_y)
        _label(axes, x_label, y_label)
        marks = ["" if line.joined else "o" for line in drawn]
        banded = [i for i, line in enumerate(drawn) if line.bands and line.reach is None]
        bands = _shades(band_names, banded, shade) if banded else _crosses(band_names)
        _legend(axes, [line.name for line in drawn], levels or (), marks=marks, bands=bands)

    return draw_svg(draw, title, height)


def panels(
    drawn: Sequence[Line], *, title: str, x_label: str, y_label: str, levels: dict[str, float], band_name: str
) -> str:
    """Small multiples: each line in a panel of its own, under its name, on the same axes.

    Args:
        drawn: the lines, one at least.
        title: what the plot shows, for readers that do not see it.
        x_label: of the x axes.
        y_label: of the y axes.
        levels: names and values of y, drawn across every panel.
        band_name: what the band of each line is.

    Returns:
        The SVG, as high as it needs; marks as in `lines`.
    """
    columns = min(_COLUMNS, len(drawn))
    rows = -(-len(drawn) // columns)

    def draw(grid: Any) -> None:  # one Axes, or an array of them
        every = np.atleast_1d(grid).ravel()
        for axes, line in zip(every, drawn, strict=False):
            _draw_line(axes, line, 0, shade=_SHADE, log_y=False)
            for value in levels.values():
                axes.axhline(value, color=COLOURS["soft"], linewidth=1, linestyle=_LEVEL)
            axes.set_title(label_text(line.name, LONGEST // 2), loc="left", pad=3)
            _scale(axes.xaxis, log=False, most=3)
            _scale(axes.yaxis, log=False, most=4)
        for axes in every[len(drawn) :]:
            axes.set_visible(False)
        figure = every[0].get_figure(root=True)
        figure.supxlabel(label_text(x_label, 2 * LONGEST), fontsize=POINTS)
        figure.supylabel(label_text(y_label, LONGEST), fontsize=POINTS)
        line = require("matplotlib.lines", "report").Line2D
        shown = [
            (line([], [], color=COLOURS["1"], marker="o"), label_text(y_label)),
            *_shades([band_name], [0], _SHADE),
        ]
        shown += [(_level_line(), label_text(name)) for name in levels]
        figure.legend(*zip(*shown, strict=True), loc="outside upper left", ncols=len(shown))

    return draw_svg(draw, title, 0.8 + 1.25 * rows, (rows, columns))


def histogram(
    edges: Numbers,
    counts: Mapping[str, Numbers],
    *,
    title: str,
    x_label: str,
    y_label: str,
    levels: dict[str, float] | None = None,
    height: float = 2.8,
) -> str:
    """Histograms over the same bins, one on the other.

    Args:
        edges: [b + 1], ascending.
        counts: [b] for each name; one without a name has no legend.
        title: what the plot shows, for readers that do not see it.
        x_label: of the x axis.
        y_label: of the y axis.
        levels: names and values of x, drawn from top to bottom.
        height: in inches, of 7.2 in width.

    Returns:
        The SVG. Each histogram is a mark.
    """

    def draw(axes: "Axes") -> None:
        for i, values in enumerate(counts.values()):
            colour = COLOURS[_SERIES[i % len(_SERIES)]]
            axes.stairs(values, edges, fill=True, color=colour, alpha=0.25, linewidth=0)
            axes.stairs(values, edges, color=colour, linewidth=1.2, gid="mark", linestyle=_DASHES[i % len(_DASHES)])
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(bottom=0)
        for value in (levels or {}).values():
            axes.axvline(value, color=COLOURS["soft"], linewidth=1, linestyle=_LEVEL)
        _scale(axes.xaxis, log=False)
        _scale(axes.yaxis, log=False)
        _label(axes, x_label, y_label)
        _legend(axes, counts, levels or ())

    return draw_svg(draw, title, height)


def bars(
    names: Sequence[str],
    groups: Mapping[str, Sequence[Interval | None]],
    *,
    title: str,
    x_label: str,
    levels: dict[str, float] | None = None,
    points: bool = False,
) -> str:
    """For each name a horizontal bar of each group, or a point, with its interval; the first name is at the top.

    Args:
        names: what the rows are; one at least.
        groups: for each name of the legend, (value, low, high) of each row; None where there is none.
        title: what the plot shows, for readers that do not see it.
        x_label: of the x axis.
        levels: names and values of x, drawn from top to bottom.
        points: points instead of bars, on an axis that need not begin at 0.

    Returns:
        The SVG, as high as it needs. Each bar or point is a mark.
    """
    thick = 0.76 / len(groups)

    def draw(axes: "Axes") -> None:
        for i, values in enumerate(groups.values()):
            colour = COLOURS[_SERIES[i % len(_SERIES)]]
            for row, interval in enumerate(values):
                if interval is None:
                    continue
                value, low, high = interval
                y = row + thick * (i - (len(groups) - 1) / 2)
                reach = [[max(value - low, 0)], [max(high - value, 0)]]
                whisker: dict[str, Any] = {
                    "ecolor": colour if points else COLOURS["ink"],
                    "elinewidth": 1.2,
                    "capsize": 2.5,
                }
                if points:
                    axes.plot([value], [y], "o", color=colour, gid="mark")
                else:
                    axes.barh(y, value, thick * 0.9, color=colour, alpha=0.55, linewidth=0)[0].set_gid("mark")
                axes.errorbar([value], [y], xerr=reach, fmt="none", **whisker)
        axes.set_yticks(range(len(names)), [label_text(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"])
        axes.grid(visible=False, axis="y")
        for value in (levels or {}).values():
            axes.axvline(value, color=COLOURS["soft"], linewidth=1, linestyle=_LEVEL)
        if not points:
            axes.set_xlim(left=min(0, axes.get_xlim()[0]))
        _scale(axes.xaxis, log=False)
        _label(axes, x_label, "")
        _legend(axes, groups if len(groups) > 1 else (), levels or (), thick=True)

    legend = 0.25 * (len(groups) > 1 or bool(levels))
    return draw_svg(draw, title, 0.7 + legend + len(names) * max(0.2, 0.17 * len(groups)))


def heat(
    rows: Sequence[str],
    columns: Sequence[str],
    warmth: np.ndarray,
    texts: Sequence[Sequence[str]],
    *,
    title: str,
    x_label: str,
    y_label: str,
) -> str:
    """A table whose cells are the warmer, the more there is.

    Args:
        rows: names of the rows, from the top.
        columns: names of the columns.
        warmth: [rows, columns] in [0, 1]; cells that are not finite stay empty, with their text.
        texts: what stands in each cell.
        title: what the plot shows, for readers that do not see it.
        x_label: what the columns are.
        y_label: what the rows are.

    Returns:
        The SVG, as high as it needs. Each cell that has warmth is a mark.
    """
    rectangle = require("matplotlib.patches", "report").Rectangle

    def draw(axes: "Axes") -> None:
        for i, j in np.ndindex(*np.shape(warmth)):
            if np.isfinite(warmth[i][j]):
                cell = rectangle((j - 0.48, i - 0.46), 0.96, 0.92, color=COLOURS["1"], linewidth=0, gid="mark")
                cell.set_alpha(0.06 + 0.5 * float(np.clip(warmth[i][j], 0, 1)))
                axes.add_patch(cell)
            axes.text(j, i, label_text(texts[i][j]), ha="center", va="center")
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xticks(range(len(columns)), [label_text(name) for name in columns])
        axes.set_yticks(range(len(rows)), [label_text(name) for name in rows])
        axes.tick_params(length=0, labelcolor=COLOURS["ink"], labeltop=True, labelbottom=False)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.xaxis.set_label_position("top")
        _label(axes, x_label, y_label)

    return draw_svg(draw, title, 0.6 + 0.27 * len(rows))


def _draw_line(axes: "Axes", line: Line, i: int, *, shade: float, log_y: bool) -> None:
    colour = COLOURS[_SERIES[i % len(_SERIES)]]
    x, y = np.asarray(line.x, float), np.asarray(line.y, float)
    floor = np.nextafter(0, 1) if log_y else -np.inf
    for low, high in line.bands if line.reach is None else ():
        below, above = (np.where(np.asarray(side, float) >= floor, side, np.nan) for side in (low, high))
        axes.fill_between(x, below, above, color=colour, alpha=shade, linewidth=0, gid="mark")
    style: dict[str, Any] = {"color": colour, "linestyle": _DASHES[i % len(_DASHES)] if line.joined else "none"}
    dots: dict[str, Any] = {"marker": "o"} if line.dotted or not line.joined or len(x) == 1 else {}
    if line.reach is not None:
        for j in range(len(x)):
            reach: dict[str, Any] = {"xerr": [[abs(x[j] - side[j])] for side in line.reach]}
            reach |= {"yerr": [[abs(y[j] - side[j])] for side in line.bands[0]]} if line.bands else {}
            cross = axes.errorbar(x[j], y[j], fmt="none", ecolor=colour, elinewidth=1, alpha=0.6, **reach)
            for stroke in cross.lines[2]:
                stroke.set_gid("mark")
    axes.plot(x, y, gid="mark", **style, **dots)
    for place, note in zip(zip(x, y, strict=True), line.notes, strict=False):
        if np.isfinite(place).all():
            axes.annotate(label_text(note), place, (5, 4), textcoords="offset points", color=COLOURS["soft"])


def _scale(axis: "Axis", *, log: bool, most: int = 7) -> None:
    """Ticks in plain numbers, a few on each axis."""
    ticker = require("matplotlib.ticker", "report")
    if not log:
        steps = [1, 2, 5, 10] if most > _FEW else [1, 2, 4, 5, 10]
        axis.set_major_locator(ticker.MaxNLocator(most, steps=steps))
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.10g}".replace("-", "−")))
        return
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})  # type: ignore[attr-defined]
    low, high = axis.get_view_interval()
    wide = high / low > 1000
    axis.set_major_locator(ticker.LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0), numticks=9))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _power(value)))
    axis.set_minor_formatter(ticker.NullFormatter())


def _power(value: float) -> str:
    if 1e-3 <= value < 1e5:
        return f"{value:,.6g}"
    exponent = int(np.floor(np.log10(value) + 1e-9))
    factor = f"{value / 10.0**exponent:.3g}"
    return ("" if factor == "1" else f"{factor}·") + "10" + str(exponent).translate(_SUPERSCRIPTS)


def _label(axes: "Axes", x_label: str, y_label: str) -> None:
    """Name the axes; what is too long for the height of the y axis goes on in a second line."""
    figure = axes.get_figure(root=True)
    assert figure is not None  # noqa: S101
    fits = int(figure.get_figheight() * 72 / (0.65 * POINTS)) - 4
    axes.set_xlabel(label_text(x_label, 2 * LONGEST))
    axes.set_ylabel("\n".join(textwrap.wrap(label_text(y_label, 2 * fits), fits)[:2]))


def _shades(names: Sequence[str], banded: Sequence[int], shade: float) -> list[tuple[Any, str]]:
    """Return legend entries of the bands of some lines, which lie on each other: the narrower, the darker."""
    patch = require("matplotlib.patches", "report").Patch
    colour = _SERIES[banded[0] % len(_SERIES)] if len(banded) == 1 else "soft"
    style: dict[str, Any] = {"color": COLOURS[colour], "linewidth": 0}
    return [(patch(alpha=1 - (1 - shade) ** (i + 1), **style), label_text(name)) for i, name in enumerate(names)]


def _crosses(names: Sequence[str]) -> list[tuple[Any, str]]:
    line = require("matplotlib.lines", "report").Line2D
    style: dict[str, Any] = {"color": COLOURS["soft"], "linestyle": "none", "marker": "+", "markersize": 8}
    return [(line([], [], **style), label_text(name)) for name in names]


def _level_line() -> Any:  # a Line2D of matplotlib, which is loaded late
    return require("matplotlib.lines", "report").Line2D([], [], color=COLOURS["soft"], linewidth=1, linestyle=_LEVEL)


def _legend(
    axes: "Axes",
    names: Iterable[str],
    levels: Iterable[str] = (),
    *,
    thick: bool = False,
    marks: Sequence[str] = (),
    bands: Sequence[tuple[Any, str]] = (),
) -> None:
    """Above the axes, in the order of the names; none where nothing has a name.

    Args:
        axes: where.
        names: of what is drawn; empty for what has none.
        levels: of lines across.
        thick: whether it is bars that have the names.
        marks: what stands for each instead of a line; empty for a line.
        bands: entries of bands or crosses.
    """
    line, shown = require("matplotlib.lines", "report").Line2D, []
    style: dict[str, Any]
    for i, name in enumerate(names):
        if marks and marks[i] and name:
            style = {"color": COLOURS[_SERIES[i % len(_SERIES)]], "linestyle": "none", "marker": marks[i]}
            shown.append((line([], [], **style), label_text(name)))
            continue
        dash = "-" if thick else _DASHES[i % len(_DASHES)]
        style = {"color": COLOURS[_SERIES[i % len(_SERIES)]], "linewidth": 6 if thick else 1.6, "linestyle": dash}
        shown += [(line([], [], **style), label_text(name))] if name else []
    shown += bands
    shown += [(_level_line(), label_text(name)) for name in levels]
    if shown:
        widest = max(text_width(name) for _, name in shown) * 0.62 * POINTS + 4 * POINTS
        columns = int(np.clip(0.9 * INCHES * 72 // widest, 1, min(len(shown), 4)))
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.3, "ncols": columns}
        axes.legend(*zip(*shown, strict=True), **place)
