"""Draw from an index, render, and write a sample: images with their latents and where they came from.

Joins index, volume and generators. The caller owns progress and stopping: `write` yields after each batch of images,
and the same call later goes on where it stopped. Without images it needs neither torch nor the generator.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from magnet_cli.errors import SampleError
from magnet_cli.files import atomic, contact_sheet, pictures, results
from magnet_cli.files.results import ResultFolder
from magnet_cli.index import Draw
from magnet_cli.sampling.fresh import FreshDraw
from magnet_cli.sampling.kinds import SAMPLE
from magnet_cli.volume import Volume

if TYPE_CHECKING:
    from magnet_cli.models import Generator

SHEET_IMAGES = 64  # of each kind on the contact sheet


@dataclass(frozen=True)
class SampleSpec:
    """Exactly what decides which images a sample holds.

    Attributes:
        generator: its name.
        sha256: of the generator's checkpoint.
        fingerprint: of the volume.
        pool: the first rows of the volume, among which they are drawn.
        n: images.
        rho: the polarity.
        top_k: k.
        seed: of the draw.
        replace: drawn with replacement.
        truncation: ψ the images are rendered at.
        label: the labels drawn from; empty for those of the volume.
        bn_truncation: ψ of the batch-norm statistics the images are rendered with; 0 where that is `truncation`.
        classes: of a conditional generator: "natural", as their weights say, or "equal", the same number of each.
        mix: share of polarity draws; the rest are prior draws.
        correct_prior: weights are divided by the prior's density.
        prior_mass: of the ball that rows have to lie in then; 0 where there is none.
        format: "png", "jpg" or "webp"; what cannot be shown is written as NPY.
        no_images: latents alone.
        montage: the ψ of montage.png; empty where there is none.
        method: "reweight", rows of the volume by weight, or "tempered", fresh latents.
        particles: of an island of the tempered sampler; 0 for the other.
        half: of the rows, the half that competes: 1 or 2; 0 for all.
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
    classes: str = "natural"
    mix: float = 1.0
    correct_prior: bool = False
    prior_mass: float = 0.0
    format: str = "png"
    no_images: bool = False
    montage: tuple[float, ...] = ()
    method: str = "reweight"
    particles: int = 0
    half: int = 0


def default_out(spec: SampleSpec) -> Path:
    """./samples/<generator>-rho<ρ>-n<n>-seed<seed>; with -tempered behind the generator for that method."""
    how = "-tempered" if spec.method == "tempered" else ""
    return Path("samples") / f"{spec.generator}{how}-rho{spec.rho:g}-n{spec.n}-seed{spec.seed}"


def described(spec: SampleSpec, out: Path) -> dict:
    """What a command says of a sample, whatever its method."""
    fields = {"sample": str(out), "n": spec.n, "images": 0 if spec.no_images else spec.n, "rho": spec.rho}
    return fields | {"top_k": spec.top_k, "method": spec.method}


def numbers(spec: SampleSpec, drawn: Draw) -> dict:
    """And of rows that were drawn."""
    fields = {name: getattr(spec, name) for name in ("replace", "classes", "mix", "correct_prior", "prior_mass")}
    names = ("pool", "unique_rows", "effective_size", "displaced_share", "largest_useful_rho", "top_share")
    return fields | {name: getattr(drawn, name) for name in names} | {"ball": drawn.ball and drawn.ball.fields}


def finished(out: Path, spec: SampleSpec) -> dict | None:
    """As `ResultFolder.finished`: the report of the finished sample in a folder, if it is that of `spec`."""
    return ResultFolder(out, SAMPLE).finished(spec)


def read(out: Path) -> dict:
    """What sample.json says, as `ResultFolder.read`."""
    return ResultFolder(out, SAMPLE).read()


def discard(out: Path) -> None:
    """Remove the sample in a folder, finished or not, as `ResultFolder.discard`."""
    ResultFolder(out, SAMPLE).discard()


def check(out: Path) -> list[str]:
    """Re-read every byte of a finished sample, as `ResultFolder.check`."""
    return ResultFolder(out, SAMPLE).check()


def write(
    out: Path,
    spec: SampleSpec,
    drawn: Draw | FreshDraw,
    volume: Volume,
    generator: "Generator | None",
    batch: int | None = None,
) -> Iterator[int]:
    """Render a draw into a folder. sample.json is still to come: `finish`.

    What can be shown goes into images/, with a contact sheet; what cannot, into arrays/ as NPY, float32.

    Args:
        out: the folder; new, or begun by the same call before.
        spec: what the sample is.
        drawn: its rows.
        volume: what they were drawn from.
        generator: on its device; None where no images are asked for.
        batch: images at a time.

    Yields:
        Number of images written since the last time (those of an earlier call included).

    Raises:
        MagnetError: no space, no permission; what was written stays, and the same call goes on from there.
    """
    ResultFolder(out, SAMPLE).begin(spec)
    latents, labels = _latents(drawn, volume)
    names: list[str] = []
    known: dict[str, str] = {}
    if generator is not None:
        from magnet_cli.sampling import render  # and with it torch

        names = file_names(spec, generator)
        for hashes in render.write_images(out, names, generator, latents, spec.truncation, labels, batch=batch):
            known |= hashes
            yield len(hashes)
    atomic.publish(out / "latents.npy", pictures.npy(latents))
    if labels is not None:
        atomic.publish(out / "labels.npy", pictures.npy(labels))
    named = [None] * spec.n if labels is None else labels.tolist()
    rows = zip(drawn.rows.tolist(), drawn.log_volume.tolist(), named, drawn.prior.tolist(), strict=True)
    records = [
        ({"file_name": names[i]} if names else {})
        | {
            "row": row,
            "log_volume": value if np.isfinite(value) else None,
            "label": label,
            "source": "prior" if prior else "polarity",
        }
        for i, (row, value, label, prior) in enumerate(rows)
    ]
    lines = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)
    atomic.publish(out / "metadata.jsonl", lines.encode())
    if generator is not None and generator.gives_images:
        _publish_sheets(out, spec, drawn, volume, generator, (latents, labels))
    ResultFolder(out, SAMPLE).list_files(known)


