"""Puts the rules of a generation beside those that are in force, and takes them away, as text.

The rules that lead to either ask the switch (`xtables_switch`) which of both is to be asked, and
all of a table is one commit. It runs no program.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from policylang.apply.generation import (
    PENDING,
    Generation,
    InputLine,
    Jump,
    Table,
    blocks_of,
)
from policylang.apply.xtables_steps import (
    filter_beside,
    has_related,
)
from policylang.apply.xtables_switch import (
    has_condition,
    of_copy,
    of_pending,
    of_replaced,
    without_condition,
)
from policylang.backends.iptables.names import PREFIX

_CHAIN = re.compile(r'"(?:[^"\\]|\\.)*"|(?<=-[Ajg] )\S+|(?<=^:)\S+')
_INSERTED = re.compile(r"-I (?P<chain>\S+) 1 (?P<rule>.+)")


def arming(rules: str, before: Generation) -> tuple[InputLine, ...]:
    """What puts `rules` beside `before` while the switch is off: it changes no packet's fate.

    `before` holds nothing that is pending.
    """
    blocks = {block[0].text: block for block in blocks_of(rules)}
    there = {f"*{table.name}": table for table in before}
    copy: list[InputLine] = []
    if has_related(blocks.values(), before):
        copy = filter_beside(blocks.values())
        blocks.setdefault("*mangle", [InputLine("*mangle"), InputLine("COMMIT")])
    lines: list[InputLine] = []
    for name in (*blocks, *(name for name in there if name not in blocks)):
        block = blocks.get(name, [])
        beside = [_conditional_copy(line) for line in copy] if name == "*mangle" else []
        lines += _beside(name, block[1:-1], there.get(name), beside)
    return tuple(lines)


def _beside(
    name: str, block: Sequence[InputLine], before: Table | None, copy: Sequence[InputLine]
) -> Iterator[InputLine]:
    """One table: what is new, what leads to either, and the copy of a filter as the last."""
    table = name.removeprefix("*")
    declared = [line for line in (*block, *copy) if line.text.startswith(":")]
    yield InputLine(name)
    for line in declared:
        yield replace(line, text=_pending(line.text))
    jumps = before.jumps if before is not None else ()
    new: dict[str, list[InputLine]] = {jump.chain: [] for jump in jumps}
    for line in block:
        if found := _INSERTED.fullmatch(line.text):
            # Each is inserted before the one of the line before.
            chain = found["chain"]
            rule = of_pending(table, chain) + _pending(found["rule"])
            new.setdefault(chain, []).insert(0, replace(line, text=rule))
    for jump in jumps:
        yield InputLine(f"-D {jump.chain} {jump.rule}")
    for chain, beside in new.items():
        own = [jump for jump in jumps if jump.chain == chain]
        first = own[0].position if own else 1
        for place, line in enumerate(beside, first):
            yield replace(line, text=f"-I {chain} {place} {line.text}")
        for jump in own:
            guarded = replace(jump, rule=of_replaced(table, chain) + jump.rule)
            yield _insertion(guarded, jump.position + len(beside))
    for line in (*block, *copy):
        if line.text.startswith("-A "):
            yield replace(line, text=_pending(line.text))
    yield InputLine("COMMIT")


def _conditional_copy(line: InputLine) -> InputLine:
    """A line of a filter's copy; those that lead to it from outside ask the switch."""
    words = line.text.split(" ", 2)
    if words[0] == "-A" and not words[1].startswith(PREFIX):
        return replace(line, text=f"-A {words[1]} {of_copy()}{words[2]}")
    return line


def _pending(line: str) -> str:
    """A line with the names of a pending generation's chains; a set keeps its name."""

    def renamed(found: re.Match[str]) -> str:
        name = found[0]
        return PENDING + name.removeprefix(PREFIX) if name.startswith(PREFIX) else name

    return _CHAIN.sub(renamed, line)


def _insertion(jump: Jump, position: int) -> InputLine:
    return InputLine(f"-I {jump.chain} {position} {jump.rule}", count=jump.count)


def disarming(before: Generation) -> tuple[InputLine, ...]:
    """What takes away all that is pending, and every question to the switch; it must be off."""
    return tuple(line for table in before for line in _alone(table))


def _alone(table: Table) -> Iterator[InputLine]:
    pending = [chain for chain in table.chains if chain.startswith(PENDING)]
    going = [jump for jump in table.jumps if jump.leads_to in pending]
    asking = [jump for jump in table.jumps if has_condition(jump.rule) and jump not in going]
    if not pending and not asking:
        return
    yield InputLine(f"*{table.name}")
    for chain in pending:
        yield InputLine(f":{chain} - [0:0]")
    for jump in (*going, *asking):
        yield InputLine(f"-D {jump.chain} {jump.rule}")
    for jump in asking:
        ahead = sum(j.chain == jump.chain and j.position < jump.position for j in going)
        freed = replace(jump, rule=without_condition(jump.rule))
        yield _insertion(freed, jump.position - ahead)
    for chain in pending:
        if chain not in table.held:
            yield InputLine(f"-X {chain}")
    yield InputLine("COMMIT")


def all_beside(text: str) -> str:
    """A file for `ipset restore` with a pending generation's names, also of what goes again."""
    words = {word for line in text.split("\n") for word in line.split(" ")}
    ours = {word for word in words if word.startswith(PREFIX)}
    return with_names(text, {name: PENDING + name.removeprefix(PREFIX) for name in ours})


def with_names(text: str, names: Mapping[str, str]) -> str:
    """A file for `ipset restore` with other names for its sets."""

    def words(line: str) -> Iterable[str]:
        return (names.get(word, word) for word in line.split(" "))

    return "\n".join(" ".join(words(line)) for line in text.split("\n"))
