"""Units in which people read metrics; documents hold them as they are.

KID is a few thousandths of most features, and is shown times 1,000 there. It grows with the sixth power of the
features' length: where any number is 1 or more (features "digits", for example), it is shown as it is.
"""

from collections.abc import Iterable, Mapping, Sequence

from magnet_cli.maths.metrics.intervals import Estimate

_TIMES = {"kid": 1000}


def of(name: str, numbers: Iterable[float]) -> tuple[str, float]:
    """Return the name under which a metric is shown beside these numbers of it, and the factor that it names.

    >>> of("kid[inception]", [0.012, 0.01, 0.014]), of("kid[digits]", [329.2]), of("fid[digits]", [0.5])
    (('kid x1000[inception]', 1000), ('kid[digits]', 1), ('fid[digits]', 1))
    """
    kind, bracket, features = name.partition("[")
    if kind in _TIMES and all(abs(number) < 1 for number in numbers):
        return f"{kind} x{_TIMES[kind]}{bracket}{features}", _TIMES[kind]
    return name, 1


def readable(tables: Sequence[Mapping[str, Estimate]]) -> list[dict[str, Estimate]]:
    """Return metrics as they are shown together, each in one unit."""
    names = dict.fromkeys(name for table in tables for name in table)
    every = {name: [table[name] for table in tables if name in table] for name in names}
    units = {name: of(name, (end for e in each for end in (e.value, e.low, e.high))) for name, each in every.items()}
    shown = []
    for table in tables:
        times = {name: units[name][1] for name in table}
        ends = {name: (each.value, each.low, each.high) for name, each in table.items()}
        shown.append({units[name][0]: Estimate(*(end * times[name] for end in ends[name])) for name in table})
    return shown
