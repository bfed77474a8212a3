"""What statements of one shape have in common; knows neither textX nor how errors are told.

Statements that differ only in names, numbers, addresses and strings have the same shape: the
tuple of their tokens' kinds. The grammar reads a shape once, with the number of each token in
place of its text, and what comes out is a template: the same tree with holes. Filling a template
with the tokens of a statement is thirty times as quick as reading the statement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from policylang.source import SourceFile, Span
from policylang.syntax import tree
from policylang.syntax.tokens import (
    ADDRESS,
    DATE,
    DURATION,
    MAC,
    MASKED,
    NAME,
    NUMBER,
    PREFIXES,
    RANGE,
    RATES,
    STRING,
    WINDOW,
    WORDS,
    Token,
)

Shape = tuple[str, ...]
Fill = Callable[[SourceFile, Sequence[Token]], Any]

_NUMBERED = {
    NAME: "n{}".format,
    STRING: '"{}"'.format,
    NUMBER: "{}".format,
    RANGE: "{0}-{0}".format,
    ADDRESS: "{}.0.0.0".format,
    **{kind: ("{}/" + unit).format for kind, unit in RATES.items()},
    **{kind: (side + "/{}").format for kind, side in PREFIXES.items()},
    DURATION: "{}s".format,
    MASKED: "{0}/{0}".format,
    MAC: "00:00:00:00:00:00".format,
    WINDOW: "00:00-00:00".format,
    DATE: "2000-01-01".format,
}
_NOWHERE = "?"  # what no terminal of the grammar takes


@dataclass(frozen=True, slots=True)
class Template:
    """A statement of one shape, to be filled."""

    fill: Callable[[SourceFile, Sequence[Token]], tuple[tree.Statement, ...]]


@dataclass(frozen=True, slots=True)
class Failure:
    """Where the reading of a shape stopped, and the terminals that might have stood there.

    `at` is the number of a token, or the number of tokens where more was expected.
    """

    at: int
    expected: frozenset[str]


def spelled(shape: Shape) -> list[str]:
    """The texts to be read for a shape: words as they are, all else as its own number."""
    texts = []
    for number, kind in enumerate(shape):
        if kind in _NUMBERED:
            texts.append(_NUMBERED[kind](number))
        else:
            texts.append(kind if kind in WORDS or kind in ",={}" else _NOWHERE)
    return texts


def shape_of(tokens: Iterable[Token]) -> Shape:
    return tuple(token.kind for token in tokens)


# --- filling --------------------------------------------------------------------------------


def number_of(text: str) -> int:
    """The value of a decimal or 0x number."""
    return int(text, 16) if text[:2] in ("0x", "0X") else int(text)


def _name(span: Span, text: str) -> tree.Name:
    quoted = text[0] == '"'
    return tree.Name(span, text[1:-1] if quoted else text, quoted)


def _range(span: Span, text: str) -> tree.NumberRange:
    low, high = text.split("-")
    return tree.NumberRange(span, number_of(low), number_of(high))


_LEAVES: dict[type, Callable[[Span, str], tree.Node]] = {
    tree.Name: _name,
    tree.Text: lambda span, text: tree.Text(span, text[1:-1]),
    tree.Number: lambda span, text: tree.Number(span, number_of(text)),
    tree.NumberRange: _range,
    tree.Address: tree.Address,
    tree.MacAddress: tree.MacAddress,
    tree.Duration: tree.Duration,
    tree.TimeWindow: tree.TimeWindow,
    tree.Date: tree.Date,
    tree.Masked: tree.Masked,
}


def leaf(node: type, number: int) -> Fill | None:
    """How to fill a node that is one token, or None where `node` is not of that sort."""
    make = _LEAVES.get(node)
    if make is None:
        return None

    def fill(file: SourceFile, tokens: Sequence[Token]) -> tree.Node:
        _, text, start, end = tokens[number]
        return make(Span(file, start, end), text)

    return fill


def inner(node: Callable[..., tree.Node], first: int, last: int, parts: Sequence[Fill]) -> Fill:
    """How to fill a node that reaches from one token to another, attribute by attribute."""

    def fill(file: SourceFile, tokens: Sequence[Token]) -> tree.Node:
        span = Span(file, tokens[first].start, tokens[last].end)
        return node(span, *[part(file, tokens) for part in parts])

    return fill


def several(parts: Sequence[Fill]) -> Fill:
    """How to fill a tuple."""
    return lambda file, tokens: tuple([part(file, tokens) for part in parts])


def constant(value: Any) -> Fill:
    """What all statements of the shape share."""
    return lambda file, tokens: value


def hole(number: int) -> Fill:
    """The text or number of a token that is an attribute and no node."""

    def fill(file: SourceFile, tokens: Sequence[Token]) -> str | int:
        text = tokens[number].text
        if text[0] == '"':
            return text[1:-1]
        before, _, after = text.partition("/")
        return number_of(before if before[0].isdigit() else after)

    return fill
