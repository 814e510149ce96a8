"""Plots as SVG: lines with bands, histograms, bars and points with intervals, heat tables.

Owns how every plot of magnet looks. Knows nothing of what the numbers mean. One SVG serves light and dark, alone or
inside a page: its colours are CSS variables that it defines itself; text stays text. The same numbers give the same
bytes. Every mark that stands for numbers is of the class "mark".
"""

import io
import re
import textwrap
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from magnet_cli.errors import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Numbers = Sequence[float] | np.ndarray
Interval = tuple[float, float, float]  # value, low, high

# What is drawn in these colours becomes var(--plot-NAME): light, dark
_COLOURS = {
    "ink": ("#1f2328", "#e6e8eb"),
    "soft": ("#656d76", "#9aa4af"),
    "grid": ("#d9dee3", "#343b43"),
    "paper": ("#ffffff", "#16191d"),
    "1": ("#2f6fb5", "#6cb0f5"),
    "2": ("#c2571a", "#f2955c"),
    "3": ("#2b8a57", "#5fc98f"),
    "4": ("#8250bf", "#b794f0"),
    "5": ("#b8336a", "#f07fab"),
    "6": ("#7a6a1d", "#d4bd4f"),
    "7": ("#0e7f8a", "#4fcbd6"),
    "8": ("#b5362b", "#ff8b80"),
    "9": ("#566785", "#a8b8da"),
    "10": ("#87553a", "#d2a482"),
}
LIGHT, DARK = ("".join(f"--plot-{name}:{pair[i]};" for name, pair in _COLOURS.items()) for i in (0, 1))  # as CSS
_SENTINELS = {name: f"#f0e1{i:02x}" for i, name in enumerate(_COLOURS)}
_SERIES = ("1", "2", "3", "4", "5", "6", "7", "8", "9", "10")
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))  # a second cue beside colour, where there are many lines
_FEW = 4  # lines whose bands can be told apart
_LEVEL = (0, (2, 2))
_INCHES = 7.2
_POINTS = 9.0  # size of text
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # control characters, those that turn text around, no characters
_LONGEST = 40  # characters of a name
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "magnet",
    "text.parse_math": False,  # names come from files: a dollar sign is one
    "font.size": _POINTS,
    "axes.titlesize": _POINTS,
    "axes.edgecolor": _SENTINELS["soft"],
    "axes.labelcolor": _SENTINELS["ink"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "figure.edgecolor": "none",
    "grid.color": _SENTINELS["grid"],
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": _SENTINELS["ink"],
    "text.color": _SENTINELS["ink"],
    "xtick.color": _SENTINELS["soft"],
    "ytick.color": _SENTINELS["soft"],
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
}


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

    Returns:
        The SVG. A line is a mark, and each of its bands, and each stroke of its crosses.
    """

    def draw(axes: "Axes") -> None:
        for i, line in enumerate(drawn):
            _draw_line(axes, line, i, shade=0.18 if len(drawn) <= _FEW else 0.07, log_y=log_y)
        for value in (levels or {}).values():
            axes.axhline(value, color=_SENTINELS["soft"], linewidth=1, linestyle=_LEVEL)
        _scale(axes.xaxis, log=log_x)
        _scale(axes.yaxis, log=log_y)
        _label(axes, x_label, y_label)
        _legend(axes, [line.name for line in drawn], levels or (), marks=["" if line.joined else "o" for line in drawn])

    return _svg(draw, title, height)


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
            colour = _SENTINELS[_SERIES[i % len(_SERIES)]]
            axes.stairs(values, edges, fill=True, color=colour, alpha=0.25, linewidth=0)
            axes.stairs(values, edges, color=colour, linewidth=1.2, gid="mark", linestyle=_DASHES[i % len(_DASHES)])
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(bottom=0)
        for value in (levels or {}).values():
            axes.axvline(value, color=_SENTINELS["soft"], linewidth=1, linestyle=_LEVEL)
        _scale(axes.xaxis, log=False)
        _scale(axes.yaxis, log=False)
        _label(axes, x_label, y_label)
        _legend(axes, counts, levels or ())

    return _svg(draw, title, height)


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
            colour = _SENTINELS[_SERIES[i % len(_SERIES)]]
            for row, found in enumerate(values):
                if found is None:
                    continue
                value, low, high = found
                y = row + thick * (i - (len(groups) - 1) / 2)
                reach = [[max(value - low, 0)], [max(high - value, 0)]]
                whisker = {"ecolor": colour if points else _SENTINELS["ink"], "elinewidth": 1.2, "capsize": 2.5}
                if points:
                    axes.plot([value], [y], "o", color=colour, gid="mark")
                else:
                    axes.barh(y, value, thick * 0.9, color=colour, alpha=0.55, linewidth=0)[0].set_gid("mark")
                axes.errorbar([value], [y], xerr=reach, fmt="none", **whisker)
        axes.set_yticks(range(len(names)), [_named(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0, labelcolor=_SENTINELS["ink"])
        axes.grid(visible=False, axis="y")
        for value in (levels or {}).values():
            axes.axvline(value, color=_SENTINELS["soft"], linewidth=1, linestyle=_LEVEL)
        if not points:
            axes.set_xlim(left=min(0, axes.get_xlim()[0]))
        _scale(axes.xaxis, log=False)
        _label(axes, x_label, "")
        _legend(axes, groups if len(groups) > 1 else (), levels or (), thick=True)

    legend = 0.25 * (len(groups) > 1 or bool(levels))
    return _svg(draw, title, 0.7 + legend + len(names) * max(0.2, 0.17 * len(groups)))


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
                cell = rectangle((j - 0.48, i - 0.46), 0.96, 0.92, color=_SENTINELS["1"], linewidth=0, gid="mark")
                cell.set_alpha(0.06 + 0.5 * float(np.clip(warmth[i][j], 0, 1)))
                axes.add_patch(cell)
            axes.text(j, i, _named(texts[i][j]), ha="center", va="center")
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xticks(range(len(columns)), [_named(name) for name in columns])
        axes.set_yticks(range(len(rows)), [_named(name) for name in rows])
        axes.tick_params(length=0, labelcolor=_SENTINELS["ink"], labeltop=True, labelbottom=False)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.xaxis.set_label_position("top")
        _label(axes, x_label, y_label)

    return _svg(draw, title, 0.6 + 0.27 * len(rows))


def _draw_line(axes: "Axes", line: Line, i: int, *, shade: float, log_y: bool) -> None:
    colour = _SENTINELS[_SERIES[i % len(_SERIES)]]
    x, y = np.asarray(line.x, float), np.asarray(line.y, float)
    floor = np.nextafter(0, 1) if log_y else -np.inf
    for low, high in line.bands if line.reach is None else ():
        sides = (np.where(np.asarray(side, float) >= floor, side, np.nan) for side in (low, high))
        axes.fill_between(x, *sides, color=colour, alpha=shade, linewidth=0, gid="mark")
    style = {"color": colour, "linestyle": _DASHES[i % len(_DASHES)] if line.joined else "none"}
    dots = {"marker": "o"} if line.dotted or not line.joined or len(x) == 1 else {}
    if line.reach is not None:
        for j in range(len(x)):
            reach = {"xerr": [[abs(x[j] - side[j])] for side in line.reach]}
            reach |= {"yerr": [[abs(y[j] - side[j])] for side in line.bands[0]]} if line.bands else {}
            cross = axes.errorbar(x[j], y[j], fmt="none", ecolor=colour, elinewidth=1, alpha=0.6, **reach)
            for stroke in cross.lines[2]:
                stroke.set_gid("mark")
    axes.plot(x, y, gid="mark", **style, **dots)
    for place, note in zip(zip(x, y, strict=True), line.notes, strict=False):
        if np.isfinite(place).all():
            axes.annotate(_named(note), place, (5, 4), textcoords="offset points", color=_SENTINELS["soft"])


def _scale(axis: object, *, log: bool) -> None:
    """Ticks in plain numbers, a few on each axis."""
    ticker = require("matplotlib.ticker", "report")
    if not log:
        axis.set_major_locator(ticker.MaxNLocator(7, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.10g}".replace("-", "−")))
        return
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
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
    fits = int(axes.figure.get_figheight() * 72 / (0.65 * _POINTS)) - 4
    axes.set_xlabel(_named(x_label, 2 * _LONGEST))
    axes.set_ylabel("\n".join(textwrap.wrap(_named(y_label, 2 * fits), fits)[:2]))


def _legend(
    axes: "Axes", names: Iterable[str], levels: Iterable[str] = (), *, thick: bool = False, marks: Sequence[str] = ()
) -> None:
    """Above the axes, in the order of the names; none where nothing has a name.

    Args:
        axes: where.
        names: of what is drawn; empty for what has none.
        levels: of lines across.
        thick: whether it is bars that have the names.
        marks: what stands for each instead of a line; empty for a line.
    """
    line, shown = require("matplotlib.lines", "report").Line2D, []
    for i, name in enumerate(names):
        if marks and marks[i] and name:
            style = {"color": _SENTINELS[_SERIES[i % len(_SERIES)]], "linestyle": "none", "marker": marks[i]}
            shown.append((line([], [], **style), _named(name)))
            continue
        dash = "-" if thick else _DASHES[i % len(_DASHES)]
        style = {"color": _SENTINELS[_SERIES[i % len(_SERIES)]], "linewidth": 6 if thick else 1.6, "linestyle": dash}
        shown += [(line([], [], **style), _named(name))] if name else []
    shown += [(line([], [], color=_SENTINELS["soft"], linewidth=1, linestyle=_LEVEL), _named(name)) for name in levels]
    if shown:
        widest = max(_width(name) for _, name in shown) * 0.62 * _POINTS + 4 * _POINTS
        columns = int(np.clip(0.9 * _INCHES * 72 // widest, 1, min(len(shown), 4)))
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.3, "ncols": columns}
        axes.legend(*zip(*shown, strict=True), **place)


def _named(text: str, longest: int = _LONGEST) -> str:
    """A name from anywhere, as there is room for it."""
    plain = _plain(text)
    ends = np.cumsum([_width(c) for c in plain])
    if len(plain) and ends[-1] > longest:
        plain = plain[: int(np.searchsorted(ends, longest))] + "…"
    return f"\u200b{plain}" if plain.startswith("_") else plain  # matplotlib hides what begins so from legends


def _width(text: str) -> int:
    """Of a text, in letters: those of East Asia are twice as wide."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _plain(text: str) -> str:
    """Text in one line, of characters that can be seen."""
    return "".join("�" if unicodedata.category(c) in _UNSEEN else c for c in text)


