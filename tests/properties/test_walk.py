"""What is said of a cube holds for each of its packets, and no more is said than is so.

Rulesets are made at random, and what the optimiser makes of them; the packets of a cube are taken
from both sides of every border, so that what none of them meets, no packet meets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice, product
from math import prod
from random import Random
from typing import Any

import pytest

from policylang.diagnostics import Report
from policylang.ir import actions as ir
from policylang.ir import walk as walking
from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import (
    Base,
    Chain,
    Entry,
    HostSuffix,
    Lookup,
    Rule,
    Ruleset,
)
from policylang.ir.stages import Path, Stage
from policylang.ir.walk import Possible, Walker, walk
from policylang.optimise import optimise
from policylang.packets.cube import EVERYTHING, Cube, Packet
from policylang.packets.fields import REQUIRES, SADDR_TESTS, Field, State
from policylang.packets.values import V6_BASE, Ranges, parse_one_address
from tests.passes.rulesets import edges_of, made, packets
from tests.properties.evaluate import evaluate

SEEDS = range(160)
PACKETS = 12  # looked at for each ruleset
MOST_WIDE, MOST_DRAWN = 120, 1000  # packets that stand for all of a cube

DENYING = (ir.Drop, ir.Reject)
NEVER_SURE = (ir.Native, ir.Queue, ir.RememberAsker, ir.RememberQuestion)


def _rulesets() -> Iterator[tuple[int, Ruleset]]:
    for seed in SEEDS:
        ruleset = made(seed)
        yield seed, ruleset
        yield seed, optimise(ruleset, Report())


def _is_sure(ruleset: Ruleset) -> bool:
    """Whether nothing in a ruleset is unknown where the packet is known."""
    items = [item for chain in ruleset.chains for item in chain.items]
    rules = [item for item in items if isinstance(item, Rule)]
    return not any(rule.guards or isinstance(rule.action, NEVER_SURE) for rule in rules)


def _pinned(packet: Packet) -> Cube:
    return Cube.of({f: Ranges.of(value) for f, value in packet.items()})


def _is_denied(ruleset: Ruleset, base: Base, packet: Packet, **how: Any) -> bool:
    return isinstance(evaluate(ruleset, base.stage, base.path, packet, **how).action, DENYING)


def _complaint(walker: Walker, packet: Packet, random: Random, seed: int) -> str | None:
    """What is wrong with the answers about one packet, if anything is."""
    ruleset = walker.ruleset
    guards = [
        guard
        for chain in ruleset.chains
        for item in chain.items
        if isinstance(item, Rule)
        for guard in item.guards
    ]
    some = {guard for guard in guards if random.random() < 0.5}
    for base in ruleset.bases:
        said = walker.walk(base.stage, base.path, _pinned(packet))
        for holding in (set(guards), set[ir.Guard](), some):
            is_denied = _is_denied(ruleset, base, packet, guards_hold=holding.__contains__)
            if not (said.may_deny if is_denied else said.may_accept):
                return f"seed {seed}: {base.path}: denied is {is_denied}, but {said}: {packet}"
        if _is_sure(ruleset) and said.may_accept == said.may_deny:
            return f"seed {seed}: {base.path}: {said} of one packet {packet}"
    return None


def _complaints(made_rulesets: Iterator[tuple[int, Ruleset]]) -> Iterator[str]:
    for seed, ruleset in made_rulesets:
        random = Random(seed)
        walker = Walker(ruleset)
        for packet in packets(ruleset, random, PACKETS):
            complaint = _complaint(walker, packet, random, seed)
            if complaint is not None:
                yield complaint


def test_answers_about_one_packet() -> None:
    """Whatever guards say, the fate of a packet is possible; without them it is the only one."""
    assert not list(_complaints(_rulesets()))


def _within(cube: Cube, edges: dict[Field, tuple[int, ...]]) -> Iterator[Packet]:
    """A packet for each way in which the packets of a cube can lie between borders."""
    values = {f: [n for n in edges[f] if n in cube[f]] or [cube[f].pairs[0][0]] for f in edges}
    if prod(len(near) for near in values.values()) > MOST_DRAWN:
        return
    for numbers in product(*values.values()):
        packet = dict(zip(values, numbers, strict=True))
        if not all(packet[needs] in held for f, needs, held in REQUIRES if f in cube):
            continue
        made_of = {
            f: n
            for f, n in packet.items()
            if all(packet[needs] in held for g, needs, held in REQUIRES if f is g)
        }
        if cube.holds(made_of) and not _pinned(made_of).is_empty:
            yield made_of


def test_answers_about_cubes() -> None:
    """Of many packets, both is said to be possible where both is, and nothing else."""
    seen: Counter[tuple[bool, bool]] = Counter()
    for seed, ruleset in islice(_rulesets(), 200):
        random = Random(seed)
        edges = {
            **edges_of([i.cube for c in made(seed).chains for i in c.items]),
            Field.FAMILY: (4, 6),
        }
        edges = {**edges, Field.L4PROTO: edges.get(Field.L4PROTO, (0, 1, 6, 17, 33, 58, 132))}
        edges = {f: edges[f] for f in sorted(edges)}
        walker = Walker(ruleset)
        for packet in packets(made(seed), random, 4):
            cube = _pinned(packet)
            cube = cube.without(*random.sample(cube.fields, min(len(cube.fields), 2)))
            among = list(islice(_within(cube, edges), MOST_WIDE + 1))
            if len(among) > MOST_WIDE or not among:
                continue
            for base in ruleset.bases:
                said = walker.walk(base.stage, base.path, cube)
                fates = {_is_denied(ruleset, base, one, guards_hold=True) for one in among}
                assert said.may_deny or True not in fates, (seed, said, cube)
                assert said.may_accept or False not in fates, (seed, said, cube)
                if _is_sure(ruleset) and not said.is_guess:
                    seen[said.may_accept, said.may_deny] += 1
                    assert said == Possible(False in fates, True in fates), (seed, cube)
    assert len(seen) == 3 and min(seen.values()) > 20, seen


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("_may_meet", lambda wanted, terms: all(f not in terms for f, _ in wanted)),
        ("_keep", lambda kept, cube: None),
        ("_passes", lambda test, address: False),
        ("MOST_SINGLY", -1),
    ],
)
def test_broken_walker_is_told(
    name: str, instead: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walking, name, instead)
    if name == "MOST_SINGLY":  # no mistake: only another way to the same answers
        assert not list(_complaints(islice(_rulesets(), 80)))
    elif name == "_passes":
        with pytest.raises(AssertionError):
            test_suffix_of_a_known_address_is_known()
    else:
        assert next(_complaints(_rulesets()), None) is not None


# --- single points ----------------------------------------------------------------------------

BY_STATEMENT = (Origin(Why.WRITTEN, name="one"),)
BY_DEFAULT = (Origin(Why.DEFAULT),)
END = Rule(EVERYTHING, ir.Drop(), (), BY_DEFAULT)


def _ruleset(*items: Rule | Lookup, chains: tuple[Chain, ...] = (), **other: Any) -> Ruleset:
    first = Chain("input", (*items, END))
    return Ruleset((Base(Stage.FILTER, Path.INPUT, "input"),), (first, *chains), **other)


def _ask(ruleset: Ruleset, **terms: int) -> Possible:
    cube = Cube.of({Field[name]: Ranges.of(value) for name, value in terms.items()})
    return walk(ruleset, Stage.FILTER, Path.INPUT, cube)


def _accept(guards: tuple[ir.Guard, ...] = (), **terms: int) -> Rule:
    cube = Cube.of({Field[name]: Ranges.of(value) for name, value in terms.items()})
    return Rule(cube, ir.Accept(), guards, BY_STATEMENT)


def test_says_whose_statement_decides() -> None:
    ruleset = _ruleset(_accept(DPORT=22))
    both = _ask(ruleset)
    assert [o.why for o in both.accepting] == [Why.WRITTEN]
    assert [o.why for o in both.denying] == [Why.DEFAULT]
    assert [o.why for o in both.origins] == [Why.WRITTEN, Why.DEFAULT]
    assert _ask(ruleset, DPORT=22, L4PROTO=6) == Possible(True, False)
    assert not _ask(ruleset, DPORT=23, L4PROTO=6).accepting


def test_element_says_whose_it_is() -> None:
    one, two = ((Origin(Why.WRITTEN, name=name),) for name in ("one", "two"))
    entries = (Entry(((22, 22),), ir.Accept(), one), Entry(((80, 90),), ir.Accept(), two))
    lookup = Lookup(Cube.of({Field.L4PROTO: Ranges.of(6)}), (Field.DPORT,), entries)
    said = _ask(_ruleset(lookup), L4PROTO=6, DPORT=85)
    assert [o.name for o in said.accepting] == ["two"] and not said.may_deny
    assert _ask(_ruleset(lookup), L4PROTO=17, DPORT=85) == Possible(False, True)


def test_stage_without_rules_lets_pass() -> None:
    assert walk(_ruleset(), Stage.SCREEN, Path.INPUT, EVERYTHING) == Possible(True, False)


@pytest.mark.parametrize(
    "guard",
    [
        ir.RateGuard(1, "second", 5),
        ir.ConnectionsGuard(2),
        ir.MarkGuard(1, 1),
        ir.OwnerGuard("user", Ranges.of(1), ()),
        ir.TimeGuard(Ranges.between(0, 5), is_local=False),
    ],
)
def test_guard_may_say_either(guard: ir.Guard) -> None:
    assert _ask(_ruleset(_accept((guard,)))) == Possible(True, True)


def test_membership_of_a_dynamic_set_is_unknown_until_it_is_known() -> None:
    ruleset = _ruleset(_accept(SADDR_TEST_0=1))
    assert _ask(ruleset, FAMILY=4) == Possible(True, True)
    assert _ask(ruleset, SADDR_TEST_0=1) == Possible(True, False)
    assert _ask(ruleset, SADDR_TEST_0=0) == Possible(False, True)


def test_suffix_of_a_known_address_is_known() -> None:
    ruleset = _ruleset(_accept(SADDR_TEST_0=1), address_tests=(HostSuffix(5, 0xFFFF),))
    held, other, v4 = (parse_one_address(a) for a in ("2001:db8::5", "2001:db8::6", "192.0.2.5"))
    assert held is not None and other is not None and v4 is not None
    assert _ask(ruleset, SADDR=held) == Possible(True, False)
    assert _ask(ruleset, SADDR=other) == Possible(False, True)
    assert _ask(ruleset, SADDR=v4) == Possible(False, True)
    assert _ask(ruleset, FAMILY=6) == Possible(True, True)
    assert SADDR_TESTS[0] is Field.SADDR_TEST_0 and held > V6_BASE


def test_line_of_a_target_counts_for_that_target_alone() -> None:
    native = Rule(EVERYTHING, ir.Native("nft", "accept", 4), (), BY_STATEMENT)
    ruleset = _ruleset(native)
    asked = (Stage.FILTER, Path.INPUT)
    v4, v6 = (Cube.of({Field.FAMILY: Ranges.of(family)}) for family in (4, 6))
    assert walk(ruleset, *asked, v4) == Possible(True, True)
    assert walk(ruleset, *asked, v4, target="nft") == Possible(True, True)
    assert walk(ruleset, *asked, v4, target="iptables") == Possible(False, True)
    assert walk(ruleset, *asked, v6) == Possible(False, True)


def test_what_is_too_large_is_said_to_be_a_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a cube falls into too many pieces both are thought possible, never one alone."""
    fields = (Field.SADDR, Field.DADDR, Field.SPORT, Field.DPORT)
    points = [Cube.of({f: Ranges.of(2 * n) for f in fields}) for n in range(20)]
    ruleset = _ruleset(*(Rule(cube, ir.Drop(), (), BY_STATEMENT) for cube in points))
    everything = (Stage.FILTER, Path.INPUT, EVERYTHING)
    assert walk(ruleset, *everything) == Possible(False, True)
    monkeypatch.setattr(walking, "MOST_PIECES", 20)
    assert walk(ruleset, *everything) == Possible(True, True, is_guess=True)
    monkeypatch.undo()
    monkeypatch.setattr(walking, "MOST_STEPS", 20)
    assert walk(ruleset, *everything) == Possible(True, True, is_guess=True)


