"""Which volume and which index a request means: the user's own volumes before published ones, of several the longest.

The one place that decides it, for `magnet sample`, `index`, `sweep` and `report` alike. Needs no torch, but for code of
the user's own, whose function is compared with that of a volume.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magnet_cli import index
from magnet_cli.catalog import cache, entries, imagenet
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.errors import DamageError, GeneratorError, MagnetError, SpecError, VolumeError
from magnet_cli.files.progress import Messages
from magnet_cli.files.text import quoted
from magnet_cli.index import Index
from magnet_cli.volume import Volume

if TYPE_CHECKING:
    from magnet_cli.models import Generator
    from magnet_cli.models.custom import CustomModule

    Source = Checkpoint | CustomModule | Generator

_DEFAULTS = {"space": "z", "output": "pixel", "truncation": 1.0, "bn_truncation": 0.0, "nvae_latents": "top"}


def statistics(bn_truncation: float | None, truncation: float) -> float:
    """Return ψ of the batch-norm statistics as a spec has it: 0 where it is `truncation`."""
    return 0.0 if bn_truncation in {None, truncation} else float(bn_truncation or 0.0)


def settings(bn_truncation: float | None, nvae_latents: str | None) -> dict[str, object]:
    """Return settings of a generator as `models.load` takes them, without those that are None."""
    named = {"bn_truncation": bn_truncation, "nvae_latents": nvae_latents}
    return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class VolumeRequest:
    """Which volume to use: flags of `magnet sample` and others (docs/reference/cli.md), None where any will do.

    `label` holds numbers and ImageNet names of classes, and is empty for all classes in turn.
    """

    volume: Path | None = None
    top_k: int | None = None
    space: str = "z"
    output: str = "pixel"
    truncation: float = 1.0
    bn_truncation: float | None = None
    label: tuple[int | str, ...] = ()
    nvae_latents: str | None = None
    solver: str | None = None
    precision: str | None = None

    @property
    def labels(self) -> tuple[int, ...]:
        """Numbers of the classes."""
        return tuple(imagenet.number(each) if isinstance(each, str) else each for each in self.label or ())

    @property
    def statistics(self) -> float:
        """ψ of the batch-norm statistics as a spec has it: 0 where it is `truncation`."""
        return statistics(self.bn_truncation, self.truncation)

    @property
    def _wanted(self) -> dict[str, object]:
        """Values that the spec of a volume has to have; None for any."""
        wanted = {name: getattr(self, name) for name in ("space", "output", "truncation", "solver", "precision")}
        wanted = {name: None if value == "auto" else value for name, value in wanted.items()}
        return wanted | {"bn_truncation": self.statistics}

    def fits(self, volume: Volume, source: "Source") -> bool:
        """Return whether a volume has rows, and is the one that is wanted of this generator."""
        spec = volume.spec
        same = all(value in {None, getattr(spec, name)} for name, value in self._wanted.items())
        same = same and spec.nvae_latents in {"", self.nvae_latents or "top"}
        same = same and (set(self.labels) <= set(spec.classes) if self.label else not spec.label)
        return same and _is_of(volume, source) and spec.top_k >= (self.top_k or 1) and bool(volume.shards())

    @property
    def flags(self) -> str:
        """The flags of `magnet compute` that make such a volume; defaults are left out."""
        wanted = {"top_k": self.top_k} | self._wanted | {"nvae_latents": self.nvae_latents}
        shown = {name: value for name, value in wanted.items() if value not in {None, _DEFAULTS.get(name)}}
        texts = [f" --{name.replace('_', '-')} {quoted(value)}" for name, value in shown.items()]
        return "".join(texts + [f" --label {label}" for label in self.labels])

    def check_names(self, generator: str, num_classes: int) -> None:
        """Refuse names of ImageNet classes for a generator that has other classes."""
        named = [each for each in self.label or () if isinstance(each, str)]
        if named and num_classes not in {0, imagenet.COUNT}:
            raise SpecError(
                f"{named[0]!r} is a class of ImageNet, and {generator} has {num_classes} classes of its own",
                f"pass `label` with a number, 0 to {num_classes - 1}",
            )


@dataclass(frozen=True)
class Resolved:
    """A volume that was chosen, the index of all its rows, and the path where the index is stored."""

    volume: Volume
    index: Index
    index_path: Path


def resolve(source: "Source", request: VolumeRequest, messages: Messages, *, rendered: bool = False) -> Resolved:
    """Return the volume and the index that a request means.

    With `rendered`, images are to be rendered at the truncation of the request: where no volume has that truncation,
    the one without truncation serves, with a warning.

    Raises:
        VolumeError: no volume fits; the hint is the `magnet compute` that makes one.
        GeneratorError: the code of the user's own generator has changed since.
        SpecError: a class is named that the generator does not have; `top_k` is more than what is stored.
        MagnetError: the volume is damaged.
    """
    volume = (find_rendered_volume if rendered else find_volume)(source, request, messages)
    request.check_names(source.name, volume.spec.num_classes)
    return Resolved(volume, *index_of(volume, request.top_k, messages))


def find_volume(source: "Source", request: VolumeRequest, messages: Messages) -> Volume:
    """Return the volume that a request means, as `resolve`."""
    if request.volume is not None:
        volume = Volume.open(request.volume)
        if not _is_of(volume, source):
            raise VolumeError(
                f"{request.volume} is a volume of {volume.spec.generator} (sha256 {volume.spec.sha256[:12]}…), "
                f"and {source.name} ({source.sha256[:12]}…) is asked for",
                f"pass the generator it belongs to: {volume.spec.generator}",
            )
        return _of_same_function([volume], source)[0]
    local = list(_local(messages))
    for candidates in (local, _published(source.name)):
        fitting = _of_same_function([each for each in candidates if request.fits(each, source)], source)
        if fitting:
            longest = max(fitting, key=lambda each: each.num_rows)
            others = f", the longest of {len(fitting)}" if len(fitting) > 1 else ""
            messages.note(f"drawing from {longest.path} ({longest.num_rows:,} rows{others})")
            if candidates is local:
                _tell_of_longer(longest, source, request, messages)
            return longest
    message = f"there is no volume of {source.name}{f' with{request.flags}' if request.flags else ''}"
    namesakes = (volume.spec.sha256 for volume in local if volume.spec.generator == source.name)
    if not isinstance(source, Checkpoint) and any(sha256 != source.sha256 for sha256 in namesakes):
        message += "; some have other weights: does its factory draw them? Set a seed there: torch.manual_seed(0)"
    raise VolumeError(message, f"make one: magnet compute {reference(source)}{request.flags}")


def _tell_of_longer(own: Volume, source: "Source", request: VolumeRequest, messages: Messages) -> None:
    """Warn of a published volume that serves the request, too, and is longer than the user's own."""
    published = [each for each in _published(source.name, verified=False) if request.fits(each, source)]
    longest = max(published, key=lambda each: each.num_rows, default=own)
    if longest.num_rows > own.num_rows:
        messages.warning(
            f"your own volume {own.path} of {own.num_rows:,} rows goes before the published one of "
            f"{longest.num_rows:,}, whose draws reach further; for that one pass `volume='{longest.path}'`"
        )


