"""scored: every way in gives the same classes; what is no score is said; nothing in a file is ever run."""

import io
import json
from collections import defaultdict
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import pytest
from torch_files import RunsWhenRead, encrypted

from magnet_cli.editing.scored import Attribute, open_scored
from magnet_cli.errors import MagnetError, SampleError, SpecError
from magnet_cli.files import npy, scores
from magnet_cli.files.checkpoints import arrays

N = 40
SMILE = np.random.default_rng(0).random(N).astype(np.float32)
AGE = np.random.default_rng(1).dirichlet(np.ones(3), N).astype(np.float32)
HAIR = np.array(["red", "black", "fair"])[AGE.argmax(axis=1)]


def saved(content):
    buffer = io.BytesIO()
    np.save(buffer, content, allow_pickle=True)
    return buffer.getvalue()


@pytest.fixture
def latents(tmp_path):
    path = tmp_path / "z.npy"
    np.save(path, np.random.default_rng(2).standard_normal((N, 6)).astype(np.float32))
    return path


def opened(latents, name, data, names=(), cuts=None):
    path = latents.with_name(name)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return open_scored(latents, path, names, cuts or {})


def check_smile(found):
    assert found.classes == ("not Smile", "Smile")
    np.testing.assert_array_equal(found.labels, np.round(SMILE))
    np.testing.assert_allclose(found.probability, np.maximum(SMILE, 1 - SMILE), rtol=1e-6)


# --- files of scores ------------------------------------------------------------------------------------------------


def as_published():
    """As the authors' code leaves it: a defaultdict of lists that became arrays."""
    scores = defaultdict(list)
    scores["Smile"], scores["Age"] = SMILE, SMILE[::-1].copy()
    return scores


@pytest.mark.parametrize(
    "content", [as_published(), dict(as_published()), {name: v[:, None] for name, v in as_published().items()}]
)
def test_a_published_dictionary_is_read_as_numpy_reads_it(latents, content):
    found = opened(latents, "scores_dict.npy", saved(content))
    assert list(found.attributes) == ["Smile", "Age"]
    check_smile(found.attributes["Smile"])
    np.testing.assert_array_equal(found.attributes["Age"].labels, np.round(SMILE[::-1]))
    assert (found.kind, len(found), found.generator) == ("latents", N, "")


def test_a_dictionary_may_hold_classes_and_probabilities(latents):
    content = {"hair": AGE.argmax(axis=1), "age": AGE, "glasses": SMILE > 0.5, "wide": SMILE.astype(np.float64)}
    found = opened(latents, "s.npy", saved(content)).attributes
    assert found["hair"].classes == ("0", "1", "2")
    assert found["glasses"].classes == ("False", "True")
    np.testing.assert_array_equal(found["hair"].labels, AGE.argmax(axis=1))
    np.testing.assert_array_equal(found["age"].labels, AGE.argmax(axis=1))
    np.testing.assert_array_equal(found["age"].probability, AGE.max(axis=1))
    assert set(found["hair"].probability) == {1}
    np.testing.assert_array_equal(found["wide"].labels, np.round(SMILE))


@pytest.mark.parametrize("content", [{"Smile": RunsWhenRead()}, RunsWhenRead(), {RunsWhenRead(): SMILE}])
def test_nothing_in_a_dictionary_is_run(latents, content):
    with pytest.raises(SpecError, match="cannot be read as a dictionary of arrays"):
        opened(latents, "s.npy", saved(content))
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    "content",
    [SMILE, np.array([{"a": SMILE}, {}]), np.array([SMILE, "x"], dtype=object), {}, {"a": {"b": SMILE}}],
)
def test_other_npy_files_are_no_dictionary(latents, content):
    with pytest.raises(SpecError, match="cannot be read as a dictionary of arrays"):
        opened(latents, "s.npy", saved(content))


@pytest.mark.parametrize("cut", [10, 200, -20, -1])
def test_a_cut_off_dictionary_is_refused(latents, cut):
    with pytest.raises(SpecError, match="cannot be read as a dictionary of arrays"):
        opened(latents, "s.npy", saved(as_published())[:cut])


