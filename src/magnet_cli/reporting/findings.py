"""Read and validate the JSON output of `magnet evaluate` and `magnet attributes`, whoever wrote the file.

The attributes in sample.json and attributes.json have the same form and are read here too.
"""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from magnet_cli.errors import MagnetError
from magnet_cli.files import opening
from magnet_cli.maths.metrics.class_shares import Tally
from magnet_cli.maths.metrics.intervals import Estimate

WRONG = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)  # raised by invalid documents
_DO = "pass what `magnet evaluate … --json` or `magnet attributes SAMPLE … --json` printed, as a file"


@dataclass(frozen=True)
class Shares:
    """Class shares of images by one image model; n is the number of images, per sample where there are several.

    `change` holds the change of gap and total variation from another set of images, with the p-value of no change.
    """

    n: int
    shares: dict[str, Estimate]
    gap: Estimate
    total_variation: Estimate
    change: dict[str, Estimate]
    change_from: str = ""
    p_value: float = math.nan

    @property
    def tally(self) -> Tally:
        """Class counts of one sample, from its shares."""
        counts = [round(each.value * self.n) for each in self.shares.values()]
        return Tally(tuple(self.shares), np.array(counts, np.int64))


@dataclass(frozen=True)
class Evaluation:
    """Metrics of samples against a reference, by name with the features: "fid[digits]"."""

    name: str
    sample: str
    reference: str
    features: str
    n: int
    reference_n: int
    interval: str
    metrics: dict[str, Estimate]
    undefined: dict[str, str]

    def is_same_as(self, other: "Evaluation") -> bool:
        """Return whether another one is this evaluation, whatever its name."""
        return dataclasses.replace(other, name=self.name) == self


@dataclass(frozen=True)
class Attributes:
    """Class shares of a sample by several image models."""

    name: str
    sample: str
    models: dict[str, Shares]


def read(path: Path) -> Evaluation | Attributes:
    """Read a file that holds the output of one of the two commands.

    Raises:
        MagnetError: the file cannot be read, or holds something else.
    """
    data = opening.read(path)
    try:
        fields = json.loads(data)
        if not isinstance(fields, dict) or not {"metrics", "models"} & set(fields):
            raise ValueError("it holds neither metrics nor models")
        if "metrics" in fields:
            return _evaluation(path.stem, fields)
        return Attributes(path.stem, _texts(fields["sample"]), models(fields["models"]))
    except WRONG as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        message = f"{path} is not the output of `magnet evaluate` or `magnet attributes`: {why}"
        raise MagnetError(message, _DO) from error


def models(fields: dict) -> dict[str, Shares]:
    """Return shares by model from a JSON object; raise one of WRONG if it is something else."""
    return {name: _shares(each) for name, each in fields.items()}


def evaluations(documents: list[dict]) -> list[Evaluation]:
    """Return the evaluations kept in sample.json, named by sample and reference; raise one of WRONG otherwise."""
    kept = [_evaluation("", each) for each in documents]
    return [dataclasses.replace(each, name=f"{_short(each.sample)} against {_short(each.reference)}") for each in kept]


def estimates(fields: dict) -> dict[str, Estimate]:
    """Return estimates by name from a JSON object; raise one of WRONG if it is something else."""
    return {name: _estimate(each) for name, each in fields.items()}


def _evaluation(name: str, fields: dict) -> Evaluation:
    sample = _texts(fields["sample"])
    return Evaluation(
        name,
        sample,
        reference=_text(fields["reference"]),
        features=_text(fields["features"]),
        n=_count(fields["n"]),
        reference_n=_count(fields["reference_n"]),
        interval=_text(fields["interval"]),
        metrics=estimates(fields["metrics"]),
        undefined={metric: _text(why) for metric, why in fields["undefined"].items()},
    )


def _short(paths: str) -> str:
    names = [Path(path).name for path in paths.split(", ")]
    return names[0] if len(names) == 1 else f"{len(names)} samples"


def _shares(fields: dict) -> Shares:
    change = fields.get("change") or {}
    changes = {key: _estimate(change[key]) for key in ("gap", "total_variation") if change}
    shares = estimates(fields["shares"])
    n = _count(fields["n"])
    if len(shares) < 2 or not all(0 <= each.value <= 1 for each in shares.values()):
        raise ValueError(f"{len(shares)} shares, or some outside 0 to 1")
    gap, total_variation = _estimate(fields["gap"]), _estimate(fields["total_variation"])
    if not change:
        return Shares(n, shares, gap, total_variation, {})
    return Shares(n, shares, gap, total_variation, changes, _texts(change["from"]), _number(change["p_value"]))


def _estimate(fields: dict) -> Estimate:
    return Estimate(*(_number(fields[key]) for key in ("value", "low", "high")))


def _number(value: Any) -> float:  # from JSON
    if type(value) not in {int, float} or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def _count(value: object) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{value!r} is not a number of images")
    return value


def _texts(values: object) -> str:
    if not isinstance(values, list) or not values:
        raise ValueError(f"{values!r} is not a list of texts")
    return ", ".join(map(_text, values))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text")
    return value
