"""One packet's way through a machine: which lines it meets, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from fractions import Fraction
from pathlib import Path

import pytest

from policylang.analysis import machine as m
from policylang.analysis.completing import ordinary
from policylang.analysis.machine import ALL, Base, Condition, Hook, Line, Machine
from policylang.analysis.modelled import machine_of
from policylang.analysis.questions import Beginnings
from policylang.analysis.walking import Moment, Verdict, walk
from policylang.diagnostics import Report
from policylang.ir import actions as ir
from policylang.ir.ruleset import DynamicSet, HostSuffix, ListedSet, ListSource
from policylang.ir.stages import Path as Path_
from policylang.lower.stateful import lower
from policylang.packets.cube import Cube
from policylang.packets.fields import (
    TCP,
    UDP,
    AddressType,
    Field,
    State,
)
from policylang.packets.values import Ranges, name_range, parse_one_address
from policylang.pipeline import policy_of

ETH0, ETH1 = name_range("eth0")[0], name_range("eth1")[0]


def address(text: str) -> int:
    number = parse_one_address(text)
    assert number is not None
    return number


FROM, TO = address("203.0.113.9"), address("192.0.2.1")
PACKET = {
    Field.IIF: ETH0,
    Field.FAMILY: 4,
    Field.SADDR: FROM,
    Field.DADDR: TO,
    Field.DADDR_TYPE: AddressType.LOCAL,
    Field.L4PROTO: TCP,
    Field.SPORT: 40_000,
    Field.DPORT: 22,
}
FORWARDED = {**PACKET, Field.OIF: ETH1, Field.DADDR_TYPE: AddressType.UNICAST}
SSH = Cube.of({Field.L4PROTO: Ranges.of(TCP), Field.DPORT: Ranges.of(22)})
ACCEPT, DROP = ir.Accept(), ir.Drop()


def of(**terms: int | Ranges) -> tuple[Cube, ...]:
    """A cube by the names of fields."""
    values = {
        Field[name]: value if isinstance(value, Ranges) else Ranges.of(value)
        for name, value in terms.items()
    }
    return (Cube.of(values),)


def machine(*lines: Line, drops: bool = False, **chains: tuple[Line, ...]) -> Machine:
    """A machine with one base chain, on input."""
    base = Base(Hook.INPUT, 0, "input", drops=drops)
    return Machine((base,), {"input": lines, **chains})


def met(found: Machine, packet: dict[Field, int] = PACKET, **more: object) -> list[str]:
    """The places of the lines that a packet meets, and what becomes of it."""
    walked = walk(found, packet, **more)  # type: ignore[arg-type]
    return [*(one.line.place for one in walked.met), walked.verdict.value]


# --- chains -----------------------------------------------------------------------------------


def test_the_first_line_that_decides_ends_the_chain() -> None:
    found = machine(
        Line(of(DPORT=80), DROP, place="1"),
        Line(ALL, ir.Log("x"), place="2"),
        Line((SSH,), ACCEPT, place="3"),
        Line(ALL, DROP, place="4"),
    )
    assert met(found) == ["2", "3", "passes"]
    walked = walk(found, PACKET)
    assert walked.decider is not None
    assert walked.decider.line.place == "3"


@pytest.mark.parametrize(("drops", "verdict"), [(False, "passes"), (True, "dropped")])
def test_what_no_line_decides_has_the_policy_of_the_chain(drops: bool, verdict: str) -> None:
    found = machine(Line(of(DPORT=80), ACCEPT, place="1"), drops=drops)
    assert met(found) == [verdict]
    assert walk(found, PACKET).decider is None


def test_a_jump_comes_back_and_a_goto_does_not() -> None:
    inner = (Line(ALL, ir.Log("x"), place="in"), Line((SSH,), m.Return(), place="back"))
    jump = machine(Line(ALL, ir.Jump("c"), place="1"), Line(ALL, DROP, place="2"), c=inner)
    assert met(jump) == ["1", "in", "back", "2", "dropped"]
    goto = machine(Line(ALL, m.Goto("c"), place="1"), Line(ALL, DROP, place="2"), c=inner)
    assert met(goto) == ["1", "in", "back", "passes"]
    deep = machine(
        Line(ALL, ir.Jump("a"), place="1"),
        Line(ALL, DROP, place="2"),
        a=(Line(ALL, m.Goto("b"), place="a1"), Line(ALL, ACCEPT, place="a2")),
        b=(Line(ALL, ir.Log("x"), place="b1"),),
    )
    assert met(deep) == ["1", "a1", "b1", "2", "dropped"]
    assert [one.depth for one in walk(deep, PACKET).met] == [0, 1, 2, 0]


def test_a_return_in_a_base_chain_leaves_it_to_the_policy() -> None:
    lines = (Line((SSH,), m.Return(), place="1"), Line(ALL, ACCEPT, place="2"))
    assert met(machine(*lines, drops=True)) == ["1", "dropped"]


def test_every_base_chain_of_a_hook_is_entered_until_one_drops() -> None:
    bases = tuple(
        Base(Hook.INPUT, p, f"c{p}", families=f)
        for p, f in ((0, (4, 6)), (5, (6,)), (10, (4,)), (20, (4, 6)))
    )
    found = Machine(
        bases,
        {
            "c0": (Line(ALL, ACCEPT, place="first"),),
            "c5": (Line(ALL, DROP, place="of the other family"),),
            "c10": (Line((SSH,), ir.Reject(ir.Answer.TCP_RESET), place="second"),),
            "c20": (Line(ALL, ACCEPT, place="never"),),
        },
    )
    assert met(found) == ["first", "second", "rejected"]


# --- hooks ------------------------------------------------------------------------------------


def seen_at(packet: dict[Field, int]) -> list[str]:
    """The hooks that a packet comes to."""
    chains = {hook.value: (Line(ALL, ir.Log("x"), place=hook.value),) for hook in Hook}
    bases = tuple(Base(hook, 0, hook.value) for hook in Hook)
    return [one.line.place for one in walk(Machine(bases, chains), packet).met]


def test_the_interfaces_tell_which_hooks_a_packet_comes_to() -> None:
    own: dict[Field, int] = {f: v for f, v in FORWARDED.items() if f is not Field.IIF}
    assert seen_at(PACKET) == ["prerouting", "input"]
    assert seen_at(FORWARDED) == ["prerouting", "forward", "postrouting"]
    assert seen_at(own) == ["output", "postrouting"]


def test_the_way_out_is_not_known_before_routing() -> None:
    """An absent interface is the empty name, as the kernel compares it."""
    line = Line(of(OIF=Ranges((name_range("eth*"),))), DROP, place="1")
    early = Machine((Base(Hook.PREROUTING, 0, "c"),), {"c": (line,)})
    late = Machine((Base(Hook.FORWARD, 0, "c"),), {"c": (line,)})
    assert met(early, FORWARDED) == ["passes"]
    assert met(late, FORWARDED) == ["1", "dropped"]
    not_lo = Line(of(OIF=Ranges.between(0, name_range("lo")[0] - 1)), DROP, place="1")
    assert met(machine(not_lo)) == ["1", "dropped"]


def test_there_is_no_state_before_conntrack() -> None:
    line = Line(of(CT_STATE=State.NEW), DROP, place="1")
    for priority, passes in ((-300, True), (-200, False), (-150, False)):
        found = Machine((Base(Hook.PREROUTING, priority, "c"),), {"c": (line,)})
        assert (met(found) == ["passes"]) is passes, priority
    invalid = Line(of(CT_STATE=State.INVALID), DROP, place="1")
    found = Machine((Base(Hook.PREROUTING, -300, "c"),), {"c": (invalid,)})
    assert met(found) == ["1", "dropped"]


def test_what_is_untracked_is_so_from_then_on() -> None:
    found = Machine(
        (Base(Hook.PREROUTING, -300, "raw"), Base(Hook.INPUT, 0, "input")),
        {
            "raw": (Line((SSH,), ir.Untrack(), place="1"),),
            "input": (Line(of(CT_STATE=State.UNTRACKED), DROP, place="2"),),
        },
    )
    assert met(found) == ["1", "2", "dropped"]
    late = Machine((replace(found.bases[0], priority=-150), found.bases[1]), found.chains)
    assert met(late) == ["1", "passes"]


# --- translations -----------------------------------------------------------------------------


def test_a_translation_sends_the_packet_elsewhere() -> None:
    found = Machine(
        (
            Base(Hook.PREROUTING, -100, "nat", is_nat=True),
            Base(Hook.FORWARD, 0, "forward", drops=True),
            Base(Hook.POSTROUTING, 100, "out", is_nat=True),
        ),
        {
            "nat": (
                Line(
                    (SSH,),
                    ir.DestinationNat(Ranges.of(address("198.51.100.2")), 2222),
                    place="dnat",
                ),
            ),
            "forward": (Line(of(DPORT=2222, ORIG_DPORT=22, DNATED=1), ACCEPT, place="accept"),),
            "out": (Line(ALL, ir.SourceNat((TO, TO), (1024, 2048)), place="snat"),),
        },
    )
    packet = {**PACKET, Field.OIF: ETH1}
    walked = walk(found, packet)
    assert [one.line.place for one in walked.met] == ["dnat", "accept", "snat"]
    assert walked.verdict is Verdict.PASSES
    assert walked.packet[Field.DADDR] == address("198.51.100.2")
    assert walked.packet[Field.DPORT] == 2222
    assert walked.packet[Field.SADDR] == TO
    assert walked.packet[Field.SPORT] == 1024
    established = {**packet, Field.CT_STATE: int(State.ESTABLISHED)}
    assert [one.line.place for one in walk(found, established).met] == []


def test_what_is_redirected_is_delivered() -> None:
    nat = Base(Hook.PREROUTING, -100, "nat", is_nat=True)
    found = Machine(
        (nat, Base(Hook.INPUT, 0, "input")),
        {
            "nat": (Line((SSH,), ir.RedirectToSelf(2222), place="1"),),
            "input": (Line(of(DPORT=2222), DROP, place="2"),),
        },
    )
    assert met(found, FORWARDED) == ["1", "2", "dropped"]


@pytest.mark.parametrize(
    ("end", "field", "start", "goal"),
    [
        (ir.End.DESTINATION, Field.DADDR, "192.0.2.77", "198.51.100.77"),
        (ir.End.SOURCE, Field.SADDR, "203.0.113.9", "198.51.100.9"),
    ],
)
def test_a_prefix_keeps_the_low_bits(end: ir.End, field: Field, start: str, goal: str) -> None:
    prefix = (address("198.51.100.0"), address("198.51.100.255"))
    hook = Hook.PREROUTING if end is ir.End.DESTINATION else Hook.POSTROUTING
    found = Machine(
        (Base(hook, 0, "nat", is_nat=True),), {"nat": (Line(ALL, ir.MapPrefix(end, prefix)),)}
    )
    packet = {**FORWARDED, field: address(start)}
    assert walk(found, packet).packet[field] == address(goal)


# --- questions --------------------------------------------------------------------------------


def test_marks_change_on_the_way() -> None:
    found = machine(
        Line(ALL, ir.SetMark(0x20, 0xF0), place="1"),
        Line(ALL, DROP, (Condition(m.MarkIs(0x23, 0xFF)),), place="2"),
    )
    assert met(found) == ["1", "passes"]
    assert met(found, moment=Moment(mark=0x13)) == ["1", "2", "dropped"]
    assert met(found, answers={m.MarkIs(0x3, 0xF): True}) == ["1", "2", "dropped"]
    copied = machine(
        Line(ALL, m.CopyMark(to_connection=False, mask=0xFF), place="1"),
        Line(ALL, DROP, (Condition(m.MarkIs(7, 0xFF)),), place="2"),
    )
    assert met(copied, moment=Moment(connection_mark=7)) == ["1", "2", "dropped"]


NIGHT = Ranges.between(0, 5 * 3600)
QUESTIONS = [
    (m.RateHolds(Fraction(1), 5, None, 4), {}, {"within_rates": False}),
    (m.ConnectionsHold(3, None, 4), {}, {"within_rates": False}),
    (m.WeekTimeIs(NIGHT), {"now": datetime(2026, 1, 5, 3, tzinfo=UTC)}, {}),
    (
        m.WeekTimeIs(NIGHT, is_local=True),
        {"now": datetime(2026, 1, 4, 23, 30, tzinfo=UTC), "utc_offset_s": 3600},
        {"now": datetime(2026, 1, 4, 23, 30, tzinfo=UTC)},
    ),
    (
        m.NotAfter(date(2026, 1, 31), is_local=False),
        {"now": datetime(2026, 1, 31, 23, 59, tzinfo=UTC)},
        {"now": datetime(2026, 2, 1, tzinfo=UTC)},
    ),
    (m.InSet("s", (Field.SADDR,)), {"members": {"s": frozenset({(FROM,)})}}, {}),
]


@pytest.mark.parametrize(("question", "yes", "no"), QUESTIONS)
def test_a_moment_answers_questions(
    question: m.Question, yes: dict[str, object], no: dict[str, object]
) -> None:
    found = machine(Line(ALL, DROP, (Condition(question),), place="1"))
    otherwise = machine(Line(ALL, DROP, (Condition(question, holds=False),), place="1"))
    assert met(found, moment=Moment(**yes)) == ["1", "dropped"]  # type: ignore[arg-type]
    assert met(otherwise, moment=Moment(**yes)) == ["passes"]  # type: ignore[arg-type]
    assert met(found, moment=Moment(**no)) == ["passes"]  # type: ignore[arg-type]
    assert met(found, answers={question: True}) == ["1", "dropped"]
    assert met(found, answers={question: False}) == ["passes"]


def test_only_local_processes_have_an_owner() -> None:
    root = Condition(m.OwnerIs("user", Ranges.of(0)))
    scope = Condition(m.CgroupIs("system.slice/x.service"))
    own: dict[Field, int] = {f: v for f, v in FORWARDED.items() if f is not Field.IIF}
    for condition in (root, scope):
        line = Line(ALL, DROP, (condition,), place="1")
        out = Machine((Base(Hook.OUTPUT, 0, "c"),), {"c": (line,)})
        here = Moment(user=0, cgroup="system.slice/x.service/inner")
        assert met(out, own, moment=here) == ["1", "dropped"]
        assert met(out, own) == ["passes"]
        beside = Moment(user=1, cgroup="system.slice/x.service2")
        assert met(out, own, moment=beside) == ["passes"]
        assert met(machine(line), moment=here) == ["passes"]


def test_what_is_put_into_a_set_is_in_it() -> None:
    asked = (Condition(m.InSet("seen", (Field.SADDR,))),)
    for act in (ir.AddToSet("seen", ir.End.SOURCE, None), m.AddTo("seen", (Field.SADDR,), None)):
        found = machine(Line(ALL, act, place="1"), Line(ALL, DROP, asked, place="2"))
        assert met(found) == ["1", "2", "dropped"]
        turned = machine(Line(ALL, DROP, asked, place="2"), Line(ALL, act, place="1"))
        assert met(turned) == ["1", "passes"]


def test_what_nobody_knows_is_told_as_a_doubt() -> None:
    unknown = Condition(m.Unknown("bpf"))
    found = machine(
        Line(ALL, DROP, (unknown,), place="1"),
        Line(of(DPORT=80), DROP, (unknown,), place="2"),
        Line(ALL, m.Obscure("xyz", may_decide=True), place="3"),
        Line(ALL, m.Obscure("counter", may_decide=False), place="4"),
        Line(ALL, ir.Queue(1, 3, may_bypass=False), place="5"),
    )
    walked = walk(found, PACKET)
    assert [doubt.line.place for doubt in walked.doubts] == ["1", "3", "5"]
    assert walked.verdict is Verdict.PASSES
    assert met(found, answers={m.Unknown("bpf"): True}) == ["1", "dropped"]
    assert walk(found, PACKET, {m.Unknown("bpf"): False}).doubts[0].line.place == "3"
    mixed = Line(ALL, DROP, (unknown, Condition(m.InSet("none", (Field.SADDR,)))), place="1")
    assert not walk(machine(mixed), PACKET).doubts


def test_what_was_taken_for_granted_is_told() -> None:
    rate = Condition(m.RateHolds(Fraction(1), 5, None, 4))
    (passage,) = walk(machine(Line(ALL, ACCEPT, (rate,))), PACKET).passages
    assert passage.asked == (rate,)


def test_tests_of_addresses_are_answered_by_the_address() -> None:
    v6: dict[Field, int] = {
        **PACKET,
        Field.FAMILY: 6,
        Field.SADDR: address("2001:db8::10"),
        Field.DADDR: address("2001:db8::1"),
    }
    tests = (
        HostSuffix(0x10, 0xFFFF),
        DynamicSet("d", None, 10),
        ListedSet(ListSource("l", ("url x",), 60), Ranges.of(address("2001:db8::1"))),
    )
    suffix = machine(Line(of(SADDR_TEST_0=1, DADDR_TEST_0=0), DROP, place="1"))
    assert met(suffix, v6, address_tests=tests) == ["1", "dropped"]
    listed = machine(Line(of(DADDR_TEST_2=1), DROP, place="1"))
    assert met(listed, v6, address_tests=tests) == ["1", "dropped"]
    dynamic = machine(Line(of(SADDR_TEST_1=1), DROP, place="1"))
    assert met(dynamic, v6, address_tests=tests) == ["passes"]
    assert met(dynamic, {**v6, Field.SADDR_TEST_1: 1}, address_tests=tests) == ["1", "dropped"]
    masked = Condition(m.MaskIs(Field.SADDR, 0x10, 0xFFFF))
    assert met(machine(Line(ALL, DROP, (masked,), place="1")), v6) == ["1", "dropped"]
    assert met(machine(Line(ALL, DROP, (masked,), place="1"))) == ["passes"]


def test_the_first_helper_stays() -> None:
    found = Machine(
        (Base(Hook.PREROUTING, -150, "a"), Base(Hook.PREROUTING, -140, "b")),
        {
            "a": (
                Line((SSH,), ir.AssignHelper("ftp", TCP), place="1"),
                Line(ALL, ir.AssignHelper("sane", TCP), place="2"),
            ),
            "b": (Line(ALL, ir.AssignHelper("irc", TCP), place="3"), Line(ALL, DROP, place="4")),
        },
    )
    assert met(found) == ["1", "4", "dropped"]


def test_an_ordinary_packet_has_all_fields_of_its_kind() -> None:
    filled = ordinary({Field.L4PROTO: UDP, Field.FAMILY: 6})
    assert filled[Field.HOP_LIMIT] == 64
    assert Field.TCP_FLAGS not in filled
    assert Field.DPORT in filled
    reply = ordinary({**PACKET, Field.CT_DIRECTION: 1})
    assert reply[Field.ORIG_DADDR] == FROM
    assert reply[Field.ORIG_DPORT] == 40_000


# --- the same as followed ---------------------------------------------------------------------

GOLDEN = Path(__file__).parents[1] / "golden"
POLICIES = ("dnat-port", "hairpin", "translated-ftp", "any-and-self", "icmp")


@pytest.mark.parametrize("name", POLICIES)
def test_a_packet_goes_the_way_on_which_packets_like_it_are_followed(name: str) -> None:
    """One packet of each group that `following` decides alike meets the same verdict."""
    report = Report()
    policy = policy_of(GOLDEN / name / "policy.policy", report)
    assert policy is not None
    ruleset = lower(policy, report)
    found = machine_of(ruleset)
    beginnings = Beginnings(found, ruleset.address_tests, policy.zones)
    count = 0
    for path in Path_:
        for fate in beginnings.fates(path):
            packet = fate.entered.witness()
            if packet is None or fate.entered.questions():
                continue
            if fate.translated is not None and fate.hook is Hook.FORWARD:
                decided = fate.decided.witness()
                assert decided is not None
                packet[Field.OIF] = decided[Field.OIF]
            if path is Path_.OUTPUT:
                del packet[Field.IIF]
            walked = walk(found, packet, address_tests=ruleset.address_tests)
            assert (walked.verdict is Verdict.PASSES) is fate.is_accepted
            if fate.line is not None:
                assert fate.line in [one.line for one in walked.met]
            count += 1
    assert count > 5
