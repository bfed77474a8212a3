"""What rules do to all packets of a hook, told by the packets as they came: no line is left out.

Two machines do the same on a hook exactly if their deeds are equal, however their rules are cut
into lines, chains and tables. Translations are where the way is cut: behind them packets are
taken to be any again, for others translate too, and connections last longer than rules.
It knows netfilter's hooks, and no target.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from policylang.analysis.changes import UNCHANGED, Changes
from policylang.analysis.diagram import Packets, Space
from policylang.analysis.machine import (
    AddTo,
    Base,
    Condition,
    CopyMark,
    Goto,
    Hook,
    Line,
    Machine,
    Obscure,
    Return,
    Unknown,
)
from policylang.ir import actions as ir
from policylang.packets.cube import Cube
from policylang.packets.fields import TCP_SYN, Field, State, with_flags
from policylang.packets.values import Ranges

# NF_IP_PRI_NAT_DST and NF_IP_PRI_NAT_SRC of linux/netfilter_ipv4.h: where addresses change.
TRANSLATES_AT = {Hook.PREROUTING: -100, Hook.OUTPUT: -100, Hook.POSTROUTING: 100}

# nf_nat_inet_fn of nf_nat_core.c reads a nat chain for packets of connections that it has not
# seen yet: those of one that a helper predicted are RELATED.
MEETS_NAT = Cube.of({Field.CT_STATE: Ranges.of(State.NEW, State.RELATED)})

# Only what offers a segment size has one that can be made smaller (RFC 9293 section 3.7.1).
OFFERS_SIZE = Cube.of({Field.TCP_FLAGS: with_flags(TCP_SYN, TCP_SYN)})

# A helper is given to a connection that is not confirmed yet. Of those that a helper predicted
# (RELATED) raw cannot tell (init_conntrack of nf_conntrack_core.c leaves them the helper of their
# expectation), so that no two ways of giving one could be alike for them.
GETS_HELPER = Cube.of({Field.CT_STATE: Ranges.of(State.NEW)})


class Part(StrEnum):
    """The part of a hook, by where it stands to translation."""

    BEFORE = "before translation"
    TRANSLATION = "translation"
    BEHIND = "behind translation"


@dataclass(frozen=True, slots=True)
class Passed:
    """The deed that is none: a base chain lets the packet go on."""


@dataclass(frozen=True, slots=True)
class Again:
    """An act that a packet meets for the `time`-th time, from 2."""

    act: Hashable
    time: int


@dataclass(frozen=True, slots=True)
class LeftToPolicy:
    """No line decides the packet, and the policy of the base chain drops it."""


@dataclass(frozen=True, slots=True)
class Became:
    """What the packet is at its end, where it is not what it was."""

    changes: Changes


Deed = Hashable  # an act, or one of the values above


@dataclass(frozen=True, slots=True)
class Done:
    """Packets, as they came, to which a line of a base chain did something."""

    base: Base
    line: Line | None
    packets: Packets


Where = tuple[Hook, Part]


@dataclass(slots=True)
class Deeds:
    """All that is done, by the part of the way and by the deed."""

    space: Space
    done: dict[Where, dict[Deed, list[Done]]] = field(default_factory=dict)

    def of(self, where: Where, deed: Deed) -> Packets:
        """The packets to which a deed is done."""
        return self.space.union(one.packets for one in self.done.get(where, {}).get(deed, ()))

    def lines(self, where: Where, packets: Packets) -> Iterator[tuple[Deed, Done]]:
        """What is done to any of these packets, in the order in which it happens."""
        for deed, found in self.done.get(where, {}).items():
            for one in found:
                if one.packets.meets(packets):
                    yield deed, one


def part_of(base: Base) -> Part:
    """Where a base chain stands to the translation of its hook."""
    if base.is_nat:
        return Part.TRANSLATION
    at = TRANSLATES_AT.get(base.hook)
    return Part.BEFORE if at is not None and base.priority < at else Part.BEHIND


def deeds(machine: Machine, space: Space, coming: Callable[[Where], Packets]) -> Deeds:
    """What a machine does to the packets that come to each part of each hook.

    `coming` says which packets there can be. Raises `TooLargeError`.
    """
    found = Deeds(space)
    reader = _Reader(machine, space)
    for hook in Hook:
        for part in Part:
            bases = [base for base in machine.on(hook) if part_of(base) is part]
            where = hook, part
            if bases:
                reader.go(bases, coming(where), found.done.setdefault(where, {}))
    return found


Live = dict[Changes, Packets]


@dataclass(slots=True)
class _Way:
    """One way through some base chains."""

    done: dict[Deed, list[Done]]
    base: Base
    accepted: Live = field(default_factory=dict)
    ended: Live = field(default_factory=dict)
    with_helper: Packets | None = None
    seen: dict[Hashable, Packets] = field(default_factory=dict)  # that met an act, by the act

    def add(self, deed: Deed, line: Line | None, packets: Packets) -> None:
        if packets:
            self.done.setdefault(deed, []).append(Done(self.base, line, packets))


class _Reader:
    def __init__(self, machine: Machine, space: Space) -> None:
        self.machine = machine
        self.space = space
        self.matches: dict[tuple[int, Changes], Packets] = {}
        self.nothing = space.nothing

    def go(self, bases: list[Base], coming: Packets, done: dict[Deed, list[Done]]) -> None:
        live: Live = {UNCHANGED: coming}
        way = _Way(done, bases[0])
        for base in bases:
            concerned = self.space.of(Cube.of({Field.FAMILY: Ranges.of(*base.families)}))
            if base.is_nat:
                concerned &= self.space.of(MEETS_NAT)
            here = {c: p & concerned for c, p in live.items()}
            past = {c: p - concerned for c, p in live.items()}
            way.base, way.accepted = base, past
            left, back = self._chain(base.chain, _kept(here), way)
            for packets_left in (left, back):
                for changes, packets in packets_left.items():
                    if base.drops:
                        way.add(ir.Drop(), None, packets)
                        way.add(LeftToPolicy(), None, packets)
                        _join(way.ended, changes, packets)
                    else:
                        way.add(Passed(), None, packets)
                        _join(way.accepted, changes, packets)
            live = _kept(way.accepted)
        self._confirmed(way)
        for ended in (way.ended, live):
            for changes, packets in ended.items():
                if changes != UNCHANGED:
                    way.add(Became(changes), None, packets)

    def _confirmed(self, way: _Way) -> None:
        """A packet that is dropped takes its new connection with it, and the helper it got."""
        dropped = self.space.union(way.ended.values())
        if not dropped:
            return
        for deed, found in way.done.items():
            if isinstance(deed, ir.AssignHelper):
                kept = (replace(one, packets=one.packets - dropped) for one in found)
                way.done[deed] = [one for one in kept if one.packets]

    def _match(self, line: Line, changes: Changes) -> Packets:
        key = id(line), changes
        found = self.matches.get(key)
        if found is None:
            found = self.matches[key] = self._matching(line, changes)
        return found

    def _matching(self, line: Line, changes: Changes) -> Packets:
        conditions = changes.conditions(line.conditions)
        if conditions is None:
            return self.nothing
        cubes = [cube for each in line.cubes if (cube := changes.cube(each)) is not None]
        found = self.space.of_all(cubes)
        for condition in conditions:
            found &= self.space.answered(condition)
        return found

    def _chain(self, name: str, live: Live, way: _Way) -> tuple[Live, Live]:
        """What comes to the end of a chain, and what went back to the caller before."""
        returned: Live = {}
        for line in self.machine.chains[name]:
            if not live:
                break
            after: Live = {}
            for changes, packets in live.items():
                met = packets & self._match(line, changes)
                if not met:
                    _join(after, changes, packets)
                    continue
                _join(after, changes, packets - met)
                for on, back in self._meet(line, changes, met, way):
                    for where, some in ((after, on), (returned, back)):
                        for now, these in some.items():
                            _join(where, now, these)
            live = _kept(after)
        return live, returned

    def _meet(
        self, line: Line, changes: Changes, met: Packets, way: _Way
    ) -> Iterator[tuple[Live, Live]]:
        """What goes on of packets that meet a line, and what goes back to the caller."""
        match line.act:
            case ir.Jump(chain):
                left, back = self._chain(chain, {changes: met}, way)
                yield left, {}
                yield back, {}
            case Goto(chain):
                left, back = self._chain(chain, {changes: met}, way)
                yield {}, left
                yield {}, back
            case Return():
                yield {}, {changes: met}
            case ir.Drop() | ir.Reject():
                way.add(line.act, line, met)
                _join(way.ended, changes, met)
            case ir.AssignHelper():
                self._helper(line, changes, met, way)
                yield {changes: met}, {}
            case Obscure(may_decide=may_decide):
                way.add(line.act, line, met)
                yield {changes: self._obscure(line, changes, met, way) if may_decide else met}, {}
            case ir.SetMark() | ir.SetConnectionMark() | ir.SetDscp() | ir.Untrack():
                yield {changes.after(line.act): met}, {}
            case AddTo() | CopyMark():
                yield {changes.after(line.act): met}, {}
            case ir.Accept() | ir.Leave():
                way.add(Passed(), line, met)
                _join(way.accepted, changes, met)
            case ir.TransparentProxy() as act:
                way.add(replace(act, value=0, mask=0), line, met)
                _join(way.accepted, changes.after(act), met)
            case _ if ir.is_terminal(line.act):
                way.add(line.act, line, met)
                _join(way.accepted, changes, met)
            case ir.ClampMss():
                way.add(line.act, line, met & self.space.of(OFFERS_SIZE))
                yield {changes: met}, {}
            case _:
                self._counted(line, met, way)
                yield {changes: met}, {}

    def _helper(self, line: Line, changes: Changes, met: Packets, way: _Way) -> None:
        """The first helper of a connection stays (nf_ct_ext_add fails for a second one).

        One that is for another protocol than the connection's does nothing.
        """
        assert isinstance(line.act, ir.AssignHelper)
        if changes.is_untracked:
            return
        met &= self.space.of(Cube.of({Field.L4PROTO: Ranges.of(line.act.protocol)}))
        before = way.with_helper or self.nothing
        way.with_helper = before | met
        way.add(line.act, line, (met - before) & self.space.of(GETS_HELPER))

    def _counted(self, line: Line, met: Packets, way: _Way) -> None:
        """What is done each time that a packet comes by: a log of two lines is not one."""
        time, left = 1, met
        while left:
            deed: Hashable = line.act if time == 1 else Again(line.act, time)
            before = way.seen.get(deed, self.nothing)
            way.seen[deed] = before | left
            way.add(deed, line, left - before)
            left, time = left & before, time + 1

    def _obscure(self, line: Line, changes: Changes, met: Packets, way: _Way) -> Packets:
        """What goes on of packets that meet something that may decide, or not."""
        assert isinstance(line.act, Obscure)
        accepts = met & self._asked(f"{line.act.text}: accepts it")
        drops = (met - accepts) & self._asked(f"{line.act.text}: drops it")
        _join(way.accepted, changes, accepts)
        _join(way.ended, changes, drops)
        way.add(ir.Drop(), line, drops)
        return met - accepts - drops

    def _asked(self, text: str) -> Packets:
        return self.space.answered(Condition(Unknown(text)))


def _join(live: Live, changes: Changes, packets: Packets) -> None:
    before = live.get(changes)
    live[changes] = packets if before is None else before | packets


def _kept(live: Live) -> Live:
    return {changes: packets for changes, packets in live.items() if packets}
