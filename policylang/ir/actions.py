"""What a rule does with its packets, and the guards that are no function of a packet's fields."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from policylang.packets.values import Range, Ranges


class Answer(StrEnum):
    """What a rejected packet is answered with."""

    TCP_RESET = "tcp-reset"
    PORT_UNREACHABLE = "port-unreachable"
    HOST_UNREACHABLE = "host-unreachable"
    NET_UNREACHABLE = "net-unreachable"
    ADMIN_PROHIBITED = "admin-prohibited"


class End(StrEnum):
    """One of the two addresses of a packet."""

    SOURCE = "source"
    DESTINATION = "destination"


@dataclass(frozen=True, slots=True)
class Accept:
    """The packet passes; nothing more is read on this path and stage."""


@dataclass(frozen=True, slots=True)
class Drop:
    """The packet is dropped without a word."""


@dataclass(frozen=True, slots=True)
class Reject:
    """The packet is dropped and answered."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Jump:
    """The packet is read against another chain, and comes back if nothing there decides."""

    chain: str


@dataclass(frozen=True, slots=True)
class Log:
    """The packet is logged and goes on. `group` None means the kernel's log."""

    prefix: str
    level: str | None = None
    group: int | None = None


@dataclass(frozen=True, slots=True)
class AddToSet:
    """The address is put into a dynamic set, or stays there anew for the whole time.

    The packet goes on. `timeout_s` None means the set's own time-out, if it has one.
    """

    set: str
    end: End
    timeout_s: int | None


@dataclass(frozen=True, slots=True)
class RememberQuestion:
    """A question that leaves is remembered for `timeout_s`; the packet goes on.

    What is kept are three things together: an address, a port, an interface. The address is the
    question's source, and a second time its destination (a group); the port is its source port;
    the interface is the one by which it leaves. A packet has `Field.ANSWER` 1 if its
    destination address, its destination port and the interface by which it came are kept so.
    Only UDP is remembered.
    """

    timeout_s: int


@dataclass(frozen=True, slots=True)
class RememberAsker:
    """A question that arrives is remembered by its source port for `timeout_s`; it goes on.

    A packet has `Field.TO_ASKER` 1 if its destination port is kept so. Only UDP is remembered.
    """

    timeout_s: int


@dataclass(frozen=True, slots=True)
class Native:
    """A line of a target's own language, which other targets leave out.

    `family` is 4 or 6 where the line is for one alone.
    """

    target: str
    text: str
    family: int | None


@dataclass(frozen=True, slots=True)
class AssignHelper:
    """The connection gets a conntrack helper, and the stage ends for the packet.

    `helper` is the kernel's name; `protocol` the transport protocol it is for.
    """

    helper: str
    protocol: int


@dataclass(frozen=True, slots=True)
class Masquerade:
    """The source becomes the address of the interface by which the connection leaves.

    `ports` None lets the kernel keep the source port or find another; else its range, which
    holds for what has ports. With `is_random` ports are drawn at random.
    """

    ports: Range | None = None
    is_random: bool = False


@dataclass(frozen=True, slots=True)
class SourceNat:
    """The source becomes one of `addresses`, a range of one family; ports as for Masquerade.

    With `is_persistent` the same client has the same address, whatever it connects to.
    """

    addresses: Range
    ports: Range | None = None
    is_random: bool = False
    is_persistent: bool = False


@dataclass(frozen=True, slots=True)
class DestinationNat:
    """The destination becomes one of `targets`, all of one family, and its port `port`.

    `port` None leaves the port as it is; else the rule's packets all have ports. Connections
    take the targets in turn, or with `by_source` the one that belongs to their source's address.
    """

    targets: Ranges
    port: int | None = None
    by_source: bool = False


@dataclass(frozen=True, slots=True)
class RedirectToSelf:
    """The connection goes to this host instead, and to `port`, of what has ports."""

    port: int


@dataclass(frozen=True, slots=True)
class MapPrefix:
    """The address at `end` keeps its low bits and gets the high ones of `prefix`.

    `prefix` is a whole prefix, as a range of one family, as long as the one that the rule's
    packets have there.
    """

    end: End
    prefix: Range


