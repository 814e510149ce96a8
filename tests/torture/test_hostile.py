"""Damage and malice: no flipped byte goes unseen, and no file, whoever wrote it, gets more than a clear error."""

import dataclasses
import io
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magnet_cli import index
from magnet_cli.cli import describe
from magnet_cli.errors import MagnetError, VolumeError
from magnet_cli.files import documents, hdf5
from magnet_cli.sampling import sample_folder
from magnet_cli.volume import Shard, Volume
from magnet_cli.volume.spec import VolumeSpec

FLIPS = 2000  # in all files of a volume, an index and a sample
SPEC = VolumeSpec(
    generator="g", sha256="0" * 64, family="dcgan", prior="normal", latent_dim=5, space="z", output="pixel",
    truncation=1.0, top_k=4, solver="pilot", precision="float32", rank_floor=1e-5, seed=0, shard_rows=20, solver_size=4,
)  # fmt: skip


def rows(count=20, seed=0, labels=None):
    rng = np.random.default_rng(seed)
    values = -np.sort(-rng.random((20, 4), np.float32), axis=1) + np.float32(0.1)
    return Shard(rng.standard_normal((20, 5), dtype=np.float32)[:count], values[:count], labels)


def make_volume(path):
    volume = Volume.create(path, SPEC, pilot=np.eye(5))
    for shard, count in ((0, 20), (1, 20), (3, 7)):
        volume.write(shard, rows(count, shard))
    return volume


def damage(paths, count, seed=0):
    """Flip a random byte of the files, `count` times in all; each is put right again afterwards."""
    rng = np.random.default_rng(seed)
    sizes = [path.stat().st_size for path in paths]
    places = np.sort(rng.choice(sum(sizes), count, replace=False))
    for path, size, end in zip(paths, sizes, np.cumsum(sizes).tolist(), strict=True):
        whole = path.read_bytes()
        for place in places[(places >= end - size) & (places < end)] - (end - size):
            changed = bytearray(whole)
            changed[place] ^= int(rng.integers(1, 256))
            path.write_bytes(changed)
            yield path
        path.write_bytes(whole)


def problems(path):
    try:
        return describe.describe(str(path), check=True)["problems"]
    except MagnetError as error:
        return [error.message]


