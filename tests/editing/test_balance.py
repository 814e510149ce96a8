"""balance: the published algorithm's probabilities, by a plain version of it; limits that are said; whole samples."""

import itertools
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import scipy

from magnet_cli.editing import balance, balanced_sample, contingency
from magnet_cli.editing.scored import Attribute, from_probabilities
from magnet_cli.errors import SampleError, SpecError
from magnet_cli.files import documents
from magnet_cli.files.results import ResultFolder
from magnet_cli.sampling.kinds import SAMPLE

SIZES = {(0, 0): 60, (0, 1): 3, (1, 0): 40, (1, 1): 97}  # latents of each combination: one is rare


def attribute(name, labels, sure=None, classes=None):
    labels = np.asarray(labels, np.int32)
    classes = classes or tuple(f"{name}{i}" for i in range(labels.max() + 1))
    return Attribute(name, classes, labels, np.ones(len(labels), np.float32) if sure is None else sure)


def pool(seed=0):
    """Attributes of 200 latents in four combinations, in a random order."""
    cells = np.random.default_rng(seed).permutation([c for c, size in SIZES.items() for _ in range(size)])
    return attribute("a", cells[:, 0]), attribute("b", cells[:, 1])


def tabulated(attributes, confidence=0.0, **asked):
    return contingency.tabulate(attributes, confidence, contingency.make_target(attributes, asked))


def published(labels, n, rng):
    """The published draw, plainly: a random combination of those left, then one of its latents, taken out."""
    left = {}
    for row, combination in enumerate(map(tuple, labels)):
        left.setdefault(combination, []).append(row)
    rows = []
    for _ in range(n):
        combinations = [each for each in left if left[each]]
        members = left[combinations[rng.integers(len(combinations))]]
        rows.append(members.pop(rng.integers(len(members))))
    return rows


# --- the draw -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_cells_and_members_are_drawn_with_the_published_probabilities():
    """At 24 slots, from before the rare cell runs out to long after, the cells of 1,500 draws by either code."""
    attributes = pool()
    table, labels = tabulated(attributes), np.stack([each.labels for each in attributes], axis=1)
    n, repeats = 72, 1500
    ours = np.array([balance.draw(table, n, seed, allow_unbalanced=True).rows for seed in range(repeats)])
    rng = np.random.default_rng(5)
    theirs = np.array([published(labels, n, rng) for _ in range(repeats)])
    p_values = []
    for slot in range(0, n, 3):
        counts = np.array([np.bincount(table.cells[rows[:, slot]], minlength=4) for rows in (ours, theirs)])
        p_values.append(scipy.stats.chi2_contingency(counts[:, counts.sum(axis=0) > 0]).pvalue)
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 1e-3
    assert min(p_values) > 1e-4
    early = np.bincount(table.cells[ours[:, 0]], minlength=4)
    assert scipy.stats.chisquare(early).pvalue > 1e-3  # all alike, however many there are of each
    late = [np.bincount(table.cells[rows[:, -1]], minlength=4) for rows in (ours, theirs)]
    assert max(counts[1] for counts in late) < 0.02 * repeats  # the three are gone by then
    for cell in range(4):
        members = np.flatnonzero(table.cells == cell)
        drawn = np.bincount(ours[table.cells[ours] == cell], minlength=200)[members]
        assert scipy.stats.chisquare(drawn).pvalue > 1e-3  # each latent of a cell as often as any other
    assert all(len(set(rows)) == n for rows in ours.tolist())


def test_the_first_rows_are_those_of_a_shorter_draw_and_the_same_seed_gives_the_same():
    table = tabulated(pool())
    whole = balance.draw(table, 180, 4, allow_unbalanced=True)
    for n in (1, 5, 11, 60, 179):
        part = balance.draw(table, n, 4, allow_unbalanced=True)
        np.testing.assert_array_equal(part.rows, whole.rows[:n])
        np.testing.assert_array_equal(part.displaced, whole.displaced[:n])
    assert not np.array_equal(balance.draw(table, 10, 5).rows, whole.rows[:10])
    np.testing.assert_array_equal(table.cells[whole.rows], whole.cells)


