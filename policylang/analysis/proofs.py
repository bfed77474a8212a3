"""The tests of a policy proved, and what is told of each expectation that does not hold.

It knows expectations and how failures are worded, and nothing of the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from policylang.analysis.expectations import Counterexample, Proof, proved
from policylang.analysis.modelled import machine_of
from policylang.analysis.naming import names_of
from policylang.analysis.questions import Beginnings
from policylang.analysis.reasons import (
    act_words,
    conditions_words,
    fate_words,
    reason_words,
    statement_of,
)
from policylang.analysis.wording import Names, packet_words
from policylang.diagnostics import Diagnostic, Label, Report
from policylang.ir.ruleset import Ruleset
from policylang.lower.asked import asking
from policylang.lower.placing import why_nothing
from policylang.model.expectations import (
    Expectation,
    PacketExpectation,
    SessionExpectation,
    Test,
    Wanted,
)
from policylang.model.policy import Policy

FAILED = "expectation-failed"

_DONE = {
    Wanted.ALLOW: "allowed",
    Wanted.DENY: "denied",
    Wanted.DROP: "dropped",
    Wanted.REJECT: "rejected",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """Whether an expectation holds, and what is told where it does not.

    `packet` is the one that shows it in words, `why` the statement or rule that decided; both are
    None where no packet does.
    """

    expectation: Expectation
    holds: bool
    failure: Diagnostic | None = None
    packet: str | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class ProvedTest:
    """A test, and what came of each of its expectations."""

    test: Test
    shown: tuple[Shown, ...]

    @property
    def holds(self) -> bool:
        return all(one.holds for one in self.shown)


# Whether the conversations of an expectation work, and what is told where they do not.
Play = Callable[[SessionExpectation], Shown]


def prove_tests(
    policy: Policy,
    ruleset: Ruleset,
    tests: Iterable[Test],
    play: Play,
    report: Report,
) -> Iterator[ProvedTest]:
    """What came of tests, one after the other; raises `TooLargeError`.

    `ruleset` is what the policy was lowered to: its rules know their statements. `play` is for
    sessions. Reports `too-many-tests`.
    """
    tests = tuple(tests)
    questions = [e.asked for test in tests for e in test.expectations]
    asker = asking(policy, questions, report)
    if report.has_errors:
        return
    names = names_of(policy, asker.tests, questions)
    beginnings = Beginnings(machine_of(ruleset), asker.tests, policy.zones, is_alone=True)
    for test in tests:
        shown: list[Shown] = []
        for expectation in test.expectations:
            match expectation:
                case PacketExpectation():
                    proof = proved(expectation, asker.asked(expectation.asked), beginnings)
                    shown.append(shown_by(expectation, proof, names))
                case SessionExpectation():
                    shown.append(play(expectation))
        yield ProvedTest(test, tuple(shown))


def shown_by(
    expectation: PacketExpectation, proof: Proof, names: Names, host: str | None = None
) -> Shown:
    """What is told of an expectation about packets; `host` is where it does not hold."""
    if proof.holds:
        return Shown(expectation, True)
    where = "" if host is None else f" on `{host}`"
    found = proof.counterexample
    if found is None:
        message = "no packet is described by this, so it proves nothing"
        help_ = why_nothing(has_ends=True)
        told = Diagnostic(FAILED, message, expectation.span, help_)
        return Shown(expectation, False, told)
    packet = packet_words(found.packet, names)
    fate = found.piece.fate
    done = fate_words(fate.line, is_accepted=fate.is_accepted)
    if fate.translated is not None:
        done = f"{act_words(fate.translated, names)} and {done} there"
    told = Diagnostic(
        FAILED,
        f"{_missed(expectation)}: `{packet}` is {done}{where}{_if(found, names)}",
        expectation.span,
        _help(found),
        tuple(_labels(found)),
    )
    why = reason_words(fate.line, found.piece.decided_on)
    return Shown(expectation, False, told, packet, why)


def _missed(expectation: PacketExpectation) -> str:
    """What is not so."""
    done = _DONE[expectation.wanted]
    if expectation.answer is not None:
        tcp, other = expectation.answer.tcp.value, expectation.answer.other.value
        done += f" with {tcp}" if tcp == other else f" with {tcp}, {other}"
    return f"no packet is {done}" if expectation.is_some else f"not every packet is {done}"


def _if(found: Counterexample, names: Names) -> str:
    return f" if it is {conditions_words(found.conditions, names)}" if found.conditions else ""


def _labels(found: Counterexample) -> Iterator[Label]:
    fate = found.piece.fate
    sent = statement_of(fate.translated)
    if sent is not None and sent.span is not None:
        yield Label(sent.span, "sent elsewhere by this")
    decided = statement_of(fate.line)
    if decided is not None and decided.span is not None and decided != sent:
        yield Label(decided.span, "decided here")
    otherwise = statement_of(found.otherwise)
    if otherwise is not None and otherwise.span is not None and otherwise != decided:
        yield Label(otherwise.span, "otherwise this decides")


def _help(found: Counterexample) -> str | None:
    """What decided, where no statement did."""
    fate = found.piece.fate
    if statement_of(fate.line) is not None:
        return None
    return f"no statement decides: {reason_words(fate.line, found.piece.decided_on)}"
