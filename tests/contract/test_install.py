"""The wheel: what has to be inside it is, and an installation finds it; a checkout finds its own list."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import magnet_cli
from magnet_cli.catalog import entries

CHECKOUT = Path(__file__).parents[2]
IN_THE_WHEEL = ("src", "artifacts.toml", "pyproject.toml", "README.md", "LICENSE")
PACKAGE = CHECKOUT / "src" / "magnet_cli"

ASK = """
import json
import magnet_cli
from magnet_cli.catalog import cache, download, entries

known = entries.registry()
built_in = [a for a in known.values() if a.scheme == "builtin"]
print(json.dumps({
    "package": magnet_cli.__file__,
    "list": str(entries.shipped_list()),
    "names": sorted(known),
    "downloaded": [download.fetch(a) for a in built_in],
    "assets": sorted(p.name for p in cache.BUILT_IN.iterdir()),
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of this checkout, as pip builds it."""
    place = tmp_path_factory.mktemp("wheel")
    for name in IN_THE_WHEEL:
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, place / "copy" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(CHECKOUT / name, place / "copy" / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    command += ["--disable-pip-version-check", "--wheel-dir", place / "out", place / "copy"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (place / "out").iterdir()
    return built


def ask(folder, cwd):
    """What a Python that has the package from that folder finds."""
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
    done = subprocess.run([sys.executable, "-c", ASK], cwd=cwd, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_wheel_holds_the_package_its_list_and_its_assets_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        members = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert archive.read("magnet_cli/artifacts.toml") == (CHECKOUT / "artifacts.toml").read_bytes()
    files = [p for p in PACKAGE.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert any(p.match("assets/*.safetensors") for p in files)
    assert members == {f"magnet_cli/{p.relative_to(PACKAGE).as_posix()}" for p in files} | {"magnet_cli/artifacts.toml"}
    assert wheel.stat().st_size < 30e6


@pytest.mark.slow
def test_an_installed_wheel_finds_its_list_and_its_assets(wheel, tmp_path):
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--no-compile", "--quiet"]
    command += ["--disable-pip-version-check", "--root-user-action", "ignore", "--target", target, wheel]
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = ask(target, elsewhere)
    assert found["package"] == str(target / "magnet_cli" / "__init__.py")
    assert found["list"] == str(target / "magnet_cli" / "artifacts.toml")
    assert "dcgan-digiface" in found["names"]
    assert found["names"] == sorted(entries.registry())
    assert not any(found["downloaded"])
    assert {p.name for p in (PACKAGE / "assets").glob("*.safetensors")} <= set(found["assets"])
    version = [target / "bin" / "magnet", "--version"]
    environment = os.environ | {"PYTHONPATH": str(target)}
    said = subprocess.run(version, cwd=elsewhere, env=environment, capture_output=True, text=True, check=True).stdout
    assert said == f"magnet {magnet_cli.__version__}\n"


def test_a_checkout_finds_the_list_at_its_top(tmp_path):
    found = ask(CHECKOUT / "src", tmp_path)
    assert found["package"] == str(PACKAGE / "__init__.py")
    assert found["list"] == str(CHECKOUT / "artifacts.toml")
    assert entries.shipped_list() == CHECKOUT / "artifacts.toml"
