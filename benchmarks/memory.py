"""Time and memory of `magnet compute` against the number of rows: time is to grow in line, memory not at all.

    magnet fetch dcgan-digiface
    python benchmarks/memory.py                                  # 32, 64, 128 rows within 512 MiB
    python benchmarks/memory.py --memory 128MiB --rows 16 --json

Each row is a process of its own. Memory is the peak while rows are computed above what is resident once the generator
is loaded and has made an image. Linux only: the peak is read from /proc.
"""

import argparse
import ctypes
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from magnet_cli import computing, models
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.cli.options import size
from magnet_cli.computing.memory import plan_batches
from magnet_cli.volume import Volume


def measure(name: str, rows: int, memory: int) -> dict:
    """Compute a volume of so many rows in a temporary folder."""
    generator = models.load(Checkpoint.find(name))
    with torch.no_grad():
        generator(torch.zeros(1, generator.latent_dim))
    cut = plan_batches(generator, memory=memory)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    with tempfile.TemporaryDirectory() as folder:
        volume = Volume.create(Path(folder) / "v", computing.volume_spec(generator, rows_per_shard=32))
        start = time.perf_counter()
        for _ in computing.fill(volume, generator, rows, cut):
            pass
        seconds = time.perf_counter() - start
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    used = (int(peak.split()[1]) * 1024 - before) / 2**20
    return {"rows": rows, "seconds": seconds, "peak_mib": used, "batch": cut.batch, "chunk": cut.chunk}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", default="dcgan-digiface")
    parser.add_argument("--rows", nargs="+", type=int, default=[32, 64, 128])
    parser.add_argument("--memory", default="512MiB")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.generator, arguments.one, size(arguments.memory))))
        return
    command = [sys.executable, __file__, "--generator", arguments.generator, "--memory", arguments.memory, "--one"]
    found: dict[int, list[dict]] = {rows: [] for rows in arguments.rows}
    for _ in range(arguments.repeats):  # interleaved, so that a machine whose speed drifts treats all alike
        for rows in arguments.rows:
            done = subprocess.run([*command, str(rows)], capture_output=True, text=True, check=True)
            found[rows].append(json.loads(done.stdout))
    table = [
        runs[0]
        | {key: sorted(run[key] for run in runs)[len(runs) // 2] for key in ("seconds", "peak_mib")}
        | {"largest_peak_mib": max(run["peak_mib"] for run in runs)}
        for runs in found.values()
    ]
    if arguments.json:
        print(json.dumps({"generator": arguments.generator, "memory": arguments.memory, "runs": table}))
        return
    print("| rows | seconds | seconds a row | peak MiB, median | largest |\n|---|---|---|---|---|")
    for row in table:
        each = row["seconds"] / row["rows"]
        cells = [row["rows"], f"{row['seconds']:.2f}", f"{each:.4f}", f"{row['peak_mib']:.0f}"]
        print(f"| {' | '.join(map(str, cells))} | {row['largest_peak_mib']:.0f} |")


if __name__ == "__main__":
    main()
