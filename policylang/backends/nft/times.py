"""Times of the week and last days as nft tests, whatever the time zone of the loading machine.

The kernel's clock is UTC, for the hour and the day alike. nft takes a number for what the kernel
counts (seconds since midnight, days since Sunday, seconds since 1970), but reads a time in
quotes as local and turns it into UTC with the offset that holds while it loads.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from policylang.backends.nft.spell import InexpressibleError, braces
from policylang.packets.values import Ranges

DAY_S = 24 * 60 * 60
# Of `TimeGuard.week_s`, which starts on Monday.
DAY_WORDS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
LAST_YEAR = 2261  # the kernel counts nanoseconds in 63 bits (ktime_t)


def in_week(week_s: Ranges, is_local: bool) -> list[str]:
    """The disjoint tests, one a line, that hold at these seconds of the week.

    The one test "" where that is always; none where it is never. Raises InexpressibleError for
    local times on some days, of which the kernel knows none.
    """
    found: list[str] = []
    for hours, days in _days_alike(week_s).items():
        if is_local and len(days) < len(DAY_WORDS):
            raise InexpressibleError(
                "match local times on some days of the week",
                help="write the time in UTC (`settings { time utc }`), or leave the days away",
            )
        on_days = "" if len(days) == len(DAY_WORDS) else f"meta day {_day_set(days)}"
        found += (f"{on_days} {at}".strip() for at in _at(hours, is_local))
    return found


def _days_alike(week_s: Ranges) -> dict[Ranges, list[int]]:
    """The hours, in seconds since midnight, with the days on which they are meant."""
    alike: dict[Ranges, list[int]] = {}
    for day in range(len(DAY_WORDS)):
        start = day * DAY_S
        that_day = week_s & Ranges.between(start, start + DAY_S - 1)
        hours = Ranges(tuple((low - start, high - start) for low, high in that_day))
        if hours:
            alike.setdefault(hours, []).append(day)
    return alike


def _day_set(days: list[int]) -> str:
    return braces([f'"{DAY_WORDS[day]}"' for day in days])


def _at(hours: Ranges, is_local: bool) -> list[str]:
    if hours == Ranges.between(0, DAY_S - 1):
        return [""]
    if not is_local:
        texts = [f"{low}-{high}" if low != high else f"{low}" for low, high in hours]
        return [f"meta hour {braces(texts)}"]
    # nft 1.0.6 takes no set of ranges of which one may go past midnight in UTC.
    return [f'meta hour "{_clock(low)}"-"{_clock(high)}"' for low, high in hours]


def _clock(second: int) -> str:
    return f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"


def until(last_day: date, is_local: bool) -> str:
    """The test that holds until the end of that day; raises InexpressibleError for late ones."""
    if last_day.year > LAST_YEAR:
        raise InexpressibleError(
            f"match times after the year {LAST_YEAR}", help="leave the condition away"
        )
    end = last_day + timedelta(days=1)
    if is_local:
        return f'meta time < "{end.isoformat()} 00:00:00"'
    return f"meta time < {int(datetime(end.year, end.month, end.day, tzinfo=UTC).timestamp())}"
