"""Rules and lookups as nft lines; knows neither hooks nor the layout of the table."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import assert_never

from policylang.backends.base import Line, comment_text
from policylang.backends.nft import spell
from policylang.backends.nft.sets import Sets, by_family
from policylang.ir import actions as ir
from policylang.ir.origin import Origin, describe, joined
from policylang.ir.ruleset import Entry, Item, Lookup, Rule, entry_cube
from policylang.packets.cube import Cube
from policylang.packets.fields import (
    ADDRESS_FIELDS,
    PORT_FIELDS,
    UNIVERSE,
    Field,
)
from policylang.packets.values import Ranges

COMMENT_BYTES = 127  # NFTNL_UDATA_COMMENT_MAXLEN less the final NUL

ANSWERS = {
    ir.Answer.TCP_RESET: "reject with tcp reset",
    ir.Answer.PORT_UNREACHABLE: "reject",
    ir.Answer.HOST_UNREACHABLE: "reject with icmpx type host-unreachable",
    ir.Answer.NET_UNREACHABLE: "reject with icmpx type no-route",
    ir.Answer.ADMIN_PROHIBITED: "reject with icmpx type admin-prohibited",
}


class Spelling:
    """Spells the items of a ruleset; `sets` collects those that get names, `answers` the
    chains that a verdict map needs for verdicts that are statements in nft."""

    def __init__(self, sets: Sets) -> None:
        self.sets = sets
        self.answers: dict[str, str] = {}
        self.helpers: dict[str, tuple[ir.AssignHelper, tuple[Origin, ...]]] = {}

    def lines(self, item: Item, hint: str) -> Iterator[Line]:
        """The lines of an item; `hint` names the sets that it may need."""
        if isinstance(item, Lookup):
            yield from self._lookup(item, hint)
            return
        comment = _comment(item.origins)
        statement = self._statement(item)
        if isinstance(item.action, ir.AssignHelper):
            name = helper_object(item.action)
            earlier = self.helpers.get(name, (item.action, ()))[1]
            self.helpers[name] = (item.action, joined(earlier, item.origins))
        for match in self._matches(item.cube):
            yield Line(" ".join(filter(None, (match, statement, comment))), item.origins)

    # --- matches ----------------------------------------------------------------------------

    def _matches(self, cube: Cube, keys: tuple[Field, ...] = ()) -> Iterator[str]:
        """The conjunctions, one a line, whose union is the cube; `keys` are said elsewhere."""
        if cube.is_empty:
            return
        for part in _by_family(cube, keys):
            alternatives: list[list[str]] = [self._said(part, f) for f in part.fields]
            family = part[Field.FAMILY].single
            if family is not None and not _implies_family(part, keys):
                alternatives.append([f"meta nfproto {spell.FAMILY_WORDS[family]}"])
            if Field.L4PROTO in part and not _implies_protocol(part, keys):
                said = self._values(part, Field.L4PROTO)
                alternatives.append([f"meta l4proto {said}"])
            yield from (_in_order(chosen) for chosen in product(*filter(None, alternatives)))

    def _said(self, cube: Cube, f: Field) -> list[str]:
        """The ways, each a line of its own, in which a term of a cube is said."""
        match f:
            case Field.FAMILY | Field.L4PROTO:
                return []
            case Field.IIF | Field.OIF:
                return spell.names(f, cube[f])
            case Field.CT_HELPER:  # no sets of helper names in nft
                return [f"ct helper {spell.value(f, pair)}" for pair in cube[f]]
            case Field.TCP_FLAGS:
                return [spell.tcp_flags(cube[f])]
            case Field.CT_STATE:
                pairs = spell.each_value(f, cube[f])
                return ["ct state " + ",".join(spell.value(f, pair) for pair in pairs)]
            case _:
                word = spell.selector(f, cube[Field.FAMILY].single or 0, cube[Field.L4PROTO])
                return [f"{word} {self._values(cube, f)}"]

    def _values(self, cube: Cube, f: Field) -> str:
        """The right side of a match, the complement where that is shorter."""
        values, universe = cube[f], UNIVERSE[f]
        family = cube[Field.FAMILY].single or 0
        if f in ADDRESS_FIELDS:
            (_, universe), *_ = (u for u in by_family(f, universe) if u[0] == family)
        others = universe - values
        if others and len(others) < len(values):
            return f"!= {self.sets.spell(f, family, others)}"
        return self.sets.spell(f, family, values)

    # --- what to do -------------------------------------------------------------------------

    def _statement(self, rule: Rule) -> str:
        guards = [f"limit rate {g.count}/{g.unit} burst {g.burst} packets" for g in rule.guards]
        return " ".join((*guards, self._action(rule.action)))

    def _action(self, action: ir.Action) -> str:
        match action:
            case ir.Accept() | ir.Leave():
                return "accept"
            case ir.Drop():
                return "drop"
            case ir.Reject():
                return ANSWERS[action.answer]
            case ir.Jump():
                return f"jump {action.chain}"
            case ir.Log():
                where = f" level {action.level}" if action.level else ""
                if action.group is not None:
                    where = f" group {action.group}"
                return f'log prefix "{action.prefix}"{where}'
            case ir.AssignHelper():
                return f'ct helper set "{helper_object(action)}" accept'
            case _:
                assert_never(action)

    def _verdict(self, action: ir.Action) -> str:
        """An action as a verdict map takes it: what is a statement goes into a chain."""
        if isinstance(action, ir.Reject):
            name = f"reject-{action.answer.value}"
            self.answers[name] = ANSWERS[action.answer]
            return f"goto {name}"
        return self._action(action)

    # --- lookups ----------------------------------------------------------------------------

    def _lookup(self, lookup: Lookup, hint: str) -> Iterator[Line]:
        """A set where all entries say the same, else a verdict map; one for each family."""
        for family, entries in _entries_by_family(lookup):
            cube = lookup.cube
            if family:
                cube = cube & Cube.of({Field.FAMILY: Ranges.of(family)})
            keys = " . ".join(spell.selector(f, family, _protocols(lookup)) for f in lookup.fields)
            types = [
                f"ipv{family}_addr" if f in ADDRESS_FIELDS else spell.TYPES[f]
                for f in lookup.fields
            ]
            items = [(self._key(lookup, e), e.origins) for e in entries]
            same = lookup.action
            if same is None:
                types.append("verdict")
                items = [
                    (f"{text} : {self._verdict(e.action)}", e.origins)
                    for (text, _), e in zip(items, entries, strict=True)
                ]
            ranged = any(low != high for e in entries for low, high in e.key)
            held = self.sets.lookup(hint, types, items, ranged)
            origins = joined(*(e.origins for e in entries))
            said = f"vmap {held}" if same is None else f"{held} {self._action(same)}"
            comment = _comment(origins)
            for match in self._matches(cube, lookup.fields):
                yield Line(" ".join(filter(None, (match, keys, said, comment))), origins)

    def _key(self, lookup: Lookup, entry: Entry) -> str:
        return " . ".join(
            spell.value(f, pair) for f, pair in zip(lookup.fields, entry.key, strict=True)
        )


def helper_object(action: ir.AssignHelper) -> str:
    """The name of the helper object: the kernel's name and the protocol."""
    safe = "".join(c if c.isalnum() else "-" for c in action.helper.lower())
    return f"{safe}-{spell.PORTED_WORDS[action.protocol]}"


