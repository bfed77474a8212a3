"""A line that the kernel logged, taken apart, and which rule of a machine logged it.

It reads what nf_log_syslog writes (net/netfilter/nf_log_syslog.c), as dmesg, the journal or ulogd
hand it on. What a log does not tell (the state of the connection, what is in sets) it finds by
trying which of it leads to a rule that logs so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from policylang.analysis.machine import (
    ConnectionsHold,
    InSet,
    Line,
    Machine,
    Question,
    RateHolds,
)
from policylang.analysis.walking import Moment, Walk, walk
from policylang.ir import actions as ir
from policylang.ir.ruleset import AddressTest, DynamicSet, ListedSet
from policylang.lower.paths import multicast
from policylang.packets.cube import Cube
from policylang.packets.fields import (
    DCCP,
    ICMP,
    ICMPV6,
    SCTP,
    TCP,
    UDP,
    AddressType,
    Field,
    State,
)
from policylang.packets.values import V6_BASE, name_range, parse_one_address

NOBODY = 0  # the name of no interface

# What dump_ipv4_packet and dump_ipv6_packet call protocols; others are told by their number.
PROTOCOLS = {
    "TCP": TCP,
    "UDP": UDP,
    "UDPLITE": 136,
    "ICMP": ICMP,
    "ICMPv6": ICMPV6,
    "AH": 51,
    "ESP": 50,
    "SCTP": SCTP,
    "DCCP": DCCP,
    "IGMP": 2,
}
FLAGS = {
    **{"FIN": 0x01, "SYN": 0x02, "RST": 0x04, "PSH": 0x08, "ACK": 0x10, "URG": 0x20},
    **{"ECE": 0x40, "CWR": 0x80},
}

_IN = re.compile(r"\bIN=")
_INNER = re.compile(r"\[[^\]]*SRC=[^\]]*\] ?")  # the packet that an ICMP error is about
_PAIR = re.compile(r"(?:^| )([A-Z][A-Z0-9]*)=(\S*)")
_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
_DECIMAL = re.compile(r"[0-9]{1,5}")
_OCTET = re.compile(r"0x([0-9a-fA-F]{1,2})")
_EVERYBODY = 0xFFFFFFFF  # 255.255.255.255 (RFC 919)
_TO_EVERYBODY = "ff:ff:ff:ff:ff:ff"  # what a broadcast of IPv4 is sent to

# States in the order in which rules are most likely to log them.
_STATES = (State.NEW, State.RELATED, State.INVALID, State.UNTRACKED, State.ESTABLISHED)


@dataclass(frozen=True, slots=True)
class Logged:
    """A packet as it was logged. `head` is all that stood before it: a time, a host, the prefix."""

    head: str
    packet: Mapping[Field, int]

    def begins_with(self, prefix: str) -> bool:
        """Whether the packet was logged with a prefix, as far as the line shows."""
        wanted = prefix.strip()
        return self.head.rstrip().endswith(wanted) if wanted else True


@dataclass(frozen=True, slots=True)
class Traced:
    """The rule that logged a packet, and the packet's whole way, where both can be told.

    `lines` are the rules that log with such a prefix; one of them, where `walk` is None.
    """

    lines: tuple[Line, ...]
    walk: Walk | None = None
    state: State | None = None


def read_log(text: str) -> Logged | None:
    """The packet that a line of the kernel's log tells of; None of any other text."""
    start = _IN.search(text)
    if start is None:
        return None
    head, rest = text[: start.start()], _INNER.sub("", text[start.start() :])
    pairs: dict[str, str] = {}
    for name, value in _PAIR.findall(f" {rest}"):
        pairs.setdefault(name, value)
    source, destination = (parse_one_address(pairs.get(end, "")) for end in ("SRC", "DST"))
    if source is None or destination is None:
        return None
    if (source < V6_BASE) != (destination < V6_BASE):
        return None
    packet: dict[Field, int] = {
        Field.IIF: _interface(pairs.get("IN", "")),
        Field.OIF: _interface(pairs.get("OUT", "")),
        Field.FAMILY: 6 if source >= V6_BASE else 4,
        Field.SADDR: source,
        Field.DADDR: destination,
    }
    packet |= _numbers(pairs)
    if packet.get(Field.L4PROTO) == TCP:
        words = set(rest.split())
        packet[Field.TCP_FLAGS] = sum(bit for name, bit in FLAGS.items() if name in words)
    if (mac := _source_mac(pairs.get("MAC", ""))) is not None:
        packet[Field.SMAC] = mac
    is_arriving = packet[Field.OIF] == NOBODY and packet[Field.IIF] != NOBODY
    kind = _group(destination, pairs.get("MAC", ""))
    if kind is not None or is_arriving:
        packet[Field.DADDR_TYPE] = AddressType.LOCAL if kind is None else kind
    if packet[Field.IIF] == NOBODY:
        packet[Field.SADDR_TYPE] = AddressType.LOCAL
    return Logged(head, packet)


def _interface(name: str) -> int:
    return name_range(name)[0] if name and len(name.encode()) < 16 else NOBODY


def _group(destination: int, mac: str) -> AddressType | None:
    """The kind of a destination that is no single machine's; None where it is, or is not told."""
    if destination in multicast():
        return AddressType.MULTICAST
    if destination == _EVERYBODY or (destination < V6_BASE and mac.startswith(_TO_EVERYBODY)):
        return AddressType.BROADCAST
    return None


