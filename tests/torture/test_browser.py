"""Pages of reports in a real browser: it shows them, asks for nothing, and runs nothing of strangers."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright
from strangers import hostile_sample

from magnet_cli.reporting import page

SHOTS = Path(__file__).parents[2] / ".ci" / "screenshots"
A4 = 688  # pixels between the margins of a sheet
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
INCLUDED = [f"--include={name}.json" for name in ("typical-against-prior", "prior-against-prior", "bias-of-prior")]


@pytest.fixture(scope="module")
def browser():
    """A real Chromium without a window."""
    found = next(filter(None, (shutil.which(name) for name in ("/usr/bin/chromium", "chromium"))), None)
    if found is None:
        assert not os.environ.get("CI"), "no Chromium is found: .ci/run installs Debian's"
        pytest.skip("no Chromium is found")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=FLAGS.split())
        yield started
        started.close()


@dataclasses.dataclass
class Seen:
    """What a browser saw of a page."""

    marks: int
    plots: list
    images: list
    ink: str
    paper: str


def looked_at(browser, path, scheme, shot):
    """Open a page from disk; it says nothing, asks for nothing, and every plot and image in it has a size."""
    asked, said = [], []
    shown = browser.new_page(color_scheme=scheme, viewport={"width": 1100, "height": 900})
    shown.on("request", lambda request: asked.append(request.url))
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    shown.goto(Path(path).absolute().as_uri())
    sizes = "els => els.map(e => { const b = e.getBoundingClientRect(); return [b.width, b.height] })"
    found = Seen(
        len([1 for w, h in shown.eval_on_selector_all("svg .mark", sizes) if w + h > 0]),
        shown.eval_on_selector_all("svg.plot", sizes),
        shown.eval_on_selector_all("img", "els => els.map(e => e.naturalWidth)"),
        shown.evaluate("getComputedStyle(document.documentElement).color"),
        shown.evaluate("getComputedStyle(document.documentElement).backgroundColor"),
    )
    fits = "document.documentElement.scrollWidth <= innerWidth"
    assert shown.evaluate(fits)
    SHOTS.mkdir(parents=True, exist_ok=True)
    shown.screenshot(path=SHOTS / f"{shot}-{scheme}.png", full_page=True)
    if scheme == "light":
        shown.pdf(path=SHOTS / f"{shot}.pdf", format="A4", print_background=True)
    shown.set_viewport_size({"width": A4, "height": 1000})
    shown.emulate_media(media="print", color_scheme=scheme)
    assert shown.evaluate(fits)
    assert shown.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    shown.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("data:", "file:"))] == []
    assert len([url for url in asked if url.startswith("file:")]) == 1
    assert all(width > 300 and height > 50 for width, height in found.plots)
    assert all(found.images)
    return found


def both(browser, path, shot):
    """The page in light and in dark, where the same is seen in other colours."""
    light, dark = (looked_at(browser, path, scheme, shot) for scheme in ("light", "dark"))
    assert (light.marks, light.plots, light.images) == (dark.marks, dark.plots, dark.images)
    assert (light.paper, dark.paper) == ("rgb(255, 255, 255)", "rgb(22, 25, 29)")
    assert light.ink != dark.ink
    return light


def test_a_browser_shows_the_report_of_a_volume(magnet, browser):
    assert magnet("report", "mnist-volume").code == 0
    seen = both(browser, "reports/mnist-volume.html", "volume")
    assert len(seen.plots) == 4
    assert seen.marks == 3 + 1 + 1 + 6 * 11  # median and two bands; two histograms; effective size at 6 k and 11 rho
    assert len(seen.images) == 96


def test_a_browser_shows_the_report_of_a_sample(magnet, samples, browser):
    assert magnet("report", "typical", "--compare", "prior", *INCLUDED).code == 0
    seen = both(browser, "reports/typical.html", "sample")
    assert len(seen.plots) == 3
    assert seen.marks == 2 + 3 * 2 + 2 * 10  # log-volumes of two samples; 3 metrics of 2 evaluations; 10 classes of 2
    assert len(seen.images) == 1


def test_a_browser_shows_the_report_of_a_sweep(magnet, swept, browser):
    assert magnet("report", swept).code == 0
    seen = both(browser, "reports/which.html", "sweep")
    plots = json.loads((swept / "sweep.json").read_text())["plots"]
    assert len(seen.plots) == len(plots)
    assert seen.marks >= 3 * len(plots)
    assert len(seen.images) == 48


def test_a_browser_runs_nothing_of_strangers(magnet, samples, hostile_volume, browser):
    assert magnet("report", hostile_volume.path, "--out", "volume.html").code == 0
    assert magnet("report", hostile_sample("typical"), "--compare", "prior", "--out", "sample.html").code == 0
    for path in ("volume.html", "sample.html"):
        looked_at(browser, path, "dark", f"strangers-{path.partition('.')[0]}")


def test_the_policy_of_a_page_holds(browser):
    """What would get past the escaping is not run: a page with a script in its body, and a picture from elsewhere."""
    body = "<script>document.title = 'run'</script><img src='https://example.invalid/x.png'>"
    Path("page.html").write_bytes(page.document("still", "volume", "", [body], {}))
    asked = []
    shown = browser.new_page()
    shown.on("requestfinished", lambda request: asked.append(request.url))
    shown.goto(Path("page.html").absolute().as_uri())
    assert shown.title() == "still"
    assert [url for url in asked if url.startswith("http")] == []
    shown.close()
