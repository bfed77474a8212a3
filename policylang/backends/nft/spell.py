"""How nft says the fields and values of a match; knows neither chains nor sets of its own."""

from __future__ import annotations

from collections.abc import Mapping

from policylang.backends.names import NameMatch, name_matches
from policylang.packets.fields import (
    ADDRESS_FIELDS,
    DADDR_TESTS,
    DCCP,
    ICMPV6,
    SADDR_TESTS,
    SCTP,
    TCP,
    UDP,
    AddressType,
    Field,
    FlowDirection,
    State,
    flags_test,
)
from policylang.packets.values import Range, Ranges, format_address, name_pattern, prefixes

# Words of nft's own grammar: the others it would look up in /etc/protocols of the machine.
PROTOCOL_WORDS = {
    1: "icmp",
    2: "igmp",
    TCP: "tcp",
    UDP: "udp",
    DCCP: "dccp",
    47: "gre",
    50: "esp",
    51: "ah",
    ICMPV6: "icmpv6",
    108: "comp",
    SCTP: "sctp",
    136: "udplite",
}
PORTED_WORDS = {TCP: "tcp", UDP: "udp", DCCP: "dccp", SCTP: "sctp"}
STATE_WORDS = {
    State.NEW: "new",
    State.ESTABLISHED: "established",
    State.RELATED: "related",
    State.INVALID: "invalid",
    State.UNTRACKED: "untracked",
}
ADDRESS_TYPE_WORDS = {
    AddressType.UNICAST: "unicast",
    AddressType.LOCAL: "local",
    AddressType.BROADCAST: "broadcast",
    AddressType.ANYCAST: "anycast",
    AddressType.MULTICAST: "multicast",
}
ICMP_WORDS = {
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
    15: "info-request",
    16: "info-reply",
    17: "address-mask-request",
    18: "address-mask-reply",
}
ICMPV6_WORDS = {
    1: "destination-unreachable",
    2: "packet-too-big",
    3: "time-exceeded",
    4: "parameter-problem",
    128: "echo-request",
    129: "echo-reply",
    130: "mld-listener-query",
    131: "mld-listener-report",
    132: "mld-listener-done",
    133: "nd-router-solicit",
    134: "nd-router-advert",
    135: "nd-neighbor-solicit",
    136: "nd-neighbor-advert",
    137: "nd-redirect",
    138: "router-renumbering",
    143: "mld2-listener-report",
}
FAMILY_WORDS = {4: "ipv4", 6: "ipv6"}
# RFC 2474 section 4.2.2, RFC 2597 section 6, RFC 3246: the names that nft 1.0.6 knows.
DSCP_WORDS = {
    **{8 * n: f"cs{n}" for n in range(8)},
    **{8 * n + 2 * drop: f"af{n}{drop}" for n in range(1, 5) for drop in range(1, 4)},
    46: "ef",
}
DIRECTION_WORDS = {FlowDirection.ORIGINAL: "original", FlowDirection.REPLY: "reply"}

WORDS: dict[Field, Mapping[int, str]] = {
    Field.L4PROTO: PROTOCOL_WORDS,
    Field.ICMP_TYPE: ICMP_WORDS,
    Field.ICMPV6_TYPE: ICMPV6_WORDS,
    Field.CT_STATE: {int(state): word for state, word in STATE_WORDS.items()},
    Field.CT_DIRECTION: {int(way): word for way, word in DIRECTION_WORDS.items()},
    Field.DADDR_TYPE: {int(kind): word for kind, word in ADDRESS_TYPE_WORDS.items()},
    Field.SADDR_TYPE: {int(kind): word for kind, word in ADDRESS_TYPE_WORDS.items()},
    Field.DSCP: DSCP_WORDS,
    Field.FAMILY: FAMILY_WORDS,
}

TCP_FLAG_WORDS = ("fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr")
FEW_NAMED = 8  # values with names (ICMP types, DSCP) up to so many are said one by one

NAMED_ONE_BY_ONE = (Field.ICMP_TYPE, Field.ICMPV6_TYPE, Field.DSCP)
WITHOUT_RANGES = (Field.CT_STATE, Field.DADDR_TYPE, Field.SADDR_TYPE, Field.FAMILY)
HEADERS = {4: "ip", 6: "ip6"}  # what addresses and DSCP are read from
FLAGS = (
    *(Field.IPSEC, Field.IPSEC_OUT, Field.REVERSE_PATH, Field.SOURCE_ROUTED),
    *(Field.DNATED, Field.EXPECTED),
)
ADDRESS_TESTS: dict[Field, tuple[str, int]] = {  # the address, and the number of the test
    **{f: ("saddr", n) for n, f in enumerate(SADDR_TESTS)},
    **{f: ("daddr", n) for n, f in enumerate(DADDR_TESTS)},
}

