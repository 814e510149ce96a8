"""StyleGAN3: the recorded outputs of the official networks, then a volume and a sample of such a network."""

import json
import re

import numpy as np
import pytest
import recorded
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional
from toys import stylegan3_weights

from magnet_cli import models
from magnet_cli.catalog import cache
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.errors import GeneratorError
from magnet_cli.maths.jacobian import products, solvers
from magnet_cli.models.generators import stylegan3
from magnet_cli.volume import Volume

pytestmark = pytest.mark.slow  # real networks and whole pages: `make test` runs them

FILES = ["stylegan3_r", "stylegan3_t", "stylegan3_t_cond64"]


def network(name, dtype=torch.float64, transform="", **settings):
    """A recorded network, perhaps with one of the recorded user's transforms, and the record."""
    record = recorded.read(name)
    state = dict(record.groups["state"])
    if transform:
        state["synthesis.input.transform"] = record.groups["in"][transform]
    return stylegan3.build(state, **settings).to(dtype), record


def inputs(record, dtype=torch.float64, rows=None):
    """The recorded latents and labels, all of them or the first."""
    group = record.groups["in"]
    labels = group.get("c")
    return group["z"][:rows].to(dtype), None if labels is None else labels[:rows].to(dtype)


def output(name, key, dtype):
    """What our network gives for a recorded output."""
    cutoff = int(found[1]) if (found := re.search(r"cutoff(\d+)", key)) else None
    transform = found[0] if (found := re.search(r"user_transform.*", key)) else ""
    net, record = network(name, dtype, transform, truncation_cutoff=cutoff)
    psi = float(found[1]) if (found := re.search(r"psi([\d.]+)", key)) else 1.0
    z, labels = inputs(record, dtype, 1 if key.endswith(("single0", "sample0")) else None)
    num_ws = record.facts["num_ws"]
    if key == "image_mix":
        ws = record.groups["out"]["ws_mix"].to(dtype)
        parts = [net.affine(ws[:, i]).split(net.style_widths, dim=1)[i] for i in range(num_ws)]
        return net.images(torch.cat(parts, dim=1))
    if key.startswith("image"):
        return net(z, labels, psi)
    w = net.mapping(z, labels)
    return torch.stack([net.truncated(w, psi) if i < (cutoff or num_ws) else w for i in range(num_ws)], dim=1)


def test_the_records_are_all_here():
    assert recorded.names("stylegan3") == FILES


@pytest.mark.parametrize("name", FILES)
def test_float64_equals_the_record(name):
    known = recorded.read(name).groups["out64"]
    assert {key.partition("_")[0] for key in known} >= {"image"}
    for key, value in known.items():
        # The official network divides styles by what they are over the batch; of one latent that is what ours does.
        tolerance = 1e-13 if key.endswith("single0") else 1e-9
        assert (output(name, key, torch.float64) - value).abs().max() <= tolerance * value.abs().max(), key


@pytest.mark.parametrize("name", FILES)
def test_float32_equals_the_record(name):
    record = recorded.read(name)
    compared = [key for key in record.groups["out"] if key != "ws_mix"]  # that one is an input
    assert len(compared) == (3 if name == "stylegan3_t_cond64" else 9)
    for key in compared:
        error = (output(name, key, torch.float32) - record.groups["out"][key]).abs().max()
        assert error <= record.tolerance(key), key


@pytest.mark.parametrize("name", FILES)
def test_styles_and_features_equal_the_record(name):
    net, record = network(name)
    z, labels = inputs(record)
    layers = ["input", *(layer["name"] for layer in record.facts["layers"])]
    styles = net.affine(net.mapping(z, labels)).split(net.style_widths, dim=1)
    for layer, found in zip(layers, styles, strict=True):
        torch.testing.assert_close(found.float(), record.groups["style"][layer], rtol=1e-5, atol=1e-5)
    passed = {}
    for layer, module in zip(layers, (net.start, *net.layers), strict=True):
        module.register_forward_hook(lambda _m, _a, out, layer=layer: passed.update({layer: out}))
    net(z[:1], None if labels is None else labels[:1])
    passed[layers[-1]] = passed[layers[-1]] / 0.25  # the record is of before the image's scale
    for key, known in record.groups.get("trace0", {}).items():
        torch.testing.assert_close(
            passed[key][:, : known.shape[1]].float(), known, rtol=2e-5, atol=2e-6 * float(known.abs().max())
        )


