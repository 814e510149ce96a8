"""magnet push."""

from typing import Annotated

import typer

from magnet_cli.cli import completion, options
from magnet_cli.cli.console import Console
from magnet_cli.files.text import quoted

Reference = Annotated[
    str,
    typer.Argument(
        metavar="VOLUME",
        help="A volume's folder, or the name of a published one.",
        autocompletion=completion.volumes,
    ),
]
Repository = Annotated[
    str, typer.Argument(metavar="OWNER/NAME", help="The dataset on the hub; made if it is not there.")
]
License = Annotated[str, typer.Option("--license", help="Of the volume's files, for card and entry.")]


def run(
    volume: Reference,
    repository: Repository,
    license_: License = "not stated",
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Publish a volume as a dataset of the Hugging Face Hub.

    Its files, a manifest.json with the size and sha256 of each, a card, and an entry for a list of artifacts that pins
    the manifest. HF_TOKEN, or `hf auth login`, says who you are. Prints where it is: what `magnet fetch` takes, to get
    it back byte for byte. What is there already is not sent again.

    \b
    Examples:
      magnet push mnist-volume OWNER/mnist-volume --dry-run
      magnet push mnist-volume OWNER/mnist-volume --license CC0-1.0 --dry-run --json
    """
    from magnet_cli.sampling.select import named_volume
    from magnet_cli.sharing import publish

    console = Console(as_json=json, quiet=quiet)
    publication = publish.prepare(named_volume(volume), repository)
    fields = {"repository": repository, "volume": str(publication.volume.path), "rows": publication.volume.num_rows}
    fields |= {"files": len(publication.names) + 1, "size": publication.size}
    if dry_run:
        commit = "0" * 40
        console.note(
            f"{fields['files']} files, {publication.size:,} bytes, would be sent to {repository}; nothing was done"
        )
        for line in publish.card(publication, commit, license_).splitlines():
            console.note(line)
    else:
        commit = publish.push(publication, license_)
    source = publication.source(commit if not dry_run else "COMMIT")
    fields |= {"commit": None if dry_run else commit, "source": source, "entry": publication.entry(commit, license_)}
    console.result(fields, source)
    if not dry_run:
        console.hint(f"magnet fetch {quoted(source)}")
