"""image_writer: files are a function of the latents alone, whatever writes them and wherever it was stopped."""

from pathlib import Path

import numpy as np
import pytest

from magnet_cli.errors import MagnetError
from magnet_cli.files import documents, pictures
from magnet_cli.models import batches
from magnet_cli.sampling import image_writer

SMALL, LARGE = (1, 4, 4), (3, 256, 256)  # of small images this thread encodes, of large ones others


def latents(n=40, size=5, seed=0):
    """Latents saved to z.npy."""
    z = np.random.default_rng(seed).standard_normal((n, size)).astype(np.float32)
    np.save("z.npy", z)
    return z


@pytest.mark.parametrize("shape", [SMALL, LARGE])
@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "npy"])
def test_threads_and_their_number_change_no_byte(toy_generator, tmp_path, ending, shape):
    z = latents(50)
    names = [f"images/{i:06d}.{ending}" for i in range(50)]

    def rows(places):
        return batches.arrays(toy_generator, z[places], 1.0, 16)

    hashes = {}
    for threads in (1, 2, 7):
        written = list(image_writer.write(tmp_path / str(threads), names, 16, rows, shape, threads))
        assert [len(batch) for batch in written] == [16, 16, 16, 2]
        hashes[threads] = {name: digest for batch in written for name, digest in batch.items()}
    assert hashes[1] == hashes[2] == hashes[7]
    shown = [batches.arrays(toy_generator, z[i : i + 16], 1.0, 16) for i in range(0, 50, 16)]
    one = np.concatenate(shown)[20]
    serial = pictures.npy(one) if ending == "npy" else pictures.encoded(pictures.pixels(one[None])[0], ending)
    for threads in (1, 2, 7):
        assert (tmp_path / str(threads) / names[20]).read_bytes() == serial
        assert documents.sha256_bytes(serial) == hashes[threads][names[20]]


@pytest.mark.parametrize("shape", [SMALL, LARGE])
@pytest.mark.parametrize("threads", [1, 3])
def test_few_batches_are_in_memory_at_once(tmp_path, threads, shape):
    computed = 0

    def rows(places):
        nonlocal computed
        computed += 1
        return np.zeros((places.stop - places.start, 1, 4, 4), np.float32)

    names = [f"images/{i:06d}.png" for i in range(80)]
    for done, _ in enumerate(image_writer.write(tmp_path, names, 4, rows, shape, threads), 1):
        assert computed <= done + 3
    assert (computed, done) == (20, 20)


@pytest.mark.parametrize("left", [b"", bytes(300), "half"])
def test_what_a_power_cut_left_of_an_image_is_made_again(toy_generator, tmp_path, left):
    """Names reach the disk before bytes do: an image is empty, zeros, or cut."""
    z = latents(20)
    for ending in ("png", "jpg", "webp", "npy"):
        names = [f"{ending}/{i:06d}.{ending}" for i in range(20)]
        calls = []

        def rows(places, calls=calls):
            calls.append(places.start)
            return batches.arrays(toy_generator, z[places], 1.0, 5)

        written = list(image_writer.write(tmp_path, names, 5, rows, SMALL))
        path = tmp_path / names[7]
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if left == "half" else left)
        calls.clear()
        assert list(image_writer.write(tmp_path, names, 5, rows, SMALL)) == written
        assert calls == [5]
        assert path.read_bytes() == whole


def test_what_was_begun_is_finished_when_the_caller_stops(toy_generator, tmp_path):
    z = latents(40)
    names = [f"images/{i:06d}.png" for i in range(40)]
    steps = image_writer.write(
        tmp_path, names, 8, lambda places: batches.arrays(toy_generator, z[places], 1.0, 8), LARGE
    )
    hashes = next(steps)
    steps.close()
    there = {p.name for p in (tmp_path / "images").iterdir()}
    assert {Path(name).name for name in hashes} <= there
    assert len(there) < 40
    for name in there:  # whole ones only, and no temporary
        assert pictures.is_whole((tmp_path / "images" / name).read_bytes())


@pytest.mark.parametrize("shape", [SMALL, LARGE])
def test_a_writer_that_fails_ends_the_work(tmp_path, shape):
    """A folder is in the way of an image: the first failure is the result, and later batches are not begun."""
    (tmp_path / "images" / "000004.png").mkdir(parents=True)
    (tmp_path / "images" / "000004.png" / "x").write_text("x")
    computed = []

    def rows(places):
        computed.append(places.start)
        return np.zeros((places.stop - places.start, 3, 4, 4), np.float32)

    names = [f"images/{i:06d}.png" for i in range(1, 80)]
    with pytest.raises(MagnetError, match=r"cannot write .*000004\.png"):
        list(image_writer.write(tmp_path, names, 2, rows, shape, threads=2))
    assert len(computed) < 10
    assert (tmp_path / "images" / "000001.png").is_file()
