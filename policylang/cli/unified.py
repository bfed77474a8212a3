"""Texts side by side, as `patch` reads them; knows nothing of what they say."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import unified_diff

NO_END = r"\ No newline at end of file"  # diff(1), of a last line


def unified(before: str, after: str, old: str, new: str) -> Iterator[str]:
    """The lines of a unified diff under two names, without their ends; none of equal texts.

    Lines end at line feeds alone: what else Unicode calls an end is a part of them, and shown.
    """
    for line in unified_diff(_lines(before), _lines(after), old, new):
        yield line.removesuffix("\n")
        if not line.endswith("\n"):
            yield NO_END


def _lines(text: str) -> list[str]:
    """The lines with their ends; the last one may have none."""
    *whole, last = text.split("\n")
    return [*(f"{line}\n" for line in whole), *filter(None, [last])]
