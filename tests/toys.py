"""Small real networks with random weights."""

import numpy as np
import torch

from magnet_cli.generators.dcgan import DCGAN
from magnet_cli.mixture import Mixture
from magnet_cli.slogan import networks


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


def stylegan3_weights(resolution=16, radial=False, *, base=128, width=8, num_layers=4, margin=2, style_dim=8, seed=0):
    """State dict of a StyleGAN3-T, or -R where radial, with random weights, its layers laid out as the paper has them
    (Karras et al. 2021, section 3.2, "flexible layer specifications"); z as wide as w."""
    torch_rng = torch.Generator().manual_seed(seed)
    state = {}

    def add(name, *shape, scale=1.0, offset=0.0):
        state[name] = torch.randn(shape, generator=torch_rng) * scale + offset

    steps = np.minimum(np.arange(num_layers + 1) / (num_layers - 2), 1)
    cutoffs = 2 * (resolution / 4) ** steps
    stopbands = 2**2.1 * (resolution / 2 * 2**0.3 / 2**2.1) ** steps
    rates = np.exp2(np.ceil(np.log2(np.minimum(2 * stopbands, resolution)))).astype(int).tolist()
    sizes = [rate + 2 * margin for rate in rates[:-2]] + [resolution] * 2
    widths = np.rint(np.minimum(base / 2 / cutoffs, width)).astype(int).tolist()
    for i in range(2):
        add(f"mapping.fc{i}.weight", style_dim, style_dim, scale=100.0)
        add(f"mapping.fc{i}.bias", style_dim, scale=10.0)
    add("mapping.w_avg", style_dim, scale=0.1)
    add("synthesis.input.weight", widths[0], widths[0])
    add("synthesis.input.freqs", widths[0], 2)
    add("synthesis.input.phases", widths[0])
    state["synthesis.input.transform"] = torch.eye(3)
    add("synthesis.input.affine.weight", 4, style_dim, scale=0.1)
    state["synthesis.input.affine.bias"] = torch.tensor([1.0, 0.0, 0.0, 0.0])

    def low_pass(taps, factor):
        at = torch.arange(taps) - (taps - 1) / 2
        line = torch.sinc(at / factor) * torch.kaiser_window(taps, periodic=False, beta=3.0)
        return line / line.sum()

    for number in range(num_layers + 1):
        n_in, last = widths[max(number - 1, 0)], number == num_layers
        n_out, kernel = 3 if last else widths[number], 1 if radial or last else 3
        name = f"synthesis.L{number}_{sizes[number]}_{n_out}"
        add(f"{name}.affine.weight", n_in, style_dim)
        add(f"{name}.affine.bias", n_in, scale=0.1, offset=1.0)
        add(f"{name}.weight", n_out, n_in, kernel, kernel)
        add(f"{name}.bias", n_out, scale=0.1)
        state[f"{name}.magnitude_ema"] = torch.tensor(1.0)
        if not last:
            factor = 2 * rates[number] // rates[max(number - 1, 0)]
            line = low_pass(12, 2)
            state[f"{name}.up_filter"] = low_pass(6 * factor, factor)
            state[f"{name}.down_filter"] = torch.outer(line, line) if radial and number < num_layers - 2 else line
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


def some_mixture(components=3, latent_dim=4, seed=0):
    """A mixture of components that overlap, of different shapes; weights in proportion to 1, 2, …"""
    rng = np.random.default_rng(seed)
    factors = np.tril(0.3 * rng.normal(size=(components, latent_dim, latent_dim)), -1)
    factors += np.apply_along_axis(np.diag, 1, 0.5 + rng.random((components, latent_dim)))
    weights = np.arange(1, components + 1) / (components * (components + 1) / 2)
    return Mixture(weights, rng.normal(size=(components, latent_dim)), factors)


def slogan_weights(shape=(1, 12, 12), mixture=None, seed=0):
    """State dict of an untrained SLOGAN: 3 components, D = 4."""
    mixture = mixture or some_mixture()
    body = networks.generator(mixture.latent_dim, shape, 4, torch.Generator().manual_seed(seed))
    state = {f"body.{name}": value for name, value in body.state_dict().items()}
    parts = ("weights", "means", "factors")
    return state | {f"mixture.{name}": torch.from_numpy(getattr(mixture, name)) for name in parts}


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
