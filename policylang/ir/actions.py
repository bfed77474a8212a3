"""What a rule does with its packets, and the guards that are no function of a packet's fields."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from policylang.packets.values import Ranges


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
    | Leave
)


def is_terminal(action: Action) -> bool:
    """Whether no later rule of the stage is read for a packet that meets this action."""
    return isinstance(action, (Accept, Drop, Reject, AssignHelper, Leave))


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


Guard = RateGuard | ConnectionsGuard | OwnerGuard | CgroupGuard | MarkGuard | TimeGuard | UntilGuard
