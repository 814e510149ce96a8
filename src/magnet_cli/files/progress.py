"""What a long task says while it runs: messages to the user, and progress."""

import warnings
from collections.abc import Callable
from typing import Protocol

Progress = Callable[[int, int], None]  # called with (done, total)


class Messages(Protocol):
    """Receives the notes and warnings of a verb; the console of the command line is one."""

    def note(self, text: str) -> None:
        """Receive a remark about the result."""

    def warning(self, text: str) -> None:
        """Receive a reason to doubt the result."""


class _Silent:
    def note(self, text: str) -> None:
        pass

    def warning(self, text: str) -> None:
        warnings.warn(text, stacklevel=3)


SILENT: Messages = _Silent()  # drops notes, turns warnings into Python warnings
