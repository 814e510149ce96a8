"""jacobian.trust: functions whose Jacobian means nothing are refused, with what to do about it."""

import pytest
import torch

from magnet_cli.errors import GeneratorError
from magnet_cli.jacobian import trust

LATENTS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


def test_a_function_of_each_latent_is_trusted():
    trust.check(lambda z: torch.tanh(z @ torch.ones(3, 5)), LATENTS)
    trust.check(torch.nn.BatchNorm1d(3).eval(), LATENTS)


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
        trust.check(function, LATENTS)
    assert said in error.value.message
    assert error.value.hint
