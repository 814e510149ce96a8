"""Draw docs/images/manifolds.png: draws from the prior above, at rho 1 below, on the manifolds of tests/manifolds.py.

    python tools/draw_manifolds.py --out docs/images/manifolds.png

Each goes through the whole pipeline: a volume of 200,000 rows, its index, a draw of 1,500 without replacement. The half
sphere is shown in Lambert's projection, which keeps areas: what is uniform on it is uniform on the page.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from magnet_cli import computing, index, models
from magnet_cli.computing.memory import BatchPlan
from magnet_cli.models import custom
from magnet_cli.volume import Volume

if TYPE_CHECKING:
    from manifolds import Manifold

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "fixtures"))

ROWS, DRAWN = 200_000, 1500
SIDE, MARGIN, LINE, DOT, SCALE = 300, 16, 22, 1.4, 3  # pixels; all is drawn SCALE times larger and made smaller
TITLES = {
    "curve": "curve (t, t^3 / 3), blurred",
    "half_sphere": "half sphere, from latitude, longitude",
    "surface": "surface of a trained ReLU network",
    "plane": "z (1 + |z|^2), Gaussian prior, corrected",
}


def on_page(factory: str, x: np.ndarray) -> np.ndarray:
    """Points of a manifold [n, ...] to places on the page [n, 2]."""
    if factory == "curve":  # points of a line would hide each other
        slope = np.stack([np.ones(len(x)), x[:, 0] ** 2], axis=1)
        across = (slope / np.linalg.norm(slope, axis=1, keepdims=True))[:, ::-1] * [-1, 1]
        return x + across * np.random.default_rng(0).normal(size=(len(x), 1)) * 0.2
    if factory == "half_sphere":
        return x[:, :2] * np.sqrt(2 / (1 + x[:, 2:]))
    if factory == "surface":
        return np.stack([x[:, 0] - 0.45 * x[:, 1], 0.9 * x[:, 2] + 0.5 * x[:, 1]], axis=1)
    return x


def draws(of: "Manifold", folder: Path) -> tuple[str, list[np.ndarray]]:
    """The displaced share at rho 1, and the points of the manifold drawn at rho 0 and 1."""
    generator = models.load(custom.from_factory(of.reference))
    spec = computing.volume_spec(generator, rows_per_shard=50_000)
    volume = Volume.create(folder / of.factory, spec)
    list(computing.fill(volume, generator, ROWS, BatchPlan(10_000)))
    built = index.build(volume, spec.rank)
    if of.correct:
        built = index.corrected(built, index.log_prior(volume, built.parts), index.ball(spec, index.DEFAULT_MASS))
    points = []
    for rho in (0.0, 1.0):
        latents = torch.from_numpy(volume.latents(index.draw(built, DRAWN, rho, 0).rows))
        points.append(on_page(of.factory, generator(latents).numpy()))
    return f"displaced share {index.displaced_share(built, 1.0, DRAWN):.3f}", points


def picture(columns: list[tuple[str, str, list[np.ndarray]]]) -> Image.Image:
    """A column a manifold: title, the prior's draws, those at rho 1, and what goes with them."""
    block = 2 * LINE + SIDE
    size = (len(columns) * (SIDE + MARGIN) + MARGIN, LINE + 2 * block + MARGIN)
    page = Image.new("RGB", (size[0] * SCALE, size[1] * SCALE), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(13 * SCALE)
    for column, (title, note, points) in enumerate(columns):
        left = MARGIN + column * (SIDE + MARGIN)
        ends = points[1].min(axis=0), points[1].max(axis=0)
        middle, span = (ends[0] + ends[1]) / 2, (ends[1] - ends[0]).max()
        pen.text((left * SCALE, 4 * SCALE), title, fill="black", font=font)
        for row, drawn in enumerate(points):
            top = LINE + row * block
            caption = ("draws from the prior", f"draws at rho 1: {note}")[row]
            pen.text((left * SCALE, (top + 2) * SCALE), caption, fill="dimgray", font=font)
            places = (drawn - middle) / span * [1, -1] * 0.94 + 0.5
            places = (places[np.abs(places - 0.5).max(axis=1) < 0.5] * SIDE + [left, top + LINE]) * SCALE
            for x, y in places.tolist():
                r = DOT * SCALE
                pen.ellipse((x - r, y - r, x + r, y + r), fill=("#b5543c", "#2a6f97")[row])
    return page.resize(size, Image.Resampling.LANCZOS)


def main() -> None:
    """Draw, and write the file."""
    import manifolds

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images/manifolds.png"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="magnet-manifolds-") as name:
        found = [(TITLES[of.factory], *draws(of, Path(name))) for of in manifolds.MANIFOLDS]
    picture(found).quantize(64).save(arguments.out, optimize=True)


if __name__ == "__main__":
    main()