def test_the_reader_survives_any_flipped_byte():
    whole = saved(as_published())
    for place in range(0, len(whole), 7):
        torn = bytearray(whole)
        torn[place] ^= 0x55
        try:
            found = arrays.dictionary(bytes(torn))
        except (UnpicklingError, LookupError, *npy.DAMAGED):
            continue
        assert all(isinstance(each, np.ndarray) for each in found.values())


def test_csv_json_lines_and_npz_say_the_same(latents):
    lines = [f"{i}.png,{s!r},{h}" for i, (s, h) in enumerate(zip(SMILE.tolist(), HAIR, strict=True))]
    table = opened(latents, "s.csv", "\ufefffile, Smile,hair\n" + "\n".join(lines), ("Smile", "hair"))
    records = [{"Smile": s, "hair": h, "x": None} for s, h in zip(SMILE.tolist(), HAIR.tolist(), strict=True)]
    listed = opened(latents, "s.jsonl", "\n".join(map(json.dumps, records)), ("Smile", "hair"))
    for found in (table.attributes, listed.attributes):
        check_smile(found["Smile"])
        assert found["hair"].classes == ("black", "fair", "red")
        assert [found["hair"].classes[i] for i in found["hair"].labels] == HAIR.tolist()
    both = np.stack([1 - SMILE, SMILE], axis=1)
    data = scores.pack({"Smile": (("not Smile", "Smile"), both), "a:ge": (("x", "y", "z"), AGE)})
    held = opened(latents, "s.npz", data, ("Smile",)).attributes
    check_smile(held["Smile"])
    assert set(np.load(latents.with_name("s.npz")).files) == {"Smile", "Smile_classes", "a_ge", "a_ge_classes"}


def test_a_class_may_come_with_its_probability(latents):
    records = [{"hair": h, "hair_probability": float(p)} for h, p in zip(HAIR, AGE.max(axis=1), strict=True)]
    found = opened(latents, "s.jsonl", "\n".join(map(json.dumps, records)), ("hair",)).attributes["hair"]
    np.testing.assert_allclose(found.probability, AGE.max(axis=1), rtol=1e-6)


def test_an_attribute_is_cut_by_the_sum_of_its_probabilities(latents):
    found = opened(latents, "s.npy", saved({"age": AGE}), cuts={"age": "1"}).attributes["age"]
    assert found.classes == ("below-1", "1-up")
    above = AGE[:, 1:].sum(axis=1)
    np.testing.assert_array_equal(found.labels, above > AGE[:, 0])
    np.testing.assert_allclose(found.probability, np.maximum(above, AGE[:, 0]), rtol=1e-6)
    for cut, said in (("0", "before 0, its first class"), ("7", "its classes are 0, 1, 2")):
        with pytest.raises(SpecError, match=said):
            opened(latents, "s.npy", saved({"age": AGE}), cuts={"age": cut})
    with pytest.raises(SpecError, match="age is to be cut, and the attributes requested are Smile"):
        opened(latents, "s.npy", saved({"age": AGE, "Smile": SMILE}), ("Smile",), {"age": "1"})


@pytest.mark.parametrize("first", [1, 2, 3, 4])
def test_the_probability_of_either_side_of_a_cut_is_a_sum(latents, first):
    scores = np.random.default_rng(3).dirichlet(np.ones(5), N).astype(np.float32)
    cut = opened(latents, "s.npy", saved({"age": scores}), cuts={"age": str(first)}).attributes["age"]
    below = scores[:, :first].sum(axis=1, dtype=np.float64)
    np.testing.assert_array_equal(cut.labels, below < 0.5)
    np.testing.assert_allclose(cut.probability, np.maximum(below, 1 - below), rtol=1e-5)


