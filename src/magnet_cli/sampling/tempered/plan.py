"""From a volume to new latents at a polarity: the stored run, its cost before, how far to trust it after."""

import dataclasses
from collections.abc import Generator as Steps
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from magnet_cli import computing, models
from magnet_cli.catalog import cache
from magnet_cli.computing import loading
from magnet_cli.errors import SpecError
from magnet_cli.files.progress import Messages
from magnet_cli.index import Index
from magnet_cli.models import Generator
from magnet_cli.models.image_models import ImageModel
from magnet_cli.sampling.sample_folder import Contents, SampleSpec
from magnet_cli.sampling.tempered import temper
from magnet_cli.sampling.tempered.measure import Measure
from magnet_cli.sampling.tempered.run import Schedule, TemperedRun, TemperedSpec
from magnet_cli.volume import Volume

if TYPE_CHECKING:
    from magnet_cli.sampling.select import Source


@dataclass(frozen=True)
class TemperedPlan:
    """New latents that are to be made; `report` holds fields of the report that no latent is needed for.

    `cost` is the number of Jacobians still to be computed, about; `measure` is None where nothing is left to compute.
    """

    run: TemperedRun
    islands: int
    n: int
    report: dict
    cost: int = 0
    measure: Measure | None = None

    def steps(self) -> Steps[int, None, None]:
        """Take the islands to their end, yielding numbers of Jacobians that became safe on disk."""
        if self.measure is not None:
            for _, step in temper.advance(self.run, self.measure, self.islands):
                yield len(step.latents)


def plan(
    source: "Source",
    volume: Volume,
    index: Index,
    spec: SampleSpec,
    output: str,
    device: str | None,
    settings: dict[str, object],
    messages: Messages,
    *,
    needed: bool,
) -> TemperedPlan:
    """Look up what is stored of a tempered run, and estimate what the rest costs; load nothing unless needed."""
    schedule = Schedule(spec.rho, spec.particles, spec.seed, moves=temper.num_moves(volume))
    run_spec = TemperedSpec.of(volume, spec.top_k, schedule, spec.label)
    folder = cache.home() / "tempered" / f"{run_spec.generator}-{run_spec.fingerprint[:12]}"
    run, islands = TemperedRun(folder, run_spec), temper.num_islands(spec.n, spec.particles)
    report = {"particles": spec.particles, "islands": islands, "tempered": str(run.path)}
    report |= {"replace": False, "pool": None, "unique_rows": spec.n, "effective_size": None, "displaced_share": 0.0}
    missing = temper.left(run, islands) if needed else []
    if not missing:
        return TemperedPlan(run, islands, spec.n, report)
    generator, model = _load(source, volume, output, device or models.default_device(), settings)
    measure = Measure(volume, generator, spec.top_k, output=model, label=spec.label)
    spread = float(index.log_volume[index.above_floor].std())
    cost = temper.cost(schedule, len(missing), spread, measure)
    duration = f"{cost.seconds:.0f} s" if cost.seconds < 120 else f"{cost.seconds / 60:.0f} min"
    messages.note(
        f"{len(missing)} islands of {spec.particles} latents: about {cost.jacobians:,} Jacobians and "
        f"{cost.evaluations:,} evaluations, about {duration} here; kept in {run.path}"
    )
    expected = {"expected_jacobians": cost.jacobians, "expected_seconds": round(cost.seconds, 1)}
    return TemperedPlan(run, islands, spec.n, report | expected, cost.jacobians, measure)


def _load(
    source: "Source", volume: Volume, output: str, device: str, settings: dict[str, object]
) -> tuple[Generator, ImageModel | None]:
    """Load generator and image model in the volume's precision, after a check in float32 that they are the volume's."""
    spec = volume.spec
    own = spec.output in models.OUTPUTS
    if not own and output in models.OUTPUTS:
        raise SpecError(
            f"{volume.path} is of the output {spec.output}, and {output} is asked for",
            f"pass `output='{spec.output}'`, as it was computed with",
        )
    output = spec.output if own else output

    def load(precision: str) -> tuple[Generator, ImageModel | None]:
        if isinstance(source, Generator):
            return loading.load_again(source, output, precision)
        return computing.load(source, output, device, precision, tuple(settings.items()))

    generator, model = load("float32")
    computing.check_settings(volume, generator)
    computing.check_unchanged(volume, generator, model)
    if model and model.sha256 != spec.output_sha256:
        raise SpecError(
            f"{volume.path} is of an image model {spec.output} with other weights than {output} has",
            "pass `output` with the model that it was computed with",
        )
    return (generator, model) if spec.precision == "float32" else load(spec.precision)


def contents(plan: TemperedPlan, messages: Messages) -> tuple[Contents, dict]:
    """Return latents of islands at their end, and the fields of the report that say how far to trust them."""
    run = plan.run
    outcome, schedule = temper.outcome(run, plan.islands, plan.n), run.spec.schedule
    r_hat = outcome.r_hat[-1][1] if outcome.r_hat else 1.0
    temperatures = max(len(rhos) for rhos in outcome.schedule)
    messages.note(
        f"rho {schedule.rho:g}, top_k {run.spec.top_k}: {outcome.jacobians:,} Jacobians, {temperatures} temperatures, "
        f"log-volume {outcome.mean:.2f} ± {outcome.error:.2f}, R-hat {r_hat:.3f} across {len(outcome.schedule)} "
        "islands (a lag that all of them share is not in it: compare with twice the `particles`)"
    )
    if not outcome.converged:
        largest = f"the largest rho that is: {outcome.converged_rho:.3g}"
        messages.warning(
            f"not converged at rho={schedule.rho:g} (R-hat {r_hat:.3f} across islands; 1.05 is the most that is taken "
            f"for converged); {largest if outcome.converged_rho else 'at no rho above 0'}. More `particles` help"
        )
    figures = {"converged": outcome.converged, "converged_rho": outcome.converged_rho, "jacobians": outcome.jacobians}
    caption = f"tempered, {len(outcome.schedule)} islands of {schedule.particles}, R-hat {r_hat:.3f}"
    origin: dict[str, object] = {"words": caption, "path": str(run.path), "fingerprint": run.spec.fingerprint}
    origin |= {"spec": dataclasses.asdict(run.spec), "schedule": outcome.schedule, "accepted": outcome.accepted}
    origin |= {"r_hat": [list(pair) for pair in outcome.r_hat], **figures}
    made = Contents(
        latents=outcome.latents,
        labels=outcome.labels,
        log_volume=outcome.log_volume,
        rows=np.empty(0, np.int64),
        prior=np.zeros(plan.n, bool),
        figures={"effective_size": None, "displaced_share": 0.0, "largest_useful_rho": None, "top_share": None}
        | {"ball": None, "unique_rows": plan.n},
        caption=caption,
        tempered=origin,
    )
    report = {"r_hat": r_hat} | figures | {"mean_log_volume": outcome.mean, "error_log_volume": outcome.error}
    return made, report
