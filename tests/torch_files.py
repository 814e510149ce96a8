"""Files as torch.save writes them, and what must never run when they are read."""

import io
import os

import torch


class RunsWhenRead:
    """Pickled, it is a call of os.system."""

    def __reduce__(self):
        return os.system, ("touch ran",)


def saved(content, **flags):
    """The bytes that torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer, **flags)
    return buffer.getvalue()
