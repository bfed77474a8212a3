"""What is emitted for iptables translates packets as it says, on both flavours and both families.

Packets are thrown at one wire of a router and looked at where they leave by another.
"""

from __future__ import annotations

import socket
from collections import Counter

import pytest

from policylang.ir.actions import (
    Action,
    ConnectionsGuard,
    DestinationNat,
    End,
    Guard,
    Leave,
    MapPrefix,
    Masquerade,
    RateGuard,
    RedirectToSelf,
    SourceNat,
)
from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import Entry, Item, Lookup, Rule, Ruleset
from policylang.ir.stages import Path
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import ICMP, ICMPV6, TCP, UDP, UNIVERSE, AddressType, Field
from policylang.packets.values import Ranges, name_range
from policylang.source import SourceFile, Span
from tests.backends.iptables_routing import (
    Routing,
    by,
    laid,
    of_family,
    only,
    routing,
    span,
    to_world,
)
from tests.backends.iptables_station import (
    DSTNAT,
    FAMILIES,
    FORWARD,
    PASS,
    SRCNAT,
    counted,
)
from tests.backends.nft_router import WORLD, host, opened
from tests.backends.nft_station import FAR, OWN, Packet, ruleset

__all__ = ["laid", "routing"]

ARRIVING, LEAVING = DSTNAT[Path.INPUT], DSTNAT[Path.OUTPUT]


OUT = Cube.of({Field.OIF: by("eth1")})
OF_UDP = Cube.of({Field.L4PROTO: Ranges.of(UDP)})
TO_53 = Cube.of({Field.L4PROTO: Ranges.of(TCP, UDP), Field.DPORT: Ranges.of(53)})


def leaving(*rules: tuple[Cube, Action], guards: tuple[Guard, ...] = ()) -> Ruleset:
    return ruleset({SRCNAT: [Rule(cube, action, guards) for cube, action in rules]})


def arriving(*rules: tuple[Cube, Action], guards: tuple[Guard, ...] = ()) -> Ruleset:
    return ruleset({ARRIVING: [Rule(cube, action, guards) for cube, action in rules]})


# --- the source ------------------------------------------------------------------------------


def test_masquerading_takes_the_address_of_the_way_out(routing: Routing) -> None:
    routing.load(leaving((OUT, Masquerade())))
    for family in FAMILIES:
        out = to_world(family)
        back = Packet(host("eth1", family, 3), host("eth0", family, 5), wire="eth1")
        (seen, other) = routing.carry(out, back)
        assert (seen.source, seen.ports) == (OWN["eth1"][family], (40000, 53))
        assert other.source == back.source, "what leaves by another wire is not meant"


def test_masquerading_with_ports(routing: Routing) -> None:
    """The ports are for what has ports; what has none is masqueraded all the same."""
    routing.load(leaving((OUT, Masquerade(ports=(2000, 2009)))))
    for family in FAMILIES:
        protocols = (UDP, TCP)
        ported = routing.carry(*(to_world(family, protocol=number) for number in protocols))
        assert all(2000 <= seen.ports[0] <= 2009 for seen in ported)
        echo = {4: ICMP, 6: ICMPV6}[family]
        kind = {4: 8, 6: 128}[family]
        (seen,) = routing.carry(to_world(family, protocol=echo, icmp_type=kind))
        assert {s.source for s in (*ported, seen)} == {OWN["eth1"][family]}


@pytest.mark.parametrize("is_random", [True, False])
def test_masquerading_with_ports_at_random(routing: Routing, is_random: bool) -> None:
    routing.load(leaving((OUT, Masquerade(is_random=is_random))))
    for family in FAMILIES:
        ports = range(41000, 41016)
        found = routing.carry(*(to_world(family, ports=(port, 53)) for port in ports))
        kept = [port for port, seen in zip(ports, found, strict=True) if seen.ports[0] == port]
        assert kept == list(ports) if not is_random else len(kept) < 4


def test_a_source_becomes_one_of_a_range(routing: Routing) -> None:
    """Ports too; with `persistent` it depends on the client alone."""
    pools = {4: span("198.51.100.30", "198.51.100.37"), 6: span("2001:db8:2::30", "2001:db8:2::37")}
    for family, pool in pools.items():
        stem = {4: "198.51.100.3", 6: "2001:db8:2::3"}[family]
        members = {f"{stem}{n}" for n in range(8)}

        def sources(client: int) -> set[str]:
            """Of connections of one client to many others, each from a port of its own."""
            packets = (
                to_world(family, client, destination=host("eth1", family, n), ports=(5000 + n, 53))  # noqa: B023
                for n in range(2, 26)
            )
            found = routing.carry(*packets)
            assert all(3000 <= seen.ports[0] <= 3999 for seen in found)
            return {seen.source for seen in found}

        for is_persistent in (False, True):
            nat = SourceNat(pool, ports=(3000, 3999), is_persistent=is_persistent)
            routing.load(leaving((OUT & of_family(family), nat)))
            clients = [sources(number) for number in range(5, 12)]
            assert set().union(*clients) <= members
            assert len(set().union(*clients)) > 2
            assert {len(some) == 1 for some in clients} == {is_persistent}


