"""Follows sets of packets along their whole way through a machine, hook by hook.

It knows the order of hooks, what routing tells and how translations send packets elsewhere; where
rules come from it does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from policylang.analysis import rerouting
from policylang.analysis.diagram import Packets, Space
from policylang.analysis.machine import Base, CopyMark, Hook, Line, Machine, Obscure
from policylang.analysis.passing import ChainFollower, Met, Reading
from policylang.analysis.surroundings import CONNTRACK
from policylang.ir import actions as ir
from policylang.ir.actions import Translation
from policylang.ir.ruleset import AddressTest
from policylang.ir.stages import Path
from policylang.packets.cube import Cube
from policylang.packets.fields import AddressType, Field, State
from policylang.packets.values import Ranges

__all__ = ["Fate", "Follower", "Journey", "Met", "Reading"]

ALL_BITS = 0xFFFFFFFF
BEGINS = Cube.of({Field.CT_STATE: Ranges.of(State.NEW), Field.CT_DIRECTION: Ranges.of(0)})
NOT_TRANSLATED = Cube.of({Field.DNATED: Ranges.of(0)})
# Multicast listeners and neighbour discovery (noct_valid_new of nf_conntrack_proto_icmpv6.c).
LEFT_ALONE = Cube.of({Field.ICMPV6_TYPE: Ranges.of(*range(130, 137), 143)})
LOCAL = Ranges.of(AddressType.LOCAL)
DELIVERED = Ranges.of(
    AddressType.LOCAL, AddressType.BROADCAST, AddressType.ANYCAST, AddressType.MULTICAST
)


@dataclass(frozen=True, slots=True)
class Fate:
    """Packets that are decided alike, by one line, as they were when they entered (`entered`).

    `decided` are the same packets as that line saw them. What translated them on the way and what
    gives them another source when they leave are lines too; `hook` is the last one they came to.
    A line is None where no line decided: the end of the rules did, by its policy.
    """

    entered: Packets
    decided: Packets
    is_accepted: bool
    line: Line | None
    hook: Hook
    translated: Line | None = None
    sources: tuple[Met, ...] = ()


@dataclass(frozen=True, slots=True)
class Journey:
    """The whole way of packets that begin connections; `met` are all lines that they met."""

    fates: tuple[Fate, ...]
    met: tuple[Met, ...] = ()

    def accepted(self, space: Space) -> Packets:
        return space.union(fate.entered for fate in self.fates if fate.is_accepted)

    def denied(self, space: Space) -> Packets:
        return space.union(fate.entered for fate in self.fates if not fate.is_accepted)


_Piece = tuple[Packets, Line | None, Hook]  # that passed, what accepted it last, and where


@dataclass(slots=True)
class _Going:
    """What is found on a way; `first` are the packets as they entered."""

    first: Packets
    fates: list[Fate] = field(default_factory=list)
    met: list[Met] = field(default_factory=list)

    @property
    def journey(self) -> Journey:
        return Journey(tuple(self.fates), tuple(self.met))


class Follower(ChainFollower):
    """Follows packets through one machine; its arguments are those of `ChainFollower`."""

    def __init__(
        self,
        machine: Machine,
        space: Space,
        *,
        apart: bool = False,
        at: Callable[[Line], str] | None = None,
        address_tests: tuple[AddressTest, ...] = (),
    ) -> None:
        super().__init__(machine, space, apart=apart, at=at, address_tests=address_tests)
        acts = [line.act for chain in machine.chains.values() for line in chain]
        self._changes_mark = any(isinstance(act, _OF_MARK) for act in acts)
        self._changes_connection = any(isinstance(act, _OF_CONNECTION_MARK) for act in acts)
        self._changed = self._changed_fields()
        self._changes = self._changes_mark or self._changes_connection or bool(self._changed)

    def _changed_fields(self) -> tuple[Field, ...]:
        """The fields that some line changes and that packets entered with any value of."""
        found: set[Field] = set()
        for chain in self.machine.chains.values():
            for line in chain:
                if isinstance(line.act, ir.SetDscp):
                    found.add(Field.DSCP)
                elif isinstance(line.act, ir.AddToSet):
                    found |= self.held_by(line.act).keys()
                elif isinstance(line.act, ir.RememberQuestion):
                    found.add(Field.ANSWER)
                elif isinstance(line.act, ir.RememberAsker):
                    found.add(Field.TO_ASKER)
        return tuple(sorted(found))

    def arriving(self, packets: Packets, path: Path | None = None) -> Journey:
        """The way of first packets that come from other machines, NEW unless untracked.

        They have no mark of any kind when they come. `path` says whether they are for this host
        or passed on, where nothing sends them elsewhere; None lets DADDR_TYPE tell. OIF is the way
        that they leave by. What a translation sends elsewhere may leave by any way.
        """
        space = self.space
        first = packets & space.of(BEGINS) & space.of(NOT_TRANSLATED)
        first = space.with_connection_mark(space.with_mark(first, 0, ALL_BITS), 0, ALL_BITS)
        going = _Going(first)
        ways = self._before_routing(Hook.PREROUTING, self._marked(first), going)
        delivered, local = (space.of(Cube.of({Field.DADDR_TYPE: t})) for t in (DELIVERED, LOCAL))
        for live, by in ways:
            if by is None:
                here, onward = {
                    None: (live & delivered, live - delivered),
                    Path.INPUT: (live & delivered, space.nothing),
                }.get(path, (space.nothing, live - local))
            elif isinstance(by.line.act, ir.TransparentProxy):
                here, onward = live, space.nothing
            else:
                here, onward = live & local, live - local
            self._decided((Hook.INPUT,), here, by, going)
            self._decided((Hook.FORWARD, Hook.POSTROUTING), onward, by, going)
        return going.journey

    def leaving(self, packets: Packets) -> Journey:
        """The way of first packets of this host's own; their mark may be any."""
        space = self.space
        first = packets & space.of(BEGINS) & space.of(NOT_TRANSLATED)
        first = space.with_connection_mark(first, 0, ALL_BITS)
        going = _Going(first)
        translating = [base for base in self.machine.on(Hook.OUTPUT) if base.is_nat]
        last = max((base.priority for base in translating), default=CONNTRACK)
        ways = self._before_routing(Hook.OUTPUT, self._marked(first), going, last)
        for live, by in ways:
            self._decided((Hook.OUTPUT, Hook.POSTROUTING), live, by, going, above=last)
        return going.journey

    def passed_on(self, packets: Packets) -> Journey:
        """The way behind routing of what is passed on, translated already by somebody else."""
        going = _Going(packets)
        ways = (Hook.FORWARD, Hook.POSTROUTING)
        self._decided(ways, self._marked(packets), None, going)
        return going.journey

    def _before_routing(
        self, hook: Hook, packets: Packets, going: _Going, last: int | None = None
    ) -> list[tuple[Packets, Met | None]]:
        """The bases of a hook up to translation: the ways that are taken, by what chose them.

        Packets that are translated, or handed to a proxy, go a way of their own for each line.
        """
        space = self.space
        ways: list[tuple[Packets, Met | None]] = []
        is_known = False
        for base in self.machine.on(hook):
            if last is not None and base.priority > last:
                break
            if base.priority > CONNTRACK and not is_known:
                is_known, packets = True, self._known(packets)
            reading = self.read(base, packets)
            going.met += reading.met
            for line, denied in self._denied(base, reading):
                self._end(denied, going, None, Fate(denied, denied, False, line, hook))
            packets = reading.passed
            for met, _ in reading.decisions:
                if isinstance(met.line.act, Translation | ir.TransparentProxy):
                    moved = met.packets - rerouting.at_their_goal(self.space, met.line)
                    gone = rerouting.translated(self.space, met.line, moved)
                    ways.append((gone, Met(met.line, moved)))
                    packets -= moved
            untracked = space.union(m.packets for m in reading.met if _untracks(m.line))
            if untracked:
                became = space.assigned(untracked, {Field.CT_STATE: Ranges.of(State.UNTRACKED)})
                packets = (packets - untracked) | became
        ways.append((packets if is_known else self._known(packets), None))
        return ways

    def _known(self, packets: Packets) -> Packets:
        """Packets that conntrack has seen: what it leaves alone by itself is untracked then."""
        left_alone = packets & self.space.of(LEFT_ALONE)
        if not left_alone:
            return packets
        became = self.space.assigned(left_alone, {Field.CT_STATE: Ranges.of(State.UNTRACKED)})
        return (packets - left_alone) | became

    def _decided(
        self,
        hooks: tuple[Hook, ...],
        packets: Packets,
        by: Met | None,
        going: _Going,
        *,
        above: int | None = None,
    ) -> None:
        """What becomes of packets behind routing, each piece by the line that decided last.

        `by` is what sent them elsewhere than they were dialled, if anything did.
        """
        if not packets:
            return
        line = None if by is None else by.line
        pieces: list[_Piece] = [(packets, None, hooks[0])]
        sources: list[Met] = []
        for hook in hooks:
            for base in self.machine.on(hook):
                if above is not None and hook is Hook.OUTPUT and base.priority <= above:
                    continue
                live = self.space.union(piece for piece, _, _ in pieces)
                reading = self.read(base, live)
                going.met += reading.met
                for decider, denied in self._denied(base, reading):
                    fate = Fate(denied, denied, False, decider, hook, line)
                    self._end(denied, going, by, fate)
                sources += (
                    met
                    for met, accepts in reading.decisions
                    if accepts and isinstance(met.line.act, Translation)
                )
                pieces = self._after(pieces, reading, hook)
        for piece, decider, hook in pieces:
            leaving = tuple(
                Met(m.line, m.packets & piece) for m in sources if m.packets.meets(piece)
            )
            fate = Fate(piece, piece, True, decider, hook, line, leaving)
            self._end(piece, going, by, fate)

    def _after(self, pieces: list[_Piece], reading: Reading, hook: Hook) -> list[_Piece]:
        """The pieces that passed a base; a line that accepted has decided, others keep theirs."""
        accepting = [
            met
            for met, accepts in reading.decisions
            if accepts and isinstance(met.line.act, _DECIDES)
        ]
        after: list[_Piece] = [(met.packets, met.line, hook) for met in accepting]
        rest = reading.passed - self.space.union(met.packets for met in accepting)
        for piece, line, at in pieces:
            if kept := piece & rest:
                after.append((kept, line, at))
                rest -= kept
        if rest:  # packets that a line changed on their way
            after.append((rest, None, hook))
        return after

    def _denied(self, base: Base, reading: Reading) -> Iterator[tuple[Line | None, Packets]]:
        """Packets that a base denies, by the line that does; those that its policy does, last."""
        left = reading.denied
        for met, accepts in reading.decisions:
            if not accepts:
                yield met.line, met.packets
                left -= met.packets
        if base.drops and left:
            yield None, left

    def _end(self, packets: Packets, going: _Going, by: Met | None, fate: Fate) -> None:
        """Add a fate, with its packets as they were when they entered as well."""
        entered = packets
        if by is not None or self._changes or not going.first.covers(packets):
            entered = self.as_entered(packets, by) & going.first
        going.fates.append(replace(fate, entered=entered))

    def as_entered(self, packets: Packets, by: Met | None) -> Packets:
        """Packets on their way as they were when they entered; their state is not told."""
        space = self.space
        entered = space.free(self.as_dialled(packets, by), Field.CT_STATE)
        if self._changes_mark:
            entered = space.recalling(entered, None)
        if self._changes_connection:
            entered = space.free_of_marks(entered, of_packet=False)
        for changed in self._changed:
            entered = space.recalling(entered, changed)
        return entered

    def _marked(self, packets: Packets) -> Packets:
        """Packets with all that may change on their way kept as it is now."""
        if self._changes_mark:
            packets = self.space.remembering(packets, None)
        for changed in self._changed:
            packets = self.space.remembering(packets, changed)
        return packets

    def as_dialled(self, packets: Packets, by: Met | None) -> Packets:
        """Packets behind a translation, or a proxy's rule, as they were when they met it."""
        if by is None:
            return packets
        return rerouting.as_dialled(self.space, by.line, packets) & by.packets


_OF_MARK = (ir.SetMark, CopyMark, ir.TransparentProxy)
_OF_CONNECTION_MARK = (ir.SetConnectionMark, CopyMark)
_DECIDES = (ir.Accept, ir.Queue, Obscure)


def _untracks(line: Line) -> bool:
    return isinstance(line.act, ir.Untrack)
