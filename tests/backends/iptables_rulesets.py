"""Generated rulesets, and packets that lie at the edges of what these speak of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

from hypothesis import strategies as st

from policylang.ir.actions import (
    Accept,
    Action,
    Answer,
    AssignHelper,
    ConnectionMarkGuard,
    ConnectionsGuard,
    Drop,
    End,
    Guard,
    Jump,
    Leave,
    Log,
    MapPrefix,
    MarkGuard,
    Masquerade,
    OwnerGuard,
    RateGuard,
    Reject,
    SetConnectionMark,
    SetDscp,
    SetMark,
    SourceNat,
    TimeGuard,
)
from policylang.ir.ruleset import (
    AddressTest,
    Base,
    Chain,
    DynamicSet,
    Entry,
    HostSuffix,
    Item,
    Lookup,
    Rule,
    Ruleset,
)
from policylang.ir.stages import Path, Stage
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import UNIVERSE, Field, State, with_flags
from policylang.packets.values import (
    V4_MAX,
    V6_BASE,
    V6_MAX,
    Range,
    Ranges,
    name_range,
    parse_address,
)

PATTERNS = ("lan0", "lan1", "lan*", "lan1*", "wg-*", "lo", "dmz0", "lan0*", "vlan.10")
NAMES = ("lan0", "lan1", "lan10", "lan", "wg-", "dmz0", "lo", "wan0", "vlan.10", "x")
HELPERS = ("ftp", "tftp", "Q.931")
PROTOCOLS = (0, 1, 2, 6, 17, 33, 47, 58, 132, 255)
PORTED = (6, 17, 33, 132)

V4_TEXTS = (
    "10.1.0.0/16",
    "10.1.0.0/30",
    "10.1.0.1",
    "10.1.0.2-10.1.0.6",
    "10.1.0.9",
    "10.1.0.12/31",
    "10.2.0.0/16",
    "192.0.2.0/24",
    "0.0.0.0/1",
)
V6_TEXTS = (
    "2001:db8::/32",
    "2001:db8:2::/126",
    "2001:db8:2::1",
    "2001:db8:2::2-2001:db8:2::6",
    "2001:db8:2::9",
    "fd00:1::/64",
    "fe80::/10",
    "8000::/1",
)


def _range(text: str) -> Range:
    found = parse_address(text)
    assert found is not None
    return found


ADDRESSES = [_range(text) for text in (*V4_TEXTS, *V6_TEXTS)]


def _some(pairs: list[Range], most: int) -> st.SearchStrategy[Ranges]:
    return st.lists(st.sampled_from(pairs), min_size=1, max_size=most).map(Ranges.merged)


def _maybe_complement(where: Field, values: st.SearchStrategy[Ranges]) -> st.SearchStrategy[Ranges]:
    def turned(choice: tuple[Ranges, bool]) -> Ranges:
        chosen, is_turned = choice
        return UNIVERSE[where] - chosen if is_turned else chosen

    return st.tuples(values, st.booleans()).map(turned)


PORTS = st.lists(
    st.sampled_from([(n, n) for n in (0, 21, 22, 80, 443, 65535)] + [(1000, 1003), (2000, 65535)]),
    min_size=1,
    max_size=5,
).map(Ranges.merged)
MANY_PORTS = st.just(Ranges(tuple((100 * n, 100 * n + n % 2) for n in range(1, 14))))
TYPES = _some([(n, n) for n in (0, 3, 8, 128, 133, 135, 255)] + [(10, 20)], 5)
NAME_SETS = _some([name_range(p) for p in PATTERNS], 3)

ODD = Ranges(
    tuple((n, n) for n in range(0x0A010001, 0x0A01000D, 2))
    + tuple((V6_BASE + (0x20010DB80002 << 80) + n,) * 2 for n in range(1, 13, 2))
)
SOURCES = st.one_of(_some(ADDRESSES, 6), st.just(ODD))

VALUES: dict[Field, st.SearchStrategy[Ranges]] = {
    Field.IIF: st.one_of(
        NAME_SETS,
        _maybe_complement(Field.IIF, NAME_SETS),
        st.tuples(NAME_SETS, NAME_SETS).map(lambda pair: pair[0] - pair[1]),
    ).filter(bool),
    Field.CT_STATE: st.sets(st.sampled_from(State), min_size=1, max_size=4).map(
        lambda some: Ranges.of(*some)
    ),
    Field.CT_HELPER: _maybe_complement(Field.CT_HELPER, _some([name_range(h) for h in HELPERS], 2)),
    Field.FAMILY: st.sampled_from([Ranges.of(4), Ranges.of(6)]),
    Field.SADDR: _maybe_complement(Field.SADDR, SOURCES).filter(bool),
    Field.DADDR: _maybe_complement(Field.DADDR, _some(ADDRESSES, 3)).filter(bool),
    Field.DADDR_TYPE: _maybe_complement(
        Field.DADDR_TYPE, st.sets(st.integers(1, 5), min_size=1).map(lambda s: Ranges.of(*s))
    ),
    Field.HOP_LIMIT: _maybe_complement(
        Field.HOP_LIMIT, _some([(255, 255), (0, 0), (1, 63), (64, 64)], 3)
    ),
    Field.L4PROTO: _maybe_complement(Field.L4PROTO, _some([(p, p) for p in PROTOCOLS], 4)),
    Field.SPORT: _maybe_complement(Field.SPORT, PORTS),
    Field.DPORT: _maybe_complement(Field.DPORT, st.one_of(PORTS, MANY_PORTS)),
    Field.TCP_FLAGS: _maybe_complement(
        Field.TCP_FLAGS,
        st.sampled_from([with_flags(4, 4), with_flags(0x17, 2), with_flags(0x3F, 0)]),
    ),
    Field.ICMP_TYPE: _maybe_complement(Field.ICMP_TYPE, TYPES),
    Field.ICMPV6_TYPE: _maybe_complement(Field.ICMPV6_TYPE, TYPES),
}
VALUES[Field.OIF] = VALUES[Field.IIF]

MACS = [(n, n) for n in (0, 1, 2, 0x0200_0000_0099)]
SOME_MACS = st.one_of(
    _some(MACS, 3), st.just(Ranges(tuple((n, n + n % 3) for n in range(0, 99, 4))))
)
BIT = st.sampled_from([Ranges.of(0), Ranges.of(1)])
KEPT = DynamicSet("some", 60, 100)
TESTS: tuple[AddressTest, ...] = (KEPT, HostSuffix(1, 1), HostSuffix(2, 3))
ADDRESS_TEST_FIELDS = tuple(
    Field[f"{end}_TEST_{number}"] for end in ("SADDR", "DADDR") for number in range(len(TESTS))
)

# Fields of which the packets of the kernel tests here say nothing.
BESIDE: dict[Field, st.SearchStrategy[Ranges]] = {
    Field.SADDR_TYPE: VALUES[Field.DADDR_TYPE],
    Field.CT_DIRECTION: BIT,
    Field.SMAC: _maybe_complement(Field.SMAC, SOME_MACS),
    Field.DSCP: _maybe_complement(Field.DSCP, _some([(0, 0), (46, 46), (8, 12)], 3)),
    Field.SIZE: _maybe_complement(Field.SIZE, _some([(0, 100), (200, 300), (1500, 1500)], 3)),
    Field.IPSEC: BIT,
    Field.IPSEC_OUT: BIT,
    Field.DNATED: BIT,
    Field.EXPECTED: BIT,
    Field.ORIG_DADDR: _maybe_complement(Field.ORIG_DADDR, _some(ADDRESSES, 3)).filter(bool),
    Field.ORIG_DPORT: _maybe_complement(Field.ORIG_DPORT, PORTS),
    Field.ANSWER: BIT,
    Field.TO_ASKER: BIT,
    **dict.fromkeys(ADDRESS_TEST_FIELDS, BIT),
}
VALUES |= BESIDE


@st.composite
def cubes(draw: st.DrawFn, without: frozenset[Field] = frozenset()) -> Cube:
    """A cube that is not empty, of at most four terms."""
    fields = [f for f in VALUES if f not in without]
    chosen = draw(st.sets(st.sampled_from(fields), max_size=4))
    cube = EVERYTHING
    for where in sorted(chosen):
        narrowed = cube & Cube.of({where: draw(VALUES[where])})
        if not narrowed.is_empty:
            cube = narrowed
    return cube


TERMINAL: list[Action] = [
    Accept(),
    Drop(),
    Reject(Answer.PORT_UNREACHABLE),
    Reject(Answer.ADMIN_PROHIBITED),
]
LOGS: list[Action] = [Log("a"), Log('q"\\ ', level="info"), Log("g", group=3)]
TCP_ALONE = Cube.of({Field.L4PROTO: Ranges.of(6)})


# Several windows, and owners of which a packet may have more than one.
NIGHTS = Ranges(tuple((day * 86400 + 9000 * day, day * 86400 + 70_000) for day in range(7)))
LOOKING: list[Guard] = [
    TimeGuard(NIGHTS, False),
    OwnerGuard("user", Ranges.of(33, 1000), ("www-data", "nobody")),
    MarkGuard(1, 0xFF),
    ConnectionMarkGuard(2, 0xFF),
]
COUNTING: list[Guard] = [RateGuard(10, "second", 5), ConnectionsGuard(8)]
GUARDS = st.tuples(
    st.lists(st.sampled_from(LOOKING), unique=True),
    st.lists(st.sampled_from(COUNTING), unique=True),
).map(lambda some: (*some[0], *some[1]))


@st.composite
def rules(draw: st.DrawFn, jumps: list[str], without: frozenset[Field] = frozenset()) -> Rule:
    cube = draw(cubes(without))
    action = draw(st.sampled_from([*TERMINAL, *LOGS, *map(Jump, jumps)]))
    if isinstance(action, Drop) and not (cube & TCP_ALONE).is_empty and draw(st.booleans()):
        cube, action = cube & TCP_ALONE, Reject(Answer.TCP_RESET)
    return Rule(cube, action, draw(st.one_of(st.just(()), GUARDS)))


SHAPES = (
    (Field.IIF,),
    (Field.IIF, Field.OIF),
    (Field.SADDR,),
    (Field.DPORT,),
    (Field.L4PROTO, Field.DPORT),
    (Field.SADDR, Field.DPORT),
    (Field.SADDR, Field.L4PROTO, Field.DPORT),
    (Field.DADDR, Field.L4PROTO, Field.SPORT),
    (Field.SADDR, Field.DADDR),
    (Field.SADDR, Field.DADDR, Field.DPORT),
    (Field.SADDR, Field.DADDR, Field.L4PROTO, Field.DPORT),
    (Field.IIF, Field.SADDR, Field.L4PROTO, Field.DPORT),
    (Field.FAMILY, Field.IIF),
    (Field.SPORT, Field.DPORT),
    (Field.ICMP_TYPE, Field.SADDR),
    (Field.CT_HELPER, Field.DPORT),
    (Field.ORIG_DADDR, Field.ORIG_DPORT),
    (Field.ORIG_DADDR, Field.L4PROTO, Field.ORIG_DPORT),
    (Field.ORIG_DADDR, Field.DADDR, Field.DPORT),
    (Field.SADDR, Field.ORIG_DPORT),
)
KEYS: dict[Field, list[Range]] = {
    Field.IIF: [name_range(p) for p in PATTERNS],
    Field.OIF: [name_range(p) for p in PATTERNS],
    Field.CT_HELPER: [name_range(p) for p in HELPERS],
    Field.FAMILY: [(4, 4), (6, 6)],
    Field.L4PROTO: [(6, 6), (17, 17), (33, 33), (132, 132)],
    Field.SPORT: [(n, n) for n in range(80, 130)] + [(1000, 1010), (2000, 60000)],
    Field.DPORT: [(n, n) for n in range(80, 130)] + [(1000, 1010), (2000, 60000)],
    Field.ICMP_TYPE: [(n, n) for n in (0, 3, 8, 255)] + [(10, 20)],
}
KEYS[Field.ORIG_DPORT] = KEYS[Field.DPORT]
KEY_ADDRESSES = {
    4: [(n, n) for n in range(0x0A010000, 0x0A010010)]
    + [_range(text) for text in V4_TEXTS]
    + [(0, V4_MAX)],
    6: [(V6_BASE + (0x20010DB80002 << 80) + n,) * 2 for n in range(16)]
    + [_range(text) for text in V6_TEXTS]
    + [(V6_BASE, V6_MAX)],
}


@st.composite
def lookups(
    draw: st.DrawFn,
    jumps: list[str],
    without: frozenset[Field] = frozenset(),
    sizes: tuple[int, int] = (1, 40),
) -> Lookup:
    fields = draw(st.sampled_from([s for s in SHAPES if not without & set(s)]))
    cube = draw(cubes(without))
    terms: dict[Field, Ranges] = {}
    if {Field.SPORT, Field.DPORT, Field.ORIG_DPORT} & set(fields) and Field.L4PROTO not in fields:
        terms[Field.L4PROTO] = draw(
            st.sampled_from([Ranges.of(6), Ranges.of(6, 17), Ranges.of(*PORTED)])
        )
    if Field.ICMP_TYPE in fields:
        terms = {Field.FAMILY: Ranges.of(4), Field.L4PROTO: Ranges.of(1)}
    if (cube & Cube.of(terms)).is_empty:
        cube = EVERYTHING
    cube = cube & Cube.of(terms)
    actions = draw(
        st.sampled_from([TERMINAL[:1], TERMINAL, [*TERMINAL, *LOGS], [*map(Jump, jumps)] or LOGS])
    )
    kept: list[Entry] = []
    for _ in range(draw(st.integers(*sizes))):
        family = draw(st.sampled_from([4, 6]))
        key = tuple(
            draw(st.sampled_from(KEY_ADDRESSES[family] if f in ADDRESS else KEYS[f]))
            for f in fields
        )
        if all(_apart(key, other.key) for other in kept):
            kept.append(Entry(key, draw(st.sampled_from(actions))))
    return Lookup(cube, fields, tuple(kept))


ENDS = (Field.SADDR, Field.DADDR)
ADDRESS = (*ENDS, Field.ORIG_DADDR)


def _apart(a: tuple[Range, ...], b: tuple[Range, ...]) -> bool:
    return any(x[1] < y[0] or y[1] < x[0] for x, y in zip(a, b, strict=True))


@st.composite
def filters(
    draw: st.DrawFn, path: Path = Path.FORWARD, without: frozenset[Field] = frozenset()
) -> Ruleset:
    """A ruleset that filters on one path, without some of the fields."""

    def items(jumps: list[str]) -> tuple[Item, ...]:
        one = st.one_of(rules(jumps, without), lookups(jumps, without))
        return tuple(draw(st.lists(one, max_size=5)))

    inner = Chain("a rather long name for any chain", items([]))
    outer = Chain("other", items([inner.name]))
    last = Rule(EVERYTHING, draw(st.sampled_from(TERMINAL)))
    base = Chain("base", (*items([inner.name, outer.name]), last))
    callers = (base, outer) if _is_read(outer.name, (base,)) else (base,)
    chains = (*callers, inner) if _is_read(inner.name, callers) else callers
    names = draw(st.sampled_from([(), ((Ranges.merged(ADDRESSES[:5]), "some"),)]))
    base_of_all = (Base(Stage.FILTER, path, "base"),)
    return Ruleset(base_of_all, chains, names, address_tests=TESTS, dynamic_sets=(KEPT,))


def _is_read(name: str, by: tuple[Chain, ...]) -> bool:
    return any(Jump(name) in _actions(item) for chain in by for item in chain.items)


def _actions(item: Item) -> list[Action]:
    return [item.action] if isinstance(item, Rule) else [e.action for e in item.entries]


NOT_IN_RAW = frozenset(
    {
        *(Field.CT_STATE, Field.CT_HELPER, Field.CT_DIRECTION, Field.OIF, Field.IPSEC_OUT),
        *(Field.DNATED, Field.EXPECTED, Field.ORIG_DADDR, Field.ORIG_DPORT),
    }
)


@st.composite
def assignments(draw: st.DrawFn, without: frozenset[Field] = NOT_IN_RAW) -> Ruleset:
    """A ruleset that assigns helpers to what arrives, in chains that may be left from within."""
    inner = Chain("inner", _assigning(draw, [], without))
    base = Chain("assign-helper-input", _assigning(draw, [inner.name], without))
    chains = (base, inner) if _is_read("inner", (base,)) else (base,)
    bases = (Base(Stage.ASSIGN_HELPER, Path.INPUT, base.name),)
    return Ruleset(bases, chains, address_tests=TESTS, dynamic_sets=(KEPT,))


def _assigning(draw: st.DrawFn, jumps: list[str], without: frozenset[Field]) -> tuple[Item, ...]:
    found: list[Item] = []
    for _ in range(draw(st.integers(1, 6))):
        cube = draw(cubes(without))
        actions: list[Action] = [AssignHelper("ftp", 6), AssignHelper("RAS", 17), Leave()]
        action = draw(st.sampled_from([*actions, *map(Jump, jumps)]))
        if isinstance(action, AssignHelper):
            only = Cube.of({Field.L4PROTO: Ranges.of(action.protocol)})
            cube = only if (cube & only).is_empty else cube & only
        found.append(Rule(cube, action))
    if draw(st.booleans()):
        lookup = draw(lookups([], without))
        entries = tuple(Entry(entry.key, Leave()) for entry in lookup.entries)
        found.insert(0, Lookup(lookup.cube, lookup.fields, entries))
    return tuple(found)


V4_TARGETS, V6_TARGETS = _range("10.9.0.1-10.9.0.7"), _range("fd00:9::1-fd00:9::7")
TREATMENTS: dict[Stage, list[Action]] = {
    Stage.SRCNAT: [
        Masquerade(),
        Masquerade((1000, 1999), is_random=True),
        SourceNat(V4_TARGETS),
        SourceNat(V6_TARGETS, is_persistent=True),
        SourceNat(V4_TARGETS, (7, 7)),
        SourceNat(V6_TARGETS, (8, 9)),
        MapPrefix(End.SOURCE, _range("10.9.0.0/16")),
        MapPrefix(End.SOURCE, _range("fd00:9::/64")),
    ],
    # Bits that no guard above asks for.
    Stage.MARK: [
        SetMark(0x100, 0x300),
        SetMark(0x400, 0x400),
        SetConnectionMark(0x100, 0xFF00),
        SetDscp(46),
    ],
}
NOT_THERE = {
    Stage.SRCNAT: frozenset({Field.SMAC, Field.IPSEC}),
    Stage.MARK: frozenset({Field.OIF, Field.IPSEC_OUT}),
}


@st.composite
def treatments(draw: st.DrawFn, stage: Stage, path: Path) -> Ruleset:
    """A ruleset that translates or marks, in chains that may be left from within."""
    without = NOT_THERE[stage]

    def items(jumps: list[str]) -> tuple[Item, ...]:
        found: list[Item] = []
        for _ in range(draw(st.integers(1, 6))):
            actions = [*TREATMENTS[stage], *LOGS[:1], *map(Jump, jumps), Leave()]
            looking = draw(st.lists(st.sampled_from(LOOKING), unique=True, max_size=1))
            found.append(Rule(draw(cubes(without)), draw(st.sampled_from(actions)), tuple(looking)))
        if draw(st.booleans()):
            lookup = draw(lookups([], without))
            some = draw(st.sampled_from([TREATMENTS[stage][:1], [*TREATMENTS[stage], Leave()]]))
            entries = (
                replace(entry, action=draw(st.sampled_from(some))) for entry in lookup.entries
            )
            found.insert(0, replace(lookup, entries=tuple(entries)))
        return tuple(found)

    inner = Chain("inner", items([]))
    base = Chain("base", items([inner.name]))
    chains = (base, inner) if _is_read(inner.name, (base,)) else (base,)
    bases = (Base(stage, path, base.name),)
    return Ruleset(bases, chains, address_tests=TESTS, dynamic_sets=(KEPT,))


# --- packets -------------------------------------------------------------------------------------


def packets(ruleset: Ruleset) -> st.SearchStrategy[dict[Field, int]]:
    """Well formed packets with values at, and next to, the ends of the ruleset's ranges."""
    edges: dict[Field, set[int]] = {f: set() for f in Field}
    for chain in ruleset.chains:
        for item in chain.items:
            for where, low, high in _ranges(item):
                edges[where] |= {low, high, low - 1, high + 1}
    edges[Field.IIF] = edges[Field.OIF] = {name_range(name)[0] for name in NAMES}
    edges[Field.CT_HELPER] = {name_range(name)[0] for name in HELPERS}
    edges[Field.L4PROTO] |= set(PROTOCOLS)
    edges[Field.DADDR_TYPE] = set(range(1, 6))
    for where in (Field.SPORT, Field.DPORT, Field.ICMP_TYPE, Field.ICMPV6_TYPE, Field.HOP_LIMIT):
        edges[where] |= {0, 8, 80, 255}
    edges[Field.SADDR_TYPE] = set(range(1, 6))
    edges[Field.CT_STATE] = set(State)
    edges[Field.SMAC] |= {0, 1, 3, 0x0200_0000_0099}
    edges[Field.DSCP] |= {0, 46, 63}
    edges[Field.SIZE] |= {0, 100, 65535}
    edges[Field.ORIG_DPORT] |= {0, 8, 80, 255}
    for where in ADDRESS:
        edges[where] |= {low for low, _ in ADDRESSES}
    choices: dict[Field, list[int]] = {
        where: sorted(n for n in numbers if n in UNIVERSE[where])
        for where, numbers in edges.items()
        if numbers and where is not Field.FAMILY
    }
    # One draw a packet: thirty of them would take ten times as long as all that is proved of it.
    return st.randoms(use_true_random=True).map(lambda random: _packet(random, choices))


