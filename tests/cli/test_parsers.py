"""parsers: what is typed after a flag becomes a value, or a usage error that says what is wrong."""

from pathlib import Path

import pytest
import typer

from magnet_cli.cli import parsers
from magnet_cli.cli.parsers import ClassLabel

RIGHT = [
    (parsers.size, "512MiB", 512 * 2**20),
    (parsers.size, "2GB", 2 * 10**9),
    (parsers.size, " 1.5 kib ", 1536),
    (parsers.size, "17", 17),
    (parsers.part, "3/8", (3, 8)),
    (parsers.bounds, "0,1", (0.0, 1.0)),
    (parsers.bounds, "-1,.5", (-1.0, 0.5)),
    (parsers.rhos, ".3,-1", (-1.0, 0.0, 0.3)),
    (parsers.rhos, "0", (0.0,)),
    (parsers.truncations, "1,.7", (1.0, 0.7)),
    (parsers.class_label, "281", ClassLabel(281)),
    (parsers.class_label, "Tabby", ClassLabel(281, "Tabby")),
    (parsers.device, "cuda:1", "cuda:1"),
    (parsers.devices, "all", "all"),
    (parsers.devices, "cuda:0,cuda:1", "cuda:0,cuda:1"),
    (parsers.positive, 0.1, 0.1),
    (parsers.share, None, None),
]
WRONG = [
    (parsers.size, "512XB"),
    (parsers.size, "0"),
    (parsers.size, "-3"),
    (parsers.part, "0/8"),
    (parsers.part, "9/8"),
    (parsers.part, "3"),
    (parsers.bounds, "1,0"),
    (parsers.bounds, "0,inf"),
    (parsers.bounds, "0"),
    (parsers.rhos, "1,x"),
    (parsers.rhos, "1,nan"),
    (parsers.truncations, "1,0"),
    (parsers.truncations, ""),
    (parsers.class_label, "-1"),
    (parsers.class_label, "no such animal"),
    (parsers.device, "abacus"),
    (parsers.device, "cuda:x"),
    (parsers.device, "cpu:0"),
    (parsers.devices, "cuda:0,cuda:0"),
    (parsers.devices, "cuda:0,cpu"),
    (parsers.positive, 0.0),
    (parsers.positive, float("inf")),
    (parsers.share, 1.0),
    (parsers.truncation, 1.1),
    (parsers.rho, float("nan")),
    (parsers.rho, 1e308),
    (parsers.bounds, "-1e308,1e308"),
]


@pytest.mark.parametrize(("parse", "typed", "value"), RIGHT)
def test_right_values(parse, typed, value):
    assert parse(typed) == value


@pytest.mark.parametrize(("parse", "typed"), WRONG)
def test_wrong_values_are_named(parse, typed):
    with pytest.raises(typer.BadParameter) as error:
        parse(typed)
    assert str(typed).rpartition(",")[2] in error.value.message


@pytest.mark.parametrize(
    "line",
    [
        "sample mnist --rho 1e308",
        "sample mnist --rho=-1e7",
        "sample mnist --rho nan",
        "sample mnist --n 1000000000000",
        "compute mnist --n 1000000000000000000",
        "compute mnist --seed 99999999999999999999999999",
        "sweep mnist --rho 1e308",
        "edit mnist --direction x.npy --to 1e308",
        "info x.py:make --image-range=-1e308,1e308",
    ],
)
def test_numbers_are_bounded_before_work_begins(magnet, home, line):
    done = magnet(*line.split())
    assert (done.code, done.out) == (2, "")
    assert "Invalid value" in done.err
    assert not home.exists()
    assert not list(Path.cwd().iterdir())
