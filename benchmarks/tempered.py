"""Effective draws for each Jacobian spent: tempered against re-weighting with as many Jacobians.

    python benchmarks/tempered.py mnist
    python benchmarks/tempered.py dcgan-digiface --top-k 30 --volume faces.vol --rhos 1 --particles 64 --kept faces

What is done is kept in the folder of --kept, one file a run, and not done twice: a command that was stopped goes on.

Effective draws are V / MSE (docs/method.md#effective-draws): V the variance of log-volume under the target, MSE that of
a run's mean log-volume against a reference, over independent runs; so a biased sampler scores little. The reference is
the mean of two long chains at that rho, one started from the prior and one from the top 1 % of the volume's rows; where
they differ by more than 0.2 √V, no figure is given. Times are those of one of --jobs processes beside the others, each
with its share of the cores.
"""

import argparse
import io
import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from magnet_cli import index, models
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.files import atomic
from magnet_cli.files.progress import SILENT
from magnet_cli.maths.jacobian import PRECISIONS
from magnet_cli.sampling import select, tempered
from magnet_cli.sampling.tempered import moves
from magnet_cli.sampling.tempered.island import Island, Measurements, Particles
from magnet_cli.volume import Volume

AGREED = 0.2  # of √V
REFITTED = 4  # sweeps of a reference chain, in its first half
SAVED = 8  # sweeps between saves
STREAM = 0x62656E63  # keeps the random numbers of references and re-weighting apart


@dataclass(frozen=True)
class Effective:
    """What independent runs are worth.

    Attributes:
        draws: V / MSE: as many independent draws from the target would be as near to the reference.
        bias: of the mean of their means.
        deviation: between their means.
    """

    draws: float
    bias: float
    deviation: float


def effective(means: np.ndarray, reference: float, variance: float) -> Effective:
    """Effective draws of a run, from the mean log-volumes [R] of R runs; R ≥ 8."""
    error = np.asarray(means) - reference
    return Effective(variance / float(np.mean(error**2)), float(error.mean()), float(np.std(means, ddof=1)))


def advantage(ours: np.ndarray, theirs: np.ndarray, reference: float) -> tuple[float, float, float]:
    """Effective draws of our runs [R] over those of others [S], and a 95 % interval.

    Of the log of the ratio: the delete-one jackknife over the runs of each, Student's t.
    """

    def log_error(means: np.ndarray) -> tuple[float, float]:
        squares = (np.asarray(means) - reference) ** 2
        left = np.log((squares.sum() - squares) / (len(squares) - 1))
        return math.log(squares.mean()), (len(left) - 1) * float(left.var())

    (mine, my_variance), (other, other_variance) = log_error(ours), log_error(theirs)
    reach = stats.t.ppf(0.975, min(len(ours), len(theirs)) - 1) * math.sqrt(my_variance + other_variance)
    return math.exp(other - mine), math.exp(other - mine - reach), math.exp(other - mine + reach)


@dataclass(frozen=True)
class Chain:
    """A reference chain.

    Attributes:
        mean: of log-volume.
        variance: of log-volume.
        error: standard error of the mean, by the walkers, each of which is a chain of its own.
        jacobians: spent.
        path: mean log-volume of the walkers after each sweep, from the first on.
    """

    mean: float
    variance: float
    error: float
    jacobians: int
    path: list[float]


def chain(
    measure: tempered.Measure, start: np.ndarray, rho: float, jacobians: int, seed: int, moves: int, state: Path | None
) -> Chain:
    """Walkers at one rho from given latents [W, D], until so many Jacobians are spent.

    In the first half what moves them is fitted anew every four sweeps, and that half is dropped; then it is frozen.
    What stands in the file `state` is gone on from, with what moves the walkers fitted anew.
    """
    known, particles, age, width, kept, path = Measurements(measure), None, 0, 0.5, [], []
    if state and state.exists():
        with np.load(state) as there:
            known.add(0, there["latents"], None, there["log_volume"])
            known.ages, particles, kept = there["ages"], there["particles"], [*there["kept"]]
            age, width, path = int(there["age"]), float(there["width"]), there["path"].tolist()
    rng, crowd = np.random.default_rng([STREAM, seed, len(path)]), None
    particles = known.add(0, start, None) if particles is None else particles
    while len(known.latents) < jacobians:
        burning = len(known.latents) < jacobians / 2
        if crowd is None or (burning and len(crowd.walked) == REFITTED):
            age += 1
            width = width if crowd is None else float(np.clip(width * math.exp(2 * (crowd.walked[-1] - 0.3)), 0.02, 1))
            crowd = Particles(known, particles, rho, age)
        crowd.sweep(rng, width, moves)
        particles = crowd.places
        path.append(float(known.log_volume[particles].mean()))
        if not burning:
            kept.append(known.log_volume[particles])
        if len(path) % SAVED == 0:
            print(f"  chain {seed}: {len(known.latents)} Jacobians, mean {path[-1]:.2f}", flush=True)
            if state:
                found = {"latents": known.latents, "log_volume": known.log_volume, "ages": known.ages}
                save(state, found | {"particles": particles, "kept": kept, "path": path, "age": age, "width": width})
    values = np.stack(kept)
    error = values.mean(axis=0).std(ddof=1) / math.sqrt(values.shape[1])
    return Chain(float(values.mean()), float(values.var()), float(error), len(known.latents), path)


