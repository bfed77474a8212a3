"""A policy of several hosts: each has the rules that concern it, by its own addresses (9)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import product
from pathlib import Path
from random import Random

import pytest

from policylang import pipeline
from policylang.diagnostics import Report
from policylang.ir.actions import Accept
from policylang.ir.dump import dump
from policylang.lower.stateful import lower
from policylang.model.policy import Policy
from policylang.model.types import Direction
from policylang.packets.fields import AddressType
from policylang.pipeline import OfHost, Text
from tests.differential.lowering import fate_of, fits
from tests.reference.interpreter import ANY_MOMENT, Packet, decide

ADDRESSES = {
    "web1": ("10.0.2.10", "2001:db8:2::10"),
    "web2": ("10.0.2.11",),
    "db1": ("10.0.3.5", "2001:db8:3::5"),
    "gw": ("10.0.2.1", "10.0.3.1", "2001:db8:2::1"),
}
GATEWAYS = frozenset({"gw"})
SITE = """\
host web1 { address 10.0.2.10, 2001:db8:2::10 }
host web2 { address 10.0.2.11 }
host db1 { address 10.0.3.5  address 2001:db8:3::5 }
host gw {
  address 10.0.2.1, 10.0.3.1, 2001:db8:2::1
  gateway
  zone web { interface eth0  network 10.0.2.0/24, 2001:db8:2::/64 }
  zone db { interface eth1 }
}
set webservers = web1, web2
set all-hosts = webservers, db1, gw
default deny outbound
"""
STRANGER, OWN = "192.0.2.99", "10.9.9.9"  # OWN: an address that every host has, and none has said


@dataclass(frozen=True)
class Rule:
    """A rule between hosts, worked out by hand: who may speak to whom, on which port."""

    text: str
    sources: frozenset[str]
    destinations: frozenset[str]
    port: int
    on: frozenset[str] = frozenset(ADDRESSES)


def addresses(*hosts: str) -> frozenset[str]:
    return frozenset(address for host in hosts for address in ADDRESSES[host])


ANYBODY = frozenset({*addresses(*ADDRESSES), STRANGER, OWN})
RULES = (
    Rule(
        "allow tcp 5432 from webservers to db1", addresses("web1", "web2"), addresses("db1"), 5432
    ),
    Rule("allow tcp 22 from gw to all-hosts", addresses("gw"), addresses(*ADDRESSES), 22),
    Rule("allow tcp 80 from any to web1", ANYBODY, addresses("web1"), 80),
    Rule(
        "allow tcp 25 from all-hosts except web2, db1 to any",
        addresses("web1", "gw"),
        ANYBODY,
        25,
    ),
    Rule(
        "allow tcp 443 from 192.0.2.99 to webservers except web2",
        frozenset({STRANGER}),
        addresses("web1"),
        443,
    ),
    Rule(
        "on webservers except web1 { allow tcp 81 from web1 to any }",
        addresses("web1"),
        ANYBODY,
        81,
        frozenset({"web2"}),
    ),
    Rule(
        "on gw, db1 { traffic from web1 { allow tcp 82 to db1 } }",
        addresses("web1"),
        addresses("db1"),
        82,
        frozenset({"gw", "db1"}),
    ),
)
TEXT = SITE + "".join(f"{rule.text}\n" for rule in RULES)


def policy_of(text: str, host: str) -> Policy:
    report = Report()
    policy = pipeline.policy_of(OfHost(Text(text, "site.policy", Path()), host), report)
    assert policy is not None, [d.message for d in report.diagnostics]
    return policy


def packets(host: str) -> Iterator[Packet]:
    """First packets between all addresses that there are, as a host meets them."""
    own = {*ADDRESSES[host], OWN}
    ports = {rule.port for rule in RULES}
    for source, destination, port in product(sorted(ANYBODY), sorted(ANYBODY), sorted(ports)):
        if (":" in source) != (":" in destination) or (source in own and destination in own):
            continue
        yield Packet(
            None if source in own else "eth0",
            None if destination in own else "eth1",
            ip_address(source),
            ip_address(destination),
            6,
            (40_000, port),
            destination_type=AddressType.LOCAL if destination in own else AddressType.UNICAST,
            source_type=AddressType.LOCAL if source in own else AddressType.UNICAST,
        )


def allowed(host: str, packet: Packet) -> bool:
    """Whether a rule lets a packet pass on a host, by nothing but the tables above."""
    source, destination = str(packet.source), str(packet.destination)
    if packet.direction is Direction.FORWARD and host not in GATEWAYS:
        return False
    assert packet.ports is not None
    return any(
        host in rule.on
        and source in rule.sources
        and destination in rule.destinations
        and packet.ports[1] == rule.port
        for rule in RULES
    )


@pytest.mark.parametrize("host", ADDRESSES)
def test_each_host_lets_pass_what_rules_say_of_it(host: str) -> None:
    policy = policy_of(TEXT, host)
    report = Report()
    ruleset = lower(policy, report)
    assert not report.diagnostics, [d.message for d in report.diagnostics]
    seen = {True: 0, False: 0}
    for packet in packets(host):
        verdict = decide(policy, packet)
        assert verdict.accepted == allowed(host, packet), packet
        assert fits(fate_of(ruleset, packet, ANY_MOMENT), verdict, packet), packet
        seen[verdict.accepted] += 1
    assert min(seen.values()) > 5, seen


def test_a_rule_that_passes_one_host_passes_all_on_its_way() -> None:
    """Random rules between hosts: what the sender lets out the gateway and the receiver admit."""
    random = Random(9)
    names = [*ADDRESSES, "webservers", "all-hosts"]
    for _ in range(30):
        text = f"{SITE}allow tcp 80 from {random.choice(names)} to {random.choice(names)}\n"
        policies = {host: policy_of(text, host) for host in ADDRESSES}
        for sender, receiver in product(ADDRESSES, repeat=2):
            if sender != receiver:
                verdicts = {
                    (host, _accepts(policies[host], host, *pair))
                    for host in (sender, "gw", receiver)
                    for pair in _pairs(sender, receiver)
                }
                assert len({is_let for _, is_let in verdicts}) == 1, (text, sender, receiver)


def _pairs(sender: str, receiver: str) -> Iterator[tuple[str, str]]:
    for pair in product(ADDRESSES[sender], ADDRESSES[receiver]):
        if (":" in pair[0]) == (":" in pair[1]):
            yield pair


def _accepts(policy: Policy, host: str, source: str, destination: str) -> bool:
    own = ADDRESSES[host]
    packet = Packet(
        None if source in own else "eth0",
        None if destination in own else "eth1",
        ip_address(source),
        ip_address(destination),
        6,
        (40_000, 80),
        destination_type=AddressType.LOCAL if destination in own else AddressType.UNICAST,
        source_type=AddressType.LOCAL if source in own else AddressType.UNICAST,
    )
    return decide(policy, packet).accepted


def test_what_is_denied_is_denied_wherever_it_comes_by() -> None:
    """Also on a host that is no gateway of the policy, and lets all sorts of things through."""
    through = "default allow forward\n"
    for verb in ("deny", "reject", "allow"):
        for host in ("web2", "gw"):  # between db1 and web1: no gateway, and one
            policy = policy_of(f"{SITE}{through}{verb} tcp 80 from web1 to db1\n", host)
            report = Report()
            ruleset = lower(policy, report)
            for source, destination in _pairs("web1", "db1"):
                packet = Packet(
                    "eth0", "eth1", ip_address(source), ip_address(destination), 6, (40_000, 80)
                )
                verdict = decide(policy, packet)
                assert verdict.accepted == (verb == "allow"), (verb, host)
                assert fits(fate_of(ruleset, packet, ANY_MOMENT), verdict, packet)


def test_who_is_excepted_is_so_on_every_host() -> None:
    """What is dialled at another host's address is not sent elsewhere by the way."""
    text = f"{SITE}dnat tcp 80 from any at any except gw to 10.0.2.99\n"
    for host in ("web2", "gw"):
        policy = policy_of(text, host)
        rules = dump(lower(policy, Report())).splitlines()
        lines = [line for line in rules if line.lstrip().startswith("dnat ")]
        assert lines and all("10.0.2.0, 10.0.2.2-" in line for line in lines), lines