@pytest.mark.parametrize("name", FILES)
def test_names_and_shapes_tell_the_layers(name):
    net, record = network(name)
    facts = record.facts
    assert (net.start.rate, len(net.start.places)) == (facts["input"]["sampling_rate"], facts["input"]["size"][0])
    for layer, known in zip(net.layers[:-1], facts["layers"][:-1], strict=True):
        assert (layer.up.up, layer.down.down) == (known["up_factor"], known["down_factor"])
        assert layer.down.separable != known["down_radial"]
        assert layer.conv.weight.shape[-1] == known["conv_kernel"]
    for cutoff in range(facts["num_ws"] + 1):
        net, _ = network(name, truncation_cutoff=cutoff)
        cut = [part.all().item() for part in net.cut.split(net.style_widths)]
        assert cut == [place < cutoff for place in (0, *(layer["w_index"] for layer in facts["layers"]))]


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
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


def test_a_row_does_not_depend_on_its_batch():
    net, record = network("stylegan3_r")
    z, _ = inputs(record)
    torch.testing.assert_close(net(z)[2:3], net(z[2:3]), rtol=0, atol=1e-14)


def step_by_step(x, style, state, known, clamp):
    """A layer as the record describes it: every weight modulated for itself, every zero and every pad put in."""
    weight, ema = state["weight"], state["magnitude_ema"]
    weight = weight * weight.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt()
    style = style * style.square().mean(dim=1, keepdim=True).rsqrt()
    padded = known["conv_kernel"] - 1
    rows = []
    for one, s in zip(x, style, strict=True):
        modulated = weight * s[:, None, None]
        modulated = modulated * (modulated.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).rsqrt() * ema.rsqrt()
        rows.append(functional.conv2d(one[None], modulated, padding=padded) + state["bias"][:, None, None])
    x, up = torch.cat(rows), known["up_factor"]
    spread = x.new_zeros(*x.shape[:2], x.shape[2] * up, x.shape[3] * up)
    spread[:, :, ::up, ::up] = x
    x = filtered(functional.pad(spread, known["padding_x0x1y0y1"]), state["up_filter"] * up)
    x = (functional.leaky_relu(x, 0.2) * 2**0.5).clamp(-clamp, clamp)
    return filtered(x, state["down_filter"])[:, :, :: known["down_factor"], :: known["down_factor"]]


def filtered(x, fir):
    """The convolution with a filter, or with one along each axis, where all of it lies inside: by Fourier transform."""
    plane = torch.outer(fir, fir) if fir.ndim == 1 else fir
    whole = torch.fft.irfft2(torch.fft.rfft2(x) * torch.fft.rfft2(plane, s=x.shape[2:]), s=x.shape[2:])
    return whole[:, :, len(plane) - 1 :, len(plane) - 1 :]


@pytest.mark.parametrize("name", FILES)
def test_layers_equal_their_description_where_the_clamp_binds(name):
    clamp = 0.3  # no record reaches the 256 of the official networks
    net, record = network(name, conv_clamp=clamp)
    rng = torch.Generator().manual_seed(0)
    for layer, known in zip(net.layers[:-1], record.facts["layers"][:-1], strict=True):
        prefix = f"synthesis.{known['name']}."
        state = {k.removeprefix(prefix): v.double() for k, v in record.groups["state"].items() if k.startswith(prefix)}
        x = torch.randn(1, known["in_channels"], *known["in_size"], generator=rng, dtype=torch.float64)
        style = torch.randn(1, known["in_channels"], generator=rng, dtype=torch.float64)
        found = layer(x, style)
        assert list(found.shape) == [1, known["out_channels"], *known["out_size"]]
        torch.testing.assert_close(found, step_by_step(x, style, state, known, clamp), rtol=1e-12, atol=1e-12)
        assert (layer.up(layer.conv(x, style) + layer.bias) > clamp).double().mean() > 0.1
    z, labels = inputs(record)
    small, scale = network(name, conv_clamp=1e-3, output_scale=2.0)[0](z, labels).abs(), 2e-3
    assert small.max() <= scale
    assert (small == scale).double().mean() > 0.1


# --- derivatives ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
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
        step = 1e-7 * tangents[0]
        difference = (function(point + step) - function(point - step)).flatten(1) / 2e-7
        error = (difference - pushed[:, 0]).abs().flatten(1).max(dim=1).values
        assert (error <= 1e-5 * pushed[:, 0].abs().flatten(1).max(dim=1).values).all()  # a leak between the two points


