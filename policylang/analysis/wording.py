"""Packets in words: what people read of a set of packets, and of one packet.

It knows the names that a policy gives to what it speaks of, and no rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from policylang.ir.stages import Path
from policylang.packets.cube import Cube
from policylang.packets.fields import (
    ADDRESS_FIELDS,
    DADDR_TESTS,
    FAMILY_ADDRESSES,
    ICMP,
    ICMPV6,
    PORT_FIELDS,
    SADDR_TESTS,
    TCP,
    UDP,
    UNIVERSE,
    AddressType,
    Field,
    FlowDirection,
    State,
    flags_test,
)
from policylang.packets.values import (
    Range,
    Ranges,
    format_address,
    name_pattern,
    name_range,
    prefixes,
)

SHOWN = 6  # ranges of a field before the rest is counted alone

PROTOCOLS = {
    ICMP: "icmp",
    2: "igmp",
    TCP: "tcp",
    UDP: "udp",
    33: "dccp",
    41: "ipv6",
    47: "gre",
    50: "esp",
    51: "ah",
    ICMPV6: "icmpv6",
    89: "ospf",
    103: "pim",
    112: "vrrp",
    132: "sctp",
    136: "udplite",
}
# RFC 792, RFC 4443, RFC 4861, RFC 2710: as the language calls them.
ICMP_TYPES = {
    Field.ICMP_TYPE: {
        0: "echo-reply",
        3: "destination-unreachable",
        4: "source-quench",
        5: "redirect",
        8: "echo-request",
        9: "router-advertisement",
        10: "router-solicitation",
        11: "time-exceeded",
        12: "parameter-problem",
        13: "timestamp-request",
        14: "timestamp-reply",
    },
    Field.ICMPV6_TYPE: {
        1: "destination-unreachable",
        2: "packet-too-big",
        3: "time-exceeded",
        4: "parameter-problem",
        128: "echo-request",
        129: "echo-reply",
        133: "router-solicitation",
        134: "router-advertisement",
        135: "neighbour-solicitation",
        136: "neighbour-advertisement",
        137: "redirect",
    },
}
FLAGS = ((0x02, "SYN"), (0x10, "ACK"), (0x01, "FIN"), (0x04, "RST"), (0x08, "PSH"), (0x20, "URG"))


@dataclass(frozen=True, slots=True)
class ZoneName:
    """A zone by what it is told by; None says nothing."""

    name: str
    interfaces: Ranges | None
    networks: Ranges | None


@dataclass(frozen=True, slots=True)
class Names:
    """What a policy calls things: its zones, sets of addresses or ports, services by protocol.

    `services` are by protocol and ports; `tests` the names of what address tests ask, `parts` are
    the addresses of one family in sets of both.
    """

    zones: tuple[ZoneName, ...] = ()
    sets: Mapping[Ranges, str] = field(default_factory=dict)
    services: Mapping[tuple[int, Ranges], str] = field(default_factory=dict)
    tests: tuple[str, ...] = ()
    parts: Mapping[Ranges, str] = field(default_factory=dict)

    def of(self, values: Ranges) -> str | None:
        """The name of a set that is these values, or has them of one family."""
        return self.sets.get(values) or self.parts.get(values)


NO_NAMES = Names()
_ANY_BUT = "any but "
_GROUPS = (AddressType.BROADCAST, AddressType.MULTICAST)


def words_of(
    cube: Cube, names: Names = NO_NAMES, *, leave_out: frozenset[Field] = frozenset()
) -> str:
    """The packets of a cube as one phrase: what, from whom, to whom, and what else is asked.

    Fields in `leave_out` are taken for granted.
    """
    said = Cube.of({f: v for f, v in cube if f not in leave_out})
    parts = [_what(said, names)]
    if source := _end(said, Field.IIF, Field.SADDR, Field.SADDR_TYPE, names):
        parts.append(f"from {source}")
    if goal := _end(said, Field.OIF, Field.DADDR, Field.DADDR_TYPE, names):
        parts.append(f"to {goal}")
    rest = ", ".join(_rest(said, names))
    return " ".join(parts) + (f" ({rest})" if rest else "")


def way_words(cube: Cube, path: Path, names: Names = NO_NAMES) -> str:
    """The packets of a cube that take a path: `tcp 22 from 192.0.2.0/24 to self`.

    Both ends are told. What is not addressed to this host alone says so.
    """
    terms = {f: _without_loopback(f, values) for f, values in cube}
    if path is Path.INPUT:
        terms.setdefault(Field.DADDR_TYPE, Ranges.of(AddressType.LOCAL))
    said = Cube.of(terms)
    source = _end(said, Field.IIF, Field.SADDR, Field.SADDR_TYPE, names)
    goal = _end(said, Field.OIF, Field.DADDR, Field.DADDR_TYPE, names)
    if path is Path.OUTPUT:
        source = f"self ({source})" if source else "self"
    rest = ", ".join(_rest(said, names))
    words = f"{_what(said, names)} from {source or 'any'} to {goal or 'any'}"
    return f"{words} ({rest})" if rest else words


def _without_loopback(f: Field, values: Ranges) -> Ranges:
    """Values in which the names of no other machine's interfaces stand with most of the names."""
    if f not in (Field.IIF, Field.OIF) or 2 * values.count < UNIVERSE[f].count:
        return values
    return values | Ranges.of(0) | Ranges((name_range("lo"),))


