"""Named sets of an nft table: large ones, and those that several rules share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from policylang.backends.base import Line
from policylang.backends.nft import spell
from policylang.ir.origin import Origin
from policylang.ir.ruleset import Ruleset
from policylang.packets.fields import ADDRESS_FIELDS, FAMILY_ADDRESSES, PORT_FIELDS, Field
from policylang.packets.values import Ranges

INLINE_VALUES = 6  # more elements than that read better in a set of their own
NAMEABLE = (*ADDRESS_FIELDS, *PORT_FIELDS)
LINE_ITEMS = 8  # elements on a line of a set that no one reads element by element
LISTED_ITEMS = 512  # up to so many elements each have a line, with their statement


@dataclass(slots=True)
class NamedSet:
    """A set or map as the template lays it out: lines of its body."""

    word: str  # set, map
    name: str
    header: list[str]
    elements: list[Line]


@dataclass(slots=True)
class Sets:
    """Decides which sets have names, and holds them."""

    wanted: dict[Ranges, str]  # the policy's names
    counts: dict[tuple[int, Ranges], int]
    made: dict[tuple[int, Ranges], NamedSet] = field(default_factory=dict)
    lookups: list[NamedSet] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, ruleset: Ruleset) -> Sets:
        """Counts how often each set of addresses or ports is matched."""
        counts: dict[tuple[int, Ranges], int] = {}
        for chain in ruleset.chains:
            for item in chain.items:
                for f, values in item.cube:
                    if f in NAMEABLE and len(values) > 1:
                        for family, part in by_family(f, values):
                            counts[family, part] = counts.get((family, part), 0) + 1
        wanted: dict[Ranges, str] = {}
        for values, name in ruleset.set_names:
            wanted.setdefault(values, name)
            for _, part in by_family(Field.SADDR, values):
                wanted.setdefault(part, name)
        return cls(wanted, counts)

    def spell(self, f: Field, family: int, values: Ranges) -> str:
        """`{ a, b }` or `@name`, making the named set where it is the first use."""
        pairs = spell.each_value(f, values)
        key = (family if f in ADDRESS_FIELDS else 0, values)
        few = len(pairs) <= INLINE_VALUES
        if f not in NAMEABLE or len(pairs) == 1 or (few and self.counts.get(key, 0) < 2):
            return spell.braces([spell.value(f, pair) for pair in pairs])
        if key not in self.made:
            kind = {0: "inet_service", 4: "ipv4_addr", 6: "ipv6_addr"}[key[0]]
            hint = self.wanted.get(values) or ("ports" if key[0] == 0 else "addresses")
            name = self._free(hint if key[0] == 0 else f"{hint}-v{family}")
            header = [f"type {kind}"]
            if any(low != high for low, high in pairs):
                header.append("flags interval")
            texts = [spell.value(f, pair) for pair in pairs]
            self.made[key] = NamedSet("set", name, header, list(_element_lines(texts)))
        return f"@{self.made[key].name}"

    def lookup(
        self, hint: str, types: list[str], items: list[tuple[str, tuple[Origin, ...]]], flags: bool
    ) -> str:
        """The reference to a lookup's set or map, in place or by name."""
        if len(items) <= INLINE_VALUES:
            return "{ " + ", ".join(text for text, _ in items) + " }"
        is_map = types[-1] == "verdict"
        keys = " . ".join(types[:-1] if is_map else types)
        header = [f"type {keys} : verdict" if is_map else f"type {keys}"]
        if flags:
            header.append("flags interval")
        name = self._free(hint)
        self.lookups.append(
            NamedSet("map" if is_map else "set", name, header, list(_lookup_lines(items)))
        )
        return f"@{name}"

    def _free(self, hint: str) -> str:
        name, number = hint, 1
        while name in self.taken:
            number += 1
            name = f"{hint}-{number}"
        self.taken.add(name)
        return name

    def all(self) -> list[NamedSet]:
        return [*sorted(self.made.values(), key=lambda s: s.name), *self.lookups]


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
