"""FTP through compiled policies: real servers and clients, every mode, both families.

What must fail is shown beside what passes, so that no test passes because nothing works.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from .ftp import (
    EPHEMERAL,
    MUST_FAIL_S,
    Client,
    Daemon,
    Direction,
    Mode,
    Outcome,
    Server,
    Stage,
    logged_in,
    lured,
    passes,
    serving,
    session,
)
from .ground import Addresses, Family, Ground, Loader, Namespace, Reach, ground, probe_tcp

pytestmark = pytest.mark.usefixtures("ftp_programs")

on_every_loader = pytest.mark.parametrize("loader", Loader)
with_every_daemon = pytest.mark.parametrize("daemon", Daemon)


# --- ways to transfer ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Way:
    """One way to transfer a file."""

    family: Family
    mode: Mode
    via: Client

    def __str__(self) -> str:
        return f"{self.family.name} {self.mode.value} {self.via.value}"


EVERY_WAY = tuple(
    Way(family, mode, via)
    for family in Family
    for mode in Mode
    for via in Client
    if via.speaks(mode, family)
)
# One client for each mode of each family: enough for what must fail.
EACH_MODE = tuple(way for way in EVERY_WAY if way.via is Client.CURL)


def passive(ways: Iterable[Way]) -> tuple[Way, ...]:
    """Return those ways in which the client opens the data connection."""
    return tuple(way for way in ways if way.mode.is_passive)


def active(ways: Iterable[Way]) -> tuple[Way, ...]:
    """Return those ways in which the server opens the data connection."""
    return tuple(way for way in ways if not way.mode.is_passive)


@dataclass(frozen=True, slots=True)
class Line:
    """A client, and a server that it can talk to."""

    client: Namespace
    addresses: Addresses
    server: Server

    def all_pass(self, ways: Iterable[Way], *directions: Direction) -> None:
        """Assert that every byte arrives in each of the ways; gives up after two that fail."""
        failures: list[str] = []
        for way in ways:
            for direction in directions or (Direction.DOWNLOAD,):
                if len(failures) == 2:
                    break
                outcome = passes(
                    self.client,
                    self.addresses.of(way.family),
                    self.server,
                    way.mode,
                    way.via,
                    direction=direction,
                )
                if not outcome.is_ok:
                    failures.append(f"{way} {direction.value}: {outcome}")
        assert not failures, "\n".join(failures)

    def all_stop_at_the_data(self, ways: Iterable[Way]) -> None:
        """Assert that in each of the ways the log-in works and the data connection does not."""
        surprises = [
            f"{way}: {outcome}"
            for way, outcome in self.outcomes_at_once(ways)
            if outcome.stage is not Stage.NEGOTIATED
        ]
        assert not surprises, "\n".join(surprises)

    def outcomes_at_once(self, ways: Iterable[Way]) -> list[tuple[Way, Outcome]]:
        """Return what comes of the ways, without patience, and together where the server can.

        pyftpdlib, on one thread, forgets some of the connections of several clients at a time.
        """

        def outcome(way: Way) -> tuple[Way, Outcome]:
            address = self.addresses.of(way.family)
            for _ in range(2):
                tried = session(
                    self.client, address, self.server, way.mode, way.via, timeout_s=MUST_FAIL_S
                )
                if tried.stage >= Stage.NEGOTIATED:  # else it says nothing about the data
                    break
            return way, tried

        together = None if self.server.daemon is Daemon.VSFTPD else 1
        with ThreadPoolExecutor(together) as pool:
            return list(pool.map(outcome, ways))


@contextmanager
def server_behind(
    laid: Ground,
    daemon: Daemon,
    *,
    port: int = 21,
    ports: tuple[int, int] = EPHEMERAL,
    zone: str = "wan",
) -> Iterator[Line]:
    """Serve on the firewall itself, for the neighbour in `zone`."""
    segment = laid[zone]
    with serving(laid.firewall, daemon, port, ports) as server:
        yield Line(segment.neighbour, segment.near, server)


@contextmanager
def client_behind(
    laid: Ground, daemon: Daemon, *, port: int = 21, ports: tuple[int, int] = EPHEMERAL
) -> Iterator[Line]:
    """Serve on the neighbour in `wan`, for the firewall itself."""
    segment = laid["wan"]
    with serving(segment.neighbour, daemon, port, ports) as server:
        yield Line(laid.firewall, segment.far, server)


@contextmanager
def router_between(
    laid: Ground, daemon: Daemon, *, port: int = 21, ports: tuple[int, int] = EPHEMERAL
) -> Iterator[Line]:
    """Serve on the neighbour in `wan`, for the one in `lan`."""
    segment = laid["wan"]
    with serving(segment.neighbour, daemon, port, ports) as server:
        yield Line(laid["lan"].neighbour, segment.far, server)


# --- policies --------------------------------------------------------------------------------

CLOSED = "default deny inbound\ndefault deny outbound\ndefault deny forward\n"
OPEN_OUTBOUND = "default deny inbound\ndefault allow outbound\n"
ZONES = "zone wan { interface wan0 }\nzone lan { interface lan0 }\nzone dmz { interface dmz0 }\n"

SERVER = CLOSED + "allow ftp inbound\n"
CLIENT = CLOSED + "allow ftp outbound\n"
ROUTER = ZONES + CLOSED + "allow ftp from lan to wan\n"


# Two ranges of data ports, both of them part of every client's own.
INSIDE = (40000, 40100)
OUTSIDE = (50000, 50100)

# --- without a firewall ----------------------------------------------------------------------


@with_every_daemon
def test_all_pass_without_a_firewall(routed: Ground, daemon: Daemon) -> None:
    """The control of all that follows: what fails below fails because of the rules."""
    with server_behind(routed, daemon) as line:
        line.all_pass(EVERY_WAY, *Direction)
    with client_behind(routed, daemon) as line:
        line.all_pass(EVERY_WAY)
    with router_between(routed, daemon) as line:
        line.all_pass(EVERY_WAY)


@with_every_daemon
def test_what_must_fail_passes_without_a_firewall(routed: Ground, daemon: Daemon) -> None:
    """Haste and company do not stop a transfer: the rules do."""
    with router_between(routed, daemon, ports=OUTSIDE) as line:
        for way, outcome in line.outcomes_at_once(EACH_MODE):
            assert outcome.is_ok, (way, outcome)


# --- what must pass --------------------------------------------------------------------------


@on_every_loader
@with_every_daemon
@pytest.mark.parametrize("defaults", [CLOSED, OPEN_OUTBOUND], ids=["closed", "outbound-open"])
def test_a_server(
    pair: Ground, tmp_path: Path, loader: Loader, daemon: Daemon, defaults: str
) -> None:
    """`allow ftp inbound` is enough for passive and active FTP, whatever the defaults are."""
    with server_behind(pair, daemon) as line:
        loader.load(defaults + "allow ftp inbound\n", pair.firewall, tmp_path)
        line.all_pass(EVERY_WAY)


@on_every_loader
def test_a_server_that_must_be_discovered(tmp_path: Path, loader: Loader) -> None:
    """Neighbour discovery passes a policy that denies everything else: IPv6 works without help."""
    with ground("wan", discovery=True) as laid, server_behind(laid, Daemon.VSFTPD) as line:
        loader.load(SERVER, laid.firewall, tmp_path)
        line.all_pass(way for way in EVERY_WAY if way.family is Family.IPV6)


@on_every_loader
@with_every_daemon
def test_a_client(pair: Ground, tmp_path: Path, loader: Loader, daemon: Daemon) -> None:
    """`allow ftp outbound` is enough on a client where all else is denied."""
    with client_behind(pair, daemon) as line:
        loader.load(CLIENT, pair.firewall, tmp_path)
        line.all_pass(EVERY_WAY)


@on_every_loader
@with_every_daemon
def test_a_router(routed: Ground, tmp_path: Path, loader: Loader, daemon: Daemon) -> None:
    """`allow ftp from lan to wan` lets files through both ways, and opens nothing backwards."""
    with router_between(routed, daemon) as line:
        loader.load(ROUTER, routed.firewall, tmp_path)
        line.all_pass(EVERY_WAY, *Direction)
        lan, wan = routed["lan"], routed["wan"]
        for family in Family:
            with lan.neighbour.listen(family, 21):
                assert probe_tcp(wan.neighbour, lan.far.of(family), 21, 0.3) is Reach.TIMEOUT


ALTERNATIVE = "service ftp-alt { tcp 2121 helper ftp }\n"


@on_every_loader
def test_another_port_on_a_server(pair: Ground, tmp_path: Path, loader: Loader) -> None:
    """`helper ftp` in a service of one's own works on the port that it names."""
    with server_behind(pair, Daemon.VSFTPD, port=2121) as line:
        loader.load(ALTERNATIVE + CLOSED + "allow ftp-alt inbound\n", pair.firewall, tmp_path)
        line.all_pass(EVERY_WAY)


