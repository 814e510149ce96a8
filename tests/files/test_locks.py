"""files.locks: one process at a time, and whoever is killed lets go."""

import subprocess
import sys

from magnet_cli.files.locks import Locks


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
