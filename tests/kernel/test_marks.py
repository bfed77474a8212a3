"""Marks and code points: by which uplink packets leave, and what is on the wire.

The machine behind both uplinks has one address, so that the routing alone decides which of them a
packet takes: without a mark it is the first one.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from .applied import apply_text
from .examples import forget_connections
from .ftp import (
    MUST_FAIL_S,
    Client,
    Daemon,
    Mode,
    Outcome,
    Server,
    Stage,
    passes,
    serving,
    session,
)
from .ground import Addresses, Family, Ground, Loader, Namespace, Reach, ground, load_nft, ping
from .mirror import Seen, Visit, all_seen_as_expected, mirrors

ZONES = """\
zone wan { interface wan0 }
zone wan2 { interface dmz0 }
zone lan { interface lan0 }
"""
CLOSED = "default deny inbound\ndefault deny outbound\ndefault deny forward\n"
EVERYTHING = "allow all inbound\nallow all from any to any\n"

WORLD = Addresses("198.18.0.9", "2001:db8:99::9")
FIRST, SECOND = "wan", "dmz"  # where the uplinks are
PORT, OTHER_PORT = PORTS = (80, 8080)
CLOSED_PORT = 81

ANSWERS = "mark all from wan2 to any as 0x2/0xff answers\n"


@dataclass(frozen=True, slots=True)
class Uplinks:
    """A router with two uplinks that takes policies by one loader."""

    laid: Ground
    loader: Loader
    directory: Path

    def apply(self, statements: str) -> None:
        """Apply a policy, its zones being there; no connection is open since."""
        apply_text(ZONES + statements, self.loader, self.laid.firewall, self.directory)
        forget_connections(self.laid.firewall)

    def machine(self, zone: str) -> Namespace:
        return self.laid[zone].neighbour


@pytest.fixture(scope="module", params=Loader, ids=lambda loader: loader.value)
def uplinks(
    kernel: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Uplinks]:
    """What is marked 0x2 leaves by the second uplink, everything else by the first."""
    directory = tmp_path_factory.mktemp("marks")
    with ground("wan", "lan", "dmz") as laid, pytest.MonkeyPatch.context() as patch:
        # Legacy iptables takes one lock for the whole machine unless told another.
        patch.setenv("XTABLES_LOCKFILE", str(directory / "lock"))
        router = laid.firewall
        for zone in (FIRST, SECOND):
            near, machine = laid[zone].near, laid[zone].neighbour
            machine.ip(
                f"addr add {WORLD.ipv4}/32 dev lo",
                f"addr add {WORLD.ipv6}/128 dev lo nodad",
                f"route add {near.ipv4}/32 dev eth0 src {WORLD.ipv4}",
                f"route add {near.ipv6}/128 dev eth0 src {WORLD.ipv6}",
                f"route replace default via {near.ipv4} src {WORLD.ipv4}",
                f"route replace ::/0 via {near.ipv6} src {WORLD.ipv6}",
            )
        for family, every in ((Family.IPV4, "default"), (Family.IPV6, "::/0")):
            router.ip(
                f"route add {every} via {laid[FIRST].far.of(family)}",
                f"route add {every} via {laid[SECOND].far.of(family)} table 2",
            )
            rule = ["rule", "add", "fwmark", "0x2/0xff", "lookup", "2"]
            router.run(["ip", f"-{family.value}", *rule])
        for name in ("all", "wan0", "dmz0", "lan0"):
            router.sysctl(f"net.ipv4.conf.{name}.rp_filter", "0")
        with (
            mirrors(laid[FIRST].neighbour, FIRST, PORTS),
            mirrors(laid[SECOND].neighbour, SECOND, PORTS),
            mirrors(laid["lan"].neighbour, "lan", PORTS),
            mirrors(router, "self", PORTS),
        ):
            yield Uplinks(laid, request.param, directory)


def from_the_world(uplinks: Uplinks, uplink: str, *, is_answered: bool) -> Iterator[Visit]:
    """Questions that come by an uplink, to the router and to the machine behind it."""
    for family in Family:
        source = WORLD.of(family)
        for server, target in (
            ("self", uplinks.laid[uplink].near.of(family)),
            ("lan", uplinks.laid["lan"].far.of(family)),
        ):
            for protocol in ("tcp", "udp"):
                came = Seen(server, source, target, PORT) if is_answered else Reach.TIMEOUT
                yield Visit(uplinks.machine(uplink), target, PORT, came, protocol)


def to_the_world(
    uplinks: Uplinks, start: str, protocols: Iterable[str], port: int, server: str
) -> Iterator[Visit]:
    """Questions to the world, and by which uplink they leave: whose machine answers."""
    for family in Family:
        client = uplinks.laid.firewall if start == "self" else uplinks.machine(start)
        first = uplinks.laid[FIRST].near if start == "self" else uplinks.laid[start].far
        expected = Seen(server, first.of(family), WORLD.of(family), port)
        for protocol in protocols:
            yield Visit(client, WORLD.of(family), port, expected, protocol)


# --- answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_marked", [True, False], ids=["marked", "unmarked"])
def test_answers_leave_by_the_uplink_of_the_question(uplinks: Uplinks, is_marked: bool) -> None:
    """`answers` is for this host's own processes and for those of machines behind it."""
    uplinks.apply(EVERYTHING + (ANSWERS if is_marked else ""))
    all_seen_as_expected(
        (
            *from_the_world(uplinks, FIRST, is_answered=True),
            *from_the_world(uplinks, SECOND, is_answered=is_marked),
        )
    )
    targets = [
        target.of(family)
        for family in Family
        for target in (uplinks.laid["lan"].far, uplinks.laid[SECOND].near)
    ]
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda t: ping(uplinks.machine(SECOND), t), targets))
    assert found == [is_marked] * len(targets), targets


