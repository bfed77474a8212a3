"""Source translation and one-to-one translation, as the machine at the far end sees it.

Whatever is not said to be translated arrives under its own address, in the same try.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any

import pytest

from policylang.packets.fields import ICMP, ICMPV6, TCP, UDP
from tests.differential.frames import Probe

from .examples import Wire, is_between, probe, wire_of
from .ground import Family, Loader, Reach, family_of
from .mirror import Seen, Visit, all_seen_as_expected, look
from .router import Router, behind, router

PROTOCOLS = ("tcp", "udp")
HTTP, HTTPS, OTHER = PORTS = (80, 443, 8080)

# Clients and servers with several addresses, and those that sources may become.
CLIENTS = {
    Family.IPV4: tuple(f"198.51.100.{n}" for n in range(101, 109)),
    Family.IPV6: tuple(f"2001:db8:51::{n:x}" for n in range(0x101, 0x109)),
}
SERVERS = {
    Family.IPV4: tuple(f"192.0.2.{n}" for n in range(101, 113)),
    Family.IPV6: tuple(f"2001:db8:2::{n:x}" for n in range(0x101, 0x10D)),
}
POOL = {
    Family.IPV4: tuple(f"192.0.2.{n}" for n in range(20, 24)),
    Family.IPV6: tuple(f"2001:db8:2::{n:x}" for n in range(0x20, 0x24)),
}
# One to one: of eight addresses, two machines and what they are called outside.
INNER = {
    Family.IPV4: ("198.51.100.41", "198.51.100.46"),
    Family.IPV6: ("2001:db8:51::41", "2001:db8:51::46"),
}
OUTER = {
    Family.IPV4: ("192.0.2.33", "192.0.2.38"),
    Family.IPV6: ("2001:db8:2:aaaa::41", "2001:db8:2:aaaa::46"),
}


@pytest.fixture(scope="module", params=Loader, ids=lambda loader: loader.value)
def nat(
    kernel: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Router]:
    """A router that policies are applied to, for each way to load them."""
    directory = tmp_path_factory.mktemp("translation")
    with router(request.param, directory, PORTS) as laid, pytest.MonkeyPatch.context() as patch:
        # Legacy iptables takes one lock for the whole machine unless told another.
        patch.setenv("XTABLES_LOCKFILE", str(directory / "lock"))
        wan = laid.laid["wan"]
        for family in Family:
            laid.inhabit("wan", *SERVERS[family])
            laid.inhabit("lan", *CLIENTS[family], *INNER[family])
            behind(wan, *POOL[family], *OUTER[family])
        # Without it the router itself would say that there is no way there.
        laid.firewall.ip("route add 2001:db8:2:aaaa::/64 dev wan0")
        yield laid


def seen(
    nat: Router, start: str, goal: str, sources: Mapping[Family, str], port: int = HTTP
) -> Iterator[Visit]:
    """From the machine of one zone to that of another: whom the other has to see, in each family.

    Those whose source is not told come under their own address.
    """
    for family, protocol in product(Family, PROTOCOLS):
        target = nat.far(goal, family)
        source = sources.get(family, nat.far(start, family))
        expected = Seen(goal, source, target, port)
        yield Visit(nat.client(start), target, port, expected, protocol)


def own(nat: Router, zone: str, *families: Family) -> dict[Family, str]:
    """The router's address in a zone, of those families."""
    return {family: nat.near(zone, family) for family in families}


def addresses(outcomes: Iterable[Seen | Reach]) -> list[str]:
    """The addresses under which those arrived who did; all must have."""
    return [one.source for one in outcomes if isinstance(one, Seen)]


def from_ports(nat: Router, ports: Iterable[int], protocol: str, family: Family) -> list[int]:
    """The ports under which connections arrive that leave `lan` by these."""
    found = []
    for port in ports:
        outcome = look(nat.client("lan"), nat.far("wan", family), HTTP, protocol, source_port=port)
        assert isinstance(outcome, Seen), outcome
        assert outcome.source == nat.near("wan", family)
        found.append(outcome.source_port)
    return found


