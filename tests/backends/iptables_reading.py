"""Reads iptables and ipset files as the kernel does, and tells what becomes of a packet.

It knows the text alone, and nothing of how the text was made.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from policylang.packets.fields import Field, State
from policylang.packets.values import V6_BASE, name_pattern, parse_one_address

Packet = Mapping[Field, int]

PROTOCOLS = {
    "icmp": 1,
    "tcp": 6,
    "udp": 17,
    "esp": 50,
    "ah": 51,
    "ipv6-icmp": 58,
    "sctp": 132,
    "udplite": 136,
}
MULTIPORT_PROTOCOLS = (6, 17, 33, 132, 136)
IPSET_PROTOCOLS = (6, 17, 132, 136)  # those whose ports ipset reads
IFNAMSIZ = 16

ROUTE_TYPES = {  # RTN_* of linux/rtnetlink.h
    "UNSPEC": 0,
    "UNICAST": 1,
    "LOCAL": 2,
    "BROADCAST": 3,
    "ANYCAST": 4,
    "MULTICAST": 5,
    "BLACKHOLE": 6,
    "UNREACHABLE": 7,
    "PROHIBIT": 8,
    "THROW": 9,
    "NAT": 10,
    "XRESOLVE": 11,
}


# --- ipsets --------------------------------------------------------------------------------------


@dataclass
class IpSet:
    """A set: its type and options, and its elements taken apart at the commas."""

    kind: str
    family: str | None
    elements: list[list[str]] = field(default_factory=list)
    kept_as: str | None = None  # the name of a set that packets fill: the packet says what holds

    def holds(self, packet: Packet, flags: list[str]) -> bool:
        if self.kept_as is not None:
            return _is_kept(self.kept_as, packet, flags)
        if self.kind == "hash:mac":
            assert flags == ["src"] and ["00:00:00:00:00:00"] not in self.elements
            return any(packet.get(Field.SMAC) == _mac(text) for (text,) in self.elements)
        parts = self.kind.partition(":")[2].split(",")
        assert len(parts) == len(flags)
        if self.family is not None:
            assert (self.family == "inet6") == (packet[Field.FAMILY] == 6)
        return any(
            all(map(_element_part, parts, element, flags, [packet] * len(parts)))
            for element in self.elements
        )


def _is_kept(name: str, packet: Packet, flags: list[str]) -> bool:
    """Whether a set that packets fill holds this one: what its fields say, or may not say."""
    match name.removeprefix("policylang-"):
        case "some-v4" | "some-v6":
            assert name.endswith(str(packet[Field.FAMILY]))
            where = Field.SADDR_TEST_0 if flags == ["src"] else Field.DADDR_TEST_0
        case "asked.iface-v4" | "asked.iface-v6":
            assert flags == ["dst", "src"]
            where = Field.ANSWER
        case "asked.port-v4" | "asked.port-v6":
            assert flags == ["dst", "dst"]
            where = Field.ANSWER
        case "asked.by":
            assert flags == ["dst"]
            if packet[Field.L4PROTO] == 6:
                return True  # the port that a question over UDP came from
            where = Field.TO_ASKER
        case other:
            raise AssertionError(other)
    return packet[where] == 1


def _mac(text: str) -> int:
    return int(text.replace(":", ""), 16)


def _element_part(part: str, text: str, flag: str, packet: Packet) -> bool:
    address = packet[Field.SADDR if flag == "src" else Field.DADDR]
    if part == "net":
        network = ip_network(text)
        assert network.prefixlen > 0, "a set of networks cannot hold /0"
        return _ip(address) in network
    if part == "ip":
        return _ip(address) == ip_address(text)
    protocols: tuple[int, ...] = (6, 17)  # all that a bitmap of ports looks into
    if ":" in text:
        name, _, text = text.partition(":")
        protocols = (PROTOCOLS[name],)
        assert set(protocols) <= set(IPSET_PROTOCOLS)
    if packet[Field.L4PROTO] not in protocols:
        return False
    low, _, high = text.partition("-")
    return int(low) <= packet[Field.SPORT if flag == "src" else Field.DPORT] <= int(high or low)


def _ip(number: int) -> object:
    if number >= V6_BASE:
        return ip_address((number - V6_BASE).to_bytes(16, "big"))
    return ip_address(number)


def read_sets(text: str, sets: dict[str, IpSet] | None = None) -> dict[str, IpSet]:
    """The sets that are there after `ipset restore`, where `sets` were there before."""
    sets = {} if sets is None else sets
    for line in text.splitlines():
        words = line.split()
        if not words or line.startswith("#"):
            continue
        command, name, *rest = words
        assert len(name) <= 31
        match command:
            case "create":
                options = dict(zip(rest[1::2], rest[2::2], strict=False))
                made = IpSet(rest[0], options.get("family"))
                if "timeout" in options:
                    made.kept_as = name
                there = sets.setdefault(name, made)
                assert (there.kind, there.family) == (made.kind, made.family)
                assert "-exist" in rest
                if made.kept_as is None and made.kind != "bitmap:port":
                    assert options["maxelem"] == "16777216"
            case "add":
                element = rest[0].split(",")
                assert element not in sets[name].elements
                sets[name].elements.append(element)
            case "flush":
                sets[name].elements.clear()
            case "swap":
                a, b = sets[name], sets[rest[0]]
                assert (a.kind, a.family) == (b.kind, b.family)
                sets[name], sets[rest[0]] = b, a
            case "destroy":
                del sets[name]
            case _:
                raise AssertionError(line)
    return sets


# --- rules ---------------------------------------------------------------------------------------


@dataclass
class Line:
    matches: list[Callable[[Packet], bool]]
    has_guard: bool
    target: str
    goes: bool
    options: list[str]


@dataclass
class Table:
    chains: dict[str, list[Line]]
    jumps: list[tuple[str, str]]  # built-in chain, ours


@dataclass
class Outcome:
    """`verdict` is what ended a packet's way; None where our chains were left.

    It is ACCEPT, DROP, what REJECT says, or a whole target. `logs` are targets that it came by.
    """

    verdict: str | None = None
    logs: list[list[str]] = field(default_factory=list)
    helper: str | None = None


def read_rules(text: str, sets: Mapping[str, IpSet]) -> dict[str, Table]:
    """The tables of a rules file."""
    tables: dict[str, Table] = {}
    table: Table | None = None
    for raw in text.splitlines():
        if not raw or raw.startswith("#"):
            continue
        if raw.startswith("*"):
            assert table is None
            table = tables[raw[1:]] = Table({}, [])
        elif raw == "COMMIT":
            table = None
        elif raw.startswith(":"):
            assert table is not None
            name, policy, counters = raw[1:].split()
            assert (policy, counters) == ("-", "[0:0]")
            assert name.startswith("policylang-") and len(name) <= 28
            assert name not in table.chains
            table.chains[name] = []
        elif raw.startswith("-I "):
            assert table is not None
            _, built_in, position, option, ours = raw.split()
            assert (position, option) == ("1", "-j") and ours in table.chains
            table.jumps.insert(0, (built_in, ours))
        else:
            assert table is not None
            words = shlex.split(raw)
            assert words[0] == "-A"
            table.chains[words[1]].append(_line(words[2:], sets))
    assert table is None
    return tables


def outcome(table: Table, built_in: str, packet: Packet, *, guards_hold: bool = True) -> Outcome:
    """What becomes of a packet that enters a built-in chain."""
    result = Outcome()
    now = dict(packet)  # what targets make of it

    def read(chain: str) -> bool:
        """Whether the packet's way ends here."""
        for line in table.chains[chain]:
            if line.has_guard and not guards_hold:
                continue
            if not all(match(now) for match in line.matches):
                continue
            match line.target:
                case "ACCEPT" | "DROP":
                    result.verdict = line.target
                    return True
                case "REJECT":
                    result.verdict = line.options[1]
                    assert line.options[0] == "--reject-with"
                    return True
                case "RETURN":
                    return False
                case "MASQUERADE" | "SNAT" | "NETMAP":
                    result.verdict = " ".join((line.target, *line.options))
                    return True
                case "DSCP":
                    result.logs.append([line.target, *line.options])
                    now[Field.DSCP] = int(line.options[1])
                case "LOG" | "NFLOG" | "MARK" | "CONNMARK":
                    result.logs.append([line.target, *line.options])
                case "CT":
                    assert line.options[0] == "--helper"
                    result.helper = result.helper or line.options[1]
                case target:
                    if read(target):
                        return True
                    if line.goes:
                        return False
        return False

    for entry, ours in table.jumps:
        if entry == built_in and read(ours):
            break
    return result


