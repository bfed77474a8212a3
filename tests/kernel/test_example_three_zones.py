"""The DMZ of the examples: every pair of zones, in both families, and what is forged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from policylang.packets.fields import TCP
from tests.differential.frames import ACK, SYN, Probe

from .examples import (
    MUST_FAIL_S,
    Try,
    all_as_expected,
    arrived,
    load_example,
    move_in,
    on_every_loader,
    probe,
    serving_ports,
)
from .ground import Addresses, Family, Ground, Loader, Reach, ground, ping

pytestmark = pytest.mark.usefixtures("kernel")

EXAMPLE = "three-zones"
WIRES = {
    "wan": ("eth0", "203.0.113", "2001:db8:113:"),
    "dmz": ("eth1", "198.51.100", "2001:db8:1:"),
    "lan": ("eth2", "10.0.0", "2001:db8:2:"),
}
WEB = Addresses("198.51.100.18", "2001:db8:1::18")
MAIL = Addresses("198.51.100.19", "2001:db8:1::19")

SSH, SMTP, DNS, HTTP, HTTPS, SUBMISSIONS, OTHER = PORTS = (22, 25, 53, 80, 443, 465, 8080)
# From whom to whom: the ports that are open; of pairs that are not here, none.
OPEN = {
    ("world", "web"): {HTTP, HTTPS},
    ("world", "mail"): {SMTP, SUBMISSIONS},
    ("web", "world"): {DNS, HTTPS},
    ("mail", "world"): {DNS, HTTPS, SMTP},
    ("server", "world"): {DNS, HTTPS},
    ("inside", "self"): {SSH},
    **{("inside", target): set(PORTS) for target in ("world", "web", "mail", "server")},
}
NTP = {
    ("inside", "world"): Reach.OPEN,
    ("inside", "server"): Reach.OPEN,
    ("server", "world"): Reach.OPEN,
    ("server", "inside"): Reach.REFUSED,
    ("world", "server"): Reach.REFUSED,
    ("world", "inside"): Reach.REFUSED,
}


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine in a zone."""

    zone: str
    addresses: Addresses


def machines(laid: Ground) -> dict[str, Machine]:
    """One in each zone that no rule names, and the two servers."""
    return {
        "world": Machine("wan", laid["wan"].far),
        "web": Machine("dmz", WEB),
        "mail": Machine("dmz", MAIL),
        "server": Machine("dmz", laid["dmz"].far),
        "inside": Machine("lan", laid["lan"].far),
    }


def tries(laid: Ground) -> Iterator[Try]:
    """Everybody tries everybody in another zone, and the firewall: every port, both families."""
    known = machines(laid)
    for (name, one), family in product(known.items(), Family):
        client, source = laid[one.zone].neighbour, one.addresses.of(family)
        targets = {n: o.addresses.of(family) for n, o in known.items() if o.zone != one.zone}
        targets["self"] = laid[one.zone].near.of(family)
        for (target, address), port in product(targets.items(), PORTS):
            # Whoever is kept from another zone is told so; the firewall itself says nothing.
            closed = Reach.TIMEOUT if target == "self" else Reach.REFUSED
            expected = Reach.OPEN if port in OPEN.get((name, target), ()) else closed
            yield Try(client, address, port, expected, source=source)
    # No UDP by the servers with names of their own: they are the same machine as `server`.
    for (name, target), expected in NTP.items():
        for family in Family:
            client = laid[known[name].zone].neighbour
            yield Try(client, known[target].addresses.of(family), 123, expected, "udp")


@on_every_loader
def test_every_pair_of_zones(tmp_path: Path, loader: Loader) -> None:
    """What passes between two zones is what the policy says, and the rest is answered."""
    with ground(*WIRES, wires=WIRES) as laid, ExitStack() as stack:
        move_in(laid.firewall, laid["dmz"], *(a.of(f) for a in (WEB, MAIL) for f in Family))
        stack.enter_context(serving_ports(laid.firewall, PORTS))
        for segment in laid.segments.values():
            echoing = (segment.far.ipv4, segment.far.ipv6)
            stack.enter_context(serving_ports(segment.neighbour, PORTS, [123], echoing))
        load_example(EXAMPLE, laid.firewall, loader, tmp_path)
        all_as_expected(tries(laid))
        for zone, is_answered in (("lan", True), ("dmz", False), ("wan", False)):
            segment = laid[zone]
            assert ping(segment.neighbour, segment.near.ipv4, MUST_FAIL_S) is is_answered
        assert set(arrived(laid["wan"], laid["dmz"], packets(laid))) == set(opening(laid))


def opening(laid: Ground) -> list[tuple[str, str]]:
    """Who may open a connection to whom."""
    return [(laid["wan"].far.of(family), WEB.of(family)) for family in Family]


FORGED = (("198.51.100.99", WEB.ipv4), ("2001:db8:1::99", WEB.ipv6), ("10.0.0.99", WEB.ipv4))
# From addresses that open nothing else.
STRAY = (("203.0.113.50", WEB.ipv4), ("2001:db8:113::50", WEB.ipv6))


def packets(laid: Ground) -> Iterator[Probe]:
    """What comes from the world for the web server: honest, forged, and in the midst of nothing."""
    for source, target in (*opening(laid), *FORGED):
        yield probe(source, target, TCP, ports=(50000, HTTP), tcp_flags=SYN)
    for source, target in STRAY:
        yield probe(source, target, TCP, ports=(50000, HTTP), tcp_flags=ACK)


def test_without_protection_what_is_forged_arrives(tmp_path: Path) -> None:
    """The control: neither the rules nor the kernel keep it out by themselves."""
    with ground(*WIRES, wires=WIRES) as laid:
        move_in(laid.firewall, laid["dmz"], WEB.ipv4, WEB.ipv6)
        for key in ("all", "eth0"):
            laid.firewall.sysctl(f"net.ipv4.conf.{key}.rp_filter", "0")
        changes = {"protect from any against spoofing, bad-flags": ""}
        load_example(EXAMPLE, laid.firewall, Loader.NFT, tmp_path, changes)
        came = arrived(laid["wan"], laid["dmz"], packets(laid))
        assert set(came) == {*opening(laid), *FORGED, *STRAY}
