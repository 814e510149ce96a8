"""StyleGAN2: the recorded outputs of the official networks, then volumes and samples of such a network."""

import dataclasses
import json
import re

import numpy as np
import pytest
import recorded
import torch
from PIL import Image
from safetensors.torch import save_file
from toys import stylegan2_weights

from magnet_cli import computing, models
from magnet_cli.catalog import cache
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.computing.memory import BatchPlan
from magnet_cli.errors import GeneratorError, SpecError
from magnet_cli.maths.jacobian import products, solvers
from magnet_cli.maths.priors import Prior, on_sphere
from magnet_cli.models.generators import stylegan2
from magnet_cli.models.image_models import ImageModel
from magnet_cli.volume import Volume

pytestmark = pytest.mark.slow  # real networks and whole pages: `make test` runs them

FILES = [
    "stylegan2",
    "stylegan2_clamp256",
    "stylegan2_cond",
    "stylegan2_orig",
    "stylegan2_resnet",
    "stylegan2_resnet_clamp2",
    "stylegan2_rosinality",
]
OFFICIAL = [name for name in FILES if name != "stylegan2_rosinality"]
SETTINGS = {"stylegan2_clamp256": {"conv_clamp": 256}, "stylegan2_resnet_clamp2": {"conv_clamp": 2}}


def network(name, dtype=torch.float64, **settings):
    """A recorded network, and the record."""
    record = recorded.read(name)
    state = dict(record.groups["state"])
    if name == "stylegan2_rosinality":
        state["latent_avg"] = record.groups["in"]["truncation_latent"]
    return stylegan2.build(state, **SETTINGS.get(name, {}), **settings).to(dtype), record


def inputs(record, dtype=torch.float64, rows=None):
    """The recorded latents and labels, all of them or the first."""
    group = record.groups["in"]
    labels = group.get("c")
    return group["z"][:rows].to(dtype), None if labels is None else labels[:rows].to(dtype)


def w_of_layers(net, record, name, dtype):
    """The recorded w of each layer [B, L, Dw], as the styles [B, S] that the network's layers take from them."""
    ws = record.groups["out"][name].to(dtype)
    places = [index for _, index in record.facts["w_index_of_layer"]]
    parts = [net.affine(ws[:, i]).split(net.style_widths, dim=1)[layer] for layer, i in enumerate(places)]
    return torch.cat(parts, dim=1)


def output(name, key, dtype):
    """What our network gives for a recorded output."""
    cutoff = int(found[1]) if (found := re.search(r"cutoff(\d+)", key)) else None
    net, record = network(
        name, dtype, truncation_cutoff=cutoff, noise="none" if key.endswith("noise_none") else "const"
    )
    psi = float(found[1]) if (found := re.search(r"psi([\d.]+)", key)) else 1.0
    z, labels = inputs(record, dtype)
    if key.startswith("image_mix"):
        return net.images(w_of_layers(net, record, "ws_mix", dtype))
    if key.startswith("image"):
        return net(z, labels, psi)
    w = net.mapping(z, labels)
    layers = record.facts["num_ws"]
    return torch.stack([net.truncated(w, psi) if i < (cutoff or layers) else w for i in range(layers)], dim=1)


def test_the_records_are_all_here():
    assert recorded.names("stylegan2") == FILES
    assert set(SETTINGS) == {n for n in OFFICIAL if "conv_clamp" in str(recorded.read(n).facts["constructor_kwargs"])}


@pytest.mark.parametrize("name", OFFICIAL)
def test_float64_equals_the_record(name):
    known = recorded.read(name).groups["out64"]
    assert "image_psi1_noise_const" in known
    for key, value in known.items():
        error = (output(name, key, torch.float64) - value).abs().max()
        assert error <= 1e-9 * value.abs().max(), key


@pytest.mark.parametrize("name", OFFICIAL)
def test_float32_equals_the_record(name):
    record = recorded.read(name)
    compared = [key for key in record.groups["out"] if "fp16" not in key and key != "ws_mix"]  # that one is an input
    assert len(compared) >= 4
    for key in compared:
        error = (output(name, key, torch.float32) - record.groups["out"][key]).abs().max()
        assert error <= record.tolerance(key), key


