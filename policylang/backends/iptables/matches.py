"""Spells the terms of a cube as iptables matches; knows neither actions nor chains."""

from __future__ import annotations

from functools import lru_cache

from policylang.backends.iptables.addresses import addresses
from policylang.backends.iptables.connections import (
    dialled_addresses,
    dialled_ports,
    direction,
    dnated,
    expected,
    states,
)
from policylang.backends.iptables.headers import (
    dscps,
    hop_limits,
    ipsec,
    macs,
    sizes,
    source_routed,
)
from policylang.backends.iptables.remembered import (
    address_test,
    answers,
    to_askers,
    udp_where_asked,
)
from policylang.backends.iptables.routes import address_types, reverse_path
from policylang.backends.iptables.sets import IpSets
from policylang.backends.iptables.sieve import InexpressibleError, Matches, Sieve, Slot
from policylang.backends.iptables.transport import transport
from policylang.backends.names import name_matches
from policylang.ir.origin import Origin
from policylang.packets.cube import Cube
from policylang.packets.fields import UNIVERSE, Field
from policylang.packets.values import Range, Ranges, name_range


def spell(cube: Cube, family: int, sets: IpSets, origins: tuple[Origin, ...]) -> Matches | None:
    """What a packet of `family` must meet to be in the cube; None where none can be.

    Every sieve must let the packet in. Ipsets that it takes are made in `sets`. Raises
    InexpressibleError.
    """
    if cube.is_empty or family not in cube[Field.FAMILY]:
        return None
    cube = udp_where_asked(cube)
    if cube.is_empty:
        return None
    matches: Matches = {}
    for field, values in cube:
        found: tuple[int, Sieve | None]
        match field:
            case Field.FAMILY:
                continue
            case Field.IIF:
                found = Slot.IIF, interfaces("-i", values)
            case Field.OIF:
                found = Slot.OIF, interfaces("-o", values)
            case Field.SADDR | Field.DADDR:
                found = addresses(field, values, family, sets, origins)
            case Field.CT_STATE:
                found = Slot.CT_STATE, states(values)
            case Field.CT_HELPER:
                found = Slot.CT_HELPER, helpers(values)
            case Field.CT_DIRECTION:
                found = Slot.CT_DIRECTION, direction(values)
            case Field.DNATED:
                found = Slot.DNATED, dnated(values)
            case Field.EXPECTED:
                found = Slot.EXPECTED, expected(values)
            case Field.ORIG_DADDR:
                found = Slot.ORIG_DADDR, dialled_addresses(values, family)
            case Field.ORIG_DPORT:
                found = Slot.ORIG_DPORT, dialled_ports(values)
            case Field.SADDR_TYPE:
                found = Slot.SADDR_TYPE, address_types(field, values, family)
            case Field.DADDR_TYPE:
                found = Slot.DADDR_TYPE, address_types(field, values, family)
            case Field.REVERSE_PATH:
                found = Slot.REVERSE_PATH, reverse_path(values)
            case Field.SMAC:
                found = macs(values, sets, origins)
            case Field.DSCP:
                found = Slot.DSCP, dscps(values)
            case Field.SIZE:
                found = Slot.SIZE, sizes(values)
            case Field.IPSEC:
                found = Slot.IPSEC, ipsec("in", values)
            case Field.IPSEC_OUT:
                found = Slot.IPSEC_OUT, ipsec("out", values)
            case Field.SOURCE_ROUTED:
                found = Slot.SOURCE_ROUTED, source_routed(values, family)
            case Field.ANSWER:
                found = Slot.ANSWER, answers(values, family, sets, origins)
            case Field.TO_ASKER:
                found = Slot.TO_ASKER, to_askers(values, sets, origins)
            case Field.HOP_LIMIT:
                found = Slot.HOP_LIMIT, hop_limits(values)
            case Field.L4PROTO:
                found = Slot.TRANSPORT, transport(cube, family, sets, origins)
            case Field.SPORT | Field.DPORT | Field.ICMP_TYPE | Field.ICMPV6_TYPE | Field.TCP_FLAGS:
                assert Field.L4PROTO in cube
                continue
            case _:
                found = address_test(field, values, family, sets, taken=matches)
        slot, sieve = found
        if sieve is None:
            return None
        if sieve.steps:
            matches[slot] = sieve
        elif not sieve.otherwise:
            return None
    return matches


# --- names -------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def interfaces(option: str, names: Ranges) -> Sieve:
    """`-i` or `-o` for a set of names, the most specific first."""
    steps, otherwise = _name_steps(names)
    if otherwise and len(steps) == 1:
        return Sieve.any_of([f"! {option} {_interface(steps[0][0])}"])
    return Sieve(tuple((f"{option} {_interface(p)}", yes) for p, yes in steps), otherwise)


@lru_cache(maxsize=1024)
def helpers(names: Ranges) -> Sieve:
    """`-m helper` for a set of names; a connection that nobody predicted is in none."""
    steps, otherwise = _name_steps(names)
    if any(pattern.endswith("*") for pattern, _ in steps):
        raise InexpressibleError("a pattern of helper names")
    for pattern, _ in steps:
        _checked_name(pattern)
    spelled = [(f"-m helper --helper {name}", yes) for name, yes in steps]
    if otherwise:  # libxt_helper: an empty name matches any helper
        spelled.append(('-m helper --helper ""', True))
    return Sieve(tuple(spelled))


def _name_steps(names: Ranges) -> tuple[tuple[tuple[str, bool], ...], bool]:
    """Patterns with what they say, the most specific first, and what holds for all others."""
    matches = name_matches(names)
    if matches is None:
        raise InexpressibleError("these interface names together")
    otherwise = any(not match.among for match in matches)
    said: dict[str, bool] = {}
    for match in matches:
        said |= dict.fromkeys(match.barring, False)
    for match in matches:
        said |= dict.fromkeys(match.among, True)
    steps = tuple(sorted(said.items(), key=lambda step: _generality(name_range(step[0]))))
    assert _in_all(steps, otherwise) == names, "a set of names is said as it is"
    return steps, otherwise


def _generality(pair: Range) -> tuple[int, int]:
    low, high = pair
    return high - low, low


def _in_all(steps: tuple[tuple[str, bool], ...], otherwise: bool) -> Ranges:
    result = UNIVERSE[Field.IIF] if otherwise else Ranges()
    for pattern, yes in reversed(steps):
        these = Ranges((name_range(pattern),))
        result = result | these if yes else result - these
    return result


def _interface(pattern: str) -> str:
    """A name as iptables writes it, where a trailing `+` is the wildcard."""
    name = _checked_name(pattern.removesuffix("*"))
    if name.endswith("+"):
        raise InexpressibleError(f"an interface name that ends in `+` (`{name}`)")
    return f"{name}+" if pattern.endswith("*") and len(name) < 15 else name  # IFNAMSIZ 16


def _checked_name(name: str) -> str:
    if not name or any(not "!" < c <= "~" or c in "\"'\\" for c in name):
        raise InexpressibleError(f"the name `{name}`")
    return name