def test_second_derivatives_exist_in_both_modes():
    net = stylegan3.build(stylegan3_weights())
    z = torch.randn(8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one = torch.func.jacfwd(torch.func.jacrev(lambda x: net(x[None]).square().sum()))(z)
    two = torch.func.jacrev(torch.func.jacfwd(lambda x: net(x[None]).square().sum()))(z)
    torch.testing.assert_close(one, two)
    torch.testing.assert_close(one, one.T)
    assert one.abs().max() > 0.1


# --- what a state dict tells ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resolution", "radial", "count"),
    [(1024, False, 22_313_167), (512, True, 16_665_594)],
)
def test_official_configurations_have_their_published_size(resolution, radial, count):
    """22.3 M in the paper's table for T at 1024; R at 512 as training logs of the official code print it."""
    scale = 2 if radial else 1
    full = {"num_layers": 14, "margin": 10, "style_dim": 512}
    state = stylegan3_weights(resolution, radial, base=32768 * scale, width=512 * scale, **full)
    net = stylegan3.build(state)
    assert sum(p.numel() for p in net.parameters()) == count
    assert (net.latent_dim, net.style_dim, net.image_shape) == (512, 512, (3, resolution, resolution))
    assert len(net.style_widths) == 16


def test_what_does_not_fit_is_refused():
    state = stylegan3_weights()
    assert stylegan3.build(state)(torch.ones(1, 8, dtype=torch.float64)).shape == (1, 3, 16, 16)
    names = [n.removesuffix(".magnitude_ema") for n in state if n.endswith("magnitude_ema")]
    first, middle, last = names[0], names[2], names[-1]
    for change, said in (
        ({f"{first}.bias": None}, f"{first}.bias is missing"),
        ({f"{first}.magnitude_ema": None}, "magnitude_ema is missing"),
        ({f"{first}.up_filter": None}, "up_filter is missing"),
        ({"synthesis.input.phases": None}, "input.phases is missing"),
        ({f"{middle}.weight": None}, "do not tell their sampling rates"),
        ({f"{last}.weight": None}, "do not tell their sampling rates"),
        ({n + ".weight": None for n in names}, "its layers, none"),
        ({f"{first}.weight": torch.zeros(8, 7, 3, 3)}, r"is \[8, 7, 3, 3\].*\[8, 8, any, any\]"),
        ({f"{first}.weight": torch.zeros(8, 8, 3, 1)}, r"is \[8, 8, 3, 1\].*\[8, 8, 1, 1\]"),
        ({f"{last}.weight": torch.zeros(3, 8, 3, 3)}, r"\[3, \d, 1, 1\]"),
        ({f"{first}.affine.weight": torch.zeros(8, 9)}, "affine.weight"),
        ({f"{first}.up_filter": torch.zeros(14)}, "have 14 and 12 taps, and 12 and 12 are asked for"),
        ({f"{first}.down_filter": torch.zeros(16)}, "have 12 and 16 taps"),
        ({f"{first}.down_filter": torch.zeros(12, 10)}, r"\[12, 12\]"),
        ({f"{first}.down_filter": torch.zeros(12, 12, 12)}, r"for \[12, 12\]"),
        ({f"{first}.down_filter": torch.full((12,), torch.nan)}, "down_filter holds nan"),
        ({f"{first}.down_filter": torch.zeros(())}, r"for \[any\]"),
        ({"synthesis.input.transform": torch.zeros(2, 3)}, "transform"),
        ({"synthesis.input.affine.bias": torch.zeros(3)}, "affine.bias"),
        ({f"{first}.noise_strength": torch.zeros(())}, "1 of them have no place in one"),
        ({"mapping.w_avg": torch.zeros(7)}, "w_avg"),
    ):
        changed = {k: v for k, v in (state | change).items() if v is not None}
        with pytest.raises(GeneratorError, match=said):
            stylegan3.build(changed)
    with pytest.raises(GeneratorError, match="and 24 and 24 are asked for"):
        stylegan3.build(state, lrelu_upsampling=4)


