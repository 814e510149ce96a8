"""Generators: latents in, images out, whatever the architecture.

Owns the Generator contract and `load`, the one door to it. Knows nothing of caches, volumes or Jacobians.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from magnet_cli.artifacts.cache import Checkpoint
from magnet_cli.errors import GeneratorError
from magnet_cli.generators import dcgan
from magnet_cli.generators.readers import read_state_dict

FAMILIES = {"dcgan": dcgan}


@dataclass(frozen=True)
class Generator:
    """A pretrained generator: latent [B, D] to image [B, C, H, W] in [-1, 1].

    Attributes:
        name: what the user calls it.
        family: the architecture, a key of FAMILIES.
        sha256: of the checkpoint's bytes.
        latent_dim: D.
        image_shape: (C, H, W).
        prior: the distribution of its latents; "normal" is N(0, I), "sphere" uniform on |z| = √D: that of generators
            which normalise z, whatever they draw from.
        num_classes: 0 where it takes no labels.
        module: the network, in eval mode, without gradients of its weights.
        spaces: where the input of its Jacobian can live.
        outputs: what of its own its Jacobian can be taken of; image models can follow the images of any.
    """

    name: str
    family: str
    sha256: str
    latent_dim: int
    image_shape: tuple[int, int, int]
    prior: str
    num_classes: int
    module: nn.Module
    spaces: tuple[str, ...] = ("z",)
    outputs: tuple[str, ...] = ("pixel",)

    def __call__(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        """Images [B, C, H, W] of latents [B, D], differentiable; z is scaled by the truncation ψ in (0, 1] first."""
        return self.module(z * truncation)


def load(checkpoint: Checkpoint, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Generator:
    """The generator in a checkpoint; family and sizes are read from the weights.

    Args:
        checkpoint: where the file is; its bytes are verified against its sha256 before they are read.
        device: "cpu", "cuda", "cuda:1", "mps".
        dtype: of the weights, hence of every product.

    Raises:
        ArtifactError: the bytes are not those that were pinned.
        GeneratorError: no family fits the weights, or the device does not exist.
    """
    if checkpoint.family and checkpoint.family not in FAMILIES:
        message = f"{checkpoint.name} is of the family {checkpoint.family}, which this magnet cannot build"
        raise GeneratorError(message, f"families it can: {', '.join(FAMILIES)}; `magnet list` shows whose are whose")
    state = read_state_dict(checkpoint.read(), checkpoint.name)
    family = next((name for name, module in FAMILIES.items() if module.recognises(state)), None)
    if family is None:
        names = ", ".join(list(state)[:3])
        message = f"the weights of {checkpoint.name} fit no family magnet can build; their first tensors: {names}"
        raise GeneratorError(message, f"families: {', '.join(FAMILIES)}")
    network = FAMILIES[family].build(state)
    return Generator(
        name=checkpoint.name,
        family=family,
        sha256=checkpoint.sha256,
        latent_dim=network.latent_dim,
        image_shape=network.image_shape,
        prior="normal",
        num_classes=0,
        # channels_last: convolutions run up to twice as fast on CPUs and GPUs alike
        module=network.to(device=check_device(device), dtype=dtype).to(memory_format=torch.channels_last),
    )


def check_device(device: str) -> torch.device:
    """The torch device of that name.

    Raises:
        GeneratorError: this machine has no such device.
    """
    kind, _, number = device.partition(":")
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if int(number or 0) < counts[kind]:
        return torch.device(device)
    found = ", ".join(f"{k} ({n})" for k, n in counts.items() if n)
    message = f"there is no device {device!r} here; found: {found}"
    raise GeneratorError(message, "pass --device cpu, or one of those found (MAGNET_DEVICE sets the default)")


def devices(asked: str | None) -> list[str]:
    """The devices that a user means: one, several with commas between, "all" CUDA devices, or None for the default.

    Raises:
        GeneratorError: this machine has no such device.
    """
    names = (asked or default_device()).split(",")
    if names == ["all"]:
        names = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        if not names:
            message = "all CUDA devices are asked for, and there is none here"
            raise GeneratorError(message, "pass --device cpu, with --workers W for W processes")
    for name in names:
        check_device(name)
    return names


def default_device() -> str:
    """The device used where none is asked: "cuda" where there is one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"