# The types of fields in named sets and maps.
TYPES = {
    Field.IIF: "ifname",
    Field.OIF: "ifname",
    Field.L4PROTO: "inet_proto",
    Field.SPORT: "inet_service",
    Field.DPORT: "inet_service",
    Field.ORIG_DPORT: "inet_service",
    Field.ICMP_TYPE: "icmp_type",
    Field.ICMPV6_TYPE: "icmpv6_type",
    Field.SMAC: "ether_addr",
}


class InexpressibleError(ValueError):
    """What nft has no words for, said so that it goes on from "nft cannot"; `help` mends it."""

    def __init__(self, what: str, help: str | None = None) -> None:
        super().__init__(what)
        self.help = help


def selector(field: Field, family: int, protocols: Ranges) -> str:
    """The expression that yields a field; `family` for addresses, `protocols` for ports.

    Fields that a packet has or has not are no expressions (AssertionError).
    """
    ip = HEADERS[4 if family == 4 else 6]
    match field:
        case Field.IIF:
            return "iifname"
        case Field.OIF:
            return "oifname"
        case Field.SADDR:
            return f"{ip} saddr"
        case Field.DADDR:
            return f"{ip} daddr"
        case Field.ORIG_DADDR:
            return f"ct original {ip} daddr"
        case Field.ORIG_DPORT:
            return "ct original proto-dst"  # nft reads its values once it knows the protocol
        case Field.DADDR_TYPE:
            return "fib daddr type"
        case Field.L4PROTO:
            return "meta l4proto"
        case Field.SPORT | Field.DPORT:
            single = protocols.single
            return f"{'th' if single is None else PORTED_WORDS[single]} {field.name.lower()}"
        case Field.ICMP_TYPE:
            return "icmp type"
        case Field.ICMPV6_TYPE:
            return "icmpv6 type"
        case Field.HOP_LIMIT:
            return "ip6 hoplimit"
        case Field.CT_STATE:
            return "ct state"
        case Field.CT_HELPER:
            return "ct helper"
        case Field.FAMILY:
            return "meta nfproto"
        case Field.TCP_FLAGS:
            return "tcp flags"
        case Field.CT_DIRECTION:
            return "ct direction"
        case Field.SMAC:
            return "ether saddr"
        case Field.DSCP:
            return f"{ip} dscp"
        case Field.SIZE:
            return "meta length"
        case Field.SADDR_TYPE:
            return "fib saddr type"
        case _:
            raise AssertionError(f"{field.name} is no expression with values")


def flag(field: Field, family: int, holds: bool, has_connection: bool) -> list[str]:
    """The disjoint tests, one a line, of a field that a packet has (1) or not (0).

    `family` is 4 or 6 where the field is SOURCE_ROUTED; `has_connection` says that all packets
    that are asked belong to one.
    """
    exists = "exists" if holds else "missing"
    match field:
        case Field.IPSEC:
            return [f"meta ipsec {exists}"]
        case Field.IPSEC_OUT:
            return [f"rt ipsec {exists}"]
        case Field.DNATED:
            return _status("dnat", holds, has_connection)
        case Field.EXPECTED:
            return _status("expected", holds, has_connection)
        case Field.REVERSE_PATH:
            return [f"fib saddr . iif oif {exists}"]
        case Field.SOURCE_ROUTED if family == 6:
            return [f"exthdr rt {exists}"]
        case Field.SOURCE_ROUTED:
            return _source_routed() if holds else _not_source_routed()
        case _:
            raise AssertionError(f"{field.name} is more than there or not")


def _status(word: str, holds: bool, has_connection: bool) -> list[str]:
    """A packet without a connection has no status, and so fails every test of it."""
    if holds:
        return [f"ct status {word}"]
    without = [] if has_connection else ["ct state invalid,untracked"]
    return [f"ct status & {word} == 0", *without]


