"""Takes a line of an iptables-restore file apart into words; knows no option."""

from __future__ import annotations

import re
from collections.abc import Iterable

_WORD = re.compile(r'([^\s"]*)"((?:[^"\\]|\\.)*)"|([^\s"]+)')
_ESCAPED = re.compile(r"\\(.)")
_NEEDS_QUOTES = re.compile(r"[\s\"\\]|^$")


class Quoted(str):
    """A word that stood in quotes: it is never an option, whatever it begins with."""

    __slots__ = ()


def split_words(line: str) -> list[str] | None:
    """The words, as add_param_to_argv (iptables/xshared.c) finds them; None for an open quote.

    A closing quote ends a word. A backslash means something inside quotes alone.
    """
    if '"' not in line:
        return line.split()
    words: list[str] = []
    end = 0
    for found in _WORD.finditer(line):
        if line[end : found.start()].strip():
            return None
        end = found.end()
        before, quoted, plain = found.groups()
        if plain is not None:
            words.append(plain)
        else:
            text = _ESCAPED.sub(r"\1", quoted) if "\\" in quoted else quoted
            words.append(Quoted(before + text))
    return None if line[end:].strip() else words


def joined_words(words: Iterable[str]) -> str:
    """The words as one text, quoted where they must be."""
    return " ".join(_written(word) for word in words)


def _written(word: str) -> str:
    if not _NEEDS_QUOTES.search(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
