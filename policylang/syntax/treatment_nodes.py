"""The nodes of translations and of what else is done to packets."""

from __future__ import annotations

from dataclasses import dataclass

from policylang.syntax.clauses import Condition, Option
from policylang.syntax.leaves import Address, Keyword, Masked, Name, Node, Number, NumberRange
from policylang.syntax.rule_nodes import EndListNode, Place, WhatElement

PortNumbers = Number | NumberRange


@dataclass(frozen=True, slots=True)
class MasqueradeNode(Node):
    """`masquerade [WHAT] from X to Y [port LOW-HIGH] [random]`."""

    what: tuple[WhatElement, ...]
    place: Place
    ports: PortNumbers | None
    is_random: str | None
    conditions: tuple[Condition, ...]
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class SnatNode(Node):
    """`snat [WHAT] from X to Y as ADDRESSES [port LOW-HIGH] [random] [persistent]`."""

    what: tuple[WhatElement, ...]
    place: Place
    addresses: tuple[Address | Name, ...]
    ports: PortNumbers | None
    is_random: str | None
    is_persistent: str | None
    conditions: tuple[Condition, ...]
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class DnatNode(Node):
    """`dnat WHAT from X [at A] to TARGETS [by source] [port P] [hairpin]`."""

    what: tuple[WhatElement, ...]
    source: EndListNode
    at: EndListNode | None
    targets: tuple[Address | Name, ...]
    by_source: str | None
    ports: PortNumbers | None
    is_hairpin: str | None
    conditions: tuple[Condition, ...]
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class RedirectNode(Node):
    """`redirect WHAT PLACE port P`."""

    what: tuple[WhatElement, ...]
    place: Place
    ports: PortNumbers
    conditions: tuple[Condition, ...]
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class TproxyNode(Node):
    """`tproxy WHAT from X [to Y] port N`."""

    what: tuple[WhatElement, ...]
    source: EndListNode
    destination: EndListNode | None
    port: Number
    conditions: tuple[Condition, ...]
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class NetmapNode(Node):
    """`netmap PREFIX to PREFIX on ZONES`."""

    outer: Address
    inner: Address
    zones: tuple[Name, ...]
    conditions: tuple[Condition, ...]
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class ClampNode(Node):
    """`clamp mss from X to Y [as SIZE]`."""

    place: Place
    size: Number | None
    conditions: tuple[Condition, ...]
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class MarkNode(Node):
    """`mark WHAT PLACE as MARK [answers]` or `mark WHAT PLACE as dscp CODE`."""

    what: tuple[WhatElement, ...]
    place: Place
    mark: Masked | Number | None
    code: Name | Number | None
    of_answers: Keyword | None  # answers
    conditions: tuple[Condition, ...]
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class UntrackedNode(Node):
    """`untracked WHAT PLACE`."""

    what: tuple[WhatElement, ...]
    place: Place
    conditions: tuple[Condition, ...]
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class OffloadNode(Node):
    """`offload from X to Y`."""

    place: Place
    conditions: tuple[Condition, ...]
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class QueueNode(Node):
    """`queue WHAT PLACE to N [bypass]`."""

    what: tuple[WhatElement, ...]
    place: Place
    queues: PortNumbers
    may_bypass: str | None
    conditions: tuple[Condition, ...]
    options: tuple[Option, ...]


TreatmentNode = (
    MasqueradeNode
    | SnatNode
    | DnatNode
    | RedirectNode
    | TproxyNode
    | NetmapNode
    | ClampNode
    | MarkNode
    | UntrackedNode
    | OffloadNode
    | QueueNode
)
