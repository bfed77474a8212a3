"""Knows mistakes that are often made, and says how to mend each; reads nothing itself."""

from __future__ import annotations

import re
from collections.abc import Sequence

from policylang.syntax.tokens import (
    ADDRESS,
    CONDITIONS,
    MASKED,
    NAME,
    NUMBER,
    OPTIONS,
    RANGE,
    RATES,
    STRING,
    VERBS,
    WINDOW,
    Token,
)
from policylang.syntax.treatment_slips import form, treatment_unfinished
from policylang.syntax.wording import quoted

_PLACES = frozenset({"inbound", "outbound", "from", "to"})

# What other firewalls, and hasty hands, write for two words of the language.
_PHRASES = {
    **dict.fromkeys(("sport", "sports", "source-port"), "source port"),
    **dict.fromkeys(("established", "also-established"), "also established"),
    **dict.fromkeys(("connlimit", "connections", "conns"), "max 20 connections"),
    **dict.fromkeys(("hashlimit", "recent"), "limit 4/minute per source"),
    **dict.fromkeys(("time", "hours"), "during 08:00-18:00"),
}
# The options of iptables, without their dashes, and what says the same here.
_OPTIONS_OF_OTHERS = {
    "to-destination": "the target stands behind `to`: `to 10.0.2.10 port 8080`",
    "to-source": "the new address stands behind `as`: `as 198.51.100.7`",
    **dict.fromkeys(
        ("to-ports", "to-port", "on-port"), "the port stands behind `port`: `port 8080`"
    ),
    **dict.fromkeys(
        ("dport", "dports", "destination-port", "destination-ports"),
        "ports stand right behind their protocol: `tcp 80`",
    ),
    **dict.fromkeys(
        ("sport", "sports", "source-port", "source-ports"),
        "it is a condition: `source port 1024-65535`",
    ),
    **dict.fromkeys(("s", "src", "source"), "where it comes from: `from 192.0.2.0/24`"),
    **dict.fromkeys(("d", "dst", "destination"), "where it goes: `to 192.0.2.0/24`"),
    **dict.fromkeys(
        ("i", "o", "in-interface", "out-interface"),
        "an interface stands in a zone, `zone wan { interface eth0 }`, and the zone behind `from` "
        "or `to`",
    ),
    **dict.fromkeys(("p", "proto", "protocol"), "a protocol has its ports: `tcp 80`, `udp 53`"),
    **dict.fromkeys(
        ("j", "jump"), "a statement starts with what becomes of packets: `allow`, `dnat`, `mark`"
    ),
    **dict.fromkeys(("set-mark", "set-xmark"), "the mark stands behind `as`: `as 0x10`"),
    **dict.fromkeys(("set-dscp", "set-dscp-class"), "it stands behind `as`: `as dscp ef`"),
    "clamp-mss-to-pmtu": "`clamp mss from lan to wan` says so by itself",
    "set-mss": "the size stands behind `as`: `as 1400`",
    **dict.fromkeys(("queue-num", "queue-balance"), "the queue stands behind `to`: `to 3`"),
    "queue-bypass": "did you mean `bypass`?",
    **dict.fromkeys(("random", "random-fully"), "did you mean `random`?"),
    "persistent": "did you mean `persistent`?",
    "log-prefix": 'it is an option: `log "PREFIX"`',
    **dict.fromkeys(("state", "ctstate"), "rules speak of connections: answers pass by themselves"),
}
_ANSWERS = re.compile(r"tcp-reset|[a-z]+-(unreachable|prohibited)")

