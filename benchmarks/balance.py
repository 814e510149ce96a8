"""Balanced selection at the size of the paper: a million latents, four attributes.

    python benchmarks/balance.py                   # a table
    python benchmarks/balance.py --json            # the same as one JSON object
    python benchmarks/balance.py --rows 10000000

The folder of `magnet attributes` is made of synthetic scores: four attributes of two classes, correlated, as sure as
networks are. latents.npy [N, 512] float32 is a file with a hole: it is memory-mapped, and only rows chosen are read.

folder to rows: scores read and checked, table, largest n, draw, the rows' latents; in this process. Beside it the
published steps, written plainly: scores in memory at the start, a dictionary of lists, a latent at a time.
the command: `magnet balance --no-images` as a process, the interpreter's start included; peak memory is that of the
process above its rest once everything is imported.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from storage import medians, resident, say, table

from magnet_cli.editing import balance, contingency, scored
from magnet_cli.files import documents
from magnet_cli.files import scores as scores_

LATENT_DIM = 512
NAMES = ("smile", "age", "gender", "glasses")
SHARES = (0.5, 0.3, 0.6, 0.15)  # of the second class
CONFIDENCE = 0.9


def synthetic(folder: Path, rows: int) -> dict[str, np.ndarray]:
    """Fill a folder as `magnet attributes` leaves it; the scores [N] float32 of each attribute."""
    rng = np.random.default_rng(0)
    common, said, scores = rng.standard_normal(rows), {}, {}
    for name, share in zip(NAMES, SHARES, strict=True):
        logit = 3 * (0.6 * common + 0.8 * rng.standard_normal(rows)) + 4 * (share - 0.5)
        scores[name] = (1 / (1 + np.exp(-logit))).astype(np.float32)
        said[name] = ((f"no {name}", name), np.stack([1 - scores[name], scores[name]], axis=1))
    (folder / "scores.npz").write_bytes(scores_.pack(said))
    with (folder / "latents.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, LATENT_DIM)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + rows * LATENT_DIM * 4)
    spec = {"generator": "synthetic", "sha256": "", "n": rows, "truncation": 1.0}
    spec |= {"models": list(NAMES), "keys": list(NAMES)}
    sums = {"latents.npy": "0" * 64, "scores.npz": documents.sha256_file(folder / "scores.npz")}
    fields = {"format": 1, "spec": spec, "files": sums, "report": {}}
    (folder / "attributes.json").write_bytes(documents.encode(fields))
    return scores


def select(folder: Path, n: int, seed: int = 0) -> balance.Selection:
    """From a folder to the rows chosen."""
    found = scored.open_scored(folder, None, (), {})
    attributes = tuple(found.attributes.values())
    chosen_from = contingency.tabulate(attributes, CONFIDENCE, contingency.equal_target(attributes))
    chosen = balance.draw(chosen_from, n, seed)
    found.rows(chosen.rows)
    return chosen


def published(scores: dict[str, np.ndarray], n: int) -> list[int]:
    """The published steps, plainly."""
    every = np.stack(list(scores.values()), axis=1)
    kept = np.flatnonzero(((every > CONFIDENCE) | (every < 1 - CONFIDENCE)).all(axis=1))
    left: dict[tuple, list[int]] = {}
    for row, combination in zip(kept.tolist(), map(tuple, np.round(every[kept]).astype(int)), strict=True):
        left.setdefault(combination, []).append(row)
    rng, rows = np.random.default_rng(0), []
    for _ in range(n):
        combinations = [each for each in left if left[each]]
        members = left[combinations[rng.integers(len(combinations))]]
        rows.append(members.pop(rng.integers(len(members))))
    return rows


def cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    """The median time of a core that a call takes: what it would take on a machine without other work."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return float(np.median(taken))


def command(folder: Path, n: int) -> dict:
    """Seconds and peak MiB of the command as a process of its own."""
    line = [sys.executable, __file__, "--alone", str(folder), "--n", str(n)]
    start = time.perf_counter()
    done = subprocess.run(line, check=True, capture_output=True, text=True)
    return {"seconds": time.perf_counter() - start} | json.loads(done.stdout.splitlines()[-1])


def alone(folder: Path, n: int) -> None:
    """The command, in this process; prints what it took above the rest."""
    from magnet_cli.cli.app import app
    from magnet_cli.editing import balanced_sample  # noqa: F401
    from magnet_cli.editing.scored import tables  # noqa: F401

    rest = resident("VmRSS")
    line = ["balance", str(folder), "--n", str(n), "--no-images", "--out", str(folder / "chosen"), "--force", "-q"]
    app(line, standalone_mode=False)
    used = {"peak_mib": (resident("VmHWM") - rest) / 1024, "cpu_seconds": time.process_time()}
    say(json.dumps(used), sys.stdout)


def measure(arguments: argparse.Namespace) -> dict:
    """All figures."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        scores = synthetic(folder, arguments.rows)
        ways = {
            "magnet, folder to rows": lambda: select(folder, arguments.n),
            "published steps, scores in memory": lambda: published(scores, arguments.n),
        }
        found = {"seconds": medians(ways, arguments.repeats)}
        found["cpu_seconds"] = {name: cpu_seconds(way, arguments.repeats) for name, way in ways.items()}
        runs = [command(folder, arguments.n) for _ in range(arguments.repeats)]
        found["command_seconds"] = float(np.median([each["seconds"] for each in runs]))
        found["command_cpu_seconds"] = float(np.median([each["cpu_seconds"] for each in runs]))
        found["command_peak_mib"] = max(each["peak_mib"] for each in runs)
        attributes = tuple(scored.open_scored(folder, None, (), {}).attributes.values())
        whole = contingency.tabulate(attributes, CONFIDENCE, contingency.equal_target(attributes))
        return found | {
            "kept": whole.num_kept,
            "rarest": int(whole.counts.min()),
            "largest": balance.largest_balanced_n(whole, 0),
        }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        alone(arguments.alone, arguments.n)
        return
    about = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": platform.machine(), "cores": os.cpu_count()}
    about |= {"numpy": np.__version__, "load": os.getloadavg()[0], "rows": arguments.rows, "n": arguments.n}
    result = {"about": about} | measure(arguments)
    if arguments.json:
        say(json.dumps(result), sys.stdout)
        return
    say(", ".join(f"{key} {value}" for key, value in about.items()), sys.stdout)
    table([f"{arguments.n:,} of {arguments.rows:,} latents, four attributes", "s", "s of a core", "peak MiB"])
    for name, seconds in result["seconds"].items():
        table([name, f"{seconds:.2f}", f"{result['cpu_seconds'][name]:.2f}", ""], head=False)
    numbers = (f"{result[f'command_{what}']:.2f}" for what in ("seconds", "cpu_seconds", "peak_mib"))
    table(["the command", *numbers], head=False)
    say(f"kept {result['kept']:,}, rarest {result['rarest']:,}, largest n {result['largest']:,}", sys.stdout)


if __name__ == "__main__":
    main()
