"""report: numbers equal numpy's, a page is what it says and no more; torture/test_browser.py looks at it."""

import dataclasses
import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from strangers import HOSTILE, hostile_sample

from magnet_cli import computing, index
from magnet_cli.computing.memory import BatchPlan
from magnet_cli.files import documents
from magnet_cli.reporting import findings, metrics, page, spectrum, volume_section
from magnet_cli.volume import Shard, Volume

pytestmark = pytest.mark.slow  # real networks and whole pages: `make test` runs them

# --- numbers -----------------------------------------------------------------------------------------------------


def all_values(volume):
    return np.concatenate([shard.singular_values for _, shard in volume.rows()]).astype(np.float64)


def read_whole(steps, passed=None):
    """Run steps to their end; return what they return, and keep what they yield in `passed`."""
    while True:
        try:
            units = next(steps)
        except StopIteration as end:
            return end.value
        if passed is not None:
            passed.append(units)


def test_quantiles_ranks_and_participation_equal_numpy(toy_volume):
    built, passed = index.build(toy_volume, 5), []
    found = read_whole(spectrum.read(toy_volume, built), passed)
    values = all_values(toy_volume)
    assert passed == [64, 64, 64, 8]
    assert (found.rows, found.num_rows) == (200, 200)
    truth = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
    assert found.quantiles == pytest.approx(truth, rel=1e-12)
    squares = values**2
    assert found.participation == pytest.approx(squares.sum(axis=1) ** 2 / (squares**2).sum(axis=1), rel=1e-12)
    assert (found.ranks == (values >= 1e-5 * values[:, :1]).sum(axis=1)).all()


def test_ranks_and_participation_where_they_are_known():
    rows = np.array([[2, 2, 2, 2], [3, 0, 0, 0], [1, 1, 1e-6, 1e-7], [0, 0, 0, 0], [1e30, 1e30, 0, 0]], np.float32)
    found = spectrum.Spectrum(5, rows, 1e-5)
    assert found.ranks.tolist() == [4, 1, 2, 0, 2]
    assert found.participation == pytest.approx([4, 1, 2, np.nan, 2], nan_ok=True)


def test_of_many_rows_some_are_read_evenly_chosen(toy_volume, monkeypatch):
    """With room for 80 numbers, 16 rows of 5: rows 0, 12, 25, … of the 200."""
    monkeypatch.setattr(spectrum, "_MOST_NUMBERS", 80)
    found = read_whole(spectrum.read(toy_volume, index.build(toy_volume, 5)))
    rows = np.arange(16) * 200 // 16
    assert (found.values == all_values(toy_volume)[rows].astype(np.float32)).all()
    assert (found.rows, found.num_rows) == (16, 200)


# --- the file ----------------------------------------------------------------------------------------------------


def timeless(data):
    """A page without the seconds that it took."""
    return re.sub(rb'(<meta name="magnet-seconds" content=")[0-9.]+', rb"\1", data)


@pytest.mark.slow
def test_a_report_is_made_once_and_again_when_its_subject_changes(magnet, toy_volume, toy, toy_generator):
    first = magnet("report", toy_volume.path, "--generator", toy, "--json")
    assert first.code == 0, first.err
    fields = first.json
    assert fields.keys() == {"report", "kind", "name", "size", "seconds"}
    assert (fields["report"], fields["kind"], fields["name"]) == ("reports/toy.vol.html", "volume", "toy.vol")
    path = Path("reports/toy.vol.html")
    made, when = path.read_bytes(), path.stat().st_mtime_ns
    assert len(made) == fields["size"]
    again = magnet("report", toy_volume.path, "--generator", toy, "--json")
    assert "already is this report" in again.err
    assert again.json == fields
    assert path.stat().st_mtime_ns == when
    assert magnet("report", toy_volume.path, "--generator", toy, "--force", "--out", "other.html").code == 0
    assert timeless(Path("other.html").read_bytes()) == timeless(made)
    list(computing.fill(toy_volume, toy_generator, 230, BatchPlan(32)))
    assert magnet("report", toy_volume.path, "--generator", toy).out == "reports/toy.vol.html\n"
    assert "230 latents of toy" in path.read_text()


