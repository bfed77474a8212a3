"""One packet on its way through a machine: the chains it enters, the lines it meets, its verdict.

What a packet is beside its fields (marks, its owner, the hour, sets that were filled, questions
that nobody can answer) comes from outside. Conntrack is not known here: a packet is tagged with
its state, and what conntrack does between two hooks is done by `conversation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import assert_never

from policylang.analysis import machine as m
from policylang.analysis.completing import ordinary
from policylang.analysis.machine import Act, Base, Condition, Hook, Line, Machine, Question
from policylang.analysis.surroundings import (
    CONNTRACK,
    NOBODY,
    AsGiven,
    Surroundings,
    translated,
)
from policylang.ir import actions as ir
from policylang.ir.ruleset import AddressTest, DynamicSet, HostSuffix, ListedSet
from policylang.packets.cube import Packet
from policylang.packets.fields import (
    DADDR_TESTS,
    ICMP,
    ICMPV6,
    SADDR_TESTS,
    Field,
    State,
)
from policylang.packets.values import V6_BASE


class Verdict(StrEnum):
    """What became of a packet."""

    PASSES = "passes"
    DROPPED = "dropped"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Moment:
    """What holds beside a packet's fields, where no answer says otherwise.

    `members` are the contents of sets by name, each element as the values of its fields. `now`
    is in UTC and `utc_offset_s` how far local time is ahead of it. `within_rates`: rates and
    numbers of connections are kept to, as of a packet that comes alone. `user` and `group` are
    numbers, None of what no local process sends.
    """

    mark: int = 0
    connection_mark: int = 0
    user: int | None = None
    group: int | None = None
    cgroup: str | None = None
    now: datetime = datetime(2026, 1, 1, 12, tzinfo=UTC)
    utc_offset_s: int = 0
    members: Mapping[str, frozenset[tuple[int, ...]]] = field(default_factory=dict)
    within_rates: bool = True


ANY_MOMENT = Moment()
NO_ANSWERS: Mapping[Question, bool] = {}


@dataclass(frozen=True, slots=True)
class Met:
    """A packet met a line of a chain; `depth` counts the jumps that led there."""

    base: Base
    chain: str
    line: Line
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Doubt:
    """A line that the packet may meet or not, or that may decide it or not; taken not to."""

    base: Base
    chain: str
    line: Line
    about: str  # the text that was not understood, or what decides in place of rules


@dataclass(frozen=True, slots=True)
class Passage:
    """A packet's way through one base chain.

    `decider` is the line that ended it, None where the chain's policy did. `packet` is the packet
    as it left.
    """

    base: Base
    met: tuple[Met, ...]
    verdict: Verdict
    decider: Met | None
    packet: Packet
    doubts: tuple[Doubt, ...] = ()
    asked: tuple[Condition, ...] = ()  # of which the packet's fields do not tell the answer

    @property
    def act(self) -> Act | None:
        """What the line did that ended it."""
        return None if self.decider is None else self.decider.line.act


@dataclass(frozen=True, slots=True)
class Walk:
    """A packet's whole way: the base chains that it entered, in order, and what became of it.

    `packet` is the packet as it was last seen. With `doubts` it may have gone otherwise.
    """

    passages: tuple[Passage, ...]
    verdict: Verdict
    packet: Packet

    @property
    def met(self) -> tuple[Met, ...]:
        """All lines that the packet met, in order."""
        return tuple(met for passage in self.passages for met in passage.met)

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        return tuple(doubt for passage in self.passages for doubt in passage.doubts)

    @property
    def decider(self) -> Met | None:
        """The line that dropped the packet, else the last one that let it pass a filter.

        None where no line did: a base chain's own policy decided, or there is no chain.
        """
        if self.verdict is not Verdict.PASSES:
            return self.passages[-1].decider
        for passage in reversed(self.passages):
            if passage.base.hook in FILTERS and passage.decider is not None:
                return passage.decider
        return None


FILTERS = (Hook.INPUT, Hook.FORWARD, Hook.OUTPUT)


def walk(
    machine: Machine,
    packet: Packet,
    answers: Mapping[Question, bool] = NO_ANSWERS,
    moment: Moment = ANY_MOMENT,
    address_tests: tuple[AddressTest, ...] = (),
) -> Walk:
    """The way of a packet that arrives by its IIF, or is sent by this host where it has none.

    It leaves by its OIF, or is delivered where it has none; a line that sends it elsewhere leaves
    that as it is, except that what is redirected is delivered. Fields that it lacks are those of
    an ordinary first packet (`ordinary`). Questions are answered by `answers`, then by `moment`;
    of marks the bits that `answers` affirm are those it starts with. `address_tests` are what the
    fields of address tests ask, where the machine is a policy's; a test that the packet has
    itself is answered so.
    """
    surroundings = AsGiven(packet.get(Field.OIF, NOBODY))
    walker = Walker(machine, surroundings, answers, moment, address_tests)
    return walker.walk(packet)


class Walker:
    """Leads packets through the hooks of one machine; marks and sets change as lines change them.

    A walker is for packets that come one after another: what a line put into a set stays there.
    Of the marks it holds those of the packet that is on its way.
    """

    def __init__(
        self,
        machine: Machine,
        surroundings: Surroundings,
        answers: Mapping[Question, bool] = NO_ANSWERS,
        moment: Moment = ANY_MOMENT,
        address_tests: tuple[AddressTest, ...] = (),
    ) -> None:
        self.machine = machine
        self.surroundings = surroundings
        self.address_tests = address_tests
        self.answers = answers
        self.moment = moment
        self.mark = moment.mark
        self.connection_mark = moment.connection_mark
        for question, holds in answers.items():
            if holds and isinstance(question, m.MarkIs):
                self.mark = _under(self.mark, question.value, question.mask)
            elif holds and isinstance(question, m.ConnectionMarkIs):
                self.connection_mark = _under(self.connection_mark, question.value, question.mask)
        self.members = {name: set(held) for name, held in moment.members.items()}
        self.has_helper = False  # of the connection whose packet is on its way

    def walk(self, packet: Packet) -> Walk:
        """The packet's way over all hooks, as the function of that name."""
        now = ordinary(packet)
        self._fill_sets(now)
        arrives = now[Field.IIF] != NOBODY
        passages: list[Passage] = []
        for hook in (Hook.PREROUTING if arrives else Hook.OUTPUT, None, Hook.POSTROUTING):
            if hook is None:
                if not arrives:
                    continue
                hook = Hook.INPUT if now[Field.OIF] == NOBODY else Hook.FORWARD
            if hook is Hook.PREROUTING:
                now[Field.OIF] = NOBODY
            for base in self.machine.on(hook):
                if not self.enters(base, now, is_first=is_first(now)):
                    continue
                passages.append(self.read(base, now))
                now = dict(passages[-1].packet)
                if passages[-1].verdict is not Verdict.PASSES:
                    return Walk(tuple(passages), passages[-1].verdict, now)
            if hook in (Hook.PREROUTING, Hook.OUTPUT):
                is_proxied = any(isinstance(x.act, ir.TransparentProxy) for x in passages)
                now |= {Field.OIF: NOBODY} if is_proxied else self.surroundings.routed(now)
            elif hook is Hook.INPUT:
                break
        return Walk(tuple(passages), Verdict.PASSES, now)

    def _fill_sets(self, packet: dict[Field, int]) -> None:
        """What a packet says of its addresses' being in sets is so from now on."""
        for end, tests in TESTS.items():
            for test, asked in zip(tests, self.address_tests, strict=False):
                if packet.pop(test, 0) and not isinstance(asked, HostSuffix) and end in packet:
                    self.members.setdefault(_set_name(asked), set()).add((packet[end],))

    def tested(self, packet: Packet) -> Packet:
        """The packet with the answers to what is asked of its addresses at run time."""
        if not self.address_tests:
            return packet
        answers = {
            test: int(self._passes(asked, packet[end]))
            for end, tests in TESTS.items()
            for test, asked in zip(tests, self.address_tests, strict=False)
        }
        return {**packet, **answers}

    def _passes(self, test: AddressTest, address: int) -> bool:
        match test:
            case HostSuffix(value, mask):
                return address >= V6_BASE and (address - V6_BASE) & mask == value
            case ListedSet(addresses=addresses):
                return address in addresses or (address,) in self.members.get(_set_name(test), ())
            case DynamicSet(name=name):
                return (address,) in self.members.get(name, ())

    def enters(self, base: Base, packet: Packet, *, is_first: bool) -> bool:
        """Whether a packet is read by a base chain; those of NAT read `is_first` ones alone."""
        return packet[Field.FAMILY] in base.families and (is_first or not base.is_nat)

    def read(self, base: Base, packet: Packet) -> Passage:
        """A packet's way through one base chain; it has all the fields of its kind."""
        return _Reading(self, base, packet).passage()

    def answer(self, question: Question, packet: Packet) -> bool | None:
        """Whether a question is answered by yes; None where nobody knows."""
        if question in self.answers and not isinstance(question, m.MarkIs | m.ConnectionMarkIs):
            return self.answers[question]
        moment = self.moment
        match question:
            case m.RateHolds() | m.ConnectionsHold():
                return moment.within_rates
            case m.MarkIs(value, mask):
                return self.mark & mask == value
            case m.ConnectionMarkIs(value, mask):
                return self.connection_mark & mask == value
            case m.OwnerIs(kind, ids):
                number = moment.user if kind == "user" else moment.group
                return packet[Field.IIF] == NOBODY and number is not None and number in ids
            case m.CgroupIs(path):
                within = "" if moment.cgroup is None else f"{moment.cgroup}/"
                return packet[Field.IIF] == NOBODY and within.startswith(f"{path}/")
            case m.WeekTimeIs(week_s, is_local):
                return self._second_of_week(is_local=is_local) in week_s
            case m.NotAfter(last_day, is_local):
                return self._now(is_local=is_local).date() <= last_day
            case m.MaskIs(at, value, mask):
                return packet[at] >= V6_BASE and (packet[at] - V6_BASE) & mask == value
            case m.InSet(name, fields):
                key = tuple(packet.get(f, -1) for f in fields)
                return key in self.members.get(name, ())
            case m.Unknown():
                return None
            case _:
                assert_never(question)

    def _now(self, *, is_local: bool) -> datetime:
        ahead_s = self.moment.utc_offset_s if is_local else 0
        return self.moment.now + timedelta(seconds=ahead_s)

    def _second_of_week(self, *, is_local: bool) -> int:
        now = self._now(is_local=is_local)
        return now.weekday() * 86_400 + now.hour * 3600 + now.minute * 60 + now.second


