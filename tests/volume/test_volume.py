"""volume: shards appear whole, extend bit for bit, and no wrong row is ever read."""

import dataclasses
import json
import shutil

import h5py
import numpy as np
import pytest

from magnet_cli import computing
from magnet_cli.errors import DamageError, MagnetError, SpecError, VolumeError
from magnet_cli.files import documents
from magnet_cli.volume import Shard, Volume
from magnet_cli.volume.repair import repair
from magnet_cli.volume.spec import VolumeSpec

SPEC = VolumeSpec(
    generator="g", sha256="0" * 64, family="dcgan", prior="normal", latent_dim=3, space="z", output="pixel",
    truncation=1.0, top_k=2, solver="exact", precision="float32", rank_floor=1e-5, seed=0, shard_rows=10,
)  # fmt: skip


def rows(count, seed=0):
    rng = np.random.default_rng(seed)
    values = np.sort(rng.random((10, 2), np.float32))[:, ::-1]
    return Shard(rng.standard_normal((10, 3), dtype=np.float32)[:count], np.ascontiguousarray(values[:count]))


def test_round_trip(tmp_path):
    volume = Volume.create(tmp_path / "v", SPEC)
    assert volume.num_rows == 0
    volume.write(0, rows(10))
    volume.write(2, rows(4, seed=2))
    again = Volume.open(tmp_path / "v")
    assert again.spec == SPEC
    assert again.shards() == [0, 2]
    assert again.num_rows == 14
    np.testing.assert_array_equal(again.read(2).latents, rows(4, seed=2).latents)
    first, third = rows(10).latents, rows(10, seed=2).latents
    np.testing.assert_array_equal(again.latents(np.array([23, 1, 23])), np.stack([third[3], first[1], third[3]]))
    assert again.check() == []


def test_layout_is_the_contract(tmp_path):
    volume = Volume.create(tmp_path / "v", SPEC)
    volume.write(1, rows(10))
    fields = json.loads((tmp_path / "v" / "volume.json").read_text())
    assert {"format", "fingerprint", "spec", "magnet", "created"} <= fields.keys()
    assert fields["spec"] == json.loads(json.dumps(dataclasses.asdict(SPEC)))
    mark = json.loads((tmp_path / "v" / "shards" / "shard-000001.json").read_text())
    path = tmp_path / "v" / "shards" / "shard-000001.h5"
    assert mark["sha256"] == documents.sha256_file(path)
    assert (mark["size"], mark["rows"], mark["first_row"]) == (path.stat().st_size, 10, 10)
    with h5py.File(path) as file:
        assert file["latents"].dtype == file["singular_values"].dtype == np.float32
        assert file["latents"].shape == (10, 3)
        assert file["singular_values"].shape == (10, 2)
        assert {"format", "fingerprint", "shard", "first_row", "magnet"} <= set(file.attrs)


def test_missing_is_a_set_difference(tmp_path):
    volume = Volume.create(tmp_path / "v", SPEC)
    volume.write(1, rows(10))
    volume.write(2, rows(4))
    assert volume.missing(24) == [(0, 10)]
    assert volume.missing(27) == [(0, 10), (2, 7)]
    assert volume.missing(15) == [(0, 10)]
    assert volume.missing(31) == [(0, 10), (2, 10), (3, 1)]


def test_labels_are_kept(tmp_path):
    volume = Volume.create(tmp_path / "v", SPEC)
    labels = np.arange(10)
    volume.write(0, dataclasses.replace(rows(10), labels=labels))
    np.testing.assert_array_equal(volume.read(0).labels, labels)
    assert volume.read(0).labels.dtype == np.int64


def test_a_published_shard_is_never_replaced_by_another(tmp_path):
    volume = Volume.create(tmp_path / "v", SPEC)
    volume.write(0, rows(10))
    before = volume.shard_path(0).read_bytes()
    volume.mark_path(0).unlink()  # as if a process had been stopped between shard and mark
    assert volume.missing(10) == [(0, 10)]
    volume.write(0, rows(10, seed=5))
    assert volume.shard_path(0).read_bytes() == before
    assert volume.check() == []


def test_an_unmarked_file_that_is_no_shard_gives_way(tmp_path):
    volume = Volume.create(tmp_path / "v", SPEC)
    volume.shard_path(0).write_bytes(b"not HDF5")
    volume.write(0, rows(10))
    np.testing.assert_array_equal(volume.read(0).latents, rows(10).latents)


