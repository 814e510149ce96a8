"""Draw from an index, render, and write a sample: images with their latents and where they came from.

Joins index, volume and generators. The caller owns progress and stopping: `write` yields after each batch of images,
and the same call later goes on where it stopped.
"""

import json
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from magnet_cli import __version__, files, render, sheet
from magnet_cli.errors import SampleError
from magnet_cli.generators import Generator
from magnet_cli.index import Draw
from magnet_cli.volume import Volume

FORMAT = 1
SHEET_IMAGES = 64  # of each kind on the contact sheet
_WRITTEN_LAST = ("checksums.txt", "sample.json")
_STARTED = ".sample-started.json"  # what a sample is going to be, while it is not yet


@dataclass(frozen=True)
class SampleSpec:
    """Exactly what decides which images a sample holds.

    Attributes:
        generator: its name.
        sha256: of the generator's checkpoint.
        fingerprint: of the volume.
        pool: rows of the volume that compete.
        n: images.
        rho: the polarity.
        top_k: k.
        seed: of the draw.
        replace: drawn with replacement.
        truncation: ψ the images are rendered at.
        label: the labels drawn from; empty for those of the volume.
        bn_truncation: ψ of the batch-norm statistics the images are rendered with; 0 where that is `truncation`.
    """

    generator: str
    sha256: str
    fingerprint: str
    pool: int
    n: int
    rho: float
    top_k: int
    seed: int
    replace: bool
    truncation: float
    label: tuple[int, ...] = ()
    bn_truncation: float = 0.0


def default_out(spec: SampleSpec) -> Path:
    """./samples/<generator>-rho<ρ>-n<n>-seed<seed>."""
    return Path("samples") / f"{spec.generator}-rho{spec.rho:g}-n{spec.n}-seed{spec.seed}"


def finished(out: Path, spec: SampleSpec) -> dict | None:
    """The report of the finished sample in a folder, if it is that of `spec`; None where there is none.

    Raises:
        SampleError: the folder holds another sample (all differing fields are named) or other files.
        MagnetError: sample.json is damaged.
    """
    with files.explained("read", out):
        if not out.exists():
            return None
        if not out.is_dir():
            message = f"{out} is asked for as a sample folder, and is a file"
            raise SampleError(message, "pass another folder with --out")
        names = {p.name for p in out.iterdir()}
    done = "sample.json" in names
    if not done and _STARTED not in names:
        if names:
            message = f"{out} is asked for as a sample folder, and holds other files: {', '.join(sorted(names)[:3])}"
            raise SampleError(message, "pass another folder with --out")
        return None
    fields = read(out) if done else files.read_document(out / _STARTED)
    asked, found = asdict(spec) | {"label": list(spec.label)}, {"label": [], "bn_truncation": 0.0} | fields["spec"]
    differing = [k for k in asked if asked[k] != found.get(k)]
    if differing:
        listed = ", ".join(f"{k} {found.get(k)} (asked {asked[k]})" for k in differing)
        message = f"{out} holds another sample: {listed}"
        raise SampleError(message, "pass another folder with --out, or --force to replace it")
    return fields["report"] if done else None


def read(out: Path) -> dict:
    """What sample.json says.

    Raises:
        SampleError: it is of another format.
        MagnetError: it is damaged.
    """
    files.settle(out)
    fields = files.read_document(out / "sample.json")
    parts = {"spec": dict, "report": dict, "checksums_sha256": str}
    whole = all(isinstance(fields.get(name), kind) for name, kind in parts.items())
    if fields.get("format") != FORMAT or not whole:
        message = f"{out} is a sample of format {fields.get('format')}; this magnet ({__version__}) reads {FORMAT}"
        raise SampleError(message, "use the magnet that made it, or draw it again with --force")
    return fields