def test_a_source_becomes_another(routing: Routing) -> None:
    """Of one family alone: the file of the other has no line of it."""
    routing.load(leaving((OUT, SourceNat(span("198.51.100.30"), is_random=True))))
    (v4,) = routing.carry(to_world(4))
    (v6,) = routing.carry(to_world(6))
    assert (v4.source, v6.source) == ("198.51.100.30", host("eth0", 6, 5))
    routing.load(leaving((OUT, SourceNat(span("2001:db8:2::30"), ports=(7, 7)))))
    (v4,) = routing.carry(to_world(4))
    (v6,) = routing.carry(to_world(6))
    assert (v4.source, v6.source, v6.ports[0]) == (host("eth0", 4, 5), "2001:db8:2::30", 7)


def test_the_way_in_is_known_on_the_way_out(routing: Routing) -> None:
    """In chains of our own, where iptables takes `-i`; own packets came by no interface at all."""
    for names, is_met in ((by("eth0"), True), (by("eth1"), False), (by("e*"), True)):
        for values, holds in ((names, is_met), (UNIVERSE[Field.IIF] - names, not is_met)):
            routing.load(leaving((OUT & Cube.of({Field.IIF: values}), SourceNat(V4_POOL))))
            (seen,) = routing.carry(to_world(4))
            assert (seen.source == "198.51.100.30") is holds, (names, holds)
            assert own_source(routing, 4) == OWN["eth1"][4]
            routing.load(leaving((OUT & Cube.of({Field.IIF: values}), SourceNat(V6_POOL))))
            (seen,) = routing.carry(to_world(6))
            assert (seen.source == "2001:db8:2::30") is holds, (names, holds)
            assert own_source(routing, 6) == OWN["eth1"][6]


def test_a_lookup_of_the_way_in_is_not_for_own_packets(routing: Routing) -> None:
    """Though an entry holds all names that there are."""
    fields = (Field.IIF, Field.DPORT)
    keys = (
        (name_range("eth1"), (1, 9)),
        (name_range("*"), (53, 53)),
        (name_range("*"), (4242,) * 2),
    )
    entries = tuple(Entry(key, SourceNat(V4_POOL)) for key in keys)
    routing.load(ruleset({SRCNAT: [Lookup(OUT & OF_UDP, fields, entries)]}))
    (seen,) = routing.carry(to_world(4))
    assert (seen.source, own_source(routing, 4)) == ("198.51.100.30", OWN["eth1"][4])


V4_POOL, V6_POOL = span("198.51.100.30"), span("2001:db8:2::30")


def own_source(routing: Routing, family: int) -> str:
    """By which source a datagram of the firewall itself leaves."""
    with opened(routing.router, family, socket.SOCK_DGRAM) as sender:
        routing.router.heard()
        sender.sendto(b"own", (WORLD[family], 4242))
    (seen,) = (s for s in routing.router.heard() if s.ports[1] == 4242)
    return seen.source


def test_own_packets_have_a_local_source(routing: Routing) -> None:
    local = Cube.of({Field.SADDR_TYPE: Ranges.of(AddressType.LOCAL)})
    for family, pool in ((4, V4_POOL), (6, V6_POOL)):
        routing.load(leaving((OUT & local, SourceNat(pool))))
        (seen,) = routing.carry(to_world(family))
        assert seen.source == host("eth0", family, 5)
        assert own_source(routing, family) == {4: "198.51.100.30", 6: "2001:db8:2::30"}[family]


def test_what_leaves_inside_ipsec_is_told_apart(routing: Routing) -> None:
    """None does here: this kernel has no transforms."""
    for value, holds in ((0, True), (1, False)):
        routing.load(leaving((OUT & Cube.of({Field.IPSEC_OUT: Ranges.of(value)}), Masquerade())))
        for family in FAMILIES:
            (seen,) = routing.carry(to_world(family))
            assert (seen.source == OWN["eth1"][family]) is holds


