"""Stories for tests: what a policy makes of a question, as `policylang trace` plays it."""

from __future__ import annotations

from pathlib import Path

from policylang import pipeline
from policylang.analysis.conversation import staging
from policylang.analysis.conversation.scripts import PACKET, PLAIN
from policylang.analysis.conversation.story import PacketEvent, Story
from policylang.analysis.modelled import machine_of
from policylang.diagnostics import Report
from policylang.lower.asked import Asking, asking
from policylang.lower.stateful import lower
from policylang.model.policy import Policy
from policylang.model.types import PolicyRule
from policylang.packets.fields import State
from policylang.packets.values import format_address
from policylang.source import SourceFile


def story_of(
    policy: str,
    question: str,
    *,
    kind: str | None = None,
    mode: str | None = None,
    flags: int | None = None,
    state: State | None = None,
    is_answered: bool = False,
) -> Story:
    """The story of the first cast that fits; `kind` is of the question's service unless said."""
    resolved, rule, asker = resolved_of(policy, question)
    machine = machine_of(lower(resolved, Report()))
    found = kind or staging.kind_of(rule)
    assert found in (*staging.MODES, PLAIN, PACKET)
    wanted = staging.Wanted(found, mode, flags, state, is_answered=is_answered)
    cast = next(staging.casts(asker.asked(rule), wanted, resolved.zones))
    return staging.play(machine, cast, wanted, rule, address_tests=asker.tests)


def resolved_of(policy: str, question: str) -> tuple[Policy, PolicyRule, Asking]:
    """A policy, a question to it as a rule, and who tells what the question is about."""
    report = Report()
    source = pipeline.Text(policy, "test.policy", Path())
    resolved = pipeline.policy_of(source, report, questions=(SourceFile("question", question),))
    assert resolved is not None, report.diagnostics
    (expectation,) = resolved.tests[-1].expectations
    rule = expectation.asked
    asker = asking(resolved, [rule], report)
    lower(resolved, report)
    assert not report.has_errors, report.diagnostics
    return resolved, rule, asker


def brief(event: PacketEvent) -> str:
    """`client → server SYN NEW passes`."""
    from policylang.analysis.conversation.telling import says_words

    state = State(event.carried.tracked.state).name
    verdict = event.carried.verdict.value
    return f"{event.sender.name} → {event.receiver.name} {says_words(event.wire)} {state} {verdict}"


def briefly(story: Story) -> list[str]:
    """All packets of a story, one a line."""
    return [brief(event) for event in story.packets]


def address(number: int) -> str:
    """The address as text."""
    return format_address(number)
