"""What is ours among the iptables rules of one family: read, replaced and put back, as text.

Ours are the chains named `policylang-…` and the rules of built-in chains that lead to them;
iptables-save(8) prints them, iptables-restore(8) takes them. All else is foreign and appears
in nothing that this module writes. It runs no program.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from policylang.backends.iptables.names import PREFIX
from policylang.backends.iptables.places import PLACES
from policylang.ir.stages import Stage

# Chains that drop packets before the filter table sees them.
SCREENS = frozenset(
    PREFIX + place.ours
    for (stage, _), place in PLACES.items()
    if stage in (Stage.SCREEN, Stage.SCREEN_STATE)
)

# The chain that a rule stands in or leads to; and quoted texts, in which nothing is a name.
_CHAIN = re.compile(r'"(?:[^"\\]|\\.)*"|(?<=-[Ajg] )\S+')


@dataclass(frozen=True, slots=True)
class Jump:
    """A rule of a built-in chain that leads to one of ours; `position` counts from 1."""

    chain: str
    position: int
    rule: str


@dataclass(frozen=True, slots=True)
class Table:
    """What is ours in one table.

    `rules` are `-A` lines, `held` the chains of ours to which a foreign chain leads: they can
    be emptied but not deleted.
    """

    name: str
    chains: tuple[str, ...]
    rules: tuple[str, ...]
    jumps: tuple[Jump, ...]
    held: frozenset[str]


Generation = tuple[Table, ...]


@dataclass(frozen=True, slots=True)
class InputLine:
    """A line for iptables-restore; `number` is its line in the artifact's file, from 1."""

    text: str
    number: int | None = None


def read(listing: str) -> Generation:
    """What is ours in the output of iptables-save; tables that hold nothing of ours are left out.

    Raises ValueError where the listing is cut off.
    """
    return tuple(table for table in _tables(listing.splitlines()) if table.chains)


def _tables(lines: Iterable[str]) -> Iterator[Table]:
    block: list[str] = []
    for line in lines:
        if line == "COMMIT":
            yield _table(block)
            block = []
        elif line and not line.startswith("#"):
            block.append(line)
    if block:
        raise ValueError("the listing ends in the middle of a table")


def _table(block: Sequence[str]) -> Table:
    name = block[0].removeprefix("*")
    chains: list[str] = []
    built_in: set[str] = set()
    rules: list[str] = []
    jumps: list[Jump] = []
    held: set[str] = set()
    length: dict[str, int] = {}
    for line in block[1:]:
        if line.startswith(":"):
            chain, policy, *_ = line[1:].split()
            if chain.startswith(PREFIX):
                chains.append(chain)
            elif policy != "-":
                built_in.add(chain)
            continue
        chain = line.split(" ", 2)[1]
        length[chain] = length.get(chain, 0) + 1
        target = _target(line)
        if chain.startswith(PREFIX):
            rules.append(line)
        elif target and chain in built_in:
            jumps.append(Jump(chain, length[chain], line.removeprefix(f"-A {chain} ")))
        elif target:
            held.add(target)
    return Table(name, tuple(chains), tuple(rules), tuple(jumps), frozenset(held))


def _target(rule: str) -> str:
    """The chain of ours that a rule leads to, or an empty text."""
    if PREFIX not in rule:
        return ""  # of the thousands of rules that others may have, nearly all
    try:
        words = shlex.split(rule)
    except ValueError:  # an extension that does not close its quotes
        words = rule.split()
    for option, value in pairwise(words):
        if option in ("-j", "-g") and value.startswith(PREFIX):
            return value
    return ""


def rules_file(generation: Generation) -> str:
    """The generation as a rules file of an artifact would hold it."""
    lines: list[str] = []
    for table in generation:
        lines.append(f"*{table.name}")
        lines += [f":{chain} - [0:0]" for chain in table.chains]
        lines += [f"-I {jump.chain} {jump.position} {jump.rule}" for jump in table.jumps]
        lines += [*table.rules, "COMMIT"]
    return "".join(f"{line}\n" for line in lines)


def replacement(rules: str, before: Generation) -> tuple[InputLine, ...]:
    """What to give `iptables-restore --noflush` so that `rules` take the place of `before`.

    Each table is one commit: the jumps that are there are deleted where new ones are inserted,
    declaring a chain empties it, and chains that `rules` do not declare are deleted. The filter
    table is committed before others: what a filter rule lets through beyond the packet's own
    fields it knows by the conntrack helper or the translation, so a new filter with what another
    table assigned before is no more open than the new ruleset, and the reverse could be.
    """
    return _in_one_text(_replacing(rules, before))


