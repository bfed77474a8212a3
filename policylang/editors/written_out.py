"""A policy's text with the values of its parameters in their places; knows no grammar.

For readers that take a whole text at once and know nothing of parameters.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from policylang.diagnostics import Report
from policylang.source import SourceFile
from policylang.syntax import tree
from policylang.syntax.parameters import Parameters
from policylang.syntax.parse import opened
from policylang.syntax.tokens import PARAMETER, Token, read_tokens


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of the text: from where it starts there, what it stands for in the file.

    `is_value` says that a value stands there for the name of a parameter.
    """

    at: int
    start: int
    end: int
    is_value: bool


@dataclass(frozen=True, slots=True)
class WrittenOut:
    """A text without parameters, and where in the file each character of it comes from."""

    text: str
    pieces: tuple[_Piece, ...]

    def start(self, offset: int) -> int:
        """Where in the file that starts which starts at `offset` of the text."""
        piece = self._piece(offset)
        return piece.start if piece.is_value else piece.start + offset - piece.at

    def end(self, offset: int) -> int:
        """Where in the file that ends (exclusive) which ends before `offset` of the text."""
        if offset == 0:
            return 0
        piece = self._piece(offset - 1)
        return piece.end if piece.is_value else piece.start + offset - piece.at

    def _piece(self, offset: int) -> _Piece:
        return self.pieces[bisect_right(self.pieces, offset, key=lambda piece: piece.at) - 1]


def written_out(
    file: SourceFile, files: Sequence[SourceFile], given: Mapping[str, str]
) -> WrittenOut:
    """The text of a file of a policy that has no error.

    `files` are all of the policy's: parameters may be declared in any of them. `given` are values
    from outside.
    """
    tokens = read_tokens(file, Report())
    whole = _Piece(0, 0, len(file.text), is_value=False)
    if not any(token.kind == PARAMETER for token in tokens):
        return WrittenOut(file.text, (whole,))
    parameters = _declared(files, given)
    texts: list[str] = []
    pieces: list[_Piece] = []
    at = behind = 0
    for start, end, value in _values(parameters.expanded(file, tokens, ()), file):
        pieces += (
            _Piece(at, behind, start, is_value=False),
            _Piece(at + start - behind, start, end, is_value=True),
        )
        texts += (file.text[behind:start], value)
        at, behind = at + start - behind + len(value), end
    pieces.append(_Piece(at, behind, len(file.text), is_value=False))
    return WrittenOut("".join((*texts, file.text[behind:])), tuple(pieces))


def _values(tokens: Sequence[Token], file: SourceFile) -> Iterator[tuple[int, int, str]]:
    """Where a parameter stands, start and end (exclusive), and what is to stand there."""
    for (start, end), group in groupby(tokens, key=lambda token: (token.start, token.end)):
        if file.text[start : start + 1] == "$":
            yield start, end, " ".join(token.text for token in group)


def _declared(files: Sequence[SourceFile], given: Mapping[str, str]) -> Parameters:
    """The parameters of a policy; reading order does not matter, as there is no error in it.

    A declaration may name another, of a file that is read later here than it was in the policy:
    so whatever could not be read is read again until nothing comes of it.
    """
    parameters = Parameters.given(given, Report())
    declared: set[str] = set()
    while True:
        before = len(declared)
        for file in files:
            with opened(file, Report(), parameters) as statements:
                for statement in statements.read(catalogue=False):
                    if not isinstance(statement, tree.ParamDecl):
                        continue
                    if statement.name.text not in declared:
                        declared.add(statement.name.text)
                        parameters.declare(statement)
        if len(declared) == before:
            return parameters