_UNITS = (("second", "s"), ("minute", "m"), ("hour", "h"), ("day", "d"), ("week", "w"))
_RATE = re.compile(r"([0-9]+)/([A-Za-z]+)")
_TIME = re.compile(r"[0-9]{1,2}:[0-9]{2}|[0-9]{1,2}([ap]m)?-[0-9]{1,2}[ap]m")
_COLON_RANGE = re.compile(r"[0-9]{1,5}:[0-9]{1,5}")
_PROTOCOL_PORT = re.compile(r"(tcp|udp|sctp|dccp)[/:]([0-9]{1,5}(?:-[0-9]{1,5})?)")
_PORT_PROTOCOL = re.compile(r"([0-9]{1,5}(?:-[0-9]{1,5})?)/(tcp|udp|sctp|dccp)")
_DATE = re.compile(r"[0-9]{4}[-/][0-9]{1,2}[-/][0-9]{1,2}")
_DURATION = re.compile(r"([0-9]+)([A-Za-z]+)")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(-[0-9A-Fa-f]{2}){5}")
_OTHER_MAC = re.compile(
    r"""[0-9A-Fa-f]{12} | [0-9A-Fa-f]{4}(\.[0-9A-Fa-f]{4}){2}
      | [0-9A-Fa-f]{1,2}(:[0-9A-Fa-f]{1,2}){5}""",
    re.VERBOSE,
)
MAC_HELP = "a MAC address is six pairs of hexadecimal digits: 00:11:22:33:44:55"


def looks_like_mac(text: str) -> bool:
    """Whether a text is a MAC address as other programs write it."""
    return (_MAC.fullmatch(text) or _OTHER_MAC.fullmatch(text)) is not None


def out_of_order(tokens: Sequence[Token], at: int) -> tuple[int, str] | None:
    """Where the part starts that stands before what has to stand before it, and how to mend it.

    None where the token at `at` is in its place.
    """
    found = tokens[at].kind
    if tokens[0].kind not in VERBS and tokens[0].kind != "expect":
        return None
    words = [token.kind for token in tokens[:at]]
    options = [n for n, word in enumerate(words) if word in OPTIONS]
    conditions = [n for n in range(at) if _is_condition(words, n)]
    first = min([*options, *conditions], default=None)
    if first is not None:
        if found in _PLACES and not _PLACES & set(words[:first]):
            return first, f"the place stands before conditions and options: before `{words[first]}`"
        if found == "with" and "with" not in words:
            return first, f"an answer stands before conditions and options: before `{words[first]}`"
    if options and (found in CONDITIONS or found == "ipsec"):
        word, option = tokens[at].text, words[options[0]]
        return options[0], f"conditions stand before options: put `{word}` before `{option}`"
    return None


def _is_condition(words: Sequence[str], at: int) -> bool:
    """Whether a condition starts with the word at `at`."""
    return words[at] in CONDITIONS and words[at - 1] not in ("add", "per", "protocol", ",")


def phrase(tokens: Sequence[Token], at: int, expected: frozenset[str]) -> str | None:
    """What is meant by a word that stands for several of the language, where they may stand."""
    found = tokens[at]
    meant = _PHRASES.get(found.text) if found.kind in (NAME, found.text) else None
    if meant is not None and meant.split()[0] in _openers(expected):
        return f"did you mean `{meant}`?"
    if "with" in expected and found.kind == NAME and _ANSWERS.fullmatch(found.text):
        return f"did you mean `with {found.text}`?"
    return None


def _openers(expected: frozenset[str]) -> frozenset[str]:
    return expected | ({"max", "over"} if "MAX_OVER" in expected else set())


