"""Statements that no packet reaches, and what takes their packets before."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from policylang.analysis.diagram import Packets
from policylang.analysis.lints.subject import (
    Subject,
    called,
    in_words,
    meets_any,
    of_language,
    origin_of,
    spans_of,
)
from policylang.analysis.machine import Base, Line
from policylang.diagnostics import Label, Report
from policylang.ir.origin import Why
from policylang.model.types import PolicyRule, Verb
from policylang.packets.cube import Cube
from policylang.source import Span

MOST_LABELS = 6


@dataclass(slots=True)
class Takers:
    """The statements that decide packets, each with what it does; and what else decides any."""

    spans: dict[Span, set[str]] = field(default_factory=dict)
    reasons: list[Why] = field(default_factory=list)

    def add(self, line: Line) -> None:
        origin = origin_of(line)
        if origin is None:
            return
        if origin.span is None:
            if origin.why not in self.reasons:
                self.reasons.append(origin.why)
        else:
            self.spans.setdefault(origin.span, set()).add(in_words(line.act))


def find_unreachable(subject: Subject, report: Report) -> None:
    """Report each statement that has lines, none of which any packet meets: `unreachable`."""
    for span in subject.unreached:
        statement = subject.statements[span]
        takers = _takers(subject, span)
        does = sorted({words for said in takers.spans.values() for words in said})
        what = f"no packet reaches this {called(statement)}"
        is_allow = isinstance(statement, PolicyRule) and statement.verb is Verb.ALLOW
        if does and is_allow and "accepted" not in does:
            what += f": what it allows is {' or '.join(does)} before"
        report.add(
            "unreachable",
            what,
            span,
            help=_help(takers),
            labels=labels_of(takers, "takes"),
        )


def labels_of(takers: Takers, verb: str) -> list[Label]:
    """The places of those that decide, `MOST_LABELS` of them at most."""
    spans = list(takers.spans)
    how = "some of its packets"
    if len(spans) == 1:
        how = "its packets" if takers.reasons else "all of its packets"
    labels = [Label(span, f"this {verb} {how}") for span in spans[:MOST_LABELS]]
    more = len(spans) - MOST_LABELS
    if more > 0:
        said = labels.pop()
        labels.append(Label(said.span, f"{said.text}, and so do {more} more"))
    return labels


def _help(takers: Takers) -> str:
    if takers.spans:
        return "remove it, or move it above what takes its packets"
    if takers.reasons:
        return f"{' and '.join(map(of_language, takers.reasons))} comes first; remove it"
    return "remove it"


def _takers(subject: Subject, span: Span) -> Takers:
    """What decides the packets that a statement is about before they come to it."""
    found = Takers()
    for base, lines in _where(subject, span):
        packets = subject.own_packets(lines)
        cubes = [cube for line in lines for cube in line.cubes]
        deciding = list(_deciders(subject, base, packets, cubes))
        alone = _alone(subject, base, packets, deciding)
        for line in (alone,) if alone is not None else deciding:
            found.add(line)
    return found


def _where(subject: Subject, span: Span) -> list[tuple[Base, list[Line]]]:
    """The base chains in which a statement has lines: those that decide, where there are such."""
    found = [
        (base, lines)
        for base in subject.machine.bases
        if (lines := [subject.line(w) for w in subject.lines[span] if w[0] == base.chain])
    ]
    deciding = [(base, lines) for base, lines in found if base in subject.filters]
    return deciding or found


def _deciders(
    subject: Subject, base: Base, packets: Packets, cubes: Collection[Cube]
) -> Iterator[Line]:
    """The lines that decide some of the packets, which are in the cubes."""
    decisions = subject.readings[base].decisions
    if not subject.details.take(len(decisions) * len(cubes)):
        return
    for met, _ in decisions:
        if meets_any(met.line, cubes) and met.packets.meets(packets):
            yield met.line


def _alone(subject: Subject, base: Base, packets: Packets, deciding: Iterable[Line]) -> Line | None:
    """A line whose statement alone would take all of the packets, the first that does."""
    groups: dict[Span, list[Line]] = {}
    for line in deciding:
        for one in spans_of(line):
            groups.setdefault(one, []).append(line)
    for one, lines in groups.items():
        if any(line.conditions for line in lines):
            continue
        about = subject.space.union(
            subject.follower.match(subject.line(where))
            for where in subject.lines[one]
            if where[0] == base.chain
        )
        if about.covers(packets):
            return lines[0]
    return None