@pytest.mark.parametrize("seed", range(12))
def test_the_largest_n_is_where_the_first_cell_runs_out(seed):
    table = tabulated(pool())
    most = balance.largest_balanced_n(table, seed)
    whole = balance.draw(table, 200, seed, allow_unbalanced=True)
    assert np.flatnonzero(whole.displaced)[0] == most
    assert sorted(whole.rows) == list(range(200))
    assert not balance.draw(table, most, seed).displaced.any()
    used = np.bincount(whole.cells[:most], minlength=4)
    assert (used == table.counts).any()
    with pytest.raises(SampleError, match=f"after {most}") as error:
        balance.draw(table, most + 1, seed)
    assert f"`n={most}`" in error.value.hint
    assert "`allow_unbalanced=True`" in error.value.hint


def test_cells_that_take_turns_have_their_shares_at_any_n():
    rng = np.random.default_rng(1)
    attributes = (attribute("a", rng.integers(0, 2, 20_000)), attribute("b", rng.integers(0, 5, 20_000)))
    shares = contingency.make_target(attributes, {"a": 0.3})
    for seed in range(20):
        table = contingency.tabulate(attributes, 0.0, shares, even=True)
        drawn = balance.draw(table, 3000, seed)
        seen = np.cumsum(drawn.cells[:, None] == np.arange(10), axis=0)
        off = seen - np.arange(1, 3001)[:, None] * table.target
        assert np.abs(off).max() < 4  # drawn at random it is 20 at the end
        np.testing.assert_array_equal(balance.draw(table, 100, seed).rows, drawn.rows[:100])
        assert len(set(drawn.rows.tolist())) == 3000
    plain = balance.draw(contingency.tabulate(attributes, 0.0, shares), 3000, 0)
    assert np.abs(np.bincount(plain.cells, minlength=10) - 3000 * table.target).max() > 8
    rare = contingency.tabulate(pool(), 0.0, contingency.equal_target(pool()), even=True)
    assert 10 <= balance.largest_balanced_n(rare, 0) <= 16  # four cells, one of three latents


def test_a_rare_cell_of_three_is_named():
    with pytest.raises(SampleError, match=r"the 3 of a=a0 b=b1 are used up"):
        balance.draw(tabulated(pool()), 100, 0)
    with pytest.raises(SampleError, match="201 latents are requested, and 200 are kept"):
        balance.draw(tabulated(pool()), 201, 0, allow_unbalanced=True)


def test_confidence_keeps_what_the_published_code_keeps():
    scores = np.random.default_rng(0).random((20_000, 2)).astype(np.float32)
    scores[:6, 0] = [0.5, 0.9, 0.1, np.float32(0.9) + 1e-6, 0.0, 1.0]
    attributes = tuple(
        from_probabilities(
            name, ("no", "yes"), iter([np.stack([1 - s.astype(float), s.astype(float)], 1)]), 20_000, None, "x"
        )
        for name, s in zip("ab", scores.T, strict=True)
    )
    for t in (0.5, 0.8, 0.9, 0.99):
        kept = ((scores > t) | (scores < 1 - t)).all(axis=1)
        table = tabulated(attributes, t)
        np.testing.assert_array_equal(table.cells >= 0, kept)
        labels = np.round(scores).astype(int)
        np.testing.assert_array_equal(table.cells[kept], (2 * labels[:, 0] + labels[:, 1])[kept])
    assert tabulated(attributes, 0.0).num_kept == 20_000


