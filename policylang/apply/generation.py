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
AHEAD = f"{PREFIX}ahead-"

# The chain that a rule stands in or leads to; and quoted texts, in which nothing is a name.
_CHAIN = re.compile(r'"(?:[^"\\]|\\.)*"|(?<=-[Ajg] )\S+')
# Quoted texts, and the end of a rule from its target on.
_END = re.compile(r'"(?:[^"\\]|\\.)*"|(?<= )-[jg] (?P<target>\S+).*')


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
    fields it knows by the conntrack helper, so a new filter with what another table assigned
    before is no more open than the new ruleset, and the reverse could be. Where all goes away, it
    goes last.
    """
    return _in_one_text(_replacing(rules, before, filter_first=bool(rules)))


def replacement_in_steps(rules: str, before: Generation) -> tuple[InputLine, ...]:
    """The same where `before` is in force, and packets come by between the commits.

    A new filter with old translations or marks may let pass what neither ruleset does, and so may
    an old filter with new ones: each has addresses, ports and marks from the other that its own
    ruleset would never have shown it. So both filters hold at once while all other tables change,
    and a packet passes only where both let it pass. For what arrives and what is forwarded, the new
    one is first copied into mangle, whose chains are read before those of filter: a verdict there
    to accept ends mangle alone. Then come all other tables, then the new filter itself, and at last
    the copy goes. What only one of the rulesets allows is kept back for that moment.

    This host's own packets are translated behind mangle, where no copy could judge them; until the
    new filter is there, the old one alone does.

    Not for `--test`, which would not find in the kernel what the first commits did.
    """
    blocks = list(_blocks(rules))
    beside = _filter_beside(blocks)
    if not before or not beside or not _has_related(blocks, before):
        return replacement(rules, before)
    # A replacement that was interrupted may have left its copy.
    rest, left = _without_copies(before)
    first = [InputLine("*mangle"), *beside, InputLine("COMMIT")]
    last = [InputLine("*mangle"), InputLine("COMMIT")]
    copies = {"mangle": _joined(left, first)}
    return _in_one_text(
        (first, *_replacing(rules, rest, filter_first=False), _merged(last, copies))
    )


def _in_one_text(blocks: Iterable[Iterable[InputLine]]) -> tuple[InputLine, ...]:
    return tuple(line for block in blocks for line in block)


def _replacing(rules: str, before: Generation, *, filter_first: bool) -> list[list[InputLine]]:
    there = {table.name: table for table in before}
    blocks = [_merged(block, there) for block in _blocks(rules)]
    named = {block[0].text.removeprefix("*") for block in blocks}
    blocks += [
        _merged([InputLine(f"*{table.name}"), InputLine("COMMIT")], there)
        for table in before
        if table.name not in named
    ]
    blocks.sort(key=lambda block: (block[0].text == "*filter") is not filter_first)
    return blocks


def _has_related(blocks: Iterable[Sequence[InputLine]], before: Generation) -> bool:
    """Whether there is, or is to be, anything besides filters that a filter has to do with."""
    new = {
        (block[0].text.removeprefix("*"), line.text[1:].split()[0])
        for block in blocks
        for line in block
        if line.text.startswith(":")
    }
    old = {(table.name, chain) for table in before for chain in table.chains}
    return not RELATED.isdisjoint(new | old)


def _filter_beside(blocks: Iterable[Sequence[InputLine]]) -> list[InputLine]:
    """The new filter of what arrives and is forwarded, as lines for mangle; or nothing.

    What it does beside deciding is left to the filter itself, and a packet is refused without a
    word, which mangle has no target for.
    """
    block = next((block for block in blocks if block[0].text == "*filter"), ())
    bodies: dict[str, list[InputLine]] = {}
    for line in block:
        if line.text.startswith("-A "):
            bodies.setdefault(line.text.split(" ", 2)[1], []).append(line)
        elif line.text.startswith(":"):
            bodies.setdefault(line.text[1:].split()[0], [])
    wanted = [chain for chain in bodies if chain in FILTERS]
    entries = len(wanted)
    for chain in wanted:
        found = (_target(line.text) for line in bodies[chain])
        wanted += dict.fromkeys(t for t in found if t in bodies and t not in wanted)
    names = {chain: f"{AHEAD}{number}" for number, chain in enumerate(wanted, 1)}
    return [
        *(InputLine(f":{name} - [0:0]") for name in names.values()),
        # Behind all others: what they do to packets, they do before the filter sees them.
        *(InputLine(f"-A {FILTERS[chain]} -j {names[chain]}") for chain in wanted[:entries]),
        *(
            InputLine(copied, line.number)
            for chain in wanted
            for line in bodies[chain]
            if (copied := _copied(line.text, names))
        ),
    ]


def _copied(rule: str, names: Mapping[str, str]) -> str:
    """A rule of filter as one of mangle; or nothing, where it decides nothing."""
    renamed = _CHAIN.sub(lambda found: names.get(found[0], found[0]), rule)
    for found in _END.finditer(renamed):
        match found["target"]:
            case None:
                continue
            case "ACCEPT" | "DROP" | "RETURN":
                return renamed
            case "REJECT":
                return f"{renamed[: found.start()]}-j DROP"
            case target if target.startswith(AHEAD):
                return renamed
            case _:
                return ""
    return ""


def _without_copies(before: Generation) -> tuple[Generation, Table | None]:
    """What is there less the copies of a filter in mangle, and these by themselves."""
    rest: list[Table] = []
    left: Table | None = None
    for table in before:
        copies = tuple(chain for chain in table.chains if chain.startswith(AHEAD))
        if not copies:
            rest.append(table)
            continue
        kept = tuple(chain for chain in table.chains if chain not in copies)
        of_copies = tuple(jump for jump in table.jumps if _target(f"-A {jump.rule}") in copies)
        jumps = tuple(jump for jump in table.jumps if jump not in of_copies)
        left = Table(table.name, copies, (), of_copies, table.held)
        rest.append(Table(table.name, kept, table.rules, jumps, table.held))
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
    all_chains = tuple(dict.fromkeys((*before.chains, *chains)))
    return Table(before.name, all_chains, (), (*before.jumps, *jumps), before.held)


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
