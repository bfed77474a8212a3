"""Follows sets of packets through rules, exactly: which meet which line, which pass, which do not.

It knows what acts do to packets and the order of hooks; where rules come from it does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from policylang.analysis.diagram import Packets, Space
from policylang.analysis.machine import (
    AddTo,
    Base,
    Condition,
    Goto,
    Hook,
    Line,
    Machine,
    Obscure,
    Return,
    Unknown,
)
from policylang.ir import actions as ir
from policylang.ir.actions import Translation, is_terminal
from policylang.ir.ruleset import AddressTest, DynamicSet
from policylang.ir.stages import Path
from policylang.packets.cube import Cube
from policylang.packets.fields import (
    DADDR_TESTS,
    SADDR_TESTS,
    UNIVERSE,
    AddressType,
    Field,
    State,
)
from policylang.packets.values import Ranges

CONNTRACK = -200  # NF_IP_PRI_CONNTRACK: bases below it see packets before they have a state
BEGINS = Cube.of({Field.CT_STATE: Ranges.of(State.NEW), Field.CT_DIRECTION: Ranges.of(0)})
NOT_TRANSLATED = Cube.of({Field.DNATED: Ranges.of(0)})
LOCAL = Ranges.of(AddressType.LOCAL)
DELIVERED = Ranges.of(
    AddressType.LOCAL, AddressType.BROADCAST, AddressType.ANYCAST, AddressType.MULTICAST
)


@dataclass(frozen=True, slots=True)
class Met:
    """Packets that met a line, as they were then."""

    line: Line
    packets: Packets


@dataclass(frozen=True, slots=True)
class Reading:
    """What became of packets: those that passed, as the lines left them, and those denied.

    `met` are the lines that some packet met, in the order in which packets come to them.
    """

    passed: Packets
    denied: Packets
    met: tuple[Met, ...]


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
    """The whole way of packets that begin connections."""

    fates: tuple[Fate, ...]

    def accepted(self, space: Space) -> Packets:
        return space.union(fate.entered for fate in self.fates if fate.is_accepted)

    def denied(self, space: Space) -> Packets:
        return space.union(fate.entered for fate in self.fates if not fate.is_accepted)


@dataclass(slots=True)
class _Pass:
    """One way through a base chain."""

    accepted: list[Packets] = field(default_factory=list)
    denied: list[Packets] = field(default_factory=list)
    met: list[Met] = field(default_factory=list)
    decisions: list[tuple[Met, bool]] = field(default_factory=list)
    has_helper: Packets | None = None  # packets whose connection was given one already


class Follower:
    """Follows packets through one machine.

    `at` says at which place a line asks its questions: those of the same value at two places are
    two questions. With `apart` that is each line's own, as rates and counts are in the kernel;
    without either those of one value are one, by which two machines can be compared.
    `address_tests` are what the fields of address tests ask, where the machine is a policy's.
    """

    def __init__(
        self,
        machine: Machine,
        space: Space,
        *,
        apart: bool = False,
        at: Callable[[Line], str] | None = None,
        address_tests: tuple[AddressTest, ...] = (),
    ) -> None:
        self.machine = machine
        self.space = space
        self.at = at or (_own_place if apart else _no_place)
        self.address_tests = address_tests
        self._matches: dict[int, Packets] = {}  # by the identity of a line

    # --- one base chain -----------------------------------------------------------------------

    def read(self, base: Base, packets: Packets) -> Reading:
        """What becomes of packets in a base chain; those of other families pass."""
        reading, _ = self._read(base, packets)
        return reading

    def _read(self, base: Base, packets: Packets) -> tuple[Reading, list[tuple[Met, bool]]]:
        concerned = self.space.of(Cube.of({Field.FAMILY: Ranges.of(*base.families)}))
        if base.is_nat:  # nf_nat_inet_fn: what conntrack does not see passes
            concerned -= self.space.of(Cube.of({Field.CT_STATE: Ranges.of(State.UNTRACKED)}))
        going = _Pass()
        live, back = self._chain(base.chain, packets & concerned, going)
        left = live | back
        if base.drops:
            going.denied.append(left)
        else:
            going.accepted.append(left)
        passed = self.space.union((*going.accepted, packets - concerned))
        denied = self.space.union(going.denied)
        return Reading(passed, denied, tuple(going.met)), going.decisions

    def hook(self, hook: Hook, packets: Packets) -> Reading:
        """What becomes of packets in all base chains of a hook, one after the other."""
        met: list[Met] = []
        denied = self.space.nothing
        for base in self.machine.on(hook):
            reading = self.read(base, packets)
            met += reading.met
            denied |= reading.denied
            packets = reading.passed
        return Reading(packets, denied, tuple(met))

    def match(self, line: Line) -> Packets:
        """The packets that meet a line if they come to it."""
        found = self._matches.get(id(line))
        if found is None:
            found = self.space.of_all(line.cubes)
            for condition in line.conditions:
                found &= self.space.answered(condition, self.at(line))
            self._matches[id(line)] = found
        return found

    def _chain(self, name: str, live: Packets, going: _Pass) -> tuple[Packets, Packets]:
        """What comes to the end of a chain, and what went back to the caller before."""
        returned = self.space.nothing
        for line in self.machine.chains[name]:
            if not live:
                break
            met = live & self.match(line)
            if not met:
                continue
            if isinstance(line.act, ir.AssignHelper):
                # The first helper of a connection stays (nf_conntrack_helper, xt_CT).
                already = going.has_helper or self.space.nothing
                going.has_helper = already | met
                met -= already
                if met:
                    going.met.append(Met(line, met))
                continue
            going.met.append(Met(line, met))
            live, back = self._meet(line, met, live, going)
            returned |= back
        return live, returned

    def _meet(
        self, line: Line, met: Packets, live: Packets, going: _Pass
    ) -> tuple[Packets, Packets]:
        """What goes on of `live` behind a line that `met` of them meet, and what goes back."""
        nothing = self.space.nothing
        match line.act:
            case ir.Drop() | ir.Reject():
                self._decide(line, met, going, accepts=False)
                return live - met, nothing
            case ir.Queue():
                lets_pass = self._asked(f"queue {line.act.low}-{line.act.high} lets it pass")
                self._decide(line, met & lets_pass, going, accepts=True)
                self._decide(line, met - lets_pass, going, accepts=False)
                return live - met, nothing
            case ir.Jump(chain):
                left, back = self._chain(chain, met, going)
                return (live - met) | left | back, nothing
            case Goto(chain):
                left, back = self._chain(chain, met, going)
                return live - met, left | back
            case Return():
                return live - met, met
            case Obscure(text, may_decide):
                if not may_decide:
                    return live, nothing
                accepts = met & self._asked(f"{text}: accepts it")
                drops = (met - accepts) & self._asked(f"{text}: drops it")
                self._decide(line, accepts, going, accepts=True)
                self._decide(line, drops, going, accepts=False)
                return live - accepts - drops, nothing
            case ir.Untrack() | AddTo():
                return live, nothing
            case _ if is_terminal(line.act):
                self._decide(line, met, going, accepts=True)
                return live - met, nothing
            case _:
                return (live - met) | self.changed(line, met), nothing

    def _decide(self, line: Line, packets: Packets, going: _Pass, *, accepts: bool) -> None:
        if packets:
            (going.accepted if accepts else going.denied).append(packets)
            going.decisions.append((Met(line, packets), accepts))

    def _asked(self, text: str) -> Packets:
        return self.space.answered(Condition(Unknown(text)))

    def changed(self, line: Line, packets: Packets) -> Packets:
        """Packets as a line that does not end their way leaves them."""
        match line.act:
            case ir.SetMark(value, mask):
                return self.space.with_mark(packets, value, mask)
            case ir.SetConnectionMark(value, mask):
                return self.space.with_connection_mark(packets, value, mask)
            case ir.SetDscp(code):
                return self.space.assigned(packets, {Field.DSCP: Ranges.of(code)})
            case ir.AddToSet(name, end):
                tests = SADDR_TESTS if end is ir.End.SOURCE else DADDR_TESTS
                held = {
                    test: Ranges.of(1)
                    for test, asked in zip(tests, self.address_tests, strict=False)
                    if isinstance(asked, DynamicSet) and asked.name == name
                }
                return self.space.assigned(packets, held) if held else packets
            case ir.RememberQuestion():
                return self.space.free(packets, Field.ANSWER)
            case ir.RememberAsker():
                return self.space.free(packets, Field.TO_ASKER)
            case AddTo():
                return packets
            case _:
                return packets

    # --- whole ways ---------------------------------------------------------------------------

    def arriving(self, packets: Packets, path: Path | None = None) -> Journey:
        """The way of first packets that come from other machines, NEW unless untracked.

        They have no mark of any kind when they come. `path` says whether they are for this host
        or passed on, where nothing sends them elsewhere; None lets DADDR_TYPE tell. OIF is the way
        that they leave by. What a translation sends elsewhere may leave by any way.
        """
        space = self.space
        first = packets & space.of(BEGINS) & space.of(NOT_TRANSLATED)
        first = space.with_connection_mark(space.with_mark(first, 0, 0xFFFFFFFF), 0, 0xFFFFFFFF)
        fates, ways = self._before_routing(Hook.PREROUTING, first)
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
            fates += self._decided((Hook.INPUT,), here, by)
            fates += self._decided((Hook.FORWARD, Hook.POSTROUTING), onward, by)
        return Journey(tuple(fates))

    def leaving(self, packets: Packets) -> Journey:
        """The way of first packets of this host's own; their mark may be any."""
        space = self.space
        first = packets & space.of(BEGINS) & space.of(NOT_TRANSLATED)
        first = space.with_connection_mark(first, 0, 0xFFFFFFFF)
        fates: list[Fate] = []
        translating = [base for base in self.machine.on(Hook.OUTPUT) if base.is_nat]
        last = max((base.priority for base in translating), default=CONNTRACK)
        before, ways = self._before_routing(Hook.OUTPUT, first, last)
        fates += before
        for live, by in ways:
            fates += self._decided((Hook.OUTPUT, Hook.POSTROUTING), live, by, above=last)
        return Journey(tuple(fates))

    def _before_routing(
        self, hook: Hook, packets: Packets, last: int | None = None
    ) -> tuple[list[Fate], list[tuple[Packets, Met | None]]]:
        """The bases of a hook up to translation; what is denied, and the ways that are taken.

        Packets that are translated, or handed to a proxy, go a way of their own for each line.
        """
        space = self.space
        fates: list[Fate] = []
        ways: list[tuple[Packets, Met | None]] = []
        for base in self.machine.on(hook):
            if last is not None and base.priority > last:
                break
            reading, decisions = self._read(base, packets)
            for met, accepts in decisions:
                if not accepts:
                    fates.append(Fate(met.packets, met.packets, False, met.line, hook))
            if base.drops and (left := self._undecided(reading, decisions)):
                fates.append(Fate(left, left, False, None, hook))
            packets = reading.passed
            for met, _ in decisions:
                if isinstance(met.line.act, Translation | ir.TransparentProxy):
                    ways.append((self.translated(met.line, met.packets), met))
                    packets -= met.packets
            untracked = space.union(m.packets for m in reading.met if _untracks(m.line))
            if untracked:
                became = space.assigned(untracked, {Field.CT_STATE: Ranges.of(State.UNTRACKED)})
                packets = (packets - untracked) | became
        ways.append((packets, None))
        return fates, ways

    def _decided(
        self,
        hooks: tuple[Hook, ...],
        packets: Packets,
        by: Met | None,
        *,
        above: int | None = None,
    ) -> list[Fate]:
        """What becomes of packets behind routing, each piece by the line that decided last.

        `by` is what sent them elsewhere than they were dialled, if anything did.
        """
        fates: list[Fate] = []
        line = None if by is None else by.line
        if not packets:
            return fates
        pieces: list[tuple[Packets, Line | None, Hook]] = [(packets, None, hooks[0])]
        sources: list[Met] = []
        for hook in hooks:
            for base in self.machine.on(hook):
                if above is not None and hook is Hook.OUTPUT and base.priority <= above:
                    continue
                live = self.space.union(piece for piece, _, _ in pieces)
                reading, decisions = self._read(base, live)
                for met, accepts in decisions:
                    if not accepts:
                        entered = self.as_dialled(met.packets, by)
                        fates.append(Fate(entered, met.packets, False, met.line, hook, line))
                    elif isinstance(met.line.act, Translation):
                        sources.append(met)
                if base.drops and (left := self._undecided(reading, decisions)):
                    entered = self.as_dialled(left, by)
                    fates.append(Fate(entered, left, False, None, hook, line))
                pieces = self._after(base, pieces, reading, decisions, hook)
        for piece, decider, hook in pieces:
            if piece:
                leaving = tuple(
                    Met(m.line, m.packets & piece) for m in sources if m.packets.meets(piece)
                )
                entered = self.as_dialled(piece, by)
                fates.append(Fate(entered, piece, True, decider, hook, line, leaving))
        return fates

    def _after(
        self,
        base: Base,
        pieces: list[tuple[Packets, Line | None, Hook]],
        reading: Reading,
        decisions: list[tuple[Met, bool]],
        hook: Hook,
    ) -> list[tuple[Packets, Line | None, Hook]]:
        """The pieces that passed a base; a line that accepted has decided, others keep theirs."""
        accepting = [
            met for met, accepts in decisions if accepts and isinstance(met.line.act, _DECIDES)
        ]
        after: list[tuple[Packets, Line | None, Hook]] = [
            (met.packets, met.line, hook) for met in accepting
        ]
        rest = reading.passed - self.space.union(met.packets for met in accepting)
        if not rest:
            return after
        if base.stage is None and not accepting and not reading.met:
            return pieces
        for piece, line, at in pieces:
            kept = piece & rest
            if kept:
                after.append((kept, line, at))
                rest -= kept
        if rest:  # packets that a line changed on their way
            after.append((rest, None, hook))
        return after

    def _undecided(self, reading: Reading, decisions: list[tuple[Met, bool]]) -> Packets:
        told = self.space.union(met.packets for met, accepts in decisions if not accepts)
        return reading.denied - told

    def translated(self, line: Line, packets: Packets) -> Packets:
        """Packets as a translation of their destination leaves them: dialled there, going here."""
        act = line.act
        if isinstance(act, ir.TransparentProxy):
            return self.space.with_mark(packets, act.value, act.mask)
        space = self.space
        moved = space.moved(packets, Field.DADDR, Field.ORIG_DADDR)
        keeps_port = not (
            isinstance(act, ir.RedirectToSelf)
            or (isinstance(act, ir.DestinationNat) and act.port is not None)
        )
        has_ports = space.of(Cube.of({Field.L4PROTO: _PORTED}))
        ported, portless = moved & has_ports, moved - has_ports
        if keeps_port:
            ported = space.copied(ported, Field.DPORT, Field.ORIG_DPORT)
        else:
            ported = space.moved(ported, Field.DPORT, Field.ORIG_DPORT)
        moved = ported | portless
        became: dict[Field, Ranges] = {
            Field.DNATED: Ranges.of(1),
            Field.DADDR_TYPE: UNIVERSE[Field.DADDR_TYPE] - LOCAL,
        }
        match act:
            case ir.DestinationNat(targets, port, _):
                became[Field.DADDR] = targets
                if port is not None:
                    became[Field.DPORT] = Ranges.of(port)
            case ir.RedirectToSelf(port):
                became[Field.DADDR_TYPE] = LOCAL
                became[Field.DPORT] = Ranges.of(port)
            case ir.MapPrefix(_, prefix):
                became[Field.DADDR] = Ranges((prefix,))
            case _:
                pass
        return space.assigned(space.free(moved, Field.OIF), became)

    def as_dialled(self, packets: Packets, by: Met | None) -> Packets:
        """Packets behind a translation, or a proxy's rule, as they were when they met it."""
        if by is None:
            return packets
        space, act = self.space, by.line.act
        if not isinstance(act, Translation):
            return space.free_of_mark(packets) & by.packets
        back = space.moved(packets, Field.ORIG_DADDR, Field.DADDR)
        if isinstance(act, ir.RedirectToSelf) or (
            isinstance(act, ir.DestinationNat) and act.port is not None
        ):
            back = space.moved(back, Field.ORIG_DPORT, Field.DPORT)
        return space.free(back, Field.DADDR_TYPE, Field.OIF, Field.DNATED) & by.packets


_PORTED = Ranges.of(6, 17, 33, 132)
_DECIDES = (ir.Accept, ir.Queue, Obscure)


def _own_place(line: Line) -> str:
    return line.place


def _no_place(line: Line) -> str:
    return ""


def _untracks(line: Line) -> bool:
    return isinstance(line.act, ir.Untrack)
