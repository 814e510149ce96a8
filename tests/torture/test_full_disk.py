"""A full disk, a limit on the size of files: exit 1, what was safe stays safe, and the same command goes on."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def process(*args, **changes):
    command = [sys.executable, "-m", "magnet_cli", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | changes)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 200 KB, where this user may mount one; elsewhere the test is skipped, in CI never."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        assert not os.environ.get("CI"), mounted.stderr
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", place], check=True)


def test_no_space(toy, small_disk, tmp_path):
    """Real processes on a real full disk: exit 1, stdout empty, and what was safe before is safe after."""
    volume = small_disk / "v"
    done = process("compute", toy, "--n", "20000", "--shard-rows", "500", "--volume", volume)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no space is left on the device" in done.stderr
    assert "  do: free some space" in done.stderr
    assert not list(small_disk.rglob("*.part"))
    assert re.search(r"\([\d,]+ bytes are needed, [\d,]+ are free\)", done.stderr)
    assert "warning: the missing rows take about 800,000 bytes, and" in done.stderr
    process("compute", toy, "--n", "200")
    done = process("sample", toy, "--n", "100", "--out", small_disk / "s")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no space is left" in done.stderr
    shutil.rmtree(small_disk / "s", ignore_errors=True)
    before = {path: path.read_bytes() for path in volume.glob("shards/*.h5")}
    assert before
    subprocess.run(["mount", "-o", "remount,size=2m", small_disk], check=True)
    done = process("compute", toy, "--n", "20000", "--shard-rows", "500", "--volume", volume, "--json")
    assert json.loads(done.stdout)["rows"] == 20000
    assert 0 < json.loads(done.stdout)["new_rows"] < 20000
    assert {path: path.read_bytes() for path in before} == before


def test_a_limit_on_the_size_of_files(magnet, toy):
    """Elsewhere than on a full disk: a shard that its process may not write. The same command goes on without it."""
    code = (
        "import os, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'magnet_cli', *sys.argv[1:]])\n"
    )
    command = ["compute", str(toy), "--shard-rows", "100", "--volume", "v"]
    magnet(*command, "--n", 30)  # a shard of less than 8,000 bytes
    first = Path("v/shards/shard-000000.h5").read_bytes()
    limited = [sys.executable, "-c", code, *command, "--n", "300"]
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the file would pass the size limit set for it" in done.stderr
    assert re.search(r"\([\d,]+ bytes are needed, [\d,]+ are free\)", done.stderr)
    assert "Traceback" not in done.stderr
    assert Path("v/shards/shard-000000.h5").read_bytes() == first
    assert not list(Path("v").rglob("*.part"))
    assert magnet(*command, "--n", 300, "--json").json["rows"] == 300
