"""exchange: the published arrays in and out, bit for bit, and whatever else a file may hold refused."""

import contextlib
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magnet_cli import index
from magnet_cli.catalog import entries
from magnet_cli.errors import MagnetError, VolumeError
from magnet_cli.files import documents
from magnet_cli.sharing import exporting, importing, published_arrays
from magnet_cli.volume import Shard, Volume

FACES = "stylegan2-ffhq"  # in the list, never in the cache of a test


def arrays(rows=50, width=6, latent_dim=8, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    values = -np.sort(-np.exp(rng.normal(size=(rows, width))), axis=1)
    return {"svds": values.astype(dtype), "latents": rng.normal(size=(rows, latent_dim)).astype(dtype)}


def save(path, compressed=False, **members):
    (np.savez_compressed if compressed else np.savez)(path, **members)
    return path


def stored(outcome):
    volume = Volume.open(Path(outcome.json["volume"]))
    return volume, Shard.join([shard for _, shard in volume.rows()])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4", ">f8"])
@pytest.mark.parametrize("leading", [(50,), (5, 10), (5, 2, 5)])
@pytest.mark.parametrize("compressed", [False, True])
def test_layouts_of_the_authors_files(magnet, tmp_path, dtype, leading, compressed):
    """2-D as StyleGAN3's, with leading axes as StyleGAN2's and BigGAN's; of a generator that is not here."""
    known = arrays(dtype=dtype)
    shaped = {name: values.reshape(*leading, -1) for name, values in known.items()}
    done = magnet("import", save(tmp_path / "a.npz", compressed, **shaped), FACES, "--json")
    assert done.code == 0, done.err
    assert (done.json["rows"], done.json["dropped_rows"], done.json["top_k"]) == (50, 0, 6)
    volume, found = stored(done)
    np.testing.assert_array_equal(found.singular_values, known["svds"].astype(np.float32))
    np.testing.assert_array_equal(found.latents, known["latents"].astype(np.float32))
    assert (volume.spec.solver, volume.spec.family, volume.spec.prior) == ("imported", "stylegan2", "sphere")
    assert volume.spec.sha256 == entries.find(FACES).sha256
    assert volume.spec.imported_sha256 == documents.sha256_file(tmp_path / "a.npz")
    assert volume.check() == []


def test_rows_never_filled_are_dropped_and_values_sorted(magnet, tmp_path):
    known = arrays(rows=40)
    known["svds"][[3, 7, 39]] = 0
    known["svds"][5] = known["svds"][5][::-1]
    done = magnet("import", save(tmp_path / "a.npz", **known), FACES, "--json")
    assert (done.json["rows"], done.json["dropped_rows"], done.json["sorted_rows"]) == (37, 3, 1)
    assert "3 rows of zeros" in done.err
    assert "in 1 rows" in done.err
    volume, found = stored(done)
    kept = np.delete(np.arange(40), [3, 7, 39])
    np.testing.assert_array_equal(found.latents, known["latents"][kept])
    assert (np.diff(found.singular_values, axis=1) <= 0).all()
    assert volume.measured["imported"]["dropped_rows"] == 3


def test_again_it_does_nothing(magnet, tmp_path):
    path = save(tmp_path / "a.npz", **arrays())
    first = magnet("import", path, FACES, "--json")
    volume = Volume.open(Path(first.json["volume"]))
    before = {p: p.stat().st_mtime_ns for p in volume.path.rglob("*") if p.is_file()}
    again = magnet("import", path, FACES, "--json")
    assert (again.code, again.out) == (0, first.out)
    assert "already holds these 50 rows" in again.err
    assert {p: p.stat().st_mtime_ns for p in volume.path.rglob("*") if p.is_file()} == before


def test_an_import_that_was_stopped_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(importing, "_SHARD_WORK", 1)
    monkeypatch.setattr(published_arrays, "_BLOCK_WORK", 1)  # shards of 64 rows, a row at a time
    archive = published_arrays.open_archive(save(tmp_path / "a.npz", **arrays(rows=200)))
    about = {"generator": "g", "sha256": "0" * 64, "family": "dcgan", "prior": "normal"}
    spec = importing.spec_of(archive, **about, space="z", output="pixel", truncation=1.0)
    volume = Volume.create(tmp_path / "v", spec)
    steps = importing.fill(volume, archive, 200)
    assert [next(steps), next(steps)] == [(0, 64), (1, 64)]
    steps.close()
    assert list(importing.fill(volume, archive, 200)) == [(2, 64), (3, 8)]
    whole = Shard.join([shard for _, shard in volume.rows()])
    np.testing.assert_array_equal(whole.latents, arrays(rows=200)["latents"])


@pytest.mark.slow
@given(st.integers(1, 300), st.integers(1, 4), st.booleans(), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_import_of_an_export_has_the_same_rows_bit_for_bit(tmp_path_factory, rows, width, labelled, seed):
    folder = tmp_path_factory.mktemp("exchange")
    rng = np.random.default_rng(seed)
    source = (
        save(folder / "a.npz", **arrays(rows, width, 4, seed=seed))
        if not labelled
        else save(folder / "a.npz", **arrays(rows, width, 4, seed=seed), labels=np.eye(5)[rng.integers(0, 5, rows)])
    )
    first, before = imported(source, folder / "first.vol")
    list(exporting.export(first, folder / "b.npz"))
    with np.load(folder / "b.npz") as file:
        assert {array.dtype for array in file.values()} == {np.dtype("<f4")}
        assert set(file) == {"svds", "latents"} | ({"labels"} if labelled else set())
    _, after = imported(folder / "b.npz", folder / "again.vol")
    np.testing.assert_array_equal(before.singular_values, after.singular_values)
    np.testing.assert_array_equal(before.latents, after.latents)
    assert (before.labels is None) == (not labelled)
    np.testing.assert_array_equal(before.labels, after.labels)
    assert exporting.is_export(first, folder / "b.npz")
    data = (folder / "b.npz").read_bytes()
    list(exporting.export(first, folder / "b.npz"))
    assert (folder / "b.npz").read_bytes() == data


def imported(path, folder, prior="normal"):
    archive = published_arrays.open_archive(path)
    tally = published_arrays.inspect(archive)
    about = {"generator": "g", "sha256": "0" * 64, "family": "dcgan", "prior": prior}
    spec = importing.spec_of(archive, **about, space="z", output="pixel", truncation=1.0)
    volume = Volume.create(folder, spec)
    list(importing.fill(volume, archive, tally.rows))
    return volume, Shard.join([shard for _, shard in volume.rows()])


def test_labels_become_class_numbers(tmp_path):
    hot = np.eye(3, dtype=bool)[[2, 0, 1, 1]]
    _, found = imported(save(tmp_path / "a.npz", **arrays(rows=4), labels=hot), tmp_path / "v")
    assert found.labels.tolist() == [2, 0, 1, 1]
    _, found = imported(save(tmp_path / "b.npz", **arrays(rows=4), labels=np.array([])), tmp_path / "w")
    assert found.labels is None  # published empty where there are no classes


@pytest.mark.slow
def test_drawn_from_like_any_other(magnet, tmp_path):
    """Export of the built-in volume, in again, and the same rows are drawn; no row of a solver goes beside them."""
    assert magnet("export", "mnist-volume", "digits.npz", "--json").json["rows"] == 20_000
    known = magnet("sample", "mnist", "--n", 5, "--out", "a", "--json").json
    done = magnet("import", "digits.npz", "mnist", "--json").json
    drawn = magnet("sample", "mnist", "--n", 5, "--out", "b", "--json")
    assert done["volume"] in drawn.err
    assert drawn.json["effective_size"] == known["effective_size"]
    np.testing.assert_array_equal(np.load("a/latents.npy"), np.load("b/latents.npy"))
    refused = magnet("compute", "mnist", "--n", 30_000, "--volume", done["volume"])
    assert refused.code == 1
    assert "imported from a file" in refused.err
    assert magnet("info", done["volume"], "--check").code == 0


def test_a_generator_that_normalises_z_gets_its_log_volumes_at_one_length(magnet, tmp_path):
    known = arrays(rows=300)
    scaled = {"svds": known["svds"] / 3, "latents": known["latents"] * 3}  # the same images: J ∝ 1/|z|
    for name, members in (("a", known), ("b", scaled)):
        save(tmp_path / f"{name}.npz", **members)
        done = magnet("import", tmp_path / f"{name}.npz", FACES, "--volume", tmp_path / name, "--json")
        assert done.code == 0, done.err
    built = [index.build(Volume.open(tmp_path / name), 4).log_volume for name in "ab"]
    np.testing.assert_allclose(built[0], built[1], atol=1e-5)
    lengths = np.linalg.norm(known["latents"].astype(float), axis=1)
    plain = np.log(known["svds"][:, :4].astype(float)).sum(axis=1)
    np.testing.assert_allclose(built[0], plain + 4 * np.log(lengths / np.sqrt(8)), atol=1e-5)
    done = magnet("index", FACES, "--volume", tmp_path / "a", "--json")
    assert done.json["rescaled"] is True
    assert "k log(|z|/√D)" in done.err
    _, found = imported(save(tmp_path / "c.npz", **arrays(width=8)), tmp_path / "c", prior="sphere")
    assert found.singular_values.shape == (50, 7)  # along z no image changes


# --- what is refused ---------------------------------------------------------------------------------------------


def damaged(name, index_, value):
    members = arrays(rows=40)
    members[name][index_] = value
    return members


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (damaged("svds", (7, 2), np.nan), "svds that are not finite numbers of float32 in row 7"),
        (damaged("svds", (slice(3, 30), 0), np.inf), "in rows 3, 4, 5, 6, 7 and 22 more"),
        (damaged("svds", ([2, 9], 1), -1), "negative svds in rows 2, 9"),
        (damaged("latents", (39, 0), np.nan), "latents that are not finite numbers of float32 in row 39"),
        ({**arrays(), "svds": np.full((50, 6), 1e300)}, "not finite numbers of float32"),
        ({**arrays(), "svds": np.zeros((50, 6))}, "all 50 rows of svds .* are zeros"),
        ({**arrays(), "labels": np.full((50, 3), 0.5)}, "labels that are not one-hot in rows 0, 1"),
        ({**arrays(), "labels": np.arange(50)}, r"labels .* is of shape \(50,\)"),
        ({**arrays(), "labels": np.eye(3)}, "different numbers of rows: svds 50, latents 50, labels 3"),
        ({**arrays(), "latents": arrays(rows=49)["latents"]}, "svds 50, latents 49"),
        ({**arrays(), "latents": np.arange(50)}, "latents .* is of type int64"),  # seeds, as one docstring says
        ({**arrays(), "svds": np.ones((50, 9), np.float32)}, "9 singular values and 8 latents"),
        ({**arrays(), "svds": np.ones(50)}, r"shape \(50,\)"),
        ({**arrays(), "svds": np.ones((50, 6), np.float16)}, "is of type float16"),
        ({**arrays(), "svds": np.asfortranarray(np.ones((50, 6)))}, "Fortran order"),
        ({**arrays(), "svds": np.array([[None]])}, "Python objects"),
        ({"latents": np.ones((3, 3))}, "holds no array svds"),
        ({"svds": np.ones((3, 3))}, "holds no array latents"),
        ({"svds": np.ones((0, 3)), "latents": np.ones((0, 3))}, "0 rows"),
    ],
)
def test_arrays_that_are_refused(magnet, tmp_path, members, said):
    path = tmp_path / "a.npz"
    np.savez(path, allow_pickle=True, **members)
    done = magnet("import", path, FACES)
    assert (done.code, done.out) == (1, "")
    with pytest.raises(VolumeError, match=said):
        published_arrays.inspect(published_arrays.open_archive(path))
    assert not list(tmp_path.glob("home/volumes/*"))


