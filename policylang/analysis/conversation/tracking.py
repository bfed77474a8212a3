"""What conntrack knows, and what it makes of a packet: its state, and why it has it.

After nf_conntrack_core.c and nf_conntrack_expect.c. Rules and translations are not known here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto

from policylang.analysis.conversation.tcp import Odd, TcpState, after, is_possible
from policylang.analysis.conversation.wire import ECHOES, Flow, Wire
from policylang.packets.fields import ICMP, ICMPV6, TCP, TCP_RST, FlowDirection, State
from policylang.packets.values import V6_BASE

ORIGINAL, REPLY = FlowDirection.ORIGINAL, FlowDirection.REPLY

# What an ICMP error quotes a packet in: destination unreachable, source quench, redirect, time
# exceeded, parameter problem (nf_conntrack_icmpv4_error); of ICMPv6 all types below 128.
ERRORS_V4 = (3, 4, 5, 11, 12)
# Multicast listener and neighbour discovery (nf_conntrack_icmpv6_error); they are left alone.
LEFT_ALONE_V6 = (130, 131, 132, 133, 134, 135, 136, 143)


class Because(StrEnum):
    """Why a packet has its state."""

    OPENS = "opens"  # no connection of these ends is known
    AGAIN = "again"  # its connection has had no answer yet
    MIDDLE = "middle"  # no connection is known, and it begins in the middle of one
    ANSWERS = "answers"  # it travels against the way in which its connection was opened
    GOES_ON = "goes-on"  # its connection has been answered
    EXPECTED = "expected"  # no connection is known, and a helper predicted this one
    EXPECTED_AGAIN = "expected-again"  # of such a connection, which has had no answer yet
    ERROR = "error"  # an ICMP error about a packet of a connection
    REFUSAL = "refusal"  # this host's own answer to what it rejected
    BROKEN = "broken"  # its checksum or sequence number fits nothing
    IMPOSSIBLE_FLAGS = "impossible-flags"
    NO_BEGINNING = "no-beginning"  # no connection is known, and none begins so
    OUT_OF_STEP = "out-of-step"  # the state of its connection does not allow for it
    ERROR_ABOUT_NOTHING = "error-about-nothing"
    GIVEN = "given"  # because somebody says so
    NOT_TRACKED = "not-tracked"  # a rule says that conntrack leaves it alone
    LEFT_ALONE = "left-alone"  # conntrack never looks at its kind
    NOT_THERE = "not-there"  # nothing came as far as conntrack


class Follow(Enum):
    """How a predicted connection is translated, where the one that announced it was."""

    NOT = auto()
    MASTER = auto()  # as the announcing connection is (nf_nat_follow_master)
    ADDRESS = auto()  # to the address that was announced (nf_nat_sip_expected)


@dataclass(slots=True, eq=False)
class Connection:
    """A connection that conntrack follows (struct nf_conn).

    `answered` is the flow of its answers as they come in; with translation it is not just
    `opened` turned round. `number` counts connections in a story, from 1; `opened_by` is the
    number of its first packet. Where it was predicted, `master` announced it.
    """

    number: int
    opened: Flow
    answered: Flow
    opened_by: int
    is_icmp_query: bool = False
    master: Connection | None = None
    expectation: Expectation | None = None
    helper: str | None = None
    has_answer: bool = False
    is_confirmed: bool = False
    answered_by: int | None = None
    tcp: TcpState = TcpState.NONE
    is_closing: bool = False  # over TCP: a FIN was seen
    aborted_by: FlowDirection | None = None  # over TCP: who sent a reset as the last packet
    mark: int = 0
    is_source_settled: bool = False
    is_destination_settled: bool = False
    memory: dict[str, str] = field(default_factory=dict)  # what a helper keeps between packets

    @property
    def is_expected(self) -> bool:
        return self.master is not None

    @property
    def is_destination_translated(self) -> bool:
        """Whether the client dialled something else than where it was sent (IPS_DST_NAT)."""
        to = self.answered.inverted
        dialled = (self.opened.destination, self.opened.destination_port)
        return (to.destination, to.destination_port) != dialled

    @property
    def is_source_translated(self) -> bool:
        """Whether the server sees another client (IPS_SRC_NAT)."""
        seen = self.answered.inverted
        return (seen.source, seen.source_port) != (self.opened.source, self.opened.source_port)

    @property
    def is_translated(self) -> bool:
        return self.is_source_translated or self.is_destination_translated

    def may_begin_anew(self, direction: FlowDirection) -> bool:
        """Whether a SYN of that direction takes the place of the connection, which is closed."""
        return self.is_closing or self.aborted_by is direction

    def flow(self, direction: FlowDirection) -> Flow:
        """How packets of a direction look as they come in, before any translation."""
        return self.opened if direction is ORIGINAL else self.answered

    def sent_on(self, direction: FlowDirection) -> Flow:
        """How packets of a direction look as they go on, with all translations done."""
        return (self.answered if direction is ORIGINAL else self.opened).inverted


@dataclass(slots=True, eq=False)
class Expectation:
    """A connection that a helper waits for (struct nf_conntrack_expect).

    A `source` or `source_port` of None may be any; `source_prefix_len` is how much of the source
    counts. `saved` is where the one who announced it waits in truth, where the announcement was
    translated: an address and a port. `direction` is that of the master's packets which travel
    the same way as the one that opens the connection. `made_by` is the number of the packet that
    announced it.
    """

    master: Connection
    protocol: int
    source: int | None
    source_port: int | None
    destination: int
    destination_port: int
    direction: FlowDirection
    made_by: int
    saved: tuple[int, int] | None = None
    follow: Follow = Follow.NOT
    helper: str | None = None  # that the connection itself gets
    source_prefix_len: int | None = None
    is_permanent: bool = False

    def meets(self, flow: Flow) -> bool:
        """Whether a packet of this flow opens the connection."""
        return (
            flow.protocol == self.protocol
            and (flow.destination, flow.destination_port)
            == (self.destination, self.destination_port)
            and (self.source is None or self._is_source(flow.source))
            and self.source_port in (None, flow.source_port)
        )

    def _is_source(self, address: int) -> bool:
        if self.source_prefix_len is None:
            return address == self.source
        assert self.source is not None
        bits = 128 if address >= V6_BASE else 32
        shift = bits - self.source_prefix_len
        return address >> shift == self.source >> shift


@dataclass(frozen=True, slots=True)
class Tracked:
    """What conntrack says of a packet.

    `related` is the number of the packet that the reason speaks of: the one that opened or
    answered the connection, that announced it, or that an error is about.
    """

    state: State
    direction: FlowDirection
    because: Because
    connection: Connection | None
    related: int | None = None

    @property
    def is_first(self) -> bool:
        """Whether translations of this packet's connection may still be chosen."""
        return self.connection is not None and self.because in (
            Because.OPENS,
            Because.MIDDLE,
            Because.EXPECTED,
            Because.AGAIN,
            Because.EXPECTED_AGAIN,
            Because.GIVEN,
        )


