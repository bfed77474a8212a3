"""Carries packets through the firewall: hooks with rules, and conntrack and its work in between.

The order is netfilter's: conntrack at -200, translation of destinations at -100 and of sources at
100, helpers and the entry into the table when a packet leaves or is delivered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from policylang.analysis.completing import PORTED
from policylang.analysis.conversation.predicting import NOTHING, Heard, Reading, read
from policylang.analysis.conversation.tracking import (
    ORIGINAL,
    Because,
    Connection,
    Table,
    Tracked,
    untracked,
)
from policylang.analysis.conversation.wire import Flow, Wire
from policylang.analysis.conversation.world import World
from policylang.analysis.machine import Base, Hook, Machine, Question
from policylang.analysis.surroundings import CONNTRACK, NOBODY
from policylang.analysis.walking import (
    ANY_MOMENT,
    NO_ANSWERS,
    Moment,
    Passage,
    Verdict,
    Walker,
)
from policylang.ir import actions as ir
from policylang.ir.ruleset import AddressTest
from policylang.packets.fields import (
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    AddressType,
    Field,
    State,
)
from policylang.packets.values import name_range

NAT_DESTINATION, NAT_SOURCE = -100, 100  # NF_IP_PRI_NAT_DST, NF_IP_PRI_NAT_SRC
DESTINATION_HOOKS = (Hook.PREROUTING, Hook.OUTPUT)


@dataclass(frozen=True, slots=True)
class Translated:
    """Where on a packet's way its ends were exchanged, and what it looked like before and after."""

    hook: Hook
    before: Wire
    after: Wire
    line: str | None = None  # the place of the line that chose it, None where conntrack knew


@dataclass(frozen=True, slots=True)
class Carried:
    """What became of one packet.

    `last` is the packet as it was last seen, and `out` the interface by which it left, `NOBODY`
    where it was for this host. `assigned` is the helper that its connection was given, `reading`
    what a helper made of it.
    """

    tracked: Tracked
    passages: tuple[Passage, ...]
    verdict: Verdict
    hooks: tuple[Hook, ...]
    last: Wire
    out: int
    translations: tuple[Translated, ...]
    assigned: str | None
    reading: Reading
    mark: int