def pinged_as(nat: Router, source: str, target: str, zone: str) -> set[str]:
    """The addresses under which an echo request of somebody in `lan` arrives in a zone."""
    candidates = {source, *POOL[Family.IPV4], nat.near(zone, Family.IPV4)}
    family = Family.IPV6 if ":" in source else Family.IPV4
    candidates |= {*POOL[family], nat.near(zone, family)}
    protocol, kind = (ICMPV6, 128) if family is Family.IPV6 else (ICMP, 8)
    lan = nat.laid["lan"]
    with wire_of(lan) as here, wire_of(nat.laid[zone]) as there:
        here.send([probe(source, target, protocol, ports=(7, 0), icmp_type=kind)])
        return first_heard(there, candidates, target)


def first_heard(wire: Wire, candidates: set[str], target: str) -> set[str]:
    """Who of the candidates is the source of the first packet to `target`."""
    for packet in wire.heard():
        for candidate in candidates:
            if packet[0] >> 4 == (6 if ":" in candidate else 4) and is_between(
                packet, candidate, target
            ):
                return {candidate}
    return set()


# --- masquerade ------------------------------------------------------------------------------

LET = "allow all from lan to wan, dmz\nallow all from dmz to wan\n"


def test_masquerade(nat: Router) -> None:
    """Between the ends that it names IPv4 leaves under the router's address, and nothing else."""
    nat.apply(LET + "masquerade from lan to wan\n")
    all_seen_as_expected(
        (
            *seen(nat, "lan", "wan", own(nat, "wan", Family.IPV4)),
            *seen(nat, "lan", "dmz", {}),
            *seen(nat, "dmz", "wan", {}),
        )
    )
    far = nat.far("wan", Family.IPV4)
    assert pinged_as(nat, CLIENTS[Family.IPV4][0], far, "wan") == {nat.near("wan", Family.IPV4)}


def test_masquerade_of_ipv6_where_it_is_said(nat: Router) -> None:
    """With `ipv6` it is IPv6 alone; addresses in the statement say their families."""
    nat.apply(LET + "masquerade from lan to wan ipv6\n")
    all_seen_as_expected(seen(nat, "lan", "wan", own(nat, "wan", Family.IPV6)))
    nat.apply(LET + "masquerade from 2001:db8:51::/64, 198.51.100.0/24 to wan\n")
    all_seen_as_expected(seen(nat, "lan", "wan", own(nat, "wan", *Family)))


def test_masquerade_takes_the_address_of_the_way_out(nat: Router) -> None:
    """Each way out has its address; the ends are lists with exceptions."""
    nat.apply(LET + "masquerade from lan except 198.51.100.108 to wan, dmz\n")
    spared, target = CLIENTS[Family.IPV4][7], nat.far("wan", Family.IPV4)
    all_seen_as_expected(
        (
            *seen(nat, "lan", "wan", own(nat, "wan", Family.IPV4)),
            *seen(nat, "lan", "dmz", own(nat, "dmz", Family.IPV4)),
            *seen(nat, "dmz", "wan", {}),
            Visit(
                nat.client("lan"), target, HTTP, Seen("wan", spared, target, HTTP), source=spared
            ),
        )
    )


def test_masquerade_of_some_services(nat: Router) -> None:
    """What it speaks of is translated, and no other port or protocol."""
    nat.apply(LET + "masquerade tcp 80, udp 8080 from lan to wan\n")
    router_, target = nat.near("wan", Family.IPV4), nat.far("wan", Family.IPV4)
    inner = nat.far("lan", Family.IPV4)
    translated = {("tcp", HTTP), ("udp", OTHER)}
    all_seen_as_expected(
        Visit(
            nat.client("lan"),
            target,
            port,
            Seen("wan", router_ if (protocol, port) in translated else inner, target, port),
            protocol,
        )
        for protocol, port in product(PROTOCOLS, PORTS)
    )


