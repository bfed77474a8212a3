"""Whether what a question asks beside its packets is so on this machine now."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from policylang.ir import actions as ir
from policylang.ir.actions import Guard

DAY_S = 86_400


def obstacle(guards: Iterable[Guard], now: datetime) -> str | None:
    """What keeps packets of a question from being made now, as a sentence; `now` has its zone."""
    for guard in guards:
        match guard:
            case ir.TimeGuard(week_s, is_local):
                told = _as_told(now, is_local=is_local)
                day_s = (told.hour * 60 + told.minute) * 60 + told.second
                if told.weekday() * DAY_S + day_s not in week_s:
                    return "it is about another time of the week than now"
            case ir.UntilGuard(last_day, is_local):
                if _as_told(now, is_local=is_local).date() > last_day:
                    return "it is about a time that is over"
            case ir.CgroupGuard(path):
                return f"nothing is sent from the cgroup `{path}` here"
            case _:
                pass
    return None


def _as_told(now: datetime, *, is_local: bool) -> datetime:
    return now.astimezone(None if is_local else UTC)
