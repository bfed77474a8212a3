"""`clamp mss`: the segment size that both ends are offered, as it is on the wire.

The machines' own links take more than the way between them does, so that without a clamp they
offer each other too much.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from .applied import ETH_P_ALL, PACKET_OUTGOING, apply_text
from .ground import Family, Ground, Loader, Namespace, Reach, ground, probe_tcp

ZONES = "zone wan { interface wan0 }\nzone lan { interface lan0 }\nzone dmz { interface dmz0 }\n"
EVERYTHING = "allow all inbound\nallow all from any to any\n"
PORT, OTHER_PORT = 80, 8080

NARROW = 1400  # what the wire to `wan` takes at the router
HEADERS = {Family.IPV4: 40, Family.IPV6: 60}  # RFC 9293 section 3.7.1: without options
FULL = {family: 1500 - size for family, size in HEADERS.items()}
PATH = {family: NARROW - size for family, size in HEADERS.items()}
SYN, NO_OPERATION, MSS_OPTION = 0x02, 1, 2  # RFC 9293 section 3.1 and 3.2


@dataclass(frozen=True, slots=True)
class Offers:
    """What is offered by the SYNs that arrive at a machine."""

    opened: socket.socket

    def of(self, family: Family, port: int) -> int:
        """The size in the first SYN of that family from or to that port."""
        give_up = time.monotonic() + 3
        while (left := give_up - time.monotonic()) > 0:
            if not select.select([self.opened], [], [], left)[0]:
                break
            data, (_, _, direction, *_) = self.opened.recvfrom(2048)
            if direction != PACKET_OUTGOING and (offered := _offer(data, family, port)):
                return offered
        raise AssertionError(f"no SYN of {family.name} with port {port}")


def _offer(data: bytes, family: Family, port: int) -> int | None:
    """The size that an IP packet offers, or None where it is no such SYN."""
    is_v4 = data[0] >> 4 == 4
    protocol, start = (data[9], (data[0] & 15) * 4) if is_v4 else (data[6], 40)
    if Family(data[0] >> 4) is not family or protocol != socket.IPPROTO_TCP:
        return None
    if not data[start + 13] & SYN or port not in struct.unpack_from("!HH", data, start):
        return None
    options = data[start + 20 : start + (data[start + 12] >> 4) * 4]
    at = 0
    while at < len(options) and options[at]:
        if options[at] == MSS_OPTION:
            (size,) = struct.unpack_from("!H", options, at + 2)
            return int(size)
        at += 1 if options[at] == NO_OPERATION else options[at + 1]
    return None


@contextmanager
def offers(machine: Namespace) -> Iterator[Offers]:
    """Listen to the SYNs that arrive at a machine's wire."""
    with machine.entered():
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    with opened:
        opened.bind(("eth0", ETH_P_ALL))
        yield Offers(opened)


@dataclass(frozen=True, slots=True)
class Narrow:
    """A router with a narrow wire to `wan`, and a server on each port everywhere."""

    laid: Ground
    loader: Loader
    directory: Path

    def apply(self, statements: str) -> None:
        policy = ZONES + EVERYTHING + statements
        apply_text(policy, self.loader, self.laid.firewall, self.directory)

    def offered(self, start: str, goal: str, port: int = PORT) -> dict[str, dict[Family, int]]:
        """What the machines at both ends of a connection are offered, by their zones.

        What the router itself is offered is seen on no machine's wire.
        """
        found: dict[str, dict[Family, int]] = {}
        ends = {start: "source", goal: "destination"}
        for family in Family:
            target = self.laid[start].near if goal == "self" else self.laid[goal].far
            with ExitStack() as stack:
                heard = {
                    zone: stack.enter_context(offers(self.laid[zone].neighbour))
                    for zone in ends
                    if zone != "self"
                }
                client = self.laid.firewall if start == "self" else self.laid[start].neighbour
                assert probe_tcp(client, target.of(family), port) is Reach.OPEN
                for zone, listening in heard.items():
                    found.setdefault(zone, {})[family] = listening.of(family, port)
        return found


@pytest.fixture(scope="module", params=Loader, ids=lambda loader: loader.value)
def narrow(
    kernel: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Narrow]:
    """Such a router, for each way to load policies into it."""
    directory = tmp_path_factory.mktemp("clamp")
    with (
        ground("wan", "lan", "dmz") as laid,
        pytest.MonkeyPatch.context() as patch,
        ExitStack() as stack,
    ):
        # Legacy iptables takes one lock for the whole machine unless told another.
        patch.setenv("XTABLES_LOCKFILE", str(directory / "lock"))
        laid.firewall.ip(f"link set wan0 mtu {NARROW}")
        machines = [laid.firewall, *(laid[zone].neighbour for zone in laid.segments)]
        for machine in machines:
            for family in Family:
                for port in (PORT, OTHER_PORT):
                    stack.enter_context(machine.listen(family, port))
        yield Narrow(laid, request.param, directory)


def each(size: int) -> dict[Family, int]:
    return dict.fromkeys(Family, size)


def test_without_a_clamp_both_ends_are_offered_too_much(narrow: Narrow) -> None:
    """The control of all that follows."""
    narrow.apply("")
    assert narrow.offered("lan", "wan") == {"lan": FULL, "wan": FULL}
    assert narrow.offered("wan", "lan") == {"lan": FULL, "wan": FULL}


def test_what_the_path_takes(narrow: Narrow) -> None:
    """Both directions, whoever opens; and nothing else is touched."""
    narrow.apply("clamp mss from lan to wan\n")
    assert narrow.offered("lan", "wan") == {"lan": PATH, "wan": PATH}
    assert narrow.offered("wan", "lan") == {"lan": PATH, "wan": PATH}
    assert narrow.offered("dmz", "wan") == {"dmz": FULL, "wan": FULL}
    assert narrow.offered("lan", "dmz") == {"lan": FULL, "dmz": FULL}


def test_a_fixed_size(narrow: Narrow) -> None:
    """Of both families, and never more than what was offered."""
    narrow.apply("clamp mss from lan to wan as 1200\nclamp mss from lan to dmz as 9000\n")
    assert narrow.offered("lan", "wan") == {"lan": each(1200), "wan": each(1200)}
    assert narrow.offered("wan", "lan") == {"lan": each(1200), "wan": each(1200)}
    assert narrow.offered("lan", "dmz") == {"lan": FULL, "dmz": FULL}


def test_what_this_host_offers(narrow: Narrow) -> None:
    """SYNs to the other end and answers to its SYNs, where this host is an end."""
    narrow.apply("clamp mss from self to lan as 1200\nclamp mss from dmz to self as 1100\n")
    assert narrow.offered("self", "lan") == {"lan": each(1200)}
    assert narrow.offered("lan", "self") == {"lan": each(1200)}
    assert narrow.offered("self", "dmz") == {"dmz": each(1100)}
    assert narrow.offered("dmz", "self") == {"dmz": each(1100)}
    assert narrow.offered("self", "wan") == {"wan": PATH}


def test_one_family_alone(narrow: Narrow) -> None:
    narrow.apply("clamp mss from lan to dmz as 1200 ipv6\n")
    ends = {Family.IPV4: FULL[Family.IPV4], Family.IPV6: 1200}
    assert narrow.offered("lan", "dmz") == {"lan": ends, "dmz": ends}
