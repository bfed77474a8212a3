"""What stands behind the place of a rule: answers, log and name; knows no places."""

from __future__ import annotations

from dataclasses import dataclass

from policylang.diagnostics import Label, Report, did_you_mean
from policylang.model.protocols import LOG_LEVELS
from policylang.model.types import Answer, Log, Rate, RejectWith
from policylang.source import Span
from policylang.syntax import tree

MAX_LIMIT = 10_000  # xt_limit refuses more a second (XT_LIMIT_SCALE)


@dataclass(frozen=True, slots=True)
class Options:
    """Resolves answers and options."""

    report: Report

    def answer(self, verb: str, names: tuple[tree.Name, ...]) -> RejectWith | None:
        """What a reject answers; None for other verbs. Reports `bad-answer`."""
        if verb != "reject":
            if names:
                self.report.add(
                    "bad-answer",
                    f"`{verb}` sends no answer, so `with` has nothing to choose",
                    names[0].span,
                    help="only `reject` answers",
                )
            return None
        answers: list[Answer] = []
        for name in names:
            try:
                answers.append(Answer(name.text))
            except ValueError:
                known = [a.value for a in Answer]
                self.report.add(
                    "bad-answer",
                    f"`{name.text}` is not an answer",
                    name.span,
                    help=did_you_mean(name.text, known) or "the answers are " + ", ".join(known),
                )
        others = [a for a in answers if a is not Answer.TCP_RESET]
        if len(others) > 1 or len(answers) - len(others) > 1:
            self.report.add(
                "bad-answer",
                "one answer to TCP and one to the rest are all there can be",
                names[-1].span,
                help="for example `with tcp-reset, admin-prohibited`",
            )
        if not answers:
            return RejectWith()
        reset = Answer.TCP_RESET in answers
        other = others[0] if others else Answer.PORT_UNREACHABLE
        return RejectWith(Answer.TCP_RESET if reset else other, other)

    def of(
        self, nodes: tuple[tree.LogOption | tree.NameOption, ...]
    ) -> tuple[Log | None, str | None]:
        """The log and the name that the options of a statement say."""
        log: Log | None = None
        name: str | None = None
        first: dict[type, Span] = {}
        for node in nodes:
            word = "log" if isinstance(node, tree.LogOption) else "name"
            if type(node) in first:
                self.report.add(
                    "duplicate-option",
                    f"`{word}` is given twice",
                    node.span,
                    labels=(Label(first[type(node)], "the first is here"),),
                )
                continue
            first[type(node)] = node.span
            if isinstance(node, tree.LogOption):
                log = self.log(node)
            else:
                name = self._plain_text(node.text)
        return log, name

    def log(self, node: tree.LogOption) -> Log:
        """How to log; reports `bad-log` and `bad-text`."""
        prefix = None if node.prefix is None else self._plain_text(node.prefix, but="$")
        level = None if node.level is None else node.level.text
        if node.level is not None and level not in LOG_LEVELS:
            self.report.add(
                "bad-log",
                f"`{level}` is not a log level",
                node.level.span,
                help=did_you_mean(node.level.text, LOG_LEVELS)
                or "the levels are " + ", ".join(LOG_LEVELS),
            )
        group = None if node.group is None else node.group.value
        if node.group is not None:
            if node.group.value > 0xFFFF:
                self.report.add("bad-log", "log groups end at 65535", node.group.span)
            if node.level is not None:
                self.report.add(
                    "bad-log",
                    "a log group has no level",
                    node.level.span,
                    help="leave one of the two out",
                    labels=(Label(node.group.span, "the group"),),
                )
        rate: Rate | None = Rate(10, "second")
        if isinstance(node.limit, tree.Keyword):
            rate = None
        elif node.limit is not None:
            rate = self._rate(node.limit)
        return Log(prefix, level, group, rate, node.span)

    def _rate(self, node: tree.RateNode) -> Rate:
        burst = 5 if node.burst is None else node.burst
        if not 1 <= node.count <= MAX_LIMIT or not 1 <= burst <= MAX_LIMIT:
            self.report.add(
                "bad-rate",
                f"a rate and its burst are from 1 to {MAX_LIMIT}",
                node.span,
            )
        return Rate(node.count, node.unit, burst)

    def _plain_text(self, node: tree.Text, *, but: str = "") -> str:
        """The text; reports `bad-text` at the first character that no target can write."""
        for position, character in enumerate(node.text, node.span.start + 1):
            if not 32 <= ord(character) < 127 or character in "\\" + but:
                shown = character if character.isprintable() else f"U+{ord(character):04X}"
                self.report.add(
                    "bad-text",
                    f"`{shown}` cannot be written into a ruleset",
                    Span(node.span.file, position, position + 1),
                    help="printable ASCII can, but for quotes and backslashes"
                    + (f", and `{but}` in a log prefix" if but else ""),
                )
                break
        return node.text
