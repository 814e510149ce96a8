"""The kinds of folders that evaluating fills; without torch, so that any of them can be read where it is missing."""

from magnet_cli.files.results import Kind

SWEEP = Kind("sweep", 1, frozenset({"samples", "reference", "plots", ".points", ".images"}), frozenset({"samples"}))
ATTRIBUTES = Kind(
    "attributes",
    1,
    noun="set of attributes",
    fields={"report": dict, "files": dict},
    remedy="pass another folder as `out`",
)