def slip(tokens: Sequence[Token], at: int, expected: frozenset[str]) -> str | None:
    """How to mend what stands at `at`, where it is a mistake that is often made."""
    found = tokens[at]
    before = tokens[at - 1].kind if at else ""
    after = tokens[at + 1] if at + 1 < len(tokens) else found
    match before, found.kind:
        case "outbound", _ if found.kind in (NAME, STRING) and "to" in expected:
            return f"did you mean `to {found.text}`?"
        case "inbound", _ if found.kind in (NAME, STRING) and "from" in expected:
            return f"did you mean `from {found.text}`?"
        case "outbound", "from":
            return "`outbound` is what this host sends; otherwise write `from X to Y`"
        case (("limit" | "log-limit"), _) if found.kind == NUMBER:
            return f"a rate has a unit: `{found.text}/minute`"
        case "limit", _ if found.kind == RANGE or found.kind == MASKED:
            return "a rate is a number and a unit: `4/minute`"
        case "over", _ if found.kind in RATES:
            return f"a rate stands behind `limit`: `limit over {found.text}`"
        case "over", _ if found.kind == NUMBER and after.kind == "connections":
            return f"connections are counted without `limit`: `over {found.text} connections`"
        case "max", _ if found.kind in RATES:
            return f"a rate stands behind `limit`: `limit {found.text}`"
        case "max", "connections":
            return "the number stands before it: `max 20 connections`"
        case "per", _:
            return "`per source`, `per destination`, or per network: `per source/24`"
        case (("for" | "timeout"), _) if found.kind == NUMBER:
            return f"a time has a unit, without a blank: `{found.text}{_unit(after.text)}`"
        case (("resolve" | "url"), _) if found.kind != STRING:
            example = "cdn.example" if before == "resolve" else "https://lists.example/drop.txt"
            return f'it stands in quotes: `{before} "{example}"`'
        case "refresh", _ if found.kind == NUMBER:
            return f"a time has a unit, without a blank: `{found.text}m`"
        case "dynamic", _:
            return "a dynamic set starts empty: `add source to SET` fills it"
        case "during", _ if found.kind == RANGE:
            return f"hours are written with their minutes: `{_hours(found.text)}`"
        case "add", _ if found.kind in (NAME, STRING):
            return f"say which address: `add source to {found.text}`"
        case "protect", _ if found.kind in (NAME, STRING, "any"):
            return f"did you mean `protect from {found.text}`?"
        case "session", _:
            return "for example `expect session ftp passive inbound from lan`"
        case "protect", "against":
            return "say first from where: `protect from ZONE against …`"
        case _:
            return _by_expected(tokens, at, expected)


def _by_expected(tokens: Sequence[Token], at: int, expected: frozenset[str]) -> str | None:
    """The help that follows from what might stand there, or from the statement."""
    found, first = tokens[at], tokens[0]
    if found.kind == WINDOW and any(token.kind == "during" for token in tokens[:at]):
        return f"hours stand before the days: `during {found.text} mon-fri`"
    if "MAC" in expected and "file" not in expected and looks_like_mac(found.text):
        return MAC_HELP
    if "DATE" in expected and "MAC" not in expected and found.kind in (ADDRESS, NUMBER, NAME):
        return "a date is year, month and day: `2027-01-31`"
    if first.kind == "default" and found.kind in CONDITIONS:
        return "a default takes no conditions: write a rule, `deny all inbound limit …`"
    if "file" in expected and found.kind == "dynamic":
        return "a set is either dynamic or written out: `set banned = dynamic`"
    if "file" in expected and found.kind in ("resolve", "url"):
        return f'a list from elsewhere is a set of its own: `set NAME = {found.text} "…"`'
    if "refresh" in expected:
        return (
            "a list from elsewhere stands alone: name it with others, or `except` others, in rules"
        )
    return None if "EOF" in expected else form(first.kind)


def unfinished(tokens: Sequence[Token]) -> str | None:
    """How to go on with a statement that ends too early."""
    last, first = tokens[-1], tokens[0]
    before = tokens[-2].kind if len(tokens) > 1 else ""
    if first.kind == "native" and last.kind == STRING:
        return f"a chain stands before the line: `native nft input {last.text}`"
    if before in ("max", "over") and last.kind == NUMBER:
        return f"did you mean `{before} {last.text} connections`?"
    return treatment_unfinished(tokens)


# --- what stands nowhere --------------------------------------------------------------------


def junk_words(token: Token, before: Token | None = None) -> tuple[str, str | None]:
    """What is wrong with a token that stands nowhere, and how to mend it; `before` stood there."""
    text = token.text
    shown = quoted(text)
    if text == ";":
        return "`;` separates nothing", "statements end by themselves: leave it out"
    if text == "-":
        return "a `-` that stands alone", "write a range without blanks: `1024-65535`"
    if text[0] == "-" and text.lstrip("-")[:1].isalpha():
        return f"{shown} is no word of this language", _OPTIONS_OF_OTHERS.get(text.lstrip("-"))
    if text[0] == "/" and before is not None:
        return f"{shown} stands alone", "a `/` has no blanks around it: `192.0.2.0/24`, `4/minute`"
    if text in ("[", "]"):
        return f"{shown} means nothing here", "addresses stand without brackets, and ports apart"
    if text in ("<", ">"):
        return f"{shown} means nothing here", "numbers are compared by ranges: `size 0-100`"
    if text.isspace():
        return f"{shown} is not a blank", "use ordinary blanks between words"
    if not text.isascii():
        return (
            f"{shown} holds characters that no name has",
            "names are letters from a to z, digits, `_` and `-`; other texts stand in quotes",
        )
    if len(text) == 1:
        return f"{shown} means nothing here", None
    if text[0] == "$":
        return f"{shown} is not the name of a parameter", None
    return _near_a_value(text) or _near_a_name(text, before)


