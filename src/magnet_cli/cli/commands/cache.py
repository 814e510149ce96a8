"""magnet cache: list, verify, rm, prune, path."""

from typing import TYPE_CHECKING, Annotated

import typer

from magnet_cli.cli import completion, options
from magnet_cli.cli.console import Console
from magnet_cli.cli.help import Command, Group

if TYPE_CHECKING:
    from magnet_cli.catalog.housekeeping import CacheEntry

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, verify and remove what is kept on this machine.",
)
Names = Annotated[
    list[str],
    typer.Argument(metavar="NAME...", help="As `magnet cache list` shows them.", autocompletion=completion.artifacts),
]
Name = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]",
        help="Name of an artifact.",
        show_default="MAGNET_HOME",
        autocompletion=completion.artifacts,
    ),
]
Forget = Annotated[
    bool, typer.Option("--forget", help="Also forget the recorded hash; the next download will be trusted.")
]
Days = Annotated[
    float | None, typer.Option(min=0, help="Artifacts and indices not used for so many days, too.", show_default=False)
]


@app.command("list", cls=Command)
def list_(quiet: options.Quiet = False, json: options.Json = False) -> None:
    """List what is stored, with sizes and dates of last use.

    \b
    Examples:
      magnet cache list
      magnet cache list --json
    """
    from magnet_cli.catalog import housekeeping

    rows = housekeeping.list_entries()
    shown = [[r.name, r.kind, r.place, _size(r.size), r.used.date().isoformat()] for r in rows]
    size = sum(row.size for row in rows)
    fields = {"kept": [_fields(row) for row in rows], "size": size}
    console = Console(as_json=json, quiet=quiet)
    console.table(fields, ["name", "kind", "where", "size", "last used"], shown)
    console.note(f"{len(rows)} in all, {_size(size)}")


@app.command("verify", cls=Command)
def verify(quiet: options.Quiet = False, json: options.Json = False) -> None:
    """Read every byte of the stored artifacts and compare it.

    Problems are the result: they are printed, and the exit code is 1. `magnet info VOLUME --check` is for volumes that
    you computed.

    \b
    Examples:
      magnet cache verify
      magnet cache verify --json
    """
    from magnet_cli.catalog import housekeeping

    console = Console(as_json=json, quiet=quiet)
    verified = list(housekeeping.verify())
    problems = [problem for _, problem in verified if problem]
    fields = {"verified": [_fields(row) | {"problem": problem} for row, problem in verified], "ok": not problems}
    rows = [[row.name, _size(row.size), problem or "every byte is right"] for row, problem in verified]
    console.table(fields | {"problems": problems}, ["name", "size", "found"], rows)
    if problems:
        raise typer.Exit(1)


@app.command("rm", cls=Command)
def remove(
    names: Names,
    forget: Forget = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Remove artifacts, indices or unfinished downloads.

    Prints what went. Volumes that you computed are not removed. A file that nobody pinned has to be the same when it is
    fetched again, unless --forget.

    \b
    Examples:
      magnet cache rm dcgan-digiface --forget
      magnet cache rm dcgan-digiface --forget --dry-run
    """
    from magnet_cli.catalog import housekeeping

    _report(
        housekeeping.remove(names, forget=forget, dry_run=dry_run),
        dry_run=dry_run,
        console=Console(as_json=json, quiet=quiet),
    )


@app.command("prune", cls=Command)
def prune(
    days: Days = None,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Remove what is no longer of use.

    That is partial files of transfers that nobody went on with for a day; with --days, what was not used for so long.
    What is of a list that MAGNET_ARTIFACTS does not name now is kept as well. Volumes that you computed are never
    removed. Prints what went.

    \b
    Examples:
      magnet cache prune --dry-run
      magnet cache prune --days 90
    """
    from magnet_cli.catalog import housekeeping

    _report(
        housekeeping.prune(unused_days=days, dry_run=dry_run),
        dry_run=dry_run,
        console=Console(as_json=json, quiet=quiet),
    )


@app.command("path", cls=Command)
def path_(name: Name = None, quiet: options.Quiet = False, json: options.Json = False) -> None:
    """Print the folder of the cache, or the path of an artifact.

    \b
    Examples:
      magnet cache path
      magnet cache path mnist
    """
    from magnet_cli.catalog import cache, entries

    path = cache.path_of(entries.find(name)) if name else cache.home()
    Console(as_json=json, quiet=quiet).result({"path": str(path), "exists": path.exists()}, str(path))


def _report(gone: "list[CacheEntry]", *, dry_run: bool, console: Console) -> None:
    size = sum(row.size for row in gone)
    key = "would_remove" if dry_run else "removed"
    console.result({key: [_fields(row) for row in gone], "size": size}, "\n".join(str(row.path) for row in gone))
    console.note(f"{len(gone)} {'would be ' * dry_run}removed, {_size(size)}" + "; nothing was done" * dry_run)


def _fields(row: "CacheEntry") -> dict:
    fields = {"name": row.name, "kind": row.kind, "path": str(row.path), "size": row.size, "place": row.place}
    return fields | {"used": row.used.isoformat(timespec="seconds")}


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
