"""A firewall that policies are applied to, and what it does to packets.

The packets are thrown at it from its wires, or sent by itself, as they are on the wire; what came
by is collected behind the rules of each hook. It knows nothing of what a policy says.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from policylang import pipeline
from policylang.apply.transaction import apply
from policylang.cli.render import Renderer
from policylang.diagnostics import Report
from tests.backends.nft_station import FAR, Hook, Packet, Station

from .ground import CommandError, Loader, Namespace

FAMILIES = (4, 6)


def apply_text(policy: str, loader: Loader, namespace: Namespace, directory: Path) -> None:
    """What `policylang apply` does to a namespace, without the start of a program.

    Raises `CommandError` with the compiler's words.
    """
    report = Report()
    source = pipeline.Text(policy, "test.policy", directory)
    artifact = pipeline.compile_policy(source, loader.target, report)
    applied = None
    if artifact is not None:
        applied = apply(artifact, report, netns=namespace.name, flavour=loader.flavour)
    if applied is None:
        raise CommandError(Renderer(color=False).render(report.in_order()))


@dataclass(frozen=True, slots=True)
class Firewall:
    """A station that takes policies by one loader, each in place of the one before."""

    station: Station
    loader: Loader
    directory: Path

    def apply(self, policy: str, time_zone: str | None = None) -> None:
        """Apply a policy; no connection is open and no packet was seen since.

        With a time zone it is done by the command line, as on a machine of that zone. Raises
        `CommandError` with the compiler's words.
        """
        if time_zone is None:
            apply_text(policy, self.loader, self.station.inside, self.directory)
        else:
            self.loader.load(policy, self.station.inside, self.directory, time_zone)
        self.forget()

    def forget(self) -> None:
        """Let no connection be open, and no packet have been seen."""
        self.station.load("")
        self.forget_connections()

    def forget_connections(self) -> None:
        for family in ("ipv4", "ipv6"):
            self.station.inside.run(["conntrack", "-F", "-f", family], check=False)

    def listing(self) -> str:
        """The rules in force for IPv4 as the kernel's program tells them, with their counters."""
        if self.loader is Loader.NFT:
            argv = ["nft", "list", "table", "inet", "policylang"]
        else:
            argv = [f"{self.loader.value}-save", "--counters"]
        return self.station.inside.run(argv).stdout

    def takes(self, *packets: Packet) -> list[bool]:
        """Throw packets; which of them are let into the firewall."""
        return self.station.verdicts(Hook.INPUT, packets)

    def forwards(self, *packets: Packet) -> list[bool]:
        """Throw packets; which of them are let through it."""
        return self.station.verdicts(Hook.FORWARD, packets)

    def sends(self, *packets: Packet) -> list[bool]:
        """Send packets from the firewall itself; which of them are let out."""
        return self.station.verdicts(Hook.OUTPUT, packets)


ETH_P_ALL, PACKET_OUTGOING = 3, 4  # linux/if_ether.h, linux/if_packet.h
ICMPV6, NEIGHBOUR_DISCOVERY = 58, range(133, 138)  # RFC 4861 section 4


@contextmanager
def leaving_by(firewall: Firewall, wire: str) -> Iterator[Callable[[], list[bytes]]]:
    """Listen to what leaves by a wire: the IP packets since it was asked last.

    Those of neighbour discovery are left out.
    """
    with firewall.station.inside.entered():
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    with opened:
        opened.bind((wire, ETH_P_ALL))
        opened.setblocking(False)

        def packets() -> list[bytes]:
            found = []
            with suppress(BlockingIOError):
                while True:
                    data, origin = opened.recvfrom(2048)
                    if origin[2] == PACKET_OUTGOING and not _asks_for_neighbours(data):
                        found.append(data)
            return found

        yield packets


def _asks_for_neighbours(data: bytes) -> bool:
    """Whether a packet is the kernel's own, about its neighbours, whenever it likes to ask."""
    return data[0] >> 4 == 6 and data[6] == ICMPV6 and data[40] in NEIGHBOUR_DISCOVERY


def each(make: Callable[..., Packet], **other: object) -> tuple[Packet, ...]:
    """A packet of each family, of those that `make` makes."""
    return tuple(make(family=family, **other) for family in FAMILIES)


def to_port(port: int, packets: Iterable[Packet]) -> list[Packet]:
    """The packets, each with that destination port."""
    return [replace(packet, ports=(packet.ports[0], port)) for packet in packets]


def through(packets: Iterable[Packet]) -> list[Packet]:
    """The packets, each to the neighbour on the second wire."""
    return [replace(packet, destination=FAR["eth1"][packet.family]) for packet in packets]


def count(verdicts: Sequence[bool]) -> int:
    """How many packets passed, where it was the first ones."""
    passed = sum(verdicts)
    assert list(verdicts) == [True] * passed + [False] * (len(verdicts) - passed), verdicts
    return passed


def until_true(is_so: Callable[[], bool], patience_s: float = 5, every_s: float = 0.005) -> None:
    """Wait until something is so; raises AssertionError where it never is.

    Who runs a program to know it asks less often.
    """
    give_up = time.monotonic() + patience_s
    while not is_so():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(every_s)