def test_a_target_of_other_shares():
    rng = np.random.default_rng(1)
    attributes = (attribute("a", rng.integers(0, 2, 20_000)), attribute("b", rng.integers(0, 3, 20_000)))
    table = tabulated(attributes, a=0.3, b={"b2": 0.5, "b0": 0.2})
    asked = np.outer([0.7, 0.3], [0.2, 0.3, 0.5]).ravel()
    np.testing.assert_allclose(table.target, asked)
    drawn = balance.draw(table, 4000, 3)
    assert scipy.stats.chisquare(np.bincount(drawn.cells, minlength=6), 4000 * asked).pvalue > 1e-3
    none = tabulated(attributes, a=0.0)
    assert set(none.cells[balance.draw(none, 300, 0).rows]) == {0, 1, 2}
    np.testing.assert_allclose(contingency.equal_target(attributes)["b"], 1 / 3)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"c": 0.5}, "a share of c is requested, and the attributes are a, b"),
        ({"b": 0.5}, "one share of b is requested, and it has 3 classes"),
        ({"b": {"b9": 0.5}}, "the class 'b9' of b is requested"),
        ({"b": {"b0": 0.7, "b1": 0.7}}, "sum to 1, and these sum to 1.4"),
        ({"b": {"b0": 0.5, "b1": 0.505}}, "sum to 1, and these sum to 1.005"),
        ({"a": {"a0": 0.5, "a1": 0.4}}, "these sum to 0.9"),
        ({"a": 1.5}, r"a share has to lie in \[0, 1\]"),
        ({"a": float("nan")}, r"a share has to lie in \[0, 1\]"),
    ],
)
def test_targets_that_are_none(asked, said):
    attributes = (attribute("a", [0, 1, 0]), attribute("b", [0, 1, 2]))
    with pytest.raises(SpecError, match=said):
        contingency.make_target(attributes, asked)


def test_what_never_occurs_is_said():
    sure = np.array([0.99, 0.99, 0.95, 0.6], np.float32)
    attributes = (attribute("a", [0, 1, 0, 1]), attribute("b", [0, 0, 0, 1], sure, ("x", "y")))
    with pytest.raises(SampleError, match=r"no latent is of y: 3 of 4 latents have a probability above 0\.9") as error:
        tabulated(attributes, 0.9)
    assert "x 3, y 1" in error.value.message
    assert "`target='b:y=0'`" in error.value.hint
    assert tabulated(attributes, 0.9, b=0.0).num_kept == 3
    attributes = (attribute("a", [0, 1, 0, 1]), attribute("b", [0, 0, 1, 0]))
    table = tabulated(attributes)
    assert table.missing.tolist() == [3]
    assert balance.largest_balanced_n(table, 0) == 0
    with pytest.raises(SampleError, match="1 of 4 combinations never occur above 0: a=a1 b=b1"):
        balance.draw(table, 2, 0)
    drawn = balance.draw(table, 4, 0, allow_unbalanced=True)
    assert sorted(drawn.rows) == [0, 1, 2, 3]
    assert 0 < drawn.displaced_share < 1
    many = tuple(attribute(name, np.arange(300) % 60) for name in "abc")
    with pytest.raises(SpecError, match="216,000 combinations"):
        tabulated(many)


def test_rows_without_balance_are_drawn_evenly():
    table = tabulated(pool())
    drawn = np.array([balance.draw_unbalanced(table, 20, seed) for seed in range(600)])
    assert scipy.stats.chisquare(np.bincount(drawn.ravel(), minlength=200)).pvalue > 1e-3
    np.testing.assert_array_equal(balance.draw_unbalanced(table, 20, 7)[:5], balance.draw_unbalanced(table, 5, 7))
    with pytest.raises(SampleError, match="201 latents are requested, and 200 are kept"):
        balance.draw_unbalanced(table, 201, 0)