def test_masquerade_does_not_open_anything(nat: Router) -> None:
    """Without a rule that allows, nothing passes."""
    nat.apply("masquerade from lan to wan\n")
    target = nat.far("wan", Family.IPV4)
    all_seen_as_expected(
        Visit(nat.client("lan"), target, HTTP, Reach.TIMEOUT, protocol) for protocol in PROTOCOLS
    )


MARKED = "mark tcp 443, udp 443 from lan to wan as 0x5/0xff\n"


def test_masquerade_under_conditions(nat: Router) -> None:
    """What does not meet the conditions leaves as it is."""
    statements = {
        "masquerade from lan to wan source port 4000-4009\n": {HTTP, HTTPS},
        MARKED + "masquerade from lan to wan mark 0x5/0xff\n": {HTTPS},
    }
    target, inner = nat.far("wan", Family.IPV4), nat.far("lan", Family.IPV4)
    for statement, ports in statements.items():
        nat.apply(LET + statement)
        tries = []
        for protocol, port, source_port in product(PROTOCOLS, (HTTP, HTTPS), (4003, 4103)):
            is_met = port in ports and (source_port == 4003 or "source port" not in statement)
            source = nat.near("wan", Family.IPV4) if is_met else inner
            expected = Seen("wan", source, target, port)
            tries.append(
                Visit(nat.client("lan"), target, port, expected, protocol, source_port=source_port)
            )
        all_seen_as_expected(tries)


# What conntrack calls new, what it calls invalid, and what has no ports. Not what it does not look
# at, which nothing can translate: neighbour discovery and multicast listeners, which end at the
# next router.
FLAGS = range(0, 64, 3)
TYPES = {Family.IPV4: range(19), Family.IPV6: (*range(1, 5), 128, 129, *range(138, 143))}
PROTOCOL_NUMBERS = (2, 4, 41, 47, 50, 51, 89, 132, 136, 253)


def strays(client: str, target: str) -> Iterator[Probe]:
    """Packets of every kind that a machine may send out of the blue, or with a broken checksum."""
    family = family_of(client)
    icmp = ICMPV6 if family is Family.IPV6 else ICMP
    kinds: list[dict[str, Any]] = [
        *({"protocol": TCP, "tcp_flags": flags} for flags in FLAGS),
        *({"protocol": icmp, "icmp_type": kind} for kind in TYPES[family]),
        *({"protocol": number} for number in (UDP, *PROTOCOL_NUMBERS)),
    ]
    for number, (kind, broken) in enumerate(product(kinds, (False, True))):
        yield probe(client, target, ports=(5000 + number, HTTP), broken=broken, **kind)


def test_nothing_leaves_under_an_inner_address(nat: Router) -> None:
    """Of all that a machine sends out of the blue, what passes is translated: the rest does not."""
    nat.apply(f"{LET}masquerade from lan to wan\nmasquerade from lan to wan ipv6\n")
    under = arrived_under(nat)
    assert set(under) == {nat.near("wan", family) for family in Family}
    # The control: without the statements the inner addresses are seen.
    nat.apply(LET)
    before = arrived_under(nat)
    assert set(before) == {CLIENTS[family][0] for family in Family}
    assert sorted(before.values()) == sorted(under.values())
    assert min(before.values()) > len(PROTOCOL_NUMBERS)


def arrived_under(nat: Router) -> Counter[str]:
    """How many of the strays of a machine in `lan` arrive in `wan`, by their source."""
    found: Counter[str] = Counter()
    ends = [
        (source, nat.far("wan", family))
        for family in Family
        for source in (CLIENTS[family][0], nat.near("wan", family))
    ]
    with wire_of(nat.laid["lan"]) as here, wire_of(nat.laid["wan"]) as there:
        for family in Family:
            here.send(strays(CLIENTS[family][0], nat.far("wan", family)))
        for packet in there.heard():
            found.update(source for source, target in ends if is_between(packet, source, target))
    return found


OWN_PORTS = range(3001, 3007)  # of a client, outside every range below


