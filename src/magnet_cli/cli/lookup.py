# ruff: noqa: ANN401
"""The names of before for references and select, until their last callers have moved."""

import dataclasses
from pathlib import Path
from typing import Any

from magnet_cli.catalog.cache import volume_path  # noqa: F401
from magnet_cli.cli import options, references
from magnet_cli.cli.console import Console
from magnet_cli.sampling import select
from magnet_cli.sampling.select import (
    index_of,  # noqa: F401
    named_volume,  # noqa: F401
)
from magnet_cli.volume import Volume

Source = object


def source(reference: str, *, here: bool = True, **flags: Any) -> Any:
    """Return as `references.source`."""
    return references.source(options.GeneratorFlags(generator=reference, **flags), here=here)


def own_module(reference: str, **flags: Any) -> Any:
    """Return as `references.custom_module`."""
    return references.custom_module(reference, options.CustomFlags(**flags))


def Wanted(  # noqa: N802
    top_k: int | None,
    space: str,
    output: str,
    truncation: float,
    solver: str | None,
    precision: str | None,
    label: tuple[int, ...] = (),
    bn_truncation: float = 0.0,
    nvae_latents: str = "top",
) -> select.VolumeRequest:
    """Return a request for a volume."""
    fields = dict(locals())
    return select.VolumeRequest(**fields | {"bn_truncation": bn_truncation or None})


def volume(checkpoint: Any, console: Console, path: Path | None, wanted: select.VolumeRequest) -> Volume:
    """Return as `select.find_volume`."""
    return select.find_volume(checkpoint, dataclasses.replace(wanted, volume=path), console)


def volume_for_rendering(checkpoint: Any, console: Console, path: Path | None, wanted: select.VolumeRequest) -> Volume:
    """Return as `select.find_rendered_volume`."""
    return select.find_rendered_volume(checkpoint, dataclasses.replace(wanted, volume=path), console)
