"""Has one statement read; tells what is wrong with it, and reads what was likely meant.

A mistake that can be mended in one way costs one message: the rest of the statement is read as
if it had been written well, so that its other mistakes come out too. Knows no other statement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from policylang.diagnostics import Label, Report
from policylang.source import SourceFile, Span
from policylang.syntax.shapes import Failure, Shape, Template, shape_of
from policylang.syntax.slips import junk_words, out_of_order, phrase, slip, unfinished
from policylang.syntax.tokens import (
    ADDRESS,
    JOINTS,
    JUNK,
    MASKED,
    NAME,
    NUMBER,
    PARAMETER,
    RESERVED,
    STATEMENTS,
    STRING,
    WORDS,
    Token,
)
from policylang.syntax.treatment_slips import start_slip, treatment_slip
from policylang.syntax.wording import (
    close_word,
    element_words,
    expected_words,
    quoted,
    words_of,
)

MOST_MISTAKES = 10  # of one statement that are looked for
MOST_SUSPECTS = 500  # words of a file that are compared with those that start statements

# What is read for a parameter without a value; the statement itself is left out.
_STAND_INS = (NAME, NUMBER, ADDRESS, STRING)


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of a statement.

    `template` is None where it is beyond mending; `tokens` are those to fill it with. `rest` is
    the first token that does not belong to it, if any.
    """

    template: Template | None
    tokens: list[Token]
    rest: Token | None = None


