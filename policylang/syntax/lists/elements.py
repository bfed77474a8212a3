"""What stands in a list, gathered as numbers; knows no format and no policy.

Nothing of a list's text goes further than this: an element becomes a range of numbers, and what
is none is told with its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from policylang.diagnostics import Label, Report
from policylang.packets.values import Range, Ranges, parse_address
from policylang.source import Span
from policylang.syntax.tree import ListFile
from policylang.syntax.wording import quoted

ADDRESS, PORT, MAC = "address", "port", "mac"

MOST_BAD_LINES = 20  # of a file that are shown one by one
PORT_MAX = 65535  # 16 bits

_PORTS = re.compile(r"([0-9]{1,5})(?:\s*-\s*([0-9]{1,5}))?")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(?:(?::[0-9A-Fa-f]{2}){5}|(?:-[0-9A-Fa-f]{2}){5})")

A = {ADDRESS: "an address", PORT: "a port", MAC: "a MAC address"}
NO_ELEMENT = "neither an address, a port nor a MAC address"
MANY = {ADDRESS: "addresses", PORT: "ports", MAC: "MAC addresses"}

Where = Callable[[], Span]  # places are worked out when they are needed


@dataclass(slots=True)
class Elements:
    """What was found in one list so far."""

    report: Report
    pairs: dict[str, list[Range]] = field(
        default_factory=lambda: {ADDRESS: [], PORT: [], MAC: []},
    )
    first_of: dict[str, Span] = field(default_factory=dict)  # in the order of appearance
    _bad: int = 0
    _untold: Span | None = None

    def take(self, text: str, where: Where, only: str | None = None) -> None:
        """Take in an element, of the kind `only` where that is said; reports what is none."""
        kind, pair = parse_element(text)
        if pair is None or kind != (only or kind):
            self.refuse(f"{quoted(text)} is {f'not {A[only]}' if only else NO_ELEMENT}", where)
            return
        self.pairs[kind].append(pair)
        if kind not in self.first_of:
            self.first_of[kind] = where()

    def refuse(self, message: str, where: Where, help: str | None = None) -> None:
        """Report something that is no element; after the first of them, count them."""
        self._bad += 1
        if self._bad <= MOST_BAD_LINES:
            self.report.add("bad-list-line", message, where(), help=help)
        elif self._untold is None:
            self._untold = where()

    def list(self) -> ListFile:
        """All of it; reports a second kind, and how many mistakes were not shown."""
        if self._untold is not None:
            left = self._bad - MOST_BAD_LINES
            self.report.add("bad-list-line", f"{left} more lines cannot be read", self._untold)
        if not self.first_of:
            return ListFile(None, ())
        kind, *others = self.first_of
        for other in others:
            self.report.add(
                "mixed-list",
                f"{A[other]} in a list of {MANY[kind]}",
                self.first_of[other],
                labels=[Label(self.first_of[kind], f"the first element is {A[kind]}")],
            )
        return ListFile(kind, Ranges.merged(self.pairs[kind]).pairs)


def parse_element(text: str) -> tuple[str, Range | None]:
    """The kind and the range of what an element says; None where it is no element.

    An element is an address, a prefix, a range of addresses, a port, a range of ports or a MAC
    address; blanks may stand around the dash of a range.
    """
    pair = parse_address(text)
    return (ADDRESS, pair) if pair is not None else unusual(text)


def unusual(text: str) -> tuple[str, Range | None]:
    """`parse_element` for what `parse_address` does not know."""
    match = _PORTS.fullmatch(text)
    if match is not None:
        low, high = int(match[1]), int(match[2] or match[1])
        return PORT, (low, high) if low <= high <= PORT_MAX else None
    if _MAC.fullmatch(text) is not None:
        number = int(text.replace(text[2], ""), 16)
        return MAC, (number, number)
    first, dash, last = text.partition("-")
    return ADDRESS, parse_address(f"{first.rstrip()}-{last.lstrip()}") if dash else None
