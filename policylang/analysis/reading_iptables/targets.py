"""What targets do: acts of one rule, those that translate apart; knows no match."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from policylang.analysis.machine import Act, AddTo, CopyMark, Obscure
from policylang.analysis.reading_iptables.asking import NotUnderstoodError
from policylang.analysis.reading_iptables.members import Sets, set_fields
from policylang.analysis.reading_iptables.numbers import address, masked, number
from policylang.analysis.reading_iptables.options import Match
from policylang.analysis.reading_iptables.protocols import DSCP_CLASSES
from policylang.ir.actions import (
    Accept,
    Answer,
    AssignHelper,
    ClampMss,
    Drop,
    Log,
    Queue,
    Reject,
    SetConnectionMark,
    SetDscp,
    SetMark,
    TransparentProxy,
    Untrack,
)
from policylang.packets.fields import TCP, UDP
from policylang.packets.values import Ranges

ALL_BITS = 0xFFFF_FFFF
DSCP_BITS = 0xFC

# libipt_REJECT, libip6t_REJECT: names and short names; a name may be cut short.
ANSWERS: Mapping[int, Mapping[str, Answer]] = {
    4: {
        "icmp-net-unreachable": Answer.NET_UNREACHABLE,
        "icmp-host-unreachable": Answer.HOST_UNREACHABLE,
        "icmp-port-unreachable": Answer.PORT_UNREACHABLE,
        "icmp-admin-prohibited": Answer.ADMIN_PROHIBITED,
        "tcp-reset": Answer.TCP_RESET,
        "net-unreach": Answer.NET_UNREACHABLE,
        "host-unreach": Answer.HOST_UNREACHABLE,
        "port-unreach": Answer.PORT_UNREACHABLE,
        "admin-prohib": Answer.ADMIN_PROHIBITED,
        "tcp-rst": Answer.TCP_RESET,
    },
    6: {
        "icmp6-no-route": Answer.NET_UNREACHABLE,
        "icmp6-adm-prohibited": Answer.ADMIN_PROHIBITED,
        "icmp6-addr-unreachable": Answer.HOST_UNREACHABLE,
        "icmp6-port-unreachable": Answer.PORT_UNREACHABLE,
        "tcp-reset": Answer.TCP_RESET,
        "no-route": Answer.NET_UNREACHABLE,
        "adm-prohibited": Answer.ADMIN_PROHIBITED,
        "addr-unreach": Answer.HOST_UNREACHABLE,
        "port-unreach": Answer.PORT_UNREACHABLE,
    },
}
# Answers that are none of ours, and the one that says nearly the same.
NEAR: Mapping[int, Mapping[str, Answer]] = {
    4: {
        "icmp-proto-unreachable": Answer.PORT_UNREACHABLE,
        "icmp-net-prohibited": Answer.ADMIN_PROHIBITED,
        "icmp-host-prohibited": Answer.ADMIN_PROHIBITED,
        "proto-unreach": Answer.PORT_UNREACHABLE,
        "net-prohib": Answer.ADMIN_PROHIBITED,
        "host-prohib": Answer.ADMIN_PROHIBITED,
    },
    6: {
        "icmp6-policy-fail": Answer.ADMIN_PROHIBITED,
        "icmp6-reject-route": Answer.NET_UNREACHABLE,
        "policy-fail": Answer.ADMIN_PROHIBITED,
        "reject-route": Answer.NET_UNREACHABLE,
    },
}

# By syslog's number; the fourth is what a log without a level has (libxt_LOG).
LEVELS = ("emerg", "alert", "crit", "err", None, "notice", "info", "debug")
LEVEL_NAMES = {
    **{name: name for name in LEVELS if name is not None},
    "panic": "emerg",
    "error": "err",
    "warn": None,
    "warning": None,
}

# What goes on behind these, with or without something changed that is no field here.
GOES_ON = {
    *("AUDIT", "CHECKSUM", "CLASSIFY", "CONNSECMARK", "ECN", "HL", "HMARK", "IDLETIMER", "LED"),
    *("RATEEST", "SECMARK", "TCPOPTSTRIP", "TEE", "TOS", "TRACE", "TTL", "ULOG"),
}


# The matches that find otherwise behind a target of which it is not known what it sets.
_MARKS, _CODES = frozenset({"mark", "connmark"}), frozenset({"dscp", "tos"})
CHANGES: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("MARK", "CONNMARK", "HMARK"), _MARKS),
    **dict.fromkeys(("DSCP", "TOS", "ECN"), _CODES),
    "HL": frozenset({"hl"}),
    "TTL": frozenset({"ttl"}),
    "SET": _MARKS | {"set"},
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a target stands: in which family, and behind which `-p` and other matches."""

    family: int
    protocols: Ranges
    asked: frozenset[str]  # the matches that rules of the family ask


