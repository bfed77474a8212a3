"""Diagnostics as people read them, and as programs do; knows nothing of how they came about."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from policylang.cli.visible import ShownLine, visible
from policylang.diagnostics import Diagnostic, Label, Severity
from policylang.source import Span

WIDEST = 160  # columns of a source line; of a longer one the part around the mark is shown
BEFORE_MARK = 60  # columns that such a part leaves in front of the mark
GUTTER = 4  # columns for the line number


class Style(Enum):
    """What a part of a message is, with its look (ECMA-48, select graphic rendition)."""

    ERROR = "1;31"
    WARNING = "1;33"
    MESSAGE = "1"
    FRAME = "34"
    LABEL = "36"


@dataclass(frozen=True, slots=True)
class Renderer:
    """Renders diagnostics as text, in colour or not."""

    color: bool

    def render(self, diagnostics: Iterable[Diagnostic]) -> str:
        """The diagnostics one after the other, with an empty line between them."""
        return "\n".join("\n".join(self._lines(d)) + "\n" for d in diagnostics)

    def _lines(self, diagnostic: Diagnostic) -> Iterator[str]:
        style = Style.ERROR if diagnostic.severity is Severity.ERROR else Style.WARNING
        title = self._paint(f"{diagnostic.severity}[{diagnostic.code}]", style)
        yield f"{title}: {self._paint(visible(diagnostic.message), Style.MESSAGE)}"
        spans = [s for s in (diagnostic.span, *(la.span for la in diagnostic.labels)) if s]
        gutter = max([GUTTER, *(len(str(span.line)) for span in spans)])
        if diagnostic.span is not None:
            yield from self._place("-->", diagnostic.span, "^", "", style, gutter)
        for label in diagnostic.labels:
            yield from self._place(":::", label.span, "-", label.text, Style.LABEL, gutter)
        if diagnostic.help is not None:
            first, *more = diagnostic.help.split("\n")
            yield f"   {self._paint('help:', Style.LABEL)} {visible(first)}"
            yield from (f"         {visible(line)}" for line in more)

    def _place(
        self, arrow: str, span: Span, mark: str, text: str, style: Style, gutter: int
    ) -> Iterator[str]:
        """Where it is, the line that stands there, and what of it is meant."""
        where = visible(f"{span.file.name}:{span.line}:{span.column}")
        yield f"{' ' * (gutter - 2)}{self._paint(arrow, Style.FRAME)} {where}"
        line, start, width = _excerpt(span)
        number = self._paint(f"{span.line:>{gutter}} |", Style.FRAME)
        yield f"{number} {line}".rstrip()
        last = span.file.line_of(max(span.start, span.end - 1))
        notes = [visible(text)] if text else []
        if last != span.line:
            notes.append(f"(to line {last})")
        marks = self._paint(" ".join([mark * width, *notes]), style)
        yield f"{self._paint(' ' * gutter + ' |', Style.FRAME)} {' ' * start}{marks}"

    def _paint(self, text: str, style: Style) -> str:
        return f"\x1b[{style.value}m{text}\x1b[0m" if self.color else text


def _excerpt(span: Span) -> tuple[str, int, int]:
    """The span's first line as it is shown, and the column (from 0) and width of the mark."""
    source = span.file.line_text(span.line)
    shown = ShownLine.of(source)
    begin = min(span.column - 1, len(source))
    end = min(max(span.end - span.start + begin, begin), len(source))
    start, stop, width = shown.columns[begin], shown.columns[end], shown.columns[-1]
    if width <= WIDEST:
        return "".join(shown.pieces), start, max(stop - start, 1)
    first = bisect_left(shown.columns, min(start - BEFORE_MARK, width - WIDEST))
    last = bisect_left(shown.columns, shown.columns[first] + WIDEST)
    before, after = "…" if first else "", "…" if last < len(shown.pieces) else ""
    text = f"{before}{''.join(shown.pieces[first:last])}{after}"
    start -= shown.columns[first] - len(before)
    return text, start, max(min(stop - shown.columns[first], WIDEST) - start + len(before), 1)


def summary(diagnostics: Sequence[Diagnostic]) -> str:
    """How many errors and warnings there are; empty where there are none."""
    counts = []
    for severity in Severity:
        number = sum(d.severity is severity for d in diagnostics)
        if number:
            counts.append(f"{number} {severity}{'s' if number > 1 else ''}")
    return ", ".join(counts)


def as_json(diagnostics: Iterable[Diagnostic]) -> str:
    """A JSON array with an object for each diagnostic; its keys are stable.

    `code`, `severity` (`error` or `warning`), `message`, `file`, `line`, `column`, `end_line`,
    `end_column`, `help`, `labels`. Lines and columns count from 1, columns in characters, and
    the end is exclusive; the five of the place are null where no file is at fault, as `help`
    is where there is none. `labels` is an array of objects with `message` and the five of the
    place. Text is as it is in the policy: control characters are escaped by JSON alone.
    """
    entries = [
        {
            "code": diagnostic.code,
            "severity": str(diagnostic.severity),
            "message": diagnostic.message,
            **json_place(diagnostic.span),
            "help": diagnostic.help,
            "labels": [_json_label(label) for label in diagnostic.labels],
        }
        for diagnostic in diagnostics
    ]
    return json.dumps(entries, indent=2) + "\n"


def _json_label(label: Label) -> dict[str, object]:
    return {"message": label.text, **json_place(label.span)}


def json_place(span: Span | None) -> dict[str, object]:
    """The five of a place, as `as_json` has them."""
    if span is None:
        return dict.fromkeys(("file", "line", "column", "end_line", "end_column"))
    end_line = span.file.line_of(span.end)
    return {
        "file": span.file.name,
        "line": span.line,
        "column": span.column,
        "end_line": end_line,
        "end_column": span.end - span.file.line_starts[end_line - 1] + 1,
    }