def _svg(draw: Callable[["Axes"], None], title: str, height: float) -> str:
    """What a function draws on axes, as SVG: whatever the user's own settings of matplotlib are."""
    matplotlib = require("matplotlib", "report")
    figure_of = require("matplotlib.figure", "report").Figure
    buffer = io.StringIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's fonts have it, or show a box
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        matplotlib.rcParams["axes.prop_cycle"] = matplotlib.cycler(color=[_SENTINELS["ink"]])
        figure = figure_of(figsize=(_INCHES, height), layout="constrained")
        draw(figure.subplots())
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _themed(buffer.getvalue(), title)


def _themed(svg: str, title: str) -> str:
    """Matplotlib's SVG with variables for colours, the reader's font, no idle names, and a title."""
    body = svg[svg.index("<g ") : svg.rindex("</svg>")]
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups()
    for name, sentinel in _SENTINELS.items():
        body = body.replace(sentinel, f"var(--plot-{name})")
    body = re.sub(r" font-family: [^;\"]+;?", "", body)
    used = set(re.findall(r"#([\w.-]+)[\")]", body))
    body = body.replace('id="mark"', 'class="mark"')
    body = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in used else "", body)
    body = re.sub(r' transform="rotate\(-0 [\d. -]+\)"', "", body)
    body = re.sub(r"\n\s*", " ", body)
    style = f".plot{{{LIGHT}}}.plot text{{font-family:system-ui,sans-serif}}"
    style += ".plot *{stroke-linejoin:round;stroke-linecap:butt}"
    style += f"@media screen and (prefers-color-scheme:dark){{.plot{{{DARK}}}}}"
    head = f'<svg class="plot" role="img" viewBox="0 0 {width} {height}" width="{width}pt" height="{height}pt" '
    head += 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return f"{head}<title>{escape(_plain(title))}</title><style>{style}</style>{body}</svg>"
