"""What modules return: the tensor that is meant, and intensities of another range than is assumed."""

import collections
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from magnet_cli import computing, models
from magnet_cli.errors import GeneratorError
from magnet_cli.models import custom, outputs


class Map(nn.Module):
    """Images [B, 3, 8, 8] of 4 numbers, between -1 and 1."""

    latent_dim = 4

    def __init__(self, returned=lambda x: x):
        super().__init__()
        self.mix, self.returned = nn.Linear(4, 192), returned
        nn.init.normal_(self.mix.weight, std=0.5, generator=torch.Generator().manual_seed(0))
        nn.init.zeros_(self.mix.bias)

    def forward(self, z):
        return self.returned(torch.tanh(self.mix(z)).reshape(-1, 3, 8, 8))


@dataclass
class Output(collections.OrderedDict):
    """As diffusers and transformers write theirs."""

    sample: torch.Tensor | None = None
    other: torch.Tensor | None = None


Named = collections.namedtuple("Named", "images features")  # as people write it
UNDERSTOOD = {
    "an object": (lambda x: Output(sample=x), "sample"),
    "a usual name": (lambda x: Output(sample=x, other=2 * x), "sample"),
    "a dict": (lambda x: {"fake": x, "step": 3}, "fake"),
    "features": (lambda x: {"last_hidden_state": x, "pooled": x.mean((2, 3))}, "last_hidden_state"),
    "a tuple": (lambda x: (x, None), "0"),
    "the only image": (lambda x: [x.flatten(1), x, torch.zeros(3)], "1"),
    "a named tuple": (lambda x: Named(x, x.flatten(1)), "images"),
}


@pytest.mark.parametrize("kind", UNDERSTOOD)
def test_the_tensor_that_is_meant(kind):
    returned, key = UNDERSTOOD[kind]
    source, plain = custom.from_module(Map(returned)), custom.from_module(Map())
    assert (source.key, source.image_shape, plain.key) == (key, (3, 8, 8), "")
    assert source.sha256 != plain.sha256  # another key may come with the same weights
    z = torch.ones(2, 4)
    torch.testing.assert_close(models.load(source)(z), models.load(plain)(z), rtol=0, atol=0)


def test_a_key_says_which(magnet):
    both = Map(lambda x: {"fake": x, "mask": x / 2})
    with pytest.raises(GeneratorError, match=r"a dict with the keys fake \[2, 3, 8, 8\], mask \[2, 3, 8, 8\]"):
        custom.from_module(both)
    with pytest.raises(GeneratorError, match="without the key 'masks'"):
        custom.from_module(both, key="masks")
    fake, mask = (models.load(both, key=key) for key in ("fake", "mask"))
    z = torch.ones(2, 4)
    torch.testing.assert_close(mask(z), fake(z) / 2)
    assert computing.volume_spec(fake).fingerprint != computing.volume_spec(mask).fingerprint
    assert custom.from_module(Map(lambda x: (x, 3)), key="0") == custom.from_module(Map(lambda x: (x, 3)))
    Path("own.py").write_text(
        "import torch\nclass Two(torch.nn.Module):\n    latent_dim = 4\n    def forward(self, z):\n"
        "        return torch.sin(z), torch.cos(z)\n"
    )
    told = magnet("info", "own.py:Two", "--key", 1, "--json").json
    assert (told["key"], told["image_shape"]) == ("1", [4])
    assert 0 < told["intensities"][1] <= 1
    assert magnet("info", "mnist", "--key", "sample").code == 2


RANGES = {
    "a sigmoid": (lambda x: (x + 1) / 2, "0,1"),
    "a decoder without one": (lambda x: (1.1 * x + 1) / 2, "0,1"),
    "bytes": (lambda x: (x + 1) * 127.5, "0,255"),
    "both signs": (lambda x: 127 * x, "-127,127"),
}


