"""Puts a policy's rules and a target's listing of them into the same words, so that they compare.

The ir asks of addresses by numbered tests, and remembers questions in one step. Targets ask sets
that have names of their own, and put elements into them one by one. It knows what our sets are
called, and what they stand for; it knows no listing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from policylang.analysis.machine import (
    Act,
    AddTo,
    Condition,
    ConnectionMarkIs,
    InSet,
    Line,
    Machine,
    MaskIs,
    NotAfter,
    Question,
    RateHolds,
    WeekTimeIs,
)
from policylang.backends.iptables import names as ipset
from policylang.backends.nft import sets as nft
from policylang.ir import actions as ir
from policylang.ir.ruleset import AddressTest, DynamicSet, HostSuffix, ListedSet, Rule, Ruleset
from policylang.packets.cube import Cube
from policylang.packets.fields import (
    DADDR_TESTS,
    REQUIRES,
    SADDR_TESTS,
    UDP,
    UNIVERSE,
    Field,
    State,
)
from policylang.packets.values import V6_BASE, Range, Ranges

FOREVER_S = 36500 * 24 * 60 * 60  # what an element of nft gets that is to stay; `Statements`
OF_UDP = Cube.of({Field.L4PROTO: Ranges.of(UDP)})
OF_IPV6 = Cube.of({Field.FAMILY: Ranges.of(6)})
OF_IPV4 = Cube.of({Field.FAMILY: Ranges.of(4)})

PORTED = next(values for field, _, values in REQUIRES if field is Field.DPORT)
OF_PORTED = Cube.of({Field.L4PROTO: PORTED})
OF_PORTLESS = Cube.of({Field.L4PROTO: UNIVERSE[Field.L4PROTO] - PORTED})

# syslog(3) and what both targets take for it; LOGLEVEL_WARNING is what they take where none is
# given (nft_log.c, libxt_LOG.c).
LEVELS = {None: "warn", "warning": "warn", "error": "err"}

DAY_S = 24 * 60 * 60
WEEK_S = 7 * DAY_S

# What conntrack keeps with a connection, and knows of no other packet.
KEPT = (Field.CT_DIRECTION, Field.ORIG_DADDR, Field.ORIG_DPORT)
OF_CONNECTION = Cube.of({Field.CT_STATE: Ranges.of(State.NEW, State.ESTABLISHED, State.RELATED)})

TESTED = {
    **{f: (Field.SADDR, n) for n, f in enumerate(SADDR_TESTS)},
    **{f: (Field.DADDR, n) for n, f in enumerate(DADDR_TESTS)},
}
AT = {ir.End.SOURCE: Field.SADDR, ir.End.DESTINATION: Field.DADDR}

QUESTIONS, ASKERS = "questions", "askers"
QUESTION_INTERFACES, QUESTION_PORTS = "question interfaces", "question ports"

# The elements that a remembered question becomes, by target: what answers it has the same values
# the other way round.
REMEMBERED: Mapping[str, tuple[tuple[str, tuple[Field, ...]], ...]] = {
    "nft": (
        (QUESTIONS, (Field.SADDR, Field.SPORT, Field.OIF)),
        (QUESTIONS, (Field.DADDR, Field.SPORT, Field.OIF)),
    ),
    # No type of ipset has all three.
    "iptables": (
        (QUESTION_INTERFACES, (Field.SADDR, Field.OIF)),
        (QUESTION_INTERFACES, (Field.DADDR, Field.OIF)),
        (QUESTION_PORTS, (Field.SADDR, Field.SPORT)),
        (QUESTION_PORTS, (Field.DADDR, Field.SPORT)),
    ),
}
ANSWERED: Mapping[str, frozenset[InSet]] = {
    "nft": frozenset({InSet(QUESTIONS, (Field.DADDR, Field.DPORT, Field.IIF))}),
    "iptables": frozenset(
        {
            InSet(QUESTION_INTERFACES, (Field.DADDR, Field.IIF)),
            InSet(QUESTION_PORTS, (Field.DADDR, Field.DPORT)),
        }
    ),
}
ASKED = InSet(ASKERS, (Field.DPORT,))


# libxt_limit.c, libxt_hashlimit.c: a rate is kept as the time between two packets, a whole number
# of steps, and printed by the finest unit that comes near it.
# XT_LIMIT_SCALE, of which fewer steps than 100 are given to the other; XT_HASHLIMIT_SCALE_v2.
STEPS_A_SECOND = {10_000: 100, 1_000_000: 1}
UNITS_S = (86_400, 3600, 60, 1)


def listed_rates(ruleset: Ruleset) -> dict[Fraction, Fraction]:
    """For rates of a policy, and those that iptables may list for them, one that stands for all.

    It holds not every rate, and says of some that it holds another than that: 5999 a second are
    6024 (166 steps of a microsecond), and listed so. Two rates that are listed alike are one.
    """
    found: dict[Fraction, Fraction] = {}
    guards = (
        guard
        for chain in ruleset.chains
        for item in chain.items
        if isinstance(item, Rule)
        for guard in item.guards
        if isinstance(guard, ir.RateGuard)
    )
    for guard in guards:
        unit_s = ir.UNIT_S[guard.unit]
        alike = {Fraction(guard.count, unit_s)}
        for scale, least in STEPS_A_SECOND.items():
            steps, rest = divmod(scale * unit_s, guard.count)
            if steps and (steps >= least or not rest):
                alike.add(_printed(steps, scale))
        joined = {found[rate] for rate in alike if rate in found}
        alike |= {rate for rate, stands in found.items() if stands in joined}
        found |= dict.fromkeys(alike, min(alike))
    return found


def _printed(steps: int, scale: int) -> Fraction:
    shown = UNITS_S[0]
    for unit in UNITS_S[1:]:
        if steps > scale * unit or scale * unit // steps < scale * unit % steps:
            break
        shown = unit
    return Fraction(scale * shown // steps, shown)


def set_names(ruleset: Ruleset, target: str) -> dict[str, str]:
    """What our sets stand for, by their names in the kernel."""
    backend = nft if target == "nft" else ipset
    names = {
        backend.dynamic_set_name(declared.name, family): declared.name
        for declared in ruleset.dynamic_sets
        for family in (4, 6)
    }
    if target == "nft":
        return names | {f"questions.v{f}": QUESTIONS for f in (4, 6)} | {"askers.ports": ASKERS}
    names |= dict.fromkeys(ipset.QUESTION_INTERFACES.values(), QUESTION_INTERFACES)
    names |= dict.fromkeys(ipset.QUESTION_PORTS.values(), QUESTION_PORTS)
    return names | {ipset.ASKER_PORTS: ASKERS}


# --- the policy -------------------------------------------------------------------------------


def as_asked(machine: Machine, ruleset: Ruleset, target: str, utc_offset_s: int = 0) -> Machine:
    """A policy's rules, with what a target's are put into words for by `as_listed`.

    Local time is `utc_offset_s` ahead of UTC: by so much nft changes times when it loads them.
    """
    offset_s = utc_offset_s if target == "nft" else None
    rates = listed_rates(ruleset) if target == "iptables" else {}
    times = {declared.name: declared.timeout_s for declared in ruleset.dynamic_sets}
    tests = ruleset.address_tests
    return replace(
        machine,
        chains={
            name: tuple(
                new
                for line in lines
                for rated in _at_one_rate(line, rates)
                for timed in _in_utc(rated, offset_s)
                for asked in _untested(timed, tests)
                for owned in _of_connections(asked)
                for meant in _for_whom(owned)
                for new in _put(meant, target, times)
            )
            for name, lines in machine.chains.items()
        },
    )


def _at_one_rate(line: Line, rates: Mapping[Fraction, Fraction]) -> Iterator[Line]:
    """The line, with one of the rates that are listed alike for all of them."""
    asked = tuple(_rated(condition, rates) for condition in line.conditions)
    yield line if asked == line.conditions else replace(line, conditions=asked)


def _rated(condition: Condition, rates: Mapping[Fraction, Fraction]) -> Condition:
    match condition.question:
        case RateHolds(per_s=per_s) as rate:
            return replace(condition, question=replace(rate, per_s=rates.get(per_s, per_s)))
        case _:
            return condition


def _in_utc(line: Line, offset_s: int | None) -> Iterator[Line]:
    """The line, with what it asks of local time asked of UTC; None: the target knows both."""
    if offset_s is None or not line.conditions:
        yield line
        return
    asked = tuple(replace(c, question=_utc(c.question, offset_s)) for c in line.conditions)
    yield line if asked == line.conditions else replace(line, conditions=asked)


def _utc(question: Question, offset_s: int) -> Question:
    match question:
        case WeekTimeIs(week_s, True):
            return WeekTimeIs(Ranges.merged(_moved(week_s, offset_s)))
        case NotAfter(last_day, True):
            return NotAfter(last_day, is_local=False)
        case _:
            return question


def _moved(week_s: Ranges, offset_s: int) -> Iterator[Range]:
    """Windows of a local week in UTC.

    Of a window that spans midnight in UTC, nft 1.0.6 says that it is not between its end and its
    start, and so leaves out its first and its last second (evaluate.c, `meta hour`).
    """
    for day in range(0, WEEK_S, DAY_S):
        for low, high in week_s & Ranges.between(day, day + DAY_S - 1):
            first, last = low - offset_s, high - offset_s
            if first // DAY_S == last // DAY_S:
                pieces = [(first, last)]
            else:
                midnight = last // DAY_S * DAY_S
                pieces = [(first + 1, midnight - 1), (midnight, last - 1)]
            yield from ((a % WEEK_S, b % WEEK_S) for a, b in pieces if a <= b)


def _untested(line: Line, tests: tuple[AddressTest, ...]) -> Iterator[Line]:
    """The line, with conditions or values for what its cubes say of address tests."""
    plain = tuple(cube for cube in line.cubes if not any(f in TESTED for f in cube.fields))
    if plain:
        yield line if plain == line.cubes else replace(line, cubes=plain)
    for cube in line.cubes:
        if cube in plain:
            continue
        ways = [(cube.without(*TESTED), line.conditions)]
        for f, values in cube:
            if f in TESTED:
                at, number = TESTED[f]
                test, holds = tests[number], 1 in values
                ways = [
                    (one & part, (*conditions, *more))
                    for one, conditions in ways
                    for part, more in _meaning(test, at, holds=holds)
                ]
        for one, conditions in ways:
            if not one.is_empty:
                yield replace(line, cubes=(one,), conditions=conditions)


def _meaning(
    test: AddressTest, at: Field, *, holds: bool
) -> Iterator[tuple[Cube, tuple[Condition, ...]]]:
    """The packets that pass a test (or do not): disjoint cubes, each with conditions."""
    match test:
        case DynamicSet(name):
            yield Cube(), (Condition(InSet(name, (at,)), holds),)
        case ListedSet(addresses=addresses):
            yield Cube.of({at: addresses if holds else UNIVERSE[at] - addresses}), ()
        case HostSuffix(value, mask):
            yield OF_IPV6, (Condition(MaskIs(at, value, mask), holds),)
            if not holds:
                yield OF_IPV4, ()


def _of_connections(line: Line) -> Iterator[Line]:
    """The line for the packets that have what it asks: a packet of no connection travels no way.

    It was dialled nowhere, and no mark is kept with it.
    """
    is_marked = any(isinstance(c.question, ConnectionMarkIs) for c in line.conditions)
    cubes = tuple(
        cube & OF_CONNECTION if is_marked or any(f in KEPT for f in cube.fields) else cube
        for cube in line.cubes
    )
    if cubes == line.cubes:
        yield line
    elif cubes := tuple(cube for cube in cubes if not cube.is_empty):
        yield replace(line, cubes=cubes)


def _for_whom(line: Line) -> Iterator[Line]:
    """The line for the packets that its act is for; without ports for what has none."""
    pieces: list[tuple[Cube, Act]]
    match line.act:
        case ir.Masquerade(ports=(_, _)) | ir.SourceNat(ports=(_, _)) as act:
            pieces = [(OF_PORTED, act), (OF_PORTLESS, replace(act, ports=None))]
        case ir.RedirectToSelf() as act:
            pieces = [(OF_PORTED, act)]
        case ir.TransparentProxy(protocol=protocol) as act:
            pieces = [(Cube.of({Field.L4PROTO: Ranges.of(protocol)}), act)]
        case _ as act:
            yield replace(line, act=_plain(act), cubes=_of_family(line.cubes, act))
            return
    for whom, what in pieces:
        cubes = _of_family(_within(line.cubes, whom), what)
        if cubes:
            yield replace(line, act=_plain(what), cubes=cubes)


def _of_family(cubes: tuple[Cube, ...], act: Act) -> tuple[Cube, ...]:
    """The packets that addresses of a family can be given to."""
    match act:
        case ir.SourceNat(addresses=(low, _)) | ir.MapPrefix(prefix=(low, _)):
            return _within(cubes, OF_IPV6 if low >= V6_BASE else OF_IPV4)
        case ir.DestinationNat(targets):
            return _within(cubes, OF_IPV6 if targets.pairs[0][0] >= V6_BASE else OF_IPV4)
        case _:
            return cubes


def _within(cubes: tuple[Cube, ...], whole: Cube) -> tuple[Cube, ...]:
    return tuple(part for cube in cubes if not (part := cube & whole).is_empty)


def _plain(act: Act) -> Act:
    """One of several ways to say the same."""
    match act:
        case ir.MapPrefix(ir.End.SOURCE, (low, high)) if low == high:
            return ir.SourceNat((low, high))
        case ir.MapPrefix(ir.End.DESTINATION, (low, high)) if low == high:
            return ir.DestinationNat(Ranges.of(low))
        case ir.DestinationNat(targets, port, True) if targets.single is not None:
            return ir.DestinationNat(targets, port)
        case ir.Log(prefix, level, None):
            return ir.Log(prefix, LEVELS.get(level, level))
        case ir.Log(prefix, _, group):
            return ir.Log(prefix, None, group)
        case _:
            return act


def _put(line: Line, target: str, times: Mapping[str, int | None]) -> Iterator[Line]:
    """The line, or those that put what it remembers into sets."""
    match line.act:
        case ir.AddToSet(name, end, timeout_s):
            timeout_s = times.get(name) if timeout_s is None else timeout_s
            yield replace(line, act=AddTo(name, (AT[end],), timeout_s))
        case ir.RememberQuestion(timeout_s):
            cubes = tuple(cube & OF_UDP for cube in line.cubes)
            for name, fields in REMEMBERED[target]:
                yield replace(line, cubes=cubes, act=AddTo(name, fields, timeout_s))
        case ir.RememberAsker(timeout_s):
            cubes = tuple(cube & OF_UDP for cube in line.cubes)
            yield replace(line, cubes=cubes, act=AddTo(ASKERS, (Field.SPORT,), timeout_s))
        case _:
            yield line


# --- a listing --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Names:
    stands_for: Mapping[str, str]
    times: Mapping[str, int | None]
    answered: frozenset[InSet]
    rates: Mapping[Fraction, Fraction]


def as_listed(machine: Machine, ruleset: Ruleset, target: str) -> Machine:
    """A target's rules as they were read, with our sets by what they stand for."""
    times = {declared.name: declared.timeout_s for declared in ruleset.dynamic_sets}
    rates = listed_rates(ruleset) if target == "iptables" else {}
    names = _Names(set_names(ruleset, target), times, ANSWERED[target], rates)
    return replace(
        machine,
        chains={
            name: tuple(_listed(owned, names) for line in lines for owned in _of_connections(line))
            for name, lines in machine.chains.items()
        },
    )


