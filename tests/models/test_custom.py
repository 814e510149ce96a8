"""Generators of the user's own: found, computed, drawn from, and refused where they cannot be right."""

import json
import os
import pickle
import re
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from magnet_cli import computing, models
from magnet_cli.catalog import entries as entries_
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.errors import ArtifactError, GeneratorError
from magnet_cli.maths.priors import Prior
from magnet_cli.models import custom, factories
from magnet_cli.volume import Volume

PAGE = (Path(__file__).parents[2] / "docs/tutorials/your-own-generator.md").read_text(encoding="utf-8")

MODULE = """
import torch

class Map(torch.nn.Module):
    latent_dim = 3
    {attributes}

    def __init__(self):
        super().__init__()
        rng = torch.Generator().manual_seed({seed})
        self.weight = torch.nn.Parameter(torch.randn(3, 48, generator=rng) / 3)

    def forward(self, z{labels}):
        {forward}

def make():
    {before}
    return {returned}
"""
IMAGES = "return torch.tanh(z @ self.weight).reshape(-1, 3, 4, 4)"
PARTS = {"attributes": "pass", "seed": 0, "labels": "", "forward": IMAGES, "before": "pass", "returned": "Map()"}


def write(path="own.py", **parts):
    """A file with a factory in the working folder; its reference."""
    Path(path).write_text(textwrap.dedent(MODULE).format(**PARTS | parts))
    return f"{path}:make"


SMALL = ("--n", 6, "--solver", "exact")


@pytest.mark.slow
def test_the_page_runs_as_it_stands(magnet):
    """docs/tutorials/your-own-generator.md: the module, the commands, and what it says a sample holds."""
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    Path("waves.py").write_text(code)
    for line in re.search(r"```sh\n(.*?)```", PAGE, re.DOTALL)[1].splitlines():
        done = magnet(*line.split()[1:])
        assert done.code == 0, f"{line}\n{done.err}"
    assert sorted(p.name for p in Path("drawn").iterdir() if p.is_dir()) == ["arrays"]
    assert not Path("drawn/__sheets__/grid.png").exists()
    records = [json.loads(line) for line in Path("drawn/metadata.jsonl").read_text().splitlines()]
    assert [r["file_name"] for r in records] == [f"arrays/{i:06d}.npy" for i in range(16)]
    loaded = models.load(custom.from_factory("waves.py:factory"))
    drawn = np.load("drawn/arrays/000003.npy")
    assert (drawn.dtype, drawn.shape) == (np.float32, (256,))
    with torch.no_grad():
        known = 2 * loaded.module.inner(torch.from_numpy(np.load("drawn/latents.npy")[3:4]))[0] - 1
    np.testing.assert_allclose(drawn, known.numpy(), atol=1e-6)
    assert magnet("info", "drawn", "--check").code == 0
    assert magnet("sample", "waves.py:factory", "--n", 16, "--rho", 0.5, "--out", "drawn").code == 0  # nothing to do
    forced = ("--rho", 0.2, "--out", "drawn", "--force")
    assert magnet("sample", "waves.py:factory", "--n", 2, *forced).code == 0
    assert len(list(Path("drawn/arrays").iterdir())) == 2


def test_singular_values_equal_the_dense_jacobian(magnet, dense):
    """Per unit of latent and of intensity in [-1, 1], whatever range the module has."""
    reference = write(attributes="image_range = (-1, 3)", forward=IMAGES.replace("torch.tanh", "1 + 2 * torch.tanh"))
    done = magnet("compute", reference, *SMALL, "--json")
    assert done.code == 0, done.err
    volume = Volume.open(Path(done.json["volume"]))
    assert (volume.spec.family, volume.spec.image_range, volume.spec.generator) == ("own", (-1.0, 3.0), "own-make")
    weight = factories.call_factory(reference).weight.detach().double()
    truth = dense(lambda z: torch.tanh(z @ weight), volume.read(0).latents)
    np.testing.assert_allclose(volume.read(0).singular_values, truth, rtol=1e-4)
    done = magnet("sample", reference, "--n", 2, "--rho", 0.1, "--out", "s")
    assert done.code == 0, done.err
    image = torch.tanh(torch.from_numpy(np.load("s/latents.npy")[:1]).double() @ weight).reshape(3, 4, 4)
    shown = ((image + 1) * 127.5).permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(Image.open("s/images/000000.png"), float) - shown).max() <= 0.51
    assert Path("s/__sheets__/grid.png").exists()


