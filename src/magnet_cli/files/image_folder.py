"""Images on disk: those of a sample, or of any folder.

Owns which files they are and the pixels in them. Knows nothing of networks or of what is measured.
"""

import hashlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from magnet_cli.errors import SampleError
from magnet_cli.files import atomic, documents, results

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
_DEEP = ("I", "F")  # Pillow's modes of more than 8 bits a channel
_BATCH_NUMBERS = 1 << 22
_MOST = 64


@dataclass(frozen=True)
class ImageSet:
    """Images of one shape.

    Attributes:
        path: of the folder.
        files: their paths, in order.
        shape: (H, W, C), C 1 or 3.
        is_sample: whether the folder is a sample.
        fingerprint: of the volume they were drawn from; empty where they are no sample.
    """

    path: Path
    files: tuple[Path, ...]
    shape: tuple[int, int, int]
    is_sample: bool = False
    fingerprint: str = ""

    @classmethod
    def open(cls, path: Path) -> "ImageSet":
        """Return the images of a folder and of the folders below it, sorted by path.

        Raises:
            SampleError: there is no such folder, it holds no image, or the first file is no image.
            MagnetError: it cannot be read, or sample.json is damaged.
        """
        if not path.is_dir():
            message = f"{path} is asked for as a folder of images, and is {'a file' if path.exists() else 'not there'}"
            raise SampleError(message, "pass a sample that `magnet sample` printed, or a folder of images")
        is_sample = (path / "sample.json").exists()
        atomic.settle(path)
        if not is_sample and results.unfinished(path) == "sample":
            message = f"{path} is a sample that is not finished"
            raise SampleError(message, "run the `magnet sample` again that began it")
        folder = path / "images" if is_sample else path
        with atomic.explained("read", folder):
            every = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
        files = tuple(p for p in every if p.suffix.lower() in ENDINGS)
        if not files:
            others = f"{len(every):,} files, none of them" if every else "no"
            message = f"{folder} holds {others} images ({', '.join(ENDINGS)})"
            raise SampleError(message, "pass a sample of images, or a folder with some")
        fingerprint = ""
        if is_sample:
            spec = documents.read(path / "sample.json").get("spec", {})
            fingerprint = str(spec.get("fingerprint", ""))
        return cls(path, files, _pixels(files[0]).shape, is_sample, fingerprint)

    def __len__(self) -> int:
        return len(self.files)

    def classes(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return the class of each image [n] int64, and the names: a sample's labels, or the folders of the files.

        Raises:
            SampleError: there are no classes.
            MagnetError: the labels cannot be read.
        """
        if self.is_sample:
            path = self.path / "labels.npy"
            if not path.is_file():
                message = f"{self.path} is a sample of a generator without labels"
                raise SampleError(message, "leave `by_class` out, or pass a sample of a conditional generator")
            with atomic.explained("read", path):
                labels = np.load(path, allow_pickle=False)
            return labels, tuple(map(str, range(int(labels.max()) + 1)))
        parents = [each.relative_to(self.path).parent.as_posix() for each in self.files]
        names = tuple(sorted(set(parents)))
        if "." in names or len(names) < 2:
            message = f"{self.path} holds no classes: its images are not in two folders or more, one a class"
            raise SampleError(message, "leave `by_class` out, or sort them into folders named by class")
        return np.array([names.index(parent) for parent in parents], np.int64), names

    @property
    def shape_text(self) -> str:
        """The shape as text: "64×64, RGB"."""
        height, width, channels = self.shape
        return f"{width}×{height}, {'grey' if channels == 1 else 'RGB'}"

    def hashes(self, start: int, stop: int) -> list[str]:
        """Return the sha256 of the files of images start..stop-1.

        Raises:
            MagnetError: one cannot be read.
        """
        return [documents.sha256_file(path) for path in self.files[start:stop]]

    def batches(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Yield the pixels of images start..stop-1 in batches [b, H, W, C] uint8.

        Raises:
            SampleError: one is no image, or of another shape.
            MagnetError: one cannot be read.
        """
        size = int(np.clip(_BATCH_NUMBERS // int(np.prod(self.shape)), 1, _MOST))
        for first in range(start, stop, size):
            yield np.stack([self._read(path) for path in self.files[first : min(first + size, stop)]])

    def _read(self, path: Path) -> np.ndarray:
        pixels = _pixels(path)
        if pixels.shape != self.shape:
            height, width, channels = pixels.shape
            other = f"{width}×{height}, {'grey' if channels == 1 else 'RGB'}"
            message = f"the images of {self.path} are of different shapes: {self.files[0].name} is {self.shape_text}, "
            message += f"{path.name} is {other}"
            raise SampleError(message, "resize or convert them to one size and mode first")
        return pixels


def digest(pixels: np.ndarray) -> bytes:
    """Return a 16-byte hash of an image [H, W, C] uint8."""
    shape = repr(pixels.shape).encode()
    return hashlib.blake2b(shape + np.ascontiguousarray(pixels).tobytes(), digest_size=16).digest()


def _pixels(path: Path) -> np.ndarray:
    """Return [H, W, C] uint8, C 1 or 3; transparency is dropped."""
    with atomic.explained("read", path):
        data = path.read_bytes()
    hint = "remove it, or pass a folder of images alone"
    try:
        with warnings.catch_warnings(action="error"), Image.open(io.BytesIO(data)) as image:
            mode = image.mode
            pixels = None if mode.startswith(_DEEP) else np.asarray(image.convert("L" if mode in {"1", "L"} else "RGB"))
    except (OSError, SyntaxError, ValueError, Warning, Image.DecompressionBombError) as error:
        message = f"{path} is no image that can be read: {next(iter(str(error).splitlines()), type(error).__name__)}"
        raise SampleError(message, hint) from error
    if pixels is None:
        message = f"{path} has more than 8 bits a channel (Pillow's mode {mode})"
        raise SampleError(message, "convert it to 8 bits first")
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
