"""The training loop: steps of critic, generator, encoder and prior in turn; one seed gives one set of weights.

There is no global random state: all draws are made on the CPU by one torch.Generator, which is part of the state.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from magnet_cli.errors import GeneratorError
from magnet_cli.maths.mixture import Mixture
from magnet_cli.training.slogan import losses, networks, stein
from magnet_cli.training.slogan.data import DataSet
from magnet_cli.training.slogan.stein import Explicit, LearnedMixture, Rates

_BETAS = (0.0, 0.9)  # Adam
_MEANS_FASTER = 10  # learning rate of the means over that of logits and covariances (the paper)
_TEMPERATURE = 0.1  # Gumbel-softmax
_DECAY_FROM = 0.5  # share of the steps after which the networks' learning rates fall


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters: with data, probe and device they decide the weights.

    Attributes:
        components: K.
        latent_dim: D.
        steps: number of steps.
        batch: draws, and data, per step.
        seed: seed of all random numbers.
        width: channels of image networks at half of the side.
        spread: standard deviation of the initial means.
        rate: Adam's learning rate of generator and encoder; the critic's is twice that.
        prior_rate: learning rate of logits and covariances; that of the means is ten times that. All rates fall
            linearly to 0, those of the networks from half of the steps on.
        wait: share of the steps before the mixture's weights start to move: before draws look like data, the critic's
            scores say nothing about the weights.
        contrast: initial weight of the contrastive loss.
        margin: margin of the contrastive loss, in radians.
        scale: scale of its cosines.
        penalty: weight of the gradient penalty R1.
        penalty_every: steps between its uses.
        explicit: learn the prior by explicit reparameterisation instead of Stein's lemma.
        no_contrastive: let the contrastive loss train the encoder only.
    """

    components: int
    latent_dim: int
    steps: int
    batch: int
    seed: int = 0
    width: int = 16
    spread: float = 1.0
    rate: float = 2e-3
    prior_rate: float = 2e-2
    wait: float = 0.0
    contrast: float = 4.0
    margin: float = 0.5
    scale: float = 4.0
    penalty: float = 0.02
    penalty_every: int = 2
    explicit: bool = False
    no_contrastive: bool = False