def _comment(origins: tuple[Origin, ...]) -> str:
    text = comment_text(describe(origins), COMMENT_BYTES)
    return f'comment "{text}"' if text else ""


def _by_family(cube: Cube, keys: tuple[Field, ...]) -> Iterator[Cube]:
    """The cube, or its two halves where addresses are said family by family."""
    if cube[Field.FAMILY].single is None and any(
        f in cube and f not in keys for f in ADDRESS_FIELDS
    ):
        for family in (4, 6):
            half = cube & Cube.of({Field.FAMILY: Ranges.of(family)})
            if not half.is_empty:
                yield half
    else:
        yield cube


def _implies_family(cube: Cube, keys: tuple[Field, ...]) -> bool:
    said = (*cube.fields, *keys)
    return any(
        f in said for f in (*ADDRESS_FIELDS, Field.ICMP_TYPE, Field.ICMPV6_TYPE, Field.HOP_LIMIT)
    )


def _implies_protocol(cube: Cube, keys: tuple[Field, ...]) -> bool:
    """Whether the selectors of other terms bring the protocol match along."""
    if Field.L4PROTO in keys:
        return True
    said = (*cube.fields, *keys)
    if any(f in said for f in (Field.ICMP_TYPE, Field.ICMPV6_TYPE, Field.TCP_FLAGS)):
        return True
    return any(f in said for f in PORT_FIELDS) and cube[Field.L4PROTO].single is not None


ORDER = ("iifname", "oifname", "ct state", "meta nfproto", "ip", "fib", "meta l4proto")


def _in_order(parts: tuple[str, ...]) -> str:
    """The parts of a match in the order in which people write them."""

    def rank(part: str) -> int:
        return next((i for i, start in enumerate(ORDER) if part.startswith(start)), len(ORDER))

    return " ".join(sorted(parts, key=rank))


def _entries_by_family(lookup: Lookup) -> Iterator[tuple[int, list[Entry]]]:
    if not any(f in ADDRESS_FIELDS for f in lookup.fields):
        yield lookup.cube[Field.FAMILY].single or 0, list(lookup.entries)
        return
    for family in (4, 6):
        cube = Cube.of({Field.FAMILY: Ranges.of(family)})
        entries = [e for e in lookup.entries if entry_cube(lookup, e).meets(cube)]
        if entries:
            yield family, entries


def _protocols(lookup: Lookup) -> Ranges:
    return UNIVERSE[Field.L4PROTO] if Field.L4PROTO in lookup.fields else lookup.cube[Field.L4PROTO]
