"""Two engines hold sets of packets, boxes and decision diagrams: they say the same of all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from random import Random

import pytest
from oxidd.bcdd import BCDDFunction
from oxidd.util import DDMemoryError

from policylang.analysis import diagram
from policylang.analysis.diagram import Packets, Space, TooLargeError
from policylang.analysis.following import Follower
from policylang.analysis.modelled import machine_of
from policylang.diagnostics import Report
from policylang.ir import actions as ir
from policylang.ir.ruleset import Lookup, Rule, Ruleset, entry_cube
from policylang.ir.walk import Walker
from policylang.optimise import optimise
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.packetset import PacketSet
from tests.analysis.diagrams import HOOKS
from tests.passes.rulesets import made

ROUNDS = 120
FIRST_SEED = 9000
MOST_CUBES = 5
MOST_PIECES = 400  # beyond that, boxes take minutes


def cubes_of(ruleset: Ruleset) -> Iterator[Cube]:
    """What the rules and elements of a ruleset are about."""
    for chain in ruleset.chains:
        for item in chain.items:
            if isinstance(item, Lookup):
                yield from (entry_cube(item, entry) for entry in item.entries)
            else:
                yield item.cube


def compare(random: Random) -> int:
    """Hold two sets in both ways, and ask both the same; returns how many questions were asked."""
    pool = list(dict.fromkeys(cubes_of(made(random.randrange(10**6)))))
    pool += [a & b for a, b in combinations(pool[:4], 2)]

    def some() -> list[Cube]:
        return [random.choice(pool) for _ in range(random.randint(0, MOST_CUBES))]

    space = Space()
    mine, theirs = PacketSet.of(some()), PacketSet.of(some())
    a, b = space.of_all(mine.cubes), space.of_all(theirs.cubes)
    same(space, mine | theirs, a | b)
    same(space, mine & theirs, a & b)
    difference = mine - theirs
    if len(difference.cubes) > MOST_PIECES:
        return 2
    same(space, difference, a - b)
    same(space, PacketSet((EVERYTHING,)) - theirs, ~b)
    assert mine.covers(theirs) == a.covers(b)
    assert mine.meets(theirs) == a.meets(b) == bool(a & b)
    assert bool(difference) == bool(a - b)
    are_equal = mine.covers(theirs) and theirs.covers(mine)
    assert are_equal == (a == b)
    assert bool(a ^ b) != are_equal
    reassembled(space, a - b)
    witnessed(difference, a - b)
    return 10


def same(space: Space, boxes: PacketSet, packets: Packets) -> None:
    """Both are the same packets."""
    assert space.of_all(boxes.cubes) == packets


def reassembled(space: Space, packets: Packets) -> None:
    """The cubes of a set are disjoint, none is empty, and together they are the set."""
    cubes = list(packets.cubes())
    for one, other in combinations(cubes[:30], 2):
        assert not one.meets(other), (one, other)
    assert not any(cube.is_empty for cube in cubes)
    assert space.of_all(cubes) == packets
    few, is_all = packets.regions(len(cubes))
    assert is_all and space.of_all(few) == packets
    if cubes:
        assert len(list(packets.cubes(1))) == 1
        _, is_all = packets.regions(len(cubes) - 1)
        assert not is_all


def witnessed(boxes: PacketSet, packets: Packets) -> None:
    """The witness of a set is one of its packets; an empty set has none."""
    witness = packets.witness()
    assert (witness is None) == (not boxes)
    if witness is not None:
        # What the witness leaves open may be anything: it says all that a box asks of it.
        assert any(
            all(f in witness and witness[f] in values for f, values in cube) for cube in boxes
        ), (witness, boxes)


def walked(random: Random) -> int:
    """Ask the walker, which knows boxes alone, and the follower what may become of some cubes.

    Where something is open the walker may think possible what is not, and never the reverse.
    """
    ruleset = made(random.randrange(10**6))
    if random.random() < 0.5:
        ruleset = optimise(ruleset, Report())
    space, walker = Space(), Walker(ruleset)
    follower = Follower(machine_of(ruleset), space, address_tests=ruleset.address_tests)
    pool = [EVERYTHING, *dict.fromkeys(cubes_of(ruleset))]
    asked = 0
    for base in follower.machine.bases:
        source = next(b for b in ruleset.bases if b.chain == base.chain)
        if base.is_nat or HOOKS.get(source.path) is not base.hook:
            continue
        for cube in random.sample(pool, min(4, len(pool))):
            if cube.is_empty:
                continue
            found = walker.walk(source.stage, source.path, cube)
            reading = follower.read(base, space.of(cube))
            said = bool(reading.passed), bool(reading.denied)
            allowed = found.may_accept, found.may_deny
            if said != allowed:
                is_open = found.is_guess or not is_sure(ruleset)
                assert is_open, (cube, said, found)
                assert all(a or not s for a, s in zip(allowed, said, strict=True)), (cube, said)
            asked += 1
    return asked


def is_sure(ruleset: Ruleset) -> bool:
    """Whether nothing is open where packets are known: no guards, and nobody who decides later."""
    open_ones = (ir.Native, ir.Queue, ir.RememberAsker, ir.RememberQuestion)
    rules = [i for c in ruleset.chains for i in c.items if isinstance(i, Rule)]
    return not any(rule.guards or isinstance(rule.action, open_ones) for rule in rules)


def _rounds(count: int = ROUNDS) -> Iterator[Random]:
    seconds = float(os.environ.get("POLICYLANG_ANALYSIS_SECONDS", 0))
    started, seed = time.monotonic(), FIRST_SEED
    while seed < FIRST_SEED + count or time.monotonic() - started < seconds:
        yield Random(seed)
        seed += 1


def test_boxes_and_diagrams_are_the_same_sets() -> None:
    assert sum(compare(random) for random in _rounds()) > 5 * ROUNDS


def test_walker_and_follower_agree() -> None:
    assert sum(walked(random) for random in _rounds(ROUNDS // 2)) > ROUNDS // 2


@pytest.mark.parametrize("operation", ["__and__", "__or__", "__sub__", "cubes"])
def test_a_broken_engine_is_found_out(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation that is wrong now and then does not go unseen."""
    right = getattr(diagram.Packets, operation)

    def wrong(self: Packets, *others: Packets) -> object:
        if operation == "cubes":
            return iter(list(right(self, *others))[1:])
        return self

    monkeypatch.setattr(diagram.Packets, operation, wrong)
    with pytest.raises(AssertionError):
        for random in _rounds():
            compare(random)


def test_it_is_too_large_when_it_is_so_with_all_cleared_away() -> None:
    """What nobody holds any more is cleared away first, by whoever finds no room."""
    space = Space()
    tries: list[bool] = []

    def without_room(times: int) -> Callable[[], BCDDFunction]:
        tries.clear()

        def attempt() -> BCDDFunction:
            tries.append(True)
            if len(tries) <= times:
                raise DDMemoryError("no room")
            return space.everything.function

        return attempt

    assert space.held(without_room(1)) == space.everything and len(tries) == 2
    with pytest.raises(TooLargeError):
        space.held(without_room(2))
