"""Tells what is ours in listings of iptables-save and ipset save as values; runs no program.

A set that the policy has a name for is called after it and its content: rules and their
successors each see their own. Here it goes by what stays of its name, so that other elements are
a change of the set and of no rule.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from policylang.apply.generation import COPIES, PENDING, Generation, Jump, Table
from policylang.apply.ipsets import Saved
from policylang.apply.loaded import Chain, Count, KernelSet, Loaded, Rule
from policylang.apply.restore import FAMILIES
from policylang.apply.xtables_switch import is_switch, without_condition
from policylang.backends.iptables.names import PREFIX, lasting_name
from policylang.backends.iptables.places import TABLES

# Quoted texts, in which nothing is a name, and the names of sets: `--match-set`, `--add-set`.
_SET = re.compile(r'"(?:[^"\\]|\\.)*"|(?<=-set )\S+')
_COMMENT = re.compile(r'-m comment --comment (?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>\S+)) ?')
_CHAIN = re.compile(r'"(?:[^"\\]|\\.)*"|(?<=-[Ajg] )\S+')

# What the kernel chooses for itself, or grows.
_OWN_OPTIONS = frozenset({"hashsize", "bucketsize", "initval"})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is ours: the rules of each family, in the order of `FAMILIES`, and the ipsets."""

    rules: tuple[Generation, ...]
    sets: Saved

    @property
    def in_force(self) -> Snapshot:
        """What is not of a pending generation, without the switch between the two."""
        rules = tuple(_of_prefix(generation, PREFIX) for generation in self.rules)
        own = {n: text for n, text in self.sets.items() if n.startswith(PREFIX)}
        return Snapshot(rules, {n: text for n, text in own.items() if not is_switch(n)})

    @property
    def pending(self) -> Snapshot:
        """The pending generation alone, under the names that it has once it is in force."""
        rules = tuple(_as_confirmed(_of_prefix(g, PENDING)) for g in self.rules)
        own = {n: text for n, text in self.sets.items() if n.startswith(PENDING)}
        return Snapshot(rules, {_confirmed(n): _confirmed(text) for n, text in own.items()})

    @property
    def has_pending(self) -> bool:
        """Whether there is anything of a pending generation, or of the switch."""
        return any(name.startswith(PENDING) or is_switch(name) for name in self.sets) or any(
            chain.startswith(PENDING)
            for generation in self.rules
            for table in generation
            for chain in table.chains
        )

    @property
    def rules_there(self) -> bool:
        """Whether a family has any rule or chain."""
        return any(self.rules)

    @property
    def called(self) -> dict[str, str]:
        """The name that stays, of each set that has another; two that would share one keep theirs.

        For the sets of one generation: `in_force`, or `pending`.
        """
        lasting = {name: lasting_name(name) for name in self.sets}
        names = list(lasting.values())
        return {n: stays for n, stays in lasting.items() if n != stays and names.count(stays) == 1}


def _of_prefix(generation: Generation, prefix: str) -> Generation:
    tables = (_table_of_prefix(table, prefix) for table in generation)
    return tuple(table for table in tables if table.chains)


def _table_of_prefix(table: Table, prefix: str) -> Table:
    """Of that prefix alone, less its copies of filters if they come and go with a switch."""
    left_out = COPIES[1:]
    chains = tuple(c for c in table.chains if c.startswith(prefix) and not c.startswith(left_out))
    ours = frozenset(chains)
    counts = table.counts or (None,) * len(table.rules)
    kept = [
        (rule, count)
        for rule, count in zip(table.rules, counts, strict=True)
        if rule.split(" ", 2)[1] in ours
    ]
    jumps = tuple(
        replace(jump, rule=without_condition(jump.rule))
        for jump in table.jumps
        if jump.leads_to in ours
    )
    rules = tuple(rule for rule, _ in kept)
    return Table(
        table.name, chains, rules, jumps, table.held & ours, tuple(count for _, count in kept)
    )


def _as_confirmed(generation: Generation) -> Generation:
    return tuple(
        replace(
            table,
            chains=tuple(map(_confirmed, table.chains)),
            rules=tuple(_rule_confirmed(rule) for rule in table.rules),
            jumps=tuple(replace(j, rule=_rule_confirmed(j.rule)) for j in table.jumps),
        )
        for table in generation
    )


def _confirmed(name: str) -> str:
    return name.replace(PENDING, PREFIX)


def _rule_confirmed(rule: str) -> str:
    def renamed(found: re.Match[str]) -> str:
        word = found[0]
        return PREFIX + word.removeprefix(PENDING) if word.startswith(PENDING) else word

    return _SET.sub(renamed, _CHAIN.sub(renamed, rule))


def with_sets_called(text: str, names: Mapping[str, str]) -> str:
    """Rules with other names for their sets, whatever comments say."""
    return _SET.sub(lambda found: names.get(found[0], found[0]), text) if names else text


def sets_used(rules: Iterable[str]) -> frozenset[str]:
    """The names of sets that stand in rules."""
    found = (word for rule in rules for word in _SET.findall(rule))
    return frozenset(word for word in found if not word.startswith('"'))


# --- as values ------------------------------------------------------------------------------------


