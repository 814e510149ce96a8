"""files.atomic: what appears, appears whole; what the disk refuses is explained."""

import concurrent.futures
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from magnet_cli.errors import MagnetError
from magnet_cli.files import atomic, documents

NOBODY = 65534


@pytest.fixture
def tiny_disk(tmp_path):
    """A real disk of 64 KiB."""
    place = tmp_path / "tiny"
    place.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no `mount` here to make a small disk with")
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "magnet-test", place]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"mounting a small disk is not permitted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def run_child(body, cwd, *, lose_privileges=False):
    """Run Python in a process of its own and return its stdout; as nobody where this one is root and that matters."""
    drop = f"import os\nif os.geteuid() == 0: os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
    start = (
        "from pathlib import Path\nfrom magnet_cli.files import atomic as files, documents\n"
        "from magnet_cli.errors import MagnetError\n"
    )
    end = "\nexcept MagnetError as error:\n    print(error.message, error.hint, sep='\\n')"
    code = start + drop * lose_privileges + "try:\n    " + body + end
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# publish


@pytest.fixture(params=["without names", "with names"])
def temporaries(request, monkeypatch):
    """Files that are not there yet: without a name, and as where the system has none such."""
    if request.param == "with names":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)


@pytest.mark.usefixtures("temporaries")
@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("replace", [True, False])
def test_a_new_file_appears_with_its_bytes_and_nothing_beside_it(tmp_path, replace, durable):
    path = tmp_path / "one" / "file.bin"
    atomic.make_folder(path.parent)
    assert atomic.publish(path, b"\x00whole\xff", replace=replace, durable=durable)
    assert path.read_bytes() == b"\x00whole\xff"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.usefixtures("temporaries")
def test_replace_takes_the_name_over_and_without_it_the_first_file_stays(tmp_path):
    path = tmp_path / "one" / "file.bin"
    atomic.make_folder(path.parent)
    assert atomic.publish(path, b"first")
    assert atomic.publish(path, b"second", replace=False) is False
    assert path.read_bytes() == b"first"
    assert atomic.publish(path, b"third")
    assert path.read_bytes() == b"third"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.usefixtures("temporaries")
def test_of_many_who_publish_without_replace_exactly_one_does(tmp_path):
    path = tmp_path / "one" / "file.bin"
    atomic.make_folder(path.parent)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        published = list(pool.map(lambda i: atomic.publish(path, bytes([i]) * 9, replace=False), range(32)))
    assert published.count(True) == 1
    assert path.read_bytes() == bytes([published.index(True)]) * 9
    assert list(path.parent.iterdir()) == [path]


def test_of_a_writer_that_is_killed_before_the_name_is_given_nothing_stays(tmp_path):
    if not hasattr(os, "O_TMPFILE"):
        pytest.skip("this system has no files without names")
    code = (
        "import os, signal, sys; from pathlib import Path; from magnet_cli.files import atomic as files\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.publish(Path(sys.argv[1]), bytes(100_000))"
    )
    path = tmp_path / "one" / "file.bin"
    atomic.make_folder(path.parent)
    writer = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert writer.returncode == -signal.SIGKILL
    assert list(path.parent.iterdir()) == []


def test_a_file_is_whole_while_it_is_replaced_and_after_its_writer_is_killed(tmp_path):
    path = tmp_path / "one" / "file.bin"
    atomic.make_folder(path.parent)
    size = 1 << 21
    code = (
        "import itertools, sys; from pathlib import Path; from magnet_cli.files import atomic as files\n"
        f"for i in itertools.count(): files.publish(Path(sys.argv[1]), bytes([i % 251]) * {size}, durable=False)"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)])
    try:
        seen, limit = set(), time.monotonic() + 30
        while len(seen) < 20 and time.monotonic() < limit:
            if path.exists():
                data = path.read_bytes()
                assert data == data[:1] * size
                seen.add(data[0])
    finally:
        writer.kill()
        writer.wait()
    assert len(seen) == 20
    assert path.read_bytes() == path.read_bytes()[:1] * size
    assert all(p == path or (p.name.startswith(".") and p.name.endswith(".part")) for p in path.parent.iterdir())


@pytest.mark.usefixtures("temporaries")
def test_bytes_are_on_the_disk_before_the_name_is_and_the_name_after(tmp_path, monkeypatch):
    path = tmp_path / "file.bin"
    synced, real = [], os.fsync

    def spy(descriptor):
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), os.fstat(descriptor).st_size, path.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    atomic.publish(path, b"bytes")
    (file, folder) = synced
    assert file == (False, 5, False)
    assert (folder[0], folder[2]) == (True, True)
    synced.clear()
    atomic.publish(path, b"again", durable=False)
    assert synced == []


def test_folders_without_fsync_are_no_failure():
    if not Path("/proc/self").is_dir():
        pytest.skip("there is no /proc here, whose folders have no fsync")
    descriptor = os.open("/proc/self", os.O_RDONLY)
    with pytest.raises(OSError, match="Invalid argument"):
        os.fsync(descriptor)
    os.close(descriptor)
    atomic.sync_folder(Path("/proc/self"))


# failures of the disk


