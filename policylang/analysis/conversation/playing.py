"""The stage on which conversations are played: hosts that speak through the firewall.

A host answers to what it got, so addresses that were translated on the way are used as a real one
would use them. What is said is not known here (`scripts`).
"""

from __future__ import annotations

from dataclasses import dataclass

from policylang.analysis.conversation.firewall import Carried, Firewall
from policylang.analysis.conversation.story import Event, PacketEvent, Remark, Story
from policylang.analysis.conversation.tcp import TcpState, after
from policylang.analysis.conversation.tracking import Because, Connection, Tracked, other
from policylang.analysis.conversation.wire import Message, Wire
from policylang.analysis.conversation.world import Host, family_of
from policylang.analysis.surroundings import NOBODY
from policylang.analysis.walking import Verdict
from policylang.ir import actions as ir
from policylang.packets.fields import (
    ICMP,
    ICMPV6,
    TCP,
    TCP_ACK,
    TCP_FIN,
    TCP_PSH,
    TCP_RST,
    TCP_SYN,
    AddressType,
    FlowDirection,
    State,
)

End = tuple[int, int]  # an address and a port

# RFC 792, RFC 4443: what `reject` answers with, but for the reset.
UNREACHABLE = {4: (ICMP, 3), 6: (ICMPV6, 1)}


class Died(Exception):  # noqa: N818 (not an error of the program: how a conversation may end)
    """A packet did not arrive, and without it the conversation does not go on."""

    def __init__(self, event: PacketEvent) -> None:
        super().__init__(event.number)
        self.event = event


@dataclass(slots=True)
class Link:
    """A connection as its two ends see it.

    `near` is who opens it, `far` what it dials, both from the opener's side. What the other side
    sees (`seen` as the opener, `place` as its own) is known once a packet has come there.
    """

    label: str
    protocol: int
    opener: Host
    near: End
    far: End
    acceptor: Host | None = None
    seen: End = (0, 0)
    place: End = (0, 0)
    is_established: bool = False

    @property
    def family(self) -> int:
        return family_of(self.near[0])


