"""`protect` keeps out what lies about itself, before any rule is read, and nothing else.

Packets are looked for behind everything that comes before routing: no rule of the filter and no
check of the kernel's own has seen them there.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from policylang.packets.fields import ICMPV6, TCP
from tests.backends.nft_station import OWN, ROUTING_HEADER, Hook, Packet, arriving

from .applied import FAMILIES, Firewall, count, each, through
from .ground import (
    CommandError,
    Family,
    Loader,
    Reach,
    ground,
    ping,
    probe_tcp,
    probe_udp,
)
from .logged import Listener

OPEN = "\nallow all inbound\nallow all from any to any\n"
INTERFACES = "zone near { interface eth0 }\nzone other { interface eth1 }\n"
# The second zone has a part of the first one's network, and the route to it is by the first.
NETWORKS = """
zone near { interface eth0  network 192.0.2.0/25, 2001:db8:1::/65 }
zone other { interface eth1  network 192.0.2.192/26, 2001:db8:1:0:c000::/66 }
"""


def by(*sources: str, to: str | None = None) -> tuple[Packet, ...]:
    """Packets from those addresses, by the first wire."""
    made = [arriving(family=6 if ":" in source else 4, source=source) for source in sources]
    return tuple(p if to is None else replace(p, destination=to) for p in made)


SOLICITATION = Packet(
    "::", "ff02::1:ff00:2", ICMPV6, icmp_type=135, hop_limit=255
)  # duplicate address detection
# Who has no address yet, or one of this wire alone.
NEWCOMERS = (
    Packet("0.0.0.0", "255.255.255.255", ports=(68, 67)),
    SOLICITATION,
    Packet("fe80::99", "ff02::fb"),
    Packet("fe80::99", "ff02::1:2", ports=(546, 547)),
    arriving(family=6, source="fe80::99"),
)

SYN, FIN, RST, PSH, ACK, URG, ECE, CWR = 2, 1, 4, 8, 16, 32, 64, 128


def flagged(*flags: int) -> tuple[Packet, ...]:
    """Segments of connections of their own."""
    return tuple(
        arriving(family=family, protocol=TCP, tcp_flags=flag, ports=(20000 + flag, 1000))
        for flag in flags
        for family in FAMILIES
    )


# RFC 791 section 3.1 and RFC 8200 section 4.4.
LOOSE, STRICT = (bytes((kind, 7, 4, 192, 0, 2, 9, 1)) for kind in (131, 137))
RECORD_ROUTE = bytes((7, 7, 4, 0, 0, 0, 0, 1))
SPENT_ROUTE = ((ROUTING_HEADER, bytes((0, 4, 0, 0, 0, 0, 0))),)
PADDING = ((0, bytes((0, 1, 4, 0, 0, 0, 0))),)


@dataclass(frozen=True)
class Case:
    """What a protection is against: packets that it keeps out, and others that it does not."""

    against: str
    bad: Sequence[Packet]
    good: Sequence[Packet]
    zones: str = INTERFACES


CASES = {
    "route back": Case(
        "spoofing",
        by("198.51.100.7", "2001:db8:2::9", "203.0.113.5", "2001:db8:99::9"),
        (*each(arriving), *by("192.0.2.99", "2001:db8:1::99"), *NEWCOMERS),
    ),
    "own addresses": Case(
        "spoofing",
        by(*(OWN[wire][family] for wire in OWN for family in FAMILIES)),
        each(arriving),
    ),
    "networks of zones": Case(
        "spoofing",
        # Those of the other zone, and those of none.
        by("192.0.2.200", "2001:db8:1:0:c000::7", "192.0.2.150", "2001:db8:1:0:8000::7"),
        (*each(arriving), *by("192.0.2.99", "2001:db8:1::99"), *NEWCOMERS),
        NETWORKS,
    ),
    "bogons": Case(
        "bogons",
        by(
            *("10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "127.0.0.9", "198.18.0.1"),
            *(
                "240.0.0.1",
                "0.1.2.3",
                "169.254.1.1",
                "fc00::1",
                "fd12::1",
                "2001:10::1",
                "100::1",
            ),
        ),
        (
            *each(arriving),
            *by("8.8.8.8", "172.15.0.1", "172.32.0.1", "2600::1", "203.0.113.9"),
            *NEWCOMERS,
        ),
    ),
    "own bogons": Case(
        "bogons",
        by("8.8.8.8", "2600::1"),
        by("10.1.2.3", "fc00::1"),
        INTERFACES + "set bogons = 8.8.8.0/24, 2600::/16\n",
    ),
    "bad flags": Case(
        "bad-flags",
        (
            *flagged(0, FIN, PSH, URG, SYN | FIN, SYN | RST, FIN | RST, FIN | PSH | URG, 63, 255),
            *flagged(SYN | FIN | ACK, SYN | RST | ACK, FIN | RST | ACK, SYN | FIN | PSH | URG),
            # What opens no connection, and yet there is none.
            *flagged(ACK, ACK | PSH, ACK | URG),
        ),
        (*flagged(SYN, SYN | ECE | CWR), *each(arriving)),
    ),
    "routes": Case(
        "source-routing",
        (
            arriving(options=LOOSE),
            arriving(options=STRICT),
            arriving(options=RECORD_ROUTE + LOOSE),
            arriving(family=6, extensions=SPENT_ROUTE),
            arriving(family=6, extensions=PADDING + SPENT_ROUTE),
        ),
        (*each(arriving), arriving(options=RECORD_ROUTE), arriving(family=6, extensions=PADDING)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_kept_out(firewall: Firewall, name: str) -> None:
    """By the interfaces that the statement names; by others, and without it, all of it passes."""
    case = CASES[name]
    protect = f"protect from near against {case.against}\n"
    if case.against == "source-routing" and firewall.loader is not Loader.NFT:
        with pytest.raises(CommandError, match=r"error\[unsupported\]"):
            firewall.apply(case.zones + protect + OPEN)
        return
    station = firewall.station
    packets = (*case.bad, *case.good)
    firewall.apply(case.zones + protect + OPEN)
    kept_out = [False] * len(case.bad) + [True] * len(case.good)
    assert station.verdicts(Hook.PREROUTING, packets) == kept_out
    firewall.forget()
    elsewhere = [replace(packet, wire="eth1") for packet in packets]
    assert all(station.verdicts(Hook.PREROUTING, elsewhere))
    firewall.apply(case.zones + OPEN)
    assert all(station.verdicts(Hook.PREROUTING, packets))


def test_segments_of_no_connection(firewall: Firewall) -> None:
    """Those that conntrack itself calls INVALID are kept out by that: before any rule, too."""
    firewall.apply(f"{INTERFACES}protect from near against bad-flags{OPEN}")
    segments = flagged(RST, RST | ACK, SYN | ACK, FIN | ACK, FIN | ACK | PSH)
    assert firewall.takes(*segments) == [False] * len(segments)
    assert firewall.forwards(*through(segments)) == [False] * len(segments)
    assert all(firewall.takes(*flagged(SYN)))


def test_floods(firewall: Firewall) -> None:
    """SYNs beyond the rate, each source for itself; what is no SYN is not counted."""
    firewall.apply(f"{INTERFACES}protect from near against syn-flood limit 1/hour burst 2{OPEN}")

    def syns(host: int, times: int, wire: str = "eth0", flags: int = SYN) -> list[bool]:
        source = {4: f"192.0.2.{host}", 6: f"2001:db8:1::{host}"}[family]
        packets = [
            arriving(wire, family, source=source, protocol=TCP, tcp_flags=flags, ports=(n, 1000))
            for n in range(100, 100 + times)
        ]
        return firewall.station.verdicts(Hook.PREROUTING, packets)

    for family in FAMILIES:
        assert count(syns(66, 5)) == 2
        assert count(syns(67, 5)) == 2
        assert count(syns(66, 5, flags=ACK)) == 5
        assert count(syns(66, 5, wire="eth1")) == 5
        datagrams = [arriving(family=family)] * 9
        assert all(firewall.station.verdicts(Hook.PREROUTING, datagrams))


def test_floods_unless_said_otherwise(firewall: Firewall) -> None:
    """50 a second, after 100 at once."""
    firewall.apply(f"{INTERFACES}protect from any against syn-flood{OPEN}")
    for family in FAMILIES:
        started = time.monotonic()
        packets = [
            arriving(family=family, protocol=TCP, ports=(port, 1000)) for port in range(1, 301)
        ]
        passed = sum(firewall.station.verdicts(Hook.PREROUTING, packets))
        assert 100 <= passed <= 101 + 50 * (time.monotonic() - started)


def test_what_is_kept_out_is_logged(firewall: Firewall) -> None:
    """Under the statement's prefix, and nothing else is."""
    firewall.apply(
        f"""{INTERFACES}
        protect from near against bogons, bad-flags log "bad " group 5 limit none
        allow all inbound
        """
    )
    listener = Listener(firewall.station.inside, 5)
    bad = (*by("10.1.2.3", "fc00::1"), *flagged(SYN | FIN, ACK))
    firewall.station.throw((*bad, *each(arriving), *flagged(SYN)))
    assert [entry.prefix for entry in listener.entries()] == ["bad "] * len(bad)
    listener.close()


