"""Settings of a DCGAN that its weights do not tell: strides, paddings, activations; sizes by torch's own modules."""

import itertools

import pytest
import torch
from torch import nn
from toys import toy_weights

from magnet_cli.errors import GeneratorError
from magnet_cli.models.generators import dcgan


def truth(state, strides, paddings, between, last, eps=1e-5):
    """The network by torch's own modules, one after the other."""
    shapes = [v.shape for k, v in state.items() if v.ndim == 4]
    layers = []
    for i, (shape, stride, padding) in enumerate(zip(shapes, strides, paddings, strict=True)):
        layers.append(nn.ConvTranspose2d(shape[0], shape[1], shape[2], stride, padding, bias=False))
        if i < len(shapes) - 1:
            layers += [nn.BatchNorm2d(shape[1], eps), between]
    network = nn.Sequential(*layers, last).double().eval()
    counters = {k: v for k, v in network.state_dict().items() if k.endswith("num_batches_tracked")}
    network.load_state_dict({k.removeprefix("main."): v.double() for k, v in state.items()} | counters)
    return network


Z = torch.randn(3, 5, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("settings", "between", "last", "side"),
    [
        ({}, nn.ReLU(), nn.Tanh(), 32),
        ({"paddings": [0, 1, 1, 3]}, nn.ReLU(), nn.Tanh(), 28),
        ({"slope": 0.2}, nn.LeakyReLU(0.2), nn.Tanh(), 32),
        ({"final": "sigmoid"}, nn.ReLU(), nn.Sigmoid(), 32),
        ({"final": "none", "eps": 0.1}, nn.ReLU(), nn.Identity(), 32),
        ({"strides": [1, 2, 1, 2], "paddings": [0, 1, 0, 1]}, nn.ReLU(), nn.Tanh(), 22),
    ],
)
def test_settings_give_the_network_that_was_trained(settings, between, last, side):
    state = toy_weights(widths=(8, 4, 2))
    network = dcgan.build(state, **settings)
    strides, paddings = settings.get("strides", [1, 2, 2, 2]), settings.get("paddings", [0, 1, 1, 1])
    known = truth(state, strides, paddings, between, last, settings.get("eps", 1e-5))(Z)
    known = 2 * known - 1 if settings.get("final") == "sigmoid" else known
    assert network.image_shape == (1, side, side) == known.shape[1:]
    torch.testing.assert_close(network(Z[:, :, 0, 0]), known, rtol=0, atol=1e-12)
    assert network.told == {"strides": strides, "paddings": paddings}


def test_other_kernels_need_their_strides_and_paddings():
    state = toy_weights(widths=(8, 4))
    rng = torch.Generator().manual_seed(1)
    state |= {f"main.{n}.weight": torch.randn(*s, generator=rng) for n, s in ((0, (5, 8, 7, 7)), (6, (4, 1, 2, 2)))}
    assert dcgan.recognises({k: tuple(v.shape) for k, v in state.items()})
    with pytest.raises(GeneratorError, match="kernels of 7, 4, 2, and weights tell their strides and paddings only"):
        dcgan.build(state)
    told = {"strides": [1, 2, 2], "paddings": [0, 1, 0]}
    known = truth(state, told["strides"], told["paddings"], nn.ReLU(), nn.Tanh())(Z)
    torch.testing.assert_close(dcgan.build(state, **told)(Z[:, :, 0, 0]), known, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"paddings": [0, 1, 1]}, "there are 4 convolutions"),
        ({"strides": [0, 2, 2, 2]}, "there are 4 convolutions"),
        ({"paddings": [2, 2, 2, 2]}, "leave no pixel after convolution 0"),
        ({"final": "relu"}, "a DCGAN has tanh, sigmoid, none"),
        ({"eps": -1.0}, "a positive number"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, said):
    with pytest.raises(GeneratorError, match=said):
        dcgan.build(toy_weights(widths=(8, 4, 2)), **settings)


def test_a_discriminator_is_no_generator():
    """It has the same names; its convolutions lead the other way."""
    sizes = (1, 8, 16, 32, 1)
    shapes = {f"main.{2 * i}.weight": (b, a, 4, 4) for i, (a, b) in enumerate(itertools.pairwise(sizes))}
    assert not dcgan.recognises(shapes)
    names = reversed(shapes)
    assert dcgan.recognises(dict(zip(names, shapes.values(), strict=True)))  # in the other order they would be one