class Trainer:
    """The state of a training, and its steps.

    Attributes:
        step: steps done.
        prior: the learned mixture.
        networks: generator, critic and encoder by name, on the device.
        optimizers: their optimisers by name.
        rng: random stream of every draw.
        last_losses: losses of the last step by name.

    Args:
        recipe: the hyperparameters.
        data: the training data.
        probe: a few labelled samples, or None.
        device: device of the networks.
    """

    def __init__(self, recipe: Recipe, data: DataSet, probe: DataSet | None = None, device: str = "cpu") -> None:
        self.recipe, self.device = recipe, torch.device(device)
        self.rng = torch.Generator().manual_seed(recipe.seed)
        self.step = 0
        self.last_losses: dict[str, Tensor] = {}
        self.prior = LearnedMixture.first(recipe.components, recipe.latent_dim, recipe.spread, self.rng)
        made = {
            "generator": networks.generator(recipe.latent_dim, data.shape, recipe.width, self.rng),
            "critic": networks.encoder(data.shape, 1, recipe.width, self.rng),
            "encoder": networks.encoder(data.shape, recipe.latent_dim, recipe.width, self.rng),
        }
        self.networks = {name: network.to(self.device) for name, network in made.items()}
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), lr=self._rate(name), betas=_BETAS, fused=True)
            for name, network in self.networks.items()
        }
        self._values = torch.from_numpy(data.values)
        self._probe = None
        if probe is not None:
            shown = torch.from_numpy(probe.intensities(np.arange(len(probe.values))))
            self._probe = shown.to(self.device), torch.from_numpy(probe.labels).to(self.device)

    def _rate(self, name: str) -> float:
        return self.recipe.rate * (2 if name == "critic" else 1)

    def advance(self) -> None:
        """Do one step."""
        left = 1 - self.step / self.recipe.steps
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self._rate(name) * min(1.0, left / (1 - _DECAY_FROM))
        self._critic_step()
        self._generator_step(left)
        self.step += 1

    def _batch(self) -> Tensor:
        rows = torch.randint(len(self._values), (self.recipe.batch,), generator=self.rng)
        values = self._values[rows].to(self.device)
        return values / 127.5 - 1 if values.dtype == torch.uint8 else values

    def _critic_step(self) -> None:
        recipe, critic = self.recipe, self.networks["critic"]
        real = self._batch()
        z, _ = self.prior.draw(recipe.batch, self.rng)
        with torch.no_grad():
            fake = self.networks["generator"](self._on_device(z))
        if self.step % recipe.penalty_every == 0:
            scores, slope = losses.slope_penalty(critic, real)
            penalty = recipe.penalty * recipe.penalty_every * slope
        else:
            scores, penalty = critic(real), torch.zeros((), device=self.device)
        loss = losses.critic_loss(scores, critic(fake))
        self.optimizers["critic"].zero_grad()
        (loss + penalty).backward()
        self.optimizers["critic"].step()
        self.last_losses["critic"] = loss.detach()

    def _generator_step(self, left: float) -> None:
        recipe, (generator, critic, encoder) = self.recipe, self.networks.values()
        explicit = Explicit(self.prior, recipe.batch, _TEMPERATURE, self.rng) if recipe.explicit else None
        z = explicit.z.detach() if explicit else self.prior.draw(recipe.batch, self.rng)[0]
        at = self._on_device(z).requires_grad_()
        critic.requires_grad_(False)
        images = generator(at)
        adversarial = losses.adversarial(critic(images))
        chosen = stein.assigned(self.prior, z, _TEMPERATURE, self.rng)
        seen = images.detach() if recipe.no_contrastive else images
        targets = self._on_device(chosen @ self.prior.means)
        contrast = losses.contrastive(encoder(seen), targets, recipe.margin, recipe.scale)
        weight = losses.annealed(recipe.contrast, 1 - left)
        total = (adversarial + weight * contrast).mean()
        if self._probe is not None:
            shown, labels = self._probe
            means = self._on_device(self.prior.means)
            total = total + weight * losses.probe(encoder(shown), labels, means, recipe.scale)
        of_adversarial = None
        if explicit:
            (of_adversarial,) = torch.autograd.grad(adversarial.sum(), at, retain_graph=True)
        for name in ("generator", "encoder"):
            self.optimizers[name].zero_grad()
        total.backward()
        critic.requires_grad_(True)
        for name in ("generator", "encoder"):
            self.optimizers[name].step()
        slopes = self._double(at.grad) * recipe.batch
        rate = recipe.prior_rate * left
        waiting = 1 - left < recipe.wait
        rates = Rates(0.0 if waiting else rate, _MEANS_FASTER * rate, rate)
        if explicit:
            self.prior = explicit.step(slopes, self._double(of_adversarial), rates)
        else:
            gradients = stein.gradients(self.prior, z, slopes, self._double(adversarial.detach()))
            self.prior = stein.step(self.prior, gradients, rates)
        self.last_losses |= {"adversarial": adversarial.detach().mean(), "contrastive": contrast.detach().mean()}

    def _on_device(self, values: Tensor) -> Tensor:
        return values.to(device=self.device, dtype=torch.float32)

    @staticmethod
    def _double(values: Tensor | None) -> Tensor:
        return cast("Tensor", values).to(device="cpu", dtype=torch.float64)

    def losses(self) -> dict[str, float]:
        """Return the losses of the last step.

        Raises:
            GeneratorError: a loss is not finite.
        """
        values = {name: value.item() for name, value in self.last_losses.items()}
        if wrong := [name for name, value in values.items() if not np.isfinite(value)]:
            message = f"the {wrong[0]} loss is not finite at step {self.step:,}: training diverged"
            raise GeneratorError(message, "start again with a smaller `rate`, or another `seed`")
        return values

    def mixture(self) -> Mixture:
        """Return the learned prior as a `Mixture`."""
        weights = self.prior.weights.numpy()
        return Mixture(weights / weights.sum(), self.prior.means.numpy(), self.prior.factors.numpy())

    @torch.no_grad()
    def render(self, z: np.ndarray) -> np.ndarray:
        """Return the points or images [n, ...] float32 of latents [n, D]."""
        generator: nn.Module = self.networks["generator"]
        parts = torch.from_numpy(z).split(500)
        return torch.cat([generator(self._on_device(part)).cpu() for part in parts]).numpy()

    @torch.no_grad()
    def clusters(self, values: np.ndarray) -> np.ndarray:
        """Return the component [n] of each sample [n, ...] float32: the nearest mean in angle to its encoding."""
        means = nn.functional.normalize(self._on_device(self.prior.means), dim=1)
        parts = torch.from_numpy(values).split(500)
        nearest = [(self.networks["encoder"](part.to(self.device)) @ means.T).argmax(1).cpu() for part in parts]
        return torch.cat(nearest).numpy()
