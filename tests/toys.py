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


BIGGAN_DEEP_256 = {  # Brock et al. 2019: every second block doubles the side
    "widths": ((16, 16), (16, 16), (16, 16), (16, 8), (8, 8), (8, 8), (8, 8), (8, 4), (4, 4), (4, 2), (2, 2), (2, 1)),
    "attention": 8,
    "channels": 128,
    "latent_dim": 128,
    "num_classes": 1000,
    "rows": 51,
}


def biggan_weights(widths, attention, channels, latent_dim, num_classes, rows, seed=0, device="cpu"):
    """State dict of a BigGAN-deep in huggingface's naming; weights random but for scale, spectral norms not converged.

    On the device "meta", shapes alone.
    """
    torch_rng = None if device == "meta" else torch.Generator(device).manual_seed(seed)
    state = {}

    def normal(*shape):
        return torch.randn(shape, generator=torch_rng, device=device)

    def weight(name, *shape, bias=False):
        drawn = normal(*shape)
        left, matrix = normal(shape[0]), drawn.flatten(1)
        for _ in range(2):
            right = torch.nn.functional.normalize(matrix.T @ left, dim=0)
            left = torch.nn.functional.normalize(matrix @ right, dim=0)
        state.update({f"{name}.weight_orig": drawn, f"{name}.weight_u": left, f"{name}.weight_v": right})
        if bias:
            state[f"{name}.bias"] = 0.1 * normal(shape[0])

    def statistics(name, width):
        state[f"{name}.running_means"] = 0.1 * normal(rows, width)
        state[f"{name}.running_vars"] = 0.5 + normal(rows, width).square()

    def block(name, n_in, n_out):
        middle = n_in // 4
        shapes = [(middle, n_in, 1, 1), (middle, middle, 3, 3), (middle, middle, 3, 3), (n_out, middle, 1, 1)]
        for i, shape in enumerate(shapes):
            statistics(f"{name}.bn_{i}", shape[1])
            for part in ("scale", "offset"):
                weight(f"{name}.bn_{i}.{part}", shape[1], 2 * latent_dim)
            weight(f"{name}.conv_{i}", *shape, bias=True)

    state["embeddings.weight"] = normal(latent_dim, num_classes)
    weight("generator.gen_z", 16 * widths[0][0] * channels, 2 * latent_dim, bias=True)
    for i, (n_in, n_out) in enumerate(widths):
        if i == attention:
            name, width = f"generator.layers.{i}", n_in * channels
            for part, shape in {"theta": (8, 1), "phi": (8, 1), "g": (2, 1), "o_conv": (1, 2)}.items():
                weight(f"{name}.snconv1x1_{part}", width // shape[0], width // shape[1], 1, 1)
            state[f"{name}.gamma"] = normal(1)
        block(f"generator.layers.{i + (i >= attention)}", n_in * channels, n_out * channels)
    last = widths[-1][1] * channels
    statistics("generator.bn", last)
    state["generator.bn.weight"], state["generator.bn.bias"] = 1 + 0.1 * normal(last), 0.1 * normal(last)
    weight("generator.conv_to_rgb", channels, last, 3, 3, bias=True)
    return state
