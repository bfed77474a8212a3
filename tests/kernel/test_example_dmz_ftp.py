"""The FTP server behind DNAT of the examples: real sessions from everywhere, and nothing beside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from .examples import Try, all_as_expected, load_example, move_in, on_every_loader, serving_ports
from .ftp import Daemon, Direction, serving
from .ground import Addresses, Family, Ground, Loader, Reach, ground
from .test_ftp_sessions import EACH_MODE, Line, active, passive

pytestmark = pytest.mark.usefixtures("ftp_programs")

EXAMPLE = "dmz-ftp"
WIRES = {
    "wan": ("eth0", "192.0.2", "2001:db8:a:"),
    "dmz": ("eth1", "10.0.2", "2001:db8:2:"),
    "lan": ("eth2", "10.0.1", "2001:db8:1:"),
}
SERVER = Addresses("10.0.2.21", "2001:db8:2::21")
OTHER_PORTS = (22, 80, 40000)
FROM_WAN = "dnat ftp from wan to 10.0.2.21 hairpin"
IPV4 = tuple(way for way in EACH_MODE if way.family is Family.IPV4)


@contextmanager
def dmz() -> Iterator[tuple[Ground, Line, Line]]:
    """The router and the server, as the world and as those inside know it."""
    with ground(*WIRES, wires=WIRES) as laid, ExitStack() as stack:
        move_in(laid.firewall, laid["dmz"], SERVER.ipv4, SERVER.ipv6)
        for segment in laid.segments.values():
            stack.enter_context(serving_ports(segment.neighbour, OTHER_PORTS))
        stack.enter_context(serving_ports(laid.firewall, OTHER_PORTS))
        server = stack.enter_context(serving(laid["dmz"].neighbour, Daemon.VSFTPD))
        public = Addresses(laid["wan"].near.ipv4, SERVER.ipv6)
        yield (
            laid,
            Line(laid["wan"].neighbour, public, server),
            Line(laid["lan"].neighbour, SERVER, server),
        )


@on_every_loader
def test_an_ftp_server_behind_dnat(tmp_path: Path, loader: Loader) -> None:
    """Passive and active FTP from the world and from inside, under either address."""
    with dmz() as (laid, world, inside):
        load_example(EXAMPLE, laid.firewall, loader, tmp_path)
        world.all_pass(EACH_MODE)
        world.all_pass(IPV4, Direction.UPLOAD)
        inside.all_pass(EACH_MODE)
        Line(inside.client, world.addresses, inside.server).all_pass(IPV4)
        all_as_expected(tries(laid))
        # Those inside reach servers of the world, under the router's address.
        with serving(laid["wan"].neighbour, Daemon.VSFTPD) as elsewhere:
            Line(inside.client, laid["wan"].far, elsewhere).all_pass(EACH_MODE)


def tries(laid: Ground) -> Iterator[Try]:
    """What else there is."""
    wan, dmz, lan = (laid[zone] for zone in WIRES)
    for port in OTHER_PORTS:
        yield Try(wan.neighbour, wan.near.ipv4, port, Reach.TIMEOUT)
        yield Try(lan.neighbour, wan.far.ipv4, port, Reach.OPEN if port == 80 else Reach.TIMEOUT)
        for family in Family:
            yield Try(wan.neighbour, SERVER.of(family), port, Reach.TIMEOUT)
            expected = Reach.OPEN if port == 22 else Reach.TIMEOUT
            yield Try(lan.neighbour, SERVER.of(family), port, expected)
            for other in (wan, lan):
                yield Try(dmz.neighbour, other.far.of(family), port, Reach.TIMEOUT)
    # The port of FTP is forwarded, and not open at the inner address.
    yield Try(wan.neighbour, SERVER.ipv4, 21, Reach.TIMEOUT)


def test_without_the_helper_there_is_a_login_and_no_more(tmp_path: Path) -> None:
    """The control: the port alone is forwarded, and neither mode works."""
    changes = {
        FROM_WAN: FROM_WAN.replace("ftp", "tcp 21"),
        "allow ftp from wan": "allow tcp 21 from wan",
    }
    with dmz() as (laid, world, inside):
        load_example(EXAMPLE, laid.firewall, Loader.NFT, tmp_path, changes)
        world.all_stop_at_the_data(passive(EACH_MODE))
        world.all_stop_at_the_data(active(EACH_MODE))
        inside.all_pass(EACH_MODE)
