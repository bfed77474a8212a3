"""The home router of the examples: what the world and the house reach, and what is forged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from policylang.packets.fields import ICMP, ICMPV6, TCP, UDP
from tests.differential.frames import ACK, SYN, Probe

from .examples import (
    BROADCAST_MAC,
    MUST_FAIL_S,
    Place,
    Question,
    Try,
    all_as_expected,
    answered,
    arrived,
    datagrams,
    forget_connections,
    load_example,
    move_in,
    on_every_loader,
    probe,
    serving_ports,
    wire_of,
)
from .ground import Family, Ground, Loader, Reach, ground, ping

pytestmark = pytest.mark.usefixtures("kernel")

EXAMPLE = "home-router"
WIRES = {
    "wan": ("eth0", "192.0.2", "2001:db8:a:"),
    "lan": ("eth1", "198.51.100", "2001:db8:51:"),
    "air": ("wlan0", "203.0.113", "2001:db8:113:"),
}
# The server in the house, under two prefixes that the provider may give out, and its neighbours.
SERVER = ("2001:db8:51::10", "2001:db8:52::10")
NOT_SERVER = ("2001:db8:51::11", "2001:db8:51:0:1::10")
PORTS = DNS, SSH, HTTP, HTTPS = (53, 22, 80, 443)
PINGS = 60

# RFC 2131 section 4.4.5 and RFC 8415: the router asks the provider.
QUESTIONS = {
    "dhcp": Question("255.255.255.255", 67, source_port=68, answer_port=67),
    "dhcpv6": Question("ff02::1:2", 547, source_port=546, answer_port=547),
}


@on_every_loader
def test_a_home_router(tmp_path: Path, loader: Loader) -> None:
    """The house reaches the world and the router, the world one server of the house."""
    with ground(*WIRES, wires=WIRES) as laid, ExitStack() as stack:
        wan = laid["wan"]
        move_in(laid.firewall, laid["lan"], *SERVER, *NOT_SERVER)
        stack.enter_context(serving_ports(laid.firewall, PORTS))
        for segment in laid.segments.values():
            stack.enter_context(serving_ports(segment.neighbour, PORTS))
        load_example(EXAMPLE, laid.firewall, loader, tmp_path)
        all_as_expected(tries(laid))
        assert ping(wan.neighbour, laid["lan"].far.ipv6)
        assert answered(QUESTIONS, Place(laid.firewall, "eth0"), Place(wan.neighbour, "eth0")) == {
            "dhcp",
            "dhcpv6",
        }
        assert leases(laid) == {"lan", "air"}
        assert set(arrived(wan, laid["lan"], packets(laid))) == set(honest(laid))
        flood = arrived(wan, laid["lan"], syns(laid))
        # A burst of a hundred, and what a slow machine adds while they are sent.
        assert all(100 <= flood[ends] <= SYNS // 2 for ends in flooding(laid)), flood
        with wire_of(wan) as wire:
            (echoes,) = wire.echoes(PINGS, (wan.far.ipv4, wan.near.ipv4))
        assert 5 <= echoes <= PINGS // 2


def tries(laid: Ground) -> Iterator[Try]:
    """Who reaches whom."""
    wan, lan, air = (laid[zone] for zone in WIRES)
    for family in Family:
        for house, other in ((lan, air), (air, lan)):
            for port in PORTS:
                yield Try(house.neighbour, wan.far.of(family), port)
                yield Try(house.neighbour, other.far.of(family), port)
            for port, expected in ((DNS, Reach.OPEN), (SSH, Reach.OPEN), (HTTP, Reach.TIMEOUT)):
                yield Try(house.neighbour, house.near.of(family), port, expected)
            for port in PORTS:
                yield Try(wan.neighbour, house.far.of(family), port, Reach.TIMEOUT)
        for port in PORTS:
            yield Try(wan.neighbour, wan.near.of(family), port, Reach.TIMEOUT)
    for address in SERVER:
        yield Try(wan.neighbour, address, HTTPS)
        yield Try(wan.neighbour, address, HTTP, Reach.TIMEOUT)
    for address in NOT_SERVER:
        yield Try(wan.neighbour, address, HTTPS, Reach.TIMEOUT)


def leases(laid: Ground) -> set[str]:
    """Where a machine without an address can ask the router for one."""
    discover = probe("0.0.0.0", "255.255.255.255", UDP, ports=(68, 67))
    heard: set[str] = set()
    for zone, segment in laid.segments.items():
        place = Place(laid.firewall, segment.interface)
        with (
            datagrams(Family.IPV4, place, 67, "255.255.255.255") as server,
            wire_of(segment) as wire,
        ):
            wire.send([discover], BROADCAST_MAC)
            server.settimeout(MUST_FAIL_S)
            try:
                server.recv(2048)
            except TimeoutError:
                continue
            heard.add(zone)
    return heard


def honest(laid: Ground) -> list[tuple[str, str]]:
    """Who may send what to whom: a ping into the house, and a connection to its server."""
    wan, lan = laid["wan"], laid["lan"]
    return [(wan.far.ipv4, lan.far.ipv4), (wan.far.ipv6, SERVER[0])]


def forged(laid: Ground) -> list[tuple[str, str]]:
    """The same in the names of machines in the house."""
    lan = laid["lan"]
    return [("198.51.100.99", lan.far.ipv4), ("2001:db8:51::99", lan.far.ipv6)]


# In the midst of no connection, from addresses that open none.
STRAY = ("2001:db8:a::50", SERVER[0])


def packets(laid: Ground) -> Iterator[Probe]:
    """What comes from the world: honest, forged, and in the midst of no connection."""
    for source, target in (*honest(laid), *forged(laid)):
        protocol, echo = (ICMPV6, 128) if ":" in source else (ICMP, 8)
        yield probe(source, target, protocol, ports=(9, 0), icmp_type=echo)
    yield probe(*STRAY, TCP, ports=(50000, HTTPS), tcp_flags=ACK)


SYNS = 400


def flooding(laid: Ground) -> list[tuple[str, str]]:
    """Who floods whom: each of two sources has a rate of its own."""
    return [("2001:db8:a::51", SERVER[0]), ("2001:db8:a::52", SERVER[0])]


def syns(laid: Ground) -> Iterator[Probe]:
    """Many connections at once, of each source."""
    for source, target in flooding(laid):
        for port in range(50000, 50000 + SYNS):
            yield probe(source, target, TCP, ports=(port, HTTPS), tcp_flags=SYN)


def test_without_the_words_for_it(tmp_path: Path) -> None:
    """The control: what the kernel lets through where the policy says less."""
    changes = {
        "protect from wan against spoofing, bad-flags, syn-flood": "",
        "allow dhcp-client, dhcpv6-client outbound to wan": "",
        "dhcp-server, dhcpv6-server, ": "",
    }
    with ground(*WIRES, wires=WIRES) as laid:
        wan = laid["wan"]
        for key in ("all", "eth0"):
            laid.firewall.sysctl(f"net.ipv4.conf.{key}.rp_filter", "0")
        move_in(laid.firewall, laid["lan"], *SERVER)
        load_example(EXAMPLE, laid.firewall, Loader.NFT, tmp_path, changes)
        everything = {*honest(laid), *forged(laid), STRAY}
        assert set(arrived(wan, laid["lan"], packets(laid))) == everything
        forget_connections(laid.firewall)
        assert sum(arrived(wan, laid["lan"], syns(laid)).values()) == 2 * SYNS
        ends = Place(laid.firewall, "eth0"), Place(wan.neighbour, "eth0")
        assert answered(QUESTIONS, *ends) == set()
        assert leases(laid) == set()
