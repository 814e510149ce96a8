"""The plots of a sweep, from the fields of its sweep.json alone; figures of the other half are single points."""

import functools

from magnet_cli.evaluating import units
from magnet_cli.files import plots
from magnet_cli.files.plots import Line
from magnet_cli.files.scores import member_name
from magnet_cli.index import DISPLACED_WARNING

_BANDS = ("95 % intervals",)
_MOST_CLASSES = 20  # panels of a plot
_OTHER = "the other half: picked, and rho 0"


def draw(fields: dict) -> dict[str, str]:
    """Return plots as SVG, by name ("precision-recall"), in reading order."""
    by_truncation = _by_truncation(fields)
    drift = " (drift from the prior)" * (fields["reference"]["kind"] == "prior")
    drawings = _front(fields, by_truncation, drift)
    for name in fields["points"][0]["metrics"]:
        if name.startswith(("fid[", "kid[")) and all(name in point["metrics"] for point in fields["points"]):
            shown, times = units.of(name, (end for p in fields["points"] for end in p["metrics"][name].values()))
            title, where = f"{shown} over rho{drift}", ("metrics", name)
            drawings[name.partition("[")[0]] = _over_rho(fields, by_truncation, where, title, shown + drift, times)
    lines = by_truncation.items()
    sizes, shares = (
        [Line(name, [p["rho"] for p in group], [p[key] for p in group], dotted=True) for name, group in lines]
        for key in ("effective_size", "displaced_share")
    )
    title = f"effective size over rho, of {fields['points'][0]['pool']:,} rows"
    label = "effective size, rows"
    drawings["effective-size"] = plots.lines(sizes, title=title, x_label="rho", y_label=label, log_y=True)
    level = {"above this a draw is not what rho asks": DISPLACED_WARNING}
    title = f"displaced share over rho, of {fields['spec']['n']:,} draws"
    label = "displaced share"
    drawings["displaced-share"] = plots.lines(shares, title=title, x_label="rho", y_label=label, levels=level)
    for model, about in fields["models"].items():
        drawings |= _of_classes(fields, by_truncation, model, about["classes"])
    return drawings


def _by_truncation(fields: dict) -> dict[str, list[dict]]:
    """Return the points of each line, ascending in rho, by the name in the legend."""
    truncations = fields["spec"]["truncation"]
    names = {psi: f"truncation {psi:g}" if len(truncations) > 1 else "" for psi in truncations}
    return {name: [p for p in fields["points"] if p["truncation"] == psi] for psi, name in names.items()}


def _others(fields: dict) -> list[dict]:
    choice = fields["choice"]
    return list({p["sample"]: p for p in (choice["chosen"], choice["baseline"])}.values()) if choice else []


def _ends(points: list[dict], part: str, *names: str, times: float = 1) -> tuple[list[float], list[tuple[list, list]]]:
    """Return a figure of points, and the ends of its intervals."""
    estimates = [functools.reduce(dict.__getitem__, names, point[part]) for point in points]
    value, low, high = ([e[end] * times for e in estimates] for end in ("value", "low", "high"))
    return value, [(low, high)]


def _front(fields: dict, by_truncation: dict[str, list[dict]], drift: str) -> dict[str, str]:
    """Plot precision against recall: along rho at each truncation, and along truncation at rho 0."""
    features = fields["features"]["name"]
    names = f"recall[{features}]", f"precision[{features}]"

    def line(name: str, points: list[dict], note: str, *, joined: bool = True) -> Line:
        (x, (reach,)), (y, bands) = (_ends(points, "metrics", each) for each in names)
        notes = [f"{point[note]:g}" for point in points]
        return Line(name, x, y, bands, reach, notes, joined=joined, dotted=joined)

    drawn = [line(name or "along rho", points, "rho") for name, points in by_truncation.items()]
    if len(by_truncation) > 1:
        plain = [point for point in fields["points"] if point["rho"] == 0]
        drawn.append(line("along truncation, rho 0", plain, "truncation"))
    if others := _others(fields):
        drawn.append(line(_OTHER, others, "rho", joined=False))
    title, (x_label, y_label) = f"precision against recall{drift}", (name + drift for name in names)
    shown = plots.lines(drawn, title=title, height=4.4, x_label=x_label, y_label=y_label, band_names=_BANDS)
    return {"precision-recall": shown}


def _over_rho(
    fields: dict, by_truncation: dict[str, list[dict]], where: tuple[str, ...], title: str, label: str, times: float = 1
) -> str:
    """Plot a figure over rho, one line for each truncation."""
    drawn = []
    for name, points in by_truncation.items():
        y, bands = _ends(points, *where, times=times)
        drawn.append(Line(name or "along rho", [point["rho"] for point in points], y, bands, dotted=True))
    if others := _others(fields):
        y, bands = _ends(others, *where, times=times)
        x = [point["rho"] for point in others]
        drawn.append(Line(_OTHER, x, y, bands, (x, x), joined=False))
    return plots.lines(drawn, title=title, x_label="rho", y_label=label, band_names=_BANDS)


def _of_classes(fields: dict, by_truncation: dict[str, list[dict]], model: str, classes: list[str]) -> dict[str, str]:
    """Plot the shares of a model's classes over rho, for each truncation, and their imbalance."""
    drawings = {}
    level = {"equal shares": 1 / len(classes)}
    for psi, (name, points) in zip(fields["spec"]["truncation"], by_truncation.items(), strict=True):
        drawn = []
        for each in classes:
            y, bands = _ends(points, "attributes", model, "shares", each)
            drawn.append(Line(each, [p["rho"] for p in points], y, bands, dotted=True))
        largest = sorted(drawn, key=lambda line: -max(line.y))[:_MOST_CLASSES]
        drawn = [line for line in drawn if line in largest]
        title = f"shares of the classes of {model} over rho" + (f", {name}" if name else "")
        title += f", the {_MOST_CLASSES} largest of {len(classes)}" * (len(classes) > _MOST_CLASSES)
        key = f"shares-{member_name(model)}" + (f"-truncation{psi:g}" if name else "")
        drawings[key] = plots.panels(
            drawn, title=title, x_label="rho", y_label="share", levels=level, band_name=_BANDS[0]
        )
    where = ("attributes", model, "total_variation")
    title = f"imbalance of the classes of {model} over rho"
    label = "total variation from equal shares"
    return drawings | {f"imbalance-{member_name(model)}": _over_rho(fields, by_truncation, where, title, label)}