@pytest.mark.slow
def test_what_is_not_its_own_is_left_alone(magnet, toy_volume):
    Path("notes.html").write_text("mine")
    done = magnet("report", toy_volume.path, "--out", "notes.html")
    assert (done.code, done.out) == (1, "")
    assert "is another file" in done.err
    assert "--force to replace it" in done.err
    assert Path("notes.html").read_text() == "mine"
    assert magnet("report", "mnist-volume", "--out", "digits.html", "--quiet").code == 0
    other = magnet("report", toy_volume.path, "--out", "digits.html")
    assert other.code == 1
    assert "is a report of another volume" in other.err
    Path("folder.html").mkdir()
    assert "is a folder" in magnet("report", toy_volume.path, "--out", "folder.html").err
    assert magnet("report", toy_volume.path, "--out", "notes.html", "--force").code == 0
    assert page.mark(Path("notes.html").read_bytes(), "of") == f"volume {toy_volume.fingerprint}"


def test_a_page_marks_only_what_it_wrote_itself():
    """A title that looks like a mark is none."""
    forged = '"><meta name="magnet-of" content="volume 1'
    made = page.document(forged, "volume", forged, [page.paragraph(forged)], {"of": forged})
    assert page.mark(made, "of") == html.escape(forged)
    assert page.mark(b"<html></html>", "of") is None


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("mnist-volum", "did you mean mnist-volume"),
        ("no/such", "found nothing there"),
        ("folder", "is a folder of other files"),
        ("file.txt", "is a file"),
        ("begun", "is a sample that is not finished"),
        ("digits", "found nothing there"),
    ],
)
def test_what_is_neither_volume_nor_sample_is_said(magnet, target, said):
    Path("folder").mkdir()
    Path("begun").mkdir()
    Path("begun/.sample-started.json").write_text("{}")
    Path("file.txt").write_text("x")
    done = magnet("report", target)
    assert (done.code, done.out) == (1, "")
    assert target in done.err
    assert said in done.err
    assert "do:" in done.err
    assert not Path("reports").exists()


def test_a_generator_stands_for_its_longest_volume(magnet):
    assert magnet("report", "mnist").out == "reports/mnist-volume.html\n"


# --- volumes -----------------------------------------------------------------------------------------------------


def test_the_page_of_a_volume_says_its_numbers(magnet, toy_volume, toy):
    assert magnet("report", toy_volume.path, "--generator", toy, "--top-k", 3).code == 0
    shown = Path("reports/toy.vol.html").read_text()
    values = all_values(toy_volume)
    logs = np.log(values[:, :3]).sum(axis=1)
    squares = values**2
    ratio = np.median(squares.sum(axis=1) ** 2 / (squares**2).sum(axis=1))
    weights = np.exp(logs - logs.max())
    for number in (
        "<dd>200</dd>",
        f"<dd>{logs.std():.3g}</dd>",
        f"<dd>{ratio:.3g}</dd>",
        f"<dd>{weights.sum() ** 2 / (weights**2).sum():.0f}</dd>",
    ):
        assert number in shown
    assert shown.count('src="data:image/png;base64,') == 96
    order = np.argsort(logs)
    rows = [int(row) for row in re.findall(r'alt="row (\d+), log-volume', shown)]
    assert rows == [*order[:32], *order[84:116], *order[-32:]]


