"""Fill the missing shards of a volume with latents and the singular values of the generator's Jacobian.

Joins generators, jacobian and volume. `Filler` fills one shard: `fill` calls it in this process, workers in several,
ray_engine on several machines. The caller owns progress and stopping: `fill` yields once a shard is safe on disk, and
may be dropped at any time.
"""

import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from magnet_cli.computing.memory import Plan, cut_for, set_arithmetic
from magnet_cli.errors import GeneratorError
from magnet_cli.maths import jacobian
from magnet_cli.maths.jacobian import checks, solvers
from magnet_cli.maths.jacobian.products import Function
from magnet_cli.models import Generator
from magnet_cli.models.image_models import ImageModel
from magnet_cli.volume import Shard, Volume
from magnet_cli.volume.spec import VolumeSpec

DEFAULT_ROWS = {"mnist": 20_000}
DEFAULT_TOLERANCE = 0.1  # nats, rms of log-volume
_PROBES = 4  # inputs at which a function of the user's own is held against what it was
_PROBE_NUMBERS = 8  # kept of each output: random combinations, which no change of the function leaves as they were
_PROBE_ROUNDING = 1e-4  # of the largest: float32 on another device, far below what any other function gives
_TESTS = 0x746573  # keeps the test matrices' random stream apart from the latents'
_SHARD_WORK = 1 << 27  # numbers in a shard's Jacobians: minutes on two cores for a 64x64 face generator


def default_rows(name: str) -> int:
    """N where none is asked."""
    return DEFAULT_ROWS.get(name, 10_000)


def default_top_k(latent_dim: int) -> int:
    """K where none is asked: D where D ≤ 128, else 30."""
    return latent_dim if latent_dim <= 128 else 30


