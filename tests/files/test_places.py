"""Which weights of a file are meant: an average before raw ones, names under a prefix; both are named where unclear."""

import pytest

from magnet_cli.errors import GeneratorError
from magnet_cli.files.checkpoints import places

NETWORK = {"main.0.weight": (2, 2), "main.1.bias": (2,)}


def fits(shapes):
    return shapes.keys() >= NETWORK.keys()


def under(prefix):
    return {prefix + name: shape for name, shape in NETWORK.items()}


def chosen(groups, asked=""):
    place, others = places.choose(groups, fits, "some.pt", asked)
    return str(place), tuple(map(str, others))


@pytest.mark.parametrize(
    "key", ["state_dict_ema", "g_ema", "avgG", "modelEMA", "EMAModel", "params_ema", "G_running", "Shadow"]
)
def test_an_average_goes_before_raw_weights(key):
    assert chosen({"state_dict": NETWORK, key: NETWORK}) == (key, ("state_dict",))
    assert chosen({"": under("raw.") | under(f"{key}.")}) == (key, ("raw",))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "generator.", "model.gen.net."])
def test_a_prefix_is_taken_off(prefix):
    beside = {"discriminator.main.0.weight": (2, 2), "n_averaged": ()}
    assert chosen({"state_dict": under(prefix) | beside}) == (f"state_dict.{prefix.removesuffix('.')}", ())
    assert places.Place("", prefix).taken(under(prefix) | beside) == NETWORK


@pytest.mark.parametrize("key", ["schema", "temavg1", "remain", "average_pool_like"])
def test_other_words_mean_no_average(key):
    assert places.Place(key).is_average == (key == "average_pool_like")


def test_where_it_is_not_clear_all_are_named_and_one_can_be_asked_for():
    groups = {"netG_A": NETWORK, "netG_B": NETWORK, "netD": {"x": (1,)}}
    with pytest.raises(GeneratorError, match=r"holds 2 networks that fit: netG_A, netG_B; which .* not clear") as error:
        chosen(groups)
    assert "--weights netG_A" in error.value.hint
    assert chosen(groups, "netG_B") == ("netG_B", ("netG_A",))
    with pytest.raises(GeneratorError, match="and netG_C is asked for"):
        chosen(groups, "netG_C")
    with pytest.raises(GeneratorError, match="which of them is meant is not clear"):
        chosen({"ema_fast": NETWORK, "ema_slow": NETWORK, "raw": NETWORK})


def test_where_nothing_fits_the_keys_are_listed():
    groups = {"": {"step": (1,)}, "optimizer.state.0": {"exp_avg": (2,), "exp_avg_sq": (2,)}}
    listed = r"1 tensor in the top of the file \(step\), 2 tensors in optimizer\.state\.0 \(exp_avg, …\)"
    with pytest.raises(GeneratorError, match=listed):
        chosen(groups)
    with pytest.raises(GeneratorError, match="it holds no tensors by name"):
        chosen({})
    with pytest.raises(GeneratorError, match="and 94 mappings more"):
        chosen({str(number): {"x": (1,)} for number in range(100)})
