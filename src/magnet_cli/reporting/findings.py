"""What `magnet evaluate --json` and `magnet attributes SAMPLE --json` printed, read from files; whoever wrote these.

Owns telling the two apart and that every number is one. Attributes of a sample (sample.json) and of a generator
(attributes.json) have the same form, and are read here too.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from magnet_cli.errors import MagnetError
from magnet_cli.files import atomic
from magnet_cli.maths.metrics.class_shares import Tally
from magnet_cli.maths.metrics.intervals import Estimate

WRONG = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)  # of documents read as ours
_DO = "pass what `magnet evaluate … --json` or `magnet attributes SAMPLE … --json` printed, as a file"


@dataclass(frozen=True)
class Shares:
    """What an image model says of images.

    Attributes:
        n: images; of each sample, where there are several.
        shares: of each class.
        gap: the largest share less the smallest.
        total_variation: how far shares are from equal.
        change: in gap and total variation, from another set of images; empty where there is none.
        change_from: that set, or sets.
        p_value: of no change.
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
        """The counts that the shares of one sample are of."""
        counts = [round(each.value * self.n) for each in self.shares.values()]
        return Tally(tuple(self.shares), np.array(counts, np.int64))


@dataclass(frozen=True)
class Evaluation:
    """Metrics of samples against a reference.

    Attributes:
        name: of the file.
        sample: paths, joined.
        reference: its path.
        features: the model whose features are compared.
        n: images of a sample.
        reference_n: of the reference.
        interval: what intervals are over, in words.
        metrics: by name, with the features: "fid[digits]".
        undefined: metrics that have no value, and why.
    """

    name: str
    sample: str
    reference: str
    features: str
    n: int
    reference_n: int
    interval: str
    metrics: dict[str, Estimate]
    undefined: dict[str, str]


@dataclass(frozen=True)
class Attributes:
    """What image models say of a sample.

    Attributes:
        name: of the file.
        sample: paths, joined.
        models: by their names.
    """

    name: str
    sample: str
    models: dict[str, Shares]


def read(path: Path) -> Evaluation | Attributes:
    """What a file holds that one of the two commands printed.

    Raises:
        MagnetError: it cannot be read, or holds something else.
    """
    with atomic.explained("read", path):
        data = path.read_bytes()
    try:
        fields = json.loads(data)
        if not isinstance(fields, dict) or not {"metrics", "models"} & set(fields):
            message = "neither metrics nor models are in it"
            raise ValueError(message)
        if "metrics" in fields:
            return _evaluation(path.stem, fields)
        return Attributes(path.stem, _texts(fields["sample"]), models(fields["models"]))
    except WRONG as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        message = f"{path} is asked for as findings, and is something else: {why}"
        raise MagnetError(message, _DO) from error


def models(fields: dict) -> dict[str, Shares]:
    """Shares by model, from a JSON document.

    Raises:
        Those of WRONG: it is something else.
    """
    return {name: _shares(each) for name, each in fields.items()}


def estimates(fields: dict) -> dict[str, Estimate]:
    """Numbers with intervals by their names, from a JSON document.

    Raises:
        Those of WRONG: it is something else.
    """
    return {name: _estimate(each) for name, each in fields.items()}


def _evaluation(name: str, fields: dict) -> Evaluation:
    sample = _texts(fields["sample"])
    counts = (_count(fields[key]) for key in ("n", "reference_n"))
    undefined = {metric: _text(why) for metric, why in fields["undefined"].items()}
    texts = (_text(fields[key]) for key in ("reference", "features"))
    metrics = estimates(fields["metrics"])
    return Evaluation(name, sample, *texts, *counts, _text(fields["interval"]), metrics, undefined)


def _shares(fields: dict) -> Shares:
    change = fields.get("change") or {}
    said = {key: _estimate(change[key]) for key in ("gap", "total_variation") if change}
    shares = estimates(fields["shares"])
    n = _count(fields["n"])
    if len(shares) < 2 or not all(0 <= each.value <= 1 for each in shares.values()):
        message = f"{len(shares)} shares, or some outside 0 and 1"
        raise ValueError(message)
    measures = (_estimate(fields[key]) for key in ("gap", "total_variation"))
    rest = (_texts(change["from"]), _number(change["p_value"])) if change else ()
    return Shares(n, shares, *measures, said, *rest)


def _estimate(fields: dict) -> Estimate:
    return Estimate(*(_number(fields[key]) for key in ("value", "low", "high")))


def _number(value: object) -> float:
    if type(value) not in {int, float} or not math.isfinite(value):
        message = f"{value!r} is not a number"
        raise ValueError(message)
    return float(value)


def _count(value: object) -> int:
    if type(value) is not int or value < 1:
        message = f"{value!r} is not a number of images"
        raise ValueError(message)
    return value


def _texts(values: object) -> str:
    """Texts, joined."""
    if not isinstance(values, list) or not values:
        message = f"{values!r} is no list of texts"
        raise ValueError(message)
    return ", ".join(map(_text, values))


def _text(value: object) -> str:
    if not isinstance(value, str):
        message = f"{value!r} is not a text"
        raise ValueError(message)
    return value
