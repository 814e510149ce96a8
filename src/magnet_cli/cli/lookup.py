"""Which volume and which index a command means, where the user does not name them.

Owns the order of preference: the user's own volumes before published and built-in ones, of several the longest. And the
one gate to code of the user's own as a generator: what is typed on the command line passes, what a file says does not.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from magnet_cli import index
from magnet_cli.catalog import cache, entries, references
from magnet_cli.catalog.cache import Checkpoint
from magnet_cli.cli.console import Console
from magnet_cli.errors import DamageError, GeneratorError, MagnetError, VolumeError
from magnet_cli.index import Index
from magnet_cli.volume import Volume
from magnet_cli.volume.spec import VolumeSpec

if TYPE_CHECKING:
    from magnet_cli.models.custom import CustomModule

    Source = Checkpoint | CustomModule


def source(reference: str, *, here: bool = True, **flags: object) -> "Source":
    """The generator that was typed: a checkpoint, or a module of the user's own, whose factory is called.

    Args:
        reference: from the command line, and from nowhere else.
        here: whether the file of a checkpoint has to be on this machine.
        **flags: latent_dim, prior, image_range of the user's own, None where they were left out.

    Raises:
        ArtifactError, GeneratorError: as `cache.checkpoint` and `custom.from_factory`.
    """
    return own_module(reference, **flags) or cache.checkpoint(reference, here=here)


def own_module(reference: str, **flags: object) -> "CustomModule | None":
    """The module of the user's own that was typed, as `source`; None where something else was."""
    given = {name: value for name, value in flags.items() if value is not None}
    if not references.is_factory(reference):
        if given:
            flag = f"--{next(iter(given)).replace('_', '-')}"
            message = f"that is for a generator of your own, file.py:factory; {reference} tells it itself."
            raise typer.BadParameter(message, param_hint=flag)
        return None
    from magnet_cli.models import custom

    texts = {name: ",".join(map(str, v)) if isinstance(v, tuple) else str(v) for name, v in given.items()}
    typed = reference + "".join(f" --{name.replace('_', '-')} {text}" for name, text in texts.items())
    return custom.from_factory(reference, **given, reference=typed)


def volume_path(name: str, fingerprint: str) -> Path:
    """Where `magnet compute` keeps a volume when no folder is named."""
    return cache.home() / "volumes" / f"{name}-{fingerprint[:12]}"


@dataclass(frozen=True)
class Wanted:
    """What a volume has to be to be drawn from; None where any will do.

    Attributes:
        top_k: k: at least as many singular values have to be stored.
        space: where the Jacobian's input lived.
        output: what it was taken of.
        truncation: ψ it was computed at.
        solver: how its values were computed.
        precision: in which arithmetic.
        label: labels its rows have to have; empty for all classes in turn.
        bn_truncation: ψ of its batch-norm statistics; 0 for `truncation`.
        nvae_latents: of an NVAE, the groups whose noise is the latent.
    """

    top_k: int | None
    space: str
    output: str
    truncation: float
    solver: str | None
    precision: str | None
    label: tuple[int, ...] = ()
    bn_truncation: float = 0.0
    nvae_latents: str = "top"

    def fits(self, found: Volume, checkpoint: "Source") -> bool:
        """Whether a volume is that of this generator, and what is wanted; an empty one is not."""
        spec = found.spec
        same = all(
            getattr(self, name) in {None, getattr(spec, name)}
            for name in ("space", "output", "truncation", "bn_truncation", "solver", "precision")
        )
        same &= spec.nvae_latents in {"", self.nvae_latents}
        same &= set(self.label) <= set(spec.classes) if self.label else not spec.label
        return same and _is_of(found, checkpoint) and spec.top_k >= (self.top_k or 1) and bool(found.shards())

    @property
    def flags(self) -> str:
        """The flags of `magnet compute` that make such a volume; what is the default is left out."""
        usual = {"space": "z", "output": "pixel", "truncation": 1.0, "bn_truncation": 0.0, "nvae_latents": "top"}
        given = dataclasses.asdict(self)
        labels = "".join(f" --label {label}" for label in given.pop("label"))
        asked = {name: value for name, value in given.items() if value not in {None, usual.get(name)}}
        return "".join(f" --{name.replace('_', '-')} {value}" for name, value in asked.items()) + labels