def _what(cube: Cube, names: Names) -> str:
    about_family = _family(cube, names)
    if Field.L4PROTO not in cube:
        return f"{about_family}all traffic" if not about_family else f"all {about_family}traffic"
    protocols = cube[Field.L4PROTO]
    numbers = _numbers(protocols)
    name = _names_of(protocols, PROTOCOLS)
    for f in (Field.ICMP_TYPE, Field.ICMPV6_TYPE):
        if f in cube:
            return f"{name} {_names_of(cube[f], ICMP_TYPES[f])}"
    if Field.DPORT in cube:
        ports = cube[Field.DPORT]
        service = {names.services.get((n, ports)) for n in numbers}
        known = service.pop() if len(service) == 1 else None
        text = f"{about_family}{name} {ranges_in_words(Field.DPORT, ports, names)}"
        return f"{text} ({known})" if known else text
    return f"{about_family}{name}"


def _family(cube: Cube, names: Names) -> str:
    """The family of a cube's packets in words, where nothing else that is told of them tells it."""
    if Field.ICMP_TYPE in cube or Field.ICMPV6_TYPE in cube:
        return ""
    for family, every in FAMILY_ADDRESSES.items():
        of_one = [f for f in ADDRESS_FIELDS if f in cube and every.covers(cube[f])]
        if cube[Field.FAMILY].single == family or of_one:
            is_told = any(_tells_family(cube, f, names) for f in of_one)
            return "" if is_told else f"IPv{family} "
    return ""


def _tells_family(cube: Cube, address: Field, names: Names) -> bool:
    """Whether the words for addresses of one family are about that family alone."""
    interface = {Field.SADDR: Field.IIF, Field.DADDR: Field.OIF}.get(address)
    if interface is not None:
        is_said = interface in cube
        zone = _zone(cube[interface] if is_said else None, cube[address], names)
        if zone is not None and zone[1]:
            return cube[address] == zone[0].networks
    if cube[address] in names.parts:
        return False
    return not ranges_in_words(address, cube[address], names).startswith(_ANY_BUT)


def _numbers(values: Ranges) -> tuple[int, ...]:
    return tuple(n for low, high in values for n in range(low, high + 1))


def _names_of(values: Ranges, known: Mapping[int, str]) -> str:
    others = Ranges.between(0, 255) - values
    if others.count < values.count:
        return f"all but {_names_of(others, known)}" if others else "any"
    if values.count > SHOWN:
        return ", ".join(_plain(pair) for pair in values)
    return ", ".join(known.get(n, str(n)) for n in _numbers(values))