def _near_a_value(text: str) -> tuple[str, str | None] | None:
    """What is wrong with a text that is almost a rate, a time, a date, a number …"""
    shown = quoted(text)
    if (match := _PROTOCOL_PORT.fullmatch(text)) is not None:
        return f"{shown} is not a port", f"did you mean `{match[1]} {match[2]}`?"
    if (match := _PORT_PROTOCOL.fullmatch(text)) is not None:
        return f"{shown} is not a port", f"did you mean `{match[2]} {match[1]}`?"
    if (match := _RATE.fullmatch(text)) is not None:
        unit = _unit(match[2], "")
        meant = next((word for word, letter in _UNITS[:4] if letter == unit), None)
        if match[2] in RATES.values() or len(match[1]) > 18:
            return f"{shown} is too much for a rate", None
        if meant is not None:
            return f"{shown} is not a rate", f"did you mean `{match[1]}/{meant}`?"
        return (
            f"{shown} is not a rate",
            "a rate is a number a second, minute, hour or day: 4/minute",
        )
    if _TIME.fullmatch(text):
        return f"{shown} is not a window of hours", "write both ends without blanks: `08:00-18:00`"
    if _DATE.fullmatch(text):
        return f"{shown} is not a date", "a date is year, month and day: `2027-01-31`"
    if _MAC.fullmatch(text):
        return f"{shown} is not a MAC address", f"did you mean `{text.replace('-', ':')}`?"
    if text.isdigit() or re.fullmatch(r"0[xX][0-9A-Fa-f]+", text):
        return f"{shown} is too large a number", None
    if (match := _DURATION.fullmatch(text)) is not None and (unit := _unit(match[2], "")):
        return f"{shown} is not a time", f"did you mean `{match[1]}{unit}`?"
    if text.startswith(("source/", "destination/")):
        return f"{shown} has no prefix length", "it is a number: `per source/24`"
    if "/" in text and text[:2] in ("0x", "0X"):
        return f"{shown} is not a mark with its mask", "both are numbers: `mark 0x10/0xff`"
    if _COLON_RANGE.fullmatch(text):
        return f"{shown} is not a range", f"did you mean `{text.replace(':', '-')}`?"
    if text[-1] == "-" and text[:-1].isalnum():
        return f"{shown} is half a range", "write both ends without blanks: `1024-65535`"
    return None


def _near_a_name(text: str, before: Token | None) -> tuple[str, str | None]:
    shown = quoted(text)
    if before is not None and before.kind == "cgroup":
        return f"{shown} needs quotes", f'a path is a text: `cgroup "{text}"`'
    if "." in text and text[0].isalpha() and text[-1].isalpha():
        return (
            f"{shown} is neither a name nor an address",
            "a rule takes addresses: write the address, or name a set that is kept up to date, "
            '`set NAME = resolve "cdn.example"`',
        )
    if any(c.isalpha() for c in text):
        return (
            f"{shown} is neither a name, a number nor an address",
            "names are letters, digits, `_` and `-` and start with a letter; "
            "put other names, of interfaces say, in quotes",
        )
    return f"{shown} is neither a number nor an address", None


def _unit(text: str, otherwise: str = "s") -> str:
    """The letter of a unit of time that a word abbreviates or spells out."""
    word = text.lower().removesuffix("s") or "s"
    if word in ("min", "hr", "sec", "wk"):
        word = {"min": "minute", "hr": "hour", "sec": "second", "wk": "week"}[word]
    for name, letter in _UNITS:
        if word in (name, letter):
            return letter
    return otherwise


def _hours(text: str) -> str:
    """A window of hours for a range of numbers."""
    low, high = (
        int(part, 0) if part[:2] in ("0x", "0X") else int(part) for part in text.split("-")
    )
    return f"{low:02}:00-{high:02}:00" if low < 24 and high <= 24 else "08:00-18:00"
