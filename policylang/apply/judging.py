"""First packets of connections, put together again, and what rules would make of them.

What is not known of such a packet (the interface behind ambiguous routes, rates, times, members
of dynamic sets) may be anything. It reads no kernel: routes and connections are handed to it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator

from policylang.apply import conntrack
from policylang.apply.conntrack import Connection, Expectation, FlowTuple
from policylang.apply.routing import Routing
from policylang.ir.actions import TransparentProxy
from policylang.ir.origin import Origin, joined
from policylang.ir.ruleset import DynamicSet, Lookup, Ruleset
from policylang.ir.stages import Path, Stage
from policylang.ir.walk import Possible, Walker
from policylang.packets.cube import Cube
from policylang.packets.fields import (
    ADDRESS_FIELDS,
    ADDRESS_TYPES,
    DCCP,
    NAMES,
    PORT_FIELDS,
    SADDR_TESTS,
    SCTP,
    TCP,
    TCP_ACK,
    TCP_RST,
    TCP_SYN,
    UDP,
    AddressType,
    Field,
    FlowDirection,
    State,
    with_flags,
)
from policylang.packets.values import V6_BASE, Ranges, name_range

PORTED = (TCP, UDP, DCCP, SCTP)

TCP_ECN = 0xC0  # CWR and ECE, which a first packet may have beside SYN (RFC 3168 section 6.1.1)
OPENING = Ranges.of(TCP_SYN, *(TCP_SYN | bits for bits in (0x40, 0x80, TCP_ECN)))
AMIDST = with_flags(TCP_SYN | TCP_ACK | TCP_RST, TCP_ACK)
OF_NO_MATTER = ADDRESS_TYPES - Ranges.of(
    AddressType.LOCAL, AddressType.BROADCAST, AddressType.ANYCAST, AddressType.MULTICAST
)
TO_SEVERAL = (AddressType.BROADCAST, AddressType.ANYCAST, AddressType.MULTICAST)
LOOPBACK = frozenset({"lo"})
ELSEWHERE = NAMES - Ranges((name_range("lo"),))  # what comes from other machines, wherever it does

Told = int | Ranges  # one value, or several of which it is one
Packet = dict[Field, Told]
Place = tuple[Path, Packet]  # a path, and the interfaces of a packet on it

STAGES = (Stage.SCREEN, Stage.SCREEN_STATE, Stage.FILTER)
NEW_OR_UNTRACKED = Ranges.of(State.NEW, State.UNTRACKED)
OF_ARRIVAL = (Field.IIF, Field.REVERSE_PATH)
UNTRANSLATED = (Field.DNATED, Field.ORIG_DADDR, Field.ORIG_DPORT)
JUDGED_BY = conntrack.EXPECTED | conntrack.DESTINATION_TRANSLATED


class Judge:
    """Says whether packets may begin a connection; the same answers are worked out once."""

    def __init__(
        self,
        ruleset: Ruleset,
        routes: Routing,
        target: str | None = None,
        *,
        is_alone: bool = False,
    ) -> None:
        self.walker = Walker(ruleset, target, is_alone=is_alone)
        self.routes = routes
        places = [(stage, path) for stage in STAGES for path in Path]
        self.borders = {place: self.walker.borders(*place) for place in places}
        self.asks_for_interfaces = any(
            f in borders for borders in self.borders.values() for f in (*OF_ARRIVAL, Field.OIF)
        )
        # What conntrack is kept from is open all the same.
        is_tracked = all(base.stage is not Stage.UNTRACK for base in ruleset.bases)
        self.unknown_to_it: Told = State.NEW if is_tracked else NEW_OR_UNTRACKED
        # What a transparent proxy takes, or sends, has addresses that are not this host's.
        self.has_proxy = any(
            isinstance(one.action, TransparentProxy)
            for chain in ruleset.chains
            for item in chain.items
            for one in (item.entries if isinstance(item, Lookup) else (item,))
        )
        self.answers: dict[tuple[object, ...], bool] = {}
        self.patterns: dict[frozenset[str] | None, Ranges] = {None: ELSEWHERE}
        self.limits = {kind: self._limits(kind) for kind in (ADDRESS_FIELDS, PORT_FIELDS)}
        self.alike: dict[int, tuple[object, ...]] = {}

    def _limits(self, fields: tuple[Field, ...]) -> tuple[int, ...]:
        """The borders of all these fields on all places together."""
        found = (n for b in self.borders.values() for f in fields for n in b.get(f, ()))
        return tuple(sorted(set(found)))

    def ask_for_ways(self, connections: Iterable[Connection]) -> None:
        if self.asks_for_interfaces:
            ways = (way for c in connections for way in (c.original, c.reply))
            self.routes.ask(address for w in ways for address in (w.source, w.destination))

    def client_end(self, one: Connection) -> int:
        """The address by which it is told where a connection's own packets come from or go."""
        is_own = self.routes.is_own(one.original.source)
        return one.reply.source if is_own else one.original.source

    def _once(self, what: str, key: tuple[object, ...], answer: Callable[[], bool]) -> bool:
        kept = (what, *key)
        if kept not in self.answers:
            self.answers[kept] = answer()
        return self.answers[kept]

    def _kind_of(self, ends: FlowTuple) -> tuple[object, ...]:
        """What is the same for all ends that nothing in the ruleset tells apart."""
        ports = self.limits[PORT_FIELDS]
        return (
            self._alike(ends.source),
            self._alike(ends.destination),
            ends.protocol,
            ends.source_port and bisect_right(ports, ends.source_port),
            ends.destination_port and bisect_right(ports, ends.destination_port),
            ends.icmp_type,
        )

    def _alike(self, address: int) -> tuple[object, ...]:
        known = self.alike.get(address)
        if known is None:
            known = self.alike[address] = (
                address >= V6_BASE,
                bisect_right(self.limits[ADDRESS_FIELDS], address),
                self.routes.type_of(address),
                self.routes.interfaces(address) if self.asks_for_interfaces else None,
                *self.walker.tested(Field.SADDR, address).values(),
            )
        return known

    def may_begin(self, one: Connection, master: Connection | None) -> bool:
        """Whether a first packet of a connection may pass all that is on its way."""
        helper = None if master is None else master.helper
        key = (
            *self._kind_of(one.original),
            *self._kind_of(one.reply),
            one.status & JUDGED_BY,
            helper,
        )
        return self._once("begin", key, lambda: self._may_begin(one, helper))

    def _may_begin(self, one: Connection, helper: str | None) -> bool:
        first, seen = one.original, one.reply
        filtered = FlowTuple(
            first.family,
            first.protocol,
            first.source,
            seen.source,
            first.source_port,
            seen.source_port,
            first.icmp_type,
        )
        tags: Packet = {
            Field.CT_STATE: State.RELATED if one.is_expected else self.unknown_to_it,
            Field.CT_DIRECTION: FlowDirection.ORIGINAL,
            Field.EXPECTED: int(one.is_expected),
            Field.DNATED: int(one.is_sent_elsewhere),
            Field.ORIG_DADDR: first.destination,
        }
        if first.destination_port is not None:
            tags[Field.ORIG_DPORT] = first.destination_port
        if one.is_expected and helper is not None:
            tags[Field.CT_HELPER] = name_range(helper)[0]
        return self._may_pass(filtered, first, tags)

    def may_come(self, one: Expectation, master: Connection | None) -> bool:
        """Whether a connection that is expected may come, whoever opens it."""
        tags: Packet = {
            Field.CT_STATE: State.RELATED,
            Field.CT_DIRECTION: FlowDirection.ORIGINAL,
            Field.EXPECTED: 1,
        }
        helper = one.helper if master is None or master.helper is None else master.helper
        if helper is not None:
            tags[Field.CT_HELPER] = name_range(helper)[0]
        packet = {**_fields(one.first), **tags}
        if _is_from_anywhere(one):
            packet.pop(Field.SADDR)
        if not one.mask.source_port:
            packet.pop(Field.SPORT, None)
        if one.is_translated:  # where to is known once it has come
            packet.pop(Field.DADDR)
            packet.pop(Field.DPORT, None)
        return any(
            self._walk(Stage.FILTER, path, {**packet, **interfaces}).may_accept
            for path, interfaces in self._places(one)
        )

    def _places(self, one: Expectation) -> tuple[Place, ...]:
        """All that its first packet may pass, where either end may not be known."""
        first, is_from_anywhere = one.first, _is_from_anywhere(one)
        if not is_from_anywhere and not one.is_translated:
            return tuple(place for way in self._ways(first) for place in way)
        coming, leaving = self._by(Field.IIF, None), self._by(Field.OIF, None)
        if not is_from_anywhere:
            coming = self._way(Field.IIF, first.source)
        if not one.is_translated:
            leaving = self._way(Field.OIF, first.destination)
        entering, going_out = (Path.INPUT, coming), (Path.OUTPUT, leaving)
        passing = (Path.FORWARD, {**coming, **leaving})
        if one.is_translated:
            return (entering, passing, going_out)
        return (entering,) if self.routes.is_own(first.destination) else (passing, going_out)

    def may_return(self, one: Connection) -> bool:
        """Whether packets of the other end of a TCP connection may begin one."""
        if one.original.protocol != TCP:
            return False
        return self._once("return", self._kind_of(one.reply), lambda: self._may_return(one))

    def _may_return(self, one: Connection) -> bool:
        back = FlowTuple(
            one.reply.family,
            TCP,
            one.reply.source,
            one.reply.destination,
            one.reply.source_port,
            one.reply.destination_port,
        )
        tags: Packet = {Field.CT_STATE: self.unknown_to_it, Field.EXPECTED: 0}
        return self._may_pass(back, back, tags, is_opening=False)

    def of_newcomer(self, first: FlowTuple, held: frozenset[str] | None = None) -> Possible:
        """What may become of the first packet of a connection that nothing translates.

        `held` are the dynamic sets that its source is in; None where that is not known.
        """
        return self._of(first, self.unknown_to_it, held, is_opening=True)

    def of_open(self, ends: FlowTuple, held: frozenset[str] | None = None) -> Possible:
        """The same of a later packet of that connection, from the side that opened it, by TCP."""
        return self._of(ends, State.ESTABLISHED, held, is_opening=False)

    def _of(
        self, first: FlowTuple, state: Told, held: frozenset[str] | None, *, is_opening: bool
    ) -> Possible:
        tags: Packet = {
            Field.CT_STATE: state,
            Field.CT_DIRECTION: FlowDirection.ORIGINAL,
            Field.EXPECTED: 0,
            Field.DNATED: 0,
            Field.ORIG_DADDR: first.destination,
        }
        if held is not None:
            asked = zip(SADDR_TESTS, self.walker.ruleset.address_tests, strict=False)
            tags |= {t: int(a.name in held) for t, a in asked if isinstance(a, DynamicSet)}
        may_accept = may_deny = False
        accepting: list[tuple[Origin, ...]] = []
        denying: list[tuple[Origin, ...]] = []
        for way in self._ways(first):
            met = list(self._met_on(way, first, first, tags, is_opening=is_opening))
            may_accept |= all(one.may_accept for one in met)
            may_deny |= any(one.may_deny for one in met)
            accepting += (one.accepting for one in met)
            denying += (one.denying for one in met)
        return Possible(may_accept, may_deny, joined(*accepting), joined(*denying))

    def _may_pass(
        self, filtered: FlowTuple, arriving: FlowTuple, tags: Packet, *, is_opening: bool = True
    ) -> bool:
        """Whether a packet may pass on any of the ways that it may take."""
        return any(
            all(
                one.may_accept
                for one in self._met_on(way, filtered, arriving, tags, is_opening=is_opening)
            )
            for way in self._ways(filtered)
        )

    def _met_on(
        self,
        way: tuple[Place, ...],
        filtered: FlowTuple,
        arriving: FlowTuple,
        tags: Packet,
        *,
        is_opening: bool = True,
    ) -> Iterator[Possible]:
        """What each place on a way may make of a packet, which screens meet as it arrives."""
        packet = {**_fields(filtered), **self._types(filtered), **tags}
        early = {**_fields(arriving), **self._types(arriving)}
        if not is_opening:
            for seen in (packet, early):
                seen[Field.TCP_FLAGS] = AMIDST
        late = {f: v for f, v in {**early, **tags}.items() if f not in UNTRANSLATED}
        for path, interfaces in way:
            if path is not Path.OUTPUT:
                came_by: Packet = {f: v for f, v in interfaces.items() if f in OF_ARRIVAL}
                yield self._walk(Stage.SCREEN, Path.INPUT, {**early, **came_by})
                yield self._walk(Stage.SCREEN_STATE, Path.INPUT, {**late, **came_by})
            yield self._walk(Stage.FILTER, path, {**packet, **interfaces})

    def _ways(self, ends: FlowTuple) -> tuple[tuple[Place, ...], ...]:
        """The ways that packets may take between two ends; each is all that they pass."""
        to = self.routes.type_of(ends.destination)
        is_own = self.routes.is_own(ends.source)
        if is_own and to is AddressType.LOCAL:
            return (
                (
                    (Path.OUTPUT, self._by(Field.OIF, LOOPBACK)),
                    (Path.INPUT, self._by(Field.IIF, LOOPBACK)),
                ),
            )
        coming, leaving = self._way(Field.IIF, ends.source), self._way(Field.OIF, ends.destination)
        if self.asks_for_interfaces and len(self.routes.interfaces(ends.source) or ()) == 1:
            coming |= {Field.REVERSE_PATH: 1}  # it is by this route that it is thought to come
        entering = ((Path.INPUT, coming),)
        passing = ((Path.FORWARD, {**coming, **leaving}),)
        going_out = ((Path.OUTPUT, leaving),)
        if is_own:
            return (going_out,)
        if to is AddressType.LOCAL:
            return (entering,)
        if to in TO_SEVERAL:
            return (entering, passing)
        return (passing, entering, going_out) if self.has_proxy else (passing,)

    def _way(self, f: Field, address: int) -> Packet:
        return self._by(f, self.routes.interfaces(address) if self.asks_for_interfaces else None)

    def _by(self, f: Field, names: frozenset[str] | None) -> Packet:
        if names not in self.patterns:
            self.patterns[names] = Ranges.merged(name_range(name) for name in names or ())
        return {f: self.patterns[names]}

    def _types(self, ends: FlowTuple) -> Packet:
        types = (
            (Field.SADDR_TYPE, self.routes.type_of(ends.source)),
            (Field.DADDR_TYPE, self.routes.type_of(ends.destination)),
        )
        return {f: OF_NO_MATTER if t is AddressType.UNICAST else t for f, t in types}

    def _walk(self, stage: Stage, path: Path, packet: Packet) -> Possible:
        told_of = ((f, packet[f]) for f in self.borders[stage, path] if f in packet)
        cube = Cube.of({f: Ranges.of(v) if isinstance(v, int) else v for f, v in told_of})
        return self.walker.walk(stage, path, cube)


def _is_from_anywhere(one: Expectation) -> bool:
    return one.mask.source in (0, V6_BASE)


def _fields(ends: FlowTuple) -> Packet:
    """What a first packet says of itself."""
    found: Packet = {
        Field.FAMILY: ends.family,
        Field.SADDR: ends.source,
        Field.DADDR: ends.destination,
        Field.L4PROTO: ends.protocol,
    }
    if ends.protocol in PORTED:
        if ends.source_port is not None:
            found[Field.SPORT] = ends.source_port
        if ends.destination_port is not None:
            found[Field.DPORT] = ends.destination_port
    if ends.protocol == TCP:
        found[Field.TCP_FLAGS] = OPENING
    if ends.icmp_type is not None:
        found[Field.ICMP_TYPE if ends.family == 4 else Field.ICMPV6_TYPE] = ends.icmp_type
    return found
