"""Named sets of an nft table: large ones, those that several rules share, those that fill.

What a policy declares as dynamic is called by `dynamic_set_name` in every table, so that its
elements can be found again. What rules keep for themselves (rates, counts, questions) has a dot
in its name, which no name of a policy has: it is never taken for a dynamic set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from policylang.backends.base import Line, comment_text
from policylang.backends.listed import FAMILIES, listed_name
from policylang.backends.nft import spell
from policylang.backends.nft.guards import Table, duration
from policylang.ir.origin import Origin, describe
from policylang.ir.ruleset import DynamicSet, ListedSet, Ruleset
from policylang.packets.fields import ADDRESS_FIELDS, FAMILY_ADDRESSES, PORT_FIELDS, Field
from policylang.packets.values import Ranges

INLINE_VALUES = 6  # more elements than that read better in a set of their own
NAMEABLE = (*ADDRESS_FIELDS, *PORT_FIELDS, Field.SMAC)
HINTS = {"inet_service": "ports", "ether_addr": "macs"}
LINE_ITEMS = 8  # elements on a line of a set that no one reads element by element
LISTED_ITEMS = 512  # up to so many elements each have a line, with their statement

COMMENT_BYTES = 127  # NFTNL_UDATA_COMMENT_MAXLEN less the final NUL

# Entries of a table that rules keep for themselves. For a packet whose address finds no place in
# a full one, rules that open do not hold, and rules that close do.
TABLE_SIZE = 65535


def dynamic_set_name(name: str, family: int) -> str:
    """What the set of that name is called that holds its addresses of a family (4, 6)."""
    return f"{name}-v{family}"


def address_type(family: int) -> str:
    """The type of an address in a set."""
    return f"ipv{family}_addr"


@dataclass(slots=True)
class NamedSet:
    """A set or map as the template lays it out: lines of its body."""

    word: str  # set, map
    name: str
    header: list[str]
    elements: list[Line]
    origins: tuple[Origin, ...] = ()


@dataclass(slots=True)
class Sets:
    """Decides which sets have names, and holds them."""

    wanted: dict[Ranges, str]  # the policy's names
    counts: dict[tuple[str, Ranges], int]  # by type and values
    dynamic: list[NamedSet]
    has_counters: bool
    listed: list[NamedSet] = field(default_factory=list)
    made: dict[tuple[str, Ranges], NamedSet] = field(default_factory=dict)
    lookups: list[NamedSet] = field(default_factory=list)
    kept: dict[str, NamedSet] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, ruleset: Ruleset) -> Sets:
        """Counts how often each set of addresses, ports or MACs is matched."""
        counts: dict[tuple[str, Ranges], int] = {}
        for chain in ruleset.chains:
            for item in chain.items:
                for f, values in item.cube:
                    if f in NAMEABLE and len(values) > 1:
                        for family, part in by_family(f, values):
                            key = _type(f, family), part
                            counts[key] = counts.get(key, 0) + 1
        wanted: dict[Ranges, str] = {}
        for values, name in ruleset.set_names:
            wanted.setdefault(values, name)
            for _, part in by_family(Field.SADDR, values):
                wanted.setdefault(part, name)
        dynamic = [_dynamic(s, family) for s in ruleset.dynamic_sets for family in FAMILIES]
        listed = [
            _listed(test, family)
            for test in ruleset.address_tests
            if isinstance(test, ListedSet)
            for family in FAMILIES
        ]
        taken = {named.name for named in dynamic}
        return cls(wanted, counts, dynamic, ruleset.has_counters, listed, taken=taken)

    def spell(self, f: Field, family: int, values: Ranges) -> str:
        """`{ a, b }` or `@name`, making the named set where it is the first use."""
        pairs = spell.each_value(f, values)
        few = len(pairs) <= INLINE_VALUES
        if f not in NAMEABLE or len(pairs) == 1:
            return spell.braces([spell.value(f, pair) for pair in pairs])
        key = _type(f, family), values
        if few and self.counts.get(key, 0) < 2:
            return spell.braces([spell.value(f, pair) for pair in pairs])
        if key not in self.made:
            hint = self.wanted.get(values) or HINTS.get(key[0], "addresses")
            name = self._free(f"{hint}-v{family}" if f in ADDRESS_FIELDS else hint)
            header = [f"type {key[0]}"]
            if any(low != high for low, high in pairs):
                header.append("flags interval")
            texts = [spell.value(f, pair) for pair in pairs]
            self.made[key] = NamedSet("set", name, header, list(_element_lines(texts)))
        return f"@{self.made[key].name}"

    def lookup(
        self, hint: str, types: list[str], items: list[tuple[str, tuple[Origin, ...]]], flags: bool
    ) -> str:
        """The reference to a lookup's set or map, in place or by name.

        A map whose elements are to be counted has a name: one in place cannot count.
        """
        is_map = types[-1] == "verdict"
        if len(items) <= INLINE_VALUES and not (is_map and self.has_counters):
            return "{ " + ", ".join(text for text, _ in items) + " }"
        keys = " . ".join(types[:-1] if is_map else types)
        header = [f"type {keys} : verdict" if is_map else f"type {keys}"]
        if flags:
            header.append("flags interval")
        if is_map and self.has_counters:
            header.append("counter")
        name = self._free(hint)
        self.lookups.append(
            NamedSet("map" if is_map else "set", name, header, list(_lookup_lines(items)))
        )
        return f"@{name}"

    def table(self, table: Table, hint: str, family: int, origins: tuple[Origin, ...]) -> str:
        """The name of a set that keeps what a rule measures for each address."""
        name = self._free(f"{table.kind}.{hint}-v{family}")
        header = [f"type {address_type(family)}", f"size {TABLE_SIZE}"]
        if table.timeout_s is None:
            header.append("flags dynamic")
        else:
            header += ("flags dynamic,timeout", f"timeout {duration(table.timeout_s)}")
        self.kept[name] = NamedSet("set", name, header, [], origins)
        return name

    def questions(self, family: int) -> str:
        """The name of the set of remembered questions of a family."""
        name = f"questions.v{family}"
        return self._remembered(name, f"{address_type(family)} . inet_service . ifname")

    def askers(self) -> str:
        """The name of the set of ports from which questions came in."""
        return self._remembered("askers.ports", "inet_service")

    def _remembered(self, name: str, kind: str) -> str:
        header = [f"type {kind}", f"size {TABLE_SIZE}", "flags dynamic,timeout"]
        self.kept.setdefault(name, NamedSet("set", name, header, []))
        return name

    def _free(self, hint: str) -> str:
        name, number = hint, 1
        while name in self.taken:
            number += 1
            name = f"{hint}-{number}"
        self.taken.add(name)
        return name

    def all(self) -> list[NamedSet]:
        """Those that the policy fills first, then those that are as they stand."""
        kept = (self.kept[name] for name in sorted(self.kept))
        made = sorted(self.made.values(), key=_name)
        return [*self.dynamic, *kept, *self.listed, *made, *self.lookups]


def _name(named: NamedSet) -> str:
    return named.name


def _type(f: Field, family: int) -> str:
    return address_type(family) if f in ADDRESS_FIELDS else spell.TYPES[f]


def _dynamic(declared: DynamicSet, family: int) -> NamedSet:
    """One of the two sets; each takes time-outs, for elements of rules and of people have them."""
    header = [f"type {address_type(family)}", f"size {declared.size}", "flags dynamic,timeout"]
    if declared.timeout_s is not None:
        header.append(f"timeout {duration(declared.timeout_s)}")
    comment = comment_text(describe(declared.origins), COMMENT_BYTES)
    if comment:
        header.append(f'comment "{comment}"')
    name = dynamic_set_name(declared.name, family)
    return NamedSet("set", name, header, [], declared.origins)


def _listed(listed: ListedSet, family: int) -> NamedSet:
    """One of the two sets; empty, it is there to be filled."""
    header = [f"type {address_type(family)}", "flags interval"]
    comment = comment_text(describe(listed.origins), COMMENT_BYTES)
    if comment:
        header.append(f'comment "{comment}"')
    elements = list(_element_lines(list(listed_elements(listed.addresses, family))))
    return NamedSet("set", listed_name(listed.source, family), header, elements, listed.origins)


def listed_elements(addresses: Ranges, family: int) -> Iterator[str]:
    """The elements of one of the two sets of a list, each as an element of its own."""
    for pair in addresses & FAMILY_ADDRESSES[family]:
        yield spell.value(Field.SADDR, pair)


def by_family(f: Field, values: Ranges) -> Iterator[tuple[int, Ranges]]:
    """The parts of a set of addresses by family; anything else as it is, under family 0."""
    if f not in ADDRESS_FIELDS:
        yield 0, values
        return
    for family, all_of_it in FAMILY_ADDRESSES.items():
        if part := values & all_of_it:
            yield family, part


def _element_lines(texts: list[str]) -> Iterator[Line]:
    for start in range(0, len(texts), LINE_ITEMS):
        yield Line(", ".join(texts[start : start + LINE_ITEMS]) + ",")


def _lookup_lines(items: list[tuple[str, tuple[Origin, ...]]]) -> Iterator[Line]:
    if len(items) <= LISTED_ITEMS:
        for text, origins in items:
            places = dict.fromkeys(o.span.place for o in origins if o.span is not None)
            yield Line(f"{text},  # {', '.join(places)}" if places else f"{text},", origins)
        return
    for start in range(0, len(items), LINE_ITEMS):
        chunk = items[start : start + LINE_ITEMS]
        origins = tuple(origin for _, group in chunk for origin in group)
        yield Line(", ".join(text for text, _ in chunk) + ",", origins)
