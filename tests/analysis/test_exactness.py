"""What sets of packets say is so: packet by packet, by brute force and in the real kernel.

`POLICYLANG_ANALYSIS_SECONDS=600` goes on for so long with each; `python -m tests.analysis.campaign`
does all of it by hand.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from policylang.analysis import modelled, passing
from policylang.analysis.machine import Condition, ConnectionMarkIs, MarkIs
from policylang.diagnostics import Report
from policylang.ir.stages import Path as Way
from policylang.packets.cube import Cube
from policylang.packets.fields import TCP, AddressType, Field, FlowDirection, State
from policylang.packets.values import Ranges, name_range
from policylang.pipeline import Text, ruleset_of
from tests.analysis.brute import policy_by_grid, ruleset_by_packets
from tests.analysis.campaign import Tally, journeys, shoot
from tests.analysis.diagrams import ALL_BITS, Diagrams
from tests.differential.campaign import Range, shooting_range
from tests.kernel.ground import obstacle

FIRST_SEED = 4000
RULESETS, PACKETS = 60, 15
POLICIES, GRID = 8, 120
WAYS, PROBES = 12, 30
SHOTS, IN_THE_KERNEL = 3, 350


def _seeds(count: int) -> Iterator[int]:
    seconds = float(os.environ.get("POLICYLANG_ANALYSIS_SECONDS", 0))
    started, seed = time.monotonic(), FIRST_SEED
    while seed < FIRST_SEED + count or time.monotonic() - started < seconds:
        yield seed
        seed += 1


def test_random_rules_do_to_sets_what_they_do_to_packets() -> None:
    assert sum(ruleset_by_packets(seed, PACKETS) for seed in _seeds(RULESETS)) > RULESETS


def test_every_packet_of_a_grid_has_the_fate_that_the_language_gives_it() -> None:
    assert sum(policy_by_grid(seed, GRID) for seed in _seeds(POLICIES)) > POLICIES * GRID / 2


def test_whole_ways_end_where_the_language_says() -> None:
    assert sum(journeys(seed, PROBES) for seed in _seeds(WAYS)) > WAYS


@pytest.mark.parametrize("seed", [24, 49], ids=["marks of this host's own", "sent where it was"])
def test_whole_ways_that_once_did_not(seed: int) -> None:
    assert journeys(seed, 60)


def test_a_packet_that_a_rule_puts_into_a_set_still_has_a_fate() -> None:
    """The set is asked further down: what comes there is in it, and was not when it came."""
    report = Report()
    text = """
    set seen = dynamic
    deny tcp 23 inbound add source to seen
    deny tcp 23 inbound from seen
    allow all inbound
    """
    ruleset = ruleset_of(Text(text, "t.policy", Path("/")), report)
    assert ruleset is not None, report.diagnostics
    diagrams = Diagrams(ruleset)
    journey = diagrams.follower.arriving(diagrams.space.everything, Way.INPUT)
    telnet = {Field.L4PROTO: Ranges.of(TCP), Field.DPORT: Ranges.of(23)}
    for is_held in (0, 1):
        asked = Cube.of({**telnet, Field.SADDR_TEST_0: Ranges.of(is_held)})
        packets = diagrams.space.of(asked & ARRIVES)
        for question in (MarkIs(0, ALL_BITS), ConnectionMarkIs(0, ALL_BITS)):
            packets &= diagrams.space.answered(Condition(question))
        assert journey.denied(diagrams.space).covers(packets), is_held
        assert not journey.accepted(diagrams.space).meets(packets), is_held


ARRIVES = Cube.of(
    {
        Field.CT_STATE: Ranges.of(State.NEW),
        Field.CT_DIRECTION: Ranges.of(FlowDirection.ORIGINAL),
        Field.DNATED: Ranges.of(0),
        Field.DADDR_TYPE: Ranges.of(AddressType.LOCAL),
        Field.IIF: Ranges.merged([name_range("eth0")]),
    }
)


@pytest.fixture(scope="module")
def ground() -> Iterator[Range]:
    reason = obstacle()
    if reason is not None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with shooting_range() as made:
        yield made


def test_the_kernel_does_what_the_sets_say(ground: Range) -> None:
    tally = Tally()
    for seed in _seeds(SHOTS):
        shoot(ground, seed, IN_THE_KERNEL, tally)
    assert not tally.differences, tally.differences[0]
    assert tally.compared["packets with the kernel"] > IN_THE_KERNEL * tally.policies


def _blind_to_guards(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda guard, family, owners: _opposite(right(guard, family, owners))


def _opposite(condition: Any) -> Any:
    return type(condition)(condition.question, not condition.holds)


def _of_the_first(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, line: right(self, replace(line, cubes=line.cubes[:1]))


def _of_none(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, line, packets: packets


BROKEN: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "a guard that is turned round": (modelled, "condition", _blind_to_guards),
    "all cubes of a line but one": (passing.ChainFollower, "match", _of_the_first),
    "a change that is not made": (passing.ChainFollower, "changed", _of_none),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_wrong_reading_is_found_out(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, breaking = BROKEN[broken]
    monkeypatch.setattr(where, name, breaking(getattr(where, name)))
    with pytest.raises(AssertionError):
        for seed in range(FIRST_SEED, FIRST_SEED + 400):
            ruleset_by_packets(seed, PACKETS)
            if seed % 10 == 0:
                policy_by_grid(seed, GRID)
