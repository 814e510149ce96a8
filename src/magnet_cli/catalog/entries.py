"""artifacts.toml: the artifacts that can be fetched; reading and checking such lists."""

import difflib
import os
import re
import tomllib
import urllib.parse
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path

from magnet_cli.catalog import image_model_entry
from magnet_cli.errors import ArtifactError
from magnet_cli.files import opening

KINDS = ("generator", "volume", "image-model")
SOURCES = {  # scheme: what follows it
    "builtin": r"[\w.-]+",
    "wheel": r"[A-Za-z0-9][\w.-]*==[\w.!+-]+#(?!.*\.\.)([\w.-]+/)*[\w.-]+",
    "https": r"//(?!.*/\.\.?/)[^/?#]+/([^?#]*/)?[^/?#]+",
    "http": r"//(?!.*/\.\.?/)[^/?#]+/([^?#]*/)?[^/?#]+",
    "hub": r"(datasets/)?[\w-][\w.-]*/[\w-][\w.-]*@[0-9a-f]{40}/(?!.*\.\./)([\w.-]+/)*[\w.-]+",
    "drive": r"[\w-]{10,100}",
    "file": r"(.*/)?[^/]+",
}
MANIFEST = "manifest.json"  # of a volume that `magnet push` published: its files by name, size and sha256
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_LARGEST = 1 << 50  # bytes
_FILES = {".pt", ".pth", ".pkl", ".ckpt", ".bin", ".tar", ".safetensors", ".onnx", ".h5", ".npy", ".npz", ".zip", ".py"}
_NAME = re.compile(r"[A-Za-z0-9](?:[._-]?[A-Za-z0-9])*")
_HEADER = re.compile(r"\s*\[\s*([\w-]+|\"[^\"]*\"|'[^']*')\s*[\].]")
_KEY = re.compile(r"\s*([\w-]+|\"[^\"]*\"|'[^']*')\s*[=.]")
_PRIORS = {"biggan-deep": "truncated-normal", "slogan": "mixture"}
_PRIORS |= dict.fromkeys(("progan", "stylegan2", "stylegan3"), "sphere")
_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Artifact:
    """One entry of artifacts.toml.

    Attributes:
        name: its key.
        kind: "generator", "volume" or "image-model".
        source: where it comes from, SCHEME:REST.
        license: SPDX id or name.
        description: one line.
        sha256: hash of its bytes, 64 hex digits; for a folder that of documents.sha256_folder. Empty where nobody
            pinned it: the first download is then trusted.
        size: bytes; 0 where unknown.
        family: architecture of a generator; format of an image model; of a volume, the architecture of its generator
            where that has no entry.
        generator: of a volume, the name of the generator it belongs to; else empty.
        output: of a volume, what its Jacobian was taken of.
        commercial_use: False where the licence forbids it: fetching then asks for --accept-license.
        preprocess: of an image model, the fields of image_entries.Preprocess.
        outputs: of an image model, the fields of image_entries.Outputs.
    """

    name: str
    kind: str
    source: str
    license: str
    description: str
    sha256: str = ""
    size: int = 0
    family: str = ""
    generator: str = ""
    output: str = "pixel"
    commercial_use: bool = True
    preprocess: dict = field(default_factory=dict, hash=False)
    outputs: dict = field(default_factory=dict, hash=False)

    @property
    def scheme(self) -> str:
        """The part of `source` before the first colon: "hub", "https", "wheel" and so on."""
        return self.source.partition(":")[0]

    @property
    def file_name(self) -> str:
        """The last part of the source: the name of the file or folder."""
        return re.split(r"[/#:]", self.source)[-1]

    @property
    def form(self) -> str:
        """The form of the source: "file"; for volumes "folder", "manifest" or "npz" (published arrays)."""
        if self.kind != "volume":
            return "file"
        if self.file_name == MANIFEST:
            return "manifest"
        return "npz" if self.scheme not in {"builtin", "file"} or self.file_name.endswith(".npz") else "folder"

    @property
    def size_text(self) -> str:
        """The size as text, "1,234 bytes" or "size unknown"."""
        return f"{self.size:,} bytes" if self.size else "size unknown"


