"""Translate keywords of NVlabs' networks into settings of `build`; none that could change images is skipped."""

from magnet_cli.errors import GeneratorError

_GROUPS = ("mapping_kwargs", "synthesis_kwargs", "block_kwargs", "layer_kwargs")


def flattened(arguments: dict) -> list[tuple[str, object]]:
    """Return the keywords of a constructor, with those in its groups."""
    keywords, groups = [], [arguments]
    for group in groups:
        inner = {key: value for key, value in group.items() if key in _GROUPS and isinstance(value, dict)}
        groups += inner.values()
        keywords += [(key, value) for key, value in group.items() if key not in inner]
    return keywords


def translated(
    family: str,
    keywords: list[tuple[str, object]],
    without: set[str],
    only: dict[str, object],
    settings: dict[str, str],
) -> dict[str, object]:
    """Return settings of a family's `build` from (keyword, value) pairs; the last of several with one name counts.

    The tensors tell keywords in `without` too, or images do not depend on them; keywords in `only` can have one value.
    """
    for key, value in keywords:
        if key not in without | only.keys() | settings.keys():
            message = f"the network was made with {key!r}, which is no keyword of a {family} that magnet knows"
            raise GeneratorError(message, "magnet skips nothing that could change its images; please report the file")
        if key in only and value != only[key]:
            message = f"the network was made with {key} = {str(value)[:40]!r}, and magnet has {only[key]!r} alone"
            raise GeneratorError(message, "pass a generator with the layers of the papers")
    return {settings[key]: value for key, value in keywords if key in settings}