def _line(words: list[str], sets: Mapping[str, IpSet]) -> Line:
    matches: list[Callable[[Packet], bool]] = []
    guard = False
    protocol: int | None = None
    loaded: set[str] = set()
    rest = iter(words)
    negated = False
    way = ""
    for word in rest:
        if word == "!":
            negated = True
            continue
        is_not, negated = negated, False
        match word:
            case "-m":
                loaded.add(next(rest))
                continue
            case "--comment":
                assert len(next(rest)) <= 255
                continue
            case (
                "--limit"
                | "--hashlimit-upto"
                | "--limit-burst"
                | "--hashlimit-burst"
                | "--connlimit-upto"
                | "--connlimit-mask"
                | "--uid-owner"
                | "--mark"
                | "--timestart"
                | "--timestop"
                | "--weekdays"
            ):
                guard = True
                next(rest)
                continue
            case "--hashlimit-name" | "--hashlimit-htable-expire":
                next(rest)
                continue
            case "--dir":
                way = next(rest)
                continue
            case "--pol":
                where = {"in": Field.IPSEC, "out": Field.IPSEC_OUT}[way]
                test = _equal(where, ["none", "ipsec"].index(next(rest)))
            case "-j" | "-g":
                target = next(rest)
                options = list(rest)
                if options[:2] == ["--reject-with", "tcp-reset"] or target == "CT":
                    assert protocol is not None, "the kernel wants -p in this line"
                if "--to-ports" in options or any(":" in o and "." in o for o in options[1:]):
                    assert protocol in (6, 17, 33, 132), "iptables wants -p in this line"
                return Line(matches, guard, target, word == "-g", options)
            case "-p":
                value = next(rest)
                protocol = PROTOCOLS[value] if value in PROTOCOLS else int(value)
                assert protocol != 0
                test = _equal(Field.L4PROTO, protocol)
                if is_not:
                    protocol = None
            case "--tcp-flags":
                assert protocol == 6
                test = _flags(_bits(next(rest)), _bits(next(rest)))
            case "--match-set":
                test = _in_set(sets[next(rest)], next(rest).split(","))
            case _:
                value = next(rest)
                test = _test(word, value, protocol, loaded)
        matches.append(_flipped(test, NEEDED.get(word)) if is_not else test)
    raise AssertionError(f"no target: {words}")