def untracked(because: Because) -> Tracked:
    """What is said of a packet that conntrack leaves alone."""
    return Tracked(State.UNTRACKED, ORIGINAL, because, None)


def invalid(because: Because, connection: Connection | None = None) -> Tracked:
    """What is said of a packet that belongs to no connection.

    `connection` is the one that it looks to be of, for the story alone: rules see none.
    """
    related = None if connection is None else connection.opened_by
    return Tracked(State.INVALID, ORIGINAL, because, None, related)


class Table:
    """The connections and expectations of one host."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.expectations: list[Expectation] = []
        self._counted = 0

    def take(self, wire: Wire, number: int) -> Tracked:
        """What conntrack makes of a packet; `number` is the packet's own in the story."""
        if wire.protocol in (ICMP, ICMPV6) and wire.icmp_type is not None:
            if wire.protocol == ICMPV6 and wire.icmp_type in LEFT_ALONE_V6:
                return untracked(Because.LEFT_ALONE)
            if not wire.is_broken and _is_error(wire):
                return self._error(wire)
        if wire.is_broken:
            return invalid(Because.BROKEN, self._found(wire.flow)[0])
        if wire.protocol == TCP and not is_possible(wire.flags):
            return invalid(Because.IMPOSSIBLE_FLAGS)
        connection, direction = self._found(wire.flow)
        if connection is None:
            return self._begin(wire, number)
        if wire.protocol == TCP:
            step = after(connection.tcp, direction, wire.flags)
            if step is Odd.INVALID:
                return invalid(Because.OUT_OF_STEP, connection)
            if _begins_anew(connection.tcp, step):
                if connection.may_begin_anew(direction):
                    self.connections.remove(connection)
                    return self.take(wire, number)
                step = Odd.IGNORED
            if isinstance(step, TcpState):
                connection.is_closing |= step is TcpState.FIN_WAIT
                connection.tcp = step
            connection.aborted_by = direction if wire.flags & TCP_RST else None
            if wire.flags & TCP_RST and not connection.has_answer:
                self.connections.remove(connection)  # whose only answer was a refusal
        return self._of(connection, direction, number)

    def confirm(self, connection: Connection) -> None:
        """The connection's first packet has come through: it is remembered from now on."""
        if not connection.is_confirmed:
            connection.is_confirmed = True
            self.connections.append(connection)

    def expect(self, expectation: Expectation) -> None:
        """Wait for a connection; the same one twice is one."""
        self.expectations = [e for e in self.expectations if not _is_same(e, expectation)]
        self.expectations.append(expectation)

    def _found(self, flow: Flow) -> tuple[Connection | None, FlowDirection]:
        for connection in self.connections:
            for direction in FlowDirection:
                if connection.flow(direction) == flow:
                    return connection, direction
        return None, ORIGINAL

    def _begin(self, wire: Wire, number: int) -> Tracked:
        """A packet of no known connection."""
        tcp = TcpState.NONE
        if wire.protocol == TCP:
            step = after(TcpState.NONE, ORIGINAL, wire.flags)
            if not isinstance(step, TcpState):
                return invalid(Because.NO_BEGINNING)
            tcp = step
        elif wire.protocol in ECHOES and wire.icmp_type not in ECHOES[wire.protocol]:
            return invalid(Because.NO_BEGINNING)
        flow = wire.flow
        self._counted += 1
        connection = Connection(self._counted, flow, flow.inverted, number, tcp=tcp)
        found = next((e for e in self.expectations if e.meets(flow)), None)
        if found is None:
            because = Because.MIDDLE if tcp is TcpState.ESTABLISHED else Because.OPENS
            return Tracked(State.NEW, ORIGINAL, because, connection)
        if not found.is_permanent:
            self.expectations.remove(found)
        connection.master, connection.expectation = found.master, found
        connection.helper, connection.mark = found.helper, found.master.mark
        _follow(connection, found)
        return Tracked(State.RELATED, ORIGINAL, Because.EXPECTED, connection, found.made_by)

    def _of(self, connection: Connection, direction: FlowDirection, number: int) -> Tracked:
        """A packet of a known connection (resolve_normal_ct)."""
        opened_by = connection.opened_by
        if direction is REPLY:
            connection.has_answer = True
            if connection.answered_by is None:
                connection.answered_by = number
            return Tracked(State.ESTABLISHED, REPLY, Because.ANSWERS, connection, opened_by)
        if connection.has_answer:
            answered_by = connection.answered_by
            return Tracked(State.ESTABLISHED, ORIGINAL, Because.GOES_ON, connection, answered_by)
        if connection.is_expected:
            because = Because.EXPECTED_AGAIN
            return Tracked(State.RELATED, ORIGINAL, because, connection, opened_by)
        return Tracked(State.NEW, ORIGINAL, Because.AGAIN, connection, opened_by)

    def _error(self, wire: Wire) -> Tracked:
        """An ICMP error: RELATED to the connection of what it quotes (nf_conntrack_inet_error)."""
        if wire.about is None:
            return invalid(Because.ERROR_ABOUT_NOTHING)
        connection, direction = self._found(wire.about.flow.inverted)
        if connection is None or wire.destination != connection.flow(direction).destination:
            return invalid(Because.ERROR_ABOUT_NOTHING)
        opened_by = connection.opened_by
        return Tracked(State.RELATED, direction, Because.ERROR, connection, opened_by)


