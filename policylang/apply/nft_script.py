"""An nft script of ours, line by line: where its table, its chains and its rules stand.

The script was laid out by `templates/nft/table.j2`; one that is laid out otherwise is a mistake of
ours. What a rule or an element says it does not read, but for its counter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from policylang.backends.nft import TABLE

DECLARED = (f"table {TABLE}", f"add table {TABLE}")
DELETED = f"delete table {TABLE}"
OPENED = f"table {TABLE} {{"

_OPENING = re.compile(r"(?P<word>[a-z]+(?: [a-z]+)?) (?P<name>\S+) \{")
_ELEMENTS = "elements = {"
_HOOK = re.compile(r"type [a-z]+ hook [a-z]+ priority [^;\"]+; policy [a-z]+;")


@dataclass(frozen=True, slots=True)
class ScriptChain:
    """A chain's name, and the numbers of its lines, from 0; `hook` is None where it has none."""

    name: str
    hook: int | None
    rules: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Script:
    """The lines of a script, and the numbers, from 0, of those that name its table."""

    lines: tuple[str, ...]
    declared: int
    deleted: int
    opened: int
    chains: tuple[ScriptChain, ...]


def read(text: str) -> Script:
    """A script as its lines; whoever joins them with newlines has the text again."""
    lines = tuple(text.split("\n"))
    assert any(line in lines for line in DECLARED), "the table is declared"
    declared = min(lines.index(line) for line in DECLARED if line in lines)
    deleted, opened = lines.index(DELETED), lines.index(OPENED)
    assert declared < deleted < opened, "the table is declared, deleted and made anew"
    chains: list[ScriptChain] = []
    end = opened + 1
    while lines[end] != "}":
        if lines[end]:
            chain, end = _thing(lines, end)
            chains += chain
        end += 1
    rest = (*lines[:declared], *lines[declared + 1 : deleted], *lines[deleted + 1 : opened])
    for line in (*rest, *lines[end + 1 :]):
        assert not line or line.startswith("#"), f"a comment: {line!r}"
    return Script(lines, declared, deleted, opened, tuple(chains))


def _thing(lines: Sequence[str], start: int) -> tuple[list[ScriptChain], int]:
    """The chain that begins on a line, if it is one, and the number of its last line."""
    found = _OPENING.fullmatch(lines[start].strip())
    assert found is not None, f"a chain, a set or another thing begins: {lines[start]!r}"
    end = start + 1
    depth = 0
    while depth or lines[end].strip() != "}":
        depth += {_ELEMENTS: 1, "}": -1}.get(lines[end].strip(), 0)
        end += 1
    if found["word"] != "chain":
        return [], end
    body = [number for number in range(start + 1, end) if lines[number].strip()]
    is_base = bool(body) and _HOOK.fullmatch(lines[body[0]].strip()) is not None
    hook, rules = (body[0], body[1:]) if is_base else (None, body)
    return [ScriptChain(found["name"], hook, tuple(rules))], end