class Mender:
    """Reads the statements of one file."""

    def __init__(
        self, file: SourceFile, read: Callable[[Shape], Template | Failure], report: Report
    ) -> None:
        self._file = file
        self._read = read
        self._report = report
        self._suspects_left = MOST_SUSPECTS

    def statement(self, tokens: list[Token]) -> Reading:
        """The reading of a statement; all its mistakes that can be found are reported."""
        whole, rest = tokens, None
        is_known = not any(token.kind == PARAMETER for token in tokens)
        for _ in range(MOST_MISTAKES):
            outcome = self._read(shape_of(tokens))
            if isinstance(outcome, Template):
                return Reading(outcome if is_known else None, tokens, rest)
            outcome = self._of_condition(tokens, outcome)
            at = outcome.at
            found = tokens[min(at, len(tokens) - 1)]
            if 0 < at < len(tokens) and self._starts_another(found):
                prefix = self._prefix(tokens, at)
                if prefix is not None:
                    tokens, rest = prefix, found
                    continue
                if self._is_cut_short(found, outcome.expected):
                    self._unfinished(tokens[:at], outcome.expected)
                    return Reading(None, tokens, found)
            mended = self._mend(tokens, at, outcome.expected)
            if mended is None:
                return Reading(None, tokens, self._start_behind(whole, found))
            if mended == tokens[:at]:
                rest = self._start_behind(whole, found)
            tokens = mended
        return Reading(None, tokens, rest)

    def _of_condition(self, tokens: list[Token], outcome: Failure) -> Failure:
        """Where the value of a condition `mark` is missing; it is no statement of that name."""
        for at, token in enumerate(tokens[1 : outcome.at], 1):
            if token.kind != "mark" or outcome.at == at + 1 or self._is_mark(tokens[at + 1]):
                continue
            if self.can_read(tokens[:at]):
                return Failure(at + 1, frozenset({"MASKED", "NUMBER"}))
        return outcome

    def _is_mark(self, token: Token) -> bool:
        """Whether a token can be the value of the condition `mark`."""
        return token.kind in (NUMBER, MASKED, PARAMETER)

    def is_misspelt_start(self, token: Token) -> bool:
        """Whether a token is likely meant to start a statement."""
        if token.kind not in (NAME, "accept", "drop", "nat"):  # words of other languages, too
            return False
        if not self.starts_line(token) or not self._suspects_left:
            return False
        if start_slip(token.text) is not None:
            return True
        self._suspects_left -= 1
        return close_word(token.text, STATEMENTS) is not None

    def _start_behind(self, tokens: Iterable[Token], found: Token) -> Token | None:
        """The first token behind `found` that is likely meant to start a statement."""
        return next(
            (t for t in tokens if t.start > found.start and self.is_misspelt_start(t)), None
        )

    def can_read(self, tokens: Iterable[Token]) -> bool:
        """Whether there is nothing to mend."""
        return isinstance(self._read(shape_of(tokens)), Template)

    def starts_line(self, token: Token) -> bool:
        """Whether nothing but blanks stands before a token on its line."""
        text = self._file.text
        return not text[text.rfind("\n", 0, token.start) + 1 : token.start].strip()

    def complain(
        self,
        code: str,
        message: str,
        token: Token,
        *,
        help: str | None = None,
        labels: Iterable[Label] = (),
    ) -> None:
        """Report a mistake at a token."""
        self._report.add(code, message, self.span(token), help=help, labels=labels)

    def junk(self, token: Token, before: Token | None = None) -> None:
        """Tell of a token that stands nowhere, behind `before`."""
        message, help = junk_words(token, before)
        self.complain("syntax", message, token, help=help)

    def span(self, token: Token) -> Span:
        return Span(self._file, token.start, token.end)

    def _is_cut_short(self, found: Token, expected: frozenset[str]) -> bool:
        """Whether a statement that is not whole ends where `found` starts another."""
        if expected & {"{", "}"} or close_word(found.text, words_of(expected)) is not None:
            return False
        return self.is_misspelt_start(found)

    # --- one mistake ------------------------------------------------------------------------

    def _mend(self, tokens: list[Token], at: int, expected: frozenset[str]) -> list[Token] | None:
        """Tell of the mistake at `at`, and return what was likely meant, or None.

        What comes back reads further than `tokens`, or is shorter.
        """
        if at == len(tokens):
            return self._unfinished(tokens, expected)
        found = tokens[at]
        if found.kind == PARAMETER:
            return self._valueless(tokens, at)
        mended = self._out_of_order(tokens, at, expected) or self._phrase(tokens, at, expected)
        if mended is not None:
            return mended
        help = None if found.kind == JUNK else treatment_slip(tokens, at, expected)
        if help is not None:
            self.complain("syntax", self._expected(tokens, at, expected), found, help=help)
            return self._prefix(tokens, at)
        if found.kind in RESERVED and "WORD" in expected:
            mended = self._reserved_word(tokens, at, expected)
        elif found.kind == JUNK:
            self.junk(found, tokens[at - 1] if at else None)
            return self._prefix(tokens, at)
        else:
            mended = self._near_miss(tokens, at, expected)
        for mark, name in ((",", "a comma"), ("=", "`=`")):
            if mended is None and mark in expected:
                mended = self._missing_mark(tokens, at, mark, name)
        if mended is None and at and tokens[at - 1].kind == ",":
            mended = self._needless_comma(tokens, at, expected)
        if mended is None:
            help = slip(tokens, at, expected)
            self.complain("syntax", self._expected(tokens, at, expected), found, help=help)
            mended = self._prefix(tokens, at)
        return mended

    def _expected(self, tokens: Sequence[Token], at: int, expected: frozenset[str]) -> str:
        words = f"expected {expected_words(expected, tokens[:at])}"
        return f"{words} after {quoted(tokens[at - 1].text)}" if at else words

    def _unfinished(self, tokens: list[Token], expected: frozenset[str]) -> list[Token] | None:
        """Tell of a statement that ends too early."""
        last = tokens[-1]
        if "}" in expected:
            brace = next((token for token in tokens if token.kind == "{"), last)
            self.complain("unclosed-block", "this block is never closed", brace)
            return [*tokens, last._replace(kind="}", text="}", start=last.end)]
        if "{" in expected:
            self.complain("syntax", f"expected `{{` after {quoted(last.text)}", last)
        else:
            told = self._expected(tokens, len(tokens), expected)
            self.complain("syntax", told, last, help=unfinished(tokens))
        return None

    def _valueless(self, tokens: list[Token], at: int) -> list[Token] | None:
        """Read a `$name` that has no value, which was told, as whatever can stand there."""
        best, best_at = None, at
        for kind in _STAND_INS:
            mended = [*tokens[:at], tokens[at]._replace(kind=kind), *tokens[at + 1 :]]
            outcome = self._read(shape_of(mended))
            if isinstance(outcome, Template):
                return mended
            outcome = self._of_condition(mended, outcome)
            if outcome.at > best_at:
                best, best_at = mended, outcome.at
        return best

    def _reserved_word(
        self, tokens: list[Token], at: int, expected: frozenset[str]
    ) -> list[Token] | None:
        """Tell of a word of the language that was meant as a name."""
        found = tokens[at]
        if found.kind in ("dynamic", "resolve", "url") and "file" in expected:
            return None  # among the elements of a set it is no badly chosen name
        before, after = tokens[:at], tokens[at + 1 :]
        mended = [*before, found._replace(kind=NAME), *after]
        if not self._reads_past(mended, at):
            return None
        if found.kind in JOINTS:
            name = found._replace(kind=NAME)
            if self._reads_past([*before, name, found, *after], at + 1):
                return None  # a name is missing before it
        self.complain(
            "reserved-word",
            f"`{found.text}` is a reserved word, not {element_words(expected, before)}",
            found,
            help=f'put it in quotes (`"{found.text}"`) or choose another name',
        )
        return mended

    def _near_miss(
        self, tokens: list[Token], at: int, expected: frozenset[str]
    ) -> list[Token] | None:
        """Tell of a misspelt word of the language."""
        found = tokens[at]
        if found.kind != NAME and found.kind not in WORDS:
            return None
        words = words_of(expected)
        if "EOF" in expected:
            words.discard("helper")  # a statement of the catalogue's own
        meant = close_word(found.text, words)
        if meant is None:
            return None
        mended = [*tokens[:at], found._replace(kind=meant), *tokens[at + 1 :]]
        if not self._reads_past(mended, at):
            return None
        self.complain(
            "syntax",
            self._expected(tokens, at, expected),
            found,
            help=f"did you mean `{meant}`?",
        )
        return mended

    def _out_of_order(
        self, tokens: list[Token], at: int, expected: frozenset[str]
    ) -> list[Token] | None:
        """Tell of a place or a condition that stands too late; read on without what is before."""
        found = tokens[at]
        told = out_of_order(tokens, at)
        if told is None:
            return None
        first, help = told
        mended = [*tokens[:first], *tokens[at:]]
        if not self._reads_past(mended, first):
            return None
        self.complain("syntax", f"{quoted(found.text)} stands too late", found, help=help)
        return mended

    def _phrase(self, tokens: list[Token], at: int, expected: frozenset[str]) -> list[Token] | None:
        """Tell of a word that is none of the language but stands for several of it."""
        help = phrase(tokens, at, expected)
        prefix = None if help is None else self._prefix(tokens, at)
        if prefix is not None:
            self.complain("syntax", self._expected(tokens, at, expected), tokens[at], help=help)
        return prefix

    def _missing_mark(
        self, tokens: list[Token], at: int, mark: str, name: str
    ) -> list[Token] | None:
        """Tell of two elements of a list without a comma between them, or of a missing `=`."""
        found = tokens[at]
        inserted = found._replace(kind=mark, text=mark, end=found.start)
        mended = [*tokens[:at], inserted, *tokens[at:]]
        if not self._reads_past(mended, at):
            return None
        self.complain("syntax", f"{name} is missing before {quoted(found.text)}", found)
        return mended

    def _needless_comma(
        self, tokens: list[Token], at: int, expected: frozenset[str]
    ) -> list[Token] | None:
        """Tell of a comma behind the last element of a list."""
        mended = [*tokens[: at - 1], *tokens[at:]]
        if not self._reads_past(mended, at - 1):
            return None
        self.complain(
            "syntax",
            self._expected(tokens, at, expected),
            tokens[at],
            help="or leave out the comma",
        )
        return mended

    def _prefix(self, tokens: list[Token], at: int) -> list[Token] | None:
        """The tokens before `at`, if they are a statement."""
        return tokens[:at] if at and self.can_read(tokens[:at]) else None

    def _reads_past(self, tokens: Sequence[Token], at: int) -> bool:
        """Whether the token at `at` can be read, and the one after it if there is one."""
        outcome = self._read(shape_of(tokens))
        if isinstance(outcome, Template):
            return True
        return outcome.at > at + 1 or outcome.at == len(tokens)

    def _starts_another(self, token: Token) -> bool:
        """Whether a token may be the misspelt first word of the next statement."""
        return (token.kind == NAME or token.kind in WORDS) and self.starts_line(token)