class _Ended(Exception):  # noqa: N818 (not an error: how a packet's way ends)
    """A packet was dropped."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict)
        self.verdict = verdict


class Firewall:
    """One host with its rules and its connections; packets are carried one after another."""

    def __init__(
        self,
        machine: Machine,
        world: World,
        *,
        answers: Mapping[Question, bool] = NO_ANSWERS,
        moment: Moment = ANY_MOMENT,
        address_tests: tuple[AddressTest, ...] = (),
    ) -> None:
        self.machine = machine
        self.world = world
        self.table = Table()
        self.walker = Walker(machine, world, answers, moment, address_tests)
        self.moment = moment
        self.questions: set[tuple[int, int, int]] = set()  # address, port and interface
        self.askers: set[int] = set()
        self.given: dict[Field, int] = {}  # fields of what other machines send

    def carry(
        self,
        wire: Wire,
        interface: int,
        number: int,
        *,
        tracked: Tracked | None = None,
    ) -> Carried:
        """Take a packet that came by an interface, or with `NOBODY` one of this host's own.

        `number` is the packet's in the story. `tracked` is what conntrack says of it where that
        does not follow from what came before.
        """
        way = _Way(self, wire, interface, number, tracked)
        return way.carried()


class _Way:
    """One packet on its way."""

    def __init__(
        self,
        firewall: Firewall,
        wire: Wire,
        interface: int,
        number: int,
        given: Tracked | None,
    ) -> None:
        self.firewall = firewall
        self.wire = wire
        self.iif = interface
        self.number = number
        self.given = given
        self.tracked = Tracked(State.INVALID, ORIGINAL, Because.NOT_THERE, None)
        self.is_tracked = given is not None
        self.is_untracked = False
        self.is_proxied = False
        self.dscp: int | None = None
        self.out = NOBODY
        self.passages: list[Passage] = []
        self.hooks: list[Hook] = []
        self.translations: list[Translated] = []
        self.assigned: str | None = None
        self.reading = NOTHING
        if given is not None:
            self.tracked = given

    # --- the whole way ------------------------------------------------------------------------

    def carried(self) -> Carried:
        walker = self.firewall.walker
        walker.mark = self.firewall.moment.mark
        walker.connection_mark = self.firewall.moment.connection_mark
        walker.has_helper = False
        try:
            for hook in self._route():
                self.hooks.append(hook)
                self._hook(hook)
            verdict = Verdict.PASSES
        except _Ended as ended:
            verdict = ended.verdict
        return Carried(
            self.tracked,
            tuple(self.passages),
            verdict,
            tuple(self.hooks),
            self.wire,
            self.out,
            tuple(self.translations),
            self.assigned,
            self.reading,
            walker.mark,
        )

    def _route(self) -> Iterator[Hook]:
        if self.iif == NOBODY:
            self._find_way()
            yield Hook.OUTPUT
            self._find_way()
        else:
            yield Hook.PREROUTING
            self._find_way()
            yield Hook.INPUT if self.out == NOBODY else Hook.FORWARD
        if self.out != NOBODY:
            yield Hook.POSTROUTING

    def _find_way(self) -> None:
        routed = self.firewall.world.routed(self._packet())
        self.out = NOBODY if self.is_proxied else routed[Field.OIF]

    def _hook(self, hook: Hook) -> None:
        """All base chains of a hook, with what the kernel does between them."""
        early = hook in DESTINATION_HOOKS
        nat_at = NAT_DESTINATION if early else NAT_SOURCE
        bases = [b for b in self.firewall.machine.on(hook) if self.wire.family in b.families]
        work: list[tuple[int, int, Base | None]] = [
            (base.priority, 1, base) for base in bases if not base.is_nat
        ]
        if hook is not Hook.FORWARD:
            work.append((nat_at, 0, None))
        if early and not self.is_tracked:
            work.append((CONNTRACK, 0, None))
        for priority, _, base in sorted(work, key=lambda item: item[:2]):
            if base is not None:
                self._read(hook, base)
            elif priority == CONNTRACK:
                self._track()
            else:
                self._translate(hook, [b for b in bases if b.is_nat])
        if hook in (Hook.INPUT, Hook.POSTROUTING):
            self._leave(hook)

    def _read(self, hook: Hook, base: Base) -> Passage:
        walker = self.firewall.walker
        connection = self.tracked.connection
        if connection is not None:
            walker.connection_mark = connection.mark
            walker.has_helper = connection.helper is not None or connection.is_confirmed
        passage = walker.read(base, self._packet(hook))
        self.passages.append(passage)
        self._heed(passage)
        if connection is not None:
            connection.mark = walker.connection_mark
        if passage.verdict is not Verdict.PASSES:
            raise _Ended(passage.verdict)
        return passage

    def _heed(self, passage: Passage) -> None:
        """What lines did to the packet and its connection, translations aside."""
        connection = self.tracked.connection
        for met in passage.met:
            match met.line.act:
                case ir.AssignHelper(helper, protocol):
                    self._assign(helper, protocol)
                case ir.Untrack() if not self.is_tracked:
                    self.is_untracked = True
                case ir.TransparentProxy() if connection is not None or self.is_untracked:
                    self.is_proxied = True
                case ir.SetDscp(code):
                    self.dscp = code
                case ir.RememberQuestion() if self.wire.ports is not None:
                    for address in (self.wire.source, self.wire.destination):
                        self.firewall.questions.add((address, self.wire.ports[0], self.out))
                case ir.RememberAsker() if self.wire.ports is not None:
                    self.firewall.askers.add(self.wire.ports[0])
                case _:
                    pass

    def _assign(self, helper: str, protocol: int) -> None:
        """Only the first packet of a connection gives it a helper."""
        if self.wire.protocol != protocol:
            return
        if not self.is_tracked:
            self.assigned = helper  # iptables' CT target, which stands before conntrack
            return
        connection = self.tracked.connection
        if connection is not None:  # lines that come too late are not met (`has_helper`)
            connection.helper = self.assigned = helper

    # --- conntrack ----------------------------------------------------------------------------

    def _track(self) -> None:
        self.is_tracked = True
        if self.is_untracked:
            self.tracked = untracked(Because.NOT_TRACKED)
            self.assigned = None
            return
        self.tracked = self.firewall.table.take(self.wire, self.number)
        connection = self.tracked.connection
        if connection is None or connection.is_confirmed or connection.is_expected:
            self.assigned = None
        elif self.assigned is not None:
            connection.helper = self.assigned

    def _leave(self, hook: Hook) -> None:
        """Helpers read the packet, and its connection is entered into the table."""
        connection = self.tracked.connection
        if connection is None or self.tracked.because in (Because.ERROR, Because.REFUSAL):
            return
        if connection.helper is not None and self.wire.message is not None:
            heard = Heard(
                self.wire,
                self.wire.message,
                self.tracked,
                connection,
                self.number,
                self._broadcast_into(),
            )
            self.reading = read(heard)
            for expectation in self.reading.expects:
                self.firewall.table.expect(expectation)
            if self.reading.message is not None:
                self.wire = replace(self.wire, message=self.reading.message)
        self.firewall.table.confirm(connection)

    def _broadcast_into(self) -> int | None:
        if self.iif != NOBODY:
            return None
        return self.firewall.world.broadcasts.get(self.wire.destination)

    # --- translation --------------------------------------------------------------------------

    def _translate(self, hook: Hook, bases: list[Base]) -> None:
        """nf_nat_inet_fn: the rules choose for a first packet, all others are as that one."""
        connection = self.tracked.connection
        if connection is None:
            return
        before, line = self.wire, None
        of_destination = hook in DESTINATION_HOOKS
        if self.wire.about is not None:
            self._translate_error(connection, of_destination=of_destination)
        else:
            if self.tracked.is_first and not _is_settled(connection, of_destination):
                line = self._choose(hook, bases, connection, of_destination=of_destination)
            goal = connection.sent_on(self.tracked.direction)
            self.wire = _towards(self.wire, goal, of_destination=of_destination)
        if self.wire != before:
            self.translations.append(Translated(hook, before, self.wire, line))

    def _choose(
        self, hook: Hook, bases: list[Base], connection: Connection, *, of_destination: bool
    ) -> str | None:
        """Let the chains of NAT choose; returns the place of the line that did."""
        place = None
        for base in bases:
            passage = self._read(hook, base)
            act = passage.act
            if not isinstance(act, ir.Translation):
                continue
            assert passage.decider is not None
            place = passage.decider.line.place
            to = passage.packet
            went = self.wire.with_ends(
                source=(to[Field.SADDR], to.get(Field.SPORT, 0)),
                destination=(to[Field.DADDR], to.get(Field.DPORT, 0)),
            )
            connection.answered = self._unique(went.flow, connection)
            break
        if of_destination:
            connection.is_destination_settled = True
        else:
            connection.is_source_settled = True
        return place

    def _unique(self, went: Flow, connection: Connection) -> Flow:
        """The answers to a flow; its source port moves on while another connection has it."""
        taken = {c.answered for c in self.firewall.table.connections if c is not connection}
        port = went.source_port
        while went.inverted in taken:
            port = port + 1 if port < 65535 else 1024
            went = replace(went, source_port=port)
        return went.inverted

    def _translate_error(self, connection: Connection, *, of_destination: bool) -> None:
        """nf_nat_icmp_reply_translation: the error and the packet that it quotes."""
        goal = connection.sent_on(self.tracked.direction)
        quoted = self.wire.about
        assert quoted is not None
        if of_destination:
            self.wire = replace(
                self.wire,
                destination=goal.destination,
                about=quoted.with_ends(source=(goal.destination, goal.destination_port)),
            )
            return
        forth = self.tracked.direction is ORIGINAL
        if not (connection.is_source_translated if forth else connection.is_destination_translated):
            return
        self.wire = replace(
            self.wire,
            source=goal.source,
            about=quoted.with_ends(destination=(goal.source, goal.source_port)),
        )

    # --- the packet as matches see it ---------------------------------------------------------

    def _packet(self, hook: Hook | None = None) -> dict[Field, int]:
        """All fields of the packet at a hook; by None as routing sees it."""
        wire, world, tracked = self.wire, self.firewall.world, self.tracked
        connection = tracked.connection
        before_way = hook is Hook.PREROUTING or hook is Hook.INPUT
        kind = world.kind(wire.destination)
        packet: dict[Field, int] = {
            Field.IIF: self.iif,
            Field.OIF: NOBODY if before_way or hook is None else self.out,
            Field.CT_STATE: State.UNTRACKED if self.is_untracked else tracked.state,
            Field.CT_HELPER: NOBODY,
            Field.FAMILY: wire.family,
            Field.SADDR: wire.source,
            Field.DADDR: wire.destination,
            Field.DADDR_TYPE: kind,
            Field.L4PROTO: wire.protocol,
            Field.CT_DIRECTION: tracked.direction,
            Field.SMAC: 0x02_00_00_00_00_01,
            Field.DSCP: 0 if self.dscp is None else self.dscp,
            Field.SIZE: wire.size,
            Field.IPSEC: 0,
            Field.SADDR_TYPE: world.kind(wire.source),
            Field.REVERSE_PATH: int(self._is_routed_back()),
            Field.SOURCE_ROUTED: 0,
            Field.ANSWER: 0,
            Field.TO_ASKER: 0,
            Field.DNATED: 0,
            Field.IPSEC_OUT: 0,
            Field.EXPECTED: 0,
        }
        if wire.family == 6:
            packet[Field.HOP_LIMIT] = 255 if tracked.because is Because.LEFT_ALONE else 64
        if wire.icmp_type is not None:
            icmp = {ICMP: Field.ICMP_TYPE, ICMPV6: Field.ICMPV6_TYPE}.get(wire.protocol)
            if icmp is not None:
                packet[icmp] = wire.icmp_type
        if wire.protocol in PORTED and wire.ports is not None:
            packet[Field.SPORT], packet[Field.DPORT] = wire.ports
        if wire.protocol == TCP:
            packet[Field.TCP_FLAGS] = wire.flags
        if wire.protocol == UDP and wire.ports is not None and self.iif != NOBODY:
            asked = (wire.destination, wire.ports[1], self.iif)
            packet[Field.ANSWER] = int(asked in self.firewall.questions)
            packet[Field.TO_ASKER] = int(wire.ports[1] in self.firewall.askers)
        if connection is not None:
            packet |= _of_connection(connection)
        return packet if self.iif == NOBODY else packet | self.firewall.given

    def _is_routed_back(self) -> bool:
        world = self.firewall.world
        if self.iif == NOBODY or world.kind(self.wire.source) is AddressType.LOCAL:
            return False
        return world.way(self.wire.source) == self.iif


def _of_connection(connection: Connection) -> dict[Field, int]:
    """The fields that all packets of a connection have."""
    found: dict[Field, int] = {
        Field.DNATED: int(connection.is_destination_translated),
        Field.EXPECTED: int(connection.is_expected),
        Field.ORIG_DADDR: connection.opened.destination,
    }
    if connection.opened.protocol in PORTED:
        found[Field.ORIG_DPORT] = connection.opened.destination_port
    if connection.master is not None and connection.master.helper is not None:
        found[Field.CT_HELPER] = name_range(connection.master.helper)[0]
    return found


def _is_settled(connection: Connection, of_destination: bool) -> bool:
    if of_destination:
        return connection.is_destination_settled
    return connection.is_source_settled


def _towards(wire: Wire, goal: Flow, *, of_destination: bool) -> Wire:
    if of_destination:
        return wire.with_ends(destination=(goal.destination, goal.destination_port))
    return wire.with_ends(source=(goal.source, goal.source_port))
