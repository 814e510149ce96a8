"""The layers of the house (ARCHITECTURE): who may import whom, and who may print."""

import ast
import sys
from pathlib import Path

import pytest

import magnet_cli

PACKAGE = Path(magnet_cli.__file__).parent
MODULES = sorted(p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py"))

# module or folder -> what of ours it may import; verbs join nouns, nouns know as little as they must
ALLOWED = {
    "__init__.py": set(),
    "__main__.py": {"cli"},
    "errors.py": set(),
    "files.py": {"errors"},
    "locks.py": set(),
    "console.py": {"errors"},
    "jacobian/": {"errors", "jacobian"},
    "classes.py": {"errors"},
    "mixture.py": {"errors"},
    "factories.py": {"errors"},
    "extras.py": {"errors"},
    "image_models/": {"errors", "files", "extras", "artifacts", "factories", "generators.readers", "image_models"},
    "metrics/": {"extras", "metrics"},
    "images.py": {"errors", "files"},
    "features.py": {"errors", "files", "artifacts.cache", "image_models", "images"},
    "evaluate.py": {"errors", "features", "image_models", "images", "metrics"},
    "scored/": {"errors", "files", "given", "outputs", "generators.readers", "scored"},
    "balance/": {
        "errors",
        "files",
        "balance",
        "generators",
        "images",
        "metrics",
        "outputs",
        "pictures",
        "render",
        "scored",
        "sheet",
    },
    "direction/": {
        "errors",
        "extras",
        "files",
        "priors",
        "direction",
        "generators",
        "given",
        "image_models",
        "metrics",
        "outputs",
        "pictures",
        "render",
        "scored",
    },
    "edit.py": {
        "errors",
        "files",
        "priors",
        "direction",
        "features",
        "generators",
        "image_models",
        "images",
        "outputs",
        "pictures",
        "render",
        "scored",
        "sheet",
    },
    "attributes.py": {
        "errors",
        "files",
        "priors",
        "features",
        "generators",
        "image_models",
        "images",
        "metrics",
        "render",
        "sample",
        "scored",
    },
    "artifacts/": {"errors", "files", "locks", "artifacts"},
    "generators/": {"errors", "artifacts.cache", "factories", "generators", "mixture"},
    "volume/": {"errors", "files", "locks", "mixture", "volume"},
    "index/": {"errors", "files", "index", "mixture", "volume"},
    "slogan/": {"errors", "files", "generators", "images", "metrics", "mixture", "pictures", "sheet", "slogan"},
    "pictures.py": set(),
    "sheet.py": {"pictures"},
    "plots.py": {"extras"},
    "given.py": {"errors", "files"},
    "outputs.py": {"errors", "files"},
    "render.py": {"errors", "files", "generators", "outputs", "pictures"},
    "plan.py": {"errors", "generators"},
    "priors.py": {"generators"},
    "compute.py": {"plan", "priors", "errors", "generators", "image_models", "jacobian", "volume"},
    "workers.py": {
        "plan",
        "errors",
        "artifacts.cache",
        "compute",
        "generators",
        "image_models",
        "jacobian.PRECISIONS",
        "volume",
    },
    "ray_engine.py": {"errors", "compute", "volume", "workers"},
    "tune.py": {"plan", "priors", "errors", "compute", "generators", "image_models", "jacobian", "volume"},
    "convert.py": {"errors", "files", "artifacts.cache", "generators"},
    "sample.py": {
        "errors",
        "files",
        "fresh",
        "generators",
        "index",
        "outputs",
        "pictures",
        "render",
        "sheet",
        "volume",
    },
    "fresh.py": set(),
    "sweep/": {
        "errors",
        "files",
        "attributes",
        "priors",
        "evaluate",
        "extras",
        "features",
        "generators",
        "image_models",
        "images",
        "index",
        "metrics",
        "outputs",
        "pictures",
        "plots",
        "render",
        "sample",
        "sweep",
        "volume",
    },
    "tempered/": {
        "errors",
        "files",
        "locks",
        "compute",
        "generators",
        "image_models",
        "index",
        "plan",
        "priors",
        "render",
        "tempered",
        "volume",
    },
    "exchange.py": {"errors", "files", "volume"},
    "fetch.py": {"errors", "files", "artifacts", "classes", "exchange", "volume"},
    "push.py": {"errors", "files", "artifacts", "index", "volume"},
    "info.py": {
        "errors",
        "files",
        "artifacts",
        "attributes",
        "direction",
        "generators",
        "outputs",
        "sweep",
        "tempered.stored",
        "volume",
    },
    "report/": {
        "errors",
        "files",
        "attributes",
        "generators",
        "images",
        "index",
        "metrics",
        "outputs",
        "plots",
        "render",
        "report",
        "sample",
        "sheet",
        "sweep",
        "volume",
    },
    "commands/": None,
    "cli.py": None,
}
WITHOUT_TORCH = (
    "errors.py",
    "files.py",
    "locks.py",
    "console.py",
    "volume/",
    "index/",
    "mixture.py",
    "priors.py",
    "exchange.py",
    "fetch.py",
    "push.py",
    "classes.py",
    "given.py",
    "scored/",
    "balance/",
    "outputs.py",
    "pictures.py",
    "sheet.py",
    "plots.py",
    "report/",
    "sample.py",
    "extras.py",
    "metrics/",
    "images.py",
    "artifacts/",
    "commands/",
    "cli.py",
)


def imports(name, *, top_level_only=False):
    tree = ast.parse((PACKAGE / name).read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rule(name):
    keys = [key for key in ALLOWED if name == key or (key.endswith("/") and name.startswith(key))]
    assert keys, f"{name} has no place in the layers yet: add it to ALLOWED"
    return ALLOWED[keys[0]]


@pytest.mark.parametrize("name", MODULES)
def test_imports_stay_within_the_layers(name):
    allowed = rule(name)
    if allowed is None:
        return
    for imported in imports(name):
        if not imported.startswith("magnet_cli."):
            continue
        inner = imported.removeprefix("magnet_cli.")
        known = {"__version__", *allowed}
        assert any(inner == a or inner.startswith(f"{a}.") for a in known), f"{name} may not import {inner}"


@pytest.mark.parametrize("name", [m for m in MODULES if m.startswith(WITHOUT_TORCH)])
def test_torch_stays_out_where_it_is_not_needed(name):
    assert not [i for i in imports(name) if i.split(".")[0] == "torch"]


@pytest.mark.parametrize(
    "name", [m for m in MODULES if m.startswith(("commands/", "cli.py", "errors.py", "console.py"))]
)
def test_commands_import_heavy_things_inside(name):
    light = {"magnet_cli", "typer", *sys.stdlib_module_names}
    for imported in imports(name, top_level_only=True):
        assert imported.split(".")[0] in light
        if name.startswith("commands/") and name != "commands/lookup.py" and imported.startswith("magnet_cli."):
            assert imported.split(".")[1] in {"commands", "console", "errors"}


@pytest.mark.parametrize("name", MODULES)
def test_no_click_and_no_printing_outside_the_console(name):
    assert not [i for i in imports(name) if i.split(".")[0] == "click"]
    if name != "console.py":
        names = {n.id for n in ast.walk(ast.parse((PACKAGE / name).read_text())) if isinstance(n, ast.Name)}
        assert "print" not in names
        assert not [i for i in imports(name) if i.split(".")[0] == "rich"]
    if not name.startswith(("commands/", "cli.py")):
        assert not [i for i in imports(name) if i.split(".")[0] == "typer"]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_owns(name):
    assert ast.get_docstring(ast.parse((PACKAGE / name).read_text(encoding="utf-8")))
