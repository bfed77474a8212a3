"""The LAN server of the examples: those who asked everybody get an answer through a closed way out.

What conntrack takes for something new is let out because the question came in: the answers to
mDNS, NetBIOS and DHCP go to whoever asked, from another address than was asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from policylang.packets.fields import UDP

from .examples import (
    BROADCAST_MAC,
    MUST_PASS_S,
    Place,
    Question,
    Try,
    all_as_expected,
    answered,
    datagrams,
    load_example,
    on_every_loader,
    probe,
    serving_ports,
    wire_of,
)
from .ground import Family, Ground, Loader, Reach, ground, ping

pytestmark = pytest.mark.usefixtures("kernel")

EXAMPLE = "lan-server"
WIRES = {"lan": ("eth0", "192.0.2", "2001:db8:51:")}

EVERYBODY = "255.255.255.255"
# RFC 6762 with an answer for one and with one for all, RFC 1002, Samba's browsing, RFC 2131
# section 4.4.5.
QUESTIONS = {
    "mdns": Question("224.0.0.251", 5353, answer_port=5353),
    "mdns-6": Question("ff02::fb", 5353, answer_port=5353),
    "mdns-shared": Question("224.0.0.251", 5353, 5353, 5353, to_group=True),
    "mdns-6-shared": Question("ff02::fb", 5353, 5353, 5353, to_group=True),
    "netbios-ns": Question("192.0.2.255", 137, answer_port=137),
    "netbios-ns-full": Question("192.0.2.255", 137, source_port=137, answer_port=137),
    "netbios-dgm": Question("192.0.2.255", 138, source_port=138, answer_port=138),
    "dhcp": Question(EVERYBODY, 67, source_port=68, answer_port=67),
}
# The server asks, too, and where it may.
ITS_OWN = {name: question for name, question in QUESTIONS.items() if name != "dhcp"}

# The same ports, and nothing that says how they are answered.
NO_ANSWERS = {
    "dhcp-server, dns, mdns, samba, ssh": "udp 67, 137, 138, 5353, tcp 139, 445, dns, ssh",
    "allow mdns, netbios-ns, netbios-dgm outbound to lan": "",
}


def places(laid: Ground) -> tuple[Place, Place]:
    """The server's end of the wire, and that of another machine."""
    return Place(laid.firewall, "eth0"), Place(laid["lan"].neighbour, "eth0")


@on_every_loader
def test_a_lan_server(tmp_path: Path, loader: Loader) -> None:
    """Questions to everybody are answered, in both directions; of the rest little gets out."""
    with ground("lan", wires=WIRES) as laid, ExitStack() as stack:
        lan = laid["lan"]
        lan.neighbour.ip("addr change 192.0.2.2/24 brd + dev eth0")
        laid.firewall.ip("addr change 192.0.2.1/24 brd + dev eth0")
        load_example(EXAMPLE, laid.firewall, loader, tmp_path)
        server, other = places(laid)
        assert lease(laid) == "no offer"
        assert answered(QUESTIONS, other, server) == set(QUESTIONS)
        assert answered(ITS_OWN, server, other) == set(ITS_OWN)
        assert lease(laid, asks=True) == "offer"
        assert announced(laid) == {Family.IPV4, Family.IPV6}
        stack.enter_context(serving_ports(laid.firewall, [22, 53, 80, 139, 445], [53]))
        stack.enter_context(serving_ports(lan.neighbour, [53, 80, 443, 8080], [53, 123, 1900]))
        all_as_expected(tries(laid))
        assert ping(laid.firewall, lan.far.ipv4)


def tries(laid: Ground) -> Iterator[Try]:
    """Who reaches what by name."""
    lan = laid["lan"]
    for family in Family:
        near, far = lan.near.of(family), lan.far.of(family)
        for port in (22, 53, 139, 445):
            yield Try(lan.neighbour, near, port)
        yield Try(lan.neighbour, near, 53, protocol="udp")
        yield Try(lan.neighbour, near, 80, Reach.TIMEOUT)
        for port in (53, 80, 443):
            yield Try(laid.firewall, far, port)
        yield Try(laid.firewall, far, 8080, Reach.REFUSED)
        for port in (53, 123):
            yield Try(laid.firewall, far, port, protocol="udp")
        yield Try(laid.firewall, far, 1900, Reach.UNREACHABLE, "udp")


def lease(laid: Ground, *, asks: bool = False) -> str:
    """What a machine without an address is told: the question and the answer go to everybody."""
    server, other = places(laid)
    with (
        datagrams(Family.IPV4, server, 67, EVERYBODY) as ours,
        datagrams(Family.IPV4, other, 68, EVERYBODY) as theirs,
        wire_of(laid["lan"]) as wire,
    ):
        if asks:
            discover = probe("0.0.0.0", EVERYBODY, UDP, ports=(68, 67))
            wire.send([discover], BROADCAST_MAC)
            ours.settimeout(MUST_PASS_S)
            assert ours.recvfrom(2048)[1] == ("0.0.0.0", 68)
        try:
            ours.sendto(b"offer", (EVERYBODY, 68))
        except PermissionError:
            return "no offer"
        theirs.settimeout(MUST_PASS_S)
        return theirs.recv(2048).decode()


def announced(laid: Ground) -> set[Family]:
    """The families in which the server may tell the group what it offers, unasked."""
    server, other = places(laid)
    heard: set[Family] = set()
    for family, group in ((Family.IPV4, "224.0.0.251"), (Family.IPV6, "ff02::fb")):
        with (
            datagrams(family, server, 5353, group) as ours,
            datagrams(family, other, 5353, group) as theirs,
        ):
            try:
                ours.sendto(b"here I am", (group, 5353))
            except PermissionError:
                continue
            theirs.settimeout(MUST_PASS_S)
            assert theirs.recv(2048) == b"here I am"
            heard.add(family)
    return heard


def test_without_the_services_no_answer_gets_out(tmp_path: Path) -> None:
    """The control: ports alone let the questions in, and the way out stays closed."""
    with ground("lan", wires=WIRES) as laid:
        load_example(EXAMPLE, laid.firewall, Loader.NFT, tmp_path, NO_ANSWERS)
        server, other = places(laid)
        assert answered(QUESTIONS, other, server) == set()
        assert lease(laid, asks=True) == "no offer"
        assert announced(laid) == set()
