"""What the tests of a policy expect, resolved; nothing here makes rules of a target.

An expectation is worded like a rule, and so it is read as one: its packets are those that an
`allow` of the same words would be about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from policylang.diagnostics import Label, Report, did_you_mean
from policylang.model.options import Options
from policylang.model.rules import Context, Rules
from policylang.model.types import PolicyRule, RejectWith
from policylang.source import Span
from policylang.syntax import tree

PLAIN = "plain"  # a session of a service without a conntrack helper

# The conversations that can be played, by the conntrack helper that follows them, and their modes.
SESSION_MODES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ftp": ("active", "passive"),
        "tftp": ("read", "write"),
        "sip": ("udp", "tcp"),
        **dict.fromkeys(("irc", "pptp", "sane", "amanda", "h323", "netbios-ns", "snmp"), ()),
        PLAIN: (),
    }
)
_WITH_MODE = ("ftp",)  # which are told apart by their mode

_COUNTING = (tree.LimitCondition, tree.ConnectionsCondition)


class Wanted(StrEnum):
    """What is to become of packets; to be dropped or rejected is to be denied."""

    ALLOW = "allow"
    DENY = "deny"
    DROP = "drop"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class PacketExpectation:
    """What becomes of first packets: of all that are `asked`, or with `is_some` of one at least.

    `answer` is that of a `reject` where it says one.
    """

    wanted: Wanted
    is_some: bool
    asked: PolicyRule
    answer: RejectWith | None
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class SessionExpectation:
    """That conversations work: all that are `asked`, or with `is_some` one at least.

    `kind` is a key of `SESSION_MODES`, `mode` one of its modes, None where it has none.
    """

    kind: str
    mode: str | None
    is_some: bool
    asked: PolicyRule
    span: Span = field(compare=False)


Expectation = PacketExpectation | SessionExpectation


@dataclass(frozen=True, slots=True)
class Test:
    """A test with what it expects, in order."""

    name: str
    expectations: tuple[Expectation, ...]
    span: Span = field(compare=False)


def tests(
    declarations: tuple[tree.TestDecl, ...], rules: Rules, options: Options, report: Report
) -> tuple[Test, ...]:
    """The tests that were written; reports `duplicate-test`, `empty-test` and what is in them."""
    found: list[Test] = []
    first: dict[str, Span] = {}
    reader = _Reader(rules, options, report)
    for node in declarations:
        if node.name.text in first:
            report.add(
                "duplicate-test",
                f"two tests are called `{node.name.text}`",
                node.name.span,
                labels=[Label(first[node.name.text], "the first is here")],
            )
        first.setdefault(node.name.text, node.name.span)
        if not node.expectations:
            report.add("empty-test", "this test expects nothing", node.span)
        expectations = (reader.expectation(one) for one in node.expectations)
        found.append(
            Test(node.name.text, tuple(e for e in expectations if e is not None), node.span)
        )
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads expectations as the rules that they are worded like."""

    rules: Rules
    options: Options
    report: Report

    def expectation(self, node: tree.ExpectNode | tree.SessionNode) -> Expectation | None:
        match node:
            case tree.ExpectNode():
                answer = self.options.answer(node.verb, node.answers)
                asked = self.asked(node)
                if asked is None:
                    return None
                said = answer if node.answers else None
                return PacketExpectation(
                    Wanted(node.verb), node.some is not None, asked, said, node.span
                )
            case tree.SessionNode():
                return self._session(node)

    def asked(self, node: tree.ExpectNode | tree.SessionNode) -> PolicyRule | None:
        """What is asked about, as a rule; reports `misplaced-option`, `misplaced-condition`."""
        for option in node.options:
            self.report.add(
                "misplaced-option",
                "a question about packets takes no options",
                option.span,
                help="leave it out",
            )
        for condition in node.conditions:
            if isinstance(condition, _COUNTING):
                self.report.add(
                    "misplaced-condition",
                    "a rate or a number of connections is not told of a packet",
                    condition.span,
                    help="leave it out: a first packet comes alone, and rates are kept to",
                )
        what = node.what if isinstance(node, tree.ExpectNode) else (node.kind,)
        rule = tree.RuleNode(node.span, "allow", what, node.place, (), node.conditions, ())
        return next(iter(self.rules.unfold((rule,), Context(is_asked=True))), None)

    def _session(self, node: tree.SessionNode) -> SessionExpectation | None:
        """Reports `bad-session` for what is not known to be played."""
        asked = self.asked(node)
        if asked is None or not asked.what:
            return None
        helpers = {t.helper.name for t in asked.what if t.helper is not None}
        name = node.kind.text
        kind = min(helpers, default=name if name in SESSION_MODES else PLAIN)
        modes = SESSION_MODES[kind]
        mode = None if node.mode is None else node.mode.text
        if kind in _WITH_MODE and mode is None:
            self.report.add(
                "bad-session",
                f"a session of `{node.kind.text}` is " + " or ".join(f"`{m}`" for m in modes),
                node.kind.span,
                help=f"say which: `{node.kind.text} {modes[-1]}`",
            )
        elif node.mode is not None and mode not in modes:
            known = " or ".join(f"`{m}`" for m in modes)
            hint = did_you_mean(node.mode.text, modes)
            self.report.add(
                "bad-session",
                f"a session of `{node.kind.text}` is not `{mode}`",
                node.mode.span,
                help=hint or (f"it is {known}" if modes else "leave it out"),
            )
        else:
            traffic = tuple(t for t in asked.what if not helpers or t.helper is not None)
            return SessionExpectation(
                kind, mode, node.some is not None, replace(asked, what=traffic), node.span
            )
        return None
