"""products: layers whose fast forms have no forward mode, functions that have one mode only, and what is refused."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from magnet_cli.errors import GeneratorError
from magnet_cli.maths.jacobian import checks, products, singular_values

D = 6


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(D, 64) for _ in range(3))

    def forward(self, z):
        q, k, v = (f(z).view(-1, 2, 4, 8) for f in (self.q, self.k, self.v))
        return functional.scaled_dot_product_attention(q, k, v).flatten(1)


class Encodes(nn.Module):
    """z to four tokens, through a layer, to 48 numbers."""

    def __init__(self, layer):
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(D, 64), layer, nn.Linear(16, 12)

    def forward(self, z):
        x = self.first(z).view(-1, 4, 16)
        x = self.layer(x, x, x, need_weights=False) if isinstance(self.layer, nn.MultiheadAttention) else self.layer(x)
        return self.last(x[0] if isinstance(x, tuple) else x).flatten(1)


LAYERS = {
    "attention": Attends,
    "multi-head attention": lambda: Encodes(nn.MultiheadAttention(16, 2, batch_first=True)),
    "transformer": lambda: Encodes(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)),
    "encoder": lambda: Encodes(nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)),
    "LSTM": lambda: Encodes(nn.LSTM(16, 16, batch_first=True)),
    "GRU": lambda: Encodes(nn.GRU(16, 16, num_layers=2, batch_first=True)),
    "RNN": lambda: Encodes(nn.RNN(16, 16, batch_first=True, bidirectional=False)),
}


def z_of(dtype):
    return torch.randn(3, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def dense(function, z):
    """Singular values [B, D] by plain reverse mode and a full SVD."""
    rows = [torch.autograd.functional.jacobian(lambda one: function(one[None])[0], one) for one in z]
    return torch.linalg.svdvals(torch.stack(rows).to(torch.float64)).numpy()


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("name", LAYERS)
def test_attention_and_recurrent_layers_are_differentiated_in_their_mathematical_forms(name):
    torch.manual_seed(0)
    module = LAYERS[name]().eval().requires_grad_(False)
    values = singular_values(module, z_of(torch.float32), D)
    reference = dense(module.to(torch.float64), z_of(torch.float64))
    assert (abs(values.numpy() - reference) < 1e-6 * reference[:, :1]).all()
    exact = singular_values(module, z_of(torch.float64), D)
    np.testing.assert_allclose(exact, reference, rtol=1e-9)
    checks.check_modes(module, z_of(torch.float64))


def test_the_settings_of_torch_are_left_as_they_were():
    backends = torch.backends
    before = backends.mha.get_fastpath_enabled(), backends.cuda.flash_sdp_enabled(), torch._C._get_mkldnn_enabled()
    products.forward(LAYERS["LSTM"]().eval(), z_of(torch.float32), torch.eye(D))
    with pytest.raises(GeneratorError):
        products.forward(backwards_only, z_of(torch.float32), torch.eye(D))
    after = backends.mha.get_fastpath_enabled(), backends.cuda.flash_sdp_enabled(), torch._C._get_mkldnn_enabled()
    assert before == after


class Swish(torch.autograd.Function):
    """As people wrote them before torch.func: forward mode and vmap know nothing of it."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return grad * s * (1 + x * (1 - s))


torch.manual_seed(0)
WEIGHT = torch.randn(9, D, dtype=torch.float64) / 2


def linear(z):
    return z @ WEIGHT.T.to(z)


def backwards_only(z):
    return Swish.apply(linear(z))


def sampled(z):
    """An image of 9 × 9 that z shifts."""
    image = torch.sin(torch.arange(81.0, dtype=z.dtype)).view(1, 1, 9, 9).expand(len(z), -1, -1, -1)
    turn = torch.eye(2, 3, dtype=z.dtype) + 0.1 * z.view(-1, 2, 3)
    return functional.grid_sample(image, functional.affine_grid(turn, image.shape, align_corners=False)).flatten(1)


ONE_MODE = {
    "custom function": backwards_only,
    "grid_sample": sampled,
    "checkpoint": lambda z: checkpoint(lambda x: torch.tanh(linear(x)), z, use_reentrant=False),
}


@pytest.mark.filterwarnings("ignore:Default grid_sample")
@pytest.mark.parametrize("name", ONE_MODE)
def test_a_function_with_reverse_mode_alone_has_exact_values(name):
    function, z = ONE_MODE[name], z_of(torch.float64)
    checks.check_slope(function, z, by_reverse=True)
    np.testing.assert_allclose(singular_values(function, z, D), dense(function, z), rtol=1e-7)
    few = singular_values(lambda one: function(one)[:, :4], z, 3)  # fewer outputs than latents
    np.testing.assert_allclose(few, dense(lambda one: function(one)[:, :4], z)[:, :3], rtol=1e-7)


def test_a_wrong_reverse_mode_is_refused():
    with pytest.raises(GeneratorError, match="the derivative torch computes"):
        checks.check_slope(
            lambda z: backwards_only(z) + backwards_only(3 * z.detach()), z_of(torch.float64), by_reverse=True
        )


def test_noise_of_a_seed_of_its_own_is_no_noise():
    def function(z):
        torch.manual_seed(0)
        return torch.tanh(linear(z)) + torch.randn(9, dtype=z.dtype)

    z = z_of(torch.float64)
    np.testing.assert_allclose(singular_values(function, z, D), dense(function, z), rtol=1e-9)


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(9))

    def forward(self, z):
        x = linear(z)
        self.mean.copy_(x.detach().mean(0).lerp(self.mean.to(x), 0.9))
        return x


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (sampled, "torch has no forward mode for grid_sampler_2d"),
        (backwards_only, r"uses a torch\.autograd\.Function"),
        (lambda z: checkpoint(linear, z, use_reentrant=True), "checkpoint"),
        (Counts(), "it changes a buffer of the module"),
        (lambda z: linear(z.detach().requires_grad_()), "cut off from z"),
    ],
)
@pytest.mark.filterwarnings("ignore:Default grid_sample")
def test_what_is_refused_is_told_by_its_cause(function, said):
    with pytest.raises(GeneratorError, match=said) as error:
        products.forward(function, z_of(torch.float32), torch.eye(D))
    assert error.value.hint
    assert "github" not in error.value.message


def test_a_change_in_place_is_told_by_its_cause():
    with pytest.raises(GeneratorError, match="changes a tensor in place") as error:
        checks.check_modes(lambda z: torch.tanh(linear(z)).mul_(2), z_of(torch.float64))
    assert "mul_" in error.value.hint


def test_a_function_that_fails_on_a_latent_alone_is_told_so():
    with pytest.raises(GeneratorError, match="fails on a latent alone"):
        checks.check(nn.BatchNorm1d(D, track_running_stats=False).eval(), z_of(torch.float32))