def changed(index, value):
    scores = SMILE.copy()
    scores[index] = value
    return scores


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("s.npy", saved({"Smile": changed(7, np.nan)}), "row 7 of .* has nan"),
        ("s.npy", saved({"Smile": changed(3, 1.5)}), "row 3 of .* has 1.5"),
        ("s.npy", saved({"Smile": changed(0, -0.2)}), "row 0 of .* has -0.2"),
        ("s.npy", saved({"Smile": changed(0, np.inf)}), "row 0 of .* has inf"),
        ("s.npy", saved({"Smile": SMILE[:-1]}), "40 latents need as many scores of Smile, and .* has 39"),
        ("s.npy", saved({"Smile": np.append(SMILE, 0.5)}), "has 41"),
        ("s.npy", saved({"Smile": AGE[:5]}), "has 5"),
        ("s.npy", saved({"Smile": np.arange(N) + 0}), None),
        ("s.npy", saved({"Smile": np.zeros(N, int)}), "1 different numbers"),
        ("s.npy", saved({"Smile": np.zeros((N, 2, 2))}), "float64 of shape"),
        ("s.npy", saved({"Frown": SMILE}), "the attribute 'Smile' is requested, and .* has Frown"),
        ("s.csv", "Smile\n" + "0.5\n" * 39 + "2\n", "row 39 of .* has 2"),
        ("s.csv", "Smile\n" + "0.5\n" * 39 + "nan\n", "row 39 of .* has nan"),
        ("s.csv", "Smile\n" + "0.5\n" * 39 + "1e400\n", "row 39 of .* has nan"),
        ("s.csv", "Smile\n" + "0.5\n" * 38, "has 38"),
        ("s.csv", "Smile,b\n" + "0.5\n", "line 2 of .* has 1 cells, and its header 2"),
        ("s.csv", "", "has none"),
        ("s.csv", "Smile\n" + "0.5\n" * 20 + "yes\n" * 20, "row 20 of .* has 'yes'"),
        ("s.csv", "Smile\n" + "yes\n" * 40, "1 different texts"),
        ("s.csv", b"Smile\n\xff\xfe\n", "cannot be read"),
        ("s.jsonl", '{"Smile": 0.5}\n' * 39 + '{"Smile": null}\n', "row 39 of .* has None"),
        ("s.jsonl", '{"Smile": 0.5}\n' * 39 + '{"other": 1}\n', "row 39 of .* has None"),
        ("s.jsonl", '{"Smile": [1]}\n' * 40, r"row 0 of .* has \[1\]"),
        ("s.csv", "Smile\nyes\n" + "0.5\n" * 39, "row 1 of .* has 0.5"),
        ("s.csv", "Smile,b\nyes,1\n" + ",1\n" * 39, "row 1 of .* has ''"),
        ("s.jsonl", '{"Smile": 0.5}\n' * 39 + "[1]\n", "line 40 of .* is no JSON object"),
        ("s.jsonl", "{'Smile': 1}", "cannot be read"),
        ("s.jsonl", "[" * 100_000, "cannot be read"),
        ("s.txt", "0.5", "ends in '.txt'"),
    ],
)
def test_what_is_no_score_is_said(latents, name, data, said):
    if said is None:
        assert len(opened(latents, name, data, ("Smile",)).attributes["Smile"].classes) == N
        return
    with pytest.raises(SpecError, match=said) as error:
        opened(latents, name, data, ("Smile",))
    assert error.value.hint


def test_columns_have_to_be_named_and_scores_to_be_given(latents):
    with pytest.raises(SpecError, match="none are named"):
        opened(latents, "s.csv", "Smile\n" + "0.5\n" * N)
    with pytest.raises(SampleError, match="holds latents without scores"):
        open_scored(latents, None, (), {})
    with pytest.raises(SampleError, match="is not there"):
        open_scored(latents.with_name("nothing"), None, (), {})
    with pytest.raises(SampleError, match="holds neither"):
        open_scored(latents.parent, None, (), {})
    with pytest.raises(SampleError, match="`scores` belong to latents in a file"):
        open_scored(latents.parent, latents, (), {})
    with pytest.raises(SpecError, match="no NAME with NAME_classes"):
        opened(latents, "s.npz", saved_archive(a=SMILE))
    with pytest.raises(MagnetError, match="damaged"):
        opened(latents, "s.npz", b"torn")


