"""Says in words what was expected and what was found; decides nothing about either."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from policylang.syntax.tokens import STATEMENTS, Token

# The words that a terminal of the grammar stands for.
_TERMINALS: dict[str, tuple[str, ...]] = {
    "VERB": ("allow", "deny", "reject"),
    "PORTS_PROTOCOL": ("tcp", "udp", "sctp", "dccp"),
    "ICMP_PROTOCOL": ("icmp", "icmpv6"),
    "DIRECTION": ("inbound", "outbound", "forward"),
    "ON_OFF": ("on", "off"),
    "DROP_ACCEPT": ("drop", "accept"),
    "NONE": ("none",),
    "FAMILY": ("ipv4", "ipv6"),
}
_FREE = {
    "QUOTED": "a text in quotes",
    "NUMBER": "a number",
    "COUNT": "a rate such as `10/second`",
    "ADDRESS": "an address",
}

# Several terminals that have a name together.
_GROUPS: tuple[tuple[str, frozenset[str]], ...] = (
    ("a place", frozenset({"inbound", "outbound", "from", "to"})),
    ("an option", frozenset({"log", "name"})),
    (
        "an item such as `tcp 80`",
        frozenset({"PORTS_PROTOCOL", "ICMP_PROTOCOL", "protocol", "helper", "data", "warn"}),
    ),
    (
        'an item such as `match "ftp"`',
        frozenset({"assign", "match", "expect", "family", "modules", "nat", "faults"}),
    ),
)

# What the elements of a list are, by the word that the list stands after.
_ELEMENTS = {
    "interface": "an interface",
    "network": "an address or a set",
    **dict.fromkeys(("tcp", "udp", "sctp", "dccp", "data"), "a port, a range or a set of ports"),
    "icmp": "an ICMP type",
    "icmpv6": "an ICMPv6 type",
    "protocol": "a protocol",
    "helper": "a helper",
    "in": "a zone",
    "with": "an answer",
    "level": "a log level",
    "use": "a group of rules",
    "service": "a service",
}
_ELEMENT_TERMINALS = frozenset(
    ("WORD", "QUOTED", "NUMBER", "LOW", "ADDRESS", "END_WORD", "TYPE_WORD", "PROTOCOL_WORD")
)
_DECLARERS = frozenset({"zone", "set", "service", "rules", "helper"})

_OTHER_LANGUAGES = {
    **dict.fromkeys(("accept", "permit", "pass", "open"), "allow"),
    **dict.fromkeys(("drop", "block", "ban", "discard"), "deny"),
    "refuse": "reject",
    "policy": "default",
}

_LONGEST = 40  # characters of the user's text in a message
_MOST_PHRASES = 4


def quoted(text: str) -> str:
    """The user's text in backticks, cut and without characters that do not print."""
    if len(text) > _LONGEST:
        text = text[: _LONGEST - 1] + "…"
    shown = "".join(c if c.isprintable() else f"U+{ord(c):04X}" for c in text)
    return f"`{shown}`"


def expected_words(expected: frozenset[str], before: Sequence[Token]) -> str:
    """What might stand behind the tokens `before`: "a zone, a set or an address".

    `expected` are terminals of the grammar.
    """
    left = set(expected)
    phrases = []
    if "WORD" in left:
        phrases.append(element_words(expected, before))
        left -= _ELEMENT_TERMINALS
        if "ALL" in left:
            left -= {"ALL", "PORTS_PROTOCOL", "ICMP_PROTOCOL", "protocol"}
        left -= {"file"}
    may_end = "EOF" in left
    if may_end:
        left -= STATEMENTS | {"EOF", "VERB"}
    if "," in left:
        phrases.append("`,`")
        left.remove(",")
    for phrase, terminals in _GROUPS:
        if terminals <= left:
            phrases.append(phrase)
            left -= terminals
    for terminal in sorted(left):
        if terminal in _FREE:
            phrases.append(_FREE[terminal])
        else:
            phrases.extend(f"`{word}`" for word in _TERMINALS.get(terminal, (terminal,)))
    if may_end and len(phrases) < _MOST_PHRASES:
        phrases.append("the next statement")
    return any_of(phrases)


def element_words(expected: frozenset[str], before: Sequence[Token]) -> str:
    """What an element of the list is that the tokens `before` open."""
    if "ALL" in expected:
        return "a service, ports or `all`"
    if "END_WORD" in expected:
        return "a zone, a set or an address"
    if "file" in expected:
        return "an address, a number, a set or `file`"
    if before and before[-1].kind in _DECLARERS:
        return "a name"
    for token in reversed(before):
        if token.kind in _ELEMENTS:
            return _ELEMENTS[token.kind]
    return "a name"


def any_of(phrases: Sequence[str]) -> str:
    """`a, b or c`."""
    *rest, last = phrases or ("something else",)
    return f"{', '.join(rest)} or {last}" if rest else last


def close_word(text: str, words: Iterable[str]) -> str | None:
    """The one of `words` that `text` is likely meant for, if any."""
    words = set(words)
    meant = _OTHER_LANGUAGES.get(text.lower())
    if meant in words:
        return meant
    close = get_close_matches(text.lower(), sorted(words), n=1, cutoff=0.6)
    return close[0] if close else None


def words_of(expected: frozenset[str]) -> set[str]:
    """The words among terminals of the grammar."""
    words: set[str] = set()
    for terminal in expected:
        words.update(_TERMINALS.get(terminal, (terminal,) if terminal.islower() else ()))
    return words


def hint(before: str, found: str) -> str | None:
    """How to mend a mistake that is often made, by the kinds of two tokens."""
    match before, found:
        case "outbound", "from":
            return "`outbound` is what this host sends; otherwise write `from X to Y`"
        case _:
            return None


def junk_words(token: Token) -> tuple[str, str | None]:
    """What is wrong with a token that stands nowhere, and how to mend it."""
    text = token.text
    if text == ";":
        return "`;` separates nothing", "statements end by themselves: leave it out"
    if text == "-":
        return "a `-` that stands alone", "write a range without blanks: `1024-65535`"
    if text.isspace():
        return f"{quoted(text)} is not a blank", "use ordinary blanks between words"
    if not text.isascii():
        return (
            f"{quoted(text)} holds characters that no name has",
            "names are letters from a to z, digits, `_` and `-`; other texts stand in quotes",
        )
    if len(text) == 1:
        return f"{quoted(text)} means nothing here", None
    if text[0] == "$":
        return f"{quoted(text)} is not the name of a parameter", None
    if "." in text and text[0].isalpha() and text[-1].isalpha():
        return (
            f"{quoted(text)} is neither a name nor an address",
            "host names are not looked up; write the address",
        )
    if any(c.isalpha() for c in text):
        return (
            f"{quoted(text)} is neither a name, a number nor an address",
            "names are letters, digits, `_` and `-` and start with a letter; "
            "put other names, of interfaces say, in quotes",
        )
    return f"{quoted(text)} is neither a number nor an address", None