def test_every_flipped_byte_of_a_volume_is_reported(tmp_path):
    volume = make_volume(tmp_path / "v")
    known = index.build(volume, 3)
    numbers = {0: "rows 0-19", 1: "rows 20-39", 3: "rows 60-66"}
    paths = [p for p in sorted(volume.path.rglob("*")) if p.is_file()]
    assert len(paths) == 8  # volume.json, pilot.h5, three shards and their marks
    assert problems(volume.path) == []
    for i, path in enumerate(damage(paths, FLIPS // 2)):
        found = problems(volume.path)
        assert any(str(path) in problem for problem in found), path
        if path.parent.name == "shards" and path.suffix == ".h5":
            assert any(numbers[int(path.stem[-6:])] in problem for problem in found)
        if i % 25 == 0:
            try:
                built = index.build(Volume.open(volume.path), 3)
            except MagnetError:
                continue
            np.testing.assert_array_equal(built.log_volume, known.log_volume)  # the pilot basis is no part of a draw
            assert path.name == "pilot.h5"
    assert problems(volume.path) == []


def test_every_flipped_byte_of_an_index_is_reported_and_none_changes_a_draw(tmp_path):
    volume = make_volume(tmp_path / "v")
    path = index.path_of(tmp_path / "indices", volume, 3)
    known = index.build(volume, 3)
    index.store(known, volume, path)
    assert problems(path) == []
    for changed in damage([path, path.with_suffix(".json")], FLIPS // 4):
        found = problems(path)
        assert any(str(changed) in problem for problem in found), changed
        assert index.stored(path, volume, 3) is None
    assert index.stored(path, volume, 3).parts == known.parts


def test_every_flipped_byte_of_a_sample_is_reported(toy_generator, toy_volume, tmp_path):
    built = index.build(toy_volume, 5)
    spec = sample_folder.SampleSpec(
        generator="toy", sha256="0" * 64, fingerprint=toy_volume.fingerprint, pool=200, n=9, rho=0.5, top_k=5, seed=0,
        replace=False, truncation=1.0,
    )  # fmt: skip
    out = tmp_path / "s"
    drawn = index.draw(built, 9, 0.5, 0)
    contents = sample_folder.rows_of(spec, drawn, toy_volume)
    list(sample_folder.write(out, spec, contents, toy_volume, toy_generator))
    sample_folder.finish(out, spec, contents, toy_volume, ["magnet"], {"sample": "s"})
    paths = [p for p in sorted(out.rglob("*")) if p.is_file()]
    assert len(paths) == 14
    assert problems(out) == []
    for path in damage(paths, FLIPS // 4):
        assert any(str(path) in problem for problem in problems(out)), path
    assert problems(out) == []


# --- documents ---------------------------------------------------------------------------------------------------

leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
changes = st.dictionaries(st.sampled_from([f.name for f in dataclasses.fields(VolumeSpec)]), values, max_size=3)


def written(fields):
    """The document with a right checksum, as a hostile writer would make it; None where JSON cannot hold it."""
    try:
        return documents.encode(fields)
    except ValueError:
        return None


@given(changes, st.booleans(), st.dictionaries(st.sampled_from(["format", "pilot", "measured", "spec", "x"]), values))
@settings(max_examples=200, deadline=None)
def test_a_volume_json_that_somebody_forged(tmp_path_factory, changed, honest, others):
    path = tmp_path_factory.mktemp("v")
    spec = dataclasses.asdict(SPEC) | changed
    fields = {"format": 1, "spec": spec, "fingerprint": SPEC.fingerprint, "notes": []} | others
    if honest:
        try:
            fields["fingerprint"] = VolumeSpec(**spec).fingerprint
        except (MagnetError, TypeError, ValueError):
            return
    data = written(fields)
    if data is None:
        return
    (path / "volume.json").write_bytes(data)
    try:
        volume = Volume.open(path)
    except MagnetError as error:
        assert str(path) in error.message  # noqa: PT017
        return
    assert set(map(type, volume.check())) <= {str}
    assert volume.missing(3)


@pytest.mark.parametrize(
    "forged",
    [{"generator": name} for name in ("", "..", "/tmp/owned", "../../owned", "a\x1b[31m", "\u202ea", "a\nb")]
    + [{"num_classes": 10**10}, {"latent_dim": 10**10}, {"latent_dim": 0}, {"style_dim": 10**12}, {"num_classes": -1}],
    ids=repr,
)
def test_a_volume_whose_names_or_numbers_would_lead_astray(tmp_path, forged):
    """Names of generators become those of files; classes and latents become memory."""
    spec = dataclasses.asdict(SPEC) | forged
    honest = object.__new__(VolumeSpec)
    for name, value in spec.items():
        object.__setattr__(honest, name, value)
    fields = {"format": 1, "spec": spec, "fingerprint": honest.fingerprint, "notes": []}
    (tmp_path / "volume.json").write_bytes(documents.encode(fields))
    with pytest.raises(MagnetError, match=r"the spec in .*volume\.json is not one"):
        Volume.open(tmp_path)


@pytest.mark.parametrize("data", [b"[" * 100_000, b"{}", b"\xff", b'{"checksum": 1}', b"1" * 10_000, b"[NaN]"])
def test_documents_that_are_none(tmp_path, data):
    (tmp_path / "volume.json").write_bytes(data)
    with pytest.raises(MagnetError, match=r"volume\.json"):
        Volume.open(tmp_path)


@given(
    st.dictionaries(
        st.sampled_from(["sha256", "size", "rows", "first_row", "fingerprint", "pilot", "format", "x"]), values
    )
)
@settings(max_examples=60, deadline=None)
def test_a_mark_that_somebody_forged(tmp_path_factory, changed):
    volume = Volume.create(tmp_path_factory.mktemp("v") / "v", dataclasses.replace(SPEC, solver="exact", solver_size=0))
    volume.write(0, rows())
    mark = documents.read(volume.mark_path(0))
    data = written(mark | changed)
    if data is None or documents.encode(mark) == data:
        return
    volume.mark_path(0).write_bytes(data)
    try:
        found = volume.read(0)
    except MagnetError:
        return
    np.testing.assert_array_equal(found.latents, rows().latents)  # what was changed says nothing of the rows: a size


def test_formats_of_another_time_are_named(toy_generator, toy_volume, tmp_path):
    """volume.json, mark, shard and sample.json; an index of another format is built again (test_index)."""
    for path, field in ((toy_volume.path / "volume.json", "format 9"), (toy_volume.mark_path(1), "format 9")):
        whole = path.read_bytes()
        path.write_bytes(documents.encode(documents.read(path) | {"format": 9}))
        with pytest.raises(VolumeError, match=field):
            Volume.open(toy_volume.path).read(1)
        path.write_bytes(whole)
    forge(toy_volume, 1, lambda file: file.attrs.modify("format", 9))
    with pytest.raises(VolumeError, match="format 9"):
        toy_volume.read(1)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "sample.json").write_bytes(documents.encode({"format": 9}))
    assert "format 9" in problems(tmp_path / "s")[0]


# --- shards whose hash is right ----------------------------------------------------------------------------------


def forge(volume, shard, change):
    """Change a shard's file with the HDF5 library, and give it a mark that fits."""
    buffer = io.BytesIO(volume.shard_path(shard).read_bytes())
    with h5py.File(buffer, "r+") as file:
        change(file)
    data = buffer.getvalue()
    mark = documents.read(volume.mark_path(shard))
    volume.shard_path(shard).write_bytes(data)
    volume.mark_path(shard).write_bytes(
        documents.encode(mark | {"sha256": documents.sha256_bytes(data), "size": len(data)})
    )


def replaced(**arguments):
    def change(file):
        del file["latents"]
        file.create_dataset("latents", **arguments)

    return change


def without(file):
    del file["latents"]


def linked(link):
    def change(file):
        del file["latents"]
        file["latents"] = link

    return change


def virtual(file):
    del file["latents"]
    sources = h5py.VirtualLayout((64, 5), np.float32)
    sources[:] = h5py.VirtualSource("/etc/passwd", "latents", (64, 5))
    file.create_virtual_dataset("latents", sources)


HOSTILE = {
    "missing": (without, "missing"),
    "chunked": (replaced(data=np.zeros((64, 5), np.float32), chunks=(8, 5)), "one piece"),
    "compressed": (replaced(data=np.zeros((64, 5), np.float32), compression="gzip"), "one piece"),
    "huge": (replaced(shape=(10**12, 5), dtype=np.float32), "<f4 1000000000000×5, not <f4 64×5"),
    "huge and compressed": (
        replaced(shape=(10**12, 5), dtype=np.float32, chunks=(8, 5), compression="gzip"),
        "not <f4",
    ),
    "never filled": (replaced(shape=(64, 5), dtype=np.float32), "one piece"),
    "float64": (replaced(data=np.zeros((64, 5))), "<f8"),
    "big-endian": (replaced(data=np.zeros((64, 5), ">f4")), "of another type"),
    "strings": (replaced(data=["a"] * 64), "not <f4"),
    "flat": (replaced(data=np.zeros(320, np.float32)), "not <f4 64×5"),
    "single": (replaced(data=np.float32(1)), "not <f4 64×5"),
    "external": (replaced(shape=(64, 5), dtype=np.float32, external=[("/etc/passwd", 0, 1280)]), "one piece"),
    "virtual": (virtual, "one piece"),
    "external link": (linked(h5py.ExternalLink("/etc/passwd", "x")), "not a plain one"),
    "soft link": (linked(h5py.SoftLink("/singular_values")), "kept elsewhere"),
    "no attribute": (lambda file: file.attrs.pop("shard"), "shard"),
    "attribute of numbers": (lambda file: file.attrs.create("shard", np.zeros(1000)), "single string or integer"),
    "labels of another length": (lambda file: file.create_dataset("labels", data=np.zeros(3, np.int64)), "not <i8 64"),
    "another volume": (lambda file: file.attrs.modify("fingerprint", "f" * 64), "another volume"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_shards_that_somebody_forged(toy_volume, name):
    change, said = HOSTILE[name]
    forge(toy_volume, 1, change)
    with pytest.raises(VolumeError, match=said) as error:
        toy_volume.read(1)
    assert "shard-000001.h5" in error.value.message
    assert len(toy_volume.check()) == 1


def test_a_pilot_basis_that_somebody_forged(tmp_path):
    volume = make_volume(tmp_path / "v")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("basis", (10**9, 5), np.float64, chunks=(8, 5), compression="gzip")
    (volume.path / "pilot.h5").write_bytes(buffer.getvalue())
    fields = documents.read(volume.path / "volume.json") | {"pilot": documents.sha256_bytes(buffer.getvalue())}
    (volume.path / "volume.json").write_bytes(documents.encode(fields))
    with pytest.raises(VolumeError, match=r"pilot\.h5 is not what magnet wrote"):
        Volume.open(volume.path).pilot()


def test_a_small_file_gets_no_memory(toy_volume, tmp_path):
    """Shards that claim terabytes, read by a process that may take 200 MB more than it has."""
    for name in ("huge", "huge and compressed", "never filled"):
        shutil.copytree(toy_volume.path, tmp_path / name)
        forge(Volume.open(tmp_path / name), 1, HOSTILE[name][0])
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from magnet_cli import index\n"
        "from magnet_cli.volume.store import Volume\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000, used + 200_000_000))\n"
        "for path in map(Path, sys.argv[1:]): print(Volume.open(path).check()[0])\n"
    )
    paths = [str(tmp_path / name) for name in ("huge", "huge and compressed", "never filled")]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_shard_changed_anywhere_is_never_parsed(tmp_path_factory, data):
    volume = Volume.create(tmp_path_factory.mktemp("v") / "v", dataclasses.replace(SPEC, solver="exact", solver_size=0))
    volume.write(0, rows())
    whole = bytearray(volume.shard_path(0).read_bytes())
    place = data.draw(st.integers(0, len(whole)))
    whole[place : place + data.draw(st.integers(0, 2000))] = data.draw(st.binary(max_size=20))
    if whole == volume.shard_path(0).read_bytes():
        return
    volume.shard_path(0).write_bytes(whole)
    with pytest.raises(VolumeError, match=r"\(rows 0-19\) is damaged"):
        volume.read(0)


def toy_file():
    """The bytes of a shard, and what its arrays have to be."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["latents"], file["singular_values"] = rows().latents, rows().singular_values
        file["labels"] = np.arange(20)
        file.attrs.update({"format": 1, "fingerprint": "f" * 64, "shard": 3, "first_row": 60, "magnet": "1.2.3"})
    forms = {"latents": hdf5.form("<f4", 20, 5), "singular_values": hdf5.form("<f4", None, 4)}
    return buffer.getvalue(), forms | {"labels": hdf5.form("<i8", 20)}


WHOLE, FORMS = toy_file()
METADATA = np.flatnonzero(np.frombuffer(WHOLE, np.uint8))  # most of the file is padding


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<i8", "|u1"])
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5), (2, 3, 4), (100_000,)])
def test_arrays_are_those_that_the_hdf5_library_reads(dtype, shape):
    values = (np.random.default_rng(0).random(shape) * 100).astype(dtype)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name in "abcdefgh":
            file[name] = values
        file.attrs.update({"text": "ψ" * 300, "number": -(2**40), "empty": ""})
    forms = dict.fromkeys("ah", hdf5.form(dtype, *shape))
    arrays, found = hdf5.read(buffer.getvalue(), forms, attributes=("text", "number", "empty"))
    assert found == {"text": "ψ" * 300, "number": -(2**40), "empty": ""}
    for array in arrays.values():
        np.testing.assert_array_equal(array, values)
        assert not array.flags.writeable


def test_files_are_still_open_to_the_hdf5_library(toy_volume):
    with h5py.File(toy_volume.shard_path(0)) as file:
        np.testing.assert_array_equal(file["latents"][:], toy_volume.read(0).latents)


@given(st.data())
@settings(max_examples=600, deadline=2000)
def test_bytes_changed_under_a_right_hash(data):
    """As in a volume of somebody who means harm: an error in words or arrays of the right form, and soon."""
    changed = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.sampled_from(METADATA.tolist()))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        changed = changed[: data.draw(st.integers(0, len(changed)))]
    try:
        arrays, found = hdf5.read(bytes(changed), FORMS, optional=("labels",), attributes=("format", "fingerprint"))
    except ValueError:
        return
    assert arrays["latents"].shape == (20, 5)
    assert {name: array.dtype.str for name, array in arrays.items()}["singular_values"] == "<f4"
    assert (type(found["format"]), type(found["fingerprint"])) == (int, str)