def prior_of(family: str) -> str:
    """Return the prior of a family's latents, "normal" for families that are not listed. The family is not built."""
    return _PRIORS.get(family, "normal")


def registry() -> dict[str, Artifact]:
    """Return all artifacts by name: those that ship with magnet, replaced by those of MAGNET_ARTIFACTS.

    Raises:
        ArtifactError: a list cannot be read, or entries in it are wrong; all mistakes are named at once.
    """
    lists = [shipped_list()]
    if own := os.environ.get("MAGNET_ARTIFACTS"):
        lists.append(Path(own))
    return {name: artifact for path in lists for name, artifact in read_list(path).items()}


def shipped_list() -> Path:
    """Return the path of the artifacts.toml that ships with magnet: in the wheel, or at the top of the checkout."""
    inside = _PACKAGE / "artifacts.toml"
    return inside if inside.exists() else _PACKAGE.parents[1] / "artifacts.toml"


def read_list(path: Path) -> dict[str, Artifact]:
    """Read the artifacts of one file.

    Raises:
        ArtifactError: unreadable, not TOML, or entries in it are wrong; all mistakes are named at once.
    """
    if not path.exists():
        message = f"the list of artifacts {path} does not exist"
        raise ArtifactError(message, "correct MAGNET_ARTIFACTS, or unset it")
    try:
        text = opening.read(path).decode()
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, numbers of thousands of digits, deep nesting
        message = f"the list of artifacts {path} is not TOML: {' '.join(str(error).split()) or type(error).__name__}"
        raise ArtifactError(message, "correct the line it names; README shows an entry") from error
    problems = [(name, *problem) for name, table in tables.items() for problem in _problems(name, table)]
    if problems:
        lines = _lines(text)
        texts = [
            f"{path}:{_line(lines, name, field)} [{_printable(name)}] {_printable(field)}: {what}"
            for name, field, what in problems
        ]
        message = f"{path} has {len(problems)} mistake{'s' * (len(problems) > 1)}:\n  " + "\n  ".join(texts)
        raise ArtifactError(message, "README shows an entry")
    return {name: Artifact(name=name, **table) for name, table in tables.items()}


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Return line numbers, from 1, of tables by (name,) and of fields by (name, field); tomllib has none."""
    numbers: dict[tuple[str, ...], int] = {}
    table: str | None = None
    for number, line in enumerate(text.split("\n"), 1):
        if header := _HEADER.match(line):
            table = header[1].strip("\"'")
            numbers.setdefault((table,), number)
        elif key := _KEY.match(line):
            place = (key[1].strip("\"'"),)
            numbers.setdefault(place if table is None else (table, *place), number)
    return numbers


def _printable(key: str) -> str:
    return key if key.isprintable() else repr(key)


def _line(lines: dict[tuple[str, ...], int], name: str, field: str) -> int:
    return lines.get((name, field)) or lines.get((name,), 1)


def find(name: str) -> Artifact:
    """Return the artifact of that name, or the volume that `magnet push` published at hub:…/manifest.json.

    Raises:
        ArtifactError: there is none; the hint has the nearest names.
    """
    if name.startswith("hub:"):
        return _published(name)
    artifacts = registry()
    if name in artifacts:
        return artifacts[name]
    if (suffix := Path(name).suffix.lower()) in _FILES:
        message = f"there is no file {name} in this folder, and no artifact of that name"
        raise ArtifactError(message, f"pass the path of the {suffix} file, or a name from `magnet list`")
    near = difflib.get_close_matches(name, artifacts, n=3, cutoff=0.5)
    message = f"no artifact is called {name!r}"
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ArtifactError(message, f"{hint}`magnet list` shows all {len(artifacts)}")


def _published(source: str) -> Artifact:
    if not re.fullmatch(SOURCES["hub"], source.removeprefix("hub:")) or not source.endswith(f"/{MANIFEST}"):
        message = f"{source!r} is not where a volume is published"
        raise ArtifactError(
            message, f"pass a name, or hub:datasets/OWNER/NAME@COMMIT/{MANIFEST}, as `magnet push` prints"
        )
    name = source.partition("@")[0].rpartition("/")[2]
    return Artifact(name, "volume", source, "see its page on the hub", "a volume that `magnet push` published")


def leaves_in_the_clear(url: str) -> bool:
    """Return whether an address is plain http to another machine."""
    parts = urllib.parse.urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in _LOOPBACK


def _problems(name: str, table: object) -> list[tuple[str, str]]:
    """Return the mistakes in one entry as pairs (field, text)."""
    if not isinstance(table, dict):
        return [("entry", "is not a table")]
    types = {f.name: f.type for f in fields(Artifact) if f.name != "name"}
    plain = [f for f in fields(Artifact) if f.name not in {"name", "preprocess", "outputs"}]
    required = {f.name for f in plain if f.default is MISSING}
    mistakes = [] if _NAME.fullmatch(name) else [("name", "is not letters, digits, '.', '_' and '-' alone")]
    mistakes += [(key, "missing") for key in sorted(required - table.keys())]
    mistakes += [
        (key, f"unknown field; the fields are {', '.join(types)}") for key in sorted(table.keys() - types.keys())
    ]
    mistakes += [
        (key, f"{_shown(value)} is not of type {_type_name(types[key])}")
        for key, value in table.items()
        if key in types and type(value) is not types[key]
    ]
    right = {key: value for key, value in table.items() if key in types and type(value) is types[key]}
    return mistakes + _wrong_values(right)


def _type_name(kind: object) -> str:
    return getattr(kind, "__name__", str(kind))


def _wrong_values(right: dict) -> list[tuple[str, str]]:
    """Return the mistakes in values of the right type."""
    mistakes = []
    if (kind := right.get("kind")) is not None and kind not in KINDS:
        mistakes.append(("kind", f"{kind!r} is not one of {', '.join(KINDS)}"))
    source = right.get("source", "builtin:absent")
    scheme, _, rest = source.partition(":")
    if scheme not in SOURCES:
        mistakes.append(("source", f"{source!r} begins with none of {', '.join(SOURCES)}"))
    elif not re.fullmatch(SOURCES[scheme], rest) or rest.rpartition("/")[2] in {".", ".."}:
        mistakes.append(("source", f"{source!r} is not a file's place; README shows what follows {scheme}:"))
    elif scheme == "http" and _is_address(source) and leaves_in_the_clear(source):
        mistakes.append(("source", f"{source!r}: plain http is only for this machine; write https://"))
    elif scheme == "http" and not right.get("sha256"):
        mistakes.append(("sha256", "missing: what comes over plain http has to be pinned"))
    elif scheme in {"http", "https"} and not _is_address(source):
        mistakes.append(("source", f"{source!r} is not an address"))
    elif kind == "volume" and rest.endswith(f"/{MANIFEST}") and scheme != "hub":
        mistakes.append(("source", f"{source!r}: volumes with a {MANIFEST} come from the hub: only"))
    if kind == "volume" and not right.get("generator"):
        mistakes.append(("generator", "missing: a volume is that of a generator"))
    if (sha256 := right.get("sha256")) is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        mistakes.append(("sha256", f"{sha256!r} is not 64 lower-case hex digits; leave it out where it is unknown"))
    if (size := right.get("size")) is not None and not 0 < size < _LARGEST:
        mistakes.append(("size", f"{_shown(size)} is not a positive number of bytes; leave it out where it is unknown"))
    return [*mistakes, *image_model_entry.problems(right)]


def _is_address(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        return bool(parts.hostname) and (parts.port or True) and url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        return False


def _shown(value: object) -> str:
    """Return a value as text for an error; Python refuses to write integers of thousands of digits."""
    if isinstance(value, int) and abs(value) >= _LARGEST:
        return "a huge number"
    return repr(value) if isinstance(value, int | float | str) else f"a {type(value).__name__}"
