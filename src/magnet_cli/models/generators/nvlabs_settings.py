"""What NVlabs' networks were made with, and what of it magnet's `build` has to be told.

Owns that no keyword is skipped which could change images. Knows nothing of files or of networks.
"""

from magnet_cli.errors import GeneratorError

_GROUPS = ("mapping_kwargs", "synthesis_kwargs", "block_kwargs", "layer_kwargs")


def flattened(arguments: dict) -> list[tuple[str, object]]:
    """The keywords of a constructor, and those that it passes on in groups."""
    given, groups = [], [arguments]
    for group in groups:
        inner = {key: value for key, value in group.items() if key in _GROUPS and isinstance(value, dict)}
        groups += inner.values()
        given += [(key, value) for key, value in group.items() if key not in inner]
    return given


def translated(
    family: str, given: list[tuple[str, object]], without: set[str], only: dict[str, object], settings: dict[str, str]
) -> dict[str, object]:
    """Settings of a family's `build`; what is not known is refused, for it could change the images.

    Args:
        family: what to call the network in errors.
        given: keyword and value; of several of one name the last counts.
        without: keywords that tell nothing more than the tensors do, or change rounding or training alone.
        only: keywords that can have one value only.
        settings: of keywords, the names that `build` has for them.

    Raises:
        GeneratorError: a keyword is unknown, or has another value than the only one.
    """
    for key, value in given:
        if key not in without | only.keys() | settings.keys():
            message = f"the network was made with {key!r}, which is no keyword of a {family} that magnet knows"
            raise GeneratorError(message, "magnet skips nothing that could change its images; please report the file")
        if key in only and value != only[key]:
            message = f"the network was made with {key} = {str(value)[:40]!r}, and magnet has {only[key]!r} alone"
            raise GeneratorError(message, "pass a generator with the layers of the papers")
    return {settings[key]: value for key, value in given if key in settings}
