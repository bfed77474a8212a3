"""Every attribute of a policy changes what the policy is lowered to: no condition is ever lost.

`CHANGES` says for each attribute of each class a policy, and what to set instead of what the policy
says. The two differ in nothing else; if they are lowered to the same rules, whoever writes the one
gets the other. An attribute that is new fails here until it has its pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import Enum
from itertools import combinations
from typing import Any

import pytest

from policylang.diagnostics import Report
from policylang.ir.origin import Origin
from policylang.ir.ruleset import Lookup, Ruleset
from policylang.lower.stateful import lower
from policylang.model.check import check
from policylang.model.expectations import (
    PacketExpectation,
    SessionExpectation,
    Wanted,
)
from policylang.model.expectations import Test as OneTest
from policylang.model.policy import Default, InvalidPolicy, Policy, Protect, Protection, Settings
from policylang.model.translations import (
    Clamp,
    Marking,
    Netmap,
    Offloading,
    PortForward,
    Queueing,
    Redirect,
    SourceTranslation,
    TransparentProxying,
    Untracked,
)
from policylang.model.types import (
    AddressEnd,
    AddTo,
    Answer,
    AnyEnd,
    Conditions,
    Connections,
    Direction,
    DynamicEnd,
    DynamicSet,
    End,
    EndList,
    Expectation,
    Group,
    GroupEnd,
    Helper,
    HostEnd,
    Hours,
    IpsecEnd,
    Limit,
    ListedSet,
    Log,
    Mark,
    NativeRule,
    Owners,
    Per,
    PolicyRule,
    PublishedEnd,
    Rate,
    RejectWith,
    SelfEnd,
    Side,
    SuffixEnd,
    Traffic,
    Until,
    Verb,
    Zone,
    ZoneEnd,
)
from policylang.packets.values import Ranges, name_range, parse_address
from policylang.source import SourceFile, Span
from tests.changing import attributes, changed, first, reached
from tests.model.meaning import resolved

HERE = Span(SourceFile("p.policy", "all"), 0, 3)


def addresses(text: str) -> Ranges:
    parsed = parse_address(text)
    assert parsed is not None
    return Ranges((parsed,))


def named(text: str) -> Ranges:
    return Ranges((name_range(text),))


def one_more(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*values, *values)


LAN = "zone lan { interface eth1  network 192.0.2.0/24 }\n"
BANNED = "set banned = dynamic timeout 1h size 100\n"
BANNING = f"{BANNED}deny ssh inbound add source to banned for 1m\n"
LISTED = 'set cdn = resolve "cdn.example" refresh 5m allow ssh inbound from cdn'
LIMITED = "allow ssh inbound limit 4/minute burst 5 per source/24"
LOGGED = 'allow ssh inbound log "x"'
REJECTED = "reject all inbound"
FLOOD = "protect from any against syn-flood log"
NETMAP = f"{LAN}netmap 198.51.100.16/28 to 10.0.2.16/28 on lan"
DMZ = "zone dmz { interface eth2 }\n"
CARRIED = "deny all inbound also established"

HOSTS = "host a { address 192.0.2.1  gateway } host b { address 192.0.2.2 }\n"

OTHER_ZONE = Zone("dmz", named("eth2"), None, HERE)
OTHER_SET = DynamicSet("other", None, 5, HERE)
OTHER_LOG = Log("other ", "debug", None, None, HERE)
OTHER_END = End((EndList((AddressEnd(addresses("198.51.100.7")),)),))
OTHER_PORT = (Traffic(Ranges.of(6), Ranges.of(8080)),)
PER_TARGET = Per(Side.DESTINATION)

# By class and attribute: a policy, and what to set instead.
CHANGES: dict[tuple[type, str], tuple[str, Any]] = {
    # --- the whole ----------------------------------------------------------------------------
    (Policy, "statements"): ("allow ssh inbound", one_more),
    (Policy, "defaults"): (
        "allow ssh inbound",
        lambda defaults: {**defaults, Direction.INBOUND: Default(Verb.ALLOW)},
    ),
    (Policy, "settings"): ("allow ssh inbound", Settings(essentials=False)),
    (Policy, "zones"): (f"{LAN}protect from any against spoofing", ()),
    (Policy, "protections"): ("protect from any against bad-flags", ()),
    (Policy, "dynamic_sets"): (BANNED, ()),
    (Policy, "bogons"): ("protect from any against bogons", addresses("192.0.2.0/24")),
    (Settings, "essentials"): ("allow ssh inbound", False),
    (Settings, "invalid"): ("allow ssh inbound", InvalidPolicy.ACCEPT),
    (Settings, "invalid_log"): ("allow ssh inbound", OTHER_LOG),
    (Settings, "has_counters"): ("allow ssh inbound", True),
    (Settings, "cuts_flows"): ("allow ssh inbound", True),
    (Default, "verb"): ("default deny inbound", Verb.ALLOW),
    (Default, "answer"): ("default reject inbound", RejectWith(Answer.HOST_UNREACHABLE)),
    (Default, "log"): ("default deny inbound log", None),
    (Default, "name"): ('default deny inbound name "a"', "b"),
    (Default, "adds"): (f"{BANNED}default deny inbound add source to banned", ()),
    # --- rules --------------------------------------------------------------------------------
    (PolicyRule, "verb"): ("allow ssh inbound", Verb.DENY),
    (PolicyRule, "what"): ("allow ssh inbound", (Traffic(),)),
    (PolicyRule, "source"): ("allow ssh inbound", OTHER_END),
    (PolicyRule, "destination"): ("allow ssh outbound", OTHER_END),
    (PolicyRule, "answer"): ("reject ssh inbound", RejectWith(Answer.HOST_UNREACHABLE)),
    (PolicyRule, "log"): (LOGGED, None),
    (PolicyRule, "name"): ('allow ssh inbound name "a"', "b"),
    (PolicyRule, "conditions"): (LIMITED, Conditions()),
    (PolicyRule, "adds"): (BANNING, ()),
    (PolicyRule, "also_established"): (CARRIED, False),
    (RejectWith, "tcp"): ("reject ssh inbound", Answer.HOST_UNREACHABLE),
    (RejectWith, "other"): (REJECTED, Answer.HOST_UNREACHABLE),
    (Log, "prefix"): (LOGGED, "y"),
    (Log, "level"): (LOGGED, "debug"),
    (Log, "group"): (LOGGED, 5),
    (Log, "rate"): (LOGGED, None),
    (AddTo, "set"): (BANNING, OTHER_SET),
    (AddTo, "side"): (BANNING, Side.DESTINATION),
    (AddTo, "timeout_s"): (BANNING, None),
    (DynamicSet, "name"): (BANNED, "other"),
    (DynamicSet, "timeout_s"): (BANNED, None),
    (DynamicSet, "size"): (BANNED, 101),
    (ListedSet, "name"): (LISTED, "other"),
    (ListedSet, "sources"): (LISTED, ("resolve other.example",)),
    (ListedSet, "refresh_s"): (LISTED, 60),
    (ListedSet, "addresses"): (LISTED, addresses("192.0.2.9")),
    (NativeRule, "target"): ('native nft input "drop"', "iptables"),
    (NativeRule, "direction"): ('native nft input "drop"', Direction.FORWARD),
    (NativeRule, "text"): ('native nft input "drop"', "accept"),
    (NativeRule, "family"): ('native nft input "drop"', 6),
    # --- ends ---------------------------------------------------------------------------------
    (End, "lists"): ("allow ssh inbound", OTHER_END.lists),
    (EndList, "elements"): ("allow ssh inbound", ()),
    (EndList, "exceptions"): ("allow ssh inbound from any except 192.0.2.1", ()),
    (Zone, "interfaces"): (f"{LAN}allow ssh inbound from lan", named("eth2")),
    (Zone, "networks"): (f"{LAN}allow ssh inbound from lan", addresses("198.51.100.0/24")),
    (ZoneEnd, "zone"): (f"{LAN}allow ssh inbound from lan", OTHER_ZONE),
    (ZoneEnd, "within"): (f"{LAN}allow ssh inbound from lan", (OTHER_ZONE,)),
    (AddressEnd, "addresses"): (
        "allow ssh inbound from 192.0.2.1",
        addresses("192.0.2.2"),
    ),
    (AddressEnd, "within"): (f"{LAN}allow ssh inbound from 192.0.2.1 in lan", ()),
    (GroupEnd, "group"): ("allow ssh inbound to multicast", Group.BROADCAST),
    (GroupEnd, "within"): ("allow ssh outbound to multicast", (OTHER_ZONE,)),
    (DynamicEnd, "set"): (f"{BANNED}allow ssh inbound from banned", OTHER_SET),
    (DynamicEnd, "within"): (f"{LAN}{BANNED}allow ssh inbound from banned in lan", ()),
    (SuffixEnd, "value"): ("allow ssh inbound from ::10/-64", 0x11),
    (SuffixEnd, "mask"): ("allow ssh inbound from ::10/-64", (1 << 32) - 1),
    (SuffixEnd, "within"): (f"{LAN}allow ssh inbound from ::10/-64 in lan", ()),
    (HostEnd, "own"): (f"{HOSTS}allow ssh from a to b", addresses("192.0.2.9")),
    (HostEnd, "others"): (f"{HOSTS}allow ssh from b to a", addresses("192.0.2.9")),
    (HostEnd, "within"): (f"{HOSTS}{LAN}allow ssh inbound from b in lan", ()),
    (HostEnd, "is_passed"): (f"{HOSTS}allow ssh from b to 192.0.2.7", False),
    (IpsecEnd, "within"): (f"{LAN}allow ssh inbound from ipsec in lan", ()),
    # --- traffic ------------------------------------------------------------------------------
    (Traffic, "protocols"): ("allow protocol gre inbound", None),
    (Traffic, "ports"): ("allow ssh inbound", Ranges.of(23)),
    (Traffic, "icmp_types"): ("allow ping inbound", Ranges.of(13)),
    (Traffic, "helper"): ("allow ftp inbound", None),
    (Traffic, "data_ports"): ("allow ftp inbound", Ranges.between(2000, 2010)),
    (Traffic, "answers_from_any"): ("allow mdns outbound", False),
    (Traffic, "service"): ("allow ftp inbound", "other"),
    (Helper, "name"): ("allow irc inbound", "other"),
    (Helper, "assigns"): ("allow ftp inbound", (("other", 6),)),
    (Helper, "matches"): ("allow ftp inbound", ("other",)),
    (Helper, "expects"): ("allow ftp inbound", ()),
    (Helper, "families"): ("allow ftp inbound", Ranges.of(4)),
    (Helper, "modules"): ("allow ftp inbound", ("other",)),
    (Helper, "nat_modules"): (f"{LAN}dnat ftp from lan to 198.51.100.2", ()),
    (Helper, "has_faults"): ("allow irc inbound", False),
    (Expectation, "protocols"): ("allow ftp inbound", Ranges.of(17)),
    (Expectation, "by_client"): ("allow ftp inbound", False),
    (Expectation, "by_server"): ("allow ftp inbound", False),
    # --- conditions ---------------------------------------------------------------------------
    (Conditions, "families"): ("allow ssh inbound ipv4", None),
    (Conditions, "ipsec"): ("allow ssh inbound ipsec", None),
    (Conditions, "macs"): ("allow ssh inbound mac 02:00:00:00:00:01", None),
    (Conditions, "source_ports"): ("allow ssh inbound source port 1024-65535", None),
    (Conditions, "dscp"): ("allow ssh inbound dscp ef", None),
    (Conditions, "sizes"): ("allow ssh inbound size 0-100", None),
    (Conditions, "mark"): ("allow ssh inbound mark 5", None),
    (Conditions, "users"): ("allow ssh outbound user alice", None),
    (Conditions, "groups"): ("allow ssh outbound group users", None),
    (Conditions, "cgroup"): ('allow ssh outbound cgroup "a/b"', "a"),
    (Conditions, "hours"): ("allow ssh inbound during 08:00-18:00", None),
    (Conditions, "until"): ("allow ssh inbound until 2027-01-31", None),
    (Conditions, "connections"): ("allow ssh inbound max 5 connections", None),
    (Conditions, "limit"): (LIMITED, None),
    (Mark, "value"): ("allow ssh inbound mark 5/0xf", 6),
    (Mark, "mask"): ("allow ssh inbound mark 5/0xf", 0xFF),
    (Owners, "ids"): ("allow ssh outbound user alice, 5", Ranges()),
    (Owners, "names"): ("allow ssh outbound user alice, 5", ()),
    (Hours, "week_s"): ("allow ssh inbound during 08:00-18:00", Ranges.between(0, 59)),
    (Hours, "is_local"): ("allow ssh inbound during 08:00-18:00", True),
    (Until, "last_day"): ("allow ssh inbound until 2027-01-31", date(2027, 2, 1)),
    (Until, "is_local"): ("allow ssh inbound until 2027-01-31", True),
    (Connections, "count"): ("allow ssh inbound max 5 connections", 6),
    (Connections, "over"): ("allow ssh inbound max 5 connections", True),
    (Connections, "per"): ("allow ssh inbound max 5 connections per source", PER_TARGET),
    (Limit, "rate"): (LIMITED, Rate(5, "hour")),
    (Limit, "over"): (LIMITED, True),
    (Rate, "count"): (LIMITED, 5),
    (Rate, "unit"): (LIMITED, "hour"),
    (Rate, "burst"): (LIMITED, 6),
    (Rate, "per"): (LIMITED, None),
    (Per, "side"): (LIMITED, Side.DESTINATION),
    (Per, "prefix_len_v4"): (LIMITED, 25),
    (Per, "prefix_len_v6"): (LIMITED, 65),
    # --- protection ---------------------------------------------------------------------------
    (Protect, "source"): (f"{LAN}protect from any against bad-flags", End((EndList(()),))),
    (Protect, "protection"): ("protect from any against bad-flags", Protection.BOGONS),
    (Protect, "rate"): (FLOOD, Rate(5, "second", 5, Per(Side.SOURCE))),
    (Protect, "log"): (FLOOD, None),
    (Protect, "name"): (FLOOD, "a"),
    (Protect, "adds"): (
        f"{BANNED}protect from any against bad-flags add source to banned",
        (),
    ),
    # --- translation --------------------------------------------------------------------------
    (SourceTranslation, "what"): (f"{LAN}masquerade http from lan to any", (Traffic(),)),
    (SourceTranslation, "source"): (f"{LAN}masquerade from lan to any", OTHER_END),
    (SourceTranslation, "destination"): (f"{LAN}masquerade from lan to any", OTHER_END),
    (SourceTranslation, "addresses"): (f"{LAN}masquerade from lan to any", addresses("192.0.2.1")),
    (SourceTranslation, "families"): (f"{LAN}masquerade from lan to any", Ranges.of(6)),
    (SourceTranslation, "ports"): (f"{LAN}masquerade from lan to any", (2000, 3000)),
    (SourceTranslation, "is_random"): (f"{LAN}masquerade from lan to any", True),
    (SourceTranslation, "is_persistent"): (f"{LAN}snat from lan to any as 192.0.2.1", True),
    (SourceTranslation, "conditions"): (f"{LAN}masquerade from lan to any mark 5", Conditions()),
    (SourceTranslation, "log"): (f"{LAN}masquerade from lan to any", OTHER_LOG),
    (SourceTranslation, "name"): (f"{LAN}masquerade from lan to any", "a"),
    (PortForward, "what"): (f"{LAN}dnat http from lan to 10.0.2.10", (Traffic(),)),
    (PortForward, "source"): (f"{LAN}dnat http from lan to 10.0.2.10", OTHER_END),
    (PortForward, "at"): (f"{LAN}dnat http from lan to 10.0.2.10", OTHER_END),
    (PortForward, "targets"): (f"{LAN}dnat http from lan to 10.0.2.10", addresses("10.0.2.11")),
    (PortForward, "ports"): (f"{LAN}dnat http from lan to 10.0.2.10", (8080, 8080)),
    (PortForward, "by_source"): (f"{LAN}dnat http from lan to 10.0.2.10, 10.0.2.11", True),
    (PortForward, "is_hairpin"): (f"{LAN}{DMZ}dnat http from dmz to 192.0.2.10", True),
    (PortForward, "conditions"): (f"{LAN}dnat http from lan to 10.0.2.10 mark 5", Conditions()),
    (PortForward, "log"): (f"{LAN}dnat http from lan to 10.0.2.10", OTHER_LOG),
    (PortForward, "name"): (f"{LAN}dnat http from lan to 10.0.2.10", "a"),
    (Redirect, "what"): (f"{LAN}redirect http from lan to any port 3128", OTHER_PORT),
    (Redirect, "source"): (f"{LAN}redirect http from lan to any port 3128", OTHER_END),
    (Redirect, "destination"): (f"{LAN}redirect http from lan to any port 3128", OTHER_END),
    (Redirect, "ports"): (f"{LAN}redirect http from lan to any port 3128", (3129, 3129)),
    (Redirect, "conditions"): (
        f"{LAN}redirect http from lan to any port 3128 mark 5",
        Conditions(),
    ),
    (Redirect, "log"): (f"{LAN}redirect http from lan to any port 3128", OTHER_LOG),
    (Redirect, "name"): (f"{LAN}redirect http from lan to any port 3128", "a"),
    (TransparentProxying, "what"): (f"{LAN}tproxy http from lan to port 3129", OTHER_PORT),
    (TransparentProxying, "source"): (f"{LAN}tproxy http from lan to port 3129", OTHER_END),
    (TransparentProxying, "destination"): (f"{LAN}tproxy http from lan to port 3129", OTHER_END),
    (TransparentProxying, "port"): (f"{LAN}tproxy http from lan to port 3129", 3130),
    (TransparentProxying, "conditions"): (
        f"{LAN}tproxy http from lan to port 3129 mark 5",
        Conditions(),
    ),
    (TransparentProxying, "log"): (f"{LAN}tproxy http from lan to port 3129", OTHER_LOG),
    (TransparentProxying, "name"): (f"{LAN}tproxy http from lan to port 3129", "a"),
    (Netmap, "outer"): (NETMAP, addresses("198.51.100.32/28").pairs[0]),
    (Netmap, "inner"): (NETMAP, addresses("10.0.2.32/28").pairs[0]),
    (Netmap, "on"): (NETMAP, OTHER_END),
    (Netmap, "conditions"): (f"{NETMAP} mark 5", Conditions()),
    (Netmap, "name"): (NETMAP, "a"),
    # --- treatment ----------------------------------------------------------------------------
    (Clamp, "source"): (f"{LAN}{DMZ}clamp mss from lan to dmz", OTHER_END),
    (Clamp, "destination"): (f"{LAN}{DMZ}clamp mss from lan to dmz", OTHER_END),
    (Clamp, "size"): (f"{LAN}{DMZ}clamp mss from lan to dmz", 1400),
    (Clamp, "conditions"): (f"{LAN}{DMZ}clamp mss from lan to dmz ipv6 mark 5", Conditions()),
    (Clamp, "name"): (f"{LAN}{DMZ}clamp mss from lan to dmz", "a"),
    (Marking, "what"): ("mark http inbound as 0x10", OTHER_PORT),
    (Marking, "source"): ("mark http inbound as 0x10", OTHER_END),
    (Marking, "destination"): ("mark http outbound as 0x10", OTHER_END),
    (Marking, "mark"): ("mark http inbound as 0x10", Mark(0x10, 0xFF)),
    (Marking, "dscp"): ("mark http inbound as dscp ef", 10),
    (Marking, "of_answers"): ("mark http inbound as 0x10", True),
    (Marking, "conditions"): ("mark http inbound as 0x10 mark 5/0xf ipv4", Conditions()),
    (Marking, "name"): ("mark http inbound as 0x10", "a"),
    (Untracked, "what"): ("untracked http inbound", OTHER_PORT),
    (Untracked, "source"): ("untracked http inbound", OTHER_END),
    (Untracked, "destination"): ("untracked http outbound", OTHER_END),
    (Untracked, "conditions"): ("untracked http inbound during 08:00-18:00", Conditions()),
    (Untracked, "name"): ("untracked http inbound", "a"),
    (Offloading, "source"): (f"{LAN}{DMZ}offload from lan to dmz", OTHER_END),
    (Offloading, "destination"): (f"{LAN}{DMZ}offload from lan to dmz", OTHER_END),
    (Offloading, "devices"): (f"{LAN}{DMZ}offload from lan to dmz", ("eth1",)),
    (Offloading, "conditions"): (f"{LAN}{DMZ}offload from lan to dmz ipv6", Conditions()),
    (Offloading, "name"): (f"{LAN}{DMZ}offload from lan to dmz", "a"),
    (Queueing, "what"): ("queue http inbound to 1", OTHER_PORT),
    (Queueing, "source"): ("queue http inbound to 1", OTHER_END),
    (Queueing, "destination"): ("queue http outbound to 1", OTHER_END),
    (Queueing, "queues"): ("queue http inbound to 1", (1, 2)),
    (Queueing, "may_bypass"): ("queue http inbound to 1", True),
    (Queueing, "conditions"): ("queue http inbound to 1 during 08:00-18:00", Conditions()),
    (Queueing, "name"): ("queue http inbound to 1", "a"),
    # --- published ----------------------------------------------------------------------------
    (PublishedEnd, "ports"): ("allow all from any to published 80", None),
    (PublishedEnd, "addresses"): ("allow all from any to published at 192.0.2.1", None),
    (PublishedEnd, "within"): ("allow all from any to published", (OTHER_ZONE,)),
}

# What is no part of what becomes of packets. It must stay so, or have its pair.
PROVED = """allow ftp inbound
test "ftp" { expect allow ftp inbound  expect session ftp passive inbound from 192.0.2.1 }"""
NAMES_AND_NOTES: dict[tuple[type, str], tuple[str, Any]] = {
    # What messages and listings call the zone.
    (Zone, "name"): (f"{LAN}allow ssh inbound from lan", "other"),
    # What an error about it names.
    (HostEnd, "elsewhere"): (f"{HOSTS}allow ssh from b to a", "wan"),
    # By which questions to all hosts are told apart.
    (Policy, "addresses"): (f"{HOSTS}allow ssh from a to b", addresses("192.0.2.9")),
    # What is to be proved of the rules, and makes none.
    (Policy, "tests"): (PROVED, ()),
    (OneTest, "name"): (PROVED, "other"),
    (OneTest, "expectations"): (PROVED, ()),
    (PacketExpectation, "wanted"): (PROVED, Wanted.DROP),
    (PacketExpectation, "is_some"): (PROVED, True),
    (PacketExpectation, "asked"): (PROVED, None),
    (PacketExpectation, "answer"): (PROVED, RejectWith(Answer.HOST_UNREACHABLE)),
    (SessionExpectation, "kind"): (PROVED, "tftp"),
    (SessionExpectation, "mode"): (PROVED, "active"),
    (SessionExpectation, "is_some"): (PROVED, True),
    (SessionExpectation, "asked"): (PROVED, None),
}

# Where each word of the language that is one of several makes a difference of its own.
WORDS: dict[type[Enum], tuple[str, type, str]] = {
    Verb: (REJECTED, PolicyRule, "verb"),
    Direction: ('native nft input "drop"', NativeRule, "direction"),
    Answer: (REJECTED, RejectWith, "other"),
    Side: (BANNING, AddTo, "side"),
    Group: ("allow ssh inbound to multicast", GroupEnd, "group"),
    Protection: (
        f"{LAN}protect from any against spoofing, bogons",
        Protect,
        "protection",
    ),
    InvalidPolicy: ("allow ssh inbound", Settings, "invalid"),
}

Lowered = tuple[Ruleset, list[tuple[Origin, ...]], list[str]]


def lowered(policy: Policy) -> Lowered:
    """All that a policy becomes: its rules, why each exists, and what is told."""
    report = Report()
    ruleset = lower(check(policy, report), report)
    origins = [
        origins
        for chain in ruleset.chains
        for item in chain.items
        for origins in (
            [entry.origins for entry in item.entries]
            if isinstance(item, Lookup)
            else [item.origins]
        )
    ]
    return ruleset, origins, [d.message for d in report.diagnostics]


def makes_a_difference(of: type, attribute: str, text: str, new: Any) -> bool:
    policy = resolved(text)
    return lowered(policy) != lowered(changed(policy, of, attribute, new))


@pytest.mark.parametrize(
    ("of", "attribute"), CHANGES, ids=[f"{of.__name__}.{name}" for of, name in CHANGES]
)
def test_each_attribute_is_consumed(of: type, attribute: str) -> None:
    assert makes_a_difference(of, attribute, *CHANGES[of, attribute])


def all_attributes(root: type) -> set[tuple[type, str]]:
    classes = [c for c in reached(root) if not issubclass(c, Enum)]
    return {(c, name) for c in classes for name in attributes(c)}


def test_each_attribute_has_its_pair() -> None:
    assert all_attributes(Policy) == CHANGES.keys() | NAMES_AND_NOTES.keys()
    assert not CHANGES.keys() & NAMES_AND_NOTES.keys()


@pytest.mark.parametrize(
    ("of", "attribute"),
    NAMES_AND_NOTES,
    ids=[f"{of.__name__}.{name}" for of, name in NAMES_AND_NOTES],
)
def test_names_and_notes_are_no_part_of_the_rules(of: type, attribute: str) -> None:
    """So the test above finds an attribute that nothing consumes."""
    assert not makes_a_difference(of, attribute, *NAMES_AND_NOTES[of, attribute])


@pytest.mark.parametrize("of", WORDS, ids=lambda of: of.__name__)
def test_each_word_means_something_of_its_own(of: type[Enum]) -> None:
    text, holder, attribute = WORDS[of]
    policy = resolved(text)
    said = getattr(first(policy, holder), attribute)
    found = [
        lowered(policy if word is said else changed(policy, holder, attribute, word)) for word in of
    ]
    assert all(a != b for a, b in combinations(found, 2))


def test_each_word_has_its_place() -> None:
    words = {c for c in reached(Policy) if issubclass(c, Enum)}
    assert words - {Wanted} == WORDS.keys()  # what tests expect makes no rules


def test_ends_that_say_nothing_more_are_told_apart() -> None:
    """`any` and `self` have no attributes; what they are is their class."""
    policy = resolved("allow ssh inbound from any")
    own = changed(policy, EndList, "elements", (SelfEnd(),))
    assert attributes(AnyEnd) == attributes(SelfEnd) == []
    assert lowered(policy) != lowered(own)


@dataclass(frozen=True)
class Widened:
    """A policy of a later version."""

    policy: Policy
    news: int = 0


def test_an_attribute_without_a_pair_is_found() -> None:
    assert all_attributes(Widened) - all_attributes(Policy) == {
        (Widened, "policy"),
        (Widened, "news"),
    }
