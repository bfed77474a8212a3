"""IPv4 source routes: several matches of a rule together, which ask for one field.

A packet is source routed if its options begin with a source route, or hold a loose or a strict
one elsewhere. Each of the three is a question of its own, and together they are the field.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from policylang.analysis.machine import Condition, Unknown
from policylang.analysis.reading_nft import kinds
from policylang.analysis.reading_nft.cases import NEVER, Case, Cases, NotUnderstoodError
from policylang.analysis.reading_nft.listing import Json
from policylang.packets.cube import Cube
from policylang.packets.fields import Field
from policylang.packets.values import Ranges


class Fact(Enum):
    """What a match says of the options of an IPv4 packet; the value is how it is asked."""

    HAS_OPTIONS = "ip hdrlength > 5"
    BEGINS = "the options of IPv4 begin with a source route"
    LOOSE = "ip option lsrr exists"
    STRICT = "ip option ssrr exists"


ROUTES = (Fact.BEGINS, Fact.LOOSE, Fact.STRICT)
OPTIONS = {"lsrr": Fact.LOOSE, "ssrr": Fact.STRICT}

# The first four bytes of options that begin with a source route (RFC 791 section 3.1: loose 131,
# strict 137), behind up to three no-operations (1).
STARTS = Ranges.merged(
    (kind_at, kind_at + (1 << 8 * (3 - before)) - 1)
    for before in range(4)
    for kind in (131, 137)
    for kind_at in [int.from_bytes(bytes([1] * before + [kind] + [0] * (3 - before)), "big")]
)


def taken(expressions: Sequence[Json]) -> tuple[Cases | None, list[Json]]:
    """What the matches at the start of a rule ask of source routes, and the other expressions.

    None where they ask for nothing of the kind.
    """
    facts: dict[Fact, bool] = {}
    others: list[Json] = []
    for place, expression in enumerate(expressions):
        if not (isinstance(expression, dict) and "match" in expression):
            others += expressions[place:]
            break
        fact = _fact(expression)
        if fact is None:
            others.append(expression)
        elif facts.setdefault(*fact) is not fact[1]:
            return NEVER, []
    return (_cases(facts) if facts else None), others


def _fact(expression: Json) -> tuple[Fact, bool] | None:
    match expression:
        case {"match": {"op": op, "left": left, "right": right}}:
            match left, op, right:
                case {"ip option": {"name": "lsrr" | "ssrr" as name, **rest}}, "==", bool(there):
                    return None if rest else (OPTIONS[name], there)
                # Five words of four bytes are a header without options.
                case {"payload": {"protocol": "ip", "field": "hdrlength", **rest}}, _, 5 if (
                    not rest
                ):
                    holds = {">": True, "!=": True, "==": False, "<=": False}.get(str(op))
                    return None if holds is None else (Fact.HAS_OPTIONS, holds)
                case {"payload": {"base": "nh", "offset": 160, "len": 32}}, ("==" | "!="), _:
                    if _values(right) == STARTS:
                        return Fact.BEGINS, op == "=="
    return None


def _values(right: Json) -> Ranges | None:
    try:
        return kinds.NUMBER.values(right)
    except NotUnderstoodError:
        return None


def _cases(facts: dict[Fact, bool]) -> Cases:
    has_options = facts.pop(Fact.HAS_OPTIONS, None)
    if has_options is False:
        if True in facts.values():
            return NEVER
        return (_case(0, Condition(Unknown(Fact.HAS_OPTIONS.value), holds=False)),)
    conditions = [Condition(Unknown(fact.value), holds) for fact, holds in facts.items()]
    if True in facts.values():
        if len(facts) == len(ROUTES) and list(facts.values()).count(True) == 1:
            # It has a source route, and neither of the other two: so it has this one.
            conditions = [condition for condition in conditions if not condition.holds]
        return (_case(1, *conditions),)
    has = [] if has_options is None else [Condition(Unknown(Fact.HAS_OPTIONS.value))]
    if len(facts) == len(ROUTES):
        return (_case(0, *has),)
    return (_case(None, *has, *conditions),)


def _case(routed: int | None, *conditions: Condition) -> Case:
    terms = {Field.FAMILY: Ranges.of(4)}
    if routed is not None:
        terms[Field.SOURCE_ROUTED] = Ranges.of(routed)
    return Case(Cube.of(terms), conditions)