@pytest.mark.parametrize("name", OFFICIAL)
def test_styles_and_features_equal_the_record(name):
    net, record = network(name)
    z, labels = inputs(record)
    styles = net.affine(net.mapping(z, labels)).split(net.style_widths, dim=1)
    layers = [layer for layer, _ in record.facts["w_index_of_layer"]]
    for layer, found in zip(layers, styles, strict=True):
        if (known := record.groups.get("style", {}).get(layer)) is not None:
            torch.testing.assert_close(found.float(), known, rtol=1e-5, atol=1e-5)
    passed = {}
    for i, block in enumerate(net.blocks):
        block.register_forward_hook(
            lambda _m, _a, out, i=i: passed.update({f"b{4 << i}.x": out[0], f"b{4 << i}.img": out[1]})
        )
    net(z[:1], None if labels is None else labels[:1])
    for key, known in record.groups["trace0"].items():
        torch.testing.assert_close(
            passed[key][:, : known.shape[1]].float(), known, rtol=2e-5, atol=2e-6 * float(known.abs().max())
        )


@pytest.mark.parametrize("name", OFFICIAL)
def test_every_layer_takes_its_w(name):
    for cutoff in range(9):
        net, record = network(name, truncation_cutoff=cutoff)
        layers = [part[0].item() for part in net.cut.split(net.style_widths)]
        assert layers == [place < cutoff for _, place in record.facts["w_index_of_layer"]]


@pytest.mark.parametrize("name", OFFICIAL)
def test_singular_values_equal_the_record(name):
    for dtype in (torch.float64, torch.float32):
        net, record = network(name, dtype)
        z, labels = inputs(record, dtype, 1)
        at = {"z": z, "w": net.mapping(z, labels)}
        functions = {
            "image_z": lambda x, net=net, labels=labels: net(x, labels),
            "image_w": net.synthesis,
            "w_z": lambda x, net=net, labels=labels: net.mapping(x, labels),
        }
        for key, function in functions.items():
            known = record.groups["jac"][f"sv_{key}"]
            point = at[key[-1]]
            if dtype == torch.float64:
                jacobian = torch.func.jacfwd(lambda x, f=function: f(x[None]).flatten())(point[0])
                assert (torch.linalg.svdvals(jacobian) - known).abs().max() <= 1e-9 * known[0], key
                if (whole := record.groups["jac"].get(f"J_{key}")) is not None:
                    assert (jacobian - whole).abs().max() <= 1e-6 * whole.abs().max()
            else:
                found = solvers.exact(function, point, len(known))[0]
                strong = known >= 1e-3 * known[0]
                assert strong.sum() > 3
                assert ((found - known).abs() / known)[strong].max() <= 1e-3, key


def test_fp16_record_is_the_same_network():
    """The official code in half precision; ours in float32 with the clamp that goes with it."""
    record = recorded.read("stylegan2")
    net = stylegan2.build(record.groups["state"], conv_clamp=256).float()
    z, _ = inputs(record, torch.float32)
    known = record.groups["out"]
    assert (net(z) - known["image_psi1_noise_const_fp16res2_batch4"]).abs().max() < 0.05
    assert (net(z[:1]) - known["image_psi1_noise_const_fp16res2_single0"]).abs().max() < 0.05


def test_rosinality_is_the_same_network_but_for_an_epsilon():
    net, record = network("stylegan2_rosinality")
    official, other = network("stylegan2")
    z, _ = inputs(record)
    for psi in (1.0, 0.7):
        known = record.groups["out"][f"image_psi{psi:g}_noise_const"]
        assert (net(z, None, psi) - known).abs().max() <= other.tolerance(f"image_psi{psi:g}_noise_const")
    assert 1e-9 < (net(z) - official(z)).abs().max() < 2e-7
    assert (net.to(torch.float32)(z.float()) - record.groups["out"]["image_psi1_noise_const"]).abs().max() < 2e-4


