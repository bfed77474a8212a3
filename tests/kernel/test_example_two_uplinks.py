"""The two uplinks of the examples: what takes which, and by which one the answers go.

The same address is at the end of both: whoever is met tells which way the packets took.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from .examples import load_example, on_every_loader
from .ground import Addresses, Family, Ground, Loader, Reach, ground
from .mirror import Seen, Visit, all_seen_as_expected, mirrors
from .router import secondary

pytestmark = pytest.mark.usefixtures("kernel")

EXAMPLE = "two-uplinks"
WIRES = {
    "cable": ("eth0", "192.0.2", "2001:db8:a:"),
    "dsl": ("eth1", "198.51.100", "2001:db8:b:"),
    "lan": ("eth2", "10.0.0", "2001:db8:1:"),
}
WORLD = Addresses("203.0.113.9", "2001:db8:ffff::9")
SERVER = Addresses("10.0.0.10", "2001:db8:1::10")
SSH, SMTP, HTTP, HTTPS, RSYNC, OTHER = PORTS = (22, 25, 80, 443, 873, 8080)

ANSWERS = "mark all from dsl to any as 0x2/0xff answers\n"
MARKED = "mark smtp, rsync from lan to cable, dsl as 0x2/0xff\n"


@contextmanager
def two_ways() -> Iterator[Ground]:
    """A router whose routing table prefers the cable; what is marked takes the other line."""
    with ground(*WIRES, wires=WIRES) as laid, ExitStack() as stack:
        cable, dsl, lan = (laid[zone] for zone in WIRES)
        firewall = laid.firewall
        for uplink in (cable, dsl):
            # Answers to what came in by one may be routed by the other.
            firewall.sysctl(f"net.ipv4.conf.{uplink.interface}.rp_filter", "2")
            uplink.neighbour.ip(*(secondary(WORLD.of(family), "eth0") for family in Family))
        lan.neighbour.ip(*(secondary(SERVER.of(family), "eth0") for family in Family))
        for family in Family:
            # What the example's README says.
            for words in (
                f"route add default via {cable.far.of(family)}",
                f"route add default via {dsl.far.of(family)} table 102",
                "rule add fwmark 0x2/0xff lookup 102",
            ):
                firewall.run(["ip", f"-{family.value}", *words.split()])
            firewall.ip(
                f"neigh replace {SERVER.of(family)} lladdr {lan.far_mac} dev eth2 nud permanent"
            )
        stack.enter_context(mirrors(firewall, "self", PORTS))
        for name, segment in laid.segments.items():
            stack.enter_context(mirrors(segment.neighbour, name, PORTS))
        yield laid


def leaving(laid: Ground, second: frozenset[int]) -> Iterator[Visit]:
    """What those inside ask of the world, and the ports that go by the second line."""
    lan = laid["lan"]
    for family in Family:
        target = WORLD.of(family)
        for port in PORTS:
            uplink = "dsl" if port in second else "cable"
            source = laid[uplink].near.ipv4 if family is Family.IPV4 else lan.far.ipv6
            expected: Seen | Reach = Seen(uplink, source, target, port)
            if port in (SSH, OTHER):
                expected = Reach.TIMEOUT
            yield Visit(lan.neighbour, target, port, expected)


def arriving(laid: Ground, uplink: str, *, is_answered: bool = True) -> Iterator[Visit]:
    """What the world asks of the router and of the server in the house, by one of the lines."""
    segment = laid[uplink]
    for family in Family:
        source, own, server = WORLD.of(family), segment.near.of(family), SERVER.of(family)
        dialled = own if family is Family.IPV4 else server
        for target, port, expected in (
            (own, SSH, Seen("self", source, own, SSH)),
            (dialled, HTTPS, Seen("lan", source, server, HTTPS)),
        ):
            outcome = expected if is_answered else Reach.TIMEOUT
            yield Visit(segment.neighbour, target, port, outcome, source=source)
        yield Visit(segment.neighbour, own, HTTP, Reach.TIMEOUT, source=source)


@on_every_loader
def test_two_uplinks(tmp_path: Path, loader: Loader) -> None:
    """Marked services leave by the second line; who comes by a line is answered by it."""
    with two_ways() as laid:
        load_example(EXAMPLE, laid.firewall, loader, tmp_path)
        all_seen_as_expected(
            (
                *leaving(laid, frozenset({SMTP, RSYNC})),
                *arriving(laid, "cable"),
                *arriving(laid, "dsl"),
            )
        )


@pytest.mark.parametrize("statement", [ANSWERS, MARKED], ids=["answers", "services"])
def test_without_the_mark_everything_takes_the_first(tmp_path: Path, statement: str) -> None:
    """The control: where a statement is missing, its packets go by the cable."""
    with two_ways() as laid:
        load_example(EXAMPLE, laid.firewall, Loader.NFT, tmp_path, {statement: ""})
        second = frozenset({SMTP, RSYNC}) if statement is ANSWERS else frozenset()
        all_seen_as_expected(
            (
                *leaving(laid, second),
                *arriving(laid, "cable"),
                *arriving(laid, "dsl", is_answered=statement is not ANSWERS),
            )
        )