def _ranges(item: Item) -> Iterator[tuple[Field, int, int]]:
    for where, values in item.cube:
        yield from ((where, low, high) for low, high in values)
    if isinstance(item, Lookup):
        for entry in item.entries:
            for where, (low, high) in zip(item.fields, entry.key, strict=True):
                yield where, low, high


def _packet(random: Random, choices: dict[Field, list[int]]) -> dict[Field, int]:
    draw = random.choice
    family = draw([4, 6])

    def of_family(where: Field) -> int:
        return draw([n for n in choices[where] if (n >= V6_BASE) == (family == 6)])

    packet = {Field.FAMILY: family}
    for where in (Field.IIF, Field.OIF, Field.CT_STATE):
        packet[where] = draw(choices[where])
    if draw((True, False)):
        packet[Field.CT_HELPER] = draw(choices[Field.CT_HELPER])
    for where in ENDS:
        packet[where] = of_family(where)
    types = (1, 2, 3, 4, 5) if family == 4 else (1, 2, 4, 5)
    for where in (Field.SADDR_TYPE, Field.DADDR_TYPE):
        packet[where] = draw(types)
    for where in (Field.DSCP, Field.SIZE):
        packet[where] = draw(choices[where])
    if draw((True, False)):
        packet[Field.SMAC] = draw(choices[Field.SMAC])
    if packet[Field.CT_STATE] not in (State.INVALID, State.UNTRACKED):
        packet[Field.CT_DIRECTION] = draw((0, 1))
        packet[Field.ORIG_DADDR] = of_family(Field.ORIG_DADDR)
    for where in (Field.DNATED, Field.EXPECTED):
        packet[where] = draw((0, 1)) if Field.CT_DIRECTION in packet else 0
    for where in (Field.IPSEC, Field.IPSEC_OUT):
        packet[where] = draw((0, 1))
    for where in ADDRESS_TEST_FIELDS:
        packet[where] = _passes(random, where, packet)
    if family == 6:
        packet[Field.HOP_LIMIT] = draw(choices[Field.HOP_LIMIT])
    protocol = draw([n for n in choices[Field.L4PROTO] if n > 0 or family == 4])
    packet[Field.L4PROTO] = protocol
    for where in (Field.ANSWER, Field.TO_ASKER):
        packet[where] = draw((0, 1)) if protocol == 17 else 0
    if protocol in PORTED:
        packet[Field.SPORT] = draw(choices[Field.SPORT])
        packet[Field.DPORT] = draw(choices[Field.DPORT])
        if Field.CT_DIRECTION in packet:
            packet[Field.ORIG_DPORT] = draw(choices[Field.ORIG_DPORT])
    if protocol == 6:
        packet[Field.TCP_FLAGS] = draw([0, 2, 4, 0x10, 0x12, 0x14, 0x40, 0xC2])
    if (family, protocol) == (4, 1):
        packet[Field.ICMP_TYPE] = draw(choices[Field.ICMP_TYPE])
    if (family, protocol) == (6, 58):
        packet[Field.ICMPV6_TYPE] = draw(choices[Field.ICMPV6_TYPE])
    return packet


def _passes(random: Random, where: Field, packet: dict[Field, int]) -> int:
    """Whether an address passes a test: as it happens for a set, by its bits for a suffix."""
    is_source = where < Field.DADDR_TEST_0
    test = TESTS[where - (Field.SADDR_TEST_0 if is_source else Field.DADDR_TEST_0)]
    if not isinstance(test, HostSuffix):
        return random.choice((0, 1))
    address = packet[Field.SADDR if is_source else Field.DADDR]
    return int(packet[Field.FAMILY] == 6 and address & test.mask == test.value)
