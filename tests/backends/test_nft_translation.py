"""The kernel translates addresses as rules say that are emitted for nft: seen at the far ends.

Each case has packets that the rule is not for, which keep what they came with.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from policylang.ir.actions import (
    DestinationNat,
    Drop,
    End,
    Leave,
    MapPrefix,
    Masquerade,
    RedirectToSelf,
    SourceNat,
    Untrack,
)
from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import Rule
from policylang.ir.stages import Path, Stage
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import ICMP, ICMPV6, TCP, UDP, AddressType, Field
from policylang.packets.values import Range, Ranges, name_range, parse_address, parse_one_address
from policylang.source import SourceFile, Span
from tests.backends.nft_router import Router, Seen, host, opened, router
from tests.backends.nft_station import ACCEPT, FAR, OWN, Hook, Packet, arriving, emitted, ruleset

SRCNAT = (Stage.SRCNAT, Path.FORWARD)
DSTNAT = (Stage.DSTNAT, Path.INPUT)
OWN_DSTNAT = (Stage.DSTNAT, Path.OUTPUT)
INPUT = (Stage.FILTER, Path.INPUT)

FAMILIES = (4, 6)
PINGS = {4: (ICMP, 8), 6: (ICMPV6, 128)}


@pytest.fixture(scope="module")
def routing(kernel: None) -> Iterator[Router]:
    with router() as laid:
        yield laid


def of(**terms: Ranges) -> Cube:
    return Cube.of({Field[name]: values for name, values in terms.items()})


def number(address: str) -> int:
    found = parse_one_address(address)
    assert found is not None
    return found


def hosts(wire: str, family: int, first: int, last: int) -> Range:
    return number(host(wire, family, first)), number(host(wire, family, last))


def family_cube(family: int) -> Cube:
    return of(FAMILY=Ranges.of(family))


def passing(family: int, client: int = 2, server: int = 2, **other: object) -> Packet:
    """A packet of a client behind eth0 to a server behind eth1."""
    made = Packet(host("eth0", family, client), host("eth1", family, server))
    return replace(made, **other)  # type: ignore[arg-type]


def answer(seen: Seen, **other: object) -> Packet:
    """What the one sends back who saw a packet."""
    made = Packet(seen.destination, seen.source, seen.protocol, seen.ports[::-1], seen.wire)
    return replace(made, tcp_flags=0x12, **other)  # type: ignore[arg-type]


TO_ETH1 = of(OIF=Ranges((name_range("eth1"),)), IPSEC_OUT=Ranges.of(0))


# --- sources -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_what_leaves_has_the_address_of_the_interface_and_answers_come_back(
    routing: Router, family: int
) -> None:
    rules = (
        Rule(of(L4PROTO=Ranges.of(UDP), DPORT=Ranges.of(54)), Leave()),
        Rule(TO_ETH1, Masquerade()),
    )
    routing.load(emitted(ruleset({SRCNAT: rules})))
    ping, kind = PINGS[family]
    for packet in (
        passing(family),
        passing(family, protocol=TCP),
        passing(family, protocol=ping, icmp_type=kind),
    ):
        seen = routing.carry(packet)
        assert (seen.source, seen.is_sound) == (OWN["eth1"][family], True)
        assert seen.ports[0] == (0 if packet.protocol == ping else 40000)
        if packet.protocol != ping:
            back = routing.carry(answer(seen))
            assert (back.wire, back.destination) == ("eth0", packet.source)
            assert (back.source, back.ports, back.is_sound) == (
                packet.destination, packet.ports[::-1], True
            )  # fmt: skip
    inbound = Packet(FAR["eth1"][family], FAR["eth0"][family], wire="eth1")
    for other in (passing(family, ports=(40000, 54)), inbound):
        assert routing.carry(other).source == other.source


def test_this_host_itself_is_told_apart_by_its_source(routing: Router) -> None:
    """Where all that leaves is one chain, INPUT has no say: own packets have a local source."""
    local = of(SADDR_TYPE=Ranges.of(AddressType.LOCAL))
    from_eth0 = of(IIF=Ranges((name_range("eth0"),)))
    to = {4: hosts("eth1", 4, 30, 30), 6: hosts("eth1", 6, 30, 30)}
    other = {4: hosts("eth1", 4, 31, 31), 6: hosts("eth1", 6, 31, 31)}
    rules = [
        rule
        for family in FAMILIES
        for rule in (
            Rule(local & family_cube(family), SourceNat(to[family])),
            Rule(from_eth0 & family_cube(family), SourceNat(other[family])),
        )
    ]
    routing.load(emitted(ruleset({SRCNAT: rules})))
    for family in FAMILIES:
        assert routing.carry(passing(family)).source == host("eth1", family, 31)
        with opened(routing, family, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", (FAR["eth1"][family], 99))
        (seen,) = (s for s in routing.heard() if s.ports[1] == 99)
        assert seen.source == host("eth1", family, 30)


def test_what_came_by_no_interface_came_by_no_other_one(routing: Router) -> None:
    """This host's own packets have no way in: a rule for all but one interface is not for them."""
    others = of()[Field.IIF] - Ranges((name_range("eth1"),))
    one_way = others - Ranges((name_range("wlan*"),))
    for names in (others, one_way):
        routing.load(emitted(ruleset({SRCNAT: (Rule(of(IIF=names), Masquerade((61000, 61000))),)})))
        for family in FAMILIES:
            assert routing.carry(passing(family)).ports[0] == 61000
            with opened(routing, family, socket.SOCK_DGRAM) as sender:
                sender.bind(("", 5000))
                sender.sendto(b"x", (FAR["eth1"][family], 99))
            (seen,) = (s for s in routing.heard() if s.ports[1] == 99)
            assert seen.ports[0] == 5000


