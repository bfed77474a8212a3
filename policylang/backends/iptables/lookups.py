"""Plans a lookup: ipsets where a type fits its fields, else groups of rules; writes no text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from policylang.backends.iptables.nodes import Group, Leaf, Node, leaves, within
from policylang.backends.iptables.pairs import split_pairs
from policylang.ir.actions import Action, is_terminal
from policylang.ir.origin import Origin, joined
from policylang.ir.ruleset import Entry, Lookup
from policylang.packets.cube import Cube
from policylang.packets.fields import ADDRESS_FIELDS, PORT_FIELDS, Field
from policylang.packets.values import V6_BASE, Range, Ranges

PLAIN_MOST = 4  # up to so many rules are better than ipsets
PLAIN_GROUPS_MOST = 8  # a field with more values than that does not lead to so few
INLINE_MOST = 2  # up to so many rules repeat the lookup's own condition
BRANCHES = 8  # how many rules in a row a packet reads where values can be halved and halved

T = TypeVar("T")

Fields = tuple[Field, ...]


def plan(lookup: Lookup, family: int) -> tuple[Node, ...]:
    """The nodes of a lookup for one family, in no order that means anything.

    Where an entry does not end the packet's way, no other node holds the same packets.
    """
    fields, entries = _of_family(lookup, family)
    if not all(is_terminal(entry.action) for entry in entries) and len(fields) > 1:
        entries = _disjoint(fields, entries)
    base = _of_transport(lookup.cube)
    nodes = _nodes(base, fields, entries, with_sets=True)
    if base == lookup.cube:
        return nodes
    if len(nodes) <= INLINE_MOST:
        return tuple(within(node, lookup.cube) for node in nodes)
    return (Group(lookup.cube, nodes, _origins(entries)),)


def _of_transport(cube: Cube) -> Cube:
    """What every line must say again: a port or a type needs its protocol."""
    return cube.without(*(f for f in cube.fields if f not in (Field.L4PROTO, Field.FAMILY)))


def _of_family(lookup: Lookup, family: int) -> tuple[Fields, Sequence[Entry]]:
    """The entries that packets of a family can meet, within what the cube says of their fields."""
    entries: Iterable[Entry] = lookup.entries
    fields = lookup.fields
    for position, field in enumerate(fields):
        if field is Field.FAMILY:
            entries = [e for e in entries if e.key[position][0] <= family <= e.key[position][1]]
        elif field in ADDRESS_FIELDS:
            entries = [e for e in entries if (e.key[position][0] >= V6_BASE) == (family == 6)]
        if field in lookup.cube:
            entries = _narrowed(entries, position, lookup.cube[field])
    if Field.FAMILY in fields:
        position = fields.index(Field.FAMILY)
        fields = _less(fields, position)
        entries = [replace(e, key=_less(e.key, position)) for e in entries]
    return fields, sorted(entries, key=lambda entry: entry.key)


def _narrowed(entries: Iterable[Entry], position: int, values: Ranges) -> list[Entry]:
    return [
        replace(entry, key=(*entry.key[:position], pair, *entry.key[position + 1 :]))
        for entry in entries
        for pair in Ranges((entry.key[position],)) & values
    ]


def _less(items: tuple[T, ...], position: int) -> tuple[T, ...]:
    return (*items[:position], *items[position + 1 :])


def _disjoint(fields: Fields, entries: Sequence[Entry]) -> list[Entry]:
    """The same packets and actions in entries of which no two hold the same packet."""
    kept: list[Entry] = []
    for same in _grouped_by_action(entries).values():
        done: list[Entry] = []
        for entry in same:
            boxes = [entry.key]
            for other in done:
                boxes = [piece for box in boxes for piece in _box_less(box, other.key)]
            done += (replace(entry, key=box) for box in boxes)
        kept += done
    return sorted(kept, key=lambda entry: entry.key)


def _box_less(box: tuple[Range, ...], taken: tuple[Range, ...]) -> list[tuple[Range, ...]]:
    """What is left of a box, in boxes, when another is taken out of it."""
    if any(a[1] < b[0] or b[1] < a[0] for a, b in zip(box, taken, strict=True)):
        return [box]
    pieces: list[tuple[Range, ...]] = []
    rest = list(box)
    for position, (low, high) in enumerate(box):
        start, end = taken[position]
        for outside in ((low, start - 1), (end + 1, high)):
            if outside[0] <= outside[1]:
                pieces.append((*rest[:position], outside, *rest[position + 1 :]))
        rest[position] = (max(low, start), min(high, end))
    return pieces


# --- nodes -------------------------------------------------------------------------------------


def _nodes(
    base: Cube, fields: Fields, entries: Sequence[Entry], *, with_sets: bool
) -> tuple[Node, ...]:
    if not entries:
        return ()
    if len(fields) <= 1:
        return _by_action(base, fields, entries)
    if not with_sets:
        return _grouped(base, fields, entries, with_sets=False)
    if _fewest(fields, entries) <= PLAIN_GROUPS_MOST:
        plain = _nodes(base, fields, entries, with_sets=False)
        if sum(1 for _ in leaves(plain)) <= PLAIN_MOST:
            return plain
    held = split_pairs(base, fields, entries)
    if held is None:
        return _grouped(base, fields, entries, with_sets=True)
    in_sets, rest = held
    return (*in_sets, *_nodes(base, fields, rest, with_sets=False))


def _fewest(fields: Fields, entries: Sequence[Entry]) -> int:
    """The fewest different values that a field has, the protocol left out."""
    others = [i for i, field in enumerate(fields) if field is not Field.L4PROTO]
    return min(len({entry.key[i] for entry in entries}) for i in others)


def _by_action(base: Cube, fields: Fields, entries: Sequence[Entry]) -> tuple[Node, ...]:
    """One rule an action, for entries of one field or none."""
    found: list[Node] = []
    for action, same in _grouped_by_action(entries).items():
        cube = base
        if fields:
            (field,) = fields
            cube = base & Cube.of({field: Ranges.merged(entry.key[0] for entry in same)})
        if not cube.is_empty:
            found.append(Leaf(cube, action, (), _origins(same)))
    return tuple(found)


def _grouped_by_action(entries: Iterable[Entry]) -> dict[Action, list[Entry]]:
    groups: dict[Action, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.action, []).append(entry)
    return groups


def _grouped(
    base: Cube, fields: Fields, entries: Sequence[Entry], *, with_sets: bool
) -> tuple[Node, ...]:
    """A node for each value of a field, or each set of values that lead to the same entries."""
    position = _first_to_ask(fields, entries)
    field, rest = fields[position], _less(fields, position)
    by_value: dict[Range, list[Entry]] = {}
    for entry in entries:
        inner = replace(entry, key=_less(entry.key, position))
        by_value.setdefault(entry.key[position], []).append(inner)
    alike: dict[tuple[tuple[object, Action], ...], list[Range]] = {}
    for value, inside in by_value.items():
        alike.setdefault(tuple((e.key, e.action) for e in inside), []).append(value)
    found: list[tuple[Ranges, Node]] = []
    for values in alike.values():
        inside = by_value[values[0]]
        condition = base & Cube.of({field: Ranges.merged(values)})
        if condition.is_empty:
            continue
        inner_base = _of_transport(condition)
        nodes = _nodes(inner_base, rest, inside, with_sets=with_sets)
        origins = joined(*(e.origins for value in values for e in by_value[value]))
        if len(nodes) == 1:
            found.append((Ranges.merged(values), within(nodes[0], condition)))
        elif nodes:
            found.append((Ranges.merged(values), Group(condition, nodes, origins)))
    if field not in (*ADDRESS_FIELDS, *PORT_FIELDS):
        return tuple(node for _, node in found)
    return _tree(base, field, sorted(found, key=lambda pair: pair[0].pairs))


def _first_to_ask(fields: Fields, entries: Sequence[Entry]) -> int:
    """The field to tell packets apart by first: no port and no address where there is another."""
    others = [i for i, f in enumerate(fields) if f not in (*ADDRESS_FIELDS, *PORT_FIELDS)]
    choice = others or range(len(fields))
    return min(choice, key=lambda i: (len({entry.key[i] for entry in entries}), i))


def _tree(base: Cube, field: Field, found: Sequence[tuple[Ranges, Node]]) -> tuple[Node, ...]:
    """The nodes in groups of groups, by the ranges that hold their values.

    The ranges may hold more than the values do, and one another: each node still asks for its
    own values, and what no node of a group takes goes on to the next.
    """
    if len(found) <= 2 * BRANCHES:
        return tuple(node for _, node in found)
    size = -(-len(found) // BRANCHES)
    groups: list[Node] = []
    for start in range(0, len(found), size):
        some = found[start : start + size]
        low = min(values.pairs[0][0] for values, _ in some)
        high = max(values.pairs[-1][1] for values, _ in some)
        condition = base & Cube.of({field: Ranges.between(low, high)})
        origins = joined(*(node.origins for _, node in some))
        groups.append(Group(condition, _tree(base, field, some), origins))
    return tuple(groups)


def _origins(entries: Iterable[Entry]) -> tuple[Origin, ...]:
    return joined(*(entry.origins for entry in entries))