def _plain(pair: Range) -> str:
    low, high = pair
    return str(low) if low == high else f"{low}-{high}"


def _end(cube: Cube, interface: Field, address: Field, kind: Field, names: Names) -> str:
    """One end: zones, addresses, interfaces; empty where nothing is said of it."""
    interfaces, addresses = cube[interface], cube[address]
    says_interface, says_address = interface in cube, address in cube
    texts: list[str] = []
    zone = _zone(interfaces if says_interface else None, addresses if says_address else None, names)
    several = "" if zone or says_address or not says_interface else _zones(interfaces, names)
    if several:
        texts.append(several)
    elif zone is not None:
        of, is_whole = zone
        if says_address and not is_whole:
            texts.append(f"{ranges_in_words(address, addresses, names)} in {of.name}")
        else:
            texts.append(of.name)
    else:
        if says_address:
            texts.append(ranges_in_words(address, addresses, names))
        if says_interface:
            if interfaces == Ranges.of(0):
                texts.append("self")
            else:
                by = ranges_in_words(interface, interfaces, names)
                texts.append(f"by {by}" if texts else f"any by {by}")
    if kind in cube:
        texts.append(_kinds(cube[kind], has_more=bool(texts)))
    return " ".join(text for text in texts if text)


def _kinds(kinds: Ranges, *, has_more: bool) -> str:
    if kinds == Ranges.of(AddressType.LOCAL):
        return "(self)" if has_more else "self"
    known = {int(a): a.name.lower() for a in AddressType}
    if kinds.count <= len(known) and all(n in known for n in _numbers(kinds)):
        text = "/".join(known[n] for n in _numbers(kinds))
        return f"({text} addresses)" if has_more else f"{text} addresses"
    others = UNIVERSE[Field.DADDR_TYPE] - kinds
    text = "/".join(known.get(n, str(n)) for n in _numbers(others))
    return f"(not {text})" if has_more else f"any but {text} addresses"


def _zones(interfaces: Ranges, names: Names) -> str:
    """The zones that have all of some interfaces together, and say no more than that."""
    held = [
        zone
        for zone in names.zones
        if zone.networks is None and zone.interfaces and interfaces.covers(zone.interfaces)
    ]
    together = Ranges.merged(pair for zone in held for pair in zone.interfaces or ())
    return ", ".join(zone.name for zone in held) if together == interfaces else ""


def _zone(
    interfaces: Ranges | None, addresses: Ranges | None, names: Names
) -> tuple[ZoneName, bool] | None:
    """The zone that an end is in, and whether it is the whole of it."""
    for zone in names.zones:
        if zone.interfaces != interfaces:
            continue
        networks = zone.networks
        if networks is None:
            return zone, addresses is None
        if addresses is None:
            continue
        families = (FAMILY_ADDRESSES[4], FAMILY_ADDRESSES[6])
        of_family = [networks & family for family in families]
        if addresses == networks or addresses in of_family:
            return zone, True
        if networks.covers(addresses):
            return zone, False
    return None


# What programs call fields, where people read them in a phrase.
FIELD_NAMES = {
    Field.IIF: "in_interface",
    Field.OIF: "out_interface",
    Field.FAMILY: "family",
    Field.SADDR: "source",
    Field.DADDR: "destination",
    Field.DADDR_TYPE: "destination_type",
    Field.L4PROTO: "protocol",
    Field.SPORT: "source_port",
    Field.DPORT: "port",
    Field.SMAC: "mac",
}


def cube_values(cube: Cube) -> dict[str, list[str]]:
    """The terms of a cube for programs: ranges by the field's name, as the language writes them."""
    return {
        FIELD_NAMES.get(f, f.name.lower()): [_value(f, pair) for pair in values]
        for f, values in cube
    }


