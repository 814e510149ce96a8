"""The floors of the house (docs/architecture.md): nobody imports upward, rooms form no circle, who needs no torch."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import magnet_cli

PACKAGE = Path(magnet_cli.__file__).parent
FLOORS = [
    ["errors"],
    ["files", "maths"],
    ["volume", "catalog"],
    ["index", "models"],
    ["computing", "training", "sharing"],
    ["sampling"],
    ["evaluating", "editing"],
    ["reporting"],
    ["cli"],
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
OUTSIDE = {"__init__", "__main__"}  # the door of the package, above all floors
# Rooms, and modules of others, that work where torch is not installed: torch is imported inside functions at most.
WITHOUT_TORCH = ["errors", "volume", "catalog", "index", "sharing", "sampling.sample", "reporting", "cli"]
WITHOUT_TORCH += ["files.atomic", "files.results", "files.image_folder", "files.npy", "maths.metrics", "maths.priors"]


@functools.cache
def trees():
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def room(path):
    """The room of a module: the first folder, or the module itself at the top of the package."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inner_rooms(tree):
    """The rooms of ours that a module imports, functions and type annotations included."""
    for name in imports(tree):
        if name.startswith("magnet_cli.") and name != "magnet_cli.__version__":
            yield name.split(".")[1]


def test_every_module_has_a_floor():
    assert {room(path) for path in trees()} == FLOOR.keys() | OUTSIDE


def test_nobody_imports_upward():
    upward = [
        f"{path.relative_to(PACKAGE)} imports {other}"
        for path, tree in trees().items()
        if room(path) not in OUTSIDE
        for other in inner_rooms(tree)
        if FLOOR[other] > FLOOR[room(path)]
    ]
    assert upward == []


def test_rooms_of_a_floor_form_no_circle():
    sideways = {(room(path), other) for path, tree in trees().items() for other in inner_rooms(tree)}
    assert [pair for pair in sideways if pair[0] < pair[1] and pair[::-1] in sideways] == []


def test_at_most_eighteen_rooms():
    assert len({room(path) for path in trees()} - OUTSIDE) <= 18


def test_no_file_is_long():
    long = {str(p.relative_to(PACKAGE)): len(p.read_text(encoding="utf-8").splitlines()) for p in trees()}
    assert {name: lines for name, lines in long.items() if lines > 450} == {}


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_works_where_torch_is_not_installed(name):
    code = (
        "import importlib, pkgutil, sys\n"
        "sys.modules['torch'] = None\n"
        f"module = importlib.import_module('magnet_cli.{name}')\n"
        "for inner in pkgutil.walk_packages(getattr(module, '__path__', []), module.__name__ + '.'):\n"
        "    importlib.import_module(inner.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_command_line_starts_without_heavy_libraries():
    heavy = ("torch", "h5py", "huggingface_hub", "numpy", "scipy", "rich")
    code = f"import sys, magnet_cli.cli.app; print(*[n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.slow
def test_only_the_command_line_knows_typer_and_only_the_console_prints():
    for path, tree in trees().items():
        roots = {name.split(".")[0] for name in imports(tree)}
        name = path.relative_to(PACKAGE).as_posix()
        assert "click" not in roots, name
        if room(path) != "cli":
            assert "typer" not in roots, name
        if name != "cli/console.py":
            assert "rich" not in roots, name
            assert "print" not in {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}, name


def test_every_module_says_what_it_is():
    assert [str(path) for path, tree in trees().items() if not ast.get_docstring(tree)] == []
