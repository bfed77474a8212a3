"""What is asked of a packet's other headers, its size, its hardware address and its wrapping."""

from __future__ import annotations

from policylang.analysis.reading_iptables.asking import (
    Asked,
    NotUnderstoodError,
    all_of,
    of,
    turned,
)
from policylang.analysis.reading_iptables.numbers import number, span
from policylang.analysis.reading_iptables.options import Match
from policylang.analysis.reading_iptables.protocols import DSCP_CLASSES
from policylang.packets.fields import Field
from policylang.packets.values import Ranges

DSCP_BITS = 0xFC  # of the byte that was called type of service (RFC 2474 section 3)
MAC_BYTES = 6
SOURCE_ROUTES = ({"lsrr", "3"}, {"ssrr", "9"})  # RFC 791 section 3.1


def dscp(match: Match) -> Asked:
    """`-m dscp`, by number or class."""
    parts: list[Asked] = []
    for option in match.options:
        text = option.words[0]
        if option.name == "dscp":
            code = number(text, 63)
        elif text.upper() in DSCP_CLASSES:
            code = DSCP_CLASSES[text.upper()]
        else:
            raise NotUnderstoodError(option.text)
        parts.append(of(Field.DSCP, turned(Ranges.of(code), Field.DSCP, negated=option.negated)))
    return _some(parts, match)


def tos(match: Match) -> Asked:
    """`-m tos` with a mask: its upper six bits are the code point, and the others no field."""
    option = match.get("tos")
    if option is None or "/" not in option.words[0]:
        raise NotUnderstoodError(match.text)
    value_text, _, mask_text = option.words[0].partition("/")
    value, mask = number(value_text, 255), number(mask_text, 255)
    if value & ~mask:
        raise NotUnderstoodError(option.text)
    wanted, bits = (value & DSCP_BITS) >> 2, mask >> 2
    values = Ranges.of(*(code for code in range(64) if code & bits == wanted))
    if mask & ~DSCP_BITS == 0:
        return of(Field.DSCP, turned(values, Field.DSCP, negated=option.negated))
    if option.negated:
        raise NotUnderstoodError(option.text)
    return of(Field.DSCP, values).but_unknown(match.text)


def length(match: Match) -> Asked:
    """`-m length`, of the whole IP packet."""
    parts = [
        of(
            Field.SIZE,
            turned(Ranges((span(option.words[0], 65535),)), Field.SIZE, negated=option.negated),
        )
        for option in match.options
    ]
    return _some(parts, match)


def hop_limit(match: Match) -> Asked:
    """`-m hl`, of IPv6 alone."""
    parts: list[Asked] = []
    for option in match.options:
        n = number(option.words[0], 255)
        match option.name:
            case "hl-eq":
                values = turned(Ranges.of(n), Field.HOP_LIMIT, negated=option.negated)
            case "hl-lt" if not option.negated:
                values = Ranges.between(0, n - 1)
            case "hl-gt" if not option.negated:
                values = Ranges.between(n + 1, 255)
            case _:
                raise NotUnderstoodError(option.text)
        parts.append(of(Field.HOP_LIMIT, values))
    return _some(parts, match)


def mac(match: Match) -> Asked:
    """`-m mac`; what came without a hardware address meets it neither way."""
    option = match.get("mac-source")
    if option is None:
        raise NotUnderstoodError(match.text)
    values = Ranges.of(mac_number(option.words[0]))
    return of(Field.SMAC, turned(values, Field.SMAC, negated=option.negated))


def mac_number(text: str) -> int:
    """Six bytes with colons as a number."""
    try:
        parts = [int(part, 16) for part in text.split(":")]
    except ValueError:
        raise NotUnderstoodError(text) from None
    if len(parts) != MAC_BYTES or not all(0 <= part <= 255 for part in parts):
        raise NotUnderstoodError(text)
    return int.from_bytes(bytes(parts), "big")


def ipsec(match: Match) -> Asked:
    """`-m policy`: whether a packet is wrapped; what it asks of the wrapping is no field."""
    way, kind = match.get("dir"), match.get("pol")
    if way is None or kind is None or way.negated or kind.negated:
        raise NotUnderstoodError(match.text)
    fields = {"in": Field.IPSEC, "out": Field.IPSEC_OUT}
    kinds = {"none": 0, "ipsec": 1}
    if way.words[0] not in fields or kind.words[0] not in kinds:
        raise NotUnderstoodError(match.text)
    asked = of(fields[way.words[0]], Ranges.of(kinds[kind.words[0]]))
    return asked if len(match.options) == 2 else asked.but_unknown(match.text)


def routing_header(match: Match) -> Asked:
    """`-m rt`: an IPv6 packet with a routing header."""
    asked = of(Field.SOURCE_ROUTED, Ranges.of(1))
    return asked.but_unknown(match.text) if match.options else asked


def ipv6_headers(match: Match) -> Asked:
    """`-m ipv6header`, where it asks for a routing header beside any others."""
    header = match.get("header")
    if (
        header is None
        or match.get("soft") is None
        or header.words[0] not in ("route", "ipv6-route")
    ):
        raise NotUnderstoodError(match.text)
    return of(Field.SOURCE_ROUTED, Ranges.of(0 if header.negated else 1))


def ipv4_options(match: Match) -> Asked:
    """`-m ipv4options` (xtables-addons), where it asks for either kind of source route."""
    flags = match.get("flags")
    if flags is None or flags.negated or match.get("any") is None:
        raise NotUnderstoodError(match.text)
    words = flags.words[0].lower().split(",")
    kinds = [next((i for i, names in enumerate(SOURCE_ROUTES) if w in names), None) for w in words]
    if sorted(kinds, key=str) != [0, 1]:
        raise NotUnderstoodError(match.text)
    return of(Field.SOURCE_ROUTED, Ranges.of(1))


def _some(parts: list[Asked], match: Match) -> Asked:
    if not parts:
        raise NotUnderstoodError(match.text)
    return all_of(parts)
