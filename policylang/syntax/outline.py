"""Reads tokens into statements and blocks with their comments and line ends; knows no grammar.

For whatever shows a policy as it was written, `format` above all. Statements are told by the
words that they, or the items of their block, start with; a statement that this version cannot
compile has an outline like any other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from policylang.source import SourceFile
from policylang.syntax.statements import MOST_BLOCKS
from policylang.syntax.tokens import STATEMENTS, VERBS, Token

# What the items of a block start with, by the first word of its statement. All other blocks hold
# statements.
_ITEMS = {
    "zone": frozenset({"interface", "network"}),
    "service": frozenset(
        {
            *("tcp", "udp", "sctp", "dccp", "icmp", "icmpv6", "protocol", "helper", "data"),
            *("answers", "warn"),
        }
    ),
    "settings": frozenset(
        {"essentials", "invalid", "on-reload", "log-limit", "time", "counters"},
    ),
    "host": frozenset({"address", "gateway", "zone", "interface", "network"}),
    "helper": frozenset({"assign", "match", "expect", "family", "modules", "nat", "faults"}),
}
_BARE_ITEMS = frozenset({"gateway", "faults"})  # of a single word
_PROVED = frozenset({"expect", "some"})  # in front of the rule that a test proves
_UNFINISHED = frozenset({",", "=", "except"})  # behind these nothing starts

_IN_GAP = re.compile(r"#[^\n]*|\n")
_END = ""


class Comment(NamedTuple):
    """A comment without the white space behind it; `breaks` as in `Word`."""

    text: str
    breaks: int

    @property
    def is_trailing(self) -> bool:
        """Whether it stands behind a word, on the same line."""
        return self.breaks == 0


class Word(NamedTuple):
    """A token, the comments between it and the token before, and the line ends in front of it.

    `breaks` counts the line ends between it and the token or comment before it.
    """

    text: str
    comments: tuple[Comment, ...]
    breaks: int


@dataclass(frozen=True, slots=True)
class OwnLine:
    """A comment that stands between statements, alone on its line."""

    text: str
    is_behind_blank: bool


@dataclass(frozen=True, slots=True)
class Block:
    """What stands in braces; `comment` is the one behind the opening brace, on its line.

    `is_broken` says that there is a line end in it, `is_closed` that there is a closing brace.
    """

    comment: str | None
    entries: tuple[Entry, ...]
    is_broken: bool
    is_closed: bool


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement or an item of a block.

    Comments before its first word are entries of their own. Where it has a block, the last of
    its words is the opening brace. `comment` is the one behind its end, on the same line.
    """

    words: tuple[Word, ...]
    block: Block | None
    comment: str | None
    is_behind_blank: bool


Entry = Statement | OwnLine


def read_words(file: SourceFile, tokens: list[Token]) -> list[Word]:
    """The tokens of a file, END included, with all that stands between them."""
    words: list[Word] = []
    end_before = 0
    breaks = 1  # the first comment of a file stands behind no word
    for token in tokens:
        comments: list[Comment] = []
        for match in _IN_GAP.finditer(file.text, end_before, token.start):
            if match[0] == "\n":
                breaks += 1
            else:
                comments.append(Comment(match[0].rstrip(), breaks))
                breaks = 0
        words.append(Word(file.text[token.start : token.end], tuple(comments), breaks))
        end_before = token.end
        breaks = 0
    return words


def outline(words: list[Word]) -> tuple[Entry, ...]:
    """The statements that the words of a file make up. Any words will do."""
    return _Reader(words).document()


class _Reader:
    """Reads the words of one file."""

    def __init__(self, words: list[Word]) -> None:
        """The last of `words` is the empty one of END."""
        self._words = words
        self._at = 0
        self._comments = words[0].comments  # before the next word, and not yet placed
        self._depth = 0

    def document(self) -> tuple[Entry, ...]:
        """All of it; a brace that closes nothing is taken for a statement."""
        entries = self._entries("")
        while self._text != _END:
            brace = self._words[self._at]
            self._advance()
            stray = Statement((brace._replace(comments=()),), None, self._trailing(), False)
            entries = (*entries, stray, *self._entries(""))
        return entries

    @property
    def _text(self) -> str:
        return self._words[self._at].text

    def _advance(self) -> None:
        self._at += 1
        self._comments = self._words[self._at].comments

    def _trailing(self) -> str | None:
        """Take the comment on the line of the word that was read last."""
        if not self._comments or not self._comments[0].is_trailing:
            return None
        comment, self._comments = self._comments[0], self._comments[1:]
        return comment.text

    def _entries(self, holder: str) -> tuple[Entry, ...]:
        """What stands up to the end of a block, or of the file.

        `holder` is the first word of the statement that the block belongs to.
        """
        entries: list[Entry] = []
        while True:
            entries += (OwnLine(c.text, c.breaks > 1) for c in self._comments)
            self._comments = ()
            if self._text in ("}", _END):
                return tuple(entries)
            entries.append(self._statement(holder))

    def _statement(self, holder: str) -> Statement:
        is_behind_blank = self._words[self._at].breaks > 1
        words: list[Word] = []
        block = None
        while self._text not in ("}", _END):
            if words and self._starts(holder, words):
                break
            word = self._words[self._at]
            words.append(word if words else word._replace(comments=()))
            if word.text == "{" and self._depth <= MOST_BLOCKS:
                block = self._block(words[0].text)
                break
            self._advance()
        return Statement(tuple(words), block, self._trailing(), is_behind_blank)

    def _block(self, holder: str) -> Block:
        opening = self._at
        self._advance()
        comment = self._trailing()
        self._depth += 1
        entries = self._entries(holder)
        self._depth -= 1
        is_broken = any(word.breaks for word in self._words[opening + 1 : self._at + 1])
        is_closed = self._text == "}"
        if is_closed:
            self._advance()
        return Block(comment, entries, is_broken, is_closed)

    def _starts(self, holder: str, before: list[Word]) -> bool:
        """Whether the next word starts a statement or an item; `before` are those of this one."""
        text, last = self._text, before[-1].text
        items = _ITEMS.get(holder)
        if items is not None:
            if text not in items or last in _UNFINISHED:
                return False
            return len(before) > 1 or last in _BARE_ITEMS
        if text == "on":
            return self._names_hosts()
        if text not in STATEMENTS or last == ",":
            return False
        if text in VERBS and (
            last == "default" or (before[0].text == "expect" and last in _PROVED)
        ):
            return False
        if text == "redirect" and last in ("icmp", "icmpv6"):
            return False  # a type of ICMP
        return text != "mark" or not self._is_condition()

    def _is_condition(self) -> bool:
        """Whether the `mark` that is next is a condition; the statement has an `as`."""
        value = self._words[self._at + 1].text
        if not value.startswith("$"):
            return value[:1].isdigit()
        for word in islice(self._words, self._at + 2, None):
            if word.text == "as":
                return False
            if word.text in STATEMENTS or word.text in ("{", "}", _END):
                break
        return True

    def _names_hosts(self) -> bool:
        """Whether `on` is followed by names and a block."""
        at = self._at + 1
        while self._words[at].text not in ("{", "}", ",", "=", _END):
            at += 2
            mark = self._words[at - 1].text
            if mark not in (",", "except"):
                return mark == "{"
        return False
