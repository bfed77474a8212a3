"""Spells what the routing table says of addresses."""

from __future__ import annotations

from policylang.backends.iptables.sieve import InexpressibleError, Sieve
from policylang.packets.fields import AddressType, Field
from policylang.packets.values import Ranges

OPTIONS = {Field.SADDR_TYPE: "--src-type", Field.DADDR_TYPE: "--dst-type"}

# RTN_* of linux/rtnetlink.h, as xt_addrtype counts and calls them.
ROUTE_TYPES = (
    "UNSPEC",
    "UNICAST",
    "LOCAL",
    "BROADCAST",
    "ANYCAST",
    "MULTICAST",
    "BLACKHOLE",
    "UNREACHABLE",
    "PROHIBIT",
    "THROW",
    "NAT",
    "XRESOLVE",
)
UNREACHABLE_TYPES = (6, 7, 8)


def address_types(where: Field, values: Ranges, family: int) -> Sieve | None:
    """The type of an address; None where the family has none of these."""
    option = OPTIONS[where]
    return _types_v4(option, values) if family == 4 else _types_v6(option, values)


def _types_v4(option: str, values: Ranges) -> Sieve:
    """The kernel looks the type up once and compares it with each of the list."""
    names = [name for number, name in enumerate(ROUTE_TYPES) if number in values]
    others = [name for number, name in enumerate(ROUTE_TYPES) if number not in values]
    if len(others) < len(names):
        return Sieve.any_of([f"-m addrtype ! {option} {','.join(others)}"])
    return Sieve.any_of([f"-m addrtype {option} {','.join(names)}"])


def _types_v6(option: str, values: Ranges) -> Sieve | None:
    """For IPv6 xt_addrtype (net/netfilter/xt_addrtype.c) is another match.

    MULTICAST and UNSPEC are asked of the address, LOCAL, ANYCAST and UNREACHABLE of the route,
    and UNICAST holds for all that is not multicast, this host's own included; of a list with
    several of these groups all must hold. BROADCAST does not exist.
    """
    rejected = [number in values for number in UNREACHABLE_TYPES]
    if any(rejected) != all(rejected):
        raise InexpressibleError("unreachable addresses of one kind and not of another")

    def chosen(wanted: bool, *numbers: int) -> list[str]:
        return [ROUTE_TYPES[n] for n in numbers if (n in values) is wanted]

    by_address = (AddressType.MULTICAST, 0)
    by_route = (AddressType.LOCAL, AddressType.ANYCAST, 7)
    if AddressType.UNICAST in values:
        barred = [*chosen(False, *by_address), ",".join(chosen(False, *by_route))]
        lines = [f"-m addrtype ! {option} {names}" for names in barred if names]
        return Sieve.any_of([" ".join(lines)]) if lines else Sieve.none_of(())
    matches = [f"-m addrtype {option} {name}" for name in chosen(True, *by_address)]
    if routes := chosen(True, *by_route):
        apart = "".join(f" -m addrtype ! {option} {name}" for name in chosen(True, *by_address))
        matches.append(f"-m addrtype {option} {','.join(routes)}{apart}")
    return Sieve.any_of(matches) if matches else None


def reverse_path(values: Ranges) -> Sieve:
    """`-m rpfilter`: the route back to the source leaves by the interface it came in by.

    Loopback passes, and IPv4 without a source (0.0.0.0) to a broadcast or link-local multicast
    address, as with nft. IPv6 without a source (::) always passes here, and with nft as ICMPv6
    to a link-local address alone; nothing answers it.
    """
    return Sieve.any_of(["-m rpfilter" if 1 in values else "-m rpfilter --invert"])
