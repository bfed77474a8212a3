"""Answers that come from elsewhere than where the question went; knows no particular service.

A question to a group is answered by machines that nobody asked by name, so conntrack takes
their answers for something new. What lets them in is the question itself, remembered for a
short time.
"""

from __future__ import annotations

from collections.abc import Iterator

from policylang.ir import actions as ir
from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import Rule
from policylang.ir.stages import Path
from policylang.lower.paths import Places, traffic_cube
from policylang.model.types import PolicyRule, Traffic, Verb
from policylang.packets.cube import Cube
from policylang.packets.fields import UDP, Field
from policylang.packets.packetset import compact
from policylang.packets.values import Ranges

# UPnP's devices wait up to 5 s with their answers (MX), DHCP's servers a few (RFC 2131: a probe).
ANSWER_TIMEOUT_S = 10

YES = Ranges.of(1)


def asks(rule: PolicyRule) -> tuple[Traffic, ...]:
    """What of a rule is answered from anywhere."""
    if rule.verb is not Verb.ALLOW:
        return ()
    return tuple(t for t in rule.what if t.answers_from_any)


def reminders(rule: PolicyRule, path: Path, *, closed_outbound: bool) -> tuple[Rule, ...]:
    """The rules that remember a rule's questions on a path.

    `closed_outbound` says whether what this host sends is restricted at all.
    """
    action: ir.RememberAsker | ir.RememberQuestion
    if path is Path.INPUT:
        if not closed_outbound:
            return ()
        action = ir.RememberAsker(ANSWER_TIMEOUT_S)
    else:
        action = ir.RememberQuestion(ANSWER_TIMEOUT_S)
    origins = (Origin(Why.ANSWER, rule.span, rule.name),)
    return tuple(Rule(c, action, (), origins) for c in compact(map(traffic_cube, asks(rule))))


def answers(
    rule: PolicyRule, path: Path, places: Places, *, closed_outbound: bool
) -> Iterator[Rule]:
    """The rules that admit the answers to a rule's questions on a path."""
    asked = asks(rule)
    if not asked:
        return
    origins = (Origin(Why.ANSWER, rule.span, rule.name),)
    opening = places.between(rule.source, rule.destination)
    udp = Cube.of({Field.L4PROTO: Ranges.of(UDP)})
    if path is not Path.OUTPUT:
        if opening[Path.OUTPUT if path is Path.INPUT else Path.FORWARD]:
            yield Rule(udp & Cube.of({Field.ANSWER: YES}), ir.Accept(), (), origins)
        return
    if not opening[Path.INPUT] or not closed_outbound:
        return
    back = places.between(rule.destination, rule.source)[Path.OUTPUT]
    # Where an answer goes to is known by its interface alone: the asker may have no address yet.
    ways = compact(Cube.of({Field.OIF: cube[Field.OIF]}) for cube in back)
    for traffic in asked:
        assert traffic.ports is not None
        cube = udp & Cube.of({Field.SPORT: traffic.ports, Field.TO_ASKER: YES})
        for way in ways:
            yield Rule(cube & way, ir.Accept(), (), origins)