def test_the_first_that_matches_decides(routing: Routing) -> None:
    """Leaving the stage is deciding, too."""
    spared = OUT & Cube.of({Field.DADDR: only(host("eth1", 4, 7), host("eth1", 6, 7))})
    routing.load(leaving((spared, Leave()), (OUT, Masquerade()), (OUT, SourceNat(V4_POOL))))
    for family in FAMILIES:
        far = host("eth1", family, 7)
        (kept, taken) = routing.carry(to_world(family, destination=far), to_world(family))
        assert (kept.source, taken.source) == (host("eth0", family, 5), OWN["eth1"][family])


def test_several_lines_are_one_rule_to_what_counts(routing: Routing) -> None:
    """Of three connections two are translated, whatever lines they meet."""
    guards = (RateGuard(1, "hour", 2),)
    routing.load(leaving((OUT, Masquerade(ports=(2000, 2999))), guards=guards))
    for family in FAMILIES:
        found = routing.carry(
            *(to_world(family, protocol=p, ports=(n, 53)) for n in (1, 2) for p in (UDP, TCP))
        )
        assert Counter(seen.source == OWN["eth1"][family] for seen in found) == {True: 2, False: 2}


# --- the destination -------------------------------------------------------------------------

SERVERS = {4: host("eth1", 4, 20), 6: host("eth1", 6, 20)}


def dialling(family: int, number: int = 5, **other: object) -> Packet:
    """A packet of a host behind eth0 for the firewall's own address."""
    return to_world(family, number, **{"destination": OWN["eth0"][family], **other})


def targets(family: int, *numbers: int) -> Ranges:
    return Ranges.merged(span(host("eth1", family, number)) for number in numbers)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("port", [None, 5353])
def test_a_destination_becomes_another(routing: Routing, family: int, port: int | None) -> None:
    cube = TO_53 & of_family(family)
    routing.load(arriving((cube, DestinationNat(targets(family, 20), port))))
    for protocol in (UDP, TCP):
        (seen,) = routing.carry(dialling(family, protocol=protocol))
        assert (seen.destination, seen.ports[1]) == (SERVERS[family], port or 53)
        back = Packet(
            SERVERS[family],
            host("eth0", family, 5),
            protocol,
            (port or 53, 40000),
            "eth1",
            tcp_flags=0x12,
        )
        (answer,) = routing.carry(back)
        assert (answer.source, answer.ports) == (OWN["eth0"][family], (53, 40000))
        (other,) = routing.carry(to_world(family, ports=(40000, 54), protocol=protocol))
        assert other.destination == WORLD[family]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("port", [None, 5353])