@pytest.mark.usefixtures("temporaries")
@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("size", [200_000, 100])  # more than the disk; less than a buffer
def test_a_full_disk_is_named_and_nothing_is_left_behind(tiny_disk, size, durable):
    kept = tiny_disk / "kept.bin"
    atomic.publish(kept, b"old")
    if size == 100:
        ballast = tiny_disk / "ballast"
        with pytest.raises(OSError, match="No space left"):
            ballast.write_bytes(bytes(100_000))
    before = sorted(tiny_disk.iterdir())
    with pytest.raises(MagnetError, match=r"cannot write .*kept\.bin: no space is left on the device") as caught:
        atomic.publish(kept, bytes(size), durable=durable)
    assert "free some space" in caught.value.hint
    assert "MAGNET_HOME" in caught.value.hint
    assert sorted(tiny_disk.iterdir()) == before
    assert kept.read_bytes() == b"old"


def test_plain_writes_inside_explained_are_explained():
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    path = Path("/dev/full")
    with (
        pytest.raises(MagnetError, match="cannot write /dev/full: no space is left on the device"),
        atomic.explained("write", path),
        path.open("wb") as file,
    ):
        file.write(b"x")


def test_a_size_limit_is_named_and_nothing_is_left_behind(tmp_path):
    body = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "
    body += "files.publish(Path('file.bin'), bytes(5000))"
    (tmp_path / "one").mkdir()
    message, hint = run_child(body, tmp_path / "one").splitlines()
    assert message.startswith(
        "cannot write file.bin: the file would pass the size limit set for it (5,000 bytes are needed, "
    )
    assert message.endswith(" are free)")
    assert hint.startswith("raise the limit")
    assert list((tmp_path / "one").iterdir()) == []


@pytest.mark.parametrize(
    ("body", "failed"),
    [
        ("files.publish(Path('closed/file.bin'), b'x')", "cannot write closed/file.bin"),
        ("files.make_folder(Path('closed/deeper/still'))", "cannot create closed/deeper/still"),
        ("documents.sha256_file(Path('secret'))", "cannot read secret"),
        ("documents.read(Path('secret'))", "cannot read secret"),
    ],
)
def test_missing_permission_is_named(tmp_path, body, failed):
    (tmp_path / "closed").mkdir(mode=0o555)
    (tmp_path / "secret").write_bytes(b"{}")
    (tmp_path / "secret").chmod(0 if os.geteuid() else 0o600)
    message, hint = run_child(body, tmp_path, lose_privileges=True).splitlines()
    assert message == f"{failed}: permission is denied"
    assert hint.startswith("choose a place you may write to")
    assert list((tmp_path / "closed").iterdir()) == []


@pytest.mark.parametrize(
    ("act", "name", "reason"),
    [
        (lambda p: atomic.publish(p, b"x"), "file/inside", "a part of the path is a file, not a folder"),
        (atomic.make_folder, "file/inside", "a part of the path is a file, not a folder"),
        (documents.read, "file/inside", "a part of the path is a file, not a folder"),
        (atomic.make_folder, "file", "a file of that name is in the way"),
        (lambda p: atomic.publish(p, b"x"), "folder", "a folder of that name is in the way"),
        (documents.sha256_file, "folder", "a folder of that name is in the way"),
        (lambda p: atomic.publish(p, b"x"), "n" * 256, "the name is too long for the file system"),
    ],
)
def test_what_is_in_the_way_is_named_and_nothing_is_left_behind(tmp_path, act, name, reason):
    (tmp_path / "file").write_bytes(b"kept")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(MagnetError) as caught:
        act(tmp_path / name)
    assert reason in caught.value.message
    assert str(tmp_path / name) in caught.value.message
    assert caught.value.hint
    assert isinstance(caught.value.__cause__, OSError)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_bytes() == b"kept"


def test_a_folder_that_went_away_is_named(tmp_path):
    with pytest.raises(MagnetError, match="it, or a folder on the way, is not there") as caught:
        atomic.publish(tmp_path / "no such folder" / "file", b"x")
    assert "mount" in caught.value.hint


def test_failures_without_a_remedy_pass_through(tmp_path):
    with (
        pytest.raises(OSError, match="Invalid argument"),
        (tmp_path / "file").open("wb") as file,
        atomic.explained("write", tmp_path / "file"),
    ):
        os.lseek(file.fileno(), -1, os.SEEK_SET)


# folders


def test_sweep_removes_temporaries_of_over_an_hour_and_nothing_else(tmp_path):
    old, young = time.time() - 3700, time.time() - 3000
    part = atomic.temporary(tmp_path / "file.bin")
    assert part.parent == tmp_path
    assert part != atomic.temporary(tmp_path / "file.bin")
    ages = {part.name: old, ".young.part": young, "visible.part": old, ".hidden": old, "file.bin": old}
    for name in ages:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".folder.part" / "in").mkdir(parents=True)
    for name, age in (ages | {".folder.part": old}).items():
        os.utime(tmp_path / name, (age, age))
    before = {p.name for p in tmp_path.iterdir()}
    atomic.sweep(tmp_path)
    assert before - {p.name for p in tmp_path.iterdir()} == {part.name, ".folder.part"}
    atomic.sweep(tmp_path / "no such folder")
