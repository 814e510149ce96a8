"""Tables and plots of metrics and class shares, for samples and sweeps."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from magnet_cli.evaluating import units
from magnet_cli.files import plots
from magnet_cli.maths.metrics import class_shares as shares_
from magnet_cli.maths.metrics.intervals import Estimate
from magnet_cli.reporting import page
from magnet_cli.reporting.findings import Attributes, Evaluation, Shares
from magnet_cli.reporting.format import estimate, number

_MOST_CLASSES = 24  # bars in a plot
_ORDER = ("fid", "kid", "precision", "recall", "density", "coverage", "diversity", "reference_diversity", "duplicates")
_SHARES = ("precision", "recall", "coverage")  # drawn in one plot


def metrics(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return a table of evaluations, one row each, and their plots, for each feature model."""
    parts = []
    for features in dict.fromkeys(each.features for each in evaluations):
        these = [each for each in evaluations if each.features == features]
        shown = units.readable([each.metrics for each in these])
        these = [replace(each, metrics=metrics) for each, metrics in zip(these, shown, strict=True)]
        parts += [_table(these), *_metric_plots(these)]
    return parts


def ordered(names: Sequence[str]) -> list[str]:
    """Return names of metrics in display order; unknown names come last."""
    rank = {name: i for i, name in enumerate(_ORDER)}
    kinds = {name: name.partition("[")[0].partition(" ")[0] for name in names}
    return sorted(kinds, key=lambda name: (rank.get(kinds[name], len(rank)), name))


def _table(these: list[Evaluation]) -> str:
    names = ordered([name for each in these for name in (*each.metrics, *each.undefined)])
    rows: list[list[page.Cell]] = []
    for each in these:
        sizes = f"{each.sample} against {each.reference}; n {each.n:,}, reference {each.reference_n:,}"
        cells: list[page.Cell] = [estimate(each.metrics[name]) if name in each.metrics else "–" for name in names]
        rows.append([(each.name, f"{sizes}; intervals {each.interval}"), *cells])
    caption = (
        "With 95 % intervals. FID of few images is high even where nothing differs: compare with rows of the same n."
    )
    for why in dict.fromkeys(f"{name}: {why}" for each in these for name, why in each.undefined.items()):
        caption += f" {why}."
    return page.table(["", *names], rows, caption)


def _metric_plots(these: list[Evaluation]) -> list[str]:
    rows = [each.name for each in these]
    figures = []
    named = ordered([name for each in these for name in each.metrics])
    together = [name for name in named if name.partition("[")[0] in _SHARES]
    alone = [name for name in named if name.partition("[")[0] == "fid"]
    for names in (together, alone):
        groups = {name: [_triple(each.metrics.get(name)) for each in these] for name in names}
        if groups:
            title = f"{', '.join(names)} of each evaluation, with 95 % intervals"
            shown = plots.bars(rows, groups, title=title, x_label=names[0] if len(names) == 1 else "share", points=True)
            figures.append(page.figure(shown, f"{', '.join(names)}, with 95 % intervals."))
    return figures


def attributes(groups: dict[str, dict[str, Shares]]) -> list[str]:
    """Return plots and tables of the class shares of all groups, for each model of the first group.

    Args:
        groups: shares by model for each set of images, by its name on the page. Changes are from the last to the first.
    """
    first, parts = next(iter(groups)), []
    for model, shares in groups[first].items():
        same = {name: models[model] for name, models in groups.items() if model in models}
        same = {name: each for name, each in same.items() if list(each.shares) == list(shares.shares)}
        parts += [page.heading(model), _share_bars(model, same), _imbalance(same)]
        for name in groups.keys() - same.keys():
            content = "other classes" if model in groups[name] else "no shares"
            parts.append(page.missing(f"{name} holds {content} of {model}; `magnet attributes` writes them."))
    return parts


def changes(samples: Sequence[Attributes]) -> str:
    """Return a table of gap and total variation, one row per sample and model, with changes where there are some."""
    rows: list[list[page.Cell]] = []
    for each in samples:
        for model, shares in each.models.items():
            cells: list[page.Cell] = [estimate(shares.gap), estimate(shares.total_variation)]
            if shares.change:
                cells += [*map(estimate, shares.change.values()), number(shares.p_value, 3)]
            about = f"{model} of {each.sample}, n {shares.n:,}"
            about += f"; change from {shares.change_from}" * bool(shares.change)
            rows.append([(each.name, about), *cells, *["–"] * (5 - len(cells))])
    header = ["", "gap", "total variation", "change in gap", "change in total variation", "p of no change"]
    return page.table(header, rows, "With 95 % intervals; p by a permutation test of the change in total variation.")


def _share_bars(model: str, groups: dict[str, Shares]) -> str:
    classes = list(next(iter(groups.values())).shares)
    largest = np.max([[each.shares[name].value for name in classes] for each in groups.values()], axis=0)
    kept = sorted(np.argsort(-largest, kind="stable")[:_MOST_CLASSES].tolist())
    shown = [classes[i] for i in kept]
    bars = {name: [_triple(each.shares[c]) for c in shown] for name, each in groups.items()}
    equal = {f"equal, {number(1 / len(classes))}": 1 / len(classes)}
    title = f"Shares of the classes of {model}, with 95 % intervals"
    plot = plots.bars(shown, bars, title=title, x_label=f"share of images, by {model}", levels=equal)
    sizes = ", ".join(f"{name} {each.n:,} images" for name, each in groups.items())
    caption = f"Shares of classes, each image counted in its most probable class, with 95 % intervals: {sizes}."
    if len(shown) < len(classes):
        caption += f" The {len(shown)} of {len(classes):,} classes whose shares are largest."
    return page.figure(plot, caption)


def _imbalance(groups: dict[str, Shares]) -> str:
    rows: list[list[page.Cell]] = [
        [name, estimate(each.gap), estimate(each.total_variation)] for name, each in groups.items()
    ]
    caption = "Gap: the largest share minus the smallest. Total variation: the part of the images that would have to "
    caption += "change class for equal shares."
    for n in dict.fromkeys(each.n for each in groups.values()):
        level = shares_.at_equal_shares(n, len(next(iter(groups.values())).shares))
        rows.append([("equal shares", f"on average at n {n:,}"), *(number(value) for value in level.values())])
    if len(groups) == 1:
        return page.table(["", "gap", "total variation"], rows, caption)
    (one, first), *_, (other, last) = groups.items()
    change = shares_.change([first.tally], [last.tally])
    moved: list[page.Cell] = [estimate(change.gap), estimate(change.total_variation), number(change.p_value, 3)]
    rows = [[*row, ""] for row in rows]
    rows.append([("change", f"from {other} to {one}"), *moved])
    caption += " p: p-value of no change, by a permutation test of total variation."
    return page.table(["", "gap", "total variation", "p of no change"], rows, caption)


def _triple(value: Estimate | None) -> plots.Interval | None:
    return None if value is None else (value.value, value.low, value.high)
