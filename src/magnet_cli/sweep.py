"""What rho and truncation do to a generator's images: samples over a grid, each evaluated, and a rho chosen by them.

Joins the verbs sample, evaluate and attributes. The rho is picked on one half of a volume's rows and of the reference,
and reported on the other halves, so that its figures are not flattered by their having picked it. The caller owns
progress and stopping: `write` yields each point once it is safe on disk, and the same call later goes on from there.

A finished folder holds sweep.json, plots/*.svg, samples/NAME (whole samples, as `magnet sample` writes them) and, where
none was given, reference/ (a rendering of fresh draws from the prior). sweep.json:

    {"format": 1, "command": [...], "spec": {the fields of SweepSpec}, "created": ..., "versions": {...},
     "volumes": [{"truncation", "path", "fingerprint", "rows", "spec"}],      one for each truncation, in their order
     "reference": {"path", "kind": "images" | "prior", "n"},       "prior": metrics are drifts from the generator itself
     "features": {"name", "sha256"},
     "models": {NAME: {"sha256", "classes": [...]}},
     "points": [POINT, ...],                                            by truncation, as given, then by rho, ascending
     "choice": null | {"by", "direction": "lowest" | "highest", "rho", "truncation", "chosen": POINT, "baseline": POINT},
     "plots": {NAME: "plots/NAME.svg"},
     "report": {what the command prints}}

    POINT = {"rho", "truncation", "half", "sample": "samples/NAME", "n", "pool", "effective_size", "displaced_share",
             "unique_rows", "top_share", "target", "warnings": [...], "reference_n", "interval": "within this draw",
             "metrics": {"fid[digits]": ESTIMATE, ...},                            names as `magnet evaluate` gives them
             "undefined": {"fid[digits]": why},
             "attributes": {MODEL: {"n", "shares": {CLASS: ESTIMATE}, "gap": ESTIMATE, "total_variation": ESTIMATE}}}

    ESTIMATE = {"value", "low", "high"}

`half` is 1 in "points" and 2 in "choice": "chosen" is the point that was picked, "baseline" rho 0 at the same truncation,
both with other rows and other images of the reference than those that picked. Without a choice there is no half: it is 0.
"by" is the name of a metric ("fid[digits]") or MODEL.gap, MODEL.total_variation. Paths are relative to the folder, but
for those of volumes and of a reference that was given.
"""
