"""Jacobian solvers side by side with what people use today, in one run.

    magnet fetch dcgan-digiface
    python benchmarks/jacobian.py                  # three networks, a Markdown table each
    python benchmarks/jacobian.py --json           # the same as one JSON object
    python benchmarks/jacobian.py --networks mnist --quick

Times are medians of interleaved repeats, so that a machine whose speed drifts treats all methods alike: compare within
a run, by ratio. Errors are rms of log-volume against exact float64 on latents that no solver was fitted on, the mean
offset removed. The share of peak counts a forward and a reverse product alike as one evaluation's operations, held
against a float32 matrix product measured in the same run; below each table stands what the network's convolutions reach
when they run alone, which no solver can pass. Memory is what a call needs above what was resident before. The published
algorithm and torch's own functions get the network as people have it (batch norms apart, default layout). Methods with
a star take a reverse pass a pixel: they are timed on 64 of them and scaled.
"""

import argparse
import copy
import ctypes
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from magnet_cli import computing, models
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.computing import solver_choice
from magnet_cli.computing.memory import BatchPlan, plan_batches
from magnet_cli.files import checkpoints
from magnet_cli.maths import priors
from magnet_cli.maths.jacobian import calibration, solvers
from magnet_cli.maths.jacobian.calibration import Candidate
from magnet_cli.models import Generator
from magnet_cli.models.generators import dcgan, stylegan2

TOP_K = {"dcgan-digiface": 30, "mnist": 16, "stylegan2-shaped": 30}
REVERSE_ROWS = 64  # of the methods with a star
PUBLISHED_BATCH = 8
AUTO_TOLERANCE = 0.35  # nats; near the published algorithm's own error on dcgan-digiface
FEW = 4  # latents that are enough to see that a method is exact to rounding


@dataclass(frozen=True)
class Network:
    """A network under test, in each precision.

    Attributes:
        name: of TOP_K.
        generators: by precision, as magnet builds them.
        plain: in float32 as people have it: batch norms apart, torch's default layout.
        cut: how magnet cuts the work.
    """

    name: str
    generators: dict[str, Generator]
    plain: Callable[[Tensor], Tensor]
    cut: BatchPlan
    device: torch.device

    @property
    def latent_dim(self) -> int:
        """D."""
        return self.generators["float32"].latent_dim

    def latents(self, part: int, rows: int, precision: str = "float32") -> Tensor:
        """Latents [rows, D] of a stream of their own."""
        z = np.random.default_rng([part, 7]).standard_normal((rows, self.latent_dim), dtype=np.float32)
        z = priors.on_sphere(z) if self.generators["float32"].prior.kind == "sphere" else z
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
    if name == "stylegan2-shaped":
        made = random_stylegan2(*((1024, 32768, 512) if device.type == "cuda" else (64, 2048, 128)))
        plain = copy.deepcopy(made)

        def load(precision: str) -> Generator:
            module = copy.deepcopy(made).to(device, getattr(torch, precision)).to(memory_format=torch.channels_last)
            return Generator(name, "stylegan2", "0" * 64, module.image_shape, priors.Prior(module.prior, 512), module)

    else:
        checkpoint = Checkpoint.find(name)
        plain = dcgan.as_trained(checkpoints.read(checkpoint.read(), name).state)

        def load(precision: str) -> Generator:
            return models.load(checkpoint, device=device, dtype=getattr(torch, precision))

    loaded = {p: load(p) for p in ("float32", "float64", "bfloat16")}
    return Network(name, loaded, plain.to(device, torch.float32), plan_batches(loaded["float32"]), device)


