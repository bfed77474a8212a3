"""Diagnostics as data, and the report that collects them; knows nothing of terminals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum

from policylang.codes import CODES
from policylang.silences import Silence, silences
from policylang.source import SourceFile, Span


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Label:
    """A second place that matters, and why."""

    span: Span
    text: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One thing to tell the user.

    `code` is an id of `codes.CODES`, which also holds its severity. `span` is the smallest
    place that shows it, or None where no file is at fault (a missing program, say).
    """

    code: str
    message: str
    span: Span | None
    help: str | None = None
    labels: tuple[Label, ...] = ()

    @property
    def severity(self) -> Severity:
        return Severity(CODES[self.code].severity)


@dataclass(slots=True)
class Report:
    """What the passes found; the only thing that a pass writes to.

    `heeded` are the comments of the policy that silenced a warning.
    """

    diagnostics: list[Diagnostic] = field(default_factory=list)
    heeded: set[Silence] = field(default_factory=set)
    _seen: set[tuple[str, str, Span | None]] = field(default_factory=set)
    _silences: dict[SourceFile, tuple[Silence, ...]] = field(default_factory=dict)

    def add(
        self,
        code: str,
        message: str,
        span: Span | None,
        *,
        help: str | None = None,
        labels: Iterable[Label] = (),
    ) -> None:
        """Record a diagnostic; the same one at the same place is told once.

        A warning that a comment of the policy silences at that place is left out. Raises KeyError
        for a code that `codes.CODES` does not know.
        """
        diagnostic = Diagnostic(code, message, span, help, tuple(labels))
        if diagnostic.severity is Severity.WARNING and span is not None:
            silence = self._silence(code, span)
            if silence is not None:
                self.heeded.add(silence)
                return
        key = (code, message, span)
        if key not in self._seen:
            self._seen.add(key)
            self.diagnostics.append(diagnostic)

    def take(self, other: Report) -> None:
        """Record all that another report holds."""
        self.heeded |= other.heeded
        for one in other.diagnostics:
            self.add(one.code, one.message, one.span, help=one.help, labels=one.labels)

    def _silence(self, code: str, span: Span) -> Silence | None:
        """The comment that silences a warning at a place."""
        file = span.file
        if file not in self._silences:
            self._silences[file] = tuple(s for s in silences(file) if isinstance(s, Silence))
        return next((s for s in self._silences[file] if s.holds(code, span)), None)

    @property
    def has_errors(self) -> bool:
        return any(d.severity is Severity.ERROR for d in self.diagnostics)

    def in_order(self) -> tuple[Diagnostic, ...]:
        """All diagnostics, file by file in the order in which files appear, then by place."""
        files: dict[str, int] = {}
        for diagnostic in self.diagnostics:
            if diagnostic.span is not None:
                files.setdefault(diagnostic.span.file.name, len(files))

        def key(diagnostic: Diagnostic) -> tuple[int, int]:
            span = diagnostic.span
            return (-1, 0) if span is None else (files[span.file.name], span.start)

        return tuple(sorted(self.diagnostics, key=key))


def did_you_mean(word: str, candidates: Iterable[str]) -> str | None:
    """A help line that names the closest candidate, or None where nothing is close."""
    close = get_close_matches(word, sorted(set(candidates)), n=1, cutoff=0.6)
    return f"did you mean `{close[0]}`?" if close else None
