"""Reads the lists that sets name by `file "…"`; knows neither sets nor where files are.

The lists that others publish are read as they are. What a file says tells its format, never what
it is called. Lists never go through the grammar.
"""

from __future__ import annotations

import re

from policylang.diagnostics import Report
from policylang.source import SourceFile, Span
from policylang.syntax import tree
from policylang.syntax.lists import ipset, objects, plain, table
from policylang.syntax.lists.elements import Elements

# What packed files begin with: RFC 1952 (gzip), and the magic numbers of the other formats.
PACKED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\0": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"PK\x03\x04": ("zip", "unzip"),
}

_FIRST_LINE = re.compile(r"^[ \t]*(?![#;\s])(.*)$", re.MULTILINE)
_PAGE = re.compile(r"<(?:!doctype|html|\?xml|head|body)\b", re.IGNORECASE)


def packed_by(data: bytes) -> tuple[str, str] | None:
    """How a file is packed, and the program that unpacks it; None where it is not."""
    return next((names for magic, names in PACKED.items() if data.startswith(magic)), None)


def parse_list(
    file: SourceFile, report: Report, column: tree.Number | tree.Text | None = None
) -> tree.ListFile:
    """What a list file holds, or the `column` of it.

    Reports `bad-list-line` (with line and column, at most twenty), `mixed-list`,
    `bad-list-format` and `bad-column`. Whatever is not an element is reported, never passed over.
    """
    elements = Elements(report)
    first = _FIRST_LINE.search(file.text)
    if first is None:
        pass  # nothing but comments
    elif _PAGE.match(first[1]):
        report.add(
            "bad-list-format",
            "this is a web page, not a list",
            Span(file, first.start(1), first.end(1)),
            help="a download was answered with a page: look at what it says, and load it again",
        )
    elif objects.is_json(file.text):
        if _is_of_rows(column, "JSON", report):
            objects.read(file, elements)
    elif ipset.is_save(first[1]):
        if _is_of_rows(column, "what `ipset save` writes", report):
            ipset.read(file, elements)
    elif column is not None:
        table.read(file, column, elements)
    else:
        plain.read(file, elements)
    return elements.list()


def _is_of_rows(column: tree.Number | tree.Text | None, what: str, report: Report) -> bool:
    if column is None:
        return True
    report.add(
        "bad-column",
        f"the list is {what}, and has no columns",
        column.span,
        help="leave out `column`: the format is known by itself",
    )
    return False