def test_equal_log_volumes_share_the_places_there_are():
    """Nine rows, one of them below the floor, most of them alike."""
    values = np.array([1.0, 1, 1, 1, 1, 1, 1, 9, 0])
    real = np.arange(9) != 7
    rows = index.Index("f", 1, (index.Part(0, 0, 9, ""),), values, real)
    found = volume_section.extremes(rows, np.sort(values[real]), 2)
    assert {name: len(set(places)) for name, places in found.items()} == {"Lowest": 2, "Middle": 2, "Highest": 2}
    assert found["Lowest"][0] == 8
    assert not any(7 in places for places in found.values())


@pytest.mark.slow
def test_where_there_is_no_generator_the_page_says_so(magnet, toy_volume, toy):
    assert magnet("report", toy_volume.path).code == 0
    shown = Path("reports/toy.vol.html").read_text()
    assert "The generator toy is not in the list of artifacts" in shown
    assert "data:image/png" not in shown
    assert shown.count("<svg") == 4
    assert magnet("report", toy_volume.path, "--generator", toy).code == 0  # found now: made anew
    assert "data:image/png" in Path("reports/toy.vol.html").read_text()


def test_another_generator_is_refused(magnet, toy_volume):
    done = magnet("report", toy_volume.path, "--generator", "mnist")
    assert done.code == 1
    assert "is a volume of toy" in done.err


def test_arrays_that_are_no_images_are_said(magnet):
    Path("waves.py").write_text(
        "import torch\n"
        "class Waves(torch.nn.Module):\n"
        "    latent_dim = 3\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.net = torch.nn.Linear(3, 20)\n"
        "    def forward(self, z):\n"
        "        return torch.tanh(self.net(z))\n"
        "def factory():\n"
        "    torch.manual_seed(0)\n"
        "    return Waves()\n"
    )
    own = "waves.py:factory"
    assert magnet("compute", own, "--n", 50, "--volume", "waves.vol").code == 0
    done = magnet("report", "waves.vol", "--generator", own)
    assert done.code == 0, done.err
    assert "gives arrays of 20 numbers, which are no images" in Path("reports/waves.vol.html").read_text()
    assert magnet("report", "waves.vol").code == 0  # a name in a file is never imported
    assert "is not in the list of artifacts" in Path("reports/waves.vol.html").read_text()


def test_ranks_that_differ_are_plotted(toy_volume, tmp_path, magnet):
    """Half of the rows have three values above the floor, half four; k 3 is what all of them have."""
    spec = dataclasses.replace(toy_volume.spec, top_k=5)
    volume = Volume.create(tmp_path / "flat.vol", dataclasses.replace(spec, seed=9))
    for shard in toy_volume.shards():
        rows = toy_volume.read(shard)
        values = rows.singular_values.copy()
        values[:, 4] = 0
        values[::2, 3] = 0
        volume.write(shard, Shard(rows.latents, values))
    refused = magnet("report", volume.path)
    assert refused.code == 1
    assert "--top-k 3" in refused.err
    assert magnet("report", volume.path, "--top-k", 3).code == 0
    shown = Path("reports/flat.vol.html").read_text()
    assert "3 to 4, median 3.5" in shown
    assert "more than 0.1 % of the rows" in shown  # no effective size for k 4 and 5


# --- samples -----------------------------------------------------------------------------------------------------

INCLUDED = [f"--include={name}.json" for name in ("typical-against-prior", "prior-against-prior", "bias-of-prior")]


