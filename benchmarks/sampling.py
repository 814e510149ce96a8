"""Sampling side by side with what people use today.

    python benchmarks/sampling.py                  # tables; needs 3 GB of memory
    python benchmarks/sampling.py --json           # the same as one JSON object
    python benchmarks/sampling.py --parts draw --rows 1000000

draw: 5,000 of many rows at rho 0.3, weights included, without replacement. Beside it numpy's own choice from the same
log-volumes, and the steps of the published sampler (Humayun et al. 2022, released code): products of singular values,
clipped, normalised, numpy.random.choice. Times are medians of interleaved repeats, so compare within a run, by ratio.
Peak memory is what a draw allocates beyond what it is given, as tracemalloc counts it.

render: 5,000 images of mnist beside the loop that people write (rendering.py).

Effective draws for each Jacobian, tempered against re-weighting: tempered.py beside this file; it takes its time.
"""

import argparse
import dataclasses
import json
import os
import platform
import sys
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import rendering
from storage import medians, say, table

from magnet_cli import index
from magnet_cli.index import Index, Part

DRAWN = 5000
RHO = 0.3
TOP_K = 30
SPREAD = 7  # nats, the standard deviation of the log-volume of dcgan-digiface at k = 30


def singular_values(rows: int) -> np.ndarray:
    """[N, 30] float32, whose log-volumes have a standard deviation of 7 nats."""
    rng = np.random.default_rng(5)
    row = rng.normal(size=(rows, 1)).astype(np.float32) * np.float32(SPREAD / TOP_K)
    row = row + np.linspace(1, -2, TOP_K, dtype=np.float32)
    return np.exp(row, out=row)


def index_of(values: np.ndarray) -> Index:
    """Their index."""
    rows = len(values)
    return Index("", TOP_K, (Part(0, 0, rows, ""),), index.log_volume(values, TOP_K), np.ones(rows, bool))


def published(volumes: np.ndarray) -> np.ndarray:
    """Rows drawn as the released code does, from volumes [N] float64."""
    weights = np.clip(volumes**RHO, 1e-200, 1e200)
    return np.random.choice(len(weights), DRAWN, replace=False, p=weights / weights.sum())


def ways_to_draw(values: np.ndarray) -> dict[str, Callable[[], object]]:
    """Each from what it starts with: log-volumes, or singular values."""
    known, rng = index_of(values), np.random.default_rng(0)
    volumes = np.prod(values, axis=1, dtype=np.float64)

    def numpy_choice() -> np.ndarray:
        weights = np.exp(RHO * (known.log_volume - known.log_volume.max()))
        return rng.choice(len(weights), DRAWN, replace=False, p=weights / weights.sum())

    return {
        "magnet": lambda: index.choose(known, RHO, DRAWN, 0),
        "magnet, with all diagnostics": lambda: index.draw(dataclasses.replace(known), DRAWN, RHO, 0),
        "numpy.random.Generator.choice": numpy_choice,
        "published steps, volumes at hand": lambda: published(volumes),
        "published steps": lambda: published(np.prod(values, axis=1, dtype=np.float64)),
    }


def peak_mib(work: Callable[[], object]) -> float:
    """What a call allocates at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def draw(arguments: argparse.Namespace) -> list[dict]:
    """Seconds and peak MiB of each way, for each number of rows."""
    found = []
    for rows in arguments.rows:
        say(f"drawing {DRAWN:,} of {rows:,} rows")
        ways = ways_to_draw(singular_values(rows))
        seconds = medians(ways, arguments.repeats)
        found.append(
            {"rows": rows, "seconds": seconds, "peak_mib": {name: peak_mib(way) for name, way in ways.items()}}
        )
    return found


def show_draw(found: list[dict]) -> None:
    """A table of times, and one of memory."""
    for what, unit in (("seconds", "s"), ("peak_mib", "MiB")):
        table([f"{DRAWN:,} rows drawn at rho {RHO}", *(f"of {each['rows']:,}, {unit}" for each in found)])
        for name in found[0][what]:
            cells = [f"{each[what][name]:.3g}" for each in found]
            table([name, *cells], head=False)


def render(arguments: argparse.Namespace) -> dict:
    """5,000 images: rendering.py."""
    return rendering.measure("mnist", DRAWN, arguments.repeats)


PARTS = {"draw": (draw, show_draw), "render": (render, rendering.show)}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--rows", nargs="+", type=int, default=[250_000, 10_000_000], help="draw: of so many")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    about = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": platform.machine(), "cores": os.cpu_count()}
    about |= {"numpy": np.__version__, "load": os.getloadavg()[0], "repeats": arguments.repeats}
    result = {"about": about} | {name: PARTS[name][0](arguments) for name in arguments.parts}
    if arguments.json:
        say(json.dumps(result), sys.stdout)
        return
    say(", ".join(f"{key} {value}" for key, value in about.items()), sys.stdout)
    for name in arguments.parts:
        PARTS[name][1](result[name])


if __name__ == "__main__":
    main()
