"""Write balanced latents as a sample like any other.

Joins the selection, its source and a generator. Images of a sample are copied, others rendered. The caller owns
progress and stopping: `write` yields after each batch of images, and the same call later goes on where it stopped.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from magnet_cli.editing.balance import Selection, Table
from magnet_cli.editing.scored import Scored
from magnet_cli.errors import SampleError
from magnet_cli.files import atomic, contact_sheet, documents, pictures, results
from magnet_cli.files.image_folder import ImageSet
from magnet_cli.files.results import ResultFolder
from magnet_cli.maths.metrics import class_shares
from magnet_cli.maths.metrics.class_shares import Tally
from magnet_cli.sampling.kinds import SAMPLE

if TYPE_CHECKING:
    from magnet_cli.models import Generator

SHEET_IMAGES = 64  # of each kind on the contact sheet
_COPIED = 64  # files at a time


@dataclass(frozen=True)
class BalanceSpec:
    """Exactly what decides which images a balanced sample holds.

    Attributes:
        generator: its name; empty where nobody says.
        sha256: of the generator's checkpoint.
        fingerprint: of the volume that the source was drawn from; empty where it was not.
        source: hex sha256 of the latents and scores it is chosen from.
        attributes: that are balanced.
        cut: "attribute=class" of those that were cut into two.
        confidence: every attribute is surer than this.
        target: "attribute:class=share" of all classes.
        n: images.
        seed: of the draw.
        even: whether combinations take turns.
        truncation: ψ the images are rendered at.
        no_images: latents alone.
    """

    generator: str
    sha256: str
    fingerprint: str
    source: str
    attributes: tuple[str, ...]
    cut: tuple[str, ...]
    confidence: float
    target: tuple[str, ...]
    n: int
    seed: int
    even: bool = False
    truncation: float = 1.0
    no_images: bool = False


def default_out(found: Scored, spec: BalanceSpec) -> Path:
    """./samples/<source>-balanced-n<n>-seed<seed>."""
    name = found.path.resolve()
    return Path("samples") / f"{name.stem if name.is_file() else name.name}-balanced-n{spec.n}-seed{spec.seed}"


def write(
    out: Path,
    spec: BalanceSpec,
    found: Scored,
    chosen: Selection,
    generator: "Generator | None" = None,
    batch: int | None = None,
) -> Iterator[int]:
    """Fill the folder of a balanced sample. sample.json is still to come: `finish`.

    Args:
        out: the folder; new, or begun by the same call before.
        spec: what it is.
        found: what it is chosen from.
        chosen: the rows.
        generator: on its device, where images have to be rendered.
        batch: images at a time.

    Yields:
        Number of images written since the last time.

    Raises:
        SpecError: a latent is not finite.
        MagnetError: no space, no permission; what was written stays, and the same call goes on from there.
    """
    ResultFolder(out, SAMPLE).begin(spec)
    latents = found.rows(chosen.rows)
    labels = None if found.labels is None else found.labels[chosen.rows]
    names: list[str] = []
    known: dict[str, str] = {}
    if not spec.no_images:
        held = held_images(found)
        if held:
            names = _copied_names(held, chosen.rows)
            steps = _copies(out, names, found.path, [held[row] for row in chosen.rows.tolist()])
        else:
            from magnet_cli.sampling import render  # and with it torch

            names = [_form(generator).format(i) for i in range(spec.n)]
            steps = render.write_images(out, names, generator, latents, spec.truncation, labels, batch=batch)
        for hashes in steps:
            known |= hashes
            yield len(hashes)
    atomic.publish(out / "latents.npy", pictures.npy(latents))
    if labels is not None:
        atomic.publish(out / "labels.npy", pictures.npy(labels))
    atomic.publish(out / "metadata.jsonl", _metadata(found, spec, chosen, names, labels))
    if names and names[0].startswith("images/"):
        atomic.publish(out / "grid.png", _sheet(out, spec, found, generator))
    ResultFolder(out, SAMPLE).list_files(known)


def finish(
    out: Path, spec: BalanceSpec, found: Scored, table: Table, chosen: Selection, command: list[str], report: dict
) -> None:
    """Write sample.json: from now on the sample is whole.

    Args:
        out: the folder that `write` filled.
        spec: what it is.
        found: what it was chosen from.
        table: the combinations it was chosen by.
        chosen: the rows.
        command: the command line.
        report: what the command prints, to be printed again when it is repeated.

    Raises:
        MagnetError: no space, no permission.
    """
    if spec.no_images or held_images(found):
        versions = results.versions()
    else:
        from magnet_cli.sampling import render

        versions = render.versions()
    attributes = {each.name: found.models.get(each.name, {}) | fields for each, fields in tallies(table, chosen)}
    provenance = {
        "command": command,
        "spec": asdict(spec),
        "balance": {"source": str(found.path), "kind": found.kind, "displaced_share": chosen.displaced_share},
        "attributes": attributes,
        "versions": versions,
        "report": report,
    }
    ResultFolder(out, SAMPLE).finish(provenance)


def tallies(table: Table, chosen: Selection) -> Iterator[tuple]:
    """Each attribute, and the shares of its classes among the chosen rows, as `class_shares.summary` has them."""
    for each in table.attributes:
        counts = np.bincount(each.labels[chosen.rows], minlength=len(each.classes))
        yield each, asdict(class_shares.summary([Tally(each.classes, counts)]))


def held_images(found: Scored) -> list[str]:
    """The files of a source's images (or arrays) in its folder, a file a row; none where it has none."""
    return [record["file_name"] for record in found.records if "file_name" in record]