def shard_rows(generator: Generator) -> int:
    """R where none is asked: a fixed number per generator size, 64 to 2,000; never a measured one."""
    jacobian = generator.latent_dim * int(np.prod(generator.image_shape))
    return int(np.clip(_SHARD_WORK // jacobian, 64, 2000))


def asked(
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
    """The spec of a generator's volume as it is asked for; resolved where solver and precision leave no choice.

    Raises:
        SpecError: a value outside its range, or a space or output that the generator does not have.
    """
    model = output if isinstance(output, ImageModel) else None
    generator.check_parts(space, "pixel" if model else output)
    input_dim = generator.style_dim if space == "w" else generator.latent_dim
    rank = input_dim - (generator.prior.kind == "sphere" and space == "z")
    numbers = rank if model or output != "pixel" else int(np.prod(generator.image_shape))
    return VolumeSpec(
        generator=generator.name,
        sha256=generator.sha256,
        family=generator.family,
        prior=generator.prior.kind,
        latent_dim=generator.latent_dim,
        space=space,
        output=model.name if model else output,
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


def inputs(generator: Generator, spec: VolumeSpec, z: Tensor, labels: Tensor | None = None) -> Tensor:
    """Where the Jacobian is taken, at latents [B, D]: z itself, or w = M(z) [B, Dw], no gradient kept."""
    if spec.space == "z":
        return z
    with torch.no_grad():
        return generator.module.mapping(z, labels)


def function(
    generator: Generator, spec: VolumeSpec, output: ImageModel | None = None, labels: Tensor | None = None
) -> Function:
    """What the Jacobian is taken of: `inputs` to what the spec names, or to what an image model says of the images.

    Args:
        generator: on its device.
        spec: space, output and truncation are used.
        output: the image model that follows, if any.
        labels: [B] int64 of the latents, or [1], which serves any batch; where the generator takes labels.
    """
    own = generator.function(spec.space, "pixel" if output else spec.output, spec.truncation, labels)
    return own if output is None else lambda latents: output.module(own(latents))


def differentiated(
    generator: Generator, spec: VolumeSpec, output: ImageModel | None, z: Tensor, first_row: int
) -> tuple[Function, Tensor]:
    """The function whose Jacobian is taken, and its inputs, at the latents z [B, D] of a volume's rows from first_row.

    Each row's label, where the generator takes labels, is a function of the row's number.
    """
    named = spec.labels(first_row, len(z))
    labels = None if named is None else torch.tensor(named, device=z.device)
    return function(generator, spec, output, labels), inputs(generator, spec, z, labels)


def check(generator: Generator, spec: VolumeSpec, output: ImageModel | None = None) -> None:
    """Before a run: the image model takes the generator's images, and the whole is a function of each latent alone.

    Where a part of it may be the user's own, its derivative has to be that of its values.

    Raises:
        GeneratorError: it is not.
    """
    few = torch.from_numpy(generator.prior.draw_shard(spec.seed, 0, 3)[0])
    few = few.to(next(generator.module.parameters()))
    named = spec.labels(0, 1)
    label = None if named is None else torch.tensor(named, device=few.device)  # one for all: they are called alone too
    few = inputs(generator, spec, few, None if label is None else label.expand(len(few)))
    checked = function(generator, spec, output, label)
    if output is not None:
        try:
            checked(few)
        except (RuntimeError, ValueError) as error:
            shape = "×".join(map(str, generator.image_shape))
            message = f"{output.name} does not take the {shape} images of {generator.name}: {error}"
            raise GeneratorError(message, "pass --output pixel, or a model that takes images of that shape") from error
    checks.check(checked, few)
    if few.dtype in {torch.float32, torch.float64}:
        checks.check_slope(checked, few)
        if generator.is_custom or output is not None:
            checks.check_modes(checked, few)


def probe(generator: Generator, output: ImageModel | None) -> dict[str, list[list[float]]]:
    """What the functions give at 4 fixed inputs, 8 fixed combinations of their numbers each.

    Weights alone do not tell a user's own module from another: its code may have changed (METHOD: fingerprint of a
    user's own module).

    Returns:
        Under "generator" [4, 8] where it is the user's own; under "output" [4, 8] where an image model follows.
    """
    weight = next(generator.module.parameters())
    rng = np.random.default_rng(_TESTS)
    found = {}
    if generator.is_custom:
        z = torch.from_numpy(generator.prior.draw_shard(_TESTS, 0, _PROBES)[0]).to(weight)
        classes = torch.arange(_PROBES, device=weight.device) % (generator.num_classes or 1)
        found["generator"] = _combinations(lambda: generator(z, labels=classes if generator.num_classes else None))
    if output is not None:
        images = torch.from_numpy(rng.uniform(-1, 1, (_PROBES, *generator.image_shape))).to(weight)
        found["output"] = _combinations(lambda: output.module(images))
    return found


def _combinations(values: Callable[[], Tensor]) -> list[list[float]]:
    """Combinations [B, 8] of the numbers [B, ...] that a function gives, with fixed random signs."""
    with torch.no_grad():
        found = values().flatten(1).to(device="cpu", dtype=torch.float64).numpy()
    rng = np.random.default_rng(_TESTS)
    size = found.shape[1]
    signs = (2 * rng.integers(0, 2, size, dtype=np.int8) - 1 for _ in range(_PROBE_NUMBERS))
    return np.stack([found @ line / np.sqrt(size) for line in signs], axis=1).tolist()


def check_settings(volume: Volume, generator: Generator) -> None:
    """Whether a volume is of a generator with these settings, weights being the same.

    Raises:
        GeneratorError: it is not.
    """
    for name in ("latent_dim", "prior", "image_range", "num_classes"):
        there = getattr(volume.spec, name)
        asked = generator.prior.kind if name == "prior" else getattr(generator, name)
        if there != asked:
            message = f"{volume.path} was made with {name} {there or 'unset'}, and {asked or 'unset'} is asked for"
            raise GeneratorError(message, "pass the settings it was made with, or compute a new volume")


def check_unchanged(volume: Volume, generator: Generator, output: ImageModel | None) -> None:
    """Whether generator and image model still are the functions that the volume was made with.

    Args:
        volume: made before; one without a probe passes.
        generator: in float32.
        output: in float32, if one follows.

    Raises:
        GeneratorError: the function changed, or is none that has a Jacobian.
    """
    if not volume.probe:
        return
    check(generator, volume.spec, output)
    names = {"generator": generator.name, "output": output.name if output else ""}
    for which, values in probe(generator, output).items():
        known, found = np.array(volume.probe.get(which, [])), np.array(values)
        if known.shape == found.shape and np.abs(known - found).max() <= _PROBE_ROUNDING * np.abs(known).max():
            continue
        message = f"the function of {names[which]} changed: at fixed inputs it gives other values than when "
        message += f"{volume.path} was made, though its weights are the same"
        raise GeneratorError(message, "restore its code, or compute a new volume: --volume with another folder")


def todo(volume: Volume, num_rows: int, part: tuple[int, int] = (1, 1)) -> list[tuple[int, int]]:
    """What is to be computed of rows 0..num_rows-1, once the volume is settled and its stored shards are verified.

    Args:
        volume: on disk.
        num_rows: N, how many rows it is to have at least.
        part: (I, N): only the shards s ≡ I-1 mod N are looked at.

    Returns:
        (shard, rows it should have) pairs.

    Raises:
        DamageError: a stored shard is damaged.
        MagnetError: the volume cannot be read or written.
    """
    volume.settle()
    for shard in volume.shards():
        if shard % part[1] == part[0] - 1:
            volume.verify(shard)
    return volume.missing(num_rows, part)


class Filler:
    """Fills shards of a volume, one a call.

    Args:
        volume: where the rows go; its spec is resolved, and that of `generator`.
        generator: on its device, its weights in the spec's precision.
        cut: how the work is cut. When memory runs out it is halved, and volume.json says so.
        output: the image model that follows, in the same precision.

    Raises:
        GeneratorError: the function is no function of each latent alone.
        VolumeError: the pilot basis is damaged.
    """

    def __init__(self, volume: Volume, generator: Generator, cut: Plan, output: ImageModel | None = None) -> None:
        self._volume = volume
        self._generator = generator
        self._cut = cut
        self._output = output
        self._basis = volume.pilot()
        check(generator, volume.spec, output)

    def __call__(self, shard: int, rows: int, *, insist: bool = False) -> int | None:
        """Compute a shard, or what it lacks, unless others were first.

        Args:
            shard: its number.
            rows: how many rows it is to have.
            insist: compute it even where another process says that it does: that one may be stuck.

        Returns:
            The new rows in it, once they are safe on disk: 0 where another process was first, None where one is at it.

        Raises:
            GeneratorError: singular values are not finite (shard and row are named); they cannot be differentiated;
                memory runs out at the smallest cut.
            DamageError: a stored shard that is to be extended is damaged.
            MagnetError: the volume cannot be written.
        """
        if self._volume.has(shard, rows):
            return 0
        if not self._volume.claim(shard) and not insist:
            return None
        try:
            return self._fill(shard, rows)
        finally:
            self._volume.release(shard)

    def _fill(self, shard: int, rows: int) -> int:
        spec = self._volume.spec
        first = shard * spec.shard_rows
        latents, labels = self._generator.prior.draw_shard(spec.seed, shard, rows, spec.label, first)
        stored = self._volume.read(shard).singular_values if self._volume.has(shard, 1) else None
        done = 0 if stored is None else len(stored)
        if done >= rows:  # another process published it before it took its claim back
            return 0
        new = self._values(latents[done:], shard, first + done)
        if not np.isfinite(new).all():
            row = done + int(np.flatnonzero(~np.isfinite(new).all(axis=1))[0])
            message = f"the Jacobian of {self._generator.name} is not finite at shard {shard}, row {row}"
            raise GeneratorError(message, "check the weights for overflow, or pass --precision float64")
        values = new if stored is None else np.concatenate([stored, new])
        return rows - done if self._volume.write(shard, Shard(latents, values, labels)) else 0

    def _values(self, latents: np.ndarray, shard: int, first_row: int) -> np.ndarray:
        """Singular values [r, K] of a shard's latents [r, D]; while memory runs out, the work is cut smaller."""
        while True:
            try:
                more = {"basis": self._basis, "first_row": first_row, "output": self._output}
                return singular_values(self._generator, latents, self._volume.spec, self._cut, **more)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                self._cut = self._cut.halved()
                note = f"memory ran out at shard {shard}: from there on {self._cut}; values agree to rounding"
                self._volume.note(note)


def fill(
    volume: Volume,
    generator: Generator,
    num_rows: int,
    cut: Plan | None = None,
    output: ImageModel | None = None,
    part: tuple[int, int] = (1, 1),
) -> Iterator[tuple[int, int]]:
    """Compute what is missing of rows 0..num_rows-1, shard by shard, in this process.

    Args:
        volume: where the rows go; its spec is resolved, and that of `generator`.
        generator: on its device, its weights in the spec's precision.
        num_rows: N, how many rows the volume is to have at least.
        cut: how the work is cut; default `cut_for`. When memory runs out it is halved, and volume.json says so.
        output: the image model that follows, in the same precision.
        part: (I, N): only the shards s ≡ I-1 mod N.

    Yields:
        (shard, new rows in it), once they are safe on disk; 0 new rows where another process made them.

    Raises:
        GeneratorError, VolumeError, MagnetError: as `todo` and `Filler`.
    """
    missing = todo(volume, num_rows, part)
    if not missing:
        return
    fill_one = Filler(volume, generator, cut or cut_for(generator, volume.spec.vectors), output)
    tasks = deque((shard, rows, False) for shard, rows in missing)
    while tasks:
        shard, rows, insist = tasks.popleft()
        new = fill_one(shard, rows, insist=insist)
        if new is None:
            tasks.append((shard, rows, True))  # when all else is done
        else:
            yield shard, new


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def singular_values(
    generator: Generator,
    latents: np.ndarray,
    spec: VolumeSpec,
    cut: Plan,
    *,
    basis: np.ndarray | None = None,
    first_row: int = 0,
    output: ImageModel | None = None,
) -> np.ndarray:
    """The singular values at given latents; the last batch is padded, so that every call has the same shape.

    Args:
        generator: on its device, its weights in the spec's precision.
        latents: [r, D] float32.
        spec: what the Jacobian is taken of, top_k, and the solver with its sizes are used.
        cut: latents and vectors at a time.
        basis: [D, D] float64, the pilot basis, for the solver that needs it.
        first_row: number of the first row; its label, and the random test matrices of a sketch, are functions of it.
        output: the image model that follows.

    Returns:
        [r, K] float32, descending.
    """
    weight = next(generator.module.parameters())
    set_arithmetic(weight.device, spec.precision)
    parts = []
    for start in range(0, len(latents), cut.batch):
        batch = latents[start : start + cut.batch]
        padded = np.concatenate([batch, np.repeat(batch[-1:], cut.batch - len(batch), axis=0)])
        z = torch.from_numpy(padded).to(weight)
        of, at = differentiated(generator, spec, output, z, first_row + start)
        rows = range(first_row + start, first_row + start + len(z))
        values = solve(of, at, spec, cut, basis, rows)
        parts.append(values[: len(batch)].to(device="cpu", dtype=torch.float32).numpy())
    return np.concatenate(parts)


def solve(
    function: Function, z: Tensor, spec: VolumeSpec, cut: Plan, basis: np.ndarray | None, rows: Sequence[int]
) -> Tensor:
    """The singular values [B, K] float64 of one batch, by the spec's solver.

    Args:
        function: whose Jacobian is taken.
        z: [B, D], its inputs.
        spec: top_k, and the solver with its sizes are used.
        cut: vectors at a time.
        basis: [D, D] float64, the pilot basis, for the solver that needs it.
        rows: [B] numbers that the test matrices of a sketch are functions of.
    """
    if spec.solver == "exact":
        if cut.whole:
            return solvers.exact(function, z, spec.top_k, cut.chunk)
        return solvers.roots(solvers.gram_by_columns(function, z, cut.chunk), spec.top_k)
    if spec.solver == "pilot":
        strongest = torch.from_numpy(basis[:, : spec.solver_size]).to(z.device)
        return solvers.pilot(function, z, spec.top_k, strongest, sweep=spec.solver_sweep, chunk_size=cut.chunk)
    if spec.solver == "sketch":
        tests = test_matrices(z.shape[1], spec.solver_size, spec.seed, rows).to(z.device)
        return solvers.sketch(function, z, spec.top_k, tests, power=spec.solver_power, chunk_size=cut.chunk)
    return solvers.projection(function, z, spec.top_k, _projection_rows(function(z)[0].numel()), cut.chunk)


@functools.cache
def _projection_rows(outputs: int) -> Tensor:
    return solvers.projection_rows(outputs)


def test_matrices(latent_dim: int, size: int, seed: int, rows: Sequence[int]) -> Tensor:
    """Test matrices of a sketch, each a function of (seed, row): [B, D, m] float64; fewer columns come first."""
    drawn = [np.random.default_rng([_TESTS, seed, row]).standard_normal((size, latent_dim)) for row in rows]
    return torch.from_numpy(np.stack(drawn)).mT
