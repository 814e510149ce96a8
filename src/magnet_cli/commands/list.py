"""magnet list."""

from magnet_cli.commands import options
from magnet_cli.console import Console


def run(quiet: options.Quiet = False, json: options.Json = False) -> None:
    """List what can be fetched, and what is here.

    MAGNET_ARTIFACTS names a list of your own (README shows an entry), shown with ours.

    \b
    Examples:
      magnet list
      magnet list --json
    """
    from magnet_cli.artifacts import cache, registry

    rows = []
    for artifact in registry.registry().values():
        cached = cache.is_cached(artifact)
        fields = {"name": artifact.name, "kind": artifact.kind, "family": artifact.family, "size": artifact.size}
        fields |= {"license": artifact.license, "sha256": artifact.sha256, "cached": cached}
        rows.append(fields | {"path": str(cache.path_of(artifact)) if cached else None})
    shown = [
        [
            r["name"],
            r["kind"],
            r["family"] or "-",
            f"{r['size'] / 1e6:,.1f} MB",
            "yes" if r["cached"] else "no",
            r["license"],
        ]
        for r in rows
    ]
    console = Console(as_json=json, quiet=quiet)
    console.table({"artifacts": rows}, ["name", "kind", "family", "size", "cached", "license"], shown)
    if missing := next((r["name"] for r in rows if not r["cached"]), None):
        console.hint(f"magnet fetch {missing}")
