"""magnet sample --method tempered: from the prior to the polarity, then a sample like any other.

Owns what is said of it: its cost before, how far it is to be trusted after.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from magnet_cli import console as console_

if TYPE_CHECKING:
    from magnet_cli import tempered
    from magnet_cli.commands.lookup import Source
    from magnet_cli.fresh import FreshDraw
    from magnet_cli.generators import Generator
    from magnet_cli.image_models import ImageModel
    from magnet_cli.index import Index
    from magnet_cli.sample import SampleSpec
    from magnet_cli.volume import Volume


@dataclass(frozen=True)
class Asked:
    """What the command line asks for.

    Attributes:
        checkpoint: of the generator.
        volume: whose function and solver are used.
        index: of it.
        spec: of the sample.
        folder: of the sample.
        output: as typed.
        device: as typed.
        settings: of the generator.
        batch_size: latents at a time.
    """

    checkpoint: "Source"
    volume: "Volume"
    index: "Index"
    spec: "SampleSpec"
    folder: Path
    output: str
    device: str | None
    settings: tuple[tuple[str, object], ...]
    batch_size: int | None


def run(asked: Asked, console: console_.Console, start: float, *, dry_run: bool, force: bool) -> None:
    """Temper what is missing, and write the sample.

    Raises:
        MagnetError: as `tempered.advance` and `sample.write`.
    """
    from magnet_cli import generators, sample, tempered
    from magnet_cli.artifacts import cache

    spec, folder = asked.spec, asked.folder
    schedule = tempered.Schedule(spec.rho, spec.particles, spec.seed)
    ours = tempered.TemperedSpec.of(asked.volume, spec.top_k, schedule, spec.label)
    kept = tempered.Run(cache.home() / "tempered" / f"{ours.generator}-{ours.fingerprint[:12]}", ours)
    islands = tempered.num_islands(spec.n, spec.particles)
    done = None if force else sample.finished(folder, spec)
    if done and not dry_run:
        console.note(f"{folder} already holds this sample")
        console.result(done, str(folder))
        return
    report = _report(asked, kept, islands)
    missing = tempered.left(kept, islands)
    if missing:
        generator, model = _load(asked)
        measure = tempered.Measure(asked.volume, generator, spec.top_k, output=model, label=spec.label)
        expected = tempered.cost(schedule, len(missing), _spread(asked.index), measure)
        report |= {"expected_jacobians": expected.jacobians, "expected_seconds": round(expected.seconds, 1)}
        console.note(
            f"{len(missing)} islands of {spec.particles} latents: about {expected.jacobians:,} Jacobians and "
            f"{expected.evaluations:,} evaluations, about {_minutes(expected.seconds)} here; kept in {kept.path}"
        )
    if dry_run:
        console.note(f"{spec.n:,} images would be written to {folder}; nothing was done")
        console.result(report, str(folder))
        return
    if missing:
        _follow(kept, measure, islands, expected, console)
    found = tempered.outcome(kept, islands, spec.n)
    report |= _tell(found, spec, console)
    drawn = _drawn(found, kept, report)
    loaded = generators.load(asked.checkpoint, asked.device or generators.default_device(), **dict(asked.settings))
    if force:
        sample.discard(folder)
    with console.progress("rendering", spec.n, "images") as advance:
        for images in sample.write(folder, spec, drawn, asked.volume, loaded, asked.batch_size):
            advance(images)
    report["seconds"] = round(time.monotonic() - start, 3)
    sample.finish(folder, spec, drawn, asked.volume, ["magnet", *sys.argv[1:]], report)
    console.result(report, str(folder))
    console.hint(f"magnet info {folder} --check")


def _load(asked: Asked) -> tuple["Generator", "ImageModel | None"]:
    """Generator and image model in the volume's precision, once they are known to be the volume's.

    Raises:
        SpecError: the volume is of an image model that is not named.
        GeneratorError: they are not.
    """
    from magnet_cli import compute, generators, workers
    from magnet_cli.errors import SpecError

    spec, device = asked.volume.spec, asked.device or generators.default_device()
    own = spec.output in generators.OUTPUTS
    if not own and asked.output in generators.OUTPUTS:
        message = f"{asked.volume.path} is of the output {spec.output}, and --output {asked.output} is asked for"
        raise SpecError(message, f"pass --output {spec.output}, as it was computed with")
    output = spec.output if own else asked.output
    plain = workers.load(asked.checkpoint, output, device, "float32", asked.settings)
    compute.check_settings(asked.volume, plain[0])
    compute.check_unchanged(asked.volume, *plain)
    if plain[1] and plain[1].sha256 != spec.output_sha256:
        message = f"{asked.volume.path} is of an image model {spec.output} with other weights than {output} has"
        raise SpecError(message, "pass --output with the model that it was computed with")
    if spec.precision == "float32":
        return plain
    return workers.load(asked.checkpoint, output, device, spec.precision, asked.settings)


def _spread(index: "Index") -> float:
    """Standard deviation of log-volume in a volume, in nats."""
    return float(index.log_volume[index.above_floor].std())


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"  # noqa: PLR2004


def _follow(
    kept: "tempered.Run",
    measure: "tempered.Measure",
    islands: int,
    expected: "tempered.Cost",
    console: console_.Console,
) -> None:
    """Take the islands to the end, with progress; after Ctrl-C say what is safe."""
    from magnet_cli import tempered

    try:
        with console.progress("tempering", expected.jacobians, "Jacobians") as advance:
            for _, step in tempered.advance(kept, measure, islands):
                advance(len(step.latents))
    except KeyboardInterrupt:
        safe = f"what was computed is in {kept.path}"
        console_.show_stopped(f"stopped: {safe}; the same command goes on from there")
        raise


def _report(asked: Asked, kept: "tempered.Run", islands: int) -> dict:
    """What is known of the sample before it is made."""
    from magnet_cli import index

    spec = asked.spec
    report = {"sample": str(asked.folder), "n": spec.n, "images": spec.n, "rho": spec.rho, "top_k": spec.top_k}
    report |= {"method": spec.method, "particles": spec.particles, "islands": islands, "tempered": str(kept.path)}
    report |= {"replace": False, "pool": None, "unique_rows": spec.n, "effective_size": None, "displaced_share": 0.0}
    return report | {"target": index.target(asked.index, spec.rho, asked.volume.spec), "seconds": None}


def _tell(found: "tempered.Outcome", spec: "SampleSpec", console: console_.Console) -> dict:
    """What the outcome says of itself: fields for the report, and in words."""
    last = found.r_hat[-1][1] if found.r_hat else 1.0
    temperatures = max(len(each) for each in found.schedule)
    console.note(
        f"rho {spec.rho:g}, top_k {spec.top_k}: {found.jacobians:,} Jacobians, {temperatures} temperatures, log-volume "
        f"{found.mean:.2f} ± {found.error:.2f}, R-hat {last:.3f} across {len(found.schedule)} islands"
    )
    if not found.converged:
        upto = f"the largest rho that is: {found.converged_rho:.3g}" if found.converged_rho else "at no rho above 0"
        console.warning(
            f"not converged at rho={spec.rho:g} (R-hat {last:.3f} across islands; 1.05 is the most that is taken for "
            f"converged); {upto}. More --particles help"
        )
    fields = {"r_hat": last, "converged": found.converged, "converged_rho": found.converged_rho}
    return fields | {"jacobians": found.jacobians, "mean_log_volume": found.mean, "error_log_volume": found.error}


def _drawn(found: "tempered.Outcome", kept: "tempered.Run", report: dict) -> "FreshDraw":
    from dataclasses import asdict

    from magnet_cli.fresh import FreshDraw

    words = f"tempered, {len(found.schedule)} islands of {kept.spec.schedule.particles}, R-hat {report['r_hat']:.3f}"
    origin = {"words": words, "path": str(kept.path), "fingerprint": kept.spec.fingerprint, "spec": asdict(kept.spec)}
    origin |= {"schedule": found.schedule, "accepted": found.accepted, "r_hat": [list(pair) for pair in found.r_hat]}
    origin |= {name: report[name] for name in ("converged", "converged_rho", "jacobians")}
    return FreshDraw(found.latents, found.log_volume, found.labels, origin)
