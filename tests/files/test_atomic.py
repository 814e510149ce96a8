"""files: what appears, appears whole; what was changed, is noticed; what the disk refuses, is said in words."""

import concurrent.futures
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from magnet_cli.errors import MagnetError
from magnet_cli.files import atomic
from magnet_cli.files.locks import Locks

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
        "from pathlib import Path\nfrom magnet_cli.files import atomic as files\n"
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
        ("files.sha256_file(Path('secret'))", "cannot read secret"),
        ("files.read_document(Path('secret'))", "cannot read secret"),
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
        (atomic.read_document, "file/inside", "a part of the path is a file, not a folder"),
        (atomic.make_folder, "file", "a file of that name is in the way"),
        (lambda p: atomic.publish(p, b"x"), "folder", "a folder of that name is in the way"),
        (atomic.sha256_file, "folder", "a folder of that name is in the way"),
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
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="Too many levels"):
        atomic.publish(tmp_path / "loop" / "file", b"x")


# locks


def test_a_lock_is_had_by_one_process_and_freed_when_it_is_killed(tmp_path):
    path = tmp_path / "locks"
    code = (
        "import sys, time; from pathlib import Path; from magnet_cli.files.locks import Locks\n"
        "locks = Locks(Path(sys.argv[1])); print(locks.take(3), locks.take(5), flush=True); locks.free(5)\n"
        "print('freed', flush=True); time.sleep(600)"
    )
    locks = Locks(path)
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "True True\n"
        assert other.stdout.readline() == "freed\n"
        assert [locks.take(n) for n in (2, 3, 5)] == [True, False, True]
        other.kill()
    with locks.held(3):  # waits until the system has freed it
        assert locks.take(3)


def test_where_there_are_no_locks_all_are_granted(tmp_path):
    locks = Locks(tmp_path / "no such folder" / "locks")
    assert locks.take(3)
    assert locks.take(3, wait=True)
    with locks.held(3):
        locks.free(3)


# documents

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.dictionaries(st.text().filter(lambda key: key != "checksum"), JSON_VALUES, max_size=4)


@settings(deadline=None, max_examples=50)
@given(FIELDS)
def test_a_document_gives_its_fields_back(fields):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "doc.json"
        path.write_bytes(atomic.document(fields))
        assert atomic.read_document(path) == fields
        assert atomic.document(atomic.read_document(path)) == path.read_bytes()


@settings(deadline=None, max_examples=100)
@given(FIELDS, st.integers(min_value=0), st.integers(1, 255))
@example({"a": 1e300}, atomic.document({"a": 1e300}).index(b"300"), ord("3") ^ ord("9"))  # reads as infinity
@example({"a": 1}, 0, ord("{"))  # a null byte in front reads as UTF-16
@example({"a": "é"}, atomic.document({"a": "é"}).index("é".encode()), 0x40)  # no UTF-8 any more
def test_any_changed_byte_in_a_document_is_noticed(fields, position, mask):
    data = bytearray(atomic.document(fields))
    data[position % len(data)] ^= mask
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "doc.json"
        path.write_bytes(data)
        with pytest.raises(MagnetError) as caught:
            atomic.read_document(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d[:-1], "was changed"),
        (lambda d: d + b" ", "was changed"),
        (lambda d: d[: len(d) // 2], "is not JSON"),
        (lambda _: b"", "is not JSON"),
        (lambda _: b"[1, 2]", "without a checksum"),
        (lambda _: b'{"a": 1}', "without a checksum"),
        (lambda d: d.replace(b'"a": 1', b'"a": 1,\n  "a": 1'), "was changed"),
        (lambda d: d.replace(b'"a": 1', b'"a": NaN'), "was changed"),
        (lambda d: d.replace(b'"a": 1', b'"a": "\\ud800"'), "was changed"),
    ],
)
def test_what_is_no_document_is_said_to_be_none(tmp_path, change, said):
    path = tmp_path / "doc.json"
    path.write_bytes(change(atomic.document({"a": 1, "b": [2.5, "x"]})))
    with pytest.raises(MagnetError, match=said):
        atomic.read_document(path)


def test_canonical_bytes_do_not_depend_on_the_order_of_keys():
    assert atomic.canonical({"b": {"y": 1, "x": "é"}, "a": 0.1}) == '{"a":0.1,"b":{"x":"é","y":1}}'.encode()
    with pytest.raises(ValueError, match="JSON"):
        atomic.canonical({"a": float("nan")})


# folders


def test_the_hash_of_a_folder_is_what_the_shell_prints(tmp_path):
    names = ["b", "B", "a.b", "a/b", "a-b", "a/.hidden", "é/ü", "z/y/x/w", ".part", "10", "9"]
    for i, name in enumerate(names):
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / name).write_bytes(name.encode() * i)
    line = "find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum"
    assert line.rpartition(" | ")[0] in atomic.sha256_folder.__doc__
    printed = subprocess.run(["sh", "-c", line], cwd=tmp_path / "f", capture_output=True, text=True, check=True).stdout
    sha256, size = atomic.sha256_folder(tmp_path / "f")
    assert sha256 == printed.split()[0]
    assert size == sum(len(name.encode()) * i for i, name in enumerate(names))


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