def test_rosinality_files_are_read_whole(tmp_path):
    """{"g_ema": …, "latent_avg": …}, as published; without the average it is estimated."""
    record = recorded.read("stylegan2_rosinality")
    state, mean = record.groups["state"], record.groups["in"]["truncation_latent"][0]
    torch.save({"g": state, "d": {}, "g_ema": state, "latent_avg": mean}, tmp_path / "a.pt")
    torch.save({"g_ema": state}, tmp_path / "b.pt")
    whole, without = (models.load(Checkpoint.find(str(tmp_path / name))) for name in ("a.pt", "b.pt"))
    z, _ = inputs(record, torch.float32)
    assert (whole(z, 0.7) - record.groups["out"]["image_psi0.7_noise_const"]).abs().max() < 2e-4
    assert torch.equal(whole.module.mean, mean)
    w = without.module.mapping(torch.randn(20_000, 32, generator=torch.Generator().manual_seed(5)))
    assert ((without.module.mean - w.mean(dim=0)).abs() <= 5 * w.std(dim=0) / 64).all()


# --- derivatives ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_products_agree_with_each_other_and_with_differences(name):
    net, record = network(name)
    z, labels = inputs(record, rows=2)
    rng = torch.Generator().manual_seed(0)
    w = net.mapping(z, labels)
    for function, point in (
        (lambda x: net(x, labels, 0.7), z),
        (lambda x: net.synthesis(x, 0.7), w),
        (lambda x: net.affine(x, 0.7), w),
        (lambda x: net.truncated(net.mapping(x, labels), 0.7), z),
    ):
        tangents = torch.randn(3, *point.shape, generator=rng, dtype=torch.float64)
        pushed = products.forward(function, point, tangents)  # [B, 3, M]
        cotangents = torch.randn(3, *pushed[:, 0].shape, generator=rng, dtype=torch.float64)
        pulled = products.reverse(function, point, cotangents)  # [B, 3, D]
        forward = torch.einsum("btm,sbm->bts", pushed, cotangents)
        torch.testing.assert_close(forward, torch.einsum("tbd,bsd->bts", tangents, pulled), rtol=1e-9, atol=1e-9)
        step = 1e-6 * tangents[0]
        difference = (function(point + step) - function(point - step)).flatten(1) / 2e-6
        error = (difference - pushed[:, 0]).abs().flatten(1).max(dim=1).values
        kinks = 1e-2 if "clamp" in name else 1e-6  # a clamp or a leak may lie between the two points
        assert (error <= kinks * pushed[:, 0].abs().flatten(1).max(dim=1).values).all()


