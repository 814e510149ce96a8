"""Effective draws for each Jacobian spent: tempered against re-weighting with as many Jacobians.

    python benchmarks/tempered.py mnist
    python benchmarks/tempered.py dcgan-digiface --top-k 30 --volume faces.vol --rhos 1 --particles 48

Effective draws are V / MSE (METHOD): V the variance of log-volume under the target, MSE that of a run's mean log-volume
against a reference, over independent runs; so a biased sampler scores little. The reference is the mean of two long
chains at that rho, one started from the prior and one from the top 1 % of the volume's rows; where they differ by more
than 0.2 √V, no figure is given. Times hold for the machine and the load at the time.
"""

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from magnet_cli import index, tempered
from magnet_cli.commands import lookup
from magnet_cli.tempered import moves
from magnet_cli.tempered.island import Crowd, Island, Known
from magnet_cli.volume import Volume

AGREED = 0.2  # of √V
BURNT = 1 / 3  # of a reference chain's Jacobians
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


@dataclass(frozen=True)
class Chain:
    """A reference chain.

    Attributes:
        mean: of log-volume.
        variance: of log-volume.
        error: standard error of the mean, by the walkers, each of which is a chain of its own.
        jacobians: spent.
        accepted: share of the walks' ends that were.
    """

    mean: float
    variance: float
    error: float
    jacobians: int
    accepted: float


def chain(measure: tempered.Measure, start: np.ndarray, rho: float, jacobians: int, seed: int) -> Chain:
    """Walkers at one rho from given latents [W, D], until so many Jacobians are spent.

    In the first third what moves them is fitted anew every four sweeps, and that third is dropped; then it is frozen.
    """
    rng, known, age, width = np.random.default_rng([STREAM, seed]), Known(measure), 0, 0.5
    particles, crowd, kept = known.add(0, start, None), None, []
    while len(known.latents) < jacobians:
        burning = len(known.latents) < BURNT * jacobians
        if crowd is None or (burning and len(crowd.walked) == 4):
            age += 1
            width = width if crowd is None else float(np.clip(width * math.exp(2 * (crowd.walked[-1] - 0.3)), 0.02, 1))
            crowd = Crowd(known, particles, rho, age)
        crowd.sweep(rng, width, 24)
        particles = crowd.particles
        if not burning:
            kept.append(known.log_volume[particles])
    values = np.stack(kept)
    error = values.mean(axis=0).std(ddof=1) / math.sqrt(values.shape[1])
    accepted = float(np.mean(crowd.accepted))
    return Chain(float(values.mean()), float(values.var()), float(error), len(known.latents), accepted)


def reweighted(log_volume: np.ndarray, rho: float) -> float:
    """Mean log-volume under the weights of rows from the prior."""
    scores = moves.scores(rho, log_volume)
    weights = np.exp(scores - scores.max())
    return float(weights @ np.where(weights > 0, log_volume, 0) / weights.sum())


def compare(
    measure: tempered.Measure, pool: tuple[np.ndarray, np.ndarray], rho: float, args: argparse.Namespace
) -> dict:
    """The figures at one rho."""
    schedule = tempered.Schedule(rho, args.particles, args.seed, sweeps=args.sweeps, rounds=args.rounds)
    ends, spent, start = [], [], time.perf_counter()
    for number in range(args.runs):
        island = Island(number, schedule, measure, [])
        steps = list(island.advance())
        spent.append(sum(len(step.latents) for step in steps))
        ends.append(np.concatenate([step.log_volume for step in steps])[steps[-1].particles])
        print(f"  run {number}: {spent[-1]} Jacobians, mean {ends[-1].mean():.2f}, sd {ends[-1].std():.2f}", flush=True)
    seconds = (time.perf_counter() - start) / args.runs
    jacobians = round(np.mean(spent))
    rng = np.random.default_rng([STREAM, args.seed])
    start = time.perf_counter()
    rows = [measure.log_volume(measure.prior(rng, jacobians, 0)[0]) for _ in range(args.runs)]
    reweighted_seconds = (time.perf_counter() - start) / args.runs
    latents, values = pool
    top = latents[np.argsort(values)[-max(1, len(values) // 100) :]]
    starts = (measure.prior(rng, args.walkers, 0)[0], top[rng.integers(0, len(top), args.walkers)])
    chains = [chain(measure, each, rho, args.longer * jacobians, i) for i, each in enumerate(starts)]
    reference, variance = np.mean([c.mean for c in chains]), float(np.mean([c.variance for c in chains]))
    agreed = abs(chains[0].mean - chains[1].mean) <= AGREED * math.sqrt(variance)
    found = {"rho": rho, "jacobians": jacobians, "variance": variance, "reference": float(reference), "agreed": agreed}
    found |= {"chains": [asdict(c) for c in chains], "seconds": seconds, "reweighted_seconds": reweighted_seconds}
    found |= {
        "tempered_means": [float(end.mean()) for end in ends],
        "tempered_sd": float(np.mean([e.std() for e in ends])),
    }
    found |= {"reweighted_means": [reweighted(each, rho) for each in rows]}
    if agreed:
        for name in ("tempered", "reweighted"):
            found[name] = asdict(effective(np.array(found[f"{name}_means"]), reference, variance))
        found["ratio"] = found["tempered"]["draws"] / found["reweighted"]["draws"]
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
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--walkers", type=int, default=64, help="of a reference chain")
    parser.add_argument("--longer", type=int, default=20, help="Jacobians of a reference chain, in those of a run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pool", type=Path, help="another volume of the generator, whose top 1 %% starts a chain")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    checkpoint = lookup.source(args.generator)
    wanted = lookup.Wanted(args.top_k, "z", "pixel", 1.0, None, None)
    volume = lookup.volume(checkpoint, lookup.Console(), args.volume, wanted)
    generator = lookup_generator(checkpoint, volume)
    top_k = args.top_k or index.default_top_k(volume.spec.top_k, volume.spec.latent_dim)
    measure = tempered.Measure(volume, generator, top_k)
    rows = [shard for _, shard in Volume.open(args.pool or volume.path).rows()]
    values = np.concatenate([index.log_volume(shard.singular_values, top_k) for shard in rows])
    pool = (np.concatenate([shard.latents for shard in rows]), values)
    about = f"{args.generator}, k = {top_k}, solver {volume.spec.solver} {volume.spec.solver_size or ''}"
    print(f"{about}; torch {torch.__version__}, threads {torch.get_num_threads()}, {datetime.now(UTC):%Y-%m-%d}\n")
    found = []
    for rho in args.rhos:
        found.append(compare(measure, pool, rho, args))
        if args.json:
            args.json.write_text(json.dumps({"about": about, "args": vars(args), "rows": found}, indent=1, default=str))
    print(table(found))


def lookup_generator(checkpoint: object, volume: Volume) -> object:
    """The generator in the volume's precision, on the default device."""
    from magnet_cli import generators
    from magnet_cli.jacobian import PRECISIONS

    return generators.load(checkpoint, generators.default_device(), PRECISIONS[volume.spec.precision])


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
            lines.append(f"| {row['rho']:g} | | | | ratio | | | {row['ratio']:.3g} | | |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
