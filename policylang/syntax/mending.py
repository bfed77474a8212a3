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
from policylang.syntax.tokens import (
    ADDRESS,
    JOINTS,
    JUNK,
    LATER_CONDITIONS,
    LATER_OPTIONS,
    LATER_SETTINGS,
    LATER_STATEMENTS,
    MAC,
    NAME,
    NUMBER,
    PARAMETER,
    RESERVED,
    STATEMENTS,
    STRING,
    VERBS,
    WORDS,
    Token,
)
from policylang.syntax.wording import (
    close_word,
    element_words,
    expected_words,
    hint,
    junk_words,
    quoted,
    words_of,
)

MOST_MISTAKES = 10  # of one statement that are looked for
MOST_SUSPECTS = 500  # words of a file that are compared with those that start statements

# Where a clause that cannot be read yet ends.
_AFTER_CONDITIONS = (
    LATER_CONDITIONS | LATER_OPTIONS | {"log", "name", "inbound", "outbound", "from", "with", "}"}
)
_AFTER_ITEMS = frozenset(
    ("tcp", "udp", "sctp", "dccp", "icmp", "icmpv6", "protocol", "helper", "data", "warn", "}")
)
_AFTER_SETTINGS = LATER_SETTINGS | {"essentials", "invalid", "}"}
# What is read for a token that only later versions know; the statement itself is left out.
_STAND_INS = {PARAMETER: (NAME, NUMBER, ADDRESS, STRING), MAC: (ADDRESS,)}
_LATER_SETS = frozenset({"url", "resolve"})  # before a text in quotes


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
        is_known = not any(token.kind in _STAND_INS for token in tokens)
        for _ in range(MOST_MISTAKES):
            outcome = self._read(shape_of(tokens))
            if isinstance(outcome, Template):
                return Reading(outcome if is_known else None, tokens, rest)
            at = outcome.at
            found = tokens[min(at, len(tokens) - 1)]
            if 0 < at < len(tokens) and self._starts_another(found):
                prefix = self._prefix(tokens, at)
                if prefix is not None:
                    tokens, rest = prefix, found
                    continue
            mended = self._mend(tokens, at, outcome.expected)
            if mended is None:
                return Reading(None, tokens, self._start_behind(whole, found))
            if len(mended) == at:
                rest = self._start_behind(whole, found)
            tokens = mended
        return Reading(None, tokens, rest)

    def is_misspelt_start(self, token: Token) -> bool:
        """Whether a token is likely meant to start a statement."""
        if token.kind not in (NAME, "accept", "drop"):  # words of settings, and of other languages
            return False
        if not self.starts_line(token) or not self._suspects_left:
            return False
        self._suspects_left -= 1
        return close_word(token.text, STATEMENTS | LATER_STATEMENTS) is not None

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

    def not_yet(self, token: Token, what: str | None = None) -> None:
        """Refuse a part of the language that later versions compile."""
        if what is None:
            what = f"`{token.text}` is"
        self.complain(
            "not-yet",
            f"{what} a part of the language that this version does not compile yet",
            token,
        )

    def junk(self, token: Token) -> None:
        """Tell of a token that stands nowhere."""
        message, help = junk_words(token)
        self.complain("syntax", message, token, help=help)

    def span(self, token: Token) -> Span:
        return Span(self._file, token.start, token.end)

    # --- one mistake ------------------------------------------------------------------------

    def _mend(self, tokens: list[Token], at: int, expected: frozenset[str]) -> list[Token] | None:
        """Tell of the mistake at `at`, and return what was likely meant, or None.

        What comes back reads further than `tokens`, or is shorter.
        """
        if at == len(tokens):
            return self._unfinished(tokens, expected)
        found = tokens[at]
        if found.kind in _STAND_INS:
            return self._later_token(tokens, at, expected)
        clause_end = self._later_clause(tokens, at, expected)
        if clause_end is not None:
            return [*tokens[:at], *tokens[clause_end:]] if clause_end else None
        if found.kind in RESERVED and "WORD" in expected:
            mended = self._reserved_word(tokens, at, expected)
        elif found.kind == JUNK:
            self.junk(found)
            return self._prefix(tokens, at)
        else:
            mended = self._near_miss(tokens, at, expected)
        if mended is None and "," in expected:
            mended = self._missing_comma(tokens, at)
        if mended is None and at and tokens[at - 1].kind == ",":
            mended = self._needless_comma(tokens, at, expected)
        if mended is None:
            help = hint(tokens[at - 1].kind, found.kind) if at else None
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
            self.complain("syntax", self._expected(tokens, len(tokens), expected), last)
        return None

    def _later_token(
        self, tokens: list[Token], at: int, expected: frozenset[str]
    ) -> list[Token] | None:
        """Refuse a `$name` or a MAC address, and read it as whatever can stand there."""
        found = tokens[at]
        self.not_yet(found, "a parameter is" if found.kind == PARAMETER else "a MAC address is")
        for kind in _STAND_INS[found.kind]:
            mended = [*tokens[:at], found._replace(kind=kind), *tokens[at + 1 :]]
            if self._reads_past(mended, at):
                return mended
        return None

    def _later_clause(self, tokens: list[Token], at: int, expected: frozenset[str]) -> int | None:
        """Refuse a clause of later versions; where it ends.

        Returns None where it is no such clause, and 0 where the statement means nothing
        without it.
        """
        found, first = tokens[at], tokens[0].kind
        if first == "set":
            if found.kind == "dynamic" and "file" in expected:
                self.not_yet(found)
                return 0
            if found.kind == STRING and tokens[at - 1].text in _LATER_SETS:
                self.not_yet(tokens[at - 1])
                return 0
            return None
        if "WORD" in expected:
            return None
        if first in VERBS or first == "default":
            words, after = LATER_CONDITIONS | LATER_OPTIONS, _AFTER_CONDITIONS
        elif first == "service":
            words, after = frozenset({"answers"}), _AFTER_ITEMS
        elif first == "settings":
            words, after = LATER_SETTINGS, _AFTER_SETTINGS
        else:
            return None
        if found.kind not in words:
            return None
        self.not_yet(found)
        end = at + 1
        while end < len(tokens) and not _ends_clause(tokens, end, after):
            if self.is_misspelt_start(tokens[end]):
                break
            end += 1
        return end

    def _reserved_word(
        self, tokens: list[Token], at: int, expected: frozenset[str]
    ) -> list[Token] | None:
        """Tell of a word of the language that was meant as a name."""
        found = tokens[at]
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
        meant = close_word(found.text, words_of(expected))
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

    def _missing_comma(self, tokens: list[Token], at: int) -> list[Token] | None:
        """Tell of two elements of a list without a comma between them."""
        found = tokens[at]
        comma = found._replace(kind=",", text=",", end=found.start)
        mended = [*tokens[:at], comma, *tokens[at:]]
        if not self._reads_past(mended, at):
            return None
        self.complain("syntax", f"a comma is missing before {quoted(found.text)}", found)
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


def _ends_clause(tokens: Sequence[Token], at: int, after: frozenset[str]) -> bool:
    """Whether the clause before `at` ends there."""
    kind, before = tokens[at].kind, tokens[at - 1]
    if kind == "source":
        return at + 1 < len(tokens) and tokens[at + 1].kind == "port"
    if kind == "over":
        return before.kind != "limit"
    return kind in after