@pytest.mark.parametrize("stopped_after", ["mark waits", "shard replaced", "mark replaced"])
def test_an_extension_that_was_cut_short_loses_nothing(tmp_path, stopped_after):
    volume, longer = (Volume.create(tmp_path / name, SPEC) for name in ("v", "longer"))
    volume.write(0, rows(4))
    longer.write(0, rows(9))
    waiting = volume.mark_path(0).with_suffix(".next.json")
    shutil.copy(longer.mark_path(0), waiting)
    if stopped_after != "mark waits":
        shutil.copy(longer.shard_path(0), volume.shard_path(0))
    if stopped_after == "mark replaced":
        shutil.copy(longer.mark_path(0), volume.mark_path(0))
    expected = 4 if stopped_after == "mark waits" else 9
    np.testing.assert_array_equal(volume.read(0).latents, rows(expected).latents)
    volume.settle()
    assert not waiting.exists()
    assert volume.num_rows == expected
    np.testing.assert_array_equal(volume.read(0).latents, rows(expected).latents)
    volume.write(0, rows(10))
    assert volume.num_rows == 10


def test_every_flipped_byte_is_found(tmp_path):
    """In volume.json, in a shard, in its mark; nothing damaged is ever returned."""
    volume = Volume.create(tmp_path / "v", SPEC)
    volume.write(0, rows(10))
    for path in (volume.path / "volume.json", volume.shard_path(0), volume.mark_path(0)):
        whole = path.read_bytes()
        for place in range(0, len(whole), max(1, len(whole) // 40)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(MagnetError):
                Volume.open(volume.path).read(0)
            if path.suffix == ".h5":
                assert any("shard-000000.h5 (rows 0-9) is damaged" in p for p in volume.check())
        path.write_bytes(whole)
    assert volume.check() == []


def test_truncated_and_foreign_files(tmp_path):
    volume = Volume.create(tmp_path / "v", SPEC)
    volume.write(0, rows(10))
    whole = volume.shard_path(0).read_bytes()
    volume.shard_path(0).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VolumeError, match="damaged") as error:
        volume.read(0)
    assert "add --repair to the `magnet compute`" in error.value.hint
    volume.shard_path(0).unlink()
    with pytest.raises(VolumeError, match="is gone"):
        volume.read(0)


# --- repair -------------------------------------------------------------------------------------------------------


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "a flipped byte": lambda v: flip(v.shard_path(1)),
    "a mark that is damaged": lambda v: flip(v.mark_path(1)),
    "a mark that is cut short": lambda v: v.mark_path(1).write_bytes(b""),
    "a shard that is gone": lambda v: v.shard_path(1).unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_taken_out_by_repair_alone(tmp_path, damage):
    volume = Volume.create(tmp_path / "v", SPEC)
    for shard in range(3):
        volume.write(shard, rows(10, seed=shard))
    assert repair(volume, 30) == []
    DAMAGES[damage](volume)
    with pytest.raises(DamageError, match="shard-000001") as caught:
        computing.missing_shards(volume, 30)
    assert "--repair" in caught.value.hint
    (removed,) = repair(volume, 30)
    assert removed.startswith("shard 1 (rows 10-19) is made again: ")
    assert str(volume.path / "shards" / "shard-000001") in removed
    assert computing.missing_shards(volume, 30) == volume.missing(30) == [(1, 10)]
    volume.write(1, rows(10, seed=1))
    assert volume.check() == repair(volume, 30) == []
    np.testing.assert_array_equal(volume.read(1).latents, rows(10, seed=1).latents)


def test_repair_loses_no_rows(tmp_path):
    """What lies behind the rows asked for would not be made again."""
    volume = Volume.create(tmp_path / "v", SPEC)
    for shard in range(2):
        volume.write(shard, rows(10 - shard, seed=shard))
    flip(volume.shard_path(1))
    before = {p: p.read_bytes() for p in volume.path.rglob("*.*") if p.is_file()}
    for num_rows in (10, 18):
        with pytest.raises(DamageError, match="rows 10-18 lie behind") as caught:
            repair(volume, num_rows)
        assert "`n=19`" in caught.value.hint
    flip(volume.mark_path(1))  # now nothing tells how many rows it had
    with pytest.raises(DamageError, match="rows 10-19 lie behind"):
        repair(volume, 10)
    flip(volume.mark_path(1))
    assert {p: p.read_bytes() for p in before} == before
    assert len(repair(volume, 19)) == 1
    assert volume.shards() == [0]


def test_a_repair_that_was_cut_short_is_seen(tmp_path):
    """The mark goes last: a damaged file without one might be taken for what a stopped process published."""
    volume = Volume.create(tmp_path / "v", SPEC)
    volume.write(0, rows(10))
    flip(volume.shard_path(0))
    volume.shard_path(0).unlink()  # where a killed repair may have been
    with pytest.raises(DamageError, match="is gone, though its commit mark is there"):
        computing.missing_shards(volume, 10)
    assert len(repair(volume, 10)) == 1


def test_a_shard_that_cannot_be_read_is_not_taken_for_damaged(tmp_path):
    volume = Volume.create(tmp_path / "v", SPEC)
    volume.write(0, rows(10))
    whole = volume.shard_path(0).read_bytes()
    volume.shard_path(0).unlink()
    volume.shard_path(0).mkdir()
    with pytest.raises(MagnetError, match="cannot read") as caught:
        repair(volume, 10)
    assert not isinstance(caught.value, DamageError)
    volume.shard_path(0).rmdir()
    volume.shard_path(0).write_bytes(whole)
    (tmp_path / "v").rename(tmp_path / "elsewhere")  # a mount that went away
    with pytest.raises(MagnetError, match="is not there") as caught:
        volume.read(0)
    assert not isinstance(caught.value, DamageError)
    with pytest.raises(MagnetError, match="is not there"):
        volume.write(1, rows(10))
    assert not (tmp_path / "v").exists()


def test_what_others_published_meanwhile_stays(tmp_path):
    """Rows of another process come first, bit for bit, also where both made the shard longer."""
    volume = Volume.create(tmp_path / "v", SPEC)
    assert volume.write(0, rows(4))
    assert not volume.write(0, rows(4, seed=1))
    assert not volume.write(0, rows(3, seed=1))
    assert volume.write(0, rows(8, seed=2))
    found = volume.read(0)
    np.testing.assert_array_equal(found.latents[:4], rows(4).latents)
    np.testing.assert_array_equal(found.singular_values[4:], rows(8, seed=2).singular_values[4:])
    unmarked = Volume.create(tmp_path / "unmarked", SPEC)
    unmarked.write(0, rows(4))
    unmarked.mark_path(0).unlink()
    assert unmarked.write(0, rows(8, seed=2))
    np.testing.assert_array_equal(unmarked.read(0).latents, found.latents)
    assert unmarked.check() == []


def test_a_damaged_mark_of_an_extension_gives_way(tmp_path):
    volume = Volume.create(tmp_path / "v", SPEC)
    volume.write(0, rows(4))
    waiting = volume.mark_path(0).with_suffix(".next.json")
    waiting.write_bytes(b"{")
    volume.settle()
    assert not waiting.exists()
    assert volume.check() == []


def test_a_shard_of_another_volume_is_refused(tmp_path):
    volume = Volume.create(tmp_path / "v", SPEC)
    other = Volume.create(tmp_path / "other", dataclasses.replace(SPEC, seed=1))
    other.write(0, rows(10))
    for path in (other.shard_path(0), other.mark_path(0)):
        shutil.copy(path, volume.path / "shards" / path.name)
    with pytest.raises(VolumeError, match="another volume"):
        volume.read(0)
    # also when somebody forges the mark: the shard itself names its volume
    volume.mark_path(0).write_bytes(volume._mark_document(0, rows(10), other.shard_path(0).read_bytes()))
    with pytest.raises(VolumeError, match="another volume"):
        volume.read(0)


def test_another_spec_lists_all_differing_fields(tmp_path):
    Volume.create(tmp_path / "v", SPEC)
    asked = dataclasses.replace(SPEC, seed=3, top_k=1, precision="float64", generator="another name")
    with pytest.raises(VolumeError) as error:
        Volume.create(tmp_path / "v", asked)
    for part in ("seed 0 (asked 3)", "top_k 2 (asked 1)", "precision float32 (asked float64)"):
        assert part in error.value.message
    assert "generator" not in error.value.message


def test_names_do_not_change_the_fingerprint():
    assert dataclasses.replace(SPEC, generator="h").fingerprint == SPEC.fingerprint
    for change in ({"seed": 1}, {"sha256": "1" * 64}, {"truncation": 0.5}, {"shard_rows": 11}, {"rank_floor": 1e-6}):
        assert dataclasses.replace(SPEC, **change).fingerprint != SPEC.fingerprint


@pytest.mark.parametrize(
    ("field", "value"),
    [("top_k", 0), ("top_k", 4), ("truncation", 0.0), ("truncation", 1.1), ("shard_rows", 0), ("seed", -1)],
)
def test_a_spec_out_of_range(field, value):
    with pytest.raises(SpecError):
        dataclasses.replace(SPEC, **{field: value})


def test_places_that_are_no_volume(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    for name in ("nothing", "file", "full"):
        with pytest.raises(VolumeError, match="is not a volume"):
            Volume.open(tmp_path / name)
    for name in ("file", "full"):
        with pytest.raises(VolumeError, match="is asked for as a volume"):
            Volume.create(tmp_path / name, SPEC)
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["letter.txt"]


def test_planning_writes_nothing(tmp_path):
    assert Volume.planned(tmp_path / "v", SPEC).missing(5) == [(0, 5)]
    assert not (tmp_path / "v").exists()