class Stage:
    """Where one conversation is played; `events` is what has happened so far.

    `helper` is the one that announced what is said to be RELATED.
    """

    def __init__(
        self, firewall: Firewall, hosts: tuple[Host, ...], helper: str | None = None
    ) -> None:
        self.firewall = firewall
        self.helper = helper
        self.hosts = list(hosts)
        self.events: list[Event] = []
        self.number = 0

    @property
    def last(self) -> PacketEvent:
        """The packet that was sent last; there must have been one."""
        return next(e for e in reversed(self.events) if isinstance(e, PacketEvent))

    def story(self, died: PacketEvent | None) -> Story:
        return Story(tuple(self.hosts), tuple(self.events), died)

    def remark(self, text: str) -> None:
        self.events.append(Remark(text))

    # --- whole connections --------------------------------------------------------------------

    def dial(self, label: str, protocol: int, opener: Host, near_port: int, far: End) -> Link:
        """A connection that is about to be opened; nothing is sent yet."""
        return Link(label, protocol, opener, (opener.address, near_port), far)

    def connect(self, label: str, opener: Host, near_port: int, far: End) -> Link:
        """Open a connection over TCP, with the three packets of the handshake."""
        link = self.dial(label, TCP, opener, near_port, far)
        self.forth(link, flags=TCP_SYN)
        self.back(link, flags=TCP_SYN | TCP_ACK)
        self.forth(link, flags=TCP_ACK)
        link.is_established = True
        return link

    def close(self, link: Link, *, by_opener: bool = True) -> None:
        """End a connection over TCP, with three packets."""
        first, second = (self.forth, self.back) if by_opener else (self.back, self.forth)
        first(link, flags=TCP_FIN | TCP_ACK)
        second(link, flags=TCP_FIN | TCP_ACK)
        first(link, flags=TCP_ACK)

    # --- single packets -----------------------------------------------------------------------

    def forth(
        self,
        link: Link,
        message: Message | None = None,
        *,
        flags: int | None = None,
        state: State | None = None,
    ) -> Message | None:
        """Send a packet the way in which the connection was opened; returns what arrived."""
        wire = self._wire(link, link.near, link.far, message, flags)
        goal = link.acceptor or self.expected_at(link.far[0], link.opener)
        event = self.send(link.label, link.opener, goal, wire, state=state)
        arrived = event.carried.last
        link.acceptor = event.receiver
        source, destination = arrived.ports or (0, 0)
        link.seen = (arrived.source, source)
        link.place = (self.answers_from(event), destination)
        return arrived.message

    def back(
        self,
        link: Link,
        message: Message | None = None,
        *,
        flags: int | None = None,
        state: State | None = None,
    ) -> Message | None:
        """Send a packet the other way; returns what arrived."""
        assert link.acceptor is not None
        wire = self._wire(link, link.place, link.seen, message, flags)
        event = self.send(link.label, link.acceptor, link.opener, wire, state=state)
        return event.carried.last.message

    def _wire(
        self, link: Link, source: End, destination: End, message: Message | None, flags: int | None
    ) -> Wire:
        if flags is None:
            flags = TCP_PSH | TCP_ACK if link.protocol == TCP else 0
        size = 40 if link.family == 4 else 60
        return Wire(
            link.family,
            link.protocol,
            source[0],
            destination[0],
            (source[1], destination[1]),
            flags if link.protocol == TCP else 0,
            message=message,
            size=size + (len(message.text) if message is not None else 20),
        )

    def send(
        self,
        label: str,
        sender: Host,
        receiver: Host,
        wire: Wire,
        *,
        state: State | None = None,
    ) -> PacketEvent:
        """Send a packet; raises `Died` where it does not come through.

        `state` is what conntrack says of it, where that is not for conntrack to find out.
        """
        self.number += 1
        tracked = None if state is None else self._given(wire, state)
        carried = self.firewall.carry(wire, sender.interface, self.number, tracked=tracked)
        if carried.verdict is Verdict.PASSES:
            receiver = self._at(carried)
        event = PacketEvent(self.number, sender, receiver, wire, carried, label)
        self.events.append(event)
        if not event.passed:
            self._refuse(event)
            raise Died(event)
        return event

    def _given(self, wire: Wire, state: State) -> Tracked | None:
        """What conntrack says of a packet of which somebody else tells the state."""
        direction = FlowDirection.ORIGINAL
        if state is State.NEW:
            return None
        if state in (State.INVALID, State.UNTRACKED):
            return Tracked(state, direction, Because.GIVEN, None)
        number, flow = self.number, wire.flow
        connection = Connection(0, flow, flow.inverted, number)
        if state is State.RELATED:
            begins = after(TcpState.NONE, direction, wire.flags)
            if wire.protocol == TCP and isinstance(begins, TcpState):
                connection.tcp = begins
            connection.master = Connection(0, flow, flow.inverted, number, helper=self.helper)
        else:
            connection.has_answer = True
            connection.is_source_settled = connection.is_destination_settled = True
            connection.tcp = TcpState.ESTABLISHED if wire.protocol == TCP else TcpState.NONE
            self.firewall.table.confirm(connection)  # so that its answers are known
        return Tracked(state, direction, Because.GIVEN, connection)

    def answers_from(self, event: PacketEvent) -> int:
        """The address from which a packet that arrived is answered: never from that of a group."""
        address = event.carried.last.destination
        kind = self.firewall.world.kind(address)
        is_one = kind in (AddressType.LOCAL, AddressType.UNICAST)
        return address if is_one else event.receiver.address

    def _at(self, carried: Carried) -> Host:
        """Who gets a packet that came through."""
        if carried.out == NOBODY:
            return next(host for host in self.hosts if host.is_firewall)
        return self._host(carried.last.destination, carried.out)

    def neighbour(self, host: Host, name: str) -> Host:
        """Another machine in the network of one, which takes part from now on."""
        neighbour = Host(name, self.firewall.world.beside(host.address), host.interface)
        self.hosts.append(neighbour)
        return neighbour

    def expected_at(self, address: int, sender: Host) -> Host:
        """Who is to get a packet to that address, for all that its sender knows."""
        for host in self.hosts:
            if host.address == address and host is not sender:
                return host
        own = any(address in held for held in self.firewall.world.own.values())
        others = [h for h in self.hosts if h is not sender and h.is_firewall == own]
        return (others or [h for h in self.hosts if h is not sender])[0]

    def _host(self, address: int, interface: int) -> Host:
        for host in self.hosts:
            if host.address == address and not host.is_firewall:
                return host
        taken = {host.name for host in self.hosts}
        name = next(n for n in ("server", "another host", f"host {address}") if n not in taken)
        host = Host(name, address, interface)
        self.hosts.append(host)
        return host

    # --- what the firewall answers --------------------------------------------------------------

    def _refuse(self, event: PacketEvent) -> None:
        """What a rule that rejects answers; what this host itself tried is told without a packet.

        The answer belongs to the connection that does not come about (nf_conntrack_attach).
        """
        if event.decider is None or event.sender.is_firewall:
            return
        act = event.decider.line.act
        if not isinstance(act, ir.Reject) or event.carried.verdict is not Verdict.REJECTED:
            return
        wire = event.carried.last
        tracked = None
        if (connection := event.carried.tracked.connection) is not None:
            direction = other(event.carried.tracked.direction)
            tracked = Tracked(State.RELATED, direction, Because.REFUSAL, connection, event.number)
        answer = self._answer(act, wire, event)
        self.number += 1
        firewall = next(host for host in self.hosts if host.is_firewall)
        carried = self.firewall.carry(answer, NOBODY, self.number, tracked=tracked)
        self.events.append(
            PacketEvent(self.number, firewall, event.sender, answer, carried, event.link)
        )

    def _answer(self, act: ir.Reject, wire: Wire, event: PacketEvent) -> Wire:
        if act.answer is ir.Answer.TCP_RESET and wire.protocol == TCP:
            assert wire.ports is not None
            return Wire(
                wire.family,
                TCP,
                wire.destination,
                wire.source,
                (wire.ports[1], wire.ports[0]),
                TCP_RST | TCP_ACK,
                size=40,
            )
        protocol, icmp_type = UNREACHABLE[wire.family]
        own = self.firewall.world.own_address(event.sender.interface, wire.family)
        return Wire(
            wire.family,
            protocol,
            wire.destination if own is None else own,
            wire.source,
            icmp_type=icmp_type,
            about=wire,
            message=Message(act.answer.value, act.answer.value),
        )