@dataclass(frozen=True, slots=True)
class Turn:
    """These bits of the packet's mark are turned round, which no single act does."""

    bits: int


def acts(name: str, done: Match, place: Place, sets: Sets) -> tuple[Act | Turn, ...]:
    """What a target does, one after the other; what is not understood is `Obscure`."""
    try:
        found = _ACTS.get(name)
        if found is not None:
            return (found(done, place),)
        if name == "REJECT":
            return _reject(done, place)
        if name == "SET":
            return _set(done, sets)
        if name == "MARK":
            return tuple(_mark(done))
    except NotUnderstoodError:
        pass
    return (obscure(name, done, place.asked),)


def obscure(name: str, done: Match, asked: frozenset[str]) -> Obscure:
    """A target by its text.

    Where it changes what one of the matches `asked` may find, anything may come of the packet.
    """
    goes_on = name in GOES_ON or name in _CONTINUING
    goes_on = goes_on and not asked & CHANGES.get(name, frozenset())
    return Obscure(f"{name} {done.text}".strip(), may_decide=not goes_on)


def _plain(act: Act) -> Callable[[Match, Place], Act]:
    def made(done: Match, place: Place) -> Act:
        del place
        if done.options:
            raise NotUnderstoodError(done.text)
        return act

    return made


def _reject(done: Match, place: Place) -> tuple[Act, ...]:
    """Without `--reject-with` a port is unreachable."""
    word = done.word("reject-with")
    if word is None:
        return (Reject(Answer.PORT_UNREACHABLE),)
    exact, near = ANSWERS[place.family], NEAR[place.family]
    names = {**exact, **near}
    if word not in names:  # the first that begins so
        word = next((name for name in names if name.startswith(word.lower())), word)
    if word in exact:
        return (Reject(exact[word]),)
    if word in near:
        return (Obscure(f"REJECT answers {word}", may_decide=False), Reject(near[word]))
    raise NotUnderstoodError(done.text)


def _log(done: Match, place: Place) -> Act:
    """What else is written into a line of the log is no matter of packets."""
    del place
    return Log(done.word("log-prefix") or "", _level(done.word("log-level")))


def _level(text: str | None) -> str | None:
    if text is None:
        return None
    if text.isdigit():
        return LEVELS[number(text, 7)]
    if text.lower() not in LEVEL_NAMES:
        raise NotUnderstoodError(text)
    return LEVEL_NAMES[text.lower()]


def _nflog(done: Match, place: Place) -> Act:
    del place
    group = number(done.word("nflog-group") or "0", 65535)
    return Log(done.word("nflog-prefix") or "", group=group)


def _ct(done: Match, place: Place) -> Act:
    names = {option.name for option in done.options}
    if names == {"notrack"}:
        return Untrack()
    protocol = place.protocols.single
    helper = done.word("helper")
    if names != {"helper"} or helper is None or protocol is None:
        raise NotUnderstoodError(done.text)
    return AssignHelper(helper, protocol)


def _bits(done: Match) -> tuple[int, int, int]:
    """The value and mask of a change of marks, and the bits outside of it that are turned round.

    mark_tg of xt_mark.c: `--set-xmark` clears the mask's bits and turns the value's round, which
    is to set them where they are in the mask; `--set-mark` clears both.
    """
    if len(done.options) != 1:
        raise NotUnderstoodError(done.text)
    (option,) = done.options
    text = option.words[0] if option.words else ""
    match option.name:
        case "set-mark":
            value, mask = masked(text)
            return value, mask | value, 0
        case "set-xmark":
            value, mask = masked(text)
            return value & mask, mask, value & ~mask
        case "and-mark":
            return 0, ~number(text) & ALL_BITS, 0
        case "or-mark":
            return number(text), number(text), 0
        case "xor-mark":
            return 0, 0, number(text)
        case _:
            raise NotUnderstoodError(done.text)


def _mark(done: Match) -> Iterator[Act | Turn]:
    value, mask, turned = _bits(done)
    if mask or not turned:
        yield SetMark(value, mask)
    if turned:
        yield Turn(turned)


