"""workers, parts and Ray: the same rows as one process makes, whatever dies on the way."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from toys import toy_weights

from magnet_cli import computing, models
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.computing import processes as processes_
from magnet_cli.computing.memory import BatchPlan
from magnet_cli.errors import GeneratorError, MagnetError
from magnet_cli.volume import Volume

ROWS, SHARD_ROWS = 203, 8  # the last shard is short
SHARDS = -(-ROWS // SHARD_ROWS)
ONE_THREAD = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A checkpoint whose rows take some milliseconds each."""
    path = tmp_path_factory.mktemp("weights") / "slow.safetensors"
    save_file(toy_weights(latent_dim=24, widths=(48, 48, 24)), path)
    return path


@pytest.fixture(scope="module")
def alone(weights, tmp_path_factory):
    """The volume that one process makes with one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    generator = models.load(Checkpoint.find(str(weights)))
    spec = computing.volume_spec(generator, rows_per_shard=SHARD_ROWS)
    volume = Volume.create(tmp_path_factory.mktemp("alone") / "v", spec)
    list(computing.fill(volume, generator, ROWS, BatchPlan(8)))
    torch.set_num_threads(before)
    return volume


def start(weights, *more, **options):
    command = [sys.executable, "-m", "magnet_cli", "compute", weights, "--n", ROWS, "--shard-rows", SHARD_ROWS]
    command += ["--batch-size", 8, "--volume", "v", "--json", *more]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([str(a) for a in command], env=os.environ | ONE_THREAD, **pipes, **options)


def finish(process):
    """Its result and what it said; it ended well."""
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    return json.loads(out), err


def wait_for(condition, process=None):
    deadline = time.monotonic() + 400
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def num_shards():
    return len(list(Path("v").glob("shards/shard-*.json")))


def descendants(pid):
    """Process ids of the workers of a process: what multiprocessing spawned, its tracker apart."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(c) for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]


