"""Reads what `nft -j list ruleset` prints, of whatever origin, as rules that packets meet.

It proves what the compiler makes and the loader loads, and so knows neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from policylang.analysis.machine import Base, Hook, Line, Machine
from policylang.analysis.reading_nft.boxes import Box
from policylang.analysis.reading_nft.cases import Cases
from policylang.analysis.reading_nft.families import settled
from policylang.analysis.reading_nft.kinds import Kind
from policylang.analysis.reading_nft.listing import NESTED, ListedTable, Object, tables
from policylang.analysis.reading_nft.phrases import phrase
from policylang.analysis.reading_nft.reach import (
    Place,
    changed_in,
    looked_up,
    place_of,
    places,
    put_into,
)
from policylang.analysis.reading_nft.rules import Writing, written
from policylang.analysis.reading_nft.scope import FAMILIES, Scope, chain_name
from policylang.analysis.reading_nft.steps import Around, steps
from policylang.analysis.unreadable import UnreadableError, without_circles


def _is_closed(name: str) -> bool:
    return False


def read_nft(
    listing: str | Object,
    *,
    utc_offset_s: int = 0,
    is_open: Callable[[str], bool] = _is_closed,
) -> Machine:
    """The rules of the tables inet, ip and ip6; raises UnreadableError.

    `listing` is the text or what JSON makes of it. nft prints the hours of rules in local time:
    `utc_offset_s` is how far that is ahead of UTC, 0 for a listing made with TZ=UTC. What stands
    in sets for which `is_open` is read as a question, as it is for those that packets fill.
    Chains are called by family, table and name (`inet policylang input`); so are sets of whose
    name an earlier table has one.

    What nft does not print is not read: nft 1.0.6 leaves away the family in front of `reject with
    tcp reset` and of `meta l4proto icmp`, and every nft the level of `socket cgroupv2`.
    """
    try:
        return _read(listing, is_open, utc_offset_s)
    except RecursionError as error:
        raise UnreadableError(NESTED, 1) from error


def _read(listing: str | Object, is_open: Callable[[str], bool], utc_offset_s: int) -> Machine:
    bases: list[tuple[Base, int]] = []
    chains: dict[str, tuple[Line, ...]] = {}
    earlier: set[str] = set()
    for table in tables(listing):
        if table.family not in FAMILIES:
            continue
        chains |= _chains(table, is_open, utc_offset_s, _naming(table, frozenset(earlier)))
        earlier |= table.sets.keys()
        if not table.is_dormant:
            bases += _bases(table)
    order = list(Hook)
    # Of one priority those come first that were put on the hook last (nf_hook_entries_grow).
    bases.reverse()
    bases.sort(key=lambda one: (order.index(one[0].hook), one[0].priority, one[1]))
    return settled(without_circles(Machine(tuple(base for base, _ in bases), chains)))


def left_out(listing: str | Object) -> tuple[str, ...]:
    """What a listing has that no machine of `read_nft` shows: chains that read other packets.

    They are those of the tables netdev, bridge and arp and of the hooks ingress and egress, as
    texts such as `netdev filter ingress`; raises UnreadableError.
    """
    return tuple(
        f"{table.family} {table.name} {name}"
        for table in tables(listing)
        for name, chain in table.chains.items()
        if "hook" in chain.head
        and not table.is_dormant
        and (table.family not in FAMILIES or place_of(chain) is None)
    )


def _naming(table: ListedTable, earlier: frozenset[str]) -> Callable[[str], str]:
    """What sets of a table are called: by their names, with the table's where one before has it."""

    def named(name: str) -> str:
        return f"{table.family} {table.name} {name}" if name in earlier else name

    return named


def _bases(table: ListedTable) -> Iterator[tuple[Base, int]]:
    """The base chains with the priorities that they name themselves."""
    for name, chain in table.chains.items():
        at, priority = place_of(chain), chain.head.get("prio")
        if at is None or not isinstance(priority, int):
            continue
        full = f"{table.family} {table.name} {name}"
        yield (
            Base(
                *at,
                full,
                FAMILIES[table.family],
                drops=chain.head.get("policy") == "drop",
                is_nat=chain.head.get("type") == "nat",
                reroutes=chain.head.get("type") == "route",
                place=full,
            ),
            priority,
        )


def _chains(
    table: ListedTable,
    is_open: Callable[[str], bool],
    utc_offset_s: int,
    named: Callable[[str], str],
) -> dict[str, tuple[Line, ...]]:
    reached, changed = places(table), changed_in(table, named)
    asked, filled = looked_up(table), put_into(table)
    changes = {f"{table.family} {table.name} {name}": held for name, held in changed.items()}
    held: dict[tuple[str, tuple[Kind, ...]], list[Box]] = {}
    cases: dict[frozenset[Place], dict[str, Cases]] = {}
    found: dict[str, tuple[Line, ...]] = {}
    for name, chain in table.chains.items():
        at = reached[name]
        read = cases.setdefault(at, {})
        scope = Scope(table, at, is_open, utc_offset_s, asked, filled, named, held, read)
        full = chain_name(scope, name)
        lines: list[Line] = []
        for number, rule in enumerate(chain.rules):
            following = chain.rules[number + 1 : number + 2]
            drops = any(_drops_all(other.expressions) for other in following)
            place = f"{full}, " + (f"handle {rule.handle}" if rule.handle else f"rule {number + 1}")
            to = Writing(
                place,
                f"{place} ({rule.comment})" if rule.comment else place,
                lambda rule=rule: " ".join(map(phrase, rule.expressions)),  # type: ignore[misc]
                lambda chain: changes.get(chain, frozenset()),
            )
            around = Around(scope, f"{full}, rule {number + 1}", drops)
            lines += written(tuple(steps(rule, around)), to)
            found |= to.chains
        found[full] = tuple(lines)
    return found


def _drops_all(expressions: tuple[object, ...]) -> bool:
    return [e for e in expressions if not (isinstance(e, dict) and "counter" in e)] == [
        {"drop": None}
    ]


__all__ = ["left_out", "read_nft"]
