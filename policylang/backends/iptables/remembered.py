"""Spells what is asked of addresses and ports that sets keep at run time, and of host suffixes."""

from __future__ import annotations

from collections.abc import Mapping

from policylang.backends.iptables.names import dynamic_set_name
from policylang.backends.iptables.sets import IpSets
from policylang.backends.iptables.sieve import Sieve, Slot
from policylang.backends.iptables.transport import protocol_match
from policylang.ir.origin import Origin
from policylang.ir.ruleset import DynamicSet, HostSuffix, ListedSet
from policylang.packets.cube import Cube
from policylang.packets.fields import UDP, Field
from policylang.packets.values import V6_BASE, Ranges, format_address

# Where the addresses stand in an IPv6 header, in bytes (RFC 8200 section 3).
SADDR_OFFSET, DADDR_OFFSET = 8, 24


def udp_where_asked(cube: Cube) -> Cube:
    """The cube without packets that its answers and askers leave out: these are UDP alone."""
    asked = (Field.ANSWER, Field.TO_ASKER)
    if any(0 not in cube[field] for field in asked):
        return cube & Cube.of({Field.L4PROTO: Ranges.of(UDP)})
    return cube


def answers(values: Ranges, family: int, sets: IpSets, origins: tuple[Origin, ...]) -> Sieve:
    """Whether the address is kept with the interface, and with the port.

    No type of set has all three. So what answers one question, by the interface of another one
    of the same address, passes too.
    """
    interfaces, ports = sets.questions(family, origins)
    # Directions: of an interface, `src` is the way in.
    match = f"-m set --match-set {interfaces} dst,src -m set --match-set {ports} dst,dst"
    return _of_udp(match, values)


def to_askers(values: Ranges, sets: IpSets, origins: tuple[Origin, ...]) -> Sieve:
    """Whether a question came from the port to which this goes."""
    return _of_udp(f"-m set --match-set {sets.askers(origins)} dst", values)


def _of_udp(match: str, values: Ranges) -> Sieve:
    if 0 in values:
        return Sieve.none_of([f"{protocol_match(UDP)} {match}"])
    return Sieve.any_of([match])


# --- addresses -----------------------------------------------------------------------------------


def address_test(
    field: Field, values: Ranges, family: int, sets: IpSets, taken: Mapping[int, Sieve]
) -> tuple[int, Sieve | None]:
    """The place and sieve of a test of an address; no sieve where the family never passes.

    `taken` are the places in the line that other conditions have.
    """
    is_source = field < Field.DADDR_TEST_0
    test = sets.tests[field - (Field.SADDR_TEST_0 if is_source else Field.DADDR_TEST_0)]
    sign = "" if 1 in values else "! "
    own = Slot.ADDRESS_TESTS + field
    match test:
        case DynamicSet(name):
            flag = "src" if is_source else "dst"
            kept = dynamic_set_name(name, family)
            return own, Sieve.any_of([f"-m set {sign}--match-set {kept} {flag}"])
        case ListedSet():
            flag = "src" if is_source else "dst"
            listed = sets.listed(test, family)
            return own, Sieve.any_of([f"-m set {sign}--match-set {listed} {flag}"])
        case HostSuffix() if family == 4:
            return own, None if 1 in values else Sieve.none_of(())
        case HostSuffix() if (place := Slot.SADDR if is_source else Slot.DADDR) not in taken:
            option = "-s" if is_source else "-d"
            value, mask = (format_address(V6_BASE + n) for n in (test.value, test.mask))
            return place, Sieve.any_of([f"{sign}{option} {value}/{mask}"])
        case HostSuffix():  # a line takes -s but once
            return own, Sieve.any_of([_u32(test, is_source, sign)])


def _u32(test: HostSuffix, is_source: bool, sign: str) -> str:
    start = SADDR_OFFSET if is_source else DADDR_OFFSET
    words = [
        f"{start + 4 * n}&0x{mask:X}=0x{test.value >> shift & 0xFFFF_FFFF:X}"
        for n, shift in enumerate((96, 64, 32, 0))
        if (mask := test.mask >> shift & 0xFFFF_FFFF)
    ]
    return f'-m u32 {sign}--u32 "{" && ".join(words)}"'
