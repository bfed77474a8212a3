"""Whether two rulesets treat every packet alike, what they count included.

Rulesets are of one policy with and without a statement: their questions are the same where their
values are. It knows no statement and no lint.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from policylang.analysis.diagram import Packets, Space
from policylang.analysis.following import Follower
from policylang.analysis.machine import ConnectionsHold, Line, Machine, RateHolds
from policylang.analysis.modelled import machine_of
from policylang.ir import actions as ir
from policylang.ir.ruleset import Ruleset

Key = tuple[object, ...]  # a base chain by stage and hook, and what is done there


@dataclass(frozen=True, slots=True)
class Meaning:
    """The packets that meet each act, by base chain, and those that are let pass."""

    met: dict[Key, Packets]
    tests: tuple[object, ...]  # what the fields of address tests ask


def meaning_of(ruleset: Ruleset, space: Space) -> Meaning:
    """What a ruleset does, chain by chain, to all packets there are."""
    machine = _with_counts(machine_of(ruleset))
    follower = Follower(machine, space, address_tests=ruleset.address_tests)
    met: dict[Key, Packets] = {}
    for base in machine.bases:
        reading = follower.read(base, space.everything)
        for one in reading.met:
            if isinstance(one.line.act, ir.Jump):
                continue
            key = (base.stage, base.hook, one.line.act)
            met[key] = met.get(key, space.nothing) | one.packets
        met[base.stage, base.hook, "passed"] = reading.passed
    return Meaning(met, ruleset.address_tests)


def is_same(one: Meaning, other: Meaning) -> bool:
    """Whether nothing tells the two apart."""
    return one.tests == other.tests and one.met == other.met


def is_counted(line: Line) -> bool:
    """Whether to ask a line's questions of a packet changes what they say of the next one."""
    return any(isinstance(c.question, RateHolds | ConnectionsHold) for c in line.conditions)


def _with_counts(machine: Machine) -> Machine:
    """The same, with what is asked of rates and counts told as something that is done.

    A rate that more packets ask is another one, even where those pass anyway.
    """
    return replace(
        machine,
        chains={
            name: tuple(one for line in lines for one in _counted(line))
            for name, lines in machine.chains.items()
        },
    )


def _counted(line: Line) -> tuple[Line, ...]:
    if not is_counted(line):
        return (line,)
    counts = [c for c in line.conditions if isinstance(c.question, RateHolds | ConnectionsHold)]
    others = tuple(c for c in line.conditions if c not in counts)
    spans = [o.span and (o.span.file.name, o.span.start) for o in line.origins]
    # Chains are numbered, so their names tell nothing.
    does = "jump" if isinstance(line.act, ir.Jump) else str(line.act)
    return (replace(line, act=ir.Log(f"{counts} {spans} {does}"), conditions=others), line)
