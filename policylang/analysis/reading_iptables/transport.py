"""What is asked of protocols, ports, flags and message types."""

from __future__ import annotations

from policylang.analysis.reading_iptables.asking import (
    Asked,
    NotUnderstoodError,
    all_of,
    any_of,
    of,
    turned,
)
from policylang.analysis.reading_iptables.numbers import number, span
from policylang.analysis.reading_iptables.options import Match, Option
from policylang.analysis.reading_iptables.protocols import (
    ICMP_TYPES,
    ICMPV6_TYPES,
    PROTOCOLS,
    Type,
)
from policylang.packets.fields import (
    DCCP,
    ICMP,
    ICMPV6,
    OCTET,
    PORTS,
    SCTP,
    TCP,
    UDP,
    Field,
    with_flags,
)
from policylang.packets.values import Ranges

PORTED = Ranges.of(TCP, UDP, DCCP, SCTP)
PORT_FIELDS = {
    "sport": Field.SPORT,
    "dport": Field.DPORT,
    "sports": Field.SPORT,
    "dports": Field.DPORT,
}
OF_NAMES = {"tcp": TCP, "udp": UDP, "dccp": DCCP, "sctp": SCTP}

# tcp_flag_names of libxt_tcp
FLAG_BITS = {
    "FIN": 0x01,
    "SYN": 0x02,
    "RST": 0x04,
    "PSH": 0x08,
    "ACK": 0x10,
    "URG": 0x20,
    "ALL": 0x3F,
    "NONE": 0,
}
SYN_MASK, SYN_FLAGS = 0x17, 0x02  # --syn: SYN of FIN, SYN, RST and ACK

ANY_ICMP_TYPE = 255  # icmp_type_code_match of ip_tables.c: any type


def protocol(option: Option) -> Ranges:
    """The protocols of a `-p`; 0 is any (ip_packet_match of ip_tables.c)."""
    text = option.words[0]
    found = PROTOCOLS.get(text.lower())
    if found is None:
        found = number(text, 255)
    if found == 0:
        return OCTET if not option.negated else Ranges()
    return turned(Ranges.of(found), Field.L4PROTO, negated=option.negated)


def ported(match: Match, protocols: Ranges) -> Asked:
    """`-m tcp`, `-m udp`, `-m sctp` and `-m dccp`; the rule names the protocol."""
    own = OF_NAMES[match.name]
    parts = [of(Field.L4PROTO, Ranges.of(own))]
    if protocols.single != own:
        raise NotUnderstoodError(match.text)  # which iptables refuses
    for option in match.options:
        match option.name:
            case "sport" | "dport":
                field = PORT_FIELDS[option.name]
                values = Ranges((span(option.words[0], 65535),))
                parts.append(of(field, turned(values, field, negated=option.negated)))
            case "tcp-flags":
                mask, flags = (_flags(word) for word in option.words)
                parts.append(_flagged(mask, flags, negated=option.negated))
            case "syn":
                parts.append(_flagged(SYN_MASK, SYN_FLAGS, negated=option.negated))
            case _:
                parts.append(Asked().but_unknown(f"-m {match.name} {option.text}"))
    return all_of(parts)


def _flags(text: str) -> int:
    bits = 0
    for word in text.split(","):
        bits |= FLAG_BITS[word] if word in FLAG_BITS else number(word, 255)
    return bits


def _flagged(mask: int, flags: int, *, negated: bool) -> Asked:
    values = with_flags(mask, flags)
    return of(Field.TCP_FLAGS, turned(values, Field.TCP_FLAGS, negated=negated))


def multiport(match: Match, protocols: Ranges) -> Asked:
    """`-m multiport`, of the protocols that have ports here; `--ports` is either one."""
    if not match.options or not protocols or not PORTED.covers(protocols):
        raise NotUnderstoodError(match.text)
    parts: list[Asked] = []
    for option in match.options:
        values = Ranges.merged(span(word, 65535) for word in option.words[0].split(","))
        if option.name == "ports":
            sides = (Field.SPORT, Field.DPORT)
            if option.negated:
                parts.append(any_of([dict.fromkeys(sides, PORTS - values)]))
            else:
                parts.append(any_of([{field: values} for field in sides]))
            continue
        field = PORT_FIELDS[option.name]
        parts.append(of(field, turned(values, field, negated=option.negated)))
    return all_of(parts)


def icmp(match: Match, protocols: Ranges) -> Asked:
    """`--icmp-type TYPE[/CODE]` or a name; there is no field for codes."""
    return _message(match, protocols, ICMP, Field.ICMP_TYPE, ICMP_TYPES)


def icmpv6(match: Match, protocols: Ranges) -> Asked:
    """`--icmpv6-type TYPE[/CODE]` or a name."""
    return _message(match, protocols, ICMPV6, Field.ICMPV6_TYPE, ICMPV6_TYPES)


def _message(
    match: Match, protocols: Ranges, own: int, field: Field, names: dict[str, Type]
) -> Asked:
    if protocols.single != own or not match.options:
        raise NotUnderstoodError(match.text)
    parts: list[Asked] = []
    for option in match.options:
        kind, code = _type(option.words[0], names)
        if field is Field.ICMP_TYPE and kind in (None, ANY_ICMP_TYPE):
            parts.append(Asked(()) if option.negated else of(Field.L4PROTO, Ranges.of(own)))
            continue
        if kind is None:
            raise NotUnderstoodError(option.text)
        values = Ranges.of(kind)
        if code is None:
            parts.append(of(field, turned(values, field, negated=option.negated)))
        elif option.negated:  # another type, or this one with another code
            raise NotUnderstoodError(option.text)
        else:
            parts.append(of(field, values).but_unknown(f"-m {match.name} {option.text}"))
    return all_of(parts)


def _type(text: str, names: dict[str, Type]) -> tuple[int | None, int | None]:
    """The type and code of a word, None for any; a name may be cut short."""
    if text == "any":
        return None, None
    if text[:1].isdigit():
        first, slash, last = text.partition("/")
        return number(first, 255), number(last, 255) if slash else None
    if text in names:
        return names[text]
    found = {kind for name, kind in names.items() if name.lower().startswith(text.lower())}
    if not text or len(found) != 1:
        raise NotUnderstoodError(text)
    return found.pop()
