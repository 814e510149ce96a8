"""What the user may name a generator by: an artifact, the path of a checkpoint, or a factory of their own."""

import re
from pathlib import Path

_FACTORY = re.compile(r".+:[^\W\d]\w*")


def is_factory(reference: str) -> bool:
    """Return whether a reference names a factory, as "file.py:factory" does, and no file has that name."""
    return _FACTORY.fullmatch(reference) is not None and not Path(reference).exists()