def _numbers(pairs: Mapping[str, str]) -> dict[Field, int]:
    """What is told in numbers; a line may be cut off anywhere, so what is none is left out."""
    found: dict[Field, int] = {}
    name = pairs.get("PROTO", "")
    protocol = PROTOCOLS.get(name, _number(name, 255))
    if protocol is not None:
        found[Field.L4PROTO] = protocol
    words = {"SPT": Field.SPORT, "DPT": Field.DPORT, "LEN": Field.SIZE}
    kinds = {ICMP: Field.ICMP_TYPE, ICMPV6: Field.ICMPV6_TYPE}
    if protocol in kinds:
        words["TYPE"] = kinds[protocol]
    for word, f in (*words.items(), ("HOPLIMIT", Field.HOP_LIMIT)):
        most = 255 if word in ("TYPE", "HOPLIMIT") else 65_535
        if (number := _number(pairs.get(word, ""), most)) is not None:
            found[f] = number
    octets = [_OCTET.fullmatch(pairs.get(word, "0x00")) for word in ("TOS", "PREC")]
    if "TOS" in pairs and all(octets):
        tos = sum(int(octet[1], 16) for octet in octets if octet is not None)
        found[Field.DSCP] = tos >> 2 & 63
    elif (traffic_class := _number(pairs.get("TC", ""), 255)) is not None:
        found[Field.DSCP] = traffic_class >> 2
    return found


def _number(text: str, most: int) -> int | None:
    number = int(text) if _DECIMAL.fullmatch(text) else most + 1
    return number if number <= most else None


def _source_mac(text: str) -> int | None:
    """The sender's address: of destination, source and type, which stand together."""
    octets = text.lower().split(":")
    source = ":".join(octets[6:12])
    return int(source.replace(":", ""), 16) if _MAC.fullmatch(source) else None


# --- who logged it ----------------------------------------------------------------------------


def logging_lines(machine: Machine) -> Iterator[Line]:
    """All lines of a machine that log."""
    for chain in machine.chains.values():
        for line in chain:
            if isinstance(line.act, ir.Log):
                yield line


def traced(
    logged: Logged, machine: Machine, address_tests: tuple[AddressTest, ...] = ()
) -> Traced | None:
    """Which line of a machine logged a packet, and what became of it; None where none did.

    Where several prefixes fit, the longest was meant.
    """
    fitting = [
        line
        for line in logging_lines(machine)
        if isinstance(line.act, ir.Log) and logged.begins_with(line.act.prefix)
    ]
    if not fitting:
        return None
    longest = max(len(_prefix(line)) for line in fitting)
    lines = tuple(line for line in fitting if len(_prefix(line)) == longest)
    wanted = {id(line) for line in lines}
    for packet, answers, moment in _guesses(logged, machine, lines, address_tests):
        found = walk(machine, packet, answers, moment, address_tests)
        met = [one.line for one in found.met if id(one.line) in wanted]
        if met:
            return Traced((met[0],), found, State(packet[Field.CT_STATE]))
    return Traced(lines)


def _prefix(line: Line) -> str:
    assert isinstance(line.act, ir.Log)
    return line.act.prefix.strip()


Guess = tuple[dict[Field, int], dict[Question, bool], Moment]


def _guesses(
    logged: Logged,
    machine: Machine,
    lines: tuple[Line, ...],
    address_tests: tuple[AddressTest, ...],
) -> Iterator[Guess]:
    """What the packet may have been, and what held then, the likeliest first.

    Either all rates were kept to, or none but those within which the lines log.
    """
    members = _members(logged.packet, machine, address_tests)
    ways = [dict(logged.packet), *_sent_elsewhere(logged.packet, machine)]
    own = {c.question for line in lines for c in line.conditions}
    kept_to: dict[Question, bool] = {}
    over: dict[Question, bool] = {
        q: q in own for q in _asked(machine) if isinstance(q, RateHolds | ConnectionsHold)
    }
    for way, state, answers, is_member in product(ways, _STATES, (kept_to, over), (False, True)):
        moment = Moment(members=members if is_member else {})
        yield {**way, Field.CT_STATE: state}, answers, moment


def _asked(machine: Machine) -> Iterator[Question]:
    for chain in machine.chains.values():
        for line in chain:
            for condition in line.conditions:
                yield condition.question


def _sent_elsewhere(packet: Mapping[Field, int], machine: Machine) -> Iterator[dict[Field, int]]:
    """The packet as one that came by a translation to where it is going now."""
    for chain in machine.chains.values():
        for line in chain:
            if not isinstance(line.act, ir.DestinationNat | ir.RedirectToSelf):
                continue
            if isinstance(line.act, ir.DestinationNat) and (
                packet[Field.DADDR] not in line.act.targets
            ):
                continue
            for cube in line.cubes:
                yield {**packet, **_dialled(cube), Field.DNATED: 1}


def _dialled(cube: Cube) -> dict[Field, int]:
    pairs = ((Field.DADDR, Field.ORIG_DADDR), (Field.DPORT, Field.ORIG_DPORT))
    return {to: cube[f].pairs[0][0] for f, to in pairs if f in cube}


def _members(
    packet: Mapping[Field, int], machine: Machine, address_tests: tuple[AddressTest, ...]
) -> dict[str, frozenset[tuple[int, ...]]]:
    """Sets that hold whatever of the packet is asked to be in them."""
    found: dict[str, set[tuple[int, ...]]] = {}
    for question in _asked(machine):
        if isinstance(question, InSet):
            key = tuple(packet.get(f, -1) for f in question.fields)
            found.setdefault(question.name, set()).add(key)
    for test in address_tests:
        if isinstance(test, DynamicSet | ListedSet):
            name = test.name if isinstance(test, DynamicSet) else test.source.name
            both = {(packet[Field.SADDR],), (packet[Field.DADDR],)}
            found.setdefault(name, set()).update(both)
    return {name: frozenset(keys) for name, keys in found.items()}
