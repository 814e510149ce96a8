"""Compare samples with a reference: FID, KID, precision, recall, density, coverage, diversity, duplicates.

One sample gets intervals within its draw, by the jackknife. Several samples, of independent pools, get Student's
intervals over them, each compared with its own part of the reference.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from magnet_cli.errors import MagnetError, SampleError
from magnet_cli.files import image_folder
from magnet_cli.files.image_folder import ImageSet
from magnet_cli.files.progress import SILENT, Messages, Progress, Stages, no_stages
from magnet_cli.files.results import ResultFolder
from magnet_cli.maths.metrics import frechet, icfid, intervals, kid, neighbours
from magnet_cli.maths.metrics.intervals import GROUPS, Estimate
from magnet_cli.models import default_device, image_models, kept_outputs
from magnet_cli.models.image_models import ImageScorer
from magnet_cli.models.kept_outputs import ModelOutputs
from magnet_cli.sampling.kinds import SAMPLE

if TYPE_CHECKING:
    from magnet_cli.sampling.sample_folder import Sample

    Images: TypeAlias = Sample | ImageSet | Path | str

_MIN_IMAGES = 2 * GROUPS  # for an interval
_SHARES = ("precision", "recall", "coverage")
_PARTS = 0x7061727473  # random stream that divides the reference


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest:
    """Arguments of `magnet evaluate`; the fields are its arguments and flags, described in docs/reference/cli.md."""

    samples: tuple[Path, ...]
    reference: Path
    features: str | None = None
    nearest_k: int = 5
    by_class: bool = False
    device: str | None = None
    trust: bool = False


@dataclass(frozen=True)
class Evaluation:
    """Metrics of samples against a reference; a metric of features has their name, as "fid[digits]".

    `n` is the number of images of a sample, `reference_n` that of the reference which each sample is compared with;
    `interval` says what the 95 % intervals of `metrics` cover; `each` holds the value of each sample, `undefined` the
    reason for each metric without a value, `matched` with ICFID: label → class of the reference, for each sample.
    """

    n: int
    reference_n: int
    interval: str
    metrics: dict[str, Estimate]
    each: dict[str, list[float]]
    undefined: dict[str, str]
    warnings: list[str] = field(default_factory=list)
    matched: list[dict[str, str]] | None = None


def evaluate(
    sample: "Images | Sequence[Images]",
    reference: "Images",
    *,
    features: str | None = None,
    nearest_k: int = 5,
    by_class: bool = False,
    device: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Estimate]:
    """Return the metrics of samples against a reference, with 95 % intervals.

    FID (Heusel et al. 2017) and KID (Binkowski et al. 2018), precision and recall (Kynkäänniemi et al. 2019), density
    and coverage (Naeem et al. 2020), diversity (mean distance between two images), duplicates. One sample gets
    intervals within its draw (delete-d jackknife, Shao & Wu 1989), several get Student's intervals over them
    (docs/method.md#intervals). Features are kept in the cache, so that images are scored once.

    Args:
        sample: a Sample, or the path of a sample or of a folder of images; a list of them for independent pools of one
            length.
        reference: the images to compare with.
        features: image model whose features are compared: a name, "file.py:factory", or a path of ONNX; None for
            "digits" for 32×32 grey images, else "efficientnet-lite0".
        nearest_k: k of the nearest-neighbour metrics.
        by_class: True to add ICFID, the mean FID of labels against classes.
        device: as for `load`; None for a GPU if there is one.
        progress: called with (done, total) of the current stage.

    Returns:
        {"fid[FEATURES]": Estimate(value, low, high), ...}. Metrics that are undefined for so few images are left out,
        with a Python warning.

    Raises:
        SampleError: fewer than 40 images, samples of different lengths or that share images, no classes.
        GeneratorError: the model does not take the images.
        MagnetError: scikit-learn is not installed.

    >>> from magnet_cli.sampling.sample import sample
    >>> near, far = (sample("mnist", 80, rho, out=f"rho{rho}", seed=seed) for seed, rho in enumerate((0, 0.2)))
    >>> metrics = evaluate(far, near)
    >>> sorted(metrics)[:3]
    ['coverage[digits]', 'density[digits]', 'diversity[digits]']
    """
    samples = sample if isinstance(sample, Sequence) and not isinstance(sample, str) else [sample]
    images, against = [_open(each) for each in samples], _open(reference)
    scorer = image_models.load_scorer(features or default_features(images[0].shape), device or default_device())
    evaluation = compare(images, against, scorer, nearest_k, _stages(progress), by_class=by_class)
    for text in [*evaluation.warnings, *(f"{name}: {why}" for name, why in evaluation.undefined.items())]:
        SILENT.warning(text)
    return evaluation.metrics


def _open(images: "Images") -> ImageSet:
    if isinstance(images, ImageSet):
        return images
    return ImageSet.open(Path(images) if isinstance(images, str | Path) else images.path)


def _stages(progress: Progress | None) -> Stages:
    if progress is None:
        return no_stages

    @contextlib.contextmanager
    def stage(_label: str, total: int, _unit: str) -> Iterator[Callable[[int], None]]:
        done = 0

        def advance(more: int) -> None:
            nonlocal done
            done += more
            progress(done, total)

        yield advance

    return stage


def run(request: EvaluateRequest, stages: Stages = no_stages, messages: Messages = SILENT) -> dict[str, Any]:
    """Evaluate samples as `magnet evaluate`, and return the report; raises what `evaluate` raises."""
    start = time.monotonic()
    samples, reference = [ImageSet.open(path) for path in request.samples], ImageSet.open(request.reference)
    name = request.features or default_features(samples[0].shape)
    scorer = image_models.load_scorer(name, request.device or default_device(), trust=request.trust)
    evaluation = compare(samples, reference, scorer, request.nearest_k, stages, by_class=request.by_class)
    for text in [*evaluation.warnings, *(f"{name}: {why}" for name, why in evaluation.undefined.items())]:
        messages.warning(text)
    messages.note(
        f"n {evaluation.n:,}, reference {evaluation.reference_n:,}, k {request.nearest_k}; 95 % intervals "
        f"{evaluation.interval}"
    )
    fields = asdict(evaluation)
    order = ["n", "reference_n", "interval", "each", "undefined", "warnings", "matched", "metrics"]
    report: dict[str, Any] = {
        "sample": [str(path) for path in request.samples],
        "reference": str(request.reference),
        "features": scorer.name,
        "features_sha256": scorer.sha256,
        "nearest_k": request.nearest_k,
        **{name: fields[name] for name in order if name != "matched" or request.by_class},
        "seconds": round(time.monotonic() - start, 3),
    }
    for images in samples:
        if images.is_sample:
            _keep(images, report, messages)
    return report


def _keep(images: ImageSet, report: dict[str, Any], messages: Messages) -> None:
    """Write an evaluation into sample.json, in the place of an older one of the same; a sample may be read-only."""
    folder, same = ResultFolder(images.path, SAMPLE), ("sample", "reference", "features_sha256", "nearest_k")
    try:
        with folder.changing() as fields:
            kept = fields.get("evaluations", [])
            others = [each for each in kept if any(each.get(name) != report[name] for name in same)]
            if ImageSet.open(images.path).contents != images.contents:
                raise SampleError(f"{images.path} was replaced meanwhile", "repeat the command")
            folder.publish(fields | {"evaluations": [*others, report]})
    except MagnetError as error:
        messages.warning(f"the evaluation is not kept with the sample: {error.message}")
    else:
        messages.note(f"kept in {folder.document}: magnet report {images.path}")


def default_features(shape: tuple[int, ...]) -> str:
    """Return the name of the model whose features are used by default for images of shape (H, W, C)."""
    return "digits" if shape == (32, 32, 1) else "efficientnet-lite0"


def interval_name(num_samples: int) -> str:
    """Return what the intervals of one sample, or of several, cover."""
    return "within this draw" if num_samples == 1 else f"over {num_samples} samples"


def compare(
    samples: list[ImageSet],
    reference: ImageSet,
    scorer: ImageScorer,
    nearest_k: int = 5,
    stages: Stages = no_stages,
    *,
    by_class: bool = False,
) -> Evaluation:
    """Compare samples with a reference, as `evaluate`."""
    length = len(reference) // len(samples)
    classes = reference.classes() if by_class else None
    labels = [images.classes()[0] for images in samples] if by_class else []
    _check_lengths(samples, reference, length, nearest_k)
    by_path = {images.path: _score(images, scorer, stages) for images in (*samples, reference)}
    outputs, theirs = [by_path[images.path] for images in samples], by_path[reference.path]
    order = np.arange(length)
    if len(samples) > 1:
        kept_outputs.check_repeats(samples, outputs)
        order = np.random.default_rng(_PARTS).permutation(len(reference))[: length * len(samples)]
    parts = order.reshape(len(samples), length)
    n, dimension = len(samples[0]), theirs.values.shape[1]
    undefined = _undefined(scorer, dimension, n, length)
    with_fid = not undefined
    replicas: dict[str, list[Any]] = {}
    for one, part in zip(outputs, parts, strict=True):
        for name, values in _replicas(one, theirs.values[part], nearest_k, stages, with_fid=with_fid).items():
            replicas.setdefault(name, []).append(values)
    matched: list[dict[str, str]] | None = None
    if classes is not None:
        matched = []
        groups = [(own, classes[0][part]) for own, part in zip(labels, parts, strict=True)]
        undefined |= (reasons := _undefined_by_class(scorer, dimension, groups))
        for one, part, pair in zip(outputs, parts, groups, strict=True) if not reasons else ():
            values, pairs = _by_class(one, theirs.values[part], pair, stages)
            replicas.setdefault("icfid", []).append(values)
            matched.append({str(label): classes[1][index] for label, index in pairs})
    names = {name: name if name == "duplicates" else _with_features(name, scorer) for name in replicas}
    return Evaluation(
        n,
        length,
        interval_name(len(samples)),
        {names[name]: _estimate(name, values, n, length) for name, values in replicas.items()},
        {
            names[name]: [each / n if isinstance(each, int) else float(each[-1]) for each in values]
            for name, values in replicas.items()
        },
        undefined,
        _warnings(samples, outputs, theirs) + image_folder.left_out([*samples, reference]),
        matched,
    )


def _score(images: ImageSet, scorer: ImageScorer, stages: Stages) -> ModelOutputs:
    with stages(f"features of {images.path.name}", len(images), "images") as advance:
        return kept_outputs.concatenated(kept_outputs.score_images(images, scorer), advance)


def _with_features(name: str, scorer: ImageScorer) -> str:
    return f"{name}[{scorer.name}]"


def _replicas(
    one: ModelOutputs, reference: np.ndarray, nearest_k: int, stages: Stages, *, with_fid: bool
) -> dict[str, Any]:
    """Return the values of metrics [GROUPS + 1]: entry g leaves group g out, the last uses all; duplicates: a count."""
    sides = one.values.astype(np.float64), reference.astype(np.float64)
    n, m = (len(side) for side in sides)
    groups = intervals.groups(n, 0), intervals.groups(m, 1)
    replicas: dict[str, Any] = {}
    if with_fid:
        with stages("FID", GROUPS + 1, "fits") as advance:
            value, without = frechet.fid(*sides, groups, advance)
            replicas["fid"] = np.append(without, value)
    with stages("KID and diversity", n * (n - 1) // 2 + m * (m - 1) // 2 + n * m, "pairs") as advance:
        replicas |= kid.kid_and_diversity(*sides, groups, advance)
    with stages("neighbours", n + 2 * m, "points") as advance:
        replicas |= neighbours.prdc(*sides, nearest_k, groups, advance)
    return replicas | {"duplicates": n - len(np.unique(one.digests, axis=0))}


def _by_class(
    one: ModelOutputs, reference: np.ndarray, labels: tuple[np.ndarray, np.ndarray], stages: Stages
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Return ICFID [GROUPS + 1], as `_replicas`, and pairs of label and class."""
    sides = one.values.astype(np.float64), reference.astype(np.float64)
    groups = intervals.groups(len(sides[0]), 0), intervals.groups(len(sides[1]), 1)
    sizes = [len(np.unique(each)) for each in labels]
    with stages("ICFID", sizes[0] * sizes[1], "fits") as advance:
        value, without, pairs = icfid.icfid(sides, labels, groups, advance)
    return np.append(without, value), pairs


def _undefined_by_class(
    scorer: ImageScorer, dimension: int, groups: list[tuple[np.ndarray, np.ndarray]]
) -> dict[str, str]:
    fewest = min(int(np.unique(each, return_counts=True)[1].min()) for pair in groups for each in pair)
    least = round(1.2 * dimension) + 2 * GROUPS  # groups are dealt over all classes: one may lose more than its share
    if fewest >= least:
        return {}
    why = f"{fewest:,} images of a class for {dimension:,} features: undefined below {least:,}"
    return {_with_features("icfid", scorer): why}


def _estimate(name: str, values: list[Any], n: int, length: int) -> Estimate:
    """Return a metric with its interval, from the replicas of one sample or the values of several."""
    if name == "duplicates":
        pooled = intervals.wilson(sum(values), n * len(values))
        if len(values) == 1:
            return pooled
        return intervals.over_repeats(np.array(values) / n).no_narrower(pooled).within(0, 1)
    *without, whole = np.mean(values, axis=0)
    estimate = intervals.jackknife(whole, np.array(without))
    if len(values) > 1:  # samples may agree by chance: no interval is narrower than that within the draws
        estimate = intervals.over_repeats(np.array([replicas[-1] for replicas in values])).no_narrower(estimate)
    if name in _SHARES:  # all or no images: no replica differs, and yet the share is not certain
        rows = (n if name == "precision" else length) * len(values)
        estimate = estimate.no_narrower(intervals.wilson(estimate.value * rows, rows))
    # KID is unbiased: below 0 as often as above it where there is no difference
    return estimate if name == "kid" else estimate.within(0, 1 if name in _SHARES else np.inf)


def _check_lengths(samples: list[ImageSet], reference: ImageSet, length: int, nearest_k: int) -> None:
    least = max(_MIN_IMAGES, 4 * nearest_k)
    for images, count in [(each, len(each)) for each in samples] + [(reference, length)]:
        if count < least:
            parts = f" in each of {len(samples)} parts" if images is reference and len(samples) > 1 else ""
            raise SampleError(
                f"{images.path} holds {count:,} images{parts}: FID is undefined with so few, and no metric has an "
                f"interval below {least}",
                f"pass at least {least} images; FID needs more images than there are features",
            )
    kept_outputs.check_lengths(samples)


def fewest_for_fid(dimension: int) -> int:
    """Return the fewest images for which FID is defined: full rank without any group of the jackknife."""
    return next(count for count in range(dimension, 2 * dimension + 2) if count - -(-count // GROUPS) > dimension)


def _undefined(scorer: ImageScorer, dimension: int, n: int, m: int) -> dict[str, str]:
    least = fewest_for_fid(dimension)
    if min(n, m) >= least:
        return {}
    why = f"{min(n, m):,} images for {dimension:,} features: undefined below {least:,}, the covariance has no full rank"
    return {_with_features("fid", scorer): why}


def _warnings(samples: list[ImageSet], outputs: list[ModelOutputs], reference: ModelOutputs) -> list[str]:
    warnings = []
    for images, one in zip(samples, outputs, strict=True):
        if shared := kept_outputs.num_shared(one, reference):
            warnings.append(f"{shared:,} images of {images.path} are in the reference too: the two are not independent")
    return warnings + kept_outputs.warnings(samples)
