"""What a text that rules are read from may be: no listing at all."""

from __future__ import annotations


class UnreadableError(Exception):
    """A text is not what it was taken for, or was cut off; `line` counts from 1.

    The message is one line in lower case, and fit to be shown to people.
    """

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
