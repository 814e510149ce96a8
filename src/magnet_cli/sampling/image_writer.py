"""Write the images of latents into files, encoded in threads while the next batch is rendered."""

import contextlib
import functools
import io
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Generator as Steps
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import PIL
import torch

from magnet_cli.files import atomic, documents, npz, opening, pictures, results
from magnet_cli.models import Generator
from magnet_cli.models.batches import arrays_of, batch_size

T = TypeVar("T")
Render = Callable[[slice], np.ndarray]  # renders a slice of rows: [b, ...] float32
_MOST_WRITERS = 8  # threads that encode and write
_SMALL = 1 << 12  # numbers in an image whose file takes longer to create than to encode


def versions() -> dict[str, str]:
    """Return the versions of the software that images depend on."""
    return results.versions() | {"torch": torch.__version__, "pillow": PIL.__version__}


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
    """Render latents [n, D] of a space and write one file for each, as `write`; labels are [n] int64."""
    size = batch or batch_size(generator)
    render = arrays_of(generator, latents, truncation, size, labels, space)
    yield from write(out, names, size, render, generator.image_shape)


def write(
    out: Path, names: list[str], size: int, render: Render, shape: tuple[int, ...], threads: int | None = None
) -> Iterator[dict[str, str]]:
    """Write one file for each row, encoded while the next batch is rendered; yield sha256 by name after each batch.

    `names` [n] are those of the files, each in a subfolder; the suffix is the format. `render` makes rows of a shape,
    `size` at once. Small images take longer to create as files than to encode: one thread only creates them, and torch
    leaves it a core. Files of an earlier call are kept where their batch is whole; other batches are written again.
    """
    for folder in {name.rpartition("/")[0] for name in names}:
        atomic.make_folder(out / folder)
        atomic.sweep(out / folder)
    small = int(np.prod(shape)) <= _SMALL
    threads = threads or (1 if small else min(_MOST_WRITERS, os.cpu_count() or 1))

    def steps() -> Iterator[list[Callable[[], dict[str, str]]]]:
        for start in range(0, len(names), size):
            batch = names[start : start + size]
            if hashes := _hashes(out, batch):
                yield [functools.partial(dict, hashes)]
                continue
            with _fewer_threads(int(small)):
                rows = render(slice(start, start + len(batch)))
            if small:
                yield [functools.partial(_publish, out, batch, list(_encoded(batch, rows)))]
                continue
            ends = np.linspace(0, len(batch), min(threads, len(batch)) + 1).astype(int).tolist()
            parts = [slice(*pair) for pair in itertools.pairwise(ends)]
            yield [functools.partial(_publish, out, batch[p], _encoded(batch[p], rows[p])) for p in parts]

    with contextlib.closing(_in_threads(steps(), threads, -(-threads // size))) as written:
        for pieces in written:
            yield functools.reduce(dict.__or__, pieces)


@contextlib.contextmanager
def _fewer_threads(cores: int) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads - cores))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _hashes(out: Path, names: list[str]) -> dict[str, str] | None:
    """Return the sha256 of files by name; None where one is missing, or not whole after a power cut."""
    hashes = {}
    for name in names:
        path = out / name
        if not path.exists():
            return None
        data = opening.read(path, out)
        if not pictures.is_whole(data):
            return None
        hashes[name] = documents.sha256_bytes(data)
    return hashes


def _encoded(names: list[str], rows: np.ndarray) -> Iterator[bytes]:
    """Encode rows one by one, in the thread that iterates."""
    suffix = names[0].rpartition(".")[2]
    if suffix == "npy":
        yield from map(pictures.npy, rows)
    else:
        yield from (pictures.encoded(image, suffix) for image in pictures.pixels(rows))


def _publish(out: Path, names: list[str], contents: Iterable[bytes]) -> dict[str, str]:
    hashes = {}
    for name, data in zip(names, contents, strict=True):
        atomic.publish(out / name, data, durable=False)
        hashes[name] = documents.sha256_bytes(data)
    return hashes


def write_array(path: Path, shape: tuple[int, ...], size: int, render: Render) -> Iterator[int]:
    """Write one NPY file of an array float32, `size` rows at once in memory; yield numbers of rows written.

    The file grows under another name in the same folder, from where an earlier call left it, and appears whole.
    """
    if path.exists():
        yield shape[0]
        return
    header = io.BytesIO()
    npz.write_header(header, shape, "<f4")
    start, row = header.tell(), int(np.prod(shape[1:], dtype=np.int64)) * 4
    growing = path.with_name(f".{path.name}.growing")
    with atomic.explained("write", path, start + shape[0] * row):
        with growing.open("ab") as file:
            whole = max(file.tell() - start, 0) // row
            done = whole if whole >= shape[0] else whole // size * size
            file.truncate(start + done * row if done else 0)
            if done:
                yield done
            else:
                file.write(header.getvalue())
            for first in range(done, shape[0], size):
                rows = render(slice(first, min(first + size, shape[0])))
                file.write(np.ascontiguousarray(rows, dtype="<f4").data)
                yield len(rows)
            file.flush()
            os.fsync(file.fileno())
        growing.replace(path)


def _in_threads(steps: Iterable[list[Callable[[], T]]], threads: int, ahead: int) -> Steps[list[T], None, None]:
    """Run the functions of each step in threads, while the iterator computes the next step; yield results in order.

    `ahead` steps may wait for the threads; where these are late, the caller's own thread runs a step. However the
    iteration ends, functions under way are finished and no other is begun.
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
    future: Future[T] = Future()
    future.set_result(result)
    return future