def test_another_port_on_a_client(pair: Ground, tmp_path: Path) -> None:
    """The same, dialled from here."""
    with client_behind(pair, Daemon.PYFTPDLIB, port=2121) as line:
        policy = ALTERNATIVE + CLOSED + "allow ftp-alt outbound\n"
        Loader.NFT.load(policy, pair.firewall, tmp_path)
        line.all_pass(EVERY_WAY)


def test_another_port_through_a_router(routed: Ground, tmp_path: Path) -> None:
    """The same, passing through."""
    with router_between(routed, Daemon.VSFTPD, port=2121) as line:
        policy = ZONES + ALTERNATIVE + CLOSED + "allow ftp-alt from lan to wan\n"
        Loader.NFT.load(policy, routed.firewall, tmp_path)
        line.all_pass(EVERY_WAY)


# --- a range of data ports -------------------------------------------------------------------

NARROW = f"service ftp-narrow {{ tcp 21 helper ftp data {INSIDE[0]}-{INSIDE[1]} }}\n"
NARROW_SERVER = NARROW + CLOSED + "allow ftp-narrow inbound\n"
NARROW_CLIENT = NARROW + CLOSED + "allow ftp-narrow outbound\n"


def hands_out(client: Namespace, ports: tuple[int, int]) -> None:
    """Let a client take its own ports, those of its PORT and EPRT too, from a range."""
    client.sysctl("net.ipv4.ip_local_port_range", f"{ports[0]} {ports[1]}")