def test_flags_go_before_attributes(magnet):
    reference = write(attributes="prior = 'normal'; image_range = (0, 1)")
    told = magnet("info", reference, "--json").json
    assert (told["kind"], told["family"], told["latent_dim"], told["image_shape"]) == ("generator", "own", 3, [3, 4, 4])
    assert (told["prior"], told["image_range"], told["num_classes"]) == ("normal", [0, 1], 0)
    assert (told["parameters"], told["sha256"]) == (144, factories.state_sha256(factories.call_factory(reference)))
    flags = ("--latent-dim", 3, "--prior", "fixed-length", "--image-range", "-1,1")
    told = magnet("info", reference, *flags, "--json").json
    assert (told["prior"], told["image_range"]) == ("fixed-length", [-1, 1])
    done = magnet("compute", reference, *flags, *SMALL, "--json")
    assert done.code == 0, done.err
    spec = Volume.open(Path(done.json["volume"])).spec
    assert (spec.prior, spec.image_range, spec.top_k) == ("fixed-length", (), 2)
    hint = "next: magnet index own.py:make --latent-dim 3 --prior fixed-length --image-range -1.0,1.0 --volume "
    assert hint in done.err
    for command in ("sample", "index"):
        other = magnet(command, reference)  # the same weights, another prior and range
        assert (other.code, other.out) == (1, "")
        assert "was made with prior fixed-length, and normal is asked for" in other.err
    assert magnet("index", reference, *flags).code == 0
    assert magnet("sample", reference, *flags, "--n", 2, "--rho", 0.1).code == 0


def test_a_uniform_prior(magnet):
    """U[-1, 1] in each number, row by row; the module is called nowhere else."""
    only_there = "return torch.asin(z) @ self.weight"
    reference = write(attributes="prior = 'uniform'", forward=only_there)
    done = magnet("compute", reference, "--n", 3000, "--json")
    assert done.code == 0, done.err
    volume = Volume.open(Path(done.json["volume"]))
    latents = volume.latents(np.arange(3000))
    assert (volume.spec.prior, latents.dtype) == ("uniform", np.float32)
    assert np.abs(latents).max() <= 1
    for column in latents.T:
        assert stats.kstest(column, "uniform", (-1, 2)).pvalue > 1e-3
    assert Prior("uniform", 3).draw_shard(0, 0, 5)[0].tolist() == latents[:5].tolist()
    told = magnet("sample", reference, "--n", 5, "--rho", 1, "--json").json
    assert told["target"] == "uniform on the manifold"


def test_labels_are_the_modules(magnet):
    conditional = "return torch.tanh((z + labels[:, None]) @ self.weight).reshape(-1, 3, 4, 4)"
    reference = write(attributes="num_classes = 4", labels=", labels", forward=conditional)
    done = magnet("compute", reference, "--label", 1, "--label", 3, *SMALL, "--json")
    assert done.code == 0, done.err
    volume = Volume.open(Path(done.json["volume"]))
    assert volume.read(0).labels.tolist() == [1, 3, 1, 3, 1, 3]
    assert volume.spec.num_classes == 4
    weight = factories.call_factory(reference).weight.detach()
    z, labels = (torch.from_numpy(a) for a in (volume.read(0).latents, volume.read(0).labels))
    known = torch.func.vmap(torch.func.jacrev(lambda x, label: torch.tanh((x + label) @ weight)))(z, labels)
    np.testing.assert_allclose(volume.read(0).singular_values, torch.linalg.svdvals(known), rtol=1e-4)
    assert magnet("sample", reference, "--label", 3, "--n", 2, "--rho", 0.1).code == 0


