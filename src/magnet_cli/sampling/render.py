"""Render latents: from a generator to arrays, pixels and files, and `magnet render`, the images of given latents.

Owns the batches they are made in, and that files are encoded and written while the next batch is computed. Knows
nothing of where latents come from.
"""

import contextlib
import functools
import io
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import PIL
import torch

from magnet_cli.errors import SpecError
from magnet_cli.files import atomic, documents, pictures, results
from magnet_cli.files.results import ResultFolder
from magnet_cli.models import Generator
from magnet_cli.sampling.kinds import RENDERING

T = TypeVar("T")
_BATCH_WORK = 1 << 22  # numbers in a batch of images
_MOST_WRITERS = 8  # threads that encode and write
_SMALL = 1 << 12  # numbers in an image whose file takes longer to create than to encode


@dataclass(frozen=True)
class RenderSpec:
    """Exactly what decides which images a rendering holds.

    Attributes:
        generator: its name.
        sha256: of the generator's checkpoint.
        latents: sha256 of the file they are in.
        labels: sha256 of theirs; empty where there are none.
        n: images.
        space: what the latents are, z or w.
        truncation: ψ.
        bn_truncation: ψ of the batch-norm statistics; 0 where that is `truncation`.
        nvae_latents: of an NVAE, the groups whose noise is the latent.
        image_range: of a user's own generator, the intensities it gives.
        format: "png", "jpg" or "webp", a file an image; "npy", all of them as one array.
    """

    generator: str
    sha256: str
    latents: str
    labels: str
    n: int
    space: str
    truncation: float
    bn_truncation: float = 0.0
    nvae_latents: str = "top"
    image_range: tuple[float, ...] = ()
    format: str = "png"