@on_every_loader
def test_data_ports_inside_the_range_pass(pair: Ground, tmp_path: Path, loader: Loader) -> None:
    """`data` lets those connections through whose port is in it, passive and active."""
    with server_behind(pair, Daemon.VSFTPD, ports=INSIDE) as line:
        hands_out(line.client, INSIDE)
        loader.load(NARROW_SERVER, pair.firewall, tmp_path)
        line.all_pass(EVERY_WAY)


@on_every_loader
def test_data_ports_outside_the_range_fail(pair: Ground, tmp_path: Path, loader: Loader) -> None:
    """`data` stops a server that hands out other ports, and a client that listens on others."""
    with server_behind(pair, Daemon.VSFTPD, ports=OUTSIDE) as line:
        hands_out(line.client, OUTSIDE)
        loader.load(NARROW_SERVER, pair.firewall, tmp_path)
        line.all_stop_at_the_data(EACH_MODE)


def test_data_ports_of_a_client(pair: Ground, tmp_path: Path) -> None:
    """`data` holds in the outbound direction as well: passive towards the server's ports."""
    hands_out(pair.firewall, INSIDE)
    with client_behind(pair, Daemon.VSFTPD, ports=INSIDE) as line:
        Loader.NFT.load(NARROW_CLIENT, pair.firewall, tmp_path)
        line.all_pass(EVERY_WAY)
    with client_behind(pair, Daemon.VSFTPD, ports=OUTSIDE) as line:
        line.all_stop_at_the_data(passive(EACH_MODE))
        line.all_pass(active(EVERY_WAY))


# --- without the helper ----------------------------------------------------------------------


@on_every_loader
def test_a_server_without_helper(pair: Ground, tmp_path: Path, loader: Loader) -> None:
    """The control port alone is a log-in and no more: no `ftp`, no helper, no data."""
    with server_behind(pair, Daemon.VSFTPD) as line:
        loader.load(CLOSED + "allow tcp 21 inbound\n", pair.firewall, tmp_path)
        line.all_stop_at_the_data(EACH_MODE)


@on_every_loader
def test_a_client_without_helper(pair: Ground, tmp_path: Path, loader: Loader) -> None:
    """The same on a client."""
    with client_behind(pair, Daemon.VSFTPD) as line:
        loader.load(CLOSED + "allow tcp 21 outbound\n", pair.firewall, tmp_path)
        line.all_stop_at_the_data(EACH_MODE)


@on_every_loader
def test_a_router_without_helper(routed: Ground, tmp_path: Path, loader: Loader) -> None:
    """The same through a router."""
    with router_between(routed, Daemon.VSFTPD) as line:
        policy = ZONES + CLOSED + "allow tcp 21 from lan to wan\n"
        loader.load(policy, routed.firewall, tmp_path)
        line.all_stop_at_the_data(EACH_MODE)


# --- the helper of somebody else's rule ------------------------------------------------------


@on_every_loader
def test_a_helper_serves_its_own_zone_alone(zoned: Ground, tmp_path: Path, loader: Loader) -> None:
    """The helper that `lan` was allowed does nothing for `wan`, which may dial the same port."""
    policy = ZONES + CLOSED + "allow ftp inbound from lan\nallow tcp 21 inbound from wan\n"
    with server_behind(zoned, Daemon.VSFTPD, zone="wan") as stranger:
        lan = zoned["lan"]
        friend = Line(lan.neighbour, lan.near, stranger.server)
        loader.load(policy, zoned.firewall, tmp_path)
        friend.all_pass(EVERY_WAY)
        stranger.all_stop_at_the_data(EACH_MODE)
        friend.all_pass(EACH_MODE)


# --- PORT as a weapon ------------------------------------------------------------------------
#
# test_ground.py shows with rules written by hand that each of these connects where RELATED is
# accepted wholesale, or where there is no firewall.


