"""The kinds of folders that sampling fills; without torch, so that any of them can be read where it is missing."""

from pathlib import Path

from magnet_cli.files.results import Kind

LARGEST_RHO = 1e6  # in size: from far smaller ones on, draws are the rows of the largest volumes, in order
# Contact sheets; loaders of Hugging Face datasets do not look into folders with such a name.
SHEETS = "__sheets__"
GRID, MONTAGE = f"{SHEETS}/grid.png", f"{SHEETS}/montage.png"
_SAMPLE = {"images", "arrays", "latents.npy", "labels.npy", "metadata.jsonl", SHEETS, "grid.png", "montage.png"}
SAMPLE = Kind("sample", 1, frozenset(_SAMPLE))
RENDERING = Kind("rendering", 1, frozenset({"images", "images.npy", ".images.npy.growing"}))


def sheet(folder: Path, name: str) -> Path:
    """Return the path of a contact sheet; samples and edits of an earlier magnet have it beside their documents."""
    return folder / name if (folder / SHEETS).is_dir() else folder / Path(name).name
