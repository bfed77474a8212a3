"""A rule as lines: each of its acts with all that the packet must be to come so far.

Lines are read one after the other, and so ask anew what an act of the same rule may have changed.
A rule of which that is true gets chains of its own, so that everything is asked once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from policylang.analysis.machine import (
    Act,
    AddTo,
    ConnectionMarkIs,
    CopyMark,
    Goto,
    InSet,
    Line,
    MarkIs,
    Obscure,
    Return,
)
from policylang.analysis.reading_nft.cases import (
    ALWAYS,
    Case,
    Cases,
    NotUnderstoodError,
    all_of,
    both,
    by_conditions,
    unknown,
)
from policylang.analysis.reading_nft.deeds import Step
from policylang.ir import actions as ir
from policylang.packets.cube import EVERYTHING
from policylang.packets.fields import Field

# What acts may change, and matches ask: the marks, sets by name, fields.
Thing = str | Field
MARK, CONNECTION_MARK = "meta mark", "ct mark"
OF_CONNTRACK = (Field.CT_STATE, Field.CT_DIRECTION, Field.DNATED, Field.EXPECTED, Field.CT_HELPER)


@dataclass(slots=True)
class Writing:
    """Where the lines of a rule go.

    `name` is that of the chains which it needs for itself. `changed_in` says what the lines of a
    chain may change, with those behind it.
    """

    name: str
    place: str
    text: Callable[[], str]
    changed_in: Callable[[str], frozenset[Thing]]
    chains: dict[str, tuple[Line, ...]] = field(default_factory=dict)

    def lines(self, cases: Cases, act: Act) -> Iterator[Line]:
        for conditions, cubes in by_conditions(cases):
            yield Line(cubes, act, conditions, self.place)

    def chain(self, lines: Sequence[Line]) -> str:
        """A new chain of these lines."""
        name = self.name + (f"-{len(self.chains) + 1}" if self.chains else "")
        self.chains[name] = tuple(lines)
        return name


def written(steps: Sequence[Step], to: Writing) -> tuple[Line, ...]:
    """The lines of a rule; the chains that it needs beside them are put into `to`."""
    flat = _flat(steps, to)
    if flat is not None:
        return flat
    return _apart(steps, to)


def _flat(steps: Sequence[Step], to: Writing) -> tuple[Line, ...] | None:
    """All acts side by side; None where one changes what the others' matches ask."""
    found: list[Line] = []
    tests: list[Cases] = []  # that were passed since `live` was worked out
    live: Cases = ALWAYS
    is_stale = False
    for step in steps:
        if not step.acts:
            tests.append(_going(step))
            continue
        live, tests = met(live, *tests), []
        for number, (cases, act) in enumerate(step.deeds):
            if act is None:
                continue
            if is_stale:
                return None
            now = met(live, cases)
            lines = list(to.lines(now, act))
            found += lines
            changed = changes(act, to)
            if changed:
                others = [c for c, _ in step.deeds[number + 1 :]]
                own = things(live) | things(cases)
                if len(lines) > 1 and not changed.isdisjoint(own):
                    return None
                later = things(live) if step.goes_on else own
                is_stale = not changed.isdisjoint(later.union(*map(things, others)))
        live = behind(live, step)
        if not live:
            break
    return tuple(found)


def met(live: Cases, *others: Cases) -> Cases:
    """The packets that are in all; where that are too many cases, the others are a question."""
    try:
        return all_of((live, *others))
    except NotUnderstoodError as reason:
        return both(live, unknown(reason.text))


def behind(live: Cases, step: Step) -> Cases:
    """The packets that go on to the next step of a rule."""
    return live if step.goes_on else met(live, _going(step))


def _going(step: Step) -> Cases:
    """The packets of a step for which the rule goes on."""
    if len(step.deeds) == 1 and not step.acts:
        return step.deeds[0][0]
    going = tuple(case for cases, act in step.deeds if not _ends(act) for case in cases)
    return ALWAYS if ALWAYS[0] in going else going


