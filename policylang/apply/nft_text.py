"""The script that takes the place of what is ours in a listing of nft, and its dynamic sets.

It runs no program, and of a script it knows no more than where our table is deleted and which
dynamic sets it declares.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from policylang.apply.livesets import Element, LiveSet, LiveSets, fitting, lacking
from policylang.backends.nft import TABLE
from policylang.backends.nft.sets import address_type, dynamic_set_name
from policylang.packets.values import format_address, parse_one_address

DELETE_TABLE = f"delete table {TABLE}"

# nft prints what stands in a table with one tab, and all that is within with more.
_THING = re.compile(r"^\t([a-z]+(?: [a-z]+)?) (\S+) \{$", re.MULTILINE)

_SET = re.compile(r"^[ \t]*set (\S+)-v([46]) \{\n(.*?)^[ \t]*\}$", re.MULTILINE | re.DOTALL)
_HEADER = re.compile(r"^[ \t]*(type|size|flags|timeout) (.+)$", re.MULTILINE)
_ELEMENTS = re.compile(r"^[ \t]*elements = \{(.*)\}", re.MULTILINE | re.DOTALL)
_TIME = re.compile(r"([0-9]+)(ms|[dhms])")
_UNIT_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}

NOTICED_MS = 1000  # times of two listings differ a little anyway

# What refers to others is deleted before what it refers to.
_DELETED_FIRST = ("map", "set", "flowtable", "chain")


@dataclass(frozen=True, slots=True)
class Replacement:
    """What to load in an artifact's place; its lines have the artifact's numbers, from 1.

    `added` are the numbers of lines that stand for nothing in the artifact.
    """

    text: str
    added: frozenset[int]


def dynamic_sets(text: str) -> tuple[LiveSet, ...]:
    """The dynamic sets that a script declares or a listing shows, in order.

    They fill with single addresses and take time-outs. What rules keep for themselves does that
    too, under names with a dot, which no name of a policy has.
    """
    return tuple(_dynamic_sets(text))


def _dynamic_sets(text: str) -> Iterator[LiveSet]:
    for name, family, body in _SET.findall(text):
        head, _, _ = body.partition("elements = {")
        header = dict(_HEADER.findall(head))
        flags = {flag.strip() for flag in header.get("flags", "").split(",")}
        is_ours = flags == {"dynamic", "timeout"} and "." not in name
        if is_ours and header.get("type") == address_type(int(family)):
            timeout_s = milliseconds(header["timeout"]) // 1000 if "timeout" in header else None
            size = int(header.get("size", "0").split()[0])  # nft 1.1.4 says how full it is
            yield LiveSet(name, int(family), timeout_s, size, tuple(_elements(body)))


def _elements(body: str) -> Iterator[Element]:
    found = _ELEMENTS.search(body)
    if found is None:
        return
    for text in re.sub(r'"[^"]*"', "", found[1]).split(","):  # a comment may hold anything
        words = text.split()
        address = parse_one_address(words[0]) if words else None
        if address is not None:
            left = words[words.index("expires") + 1] if "expires" in words else None
            yield Element(address, None if left is None else milliseconds(left))


def milliseconds(text: str) -> int:
    """How long `1d2h3m4s5ms` is."""
    return sum(int(count) * _UNIT_MS[unit] for count, unit in _TIME.findall(text))


def replacement(
    script: str, listing: str, carried: LiveSets, more: Sequence[str] = (), before: str = ""
) -> Replacement:
    """The script that loads `script` in the place of what `listing` shows.

    Dynamic sets that are declared as they are there stay untouched: all else of ours goes by
    name, instead of the table with all that is in it. A set with another time-out or size is
    made anew with its elements. Elements of `carried` come to those that are there. `listing` is
    empty where our table is not there. `more` are commands that follow the script, `before` is
    one that comes before our table is deleted.
    """
    old = {(live.name, live.family): live for live in dynamic_sets(listing)}
    kept: list[LiveSet] = []
    filled: list[str] = []
    for new in dynamic_sets(script):
        other = carried.get(new.identity)
        there = old.get((new.name, new.family), new)
        if there is not new and there.is_declared_like(new):
            kept.append(there)
            added = lacking(there, other)
        else:
            own = fitting(there.elements, new.size)
            there = LiveSet(new.name, new.family, new.timeout_s, new.size, own)
            added = (*own, *lacking(there, other))
        if added:
            filled.append(adding(new, added))
    removal = _removal(listing, kept) if kept else DELETE_TABLE
    return amended(script, f"{before}; {removal}" if before else removal, (*filled, *more))


def amended(script: str, removal: str, more: Sequence[str]) -> Replacement:
    """A script with other commands in the place of `delete table`, and more commands behind it."""
    lines = script.split("\n")
    assert not lines[-1], "a script ends in a newline"
    added = set(range(len(lines), len(lines) + len(more)))
    place = lines.index(DELETE_TABLE)
    if removal != DELETE_TABLE:
        lines[place] = removal
        added.add(place + 1)
    lines[-1:] = [*more, ""]
    return Replacement("\n".join(lines), frozenset(added))


def _removal(listing: str, kept: Iterable[LiveSet]) -> str:
    """Commands, on one line, that remove all that is ours but for some sets."""
    spared = {("set", dynamic_set_name(live.name, live.family)) for live in kept}
    things: list[tuple[str, str]] = [
        (kind, name) for kind, name in _THING.findall(listing) if (kind, name) not in spared
    ]
    order = {kind: place for place, kind in enumerate(_DELETED_FIRST)}
    things.sort(key=lambda thing: order.get(thing[0], len(order)))
    deleted = (f"delete {kind} {TABLE} {name}" for kind, name in things)
    return "; ".join((f"flush table {TABLE}", *deleted))


def following(sets: Iterable[LiveSet], wanted: LiveSets, table: str = TABLE) -> tuple[str, ...]:
    """The commands that put the elements of `wanted` into sets that lack them and have room."""
    return tuple(
        adding(live, more, table)
        for live in sets
        if (more := lacking(live, wanted.get(live.identity)))
    )


def adding(live: LiveSet, elements: Sequence[Element], table: str = TABLE) -> str:
    """The command that puts elements, at least one, into a set."""
    texts = (
        format_address(element.address)
        + ("" if element.left_ms is None else f" timeout {max(1, element.left_ms)}ms")
        for element in elements
    )
    return f"add element {_place(live, table)} {{ {', '.join(texts)} }}"


def deleting(live: LiveSet, addresses: Iterable[int], table: str = TABLE) -> str:
    """The command that takes elements out of a set; they must be there."""
    texts = ", ".join(map(format_address, addresses))
    return f"delete element {_place(live, table)} {{ {texts} }}"


def flushing(live: LiveSet, table: str = TABLE) -> str:
    """The command that empties a set."""
    return f"flush set {_place(live, table)}"


def renewing(
    live: LiveSet, elements: Sequence[Element], table: str = TABLE
) -> tuple[str, str, str]:
    """The commands that let elements, at least one, stay as long as they say from now on.

    A kernel before 6.12 does not renew an element that is there, and one that is not there
    cannot be deleted.
    """
    added = adding(live, elements, table)
    return added, deleting(live, [element.address for element in elements], table), added


def longer(sets: Iterable[LiveSet], there: Iterable[LiveSet], others: LiveSets) -> Iterator[str]:
    """Commands for elements of `sets` that `others` know to stay for longer than `there` does.

    They are for sets that have the elements of `there`: as many as they have room for.
    """
    rooms = {(one.name, one.family): one.size for one in sets}
    for live in there:
        if len(live.elements) > rooms.get((live.name, live.family), 0):
            continue
        other = others.get(live.identity)
        known = {element.address: element for element in live.elements}
        renewed = [
            element
            for element in (other.elements if other else ())
            if element.address in known and _stays_longer(element, known[element.address])
        ]
        if renewed:
            yield from renewing(live, renewed)


def _stays_longer(one: Element, other: Element) -> bool:
    if one.left_ms is None or other.left_ms is None:
        return one.left_ms is None and other.left_ms is not None
    return one.left_ms > other.left_ms + NOTICED_MS


def _place(live: LiveSet, table: str) -> str:
    return f"{table} {dynamic_set_name(live.name, live.family)}"
