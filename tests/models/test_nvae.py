"""NVAE: the recorded outputs of the official networks, then volumes and samples of such a network."""

import dataclasses
import json
import re

import numpy as np
import pytest
import recorded
import torch
from PIL import Image
from safetensors.torch import save_file
from toys import nvae_weights

from magnet_cli import computing, models
from magnet_cli.catalog import cache
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.errors import GeneratorError
from magnet_cli.maths.jacobian import products, solvers
from magnet_cli.models.generators import nvae
from magnet_cli.volume import Volume

pytestmark = pytest.mark.slow  # real networks and whole pages: `make test` runs them

FILES = ["nvae", "nvae_mnist", "nvae_normal_ada"]


def network(name, dtype=torch.float64, **settings):
    """A recorded network, and the record."""
    record = recorded.read(name)
    return nvae.build(record.groups["state"], **settings).to(dtype), record


def noises(record, dtype=torch.float64, rows=None):
    """The recorded noise of every group, all rows or the first."""
    group = record.groups["in"]
    return [group[f"eps.{k}"][:rows].to(dtype) for k in range(len(group))]


def drawn(logits, record):
    """A draw from a mixture of logistics [B, 3, H, W] in [0, 1] with the recorded uniform numbers."""
    gumbel, uniform = (record.groups["out"][f"u_{name}"].to(logits) for name in ("gumbel", "logistic"))
    parts = gumbel.shape[1]
    chosen = (logits[:, :parts] - (-gumbel.log()).log()).argmax(dim=1)
    of_colours = logits[:, parts:].reshape(len(logits), 3, 3, parts, *logits.shape[2:])
    place = chosen[:, None, None, None].expand(-1, 3, 3, 1, -1, -1)
    means, scales, slopes = of_colours.gather(3, place)[:, :, :, 0].unbind(dim=2)
    x = means + scales.clamp_min(-7).exp() * (uniform.log() - (1 - uniform).log())
    slopes, colours = slopes.tanh(), [x[:, 0].clamp(-1, 1)]
    colours.append((x[:, 1] + slopes[:, 0] * colours[0]).clamp(-1, 1))
    colours.append((x[:, 2] + slopes[:, 1] * colours[0] + slopes[:, 2] * colours[1]).clamp(-1, 1))
    return torch.stack(colours, dim=1) / 2 + 0.5


def distributions(net, eps, temperature):
    """Mean and standard deviation of every group's prior, on the way."""
    found, hooks = {}, []
    groups = [layer for layer in net.tower if isinstance(layer, nvae.Group)]
    for number, group in enumerate(groups):

        def watch(layer, inputs, number=number):
            mean, sigma = layer.distribution(inputs[0], inputs[2])
            shape = inputs[1].shape
            found[f"mu_t{temperature}.{number}"] = torch.as_tensor(mean).to(inputs[1]).expand(shape)
            found[f"sigma_t{temperature}.{number}"] = torch.as_tensor(sigma).to(inputs[1]).expand(shape)

        hooks.append(group.register_forward_pre_hook(watch))
    net.logits(eps, temperature)
    for hook in hooks:
        hook.remove()
    return found


def output(name, key, dtype):
    """What our network gives for a recorded output: name_tTEMPERATURE[.group][_sample0][_first10ch]."""
    what, temperature, group, tail = re.fullmatch(r"(.+?)_t(0\.7|1\.0)(\.\d)?(_sample0.*)?", key).groups()
    net, record = network(name, dtype)
    eps = noises(record, dtype, 1 if tail else None)
    if what.startswith("prior_"):
        return distributions(net, eps, float(temperature))[f"{what.removeprefix('prior_')}_t{temperature}{group}"]
    logits = net.logits(eps, float(temperature))
    if what == "image_sample":
        return drawn(logits, record)
    found = logits if what == "logits" else nvae.mean_of(logits) / 2 + 0.5
    return found[:, :10] if tail and "first10ch" in tail else found


def test_the_records_are_all_here():
    assert recorded.names("nvae") == FILES
    heads = [network(name)[0].head.out_channels for name in FILES]
    assert heads == [100, 1, 6]  # a mixture of ten logistics, Bernoulli, normal


