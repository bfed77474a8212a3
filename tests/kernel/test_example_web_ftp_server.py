"""The web and FTP server of the examples: real transfers in every mode, and no port beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from .examples import (
    Try,
    all_as_expected,
    load_example,
    move_in,
    on_every_loader,
    serving_ports,
    wire_of,
)
from .ftp import Daemon, Direction
from .ground import Family, Loader, Reach, ground
from .test_ftp_sessions import EACH_MODE, active, passive, server_behind

pytestmark = pytest.mark.usefixtures("ftp_programs")

EXAMPLE = "web-ftp-server"
WIRES = {"wan": ("wan0", "203.0.113", "2001:db8:113:")}
ADMINS = ("192.0.2.7", "2001:db8:1::7")
PINGS = 100


@on_every_loader
def test_a_web_and_ftp_server(tmp_path: Path, loader: Loader) -> None:
    """FTP passes in every mode and both directions, the web too, SSH for those it names."""
    with (
        ground("wan", wires=WIRES) as laid,
        server_behind(laid, Daemon.VSFTPD) as line,
        serving_ports(laid.firewall, [22, 80, 443, 40000]),
    ):
        wan = laid["wan"]
        move_in(laid.firewall, wan, *ADMINS)
        load_example(EXAMPLE, laid.firewall, loader, tmp_path)
        line.all_pass(EACH_MODE)
        line.all_pass(passive(EACH_MODE), Direction.UPLOAD)
        tries: list[Try] = []
        for family, admin in zip(Family, ADMINS, strict=True):
            near = wan.near.of(family)
            tries += (Try(wan.neighbour, near, port) for port in (80, 443))
            tries += (Try(wan.neighbour, near, port, Reach.TIMEOUT) for port in (22, 40000))
            tries.append(Try(wan.neighbour, near, 22, source=admin))
        all_as_expected(tries)
        with wire_of(wan) as wire:
            (answered,) = wire.echoes(PINGS, (wan.far.ipv4, wan.near.ipv4))
        # A burst of five, and what a slow machine adds while they are sent.
        assert 5 <= answered <= PINGS // 2


def test_without_the_helper_passive_transfers_fail(tmp_path: Path) -> None:
    """The control: FTP's port alone is a log-in, and what the server opens itself."""
    with ground("wan", wires=WIRES) as laid, server_behind(laid, Daemon.VSFTPD) as line:
        changes = {"allow http, https, ftp inbound": "allow http, https, tcp 21 inbound"}
        load_example(EXAMPLE, laid.firewall, Loader.NFT, tmp_path, changes)
        line.all_stop_at_the_data(passive(EACH_MODE))
        line.all_pass(active(EACH_MODE))
