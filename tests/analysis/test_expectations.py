"""Expectations of tests: what is proved holds for every packet, and what fails is shown by one."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from itertools import product
from random import Random

import pytest

from policylang.analysis.expectations import proved
from policylang.analysis.proofs import ProvedTest, Shown, prove_tests
from policylang.diagnostics import Report
from policylang.lower.stateful import lower
from policylang.model.expectations import PacketExpectation, SessionExpectation, Wanted
from policylang.packets.fields import SADDR_TESTS
from tests.analysis.first import NOW, Court, packet_of
from tests.analysis.test_questions import GRID, POLICIES, QUESTIONS, SMALL, ZONES, read
from tests.reference.interpreter import Moment, Verdict, decide

SHARE = 25  # packets of the grid that are tried for what holds


def is_as_wanted(wanted: Wanted, verdict: Verdict) -> bool:
    match wanted:
        case Wanted.ALLOW:
            return verdict.accepted
        case Wanted.DENY:
            return not verdict.accepted
        case Wanted.DROP:
            return not verdict.accepted and verdict.answer is None
        case Wanted.REJECT:
            return not verdict.accepted and verdict.answer is not None


@pytest.mark.parametrize("name", POLICIES)
def test_what_is_proved_is_so_and_what_fails_is_shown(name: str) -> None:
    """Of each expectation and question: no packet contradicts it, or its counterexample does."""
    policy, questions = read(ZONES + POLICIES[name], QUESTIONS)
    court = Court(policy, tuple(questions.values()), SMALL)
    random = Random(name)
    calm = (True,) if name == "protected" else (True, False)
    outcomes = set()
    for question, wanted, is_some in product(questions.values(), Wanted, (False, True)):
        expectation = PacketExpectation(wanted, is_some, question, None, question.span)
        proof = proved(expectation, court.asking.asked(question), court.beginnings)
        outcomes.add((proof.holds, is_some))
        nobody: frozenset[object] = frozenset()
        moments = [Moment({"banned": nobody}, NOW, within) for within in calm]  # type: ignore[dict-item]
        if proof.holds is not is_some:
            # Nothing may say otherwise: no packet is wrong, or of `some` none is right.
            for packet in random.sample(GRID, SHARE):
                if not court.is_first(packet) or not court.is_asked(question, packet, moments[0]):
                    continue
                fates = {
                    is_as_wanted(wanted, decide(policy, one, moment))
                    for moment in moments
                    for one in court.arrivals(packet, moment)
                }
                assert fates == {proof.holds}, (packet, wanted, is_some)
        found = proof.counterexample
        if found is not None:
            packet = packet_of(found.packet)
            held = {
                test: found.packet.get(test, 0) == 1
                for test in SADDR_TESTS[: len(court.asking.tests)]
            }
            members = frozenset({packet.source} if any(held.values()) else ())
            moments = [replace(moment, members={"banned": members}) for moment in moments]
            assert court.is_first(packet)
            assert court.is_asked(question, packet, moments[0]), (packet, question.span.text)
            fates = {
                is_as_wanted(wanted, decide(policy, one, moment))
                for moment in moments
                for one in court.arrivals(packet, moment)
            }
            assert False in fates, (packet, wanted, is_some)
    assert len(outcomes) > 2


def proofs_of(text: str) -> list[ProvedTest]:
    policy, _ = read(text, ("all inbound",))
    report = Report()
    ruleset = lower(policy, report)
    found = list(prove_tests(policy, ruleset, policy.tests[:-1], _no_sessions, report))
    assert not report.has_errors
    return found


def _no_sessions(expectation: SessionExpectation) -> Shown:
    raise AssertionError("no session is expected")


def failures(text: str) -> list[tuple[str, str | None, list[str]]]:
    """Of what fails: the message, the help, and the statements that are shown beside it."""
    return [
        (one.failure.message, one.failure.help, [label.span.text for label in one.failure.labels])
        for found in proofs_of(text)
        for one in found.shown
        if one.failure is not None
    ]


def holding(policy: str, *expectations: str) -> list[bool]:
    lines = "\n".join(f"expect {e}" for e in expectations)
    (found,) = proofs_of(f'{policy}\ntest "t" {{ {lines} }}')
    return [one.holds for one in found.shown]


def test_a_failure_shows_packet_and_statement() -> None:
    text = """
    zone wan { interface eth0 }
    set admins = 192.0.2.0/24
    deny ssh inbound from 192.0.2.9
    allow ssh inbound from admins
    dnat tcp 2222 from wan to 10.0.2.11 port 22
    test "t" {
      expect deny ssh inbound
      expect allow ssh inbound from admins
      expect deny tcp 2222 inbound
      expect deny all outbound
    }"""
    assert failures(text) == [
        (
            "not every packet is denied: `tcp SYN 192.0.2.1:40000 to 198.51.100.1:22 (self), "
            "in by eth0 (wan), new` is accepted",
            None,
            ["allow ssh inbound from admins"],
        ),
        (
            "not every packet is allowed: `tcp SYN 192.0.2.9:40000 to 198.51.100.1:22 (self), "
            "in by eth0 (wan), new` is dropped",
            None,
            ["deny ssh inbound from 192.0.2.9"],
        ),
        (
            "not every packet is denied: `tcp SYN 203.0.113.7:40000 to 198.51.100.1:2222 (self), "
            "in by eth0 (wan), new` is sent on to 10.0.2.11 port 22 and accepted there",
            None,
            ["dnat tcp 2222 from wan to 10.0.2.11 port 22"],
        ),
        (
            "not every packet is denied: `tcp SYN 203.0.113.7:40000 (self) to 192.0.2.1:1, "
            "out by eth0 (wan), new` is accepted",
            "no statement decides: the default (`default allow outbound`)",
            [],
        ),
    ]


def test_what_depends_on_something_else_is_told() -> None:
    text = """
    allow http inbound during 08:00-18:00 mon-fri
    allow smtp outbound user 1000
    default deny outbound
    test "t" {
      expect deny http inbound
      expect deny smtp outbound
    }"""
    ends = [message.rpartition("` is ")[2] for message, _, _ in failures(text)]
    assert ends == [
        "accepted if it is sent mon-fri 08:00-18:00 UTC",
        "accepted if it is sent by user 1000",
    ]


def test_native_lines_may_do_anything() -> None:
    policy = 'native nft input "tcp dport 25 accept"  allow ssh inbound'
    text = policy + ' test "t" { expect deny smtp inbound  expect allow ssh inbound }'
    ends = [message.rpartition("` is ")[2] for message, _, _ in failures(text)]
    assert ends == ["accepted by a native line", "dropped by a native line"]


def test_a_first_packet_comes_alone() -> None:
    """So it is within every rate and number of connections."""
    policy = """allow ssh inbound limit 4/minute per source  allow http inbound max 8 connections
    deny dns inbound limit over 9/second  allow dns inbound"""
    assert holding(
        policy,
        "allow ssh inbound",
        "some deny ssh inbound",
        "allow http, dns inbound",
        "deny http inbound",
    ) == [True, False, True, False]


def test_a_condition_narrows_what_is_expected() -> None:
    policy = "allow http inbound during 08:00-18:00 mon-fri  allow smtp outbound user 1000-1001"
    policy += "  default deny outbound"
    assert holding(
        policy,
        "allow http inbound during 09:00-10:00 mon",
        "allow http inbound during 09:00-10:00 sun",
        "deny http inbound during 18:00-24:00",
        "allow smtp outbound user 1000",
        "deny smtp outbound user 0-999",
        "some allow smtp outbound",
    ) == [True, False, True, True, True, True]


def test_both_families_are_proved() -> None:
    policy = "allow ssh inbound ipv4"
    assert holding(
        policy, "allow ssh inbound", "allow ssh inbound ipv4", "deny ssh inbound ipv6"
    ) == [False, True, True]


def test_answers_of_reject_are_told_apart() -> None:
    policy = "reject smtp, dns inbound with tcp-reset, admin-prohibited  deny http inbound"
    assert holding(
        policy,
        "reject smtp, dns inbound",
        "reject dns inbound with tcp-reset, admin-prohibited",
        "reject dns inbound with port-unreachable",
        "some reject smtp, http inbound",
        "reject smtp, http inbound",
        "deny smtp, http inbound",
        "drop smtp inbound",
        "drop http inbound",
    ) == [True, True, False, True, False, True, False, True]


def test_what_describes_no_packet_proves_nothing() -> None:
    text = """
    zone lan { interface eth1  network 192.168.1.0/24 }
    set nobody =
    test "t" {
      expect deny ssh from 10.0.0.1 in lan to self
      expect some allow ssh inbound from nobody
    }"""
    assert [message for message, _, _ in failures(text)] == [
        "no packet is described by this, so it proves nothing"
    ] * 2


def test_what_conntrack_leaves_alone_is_asked_about_too() -> None:
    policy = "zone wan { interface eth0 }  untracked dns inbound  allow dns inbound from wan"
    assert holding(
        policy, "allow dns inbound from wan", "deny dns inbound", "allow dns inbound"
    ) == [True, False, False]


def test_what_is_needed_for_ip_is_allowed_as_it_comes() -> None:
    """Neighbours are found with a hop limit of 255, which no word of a question says."""
    assert holding(
        "deny all inbound",
        "allow icmpv6 neighbour-solicitation inbound",
        "deny icmpv6 echo-request inbound",
    ) == [True, True]


def test_protection_is_against_what_is_forged_or_broken() -> None:
    policy = """zone wan { interface eth0 }  allow http inbound
    protect from wan against spoofing, bogons, bad-flags, syn-flood, source-routing"""
    assert holding(
        policy,
        "allow http inbound from wan",
        "deny http inbound from 10.0.0.0/8 in wan",
        "allow http inbound from 1.1.1.1 in wan",
    ) == [False, True, True]


def test_what_another_tool_published_is_asked_about_as_it_was_dialled() -> None:
    policy = "zone wan { interface eth0 }  allow tcp 8080 from wan to published"
    assert holding(
        policy, "allow tcp 8080 from wan to published", "deny tcp 8081 from wan to published"
    ) == [True, True]


def test_programs_that_read_queues_may_decide() -> None:
    policy = """zone wan { interface eth0 }  zone dmz { interface eth1 }
    allow http from wan to dmz  queue http from wan to dmz to 3"""
    assert holding(policy, "allow http from wan to dmz", "some allow http from wan to dmz") == [
        False,
        True,
    ]


def test_tests_mean_nothing_to_the_rules() -> None:
    policy = "set a = 192.0.2.1  allow ssh inbound from a  service s { tcp 9 }"
    with_test = policy + ' test "t" { expect deny all from 198.51.100.0/24, a to self }'
    plain, tested_ = (
        lower(read(text, ("all inbound",))[0], Report()) for text in (policy, with_test)
    )
    assert plain == tested_


def test_a_dynamic_set_that_no_rule_names_can_be_expected() -> None:
    assert holding(
        "set seen = dynamic  allow ssh inbound", "allow ssh inbound from seen", "deny ssh inbound"
    ) == [True, False]


def test_addresses_of_a_witness_are_of_its_family() -> None:
    ((message, _, _),) = failures('allow ssh inbound ipv6 test "t" { expect deny ssh inbound }')
    assert "[2001:db8:7::7]:40000" in message
    assert ip_address("2001:db8:7::7").version == 6
