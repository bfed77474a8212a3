"""Cuts a text into words, numbers, addresses and strings; knows no statement.

A word runs to the next white space, comma, brace, quote or comment: `10.0.0.0/8`, `1024-65535`
and `tcp-x` are one token each. What a token is depends on its own text alone, never on what
stands around it. The grammar's terminals read the same texts (a property test compares them).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from policylang.diagnostics import Report
from policylang.source import SourceFile, Span

# Kinds of tokens whose text is free. Every other kind is its own text: a word of the language or
# a punctuation mark; `RATES` are in between.
NAME = "NAME"
STRING = "STRING"
NUMBER = "NUMBER"
RANGE = "RANGE"
ADDRESS = "ADDRESS"
MAC = "MAC"
DURATION = "DURATION"  # `1h30m`
WINDOW = "WINDOW"  # `08:00-18:00`
DATE = "DATE"  # `2027-01-31`
MASKED = "MASKED"  # `0x10/0xff`
PARAMETER = "PARAMETER"
JUNK = "JUNK"  # stands nowhere
END = "END"  # after the last token
RATES = {f"{unit}-rate": unit for unit in ("second", "minute", "hour", "day")}  # `10/second`
PREFIXES = {f"{side}-prefix": side for side in ("source", "destination")}  # `source/24`

VERBS = frozenset({"allow", "deny", "reject"})

# Those that translate packets or treat them otherwise.
TREATMENTS = frozenset(
    {
        *("masquerade", "snat", "dnat", "redirect", "tproxy", "netmap", "clamp", "mark"),
        *("untracked", "offload", "queue"),
    }
)
# What a statement starts with.
STATEMENTS = (
    VERBS
    | TREATMENTS
    | {
        *("include", "zone", "set", "service", "traffic", "rules", "use", "default", "settings"),
        *("protect", "native", "param", "helper", "test", "expect", "host"),
    }
)
CONDITIONS = frozenset(
    {
        *("limit", "max", "over", "user", "group", "cgroup", "mac", "source", "during", "until"),
        *("mark", "dscp", "size", "ipv4", "ipv6"),
    }
)
OPTIONS = frozenset({"log", "name", "add", "also"})
SETTINGS = frozenset({"essentials", "invalid", "on-reload", "log-limit", "time", "counters"})

# Words that hold a statement together; where one of them stands instead of a name, the name is
# missing rather than badly chosen.
JOINTS = frozenset(
    ("inbound", "outbound", "forward", "from", "to", "in", "except", "with", "log", "name")
)

RESERVED = (
    STATEMENTS
    | CONDITIONS
    | OPTIONS
    | JOINTS
    | {"any", "self", "broadcast", "multicast", "published", "all", "port"}
    | {"tcp", "udp", "sctp", "dccp", "icmp", "icmpv6", "protocol"}
    | {"interface", "network", "file", "dynamic", "resolve", "url"}
    | {"essentials", "invalid", "on-reload", "log-limit", "counters"}
)

# Words that mean something in one place and are free as names everywhere: `time` is a service of
# other firewalls, `data` a likely zone.
UNRESERVED = frozenset(
    {
        *("level", "none", "burst", "off", "drop", "accept", "data", "warn", "time"),
        *("answers", "assign", "match", "family", "modules", "nat", "faults"),
        *("timeout", "column", "connections", "per", "destination", "for", "established", "ipsec"),
        *("against", "keep", "cut", "utc", "local", "at", "as", "by", "on", "mss", "random"),
        *("persistent", "hairpin", "bypass", "refresh", "some", "session", "address", "gateway"),
    }
)

WORDS = RESERVED | UNRESERVED


class Token(NamedTuple):
    """`kind` as above; the characters `start` to `end` (exclusive) of the file."""

    kind: str
    text: str
    start: int
    end: int


_SEPARATORS = r"\s,={}\"#;()<>\[\]!|&"
_TOKEN = re.compile(rf'[ \t\r\n]+|#[^\n]*|"[^"\n]*"?|[^{_SEPARATORS}]+|.', re.DOTALL)
_NUMBER = r"(?:0[xX][0-9A-Fa-f]{1,16}|[0-9]{1,18})"
_RUN = re.compile(
    rf"""(?P<NAME>[A-Za-z][A-Za-z0-9_-]*)
       | (?P<NUMBER>{_NUMBER})
       | (?P<RANGE>{_NUMBER}-{_NUMBER})
       | [0-9]{{1,18}}/(?P<RATE>second|minute|hour|day)
       | (?P<PREFIX>source|destination)/[0-9]{{1,3}}
       | (?P<MASKED>{_NUMBER}/{_NUMBER})
       | (?P<DURATION>(?:[0-9]{{1,9}}[smhdw])+)
       | (?P<WINDOW>[0-9]{{1,2}}:[0-9]{{2}}-[0-9]{{1,2}}:[0-9]{{2}})
       | (?P<DATE>[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})
       | (?P<MAC>[0-9A-Fa-f]{{2}}(?::[0-9A-Fa-f]{{2}}){{5}})
       | (?P<ADDRESS>[0-9][^:]*\..* | [^:$]*:[^:]*:.*)
       | (?P<PARAMETER>\$[A-Za-z][A-Za-z0-9_-]*)""",
    re.VERBOSE,
)


def kind_of(text: str) -> str:
    """The kind of a token that is neither a string nor a mark."""
    match = _RUN.fullmatch(text)
    if match is None:
        return JUNK
    group = match.lastgroup or JUNK
    if group == "RATE":
        return f"{match['RATE']}-rate"
    if group == "PREFIX":
        return f"{match['PREFIX']}-prefix"
    return text if group == "NAME" and text in WORDS else group


def read_tokens(file: SourceFile, report: Report) -> list[Token]:
    """The tokens of a file, then one of kind `END`; reports strings that do not end."""
    kinds = {mark: mark for mark in ",={}"}
    tokens: list[Token] = []
    for match in _TOKEN.finditer(file.text):
        text = match[0]
        first = text[0]
        if first in " \t\r\n#":
            continue
        start, end = match.span()
        if first == '"':
            if text[-1] != '"' or end - start == 1:
                text = text.rstrip()
                end = start + len(text)
                report.add(
                    "unterminated-string",
                    "the closing quote is missing",
                    Span(file, start, end),
                    help="a string ends on the line on which it starts",
                )
                text += '"'
            tokens.append(Token(STRING, text, start, end))
            continue
        kind = kinds.get(text)
        if kind is None:
            kind = kinds[text] = kind_of(text)
        tokens.append(Token(kind, text, start, end))
    tokens.append(Token(END, "", len(file.text), len(file.text)))
    return tokens