def replacement_in_steps(rules: str, before: Generation) -> tuple[InputLine, ...]:
    """The same where `before` is in force, and packets come by between the commits.

    The new screens are there first, under names of their own and beside the old ones, and only
    then the new filter, which may rely on them. So no packet ever passes that neither ruleset
    lets pass. Not for `--test`, which would not find in the kernel what the first commits did.
    """
    if not before:
        return replacement(rules, before)
    first = [ahead for block in _blocks(rules) if (ahead := _screens_of(block))]
    there = {table.name: table for table in before}
    for block in first:
        name = block[0].text.removeprefix("*")
        there[name] = _joined(there.get(name), block)
    return (*_in_one_text(first), *_in_one_text(_replacing(rules, tuple(there.values()))))


def _in_one_text(blocks: Iterable[Iterable[InputLine]]) -> tuple[InputLine, ...]:
    return tuple(line for block in blocks for line in block)


def _replacing(rules: str, before: Generation) -> list[list[InputLine]]:
    there = {table.name: table for table in before}
    blocks = [_merged(block, there) for block in _blocks(rules)]
    named = {block[0].text.removeprefix("*") for block in blocks}
    blocks += [
        _merged([InputLine(f"*{table.name}"), InputLine("COMMIT")], there)
        for table in before
        if table.name not in named
    ]
    blocks.sort(key=lambda block: block[0].text != "*filter")
    return blocks


def _screens_of(block: Sequence[InputLine]) -> list[InputLine]:
    """The screens of a table's block, as chains that clash with none that is there; or nothing."""
    chains = [line.text[1:].split()[0] for line in block if line.text.startswith(":")]
    wanted = [chain for chain in chains if chain in SCREENS]
    for chain in wanted:
        found = (_target(line.text) for line in block if line.text.startswith(f"-A {chain} "))
        wanted += {target for target in found if target and target not in wanted}
    if not wanted:
        return []
    names = {chain: f"{PREFIX}ahead-{number}" for number, chain in enumerate(wanted, 1)}
    return [
        block[0],
        *(InputLine(f":{name} - [0:0]") for name in names.values()),
        *(
            InputLine(_renamed(line.text, names), line.number)
            for line in block
            if (line.text.startswith("-I ") and _target(line.text) in names)
            or (line.text.startswith("-A ") and line.text.split(" ", 2)[1] in names)
        ),
        block[-1],
    ]


def _renamed(rule: str, names: Mapping[str, str]) -> str:
    return _CHAIN.sub(lambda found: names.get(found[0], found[0]), rule)


def _joined(before: Table | None, block: Sequence[InputLine]) -> Table:
    """What is there of a table once `block` is committed as well; its rules are left out."""
    chains = [line.text[1:].split()[0] for line in block if line.text.startswith(":")]
    jumps = []
    for line in block:
        match line.text.split(" ", 3):
            case ["-I", chain, position, rule]:
                jumps.append(Jump(chain, int(position), rule))
    if before is None:
        return Table(block[0].text.removeprefix("*"), tuple(chains), (), tuple(jumps), frozenset())
    all_chains = tuple(dict.fromkeys((*before.chains, *chains)))
    return Table(before.name, all_chains, before.rules, (*before.jumps, *jumps), before.held)


def _blocks(rules: str) -> Iterator[list[InputLine]]:
    block: list[InputLine] = []
    for number, text in enumerate(rules.splitlines(), start=1):
        if text and not text.startswith("#"):
            block.append(InputLine(text, number))
        if text == "COMMIT":
            yield block
            block = []
    assert not block, "a rules file ends in COMMIT"


def _merged(block: list[InputLine], there: dict[str, Table]) -> list[InputLine]:
    """A table's block with the removal of what is there of ours worked in."""
    before = there.get(block[0].text.removeprefix("*"))
    if before is None:
        return block
    kept = {line.text[1:].split()[0] for line in block if line.text.startswith(":")}
    stale = [chain for chain in before.chains if chain not in kept]
    declared = [line for line in block[1:-1] if line.text.startswith(":")]
    rules = [line for line in block[1:-1] if not line.text.startswith(":")]
    return [
        block[0],
        *declared,
        *(InputLine(f":{chain} - [0:0]") for chain in stale),
        *(InputLine(f"-D {jump.chain} {jump.rule}") for jump in before.jumps),
        *rules,
        *(InputLine(f"-X {chain}") for chain in stale if chain not in before.held),
        block[-1],
    ]
