"""Whatever the text, parsing ends in a tree or in errors, and the two ways of reading agree."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policylang.diagnostics import Report
from policylang.source import SourceFile, Span
from policylang.syntax import tokens, tree, wording
from policylang.syntax.parse import ROLES, Grammar, parse
from policylang.syntax.statements import MOST_BLOCKS

NO_FILE = SourceFile("none", "")
S = Span(NO_FILE, 0, 0)  # spans take no part in equality


def read(text: str, *, catalogue: bool = False) -> tuple[tree.Document, Report]:
    report = Report()
    return parse(SourceFile("p.policy", text), report, catalogue=catalogue), report


def mistakes(text: str) -> list[tuple[str, str]]:
    """Codes with the text that they mark, in order."""
    _, report = read(text)
    return [(d.code, d.span.file.text[d.span.start : d.span.end]) for d in spanned(report)]


def spanned(report: Report) -> Iterator[Any]:
    for diagnostic in report.in_order():
        assert diagnostic.span is not None
        yield diagnostic


# --- every form of the language and its tree ------------------------------------------------


def n(text: str) -> tree.Name:
    return tree.Name(S, text, False)


def q(text: str) -> tree.Name:
    return tree.Name(S, text, True)


def t(text: str) -> tree.Text:
    return tree.Text(S, text)


def num(value: int) -> tree.Number:
    return tree.Number(S, value)


def span_of(low: int, high: int) -> tree.NumberRange:
    return tree.NumberRange(S, low, high)


def ip(text: str) -> tree.Address:
    return tree.Address(S, text)


def kw(text: str) -> tree.Keyword:
    return tree.Keyword(S, text)


def mac(text: str) -> tree.MacAddress:
    return tree.MacAddress(S, text)


def lasting(text: str) -> tree.Duration:
    return tree.Duration(S, text)


def hours(text: str) -> tree.TimeWindow:
    return tree.TimeWindow(S, text)


def rate(
    count: int, unit: str, burst: int | None = None, per: tree.Per | None = None
) -> tree.RateNode:
    return tree.RateNode(S, count, unit, burst, per)


def per(side: str, prefix_len: int | None = None) -> tree.Per:
    return tree.Per(S, side, prefix_len)


def listed(
    name: str, *elements: tree.SetElement, but: Sequence[tree.SetElement] = ()
) -> tree.SetDecl:
    return tree.SetDecl(S, n(name), None, None, elements, tuple(but))


def dynamic(name: str, timeout: str | None = None, size: int | None = None) -> tree.SetDecl:
    node = tree.DynamicNode(
        S, None if timeout is None else lasting(timeout), None if size is None else num(size)
    )
    return tree.SetDecl(S, n(name), node, None, (), ())


def elsewhere(name: str, kind: str, *sources: str, refresh: str | None = None) -> tree.SetDecl:
    texts = tuple(tree.Text(S, source) for source in sources)
    node = tree.ListedNode(S, kind, texts, None if refresh is None else lasting(refresh))
    return tree.SetDecl(S, n(name), None, node, (), ())


def file_of(path: str, column: tree.Number | tree.Text | None = None) -> tree.FileList:
    return tree.FileList(S, path, column)


End = tree.Name | tree.Address | tree.Keyword | tree.PublishedNode | tree.EndItem


def ends(*elements: End, but: Sequence[End] = ()) -> tree.EndListNode:
    def item(element: End) -> tree.EndItem:
        return element if isinstance(element, tree.EndItem) else tree.EndItem(S, element, ())

    return tree.EndListNode(S, tuple(map(item, elements)), tuple(map(item, but)))


def place(
    direction: str | None = None,
    source: tree.EndListNode | None = None,
    destination: tree.EndListNode | None = None,
) -> tree.Place:
    return tree.Place(S, direction, source, destination)


INBOUND = place("inbound")
FROM_LAN = place(None, ends(n("lan")), ends(n("wan")))


def published(
    ports: tree.Number | tree.NumberRange | None = None,
    *addresses: tree.Address | tree.Name,
) -> tree.PublishedNode:
    return tree.PublishedNode(S, ports, addresses)


def rule(
    *what: tree.WhatElement,
    at: tree.Place | None = INBOUND,
    verb: str = "allow",
    answers: Sequence[tree.Name] = (),
    conditions: Sequence[tree.Condition] = (),
    options: Sequence[tree.Option] = (),
) -> tree.RuleNode:
    return tree.RuleNode(S, verb, what, at, tuple(answers), tuple(conditions), tuple(options))


def expected(
    *what: tree.WhatElement,
    verb: str = "allow",
    some: str | None = None,
    answers: Sequence[tree.Name] = (),
    conditions: Sequence[tree.Condition] = (),
    options: Sequence[tree.Option] = (),
) -> tree.ExpectNode:
    """What `expect [some] VERB WHAT inbound …` is read as."""
    return tree.ExpectNode(
        S, some, verb, what, INBOUND, tuple(answers), tuple(conditions), tuple(options)
    )


def where(*conditions: tree.Condition, verb: str = "allow") -> tree.RuleNode:
    """What `allow ssh inbound CONDITIONS` is read as."""
    return rule(n("ssh"), verb=verb, conditions=conditions)


def then(*options: tree.Option, verb: str = "deny") -> tree.RuleNode:
    """What `deny ssh inbound OPTIONS` is read as."""
    return rule(n("ssh"), verb=verb, options=options)


def log(
    prefix: str | None = None,
    level: str | None = None,
    group: int | None = None,
    limit: tree.RateNode | tree.Keyword | None = None,
) -> tree.LogOption:
    return tree.LogOption(
        S,
        None if prefix is None else t(prefix),
        None if level is None else n(level),
        None if group is None else num(group),
        limit,
    )


def ports(protocol: str, *elements: Any, but: Sequence[Any] = ()) -> tree.PortsItem:
    return tree.PortsItem(S, protocol, elements, tuple(but))


def service(name: str, *items: tree.ServiceItem) -> tree.ServiceDecl:
    return tree.ServiceDecl(S, n(name), items)


def port(protocol: str, element: Any) -> tree.PortsWhat:
    return tree.PortsWhat(S, protocol, element)


FORMS: dict[str, Sequence[tree.Statement]] = {
    "": [],
    "# nothing but a comment": [],
    'include "site/*.policy" # as if it stood here': [tree.Include(S, t("site/*.policy"))],
    # hosts
    "host web1 { address 10.0.2.10, 2001:db8::1 }": [
        tree.HostDecl(S, n("web1"), (tree.AddressItem(S, (ip("10.0.2.10"), ip("2001:db8::1"))),))
    ],
    "host gw { gateway zone wan { interface eth0 } zone gateway { } }\nzone x { }": [
        tree.HostDecl(
            S,
            n("gw"),
            (
                tree.GatewayItem(S),
                tree.ZoneDecl(S, n("wan"), (tree.InterfaceItem(S, (n("eth0"),)),)),
                tree.ZoneDecl(S, n("gateway"), ()),
            ),
        ),
        tree.ZoneDecl(S, n("x"), ()),
    ],
    "netmap 192.0.2.0/24 to 10.0.0.0/24 on wan\non a, b except b { use x\nzone z { } }\nuse y": [
        tree.NetmapNode(S, ip("192.0.2.0/24"), ip("10.0.0.0/24"), (n("wan"),), (), ()),
        tree.OnBlock(
            S,
            (n("a"), n("b")),
            (n("b"),),
            (tree.UseNode(S, (n("x"),)), tree.ZoneDecl(S, n("z"), ())),
        ),
        tree.UseNode(S, (n("y"),)),
    ],
    # tests
    'test "x" { }': [tree.TestDecl(S, t("x"), ())],
    'test "x" { expect allow ssh inbound expect some drop ssh inbound }': [
        tree.TestDecl(
            S,
            t("x"),
            (expected(n("ssh")), expected(n("ssh"), verb="drop", some="some")),
        )
    ],
    'test "x" { expect\nreject ssh inbound with tcp-reset ipv4 log expect deny all inbound }': [
        tree.TestDecl(
            S,
            t("x"),
            (
                expected(
                    n("ssh"),
                    verb="reject",
                    answers=(n("tcp-reset"),),
                    conditions=(tree.FamilyCondition(S, "ipv4"),),
                    options=(tree.LogOption(S, None, None, None, None),),
                ),
                expected(tree.Keyword(S, "all"), verb="deny"),
            ),
        )
    ],
    'test "x" { expect session ftp passive inbound expect some session tftp inbound }': [
        tree.TestDecl(
            S,
            t("x"),
            (
                tree.SessionNode(S, None, n("ftp"), n("passive"), INBOUND, (), ()),
                tree.SessionNode(S, "some", n("tftp"), None, INBOUND, (), ()),
            ),
        )
    ],
    # zones
    'zone lan { interface eth1, "wlan*"  network 192.0.2.0/24, fd00:1::/64, offices }': [
        tree.ZoneDecl(
            S,
            n("lan"),
            (
                tree.InterfaceItem(S, (n("eth1"), q("wlan*"))),
                tree.NetworkItem(S, (ip("192.0.2.0/24"), ip("fd00:1::/64"), n("offices"))),
            ),
        )
    ],
    "zone nowhere {}": [tree.ZoneDecl(S, n("nowhere"), ())],
    'zone "host" { interface "eth0.100" }': [
        tree.ZoneDecl(S, q("host"), (tree.InterfaceItem(S, (q("eth0.100"),)),))
    ],
    # sets
    "set a = 192.0.2.7, 198.51.100.10-198.51.100.20, ::, ::1/128, dead:beef::, 192.0.2.300": [
        listed(
            "a",
            ip("192.0.2.7"),
            ip("198.51.100.10-198.51.100.20"),
            ip("::"),
            ip("::1/128"),
            ip("dead:beef::"),
            ip("192.0.2.300"),
        )
    ],
    "set v6 = 2001:db8::1-2001:db8::ff": [listed("v6", ip("2001:db8::1-2001:db8::ff"))],
    "set high = 1024-65535, 80, 0x50, 0x1-0x2": [
        listed("high", span_of(1024, 65535), num(80), num(80), span_of(1, 2))
    ],
    "set phones = 00:11:22:33:44:55, aa:BB:cc:DD:ee:0f except 02:00:00:00:00:01": [
        listed(
            "phones",
            mac("00:11:22:33:44:55"),
            mac("aa:BB:cc:DD:ee:0f"),
            but=[mac("02:00:00:00:00:01")],
        )
    ],
    # eight groups are an address, six pairs are a MAC address
    "set a = 00:11:22:33:44:55:66:77, 00:11:22:33:44::, 00:11:22:33:44:555": [
        listed("a", ip("00:11:22:33:44:55:66:77"), ip("00:11:22:33:44::"), ip("00:11:22:33:44:555"))
    ],
    'set t = a, file "drop.txt" except 192.0.2.9, b': [
        listed("t", n("a"), file_of("drop.txt"), but=[ip("192.0.2.9"), n("b")])
    ],
    'set t = file "a" column 2, file "b" column "ip", column except file "c", file "7" column 7': [
        listed(
            "t",
            file_of("a", num(2)),
            file_of("b", t("ip")),
            n("column"),
            but=[file_of("c"), file_of("7", num(7))],
        )
    ],
    "set banned = dynamic timeout 1h30m size 65535 set b = dynamic size 0x10 timeout 90s": [
        dynamic("banned", "1h30m", 65535),
        dynamic("b", "90s", 16),
    ],
    'set cdn = resolve "a.example", "b.example" refresh 5m set refresh = url "https://c/"': [
        elsewhere("cdn", "resolve", "a.example", "b.example", refresh="5m"),
        elsewhere("refresh", "url", "https://c/"),
    ],
    "set banned = dynamic set timeout = dynamic timeout 1w set c = dynamic size 5": [
        dynamic("banned"),
        dynamic("timeout", "1w"),
        dynamic("c", None, 5),
    ],
    "set empty =\nset data = on, file-x": [listed("empty"), listed("data", n("on"), n("file-x"))],
    "set a = traffic inbound { allow ssh allow ping } set b = zone z {} set c = allow ssh": [
        listed("a"),
        tree.TrafficBlock(S, INBOUND, (rule(n("ssh"), at=None), rule(n("ping"), at=None))),
        listed("b"),
        tree.ZoneDecl(S, n("z"), ()),
        listed("c"),
        rule(n("ssh"), at=None),
    ],
    # parameters
    'param wan = eth0 param hosts = 192.0.2.1, a, "b c", 7-9, 80': [
        tree.ParamDecl(S, n("wan"), (n("eth0"),)),
        tree.ParamDecl(S, n("hosts"), (ip("192.0.2.1"), n("a"), q("b c"), span_of(7, 9), num(80))),
    ],
    "param r = 4/minute": [tree.ParamDecl(S, n("r"), (tree.RateValue(S, 4, "minute"),))],
    "param x param time = 00:11:22:33:44:55, 1h, 08:00-18:00, 2027-01-31, 0x10/0xff": [
        tree.ParamDecl(S, n("x"), ()),
        tree.ParamDecl(
            S,
            n("time"),
            (
                mac("00:11:22:33:44:55"),
                lasting("1h"),
                hours("08:00-18:00"),
                tree.Date(S, "2027-01-31"),
                tree.Masked(S, "0x10/0xff"),
            ),
        ),
    ],
    # services
    "service backup { tcp 8730, 8731-8739, high except 8735  udp 8730 }": [
        service(
            "backup",
            ports("tcp", num(8730), span_of(8731, 8739), n("high"), but=[num(8735)]),
            ports("udp", num(8730)),
        )
    ],
    'service x { sctp 1 dccp 2 helper sip data 40000-40100, high warn "mind the gap" }': [
        service(
            "x",
            ports("sctp", num(1)),
            ports("dccp", num(2)),
            tree.HelperItem(S, n("sip")),
            tree.DataItem(S, (span_of(40000, 40100), n("high"))),
            tree.WarnItem(S, t("mind the gap")),
        )
    ],
    "service y { icmp echo-request, redirect, 8 icmpv6 0x80 protocol gre, 47, tcp }": [
        service(
            "y",
            tree.IcmpItem(S, "icmp", (n("echo-request"), n("redirect"), num(8))),
            tree.IcmpItem(S, "icmpv6", (num(128),)),
            tree.ProtocolItem(S, (n("gre"), num(47), n("tcp"))),
        )
    ],
    "service mdns { udp 5353 answers from any } service answers { udp 1 answers from any }": [
        service("mdns", ports("udp", num(5353)), tree.AnswersItem(S)),
        service("answers", ports("udp", num(1)), tree.AnswersItem(S)),
    ],
    "service web = http, https": [tree.ServiceGroup(S, n("web"), (n("http"), n("https")))],
    # what
    "allow ssh, tcp 8443, 9000-9010, high except 9005, ping inbound": [
        rule(
            n("ssh"),
            port("tcp", num(8443)),
            span_of(9000, 9010),
            n("high"),
            tree.ExceptMark(S),
            num(9005),
            n("ping"),
        )
    ],
    "allow tcp-x, udp high, tcp 0x50 inbound": [
        rule(n("tcp-x"), port("udp", n("high")), port("tcp", num(80)))
    ],
    "allow icmp echo-request, 13, icmpv6 redirect, icmp redirect inbound": [
        rule(
            tree.IcmpWhat(S, "icmp", n("echo-request")),
            num(13),
            tree.IcmpWhat(S, "icmpv6", n("redirect")),
            tree.IcmpWhat(S, "icmp", n("redirect")),
        )
    ],
    "allow protocol gre, 50, protocol icmp, all inbound": [
        rule(
            tree.ProtocolWhat(S, n("gre")),
            num(50),
            tree.ProtocolWhat(S, n("icmp")),
            kw("all"),
        )
    ],
    'allow "all" inbound': [rule(q("all"))],
    # places
    "allow ssh": [rule(n("ssh"), at=None)],
    "allow ssh from lan": [rule(n("ssh"), at=place(None, ends(n("lan"))))],
    "allow ssh to lan": [rule(n("ssh"), at=place(None, None, ends(n("lan"))))],
    "allow ssh inbound from lan to 192.0.2.1": [
        rule(n("ssh"), at=place("inbound", ends(n("lan")), ends(ip("192.0.2.1"))))
    ],
    "allow ssh inbound to broadcast, multicast": [
        rule(n("ssh"), at=place("inbound", None, ends(kw("broadcast"), kw("multicast"))))
    ],
    "allow ssh outbound": [rule(n("ssh"), at=place("outbound"))],
    "allow ssh outbound to any": [rule(n("ssh"), at=place("outbound", None, ends(kw("any"))))],
    "deny ssh from self, 2001:db8::/32 to x in lan in dmz, any-thing except a, b in c": [
        rule(
            n("ssh"),
            verb="deny",
            at=place(
                None,
                ends(kw("self"), ip("2001:db8::/32")),
                ends(
                    tree.EndItem(S, n("x"), (n("lan"), n("dmz"))),
                    n("any-thing"),
                    but=[n("a"), tree.EndItem(S, n("b"), (n("c"),))],
                ),
            ),
        )
    ],
    # answers and options
    "reject smtp outbound with tcp-reset, admin-prohibited": [
        rule(
            n("smtp"),
            verb="reject",
            at=place("outbound"),
            answers=[n("tcp-reset"), n("admin-prohibited")],
        )
    ],
    'allow ssh inbound name "a" log "p " level info group 5 limit 10/second burst 3': [
        rule(
            n("ssh"),
            options=[
                tree.NameOption(S, t("a")),
                log("p ", "info", 5, rate(10, "second", 3)),
            ],
        )
    ],
    'allow ssh log limit none level warn name ""': [
        rule(
            n("ssh"),
            at=None,
            options=[log(level="warn", limit=kw("none")), tree.NameOption(S, t(""))],
        )
    ],
    "allow ssh log limit 4/minute allow ping log": [
        rule(n("ssh"), at=None, options=[log(limit=rate(4, "minute"))]),
        rule(n("ping"), at=None, options=[log()]),
    ],
    "deny ssh inbound log limit 4/minute per source/24 burst 9 group 1 also established": [
        then(
            log(group=1, limit=rate(4, "minute", 9, per("source", 24))),
            tree.AlsoOption(S),
        )
    ],
    'deny ssh inbound add source to banned for 1h add destination to for name "x"': [
        then(
            tree.AddOption(S, "source", n("banned"), lasting("1h")),
            tree.AddOption(S, "destination", n("for"), None),
            tree.NameOption(S, t("x")),
        )
    ],
    # conditions
    "allow ssh inbound limit 4/minute burst 8 per source log": [
        rule(
            n("ssh"),
            conditions=[tree.LimitCondition(S, None, rate(4, "minute", 8, per("source")))],
            options=[log()],
        )
    ],
    "allow ssh inbound limit over 100/second per destination/64 burst 0x10": [
        where(tree.LimitCondition(S, "over", rate(100, "second", 16, per("destination", 64))))
    ],
    "allow ssh limit 1/day allow ssh inbound limit 2/hour": [
        rule(n("ssh"), at=None, conditions=[tree.LimitCondition(S, None, rate(1, "day"))]),
        where(tree.LimitCondition(S, None, rate(2, "hour"))),
    ],
    "allow ssh inbound max 20 connections per source/24 over 5 connections": [
        where(
            tree.ConnectionsCondition(S, "max", num(20), per("source", 24)),
            tree.ConnectionsCondition(S, "over", num(5), None),
        )
    ],
    'allow ssh inbound user bob, 1000-1999, "host" group 0, user-x cgroup "a/b"': [
        where(
            tree.OwnerCondition(S, "user", (n("bob"), span_of(1000, 1999), q("host"))),
            tree.OwnerCondition(S, "group", (num(0), n("user-x"))),
            tree.CgroupCondition(S, t("a/b")),
        )
    ],
    "allow ssh inbound mac 00:11:22:33:44:55, phones source port 1024-65535, high except 5000, x": [
        where(
            tree.MacCondition(S, (mac("00:11:22:33:44:55"), n("phones"))),
            tree.SourcePortCondition(S, (span_of(1024, 65535), n("high")), (num(5000), n("x"))),
        )
    ],
    "allow ssh inbound during 08:00-12:00, 13:00-18:00 mon-fri, sun until 2027-01-31": [
        where(
            tree.DuringCondition(
                S, (hours("08:00-12:00"), hours("13:00-18:00")), (n("mon-fri"), n("sun"))
            ),
            tree.UntilCondition(S, tree.Date(S, "2027-01-31")),
        )
    ],
    "allow ssh inbound during sat, sun allow ssh inbound during 22:00-6:00": [
        where(tree.DuringCondition(S, (), (n("sat"), n("sun")))),
        where(tree.DuringCondition(S, (hours("22:00-6:00"),), ())),
    ],
    "allow ssh inbound mark 0x10/0xff dscp ef, 8-15, 0 size 0-100, 1500 ipv4": [
        where(
            tree.MarkCondition(S, tree.Masked(S, "0x10/0xff")),
            tree.DscpCondition(S, (n("ef"), span_of(8, 15), num(0))),
            tree.SizeCondition(S, (span_of(0, 100), num(1500))),
            tree.FamilyCondition(S, "ipv4"),
        )
    ],
    "allow ssh inbound mark 16 ipv6 allow ssh inbound mark 0x10 ipsec": [
        where(tree.MarkCondition(S, num(16)), tree.FamilyCondition(S, "ipv6")),
        where(tree.MarkCondition(S, num(16)), tree.IpsecCondition(S, None)),
    ],
    "allow ssh inbound except ipsec allow ssh inbound from lan ipsec": [
        where(tree.IpsecCondition(S, "except")),
        rule(
            n("ssh"),
            at=place("inbound", ends(n("lan"))),
            conditions=[tree.IpsecCondition(S, None)],
        ),
    ],
    "allow ssh inbound from ipsec except ipsec in lan": [
        rule(
            n("ssh"),
            at=place("inbound", ends(n("ipsec"), but=[tree.EndItem(S, n("ipsec"), (n("lan"),))])),
        ),
    ],
    "allow ssh inbound during 08:00-18:00 ipsec allow ssh inbound source port 80 except ipsec": [
        where(tree.DuringCondition(S, (hours("08:00-18:00"),), ()), tree.IpsecCondition(S, None)),
        where(tree.SourcePortCondition(S, (num(80),), ()), tree.IpsecCondition(S, "except")),
    ],
    "allow ssh outbound to ::10/-64 with x limit 4/minute": [
        rule(
            n("ssh"),
            at=place("outbound", None, ends(ip("::10/-64"))),
            answers=[n("x")],
            conditions=[tree.LimitCondition(S, None, rate(4, "minute"))],
        )
    ],
    # blocks
    "traffic from lan to wan { allow dns use a, b traffic inbound { deny all } } use c": [
        tree.TrafficBlock(
            S,
            place(None, ends(n("lan")), ends(n("wan"))),
            (
                rule(n("dns"), at=None),
                tree.UseNode(S, (n("a"), n("b"))),
                tree.TrafficBlock(S, INBOUND, (rule(kw("all"), verb="deny", at=None),)),
            ),
        ),
        tree.UseNode(S, (n("c"),)),
    ],
    "rules common { allow ping  allow ssh from admins }": [
        tree.RulesDecl(
            S,
            n("common"),
            (rule(n("ping"), at=None), rule(n("ssh"), at=place(None, ends(n("admins"))))),
        )
    ],
    # defaults and settings
    'default deny inbound log "FW " limit 5/hour': [
        tree.DefaultNode(S, "deny", "inbound", (), (log("FW ", limit=rate(5, "hour")),))
    ],
    "default reject forward with tcp-reset default allow outbound": [
        tree.DefaultNode(S, "reject", "forward", (n("tcp-reset"),), ()),
        tree.DefaultNode(S, "allow", "outbound", (), ()),
    ],
    'settings { essentials off invalid drop log "x" } settings { invalid accept }': [
        tree.SettingsNode(
            S, (tree.EssentialsSetting(S, "off"), tree.InvalidSetting(S, "drop", log("x")))
        ),
        tree.SettingsNode(S, (tree.InvalidSetting(S, "accept", None),)),
    ],
    "settings { on-reload cut log-limit 5/second burst 9 essentials on time local counters off }": [
        tree.SettingsNode(
            S,
            (
                tree.OnReloadSetting(S, "cut"),
                tree.LogLimitSetting(S, rate(5, "second", 9)),
                tree.EssentialsSetting(S, "on"),
                tree.TimeSetting(S, "local"),
                tree.CountersSetting(S, "off"),
            ),
        )
    ],
    "settings { on-reload keep log-limit none time utc counters on }": [
        tree.SettingsNode(
            S,
            (
                tree.OnReloadSetting(S, "keep"),
                tree.LogLimitSetting(S, kw("none")),
                tree.TimeSetting(S, "utc"),
                tree.CountersSetting(S, "on"),
            ),
        )
    ],
    "default deny inbound add source to banned for 1m": [
        tree.DefaultNode(
            S, "deny", "inbound", (), (tree.AddOption(S, "source", n("banned"), lasting("1m")),)
        )
    ],
    # protection and lines of a target's own
    "protect from wan, any except lan against spoofing, syn-flood limit 50/second per source log": [
        tree.ProtectNode(
            S,
            ends(n("wan"), kw("any"), but=[n("lan")]),
            (
                tree.Protection(S, n("spoofing"), None),
                tree.Protection(S, n("syn-flood"), rate(50, "second", None, per("source"))),
            ),
            (log(),),
        )
    ],
    "protect from against against against": [
        tree.ProtectNode(S, ends(n("against")), (tree.Protection(S, n("against"), None),), ())
    ],
    'native nft input "tcp option maxseg size < 500 drop" native iptables "INPUT" "-j X" ipv6': [
        tree.NativeNode(S, n("nft"), n("input"), t("tcp option maxseg size < 500 drop"), None),
        tree.NativeNode(S, n("iptables"), q("INPUT"), t("-j X"), "ipv6"),
    ],
    # translation
    "masquerade from lan, dmz to wan masquerade udp 53, dns from self to any port 9-99 random": [
        tree.MasqueradeNode(
            S, (), place(None, ends(n("lan"), n("dmz")), ends(n("wan"))), None, None, (), ()
        ),
        tree.MasqueradeNode(
            S,
            (port("udp", num(53)), n("dns")),
            place(None, ends(kw("self")), ends(kw("any"))),
            span_of(9, 99),
            "random",
            (),
            (),
        ),
    ],
    "masquerade from lan to wan random port 9 ipv6 log masquerade outbound": [
        tree.MasqueradeNode(
            S,
            (),
            FROM_LAN,
            num(9),
            "random",
            (tree.FamilyCondition(S, "ipv6"),),
            (log(),),
        ),
        tree.MasqueradeNode(S, (), place("outbound"), None, None, (), ()),
    ],
    'snat from lan to wan as 192.0.2.7-192.0.2.9, pool persistent port 1-9 random name "x"': [
        tree.SnatNode(
            S,
            (),
            FROM_LAN,
            (ip("192.0.2.7-192.0.2.9"), n("pool")),
            span_of(1, 9),
            "random",
            "persistent",
            (),
            (tree.NameOption(S, t("x")),),
        )
    ],
    "snat tcp 25 except 26 from lan to wan as as snat as from as to as as as persistent": [
        tree.SnatNode(
            S,
            (port("tcp", num(25)), tree.ExceptMark(S), num(26)),
            FROM_LAN,
            (n("as"),),
            None,
            None,
            None,
            (),
            (),
        ),
        tree.SnatNode(
            S,
            (n("as"),),
            place(None, ends(n("as")), ends(n("as"))),
            (n("as"),),
            None,
            None,
            "persistent",
            (),
            (),
        ),
    ],
    "dnat http, https from wan to 192.0.2.10 dnat all from self to web, 2001:db8::1 hairpin": [
        tree.DnatNode(
            S,
            (n("http"), n("https")),
            ends(n("wan")),
            None,
            (ip("192.0.2.10"),),
            None,
            None,
            None,
            (),
            (),
        ),
        tree.DnatNode(
            S,
            (kw("all"),),
            ends(kw("self")),
            None,
            (n("web"), ip("2001:db8::1")),
            None,
            None,
            "hairpin",
            (),
            (),
        ),
    ],
    "dnat tcp 80 from wan except bad at self, 192.0.2.7 except lan to a hairpin port 1-2 by source"
    " source port 9 mark 1 log": [
        tree.DnatNode(
            S,
            (port("tcp", num(80)),),
            ends(n("wan"), but=[n("bad")]),
            ends(kw("self"), ip("192.0.2.7"), but=[n("lan")]),
            (n("a"),),
            "source",
            span_of(1, 2),
            "hairpin",
            (
                tree.SourcePortCondition(S, (num(9),), ()),
                tree.MarkCondition(S, num(1)),
            ),
            (log(),),
        )
    ],
    "redirect http from lan to wan port 3128 redirect icmp redirect, tcp 80 inbound port 1-2 log": [
        tree.RedirectNode(S, (n("http"),), FROM_LAN, num(3128), (), ()),
        tree.RedirectNode(
            S,
            (tree.IcmpWhat(S, "icmp", n("redirect")), port("tcp", num(80))),
            INBOUND,
            span_of(1, 2),
            (),
            (log(),),
        ),
    ],
    "tproxy http from lan to port 3129 tproxy http from lan port 1 tproxy x from a to b port 2": [
        tree.TproxyNode(S, (n("http"),), ends(n("lan")), None, num(3129), (), ()),
        tree.TproxyNode(S, (n("http"),), ends(n("lan")), None, num(1), (), ()),
        tree.TproxyNode(S, (n("x"),), ends(n("a")), ends(n("b")), num(2), (), ()),
    ],
    "netmap 192.0.2.0/28 to 10.0.2.16/28 on wan, dmz mark 1 netmap fd00::/64 to 2001:db8::/64"
    " on on": [
        tree.NetmapNode(
            S,
            ip("192.0.2.0/28"),
            ip("10.0.2.16/28"),
            (n("wan"), n("dmz")),
            (tree.MarkCondition(S, num(1)),),
            (),
        ),
        tree.NetmapNode(S, ip("fd00::/64"), ip("2001:db8::/64"), (n("on"),), (), ()),
    ],
    # treatment
    "clamp mss from lan to wan clamp mss from lan to wan as 1400 ipv4 clamp mss inbound": [
        tree.ClampNode(S, FROM_LAN, None, (), ()),
        tree.ClampNode(S, FROM_LAN, num(1400), (tree.FamilyCondition(S, "ipv4"),), ()),
        tree.ClampNode(S, INBOUND, None, (), ()),
    ],
    "mark http from lan to wan as 0x10 mark http from lan to wan as 2/0xff answers mark 0x10": [
        tree.MarkNode(S, (n("http"),), FROM_LAN, num(16), None, None, (), ()),
        tree.MarkNode(
            S,
            (n("http"),),
            FROM_LAN,
            tree.Masked(S, "2/0xff"),
            None,
            kw("answers"),
            (tree.MarkCondition(S, num(16)),),
            (),
        ),
    ],
    "mark sip, all inbound as dscp ef dscp cs1 mark x outbound as dscp 46 allow x inbound mark 1": [
        tree.MarkNode(
            S,
            (n("sip"), kw("all")),
            INBOUND,
            None,
            n("ef"),
            None,
            (tree.DscpCondition(S, (n("cs1"),)),),
            (),
        ),
        tree.MarkNode(S, (n("x"),), place("outbound"), None, num(46), None, (), ()),
        rule(n("x"), conditions=[tree.MarkCondition(S, num(1))]),
    ],
    "deny x inbound\nmark y inbound as 1\nmark z inbound\nas 2\nmark 3": [
        rule(n("x"), verb="deny"),
        tree.MarkNode(S, (n("y"),), INBOUND, num(1), None, None, (), ()),
        tree.MarkNode(
            S, (n("z"),), INBOUND, num(2), None, None, (tree.MarkCondition(S, num(3)),), ()
        ),
    ],
    "untracked dns inbound untracked all from lan to wan offload from lan to wan ipv6": [
        tree.UntrackedNode(S, (n("dns"),), INBOUND, (), ()),
        tree.UntrackedNode(S, (kw("all"),), FROM_LAN, (), ()),
        tree.OffloadNode(S, FROM_LAN, (tree.FamilyCondition(S, "ipv6"),), ()),
    ],
    'queue http from lan to wan to 3 bypass queue all inbound to 0-3 name "ips"': [
        tree.QueueNode(S, (n("http"),), FROM_LAN, num(3), "bypass", (), ()),
        tree.QueueNode(
            S, (kw("all"),), INBOUND, span_of(0, 3), None, (), (tree.NameOption(S, t("ips")),)
        ),
    ],
    # ports that others publish
    "allow http from wan to published deny all from wan to published 8080 at 192.0.2.7, x": [
        rule(n("http"), at=place(None, ends(n("wan")), ends(published()))),
        rule(
            kw("all"),
            verb="deny",
            at=place(None, ends(n("wan")), ends(published(num(8080), ip("192.0.2.7"), n("x")))),
        ),
    ],
    "deny all from wan to any except published 1-9 in wan, published at fronts log": [
        rule(
            kw("all"),
            verb="deny",
            at=place(
                None,
                ends(n("wan")),
                ends(
                    kw("any"),
                    but=[
                        tree.EndItem(S, published(span_of(1, 9)), (n("wan"),)),
                        published(None, n("fronts")),
                    ],
                ),
            ),
            options=[log()],
        )
    ],
}


@pytest.mark.parametrize("word", sorted(tokens.UNRESERVED | {"second", "minute", "info", "server"}))
def test_words_that_mean_something_in_one_place_are_names_elsewhere(word: str) -> None:
    document, report = read(
        f"zone {word} {{ interface {word}, {word} network {word} }}"
        f" set {word} = {word} except {word}"
        f" service {word} {{ tcp {word}, {word} icmp {word} protocol {word} helper {word} }}"
        f" service {word} = {word} rules {word} {{ use {word} }}"
        f" allow {word}, tcp {word} from {word} in {word} except {word} to {word} with {word}"
    )
    assert not report.diagnostics
    named = [node for node in nodes(document) if isinstance(node, tree.Name)]
    assert [name.text for name in named] == [word] * 24


HELPER = """helper h323 {
  assign "RAS" udp  match "RAS", "Q.931"  expect tcp, gre from client, server
  family ipv4, ipv6  modules "nf_conntrack_h323"  nat "nf_nat_h323"  faults
}"""


@pytest.mark.parametrize("text", FORMS)
def test_every_form_has_its_tree(text: str) -> None:
    document, report = read(text)
    assert not report.diagnostics
    assert document.statements == tuple(FORMS[text])


def test_the_catalogue_describes_helpers() -> None:
    document, report = read(HELPER, catalogue=True)
    assert not report.diagnostics
    assert document.statements == (
        tree.HelperDecl(
            S,
            n("h323"),
            (
                tree.AssignItem(S, t("RAS"), "udp"),
                tree.MatchItem(S, (t("RAS"), t("Q.931"))),
                tree.ExpectItem(S, (n("tcp"), n("gre")), (n("client"), n("server"))),
                tree.FamilyItem(S, (kw("ipv4"), kw("ipv6"))),
                tree.ModulesItem(S, (t("nf_conntrack_h323"),)),
                tree.NatItem(S, (t("nf_nat_h323"),)),
                tree.FaultsItem(S),
            ),
        ),
    )
    assert mistakes(HELPER) == [("catalogue-only", "helper")]


def test_the_catalogue_reads_without_a_word() -> None:
    for file in files("policylang").joinpath("catalogue/services").iterdir():
        document, report = read(file.read_text("utf-8"), catalogue=True)
        assert not report.diagnostics, file.name
        assert file.name.removesuffix(".policy") not in tokens.RESERVED
        assert document.statements


def nodes(value: Any) -> Iterator[tree.Node]:
    if isinstance(value, tuple):
        for element in value:
            yield from nodes(element)
    elif is_dataclass(value):
        if isinstance(value, tree.Node):
            yield value
        for part in fields(value):
            if part.name != "span":
                yield from nodes(getattr(value, part.name))


@pytest.mark.parametrize("text", FORMS)
def test_every_node_has_the_span_of_its_own_text(text: str) -> None:
    document, _ = read(f"# first\n\t{text}\n")
    for node in nodes(document):
        own = node.span.file.text[node.span.start : node.span.end]
        assert own == own.strip() != ""
        for part in nodes(tuple(getattr(node, f.name) for f in fields(node) if f.name != "span")):
            assert node.span.start <= part.span.start <= part.span.end <= node.span.end
        match node:
            case tree.Name():
                assert own.strip('"') == node.text and own.startswith('"') == node.quoted
            case tree.Text():
                assert own == f'"{node.text}"'
            case (
                tree.Address()
                | tree.Keyword()
                | tree.MacAddress()
                | tree.Duration()
                | tree.TimeWindow()
                | tree.Date()
                | tree.Masked()
            ):
                assert own == node.text
            case tree.NumberRange():
                assert [int(part, 0) for part in own.split("-")] == [node.low, node.high]
            case tree.RateNode():
                assert own.startswith(f"{node.count}/{node.unit}")
            case tree.FileList():
                assert f'"{node.path}"' in own
            case tree.Number():
                assert int(own, 0) == node.value
            case tree.ExceptMark():
                assert own == "except"
            case tree.RuleNode() | tree.DefaultNode():
                assert node.verb in own.split()[:2]


# --- the grammar and what mirrors it --------------------------------------------------------


@pytest.fixture(scope="module")
def grammar() -> Grammar:
    return Grammar()


def test_each_grammar_rule_is_a_class_of_the_tree(grammar: Grammar) -> None:
    mirrored = set()
    for rule_class in grammar.metamodel:
        attributes = set(rule_class._tx_attrs) - {"word"}  # of rules that are a mere word
        if rule_class._tx_type != "common":
            continue
        node = ROLES.get(rule_class.__name__) or getattr(tree, rule_class.__name__)
        mirrored.add(node)
        own = {part.name for part in fields(node)} - {"span"}
        own -= {"quoted", "broken"}  # not written
        assert attributes == own, rule_class.__name__
    written = {c for c in vars(tree).values() if isinstance(c, type) and issubclass(c, tree.Node)}
    assert mirrored - {tree.Document} == written - {tree.Node}


def grammar_text() -> str:
    return files("policylang.syntax").joinpath("policy.tx").read_text("utf-8")


def test_the_grammar_reserves_the_words_of_the_language() -> None:
    listed = re.search(r"WORD: /\(\?x\) \(\?!\((.*?)\)\(\?", grammar_text(), re.DOTALL)
    assert listed
    assert set("".join(listed[1].split()).split("|")) == tokens.RESERVED
    for quoted in re.findall(r"'([a-z][\w-]*)'", grammar_text()):
        assert quoted in tokens.WORDS


def test_terminals_are_told_by_the_words_that_they_take(grammar: Grammar) -> None:
    for name, words in wording._TERMINALS.items():
        regex = grammar.metamodel[name]._tx_peg_rule.regex
        taken = {word for word in (*tokens.WORDS, "forward") if regex.fullmatch(word)}
        assert taken == set(words), name


TERMINALS = {
    tokens.NAME: "WORD",
    tokens.NUMBER: "NUMBER",
    tokens.ADDRESS: "ADDRESS",
    tokens.MAC: "MAC",
    tokens.DURATION: "DURATION",
    tokens.WINDOW: "WINDOW",
    tokens.DATE: "DATE",
    tokens.MASKED: "MASKED",
}


@settings(max_examples=1000)
@given(
    st.text(alphabet="0123456789abfxsmhdw:./-$_Z", min_size=1, max_size=20)
    | st.from_regex(r"(0x)?[0-9]{1,20}[/:.-]?(0x)?[0-9a-f]{0,20}", fullmatch=True)
    | st.from_regex(r"[0-9a-f]{0,5}([:.-][0-9a-f]{0,3}){1,8}(/-?[0-9]{1,4})?", fullmatch=True)
    | st.from_regex(r"([0-9]{1,10}[smhdw]){1,3}", fullmatch=True)
)
def test_terminals_and_tokens_take_the_same_texts(grammar: Grammar, text: str) -> None:
    kind = tokens.kind_of(text)
    if kind in tokens.WORDS - tokens.RESERVED:
        kind = tokens.NAME  # a name may be called so
    for of_token, terminal in TERMINALS.items():
        taken = grammar.metamodel[terminal]._tx_peg_rule.regex.fullmatch(text)
        assert bool(taken) == (kind == of_token), (kind, terminal)


def test_textx_is_imported_by_the_first_parse_alone() -> None:
    code = "import sys, policylang.syntax.loader; sys.exit('textx' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the plain way: textX reads the text as it stands ---------------------------------------


def plain(grammar: Grammar, text: str) -> tree.Document | None:
    """The tree by textX alone, without tokens, shapes or statements; None for errors."""
    from textx import TextXSyntaxError

    file = SourceFile("p.policy", text)

    def node(value: Any, part: Any = None) -> Any:
        if isinstance(value, list):
            return tuple(node(element) for element in value)
        if isinstance(value, str):
            if part.type in ("int", "int | None"):
                return int(value, 16) if value[:2].lower() == "0x" else int(value)
            return value.strip('"')
        if value is None:
            return () if part.type.startswith("tuple") else None
        made = ROLES.get(type(value).__name__) or getattr(tree, type(value).__name__)
        if made is tree.Document:
            return tree.Document(node(value.statements))
        span = Span(file, value._tx_position, value._tx_position_end)
        if made is tree.Name:
            return tree.Name(span, value.text.strip('"'), value.text.startswith('"'))
        parts = (part for part in fields(made) if part.name != "span")
        return made(span, *[node(getattr(value, part.name), part) for part in parts])

    try:
        document = grammar.metamodel.model_from_str(text)
    except TextXSyntaxError:
        return None
    if isinstance(document, str):  # textX's answer to a text without statements
        return tree.Document(())
    return node(document)  # type: ignore[no-any-return]


def spans(document: tree.Document) -> list[tuple[str, int, int]]:
    return [(type(x).__name__, x.span.start, x.span.end) for x in nodes(document)]


def assert_both_ways_agree(grammar: Grammar, text: str) -> None:
    """Where there is no error, textX alone sees the same tree; where there is one, it fails too."""
    document, report = read(text, catalogue=True)
    other = plain(grammar, text)
    if report.has_errors:
        assert other is None
    else:
        assert other is not None
        assert document.statements == other.statements
        assert spans(document) == spans(other)


@pytest.mark.parametrize("text", [*FORMS, HELPER, " ".join(FORMS), "\n".join(FORMS)])
def test_both_ways_agree_on_every_form(grammar: Grammar, text: str) -> None:
    assert_both_ways_agree(grammar, text)


FREE = ["lan", "x-1", "tcp-x", "tcp_", '"any"', '"wlan*"', '""', "80", "0x50", "7-9", "192.0.2.1"]
FREE += ["::", "2001:db8::/32", "5/second", "192.0.2.1-192.0.2.9", "dead:beef::", "n1", "1.0.0.0"]
FREE += ["1h30m", "90s", "08:00-18:00", "2027-01-31", "0x10/0xff", "1/2", "00:11:22:33:44:55"]
FREE += ["source/24", "destination/999", "::10/-64", "0" * 18, "9" * 18, "9" * 19, "0x" + "f" * 16]
FREE += ["0x" + "f" * 17, "1" * 18 + "/day", "1" * 19 + "/day", "1" * 9 + "s", "1" * 10 + "s"]
FREE += ["8:00-9:00", "123:00-9:00", "1-1-1", "0:1:2:3:4:5", "00:11:22:33:44:5g", "00-11-22"]
SOUP = st.sampled_from([*sorted(tokens.WORDS), *FREE, *"{}{},,,=="])
GLUE = st.sampled_from([" ", " ", "\n", " # a, b\n"])


@st.composite
def soups(draw: st.DrawFn) -> str:
    """Tokens in any order."""
    return "".join(token + draw(GLUE) for token in draw(st.lists(SOUP, max_size=30)))


@st.composite
def policies(draw: st.DrawFn) -> str:
    """Statements of every form, some with tokens dropped, doubled or exchanged."""
    written = []
    for form in draw(st.lists(st.sampled_from([*FORMS, HELPER]), max_size=6)):
        parts = re.findall(r'"[^"]*"|#[^\n]*|[{},=]|[^\s{},="#]+', form)
        parts = [part for part in parts if not part.startswith("#")]
        for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
            if parts:
                at = draw(st.integers(0, len(parts) - 1))
                parts[at : at + 1] = draw(st.lists(SOUP, max_size=2))
        written.append("".join(part + draw(GLUE) for part in parts))
    return "".join(written)


@settings(deadline=None, max_examples=400)
@given(text=soups() | policies())
def test_both_ways_agree(grammar: Grammar, text: str) -> None:
    assert_both_ways_agree(grammar, text)


# --- whatever the text ----------------------------------------------------------------------


def assert_told_well(text: str) -> None:
    for catalogue in (False, True):
        document, report = read(text, catalogue=catalogue)
        for diagnostic in spanned(report):
            assert 0 <= diagnostic.span.start <= diagnostic.span.end <= len(text)
            for told in (diagnostic.message, diagnostic.help or "x"):
                assert told and "\n" not in told and told.isprintable()
        for node in nodes(document):
            assert 0 <= node.span.start <= node.span.end <= len(text)


@settings(deadline=None, max_examples=300)
@given(st.text())
def test_any_text_is_read_or_told(text: str) -> None:
    assert_told_well(text)


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet='alow tcp80{},="#.:/-$;\n\r\t\x0b\xa0é', max_size=60))
def test_any_text_of_likely_characters_is_read_or_told(text: str) -> None:
    assert_told_well(text)


ODD = [
    "$x",
    "$",
    "00:11:22:33:44:55",
    "eth0.100",
    "wlan*",
    "6to4",
    "1.2",
    "a:b:c",
    "080",
    "-",
    '"x',
]
ODD += ["9" * 30, "0x", "08:00-18:00", "2027-01-31", "10/fortnight", ";", "(", "ö", "1-", "10/8"]


@settings(deadline=None, max_examples=400)
@given(st.lists(policies() | soups() | st.sampled_from([f"{odd} " for odd in ODD]), max_size=6))
def test_any_policy_with_mistakes_is_read_or_told(parts: list[str]) -> None:
    assert_told_well("".join(parts))


@settings(deadline=None, max_examples=200)
@given(
    policies(), st.sampled_from(["allow log inbound", "zone zone { }", "alow ssh", "limit", "$x"])
)
def test_a_mistake_is_told_wherever_it_stands(before: str, mistake: str) -> None:
    _, report = read(f"{before}\n{mistake}")
    assert report.has_errors


def test_hostile_texts_do_not_take_long() -> None:
    started = time.monotonic()
    for text in (
        "{" * 3000,
        "traffic inbound {" * 3000,
        "zone a {" * 3000,
        "}" * 3000,
        "allow " * 3000,
        "set a = " + "1.2.3.4 " * 300,
        "allow ssh inbound " + "in " * 3000,
        "default allow " * 3000,
        '"' * 3000,
        "on a, " * 3000,
    ):
        _, report = read(text)
        assert report.has_errors
    assert time.monotonic() - started < 20


# --- errors ---------------------------------------------------------------------------------

MISTAKES: dict[str, list[tuple[str, str]]] = {
    # words that are misspelt, missing or too many
    "alow ssh inbound": [("syntax", "alow")],
    "allow ssh inbond from lan": [("syntax", "inbond")],
    "allow ssh inbound form lan": [("syntax", "form")],
    "default accept inbound": [("syntax", "accept")],
    "allow ssh inbound from": [("syntax", "from")],
    "allow ssh inbound from\nallow ping inbound": [("syntax", "from")],
    "deny from lan to wan": [("syntax", "from")],
    "allow tcp 80 443 inbound": [("syntax", "443")],
    "service x { tcp 80, udp 90 }": [("syntax", "udp")],
    "allow ssh outbound from lan": [("syntax", "from")],
    "traffic { allow ssh }": [("syntax", "{")],
    "traffic inbound allow ssh }": [("syntax", "inbound")],
    "allow ssh; allow ping": [("syntax", ";")],
    "zone lan { interface eth0.100 }": [("syntax", "eth0.100")],
    "set a = 1024 - 65535": [("syntax", "-")],
    "allow 192.0.2.1 inbound": [("syntax", "192.0.2.1")],
    "allow ssh inbound log limit 10/fortnight": [("syntax", "10/fortnight")],
    'allow ssh inbound log "x': [("unterminated-string", '"x')],
    "set zürich = 192.0.2.1": [("syntax", "zürich")],
    # reserved words
    "zone zone { interface eth0 }": [("reserved-word", "zone")],
    "set host = 192.0.2.1": [("reserved-word", "host")],
    "service tcp = http": [("reserved-word", "tcp")],
    "allow ssh from limit to any": [("reserved-word", "limit")],
    "allow user inbound": [("reserved-word", "user")],
    "set a = from": [("reserved-word", "from")],
    "use rules": [("reserved-word", "rules")],
    # braces
    "}": [("stray-brace", "}")],
    # what stands too late hides no other mistake
    "allow ssh limit 4/minute inbound from host log": [
        ("syntax", "inbound"),
        ("reserved-word", "host"),
    ],
    'allow ssh inbound log "x" max 3 connections mac zone add b': [
        ("syntax", "max"),
        ("reserved-word", "zone"),
        ("syntax", "b"),
    ],
    "allow ssh inbound max 20\nalow ping inbound": [("syntax", "20"), ("syntax", "alow")],
    "allow ssh inbound mark ef\nallow ping": [("syntax", "ef")],
    "allow ssh inbound from lan sport 1024": [("syntax", "sport")],
    "zone wan { } protect wan against spoofing allow ssh inbond": [
        ("syntax", "wan"),
        ("syntax", "inbond"),
    ],
    "settings { invalid reject essentials maybe }": [("syntax", "reject"), ("syntax", "maybe")],
    "set b = dynamic for 1h set = 1": [("syntax", "for"), ("syntax", "=")],
    "traffic inbound { allow ssh": [("unclosed-block", "{")],
    "zone lan { interface eth0\nallow ssh inbound": [("unclosed-block", "{")],
    "zone lan { interface eth0\nallow ssh inbound\n}": [("unclosed-block", "{")],
    "traffic inbound { allow ssh\nset a = 192.0.2.1\nalow x": [
        ("unclosed-block", "{"),
        ("syntax", "alow"),
    ],
    "traffic inbound { zone lan { } allow ssh }": [("misplaced", "zone")],
    "traffic inbound { " * (MOST_BLOCKS + 1) + "}" * (MOST_BLOCKS + 1): [("nested-too-deep", "{")],
    # translations: what is read on behind a mistake in one
    "masquerade on eth0\nsnat from lan to wan\nalow x\nnat from lan to wan": [
        ("syntax", "eth0"),
        ("syntax", "wan"),
        ("syntax", "alow"),
        ("syntax", "nat"),
    ],
    "dnat http to a from wan dnat http from wan to a 80 allow ssh inbond": [
        ("syntax", "to"),
        ("syntax", "80"),
        ("syntax", "inbond"),
    ],
    "mark ssh from a to b set 0x10 set a = 1 allow x inbound mark ef\nmark y inbound as dscp": [
        ("syntax", "set"),
        ("syntax", "ef"),
        ("syntax", "dscp"),
    ],
    "allow snat from a to b dnat netmap from a to b": [
        ("syntax", "snat"),
        ("reserved-word", "netmap"),
    ],
    "traffic inbound { dnat http from a to b allow ssh }": [("misplaced", "dnat")],
    # tests
    'test "x" { allow ssh inbound expect deny ssh inbound }': [("misplaced", "allow")],
    'test "x" { traffic inbound { allow ssh } }': [("misplaced", "traffic")],
    'test "x" { zone a { } expect deny ssh inbound }': [("misplaced", "zone")],
    "expect allow ssh inbound": [("misplaced", "expect")],
    "traffic inbound { expect allow ssh allow http }": [("misplaced", "expect")],
    'test "x" { expect allow ssh inbound\nallow http inbound': [("unclosed-block", "{")],
    "test x { expect allow ssh inbound }": [("syntax", "x")],
    'test "x" { expect alow ssh inbound\nexpct deny http inbound }': [
        ("syntax", "alow"),
        ("syntax", "expct"),
    ],
    'test "x" { expect session inbound expect ssh inbound }': [
        ("syntax", "inbound"),
        ("syntax", "ssh"),
    ],
    "host web1 { addres 10.0.2.10 }": [("syntax", "addres")],
    "host web1 { address 10.0.2.10 { }": [("syntax", "{")],
    "host { address 10.0.2.10 }": [("syntax", "{")],
    'on web1 { include "a.policy" }': [("misplaced", "include")],
    "on web1 { on web2 { allow ssh inbound } }": [("misplaced", "on")],
    "on web1 { host a { } }": [("misplaced", "host")],
    "on web1 { allow ssh inbound": [("unclosed-block", "{")],
    "on web1 { traffic inbound { masquerade outbound } }": [("misplaced", "masquerade")],
    "on web1 { alow ssh inbound\nzone a { interfac eth0 } }": [
        ("syntax", "alow"),
        ("syntax", "interfac"),
    ],
    # all of them in one run
    "alow ssh inbound\nset = 5\nallow ssh inbound\nzone a { foo }\nallow x inbound frm y": [
        ("syntax", "alow"),
        ("syntax", "="),
        ("syntax", "foo"),
        ("syntax", "frm"),
    ],
    "traffic lan to wan { allow }\nzone set { interface host }": [
        ("syntax", "lan"),
        ("syntax", "allow"),
        ("reserved-word", "set"),
        ("reserved-word", "host"),
    ],
}


@pytest.mark.parametrize("text", MISTAKES)
def test_each_mistake_is_told_where_it_is(text: str) -> None:
    assert mistakes(text) == MISTAKES[text]


WORDED = {
    "allow ssh inbound from": ("expected a zone, a set or an address after `from`", None),
    "allow inbound": ("expected a service, ports or `all` after `allow`", None),
    "allow tcp inbound": ("expected a port, a range or a set of ports after `tcp`", None),
    'test "x" { expect ssh inbound }': (
        "expected `allow`, `deny`, `drop`, `reject`, `some` or `session` after `expect`",
        "for example `expect allow ssh inbound from lan`",
    ),
    'test "x" { expect accept ssh inbound }': (
        "expected `allow`, `deny`, `drop`, `reject`, `some` or `session` after `expect`",
        "did you mean `allow`?",
    ),
    'test "x" { expect session inbound }': (
        "expected a kind of session after `session`",
        "for example `expect session ftp passive inbound from lan`",
    ),
    "expect allow ssh inbound": (
        "`expect` stands in a test alone",
        '`test "what is proved" { expect … }`',
    ),
    "allow icmp inbound": ("expected an ICMP type after `icmp`", None),
    "allow ssh inbound from lan in": ("expected a zone after `in`", None),
    "alow ssh inbound": ("no statement starts with `alow`", "did you mean `allow`?"),
    "block ssh inbound": ("no statement starts with `block`", "did you mean `deny`?"),
    "allow tcp 80 443 inbound": ("a comma is missing before `443`", None),
    "zone host { }": (
        "`host` is a reserved word, not a name",
        'put it in quotes (`"host"`) or choose another name',
    ),
    "allow ssh, from lan to wan": (
        "expected a service, ports or `all` after `,`",
        "or leave out the comma",
    ),
    "set a = 1024 - 65535": (
        "a `-` that stands alone",
        "write a range without blanks: `1024-65535`",
    ),
    # the parts of a rule
    "allow ssh inbound limit 4/min": (
        "`4/min` is not a rate",
        "did you mean `4/minute`?",
    ),
    "allow ssh inbound limit 4 per minute": (
        "expected a rate such as `10/second` or `over` after `limit`",
        "a rate has a unit: `4/minute`",
    ),
    "allow ssh inbound limit 4/minute per src": (
        "expected `source` or `destination` after `per`",
        "did you mean `source`?",
    ),
    "allow ssh inbound limit 4/minute per ip": (
        "expected `source` or `destination` after `per`",
        "`per source`, `per destination`, or per network: `per source/24`",
    ),
    "allow ssh inbound limit 4/fortnight": (
        "`4/fortnight` is not a rate",
        "a rate is a number a second, minute, hour or day: 4/minute",
    ),
    "allow ssh inbound limit": (
        "expected a rate such as `10/second` or `over` after `limit`",
        None,
    ),
    "allow ssh inbound limit 4/minute burst": (
        "expected a number after `burst`",
        None,
    ),
    "allow ssh inbound limit 4/minute per source/": (
        "`source/` has no prefix length",
        "it is a number: `per source/24`",
    ),
    "allow ssh inbound limit 4/minute per source /24": (
        "`/24` stands alone",
        "a `/` has no blanks around it: `192.0.2.0/24`, `4/minute`",
    ),
    "allow ssh inbound limit 4/minute per source per destination": (
        "expected a condition, an option, `burst` or the next statement after `source`",
        None,
    ),
    "allow ssh inbound limit over 20 connections": (
        "expected a rate such as `10/second` after `over`",
        "connections are counted without `limit`: `over 20 connections`",
    ),
    "allow ssh inbound over 100/second": (
        "expected a number after `over`",
        "a rate stands behind `limit`: `limit over 100/second`",
    ),
    "allow ssh inbound max 5/second": (
        "expected a number after `max`",
        "a rate stands behind `limit`: `limit 5/second`",
    ),
    "allow ssh inbound max 20": (
        "expected `connections` after `20`",
        "did you mean `max 20 connections`?",
    ),
    "allow ssh inbound max connections 20": (
        "expected a number after `max`",
        "the number stands before it: `max 20 connections`",
    ),
    "allow ssh inbound limit 7-9": (
        "expected a rate such as `10/second` or `over` after `limit`",
        "a rate is a number and a unit: `4/minute`",
    ),
    "deny ssh inbound add source to b for 1 hour": (
        "expected a time such as `1h30m` after `for`",
        "a time has a unit, without a blank: `1h`",
    ),
    "deny ssh inbound add source to b for 90": (
        "expected a time such as `1h30m` after `for`",
        "a time has a unit, without a blank: `90s`",
    ),
    "deny ssh inbound add source to b for 1hour": (
        "`1hour` is not a time",
        "did you mean `1h`?",
    ),
    "deny ssh inbound add src to b": (
        "expected `source` or `destination` after `add`",
        "did you mean `source`?",
    ),
    "deny ssh inbound add b": (
        "expected `source` or `destination` after `add`",
        "say which address: `add source to b`",
    ),
    "deny ssh inbound add source to": (
        "expected a dynamic set after `to`",
        None,
    ),
    "set b = dynamic timeout 2 days": (
        "expected a time such as `1h30m` after `timeout`",
        "a time has a unit, without a blank: `2d`",
    ),
    "set b = dynamic 192.0.2.1": (
        "expected `size`, `timeout` or the next statement after `dynamic`",
        "a dynamic set starts empty: `add source to SET` fills it",
    ),
    "set b = resolve cdn": (
        "expected a text in quotes after `resolve`",
        'it stands in quotes: `resolve "cdn.example"`',
    ),
    'set b = url "https://a.example/" refresh 5': (
        "expected a time such as `1h30m` after `refresh`",
        "a time has a unit, without a blank: `5m`",
    ),
    'set b = resolve "a.example" except 192.0.2.1': (
        'expected `,`, `refresh` or the next statement after `"a.example"`',
        "a list from elsewhere stands alone: name it with others, or `except` others, in rules",
    ),
    'set b = 192.0.2.1, resolve "a.example"': (
        "expected an address, a number, a set or `file` after `,`",
        'a list from elsewhere is a set of its own: `set NAME = resolve "…"`',
    ),
    "set b = 192.0.2.1, dynamic": (
        "expected an address, a number, a set or `file` after `,`",
        "a set is either dynamic or written out: `set banned = dynamic`",
    ),
    "allow ssh inbound during 8-18": (
        "expected hours or days of the week after `during`",
        "hours are written with their minutes: `08:00-18:00`",
    ),
    "allow ssh inbound during 80-90": (
        "expected hours or days of the week after `during`",
        "hours are written with their minutes: `08:00-18:00`",
    ),
    "allow ssh inbound during 08:00 - 18:00": (
        "`08:00` is not a window of hours",
        "write both ends without blanks: `08:00-18:00`",
    ),
    "allow ssh inbound during 8am-6pm": (
        "`8am-6pm` is not a window of hours",
        "write both ends without blanks: `08:00-18:00`",
    ),
    "allow ssh inbound during mon-fri 08:00-18:00": (
        "expected `,`, a condition, an option or the next statement after `mon-fri`",
        "hours stand before the days: `during 08:00-18:00 mon-fri`",
    ),
    "allow ssh inbound during 08:00-18:00, mon-fri": (
        "expected hours such as `08:00-18:00` after `,`",
        "or leave out the comma",
    ),
    "allow ssh inbound during": (
        "expected hours or days of the week after `during`",
        None,
    ),
    "allow ssh inbound until 31.01.2027": (
        "expected a day such as `2027-01-31` after `until`",
        "a date is year, month and day: `2027-01-31`",
    ),
    "allow ssh inbound until 2027-1-31": (
        "`2027-1-31` is not a date",
        "a date is year, month and day: `2027-01-31`",
    ),
    "allow ssh inbound until tomorrow": (
        "expected a day such as `2027-01-31` after `until`",
        "a date is year, month and day: `2027-01-31`",
    ),
    'allow ssh inbound log "x" max 3 connections': (
        "`max` stands too late",
        "conditions stand before options: put `max` before `log`",
    ),
    'allow ssh inbound name "x" ipsec': (
        "`ipsec` stands too late",
        "conditions stand before options: put `ipsec` before `name`",
    ),
    "allow ssh limit 4/minute inbound": (
        "`inbound` stands too late",
        "the place stands before conditions and options: before `limit`",
    ),
    "allow ssh log group 5 inbound": (
        "`inbound` stands too late",
        "the place stands before conditions and options: before `log`",
    ),
    "allow ssh inbound source port": (
        "expected a port, a range or a set of ports after `port`",
        None,
    ),
    "allow ssh inbound sport 1024": (
        "expected a condition, an option, `from`, `to` or `with` after `inbound`",
        "did you mean `source port`?",
    ),
    "deny ssh inbound established also": (
        "expected a condition, an option, `from`, `to` or `with` after `inbound`",
        "did you mean `also established`?",
    ),
    "protect wan against spoofing": (
        "expected `from` after `protect`",
        "did you mean `protect from wan`?",
    ),
    "protect against spoofing": (
        "expected `from` after `protect`",
        "say first from where: `protect from ZONE against …`",
    ),
    "protect from wan against": (
        "expected a protection after `against`",
        None,
    ),
    "allow ssh inbound mac 00-11-22-33-44-55": (
        "`00-11-22-33-44-55` is not a MAC address",
        "did you mean `00:11:22:33:44:55`?",
    ),
    "allow ssh inbound mac 0011.2233.4455": (
        "expected a MAC address or a set of them after `mac`",
        "a MAC address is six pairs of hexadecimal digits: 00:11:22:33:44:55",
    ),
    "allow ssh inbound mac 001122334455": (
        "expected a MAC address or a set of them after `mac`",
        "a MAC address is six pairs of hexadecimal digits: 00:11:22:33:44:55",
    ),
    "set m = 00-11-22-33-44-55": (
        "`00-11-22-33-44-55` is not a MAC address",
        "did you mean `00:11:22:33:44:55`?",
    ),
    "allow ssh inbound user": (
        "expected a user's name or number after `user`",
        None,
    ),
    "allow ssh outbound uid 1000": (
        "expected a condition, an option, `to` or `with` after `outbound`",
        "did you mean `user`?",
    ),
    "allow ssh outbound cgroup system.slice": (
        "`system.slice` needs quotes",
        'a path is a text: `cgroup "system.slice"`',
    ),
    "allow ssh inbound mark ef": (
        "expected a mark with its mask or a number after `mark`",
        None,
    ),
    "allow ssh inbound mark 0x10/0xzz": (
        "`0x10/0xzz` is not a mark with its mask",
        "both are numbers: `mark 0x10/0xff`",
    ),
    "allow ssh inbound dscp": (
        "expected a DSCP code point after `dscp`",
        None,
    ),
    "allow ssh inbound size < 100": (
        "`<` means nothing here",
        "numbers are compared by ranges: `size 0-100`",
    ),
    "allow ssh inbound size 100-": (
        "`100-` is half a range",
        "write both ends without blanks: `1024-65535`",
    ),
    "allow ssh inbound size 9999999999999999999": (
        "`9999999999999999999` is too large a number",
        None,
    ),
    "allow ssh inbound foo": (
        "expected a condition, an option, `from`, `to` or `with` after `inbound`",
        "did you mean `from foo`?",
    ),
    'allow ssh inbound comment "x"': (
        "expected a condition, an option, `from`, `to` or `with` after `inbound`",
        "did you mean `name`?",
    ),
    "reject ssh inbound tcp-reset": (
        "expected a condition, an option, `from`, `to` or `with` after `inbound`",
        "did you mean `with tcp-reset`?",
    ),
    "default deny inbound limit 4/minute": (
        "expected an option, `with` or the next statement after `inbound`",
        "a default takes no conditions: write a rule, `deny all inbound limit …`",
    ),
    "settings { counters yes }": (
        "expected `on` or `off` after `counters`",
        "did you mean `on`?",
    ),
    "settings { time berlin }": (
        "expected `utc` or `local` after `time`",
        None,
    ),
    "settings { invalid reject }": (
        "expected `drop` or `accept` after `invalid`",
        "did you mean `drop`?",
    ),
    "settings { foo on }": (
        "expected a setting or `}` after `{`",
        None,
    ),
    "settings { log-limit 5 }": (
        "expected a rate such as `10/second` or `none` after `log-limit`",
        "a rate has a unit: `5/minute`",
    ),
    "native": (
        "expected a target after `native`",
        None,
    ),
    "native nft": (
        "expected a chain after `nft`",
        None,
    ),
    'native nft "x"': (
        'expected a text in quotes after `"x"`',
        'a chain stands before the line: `native nft input "x"`',
    ),
    "param x 5": (
        "`=` is missing before `5`",
        None,
    ),
    "param x =": (
        "expected a value after `=`",
        None,
    ),
    "service x { udp 5 answers any }": (
        "expected `from` after `answers`",
        None,
    ),
    "on 5 { }": (
        "no statement starts with `on`",
        "the names of hosts stand behind it: `on web1, web2 { … }`",
    ),
}


@pytest.mark.parametrize("text", WORDED)
def test_mistakes_are_told_in_words(text: str) -> None:
    _, report = read(text)
    (diagnostic,) = report.diagnostics
    assert (diagnostic.message, diagnostic.help) == WORDED[text]


def test_names_of_statements_with_mistakes_are_kept_apart() -> None:
    text = (
        "zone lan { foo } set a = dynamic size service { } rules r { alow } host gw { x } set b = 1"
    )
    document, _ = read(text)
    assert document.broken == ("lan", "a", "gw")


def test_a_thousand_rules_take_no_time() -> None:
    text = "".join(f"allow tcp {i} inbound from 192.0.2.{i % 256}\n" for i in range(1000))
    read("allow ssh inbound")
    started = time.monotonic()
    document, report = read(text)
    assert time.monotonic() - started < 0.6
    assert len(document.statements) == 1000 and not report.diagnostics
