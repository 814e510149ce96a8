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


def stylegan2_weights(resolution=16, latent_dim=8, style_dim=8, channel_base=64, channel_max=8, num_layers=2, seed=0):
    """State dict of a StyleGAN2 ("skip") in NVlabs' naming, as initialised, but that noise and mean are not zero."""
    torch_rng = torch.Generator().manual_seed(seed)
    state = {}

    def add(name, *shape, scale=1.0, offset=0.0):
        state[name] = torch.randn(shape, generator=torch_rng) * scale + offset

    def conv(name, side, n_in, n_out, kernel=3):
        add(f"{name}.affine.weight", n_in, style_dim)
        add(f"{name}.affine.bias", n_in, scale=0.1, offset=1.0)
        add(f"{name}.weight", n_out, n_in, kernel, kernel)
        add(f"{name}.bias", n_out, scale=0.1)
        if kernel == 3:
            add(f"{name}.noise_const", side, side)
            add(f"{name}.noise_strength", scale=0.1)

    sizes = [latent_dim] + [style_dim] * num_layers
    for i in range(num_layers):
        add(f"mapping.fc{i}.weight", sizes[i + 1], sizes[i], scale=100.0)
        add(f"mapping.fc{i}.bias", sizes[i + 1], scale=10.0)
    add("mapping.w_avg", style_dim, scale=0.1)
    width = min(channel_base // 4, channel_max)
    add("synthesis.b4.const", width, 4, 4)
    side = 4
    while side <= resolution:
        block, n_out = f"synthesis.b{side}", min(channel_base // side, channel_max)
        if side > 4:
            conv(f"{block}.conv0", side, width, n_out)
        conv(f"{block}.conv1", side, n_out if side > 4 else width, n_out)
        conv(f"{block}.torgb", side, n_out, 3, kernel=1)
        width, side = n_out, side * 2
    return state


def nvae_weights(seed=0):
    """State dict of an NVAE decoder: groups of 2x2x2 and 2x4x4 (D = 8, or 40 of both), 1x8x8 Bernoulli images."""
    torch_rng = torch.Generator().manual_seed(seed)
    state = {}

    def add(name, *shape, scale=0.5, offset=0.0):
        state[name] = torch.randn(shape, generator=torch_rng) * scale + offset

    def conv(name, n_in, n_out, kernel=1, bias=True):
        add(f"{name}.weight", n_out, n_in, kernel, kernel)
        add(f"{name}.log_weight_norm", n_out, 1, 1, 1)
        if bias:
            add(f"{name}.bias", n_out)

    def norm(name, size):
        for part in ("weight", "bias", "running_mean"):
            add(f"{name}.{part}", size)
        add(f"{name}.running_var", size, scale=0.1, offset=1.0)

    def cell(name, n_in, n_out, first):
        if first:  # where the side is doubled, that takes the first place
            conv(f"{name}.skip.1", n_in, n_out, bias=False)
        inside = f"{name}._ops.0.conv"
        norm(f"{inside}.{first}.bn", n_in)
        add(f"{inside}.{first + 1}.conv.0.weight", 8, n_in, 1, 1)
        norm(f"{inside}.{first + 1}.conv.1", 8)
        add(f"{inside}.{first + 2}.conv.0.weight", 8, 1, 5, 5)
        norm(f"{inside}.{first + 2}.conv.1", 8)
        add(f"{inside}.{first + 3}.weight", n_out, 8, 1, 1)
        norm(f"{inside}.{first + 4}.bn", n_out)

    add("prior_ftr0", 4, 2, 2)
    conv("dec_tower.0.conv", 6, 4)
    cell("dec_tower.1", 4, 4, 1)
    conv("dec_sampler.0.1", 4, 4)
    conv("dec_tower.2.conv", 6, 4)
    cell("post_process.0", 4, 4, 1)
    cell("post_process.1", 4, 4, 0)
    conv("image_conditional.1", 4, 1, kernel=3)
    return state
