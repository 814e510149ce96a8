"""pilot.h5 and mixture.h5, arrays beside volume.json, which holds their hashes."""

import io
from pathlib import Path

import h5py
import numpy as np

from magnet_cli.errors import VolumeError
from magnet_cli.files import atomic, documents, hdf5, opening

PILOT = "pilot.h5"
MIXTURE = "mixture.h5"


def keep(path: Path, arrays: dict[str, np.ndarray] | None) -> str:
    """Publish arrays as float64, unless the file is there; return the sha256 of the file. None: no file, "".

    Raises:
        MagnetError: it cannot be written.
    """
    if arrays is None:
        return ""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="earliest") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, dtype=np.float64)
    atomic.publish(path, buffer.getvalue(), replace=False)
    return documents.sha256_file(path)


def read(path: Path, sha256: str, forms: dict[str, hdf5.Form], lost: str) -> dict[str, np.ndarray]:
    """Return the arrays in a file, whose bytes are verified first.

    Args:
        path: the file.
        sha256: hash of its bytes in volume.json.
        forms: forms of the arrays.
        lost: what cannot be done without them, for messages.

    Raises:
        VolumeError: its bytes are not those.
        MagnetError: it cannot be read.
    """
    data = b""
    if path.is_file():
        data = opening.read(path, path.parent)
    if documents.sha256_bytes(data) != sha256:
        message = f"{path} is damaged or gone: its {len(data):,} bytes are not those the volume was made with"
        raise VolumeError(message, f"restore it from a copy; without it {lost}")
    try:
        return {name: array.copy() for name, array in hdf5.read(data, forms)[0].items()}
    except ValueError as error:
        message = f"{path} is not what magnet wrote: {error}"
        raise VolumeError(message, f"restore it from a copy; without it {lost}") from error