def batch_size(generator: Generator) -> int:
    """Images rendered at once; a function of the generator alone, so that runs are repeatable."""
    return int(np.clip(_BATCH_WORK // int(np.prod(generator.image_shape)), 1, 64))  # more leave a CPU's caches


def arrays(
    generator: Generator,
    latents: np.ndarray,
    truncation: float,
    size: int,
    labels: np.ndarray | None = None,
    space: str = "z",
) -> np.ndarray:
    """What a generator gives; a short batch is padded to full size, so that a row does not depend on the others.

    Args:
        generator: on its device.
        latents: [b, D] floating, 1 ≤ b ≤ size; in the space w [b, Dw], as the mapping network gives it.
        truncation: ψ in (0, 1].
        size: B.
        labels: [b] int64, where the generator takes labels.
        space: what the latents are, z or w.

    Returns:
        [b, C, H, W] float32 in about [-1, 1]; of a generator of the user's own, [b, ...].
    """
    weight = next(generator.module.parameters())
    z = torch.from_numpy(_padded(latents, size).astype(np.float32)).to(weight)
    given = None if labels is None else torch.from_numpy(_padded(labels, size)).to(weight.device)
    with torch.inference_mode():
        made = generator(z, truncation, given) if space == "z" else generator.module.synthesis(z, truncation)
        return made[: len(latents)].to(device="cpu", dtype=torch.float32).numpy()


def images(
    generator: Generator, latents: np.ndarray, truncation: float, size: int, labels: np.ndarray | None = None
) -> np.ndarray:
    """The images of latents, as `arrays`, as pixels [b, H, W, C] uint8."""
    return pictures.pixels(arrays(generator, latents, truncation, size, labels))


def _padded(rows: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])


def batches(
    generator: Generator, latents: np.ndarray, truncation: float, size: int, labels: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Each image [H, W, C] uint8 of any number of latents [n, D], in order; labels [n] int64 where it takes them."""
    for start in range(0, len(latents), size):
        places = slice(start, start + size)
        yield from images(generator, latents[places], truncation, size, None if labels is None else labels[places])


def versions() -> dict[str, str]:
    """What images depend on besides the files."""
    return results.versions() | {"torch": torch.__version__, "pillow": PIL.__version__}


def check(generator: Generator, spec: RenderSpec, latents: np.ndarray, *, labelled: bool) -> None:
    """Whether a generator can render what is given.

    Raises:
        SpecError: it has no such space, takes latents of another size, takes labels and gets none or the reverse, or
            gives no images where they are asked for.
    """
    generator.check_parts(spec.space, "pixel")
    whose = f"{generator.name} ({generator.family})"
    takes = generator.latent_dim if spec.space == "z" else generator.style_dim
    if latents.shape[1] != takes:
        message = f"the latents given have {latents.shape[1]} numbers each, and {spec.space} of {whose} has {takes}"
        others = [space for space in generator.spaces if space != spec.space]
        raise SpecError(message, f"pass latents [n, {takes}]" + "".join(f", or --space {space}" for space in others))
    optional = generator.prior.mixture is not None  # the component says nothing that the latent does not
    if spec.space == "z" and labelled != (generator.num_classes > 0) and not (optional and not labelled):
        has = f"takes labels 0..{generator.num_classes - 1}" if generator.num_classes else "takes no labels"
        message = f"{whose} {has}, and {'some are' if labelled else 'none are'} given"
        raise SpecError(message, "leave --labels out" if labelled else "pass them: --labels FILE.npy")
    check_format(generator, spec.format)


def check_format(generator: Generator, ending: str) -> None:
    """Whether what a generator gives can be written in a format.

    Raises:
        SpecError: it is a format of images, and there are none.
    """
    if ending != "npy" and not generator.gives_images:
        shape = ", ".join(map(str, generator.image_shape))
        message = f"{ending} is asked for, and {generator.name} ({generator.family}) gives arrays [{shape}], "
        message += "which are no pictures of one colour or three"
        raise SpecError(message, "leave it out, and pass to `magnet render` --format npy")


def finished(out: Path, spec: RenderSpec) -> dict | None:
    """As `ResultFolder.finished`: the report of the finished rendering in a folder, if it is that of `spec`."""
    return ResultFolder(out, RENDERING).finished(spec)


def discard(out: Path) -> None:
    """Remove the rendering in a folder, finished or not, as `ResultFolder.discard`."""
    ResultFolder(out, RENDERING).discard()


def fill(
    out: Path,
    spec: RenderSpec,
    generator: Generator,
    latents: np.ndarray,
    labels: np.ndarray | None = None,
    batch: int | None = None,
) -> Iterator[int]:
    """Render given latents into a folder. rendering.json is still to come: `finish`.

    Args:
        out: the folder; new, or begun by the same call before.
        spec: what it is.
        generator: on its device.
        latents: [n, D] floating, those of the spec.
        labels: [n] int64, where the generator takes them.
        batch: images at a time.

    Yields:
        Number of images written since the last time (those of an earlier call included).

    Raises:
        MagnetError: no space, no permission; what was written stays, and the same call goes on from there.
    """
    ResultFolder(out, RENDERING).begin(spec)
    size = batch or batch_size(generator)
    known: dict[str, str] = {}
    if spec.format == "npy":
        made = _maker(generator, latents, spec.truncation, size, labels, spec.space)
        yield from _write_array(out / "images.npy", (spec.n, *generator.image_shape), size, made)
    else:
        names = [f"images/{i:06d}.{spec.format}" for i in range(spec.n)]
        for hashes in write_images(out, names, generator, latents, spec.truncation, labels, spec.space, size):
            known |= hashes
            yield len(hashes)
    ResultFolder(out, RENDERING).list_files(known)


def finish(out: Path, spec: RenderSpec, command: list[str], report: dict) -> None:
    """Write rendering.json: from now on the rendering is whole.

    Args:
        out: the folder that `fill` filled.
        spec: what it is.
        command: the command line.
        report: what the command prints, to be printed again when it is repeated.

    Raises:
        MagnetError: no space, no permission.
    """
    fields = {"command": command, "spec": asdict(spec), "versions": versions(), "report": report}
    ResultFolder(out, RENDERING).finish(fields)


def write_images(
    out: Path,
    names: list[str],
    generator: Generator,
    latents: np.ndarray,
    truncation: float,
    labels: np.ndarray | None = None,
    space: str = "z",
    batch: int | None = None,
) -> Iterator[dict[str, str]]:
    """Write a file for each of the latents, as `write`, of what `arrays` gives for them, `batch` at a time."""
    size = batch or batch_size(generator)
    yield from write(
        out, names, size, _maker(generator, latents, truncation, size, labels, space), generator.image_shape
    )


def _maker(
    generator: Generator, latents: np.ndarray, truncation: float, size: int, labels: np.ndarray | None, space: str
) -> Callable[[slice], np.ndarray]:
    """What a generator gives for a slice of latents."""

    def made(rows: slice) -> np.ndarray:
        return arrays(generator, latents[rows], truncation, size, None if labels is None else labels[rows], space)

    return made


def write(
    out: Path,
    names: list[str],
    size: int,
    made: Callable[[slice], np.ndarray],
    shape: tuple[int, ...],
    threads: int | None = None,
) -> Iterator[dict[str, str]]:
    """Write a file for each row. Files are encoded and written while the next batch is computed.

    Of small images, whose files take longer to create than all the rest, one thread does no more than create them, and
    torch leaves it a core. Files that are there are kept where their batch is whole; of every other batch all are
    written again.

    Args:
        out: the folder.
        names: [n], of the files in it, each below one folder more; what they end with is the format.
        size: rows computed at once.
        made: gives what the generator gives for a slice of rows, [b, *shape] float32.
        shape: of what it gives for a row.
        threads: that encode and write; default as many as there are cores, up to 8.

    Yields:
        After each batch the sha256 of its files, by their names; they are whole then.

    Raises:
        MagnetError: no space, no permission; files that were finished stay.
    """
    for folder in {name.rpartition("/")[0] for name in names}:
        atomic.make_folder(out / folder)
        atomic.sweep(out / folder)
    small = int(np.prod(shape)) <= _SMALL
    threads = threads or (1 if small else min(_MOST_WRITERS, os.cpu_count() or 1))

    def steps() -> Iterator[list[Callable[[], dict[str, str]]]]:
        for start in range(0, len(names), size):
            batch = names[start : start + size]
            if known := _there(out, batch):
                yield [functools.partial(dict, known)]
                continue
            with _sparing(int(small)):
                rows = made(slice(start, start + len(batch)))
            if small:
                yield [functools.partial(_publish, out, batch, list(_encoded(batch, rows)))]
                continue
            ends = np.linspace(0, len(batch), min(threads, len(batch)) + 1).astype(int).tolist()
            parts = [slice(*pair) for pair in itertools.pairwise(ends)]
            yield [functools.partial(_write_files, out, batch[part], rows[part]) for part in parts]

    with contextlib.closing(_behind(steps(), threads, -(-threads // size))) as written:
        for pieces in written:
            yield functools.reduce(dict.__or__, pieces)


@contextlib.contextmanager
def _sparing(cores: int) -> Iterator[None]:
    """So many fewer threads for torch on a CPU, but one at least."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads - cores))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _there(out: Path, names: list[str]) -> dict[str, str] | None:
    """The sha256 of files, by their names; None where one is missing, or not whole after a power cut."""
    hashes = {}
    for name in names:
        path = out / name
        if not path.exists():
            return None
        with atomic.explained("read", path):
            data = path.read_bytes()
        if not pictures.is_whole(data):
            return None
        hashes[name] = documents.sha256_bytes(data)
    return hashes


def _write_files(out: Path, names: list[str], rows: np.ndarray) -> dict[str, str]:
    """Encode and publish what a generator gave, a file a row; their sha256."""
    return _publish(out, names, _encoded(names, rows))


def _encoded(names: list[str], rows: np.ndarray) -> Iterator[bytes]:
    """The bytes of the files of what a generator gave, a file a row."""
    ending = names[0].rpartition(".")[2]
    if ending == "npy":
        yield from map(pictures.npy, rows)
    else:
        yield from (pictures.encoded(image, ending) for image in pictures.pixels(rows))


def _publish(out: Path, names: list[str], contents: Iterable[bytes]) -> dict[str, str]:
    """Publish files; their sha256."""
    hashes = {}
    for name, data in zip(names, contents, strict=True):
        atomic.publish(out / name, data, durable=False)
        hashes[name] = documents.sha256_bytes(data)
    return hashes


def _write_array(path: Path, shape: tuple[int, ...], size: int, made: Callable[[slice], np.ndarray]) -> Iterator[int]:
    """Write one NPY file of all rows, never more than a few batches of them in memory.

    It grows under another name in the same folder, from where an earlier call left it, and appears whole.

    Args:
        path: the file.
        shape: (n, ...) of the array, float32.
        size: rows computed at once.
        made: as in `write`.

    Yields:
        Rows written since the last time.

    Raises:
        MagnetError: no space, no permission.
    """
    if path.exists():
        yield shape[0]
        return
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    start, row = header.tell(), int(np.prod(shape[1:], dtype=np.int64)) * 4
    growing = path.with_name(f".{path.name}.growing")
    with atomic.explained("write", path, start + shape[0] * row):
        with growing.open("ab") as file:
            whole = max(file.tell() - start, 0) // row
            done = whole if whole >= shape[0] else whole // size * size
            file.truncate(start + done * row if done else 0)
            if not done:
                file.write(header.getvalue())
            if done:
                yield done

            for first in range(done, shape[0], size):
                rows = made(slice(first, min(first + size, shape[0])))
                file.write(np.ascontiguousarray(rows, dtype="<f4"))
                yield len(rows)
            file.flush()
            os.fsync(file.fileno())
        growing.replace(path)


def _behind(steps: Iterable[list[Callable[[], T]]], threads: int, ahead: int) -> Iterator[list[T]]:
    """Do the work of each step in threads, while the iterator goes on to the next; give what the work gives, in order.

    Args:
        steps: what there is to do; computing a step may take long itself.
        threads: that do it; where they are behind, the caller's own does a step too.
        ahead: steps that may wait for the threads.

    Yields:
        What the work of a step gave. However it ends, work that was begun is finished first, the rest is not begun.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="magnet-write")
    waiting: deque[list[Future[T]]] = deque()

    def late() -> bool:
        return len(waiting) > ahead and not all(future.done() for future in waiting[0])

    try:
        for step in steps:
            waiting.append([_done(work()) for work in step] if late() else [pool.submit(work) for work in step])
            while len(waiting) > ahead and (not late() or len(waiting) > 2 * ahead + 1):
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


def _done(result: T) -> "Future[T]":
    """A future that holds its result."""
    future: Future[T] = Future()
    future.set_result(result)
    return future