def discard(out: Path) -> None:
    """Remove the sample in a folder, finished or not (--force); other folders are left alone.

    Raises:
        SampleError: the folder holds files that no sample has.
        MagnetError: it cannot be removed.
    """
    ours = {
        "images",
        "arrays",
        "latents.npy",
        "labels.npy",
        "metadata.jsonl",
        "sample.json",
        "grid.png",
        "checksums.txt",
        _STARTED,
    }
    if not out.exists():
        return
    with files.explained("remove", out):
        names = {p.name for p in out.iterdir()} if out.is_dir() else {out.name}
        if names and (names - ours or not names & {"sample.json", _STARTED}):
            message = f"{out} holds files that no sample has: {', '.join(sorted(names - ours)[:3]) or 'images alone'}"
            raise SampleError(message, "pass another folder with --out; --force replaces samples only")
        shutil.rmtree(out)


def write(
    out: Path,
    spec: SampleSpec,
    drawn: Draw,
    volume: Volume,
    generator: Generator,
    batch: int | None = None,
) -> Iterator[int]:
    """Render a draw into a folder. sample.json comes last: a folder with it is whole.

    What can be shown goes into images/ as PNG, with a contact sheet; what cannot, into arrays/ as NPY, float32.

    Args:
        out: the folder; new, or begun by the same call before.
        spec: what the sample is.
        drawn: its rows.
        volume: what they were drawn from.
        generator: on its device.
        batch: images at a time.

    Yields:
        Number of images written since the last time (those of an earlier call included).

    Raises:
        MagnetError: no space, no permission; what was written stays, and the same call goes on from there.
    """
    folder, ending, rendered, encoded = _ways(generator)
    names = [f"{folder}/{i:06d}.{ending}" for i in range(spec.n)]
    files.make_folder(out / folder)
    files.sweep(out / folder)
    files.publish(out / _STARTED, files.document({"spec": asdict(spec)}))
    latents, labels = volume.latents(drawn.rows), volume.labels(drawn.rows)
    size = batch or render.batch_size(generator)
    for start in range(0, spec.n, size):
        places = range(start, min(start + size, spec.n))
        if not all((out / names[i]).exists() for i in places):
            here = slice(start, start + size)
            given = None if labels is None else labels[here]
            made = rendered(generator, latents[here], spec.truncation, size, given)
            for i, one in zip(places, made, strict=True):
                files.publish(out / names[i], encoded(one), durable=False)
        yield len(places)
    files.publish(out / "latents.npy", render.npy(latents))
    if labels is not None:
        files.publish(out / "labels.npy", render.npy(labels))
    named = [None] * spec.n if labels is None else labels.tolist()
    rows = zip(drawn.rows.tolist(), drawn.log_volume.tolist(), named, strict=True)
    records = [
        {
            "file_name": names[i],
            "row": row,
            "log_volume": value if np.isfinite(value) else None,
            "label": label,
            "source": "polarity",
        }
        for i, (row, value, label) in enumerate(rows)
    ]
    lines = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)
    files.publish(out / "metadata.jsonl", lines.encode())
    if generator.gives_images:
        _publish_sheet(out, spec, drawn, volume, generator, (latents, labels))


def finish(out: Path, spec: SampleSpec, drawn: Draw, volume: Volume, command: list[str], report: dict) -> None:
    """Write the checksums of all files, then sample.json: from now on the sample is whole.

    Args:
        out: the folder that `write` filled.
        spec: what the sample is.
        drawn: its rows.
        volume: what they were drawn from.
        command: the command line.
        report: what the command prints, to be printed again when it is repeated.

    Raises:
        MagnetError: no space, no permission.
    """
    names = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file() and not p.name.startswith("."))
    sums = "".join(f"{files.sha256_file(out / name)}  {name}\n" for name in names if name not in _WRITTEN_LAST).encode()
    files.publish(out / "checksums.txt", sums)
    provenance = {
        "format": FORMAT,
        "command": command,
        "spec": asdict(spec),
        "volume": {"path": str(volume.path), "fingerprint": volume.fingerprint, "spec": asdict(volume.spec)},
        "effective_size": drawn.effective_size,
        "displaced_share": drawn.displaced_share,
        "largest_useful_rho": drawn.largest_useful_rho,
        "unique_rows": drawn.unique_rows,
        "checksums_sha256": files.sha256_bytes(sums),
        "versions": versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "report": report,
    }
    if volume.spec.truncation != spec.truncation:
        provenance["volume_truncation"] = volume.spec.truncation
    files.publish(out / "sample.json", files.document(provenance))
    (out / _STARTED).unlink(missing_ok=True)


