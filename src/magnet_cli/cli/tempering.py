"""magnet sample --method tempered: from the prior to the polarity, then a sample like any other.

Owns what is said of it: its cost before, how far it is to be trusted after.
"""

from typing import TYPE_CHECKING

from magnet_cli.cli import console as console_

if TYPE_CHECKING:
    from magnet_cli.cli.lookup import Source
    from magnet_cli.index import Index
    from magnet_cli.models import Generator
    from magnet_cli.models.image_models import ImageModel
    from magnet_cli.sampling import tempered
    from magnet_cli.sampling.fresh import FreshDraw
    from magnet_cli.sampling.sample import SampleSpec
    from magnet_cli.volume import Volume


class Tempering:
    """What the command line asks for, and how it comes about.

    Args:
        checkpoint: of the generator.
        volume: whose function and solver are used.
        index: of it.
        spec: of the sample.
        output: as typed.
        device: as typed.
        settings: of the generator.
    """

    def __init__(
        self,
        checkpoint: "Source",
        volume: "Volume",
        index: "Index",
        spec: "SampleSpec",
        output: str,
        device: str | None,
        settings: tuple[tuple[str, object], ...],
    ) -> None:
        from magnet_cli.catalog import cache
        from magnet_cli.sampling import tempered

        self._checkpoint, self._volume, self._index, self._spec = checkpoint, volume, index, spec
        self._output, self._device, self._settings = output, device, settings
        schedule = tempered.Schedule(spec.rho, spec.particles, spec.seed, moves=tempered.num_moves(volume))
        ours = tempered.TemperedSpec.of(volume, spec.top_k, schedule, spec.label)
        self._kept = tempered.Run(cache.home() / "tempered" / f"{ours.generator}-{ours.fingerprint[:12]}", ours)
        self._islands = tempered.num_islands(spec.n, spec.particles)

    def planned(self, console: console_.Console, *, announce: bool) -> dict:
        """What is known of the sample before it is made; where it is to be announced, what it is going to cost, too.

        Raises:
            MagnetError: as `tempered.left`; the generator is not the volume's.
        """
        from magnet_cli import index
        from magnet_cli.sampling import tempered

        spec = self._spec
        report = {"particles": spec.particles, "islands": self._islands, "tempered": str(self._kept.path)}
        report |= {
            "replace": False,
            "pool": None,
            "unique_rows": spec.n,
            "effective_size": None,
            "displaced_share": 0.0,
        }
        report |= {"target": index.target(self._index, spec.rho, self._volume.spec, None, spec.truncation)}
        missing = tempered.left(self._kept, self._islands) if announce else []
        if missing:
            generator, model = self._load()
            self._measure = tempered.Measure(self._volume, generator, spec.top_k, output=model, label=spec.label)
            cost = tempered.cost(self._kept.spec.schedule, len(missing), self._spread(), self._measure)
            report |= {"expected_jacobians": cost.jacobians, "expected_seconds": round(cost.seconds, 1)}
            console.note(
                f"{len(missing)} islands of {spec.particles} latents: about {cost.jacobians:,} Jacobians and "
                f"{cost.evaluations:,} evaluations, about {_minutes(cost.seconds)} here; kept in {self._kept.path}"
            )
        return report

    def draw(self, console: console_.Console, report: dict) -> "FreshDraw":
        """Temper what is missing, with progress; after Ctrl-C say what is safe. The report is added to.

        Raises:
            MagnetError: as `tempered.advance`.
        """
        from magnet_cli.sampling import tempered

        if expected := report.get("expected_jacobians"):
            try:
                with console.progress("tempering", expected, "Jacobians") as advance:
                    for _, step in tempered.advance(self._kept, self._measure, self._islands):
                        advance(len(step.latents))
            except KeyboardInterrupt:
                safe = f"what was computed is in {self._kept.path}"
                console_.show_stopped(f"stopped: {safe}; the same command goes on from there")
                raise
        found = tempered.outcome(self._kept, self._islands, self._spec.n)
        report |= _tell(found, self._spec, console)
        if not found.converged:
            report["target"] = f"not converged to: {report['target']}"
        return _drawn(found, self._kept, report)

    def _load(self) -> tuple["Generator", "ImageModel | None"]:
        """Generator and image model in the volume's precision, once they are known to be the volume's.

        Raises:
            SpecError: the volume is of an image model that is not named.
            GeneratorError: they are not.
        """
        from magnet_cli import computing, models
        from magnet_cli.computing import processes
        from magnet_cli.errors import SpecError

        spec, device = self._volume.spec, self._device or models.default_device()
        own = spec.output in models.OUTPUTS
        if not own and self._output in models.OUTPUTS:
            message = f"{self._volume.path} is of the output {spec.output}, and --output {self._output} is asked for"
            raise SpecError(message, f"pass --output {spec.output}, as it was computed with")
        output = spec.output if own else self._output
        plain = processes.load(self._checkpoint, output, device, "float32", self._settings)
        computing.check_settings(self._volume, plain[0])
        computing.check_unchanged(self._volume, *plain)
        if plain[1] and plain[1].sha256 != spec.output_sha256:
            message = f"{self._volume.path} is of an image model {spec.output} with other weights than {output} has"
            raise SpecError(message, "pass --output with the model that it was computed with")
        if spec.precision == "float32":
            return plain
        return processes.load(self._checkpoint, output, device, spec.precision, self._settings)

    def _spread(self) -> float:
        """Standard deviation of log-volume in the volume, in nats."""
        return float(self._index.log_volume[self._index.above_floor].std())


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


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

    from magnet_cli.sampling.fresh import FreshDraw

    words = f"tempered, {len(found.schedule)} islands of {kept.spec.schedule.particles}, R-hat {report['r_hat']:.3f}"
    origin = {"words": words, "path": str(kept.path), "fingerprint": kept.spec.fingerprint, "spec": asdict(kept.spec)}
    origin |= {"schedule": found.schedule, "accepted": found.accepted, "r_hat": [list(pair) for pair in found.r_hat]}
    origin |= {name: report[name] for name in ("converged", "converged_rho", "jacobians")}
    return FreshDraw(found.latents, found.log_volume, found.labels, origin)