def test_a_filter_the_same_along_both_axes_is_its_outer_product():
    state = stylegan3_weights()
    planes = {n: torch.outer(f.double(), f.double()) for n, f in state.items() if n.endswith("_filter")}
    z = torch.randn(2, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(stylegan3.build(state | planes)(z), stylegan3.build(state)(z))


# --- from the command line ------------------------------------------------------------------------------------------

SMALL = ("--memory", "16MB", "--solver", "exact")  # so that a batch, which calls are padded to, is a few latents
BIGGER = ("--memory", "60MB", "--solver", "exact", "--precision", "float32")


@pytest.fixture
def saved(tmp_path):
    """Path of a recorded network as a safetensors file."""

    def save(name, **settings):
        path = tmp_path / f"{name}.safetensors"
        save_file(recorded.read(name).groups["state"], path, {"magnet": json.dumps(settings)})
        return path

    return save


def test_metadata_tells_what_weights_do_not(saved, magnet):
    record = recorded.read("stylegan3_t")
    z, _ = inputs(record)
    known = record.groups["out64"]["image_psi1"]
    loaded = models.load(Checkpoint.find(str(saved("stylegan3_t", output_scale=0.5))), dtype=torch.float64)
    assert (loaded(z) - 2 * known).abs().max() <= 1e-9 * known.abs().max()
    assert (loaded.noise, loaded.spaces, loaded.outputs) == ("", ("z", "w"), ("pixel", "style", "affine"))
    wider = models.load(Checkpoint.find(str(saved("stylegan3_t", first_cutoff=1))), dtype=torch.float64)
    assert (wider(z) - known).abs().max() > 1e-3
    done = magnet("info", saved("stylegan3_t", colour="red"))
    assert (done.code, done.out) == (1, "")
    assert "setting 'colour'" in done.err


@pytest.mark.slow
def test_a_checkpoint_from_the_command_line(magnet, saved, dense):
    done = magnet("info", saved("stylegan3_t_cond64"), "--json").json
    assert (done["family"], done["latent_dim"], done["image_shape"]) == ("stylegan3", 24, [3, 64, 64])
    assert (done["prior"], done["num_classes"], done["style_dim"]) == ("sphere", 5, 32)
    path = saved("stylegan3_t")
    done = magnet("compute", path, "--n", 2, "--volume", "v", "--top-k", 12, "--truncation", 0.7, *BIGGER, "--json")
    assert done.code == 0, done.err
    rows = Volume.open(cache.Path("v")).read(0)
    net = network("stylegan3_t")[0]
    truth = dense(lambda z: net(z, None, 0.7), rows.latents[1:], reverse=False)[0, :12]
    strong = truth >= 1e-3 * truth[0]
    assert strong.sum() > 6
    np.testing.assert_allclose(rows.singular_values[1][strong], truth[strong], rtol=1e-3)
    flags = ("--volume", "v", "--truncation", 0.7, "--n", 1, "--rho", 0.1, "--out", "drawn", "--json")
    done = magnet("sample", path, *flags)
    assert done.code == 0, done.err
    image = net(torch.from_numpy(np.load("drawn/latents.npy")).double(), None, 0.7)[0].permute(1, 2, 0)
    shown = ((image + 1) * 127.5).round().clamp(0, 255).numpy()
    assert np.abs(np.asarray(Image.open("drawn/images/000000.png"), float) - shown).max() <= 1
    assert magnet("info", "drawn", "--check").code == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space", "output", "rank"), [("w", "pixel", 8), ("z", "style", 7), ("z", "affine", 7), ("w", "affine", 8)]
)
def test_volumes_equal_the_dense_jacobian(magnet, tmp_path, dense, space, output, rank):
    state = stylegan3_weights(radial=True)
    save_file(state, tmp_path / "small.safetensors")
    net = stylegan3.build(state)
    flags = ("--space", space, "--output", output, "--truncation", 0.7)
    done = magnet("compute", tmp_path / "small.safetensors", "--n", 2, "--volume", "v", *flags, *SMALL, "--json")
    assert done.code == 0, done.err
    assert done.json["top_k"] == rank
    rows = Volume.open(cache.Path("v")).read(0)
    z = torch.from_numpy(rows.latents).double()
    drawn = {
        "style": lambda w: net.mean + 0.7 * (w - net.mean),
        "affine": lambda w: net.affines(net.mean + 0.7 * (w - net.mean)),
        "pixel": lambda w: net.images(net.affines(net.mean + 0.7 * (w - net.mean))),
    }[output]
    of_z = (lambda x: drawn(net.mapping(x))) if space == "z" else drawn
    truth = dense(of_z, z if space == "z" else net.mapping(z), reverse=False)[:, :rank]
    strong = truth >= 1e-3 * truth[:, :1]
    assert strong.mean() > 0.9
    assert (np.abs(rows.singular_values - truth) / truth)[strong].max() <= 1e-3
