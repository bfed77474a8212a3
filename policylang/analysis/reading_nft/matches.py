"""Matches, and look-ups of packets in sets and maps, as the packets that they are true of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from policylang.analysis.machine import Condition, InSet
from policylang.analysis.reading_nft import connections, kinds, metas
from policylang.analysis.reading_nft.boxes import Box, gathered, outside
from policylang.analysis.reading_nft.cases import (
    MOST_CASES,
    Case,
    Cases,
    NotUnderstoodError,
    asked,
    both,
    of_cube,
    unknown,
)
from policylang.analysis.reading_nft.headers import (
    NOT_PORTED,
    OF_FAMILY,
    PORTED,
    THERE,
    fib,
    payload,
)
from policylang.analysis.reading_nft.kinds import ANYTHING_ELSE
from policylang.analysis.reading_nft.listing import Json, operation, parts_of
from policylang.analysis.reading_nft.phrases import phrase
from policylang.analysis.reading_nft.scope import Scope, box_of, boxes_of, elements_of
from policylang.analysis.reading_nft.selectors import Selector, computed, of_field
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import TCP, UNIVERSE, Field
from policylang.packets.values import Ranges

FEW_ELEMENTS = 8
MOST_BITS = 128  # of an address, the longest that is shifted
OPPOSITES = {"!=": "==", "!": "in"}


def matched(expression: Json, scope: Scope) -> Cases:
    """The packets that a match is true of; what is not understood of it is asked as `Unknown`."""
    match expression:
        case {"match": {"op": str(operator), "left": left, "right": right}}:
            return _matched(operator, left, right, scope)
    return unknown(phrase(expression))


def _matched(operator: str, left: Json, right: Json, scope: Scope) -> Cases:
    key = f"{operator} {left} {right}" if _is_short(right) else ""
    if key not in scope.cases:
        found = _read(operator, left, right, scope)
        if not key:
            return found
        scope.cases[key] = found
    return scope.cases[key]


def _is_short(right: Json) -> bool:
    """Whether it is quicker to look whether something was read before than to read it."""
    match right:
        case {"set": [*elements]}:
            return len(elements) <= FEW_ELEMENTS
    return True


def _read(operator: str, left: Json, right: Json, scope: Scope) -> Cases:
    try:
        return _understood(operator, left, right, scope)
    except NotUnderstoodError as reason:
        holds = operator not in OPPOSITES
        positive = OPPOSITES.get(operator, operator)
        text = phrase({"match": {"op": positive, "left": left, "right": right}})
        if right is False:
            text = phrase({"match": {"op": positive, "left": left, "right": True}})
            holds = not holds
        return both(of_cube(reason.packets), unknown(text, holds=holds))


def _understood(operator: str, left: Json, right: Json, scope: Scope) -> Cases:
    match left, right:
        case {"meta": {"key": "time"}}, _:
            return metas.until(operator, right, scope.utc_offset_s)
        case {"socket": {"key": "cgroupv2"}}, _:
            return metas.cgroup(operator, right)
        case {"ct": {"key": "status"}}, _:
            return connections.status(operator, None, right, "ct status")
        case {"&": [{"ct": {"key": "status"}}, mask]}, _:
            number = kinds.STATUS.number(mask)
            return connections.status(operator, number, right, phrase(left))
        case {"payload": {"base": "th", "offset": 0, "len": 32}}, _:
            return _both_ports(operator, left, right, scope)
        case _, str(name) if name.startswith("@"):
            return _in_named(operator, left, name, scope)
        case {"concat": [*parts]}, _:
            return _in_boxes(operator, left, right, selectors(parts, scope))
        case _, {"set": [*_]}:
            return _in_boxes(operator, left, right, (selector(left, scope),))
    chosen = selector(left, scope)
    positive, values = _related(operator, chosen, right)
    text = phrase({"match": {"op": positive, "left": left, "right": right}})
    return _held(operator == "!=", [(values,)] if values else [], (chosen,), text)


def _related(operator: str, chosen: Selector, right: Json) -> tuple[str, Ranges]:
    """The numbers for which a relation holds, of `!=` its opposite, and its operator."""
    universe = chosen.kind.universe
    if operator in ("<", "<=", ">", ">="):
        number = chosen.kind.number(right)
        low, high = universe.pairs[0][0], universe.pairs[-1][1]
        bounds = {
            "<": (low, number - 1),
            "<=": (low, number),
            ">": (number + 1, high),
            ">=": (number, high),
        }
        return operator, universe & Ranges.between(*bounds[operator])
    if chosen.are_bits and operator in ("in", "!"):
        bits = chosen.kind.number(right)
        tried = (n for low, high in universe for n in range(low, high + 1))
        return operator, Ranges.of(*(n for n in tried if bool(n & bits) is (operator == "in")))
    if operator in ("==", "in", "!="):
        return "==", chosen.kind.values(right)
    raise NotUnderstoodError(f"{chosen.words} {operator}", chosen.needs)


# --- look-ups -----------------------------------------------------------------------------------


def _in_named(operator: str, left: Json, name: str, scope: Scope) -> Cases:
    """A look-up in a named set; of one that fills at run time it is a question."""
    chosen = selectors(parts_of(left), scope)
    body = scope.table.sets.get(name[1:])
    if body is None:
        raise NotUnderstoodError(name)
    needs = _needs(chosen)
    is_opposite = _is_opposite(operator, needs)
    text = phrase({"match": {"op": "==", "left": left, "right": name}})
    if not scope.is_lasting(name[1:], body):
        fields = tuple(s.field for s in chosen if s.field is not None)
        if len(fields) < len(chosen):
            raise NotUnderstoodError(name, needs)
        question = asked(Condition(InSet(scope.named(name[1:]), fields), holds=not is_opposite))
        if all(s.elsewhere.is_empty for s in chosen):
            return both(of_cube(needs), question)
        elsewhere = both(of_cube(needs & NOT_PORTED), _without_ports(text, holds=not is_opposite))
        return (*both(of_cube(needs & PORTED), question), *elsewhere)
    boxes = scope.boxes(name[1:], tuple(s.kind for s in chosen))
    return _held(is_opposite, boxes, chosen, text)


def _in_boxes(operator: str, left: Json, right: Json, chosen: tuple[Selector, ...]) -> Cases:
    match right:
        case {"set": [*elements]}:
            pass
        case _:
            elements = [right]
    boxes = boxes_of(elements, tuple(s.kind for s in chosen))
    text = phrase({"match": {"op": "==", "left": left, "right": right}})
    return _held(_is_opposite(operator, _needs(chosen)), boxes, chosen, text)


def _both_ports(operator: str, left: Json, right: Json, scope: Scope) -> Cases:
    """Matches of both ports that the kernel reads as one number of 32 bits."""
    chosen = selectors([TH_SPORT, TH_DPORT], scope)
    numbers = kinds.NUMBER.values(right)
    if len(numbers) != numbers.count:
        raise NotUnderstoodError(phrase(left))
    boxes: list[Box] = [(Ranges.of(n >> 16), Ranges.of(n & 0xFFFF)) for n, _ in numbers]
    text = phrase({"match": {"op": "==", "left": left, "right": right}})
    return _held(_is_opposite(operator, EVERYTHING), boxes, chosen, text)


TH_SPORT: Json = {"payload": {"protocol": "th", "field": "sport"}}
TH_DPORT: Json = {"payload": {"protocol": "th", "field": "dport"}}


def _is_opposite(operator: str, packets: Cube) -> bool:
    if operator not in ("==", "in", "!="):
        raise NotUnderstoodError(operator, packets)
    return operator == "!="


def _held(is_opposite: bool, boxes: list[Box], chosen: tuple[Selector, ...], text: str) -> Cases:
    """The packets whose values are in some box, or with `is_opposite` in none.

    Where an expression reads what no field holds, the positive match `text` is a question.
    """
    found = of_boxes(_or_outside(is_opposite, boxes, chosen), chosen)
    apart = {place for place, each in enumerate(chosen) if not each.elsewhere.is_empty}
    if not apart:
        return found
    elsewhere = chosen[min(apart)].elsewhere
    there = of_cube(_needs(chosen) & elsewhere)
    others = tuple(each for place, each in enumerate(chosen) if place not in apart)
    rest = gathered(
        tuple(values for place, values in enumerate(box) if place not in apart) for box in boxes
    )
    open_text = _without_ports(text, holds=not is_opposite)
    inside = of_cube(Cube.of({f: UNIVERSE[f] - values for f, values in elsewhere}))
    found = (*both(inside, found), *both(there, both(of_boxes(rest, others), open_text)))
    if is_opposite:
        found += both(there, of_boxes(_or_outside(True, rest, others), others))
    return found


def _without_ports(text: str, *, holds: bool) -> Cases:
    """What a match of ports finds in packets that have other things where these would stand."""
    return unknown(f"{text} (no ports)", holds=holds)


def _or_outside(is_opposite: bool, boxes: list[Box], chosen: tuple[Selector, ...]) -> list[Box]:
    if not is_opposite:
        return boxes
    return gathered(outside(boxes, tuple(s.kind.universe for s in chosen)))


def of_boxes(boxes: list[Box], chosen: tuple[Selector, ...]) -> Cases:
    """The packets whose values are in some of these disjoint boxes."""
    if len(boxes) > MOST_CASES:
        raise NotUnderstoodError("a set of too many elements", _needs(chosen))
    fields = [s.field for s in chosen if s.field is not None]
    needs = _needs(chosen)
    if len(set(fields)) == len(chosen):
        # As one cube each; a needed value beside it is joined once.
        terms = dict(needs)
        found = []
        for box in boxes:
            wanted = dict(terms)
            for field, values in zip(fields, box, strict=True):
                wanted[field] = wanted[field] & values if field in wanted else values
            cube = Cube.of(wanted)
            if not cube.is_empty:
                found.append(Case(cube))
        return tuple(found)
    cases: list[Case] = []
    for box in boxes:
        here: Cases = of_cube(needs)
        for each, values in zip(chosen, box, strict=True):
            here = both(here, each.having(values))
        cases += here
    return tuple(cases)


def _needs(chosen: tuple[Selector, ...]) -> Cube:
    cube = EVERYTHING
    for each in chosen:
        cube = cube & each.needs
    return cube


# --- maps ---------------------------------------------------------------------------------------

Choices = list[tuple[Cases, Json]]


def chosen_by(key: Json, data: Json, scope: Scope) -> Choices:
    """For each value of a map the packets that it holds for; those of none of them fail.

    Raises NotUnderstoodError where packets or time may change what the map holds.
    """
    elements = map_elements(data, scope)
    groups: dict[str, tuple[Json, list[Json]]] = {}
    for element in elements:
        match element:
            case [said, value]:
                groups.setdefault(repr(value), (value, []))[1].append(said)
            case _:
                raise NotUnderstoodError(phrase(element))
    try:
        chosen = selectors(parts_of(key), scope)
        return _by_value(list(groups.values()), chosen, key)
    except NotUnderstoodError as reason:
        packets = of_cube(reason.packets)
        return [
            (both(packets, unknown(f"{phrase(key)} {phrase({'set': said})}")), value)
            for value, said in groups.values()
        ]


def _by_value(
    groups: Sequence[tuple[Json, list[Json]]], chosen: tuple[Selector, ...], key: Json
) -> Choices:
    of = tuple(s.kind for s in chosen)
    found: Choices = []
    listed: list[Box] = []
    others: list[Json] = []
    for value, said in groups:
        boxes = gathered(box_of(one, of) for one in said if not _is_anything_else(one))
        listed += boxes
        if boxes:
            found.append((_chosen(boxes, chosen, key, said), value))
        if any(map(_is_anything_else, said)):
            others.append(value)
    for value in others:
        boxes = gathered(outside(listed, tuple(kind.universe for kind in of)))
        found.append((_chosen(boxes, chosen, key, [ANYTHING_ELSE]), value))
    return found


def _chosen(boxes: list[Box], chosen: tuple[Selector, ...], key: Json, said: list[Json]) -> Cases:
    return _held(False, boxes, chosen, f"{phrase(key)} {phrase({'set': said})}")


def _is_anything_else(element: Json) -> bool:
    match element:
        case {"elem": {"val": value}} if kinds.is_plain(element):
            return _is_anything_else(value)
    return element == ANYTHING_ELSE


def map_elements(data: Json, scope: Scope) -> list[Json]:
    """The elements of a map that lasts, written there or by name; raises NotUnderstoodError."""
    match data:
        case {"set": [*elements]}:
            return elements
        case str(name) if name[1:] in scope.table.maps:
            body = scope.table.maps[name[1:]]
            if scope.is_lasting(name[1:], body):
                return elements_of(body)
    raise NotUnderstoodError(f"map {phrase(data)}")


# --- left sides ---------------------------------------------------------------------------------


def selectors(parts: Sequence[Json], scope: Scope) -> tuple[Selector, ...]:
    """What the parts of a concatenation read; raises NotUnderstoodError."""
    found: list[Selector] = []
    packets, reasons = EVERYTHING, list[str]()
    for part in parts:
        try:
            chosen = selector(part, scope)
            found.append(_beside_others(part, chosen) if len(parts) > 1 else chosen)
            packets = packets & found[-1].needs
        except NotUnderstoodError as reason:
            reasons.append(reason.text)
            packets = packets & reason.packets
    if reasons:
        raise NotUnderstoodError(" . ".join(reasons), packets)
    return tuple(found)


def _beside_others(part: Json, chosen: Selector) -> Selector:
    """What a part of a concatenation reads; raises NotUnderstoodError where nft misprints it.

    Of code points it prints numbers that are shifted or not, as it happens, and of ranges of
    lengths 0 (as seen with nft 1.0.6 and 1.1.3).
    """
    if chosen.words == "ip6 dscp" or operation(part) is not None:
        raise NotUnderstoodError(phrase(part), chosen.needs)
    if chosen.field is Field.SIZE:
        return replace(chosen, kind=kinds.SOME_LENGTH)
    return chosen


def selector(expression: Json, scope: Scope) -> Selector:
    """What an expression reads; raises NotUnderstoodError with the packets it can be read of."""
    match expression:
        case {"payload": {"tunnel": _}}:  # a header within the packet that was wrapped
            raise NotUnderstoodError(phrase(expression))
        case {"payload": {"protocol": str(protocol), "field": str(name)}}:
            return payload(protocol, name, scope.table.family)
        case {"payload": {"base": "th", "offset": 0, "len": 16}}:
            return selector(TH_SPORT, scope)
        case {"payload": {"base": "th", "offset": 16, "len": 16}}:
            return selector(TH_DPORT, scope)
        case {"meta": {"key": str(key)}}:
            return metas.meta(key, scope)
        case {"ct": {"key": str(key), **rest}} if rest.keys() <= {"dir"}:
            return connections.connection(key, str(rest.get("dir", "")), scope.table.family)
        case {"fib": {"result": str(result), "flags": flags}}:
            names = flags if isinstance(flags, list) else [flags]
            return fib(result, frozenset(map(str, names)))
        case {"rt": {"key": "ipsec"}}:
            return of_field("rt ipsec", THERE, Field.IPSEC_OUT)
        case {"exthdr": {"name": "rt", "field": _}}:
            raise NotUnderstoodError(phrase(expression), OF_FAMILY[6] & ROUTED)
        case {"exthdr": {"name": "rt"}}:
            return of_field("exthdr rt", THERE, Field.SOURCE_ROUTED, OF_FAMILY[6])
        case {"exthdr": _}:
            raise NotUnderstoodError(phrase(expression), OF_FAMILY[6])
        case {"ip option": _}:
            raise NotUnderstoodError(phrase(expression), OF_FAMILY[4])
        case {"tcp option": {"field": _}}:
            raise NotUnderstoodError(phrase(expression), OF_TCP)
    computation = operation(expression)
    if computation is not None:
        return _operated(computation, phrase(expression), scope)
    raise NotUnderstoodError(phrase(expression))


ROUTED = Cube.of({Field.SOURCE_ROUTED: Ranges.of(1)})
OF_TCP = Cube.of({Field.L4PROTO: Ranges.of(TCP)})


def _operated(computation: tuple[str, list[Json]], words: str, scope: Scope) -> Selector:
    operator, (inner, *others) = computation
    chosen = selector(inner, scope)
    for other in others:
        chosen = computed(chosen, operator, _number(operator, chosen, other), words)
    return chosen


def _number(operator: str, chosen: Selector, said: Json) -> int:
    if operator in ("<<", ">>"):
        if isinstance(said, int) and 0 <= said < MOST_BITS:
            return said
        raise NotUnderstoodError(phrase(said), chosen.needs)
    return chosen.kind.number(said)