def running(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def same(volume, other):
    """Every byte of every dataset."""
    assert volume.shards() == other.shards()
    assert volume.check() == []
    for shard in volume.shards():
        found, known = volume.read(shard), other.read(shard)
        assert found.latents.tobytes() == known.latents.tobytes()
        assert found.singular_values.tobytes() == known.singular_values.tobytes()


def test_four_workers_make_the_volume_of_one_though_one_of_them_is_killed(weights, alone):
    process = start(weights, "--workers", 4)
    wait_for(lambda: num_shards() >= 2, process)
    os.kill(descendants(process.pid)[0], signal.SIGKILL)
    fields, err = finish(process)
    assert (fields["rows"], fields["shards"]) == (ROWS, SHARDS)
    assert fields["new_rows"] in {ROWS, ROWS - SHARD_ROWS}  # it may have published a shard, and not said so any more
    assert "warning: a worker on cpu ended by SIGKILL at shard" in err
    assert "another one tries it again" in err
    same(Volume.open(Path("v")), alone)


def test_parts_make_the_volume_of_one(weights, alone):
    """Two at once, as a job array starts them; neither touches the other's shards."""
    parts = [start(weights, "--part", f"{part}/2") for part in (1, 2)]
    for first, part in enumerate(parts):
        fields, _ = finish(part)
        assert fields["new_rows"] == sum(alone.mark(s).rows for s in range(first, SHARDS, 2))
    same(Volume.open(Path("v")), alone)


def test_other_threads_and_batches_change_nothing_but_rounding(weights, alone, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    generator = models.load(Checkpoint.find(str(weights)))
    volume = Volume.create(tmp_path / "other", alone.spec)
    list(computing.fill(volume, generator, 40, BatchPlan(5)))
    torch.set_num_threads(before)
    for shard in volume.shards():
        found, known = volume.read(shard), alone.read(shard)
        assert found.latents.tobytes() == known.latents.tobytes()
        strong = known.singular_values >= 1e-3 * known.singular_values[:, :1]
        assert strong.mean() > 0.9
        np.testing.assert_allclose(found.singular_values[strong], known.singular_values[strong], rtol=1e-5)


def test_two_people_with_one_command_share_the_work(weights, alone):
    """Each shard is made by one of them; both say so, and neither touches what the other published."""
    people = [start(weights) for _ in range(2)]
    wait_for(lambda: num_shards() >= 1)
    name = min(Path("v").glob("shards/*.json")).with_suffix(".h5")
    early = name.stat()
    fields = [finish(process)[0] for process in people]
    assert [f["rows"] for f in fields] == [ROWS, ROWS]
    assert sum(f["new_rows"] for f in fields) == ROWS
    late = name.stat()
    assert (late.st_ino, late.st_mtime_ns) == (early.st_ino, early.st_mtime_ns)
    same(Volume.open(Path("v")), alone)


def test_what_another_process_is_at_comes_last(weights, alone, tmp_path):
    """A real process says that it computes shards 0 and 2, and never does: it is waited for no longer than it costs."""
    volume = Volume.create(tmp_path / "v", alone.spec)
    code = (
        "import sys, time; from pathlib import Path; from magnet_cli.volume.store import Volume\n"
        "volume = Volume.open(Path(sys.argv[1]))\n"
        "print(volume.claim(0), volume.claim(2), flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, volume.path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "True True\n"
        assert not volume.claim(0)
        generator = models.load(Checkpoint.find(str(weights)))
        done = list(computing.fill(volume, generator, 32, BatchPlan(8)))
        other.kill()
    assert done == [(1, 8), (3, 8), (0, 8), (2, 8)]
    wait_for(lambda: volume.claim(0))


# --- workers that die, parents that are stopped -------------------------------------------------------------------


def fill(checkpoint, output="pixel"):
    """In one worker of this process: what came, and the warnings."""
    reference = Checkpoint.find(str(checkpoint))
    generator, model = computing.load(reference, output, "cpu", "float32")
    volume = Volume.create(
        Path("v"), computing.volume_spec(generator, output=model or "pixel", rows_per_shard=SHARD_ROWS)
    )
    job = processes_.Job(volume.path, reference, output, "cpu", 1, BatchPlan(8))
    warnings = []
    return processes_.fill(volume, [job], ROWS, (1, 1), warnings.append), warnings


def test_a_shard_that_stops_two_workers_ends_the_run(weights, tmp_path):
    """An image model of the user's that ends the process it runs in, where that is a worker."""
    (tmp_path / "fatal.py").write_text(
        "import multiprocessing, os, torch\n"
        "class Fatal(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        if multiprocessing.parent_process(): os._exit(7)\n"
        "        return x.flatten(1)\n"
        "make = Fatal\n"
    )
    steps, warnings = fill(weights, f"{tmp_path / 'fatal.py'}:make")
    with pytest.raises(MagnetError, match=r"at shard 0 .*, as one did before it") as caught:
        next(steps)
    assert "ended with exit code 7" in caught.value.message
    assert "fewer `workers`" in caught.value.hint
    assert len(warnings) == 1
    assert not multiprocessing.active_children()


def test_a_failure_in_a_worker_is_that_of_the_command(tmp_path):
    state = toy_weights()
    state["main.0.weight"] = state["main.0.weight"] * 2.5e38  # overflows float32 at a latent here and there
    state["main.3.weight"] = state["main.3.weight"] * 1e-38
    save_file(state, tmp_path / "broken.safetensors")
    steps, warnings = fill(tmp_path / "broken.safetensors")
    with pytest.raises(GeneratorError, match="the Jacobian of broken is not finite at shard") as caught:
        list(steps)
    assert '`precision="float64"`' in caught.value.hint
    assert warnings == []
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_workers_stop_with_their_parent(weights, number, code):
    """Ctrl-C goes to the whole group, as a terminal sends it; SIGTERM to the parent alone."""
    process = start(weights, "--workers", 2, start_new_session=True)
    wait_for(lambda: num_shards() >= 1, process)
    crew = descendants(process.pid)
    assert len(crew) == 2
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    out, err = process.communicate(timeout=400)
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in err
    assert f"of {ROWS} rows are safe in v; the same command goes on from there" in err
    assert not any(map(running, crew))
    assert not [p for p in Volume.open(Path("v")).check() if "no commit mark" not in p]


def test_killed_again_and_again_the_volume_is_that_of_an_unbroken_run(weights, alone):
    """benchmarks/torture.py does this 200 times, at more kinds of moments."""
    for delay, more in ((0.02, ()), (0.05, ("--workers", 2))):
        before, process = num_shards(), start(weights, *more)
        wait_for(lambda before=before: num_shards() > before, process)
        time.sleep(delay)
        crew = descendants(process.pid)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert len(crew) == (2 if more else 0)
        wait_for(lambda crew=crew: not any(map(running, crew)))
    finish(start(weights))
    same(Volume.open(Path("v")), alone)


# --- Ray ------------------------------------------------------------------------------------------------------------


def ray_processes():
    """Ray's processes that fill shards of this test, by its MAGNET_HOME."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            ours = f"MAGNET_HOME={os.environ['MAGNET_HOME']}\0".encode() in (place / "environ").read_bytes()
            if ours and (place / "cmdline").read_bytes().startswith(b"ray::_fill"):
                found.append(int(place.name))
        except OSError:  # it ended
            continue
    return found


def test_ray_makes_the_volume_of_one_though_a_process_is_killed(weights, alone):
    process = start(weights, "--engine", "ray")
    wait_for(lambda: num_shards() >= 2 and len(ray_processes()) >= min(2, os.cpu_count()), process)
    os.kill(ray_processes()[0], signal.SIGKILL)
    fields, err = finish(process)
    assert fields["rows"] == ROWS
    assert fields["new_rows"] in {ROWS, ROWS - SHARD_ROWS}  # as with workers
    assert "Traceback" not in err
    same(Volume.open(Path("v")), alone)


def test_ray_stops_with_its_driver(weights):
    process = start(weights, "--engine", "ray")
    wait_for(lambda: num_shards() >= 1, process)
    process.terminate()
    out, err = process.communicate(timeout=400)
    assert (process.returncode, out) == (143, "")
    assert "rows are safe in v" in err
    wait_for(lambda: not ray_processes())
