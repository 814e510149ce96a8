"""Log-volumes and features of new latents, by the function and the solver of a volume."""

import numpy as np
import torch

from magnet_cli import computing, index
from magnet_cli.computing import memory
from magnet_cli.errors import GeneratorError
from magnet_cli.models import Generator
from magnet_cli.models.batches import batch_size
from magnet_cli.models.image_models import ImageModel
from magnet_cli.sampling.tempered import surrogate
from magnet_cli.volume import Volume


class Measure:
    """Log-volumes and features of latents; `groups` are the sizes of the groups of features, once some were computed.

    Generator and image model `output` are on their device in the precision of the volume's spec; `cut` are the sizes of
    the batches. Draws from the prior have the labels `label`, in turn, or come from these components of a mixture;
    by default those of the volume.
    """

    def __init__(
        self,
        volume: Volume,
        generator: Generator,
        top_k: int,
        cut: memory.BatchPlan | None = None,
        output: ImageModel | None = None,
        label: tuple[int, ...] = (),
    ) -> None:
        self.spec = volume.spec
        self.groups: list[int] = []
        self.generator = generator
        self.cut = cut or memory.plan_batches(generator, volume.spec.vectors)
        self._top_k = top_k
        self.label = label or volume.spec.label
        self._output = output
        self._basis = volume.pilot()
        computing.check(generator, volume.spec, output)

    def prior(self, rng: np.random.Generator, count: int, first: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Draw latents [count, D] float32 and labels as `Prior.draw`; `first` is the number of the first."""
        return self.generator.prior.draw(count, rng, self.label, first)

    def log_volume(self, latents: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """Compute log-volumes [r] float64, each a function of latent and label alone: sketches share one test matrix.

        −inf where one of the k values is below the rank floor (docs/method.md), which does not compete.
        """
        weight = next(self.generator.module.parameters())
        memory.set_arithmetic(weight.device, self.spec.precision)
        parts, size = [np.empty((0, self.spec.top_k), np.float32)], self.cut.batch
        for start in range(0, len(latents), size):
            rows = np.arange(start, start + size).clip(max=len(latents) - 1)  # padded: every call has the same shape
            z, named = self._tensors(latents[rows], None if labels is None else labels[rows])
            function = computing.function(self.generator, self.spec, self._output, named)
            inputs = computing.inputs(self.generator, self.spec, z, named)
            solved = computing.solve(function, inputs, self.spec, self.cut, self._basis, [0] * size)
            parts.append(solved[: len(latents) - start].to(device="cpu", dtype=torch.float32).numpy())
        values = np.concatenate(parts)
        if not np.isfinite(values).all():
            raise GeneratorError(
                f"the Jacobian of {self.generator.name} is not finite at a latent that a move led to",
                "check the weights for overflow, or use a volume of `precision='float64'`",
            )
        least = values[:, self._top_k - 1]
        real = (least > 0) & (least >= self.spec.rank_floor * values[:, 0])
        return np.where(real, index.log_volume(values, self._top_k), -np.inf)

    def features(self, latents: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """Return features [r, F] float32 of latents [r, D], as `surrogate.features`."""
        size, parts = batch_size(self.generator), []
        for start in range(0, len(latents), size):
            rows = slice(start, start + size)
            z, named = self._tensors(latents[rows], None if labels is None else labels[rows])
            features, self.groups = surrogate.features(self.generator, z, named, self.spec.truncation)
            parts.append(features)
        return np.concatenate(parts)

    def _tensors(self, latents: np.ndarray, labels: np.ndarray | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        weight = next(self.generator.module.parameters())
        named = None if labels is None else torch.from_numpy(labels).to(weight.device)
        return torch.from_numpy(latents).to(weight), named
