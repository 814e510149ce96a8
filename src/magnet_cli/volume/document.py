"""volume.json: the spec of a volume, and the choices made when it was made."""

import dataclasses
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from magnet_cli import __version__
from magnet_cli.errors import SpecError, VolumeError
from magnet_cli.files import atomic, documents, opening
from magnet_cli.volume.spec import FORMAT, VolumeSpec, from_fields

NAME = "volume.json"
_REMEDY = "use the magnet that made it, or compute it again"


@dataclass(frozen=True)
class Document:
    """The contents of volume.json, without its notes, which may be added later.

    Attributes:
        spec: what the volume's numbers depend on.
        pilot_sha256: sha256 of pilot.h5; empty where the solver needs none.
        mixture_sha256: sha256 of mixture.h5; empty where the prior is no mixture.
        measured: what solver and precision were chosen by.
        probe: outputs of a user's own generator, and of the image model that follows, at fixed inputs; empty where
            there are none.
    """

    spec: VolumeSpec
    pilot_sha256: str = ""
    mixture_sha256: str = ""
    measured: dict = field(default_factory=dict)
    probe: dict = field(default_factory=dict)


def read(folder: Path) -> Document:
    """Return the document in a volume's folder.

    Raises:
        VolumeError: there is none, or one of another format.
        MagnetError: it is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        contents = "a file" if folder.exists() else "nothing there"
        contents = f"a folder without {NAME}" if folder.is_dir() else contents
        message = f"{folder} is not a volume: found {contents}"
        raise VolumeError(message, "pass the folder that `magnet compute` printed")
    opening.refuse_links(folder / "shards", folder)
    fields = documents.read(path)
    if fields.get("format") != FORMAT:
        message = f"{folder} is a volume of format {fields.get('format')}; this magnet ({__version__}) reads {FORMAT}"
        raise VolumeError(message, _REMEDY)
    try:
        spec = from_fields(fields.get("spec"))
        fingerprint = spec.fingerprint
    except (SpecError, ValueError) as error:
        message = f"the spec in {path} is not one this magnet ({__version__}) knows: {error}"
        raise VolumeError(message, _REMEDY) from error
    if fields.get("fingerprint") != fingerprint:
        message = f"the fingerprint in {path} is not that of its spec"
        raise VolumeError(message, _REMEDY)
    pilot, mixture = fields.get("pilot", ""), fields.get("mixture", "")
    measured, probe = fields.get("measured"), fields.get("probe")
    hashes = isinstance(pilot, str) and isinstance(mixture, str)
    if not (hashes and isinstance(measured, dict | None) and _is_probe(probe)):
        message = f"pilot, mixture, measured or probe in {path} is not what this magnet ({__version__}) knows"
        raise VolumeError(message, _REMEDY)
    return Document(spec, pilot, mixture, measured or {}, probe or {})


def publish(folder: Path, document: Document) -> None:
    """Write the document, unless another process was first.

    Raises:
        MagnetError: it cannot be written.
    """
    fields = {
        "format": FORMAT,
        "fingerprint": document.spec.fingerprint,
        "spec": dataclasses.asdict(document.spec),
        "pilot": document.pilot_sha256,
        **({"mixture": document.mixture_sha256} if document.mixture_sha256 else {}),
        "measured": document.measured,
        "probe": document.probe,
        "notes": [],
        "magnet": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    atomic.publish(folder / NAME, documents.encode(fields), replace=False)


def note(folder: Path, text: str) -> None:
    """Add a line to the notes, once.

    Raises:
        MagnetError: it cannot be read or written.
    """
    fields = documents.read(folder / NAME)
    if text not in fields["notes"]:
        atomic.publish(folder / NAME, documents.encode(fields | {"notes": [*fields["notes"], text]}))


def _is_probe(value: object) -> bool:
    """Return whether a value is a probe: rows of numbers, equally long, by name; or nothing."""
    if not isinstance(value, dict):
        return value is None or value == []
    return all(
        isinstance(rows, list)
        and all(isinstance(row, list) and len(row) == len(rows[0]) for row in rows)
        and all(type(number) in {int, float} for row in rows for number in row)
        for rows in value.values()
    )
