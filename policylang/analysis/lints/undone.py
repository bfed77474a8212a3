"""Statements that are reached where they stand, and on the whole way of a connection never.

What `protect` keeps out or a translation sends elsewhere does not come to the rules, and what the
rules deny is translated in vain. Of each stretch of the way all is taken for possible that the
stretch itself lets pass: what is told of is impossible whatever the others do.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from policylang.analysis import rerouting
from policylang.analysis.diagram import Packets
from policylang.analysis.lints.subject import (
    SCREENS,
    Subject,
    called,
    of_language,
    origin_of,
    spans_of,
)
from policylang.analysis.machine import Base, Hook, Line
from policylang.analysis.passing import Met
from policylang.diagnostics import Label, Report
from policylang.ir.actions import Translation
from policylang.ir.origin import Why
from policylang.ir.stages import Stage
from policylang.model.policy import Statement
from policylang.model.translations import PortForward, Redirect, SourceTranslation, Untracked
from policylang.model.types import PolicyRule, Verb
from policylang.packets.cube import Cube
from policylang.packets.fields import ICMP, ICMPV6, UNIVERSE, AddressType, Field, State
from policylang.packets.values import Ranges
from policylang.source import Span

MOST_LABELS = 6
NEW = Cube.of({Field.CT_STATE: Ranges.of(State.NEW), Field.CT_DIRECTION: Ranges.of(0)})
UNTRACKED = Cube.of({Field.CT_STATE: Ranges.of(State.UNTRACKED)})
# Errors are RELATED too, and are translated as the connection is that they are about.
PREDICTED = Cube.of(
    {
        Field.CT_STATE: Ranges.of(State.RELATED),
        Field.EXPECTED: Ranges.of(1),
        Field.L4PROTO: UNIVERSE[Field.L4PROTO] - Ranges.of(ICMP, ICMPV6),
    }
)
AS_SENT = Cube.of({Field.DNATED: Ranges.of(0)})
TRANSLATED = Cube.of({Field.DNATED: Ranges.of(1)})
OWN = Cube.of({Field.IIF: Ranges.of(0)})  # what came by no interface
LOCAL = Ranges.of(AddressType.LOCAL)
DELIVERED = Ranges.of(
    *(AddressType.LOCAL, AddressType.BROADCAST, AddressType.ANYCAST, AddressType.MULTICAST)
)
# What a translation of the destination changes.
OF_DESTINATION = (
    *(Field.DADDR, Field.DADDR_TYPE, Field.DPORT, Field.DNATED),
    *(Field.ORIG_DADDR, Field.ORIG_DPORT, Field.OIF),
)

Keepers = dict[Span | Why, str]  # what undoes a statement, and how


class _Ways:
    """What comes to the rules, and what they let pass."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def met_on(self, *stages: Stage, hook: Hook | None = None) -> list[tuple[Base, Met]]:
        return [
            (base, met)
            for base, reading in self.subject.readings.items()
            if base.stage in stages and hook in (None, base.hook)
            for met in reading.met
        ]

    @cached_property
    def screened_anyway(self) -> Packets:
        """What of it is kept out wherever it goes."""
        space = self.subject.space
        return space.everything - space.free(
            space.everything - self.subject.screened, *OF_DESTINATION
        )

    def sent(self, hook: Hook, *stages: Stage) -> Packets:
        """What is sent elsewhere by statements of the policy, before it comes to the rules."""
        space = self.subject.space
        found = (
            met.packets - rerouting.at_their_goal(space, met.line)
            for _, met in self.met_on(*stages, hook=hook)
        )
        return space.union(found) & space.of(NEW)

    def became(self, hook: Hook) -> Packets:
        """What came of that."""
        subject = self.subject
        return subject.space.union(
            rerouting.translated(subject.space, met.line, met.packets - self.subject.screened)
            for _, met in self.met_on(Stage.DSTNAT, hook=hook)
            if isinstance(met.line.act, Translation)
        )

    @cached_property
    def first(self) -> Packets:
        """The packets that begin connections, and those of none if the policy makes any."""
        space = self.subject.space
        if any(isinstance(s, Untracked) for s in self.subject.policy.statements):
            return space.of(NEW) | space.of(UNTRACKED)
        return space.of(NEW)

    @cached_property
    def coming(self) -> dict[Hook, Packets]:
        """What may come to the rules of each path."""
        space = self.subject.space
        as_sent, translated = space.of(AS_SENT), space.of(TRANSLATED)
        delivered = space.of(Cube.of({Field.DADDR_TYPE: DELIVERED}))
        proxied = self.sent(Hook.PREROUTING, Stage.TPROXY)
        onward = space.of(Cube.of({Field.DADDR_TYPE: UNIVERSE[Field.DADDR_TYPE] - LOCAL}))
        arriving = (as_sent & self.first) - self.subject.screened
        arriving -= self.sent(Hook.PREROUTING, Stage.DSTNAT)
        leaving = (as_sent & self.first) - self.sent(Hook.OUTPUT, Stage.DSTNAT)
        return {
            Hook.INPUT: (arriving & (delivered | proxied)) | self.became(Hook.PREROUTING),
            # Others may translate what they publish.
            Hook.FORWARD: ((arriving & onward) - proxied)
            | (translated & self.first & onward) - self.screened_anyway,
            Hook.OUTPUT: leaving | self.became(Hook.OUTPUT),
        }

    def passed(self, hook: Hook) -> Packets:
        """What the rules of a path let pass."""
        space = self.subject.space
        return space.union(
            reading.passed
            for base, reading in self.subject.readings.items()
            if base.stage is Stage.FILTER and base.hook is hook
        )