def test_latents_of_another_generator_are_refused(magnet, toy, tmp_path):
    done = magnet("import", save(tmp_path / "a.npz", **arrays()), toy)
    assert done.code == 1
    assert "have 8 numbers, those of toy 5" in done.err
    done = magnet("import", save(tmp_path / "b.npz", **arrays(latent_dim=5, width=5)), toy, "--json")
    assert done.code == 0
    assert done.json["top_k"] == 5


def npy(shape, data=b"", dtype="<f4"):
    """The bytes of an npy file that claims a shape."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + data


def archive_of(path, compression=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return path


GOOD = npy((50, 8), arrays()["latents"].tobytes())


@pytest.mark.parametrize(
    ("svds", "said"),
    [
        (npy((10**12, 6)), "claims 24,000,000,000,128 bytes and holds 128"),
        (npy((-1, -6), b"1" * 24), "claims"),
        (npy((50, 6), b"\1" * 1199), "claims 1,328 bytes and holds 1,327"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"{" * 200, "damaged"),
        (b"\x93NUMPY\x09\x00" + bytes(200), "damaged"),
        (b"not an array", "damaged"),
        (b"", "damaged"),
    ],
)
def test_claims_that_do_not_hold(tmp_path, svds, said):
    with pytest.raises(VolumeError, match=said):
        published_arrays.open_archive(archive_of(tmp_path / "a.npz", svds=svds, latents=GOOD))


@pytest.mark.slow
def test_bombs_and_encrypted_files(tmp_path):
    bomb = archive_of(
        tmp_path / "a.npz", zipfile.ZIP_DEFLATED, svds=npy((10_000_000, 6), bytes(240_000_000)), latents=GOOD
    )
    assert bomb.stat().st_size < 300_000
    with pytest.raises(VolumeError, match="claims to inflate"):
        published_arrays.open_archive(bomb)
    path = archive_of(tmp_path / "b.npz", svds=GOOD, latents=GOOD)
    data = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(signature) + flags] |= 1
    path.write_bytes(data)
    with pytest.raises(VolumeError, match="is encrypted"):
        published_arrays.open_archive(path)
    packed = archive_of(tmp_path / "c.npz", zipfile.ZIP_LZMA, svds=GOOD, latents=GOOD)
    with pytest.raises(VolumeError, match="compressed in a way"):
        published_arrays.open_archive(packed)
    path = archive_of(tmp_path / "d.npz", svds=GOOD, abcd=GOOD, latents=GOOD)
    path.write_bytes(path.read_bytes().replace(b"abcd.npy", b"svds.npy"))
    with pytest.raises(VolumeError, match="more than once"):
        published_arrays.open_archive(path)


@pytest.mark.slow
@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_file_gives_a_clear_error_or_its_rows(tmp_path_factory, data):
    """Bytes changed, cut off or put in anywhere: the zip's checksums catch what its structure does not."""
    folder = tmp_path_factory.mktemp("damaged")
    path = save(folder / "a.npz", data.draw(st.booleans()), **arrays(rows=20))
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path.write_bytes(whole)
    with contextlib.suppress(MagnetError):
        _, found = imported(path, folder / "v")
        np.testing.assert_array_equal(found.latents, arrays(rows=20)["latents"])
        np.testing.assert_array_equal(found.singular_values, arrays(rows=20)["svds"])


