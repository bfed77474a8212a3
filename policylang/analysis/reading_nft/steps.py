"""The expressions of a rule one after the other: what each does, to which packets.

It knows what each expression means, and not what comes of a rule as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from policylang.analysis.machine import Act, AddTo, Condition, Goto, Obscure, Return, Unknown
from policylang.analysis.reading_nft import (
    kinds,
    marking,
    measures,
    source_routes,
    translations,
    words,
)
from policylang.analysis.reading_nft.cases import (
    ALWAYS,
    Case,
    Cases,
    NotUnderstoodError,
    both,
    of_cube,
    unknown,
)
from policylang.analysis.reading_nft.deeds import Step
from policylang.analysis.reading_nft.headers import OF_FAMILY
from policylang.analysis.reading_nft.listing import Json, ListedRule, Object, flags_of, parts_of
from policylang.analysis.reading_nft.matches import OF_TCP, chosen_by, matched, selectors
from policylang.analysis.reading_nft.phrases import phrase
from policylang.analysis.reading_nft.scope import Scope, chain_name
from policylang.analysis.reading_nft.selectors import Selector
from policylang.ir import actions as ir
from policylang.ir.actions import Answer
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import TCP, UDP, Field, State
from policylang.packets.values import Range, Ranges

CONNTRACK = -200  # NF_IP_PRI_CONNTRACK


@dataclass(frozen=True, slots=True)
class Around:
    """What a rule's meaning depends on beside its own words."""

    scope: Scope
    place: str  # what no other rule is called
    before_a_drop: bool  # the next rule of the chain drops all that comes to it


def steps(rule: ListedRule, around: Around) -> Iterator[Step]:
    """The steps of a rule, in order."""
    routed, expressions = source_routes.taken(rule.expressions)
    if routed is not None:
        yield _test(routed)
    for place, expression in enumerate(expressions):
        if isinstance(expression, dict) and "tproxy" in expression:
            proxied = _proxied(expression["tproxy"], expressions[place + 1 :], around)
            if proxied is not None:
                yield proxied
                return
            yield from _anything(expression)
        elif _is_of_its_own(expression):
            said = f"{around.place}, {place + 1}"
            yield from (_apart(step, said) for step in _steps(expression, around))
        else:
            yield from _steps(expression, around)


def _is_of_its_own(expression: Json) -> bool:
    """Whether what an expression finds is no other's, though they be of the same words.

    Each counter and each die has its own numbers, each quota what is left of it, and of xtables'
    matches and targets nft lists the names alone.
    """
    match expression:
        case {"xt": _} | {"quota": {"val": _}} | {"limit": {"rate_unit": _}}:
            return True
        case {**body}:
            return "numgen" in body or any(map(_is_of_its_own, body.values()))
        case [*parts]:
            return any(map(_is_of_its_own, parts))
    return False


def _apart(step: Step, place: str) -> Step:
    """The step, with its questions and what it may do asked at this place alone."""
    return replace(
        step, deeds=[(_asked_at(cases, place), _done_at(act, place)) for cases, act in step.deeds]
    )


def _asked_at(cases: Cases, place: str) -> Cases:
    return tuple(
        replace(case, conditions=tuple(_question_at(c, place) for c in case.conditions))
        for case in cases
    )


def _question_at(condition: Condition, place: str) -> Condition:
    match condition.question:
        case Unknown(text):
            return replace(condition, question=Unknown(f"{text} ({place})"))
    return condition


def _done_at(act: Act | None, place: str) -> Act | None:
    return replace(act, text=f"{act.text} ({place})") if isinstance(act, Obscure) else act


def _test(cases: Cases) -> Step:
    return Step([(cases, None)])


def _do(act: Act, cases: Cases = ALWAYS) -> Step:
    return Step([(cases, act)])


PASSED_OVER = ("counter", "last", "continue", "comment")
MEASURES = ("limit", "ct count", "quota")
UNDECIDING = ("dup", "reset", "ct timeout", "ct expectation", "secmark", "map")


