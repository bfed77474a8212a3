"""The smallest nodes of the tree: names, numbers, addresses, texts; knows no statement.

Every node has the span of its own text. Text that stood in quotes has lost them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from policylang.source import Span


@dataclass(frozen=True, slots=True)
class Node:
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Name(Node):
    """A name that is declared or referred to; `quoted` where it stood in quotes."""

    text: str
    quoted: bool


@dataclass(frozen=True, slots=True)
class Text(Node):
    """A string in quotes."""

    text: str


@dataclass(frozen=True, slots=True)
class Number(Node):
    """A decimal or 0x number."""

    value: int


@dataclass(frozen=True, slots=True)
class NumberRange(Node):
    """`low-high`, as written: not checked for order."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Address(Node):
    """An address, a prefix or a range of addresses, as written: not checked."""

    text: str


@dataclass(frozen=True, slots=True)
class MacAddress(Node):
    """`00:11:22:33:44:55`."""

    text: str


@dataclass(frozen=True, slots=True)
class Duration(Node):
    """`90s`, `1h30m`, as written."""

    text: str


@dataclass(frozen=True, slots=True)
class TimeWindow(Node):
    """`08:00-18:00`, as written: not checked."""

    text: str


@dataclass(frozen=True, slots=True)
class Date(Node):
    """`2027-01-31`, as written: not checked."""

    text: str


@dataclass(frozen=True, slots=True)
class Masked(Node):
    """`0x10/0xff`: a value and a mask, as written."""

    text: str


@dataclass(frozen=True, slots=True)
class FileList(Node):
    """`file "PATH" [column N | column "NAME"]`."""

    path: str
    column: Number | Text | None


@dataclass(frozen=True, slots=True)
class Keyword(Node):
    """A word of the language that stands for itself: any, self, broadcast, multicast, all."""

    text: str