def versions() -> dict[str, str]:
    """What the images depend on besides the files."""
    return {
        "magnet": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": f"{sys.platform}-{platform.machine()}",
    }


def check(out: Path) -> list[str]:
    """Re-read every byte of a finished sample; what is wrong, in words, one line a problem.

    Raises:
        MagnetError: sample.json is damaged.
    """
    provenance = read(out)
    sums = out / "checksums.txt"
    if not sums.is_file() or files.sha256_file(sums) != provenance["checksums_sha256"]:
        return [f"{sums} is missing or changed: the other files cannot be checked"]
    lines = (line.partition("  ") for line in sums.read_text(encoding="utf-8", errors="replace").splitlines())
    listed = {name: digest for digest, _, name in lines}
    problems = [f"{out / name} is missing" for name in listed if not (out / name).is_file()]
    for name, digest in listed.items():
        if (out / name).is_file() and files.sha256_file(out / name) != digest:
            problems.append(f"{out / name} was changed after it was written")
    return problems


def _ways(generator: Generator) -> tuple[str, str, Callable[..., np.ndarray], Callable[[np.ndarray], bytes]]:
    """Of what a generator gives: its folder, its files' ending, how it is rendered, and how it becomes a file."""
    if generator.gives_images:
        return "images", "png", render.images, render.png
    return "arrays", "npy", render.arrays, render.npy


def _publish_sheet(
    out: Path,
    spec: SampleSpec,
    drawn: Draw,
    volume: Volume,
    generator: Generator,
    rows: tuple[np.ndarray, np.ndarray | None],
) -> None:
    """grid.png: the first rows of the volume, which are plain draws from the prior, above the first that were drawn."""
    shown = min(SHEET_IMAGES, spec.n)
    latents, labels = (array if array is None else array[:shown] for array in rows)
    prior, classes = _prior_rows(volume, spec.label, shown)
    size = render.batch_size(generator)
    truncated = f", truncation {spec.truncation:g}" if spec.truncation != 1 else ""
    how = "with replacement" if spec.replace else f"displaced share {drawn.displaced_share:.2g}"
    above = f"{spec.generator}: {len(prior)} draws from the prior{truncated}"
    below = f"rho {spec.rho:g}, top_k {spec.top_k}: the first {shown} of {spec.n:,} draws; effective size "
    below += f"{drawn.effective_size:,.0f} of {drawn.pool:,} rows, {how}"
    below += "; volumes in w, not uniform" * (volume.spec.space == "w")
    blocks = [
        (above, list(render.batches(generator, prior, spec.truncation, size, classes))),
        (below, list(render.batches(generator, latents, spec.truncation, size, labels))),
    ]
    files.publish(out / "grid.png", sheet.contact_sheet(blocks))


def _prior_rows(volume: Volume, label: tuple[int, ...], n: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Latents and labels of at most n rows at the start of a volume, of the labels given if any are.

    Raises:
        SampleError: it holds none.
    """
    for _, rows in volume.rows():
        if rows.labels is None:
            return rows.latents[:n], None
        kept = np.flatnonzero(np.isin(rows.labels, label or rows.labels))[:n]
        if len(kept):
            return rows.latents[kept], rows.labels[kept]
    message = f"{volume.path} holds no rows of label {', '.join(map(str, label))}"
    raise SampleError(message, "pass a --label that its rows have")
