"""magnet info."""

from typing import Annotated

import typer

from magnet_cli.cli import completion, options
from magnet_cli.cli.console import Console

Reference = Annotated[
    str,
    typer.Argument(
        metavar="PATH|GENERATOR",
        help="A volume, index, sample, rendering, edit, direction, checkpoint or name.",
        autocompletion=completion.targets,
    ),
]
Check = Annotated[bool, typer.Option("--check", help="Re-read every byte; exit 1 if there are problems.")]


def run(
    reference: Reference = "mnist",
    check: Check = False,
    latent_dim: options.LatentDim = None,
    prior: options.Prior = None,
    image_range: options.ImageRange = None,
    key: options.Key = None,
    family: options.Family = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Describe a path or a name, and check it.

    With --check every byte of it is read again and compared with the hashes it was written with. Problems are the
    result: they are printed, and the exit code is 1.

    \b
    Examples:
      magnet info mnist
      magnet info mnist-volume --check
    """
    from magnet_cli.cli import describe, references

    console = Console(as_json=json, quiet=quiet)
    flags = options.CustomFlags(latent_dim=latent_dim, prior=prior, image_range=image_range, key=key)
    own = references.custom_module(reference, flags)
    fields = describe.describe_own(own) if own else describe.describe(reference, check=check, family=family or "")
    hidden = {"ok", "problems"} | {key for key in ("beside",) if not fields.get(key)}
    shown = [[key, _text(value)] for key, value in fields.items() if key not in hidden]
    verdict = "every byte is as it was written" if check else "not checked byte by byte (--check)"
    shown += [["problems", problem] for problem in fields["problems"]] or [["problems", f"none; {verdict}"]]
    console.table(fields, ["what", "value"], shown)
    if fields.get("assumed"):
        console.note("assumed: what weights do not tell; if it was trained otherwise, write a file that says so:")
        console.hint(f"magnet convert {reference} OUT.safetensors --setting NAME=VALUE")
    if not fields["ok"]:
        raise typer.Exit(1)


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_text(_spaced(v))}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        return "×".join(str(v) for v in value) if all(isinstance(v, int) for v in value) else " ".join(map(str, value))
    return "none" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _spaced(value: object) -> object:
    return " ".join(map(str, value)) if isinstance(value, list) else value
