"""The home router of the examples that translates: who is met, and under whose address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from .examples import Place, Question, answered, load_example, on_every_loader
from .ground import Addresses, Family, Ground, Loader, Namespace, Reach, ground, ping
from .mirror import MUST_FAIL_S, Seen, Visit, all_seen_as_expected, mirrors
from .router import beside
from .test_example_home_router import leases

pytestmark = pytest.mark.usefixtures("kernel")

EXAMPLE = "nat-router"
WIRES = {
    "wan": ("eth0", "192.0.2", "2001:db8:a:"),
    "lan": ("eth1", "192.168.1", "2001:db8:51:"),
    "air": ("wlan0", "192.168.2", "2001:db8:52:"),
}
SERVER = Addresses("192.168.1.10", "2001:db8:51::10")
SSH, DNS, HTTP, HTTPS, NEW = PORTS = (22, 53, 80, 443, 2222)

DHCP = {"dhcp": Question("255.255.255.255", 67, source_port=68, answer_port=67)}


@contextmanager
def house() -> Iterator[tuple[Ground, Namespace]]:
    """The router with a machine in each of its places, and a server beside the one in `lan`."""
    with ground(*WIRES, wires=WIRES) as laid, ExitStack() as stack:
        server = stack.enter_context(beside(laid, "lan", SERVER))
        stack.enter_context(mirrors(server, "server", PORTS))
        stack.enter_context(mirrors(laid.firewall, "self", PORTS))
        for name, segment in laid.segments.items():
            stack.enter_context(mirrors(segment.neighbour, name, PORTS))
        yield laid, server


@on_every_loader
def test_a_nat_router(tmp_path: Path, loader: Loader) -> None:
    """The house goes out under one address, and its server is met under it from everywhere."""
    with house() as (laid, server):
        load_example(EXAMPLE, laid.firewall, loader, tmp_path)
        wan, lan = laid["wan"], laid["lan"]
        all_seen_as_expected((*of_the_house(laid), *of_the_world(laid), *by_the_public_one(laid)))
        assert ping(lan.neighbour, wan.far.ipv4)
        assert ping(lan.neighbour, lan.near.ipv4)
        assert not ping(wan.neighbour, wan.near.ipv4, MUST_FAIL_S)
        assert leases(laid) == {"lan", "air"}
        places = Place(laid.firewall, "eth0"), Place(wan.neighbour, "eth0")
        assert answered(DHCP, *places) == {"dhcp"}
        # The server itself is one of the house.
        target = wan.far.ipv4
        expected = Seen("wan", wan.near.ipv4, target, HTTP)
        all_seen_as_expected([Visit(server, target, HTTP, expected)])


def of_the_house(laid: Ground) -> Iterator[Visit]:
    """What those inside meet, and as whom."""
    wan, lan, air = (laid[zone] for zone in WIRES)
    for family in Family:
        for house in (lan, air):
            source = wan.near.ipv4 if family is Family.IPV4 else house.far.ipv6
            for port in PORTS:
                target = wan.far.of(family)
                yield Visit(house.neighbour, target, port, Seen("wan", source, target, port))
            own = house.near.of(family)
            for port in (SSH, DNS):
                expected = Seen("self", house.far.of(family), own, port)
                yield Visit(house.neighbour, own, port, expected)
            yield Visit(house.neighbour, own, HTTP, Reach.TIMEOUT)
        # Within the house nobody is translated.
        expected = Seen("air", lan.far.of(family), air.far.of(family), HTTP)
        yield Visit(lan.neighbour, air.far.of(family), HTTP, expected)


def of_the_world(laid: Ground) -> Iterator[Visit]:
    """What the world meets under the public address, and that it meets nothing else."""
    wan = laid["wan"]
    client, public = wan.neighbour, wan.near.ipv4
    for port, inner in ((HTTPS, HTTPS), (NEW, SSH)):
        yield Visit(client, public, port, Seen("server", wan.far.ipv4, SERVER.ipv4, inner))
    for port in (SSH, DNS, HTTP):
        yield Visit(client, public, port, Reach.TIMEOUT)
    for family in Family:
        for port in PORTS:
            yield Visit(client, SERVER.of(family), port, Reach.TIMEOUT)
            yield Visit(client, laid["lan"].far.of(family), port, Reach.TIMEOUT)
    for port in PORTS:
        yield Visit(client, wan.near.ipv6, port, Reach.TIMEOUT)


def by_the_public_one(laid: Ground, *, works: bool = True) -> Iterator[Visit]:
    """Those inside dial the public address: the server sees the router, and answers to it."""
    public = laid["wan"].near.ipv4
    for house in (laid["lan"], laid["air"]):
        for port, inner in ((HTTPS, HTTPS), (NEW, SSH)):
            expected = Seen("server", laid["lan"].near.ipv4, SERVER.ipv4, inner)
            yield Visit(house.neighbour, public, port, expected if works else Reach.TIMEOUT)


def test_without_the_words_for_it(tmp_path: Path) -> None:
    """The control: no translation, no port forward, and no public address inside."""
    changes = {
        "masquerade from lan to wan\n": "",
        "dnat https from wan to 192.168.1.10 hairpin\n": "dnat https from wan to 192.168.1.10\n",
        "dnat tcp 2222 from wan to 192.168.1.10 port 22 hairpin\n": "",
    }
    with house() as (laid, _):
        load_example(EXAMPLE, laid.firewall, Loader.NFT, tmp_path, changes)
        wan, lan = laid["wan"], laid["lan"]
        target, public = wan.far.ipv4, wan.near.ipv4
        untranslated = Seen("wan", lan.far.ipv4, target, HTTP)
        forwarded = Seen("server", target, SERVER.ipv4, HTTPS)
        all_seen_as_expected(
            (
                Visit(lan.neighbour, target, HTTP, untranslated),
                Visit(wan.neighbour, public, HTTPS, forwarded),
                Visit(wan.neighbour, public, NEW, Reach.TIMEOUT),
                *by_the_public_one(laid, works=False),
            )
        )
