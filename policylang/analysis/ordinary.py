"""What an ordinary packet looks like: which one of a set of packets is shown to people.

It knows documentation addresses and usual ports, and no policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from policylang.ir.ruleset import HostSuffix
from policylang.packets.cube import Cube
from policylang.packets.fields import (
    ADDRESS_FIELDS,
    DADDR_TESTS,
    SADDR_TESTS,
    TCP,
    TCP_SYN,
    UDP,
    AddressType,
    Field,
    FlowDirection,
    State,
)
from policylang.packets.values import V6_ADDRESSES, V6_BASE, Ranges, name_range, parse_address


def ordinary_values(cube: Cube) -> dict[Field, int]:
    """A value for each field that the cube speaks of, and addresses in any case."""
    return {f: _usual(f, values) for f, values in _completed(cube)}


def ending_as_asked(
    values: dict[Field, int], cube: Cube, suffixes: Mapping[Field, HostSuffix]
) -> dict[Field, int]:
    """The same packet of a cube, with addresses that end as it answers the tests of suffixes."""
    for test, suffix in suffixes.items():
        end = Field.SADDR if test in SADDR_TESTS else Field.DADDR
        if values.get(test) != 1 or values[Field.FAMILY] != 6:
            continue
        for low, high in cube[end] & V6_ADDRESSES:
            near = (low - V6_BASE) & ~suffix.mask | suffix.value
            found = V6_BASE + near + (suffix.mask + 1 if V6_BASE + near < low else 0)
            if low <= found <= high:
                values = {**values, end: found}
                break
    return values


def _usual(f: Field, values: Ranges) -> int:
    """The first value; of addresses not the first of a network, which is no machine's."""
    low, high = values.pairs[0]
    return low + 1 if f in ADDRESS_FIELDS and high - low > 1 and low & 3 == 0 else low


def _completed(cube: Cube) -> Iterator[tuple[Field, Ranges]]:
    """The terms of a cube, and addresses that it says nothing of."""
    yield from cube
    family = cube[Field.FAMILY].pairs[0][0]
    for f in (Field.SADDR, Field.DADDR):
        if f not in cube:
            yield f, _PLAIN_ADDRESSES[f, family]


def _addresses(text: str) -> Ranges:
    found = parse_address(text)
    assert found is not None, "a prefix"
    return Ranges((found,))


# RFC 5737, RFC 3849: addresses that no network has.
_PLAIN_ADDRESSES = {
    (Field.SADDR, 4): _addresses("203.0.113.7"),
    (Field.DADDR, 4): _addresses("192.0.2.1"),
    (Field.SADDR, 6): _addresses("2001:db8:7::7"),
    (Field.DADDR, 6): _addresses("2001:db8::1"),
}
_UNICAST = Ranges.of(AddressType.UNICAST)
ORDINARY = tuple(
    Cube.of({f: values})
    for f, values in (
        (Field.FAMILY, Ranges.of(4)),
        (Field.CT_STATE, Ranges.of(State.NEW)),
        (Field.L4PROTO, Ranges.of(TCP, UDP)),
        (Field.L4PROTO, Ranges.of(TCP)),
        (Field.TCP_FLAGS, Ranges.of(TCP_SYN)),
        (Field.SADDR, _addresses("203.0.113.0/24") | _addresses("2001:db8:7::/48")),
        (Field.SADDR, _PLAIN_ADDRESSES[Field.SADDR, 4] | _PLAIN_ADDRESSES[Field.SADDR, 6]),
        (Field.SADDR, _addresses("1.0.0.1-223.255.255.254") | _addresses("2000::1-3fff:ffff::")),
        (Field.DADDR, _addresses("192.0.2.0/24") | _addresses("2001:db8::/48")),
        (Field.DADDR, _PLAIN_ADDRESSES[Field.DADDR, 4] | _PLAIN_ADDRESSES[Field.DADDR, 6]),
        (Field.DADDR, _addresses("1.0.0.1-223.255.255.254") | _addresses("2000::1-3fff:ffff::")),
        (Field.SPORT, Ranges.of(40000)),
        (Field.SPORT, Ranges.between(1024, 65535)),
        (Field.DPORT, Ranges.between(1, 65535)),
        (Field.SADDR_TYPE, _UNICAST),
        (Field.DADDR_TYPE, _UNICAST | Ranges.of(AddressType.LOCAL)),
        (Field.HOP_LIMIT, Ranges.of(64)),
        (Field.SIZE, Ranges.of(60)),
        (Field.DSCP, Ranges.of(0)),
        (Field.CT_DIRECTION, Ranges.of(FlowDirection.ORIGINAL)),
        (Field.CT_HELPER, Ranges.of(0)),
        (Field.IPSEC, Ranges.of(0)),
        (Field.IPSEC_OUT, Ranges.of(0)),
        (Field.REVERSE_PATH, Ranges.of(1)),
        (Field.SOURCE_ROUTED, Ranges.of(0)),
        (Field.ANSWER, Ranges.of(0)),
        (Field.TO_ASKER, Ranges.of(0)),
        (Field.DNATED, Ranges.of(0)),
        (Field.EXPECTED, Ranges.of(0)),
        *((f, Ranges.of(0)) for f in (*SADDR_TESTS, *DADDR_TESTS)),
        (Field.IIF, Ranges((name_range("eth0"),))),
        (Field.OIF, Ranges((name_range("eth1"),))),
    )
)