def save(path: Path, arrays: dict[str, object]) -> None:
    """Write arrays as NPZ, in an older file's place."""
    buffer = io.BytesIO()
    np.savez(buffer, **{name: np.asarray(value) for name, value in arrays.items()})
    atomic.publish(path, buffer.getvalue())


def reweighted(log_volume: np.ndarray, rho: float) -> float:
    """Mean log-volume under the weights of rows from the prior."""
    scores = moves.scores(rho, log_volume)
    weights = np.exp(scores - scores.max())
    return float(weights @ np.where(weights > 0, log_volume, 0) / weights.sum())


class Bench:
    """What a process needs: the generator's measure, and the rows of a volume.

    Args:
        args: of the command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        checkpoint = Checkpoint.find(args.generator)
        request = select.VolumeRequest(top_k=args.top_k, volume=args.volume)
        volume = select.find_volume(checkpoint, request, SILENT)
        spec = volume.spec
        generator = models.load(checkpoint, device=models.default_device(), dtype=PRECISIONS[spec.precision])
        top_k = args.top_k or index.default_top_k(spec.top_k, spec.latent_dim)
        self.measure, self.moves = tempered.Measure(volume, generator, top_k), tempered.num_moves(volume)
        rows = [shard for _, shard in Volume.open(args.pool or volume.path).rows()]
        values = np.concatenate([index.log_volume(shard.singular_values, top_k) for shard in rows])
        self.top = np.concatenate([shard.latents for shard in rows])[np.argsort(values)[-max(1, len(values) // 100) :]]
        self.about = f"{args.generator}, k = {top_k}, solver {spec.solver} {spec.solver_size or ''}; torch "
        self.about += f"{torch.__version__}, {args.jobs} processes, threads of each {torch.get_num_threads()}"
        named = ("generator", "particles", "sweeps", "rounds", "walkers", "seed")
        self.settings = {name: getattr(args, name) for name in named}
        self.settings |= {"volume": volume.fingerprint, "top_k": top_k, "moves": args.moves or self.moves}
        self.settings |= {"threads": torch.get_num_threads()}

    def island(self, rho: float, number: int, _jacobians: int) -> dict:
        """One run of the sampler."""
        args = self.args
        asked = {"sweeps": args.sweeps, "rounds": args.rounds, "moves": args.moves or self.moves}
        schedule = tempered.Schedule(rho, args.particles, args.seed, **asked)
        steps = list(Island(number, schedule, self.measure, []).advance())
        end = np.concatenate([step.log_volume for step in steps])[steps[-1].particles]
        spent = sum(len(step.latents) for step in steps)
        return {"mean": float(end.mean()), "sd": float(end.std()), "jacobians": spent}

    def reweighted(self, rho: float, number: int, jacobians: int) -> dict:
        """As many rows from the prior, re-weighted."""
        rng = np.random.default_rng([STREAM, self.args.seed, number])
        return {"mean": reweighted(self.measure.log_volume(self.measure.prior(rng, jacobians, 0)[0]), rho)}

    def chain(self, rho: float, number: int, jacobians: int) -> dict:
        """One reference: chain 0 starts from the prior, 1 from the largest rows."""
        rng, walkers = np.random.default_rng([STREAM, self.args.seed]), self.args.walkers
        starts = (self.measure.prior(rng, walkers, 0)[0], self.top[rng.integers(0, len(self.top), walkers)])
        state = self.args.kept and self.args.kept / f"rho-{rho:g}-chain-{number}.npz"
        asked = self.args.longer * jacobians, number, self.args.moves or self.moves, state
        return asdict(chain(self.measure, starts[number], rho, *asked))


_bench: Bench | None = None


def threads(args: argparse.Namespace) -> int:
    """The share of the cores that a process has."""
    return max(1, len(os.sched_getaffinity(0)) // args.jobs)


def begin(args: argparse.Namespace) -> None:
    """Make a process ready."""
    global _bench  # noqa: PLW0603
    torch.set_num_threads(threads(args))
    _bench = Bench(args)


def about() -> str:
    """What a process measures, in words."""
    return _bench.about


def one(kind: str, rho: float, number: int, jacobians: int) -> dict:
    """One piece of the work, unless it is kept."""
    path = _bench.args.kept and _bench.args.kept / f"rho-{rho:g}-{kind}-{number}.json"
    settings = _bench.settings
    if path and path.exists():
        kept = json.loads(path.read_text())
        if kept["settings"] != settings:
            raise SystemExit(f"{path} was made with other settings, {kept['settings']}: pass another --kept")
        if kept["jacobians_asked"] == jacobians:
            return kept
    start = time.perf_counter()
    found = getattr(_bench, kind)(rho, number, jacobians)
    found |= {"seconds": time.perf_counter() - start}
    print(f"  {kind} {number}: {found}", flush=True)
    if path:
        kept = found | {"jacobians_asked": jacobians, "settings": settings}
        atomic.publish(path, json.dumps(kept, indent=1).encode())
    return found


def compare(pool: ProcessPoolExecutor, rho: float, args: argparse.Namespace) -> dict:
    """The figures at one rho."""

    def several(kind: str, count: int, jacobians: int = 0) -> Callable[[], list[dict]]:
        futures = [pool.submit(one, kind, rho, number, jacobians) for number in range(count)]
        return lambda: [future.result() for future in futures]

    islands = several("island", args.runs)()
    jacobians = round(np.mean([each["jacobians"] for each in islands]))
    rows, chains = several("reweighted", args.runs, jacobians), several("chain", 2, jacobians)
    rows, chains = rows(), chains()
    reference, variance = (float(np.mean([c[name] for c in chains])) for name in ("mean", "variance"))
    agreed = abs(chains[0]["mean"] - chains[1]["mean"]) <= AGREED * math.sqrt(variance)
    found = {"rho": rho, "jacobians": jacobians, "variance": variance, "reference": reference, "agreed": agreed}
    found |= {"chains": chains, "islands": islands, "rows": rows}
    found |= {
        "seconds": np.mean([e["seconds"] for e in islands]),
        "reweighted_seconds": np.mean([e["seconds"] for e in rows]),
    }
    if agreed:
        ours, theirs = (np.array([each["mean"] for each in pieces]) for pieces in (islands, rows))
        for name, means in (("tempered", ours), ("reweighted", theirs)):
            found[name] = asdict(effective(means, reference, variance))
        found["ratio"] = advantage(ours, theirs, reference)
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator")
    parser.add_argument("--volume", type=Path, help="its volume: the solver, and the pool; default: as magnet finds it")
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--rhos", type=float, nargs="+", default=[0.1, 0.3, 0.5, 1.0])
    parser.add_argument("--particles", type=int, default=128)
    parser.add_argument("--sweeps", type=int, default=tempered.Schedule.sweeps)
    parser.add_argument("--rounds", type=int, default=tempered.Schedule.rounds)
    parser.add_argument("--moves", type=int, help="of a walk; default: as magnet has it")
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--walkers", type=int, default=64, help="of a reference chain")
    parser.add_argument("--longer", type=int, default=20, help="Jacobians of a reference chain, in those of a run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pool", type=Path, help="another volume of the generator, whose top 1 %% starts a chain")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--kept", type=Path, help="folder of what is done; default: nothing is kept")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.kept:
        args.kept.mkdir(parents=True, exist_ok=True)
    found, spawn = [], multiprocessing.get_context("spawn")
    os.environ["OPENBLAS_NUM_THREADS"] = str(threads(args))  # read where numpy is imported: in the processes
    with ProcessPoolExecutor(args.jobs, spawn, begin, (args,)) as pool:
        print(f"{pool.submit(about).result()}, {datetime.now(UTC):%Y-%m-%d}\n", flush=True)
        for rho in args.rhos:
            found.append(compare(pool, rho, args))
            if args.json:
                args.json.write_text(json.dumps({"args": vars(args), "rows": found}, indent=1, default=str))
    print(table(found))


def table(found: list[dict]) -> str:
    """The figures as a table, one row a rho and method."""
    lines = [
        "| rho | Jacobians a run | V | references | method | bias | deviation | effective draws | each Jacobian | s |"
    ]
    lines.append("|" + "---|" * 10)
    for row in found:
        chains = " / ".join(f"{c['mean']:.2f} ± {c['error']:.2f}" for c in row["chains"])
        for name, seconds in (("tempered", row["seconds"]), ("reweighted", row["reweighted_seconds"])):
            head = f"| {row['rho']:g} | {row['jacobians']} | {row['variance']:.2f} | {chains} | {name} "
            if not row["agreed"]:
                lines.append(f"{head}| no figure: the references differ | | | | {seconds:.1f} |")
                continue
            it = row[name]
            each = it["draws"] / row["jacobians"]
            spread = f"{it['bias']:+.2f} | {it['deviation']:.2f}"
            lines.append(f"{head}| {spread} | {it['draws']:.3g} | {each:.2g} | {seconds:.1f} |")
        if row["agreed"]:
            ratio = "{:.3g} ({:.3g} to {:.3g})".format(*row["ratio"])
            lines.append(f"| {row['rho']:g} | | | | ratio | | | {ratio} | | |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
