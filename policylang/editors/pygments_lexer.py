"""Colours policies wherever Pygments does: in documents, reviews, terminals; knows no grammar.

The tokens are those of the compiler, by `syntax.tokens`: no word of the language is written here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pygments.lexer import Lexer
from pygments.token import (
    Comment,
    Error,
    Keyword,
    Literal,
    Name,
    Number,
    Operator,
    Punctuation,
    String,
    Whitespace,
    _TokenType,
)

from policylang.diagnostics import Report
from policylang.source import SourceFile
from policylang.syntax import tokens

_KINDS: dict[str, _TokenType] = {
    tokens.NAME: Name,
    tokens.STRING: String.Double,
    tokens.NUMBER: Number.Integer,
    tokens.RANGE: Number.Integer,
    tokens.ADDRESS: Number.Other,
    tokens.MAC: Number.Other,
    tokens.DURATION: Literal.Date,
    tokens.WINDOW: Literal.Date,
    tokens.DATE: Literal.Date,
    tokens.MASKED: Number.Hex,
    tokens.PARAMETER: Name.Variable,
    tokens.JUNK: Error,
    **dict.fromkeys((*tokens.RATES, *tokens.PREFIXES), Number.Other),
    **dict.fromkeys(",{}", Punctuation),
    "=": Operator,
    **dict.fromkeys(tokens.UNRESERVED, Keyword.Pseudo),
    **dict.fromkeys(tokens.RESERVED, Keyword),
    **dict.fromkeys(tokens.STATEMENTS, Keyword.Declaration),
    **dict.fromkeys(tokens.VERBS | tokens.TREATMENTS, Keyword.Reserved),
}
# Behind these a name is declared, whatever else the word means.
_DECLARERS = frozenset({"zone", "set", "service", "rules", "param", "host"})

_IN_GAP = re.compile(r"#[^\n]*|[^#]+")  # between two tokens there are comments and white space


class PolicyLexer(Lexer):  # type: ignore[misc]  # Pygments has no types
    """A lexer for policies, by the names `policylang` and `policy`."""

    name = "policylang"
    aliases = ["policylang", "policy"]  # noqa: RUF012  what Pygments asks for
    filenames = ["*.policy"]  # noqa: RUF012  the same
    mimetypes = ["text/x-policylang"]  # noqa: RUF012  the same

    def get_tokens_unprocessed(self, text: str) -> Iterator[tuple[int, _TokenType, str]]:
        """Every character of the text, in order: where it is, what it is, and itself."""
        behind, before = 0, ""
        for token in tokens.read_tokens(SourceFile("", text), Report()):
            yield from _gap(text, behind, token.start)
            if token.kind != tokens.END:
                is_declared = before in _DECLARERS and token.kind in tokens.UNRESERVED
                kind = Name if is_declared else _KINDS[token.kind]
                yield token.start, kind, text[token.start : token.end]
            behind, before = token.end, token.kind


def _gap(text: str, start: int, end: int) -> Iterator[tuple[int, _TokenType, str]]:
    for match in _IN_GAP.finditer(text, start, end):
        kind = Comment.Single if match[0].startswith("#") else Whitespace
        yield match.start(), kind, match[0]