def test_what_leaves_is_told_by_how_it_came(routing: Router) -> None:
    """The machine that sent it, its size and its code point are still known behind routing."""
    mac = 0x02_00_00_00_00_77
    cases: list[tuple[Cube, dict[str, Any], dict[str, Any]]] = [
        (of(SMAC=Ranges.of(mac)), {"mac": "02:00:00:00:00:77"}, {}),
        (of(DSCP=Ranges.of(46)), {"dscp": 46}, {"dscp": 10}),
        (of(SIZE=Ranges.between(100, 200)), {"size": 150}, {"size": 300}),
    ]
    for cube, yes, no in cases:
        routing.load(emitted(ruleset({SRCNAT: (Rule(cube, Masquerade()),)})))
        for family in FAMILIES:
            told, other = (passing(family, ports=(n, 53)) for n in (1000, 1001))
            assert routing.carry(replace(told, **yes)).source == OWN["eth1"][family]
            assert routing.carry(replace(other, **no)).source == other.source


def test_ports_are_drawn_from_their_range_for_what_has_ports(routing: Router) -> None:
    for family in FAMILIES:
        to = hosts("eth1", family, 30, 30)
        for action, source in (
            (Masquerade((61000, 61009)), OWN["eth1"][family]),
            (SourceNat(to, (61000, 61009)), host("eth1", family, 30)),
        ):
            script = emitted(ruleset({SRCNAT: (Rule(TO_ETH1 & family_cube(family), action),)}))
            assert script.count(":61000-61009") == 1
            routing.load(script)
            ping, kind = PINGS[family]
            for protocol in (UDP, TCP):
                packets = [passing(family, ports=(n, 53), protocol=protocol) for n in range(1, 9)]
                found = [s for s in routing.carried(*packets) if s is not None]
                assert {s.source for s in found} == {source}
                used = {s.ports[0] for s in found}
                assert len(used) == 8 and all(61000 <= port <= 61009 for port in used)
            seen = routing.carry(passing(family, protocol=ping, icmp_type=kind))
            assert (seen.source, seen.is_sound) == (source, True)


