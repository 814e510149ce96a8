"""Metrics and pictures of a training in progress.

Every report uses the same data and the same noise, from its own random streams, so that reporting
does not change the training.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from magnet_cli.files import contact_sheet, pictures
from magnet_cli.maths.metrics import clusters
from magnet_cli.training.slogan.data import DataSet
from magnet_cli.training.slogan.trainer import Trainer

_SHOWN = 10_000  # data, and draws, that metrics are computed on
_STREAM = 0x6A75646765  # a random stream of its own
_NEAR = 3.0  # a draw belongs to a mode within so many standard deviations of its centre
_THERE = 0.1  # a mode with a smaller part of its share of the data is lost
_PLANE = 2  # dimensions of points that can be plotted
_SIDE, _MARGIN, _DOT, _TIMES = 320, 24, 1.2, 3  # pixels; the last is the oversampling
_GRID_ROWS = 32  # images of each component, and of the data
_COLOURS = (
    "#2a6f97",
    "#b5543c",
    "#5c8a3a",
    "#8a5a9e",
    "#c99a2e",
    "#3a8a84",
    "#a83f6f",
    "#6b6b6b",
    "#1f3b57",
    "#7a4a1e",
)


def metrics_of(trainer: Trainer, data: DataSet) -> dict:
    """Return the metrics of a training at its current step.

    Returns:
        "weights" [K]. Where classes are known: "nmi", "ari" and "purity" of the encoder's clusters of 10,000 data, the
        class of each component in "class_of", and "weight_error" {mean, worst}. For points of known classes also
        "modes", the number of modes with draws, "near", the share of draws within 3 standard deviations of a mode,
        "draws_nmi", of the components of draws against their nearest modes, and "spread" {mean, narrowest}, over modes
        with draws: the rms distance of near draws from the centre, over that of near data.

    Raises:
        MagnetError: classes are known, and scikit-learn is not installed.
    """
    mixture = trainer.mixture()
    metrics: dict = {"weights": mixture.weights.round(6).tolist()}
    if data.labels is None or data.shares is None:
        return metrics
    rng = np.random.default_rng(_STREAM)
    rows = np.sort(rng.choice(len(data.values), min(_SHOWN, len(data.values)), replace=False))
    components = trainer.clusters(data.intensities(rows))
    metrics |= {name: round(value, 6) for name, value in clusters.agreement(data.labels[rows], components).items()}
    table = clusters.counts(data.labels[rows], components, (len(data.classes), mixture.num_components))
    class_of = clusters.matched(table)
    errors = clusters.weight_errors(mixture.weights, data.shares, class_of)
    metrics |= {"class_of": class_of.tolist(), "weight_error": {name: round(v, 6) for name, v in errors.items()}}
    return metrics | (_modes(trainer, data, data.shares) if data.values.ndim == _PLANE else {})


def _modes(trainer: Trainer, data: DataSet, shares: np.ndarray) -> dict:
    latents, components = trainer.mixture().draw(np.random.default_rng([_STREAM, 1]), _SHOWN)
    drawn = trainer.render(latents)
    groups = [data.values[data.labels == c] for c in range(len(data.classes))]

    def distance(points: np.ndarray, group: np.ndarray) -> np.ndarray:
        return np.linalg.norm((points - group.mean(axis=0)) / group.std(axis=0), axis=1)

    away = np.stack([distance(drawn, group) for group in groups], axis=1)
    nearest, near = away.argmin(axis=1), away.min(axis=1) < _NEAR
    there = np.bincount(nearest[near], minlength=len(groups)) / len(drawn) >= _THERE * shares
    agreed = clusters.agreement(nearest, components)["nmi"]
    spreads = [
        _rms(away[near & (nearest == c), c]) / _rms(own[own < _NEAR])
        for c, own in enumerate(distance(group, group) for group in groups)
        if there[c]
    ]
    spread = {"mean": round(float(np.mean(spreads)), 6), "narrowest": round(min(spreads), 6)} if spreads else None
    metrics: dict = {"modes": int(there.sum()), "near": round(float(near.mean()), 6), "draws_nmi": round(agreed, 6)}
    return metrics | {"spread": spread}


def _rms(distances: np.ndarray) -> float:
    return float(np.sqrt((distances**2).mean()))


def grid(trainer: Trainer, data: DataSet) -> bytes | None:
    """Return a PNG of data and draws by component; None for points in other than two dimensions."""
    if data.values.ndim == _PLANE:
        return _scatter(trainer, data) if data.shape == (_PLANE,) else None
    mixture, rng = trainer.mixture(), np.random.default_rng([_STREAM, 2])
    blocks: list = [("data", list(data.values[rng.choice(len(data.values), _GRID_ROWS)].transpose(0, 2, 3, 1)))]
    for c, weight in enumerate(mixture.weights):
        latents, _ = mixture.draw(np.random.default_rng([_STREAM, 2, c]), _GRID_ROWS, (c,))
        blocks.append((f"component {c}, weight {weight:.3f}", list(pictures.pixels(trainer.render(latents)))))
    return contact_sheet.contact_sheet(blocks)


def _scatter(trainer: Trainer, data: DataSet) -> bytes:
    """Plot the data on the left, draws in the colours of their components on the right."""
    rows = np.random.default_rng([_STREAM, 3]).choice(len(data.values), min(4000, len(data.values)), replace=False)
    latents, components = trainer.mixture().draw(np.random.default_rng([_STREAM, 3]), 4000)
    page = Image.new("RGB", ((2 * _SIDE + 3 * _MARGIN) * _TIMES, (_SIDE + 2 * _MARGIN) * _TIMES), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(13 * _TIMES)
    middle, span = (data.values.max(axis=0) + data.values.min(axis=0)) / 2, np.ptp(data.values, axis=0).max() * 1.15
    blocks = [("data", data.values[rows], np.full(len(rows), 7))]
    blocks.append((f"draws at step {trainer.step:,}, by component", trainer.render(latents), components))
    for column, (title, points, colours) in enumerate(blocks):
        left = _MARGIN + column * (_SIDE + _MARGIN)
        pen.text((left * _TIMES, 4 * _TIMES), title, fill="black", font=font)
        places = (points - middle) / span * [1, -1] + 0.5
        inside = np.abs(places - 0.5).max(axis=1) < 0.5
        for (x, y), colour in zip((places[inside] * _SIDE + [left, _MARGIN]) * _TIMES, colours[inside], strict=True):
            r = _DOT * _TIMES
            pen.ellipse((x - r, y - r, x + r, y + r), fill=_COLOURS[colour % len(_COLOURS)])
    small = page.resize((page.width // _TIMES, page.height // _TIMES), Image.Resampling.LANCZOS)
    return pictures.encoded(np.asarray(small), "png")
