"""Bytes as the text of a policy or a list; opens no file."""

from __future__ import annotations

import re

from policylang.diagnostics import Report
from policylang.source import SourceFile, Span

_NO_TEXT = re.compile("[\0\ud800-\udfff]")  # NUL, and halves of characters


def decoded(data: bytes, name: str, report: Report) -> SourceFile | None:
    """The file whose bytes these are, a byte order mark included; reports `not-utf8`."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        file = SourceFile(name, before + data[error.start :].decode("latin-1"))
        report.add(
            "not-utf8",
            f"byte {data[error.start]:#04x} is not UTF-8",
            Span(file, len(before), len(before) + 1),
            help="save the file as UTF-8",
        )
        return None
    file = SourceFile(name, text)
    return file if is_text(file, report) else None


def is_text(file: SourceFile, report: Report) -> bool:
    """Whether a text holds nothing that no text file holds; reports the first as `not-utf8`."""
    match = _NO_TEXT.search(file.text)
    if match is None:
        return True
    span = Span(file, match.start(), match.end())
    report.add("not-utf8", f"the character U+{ord(match[0]):04X} is not text", span)
    return False
