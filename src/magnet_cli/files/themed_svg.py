"""Draw with matplotlib, and return SVG whose colours are CSS variables: one picture for light and dark pages.

Matplotlib draws in sentinel colours, which are then replaced by var(--plot-NAME). Text stays text, and the same
drawing gives the same bytes.
"""

import io
import re
import unicodedata
import warnings
from collections.abc import Callable
from html import escape
from typing import Any

import numpy as np

from magnet_cli.errors import require

# Colours by name: in light pages, in dark pages
_THEMES = {
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
LIGHT, DARK = ("".join(f"--plot-{name}:{pair[i]};" for name, pair in _THEMES.items()) for i in (0, 1))  # as CSS
COLOURS = {name: f"#f0e1{i:02x}" for i, name in enumerate(_THEMES)}
INCHES = 7.2
POINTS = 9.0  # size of text
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # control characters, those that turn text around, no characters
LONGEST = 40  # characters of a name
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "magnet",
    "text.parse_math": False,  # names come from files: a dollar sign is one
    "font.size": POINTS,
    "axes.titlesize": POINTS,
    "axes.edgecolor": COLOURS["soft"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "figure.edgecolor": "none",
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": COLOURS["ink"],
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["soft"],
    "ytick.color": COLOURS["soft"],
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
}


def label_text(text: str, longest: int = LONGEST) -> str:
    """Return a name, whoever chose it, as text that matplotlib shows: cut after `longest` letters."""
    plain = _plain(text)
    ends = np.cumsum([text_width(c) for c in plain])
    if len(plain) and ends[-1] > longest:
        plain = plain[: int(np.searchsorted(ends, longest))] + "…"
    return f"\u200b{plain}" if plain.startswith("_") else plain  # matplotlib hides what begins so from legends


def text_width(text: str) -> int:
    """Return the width of a text in letters; those of East Asia count twice."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _plain(text: str) -> str:
    return "".join("�" if unicodedata.category(c) in _UNSEEN else c for c in text)


def draw_svg(draw: Callable[[Any], None], title: str, height: float, panels: tuple[int, int] = (1, 1)) -> str:
    """Return what a function draws on axes as SVG; the user's own settings of matplotlib play no part.

    Args:
        draw: draws on the axes that it is called with, or on the array of axes of several panels.
        title: title of the picture, for readers that do not see it.
        height: inches.
        panels: rows and columns of them; they share their axes.
    """
    matplotlib = require("matplotlib", "report")
    figure_of = require("matplotlib.figure", "report").Figure
    buffer = io.StringIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's fonts have it, or show a box
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        matplotlib.rcParams["axes.prop_cycle"] = matplotlib.cycler(color=[COLOURS["ink"]])
        figure = figure_of(figsize=(INCHES, height), layout="constrained")
        draw(figure.subplots(*panels, sharex=True, sharey=True))
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _themed(buffer.getvalue(), title)


def _themed(svg: str, title: str) -> str:
    body = svg[svg.index("<g ") : svg.rindex("</svg>")]
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert size is not None  # noqa: S101  # matplotlib writes one
    width, height = size.groups()
    for name, colour in COLOURS.items():
        body = body.replace(colour, f"var(--plot-{name})")
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
