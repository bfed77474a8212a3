"""Guards as nft says them: conditions that only look, and measures that keep count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from policylang.backends.nft import times
from policylang.backends.nft.spell import HEADERS, braces, value
from policylang.ir.actions import (
    UNIT_S,
    CgroupGuard,
    ConnectionMarkGuard,
    ConnectionsGuard,
    End,
    Guard,
    MarkGuard,
    OwnerGuard,
    Per,
    RateGuard,
    TimeGuard,
    UntilGuard,
)
from policylang.packets.fields import Field
from policylang.packets.values import V6_BASE, Range, format_address

Measure = RateGuard | ConnectionsGuard
Condition = OwnerGuard | CgroupGuard | MarkGuard | ConnectionMarkGuard | TimeGuard | UntilGuard

FULL_MARK = (1 << 32) - 1
BITS = {4: 32, 6: 128}


def conditions(guard: Condition) -> list[str]:
    """The disjoint tests, one a line, of which one holds where the guard does.

    The one test "" where it always does. Raises InexpressibleError.
    """
    match guard:
        case OwnerGuard(kind, ids, names):
            owners = [_number(pair) for pair in ids] + [f'"{name}"' for name in names]
            word = {"user": "skuid", "group": "skgid"}[kind]
            return [f"meta {word} {braces(owners)}"] if owners else []
        case CgroupGuard(path):
            return [f'socket cgroupv2 level {path.count("/") + 1} "{path}"']
        case MarkGuard(mark, mask):
            return [f"meta mark {_masked(mark, mask)}"]
        case ConnectionMarkGuard(mark, mask):
            return [f"ct mark {_masked(mark, mask)}"]
        case TimeGuard(week_s, is_local):
            return times.in_week(week_s, is_local)
        case UntilGuard(last_day, is_local):
            return [times.until(last_day, is_local)]
        case _:
            assert_never(guard)


def _masked(mark: int, mask: int) -> str:
    return f"{'' if mask == FULL_MARK else f'& {mask:#x} == '}{mark:#x}"


def _number(pair: Range) -> str:
    return value(Field.SIZE, pair)  # plain numbers


def told_apart(guards: tuple[Guard, ...]) -> tuple[list[Condition], list[Measure]]:
    """The conditions and the measures, each in order; measures are asked last."""
    measures = [g for g in guards if isinstance(g, Measure)]
    return [g for g in guards if not isinstance(g, Measure)], measures


@dataclass(frozen=True, slots=True)
class Table:
    """What a measure keeps for each address: `key` is the expression it is kept by.

    `timeout_s` is after how long an element that nothing touched says what a new one would; None
    where the kernel itself forgets it.
    """

    kind: str  # rates, counts
    key: str
    timeout_s: int | None


def table(measure: Measure, family: int) -> Table | None:
    """The table that a measure needs for packets of a family, or None where it needs none."""
    key = None if measure.per is None else _key(measure.per, family)
    if key is None:
        return None
    if isinstance(measure, ConnectionsGuard):
        return Table("counts", key, None)
    filling_s = -(-measure.burst * UNIT_S[measure.unit] // measure.count)
    return Table("rates", key, filling_s + 1)


def _key(per: Per, family: int) -> str | None:
    """The masked address; None where the mask leaves nothing of it to tell apart."""
    bits = BITS[family]
    length = per.prefix_len_v4 if family == 4 else per.prefix_len_v6
    address = f"{HEADERS[family]} {ADDRESS_WORDS[per.end]}"
    if length == 0:
        return None
    if length == bits:
        return address
    mask = (1 << bits) - (1 << (bits - length))
    return f"{address} & {format_address(mask + (V6_BASE if family == 6 else 0))}"


ADDRESS_WORDS = {End.SOURCE: "saddr", End.DESTINATION: "daddr"}


def measured(measure: Measure, over: bool) -> str:
    """The statement that keeps count and goes on up to the measure, or `over` it."""
    beyond = "over " if over else ""
    if isinstance(measure, ConnectionsGuard):
        return f"ct count {beyond}{measure.count}"
    rate = f"{measure.count}/{measure.unit}"
    return f"limit rate {beyond}{rate} burst {measure.burst} packets"


def duration(seconds: int) -> str:
    """A time as nft reads it."""
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