def saved_archive(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_a_latent_that_is_not_finite_is_said(latents):
    z = np.load(latents)
    z[5, 1] = np.nan
    np.save(latents, z)
    with pytest.raises(SpecError, match=r"row 5 of .* is not"):
        opened(latents, "s.npy", saved(as_published()))


# --- folders --------------------------------------------------------------------------------------------------------


@pytest.fixture
def scored(magnet):
    assert magnet("attributes", "mnist", "--n", 120, "--model", "digits", "--out", "scored", "-q").code == 0
    return Path("scored")


def test_the_folder_of_attributes(scored):
    found = open_scored(scored, None, (), {})
    probabilities = np.load(scored / "scores.npz")["digits"]
    digits = found.attributes["digits"]
    np.testing.assert_array_equal(digits.labels, probabilities.argmax(axis=1))
    np.testing.assert_array_equal(digits.probability, probabilities.max(axis=1))
    assert digits.classes == tuple("0123456789")
    assert (found.kind, found.generator, found.truncation) == ("attributes", "mnist", 1.0)
    assert isinstance(found.latents, np.memmap)
    cut = open_scored(scored, None, ("digits",), {"digits": "5"}).attributes["digits"]
    np.testing.assert_array_equal(cut.labels, probabilities[:, 5:].sum(axis=1) > probabilities[:, :5].sum(axis=1))
    with pytest.raises(SpecError, match="the attribute 'gender' is requested, and scored has digits"):
        open_scored(scored, None, ("gender",), {})


def test_a_damaged_folder_of_attributes(scored):
    whole = (scored / "scores.npz").read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (encrypted(whole), flipped, whole[:100]):
        (scored / "scores.npz").write_bytes(damaged)
        with pytest.raises(MagnetError, match="was changed after it was written"):
            open_scored(scored, None, (), {})


def test_a_sample_has_the_classes_that_were_written_into_it(magnet):
    magnet("sample", "--n", 30, "--rho", 0.2, "--out", "drawn", "-q")
    with pytest.raises(SampleError, match="without attributes"):
        open_scored(Path("drawn"), None, (), {})
    magnet("attributes", "drawn", "--model", "digits", "-q")
    found = open_scored(Path("drawn"), None, (), {})
    records = [json.loads(line) for line in Path("drawn/metadata.jsonl").read_text().splitlines()]
    digits = found.attributes["digits"]
    assert [digits.classes[i] for i in digits.labels] == [record["digits"] for record in records]
    np.testing.assert_allclose(digits.probability, [record["digits_probability"] for record in records], rtol=1e-6)
    assert (found.kind, found.generator, found.balanced) == ("sample", "mnist", False)
    assert len(found.fingerprint) == 64
    assert digits == Attribute("digits", tuple("0123456789"), digits.labels, digits.probability)
    cut = open_scored(Path("drawn"), None, (), {"digits": "5"}).attributes["digits"]
    np.testing.assert_array_equal(cut.labels, digits.labels >= 5)


@pytest.mark.parametrize(
    "record",
    [{"file_name": "../../mine.png"}, {"file_name": "images/../../x.png"}, {"digits": "11"},
     {"digits_probability": "x"},
     {"digits_probability": 7}, None],
)  # fmt: skip
def test_a_sample_that_somebody_forged_leads_nowhere(magnet, here, record):
    """Checksums are no help: whoever forges the lines can forge those, too."""
    lines = [json.loads(line) for line in Path("drawn/metadata.jsonl").read_text().splitlines()]
    lines[3] = record and lines[3] | record
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    Path("drawn/metadata.jsonl").write_bytes(data)
    with pytest.raises((SampleError, SpecError)):
        open_scored(Path("drawn"), None, (), {})
    done = magnet("balance", "drawn", "--n", 5, "--confidence", 0, "--out", "out")
    assert (done.code, done.out) == (1, "")
    assert not Path("out").exists()


READ = ("scored/latents.npy", "scored/scores.npz", "drawn/latents.npy", "drawn/metadata.jsonl")


@pytest.mark.parametrize("name", READ)
def test_what_is_read_is_what_was_written(magnet, here, name):
    """Latents in another order, or other scores, belong to no image: neither verb takes them."""
    folder = Path(name).parent
    path, line = Path(name), ["--attributes", "digits", "--confidence", 0, "--allow-unbalanced", "--n", 20]
    if path.suffix == ".npy":
        np.save(path, np.load(path)[::-1])
    elif path.suffix == ".npz":
        arrays = dict(np.load(path))
        np.savez(path, **arrays | {"digits": arrays["digits"][::-1]})
    else:
        path.write_text("".join(path.read_text().splitlines(keepends=True)[::-1]))
    for command in (["balance", folder, *line, "--no-images"], ["direction", folder, *line, "--attribute", "digits=3"]):
        done = magnet(*command)
        assert (done.code, done.out) == (1, "")
        assert f"{name} was changed after it was written" in done.err