@pytest.mark.slow
def test_memory_stays_small_whatever_a_file_claims(tmp_path):
    """In 600 MB of address space above what the imports take: bombs, and 200 MB of rows that are all taken."""
    rows = 1_000_000
    archive_of(tmp_path / "bomb.npz", zipfile.ZIP_DEFLATED, svds=npy((rows, 30), bytes(rows * 120)), latents=GOOD)
    archive_of(tmp_path / "claim.npz", svds=npy((10**15, 6)), latents=GOOD)
    values = np.full((rows, 8), 2, np.float32)
    save(tmp_path / "large.npz", svds=values, latents=values * 2)
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from magnet_cli import index\nfrom magnet_cli.sharing import published_arrays as exchange\n"
        "from magnet_cli.errors import MagnetError\n"
        "from test_published_arrays import imported\n"
        "folder = Path(sys.argv[1])\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 600_000_000, used + 600_000_000))\n"
        "for name in ('bomb', 'claim'):\n"
        "    try: imported(folder / f'{name}.npz', folder / name)\n"
        "    except MagnetError as error: print(error.message)\n"
        "print(exchange.inspect(exchange.open_archive(folder / 'large.npz')).rows)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    here = Path(__file__).parent
    env = os.environ | {"PYTHONPATH": os.pathsep.join((str(here), str(here.parent / "fixtures")))}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    bomb, claim, taken = done.stdout.splitlines()
    assert "claims to inflate" in bomb
    assert "claims 24,000,000,000,000,128 bytes" in claim
    assert int(taken) == rows


