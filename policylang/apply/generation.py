"""What is ours among the iptables rules of one family: read, replaced and put back, as text.

Ours are the chains named `policylang-…`, those named `policylang+…` of a generation that is not
confirmed yet, and the rules of built-in chains that lead to them; iptables-save(8) prints them,
iptables-restore(8) takes them. All else is foreign and appears in nothing that this module writes.
It runs no program.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from policylang.apply.loaded import Count
from policylang.backends.iptables.names import PREFIX

PENDING = "policylang+"  # as long as the other: a name that fits with one fits with both
OURS = (PREFIX, PENDING)

# The copies of filters in mangle, of which `xtables_steps` tells.
COPIES = (f"{PREFIX}ahead-", f"{PENDING}ahead-")

_COUNT = re.compile(r"\[(\d+):(\d+)\] ")


@dataclass(frozen=True, slots=True)
class Jump:
    """A rule of a built-in chain that leads to one of ours; `position` counts from 1."""

    chain: str
    position: int
    rule: str
    count: Count | None = field(default=None, compare=False)

    @property
    def leads_to(self) -> str:
        """The chain of ours."""
        return target(self.rule)


@dataclass(frozen=True, slots=True)
class Table:
    """What is ours in one table.

    `rules` are `-A` lines, `held` the chains of ours to which a foreign chain leads: they can
    be emptied but not deleted. `counts` are what the rules counted, where the listing says so.
    """

    name: str
    chains: tuple[str, ...]
    rules: tuple[str, ...]
    jumps: tuple[Jump, ...]
    held: frozenset[str]
    counts: tuple[Count | None, ...] = field(default=(), compare=False)


Generation = tuple[Table, ...]


@dataclass(frozen=True, slots=True)
class InputLine:
    """A line for iptables-restore; `number` is its line in the artifact's file, from 1.

    A rule begins with a `count`, where it has one.
    """

    text: str
    number: int | None = None
    count: Count | None = None


def read(listing: str) -> Generation:
    """What is ours in what iptables-save prints; tables that hold nothing of ours are left out.

    With its option `-c` come the counts.

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
    counts: list[Count | None] = []
    jumps: list[Jump] = []
    held: set[str] = set()
    length: dict[str, int] = {}
    for printed in block[1:]:
        if printed.startswith(":"):
            chain, policy, *_ = printed[1:].split()
            if chain.startswith(OURS):
                chains.append(chain)
            elif policy != "-":
                built_in.add(chain)
            continue
        counted = _COUNT.match(printed)
        count = Count(int(counted[1]), int(counted[2])) if counted else None
        line = printed[counted.end() :] if counted else printed
        chain = line.split(" ", 2)[1]
        length[chain] = length.get(chain, 0) + 1
        leads_to = target(line)
        if chain.startswith(OURS):
            rules.append(line)
            counts.append(count)
        elif leads_to and chain in built_in:
            jumps.append(Jump(chain, length[chain], line.removeprefix(f"-A {chain} "), count))
        elif leads_to:
            held.add(leads_to)
    return Table(
        name, tuple(chains), tuple(rules), tuple(jumps), frozenset(held), counts=tuple(counts)
    )


def target(rule: str) -> str:
    """The chain of ours that a rule leads to, or an empty text."""
    if not any(prefix in rule for prefix in OURS):
        return ""  # of the thousands of rules that others may have, nearly all
    try:
        words = shlex.split(rule)
    except ValueError:  # an extension that does not close its quotes
        words = rule.split()
    for option, value in pairwise(words):
        if option in ("-j", "-g") and value.startswith(OURS):
            return value
    return ""


def with_counts(
    lines: Iterable[InputLine], rules: str, listed: Generation
) -> tuple[InputLine, ...]:
    """Lines of `rules` with the counts of `listed`, which is what the kernel makes of `rules`.

    Where the kernel made several rules of a line, that chain's rules begin anew.
    """
    counts: dict[int | None, Count | None] = {}
    there = {table.name: table for table in listed}
    for block in blocks_of(rules):
        table = there.get(block[0].text.removeprefix("*"))
        if table is None:
            continue
        counted: dict[str, list[Count | None]] = {}
        for rule, count in zip(table.rules, table.counts, strict=False):
            counted.setdefault(rule.split(" ", 2)[1], []).append(count)
        written: dict[str, list[int | None]] = {}
        jumps = {(jump.chain, jump.leads_to): jump.count for jump in table.jumps}
        for line in block:
            if line.text.startswith("-A "):
                written.setdefault(line.text.split(" ", 2)[1], []).append(line.number)
            elif line.text.startswith("-I "):
                counts[line.number] = jumps.get((line.text.split(" ", 2)[1], target(line.text)))
        for chain, numbers in written.items():
            if len(numbers) == len(counted.get(chain, ())):
                counts.update(zip(numbers, counted[chain], strict=True))
    return tuple(
        line if line.number is None or _is_of_copy(line) else replace(line, count=found)
        for line in lines
        for found in [counts.get(line.number)]
    )


def _is_of_copy(line: InputLine) -> bool:
    return line.text.startswith(tuple(f"-A {prefix}" for prefix in COPIES))


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
    fields it knows by the conntrack helper, so a new filter with what another table assigned
    before is no more open than the new ruleset, and the reverse could be. Where all goes away, it
    goes last.
    """
    return in_one_text(replacing(rules, before, filter_first=bool(rules)))


def in_one_text(blocks: Iterable[Iterable[InputLine]]) -> tuple[InputLine, ...]:
    """The lines of all blocks, one after another."""
    return tuple(line for block in blocks for line in block)


def replacing(rules: str, before: Generation, *, filter_first: bool) -> list[list[InputLine]]:
    """A block for each table, in the order of the commits."""
    there = {table.name: table for table in before}
    blocks = [merged(block, there) for block in blocks_of(rules)]
    named = {block[0].text.removeprefix("*") for block in blocks}
    blocks += [
        merged([InputLine(f"*{table.name}"), InputLine("COMMIT")], there)
        for table in before
        if table.name not in named
    ]
    blocks.sort(key=lambda block: (block[0].text == "*filter") is not filter_first)
    return blocks


def blocks_of(rules: str) -> Iterator[list[InputLine]]:
    """The tables of a rules file, each from its name to its `COMMIT`."""
    block: list[InputLine] = []
    for number, text in enumerate(rules.splitlines(), start=1):
        if text and not text.startswith("#"):
            block.append(InputLine(text, number))
        if text == "COMMIT":
            yield block
            block = []
    assert not block, "a rules file ends in COMMIT"


def merged(block: list[InputLine], there: dict[str, Table]) -> list[InputLine]:
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
