"""Who plays: plausible machines, addresses and interfaces for the ends that a question names.

Where a question leaves a choice, addresses are those that documentation uses (RFC 5737, RFC 3849)
or lie in the networks of the zone, and an interface is the zone's first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from policylang.analysis.conversation.world import MULTICAST, Host, World
from policylang.analysis.surroundings import LOOPBACK, NOBODY
from policylang.ir.stages import Path
from policylang.model.types import Zone
from policylang.packets.cube import Cube
from policylang.packets.fields import (
    DCCP,
    FAMILY_ADDRESSES,
    ICMP,
    ICMPV6,
    SCTP,
    TCP,
    UDP,
    AddressType,
    Field,
)
from policylang.packets.values import (
    NAME_BYTES,
    V6_BASE,
    Ranges,
    name_range,
    parse_address,
)

CLIENTS = {4: ("203.0.113.9", "203.0.113.0/24"), 6: ("2001:db8:7::9", "2001:db8:7::/48")}
SERVERS = {4: ("198.51.100.10", "198.51.100.0/24"), 6: ("2001:db8:2::10", "2001:db8:2::/48")}
OWN = {4: "192.0.2.0/24", 6: "2001:db8:1::/48"}
SPARE_INTERFACES = ("eth0", "eth1", "eth2", "eth3")
ECHO_REQUEST = {ICMP: 8, ICMPV6: 128}
BETWEEN_TWO = (TCP, SCTP, DCCP)  # which no group is spoken to by
PRIVATE_HOST = 10  # the last part of a machine's address in a network of a zone


@dataclass(frozen=True, slots=True)
class Cast:
    """The machines of one conversation, and the first packet's protocol and port or ICMP type.

    `path` is that of the first packet as it is dialled. `given` are the fields that a question
    names beside the ends (a mark of the sender's own is none).
    """

    world: World
    client: Host
    server: Host
    firewall: Host
    dialled: int
    protocol: int
    port: int
    path: Path
    source_port: int | None
    given: Mapping[Field, int]

    @property
    def hosts(self) -> tuple[Host, ...]:
        """Those who take part, client first; the firewall once, whatever it plays."""
        if self.path is Path.FORWARD:
            return (self.client, self.firewall, self.server)
        return (self.client, self.server)


class NoCastError(Exception):
    """No conversation can be played between such ends; `why` is for people."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def cast(zones: tuple[Zone, ...], path: Path, cube: Cube, *, is_broadcast: bool = False) -> Cast:
    """The cast for packets of `cube` on a path, as they are dialled; raises `NoCastError`.

    With `is_broadcast` this host asks all machines of a network at once.
    """
    return _Casting(zones, path, cube, is_broadcast=is_broadcast).cast()


class _Casting:
    def __init__(
        self, zones: tuple[Zone, ...], path: Path, cube: Cube, *, is_broadcast: bool
    ) -> None:
        self.zones = zones
        self.is_broadcast = is_broadcast and path is Path.OUTPUT
        self.path = path
        self.cube = cube
        self.family = 4 if 4 in cube[Field.FAMILY] else 6
        self.is_to_group = path is Path.INPUT and _is_of_groups(cube)
        if cube.is_empty:
            raise NoCastError("no packet goes between such ends")

    def cast(self) -> Cast:
        protocol, port = self._what()
        iif = NOBODY if self.path is Path.OUTPUT else self._interface(Field.IIF, ())
        oif = NOBODY if self.path is Path.INPUT else self._interface(Field.OIF, (iif,))
        own = dict(self._own_addresses(iif, oif))
        client = self._source(iif, own, oif)
        server = self._destination(oif, own, iif, client)
        dialled = self._group(own, iif) if self.is_to_group else server.address
        world = World(
            {interface: tuple(addresses) for interface, addresses in own.items()},
            (client, server),
            tuple(self._routes()),
            self._elsewhere(oif, iif),
            dict(self._broadcasts(own)),
        )
        firewall = {Path.INPUT: server, Path.OUTPUT: client}.get(self.path)
        if firewall is None:
            address = world.own_address(iif, self.family)
            assert address is not None
            firewall = Host("firewall", address, NOBODY)
        ports = self.cube[Field.SPORT]
        source_port = ports.pairs[0][0] if Field.SPORT in self.cube else None
        if Field.SPORT in self.cube and 40_000 in ports:
            source_port = None
        return Cast(
            world,
            client,
            server,
            firewall,
            dialled,
            protocol,
            port,
            self.path,
            source_port,
            dict(self._given()),
        )

    def _given(self) -> Iterator[tuple[Field, int]]:
        for field in (Field.SMAC, Field.DSCP, Field.IPSEC):
            if field in self.cube:
                yield field, self.cube[field].pairs[0][0]

    # --- what -------------------------------------------------------------------------------------

    def _what(self) -> tuple[int, int]:
        """The protocol, and the port or the ICMP type."""
        protocols = self.cube[Field.L4PROTO]
        icmp, field = (ICMP, Field.ICMP_TYPE) if self.family == 4 else (ICMPV6, Field.ICMPV6_TYPE)
        if icmp in protocols and (field in self.cube or protocols.single == icmp):
            types = self.cube[field]
            asked = ECHO_REQUEST[icmp]
            return icmp, asked if asked in types else types.pairs[0][0]
        if self.is_to_group:
            protocols -= Ranges.of(*BETWEEN_TWO)
            if not protocols:
                raise NoCastError("TCP is spoken with one machine at a time")
        for protocol in (TCP, UDP):
            if protocol in protocols:
                ports = self.cube[Field.DPORT]
                return protocol, ports.pairs[0][0] if Field.DPORT in self.cube else 9999
        protocol = protocols.pairs[0][0]
        ports = self.cube[Field.DPORT]
        return protocol, ports.pairs[0][0] if Field.DPORT in self.cube else 0

    # --- interfaces -----------------------------------------------------------------------------

    def _interface(self, field: Field, taken: tuple[int, ...]) -> int:
        """An interface for one side: a zone's that fits, another than those taken if there is."""
        wanted = self.cube[field]
        address = Field.SADDR if field is Field.IIF else Field.DADDR
        fitting = list(self._candidates(wanted, self.cube[address]))
        for interface in (*(i for i in fitting if i not in taken), *fitting):
            return interface
        low = wanted.pairs[-1][0]
        return low or name_range("eth0")[0]

    def _candidates(self, wanted: Ranges, addresses: Ranges) -> Iterator[int]:
        """Interfaces of zones: first those whose networks have the addresses, then open ones."""
        of_family = FAMILY_ADDRESSES[self.family]
        ranked: list[tuple[int, int]] = []
        for zone in self.zones:
            if zone.interfaces is None:
                continue
            rank = 2
            if zone.networks is None:
                rank = 1
            elif zone.networks.covers(addresses & of_family):
                rank = 0
            elif not zone.networks.meets(addresses & of_family):
                rank = 3
            ranked += [(rank, name) for name in _names(zone.interfaces & wanted)]
        yield from (name for _, name in sorted(ranked, key=lambda pair: pair[0]))
        known = Ranges.merged(
            pair for zone in self.zones if zone.interfaces is not None for pair in zone.interfaces
        )
        spare = [name_range(name)[0] for name in SPARE_INTERFACES]
        yield from (name for name in spare if name in wanted and name not in known)
        yield from _names(wanted - known)

    def _elsewhere(self, oif: int, iif: int) -> int:
        """Where the rest of the world is: behind a zone without networks, if there is one.

        What came by an interface and is sent elsewhere leaves by another one, where there is one.
        """
        open_ = [z for z in self.zones if z.interfaces and z.networks is None]
        known = [z for z in self.zones if z.interfaces and z.networks is not None]
        ways = [name for zone in (*open_, *known) for name in _names(zone.interfaces or Ranges())]
        others = [way for way in ways if way != iif]
        return next(iter((*others, *ways, *(i for i in (oif, iif) if i != NOBODY))))

    # --- addresses ------------------------------------------------------------------------------

    def _own_addresses(self, *interfaces: int) -> Iterator[tuple[int, list[int]]]:
        """This host's addresses: one of each family at each interface."""
        others = {v for f in (Field.SADDR, Field.DADDR) if (v := self.cube[f].single) is not None}
        seen: set[int] = set()
        names = [i for i in interfaces if i != NOBODY]
        for zone in self.zones:
            if zone.interfaces:
                names += _names(zone.interfaces)
        number = 0
        for interface in names:
            if interface in seen:
                continue
            seen.add(interface)
            number += 1
            held = []
            for family in (4, 6):
                network = self._network_of(interface, family)
                if network is None:
                    parsed = parse_address(OWN[family])
                    assert parsed is not None
                    low, high = parsed[0] + number, parsed[1]
                else:
                    low, high = network
                    low += high > low
                held.append(next((a for a in range(low, high + 1) if a not in others), low))
                others.add(held[-1])
            yield interface, held

    def _network_of(self, interface: int, family: int) -> tuple[int, int] | None:
        """A network behind an interface; a single address is none, it is another machine's."""
        for zone in self.zones:
            if zone.interfaces and interface in zone.interfaces and zone.networks is not None:
                pairs = (zone.networks & FAMILY_ADDRESSES[family]).pairs
                if networks := [pair for pair in pairs if pair[1] > pair[0]]:
                    return networks[0]
        return None

    def _broadcast_at(self, interface: int, own: int) -> tuple[int, int] | None:
        """The broadcast address of the network at an interface, and the length of its prefix.

        None where it has fewer than four addresses, and so no broadcast (RFC 3021). `own` is this
        host's address there.
        """
        network = self._network_of(interface, 4)
        if network is None:
            return own | 0xFF, 24
        low, high = network
        return None if high - low < 3 else (high, 32 - (high - low).bit_length())

    def _routes(self) -> Iterator[tuple[Ranges, int]]:
        for zone in self.zones:
            if zone.networks and zone.interfaces:
                yield zone.networks, next(_names(zone.interfaces))

    def _source(self, iif: int, own: dict[int, list[int]], oif: int) -> Host:
        wanted = self.cube[Field.SADDR]
        if iif == NOBODY:
            return Host("this host", self._own(wanted, own, oif), NOBODY)
        address = self._address(wanted, iif, CLIENTS[self.family], own, Field.SADDR)
        return Host("client", address, iif)

    def _destination(self, oif: int, own: dict[int, list[int]], iif: int, client: Host) -> Host:
        wanted = self.cube[Field.DADDR]
        if self.is_to_group:
            return Host("this host", own[iif][0 if self.family == 4 else 1], NOBODY)
        if oif == NOBODY:
            return Host("this host", self._own(wanted, own, iif), NOBODY)
        if self.is_broadcast:
            broadcast = self._broadcast_at(oif, own[oif][0])
            if broadcast is None:
                raise NoCastError("a network of so few addresses has no broadcast")
            return Host("the whole network", broadcast[0], oif)
        taken = {**own, NOBODY: [client.address]}
        address = self._address(wanted, oif, SERVERS[self.family], taken, Field.DADDR)
        return Host("server", address, oif)

    def _group(self, own: dict[int, list[int]], iif: int) -> int:
        """The group, or the broadcast address, that a question is about."""
        wanted = self.cube[Field.DADDR] & FAMILY_ADDRESSES[self.family]
        groups = wanted & MULTICAST
        if groups and AddressType.MULTICAST in self.cube[Field.DADDR_TYPE]:
            return _plain(groups)
        found = self._broadcast_at(iif, own[iif][0])
        candidates = (EVERYBODY,) if found is None else (found[0], EVERYBODY)
        for address in candidates:
            if address in wanted:
                return address
        raise NoCastError("no group and no broadcast address is such")

    def _own(self, wanted: Ranges, own: dict[int, list[int]], interface: int) -> int:
        """This host's address that a question names, or the one at an interface."""
        of_family = wanted & FAMILY_ADDRESSES[self.family]
        at = own[interface]
        index = 0 if self.family == 4 else 1
        if at[index] not in of_family:
            at[index] = _plain(of_family)
        return at[index]

    def _address(
        self,
        wanted: Ranges,
        interface: int,
        usual: tuple[str, str],
        own: Mapping[int, Iterable[int]],
        field: Field,
    ) -> int:
        """A machine's address behind an interface."""
        taken = {address for held in own.values() for address in held}
        taken |= {address for address, _ in self._broadcasts(own)}
        possible = wanted & FAMILY_ADDRESSES[self.family]
        zones = [z for z in self.zones if z.interfaces and interface in z.interfaces]
        for zone in zones:
            if zone.networks is not None and zone.networks.meets(possible):
                possible = possible & zone.networks
                break
        else:
            elsewhere = Ranges.merged(
                pair for z in self.zones if z.networks is not None for pair in z.networks
            )
            possible = (possible - elsewhere) or possible
        first, network = (parse_address(text) for text in usual)
        assert first is not None and network is not None
        if first[0] in possible and first[0] not in taken:
            return first[0]
        for pool in (possible & Ranges((network,)), possible):
            if pool:
                return _plain(pool - Ranges.of(*taken) or pool)
        raise NoCastError("no address is left for one of the ends")

    def _broadcasts(self, own: Mapping[int, Iterable[int]]) -> Iterator[tuple[int, int]]:
        """The broadcast address of each network that this host is in, and its prefix length."""
        for interface, addresses in own.items():
            if interface != NOBODY:
                found = self._broadcast_at(interface, next(iter(addresses)))
                if found is not None:
                    yield found
        yield EVERYBODY, 32


EVERYBODY = 0xFFFFFFFF  # 255.255.255.255, RFC 919


def _is_of_groups(cube: Cube) -> bool:
    """Whether all packets go to groups or broadcast addresses."""
    if Field.DADDR_TYPE in cube and AddressType.LOCAL not in cube[Field.DADDR_TYPE]:
        return True
    return Field.DADDR in cube and MULTICAST.covers(cube[Field.DADDR])


def _names(interfaces: Ranges) -> Iterator[int]:
    """Real names out of ranges of them: single ones, and of a pattern the one that ends in 0."""
    for low, high in interfaces:
        if low == high:
            yield low
            continue
        stem = low.to_bytes(NAME_BYTES, "big").rstrip(b"\0")
        for ending in (b"0", b"1"):
            name = (stem + ending).ljust(NAME_BYTES, b"\0")
            number = int.from_bytes(name, "big")
            if stem and len(stem) < NAME_BYTES - 1 and low <= number <= high:
                yield number
                break


def _plain(addresses: Ranges) -> int:
    """An address of a machine: in a network not its first, which stands for the network."""
    pool = addresses - Ranges.of(*LOOPBACK.values()) or addresses
    low = pool.pairs[0][0]
    if low in (0, V6_BASE) and pool.count > 1 << 24:  # what is at the very beginning is reserved
        low += 0x20010DB8 << 96 if low else 1 << 24
    if low + PRIVATE_HOST in pool:
        return low + PRIVATE_HOST
    return next((last for _, last in pool if last > low), low)
