"""`queue`: a program reads both directions of what passed, and decides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .applied import apply_text
from .examples import forget_connections
from .ftp import Client, Daemon, Mode, passes, serving
from .ground import (
    CommandError,
    Family,
    Ground,
    Loader,
    Namespace,
    Reach,
    ground,
    probe_tcp,
)
from .mirror import Seen, Visit, all_seen_as_expected, mirrors
from .queue_reader import Read, has_nft_queue, reader

ZONES = "zone wan { interface wan0 }\nzone lan { interface lan0 }\n"
EVERYTHING = "allow all inbound\nallow all from any to any\n"
CLOSED = "default deny inbound\ndefault deny outbound\ndefault deny forward\n"
PORT, OTHER_PORT = PORTS = (80, 8080)
QUEUE = 3
WAYS = {
    "inbound": ("wan", "self"),
    "outbound": ("self", "wan"),
    "from lan to wan": ("lan", "wan"),
}


@dataclass(frozen=True, slots=True)
class Router:
    """A router that takes policies by one loader, and machines that answer."""

    laid: Ground
    loader: Loader
    directory: Path

    def apply(self, statements: str) -> None:
        """Apply a policy, its zones being there; no connection is open since."""
        try:
            apply_text(ZONES + statements, self.loader, self.laid.firewall, self.directory)
        except CommandError:
            if self.loader is Loader.NFT and not has_nft_queue(self.laid.firewall):
                pytest.xfail("nft has no queues in this kernel (CONFIG_NFT_QUEUE)")
            raise
        forget_connections(self.laid.firewall)

    def machine(self, zone: str) -> Namespace:
        return self.laid.firewall if zone == "self" else self.laid[zone].neighbour

    def visits(
        self, way: str, ports: Iterable[int], *, came: bool, protocols: tuple[str, ...]
    ) -> Iterator[Visit]:
        start, goal = WAYS[way]
        target = self.laid[start].near if goal == "self" else self.laid[goal].far
        source = self.laid[goal].near if start == "self" else self.laid[start].far
        for family in Family:
            for port in ports:
                seen = Seen(goal, source.of(family), target.of(family), port)
                expected = seen if came else Reach.TIMEOUT
                for protocol in protocols:
                    yield Visit(self.machine(start), target.of(family), port, expected, protocol)

    def exchange(
        self,
        way: str,
        *ports: int,
        came: bool = True,
        protocols: tuple[str, ...] = ("tcp", "udp"),
    ) -> None:
        all_seen_as_expected(self.visits(way, ports, came=came, protocols=protocols))


@pytest.fixture(scope="module", params=Loader, ids=lambda loader: loader.value)
def router(
    kernel: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Router]:
    """Such a router, for each way to load policies into it."""
    directory = tmp_path_factory.mktemp("queue")
    with ground("wan", "lan") as laid, pytest.MonkeyPatch.context() as patch:
        # Legacy iptables takes one lock for the whole machine unless told another.
        patch.setenv("XTABLES_LOCKFILE", str(directory / "lock"))
        with (
            mirrors(laid.firewall, "self", PORTS),
            mirrors(laid["wan"].neighbour, "wan", PORTS),
        ):
            yield Router(laid, request.param, directory)


def sides(read: Read) -> set[str]:
    """Which packets were read: those that ask, and those that answer, by the server's port."""
    found = set()
    for source, destination in read.ports():
        for port in (source, destination):
            if port in PORTS:
                found.add(f"{'asks' if port == destination else 'answers'} {port}")
    return found


@pytest.mark.parametrize("way", WAYS)
def test_both_directions_are_read(router: Router, way: str) -> None:
    """Of what the statement speaks of, and of nothing else."""
    router.apply(f"{EVERYTHING}queue tcp {PORT}, udp {PORT} {way} to {QUEUE}\n")
    with reader(router.laid.firewall, QUEUE) as read:
        router.exchange(way, *PORTS)
    assert sides(read) == {f"asks {PORT}", f"answers {PORT}"}
    assert {data[0] >> 4 for data in read.packets} == {4, 6}


def test_the_program_decides(router: Router) -> None:
    router.apply(f"{EVERYTHING}queue tcp {PORT} from lan to wan to {QUEUE}\n")
    with reader(router.laid.firewall, QUEUE, passes=False) as read:
        router.exchange("from lan to wan", PORT, came=False, protocols=("tcp",))
        router.exchange("from lan to wan", OTHER_PORT)
    assert sides(read) == {f"asks {PORT}"}


@pytest.mark.parametrize("bypass", ["", " bypass"])
def test_nobody_reads(router: Router, bypass: str) -> None:
    """Without a program nothing passes, unless `bypass` says so."""
    router.apply(f"{EVERYTHING}queue all from lan to wan to 0-{QUEUE}{bypass}\n")
    router.exchange("from lan to wan", PORT, came=bool(bypass))


def test_the_first_that_matches_decides(router: Router) -> None:
    router.apply(
        f"{EVERYTHING}queue tcp {PORT} from lan to wan to {QUEUE}\n"
        f"queue all from lan to wan to {QUEUE + 1}\n"
    )
    firewall = router.laid.firewall
    with reader(firewall, QUEUE) as one, reader(firewall, QUEUE + 1) as other:
        router.exchange("from lan to wan", *PORTS, protocols=("tcp",))
    assert sides(one) == {f"asks {PORT}", f"answers {PORT}"}
    assert sides(other) == {f"asks {OTHER_PORT}", f"answers {OTHER_PORT}"}


def test_what_does_not_pass_is_not_read(router: Router) -> None:
    """A queue allows nothing, and is asked last."""
    router.apply(f"{CLOSED}queue all from lan to wan to {QUEUE}\n")
    with reader(router.laid.firewall, QUEUE) as read:
        router.exchange("from lan to wan", PORT, came=False)
    assert not read.packets


def test_untracked_traffic_is_read(router: Router) -> None:
    way = "from lan to wan"
    router.apply(
        f"{CLOSED}untracked udp {PORT} {way}\nallow all {way}\nqueue all {way} to {QUEUE}\n"
    )
    with reader(router.laid.firewall, QUEUE) as read:
        router.exchange(way, PORT, protocols=("udp",))
    assert sides(read) == {f"asks {PORT}", f"answers {PORT}"}


def test_what_this_host_sends_to_itself_is_not_read(router: Router) -> None:
    router.apply(f"{EVERYTHING}queue all inbound to {QUEUE}\nqueue all outbound to {QUEUE}\n")
    for address in ("127.0.0.1", "::1", router.laid["wan"].near.ipv4):
        assert probe_tcp(router.laid.firewall, address, PORT) is Reach.OPEN
    router.exchange("inbound", PORT, came=False)


@pytest.mark.usefixtures("ftp_programs")
@pytest.mark.parametrize("mode", [Mode.EPSV, Mode.EPRT], ids=lambda mode: mode.value)
def test_what_a_helper_predicts_is_read(router: Router, mode: Mode) -> None:
    """The data connection of FTP, whichever end opens it, in both directions."""
    way = "from lan to wan"
    router.apply(f"{CLOSED}allow ftp {way}\nqueue ftp {way} to {QUEUE}\n")
    address = router.laid["wan"].far.ipv6
    with (
        serving(router.machine("wan"), Daemon.VSFTPD) as server,
        reader(router.laid.firewall, QUEUE) as read,
    ):
        outcome = passes(router.machine("lan"), address, server, mode, Client.FTPLIB)
    assert outcome.is_ok, outcome
    data = {ports for ports in read.ports() if 21 not in ports}
    assert data and data == {(b, a) for a, b in data}
