"""What comes without having been asked by name: answers from elsewhere, groups, and what IP needs.

A question to a group is answered by machines that conntrack has never heard of.
"""

from __future__ import annotations

import errno
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from policylang.packets.fields import ICMPV6, TCP
from tests.backends.nft_station import FAR, IGMP, OWN, WIRES, Packet, arriving, leaving

from .applied import FAMILIES, Firewall, until_true
from .ground import Loader, Namespace, ground

ZONES = "zone near { interface eth0 }\nzone other { interface eth1 }\n"
CLOSED = ZONES + "default deny outbound\n"

JOINED = ("224.0.0.251", "239.255.255.250", "ff02::fb", "ff02::c", "ff02::1:2")


@pytest.fixture(autouse=True)
def members(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let the firewall be in the groups, or the kernel hands it nothing that is addressed to them.

    By each of its wires.
    """
    if "firewall" not in request.fixturenames:
        yield
        return
    firewall: Firewall = request.getfixturevalue("firewall")
    with ExitStack() as stack:
        for wire in WIRES:
            for group in JOINED:
                stack.enter_context(joined(firewall.station.inside, wire, group))
        yield


def joined(at: Namespace, interface: str, group: str) -> socket.socket:
    """A UDP socket that is in a group by an interface."""
    with at.entered():
        if ":" not in group:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            member = struct.pack(
                "=4s4si", socket.inet_aton(group), bytes(4), socket.if_nametoindex(interface)
            )
            made.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        else:
            made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            member = socket.inet_pton(socket.AF_INET6, group) + struct.pack(
                "=i", socket.if_nametoindex(interface)
            )
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
    return made


# --- questions of this host ------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A service, a question that this host sends, and the answers to it."""

    service: str
    question: Packet
    answers: tuple[Packet, ...]


LINK_LOCAL, OTHER_LINK_LOCAL = "fe80::5", "fe80::7"


def question(family: int, to: str, port: int, own_port: int) -> Packet:
    return leaving(family=family, destination=to, ports=(own_port, port))


def answer(family: int, port: int, own_port: int, source: str, to: str | None = None) -> Packet:
    found = arriving(family=family, source=source, ports=(port, own_port))
    return found if to is None else replace(found, destination=to)


QUESTIONS = {
    "dhcp": Asked(
        "dhcp-client",
        question(4, "255.255.255.255", 67, 68),
        (
            answer(4, 67, 68, "192.0.2.7"),
            answer(4, 67, 68, "192.0.2.7", "255.255.255.255"),
            answer(4, 67, 68, "203.0.113.7"),  # by a relay
        ),
    ),
    "dhcpv6": Asked(
        "dhcpv6-client",
        question(6, "ff02::1:2", 547, 546),
        (answer(6, 547, 546, OTHER_LINK_LOCAL), answer(6, 40000, 546, "2001:db8:1::7")),
    ),
    "mdns": Asked(
        "mdns",
        question(4, "224.0.0.251", 5353, 50000),
        (answer(4, 5353, 50000, "192.0.2.7"), answer(4, 5353, 50000, "192.0.2.8")),
    ),
    "mdns to the group": Asked(
        "mdns",
        question(6, "ff02::fb", 5353, 5353),
        (
            answer(6, 5353, 5353, OTHER_LINK_LOCAL, "ff02::fb"),
            answer(6, 5353, 5353, OTHER_LINK_LOCAL),
        ),
    ),
    "ssdp": Asked(
        "ssdp",
        question(4, "239.255.255.250", 1900, 50001),
        (answer(4, 1900, 50001, "192.0.2.7"), answer(4, 60000, 50001, "192.0.2.8")),
    ),
    "ssdp by ipv6": Asked(
        "ssdp",
        question(6, "ff02::c", 1900, 50001),
        (answer(6, 1900, 50001, "2001:db8:1::7"),),
    ),
}


def not_answers(asked: Asked) -> list[Packet]:
    """What answers another question, or none."""
    one = asked.answers[0]
    sport, dport = one.ports
    return [
        replace(one, ports=(sport, dport + 1)),
        replace(one, wire="eth1"),
        replace(one, destination=OWN["eth1"][one.family]),
        replace(one, protocol=TCP),
    ]


def test_answers_from_elsewhere_are_let_in(firewall: Firewall) -> None:
    """After the question, by the interface by which it left, to the port that asked it."""
    services = sorted({asked.service for asked in QUESTIONS.values()})
    firewall.apply(f"{CLOSED}allow {', '.join(services)} outbound to near")
    for name, asked in QUESTIONS.items():
        # Each starts with nothing asked; all that is answered comes within 10 s.
        firewall.forget_connections()
        forget_questions(firewall)
        assert not any(firewall.takes(*asked.answers)), name
        firewall.forget_connections()
        assert firewall.sends(asked.question) == [True], name
        assert all(firewall.takes(*asked.answers)), name
        others = not_answers(asked)
        assert firewall.takes(*others) == [False] * len(others), name
        assert all(0 < left_s <= 10 for left_s in questions_left_s(firewall)), name


def test_what_is_asked_by_no_rule_of_its_own_has_no_answers(firewall: Firewall) -> None:
    """Neither by the default that lets everything out, nor by a rule that allows all."""
    for rule in ("", "allow all outbound", "allow udp 5353 outbound"):
        firewall.apply(ZONES + rule)
        asked = QUESTIONS["mdns"]
        assert firewall.sends(asked.question) == [True]
        assert not any(firewall.takes(*asked.answers))


def test_a_question_that_is_denied_has_no_answers(firewall: Firewall) -> None:
    """A rule above holds it back, or it leaves by another interface."""
    firewall.apply(f"{CLOSED}deny mdns outbound to 224.0.0.251\nallow mdns outbound to near")
    denied, asked = QUESTIONS["mdns"], QUESTIONS["mdns to the group"]
    elsewhere = replace(asked.question, source=OWN["eth1"][6], wire="eth1", ports=(50009, 5353))
    assert firewall.sends(denied.question, elsewhere, asked.question) == [False, False, True]
    assert not any(firewall.takes(*denied.answers))
    assert all(firewall.takes(*asked.answers))


def test_an_earlier_rule_denies_an_answer(firewall: Firewall) -> None:
    """Answers are let in at the place of the rule in the order."""
    firewall.apply(f"{CLOSED}deny all inbound from 192.0.2.7\nallow mdns outbound to near")
    asked = QUESTIONS["mdns"]
    firewall.station.send((asked.question,))
    assert firewall.takes(*asked.answers) == [False, True]


def test_answers_to_others_are_let_out(firewall: Firewall) -> None:
    """To the asking port, from the service's own, by the interface of the rule's source."""
    firewall.apply(f"{CLOSED}allow mdns, dhcp-server inbound from near")
    for family in FAMILIES:
        group = {4: "224.0.0.251", 6: "ff02::fb"}[family]
        # From an address that no answer goes to.
        asked = arriving(family=family, destination=group, ports=(50100 + family, 5353))
        back = leaving(family=family, ports=(5353, 50100 + family))
        back = replace(back, destination={4: "192.0.2.99", 6: "2001:db8:1::99"}[family])
        assert firewall.sends(back) == [False]
        assert firewall.takes(asked) == [True]
        others = [
            replace(back, ports=(5353, 50200)),
            replace(back, ports=(5354, 50100 + family)),
            leaving("eth1", family, ports=back.ports),
            replace(back, protocol=TCP),
        ]
        assert firewall.sends(back, *others) == [True] + [False] * len(others)


def questions_left_s(firewall: Firewall) -> list[int]:
    """How many seconds each question is still remembered."""
    if firewall.loader is Loader.NFT:
        found = re.findall(r"expires (\d+)s", firewall.listing())
    else:
        listing = firewall.station.inside.run(["ipset", "list"]).stdout
        found = re.findall(r"^\S+ timeout (\d+)$", listing, re.MULTILINE)
    return [int(left_s) for left_s in found]


def forget_questions(firewall: Firewall) -> None:
    inside = firewall.station.inside
    if firewall.loader is not Loader.NFT:
        inside.run(["ipset", "flush"])
        return
    for family in FAMILIES:
        inside.run(["nft", "flush", "set", "inet", "policylang", f"questions.v{family}"])


# --- the same by programs --------------------------------------------------------------------


def opened(
    at: Namespace, interface: str, af: socket.AddressFamily, port: int, group: str = ""
) -> socket.socket:
    """A UDP socket on one interface, in a group if one is named."""
    with at.entered():
        made = socket.socket(af, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        made.settimeout(2)
        index = socket.if_nametoindex(interface)
        made.bind(("", port) if af == socket.AF_INET else ("::", port, 0, index))
        if group:
            member = socket.inet_pton(af, group) + struct.pack("=I", index)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
    return made


PATIENCE_S = 0.15  # of who asks and of who answers
TO_ALL, ALL_SERVERS = "255.255.255.255", "ff02::1:2"


def dhcp(client: Namespace, server: Namespace, interfaces: tuple[str, str]) -> tuple[bool, bool]:
    """Whether the question reaches the server, and the answer, to all, the client.

    The client has no address.
    """
    by, at = interfaces
    with (
        opened(client, by, socket.AF_INET, 68) as asking,
        opened(server, at, socket.AF_INET, 67) as answering,
    ):
        return asked_and_answered(asking, (TO_ALL, 67), answering, (TO_ALL, 68))


def dhcpv6(client: Namespace, server: Namespace, interfaces: tuple[str, str]) -> tuple[bool, bool]:
    """The same, between link-local addresses."""
    by, at = interfaces
    with (
        opened(client, by, socket.AF_INET6, 546) as asking,
        opened(server, at, socket.AF_INET6, 547, ALL_SERVERS) as answering,
    ):
        with client.entered():
            index = socket.if_nametoindex(by)
        return asked_and_answered(asking, (ALL_SERVERS, 547, 0, index), answering, None)


def asked_and_answered(
    asking: socket.socket,
    where: tuple[object, ...],
    answering: socket.socket,
    back: tuple[object, ...] | None,
) -> tuple[bool, bool]:
    is_asked = False
    try:
        asking.sendto(b"question", where)
        answering.settimeout(PATIENCE_S)
        _, asker = answering.recvfrom(100)
        is_asked = True
        answering.sendto(b"answer", back or asker)
        asking.settimeout(PATIENCE_S)
        return True, asking.recv(100) == b"answer"
    except (TimeoutError, PermissionError):
        return is_asked, False
    except OSError as error:
        # The kernel's one table of neighbours is full (see `ground`).
        if error.errno not in (errno.EINVAL, errno.ENOBUFS):
            raise
        return is_asked, False


NOTHING, ASKED, ANSWERED = (False, False), (True, False), (True, True)

# Rules -> what comes of the questions of this host, and of those to it.
ROLES = {
    "allow dhcp-client, dhcpv6-client outbound to wan": (ANSWERED, NOTHING),
    "allow dhcp-server, dhcpv6-server inbound from wan": (NOTHING, ANSWERED),
    # The control: the questions alone.
    "allow udp 67, 547 outbound to wan": (ASKED, NOTHING),
    "allow udp 67, 547 inbound from wan": (NOTHING, ASKED),
}


@pytest.mark.parametrize("loader", Loader)
def test_dhcp_by_programs(kernel: None, loader: Loader, tmp_path: Path) -> None:
    """This host as a client, and as a server."""
    with ground("wan") as laid:
        wan, here = laid["wan"], laid.firewall
        ways = (
            (here, wan.neighbour, (wan.interface, "eth0")),
            (wan.neighbour, here, ("eth0", wan.interface)),
        )
        for rule, expected in ROLES.items():
            policy = f"zone wan {{ interface wan0 }}\ndefault deny outbound\n{rule}"
            loader.load(policy, here, tmp_path)
            for way, came in zip(ways, expected, strict=True):
                with without_address(way[0], way[2][0]):
                    until_true(lambda: dhcp(*way) == came)  # noqa: B023
                until_true(lambda: dhcpv6(*way) == came)  # noqa: B023


@contextmanager
def without_address(namespace: Namespace, interface: str) -> Iterator[None]:
    """Take the IPv4 addresses of an interface away for a while."""
    saved = namespace.run(["ip", "-4", "-o", "addr", "show", "dev", interface]).stdout.split()
    address = saved[saved.index("inet") + 1]
    namespace.ip(f"addr del {address} dev {interface}")
    try:
        yield
    finally:
        namespace.ip(f"addr add {address} dev {interface}")


# --- groups ----------------------------------------------------------------------------------

GROUPS = {4: "224.0.0.251", 6: "ff02::fb"}


def test_groups_and_broadcasts(firewall: Firewall) -> None:
    """`multicast` and `broadcast` are what a packet is addressed to, in and out."""
    firewall.apply(
        f"""{CLOSED}
        allow udp 1000 inbound to multicast
        allow udp 1000 outbound to multicast
        allow udp 1001 inbound to broadcast
        allow udp 1001 outbound to broadcast
        allow udp 1002 inbound to 224.0.0.251, ff02::fb
        deny udp 1003 inbound to multicast
        allow udp 1003 inbound
        """
    )
    wide = {4: ("255.255.255.255", "192.0.2.255"), 6: ()}
    for family in FAMILIES:
        for make, judge, own in (
            (arriving, firewall.takes, OWN["eth0"][family]),
            (leaving, firewall.sends, FAR["eth0"][family]),
        ):

            def to(port: int, *destinations: str) -> list[bool]:
                return judge(  # noqa: B023
                    *(
                        make(family=family, destination=address, ports=(9, port))  # noqa: B023
                        for address in destinations
                    )
                )

            assert to(1000, GROUPS[family], own, *wide[family])[:2] == [True, False]
            assert not any(to(1000, *wide[family]))
            assert all(to(1001, *wide[family]))
            assert to(1001, GROUPS[family], own) == [False, False]
        assert to_self(firewall, family, 1002) == [True, False]
        assert to_self(firewall, family, 1003) == [False, True]


def to_self(firewall: Firewall, family: int, port: int) -> list[bool]:
    """Whether a group's packet and one of this host's own are let in."""
    packet = arriving(family=family, ports=(9, port))
    return firewall.takes(replace(packet, destination=GROUPS[family]), packet)


# --- what IP needs ---------------------------------------------------------------------------

# Type -> whether it passes in, and out, of a host that allows nothing (RFC 4861, 2710, 3810).
NEEDED = {
    133: (True, True),  # router solicitation
    134: (True, False),  # router advertisement
    135: (True, True),
    136: (True, True),
    137: (False, False),  # redirect
    130: (True, True),
    131: (True, True),
    132: (True, True),
    143: (True, True),
    128: (False, False),
}
DISCOVERY = range(133, 137)


def about_neighbours(number: int, hop_limit: int = 255) -> Packet:
    return arriving(
        family=6, source="fe80::9", protocol=ICMPV6, icmp_type=number, hop_limit=hop_limit
    )


def from_here(packet: Packet) -> Packet:
    return replace(packet, source=OWN["eth0"][6], destination=FAR["eth0"][6])


IGMP_REPORT = arriving(protocol=IGMP, destination="224.0.0.251", hop_limit=1)


def test_what_ip_needs(firewall: Firewall) -> None:
    """It passes unless essentials are off; of discovery, what has not been forwarded."""
    closed = "default deny outbound\n"
    types = [about_neighbours(number) for number in NEEDED]
    forwarded = [about_neighbours(number, 254) for number in DISCOVERY]
    out_report = replace(IGMP_REPORT, source=OWN["eth0"][4])
    for switch, is_on in (("", True), ("settings { essentials off }", False)):
        firewall.apply(closed + switch)
        assert firewall.takes(*types) == [passes and is_on for passes, _ in NEEDED.values()]
        assert not any(firewall.takes(*forwarded))
        sent = firewall.sends(*map(from_here, types))
        assert sent == [passes and is_on for _, passes in NEEDED.values()]
        assert not any(firewall.sends(*map(from_here, forwarded)))
        assert firewall.takes(IGMP_REPORT) == [is_on]
        assert firewall.sends(out_report) == [is_on]
    # A rule that names the type goes before, and `deny all` does not.
    firewall.apply(f"{closed}deny all inbound\ndeny icmpv6 router-advertisement inbound")
    assert firewall.takes(*types) == [
        passes and number != 134 for number, (passes, _) in NEEDED.items()
    ]
    firewall.apply(f"{closed}settings {{ essentials off }}\nallow icmpv6 135 inbound")
    assert firewall.takes(*types) == [number == 135 for number in NEEDED]
