"""Replaces a generation that is in force, while packets come by between the commits, as text.

iptables commits each table by itself. This module knows which filter has to judge meanwhile; it
runs no program.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from policylang.apply.generation import (
    COPIES,
    PENDING,
    Generation,
    InputLine,
    Jump,
    Table,
    blocks_of,
    in_one_text,
    merged,
    replacement,
    replacing,
    target,
)
from policylang.backends.iptables.names import PREFIX
from policylang.backends.iptables.places import PLACES
from policylang.ir.stages import Path, Stage

# Our chains, by their table, of stages that the filter relies on or that rely on it. A helper is
# not among them: with whatever helper a connection has, a filter lets no more pass than its
# ruleset does.
RELATED = frozenset(
    (place.table, PREFIX + place.ours)
    for (stage, _), place in PLACES.items()
    if stage not in (Stage.FILTER, Stage.ASSIGN_HELPER)
)
FILTERS = {
    PREFIX + place.ours: place.chain
    for (stage, path), place in PLACES.items()
    if stage is Stage.FILTER and path in (Path.INPUT, Path.FORWARD)
}
AHEAD = COPIES[0]

# The chain that a rule stands in or leads to; and quoted texts, in which nothing is a name.
_CHAIN = re.compile(r'"(?:[^"\\]|\\.)*"|(?<=-[Ajg] )\S+')
_BUCKETS = re.compile(r"(?<=--hashlimit-name )\S+")
# Quoted texts, and the end of a rule from its target on.
_END = re.compile(r'"(?:[^"\\]|\\.)*"|(?<= )-[jg] (?P<target>\S+).*')


def replacement_in_steps(rules: str, before: Generation) -> tuple[InputLine, ...]:
    """What to give `iptables-restore --noflush` so that `rules` take the place of `before`.

    `before` is in force, and packets come by between the commits.

    A new filter with old translations or marks may let pass what neither ruleset does, and so may
    an old filter with new ones: each has addresses, ports and marks from the other that its own
    ruleset would never have shown it. So both filters hold at once while all other tables change,
    and a packet passes only where both let it pass. For what arrives and what is forwarded, the new
    one is first copied into mangle, whose chains are read before those of filter: a verdict there
    to accept ends mangle alone. Then come all other tables, then the new filter itself, and at last
    the copy goes. What only one of the rulesets allows is kept back for that moment. Copies that
    an interrupted replacement, or a pending generation, has there judge until the end as well.

    This host's own packets are translated behind mangle, where no copy could judge them; until the
    new filter is there, the old one alone does.

    Not for `--test`, which would not find in the kernel what the first commits did.
    """
    blocks = list(blocks_of(rules))
    rest, left = _without_copies(before)
    beside = filter_beside(blocks, left)
    if not before or not beside or not has_related(blocks, before):
        return replacement(rules, before)
    first = [InputLine("*mangle"), *beside, InputLine("COMMIT")]
    last = [InputLine("*mangle"), InputLine("COMMIT")]
    copies = {"mangle": _joined(left, first)}
    return in_one_text((first, *replacing(rules, rest, filter_first=False), merged(last, copies)))


def has_related(blocks: Iterable[Sequence[InputLine]], before: Generation) -> bool:
    """Whether there is, or is to be, anything besides filters that a filter has to do with."""
    new = {
        (block[0].text.removeprefix("*"), line.text[1:].split()[0])
        for block in blocks
        for line in block
        if line.text.startswith(":")
    }
    old = {
        (table.name, chain.replace(PENDING, PREFIX, 1))
        for table in before
        for chain in table.chains
    }
    return not RELATED.isdisjoint(new | old)


def filter_beside(
    blocks: Iterable[Sequence[InputLine]], left: Table | None = None
) -> list[InputLine]:
    """The new filter of what arrives and is forwarded, as lines for mangle; or nothing.

    What it does beside deciding is left to the filter itself, and a packet is refused without a
    word, which mangle has no target for. What it lets pass meets the copies that are `left` of
    others: a verdict of one would else be the last word.
    """
    block = next((block for block in blocks if block[0].text == "*filter"), ())
    bodies: dict[str, list[InputLine]] = {}
    for line in block:
        if line.text.startswith("-A "):
            bodies.setdefault(line.text.split(" ", 2)[1], []).append(line)
        elif line.text.startswith(":"):
            bodies.setdefault(line.text[1:].split()[0], [])
    entries = [chain for chain in bodies if chain in FILTERS]
    if left is None:
        return _copy(entries, bodies, 1, "-j ACCEPT")
    judged = {FILTERS[entry] for entry in entries}
    lines = [InputLine(f"-D {j.chain} {j.rule}") for j in left.jumps if j.chain in judged]
    number = 1 + max(_number(chain) for chain in left.chains)
    for entry in entries:
        others = [jump.rule for jump in left.jumps if jump.chain == FILTERS[entry]]
        copied = _copy([entry], bodies, number + 1, f"-g {AHEAD}{number}")
        lines += [
            InputLine(f":{AHEAD}{number} - [0:0]"),
            *copied,
            *(InputLine(f"-A {AHEAD}{number} {rule}") for rule in (*others, "-j ACCEPT")),
        ]
        number += 1 + sum(line.text.startswith(":") for line in copied)
    # A line may name only what was declared.
    return sorted(lines, key=lambda line: not line.text.startswith(":"))


def _number(copy: str) -> int:
    return int(copy.rpartition("-")[2])


def _copy(
    entries: Sequence[str], bodies: Mapping[str, Sequence[InputLine]], number: int, passes: str
) -> list[InputLine]:
    """The copies of chains and of those that they lead to, numbered from `number` on."""
    wanted = [*entries]
    for chain in wanted:
        found = (target(line.text) for line in bodies[chain])
        wanted += dict.fromkeys(t for t in found if t in bodies and t not in wanted)
    names = {chain: f"{AHEAD}{n}" for n, chain in enumerate(wanted, number)}
    return [
        *(InputLine(f":{name} - [0:0]") for name in names.values()),
        # Behind all others: what they do to packets, they do before the filter sees them.
        *(InputLine(f"-A {FILTERS[chain]} -j {names[chain]}") for chain in entries),
        *(
            InputLine(copied, line.number)
            for chain in wanted
            for line in bodies[chain]
            if (copied := _copied(line.text, names, passes))
        ),
    ]


def _copied(rule: str, names: Mapping[str, str], passes: str) -> str:
    """A rule of filter as one of mangle; or nothing, where it decides nothing.

    A rate is counted by itself: a packet that both see is not counted twice.
    """
    renamed = _CHAIN.sub(lambda found: names.get(found[0], found[0]), rule)
    renamed = _BUCKETS.sub(lambda found: f"{found[0]}.ahead", renamed)
    for found in _END.finditer(renamed):
        match found["target"]:
            case None:
                continue
            case "ACCEPT":
                return f"{renamed[: found.start()]}{passes}"
            case "DROP" | "RETURN":
                return renamed
            case "REJECT":
                return f"{renamed[: found.start()]}-j DROP"
            case chain if chain.startswith(AHEAD):
                return renamed
            case _:
                return ""
    return ""


def _without_copies(before: Generation) -> tuple[Generation, Table | None]:
    """What is there less the copies of a filter in mangle, and these by themselves."""
    rest: list[Table] = []
    left: Table | None = None
    for table in before:
        copies = tuple(chain for chain in table.chains if chain.startswith(COPIES))
        if not copies:
            rest.append(table)
            continue
        kept = tuple(chain for chain in table.chains if chain not in copies)
        of_copies = tuple(jump for jump in table.jumps if jump.leads_to in copies)
        jumps = tuple(jump for jump in table.jumps if jump not in of_copies)
        left = Table(table.name, copies, (), of_copies, table.held)
        rest.append(replace(table, chains=kept, jumps=jumps))
    return tuple(rest), left


def _joined(before: Table | None, block: Sequence[InputLine]) -> Table:
    """What is there of the copies once `block` is committed as well."""
    chains = [line.text[1:].split()[0] for line in block if line.text.startswith(":")]
    jumps = [
        Jump(chain, 0, rule)
        for line in block
        if line.text.startswith("-A ")
        for _, chain, rule in [line.text.split(" ", 2)]
        if chain in FILTERS.values()
    ]
    if before is None:
        return Table("mangle", tuple(chains), (), tuple(jumps), frozenset())
    # Where the new copy judges, what led to the others is in a chain of its own.
    judged = {jump.chain for jump in jumps}
    kept = [jump for jump in before.jumps if jump.chain not in judged]
    return replace(before, chains=(*before.chains, *chains), jumps=(*kept, *jumps))