def _value(f: Field, pair: Range) -> str:
    low, high = pair
    if low == high and f is Field.L4PROTO:
        return PROTOCOLS.get(low, str(low))
    if low == high and f is Field.DADDR_TYPE and low in set(AddressType):
        return AddressType(low).name.lower()
    return range_in_words(f, pair)


def ranges_in_words(f: Field, values: Ranges, names: Names = NO_NAMES) -> str:
    """The values of a field: a set's name where they are exactly that, else ranges."""
    universe = _universe(f, values)
    others = universe - values
    if name := names.of(values):
        return name
    # What is not of one family in a set may be so of the other.
    if name := names.sets.get(others) if universe == UNIVERSE[f] else names.of(others):
        return f"{_ANY_BUT}{name}"
    if others and len(others) < len(values):
        return f"{_ANY_BUT}{_listed(f, others)}"
    return _listed(f, values)


def _listed(f: Field, values: Ranges) -> str:
    texts = [range_in_words(f, pair) for pair in values.pairs[:SHOWN]]
    more = len(values) - SHOWN
    return ", ".join(texts) + (f" and {more} more" if more > 0 else "")


def _universe(f: Field, values: Ranges) -> Ranges:
    """All values of a field, of addresses those of the family that some are of."""
    if f in ADDRESS_FIELDS and values:
        for family in FAMILY_ADDRESSES.values():
            if family.covers(values):
                return family
    return UNIVERSE[f]


def range_in_words(f: Field, pair: Range) -> str:
    """One range of a field's values, as the language writes it."""
    low, high = pair
    if f in ADDRESS_FIELDS:
        if low == high:
            return format_address(low)
        parts = list(prefixes(low, high)) if (low < 1 << 128) == (high < 1 << 128) else []
        if len(parts) == 1:
            return f"{format_address(low)}/{parts[0][1]}"
        return f"{format_address(low)}-{format_address(high)}"
    if f in (Field.IIF, Field.OIF, Field.CT_HELPER):
        return name_pattern(low, high) or f"{low:#x}-{high:#x}"
    if f is Field.SMAC:
        return "-".join(":".join(f"{b:02x}" for b in n.to_bytes(6, "big")) for n in {low, high})
    return _plain(pair)


_YES_NO = {
    Field.IPSEC: ("that came inside IPsec", "that came outside IPsec"),
    Field.IPSEC_OUT: ("that leaves inside IPsec", "that leaves outside IPsec"),
    Field.REVERSE_PATH: ("by the way back to its source", "not by the way back to its source"),
    Field.SOURCE_ROUTED: ("source-routed", "not source-routed"),
    Field.ANSWER: ("an answer to a question asked lately", "no answer to a question"),
    Field.TO_ASKER: ("to a port that asked lately", "to a port that did not ask"),
    Field.DNATED: ("translated", "not translated"),
    Field.EXPECTED: ("that a helper predicted", "that no helper predicted"),
}


def _rest(cube: Cube, names: Names) -> Iterator[str]:
    """What is asked beside ends, protocols and ports."""
    for f, values in cube:
        if f is Field.CT_STATE:
            yield "/".join(State(n).name.lower() for n in _numbers(values) if n in set(State))
        elif f is Field.CT_HELPER:
            helpers = ranges_in_words(f, values)
            yield "predicted by no helper" if values == Ranges.of(0) else f"predicted by {helpers}"
        elif f is Field.SPORT:
            yield f"source port {ranges_in_words(f, values, names)}"
        elif f is Field.TCP_FLAGS:
            yield f"flags {_flags(values)}"
        elif f is Field.CT_DIRECTION:
            yield "/".join(FlowDirection(n).name.lower() for n in _numbers(values)) + " direction"
        elif f in _YES_NO:
            yield _YES_NO[f][0 if 1 in values else 1]
        elif f is Field.ORIG_DADDR:
            yield f"dialled at {ranges_in_words(f, values, names)}"
        elif f is Field.ORIG_DPORT:
            yield f"dialled at port {ranges_in_words(f, values, names)}"
        elif f in SADDR_TESTS or f in DADDR_TESTS:
            yield _test(f, values, names)
        elif f in _PLAIN:
            yield f"{_PLAIN[f]} {ranges_in_words(f, values, names)}"


