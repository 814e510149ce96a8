"""The spec of a volume: exactly what changes the numbers in it, and its fingerprint."""

import dataclasses
from dataclasses import dataclass
from math import inf
from typing import cast

import numpy as np

from magnet_cli.errors import SpecError
from magnet_cli.files import documents
from magnet_cli.files.npy import MOST_CLASSES
from magnet_cli.files.text import is_name, visible
from magnet_cli.maths.priors import SPHERES, labels_in_turn

FORMAT = 1
_MOST = 1 << 31  # rows of a shard: with as many shards, row numbers stay below 2^63
_MOST_LATENTS = 1 << 24  # numbers of a latent
_SOLVER_SIZES = ["solver_size", "solver_power", "solver_sweep"]
# Where they are empty they are no part of the fingerprint: volumes made before there were such fields keep theirs.
_EMPTY_IS_SILENT = (
    "output_sha256",
    "style_dim",
    "noise",
    "nvae_latents",
    "image_range",
    "num_classes",
    "label",
    "bn_truncation",
    "imported_sha256",
    "factored",
)


@dataclass(frozen=True)
class VolumeSpec:
    """Exactly what changes the numbers in a volume; how the work is done and how many rows there are does not.

    Attributes:
        generator: the generator's name; no part of the fingerprint, for names change no number.
        sha256: of its checkpoint.
        family: its architecture.
        prior: the distribution of the latents; "mixture" is that of the weights, which the volume holds.
        latent_dim: D.
        space: where the Jacobian's input lives: "z", or "w", the mapping network's output at z.
        output: what the Jacobian is taken of: "pixel", "style", "affine", or the name of an image model that follows.
        truncation: ψ in (0, 1], part of the function differentiated; 1 = none.
        top_k: K, singular values kept a row.
        solver: how they are computed: "exact", "pilot", "sketch" or "projection"; as asked also "auto"; "imported"
            where they come from a file.
        precision: arithmetic of the products: "float64", "float32", "tf32" or "bfloat16"; as asked also "auto";
            "unknown" where they come from a file.
        rank_floor: singular values below this share of their row's first are rounding.
        seed: of the latents.
        shard_rows: R, rows of a shard.
        solver_size: vectors a pass of the solver; 0 for exact, and where it is yet to be chosen.
        solver_power: further passes of a sketch.
        solver_sweep: whether reverse products follow a pilot's forward ones.
        tolerance: rms error of log-volume, in nats, that solver and precision were chosen for; part of the
            fingerprint only while they are not.
        output_sha256: of the image model's weights; empty where none follows.
        style_dim: Dw, numbers of the Jacobian's input where that is w; else 0.
        noise: of the generator's noise inputs: "const", as stored with the weights, "none", or "seed-N", drawn from a
            fixed stream; empty where it has none.
        nvae_latents: of an NVAE: "top", the latent is the noise of the first group, or "all", of every group; else
            empty.
        image_range: of a generator of the user's own: (lowest, highest) intensity of what it gives, before it is
            brought to [-1, 1]; empty where it is that.
        num_classes: of the labels the generator takes; 0 where it takes none.
        label: those that are computed, row i with the (i mod their number)-th; empty for all classes in turn.
        bn_truncation: ψ of the batch-norm statistics that depend on it; 0 where it is `truncation`, or there are none.
        imported_sha256: of the file that the rows were imported from; empty where they were computed.
        factored: whether float64 products are factorised (QR), so that values down to the rank floor are right; if not,
            values are roots of eigenvalues of JᵀJ, as in all volumes that were made before there was the choice.
    """

    generator: str
    sha256: str
    family: str
    prior: str
    latent_dim: int
    space: str
    output: str
    truncation: float
    top_k: int
    solver: str
    precision: str
    rank_floor: float
    seed: int
    shard_rows: int
    solver_size: int = 0
    solver_power: int = 0
    solver_sweep: bool = False
    tolerance: float = 0.1
    output_sha256: str = ""
    style_dim: int = 0
    noise: str = ""
    nvae_latents: str = ""
    image_range: tuple[float, ...] = ()
    num_classes: int = 0
    label: tuple[int, ...] = ()
    bn_truncation: float = 0.0
    imported_sha256: str = ""
    factored: bool = False

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            SpecError: a value outside its range.
        """
        for name in ("label", "image_range"):  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not is_name(self.generator):
            message = f"generator {visible(self.generator)!r} is no name: files are called by it"
            raise SpecError(message, "pass a generator whose name has no slash and no control characters")
        if not (1 <= self.input_dim < _MOST_LATENTS and 0 <= self.num_classes < MOST_CLASSES):
            message = (
                f"{self.input_dim} latents and {self.num_classes} classes are more than the {_MOST_LATENTS:,} and "
            )
            message += f"{MOST_CLASSES:,} that there can be, or less than 1 and 0"
            raise SpecError(message, "pass another generator")
        if not 1 <= self.top_k <= self.rank:
            if not self.rank:
                raise SpecError(
                    f"{self.generator} normalises its one latent: no image changes", "pass another generator"
                )
            message = f"top_k {self.top_k} is outside 1..{self.rank}: {self.generator} has {self.input_dim} latents"
            message += (
                " in w"
                if self.space == "w"
                else " on a sphere, whose directions are one less" * (self.prior in SPHERES)
            )
            raise SpecError(message, f"pass `top_k` between 1 and {self.rank}")
        if self.label and not self.num_classes:
            message = f"label {self.label[0]} is asked for, and {self.generator} takes no labels"
            raise SpecError(message, "leave `label` out")
        if outside := [label for label in self.label if not 0 <= label < self.num_classes]:
            message = f"label {outside[0]} is outside 0..{self.num_classes - 1}, the classes of {self.generator}"
            raise SpecError(message, f"pass `label` between 0 and {self.num_classes - 1}")
        if not (0 < self.truncation <= 1 and 0 <= self.bn_truncation <= 1):
            message = f"truncation {self.truncation}, or bn_truncation {self.bn_truncation}, is outside (0, 1]"
            raise SpecError(message, "pass `truncation` between 0 and 1; 1 is none")
        low, high = self.image_range or (-1, 1)
        if not -inf < low < high < inf:
            message = f"image_range {self.image_range} is no lower and higher number"
            raise SpecError(message, "pass `image_range=LO,HI`")
        if self.nvae_latents not in {"", "top", "all"}:
            message = f"nvae_latents {self.nvae_latents!r} is neither top nor all"
            raise SpecError(message, "pass `nvae_latents=top`, or all")
        if not 1 <= self.shard_rows < _MOST or self.seed < 0:
            message = f"shard_rows {self.shard_rows} and seed {self.seed} must be at least 1 and 0, and below {_MOST:,}"
            raise SpecError(message, "pass another value")

    @property
    def input_dim(self) -> int:
        """Length of the Jacobian's input: D, or Dw in w."""
        return self.style_dim or self.latent_dim

    @property
    def rank(self) -> int:
        """The most singular values that are not zero by construction: along z on a sphere the image does not change."""
        return self.input_dim - (self.prior in SPHERES and self.space == "z")

    @property
    def vectors(self) -> int:
        """Vectors of one pass of the solver."""
        return self.solver_size or self.input_dim

    @property
    def classes(self) -> tuple[int, ...]:
        """The labels of the rows, in the order in which they take turns; empty for generators without labels."""
        return self.label or tuple(range(self.num_classes))

    def labels(self, first_row: int, rows: int) -> np.ndarray | None:
        """Return the labels [rows] int64 of rows of the volume, by their numbers; None where there are none.

        None for a mixture too, whose components are drawn with the latents.
        """
        cycle = self.classes if self.prior != "mixture" else ()
        return labels_in_turn(cycle, rows, first_row) if cycle else None

    @property
    def resolved(self) -> bool:
        """Whether solver, sizes and precision are chosen."""
        return "auto" not in {self.solver, self.precision} and (
            self.solver in {"exact", "imported"} or self.solver_size > 0
        )

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of the canonical spec and the format."""
        silent = ["generator"] + ["tolerance"] * self.resolved
        silent += [name for name in _EMPTY_IS_SILENT if not getattr(self, name)]
        silent += _SOLVER_SIZES if self.solver in {"exact", "imported"} else ()
        fields = {k: v for k, v in dataclasses.asdict(self).items() if k not in silent}
        return documents.sha256_bytes(documents.canonical({"format": FORMAT, **fields}))


def from_fields(fields: object) -> VolumeSpec:
    """Return the spec in a JSON document; every field is checked.

    Raises:
        SpecError: fields are missing, unknown, of another type or outside their range.
    """
    plain = {int: (int,), float: (float, int), str: (str,), bool: (bool,)}
    try:
        spec = VolumeSpec(**cast("dict", fields))
        values = ((f.name, getattr(spec, f.name), plain.get(cast("type", f.type))) for f in dataclasses.fields(spec))
        wrong = [f"{name} {value!r}" for name, value, types in values if types and type(value) not in types]
    except (TypeError, ValueError) as error:
        wrong = [str(error)]
    if wrong:
        message = f"these are not the fields of a volume's spec: {', '.join(wrong)}"
        raise SpecError(message, "use the magnet that made it, or compute it again")
    return spec


def differences(asked: VolumeSpec, stored: VolumeSpec) -> str:
    """Return the fields in which the spec of a volume does not fit, with both values; "" where it fits."""
    free = {"generator", "factored"}
    if asked.solver == "auto":
        free.add("solver")
    if not asked.resolved:
        free |= {"solver_size", "solver_power", "solver_sweep"}
    if asked.precision == "auto":
        free |= {"precision", "rank_floor"}
    if stored.solver == "exact" or asked.solver_size:
        free.add("tolerance")
    wanted, there = dataclasses.asdict(asked), dataclasses.asdict(stored)
    return ", ".join(f"{k} {there[k]} (asked {wanted[k]})" for k in wanted if wanted[k] != there[k] and k not in free)
