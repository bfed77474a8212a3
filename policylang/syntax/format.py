"""Lays a policy out in the one canonical way; changes white space and line ends, nothing else.

What the canonical way is:

- A statement a line, one blank between words, a comma behind an element and never before one.
- Blank lines stay between statements, one at most in a row; there are none at the ends of a file
  or of a block.
- A block stays on its statement's line if it has no line end and fits; two blanks stand between
  its items. Otherwise it is an item a line, two columns further in.
- What is longer than `WIDTH` is broken before a place, a condition, an option or what a
  translation says beside these, and within a list behind commas. What goes on stands four
  columns further in.
- A statement keeps the line ends that its author gave it if a comment stands in it, or if its
  list begins on a line of its own behind `=`.
- Neighbours that declare the same sort of thing (`ALIGNED`) have their `=` or `{` in one column,
  and so have the comments behind statements, or behind the parts of one, on lines that follow one
  another; if they all fit into `WIDTH` like that.
- Comments stay where they are, word for word: on a line of their own, in the column of what
  follows, or two blanks behind the word that they stood behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import NamedTuple

from policylang.diagnostics import Report, Severity
from policylang.source import SourceFile
from policylang.syntax.outline import (
    Block,
    Comment,
    Entry,
    OwnLine,
    Statement,
    Word,
    outline,
    read_words,
)
from policylang.syntax.parse import parse
from policylang.syntax.tokens import read_tokens

WIDTH = 88  # columns of a line; a comment, or a single element, may need more
BLOCK_INDENT = 2
HANGING_INDENT = 4

ALIGNED = frozenset({"set", "param", "service", "host"})

# Errors that the parser tells of and that are none of form.
_OF_MEANING = frozenset({"unknown-parameter"})

# Words that a long statement is broken before.
_CLAUSES = frozenset(
    {
        *("inbound", "outbound", "from", "to", "except", "with", "at", "as", "on", "against"),
        *("limit", "max", "over", "user", "group", "cgroup", "mac", "source", "during", "until"),
        *("mark", "dscp", "size", "ipv4", "ipv6", "log", "add", "name", "also", "answers"),
        *("by", "port", "random", "persistent", "hairpin", "bypass"),
    }
)
_CONTINUED = frozenset({",", "per", "add", "protocol", "answers", "as"})  # never broken behind
# One clause, `by source` and `source port` among them.
_PAIRS = frozenset(
    {
        *(("limit", "over"), ("source", "to"), ("destination", "to")),
        *(("by", "source"), ("source", "port")),
    }
)
_OF_LOG = frozenset({"group", "limit"})


def format_policy(file: SourceFile, report: Report) -> str | None:
    """The canonical text of a policy; None, all its errors of syntax reported, if it has any.

    What this version cannot compile yet is laid out all the same, and so are parameters that
    another file declares. A canonical text is its own canonical text.
    """
    found = Report()
    parse(file, found, catalogue=True)
    errors = [
        d for d in found.diagnostics if d.severity is Severity.ERROR and d.code not in _OF_MEANING
    ]
    if errors:
        for d in errors:
            report.add(d.code, d.message, d.span, help=d.help, labels=d.labels)
        return None
    words = _words_of(file)
    text = _text_of(_aligned_comments(_entries(outline(words), 0)))
    written = _words_of(SourceFile(file.name, text))
    assert _substance(written) == _substance(words), "more than white space would change"
    return text


def _words_of(file: SourceFile) -> list[Word]:
    return read_words(file, read_tokens(file, Report()))


def _substance(words: Iterable[Word]) -> Iterable[object]:
    """All that means something to the compiler or to a reader, in order."""
    return [(w.text, [(c.text, c.is_trailing) for c in w.comments]) for w in words]


@dataclass(frozen=True, slots=True)
class _Line:
    """A line to write; an empty one has neither text nor comment.

    `is_edge` says that it begins or ends a statement of several lines.
    """

    indent: int
    text: str
    comment: str | None = None
    is_edge: bool = False

    @property
    def width(self) -> int:
        """The columns up to the comment."""
        return self.indent + len(self.text)


_BLANK = _Line(0, "")


def _text_of(lines: Iterable[_Line]) -> str:
    return "".join(f"{_written(line)}\n" for line in lines)


def _written(line: _Line) -> str:
    text = f"{' ' * line.indent}{line.text}" if line.text else ""
    return text if line.comment is None else f"{text}  {line.comment}"


def _aligned_comments(lines: Iterable[_Line]) -> Iterator[_Line]:
    """The lines, with the comments of neighbours in one column."""
    for _, group in groupby(lines, lambda line: (_may_align(line), line.indent)):
        run = list(group)
        column = max(line.width for line in run)
        longest = max(len(line.comment or "") for line in run)
        if _may_align(run[0]) and column + len("  ") + longest <= WIDTH:
            run = [replace(ln, text=ln.text.ljust(column - ln.indent)) for ln in run]
        yield from run


def _may_align(line: _Line) -> bool:
    return line.comment is not None and not line.is_edge


# --- statements -----------------------------------------------------------------------------


def _entries(entries: Sequence[Entry], indent: int) -> Iterator[_Line]:
    """The lines of what stands in a file or in a block."""
    columns = _columns(entries, indent)
    for number, entry in enumerate(entries):
        if number and entry.is_behind_blank:
            yield _BLANK
        if isinstance(entry, OwnLine):
            yield _Line(indent, entry.text)
        else:
            yield from _statement(entry, indent, columns.get(number, 0))


def _statement(statement: Statement, indent: int, column: int) -> Iterator[_Line]:
    """The lines of a statement; what is aligned of it stands behind `column`."""
    single = _single_line(statement, indent)
    if single is not None:
        yield _Line(indent, single.text(column), statement.comment)
        return
    *lines, last = _wrapped(statement.words, indent)
    block = statement.block
    yield from lines
    if block is None:
        yield replace(last, comment=statement.comment)
        return
    yield replace(last, comment=block.comment, is_edge=True)
    yield from _entries(block.entries, indent + BLOCK_INDENT)
    if block.is_closed:
        yield _Line(indent, "}", statement.comment, is_edge=True)


class _Single(NamedTuple):
    """A statement that takes a line: what it declares, where that may be aligned, and the rest."""

    declared: str
    rest: str

    def text(self, column: int = 0) -> str:
        return f"{self.declared.ljust(column)} {self.rest}" if self.declared else self.rest


def _single_line(statement: Statement, indent: int) -> _Single | None:
    """A statement that takes a line, else None."""
    words, block = statement.words, statement.block
    if _keeps_lines(words) or (block is not None and _is_open(block)):
        return None
    single = _Single("", _joined(words) + ("" if block is None else _flat(block)))
    if len(words) > 2 and words[0].text in ALIGNED and words[2].text in ("=", "{"):
        declared = _joined(words[:2])
        single = _Single(declared, single.rest[len(declared) + 1 :])
    return single if indent + len(single.text()) <= WIDTH else None


def _is_open(block: Block) -> bool:
    """Whether a block takes lines of its own, however short it is."""
    return block.is_broken and bool(block.entries or block.comment)


def _flat(block: Block) -> str:
    """What stands behind the opening brace, up to the closing one, on one line."""
    texts = [
        _joined(entry.words) + ("" if entry.block is None else _flat(entry.block))
        for entry in block.entries
        if isinstance(entry, Statement)  # on one line there is no comment
    ]
    items = f" {'  '.join(texts)}" if texts else ""
    return f"{items} }}" if block.is_closed else items


def _joined(words: Iterable[Word]) -> str:
    return "".join(w.text if w.text == "," else f" {w.text}" for w in words).removeprefix(" ")


# --- columns --------------------------------------------------------------------------------


def _columns(entries: Sequence[Entry], indent: int) -> dict[int, int]:
    """How wide the names of declarations are to be, by their place among the entries."""
    columns: dict[int, int] = {}
    for run in _runs(entries, indent):
        column = max(len(single.declared) for single in run.values())
        if all(indent + len(single.text(column)) <= WIDTH for single in run.values()):
            columns |= dict.fromkeys(run, column)
    return columns


def _runs(entries: Sequence[Entry], indent: int) -> Iterator[dict[int, _Single]]:
    """Declarations of one sort on lines that follow one another, by place."""
    run: dict[int, _Single] = {}
    sort = ""
    for number, entry in enumerate(entries):
        single = _single_line(entry, indent) if isinstance(entry, Statement) else None
        own_sort = single.declared.partition(" ")[0] if single is not None else ""
        if run and (own_sort != sort or entry.is_behind_blank):
            yield run
            run = {}
        if single is not None and own_sort:
            run[number], sort = single, own_sort
    if run:
        yield run


# --- long statements ------------------------------------------------------------------------


def _keeps_lines(words: Sequence[Word]) -> bool:
    """Whether the line ends that the author gave a statement, up to its block, stay."""
    return any(word.comments for word in words) or any(
        before.text == "=" and word.breaks for before, word in pairwise(words)
    )


def _wrapped(words: Sequence[Word], indent: int) -> list[_Line]:
    """The lines of a statement up to its end, or to the opening brace of its block."""
    hanging = indent + HANGING_INDENT
    lines: list[_Line] = []
    for part in _parts(words):
        for comment in part.comments:
            if comment.is_trailing:
                lines[-1] = replace(lines[-1], comment=comment.text)
            else:
                lines.append(_Line(hanging, comment.text))
        is_brace = part.clauses[0][0] == "{"
        first_indent = hanging if lines and not is_brace else indent
        for number, text in enumerate(_filled(part.clauses, first_indent, hanging)):
            lines.append(_Line(hanging if number else first_indent, text))
    lines[0] = replace(lines[0], is_edge=True)
    return lines


@dataclass(frozen=True, slots=True)
class _Part:
    """Words that begin a line, and the comments in front of them.

    A clause is broken as a last resort only, between its pieces.
    """

    comments: tuple[Comment, ...]
    clauses: list[list[str]]


def _parts(words: Sequence[Word]) -> list[_Part]:
    """A statement, cut where its author's line ends stay."""
    keeps_lines = _keeps_lines(words)
    starts = _clause_starts([word.text for word in words])
    parts: list[_Part] = []
    before = ""
    for word, starts_clause in zip(words, starts, strict=True):
        text = word.text
        stays = keeps_lines and word.breaks and text not in (",", "{")
        if not parts or word.comments or stays:
            parts.append(_Part(word.comments, [[text]]))
        elif starts_clause:
            parts[-1].clauses.append([text])
        elif before == ",":
            parts[-1].clauses[-1].append(text)
        else:
            parts[-1].clauses[-1][-1] += text if text == "," else f" {text}"
        before = text
    return parts


def _clause_starts(texts: Sequence[str]) -> list[bool]:
    """Which words of a statement begin what is better not broken."""
    starts: list[bool] = []
    in_log = False
    before = ""
    for text in texts:
        is_start = text in _CLAUSES and before not in _CONTINUED
        if (before, text) in _PAIRS or (in_log and text in _OF_LOG):
            is_start = False
        if is_start:
            in_log = text == "log"
        starts.append(is_start)
        before = text
    return starts


def _filled(clauses: Iterable[list[str]], first_indent: int, indent: int) -> Iterator[str]:
    """The texts of lines, without their indents; as much in each as it holds."""
    room = WIDTH - first_indent
    line = ""
    for pieces in clauses:
        whole = " ".join(pieces)
        for piece in [whole] if len(whole) <= WIDTH - indent else pieces:
            if not line:
                line = piece
            elif len(line) + 1 + len(piece) <= room:
                line = f"{line} {piece}"
            else:
                yield line
                line = piece
                room = WIDTH - indent
    yield line
