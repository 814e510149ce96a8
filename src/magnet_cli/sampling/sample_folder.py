"""The folder of a sample: images with their latents, and where they came from.

Whole once sample.json is there; until then the same call goes on where it stopped. Without images it needs neither
torch nor the generator.
"""

import base64
import html
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Generator as Steps
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from magnet_cli.errors import SampleError
from magnet_cli.files import atomic, contact_sheet, documents, pictures, results
from magnet_cli.files.image_folder import ImageSet
from magnet_cli.files.results import ResultFolder
from magnet_cli.index import Draw
from magnet_cli.sampling.kinds import GRID, MONTAGE, SAMPLE, SHEETS, sheet
from magnet_cli.volume import Volume

if TYPE_CHECKING:
    from magnet_cli.models import Generator

PARTICLES = 128  # latents of an island, by default
_LONGEST = 24  # characters of a list in a folder's name
SHEET_IMAGES = 64  # of each kind on the contact sheet
Blocks = list[tuple[str, *tuple[list[contact_sheet.Tile], ...]]]  # of a contact sheet: captions and groups of images


@dataclass(frozen=True)
class SampleSpec:
    """What decides which images a sample holds: flags of `magnet sample` (docs/reference/cli.md), resolved.

    `sha256` is that of the checkpoint, `fingerprint` that of the volume; `pool` is the number of its first rows that
    compete, 0 for tempered latents; an empty `label` stands for those of the volume; `bn_truncation` is 0 where it is
    `truncation`; `prior_mass` and `particles` are 0 where they are of no use; `montage` holds each ψ of montage.png;
    `half` is the half of the rows that competes, 1 or 2, or 0 for all.
    """

    generator: str
    sha256: str
    fingerprint: str
    pool: int
    n: int
    rho: float
    top_k: int
    seed: int
    replace: bool
    truncation: float
    label: tuple[int, ...] = ()
    bn_truncation: float = 0.0
    classes: str = "natural"
    mix: float = 1.0
    correct_prior: bool = False
    prior_mass: float = 0.0
    format: str = "png"
    no_images: bool = False
    montage: tuple[float, ...] = ()
    method: str = "reweight"
    particles: int = 0
    half: int = 0


@dataclass(frozen=True)
class Contents:
    """The n latents of a sample, and what sample.json and the contact sheet say of them.

    `log_volume` [n] float64 is natural; `rows` [n] are numbers of rows in the volume, empty for new latents; `prior`
    [n] tells which latents are prior draws rather than drawn by weight; `figures` are the numbers of the draw;
    `tempered` tells where new latents come from, empty for rows.
    """

    latents: np.ndarray
    labels: np.ndarray | None
    log_volume: np.ndarray
    rows: np.ndarray
    prior: np.ndarray
    figures: dict[str, Any]
    caption: str
    tempered: dict[str, Any]


def rows_of(spec: SampleSpec, draw: Draw, volume: Volume) -> Contents:
    """Return the contents of a sample of rows that were drawn from a volume."""
    how = "with replacement" if spec.replace else f"displaced share {draw.displaced_share:.2g}"
    names = ("effective_size", "displaced_share", "largest_useful_rho", "top_share")
    figures = {name: getattr(draw, name) for name in names} | {"ball": draw.ball and draw.ball.fields}
    return Contents(
        latents=volume.latents(draw.rows),
        labels=volume.labels(draw.rows),
        log_volume=draw.log_volume,
        rows=draw.rows,
        prior=draw.prior,
        figures=figures | {"unique_rows": draw.unique_rows},
        caption=f"effective size {draw.effective_size:,.0f} of {draw.pool:,} rows, {how}",
        tempered={},
    )