@pytest.mark.slow
def test_the_page_of_a_sample_says_its_numbers(magnet, samples):
    done = magnet("report", "typical", "--compare", "prior", *INCLUDED, "--json")
    assert done.code == 0, done.err
    shown = Path(done.json["report"]).read_text()
    for name in ("typical-against-prior", "prior-against-prior"):
        fields = json.loads(Path(f"{name}.json").read_text())
        row = re.search(rf"<tr><th scope=\"row\">{name}<small>(.*?)</tr>", shown)[1]
        assert f"{fields['sample'][0]} against prior; n 60, reference 60; intervals within this draw" in row
        for metric in ("precision[digits]", "recall[digits]", "coverage[digits]", "diversity[digits]"):
            value, low, high = fields["metrics"][metric].values()
            cell = f"<td>{value:.4g}<small>{low:.3g} to\xa0{high:.3g}</small></td>"
            assert cell in row, metric
        assert "<td>–</td>" in row  # fid of 60 images for 64 features
    assert "undefined below" in shown
    assert "typical against prior<small>" not in shown  # it is kept in the sample, and included
    counts = {n: json.loads(Path(n, "sample.json").read_text())["attributes"]["digits"] for n in ("typical", "prior")}
    for each in counts.values():
        assert f"<td>{each['gap']['value']:.4g}<small>" in shown
    change = json.loads(Path("bias-of-typical.json").read_text())["models"]["digits"]["change"]
    assert f"<td>{change['total_variation']['value']:.4g}<small>" in shown
    assert f"<td>{change['p_value']:.3g}</td>" in shown
    calm = json.loads(Path("bias-of-prior.json").read_text())["models"]["digits"]["change"]
    assert f"<td>{calm['p_value']:.3g}</td>" in shown
    assert shown.count("data:image/png") == 1
    assert "typical: mean " in shown
    assert "prior: mean " in shown


@pytest.mark.parametrize("source", ["drawn", "scored"])
def test_a_balanced_sample_has_a_report(magnet, here, source):
    assert magnet("balance", source, "--n", 10, "--confidence", 0, "--allow-unbalanced", "--out", "even").code == 0
    done = magnet("report", "even", "--compare", "scored")
    assert done.code == 0, done.err
    shown = Path("reports/even.html").read_text()
    assert "10 images of mnist, balanced by digits." in shown
    assert "where ρ" not in shown


def test_what_a_sample_lacks_is_said(magnet):
    assert magnet("sample", "--n", 5, "--no-images", "--out", "latents").code == 0
    assert magnet("report", "latents").code == 0
    shown = Path("reports/latents.html").read_text()
    for text in ("latents only, no images", "magnet evaluate latents", "magnet attributes latents"):
        assert text in shown


@pytest.mark.slow
def test_a_sample_beside_the_attributes_of_its_generator(magnet, samples):
    assert magnet("attributes", "mnist", "--model", "digits", "--n", 100, "--out", "scored").code == 0
    assert magnet("report", "typical", "--compare", "scored").code == 0
    shown = Path("reports/typical.html").read_text()
    assert "scored 100 images" in shown
    assert "typical against prior<small>" in shown  # as `magnet evaluate` left it in the sample
    assert "from scored to typical" in shown


def test_one_sample_does_not_replace_the_report_of_another(magnet, samples):
    shutil.copytree("prior", "elsewhere/typical")
    assert magnet("report", "typical").code == 0
    done = magnet("report", "elsewhere/typical")
    assert done.code == 1
    assert "is a report of another sample" in done.err


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"metrics": {}}',
        '{"models": {"a": {"n": 0}}, "sample": ["s"]}',
        "\x00",
        '{"metrics": NaN}',
        "[" * 9999,
    ],
)
def test_findings_of_another_kind_are_refused(magnet, samples, text):
    Path("found.json").write_text(text)
    done = magnet("report", "typical", "--include", "found.json")
    assert (done.code, done.out) == (1, "")
    assert "found.json is not the output of `magnet evaluate` or `magnet attributes`" in done.err
    assert "magnet evaluate … --json" in done.err
    assert not Path("reports").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [("value", "high"), ("low", None), ("high", float("nan")), ("value", [1]), pytest.param("low", 10**400, id="huge")],
)
def test_findings_whose_numbers_are_none_are_refused(magnet, samples, field, value):
    fields = json.loads(Path("typical-against-prior.json").read_text())
    fields["metrics"]["kid[digits]"][field] = value
    Path("found.json").write_text(json.dumps(fields))
    done = magnet("report", "typical", "--include", "found.json")
    assert done.code == 1
    assert "found.json is not the output of `magnet evaluate` or `magnet attributes`" in done.err
    assert "is not a number" in done.err or "too large" in done.err