def test_ports_stay_unless_they_are_drawn_at_random(routing: Router) -> None:
    for family in FAMILIES:
        to = hosts("eth1", family, 30, 30)
        for action in (
            Masquerade(),
            Masquerade(is_random=True),
            SourceNat(to),
            SourceNat(to, is_random=True),
            SourceNat(to, (50000, 59999), is_random=True),
        ):
            rules = (Rule(TO_ETH1 & family_cube(family), action),)
            routing.load(emitted(ruleset({SRCNAT: rules})))
            packets = [passing(family, ports=(n, 53)) for n in range(50000, 50020)]
            found = [seen.ports[0] for seen in routing.carried(*packets) if seen is not None]
            assert len(found) == 20
            kept = sum(port == sent.ports[0] for port, sent in zip(found, packets, strict=True))
            assert kept <= 2 if action.is_random else kept == 20
            if action.ports is not None:
                assert all(50000 <= port <= 59999 for port in found)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_client_keeps_its_address_where_that_is_asked_for(routing: Router, family: int) -> None:
    to = hosts("eth1", family, 20, 27)
    pool = {host("eth1", family, n) for n in range(20, 28)}
    for is_persistent in (True, False):
        rules = (Rule(EVERYTHING, SourceNat(to, is_persistent=is_persistent)),)
        routing.load(emitted(ruleset({SRCNAT: rules})))
        used = []
        for client in range(2, 14):
            # Another port each: a client's port that is in use keeps its address in any case.
            packets = [
                passing(family, client, server, ports=(1000 + server, 53))
                for server in range(2, 14)
            ]
            found = [seen for seen in routing.carried(*packets) if seen is not None]
            assert len(found) == len(packets)
            used.append({seen.source for seen in found})
        assert set().union(*used) <= pool
        assert len(set().union(*used)) > 2
        assert (max(map(len, used)) == 1) is is_persistent
    other = 10 - family  # the addresses are of one family: the other has none to be given
    assert routing.carry(passing(other)).source == host("eth0", other, 2)


# --- destinations --------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_port_leads_to_another_host_and_port(routing: Router, family: int) -> None:
    inner = hosts("eth1", family, 10, 10)
    cube = of(L4PROTO=Ranges.of(TCP, UDP), DPORT=Ranges.of(2222)) & of(
        DADDR_TYPE=Ranges.of(AddressType.LOCAL)
    )
    rules = (
        Rule(of(SADDR=Ranges((hosts("eth0", family, 9, 9),))), Leave()),
        Rule(cube, DestinationNat(Ranges((inner,)), 22)),
    )
    routing.load(emitted(ruleset({DSTNAT: rules})))
    for protocol in (TCP, UDP):
        packet = arriving(family=family, ports=(40000, 2222), protocol=protocol)
        seen = routing.carry(packet)
        assert (seen.wire, seen.destination) == ("eth1", host("eth1", family, 10))
        assert (seen.source, seen.ports, seen.is_sound) == (packet.source, (40000, 22), True)
        back = routing.carry(answer(seen))
        assert (back.wire, back.source, back.destination) == (
            "eth0", packet.destination, packet.source
        )  # fmt: skip
        assert back.ports == (2222, 40000)
        spared = replace(packet, source=host("eth0", family, 9))
        assert routing.carried(spared, replace(packet, ports=(40000, 2223))) == [None, None]
    without_port = (Rule(cube, DestinationNat(Ranges((inner,)))),)
    routing.load(emitted(ruleset({DSTNAT: without_port})))
    seen = routing.carry(arriving(family=family, ports=(40000, 2222)))
    assert (seen.destination, seen.ports) == (host("eth1", family, 10), (40000, 2222))
    # No packet of the other family meets targets of this one.
    other = arriving(family=10 - family, ports=(40000, 2222))
    assert routing.carried(other) == [None]


TARGETS = {"in a row": (10, 11, 12), "apart": (10, 12, 15)}


