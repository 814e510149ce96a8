"""extras: a missing library is answered with what installs it; a broken one keeps its traceback."""

import pytest

from magnet_cli.errors import MagnetError, require


def test_what_is_there_is_given():
    assert require("json.decoder", "evaluate").JSONDecoder


def test_what_is_missing_is_answered_with_its_extra():
    for module in ("no_such_library", "no_such_library.part"):
        with pytest.raises(MagnetError, match="no_such_library is needed") as error:
            require(module, "evaluate")
        assert error.value.hint == "pip install 'magnet-cli[evaluate]'"


def test_a_library_that_lacks_something_itself_keeps_its_traceback(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import what_it_needs")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="what_it_needs"):
        require("half_installed", "evaluate")
