"""Statements without which every packet would fare as it does.

Rules are judged by what stands behind them in their chain; a statement that has lines elsewhere,
or by which other lines are there, is taken out and the policy lowered anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from policylang.analysis.diagram import Packets
from policylang.analysis.lints.company import Company, own_span
from policylang.analysis.lints.meaning import Meaning, is_counted, is_same, meaning_of
from policylang.analysis.lints.subject import Subject, called, meets_any
from policylang.analysis.lints.unreachable import Takers, labels_of
from policylang.analysis.machine import Act, Base, Line
from policylang.diagnostics import Report
from policylang.ir import actions as ir
from policylang.ir.origin import Why
from policylang.ir.ruleset import Ruleset
from policylang.lower.stateful import lower
from policylang.model.policy import Policy, Statement
from policylang.model.translations import Treatment
from policylang.model.types import PolicyRule
from policylang.source import Span

MOST_LOWERINGS = 24  # of the whole policy, less a statement
MOST_STATEMENTS = 300  # of a policy that is lowered anew for that


@dataclass(slots=True)
class _Rest:
    """What becomes of packets from one line of a chain on.

    `decided` are those that meet a verdict, whatever rates and counts say; `touched` those that
    may meet something else on the way: they are logged, counted, put into a set.
    """

    decided: dict[Act, Packets] = field(default_factory=dict)
    touched: Packets | None = None


def find_redundant(subject: Subject, report: Report) -> None:
    """Report each statement that changes nothing, though packets reach it: `changes-nothing`."""
    judged = _judged(subject)
    lowerings, company = _Lowerings(subject), Company(subject)
    for span, statement in reversed(subject.statements.items()):
        if not subject.is_reached(span):
            continue
        if isinstance(statement, PolicyRule):
            verdict = judged.get(span)
            if verdict is None or not verdict.is_same:
                continue
            if statement.conditions.connections is not None:
                continue  # to count connections is something that targets do, too
            if not verdict.instead.spans.keys().isdisjoint(subject.unreached):
                continue  # one of them can go: that the other one does is told
            if not company.is_alone(statement) and not lowerings.is_same_without(span):
                continue
            _tell(statement, verdict.instead, report)
        elif isinstance(statement, Treatment) and lowerings.is_same_without(span):
            _tell(statement, Takers(), report)


def _tell(statement: Statement, instead: Takers, report: Report) -> None:
    is_by_default = Why.DEFAULT in instead.reasons
    where = "what stands below decides the same"
    if is_by_default:
        where = "the default decides the same" + (", and so do others" if instead.spans else "")
    report.add(
        "changes-nothing",
        f"this {called(statement)} changes nothing: without it every packet fares the same",
        statement.span,
        help=f"{where}; remove it" if instead.spans or is_by_default else "remove it",
        labels=labels_of(instead, "decides the same for"),
    )


# --- by what stands behind ------------------------------------------------------------------------


@dataclass(slots=True)
class _Judgement:
    is_same: bool = True
    instead: Takers = field(default_factory=Takers)


def _judged(subject: Subject) -> dict[Span, _Judgement]:
    """Of each rule with lines in FILTER: whether what follows decides the same."""
    found: dict[Span, _Judgement] = {}
    for base in subject.filters:
        for span, decides_alike, lines in _of_chain(subject, base):
            judgement = found.setdefault(span, _Judgement())
            judgement.is_same &= decides_alike
            if judgement.is_same:
                _gather(subject, base, lines, judgement.instead)
    return found


_Block = tuple[Span, bool, tuple[int, int]]


def _of_chain(subject: Subject, base: Base) -> Iterator[_Block]:
    """Each block of lines of one statement: whether all of it would be decided the same behind."""
    lines = subject.machine.chains[base.chain]
    nothing = subject.space.nothing
    rest = _Rest(touched=nothing)
    later: dict[Span, Packets] = {}  # what blocks of a statement below are about
    end = len(lines)
    while end > 0:
        start = end - 1
        span = own_span(lines[start])
        while span is not None and start > 0 and own_span(lines[start - 1]) == span:
            start -= 1
        if span is not None:
            met = [(line, subject.met_in(base, line)) for line in lines[start:end]]
            about = subject.space.union(packets for _, packets in met)
            decides_alike = not (span in later and later[span].meets(about)) and all(
                _is_decided(subject, line, packets, rest) for line, packets in met if packets
            )
            yield span, decides_alike, (start, end)
            whole = subject.space.of_all(c for line in lines[start:end] for c in line.cubes)
            later[span] = later.get(span, nothing) | whole
        for line in reversed(lines[start:end]):
            rest = _before(subject, line, rest)
        end = start


def _is_decided(subject: Subject, line: Line, packets: Packets, rest: _Rest) -> bool:
    """Whether packets that meet a line would meet the same verdict behind it, and nothing else."""
    assert rest.touched is not None
    match line.act:
        case ir.Accept() | ir.Drop() | ir.Reject():
            same = rest.decided.get(line.act, subject.space.nothing)
            return same.covers(packets) and not rest.touched.meets(packets)
        case ir.Jump(chain):
            for inner in subject.machine.chains[chain]:
                part = packets & subject.space.of_all(inner.cubes)
                if part and not _is_decided(subject, inner, part, rest):
                    return False
                packets -= part
            return True
        case _:
            return False


def _before(subject: Subject, line: Line, rest: _Rest) -> _Rest:
    """What becomes of packets from a line on, by what becomes of them behind it."""
    space = subject.space
    assert rest.touched is not None
    about = subject.follower.match(line)
    asked = about
    touched = rest.touched
    if is_counted(line):
        asked = space.of_all(line.cubes)
        touched |= asked
    match line.act:
        case ir.Accept() | ir.Drop() | ir.Reject():
            decided = {act: packets - about for act, packets in rest.decided.items()}
            decided[line.act] = decided.get(line.act, space.nothing) | about
            return _Rest(decided, touched if is_counted(line) else touched - about)
        case ir.Jump(chain):
            inner = rest
            for one in reversed(subject.machine.chains[chain]):
                inner = _before(subject, one, inner)
            assert inner.touched is not None
            acts = {*rest.decided, *inner.decided}
            nothing = space.nothing
            decided = {
                act: (inner.decided.get(act, nothing) & about)
                | (rest.decided.get(act, nothing) - about)
                for act in acts
            }
            return _Rest(decided, (inner.touched & about) | (touched - about))
        case _:
            return _Rest(rest.decided, touched | about)


def _gather(subject: Subject, base: Base, block: tuple[int, int], found: Takers) -> None:
    """What decides the packets of a block behind it."""
    lines = subject.machine.chains[base.chain]
    start, end = block
    packets = subject.space.union(subject.met_in(base, line) for line in lines[start:end])
    cubes = [cube for line in lines[start:end] for cube in line.cubes]
    for line in lines[end:]:
        if not packets or not subject.details.take(len(cubes)):
            return
        if not meets_any(line, cubes):
            continue
        met = packets & subject.follower.match(line)
        if met:
            found.add(line)
            packets -= met


# --- by lowering anew -----------------------------------------------------------------------------


@dataclass(slots=True)
class _Lowerings:
    """Lowers a policy less a statement, for as long as that does not take too long."""

    subject: Subject
    left: int = MOST_LOWERINGS
    _whole: Meaning | None = None
    _told: set[Span] = field(default_factory=set)

    def is_same_without(self, span: Span) -> bool:
        """Whether all packets fare the same without a statement; False where that is not known."""
        subject = self.subject
        if not self.left or len(subject.policy.statements) > MOST_STATEMENTS:
            subject.is_cut = True
            return False
        self.left -= 1
        if self._whole is None:
            self._whole = meaning_of(subject.ruleset, subject.space)
        if not self._is_same_without({span}):
            return False
        # Of two that say the same, one can go: what was told can all go together.
        if self._told and not self._is_same_without({span, *self._told}):
            return False
        self._told.add(span)
        return True

    def _is_same_without(self, spans: set[Span]) -> bool:
        less = lowered_without(self.subject.policy, lambda statement: statement.span in spans)
        assert self._whole is not None
        return less is not None and is_same(self._whole, meaning_of(less, self.subject.space))


def lowered_without(policy: Policy, is_out: Callable[[Statement], bool]) -> Ruleset | None:
    """The rules of a policy without some statements; None where it has errors then."""
    kept = tuple(statement for statement in policy.statements if not is_out(statement))
    report = Report()
    made = lower(replace(policy, statements=kept), report)
    return None if report.has_errors else made
