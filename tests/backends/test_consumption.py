"""Every attribute of a ruleset changes what a target makes of it, or the target refuses it.

`CHANGES` says for each attribute a policy and a change of the ruleset that it is lowered to. What a
target makes of the two is never the same; an attribute that is new fails here until it has its
change, and a field until it has its value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from enum import Enum
from pathlib import Path as Folder
from typing import Any

import pytest

from policylang.backends import TARGETS
from policylang.diagnostics import Report
from policylang.ir.actions import (
    Accept,
    Action,
    AddToSet,
    Answer,
    AssignHelper,
    CgroupGuard,
    ClampMss,
    ConnectionMarkGuard,
    ConnectionsGuard,
    DestinationNat,
    Drop,
    End,
    Guard,
    Jump,
    Leave,
    Log,
    MapPrefix,
    MarkGuard,
    Masquerade,
    Native,
    Offload,
    OwnerGuard,
    Per,
    Queue,
    RateGuard,
    RedirectToSelf,
    Reject,
    RememberAsker,
    RememberQuestion,
    SetConnectionMark,
    SetDscp,
    SetMark,
    SourceNat,
    TimeGuard,
    TransparentProxy,
    UntilGuard,
    Untrack,
)
from policylang.ir.ruleset import (
    NO_NEEDS,
    Base,
    Chain,
    DynamicSet,
    Entry,
    Forwarding,
    HostSuffix,
    ListedSet,
    ListSource,
    Lookup,
    Module,
    NeededHelper,
    Needs,
    ProxyRoute,
    Rule,
    Ruleset,
)
from policylang.ir.stages import Path, Stage
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import (
    DADDR_TESTS,
    REQUIRES,
    SADDR_TESTS,
    TCP_ACK,
    TCP_SYN,
    UNIVERSE,
    Field,
    with_flags,
)
from policylang.packets.values import Ranges, name_range, parse_address
from policylang.pipeline import Text, artifact_of, ruleset_of
from tests.changing import attributes, changed, reached
from tests.model.meaning import lowered

Change = Callable[[Ruleset], Ruleset]


def at(of: type, attribute: str, new: Any) -> Change:
    """The change of the first instance of a class that it changes."""
    return lambda ruleset: changed(ruleset, of, attribute, new)


def swapped_names(ruleset: Ruleset) -> Ruleset:
    """The last two chains, each with the name of the other."""
    *rest, one, other = ruleset.chains
    pair = (replace(one, name=other.name), replace(other, name=one.name))
    return replace(ruleset, chains=(*rest, *pair))


def swapped_jumps(ruleset: Ruleset) -> Ruleset:
    """The jumps to the first two chains that are jumped to, each to the other."""
    chain = ruleset.chains[0]
    one, other = (i for i in chain.items if isinstance(i, Rule) and isinstance(i.action, Jump))
    swapped = {one: replace(one, action=other.action), other: replace(other, action=one.action)}
    items = tuple(swapped.get(i, i) if isinstance(i, Rule) else i for i in chain.items)
    return replace(ruleset, chains=(replace(chain, items=items), *ruleset.chains[1:]))


def swapped_bases(attribute: str) -> Change:
    """The first two base chains, each with an attribute of the other."""

    def change(ruleset: Ruleset) -> Ruleset:
        one, other, *rest = ruleset.bases
        held, held_too = getattr(one, attribute), getattr(other, attribute)
        pair = (replace(one, **{attribute: held_too}), replace(other, **{attribute: held}))
        return replace(ruleset, bases=(*pair, *rest))

    return change


BANNED = "set banned = dynamic timeout 1h size 100\n"
BANNING = f"{BANNED}deny ssh inbound add source to banned for 1m"
RATED = "allow ssh inbound limit 4/minute burst 5"
LIMITED = "allow ssh inbound limit 4/minute burst 5 per source/24"
COUNTED = "allow ssh inbound max 5 connections per source/24"
LOGGED = 'allow ssh inbound log "x" level info limit none'
OWNED = "allow ssh outbound user alice, 5"
SCREENED = "protect from any against bogons, bad-flags"
NATIVE = {
    "nft": 'native nft input "drop"',
    "iptables": 'native iptables INPUT "-j DROP"',
}
# Each source and destination in a rule of its own: the optimiser makes a lookup of them.
LOOKED_UP = "".join(
    f"allow tcp {port} inbound from 192.0.2.{number}\n"
    for number, port in enumerate((22, 80, 443, 8443, 8080, 25))
)
# Each has a chain of its own, so that the rate holds for the log and the verdict together.
TWO_CHAINS = "allow ssh inbound limit 4/minute log\nallow http inbound limit 5/minute log"


def doing(stage: Stage, path: Path, action: Action, *guards: Guard) -> Ruleset:
    """A ruleset that does one thing to TCP of IPv4, at one place."""
    cube = Cube.of({Field.L4PROTO: Ranges.of(6), Field.FAMILY: Ranges.of(4)})
    last = (Rule(EVERYTHING, Accept()),) if stage is Stage.FILTER else ()
    chain = Chain("one", (Rule(cube, action, guards), *last))
    return Ruleset((Base(stage, path, "one"),), (chain,))


SOME_HOSTS = (0xC0000205, 0xC0000206)
MASQUERADED = doing(Stage.SRCNAT, Path.FORWARD, Masquerade((1000, 2000)))
SOURCE_CHANGED = doing(Stage.SRCNAT, Path.FORWARD, SourceNat(SOME_HOSTS, (1000, 2000)))
DESTINATION_CHANGED = doing(
    Stage.DSTNAT, Path.INPUT, DestinationNat(Ranges((SOME_HOSTS,)), 80, by_source=False)
)
REDIRECTED = doing(Stage.DSTNAT, Path.INPUT, RedirectToSelf(80))
MAPPED = doing(Stage.SRCNAT, Path.FORWARD, MapPrefix(End.SOURCE, (0xC0000200, 0xC00002FF)))
MARKED = doing(Stage.MARK, Path.INPUT, SetMark(1, 0xF))
CONNECTION_MARKED = doing(Stage.MARK, Path.INPUT, SetConnectionMark(1, 0xF))
ASKED_MARK = doing(Stage.MARK, Path.INPUT, SetDscp(1), ConnectionMarkGuard(1, 0xF))
PROXIED = doing(Stage.TPROXY, Path.INPUT, TransparentProxy(3128, 6, 1, 0xF))
QUEUED = doing(Stage.INSPECT, Path.FORWARD, Queue(3, 5, may_bypass=False))

LISTED = 'set cdn = resolve "cdn.example" refresh 5m allow ssh inbound from cdn'


def _asked_more(lists: tuple[ListSource, ...]) -> tuple[ListSource, ...]:
    return tuple(replace(one, refresh_s=1) for one in lists)


ZONES = "zone lan { interface eth0 } zone wan { interface eth1 }\n"
FORWARDED = f"{ZONES}allow ftp from lan to wan"
PROXY_ROUTED = f"{ZONES}tproxy http from lan to wan port 3129"

# By class and attribute: a policy (by the target where they differ) or a ruleset, and the change.
CHANGES: dict[tuple[type, str], tuple[str | dict[str, str] | Ruleset, Change]] = {
    # --- the whole ----------------------------------------------------------------------------
    (Ruleset, "bases"): ("allow ssh inbound", swapped_bases("chain")),
    (Ruleset, "chains"): ("allow ssh inbound limit 4/minute log", swapped_names),
    (Ruleset, "address_tests"): (
        "allow ssh inbound from ::10/-64",
        at(Ruleset, "address_tests", (HostSuffix(0x11, (1 << 64) - 1),)),
    ),
    (Ruleset, "dynamic_sets"): (BANNED, at(Ruleset, "dynamic_sets", ())),
    (Ruleset, "has_counters"): ("allow ssh inbound", at(Ruleset, "has_counters", True)),
    (Base, "stage"): (SCREENED, swapped_bases("stage")),
    (Base, "path"): ("allow ssh inbound", swapped_bases("path")),
    (Base, "chain"): ("allow ssh inbound", swapped_bases("chain")),
    (Chain, "name"): (TWO_CHAINS, swapped_names),
    (Chain, "items"): ("allow ssh inbound", at(Chain, "items", lambda items: items[1:])),
    (Ruleset, "needs"): (FORWARDED, at(Ruleset, "needs", NO_NEEDS)),
    (Needs, "forwards"): (FORWARDED, at(Needs, "forwards", ())),
    (Needs, "modules"): (FORWARDED, at(Needs, "modules", ())),
    (Needs, "helpers"): (FORWARDED, at(Needs, "helpers", ())),
    (Needs, "proxy_route"): (PROXY_ROUTED, at(Needs, "proxy_route", None)),
    (Needs, "forwards_any"): (FORWARDED, at(Needs, "forwards_any", lambda so: not so)),
    (Needs, "cuts_flows"): (FORWARDED, at(Needs, "cuts_flows", True)),
    (Forwarding, "family"): (FORWARDED, at(Forwarding, "family", 6)),
    (Module, "name"): (FORWARDED, at(Module, "name", "other")),
    (Module, "is_required"): (FORWARDED, at(Module, "is_required", lambda so: not so)),
    (NeededHelper, "name"): (FORWARDED, at(NeededHelper, "name", "other")),
    (NeededHelper, "protocol"): (FORWARDED, at(NeededHelper, "protocol", 17)),
    (NeededHelper, "families"): (FORWARDED, at(NeededHelper, "families", ())),
    (ProxyRoute, "value"): (PROXY_ROUTED, at(ProxyRoute, "value", 1)),
    (ProxyRoute, "mask"): (PROXY_ROUTED, at(ProxyRoute, "mask", 1)),
    (ProxyRoute, "families"): (PROXY_ROUTED, at(ProxyRoute, "families", (6,))),
    (DynamicSet, "name"): (BANNED, at(DynamicSet, "name", "other")),
    (DynamicSet, "timeout_s"): (BANNED, at(DynamicSet, "timeout_s", None)),
    (DynamicSet, "size"): (BANNED, at(DynamicSet, "size", 101)),
    (ListedSet, "source"): (LISTED, at(ListedSet, "source", ListSource("b", ("url a",), 1))),
    (ListedSet, "addresses"): (LISTED, at(ListedSet, "addresses", Ranges())),
    (ListSource, "name"): (LISTED, at(ListSource, "name", "other")),
    (ListSource, "sources"): (LISTED, at(ListSource, "sources", ("url https://other.example",))),
    (ListSource, "refresh_s"): (LISTED, at(Needs, "lists", lambda lists: _asked_more(lists))),
    (Needs, "lists"): (LISTED, at(Needs, "lists", ())),
    (HostSuffix, "value"): ("allow ssh inbound from ::10/-64", at(HostSuffix, "value", 0x11)),
    (HostSuffix, "mask"): ("allow ssh inbound from ::10/-64", at(HostSuffix, "mask", 0xFF)),
    # --- items --------------------------------------------------------------------------------
    (Rule, "cube"): ("allow ssh inbound", at(Rule, "cube", EVERYTHING)),
    (Rule, "action"): ("allow ssh inbound", at(Rule, "action", Drop())),
    (Rule, "guards"): (LIMITED, at(Rule, "guards", ())),
    (Lookup, "cube"): (
        LOOKED_UP,
        at(Lookup, "cube", lambda cube: cube & Cube.of({Field.IIF: Ranges((name_range("eth0"),))})),
    ),
    (Lookup, "fields"): (
        LOOKED_UP,
        at(
            Lookup,
            "fields",
            lambda fields: tuple(Field.DADDR if f is Field.SADDR else f for f in fields),
        ),
    ),
    (Lookup, "entries"): (LOOKED_UP, at(Lookup, "entries", lambda entries: entries[1:])),
    (Entry, "key"): (
        LOOKED_UP,
        at(Entry, "key", lambda key: tuple((low + 1000, high + 1000) for low, high in key)),
    ),
    (Entry, "action"): (LOOKED_UP, at(Entry, "action", Drop())),
    # --- actions ------------------------------------------------------------------------------
    (Reject, "answer"): ("reject ssh inbound", at(Reject, "answer", Answer.HOST_UNREACHABLE)),
    (Jump, "chain"): (TWO_CHAINS, swapped_jumps),
    (Log, "prefix"): (LOGGED, at(Log, "prefix", "y")),
    (Log, "level"): (LOGGED, at(Log, "level", "debug")),
    (Log, "group"): ("allow ssh inbound log group 5", at(Log, "group", 6)),
    (AddToSet, "set"): (f"set other = dynamic\n{BANNING}", at(AddToSet, "set", "other")),
    (AddToSet, "end"): (BANNING, at(AddToSet, "end", End.DESTINATION)),
    (AddToSet, "timeout_s"): (BANNING, at(AddToSet, "timeout_s", 61)),
    (RememberQuestion, "timeout_s"): (
        "allow mdns outbound",
        at(RememberQuestion, "timeout_s", 61),
    ),
    (RememberAsker, "timeout_s"): (
        "allow mdns inbound default deny outbound",
        at(RememberAsker, "timeout_s", 61),
    ),
    (Native, "target"): (NATIVE, at(Native, "target", "other")),
    (Native, "text"): (NATIVE, at(Native, "text", lambda text: f"{text} ")),
    (Native, "family"): (NATIVE, at(Native, "family", 6)),
    (AssignHelper, "helper"): ("allow ftp inbound", at(AssignHelper, "helper", "sip")),
    (AssignHelper, "protocol"): ("allow ftp inbound", at(AssignHelper, "protocol", 17)),
    # --- translations and treatment -----------------------------------------------------------
    (Masquerade, "ports"): (MASQUERADED, at(Masquerade, "ports", None)),
    (Masquerade, "is_random"): (MASQUERADED, at(Masquerade, "is_random", True)),
    (SourceNat, "addresses"): (
        SOURCE_CHANGED,
        at(SourceNat, "addresses", (SOME_HOSTS[0], SOME_HOSTS[0])),
    ),
    (SourceNat, "ports"): (SOURCE_CHANGED, at(SourceNat, "ports", None)),
    (SourceNat, "is_random"): (SOURCE_CHANGED, at(SourceNat, "is_random", True)),
    (SourceNat, "is_persistent"): (SOURCE_CHANGED, at(SourceNat, "is_persistent", True)),
    (DestinationNat, "targets"): (
        DESTINATION_CHANGED,
        at(DestinationNat, "targets", Ranges.of(SOME_HOSTS[0])),
    ),
    (DestinationNat, "port"): (DESTINATION_CHANGED, at(DestinationNat, "port", None)),
    (DestinationNat, "by_source"): (DESTINATION_CHANGED, at(DestinationNat, "by_source", True)),
    (RedirectToSelf, "port"): (REDIRECTED, at(RedirectToSelf, "port", 81)),
    (MapPrefix, "end"): (MAPPED, at(MapPrefix, "end", End.DESTINATION)),
    (MapPrefix, "prefix"): (MAPPED, at(MapPrefix, "prefix", (0xC0000200, 0xC000027F))),
    (SetMark, "value"): (MARKED, at(SetMark, "value", 2)),
    (SetMark, "mask"): (MARKED, at(SetMark, "mask", 0xFF)),
    (SetConnectionMark, "value"): (CONNECTION_MARKED, at(SetConnectionMark, "value", 2)),
    (SetConnectionMark, "mask"): (CONNECTION_MARKED, at(SetConnectionMark, "mask", 0xFF)),
    (SetDscp, "code"): (ASKED_MARK, at(SetDscp, "code", 2)),
    (ClampMss, "size"): (
        doing(Stage.TREAT, Path.FORWARD, ClampMss(1400)),
        at(ClampMss, "size", None),
    ),
    (TransparentProxy, "port"): (PROXIED, at(TransparentProxy, "port", 3129)),
    (TransparentProxy, "protocol"): (PROXIED, at(TransparentProxy, "protocol", 17)),
    (TransparentProxy, "value"): (PROXIED, at(TransparentProxy, "value", 2)),
    (TransparentProxy, "mask"): (PROXIED, at(TransparentProxy, "mask", 0xFF)),
    (Queue, "low"): (QUEUED, at(Queue, "low", 4)),
    (Queue, "high"): (QUEUED, at(Queue, "high", 6)),
    (Queue, "may_bypass"): (QUEUED, at(Queue, "may_bypass", True)),
    (Offload, "devices"): (
        doing(Stage.FILTER, Path.FORWARD, Offload(("eth0", "eth1"))),
        at(Offload, "devices", ("eth0", "eth2")),
    ),
    # --- guards -------------------------------------------------------------------------------
    (ConnectionMarkGuard, "value"): (ASKED_MARK, at(ConnectionMarkGuard, "value", 2)),
    (ConnectionMarkGuard, "mask"): (ASKED_MARK, at(ConnectionMarkGuard, "mask", 0xFF)),
    (RateGuard, "count"): (RATED, at(RateGuard, "count", 5)),
    (RateGuard, "unit"): (RATED, at(RateGuard, "unit", "second")),
    (RateGuard, "burst"): (RATED, at(RateGuard, "burst", 6)),
    (RateGuard, "over"): (RATED, at(RateGuard, "over", True)),
    (RateGuard, "per"): (LIMITED, at(RateGuard, "per", None)),
    (Per, "end"): (LIMITED, at(Per, "end", End.DESTINATION)),
    (Per, "prefix_len_v4"): (LIMITED, at(Per, "prefix_len_v4", 25)),
    (Per, "prefix_len_v6"): (LIMITED, at(Per, "prefix_len_v6", 65)),
    (ConnectionsGuard, "count"): (COUNTED, at(ConnectionsGuard, "count", 6)),
    (ConnectionsGuard, "over"): (COUNTED, at(ConnectionsGuard, "over", True)),
    (ConnectionsGuard, "per"): (COUNTED, at(ConnectionsGuard, "per", None)),
    (OwnerGuard, "kind"): (OWNED, at(OwnerGuard, "kind", "group")),
    (OwnerGuard, "ids"): (OWNED, at(OwnerGuard, "ids", Ranges.of(6))),
    (OwnerGuard, "names"): (OWNED, at(OwnerGuard, "names", ("bob",))),
    (CgroupGuard, "path"): ('allow ssh outbound cgroup "a/b"', at(CgroupGuard, "path", "a")),
    (MarkGuard, "value"): ("allow ssh inbound mark 5/0xf", at(MarkGuard, "value", 6)),
    (MarkGuard, "mask"): ("allow ssh inbound mark 5/0xf", at(MarkGuard, "mask", 0xFF)),
    (TimeGuard, "week_s"): (
        "allow ssh inbound during 08:00-18:00",
        at(TimeGuard, "week_s", Ranges.between(0, 59)),
    ),
    (TimeGuard, "is_local"): (
        "allow ssh inbound during 08:00-18:00",
        at(TimeGuard, "is_local", True),
    ),
    (UntilGuard, "last_day"): (
        "allow ssh inbound until 2027-01-31",
        at(UntilGuard, "last_day", date(2027, 2, 1)),
    ),
    (UntilGuard, "is_local"): (
        "allow ssh inbound until 2027-01-31",
        at(UntilGuard, "is_local", True),
    ),
}

# What a target has no need to be told.
NO_NEED = {
    ("iptables", Ruleset, "has_counters"),  # it counts in each rule
    ("iptables", MapPrefix, "end"),  # the stage says it
}
# What a target refuses, however it is said.
REFUSED_ACTIONS = {("iptables", Offload)}

Output = list[tuple[str, str]] | None


def output(ruleset: Ruleset, target: str) -> Output:
    """What a target makes of a ruleset, or None where it refuses it."""
    report = Report()
    artifact = artifact_of(ruleset, target, report)
    if artifact is None:
        assert report.has_errors
        return None
    return [*((file.name, file.text) for file in artifact.files), ("needs", str(artifact.needs))]


def ruleset_for(text: str) -> Ruleset:
    """What a text is lowered to; optimised where there are lookups to be made."""
    if text != LOOKED_UP:
        return lowered(text)
    ruleset = ruleset_of(Text(text, "p.policy", Folder()), Report())
    assert ruleset is not None
    return ruleset


def is_consumed(of: type, attribute: str, target: str) -> bool:
    given, change = CHANGES[of, attribute]
    text = given[target] if isinstance(given, dict) else given
    ruleset = text if isinstance(text, Ruleset) else ruleset_for(text)
    plain = output(ruleset, target)
    assert (plain is None) == ((target, of) in REFUSED_ACTIONS)
    if plain is None:
        return True
    return output(change(ruleset), target) != plain


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("of", "attribute"), CHANGES, ids=[f"{of.__name__}.{name}" for of, name in CHANGES]
)
def test_each_attribute_is_spelled_or_refused(of: type, attribute: str, target: str) -> None:
    assert is_consumed(of, attribute, target) == ((target, of, attribute) not in NO_NEED)


def test_each_attribute_has_its_change() -> None:
    classes = [c for c in reached(Ruleset) if not issubclass(c, Enum)]
    assert {(c, name) for c in classes for name in attributes(c)} == CHANGES.keys()


@pytest.mark.parametrize("target", TARGETS)
def test_actions_are_told_apart(target: str) -> None:
    """Those without attributes are their class."""
    ruleset = lowered("allow ssh inbound")
    actions = (Accept(), Drop(), Reject(Answer.TCP_RESET))
    found = [output(with_action(ruleset, action), target) for action in actions]
    assert all(one != other for n, one in enumerate(found) for other in found[:n])
    helped = lowered("allow ftp inbound")
    spared = changed(helped, Rule, "action", lambda a: Leave() if type(a) is AssignHelper else a)
    assert output(helped, target) != output(spared, target)
    untracked = (doing(Stage.UNTRACK, Path.INPUT, action) for action in (Untrack(), Leave()))
    assert len({str(output(each, target)) for each in untracked}) == 2


def with_action(ruleset: Ruleset, action: Accept | Drop | Reject) -> Ruleset:
    base = ruleset.chain("input")
    front = Rule(Cube.of({Field.L4PROTO: Ranges.of(6)}), action)
    chains = tuple(replace(c, items=(front, *c.items)) if c == base else c for c in ruleset.chains)
    return replace(ruleset, chains=chains)


@pytest.mark.parametrize("answer", Answer)
@pytest.mark.parametrize("target", TARGETS)
def test_each_answer_is_spelled(answer: Answer, target: str) -> None:
    ruleset = lowered("allow ssh inbound")
    others = [output(with_action(ruleset, Reject(other)), target) for other in Answer]
    assert others.count(output(with_action(ruleset, Reject(answer)), target)) == 1


# --- fields -----------------------------------------------------------------------------------

ADDRESS = parse_address("192.0.2.7")
assert ADDRESS is not None

# A value of each field that is not all of them.
SOME: dict[Field, Ranges] = {
    **{field: Ranges.of(1) for field in UNIVERSE},
    Field.IIF: Ranges((name_range("eth0"),)),
    Field.OIF: Ranges((name_range("eth0"),)),
    Field.CT_HELPER: Ranges((name_range("ftp"),)),
    Field.FAMILY: Ranges.of(4),
    Field.SADDR: Ranges((ADDRESS,)),
    Field.DADDR: Ranges((ADDRESS,)),
    Field.L4PROTO: Ranges.of(17),
    Field.TCP_FLAGS: with_flags(TCP_SYN | TCP_ACK, TCP_SYN),
    Field.DADDR_TYPE: Ranges.of(2),
    Field.SADDR_TYPE: Ranges.of(2),
    Field.ORIG_DADDR: Ranges((ADDRESS,)),
}
OF_CONNTRACK = {
    *(Field.CT_STATE, Field.CT_HELPER, Field.CT_DIRECTION),
    *(Field.DNATED, Field.ORIG_DADDR, Field.ORIG_DPORT, Field.EXPECTED),
}
REFUSED: dict[str, dict[Stage, set[Field]]] = {
    "nft": {
        Stage.SCREEN: OF_CONNTRACK,
        Stage.UNTRACK: OF_CONNTRACK,
        Stage.ASSIGN_HELPER: {Field.CT_HELPER},
        Stage.SRCNAT: {Field.IPSEC, Field.REVERSE_PATH},
    },
    "iptables": {
        Stage.SCREEN: OF_CONNTRACK,
        Stage.UNTRACK: OF_CONNTRACK | {Field.REVERSE_PATH},
        Stage.ASSIGN_HELPER: OF_CONNTRACK | {Field.REVERSE_PATH},
        Stage.MARK: {Field.REVERSE_PATH},
        Stage.TPROXY: {Field.REVERSE_PATH},
        Stage.DSTNAT: {Field.REVERSE_PATH},
        Stage.TREAT: {Field.REVERSE_PATH},
        Stage.FILTER: {Field.REVERSE_PATH},
        Stage.INSPECT: {Field.REVERSE_PATH},
        Stage.SRCNAT: {Field.IPSEC, Field.REVERSE_PATH, Field.SMAC},
    },
}
PLACED: list[tuple[Stage, Path]] = [
    (Stage.SCREEN, Path.INPUT),
    (Stage.UNTRACK, Path.INPUT),
    (Stage.UNTRACK, Path.OUTPUT),
    (Stage.SCREEN_STATE, Path.INPUT),
    (Stage.ASSIGN_HELPER, Path.INPUT),
    (Stage.MARK, Path.INPUT),
    (Stage.MARK, Path.OUTPUT),
    (Stage.TPROXY, Path.INPUT),
    (Stage.DSTNAT, Path.INPUT),
    (Stage.DSTNAT, Path.OUTPUT),
    (Stage.TREAT, Path.FORWARD),
    (Stage.TREAT, Path.OUTPUT),
    (Stage.FILTER, Path.INPUT),
    (Stage.FILTER, Path.FORWARD),
    (Stage.FILTER, Path.OUTPUT),
    (Stage.INSPECT, Path.INPUT),
    (Stage.INSPECT, Path.FORWARD),
    (Stage.INSPECT, Path.OUTPUT),
    (Stage.SRCNAT, Path.FORWARD),
]
ARRIVING = {Field.IIF, Field.SMAC, Field.IPSEC, Field.REVERSE_PATH, Field.ANSWER}
ELSEWHERE = {
    Path.INPUT: {Field.OIF, Field.IPSEC_OUT},
    Path.FORWARD: set(),
    Path.OUTPUT: ARRIVING,
}
# The way out is known, but not yet whether it is one of IPsec.
NOT_YET = {
    (Stage.UNTRACK, Path.OUTPUT): {Field.IPSEC_OUT},
    (Stage.MARK, Path.OUTPUT): {Field.IPSEC_OUT},
    (Stage.DSTNAT, Path.OUTPUT): {Field.IPSEC_OUT},
}


def needed(field: Field) -> Cube:
    """What else holds where a field exists."""
    cube = Cube.of({of: values for left, of, values in REQUIRES if left is field})
    if field in (*SADDR_TESTS, *DADDR_TESTS, Field.SOURCE_ROUTED):
        cube &= Cube.of({Field.FAMILY: Ranges.of(6)})
    if field in (Field.ANSWER, Field.TO_ASKER):
        cube &= Cube.of({Field.L4PROTO: Ranges.of(17), Field.DPORT: Ranges.of(5353)})
    return cube


def ruleset_with(stage: Stage, path: Path, cube: Cube, field: Field) -> Ruleset:
    """A ruleset with one rule of a cube at a place, and the tests that its field may ask."""
    can_drop = stage in (Stage.SCREEN, Stage.SCREEN_STATE, Stage.FILTER)
    action: Action = Drop() if can_drop else Leave()
    last = (Rule(EVERYTHING, Accept()),) if stage is Stage.FILTER else ()
    chains = (Chain("one", (Rule(cube, action), *last)),)
    is_test = field in (*SADDR_TESTS, *DADDR_TESTS)
    asked = [HostSuffix(number, (1 << 64) - 1) for number in range(1, 17)] if is_test else []
    return Ruleset((Base(stage, path, "one"),), chains, (), tuple(asked))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("field", UNIVERSE, ids=lambda field: field.name.lower())
@pytest.mark.parametrize(("stage", "path"), PLACED)
def test_each_field_is_spelled_or_refused(
    stage: Stage, path: Path, field: Field, target: str
) -> None:
    if field in ELSEWHERE[path]:
        return  # no packet on this path has it, and no rule names it
    refused = REFUSED[target].get(stage, set()) | NOT_YET.get((stage, path), set())
    plain = needed(field)
    narrowed = plain & Cube.of({field: SOME[field]})
    assert narrowed != plain
    made = output(ruleset_with(stage, path, narrowed, field), target)
    assert (made is None) == (field in refused)
    assert made != output(ruleset_with(stage, path, plain, field), target)