@pytest.mark.parametrize("kind", RANGES)
def test_a_range_that_is_not_the_one_assumed_is_asked_for(kind):
    made, likely = RANGES[kind]
    with pytest.raises(GeneratorError, match="-1 to 1 is assumed") as error:
        custom.from_module(Map(made))
    assert error.match("images of intensities")
    assert likely in error.value.hint
    if "`image_range=(-1,1)` if that is right" in error.value.hint:  # the user knows
        assert custom.from_module(Map(made), image_range=(-1, 1)).image_range == (-1, 1)
    else:
        assert kind in {"bytes", "both signs"}
    named = tuple(float(each) for each in likely.split(","))
    x = models.load(Map(made), image_range=named)(torch.ones(2, 4))
    torch.testing.assert_close(
        x, models.load(Map())(torch.ones(2, 4)) * (1.1 if "without" in kind else 1), atol=0.03, rtol=0
    )


def test_a_range_that_is_stated_and_wrong():
    for made, stated in ((lambda x: (x + 1) * 127.5, (0, 1)), (lambda x: (x + 1) / 2, (0, 255))):
        with pytest.raises(GeneratorError, match="is stated"):
            custom.from_module(Map(made), image_range=stated)
        attributed = Map(made)
        attributed.image_range = stated
        with pytest.raises(GeneratorError, match="is stated"):
            custom.from_module(attributed)


def test_ranges_that_fit():
    """What passes the ends a little, is faint, constant, or no image is as it was."""
    for made in (lambda x: 1.4 * x, lambda x: x / 50, lambda x: x * 0 + 0.5, lambda x: (x.flatten(1) + 1) / 2):
        assert custom.from_module(Map(made)).image_range == (-1, 1)
    outputs.check_range("a night", torch.rand(2, 1, 8, 8) * 0.1 - 1, (-1, 1), stated=False)


@pytest.mark.slow
def test_nothing_is_written_before_the_range_is_known(magnet, home):
    Path("own.py").write_text(
        "import torch\nclass Own(torch.nn.Module):\n    latent_dim = 4\n    def forward(self, z):\n"
        "        return torch.sigmoid(torch.cat([z] * 48, dim=1)).reshape(-1, 3, 8, 8)\n"
    )
    np.save("z.npy", np.zeros((1, 4), np.float32))
    lines = (
        ("compute", "own.py:Own", "--n", 2),
        ("render", "own.py:Own", "--latents", "z.npy"),
        ("info", "own.py:Own"),
    )
    for line in lines:
        done = magnet(*line)
        assert (done.code, done.out) == (1, "")
        assert "do: pass --image-range 0,1, or --image-range -1,1 if that is right all the same" in done.err
    assert not home.exists()
    assert {path.name for path in Path().iterdir()} == {"own.py", "z.npy"}
    shown = magnet("render", "own.py:Own", "--latents", "z.npy", "--image-range", "0,1", "--json")
    image = next(Path(json.loads(shown.out)["out"]).glob("images/*"))
    assert np.abs(np.asarray(Image.open(image), float) - 127.5).max() <= 0.5


def test_an_image_model_returns_what_it_likes(magnet):
    Path("own.py").write_text(
        "import torch\nclass Features(torch.nn.Module):\n    def forward(self, x):\n"
        "        return {'last_hidden_state': x.flatten(1)[:, :20], 'pooled': x.mean((2, 3))}\n"
        "class Two(torch.nn.Module):\n    def forward(self, x):\n        return x.mean((2, 3)), x.flatten(1)\n"
    )
    done = magnet("compute", "mnist", "--n", 2, "--solver", "exact", "--output", "own.py:Features", "--dry-run")
    assert done.code == 0, done.err
    done = magnet("compute", "mnist", "--n", 2, "--solver", "exact", "--output", "own.py:Two")
    assert done.code == 1
    assert "own.py:Two maps images to a tuple with the keys 0 [3, 1], 1 [3, 1024], and one tensor is asked" in done.err
