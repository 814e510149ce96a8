"""What somebody else made is read only if it is a plain file that no link leads to."""

import os

import numpy as np
import pytest
from PIL import Image

from magnet_cli.errors import MagnetError, SampleError
from magnet_cli.files import atomic, documents, npy, opening
from magnet_cli.files.image_folder import ImageSet


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(b"private")
    return path


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    return path


def test_users_own_links_are_followed(secret, tmp_path):
    (tmp_path / "link").symlink_to(secret)
    assert opening.read(tmp_path / "link") == b"private"


@pytest.mark.parametrize("place", ["file", "images/file"])
def test_links_below_a_folder_are_not(secret, folder, place):
    """Neither a link in the place of a file, nor one in the place of a folder on the way."""
    if "/" in place:
        (folder / "images").symlink_to(secret.parent)
        place = "images/secret"
    else:
        (folder / place).symlink_to(secret)
    with pytest.raises(MagnetError, match="is not followed"):
        opening.read(folder / place, folder)


def test_no_name_leads_out_of_a_folder(secret, folder):
    with pytest.raises(MagnetError, match="leads out of"):
        opening.read(folder / "../secret", folder)


def test_a_folder_may_be_reached_by_a_link(folder, tmp_path):
    (folder / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(folder)
    assert opening.read(tmp_path / "link" / "file", tmp_path / "link") == b"x"


def test_snapshots_of_the_hub_are_links_to_plain_files(tmp_path, secret):
    snapshot, blobs = tmp_path / "models--o--n" / "snapshots" / ("c" * 40), tmp_path / "models--o--n" / "blobs"
    (snapshot / "shards").mkdir(parents=True)
    blobs.mkdir()
    (blobs / "b").write_bytes(b"x")
    (blobs / "l").symlink_to(secret)
    (snapshot / "shards" / "file").symlink_to("../../../blobs/b")
    assert opening.read(snapshot / "shards" / "file", snapshot) == b"x"
    for name, target in (("out", "../../blobs/../../secret"), ("through", "../../blobs/l"), ("abs", str(secret))):
        (snapshot / name).symlink_to(target)
        with pytest.raises(MagnetError, match="is not followed"):
            opening.read(snapshot / name, snapshot)


@pytest.mark.parametrize("read", [opening.read, documents.sha256_file, documents.read, npy.latents, npy.vector])
def test_pipes_and_devices_are_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(MagnetError, match="a pipe or a device"):
            read(tmp_path / path)


def test_what_was_staged_elsewhere_is_not_moved_into_a_folder(folder, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "decided").touch()
    (tmp_path / "other" / "mine").touch()
    (folder / ".replacing").symlink_to(tmp_path / "other")
    atomic.settle(folder)
    assert (tmp_path / "other" / "mine").exists()
    assert not (folder / "mine").exists()


# images


def test_postscript_is_no_image_whatever_its_name(folder, tmp_path):
    """Pillow would hand it to Ghostscript."""
    Image.new("RGB", (8, 8)).save(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(folder / "x.png")
    with pytest.raises(SampleError, match="is no image that can be read"):
        ImageSet.open(folder)


@pytest.mark.parametrize("ending", ["gif", "tga", "ico", "pcx", "sgi"])
def test_formats_that_are_not_listed_are_not_decoded(folder, ending):
    Image.new("RGB", (16, 16)).save(folder / f"x.{ending}")
    (folder / f"x.{ending}").rename(folder / "x.png")
    with pytest.raises(SampleError, match="is no image that can be read"):
        ImageSet.open(folder)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "tif", "ppm"])
def test_formats_that_are_listed_are(folder, ending):
    Image.new("RGB", (16, 16), (200, 10, 10)).save(folder / f"x.{ending}")
    assert next(ImageSet.open(folder).batches(0, 1)).shape == (1, 16, 16, 3)


# arrays


def header(shape, descr="'<f4'"):
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x01\x00" + (len(text) + 1).to_bytes(2, "little") + text + b"\n"


BAD = {
    "claims more than it has": header((10**10, 4)),
    "texts of no length": header((10**9,), "'<U0'"),
    "unclosed": header("(1, 2").replace(b"}", b""),
    "deep": header("(" * 4000 + ")" * 4000),
    "long": header("(" + "1," * 20_000 + ")"),
    "negative": header((-1, 4)),
    "objects": header((1,), "'|O'") + b"\x80\x04N.",
    "scalar": header(()) + bytes(4),
    "huge number": header(f"({'9' * 5000},)"),
    "no numbers": header((0, 4)),
    "not ascii": b"\x93NUMPY\x01\x00\x04\x00\xff\xfe\xfd\n",
    "short": b"\x93NUMPY\x01",
    "empty": b"",
}


@pytest.mark.parametrize("name", BAD)
def test_arrays_that_are_none(tmp_path, name):
    path = tmp_path / "x.npy"
    path.write_bytes(BAD[name])
    for read in (npy.latents, npy.vector, lambda path: npy.labels(path, 1, 10)):
        with pytest.raises(MagnetError, match=r"x\.npy"):
            read(path)


def test_labels_of_a_sample_are_of_its_images(folder):
    """A label of 10^10 would become as many names of classes."""
    (folder / "images").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "images" / "000000.png")
    (folder / "metadata.jsonl").write_text('{"file_name": "images/000000.png"}\n')
    (folder / "checksums.txt").write_text("")
    (folder / "sample.json").write_bytes(documents.encode({"spec": {}}))
    for labels in (np.array([10**10]), np.array([-1]), np.array([1, 2]), np.array(1), np.array(["a"])):
        np.save(folder / "labels.npy", labels)
        with pytest.raises(MagnetError, match=r"labels\.npy"):
            ImageSet.open(folder).classes()
    np.save(folder / "labels.npy", np.array([3]))
    assert ImageSet.open(folder).classes()[0].tolist() == [3]