# --- zones of other hosts -------------------------------------------------------------------------


def codes(text: str, host: str) -> list[str]:
    report = Report()
    pipeline.ruleset_of(OfHost(Text(text, "site.policy", Path()), host), report)
    return [d.code for d in report.diagnostics]


ELSEWHERE: dict[str, dict[str, list[str]]] = {
    # told by an interface alone: an error on each host that the rule is about
    "allow tcp 80 from db to webservers": {"web1": ["zone-elsewhere"], "db1": [], "gw": []},
    "allow tcp 80 from db to any": {"web1": ["zone-elsewhere"], "db1": ["zone-elsewhere"]},
    "allow ssh inbound from db": {"web1": ["zone-elsewhere"], "gw": []},
    "deny tcp 80 from any except db to web1": {"web1": ["zone-elsewhere"], "db1": []},
    # between zones of one gateway: nobody else's business
    "allow tcp 80 from db to web": {"web1": [], "db1": [], "gw": []},
    # told by its networks: these are known everywhere
    "allow tcp 80 from web to db1": {"db1": [], "gw": []},
    # said where the zone is
    "on gw { allow tcp 80 from db to webservers }": {"web1": [], "db1": [], "gw": []},
    "on gw { masquerade from web to db }": {"web1": [], "gw": []},
    "allow ssh inbound from 192.0.2.1 in db": {"web1": ["unknown-zone"], "gw": []},
}


@pytest.mark.parametrize("rule", ELSEWHERE)
def test_a_zone_is_known_to_the_host_that_has_it(rule: str) -> None:
    assert {host: codes(SITE + rule, host) for host in ELSEWHERE[rule]} == ELSEWHERE[rule]