@pytest.mark.parametrize(
    ("word", "allowed"),
    [("", OWN_PORTS), ("port 2000-2019", range(2000, 2020)), ("random", None)],
    ids=["as they are", "range", "random"],
)
def test_source_ports(nat: Router, word: str, allowed: range | None) -> None:
    """Ports stay as they are, unless a range or chance is asked for."""
    statements = (f"masquerade from lan to wan {word} ipv{family.value}\n" for family in Family)
    nat.apply(LET + "".join(statements))
    for family, protocol in product(Family, PROTOCOLS):
        found = from_ports(nat, OWN_PORTS, protocol, family)
        if allowed is OWN_PORTS:
            assert found == list(OWN_PORTS)
        elif allowed is not None:
            assert set(found) <= set(allowed)
        else:
            assert found != list(OWN_PORTS)
    for family in Family:
        # What has no ports is translated all the same.
        client, target = CLIENTS[family][0], nat.far("wan", family)
        assert pinged_as(nat, client, target, "wan") == {nat.near("wan", family)}


# --- snat ------------------------------------------------------------------------------------


def test_snat(nat: Router) -> None:
    """Each family becomes the address of its own; a family without one stays."""
    one = {family: POOL[family][0] for family in Family}
    nat.apply(LET + f"snat from lan to wan as {one[Family.IPV4]}\n")
    ipv4 = {Family.IPV4: one[Family.IPV4]}
    all_seen_as_expected((*seen(nat, "lan", "wan", ipv4), *seen(nat, "lan", "dmz", {})))
    nat.apply(LET + f"snat from lan to wan as {one[Family.IPV6]}\n")
    all_seen_as_expected(seen(nat, "lan", "wan", {Family.IPV6: one[Family.IPV6]}))
    nat.apply(LET + f"snat from lan to wan as {one[Family.IPV4]}, {one[Family.IPV6]}\n")
    all_seen_as_expected(seen(nat, "lan", "wan", one))


def test_the_first_translation_decides(nat: Router) -> None:
    """In the order written, whatever the statements are called."""
    special, pool = CLIENTS[Family.IPV4][0], POOL[Family.IPV4][1]
    snat = f"snat from {special} to wan as {pool}\n"
    masquerade = "masquerade from lan to wan\n"
    target = nat.far("wan", Family.IPV4)
    for statements, becomes in (
        (snat + masquerade, pool),
        (masquerade + snat, nat.near("wan", Family.IPV4)),
    ):
        nat.apply(LET + statements)
        all_seen_as_expected(
            (
                *seen(nat, "lan", "wan", own(nat, "wan", Family.IPV4)),
                Visit(
                    nat.client("lan"),
                    target,
                    HTTP,
                    Seen("wan", becomes, target, HTTP),
                    source=special,
                ),
            )
        )


def everywhere(nat: Router, family: Family, client: str) -> list[str]:
    """Under which addresses one client arrives at each of the servers."""
    tries = ((client, server) for server in SERVERS[family])
    return addresses(look(nat.client("lan"), s, HTTP, source=c) for c, s in tries)


def test_snat_to_a_range(nat: Router) -> None:
    """Clients are shared out among the addresses; with `persistent` each has one and keeps it."""
    ranges = ", ".join(f"{pool[0]}-{pool[-1]}" for pool in POOL.values())
    nat.apply(f"{LET}snat from lan to wan as {ranges}\n")
    for family in Family:
        found = everywhere(nat, family, CLIENTS[family][0])
        assert len(found) == len(SERVERS[family])
        assert set(found) <= set(POOL[family])
        assert len(set(found)) > 1
    nat.apply(f"{LET}snat from lan to wan as {ranges} persistent\n")
    for family in Family:
        kept = [everywhere(nat, family, client) for client in CLIENTS[family]]
        assert all(len(one) == len(SERVERS[family]) and len(set(one)) == 1 for one in kept), kept
        assert {one[0] for one in kept} <= set(POOL[family])
        assert len({one[0] for one in kept}) > 1