def default_out(spec: SampleSpec, *, pool: int | None = None, top_k: int | None = None, chosen: bool = False) -> Path:
    """Return samples/<generator>-rho<ρ>-n<n>-seed<seed>, and what else was asked for; -tempered after the generator.

    Args:
        spec: of the sample.
        pool: number of rows that compete, None where all do.
        top_k: k, None for the default.
        chosen: whether the volume was chosen by more than its generator and truncation.
    """
    method = "-tempered" if spec.method == "tempered" else ""
    words = {
        f"k{top_k}": top_k is not None,
        f"pool{pool}": pool is not None,
        "replace": spec.replace,
        f"psi{spec.truncation:g}": spec.truncation != 1 and not spec.montage,
        f"bn{spec.bn_truncation:g}": spec.bn_truncation,
        spec.classes: spec.classes != "natural",
        f"mix{spec.mix:g}": spec.mix != 1,
        f"corrected{spec.prior_mass:g}": spec.correct_prior,
        "label" + _brief(spec.label): spec.label,
        "montage" + _brief(spec.montage): spec.montage,
        f"particles{spec.particles}": spec.particles not in {0, PARTICLES},
        spec.format: spec.format != "png",
        "latents": spec.no_images,
        spec.fingerprint[:8]: chosen,
    }
    asked = "".join(f"-{word}" for word, is_asked in words.items() if is_asked)
    return Path("samples") / f"{spec.generator}{method}-rho{spec.rho:g}-n{spec.n}-seed{spec.seed}{asked}"


def _brief(numbers: tuple[float, ...]) -> str:
    """Return numbers as a part of a file's name; many of them as 8 hex digits."""
    text = "+".join(f"{each:g}" for each in numbers)
    return text if len(text) <= _LONGEST else documents.sha256_bytes(text.encode())[:8]


def described(spec: SampleSpec, out: Path) -> dict[str, Any]:
    """Return the fields of a report that every method has."""
    fields = {"sample": str(out), "n": spec.n, "images": 0 if spec.no_images else spec.n, "rho": spec.rho}
    return fields | {"top_k": spec.top_k, "method": spec.method}


def numbers(spec: SampleSpec, draw: Draw) -> dict[str, Any]:
    """Return the fields of a report of rows that were drawn."""
    fields = {name: getattr(spec, name) for name in ("replace", "classes", "mix", "correct_prior", "prior_mass")}
    names = ("pool", "unique_rows", "effective_size", "displaced_share", "largest_useful_rho", "top_share")
    return fields | {name: getattr(draw, name) for name in names} | {"ball": draw.ball and draw.ball.fields}


def fill(
    out: Path,
    arrays: dict[str, np.ndarray | None],
    images: Iterable[dict[str, str]],
    records: Iterable[dict[str, object]],
    sheets: Callable[[], dict[str, bytes]],
) -> Steps[int, None, None]:
    """Write the files of a sample that was begun, all but sample.json.

    Args:
        out: the folder.
        arrays: "latents" [n, D] float32, and "labels" [n] int64 if it has any.
        images: writes images, or arrays where these are none; yields their sha256 by name.
        records: the lines of metadata.jsonl.
        sheets: returns contact sheets by name, once the images are there.

    Yields:
        Number of images written since the last time.

    Raises:
        MagnetError: no space, no permission; what was written stays.
    """
    hashes: dict[str, str] = {}
    for written in images:
        hashes |= written
        yield len(written)
    files = {f"{name}.npy": pictures.npy(array) for name, array in arrays.items() if array is not None}
    shown = sheets()
    if shown:
        atomic.make_folder(out / SHEETS)
    for name, data in (files | {"metadata.jsonl": documents.encode_lines(records)} | shown).items():
        atomic.publish(out / name, data)
    ResultFolder(out, SAMPLE).list_files(hashes)


def write(
    out: Path,
    spec: SampleSpec,
    contents: Contents,
    volume: Volume,
    generator: "Generator | None",
    batch: int | None = None,
) -> Steps[int, None, None]:
    """Write a sample, all but sample.json, which `finish` writes; arrays as NPY where the output is no image.

    The folder is new, or begun by the same call before. The first rows of the volume are the prior draws of the contact
    sheet; without a generator there are no images. Yields numbers of images written since the last time, those of an
    earlier call included; what was written stays, and the same call goes on from there.
    """
    ResultFolder(out, SAMPLE).begin(spec)
    latents, labels = contents.latents, contents.labels
    names: list[str] = []
    images: Iterable[dict[str, str]] = ()
    if generator is not None:
        from magnet_cli.sampling import image_writer  # and with it torch

        names = file_names(spec.n, generator, spec.format)
        images = image_writer.write_images(out, names, generator, latents, spec.truncation, labels, batch=batch)

    def sheets() -> dict[str, bytes]:
        return {} if generator is None or not generator.gives_images else _sheets(spec, contents, volume, generator)

    yield from fill(out, {"latents": latents, "labels": labels}, images, _records(contents, names), sheets)


