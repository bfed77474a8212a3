"""Statements that write into the packet or its connection: marks, code points, sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeGuard

from policylang.analysis.machine import (
    Act,
    Condition,
    ConnectionMarkIs,
    CopyMark,
    MarkIs,
    Obscure,
)
from policylang.analysis.reading_nft import kinds
from policylang.analysis.reading_nft.cases import (
    ALWAYS,
    Cases,
    NotUnderstoodError,
    asked,
    both,
    of_cube,
    unknown,
)
from policylang.analysis.reading_nft.connections import TRACKED
from policylang.analysis.reading_nft.deeds import Step
from policylang.analysis.reading_nft.headers import OF_HEADER
from policylang.analysis.reading_nft.listing import Json, operation
from policylang.analysis.reading_nft.matches import OF_TCP, chosen_by
from policylang.analysis.reading_nft.phrases import phrase
from policylang.analysis.reading_nft.scope import Scope
from policylang.ir import actions as ir
from policylang.packets.cube import EVERYTHING

MARK_BITS = 32
MOST_TURNED = 4  # bits
FULL_MARK = (1 << MARK_BITS) - 1
META_MARK: Json = {"meta": {"key": "mark"}}
CT_MARK: Json = {"ct": {"key": "mark"}}


def written(key: Json, value: Json, scope: Scope) -> Iterator[Step]:
    """What a `mangle` of the listing does, one thing after the other."""
    text = phrase({"mangle": {"key": key, "value": value}})
    obscure = Obscure(text, may_decide=_is_asked(key))
    match value:
        case {"map": {"key": looked_up, "data": data}}:
            try:
                chosen = chosen_by(looked_up, data, scope)
            except NotUnderstoodError as reason:
                yield from _freed(key, obscure, _found(of_cube(reason.packets), text))
                return
            acts = [(cases, _act(key, one)) for cases, one in chosen]
            if any(act is None for _, act in acts):
                yield from _freed(key, obscure, _found(ALWAYS, text))
            else:
                yield Step(acts)
            return
    copied = _copied(key, value)
    act = _act(key, value)
    if copied is not None:
        yield from copied
    elif act is not None:
        yield Step([(_needs(key), act)])
    elif key in (META_MARK, CT_MARK) and _turns_few(known := _known(key, value)):
        yield from _turned(key, known)
    else:
        needs = _needs(key)
        yield from _freed(key, obscure, needs if _is_there(value) else _found(needs, text))


def _found(needs: Cases, text: str) -> Cases:
    """Where a value is read of a packet, or looked up, the rule ends for what has none."""
    return both(needs, unknown(f"there is a value: {text}"))


def _is_there(value: Json) -> bool:
    """Whether there is a value for each packet: a constant, or a number made for it."""
    match value:
        case str() | int() | {"numgen": _} | {"symhash": _}:
            return True
    return False


def _is_asked(key: Json) -> bool:
    """Whether matches read what is written, so that any may find otherwise behind it."""
    match key:
        case {"payload": {"protocol": "ip" | "ip6", "field": str(name)}}:
            return name not in UNREAD
        case {"payload": _}:
            return True
    return False


UNREAD = frozenset({"ttl", "ecn", "id", "frag-off", "checksum", "flowlabel"})


def _freed(key: Json, obscure: Obscure, needs: Cases) -> Iterator[Step]:
    """Something obscure; where it sets a mark, nobody knows of any bit of it what it becomes."""
    yield Step([(needs, obscure)])
    if key in (META_MARK, CT_MARK):
        set_mark = ir.SetMark if key == META_MARK else ir.SetConnectionMark
        yield Step([(ALWAYS, set_mark(0, FULL_MARK))])
        for bit in (1 << n for n in range(MARK_BITS)):
            is_set = unknown(f"bit {bit:#x} of what comes of: {obscure.text}")
            yield Step([(is_set, set_mark(bit, bit))], goes_on=True)


def _copied(key: Json, value: Json) -> list[Step] | None:
    """One mark that becomes the other's bits, and nothing else; None of what is no such thing."""
    own, other = (META_MARK, CT_MARK) if key == META_MARK else (CT_MARK, META_MARK)
    bits = _known(other, value)
    if key != own or bits is None or not bits[0] or bits[0] & bits[1]:
        return None
    mask, added = bits
    # What has no connection has no mark of one to give.
    needs = of_cube(TRACKED) if other == CT_MARK else ALWAYS
    rest = FULL_MARK & ~mask
    copied = [Step([(needs, CopyMark(own == CT_MARK, mask))])]
    if rest:
        set_mark = ir.SetMark if own == META_MARK else ir.SetConnectionMark
        copied.append(Step([(ALWAYS, set_mark(added & rest, rest))]))
    return copied


