"""Puts the rules of both families together: base chains at their hooks, and lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from policylang.analysis.machine import (
    ALL,
    Act,
    Base,
    Condition,
    Goto,
    Hook,
    Line,
    Machine,
    MarkIs,
    Obscure,
    Return,
    Unknown,
)
from policylang.analysis.reading_iptables.asking import NotUnderstoodError
from policylang.analysis.reading_iptables.ipsets import read_sets
from policylang.analysis.reading_iptables.matches import RAW, Matches
from policylang.analysis.reading_iptables.members import Sets
from policylang.analysis.reading_iptables.options import Match, MisreadError, Rule, read_rule
from policylang.analysis.reading_iptables.owners import Owners
from policylang.analysis.reading_iptables.restoring import Table, Written, read_tables
from policylang.analysis.reading_iptables.targets import Place, Turn, acts, obscure
from policylang.analysis.reading_iptables.translations import OF_DESTINATIONS, TARGETS, translation
from policylang.analysis.reading_iptables.turns import Read, together
from policylang.analysis.unreadable import UnreadableError, without_circles
from policylang.ir.actions import Jump, SetMark

PROGRAMS = {4: "iptables", 6: "ip6tables"}

# linux/netfilter_ipv4.h, linux/netfilter_ipv6.h: where the tables' chains are registered.
PRIORITIES = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
DSTNAT, SRCNAT = -100, 100
BUILT_IN: Mapping[str, Sequence[str]] = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}
HOOK_ORDER = list(Hook)


def read_iptables(
    v4: str,
    v6: str,
    ipsets: str = "",
    *,
    is_open: Callable[[str], bool] = lambda name: False,
    owners: Owners | None = None,
) -> Machine:
    """The rules of texts as iptables-save, ip6tables-save and `ipset save` write them.

    Files for iptables-restore are read as well, policylang's own among them: a built-in chain that
    they do not declare has the policy ACCEPT. A family may be empty.

    The elements of an ipset become fields, unless the set changes under the rules: then it is a
    question, `InSet` with the set's name in the kernel. It changes if its `create` line has a
    `timeout` (as all sets that policylang's rules fill), if a rule's target adds to it or deletes
    from it, or if `is_open` says so of its name. `owners` are the numbers of users and groups, for
    texts that have names yet: what is not in it is unknown.

    Raises UnreadableError for texts that are something else, or cut off.
    """
    sets_there = read_sets(ipsets)
    bases: list[Base] = []
    chains: dict[str, tuple[Line, ...]] = {}
    tables = [
        (family, table, _rules(table, family))
        for family, text in ((4, v4), (6, v6))
        for table in read_tables(text).values()
    ]
    asked = {
        family: frozenset(
            match.name
            for of, _, rules in tables
            if of == family
            for lines in rules.values()
            for rule, _ in lines
            for match in rule.matches
        )
        for family in PROGRAMS
    }
    sets = Sets(sets_there, is_open, _filled(rules for _, _, rules in tables))
    for family, table, rules in tables:
        if table.name not in BUILT_IN:
            raise UnreadableError(f"no table is called `{table.name}`", table.line)
        reader = _TableReader(family, table, rules, sets, owners or {}, asked[family])
        bases += reader.bases()
        chains |= reader.chains()
    bases.sort(key=lambda base: (HOOK_ORDER.index(base.hook), base.priority))
    return without_circles(Machine(tuple(bases), chains))


Rules = Mapping[str, Sequence[tuple[Rule, Written]]]


def _rules(table: Table, family: int) -> Rules:
    return {
        name: [
            (rule, written)
            for written in chain.rules
            for rule in _alternatives(written)
            if rule.family in (None, family)
        ]
        for name, chain in table.chains.items()
    }


def _alternatives(written: Written) -> Iterator[Rule]:
    """The rules that one line stands for: several where it lists addresses with commas."""
    try:
        rule = read_rule(written.words)
    except MisreadError as reason:
        raise UnreadableError(f"no rule: {reason}", written.line) from None
    yield from _apart(rule)


def _apart(rule: Rule) -> Iterator[Rule]:
    for place, match in enumerate(rule.matches):
        for at, option in enumerate(match.options):
            if match.name or option.name not in ("source", "destination"):
                continue
            if "," in option.words[0]:
                for word in option.words[0].split(","):
                    one = type(option)(option.name, (word,), option.negated)
                    options = (*match.options[:at], one, *match.options[at + 1 :])
                    matches = list(rule.matches)
                    matches[place] = Match("", options)
                    yield from _apart(replace(rule, matches=tuple(matches)))
                return
    yield rule


def _filled(tables: Iterable[Rules]) -> frozenset[str]:
    """The ipsets that a target changes."""
    return frozenset(
        option.words[0]
        for rules in tables
        for lines in rules.values()
        for rule, _ in lines
        if rule.target == "SET"
        for option in rule.done.options
        if option.name in ("add-set", "del-set")
    )


# Each rule's own: what one of them finds is not what another of the same words does.
OF_ITS_OWN = {"statistic", "quota", "recent"}


def _asked_at(condition: Condition, rule: Rule, place: str) -> Condition:
    """The condition, of a match that counts for itself asked at its place alone."""
    match condition.question:
        case Unknown(text) if any(m.name in OF_ITS_OWN and m.text == text for m in rule.matches):
            return replace(condition, question=Unknown(f"{text} ({place})"))
    return condition


@dataclass(slots=True)
class _TableReader:
    """Makes the base chains and lines of one table of one family.

    A chain that asks for interfaces is a chain for each hook from which packets come to it
    (`_apart`): the kernel compares an empty name where a hook knows of no interface.
    """

    family: int
    table: Table
    rules: Rules
    sets: Sets
    owners: Owners
    asked: frozenset[str]  # the matches of all rules of the family
    _by_hooks: dict[frozenset[Hook], Matches] = field(default_factory=dict)
    _apart: frozenset[str] = frozenset()
    _made: dict[str, tuple[Line, ...]] = field(default_factory=dict)

    def name(self, chain: str, hook: Hook | None = None) -> str:
        """What the chain is called in the machine."""
        ending = f" ({hook.name})" if hook is not None and chain in self._apart else ""
        return f"{PROGRAMS[self.family]} {self.table.name} {chain}{ending}"

    def bases(self) -> Iterator[Base]:
        for name in self._built_in():
            hook = Hook[name]
            is_nat = self.table.name == "nat"
            if is_nat:
                priority = DSTNAT if hook in OF_DESTINATIONS else SRCNAT
            else:
                priority = PRIORITIES[self.table.name]
            yield Base(
                hook,
                priority,
                self.name(name),
                (self.family,),
                drops=self.table.chains[name].policy == "DROP",
                is_nat=is_nat,
                # ipt_mangle_out of iptable_mangle.c, and chains of the type route
                reroutes=(self.table.name, hook) == ("mangle", Hook.OUTPUT),
                place=self.name(name),
            )

    def _built_in(self) -> list[str]:
        return [name for name in BUILT_IN[self.table.name] if name in self.rules]

    def chains(self) -> dict[str, tuple[Line, ...]]:
        hooks = self._hooks()
        self._apart = frozenset(
            name
            for name, those in hooks.items()
            if len(those) > 1 and self._asks_for_hook(name, set())
        )
        found: dict[str, list[Read]] = {}
        for chain, those in hooks.items():
            if chain not in self._apart:
                found[self.name(chain)] = [*self._reads(chain, those)]
                continue
            for hook in sorted(those, key=HOOK_ORDER.index):
                found[self.name(chain, hook)] = [*self._reads(chain, frozenset({hook}))]
        return together(found, self.family) | self._made

    def _hooks(self) -> dict[str, frozenset[Hook]]:
        """From which hooks packets come to each chain."""
        found: dict[str, set[Hook]] = {name: set() for name in self.rules}
        for name in self._built_in():
            waiting = [name]
            while waiting:
                chain = waiting.pop()
                if Hook[name] not in found[chain]:
                    found[chain].add(Hook[name])
                    waiting += (r.target for r, _ in self.rules[chain] if r.target in found)
        return {name: frozenset(hooks) for name, hooks in found.items()}

    def _asks_for_hook(self, chain: str, seen: set[str]) -> bool:
        """Whether what a chain does depends on the hook, or what it leads to does."""
        if chain in seen:
            return False
        seen.add(chain)
        return any(
            rule.asks_for_interface
            or rule.target == "NETMAP"
            or (rule.target in self.rules and self._asks_for_hook(rule.target, seen))
            for rule, _ in self.rules[chain]
        )

    def _reads(self, chain: str, hooks: frozenset[Hook]) -> Iterator[Read]:
        if hooks not in self._by_hooks:
            made = Matches(self.family, self.table.name, self.sets, hooks, self.owners)
            self._by_hooks[hooks] = made
        matches = self._by_hooks[hooks]
        for number, (rule, written) in enumerate(self.rules[chain], 1):
            for line in self._lines(rule, written, matches, f"{chain} {number}"):
                yield Read(rule, line)

    def _lines(self, rule: Rule, written: Written, matches: Matches, where: str) -> Iterator[Line]:
        place = f"{PROGRAMS[self.family]} {self.table.name} {where}"
        said = f"{place}: {rule.comment}" if rule.comment else place
        if not rule.target:
            # Which does nothing, unless a match of it does.
            for match in rule.matches:
                if match.name == "recent":
                    yield Line(ALL, Obscure(match.text, may_decide=False), (), said)
            return
        asked, protocols = matches.asked(rule)
        cubes = asked.cubes
        if not cubes:
            return
        conditions = tuple(_asked_at(c, rule, place) for c in asked.conditions)
        at = Place(self.family, protocols, self.asked)
        for act in self._acts(rule, written, at, matches.hooks):
            if isinstance(act, Turn):
                for bit in (1 << n for n in range(32) if act.bits >> n & 1):
                    yield Line(cubes, Jump(self._turning(bit)), conditions, said)
            else:
                yield Line(cubes, act, conditions, said)

    def _turning(self, bit: int) -> str:
        """A chain that turns a bit of the mark round."""
        name = f"{PROGRAMS[self.family]} {self.table.name} turn {bit:#x}"
        clears = f"{name} off"
        is_set = Condition(MarkIs(bit, bit))
        self._made[name] = (Line(ALL, Goto(clears), (is_set,)), Line(ALL, SetMark(bit, bit)))
        self._made[clears] = (Line(ALL, SetMark(0, bit)),)
        return name

    def _acts(
        self, rule: Rule, written: Written, place: Place, hooks: frozenset[Hook]
    ) -> tuple[Act | Turn, ...]:
        name = rule.target
        if name in self.rules:
            if rule.done.options:
                raise UnreadableError(f"no option of a jump: `{rule.done.text}`", written.line)
            (hook, *others) = hooks or (None,)
            chain = self.name(name, None if others else hook)
            return (Goto(chain) if rule.goes else Jump(chain),)
        if rule.goes:
            raise UnreadableError(f"no chain is called `{name}`", written.line)
        if name == "RETURN":
            return (Return(),)
        if name == "CONNMARK" and self.table.name == RAW:
            # of no packet that conntrack has yet to see
            return (obscure(name, rule.done, frozenset()),)
        if not rule.is_done_known:
            return (obscure(name, rule.done, place.asked),)
        if name in TARGETS:
            try:
                return (translation(name, rule.done, place.family, hooks),)
            except NotUnderstoodError:
                return (obscure(name, rule.done, place.asked),)
        return acts(name, rule.done, place, self.sets)
