"""Where the examples in docstrings run: an empty working folder, and a MAGNET_HOME of their own."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def place_of_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what examples write away from the user's files."""
    for name in [name for name in os.environ if name.startswith("MAGNET_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MAGNET_HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
