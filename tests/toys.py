"""Small real networks with random weights."""

import torch

from magnet_cli.generators.dcgan import DCGAN


def toy_weights(seed=0, latent_dim=5, widths=(8,), channels=1):
    """State dict of a small DCGAN with every buffer random, so that batch norm does something."""
    torch_rng = torch.Generator().manual_seed(seed)
    network = DCGAN(latent_dim, widths, channels)
    state = {}
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            drawn = torch.randn(value.shape, generator=torch_rng) * 0.4
            state[name] = drawn.abs() + 0.5 if name.endswith("running_var") else drawn
    return state
