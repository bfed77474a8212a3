"""Reads a column of a CSV file (RFC 4180), by its number or by its name in the header.

Lines that start with `#` between records are comments. A header may stand in the last of them
before the first record, as abuse.ch writes it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from policylang.diagnostics import did_you_mean
from policylang.source import SourceFile, Span
from policylang.syntax import tree
from policylang.syntax.lists.elements import Elements, parse_element
from policylang.syntax.wording import quoted

_NAME = re.compile(r"[^\d:][^:]*$")  # a name in a header; an address with a slip is none

# Of a header, what is compared with a name that it does not have.
MOST_NAMES = 200
LONGEST = 40


def read(file: SourceFile, column: tree.Number | tree.Text, elements: Elements) -> None:
    """Take in the cells of a column; reports `bad-column`, and records that are broken."""
    if isinstance(column, tree.Number) and column.value == 0:
        elements.report.add(
            "bad-column", "columns are counted from 1", column.span, help="write `column 1`"
        )
        return
    lines = _Lines(file)
    records = csv.reader(lines, strict=True, skipinitialspace=True)
    number: int | None = None
    try:
        for record in records:
            first, lines.is_within = lines.first, False
            if not record:
                continue  # an empty line
            if number is None:
                number, is_header = _number(column, record, lines.comment, elements)
                if number is None:
                    return
                if is_header:
                    continue
            where = partial(_cell_span, file, first, lines.last, number)
            if number < len(record):
                text = record[number].strip()
                if text:
                    elements.take(text, where)
                else:
                    elements.refuse(f"column {number + 1} is empty here", where)
            else:
                elements.refuse(
                    f"there is no column {number + 1} here: the line has {_columns(len(record))}",
                    where,
                    help="columns are separated by commas",
                )
    except csv.Error:
        start = file.line_starts[lines.first]
        elements.report.add(
            "bad-list-format",
            "this is not CSV from here on: a quote is missing, or one too many",
            Span(file, start, max(file.text.find("\n", start), start + 1)),
        )


@dataclass(slots=True)
class _Lines:
    """The lines of a file as they are read; lines are counted from 0."""

    file: SourceFile
    first: int = 0  # of the record that is read
    last: int = 0
    is_within: bool = False  # a record
    comment: str = ""  # the last one before the record
    _lines: Iterator[tuple[int, str]] = field(init=False)

    def __post_init__(self) -> None:
        self._lines = enumerate(f"{line}\n" for line in self.file.text.split("\n"))

    def __iter__(self) -> Iterator[str]:
        for index, line in self._lines:
            if not self.is_within:
                if line.startswith("#"):
                    self.comment = line
                    continue
                self.first, self.is_within = index, True
            self.last = index
            yield line


def _number(
    column: tree.Number | tree.Text, record: Sequence[str], comment: str, elements: Elements
) -> tuple[int | None, bool]:
    """The column's number, from 0, and whether the first record is a header.

    None where no header has the column, which is reported.
    """
    if isinstance(column, tree.Number):
        number = column.value - 1
        cell = record[number].strip() if number < len(record) else ""
        return number, _NAME.match(cell) is not None and parse_element(cell)[1] is None
    commented = next(csv.reader([comment.lstrip("# \t")], skipinitialspace=True), [])
    named: list[str] = []
    for header in (record, commented):
        names = [name.strip() for name in header]
        if names.count(column.text) == 1:
            return names.index(column.text), header is record
        named += names
    is_twice = column.text in named
    likely = [name for name in named[:MOST_NAMES] if name.isprintable() and len(name) < LONGEST]
    elements.report.add(
        "bad-column",
        f"{'more than one' if is_twice else 'no'} column is called {quoted(column.text)}",
        column.span,
        help="write its number, counted from 1"
        if is_twice
        else did_you_mean(column.text, likely) or "the first line that is no comment has the names",
    )
    return None, False


def _columns(count: int) -> str:
    return "one column" if count == 1 else f"{count} columns"


def _cell_span(file: SourceFile, first: int, last: int, number: int) -> Span:
    """Where a cell stands whose record reaches from one line to another.

    The whole record where the cell is empty, or missing.
    """
    begin = file.line_starts[first]
    end = file.line_starts[last + 1] if last + 1 < len(file.line_starts) else len(file.text)
    text = file.text[begin:end].rstrip("\r\n")
    whole = Span(file, begin, begin + len(text))
    start, is_quoted = 0, False
    for offset, character in enumerate(text):
        if character == '"':
            is_quoted = not is_quoted
        elif character == "," and not is_quoted:
            if number == 0:
                text = text[:offset]
                break
            number -= 1
            start = offset + 1
    if number:
        return whole
    cell = text[start:]
    start += len(cell) - len(cell.lstrip())
    length = len(cell.strip())
    return Span(file, begin + start, begin + start + length) if length else whole