def _steps(expression: Json, around: Around) -> Iterator[Step]:
    scope = around.scope
    if not isinstance(expression, dict) or len(expression) != 1:
        yield from _anything(expression)
        return
    ((word, body),) = expression.items()
    match word, body:
        case "match", _:
            yield _test(matched(expression, scope))
        case _ if word in PASSED_OVER:
            pass
        case _ if word in MEASURES:
            yield _test(measures.measured(expression, scope))
        case _ if word in VERDICTS:
            yield _do(_verdict(expression, scope))
        case "vmap", {"key": key, "data": data}:
            yield _chosen(key, data, scope)
        case _ if word in translations.WORDS:
            yield Step(translations.translated(word, body, scope))
        case "mangle", {"key": key, "value": value}:
            yield from marking.written(key, value, scope)
        case "reject", _:
            yield from _rejected(body)
        case "log", _:
            yield _do(_logged(body if isinstance(body, dict) else {}))
        case "queue", _:
            yield _do(_queued(body if isinstance(body, dict) else {}))
        case "notrack", _:
            yield _untracked(scope)
        case "ct helper", str(name):
            yield _helped(name, scope)
        case "set", {"op": op, "elem": element, "set": str(name), **rest}:
            yield from _put(expression, str(op), element, name[1:], rest.get("stmt"), around)
        case "meter", {"key": key, "stmt": statement}:
            yield _test(measures.measured_by(key, statement))
        case "flow", {"flowtable": str(name)}:
            yield _do(_offloaded(name.removeprefix("@"), scope))
            yield _test(unknown("the connection can be offloaded"))
        case "synproxy", _:
            yield _do(Obscure(phrase(expression), may_decide=True), of_cube(OF_TCP))
        case "xt", {"type": "match", **_rest}:
            yield _test(unknown(phrase(expression)))
        case "fwd", _:
            yield _do(Obscure(phrase(expression), may_decide=True))
        case "map", {"stmt": [_, *_]}:  # which may be measures
            yield from _anything(expression)
        case _ if word in UNDECIDING:
            yield _do(Obscure(phrase(expression), may_decide=False))
        case _:
            yield from _anything(expression)


def _anything(expression: Json) -> Iterator[Step]:
    """Something not known at all: it may end the rule, or the packet."""
    text = phrase(expression)
    yield _do(Obscure(text, may_decide=True), unknown(text))


# --- verdicts -----------------------------------------------------------------------------------

VERDICTS = ("accept", "drop", "return", "jump", "goto")


def _verdict(expression: Json, scope: Scope) -> Act:
    match expression:
        case {"accept": _}:
            return ir.Accept()
        case {"drop": _}:
            return ir.Drop()
        case {"return": _}:
            return Return()
        case {"jump": {"target": str(name)}} if name in scope.table.chains:
            return ir.Jump(chain_name(scope, name))
        case {"goto": {"target": str(name)}} if name in scope.table.chains:
            return Goto(chain_name(scope, name))
    return Obscure(phrase(expression), may_decide=True)


def _chosen(key: Json, data: Json, scope: Scope) -> Step:
    """A verdict map; the rule ends for what it does not hold."""
    try:
        choices = chosen_by(key, data, scope)
    except NotUnderstoodError as reason:
        text = phrase({"vmap": {"key": key, "data": data}})
        return _do(Obscure(text, may_decide=True), of_cube(reason.packets))
    return Step(
        [
            (cases, None if value == {"continue": None} else _verdict(value, scope))
            for cases, value in choices
        ]
    )


def _rejected(body: Json) -> Iterator[Step]:
    match body:
        case None:
            yield _do(ir.Reject(Answer.PORT_UNREACHABLE))
        case {"type": "tcp reset"}:
            yield _do(ir.Reject(Answer.TCP_RESET), of_cube(OF_TCP))
        case {"type": str(sort), "expr": str() | int() as said}:
            family = {"icmp": 4, "icmpv6": 6}.get(sort)
            cases = ALWAYS if family is None else of_cube(OF_FAMILY[family])
            code = said
            if isinstance(said, int):
                code = words.REJECT_NUMBERS.get(sort, {}).get(said, str(said))
            if code in words.REJECT_CODES:
                yield _do(ir.Reject(Answer(words.REJECT_CODES[code])), cases)
            else:  # it is dropped all the same
                yield _do(Obscure(f"reject with {sort} {code}", may_decide=False), cases)
                yield _do(ir.Drop())
        case _:
            yield _do(Obscure(f"reject with {phrase(body)}", may_decide=False))
            yield _do(ir.Drop())


def _queued(body: Object) -> Act:
    flags = flags_of(body.get("flags"))
    try:
        low, high = kinds.PORT.pair(body.get("num", 0))
    except NotUnderstoodError:
        return Obscure(phrase({"queue": body}), may_decide=True)
    return ir.Queue(low, high, "bypass" in flags)


# --- what goes on -------------------------------------------------------------------------------


def _logged(body: Object) -> Act:
    prefix, level, group = body.get("prefix"), body.get("level"), body.get("group")
    return ir.Log(
        prefix if isinstance(prefix, str) else "",
        level if isinstance(level, str) else None,
        group if isinstance(group, int) else None,
    )