def file_names(spec: SampleSpec, generator: "Generator") -> list[str]:
    """The names of a sample's images in its folder, or of its arrays where there is nothing to show."""
    form = f"images/{{:06d}}.{spec.format}" if generator.gives_images else "arrays/{:06d}.npy"
    return [form.format(i) for i in range(spec.n)]


def _latents(drawn: Draw | FreshDraw, volume: Volume) -> tuple[np.ndarray, np.ndarray | None]:
    """The latents and labels of a draw."""
    if isinstance(drawn, FreshDraw):
        return drawn.latents, drawn.labels
    return volume.latents(drawn.rows), volume.labels(drawn.rows)


def finish(
    out: Path, spec: SampleSpec, drawn: Draw | FreshDraw, volume: Volume, command: list[str], report: dict
) -> None:
    """Write sample.json: from now on the sample is whole.

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
    provenance = {
        "command": command,
        "spec": asdict(spec),
        "volume": {"path": str(volume.path), "fingerprint": volume.fingerprint, "spec": asdict(volume.spec)},
        "effective_size": drawn.effective_size,
        "displaced_share": drawn.displaced_share,
        "largest_useful_rho": drawn.largest_useful_rho,
        "top_share": drawn.top_share,
        "ball": drawn.ball and drawn.ball.fields,
        "unique_rows": drawn.unique_rows,
        "versions": _versions(spec),
        "report": report,
    }
    if isinstance(drawn, FreshDraw):
        provenance["tempered"] = drawn.origin
    if volume.spec.truncation != spec.truncation:
        provenance["volume_truncation"] = volume.spec.truncation
    ResultFolder(out, SAMPLE).finish(provenance)


def _versions(spec: SampleSpec) -> dict[str, str]:
    if spec.no_images:
        return results.versions()
    from magnet_cli.sampling import render

    return render.versions()


def _publish_sheets(
    out: Path,
    spec: SampleSpec,
    drawn: Draw | FreshDraw,
    volume: Volume,
    generator: "Generator",
    rows: tuple[np.ndarray, np.ndarray | None],
) -> None:
    """grid.png: the first rows of the volume, which are plain draws from the prior, above the first that were drawn.

    And montage.png, where it is asked for, the same for each ψ, a row of each.
    """
    from magnet_cli.sampling import render

    shown = min(SHEET_IMAGES, spec.n)
    prior, ours = _prior_rows(volume, spec.label, shown), rows
    size = render.batch_size(generator)

    def images(of: tuple[np.ndarray, np.ndarray | None], truncation: float, most: int) -> list[np.ndarray]:
        latents, labels = (None if array is None else array[:most] for array in of)
        return list(render.batches(generator, latents, truncation, size, labels))

    truncated = f", truncation {spec.truncation:g}" if spec.truncation != 1 else ""
    how = "with replacement" if spec.replace else f"displaced share {drawn.displaced_share:.2g}"
    above = f"{spec.generator}: {len(prior[0])} draws from the prior{truncated}"
    below = f"rho {spec.rho:g}, top_k {spec.top_k}: the first {shown} of {spec.n:,} draws; "
    if isinstance(drawn, FreshDraw):
        below += drawn.words
    else:
        below += f"effective size {drawn.effective_size:,.0f} of {drawn.pool:,} rows, {how}"
    below += "; volumes in w, not uniform" * (volume.spec.space == "w")
    blocks = [(above, images(prior, spec.truncation, shown)), (below, images(ours, spec.truncation, shown))]
    atomic.publish(out / "grid.png", contact_sheet.contact_sheet(blocks))
    if spec.montage:
        by = f"rho {spec.rho:g}, top_k {spec.top_k}, volumes at truncation {volume.spec.truncation:g}"
        by += " in w, not uniform" * (volume.spec.space == "w")
        pairs = {
            psi: (images(prior, psi, contact_sheet.COLUMNS), images(ours, psi, contact_sheet.COLUMNS))
            for psi in spec.montage
        }
        name = f"{spec.generator}, truncation"
        blocks = [(f"{name} {psi:g}: draws from the prior above; {by} below", *pair) for psi, pair in pairs.items()]
        atomic.publish(out / "montage.png", contact_sheet.contact_sheet(blocks))


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
