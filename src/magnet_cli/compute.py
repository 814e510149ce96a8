"""Fill the missing shards of a volume with latents and the singular values of the generator's Jacobian.

Joins generators, jacobian and volume. The caller owns progress and stopping: `fill` yields once a shard is safe on
disk, and may be dropped at any time.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from magnet_cli import jacobian
from magnet_cli.errors import GeneratorError
from magnet_cli.generators import Generator
from magnet_cli.image_models import ImageModel
from magnet_cli.jacobian import solvers, trust
from magnet_cli.jacobian.products import Function
from magnet_cli.volume import Shard, Volume
from magnet_cli.volume.spec import VolumeSpec

DEFAULT_ROWS = {"mnist": 20_000}
DEFAULT_TOLERANCE = 0.1  # nats, rms of log-volume
_PROBES = 4  # inputs at which a function of the user's own is held against what it was
_PROBE_NUMBERS = 8  # kept of each output: random combinations, which no change of the function leaves as they were
_PROBE_ROUNDING = 1e-4  # of the largest: float32 on another device, far below what any other function gives
_TESTS = 0x746573  # keeps the test matrices' random stream apart from the latents'
_LIVE = 4  # a layer's input and output are alive about so often: values, tangents, and what the library copies
_SHARD_WORK = 1 << 27  # numbers in a shard's Jacobians: minutes on two cores for a 64x64 face generator
_BATCH_WORK = 1 << 22  # numbers in a batch of Jacobians: tens of MB, and large enough calls to be fast


def default_rows(name: str) -> int:
    """N where none is asked."""
    return DEFAULT_ROWS.get(name, 10_000)


def default_top_k(latent_dim: int) -> int:
    """K where none is asked: D where D ≤ 128, else 30."""
    return latent_dim if latent_dim <= 128 else 30  # noqa: PLR2004


def shard_rows(generator: Generator) -> int:
    """R where none is asked: a fixed number per generator size, 64 to 2,000; never a measured one."""
    return int(np.clip(_SHARD_WORK // _jacobian_size(generator), 64, 2000))


@dataclass(frozen=True)
class Plan:
    """How the work is cut to fit into memory: a function of generator and memory, never of a timing.

    Attributes:
        batch: B, latents at a time.
        chunk: vectors at a time, for each of them; None for all.
        whole: whether a whole Jacobian fits; otherwise JᵀJ is made a column at a time.
    """

    batch: int
    chunk: int | None = None
    whole: bool = True

    def halved(self) -> "Plan":
        """Half of it, after memory ran out.

        Raises:
            GeneratorError: there is no less than one latent and one vector.
        """
        if self.batch > 1:
            return dataclasses.replace(self, batch=self.batch // 2)
        if self.chunk is None or self.chunk > 1:
            return dataclasses.replace(self, chunk=(self.chunk or 64) // 2)
        if self.whole:
            return Plan(1, 1, whole=False)
        message = "memory runs out with one latent and one vector at a time"
        raise GeneratorError(message, "free memory, or use a device with more of it")


def plan(generator: Generator, memory: int | None = None) -> Plan:
    """How to cut the work.

    Args:
        generator: on its device.
        memory: bytes the working set may take; default: half of what is free on the device.

    Raises:
        GeneratorError: not even one vector at one latent fits.
    """
    weight = next(generator.module.parameters())
    item = weight.element_size()
    limit = memory or _free_memory(weight.device) // 2
    outputs = int(np.prod(generator.image_shape))
    jacobian_bytes = generator.latent_dim * outputs * item
    vector_bytes = _LIVE * _largest_activation(generator) * item
    whole = jacobian_bytes + vector_bytes <= limit
    if not whole:
        chunk = (limit // vector_bytes - 1) // 2  # both the forward and the reverse pass of a column are alive
        if chunk < 1:
            message = f"one vector at one latent of {generator.name} takes {3 * vector_bytes:,} bytes of {limit:,}"
            raise GeneratorError(message, f"pass --memory {3 * vector_bytes} or more")
        return Plan(1, min(chunk, generator.latent_dim), whole=False)
    latent_bytes = jacobian_bytes + generator.latent_dim * vector_bytes
    largest = int(np.clip(_BATCH_WORK // _jacobian_size(generator), 1, 64))
    if latent_bytes <= limit:
        return Plan(min(largest, limit // latent_bytes))
    return Plan(1, (limit - jacobian_bytes) // vector_bytes)


def batch_size(generator: Generator) -> int:
    """Latents whose Jacobians are computed at once, where memory is no matter."""
    return plan(generator).batch


def _largest_activation(generator: Generator) -> int:
    """Numbers in the largest input and output of a layer, for one latent."""
    sizes = [int(np.prod(generator.image_shape))]

    def watch(_module: nn.Module, inputs: tuple, output: object) -> None:
        tensors = [t for t in (*inputs, output) if isinstance(t, Tensor)]
        sizes.append(sum(t.numel() for t in tensors))

    hooks = [m.register_forward_hook(watch) for m in generator.module.modules() if not list(m.children())]
    try:
        with torch.no_grad():
            weight = next(generator.module.parameters())
            labels = weight.new_zeros(1, dtype=torch.int64) if generator.num_classes else None
            generator(torch.zeros(1, generator.latent_dim).to(weight), labels=labels)
    finally:
        for hook in hooks:
            hook.remove()
    return max(sizes)


def _free_memory(device: torch.device) -> int:
    """Bytes that are free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _jacobian_size(generator: Generator) -> int:
    return generator.latent_dim * int(np.prod(generator.image_shape))


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
    rank = input_dim - (generator.prior == "sphere" and space == "z")
    numbers = rank if model or output != "pixel" else int(np.prod(generator.image_shape))
    return VolumeSpec(
        generator=generator.name,
        sha256=generator.sha256,
        family=generator.family,
        prior=generator.prior,
        latent_dim=generator.latent_dim,
        space=space,
        output=model.name if model else output,
        output_sha256=model.sha256 if model else "",
        style_dim=generator.style_dim if space == "w" else 0,
        noise=generator.noise,
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


def draw_latents(latent_dim: int, seed: int, shard: int, rows: int, prior: str = "normal") -> np.ndarray:
    """The first latents of a shard: a function of (seed, shard) alone.

    Returns:
        [rows, D] float32 from N(0, I), for the prior "sphere" scaled to |z| = √D; fewer rows are a prefix of more.
    """
    z = np.random.default_rng([seed, shard]).standard_normal((rows, latent_dim), dtype=np.float32)
    return on_sphere(z) if prior == "sphere" else z


def on_sphere(z: np.ndarray) -> np.ndarray:
    """Latents [r, D] float32 scaled to |z| = √D."""
    length = np.linalg.norm(z.astype(np.float64), axis=1, keepdims=True)
    return (z * (np.sqrt(z.shape[1]) / length)).astype(np.float32)


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
    few = torch.from_numpy(draw_latents(generator.latent_dim, spec.seed, 0, 3, generator.prior))
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
    trust.check(checked, few)
    if (generator.is_own or output is not None) and few.dtype in {torch.float32, torch.float64}:
        trust.check_derivative(checked, few)


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
    if generator.is_own:
        z = torch.from_numpy(draw_latents(generator.latent_dim, _TESTS, 0, _PROBES, generator.prior)).to(weight)
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
        there, asked = getattr(volume.spec, name), getattr(generator, name)
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
        GeneratorError: a function changed.
    """
    if not volume.probe:
        return
    names = {"generator": generator.name, "output": output.name if output else ""}
    for which, values in probe(generator, output).items():
        known, found = np.array(volume.probe.get(which, [])), np.array(values)
        if known.shape == found.shape and np.abs(known - found).max() <= _PROBE_ROUNDING * np.abs(known).max():
            continue
        message = f"the function of {names[which]} changed: at fixed inputs it gives other values than when "
        message += f"{volume.path} was made, though its weights are the same"
        raise GeneratorError(message, "restore its code, or compute a new volume: --volume with another folder")


def fill(
    volume: Volume, generator: Generator, num_rows: int, cut: Plan | None = None, output: ImageModel | None = None
) -> Iterator[tuple[int, int]]:
    """Compute what is missing of rows 0..num_rows-1, shard by shard.

    Args:
        volume: where the rows go; its spec is resolved, and that of `generator`.
        generator: on its device, its weights in the spec's precision.
        num_rows: N, how many rows the volume is to have at least.
        cut: how the work is cut; default `plan`. When memory runs out it is halved, and volume.json says so.
        output: the image model that follows, in the same precision.

    Yields:
        (shard, new rows in it), once they are safe on disk.

    Raises:
        GeneratorError: the function is no function of each latent alone; singular values are not finite (shard and row
            are named); it cannot be differentiated; memory runs out at the smallest cut.
        VolumeError: a stored shard that is to be extended is damaged.
        MagnetError: the volume cannot be written.
    """
    volume.settle()
    missing = volume.missing(num_rows)
    if not missing:
        return
    cut = cut or plan(generator)
    basis = volume.pilot()
    spec = volume.spec
    check(generator, spec, output)
    for shard, rows in missing:
        latents = draw_latents(generator.latent_dim, spec.seed, shard, rows, generator.prior)
        stored = volume.read(shard).singular_values if shard in volume.shards() else None
        done = 0 if stored is None else len(stored)
        first_row = shard * spec.shard_rows + done
        labels = spec.labels(first_row - done, rows)
        while True:
            try:
                more = {"basis": basis, "first_row": first_row, "output": output}
                new = singular_values(generator, latents[done:], spec, cut, **more)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                cut = cut.halved()
                volume.note(f"memory ran out at shard {shard}: from there on {cut}; values agree to rounding")
            else:
                break
        if not np.isfinite(new).all():
            row = done + int(np.flatnonzero(~np.isfinite(new).all(axis=1))[0])
            message = f"the Jacobian of {generator.name} is not finite at shard {shard}, row {row}"
            raise GeneratorError(message, "check the weights for overflow, or pass --precision float64")
        values = new if stored is None else np.concatenate([stored, new])
        volume.write(shard, Shard(latents, values, labels if labels is None else np.array(labels)))
        yield shard, rows - done


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
        values = _solve(of, at, spec, cut, basis, first_row + start)
        parts.append(values[: len(batch)].to(device="cpu", dtype=torch.float32).numpy())
    return np.concatenate(parts)


def set_arithmetic(device: torch.device, precision: str) -> None:
    """Let products on a CUDA device be tf32 if that is the precision, and only then: torch's default differs."""
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"


def _solve(
    function: Function, z: Tensor, spec: VolumeSpec, cut: Plan, basis: np.ndarray | None, first_row: int
) -> Tensor:
    """One batch, by the spec's solver."""
    if spec.solver == "exact":
        if cut.whole:
            return solvers.exact(function, z, spec.top_k, cut.chunk)
        return solvers.roots(solvers.gram_by_columns(function, z, cut.chunk), spec.top_k)
    if spec.solver == "pilot":
        strongest = torch.from_numpy(basis[:, : spec.solver_size]).to(z.device)
        return solvers.pilot(function, z, spec.top_k, strongest, sweep=spec.solver_sweep, chunk_size=cut.chunk)
    if spec.solver == "sketch":
        rows = range(first_row, first_row + len(z))
        tests = test_matrices(z.shape[1], spec.solver_size, spec.seed, rows).to(z.device)
        return solvers.sketch(function, z, spec.top_k, tests, power=spec.solver_power, chunk_size=cut.chunk)
    return solvers.projection(function, z, spec.top_k, _projection_rows(function(z)[0].numel()), cut.chunk)


@functools.cache
def _projection_rows(outputs: int) -> Tensor:
    return solvers.projection_rows(outputs)


def test_matrices(latent_dim: int, size: int, seed: int, rows: range) -> Tensor:
    """Test matrices of a sketch, each a function of (seed, row): [B, D, m] float64; fewer columns come first."""
    drawn = [np.random.default_rng([_TESTS, seed, row]).standard_normal((size, latent_dim)) for row in rows]
    return torch.from_numpy(np.stack(drawn)).mT