def test_logging_at_a_rate_again_and_again_is_no_guess() -> None:
    log = Rule(EVERYTHING, ir.Log("x"), (ir.RateGuard(1, "second", 5),))
    chain = Chain("log", (log, log))
    jumps = [Rule(EVERYTHING, ir.Jump("log"), (ir.MarkGuard(1, 1),)) for _ in range(300)]
    said = walk(_ruleset(*jumps, chains=(chain,)), Stage.FILTER, Path.INPUT, EVERYTHING)
    assert said == Possible(False, True)


def test_packets_between_the_same_borders_have_one_fate() -> None:
    """Borders stand where a rule's or an element's values begin or end, and nowhere else."""
    entries = (Entry(((30, 40),), ir.Accept()),)
    lookup = Lookup(Cube.of({Field.L4PROTO: Ranges.of(6)}), (Field.DPORT,), entries)
    jump = Rule(Cube.of({Field.CT_STATE: Ranges.of(State.NEW)}), ir.Jump("more"))
    ruleset = _ruleset(jump, lookup, chains=(Chain("more", (_accept(SADDR=9),)),))
    borders = Walker(ruleset).borders(Stage.FILTER, Path.INPUT)
    assert borders[Field.DPORT] == (30, 41)
    assert borders[Field.SADDR] == (9, 10)
    assert borders[Field.CT_STATE] == (State.NEW, State.NEW + 1)
    assert Field.SPORT not in borders
    assert Walker(replace(ruleset, bases=())).borders(Stage.FILTER, Path.INPUT) == {}
