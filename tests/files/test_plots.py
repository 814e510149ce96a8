"""Plots: the same numbers give the same bytes, every number is drawn, and names from anywhere do no harm."""

import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from magnet_cli.files import plots, themed_svg
from magnet_cli.files.plots import Line

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</text><script>alert(1)</script> $x_1 & _\u202e\n"
X = [1, 2, 3, 4]
Y = np.array([3.0, 2.0, 1.5, 0.2])


def spectrum(**changes):
    about = {"title": "t", "x_label": "i", "y_label": "σ", "log_y": True} | changes
    return plots.lines([Line("median", X, Y, bands=[(Y / 3, Y * 3), (Y / 2, Y * 2)])], **about)


def marks(svg):
    root = ElementTree.fromstring(svg)
    return [each for each in root.iter() if each.get("class") == "mark"]


def texts(svg):
    return ["".join(each.itertext()) for each in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def every_plot(name="a"):
    both = {name: [(0.2, 0.1, 0.3), None], "b": [(0.5, 0.4, 0.6), (0.1, 0.0, 0.2)]}
    crosses = Line(name, [0.1, 0.2], [0.3, 0.4], [([0.2, 0.3], [0.4, 0.5])], ([0.0, 0.1], [0.2, 0.3]), [name, "2"])
    about = {"title": name, "x_label": name, "y_label": name}
    return {
        "lines": plots.lines([crosses, Line("other", X, Y)], levels={name: 0.5}, **about),
        "histogram": plots.histogram([0, 1, 2], {name: [1, 2], "b": [2, 1]}, levels={name: 1.5}, **about),
        "bars": plots.bars([name, "two"], both, title=name, x_label=name, levels={name: 0.25}),
        "points": plots.bars([name, "two"], both, title=name, x_label=name, points=True),
        "panels": plots.panels(
            [Line(name, X, Y, [(Y / 2, Y * 2)]), Line("other", X, Y)], levels={name: 0.5}, band_name=name, **about
        ),
        "heat": plots.heat([name], ["1", "2"], np.array([[0.5, np.nan]]), [[name, "–"]], **about),
    }


@pytest.mark.slow
def test_every_number_is_a_mark():
    assert len(marks(spectrum())) == 3  # the line, two bands
    found = {name: len(marks(svg)) for name, svg in every_plot().items()}
    assert found == {"lines": 6, "histogram": 2, "bars": 3, "points": 3, "panels": 3, "heat": 1}


def test_a_line_is_where_its_numbers_say():
    """Read back from the path: equal steps in x, and y as the logarithms of the values."""
    line = marks(spectrum())[-1]
    path = line.find(f"{SVG}path").get("d")
    x, y = np.array([pair.split() for pair in re.findall(r"[ML] ([\d.]+ [\d.]+)", path)], float).T
    assert np.diff(x) == pytest.approx(np.diff(x)[0])
    drops = np.diff(y) / np.diff(np.log(Y))
    assert drops == pytest.approx(drops[0], rel=1e-4)
    assert drops[0] < 0  # upwards in an SVG is less


@pytest.mark.slow
def test_the_same_numbers_give_the_same_bytes_whatever_the_users_settings():
    plain = every_plot()
    with matplotlib.rc_context({"lines.linewidth": 9, "axes.facecolor": "pink", "svg.hashsalt": "other"}):
        assert every_plot() == plain
        assert matplotlib.rcParams["lines.linewidth"] == 9
    assert matplotlib.get_backend() not in {"svg"}


@pytest.mark.slow
def test_colours_are_variables_for_light_and_dark():
    for svg in every_plot().values():
        style, _, drawn = svg.partition("</style>")
        assert "prefers-color-scheme:dark" in style
        used = set(re.findall(r"var\((--plot-\w+)\)", drawn))
        assert used
        assert all(f"{name}:" in themed_svg.LIGHT and f"{name}:" in themed_svg.DARK for name in used)
        assert not re.search(r"#[0-9a-f]{6}\b", drawn.replace("url(#", ""))


@pytest.mark.slow
def test_legends_name_lines_and_bands():
    about = {"title": "t", "x_label": "x", "y_label": "share"}
    banded = plots.lines([Line("median", X, Y, [(Y / 3, Y * 3), (Y / 2, Y * 2)])], band_names=["90 %", "50 %"], **about)
    assert {"median", "90 %", "50 %"} <= set(texts(banded))
    crossed = plots.lines([Line("front", X, Y, [(Y, Y)], (X, X))], band_names=["95 %"], **about)
    assert {"front", "95 %"} <= set(texts(crossed))
    many = plots.panels(
        [Line(f"class {i}", X, Y, [(Y, Y)]) for i in range(7)], levels={"equal": 1}, band_name="95 %", **about
    )
    assert {f"class {i}" for i in range(7)} | {"95 %", "equal", "share", "x"} <= set(texts(many))


def test_names_of_strangers_are_text():
    for kind, svg in every_plot(HOSTILE).items():
        assert not list(ElementTree.fromstring(svg).iter(f"{SVG}script")), kind
        assert any("<script>alert(1)</script> $" in each for each in texts(svg)), kind
        assert "\u202e" not in svg


def test_long_names_are_cut():
    assert "x" * 39 + "…" in texts(every_plot("x" * 300)["bars"])


def test_what_a_log_axis_cannot_show_is_left_out():
    svg = plots.lines(
        [Line("", X, [1, 0, 1, 2], bands=[([0, 0, 1, 1], [2, 1, 2, 3])])], title="", x_label="", y_label="", log_y=True
    )
    assert len(marks(svg)) == 2
    assert not re.search(r"nan|inf", svg)


@pytest.mark.parametrize(("value", "text"), [(0.001, "0.001"), (20000, "20,000"), (1e5, "10⁵"), (2e-7, "2·10⁻⁷")])
def test_ticks_of_log_axes_are_plain(value, text):
    assert plots._power(value) == text
