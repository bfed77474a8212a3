"""Answers to questions against the reference interpreter, packet by packet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from itertools import product
from pathlib import Path
from random import Random

import pytest

from policylang.diagnostics import Report
from policylang.lower.stateful import lower
from policylang.model.policy import Policy
from policylang.model.translations import Queueing, Untracked
from policylang.model.types import NativeRule, PolicyRule
from policylang.packets.fields import ICMP, ICMPV6, TCP, UDP, AddressType
from policylang.pipeline import Text, policy_of
from policylang.source import SourceFile
from tests.analysis.first import NOW, Court, World, as_first, without_moments
from tests.differential.arena import INTERFACES
from tests.differential.compiling import RefusedError, resolved
from tests.differential.lowering import REFUSED, _made_up
from tests.differential.policies import random_policy
from tests.differential.probes import OWN_ADDRESSES, aimed_at
from tests.reference.interpreter import Address, Moment, Packet

ZONES = """\
zone wan { interface eth0 }
zone lan { interface eth1  network 192.168.1.0/24, fd00:1::/64 }
zone dmz { interface eth2  network 10.0.2.0/24 }
set admins = 192.0.2.0/25, 2001:db8:1::/48
set banned = dynamic
"""
SMALL = World(
    ("eth0", "eth1", "eth2", "eth9"),
    {4: ip_address("198.51.100.1"), 6: ip_address("2001:db8:9::1")},
)
SOURCES = {
    4: ("192.0.2.7", "192.0.2.200", "192.168.1.7", "10.0.2.9"),
    6: ("2001:db8:1::7", "fd00:1::7", "2001:db8:2::7"),
}
OTHERS = {4: ("192.168.1.5", "10.0.2.10", "203.0.113.9"), 6: ("fd00:1::5", "2001:db8:3::9")}
PORTS = ((TCP, 22), (TCP, 80), (TCP, 2222), (TCP, 443), (UDP, 53), (UDP, 80))

POLICIES = {
    "plain": """
        allow ssh inbound from admins
        deny http from wan to any
        allow http, https from lan to wan
        reject tcp 22-2222 from any to dmz
        allow all from dmz to lan except 192.168.1.5
        default reject forward
        default deny outbound
        allow dns outbound to admins
        """,
    "conditions": """
        deny ssh inbound from lan source port 1-1023
        allow ssh inbound limit 4/minute per source
        allow ping inbound ipv4
        allow all from lan to wan except 203.0.113.0/24 ipv6
        reject http inbound limit over 10/second
        allow http inbound
        """,
    "sets at run time": """
        deny all from banned to any
        allow ssh inbound from any except admins
        allow dns from lan to banned
        """,
    "sent elsewhere": """
        deny all inbound from admins
        dnat tcp 2222 from wan to 192.168.1.5 port 22
        dnat http from any at 198.51.100.1 to 10.0.2.10, 10.0.2.11
        redirect udp 53 from lan to wan port 80
        redirect tcp 443 inbound port 22
        allow ssh from wan to 192.168.1.5
        deny all from lan to dmz
        allow udp 80 inbound from lan
        """,
    "one to one": """
        netmap 203.0.113.0/28 to 10.0.2.0/28 on wan
        allow http from wan to dmz
        tproxy tcp 80 from lan to any port 443
        masquerade from lan, dmz to wan
        """,
    "protected": """
        protect from wan against bogons, spoofing, bad-flags, syn-flood
        allow ssh, http inbound
        allow all from wan to lan
        """,
}
QUESTIONS = (
    "all from any to any",
    "ssh inbound",
    "ssh from any to self except broadcast",
    "tcp 22-80 from wan, lan except 192.168.1.7 to any",
    "http, udp 53 from admins to dmz, lan",
    "all outbound to wan except admins",
    "tcp 22, 443 from any to 192.168.1.5",
    "http from any to 10.0.2.10",
    "all from banned to self",
    "ping inbound from wan ipv6",
    "dns from self to any source port 1024-65535",
)


def read(text: str, questions: tuple[str, ...]) -> tuple[Policy, dict[str, PolicyRule]]:
    """A policy, and questions to it as rules."""
    report = Report()
    files = tuple(SourceFile("question", question) for question in questions)
    policy = policy_of(Text(text, "p.policy", Path()), report, questions=files)
    assert policy is not None, [d.message for d in report.in_order()]
    asked = [e.asked for test in policy.tests for e in test.expectations]
    return policy, dict(zip(questions, asked[-len(questions) :], strict=True))


def grid() -> Iterator[Packet]:
    """Every packet of a small world."""
    for family in (4, 6):
        here = SMALL.own[family]
        traffic: list[tuple[int, tuple[int, int] | None, int | None]] = [
            (protocol, (sport, port), None) for protocol, port in PORTS for sport in (99, 40000)
        ]
        traffic += [
            (ICMP if family == 4 else ICMPV6, None, 8 if family == 4 else 128),
            (47, None, None),
        ]
        sources = [ip_address(text) for text in SOURCES[family]]
        others = [ip_address(text) for text in OTHERS[family]]
        for iif, source, (protocol, ports, kind) in product(SMALL.interfaces, sources, traffic):
            plain = Packet(iif, None, source, here, protocol, ports, kind)
            for to in (AddressType.LOCAL, AddressType.BROADCAST):
                if to is AddressType.LOCAL or (family == 4 and protocol != TCP):
                    yield as_first(_with(plain, None, here, to), Random(0))
            for oif, other in product(SMALL.interfaces, others):
                yield as_first(_with(plain, oif, other, AddressType.UNICAST), Random(0))
        for oif, other, (protocol, ports, kind) in product(SMALL.interfaces, others, traffic):
            own = Packet(None, oif, here, other, protocol, ports, kind)
            yield as_first(own, Random(0))


def _with(packet: Packet, oif: str | None, destination: Address, kind: AddressType) -> Packet:
    return replace(packet, oif=oif, destination=destination, destination_type=kind)


GRID = tuple(grid())
SHARE = 120  # packets of the grid for each policy and question


@pytest.mark.parametrize("name", POLICIES)
def test_each_packet_gets_the_answer_that_the_interpreter_gives(name: str) -> None:
    """What is asked about, in exactly one part of the answer, with the verdict of the reference."""
    policy, questions = read(ZONES + POLICIES[name], QUESTIONS)
    court = Court(policy, tuple(questions.values()), SMALL)
    held = frozenset(map(ip_address, ("192.0.2.7", "fd00:1::5", "192.168.1.5")))
    moment = Moment({"banned": held}, NOW)
    random = Random(name)
    compared = sum(
        court.compare(
            question,
            iter(random.sample(GRID, SHARE)),
            moment,
            is_exact=True,
            is_calm=name == "protected",
        )
        for question in questions.values()
    )
    assert compared > 70


SEEDS = range(16)
WITHOUT = (
    NativeRule,
    Untracked,
    Queueing,
)  # what the interpreter does not follow whole ways through


def _fitting(random: Random, *, translates: bool) -> Policy | None:
    """A policy drawn at random; None where the compiler or the interpreter does not take it."""
    try:
        policy = resolved(random_policy(random, translates=translates))
    except RefusedError:
        return None
    report = Report()
    lower(policy, report)
    is_refused = any(d.code in REFUSED for d in report.diagnostics)
    is_strange = any(isinstance(s, WITHOUT) for s in policy.statements)
    return None if is_refused or is_strange else policy


@pytest.mark.parametrize("seed", SEEDS)
def test_random_policies_answer_as_the_interpreter_does(seed: int) -> None:
    """Random policies, asked about what their own rules speak of, and about everything."""
    random = Random(seed)
    policy = next(filter(None, (_fitting(random, translates=seed % 2 == 0) for _ in range(30))))
    _, everything = read("", ("all from any to any",))
    rules = random.sample(policy.rules, min(2, len(policy.rules)))
    questions = (*everything.values(), *map(without_moments, rules))
    own = {family: addresses[0] for family, addresses in OWN_ADDRESSES.items()}
    court = Court(policy, questions, World((*INTERFACES, "eth9"), own))
    volley = aimed_at(policy, 25, random)
    moment = Moment(volley.members, NOW)
    made = [_made_up(probe, (), set(), random) for probe in volley.probes]
    packets = [as_first(p, random) for p in made if p.oif != "lo"]
    for question in questions:
        court.compare(question, iter(packets), moment, is_exact=False)