def test_snat_with_ports(nat: Router) -> None:
    """A range of ports and chance, as for `masquerade`."""
    router_ = nat.near("wan", Family.IPV4)
    nat.apply(f"{LET}snat from lan to wan as {router_} port 2000-2019\n")
    for protocol in PROTOCOLS:
        found = from_ports(nat, OWN_PORTS, protocol, Family.IPV4)
        assert set(found) <= set(range(2000, 2020))
    nat.apply(f"{LET}snat from lan to wan as {router_} random\n")
    for protocol in PROTOCOLS:
        assert from_ports(nat, OWN_PORTS, protocol, Family.IPV4) != list(OWN_PORTS)


def test_own_connections_are_translated_where_it_is_said(nat: Router) -> None:
    """`self` is what this host sends itself, `any` holds it and all others; a zone does not."""
    target, pool = nat.far("wan", Family.IPV4), POOL[Family.IPV4][0]
    zones = ("self", "lan", "dmz")
    for words, translated in (
        ("self", {"self"}),
        ("lan", {"lan"}),
        ("any except lan", {"self", "dmz"}),
        ("any except self", {"lan", "dmz"}),
    ):
        nat.apply(f"{LET}snat from {words} to wan as {pool}\n")
        tries = []
        for zone, protocol in product(zones, PROTOCOLS):
            is_self = zone == "self"
            client = nat.firewall if is_self else nat.client(zone)
            source = nat.near("wan", Family.IPV4) if is_self else nat.far(zone, Family.IPV4)
            expected = Seen("wan", pool if zone in translated else source, target, HTTP)
            tries.append(Visit(client, target, HTTP, expected, protocol))
        all_seen_as_expected(tries)


# --- netmap ----------------------------------------------------------------------------------

NETMAP = {
    Family.IPV4: "netmap 192.0.2.32/29 to 198.51.100.40/29 on wan\n",
    Family.IPV6: "netmap 2001:db8:2:aaaa::/64 to 2001:db8:51::/64 on wan\n",
}


def test_netmap(nat: Router) -> None:
    """Each address inside has its own outside, both ways; what passes is up to the rules."""
    allowed = ", ".join(INNER[family][0] for family in Family)
    rules = f"allow http from wan to {allowed}\nallow http from lan to wan, dmz\n"
    nat.apply("".join(NETMAP.values()) + rules)
    all_seen_as_expected(visit for family in Family for visit in mapped(nat, family))
    # A statement is about its family.
    nat.apply(NETMAP[Family.IPV4] + rules)
    target = nat.far("wan", Family.IPV6)
    expected = Seen("wan", INNER[Family.IPV6][0], target, HTTP)
    all_seen_as_expected(
        [Visit(nat.client("lan"), target, HTTP, expected, source=INNER[Family.IPV6][0])]
    )


def mapped(nat: Router, family: Family) -> Iterator[Visit]:
    """Both machines, of which the first may be met from outside."""
    for number, (inner, outer) in enumerate(zip(INNER[family], OUTER[family], strict=True)):
        arrives: Seen | Reach = Reach.TIMEOUT
        if number == 0:
            arrives = Seen("lan", nat.far("wan", family), inner, HTTP)
        yield Visit(nat.client("wan"), outer, HTTP, arrives)
        yield Visit(nat.client("wan"), outer, HTTPS, Reach.TIMEOUT)
        # From another zone the outer address stands for nobody.
        yield Visit(nat.client("dmz"), outer, HTTP, Reach.TIMEOUT)
        for zone, source in (("wan", outer), ("dmz", inner)):
            target = nat.far(zone, family)
            expected = Seen(zone, source, target, HTTP)
            yield Visit(nat.client("lan"), target, HTTP, expected, source=inner)


def test_netmap_of_what_has_no_ports(nat: Router) -> None:
    """Echo requests are translated like everything else."""
    nat.apply(NETMAP[Family.IPV4] + "allow ping from lan to wan\n")
    client, target = INNER[Family.IPV4][0], nat.far("wan", Family.IPV4)
    with wire_of(nat.laid["lan"]) as here, wire_of(nat.laid["wan"]) as there:
        here.send([probe(client, target, ICMP, ports=(7, 0), icmp_type=8)])
        assert first_heard(there, {client, *OUTER[Family.IPV4]}, target) == {OUTER[Family.IPV4][0]}
