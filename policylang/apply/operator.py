"""The operator's own SSH connection, and whether new rules would let it begin again.

Who works here over SSH keeps the connection that is open; what counts is whether another one
could be opened when this one is gone.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path as File

from policylang.apply import ipsets, netlink, nft, programs, routing, who
from policylang.apply.conntrack import FlowTuple
from policylang.apply.judging import Judge
from policylang.apply.livesets import family_of
from policylang.apply.netlink import attributes
from policylang.apply.routing import Routing
from policylang.backends.iptables.names import dynamic_set_name
from policylang.diagnostics import Diagnostic, Report
from policylang.ir.ruleset import DynamicSet, Ruleset
from policylang.ir.walk import Possible
from policylang.packets.fields import TCP
from policylang.packets.values import V4_MAX, V6_BASE, format_address, parse_one_address

SSH_PORT = 22

PROCESSES = File("/proc")
SOCKET = re.compile(r"socket:\[(\d+)\]")
TCP_TABLES = ("tcp", "tcp6")
ESTABLISHED = "01"  # include/net/tcp_states.h, as /proc/net/tcp spells it
MAPPED = 0xFFFF  # ::ffff:0:0/96, above the IPv4 address: IPv4 on a socket of IPv6
MOST_ANCESTORS = 20  # a shell in a shell in sudo in screen: no chain of them is as long

# rtnetlink(7): the interfaces, and what kind of software one is.
GET_LINK, LINK_BYTES = 18, 16
IFLA_NAME, IFLA_INFO, INFO_KIND = 3, 18, 1
# Kinds that carry packets of one machine in packets to another.
TUNNELS = frozenset(
    (
        *("wireguard", "ovpn", "tun", "vxlan", "geneve", "gtp", "amt", "l2tpeth"),
        *("gre", "gretap", "ip6gre", "ip6gretap", "erspan", "ip6erspan", "ipip", "ip6tnl", "sit"),
        *("vti", "vti6", "xfrm"),
    )
)


@dataclass(frozen=True, slots=True)
class Connection:
    """An SSH connection, by the numbers of its ends: the operator's and this host's."""

    address: int
    port: int
    here: int
    here_port: int

    @property
    def text(self) -> str:
        """Where the operator is."""
        return format_address(self.address)


def found() -> Connection | None:
    """The connection over which this was started; None where it was started otherwise."""
    told = who.ssh_connection()
    if told is not None:
        address, port, here, here_port = told
        ends = _number(address), _number(here)
        if ends[0] is not None and ends[1] is not None and (port + here_port).isdecimal():
            return Connection(ends[0], int(port), ends[1], int(here_port))
    return next(_of_sshd(), None)


def _number(text: str) -> int | None:
    """An address as sshd(8) writes it: that of a link names its interface as well."""
    return parse_one_address(text.partition("%")[0])


def shut_out(
    ruleset: Ruleset,
    connection: Connection,
    *,
    target: str | None = None,
    is_cut: bool = False,
) -> Diagnostic | None:
    """A warning, where new rules deny that the operator connects again, or may deny it.

    It is asked in this thread's namespace, where the connection must come in; None where it does
    not, or where the kernel does not tell its routes. `is_cut` says that open connections end that
    the rules would not let begin. Rates are taken to be kept to, and dynamic sets to hold what
    they hold now.
    """
    try:
        routes = routing.read()
        if not routes.is_own(connection.here):
            return None
        possible, later = _asked(ruleset, connection, routes, target)
    except OSError:
        return None
    if not possible.may_deny:
        return None
    what = "ssh" if connection.here_port == SSH_PORT else f"tcp {connection.here_port}"
    if (is_cut and not possible.may_accept) or not later.may_accept:
        becomes = "ends, too"
    else:  # rates are kept to; what else may deny it is a screen, which asks no state
        becomes = "may end, too" if later.may_deny else "goes on"
    would = "may" if possible.may_accept else "would"
    span = next((o.span for o in possible.denying if o.span is not None), None)
    return Diagnostic(
        "operator-shut-out",
        f"you are here over SSH from `{connection.text}`, and {would} not be let in again",
        span,
        help=f"`allow {what} inbound from {connection.text}` before it lets you in;"
        f" the connection that is open now {becomes}",
    )


def _asked(
    ruleset: Ruleset,
    connection: Connection,
    routes: Routing,
    target: str | None,
) -> tuple[Possible, Possible]:
    """What becomes of the first packet of another such connection, and of a later one of this."""
    family = 6 if connection.address >= V6_BASE else 4
    ends = (connection.address, connection.here)
    judge = Judge(ruleset, routes, target, is_alone=True)
    # The port it would come from is another one each time.
    first = FlowTuple(family, TCP, *ends, None, connection.here_port)
    held = _held(ruleset, connection.address)
    now = FlowTuple(family, TCP, *ends, connection.port, connection.here_port)
    return judge.of_newcomer(first, held), judge.of_open(now, held)


def _held(ruleset: Ruleset, address: int) -> frozenset[str] | None:
    """The dynamic sets of a ruleset that hold an address by now; None where they cannot be read.

    What they hold stays when rules are replaced.
    """
    asked = [test.name for test in ruleset.address_tests if isinstance(test, DynamicSet)]
    if not asked:
        return frozenset()
    of_nft = nft.live_sets(Report())
    of_ipset = ipsets.saved(Report()) if programs.find("ipset") is not None else {}
    if of_nft is None or of_ipset is None:
        return None
    family = family_of(address)
    live = (*of_nft, *ipsets.live_sets(of_ipset))
    holding = {one.identity for one in live if address in one.addresses}
    return frozenset(name for name in asked if dynamic_set_name(name, family) in holding)


def tunnel(connection: Connection) -> str | None:
    """The tunnel through which the operator comes, by its interface; None where it is none.

    OSError where the kernel does not tell.
    """
    names = routing.read().interfaces(connection.address) or frozenset()
    kinds = dict(_kinds())
    return next((name for name in sorted(names) if kinds.get(name) in TUNNELS), None)


def _kinds() -> Iterator[tuple[str, str]]:
    with netlink.opened(netlink.ROUTE) as asked:
        for body in asked.dump(GET_LINK, bytes([socket.AF_UNSPEC]) + bytes(LINK_BYTES - 1)):
            of_link = attributes(body, LINK_BYTES)
            kind = attributes(of_link.get(IFLA_INFO, b"")).get(INFO_KIND, b"")
            name = of_link.get(IFLA_NAME, b"")
            yield name.rstrip(b"\0").decode(errors="replace"), kind.rstrip(b"\0").decode()


# --- the socket of sshd -----------------------------------------------------------------------


def _of_sshd() -> Iterator[Connection]:
    """What sshd(8), from which this process descends, is connected to.

    For where nothing of its environment is left.
    """
    for pid in _ancestors():
        folder = PROCESSES / str(pid)
        try:
            if not (folder / "comm").read_text().startswith("sshd"):
                continue
            inodes = set(_sockets(folder))
            for table in TCP_TABLES:
                lines = (folder / "net" / table).read_text().splitlines()[1:]
                yield from (c for line in lines if (c := _connection(line, inodes)) is not None)
        except OSError:  # gone, or another user's
            continue


def _ancestors() -> Iterator[int]:
    pid = os.getpid()
    for _ in range(MOST_ANCESTORS):
        try:
            # The name in parentheses may hold anything, parentheses too.
            status = (PROCESSES / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2]
        except OSError:
            return
        pid = int(status.split()[1])
        if pid <= 1:
            return
        yield pid


def _sockets(folder: File) -> Iterator[str]:
    for one in (folder / "fd").iterdir():
        found = SOCKET.fullmatch(str(one.readlink()))
        if found:
            yield found[1]


def _connection(line: str, inodes: set[str]) -> Connection | None:
    """A line of /proc/net/tcp, where it is an open connection through one of these sockets."""
    fields = line.split()
    if len(fields) < 10 or fields[3] != ESTABLISHED or fields[9] not in inodes:
        return None
    (here, here_port), (there, port) = (field.split(":") for field in fields[1:3])
    return Connection(_address(there), int(port, 16), _address(here), int(here_port, 16))


def _address(text: str) -> int:
    """An address of /proc/net/tcp: words of four bytes, each as this machine stores numbers."""
    words = (int(text[at : at + 8], 16).to_bytes(4, "little") for at in range(0, len(text), 8))
    number = int.from_bytes(b"".join(words), "big")
    if len(text) == 8:
        return number
    return number & V4_MAX if number >> 32 == MAPPED else V6_BASE + number
