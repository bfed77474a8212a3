"""Says in words what was expected and what was found; decides nothing about either."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from policylang.syntax.tokens import STATEMENTS, Token

# The words that a terminal of the grammar stands for.
_TERMINALS: dict[str, tuple[str, ...]] = {
    "VERB": ("allow", "deny", "reject"),
    "EXPECTED_VERB": ("allow", "deny", "drop", "reject"),
    "SOME": ("some",),
    "PORTS_PROTOCOL": ("tcp", "udp", "sctp", "dccp"),
    "ICMP_PROTOCOL": ("icmp", "icmpv6"),
    "DIRECTION": ("inbound", "outbound", "forward"),
    "ON_OFF": ("on", "off"),
    "DROP_ACCEPT": ("drop", "accept"),
    "NONE": ("none",),
    "FAMILY": ("ipv4", "ipv6"),
    "SIDE": ("source", "destination"),
    "OVER": ("over",),
    "MAX_OVER": ("max", "over"),
    "OWNER": ("user", "group"),
    "EXCEPT": ("except",),
    "KEEP_CUT": ("keep", "cut"),
    "UTC_LOCAL": ("utc", "local"),
    "RANDOM": ("random",),
    "PERSISTENT": ("persistent",),
    "HAIRPIN": ("hairpin",),
    "BY_SOURCE": ("source",),
    "ANSWERS": ("answers",),
    "BYPASS": ("bypass",),
    "LISTED_FROM": ("resolve", "url"),
}
_FREE = {
    "QUOTED": "a text in quotes",
    "NUMBER": "a number",
    "LOW": "a range",
    "COUNT": "a rate such as `10/second`",
    "ADDRESS": "an address",
    "MAC": "a MAC address",
    "DURATION": "a time such as `1h30m`",
    "WINDOW": "hours such as `08:00-18:00`",
    "DATE": "a day such as `2027-01-31`",
    "MASKED": "a mark with its mask",
}
_IMPLIED = {"PREFIXED_SIDE": "SIDE"}  # terminals that go without saying beside another one

# Several terminals that have a name together.
_GROUPS: tuple[tuple[str, frozenset[str]], ...] = (
    ("a place", frozenset({"inbound", "outbound", "from", "to"})),
    (
        "a condition",
        frozenset(
            {
                *("limit", "MAX_OVER", "OWNER", "cgroup", "mac", "source", "during", "until"),
                *("mark", "dscp", "size", "FAMILY", "EXCEPT", "ipsec"),
            }
        ),
    ),
    ("an option", frozenset({"log", "name", "add", "also"})),
    (
        "a setting",
        frozenset({"essentials", "invalid", "on-reload", "log-limit", "time", "counters"}),
    ),
    (
        "an item such as `tcp 80`",
        frozenset({"PORTS_PROTOCOL", "ICMP_PROTOCOL", "protocol", "helper", "data", "warn"})
        | {"answers"},
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
    "user": "a user's name or number",
    "group": "a group's name or number",
    "mac": "a MAC address or a set of them",
    "port": "a port, a range or a set of ports",
    "during": "hours or days of the week",
    "dscp": "a DSCP code point",
    "add": "a dynamic set",
    "against": "a protection",
    "native": "a target",
    **dict.fromkeys(("as", "at"), "an address or a set"),
    "on": "a zone",
    "param": "a value",
    "session": "a kind of session",
}
_ELEMENT_TERMINALS = frozenset(
    {
        *("WORD", "QUOTED", "NUMBER", "LOW", "ADDRESS", "END_WORD", "TYPE_WORD", "PROTOCOL_WORD"),
        *("MAC", "DURATION", "WINDOW", "DATE", "MASKED", "COUNT"),
    }
)
_DECLARERS = frozenset({"zone", "set", "service", "rules", "helper", "param"})

_OTHER_LANGUAGES = {
    **dict.fromkeys(("accept", "permit", "pass", "open"), "allow"),
    **dict.fromkeys(("drop", "block", "ban", "discard"), "deny"),
    "refuse": "reject",
    "policy": "default",
    **dict.fromkeys(("uid", "owner", "uid-owner"), "user"),
    **dict.fromkeys(("gid", "gid-owner"), "group"),
    **dict.fromkeys(("rate", "ratelimit"), "limit"),
    **dict.fromkeys(("comment", "label"), "name"),
    **dict.fromkeys(("tos", "dsfield"), "dscp"),
    **dict.fromkeys(("length", "pktlen"), "size"),
    **dict.fromkeys(("yes", "true", "enabled"), "on"),
    **dict.fromkeys(("no", "false", "disabled"), "off"),
    **dict.fromkeys(("deny", "reject"), "drop"),
    "allow": "accept",
    "variable": "param",
    "define": "param",
    **dict.fromkeys(("masq", "masquerading"), "masquerade"),
    **dict.fromkeys(("source-nat", "src-nat"), "snat"),
    **dict.fromkeys(("port-forward", "portforward", "forward-port", "forwardport"), "dnat"),
    **dict.fromkeys(("dest-nat", "dst-nat", "destination-nat", "rdr"), "dnat"),
    **dict.fromkeys(("one-to-one", "binat", "nat1to1"), "netmap"),
    **dict.fromkeys(("connmark", "fwmark", "set-mark", "classify"), "mark"),
    **dict.fromkeys(("clamp-mss", "tcpmss", "mss", "mssclamp"), "clamp"),
    **dict.fromkeys(("notrack", "untrack"), "untracked"),
    **dict.fromkeys(("flowtable", "fasttrack", "flowoffload"), "offload"),
    **dict.fromkeys(("nfqueue", "nfq"), "queue"),
    **dict.fromkeys(("restore", "replies", "reply", "restore-mark"), "answers"),
    **dict.fromkeys(("reflection", "nat-reflection", "loopback"), "hairpin"),
    **dict.fromkeys(("fail-open", "queue-bypass"), "bypass"),
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
    left = set(expected) - {name for name, beside in _IMPLIED.items() if beside in expected}
    phrases = []
    if "WORD" in left:
        phrases.append(element_words(expected, before))
        left -= _ELEMENT_TERMINALS
        if "ALL" in left:
            left -= {"ALL", "PORTS_PROTOCOL", "ICMP_PROTOCOL", "protocol"}
        left -= {"file"}
        if "END_WORD" in expected:
            left -= {"published"}
    if "," in left:
        phrases.append("`,`")
        left.remove(",")
    for phrase, terminals in _GROUPS:
        if terminals <= left:
            phrases.append(phrase)
            left -= terminals
    may_end = "EOF" in left
    if may_end:
        left -= STATEMENTS | {"EOF", "VERB", "HOSTS_AHEAD"}
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
    if len(before) > 1 and before[-2].kind == "native":
        return "a chain"
    if before and before[0].kind == "dnat" and before[-1].kind in ("to", ","):
        return "an address or a set"
    if before and before[0].kind == "on":
        return "a host or a set of hosts"
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