def _ends(act: Act | None) -> bool:
    """Whether no later expression of the rule is read for a packet that meets an act."""
    match act:
        case None | AddTo() | CopyMark() | Obscure() | ir.AssignHelper() | ir.Untrack():
            return False
        case Return() | Goto() | ir.Jump():
            return True
        case _:
            return isinstance(act, ir.TERMINAL)


def changes(act: Act, to: Writing) -> frozenset[Thing]:
    """What matches may find otherwise behind an act."""
    match act:
        case ir.SetMark() | CopyMark(to_connection=False):
            return frozenset({MARK})
        case ir.SetConnectionMark() | CopyMark():
            return frozenset({CONNECTION_MARK})
        case ir.SetDscp():
            return frozenset({Field.DSCP})
        case AddTo(name):
            return frozenset({f"@{name}"})
        case ir.Untrack():
            return frozenset(OF_CONNTRACK)
        case ir.Jump(chain):
            return to.changed_in(chain)
        case _:
            return frozenset()


CHANGEABLE = frozenset({Field.DSCP, *OF_CONNTRACK})


def things(cases: Cases) -> frozenset[Thing]:
    """What some cases ask that acts can change."""
    found: set[Thing] = set()
    for case in cases:
        for condition in case.conditions:
            match condition.question:
                case MarkIs():
                    found.add(MARK)
                case ConnectionMarkIs():
                    found.add(CONNECTION_MARK)
                case InSet(name):
                    found.add(f"@{name}")
                case _:
                    pass
        found |= CHANGEABLE.intersection(case.cube.fields)
    return frozenset(found)


# --- rules with chains of their own -------------------------------------------------------------


def _apart(steps: Sequence[Step], to: Writing) -> tuple[Line, ...]:
    """The rule as a jump to what it does, once all matches before its first act have held."""
    live: Cases = ALWAYS
    first = 0
    while not steps[first].acts:
        live = behind(live, steps[first])
        first += 1
    # Nothing was changed yet: what leaves the chain now may do so side by side.
    here = [(cases, act) for cases, act in steps[first].deeds if _leaves(act)]
    leaving = [line for cases, act in here if act for line in to.lines(met(live, cases), act)]
    others = [(cases, act) for cases, act in steps[first].deeds if not _leaves(act)]
    rest = [replace(steps[first], deeds=others), *steps[first + 1 :]]
    leaves = any(_leaves(act) for step in rest for act in step.acts)
    if leaves and any(not step.goes_on and _asks(step) for step in rest):
        # Some would leave the chain and some go on to its next rule: no chain apart says that.
        obscure = Obscure(to.text(), may_decide=True)
        return (*leaving, *to.lines(live, obscure))
    inner = to.chain(_acted(rest, to))
    send: Act = Goto(inner) if leaves else ir.Jump(inner)
    lines = tuple(to.lines(live, send))
    if len(lines) > 1 and not leaves:
        # What comes back must not meet the other lines: so those are asked in a chain as well.
        asked = to.chain(tuple(to.lines(live, Goto(inner))))
        lines = (Line((EVERYTHING,), ir.Jump(asked), (), to.place),)
    return (*leaving, *lines)


def _leaves(act: Act | None) -> bool:
    """Whether packets that meet an act do not come to the next rule of their chain."""
    return isinstance(act, Return | Goto)


def _asks(step: Step) -> bool:
    """Whether packets may go past a step because its matches fail."""
    return not step.is_total and not any(Case() in cases for cases, _ in step.deeds)


def _acted(steps: Sequence[Step], to: Writing) -> tuple[Line, ...]:
    """The lines of a chain in which the first step acts, and the others are read behind it."""
    step, *others = steps
    if len(step.deeds) == 1 and step.acts:
        ((cases, _),) = step.deeds
        lines = tuple(to.lines(cases, *step.acts))
        if len(lines) == 1 and (step.goes_on or cases == ALWAYS or not others):
            return (*lines, *(written(others, to) if others else ()))
    each: list[Line] = []
    for cases, act in step.deeds:
        own = () if act is None else tuple(to.lines(ALWAYS, act))
        inner = to.chain((*own, *(() if _ends(act) or not others else written(others, to))))
        each += to.lines(cases, Goto(inner))
    if step.goes_on and others:
        each += written(others, to)
    return tuple(each)
