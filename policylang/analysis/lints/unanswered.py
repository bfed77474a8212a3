"""Untracked traffic whose answers are denied: conntrack does not let them pass by themselves.

What a rule allows, it allows for answers too; a default decides for each direction alone, and a
rule above may deny what a rule below is answered with. It knows no statement but `untracked`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from policylang.analysis.diagram import Packets
from policylang.analysis.lints.subject import Subject, of_language, origin_of
from policylang.analysis.machine import Base, Hook, Line
from policylang.diagnostics import Label, Report
from policylang.ir.origin import Origin, Why
from policylang.ir.stages import Path
from policylang.lower.address_tests import address_tests
from policylang.lower.before_routing import NOT_LOOPBACK
from policylang.lower.mirroring import TURNED_PATH, mirrored, untold
from policylang.lower.paths import Places
from policylang.lower.untracked import NO_OPENING, opening_packets
from policylang.model.translations import Untracked
from policylang.packets.cube import Cube
from policylang.packets.fields import (
    TCP,
    TCP_ACK,
    TCP_SYN,
    UDP,
    UNIVERSE,
    AddressType,
    Field,
    State,
)
from policylang.packets.values import Ranges

MOST_PAIRS = 20_000  # of terms of rules and of statements that are compared for it

_HOOKS = {Path.INPUT: Hook.INPUT, Path.FORWARD: Hook.FORWARD, Path.OUTPUT: Hook.OUTPUT}
_NOWHERE = Ranges.of(0)
_THERE = NOT_LOOPBACK - _NOWHERE
_LOCAL = Ranges.of(AddressType.LOCAL)
_ALONE = {Field.CT_STATE: Ranges.of(State.UNTRACKED), Field.DNATED: Ranges.of(0)}

# What goes each way, over no loopback interface.
_GOING = {
    Path.INPUT: Cube.of(
        {**_ALONE, Field.IIF: _THERE, Field.OIF: _NOWHERE, Field.DADDR_TYPE: _LOCAL}
    ),
    Path.FORWARD: Cube.of({**_ALONE, Field.IIF: _THERE, Field.OIF: _THERE}),
    Path.OUTPUT: Cube.of({**_ALONE, Field.IIF: _NOWHERE, Field.OIF: _THERE}),
}

# Answers of TCP and UDP, each to ports from which somebody asked, and all others.
_ASKED_FROM = Cube.of({Field.DPORT: Ranges.between(1, 65_535)})
_UDP = Cube.of({Field.L4PROTO: Ranges.of(UDP)})
_OTHERS = Cube.of({Field.L4PROTO: UNIVERSE[Field.L4PROTO] - Ranges.of(TCP, UDP)})
_KINDS = (
    tuple(kind & _ASKED_FROM & Cube.of({Field.L4PROTO: Ranges.of(TCP)}) for kind in NO_OPENING),
    (_UDP & _ASKED_FROM,),
    (_OTHERS,),
)
# What an answer looks like that is shown.
_PLAIN = (
    Cube.of({Field.TCP_FLAGS: Ranges.of(TCP_SYN | TCP_ACK)}),
    Cube.of({Field.DPORT: Ranges.of(40_000)}),
)


@dataclass(frozen=True, slots=True)
class _Denied:
    """Packets of which all answers are denied: what accepts them, and what denies an answer."""

    accepts: Line
    denies: Line
    base: Base
    answers: Packets


def find_unanswered(subject: Subject, report: Report) -> None:
    """Report each `untracked` some of whose packets pass, and no answer to them: `answers-denied`.

    Where only some answers are denied, nothing is told.
    """
    statements = [s for s in subject.policy.statements if isinstance(s, Untracked)]
    if not statements:
        return
    places = Places(address_tests(subject.policy, Report()), subject.policy.zones)
    for statement in {s.span: s for s in statements}.values():
        found = next(_denied(subject, statement, places), None)
        if found is not None:
            _tell(subject, statement, found, report)


def _denied(subject: Subject, statement: Untracked, places: Places) -> Iterator[_Denied]:
    for path, cubes in opening_packets(statement, places).items():
        answering = next(_bases(subject, TURNED_PATH[path]), None)
        if answering is None:
            continue
        denied = subject.always(subject.readings[answering].denied)
        asking = [cube & _GOING[path] for cube in cubes]
        for base in _bases(subject, path):
            for met, accepts in subject.readings[base].decisions:
                if not accepts:
                    continue
                if len(met.line.cubes) * len(asking) > MOST_PAIRS:
                    subject.is_cut = True
                    continue
                for answers in _answers(subject, met.line, met.packets, asking, path):
                    if denied.covers(answers):
                        denier = _denier(subject, answering, answers)
                        yield _Denied(met.line, denier, answering, answers)


def _bases(subject: Subject, path: Path) -> Iterator[Base]:
    return (base for base in subject.filters if base.hook is _HOOKS[path])


def _answers(
    subject: Subject, line: Line, accepted: Packets, asking: list[Cube], path: Path
) -> Iterator[Packets]:
    """The answers to packets of each term that a line accepts, and maybe to more."""
    space = subject.space
    for own in line.cubes:
        for cube in asking:
            asked = own & cube
            if asked.is_empty or not accepted.meets(space.of(asked)):
                continue
            answer = mirrored(asked.without(*untold(asked))) & _GOING[TURNED_PATH[path]]
            for kinds in _KINDS:
                packets = space.of_all(answer & kind for kind in kinds)
                if packets:
                    yield packets


def _denier(subject: Subject, base: Base, answers: Packets) -> Line:
    """The first line that denies some of the answers, all of which are denied."""
    decisions = subject.readings[base].decisions
    return next(
        met.line for met, accepts in decisions if not accepts and met.packets.meets(answers)
    )


def _tell(subject: Subject, statement: Untracked, found: _Denied, report: Report) -> None:
    witness = found.answers.witness(_PLAIN)
    assert witness is not None, "there are answers"
    opens, closes = origin_of(found.accepts), origin_of(found.denies)
    labels = [
        Label(origin.span, text)
        for origin, text in ((opens, "this allows what asks"), (closes, "this denies the answers"))
        if origin is not None and origin.span is not None
    ]
    report.add(
        "answers-denied",
        f"conntrack leaves this alone, and answers to what passes of it are denied{_by(closes)}",
        statement.span,
        help=f"such as {subject.example(found.base, witness)}; {_advice(opens)}",
        labels=labels,
    )


def _by(closes: Origin | None) -> str:
    """What denies them, where no statement does."""
    if closes is None or closes.span is not None:
        return ""
    return f" by {of_language(closes.why)}"


def _advice(opens: Origin | None) -> str:
    if opens is None or opens.why is not Why.WRITTEN:
        return "`allow` what asks by a rule, which then is about answers as well"
    return "`allow` the answers above what denies them"
