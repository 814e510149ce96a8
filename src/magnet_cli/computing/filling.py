"""Fill the missing shards of a volume.

`ShardFiller` fills one shard: `fill` calls it in this process, `processes` in several, `ray_engine` on a cluster.
`fill` yields when a shard is safe on disk, and may be dropped at any time.
"""

from collections import deque
from collections.abc import Iterator

import numpy as np
import torch

from magnet_cli.computing import functions
from magnet_cli.computing.memory import BatchPlan, plan_batches
from magnet_cli.computing.solving import values_at
from magnet_cli.errors import GeneratorError
from magnet_cli.models import Generator
from magnet_cli.models.image_models import ImageModel
from magnet_cli.volume import Shard, Volume


def missing_shards(volume: Volume, num_rows: int, part: tuple[int, int] = (1, 1)) -> list[tuple[int, int]]:
    """Settle a volume, verify its stored shards, and return what is missing of rows 0..num_rows-1.

    Returns:
        Pairs (shard, number of rows that it is to have), of the shards s ≡ I-1 mod N for part (I, N).

    Raises:
        DamageError: a stored shard is damaged.
        MagnetError: the volume cannot be read or written.
    """
    volume.settle()
    for shard in volume.shards():
        if shard % part[1] == part[0] - 1:
            volume.verify(shard)
    return volume.missing(num_rows, part)


class ShardFiller:
    """Fills shards of a volume, one at each call.

    If memory runs out, batches are halved, and a note goes into volume.json. The generator's weights have the spec's
    precision, and so has the image model that follows (`output`).
    """

    def __init__(
        self, volume: Volume, generator: Generator, batches: BatchPlan, output: ImageModel | None = None
    ) -> None:
        self._volume = volume
        self._generator = generator
        self._batches = batches
        self._output = output
        self._basis = volume.pilot()
        functions.check(generator, volume.spec, output)

    def __call__(self, shard: int, rows: int, *, insist: bool = False) -> int | None:
        """Compute a shard, or the rows that it lacks, and store it.

        Args:
            shard: its number.
            rows: number of rows that it is to have.
            insist: compute the shard even if another process has claimed it: that process may hang.

        Returns:
            Number of new rows, once they are safe on disk; 0 if another process stored them, None if another process
            has claimed the shard.

        Raises:
            GeneratorError: singular values are not finite (the message names shard and row), the function cannot be
                differentiated, or memory runs out with one latent and one vector.
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
        if done >= rows:  # another process published the shard before it released its claim
            return 0
        new = self._values(latents[done:], shard, first + done)
        if not np.isfinite(new).all():
            row = done + int(np.flatnonzero(~np.isfinite(new).all(axis=1))[0])
            message = f"the Jacobian of {self._generator.name} is not finite at shard {shard}, row {row}"
            raise GeneratorError(message, 'check the weights for overflow, or pass `precision="float64"`')
        values = new if stored is None else np.concatenate([stored, new])
        return rows - done if self._volume.write(shard, Shard(latents, values, labels)) else 0

    def _values(self, latents: np.ndarray, shard: int, first_row: int) -> np.ndarray:
        """Singular values [r, K] at latents [r, D]; batches are halved until they fit into memory."""
        while True:
            try:
                return values_at(
                    self._generator,
                    latents,
                    self._volume.spec,
                    self._batches,
                    basis=self._basis,
                    first_row=first_row,
                    output=self._output,
                )
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                self._batches = self._batches.halved()
                note = f"memory ran out at shard {shard}: from there on {self._batches}; values agree to rounding"
                self._volume.note(note)


def fill(
    volume: Volume,
    generator: Generator,
    num_rows: int,
    batches: BatchPlan | None = None,
    output: ImageModel | None = None,
    part: tuple[int, int] = (1, 1),
) -> Iterator[tuple[int, int]]:
    """Compute what is missing of rows 0..num_rows-1, shard by shard, in this process.

    Yields:
        (shard, number of new rows), once they are safe on disk; 0 new rows if another process stored them.

    Raises:
        GeneratorError, VolumeError, MagnetError: as `missing_shards` and `ShardFiller`.
    """
    missing = missing_shards(volume, num_rows, part)
    if not missing:
        return
    filler = ShardFiller(volume, generator, batches or plan_batches(generator, volume.spec.vectors), output)
    tasks = deque((shard, rows, False) for shard, rows in missing)
    while tasks:
        shard, rows, insist = tasks.popleft()
        new = filler(shard, rows, insist=insist)
        if new is None:
            tasks.append((shard, rows, True))  # after all others
        else:
            yield shard, new


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