def test_second_derivatives_exist_in_both_modes():
    net = stylegan2.build(stylegan2_weights())
    z = torch.randn(8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one = torch.func.jacfwd(torch.func.jacrev(lambda x: net(x[None]).square().sum()))(z)
    two = torch.func.jacrev(torch.func.jacfwd(lambda x: net(x[None]).square().sum()))(z)
    torch.testing.assert_close(one, two)
    torch.testing.assert_close(one, one.T)
    assert one.abs().max() > 1


# --- what a state dict tells ----------------------------------------------------------------------------------------


def test_config_f_has_the_published_size():
    net = stylegan2.build(stylegan2_weights(1024, 512, 512, 32768, 512, 8))
    count = sum(p.numel() for p in net.parameters())
    assert (count, sum(p.numel() for p in net.mapping.parameters())) == (30_370_060, 2_101_248)
    assert (net.latent_dim, net.style_dim, net.image_shape) == (512, 512, (3, 1024, 1024))


def test_what_does_not_fit_is_refused():
    state = stylegan2_weights()
    stylegan2.build(state)
    for change, said in (
        ({"synthesis.b8.conv0.bias": None}, "synthesis.b8.conv0.bias is missing"),
        ({"synthesis.b16.torgb.weight": None}, "b16.torgb"),
        ({"synthesis.b8.conv1.weight": torch.zeros(8, 7, 3, 3)}, r"is \[8, 7, 3, 3\].*\[any, 8, 3, 3\]"),
        ({"synthesis.b4.conv1.affine.weight": torch.zeros(8, 9)}, "affine.weight"),
        (
            {"synthesis.b32.conv1.weight": torch.zeros(8, 8, 3, 3), "synthesis.b16.conv1.weight": None},
            "blocks of 4, 8, 32",
        ),
        ({"synthesis.b8.extra": torch.zeros(1)}, "1 of them have no place in one: synthesis.b8.extra"),
        ({"synthesis.b8.torgb.weight": None}, "b8.torgb.weight is missing"),
        ({"synthesis.b8.conv1.noise_strength": None}, "b8.conv1.noise_strength is missing"),
        ({"synthesis.b8.skip.weight": torch.zeros(8, 8, 1, 1)}, "b16.skip.weight is missing"),
        ({"mapping.embed.weight": torch.zeros(8, 3), "mapping.embed.bias": torch.zeros(8)}, "the label alone gives 8"),
        ({"mapping.w_avg": torch.zeros(7)}, "w_avg"),
        ({"synthesis.b8.conv0.resample_filter": torch.zeros(6, 6)}, r"\[4, 4\]"),
    ):
        changed = {k: v for k, v in (state | change).items() if v is not None}
        with pytest.raises(GeneratorError, match=said):
            stylegan2.build(changed)
    renamed = dict(recorded.read("stylegan2_rosinality").groups["state"])
    for name, value in (("noise.weight", torch.zeros(2)), ("conv.weight", torch.zeros(()))):
        with pytest.raises(GeneratorError, match=f"convs.1.{name} is"):
            stylegan2.build(renamed | {f"convs.1.{name}": value})
    with pytest.raises(GeneratorError, match="noise 'random'"):
        stylegan2.build(state, noise="random")


@pytest.fixture
def saved(tmp_path):
    """Path of a recorded network as a safetensors file."""

    def save(name, **metadata):
        path = tmp_path / f"{name}.safetensors"
        settings = {"magnet": json.dumps(SETTINGS.get(name, {}) | metadata)}
        save_file(recorded.read(name).groups["state"], path, settings)
        return path

    return save


def test_metadata_tells_what_weights_do_not(saved, magnet):
    loaded = models.load(Checkpoint.find(str(saved("stylegan2_clamp256"))), dtype=torch.float64)
    record = recorded.read("stylegan2_clamp256")
    z, _ = inputs(record)
    known = record.groups["out64"]["image_psi1_noise_const"]
    assert (loaded(z) - known).abs().max() <= 1e-9 * known.abs().max()
    assert loaded.noise == "const"
    silent = models.load(Checkpoint.find(str(saved("stylegan2_clamp256"))), noise="none")
    assert computing.volume_spec(silent).noise == "none"
    assert computing.volume_spec(silent).fingerprint != computing.volume_spec(loaded).fingerprint
    done = magnet("info", saved("stylegan2", colour="red"))
    assert (done.code, done.out) == (1, "")
    assert "setting 'colour'" in done.err
    save_file(record.groups["state"], "odd.safetensors", {"magnet": "[1]"})
    with pytest.raises(GeneratorError, match=r"'\[1\]' under \"magnet\", and a JSON object"):
        models.load(Checkpoint.find("odd.safetensors"))
    done = magnet("info", saved("stylegan2_cond"), "--json").json
    assert (done["family"], done["latent_dim"], done["image_shape"]) == ("stylegan2", 24, [3, 32, 32])
    assert (done["prior"], done["num_classes"], done["style_dim"]) == ("sphere", 5, 32)


# --- volumes and samples --------------------------------------------------------------------------------------------

SMALL = ("--memory", "16MB", "--solver", "exact")  # so that a batch, which calls are padded to, is a few latents


@pytest.fixture
def small(tmp_path):
    """Path of a small network, D = Dw = 8, 3x16x16, and the network."""
    state = stylegan2_weights()
    save_file(state, tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors", stylegan2.build(state)


@pytest.mark.parametrize(
    ("space", "output", "rank"),
    [("z", "pixel", 7), ("w", "pixel", 8), ("z", "style", 7), ("z", "affine", 7), ("w", "affine", 8)],
)
def test_volumes_equal_the_dense_jacobian(magnet, small, dense, space, output, rank):
    path, net = small
    flags = ("--space", space, "--output", output, "--truncation", 0.7)
    done = magnet("compute", path, "--n", 4, "--volume", "v", *flags, *SMALL, "--json")
    assert done.code == 0, done.err
    assert done.json["top_k"] == rank
    rows = Volume.open(cache.Path("v")).read(0)
    np.testing.assert_allclose(np.linalg.norm(rows.latents, axis=1), np.sqrt(8), rtol=1e-6)
    z = torch.from_numpy(rows.latents).double()
    mean = net.mean
    drawn = {
        ("z", "style"): lambda x: mean + 0.7 * (net.mapping(x) - mean),
        ("z", "affine"): lambda x: net.affine(mean + 0.7 * (net.mapping(x) - mean)),
        ("w", "affine"): lambda x: net.affine(mean + 0.7 * (x - mean)),
        ("z", "pixel"): lambda x: net.images(net.affine(mean + 0.7 * (net.mapping(x) - mean))),
        ("w", "pixel"): lambda x: net.images(net.affine(mean + 0.7 * (x - mean))),
    }[space, output]
    truth = dense(drawn, z if space == "z" else net.mapping(z), reverse=False)[:, :rank]
    strong = truth >= 1e-3 * truth[:, :1]
    assert strong.mean() > 0.9
    assert (np.abs(rows.singular_values - truth) / truth)[strong].max() <= 1e-3


def test_the_solvers_work_in_w(tmp_path, dense):
    """Where w has more numbers than z, so that taking one for the other shows."""
    save_file(stylegan2_weights(latent_dim=6), tmp_path / "six.safetensors")
    loaded = models.load(Checkpoint.find(str(tmp_path / "six.safetensors")), dtype=torch.float64)
    spec = computing.volume_spec(loaded, space="w", precision="float64")
    assert (spec.input_dim, spec.rank, spec.top_k, spec.latent_dim) == (8, 8, 8, 6)
    z = Prior("sphere", 6).draw_shard(0, 0, 5)[0]
    truth = dense(loaded.module.synthesis, loaded.module.mapping(torch.from_numpy(z).double()))
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8)))[0]
    for solver, size in (("exact", 0), ("pilot", 8), ("sketch", 8), ("projection", 128)):
        chosen = dataclasses.replace(spec, solver=solver, solver_size=size)
        found = computing.values_at(loaded, z, chosen, BatchPlan(2), basis=basis)
        if solver == "projection":  # an approximation: no value is larger than the true one
            assert (found <= truth * 1.001).all()
            assert (found[:, 0] > 0.1 * truth[:, 0]).all()
        else:
            np.testing.assert_allclose(found, truth, rtol=1e-5)


