"""Rendering 5,000 images with magnet and with the loop that people write, side by side.

    python benchmarks/rendering.py             # a table
    python benchmarks/rendering.py --json      # the same as one JSON object

The loop takes batches of 64 through the same network and saves each image with Pillow. Magnet's time includes what its
folder has more: hashes of all files, sync to disk, and for a sample the draw, latents, metadata and contact sheet.
"loaded": from latents and a loaded network to the last file, in one process. "process": real processes, from their
start to their end, both with torch and the network to import. Times are medians of interleaved repeats, the first
thrown away; compare within a run, by ratio.
"""

import argparse
import functools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image

from magnet_cli import index, models
from magnet_cli.catalog import cache
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.files import atomic, pictures
from magnet_cli.models import batches
from magnet_cli.sampling import render, sample_folder
from magnet_cli.volume import Volume

BATCH = 64
PARTS = ("loaded", "process")


def plain_loop(network: torch.nn.Module, latents: np.ndarray, out: Path) -> None:
    """What people write."""
    out.mkdir(parents=True)
    number = 0
    with torch.no_grad():
        for z in torch.from_numpy(latents).split(BATCH):
            made = ((network(z) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
            for image in made:
                Image.fromarray(image.squeeze()).save(out / f"{number:06d}.png")
                number += 1


def rendering(generator: models.Generator, latents: np.ndarray, out: Path) -> None:
    """`magnet render`, once everything is loaded."""
    spec = render.RenderSpec(generator.name, generator.sha256, "0" * 64, "", len(latents), "z", 1.0)
    for _ in render.fill(out, spec, generator, latents):
        pass
    render.finish(out, spec, ["benchmark"], {})


def drawn_sample(generator: models.Generator, volume: Volume, n: int, out: Path) -> None:
    """`magnet sample`, once everything is loaded; the draw included."""
    built = index.build(volume, volume.spec.top_k)
    drawn = index.draw(built, n, 0.2, 0)
    spec = sample_folder.SampleSpec(
        generator.name, generator.sha256, volume.fingerprint, drawn.pool, n, 0.2, built.top_k, 0, False, 1.0
    )
    contents = sample_folder.rows_of(spec, drawn, volume)
    for _ in sample_folder.write(out, spec, contents, volume, generator):
        pass
    sample_folder.finish(out, spec, contents, volume, ["benchmark"], {})


def serial_magnet(generator: models.Generator, latents: np.ndarray, out: Path) -> None:
    """The same files one after the other, without threads."""
    size = batches.batch_size(generator)
    (out / "images").mkdir(parents=True)
    for number, image in enumerate(batches.each_image(generator, latents, 1.0, size)):
        atomic.publish(out / f"images/{number:06d}.png", pictures.encoded(image, "png"), durable=False)


def process(*arguments: str) -> None:
    """One process, from start to end."""
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def medians(ways: dict[str, Callable[[Path], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each way, all of them in turn, the first round thrown away; each into a new folder."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory(prefix="magnet-rendering-") as folder:
                start = time.perf_counter()
                way(Path(folder) / "out")
                taken = time.perf_counter() - start
                shutil.rmtree(Path(folder) / "out")
            os.sync()  # what one way left to the disk is not to slow the next
            if repeat:
                times[name].append(taken)
            say(f"{repeat} of {repeats}: {name} {taken:.2f} s")
    return {name: statistics.median(taken) for name, taken in times.items()}


def say(text: str, stream: object = sys.stderr) -> None:
    """Print a line."""
    print(text, file=stream, flush=True)


def measure(name: str, n: int, repeats: int, parts: tuple[str, ...] = PARTS) -> dict:
    """Seconds of each way of rendering n images, by part."""
    generator = models.load(Checkpoint.find(name))
    latents = np.random.default_rng(0).standard_normal((n, generator.latent_dim), dtype=np.float32)
    about = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": platform.machine(), "cores": os.cpu_count()}
    about |= {"threads": torch.get_num_threads(), "torch": torch.__version__, "pillow": PIL.__version__}
    about |= {"generator": name, "n": n, "load": os.getloadavg()[0], "repeats": repeats}
    result: dict = {"about": about}
    if "loaded" in parts:
        ways = {
            "loop": functools.partial(plain_loop, generator.module, latents),
            "magnet render, without threads": functools.partial(serial_magnet, generator, latents),
            "magnet render": functools.partial(rendering, generator, latents),
        }
        if name == "mnist":
            volume = Volume.open(cache.BUILT_IN / "mnist-volume")
            ways["magnet sample"] = functools.partial(drawn_sample, generator, volume, n)
        result["loaded"] = medians(ways, repeats)
    if "process" in parts:
        with tempfile.TemporaryDirectory(prefix="magnet-rendering-") as folder:
            path = str(Path(folder) / "z.npy")
            np.save(path, latents)
            line = ("-m", "magnet_cli", "render", name, "--latents", path, "--quiet", "--out")
            loop = (__file__, "--generator", name, "--one", path)
            processes = {
                "loop": lambda out: process(*loop, str(out)),
                "magnet render": lambda out: process(*line, str(out)),
            }
            result["process"] = medians(processes, repeats)
    return result


def show(result: dict) -> None:
    """A table a part."""
    say(", ".join(f"{key} {value}" for key, value in result["about"].items()), sys.stdout)
    for part in PARTS:
        if part in result:
            say(f"\n| {part} | s | times as fast as the loop |\n|---|---|---|", sys.stdout)
            for name, taken in result[part].items():
                say(f"| {name} | {taken:.2f} | {result[part]['loop'] / taken:.2f} |", sys.stdout)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--generator", default="mnist")
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        network = models.load(Checkpoint.find(asked.generator)).module
        plain_loop(network, np.load(asked.one[0]), Path(asked.one[1]))
        return
    result = measure(asked.generator, asked.n, asked.repeats, tuple(asked.parts))
    if asked.json:
        say(json.dumps(result), sys.stdout)
    else:
        show(result)


if __name__ == "__main__":
    main()
