"""Chooses packets that stand for all that a question is about; sends nothing.

At every border of what rules ask, on both sides of it, as far as the question goes; each value at
least once, then in random company. The same question always gets the same packets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from policylang.ir.ruleset import (
    AddressTest,
    DynamicSet,
    HostSuffix,
    ListedSet,
)
from policylang.ir.stages import Path
from policylang.packets.cube import Cube
from policylang.packets.fields import (
    DADDR_TESTS,
    DCCP,
    ICMP,
    ICMPV6,
    SADDR_TESTS,
    SCTP,
    TCP,
    UDP,
    Field,
)
from policylang.packets.values import (
    V4_ADDRESSES,
    V6_ADDRESSES,
    V6_BASE,
    Ranges,
    name_range,
    parse_address,
)
from policylang.proving.borders import MEANT, Borders
from policylang.proving.frames import Probe
from policylang.proving.ground import Plan
from policylang.proving.octets import EXTENSIONS, HAS_PORTS, IGMP

MTU = 1500
MOST_CANDIDATES = 40  # values of a field that are tried; of more, those at random
TRIES = 4  # for each packet that is wanted
COMMON_PROTOCOLS = (TCP, TCP, UDP, UDP, ICMP, ICMPV6, SCTP, 47, 50, IGMP)
BETWEEN_TWO = (TCP, SCTP, DCCP)  # which are spoken with one machine at a time
# What conntrack calls the first packet of a connection (net/netfilter/nf_conntrack_proto_icmp.c).
FIRST_TYPES = {ICMP: (8, 13, 15, 17), ICMPV6: (128, 139)}


def _ranges(*texts: str) -> Ranges:
    return Ranges.merged(found for text in texts if (found := parse_address(text)))


MULTICAST = _ranges("224.0.0.0/4", "ff00::/8")
BROADCAST = _ranges("255.255.255.255")
# No machine's: what routes make of them is the kernel's own (RFC 6890, RFC 4291 section 2.5).
NOBODYS = MULTICAST | _ranges(
    *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "240.0.0.0/4"),
    *("::/127", "fe80::/10", "::ffff:0:0/96"),
)


@dataclass(frozen=True, slots=True)
class Picked:
    """A probe, the path that it is meant to take, and the way out where it is forwarded or sent.

    `members` says for addresses of the probe in which sets they must be (True) or must not be.
    """

    probe: Probe
    path: Path
    way_out: str | None
    members: Mapping[tuple[int, int], bool] = field(default_factory=dict)

    @property
    def roles(self) -> dict[int, str | None]:
        """Where its addresses must be: behind an interface, or at the firewall (None)."""
        probe = self.probe
        found: dict[int, str | None] = {probe.source: probe.way_in}
        if probe.destination not in MULTICAST and probe.destination not in BROADCAST:
            found[probe.destination] = None if self.path is Path.INPUT else self.way_out
        return found


@dataclass(slots=True)
class Picker:
    """Picks for one firewall; `tests` are what the fields of address tests ask.

    Addresses of `pinned` are always where the plan has them.
    """

    plan: Plan
    borders: Borders
    tests: Sequence[AddressTest]
    random: Random
    pinned: Ranges = field(default_factory=Ranges)

    def pick(self, cubes: Mapping[Path, Sequence[Cube]], most: int) -> list[Picked]:
        """At most so many packets of these cubes, by the paths that they take.

        First of what each rule is about, as far as the question is; then of the whole question.
        """
        asked = [(path, cube) for path, some in cubes.items() for cube in some]
        met = [
            (path, both)
            for path, cube in asked
            for of_rule in self.borders.cubes
            if not (both := cube & of_rule).is_empty and both != cube
        ]
        if len(met) > most // 4:
            met = self.random.sample(met, most // 4)
        found: dict[tuple[object, ...], Picked] = {}
        for share, some in ((most // 2, met), (most, asked)):
            wells = [
                _Well(self, path, cube, family)
                for path, cube in dict.fromkeys(some)
                for family in (4, 6)
                if family in cube[Field.FAMILY]
            ]
            streams = [well.packets() for well in wells if well.is_possible]
            tries = TRIES * share
            while streams and len(found) < share and tries > 0:
                for stream in streams:
                    one = next(stream)
                    tries -= 1
                    if one is not None and len(found) < share:
                        found.setdefault((one.probe, one.way_out), one)
        return list(found.values())


@dataclass(slots=True)
class _Well:
    """One cube on one path, of one family."""

    picker: Picker
    path: Path
    cube: Cube
    family: int
    choices: dict[Field, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for asked in (Field.SADDR, Field.DADDR, Field.L4PROTO, Field.SPORT, Field.DPORT):
            self.choices[asked] = self._candidates(asked)
        for asked in (Field.ICMP_TYPE, Field.ICMPV6_TYPE, Field.DSCP, Field.SIZE, Field.SMAC):
            self.choices[asked] = self._candidates(asked)
        for asked, is_there in (
            (Field.IIF, self.path is not Path.OUTPUT),
            (Field.OIF, self.path is not Path.INPUT),
        ):
            if is_there:
                names = self.cube[asked]
                wires = self.picker.plan.wires
                self.choices[asked] = [
                    wire.number for wire in wires if name_range(wire.name)[0] in names
                ]

    @property
    def is_possible(self) -> bool:
        """Whether a packet of the cube can be made here at all."""
        fixed = all(value.single is None or value == self.cube[f] or 0 in self.cube[f]
                    for f, value in MEANT.items() if f in self.cube)  # fmt: skip
        needed = [
            f for f in (Field.IIF, Field.OIF, Field.SADDR, Field.L4PROTO) if f in self.choices
        ]
        return fixed and all(self.choices[f] for f in needed)

    def packets(self) -> Iterator[Picked | None]:
        """Packets without end, None for tries that came to nothing."""
        yield self._made({})
        for asked, values in self.choices.items():
            for value in values:
                yield self._made({asked: value})
        while True:
            yield self._made({})

    def _candidates(self, asked: Field) -> list[int]:
        """Values at borders, within the cube, and some between them."""
        random = self.picker.random
        values = self.cube[asked]
        if asked in (Field.SADDR, Field.DADDR):
            values &= V4_ADDRESSES if self.family == 4 else V6_ADDRESSES
        if asked is Field.SIZE:
            values &= Ranges.between(20, MTU)
        near = {
            n for border in self.picker.borders.values.get(asked, ()) for n in (border - 1, border)
        }
        found = {n for n in near if n in values}
        for low, high in values.pairs[:MOST_CANDIDATES]:
            found |= {low, high}
        if asked in self.cube and values:
            for _ in range(4):
                low, high = random.choice(values.pairs)
                found.add(random.randint(low, high))
        if asked is Field.L4PROTO:
            found = self._protocols(found, values)
        if asked in TESTS:
            found = self._passing(asked, found)
        in_order = sorted(found)
        if len(in_order) > MOST_CANDIDATES:
            in_order = sorted(random.sample(in_order, MOST_CANDIDATES))
        return in_order

    def _protocols(self, found: set[int], values: Ranges) -> set[int]:
        kept = {n for n in found if n in COMMON_PROTOCOLS} | {
            n for n in COMMON_PROTOCOLS if n in values
        }
        if not kept or Field.L4PROTO in self.cube:
            kept |= found
        foreign = ICMPV6 if self.family == 4 else ICMP
        kept -= {foreign, 255, *((IGMP,) if self.family == 6 else ())}
        return kept - set(EXTENSIONS) if self.family == 6 else kept - {0}

    def _one(self, asked: Field, fixed: Mapping[Field, int]) -> int | None:
        if asked in fixed:
            return fixed[asked]
        choices = self.choices.get(asked)
        return self.picker.random.choice(choices) if choices else None

    def _made(self, fixed: Mapping[Field, int]) -> Picked | None:
        random, wires = self.picker.random, self.picker.plan.wires
        numbers = [self._one(asked, fixed) for asked in (Field.IIF, Field.OIF)]
        names = [None if n is None else wires[n - 1].name for n in numbers]
        source = self._source(fixed, names[0], names[1])
        destination = self._destination(fixed, names[1])
        protocol = self._protocol(fixed)
        if source is None or destination is None or protocol is None or source == destination:
            return None
        is_to_several = destination in MULTICAST or destination in BROADCAST
        if is_to_several and protocol in BETWEEN_TWO:
            return None
        if not self._may_be(source, names[0], is_source=True):
            return None
        way_out = names[1]
        if not self._may_be(destination, way_out, is_source=False):
            return None
        ports = (0, 0)
        if protocol in HAS_PORTS:
            source_port = self._one(Field.SPORT, fixed if Field.SPORT in self.cube else {})
            if Field.SPORT not in self.cube:
                source_port = random.randint(1024, 65535)
            port = self._one(Field.DPORT, fixed)
            ports = (source_port or 0, random.randint(1, 65535) if port is None else port)
        elif protocol in (ICMP, ICMPV6):
            ports = (random.randint(1, 65535), 0)
        bare = Probe(
            names[0],
            source,
            destination,
            protocol,
            ports,
            self._icmp_type(protocol, fixed),
            self._optional(Field.DSCP, fixed) or 0,
            mac=self._optional(Field.SMAC, fixed) if names[0] is not None else None,
            mark=random.choice(self.picker.borders.marks) if names[0] is None else 0,
            user=random.choice(self.picker.borders.users) if names[0] is None else 0,
            group=random.choice(self.picker.borders.groups) if names[0] is None else 0,
        )
        probe = self._sized(bare, fixed)
        return None if probe is None else Picked(probe, self.path, way_out, self._members(probe))

    def _optional(self, asked: Field, fixed: Mapping[Field, int]) -> int | None:
        """A value of a field that is left alone where neither question nor rules ask for it."""
        is_asked = asked in self.cube or asked in self.picker.borders.values
        return self._one(asked, fixed) if is_asked else None

    def _sized(self, probe: Probe, fixed: Mapping[Field, int]) -> Probe | None:
        wanted = self._optional(Field.SIZE, fixed)
        if wanted is None:
            return probe
        padding = wanted - probe.size
        if padding < 0 or probe.protocol in (SCTP, DCCP, IGMP):
            return probe if probe.size in self.cube[Field.SIZE] else None
        return replace(probe, padding=padding)

    def _source(
        self, fixed: Mapping[Field, int], way_in: str | None, way_out: str | None
    ) -> int | None:
        if self.path is Path.OUTPUT:
            own = self._own(Field.SADDR, way_out)
            if Field.SADDR not in self.cube and own and self.picker.random.random() < 0.8:
                return self.picker.random.choice(own)
            return self._one(Field.SADDR, fixed)
        found = self._one(Field.SADDR, fixed)
        if Field.SADDR not in fixed and Field.SADDR not in self.cube:
            # Nothing is asked of it: mostly an address of the networks behind the wire.
            return self._behind(way_in) if self.picker.random.random() < 0.5 else found
        return found

    def _destination(self, fixed: Mapping[Field, int], way_out: str | None) -> int | None:
        random = self.picker.random
        if self.path is Path.INPUT and Field.DADDR not in fixed and random.random() < 0.8:
            own = self._own(Field.DADDR, None)
            if own:
                return random.choice(own)
        is_free = Field.DADDR not in fixed and Field.DADDR not in self.cube
        if is_free and self.path is not Path.INPUT and random.random() < 0.5:
            return self._behind(way_out)
        return self._one(Field.DADDR, fixed)

    def _own(self, asked: Field, way: str | None) -> list[int]:
        """The firewall's addresses that the cube holds, on one interface or on any."""
        wires = self.picker.plan.wires
        found = [w.own[self.family] for w in wires if way in (None, w.name)]
        return [address for address in found if address in self.cube[asked]]

    def _behind(self, name: str | None) -> int | None:
        """An address behind an interface, as the plan has it."""
        wire = self.picker.plan.wire(name) if name is not None else None
        family = V4_ADDRESSES if self.family == 4 else V6_ADDRESSES
        networks = wire.networks & family if wire is not None else Ranges()
        if not networks:
            networks = Ranges.merged(_WORLD[self.family])
        low, high = self.picker.random.choice(networks.pairs)
        return self.picker.random.randint(low, high)

    def _may_be(self, address: int, where: str | None, *, is_source: bool) -> bool:
        """Whether a machine there can have that address."""
        plan = self.picker.plan
        if address in MULTICAST or address in BROADCAST:
            return not is_source and where is None and self.path is Path.INPUT
        if address in NOBODYS:
            return False
        if address in self.picker.pinned and plan.behind(address) != where:
            return False
        if not is_source and where is not None:
            # What goes to an address of a zone's networks leaves by one of its interfaces.
            near = [wire.name for wire in plan.wires if wire.zones and address in wire.networks]
            return address not in plan.own and (not near or where in near)
        return where is None or address not in plan.own

    def _protocol(self, fixed: Mapping[Field, int]) -> int | None:
        """A protocol that has what is fixed."""
        if Field.L4PROTO in fixed:
            return fixed[Field.L4PROTO]
        choices = self.choices[Field.L4PROTO]
        if Field.SPORT in fixed or Field.DPORT in fixed:
            choices = [n for n in choices if n in HAS_PORTS]
        elif Field.ICMP_TYPE in fixed:
            choices = [n for n in choices if n == ICMP]
        elif Field.ICMPV6_TYPE in fixed:
            choices = [n for n in choices if n == ICMPV6]
        return self.picker.random.choice(choices) if choices else None

    def _icmp_type(self, protocol: int, fixed: Mapping[Field, int]) -> int:
        if protocol not in FIRST_TYPES:
            return 0
        asked = Field.ICMP_TYPE if protocol == ICMP else Field.ICMPV6_TYPE
        if asked in fixed:
            return fixed[asked]
        usual = [n for n in FIRST_TYPES[protocol] if n in self.cube[asked]]
        found = self.picker.random.choice(usual) if usual else self._one(asked, fixed)
        return found or 0

    def _members(self, probe: Probe) -> dict[tuple[int, int], bool]:
        """For each address and number of a test that must, or must not, hold of it."""
        found: dict[tuple[int, int], bool] = {}
        for end, address in ((Field.SADDR, probe.source), (Field.DADDR, probe.destination)):
            for number, test in enumerate(self.picker.tests):
                asked = self.cube[TESTS[end][number]]
                if isinstance(test, DynamicSet):
                    is_held = Random(address + number).random() < MEMBERS  # always the same
                    found[address, number] = is_held if asked.single is None else asked.single == 1
        return found

    def _passing(self, asked: Field, found: set[int]) -> set[int]:
        """Addresses that pass the tests which the cube wants passed and the address alone tells."""
        for number, test in enumerate(self.picker.tests):
            if self.cube[TESTS[asked][number]].single != 1:
                continue
            match test:
                case HostSuffix(value, mask):
                    v6 = {n for n in found if n >= V6_BASE}
                    found = {V6_BASE + ((n - V6_BASE) & ~mask | value) for n in v6}
                case ListedSet(addresses=addresses):
                    family = V4_ADDRESSES if self.family == 4 else V6_ADDRESSES
                    held = (addresses & self.cube[asked] & family).pairs[:MOST_CANDIDATES]
                    found = {n for pair in held for n in pair}
        return found


TESTS = {Field.SADDR: SADDR_TESTS, Field.DADDR: DADDR_TESTS}
MEMBERS = 0.3  # the share of addresses that are put into a set where nothing is asked of it


def tested(test: AddressTest, address: int) -> bool | None:
    """What an address alone says of a test, or None where that depends on what is in a set."""
    match test:
        case HostSuffix(value, mask):
            return address >= V6_BASE and (address - V6_BASE) & mask == value
        case ListedSet(addresses=addresses):
            return address in addresses
        case DynamicSet():
            return None


# Addresses of which nobody says anything.
_WORLD = {
    4: [(134744064, 134744064 + 250)],  # 8.8.8.0
    6: [(V6_BASE + (0x2A00_0077 << 96), V6_BASE + (0x2A00_0077 << 96) + 65535)],
}
