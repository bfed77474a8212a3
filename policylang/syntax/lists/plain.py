"""Reads lists of one element a line, with comments; the format of nearly all that are published.

`#` and `;` start comments, so that Spamhaus DROP (`192.0.2.0/24 ; SBL1`) and FireHOL's netsets
are of this format too.
"""

from __future__ import annotations

from functools import partial

from policylang.packets.values import parse_address
from policylang.source import SourceFile, Span
from policylang.syntax.lists.elements import ADDRESS, NO_ELEMENT, Elements, unusual
from policylang.syntax.wording import quoted


def read(file: SourceFile, elements: Elements) -> None:
    """Take in what each line says; a list of 100,000 prefixes is read in a tenth of a second."""
    first_of, pairs = elements.first_of, elements.pairs
    addresses = pairs[ADDRESS]
    for index, line in enumerate(file.text.split("\n")):
        text = line.partition("#")[0].partition(";")[0].strip()
        if not text:
            continue
        pair = parse_address(text)
        kind = ADDRESS
        if pair is not None:
            addresses.append(pair)
        else:
            kind, pair = unusual(text)
            if pair is None:
                _refuse(text, partial(_span, file, index, text), elements)
                continue
            pairs[kind].append(pair)
        if kind not in first_of:
            first_of[kind] = _span(file, index, text)


def _refuse(text: str, where: partial[Span], elements: Elements) -> None:
    elements.refuse(
        f"{quoted(text)} is {NO_ELEMENT}",
        where,
        help='of a CSV file, say which column is meant: `file "…" column 2`'
        if "," in text
        else None,
    )


def _span(file: SourceFile, index: int, text: str) -> Span:
    """Where the element `text` stands in a line, counted from 0."""
    start = file.text.index(text, file.line_starts[index])
    return Span(file, start, start + len(text))
