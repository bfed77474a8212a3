"""The nodes of what a rule speaks of and of its place."""

from __future__ import annotations

from dataclasses import dataclass

from policylang.syntax.leaves import Address, Keyword, Name, Node, Number, NumberRange


@dataclass(frozen=True, slots=True)
class PortsWhat(Node):
    """`tcp` with the first element of its list; what continues it stands after it in `What`."""

    protocol: str
    element: Number | NumberRange | Name


@dataclass(frozen=True, slots=True)
class IcmpWhat(Node):
    """`icmp TYPE` with the first type of its list."""

    protocol: str
    type: Number | Name


@dataclass(frozen=True, slots=True)
class ProtocolWhat(Node):
    """`protocol X` with the first of its list."""

    protocol: Number | Name


# A flat list, as written between commas. A Number or NumberRange continues the list before it;
# a Name continues a port list where it is a set of ports, and starts a new WHAT otherwise.
# An `Except` stands where the word `except` stood (it is followed by the first exception).
@dataclass(frozen=True, slots=True)
class ExceptMark(Node):
    """The word `except` in a WHAT list; the elements after it are taken away."""


WhatElement = (
    PortsWhat | IcmpWhat | ProtocolWhat | Number | NumberRange | Name | Keyword | ExceptMark
)


@dataclass(frozen=True, slots=True)
class PublishedNode(Node):
    """`published [PORTS] [at ADDRESSES]`: what goes on behind `at` belongs to it."""

    ports: Number | NumberRange | None
    addresses: tuple[Address | Name, ...]


@dataclass(frozen=True, slots=True)
class EndItem(Node):
    """One element of an end; `zones` are those named by `in`."""

    # keywords: any, self, broadcast, multicast
    element: Name | Address | Keyword | PublishedNode
    zones: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class EndListNode(Node):
    elements: tuple[EndItem, ...]
    exceptions: tuple[EndItem, ...]


@dataclass(frozen=True, slots=True)
class Place(Node):
    """`inbound`, `outbound` or neither (direction None), with `from` and `to` where said."""

    direction: str | None
    source: EndListNode | None
    destination: EndListNode | None
