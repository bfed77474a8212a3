"""Rules with `also established` cut connections that are open, from either end; others stay open.

Real sockets on both ends of a firewall; who is banned says a dynamic set, which one datagram to a
port fills.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from .ground import Family, Loader, Namespace, ground, probe_udp

SILENT_S = 0.25  # how long to wait for what must not come

POLICY = """
zone wan { interface wan0 }
zone lan { interface lan0 }
set banned = dynamic timeout 1h
allow tcp 1001 inbound
allow tcp 1004 inbound limit 100/second burst 100
allow tcp 1005 inbound limit over 100/second burst 100
deny tcp 1006 inbound limit over 100/second burst 100
deny all from banned to any also established
deny all from any to banned also established
allow tcp 1000, 1005-1006, udp 1000 inbound
allow tcp 1002, udp 1002 from wan to lan
allow udp 9 inbound add source to banned
default deny outbound
allow tcp 1003, udp 1003 outbound
"""
BEFORE = POLICY.replace(" also established", "")


@pytest.fixture(params=Loader, ids=lambda loader: loader.value)
def loader(request: pytest.FixtureRequest) -> Loader:
    found: Loader = request.param
    return found


@dataclass(frozen=True, slots=True)
class Connection:
    """Both ends of an open connection."""

    client: socket.socket
    server: socket.socket


def flowing(connections: Mapping[str, Connection]) -> dict[str, tuple[bool, bool]]:
    """Whether something comes through from the client, and from the server, of each of them."""
    for connection in connections.values():
        for end in (connection.client, connection.server):
            with suppress(PermissionError):  # the sender's own firewall dropped it
                end.send(b"x")
    give_up = time.monotonic() + SILENT_S

    def has_arrived(at: socket.socket) -> bool:
        at.settimeout(max(give_up - time.monotonic(), 0.001))
        try:
            return bool(at.recv(2048))
        except TimeoutError:
            return False

    return {
        name: (has_arrived(connection.server), has_arrived(connection.client))
        for name, connection in connections.items()
    }


def tcp(
    stack: ExitStack, client: Namespace, server: Namespace, address: str, port: int
) -> Connection:
    family = Family.IPV6 if ":" in address else Family.IPV4
    with server.listen(family, port) as listener:
        one = stack.enter_context(client.opened(family, socket.SOCK_STREAM))
        one.settimeout(2)
        one.connect((address, port))
        listener.settimeout(2)
        other, _ = listener.accept()
        return Connection(one, stack.enter_context(other))


def udp(
    stack: ExitStack, client: Namespace, server: Namespace, address: str, port: int
) -> Connection:
    family = Family.IPV6 if ":" in address else Family.IPV4
    one, other = (
        stack.enter_context(side.opened(family, socket.SOCK_DGRAM)) for side in (client, server)
    )
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    other.bind((address, port))
    one.connect((address, port))
    one.send(b"hello")
    other.settimeout(2)
    other.connect(other.recvfrom(2048)[1])
    return Connection(one, other)


def test_a_ban_cuts_what_is_open(kernel: None, loader: Loader, tmp_path: Path) -> None:
    """TCP and UDP, to this host, through it and from it; not what a rule above lets in."""
    both, none = (True, True), (False, False)
    with ground("wan", "lan") as laid, ExitStack() as stack:
        loader.load(POLICY, laid.firewall, tmp_path)
        wan, lan, here = laid["wan"], laid["lan"], laid.firewall
        for family in Family:
            near, far, inner = (a.of(family) for a in (wan.near, wan.far, lan.far))
            cut = {
                f"{kind.__name__} {name}": kind(stack, client, server, address, port)
                for kind in (tcp, udp)
                for name, client, server, address, port in (
                    ("in", wan.neighbour, here, near, 1000),
                    ("through", wan.neighbour, lan.neighbour, inner, 1002),
                    ("out", here, wan.neighbour, far, 1003),
                )
            }
            kept = {
                "allowed above": tcp(stack, wan.neighbour, here, near, 1001),
                "allowed above up to a rate": tcp(stack, wan.neighbour, here, near, 1004),
                "in from another": tcp(stack, lan.neighbour, here, lan.near.of(family), 1000),
                "out to another": tcp(stack, here, lan.neighbour, inner, 1003),
            }
            everything = cut | kept
            assert flowing(everything) == dict.fromkeys(everything, both)
            probe_udp(wan.neighbour, near, 9, 0.02)
            assert flowing(cut) == dict.fromkeys(cut, none)
            assert flowing(kept) == dict.fromkeys(kept, both)


def test_without_it_what_is_open_stays(kernel: None, loader: Loader, tmp_path: Path) -> None:
    """The control: the same rules are about first packets alone."""
    with ground("wan", "lan") as laid, ExitStack() as stack:
        loader.load(BEFORE, laid.firewall, tmp_path)
        wan = laid["wan"]
        near = wan.near.ipv4
        opened = tcp(stack, wan.neighbour, laid.firewall, near, 1000)
        probe_udp(wan.neighbour, near, 9, 0.02)
        assert flowing({"": opened}) == {"": (True, True)}
        with pytest.raises(TimeoutError):
            refused = stack.enter_context(wan.neighbour.opened(Family.IPV4, socket.SOCK_STREAM))
            refused.settimeout(SILENT_S)
            refused.connect((near, 1000))


def test_a_policy_that_bans_cuts_what_is_open(kernel: None, loader: Loader, tmp_path: Path) -> None:
    """A ban that names addresses holds as soon as it is applied."""
    with ground("wan", "lan") as laid, ExitStack() as stack:
        wan, lan, here = laid["wan"], laid["lan"], laid.firewall
        rules = "allow tcp 1000 inbound"
        loader.load(rules, here, tmp_path)
        theirs, others = (
            {
                family.name: tcp(stack, side.neighbour, here, side.near.of(family), 1000)
                for family in Family
            }
            for side in (wan, lan)
        )
        banned = f"{wan.far.ipv4}, {wan.far.ipv6}"
        ban = f"deny all inbound from {banned} also established"
        loader.load(f"{ban}\n{rules}", here, tmp_path)
        assert flowing(theirs) == dict.fromkeys(theirs, (False, False))
        assert flowing(others) == dict.fromkeys(others, (True, True))


def test_a_ban_that_answers(kernel: None, loader: Loader, tmp_path: Path) -> None:
    """With `reject` whoever is cut off is told: the next thing they send is answered by a reset."""
    with ground("wan") as laid, ExitStack() as stack:
        wan, here = laid["wan"], laid.firewall
        loader.load(
            POLICY.replace("deny all from banned", "reject all from banned"), here, tmp_path
        )
        for family in Family:
            near = wan.near.of(family)
            opened = tcp(stack, wan.neighbour, here, near, 1000)
            probe_udp(wan.neighbour, near, 9, 0.02)
            opened.client.send(b"x")
            with pytest.raises(ConnectionResetError):
                opened.client.recv(1)