def random_stylegan2(resolution: int, channel_base: int, channel_max: int) -> nn.Module:
    """A StyleGAN2 of random weights, D = 512, 8 mapping layers; its spectrum is not a trained one's."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "fixtures"))
    from toys import stylegan2_weights

    return stylegan2.build(stylegan2_weights(resolution, 512, 512, channel_base, channel_max, num_layers=8))


def methods(net: Network, tolerances: list[float] | None, rows: int, *, auto: bool) -> Iterator[Method]:
    """Our solvers at the sizes their tolerance asks for, the published algorithm, and torch's own functions."""
    k, dim, chunk, batch = TOP_K[net.name], net.latent_dim, net.cut.chunk, net.cut.batch
    f = net.generators["float32"]
    outputs = f(net.latents(0, 1)).numel()
    for precision in ("float32", "float64", *["bfloat16"] * has_bfloat16(net.device)):
        g, few = net.generators[precision], precision != "bfloat16"
        solve = lambda z, g=g: solvers.exact(g, z, k, chunk)  # noqa: E731
        yield Method(f"exact {precision}", solve, dim, batch, precision, few=few)
    columns = lambda z: solvers.roots(solvers.gram_by_columns(f, z, min(dim, 32)), k)  # noqa: E731
    yield Method("exact float32, J never held", columns, 2 * dim, batch, few=True)
    rows_of_w = solvers.projection_rows(outputs).to(net.device)
    if k < dim:
        if auto:
            yield _automatic(net)
        yield from _sketches(net, tolerances or _published_error(net, rows_of_w, rows), rows)
    name = "published algorithm"
    yield Method(name, lambda z: published(net.plain, z, k, rows_of_w), len(rows_of_w), PUBLISHED_BATCH)
    again = lambda z: solvers.projection(f, z, k, rows_of_w, chunk)  # noqa: E731
    yield Method("projection (the same, ours)", again, len(rows_of_w), batch)

    def dense(differentiate: Callable[..., Callable], z: Tensor) -> Tensor:
        function = lambda x: net.plain(x[None]).flatten()  # noqa: E731
        return torch.stack([torch.linalg.svdvals(differentiate(function)(row))[:k] for row in z])

    yield Method("torch.func.jacfwd", lambda z: dense(torch.func.jacfwd, z), dim, 1, few=True)
    some = lambda x: net.plain(x[None]).flatten()[:REVERSE_ROWS]  # noqa: E731
    starred = {"scale": outputs / REVERSE_ROWS, "starred": True}
    yield Method("torch.func.jacrev*", lambda z: torch.func.jacrev(some)(z[0]), outputs, 1, **starred)
    slow = lambda z: torch.autograd.functional.jacobian(some, z[0])  # noqa: E731
    yield Method("torch.autograd.functional.jacobian*", slow, outputs, 1, **starred)


def _automatic(net: Network) -> Method:
    """What `magnet compute --solver auto --precision auto --tolerance 0.35` takes here."""
    spec = computing.volume_spec(
        net.generators["float32"], top_k=TOP_K[net.name], solver="auto", precision="auto", tolerance=AUTO_TOLERANCE
    )
    found = solver_choice.resolve(lambda precision: (net.generators[precision], None), spec)
    chosen = found.measured["chosen"]
    products = next(row["products_per_latent"] for row in found.measured["verified_on"][::-1])
    g = net.generators[found.spec.precision]
    cut = plan_batches(g, found.spec.vectors)

    def solve(z: Tensor, row: int = 0) -> Tensor:
        latents = z.float().cpu().numpy()
        return torch.from_numpy(computing.values_at(g, latents, found.spec, net.cut, basis=found.basis, first_row=row))

    name = f"auto ({AUTO_TOLERANCE:g}): {chosen}"
    return Method(name, solve, products, cut.batch, found.spec.precision, by_row=True)


def _published_error(net: Network, rows_of_w: Tensor, rows: int) -> list[float]:
    """The published algorithm's own error on latents of its own, and half of it: what our solvers are sized for."""
    f, k = net.generators["float32"], TOP_K[net.name]
    parts = net.latents(5, rows).split(net.cut.batch)
    found = torch.cat([solvers.projection(f, z, k, rows_of_w, net.cut.chunk) for z in parts]).log().sum(dim=1)
    truth = torch.cat([solvers.exact(f, z, k, net.cut.chunk) for z in parts]).log().sum(dim=1)
    error = calibration.errors(found.cpu(), truth.cpu())[0]
    return [error, error / 2]


def _sketches(net: Network, tolerances: list[float], rows: int) -> Iterator[Method]:
    """Pilot and sketch, calibrated as `magnet compute` does."""
    k, dim, f = TOP_K[net.name], net.latent_dim, net.generators["float32"]
    parts = [net.latents(part, rows).split(net.cut.batch) for part in (1, 2)]
    grams = [torch.cat([solvers.gram(f, z, net.cut.chunk).cpu() for z in part]) for part in parts]
    basis = calibration.pilot_basis(grams[0])
    tests = solvers.test_matrices(dim, dim, 0, range(rows))
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
                yield _sized(candidate, net, precision, basis, f"{candidate} {precision} ({tolerance:.2g})")


def _sized(c: Candidate, net: Network, precision: str, basis: Tensor, label: str) -> Method:
    """A pilot or a sketch of a given size, its work cut as magnet cuts it."""
    f, k = net.generators[precision], TOP_K[net.name]
    cut = plan_batches(f, c.size)
    strongest = basis[:, : c.size].to(net.device)

    def pilot(z: Tensor, _row: int = 0) -> Tensor:
        return solvers.pilot(f, z, k, strongest, sweep=c.sweep, chunk_size=cut.chunk)

    def sketch(z: Tensor, row: int = 0) -> Tensor:
        tests = solvers.test_matrices(net.latent_dim, c.size, 1, range(row, row + len(z))).to(net.device)
        return solvers.sketch(f, z, k, tests, power=c.power, chunk_size=cut.chunk)

    solve = pilot if c.solver == "pilot" else sketch
    return Method(label, solve, c.products, cut.batch, precision, by_row=True)


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