# --- export ------------------------------------------------------------------------------------------------------


def test_export_leaves_other_files_alone(magnet, toy_volume, tmp_path):
    path = tmp_path / "deep" / "a.npz"
    first = magnet("export", toy_volume.path, path, "--json")
    assert (first.code, first.json["rows"], first.json["file"]) == (0, 200, str(path))
    before = path.stat().st_mtime_ns
    again = magnet("export", toy_volume.path, path, "--json")
    assert (again.code, again.out, path.stat().st_mtime_ns) == (0, first.out, before)
    path.write_bytes(b"a thesis")
    refused = magnet("export", toy_volume.path, path)
    assert (refused.code, path.read_bytes()) == (1, b"a thesis")
    assert "--force" in refused.err
    assert magnet("export", toy_volume.path, path, "--force").code == 0
    with np.load(path) as file:
        np.testing.assert_array_equal(file["latents"], toy_volume.latents(np.arange(200)))


def test_export_of_a_damaged_or_empty_volume_leaves_no_file(magnet, toy_volume, tmp_path):
    path = toy_volume.shard_path(2)
    path.write_bytes(path.read_bytes()[:-1])
    done = magnet("export", toy_volume.path, "a.npz")
    assert done.code == 1
    assert "shard-000002.h5" in done.err
    empty = Volume.create(tmp_path / "empty.vol", toy_volume.spec)
    assert "holds no rows" in magnet("export", empty.path, "a.npz").err
    assert list((tmp_path / "work").iterdir()) == []


def test_rows_with_and_without_labels_do_not_go_together(toy_volume, tmp_path):
    rows = toy_volume.read(3)
    toy_volume.mark_path(3).unlink()
    toy_volume.shard_path(3).unlink()
    toy_volume.write(3, Shard(rows.latents, rows.singular_values, np.zeros(8, np.int64)))
    with pytest.raises(VolumeError, match="some have none"):
        list(exporting.export(toy_volume, tmp_path / "a.npz"))


def test_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; import magnet_cli.sharing.importing, magnet_cli.sharing.exporting"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_json_keys_of_the_contract(magnet, toy_volume, tmp_path):
    done = magnet("export", toy_volume.path, tmp_path / "a.npz", "--json")
    assert {"file", "rows"} <= json.loads(done.out).keys()
    done = magnet("import", tmp_path / "a.npz", FACES, "--json")
    assert {"volume", "rows"} <= json.loads(done.out).keys()
