"""The rules of a policy as packets meet them: from the ir's stages to netfilter's hooks.

It knows the order of the stages, and no target's places or words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction

from policylang.analysis.machine import (
    Act,
    Base,
    CgroupIs,
    Condition,
    ConnectionMarkIs,
    ConnectionsHold,
    Hook,
    Line,
    Machine,
    MarkIs,
    NotAfter,
    Obscure,
    OwnerIs,
    Per,
    RateHolds,
    Unknown,
    WeekTimeIs,
)
from policylang.ir import actions as ir
from policylang.ir.actions import UNIT_S, Action, Guard
from policylang.ir.origin import Origin, joined
from policylang.ir.ruleset import Item, Lookup, Ruleset, entry_cube
from policylang.ir.stages import Path, Stage
from policylang.packets.cube import Cube
from policylang.packets.fields import Field
from policylang.packets.packetset import compact
from policylang.packets.values import Ranges

# The order is that of the stages. Priorities are netfilter's own (linux/netfilter_ipv4.h) as far
# as they tell on which side of conntrack and of translation a stage stands.
HOOKS: dict[tuple[Stage, Path], tuple[Hook, int]] = {
    (Stage.SCREEN, Path.INPUT): (Hook.PREROUTING, -310),
    (Stage.UNTRACK, Path.INPUT): (Hook.PREROUTING, -300),
    (Stage.SCREEN_STATE, Path.INPUT): (Hook.PREROUTING, -160),
    (Stage.ASSIGN_HELPER, Path.INPUT): (Hook.PREROUTING, -155),
    (Stage.ASSIGN_HELPER, Path.FORWARD): (Hook.PREROUTING, -154),
    (Stage.MARK, Path.INPUT): (Hook.PREROUTING, -152),
    (Stage.TPROXY, Path.INPUT): (Hook.PREROUTING, -150),
    (Stage.DSTNAT, Path.INPUT): (Hook.PREROUTING, -100),
    (Stage.FILTER, Path.INPUT): (Hook.INPUT, 0),
    (Stage.INSPECT, Path.INPUT): (Hook.INPUT, 50),
    (Stage.TREAT, Path.FORWARD): (Hook.FORWARD, -150),
    (Stage.FILTER, Path.FORWARD): (Hook.FORWARD, 0),
    (Stage.INSPECT, Path.FORWARD): (Hook.FORWARD, 50),
    (Stage.UNTRACK, Path.OUTPUT): (Hook.OUTPUT, -300),
    (Stage.ASSIGN_HELPER, Path.OUTPUT): (Hook.OUTPUT, -155),
    (Stage.MARK, Path.OUTPUT): (Hook.OUTPUT, -152),
    (Stage.TREAT, Path.OUTPUT): (Hook.OUTPUT, -147),
    (Stage.DSTNAT, Path.OUTPUT): (Hook.OUTPUT, -100),
    (Stage.FILTER, Path.OUTPUT): (Hook.OUTPUT, 0),
    (Stage.INSPECT, Path.OUTPUT): (Hook.OUTPUT, 50),
    (Stage.SRCNAT, Path.FORWARD): (Hook.POSTROUTING, 100),
}
NAT = (Stage.DSTNAT, Stage.SRCNAT)
ESCAPES = (Stage.SCREEN, Stage.UNTRACK)  # which stand before conntrack

Owners = Mapping[tuple[str, str], int]  # by kind (user, group) and name: its number


def machine_of(
    ruleset: Ruleset, *, target: str | None = None, owners: Owners | None = None
) -> Machine:
    """The base chains and lines of a ruleset; each line knows the statements behind it.

    Lines of a target's own are those of `target`, or with None those of any. A user or group that
    `owners` does not name is asked for as something unknown.
    """
    bases = tuple(
        Base(
            *HOOKS[base.stage, base.path],
            base.chain,
            is_nat=base.stage in NAT,
            reroutes=(base.stage, base.path) == (Stage.MARK, Path.OUTPUT),
            stage=base.stage,
            place=base.chain,
        )
        for base in ruleset.bases
    )
    return Machine(
        tuple(sorted(bases, key=lambda base: (list(Hook).index(base.hook), base.priority))),
        {
            chain.name: tuple(
                line
                for number, item in enumerate(chain.items, 1)
                for line in _lines(item, f"{chain.name} {number}", target, owners or {})
            )
            for chain in ruleset.chains
        },
    )


def _lines(item: Item, place: str, target: str | None, owners: Owners) -> Iterator[Line]:
    if isinstance(item, Lookup):
        yield from _looked_up(item, place)
        return
    act = _act(item.action)
    cube = item.cube
    if isinstance(item.action, ir.Native):
        if target not in (None, item.action.target):
            return
        if item.action.family is not None:
            cube &= Cube.of({Field.FAMILY: Ranges.of(item.action.family)})
    line = Line((cube,), act, (), place, item.origins)
    if not any(isinstance(g, ir.RateGuard | ir.ConnectionsGuard) for g in item.guards):
        yield replace(line, conditions=tuple(condition(g, 4, owners) for g in item.guards))
        return
    for family in (4, 6):  # which count apart
        part = cube & Cube.of({Field.FAMILY: Ranges.of(family)})
        if not part.is_empty:
            conditions = tuple(condition(g, family, owners) for g in item.guards)
            yield replace(line, cubes=(part,), conditions=conditions)


def _looked_up(lookup: Lookup, place: str) -> Iterator[Line]:
    """A line for the elements of each action and each statement."""
    groups: dict[tuple[Action, tuple[object, ...]], tuple[list[Cube], tuple[Origin, ...]]] = {}
    for entry in lookup.entries:
        spans = tuple((o.why, o.span and (o.span.file.name, o.span.start)) for o in entry.origins)
        cubes, origins = groups.setdefault((entry.action, spans), ([], entry.origins))
        cubes.append(entry_cube(lookup, entry))
    for (action, _), (cubes, origins) in groups.items():
        yield Line(compact(cubes), _act(action), (), place, joined(origins))


def _act(action: Action) -> Act:
    if isinstance(action, ir.Native):
        return Obscure(action.text, may_decide=True)
    return action


def condition(guard: Guard, family: int, owners: Owners) -> Condition:
    """What a guard asks of packets of a family (4, 6)."""
    match guard:
        case ir.RateGuard(count, unit, burst, over, per):
            rate = RateHolds(Fraction(count, UNIT_S[unit]), burst, _per(per, family), family)
            return Condition(rate, not over)
        case ir.ConnectionsGuard(count, over, per):
            return Condition(ConnectionsHold(count, _per(per, family), family), not over)
        case ir.OwnerGuard(kind, ids, names):
            known = [owners[kind, name] for name in names if (kind, name) in owners]
            if len(known) < len(names):
                return Condition(Unknown(f"{kind} {', '.join(names)}"))
            return Condition(OwnerIs(kind, ids | Ranges.of(*known)))
        case ir.CgroupGuard(path):
            return Condition(CgroupIs(path))
        case ir.MarkGuard(value, mask):
            return Condition(MarkIs(value, mask))
        case ir.ConnectionMarkGuard(value, mask):
            return Condition(ConnectionMarkIs(value, mask))
        case ir.TimeGuard(week_s, is_local):
            return Condition(WeekTimeIs(week_s, is_local))
        case ir.UntilGuard(last_day, is_local):
            return Condition(NotAfter(last_day, is_local))


def _per(per: ir.Per | None, family: int) -> Per | None:
    if per is None:
        return None
    return Per(per.end, per.prefix_len_v4 if family == 4 else per.prefix_len_v6)