def volume(checkpoint: "Source", console: Console, path: Path | None, wanted: Wanted) -> Volume:
    """The volume to draw from.

    Args:
        checkpoint: of the generator.
        console: where the choice is named.
        path: the folder, if the user named one.
        wanted: what it has to be, where the user did not.

    Raises:
        VolumeError: none fits; the `magnet compute` that would make it is named.
        GeneratorError: the code of the user's own generator changed since.
        MagnetError: the one that was named is damaged.
    """
    if path is not None:
        found = Volume.open(path)
        if not _is_of(found, checkpoint):
            message = f"{path} is a volume of {found.spec.generator} (sha256 {found.spec.sha256[:12]}…), "
            message += f"and {checkpoint.name} ({checkpoint.sha256[:12]}…) is asked for"
            raise VolumeError(message, f"pass the generator it belongs to: {found.spec.generator}")
        return _of_same_function([found], checkpoint)[0]
    computed = _own(console)
    for candidates in (computed, _published(checkpoint.name)):
        fitting = _of_same_function([v for v in candidates if wanted.fits(v, checkpoint)], checkpoint)
        if fitting:
            longest = max(fitting, key=lambda v: v.num_rows)
            others = f", the longest of {len(fitting)}" if len(fitting) > 1 else ""
            console.note(f"drawing from {longest.path} ({longest.num_rows:,} rows{others})")
            return longest
    message = f"there is no volume of {checkpoint.name}{f' with{wanted.flags}' if wanted.flags else ''}"
    if not isinstance(checkpoint, Checkpoint) and any(_has_other_weights(v, checkpoint) for v in computed):
        message += "; some have other weights: does its factory draw them? Set a seed there: torch.manual_seed(0)"
    raise VolumeError(message, f"make one: magnet compute {checkpoint.reference}{wanted.flags}")


def named_volume(reference: str) -> Volume:
    """The volume at a path, or the published one of that name.

    Raises:
        VolumeError: there is none.
        ArtifactError: a published one has not been fetched, or its bytes are not those that were pinned.
    """
    artifact = entries.registry().get(reference)
    if artifact is None or artifact.kind != "volume" or Path(reference).exists():
        return Volume.open(Path(reference).expanduser())
    cache.check_cached(artifact)
    path = cache.path_of(artifact)
    cache.verify(artifact, path)
    return Volume.open(path)


def _is_of(found: Volume, checkpoint: "Source") -> bool:
    """Whether a volume is that of a generator: by the weights' hash, or by name where nobody had pinned them."""
    spec = found.spec
    return spec.sha256 == checkpoint.sha256 if spec.sha256 else spec.generator == checkpoint.name


def _has_other_weights(candidate: Volume, source: "Source") -> bool:
    return candidate.spec.generator == source.name and candidate.spec.sha256 != source.sha256


def _of_same_function(found: list[Volume], checkpoint: "Source") -> list[Volume]:
    """Those of some volumes with a generator's weights that are of its function too: all, but for a user's own module.

    Raises:
        GeneratorError: there are some, and none is of that function.
    """
    if isinstance(checkpoint, Checkpoint) or not found:
        return found
    from magnet_cli import computing, models

    loaded, same, changed = models.load(checkpoint, device="cpu"), [], None
    for candidate in found:
        try:
            computing.check_settings(candidate, loaded)
            computing.check_unchanged(candidate, loaded, None)
        except GeneratorError as error:
            changed = error
        else:
            same.append(candidate)
    if not same:
        raise changed
    return same