def test_a_million_latents_in_bounded_memory(tmp_path):
    """1,000,000 latents x 4 attributes: what is worked on is a few numbers a latent, and latents stay on disk."""
    rng = np.random.default_rng(0)
    attributes = tuple(
        attribute(name, rng.random(1_000_000) < share, rng.random(1_000_000, dtype=np.float32) * 0.3 + 0.7)
        for name, share in zip("abcd", (0.5, 0.3, 0.7, 0.8), strict=True)
    )
    tracemalloc.start()
    table = tabulated(attributes, 0.9)
    drawn = balance.draw(table, 500, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(drawn.rows.tolist())) == 500
    assert peak < 64 * 2**20


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_balanced_sample_is_a_sample_like_any_other(magnet, here):
    done = magnet("balance", "scored", "--n", 60, "--attributes", "digits", "--out", "even", "--json")
    assert done.code == 0, done.err
    report = done.json
    assert report["largest_balanced_n"] >= 60
    assert report["displaced_share"] == 0
    assert sum(cell["latents"] for cell in report["cells"]) == report["kept"] <= report["pool"] == 600
    assert all(5 <= cell["drawn"] <= 7 for cell in report["cells"])  # ten digits: even without a flag
    off = sum(abs(cell["share"] - cell["target"]) for cell in report["cells"]) / 2
    assert report["total_variation"] == pytest.approx(off)
    assert off < 0.04
    assert f"{round(60 * off)} of 60 latents would have to be of another one" in done.err
    published = magnet("balance", "scored", "--n", 60, "--random", "--no-images", "--allow-unbalanced", "--json")
    assert published.json["total_variation"] > 2 * off
    assert "drawn at random (--random)" in published.err
    assert report["shares"]["digits"]["3"] == next(c["share"] for c in report["cells"] if c["classes"]["digits"] == "3")
    assert "have a probability above 0.9" in done.err
    assert "balanced up to n" in done.err
    names = {p.name for p in Path("even").iterdir()}
    assert names == {"images", "latents.npy", "metadata.jsonl", "sample.json", "__sheets__", "checksums.txt"}
    records = [json.loads(line) for line in Path("even/metadata.jsonl").read_text().splitlines()]
    rows = [record["row"] for record in records]
    np.testing.assert_array_equal(np.load("even/latents.npy"), np.load("scored/latents.npy")[rows])
    probabilities = np.load("scored/scores.npz")["digits"][rows]
    assert [int(record["digits"]) for record in records] == probabilities.argmax(axis=1).tolist()
    assert min(record["digits_probability"] for record in records) > 0.9
    assert {record["source"] for record in records} == {"prior"}
    assert magnet("info", "even", "--check").code == 0
    assert magnet("render", "mnist", "--latents", "even/latents.npy", "--out", "again", "-q").code == 0
    assert Path("again/images/000007.png").read_bytes() == Path("even/images/000007.png").read_bytes()
    again = magnet("attributes", "even", "--model", "digits", "--json")
    assert again.code == 0, again.err
    counted = {name: share["value"] for name, share in again.json["models"]["digits"]["shares"].items()}
    assert counted == pytest.approx(report["shares"]["digits"])


@pytest.mark.slow
def test_repeated_it_does_nothing_and_a_shorter_one_is_its_beginning(magnet, here):
    first = magnet("balance", "scored", "--n", 40, "--out", "even", "--json")
    before = {p: p.stat().st_mtime_ns for p in Path("even").rglob("*")}
    again = magnet("balance", "scored", "--n", 40, "--out", "even", "--json")
    assert (again.code, again.json) == (0, first.json)
    assert {p: p.stat().st_mtime_ns for p in Path("even").rglob("*")} == before
    other = magnet("balance", "scored", "--n", 41, "--seed", 1, "--out", "even")
    assert (other.code, other.out) == (1, "")
    assert "n 40 (asked 41)" in other.err
    assert "seed 0 (asked 1)" in other.err
    assert magnet("balance", "scored", "--n", 15, "--out", "few", "-q").out == "few\n"
    for path in Path("few/images").iterdir():
        assert path.read_bytes() == (Path("even/images") / path.name).read_bytes()
    assert np.array_equal(np.load("few/latents.npy"), np.load("even/latents.npy")[:15])
    assert magnet("balance", "scored", "--n", 15, "--seed", 2, "--out", "even", "--force").code == 0
    assert len(list(Path("even/images").iterdir())) == 15


@pytest.mark.slow
def test_a_polarity_sample_is_balanced_by_copying_its_images(magnet, here):
    done = magnet("balance", "drawn", "--n", 30, "--confidence", 0.5, "--allow-unbalanced", "--out", "both", "--json")
    assert done.code == 0, done.err
    records = [json.loads(line) for line in Path("both/metadata.jsonl").read_text().splitlines()]
    known = {
        json.loads(line)["row"]: json.loads(line) for line in Path("drawn/metadata.jsonl").read_text().splitlines()
    }
    for record in records:
        old = known[record["row"]]
        assert Path("both", record["file_name"]).read_bytes() == Path("drawn", old["file_name"]).read_bytes()
        assert {k: v for k, v in record.items() if k != "file_name"} == {
            k: v for k, v in old.items() if k != "file_name"
        }
    assert ResultFolder(Path("both"), SAMPLE).check() == []
    spec = ResultFolder(Path("both"), SAMPLE).read()["spec"]
    assert spec["fingerprint"] == ResultFolder(Path("drawn"), SAMPLE).read()["spec"]["fingerprint"]
    report = done.json
    if report["n"] > report["largest_balanced_n"]:
        assert "are not where the target asks" in done.err
    again = magnet("balance", "both", "--n", 5, "--out", "five", "--confidence", 0, "--allow-unbalanced")
    assert again.code == 0, again.err  # of a balanced sample another
    assert len(list(Path("five/images").iterdir())) == 5


