"""The command line: streams, exit codes, errors in three parts, and that nothing heavy is loaded for nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from toys import toy_weights


def process(*args, **changes):
    command = [sys.executable, "-m", "magnet_cli", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | changes)


def snapshot(folder):
    return {p: p.stat().st_mtime_ns for p in Path(folder).rglob("*")}


# --- answers at once ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [["--help"], ["compute", "--help"], ["sample", "--n", "0"], ["nonsense"]])
def test_help_and_usage_errors_load_nothing_heavy(args):
    code = (
        "import sys\n"
        "from magnet_cli.cli.app import app\n"
        "try: app(sys.argv[1:], prog_name='magnet')\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'h5py', 'huggingface_hub', 'numpy', 'rich'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "heavy: []"


def test_version(magnet):
    from magnet_cli import __version__

    assert magnet("--version").out == f"magnet {__version__}\n"


# --- the way through ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_from_checkpoint_to_images(magnet, toy, home):
    computed = magnet("compute", toy, "--n", 300, "--json")
    assert computed.code == 0
    fields = computed.json
    keys = {
        "volume",
        "generator",
        "fingerprint",
        "rows",
        "new_rows",
        "shards",
        "top_k",
        "solver",
        "precision",
        "seconds",
    }
    assert keys | {"tuning_seconds", "rows_per_second"} <= fields.keys()
    assert (fields["rows"], fields["new_rows"], fields["top_k"], fields["solver"]) == (300, 300, 5, "exact")
    assert Path(fields["volume"]).parent == home / "volumes"
    assert fields["rows_per_second"] > 0

    again = magnet("compute", toy, "--n", 300, "--json").json
    assert (again["rows"], again["new_rows"], again["rows_per_second"]) == (300, 0, None)
    longer = magnet("compute", toy, "--n", 350, "--json").json
    assert (longer["rows"], longer["new_rows"], longer["volume"]) == (350, 50, fields["volume"])

    indexed = magnet("index", toy, "--json").json
    assert {"index", "volume", "rows", "top_k", "log_volume", "effective_size"} <= indexed.keys()
    assert {"mean", "std", "min", "max"} == indexed["log_volume"].keys()
    assert indexed["effective_size"]["0"] == 350
    assert 1 <= indexed["effective_size"]["1"] < 350
    assert {"-1", "0", "1"} <= indexed["effective_size"].keys()

    drawn = magnet("sample", toy, "--n", 20, "--rho", 0.5, "--json")
    keys = {"sample", "n", "images", "rho", "top_k", "replace", "pool", "unique_rows", "effective_size"}
    assert keys | {"displaced_share", "seconds"} <= drawn.json.keys()
    assert drawn.json["sample"] == "samples/toy-rho0.5-n20-seed0"
    assert drawn.json["pool"] == 350
    assert "effective size" in drawn.err
    assert "displaced share" in drawn.err
    folder = Path(drawn.json["sample"])
    assert len(list(folder.glob("images/*.png"))) == 20
    assert json.loads((folder / "sample.json").read_text())["command"][0] == "magnet"

    before = snapshot(folder)
    assert magnet("sample", toy, "--n", 20, "--rho", 0.5, "--json").out == drawn.out
    assert snapshot(folder) == before


def test_a_path_is_all_that_stdout_gets(magnet, toy):
    for args in (["compute", toy, "--n", 70], ["index", toy], ["sample", toy, "--n", 9]):
        done = magnet(*args)
        assert done.code == 0
        assert done.out.count("\n") == 1
        assert Path(done.out.strip()).exists()
        assert "next: magnet" in done.err
        assert magnet(*args, "--quiet").out == done.out


def test_quiet_keeps_warnings_and_drops_the_rest(magnet, toy):
    magnet("compute", toy, "--n", 70)
    done = magnet("sample", toy, "--n", 60, "--rho", 3, "--quiet")
    assert all(line.startswith("warning: ") for line in done.err.splitlines())
    assert "selection" in done.err


@pytest.mark.slow
def test_a_pipe_gets_json_and_no_bar(toy):
    done = process("compute", toy, "--n", 70, "--json")
    assert json.loads(done.stdout)["rows"] == 70
    assert "\x1b" not in done.stdout + done.stderr


def test_dry_runs_write_nothing(magnet, toy, home, tmp_path):
    planned = magnet("compute", toy, "--n", 70, "--dry-run", "--json").json
    assert (planned["rows"], planned["missing_shards"]) == (0, 1)
    assert not home.exists()
    magnet("compute", toy, "--n", 70)
    assert magnet("sample", toy, "--n", 7, "--dry-run").code == 0
    assert not (tmp_path / "work" / "samples").exists()


def test_the_users_longest_volume_is_drawn_from_and_named(magnet, toy):
    magnet("compute", toy, "--n", 50)
    other = magnet("compute", toy, "--n", 90, "--seed", 1, "--json").json
    magnet("compute", toy, "--n", 200, "--truncation", 0.5)
    drawn = magnet("sample", toy, "--n", 5, "--json")
    assert drawn.json["pool"] == 90
    assert other["volume"] in drawn.err


def test_truncation_draws_from_its_own_volume_or_warns(magnet, toy):
    magnet("compute", toy, "--n", 50)
    lent = magnet("sample", toy, "--n", 5, "--truncation", 0.5, "--out", "lent")
    assert "warning: rows are drawn by their volume at truncation 1" in lent.err
    assert json.loads(Path("lent/sample.json").read_text())["volume_truncation"] == 1.0
    magnet("compute", toy, "--n", 60, "--truncation", 0.5)
    own = magnet("sample", toy, "--n", 5, "--truncation", 0.5, "--out", "own", "--json")
    assert own.json["pool"] == 60
    assert "rendered at" not in own.err
    assert "volume_truncation" not in json.loads(Path("own/sample.json").read_text())


def test_info_tells_what_things_are(magnet, toy):
    volume = magnet("compute", toy, "--n", 30, "--json").json["volume"]
    index = magnet("index", toy, "--json").json["index"]
    sample = magnet("sample", toy, "--n", 5, "--json").json["sample"]
    for path, kind in ((volume, "volume"), (index, "index"), (sample, "sample"), (toy, "checkpoint")):
        done = magnet("info", path, "--check", "--json").json
        assert (done["kind"], done["ok"], done["problems"]) == (kind, True, [])
        assert done["path"] == str(path)
    found = magnet("info", toy, "--json").json
    assert (found["family"], found["latent_dim"], found["image_shape"]) == ("dcgan", 5, [1, 8, 8])
    assert (found["prior"], found["num_classes"]) == ("normal", 0)
    shard = next(Path(volume).glob("shards/*.h5"))
    shard.write_bytes(shard.read_bytes()[:100])
    done = magnet("info", volume, "--check", "--json")
    assert done.code == 1
    assert "rows 0-29" in done.json["problems"][0]


def test_replace_and_force(magnet, toy):
    magnet("compute", toy, "--n", 30)
    assert magnet("sample", toy, "--n", 100, "--replace", "--out", "s", "--json").json["n"] == 100
    assert magnet("sample", toy, "--n", 8, "--out", "s").code == 1
    assert magnet("sample", toy, "--n", 8, "--out", "s", "--force").code == 0
    assert len(list(Path("s/images").iterdir())) == 8
    assert np.load("s/latents.npy").shape == (8, 5)


@pytest.mark.slow
def test_a_terminal_gets_a_bar(toy):
    """stderr is a pseudo-terminal: the bar is there, and stdout is still the result alone."""
    main, terminal = os.openpty()
    command = [sys.executable, "-m", "magnet_cli", "compute", str(toy), "--n", "300", "--shard-rows", "50"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, text=True) as running:
        os.close(terminal)
        out = running.stdout.read()
    shown = b""
    try:
        while piece := os.read(main, 4096):
            shown += piece
    except OSError:  # Linux reports the closed end so
        pass
    os.close(main)
    assert "computing toy" in shown.decode()
    assert "300" in shown.decode()
    assert Path(out.strip()).is_dir()


# --- every way in that is wrong -----------------------------------------------------------------------------------


def check_failure(done, code, *parts):
    assert done.code == code, done.err
    assert done.out == ""
    for part in parts:
        assert part in done.err


@pytest.mark.parametrize(
    "args",
    [
        ["sample", "--n", "0"],
        ["sample", "--n", "-3"],
        ["sample", "--rho", "nan"],
        ["sample", "--rho", "many"],
        ["sample", "--truncation", "0"],
        ["sample", "--truncation", "1.5"],
        ["sample", "--colour", "red"],
        ["compute", "--n", "0"],
        ["compute", "--top-k", "0"],
        ["compute", "--precision", "float8"],
        ["compute", "--device", "abacus"],
        ["compute", "--batch-size", "0"],
        ["compute", "--shard-rows", "0"],
        ["compute", "--seed", "-1"],
        ["compute", "--workers", "0"],
        ["compute", "--part", "0/2"],
        ["compute", "--part", "3/2"],
        ["compute", "--part", "2"],
        ["compute", "--part", "1/0"],
        ["compute", "--device", "cuda:0,cpu"],
        ["compute", "--device", "cuda:0,cuda:0"],
        ["compute", "--device", "cuda:0,cuda:1", "--workers", "1"],
        ["compute", "--engine", "spark"],
        ["compute", "--engine", "ray", "--workers", "2"],
        ["compute", "--address", "auto"],
        ["index", "--top-k", "0"],
        ["fetch"],
        ["nonsense"],
    ],
)
def test_usage_errors_exit_2(magnet, home, args):
    check_failure(magnet(*args), 2)
    assert not home.exists()


def test_unknown_generator_gets_the_nearest_names(magnet):
    check_failure(magnet("compute", "dcgan-digface"), 1, "no artifact is called 'dcgan-digface'", "dcgan-digiface")
    check_failure(magnet("info", "dcgan-digface"), 1, "dcgan-digiface")
    check_failure(magnet("fetch", "stylegan2-fhq"), 1, "stylegan2-ffhq")
    check_failure(magnet("compute", "no/such.safetensors"), 1, "there is no checkpoint at")


def test_a_generator_that_is_not_fetched(magnet):
    check_failure(magnet("sample", "dcgan-digiface"), 1, "not in the cache", "magnet fetch dcgan-digiface")


def test_a_licence_that_is_not_accepted(magnet, home):
    check_failure(magnet("fetch", "stylegan2-ffhq"), 1, "NVIDIA Source Code License", "--accept-license", "381,624,121")
    assert not home.exists()


@pytest.mark.slow
def test_top_k_above_what_there_is(magnet, toy):
    check_failure(magnet("compute", toy, "--top-k", 6), 1, "top_k 6 is outside 1..5")
    volume = magnet("compute", toy, "--n", 30, "--top-k", 3).out.strip()
    check_failure(magnet("index", toy, "--top-k", 4), 1, "there is no volume", f"magnet compute {toy} --top-k 4")
    check_failure(magnet("index", toy, "--volume", volume, "--top-k", 4), 1, "top_k 4 is outside 1..3")


def test_no_volume_names_the_command_that_makes_one(magnet, toy):
    check_failure(magnet("sample", toy), 1, "there is no volume of toy", f"magnet compute {toy}")


def test_more_than_the_pool(magnet, toy):
    magnet("compute", toy, "--n", 30)
    check_failure(magnet("sample", toy, "--n", 31), 1, "31 samples", "30 rows", "--replace")
    assert not Path("samples").exists()


def test_a_volume_of_another_spec_names_all_fields(magnet, toy):
    magnet("compute", toy, "--n", 30, "--volume", "v")
    before = snapshot("v")
    done = magnet("compute", toy, "--n", 30, "--volume", "v", "--seed", 4, "--precision", "float64", "--top-k", 2)
    check_failure(done, 1, "seed 0 (asked 4)", "precision float32 (asked float64)", "top_k 5 (asked 2)", "rank_floor")
    assert snapshot("v") == before


def test_a_volume_of_another_generator(magnet, toy, tmp_path):
    save_file(toy_weights(seed=1), tmp_path / "other.safetensors")
    magnet("compute", toy, "--n", 30, "--volume", "v")
    check_failure(magnet("sample", tmp_path / "other.safetensors", "--volume", "v"), 1, "is a volume of toy")


@pytest.mark.slow
def test_damaged_and_foreign_hdf5(magnet, toy):
    magnet("compute", toy, "--n", 30, "--volume", "v")
    shard = Path("v/shards/shard-000000.h5")
    whole = shard.read_bytes()
    for wrong in (whole[:1000], b"\x89HDF\r\n\x1a\n" + b"\0" * 500, b""):
        shard.write_bytes(wrong)
        check_failure(magnet("sample", toy, "--n", 5, "--volume", "v"), 1, "shard-000000.h5", "damaged", "--repair")
        check_failure(magnet("index", toy, "--volume", "v"), 1, "shard-000000.h5", "damaged", "--repair")
        for n in (30, 40):  # nothing to add, or something
            check_failure(
                magnet("compute", toy, "--n", n, "--volume", "v"), 1, "shard-000000.h5", "damaged", "--repair"
            )
        assert shard.read_bytes() == wrong
    check_failure(magnet("sample", toy, "--volume", shard), 1, "is not a volume")
    check_failure(magnet("info", shard.parent), 1, "neither volume.json nor sample.json")


def test_a_family_that_cannot_be_built_yet(magnet, toy, tmp_path, monkeypatch):
    from magnet_cli.files import documents

    entry = f'[other]\nkind = "generator"\nfamily = "flowgan"\nsource = "file:{toy}"\nlicense = "MIT"\n'
    entry += f'description = "x"\nsize = {toy.stat().st_size}\nsha256 = "{documents.sha256_file(toy)}"\n'
    (tmp_path / "mine.toml").write_text(entry)
    monkeypatch.setenv("MAGNET_ARTIFACTS", str(tmp_path / "mine.toml"))
    check_failure(magnet("compute", "other"), 1, "of the family flowgan, which this magnet cannot build", "dcgan")


def test_files_that_are_no_checkpoint(magnet, tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    check_failure(magnet("compute", tmp_path / "notes.txt"), 1, "text that begins with", "nothing")
    save_file({"a.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    check_failure(magnet("compute", tmp_path / "other.safetensors"), 1, "fit no family", "a.weight")


def test_an_output_folder_that_is_taken(magnet, toy):
    magnet("compute", toy, "--n", 30)
    magnet("sample", toy, "--n", 5, "--out", "s")
    check_failure(
        magnet("sample", toy, "--n", 6, "--seed", 1, "--out", "s"), 1, "n 5 (asked 6)", "seed 0 (asked 1)", "--force"
    )
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("x")
    check_failure(magnet("sample", toy, "--n", 5, "--out", "mine"), 1, "thesis.tex")
    check_failure(magnet("sample", toy, "--n", 5, "--out", "mine", "--force"), 1, "thesis.tex")
    check_failure(magnet("sample", toy, "--n", 5, "--out", "mine/thesis.tex"), 1, "is a file")
    check_failure(magnet("sample", toy, "--n", 5, "--out", "mine/thesis.tex/deeper"), 1, "not a folder")


@pytest.mark.slow
def test_no_such_device(magnet, toy):
    check_failure(magnet("compute", toy, "--n", 5, "--device", "cuda:77"), 1, "no device 'cuda:77'", "cpu")
    check_failure(magnet("compute", toy, "--n", 5, "--device", "cuda:77,cuda:78"), 1, "no device 'cuda:77'", "cpu")
    if not torch.cuda.is_available():
        check_failure(magnet("compute", toy, "--n", 5, "--device", "all"), 1, "there is none here", "--workers")
    assert process("compute", toy, "--n", 5, MAGNET_DEVICE="abacus").returncode == 2


def test_a_damaged_volume_of_ones_own_is_passed_over_with_a_warning(magnet, toy):
    good = magnet("compute", toy, "--n", 30, "--json").json["volume"]
    bad = magnet("compute", toy, "--n", 90, "--seed", 1, "--json").json["volume"]
    Path(bad, "volume.json").write_text("{}")
    done = magnet("sample", toy, "--n", 5)
    assert done.code == 0
    assert f"warning: {bad} is passed over" in done.err
    assert good in done.err


@pytest.mark.slow
@pytest.mark.parametrize("damaged", ["shard-000001.h5", "shard-000001.json"])
def test_repair_makes_damaged_rows_again(magnet, toy, damaged):
    line = ["compute", toy, "--n", 120, "--shard-rows", 50, "--volume", "v"]
    magnet(*line)
    whole = {path: path.read_bytes() for path in Path("v/shards").iterdir()}
    path = Path("v/shards", damaged)
    path.write_bytes(path.read_bytes()[:200])
    for command in (["sample", toy, "--n", 5, "--volume", "v"], ["index", toy, "--volume", "v"], line):
        check_failure(magnet(*command), 1, damaged, "--repair")
    done = magnet(*line, "--repair", "--json")
    assert (done.json["rows"], done.json["new_rows"]) == (120, 50)
    assert "warning: shard 1 (rows 50-99) is made again: " in done.err
    assert damaged in done.err
    assert {path: path.read_bytes() for path in whole} == whole
    again = magnet(*line, "--repair", "--json")
    assert again.json["new_rows"] == 0
    assert "made again" not in again.err


@pytest.mark.torture
@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_no_permission(toy, tmp_path):
    """As another user than root, who may write anywhere."""
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    code = (
        "import os, sys\n"
        "from magnet_cli.cli.app import app\n"
        "app([*sys.argv[1:], '--dry-run'], standalone_mode=False)  # loads all while it may read it\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "app(sys.argv[1:], prog_name='magnet')\n"
    )
    for folder in (tmp_path, *tmp_path.parents):  # pytest's own folders are for their owner alone
        if os.getuid() == 0 and folder.name.startswith(("pytest", "popen", "test_")):
            folder.chmod(0o755)
    command = [sys.executable, "-c", code, "compute", str(toy), "--n", "5", "--volume", str(locked / "v")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "permission is denied" in done.stderr
    assert not list(locked.iterdir())


@pytest.mark.slow
def test_a_bug_keeps_its_traceback(toy):
    code = (
        "import magnet_cli.computing as c, sys\n"
        "c.plan = None\n"
        "from magnet_cli.cli.app import app\n"
        "app(['compute', sys.argv[1]], prog_name='magnet')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(toy)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "'NoneType' object is not callable" in done.stderr


@pytest.mark.slow
def test_debug_shows_the_trace_of_an_expected_failure():
    assert "Traceback" in process("info", "nothing", MAGNET_DEBUG="1").stderr
    assert "Traceback" not in process("info", "nothing").stderr
