"""The policy as written: one frozen class for each grammar rule; nothing is resolved here.

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
class FileList(Node):
    """`file "PATH"`."""

    path: str


@dataclass(frozen=True, slots=True)
class Keyword(Node):
    """A word of the language that stands for itself: any, self, broadcast, multicast, all."""

    text: str


# --- declarations ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Include(Node):
    path: Text


@dataclass(frozen=True, slots=True)
class InterfaceItem(Node):
    """`interface eth0, "wlan*"`."""

    names: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class NetworkItem(Node):
    """`network 192.0.2.0/24, some-set`."""

    elements: tuple[Address | Name, ...]


@dataclass(frozen=True, slots=True)
class ZoneDecl(Node):
    name: Name
    items: tuple[InterfaceItem | NetworkItem, ...]


SetElement = Address | Number | NumberRange | FileList | Name


@dataclass(frozen=True, slots=True)
class SetDecl(Node):
    """`set NAME = elements [except exceptions]`; `set NAME =` with nothing behind is empty."""

    name: Name
    elements: tuple[SetElement, ...]
    exceptions: tuple[SetElement, ...]


# --- services and what a rule speaks of -----------------------------------------------------


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


ServiceItem = PortsItem | IcmpItem | ProtocolItem | HelperItem | DataItem | WarnItem


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


# --- rules ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EndItem(Node):
    """One element of an end; `zones` are those named by `in`."""

    element: Name | Address | Keyword  # keywords: any, self, broadcast, multicast
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


@dataclass(frozen=True, slots=True)
class RateNode(Node):
    """`10/second burst 5`; burst None where not said."""

    count: int
    unit: str
    burst: int | None


@dataclass(frozen=True, slots=True)
class LogOption(Node):
    """`log ["PREFIX"] [level info] [group 5] [limit RATE | limit none]`."""

    prefix: Text | None
    level: Name | None
    group: Number | None
    limit: RateNode | Keyword | None  # Keyword: none


@dataclass(frozen=True, slots=True)
class NameOption(Node):
    text: Text


@dataclass(frozen=True, slots=True)
class RuleNode(Node):
    """`allow|deny|reject WHAT [PLACE] [with ANSWERS] [OPTIONS]`; `place` None where unsaid."""

    verb: str
    what: tuple[WhatElement, ...]
    place: Place | None
    answers: tuple[Name, ...]
    options: tuple[LogOption | NameOption, ...]


@dataclass(frozen=True, slots=True)
class UseNode(Node):
    groups: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class TrafficBlock(Node):
    """`traffic PLACE { … }`."""

    place: Place
    statements: tuple[RuleNode | UseNode | TrafficBlock, ...]


@dataclass(frozen=True, slots=True)
class RulesDecl(Node):
    """`rules NAME { … }`."""

    name: Name
    statements: tuple[RuleNode | UseNode | TrafficBlock, ...]


@dataclass(frozen=True, slots=True)
class DefaultNode(Node):
    """`default allow|deny|reject inbound|outbound|forward [with ANSWERS] [OPTIONS]`."""

    verb: str
    direction: str
    answers: tuple[Name, ...]
    options: tuple[LogOption | NameOption, ...]


@dataclass(frozen=True, slots=True)
class EssentialsSetting(Node):
    value: str  # on, off


@dataclass(frozen=True, slots=True)
class InvalidSetting(Node):
    value: str  # drop, accept
    log: LogOption | None


@dataclass(frozen=True, slots=True)
class SettingsNode(Node):
    items: tuple[EssentialsSetting | InvalidSetting, ...]


# --- the catalogue's own --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AssignItem(Node):
    """`assign "ftp" tcp`."""

    kernel_name: Text
    protocol: str


@dataclass(frozen=True, slots=True)
class MatchItem(Node):
    """`match "RAS", "Q.931"`."""

    kernel_names: tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class ExpectItem(Node):
    """`expect tcp, udp from client, server`."""

    protocols: tuple[Name, ...]
    openers: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class FamilyItem(Node):
    """`family ipv4, ipv6`."""

    families: tuple[Keyword, ...]


@dataclass(frozen=True, slots=True)
class ModulesItem(Node):
    """`modules "nf_conntrack_ftp"`."""

    names: tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class NatItem(Node):
    """`nat "nf_nat_ftp"`."""

    names: tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class FaultsItem(Node):
    """`faults`: the helper has a record of kernel vulnerabilities."""


HelperDeclItem = (
    AssignItem | MatchItem | ExpectItem | FamilyItem | ModulesItem | NatItem | FaultsItem
)


@dataclass(frozen=True, slots=True)
class HelperDecl(Node):
    """`helper NAME { … }`, in the catalogue alone."""

    name: Name
    items: tuple[HelperDeclItem, ...]


Statement = (
    Include
    | ZoneDecl
    | SetDecl
    | ServiceDecl
    | ServiceGroup
    | RuleNode
    | UseNode
    | TrafficBlock
    | RulesDecl
    | DefaultNode
    | SettingsNode
    | HelperDecl
)


@dataclass(frozen=True, slots=True)
class Document:
    """One file, as parsed: the statements that could be read.

    `broken` are the names that the others declare, so that nobody reports them as unknown.
    """

    statements: tuple[Statement, ...]
    broken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ListFile:
    """What a list file holds, as ranges in the numbering of `packets.values`.

    `kind` is `address`, `port`, or None for a file without elements.
    """

    kind: str | None
    pairs: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A policy and all that it includes or names, read and parsed.

    `statements` are in reading order, without `include`. `lists` is keyed by the name of the
    file that says `file "PATH"` and by PATH; one that could not be read is missing (and was
    reported). `services` are those of the catalogue that the policy names, directly or by a
    group, and does not declare; `known_services` are the names of all there are. `helpers`
    are the catalogue's, empty where nothing needs one. `broken` are the names of statements
    that could not be read, in all files.
    """

    statements: tuple[Statement, ...]
    lists: dict[tuple[str, str], ListFile]
    services: dict[str, ServiceDecl | ServiceGroup]
    known_services: tuple[str, ...]
    helpers: dict[str, HelperDecl]
    broken: tuple[str, ...] = ()