def _connection_mark(done: Match, place: Place) -> Act:
    del place
    names = {option.name for option in done.options}
    if names & {"save-mark", "restore-mark"}:
        return _copied(done, names)
    value, mask, turned = _bits(done)
    if turned:
        raise NotUnderstoodError(done.text)
    return SetConnectionMark(value, mask)


def _copied(done: Match, names: set[str]) -> Act:
    """One mark from the other; connmark_tg_shift of xt_connmark.c, where both masks are one."""
    both = done.word("mask") or "0xffffffff"
    masks = {number(done.word(name) or both) for name in ("nfmask", "ctmask")}
    if len(masks) > 1 or names - {"save-mark", "restore-mark", "mask", "nfmask", "ctmask"}:
        raise NotUnderstoodError(done.text)
    if {"save-mark", "restore-mark"} <= names:
        raise NotUnderstoodError(done.text)
    return CopyMark("save-mark" in names, masks.pop())


def _dscp(done: Match, place: Place) -> Act:
    del place
    name = done.word("set-dscp-class")
    if name is None:
        return SetDscp(number(done.word("set-dscp") or "", 63))
    if name.upper() not in DSCP_CLASSES:
        raise NotUnderstoodError(name)
    return SetDscp(DSCP_CLASSES[name.upper()])


def _tos(done: Match, place: Place) -> Act:
    """A code point, where the mask is of the code point's bits alone."""
    del place
    value_text, _, mask_text = (done.word("set-tos") or "").partition("/")
    if not mask_text or number(mask_text, 255) != DSCP_BITS or number(value_text, 255) & 3:
        raise NotUnderstoodError(done.text)
    return SetDscp(number(value_text, 255) >> 2)


def _clamp(done: Match, place: Place) -> Act:
    del place
    if done.get("clamp-mss-to-pmtu") is not None:
        return ClampMss(None)
    return ClampMss(number(done.word("set-mss") or "", 65535))


def _proxy(done: Match, place: Place) -> Act:
    """To a port of this host, whatever address it has there."""
    port, to = number(done.word("on-port") or "0", 65535), done.word("on-ip")
    protocol = place.protocols.single
    if port == 0 or protocol not in (TCP, UDP):
        raise NotUnderstoodError(done.text)
    if to is not None and address(to, place.family) != address(
        _NOWHERE[place.family], place.family
    ):
        raise NotUnderstoodError(done.text)
    # tproxy_tg_parse of libxt_TPROXY: no mark is one with no bits.
    value, mask = masked(done.word("tproxy-mark") or "0/0")
    if value & ~mask:
        raise NotUnderstoodError(done.text)
    return TransparentProxy(port, protocol, value, mask)


_NOWHERE = {4: "0.0.0.0", 6: "::"}


def _queue(done: Match, place: Place) -> Act:
    del place
    may_bypass = done.get("queue-bypass") is not None
    low, colon, high = (done.word("queue-balance") or "").partition(":")
    if colon:
        return Queue(number(low, 65535), number(high, 65535), may_bypass)
    only = number(done.word("queue-num") or "0", 65535)
    return Queue(only, only, may_bypass)


def _set(done: Match, sets: Sets) -> tuple[Act, ...]:
    """What is put into a set; one without time-outs keeps it for ever."""
    added = done.get("add-set")
    rest = {option.name for option in done.options} - {"add-set", "exist", "timeout"}
    if added is None or rest or len(added.words) < 2:
        raise NotUnderstoodError(done.text)
    name, flags = added.words
    ipset = sets.by_name.get(name)
    if ipset is None:
        raise NotUnderstoodError(name)
    timeout = done.word("timeout")
    timeout_s = None if timeout is None else number(timeout)
    return (AddTo(name, set_fields(ipset, flags.split(",")), timeout_s),)


_ACTS: dict[str, Callable[[Match, Place], Act]] = {
    "ACCEPT": _plain(Accept()),
    "DROP": _plain(Drop()),
    "NOTRACK": _plain(Untrack()),
    "LOG": _log,
    "NFLOG": _nflog,
    "CT": _ct,
    "CONNMARK": _connection_mark,
    "DSCP": _dscp,
    "TOS": _tos,
    "TCPMSS": _clamp,
    "TPROXY": _proxy,
    "NFQUEUE": _queue,
}
_CONTINUING = {"LOG", "NFLOG", "CT", "NOTRACK", "MARK", "CONNMARK", "DSCP", "TCPMSS", "SET"}