def test_who_lies_is_remembered(firewall: Firewall) -> None:
    """A protection puts sources in a set, as a rule does."""
    firewall.apply(
        f"""{INTERFACES}
        set liars = dynamic timeout 1h
        protect from near against bad-flags add source to liars
        deny all inbound from liars
        allow all inbound
        """
    )
    for family in FAMILIES:
        lie = arriving(family=family, protocol=TCP, tcp_flags=SYN | FIN)
        other = by({4: "192.0.2.99", 6: "2001:db8:1::99"}[family])[0]
        datagrams = (arriving(family=family), other)
        assert firewall.takes(*datagrams) == [True, True]
        firewall.station.throw([lie])
        assert firewall.takes(*datagrams) == [False, True]


def test_what_a_host_needs_goes_on(kernel: None, tmp_path: Path) -> None:
    """With every protection: discovery, pings, connections both ways and through, loopback."""
    for loader in Loader:
        with ground("wan", "lan", discovery=True) as laid:
            wan, lan, here = laid["wan"], laid["lan"], laid.firewall
            loader.load(
                """
                zone wan { interface wan0 }
                zone lan { interface lan0  network 198.51.100.0/24, 2001:db8:51::/64 }
                protect from any against spoofing, bogons, bad-flags, syn-flood
                allow ping, tcp 1000, udp 1000 inbound
                allow tcp 1000, udp 1000 from lan to wan
                """,
                here,
                tmp_path,
            )
            for family in Family:
                near, far = wan.near.of(family), wan.far.of(family)
                ways = (
                    (wan.neighbour, here, near),
                    (lan.neighbour, here, lan.near.of(family)),
                    (lan.neighbour, wan.neighbour, far),
                    (here, wan.neighbour, far),
                    (here, here, {Family.IPV4: "127.0.0.1", Family.IPV6: "::1"}[family]),
                    (here, here, near),
                )
                for server in (here, wan.neighbour):
                    with server.listen(family, 1000), server.udp_echo(family, 1000):
                        for client, at, address in ways:
                            if at is server:
                                assert probe_tcp(client, address, 1000) is Reach.OPEN
                                assert probe_udp(client, address, 1000) is Reach.OPEN
                for client, at, address in ways:
                    assert at is not here or ping(client, address)