def test_an_image_model_can_follow_w(small, dense):
    path, net = small
    loaded = models.load(Checkpoint.find(str(path)), dtype=torch.float64)
    pooled = ImageModel("pooled", "0", torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Tanh()))
    spec = computing.volume_spec(loaded, space="w", output=pooled, truncation=0.7, precision="float64")
    computing.check(loaded, spec, pooled)
    z = Prior("sphere", 8).draw_shard(0, 0, 3)[0]
    found = computing.values_at(loaded, z, spec, BatchPlan(3), output=pooled)
    w = net.mapping(torch.from_numpy(z).double())
    np.testing.assert_allclose(found, dense(lambda x: pooled.module(net.synthesis(x, 0.7)), w), rtol=1e-5)
    with pytest.raises(SpecError, match="style is w itself"):
        computing.volume_spec(loaded, space="w", output="style")
    with pytest.raises(SpecError, match="no output 'logits': found pixel, style, affine"):
        computing.volume_spec(loaded, output="logits")


def test_labels_decide_where_in_w(saved, dense):
    loaded = models.load(Checkpoint.find(str(saved("stylegan2_cond"))), dtype=torch.float64)
    spec = computing.volume_spec(loaded, space="w", top_k=6, precision="float64", label=(4, 2))
    z = Prior("sphere", 24).draw_shard(0, 0, 2)[0]
    found = computing.values_at(loaded, z, spec, BatchPlan(2), first_row=3)
    w = loaded.module.mapping(torch.from_numpy(z).double(), torch.tensor([2, 4]))
    np.testing.assert_allclose(found, dense(loaded.module.synthesis, w, reverse=False)[:, :6], rtol=1e-6)