def test_a_function_without_weights(magnet):
    """A curve with a known speed: t to (t, t³/3), σ = √(1 + t⁴). Another such function does not take its volume."""
    curve = "return torch.cat([z, z**3 / 3], dim=1)"
    Path("curves.py").write_text(
        "import torch\nclass Curve(torch.nn.Module):\n    latent_dim = 1\n"
        f"    def forward(self, z):\n        {curve}\nclass Line(Curve):\n    def forward(self, z):\n"
        "        return torch.cat([z, z], dim=1)\n"
    )
    done = magnet("compute", "curves.py:Curve", *SMALL, "--json")
    assert done.code == 0, done.err
    rows = Volume.open(Path(done.json["volume"])).read(0)
    np.testing.assert_allclose(rows.singular_values, np.sqrt(1 + rows.latents.astype(float) ** 4), rtol=1e-5)
    line = magnet("compute", "curves.py:Line", "--n", 8, "--solver", "exact", "--json")
    assert line.code == 0, line.err
    for name, size in (("Curve", 6), ("Line", 8)):
        done = magnet("sample", f"curves.py:{name}", "--n", 2, "--rho", 0.1, "--json")
        assert done.code == 0, done.err
        assert done.json["pool"] == size
    done = magnet("sample", "curves.py:Line", "--n", 2, "--volume", Path(line.json["volume"]).parent / "none")
    assert done.code == 1
    Path("few.py").write_text(
        "import torch\nclass Few(torch.nn.Module):\n    latent_dim = 6\n"
        "    def forward(self, z):\n        return torch.sin(z[:, :2])\n"
    )
    done = magnet("compute", "few.py:Few", *SMALL, "--json")
    assert (done.code, done.json["top_k"]) == (0, 2)  # no more values than numbers in an output
    assert magnet("index", "few.py:Few").code == 0
    truncated = magnet("compute", "curves.py:Curve", *SMALL, "--truncation", 0.5, "--json")
    rows = Volume.open(Path(truncated.json["volume"])).read(0)
    np.testing.assert_allclose(rows.singular_values, np.sqrt(1 + (rows.latents / 2.0) ** 4) / 2, rtol=1e-5)


def test_functions_that_change_fast_or_have_kinks_pass(magnet):
    for forward in ("return torch.sin(300 * z @ self.weight)", "return (z @ self.weight).abs().clamp(0.1, 0.5)"):
        done = magnet(
            "compute", write(forward=forward), "--n", 2, "--solver", "exact", "--top-k", 1, "--volume", forward
        )
        assert done.code == 0, done.err


# --- the fingerprint ------------------------------------------------------------------------------------------------


def test_names_and_paths_are_no_part_of_the_fingerprint():
    Path("elsewhere").mkdir()
    specs = [
        computing.volume_spec(models.load(custom.from_factory(reference)))
        for reference in (write(), write("elsewhere/other.py", before="'a comment'"))
    ]
    assert specs[0].generator != specs[1].generator
    assert specs[0].fingerprint == specs[1].fingerprint
    known = computing.volume_spec(models.load(custom.from_factory("own.py:make"))).fingerprint
    for changed in ({"seed": 1}, {"attributes": "image_range = (0, 1)"}, {"attributes": "prior = 'sphere'"}):
        assert computing.volume_spec(models.load(custom.from_factory(write(**changed))), top_k=2).fingerprint != known
    write()
    assert computing.volume_spec(models.load(custom.from_factory("own.py:make"))).fingerprint == known


def test_a_changed_function_is_an_error(magnet):
    reference = write()
    done = magnet("compute", reference, *SMALL, "--json")
    path = Path(done.json["volume"])
    write(forward=IMAGES.replace("z @", "1.01 * z @"))
    for command in (
        ("compute", reference, "--n", 9, "--solver", "exact"),
        ("sample", reference, "--n", 2),
        ("sample", reference, "--n", 2, "--volume", path),
        ("index", reference),
    ):
        done = magnet(*command)
        assert (done.code, done.out) == (1, ""), command
        assert "the function of own-make changed" in done.err
    assert Volume.open(path).num_rows == 6
    write(seed=1)  # other weights: another volume
    assert magnet("compute", reference, *SMALL, "--volume", path).code == 1
    assert "there is no volume of own-make" in magnet("sample", reference).err
    write(forward=IMAGES.replace("z @ self.weight", "torch.matmul(z, self.weight)"))  # other code, the same function
    done = magnet("compute", reference, "--n", 9, "--solver", "exact", "--json")
    assert (done.code, done.json["new_rows"]) == (0, 3), done.err


