"""Reads a text into the tree, by the textX grammar in `policy.tx`; resolves no name.

textX is imported when the first statement is read, and nowhere else. It sees statements as
shapes (see `shapes`); cutting a text into statements and telling errors is for `statements`.
"""

from __future__ import annotations

import gc
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import cache
from importlib.resources import files
from itertools import accumulate
from typing import Any

from policylang.diagnostics import Report
from policylang.source import SourceFile, Span
from policylang.syntax import tree
from policylang.syntax.mending import Mender
from policylang.syntax.parameters import Parameters
from policylang.syntax.shapes import (
    Failure,
    Fill,
    Shape,
    Template,
    constant,
    hole,
    inner,
    leaf,
    several,
    spelled,
)
from policylang.syntax.statements import Statements
from policylang.syntax.tokens import STATEMENTS, Token, read_tokens

# Grammar rules that are a class of the tree under another name.
ROLES: dict[str, type[tree.Node]] = {
    "AllKeyword": tree.Keyword,
    "AnswersKeyword": tree.Keyword,
    "EndKeyword": tree.Keyword,
    "FamilyKeyword": tree.Keyword,
    "NoneKeyword": tree.Keyword,
    "ProtocolName": tree.Name,
    "TypeName": tree.Name,
}

MOST_SHAPES = 20_000  # kept at a time; a server that sees many policies stays small


def parse(file: SourceFile, report: Report, *, catalogue: bool = False) -> tree.Document:
    """The statements of a file that could be read; every error is reported.

    `catalogue` allows the statements of the catalogue's own. Never raises, whatever the text.
    """
    with opened(file, report, Parameters(report)) as statements:
        found = tuple(statements.read(catalogue=catalogue))
        return tree.Document(found, statements.broken)


def read_question(file: SourceFile, report: Report, parameters: Parameters) -> tree.TestDecl | None:
    """A text that is worded like a rule without its verb, as a test that expects to be allowed.

    Reports every error; None then.
    """
    with _collector_off():
        tokens = read_tokens(file, report)
        mender = Mender(file, _grammar().read, report)
        if tokens[0].kind in STATEMENTS or len(tokens) == 1:
            told = f", not with `{tokens[0].text}`" if len(tokens) > 1 else ""
            mender.complain(
                "syntax",
                f"a question starts with what it is about{told}",
                tokens[0],
                help="for example `ssh from any to self`; the answer says what becomes of it",
            )
            return None
        before = [Token(word, word, 0, 0) for word in ("expect", "allow")]
        written = parameters.expanded(file, tokens[:-1], tokens[-1:])
        reading = mender.statement([*before, *written])
        if reading.template is None:
            return None
        node, *others = reading.template.fill(file, reading.tokens)
        assert isinstance(node, tree.ExpectNode)
        ends = reading.rest if reading.rest is not None else others[0].span if others else None
        if ends is not None:
            at = Span(file, ends.start, ends.end)
            report.add("syntax", "the question is over before this", at, help="ask one at a time")
            return None
        span = Span(file, 0, len(file.text))
        node = replace(node, span=span)
        return tree.TestDecl(span, tree.Text(span, file.text), (node,))


@contextmanager
def opened(file: SourceFile, report: Report, parameters: Parameters) -> Iterator[Statements]:
    """The statements of a file, to be read one by one; every error is reported.

    `parameters` are asked for each statement when its turn has come.
    """
    with _collector_off():
        mender = Mender(file, _grammar().read, report)
        yield Statements(file, read_tokens(file, report), mender, parameters)


@contextmanager
def _collector_off() -> Iterator[None]:
    """The cyclic collector makes parsing superlinear: textX holds on to all that it makes."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@cache
def _grammar() -> Grammar:
    return Grammar()


class Grammar:
    """The grammar, and the shapes that it has read."""

    def __init__(self) -> None:
        from textx import TextXSyntaxError, metamodel_from_str

        text = files("policylang.syntax").joinpath("policy.tx").read_text(encoding="utf-8")
        self.metamodel = metamodel_from_str(text, autokwd=True, auto_init_attributes=False)
        self._syntax_error = TextXSyntaxError
        self._shapes: dict[Shape, Template | Failure] = {}

    def read(self, shape: Shape) -> Template | Failure:
        """What comes of all statements of a shape."""
        outcome = self._shapes.get(shape)
        if outcome is None:
            if len(self._shapes) >= MOST_SHAPES:
                self._shapes.clear()
            outcome = self._shapes[shape] = self._read(spelled(shape))
        return outcome

    def _read(self, texts: Sequence[str]) -> Template | Failure:
        starts = [0, *accumulate(len(text) + 1 for text in texts)]
        try:
            document = self.metamodel.model_from_str(" ".join([*texts, ""]))
        except self._syntax_error as error:
            return Failure(
                min(bisect_right(starts, error.col - 1) - 1, len(texts)),
                frozenset(_terminal(rule) for rule in error.expected_rules) - {""},
            )
        return Template(several([_converted(s, starts) for s in document.statements]))


def _terminal(rule: Any) -> str:
    """The name of a terminal of the grammar, or the word that it is; "" where it is neither."""
    name = rule.rule_name
    if name in ("", "sep"):
        return str(getattr(rule, "to_match", ""))  # a `!` before a rule has no text of its own
    return str(name)


def _converted(value: Any, starts: Sequence[int]) -> Fill:
    """How to fill the node that a textX object, or an attribute of one, stands for."""
    if isinstance(value, list):
        return several([_converted(element, starts) for element in value])
    if value is None:
        return constant(None)
    if isinstance(value, str):
        number = value.strip('"')
        return hole(int(number)) if number.isdigit() else constant(value)
    rule = type(value).__name__
    node = ROLES.get(rule) or getattr(tree, rule)
    first = bisect_right(starts, value._tx_position) - 1
    last = bisect_right(starts, value._tx_position_end - 1) - 1
    parts = [part.name for part in fields(node) if part.name != "span"]
    return leaf(node, first) or inner(
        node, first, last, [_converted(getattr(value, part), starts) for part in parts]
    )
