"""Knows what goes wrong in statements that translate or treat packets, and how to mend it.

Much of it is the wording of other firewalls. Like `slips`, it reads nothing itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from policylang.syntax.tokens import (
    ADDRESS,
    CONDITIONS,
    MASKED,
    NAME,
    NUMBER,
    OPTIONS,
    RANGE,
    STRING,
    TREATMENTS,
    VERBS,
    Token,
)

_FORMS = {
    "masquerade": "masquerade from lan to wan",
    "snat": "snat from lan to wan as 198.51.100.7",
    "dnat": "dnat http from wan to 10.0.2.10",
    "redirect": "redirect http from lan to any port 3128",
    "tproxy": "tproxy http from lan to any port 3129",
    "netmap": "netmap 198.51.100.16/28 to 10.0.2.16/28 on wan",
    "clamp": "clamp mss from lan to wan",
    "mark": "mark https from lan to wan as 0x10",
    "untracked": "untracked dns inbound",
    "offload": "offload from lan to wan",
    "queue": "queue http from wan to dmz to 3",
    "expect": "expect allow ssh inbound from lan",
    "test": 'test "ssh is open" { expect allow ssh inbound }',
}
# Words that no statement starts with, and what says the same here.
_STARTS = {
    "nat": "`masquerade` or `snat` hides addresses, and `dnat` forwards ports",
    "forward": "`dnat` forwards ports to another machine; what may pass through this host is said "
    "by `allow … from X to Y`",
    "hairpin": "it stands in a port forward: `dnat http from wan to 10.0.2.10 hairpin`",
    **dict.fromkeys(("dscp", "tos"), "it is a mark: `mark sip from lan to wan as dscp ef`"),
}
_TAKES_TURNS = frozenset({"roundrobin", "round-robin", "rr", "numgen"})
_PATH = frozenset({"pmtu", "mtu", "rt", "auto"})
_PLACES = frozenset({"inbound", "outbound", "from", "to"})
# What stands between the place of a statement and its conditions.
_CLAUSES = frozenset({"port", "random", "persistent", "by", "hairpin", "answers", "bypass"})
_CODE_POINT = re.compile(r"ef|be|le|va|cs[0-7]|af[1-4][1-3]")
_NUMBERS = frozenset({NUMBER, RANGE})
_MARKS = frozenset({NUMBER, MASKED})
_NAMES = frozenset({NAME, STRING})

# How other firewalls name the interface by which something comes or goes.
_BY_INTERFACE = frozenset(
    {
        *("on", "via", "out", "dev", "oif", "iif", "oifname", "iifname"),
        *("in-interface", "out-interface"),
    }
)
_WITH_ZONES = "ends are zones, which name their interfaces: `from lan to wan`, and \
`zone wan { interface eth0 }`"
_PROTOCOLS = frozenset({"tcp", "udp", "sctp", "dccp"})

_Slip = Callable[[Sequence[Token], int, frozenset[str]], str | None]


def start_slip(text: str) -> str | None:
    """What says the same as a word of other firewalls that stands for several statements."""
    return _STARTS.get(text)


def form(word: str) -> str | None:
    """How the statement that starts with a word is written, as an example."""
    return f"for example `{_FORMS[word]}`" if word in _FORMS else None


def treatment_slip(tokens: Sequence[Token], at: int, expected: frozenset[str]) -> str | None:
    """How to mend what stands at `at` in a translation or a treatment, or in a rule like one.

    `expected` are the terminals that might stand there; None where it is no such mistake.
    """
    first, found, before = tokens[0].kind, tokens[at], tokens[at - 1]
    if at == 0 or first not in VERBS | TREATMENTS | {"expect"}:
        return None
    if at == 2 and before.text in _BY_INTERFACE and "from" in expected:
        return _WITH_ZONES
    if found.text in _BY_INTERFACE and expected & {"in", "from", "to"} and first != "tproxy":
        return _WITH_ZONES
    if found.kind == "port" and before.kind in _PROTOCOLS:
        return f"ports stand right behind the protocol: `{before.text} 80`"
    if found.kind in ("ipv4", "ipv6") and "ALL" in expected:
        return f"a family stands behind both ends: `from lan to wan {found.text}`"
    if first in VERBS or first == "expect":
        return _in_a_rule(tokens, at)
    following = tokens[at + 1] if at + 1 < len(tokens) else found
    if at == 1 and found.kind == "port" and "ALL" in expected:
        return "a port has a protocol: `tcp 80`"
    if found.kind == ADDRESS and "from" in expected and first != "dnat":
        return f"did you mean `from {found.text}`?"
    if found.kind == "," and tokens[at - 2].kind == "port":
        return "there is one new port, or a range with as many as the old ones"
    if found.kind == "with" and "as" not in expected:
        return "answers are for `reject` alone"
    if at == 1 and found.kind in ("from", "inbound", "outbound") and "ALL" in expected:
        return f"name services or ports, or `all`: `{first} all {found.text} …`"
    words = {token.kind for token in tokens[1:at]}
    if found.kind in _CLAUSES and "EOF" in expected and words & (OPTIONS | CONDITIONS):
        return f"`{found.text}` stands before conditions and options"
    if found.kind in _NUMBERS and "port" in expected:
        return f"did you mean `port {found.text}`?"
    if before.kind == "except" and expected == {"ipsec"}:
        return "`except` takes away from an end: declare a set without it, and name that"
    if (
        found.kind in _NAMES
        and before.kind in (first, "mss")
        and "ALL" not in expected
        and following.kind not in ("from", "inbound", "outbound", ",")
    ):
        return f"did you mean `from {found.text}`?" if "from" in expected else form(first)
    of_statement = _OF.get(first)
    return None if of_statement is None else of_statement(tokens, at, expected)


def treatment_unfinished(tokens: Sequence[Token]) -> str | None:
    """How to go on with a translation or a treatment that ends too early."""
    first = tokens[0].kind
    words = {token.kind for token in tokens}
    if first == "snat" and "as" not in words and words & _PLACES:
        return "say what the source becomes: `as 198.51.100.7`; `masquerade` takes the address of \
the interface"
    if first == "mark" and "as" not in words and words & _PLACES:
        return "say what they are marked with: `as 0x10`, or `as dscp ef`"
    if first == "netmap" and "on" not in words and len(tokens) > 3:
        return "say in which zone the first network is seen: `on wan`"
    return form(first)


# --- one statement each ---------------------------------------------------------------------


def _masquerade(tokens: Sequence[Token], at: int, expected: frozenset[str]) -> str | None:
    found = tokens[at]
    if found.kind == "as" and "in" in expected:
        return "`masquerade` takes the address of the interface; `snat from X to Y as ADDRESS` \
takes yours"
    if found.kind == "persistent":
        return "`persistent` is for `snat`"
    if at == 2 and found.kind in _NAMES and tokens[1].kind not in _PLACES:
        return form("masquerade")
    return None


def _snat(tokens: Sequence[Token], at: int, expected: frozenset[str]) -> str | None:
    found, before = tokens[at], tokens[at - 1]
    if tokens[1].kind == "to" and found.kind == "from":
        return "both ends stand first, and the new address behind `as`: \
`snat from lan to wan as 198.51.100.7`"
    if before.kind == "as" and found.kind in ("masquerade", "self"):
        return "`masquerade from X to Y` takes the address of the interface"
    if "as" not in expected or any(token.kind == "as" for token in tokens):
        return None
    if found.kind in ("to", "with"):
        return "the new address stands behind `as`: `as 198.51.100.7`"
    if found.kind == ADDRESS:
        return f"did you mean `as {found.text}`?"
    return None


def _dnat(tokens: Sequence[Token], at: int, expected: frozenset[str]) -> str | None:
    found, before = tokens[at], tokens[at - 1]
    has_target = "HAIRPIN" in expected
    following = tokens[at + 1] if at + 1 < len(tokens) else found
    if found.kind == NAME and "from" in expected and following.kind in ("to", "at"):
        return f"did you mean `from {found.text}`?"
    if found.kind == ADDRESS and "to" in expected and all(t.kind != "to" for t in tokens):
        return f"did you mean `to {found.text}`?"
    if found.kind in _PLACES and "from" in expected:
        return "say from where, then to which machine: `dnat http from wan to 10.0.2.10`"
    if before.kind == "hairpin" and found.kind == "from":
        return "it works from all other zones by itself"
    if found.kind == "to" and has_target:
        return "what the client dials stands behind `at`: `from wan at 198.51.100.7 to 10.0.2.10`"
    if found.kind == "port" and expected & {"from", "to"}:
        return "the new port stands behind the target: `to 10.0.2.10 port 8080`"
    if found.kind == "as" and "in" in expected:
        return "the target stands behind `to`: `to 10.0.2.10`"
    if found.kind == "at" and has_target:
        return "`at` stands before the target: `from wan at 198.51.100.7 to 10.0.2.10`"
    if before.kind == "to" and found.kind == "self":
        return "`redirect http from X to Y port N` sends it to this host"
    if before.kind == "to" and found.kind in ("any", "published", "broadcast", "multicast"):
        return "name the machine that answers"
    if before.kind == "by":
        return "`by source` keeps a client to one target; without it they take turns"
    if found.text in _TAKES_TURNS and has_target:
        return "several targets take turns by themselves: leave it out"
    if found.kind in ("random", "persistent") and has_target:
        return f"`{found.text}` is for `masquerade` and `snat`; `by source` keeps a client to one \
target"
    return None


def _redirect(tokens: Sequence[Token], at: int, expected: frozenset[str]) -> str | None:
    found, before = tokens[at], tokens[at - 1]
    number = next((token.text for token in tokens[at:] if token.kind in _NUMBERS), "3128")
    if before.kind == "to" and (found.kind in _NUMBERS or found.kind == "port"):
        return _behind_place(tokens[: at - 1], f"port {number}")
    if found.kind == "port" and "inbound" in expected:
        return _behind_place(tokens[:at], f"port {number}")
    if found.kind == "to" and "port" in expected and tokens[at + 1 : at + 2]:
        following = tokens[at + 1]
        if following.kind == ADDRESS:
            return f"`dnat` sends it to another machine: \
`dnat http from lan at any to {following.text}`"
    if found.kind in ("to", "as") and "port" in expected:
        return f"did you mean `port {number}`?"
    return None


def _tproxy(tokens: Sequence[Token], at: int, expected: frozenset[str]) -> str | None:
    found, before = tokens[at], tokens[at - 1]
    if found.kind == "inbound":
        return "a transparent proxy takes what goes to others: `from lan to any`; `redirect` takes \
what comes to this host"
    if before.kind == "port" and found.kind == RANGE:
        return "a proxy listens on one port"
    if found.kind in ("to", "on") and "port" in expected:
        return "the port stands behind `port` alone: `port 3129`"
    return None


def _netmap(tokens: Sequence[Token], at: int, expected: frozenset[str]) -> str | None:
    found = tokens[at]
    if found.kind == ADDRESS and "to" in expected:
        return f"did you mean `to {found.text}`?"
    if found.kind == "hairpin":
        return "`hairpin` is for `dnat`"
    if "on" in expected and found.kind in ("from", "in", "at", "to") and at + 1 < len(tokens):
        return f"did you mean `on {tokens[at + 1].text}`?"
    return None


def _clamp(tokens: Sequence[Token], at: int, expected: frozenset[str]) -> str | None:
    found, before = tokens[at], tokens[at - 1]
    if "mss" in expected:
        return "what is clamped is the size of TCP segments: `clamp mss from lan to wan`"
    if before.kind == "as" and found.text in _PATH:
        return "leave out the size, and it is what the path takes"
    if before.kind == "to" and found.kind == NUMBER:
        return f"the size stands behind both ends: `clamp mss from lan to wan as {found.text}`"
    if "as" in expected and found.kind == NUMBER:
        return f"did you mean `as {found.text}`?"
    if "as" in expected and found.kind == "to" and tokens[-1].text in _PATH:
        return "leave it out: where no size is said, it is what the path takes"
    if before.kind == "mss" and found.kind in _NAMES:
        return "it is about TCP alone: `clamp mss from lan to wan`"
    if "as" in expected and found.kind == "to" and tokens[-1].kind == NUMBER:
        return f"did you mean `as {tokens[-1].text}`?"
    return None


def _mark(tokens: Sequence[Token], at: int, expected: frozenset[str]) -> str | None:
    found, before = tokens[at], tokens[at - 1]
    following = tokens[at + 1] if at + 1 < len(tokens) else found
    if at == 2 and before.kind in _MARKS and found.kind in _NAMES:
        return f"the mark stands last: `mark {found.text} from lan to wan as {before.text}`"
    if before.kind == "as":
        if found.kind == "mark" and following.kind in _MARKS:
            return f"did you mean `as {following.text}`?"
        if found.kind == NAME and _CODE_POINT.fullmatch(found.text.lower()):
            return f"did you mean `as dscp {found.text}`?"
        return None
    if found.kind == "as" and "inbound" in expected:
        return "the ends stand before the mark: `mark https from lan to wan as 0x10`"
    if found.kind == NUMBER and before.kind == NUMBER and "as" not in expected:
        return f"did you mean `as {before.text}/{found.text}`?"
    if found.text == "mask" and following.kind == NUMBER and before.kind == NUMBER:
        return f"did you mean `as {before.text}/{following.text}`?"
    if "as" not in expected:
        return None
    if found.kind in _MARKS:
        return f"did you mean `as {found.text}`?"
    if found.kind in ("to", "set", "mark") and following.kind in _MARKS:
        return f"did you mean `as {following.text}`?"
    if found.kind == "dscp":
        return f"did you mean `as dscp {following.text}`?" if following is not found else None
    if found.kind == "answers":
        return "`answers` stands behind the mark: `as 0x10 answers`"
    return None


def _offload(tokens: Sequence[Token], at: int, expected: frozenset[str]) -> str | None:
    if at == 1 and "from" in expected:
        return "what is offloaded is told by its ends alone: `offload from lan to wan`"
    return None


def _queue(tokens: Sequence[Token], at: int, expected: frozenset[str]) -> str | None:
    found, before = tokens[at], tokens[at - 1]
    number = next((token.text for token in tokens[at:] if token.kind in _NUMBERS), None)
    if found.kind == "bypass" or (at == 2 and before.text == "num"):
        return form("queue")
    if before.kind == "to" and found.kind in ("queue", NAME) and "LOW" in expected and number:
        return f"did you mean `to {number}`?"
    if found.text in ("fanout", "balance") and "BYPASS" in expected:
        return "a range of queues shares the connections out: `to 0-3`"
    if before.kind == "to" and found.kind in _NUMBERS:
        return f"the queue stands behind both ends: `queue http from wan to dmz to {found.text}`"
    if "to" in expected and "in" in expected and (found.kind in _NUMBERS or found.text == "num"):
        return f"did you mean `to {number}`?"
    return None


_OF: dict[str, _Slip] = {
    "masquerade": _masquerade,
    "snat": _snat,
    "dnat": _dnat,
    "redirect": _redirect,
    "tproxy": _tproxy,
    "netmap": _netmap,
    "clamp": _clamp,
    "mark": _mark,
    "offload": _offload,
    "queue": _queue,
}


def _behind_place(head: Sequence[Token], clause: str) -> str:
    """What a redirect looks like whose place is not whole."""
    if any(token.kind == "from" for token in head):
        return f"say where the client means to go: `from lan to any {clause}`"
    return f"say whose connections: `inbound {clause}`, or `from lan to any {clause}`"


# --- rules that look like translations ------------------------------------------------------


def _in_a_rule(tokens: Sequence[Token], at: int) -> str | None:
    """How to mend what belongs to a translation in a rule that allows or denies."""
    verb, found, before = tokens[0], tokens[at], tokens[at - 1]
    if at == 1 and found.kind in _FORMS:
        return f"it is a statement of its own: `{_FORMS[found.kind]}`"
    if at == 1 and found.kind == "published":
        return f"it is where packets go to: `{verb.text} http from wan to published`"
    if at == 1 and found.kind == "port":
        return "a port has a protocol: `tcp 80`"
    if any(token.kind == "published" for token in tokens[at - 2 : at]) or (
        before.kind == "," and any(token.kind == "published" for token in tokens[:at])
    ):
        return _behind_published(verb, found, before)
    if found.kind == "port":
        return f"ports stand in front, behind their protocol: `{verb.text} tcp 80 …`"
    if found.kind == "as":
        return "a rule translates nothing; `snat from X to Y as ADDRESS` does"
    if found.kind == "hairpin":
        return "a rule translates nothing; `hairpin` is for `dnat`"
    return None


def _behind_published(verb: Token, found: Token, before: Token) -> str | None:
    """How to mend what stands behind `published`."""
    if found.kind in ("tcp", "udp", NAME) and before.kind == "published":
        return f"services and protocols stand in front: `{verb.text} tcp 80 from wan to published`"
    if found.kind == "port":
        return "a port stands right behind it: `published 8080`"
    if found.kind in _NUMBERS and before.kind == ",":
        return f"several ports stand in front: `{verb.text} tcp 80, 443 from wan to published`"
    return None