# --- modules that cannot be right -----------------------------------------------------------------------------------

BAD = [
    (
        {"forward": "return z @ self.weight, z"},
        "to a tuple with the keys 0 [2, 48], 1 [2, 3], and one tensor is asked for do: pass --key",
    ),
    ({"forward": "return {}"}, "to a dict without floating tensors"),
    ({"forward": "return (z @ self.weight).log()"}, "values that are not finite"),
    ({"forward": "return torch.tanh(z.detach() @ self.weight)"}, "the derivative torch computes is zero"),
    ({"forward": "return (8 * torch.tanh(z @ self.weight)).round() / 8"}, "the derivative torch computes is zero"),
    ({"forward": "with torch.no_grad(): return z @ self.weight"}, "forward and reverse mode give other derivatives"),
    (
        {"forward": "return (z - z).abs().sqrt().sum(dim=1, keepdim=True) + z @ self.weight"},
        "a derivative that is not finite",
    ),
    ({"forward": "return torch.from_numpy(z.detach().numpy()) @ self.weight"}, "cannot be differentiated"),
    ({"attributes": "latent_dim = 4"}, "fails on latents [2, 4] float64"),
    ({"forward": "return z @ torch.ones(3, 8)"}, "Constants follow z with dtype=z.dtype"),
    ({"attributes": "latent_dim = 0"}, "latent_dim of own.py:make is 0"),
    ({"attributes": "latent_dim = None"}, "its module has no latent_dim"),
    (
        {"attributes": "prior = 'cauchy'"},
        "prior of own.py:make is 'cauchy', and magnet has normal, sphere",
    ),
    ({"attributes": "image_range = (1, 0)"}, "image_range of own.py:make is (1, 0)"),
    ({"attributes": "image_range = 255"}, "image_range of own.py:make is 255"),
    ({"attributes": "num_classes = 'ten'"}, "num_classes of own.py:make is 'ten'"),
    ({"attributes": "num_classes = 2"}, "fails on latents [2, 3] float64 and labels [2] int64: TypeError"),
    ({"forward": "return (255 * z @ self.weight).to(torch.uint8)"}, "to torch.uint8 of shape [2, 48]"),
    ({"forward": "return (z @ self.weight).mean()"}, "of shape []"),
    ({"forward": "return z @ self.weight + torch.rand(())"}, "draws noise"),
    ({"forward": "return z @ self.weight - z.mean(dim=0, keepdim=True).sum()"}, "batch statistics"),
    ({"returned": "None"}, "returns a NoneType, and a torch.nn.Module is asked for"),
    ({"returned": "Absent()", "before": "from absent import Absent"}, "No module named 'absent'"),
    ({"before": "open('no/such/weights.pt')"}, "No such file or directory: 'no/such/weights.pt'"),
    ({"before": "= 3"}, "own.py fails when it is imported: invalid syntax (own.py, line 17)"),
]


@pytest.mark.parametrize(("parts", "said"), BAD, ids=[said for _, said in BAD])
def test_what_is_wrong_is_said_and_nothing_is_written(magnet, home, parts, said):
    reference = write(**parts)
    done = magnet("compute", reference, *SMALL)
    assert (done.code, done.out) == (1, "")
    assert said in " ".join(done.err.split())
    assert not home.exists()
    assert {p.name for p in Path().iterdir()} <= {"own.py", "__pycache__"}


