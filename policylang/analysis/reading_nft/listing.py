"""What `nft -j list ruleset` prints, taken apart into tables; it does not know what rules mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from policylang.analysis.unreadable import UnreadableError

# Whatever JSON may hold; each reader takes it apart by patterns, and what fits none is not known.
Json = object
Object = Mapping[str, Json]
NESTED = "the listing is nested too deeply"


@dataclass(frozen=True, slots=True)
class ListedRule:
    """A rule: what it says, expression by expression."""

    handle: int
    comment: str
    expressions: tuple[Json, ...]


@dataclass(slots=True)
class ListedChain:
    """A chain; `head` is what the listing says of it, a hook and a priority if it is a base."""

    head: Object
    rules: list[ListedRule] = field(default_factory=list)


@dataclass(slots=True)
class ListedTable:
    """A table. `objects` are helpers, limits, quotas and the like, by sort and name."""

    family: str  # inet, ip, ip6, arp, bridge, netdev
    name: str
    is_dormant: bool = False  # loaded, but on no hook
    chains: dict[str, ListedChain] = field(default_factory=dict)
    sets: dict[str, Object] = field(default_factory=dict)
    maps: dict[str, Object] = field(default_factory=dict)
    objects: dict[tuple[str, str], Object] = field(default_factory=dict)


def tables(listing: str | Object) -> tuple[ListedTable, ...]:
    """The tables of a listing, in its order; raises UnreadableError."""
    found: dict[tuple[str, str], ListedTable] = {}
    rules: list[tuple[ListedTable, Object]] = []
    for item in _items(_parsed(listing) if isinstance(listing, str) else listing):
        for sort, body in item.items():
            if sort == "metainfo" or not isinstance(body, Mapping):
                continue
            family = str(body.get("family"))
            table_name = str(body.get("name" if sort == "table" else "table"))
            table = found.setdefault((family, table_name), ListedTable(family, table_name))
            if sort == "rule":  # before nft 1.1 chains may stand behind what uses them
                rules.append((table, body))
            else:
                _put(table, sort, body)
    for table, body in rules:
        chain = table.chains.get(str(body.get("chain")))
        if chain is None:
            raise UnreadableError(
                f"a rule is in a chain that is not listed: `{body.get('chain')}`", 1
            )
        chain.rules.append(_rule(body))
    return tuple(found.values())


def _parsed(text: str) -> Json:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        what = "the listing is empty" if not text.strip() else "the listing is no JSON, or cut off"
        raise UnreadableError(what, error.lineno) from error
    except ValueError as error:  # a number of thousands of digits
        raise UnreadableError("the listing has a number that is too long", 1) from error
    except RecursionError as error:
        raise UnreadableError(NESTED, 1) from error


def _items(listing: Json) -> list[Object]:
    match listing:
        case {"nftables": [*items]}:
            return [item for item in items if isinstance(item, Mapping)]
    raise UnreadableError("this is JSON, but nothing that `nft -j list ruleset` prints", 1)


def _put(table: ListedTable, sort: str, body: Object) -> None:
    name = str(body.get("name"))
    match sort:
        case "table":
            table.is_dormant = "dormant" in _texts(body.get("flags"))
        case "chain":
            table.chains[name] = ListedChain(body)
        case "set" | "meter":
            table.sets[name] = body
        case "map":
            table.maps[name] = body
        case _:
            table.objects[sort, name] = body


def _rule(body: Object) -> ListedRule:
    handle, comment, expressions = body.get("handle"), body.get("comment"), body.get("expr")
    return ListedRule(
        handle if isinstance(handle, int) else 0,
        comment if isinstance(comment, str) else "",
        tuple(expressions) if isinstance(expressions, list) else (),
    )


def _texts(flags: Json) -> tuple[str, ...]:
    """Flags as nft writes them: one text or a list of texts."""
    if isinstance(flags, str):
        return (flags,)
    return tuple(map(str, flags)) if isinstance(flags, list) else ()


flags_of = _texts


OPERATORS = ("&", "|", "^", "<<", ">>")


def operation(expression: Json) -> tuple[str, list[Json]] | None:
    """The operator and the operands of an expression that computes; None of any other."""
    if isinstance(expression, dict) and len(expression) == 1:
        ((word, operands),) = expression.items()
        if word in OPERATORS and isinstance(operands, list) and len(operands) > 1:
            return word, operands
    return None


def parts_of(expression: Json) -> list[Json]:
    """The parts of a concatenation; of anything else itself."""
    match expression:
        case {"concat": [*parts]}:
            return parts
    return [expression]
