"""The only module that knows Jinja2: lays lines out and proves that none was lost.

Each line carries an invisible mark while it is rendered. A template that loses, repeats or
reorders a line fails (`TemplateError`), and from the marks the finished file knows which
statements each of its lines came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policylang.backends.base import Line, OutputFile
from policylang.ir.origin import Origin

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
MARK = "\x00"  # cannot come from a policy: names, strings and comments are checked


class TemplateError(AssertionError):
    """A template that does not lay out exactly the lines it was given, in order."""


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


class _Marker:
    """Turns lines into marked text, in the order in which they must come out."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def mark(self, value: Any) -> Any:
        match value:
            case Line():
                if MARK in value.text or "\n" in value.text:
                    raise TemplateError(f"a line cannot hold this: {value.text!r}")
                self.lines.append(value)
                return f"{MARK}{len(self.lines) - 1}{MARK}{value.text}"
            case Mapping():
                return {key: self.mark(item) for key, item in value.items()}
            case tuple() | list():
                return [self.mark(item) for item in value]
            case _:
                return value


def render(template: str, name: str, values: Mapping[str, Any]) -> OutputFile:
    """Lay out `values`, whose `Line`s come out in the order in which they stand there.

    `values` holds strings, Lines, and lists and mappings of them, in the template's order.
    Raises TemplateError where a line is missing, doubled or out of place.
    """
    marker = _Marker()
    marked = marker.mark(values)
    text = _environment().get_template(template).render(marked)
    clean: list[str] = []
    origins: list[tuple[Origin, ...]] = []
    expected = 0
    for raw in text.splitlines():
        found: tuple[Origin, ...] = ()
        if MARK in raw:
            before, number, after = raw.split(MARK, 2) if raw.count(MARK) == 2 else ("", "", raw)
            if number != str(expected):
                raise TemplateError(f"{template} lost, doubled or moved line {expected}: {raw!r}")
            found = marker.lines[expected].origins
            expected += 1
            raw = before + after
        clean.append(raw)
        origins.append(found)
    if expected != len(marker.lines):
        raise TemplateError(f"{template} laid out {expected} of {len(marker.lines)} lines")
    return OutputFile(name, "".join(line + "\n" for line in clean), tuple(origins))