def targets(family: int, numbers: tuple[int, ...]) -> Ranges:
    return Ranges.merged(hosts("eth1", family, n, n) for n in numbers)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("which", TARGETS)
@pytest.mark.parametrize("port", [None, 8080])
def test_connections_take_targets_in_turn(
    routing: Router, family: int, which: str, port: int | None
) -> None:
    """Each rule has turns of its own, of which all its connections take part, and no others."""
    among = targets(family, TARGETS[which])
    cube = of(L4PROTO=Ranges.of(TCP, UDP), DPORT=Ranges.of(80))
    rules = (
        Rule(of(SADDR=Ranges((hosts("eth0", family, 9, 9),))), Leave()),
        Rule(cube, DestinationNat(among, port)),
        Rule(of(DPORT=Ranges.of(81)), DestinationNat(targets(family, (10, 11)))),
    )
    routing.load(emitted(ruleset({DSTNAT: rules})))
    expected = [host("eth1", family, n) for n in TARGETS[which]] * 3
    packets = [
        passing(family, ports=(n, 80), protocol=(TCP, UDP)[n % 2]) for n in range(1001, 1010)
    ]
    found = []
    for packet in packets:
        found.append(routing.carry(packet).destination)
        # None of these takes a turn: other ports, a source that is spared, the rest of a connection
        routing.carried(
            passing(family, ports=(packet.ports[0], 81)),
            passing(family, client=9, ports=(packet.ports[0], 80)),
            packet,
        )
    assert found == expected
    seen = routing.carry(passing(family, ports=(1020, 80)))
    assert seen.ports[1] == (80 if port is None else port)
    two = [routing.carry(passing(family, ports=(n, 81))).destination for n in range(2000, 2004)]
    a, b = host("eth1", family, 10), host("eth1", family, 11)
    assert two in ([a, b] * 2, [b, a] * 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_lines_of_one_rule_take_turns_together(routing: Router, family: int) -> None:
    """What holds for UDP in one way and for TCP in another takes two lines."""
    for port in (None, 8080):
        cube = of(L4PROTO=Ranges.of(TCP, UDP), DPORT=Ranges.of(80), TO_ASKER=Ranges.of(0))
        rule = Rule(cube, DestinationNat(targets(family, (10, 12, 15)), port))
        script = emitted(ruleset({DSTNAT: (rule,)}))
        assert script.count("numgen") == 1 and script.count("jump ") == 2
        routing.load(script)
        found = [
            routing.carry(passing(family, ports=(n, 80), protocol=(TCP, UDP)[n % 2]))
            for n in range(1001, 1007)
        ]
        assert [seen.destination for seen in found] == [
            host("eth1", family, n) for n in (10, 12, 15)
        ] * 2
        assert {seen.ports[1] for seen in found} == {port or 80}


@pytest.mark.parametrize("family", FAMILIES)
def test_rules_of_one_statement_take_turns_together(routing: Router, family: int) -> None:
    """Those for what arrives and those for this host's own packets, too."""
    written = (Origin(Why.WRITTEN, Span(SourceFile("a.policy", "dnat"), 0, 4)),)
    in_turn = DestinationNat(targets(family, (10, 12, 15)), 8080)
    over_udp, over_tcp = (
        Rule(of(L4PROTO=Ranges.of(protocol), DPORT=Ranges.of(port)), in_turn, (), written)
        for protocol, port in ((UDP, 80), (TCP, 81))
    )
    routing.load(emitted(ruleset({DSTNAT: (over_udp, over_tcp), OWN_DSTNAT: (over_udp,)})))
    met = []
    for n in range(1001, 1003):
        met.append(routing.carry(passing(family, ports=(n, 80))).destination)
        met.append(routing.carry(passing(family, ports=(n, 81), protocol=TCP)).destination)
        with opened(routing, family, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", (FAR["eth1"][family], 80))
        met += (seen.destination for seen in routing.heard() if seen.ports[1] == 8080)
    assert met == [host("eth1", family, n) for n in (10, 12, 15)] * 2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("which", TARGETS)
@pytest.mark.parametrize("port", [None, 8080])
def test_a_client_always_meets_the_same_target(
    routing: Router, family: int, which: str, port: int | None
) -> None:
    among = targets(family, TARGETS[which])
    cube = of(L4PROTO=Ranges.of(TCP, UDP), DPORT=Ranges.of(80))
    script = emitted(ruleset({DSTNAT: (Rule(cube, DestinationNat(among, port, by_source=True)),)}))
    pool = {host("eth1", family, n) for n in TARGETS[which]}
    met: list[dict[int, str]] = []
    for _ in range(2):  # and so after the rules are loaded again
        routing.load(script)
        of_client: dict[int, str] = {}
        for client in range(2, 26):
            packets = [
                passing(family, client, server, ports=(sport, 80), protocol=protocol)
                for server, sport, protocol in ((2, 1000, UDP), (3, 1001, TCP), (4, 1002, UDP))
            ]
            found = [seen for seen in routing.carried(*packets) if seen is not None]
            (of_client[client],) = {seen.destination for seen in found}
            assert {seen.ports[1] for seen in found} == {port or 80}
        met.append(of_client)
    assert met[0] == met[1]
    assert set(met[0].values()) == pool


@pytest.mark.parametrize("family", FAMILIES)
def test_connections_are_redirected_to_this_host(routing: Router, family: int) -> None:
    cube = of(L4PROTO=Ranges.of(TCP, UDP), DPORT=Ranges.of(80))
    heard_here = of(L4PROTO=Ranges.of(TCP, UDP), DPORT=Ranges.of(3128))
    routing.load(
        emitted(
            ruleset(
                {DSTNAT: (Rule(cube, RedirectToSelf(3128)),), INPUT: (Rule(heard_here, ACCEPT),)}
            )
        )
    )
    packets = [
        passing(family, ports=(1000, 80)),
        passing(family, ports=(1000, 80), protocol=TCP),
        passing(family, ports=(1000, 81)),
    ]
    assert routing.station.verdicts(Hook.INPUT, packets) == [True, True, False]
    assert routing.carry(packets[2]).destination == packets[2].destination


@pytest.mark.parametrize("family", FAMILIES)
def test_this_hosts_own_connections_are_translated_on_their_way_out(
    routing: Router, family: int
) -> None:
    """Redirected to a socket here; led to another host, by another wire."""
    rules = (
        Rule(of(L4PROTO=Ranges.of(UDP), DPORT=Ranges.of(80)), RedirectToSelf(3128)),
        Rule(
            of(L4PROTO=Ranges.of(UDP), DPORT=Ranges.of(81)),
            DestinationNat(Ranges((hosts("eth0", family, 10, 10),)), 8081),
        ),
    )
    routing.load(emitted(ruleset({OWN_DSTNAT: rules})))
    with (
        opened(routing, family, socket.SOCK_DGRAM) as sender,
        opened(routing, family, socket.SOCK_DGRAM) as listener,
    ):
        listener.bind(("127.0.0.1" if family == 4 else "::1", 3128))
        for port in (80, 81, 82):
            sender.sendto(b"%d" % port, (FAR["eth1"][family], port))
        assert listener.recv(10) == b"80"
    seen = {(s.wire, s.destination, s.ports[1]) for s in routing.heard() if s.protocol == UDP}
    assert seen == {
        ("eth0", host("eth0", family, 10), 8081),
        ("eth1", FAR["eth1"][family], 82),
    }


# --- prefixes ------------------------------------------------------------------------------------

# The hosts 16 to 31 of each wire, and a whole /64 of IPv6.
ROWS = {4: ("192.0.2.16/28", "198.51.100.16/28"), 6: ("2001:db8:1::10/124", "2001:db8:2::10/124")}


def prefix(text: str) -> Range:
    found = parse_address(text)
    assert found is not None
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prefix_is_mapped_address_by_address(routing: Router, family: int) -> None:
    outer, inner = map(prefix, ROWS[family])
    items = {
        DSTNAT: (Rule(of(DADDR=Ranges((outer,))), MapPrefix(End.DESTINATION, inner)),),
        SRCNAT: (Rule(of(SADDR=Ranges((inner,))), MapPrefix(End.SOURCE, outer)),),
    }
    routing.load(emitted(ruleset(items)))
    for n in (16, 21, 31):
        packet = arriving(family=family, destination=host("eth0", family, n))
        seen = routing.carry(packet)
        assert (seen.wire, seen.destination) == ("eth1", host("eth1", family, n))
        assert (seen.source, seen.is_sound) == (packet.source, True)
        back = routing.carry(answer(seen))
        assert (back.source, back.destination) == (packet.destination, packet.source)
        own = Packet(host("eth1", family, n), host("eth0", family, 3), wire="eth1")
        assert routing.carry(own).source == host("eth0", family, n)
    beyond = Packet(host("eth1", family, 32), host("eth0", family, 3), wire="eth1")
    assert routing.carry(beyond).source == beyond.source


def test_a_prefix_of_one_address_is_mapped(routing: Router) -> None:
    for family in FAMILIES:
        to = hosts("eth1", family, 12, 12)
        dialled = of(DADDR=Ranges((hosts("eth0", family, 11, 11),)))
        routing.load(emitted(ruleset({DSTNAT: (Rule(dialled, MapPrefix(End.DESTINATION, to)),)})))
        packet = arriving(family=family, destination=host("eth0", family, 11))
        assert routing.carry(packet).destination == host("eth1", family, 12)


def test_an_ipv6_prefix_is_mapped_bit_by_bit(routing: Router) -> None:
    inside = routing.station.inside
    inside.ip(f"route add 2001:db8:77::/64 via {FAR['eth1'][6]} dev eth1")
    mapped = MapPrefix(End.DESTINATION, prefix("2001:db8:77::/64"))
    routing.load(
        emitted(ruleset({DSTNAT: (Rule(of(DADDR=Ranges((prefix("2001:db8:66::/64"),))), mapped),)}))
    )
    packet = arriving(family=6, destination="2001:db8:66::1234:5678:9abc:def0")
    seen = routing.carry(packet)
    assert (seen.destination, seen.is_sound) == ("2001:db8:77:0:1234:5678:9abc:def0", True)
    inside.ip("route del 2001:db8:77::/64 dev eth1")


# --- places --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_rules_read_what_translation_left_and_know_what_was_dialled(
    routing: Router, family: int
) -> None:
    """The filter sees the inner address and port; those dialled are conntrack's."""
    inner = hosts("eth1", family, 10, 10)
    nat = (
        Rule(
            of(L4PROTO=Ranges.of(TCP, UDP), DPORT=Ranges.between(2221, 2229)),
            DestinationNat(Ranges((inner,)), 22),
        ),
    )
    own = number(OWN["eth0"][family])
    tcp_or_udp = Ranges.of(TCP, UDP)
    inside = of(DADDR=Ranges((inner,)), L4PROTO=tcp_or_udp, DPORT=Ranges.of(22))
    dialled = [arriving(family=family, ports=(900 + n, n)) for n in range(2220, 2231)]
    direct = passing(family, server=10, ports=(901, 22))

    def passed(cube: Cube) -> list[int]:
        """The ports dialled of packets that are accepted; 0 is for one that is not translated."""
        items = {DSTNAT: nat, (Stage.FILTER, Path.FORWARD): (Rule(cube, ACCEPT),)}
        routing.load(emitted(ruleset(items)))
        found = routing.carried(*dialled, direct)
        ports = [*(p.ports[1] for p in dialled), 0]
        return [port for port, seen in zip(ports, found, strict=True) if seen is not None]

    all_of_them = [*range(2221, 2230)]
    assert passed(inside) == [*all_of_them, 0]
    assert passed(inside & of(DNATED=Ranges.of(1))) == all_of_them
    assert passed(inside & of(DNATED=Ranges.of(0))) == [0]
    assert passed(inside & of(ORIG_DADDR=Ranges.of(own))) == all_of_them
    assert passed(inside & of(ORIG_DADDR=of()[Field.ORIG_DADDR] - Ranges.of(own))) == [0]
    assert passed(inside & of(ORIG_DPORT=Ranges.of(2222))) == [2222]
    assert passed(inside & of(ORIG_DPORT=Ranges.between(2223, 2225))) == [2223, 2224, 2225]
    several = Ranges.merged([(22, 22), (2222, 2223), (2227, 2227)])
    assert passed(of(ORIG_DPORT=several)) == [2222, 2223, 2227, 0]
    assert passed(of(L4PROTO=Ranges.of(UDP), ORIG_DPORT=several)) == [2222, 2223, 2227, 0]
    many = Ranges.merged((n, n) for n in range(2209, 2227, 2))  # in a set of its own
    assert passed(of(ORIG_DPORT=many)) == [2221, 2223, 2225]
    assert passed(of(ORIG_DPORT=of()[Field.ORIG_DPORT] - Ranges.of(22, 2224))) == [
        n for n in all_of_them if n != 2224
    ]


def test_what_belongs_to_no_connection_was_not_translated(routing: Router) -> None:
    """DNATED 0 holds for untracked packets too, which have no status at all."""
    untrack = {(Stage.UNTRACK, Path.INPUT): (Rule(EVERYTHING, Untrack()),)}
    for family in FAMILIES:
        for cube, passes in (
            (of(DNATED=Ranges.of(0)), True),
            (of(EXPECTED=Ranges.of(0)), True),
            (of(DNATED=Ranges.of(1)), False),
            (of(EXPECTED=Ranges.of(1)), False),
        ):
            forward = {(Stage.FILTER, Path.FORWARD): (Rule(cube, ACCEPT),)}
            for before in (untrack, {}):
                routing.load(emitted(ruleset({**before, **forward})))
                assert (routing.carried(passing(family)) != [None]) is passes


def test_nothing_leaves_inside_ipsec_here(routing: Router) -> None:
    """This kernel has no transforms; what has none is told from what has."""
    for value, source in ((0, OWN["eth1"][4]), (1, FAR["eth0"][4])):
        rules = (Rule(of(IPSEC_OUT=Ranges.of(value)), Masquerade()),)
        routing.load(emitted(ruleset({SRCNAT: rules})))
        assert routing.carry(passing(4)).source == source


def test_what_the_filter_drops_is_not_translated_any_further(routing: Router) -> None:
    """Translation decides nothing: both sides are in force, and the filter has its say between."""
    items = {
        DSTNAT: (
            Rule(
                of(L4PROTO=Ranges.of(UDP), DPORT=Ranges.of(80)),
                DestinationNat(Ranges((hosts("eth1", 4, 10, 10),)), 8080),
            ),
        ),
        (Stage.FILTER, Path.FORWARD): (
            Rule(of(L4PROTO=Ranges.of(UDP), DPORT=Ranges.of(80)), Drop()),
            Rule(of(DADDR=Ranges((hosts("eth1", 4, 10, 10),))), ACCEPT),
        ),
        SRCNAT: (Rule(of(DADDR=Ranges((hosts("eth1", 4, 10, 10),))), Masquerade()),),
    }
    routing.load(emitted(ruleset(items)))
    seen = routing.carry(arriving(ports=(1000, 80)))
    assert (seen.source, seen.destination) == (OWN["eth1"][4], host("eth1", 4, 10))
    assert seen.ports == (1000, 8080)
    assert routing.carried(arriving(ports=(1000, 81))) == [None]