@pytest.mark.parametrize("is_marked", [True, False], ids=["marked", "unmarked"])
def test_errors_leave_by_the_uplink_of_the_question(uplinks: Uplinks, is_marked: bool) -> None:
    """An ICMP error about a connection goes back the way the connection came."""
    uplinks.apply(EVERYTHING + (ANSWERS if is_marked else ""))
    came = Reach.REFUSED if is_marked else Reach.TIMEOUT
    all_seen_as_expected(
        Visit(uplinks.machine(SECOND), target.of(family), CLOSED_PORT, came, "udp")
        for family in Family
        for target in (uplinks.laid["lan"].far, uplinks.laid[SECOND].near)
    )


def test_the_answers_of_some_connections_alone(uplinks: Uplinks) -> None:
    """A statement about one service, from one end, to another, marks no others' answers."""
    uplinks.apply(EVERYTHING + f"mark tcp {PORT} from wan2 to self as 0x2/0xff answers\n")
    world = from_the_world(uplinks, SECOND, is_answered=True)
    visits = [v for v in world if v.protocol == "tcp" and v.expected != Reach.TIMEOUT]
    own = [v for v in visits if isinstance(v.expected, Seen) and v.expected.server == "self"]
    others = from_the_world(uplinks, SECOND, is_answered=False)
    silent = [v for v in others if v.protocol == "udp" or v.target not in {o.target for o in own}]
    assert own and silent
    all_seen_as_expected((*own, *silent))


# --- the way there ----------------------------------------------------------------------------


def test_marks_choose_the_uplink(uplinks: Uplinks) -> None:
    """Every packet that goes the way the connection was opened is marked, and no other."""
    uplinks.apply(
        f"{EVERYTHING}"
        f"mark udp {PORT} from lan to wan as 0x2/0xff\n"
        f"mark tcp {PORT} outbound as 0x2/0xff\n"
    )
    lan = uplinks.laid["lan"].far
    all_seen_as_expected(
        (
            *to_the_world(uplinks, "lan", ["udp"], PORT, SECOND),
            *to_the_world(uplinks, "lan", ["tcp"], PORT, FIRST),
            *to_the_world(uplinks, "lan", ["tcp", "udp"], OTHER_PORT, FIRST),
            *to_the_world(uplinks, "self", ["tcp"], PORT, SECOND),
            *to_the_world(uplinks, "self", ["udp"], PORT, FIRST),
            *to_the_world(uplinks, "self", ["tcp", "udp"], OTHER_PORT, FIRST),
            # Answers go back by the first uplink, even those to the port that is marked.
            *from_the_world(uplinks, FIRST, is_answered=True),
            *(
                Visit(
                    uplinks.machine(FIRST),
                    lan.of(family),
                    OTHER_PORT,
                    Seen("lan", WORLD.of(family), lan.of(family), OTHER_PORT),
                    "udp",
                    WORLD.of(family),
                    PORT,
                )
                for family in Family
            ),
        )
    )