@pytest.mark.slow
def test_references_that_lead_nowhere(magnet):
    write()
    for reference, said in (
        ("own.py:absent", "own.py has no function 'absent'; it has Map, make"),
        ("absent.py:make", "No such file"),
        ("no_such_module:make", "No module named 'no_such_module'"),
    ):
        for command in ("compute", "sample", "index", "info"):
            done = magnet(command, reference)
            assert (done.code, done.out) == (1, "")
            assert "cannot be had" in done.err
            assert said in done.err
    for flag in (("--latent-dim", 3), ("--prior", "normal"), ("--image-range", "0,1")):
        assert magnet("compute", "mnist", *flag).code == 2
        assert magnet("info", "mnist", *flag).code == 2
    for text in ("1,0", "0", "a,b", "0,inf", "0,1,2"):
        assert magnet("compute", "own.py:make", "--image-range", text).code == 2
    with pytest.raises(GeneratorError, match="setting 'nvae_latents', which the family own does not have"):
        models.load(custom.from_factory("own.py:make"), nvae_latents="all")


def test_a_module_on_the_path_and_what_lies_beside_it(magnet):
    Path("parts_of_mine.py").write_text("SCALE = 0.5\n")
    write("model_of_mine.py", before="from parts_of_mine import SCALE")
    by_module, by_file = (magnet("info", r, "--json").json for r in ("model_of_mine:make", "model_of_mine.py:make"))
    assert by_module["sha256"] == by_file["sha256"]
    assert by_module["generator"] == by_file["generator"] == "model_of_mine-make"
    Path("deep").mkdir()
    Path("deep/beside.py").write_text("SCALE = 0.5\n")
    reference = write("deep/own.py", before="from beside import SCALE")
    assert magnet("info", reference).code == 0


@pytest.mark.slow
def test_a_name_in_a_file_is_never_imported(magnet, monkeypatch, tmp_path, toy):
    """Artifacts, volumes and metadata may say what they like: only the command line runs a factory."""
    write("evil.py", before="__import__('pathlib').Path('ran').touch()")
    entry = 'kind = "generator"\nsource = "file:{path}"\nsize = {size}\nlicense = "MIT"\ndescription = "x"\n'
    size = toy.stat().st_size
    entries = {"evil-family": 'family = "own"\n', "evil-path": 'family = "evil.py:make"\n'}
    text = "".join(
        f'["{name}"]\n{family}{entry.format(path=toy, size=size)}sha256 = "{Checkpoint.find(str(toy)).sha256}"\n'
        for name, family in entries.items()
    )
    text += f'[evil-source]\nfamily = "dcgan"\n{entry.format(path="evil.py:make", size=size)}sha256 = "{"0" * 64}"\n'
    (tmp_path / "mine.toml").write_text(text)
    monkeypatch.setenv("MAGNET_ARTIFACTS", str(tmp_path / "mine.toml"))
    assert {*entries, "evil-source"} <= entries_.registry().keys()
    for name in (*entries, "evil-source"):
        for command in ("info", "compute", "sample", "index"):
            assert magnet(command, name).code == 1
    assert magnet("fetch", *entries).code == 0
    assert magnet("fetch", "evil-source").code == 1
    assert magnet("list").code == 0
    Path("a:make").write_bytes(toy.read_bytes())  # a file of such a name is a file
    assert magnet("info", "a:make", "--json").json["family"] == "dcgan"
    assert not Path("ran").exists()
    assert magnet("info", "evil.py:make").code == 0
    assert Path("ran").exists()  # the canary sings where it should


def test_weights_in_the_precision_asked_for():
    """A module's own buffers follow; one without weights is told by the wrapper."""
    found = custom.from_factory(write())
    for dtype in (torch.float64, torch.float32):
        loaded = models.load(found, dtype=dtype)
        z = torch.zeros(2, 3, dtype=dtype)
        assert loaded(z).dtype == next(loaded.module.parameters()).dtype == dtype
        assert not any(p.requires_grad for p in loaded.module.parameters())
    assert not loaded.module.inner.training


# --- how often a factory is called ----------------------------------------------------------------------------------

COUNTED = "with open('calls', 'a') as log: log.write('.')"


def num_calls():
    calls = len(Path("calls").read_text())
    Path("calls").unlink()
    return calls


