"""What judging found, as parts of a page: metrics with their intervals, and shares of classes beside each other.

Owns these tables and plots, for samples and sweeps alike. The findings themselves are read in `findings`.
"""

from collections.abc import Sequence

import numpy as np

from magnet_cli.files import plots
from magnet_cli.maths.metrics import class_shares as shares_
from magnet_cli.maths.metrics.intervals import Estimate
from magnet_cli.reporting import page
from magnet_cli.reporting.findings import Attributes, Evaluation, Shares
from magnet_cli.reporting.format import estimate, number

_MOST_CLASSES = 24  # bars of a plot
_ORDER = ("fid", "kid", "precision", "recall", "density", "coverage", "diversity", "reference_diversity", "duplicates")
_SHARES = ("precision", "recall", "coverage")  # drawn beside each other


def metrics(evaluations: Sequence[Evaluation]) -> list[str]:
    """A table of evaluations for each model whose features they are of, a row each, and their plots."""
    parts = []
    for features in dict.fromkeys(each.features for each in evaluations):
        these = [each for each in evaluations if each.features == features]
        parts += [_table(these), *_metric_plots(these)]
    return parts


def ordered(names: Sequence[str]) -> list[str]:
    """Names of metrics in the order in which they are shown; such as are not known come last."""
    known = {name: i for i, name in enumerate(_ORDER)}
    return sorted(dict.fromkeys(names), key=lambda name: (known.get(name.partition("[")[0], len(known)), name))


def _table(these: list[Evaluation]) -> str:
    names = ordered([name for each in these for name in (*each.metrics, *each.undefined)])
    rows = []
    for each in these:
        sizes = f"{each.sample} against {each.reference}; n {each.n:,}, reference {each.reference_n:,}"
        cells = [estimate(each.metrics[name]) if name in each.metrics else "–" for name in names]
        rows.append([(each.name, f"{sizes}; intervals {each.interval}"), *cells])
    caption = (
        "With 95 % intervals. FID of few images is high even where nothing differs: compare with rows of the same n."
    )
    for why in dict.fromkeys(f"{name}: {why}" for each in these for name, why in each.undefined.items()):
        caption += f" {why}."
    return page.table(["", *names], rows, caption)


def _metric_plots(these: list[Evaluation]) -> list[str]:
    rows = [each.name for each in these]
    found = []
    named = ordered([name for each in these for name in each.metrics])
    together = [name for name in named if name.partition("[")[0] in _SHARES]
    alone = [name for name in named if name.partition("[")[0] == "fid"]
    for names in (together, alone):
        groups = {name: [_triple(each.metrics.get(name)) for each in these] for name in names}
        if groups:
            title = f"{', '.join(names)} of each evaluation, with 95 % intervals"
            shown = plots.bars(rows, groups, title=title, x_label=names[0] if len(names) == 1 else "share", points=True)
            found.append(page.figure(shown, f"{', '.join(names)}, with 95 % intervals."))
    return found


def attributes(groups: dict[str, dict[str, Shares]]) -> list[str]:
    """For each model that the first group knows, the shares of classes of all groups, and how far from equal they are.

    Args:
        groups: for each set of images, by the name it has on the page, what models say of it. Changes are from the
            last to the first.
    """
    first, parts = next(iter(groups)), []
    for model, said in groups[first].items():
        there = {name: models[model] for name, models in groups.items() if model in models}
        there = {name: each for name, each in there.items() if list(each.shares) == list(said.shares)}
        parts += [page.heading(model), _share_bars(model, there), _imbalance(there)]
        for name in groups.keys() - there.keys():
            known = "other classes" if model in groups[name] else "nothing"
            parts.append(page.missing(f"{name}: {known} of {model} in it; `magnet attributes` writes that."))
    return parts


def changes(found: Sequence[Attributes]) -> str:
    """A table of what models say of samples, a row each, with the change from the sample each was compared with."""
    rows = []
    for each in found:
        for model, said in each.models.items():
            cells = [estimate(said.gap), estimate(said.total_variation)]
            if said.change:
                cells += [*map(estimate, said.change.values()), number(said.p_value, 3)]
            whose = f"{model} of {each.sample}, n {said.n:,}" + f"; change from {said.change_from}" * bool(said.change)
            rows.append([(each.name, whose), *cells, *["–"] * (5 - len(cells))])
    header = ["", "gap", "total variation", "change in gap", "change in total variation", "p of no change"]
    return page.table(header, rows, "With 95 % intervals; p by a permutation test of the change in total variation.")


def _share_bars(model: str, there: dict[str, Shares]) -> str:
    classes = list(next(iter(there.values())).shares)
    largest = np.max([[each.shares[name].value for name in classes] for each in there.values()], axis=0)
    kept = sorted(np.argsort(-largest, kind="stable")[:_MOST_CLASSES].tolist())
    shown = [classes[i] for i in kept]
    groups = {name: [_triple(each.shares[c]) for c in shown] for name, each in there.items()}
    equal = {f"equal, {number(1 / len(classes))}": 1 / len(classes)}
    title = f"Shares of the classes of {model}, with 95 % intervals"
    plot = plots.bars(shown, groups, title=title, x_label=f"share of images, by {model}", levels=equal)
    sizes = ", ".join(f"{name} {each.n:,} images" for name, each in there.items())
    caption = f"Shares of classes, each image counted for its most probable one, with 95 % intervals: {sizes}."
    if len(shown) < len(classes):
        caption += f" The {len(shown)} of {len(classes):,} classes whose shares are largest."
    return page.figure(plot, caption)


def _imbalance(there: dict[str, Shares]) -> str:
    rows = [[name, estimate(each.gap), estimate(each.total_variation)] for name, each in there.items()]
    caption = (
        "Gap: the largest share less the smallest. Total variation: the part of the images that would have to change "
    )
    caption += "class for the shares to be equal."
    if len(there) == 1:
        return page.table(["", "gap", "total variation"], rows, caption)
    (one, first), *_, (other, last) = there.items()
    change = shares_.change([first.tally], [last.tally])
    moved = [estimate(change.gap), estimate(change.total_variation), number(change.p_value, 3)]
    rows = [*([*row, ""] for row in rows), [("change", f"from {other} to {one}"), *moved]]
    caption += " p: of no change, by a permutation test of total variation."
    return page.table(["", "gap", "total variation", "p of no change"], rows, caption)


def _triple(found: Estimate | None) -> plots.Interval | None:
    return None if found is None else (found.value, found.low, found.high)
