"""Rules as packets meet them, hook by hook; from whatever they were read, they are of this form.

It knows netfilter's hooks and what a line of rules asks and does. Which target's words said so,
and how sets of packets are held, it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from fractions import Fraction

from policylang.ir.actions import Action, End
from policylang.ir.origin import Origin
from policylang.ir.stages import Stage
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import Field
from policylang.packets.values import Ranges


class Hook(StrEnum):
    """Where a packet meets rules (enum nf_inet_hooks)."""

    PREROUTING = "prerouting"
    INPUT = "input"
    FORWARD = "forward"
    OUTPUT = "output"
    POSTROUTING = "postrouting"


# --- what a line asks beside the packet's fields ----------------------------------------------


@dataclass(frozen=True, slots=True)
class Per:
    """Each source or destination for itself, by prefixes of this length."""

    end: End
    prefix_len: int


@dataclass(frozen=True, slots=True)
class RateHolds:
    """The packet is within a rate, `per_s` packets a second after a first `burst`.

    `family` is 4 or 6 where packets of that family alone are counted, None where both count
    together.
    """

    per_s: Fraction
    burst: int
    per: Per | None
    family: int | None


@dataclass(frozen=True, slots=True)
class ConnectionsHold:
    """No more than `count` connections are open that met this, the packet's own included."""

    count: int
    per: Per | None
    family: int | None


@dataclass(frozen=True, slots=True)
class MarkIs:
    """The packet's mark has, under `mask`, this `value`; 32 bits."""

    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class ConnectionMarkIs:
    """The connection's mark has, under `mask`, this `value`; 32 bits."""

    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class OwnerIs:
    """The packet is of a local process whose user (or group, `kind`) has one of these numbers."""

    kind: str  # user, group
    ids: Ranges


@dataclass(frozen=True, slots=True)
class CgroupIs:
    """The packet is of a local process in this cgroup (version 2) or below; no outer slashes."""

    path: str


@dataclass(frozen=True, slots=True)
class WeekTimeIs:
    """It is one of these seconds of the week, which starts on Monday at 00:00 UTC."""

    week_s: Ranges
    is_local: bool = False  # the same by the local time of the machine


@dataclass(frozen=True, slots=True)
class NotAfter:
    """It is not later than the end of that day, in UTC or local time."""

    last_day: date
    is_local: bool


@dataclass(frozen=True, slots=True)
class InSet:
    """The values of these fields, put together, are in a set that packets or people fill.

    `name` is the set's own, without what tells one family's set from the other's.
    """

    name: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class MaskIs:
    """An IPv6 address has, under `mask`, this `value`; both 128 bits, no prefix.

    Sets of packets in ranges cannot say it, so it is asked as a question.
    """

    field: Field  # SADDR, DADDR
    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """A match that the reader does not understand: its text, and it may hold or not."""

    text: str


Question = (
    RateHolds
    | ConnectionsHold
    | MarkIs
    | ConnectionMarkIs
    | OwnerIs
    | CgroupIs
    | WeekTimeIs
    | NotAfter
    | InSet
    | MaskIs
    | Unknown
)


@dataclass(frozen=True, slots=True)
class Condition:
    """A question, and the answer that the line wants."""

    question: Question
    holds: bool = True


# --- what a line does -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Return:
    """The packet goes back to where it was sent from; at a base chain, its policy decides."""


@dataclass(frozen=True, slots=True)
class Goto:
    """As a jump, but the packet does not come back to the line behind."""

    chain: str


@dataclass(frozen=True, slots=True)
class AddTo:
    """The values of these fields are put into a set; the packet goes on."""

    name: str
    fields: tuple[Field, ...]
    timeout_s: int | None


@dataclass(frozen=True, slots=True)
class CopyMark:
    """The connection's mark gets the packet's bits under `mask`, or the other way; it goes on."""

    to_connection: bool
    mask: int


@dataclass(frozen=True, slots=True)
class Obscure:
    """Something that the reader does not understand; with `may_decide` it may end the packet.

    It may accept the packet, drop it or let it go on then; otherwise the packet goes on.
    """

    text: str
    may_decide: bool


Act = Action | Return | Goto | AddTo | CopyMark | Obscure


@dataclass(frozen=True, slots=True)
class Line:
    """Packets in any of `cubes` for which all `conditions` hold meet `act`; the others go on.

    `place` says where the line stands, for people and for `why` (`inet policylang input`,
    handle 12). A rule of a target that does several things is several lines with one place.
    """

    cubes: tuple[Cube, ...]
    act: Act
    conditions: tuple[Condition, ...] = ()
    place: str = field(default="", compare=False)
    origins: tuple[Origin, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Base:
    """A chain that packets of `families` enter on a hook, by rising `priority`.

    What no line decides passes, or with `drops` is dropped. `is_nat`: only the first packet of a
    connection is read. `reroutes`: a mark that changes here chooses the route anew. `stage` says
    which one of the model it is, where it is one.
    """

    hook: Hook
    priority: int
    chain: str
    families: tuple[int, ...] = (4, 6)
    drops: bool = False
    is_nat: bool = False
    reroutes: bool = False
    stage: Stage | None = None
    place: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Machine:
    """All base chains, those of one hook in the order in which packets meet them.

    `chains` are the lines by the name that jumps use, unique over all tables and families.
    """

    bases: tuple[Base, ...]
    chains: Mapping[str, tuple[Line, ...]]

    def on(self, hook: Hook) -> tuple[Base, ...]:
        """The base chains of a hook, in order."""
        return tuple(base for base in self.bases if base.hook is hook)


ALL = (EVERYTHING,)