def named_volume(reference: str) -> Volume:
    """Return the volume at a path, or the published volume of a name.

    Raises:
        VolumeError: there is none.
        ArtifactError: a published volume has not been fetched, or its bytes are not those that were pinned.
    """
    artifact = entries.registry().get(reference)
    if artifact is None or artifact.kind != "volume" or Path(reference).exists():
        return Volume.open(Path(reference).expanduser())
    cache.check_cached(artifact)
    path = cache.path_of(artifact)
    cache.verify(artifact, path)
    return Volume.open(path)


def reference(source: "Source") -> str:
    """Return what names a generator in a command to copy, quoted for the shell where it has to be."""
    if isinstance(source, Checkpoint):
        return quoted(source.reference) + source.flags
    return getattr(source, "reference", None) or quoted(source.name)


def flags_of(volume: Volume, top_k: int | None = None, label: tuple[int | str, ...] = ()) -> str:
    """Return the flags, to copy, by which a command takes a volume, and renders images as the volume says."""
    spec = volume.spec
    same = VolumeRequest(
        truncation=spec.truncation,
        bn_truncation=spec.bn_truncation or None,
        nvae_latents=spec.nvae_latents or None,
        label=label,
        top_k=None if top_k == index.default_top_k(spec.top_k, spec.latent_dim) else top_k,
    )
    return f" --volume {quoted(volume.path)}{same.flags}"


def _is_of(volume: Volume, source: "Source") -> bool:
    """Compare by the weights' hash, or by name where nobody had pinned them."""
    spec = volume.spec
    return spec.sha256 == source.sha256 if spec.sha256 else spec.generator == source.name


def _of_same_function(volumes: list[Volume], source: "Source") -> list[Volume]:
    """Leave out volumes of another function of the same weights, which only code of the user's own can have."""
    if isinstance(source, Checkpoint) or not volumes:
        return volumes
    from magnet_cli import computing

    generator, same, changed = load(source, "cpu"), [], None
    for volume in volumes:
        try:
            computing.check_settings(volume, generator)
            computing.check_unchanged(volume, generator, None)
        except GeneratorError as error:
            changed = error
        else:
            same.append(volume)
    if changed and not same:
        raise changed
    return same


