"""Source files and places in them; knows nothing of what the text means."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, eq=False)
class SourceFile:
    """One text that was read.

    `name` is how messages and comments call it: the path relative to the folder of the
    policy that was asked for, so that the output is the same on every machine.
    """

    name: str
    text: str
    line_starts: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        starts = [0]
        position = self.text.find("\n")
        while position >= 0:
            starts.append(position + 1)
            position = self.text.find("\n", position + 1)
        object.__setattr__(self, "line_starts", tuple(starts))

    def line_of(self, offset: int) -> int:
        """The line, counted from 1, that holds the character at `offset`."""
        return bisect_right(self.line_starts, offset)

    def line_text(self, line: int) -> str:
        """The text of a line, counted from 1, without its end."""
        start = self.line_starts[line - 1]
        end = self.text.find("\n", start)
        return (self.text[start:] if end < 0 else self.text[start:end]).rstrip("\r")


@dataclass(frozen=True, slots=True)
class Span:
    """The characters `start` to `end` (exclusive) of a file."""

    file: SourceFile
    start: int
    end: int

    @property
    def line(self) -> int:
        """The line of the first character, counted from 1."""
        return self.file.line_of(self.start)

    @property
    def column(self) -> int:
        """The column of the first character, counted from 1."""
        return self.start - self.file.line_starts[self.line - 1] + 1

    @property
    def text(self) -> str:
        """What stands there, white space and comments folded into single blanks."""
        lines = self.file.text[self.start : self.end].split("\n")
        return " ".join(" ".join(_without_comment(line) for line in lines).split())

    @property
    def place(self) -> str:
        """`file:line`, as comments and listings name a statement."""
        return f"{self.file.name}:{self.line}"


def _without_comment(line: str) -> str:
    quoted = False
    for position, character in enumerate(line):
        if character == '"':
            quoted = not quoted
        elif character == "#" and not quoted:
            return line[:position]
    return line
