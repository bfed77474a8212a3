"""What `$NAME` stands for: tokens, never text, so that a value stays a value wherever it stands.

A policy declares its parameters, and whoever compiles it may set them from outside. Both kinds of
values are cut by the same tokenizer and hold nothing but values and commas: no value can end a
statement or begin one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from policylang.diagnostics import Label, Report, did_you_mean
from policylang.source import SourceFile, Span
from policylang.syntax import tree
from policylang.syntax.slips import junk_words
from policylang.syntax.tokens import (
    ADDRESS,
    DATE,
    DURATION,
    END,
    JUNK,
    MAC,
    MASKED,
    NAME,
    NUMBER,
    PARAMETER,
    RANGE,
    RATES,
    RESERVED,
    STRING,
    UNRESERVED,
    WINDOW,
    Token,
    kind_of,
    read_tokens,
)
from policylang.syntax.wording import quoted

_VALUES = UNRESERVED | {
    *(NAME, STRING, NUMBER, RANGE, ADDRESS, MAC, DURATION, WINDOW, DATE, MASKED, *RATES),
}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_LARGEST_DECIMAL = 10**18  # of what the tokenizer takes for a number
_UNPRINTABLE = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")

_Value = tuple[tuple[str, str], ...]  # the tokens as (kind, text); a comma is one, too


@dataclass(frozen=True, slots=True)
class _Parameter:
    """A declaration; `value` is None where it has none, which was reported."""

    span: Span
    value: _Value | None


@dataclass(slots=True)
class Parameters:
    """The parameters that were declared so far, and what was given from outside."""

    report: Report
    _given: dict[str, _Value | None] = field(default_factory=dict)  # None: refused
    _declared: dict[str, _Parameter] = field(default_factory=dict)

    @classmethod
    def given(cls, values: Mapping[str, str], report: Report) -> Parameters:
        """With values from outside, as `-D NAME=VALUE` gives them; reports `bad-parameter`."""
        return cls(report, {name: _outside(name, text, report) for name, text in values.items()})

    def declare(self, declaration: tree.ParamDecl) -> None:
        """Take in a declaration; reports `duplicate-parameter`, `parameter-unset`, `bad-name`."""
        name = declaration.name
        if _NAME.fullmatch(name.text) is None:
            self.report.add(
                "bad-name",
                f"{quoted(name.text)} cannot be the name of a parameter",
                name.span,
                help="names are letters, digits, `_` and `-` and start with a letter",
            )
            return
        if name.text in self._declared:
            self.report.add(
                "duplicate-parameter",
                f"the parameter `{name.text}` is declared twice",
                name.span,
                labels=[Label(self._declared[name.text].span, "the first is here")],
            )
            return
        value = self._given.get(name.text)
        if name.text not in self._given:
            value = _written(declaration)
            if not value:
                self.report.add(
                    "parameter-unset",
                    f"the parameter `{name.text}` has no value",
                    declaration.span,
                    help=f"set it from outside (`-D {name.text}=…`), or give it a value here "
                    f"(`param {name.text} = …`)",
                )
        self._declared[name.text] = _Parameter(name.span, value or None)

    def lose(self, span: Span, name: str) -> None:
        """Take in a declaration that could not be read, which was reported."""
        self._declared.setdefault(name, _Parameter(span, None))

    def expanded(
        self, file: SourceFile, tokens: Sequence[Token], behind: Iterable[Token]
    ) -> list[Token]:
        """The tokens with values for parameters, each at the place of its `$NAME`.

        Reports `unknown-parameter`; one without a value is left as it is. `behind` are the
        tokens that follow in the file.
        """
        if not any(token.kind == PARAMETER for token in tokens):
            return list(tokens)
        result: list[Token] = []
        for token in tokens:
            value: _Value | None = None
            if token.kind == PARAMETER:
                known = self._declared.get(token.text[1:])
                if known is None:
                    self._unknown(file, token, behind)
                else:
                    value = known.value
            if value is None:
                result.append(token)
            else:
                result += (Token(kind, text, token.start, token.end) for kind, text in value)
        return result

    def tell_undeclared(self) -> None:
        """Report what was given from outside and declared nowhere."""
        for name in sorted(self._given.keys() - self._declared.keys()):
            known = ", ".join(f"`{other}`" for other in sorted(self._declared))
            self.report.add(
                "unknown-parameter",
                f"`-D {_shown(name)}`: the policy declares no such parameter",
                None,
                help=did_you_mean(name, self._declared)
                or (f"its parameters are {known}" if known else "it declares no parameter"),
            )

    def _unknown(self, file: SourceFile, token: Token, behind: Iterable[Token]) -> None:
        name = token.text[1:]
        later = _declaration_of(name, behind)
        labels, help = [], did_you_mean(name, self._declared)
        if later is not None:
            labels = [Label(Span(file, later.start, later.end), "declared here, after its use")]
            help = "a parameter is declared before it is used"
        self.report.add(
            "unknown-parameter",
            f"no parameter is called {quoted(name)}",
            Span(file, token.start, token.end),
            help=help or f"declare it above: `param {name} = …`",
            labels=labels,
        )


def _declaration_of(name: str, tokens: Iterable[Token]) -> Token | None:
    """Where the parameter is declared among tokens."""
    before = ""
    for token in tokens:
        if before == "param" and token.text.strip('"') == name:
            return token
        before = token.kind
    return None


def _written(declaration: tree.ParamDecl) -> _Value:
    """The value that a declaration says."""
    value: list[tuple[str, str]] = []
    for node in declaration.values:
        match node:
            case tree.Name(text=text, quoted=is_quoted):
                text = f'"{text}"' if is_quoted else text
            case tree.Number(value=number):
                text = str(number) if number < _LARGEST_DECIMAL else hex(number)
            case tree.NumberRange(low=low, high=high):
                text = "-".join(str(n) if n < _LARGEST_DECIMAL else hex(n) for n in (low, high))
            case tree.RateValue(count=count, unit=unit):
                text = f"{count}/{unit}"
            case _:
                text = node.text
        value += [(",", ",")] if value else []
        value.append((STRING if text[0] == '"' else kind_of(text), text))
    return tuple(value)


# --- from outside ---------------------------------------------------------------------------


def _outside(name: str, text: str, report: Report) -> _Value | None:
    """The value that a text from outside is, or None; reports `bad-parameter`."""
    told = _fault(text)
    if isinstance(told, tuple):
        message, help = told
        report.add("bad-parameter", f"`-D {_shown(name)}`: {message}", None, help=help)
        return None
    return tuple((token.kind, token.text) for token in told)


def _fault(text: str) -> list[Token] | tuple[str, str | None]:
    """The tokens of a value; or what is wrong with it, and how to mend it."""
    bad = _UNPRINTABLE.search(text)
    if bad is not None:
        return f"the character U+{ord(bad[0]):04X} is not text", None
    tokenizing = Report()
    tokens = read_tokens(SourceFile("-D", text), tokenizing)
    tokens = [token for token in tokens if token.kind != END]
    if not tokens:
        return "the value is empty", "a value is one thing or several between commas"
    if tokenizing.diagnostics:
        return "the closing quote is missing", "a string is one line in double quotes"
    if "".join(text.split()) != "".join("".join(token.text.split()) for token in tokens):
        return "a value has no comments", "leave out `#`, or put the value in double quotes"
    for index, token in enumerate(tokens):
        wanted = "a value" if index % 2 == 0 else "a comma"
        if index % 2 == 0 and token.kind in _VALUES:
            continue
        if index % 2 == 1 and token.kind == ",":
            continue
        if index % 2 == 0 and token.kind in RESERVED:
            return (
                f"{quoted(token.text)} is a reserved word, not a value",
                f'a name goes in double quotes: `"{token.text}"`',
            )
        if token.kind == JUNK:
            return junk_words(token)
        return (
            f"expected {wanted}, not {quoted(token.text)}",
            "a value is a name, a number, an address, a time or a text in double quotes, "
            "or several of them between commas",
        )
    if len(tokens) % 2 == 0:
        return "expected a value after the last comma", None
    return tokens


def _shown(name: str) -> str:
    return quoted(name)[1:-1]
