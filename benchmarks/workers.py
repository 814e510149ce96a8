"""`magnet compute mnist` in one process and in several, on the same cores.

    python benchmarks/workers.py             # a table
    python benchmarks/workers.py --json      # the same as one JSON object

Each run is a real process on a volume that is there already, so that nothing is tuned. Start-up is the time from the
command to its first shard: imports, and with workers those of another interpreter; the rate is that of the rows after
it, by the times of the shards' marks. The ways are interleaved, so that a machine whose speed drifts treats them alike:
compare within a run, by ratio.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from magnet_cli.volume import Volume

SHARD_ROWS = 50


def measured(folder: Path, workers: int, threads: int, num_rows: int) -> dict[str, float]:
    """One run: start-up and all of it in seconds, and rows a second in between."""
    command = [sys.executable, "-m", "magnet_cli", "compute", "mnist", "--shard-rows", str(SHARD_ROWS), "--quiet"]
    command += ["--volume", str(folder), "--device", "cpu"]
    cores = {"stdout": subprocess.DEVNULL, "env": os.environ | {"OMP_NUM_THREADS": str(threads)}}
    subprocess.run([*command, "--n", str(SHARD_ROWS)], check=True, **cores)
    start = time.time()
    command += ["--n", str(SHARD_ROWS + num_rows), "--workers", str(workers)]
    subprocess.run(command, check=True, **cores)
    end = time.time()
    volume = Volume.open(folder)
    marks = sorted(volume.mark_path(shard).stat().st_mtime for shard in volume.shards()[1:])
    rate = SHARD_ROWS * (len(marks) - 1) / (marks[-1] - marks[0])
    return {"start-up, s": marks[0] - start, "rows/s after it": rate, "all, s": end - start}


def main() -> None:
    """Run it."""
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=3000, help="rows a run")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    ways = {f"1 process, {cores} threads": 1, f"{cores} workers, 1 thread each": cores}
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for repeat in range(asked.repeats):
        for way, workers in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                runs[way].append(measured(Path(folder) / "v", workers, cores, asked.n))
            print(f"{repeat + 1} of {asked.repeats}: {way} {runs[way][-1]}", file=sys.stderr, flush=True)
    medians = {way: {k: statistics.median(run[k] for run in of) for k in of[0]} for way, of in runs.items()}
    if asked.json:
        print(json.dumps({"rows": asked.n, "medians": medians, "runs": runs}))
        return
    print(f"| {asked.n:,} rows | " + " | ".join(medians[next(iter(ways))]) + " |\n|---|---|---|---|")
    for way, of in medians.items():
        print(f"| {way} | " + " | ".join(f"{value:.1f}" for value in of.values()) + " |")


if __name__ == "__main__":
    main()