def test_a_zone_that_some_host_tells_by_an_interface_alone_is_told_by_no_network() -> None:
    """Else who is behind that interface would be left out of what is denied."""
    hosts = (
        "host a { address 10.0.0.1 }\n"
        "host gw1 { gateway  zone wan { interface eth0 } }\n"
        "host gw2 { gateway  zone wan { interface eth0  network 192.0.2.0/24 } }\n"
    )
    assert codes(f"{hosts}deny ssh inbound from wan\n", "a") == ["zone-elsewhere"]


def test_networks_of_a_zone_elsewhere_are_the_same_addresses_here() -> None:
    policy = policy_of(f"{SITE}allow tcp 80 from web to db1\n", "db1")
    assert _accepts(policy, "db1", "10.0.2.77", "10.0.3.5")
    assert not _accepts(policy, "db1", "10.0.4.77", "10.0.3.5")
    assert not _accepts(policy, "db1", "10.0.2.77", OWN)


@pytest.mark.parametrize(
    "text",
    (
        "zone web { interface eth9 }",  # and gw has one of that name
        "on gw { zone db { interface eth9 } }",
        "set web1 = 192.0.2.1",
        "host web1 { }",
    ),
)
def test_names_are_declared_once_on_a_host(text: str) -> None:
    assert "duplicate-name" in codes(f"{SITE}{text}\nallow ssh inbound", "gw")


def test_hosts_may_have_zones_of_one_name() -> None:
    text = (
        "host a { address 10.0.0.1 zone lan { interface eth0 } }\n"
        "host b { address 10.0.0.2 zone lan { interface eth7 } }\n"
        "allow ssh inbound from lan\n"
    )
    for host, interface in (("a", "eth0"), ("b", "eth7")):
        policy = policy_of(text, host)
        for way in ("eth0", "eth7"):
            packet = Packet(
                way,
                None,
                ip_address("10.0.0.9"),
                ip_address("10.0.0.1"),
                6,
                (40_000, 22),
                destination_type=AddressType.LOCAL,
            )
            assert decide(policy, packet).accepted == (way == interface)


def test_what_one_host_calls_so_is_the_catalogue_s_on_others() -> None:
    text = (
        "host a { address 10.0.0.1  zone ntp { interface eth0 } }\n"
        "host b { address 10.0.0.2 }\n"
        "on a { service ssh { tcp 2222 }  set private = 198.51.100.1 }\n"
        "allow ssh inbound from private\n"
        "on b { allow ntp inbound }\n"
    )
    for host, own, source, port in (
        ("a", "10.0.0.1", "198.51.100.1", 2222),
        ("b", "10.0.0.2", "192.168.0.1", 22),
    ):
        ends = ip_address(source), ip_address(own)
        packet = Packet("eth0", None, *ends, 6, (40_000, port), destination_type=AddressType.LOCAL)
        assert decide(policy_of(text, host), packet).accepted


# --- whom blocks are for --------------------------------------------------------------------------

BLOCKS: dict[str, list[str]] = {
    "on nobody { allow ssh inbound }": ["unknown-name"],
    "on db { allow ssh inbound }": ["wrong-kind"],  # a zone of gw
    "set met = dynamic  on met { allow ssh inbound }": ["wrong-kind"],
    'set far = resolve "far.example"  on far { allow ssh inbound }': ["wrong-kind"],
    "on web1 except webservers { deny all inbound }": ["block-for-nobody"],
    "set few = web1 except webservers  on few { deny all inbound }": ["block-for-nobody"],
}


@pytest.mark.parametrize("text", BLOCKS)
def test_a_block_is_for_hosts(text: str) -> None:
    found = {*codes(f"{SITE}{text}\nallow ssh inbound", "web2")}
    assert found - {"empty-set", "not-locked"} == {*BLOCKS[text]}


def test_a_block_is_for_nobody_where_there_are_no_hosts() -> None:
    """Whose hosts are in an inventory that was not given, say."""
    report = Report()
    text = "on web1 { deny all inbound }\nallow ssh inbound\n"
    assert pipeline.ruleset_of(Text(text, "rules.policy", Path()), report) is None
    assert [d.code for d in report.diagnostics] == ["unknown-name"]


# --- neighbours -----------------------------------------------------------------------------------

NEIGHBOURS = {  # of rules between those behind one interface of gw: whether it lets them pass
    "allow tcp 80 from web1 to web2": False,
    "allow tcp 80 from webservers to webservers": False,
    "allow tcp 80 from web1 to 10.0.2.11": True,
    "allow tcp 80 from 10.0.2.10 to 10.0.2.11": True,
    "allow tcp 80 from any to web2": True,
    "default allow forward deny tcp 80 from web1 to web2": False,
}


@pytest.mark.parametrize("rule", NEIGHBOURS)
def test_a_gateway_is_not_between_neighbours_that_a_rule_names(rule: str) -> None:
    ruleset = lower(policy_of(f"{SITE}{rule}\n", "gw"), Report())
    ends = ip_address("10.0.2.10"), ip_address("10.0.2.11")
    packet = Packet("eth0", "eth0", *ends, 6, (40_000, 80))
    passes = isinstance(fate_of(ruleset, packet, ANY_MOMENT).action, Accept)
    assert passes == NEIGHBOURS[rule]
