"""How nft says the fields and values of a match; knows neither chains nor sets of its own."""

from __future__ import annotations

from collections.abc import Mapping

from policylang.backends.names import NameMatch, name_matches
from policylang.packets.fields import (
    ADDRESS_FIELDS,
    DCCP,
    ICMPV6,
    SCTP,
    TCP,
    UDP,
    AddressType,
    Field,
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

WORDS: dict[Field, Mapping[int, str]] = {
    Field.L4PROTO: PROTOCOL_WORDS,
    Field.ICMP_TYPE: ICMP_WORDS,
    Field.ICMPV6_TYPE: ICMPV6_WORDS,
    Field.CT_STATE: {int(state): word for state, word in STATE_WORDS.items()},
    Field.DADDR_TYPE: {int(kind): word for kind, word in ADDRESS_TYPE_WORDS.items()},
    Field.FAMILY: FAMILY_WORDS,
}

TCP_FLAG_WORDS = ("fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr")
FEW_TYPES = 8  # ICMP types up to so many are said one by one, by name

# The types of fields in named sets and maps.
TYPES = {
    Field.IIF: "ifname",
    Field.OIF: "ifname",
    Field.L4PROTO: "inet_proto",
    Field.SPORT: "inet_service",
    Field.DPORT: "inet_service",
    Field.ICMP_TYPE: "icmp_type",
    Field.ICMPV6_TYPE: "icmpv6_type",
}


class InexpressibleError(ValueError):
    """A set of values that nft has no words for."""


def selector(field: Field, family: int, protocols: Ranges) -> str:
    """The expression that yields a field; `family` for addresses, `protocols` for ports."""
    ip = "ip" if family == 4 else "ip6"
    match field:
        case Field.IIF:
            return "iifname"
        case Field.OIF:
            return "oifname"
        case Field.SADDR:
            return f"{ip} saddr"
        case Field.DADDR:
            return f"{ip} daddr"
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


def value(field: Field, pair: Range) -> str:
    """One range of a field's values; raises InexpressibleError for names that no pattern fits."""
    low, high = pair
    if field in ADDRESS_FIELDS:
        return _address(low, high)
    if field in (Field.IIF, Field.OIF, Field.CT_HELPER):
        pattern = name_pattern(low, high)
        if pattern is None:
            raise InexpressibleError("interface names between two others")
        return f'"{pattern}"'
    words: Mapping[int, str] = WORDS.get(field, {})
    if low == high:
        return words.get(low, str(low))
    return f"{low}-{high}"


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
    few = field in (Field.ICMP_TYPE, Field.ICMPV6_TYPE) and values.count <= FEW_TYPES
    if few or field in (Field.CT_STATE, Field.DADDR_TYPE, Field.FAMILY):
        return Ranges(tuple((n, n) for low, high in values for n in range(low, high + 1)))
    return values


def braces(items: list[str]) -> str:
    return items[0] if len(items) == 1 else "{ " + ", ".join(items) + " }"


def names(field: Field, values: Ranges) -> list[str]:
    """The matches, one for each line that it takes, for a set of interface names."""
    matches = name_matches(values)
    if matches is None:
        raise InexpressibleError("interface names where wildcards take away from each other")
    return [_name_match("iifname" if field is Field.IIF else "oifname", m) for m in matches]


def tcp_flags(values: Ranges) -> str:
    """The test of flags by a mask."""
    test = flags_test(values)
    if test is None:
        raise InexpressibleError("sets of TCP flags that are no mask and value")
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
