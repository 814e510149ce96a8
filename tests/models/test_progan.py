"""ProGAN: the recorded outputs of two official implementations, then a volume and a sample of such a network."""

import json
import re

import numpy as np
import pytest
import recorded
import torch
from safetensors.torch import save_file
from torch_files import saved

from magnet_cli import computing, models
from magnet_cli.catalog import cache
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.errors import GeneratorError, SpecError
from magnet_cli.maths.jacobian import products, solvers
from magnet_cli.models.generators import progan
from magnet_cli.volume import Volume

pytestmark = pytest.mark.slow  # real networks and whole pages: `make test` runs them

FILES = ["progan", "progan_fused_tanh_label", "progan_ganzoo"]
SETTINGS = {"progan_fused_tanh_label": {"label_size": 3, "final_tanh": True}}


def network(name, dtype=torch.float64, **settings):
    """A recorded network, and the record."""
    record = recorded.read(name)
    return progan.build(record.groups["state"], **SETTINGS.get(name, {}), **settings).to(dtype), record


def inputs(record, dtype=torch.float64, rows=None):
    """The recorded latents and labels, all of them or the first."""
    group = record.groups["in"]
    labels = group.get("label")
    return group["z"][:rows].to(dtype), None if labels is None else labels[:rows].to(dtype)


def lod_of(key):
    """The level of detail that a recorded image was made at; None for the stored one."""
    return float(found[1]) if (found := re.search(r"(?:lod|alpha)([\d.]+)", key)) else None


def test_the_records_are_all_here():
    assert recorded.names("progan") == FILES
    for name in FILES:
        record = recorded.read(name)
        asked = {k: v for k, v in record.facts["constructor_kwargs"].items() if k in {"label_size", "final_tanh"}}
        assert asked == SETTINGS.get(name, {})
        assert progan.recognises(record.groups["state"])


@pytest.mark.parametrize("name", FILES)
def test_images_equal_the_record(name):
    record = recorded.read(name)
    known = {key: value for key, value in record.groups["out"].items() if key.startswith("image")}
    assert len(known) >= 2
    for key, value in known.items():
        net, _ = network(name, lod=lod_of(key))
        whole = net(*inputs(record))
        if (exact := record.groups["out64"].get(key)) is not None:
            assert (whole - exact).abs().max() <= 1e-9 * exact.abs().max(), key
        assert (whole - value).abs().max() <= record.tolerance(key), key
        single = net.to(torch.float32)(*inputs(record, torch.float32))
        assert (single - value).abs().max() <= record.tolerance(key), key


@pytest.mark.parametrize("name", FILES)
def test_features_equal_the_record(name):
    net, record = network(name)
    passed = []
    for layer in (net.first, *(layer for stage in net.stages for layer in stage)):
        layer.register_forward_hook(lambda _m, _a, out: passed.append(out))
    net(*inputs(record, rows=1))
    traced = sorted(key for key in record.groups["trace0"] if not key.startswith("toRGB"))  # from the first layer on
    for key, found in zip(traced, passed, strict=True):
        known = record.groups["trace0"][key]
        if key.startswith("layer"):  # recorded behind the leaky ReLU; the first as an image
            found = torch.nn.functional.leaky_relu(found.reshape(1, -1, *known.shape[2:]), 0.2)  # noqa: PLW2901
        found = found[:, : known.shape[1]].float()  # noqa: PLW2901
        torch.testing.assert_close(found, known, rtol=2e-5, atol=2e-6 * float(known.abs().max()))


@pytest.mark.parametrize("name", FILES)
def test_the_latent_is_normalised_as_recorded(name):
    net, record = network(name)
    if (known := record.groups["out"].get("z_normalised")) is None:
        assert not net.again
        return
    z, labels = inputs(record)
    seen = []
    net.again = False
    net.first.register_forward_hook(lambda _m, args, _o: seen.append(args[0]))
    net(z, labels)
    torch.testing.assert_close(seen[0].float(), known, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FILES)
def test_singular_values_equal_the_record(name):
    known = recorded.read(name).groups["jac"]["sv_image_z"]
    for dtype in (torch.float64, torch.float32):
        net, record = network(name, dtype)
        z, labels = inputs(record, dtype, 1)
        found = solvers.exact(lambda x, net=net, labels=labels: net(x, labels), z, len(known))[0]
        if dtype == torch.float64:
            jacobian = torch.func.jacfwd(lambda x, net=net, labels=labels: net(x[None], labels).flatten())(z[0])
            assert (torch.linalg.svdvals(jacobian) - known).abs().max() <= 1e-9 * known[0]
        else:
            strong = known >= 1e-3 * known[0]
            assert strong.sum() > 20
            assert ((found - known).abs() / known)[strong].max() <= 1e-3


