"""Rates and counts: matches that remember what they let through."""

from __future__ import annotations

from fractions import Fraction

from policylang.analysis.machine import Condition, ConnectionsHold, Per, RateHolds
from policylang.analysis.reading_nft import kinds, words
from policylang.analysis.reading_nft.cases import (
    Cases,
    NotUnderstoodError,
    asked,
    both,
    of_cube,
    unknown,
)
from policylang.analysis.reading_nft.headers import OF_FAMILY
from policylang.analysis.reading_nft.listing import Json, Object
from policylang.analysis.reading_nft.phrases import phrase
from policylang.analysis.reading_nft.scope import Scope
from policylang.ir.actions import End
from policylang.packets.values import V6_BASE

DEFAULT_BURST = 5  # NFT_LIMIT_PKT_BURST_DEFAULT of nft_limit.c
ENDS = {"saddr": End.SOURCE, "daddr": End.DESTINATION}


def limited(body: Json, per: Per | None, family: int | None) -> Condition:
    """A `limit`, for each of `per`; raises NotUnderstoodError where it counts bytes."""
    match body:
        case {"rate": int(rate), "per": str(unit), **rest} if unit in words.UNIT_S:
            if "rate_unit" in rest and rest["rate_unit"] != "packets":
                raise NotUnderstoodError(phrase({"limit": body}))
            burst = rest.get("burst")
            held = RateHolds(
                Fraction(rate, words.UNIT_S[unit]),
                burst if isinstance(burst, int) and burst else DEFAULT_BURST,
                per,
                family,
            )
            return Condition(held, holds=not rest.get("inv"))
    raise NotUnderstoodError(phrase({"limit": body}))


def counted(body: Json, per: Per | None, family: int | None) -> Condition:
    """A `ct count`, for each of `per`; raises NotUnderstoodError."""
    match body:
        case {"val": int(count), **rest}:
            return Condition(ConnectionsHold(count, per, family), holds=not rest.get("inv"))
    raise NotUnderstoodError(phrase({"ct count": body}))


def measured(expression: Json, scope: Scope) -> Cases:
    """A rate, a count or a quota of all that comes by."""
    family = scope.families[0] if len(scope.families) == 1 else None
    try:
        match expression:
            case {"limit": str(name)}:
                return asked(limited(_object("limit", name, scope), None, family))
            case {"limit": body}:
                return asked(limited(body, None, family))
            case {"ct count": body}:
                return asked(counted(body, None, family))
            case {"quota": str(name)}:
                body = _object("quota", name, scope)
                over = "over " if body.get("inv") else ""
                text = f"quota {over}{phrase(body.get('bytes'))} bytes"
                return unknown(text.replace("over ", ""), holds=not over)
            case {"quota": {"inv": True, **rest}}:
                return unknown(phrase({"quota": rest}), holds=False)
    except NotUnderstoodError as reason:
        return _maybe_over(expression, reason.text)
    return unknown(phrase(expression))


def _maybe_over(expression: Json, text: str) -> Cases:
    """The rate is asked for, or that it is not kept to: one question for both."""
    match expression:
        case {"limit": {"inv": True}}:
            return unknown(text.replace("rate over ", "rate "), holds=False)
    return unknown(text)


def _object(sort: str, name: str, scope: Scope) -> Object:
    found = scope.table.objects.get((sort, name))
    if found is None:
        raise NotUnderstoodError(f"{sort} name {name}")
    return found


def measured_by(key: Json, measure: Json) -> Cases:
    """A rate or a count for each value of a key; `Unknown` where the key is no address."""
    text = f"{phrase(key)} {phrase(measure)}"
    try:
        end, family, length = _address(key)
        per = Per(end, length)
        match measure:
            case {"limit": body}:
                condition = limited(body, per, family)
            case {"ct count": body}:
                condition = counted(body, per, family)
            case {"counter": _} | {"last": _}:
                return of_cube(OF_FAMILY[family])
            case _:
                raise NotUnderstoodError(text)
    except NotUnderstoodError as reason:
        return both(of_cube(reason.packets), unknown(text))
    return both(of_cube(OF_FAMILY[family]), asked(condition))


def _address(key: Json) -> tuple[End, int, int]:
    """The end, the family and the length of the prefix that a key keeps apart."""
    match key:
        case {"elem": {"val": value}}:
            return _address(value)
        case {"payload": {"protocol": "ip" | "ip6" as header, "field": str(name), **rest}} if (
            name in ENDS and not rest
        ):
            family = 4 if header == "ip" else 6
            return ENDS[name], family, 32 if family == 4 else 128
        case {"&": [address, str(mask)]}:
            end, family, bits = _address(address)
            kind = kinds.V4 if family == 4 else kinds.V6
            number = kind.number(mask) % V6_BASE
            free = (1 << bits) - 1 - number
            if number and free & (free + 1) == 0:
                return end, family, bits - free.bit_length()
    raise NotUnderstoodError(phrase(key))