def test_untracked_packets_are_marked(uplinks: Uplinks) -> None:
    """What conntrack leaves alone goes some way as well."""
    uplinks.apply(
        f"{EVERYTHING}untracked udp {PORT} from any to any\n"
        f"mark udp {PORT} from lan to wan as 0x2/0xff\n"
    )
    all_seen_as_expected(
        (
            *to_the_world(uplinks, "lan", ["udp"], PORT, SECOND),
            *to_the_world(uplinks, "lan", ["udp"], OTHER_PORT, FIRST),
        )
    )


# --- which statement decides ------------------------------------------------------------------

# A second table that tells the marks that packets leave with, by their destination port.
WATCHING = """\
table inet watch
delete table inet watch
table inet watch {
  set seen { type inet_service . mark; flags dynamic; size 1024; }
  chain leaving {
    type filter hook postrouting priority 300; policy accept;
    oifname { "wan0", "dmz0" } meta l4proto udp add @seen { udp dport . meta mark }
  }
}
"""


def marks_seen(router: Namespace) -> dict[int, set[int]]:
    listing = router.run(["nft", "-n", "list", "set", "inet", "watch", "seen"]).stdout
    found: dict[int, set[int]] = {}
    for port, mark in re.findall(r"(\d+) \. (0x[0-9a-f]+)", listing):
        found.setdefault(int(port), set()).add(int(mark, 16))
    return found


def send(client: Namespace, ports: Iterable[int]) -> None:
    """Send a datagram of each family to each port of the world."""
    for family in Family:
        with client.opened(family, socket.SOCK_DGRAM) as opened:
            for port in ports:
                opened.sendto(b"x", (WORLD.of(family), port))


def test_the_first_that_matches_decides_bit_by_bit(uplinks: Uplinks) -> None:
    """Statements about other bits, and about code points, are independent of one another."""
    uplinks.apply(
        EVERYTHING
        + "mark udp 1001 from lan to wan as 0x1/0xf\n"
        + "mark udp 1001-1999 from lan to wan as 0x3/0xf\n"
        + "mark udp 1001-1002 from lan to wan as 0x10/0xf0\n"
        + "mark udp 1002 from lan to wan as 0x30/0xf0\n"
        + "mark protocol udp from lan to wan as 0x500/0xf00 ipv4 source port 1-65535\n"
        + "mark protocol udp from lan to wan as 0x500/0xf00 ipv6\n"
        + "mark all from self to wan as 0x44\n"
    )
    load_nft(WATCHING, uplinks.laid.firewall)
    send(uplinks.machine("lan"), [1001, 1002, 1003, 2001])
    send(uplinks.laid.firewall, [3001])
    assert marks_seen(uplinks.laid.firewall) == {
        1001: {0x511},
        1002: {0x513},
        1003: {0x503},
        2001: {0x500},
        3001: {0x44},
    }


def test_a_condition_reads_what_statements_above_have_set(uplinks: Uplinks) -> None:
    """In the order of the policy, and none of what those below it set."""
    uplinks.apply(
        EVERYTHING
        + "mark all from lan to wan as 0x1/0xf mark 0x100/0x100\n"
        + "mark udp 1001 from lan to wan as 0x100/0x100\n"
        + "mark all from lan to wan as 0x20/0xf0 mark 0x100/0x100\n"
    )
    load_nft(WATCHING, uplinks.laid.firewall)
    send(uplinks.machine("lan"), [1001, 1002])
    assert marks_seen(uplinks.laid.firewall) == {1001: {0x120}, 1002: {0}}


