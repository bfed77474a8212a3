"""What a policy does to packets beside letting them pass: translating, marking, handing on.

Ends, conditions and what is spoken of are those of rules. Conditions that count are in none.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from policylang.model.types import Conditions, End, Log, Mark, Traffic
from policylang.packets.values import Range, Ranges
from policylang.source import Span


@dataclass(frozen=True, slots=True)
class SourceTranslation:
    """`masquerade` where `addresses` is None, else `snat`.

    `addresses` hold one range of each family at most. `families` are those that are
    translated: IPv4 alone unless the statement says IPv6. `ports` is the range that source
    ports are taken from. `what` is everything where the statement names nothing.
    """

    what: tuple[Traffic, ...]
    source: End
    destination: End
    addresses: Ranges | None
    families: Ranges
    ports: Range | None
    is_random: bool
    is_persistent: bool
    conditions: Conditions
    log: Log | None
    name: str | None
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class PortForward:
    """`dnat`.

    `at` is where the client means to go; None: any address of this host. `targets` hold
    addresses of either family, each family for itself. `ports` are the new ones: None leaves
    them, one single port is for all of `what`, a longer range has as many as `what`, one to one
    in order.
    """

    what: tuple[Traffic, ...]
    source: End
    at: End | None
    targets: Ranges
    ports: Range | None
    by_source: bool
    is_hairpin: bool
    conditions: Conditions
    log: Log | None
    name: str | None
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Redirect:
    """`redirect`: connections from one end to another end up at this host; `ports` as above."""

    what: tuple[Traffic, ...]
    source: End
    destination: End
    ports: Range
    conditions: Conditions
    log: Log | None
    name: str | None
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class TransparentProxying:
    """`tproxy`: TCP and UDP to other machines is delivered to a local transparent socket."""

    what: tuple[Traffic, ...]
    source: End
    destination: End
    port: int
    conditions: Conditions
    log: Log | None
    name: str | None
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Netmap:
    """`netmap`: each address of `outer` stands, in the zones of `on`, for one of `inner`.

    Both are whole prefixes of one family and length.
    """

    outer: Range
    inner: Range
    on: End
    conditions: Conditions
    name: str | None
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Clamp:
    """`clamp mss`: `size` None is what the path takes. It holds in both directions."""

    source: End
    destination: End
    size: int | None
    conditions: Conditions
    name: str | None
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Marking:
    """`mark`: either `mark` or `dscp` is set, on the packets that go the way it was opened.

    With `of_answers` on those that go back; `dscp` has none of that.
    """

    what: tuple[Traffic, ...]
    source: End
    destination: End
    mark: Mark | None
    dscp: int | None
    of_answers: bool
    conditions: Conditions
    name: str | None
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Untracked:
    """`untracked`: conntrack looks at neither the packets nor their answers."""

    what: tuple[Traffic, ...]
    source: End
    destination: End
    conditions: Conditions
    name: str | None
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Offloading:
    """`offload`: open connections may go past the rules, between `devices`."""

    source: End
    destination: End
    devices: tuple[str, ...]
    conditions: Conditions
    name: str | None
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Queueing:
    """`queue`: both directions of what passed are handed to programs that may drop them."""

    what: tuple[Traffic, ...]
    source: End
    destination: End
    queues: Range
    may_bypass: bool
    conditions: Conditions
    name: str | None
    span: Span = field(compare=False)


Treatment = (
    SourceTranslation
    | PortForward
    | Redirect
    | TransparentProxying
    | Netmap
    | Clamp
    | Marking
    | Untracked
    | Offloading
    | Queueing
)
