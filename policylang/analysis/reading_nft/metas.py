"""What matches read that is in no header: interfaces, marks, owners, lengths and the time."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta

from policylang.analysis.machine import (
    CgroupIs,
    Condition,
    Hook,
    MarkIs,
    NotAfter,
    OwnerIs,
    WeekTimeIs,
)
from policylang.analysis.reading_nft import kinds, words
from policylang.analysis.reading_nft.cases import ALWAYS, Cases, NotUnderstoodError, asked
from policylang.analysis.reading_nft.headers import THERE
from policylang.analysis.reading_nft.kinds import Kind, numbers
from policylang.analysis.reading_nft.listing import Json
from policylang.analysis.reading_nft.phrases import phrase
from policylang.analysis.reading_nft.scope import Scope
from policylang.analysis.reading_nft.selectors import (
    Selector,
    constant,
    mapped,
    of_field,
    of_word,
)
from policylang.packets.fields import Field
from policylang.packets.values import Range, Ranges

DAY_S = 86_400
DAY = Ranges.between(0, DAY_S - 1)
# Hooks at which a packet has no interface of one side: its name is empty then.
WITHOUT_OIF = frozenset({Hook.PREROUTING, Hook.INPUT})
WITHOUT_IIF = frozenset({Hook.OUTPUT})


def meta(key: str, scope: Scope) -> Selector:
    """A selector of `meta`; raises NotUnderstoodError."""
    said = f"meta {key}"
    match key:
        case "iifname" | "iif":
            return _interface(key, Field.IIF, scope, WITHOUT_IIF)
        case "oifname" | "oif":
            return _interface(key, Field.OIF, scope, WITHOUT_OIF)
        case "l4proto":
            return of_field(said, kinds.PROTOCOL, Field.L4PROTO)
        case "nfproto":
            return mapped(said, kinds.NFPROTO, {2: 4, 10: 6}, Field.FAMILY)
        case "protocol":
            return mapped(said, kinds.ETHERTYPE, {0x0800: 4, 0x86DD: 6}, Field.FAMILY)
        case "length":
            return of_field(said, kinds.PORT, Field.SIZE)
        case "mark":
            return of_word(said, kinds.NUMBER, MarkIs)
        case "ipsec" | "secpath":
            return of_field(said, THERE, Field.IPSEC)
        case "skuid":
            return _owner(said, "user")
        case "skgid":
            return _owner(said, "group")
        case "day":
            return Selector(said, WEEKDAY, _days)
        case "hour":
            return Selector(said, _hour(scope.utc_offset_s), _hours)
    raise NotUnderstoodError(said)


def _interface(key: str, field: Field, scope: Scope, without: frozenset[Hook]) -> Selector:
    kind = kinds.NAME if key.endswith("name") else INDEX
    if scope.hooks and scope.hooks <= without:
        return constant(key, kind, 0)
    return of_field(key, kind, field)


def _index(said: Json) -> Range:
    """An interface that nft lists by its name; 0 is none, other numbers are of none that is there.

    Raises NotUnderstoodError.
    """
    if said in (0, "0"):
        return 0, 0
    if not isinstance(said, str) or said.isdigit():
        raise NotUnderstoodError(phrase(said))
    low, _ = kinds.NAME.read(f"{said}\\*" if said.endswith("*") else said)
    return low, low


INDEX = Kind(kinds.NAME.universe, _index, 128)


def _owner(said: str, kind: str) -> Selector:
    """A packet that no local process sends has no owner, and fails every test of it."""

    def meaning(values: Ranges) -> Cases:
        return asked(Condition(OwnerIs(kind, values)))

    return Selector(said, kinds.NUMBER, meaning)


# --- the time -----------------------------------------------------------------------------------


DAYS = len(words.DAYS)


def _days(values: Ranges) -> Cases:
    """Of days as the kernel counts them, from Sunday on."""
    numbers = (n for low, high in values for n in range(low, high + 1))
    starts = [(n - words.DAYS["Monday"]) % DAYS * DAY_S for n in numbers]
    return _in_week([(start, start + DAY_S - 1) for start in starts])


def _in_week(seconds: list[Range]) -> Cases:
    week_s = Ranges.merged(seconds)
    return ALWAYS if week_s == WEEK else asked(Condition(WeekTimeIs(week_s)))


WEEK = Ranges.between(0, DAYS * DAY_S - 1)
WEEKDAY = numbers(Ranges.between(0, DAYS - 1), 8, words.DAYS)


def _hours(values: Ranges) -> Cases:
    starts = range(0, DAYS * DAY_S, DAY_S)
    return _in_week([(start + low, start + high) for start in starts for low, high in values])


def _hour(utc_offset_s: int) -> Kind:
    """Seconds of the day in UTC, as the kernel counts them; nft lists them in local time."""
    return Kind(DAY, _seconds(utc_offset_s), 32, wraps=True)


def _seconds(utc_offset_s: int) -> Callable[[Json], Range]:
    def read(said: Json) -> Range:
        if isinstance(said, int) and not isinstance(said, bool) and 0 <= said < DAY_S:
            return said, said
        clock = _CLOCK.fullmatch(said) if isinstance(said, str) else None
        if clock is None:
            raise NotUnderstoodError(phrase(said))
        hour, minute, second = (int(part or 0) for part in clock.groups())
        at = (hour * 3600 + minute * 60 + second - utc_offset_s) % DAY_S
        return at, at

    return read


_CLOCK = re.compile(r"(\d\d?):(\d\d)(?::(\d\d))?")


def until(operator: str, said: Json, utc_offset_s: int) -> Cases:
    """A match of `meta time`, where it is that a day has not ended; raises NotUnderstoodError."""
    text = f"meta time {operator} {phrase(said)}"
    if operator not in ("<", ">="):
        raise NotUnderstoodError(text)
    try:
        end = datetime.fromisoformat(str(said)) - timedelta(seconds=utc_offset_s)
        last = end.date() - timedelta(days=1)
    except (ValueError, OverflowError):
        raise NotUnderstoodError(text) from None
    if end.tzinfo is not None or end.time() != datetime.min.time():
        raise NotUnderstoodError(text)
    return asked(Condition(NotAfter(last, is_local=False), holds=operator == "<"))


def cgroup(operator: str, said: Json) -> Cases:
    """A match of `socket cgroupv2`; raises NotUnderstoodError.

    What has no socket fails it, so that the opposite cannot be asked.
    """
    path = str(said).strip("/")
    if operator != "==" or not isinstance(said, str) or not path or path.isdigit():
        raise NotUnderstoodError(f"socket cgroupv2 {operator} {phrase(said)}")
    return asked(Condition(CgroupIs(path)))