@dataclass(frozen=True, slots=True)
class SetMark:
    """The packet's mark gets `value` under `mask`; its other bits stay. The packet goes on."""

    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class SetConnectionMark:
    """The connection's mark gets `value` under `mask`; its other bits stay. It goes on."""

    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class SetDscp:
    """The packet's code point becomes `code` (0-63); the packet goes on."""

    code: int


@dataclass(frozen=True, slots=True)
class ClampMss:
    """The segment size that a SYN offers becomes at most `size`, and the packet goes on.

    `size` None is what the path takes: the smaller of the routes' MTUs less the headers.
    """

    size: int | None


@dataclass(frozen=True, slots=True)
class Untrack:
    """Conntrack does not look at the packet, and the stage ends for it."""


@dataclass(frozen=True, slots=True)
class TransparentProxy:
    """The packet is for a local transparent socket on `port`, and the stage ends for it.

    `protocol` is TCP or UDP, as all packets of the rule. The packet's mark gets `value` under
    `mask`, by which it is routed to this host.
    """

    port: int
    protocol: int
    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class Queue:
    """A program decides that reads one of the queues `low` to `high`; the stage ends.

    With `may_bypass` the packet passes where no program reads; else it is dropped.
    """

    low: int
    high: int
    may_bypass: bool


@dataclass(frozen=True, slots=True)
class Offload:
    """The connection may go past all this from now on, between `devices`; the packet goes on."""

    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Leave:
    """The stage ends for the packet, with nothing done to it."""


Action = (
    Accept
    | Drop
    | Reject
    | Jump
    | Log
    | AddToSet
    | RememberQuestion
    | RememberAsker
    | Native
    | AssignHelper
    | Masquerade
    | SourceNat
    | DestinationNat
    | RedirectToSelf
    | MapPrefix
    | SetMark
    | SetConnectionMark
    | SetDscp
    | ClampMss
    | Untrack
    | TransparentProxy
    | Queue
    | Offload
    | Leave
)

Translation = Masquerade | SourceNat | DestinationNat | RedirectToSelf | MapPrefix

TERMINAL = (
    *(Accept, Drop, Reject, AssignHelper, Masquerade, SourceNat, DestinationNat, RedirectToSelf),
    *(MapPrefix, Untrack, TransparentProxy, Queue, Leave),
)


def is_terminal(action: Action) -> bool:
    """Whether no later rule of the stage is read for a packet that meets this action."""
    return isinstance(action, TERMINAL)


@dataclass(frozen=True, slots=True)
class Per:
    """Each source or destination for itself, by prefixes of these lengths."""

    end: End
    prefix_len_v4: int = 32
    prefix_len_v6: int = 128


UNIT_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}  # of rates


@dataclass(frozen=True, slots=True)
class RateGuard:
    """At most `count` a `unit` meet the action, after a first `burst`; with `over`, the others do.

    IPv4 and IPv6 count apart.
    """

    count: int
    unit: str  # second, minute, hour, day
    burst: int
    over: bool = False
    per: Per | None = None


@dataclass(frozen=True, slots=True)
class ConnectionsGuard:
    """While no more than `count` connections that met this guard are open, this one included.

    With `over`, while more are. IPv4 and IPv6 count apart.
    """

    count: int
    over: bool = False
    per: Per | None = None


@dataclass(frozen=True, slots=True)
class OwnerGuard:
    """Packets of a local process whose user (or group) is one of these.

    `names` are looked up by the machine that loads the rules.
    """

    kind: str  # user, group
    ids: Ranges
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CgroupGuard:
    """Packets of a local process in this cgroup (version 2) or below; no slash at either end."""

    path: str


@dataclass(frozen=True, slots=True)
class MarkGuard:
    """Packets whose mark has, under `mask`, this `value`."""

    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class ConnectionMarkGuard:
    """Packets whose connection's mark has, under `mask`, this `value`."""

    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class TimeGuard:
    """At these seconds of the week, which starts on Monday at 00:00.

    In UTC, or in the local time of the machine that loads the rules.
    """

    week_s: Ranges
    is_local: bool


@dataclass(frozen=True, slots=True)
class UntilGuard:
    """Until the end of that day, in UTC or local time."""

    last_day: date
    is_local: bool


Guard = (
    RateGuard
    | ConnectionsGuard
    | OwnerGuard
    | CgroupGuard
    | MarkGuard
    | ConnectionMarkGuard
    | TimeGuard
    | UntilGuard
)
