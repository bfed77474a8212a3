"""The network around the firewall: who is where, and which addresses are the firewall's own.

It knows no rules. Interfaces are numbers of `packets.values.name_range`; addresses likewise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from policylang.analysis.surroundings import LOOPBACK, NOBODY
from policylang.packets.cube import Packet
from policylang.packets.fields import AddressType, Field
from policylang.packets.values import Ranges, name_range, parse_address

LO = name_range("lo")[0]
BESIDE = 77  # the last part of another machine's address, where that is in its network


@dataclass(frozen=True, slots=True)
class Host:
    """A machine: `interface` is the firewall's towards it, `NOBODY` of the firewall itself."""

    name: str
    address: int
    interface: int

    @property
    def is_firewall(self) -> bool:
        return self.interface == NOBODY


@dataclass(frozen=True, slots=True)
class World:
    """Hosts and routes.

    `own` are the firewall's addresses by interface, one of each family at most; `routes` are
    networks with the interface that leads there, the first that holds an address counts;
    `elsewhere` is where everything else is. `broadcasts` are addresses of networks that the
    firewall is in, with the length of their prefix.
    """

    own: Mapping[int, tuple[int, ...]]
    hosts: tuple[Host, ...]
    routes: tuple[tuple[Ranges, int], ...]
    elsewhere: int
    broadcasts: Mapping[int, int]

    def routed(self, packet: Packet) -> dict[Field, int]:
        """OIF and DADDR_TYPE of a packet, as the routing table has them."""
        destination = packet[Field.DADDR]
        kind = self.kind(destination)
        arrives = packet[Field.IIF] != NOBODY
        if kind is AddressType.LOCAL:
            return {Field.OIF: NOBODY if arrives else LO, Field.DADDR_TYPE: kind}
        if kind is not AddressType.UNICAST and arrives:
            return {Field.OIF: NOBODY, Field.DADDR_TYPE: kind}
        return {Field.OIF: self.way(destination), Field.DADDR_TYPE: kind}

    def own_address(self, interface: int, family: int) -> int | None:
        """The firewall's address of a family at an interface, else any of its own."""
        at = self.own.get(interface, ())
        others = (a for addresses in self.own.values() for a in addresses)
        for address in (*at, *others):
            if family_of(address) == family:
                return address
        return None

    def beside(self, address: int) -> int:
        """The address of another machine in the network of one, as far as it has room."""
        low = address & ~0xFF
        near = Ranges.between(low, low | 0xFF)
        for networks, _ in self.routes:
            if address in networks:
                near &= networks
                break
        taken = {host.address for host in self.hosts} | self.broadcasts.keys() | {address}
        for held in self.own.values():
            taken |= set(held)
        free = near - Ranges.of(*taken)
        if low + BESIDE in free or not free:
            return low + BESIDE
        return free.pairs[-1][1]

    def kind(self, address: int) -> AddressType:
        """What the routing table calls an address."""
        if address in LOOPBACK.values() or any(address in held for held in self.own.values()):
            return AddressType.LOCAL
        if address in self.broadcasts:
            return AddressType.BROADCAST
        return AddressType.MULTICAST if address in MULTICAST else AddressType.UNICAST

    def way(self, address: int) -> int:
        """The interface that leads to an address of another machine."""
        for host in self.hosts:
            if host.address == address and not host.is_firewall:
                return host.interface
        for networks, interface in self.routes:
            if address in networks:
                return interface
        return self.elsewhere


MULTICAST = Ranges.merged(
    pair for text in ("224.0.0.0/4", "ff00::/8", "255.255.255.255") if (pair := parse_address(text))
)


def family_of(address: int) -> int:
    """4 or 6."""
    return 4 if address <= 0xFFFFFFFF else 6