_PLAIN = {
    Field.HOP_LIMIT: "hop limit",
    Field.SMAC: "MAC",
    Field.DSCP: "dscp",
    Field.SIZE: "size",
}


def _test(f: Field, values: Ranges, names: Names) -> str:
    is_source = f in SADDR_TESTS
    number = (SADDR_TESTS if is_source else DADDR_TESTS).index(f)
    name = names.tests[number] if number < len(names.tests) else f"set {number}"
    return f"{'source' if is_source else 'destination'} {'' if 1 in values else 'not '}in {name}"


def _flags(values: Ranges) -> str:
    told = flags_test(values)
    if told is None:
        return ranges_in_words(Field.TCP_FLAGS, values)
    mask, flags = told
    return "/".join(name if flags & bit else f"no {name}" for bit, name in FLAGS if mask & bit)


def packet_words(packet: Mapping[Field, int], names: Names = NO_NAMES) -> str:
    """One packet in a phrase: `tcp SYN 203.0.113.7:40000 to 192.0.2.1:22, in by eth0, new`."""
    protocol = packet.get(Field.L4PROTO)
    parts = [PROTOCOLS.get(protocol, f"protocol {protocol}") if protocol is not None else "packet"]
    for f in (Field.ICMP_TYPE, Field.ICMPV6_TYPE):
        if f in packet and protocol == (ICMP if f is Field.ICMP_TYPE else ICMPV6):
            parts.append(ICMP_TYPES[f].get(packet[f], f"type {packet[f]}"))
    if protocol == TCP and Field.TCP_FLAGS in packet:
        flags = [name for bit, name in FLAGS if packet[Field.TCP_FLAGS] & bit]
        parts.append("/".join(flags) or "without flags")
    parts.append(f"{_place(packet, Field.SADDR, Field.SPORT)}")
    if packet.get(Field.SADDR_TYPE) == AddressType.LOCAL and not packet.get(Field.IIF):
        parts.append("(self)")
    parts.append(f"to {_place(packet, Field.DADDR, Field.DPORT)}")
    if packet.get(Field.DADDR_TYPE) == AddressType.LOCAL:
        parts.append("(self)")
    elif packet.get(Field.DADDR_TYPE) in _GROUPS:
        parts.append(f"({AddressType(packet[Field.DADDR_TYPE]).name.lower()})")
    text = " ".join(parts)
    for f, how in ((Field.IIF, "in by"), (Field.OIF, "out by")):
        if packet.get(f):
            text += f", {how} {range_in_words(f, (packet[f], packet[f]))}"
            text += _of_zone(packet, f, names)
    for f in (*SADDR_TESTS, *DADDR_TESTS):
        if packet.get(f) == 1:
            text += f", {_test(f, Ranges.of(1), names)}"
    if packet.get(Field.IPSEC) == 1:
        text += ", out of IPsec"
    if Field.CT_STATE in packet:
        text += f", {State(packet[Field.CT_STATE]).name.lower()}"
    return text


def _place(packet: Mapping[Field, int], address: Field, port: Field) -> str:
    number = packet.get(address)
    text = "any" if number is None else format_address(number)
    if packet.get(Field.L4PROTO) not in (TCP, UDP, 33, 132) or port not in packet:
        return text
    assert port in PORT_FIELDS
    return f"[{text}]:{packet[port]}" if ":" in text else f"{text}:{packet[port]}"


def _of_zone(packet: Mapping[Field, int], interface: Field, names: Names) -> str:
    address = packet.get(Field.SADDR if interface is Field.IIF else Field.DADDR)
    for zone in names.zones:
        if zone.interfaces is not None and packet[interface] not in zone.interfaces:
            continue
        if zone.networks is not None and (address is None or address not in zone.networks):
            continue
        return f" ({zone.name})"
    return ""