def test_beyond_the_largest_n_it_stops_or_says_by_how_much(magnet, here):
    most = magnet("balance", "scored", "--n", 5, "--dry-run", "--json").json["largest_balanced_n"]
    assert not Path("samples").exists()
    done = magnet("balance", "scored", "--n", most + 1, "--no-images", "--out", "much")
    assert (done.code, done.out) == (1, "")
    assert f"--n {most}" in done.err
    assert "digits  latents  target" in done.err
    assert not Path("much").exists()
    more = magnet("balance", "scored", "--n", most + 40, "--allow-unbalanced", "--no-images", "--out", "much", "--json")
    assert more.code == 0
    assert 0 < more.json["displaced_share"] <= 40 / (most + 40)
    assert "warning: the rarest combinations ran out" in more.err
    assert ResultFolder(Path("much"), SAMPLE).read()["balance"]["displaced_share"] == more.json["displaced_share"]
    assert magnet("balance", "scored", "--n", most, "--no-images", "--out", "most").code == 0


def test_stopped_at_any_time_it_goes_on_to_the_same_files(magnet, here):
    assert magnet("balance", "scored", "--n", 40, "--out", "whole", "--batch-size", 10, "-q").code == 0
    request = balanced_sample.BalanceRequest(sample=Path("scored"), n=40, out=Path("part"), batch_size=10)
    plan = balanced_sample.plan(request)
    steps = balanced_sample.run(plan, [])
    assert list(itertools.islice(steps, 2)) == [10, 10]
    steps.close()
    assert ResultFolder(Path("part"), SAMPLE).finished(plan.spec) is None
    assert magnet("balance", "scored", "--n", 40, "--out", "part", "--batch-size", 10, "-q").code == 0
    for name in ("checksums.txt", "metadata.jsonl", "__sheets__/grid.png", "latents.npy"):
        assert documents.sha256_file(Path("part") / name) == documents.sha256_file(Path("whole") / name)


