"""What becomes of packets on their way from host to host, against the interpreter, host by host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from itertools import product
from pathlib import Path
from random import Random

import pytest

from policylang.analysis.questions import Answer
from policylang.analysis.site import Site, Way
from policylang.cli.sites import hosts_of, questions_of
from policylang.diagnostics import Report
from policylang.model.policy import Policy
from policylang.packets.fields import AddressType
from policylang.pipeline import Text, loaded_from
from policylang.source import SourceFile
from tests.reference.interpreter import Packet, decide

# By host: its addresses. The networks of both gateways' zones tell by which way packets come.
ADDRESSES = {
    "web": ("10.0.1.10", "2001:db8:1::10"),
    "app": ("10.0.1.11",),
    "db": ("10.0.2.5", "2001:db8:2::5"),
    "edge": ("10.0.1.1", "2001:db8:1::1"),
    "core": ("10.0.3.1", "10.0.2.1"),
}
GATEWAYS = {
    "edge": {"wan": ("eth0", ()), "front": ("eth1", ("10.0.1.", "2001:db8:1:"))},
    "core": {
        "link": ("eth0", ()),
        "front2": ("eth1", ("10.0.1.", "2001:db8:1:")),
        "back": ("eth2", ("10.0.2.", "2001:db8:2:")),
    },
}
STRANGER = ("203.0.113.9", "2001:db8:f::9")
SITE = """\
host web { address 10.0.1.10, 2001:db8:1::10 }
host app { address 10.0.1.11 }
host db { address 10.0.2.5, 2001:db8:2::5 }
host edge {
  address 10.0.1.1, 2001:db8:1::1
  gateway
  zone wan { interface eth0 }
  zone front { interface eth1  network 10.0.1.0/24, 2001:db8:1::/64 }
}
host core {
  address 10.0.3.1, 10.0.2.1
  gateway
  zone link { interface eth0 }
  zone front2 { interface eth1  network 10.0.1.0/24, 2001:db8:1::/64 }
  zone back { interface eth2  network 10.0.2.0/24, 2001:db8:2::/64 }
}
set servers = web, app, db
set gateways = edge, core
"""


def ways_of(text: str, questions: Sequence[str]) -> tuple[list[Way], Mapping[str, Policy]]:
    """The answers to questions, and what the policy means to each host."""
    report = Report()
    files = tuple(SourceFile(f"question {n}", one) for n, one in enumerate(questions))
    loaded = loaded_from(Text(text, "site.policy", Path()), report, {}, files)
    hosts = hosts_of(loaded, report)
    rules = {host.name: questions_of(host.policy)[-len(files) :] for host in hosts}
    site = Site(hosts, lambda host: rules[host.name], report)
    assert not report.has_errors, [d.message for d in report.diagnostics]
    ways = [site.way({name: r[n] for name, r in rules.items()}) for n in range(len(files))]
    return ways, {host.name: host.policy for host in hosts}


def interface(host: str, address: str) -> str:
    """By which interface a host reaches an address: a gateway by that of its zone."""
    zones = GATEWAYS.get(host, {})
    for name, networks in zones.values():
        if any(address.startswith(start) for start in networks):
            return name
    return "eth0"


def verdict(policy: Policy, host: str, source: str, destination: str) -> bool | None:
    """Whether a host lets a packet pass; None where it does not come by that host."""
    own = ADDRESSES[host]
    is_sender, is_receiver = source in own, destination in own
    is_passed = not (is_sender or is_receiver)
    ways = interface(host, source), interface(host, destination)
    if is_passed and (host not in GATEWAYS or ways[0] == ways[1]):
        return None
    packet = Packet(
        None if is_sender else interface(host, source),
        None if is_receiver else interface(host, destination),
        ip_address(source),
        ip_address(destination),
        6,
        (40_000, 80),
        destination_type=AddressType.LOCAL if is_receiver else AddressType.UNICAST,
        source_type=AddressType.LOCAL if is_sender else AddressType.UNICAST,
    )
    return decide(policy, packet).accepted


def pairs(sources: tuple[str, ...], destinations: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for source, destination in product(sources, destinations):
        if (":" in source) == (":" in destination):
            yield source, destination


def rules(random: Random) -> str:
    """A few rules, for all hosts and for some of them."""
    ends = [*ADDRESSES, "servers", "gateways", "any", *STRANGER]
    lines = []
    for _ in range(random.randrange(2, 7)):
        verb = random.choice(("allow", "allow", "deny"))
        line = f"{verb} tcp 80 from {random.choice(ends)} to {random.choice(ends)}"
        if random.random() < 0.4:
            some = random.sample([*ADDRESSES, "servers", "gateways"], k=2)
            line = f"on {', '.join(some)} {{ {line} }}"
        lines.append(line)
    if random.random() < 0.3:
        lines.append("default allow forward")
    if random.random() < 0.5:
        lines.append("default deny outbound")
    return "\n".join(lines)


def test_all_hosts_together_answer_as_each_of_them_decides() -> None:
    random = Random(20)
    everybody = {**ADDRESSES, "stranger": STRANGER}
    found: dict[Answer, int] = dict.fromkeys(Answer, 0)
    for _ in range(40):
        text = f"{SITE}{rules(random)}\n"
        drawn = [
            ends for ends in random.sample([*product(everybody, repeat=2)], k=8) if len({*ends}) > 1
        ]
        questions = [
            f"tcp 80 from {', '.join(everybody[one])} to {', '.join(everybody[other])}"
            for one, other in drawn
        ]
        ways, policies = ways_of(text, questions)
        for way, (sender, receiver) in zip(ways, drawn, strict=True):
            passing, stopping = set(), set()
            for pair in pairs(everybody[sender], everybody[receiver]):
                said = {host: verdict(policies[host], host, *pair) for host in ADDRESSES}
                if any(one is not None for one in said.values()):
                    passing.add(False not in said.values())
                stopping |= {host for host, one in said.items() if one is False}
            if not passing:
                assert not way.parts
                continue
            expected = Answer.PARTLY
            if len(passing) == 1:
                expected = Answer.YES if True in passing else Answer.NO
            assert way.answer is expected, (text, sender, receiver)
            told = {part.host.name for part in way.parts if part.answer is not Answer.YES}
            assert told == stopping, (text, sender, receiver)
            found[expected] += 1
    assert min(found.values()) > 2, found


# --- case by case ---------------------------------------------------------------------------------

FROM_CORE = (
    "on core { masquerade from front2 to back  allow tcp 80 from front2 to back }"
    " on edge { default allow forward }"
)
BY_CORE = "on core { default allow forward }"  # which may be on the way to anybody
OPEN = "default allow inbound default allow forward"
CASES: dict[str, tuple[str, str, Answer]] = {
    "a rate lets pass what is within it": (
        "allow tcp 80 from web to db limit 4/minute",
        "tcp 80 from web to db",
        Answer.PARTLY,
    ),
    "nobody is on the way to itself": (
        f"deny tcp 80 from web to web {OPEN}",
        "tcp 80 from any to web",
        Answer.YES,
    ),
    "a zone without networks is where everybody else is": (
        f"on edge {{ allow tcp 80 from servers to wan }} {BY_CORE}",
        "tcp 80 from web to 203.0.113.9, 2001:db8:f::9",
        Answer.YES,
    ),
    "which is by one interface and no other": (
        "on edge { deny tcp 80 from servers to wan } default allow forward",
        "tcp 80 from web to 203.0.113.9, 2001:db8:f::9",
        Answer.NO,
    ),
    "who is masqueraded arrives as the gateway": (
        f"{FROM_CORE} on db {{ allow tcp 80 inbound from core }}",
        "tcp 80 from 10.0.1.10 to 10.0.2.5",
        Answer.YES,
    ),
    "and not as itself": (
        f"{FROM_CORE} on db {{ allow tcp 80 inbound from web }}",
        "tcp 80 from 10.0.1.10 to 10.0.2.5",
        Answer.NO,
    ),
    "under which of its addresses is not known": (
        f"{FROM_CORE} on db {{ allow tcp 80 inbound from 10.0.2.1 }}",
        "tcp 80 from 10.0.1.10 to 10.0.2.5",
        Answer.PARTLY,
    ),
    "what is published is followed to who answers": (
        f"{BY_CORE} on edge {{ dnat tcp 80 from wan at edge to 10.0.1.11 port 8080 }}"
        " on app { allow tcp 8080 inbound }",
        "tcp 80 from 203.0.113.9 to 10.0.1.1",
        Answer.YES,
    ),
    "a zone of another host is who is in it": (
        f"{BY_CORE} on edge {{ allow tcp 80 from wan to web }}",
        "tcp 80 from wan to web",
        Answer.NO,
    ),
    "whom a host may well let in": (
        f"{BY_CORE} on edge {{ allow tcp 80 from wan to web }} on web {{ allow tcp 80 inbound }}",
        "tcp 80 from wan to web",
        Answer.YES,
    ),
    "of two who may answer one does": (
        f"{BY_CORE} on edge {{ dnat tcp 80 from wan at edge to 10.0.1.10, 10.0.1.11 }}"
        " on app { allow tcp 80 inbound }",
        "tcp 80 from 203.0.113.9 to 10.0.1.1",
        Answer.PARTLY,
    ),
    "what a gateway redirects to itself goes nowhere else": (
        f"{BY_CORE} on edge {{ redirect tcp 80 from front to wan port 3128 }}"
        " on web { allow tcp 80 outbound }",
        "tcp 80 from web to 203.0.113.9, 2001:db8:f::9",
        Answer.YES,
    ),
    "a gateway without addresses is on the way": (
        f"{OPEN} host hub {{ gateway  zone a {{ interface eth0  network 10.0.1.0/24 }}"
        "  zone b { interface eth1 } } on hub { deny tcp 80 from web to db }",
        "tcp 80 from 10.0.1.10 to db",
        Answer.NO,
    ),
    "on the port to which it is sent": (
        f"{BY_CORE} on edge {{ dnat tcp 80 from wan at edge to 10.0.1.11 port 8080 }}"
        " on app { allow tcp 80 inbound }",
        "tcp 80 from 203.0.113.9 to 10.0.1.1",
        Answer.NO,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_packets_on_their_way(case: str) -> None:
    rules, question, answer = CASES[case]
    (way,), _ = ways_of(f"{SITE}{rules}\n", [question])
    assert way.answer is answer, [(part.host.name, part.answer) for part in way.parts]


# --- gateways behind each other -------------------------------------------------------------------

CHAIN = """\
host inner {
  address 10.0.9.2, 10.0.3.1
  gateway
  zone up { interface eth0 }
  zone back { interface eth1  network 10.0.3.0/24 }
}
host outer {
  address 198.51.100.1, 10.0.9.1
  gateway
  zone wan { interface eth0 }
  zone link { interface eth1  network 10.0.9.0/24, 10.0.3.0/24 }
}
host db { address 10.0.3.5 }
host far { address 203.0.113.7 }
"""
PUBLISHED = "on outer { dnat tcp 80 from wan at 198.51.100.1 to db } on db { allow tcp 80 inbound }"
BY_OUTER = "on outer { masquerade from link to wan  allow tcp 80 from link to wan }"
BY_INNER = "on inner { masquerade from back to up  allow tcp 80 from back to up }"
OPEN_FAR = "on far { allow tcp 80 inbound }"
WORLD, OUT = "tcp 80 from 203.0.113.9 to 198.51.100.1", "tcp 80 from db to far"
CHAINED: dict[str, tuple[str, str, Answer]] = {
    "what is published goes by the gateways behind": (PUBLISHED, WORLD, Answer.NO),
    "who let it pass": (
        f"{PUBLISHED} on inner {{ allow tcp 80 from up to db }}",
        WORLD,
        Answer.YES,
    ),
    "or some of it": (
        f"{PUBLISHED} on inner {{ allow tcp 80 from 203.0.113.0/29 in up to db }}",
        "tcp 80 from 203.0.113.0/28 to 198.51.100.1",
        Answer.PARTLY,
    ),
    "the last gateway's address is met": (
        f"{BY_OUTER} on inner {{ allow tcp 80 from back to up }}"
        " on far { allow tcp 80 inbound from outer }",
        OUT,
        Answer.YES,
    ),
    "and not the first one's": (
        f"{BY_OUTER} {BY_INNER} on far {{ allow tcp 80 inbound from inner }}",
        OUT,
        Answer.NO,
    ),
    "of two that change it": (
        f"{BY_OUTER} {BY_INNER} on far {{ allow tcp 80 inbound from outer }}",
        OUT,
        Answer.YES,
    ),
    "a gateway behind another meets what that one made of it": (
        f"{BY_INNER} on outer {{ allow tcp 80 from inner to wan }} {OPEN_FAR}",
        OUT,
        Answer.YES,
    ),
    "and nothing else": (
        f"{BY_INNER} on outer {{ allow tcp 80 from db to wan }} {OPEN_FAR}",
        OUT,
        Answer.NO,
    ),
}


@pytest.mark.parametrize("case", CHAINED)
def test_gateways_one_behind_the_other(case: str) -> None:
    rules, question, answer = CHAINED[case]
    (way,), _ = ways_of(f"{CHAIN}{rules}\n", [question])
    assert way.answer is answer, [(part.host.name, part.path, part.answer) for part in way.parts]