def test_a_command_calls_a_factory_once(magnet):
    """Whatever it loads the generator for: the shape, both precisions, the comparison with a volume, the images."""
    reference = write(before=COUNTED)
    flags = ("--latent-dim", 3, "--prior", "normal")
    for line in (
        ("info", reference),
        ("info", reference, *flags),
        ("compute", reference, "--n", 300),  # the solver is chosen: by measurements in both precisions
        ("compute", reference, "--n", 600, "--json"),
        ("compute", reference, "--n", 6, "--solver", "exact", "--dry-run"),
        ("index", reference),
        ("sample", reference, "--n", 4, "--rho", 0.5, "--out", "drawn"),
        ("sample", reference, "--n", 4, "--rho", 0.5, "--no-images"),
        ("render", reference, "--latents", "drawn/latents.npy", "--out", "shown"),
    ):
        done = magnet(*line)
        assert done.code == 0, done.err
        assert num_calls() == 1, line


@pytest.mark.slow
def test_every_process_calls_a_factory_once(magnet):
    done = magnet("compute", write(before=COUNTED), "--n", 6, "--solver", "exact", "--workers", 2, "--shard-rows", 3)
    assert done.code == 0, done.err
    assert num_calls() == 3


def test_a_module_that_copies_do_not_replace(magnet):
    """A forward that still calls the first module, and weights that copy.deepcopy refuses: called for each use."""
    patched = "made = Map(); first = made.forward; made.forward = lambda z: first(2 * z)"
    refused = "made = Map(); made.halved = made.weight / 2"
    for before in (patched, refused):
        reference = write(before=f"{before}\n    {COUNTED}", returned="made")
        source = custom.from_factory(reference)
        for dtype in (torch.float64, torch.float32):
            loaded = models.load(source, dtype=dtype)
            z = torch.ones(2, 3, dtype=dtype)
            weight = factories.call_factory(reference).weight.to(dtype)
            known = torch.tanh((2 if before == patched else 1) * z @ weight).reshape(2, 3, 4, 4)
            torch.testing.assert_close(loaded(z), known.detach())
        assert num_calls() > 1
        assert magnet("compute", reference, *SMALL, "--volume", before[-8:].strip("/ )")).code == 0


def test_factories_that_draw_their_weights(magnet):
    """Two commands see two networks: the second names the cause. Another process refuses to go on with others."""
    reference = write(seed="int(torch.randint(1 << 30, ()))")
    torch.manual_seed(1)
    assert magnet("compute", reference, *SMALL).code == 0
    done = magnet("sample", reference, "--n", 2)
    assert done.code == 1
    assert "does its factory draw them? Set a seed there: torch.manual_seed(0)" in done.err
    source = pickle.loads(pickle.dumps(custom.from_factory(reference)))
    with pytest.raises(GeneratorError, match="makes other weights at each call"):
        models.load(source)
    reference = write(before="torch.manual_seed(0)", seed="int(torch.randint(1 << 30, ()))")
    assert magnet("compute", reference, *SMALL).code == 0
    assert magnet("sample", reference, "--n", 2, "--rho", 0.1).code == 0


def test_in_another_process_the_factory_is_called_again():
    source = custom.from_factory(write(before=COUNTED))
    copied = pickle.loads(pickle.dumps(source))
    assert copied == source
    z = torch.ones(2, 3)
    torch.testing.assert_close(models.load(copied)(z), models.load(source)(z), rtol=0, atol=0)
    assert num_calls() == 2
    Path("own.py").unlink()
    with pytest.raises(ArtifactError, match="cannot be had"):
        models.load(copied)
    assert models.load(source)(z).shape == (2, 3, 4, 4)


def test_an_edit_within_the_same_second_is_seen(tmp_path, monkeypatch):
    """Python tells bytecode apart by whole seconds and the size of the source; neither changes here."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "edited.py"
    code = (
        "import torch\n"
        "def make():\n"
        "    module = torch.nn.Linear(2, 2, bias=False)\n"
        "    torch.nn.init.constant_(module.weight, 2.0)\n"
        "    module.latent_dim = 2\n"
        "    return module\n"
    )
    for value in ("2.0", "3.0", "4.0"):
        path.write_text(code.replace("2.0", value))
        os.utime(path, (1_000_000_000, 1_000_000_000))
        weights = [p for p in models.load(f"{path}:make").module.parameters() if p.numel()]
        assert {float(p.max()) for p in weights} == {float(value)}
    assert not (tmp_path / "__pycache__").exists()
