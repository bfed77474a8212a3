"""What happened in a conversation, in order; how it is told is not known here."""

from __future__ import annotations

from dataclasses import dataclass

from policylang.analysis.conversation.firewall import Carried
from policylang.analysis.conversation.wire import Wire
from policylang.analysis.conversation.world import Host
from policylang.analysis.machine import Hook
from policylang.analysis.walking import FILTERS, Doubt, Met, Passage, Verdict
from policylang.ir.stages import Stage


@dataclass(frozen=True, slots=True)
class PacketEvent:
    """A packet was sent; `number` counts packets from 1.

    `wire` is the packet as its sender sent it, `carried` what the firewall made of it. `link` is
    what the connection is for ("control connection"). The receiver is who was to have it where it
    was dropped on the way.
    """

    number: int
    sender: Host
    receiver: Host
    wire: Wire
    carried: Carried
    link: str

    @property
    def passed(self) -> bool:
        return self.carried.verdict is Verdict.PASSES

    @property
    def arrived(self) -> Wire | None:
        """The packet as it came to its receiver, None where it did not."""
        return self.carried.last if self.passed else None

    @property
    def deciding(self) -> Passage | None:
        """The way through the base chain that dropped the packet, else that let it pass.

        None where no filter has a word in it.
        """
        passages = self.carried.passages
        if not self.passed:
            return passages[-1]
        filters = [
            p for p in passages if p.base.hook in FILTERS and p.base.stage in (None, Stage.FILTER)
        ]
        decided = [p for p in filters if p.decider is not None]
        return next(iter((decided or filters)[-1:]), None)

    @property
    def decider(self) -> Met | None:
        """The line that decided, None where a chain's own policy did, or nothing."""
        return None if self.deciding is None else self.deciding.decider

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """Lines that may have decided otherwise."""
        return tuple(doubt for passage in self.carried.passages for doubt in passage.doubts)

    @property
    def hook(self) -> Hook | None:
        """The last hook that the packet came to."""
        return self.carried.hooks[-1] if self.carried.hooks else None


@dataclass(frozen=True, slots=True)
class Remark:
    """What is to be known between two packets."""

    text: str


Event = PacketEvent | Remark


@dataclass(frozen=True, slots=True)
class Story:
    """A conversation: `hosts` are those who took part, client first and the firewall among them.

    `died` is the packet with which it ended where it does not work.
    """

    hosts: tuple[Host, ...]
    events: tuple[Event, ...]
    died: PacketEvent | None

    @property
    def works(self) -> bool:
        return self.died is None

    @property
    def packets(self) -> tuple[PacketEvent, ...]:
        return tuple(event for event in self.events if isinstance(event, PacketEvent))

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """All lines that may have made it another story."""
        return tuple(doubt for packet in self.packets for doubt in packet.doubts)