def _records(contents: Contents, names: list[str]) -> Iterator[dict[str, object]]:
    for i, (value, prior) in enumerate(zip(contents.log_volume.tolist(), contents.prior.tolist(), strict=True)):
        record: dict[str, object] = {"file_name": names[i]} if names else {}
        yield record | {
            "row": int(contents.rows[i]) if len(contents.rows) else None,
            "log_volume": value if np.isfinite(value) else None,
            "label": None if contents.labels is None else int(contents.labels[i]),
            "source": "prior" if prior else "polarity",
        }


def file_names(n: int, generator: "Generator", suffix: str = "png") -> list[str]:
    """Return the names of a sample's n images in its folder, or of its arrays where the output is no image."""
    form = f"images/{{:06d}}.{suffix}" if generator.gives_images else "arrays/{:06d}.npy"
    return [form.format(i) for i in range(n)]


def finish(
    out: Path, spec: SampleSpec, contents: Contents, volume: Volume, command: list[str], report: dict[str, Any]
) -> None:
    """Write sample.json: from now on the sample is whole; `report` is printed again by the same command."""
    if spec.no_images:
        versions = results.versions()
    else:
        from magnet_cli.sampling import image_writer

        versions = image_writer.versions()
    provenance = {
        "command": command,
        "spec": asdict(spec),
        "volume": {"path": str(volume.path), "fingerprint": volume.fingerprint, "spec": asdict(volume.spec)},
        **contents.figures,
        "grid": GRID if (out / GRID).exists() else None,
        "versions": versions,
        "report": report,
    }
    if contents.tempered:
        provenance["tempered"] = contents.tempered
    if volume.spec.truncation != spec.truncation:
        provenance["volume_truncation"] = volume.spec.truncation
    ResultFolder(out, SAMPLE).finish(provenance)


def _sheets(spec: SampleSpec, contents: Contents, volume: Volume, generator: "Generator") -> dict[str, bytes]:
    """Return the grid: the first rows of the volume, which are prior draws, above the first latents of the sample.

    And the montage, for a montage: the same for each ψ, one row of each.
    """
    from magnet_cli.models import batches

    shown = min(SHEET_IMAGES, spec.n)
    prior, drawn = _prior_rows(volume, spec.label, shown), (contents.latents, contents.labels)
    size = batches.batch_size(generator)

    def images(rows: tuple[np.ndarray, np.ndarray | None], truncation: float, most: int) -> list[contact_sheet.Tile]:
        latents, labels = rows
        if labels is None:
            return list(batches.each_image(generator, latents[:most], truncation, size))
        shown = batches.each_image(generator, latents[:most], truncation, size, labels[:most])
        return [(image, f"class {label}") for image, label in zip(shown, labels[:most].tolist(), strict=True)]

    truncated = f", truncation {spec.truncation:g}" if spec.truncation != 1 else ""
    above = f"{spec.generator}: {len(prior[0])} draws from the prior{truncated}"
    below = f"rho {spec.rho:g}, top_k {spec.top_k}: the first {shown} of {spec.n:,} draws; {contents.caption}"
    below += "; volumes in w, not uniform" * (volume.spec.space == "w")
    blocks: Blocks = [(above, images(prior, spec.truncation, shown)), (below, images(drawn, spec.truncation, shown))]
    sheets = {GRID: contact_sheet.contact_sheet(blocks)}
    if spec.montage:
        draws = f"rho {spec.rho:g}, top_k {spec.top_k}, volumes at truncation {volume.spec.truncation:g}"
        draws += " in w, not uniform" * (volume.spec.space == "w")
        columns = contact_sheet.COLUMNS
        pairs = {psi: (images(prior, psi, columns), images(drawn, psi, columns)) for psi in spec.montage}
        name = f"{spec.generator}, truncation"
        montage: Blocks = [
            (f"{name} {psi:g}: draws from the prior above; {draws} below", *pair) for psi, pair in pairs.items()
        ]
        sheets[MONTAGE] = contact_sheet.contact_sheet(montage)
    return sheets