def _copied_names(held: list[str], rows: np.ndarray) -> list[str]:
    """The names that copies get: numbered anew, endings kept."""
    made = []
    for i, row in enumerate(rows.tolist()):
        folder, _, name = held[row].rpartition("/")
        made.append(f"{folder}/{i:06d}.{name.rpartition('.')[2]}")
    return made


def _copies(out: Path, names: list[str], source: Path, held: list[str]) -> Iterator[dict[str, str]]:
    """Copy files; after each few the sha256 of those, by their names."""
    for folder in {name.partition("/")[0] for name in names}:
        atomic.make_folder(out / folder)
        atomic.sweep(out / folder)
    for start in range(0, len(names), _COPIED):
        hashes = {}
        for name, from_ in zip(names[start : start + _COPIED], held[start : start + _COPIED], strict=True):
            with atomic.explained("read", source / from_):
                data = (source / from_).read_bytes()
            atomic.publish(out / name, data, durable=False)
            hashes[name] = documents.sha256_bytes(data)
        yield hashes


def _form(generator: "Generator") -> str:
    return "images/{:06d}.png" if generator.gives_images else "arrays/{:06d}.npy"


def _metadata(
    found: Scored, spec: BalanceSpec, chosen: Selection, names: list[str], labels: np.ndarray | None
) -> bytes:
    """A line an image: what its source says of it, then class and probability of each attribute."""
    lines = []
    for i, row in enumerate(chosen.rows.tolist()):
        record = {"file_name": names[i]} if names else {}
        if found.records:
            record |= {name: value for name, value in found.records[row].items() if name != "file_name"}
        else:
            source = "prior" if found.kind == "attributes" else "given"
            label = None if labels is None else int(labels[i])
            record |= {"row": row, "log_volume": None, "label": label, "source": source}
        for name in spec.attributes:
            each = found.attributes[name]
            sure = round(float(each.sure[row]), 6)
            record |= {name: each.classes[each.labels[row]], f"{name}_probability": sure}
        lines.append(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
    return "".join(lines).encode()


def _sheet(out: Path, spec: BalanceSpec, found: Scored, generator: "Generator | None") -> bytes:
    """The contact sheet: the first images of the source, as they come, above the first that were chosen."""
    shown = min(SHEET_IMAGES, len(found))
    if held_images(found):
        before = _first_images(found.path)
    else:
        from magnet_cli.sampling import render

        places = np.arange(shown)
        labels = None if found.labels is None else found.labels[places]
        size = render.batch_size(generator)
        before = list(render.batches(generator, found.rows(places), spec.truncation, size, labels))
    after = _first_images(out)
    above = f"{found.path.name}: the first {len(before)} of {len(found):,}, as they come"
    below = f"the first {len(after)} of {spec.n:,}, balanced by {', '.join(spec.attributes)}"
    return contact_sheet.contact_sheet([(above, before), (below, after)])


def _first_images(sample: Path) -> list[np.ndarray]:
    """The first images [H, W, C] uint8 of a sample."""
    shown = ImageSet.open(sample / "images")
    return [image for block in shown.batches(0, min(SHEET_IMAGES, len(shown))) for image in block]


def check_source(found: Scored, *, no_images: bool, generator: str | None) -> bool:
    """Whether a generator is needed for the images that are asked for.

    Raises:
        SampleError: it is, and nobody says which.
    """
    if no_images or held_images(found):
        return False
    if not (generator or found.generator):
        message = f"images of {found.path} are asked for, and nothing says which generator makes them"
        raise SampleError(message, "pass --generator, or --no-images for the latents alone")
    return True