@on_every_loader
def test_a_privileged_port_cannot_be_named(pair: Ground, tmp_path: Path, loader: Loader) -> None:
    """A server that would connect to a port below 1024 is stopped; 1024 itself is let through."""
    wan = pair["wan"]
    with server_behind(pair, Daemon.PYFTPDLIB):
        loader.load(SERVER, pair.firewall, tmp_path)
        for family in Family:
            for port, expected in ((1023, False), (1024, True)):
                with logged_in(wan.neighbour, wan.near.of(family)) as control:
                    arrived = lured(control, wan.neighbour, wan.far.of(family), port)
                assert arrived is expected, (family, port)


@on_every_loader
def test_a_hostile_server_cannot_reach_services(
    pair: Ground, tmp_path: Path, loader: Loader
) -> None:
    """On a client one PORT line opens ports of the ephemeral range and no other."""
    wan = pair["wan"]
    cases = [(Family.IPV4, 2222, False), (Family.IPV4, EPHEMERAL[0], True)]
    if loader is Loader.NFT:
        cases += [
            (Family.IPV4, 22, False),
            (Family.IPV6, EPHEMERAL[0] - 1, False),
            (Family.IPV6, EPHEMERAL[1] + 1, False),
        ]
    cases += [(Family.IPV6, EPHEMERAL[1], True)]
    with client_behind(pair, Daemon.PYFTPDLIB):
        loader.load(CLIENT, pair.firewall, tmp_path)
        for family, port, expected in cases:
            with logged_in(pair.firewall, wan.far.of(family)) as control:
                arrived = lured(control, pair.firewall, wan.near.of(family), port)
            assert arrived is expected, (family, port)


def test_a_server_cannot_send_a_client_to_privileged_ports(pair: Ground, tmp_path: Path) -> None:
    """A 227 that names a port below 1024 leads nowhere."""
    with client_behind(pair, Daemon.PYFTPDLIB, ports=(900, 999)) as line:
        line.all_pass(passive(EACH_MODE))
        Loader.NFT.load(CLIENT, pair.firewall, tmp_path)
        line.all_stop_at_the_data(passive(EACH_MODE))
        line.all_pass(active(EACH_MODE))


def test_a_privileged_port_cannot_be_named_through_a_router(routed: Ground, tmp_path: Path) -> None:
    """Forwarded data connections keep to 1024 and above as well."""
    lan, wan = routed["lan"], routed["wan"]
    with router_between(routed, Daemon.PYFTPDLIB):
        Loader.NFT.load(ROUTER, routed.firewall, tmp_path)
        for family, port, expected in ((Family.IPV4, 1023, False), (Family.IPV6, 1024, True)):
            with logged_in(lan.neighbour, wan.far.of(family)) as control:
                assert lured(control, lan.neighbour, lan.far.of(family), port) is expected


@on_every_loader
def test_a_third_host_cannot_be_named(zoned: Ground, tmp_path: Path, loader: Loader) -> None:
    """A server does not connect to another host than the one that gave the PORT."""
    wan, dmz = zoned["wan"], zoned["dmz"]
    with server_behind(zoned, Daemon.PYFTPDLIB):
        for family in Family:
            with logged_in(wan.neighbour, wan.near.of(family)) as control:
                assert lured(control, dmz.neighbour, dmz.far.of(family), 8000)
        loader.load(ZONES + CLOSED + "allow ftp inbound from wan\n", zoned.firewall, tmp_path)
        for family in Family if loader is Loader.NFT else (Family.IPV4,):
            with logged_in(wan.neighbour, wan.near.of(family)) as control:
                assert lured(control, wan.neighbour, wan.far.of(family), 8000)
            with logged_in(wan.neighbour, wan.near.of(family)) as control:
                assert not lured(control, dmz.neighbour, dmz.far.of(family), 8000)


def test_a_third_host_cannot_be_named_through_a_router(zoned: Ground, tmp_path: Path) -> None:
    """A server in `wan` is not let into `dmz` by a PORT that a client in `lan` gave."""
    lan, wan, dmz = zoned["lan"], zoned["wan"], zoned["dmz"]
    with router_between(zoned, Daemon.PYFTPDLIB):
        with logged_in(lan.neighbour, wan.far.ipv4) as control:
            assert lured(control, dmz.neighbour, dmz.far.ipv4, 8000)
        Loader.NFT.load(ROUTER, zoned.firewall, tmp_path)
        with logged_in(lan.neighbour, wan.far.ipv4) as control:
            assert lured(control, lan.neighbour, lan.far.ipv4, 8000)
        with logged_in(lan.neighbour, wan.far.ipv4) as control:
            assert not lured(control, dmz.neighbour, dmz.far.ipv4, 8000)