def told(snapshot: Snapshot) -> Loaded:
    """A snapshot of one generation (`in_force`, `pending`) as the form that all compare."""
    names = snapshot.called
    chains = tuple(
        chain
        for family, generation in zip(FAMILIES, snapshot.rules, strict=True)
        for table in sorted(generation, key=lambda table: TABLES.index(table.name))
        for chain in _chains(family, table, names)
    )
    sets = [_set(names.get(name, name), listing) for name, listing in snapshot.sets.items()]
    return Loaded(chains, tuple(sorted(sets, key=lambda one: one.place)))


def _chains(family: str, table: Table, names: Mapping[str, str]) -> Iterator[Chain]:
    """Built-in chains by name, then ours by name: the kernel's order says nothing."""
    jumps: dict[str, list[Rule]] = {}
    for jump in table.jumps:
        jumps.setdefault(jump.chain, []).append(rule_told(jump.rule, jump.count, names))
    for chain in sorted(jumps):
        yield Chain(f"{family} {table.name} {chain}", "", tuple(jumps[chain]))
    rules: dict[str, list[Rule]] = {chain: [] for chain in sorted(table.chains)}
    for line, count in zip(table.rules, table.counts or (None,) * len(table.rules), strict=True):
        _, chain, *rest = line.split(" ", 2)
        rules[chain].append(rule_told("".join(rest), count, names))
    for chain, own in rules.items():
        yield Chain(f"{family} {table.name} {chain}", "", tuple(own))


def rule_told(text: str, count: Count | None, names: Mapping[str, str]) -> Rule:
    """A rule, without `-A CHAIN`, apart from its comment, and with the names of sets that stay."""
    comment = ""
    found = _COMMENT.search(text)
    if found is not None:
        comment = re.sub(r"\\(.)", r"\1", found["quoted"]) if found["quoted"] else found["bare"]
        text = text[: found.start()] + text[found.end() :]
    return Rule(with_sets_called(text.strip(), names), comment or "", count)


def head_of(listing: str) -> str:
    """The type and the options of a set that `ipset save` shows, less what the kernel chooses."""
    words = listing.partition("\n")[0].split()[2:]
    kept = words[:1]
    rest = iter(words[1:])
    for word in rest:
        if word in _OWN_OPTIONS:
            next(rest, None)
        else:
            kept.append(word)
    return " ".join(kept)


def is_filled_by_packets(listing: str) -> bool:
    """Whether elements pass by themselves, as those of a dynamic set or a remembered question."""
    return " timeout " in listing.partition("\n")[0]


def elements_of(listing: str) -> frozenset[str]:
    """The elements that `ipset save` shows, each with its own options."""
    lines = (line.split(" ", 2) for line in listing.splitlines()[1:] if line.startswith("add "))
    return frozenset(element for _, _, element in lines)


def _set(name: str, listing: str) -> KernelSet:
    elements = None if is_filled_by_packets(listing) else elements_of(listing)
    return KernelSet(f"ipset {name}", head_of(listing), elements)


# --- what rules counted ---------------------------------------------------------------------------


@dataclass(slots=True)
class _Tally:
    """What the rules of a generation counted: those that are the same, in their order."""

    counts: dict[tuple[str, str, str], list[Count]]

    @classmethod
    def of(cls, generation: Generation, names: Mapping[str, str]) -> _Tally:
        tally = cls({})
        for table in generation:
            for jump in table.jumps:
                tally._note(table.name, jump.chain, jump.rule, jump.count, names)
            for line, count in zip(table.rules, table.counts, strict=False):
                _, chain, *rest = line.split(" ", 2)
                tally._note(table.name, chain, "".join(rest), count, names)
        return tally

    def _note(
        self, table: str, chain: str, rule: str, count: Count | None, names: Mapping[str, str]
    ) -> None:
        if count is not None:
            key = (table, chain, rule_told(rule, None, names).text)
            self.counts.setdefault(key, []).append(count)

    def next(self, table: str, chain: str, rule: str) -> Count | None:
        left = self.counts.get((table, chain, rule))
        return left.pop(0) if left else None


def counts_kept(
    artifact: Generation,
    names: Mapping[str, str],
    before: Sequence[tuple[Generation, Mapping[str, str]]],
) -> Generation:
    """One family of an artifact as it is listed, with what the same rules counted before.

    What several generations counted for a rule is added up. `names` are the names that stay of
    the sets, as those beside each generation in `before`.
    """
    tallies = [_Tally.of(generation, called) for generation, called in before]

    def count(table: str, chain: str, rule: str) -> Count | None:
        key = rule_told(rule, None, names).text
        found = [c for tally in tallies if (c := tally.next(table, chain, key)) is not None]
        return Count(sum(c.packets for c in found), sum(c.bytes for c in found)) if found else None

    def of_line(table: str, line: str) -> Count | None:
        _, chain, *rest = line.split(" ", 2)
        return count(table, chain, "".join(rest))

    return tuple(
        replace(
            table,
            counts=tuple(of_line(table.name, line) for line in table.rules),
            jumps=tuple(
                Jump(j.chain, j.position, j.rule, count(table.name, j.chain, j.rule))
                for j in table.jumps
            ),
        )
        for table in artifact
    )


def names_in(generations: Iterable[Generation], kept: Collection[str] = ()) -> frozenset[str]:
    """The sets that rules of generations use, and `kept`."""
    rules = (rule for generation in generations for table in generation for rule in table.rules)
    return sets_used(rules) | frozenset(kept)
