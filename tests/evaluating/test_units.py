"""units: metrics as they are shown."""

from magnet_cli.evaluating import units
from magnet_cli.maths.metrics.intervals import Estimate

SMALL, LARGE = Estimate(0.012, 0.01, 0.014), Estimate(0.5, -2.0, 3.0)


def test_a_small_kid_is_shown_times_a_thousand_and_named_so():
    (shown,) = units.readable([{"kid[inception]": SMALL, "fid[inception]": SMALL}])
    assert shown == {"kid x1000[inception]": Estimate(12.0, 10.0, 14.0), "fid[inception]": SMALL}


def test_what_is_shown_together_has_one_unit():
    tables = [{"kid[digits]": SMALL}, {"kid[digits]": LARGE, "duplicates": SMALL}, {}]
    assert units.readable(tables) == tables
    assert units.of("kid", [0.2, -0.9]) == ("kid x1000", 1000)
