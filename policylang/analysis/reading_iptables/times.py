"""What `-m time` asks: seconds of the week, and until which day."""

from __future__ import annotations

import re
from datetime import date

from policylang.analysis.machine import NotAfter, WeekTimeIs
from policylang.analysis.reading_iptables.asking import (
    NONE,
    Asked,
    NotUnderstoodError,
    all_of,
    where,
)
from policylang.analysis.reading_iptables.numbers import decimal
from policylang.analysis.reading_iptables.options import Match
from policylang.packets.values import Ranges

DAY_S = 86_400
WEEK_S = 7 * DAY_S
WEEK = Ranges.between(0, WEEK_S - 1)
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)T23:59:59")
NEVER = "2038-01-19T03:14:07"  # what libxt_time lists where no last second is given (INT_MAX)
_LOCAL = {"kerneltz", "localtz"}
_UNDERSTOOD = {"timestart", "timestop", "weekdays", "datestop", "utc", "contiguous", *_LOCAL}


def time(match: Match) -> Asked:
    """The seconds of the week and the last day; other dates and days of the month are no field.

    As time_mt of xt_time.c: both ends belong to a window; one that does not start before it stops
    spans midnight, and is cut by the days unless it is `--contiguous`.
    """
    is_local = any(option.name in _LOCAL for option in match.options)
    parts: list[Asked] = []
    week_s = _week(match)
    if not week_s:
        return NONE
    if week_s != WEEK:
        parts.append(where(WeekTimeIs(week_s, is_local)))
    stop = match.word("datestop")
    if stop is not None and stop != NEVER:
        found = _DATE.fullmatch(stop)
        if found is None:
            raise NotUnderstoodError(match.text)
        try:
            last = date(*map(int, found.groups()))
        except ValueError:
            raise NotUnderstoodError(match.text) from None
        parts.append(where(NotAfter(last, is_local)))
    others = [option.text for option in match.options if option.name not in _UNDERSTOOD]
    asked = all_of(parts)
    return asked.but_unknown(f"-m time {' '.join(others)}") if others else asked


def _week(match: Match) -> Ranges:
    start, stop = _clock(match.word("timestart"), 0), _clock(match.word("timestop"), DAY_S - 1)
    days = _days(match)
    windows = [(start, stop)] if start < stop else [(0, stop), (start, DAY_S - 1)]
    carries = match.get("contiguous") is not None and start >= stop
    pairs: list[tuple[int, int]] = []
    for day in days:
        for low, high in windows:
            # What comes before the end of a window over midnight counts as the day before.
            of_day = (day + 1) % 7 if carries and (low, high) == windows[0] else day
            pairs.append((of_day * DAY_S + low, of_day * DAY_S + high))
    return Ranges.merged(pairs)


def _clock(text: str | None, otherwise: int) -> int:
    if text is None:
        return otherwise
    parts = [decimal(part, 60) for part in text.split(":")]
    if not 2 <= len(parts) <= 3 or parts[0] > 23 or max(parts[1:]) > 59:
        raise NotUnderstoodError(text)
    hours, minutes, *seconds = parts
    return hours * 3600 + minutes * 60 + sum(seconds)


def _days(match: Match) -> list[int]:
    option = match.get("weekdays")
    if option is None:
        return list(range(7))
    chosen: set[int] = set()
    for word in option.words[0].split(","):
        if word.isdigit():
            chosen.add(decimal(word, 7) - 1)
            continue
        # libxt_time takes a name by its first two letters.
        found = [n for n, name in enumerate(WEEKDAYS) if word[:2].lower() == name[:2]]
        if len(found) != 1:
            raise NotUnderstoodError(match.text)
        chosen.add(found[0])
    if -1 in chosen:
        raise NotUnderstoodError(match.text)
    return [day for day in range(7) if (day in chosen) is not option.negated]
