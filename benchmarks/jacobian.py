"""Jacobian solvers side by side with what people use today, in one run.

    magnet fetch dcgan-digiface
    python benchmarks/jacobian.py                  # three networks, a Markdown table each
    python benchmarks/jacobian.py --json           # the same as one JSON object
    python benchmarks/jacobian.py --networks mnist --quick

Times are medians of interleaved repeats, so that a machine whose speed drifts treats all methods alike: compare within
a run, by ratio. Errors are rms of log-volume against exact float64 on latents that no solver was fitted on, the mean
offset removed. The share of peak counts a forward and a reverse product alike as one evaluation's operations, held
against a float32 matrix product measured in the same run. Methods with a star take a reverse pass a pixel: they are
timed on 64 of them and scaled.
"""

import argparse
import copy
import ctypes
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from magnet_cli import compute, generators
from magnet_cli.artifacts import cache
from magnet_cli.jacobian import calibration, solvers
from magnet_cli.jacobian.calibration import Candidate

TOP_K = {"dcgan-digiface": 30, "mnist": 16, "stylegan2-shaped": 30}
REVERSE_ROWS = 64  # of the methods with a star
PUBLISHED_BATCH = 8
CHUNK = 32  # tangents at a time for the StyleGAN2-shaped network
FEW = 4  # latents that are enough to see that a method is exact to rounding