@pytest.mark.parametrize("name", FILES)
def test_float64_equals_the_record(name):
    known = recorded.read(name).groups.get("out64", {})
    assert known or name == "nvae_mnist"  # it has none
    for key, value in known.items():
        error = (output(name, key, torch.float64) - value).abs().max()
        assert error <= 1e-9 * value.abs().max(), key


@pytest.mark.parametrize("name", FILES)
def test_float32_equals_the_record(name):
    record = recorded.read(name)
    compared = [key for key in record.groups["out"] if not key.startswith("u_")]  # those are inputs
    assert len(compared) >= 17
    for key in compared:
        known = record.groups["out"][key]
        if key.startswith("prior_"):  # the record has no tolerance for these
            bound = 1e-5 * float(known.abs().max().clamp_min(1))
        else:
            bound = record.tolerance(key.partition("_sample0")[0])
        assert (output(name, key, torch.float32) - known).abs().max() <= bound, key


def test_features_equal_the_record():
    net, record = network("nvae")
    layers = {f"dec_tower.{i}": layer for i, layer in enumerate(net.tower)}
    layers |= {f"post_process.{i}": layer for i, layer in enumerate(net.post)}
    assert set(record.groups["trace0"]) == set(layers)
    passed = {}
    for key, layer in layers.items():
        layer.register_forward_hook(lambda _m, _a, out, key=key: passed.update({key: out}))
    net.logits(noises(record, rows=1))
    for key, known in record.groups["trace0"].items():
        torch.testing.assert_close(passed[key][:, :4].float(), known, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_singular_values_equal_the_record(name):
    """Of the last layer's channels with respect to the first group's noise. The record is from central differences and
    good to 1e-8; how well ours agree with an exact derivative, the next test asks."""
    for dtype in (torch.float64, torch.float32):
        net, record = network(name, dtype)
        known = record.groups["jac"]["sv_logits_eps0_t1.0"]
        eps = noises(record, dtype, 1)

        def logits(z, net=net, eps=eps):
            return net.logits([z.reshape(-1, *net.shapes[0]), *(e.expand(len(z), -1, -1, -1) for e in eps[1:])])

        found = solvers.exact(logits, eps[0].flatten(1), len(known), 16)[0]
        if dtype == torch.float64:
            assert (found - known).abs().max() <= (1e-8 if name == "nvae_normal_ada" else 1e-9) * known[0]
        else:
            strong = known >= 1e-3 * known[0]
            assert strong.sum() > 10
            assert ((found - known).abs() / known)[strong].max() <= 1e-3


@pytest.mark.parametrize("latents", nvae.LATENTS)
@pytest.mark.parametrize("name", FILES)
def test_products_agree_with_each_other_and_with_differences(name, latents):
    net, _ = network(name, nvae_latents=latents)
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(2, net.latent_dim, generator=rng, dtype=torch.float64)
    tangents = torch.randn(3, *z.shape, generator=rng, dtype=torch.float64)
    pushed = products.forward(net, z, tangents)  # [B, 3, M]
    cotangents = torch.randn(3, *pushed[:, 0].shape, generator=rng, dtype=torch.float64)
    pulled = products.reverse(net, z, cotangents)  # [B, 3, D]
    forward = torch.einsum("btm,sbm->bts", pushed, cotangents)
    torch.testing.assert_close(forward, torch.einsum("tbd,bsd->bts", tangents, pulled), rtol=1e-9, atol=1e-9)
    step = 1e-6 * tangents[0]
    difference = (net(z + step) - net(z - step)).flatten(1) / 2e-6
    error = (difference - pushed[:, 0]).abs().flatten(1).max(dim=1).values
    assert (error <= 1e-5 * pushed[:, 0].abs().flatten(1).max(dim=1).values).all()


# --- which noise is the latent --------------------------------------------------------------------------------------


def test_all_groups_in_order_are_the_record():
    net, record = network("nvae", nvae_latents="all")
    z = torch.cat([e.flatten(1) for e in noises(record)], dim=1)
    assert (net.latent_dim, net.noise, net.nvae_latents) == (256 * 2 + 1024 * 2, "", "all")
    known = record.groups["out64"]["image_mean_t1.0"]
    assert (net(z) / 2 + 0.5 - known).abs().max() <= 1e-9 * known.abs().max()
    known = record.groups["out"]["image_mean_t0.7"]  # truncation is the temperature
    assert (net(z, None, 0.7) / 2 + 0.5 - known).abs().max() <= record.tolerance("image_mean_t0.7")


def test_the_other_groups_noise_is_fixed():
    top, record = network("nvae")
    everything, _ = network("nvae", nvae_latents="all")
    z = noises(record)[0].flatten(1)
    fixed = [np.random.default_rng([0, k]).standard_normal(top.shapes[k]).ravel() for k in (1, 2, 3)]
    rest = torch.from_numpy(np.concatenate(fixed))
    assert (top.latent_dim, top.noise, top.nvae_latents) == (256, "seed-0", "top")
    torch.testing.assert_close(top(z, None, 0.8), everything(torch.cat([z, rest.expand(2, -1)], dim=1), None, 0.8))
    assert (top(z[:1]) - top(z[1:])).abs().max() > 0.01


def test_images_are_within_bounds():
    for name in FILES:
        net, _ = network(name)
        images = net(5 * torch.randn(4, net.latent_dim, generator=torch.Generator().manual_seed(2)).double())
        assert images.shape == (4, *net.image_shape)
        assert images.abs().max() <= 1


# --- what a state dict tells ----------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused():
    state = recorded.read("nvae_mnist").groups["state"]
    swish = recorded.read("nvae_normal_ada").groups["state"]
    # the encoder and the copies of weights may be there or not
    nvae.build(
        {k: v for k, v in state.items() if "weight_normalized" not in k} | {"stem.weight": torch.zeros(4, 1, 3, 3)}
    )
    for whose, change, said in (
        (state, {"dec_tower.1._ops.0.conv.0.bn.bias": None}, "dec_tower.1._ops.0.conv.0.bn.bias is missing"),
        (state, {"dec_tower.2.conv.weight": None}, r"dec_tower.2._ops.0.conv.0.bn.weight is missing"),
        (state, {"dec_sampler.1.1.weight": None}, "dec_sampler.1.1.weight is missing"),
        (state, {"dec_tower.1.extra": torch.zeros(1)}, "1 of them have no place in one: dec_tower.1.extra"),
        (state, {"dec_sampler.3.1.bias": torch.zeros(8)}, "1 of them have no place in one: dec_sampler.3.1.bias"),
        (state, {"dec_tower.4._ops.0.conv.2.conv.0.weight": torch.zeros(96, 2, 5, 5)}, r"ask for \[96, 1, any, any\]"),
        (state, {"dec_tower.4._ops.0.conv.2.conv.0.weight": torch.zeros(96, 1, 5, 4)}, "is 5×4"),
        (state, {"dec_tower.2.conv.weight": torch.zeros(32, 32, 1, 1)}, "dec_tower.2.conv maps 32 channels to 32"),
        (state, {"dec_tower.2.conv.weight": torch.zeros(32, 37, 1, 1)}, "its moments 8, and 32 arrive"),
        (state, {"dec_tower.3.skip.1.weight": torch.zeros(15, 32, 1, 1)}, "log_weight_norm"),
        (state, {"prior_ftr0": torch.zeros(31, 4, 4)}, "dec_tower.0.conv maps 36 channels to 32, and 31 arrive"),
        (swish, {"dec_tower.2.se.se.2.weight": torch.zeros(15, 4)}, r"ask for \[16, 4\]"),
        (swish, {"post_process.1._ops.1.bn_act.running_var": None}, "running_var is missing"),
        (swish, {"post_process.1._ops.1.bn_act.weight": None}, "have no place in one: post_process.1._ops.1"),
    ):
        changed = {k: v for k, v in (whose | change).items() if v is not None}
        with pytest.raises(GeneratorError, match=said):
            nvae.build(changed)
    head = {"weight": torch.zeros(5, 4, 3, 3), "bias": torch.zeros(5), "log_weight_norm": torch.zeros(5, 1, 1, 1)}
    with pytest.raises(GeneratorError, match="5 channels"):
        nvae.build(state | {f"image_conditional.1.{k}": v for k, v in head.items()})
    with pytest.raises(GeneratorError, match="nvae_latents 'some'"):
        nvae.build(state, nvae_latents="some")


# --- volumes and samples --------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    """Path of a small network, D = 8 or 40, 1x8x8."""
    save_file(nvae_weights(), tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


def first_image(folder, net, truncation=1.0):
    """The largest difference between a sample's first image and what the network gives, in steps of 1/255."""
    image = net(torch.from_numpy(np.load(f"{folder}/latents.npy")[:1]).double(), None, truncation)[0, 0]
    stored = np.asarray(Image.open(f"{folder}/images/000000.png"), float)
    return np.abs(stored - ((image + 1) * 127.5).numpy()).max()


@pytest.mark.slow
@pytest.mark.parametrize(("latents", "size"), [("top", 8), ("all", 40)])
def test_from_the_command_line(magnet, saved, dense, latents, size):
    """Each setting has a volume of its own, which `sample` and `index` take where it is asked for."""
    flags = ("--nvae-latents", latents) if latents == "all" else ()
    made = magnet("compute", saved, "--n", 4, "--solver", "exact", "--truncation", 0.9, *flags, "--json")
    assert made.code == 0, made.err
    volume = Volume.open(cache.Path(made.json["volume"]))
    spec = volume.spec
    assert (spec.family, spec.nvae_latents, spec.latent_dim, spec.top_k) == ("nvae", latents, size, size)
    assert spec.noise == ("seed-0" if latents == "top" else "")
    net = nvae.build(nvae_weights(), nvae_latents=latents)
    truth = dense(lambda z: net(z, None, 0.9), volume.read(0).latents)
    strong = truth >= 1e-3 * truth[:, :1]
    assert (np.abs(volume.read(0).singular_values - truth) / truth)[strong].max() <= 1e-3

    asked = ("--truncation", 0.9, "--top-k", 2)
    done = magnet("sample", saved, "--n", 3, "--rho", 0.1, *asked, *flags, "--out", "s", "--json")
    assert done.code == 0, done.err
    assert first_image("s", net, 0.9) <= 0.51
    assert magnet("index", saved, *asked, *flags, "--json").json["rows"] == 4
    other = () if flags else ("--nvae-latents", "all")
    for command in ("sample", "index"):
        done = magnet(command, saved, *asked, *other)
        assert (done.code, done.out) == (1, "")
        assert ("--nvae-latents all" in done.err) == bool(other)
    named = magnet("sample", saved, "--n", 2, "--rho", 0.1, *asked, "--volume", volume.path, "--out", "n")
    assert named.code == 0, named.err
    assert first_image("n", net, 0.9) <= 0.51  # rendered as the volume has it


def test_info_and_metadata_say_which_noise_is_the_latent(magnet, saved, toy, tmp_path):
    done = magnet("info", saved, "--json").json
    assert (done["family"], done["latent_dim"], done["image_shape"]) == ("nvae", 8, [1, 8, 8])
    assert (done["prior"], done["num_classes"], done["nvae_latents"], done["noise"]) == ("normal", 0, "top", "seed-0")
    told = tmp_path / "told.safetensors"
    save_file(nvae_weights(), told, {"magnet": json.dumps({"nvae_latents": "all"})})
    assert models.load(Checkpoint.find(str(told))).latent_dim == 40
    done = magnet("compute", toy, "--nvae-latents", "all")
    assert (done.code, done.out) == (1, "")
    assert "setting 'nvae_latents', which the family dcgan does not have" in done.err
    assert magnet("compute", saved, "--nvae-latents", "some").code == 2


def test_the_fingerprint_of_other_families_is_as_before(toy_generator):
    spec = computing.volume_spec(toy_generator)
    assert (spec.nvae_latents, spec.noise) == ("", "")
    assert spec.fingerprint != dataclasses.replace(spec, nvae_latents="top").fingerprint
