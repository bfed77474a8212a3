"""What two policies do differently is told exactly: against brute force, and case by case."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice, product
from pathlib import Path as FilePath
from random import Random

import pytest

from policylang.analysis.changed import Change, Differences, Kind
from policylang.analysis.diagram import Packets, Space
from policylang.analysis.differences import differences
from policylang.analysis.first_packets import first_packets
from policylang.analysis.machine import (
    Condition,
    ConnectionMarkIs,
    InSet,
    Machine,
    MarkIs,
    MaskIs,
    NotAfter,
    OwnerIs,
    Question,
    WeekTimeIs,
)
from policylang.analysis.modelled import machine_of
from policylang.analysis.naming import names_of
from policylang.analysis.ours import as_asked
from policylang.analysis.reviewing import counted, tell
from policylang.analysis.sides import Side, Way
from policylang.analysis.sides import Verdict as Fare
from policylang.analysis.walking import Moment as WalkMoment
from policylang.analysis.walking import Verdict, walk
from policylang.analysis.wording import Names
from policylang.diagnostics import Report
from policylang.ir import actions as ir
from policylang.ir.stages import Path, Stage
from policylang.lower.stateful import lower
from policylang.model.policy import Policy
from policylang.packets.cube import Cube
from policylang.packets.fields import Field
from policylang.packets.values import V6_BASE, Ranges, parse_address
from policylang.pipeline import Text, policy_of
from tests.analysis.brute import NOW, _grid, readable
from tests.benchmark.policies import overlapping_rules
from tests.differential.lowering import fields_of
from tests.differential.probes import aimed_at
from tests.reference.interpreter import Moment, Packet, decide

NOBODY = 0xFFFF_FFFF
ALL_BITS = 0xFFFF_FFFF

ZONES = """\
zone wan { interface eth0 }
zone lan { interface eth1  network 192.168.1.0/24 }
set admins = 192.0.2.0/24, 2001:db8:1::/48
"""


def read(text: str, name: str = "a.policy") -> tuple[Machine, Names]:
    """The machine of a policy's text, and its names."""
    report = Report()
    policy = policy_of(Text(text, name, FilePath()), report)
    assert policy is not None, report.diagnostics
    ruleset = lower(policy, report)
    assert not report.has_errors, report.diagnostics
    names = names_of(policy, ruleset.address_tests)
    return as_asked(machine_of(ruleset), ruleset, "nft"), names


def between(old: str, new: str) -> list[str]:
    """What differs, one line a change: its kind, its way, its packets, what was and what is."""
    (before, old_names), (after, new_names) = read(old, "old.policy"), read(new, "new.policy")
    found = differences(before, after, Space())
    return [_line(change, old_names, new_names) for change in found.changes]


def _line(change: Change, old: Names, new: Names) -> str:
    told = tell(change, old, new)
    packets = "; ".join(told.packets) + "".join(f"; except {text}" for text in told.excepted)
    kind = "" if change.is_plain else "odd "
    return f"{kind}{change.kind} {change.way} {packets} [{told.was} -> {told.becomes}]"


# --- no difference ----------------------------------------------------------------------------