def _listed(line: Line, names: _Names) -> Line:
    act = _plain(line.act)
    if isinstance(act, AddTo):
        name = names.stands_for.get(act.name, act.name)
        timeout_s = act.timeout_s if act.timeout_s is not None else names.times.get(name)
        act = AddTo(name, act.fields, None if timeout_s in (0, FOREVER_S) else timeout_s)
    if not any(isinstance(c.question, InSet | RateHolds) for c in line.conditions):
        return line if act is line.act else replace(line, act=act)
    conditions = tuple(_renamed(condition, names) for condition in line.conditions)
    cubes = line.cubes
    for questions, f in ((names.answered, Field.ANSWER), (frozenset({ASKED}), Field.TO_ASKER)):
        for holds in (True, False):
            found = {c.question for c in conditions if c.holds is holds}
            if questions <= found and (holds or len(questions) == 1):
                conditions = tuple(
                    c for c in conditions if c.holds is not holds or c.question not in questions
                )
                answer = Cube.of({f: Ranges.of(int(holds))})
                cubes = tuple(cube & answer & OF_UDP for cube in cubes)
    return replace(line, act=act, cubes=cubes, conditions=conditions)


def _renamed(condition: Condition, names: _Names) -> Condition:
    match condition.question:
        case InSet(name, fields):
            return replace(condition, question=InSet(names.stands_for.get(name, name), fields))
        case _:
            return _rated(condition, names.rates)
