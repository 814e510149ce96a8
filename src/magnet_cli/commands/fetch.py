"""magnet fetch."""

from typing import Annotated

import typer

from magnet_cli.commands import options
from magnet_cli.console import Console

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of artifacts (`magnet list`).")]
Accept = Annotated[
    bool,
    typer.Option(
        "--accept-license", envvar="MAGNET_ACCEPT_LICENSE", help="Accept a licence that forbids commercial use."
    ),
]


def run(names: Names, accept_license: Accept = False, quiet: options.Quiet = False, json: options.Json = False) -> None:
    """Fetch artifacts, verified, into the cache.

    Prints their paths.
    A file is visible only once its size and sha256 are those of its entry. What is there already is verified and left.
    Files of the Hugging Face Hub stay in the hub's own cache, all others go to MAGNET_HOME.

    \b
    Examples:
      magnet fetch dcgan-digiface
      magnet fetch mnist digits --json
    """
    from magnet_cli.artifacts import cache, registry

    console = Console(as_json=json, quiet=quiet)
    artifacts = [registry.find(name) for name in names]
    fetched = []
    for artifact in artifacts:
        total = 0 if cache.is_cached(artifact) else artifact.size
        with console.progress(artifact.name, total, "bytes") as advance:
            downloaded = cache.fetch(artifact, accept_license=accept_license, advance=advance)
        fields = {"name": artifact.name, "path": str(cache.path_of(artifact)), "sha256": artifact.sha256}
        fetched.append(fields | {"size": artifact.size, "downloaded": downloaded})
    console.result({"artifacts": fetched}, "\n".join(f["path"] for f in fetched))
    if first := next((a.name for a in artifacts if a.kind == "generator"), None):
        console.hint(f"magnet compute {first} --n 512")