def convolution_share(net: Network, peak: float) -> float | None:
    """Share of the peak that the convolutions reach alone, on as many vectors as a solver pushes at a time."""
    generator, calls = net.generators["float32"], []

    def watch(module: nn.Module, inputs: tuple, _output: object) -> None:
        calls.append((module, inputs[0]))

    layers = [m for m in generator.module.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    if not layers:
        return None
    hooks = [layer.register_forward_hook(watch) for layer in layers]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        generator(net.latents(0, net.cut.batch * (net.cut.chunk or net.latent_dim)))
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        work = sum(sorted(seconds(lambda m=m, x=x: m(x), net.device) for _ in range(5))[2] for m, x in calls)
    return counter.get_total_flops() / work / peak


def _working_set(work: Callable[[], object], device: torch.device) -> float:
    """MiB that a call needs above what was held before it: on the device's own memory where it is a GPU."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    ctypes.CDLL(None).malloc_trim(0)  # what others freed would be used again, and not be seen
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
    every = [
        m
        for m in methods(net, arguments.tolerances, arguments.rows, auto=not arguments.no_auto)
        if arguments.methods in m.name
    ]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.generators["float32"](net.latents(0, 1))
    flops = counter.get_total_flops()
    times: dict[str, list[float]] = {m.name: [] for m in every}
    memory: dict[str, float] = {}
    peaks = []
    for repeat in range(1 + arguments.repeats):
        peaks.append(peak_flops(device))
        for method in tuple(every):
            z = net.latents(3, method.batch, method.precision)
            work = lambda m=method, x=z: m.solve(x)  # noqa: E731
            try:
                if repeat:
                    if not method.starred:
                        work()  # others have been at the caches since its last turn
                    times[method.name].append(seconds(work, device) * method.scale / method.batch)
                else:
                    memory[method.name] = _working_set(work, device)
            except torch.OutOfMemoryError:  # jacfwd has no chunks; its row is left out
                every.remove(method)
        say(f"{name}: repeat {repeat} of {arguments.repeats}")
    peak = sorted(peaks)[len(peaks) // 2]
    share = convolution_share(net, peak)
    best = net.generators["float64"]
    truth_method = Method("truth", lambda z: solvers.exact(best, z, TOP_K[name], net.cut.chunk), 0, net.cut.batch)
    truth = values(truth_method, net.latents(4, arguments.rows, "float64"))
    middle = {n: sorted(t)[len(t) // 2] for n, t in times.items() if t}
    base = middle.get("published algorithm")
    rows = []
    for method in every:
        error = None
        if not method.starred:
            count = min(FEW, arguments.rows) if method.few else arguments.rows
            found = values(method, net.latents(4, arguments.rows, method.precision)[:count])
            error = calibration.errors(found, truth[:count])[0]
        row = {"method": method.name, "seconds_per_latent": middle[method.name], "rms_error": error}
        row |= {"times_faster": base and base / middle[method.name]}
        row |= {"products_per_latent": method.products}
        row |= {"share_of_peak": method.products * flops / middle[method.name] / peak}
        row |= {"peak_mib": memory[method.name]}
        rows.append(row)
        say(f"{name}: {row}")
    about = {"network": name, "top_k": TOP_K[name], "flops": flops, "peak_flops": peak}
    return about | {"convolution_share": share, "rows": rows}


def show(result: dict) -> None:
    """The table of one network."""
    k, peak = result["top_k"], result["peak_flops"] / 1e9
    say(f"\n**{result['network']}**, k = {k}; matrix-product peak {peak:.0f} GFLOP/s\n", sys.stdout)
    say("| method | s/latent | × published | rms error, nats | products | share of peak | peak MiB |", sys.stdout)
    say("|---|---|---|---|---|---|---|", sys.stdout)
    for row in result["rows"]:
        error = "" if row["rms_error"] is None else f"{row['rms_error']:.2g}"
        cells = [row["method"], f"{row['seconds_per_latent']:.4g}", f"{row['times_faster'] or float('nan'):.2f}", error]
        cells += [f"{row['products_per_latent']:,}", f"{row['share_of_peak']:.2f}", f"{row['peak_mib']:.0f}"]
        say(f"| {' | '.join(cells)} |", sys.stdout)
    if result["convolution_share"]:
        say(f"\nIts convolutions alone reach {result['convolution_share']:.2f} of the peak.", sys.stdout)


def say(text: str, stream: object = sys.stderr) -> None:
    """Print a line."""
    print(text, file=stream, flush=True)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(TOP_K), choices=list(TOP_K))
    parser.add_argument("--methods", default="", help="only methods whose name holds this")
    parser.add_argument(
        "--tolerances", nargs="+", type=float, help="default: the published algorithm's own error, and half of it"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=32, help="latents of each calibration set and of the errors")
    parser.add_argument("--no-auto", action="store_true", help="leave out what --solver auto takes: choosing is dear")
    parser.add_argument("--device", default=models.default_device())
    parser.add_argument("--quick", action="store_true", help="one repeat, eight latents")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    # a GPU's convolutions are TF32 unless told otherwise: float32 means float32 here
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if arguments.quick:
        arguments.repeats, arguments.rows = 1, 8
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
