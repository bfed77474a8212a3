"""Comments of a policy that silence a warning at one place: `# policylang: allow CODE reason`.

Such a comment stands at the end of a line, and is about what is told of that line, or on lines of
its own, and is about the next line with anything else. It knows no warning and no statement.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from policylang.codes import CODES
from policylang.source import SourceFile, Span

MARK = "policylang:"

# A string ends on its line; a `#` in it begins no comment.
_PIECE = re.compile(r'"[^"\n]*"?|#[^\n]*')
_SAID = re.compile(rf"#+\s*{MARK}\s*(?P<said>.*)")
_ALLOW = re.compile(r"allow\s+(?P<code>[a-z0-9-]+)(?:\s+(?P<reason>\S.*))?")


@dataclass(frozen=True, slots=True)
class Silence:
    """Warnings of one `code` are not told of what begins or ends on `line`, counted from 1."""

    code: str
    reason: str
    line: int
    span: Span

    def holds(self, code: str, span: Span) -> bool:
        """Whether a warning is silenced by it."""
        if code != self.code or span.file is not self.span.file:
            return False
        return self.line in (span.line, span.file.line_of(max(span.start, span.end - 1)))


@dataclass(frozen=True, slots=True)
class Misfit:
    """A comment that begins like one that silences something, and is none: what is wrong."""

    message: str
    help: str
    span: Span


def silences(file: SourceFile) -> Iterator[Silence | Misfit]:
    """What the comments of a file silence, in order."""
    if MARK not in file.text:
        return
    waiting: list[tuple[str, Span]] = []  # on lines of their own, and the line they are about
    for number in range(1, len(file.line_starts) + 1):
        text = file.line_text(number)
        at = next((m.start() for m in _PIECE.finditer(text) if m[0].startswith("#")), None)
        is_bare = not (text if at is None else text[:at]).strip()
        said = None if at is None else _SAID.fullmatch(text[at:].rstrip())
        if said is not None and at is not None:
            start = file.line_starts[number - 1] + at
            one = (said["said"].strip(), Span(file, start, start + len(text[at:].rstrip())))
            if is_bare:
                waiting.append(one)
            else:
                yield _read(*one, number)
        if not is_bare:
            yield from (_read(*one, number) for one in waiting)
            waiting = []
    yield from (_read(*one, 0) for one in waiting)


_FORM = f"`# {MARK} allow CODE reason` silences one warning at one place"


def _read(said: str, span: Span, line: int) -> Silence | Misfit:
    allow = _ALLOW.fullmatch(said)
    if allow is None:
        return Misfit("this comment silences nothing", _FORM, span)
    code = allow["code"]
    known = CODES.get(code)
    if known is None:
        return Misfit(
            f"no message has the id `{code}`", "`policylang explain` lists them all", span
        )
    if known.severity == "error":
        return Misfit(f"`{code}` is an error, and errors are not silenced", _FORM, span)
    if allow["reason"] is None:
        return Misfit(f"`{code}` is allowed without a reason", _FORM, span)
    return Silence(code, allow["reason"], line, span)
