"""Sets of values and of packets are what sets of their members are."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policylang.backends.names import name_matches
from policylang.packets.cube import EMPTY, EVERYTHING, Cube
from policylang.packets.fields import NAMES, UNIVERSE, Field
from policylang.packets.packetset import PacketSet, compact
from policylang.packets.values import (
    NAME_BYTES,
    V6_BASE,
    Ranges,
    format_address,
    name_pattern,
    name_range,
    parse_address,
    parse_one_address,
    prefixes,
)
from tests.properties.small_world import Terms, meets_all, packets, palettes, siblings, terms

# --- sets of integers -------------------------------------------------------------------------

PAIRS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6)).map(lambda p: (p[0], sum(p))))
SETS = PAIRS.map(Ranges.merged)


def members(values: Ranges) -> set[int]:
    return {number for low, high in values for number in range(low, high + 1)}


@given(PAIRS)
def test_merged_pairs_are_sorted_and_apart(pairs: list[tuple[int, int]]) -> None:
    merged = Ranges.merged(pairs)
    assert members(merged) == {n for low, high in pairs for n in range(low, high + 1)}
    assert all(low <= high for low, high in merged)
    assert all(a[1] + 1 < b[0] for a, b in zip(merged.pairs, merged.pairs[1:], strict=False))


@given(SETS, SETS)
def test_ranges_do_what_sets_do(a: Ranges, b: Ranges) -> None:
    mine, theirs = members(a), members(b)
    assert members(a | b) == mine | theirs
    assert members(a & b) == mine & theirs
    assert members(a - b) == mine - theirs
    assert a.covers(b) == (mine >= theirs)
    assert a.meets(b) == bool(mine & theirs)
    assert (a == b) == (mine == theirs)
    assert (a | b, a & b) == (b | a, b & a)
    assert hash((a - b) | (a & b)) == hash(a)


@given(SETS)
def test_ranges_count_what_they_hold(a: Ranges) -> None:
    mine = members(a)
    assert {n for n in range(45) if n in a} == mine
    assert a.count == len(mine) and bool(a) == bool(mine)
    assert a.single == (min(mine) if len(mine) == 1 else None)
    assert Ranges.of(*mine) == a


# --- addresses --------------------------------------------------------------------------------

V4 = st.ip_addresses(v=4)
V6 = st.ip_addresses(v=6).filter(lambda a: "%" not in str(a))
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def number(address: Address) -> int:
    return int(address) + (V6_BASE if address.version == 6 else 0)


@given(st.one_of(V4, V6))
def test_address_is_read_and_written(address: Address) -> None:
    assert parse_one_address(str(address)) == number(address)
    assert parse_address(str(address)) == (number(address), number(address))
    assert ipaddress.ip_address(format_address(number(address))) == address


@given(st.one_of(V4, V6), st.integers(0, 128))
def test_prefix_is_the_network_that_holds_the_address(address: Address, length: int) -> None:
    parsed = parse_address(f"{address}/{length}")
    if length > address.max_prefixlen:
        assert parsed is None
        return
    network = ipaddress.ip_network(f"{address}/{length}", strict=False)
    assert parsed == (number(network[0]), number(network[-1]))
    assert list(prefixes(*parsed)) == [(number(network[0]), length)]


@given(*(st.one_of(V4, V6),) * 2)
def test_range_of_addresses_has_one_family_and_goes_up(a: Address, b: Address) -> None:
    goes_up = a.version == b.version and number(a) <= number(b)
    assert parse_address(f"{a}-{b}") == ((number(a), number(b)) if goes_up else None)


@given(st.one_of(st.tuples(V4, V4), st.tuples(V6, V6)).map(sorted))
def test_prefixes_make_up_a_range(ends: list[Address]) -> None:
    first, last = ends
    expected = [
        (number(network[0]), network.prefixlen)
        for network in ipaddress.summarize_address_range(first, last)
    ]
    assert list(prefixes(number(first), number(last))) == expected


@given(st.text("0123456789abcdefx.:/- ", max_size=20))
def test_what_is_no_address_is_none(text: str) -> None:
    try:
        expected = number(ipaddress.ip_address(text))
    except ValueError:
        assert parse_one_address(text) is None
    else:
        assert parse_one_address(text) == expected


@given(st.text(max_size=10))
def test_reading_an_address_never_raises(text: str) -> None:
    for written in (text, f"{text}/8", f"10.0.0.0/{text}", f"10.0.0.0-{text}", f"::/{text}"):
        parse_address(written)


# --- names ------------------------------------------------------------------------------------

STEMS = st.text("ab12", max_size=3)
PATTERNS = st.tuples(STEMS, st.sampled_from(("", "*"))).map("".join).filter(bool)
NAME_SETS = st.lists(PATTERNS, max_size=4).map(lambda found: Ranges.merged(map(name_range, found)))


@given(st.text("ab.-12", max_size=NAME_BYTES - 1), st.sampled_from(("", "*")))
def test_pattern_is_kept_by_its_range(stem: str, star: str) -> None:
    assert name_pattern(*name_range(stem + star)) == stem + star


@given(STEMS, PATTERNS)
def test_pattern_holds_the_names_that_fit(name: str, pattern: str) -> None:
    low, high = name_range(pattern)
    fits = name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
    assert (low <= name_range(name)[0] <= high) == fits


@given(NAME_SETS, NAME_SETS)
@settings(max_examples=500)
def test_names_less_names_can_be_said(among: Ranges, barring: Ranges) -> None:
    for names in (among, NAMES - barring, among - barring):
        assert not names or said(names) == names


@given(NAME_SETS, NAME_SETS, NAME_SETS)
@settings(max_examples=500)
def test_names_are_said_rightly_or_not_at_all(a: Ranges, b: Ranges, c: Ranges) -> None:
    names = (a - b) | c
    assert not names or said(names) in (names, None)


def said(names: Ranges) -> Ranges | None:
    """The names that the matches for a set hold between them; each may be in one alone."""
    matches = name_matches(names)
    if matches is None:
        return None
    union = Ranges()
    for match in matches:
        among = Ranges.merged(map(name_range, match.among)) if match.among else NAMES
        holds = among - Ranges.merged(map(name_range, match.barring))
        assert not union.meets(holds)
        union |= holds
    return union


# --- cubes ------------------------------------------------------------------------------------

Case = tuple[tuple[Field, ...], Terms, Terms]
Cases = tuple[tuple[Field, ...], list[Terms], list[Terms]]

ONE = palettes().flatmap(lambda p: st.tuples(st.just(p), terms(p)))
TWO = palettes().flatmap(lambda p: st.tuples(st.just(p), terms(p), terms(p)))
MANY = palettes().flatmap(lambda p: st.tuples(st.just(p), siblings(p), siblings(p)))
THOROUGH = settings(max_examples=300, deadline=None)


def held(by: Cube | PacketSet, palette: tuple[Field, ...]) -> set[int]:
    """The packets that a set holds, numbered."""
    return {number for number, packet in enumerate(packets(palette)) if by.holds(packet)}


@THOROUGH
@given(ONE)
def test_cube_holds_what_meets_its_terms(case: tuple[tuple[Field, ...], Terms]) -> None:
    palette, said = case
    cube, every = Cube.of(said), packets(palette)
    mine = {number for number, packet in enumerate(every) if meets_all(packet, said)}
    assert held(cube, palette) == mine
    assert cube.is_empty == (not mine) == (cube == EMPTY)
    assert (cube == EVERYTHING) == (len(mine) == len(every))


@THOROUGH
@given(TWO)
def test_cubes_are_equal_where_they_hold_the_same(case: Case) -> None:
    palette, *both = case
    a, b = map(Cube.of, both)
    assert (a == b) == (held(a, palette) == held(b, palette))
    for said in (a.terms, a.stated):
        assert Cube.of(dict(said)) == a and hash(Cube.of(dict(said))) == hash(a)


@THOROUGH
@given(TWO)
def test_cubes_do_what_sets_of_packets_do(case: Case) -> None:
    palette, *both = case
    a, b = map(Cube.of, both)
    mine, theirs = held(a, palette), held(b, palette)
    assert held(a & b, palette) == mine & theirs
    assert a.meets(b) == bool(mine & theirs)
    assert a.covers(b) == (mine >= theirs)
    pieces = [held(piece, palette) for piece in a - b]
    assert all(pieces) and sum(map(len, pieces)) == len(mine - theirs)
    assert set().union(*pieces) == mine - theirs


@THOROUGH
@given(MANY)
def test_compact_cubes_hold_the_same(case: Cases) -> None:
    palette, said, _ = case
    cubes = [Cube.of(one) for one in said]
    fewer = compact(cubes)
    assert len(fewer) <= len(cubes)
    assert held(PacketSet(fewer), palette) == held(PacketSet(tuple(cubes)), palette)


@pytest.mark.parametrize("field", [Field.HOP_LIMIT, Field.ICMP_TYPE, Field.ICMPV6_TYPE])
def test_all_values_of_a_field_do_not_lose_what_it_implies(field: Field) -> None:
    """Hop limits up to 254 and 255 are the packets of IPv6, not all packets."""
    low, high = (Cube.of({field: Ranges.between(*ends)}) for ends in ((0, 254), (255, 255)))
    (whole,) = compact([low, high])
    assert whole[Field.FAMILY] == low[Field.FAMILY] != UNIVERSE[Field.FAMILY]
    assert whole[Field.L4PROTO] == low[Field.L4PROTO]


@THOROUGH
@given(MANY)
def test_packet_sets_do_what_sets_of_packets_do(case: Cases) -> None:
    palette, *both = case
    a, b = (PacketSet.of(map(Cube.of, said)) for said in both)
    mine, theirs = held(a, palette), held(b, palette)
    assert held(a | b, palette) == mine | theirs
    assert held(a & b, palette) == mine & theirs
    assert held(a - b, palette) == mine - theirs
    assert a.covers(b) == (mine >= theirs)
    assert a.meets(b) == bool(mine & theirs)
    assert bool(a) == bool(mine)
