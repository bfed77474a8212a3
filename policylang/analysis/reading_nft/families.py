"""Of which family the packets are that a rate counts, where the chains that lead there say so."""

from __future__ import annotations

from dataclasses import replace

from policylang.analysis.machine import (
    Condition,
    ConnectionsHold,
    Goto,
    Line,
    Machine,
    RateHolds,
)
from policylang.ir.actions import Jump
from policylang.packets.fields import Field

BOTH = frozenset({4, 6})


def settled(machine: Machine) -> Machine:
    """The machine with the family of each rate and count whose packets are of one alone."""
    if not any(_counts(line) for lines in machine.chains.values() for line in lines):
        return machine
    reached = _families(machine)
    return Machine(
        machine.bases,
        {
            name: tuple(_settled(line, reached.get(name, BOTH)) for line in lines)
            for name, lines in machine.chains.items()
        },
    )


def _counts(line: Line) -> bool:
    return any(_is_open(condition) for condition in line.conditions)


def _is_open(condition: Condition) -> bool:
    match condition.question:
        case RateHolds(family=None) | ConnectionsHold(family=None):
            return True
    return False


def _families(machine: Machine) -> dict[str, frozenset[int]]:
    """The families of the packets that come to each chain."""
    found: dict[str, frozenset[int]] = {}
    waiting = [(base.chain, frozenset(base.families)) for base in machine.bases]
    while waiting:
        name, families = waiting.pop()
        new = families - found.get(name, frozenset())
        if not new or name not in machine.chains:
            continue
        found[name] = found.get(name, frozenset()) | new
        for line in machine.chains[name]:
            match line.act:
                case Jump(chain) | Goto(chain):
                    waiting.append((chain, new & _of(line)))
    return found


def _of(line: Line) -> frozenset[int]:
    return frozenset(n for n in BOTH if any(n in cube[Field.FAMILY] for cube in line.cubes))


def _settled(line: Line, families: frozenset[int]) -> Line:
    within = families & _of(line)
    if not _counts(line) or len(within) != 1:
        return line
    (family,) = within
    conditions = tuple(_with_family(c, family) if _is_open(c) else c for c in line.conditions)
    return replace(line, conditions=conditions)


def _with_family(condition: Condition, family: int) -> Condition:
    question = condition.question
    assert isinstance(question, RateHolds | ConnectionsHold)
    return replace(condition, question=replace(question, family=family))