@pytest.mark.slow
def test_log_volumes_of_z_and_2z_agree(saved, dense):
    """The direction of z is null, and J goes with 1/|z| (docs/method.md#generators-that-normalise-z)."""
    loaded = models.load(Checkpoint.find(str(saved("stylegan2_clamp256"))), dtype=torch.float64)
    with pytest.raises(SpecError, match=r"outside 1\.\.31.*on a sphere"):
        computing.volume_spec(loaded, top_k=32)
    spec = computing.volume_spec(loaded, precision="float64", top_k=12)
    z = Prior("normal", 32).draw_shard(0, 0, 3)[0]
    at_root, scaled, raw, doubled = (
        np.log(computing.values_at(loaded, at, spec, BatchPlan(3))).sum(axis=1)
        for at in (on_sphere(z), on_sphere(2 * z), z, 2 * z)
    )
    np.testing.assert_allclose(scaled, at_root, atol=1e-5)
    np.testing.assert_allclose(doubled + 12 * np.log(2), raw, atol=1e-5)
    all_of_them = dense(loaded.module.mapping, on_sphere(z))
    assert (all_of_them[:, 31] <= 1e-7 * all_of_them[:, 0]).all()  # 1e-8 from the epsilon beside |z|²
    assert (all_of_them[:, 30] >= 1e-5 * all_of_them[:, 0]).all()


@pytest.mark.slow
def test_labels_go_from_the_volume_into_the_sample(magnet, saved, dense):
    path = saved("stylegan2_cond")
    done = magnet("compute", path, "--n", 12, "--shard-rows", 7, "--top-k", 8, *SMALL, "--json")
    assert done.code == 0, done.err
    volume = Volume.open(cache.Path(done.json["volume"]))
    assert (volume.read(0).labels.tolist(), volume.read(1).labels.tolist()) == ([0, 1, 2, 3, 4, 0, 1], [2, 3, 4, 0, 1])
    net = network("stylegan2_cond")[0]
    labels = torch.tensor(volume.read(1).labels)
    for row in range(2):  # the second shard's rows start in the middle of the cycle
        truth = dense(
            lambda z, row=row: net(z, labels[row : row + 1]), volume.read(1).latents[row : row + 1], reverse=False
        )
        np.testing.assert_allclose(volume.read(1).singular_values[row], truth[0, :8], rtol=1e-3)
    assert magnet("compute", path, "--n", 14, "--shard-rows", 7, "--top-k", 8, *SMALL).code == 0
    assert volume.read(1).labels.tolist() == [2, 3, 4, 0, 1, 2, 3]

    drawn = magnet("sample", path, "--n", 4, "--rho", 0.3, "--out", "all", "--json")
    assert drawn.code == 0, drawn.err
    records = [json.loads(line) for line in cache.Path("all/metadata.jsonl").read_text().splitlines()]
    assert [r["label"] for r in records] == np.load("all/labels.npy").tolist() == [r["row"] % 5 for r in records]
    some = magnet("sample", path, "--n", 3, "--rho", 0.3, "--label", 1, "--label", 3, "--out", "some", "--json")
    assert (some.code, some.json["pool"]) == (0, 6)
    assert set(np.load("some/labels.npy").tolist()) <= {1, 3}
    assert magnet("sample", path, "--n", 3, "--rho", 0.3, "--label", 1, "--label", 3, "--out", "some").code == 0
    assert magnet("sample", path, "--n", 3, "--rho", 0.3, "--out", "some").code == 1  # another sample
    pixels = np.load("some/latents.npy"), np.load("some/labels.npy")
    image = net(torch.from_numpy(pixels[0][:1]).double(), torch.from_numpy(pixels[1][:1]))[0].permute(1, 2, 0)
    shown = ((image + 1) * 127.5).round().clamp(0, 255).numpy()
    assert np.abs(np.asarray(Image.open("some/images/000000.png"), float) - shown).max() <= 1


