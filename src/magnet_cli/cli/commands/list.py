"""magnet list."""

import dataclasses
import shlex
from typing import Annotated, Any

import typer

from magnet_cli.cli import options
from magnet_cli.cli.console import Console

Families = Annotated[bool, typer.Option("--families", help="What each family of generators supports, instead.")]


def run(families: Families = False, quiet: options.Quiet = False, json: options.Json = False) -> None:
    """List what can be fetched, and what is here.

    MAGNET_ARTIFACTS names a list of your own (README shows an entry), shown with ours. Where a size is not known there
    is a dash.

    \b
    Examples:
      magnet list
      magnet list --json
      magnet list --families
    """
    console = Console(as_json=json, quiet=quiet)
    if families:
        _families(console)
    else:
        _artifacts(console)


def _artifacts(console: Console) -> None:
    from magnet_cli.catalog import cache, entries

    rows = []
    for artifact in entries.registry().values():
        cached = cache.is_cached(artifact)
        pin = cache.pinned(artifact)
        fields: dict[str, Any] = {
            "name": artifact.name,
            "kind": artifact.kind,
            "family": artifact.family,
            "size": pin.size or None,
        }
        fields |= {"license": artifact.license, "commercial_use": artifact.commercial_use}
        fields |= {"description": artifact.description}
        fields |= {"sha256": pin.sha256 or None, "pinned": bool(artifact.sha256), "cached": cached}
        rows.append(fields | {"path": str(cache.path_of(artifact)) if cached else None})
    shown = [
        [
            r["name"],
            r["kind"],
            r["family"] or "-",
            f"{r['size'] / 1e6:,.1f} MB" if r["size"] else "-",
            "yes" if r["cached"] else "no",
            r["license"].partition(" (")[0] + ("" if r["commercial_use"] else ", non-commercial"),
            r["description"],
        ]
        for r in rows
    ]
    header = ["name", "kind", "family", "size", "cached", "license", "description"]
    console.table({"artifacts": rows}, header, shown)
    if missing := sorted((r for r in rows if not r["cached"]), key=lambda r: r["kind"] != "generator"):
        console.hint(f"magnet fetch {shlex.quote(missing[0]['name'])}")


def _families(console: Console) -> None:
    from magnet_cli import models

    rows = [dataclasses.asdict(family) for family in models.describe_families()]
    header = {"family": "family", "spaces": "spaces", "outputs": "outputs", "conditional": "conditional"}
    header |= {"truncation": "truncation acts on", "prior": "prior", "formats": "checkpoints"}
    texts = [{k: v if isinstance(v, str) else ", ".join(v) for k, v in row.items()} for row in rows]
    console.table({"families": rows}, [*header.values()], [[text[k] or "-" for k in header] for text in texts])
