"""Diagnostics as commands of a GitHub workflow: each is shown at its line of a change.

The form is that of `actions/toolkit`, docs/commands.md. It knows nothing of how they came about.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from policylang.cli.render import json_place
from policylang.cli.visible import visible
from policylang.diagnostics import Diagnostic, Severity

_DATA = {"%": "%25", "\r": "%0D", "\n": "%0A"}  # toolkit: command.ts, escapeData
_PROPERTY = {**_DATA, ":": "%3A", ",": "%2C"}  # the same, escapeProperty


def as_commands(diagnostics: Iterable[Diagnostic]) -> str:
    """A line for each: `::error file=web.policy,line=4,col=7,…::no service named …`."""
    return "".join(f"{_command(one)}\n" for one in diagnostics)


def kept_from_commands(text: str) -> str:
    """Text of others between two lines that keep GitHub from reading commands in it.

    Whoever wrote it does not know the word that ends that: it is made of all of the text.
    """
    word = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
    return f"::stop-commands::{word}\n{text}::{word}::\n"


def _command(one: Diagnostic) -> str:
    word = "error" if one.severity is Severity.ERROR else "warning"
    told = ",".join(f"{name}={_escaped(value, _PROPERTY)}" for name, value in _properties(one))
    return f"::{word} {told}::{_escaped(_text(one), _DATA)}"


def _properties(one: Diagnostic) -> Iterator[tuple[str, str]]:
    place = json_place(one.span)
    if place["file"] is not None:
        yield "file", str(place["file"])
        yield "line", str(place["line"])
        # Of what goes over several lines GitHub takes no columns, and would take none of both.
        yield "endLine", str(place["end_line"])
        if place["line"] == place["end_line"]:
            yield "col", str(place["column"])
            yield "endColumn", str(place["end_column"])
    yield "title", one.code


def _text(one: Diagnostic) -> str:
    lines = [visible(one.message)]
    lines += (f"{visible(label.span.place)}: {visible(label.text)}" for label in one.labels)
    if one.help is not None:
        first, *more = one.help.split("\n")
        lines += [f"help: {visible(first)}", *(f"      {visible(line)}" for line in more)]
    return "\n".join(lines)


def _escaped(text: str, by: dict[str, str]) -> str:
    return "".join(by.get(character, character) for character in text)
