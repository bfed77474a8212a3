"""Tells of a refused line at the statement that it stands for; knows no program's own messages."""

from __future__ import annotations

from policylang.backends.base import OutputFile
from policylang.diagnostics import Label, Report

MOST_LABELS = 3


def report_refusal(file: OutputFile, line: int, program: str, words: str, report: Report) -> None:
    """Report `refused-by-kernel` for a line of `file`, counted from 1.

    The statements behind the line are the diagnostic's place and labels; a line that none
    stands behind is named itself. `words` are what `program` said of it.
    """
    origins = file.origins[line - 1] if line <= len(file.origins) else ()
    spans = tuple(dict.fromkeys(origin.span for origin in origins if origin.span is not None))
    lines = file.text.split("\n")
    text = lines[line - 1].strip() if line <= len(lines) else ""
    message = (
        "the kernel refuses what this statement compiles to"
        if spans
        else f"the kernel refuses line {line} of `{file.name}`"
    )
    others = spans[1 : 1 + MOST_LABELS]
    report.add(
        "refused-by-kernel",
        message,
        spans[0] if spans else None,
        help=f"{program} says of `{text}`:\n{words}",
        labels=[Label(span, "and this one with it") for span in others],
    )
