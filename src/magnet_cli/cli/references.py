"""What is typed for a generator: a name, a path, or code of the user's own (file.py:factory).

The one gate to code of the user's own as a generator: what is typed on the command line passes, what a file says does
not.
"""

from typing import TYPE_CHECKING

import typer

from magnet_cli.catalog import references
from magnet_cli.catalog.checkpoint import Checkpoint
from magnet_cli.cli import options
from magnet_cli.files.text import quoted

if TYPE_CHECKING:
    from magnet_cli.models.custom import CustomModule
    from magnet_cli.sampling.select import Source


def source(flags: options.GeneratorFlags, *, here: bool = True) -> "Source":
    """Return the generator that was typed: a checkpoint, or code of the user's own, whose factory is called.

    With `here`, the file of a checkpoint has to be on this machine.
    """
    own = custom_module(flags.generator, flags)
    if own and flags.family:
        raise typer.BadParameter(f"that is for a checkpoint; {flags.generator} is code.", param_hint="--family")
    return own or Checkpoint.find(flags.generator, here=here, family=flags.family or "")


def custom_module(reference: str, flags: options.CustomFlags) -> "CustomModule | None":
    """Return the code of the user's own that was typed, its factory called; None for anything else."""
    typed = {
        name: options.plain(getattr(flags, name))
        for name in references.OWN_SETTINGS
        if getattr(flags, name) is not None
    }
    if not references.is_factory(reference):
        if typed:
            flag = f"--{next(iter(typed)).replace('_', '-')}"
            raise typer.BadParameter(
                f"that is for a generator of your own, file.py:factory; {reference} tells it itself.", param_hint=flag
            )
        return None
    from magnet_cli.models import custom

    texts = {name: ",".join(map(str, v)) if isinstance(v, tuple) else str(v) for name, v in typed.items()}
    shown = quoted(reference)
    shown += "".join(f" --{name.replace('_', '-')} {quoted(text)}" for name, text in texts.items())
    return custom.from_factory(reference, **typed, reference=shown)