def _needs(key: Json) -> Cases:
    match key:
        case {"payload": {"protocol": str(header)}}:
            return of_cube(OF_HEADER.get(header, EVERYTHING))
        case {"tcp option": _}:
            return of_cube(OF_TCP)
    return ALWAYS


def _act(key: Json, value: Json) -> Act | None:
    match key:
        case {"meta": {"key": "mark"}}:
            bits = _bits(META_MARK, value)
            return None if bits is None else ir.SetMark(*bits)
        case {"ct": {"key": "mark"}}:
            bits = _bits(CT_MARK, value)
            return None if bits is None else ir.SetConnectionMark(*bits)
        case {"payload": {"protocol": "ip" | "ip6", "field": "dscp"}}:
            code = _code(value)
            return None if code is None else ir.SetDscp(code)
        case {"tcp option": {"name": "maxseg", "field": "size"}}:
            match value:
                case {"rt": {"key": "mtu"}}:
                    return ir.ClampMss(None)
                case int(size):
                    return ir.ClampMss(size)
    return None


def _code(value: Json) -> int | None:
    try:
        return kinds.DSCP.number(value)
    except NotUnderstoodError:
        return None


def _bits(own: Json, value: Json) -> tuple[int, int] | None:
    """The `(value, mask)` of the bits that become known; None where the others do not just stay.

    `value` is a mark made of constants and of what the mark was.
    """
    known = _known(own, value)
    if known is None or known[0] & known[1]:
        return None
    kept, turned = known
    return turned, FULL_MARK & ~kept


def _known(own: Json, value: Json) -> tuple[int, int] | None:
    """The bits that count of what the mark was, and those that are turned round thereafter."""
    match value:
        case bool():
            return None
        case int(number):
            return 0, number & FULL_MARK
        case _ if value == own:
            return FULL_MARK, 0
    computed = operation(value)
    if computed is None:
        return None
    operator, (first, *others) = computed
    known = _known(own, first)
    for other in others:
        known = None if known is None else _operated(operator, known, _known(own, other))
    return known


def _operated(
    operator: str, one: tuple[int, int], other: tuple[int, int] | None
) -> tuple[int, int] | None:
    if other is None or (one[0] and other[0]):
        return None  # the mark with itself
    (kept, turned), (_, number) = (one, other) if one[0] else (other, one)
    match operator:
        case "&":
            return kept & number, turned & number
        case "|":
            return kept & ~number, turned | number
        case "^":
            return kept, turned ^ number
    return None


def _turns_few(known: tuple[int, int] | None) -> TypeGuard[tuple[int, int]]:
    """Whether few bits are turned round: each makes two ways of the rest of the rule."""
    return known is not None and (known[0] & known[1]).bit_count() <= MOST_TURNED


def _turned(key: Json, known: tuple[int, int]) -> Iterator[Step]:
    """A mark of which some bits become what they were not, and others are set or stay."""
    question = MarkIs if key == META_MARK else ConnectionMarkIs
    set_mark = ir.SetMark if key == META_MARK else ir.SetConnectionMark
    kept, turned = known
    if kept != FULL_MARK:
        yield Step([(ALWAYS, set_mark(turned & ~kept, FULL_MARK & ~kept))])
    for bit in (1 << n for n in range(MARK_BITS) if kept & turned & 1 << n):
        is_set = Condition(question(bit, bit))
        is_unset = Condition(question(bit, bit), holds=False)
        turns = [(asked(is_set), set_mark(0, bit)), (asked(is_unset), set_mark(bit, bit))]
        yield Step(turns, is_total=True)


def mark(value: Json) -> ir.SetMark | None:
    """What a value makes of the packet's mark; None where it is not made of constants."""
    bits = _bits(META_MARK, value)
    return None if bits is None else ir.SetMark(*bits)