# What came without a MAC address, or is of no connection, meets no match of it, turned or not.
NEEDED = {
    "--mac-source": Field.SMAC,
    "--ctorigdst": Field.CT_DIRECTION,
    "--ctorigdstport": Field.CT_DIRECTION,
    "--ctstatus": Field.CT_DIRECTION,
}


def _flipped(test: Callable[[Packet], bool], needed: Field | None) -> Callable[[Packet], bool]:
    return lambda packet: (needed is None or needed in packet) and not test(packet)


def _equal(where: Field, value: int) -> Callable[[Packet], bool]:
    return lambda packet: packet.get(where) == value


FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG")


def _bits(names: str) -> int:
    return sum(1 << FLAGS.index(name) for name in names.split(",") if name != "NONE")


def _flags(mask: int, flags: int) -> Callable[[Packet], bool]:
    return lambda packet: packet[Field.TCP_FLAGS] & mask == flags


def _in_set(ipset: IpSet, flags: list[str]) -> Callable[[Packet], bool]:
    return lambda packet: ipset.holds(packet, flags)


def _test(
    option: str, value: str, protocol: int | None, loaded: set[str]
) -> Callable[[Packet], bool]:
    match option:
        case "-i" | "-o":
            return _interface(Field.IIF if option == "-i" else Field.OIF, value)
        case "-s" | "-d":
            where = Field.SADDR if option == "-s" else Field.DADDR
            base, _, mask = value.partition("/")
            if ":" in mask:
                bits, wanted = (int(ip_address(text)) for text in (mask, base))
                return lambda packet: packet[where] & bits == wanted
            network = ip_network(value)
            return lambda packet: _ip(packet[where]) in network
        case "--src-range" | "--dst-range":
            assert "iprange" in loaded
            low, high = (parse_one_address(part) for part in value.split("-"))
            assert low is not None and high is not None
            where = Field.SADDR if option == "--src-range" else Field.DADDR
            return lambda packet: low <= packet[where] <= high
        case "--sport" | "--dport":
            assert protocol in (6, 17, 132) or (protocol == 33 and "dccp" in loaded)
            return _ports(Field.SPORT if option == "--sport" else Field.DPORT, [value])
        case "--sports" | "--dports":
            assert protocol in MULTIPORT_PROTOCOLS and "multiport" in loaded
            parts = value.split(",")
            assert sum(1 + (":" in part) for part in parts) <= 15
            return _ports(Field.SPORT if option == "--sports" else Field.DPORT, parts)
        case "--icmp-type":
            assert protocol == 1
            if int(value) == 255:  # xt_icmp: any type
                return lambda packet: True
            return _equal(Field.ICMP_TYPE, int(value))
        case "--icmpv6-type":
            assert protocol == 58
            return _equal(Field.ICMPV6_TYPE, int(value))
        case "--u32" if "&&" in value or value.startswith(("20&", "36&")):
            tests = [re.fullmatch(r"(\d+)&(\w+)=(\w+)", word) for word in value.split(" && ")]
            words = [[int(n, 0) for n in test.groups()] for test in tests if test is not None]
            assert len(words) == len(tests)
            return lambda packet: all(_word(packet, at) & bits == n for at, bits, n in words)
        case "--u32":
            location, _, numbers = value.partition("=")
            where = {"6&0xFF": Field.L4PROTO, "0>>22&0x3C@0>>24": Field.ICMP_TYPE}[location]
            assert len(numbers.split(",")) <= 10
            return _ports(where, numbers.split(","))
        case "--ctdir":
            return _equal(Field.CT_DIRECTION, ["ORIGINAL", "REPLY"].index(value))
        case "--mac-source":
            return _equal(Field.SMAC, _mac(value))
        case "--dscp":
            return _equal(Field.DSCP, int(value))
        case "--length":
            return _ports(Field.SIZE, [value])
        case "--ctstate" if value == "DNAT":
            return _equal(Field.DNATED, 1)
        case "--ctstatus":
            assert value == "EXPECTED"
            return _equal(Field.EXPECTED, 1)
        case "--ctorigdst":
            network = ip_network(value)
            return lambda packet: (
                Field.ORIG_DADDR in packet and _ip(packet[Field.ORIG_DADDR]) in network
            )
        case "--ctorigdstport":
            return _ports(Field.ORIG_DPORT, [value])
        case "--ctstate":
            states = {State[name] for name in value.split(",")}
            return lambda packet: packet.get(Field.CT_STATE) in states
        case "--helper":
            return lambda packet: (
                Field.CT_HELPER in packet
                and (value in ("", name_pattern(*[packet[Field.CT_HELPER]] * 2)))
            )
        case "--hl-eq":
            return lambda packet: packet[Field.HOP_LIMIT] == int(value)
        case "--hl-lt":
            return lambda packet: packet[Field.HOP_LIMIT] < int(value)
        case "--hl-gt":
            return lambda packet: packet[Field.HOP_LIMIT] > int(value)
        case "--src-type" | "--dst-type":
            types = {ROUTE_TYPES[name] for name in value.split(",")}
            where = Field.SADDR_TYPE if option == "--src-type" else Field.DADDR_TYPE
            return lambda packet: _has_type(packet, where, types)
    raise AssertionError(option)


