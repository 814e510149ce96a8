"""Pick the best point of a sweep by one figure. The choice is made on half 1 of the rows, and reported on half 2."""

from magnet_cli.errors import SampleError
from magnet_cli.evaluating.sweep.spec import Scorers, SweepSpec

DIRECTIONS = {"fid": "lowest", "kid": "lowest", "gap": "lowest", "total_variation": "lowest"}
DIRECTIONS |= dict.fromkeys(("precision", "recall", "density", "coverage", "diversity"), "highest")
_OF_CLASSES = ("gap", "total_variation")


def picked_by(pick: str | None, scorers: Scorers, *, has_reference: bool, has_fid: bool) -> str:
    """Return the full name of the figure that picks a point, as SweepSpec.pick.

    `pick` is a key of DIRECTIONS, "none", or None for the default: fid with a reference (kid where FID is undefined),
    else the total variation of the first model, else nothing.
    """
    if pick is None and has_reference:
        pick = "fid" if has_fid else "kid"
    pick = pick or ("total_variation" if scorers.classes else "none")
    if pick == "none":
        return ""
    if pick == "fid" and not has_fid:
        raise SampleError(
            f"fid[{scorers.features.name}] is to pick the rho, and is undefined for so few images",
            "pass a larger `n`, `pick='kid'`, or `features` with fewer numbers",
        )
    if pick not in _OF_CLASSES:
        return f"{pick}[{scorers.features.name}]"
    if not scorers.classes:
        raise SampleError(
            f"rho is to be picked by {pick}, and no model with classes is passed",
            "pass one: `model=NAME`, or another `pick`",
        )
    return f"{scorers.classes[0].name}.{pick}"


def estimate(point: dict, name: str) -> dict:
    """Return a figure of a point, {"value", "low", "high"}: a metric, or MODEL.gap, MODEL.total_variation."""
    model, _, measure = name.rpartition(".")
    if measure in _OF_CLASSES:
        return point["attributes"][model][measure]
    if name not in point["metrics"]:
        reason = point["undefined"].get(name, "no such metric")
        raise SampleError(f"{name} is to pick the rho, and is undefined: {reason}", "pass another `pick`")
    return point["metrics"][name]


def direction(name: str) -> str:
    """Return "lowest" or "highest": which value of a figure is picked."""
    measure = name.rpartition(".")[2]
    return DIRECTIONS[measure if measure in _OF_CLASSES else name.partition("[")[0]]


def best(spec: SweepSpec, measured: list[dict]) -> dict:
    """Return the point of half 1 with the best value; of several, the one with the smallest |rho|."""
    sign = 1 if direction(spec.pick) == "lowest" else -1
    return min(measured, key=lambda point: (sign * estimate(point, spec.pick)["value"], abs(point["rho"])))


def choose(spec: SweepSpec, measured: list[dict]) -> dict | None:
    """Return the choice for sweep.json, from all measured points."""
    if not spec.pick:
        return None
    chosen = best(spec, [point for point in measured if point["half"] == 1])
    reported = {point["rho"]: point for point in measured if point["half"] == 2}
    return {
        "by": spec.pick,
        "direction": direction(spec.pick),
        "rho": chosen["rho"],
        "truncation": chosen["truncation"],
        "chosen": reported[chosen["rho"]],
        "baseline": reported[0.0],
    }
