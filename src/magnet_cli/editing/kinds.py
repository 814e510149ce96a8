"""The kinds of results that editing writes; without torch, so that any of them can be read where it is missing."""

from magnet_cli.files.results import Kind

_EDIT = {"images", "latents.npy", "labels.npy", "scores.npz", "metadata.jsonl", "__sheets__", "grid.png"}
EDIT = Kind("edit", 1, frozenset(_EDIT))
DIRECTION = Kind(  # a file, whose document stands beside it
    "direction", 1, fields={}, remedy="pass another file as `out`, or `force=True` to replace it"
)
