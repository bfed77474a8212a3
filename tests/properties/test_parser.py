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


End = tree.Name | tree.Address | tree.Keyword | tree.EndItem


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


def rule(
    *what: tree.WhatElement,
    at: tree.Place | None = INBOUND,
    verb: str = "allow",
    answers: Sequence[tree.Name] = (),
    options: Sequence[tree.LogOption | tree.NameOption] = (),
) -> tree.RuleNode:
    return tree.RuleNode(S, verb, what, at, tuple(answers), tuple(options))


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
        tree.SetDecl(
            S,
            n("a"),
            (
                ip("192.0.2.7"),
                ip("198.51.100.10-198.51.100.20"),
                ip("::"),
                ip("::1/128"),
                ip("dead:beef::"),
                ip("192.0.2.300"),
            ),
            (),
        )
    ],
    "set v6 = 2001:db8::1-2001:db8::ff": [
        tree.SetDecl(S, n("v6"), (ip("2001:db8::1-2001:db8::ff"),), ())
    ],
    "set high = 1024-65535, 80, 0x50, 0x1-0x2": [
        tree.SetDecl(S, n("high"), (span_of(1024, 65535), num(80), num(80), span_of(1, 2)), ())
    ],
    'set t = a, file "drop.txt" except 192.0.2.9, b': [
        tree.SetDecl(S, n("t"), (n("a"), tree.FileList(S, "drop.txt")), (ip("192.0.2.9"), n("b")))
    ],
    "set empty =\nset data = on, file-x": [
        tree.SetDecl(S, n("empty"), (), ()),
        tree.SetDecl(S, n("data"), (n("on"), n("file-x")), ()),
    ],
    "set a = traffic inbound { allow ssh allow ping } set b = zone z {} set c = allow ssh": [
        tree.SetDecl(S, n("a"), (), ()),
        tree.TrafficBlock(S, INBOUND, (rule(n("ssh"), at=None), rule(n("ping"), at=None))),
        tree.SetDecl(S, n("b"), (), ()),
        tree.ZoneDecl(S, n("z"), ()),
        tree.SetDecl(S, n("c"), (), ()),
        rule(n("ssh"), at=None),
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
                log("p ", "info", 5, tree.RateNode(S, 10, "second", 3)),
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
        rule(n("ssh"), at=None, options=[log(limit=tree.RateNode(S, 4, "minute", None))]),
        rule(n("ping"), at=None, options=[log()]),
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
        tree.DefaultNode(
            S, "deny", "inbound", (), (log("FW ", limit=tree.RateNode(S, 5, "hour", None)),)
        )
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
            case tree.Address() | tree.Keyword():
                assert own == node.text
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
    "traffic inbound { allow ssh": [("unclosed-block", "{")],
    "zone lan { interface eth0\nallow ssh inbound": [("unclosed-block", "{")],
    "zone lan { interface eth0\nallow ssh inbound\n}": [("unclosed-block", "{")],
    "traffic inbound { allow ssh\nset a = 192.0.2.1\nalow x": [
        ("unclosed-block", "{"),
        ("syntax", "alow"),
    ],
    "traffic inbound { zone lan { } allow ssh }": [("misplaced", "zone")],
    "traffic inbound { " * (MOST_BLOCKS + 1) + "}" * (MOST_BLOCKS + 1): [("nested-too-deep", "{")],
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


LATER: dict[str, list[str]] = {
    "masquerade from lan, dmz to wan": ["masquerade"],
    "snat from dmz to wan as 198.51.100.7": ["snat"],
    "dnat tcp 2222 from wan at 198.51.100.7 to 10.0.2.11 port 22 hairpin": ["dnat"],
    "redirect http from lan to wan port 3128": ["redirect"],
    "netmap 198.51.100.16/28 to 10.0.2.16/28 on wan": ["netmap"],
    "clamp mss from lan to wan": ["clamp"],
    "mark https from lan to wan as 0x10": ["mark"],
    "untracked dns inbound": ["untracked"],
    "offload from lan to wan": ["offload"],
    "protect from wan against spoofing, syn-flood limit 50/second log": ["protect"],
    "param wan-interface = eth0": ["param"],
    "zone wan { interface $wan-interface }": ["$wan-interface"],
    "host gw { address 192.0.2.1 gateway zone wan { interface eth0 } }": ["host"],
    "on web1, web2 { allow http inbound }": ["on"],
    'test "x" { expect allow ftp inbound from wan expect some deny ssh inbound }': ["test"],
    'native nft input "tcp option maxseg size < 500 drop"': ["native"],
    "set banned = dynamic timeout 1h size 65535": ["dynamic"],
    'set a = url "https://lists.example/drop"': ["url"],
    'set a = b, resolve "www.example"': ["resolve"],
    "set a = 00:11:22:33:44:55, 192.0.2.1": ["00:11:22:33:44:55"],
    "allow ssh inbound limit 4/minute burst 8 per source": ["limit"],
    "allow ssh limit over 100/second per source inbound from lan": ["limit"],
    "allow ssh inbound max 20 connections per source/24 log": ["max"],
    "allow ssh inbound over 20 connections per source": ["over"],
    'allow ssh outbound user bob, 1000-1005 group x cgroup "a/b"': ["user", "group", "cgroup"],
    "allow ssh inbound mac 00:11:22:33:44:55 source port 1024-65535": ["mac", "source"],
    "allow ssh inbound during 08:00-18:00 mon-fri until 2027-01-31": ["during", "until"],
    "allow ssh inbound mark 0x10/0xff dscp ef size 0-100 ipv4": ["mark", "dscp", "size", "ipv4"],
    "deny ssh inbound ipv6 add source to banned for 1h also established": ["ipv6", "add", "also"],
    "settings { on-reload cut log-limit 5/second essentials on time local counters off }": [
        "on-reload",
        "log-limit",
        "time",
        "counters",
    ],
    "service x { udp 67 answers from any udp 68 }": ["answers"],
}


@pytest.mark.parametrize("text", LATER)
def test_what_later_versions_read_is_refused_by_name(text: str) -> None:
    assert mistakes(text) == [("not-yet", word) for word in LATER[text]]
    behind = mistakes(f"{text}\nalow ssh inbound")
    assert behind[-1] == ("syntax", "alow") and len(behind) == len(LATER[text]) + 1


def test_a_refused_condition_hides_no_other_mistake() -> None:
    text = "allow ssh limit 4/minute inbound from host log"
    assert mistakes(text) == [("not-yet", "limit"), ("reserved-word", "host")]


WORDED = {
    "allow ssh inbound from": ("expected a zone, a set or an address after `from`", None),
    "allow inbound": ("expected a service, ports or `all` after `allow`", None),
    "allow tcp inbound": ("expected a port, a range or a set of ports after `tcp`", None),
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
    "masquerade from lan to wan": (
        "`masquerade` is a part of the language that this version does not compile yet",
        None,
    ),
}


@pytest.mark.parametrize("text", WORDED)
def test_mistakes_are_told_in_words(text: str) -> None:
    _, report = read(text)
    (diagnostic,) = report.diagnostics
    assert (diagnostic.message, diagnostic.help) == WORDED[text]


def test_names_of_statements_with_mistakes_are_kept_apart() -> None:
    text = "zone lan { foo } set a = dynamic service { } rules r { alow } host gw { } set b = 1"
    document, _ = read(text)
    assert document.broken == ("lan", "a", "gw")


def test_a_thousand_rules_take_no_time() -> None:
    text = "".join(f"allow tcp {i} inbound from 192.0.2.{i % 256}\n" for i in range(1000))
    read("allow ssh inbound")
    started = time.monotonic()
    document, report = read(text)
    assert time.monotonic() - started < 0.6
    assert len(document.statements) == 1000 and not report.diagnostics
