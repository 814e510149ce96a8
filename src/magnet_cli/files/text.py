"""Text that somebody else may have chosen, made fit to be shown on a terminal and to be part of a command to copy."""

import json
import re
import shlex

# What a terminal obeys, ends of lines, what turns text around, and halves of characters
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str, keep: str = "") -> str:
    r"""Return text with control and bidirectional characters, save those in `keep`, written as \u001b for escape."""
    return _CONTROL.sub(lambda match: match[0] if match[0] in keep else json.dumps(match[0])[1:-1], text)


def quoted(word: object) -> str:
    """Return a word of a command to copy into a shell, quoted where the shell would not take it as one word."""
    return shlex.quote(visible(str(word)))


def is_name(text: object) -> bool:
    """Return whether a value is one name of a file or folder: no path, and no control characters."""
    return isinstance(text, str) and text not in {"", ".", ".."} and "/" not in text and visible(text) == text