def volume_for_rendering(checkpoint: "Source", console: Console, path: Path | None, wanted: Wanted) -> Volume:
    """As `volume`; where there is none at the truncation asked for, that without truncation, with a warning.

    Raises:
        VolumeError, MagnetError: as `volume`.
    """
    plain = dataclasses.replace(wanted, truncation=1.0, bn_truncation=0.0)
    try:
        found = volume(checkpoint, console, path, wanted)
    except VolumeError as error:
        if wanted == plain or path is not None or isinstance(error, DamageError):
            raise
        found = volume(checkpoint, console, path, plain)
    drawn, rendered = _truncation(found.spec), _truncation(wanted)
    if drawn != rendered:
        made = f"magnet compute {checkpoint.reference}{wanted.flags}"
        console.warning(
            f"rows are drawn by their volume at truncation {drawn}, images are rendered at {rendered}; "
            f"for one at {rendered}: {made}"
        )
    return found


def _truncation(of: Wanted | VolumeSpec) -> str:
    own = f" with batch-norm statistics at {of.bn_truncation:g}" if of.bn_truncation else ""
    return f"{of.truncation:g}{own}"


def _own(console: Console) -> list[Volume]:
    found = []
    for path in sorted(p for home in cache.homes() for p in (home / "volumes").glob("*/volume.json")):
        try:
            found.append(Volume.open(path.parent))
        except MagnetError as error:
            console.warning(f"{path.parent} is passed over: {error.message}")
    return found


def _published(generator: str) -> list[Volume]:
    found = []
    for artifact in entries.registry().values():
        if artifact.kind == "volume" and artifact.generator == generator and cache.is_cached(artifact):
            path = cache.path_of(artifact)
            cache.verify(artifact, path)
            found.append(Volume.open(path))
    return found


def index_of(found: Volume, top_k: int | None, console: Console) -> tuple[Index, Path]:
    """The index of a volume: the stored one, made longer where the volume grew; else built and stored.

    Args:
        found: the volume.
        top_k: k; default as the contract says.
        console: warned where the index cannot be stored.

    Returns:
        The index, and where it is kept.

    Raises:
        SpecError, VolumeError: as index.build.
    """
    k = top_k or index.default_top_k(found.spec.top_k, found.spec.latent_dim)
    path = index.path_of(cache.home() / "indices", found, k)
    known = index.stored(path, found, k)
    if known and index.current(known, found):
        return known, path
    if path.exists() and not known:
        console.note(f"{path} is of another format, or damaged: the index is built again")
    built = index.build(found, k, known)
    try:
        index.store(built, found, path)
    except MagnetError as error:
        console.warning(f"the index is not kept: {error.message}")
    return built, path


def corrected(built: Index, found: Volume, console: Console, prior_mass: float | None, truncation: float) -> Index:
    """An index whose weights are corrected for the prior: the stored log-priors are used, made longer where need be.

    Args:
        built: of all rows of the volume.
        found: the volume.
        console: told where there is nothing to correct for; warned where the log-priors cannot be stored.
        prior_mass: of the ball in which rows compete, where the prior has no bounds; default 0.99.
        truncation: ψ the images are to be rendered at.

    Raises:
        SpecError: as index.check_correction.
        VolumeError: as index.log_prior.
    """
    index.check_correction(found.spec, truncation)
    if index.is_even(found.spec):
        console.note(index.EVEN_PRIOR)
        return built
    path = index.prior_path(cache.home() / "indices", found)
    known = index.stored_prior(path, found)
    if known is None or known.parts != built.parts:
        known = index.log_prior(found, built.parts, known)
        try:
            index.store_prior(known, found, path)
        except MagnetError as error:
            console.warning(f"the log-priors are not kept: {error.message}")
    inside = index.ball(found.spec, prior_mass or index.DEFAULT_MASS, found.mixture())
    return index.corrected(built, known, inside)