def _interface(where: Field, value: str) -> Callable[[Packet], bool]:
    assert len(value) < IFNAMSIZ
    stem = value.removesuffix("+")

    def test(packet: Packet) -> bool:
        name = name_pattern(*[packet[where]] * 2) if where in packet else ""
        assert name is not None
        return name.startswith(stem) if stem != value else name == value

    return test


def _ports(where: Field, parts: list[str]) -> Callable[[Packet], bool]:
    ranges = [
        tuple(map(int, (part if ":" in part else f"{part}:{part}").split(":"))) for part in parts
    ]
    return lambda packet: where in packet and any(a <= packet[where] <= b for a, b in ranges)


def _word(packet: Packet, at: int) -> int:
    """Four bytes of an IPv6 header, among those of the addresses."""
    where, start = (Field.SADDR, 8) if at < 24 else (Field.DADDR, 24)
    return packet[where] >> 8 * (12 - (at - start)) & 0xFFFF_FFFF


def _has_type(packet: Packet, where: Field, types: set[int]) -> bool:
    """xt_addrtype: match_type4 and match_type6 of net/netfilter/xt_addrtype.c."""
    number = packet[where]
    if packet[Field.FAMILY] == 4:
        return number in types
    assert not types & {3, 6, 8}, "the kernel refuses these for IPv6"
    if 5 in types and number != 5:
        return False
    if 1 in types and number in (0, 5):
        return False
    if 0 in types and number != 0:
        return False
    route = {n for n in types if n in (2, 4, 7)}
    return not route or (7 if number in (6, 7, 8) else number) in route


def jumps(table: Table) -> Iterator[str]:
    """The chains that lines of a table lead to."""
    for lines in table.chains.values():
        for line in lines:
            if line.target.startswith("policylang-"):
                yield line.target
    yield from (ours for _, ours in table.jumps)
