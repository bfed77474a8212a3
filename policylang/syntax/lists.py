"""Reads the lists that sets name by `file "…"`; knows neither sets nor where files are.

The lists that others publish are read as they are: one element a line, comments behind `#` or
`;`, either line end. They never go through the grammar.
"""

from __future__ import annotations

import re

from policylang.diagnostics import Label, Report
from policylang.packets.values import Range, Ranges, parse_address
from policylang.source import SourceFile, Span
from policylang.syntax.tree import ListFile
from policylang.syntax.wording import quoted

MOST_BAD_LINES = 20  # of a file that are shown one by one
PORT_MAX = 65535  # 16 bits

_PORTS = re.compile(r"([0-9]{1,5})(?:\s*-\s*([0-9]{1,5}))?")
_MAC = re.compile(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}")
_A = {"address": "an address", "port": "a port"}
_MANY = {"address": "addresses", "port": "ports"}


def parse_list(file: SourceFile, report: Report) -> ListFile:
    """What a list file holds; reports the lines that are no element, and a second kind."""
    pairs: dict[str, list[Range]] = {"address": [], "port": []}
    addresses = pairs["address"]
    first_of: dict[str, Span] = {}  # in the order in which the kinds appear
    bad: list[Span] = []
    for index, line in enumerate(file.text.split("\n")):
        text = line.partition("#")[0].partition(";")[0].strip()
        if not text:
            continue
        pair = parse_address(text)
        kind = "address"
        if pair is None:
            kind, pair = _unusual(text)
            if pair is None:
                bad.append(_span(file, index, text))
                continue
            pairs[kind].append(pair)
        else:
            addresses.append(pair)
        if kind not in first_of:
            first_of[kind] = _span(file, index, text)
    _tell_bad(bad, report)
    if not first_of:
        return ListFile(None, ())
    kind, *others = first_of
    for other in others:
        report.add(
            "mixed-list",
            f"{_A[other]} in a list of {_MANY[kind]}",
            first_of[other],
            labels=[Label(first_of[kind], f"the first element is {_A[kind]}")],
        )
    return ListFile(kind, Ranges.merged(pairs[kind]).pairs)


def _unusual(text: str) -> tuple[str, Range | None]:
    """The kind and the range of a port, of ports, or of addresses with blanks around the dash."""
    match = _PORTS.fullmatch(text)
    if match is not None:
        low, high = int(match[1]), int(match[2] or match[1])
        return "port", (low, high) if low <= high <= PORT_MAX else None
    first, dash, last = text.partition("-")
    return "address", parse_address(f"{first.rstrip()}-{last.lstrip()}") if dash else None


def _tell_bad(bad: list[Span], report: Report) -> None:
    for span in bad[:MOST_BAD_LINES]:
        is_mac = _MAC.fullmatch(span.text) is not None
        report.add(
            "bad-list-line",
            f"{quoted(span.text)} is neither an address nor a port",
            span,
            help="lists of MAC addresses cannot be read yet" if is_mac else None,
        )
    left = bad[MOST_BAD_LINES:]
    if left:
        report.add(
            "bad-list-line", f"{len(left)} more lines are neither addresses nor ports", left[0]
        )


def _span(file: SourceFile, index: int, text: str) -> Span:
    """Where the element `text` stands in a line, counted from 0."""
    start = file.text.index(text, file.line_starts[index])
    return Span(file, start, start + len(text))
