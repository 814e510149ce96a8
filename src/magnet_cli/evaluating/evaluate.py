"""Hold samples against a reference: FID, KID, precision, recall, density, coverage, diversity, duplicates.

Joins features and metrics. One sample gets intervals within its draw, by the jackknife; several, of independent pools,
get Student's over them, each against a part of the reference of its own.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import numpy as np

from magnet_cli.errors import SampleError
from magnet_cli.files.image_folder import ImageSet
from magnet_cli.maths.metrics import frechet, icfid, intervals, kid, neighbours
from magnet_cli.maths.metrics.intervals import GROUPS, Estimate
from magnet_cli.models import kept_outputs
from magnet_cli.models.image_models import ImageScorer
from magnet_cli.models.kept_outputs import ModelOutputs

Progress = Callable[[str, int, str], AbstractContextManager[Callable[[int], None]]]
LEAST = 2 * GROUPS  # images that an interval can be had of
WITHIN = "within this draw"
_SHARES = ("precision", "recall", "coverage")
_PARTS = 0x7061727473  # keeps the stream that parts the reference apart from all others


def default_features(shape: tuple[int, int, int]) -> str:
    """The model whose features are used where none is named, for images of a shape (H, W, C)."""
    return "digits" if shape == (32, 32, 1) else "efficientnet-lite0"


@contextlib.contextmanager
def no_progress(_label: str, _total: int, _unit: str) -> Iterator[Callable[[int], None]]:
    """Progress that nobody sees."""
    yield lambda _: None


def evaluate(
    samples: list[ImageSet],
    reference: ImageSet,
    judge: ImageScorer,
    nearest_k: int = 5,
    progress: Progress = no_progress,
    *,
    by_class: bool = False,
) -> dict:
    """The metrics of samples against a reference.

    Args:
        samples: one; or several, of independent pools and all of one length.
        reference: what they are held against.
        judge: whose features are used.
        nearest_k: k of precision, recall, density and coverage.
        progress: makes a bar of label, total and unit.
        by_class: ICFID too, of the labels of samples against the classes of the reference.

    Returns:
        n, reference_n (of each comparison), interval, "metrics": {name: Estimate}, "each": {name: a value for each
        sample}, "undefined": {name: why}, "warnings", and by class "matched": for each sample its labels and the
        classes they are held against. Names carry the features: "fid[digits]".

    Raises:
        SampleError: too few images, samples of different lengths, or such that share images; classes are asked for,
            and there are none.
        GeneratorError: the model does not take the images.
        MagnetError: scikit-learn is not installed.
    """
    length = len(reference) // len(samples)
    classes = reference.classes() if by_class else None
    labels = [shown.classes()[0] for shown in samples] if by_class else []
    _check_lengths(samples, reference, length, nearest_k)
    looked = {shown.path: _look(shown, judge, progress) for shown in (*samples, reference)}
    seen = [looked[shown.path] for shown in samples]
    if len(seen) > 1:
        kept_outputs.check_repeats(samples, seen)
    theirs = looked[reference.path]
    order = np.arange(length)
    if len(samples) > 1:
        order = np.random.default_rng(_PARTS).permutation(len(reference))[: length * len(samples)]
    parts = order.reshape(len(samples), length)
    found: dict[str, list] = {}
    undefined = _undefined(judge, theirs.values.shape[1], len(samples[0]), length)
    with_fid = not undefined
    for one, part in zip(seen, parts, strict=True):
        values = _compared(one, theirs.values[part], nearest_k, progress, with_fid=with_fid)
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    matched: list[dict] = []
    if by_class:
        groups = [(own, classes[0][part]) for own, part in zip(labels, parts, strict=True)]
        if why := _undefined_by_class(judge, theirs.values.shape[1], groups):
            undefined |= why
        else:
            for one, part, of in zip(seen, parts, groups, strict=True):
                value, which = _by_class(one, theirs.values[part], of, progress)
                found.setdefault("icfid", []).append(value)
                matched.append({str(label): classes[1][name] for label, name in which})
    metrics = {_named(name, judge): _estimate(name, values, len(samples[0]), length) for name, values in found.items()}
    return {
        "n": len(samples[0]),
        "reference_n": length,
        "interval": WITHIN if len(samples) == 1 else f"over {len(samples)} samples",
        "metrics": metrics,
        "each": {
            _named(name, judge): [_value(one, len(samples[0])) for one in values] for name, values in found.items()
        },
        "undefined": undefined,
        "warnings": _warnings(samples, seen, theirs),
    } | ({"matched": matched} if by_class else {})


def _look(shown: ImageSet, judge: ImageScorer, progress: Progress) -> ModelOutputs:
    with progress(f"looking at {shown.path.name}", len(shown), "images") as advance:
        return kept_outputs.concatenated(kept_outputs.score_images(shown, judge), advance)


def _named(name: str, judge: ImageScorer) -> str:
    return name if name == "duplicates" else f"{name}[{judge.name}]"


def _compared(one: ModelOutputs, reference: np.ndarray, nearest_k: int, progress: Progress, *, with_fid: bool) -> dict:
    """Each metric's values without each group and last without none, [GROUPS + 1]; duplicates, the number of them."""
    sides = one.values.astype(np.float64), reference.astype(np.float64)
    n, m = (len(side) for side in sides)
    dealt = intervals.groups(n, 0), intervals.groups(m, 1)
    found = {}
    if with_fid:
        with progress("FID", GROUPS + 1, "fits") as advance:
            value, replicas = frechet.fid(*sides, dealt, advance)
            found["fid"] = np.append(replicas, value)
    with progress("KID and diversity", n * (n - 1) // 2 + m * (m - 1) // 2 + n * m, "pairs") as advance:
        found |= kid.kid_and_diversity(*sides, dealt, advance)
    with progress("neighbours", n + 2 * m, "points") as advance:
        found |= neighbours.prdc(*sides, nearest_k, dealt, advance)
    return found | {"duplicates": n - len(np.unique(one.digests, axis=0))}


def _value(found: np.ndarray | int, n: int) -> float:
    """A metric of one sample, from its replicas; of duplicates, their share."""
    return found / n if isinstance(found, int) else float(found[-1])


def _by_class(
    one: ModelOutputs, reference: np.ndarray, labels: tuple[np.ndarray, np.ndarray], progress: Progress
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """ICFID without each group and last without none, [GROUPS + 1]; and which label is which class."""
    sides = one.values.astype(np.float64), reference.astype(np.float64)
    dealt = tuple(intervals.groups(len(side), number) for number, side in enumerate(sides))
    sizes = [len(np.unique(each)) for each in labels]
    with progress("ICFID", sizes[0] * sizes[1], "fits") as advance:
        value, replicas, which = icfid.icfid(sides, labels, dealt, advance)
    return np.append(replicas, value), which


def _undefined_by_class(
    judge: ImageScorer, dimension: int, groups: list[tuple[np.ndarray, np.ndarray]]
) -> dict[str, str]:
    """Why ICFID cannot be had, where it cannot: a class has too few images once a group of the jackknife is gone."""
    fewest = min(int(np.unique(each, return_counts=True)[1].min()) for pair in groups for each in pair)
    least = round(1.2 * dimension) + 2 * GROUPS  # groups are dealt over all classes: one may lose more than its share
    if fewest >= least:
        return {}
    why = f"{fewest:,} images of a class for {dimension:,} features: undefined below {least:,}"
    return {_named("icfid", judge): why}


def _estimate(name: str, values: list, n: int, length: int) -> Estimate:
    """A metric with its interval, from one sample's replicas or from many samples' values."""
    if name == "duplicates":
        pooled = intervals.wilson(sum(values), n * len(values))
        if len(values) == 1:
            return pooled
        return intervals.over_repeats(np.array(values) / n).no_narrower(pooled).within(0, 1)
    if len(values) > 1:
        found = intervals.over_repeats(np.array([replicas[-1] for replicas in values]))
    else:
        found = intervals.jackknife(values[0][-1], values[0][:-1])
        if name in _SHARES:  # all inside, or none: no replica differs, and yet the share is not known for certain
            rows = n if name == "precision" else length
            found = found.no_narrower(intervals.wilson(found.value * rows, rows))
    if name == "kid":  # unbiased, and below 0 as often as above it where there is no difference
        return found
    return found.within(0, 1 if name in _SHARES else np.inf)


def _check_lengths(samples: list[ImageSet], reference: ImageSet, length: int, nearest_k: int) -> None:
    least = max(LEAST, 4 * nearest_k)
    for shown, count in [(shown, len(shown)) for shown in samples] + [(reference, length)]:
        if count < least:
            parts = f" in each of {len(samples)} parts" if shown is reference and len(samples) > 1 else ""
            message = f"{shown.path} holds {count:,} images{parts}: FID is undefined with so few, and no metric has an "
            message += f"interval below {least}"
            raise SampleError(message, f"pass at least {least} images; FID takes more than there are features")
    kept_outputs.check_lengths(samples)


def fewest_for_fid(dimension: int) -> int:
    """The fewest images for which FID is defined: covariances have full rank without any group of the jackknife."""
    return next(count for count in range(dimension, 2 * dimension + 2) if count - -(-count // GROUPS) > dimension)


def _undefined(judge: ImageScorer, dimension: int, n: int, m: int) -> dict[str, str]:
    least = fewest_for_fid(dimension)
    if min(n, m) >= least:
        return {}
    why = f"{min(n, m):,} images for {dimension:,} features: undefined below {least:,}, the covariance has no full rank"
    return {_named("fid", judge): why}


def _warnings(samples: list[ImageSet], seen: list[ModelOutputs], reference: ModelOutputs) -> list[str]:
    found = []
    for shown, one in zip(samples, seen, strict=True):
        if shared := kept_outputs.num_shared(one, reference):
            found.append(f"{shared:,} images of {shown.path} are in the reference too: the two are not independent")
    return found + kept_outputs.warnings(samples)
