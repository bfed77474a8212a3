"""Two sets of rules agree if they do the same to every packet; where they do not, one is shown."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import date
from fractions import Fraction
from pathlib import Path
from random import Random

import pytest

from policylang.analysis import agreement
from policylang.analysis.agreement import Disagreement, Ground
from policylang.analysis.classes import Classes
from policylang.analysis.differing import in_words
from policylang.analysis.machine import (
    ALL,
    AddTo,
    Base,
    Condition,
    CopyMark,
    Goto,
    Hook,
    InSet,
    Line,
    Machine,
    MarkIs,
    NotAfter,
    Obscure,
    RateHolds,
    Return,
)
from policylang.analysis.places_that_work import misplaced
from policylang.analysis.possible import LAWS, Law
from policylang.apply import proved
from policylang.apply.loaded import Chain, Loaded, Rule
from policylang.diagnostics import Report
from policylang.ir import actions as ir
from policylang.packets.cube import Cube
from policylang.packets.fields import TCP, UDP, UNIVERSE, Field, State
from policylang.packets.values import Ranges, name_range, parse_address
from tests.analysis.mutants import NOT_HERE, policies
from tests.analysis.ways import WAYS, RefusedError, rehearsed, rules_of, verified
from tests.kernel.ground import obstacle

PROVED = Path(__file__).parent / "proved"
ALL_WAYS = "POLICYLANG_ALL_WAYS"  # in the environment: goldens and examples, by each way


# --- by hand ----------------------------------------------------------------------------------

ACCEPT, DROP = ir.Accept(), ir.Drop()
RATE = RateHolds(Fraction(5), 10, None, 4)


def tcp(port: int, **more: Ranges) -> Cube:
    """TCP to a port, with terms by the names of fields."""
    terms = {Field[name]: values for name, values in more.items()}
    return Cube.of({Field.L4PROTO: Ranges.of(TCP), Field.DPORT: Ranges.of(port), **terms})


def line(act: object, *cubes: Cube, on: tuple[Condition, ...] = ()) -> Line:
    return Line(cubes or ALL, act, on)  # type: ignore[arg-type]


def rules(
    *lines: Line, hook: Hook = Hook.INPUT, priority: int = 0, inner: tuple[Line, ...] = ()
) -> Machine:
    """A base chain of these lines, and a chain `in` of its own."""
    return Machine((Base(hook, priority, "base"),), {"base": lines, "in": inner})


def differences(one: Machine, other: Machine) -> list[Disagreement]:
    ground = Ground(one, other)
    return list(ground.differences(ground.followed(one), ground.followed(other)))


SSH, HTTP = tcp(22), tcp(80)
DEFAULT = line(DROP)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # One rule or two, and in either order where the verdict is one.
        (
            rules(line(ACCEPT, SSH, HTTP), DEFAULT),
            rules(line(ACCEPT, HTTP), line(ACCEPT, SSH), DEFAULT),
        ),
        # A jump that comes back, one that does not, and none.
        (
            rules(line(ACCEPT, SSH), line(ACCEPT, HTTP), DEFAULT),
            rules(line(ir.Jump("in"), SSH, HTTP), DEFAULT, inner=(line(ACCEPT, SSH, HTTP),)),
        ),
        (
            rules(line(ACCEPT, HTTP), DEFAULT),
            rules(
                line(Goto("in"), SSH),
                line(ACCEPT, HTTP, SSH),
                DEFAULT,
                inner=(line(Return(), HTTP), line(DROP)),
            ),
        ),
        (rules(DEFAULT), rules(line(ir.Jump("in"), SSH), DEFAULT, inner=(line(Return()),))),
        # A mark in two steps.
        (
            rules(line(ir.SetMark(3, 0xFF), SSH)),
            rules(line(ir.SetMark(1, 0xF1), SSH), line(ir.SetMark(2, 0x0E), SSH)),
        ),
        # What is asked of a mark that was just set is known.
        (
            rules(line(ir.SetMark(1, 0xFF)), line(DROP, SSH)),
            rules(line(ir.SetMark(1, 0xFF)), line(DROP, SSH, on=(Condition(MarkIs(1, 0x0F)),))),
        ),
        # So is the membership of what was just put into a set.
        (
            rules(line(AddTo("x", (Field.SADDR,), None)), line(DROP, SSH)),
            rules(
                line(AddTo("x", (Field.SADDR,), None)),
                line(DROP, SSH, on=(Condition(InSet("x", (Field.SADDR,))),)),
            ),
        ),
        # The second helper of a connection is none.
        (
            rules(line(ir.AssignHelper("ftp", TCP), SSH), hook=Hook.PREROUTING, priority=-150),
            rules(
                line(ir.AssignHelper("ftp", TCP), SSH),
                line(ir.AssignHelper("irc", TCP), SSH),
                line(ir.AssignHelper("sip", UDP), HTTP),
                hook=Hook.PREROUTING,
                priority=-300,
            ),
        ),
        # One table's verdict to accept is not the other's.
        (
            Machine(
                (Base(Hook.INPUT, -5, "a"), Base(Hook.INPUT, 0, "b")),
                {"a": (line(ACCEPT, SSH),), "b": (line(DROP, SSH, HTTP),)},
            ),
            rules(line(DROP, SSH), line(DROP, HTTP)),
        ),
        # Families in chains of their own.
        (
            Machine(
                (Base(Hook.INPUT, 0, "a", families=(4,)), Base(Hook.INPUT, 0, "b", families=(6,))),
                {"a": (line(DROP, SSH),), "b": (line(DROP, SSH),)},
            ),
            rules(line(DROP, SSH)),
        ),
    ],
)
def test_rules_that_do_the_same_agree(one: Machine, other: Machine) -> None:
    assert differences(one, other) == []
    assert differences(other, one) == []


LOG = ir.Log("x ")
LOOSE = rules(line(LOG, SSH), line(ACCEPT, SSH), DEFAULT)


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (LOOSE, rules(line(LOG, SSH), line(ACCEPT, SSH, HTTP), DEFAULT), "lets it pass"),
        (LOOSE, rules(line(ACCEPT, SSH), DEFAULT), "does not log it"),
        (LOOSE, rules(line(LOG, SSH), line(LOG, SSH), line(ACCEPT, SSH), DEFAULT), "2 times"),
        (
            LOOSE,
            rules(line(LOG, tcp(22, FAMILY=Ranges.of(4))), line(ACCEPT, SSH), DEFAULT),
            "does not log it",
        ),
        (
            LOOSE,
            rules(line(LOG, SSH), line(ACCEPT, SSH), line(ir.Reject(ir.Answer.TCP_RESET))),
            "rejects",
        ),
        (LOOSE, rules(line(LOG, SSH), line(ACCEPT, SSH), DEFAULT, hook=Hook.FORWARD), "pass"),
        (
            rules(line(DROP, SSH, on=(Condition(RATE, False),))),
            rules(line(DROP, SSH, on=(Condition(RATE),))),
            "pass",
        ),
        (
            rules(line(DROP, SSH, on=(Condition(RATE, False),))),
            rules(line(DROP, SSH, on=(Condition(replace(RATE, burst=5), False),))),
            "pass",
        ),
        (
            rules(line(DROP, SSH, on=(Condition(NotAfter(date(2026, 1, 1), False)),))),
            rules(line(DROP, SSH)),
            "drops",
        ),
        # The order of what changes a packet, of what reads the change, and of both.
        (
            rules(line(ir.SetMark(5, 0xFF), SSH), line(ir.SetMark(7, 0xFF), SSH, HTTP)),
            rules(line(ir.SetMark(7, 0xFF), SSH, HTTP), line(ir.SetMark(5, 0xFF), SSH)),
            "mark 0x5",
        ),
        (
            rules(line(ir.SetMark(5, 0xFF), SSH), line(LOG, on=(Condition(MarkIs(5, 0xFF)),))),
            rules(line(LOG, on=(Condition(MarkIs(5, 0xFF)),)), line(ir.SetMark(5, 0xFF), SSH)),
            "logs it as `x`",
        ),
        (
            rules(line(ir.SetDscp(46), SSH), line(DROP, Cube.of({Field.DSCP: Ranges.of(46)}))),
            rules(line(DROP, Cube.of({Field.DSCP: Ranges.of(46)})), line(ir.SetDscp(46), SSH)),
            "code point 46",
        ),
        (
            rules(line(CopyMark(False, 0xFF)), line(DROP, on=(Condition(MarkIs(1, 0xFF)),))),
            rules(line(DROP, on=(Condition(MarkIs(1, 0xFF)),))),
            "drop",
        ),
        (
            rules(line(CopyMark(True, 0xFF), SSH)),
            rules(line(CopyMark(True, 0xFFFF), SSH)),
            "connection mark copied under 0xffff",
        ),
        (
            rules(line(ir.SetConnectionMark(5, 0xFF), SSH), line(CopyMark(False, 0xFF), SSH)),
            rules(line(CopyMark(False, 0xFF), SSH), line(ir.SetConnectionMark(5, 0xFF), SSH)),
            "mark 0x5",
        ),
        (rules(line(Obscure("TTL --ttl-set 5", may_decide=False), SSH)), rules(), "TTL"),
        (
            rules(line(AddTo("x", (Field.SADDR,), 60), SSH)),
            rules(line(AddTo("x", (Field.SADDR,), 30), SSH)),
            "for 30s",
        ),
        (
            rules(line(AddTo("x", (Field.SADDR,), 60), SSH), DEFAULT),
            rules(line(AddTo("x", (Field.DADDR,), 60), SSH), DEFAULT),
            "daddr put into `x`",
        ),
        (
            rules(line(ir.AssignHelper("ftp", TCP), SSH), hook=Hook.PREROUTING, priority=-150),
            rules(line(ir.AssignHelper("irc", TCP), SSH), hook=Hook.PREROUTING, priority=-150),
            "helper irc",
        ),
        (
            rules(line(ir.ClampMss(1400), SSH), hook=Hook.FORWARD, priority=-150),
            rules(line(ir.ClampMss(None), SSH), hook=Hook.FORWARD, priority=-150),
            "what the path takes",
        ),
        (
            rules(line(ir.Queue(0, 3, True), SSH)),
            rules(line(ir.Queue(0, 3, False), SSH)),
            "queue 0-3",
        ),
    ],
)
def test_rules_that_do_something_else_are_found(one: Machine, other: Machine, words: str) -> None:
    """Whichever of them is meant; each packet that is shown is one to which it happens."""
    found = differences(one, other)
    assert found and differences(other, one)
    assert any(words in f"{in_words(d).meant} {in_words(d).loaded}" for d in found)
    for each in found:
        assert each.packet[Field.FAMILY] in (4, 6)


def test_the_packet_that_is_shown_meets_both_lines() -> None:
    """Its fields are as the lines that are named ask, whatever values were put together."""
    lan = name_range("lan0")
    network = parse_address("198.51.100.0/24")
    assert network is not None
    narrow = tcp(2222, IIF=Ranges((lan,)), SADDR=Ranges((network,)))
    one = rules(line(ACCEPT, narrow), DEFAULT)
    other = rules(line(ACCEPT, tcp(2222, IIF=Ranges((lan,)))), DEFAULT)
    (found,) = differences(one, other)
    assert found.packet[Field.IIF] == lan[0]
    assert found.packet[Field.DPORT] == 2222
    assert found.packet[Field.SADDR] not in Ranges((network,))
    assert not narrow.holds(found.packet)


def test_translations_are_compared_for_first_packets() -> None:
    """What nat chains do is done to connections that are new, and asks nothing of others."""
    to = ir.DestinationNat(Ranges.of(0x0A000001))
    nat = Base(Hook.PREROUTING, -100, "nat", is_nat=True)
    cube = tcp(80, FAMILY=Ranges.of(4))
    new = tcp(80, FAMILY=Ranges.of(4), CT_STATE=Ranges.of(State.NEW, State.RELATED))
    one, other = (Machine((nat,), {"nat": (line(to, c),)}) for c in (cube, new))
    assert differences(one, other) == []
    assert differences(one, Machine((nat,), {"nat": (line(replace(to, port=81), cube),)}))
    assert differences(one, Machine((nat,), {"nat": ()}))


# --- places -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "act", "base"),
    [
        ("nft", ir.AssignHelper("ftp", TCP), Base(Hook.PREROUTING, -300, "c")),
        ("nft", ir.AssignHelper("ftp", TCP), Base(Hook.PREROUTING, -200, "c")),
        ("nft", ir.AssignHelper("ftp", TCP), Base(Hook.INPUT, -150, "c")),
        ("iptables", ir.AssignHelper("ftp", TCP), Base(Hook.PREROUTING, -150, "c")),
        ("nft", ir.Untrack(), Base(Hook.PREROUTING, -150, "c")),
        ("nft", ir.SetMark(1, 1), Base(Hook.OUTPUT, -150, "c")),
        ("nft", ir.SetConnectionMark(1, 1), Base(Hook.PREROUTING, -300, "c")),
        ("nft", ir.Masquerade(), Base(Hook.POSTROUTING, 100, "c")),
        ("nft", ir.RedirectToSelf(80), Base(Hook.POSTROUTING, 100, "c", is_nat=True)),
        ("nft", ir.TransparentProxy(80, TCP, 1, 1), Base(Hook.PREROUTING, 0, "c")),
        ("nft", DROP, Base(Hook.PREROUTING, -100, "c", is_nat=True)),
    ],
)
def test_what_does_nothing_where_it_stands_is_found(target: str, act: object, base: Base) -> None:
    machine = Machine((base,), {"c": (line(act, SSH),)})
    assert len(list(misplaced(machine, target))) == 1


@pytest.mark.parametrize(
    ("target", "act", "base"),
    [
        ("nft", ir.AssignHelper("ftp", TCP), Base(Hook.PREROUTING, -150, "c")),
        ("iptables", ir.AssignHelper("ftp", TCP), Base(Hook.OUTPUT, -300, "c")),
        ("nft", ir.Untrack(), Base(Hook.OUTPUT, -299, "c")),
        ("nft", ir.SetMark(1, 1), Base(Hook.OUTPUT, -150, "c", reroutes=True)),
        ("nft", ir.SetMark(1, 1), Base(Hook.PREROUTING, -150, "c")),
        ("nft", ir.Masquerade(), Base(Hook.POSTROUTING, 100, "c", is_nat=True)),
        ("nft", ir.DestinationNat(Ranges.of(1)), Base(Hook.OUTPUT, -100, "c", is_nat=True)),
    ],
)
def test_what_works_where_it_stands_is_not(target: str, act: object, base: Base) -> None:
    machine = Machine((base,), {"c": (line(act, SSH),)})
    assert list(misplaced(machine, target)) == []


def test_a_state_that_is_asked_for_before_conntrack_is_found() -> None:
    new = tcp(22, CT_STATE=Ranges.of(State.NEW))
    for priority, count in ((-300, 1), (-150, 0)):
        machine = rules(line(DROP, new), hook=Hook.PREROUTING, priority=priority)
        assert len(list(misplaced(machine, "nft"))) == count


# --- values that nothing tells apart ----------------------------------------------------------


def test_values_are_put_together_and_taken_apart_again() -> None:
    random = Random(1)
    for _ in range(200):
        cubes = [_random_cube(random) for _ in range(random.randint(1, 8))]
        classes = Classes(cubes)
        for one in cubes:
            assert classes.back(classes.put(one)) == one
            for other in cubes:
                assert classes.put(one).meets(classes.put(other)) == one.meets(other)


def _random_cube(random: Random) -> Cube:
    wide = (Field.SADDR, Field.DADDR, Field.DPORT, Field.IIF, Field.SIZE, Field.L4PROTO)
    terms = {}
    for f in random.sample(wide, random.randint(1, 3)):
        universe = UNIVERSE[f].pairs[random.randrange(len(UNIVERSE[f]))]
        ends = sorted(random.randint(*universe) for _ in range(2 * random.randint(1, 3)))
        terms[f] = Ranges.merged(zip(ends[::2], ends[1::2], strict=True))
    return Cube.of(terms)


# --- lines of a target's own ------------------------------------------------------------------


def test_where_lines_of_a_targets_own_stand_is_seen() -> None:
    """In the place of each log, and nowhere else; in chains of its own family alone."""

    def loaded(*texts: str, place: str = "iptables filter policylang-input") -> Loaded:
        return Loaded((Chain(place, "", tuple(map(Rule, texts))),))

    def are_alike(there: Loaded, with_logs: Loaded) -> bool:
        return proved._are_alike(there, with_logs)

    log = '-j LOG --log-prefix "policylang native line {}.1 "'
    any_, v4, v6 = (log.format(n) for n in (0, 4, 6))
    assert are_alike(loaded("a", "own", "b"), loaded("a", any_, "b"))
    assert are_alike(loaded("a", "own", "own 2", "b"), loaded("a", v4, "b"))
    assert are_alike(loaded("a", "b"), loaded("a", v6, "b"))
    assert not are_alike(loaded("a", "own", "b"), loaded("a", v6, "b"))
    assert not are_alike(loaded("a", "b"), loaded("a", any_, "b"))
    assert not are_alike(loaded("own", "a", "b"), loaded("a", any_, "b"))
    assert not are_alike(loaded("a", "own", "b", "c"), loaded("a", any_, "b"))
    assert not are_alike(loaded("a", "b", "own"), loaded("a", any_, "b"))
    nft = "chain input"
    assert are_alike(loaded("own", place=nft), loaded(v6, place=nft))
    assert not are_alike(loaded(place=nft), loaded(v6, place=nft))


# --- what the kernel lists --------------------------------------------------------------------


@pytest.fixture(scope="module")
def kernel() -> None:
    reason = obstacle()
    if reason is not None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


def _cases() -> list[tuple[Path, str]]:
    ways = WAYS if os.environ.get(ALL_WAYS) else ("nft", "iptables-legacy")
    found = policies() if os.environ.get(ALL_WAYS) else [p for p in policies() if _is_golden(p)]
    return [(p, way) for p in found for way in ways if (p.parent.name, way) not in NOT_HERE]


def _is_golden(policy: Path) -> bool:
    return policy.name == "policy.policy" or policy.parent == PROVED


@pytest.mark.parametrize(
    ("policy", "way"),
    _cases(),
    ids=lambda v: v if isinstance(v, str) else f"{v.parent.name}-{v.stem}",
)
def test_every_policy_is_proved(kernel: None, policy: Path, way: str) -> None:
    """Golden policies by nft and one flavour of iptables; with POLICYLANG_ALL_WAYS set, all."""
    report = verified(rules_of(policy), way)
    assert not report.diagnostics, [d.message for d in report.in_order()]


NEEDS = {
    "what came from nowhere is this host's own": ("hairpin-from-all-but", "nft"),
    "no broadcast to IPv6": ("addressed-to-broadcast", "iptables-legacy"),
    "no broadcast from IPv6": ("addressed-to-broadcast", "iptables-legacy"),
    "no protocol 0 in IPv6": ("protocol-zero", "iptables-legacy"),
    "no connection, no translation": ("published-or-not", "nft"),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_what_is_said_to_be_impossible_is_needed(
    kernel: None, law: Law, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it, a policy would seem to be compiled wrongly that is not."""
    name, way = NEEDS[law.name]
    ruleset = rules_of(PROVED / f"{name}.policy")
    engine, rehearsal = rehearsed(ruleset, way)
    assert proved.is_proved(ruleset, rehearsal, engine, Report())
    monkeypatch.setattr(agreement, "LAWS", tuple(other for other in LAWS if other is not law))
    report = Report()
    assert not proved.is_proved(ruleset, rehearsal, engine, report)
    assert {d.code for d in report.diagnostics} == {"not-as-meant"}


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", "Pacific/Kiritimati"])
def test_local_times_are_those_of_the_machine(
    kernel: None, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they span midnight in UTC, too, and where days end at another time than in UTC."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for way in ("nft", "iptables-legacy"):
            report = verified(rules_of(PROVED / "local-times.policy"), way)
            assert not report.has_errors, report.in_order()[0].message
    finally:
        monkeypatch.undo()
        time.tzset()


def test_random_policies_agree(kernel: None) -> None:
    """A few of those that `python -m tests.analysis.agreeing` goes through."""
    from policylang.pipeline import Text
    from tests.differential.compiling import FOLDER, NAME
    from tests.differential.policies import random_policy

    count = 0
    for seed in range(6):
        text = random_policy(Random(seed), translates=seed % 3 == 0)
        try:
            report = verified(rules_of(Text(text, NAME, FOLDER)), WAYS[seed % 3])
        except RefusedError:
            continue
        assert not report.diagnostics, text
        count += 1
    assert count > 3