SAME = {
    "a zone is renamed": (
        "zone wan { interface eth0 } allow ssh inbound from wan",
        "zone outside { interface eth0 } allow ssh inbound from outside",
    ),
    "allows change places": (
        "allow ssh inbound from 192.0.2.1 allow http inbound",
        "allow http inbound allow ssh inbound from 192.0.2.1",
    ),
    "a set is written out": (
        "set a = 192.0.2.0/25, 192.0.2.128/25 allow ssh inbound from a",
        "allow ssh inbound from 192.0.2.0/24",
    ),
    "a statement is cut in two": (
        "allow ssh, http inbound",
        "# a comment\nallow ssh inbound\nallow http inbound",
    ),
    "what no packet reaches is gone": (
        "allow tcp 1-100 inbound deny ssh inbound",
        "allow tcp 1-100 inbound",
    ),
    "dynamic sets change places": (
        "set a = dynamic set b = dynamic deny all from a to any deny all from b to any",
        "set b = dynamic set a = dynamic deny all from b to any deny all from a to any",
    ),
    "rates of statements that change places": (
        "allow ssh inbound limit 4/minute allow http inbound limit 9/minute",
        "allow http inbound limit 9/minute allow ssh inbound limit 4/minute",
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_what_means_the_same_is_no_difference(case: str) -> None:
    assert between(*SAME[case]) == []
    assert between(*reversed(SAME[case])) == []


def test_one_packet_of_several_answers_is_no_difference() -> None:
    """Where it is sent on to may be beyond either interface, and is answered otherwise there."""
    text = (
        f"{ZONES}set banned = dynamic\n"
        "reject all from lan to wan with tcp-reset, admin-prohibited\n"
        "deny all from banned to any\n"
        "dnat http, https from wan to 192.168.1.10 hairpin\n"
    )
    assert between(text, text) == []


def test_a_thousand_statements_that_overlap_take_little_room() -> None:
    """Each has a piece of its own on both sides; what both decide alike need not be kept."""
    text = overlapping_rules(1_000)
    lines = text.splitlines()
    (old, _), (new, _) = read(text), read("\n".join(lines[:500] + lines[501:]))
    (found,) = differences(old, new, Space(most_nodes=1_300_000)).changes
    assert found.kind is Kind.CLOSED


# --- what differs -----------------------------------------------------------------------------

CASES: dict[str, tuple[str, str, list[str]]] = {
    "a rule more": (
        "",
        "allow ssh inbound from admins",
        ["opened inbound tcp 22 (ssh) from admins [dropped -> ]"],
    ),
    "a rule less": (
        "allow ssh, http inbound from wan",
        "allow http inbound from wan",
        ["closed inbound tcp 22 (ssh) from wan [ -> dropped]"],
    ),
    "an exception": (
        "allow ssh inbound from wan",
        "allow ssh inbound from wan except admins",
        ["closed inbound tcp 22 (ssh) from admins in wan [ -> dropped]"],
    ),
    "a wider source": (
        "allow ssh inbound from admins",
        "allow ssh inbound",
        ["opened inbound tcp 22 (ssh) from any but admins [dropped -> ]"],
    ),
    "another answer": (
        "deny smtp outbound",
        "reject smtp outbound with admin-prohibited",
        ["answered outbound tcp 25 (smtp) [dropped -> rejected with admin-prohibited]"],
    ),
    "a wider rate": (
        "allow ssh inbound limit 4/minute",
        "allow ssh inbound limit 40/minute",
        ["loosened inbound tcp 22 (ssh) [within 4/minute (burst 5) -> within 40/minute (burst 5)]"],
    ),
    "a rate where there was none": (
        "allow ssh inbound",
        "allow ssh inbound limit 4/minute",
        ["tightened inbound tcp 22 (ssh) [always -> within 4/minute (burst 5)]"],
    ),
    "what had a rate is gone": (
        "allow ssh inbound limit 4/minute",
        "",
        ["closed inbound tcp 22 (ssh) [within 4/minute (burst 5) -> dropped]"],
    ),
    "a rate of another kind": (
        "allow ssh inbound limit 4/minute",
        "allow ssh inbound limit 4/minute per source",
        [
            "reconditioned inbound tcp 22 (ssh) "
            "[within 4/minute (burst 5) -> within 4/minute (burst 5) per source]"
        ],
    ),
    "a set that fills": (
        "set banned = dynamic allow ssh inbound",
        "set banned = dynamic deny all from banned to self allow ssh inbound",
        ["tightened inbound tcp 22 (ssh) [always -> with its source not in set `banned`]"],
    ),
    "another target": (
        "dnat tcp 2222 from wan to 192.168.1.10 port 22",
        "dnat tcp 2222 from wan to 192.168.1.11 port 22",
        [
            "translated inbound IPv4 tcp 2222 from wan "
            "[sent on to 192.168.1.10 port 22 -> sent on to 192.168.1.11 port 22]"
        ],
    ),
    "another source": (
        "allow https from lan to wan masquerade from lan to wan",
        "allow https from lan to wan snat from lan to wan as 198.51.100.7",
        [
            "translated forward tcp 443 (https) from lan to wan "
            "[from the address of the way out -> from 198.51.100.7]"
        ],
    ),
    "a port forward": (
        "",
        "dnat https from wan to 192.168.1.10",
        [
            "opened inbound IPv4 tcp 443 (https) from wan [dropped -> sent on to 192.168.1.10]",
        ],
    ),
    "a log": (
        "allow ssh inbound",
        'allow ssh inbound log "ssh "',
        [
            'logged inbound tcp 22 (ssh) [not logged -> logged as "ssh ", '
            "within 10/second (burst 5)]"
        ],
    ),
    "a log less": (
        'allow ssh inbound log "ssh "',
        "allow ssh inbound",
        [
            'logged inbound tcp 22 (ssh) [logged as "ssh ", within 10/second (burst 5) '
            "-> not logged]"
        ],
    ),
    "a mark": (
        "allow https from lan to wan",
        "allow https from lan to wan mark https from lan to wan as 0x10",
        [
            "marked forward tcp 443 (https) from lan to any but 192.168.1.0/24 "
            "[not marked -> marked 0x10]"
        ],
    ),
    "a helper": (
        "allow tcp 21 inbound",
        "allow ftp inbound",
        [
            "opened inbound tcp 1024-65535 (related, predicted by ftp) [dropped -> ]",
            "helped inbound tcp 21 (ftp) [without a helper -> given the helper ftp]",
        ],
    ),
    "put into a set": (
        "set seen = dynamic deny telnet inbound",
        "set seen = dynamic deny telnet inbound add source to seen for 1h",
        [
            "collected inbound tcp 23 (telnet) "
            "[put into no set -> its source put into `seen` for 3600s]"
        ],
    ),
    "open connections": (
        "deny all from 192.0.2.7 to self",
        "deny all from 192.0.2.7 to self also established",
        [
            "closed inbound all but icmp from 192.0.2.7 (established, original direction); "
            "icmp all but echo-request from 192.0.2.7 (established, original direction) "
            "[ -> dropped]",
            "closed outbound all but icmp to 192.0.2.7 (established, reply direction); "
            "icmp all but echo-request to 192.0.2.7 (established, reply direction) [ -> dropped]",
        ],
    ),
    "a default": (
        "default deny forward",
        "default reject forward",
        [
            "answered forward tcp [dropped -> rejected with tcp-reset]",
            "answered forward all but tcp [dropped -> rejected with port-unreachable]",
        ],
    ),
    "what opens stands before what closes": (
        "allow ssh inbound",
        "allow http inbound",
        [
            "opened inbound tcp 80 (http) [dropped -> ]",
            "closed inbound tcp 22 (ssh) [ -> dropped]",
        ],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_difference_is_told_in_the_words_of_the_policy(case: str) -> None:
    old, new, told = CASES[case]
    found = between(ZONES + old, ZONES + new)
    assert [line for line in found if not line.startswith("odd ")] == told


def test_the_statements_of_both_sides_are_named() -> None:
    (before, names), (after, _) = (
        read("allow ssh inbound\n"),
        read("\ndeny ssh inbound\n", "b.policy"),
    )
    (change,) = differences(before, after, Space()).of(Kind.CLOSED)
    told = tell(change, names, names)
    assert [one.text for one in told.statements_before] == ["a.policy:1 allow ssh inbound"]
    assert [one.text for one in told.statements_after] == ["b.policy:2 deny ssh inbound"]


def test_how_many_there_are_is_told() -> None:
    (before, _), (after, _) = read("allow ssh inbound"), read("allow http inbound")
    found = differences(before, after, Space())
    assert counted(found) == "1 newly allowed, 1 newly denied"
    assert found.opens
    assert not differences(after, after, Space()).opens


def test_an_example_has_the_bits_that_are_asked_of_its_address() -> None:
    (before, _), (after, _) = read(""), read("allow ssh inbound from ::10/-64")
    (change,) = differences(before, after, Space()).of(Kind.OPENED)
    assert (change.shown.example[Field.SADDR] - V6_BASE) & (1 << 64) - 1 == 0x10
    (change,) = differences(after, before, Space()).of(Kind.CLOSED)
    assert (change.shown.example[Field.SADDR] - V6_BASE) & (1 << 64) - 1 == 0x10


# --- brute force ------------------------------------------------------------------------------

LONGER = float(os.environ.get("POLICYLANG_ANALYSIS_SECONDS", 0)) > 0
MORE = 20 if LONGER else 1
GRID = 40


def test_what_passes_newly_is_what_the_language_says_packet_by_packet() -> None:
    """Of random pairs of policies, in every state: nothing more is told, and nothing less."""
    looked_at, differed = 0, 0
    for seed in range(7000, 7000 + 5 * MORE):
        pair = _pair(seed)
        if pair is None:
            continue
        (old, old_machine), (new, new_machine) = pair
        random = Random(seed)
        space = Space()
        found = differences(old_machine, new_machine, space)
        volley = aimed_at(old, 20, random)
        moment = Moment(volley.members, NOW, random.random() < 0.7)
        for packet in islice(_grid(volley, random), GRID):
            was, now = (decide(one, packet, moment).accepted for one in (old, new))
            gained, lost = found.exact[_WAYS[packet.direction.value], False]
            alone = _only(space, packet, moment)
            assert gained.meets(alone) == (now and not was), (seed, packet)
            assert lost.meets(alone) == (was and not now), (seed, packet)
            looked_at += 1
            differed += was != now
    assert looked_at > 100
    assert differed > 10


_WAYS = {"inbound": Way.INBOUND, "forward": Way.FORWARD, "outbound": Way.OUTBOUND}


def _pair(seed: int) -> tuple[tuple[Policy, Machine], tuple[Policy, Machine]] | None:
    """Two random policies; None where the compiler refuses one, or something changes packets."""
    sides = []
    for number in (seed, seed + 1000):
        made = readable(number)
        if made is None:
            return None
        policy, ruleset = made
        acts = {type(i.action) for c in ruleset.chains for i in c.items if hasattr(i, "action")}
        stages = {base.stage for base in ruleset.bases}
        if acts & _CHANGING or stages & {Stage.UNTRACK, Stage.DSTNAT, Stage.TPROXY}:
            return None
        sides.append((policy, as_asked(machine_of(ruleset), ruleset, "nft")))
    return sides[0], sides[1]


_CHANGING = {ir.SetMark, ir.SetConnectionMark, ir.SetDscp, ir.AddToSet, ir.TransparentProxy}


def _only(space: Space, packet: Packet, moment: Moment) -> Packets:
    """The set of one packet alone, with the answers to all that is asked of it."""
    absent = (
        Field.IIF,
        Field.OIF,
        Field.CT_HELPER,
        Field.CT_DIRECTION,
        Field.IPSEC,
        Field.IPSEC_OUT,
    )
    values: dict[Field, int] = dict.fromkeys(absent, 0) | dict(fields_of(packet))
    found = space.of(Cube.of({f: Ranges.of(value) for f, value in values.items()}))
    user, group = (NOBODY if n is None else n for n in (packet.user, packet.group))
    monday = moment.now.date() - timedelta(days=moment.now.weekday())
    start = datetime(monday.year, monday.month, monday.day, tzinfo=UTC)
    second = int((moment.now - start).total_seconds())
    told: list[Question] = [
        MarkIs(packet.mark, ALL_BITS),
        ConnectionMarkIs(0, ALL_BITS),
        OwnerIs("user", Ranges.of(user)),
        OwnerIs("group", Ranges.of(group)),
        WeekTimeIs(Ranges.of(second)),
    ]
    for question in told:
        found &= space.answered(Condition(question))
    for question, _ in list(space.asked()):
        found &= space.answered(Condition(question, _answer(question, values, moment)))
    return found


def _answer(question: Question, values: Mapping[Field, int], moment: Moment) -> bool:
    match question:
        case InSet(name, (f,)):
            held = {_number(str(a)) for a in moment.members.get(name, ())}
            return values[f] in held
        case MaskIs(f, value, mask):
            return values[f] >= V6_BASE and (values[f] - V6_BASE) & mask == value
        case NotAfter(last_day):
            return moment.now.date() <= last_day
        case _:
            return moment.within_rates


def _number(text: str) -> int:
    pair = parse_address(text)
    assert pair is not None
    return pair[0]


# --- examples ---------------------------------------------------------------------------------


def _changes(seeds: range) -> Iterator[tuple[int, Machine, Machine, Change, Differences]]:
    for seed in seeds:
        pair = _pair(seed)
        if pair is not None:
            (_, old), (_, new) = pair
            found = differences(old, new, Space())
            for change in found.changes:
                yield seed, old, new, change, found


def test_the_example_of_every_difference_differs_when_it_is_walked() -> None:
    """One packet is led through the rules, line by line, as nothing of sets of packets does."""
    looked_at = 0
    for seed, old, new, change, _ in _changes(range(7100, 7100 + 2 * MORE)):
        if change.kind not in (Kind.OPENED, Kind.CLOSED) or not change.is_first:
            continue
        was, now = (_passes(machine, change) for machine in (old, new))
        closed, opened = (now, was) if change.kind is Kind.CLOSED else (was, now)
        assert closed == {False}, (seed, change.kind, change.way, change.shown.example)
        assert True in opened, (seed, change.kind, change.way, change.shown.example)
        looked_at += 1
    assert looked_at > 5


def _passes(machine: Machine, change: Change) -> set[bool]:
    """Whether the example passes, for all answers that can matter together."""
    packet = dict(change.shown.example)
    if change.way is not Way.FORWARD:
        packet[Field.OIF if change.way is Way.INBOUND else Field.IIF] = 0
    asked = {
        condition.question
        for chain in machine.chains.values()
        for line in chain
        for condition in line.conditions
    }
    rates = [
        q
        for q in asked
        if not isinstance(q, InSet | MaskIs | MarkIs | ConnectionMarkIs)
        and getattr(q, "family", None) in (None, packet[Field.FAMILY])
    ]
    sets = {q.name for q in asked if isinstance(q, InSet)}
    keys = frozenset({(packet.get(Field.SADDR, 0),), (packet.get(Field.DADDR, 0),)})
    found = set()
    for choice in product((True, False), repeat=min(len(rates), 7)):
        answers: dict[Question, bool] = dict(zip(rates, choice, strict=False))
        for members in ({}, dict.fromkeys(sets, keys)):
            for mark in (0, 1, 2, 0x10):
                moment = WalkMoment(mark=mark if change.way is Way.OUTBOUND else 0, members=members)
                ended = walk(machine, packet, answers, moment)
                found.add(ended.verdict is Verdict.PASSES)
    return found


def test_ranges_hold_what_differs_and_nothing_that_passes_beside_it() -> None:
    """Of honest packets: beside what differs they hold at most what neither side even routes."""
    looked_at = 0
    for _, old, new, change, _ in _changes(range(7200, 7200 + 2 * MORE)):
        if not (change.is_plain and change.is_first and change.kind in (Kind.OPENED, Kind.CLOSED)):
            continue
        space, region = change.packets.space, change.shown.region
        sides = Side(old, space), Side(new, space)
        there = sides[0].domain(change.way) & first_packets(space)[_PATHS[change.way]]
        told = (space.of_all(region.cubes) - space.of_all(region.excepted)) & there
        assert not region.is_whole or told.covers(change.packets & there)
        beside = told - change.packets
        for side in sides:
            pieces = side.first(change.way).pieces
            passing = space.union(p.packets for p in pieces if p.verdict is Fare.ACCEPTED)
            assert not beside.meets(passing), (change.kind, change.way)
        looked_at += 1
    assert looked_at > 5


_PATHS = {Way.INBOUND: Path.INPUT, Way.FORWARD: Path.FORWARD, Way.OUTBOUND: Path.OUTPUT}