@pytest.mark.parametrize("name", FILES)
def test_products_agree_with_each_other_and_with_differences(name):
    net, record = network(name, lod=0.3)
    z, labels = inputs(record, rows=2)
    rng = torch.Generator().manual_seed(0)

    def function(x):
        return net(x, labels)

    tangents = torch.randn(3, *z.shape, generator=rng, dtype=torch.float64)
    pushed = products.forward(function, z, tangents)  # [B, 3, M]
    cotangents = torch.randn(3, *pushed[:, 0].shape, generator=rng, dtype=torch.float64)
    pulled = products.reverse(function, z, cotangents)  # [B, 3, D]
    forward = torch.einsum("btm,sbm->bts", pushed, cotangents)
    torch.testing.assert_close(forward, torch.einsum("tbd,bsd->bts", tangents, pulled), rtol=1e-9, atol=1e-9)
    difference = (function(z + 1e-6 * tangents[0]) - function(z - 1e-6 * tangents[0])).flatten(1) / 2e-6
    error = (difference - pushed[:, 0]).abs().amax(dim=1)
    assert (error <= 1e-5 * pushed[:, 0].abs().amax(dim=1)).all()  # a leak may lie between the two points


def test_second_derivatives_exist_in_both_modes():
    net = progan.build(weights(8, 16, 1024))
    z = torch.randn(16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one = torch.func.jacfwd(torch.func.jacrev(lambda x: net(x[None]).square().sum()))(z)
    two = torch.func.jacrev(torch.func.jacfwd(lambda x: net(x[None]).square().sum()))(z)
    torch.testing.assert_close(one, two)
    torch.testing.assert_close(one, one.T)
    assert one.abs().max() > 0.1


# --- what a state dict tells ----------------------------------------------------------------------------------------


def weights(resolution, width, base, latent_dim=16, fused=False, seed=0):
    """State dict of a ProGAN in genforce's naming."""
    rng = torch.Generator().manual_seed(seed)
    state, before = {"lod": torch.zeros(())}, latent_dim
    for stage in range(resolution.bit_length() - 2):
        now = min(base // (4 << stage), width)
        for layer in (2 * stage, 2 * stage + 1):
            turned = fused and layer == 2 * stage > 0
            shape = (before, now) if turned else (now, before)
            state[f"layer{layer}.weight"] = torch.randn(*shape, *((3, 3) if layer else (4, 4)), generator=rng)
            state[f"layer{layer}.bias"] = torch.randn(now, generator=rng)
            before = now
        state[f"output{stage}.weight"] = torch.randn(3, now, 1, 1, generator=rng)
        state[f"output{stage}.bias"] = torch.randn(3, generator=rng)
    return state


def test_the_original_has_the_published_size():
    """23.1 M (Karras et al. 2018); the file of huggan/pggan-celebahq-1024 has 92.3 MB, four bytes each."""
    state = weights(1024, 512, 16384, latent_dim=512)
    del state["lod"]
    net = progan.build({name: value.to("meta") for name, value in state.items()})
    assert (net.latent_dim, net.image_shape) == (512, (3, 1024, 1024))
    assert net.num_parameters == sum(value.numel() for value in state.values())
    assert (round(net.num_parameters / 1e6, 1), round(4 * net.num_parameters / 1e6, 1)) == (23.1, 92.3)


def test_what_shapes_say_of_the_convolutions_that_double_the_side():
    z = torch.randn(2, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for fused in (False, True):
        state = weights(16, 16, 128, fused=fused)
        told = progan.build(state)
        assert torch.equal(told(z), progan.build(state, fused_scale=fused)(z))
        with pytest.raises(GeneratorError, match="ask for"):
            progan.build(state, fused_scale=not fused)
    square = weights(8, 16, 1024)
    assert torch.equal(progan.build(square)(z), progan.build(square, fused_scale=False)(z))
    assert (progan.build(square)(z) - progan.build(square, fused_scale=True)(z)).abs().max() > 0.1


def test_what_does_not_fit_is_refused():
    state = weights(8, 16, 1024)
    progan.build(state)
    for change, said in (
        ({"layer1.bias": None}, "layer1.bias is missing"),
        ({"layer2.weight": None}, "layer2.weight is missing"),
        ({"layer3.weight": torch.zeros(16, 7, 3, 3)}, r"is \[16, 7, 3, 3\].*\[any, 16, 3, 3\]"),
        ({"layer4.weight": torch.zeros(16, 16, 3, 3)}, "1 of them have no place in one: layer4.weight"),
        ({"output1.weight": torch.zeros(3, 15, 1, 1)}, "output1.weight"),
        ({"lod": torch.tensor(2.5)}, r"lod 2.5 is asked for, and the network has 0\.\.1"),
    ):
        with pytest.raises(GeneratorError, match=said):
            progan.build({k: v for k, v in (state | change).items() if v is not None})
    with pytest.raises(GeneratorError, match="label_size 16"):
        progan.build(state, label_size=16)
    with pytest.raises(GeneratorError, match="labels are not known"):
        progan.build(recorded.read("progan_ganzoo").groups["state"], label_size=2)


# --- files, volumes and samples -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_from_the_file_to_a_sample(magnet, tmp_path, dense, name):
    path = tmp_path / f"{name}.safetensors"
    save_file(recorded.read(name).groups["state"], path, {"magnet": json.dumps(SETTINGS.get(name, {}))})
    told = magnet("info", path, "--json").json
    net, _ = network(name)
    assert (told["family"], told["prior"], told["latent_dim"]) == ("progan", "sphere", net.latent_dim)
    assert (told["image_shape"], told["num_classes"]) == ([3, 32, 32], net.num_classes)

    flags = ("--solver", "exact", "--memory", "16MB", "--top-k", 12)
    done = magnet("compute", path, "--n", 2, "--volume", "v", *flags, "--json")
    assert done.code == 0, done.err
    rows = Volume.open(cache.Path("v")).read(0)
    np.testing.assert_allclose(np.linalg.norm(rows.latents, axis=1), np.sqrt(net.latent_dim), rtol=1e-6)
    labels = None if rows.labels is None else torch.tensor(rows.labels[:1])
    assert (labels is not None) == bool(net.num_classes)
    truth = dense(lambda z: net(z, labels), rows.latents[:1], reverse=False)[0]
    np.testing.assert_allclose(rows.singular_values[0], truth[:12], rtol=1e-3)
    assert truth[-1] <= 1e-7 * truth[0]  # along z nothing changes
    drawn = magnet("sample", path, "--n", 2, "--volume", "v", "--rho", 0.1, "--out", "s", "--json")
    assert drawn.code == 0, drawn.err
    assert magnet("info", "s", "--check").code == 0


def test_truncation_and_length_change_nothing(tmp_path):
    path = tmp_path / "p.safetensors"
    save_file(recorded.read("progan").groups["state"], path)
    loaded = models.load(Checkpoint.find(str(path)), dtype=torch.float64)
    z, _ = inputs(recorded.read("progan"))
    assert torch.equal(loaded(z, 0.5), loaded(z))
    assert (loaded(2 * z) - loaded(z)).abs().max() < 1e-7
    with pytest.raises(SpecError, match="on a sphere"):
        computing.volume_spec(loaded, top_k=32)
    with pytest.raises(SpecError, match="no space 'w'"):
        computing.volume_spec(loaded, space="w")


class BaseConfig:
    """Of pytorch_GAN_zoo: an object with attributes, pickled by the name of its class."""

    def __init__(self, **facts):
        self.__dict__.update(facts)


def zoo(tmp_path, config, names=lambda name: name, **networks):
    """A file as pytorch_GAN_zoo's getStateDict writes it, loaded."""
    state = recorded.read("progan_ganzoo").groups["state"]
    raw = {name: value + 1 for name, value in state.items()}
    average = {names(name): value for name, value in state.items()}
    content = {"config": config, "netG": raw, "netD": {"scaleLayers.0.weight": torch.ones(3)}, "avgG": average}
    (tmp_path / "zoo.pth").write_bytes(saved(content | networks))
    return models.load(tmp_path / "zoo.pth", dtype=torch.float64)


FACTS = {"alpha": 0, "lossCriterion": "WGANGP", "depthOtherScales": [32, 32], "leakyReluLeak": 0.2}


@pytest.mark.parametrize("kind", [BaseConfig, dict])
def test_files_of_pytorch_gan_zoo_are_read_as_their_code_would(kind, tmp_path):
    state = recorded.read("progan_ganzoo").groups["state"]
    z = torch.randn(2, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def same(generator, **told):
        torch.testing.assert_close(generator(z), progan.build(state, **told)(z), rtol=0, atol=1e-12)

    generator = zoo(tmp_path, kind(**FACTS))
    assert (generator.place, generator.others) == ("avgG", ("netG",))
    assert generator.settings == {"lod": 0, "final_tanh": False}
    same(generator)
    same(zoo(tmp_path, kind(**FACTS | {"alpha": 0.25})), lod=0.25)
    same(zoo(tmp_path, kind(**FACTS | {"lossCriterion": "MSE"})), final_tanh=True)
    same(zoo(tmp_path, kind(**FACTS), lambda name: name.replace(".module.", ".")))
    for wrong in ({"leakyReluLeak": 0.1}, {"perChannelNormalization": False}, {"equalizedlR": False}):
        with pytest.raises(GeneratorError, match=f"was made with {next(iter(wrong))} = "):
            zoo(tmp_path, kind(**FACTS | wrong))
