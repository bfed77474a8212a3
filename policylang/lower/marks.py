"""`mark`: what marks and code points packets get, and what marks the answers to them.

The first statement that matches decides, bit by bit of the mark, and the code point for itself.
To set something is no verdict, so that several rules may set the same: they stand in reverse
order, and what was written first has the last word. Where a statement reads what another one
sets, the two stand in the order in which they were written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from policylang.diagnostics import Label, Report
from policylang.ir import actions as ir
from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import Rule
from policylang.ir.stages import Path
from policylang.lower.before_routing import NOT_LOOPBACK, arriving
from policylang.lower.conditions import guards, on_path, terms, terms_of_predicted
from policylang.lower.expected import UNPRIVILEGED_PORTS
from policylang.lower.paths import SOURCE, Places, traffic_cube
from policylang.lower.placing import why_nothing
from policylang.lower.states import (
    EXPECTED,
    NOT_EXPECTED,
    ORIGINAL,
    REPLY,
    predicted_by,
    state,
    without_connection,
)
from policylang.model.policy import Policy
from policylang.model.translations import Marking
from policylang.model.types import Mark
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import ICMP, ICMPV6, UNIVERSE, Field, State
from policylang.packets.packetset import PacketSet, compact
from policylang.packets.values import Ranges

PATHS = (Path.INPUT, Path.OUTPUT)  # what arrives, forwarded or not, and what this host sends
MARK_BITS = range(32)
# A statement's bits, in one number: those of the packet's mark, one for its code point, those of
# the connection's mark.
CODE_POINT = 1 << len(MARK_BITS)
CONNECTION = len(MARK_BITS) + 1

# A RELATED packet that is no error about another connection opens one that was predicted.
PREDICTED = Cube.of(
    {
        Field.CT_STATE: Ranges.of(State.RELATED),
        Field.L4PROTO: UNIVERSE[Field.L4PROTO] - Ranges.of(ICMP, ICMPV6),
    }
)


@dataclass(frozen=True, slots=True)
class _Step:
    """Something that is set on the packets in `cubes`, and which bits it `sets` and `reads`."""

    marking: Marking
    cubes: dict[Path, tuple[Cube, ...]]
    action: ir.Action
    guards: tuple[ir.Guard, ...]
    sets: int
    reads: int
    origins: tuple[Origin, ...]

    def rules(self, path: Path) -> Iterator[Rule]:
        for cube in self.cubes[path]:
            yield Rule(cube, self.action, self.guards, self.origins)

    def meets(self, other: _Step) -> bool:
        """Whether both are about some packet, whatever was set on it meanwhile."""
        return any(
            a.without(Field.DSCP).meets(b.without(Field.DSCP))
            for path in PATHS
            for a in self.cubes[path]
            for b in other.cubes[path]
        )

    def excludes(self, other: _Step) -> bool:
        """Whether what both set is all that they read, and no packet has what both ask for."""
        if not self.reads or not other.reads or self.sets != other.sets:
            return False
        if (self.reads | other.reads) & ~self.sets:
            return False
        ours, theirs = self.marking.conditions, other.marking.conditions
        if ours.dscp is not None and theirs.dscp is not None:
            return not ours.dscp.meets(theirs.dscp)
        if ours.mark is not None and theirs.mark is not None:
            both = ours.mark.mask & theirs.mark.mask
            return ours.mark.value & both != theirs.mark.value & both
        return False

    def leads_to(self, other: _Step) -> bool:
        """Whether what this one sets, of all that the other one reads, is what that asks for."""
        conditions = other.marking.conditions
        if isinstance(self.action, ir.SetDscp):
            return conditions.dscp is not None and self.action.code in conditions.dscp
        assert isinstance(self.action, ir.SetMark) and conditions.mark is not None
        return self.action.value & conditions.mark.mask == conditions.mark.value


def marks(
    policy: Policy, places: Places, report: Report, *, has_helpers: bool
) -> dict[Path, tuple[Rule, ...]]:
    """The rules of the MARK stage: INPUT for all that arrives, OUTPUT.

    `has_helpers` says whether any connection may be predicted. Reports `matches-nothing`, and
    `mark-reads-mark` where no order is right.
    """
    predicted: list[_Step] = []
    steps: list[_Step] = []
    markings = [s for s in policy.statements if isinstance(s, Marking)]
    restoring = list(_restoring(markings, places, has_helpers=has_helpers))
    for marking in markings:
        if marking.of_answers and marking.mark is not None:
            opening = _opening(marking, places)
            steps.append(_connection_mark(marking, marking.mark, opening))
            if has_helpers:
                predicted.append(_predicted_mark(marking, marking.mark, opening))
            steps += (step for step in restoring if step.marking is marking)
        else:
            opening = _own(marking, places)
            steps.append(_setting(marking, opening))
        if not any(opening.values()):
            ends = arriving(places, marking.source, marking.destination)
            report.add(
                "matches-nothing",
                "no packet can meet this statement",
                marking.span,
                help=why_nothing(any(ends.values())),
            )
    # What a predicted connection has from the one that predicted it stays: here the first that
    # finds nothing decides.
    in_order = [*predicted, *_ordered(steps, report)]
    return {path: tuple(rule for step in in_order for rule in step.rules(path)) for path in PATHS}


def _ends(marking: Marking, places: Places) -> dict[Path, tuple[Cube, ...]]:
    found = arriving(places, marking.source, marking.destination)
    others = Cube.of({Field.IIF: NOT_LOOPBACK})
    arrived = (c & others for c in (*found[Path.INPUT], *found[Path.FORWARD]))
    return {Path.INPUT: compact(arrived), Path.OUTPUT: found[Path.OUTPUT]}


def _opening(marking: Marking, places: Places) -> dict[Path, tuple[Cube, ...]]:
    """The packets that open what a statement is about, whatever their state."""
    conditions = terms(marking.conditions)
    return {
        path: compact(
            on_path(end & traffic_cube(t) & conditions, path) for t in marking.what for end in ends
        )
        for path, ends in _ends(marking, places).items()
    }


def _own(marking: Marking, places: Places) -> dict[Path, tuple[Cube, ...]]:
    """The packets that go the way in which the connection was opened.

    Those of predicted connections are told by the ends, for either end may open them: no matter
    which did, what goes from the one end to the other is marked.
    """
    conditions = terms(marking.conditions)
    of_predicted = terms_of_predicted(marking.conditions)
    found: dict[Path, list[Cube]] = {path: [] for path in PATHS}
    for path, ends in _ends(marking, places).items():
        for traffic in marking.what:
            cubes = [end & traffic_cube(traffic) & conditions for end in ends]
            found[path] += (c & ORIGINAL for c in cubes)
            for cube in cubes:
                found[path] += without_connection(cube, names_icmp=traffic.names_icmp)
            if traffic.helper is not None:
                predicted = predicted_by(traffic.helper) & of_predicted
                found[path] += (end & predicted for end in ends)
    return {path: compact(on_path(c, path) for c in cubes) for path, cubes in found.items()}


def _setting(marking: Marking, cubes: dict[Path, tuple[Cube, ...]]) -> _Step:
    action: ir.SetMark | ir.SetDscp
    if marking.mark is not None:
        action, sets = ir.SetMark(marking.mark.value, marking.mark.mask), marking.mark.mask
    else:
        assert marking.dscp is not None
        action, sets = ir.SetDscp(marking.dscp), CODE_POINT
    asked = guards(marking.conditions)
    return _Step(marking, cubes, action, asked, sets, _reads(marking), (_origin(marking),))


def _origin(marking: Marking) -> Origin:
    return Origin(Why.WRITTEN, marking.span, marking.name)


def _reads(marking: Marking) -> int:
    conditions = marking.conditions
    mark = 0 if conditions.mark is None else conditions.mark.mask
    return mark | (0 if conditions.dscp is None else CODE_POINT)


# --- answers ----------------------------------------------------------------------------------


def _connection_mark(marking: Marking, mark: Mark, opening: dict[Path, tuple[Cube, ...]]) -> _Step:
    """What the first packet of a connection leaves for its answers to find."""
    new = state(State.NEW)
    return _Step(
        marking,
        {path: compact(c & new for c in cubes) for path, cubes in opening.items()},
        ir.SetConnectionMark(mark.value, mark.mask),
        guards(marking.conditions),
        mark.mask << CONNECTION,
        _reads(marking),
        (_origin(marking),),
    )


def _predicted_mark(marking: Marking, mark: Mark, opening: dict[Path, tuple[Cube, ...]]) -> _Step:
    """The same for a predicted connection that has no mark from the one that predicted it.

    It goes to no privileged port (LANGUAGE 1).
    """
    return _Step(
        marking,
        {
            path: compact(c & PREDICTED for c in cubes if c[Field.DPORT].meets(UNPRIVILEGED_PORTS))
            for path, cubes in opening.items()
        },
        ir.SetConnectionMark(mark.value, mark.mask),
        (*guards(marking.conditions), ir.ConnectionMarkGuard(0, mark.mask)),
        mark.mask << CONNECTION,
        _reads(marking),
        (_origin(marking),),
    )


def _restoring(
    markings: Sequence[Marking], places: Places, *, has_helpers: bool
) -> Iterator[_Step]:
    """What answers find: the bits of the connection's mark that some statement set.

    Bits that the same statements set are read together. None of them set is as if no statement
    had set them. Each step belongs to the first statement that sets its bits so.
    """
    answering = [(m, m.mark) for m in markings if m.of_answers and m.mark is not None]
    masks: dict[tuple[int, ...], int] = {}
    for bit in MARK_BITS:
        setters = tuple(n for n, (_, mark) in enumerate(answering) if mark.mask >> bit & 1)
        masks[setters] = masks.get(setters, 0) | 1 << bit
    for setters, mask in masks.items():
        holders: dict[int, list[Marking]] = {}
        for marking, mark in (answering[n] for n in setters):
            holders.setdefault(mark.value & mask, []).append(marking)
        for value, held_by in holders.items():
            if value:
                yield _Step(
                    held_by[0],
                    {path: _answers(held_by, places, path, has_helpers) for path in PATHS},
                    ir.SetMark(value, mask),
                    (ir.ConnectionMarkGuard(value, mask),),
                    mask,
                    0,
                    tuple(_origin(marking) for marking in held_by),
                )


def _answers(
    held_by: list[Marking], places: Places, path: Path, has_helpers: bool
) -> tuple[Cube, ...]:
    """The packets that go back, of connections that one of these statements marked.

    A predicted connection has the mark of the one that predicted it, and may be opened from
    either end: there the ends tell which way a packet goes, where they can.
    """
    if not has_helpers:
        return (REPLY,)
    there = [_going_there(marking, places, path) for marking in held_by]
    if any(one is None for one in there):
        return (REPLY,)
    back = PacketSet((EVERYTHING,))
    for one in there:
        assert one is not None
        back -= one
    return compact((REPLY & NOT_EXPECTED, *(EXPECTED & cube for cube in back)))


def _going_there(marking: Marking, places: Places, path: Path) -> PacketSet | None:
    """The packets of a predicted connection that go from the source end; None: cannot be told."""
    source, destination = marking.source, marking.destination
    there = arriving(places, source, destination)
    back = arriving(places, destination, source)
    at = (Path.OUTPUT,) if path is Path.OUTPUT else (Path.INPUT, Path.FORWARD)
    if not any(there[p] for p in at):
        return PacketSet()
    if not any(back[p] for p in at):
        return PacketSet((EVERYTHING,))
    one, other = places.reach(source, SOURCE), places.reach(destination, SOURCE)
    if path is Path.OUTPUT:
        from_source, from_destination = one.own, other.own
    else:
        from_source, from_destination = one.others, other.others
    if not from_source.covers(from_destination):
        return from_source
    if from_destination.covers(from_source):
        return None
    return PacketSet((EVERYTHING,)) - from_destination


# --- order ------------------------------------------------------------------------------------


def _ordered(steps: Sequence[_Step], report: Report) -> Iterable[_Step]:
    """The steps so that the first that was written decides; reports `mark-reads-mark`."""
    read = set_ = 0
    for step in steps:
        read, set_ = read | step.reads, set_ | step.sets
    if not read & set_:
        return reversed(steps)
    # By the position of a step, those that have to come before it.
    before: dict[int, set[int]] = {n: set() for n in range(len(steps))}
    for later, step in enumerate(steps):
        for earlier, other in enumerate(steps[:later]):
            reads, overwrites = _relation(other, step)
            if (reads or overwrites) and step.meets(other):
                if reads:
                    before[later].add(earlier)
                if overwrites:
                    before[earlier].add(later)
    found: list[_Step] = []
    while before:
        ready = [n for n, others in before.items() if not others & before.keys()]
        if not ready:
            _report_reading(steps, before, report)
            return ()
        found.append(steps[max(ready)])
        del before[max(ready)]
    return found


def _relation(earlier: _Step, later: _Step) -> tuple[bool, bool]:
    """Whether of two statements the one written earlier, or later, has to set its bits first."""
    if earlier.excludes(later):
        return later.leads_to(earlier), earlier.leads_to(later)
    # Where all that the later one sets is overwritten, nobody sees what it read.
    reads = bool(later.reads & earlier.sets and later.sets & ~earlier.sets)
    return reads or bool(earlier.reads & later.sets), bool(earlier.sets & later.sets)


def _report_reading(steps: Sequence[_Step], before: dict[int, set[int]], report: Report) -> None:
    """Report what reads within a circle of steps each of which has to come before the next."""
    way = [next(iter(before))]
    while (first := min(before[way[-1]] & before.keys())) not in way:
        way.append(first)
    circle = way[way.index(first) :]
    # What overwrites comes behind what was written below it; only what reads comes the other way.
    later, earlier = next((n, m) for n in circle for m in circle if m < n and m in before[n])
    reader, setter = steps[earlier], steps[later]
    if not reader.reads & setter.sets:
        reader, setter = setter, reader
    report.add(
        "mark-reads-mark",
        "this condition reads what another statement sets, and no order of them is right",
        reader.marking.span,
        help="let each have bits of its own (`as 0x1/0xf`, `as 0x10/0xf0`), or all of them "
        "conditions that exclude each other",
        labels=(Label(setter.marking.span, "which is set here"),),
    )
