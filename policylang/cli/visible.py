"""Text as a terminal shows it: nothing that acts on the terminal, and how wide each part is."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

TAB_STOP = 4

# Cc and Cf: controls and formatting, among them escape sequences and the marks that reverse
# text. Cs, Co, Cn: what no terminal can show. Zl, Zp: line ends.
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
COMBINING = frozenset({"Mn", "Me"})


def visible(text: str) -> str:
    """The text with every character that a terminal would obey, or not show, written out."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(c) if unicodedata.category(c) in HIDDEN else c for c in text)


@dataclass(frozen=True, slots=True)
class ShownLine:
    """A line of source as it is shown: `columns[n]` is where its character n begins, from 0.

    `columns` has one more item than the line has characters: where the line ends.
    """

    pieces: tuple[str, ...]
    columns: tuple[int, ...]

    @classmethod
    def of(cls, line: str) -> ShownLine:
        pieces: list[str] = []
        columns = [0]
        for character in line:
            piece, width = _shown(character, columns[-1])
            pieces.append(piece)
            columns.append(columns[-1] + width)
        return cls(tuple(pieces), tuple(columns))


def _shown(character: str, column: int) -> tuple[str, int]:
    """What is shown for a character at a column, and how many columns that takes."""
    if character == "\t":
        width = TAB_STOP - column % TAB_STOP
        return " " * width, width
    category = unicodedata.category(character)
    if category in HIDDEN:
        escaped = _escaped(character)
        return escaped, len(escaped)
    if category in COMBINING:
        return character, 0
    return character, 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
