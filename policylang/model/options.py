"""What stands behind the place of a rule: answers and options; knows no places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from policylang.diagnostics import Label, Report, did_you_mean
from policylang.model.elements import seconds
from policylang.model.protocols import LOG_LEVELS
from policylang.model.types import (
    AddTo,
    Answer,
    DynamicSet,
    Log,
    Per,
    Rate,
    RejectWith,
    Side,
)
from policylang.source import Span
from policylang.syntax import tree

MAX_LIMIT = 10_000  # xt_limit refuses more a second (XT_LIMIT_SCALE)
BURST = 5
LOG_RATE = Rate(10, "second", BURST)

V4_BITS, V6_BITS = 32, 128
V6_PREFIX_OF_V4 = 64  # what is one network where a length is for IPv4


@dataclass(frozen=True, slots=True)
class Said:
    """What the options of a statement say."""

    log: Log | None = None
    name: str | None = None
    adds: tuple[AddTo, ...] = ()
    also_established: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """Resolves answers and options.

    `dynamic_set` finds the set that a name stands for, or reports that there is none.
    `log_rate` holds where a `log` says nothing of a rate.
    """

    report: Report
    dynamic_set: Callable[[tree.Name], DynamicSet | None]
    log_rate: Rate | None = LOG_RATE

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

    def of(self, nodes: tuple[tree.Option, ...], *, bans: bool = False) -> Said:
        """What the options of a statement say; `bans` where `also established` may stand.

        Reports `duplicate-option`, `misplaced-option` and what is wrong in each.
        """
        said = Said()
        first: dict[str, Span] = {}
        for node in nodes:
            word = _word(node)
            if word in first:
                self.report.add(
                    "duplicate-option",
                    f"`{word}` is given twice",
                    node.span,
                    labels=(Label(first[word], "the first is here"),),
                )
                continue
            first[word] = node.span
            match node:
                case tree.LogOption():
                    said = replace(said, log=self.log(node))
                case tree.NameOption():
                    said = replace(said, name=plain_text(self.report, node.text))
                case tree.AddOption():
                    said = replace(said, adds=(*said.adds, *self._add(node)))
                case tree.AlsoOption():
                    if not bans:
                        self.report.add(
                            "misplaced-option",
                            "`also established` is for rules that deny or reject",
                            node.span,
                            help="open connections pass anyway where a rule allows them, and a "
                            "default decides on new ones alone",
                        )
                    said = replace(said, also_established=True)
        return said

    def _add(self, node: tree.AddOption) -> tuple[AddTo, ...]:
        held = self.dynamic_set(node.set)
        if held is None:
            return ()
        timeout_s = None if node.timeout is None else seconds(self.report, node.timeout)
        return (AddTo(held, Side(node.side), timeout_s),)

    def log(self, node: tree.LogOption) -> Log:
        """How to log; reports `bad-log` and `bad-text`."""
        prefix = None if node.prefix is None else plain_text(self.report, node.prefix, but="$")
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
        rate = self.log_rate if node.limit is None else self.log_limit(node.limit)
        return Log(prefix, level, group, rate, node.span)

    def log_limit(self, node: tree.RateNode | tree.Keyword) -> Rate | None:
        """The rate of a log; None for `limit none`."""
        return None if isinstance(node, tree.Keyword) else self.rate(node)

    def rate(self, node: tree.RateNode) -> Rate:
        """A rate as written, with the burst that holds where none is; reports `bad-rate`."""
        burst = BURST if node.burst is None else node.burst
        for what, count in (("rate", node.count), ("burst", burst)):
            if not 1 <= count <= MAX_LIMIT:
                self.report.add(
                    "bad-rate", f"a {what} is from 1 to {MAX_LIMIT}, not `{count}`", node.span
                )
        return Rate(node.count, node.unit, burst, None if node.per is None else self.per(node.per))

    def per(self, node: tree.Per) -> Per:
        """What is counted apart; reports `bad-prefix`.

        A length up to 32 is for IPv4, and IPv6 goes by /64 then; a longer one is for IPv6, and
        IPv4 goes by the address.
        """
        length = node.prefix_len
        if length is None:
            return Per(Side(node.side))
        if not 1 <= length <= V6_BITS:
            self.report.add(
                "bad-prefix", f"a prefix has from 1 to {V6_BITS} bits, not `{length}`", node.span
            )
        if length <= V4_BITS:
            return Per(Side(node.side), length, V6_PREFIX_OF_V4)
        return Per(Side(node.side), V4_BITS, length)


def plain_text(report: Report, node: tree.Text, *, but: str = "") -> str:
    """The text; reports `bad-text` at the first character that no target can write.

    Those of `but` are not wanted either.
    """
    is_here = node.span.file.text.startswith(node.text, node.span.start + 1)  # else a parameter
    for position, character in enumerate(node.text, node.span.start + 1):
        if not 32 <= ord(character) < 127 or character in "\\" + but:
            is_shown = character.isprintable() and character != "`"
            shown = character if is_shown else f"U+{ord(character):04X}"
            report.add(
                "bad-text",
                f"`{shown}` cannot be written into a ruleset",
                Span(node.span.file, position, position + 1) if is_here else node.span,
                help="printable ASCII can, but for quotes and backslashes"
                + (f", and `{but.replace('`', '')}` here" if but else "")
                + (", nor backticks" if "`" in but else ""),
            )
            break
    return node.text


def _word(node: tree.Option) -> str:
    """What an option is called: a statement has at most one of each."""
    match node:
        case tree.LogOption():
            return "log"
        case tree.NameOption():
            return "name"
        case tree.AddOption(side=side):
            return f"add {side}"
        case tree.AlsoOption():
            return "also established"
