"""Lets the rules of a script begin with what the same rules have counted; knows not what they say.

A rule is the same where its chain and its text are, in the words of a listing; of several that are
the same the first begins with what the first counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from policylang.apply import nft_script
from policylang.apply.loaded import Chain, Count, Loaded
from policylang.apply.nft_script import ScriptChain

# A counter that has counted nothing, and quoted texts, in which there is none.
_COUNTER = re.compile(r'"[^"]*"|(?<!\S)counter(?= |$)(?! name | packets )')
_KEY = re.compile(r' : |"[^"]*"')


@dataclass(frozen=True, slots=True)
class Counted:
    """A script whose lines are those that it had; `commands` follow it for elements that count."""

    text: str
    commands: tuple[str, ...]


def counted(text: str, rehearsed: Loaded, live: Loaded, table: str) -> Counted:
    """The script whose rules count on where those that are live have come to.

    `rehearsed` is what the script makes, `table` where its elements go.
    """
    script = nft_script.read(text)
    lines = list(script.lines)
    wanted = {chain.place: chain for chain in rehearsed.chains}
    there = {chain.place: chain for chain in live.chains}
    for chain in script.chains:
        place = f"chain {chain.name}"
        if place in there:
            for number, count in _counts(chain, wanted[place], there[place]):
                lines[number] = _begun(lines[number], count)
    return Counted("\n".join(lines), tuple(_elements(rehearsed, live, table)))


def _counts(script: ScriptChain, wanted: Chain, there: Chain) -> Iterator[tuple[int, Count]]:
    assert len(script.rules) == len(wanted.rules), f"a line is a rule in the chain {script.name}"
    left: dict[str, list[Count | None]] = {}
    for rule in there.rules:
        left.setdefault(rule.text, []).append(rule.count)
    for number, rule in zip(script.rules, wanted.rules, strict=True):
        same = left.get(rule.text)
        count = same.pop(0) if same else None
        if count is not None and count.packets:
            yield number, count


def _begun(line: str, count: Count) -> str:
    """A rule whose counter begins with a count, or as it was where it has not just one."""
    found = [one for one in _COUNTER.finditer(line) if not one[0].startswith('"')]
    if len(found) != 1:
        return line
    end = found[0].end()
    return f"{line[:end]} packets {count.packets} bytes {count.bytes}{line[end:]}"


def _elements(rehearsed: Loaded, live: Loaded, table: str) -> Iterator[str]:
    """Commands that put elements into the new sets with what they counted in the old ones."""
    there = {one.place: one for one in live.sets}
    for one in rehearsed.sets:
        old = there.get(one.place)
        if old is None or one.elements is None or old.head != one.head:
            continue
        counts = {
            text: old.counts[text]
            for text in sorted(one.elements)
            if text in old.counts and old.counts[text].packets
        }
        if counts:
            _, name = one.place.split(" ", 1)
            yield f"delete element {table} {name} {{ {', '.join(counts)} }}"
            begun = (_begun_element(text, count) for text, count in counts.items())
            yield f"add element {table} {name} {{ {', '.join(begun)} }}"


def _begun_element(text: str, count: Count) -> str:
    said = f" counter packets {count.packets} bytes {count.bytes}"
    for found in _KEY.finditer(text):
        if not found[0].startswith('"'):
            return text[: found.start()] + said + text[found.start() :]
    return text + said
