"""Images on disk: those of a sample, or of any folder.

Owns which files they are and the pixels in them. Knows nothing of networks or of what is measured.
"""

import contextlib
import hashlib
import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from magnet_cli.errors import SampleError
from magnet_cli.files import atomic, documents, npy, opening, pictures, results

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
_NAME = re.compile(r"images/\w[\w.-]*")  # of an image, as documents have it
_DEEP = ("I", "F")  # Pillow's modes of more than 8 bits a channel
_GREY = ("1", "L", "LA")
_BOMBS = (Image.DecompressionBombWarning, Image.DecompressionBombError)
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
        strays: images in the folder that are not of the sample, rendering or edit; they are left out.
        contents: sha256 of the list of a sample's images, which tells another sample in its place apart.
        below: the folder, where magnet made it: no link in it is followed; None for others.
    """

    path: Path
    files: tuple[Path, ...]
    shape: tuple[int, int, int]
    is_sample: bool = False
    fingerprint: str = ""
    strays: tuple[Path, ...] = ()
    contents: str = ""
    below: Path | None = None

    @classmethod
    def open(cls, path: Path, names: list[str] | None = None) -> "ImageSet":
        """Return the images of a folder and of the folders below it, sorted by path.

        Those of a sample, a rendering or an edit are the ones that its documents name, in their order; those of a
        folder that is not finished are passed as `names`.

        Raises:
            SampleError: there is no such folder, it holds no image, or the first file is no image.
            MagnetError: it cannot be read, or sample.json is damaged.
        """
        if not path.is_dir():
            message = f"{path} is asked for as a folder of images, and is {'a file' if path.exists() else 'not there'}"
            raise SampleError(message, "pass a sample that `magnet sample` printed, or a folder of images")
        is_sample = (path / "sample.json").exists()
        atomic.settle(path)
        if not is_sample and names is None and results.unfinished(path) == "sample":
            message = f"{path} is a sample that is not finished"
            raise SampleError(message, "run the `magnet sample` again that began it")
        folder = path / "images" if is_sample else path
        with atomic.explained("read", folder):
            every = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
        files, strays = tuple(p for p in every if p.suffix.lower() in ENDINGS), tuple[Path, ...]()
        if named := _named(path, names):
            files, strays = named, tuple(p for p in files if p not in set(named) and p.parent.name == "images")
            if missing := set(named) - set(every):
                message = f"{len(missing):,} images of {path} are missing, {min(missing).name} among them"
                raise SampleError(message, "restore them from a copy, or make the folder again")
        if not files:
            others = f"{len(every):,} files, none of them" if every else "no"
            message = f"{folder} holds {others} images ({', '.join(ENDINGS)})"
            raise SampleError(message, "pass a sample of images, or a folder with some")
        fingerprint = contents = ""
        if is_sample:
            spec = documents.read(path / "sample.json").get("spec", {})
            fingerprint = str(spec.get("fingerprint", ""))
            contents = documents.sha256_bytes("\n".join(_listed_images(path)).encode())
        below = path if is_sample or named else None
        return cls(path, files, _pixels(files[0], below).shape, is_sample, fingerprint, strays, contents, below)

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
            labels = npy.labels(path, len(self.files), npy.MOST_CLASSES, self.path)
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
        return [documents.sha256_file(path, self.below) for path in self.files[start:stop]]

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
        pixels = _pixels(path, self.below)
        if pixels.shape == (*self.shape[:2], 1):  # a grey image among those in colour
            pixels = np.broadcast_to(pixels, self.shape)
        if pixels.shape != self.shape:
            height, width, channels = pixels.shape
            other = f"{width}×{height}, {'grey' if channels == 1 else 'RGB'}"
            message = f"the images of {self.path} are of different shapes: {self.files[0].name} is {self.shape_text}, "
            message += f"{path.name} is {other}"
            raise SampleError(message, "resize or convert them to one size and mode first")
        return pixels


def left_out(sets: list[ImageSet]) -> list[str]:
    """Return a warning of each set whose folder holds images that others put there."""
    return [
        f"{len(each.strays):,} images in {each.path} are not of it, {each.strays[0].name} first: they are left out"
        for each in sets
        if each.strays
    ]


def _named(path: Path, names: list[str] | None) -> tuple[Path, ...]:
    """Return the images that the documents of a sample, an edit or a rendering name; of other folders none."""
    if names is not None:
        return tuple(path / name for name in names)
    if (path / "rendering.json").is_file():
        names = sorted((line.partition("  ")[2] for line in _listed_images(path)), key=lambda name: (len(name), name))
    elif any((path / name).is_file() for name in ("sample.json", "edit.json")):
        lines = opening.read(path / "metadata.jsonl", path).splitlines()
        try:
            names = [str(json.loads(line).get("file_name", "")) for line in lines]
        except (ValueError, AttributeError, RecursionError) as error:
            names = [str(error)]
    else:
        return ()
    names = [name for name in names if name and not name.startswith("arrays/")]
    if wrong := next((name for name in names if not _NAME.fullmatch(name)), None):
        message = f"the documents of {path} are not as magnet writes them: {' '.join(wrong.split())[:200]!r} in place "
        message += "of an image's name"
        raise SampleError(message, f"check it with `magnet info {path} --check`, and make it again")
    return tuple(path / name for name in names)


def _listed_images(path: Path) -> list[str]:
    """Return the lines of checksums.txt that are of images."""
    lines = opening.read(path / "checksums.txt", path).decode(errors="replace").splitlines()
    return [line for line in lines if line.partition("  ")[2].startswith("images/")]


def digest(pixels: np.ndarray) -> bytes:
    """Return a 16-byte hash of an image [H, W, C] uint8."""
    shape = repr(pixels.shape).encode()
    return hashlib.blake2b(shape + np.ascontiguousarray(pixels).tobytes(), digest_size=16).digest()


@contextlib.contextmanager
def _bombs_refused() -> Iterator[None]:
    """Pillow warns of metadata out of order, which is harmless, and of more pixels than memory may hold."""
    with warnings.catch_warnings(action="ignore"):
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _pixels(path: Path, below: Path | None) -> np.ndarray:
    """Return [H, W, C] uint8, C 1 or 3; transparency is dropped."""
    data = opening.read(path, below)
    hint = "remove it, or pass a folder of images alone"
    try:
        with _bombs_refused(), pictures.opened(data) as image:
            mode = image.mode
            pixels = None if mode.startswith(_DEEP) else np.asarray(image.convert("L" if mode in _GREY else "RGB"))
    except (OSError, SyntaxError, ValueError, *_BOMBS) as error:
        message = f"{path} is no image that can be read: {next(iter(str(error).splitlines()), type(error).__name__)}"
        raise SampleError(message, hint) from error
    if pixels is None:
        message = f"{path} has more than 8 bits a channel (Pillow's mode {mode})"
        raise SampleError(message, "convert it to 8 bits first")
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
