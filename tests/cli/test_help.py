"""Help: every command has examples, fits 80 columns and is grouped; shell completion answers without torch."""

import os
import subprocess
import sys

import pytest

from magnet_cli.cli.app import PANELS, app

COMMANDS = [name for commands in PANELS.values() for name in commands]
COMMANDS += [f"{g.name} {c.name}" for g in app.registered_groups for c in g.typer_instance.registered_commands]


def test_every_command_is_listed_here():
    assert {c.name for c in app.registered_commands} | {"train slogan", "cache list"} <= set(COMMANDS)
    assert len(COMMANDS) == 24


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_two_examples(magnet, command):
    done = magnet(*command.split(), "--help")
    assert done.code == 0
    examples = done.out.partition("Examples:")[2].partition("\n\n")[0]
    assert sum(line.strip().startswith(f"magnet {command}") for line in examples.splitlines()) >= 2
    assert magnet(*command.split(), "-h").out == done.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_the_flags_of_its_output(magnet, command):
    last = magnet(*command.split(), "--help").out.rpartition("\n\n")[2]
    assert last.startswith("Output:\n")
    assert last.splitlines()[-1].split()[:2] == ["-h,", "--help"]


@pytest.mark.parametrize("group", ["", "cache", "train"])
def test_every_short_help_fits_its_line(magnet, group):
    shown = magnet(*group.split(), "--help").out
    assert "..." not in shown.partition("Commands" if group else "Get a generator:")[2]
    assert max(map(len, shown.partition("Get a generator:")[2].splitlines() or [""])) <= 80


def test_commands_are_grouped(magnet):
    shown = magnet("--help").out
    headings = [line[:-1] for line in shown.splitlines() if line[:1].isalpha() and line.endswith(":")]
    assert headings[-7:] == [*PANELS, "Training", "Cache"]
    assert headings[:-7] == ["Options"]


# --- shell completion ---------------------------------------------------------------------------------------------


def complete(line, shell="bash"):
    """What a shell is told for a line, by the protocol of the script that `magnet --install-completion` installs."""
    code = "import sys; sys.modules['torch'] = None; from magnet_cli.cli.app import app; app(prog_name='magnet')"
    env = os.environ | {"_MAGNET_COMPLETE": f"complete_{shell}", "COMP_WORDS": line, "_TYPER_COMPLETE_ARGS": line}
    env |= {"COMP_CWORD": str(len(line.split(" ")) - 1), "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    return done.stdout.split()


@pytest.mark.slow
def test_commands_and_flags_are_completed():
    assert complete("magnet sw") == ["sweep"]
    assert complete("magnet cache pr") == ["prune"]
    assert complete("magnet sample --par") == ["--particles"]
    assert complete("magnet sample --method te") == ["tempered"]


@pytest.mark.slow
def test_names_of_artifacts_are_completed():
    assert complete("magnet sample dcgan-d") == ["dcgan-digiface"]
    assert "mnist" in complete("magnet fetch ")
    assert "mnist-volume" in complete("magnet info mn")
    assert complete("magnet sample mnist-v") == []  # a volume is no generator
    assert "digits" in complete("magnet edit --model dig")


@pytest.mark.slow
def test_other_shells_are_told_the_same():
    assert complete("magnet sample dcgan-d", "fish") == ["dcgan-digiface"]
    assert complete("magnet sample dcgan-d", "zsh")[-1] == """:(("dcgan-digiface"))'"""


@pytest.mark.slow
def test_volumes_on_this_machine_are_completed(magnet, toy, home):
    kept = magnet("compute", toy, "--n", 5).out.strip()
    magnet("compute", toy, "--n", 5, "--volume", "mine.vol")
    assert complete("magnet sample --volume ") == sorted([kept, "mine.vol"])
    assert complete("magnet export mi") == ["mine.vol"]
    assert complete(f"magnet index --volume {home}/vol") == [kept]


@pytest.mark.slow
def test_completion_survives_a_list_of_artifacts_that_is_wrong(tmp_path, monkeypatch):
    (tmp_path / "mine.toml").write_text("[[[")
    monkeypatch.setenv("MAGNET_ARTIFACTS", str(tmp_path / "mine.toml"))
    assert complete("magnet sample ") == []


def test_completion_is_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    done = subprocess.run(
        [sys.executable, "-m", "magnet_cli", "--install-completion", "bash"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    scripts = list((tmp_path / "me/.bash_completions").iterdir())
    assert len(scripts) == 1
    assert "COMPLETE=complete_bash" in scripts[0].read_text()


def test_help_is_a_word_too(magnet):
    assert magnet("help").out == magnet("--help").out
    assert magnet("help", "sample").out == magnet("sample", "--help").out
    assert magnet("help", "train", "slogan").out == magnet("train", "slogan", "--help").out
    assert magnet("help", "nothing").code == 2
