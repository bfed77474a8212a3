"""What is asked of marks, and of the process that a packet is of."""

from __future__ import annotations

from collections.abc import Mapping

from policylang.analysis.machine import CgroupIs, ConnectionMarkIs, MarkIs, OwnerIs, Unknown
from policylang.analysis.reading_iptables.asking import (
    EVERY,
    NONE,
    Asked,
    NotUnderstoodError,
    all_of,
    of,
    where,
)
from policylang.analysis.reading_iptables.connections import TRACKED
from policylang.analysis.reading_iptables.numbers import decimal, masked
from policylang.analysis.reading_iptables.options import Match
from policylang.packets.fields import Field
from policylang.packets.values import Ranges

Owners = Mapping[tuple[str, str], int]  # by kind (user, group) and name: its number

KINDS = {"uid-owner": "user", "gid-owner": "group"}
ID_MOST = (1 << 32) - 2  # libxt_owner: UINT32_MAX is nobody


def mark(match: Match) -> Asked:
    """`-m mark`."""
    value, mask, negated = _mark(match)
    if value & ~mask or not mask:
        return EVERY if (not value & ~mask) is not negated else NONE
    return where(MarkIs(value, mask), holds=not negated)


def connection_mark(match: Match) -> Asked:
    """`-m connmark`, which no packet without a connection meets (connmark_mt of xt_connmark.c).

    To ask for other bits than zero is to ask for a connection.
    """
    value, mask, negated = _mark(match)
    tracked = of(Field.CT_STATE, TRACKED)
    if value & ~mask or not mask:
        return tracked if (not value & ~mask) is not negated else NONE
    asked = where(ConnectionMarkIs(value, mask), holds=not negated)
    return asked if (value != 0) is not negated else all_of([asked, tracked])


def _mark(match: Match) -> tuple[int, int, bool]:
    option = match.get("mark")
    if option is None:
        raise NotUnderstoodError(match.text)
    return *masked(option.words[0]), option.negated


def owner(match: Match, known: Owners) -> Asked:
    """`-m owner`; what is of no local process has no owner, and meets each that is turned.

    A name is no number yet, unless it is in `known`: the machine that loads the rules looks it up.
    """
    parts: list[Asked] = []
    for option in match.options:
        if option.name not in KINDS:
            raise NotUnderstoodError(match.text)
        kind, text = KINDS[option.name], option.words[0]
        if not text[:1].isdigit() and (kind, text) not in known:
            parts.append(where(Unknown(f"{kind} {text}"), holds=not option.negated))
            continue
        ids = Ranges.of(known[kind, text]) if (kind, text) in known else _ids(text)
        parts.append(where(OwnerIs(kind, ids), holds=not option.negated))
    if not parts:
        raise NotUnderstoodError(match.text)
    return all_of(parts)


def _ids(text: str) -> Ranges:
    low, _, high = text.partition("-")
    return Ranges.between(decimal(low, ID_MOST), decimal(high or low, ID_MOST))


def cgroup(match: Match) -> Asked:
    """`-m cgroup --path`; what is of no local process meets it neither way (xt_cgroup.c)."""
    option = match.get("path")
    if option is None or len(match.options) != 1:
        raise NotUnderstoodError(match.text)
    asked = where(CgroupIs(option.words[0].strip("/")), holds=not option.negated)
    return asked.but_unknown(match.text) if option.negated else asked