def test_flags_of_another_kind_are_usage_errors(magnet, samples):
    assert magnet("report", "typical", "--top-k", 3).code == 2
    assert magnet("report", "mnist-volume", "--compare", "prior").code == 2
    done = magnet("report", "typical", "--compare", "nothing")
    assert done.code == 1
    assert "cannot be compared with: a sample is needed, and it is not there" in done.err


def test_of_many_classes_the_largest_are_drawn():
    share = {"value": 0.001, "low": 0.0, "high": 0.002}
    said = {"n": 1000, "shares": {f"class {i}": share for i in range(1000)}}
    said |= {"gap": share, "total_variation": share}
    said["shares"]["class 500"] = {"value": 0.3, "low": 0.2, "high": 0.4}
    parts = "".join(metrics.attributes({"a": findings.models({"many": said})}))
    assert parts.count('class="mark"') == 24
    assert "class 500<" in parts
    assert "The 24 of 1,000 classes whose shares are largest." in parts


# --- sweeps ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_page_of_a_sweep_says_its_numbers(magnet, swept):
    done = magnet("report", swept, "--json")
    assert done.code == 0, done.err
    assert (done.json["kind"], done.json["name"]) == ("sweep", "which")
    shown = Path("reports/which.html").read_text()
    fields = json.loads((swept / "sweep.json").read_text())
    assert f"<dd>ρ {fields['choice']['rho']:g}</dd>".replace("-", "−") in shown
    for point in (*fields["points"], fields["choice"]["chosen"]):
        value, low, high = point["metrics"]["coverage[digits]"].values()
        assert f"<td>{value:.4g}<small>{low:.3g} to\xa0{high:.3g}</small></td>" in shown
    assert len(re.findall('src="data:image/png', shown)) == 3 * 16
    assert shown.count("<svg") == len(fields["plots"])
    assert magnet("report", swept).err == "reports/which.html already is this report\n"
    assert magnet("report", swept, "--top-k", 3).code == 2


@pytest.mark.slow
@pytest.mark.parametrize("sample", ["../prior", "samples/..", "samples/../../prior", "/etc", "samples/a/b"])
def test_a_sweep_shows_no_images_from_elsewhere(magnet, swept, sample):
    shutil.copytree(swept, "which")
    fields = documents.read(Path("which/sweep.json"))
    fields["points"][0]["sample"] = sample
    Path("which/sweep.json").write_bytes(documents.encode(fields))
    done = magnet("report", "which")
    assert (done.code, done.out) == (1, "")
    assert "is not one of its samples" in done.err
    assert not Path("reports").exists()


# --- strangers ---------------------------------------------------------------------------------------------------


def tags(text):
    """Names of elements of a page, of the SVGs in it too."""

    class Tags(HTMLParser):
        def __init__(self):
            super().__init__()
            self.names, self.attributes = set(), set()

        def handle_starttag(self, tag, attrs):
            self.names.add(tag)
            self.attributes |= {name for name, _ in attrs}

    parser = Tags()
    parser.feed(text)
    return parser


@pytest.mark.slow
def test_names_of_strangers_are_text(magnet, samples, hostile_volume):
    assert magnet("report", hostile_volume.path, "--out", "volume.html").code == 0
    name = hostile_sample("typical")
    assert magnet("report", name, "--include", "typical-against-prior.json", "--out", "sample.html").code == 0
    assert html.escape(HOSTILE, quote=False) in Path("sample.html").read_text()
    for path in ("volume.html", "sample.html"):
        found = tags(Path(path).read_text())
        assert "script" not in found.names
        assert not [each for each in found.attributes if each.startswith("on")]
        assert not found.names & {"iframe", "object", "embed", "form", "base"}