@pytest.mark.parametrize("name", ["images/000003.png", "metadata.jsonl", "latents.npy", "sample.json"])
def test_a_flipped_byte_is_found(magnet, here, name):
    magnet("balance", "drawn", "--n", 10, "--confidence", 0, "--allow-unbalanced", "--out", "even", "-q")
    data = bytearray(Path("even", name).read_bytes())
    data[len(data) // 2] ^= 4
    Path("even", name).write_bytes(data)
    done = magnet("info", "even", "--check")
    assert done.code == 1
    assert name in done.out + done.err


def test_other_shares_by_flag_and_by_file(magnet, here):
    line = ["balance", "scored", "--cut", "digits=5", "--n", 80, "--no-images", "--json"]
    even = magnet(*line, "--out", "even").json
    assert [cell["drawn"] for cell in even["cells"]] in ([39, 41], [40, 40], [41, 39])
    by_flag = magnet(*line, "--target", "digits=0.25", "--out", "flag").json
    np.testing.assert_allclose([cell["target"] for cell in by_flag["cells"]], [0.75, 0.25])
    assert by_flag["cells"][0]["classes"] == {"digits": "below-5"}
    Path("shares.toml").write_text('[digits]\n"5-up" = 0.25\n')
    Path("shares.json").write_text('{"digits": 0.25}')
    for name in ("shares.toml", "shares.json", "digits:5-up=0.25"):
        found = magnet(*line, "--target", name, "--out", "flag")
        assert (found.code, found.json) == (0, by_flag), found.err
    one = magnet(
        "balance", "scored", "--n", 40, "--no-images", "--target", "digits:1=0.5", "--out", "ones", "--json"
    ).json
    np.testing.assert_allclose([cell["target"] for cell in one["cells"]], [0.5 / 9, 0.5, *[0.5 / 9] * 8])
    for content, said in (
        ("digits = 'x'", "has to hold shares"),
        ("digits = ", "cannot be read"),
        ("a = 0.5", "share of a"),
    ):
        Path("wrong.toml").write_text(content)
        done = magnet(*line, "--target", "wrong.toml")
        assert (done.code, done.out) == (1, "")
        assert said in done.err


def test_latents_of_somebody_else(magnet, toy):
    z = np.random.default_rng(0).standard_normal((300, 5)).astype(np.float32)
    np.save("z.npy", z)
    lines = [f"{a},{b}" for a, b in np.random.default_rng(1).random((300, 2)).tolist()]
    Path("scores.csv").write_text("\n".join(["Smile,Age", *(line.replace("(", "") for line in lines)]))
    line = ["balance", "z.npy", "--scores", "scores.csv", "--attributes", "Smile,Age", "--confidence", 0.6, "--n", 50]
    done = magnet(*line)
    assert (done.code, done.out) == (1, "")
    assert "pass --generator, or --no-images" in done.err
    done = magnet(*line, "--no-images", "--out", "some", "--json")
    assert done.code == 0, done.err
    assert [cell["classes"] for cell in done.json["cells"]][:2] == [
        {"Smile": "not Smile", "Age": "not Age"},
        {"Smile": "not Smile", "Age": "Age"},
    ]
    rows = [json.loads(line)["row"] for line in Path("some/metadata.jsonl").read_text().splitlines()]
    np.testing.assert_array_equal(np.load("some/latents.npy"), z[rows])
    done = magnet(*line, "--generator", toy, "--out", "shown")
    assert done.code == 0, done.err
    assert len(list(Path("shown/images").iterdir())) == 50
    done = magnet(*line, "--generator", "mnist", "--out", "other")
    assert (done.code, done.out) == (1, "")
    assert "latents of 5 numbers" in done.err


def test_the_generator_of_a_path_has_to_be_typed_and_be_the_same(magnet, toy, tmp_path):
    from safetensors.torch import save_file
    from toys import toy_weights

    Path("judge.py").write_text(
        "import torch\n\n\nclass Bright(torch.nn.Module):\n    classes = ('dark', 'bright')\n\n"
        "    def forward(self, x):\n        return 9 * x.mean(dim=(1, 2, 3))[:, None] * torch.tensor([[-1.0, 1.0]])\n"
    )
    made = magnet("attributes", toy, "--n", 200, "--model", "judge.py:Bright", "--out", "scored")
    assert made.code == 0, made.err
    done = magnet("balance", "scored", "--n", 20, "--confidence", 0.5)
    assert (done.code, done.out) == (1, "")
    assert "--generator" in done.err
    save_file(toy_weights(seed=1), tmp_path / "other.safetensors")
    done = magnet("balance", "scored", "--n", 20, "--confidence", 0.5, "--generator", tmp_path / "other.safetensors")
    assert (done.code, done.out) == (1, "")
    assert "scored is of toy" in done.err
    done = magnet("balance", "scored", "--n", 20, "--confidence", 0.5, "--generator", toy)
    assert done.code == 0, done.err
    assert done.out == "samples/scored-balanced-n20-seed0\n"


@pytest.mark.parametrize(
    ("args", "flag"),
    [
        (["--n", 0], "--n"),
        ([], "--n"),
        (["--n", 5, "--confidence", 1], "--confidence"),
        (["--n", 5, "--confidence", -0.1], "--confidence"),
        (["--n", 5, "--target", "digits"], "--target"),
        (["--n", 5, "--target", "digits=2"], "--target"),
        (["--n", 5, "--cut", "digits"], "--cut"),
        (["--n", 5, "--attributes", "digits,,"], "--attributes"),
    ],
)
def test_usage_errors_exit_2(magnet, here, args, flag):
    done = magnet("balance", "scored", *args)
    assert (done.code, done.out) == (2, "")
    assert flag in done.err


@pytest.mark.slow
def test_latents_alone_are_chosen_without_torch(here):
    code = "import sys; from magnet_cli.cli.app import app; app(standalone_mode=False); "
    code += "print('torch' in sys.modules, file=sys.stderr)"
    line = [sys.executable, "-c", code, "balance", "scored", "--n", "20", "--no-images", "--out", "even", "-q"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("even\n", "False\n")