def test_targets_take_turns(routing: Routing, family: int, port: int | None) -> None:
    """One count for all lines of a rule: whichever of its protocols a connection has."""
    numbers = (20, 22, 23, 27, 30)
    cube = TO_53 & of_family(family)
    routing.load(arriving((cube, DestinationNat(targets(family, *numbers), port))))
    packets = [
        dialling(family, ports=(1000 + n, 53), protocol=(UDP, TCP)[n // 2 % 2]) for n in range(20)
    ]
    found = [seen.destination for seen in routing.carry(*packets)]
    assert found[:5] * 4 == found
    assert sorted(found[:5]) == sorted(host("eth1", family, number) for number in numbers)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("port", [None, 5353])
def test_rules_of_one_statement_take_turns_together(
    routing: Routing, family: int, port: int | None
) -> None:
    """Those for what arrives and those for this host's own packets, too; other ones do not."""
    numbers = (20, 22, 23)
    action = DestinationNat(targets(family, *numbers), port)
    one, other = (
        (Origin(Why.WRITTEN, Span(SourceFile("a.policy", "dnat dnat"), start, start + 4)),)
        for start in (0, 5)
    )
    over_udp, over_tcp, elsewhere = (
        Rule(
            of_family(family) & Cube.of({Field.L4PROTO: Ranges.of(n), Field.DPORT: Ranges.of(to)}),
            action,
            (),
            origins,
        )
        for n, to, origins in ((UDP, 53, one), (TCP, 54, one), (UDP, 55, other))
    )
    routing.load(ruleset({ARRIVING: [over_udp, over_tcp, elsewhere], LEAVING: [over_udp]}))
    met: list[str] = []
    for n in range(1000, 1002):
        packets = [
            dialling(family, ports=(n, 53)),
            dialling(family, ports=(n, 54), protocol=TCP),
        ]
        met += (seen.destination for seen in routing.carry(*packets))
        routing.carry(dialling(family, ports=(n, 55)))  # which takes none of their turns
        with opened(routing.router, family, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", (FAR["eth1"][family], 53))
        met += (s.destination for s in routing.router.heard() if s.ports[1] == (port or 53))
    assert met == [host("eth1", family, number) for number in numbers] * 2


BY_SOURCE = {
    "range": (20, 21, 22, 23),
    "apart": (20, 22, 23, 27, 30),
    "many": (*range(2, 20), *range(21, 40)),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("numbers", BY_SOURCE.values(), ids=BY_SOURCE)
def test_a_client_keeps_to_its_target(
    routing: Routing, family: int, numbers: tuple[int, ...]
) -> None:
    nat = DestinationNat(targets(family, *numbers), 5353, by_source=True)
    routing.load(arriving((TO_53 & of_family(family), nat)))
    met: Counter[str] = Counter()
    for client in range(2, 40):
        packets = [dialling(family, client, ports=(port, 53)) for port in range(1000, 1004)]
        packets += [
            dialling(family, client, protocol=TCP),
            dialling(family, client, destination=OWN["eth1"][family]),
        ]
        found = {(seen.destination, seen.ports[1]) for seen in routing.carry(*packets)}
        ((target, port),) = found
        assert port == 5353
        met[target] += 1
    assert met.keys() <= {host("eth1", family, number) for number in numbers}
    assert len(met) > min(len(numbers), 20) / 2, "clients are spread"
    assert max(met.values()) < 25


@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_dialled_is_known_to_the_filter(routing: Routing, family: int) -> None:
    """Both fields of a connection that was translated, and of one that was not."""
    own = {name: OWN[wire][family] for name, wire in (("one", "eth0"), ("two", "eth1"))}
    dialled = Ranges.merged(span(own[name]) for name in own)
    everything = only("0.0.0.0/0", "::/0")
    high = Cube.of({Field.L4PROTO: Ranges.of(UDP), Field.ORIG_DPORT: Ranges.between(50, 60)})
    not_high = high.with_terms(
        {Field.ORIG_DPORT: UNIVERSE[Field.ORIG_DPORT] - Ranges.between(50, 60)}
    )
    cubes = {
        "dnated": Cube.of({Field.DNATED: Ranges.of(1)}),
        "plain": Cube.of({Field.DNATED: Ranges.of(0)}),
        "one": Cube.of({Field.ORIG_DADDR: only(own["one"])}),
        "not-one": Cube.of({Field.ORIG_DADDR: everything - only(own["one"])}),
        "own": Cube.of({Field.ORIG_DADDR: dialled}),
        "wide": Cube.of(
            {Field.ORIG_DADDR: Ranges((span(WORLD[family], WORLD[family]),)) | dialled}
        ),
        "high": high,
        "not-high": not_high,
        "ports": high.with_terms({Field.ORIG_DPORT: Ranges.of(7, 9, 80)}),
        "not-ports": high.with_terms(
            {Field.ORIG_DPORT: UNIVERSE[Field.ORIG_DPORT] - Ranges.of(7, 9)}
        ),
    }
    nat = Rule(
        of_family(family) & Cube.of({Field.DADDR: dialled}) & OF_UDP,
        DestinationNat(targets(family, 20), 7777),
    )
    items: list[Item] = [counted(name, cube) for name, cube in cubes.items()]
    routing.load(ruleset({ARRIVING: [nat], FORWARD: [*items, PASS]}))
    weights = {
        ("one", 53): 1,
        ("one", 80): 2,
        ("two", 53): 4,
        ("two", 9): 8,
        ("world", 53): 16,
        ("world", 99): 32,
    }
    own["world"] = WORLD[family]
    for (where, port), count in weights.items():
        for n in range(count):
            packet = to_world(family, destination=own[where], ports=(1000 + n, port))
            (seen,) = routing.carry(packet)
            if n == 0:  # an answer is of the same connection, and meets the same rules
                back = Packet(
                    seen.destination, seen.source, UDP, (seen.ports[1], seen.ports[0]), "eth1"
                )
                routing.carry(back)
    held = {
        "dnated": {("one", 53), ("one", 80), ("two", 53), ("two", 9)},
        "plain": {("world", 53), ("world", 99)},
        "one": {("one", 53), ("one", 80)},
        "not-one": weights.keys() - {("one", 53), ("one", 80)},
        "own": {("one", 53), ("one", 80), ("two", 53), ("two", 9)},
        "wide": set(weights),
        "high": {("one", 53), ("two", 53), ("world", 53)},
        "not-high": {("one", 80), ("two", 9), ("world", 99)},
        "ports": {("one", 80), ("two", 9)},
        "not-ports": weights.keys() - {("two", 9)},
    }
    counts = routing.bench.counts(routing.flavour)
    for name, packets in held.items():
        expected = sum(weights[packet] + 1 for packet in packets)
        assert counts[family, name] == expected, name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_connection_comes_to_this_host_instead(routing: Routing, family: int) -> None:
    routing.load(arriving((TO_53 & Cube.of({Field.IIF: by("eth0")}), RedirectToSelf(5300))))
    with opened(routing.router, family, socket.SOCK_DGRAM) as listener:
        listener.bind(("", 5300))
        listener.settimeout(1)
        routing.router.station.throw([to_world(family)])
        assert listener.recvfrom(100)[1][:2] == (host("eth0", family, 5), 40000)
        (seen,) = routing.carry(to_world(family, ports=(40000, 54)))
        assert seen.destination == WORLD[family]
        # The firewall's own connections have a stage of their own.
        with opened(routing.router, family, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"own", (WORLD[family], 53))
            with pytest.raises(TimeoutError):
                listener.recvfrom(100)
            routing.load(ruleset({LEAVING: [Rule(TO_53, RedirectToSelf(5300))]}))
            sender.sendto(b"own", (WORLD[family], 53))
            assert listener.recvfrom(100)[0] == b"own"


def test_own_connections_are_translated(routing: Routing) -> None:
    cube = Cube.of({Field.OIF: by("eth1")}) & TO_53
    rules = [Rule(cube, DestinationNat(targets(family, 20), 99)) for family in FAMILIES]
    routing.load(ruleset({LEAVING: rules}))
    for family in FAMILIES:
        with opened(routing.router, family, socket.SOCK_DGRAM) as sender:
            routing.router.heard()
            sender.sendto(b"own", (WORLD[family], 53))
            sender.sendto(b"own", (WORLD[family], 54))
        found = {seen.ports[1]: seen.destination for seen in routing.router.heard()}
        assert (found[99], found[54]) == (SERVERS[family], WORLD[family])


def test_prefixes_are_mapped(routing: Routing) -> None:
    """The low bits stay, in both families and at both ends."""
    inner = only("192.0.2.0/24", "2001:db8:1::/64")
    outer = only("203.0.113.0/24", "2001:db8:77::/64")
    v4, v6 = span("203.0.113.0/24"), span("2001:db8:77::/64")
    back_v4, back_v6 = span("192.0.2.0/24"), span("2001:db8:1::/64")
    source = OUT & Cube.of({Field.SADDR: inner})
    destination = Cube.of({Field.IIF: by("eth1"), Field.DADDR: outer})
    routing.load(
        ruleset(
            {
                SRCNAT: [Rule(source, MapPrefix(End.SOURCE, net)) for net in (v4, v6)],
                ARRIVING: [
                    Rule(destination, MapPrefix(End.DESTINATION, net)) for net in (back_v4, back_v6)
                ],
            }
        )
    )
    for family in FAMILIES:
        mapped = {4: "203.0.113.{}", 6: "2001:db8:77::{:x}"}[family]
        far = host("eth1", family, 3)
        (seen,) = routing.carry(to_world(family, 9, destination=far))
        assert (seen.source, seen.ports) == (mapped.format(9), (40000, 53))
        (back,) = routing.carry(Packet(far, mapped.format(11), wire="eth1", ports=(1, 2)))
        assert (back.destination, back.source) == (host("eth0", family, 11), far)


def test_entries_of_a_lookup_have_targets_of_their_own(routing: Routing) -> None:
    """As the optimiser makes of many statements."""
    for family in FAMILIES:
        entries = tuple(
            Entry(
                (span(OWN["eth0"][family]), (protocol, protocol), (1000 + n, 1000 + n)),
                DestinationNat(targets(family, 2 + n), 2000 + n),
            )
            for n in range(30)
            for protocol in (TCP, UDP)
        )
        fields = (Field.DADDR, Field.L4PROTO, Field.DPORT)
        routing.load(ruleset({ARRIVING: [Lookup(EVERYTHING, fields, entries)]}))
        for n in (0, 1, 17, 29):
            for protocol in (UDP, TCP):
                (seen,) = routing.carry(dialling(family, ports=(4000, 1000 + n), protocol=protocol))
                assert (seen.destination, seen.ports[1]) == (host("eth1", family, 2 + n), 2000 + n)


def test_a_number_of_connections_is_one_for_all_lines(routing: Routing) -> None:
    """A guard stands where all lines of a rule come together."""
    nat = DestinationNat(targets(4, 20, 22), 5353)
    routing.load(arriving((TO_53, nat), guards=(ConnectionsGuard(2),)))
    packets = [dialling(4, n, protocol=p) for n in (5, 6) for p in (UDP, TCP)]
    found = routing.router.carried(*packets)
    assert [seen is not None for seen in found] == [True, True, False, False]