def _prior_rows(volume: Volume, label: tuple[int, ...], n: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return latents and labels of at most n rows at the start of a volume, of the labels, if there are any."""
    for _, rows in volume.rows():
        if rows.labels is None:
            return rows.latents[:n], None
        kept = np.flatnonzero(np.isin(rows.labels, label or rows.labels))[:n]
        if len(kept):
            return rows.latents[kept], rows.labels[kept]
    raise SampleError(
        f"{volume.path} holds no rows of label {', '.join(map(str, label))}", "pass a `label` that its rows have"
    )


class Sample:
    """A finished sample: latents, images, and where they came from.

    Args:
        path: the folder; `Sample.open` reads it.
        fields: what its sample.json says.

    Attributes:
        path: the folder.
        report: what `magnet sample` printed: "effective_size", "displaced_share", "target", …
        spec: what decides which images the sample holds, as SampleSpec.

    >>> from magnet_cli import sample
    >>> path = sample("mnist", 4, 0.5, out="kept").path
    >>> len(Sample.open(path)), Sample.open(path).labels is None
    (4, True)
    """

    def __init__(self, path: Path, fields: dict[str, Any]) -> None:
        self.path = path
        self.report: dict[str, Any] = fields["report"]
        self.spec: dict[str, Any] = fields["spec"]

    @classmethod
    def open(cls, path: str | Path) -> "Sample":
        """Open the finished sample in a folder.

        Raises:
            SampleError: the sample is of another format.
            MagnetError: there is no sample, or its sample.json is damaged.

        >>> from magnet_cli.sampling.sample import sample
        >>> _ = sample("mnist", 3, -0.5, out="modes", no_images=True)
        >>> drawn = Sample.open("modes")
        >>> drawn.latents.shape, drawn.report["method"]
        ((3, 16), 'reweight')
        """
        return cls(Path(path), ResultFolder(Path(path), SAMPLE).read())

    @property
    def latents(self) -> np.ndarray:
        """Latents [n, D] float32."""
        latents: np.ndarray = np.load(self.path / "latents.npy")
        return latents

    @property
    def labels(self) -> np.ndarray | None:
        """Labels [n] int64; None where the generator takes none."""
        path = self.path / "labels.npy"
        return np.load(path) if path.exists() else None

    @property
    def images(self) -> np.ndarray:
        """Images [n, H, W, C] uint8; arrays [n, ...] float32 where the output of the generator is no image.

        Raises:
            SampleError: the sample holds only latents.
        """
        if (self.path / "arrays").is_dir():
            return np.stack([np.load(path) for path in sorted((self.path / "arrays").iterdir())])
        if not (self.path / "images").is_dir():
            raise SampleError(f"{self.path} holds only latents", "render them: `render(generator, sample.latents)`")
        shown = ImageSet.open(self.path)
        return np.concatenate(list(shown.batches(0, len(shown))))

    def __len__(self) -> int:
        """Number of latents."""
        return int(self.spec["n"])

    def __repr__(self) -> str:
        what = "latents" if self.spec["no_images"] else "images"
        return f"Sample('{self.path}': {len(self)} {what} of {self.spec['generator']} at rho {self.spec['rho']:g})"

    def _repr_png_(self) -> bytes | None:
        """The contact sheet, for a notebook."""
        path = sheet(self.path, GRID)
        return path.read_bytes() if path.exists() else None

    def _repr_html_(self) -> str:
        """The figures of the draw as a small table, above the contact sheet, for a notebook."""
        names = ("n", "rho", "top_k", "effective_size", "displaced_share", "target")
        shown = {name: self.report[name] for name in names if self.report.get(name) is not None}
        texts = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in shown.items()}
        rows = "".join(f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in texts.items())
        grid = self._repr_png_()
        image = f'<img src="data:image/png;base64,{base64.b64encode(grid).decode()}">' if grid else ""
        return f"<table>{rows}</table>{image}"