def find_undone(subject: Subject, report: Report) -> None:
    """Report each statement that no connection comes to, or that lets none pass: `undone`.

    A mark may be set by other programs: what asks for one is not judged.
    """
    before = (*SCREENS, Stage.DSTNAT, Stage.TPROXY)
    has_before = any(base.stage in before for base in subject.machine.bases)
    ways = _Ways(subject)
    for statement in subject.statements.values():
        if not subject.is_reached(statement.span):
            continue
        match statement:
            case PolicyRule(verb=Verb.ALLOW):
                if has_before and statement.conditions.mark is None:
                    _of_rule(subject, statement, ways, report)
            case SourceTranslation():
                if statement.conditions.mark is None:
                    _of_source(subject, statement, ways, report)
            case PortForward() | Redirect():
                if statement.conditions.mark is None:
                    _of_forward(subject, statement, ways, report)
            case _:
                pass


def _of_rule(subject: Subject, rule: PolicyRule, ways: _Ways, report: Report) -> None:
    lines = subject.lines_of(rule.span)
    if any(o.why is not Why.WRITTEN for line in lines for o in line.origins):
        return  # helpers and answers go ways of their own
    reached: list[tuple[Base, Packets]] = []
    for base in subject.filters:
        for chain, number in subject.lines[rule.span]:
            met = subject.met_in(base, subject.line((chain, number)))
            if chain == base.chain and met:
                reached.append((base, met))
    begins = [(base, met & ways.first) for base, met in reached]
    if not any(met for _, met in begins) or any(
        met.meets(ways.coming[base.hook]) for base, met in begins
    ):
        return
    keepers: Keepers = {}
    as_sent = subject.space.of(AS_SENT)
    for base, met in begins:
        hook = Hook.OUTPUT if base.hook is Hook.OUTPUT else Hook.PREROUTING
        for one, decision in ways.met_on(*SCREENS, Stage.DSTNAT, Stage.TPROXY, hook=hook):
            is_screen = one.stage in SCREENS
            if not is_screen or _denies(subject, one, decision):
                how = "keeps some of its packets out" if is_screen else "sends some elsewhere"
                if decision.packets.meets(met & as_sent):
                    _add(decision.line, f"this {how}", keepers)
    _tell(rule, "no connection comes as far as this rule", keepers, report)


def _denies(subject: Subject, base: Base, met: Met) -> bool:
    decisions = subject.readings[base].decisions
    return any(d.line is met.line and not accepts for d, accepts in decisions)


