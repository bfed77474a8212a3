"""Spells transport protocols with their ports and message types; knows no other field."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from policylang.backends.iptables.sets import IpSets
from policylang.backends.iptables.sieve import InexpressibleError, Sieve
from policylang.ir.origin import Origin
from policylang.packets.cube import Cube
from policylang.packets.fields import DCCP, ICMP, ICMPV6, TCP, UDP, UNIVERSE, Field, flags_test
from policylang.packets.values import Range, Ranges

# The names that iptables knows without /etc/protocols (xtables_chain_protos of libxtables).
PROTOCOLS = {
    ICMP: "icmp",
    TCP: "tcp",
    UDP: "udp",
    50: "esp",
    51: "ah",
    ICMPV6: "ipv6-icmp",
    132: "sctp",
    136: "udplite",
}
MULTIPORT_SLOTS = 15  # linux/netfilter/xt_multiport.h: XT_MULTI_PORTS
U32_RANGES = 10  # linux/netfilter/xt_u32.h: XT_U32_MAXSIZE
FEW = 3  # so many message types are a line each, where one match could hold them all

# The protocol of an IPv4 packet, and the first byte behind its header (iptables-extensions(8)).
U32_PROTOCOL = "6&0xFF"
U32_TYPE = "0>>22&0x3C@0>>24"

# By their bits, the lowest first (tcp_flag_names of libxt_tcp).
TCP_FLAG_NAMES = ("FIN", "SYN", "RST", "PSH", "ACK", "URG")
TCP_FLAG_BITS = 1 << len(TCP_FLAG_NAMES)

ANY_ICMP_TYPE = 255  # what xt_icmp takes for "any", so that the type itself needs another match


def transport(cube: Cube, family: int, sets: IpSets, origins: tuple[Origin, ...]) -> Sieve | None:
    """The protocol of a cube and what it says of ports or types; None where none is possible."""
    if Field.ICMP_TYPE in cube:
        return icmp_types(cube[Field.ICMP_TYPE])
    if Field.ICMPV6_TYPE in cube:
        return icmpv6_types(cube[Field.ICMPV6_TYPE])
    if not any(f in cube for f in (Field.TCP_FLAGS, Field.SPORT, Field.DPORT)):
        return protocols(cube[Field.L4PROTO], family)
    parts: list[tuple[str, ...]] = []
    if Field.TCP_FLAGS in cube:
        parts.append(tcp_flags(cube[Field.TCP_FLAGS]))
    return Sieve.any_of(
        " ".join((_ported(protocol), *_in_order(chosen)))
        for protocol in numbers(cube[Field.L4PROTO])
        for chosen in product(
            *parts,
            *(
                _ports(side, cube[field], protocol, sets, origins)
                for side, field in (("s", Field.SPORT), ("d", Field.DPORT))
                if field in cube
            ),
        )
    )


def _in_order(matches: tuple[str, ...]) -> list[str]:
    """Options of `-p` first: behind `-m multiport`, `--dport` is taken for short of `--dports`."""
    return sorted(matches, key=lambda match: match.startswith("-m "))


def numbers(values: Ranges) -> Iterator[int]:
    """Every single number of a set."""
    for low, high in values:
        yield from range(low, high + 1)


# --- protocols ---------------------------------------------------------------------------------


def protocol_match(number: int) -> str:
    """`-p`, by name where iptables knows one for certain."""
    assert number != 0, "-p 0 means any protocol"
    return f"-p {PROTOCOLS.get(number, number)}"


def _ported(number: int) -> str:
    """`-p` for ports to follow: by name it loads their match, by number it may not."""
    return f"{protocol_match(number)} -m dccp" if number == DCCP else protocol_match(number)


def protocols(values: Ranges, family: int) -> Sieve | None:
    """A set of protocols, or those that are not in it where they are fewer."""
    missing = UNIVERSE[Field.L4PROTO] - values
    if values.count <= missing.count:
        found = [match for n in numbers(values) if (match := _protocol(n, family))]
        return Sieve.any_of(found) if found else None
    barred = [match for n in numbers(missing) if (match := _protocol(n, family))]
    if len(barred) == 1 and barred[0].startswith("-p "):
        return Sieve.any_of([f"! {barred[0]}"])
    return Sieve.none_of(barred)


def _protocol(number: int, family: int) -> str | None:
    if number:
        return protocol_match(number)
    # In IPv6 it is the number of an option header, which is never the last one.
    return f'-m u32 --u32 "{U32_PROTOCOL}=0"' if family == 4 else None


# --- ports -------------------------------------------------------------------------------------


def _ports(
    side: str, values: Ranges, protocol: int, sets: IpSets, origins: tuple[Origin, ...]
) -> tuple[str, ...]:
    """The matches, each for a line of its own, for ports of one protocol."""
    missing = UNIVERSE[Field.DPORT] - values
    if len(values) == 1:
        return (f"--{side}port {_port_range(values.pairs[0])}",)
    if len(missing) == 1:
        return (f"! --{side}port {_port_range(missing.pairs[0])}",)
    if _slots(values) <= MULTIPORT_SLOTS:
        return (f"-m multiport --{side}ports {_port_list(values)}",)
    if _slots(missing) <= MULTIPORT_SLOTS:
        return (f"-m multiport ! --{side}ports {_port_list(missing)}",)
    if protocol in (TCP, UDP):  # all that a set of ports looks into (ip_set_get_ip_port)
        name = sets.ports(values, origins)
        return (f"-m set --match-set {name} {'src' if side == 's' else 'dst'}",)
    return tuple(
        f"-m multiport --{side}ports {_port_list(some)}" for some in _in_multiports(values)
    )


def _slots(values: Ranges) -> int:
    return sum(1 if low == high else 2 for low, high in values)


def _in_multiports(values: Ranges) -> Iterator[Ranges]:
    some: list[Range] = []
    for pair in values:
        if _slots(Ranges((*some, pair))) > MULTIPORT_SLOTS:
            yield Ranges(tuple(some))
            some = []
        some.append(pair)
    yield Ranges(tuple(some))


def _port_list(values: Ranges) -> str:
    return ",".join(_port_range(pair) for pair in values)


def _port_range(pair: Range) -> str:
    low, high = pair
    return str(low) if low == high else f"{low}:{high}"


# --- TCP flags -----------------------------------------------------------------------------------


def tcp_flags(values: Ranges) -> tuple[str, ...]:
    """`--tcp-flags MASK SET`, each for a line of its own; it knows the flags of RFC 793 alone."""
    for sign, these in (("", values), ("! ", UNIVERSE[Field.TCP_FLAGS] - values)):
        test = flags_test(these)
        if test is not None and test[0] < TCP_FLAG_BITS:
            return (f"{sign}--tcp-flags {_flag_names(test[0])} {_flag_names(test[1])}",)
    if any((n in values) is not (n % TCP_FLAG_BITS in values) for n in range(256)):
        raise InexpressibleError("these TCP flags together")
    tests = _flag_tests(values, 1, 0, 0)
    return tuple(f"--tcp-flags {_flag_names(mask)} {_flag_names(flags)}" for mask, flags in tests)


def _flag_tests(values: Ranges, bit: int, mask: int, flags: int) -> Iterator[tuple[int, int]]:
    """Disjoint `(mask, flags)` of what is in `values` among those that fit the one given."""
    fitting = [n in values for n in range(TCP_FLAG_BITS) if n & mask == flags]
    if all(fitting):
        yield mask, flags
    elif any(fitting):
        yield from _flag_tests(values, bit << 1, mask | bit, flags)
        yield from _flag_tests(values, bit << 1, mask | bit, flags | bit)


def _flag_names(bits: int) -> str:
    return ",".join(n for i, n in enumerate(TCP_FLAG_NAMES) if bits >> i & 1) or "NONE"


# --- message types -------------------------------------------------------------------------------


def icmp_types(values: Ranges) -> Sieve:
    """Types of ICMP, of any code."""
    icmp = protocol_match(ICMP)
    missing = (UNIVERSE[Field.ICMP_TYPE] - values).single
    if missing is not None and missing != ANY_ICMP_TYPE:
        return Sieve.any_of([f"{icmp} ! --icmp-type {missing}"])
    if values.count <= FEW and ANY_ICMP_TYPE not in values:
        return Sieve.any_of(f"{icmp} --icmp-type {number}" for number in numbers(values))
    return Sieve.any_of(
        f'{icmp} -m u32 --u32 "{U32_TYPE}={_port_list(Ranges(values.pairs[i : i + U32_RANGES]))}"'
        for i in range(0, len(values), U32_RANGES)
    )


def icmpv6_types(values: Ranges) -> Sieve:
    """Types of ICMPv6, of any code; each needs a match of its own."""
    icmpv6 = protocol_match(ICMPV6)
    missing = UNIVERSE[Field.ICMPV6_TYPE] - values
    if missing.single is not None:
        return Sieve.any_of([f"{icmpv6} ! --icmpv6-type {missing.single}"])
    if values.count <= missing.count:
        return Sieve.any_of(f"{icmpv6} --icmpv6-type {number}" for number in numbers(values))
    others = [(f"{icmpv6} --icmpv6-type {number}", False) for number in numbers(missing)]
    return Sieve((*others, (icmpv6, True)))