def _is_error(wire: Wire) -> bool:
    assert wire.icmp_type is not None
    return wire.icmp_type in ERRORS_V4 if wire.protocol == ICMP else wire.icmp_type < 128


def _begins_anew(before: TcpState, step: TcpState | Odd) -> bool:
    """Whether a SYN comes for a connection that is closed."""
    closed = (TcpState.TIME_WAIT, TcpState.CLOSE)
    return step is TcpState.SYN_SENT and before in closed


def _is_same(one: Expectation, other: Expectation) -> bool:
    """Two of one master for the same packets, of which the later stays."""
    ends = (
        (e.protocol, e.source, e.source_port, e.destination, e.destination_port)
        for e in (one, other)
    )
    first, second = ends
    return one.master is other.master and first == second


def _follow(connection: Connection, expectation: Expectation) -> None:
    """Translate a predicted connection as the one that announced it."""
    if expectation.follow is Follow.NOT:
        return
    assert expectation.saved is not None
    master, direction = expectation.master, expectation.direction
    address, port = expectation.saved
    opened = connection.opened
    source, is_settled = opened.source, expectation.follow is Follow.MASTER
    if is_settled or opened.source == master.flow(direction).source:
        # As what its sender says on the master comes to the other end.
        source, is_settled = master.flow(other(direction)).destination, True
    went = Flow(opened.protocol, source, opened.source_port, address, port)
    connection.answered = went.inverted
    connection.is_source_settled = is_settled
    connection.is_destination_settled = True


def other(direction: FlowDirection) -> FlowDirection:
    """The opposite direction."""
    return REPLY if direction is ORIGINAL else ORIGINAL
