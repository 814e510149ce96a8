"""BigGAN-deep: the recorded outputs of the official network, then volumes and samples of such a network."""

import dataclasses
import json
import re

import numpy as np
import pytest
import recorded
import torch
from PIL import Image
from safetensors.torch import save_file
from toys import BIGGAN_DEEP_256, biggan_weights

from magnet_cli import computing, index, models
from magnet_cli.catalog import cache, imagenet
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.computing import solver_choice
from magnet_cli.errors import GeneratorError, SpecError
from magnet_cli.maths.jacobian import products, solvers
from magnet_cli.maths.priors import Prior
from magnet_cli.models.generators import biggan_deep
from magnet_cli.volume import Volume

pytestmark = pytest.mark.slow  # real networks and whole pages: `make test` runs them

RECORD = recorded.read("biggan_deep")
UPSAMPLE = [layer[0] for layer in RECORD.facts["config"]["layers"]]
IMAGES = ["image_t0.14", "image_t0.4", "image_t0.43", "image_t0.4_zscaled", "image_t0.58", "image_t1.0"]
TINY = {"widths": ((2, 2), (2, 1)), "attention": 1, "channels": 8, "latent_dim": 6, "num_classes": 4, "rows": 5}


def network(dtype=torch.float64, **settings):
    return biggan_deep.build(RECORD.groups["state"], upsample=UPSAMPLE, **settings).to(dtype)


def inputs(dtype=torch.float64, rows=None):
    return RECORD.groups["in"]["z"][:rows].to(dtype), RECORD.groups["in"]["y"][:rows].to(dtype)


def image(key, dtype=torch.float64):
    """What our network gives for a recorded image; the official code's truncation chooses statistics alone."""
    truncation = float(re.search(r"t([\d.]+)", key)[1])
    z, labels = inputs(dtype)
    if key.endswith("zscaled"):
        return network(dtype)(z, labels, truncation)
    return network(dtype, bn_truncation=truncation)(z, labels)


def test_the_record_is_here():
    assert recorded.names("biggan") == ["biggan_deep"]
    assert sorted(key for key in RECORD.groups["out"] if key.startswith("image")) == IMAGES
    assert biggan_deep.recognises(RECORD.groups["state"])


@pytest.mark.parametrize("key", IMAGES)
def test_images_equal_the_record(key):
    known = RECORD.groups["out"][key]
    whole = image(key)
    assert (whole - known).abs().max() <= RECORD.tolerance(key)
    if (exact := RECORD.groups["out64"].get(key)) is not None:
        assert (whole - exact).abs().max() <= 1e-9 * exact.abs().max()
    assert (image(key, torch.float32) - known).abs().max() <= RECORD.tolerance(key)


