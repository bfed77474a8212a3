"""What fares otherwise between two sets of rules, as values; how it is found is no matter here."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from policylang.analysis.diagram import Packets
from policylang.analysis.machine import Condition
from policylang.analysis.regions import Region
from policylang.analysis.sides import Decider, Verdict, Way
from policylang.ir.actions import Answer, Translation, TransparentProxy
from policylang.packets.fields import Field


class Kind(StrEnum):
    """How packets fare otherwise than before; what opens comes first."""

    OPENED = "opened"  # no packet passed, some or all do now
    LOOSENED = "loosened"  # they passed under conditions alone, or under narrower ones
    TIGHTENED = "tightened"
    RECONDITIONED = "reconditioned"  # under other conditions, neither wider nor narrower
    CLOSED = "closed"
    ANSWERED = "answered"  # denied as before, and answered otherwise
    TRANSLATED = "translated"
    HELPED = "helped"  # given another conntrack helper, or none
    MARKED = "marked"
    LOGGED = "logged"
    COLLECTED = "collected"  # put into a set
    TREATED = "treated"  # segment sizes, offloading, being kept from conntrack


OPENING = frozenset({Kind.OPENED, Kind.LOOSENED})


@dataclass(frozen=True, slots=True)
class Fate:
    """What one side does with the packets of a difference, and who says so.

    `verdict` is None where they are both accepted and denied. `always` tells that no condition is
    asked. `acts` are what else is done to them, where that is what differs.
    """

    verdict: Verdict | None = None
    answer: Answer | None = None
    always: bool = True
    sent: Translation | TransparentProxy | None = None
    source: Translation | None = None
    acts: tuple[Hashable, ...] = ()
    conditions: tuple[Condition, ...] = ()
    deciders: tuple[Decider, ...] = ()


@dataclass(frozen=True, slots=True)
class Shown:
    """What is told of a change: its packets in few ranges, one of them, how they fared and do.

    With `is_unsure` it may be so, and depends on what nobody here understands. `invalid_too`: of
    first packets, that those which conntrack calls INVALID fare otherwise as well.
    """

    region: Region
    example: Mapping[Field, int]
    before: Fate
    after: Fate
    is_unsure: bool
    invalid_too: bool = False


class Change:
    """Packets that fare otherwise, as they come; `shown` is worked out when it is asked for.

    `is_first`: they begin connections; else they are in other states. `is_plain`: they are as
    honest senders send them, and what goes without saying of such packets is not told of them;
    others are forged or broken. What is dropped before it is routed, as ever, may be in the
    region that is told.
    """

    def __init__(
        self,
        kind: Kind,
        way: Way,
        packets: Packets,
        show: Callable[[], Shown],
        *,
        is_first: bool,
        is_plain: bool,
    ) -> None:
        self.kind, self.way, self.packets = kind, way, packets
        self.is_first, self.is_plain = is_first, is_plain
        self._show = show

    @cached_property
    def shown(self) -> Shown:
        return self._show()


@dataclass(frozen=True, slots=True)
class Differences:
    """All that differs, what opens and what is broadest first.

    `exact` holds for each way, of first packets (True) and of all by state, which pass that did not
    and which do not that did: all of them, with the answers for which that is so.
    """

    changes: tuple[Change, ...]
    exact: Mapping[tuple[Way, bool], tuple[Packets, Packets]] = field(default_factory=dict)

    def of(self, *kinds: Kind) -> tuple[Change, ...]:
        """Those of some kinds."""
        return tuple(change for change in self.changes if change.kind in kinds)

    @property
    def opens(self) -> bool:
        """Whether anything passes that did not, or under wider conditions, or to somewhere else."""
        return bool(self.of(*OPENING, Kind.RECONDITIONED)) or any(
            change.shown.before.sent != change.shown.after.sent
            for change in self.of(Kind.TRANSLATED)
        )