def _set_name(test: DynamicSet | ListedSet) -> str:
    return test.name if isinstance(test, DynamicSet) else test.source.name


TESTS = {Field.SADDR: SADDR_TESTS, Field.DADDR: DADDR_TESTS}


def is_first(packet: Packet) -> bool:
    """Whether chains of NAT read a packet: those that open a connection, as far as it tells."""
    if packet[Field.CT_STATE] == State.RELATED:
        return packet[Field.L4PROTO] not in (ICMP, ICMPV6)
    return packet[Field.CT_STATE] == State.NEW


class _Ended(Exception):  # noqa: N818 (not an error: how a base chain's reading ends)
    """A base chain is done with the packet."""

    def __init__(self, verdict: Verdict, decider: Met | None) -> None:
        super().__init__(verdict)
        self.verdict = verdict
        self.decider = decider


class _Reading:
    """One packet in one base chain."""

    def __init__(self, walker: Walker, base: Base, packet: Packet) -> None:
        self.walker = walker
        self.base = base
        self.packet = dict(packet)
        self.met: list[Met] = []
        self.doubts: list[Doubt] = []
        self.asked: list[Condition] = []

    def passage(self) -> Passage:
        try:
            self._read(self.base.chain, 0)
        except _Ended as ended:
            verdict, decider = ended.verdict, ended.decider
        else:
            verdict = Verdict.DROPPED if self.base.drops else Verdict.PASSES
            decider = None
        return Passage(
            self.base,
            tuple(self.met),
            verdict,
            decider,
            self.packet,
            tuple(self.doubts),
            tuple(dict.fromkeys(self.asked)),
        )

    def _read(self, chain: str, depth: int) -> None:
        """Read a chain to its end; raises `_Ended` where a line ends the base chain."""
        for line in self.walker.machine.chains[chain]:
            if not self._meets(chain, line):
                continue
            if isinstance(line.act, ir.AssignHelper):
                if self.walker.has_helper:
                    continue  # the first one stays (nf_ct_helper_ext_add)
                self.walker.has_helper = True
            met = Met(self.base, chain, line, depth)
            self.met.append(met)
            match line.act:
                case m.Return():
                    return
                case m.Goto(name):
                    self._read(name, depth + 1)
                    return
                case ir.Jump(name):
                    self._read(name, depth + 1)
                case _:
                    self._act(met)

    def _meets(self, chain: str, line: Line) -> bool:
        seen = self.walker.tested(self._seen())
        if not any(cube.holds(seen) for cube in line.cubes):
            return False
        holds: list[bool | None] = []
        for condition in line.conditions:
            answer = self.walker.answer(condition.question, self.packet)
            holds.append(None if answer is None else answer is condition.holds)
        if False in holds:
            if None not in holds:
                self.asked += _assumed(line.conditions)
            return False
        if None in holds:
            texts = (c.question.text for c in line.conditions if isinstance(c.question, m.Unknown))
            self._doubt(chain, line, "; ".join(texts))
            return False
        self.asked += _assumed(line.conditions)
        return True

    def _doubt(self, chain: str, line: Line, about: str) -> None:
        if not isinstance(line.act, ir.Log):
            self.doubts.append(Doubt(self.base, chain, line, about))

    def _seen(self) -> Packet:
        """The packet as matches see it: before conntrack it has no state and no connection."""
        is_early = self.base.hook in (Hook.PREROUTING, Hook.OUTPUT)
        untracked = self.packet[Field.CT_STATE] == State.UNTRACKED
        if not is_early or self.base.priority >= CONNTRACK or untracked:
            return self.packet
        without = {
            f: value
            for f, value in self.packet.items()
            if f not in (Field.CT_DIRECTION, Field.ORIG_DADDR, Field.ORIG_DPORT)
        }
        nothing: dict[Field, int] = {Field.CT_HELPER: NOBODY, Field.DNATED: 0, Field.EXPECTED: 0}
        return without | nothing | {Field.CT_STATE: State.INVALID}

    def _act(self, met: Met) -> None:
        """What a line does; jumps and returns are done already."""
        walker, act = self.walker, met.line.act
        match act:
            case ir.Drop():
                raise _Ended(Verdict.DROPPED, met)
            case ir.Reject():
                raise _Ended(Verdict.REJECTED, met)
            case ir.AddToSet(name, end):
                field_ = Field.SADDR if end is ir.End.SOURCE else Field.DADDR
                walker.members.setdefault(name, set()).add((self.packet[field_],))
            case m.AddTo(name, fields):
                key = tuple(self.packet.get(f, -1) for f in fields)
                walker.members.setdefault(name, set()).add(key)
            case ir.SetMark(value, mask):
                walker.mark = _under(walker.mark, value, mask)
            case ir.SetConnectionMark(value, mask):
                walker.connection_mark = _under(walker.connection_mark, value, mask)
            case m.CopyMark(to_connection, mask):
                if to_connection:
                    walker.connection_mark = _under(walker.connection_mark, walker.mark, mask)
                else:
                    walker.mark = _under(walker.mark, walker.connection_mark, mask)
            case ir.SetDscp(code):
                self.packet[Field.DSCP] = code
            case ir.TransparentProxy(_, _, value, mask):
                walker.mark = _under(walker.mark, value, mask)
            case ir.Untrack():
                if self.base.priority < CONNTRACK:
                    self.packet[Field.CT_STATE] = State.UNTRACKED
            case ir.Native(_, text, family):
                if family in (None, self.packet[Field.FAMILY]):
                    self._doubt(met.chain, met.line, text)
            case m.Obscure(text, may_decide):
                if may_decide:
                    self._doubt(met.chain, met.line, text)
            case ir.Queue(low, high):
                queue = f"{low}" if low == high else f"{low}-{high}"
                self._doubt(met.chain, met.line, f"the program that reads queue {queue}")
            case (
                ir.Masquerade()
                | ir.SourceNat()
                | ir.DestinationNat()
                | ir.RedirectToSelf()
                | ir.MapPrefix()
            ):
                self.packet = translated(self.packet, act, self.base.hook, walker.surroundings)
            case _:
                pass
        if not isinstance(act, GOES_ON) and ir.is_terminal(act):
            raise _Ended(Verdict.PASSES, met)


GOES_ON = (m.Return, m.Goto, m.AddTo, m.CopyMark, m.Obscure, ir.AssignHelper, ir.Untrack)


def _under(old: int, value: int, mask: int) -> int:
    return old & ~mask | value & mask


def _assumed(conditions: tuple[Condition, ...]) -> list[Condition]:
    """Those whose answer the packet alone does not tell."""
    return [c for c in conditions if not isinstance(c.question, m.MarkIs | m.ConnectionMarkIs)]