def test_features_equal_the_record():
    net = network(bn_truncation=0.4)
    passed = []
    for layer in (net.first, *net.layers, net.to_image):
        layer.register_forward_hook(lambda _m, _a, out: passed.append(out))
    z, labels = inputs(rows=1)
    net(z, labels)
    for i, layer in enumerate(net.layers):
        known = RECORD.groups["trace0"][f"layers.{i}"]
        torch.testing.assert_close(passed[i + 1][:, : known.shape[1]].float(), known, rtol=2e-5, atol=2e-5)
        assert isinstance(layer, biggan_deep.Attention) == (RECORD.facts["layer_types"][i] == "SelfAttn")
    by_pixel = passed[0].unflatten(1, (-1, 16)).mT.flatten(1)  # the official order
    known = RECORD.groups["trace0"]["gen_z"]
    torch.testing.assert_close(by_pixel[:, : known.shape[1]].float(), known, rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(passed[-1].float(), RECORD.groups["trace0"]["conv_to_rgb"][:, :3], rtol=2e-5, atol=2e-5)


def test_condition_and_spectral_norm_equal_the_record():
    net = network()
    z, labels = inputs()
    seen = []
    net.first.register_forward_hook(lambda _m, args, _o: seen.append(args[0]))
    net(z, labels)
    torch.testing.assert_close(seen[0].float(), RECORD.groups["out"]["cond_vector"], rtol=1e-5, atol=1e-6)
    known = RECORD.groups["out"]["effective/layers.0.conv_0.weight"]
    torch.testing.assert_close(net.layers[0].layers[0].weight.float(), known, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_singular_values_equal_the_record(dtype):
    net = network(dtype, bn_truncation=0.4)
    z, labels = inputs(dtype, 1)
    known = RECORD.groups["jac"]["sv_image_z_t0.4"]
    if dtype == torch.float64:
        jacobian = torch.func.jacfwd(lambda x: net(x[None], labels).flatten())(z[0])
        assert (torch.linalg.svdvals(jacobian) - known).abs().max() <= 1e-9 * known[0]
    else:
        found = solvers.exact(lambda x: net(x, labels), z, len(known))[0]
        strong = known >= 1e-3 * known[0]
        assert strong.sum() > 10
        assert ((found - known).abs() / known)[strong].max() <= 1e-3


def test_statistics_between_rows_are_as_published():
    """Reversed shares, and rows that rounding misses: those that the record's conventions name."""
    net = network()
    rows = {0.14: 8, 0.28: 15, 0.56: 29, 0.58: 28, 0.94: 46, 0.5: 25, 1.0: 50}
    for truncation, row in rows.items():
        torch.testing.assert_close(net.statistics(truncation)[0], net.means[row])
    mean, scale = net.statistics(0.43)  # row 21.5
    torch.testing.assert_close(mean, (net.means[21] + net.means[22]) / 2)
    torch.testing.assert_close(scale, ((net.variances[21] + net.variances[22]) / 2 + 1e-4) ** -0.5)
    torch.testing.assert_close(net.statistics(0.405)[0], 0.25 * net.means[20] + 0.75 * net.means[21])
    assert net.statistics(1e-9)[0].isfinite().all()


def test_labels_by_number_are_one_hot():
    net = network()
    z, labels = inputs(rows=3)
    assert torch.equal(net(z, labels.argmax(dim=1)), net(z, labels))


# --- derivatives ----------------------------------------------------------------------------------------------------


def test_products_agree_with_each_other_and_with_differences():
    net = network()
    z, labels = inputs(rows=2)
    rng = torch.Generator().manual_seed(0)

    def function(x):
        return net(x, labels, 0.6)

    tangents = torch.randn(3, *z.shape, generator=rng, dtype=torch.float64)
    pushed = products.forward(function, z, tangents)  # [B, 3, M]
    cotangents = torch.randn(3, *pushed[:, 0].shape, generator=rng, dtype=torch.float64)
    pulled = products.reverse(function, z, cotangents)  # [B, 3, D]
    forward = torch.einsum("btm,sbm->bts", pushed, cotangents)
    torch.testing.assert_close(forward, torch.einsum("tbd,bsd->bts", tangents, pulled), rtol=1e-9, atol=1e-9)
    difference = (function(z + 1e-6 * tangents[0]) - function(z - 1e-6 * tangents[0])).flatten(1) / 2e-6
    error = (difference - pushed[:, 0]).abs()
    assert error.quantile(0.99) <= 1e-6 * pushed[:, 0].abs().max()
    assert error.max() <= 1e-2 * pushed[:, 0].abs().max()  # a kink of the ReLUs may lie between the two points


def test_second_derivatives_exist_in_both_modes():
    net, label = biggan_deep.build(biggan_weights(**TINY)), torch.tensor([1])
    z = torch.randn(6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one = torch.func.jacfwd(torch.func.jacrev(lambda x: net(x[None], label).square().sum()))(z)
    two = torch.func.jacrev(torch.func.jacfwd(lambda x: net(x[None], label).square().sum()))(z)
    torch.testing.assert_close(one, two)
    torch.testing.assert_close(one, one.T)
    assert one.abs().max() > 0.1


# --- what a state dict tells ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_biggan_deep_256_has_the_published_size():
    """55.9 M; the published file has 234,411,737 bytes, names and all."""
    state = biggan_weights(**BIGGAN_DEEP_256, device="meta")
    net = biggan_deep.build(state)
    assert net.num_parameters == 55_880_833
    assert (net.latent_dim, net.num_classes, net.image_shape) == (128, 1000, (3, 256, 256))
    assert 0 < 234_411_737 - sum(4 * value.numel() for value in state.values()) < 200_000


def test_what_does_not_fit_is_refused():
    state = biggan_weights(**TINY)
    assert biggan_deep.build(state).image_shape == (3, 8, 8)
    layer = "generator.layers"
    for change, said in (
        ({f"{layer}.0.bn_1.scale.weight_u": None}, "bn_1.scale.weight_u is missing"),
        ({f"{layer}.1.gamma": None}, "layers.1.bn_0.scale.weight_orig is missing"),
        ({f"{layer}.2.conv_1.weight_orig": torch.zeros(4, 5, 3, 3)}, r"is \[4, 5, 3, 3\].*\[any, 4, 3, 3\]"),
        ({f"{layer}.0.bn_2.running_vars": torch.zeros(4, 4)}, "running_vars"),
        ({f"{layer}.9.gamma": torch.zeros(1)}, "have the layers 0, 1, 2, 9"),
        ({"generator.more": torch.zeros(1)}, "1 of them have no place in one: generator.more"),
    ):
        with pytest.raises(GeneratorError, match=said):
            biggan_deep.build({k: v for k, v in (state | change).items() if v is not None})
    with pytest.raises(GeneratorError, match=r"of 3 blocks .* there are 2"):
        biggan_deep.build(state, upsample=[True] * 3)
    with pytest.raises(GeneratorError, match=r"bn_truncation 1\.5"):
        biggan_deep.build(state, bn_truncation=1.5)
    with pytest.raises(GeneratorError, match="1 rows"):
        biggan_deep.build(biggan_weights(**TINY | {"rows": 1}))
    with pytest.raises(GeneratorError, match="turns 16 channels into 32"):
        biggan_deep.build(biggan_weights(**TINY | {"widths": ((2, 4), (4, 2))}))


# --- the prior and the classes --------------------------------------------------------------------------------------


def test_latents_are_normal_within_two():
    drawn = Prior("truncated-normal", 6).draw_shard(3, 5, 20_000)[0]
    assert (drawn.shape, drawn.dtype, np.abs(drawn).max() <= 2) == ((20_000, 6), np.float32, True)
    np.testing.assert_array_equal(Prior("truncated-normal", 6).draw_shard(3, 5, 77)[0], drawn[:77])
    assert not np.array_equal(Prior("truncated-normal", 6).draw_shard(3, 6, 77)[0], drawn[:77])
    normal = torch.distributions.Normal(0.0, 1.0)
    edges = torch.linspace(-2, 2, 41)
    shares = normal.cdf(edges).diff() / (normal.cdf(edges[-1]) - normal.cdf(edges[0]))
    counted = np.histogram(drawn, edges.numpy())[0]
    expected = drawn.size * shares.numpy()
    assert ((counted - expected) ** 2 / expected).sum() < 80  # χ² of 39: beyond 1e-4
    neighbours = np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1]
    assert abs(neighbours) < 0.02


def test_solvers_are_chosen_on_latents_of_the_prior(saved):
    loaded = models.load(Checkpoint.find(str(saved)))
    trial = solver_choice._Trial(lambda precision: (loaded, None), computing.volume_spec(loaded), None)
    assert 1.9 < np.abs(trial.latents(0, 500)).max() <= 2


def test_classes_by_name():
    assert [imagenet.number(n) for n in ("tench", "golden retriever", "RED PANDA", "lesser panda")] == [
        0,
        207,
        387,
        387,
    ]
    with pytest.raises(SpecError, match="several classes: 134, 517"):
        imagenet.number("crane")
    with pytest.raises(SpecError) as raised:
        imagenet.number("golden retreiver")
    assert "golden retriever" in raised.value.hint
    first = {line.split(", ")[0] for line in imagenet._FILE.read_text(encoding="utf-8").splitlines()}
    assert len(first) == 998  # crane and maillot are two classes each


# --- files, volumes and samples -------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    """Path of the recorded network as a file."""
    path = tmp_path / "big.safetensors"
    save_file(RECORD.groups["state"], path, {"magnet": json.dumps({"upsample": UPSAMPLE})})
    return path


SMALL = ("--solver", "exact", "--memory", "16MB", "--top-k", 10)


@pytest.mark.slow
def test_from_the_file_to_a_sample(magnet, saved, dense):
    told = magnet("info", saved, "--json").json
    assert (told["family"], told["prior"], told["latent_dim"]) == ("biggan-deep", "truncated-normal", 16)
    assert (told["image_shape"], told["num_classes"]) == ([3, 32, 32], 10)
    flags = ("--truncation", 0.4, "--bn-truncation", 1, "--label", 3, "--label", 9)
    done = magnet("compute", saved, "--n", 4, *flags, *SMALL, "--json")
    assert done.code == 0, done.err
    assert f"--volume {done.json['volume']}" in done.err  # the hint is of this one
    volume = Volume.open(cache.Path(done.json["volume"]))
    assert volume.spec.bn_truncation == 1
    assert index.density_words(volume.spec).endswith("the truncated-normal prior's: not uniform")
    rows = volume.read(0)
    assert rows.labels.tolist() == [3, 9, 3, 9]
    assert np.abs(rows.latents).max() <= 2
    net = network(bn_truncation=1)
    truth = dense(lambda z: net(0.4 * z, torch.tensor([3])), rows.latents[:1], reverse=False)[0]
    np.testing.assert_allclose(rows.singular_values[0], truth[:10], rtol=1e-3)

    drawn = magnet("sample", saved, "--n", 2, *flags[:4], "--label", 9, "--rho", 0.1, "--out", "s", "--json")
    assert drawn.code == 0, drawn.err
    assert (drawn.json["pool"], "warning" in drawn.err) == (2, False)
    assert magnet("info", "s", "--check").code == 0
    spec = json.loads(cache.Path("s/sample.json").read_text())["spec"]
    assert (spec["truncation"], spec["bn_truncation"]) == (0.4, 1.0)
    z, y = (torch.from_numpy(np.load(f"s/{name}.npy")[:1]) for name in ("latents", "labels"))
    shown = ((net(0.4 * z.double(), y)[0].permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).numpy()
    assert np.abs(np.asarray(Image.open("s/images/000000.png"), float) - shown).max() <= 1
    assert magnet("sample", saved, "--n", 2, *flags[:2], "--label", 9, "--out", "t").code == 1  # other statistics
    assert magnet("index", saved, *flags[:4], "--label", 9).code == 0


@pytest.mark.slow
def test_sampling_as_magnet_did(magnet, saved):
    """A volume without truncation, z scaled, statistics at 1; the same statistics asked for are no other volume."""
    assert magnet("compute", saved, "--n", 3, *SMALL, "--label", 2).code == 0
    again = magnet("compute", saved, "--n", 3, *SMALL, "--label", 2, "--bn-truncation", 1, "--json")
    assert (again.json["rows"], again.json["new_rows"]) == (3, 0)
    flags = ("--truncation", 0.5, "--bn-truncation", 1, "--label", 2)
    done = magnet("sample", saved, "--n", 2, *flags, "--rho", 0.1, "--out", "s")
    assert done.code == 0, done.err
    said = " ".join(done.err.split())
    assert "by their volume at truncation 1, images are rendered at 0.5 with batch-norm statistics at 1" in said
    assert "--truncation 0.5 --bn-truncation 1" in said


def test_what_the_command_line_refuses(magnet, saved, toy):
    done = magnet("compute", saved, "--label", "tench")
    assert (done.code, done.out) == (1, "")
    assert "'tench' is a class of ImageNet" in done.err
    done = magnet("compute", saved, "--label", "tenche")
    assert (done.code, "tench" in done.err) == (2, True)
    assert magnet("compute", saved, "--label", "-1").code == 2
    assert magnet("compute", saved, "--bn-truncation", 0).code == 2
    done = magnet("compute", toy, "--bn-truncation", 0.5)
    assert (done.code, "setting 'bn_truncation'" in done.err) == (1, True)


def test_names_choose_labels_of_imagenet_generators(magnet, tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_file(biggan_weights(**TINY | {"num_classes": 1000}), path)
    done = magnet("compute", path, "--n", 2, "--label", "golden retriever", "--label", 3, *SMALL[:4], "--json")
    assert done.code == 0, done.err
    assert Volume.open(cache.Path(done.json["volume"])).read(0).labels.tolist() == [207, 3]
    done = magnet("sample", path, "--n", 1, "--label", "golden retriever", "--rho", 0.1, "--json")
    assert done.code == 0, done.err
    assert np.load(cache.Path(done.json["sample"]) / "labels.npy").tolist() == [207]


def test_statistics_of_their_own_are_another_volume(saved):
    plain, own = (models.load(Checkpoint.find(str(saved)), bn_truncation=b) for b in (None, 0.7))
    cases = ((plain, 0.5), (own, 0.5), (own, 0.7))
    specs = [computing.volume_spec(loaded, truncation=truncation) for loaded, truncation in cases]
    assert [spec.bn_truncation for spec in specs] == [0.0, 0.7, 0.0]
    assert specs[0].fingerprint != specs[1].fingerprint
    assert specs[2].fingerprint == computing.volume_spec(plain, truncation=0.7).fingerprint
    assert dataclasses.asdict(specs[0])["prior"] == "truncated-normal"
    assert specs[0].rank == 16