def _of_source(subject: Subject, statement: SourceTranslation, ways: _Ways, report: Report) -> None:
    space = subject.space
    mets = [subject.met.get(id(line), space.nothing) for line in subject.lines_of(statement.span)]
    translated = space.union(mets) & (space.of(NEW) | space.of(PREDICTED))
    own = space.of(OWN)
    parts = {Hook.FORWARD: translated - own, Hook.OUTPUT: translated & own}
    if any(part.meets(ways.passed(hook)) for hook, part in parts.items()):
        return
    keepers: Keepers = {}
    for hook, part in parts.items():
        _deniers(subject, hook, part, "this denies some of it", keepers)
    _tell(statement, "no connection that this translates is let pass", keepers, report)


def _of_forward(
    subject: Subject, statement: PortForward | Redirect, ways: _Ways, report: Report
) -> None:
    space = subject.space
    local = space.of(Cube.of({Field.DADDR_TYPE: LOCAL}))
    keepers: Keepers = {}
    is_any = is_met = False
    for base, met in ways.met_on(Stage.DSTNAT):
        if statement.span not in spans_of(met.line):
            continue
        is_met = True
        if not isinstance(met.line.act, Translation):
            return
        new = met.packets & space.of(NEW)
        there = new & rerouting.at_their_goal(space, met.line)
        became = rerouting.translated(space, met.line, new - there) | there
        if base.hook is Hook.OUTPUT:
            parts = {Hook.OUTPUT: became}
        else:
            parts = {Hook.INPUT: became & local, Hook.FORWARD: became - local}
        for hook, part in parts.items():
            if part.meets(ways.passed(hook)):
                return
            is_any |= bool(part)
            _deniers(subject, hook, part, "this denies what it sends on", keepers)
    if is_any:
        _tell(statement, "nothing that this sends elsewhere is let pass", keepers, report)
    if not is_met:
        _of_unmet(subject, statement, ways, report)


def _of_unmet(
    subject: Subject, statement: PortForward | Redirect, ways: _Ways, report: Report
) -> None:
    """Of a statement that translates nothing: it allows nothing either, if no rule of it is met."""
    lines = [line for line in subject.lines_of(statement.span) if isinstance(line.act, Translation)]
    allowed = (
        subject.met_in(base, line) & ways.coming[base.hook]
        for base in subject.filters
        for line in subject.lines_of(statement.span)
    )
    if not lines or any(allowed):
        return
    wanted = subject.own_packets(lines)
    keepers: Keepers = {}
    for _, met in ways.met_on(Stage.DSTNAT):
        if met.packets.meets(wanted):
            _add(met.line, "this takes some of its packets", keepers)
    _tell(statement, "no connection is left that this could send elsewhere", keepers, report)


def _deniers(subject: Subject, hook: Hook, packets: Packets, how: str, keepers: Keepers) -> None:
    """Add the statements that deny packets on a path."""
    if not packets:
        return
    for base in subject.filters:
        if base.hook is not hook:
            continue
        decisions = subject.readings[base].decisions
        if not subject.details.take(len(decisions)):
            return
        for met, accepts in decisions:
            if not accepts and met.packets.meets(packets):
                _add(met.line, how, keepers)


def _add(line: Line, words: str, keepers: Keepers) -> None:
    origin = origin_of(line)
    if origin is not None:
        keepers.setdefault(origin.why if origin.span is None else origin.span, words)


def _tell(statement: Statement, message: str, keepers: Keepers, report: Report) -> None:
    report.add(
        "undone",
        message,
        statement.span,
        help=_help(statement, keepers),
        labels=[Label(s, words) for s, words in keepers.items() if isinstance(s, Span)][
            :MOST_LABELS
        ],
    )


def _help(statement: Statement, keepers: Iterable[Span | Why]) -> str:
    reasons = [of_language(key) for key in keepers if isinstance(key, Why)]
    said = f"{' and '.join(reasons)} denies some of it; " if reasons else ""
    return f"{said}remove the {called(statement)}, or what undoes it"
