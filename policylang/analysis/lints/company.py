"""Whether anything but a rule's own lines depends on the rule being there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from policylang.analysis.lints.subject import Subject, spans_of
from policylang.analysis.machine import Hook, Line
from policylang.ir import actions as ir
from policylang.ir.origin import Why
from policylang.model.policy import Default
from policylang.model.types import Answer, Direction, EndList, PolicyRule, PublishedEnd, Verb
from policylang.source import Span


class Company:
    """What the rules of a policy are to each other, beside what each decides."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        policy = subject.policy
        rules = policy.rules
        self._bans = any(one.also_established for one in rules)
        self._asks = any(t.answers_from_any for one in rules for t in one.what)
        self._filters = frozenset(base.chain for base in subject.filters)
        self._resets = _with_reset(rules)
        self._resets_anyway = bool(_with_reset(policy.defaults.values()))
        self._closes = frozenset(self._closing(rules))
        self._is_closed = policy.defaults[Direction.OUTBOUND].verb is not Verb.ALLOW

    def is_alone(self, rule: PolicyRule) -> bool:
        """Whether all that a rule makes are its own lines in FILTER.

        Then no line of another statement is there, or looks as it does, on its account.
        """
        if self._bans:
            return False  # it may keep a ban away
        if any(_is_published(one) for one in (*rule.source.lists, *rule.destination.lists)):
            return False
        places = self.subject.lines[rule.span]
        lines = [self.subject.line(where) for where in places]
        if any(own_span(line) != rule.span for line in lines):
            return False
        inner = {line.act.chain for line in lines if isinstance(line.act, ir.Jump)}
        if any(name not in self._filters and name not in inner for name, _ in places):
            return False
        return not self._is_last_reset(rule) and not self._is_last_to_close(rule)

    def _is_last_reset(self, rule: PolicyRule) -> bool:
        """Whether resets go out on account of the rule alone."""
        return not self._resets_anyway and self._resets == {rule.span}

    def _is_last_to_close(self, rule: PolicyRule) -> bool:
        """Whether it alone denies something on the way out.

        Where nothing is denied there, answers from elsewhere need no rules.
        """
        return self._asks and not self._is_closed and self._closes == {rule.span}

    def _closing(self, rules: Iterable[PolicyRule]) -> Iterator[Span]:
        going_out = {base.chain for base in self.subject.filters if base.hook is Hook.OUTPUT}
        for one in rules:
            if one.verb is not Verb.ALLOW and any(
                name in going_out for name, _ in self.subject.lines.get(one.span, ())
            ):
                yield one.span


def own_span(line: Line) -> Span | None:
    """The one statement that a line is there for, to decide."""
    spans = set(spans_of(line))
    whys = {origin.why for origin in line.origins}
    return spans.pop() if len(spans) == 1 and whys <= {Why.WRITTEN, Why.ANSWER} else None


def _with_reset(deciders: Iterable[PolicyRule | Default]) -> frozenset[Span | None]:
    """Where it is said that TCP is answered by a reset."""
    return frozenset(
        one.span
        for one in deciders
        if one.answer is not None and one.answer.tcp is Answer.TCP_RESET
    )


def _is_published(one: EndList) -> bool:
    return any(isinstance(e, PublishedEnd) for e in (*one.elements, *one.exceptions))
