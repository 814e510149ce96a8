"""jacobian.trust: functions whose Jacobian means nothing are refused, with what to do about it."""

import pytest
import torch

from magnet_cli.errors import GeneratorError
from magnet_cli.maths.jacobian import checks

LATENTS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


def test_a_function_of_each_latent_is_trusted():
    checks.check(lambda z: torch.tanh(z @ torch.ones(3, 5)), LATENTS)
    checks.check(torch.nn.BatchNorm1d(3).eval(), LATENTS)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda z: (z, z), "returns a tuple"),
        (lambda z: z.round().to(torch.int64), "cannot be differentiated"),
        (lambda z: z.sum(), "maps 4 latents to a tensor of shape []"),
        (lambda z: z / 0 * 0, "not finite, at 4 of 4 latents"),
        (lambda z: z + torch.rand_like(z), "different values for the same latents"),
        (torch.nn.Dropout(0.5), "different values for the same latents"),
        (lambda z: z - z.mean(dim=0), "alone than in a batch"),
    ],
)
def test_what_is_no_function_of_each_latent_is_refused(function, said):
    with pytest.raises(GeneratorError) as error:
        checks.check(function, LATENTS)
    assert said in error.value.message
    assert error.value.hint


# --- the derivative is the function's own --------------------------------------------------------------------------


def network():
    torch.manual_seed(1)
    layers = [torch.nn.Linear(3, 64), torch.nn.ReLU(), torch.nn.Linear(64, 20), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers).requires_grad_(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "function",
    [
        network(),
        torch.sin,
        lambda z: z / z.norm(dim=1, keepdim=True),
        lambda z: 1e-6 * torch.relu(z),
        lambda z: 1e6 + z,
        torch.ones_like,
    ],
)
def test_derivatives_that_are_the_functions_own_are_trusted(function, dtype):
    function = function.to(dtype) if isinstance(function, torch.nn.Module) else function
    checks.check_slope(function, LATENTS.to(dtype))


@pytest.mark.parametrize(
    "function",
    [
        lambda z: torch.tanh(z.detach()),
        lambda z: torch.sin(z) + 0.2 * torch.sin(3 * z.detach()),
        lambda z: z + (torch.round(4 * z) / 4 - z).detach(),  # a straight-through estimator
        lambda z: torch.round(64 * torch.tanh(z)) / 64,
    ],
)
def test_a_detached_derivative_is_refused(function):
    with pytest.raises(GeneratorError, match="the derivative torch computes") as error:
        checks.check_slope(function, LATENTS)
    assert "detach" in error.value.hint


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", [network(), torch.sin, lambda z: z / z.norm(dim=1, keepdim=True), torch.ones_like])
def test_functions_with_one_derivative_are_trusted(function, dtype):
    function = function.to(dtype) if isinstance(function, torch.nn.Module) else function
    checks.check_modes(function, LATENTS.to(dtype))


@torch.no_grad()
def hidden(z):
    return torch.sin(z)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (hidden, "forward and reverse mode give other derivatives"),
        (lambda z: torch.sin(z) + hidden(3 * z), "forward and reverse mode give other derivatives"),
        (lambda z: z + (z - z).abs().sqrt(), "a derivative that is not finite"),
    ],
)
def test_what_one_mode_does_not_see_is_refused(function, said):
    with pytest.raises(GeneratorError, match=said) as error:
        checks.check_modes(function, LATENTS)
    assert error.value.hint
