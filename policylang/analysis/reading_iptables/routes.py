"""What the routing table says: `-m addrtype` and `-m rpfilter`."""

from __future__ import annotations

from policylang.analysis.reading_iptables.asking import (
    Asked,
    NotUnderstoodError,
    all_of,
    of,
    turned,
)
from policylang.analysis.reading_iptables.options import Match
from policylang.packets.fields import ADDRESS_TYPES, Field
from policylang.packets.values import Ranges

# RTN_* of linux/rtnetlink.h, as xt_addrtype counts and calls them.
TYPES = {
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
UNSPEC, UNICAST, LOCAL, ANYCAST, MULTICAST, UNREACHABLE = 0, 1, 2, 4, 5, 7
# What the kernel takes for IPv6 (addrtype_mt_checkentry_v1 of xt_addrtype.c).
TYPES_V6 = {UNSPEC, UNICAST, LOCAL, ANYCAST, MULTICAST, UNREACHABLE}
REFUSED = (6, 7, 8)  # blackhole, unreachable, prohibit: one for IPv6

OPTIONS = {"src-type": Field.SADDR_TYPE, "dst-type": Field.DADDR_TYPE}


def address_types(match: Match, family: int) -> Asked:
    """The types of addresses, as the routes of all interfaces together tell them."""
    parts: list[Asked] = []
    for option in match.options:
        field = OPTIONS.get(option.name)
        if field is None:  # of the routes of one interface
            raise NotUnderstoodError(match.text)
        names = option.words[0].upper().split(",")
        if not set(names) <= set(TYPES):
            raise NotUnderstoodError(option.text)
        types = {TYPES[name] for name in names}
        if family == 4:
            values = Ranges.of(*types)
        elif types <= TYPES_V6:
            values = Ranges.of(*(n for n in TYPES.values() if _is_v6_type(n, types)))
        else:
            raise NotUnderstoodError(option.text)
        parts.append(of(field, turned(values & ADDRESS_TYPES, field, negated=option.negated)))
    if not parts:
        raise NotUnderstoodError(match.text)
    return all_of(parts)


def _is_v6_type(number: int, types: set[int]) -> bool:
    """match_type6 of xt_addrtype.c: of a list with several kinds all must hold.

    MULTICAST, UNSPEC and UNICAST are asked of the address; the last holds for each that is neither
    of the others, whatever its route.
    """
    if MULTICAST in types and number != MULTICAST:
        return False
    if UNICAST in types and number in (UNSPEC, MULTICAST):
        return False
    if UNSPEC in types and number != UNSPEC:
        return False
    of_route = types & {LOCAL, ANYCAST, UNREACHABLE}
    return not of_route or (UNREACHABLE if number in REFUSED else number) in of_route


def reverse_path(match: Match) -> Asked:
    """Whether the route back leaves by the interface a packet came by; other routes are unknown."""
    names = {option.name for option in match.options}
    if names - {"invert"} or any(option.negated for option in match.options):
        raise NotUnderstoodError(match.text)
    return of(Field.REVERSE_PATH, Ranges.of(0 if names else 1))