# --- code points ------------------------------------------------------------------------------


@contextmanager
def code_points(machine: Namespace, ports: Iterable[int]) -> Iterator[dict[int, set[int]]]:
    """The code points of the datagrams that come to the ports while this lasts."""
    found: dict[int, set[int]] = {}
    opened: list[tuple[socket.socket, int]] = []
    for family in Family:
        for port in ports:
            one = machine.opened(family, socket.SOCK_DGRAM)
            opened.append((one, port))
            if family is Family.IPV4:
                one.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
            else:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
            one.bind(("", port))
            one.settimeout(2)
    try:
        yield found
        for one, port in opened:
            _, ((_, _, told),), _, _ = one.recvmsg(64, 64)
            found.setdefault(port, set()).add(told[0] >> 2)
    finally:
        for one, _ in opened:
            one.close()


def test_code_points_on_the_wire(uplinks: Uplinks) -> None:
    """`as dscp` sets the code point of both families, forwarded and sent; the first decides."""
    uplinks.apply(
        EVERYTHING
        + "mark udp 1001 from lan to wan as dscp ef\n"
        + "mark udp 1001-1002 from lan to wan as dscp cs1\n"
        + "mark udp 1001-1002 from lan to wan as 0x1/0xf\n"
        + "mark udp 1004 outbound as dscp 10\n"
    )
    with code_points(uplinks.machine(FIRST), [1001, 1002, 1003, 1004]) as found:
        send(uplinks.machine("lan"), [1001, 1002, 1003])
        send(uplinks.laid.firewall, [1004])
    assert found == {1001: {46}, 1002: {8}, 1003: {0}, 1004: {10}}


# --- FTP --------------------------------------------------------------------------------------

MODES = tuple((family, mode) for family in Family for mode in Mode if mode.suits(family))


def all_transfer(client: Namespace, addresses: Addresses, server: Server) -> None:
    for family, mode in MODES:
        outcome = passes(client, addresses.of(family), server, mode, Client.FTPLIB)
        assert outcome.is_ok, (family, mode, outcome)


@pytest.mark.usefixtures("ftp_programs")
@pytest.mark.parametrize("server_zone", ["self", "lan"])
def test_ftp_through_the_uplink_of_the_question(uplinks: Uplinks, server_zone: str) -> None:
    """The data connections, which either end opens, have the mark of the one that asked."""
    is_own = server_zone == "self"
    # What this host sends is filtered by the interface that was chosen before the mark.
    place = "inbound from wan2\nallow all outbound" if is_own else "from wan2 to lan"
    uplinks.apply(f"{CLOSED}allow ftp {place}\n{ANSWERS}")
    machine = uplinks.laid.firewall if is_own else uplinks.machine("lan")
    with serving(machine, Daemon.VSFTPD) as server:
        addresses = uplinks.laid[SECOND].near if is_own else uplinks.laid["lan"].far
        all_transfer(uplinks.machine(SECOND), addresses, server)


@pytest.mark.usefixtures("ftp_programs")
def test_ftp_to_the_world_by_the_second_uplink(uplinks: Uplinks) -> None:
    """A mark for a service with a helper is for all that goes the same way, data included."""
    allowed = f"{CLOSED}allow ftp from lan to wan2\n"
    with serving(uplinks.machine(SECOND), Daemon.VSFTPD) as server:
        client = uplinks.machine("lan")
        uplinks.apply(f"{allowed}mark ftp from lan to wan as 0x2/0xff\n")
        all_transfer(client, WORLD, server)
        # Without the helper's part the data goes by the first uplink, where nobody waits.
        uplinks.apply(f"{allowed}mark tcp 21 from lan to wan as 0x2/0xff\n")

        def tried(mode: Mode) -> Outcome:
            return session(client, WORLD.ipv6, server, mode, Client.FTPLIB, timeout_s=MUST_FAIL_S)

        with ThreadPoolExecutor() as pool:
            for outcome in pool.map(tried, (Mode.EPSV, Mode.EPRT)):
                assert outcome.stage is Stage.NEGOTIATED, outcome
