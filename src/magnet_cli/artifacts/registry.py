"""artifacts.toml: what can be fetched, as data.

Owns the Artifact and the reading of lists of them. Knows nothing of downloads or of the cache.
"""

import difflib
import os
import re
import tomllib
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path

from magnet_cli.artifacts import image_entries
from magnet_cli.errors import ArtifactError
from magnet_cli.files import explained

KINDS = ("generator", "volume", "image-model")
SOURCES = {  # scheme: what follows it
    "builtin": r"[\w.-]+",
    "wheel": r"[A-Za-z0-9][\w.-]*==[\w.!+-]+#(?!.*\.\.)([\w.-]+/)*[\w.-]+",
    "https": r"//[^/?#]+/([^?#]*/)?[^/?#]+",
    "http": r"//[^/?#]+/([^?#]*/)?[^/?#]+",
    "hub": r"[\w.-]+/[\w.-]+@[0-9a-f]{40}/([\w.-]+/)*[\w.-]+",
    "file": r"(.*/)?[^/]+",
}
_PRIORS = {"biggan-deep": "truncated-normal", "progan": "sphere", "stylegan2": "sphere", "stylegan3": "sphere"}
_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Artifact:
    """One entry of artifacts.toml.

    Attributes:
        name: its key.
        kind: "generator", "volume" or "image-model".
        source: where it comes from, SCHEME:REST.
        sha256: of its bytes, 64 hex digits; of the listing (files.sha256_folder) where it is a folder.
        size: bytes.
        license: SPDX id or name.
        description: one line.
        family: architecture of a generator; format of an image model; empty for volumes.
        generator: of a volume, the name of the generator it belongs to; else empty.
        commercial_use: False where the licence forbids it: fetching then asks for --accept-license.
        preprocess: of an image model, the fields of image_entries.Preprocess.
        outputs: of an image model, the fields of image_entries.Outputs.
    """

    name: str
    kind: str
    source: str
    sha256: str
    size: int
    license: str
    description: str
    family: str = ""
    generator: str = ""
    commercial_use: bool = True
    preprocess: dict = field(default_factory=dict, hash=False)
    outputs: dict = field(default_factory=dict, hash=False)

    @property
    def scheme(self) -> str:
        """How it is had: the part of the source before the first colon."""
        return self.source.partition(":")[0]

    @property
    def file_name(self) -> str:
        """The name of the file (or folder), without its folders."""
        return re.split(r"[/#:]", self.source)[-1]


def prior_of(family: str) -> str:
    """The distribution of a family's latents, known even where it cannot be built; "normal" where nothing else is."""
    return _PRIORS.get(family, "normal")


def registry() -> dict[str, Artifact]:
    """Every known artifact by name: those that ship with magnet, and over them those of MAGNET_ARTIFACTS.

    Raises:
        ArtifactError: a list cannot be read, or entries in it are wrong; all mistakes are named at once.
    """
    lists = [shipped_list()]
    if own := os.environ.get("MAGNET_ARTIFACTS"):
        lists.append(Path(own))
    return {name: artifact for path in lists for name, artifact in read_list(path).items()}


def shipped_list() -> Path:
    """artifacts.toml of this installation: inside the wheel, or at the top of the checkout."""
    inside = _PACKAGE / "artifacts.toml"
    return inside if inside.exists() else _PACKAGE.parents[1] / "artifacts.toml"


def read_list(path: Path) -> dict[str, Artifact]:
    """The artifacts of one file.

    Raises:
        ArtifactError: unreadable, not TOML, or entries in it are wrong; all mistakes are named at once.
    """
    if not path.exists():
        message = f"the list of artifacts {path} does not exist"
        raise ArtifactError(message, "correct MAGNET_ARTIFACTS, or unset it")
    try:
        with explained("read", path):
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"the list of artifacts {path} is not TOML: {error}"
        raise ArtifactError(message, "correct the line it names; README shows an entry") from error
    problems = [f"[{name}] {problem}" for name, table in tables.items() for problem in _problems(table)]
    if problems:
        message = f"{path} has {len(problems)} mistakes:\n  " + "\n  ".join(problems)
        raise ArtifactError(message, "README shows an entry")
    return {name: Artifact(name=name, **table) for name, table in tables.items()}


def find(name: str) -> Artifact:
    """The artifact of that name.

    Raises:
        ArtifactError: there is none; the nearest names are given.
    """
    known = registry()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    message = f"no artifact is called {name!r}"
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ArtifactError(message, f"{hint}`magnet list` shows all {len(known)}")


def _problems(table: object) -> list[str]:
    """What is wrong with one entry, in words; empty when it is right."""
    if not isinstance(table, dict):
        return ["is not a table"]
    types = {f.name: f.type for f in fields(Artifact) if f.name != "name"}
    plain = [f for f in fields(Artifact) if f.name not in {"name", "preprocess", "outputs"}]
    required = {f.name for f in plain if f.default is MISSING}
    found = [f"{key}: missing" for key in sorted(required - table.keys())]
    found += [f"{key}: unknown field; the fields are {', '.join(types)}" for key in table.keys() - types.keys()]
    found += [
        f"{key}: {value!r} is not of type {types[key].__name__}"
        for key, value in table.items()
        if key in types and type(value) is not types[key]
    ]
    right = {key: value for key, value in table.items() if key in types and type(value) is types[key]}
    if (kind := right.get("kind")) is not None and kind not in KINDS:
        found.append(f"kind: {kind!r} is not one of {', '.join(KINDS)}")
    scheme, _, rest = right.get("source", "builtin:absent").partition(":")
    if scheme not in SOURCES:
        found.append(f"source: {right['source']!r} begins with none of {', '.join(SOURCES)}")
    elif not re.fullmatch(SOURCES[scheme], rest) or rest.rpartition("/")[2] in {".", ".."}:
        found.append(f"source: {right['source']!r} is not a file's place; README shows what follows {scheme}:")
    if (sha256 := right.get("sha256")) is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        found.append(f"sha256: {sha256!r} is not 64 lower-case hex digits")
    if (size := right.get("size")) is not None and size <= 0:
        found.append(f"size: {size} is not a positive number of bytes")
    return found + [f"{name}: {wrong}" for name, wrong in image_entries.problems(right)]
