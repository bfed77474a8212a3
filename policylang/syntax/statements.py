"""Cuts tokens into statements, has them read, and tells errors; knows no grammar.

A statement is known by the word that it starts with. One that cannot be read is told of, mended
as far as the mistake is plain, or left out, and the next one is read; so one run finds all the
mistakes of a file. Blocks of rules are taken apart: the head is read as `traffic PLACE { }`, and
the statements inside are read one by one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

from policylang.diagnostics import Label
from policylang.source import SourceFile
from policylang.syntax import tree
from policylang.syntax.expectation_nodes import Expectation
from policylang.syntax.mending import Mender
from policylang.syntax.parameters import Parameters
from policylang.syntax.shapes import Template
from policylang.syntax.tokens import (
    END,
    JUNK,
    MASKED,
    NAME,
    NUMBER,
    PARAMETER,
    STATEMENTS,
    STRING,
    TREATMENTS,
    VERBS,
    WORDS,
    Token,
)
from policylang.syntax.treatment_slips import form, start_slip
from policylang.syntax.wording import close_word, quoted

MOST_BLOCKS = 50  # one inside the other

_BLOCKS = frozenset({"traffic", "rules", "test", "on"})
_IN_RULES = VERBS | {"use", "traffic"}
_IN_TESTS = frozenset({"expect"})
# A host has its statements in its order, and these are the same for all of them.
_NOT_OF_HOSTS = frozenset({"include", "param", "host", "on", "helper"}) | _IN_TESTS
_OUT_OF_BLOCK = "move it out of the block"
_DECLARERS = frozenset({"zone", "set", "service", "rules", "host", "param"})

_Inner = tree.RuleNode | tree.UseNode | tree.TrafficBlock | tree.ExpectNode | tree.SessionNode

# After these on the same line a word that starts statements is a badly chosen name.
_DEMANDING = (
    VERBS
    | _DECLARERS
    | (TREATMENTS - {"redirect"})  # a type of ICMP is whole
    | frozenset({"from", "to", "in", "except", "with", "use", ",", "=", "interface", "network"})
    | frozenset(
        {"tcp", "udp", "sctp", "dccp", "icmp", "icmpv6", "protocol", "expect", "param", "native"}
    )
    | frozenset({"helper", "invalid", "user", "group", "mac", "port", "dscp"})
)


@dataclass(slots=True)
class _Block:
    """A block that is open; `template` is None where its head could not be read."""

    opened_by: Token
    head: list[Token]
    template: Template | None
    statements: list[tree.Statement] = field(default_factory=list)
    keeps_rules: bool = False  # of a block without a template

    @property
    def is_test(self) -> bool:
        return self._is("test")

    @property
    def is_of_hosts(self) -> bool:
        return self._is("on")

    def holds(self, kind: str) -> bool:
        """Whether a statement may stand in it that starts with a word."""
        if self.is_of_hosts:
            return kind not in _NOT_OF_HOSTS
        return kind in (_IN_TESTS if self.is_test else _IN_RULES)

    def _is(self, word: str) -> bool:
        return bool(self.head) and self.head[0].kind == word


def _filled(node: tree.Statement, inner: list[tree.Statement]) -> tree.Statement:
    """The node of a block, with what stands in it."""
    if isinstance(node, tree.TestDecl):
        return replace(
            node, expectations=tuple(one for one in inner if isinstance(one, Expectation))
        )
    if isinstance(node, tree.OnBlock):
        return replace(node, statements=tuple(inner))
    assert isinstance(node, (tree.TrafficBlock, tree.RulesDecl))
    rules = tuple(
        one for one in inner if isinstance(one, _Inner) and not isinstance(one, Expectation)
    )
    return replace(node, statements=rules)


class Statements:
    """The statements of one file."""

    def __init__(
        self, file: SourceFile, tokens: list[Token], mender: Mender, parameters: Parameters
    ) -> None:
        """`tokens` end with one of kind END."""
        self._file = file
        self._tokens = tokens
        self._mender = mender
        self._parameters = parameters
        self._at = 0
        self._is_skipping = False  # what follows a mistake, until the next statement
        self._done: list[tree.Statement] = []
        self._blocks: list[_Block] = []
        self._broken: list[str] = []
        self._unclosed: frozenset[int] | None = None

    @property
    def broken(self) -> tuple[str, ...]:
        """The names of statements that could not be read so far."""
        return tuple(self._broken)

    def read(self, *, catalogue: bool) -> Iterator[tree.Statement]:
        """The statements of the file, each as soon as it is whole; can be called once.

        What is declared to the parameters meanwhile holds for the statements that follow.
        """
        while self._tokens[self._at].kind != END:
            token = self._tokens[self._at]
            if token.kind == "}":
                self._close(token)
            elif self._starts(self._at):
                self._is_skipping = False
                self._statement(catalogue)
            elif self._is_skipping and not self._mender.is_misspelt_start(token):
                if token.kind == "{":
                    self._open(_Block(token, [], None, keeps_rules=True))
                self._at += 1
            else:
                self._no_statement(token)
            if self._done:
                done, self._done = self._done, []
                yield from done
        while self._blocks:
            self._end_unclosed(self._blocks[-1].opened_by, None)
        yield from self._done

    # --- where statements start and end -----------------------------------------------------

    def _starts(self, at: int) -> bool:
        """Whether a statement starts with this token."""
        kind = self._tokens[at].kind
        if kind not in STATEMENTS:
            return kind == "on" and self._opens_hosts(at)
        if at == 0:
            return True
        before = self._tokens[at - 1]
        if kind in VERBS and (before.kind == "default" or self._is_expected(at)):
            return False
        if kind == "set" and self._tokens[at + 1].kind in (NUMBER, MASKED):
            return self._mender.starts_line(self._tokens[at])  # `mark … set 0x10`
        if kind == "redirect" and before.kind in ("icmp", "icmpv6", ","):
            return False  # a type of ICMP
        if kind == "mark" and self._is_mark_condition(at):
            return False
        if before.kind == "=" and kind in _BLOCKS:
            return True  # `set NAME =` is whole
        return before.kind not in _DEMANDING or self._mender.starts_line(self._tokens[at])

    def _is_expected(self, at: int) -> bool:
        """Whether the verb at `at` is what a test expects."""
        if self._tokens[at - 1].kind == "some":
            at -= 1
        return at > 0 and self._tokens[at - 1].kind == "expect"

    def _is_mark_condition(self, at: int) -> bool:
        """Whether `mark` is a condition; the statement says `as` before the next one starts."""
        value = self._tokens[at + 1].kind
        if value in (NUMBER, MASKED):
            return not self._has_place_on_line(at)
        if value not in (PARAMETER, JUNK) and self._mender.starts_line(self._tokens[at]):
            return False
        for token in islice(self._tokens, at + 1, None):
            if token.text == "as":
                return False
            if token.kind in ("{", "}", END) or token.kind in STATEMENTS:
                return True
        return True

    def _has_place_on_line(self, at: int) -> bool:
        """Whether a line starts with this token and says a place, as no condition does."""
        if not self._mender.starts_line(self._tokens[at]):
            return False
        for token in islice(self._tokens, at + 1, None):
            if token.kind in STATEMENTS | {END} or self._mender.starts_line(token):
                return False
            if token.kind in ("inbound", "outbound", "from", "to"):
                return True
        return False

    def _opens_hosts(self, at: int) -> bool:
        """Whether `on` is followed by names and a block."""
        while self._tokens[at + 1].kind in (NAME, STRING, PARAMETER):
            at += 2
            if self._tokens[at].kind == "{":
                return True
            if self._tokens[at].kind not in (",", "except"):
                return False
        return False

    def _end(self, at: int) -> tuple[int, int]:
        """The end of the statement that starts at a token, and how many braces are open there."""
        depth = 0
        is_host = self._tokens[at].kind == "host"
        while True:
            at += 1
            kind = self._tokens[at].kind
            if kind == END:
                return at, depth
            if kind == "{":
                depth += 1
            elif kind == "}":
                if depth <= 1:
                    return (at + 1, 0) if depth else (at, 0)
                depth -= 1
            elif depth and kind in ("helper", "expect"):
                continue  # items of services and of the catalogue's helpers
            elif depth == 1 and is_host and kind == "zone":
                continue
            elif self._starts(at):
                return at, depth

    def _brace(self, at: int) -> int | None:
        """Where the block opens whose head starts at a token."""
        while True:
            at += 1
            kind = self._tokens[at].kind
            if kind == "{":
                return at
            if kind in ("}", END) or self._starts(at):
                return None

    # --- statements and blocks --------------------------------------------------------------

    def _statement(self, catalogue: bool) -> None:
        first = self._tokens[self._at]
        self._leave_blocks(first)
        if first.kind in _BLOCKS:
            brace = self._brace(self._at)
            if brace is not None:
                self._block(brace)
                return
        end, depth = self._end(self._at)
        template, tokens = self._read(self._at, end, [])
        if template is not None:
            if first.kind == "helper" and not catalogue:
                self._mender.complain(
                    "catalogue-only", "only the catalogue describes conntrack helpers", first
                )
            else:
                self._add(*template.fill(self._file, tokens))
        if self._at == end:
            for _ in range(depth):
                self._open(_Block(first, [], None, keeps_rules=True))
        if first.kind in _BLOCKS:  # without a brace: what closes it closes nothing else
            self._open(_Block(first, [], None))

    def _read(
        self, start: int, end: int, closing: list[Token]
    ) -> tuple[Template | None, list[Token]]:
        """Read the tokens of a statement and go on behind them."""
        written = self._parameters.expanded(
            self._file, self._tokens[start:end], islice(self._tokens, end, None)
        )
        reading = self._mender.statement([*written, *closing])
        self._at = end
        if reading.rest is not None:
            self._at = bisect_left(self._tokens, reading.rest.start, key=lambda token: token.start)
        if reading.template is None and end - start > 1:
            first, name = written[:2]
            if first.kind in _DECLARERS and (name.kind in WORDS or name.kind in (NAME, STRING)):
                self._broken.append(name.text.strip('"'))
                if first.kind == "param":
                    self._parameters.lose(self._mender.span(name), self._broken[-1])
        return reading.template, reading.tokens

    def _block(self, brace: int) -> None:
        opened_by = self._tokens[brace]
        if len(self._blocks) >= MOST_BLOCKS:
            self._mender.complain(
                "nested-too-deep", f"blocks stand more than {MOST_BLOCKS} deep", opened_by
            )
            self._at = brace + 1
            self._open(_Block(opened_by, [], None))
            return
        closing = opened_by._replace(kind="}", text="}")
        template, tokens = self._read(self._at, brace + 1, [closing])
        if self._at == brace + 1:
            self._open(_Block(opened_by, tokens, template))

    def _open(self, block: _Block) -> None:
        self._blocks.append(block)

    def _close(self, brace: Token) -> None:
        self._at += 1
        if self._blocks:
            self._is_skipping = False
            self._end_block(brace)
        elif not self._is_skipping:
            self._mender.complain("stray-brace", "this `}` closes nothing", brace)

    def _end_block(self, brace: Token) -> None:
        """Put the block that is open, and all that is in it, where it belongs."""
        block = self._blocks.pop()
        if block.template is None:
            return
        for node in block.template.fill(self._file, [*block.head[:-1], brace]):
            self._add(_filled(node, block.statements))

    def _leave_blocks(self, first: Token) -> None:
        """Tell of a statement that cannot stand in the block that is open, or only in one."""
        while self._blocks and self._blocks[-1].template is not None:
            block = self._blocks[-1]
            opened_by, is_test = block.opened_by, block.is_test
            if block.holds(first.kind):
                return
            if self._is_closed(opened_by):
                if is_test or first.kind in _IN_TESTS:
                    self._misplaced_beside_tests(first, opened_by)
                    return
                is_treatment = first.kind in TREATMENTS
                kind = "hosts" if block.is_of_hosts else "rules"
                self._mender.complain(
                    "misplaced",
                    f"{quoted(first.text)} cannot stand in a block of {kind}",
                    first,
                    help=_OUT_OF_BLOCK + (", and say both ends in it" if is_treatment else ""),
                    labels=[Label(self._mender.span(opened_by), "the block that is open here")],
                )
                return
            self._end_unclosed(opened_by, first)
        if first.kind in _IN_TESTS and not self._blocks:
            self._misplaced_beside_tests(first, None)

    def _misplaced_beside_tests(self, first: Token, opened_by: Token | None) -> None:
        """Tell of what stands in a test and is not expected, or is expected outside of one."""
        labels = []
        if opened_by is not None:
            labels.append(Label(self._mender.span(opened_by), "the block that is open here"))
        if first.kind in _IN_TESTS:
            self._mender.complain(
                "misplaced",
                "`expect` stands in a test alone",
                first,
                help='`test "what is proved" { expect … }`',
                labels=labels,
            )
            return
        self._mender.complain(
            "misplaced",
            f"{quoted(first.text)} cannot stand in a test",
            first,
            help=f"what is to be proved starts with `expect`: `expect {first.text} …`"
            if first.kind in VERBS
            else _OUT_OF_BLOCK,
            labels=labels,
        )

    def _end_unclosed(self, opened_by: Token, first: Token | None) -> None:
        """Tell of a block that is never closed, and read on as if it ended before `first`."""
        if self._blocks[-1].template is not None:
            labels = []
            if first is not None:
                span = self._mender.span(first)
                labels = [Label(span, f"{quoted(first.text)} cannot stand in it")]
            self._mender.complain(
                "unclosed-block", "this block is never closed", opened_by, labels=labels
            )
        before = self._tokens[self._at - 1]
        self._end_block(before._replace(kind="}", text="}", start=before.end))

    def _is_closed(self, brace: Token) -> bool:
        """Whether as many braces close behind this one as open."""
        if self._unclosed is None:
            open_at: list[int] = []
            for token in self._tokens:
                if token.kind == "{":
                    open_at.append(token.start)
                elif token.kind == "}" and open_at:
                    open_at.pop()
            self._unclosed = frozenset(open_at)
        return brace.start not in self._unclosed

    def _add(self, *nodes: tree.Statement) -> None:
        """Put nodes where they belong: into the block that is open."""
        for node in nodes:
            is_inner = isinstance(node, _Inner)
            for block in reversed(self._blocks):
                if block.template is not None:
                    if is_inner or block.is_of_hosts:
                        if block.is_test == isinstance(node, Expectation):
                            block.statements.append(node)
                        break
                elif is_inner and not block.keeps_rules:
                    break  # its place is not known
            else:
                self._done.append(node)

    def _no_statement(self, token: Token) -> None:
        """Tell of something that stands where a statement should start."""
        self._is_skipping = True
        word = token.kind in WORDS or token.kind == NAME
        several = start_slip(token.text) or form(token.text) if word else None
        if token.kind == "on":
            several = "the names of hosts stand behind it: `on web1, web2 { … }`"
        meant = None
        if word and several is None:
            meant = close_word(token.text, STATEMENTS)
        if token.kind == JUNK:
            self._mender.junk(token)
        elif word:
            self._mender.complain(
                "syntax",
                f"no statement starts with {quoted(token.text)}",
                token,
                help=f"did you mean `{meant}`?" if meant else several,
            )
        else:
            self._mender.complain(
                "syntax", f"expected a statement, not {quoted(token.text)}", token
            )
        if meant and self._can_be(meant):
            self._tokens[self._at] = token._replace(kind=meant, text=meant)
        elif word:
            self._at += 1  # it was told

    def _can_be(self, word: str) -> bool:
        """Whether a statement could be read if it started with this word."""
        meant = self._tokens[self._at]._replace(kind=word)
        if word in _BLOCKS:
            brace = self._brace(self._at)
            if brace is None:
                return False
            head = self._tokens[self._at + 1 : brace + 1]
            return self._mender.can_read([meant, *head, meant._replace(kind="}")])
        written, self._tokens[self._at] = self._tokens[self._at], meant
        end, _ = self._end(self._at)
        self._tokens[self._at] = written
        return self._mender.can_read([meant, *self._tokens[self._at + 1 : end]])
