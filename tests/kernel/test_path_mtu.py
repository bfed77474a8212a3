"""Path MTU discovery through translation: the inner machine is told, in its own terms.

Between router and server the path is narrower than either end's own wire. Where the ICMP error
that says so is lost, a bulk transfer stands still.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from .applied import apply_text
from .examples import is_between, on_every_loader
from .ground import Family, Ground, Loader, Namespace, ground, load_nft

pytestmark = pytest.mark.usefixtures("kernel")

NARROW = 1400  # bytes; IPv6 asks for 1280 at least (RFC 8200 section 5)
BULK_BYTES = 400_000
PORT = 8000
MUST_PASS_S = 5.0
MUST_FAIL_S = 1.0  # a retransmission comes after 0.2 s, and again

# Behind the neighbour in `wan`.
SERVER = {Family.IPV4: "203.0.113.2", Family.IPV6: "2001:db8:113::2"}
RELAY = {Family.IPV4: "203.0.113.1", Family.IPV6: "2001:db8:113::1"}
# RFC 792 and RFC 4443: the type (and code) of the error, and how long its own header is.
TOO_BIG = {Family.IPV4: b"\x03\x04", Family.IPV6: b"\x02\x00"}
HEADER_BYTES = 8

POLICY = """\
zone wan { interface wan0 }
zone lan { interface lan0 }
allow tcp 8000 from lan to wan
masquerade from lan to wan
masquerade from lan to wan ipv6
"""
# The mistake that many rulesets make.
NO_ERRORS = """
table inet hand {
  chain arriving {
    type filter hook prerouting priority raw
    icmp type destination-unreachable drop
    icmpv6 type packet-too-big drop
  }
}
"""


@contextmanager
def narrow_path() -> Iterator[tuple[Ground, Namespace]]:
    """A router, and behind its neighbour in `wan` a server at the end of a narrower wire."""
    with ground("lan", "wan") as laid:
        server, relay = Namespace.create("server"), laid["wan"].neighbour
        try:
            relay.sysctl("net.ipv4.ip_forward", "1")
            relay.sysctl("net.ipv6.conf.all.forwarding", "1")
            # The server does not know: its answers ask for segments that do not get through.
            relay.ip(
                f"link add narrow mtu {NARROW} type veth peer name eth0 netns {server.name}",
                "link set narrow up",
                f"addr add {RELAY[Family.IPV4]}/24 dev narrow",
                f"addr add {RELAY[Family.IPV6]}/64 dev narrow nodad",
            )
            server.ip(
                "link set eth0 mtu 1500 up",
                f"addr add {SERVER[Family.IPV4]}/24 dev eth0",
                f"addr add {SERVER[Family.IPV6]}/64 dev eth0 nodad",
                f"route add default via {RELAY[Family.IPV4]}",
                f"route add ::/0 via {RELAY[Family.IPV6]}",
            )
            wan = laid["wan"]
            laid.firewall.ip(
                f"route add default via {wan.far.ipv4}", f"route add ::/0 via {wan.far.ipv6}"
            )
            yield laid, server
        finally:
            server.delete()


def carried(laid: Ground, server: Namespace, family: Family, patience_s: float) -> tuple[int, str]:
    """How many bytes of a transfer arrive, and whom the server takes the client for."""
    with (
        server.listen(family, PORT) as listener,
        laid["lan"].neighbour.opened(family, socket.SOCK_STREAM) as client,
    ):
        listener.settimeout(MUST_PASS_S)
        client.settimeout(patience_s)
        client.connect((SERVER[family], PORT))
        opened, source = listener.accept()
        with opened:
            opened.settimeout(patience_s)
            sending = threading.Thread(target=send_all, args=(client,))
            sending.start()
            arrived = 0
            with suppress(TimeoutError):
                while arrived < BULK_BYTES and (data := opened.recv(1 << 16)):
                    arrived += len(data)
            sending.join()
        return arrived, source[0]


def send_all(client: socket.socket) -> None:
    """Send the bulk, as far as the other end takes it."""
    with suppress(OSError):
        client.sendall(bytes(BULK_BYTES))


@contextmanager
def errors(namespace: Namespace, family: Family) -> Iterator[list[bytes]]:
    """Collect the packets that a machine's ICMP errors about too big packets are about."""
    protocol = socket.IPPROTO_ICMP if family is Family.IPV4 else socket.IPPROTO_ICMPV6
    with namespace.entered():
        opened = socket.socket(family.af, socket.SOCK_RAW, protocol)
    found: list[bytes] = []
    with opened:
        yield found
        opened.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                data = opened.recv(2048)
                message = data[(data[0] & 15) * 4 :] if family is Family.IPV4 else data
                if message.startswith(TOO_BIG[family]):
                    found.append(message[HEADER_BYTES:])


@on_every_loader
def test_path_mtu_discovery_through_masquerade(
    tmp_path: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error arrives at the inner client, is about its own packet, and the transfer goes on."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))
    with narrow_path() as (laid, server):
        apply_text(POLICY, loader, laid.firewall, tmp_path)
        for family in Family:
            with errors(laid["lan"].neighbour, family) as told:
                arrived, source = carried(laid, server, family, MUST_PASS_S)
            assert source == laid["wan"].near.of(family)
            assert arrived == BULK_BYTES
            client = laid["lan"].far.of(family)
            assert told
            assert all(is_between(one, client, SERVER[family]) for one in told)


@pytest.mark.parametrize("family", Family)
def test_without_the_errors_a_transfer_stands_still(tmp_path: Path, family: Family) -> None:
    """The control: the path is as narrow as it is said to be."""
    with narrow_path() as (laid, server):
        apply_text(POLICY, Loader.NFT, laid.firewall, tmp_path)
        load_nft(NO_ERRORS, laid.firewall)
        with errors(laid["lan"].neighbour, family) as told:
            arrived, _ = carried(laid, server, family, MUST_FAIL_S)
        assert not told
        assert arrived < BULK_BYTES
