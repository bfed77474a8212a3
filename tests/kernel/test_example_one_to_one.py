"""The one-to-one addresses of the examples: each machine has its own, in both directions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from .examples import load_example, on_every_loader
from .ground import Addresses, Family, Ground, Loader, Reach, ground, ping
from .mirror import MUST_FAIL_S, Seen, Visit, all_seen_as_expected, mirrors
from .router import secondary

pytestmark = pytest.mark.usefixtures("kernel")

EXAMPLE = "one-to-one"
WIRES = {
    "wan": ("eth0", "192.0.2", "2001:db8:113:"),
    "dmz": ("eth1", "10.0.2", "fd00:2:"),
}
SSH, SMTP, HTTP, HTTPS, OTHER = PORTS = (22, 25, 80, 443, 8080)
# Inside and outside: the two machines of the rules, and one that none names.
MACHINES = {
    "web": (Addresses("10.0.2.17", "fd00:2::17"), Addresses("198.51.100.17", "2001:db8:a::17")),
    "mail": (Addresses("10.0.2.18", "fd00:2::18"), Addresses("198.51.100.18", "2001:db8:a::18")),
    "other": (Addresses("10.0.2.30", "fd00:2::30"), Addresses("198.51.100.30", "2001:db8:a::30")),
}
OPEN = {("web", HTTP), ("web", HTTPS), ("mail", SMTP)}  # to the world
ASKED = (HTTPS, SMTP)  # of the world


@contextmanager
def dmz() -> Iterator[Ground]:
    """The router; all machines of the DMZ are one, under their addresses."""
    with ground(*WIRES, wires=WIRES) as laid, ExitStack() as stack:
        inside = laid["dmz"]
        for inner, _ in MACHINES.values():
            for family in Family:
                address = inner.of(family)
                inside.neighbour.ip(secondary(address, "eth0"))
                laid.firewall.ip(
                    f"neigh replace {address} lladdr {inside.far_mac} dev eth1 nud permanent"
                )
        # Or the router itself says that there is no way to what nothing translates.
        laid.firewall.ip(
            "route add 198.51.100.16/28 dev eth0", "route add 2001:db8:a::/64 dev eth0"
        )
        for name, segment in laid.segments.items():
            stack.enter_context(mirrors(segment.neighbour, name, PORTS))
        stack.enter_context(mirrors(laid.firewall, "self", PORTS))
        yield laid


@on_every_loader
def test_one_to_one(tmp_path: Path, loader: Loader) -> None:
    """Who is met by an outer address is met as the rules say, and goes out by it."""
    with dmz() as laid:
        load_example(EXAMPLE, laid.firewall, loader, tmp_path)
        all_seen_as_expected((*arriving(laid), *leaving(laid)))
        _, outer = MACHINES["other"]
        assert all(ping(laid["wan"].neighbour, outer.of(family)) for family in Family)


def arriving(laid: Ground) -> Iterator[Visit]:
    """What the world meets."""
    wan = laid["wan"]
    for name, (inner, outer) in MACHINES.items():
        for family in Family:
            for port in PORTS:
                expected: Seen | Reach = Reach.TIMEOUT
                if (name, port) in OPEN:
                    expected = Seen("dmz", wan.far.of(family), inner.of(family), port)
                yield Visit(wan.neighbour, outer.of(family), port, expected)


def leaving(laid: Ground, *, is_translated: bool = True) -> Iterator[Visit]:
    """Under which address each machine is known to the world."""
    dmz, wan = laid["dmz"], laid["wan"]
    for inner, outer in MACHINES.values():
        for family in Family:
            source, target = inner.of(family), wan.far.of(family)
            seen = outer.of(family) if is_translated else source
            for port in PORTS:
                expected: Seen | Reach = Reach.TIMEOUT
                if port in ASKED:
                    expected = Seen("wan", seen, target, port)
                yield Visit(dmz.neighbour, target, port, expected, source=source)


def test_without_the_words_nobody_is_there(tmp_path: Path) -> None:
    """The control: outer addresses stand for nobody, and inner ones are seen outside."""
    changes = {
        "netmap 198.51.100.16/28 to 10.0.2.16/28 on wan\n": "",
        "netmap 2001:db8:a::/64 to fd00:2::/64 on wan\n": "",
    }
    with dmz() as laid:
        load_example(EXAMPLE, laid.firewall, Loader.NFT, tmp_path, changes)
        wan = laid["wan"]
        tries = [
            Visit(wan.neighbour, outer.of(family), port, Reach.TIMEOUT)
            for _, outer in MACHINES.values()
            for family in Family
            for port in PORTS
        ]
        all_seen_as_expected((*tries, *leaving(laid, is_translated=False)))
        _, outer = MACHINES["web"]
        assert not ping(wan.neighbour, outer.ipv4, MUST_FAIL_S)
