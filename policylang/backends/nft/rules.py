"""Rules and lookups as nft lines; knows neither hooks nor the layout of the table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

from policylang.backends.base import Line, comment_text
from policylang.backends.listed import listed_name
from policylang.backends.nft import guards, spell
from policylang.backends.nft.parts import IMPLY_FAMILY, parts
from policylang.backends.nft.sets import (
    COMMENT_BYTES,
    Sets,
    address_type,
    by_family,
    dynamic_set_name,
)
from policylang.backends.nft.statements import Statements
from policylang.backends.nft.variants import variants
from policylang.backends.turns import Turns, protocols_in_turn, takes_turns, turns_of
from policylang.ir import actions as ir
from policylang.ir.origin import Origin, describe, joined
from policylang.ir.ruleset import (
    AddressTest,
    DynamicSet,
    Entry,
    HostSuffix,
    Item,
    ListedSet,
    Lookup,
    Rule,
    Ruleset,
)
from policylang.packets.cube import Cube
from policylang.packets.fields import (
    ADDRESS_FIELDS,
    ICMP,
    ICMPV6,
    UNIVERSE,
    Field,
    State,
)
from policylang.packets.values import V6_BASE, Ranges, format_address

# States of packets that belong to no connection.
WITHOUT_CONNECTION = Ranges.of(State.INVALID, State.UNTRACKED)

# As nft 1.0.6 lists it, it loses a family that `meta nfproto` says (netlink_delinearize.c takes
# the answer for one that implies it): what is listed then is wider than what is loaded.
RESET = ir.Reject(ir.Answer.TCP_RESET)
OWN_ICMP = {4: ICMP, 6: ICMPV6}


class Spelling:
    """Spells the items of a ruleset.

    `sets` collects those that get names, `asked` the chains in which something is asked once;
    `taking_turns` are the jumps to those of them in which targets are taken in turn.
    """

    def __init__(self, sets: Sets, ruleset: Ruleset) -> None:
        self.sets = sets
        self.statements = Statements(sets, ruleset)
        self.tests = ruleset.address_tests
        self.asked: dict[str, list[Line]] = {}
        self.turns = protocols_in_turn(ruleset)
        self.is_behind_routing = False
        self.taking_turns: dict[Turns, str] = {}

    def lines(self, item: Item, hint: str, is_behind_routing: bool = False) -> Iterator[Line]:
        """The lines of an item; `hint` names the sets and chains that it may need.

        With `is_behind_routing` this host's own packets meet them too, which came by no interface.

        Raises InexpressibleError.
        """
        self.is_behind_routing = is_behind_routing
        if isinstance(item, Lookup):
            yield from self._lookup(item, hint)
        elif isinstance(item.action, ir.Native):
            if item.action.target == "nft":
                family = item.action.family
                only = "" if family is None else f"meta nfproto ipv{family} "
                yield Line(only + item.action.text, item.origins)
        else:
            yield from self._rule(item, hint)

    def _rule(self, rule: Rule, hint: str) -> Iterator[Line]:
        if isinstance(rule.action, ir.AssignHelper):
            self.statements.object_of(rule.action, rule.origins)
        if isinstance(rule.action, ir.Offload):
            self.statements.offloaded_between(rule.action, rule.origins)
        conditions, measures = guards.told_apart(rule.guards)
        for family, cube, action in variants(rule.cube, rule.action, bool(measures)):
            matches = list(self._matches(cube, conditions=conditions))
            if matches:
                variant = replace(rule, cube=cube, action=action)
                end = self._ending(variant, measures, family, hint, once=len(matches) > 1)
                for match in matches:
                    yield self._line(rule.origins, match, end)

    def _line(self, origins: tuple[Origin, ...], *texts: str) -> Line:
        return Line(" ".join(filter(None, (*texts, _comment(origins)))), origins)

    # --- matches ----------------------------------------------------------------------------

    def _matches(
        self,
        cube: Cube,
        keys: tuple[Field, ...] = (),
        conditions: list[guards.Condition] | None = None,
    ) -> Iterator[str]:
        """The disjoint conjunctions, one a line, for the packets of the cube that meet all
        conditions; `keys` are said elsewhere."""
        if cube.is_empty:
            return
        asked = [guards.conditions(c) for c in conditions or ()]
        for part in parts(cube, keys, self.tests):
            alternatives: list[list[str]] = [self._said(part, f) for f in part.fields]
            family = part[Field.FAMILY].single
            asks = (
                []
                if Field.L4PROTO not in part or _implies_protocol(part, keys)
                else [f"meta l4proto {self._values(part, Field.L4PROTO)}"]
            )
            if family is not None and not _implies_family(part, keys):
                # Of a family and its own ICMP, nft 1.0.6 lists what stands last alone.
                said = f"meta nfproto {spell.FAMILY_WORDS[family]}"
                if asks and part[Field.L4PROTO].single == OWN_ICMP[family]:
                    asks = [f"{asks[0]} {said}"]
                else:
                    alternatives.append([said])
            alternatives.append(asks)
            for chosen in product(*filter(None, alternatives)):
                for also in product(*asked):
                    yield " ".join(filter(None, (_in_order(chosen), *also)))

    def _said(self, cube: Cube, f: Field) -> list[str]:
        """The disjoint ways, each a line of its own, in which a term of a cube is said."""
        family = cube[Field.FAMILY].single or 0
        match f:
            case Field.FAMILY | Field.L4PROTO:
                return []
            case Field.IIF | Field.OIF:
                return spell.names(f, cube[f], self.is_behind_routing)
            case Field.CT_HELPER:  # no sets of helper names in nft
                return [f"ct helper {spell.value(f, pair)}" for pair in cube[f]]
            case Field.TCP_FLAGS:
                return [spell.tcp_flags(cube[f])]
            case Field.CT_STATE:
                pairs = spell.each_value(f, cube[f])
                return ["ct state " + ",".join(spell.value(f, pair) for pair in pairs)]
            case _ if f in spell.FLAGS:
                return spell.flag(f, family, cube[f].single == 1, _has_connection(cube))
            case Field.ANSWER:
                key = f"{spell.HEADERS[family]} daddr . udp dport . iifname"
                return [_member(key, self.sets.questions(family), cube[f])]
            case Field.TO_ASKER:
                return [_member("udp dport", self.sets.askers(), cube[f])]
            case _ if f in spell.ADDRESS_TESTS:
                word, number = spell.ADDRESS_TESTS[f]
                address = f"{spell.HEADERS[family]} {word}"
                return [_tested(address, self.tests[number], family, cube[f])]
            case _:
                word = spell.selector(f, family, cube[Field.L4PROTO])
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

    def _ending(
        self, rule: Rule, measures: list[guards.Measure], family: int, hint: str, once: bool
    ) -> str:
        """What follows the matches; with `once` several lines end so, and share what is kept.

        A measure whose table is full asks no more, and its line does not hold. That is right
        for what opens. What closes is therefore put behind a line that goes back to the caller
        within the measure, and so holds where nothing can be measured.
        """
        end = self.statements.counted(rule.action, family)
        if rule.action == RESET and self._names_family(rule.cube):
            end = f"{self.statements.counter} {self.statements.verdict(rule.action)}".strip()
        if isinstance(rule.action, ir.TransparentProxy):
            # Where no proxy listens, `tproxy` goes on to the next line.
            drop = self.statements.counted(ir.Drop())
            proxied = f"{self._protocols([rule.cube[Field.L4PROTO]])} {end}"
            end = self._chain(f"{hint}.proxy", rule.origins, proxied, drop)
        elif takes_turns(rule.action):
            end = self._in_turn(rule, end, hint, once)
        closes = self.statements.closes(rule.action)
        is_shared = not measures  # what keeps no count may stand in every line
        for measure in reversed(measures):
            table = guards.table(measure, family)
            said = guards.measured(measure, measure.over)
            if table is not None:
                name = self.sets.table(table, hint, family, rule.origins)
                word = "add" if table.timeout_s is None else "update"
                if closes:
                    back = guards.measured(measure, not measure.over)
                    kept = f"{word} @{name} {{ {table.key} {back} }} return"
                    end = self._chain(f"{hint}.v{family}", rule.origins, kept, end)
                    is_shared = True
                    continue
                said = f"{word} @{name} {{ {table.key} {said} }}"
            end = f"{said} {end}"
            is_shared = False
        if once and not is_shared:
            end = self._chain(f"{hint}.v{family}", rule.origins, end)
        return end

    def _names_family(self, cube: Cube) -> bool:
        """Whether `meta nfproto` says the family; a rule that itself resets is listed without."""
        return any(
            part[Field.FAMILY].single is not None and not _implies_family(part, ())
            for part in parts(cube, (), self.tests)
        )

    def _in_turn(self, rule: Rule, end: str, hint: str, once: bool) -> str:
        """What ends with the turns of a statement: all its lines take them together."""
        turns = turns_of(rule.action, rule.origins)
        protocols = [rule.cube[Field.L4PROTO]] if turns is None else self.turns[turns]
        if not once and len(protocols) == 1:
            return end
        if turns is not None and turns in self.taking_turns:
            return self.taking_turns[turns]
        has_port = isinstance(rule.action, ir.DestinationNat) and rule.action.port is not None
        line = f"{self._protocols(protocols)} {end}" if has_port else end
        jump = self._chain(f"{hint}.turns", rule.origins, line)
        if turns is not None:
            self.taking_turns[turns] = jump
        return jump

    def _protocols(self, each: Sequence[Ranges]) -> str:
        """The match in a chain of its own by which nft knows that what comes has ports."""
        cube = Cube.of({Field.L4PROTO: Ranges.merged(pair for some in each for pair in some)})
        return f"meta l4proto {self._values(cube, Field.L4PROTO)}"

    def _chain(self, wanted: str, origins: tuple[Origin, ...], *lines: str) -> str:
        """The jump to a new chain of these lines; no chain of a ruleset has a dot in its name."""
        number = sum(name.startswith(wanted) for name in self.asked)
        name = wanted + (f"-{number + 1}" if number else "")
        self.asked[name] = [self._line(origins, line.strip()) for line in lines]
        return f"jump {name}"

    # --- lookups ----------------------------------------------------------------------------

    def _lookup(self, lookup: Lookup, hint: str) -> Iterator[Line]:
        """A set where all entries say the same, else a verdict map; one for each family."""
        for family, entries in _entries_by_family(lookup):
            cube = lookup.cube
            if family:
                cube = cube & Cube.of({Field.FAMILY: Ranges.of(family)})
            keys = " . ".join(spell.selector(f, family, _protocols(lookup)) for f in lookup.fields)
            types = [
                address_type(family) if f in ADDRESS_FIELDS else spell.TYPES[f]
                for f in lookup.fields
            ]
            items = [(self._key(lookup, e), e.origins) for e in entries]
            same = lookup.action
            if same is None:
                types.append("verdict")
                items = [
                    (f"{text} : {self.statements.verdict(e.action)}", e.origins)
                    for (text, _), e in zip(items, entries, strict=True)
                ]
            ranged = any(low != high for e in entries for low, high in e.key)
            held = self.sets.lookup(hint, types, items, ranged)
            origins = joined(*(e.origins for e in entries))
            same_end = "" if same is None else self.statements.counted(same)
            said = f"vmap {held}" if same is None else f"{held} {same_end}"
            for match in self._matches(cube, lookup.fields):
                yield self._line(origins, match, keys, said)

    def _key(self, lookup: Lookup, entry: Entry) -> str:
        return " . ".join(
            spell.value(f, pair) for f, pair in zip(lookup.fields, entry.key, strict=True)
        )


def _comment(origins: tuple[Origin, ...]) -> str:
    text = comment_text(describe(origins), COMMENT_BYTES)
    return f'comment "{text}"' if text else ""


def _member(key: str, name: str, values: Ranges) -> str:
    return f"{key} {'' if values.single == 1 else '!= '}@{name}"


def _tested(address: str, test: AddressTest, family: int, values: Ranges) -> str:
    match test:
        case DynamicSet(name):
            return _member(address, dynamic_set_name(name, family), values)
        case ListedSet(source):
            return _member(address, listed_name(source, family), values)
        case HostSuffix():
            mask, value = (format_address(V6_BASE + n) for n in (test.mask, test.value))
            return f"{address} & {mask} {'==' if values.single == 1 else '!='} {value}"


def _has_connection(cube: Cube) -> bool:
    """Whether the cube says of all its packets that they belong to a connection."""
    return Field.CT_DIRECTION in cube or not cube[Field.CT_STATE].meets(WITHOUT_CONNECTION)


def _implies_family(cube: Cube, keys: tuple[Field, ...]) -> bool:
    return not IMPLY_FAMILY.isdisjoint((*cube.fields, *keys))


IMPLY_PROTOCOL = (
    Field.ICMP_TYPE,
    Field.ICMPV6_TYPE,
    Field.TCP_FLAGS,
    Field.ANSWER,
    Field.TO_ASKER,
)


def _implies_protocol(cube: Cube, keys: tuple[Field, ...]) -> bool:
    """Whether the selectors of other terms bring the protocol match along."""
    if Field.L4PROTO in keys:
        return True
    said = (*cube.fields, *keys)
    if any(f in said for f in IMPLY_PROTOCOL):
        return True
    has_ports = Field.SPORT in said or Field.DPORT in said
    return has_ports and cube[Field.L4PROTO].single is not None


ORDER = (
    "iifname",
    "oifname",
    "ether saddr",
    "ct state",
    "ct direction",
    "ct status",
    "meta nfproto",
    "ct original ip",
    "ip",
    "fib",
    "meta l4proto",
)


def _in_order(parts: tuple[str, ...]) -> str:
    """The parts of a match in the order in which people write them."""

    def rank(part: str) -> int:
        return next((i for i, start in enumerate(ORDER) if part.startswith(start)), len(ORDER))

    return " ".join(sorted(parts, key=rank))


def _entries_by_family(lookup: Lookup) -> Iterator[tuple[int, list[Entry]]]:
    address = next((i for i, f in enumerate(lookup.fields) if f in ADDRESS_FIELDS), None)
    if address is None:
        yield lookup.cube[Field.FAMILY].single or 0, list(lookup.entries)
        return
    for family in (4, 6):
        is_v6 = family == 6
        entries = [e for e in lookup.entries if (e.key[address][0] >= V6_BASE) is is_v6]
        if entries and family in lookup.cube[Field.FAMILY]:
            yield family, entries


def _protocols(lookup: Lookup) -> Ranges:
    return UNIVERSE[Field.L4PROTO] if Field.L4PROTO in lookup.fields else lookup.cube[Field.L4PROTO]
