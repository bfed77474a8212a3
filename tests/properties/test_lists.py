"""Lists are read as they are published; whatever is no element is told, and none of it goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policylang.diagnostics import Report
from policylang.packets.values import V6_BASE, Ranges, format_address, parse_address
from policylang.source import SourceFile, Span
from policylang.syntax import tree
from policylang.syntax.lists import PACKED, packed_by, parse_list
from policylang.syntax.lists.elements import MOST_BAD_LINES

POLICY = SourceFile("p.policy", 'set a = file "l.txt" column 1')
COLUMN = Span(POLICY, 28, 29)


def numbered(number: int) -> tree.Number:
    return tree.Number(COLUMN, number)


def named(name: str) -> tree.Text:
    return tree.Text(COLUMN, name)


def read(
    text: str, column: tree.Number | tree.Text | None = None
) -> tuple[tree.ListFile, list[str]]:
    """The list, and its diagnostics as `code line:column text`."""
    report = Report()
    held = parse_list(SourceFile("l.txt", text), report, column)
    lines = []
    for d in report.in_order():
        assert d.span is not None
        shown = d.span.file.text[d.span.start : d.span.end]
        lines.append(f"{d.code} {d.span.line}:{d.span.column} {shown}")
    return held, lines


def addresses(*elements: str) -> tree.ListFile:
    pairs = [parse_address(element) for element in elements]
    assert None not in pairs
    merged = Ranges.merged(pair for pair in pairs if pair is not None)
    return tree.ListFile("address", merged.pairs)


def ports(*pairs: tuple[int, int]) -> tree.ListFile:
    return tree.ListFile("port", pairs)


def macs(*numbers: int) -> tree.ListFile:
    return tree.ListFile("mac", Ranges.of(*numbers).pairs)


# --- as published ---------------------------------------------------------------------------

AWS = """{
  "syncToken": "1790000000", "createDate": "2026-09-20-00-00-00",
  "prefixes": [
    {"ip_prefix": "192.0.2.0/24", "region": "eu-west-1", "service": "AMAZON"},
    {"ip_prefix": "192.0.2.0/25", "region": "eu-west-1", "service": "EC2"}
  ],
  "ipv6_prefixes": [
    {"ipv6_prefix": "2001:db8::/32", "region": "eu-west-1", "service": "AMAZON"}
  ]
}"""
GOOGLE = """{
  "syncToken": "1790000000000", "creationTime": "2026-09-20T00:00:00.0",
  "prefixes": [{"ipv4Prefix": "192.0.2.0/24"}, {"ipv6Prefix": "2001:db8::/32"}]
}"""
FASTLY = '{"addresses":["192.0.2.0/24"],"ipv6_addresses":["2001:db8::/32"]}'
BOTH = addresses("192.0.2.0/24", "2001:db8::/32")
FEODO = """\
################################################################
# abuse.ch Feodo Tracker Botnet C2 IP Blocklist (CSV)          #
################################################################
#
"first_seen_utc","dst_ip","dst_port","c2_status","last_online","malware"\r
"2026-01-13 21:41:15","192.0.2.7","443","online","2026-03-01","QakBot"\r
"2026-01-14 21:41:15","198.51.100.9","8080","offline","2026-03-01","Emotet"\r
# END 2 entries
"""
SSLBL = """\
# abuse.ch SSLBL Botnet C2 IP Blocklist (CSV) #
#
# Firstseen,DstIP,DstPort
2026-01-13 21:41:15,192.0.2.7,443
2026-01-14 21:41:15,198.51.100.9,8080
"""
TWO = addresses("192.0.2.7", "198.51.100.9")

PUBLISHED: dict[str, tuple[str, tree.Number | tree.Text | None, tree.ListFile]] = {
    "plain": ("192.0.2.7\n\n  198.51.100.9\t\r\n", None, TWO),
    "comments": ("# a\n; b\n192.0.2.7#x\n198.51.100.9 ; SBL1\n", None, TWO),
    "both families": ("192.0.2.0/24\n2001:db8::/32", None, BOTH),
    "ranges": (
        "192.0.2.1-192.0.2.3\n192.0.2.4 - 192.0.2.7",
        None,
        addresses("192.0.2.1-192.0.2.7"),
    ),
    "host bits": ("192.0.2.7/24\n2001:db8::1/32", None, BOTH),
    "ports": ("80\n443 - 444\n8000-8001", None, ports((80, 80), (443, 444), (8000, 8001))),
    "MAC addresses": (
        "00:11:22:AA:bb:cc # a\n00-11-22-aa-bb-cd",
        None,
        macs(0x1122AABBCC, 0x1122AABBCD),
    ),
    "the whole of MAC addresses": (
        "ff:ff:ff:ff:ff:ff\n00:00:00:00:00:00",
        None,
        macs(0, (1 << 48) - 1),
    ),
    "Spamhaus DROP": (
        "; Spamhaus DROP List 2026/08/30 - (c) 2026 The Spamhaus Project\r\n"
        "; Last-Modified: Tue, 30 Aug 2026 05:17:00 GMT\r\n"
        "192.0.2.7 ; SBL256893\r\n198.51.100.9/32 ; SBL256894\r\n",
        None,
        TWO,
    ),
    "Spamhaus DROP in JSON": (
        '{"cidr":"192.0.2.0/24","sblid":"SBL256894","rir":"apnic"}\n'
        '{"cidr":"2001:db8::\\/32","sblid":"SBL301771","rir":"ripencc"}\n'
        '{"type":"metadata","timestamp":1790072042,"size":104461,"records":2,'
        '"copyright":"(c) 2026 The Spamhaus Project SLU",'
        '"terms":"https://www.spamhaus.org/drop/terms/"}\n',
        None,
        BOTH,
    ),
    "one object": ('{"cidr":"192.0.2.7-192.0.2.9"}', None, addresses("192.0.2.7-192.0.2.9")),
    "metadata alone": ('{"type":"metadata","records":0}', None, tree.ListFile(None, ())),
    "texts in JSON": ('["192.0.2.0/24",\n "2001:db8::/32"]', None, BOTH),
    "objects in JSON": (
        '[{"ip_address": "192.0.2.7", "port": 443, "as": [1, {"x": "y"}]},{"ip": "198.51.100.9"}]',
        None,
        TWO,
    ),
    "an empty array": ("[]", None, tree.ListFile(None, ())),
    "Amazon": (AWS, None, BOTH),
    "Google": (GOOGLE, None, BOTH),
    "Fastly": (FASTLY, None, BOTH),
    "FireHOL": (
        "#\n# firehol_level1\n#\n# Category        : attacks\n#\n192.0.2.7\n198.51.100.9\n",
        None,
        TWO,
    ),
    "ipset of addresses": (
        "create drop hash:ip family inet hashsize 1024 maxelem 65536 timeout 3600\n"
        "add drop 192.0.2.7 timeout 3521\n"
        'add drop 198.51.100.9 packets 0 bytes 0 comment "a nomatch"\n',
        None,
        TWO,
    ),
    "ipset of networks, a set a family": (
        "# as saved\ncreate d4 hash:net family inet hashsize 1024 maxelem 65536\n"
        "create d6 hash:net family inet6 hashsize 1024 maxelem 65536\n"
        "add d4 192.0.2.0/24 -exist\nadd d6 2001:db8::/32\nCOMMIT\n",
        None,
        BOTH,
    ),
    "ipset of MAC addresses": (
        "create add hash:mac hashsize 1024 maxelem 65536\nadd add 02:00:00:00:00:01\n",
        None,
        macs(0x020000000001),
    ),
    "ipset of ports": (
        "create p bitmap:port range 0-65535\nadd p 80\nadd p 443-444\n",
        None,
        ports((80, 80), (443, 444)),
    ),
    "a column by number": (FEODO, numbered(2), TWO),
    "a column by name": (FEODO, named("dst_ip"), TWO),
    "another column": (FEODO, numbered(3), ports((443, 443), (8080, 8080))),
    "a header in a comment": (SSLBL, named("DstIP"), TWO),
    "no header": ("192.0.2.7,a\n198.51.100.9,b\n", numbered(1), TWO),
    "quotes, blanks and lines in cells": (
        '"a ""b"", c\nd", "192.0.2.7"\n\nx,  198.51.100.9\n',
        numbered(2),
        TWO,
    ),
    "one column": ("ip\n192.0.2.7\n198.51.100.9", numbered(1), TWO),
    "a column of nothing": ("# nothing today\n", named("ip"), tree.ListFile(None, ())),
    "nothing": ("\n# nothing\n", None, tree.ListFile(None, ())),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_list_is_read_as_published(name: str) -> None:
    text, column, wanted = PUBLISHED[name]
    held, told = read(text, column)
    assert told == []
    assert held == wanted


@pytest.mark.parametrize("name", PUBLISHED)
def test_either_line_end_is_no_matter(name: str) -> None:
    text, column, wanted = PUBLISHED[name]
    text = text.replace("\r", "").replace("\n", "\r\n")
    assert read(text, column) == (wanted, [])


# --- what is told ---------------------------------------------------------------------------

WRONG: dict[str, tuple[str, tree.Number | tree.Text | None, Sequence[str]]] = {
    "plain": (
        "192.0.2.1\n\n192.0.2.300 ; no\n  www.example\n70000\n9-8\n00:11:22:33:44\n::/129\n"
        "x,192.0.2.1",
        None,
        [
            "bad-list-line 3:1 192.0.2.300",
            "bad-list-line 4:3 www.example",
            "bad-list-line 5:1 70000",
            "bad-list-line 6:1 9-8",
            "bad-list-line 7:1 00:11:22:33:44",
            "bad-list-line 8:1 ::/129",
            "bad-list-line 9:1 x,192.0.2.1",
        ],
    ),
    "mixed separators of MAC addresses": (
        "00:11-22:33:44:55",
        None,
        ["bad-list-line 1:1 00:11-22:33:44:55"],
    ),
    "two kinds": ("192.0.2.1\n80\n443", None, ["mixed-list 2:1 80"]),
    "three kinds": (
        "80\n02:00:00:00:00:01\n::1",
        None,
        ["mixed-list 2:1 02:00:00:00:00:01", "mixed-list 3:1 ::1"],
    ),
    "a web page": (
        "\n<!DOCTYPE html>\n<p>\n",
        None,
        ["bad-list-format 2:1 <!DOCTYPE html>"],
    ),
    "JSON that breaks off": ('["192.0.2.1",\n "192.0', None, ['bad-list-format 2:2 "']),
    "JSON of another form": (
        '{"hooks": ["192.0.2.0/24"], "web": ["192.0.2.0/24"]}',
        None,
        ["bad-list-format 1:1 {"],
    ),
    "JSON of a known form with more in it": (
        '{"prefixes": [], "errors": ["x"]}',
        None,
        ['bad-list-format 1:18 "errors"'],
    ),
    "JSON lines": (
        '{"cidr":"192.0.2.0/24"}\n{"cidr":"x","y":"z"}\n192.0.2.1\n {"asn":64496}\n'
        '{"cidr":7}\n{"cidr":"::","ip":"::"}\n{"type":"metadata","ip":"no"}\n{"cidr":\n[]\n',
        None,
        [
            'bad-list-line 2:9 "x"',
            "bad-list-line 3:1 192.0.2.1",
            "bad-list-line 4:2 {",
            "bad-list-line 5:9 7",
            "bad-list-line 6:1 {",
            'bad-list-line 7:25 "no"',
            'bad-list-line 8:1 {"cidr":',
            "bad-list-line 9:1 []",
        ],
    ),
    "JSON where the same text stands elsewhere": (
        '[{"x": "y", "name": ["no", {"no": "no"}],\n "ip": "no"}, 80, [],\n "\\u006eo", "80"]',
        None,
        [
            'bad-list-line 2:8 "no"',
            "bad-list-line 2:15 80",
            "bad-list-line 2:19 [",
            'bad-list-line 3:2 "\\u006eo"',
            'bad-list-line 3:13 "80"',
        ],
    ),
    "one number": ("[80]", None, ["bad-list-line 1:2 80"]),
    "deep JSON": ("[" * 100_000, None, ["bad-list-format 1:1 ["]),
    "long JSON numbers": ("[" + "1" * 5000 + "]", None, ["bad-list-format 1:1 ["]),
    "ipset": (
        "create d hash:net family inet\nadd d 192.0.2.0/24 nomatch\n add d  www.example timeout 3\n"
        "add e 192.0.2.1\nflush d\nadd d 80\nadd d",
        None,
        [
            "bad-list-line 2:1 add d 192.0.2.0/24 nomatch",
            "bad-list-line 3:9 www.example",
            "bad-list-line 4:1 add e 192.0.2.1",
            "bad-list-line 5:1 flush d",
            "bad-list-line 6:7 80",
            "bad-list-line 7:1 add d",
        ],
    ),
    "ipset of pairs": (
        "create d hash:ip,port family inet\nadd d 192.0.2.1,tcp:80\nadd d 192.0.2.2,tcp:80",
        None,
        ["bad-list-line 1:1 create d hash:ip,port family inet"],
    ),
    "ipset that stands for more than it says": (
        "create d hash:ip family inet netmask 24\nadd d 192.0.2.0",
        None,
        ["bad-list-line 1:1 create d hash:ip family inet netmask 24"],
    ),
    "ipset of two sets": (
        "create a hash:net family inet\ncreate b hash:ip family inet\n"
        "add a 192.0.2.1\nadd b 192.0.2.2",
        None,
        ["bad-list-line 2:1 create b hash:ip family inet"],
    ),
    "CSV": (
        'ip,x\n192.0.2.1,y\n"a,b", 192.0.2.300\nx\n,y\n" no ",z\n',
        numbered(1),
        [
            'bad-list-line 3:1 "a,b"',
            "bad-list-line 4:1 x",
            "bad-list-line 5:1 ,y",
            'bad-list-line 6:1 " no "',
        ],
    ),
    "CSV that starts with a slip": (
        "192.0.2.300,x\n192.0.2.1,y\n",
        numbered(1),
        ["bad-list-line 1:1 192.0.2.300"],
    ),
    "CSV that starts with another slip": (
        "fe80::g,x\n::1,y\n",
        numbered(1),
        ["bad-list-line 1:1 fe80::g"],
    ),
    "CSV with too few columns": (
        "a,b\n1,192.0.2.1\n2\n",
        numbered(2),
        ["bad-list-line 3:1 2"],
    ),
    "CSV of other separators": ("192.0.2.1;a", numbered(2), ["bad-list-line 1:1 192.0.2.1;a"]),
    "CSV whose quotes do not match": (
        'ip\n"192.0.2.1"x\n192.0.2.2',
        numbered(1),
        ['bad-list-format 2:1 "192.0.2.1"x'],
    ),
    "CSV whose quote does not end": (
        'ip\n"192.0.2.1\n',
        numbered(1),
        ['bad-list-format 2:1 "192.0.2.1'],
    ),
    "CSV without that column": ("ip,port\n192.0.2.1,80", named("ipp"), ["bad-column 1:29 1"]),
    "CSV with that column twice": ("ip,ip\n192.0.2.1,::", named("ip"), ["bad-column 1:29 1"]),
    "column 0": ("192.0.2.1", numbered(0), ["bad-column 1:29 1"]),
    "a column of JSON": ('["192.0.2.1"]', numbered(1), ["bad-column 1:29 1"]),
    "a column of an ipset": ("create x hash:ip\n", numbered(1), ["bad-column 1:29 1"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_element_is_told_with_its_place(name: str) -> None:
    text, column, wanted = WRONG[name]
    assert read(text, column)[1] == list(wanted)


def test_many_bad_lines_are_counted() -> None:
    report = Report()
    parse_list(SourceFile("l.txt", "-\n" * 1000), report)
    assert len(report.diagnostics) == MOST_BAD_LINES + 1
    assert report.diagnostics[-1].message.startswith(f"{1000 - MOST_BAD_LINES} more lines")
    span = report.diagnostics[-1].span
    assert span is not None and span.line == MOST_BAD_LINES + 1


def test_packed_files_are_known_by_what_they_begin_with() -> None:
    for magic, names in PACKED.items():
        assert packed_by(magic + b"\0\1\2") == names
    for data in (b"", b"\x1f", b"192.0.2.1\n", "; ü\n".encode()):
        assert packed_by(data) is None


# --- whatever the text ----------------------------------------------------------------------

LIKELY = '0123456789.:/-;#," \t\r\nabf\0é{}[]'
WORDS = st.sampled_from(
    [
        *("192.0.2.1", "2001:db8::/32", "80", "02:00:00:00:00:01", "create x hash:net", "add x "),
        *('{"cidr":', '"', '"}', "[", "]", ",", "#", ";", " ", "\n", "\r\n"),
        *("nomatch", "$(x)", "`", "\x1b["),
    ]
)
TEXTS = st.text(alphabet=LIKELY, max_size=80) | st.text() | st.lists(WORDS).map("".join)
COLUMNS = st.none() | st.integers(0, 4).map(numbered) | st.text(max_size=4).map(named)
LAST = {"address": V6_BASE + (1 << 128) - 1, "port": 65535, "mac": (1 << 48) - 1}


@settings(max_examples=500, deadline=None)
@given(TEXTS, COLUMNS)
def test_any_list_is_read_or_told(text: str, column: tree.Number | tree.Text | None) -> None:
    report = Report()
    file = SourceFile("l.txt", text)
    held = parse_list(file, report, column)
    assert (held.kind is None) == (held.pairs == ())
    for low, high in held.pairs:
        assert type(low) is int and type(high) is int and held.kind is not None
        assert 0 <= low <= high <= LAST[held.kind]
    for d in report.diagnostics:
        assert d.span is not None and d.span.file in (file, POLICY)
        assert 0 <= d.span.start < d.span.end <= len(d.span.file.text)
        assert d.message.isprintable() and (d.help is None or d.help.isprintable())


@given(st.text(alphabet='0123456789abcdefx.:/-, {}[]"', max_size=40))
def test_what_is_taken_from_a_line_is_what_stands_there(text: str) -> None:
    """No other format reads an element where a plain line holds none but it."""
    held, told = read(text)
    if told or held.kind != "address" or text.strip()[:1] in ("{", "["):
        return
    assert parse_address(text.strip().replace(" ", "")) is not None


ADDRESSES = st.integers(0, (1 << 32) - 1) | st.integers(V6_BASE, V6_BASE + (1 << 128) - 1)


def as_plain(elements: Sequence[str]) -> tuple[str, None]:
    return "\n".join(f"{e} ; x" for e in elements), None


def as_json_lines(elements: Sequence[str]) -> tuple[str, None]:
    return "\n".join(json.dumps({"x": "y", "cidr": e}) for e in elements), None


def as_array(elements: Sequence[str]) -> tuple[str, None]:
    return json.dumps(list(elements), indent=1), None


def as_ipset(elements: Sequence[str]) -> tuple[str, None]:
    return "create x hash:net\n" + "".join(f"add x {e}\n" for e in elements), None


def as_table(elements: Sequence[str]) -> tuple[str, tree.Number]:
    return "\r\n".join(f'"a, ""b""",{e},z' for e in elements), numbered(2)


@given(
    st.lists(ADDRESSES, max_size=20),
    st.sampled_from([as_plain, as_json_lines, as_array, as_ipset, as_table]),
)
def test_a_list_holds_what_is_written(numbers: list[int], form: object) -> None:
    assert callable(form)
    text, column = form([format_address(number) for number in numbers])
    held, told = read(text, column)
    assert told == [] and held.pairs == Ranges.of(*numbers).pairs


MOST_S = 0.5  # a third of it on a quiet machine


@pytest.mark.parametrize("form", [as_plain, as_json_lines, as_array, as_ipset, as_table])
def test_a_hundred_thousand_prefixes_take_no_time(form: object) -> None:
    assert callable(form)
    prefixes = [f"{i >> 16}.{i >> 8 & 255}.{i & 255}.0/24" for i in range(0, 200_000, 2)]
    text, column = form(prefixes)
    report = Report()
    started = time.process_time()
    held = parse_list(SourceFile("l.txt", text), report, column)
    took = time.process_time() - started
    assert len(held.pairs) == 100_000 and not report.diagnostics
    assert took < MOST_S if form is as_plain else took < 3 * MOST_S
