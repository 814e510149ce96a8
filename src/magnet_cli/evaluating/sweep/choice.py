"""Which point of a sweep is the best, by one number that was measured of each.

Owns the names of what can choose, and the way each points. The choice is made on half 1, and reported on half 2.
"""

from magnet_cli.errors import SampleError
from magnet_cli.evaluating.sweep.spec import Judges, SweepSpec

DIRECTIONS = {"fid": "lowest", "kid": "lowest", "gap": "lowest", "total_variation": "lowest"}
DIRECTIONS |= dict.fromkeys(("precision", "recall", "density", "coverage", "diversity"), "highest")
OF_CLASSES = ("gap", "total_variation")  # of these, what is measured of an image model's classes


def picked_by(pick: str | None, judges: Judges, *, given: bool, has_fid: bool) -> str:
    """The full name of what chooses the point.

    Args:
        pick: a key of DIRECTIONS, "none", or None for the default: fid against a reference that was given (kid where
            fid is undefined), else the total variation of the first model, else nothing.
        judges: whose features and classes.
        given: whether a reference was given.
        has_fid: whether there are images enough for FID.

    Returns:
        As SweepSpec.pick.

    Raises:
        SampleError: it is of classes, and no model knows any; or FID, and there are too few images.
    """
    if pick is None:
        pick = ("fid" if has_fid else "kid") if given else "total_variation" if judges.models else "none"
    if pick == "none":
        return ""
    if pick == "fid" and not has_fid:
        message = f"fid[{judges.features.name}] is to choose the rho, and is undefined for so few images"
        raise SampleError(message, "pass a larger --n, --pick kid, or --features with fewer")
    if pick not in OF_CLASSES:
        return f"{pick}[{judges.features.name}]"
    if not judges.models:
        message = f"rho is to be picked by {pick}, and no model that knows classes is given"
        raise SampleError(message, "pass one with --model NAME, or another --pick")
    return f"{judges.models[0].name}.{pick}"


def estimate(point: dict, by: str) -> dict:
    """What a point has of a metric, or of MODEL.gap, MODEL.total_variation: value, low, high.

    Raises:
        SampleError: the metric is undefined there.
    """
    model, _, measure = by.rpartition(".")
    if measure in OF_CLASSES:
        return point["attributes"][model][measure]
    if by not in point["metrics"]:
        message = f"{by} is to choose the rho, and is undefined: {point['undefined'].get(by, 'no such metric')}"
        raise SampleError(message, "pass another --pick")
    return point["metrics"][by]


def direction(by: str) -> str:
    """Whether the lowest or the highest value is picked."""
    measure = by.rpartition(".")[2]
    return DIRECTIONS[measure if measure in OF_CLASSES else by.partition("[")[0]]


def best(spec: SweepSpec, found: list[dict]) -> dict:
    """The point with the best value, of those of half 1; the smallest |rho| where several have it."""
    sign = 1 if direction(spec.pick) == "lowest" else -1
    return min(found, key=lambda point: (sign * estimate(point, spec.pick)["value"], abs(point["rho"])))


def concluded(spec: SweepSpec, found: list[dict]) -> dict | None:
    """The choice as sweep.json has it, from all points that `write` gave."""
    if not spec.pick:
        return None
    chosen = best(spec, [point for point in found if point["half"] == 1])
    reported = {point["rho"]: point for point in found if point["half"] == 2}
    fields = {"by": spec.pick, "direction": direction(spec.pick), "rho": chosen["rho"]}
    fields["truncation"] = chosen["truncation"]
    return fields | {"chosen": reported[chosen["rho"]], "baseline": reported[0.0]}