# The first four bytes of IPv4 options that start with a source route (RFC 791 section 3.1: loose
# 131, strict 137), up to three no-operations before it. `ip option` alone finds none of which a
# hop is used up: ipv4_find_option reads options as those of a packet that is sent, where the
# pointer must be 4.
STARTS_WITH_ROUTE = "@nh,160,32 {}{{ " + ", ".join(
    f"{start}{kind}{'0' * zeros}-{start}{kind}{'f' * zeros}" if zeros else f"{start}{kind}"
    for start, zeros in (("0x", 6), ("0x01", 4), ("0x0101", 2), ("0x010101", 0))
    for kind in ("83", "89")
) + " }}"  # fmt: skip
HAS_OPTIONS = "ip hdrlength > 5"  # words of four bytes
NO_LOOSE, NO_STRICT = "ip option lsrr missing", "ip option ssrr missing"


def _source_routed() -> list[str]:
    starts, otherwise = STARTS_WITH_ROUTE.format(""), STARTS_WITH_ROUTE.format("!= ")
    return [
        f"{HAS_OPTIONS} {starts}",
        f"{HAS_OPTIONS} {otherwise} ip option lsrr exists",
        f"{HAS_OPTIONS} {otherwise} {NO_LOOSE} ip option ssrr exists",
    ]


def _not_source_routed() -> list[str]:
    otherwise = STARTS_WITH_ROUTE.format("!= ")
    return ["ip hdrlength 5", f"{HAS_OPTIONS} {otherwise} {NO_LOOSE} {NO_STRICT}"]


def value(field: Field, pair: Range) -> str:
    """One range of a field's values; raises InexpressibleError for names that no pattern fits."""
    low, high = pair
    if field in ADDRESS_FIELDS:
        return _address(low, high)
    if field in (Field.IIF, Field.OIF, Field.CT_HELPER):
        pattern = name_pattern(low, high)
        if pattern is None:
            raise InexpressibleError("match interface names between two others")
        return f'"{pattern}"'
    if field is Field.SMAC:
        return "-".join(mac(n) for n in ((low,) if low == high else (low, high)))
    words: Mapping[int, str] = WORDS.get(field, {})
    if low == high:
        return words.get(low, str(low))
    return f"{low}-{high}"


def mac(number: int) -> str:
    """The usual text of an Ethernet address."""
    return number.to_bytes(6, "big").hex(":")


def _address(low: int, high: int) -> str:
    if low == high:
        return format_address(low)
    size = high - low + 1
    if size & (size - 1) == 0 and low % size == 0:
        address, prefix_len = next(prefixes(low, high))
        return f"{format_address(address)}/{prefix_len}"
    return f"{format_address(low)}-{format_address(high)}"


def each_value(field: Field, values: Ranges) -> Ranges:
    """Values that have words of their own, such as states and ICMP types, taken apart."""
    few = field in NAMED_ONE_BY_ONE and values.count <= FEW_NAMED
    # nft 1.1.3 shifts IPv6's code point before it looks it up among ranges, and finds another.
    points = field is Field.DSCP and len(values) > 1
    if few or points or field in WITHOUT_RANGES:
        return Ranges(tuple((n, n) for low, high in values for n in range(low, high + 1)))
    return values


def braces(items: list[str]) -> str:
    return items[0] if len(items) == 1 else "{ " + ", ".join(items) + " }"


def names(field: Field, values: Ranges, is_behind_routing: bool = False) -> list[str]:
    """The matches, one for each line that it takes, for a set of interface names.

    Behind routing this host's own packets came by an interface with an empty name, which is none
    of those that are barred: what only bars some asks for an interface as well.
    """
    matches = name_matches(values)
    if matches is None:
        raise InexpressibleError("match interface names where wildcards take away from each other")
    if field is Field.OIF:
        return [_name_match("oifname", match) for match in matches]
    a_way_in = " iif != 0" if is_behind_routing else ""
    return [_name_match("iifname", m) + ("" if m.among else a_way_in) for m in matches]


def tcp_flags(values: Ranges) -> str:
    """The test of flags by a mask."""
    test = flags_test(values)
    if test is None:
        raise InexpressibleError("match sets of TCP flags that are no mask and value")
    mask, flags = (_flag_names(bits) for bits in test)
    return f"tcp flags & {mask} == {flags}"


def _flag_names(bits: int) -> str:
    names = [name for position, name in enumerate(TCP_FLAG_WORDS) if bits >> position & 1]
    return f"({' | '.join(names)})" if len(names) > 1 else names[0] if names else "0x0"


def _name_match(word: str, match: NameMatch) -> str:
    parts: list[str] = []
    for operator, patterns in (("", match.among), ("!= ", match.barring)):
        if patterns:
            quoted = [f'"{pattern}"' for pattern in patterns]
            parts.append(f"{word} {operator}{braces(quoted)}")
    return " ".join(parts)