class Synthesis(nn.Module):
    """A random network of StyleGAN2's shape (Karras et al. 2020, skip architecture, no noise): z [B, D] to images.

    Args:
        latent_dim: D.
        resolution: side of the images.
        base: channels are base / side, at most `largest`.
        largest: see base.
    """

    def __init__(self, latent_dim: int, resolution: int, base: int, largest: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.mapping = nn.ParameterList(torch.randn(latent_dim, latent_dim) for _ in range(8))
        sides = [2**i for i in range(2, resolution.bit_length())]
        channels = [min(base // side, largest) for side in sides]
        self.constant = nn.Parameter(torch.randn(1, channels[0], 4, 4))
        self.convolutions, self.styles = nn.ParameterList(), nn.ModuleList()
        self.images, self.image_styles = nn.ParameterList(), nn.ModuleList()
        for i, width in enumerate(channels):
            for n_in in (channels[max(i - 1, 0)], width)[i == 0 :]:
                self.convolutions.append(torch.randn(width, n_in, 3, 3))
                self.styles.append(nn.Linear(latent_dim, n_in))
            self.images.append(torch.randn(3, width, 1, 1))
            self.image_styles.append(nn.Linear(latent_dim, width))
        for style in (*self.styles, *self.image_styles):
            nn.init.normal_(style.weight, std=latent_dim**-0.5)
            nn.init.ones_(style.bias)
        taps = torch.tensor([1.0, 3, 3, 1])
        self.register_buffer("blur", (taps[:, None] * taps / 64)[None, None])

    def forward(self, z: Tensor) -> Tensor:
        """Latents [B, D] to images [B, 3, H, W]."""
        w = z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for weight in self.mapping:
            w = functional.leaky_relu(w @ weight.T * weight.shape[1] ** -0.5, 0.2) * 2**0.5
        x = self.constant.expand(len(z), -1, -1, -1)
        image, layers = None, iter(zip(self.convolutions, self.styles, strict=True))
        for i, (to_image, style) in enumerate(zip(self.images, self.image_styles, strict=True)):
            if i:
                x = self._convolve(x, w, *next(layers), up=True)
                spread = self.blur.expand(3, 1, 4, 4) * 4
                image = functional.conv_transpose2d(image, spread, stride=2, padding=1, groups=3)
            x = self._convolve(x, w, *next(layers), up=False)
            scaled = x * style(w)[:, :, None, None] * x.shape[1] ** -0.5
            shown = functional.conv2d(scaled, to_image)
            image = shown if image is None else image + shown
        return image

    def _convolve(self, x: Tensor, w: Tensor, weight: Tensor, affine: nn.Linear, *, up: bool) -> Tensor:
        """Modulated convolution with one shared weight: styles scale the input, demodulation the output."""
        style = affine(w)
        demodulation = (style.square() @ weight.square().sum(dim=(2, 3)).T + 1e-8).rsqrt()
        x = x * style[:, :, None, None]
        if up:
            x = self._filter(functional.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        else:
            x = functional.conv2d(x, weight, padding=1)
        return functional.leaky_relu(x * demodulation[:, :, None, None], 0.2) * 2**0.5

    def _filter(self, x: Tensor) -> Tensor:
        """Blur [B, C, 2H+1, 2W+1] to [B, C, 2H, 2W]; the gain of 4 makes up for the zeros between the inputs."""
        channels = x.shape[1]
        return functional.conv2d(x, self.blur.expand(channels, 1, 4, 4) * 4, padding=1, groups=channels)


@dataclass(frozen=True)
class Network:
    """A network under test, in each precision, and how it is cut into batches."""

    name: str
    functions: dict[str, Callable[[Tensor], Tensor]]
    latent_dim: int
    batch: int
    device: torch.device
    spherical: bool = False
    chunk: int | None = None

    def latents(self, part: int, rows: int, precision: str = "float32") -> Tensor:
        """Latents [rows, D] of a stream of their own."""
        z = np.random.default_rng([part, 7]).standard_normal((rows, self.latent_dim), dtype=np.float32)
        z = compute.on_sphere(z) if self.spherical else z
        return torch.from_numpy(z).to(self.device, getattr(torch, precision))


@dataclass(frozen=True)
class Method:
    """A way to singular values: of a batch of latents, [B, k]."""

    name: str
    solve: Callable[..., Tensor]
    products: float
    batch: int
    precision: str = "float32"
    scale: float = 1.0
    few: bool = False
    starred: bool = False
    by_row: bool = False  # solve also takes the first row's number, of which test matrices are a function


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 arithmetic; emulated, it is many times slower than float32."""
    return device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def network(name: str, device: torch.device) -> Network:
    """One of the three networks."""
    if name != "stylegan2-shaped":
        loaded = {
            p: generators.load(cache.checkpoint(name), str(device), getattr(torch, p))
            for p in ("float32", "float64", "bfloat16")
        }
        return Network(name, loaded, loaded["float32"].latent_dim, compute.batch_size(loaded["float32"]), device)
    torch.manual_seed(0)
    sizes = (1024, 32768, 512) if device.type == "cuda" else (64, 2048, 128)
    made = Synthesis(512, *sizes).requires_grad_(False).to(memory_format=torch.channels_last)
    functions = {p: copy.deepcopy(made).to(device, getattr(torch, p)) for p in ("float32", "float64", "bfloat16")}
    return Network(name, functions, 512, 1, device, spherical=True, chunk=CHUNK)


def methods(net: Network, tolerances: list[float], rows: int) -> Iterator[Method]:
    """Our solvers at the sizes their tolerance asks for, the published algorithm, and torch's own functions."""
    k, dim, chunk = TOP_K[net.name], net.latent_dim, net.chunk
    f = net.functions["float32"]
    outputs = f(net.latents(0, 1)).numel()
    for precision in ("float32", "float64", *["bfloat16"] * has_bfloat16(net.device)):
        g, few = net.functions[precision], precision != "bfloat16"
        yield Method(
            f"exact {precision}", lambda z, g=g: solvers.exact(g, z, k, chunk), dim, net.batch, precision, few=few
        )
    columns = lambda z: solvers.roots(solvers.gram_by_columns(f, z, min(dim, 32)), k)  # noqa: E731
    yield Method("exact float32, J never held", columns, 2 * dim, net.batch, few=True)
    if k < dim:
        yield from _sketches(net, tolerances, rows)
    plan = solvers.projection_rows(outputs).to(net.device)
    yield Method("published algorithm", lambda z: published(f, z, k, plan), len(plan), PUBLISHED_BATCH)
    yield Method(
        "projection (the same, vmapped)", lambda z: solvers.projection(f, z, k, plan, chunk), len(plan), net.batch
    )

    def dense(differentiate: Callable[..., Callable], z: Tensor) -> Tensor:
        return torch.stack([torch.linalg.svdvals(differentiate(lambda x: f(x[None]).flatten())(row))[:k] for row in z])

    yield Method("torch.func.jacfwd", lambda z: dense(torch.func.jacfwd, z), dim, 1, few=True)
    scale = outputs / REVERSE_ROWS
    some = lambda x: f(x[None]).flatten()[:REVERSE_ROWS]  # noqa: E731
    yield Method("torch.func.jacrev*", lambda z: torch.func.jacrev(some)(z[0]), outputs, 1, scale=scale, starred=True)
    slow = lambda z: torch.autograd.functional.jacobian(some, z[0])  # noqa: E731
    yield Method("torch.autograd.functional.jacobian*", slow, outputs, 1, scale=scale, starred=True)


def _sketches(net: Network, tolerances: list[float], rows: int) -> Iterator[Method]:
    """Pilot and sketch, calibrated as `magnet compute` does."""
    k, dim, f = TOP_K[net.name], net.latent_dim, net.functions["float32"]
    parts = [net.latents(part, rows).split(net.batch) for part in (1, 2)]
    grams = [torch.cat([solvers.gram(f, z, net.chunk).cpu() for z in part]) for part in parts]
    basis = calibration.pilot_basis(grams[0])
    tests = compute.test_matrices(dim, dim, 0, range(rows))
    exact = calibration.predicted(Candidate("exact", dim), grams[1], k, basis, tests)

    def rms(candidate: Candidate) -> float:
        return calibration.errors(calibration.predicted(candidate, grams[1], k, basis, tests), exact)[0]

    kinds = [
        lambda m: Candidate("pilot", m),
        lambda m: Candidate("pilot", m, sweep=True),
        lambda m: Candidate("sketch", m),
        lambda m: Candidate("sketch", m, power=1),
    ]
    for tolerance in tolerances:
        for candidate in filter(None, (calibration.smallest(kind, k, dim, 0.9 * tolerance, rms) for kind in kinds)):
            for precision in ("float32", *["bfloat16"] * has_bfloat16(net.device)):
                solve = _solver(candidate, net, precision, basis, k)
                label = f"{candidate} {precision} ({tolerance:g})"
                yield Method(label, solve, candidate.products, net.batch, precision, by_row=True)


def _solver(c: Candidate, net: Network, precision: str, basis: Tensor, k: int) -> Callable[..., Tensor]:
    f = net.functions[precision]
    strongest = basis[:, : c.size].to(net.device)
    if c.solver == "pilot":
        return lambda z, _=0: solvers.pilot(f, z, k, strongest, sweep=c.sweep, chunk_size=net.chunk)

    def solve(z: Tensor, row: int = 0) -> Tensor:
        tests = compute.test_matrices(net.latent_dim, c.size, 1, range(row, row + len(z))).to(net.device)
        return solvers.sketch(f, z, k, tests, power=c.power, chunk_size=net.chunk)

    return solve


def published(function: Callable[[Tensor], Tensor], z: Tensor, top_k: int, rows: Tensor) -> Tensor:
    """The published algorithm as published: a batch of latents, one reverse pass a row of W, then the SVD."""
    z = z.detach().requires_grad_()
    projected = function(z).flatten(1) @ rows.T
    slopes = [torch.autograd.grad(projected[:, i].sum(), z, retain_graph=True)[0] for i in range(len(rows))]
    return torch.linalg.svdvals(torch.stack(slopes, dim=1))[:, :top_k]


def values(method: Method, z: Tensor) -> Tensor:
    """Log-volumes of latents, a full batch at a time."""
    parts = []
    for number, part in enumerate(z.split(method.batch)):
        padded = torch.cat([part, part[-1:].expand(method.batch - len(part), -1)])
        found = method.solve(padded, *[number * method.batch] * method.by_row)[: len(part)]
        parts.append(found.double().clamp_min(1e-30).log().sum(dim=1).cpu())
    return torch.cat(parts)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Time of one call."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_flops(device: torch.device) -> float:
    """Operations a second of a float32 matrix product."""
    a = torch.randn(2048, 2048, device=device)
    times = [seconds(lambda: a @ a, device) for _ in range(7)]
    return 2 * 2048**3 / sorted(times)[3]


def peak_memory(name: str, method: str, arguments: argparse.Namespace) -> float | None:
    """MiB above the resting process, in a process of its own."""
    command = [sys.executable, __file__, "--networks", name, "--one", method, "--device", arguments.device]
    command += ["--rows", str(arguments.rows), "--tolerances", *map(str, arguments.tolerances)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else None


def _working_set(work: Callable[[], object], device: torch.device) -> float:
    """MiB that a call needs above what was held before it: on the device's own memory where it is a GPU."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    ctypes.CDLL(None).malloc_trim(0)  # what calibration freed would be used again, and not be seen
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten (Linux)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    work()
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return (int(peak.split()[1]) * 1024 - before) / 2**20


def measure(name: str, arguments: argparse.Namespace) -> dict:
    """One network: the table as rows of fields."""
    device = torch.device(arguments.device)
    net = network(name, device)
    say(f"{name}: calibrating")
    every = [m for m in methods(net, arguments.tolerances, arguments.rows) if arguments.methods in m.name]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.functions["float32"](net.latents(0, 1))
    flops = counter.get_total_flops()
    times: dict[str, list[float]] = {m.name: [] for m in every}
    peaks = []
    for repeat in range(1 + arguments.repeats):
        peaks.append(peak_flops(device))
        for method in tuple(every):
            z = net.latents(3, method.batch, method.precision)
            try:
                taken = seconds(lambda m=method, x=z: m.solve(x), device) * method.scale / method.batch
            except torch.OutOfMemoryError:  # jacfwd has no chunks; its row is left out
                every.remove(method)
                continue
            if repeat:
                times[method.name].append(taken)
        say(f"{name}: repeat {repeat} of {arguments.repeats}")
    best = net.functions["float64"]
    truth_method = Method("truth", lambda z: solvers.exact(best, z, TOP_K[name], net.chunk), 0, net.batch)
    truth = values(truth_method, net.latents(4, arguments.rows, "float64"))
    peak = sorted(peaks)[len(peaks) // 2]
    rows = []
    middle = {n: sorted(t)[len(t) // 2] for n, t in times.items()}
    for method in every:
        error = None
        if not method.starred:
            count = min(FEW, arguments.rows) if method.few else arguments.rows
            found = values(method, net.latents(4, arguments.rows, method.precision)[:count])
            error = calibration.errors(found, truth[:count])[0]
        row = {"method": method.name, "seconds_per_latent": middle[method.name], "rms_error": error}
        base = middle.get("published algorithm")
        row |= {"times_faster": base and base / middle[method.name]}
        row |= {"products_per_latent": method.products}
        row |= {"share_of_peak": method.products * flops / middle[method.name] / peak}
        row |= {"peak_mib": peak_memory(name, method.name, arguments) if arguments.memory else None}
        rows.append(row)
        say(f"{name}: {row}")
    return {"network": name, "top_k": TOP_K[name], "flops": flops, "peak_flops": peak, "rows": rows}


def show(result: dict) -> None:
    """The table of one network."""
    k, peak = result["top_k"], result["peak_flops"] / 1e9
    say(f"\n**{result['network']}**, k = {k}; matrix-product peak {peak:.0f} GFLOP/s\n", sys.stdout)
    say("| method | s/latent | × published | rms error, nats | products | share of peak | peak MiB |", sys.stdout)
    say("|---|---|---|---|---|---|---|", sys.stdout)
    for row in result["rows"]:
        error = "" if row["rms_error"] is None else f"{row['rms_error']:.2g}"
        mib = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        cells = [row["method"], f"{row['seconds_per_latent']:.4g}", f"{row['times_faster'] or float('nan'):.2f}", error]
        cells += [f"{row['products_per_latent']:,}", f"{row['share_of_peak']:.2f}", mib]
        say(f"| {' | '.join(cells)} |", sys.stdout)


def say(text: str, stream: object = sys.stderr) -> None:
    """Print a line."""
    print(text, file=stream, flush=True)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(TOP_K), choices=list(TOP_K))
    parser.add_argument("--methods", default="", help="only methods whose name holds this")
    parser.add_argument("--tolerances", nargs="+", type=float, default=[0.35, 0.1])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=32, help="latents of each calibration set and of the errors")
    parser.add_argument("--device", default=generators.default_device())
    parser.add_argument("--memory", action="store_true", help="peak memory too, in a process a method")
    parser.add_argument("--quick", action="store_true", help="one repeat, eight latents")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    # a GPU's convolutions are TF32 unless told otherwise: float32 means float32 here
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if arguments.quick:
        arguments.repeats, arguments.rows = 1, 8
    if arguments.one:
        net = network(arguments.networks[0], torch.device(arguments.device))
        method = next(m for m in methods(net, arguments.tolerances, arguments.rows) if m.name == arguments.one)
        z = net.latents(3, method.batch, method.precision)
        say(str(_working_set(lambda: method.solve(z), net.device)), sys.stdout)
        return
    about = {"torch": torch.__version__, "device": arguments.device, "threads": torch.get_num_threads()}
    about |= {"date": f"{datetime.now(UTC):%Y-%m-%d}", "load": os.getloadavg()[0], "repeats": arguments.repeats}
    results = [measure(name, arguments) for name in arguments.networks]
    if arguments.json:
        say(json.dumps({"about": about, "networks": results}), sys.stdout)
        return
    say(", ".join(f"{key} {value}" for key, value in about.items()), sys.stdout)
    for result in results:
        show(result)


if __name__ == "__main__":
    main()
