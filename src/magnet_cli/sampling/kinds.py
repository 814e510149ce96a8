"""The kinds of folders that sampling fills; without torch, so that any of them can be read where it is missing."""

from magnet_cli.files.results import Kind

GRID, MONTAGE = "grid.png", "montage.png"  # contact sheets
_SAMPLE = {"images", "arrays", "latents.npy", "labels.npy", "metadata.jsonl", "grid.png", "montage.png"}
SAMPLE = Kind("sample", 1, frozenset(_SAMPLE))
RENDERING = Kind("rendering", 1, frozenset({"images", "images.npy", ".images.npy.growing"}))
