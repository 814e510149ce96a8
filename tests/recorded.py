"""Recorded outputs of official networks with random weights: `golden/NAME.safetensors`, and a JSON beside each.

Made for this project; no code of those networks is here. Groups: state/ weights, in/ inputs, out/ float32 outputs,
out64/ the same in float64, style/ styles, trace0/ intermediates of the first sample, jac/ Jacobians at that sample.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load

FOLDER = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class Recorded:
    """One file: `groups["out"]["image"]` is its tensor out/image."""

    groups: dict
    facts: dict

    def tolerance(self, output):
        """Largest difference a float32 output may have: ten times what float64 and float32 differ by in the record."""
        return 10 * self.facts["tolerance"]["per_output"][output]["f64_vs_f32"]


def names(prefix):
    return sorted(path.stem for path in FOLDER.glob(f"{prefix}*.safetensors"))


def read(name):
    data = (FOLDER / f"{name}.safetensors").read_bytes()
    facts = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert hashlib.sha256(data).hexdigest() == facts["sha256"]
    groups = {}
    for key, value in load(data).items():
        group, _, rest = key.partition("/")
        groups.setdefault(group, {})[rest] = value
    return Recorded(groups, facts)