@pytest.mark.slow
def test_labels_that_cannot_be(magnet, saved):
    path = saved("stylegan2_cond")
    done = magnet("compute", path, "--label", 5, "--n", 4)
    assert (done.code, done.out) == (1, "")
    assert "label 5 is outside 0..4" in done.err
    done = magnet("compute", saved("stylegan2"), "--label", 0, "--n", 4)
    assert (done.code, done.out) == (1, "")
    assert "takes no labels" in done.err
    assert magnet("compute", path, "--label", -1).code == 2
    assert magnet("compute", path, "--label", 2, "--n", 4, "--top-k", 4, *SMALL).code == 0
    done = magnet("sample", path, "--n", 2)
    assert (done.code, done.out) == (1, "")  # that volume has one class only
    assert magnet("sample", path, "--n", 2, "--label", 2, "--rho", 0.1).code == 0
    done = magnet("sample", path, "--n", 2, "--label", 3)
    assert "magnet compute" in done.err
    assert "--label 3" in done.err
    loaded = models.load(Checkpoint.find(str(path)))
    with pytest.raises(GeneratorError, match=r"takes labels 0\.\.4, and none are given"):
        loaded(torch.zeros(1, 24))


def test_a_sample_in_w_says_that_it_is_not_uniform(magnet, small):
    path, _ = small
    assert magnet("compute", path, "--n", 20, "--space", "w", *SMALL).code == 0
    done = magnet("sample", path, "--n", 4, "--space", "w", "--json")
    assert done.code == 0, done.err
    assert "p_w" in done.json["target"]
    assert "not uniform" in done.json["target"]
    latents = np.load(cache.Path(done.json["sample"]) / "latents.npy")
    np.testing.assert_allclose(np.linalg.norm(latents, axis=1), np.sqrt(8), rtol=1e-6)  # z, whatever the space
    assert magnet("sample", path, "--n", 4).code == 1  # no volume in z
    assert magnet("info", done.json["sample"], "--check").code == 0


def test_without_noise_inputs_in_the_file_there_is_no_noise():
    """As in rosinality's published file for FFHQ at 256."""
    record = recorded.read("stylegan2_rosinality")
    state = record.groups["state"]
    published = {name: value for name, value in state.items() if not name.startswith("noises.")}
    z = torch.ones(2, state["style.1.weight"].shape[1], dtype=torch.float64)
    net = stylegan2.build(published)
    assert (net.noise, net.told) == ("none", {"noise": "none"})
    assert stylegan2.build(state).noise == "const"
    assert torch.equal(net(z), stylegan2.build(state, noise="none")(z))
    with pytest.raises(GeneratorError, match="noise_const is missing"):
        stylegan2.build(published, noise="const")
    with pytest.raises(GeneratorError, match="noise_const is missing"):
        stylegan2.build({name: value for name, value in state.items() if name != "noises.noise_0"})
    own = stylegan2_weights()
    partly = {name: value for name, value in own.items() if not name.startswith("synthesis.b8.conv0.noise")}
    with pytest.raises(GeneratorError, match=r"synthesis\.b8\.conv0 has no noise input, and other layers have one"):
        stylegan2.build(partly)


def test_where_z_and_w_are_equally_long_other_lengths_are_refused():
    state = recorded.read("stylegan2_rosinality").groups["state"]
    longer = torch.cat([state["style.1.weight"]] * 2, dim=1)
    with pytest.raises(GeneratorError, match="and rosinality's code has them equal"):
        stylegan2.build(state | {"style.1.weight": longer})
