"""The workstation of the examples: who answers a question to everybody gets in, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from policylang.lower.answers import ANSWER_TIMEOUT_S

from .examples import (
    Place,
    Question,
    Try,
    all_as_expected,
    answered,
    forget_connections,
    load_example,
    move_in,
    on_every_loader,
    serving_ports,
    wire_of,
)
from .ground import Family, Ground, Loader, Reach, family_of, ground

pytestmark = pytest.mark.usefixtures("kernel")

EXAMPLE = "workstation"
# A network that looks after nobody, with one machine of those who do.
WIRES = {"wan": ("wan0", "203.0.113", "2001:db8:113:")}
ADMINS = ("192.0.2.7", "2001:db8:1::7")
ANOTHER = "203.0.113.77"
PINGS = 40

# RFC 6762, UPnP, WS-Discovery, DHCP's rebinding (RFC 2131 section 4.4.5), RFC 8415: each is
# answered by a machine that was not asked by name, UPnP and WS-Discovery from any port.
QUESTIONS = {
    "mdns": Question("224.0.0.251", 5353, answer_port=5353, answer_source=ANOTHER),
    "mdns-6": Question("ff02::fb", 5353, answer_port=5353),
    "mdns-shared": Question("224.0.0.251", 5353, 5353, 5353, ANOTHER, to_group=True),
    "mdns-6-shared": Question("ff02::fb", 5353, 5353, 5353, to_group=True),
    "ssdp": Question("239.255.255.250", 1900, answer_source=ANOTHER),
    "ssdp-6": Question("ff02::c", 1900),
    "ws-discovery": Question("239.255.255.250", 3702, answer_source=ANOTHER),
    "dhcp": Question("255.255.255.255", 67, source_port=68, answer_port=67),
    "dhcpv6": Question("ff02::1:2", 547, source_port=546, answer_port=547),
}
# What `mdns` and the rest stand for, without their answers.
NO_ANSWERS = {
    "mdns, ssdp, ws-discovery, dhcp-client, dhcpv6-client": "udp 67, 547, 1900, 3702, 5353"
}


def asker_and_hearer(laid: Ground) -> tuple[Place, Place]:
    """The workstation and the other machine, each with its end of the wire."""
    wan = laid["wan"]
    return Place(laid.firewall, wan.interface), Place(wan.neighbour, "eth0")


@on_every_loader
def test_a_workstation(tmp_path: Path, loader: Loader) -> None:
    """What it asks for comes in, and those who look after it; others are kept out."""
    with ground("wan", wires=WIRES) as laid, serving_ports(laid.firewall, [22, 80], [161]):
        wan = laid["wan"]
        move_in(laid.firewall, wan, ANOTHER, *ADMINS)
        ends = asker_and_hearer(laid)
        # What stays out below is kept out by the firewall and by nothing else.
        assert answered(QUESTIONS, *ends, shift=1) == set(QUESTIONS)
        assert echoes(laid) == [PINGS] * 4
        load_example(EXAMPLE, laid.firewall, loader, tmp_path)
        forget_connections(laid.firewall)
        # Answers come from whoever has one and from whichever port; to the port that asked.
        assert answered(QUESTIONS, *ends) == set(QUESTIONS)
        assert answered(QUESTIONS, *ends, shift=1) == set()
        # A burst of five, each source for itself, and what a slow machine adds while they are sent.
        assert all(count in range(5, PINGS // 2) for count in echoes(laid))
        all_as_expected(tries(laid))


def test_without_the_services_nobody_answers(tmp_path: Path) -> None:
    """The control: ports alone do not let the answers in."""
    with ground("wan", wires=WIRES) as laid:
        move_in(laid.firewall, laid["wan"], ANOTHER)
        load_example(EXAMPLE, laid.firewall, Loader.NFT, tmp_path, NO_ANSWERS)
        assert answered(QUESTIONS, *asker_and_hearer(laid)) == set()


def echoes(laid: Ground) -> list[int]:
    """How many of `PINGS` at once are answered, for each of four machines."""
    wan = laid["wan"]
    sources = (wan.far.ipv4, wan.far.ipv6, *ADMINS)
    with wire_of(wan) as wire:
        return wire.echoes(PINGS, *((s, wan.near.of(family_of(s))) for s in sources))


def tries(laid: Ground) -> Iterator[Try]:
    """Who reaches what: those who look after it by SSH, nobody else, and the way out is open."""
    wan = laid["wan"]
    for family, admin in zip(Family, ADMINS, strict=True):
        near = wan.near.of(family)
        yield Try(wan.neighbour, near, 22, source=admin)
        yield Try(wan.neighbour, near, 22, Reach.TIMEOUT)
        yield Try(wan.neighbour, near, 80, Reach.TIMEOUT, source=admin)
        yield Try(wan.neighbour, near, 161, Reach.TIMEOUT, "udp")
        yield Try(laid.firewall, wan.far.of(family), 8080, Reach.REFUSED)


def test_answers_that_are_late_stay_out(tmp_path: Path) -> None:
    """Ten seconds after the question nobody is listened to any more, however it was loaded."""
    with ExitStack() as stack:
        grounds = [stack.enter_context(ground("wan", wires=WIRES)) for _ in Loader]
        for laid, loader in zip(grounds, Loader, strict=True):
            move_in(laid.firewall, laid["wan"], ANOTHER)
            load_example(EXAMPLE, laid.firewall, loader, tmp_path)

        def late(laid: Ground) -> set[str]:
            return answered(QUESTIONS, *asker_and_hearer(laid), after_s=ANSWER_TIMEOUT_S + 0.3)

        with ThreadPoolExecutor(len(grounds)) as pool:
            assert list(pool.map(late, grounds)) == [set()] * len(grounds)
