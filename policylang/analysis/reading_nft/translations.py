"""Statements that change where a connection comes from or goes to."""

from __future__ import annotations

from collections.abc import Iterator

from policylang.analysis.machine import Act, Obscure
from policylang.analysis.reading_nft import kinds
from policylang.analysis.reading_nft.cases import (
    ALWAYS,
    Cases,
    NotUnderstoodError,
    both,
    of_cube,
)
from policylang.analysis.reading_nft.deeds import Deeds
from policylang.analysis.reading_nft.headers import OF_FAMILY, PORTED
from policylang.analysis.reading_nft.listing import Json, Object, flags_of
from policylang.analysis.reading_nft.matches import chosen_by, map_elements
from policylang.analysis.reading_nft.phrases import phrase
from policylang.analysis.reading_nft.scope import Scope
from policylang.ir import actions as ir
from policylang.packets.values import Range, Ranges

WORDS = ("dnat", "snat", "masquerade", "redirect")


def translated(word: str, body: Json, scope: Scope) -> Deeds:
    """What a statement of translation does; what is not understood of it may decide anything."""
    said: Object = body if isinstance(body, dict) else {}
    try:
        return list(_translated(word, said, scope))
    except NotUnderstoodError:
        return [(_needs(said, scope), Obscure(phrase({word: body}), may_decide=True))]


def _translated(word: str, said: Object, scope: Scope) -> Iterator[tuple[Cases, Act]]:
    match word:
        case "masquerade":
            yield _ported(said), ir.Masquerade(_ports(said.get("port")), _is_random(said))
        case "redirect":
            for cases, port in _choices(said.get("port"), scope):
                number = _ports(port)
                if number is None or number[0] != number[1]:
                    raise NotUnderstoodError("redirect")
                yield both(_ported(said), cases), ir.RedirectToSelf(number[0])
        case "snat":
            for cases, address in _choices(said.get("addr"), scope):
                yield both(_needs(said, scope), cases), _source(said, address)
        case _:
            turns = _in_turn(said, scope)
            if turns is not None:
                yield _needs(said, scope), turns
                return
            for cases, address, port in _targets(said, scope):
                yield both(_needs(said, scope), cases), _destination(said, address, port)


def _needs(said: Object, scope: Scope) -> Cases:
    """The packets of the family that a statement is for, and that have ports if it names some."""
    family = {"ip": 4, "ip6": 6}.get(str(said.get("family", scope.table.family)))
    cases = ALWAYS if family is None else of_cube(OF_FAMILY[family])
    return both(cases, _ported(said))


def _ported(said: Object) -> Cases:
    return ALWAYS if said.get("port") is None else of_cube(PORTED)


def _choices(said: Json, scope: Scope) -> list[tuple[Cases, Json]]:
    """What a map in place of a value comes to, or the value for all."""
    match said:
        case {"map": {"key": key, "data": data}}:
            return chosen_by(key, data, scope)
    return [(ALWAYS, said)]


def _targets(said: Object, scope: Scope) -> Iterator[tuple[Cases, Json, Json]]:
    """The addresses and ports by the packets that are sent there."""
    for cases, address in _choices(said.get("addr"), scope):
        match address:
            case {"concat": [to, port]}:
                yield both(cases, of_cube(PORTED)), to, port
            case _:
                for also, port in _choices(said.get("port"), scope):
                    yield both(cases, also), address, port


def _source(said: Object, address: Json) -> Act:
    if _is_prefix(said):
        return _mapped(ir.End.SOURCE, address, said.get("port"))
    flags = flags_of(said.get("flags"))
    return ir.SourceNat(
        _range(address), _ports(said.get("port")), _is_random(said), "persistent" in flags
    )


def _destination(said: Object, address: Json, port: Json) -> Act:
    if _is_prefix(said):
        return _mapped(ir.End.DESTINATION, address, port)
    targets = _range(address)
    ports = _ports(port)
    if ports is not None and ports[0] != ports[1]:
        raise NotUnderstoodError("dnat to a range of ports")
    by_source = targets[0] != targets[1] and "persistent" in flags_of(said.get("flags"))
    return ir.DestinationNat(Ranges((targets,)), None if ports is None else ports[0], by_source)


def _mapped(end: ir.End, address: Json, port: Json) -> Act:
    if port is not None:
        raise NotUnderstoodError("a prefix with ports")
    return ir.MapPrefix(end, _range(address))


def _is_prefix(said: Object) -> bool:
    return "prefix" in flags_of(said.get("type_flags")) or "netmap" in flags_of(said.get("flags"))


def _is_random(said: Object) -> bool:
    return not {"random", "fully-random"}.isdisjoint(flags_of(said.get("flags")))


def _range(address: Json) -> Range:
    """An address, a range or a prefix as a range of one family; raises NotUnderstoodError."""
    try:
        return kinds.V4.pair(address)
    except NotUnderstoodError:
        return kinds.V6.pair(address)


def _ports(port: Json) -> Range | None:
    return None if port is None else kinds.PORT.pair(port)


# --- targets that connections take in turn ------------------------------------------------------


def _in_turn(said: Object, scope: Scope) -> Act | None:
    """The targets among which a counter, a die or a hash chooses; None where the packet does.

    Raises NotUnderstoodError where not each of its numbers has a target, or ports differ.
    """
    match said.get("addr"):
        case {"map": {"key": key, "data": data}}:
            turn = _turn(key)
        case _:
            return None
    if turn is None:
        return None
    first, count = turn
    numbers: list[Range] = []
    targets: list[Range] = []
    ports = {_ports(said.get("port"))}
    for element in map_elements(data, scope):
        match element:
            case [number, {"concat": [address, port]}]:
                ports.add(_ports(port))
                ports.discard(None)
            case [number, address]:
                pass
            case _:
                raise NotUnderstoodError(phrase(element))
        numbers.append(kinds.NUMBER.pair(number))
        targets.append(_range(address))
    turns = Ranges.between(first, first + count - 1)
    if len(ports) != 1 or not Ranges.merged(numbers).covers(turns):
        raise NotUnderstoodError(phrase(key))
    (port_range,) = ports
    if port_range is not None and port_range[0] != port_range[1]:
        raise NotUnderstoodError(phrase(key))
    port_number = None if port_range is None else port_range[0]
    return ir.DestinationNat(Ranges.merged(targets), port_number, _is_by_source(key))


def _turn(key: Json) -> tuple[int, int] | None:
    """The first number that a counter, a die or a hash yields, and how many there are."""
    match key:
        case {"numgen": {"mod": int(count), **rest}}:
            pass
        case {"jhash": {"mod": int(count), **rest}}:
            pass
        case {"symhash": {"mod": int(count), **rest}}:
            pass
        case _:
            return None
    offset = rest.get("offset")
    return (offset if isinstance(offset, int) else 0), count


def _is_by_source(key: Json) -> bool:
    match key:
        case {"jhash": {"expr": {"payload": {"protocol": "ip" | "ip6", "field": "saddr", **rest}}}}:
            return not rest
    return False
