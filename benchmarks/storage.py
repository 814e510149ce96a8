"""Volumes on disk side by side with plain numpy files, and the index of many rows.

    python benchmarks/storage.py                   # tables; needs 3 GB in the temporary folder
    python benchmarks/storage.py --json            # the same as one JSON object
    python benchmarks/storage.py --rows 1000000

Throughputs are those of the same numbers, latents and singular values, as one .npy file a shard and as one in all; all
files are in the page cache. Times are medians of interleaved repeats, so compare within a run, by ratio. Reading a
volume includes its hashes, writing it the fsync of each file. Peak memory is that of a process of its own, above its
rest once everything is imported. The compute time is that of `magnet compute mnist` in this run.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from magnet_cli import index
from magnet_cli.volume import Shard, Volume
from magnet_cli.volume.spec import VolumeSpec

TOP_K = 30
LATENT_DIM = 32
DRAWN = 5000
COMPUTED_ROWS = 3000
PARTS = ("throughput", "compute", "index")


def spec(shard_rows: int) -> VolumeSpec:
    """Of a synthetic volume, k = 30 of 32."""
    return VolumeSpec(
        generator="synthetic",
        sha256="0" * 64,
        family="dcgan",
        prior="normal",
        latent_dim=LATENT_DIM,
        space="z",
        output="pixel",
        truncation=1.0,
        top_k=TOP_K,
        solver="exact",
        precision="float32",
        rank_floor=1e-5,
        seed=0,
        shard_rows=shard_rows,
    )


def shard(rows: int, number: int) -> Shard:
    """Rows whose log-volume has a standard deviation of 7 nats, as that of dcgan-digiface."""
    rng = np.random.default_rng([5, number])
    spread = rng.normal(size=(rows, 1)).astype(np.float32) * np.float32(7 / TOP_K)
    falling = np.linspace(1, -2, TOP_K, dtype=np.float32)
    return Shard(rng.standard_normal((rows, LATENT_DIM), dtype=np.float32), np.exp(falling + spread))


def seconds(work: Callable[[], object]) -> float:
    """Time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def medians(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each way, all of them in turn, the first round thrown away."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            taken = seconds(way)
            if repeat:
                times[name].append(taken)
    return {name: sorted(taken)[len(taken) // 2] for name, taken in times.items()}


def throughput(folder: Path, shard_rows: int, repeats: int) -> dict:
    """MB/s of writing and reading some 250 MB in shards of that many rows."""
    count = max(2, 1_000_000 // shard_rows)
    rows = [shard(shard_rows, number) for number in range(count)]
    megabytes = sum(r.latents.nbytes + r.singular_values.nbytes for r in rows) / 1e6
    volume = Volume.create(folder / "v", spec(shard_rows))

    def write_volume() -> None:
        shutil.rmtree(volume.path / "shards")
        (volume.path / "shards").mkdir()
        for number, r in enumerate(rows):
            volume.write(number, r)

    def write_numpy() -> None:
        for number, r in enumerate(rows):
            np.save(folder / f"z{number}.npy", r.latents)
            np.save(folder / f"s{number}.npy", r.singular_values)

    def read_numpy() -> None:
        for number in range(count):
            np.load(folder / f"z{number}.npy")
            np.load(folder / f"s{number}.npy")

    def one_file() -> None:
        np.load(folder / "all.npy")

    def read_volume() -> None:
        for _ in volume.rows():
            pass

    written = medians({"volume": write_volume, "numpy": write_numpy}, repeats)
    np.save(folder / "all.npy", np.concatenate([np.concatenate([r.latents, r.singular_values], axis=1) for r in rows]))
    data = b"".join(r.latents.tobytes() for r in rows)
    ways = {"volume": read_volume, "numpy": read_numpy, "numpy, one file": one_file}
    read = medians(ways | {"sha256 alone": lambda: hashlib.sha256(data).digest()}, repeats)
    read["sha256 alone"] *= megabytes * 1e6 / len(data)
    shutil.rmtree(folder / "v")
    for path in folder.glob("*.npy"):
        path.unlink()
    rates = {f"write {name}": megabytes / taken for name, taken in written.items()}
    rates |= {f"read {name}": megabytes / taken for name, taken in read.items()}
    return {"shard_rows": shard_rows, "megabytes": megabytes, "seconds_a_shard": written["volume"] / count} | rates


def share_of_compute(folder: Path, repeats: int) -> dict:
    """What writing costs beside computing, on mnist at 1,000 rows a shard."""
    from magnet_cli import computing, models
    from magnet_cli.catalog.checkpoint import Checkpoint

    generator = models.load(Checkpoint.find("mnist"))
    volume = Volume.create(folder / "mnist", computing.volume_spec(generator, rows_per_shard=1000))
    list(computing.fill(volume, generator, 1000))
    taken = seconds(lambda: list(computing.fill(volume, generator, COMPUTED_ROWS))) / (COMPUTED_ROWS // 1000 - 1)
    rows = volume.read(0)

    def write() -> None:
        shutil.rmtree(volume.path / "shards")
        (volume.path / "shards").mkdir()
        volume.write(0, rows)

    written = medians({"write": write}, 4 * repeats)["write"]
    shutil.rmtree(volume.path)
    return {"compute_seconds": taken, "write_seconds": written, "share": written / taken}


def measured_alone(*arguments: str) -> dict:
    """Run this file once more for one step, in a process of its own."""
    command = [sys.executable, __file__, "--one", *arguments]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def one(step: str, volume_path: str, index_path: str) -> dict:
    """One step of the large index: its time, and its peak memory above rest in MiB."""
    volume, path = Volume.open(Path(volume_path)), Path(index_path)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten (Linux)
    rest = resident("VmRSS")
    start = time.perf_counter()
    known = index.stored(path, volume, TOP_K) if step != "build" else None
    if step in {"build", "extend"}:
        index.store(index.build(volume, TOP_K, known), volume, path)
    if step == "draw":
        assert known is not None
        assert index.current(known, volume)
        index.draw(known, DRAWN, 0.3, 0)
    taken = time.perf_counter() - start
    return {"step": step, "seconds": taken, "peak_mib": (resident("VmHWM") - rest) / 1024}


def resident(name: str) -> int:
    """KiB of this process, now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def draws(volume: Volume, path: Path, repeats: int) -> dict[str, float]:
    """Seconds of drawing from the loaded index, weights included, beside numpy's own choice."""
    known = index.stored(path, volume, TOP_K)
    rng = np.random.default_rng(0)

    def numpy_choice() -> None:
        weights = np.exp(0.3 * (known.log_volume - known.log_volume.max()))
        rng.choice(len(weights), DRAWN, replace=False, p=weights / weights.sum())

    def with_diagnostics() -> None:
        index.draw(dataclasses.replace(known), DRAWN, 0.3, 0)

    ways = {"magnet": lambda: index.choose(known, 0.3, DRAWN, 0), "magnet, with all diagnostics": with_diagnostics}
    return medians(ways | {"numpy.random.Generator.choice": numpy_choice}, repeats)


def at_scale(folder: Path, rows: int, repeats: int) -> dict:
    """The index of many rows: built, used, extended by a shard."""
    shard_rows = min(100_000, rows // 2)
    volume = Volume.create(folder / "large", spec(shard_rows))
    say(f"writing {rows:,} rows")
    for number in range(rows // shard_rows):
        volume.write(number, shard(shard_rows, number))
    path = folder / "large.h5"
    steps = [measured_alone("build", str(volume.path), str(path)), measured_alone("draw", str(volume.path), str(path))]
    drawn = draws(volume, path, repeats)
    volume.write(rows // shard_rows, shard(shard_rows, rows // shard_rows))
    steps.append(measured_alone("extend", str(volume.path), str(path)))
    size = path.stat().st_size / volume.num_rows
    shutil.rmtree(volume.path)
    return {"rows": rows, "shard_rows": shard_rows, "bytes_a_row": size, "steps": steps, "draws": drawn}


def show(result: dict) -> None:
    """The tables."""
    if rows := result.get("throughput"):
        rates = [name for name in rows[0] if name.startswith(("write", "read"))]
        table(["rows a shard", *(f"{name}, MB/s" for name in rates)])
        for row in rows:
            table([f"{row['shard_rows']:,}", *(f"{row[name]:,.0f}" for name in rates)], head=False)
    if share := result.get("compute"):
        table(["mnist, 1,000 rows", "computed, s", "written, s", "share"])
        cells = [f"{share['compute_seconds']:.3g}", f"{share['write_seconds']:.3g}", f"{share['share']:.2%}"]
        table(["", *cells], head=False)
    if large := result.get("index"):
        table([f"index of {large['rows']:,} rows, {large['bytes_a_row']:.1f} bytes a row", "s", "peak MiB above rest"])
        for step in large["steps"]:
            table([step["step"], f"{step['seconds']:.2f}", f"{step['peak_mib']:.0f}"], head=False)
        table([f"{DRAWN:,} of them drawn at rho 0.3", "s"])
        for name, taken in large["draws"].items():
            table([name, f"{taken:.3f}"], head=False)


def table(cells: list[str], *, head: bool = True) -> None:
    """A line of a table, its first with the rule below it."""
    say("\n" * head + f"| {' | '.join(cells)} |", sys.stdout)
    if head:
        say("|---" * len(cells) + "|", sys.stdout)


def say(text: str, stream: object = sys.stderr) -> None:
    """Print a line."""
    print(text, file=stream, flush=True)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--rows", type=int, default=10_000_000, help="of the large index")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        say(json.dumps(one(*arguments.one)), sys.stdout)
        return
    about = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": platform.machine(), "cores": os.cpu_count()}
    about |= {"numpy": np.__version__, "load": os.getloadavg()[0], "repeats": arguments.repeats}
    result: dict = {"about": about}
    with tempfile.TemporaryDirectory(prefix="magnet-storage-") as name:
        folder = Path(name)
        if "throughput" in arguments.parts:
            sizes = (2000, 20_000, 200_000)
            result["throughput"] = [throughput(folder, shard_rows, arguments.repeats) for shard_rows in sizes]
        if "compute" in arguments.parts:
            result["compute"] = share_of_compute(folder, arguments.repeats)
        if "index" in arguments.parts:
            result["index"] = at_scale(folder, arguments.rows, arguments.repeats)
    if arguments.json:
        say(json.dumps(result), sys.stdout)
        return
    say(", ".join(f"{key} {value}" for key, value in about.items()), sys.stdout)
    show(result)


if __name__ == "__main__":
    main()
