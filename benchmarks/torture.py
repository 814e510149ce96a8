"""Kill real `magnet compute` processes at random moments, and hold what they leave against a run that nobody disturbed.

    python benchmarks/torture.py --kills 200           # a table
    python benchmarks/torture.py --kills 20 --json     # the same as one JSON object

Volumes of `mnist` are computed in two steps, so that the last shard of the first is extended in the second; shards are
small, so that much of the time goes into publishing them. A run is killed by SIGKILL and the same command started
again, until the volume is finished; then the next volume begins, by turns with one process and with two workers. The
moments are, by turns: any time since the start, imports included; some time after a new shard is there; and just when
a temporary file or a shard without its mark is seen. Exits with 1 where a finished volume differs from the undisturbed
one in a byte of a dataset, where `info --check` finds a problem, or where a run failed by itself.
"""

import argparse
import collections
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from magnet_cli.volume import Volume

STEPS = (700, 1190)  # rows; neither is a whole number of shards
SHARD_ROWS = 16
MOMENTS = ("any time", "after a shard", "while publishing")
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}  # so that one process and two workers round alike


def command(volume: Path, num_rows: int, workers: int) -> list[str]:
    """The command line under test."""
    wanted = ["--n", num_rows, "--shard-rows", SHARD_ROWS, "--volume", volume, "--workers", workers, "--quiet"]
    return [sys.executable, "-m", "magnet_cli", "compute", "mnist", *map(str, wanted)]


def started(volume: Path, num_rows: int, workers: int) -> subprocess.Popen:
    """A run, going."""
    line = command(volume, num_rows, workers)
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ONE_THREAD)


def names(volume: Path) -> set[str]:
    """The files in a volume's folder of shards."""
    return set(os.listdir(volume / "shards")) if (volume / "shards").is_dir() else set()  # noqa: PTH208


def wait_for_moment(run: subprocess.Popen, volume: Path, moment: str, start_up: float, rng: random.Random) -> None:
    """Return when the run is to be killed, or when it ended by itself."""
    before = names(volume)
    if moment == "any time":
        end = time.monotonic() + rng.uniform(0, 1.3 * start_up)
        while time.monotonic() < end and run.poll() is None:
            time.sleep(0.001)
        return
    while run.poll() is None:
        new = names(volume) - before
        unfinished = {n for n in new if n.endswith(".part") or f"{n[:-3]}.json" not in new}
        if moment == "while publishing" and unfinished:
            return
        if moment == "after a shard" and any(n.endswith(".json") for n in new):
            time.sleep(rng.uniform(0, 1))
            return
        time.sleep(0.0002)


def differences(volume: Volume, undisturbed: Volume) -> list[str]:
    """In what a finished volume is not the undisturbed one, byte by byte of its datasets."""
    found = [] if volume.shards() == undisturbed.shards() else [f"{volume.path} has other shards"]
    found += [f"{volume.path}: {problem}" for problem in volume.check()]
    for shard in set(volume.shards()) & set(undisturbed.shards()):
        ours, theirs = volume.read(shard), undisturbed.read(shard)
        for name in ("latents", "singular_values"):
            if getattr(ours, name).tobytes() != getattr(theirs, name).tobytes():
                found.append(f"{volume.path}: {name} of shard {shard} differ")
    return found


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rng, began = random.Random(asked.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = torture(Path(folder), asked.kills, rng)
    report["seconds"] = round(time.monotonic() - began, 1)
    print(json.dumps(report) if asked.json else "\n".join(f"{name:<28}{value}" for name, value in report.items()))
    return 0 if not report["problems"] else 1


def torture(folder: Path, kills: int, rng: random.Random) -> dict:
    """Kill runs, finish their volumes, compare."""
    undisturbed, seconds = folder / "undisturbed", []
    for num_rows in STEPS:
        start = time.monotonic()
        subprocess.run(command(undisturbed, num_rows, 1), check=True, env=ONE_THREAD, stdout=subprocess.DEVNULL)
        seconds.append(time.monotonic() - start)
    start_up, moments = min(seconds), itertools.cycle(MOMENTS)
    killed, strays, problems, runs, volumes = collections.Counter(), 0, [], 0, 0
    while killed.total() < kills and not problems:
        volumes += 1
        place, workers = folder / f"volume-{volumes}", 1 + volumes % 2
        for num_rows in STEPS:
            finished = False
            while not finished and not problems:
                runs += 1
                run, moment = started(place, num_rows, workers), next(moments)
                if killed.total() < kills:
                    wait_for_moment(run, place, moment, start_up, rng)
                    run.kill()
                error = run.communicate()[1].decode()
                finished = run.returncode == 0
                killed[moment] += run.returncode == -9
                if run.returncode not in {0, -9}:
                    problems.append(f"a run ended by itself with {run.returncode}: {error}")
        strays += len([name for name in names(place) if name.endswith(".part")])
        problems += differences(Volume.open(place), Volume.open(undisturbed))
        print(f"{killed.total()} kills, {volumes} volumes, {len(problems)} problems", file=sys.stderr, flush=True)
    return {
        "kills": killed.total(),
        **{f"killed {moment}": killed[moment] for moment in MOMENTS},
        "runs": runs,
        "volumes finished": volumes,
        "temporaries left behind": strays,
        "problems": problems,
    }


if __name__ == "__main__":
    sys.exit(main())