def _untracked(scope: Scope) -> Step:
    """Packets that conntrack has not seen stay so; behind it, those of which it made nothing."""
    if all(priority < CONNTRACK for _, priority in scope.places):
        return _do(ir.Untrack())
    if all(priority > CONNTRACK for _, priority in scope.places):
        invalid = of_cube(Cube.of({Field.CT_STATE: Ranges.of(State.INVALID)}))
        return Step([(invalid, ir.Untrack())], goes_on=True)
    return _do(Obscure("notrack", may_decide=False))


def _helped(name: str, scope: Scope) -> Step:
    """The helper of an object, for connections of its protocol that conntrack has seen."""
    body = scope.table.objects.get(("ct helper", name), {})
    kind, protocol = body.get("type"), words.PROTOCOLS.get(str(body.get("protocol")))
    works = all(priority > CONNTRACK for _, priority in scope.places)
    if not isinstance(kind, str) or protocol is None or not works:
        return _do(Obscure(f"ct helper set {name}", may_decide=False))
    cube = Cube.of({Field.L4PROTO: Ranges.of(protocol)})
    family = {"ip": 4, "ip6": 6}.get(str(body.get("l3proto")))
    if family is not None:
        cube = cube & OF_FAMILY[family]
    return Step([(of_cube(cube), ir.AssignHelper(kind, protocol))], goes_on=True)


def _put(
    expression: Json, op: str, element: Json, name: str, statements: Json, around: Around
) -> Iterator[Step]:
    """What is put into a set, and what is measured there for each element."""
    key, timeout_s = _key(element)
    fields: tuple[Field, ...] | None
    try:
        chosen = selectors(parts_of(key), around.scope)
        fields, packets = _fields(chosen), _packets(s.needs for s in chosen)
    except NotUnderstoodError as reason:
        fields, packets = None, reason.packets
    yield _test(of_cube(packets))
    kept = statements if isinstance(statements, list) else [statements] if statements else []
    for statement in kept:
        yield _test(measures.measured_by(key, statement))
    if kept and name not in around.scope.looked_up:
        return
    if op in ("add", "update") and fields is not None:
        yield _do(AddTo(around.scope.named(name), fields, timeout_s))
    else:
        yield _do(Obscure(phrase(expression), may_decide=False))


def _fields(chosen: Sequence[Selector]) -> tuple[Field, ...] | None:
    """The fields that are read, where nothing else is."""
    fields = tuple(s.field for s in chosen if s.field is not None)
    return fields if len(fields) == len(chosen) else None


def _packets(needs: Iterator[Cube]) -> Cube:
    cube = EVERYTHING
    for each in needs:
        cube = cube & each
    return cube


def _key(element: Json) -> tuple[Json, int | None]:
    """The key of an element that is put into a set, and after how long it is gone again."""
    match element:
        case {"elem": {"val": key, "timeout": int(timeout_s)}}:
            return key, timeout_s
        case {"elem": {"val": key}}:
            return key, None
    return element, None


def _offloaded(name: str, scope: Scope) -> Act:
    body = scope.table.objects.get(("flowtable", name), {})
    return ir.Offload(tuple(sorted(flags_of(body.get("dev")))))


# --- transparent proxies ------------------------------------------------------------------------


def _proxied(body: Json, others: Sequence[Json], around: Around) -> Step | None:
    """A `tproxy` with the mark and the verdict behind it; None where it is another thing.

    Where no socket listens, the packet goes on to the next rule: so it is sure only in front of
    one that drops it.
    """
    mark = _marked_and_accepted(others)
    match body:
        case {"port": int(port), **rest} if mark is not None and rest.keys() <= {"family"}:
            return _to_proxy(port, rest.get("family"), mark, around)
    return None


def _to_proxy(port: int, family: Json, mark: Range, around: Around) -> Step:
    heard: Cases = ALWAYS
    if not around.before_a_drop:
        heard = unknown(f"a transparent socket listens on port {port}")
    if family in ("ip", "ip6"):
        heard = both(heard, of_cube(OF_FAMILY[4 if family == "ip" else 6]))
    return Step(
        [
            (
                both(heard, (Case(Cube.of({Field.L4PROTO: Ranges.of(protocol)})),)),
                ir.TransparentProxy(port, protocol, *mark),
            )
            for protocol in (TCP, UDP)
        ]
    )


def _marked_and_accepted(expressions: Sequence[Json]) -> tuple[int, int] | None:
    """The mark that statements set, as `(value, mask)`, where they accept at the end."""
    value, mask = 0, 0
    for expression in expressions:
        match expression:
            case {"accept": _}:
                return value, mask
            case {"mangle": {"key": {"meta": {"key": "mark"}}, "value": said}}:
                act = marking.mark(said)
                if act is None:
                    return None
                value, mask = value & ~act.mask | act.value, mask | act.mask
            case {"counter": _}:
                pass
            case _:
                return None
    return None
