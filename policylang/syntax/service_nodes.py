"""The nodes of services."""

from __future__ import annotations

from dataclasses import dataclass

from policylang.syntax.leaves import Name, Node, Number, NumberRange, Text


@dataclass(frozen=True, slots=True)
class PortsItem(Node):
    """`tcp 80, 443, highports except 1000` in a service: names are sets of ports."""

    protocol: str  # tcp, udp, sctp, dccp
    elements: tuple[Number | NumberRange | Name, ...]
    exceptions: tuple[Number | NumberRange | Name, ...]


@dataclass(frozen=True, slots=True)
class IcmpItem(Node):
    """`icmp TYPE, …` or `icmpv6 TYPE, …`."""

    protocol: str  # icmp, icmpv6
    types: tuple[Number | Name, ...]


@dataclass(frozen=True, slots=True)
class ProtocolItem(Node):
    """`protocol NAME-or-NUMBER, …`."""

    protocols: tuple[Number | Name, ...]


@dataclass(frozen=True, slots=True)
class HelperItem(Node):
    name: Name


@dataclass(frozen=True, slots=True)
class DataItem(Node):
    """`data 40000-40100`."""

    elements: tuple[Number | NumberRange | Name, ...]


@dataclass(frozen=True, slots=True)
class WarnItem(Node):
    """`warn "TEXT"`: what whoever uses the service should know."""

    text: Text


@dataclass(frozen=True, slots=True)
class AnswersItem(Node):
    """`answers from any`: answers come from elsewhere than where the question went."""


ServiceItem = PortsItem | IcmpItem | ProtocolItem | HelperItem | DataItem | AnswersItem | WarnItem


@dataclass(frozen=True, slots=True)
class ServiceDecl(Node):
    """`service NAME { items }`."""

    name: Name
    items: tuple[ServiceItem, ...]


@dataclass(frozen=True, slots=True)
class ServiceGroup(Node):
    """`service NAME = other, other`."""

    name: Name
    members: tuple[Name, ...]
