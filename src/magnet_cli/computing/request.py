"""A request for a volume, and the spec that the request has for a generator."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from magnet_cli.catalog import imagenet
from magnet_cli.maths import jacobian
from magnet_cli.maths.priors import SPHERES
from magnet_cli.models import Generator
from magnet_cli.models.image_models import ImageModel
from magnet_cli.volume.spec import VolumeSpec

DEFAULT_TOLERANCE = 0.1  # nats, rms of log-volume
_DEFAULT_ROWS = {"mnist": 20_000}
_SHARD_WORK = 1 << 27  # numbers in a shard's Jacobians: minutes on two cores for a 64x64 face generator


@dataclass(frozen=True, kw_only=True)
class ComputeRequest:
    """What `magnet compute` is asked for; the fields are its flags (docs/reference/cli.md), None the default."""

    n: int | None = None
    top_k: int | None = None
    space: str = "z"
    output: str = "pixel"
    truncation: float = 1.0
    bn_truncation: float | None = None
    label: tuple[int | str, ...] | None = ()
    nvae_latents: str | None = None
    solver: str = "auto"
    precision: str = "float32"
    tolerance: float = DEFAULT_TOLERANCE
    seed: int = 0
    volume: Path | None = None
    shard_rows: int | None = None
    device: str | None = None
    batch_size: int | None = None
    memory: int | None = None
    workers: int | None = None
    part: tuple[int, int] | None = None
    engine: str = "local"
    address: str | None = None
    repair: bool = False

    @property
    def settings(self) -> tuple[tuple[str, object], ...]:
        """Settings of the generator that are not the default: (name, value) pairs."""
        pairs = (("bn_truncation", self.bn_truncation), ("nvae_latents", self.nvae_latents))
        return tuple((name, value) for name, value in pairs if value is not None)

    def spec(self, generator: Generator, output: ImageModel | None) -> VolumeSpec:
        """Return the spec of the request for its generator, with the image model that follows; as `volume_spec`."""
        return volume_spec(
            generator,
            top_k=self.top_k,
            space=self.space,
            output=output or self.output,
            truncation=self.truncation,
            label=imagenet.class_numbers(self.label or (), generator.name, generator.num_classes),
            solver=self.solver,
            precision=self.precision,
            tolerance=self.tolerance,
            seed=self.seed,
            rows_per_shard=self.shard_rows,
        )


def default_rows(name: str) -> int:
    """Return the default N for a generator of that name."""
    return _DEFAULT_ROWS.get(name, 10_000)


def default_top_k(latent_dim: int) -> int:
    """Return the default K: D if D ≤ 128, else 30."""
    return latent_dim if latent_dim <= 128 else 30


def shard_rows(generator: Generator) -> int:
    """Return the default R: 64 to 2,000, a function of the generator's sizes (docs/method.md#last-shard)."""
    numbers = generator.latent_dim * int(np.prod(generator.image_shape))
    return int(np.clip(_SHARD_WORK // numbers, 64, 2000))


def volume_spec(
    generator: Generator,
    *,
    top_k: int | None = None,
    space: str = "z",
    output: ImageModel | str = "pixel",
    truncation: float = 1.0,
    label: tuple[int, ...] = (),
    solver: str = "exact",
    precision: str = "float32",
    tolerance: float = DEFAULT_TOLERANCE,
    seed: int = 0,
    rows_per_shard: int | None = None,
) -> VolumeSpec:
    """Return the spec of a generator's volume; arguments as for `ComputeRequest`.

    The spec is resolved unless solver or precision are "auto", or the solver's size is still to be chosen.

    Raises:
        SpecError: a value is outside its range, or the generator has no such space or output.
    """
    model = output if isinstance(output, ImageModel) else None
    name = model.name if model else str(output)
    generator.check_parts(space, "pixel" if model else name)
    input_dim = generator.style_dim if space == "w" else generator.latent_dim
    rank = input_dim - (generator.prior.kind in SPHERES and space == "z")
    numbers = rank if name != "pixel" else int(np.prod(generator.image_shape))
    return VolumeSpec(
        generator=generator.name,
        sha256=generator.sha256,
        family=generator.family,
        prior=generator.prior.kind,
        latent_dim=generator.latent_dim,
        space=space,
        output=name,
        output_sha256=model.sha256 if model else "",
        style_dim=generator.style_dim if space == "w" else 0,
        noise=generator.noise,
        bn_truncation=0.0 if generator.bn_truncation == truncation else generator.bn_truncation,
        nvae_latents=generator.nvae_latents,
        image_range=generator.image_range,
        num_classes=generator.num_classes,
        label=label,
        truncation=truncation,
        top_k=top_k or min(default_top_k(input_dim), rank, numbers),
        solver=solver,
        solver_size=0,
        solver_power=0,
        solver_sweep=False,
        tolerance=tolerance,
        precision=precision,
        rank_floor=jacobian.RANK_FLOOR.get(precision, 0.0),
        seed=seed,
        shard_rows=rows_per_shard or shard_rows(generator),
    )