def load(source: "Source", device: str | None = None, **settings: Any) -> "Generator":
    """Load the generator of a source on a device, by default the fastest; one that is loaded already stays as it is."""
    from magnet_cli import models

    if isinstance(source, models.Generator):
        return source
    return models.load(source, device=device or models.default_device(), **settings)


def find_rendered_volume(source: "Source", request: VolumeRequest, messages: Messages) -> Volume:
    """Return the volume for images at the truncation of a request: as `find_volume`, else that without truncation."""
    try:
        volume = find_volume(source, request, messages)
    except VolumeError as error:
        if (request.truncation, request.statistics) == (1.0, 0.0) or request.volume or isinstance(error, DamageError):
            raise
        volume = find_volume(source, replace(request, truncation=1.0, bn_truncation=None), messages)
    drawn = _truncation(volume.spec.truncation, volume.spec.bn_truncation)
    rendered = _truncation(request.truncation, request.statistics)
    if drawn != rendered:
        messages.warning(
            f"rows are drawn by their volume at truncation {drawn}, images are rendered at {rendered}; "
            f"for one at {rendered}: magnet compute {reference(source)}{request.flags}"
        )
    return volume


def _truncation(truncation: float, statistics: float) -> str:
    return f"{truncation:g}" + (f" with batch-norm statistics at {statistics:g}" if statistics else "")


def _local(messages: Messages) -> Iterable[Volume]:
    for path in sorted(path for home in cache.homes() for path in (home / "volumes").glob("*/volume.json")):
        try:
            yield Volume.open(path.parent)
        except MagnetError as error:
            messages.warning(f"{path.parent} is passed over: {error.message}")


def _published(generator: str, *, verified: bool = True) -> Iterable[Volume]:
    for artifact in entries.registry().values():
        if artifact.kind == "volume" and artifact.generator == generator and cache.is_cached(artifact):
            path = cache.path_of(artifact)
            if verified:
                cache.verify(artifact, path)
            yield Volume.open(path)


def index_of(volume: Volume, top_k: int | None, messages: Messages) -> tuple[Index, Path]:
    """Return the index of a volume and its path: the stored one, extended where the volume grew; else built and stored.

    By default k is min(K, 30), all K where D ≤ 32.

    Raises:
        SpecError, VolumeError: as `index.build`.
    """
    k = top_k or index.default_top_k(volume.spec.top_k, volume.spec.latent_dim)
    path = index.path_of(cache.home() / "indices", volume, k)
    stored = index.stored(path, volume, k)
    if stored and index.current(stored, volume):
        return stored, path
    if path.exists() and not stored:
        messages.note(f"{path} is of another format, or damaged: the index is built again")
    built = index.build(volume, k, stored)
    try:
        index.store(built, volume, path)
    except MagnetError as error:
        messages.warning(f"the index is not kept: {error.message}")
    return built, path


def corrected(
    built: Index,
    volume: Volume,
    messages: Messages,
    prior_mass: float | None,
    truncation: float,
    label: tuple[int, ...] = (),
    *,
    equal: bool = False,
) -> Index:
    """Return the index of all rows with weights divided by the density of the prior; its log-densities are stored.

    Where the prior has no bounds, rows compete in the ball of mass `prior_mass`, by default 0.99; images are rendered
    at `truncation`. Of a mixture, the density is that of what is to compete: `label` and `equal` as for
    `index.of_labels`.
    """
    index.check_correction(volume.spec, truncation)
    if prior_mass is not None and not index.has_ball(volume.spec):
        message = f"`prior_mass` is of priors without bounds, and {volume.spec.generator} has latents that are "
        raise SpecError(f"{message}{volume.spec.prior}", "leave `prior_mass` out")
    if index.is_even(volume.spec):
        messages.note(index.EVEN_PRIOR)
        return built
    mass, mixture = prior_mass or index.DEFAULT_MASS, volume.mixture()
    if mixture and (label or equal):
        index.of_labels(built, volume, label, equal=equal)  # refuses labels that there are not
        competing = index.log_prior(volume, built.parts, None, label, equal=equal)
        return index.corrected(built, competing, index.ball(volume.spec, mass, mixture, label, equal=equal))
    path = index.prior_path(cache.home() / "indices", volume)
    log_prior = index.stored_prior(path, volume)
    if log_prior is None or log_prior.parts != built.parts:
        log_prior = index.log_prior(volume, built.parts, log_prior)
        try:
            index.store_prior(log_prior, volume, path)
        except MagnetError as error:
            messages.warning(f"the log-priors are not kept: {error.message}")
    return index.corrected(built, log_prior, index.ball(volume.spec, mass, mixture))
