"""Training data for SLOGAN: the synthetic set, an npz file, or a folder of images; and a few labelled samples.

Labels only serve the metrics: training sees no labels except those of the probe.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from magnet_cli.errors import MagnetError, SampleError, SpecError
from magnet_cli.files import atomic, documents, npz
from magnet_cli.files.image_folder import ImageSet

SYNTHETIC = "synthetic"
_PER_UNIT = 5_000  # points of the synthetic set for a weight of 1/16
_RADIUS, _VARIANCE, _MODES = 2.0, 0.01, 8
_KINDS = ("points", "images")


@dataclass(frozen=True)
class DataSet:
    """Points or images, all of one shape.

    Attributes:
        name: the reference that was loaded.
        values: [N, F] float32 points, or [N, C, S, S] uint8 pixels.
        labels: [N] int64, or None where they are unknown.
        classes: names of the labels.
        sha256: hash of the values.
    """

    name: str
    values: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...]
    sha256: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample: (F,) or (C, S, S)."""
        return self.values.shape[1:]

    def intensities(self, rows: np.ndarray) -> np.ndarray:
        """Return some samples as the networks take them: float32, images in [-1, 1]."""
        return intensities(self.values[rows])

    @property
    def shares(self) -> np.ndarray | None:
        """Share of each class [C] float64; None where labels are unknown."""
        if self.labels is None:
            return None
        return np.bincount(self.labels, minlength=len(self.classes)) / len(self.labels)


def intensities(values: np.ndarray) -> np.ndarray:
    """Return float32 values: points unchanged, uint8 pixels scaled to [-1, 1]."""
    return values / np.float32(127.5) - np.float32(1) if values.dtype == np.uint8 else values


def synthetic() -> DataSet:
    """Return the paper's 80,000 points of 8 Gaussians on a circle, weights alternating 1/16 and 3/16.

    The points are the same at every call. Radius 2 and covariance 0.01 I; then each coordinate is scaled to [-1, 1] by
    its minimum and maximum.
    """
    counts = _PER_UNIT * np.resize([1, 3], _MODES)
    labels = np.repeat(np.arange(_MODES), counts)
    noise = np.random.default_rng(0).standard_normal((len(labels), 2)) * np.sqrt(_VARIANCE)
    points = _circle()[labels] + noise
    low, high = points.min(axis=0), points.max(axis=0)
    values = (2 * (points - low) / (high - low) - 1).astype(np.float32)
    return _data_set(SYNTHETIC, values, labels, tuple(map(str, range(_MODES))))


def _circle() -> np.ndarray:
    angles = 2 * np.pi * np.arange(_MODES) / _MODES
    return _RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def load(reference: str) -> DataSet:
    """Load training data.

    Args:
        reference: "synthetic"; an npz file with `points` [N, F] or `images` [N, S, S], [N, S, S, C] or [N, C, S, S]
            uint8, and integer `labels` [N] if they are known; or a folder of images, with one folder per class if
            classes are known.

    Raises:
        SpecError: there is no such file or folder, or its content has another form.
        SampleError, MagnetError: a file cannot be read, or is not an image.
    """
    if reference == SYNTHETIC:
        return synthetic()
    path = Path(reference).expanduser()
    if path.is_dir():
        return _folder(path, reference)
    if not path.is_file():
        message = f"the training data {reference} cannot be loaded: there is no such file or folder"
        raise SpecError(message, "pass a folder of images, an npz file with images or points, or synthetic")
    return _archive(path, reference)


def load_probe(path: Path, like: DataSet, components: int) -> DataSet:
    """Load a few labelled samples; label c belongs to component c.

    Raises:
        SpecError: the samples have no labels, a label outside the components, or another shape than the data.
        MagnetError: the file cannot be read.
    """
    samples = load(str(path))
    hint = "pass an npz file with images (or points) like the data, and labels 0..K-1, a few of each"
    if samples.labels is None or samples.labels.max() >= components:
        content = "no labels" if samples.labels is None else f"label {samples.labels.max()}"
        raise SpecError(f"labelled samples of {components} components are needed, and {path} holds {content}", hint)
    if samples.shape != like.shape or samples.values.dtype != like.values.dtype:
        message = f"{path} holds samples of shape {list(samples.shape)}, and the data have {list(like.shape)}"
        raise SpecError(message, hint)
    return samples


def _archive(path: Path, name: str) -> DataSet:
    with atomic.explained("read", path):
        data = path.read_bytes()
    hint = "pass an npz file with points [N, F] or images [N, S, S] uint8, and labels [N] if they are known"
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            kind = next((kind for kind in _KINDS if kind in arrays), None)
            values = None if kind is None else arrays[kind]
            labels = arrays.get("labels", None)
    except (OSError, KeyError, *npz.DAMAGED) as error:
        message = f"{path} cannot be read as an npz file: {next(iter(str(error).splitlines()), type(error).__name__)}"
        raise SpecError(message, hint) from error
    if values is None:
        raise SpecError(f"{path} holds neither points nor images", hint)
    values = _points(values) if kind == "points" else _channels_first(values)
    if values is None:
        message = f"{path} has {kind} of the wrong form: points are numbers [N, F], images are square with 8-bit pixels"
        raise SpecError(message, hint)
    if labels is not None and (labels.shape != values.shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0):
        message = f"{path} holds labels {labels.dtype} {list(labels.shape)} beside {len(values):,} {kind}"
        raise SpecError(message, hint)
    classes = () if labels is None else tuple(map(str, range(int(labels.max()) + 1)))
    return _data_set(name, values, None if labels is None else labels.astype(np.int64), classes)


def _points(values: np.ndarray) -> np.ndarray | None:
    if values.ndim != 2 or values.dtype.kind not in "iuf" or not values.size:
        return None
    points = values.astype(np.float32)
    return points if np.isfinite(points).all() else None


def _channels_first(values: np.ndarray) -> np.ndarray | None:
    if values.ndim == 3:
        values = values[:, None]
    elif values.ndim == 4 and values.shape[3] in {1, 3} and values.shape[1] not in {1, 3}:
        values = values.transpose(0, 3, 1, 2)
    right = values.dtype == np.uint8 and values.ndim == 4 and values.shape[1] in {1, 3} and values.size
    return np.ascontiguousarray(values) if right and values.shape[2] == values.shape[3] else None


def _folder(path: Path, name: str) -> DataSet:
    images = ImageSet.open(path)
    values = np.concatenate(list(images.batches(0, len(images)))).transpose(0, 3, 1, 2)
    if values.shape[2] != values.shape[3]:
        message = f"the images of {path} are {values.shape[3]}×{values.shape[2]}, and square images are needed"
        raise SpecError(message, "crop them first")
    try:
        labels, classes = images.classes()
    except SampleError:  # no classes are known
        labels, classes = None, ()
    return _data_set(name, np.ascontiguousarray(values), labels, classes)


def _data_set(name: str, values: np.ndarray, labels: np.ndarray | None, classes: tuple[str, ...]) -> DataSet:
    if len(values) < 2:
        raise MagnetError(f"{name} holds {len(values)} samples, too few to learn from", "pass more data")
    shape = repr((values.shape, values.dtype.str)).encode()
    return DataSet(name, values, labels, classes, documents.sha256_bytes(shape + values.tobytes()))
