"""magnet fetch."""

import dataclasses
import os
from typing import Annotated

import typer

from magnet_cli.cli import completion, options
from magnet_cli.cli.console import Console
from magnet_cli.files.text import quoted

Names = Annotated[
    list[str],
    typer.Argument(
        metavar="NAME...",
        help="Names of artifacts (`magnet list`), or where `magnet push` put a volume.",
        autocompletion=completion.artifacts,
    ),
]
Accept = Annotated[
    bool,
    typer.Option(
        "--accept-license", envvar="MAGNET_ACCEPT_LICENSE", help="Accept a licence that forbids commercial use."
    ),
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Trust, at its first use, a file that nobody pinned and that could carry code.")
]


def run(
    names: Names,
    accept_license: Accept = False,
    trust: Trust = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Download artifacts into the cache and verify them.

    Prints their paths.
    A file is visible only once its size and sha256 are those of its entry. Where the entry has none, what came first
    is recorded in MAGNET_HOME/artifacts.lock and held against it ever after. What is there is verified and left alone.
    The arrays of a published volume become a volume that `magnet sample` finds. Files of the Hugging Face Hub stay in
    the hub's own cache, all others go to MAGNET_HOME. A licence that forbids commercial use is accepted once.

    \b
    Examples:
      magnet fetch dcgan-digiface
      magnet fetch mnist digits --json
    """
    from magnet_cli.catalog import cache, entries
    from magnet_cli.sharing import fetching

    if quiet:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # the hub's client has bars of its own
    console = Console(as_json=json, quiet=quiet)
    artifacts = [entries.find(name) for name in names]
    fetched = []
    for artifact in artifacts:
        if not cache.is_cached(artifact):
            console.note(f"{artifact.name}: {artifact.license}")
        result = fetching.fetch_artifact(artifact, console.progress, accept_license=accept_license, trust=trust)
        if result.downloaded and not result.pinned:
            console.note(f"{artifact.name} had no pinned hash; recorded sha256 {result.sha256} on first download")
        fetched.append(dataclasses.asdict(result) | {"path": str(result.path)})
    console.result({"artifacts": fetched}, "\n".join(f["path"] for f in fetched))
    last = artifacts[-1]
    if last.kind == "generator":
        console.hint(f"magnet compute {quoted(last.name)} --n 512")
    elif last.generator:
        console.hint(f"magnet index {quoted(last.generator)}")
    elif last.kind == "volume":
        console.hint(f"magnet info {quoted(fetched[-1]['path'])}")
